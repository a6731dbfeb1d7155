//! The last good copy of the registry, beside the store: what a damaged store is answered from.
//!
//! It is a database of the same tables, without the journal. Each is made from rows whose sums are right, under
//! another name, is made durable, and then takes the place of the one before.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};
use tracing::warn;

use super::file::{self, Content, Flaw};

/// What is added to the store's name.
const GOOD: &str = "good";

/// The same for the note that a write has met damage.
const SUSPECT: &str = "suspect";

/// The pause after a copy: what was promised since the last one is lost if the store is damaged now.
const PAUSE: Duration = Duration::from_millis(500);

/// If a copy takes long, the pause is this many times as long: copies never take more than a twentieth of the disk.
const SHARE: u32 = 20;

/// The pause after a copy that could not be made.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the copy of a store is.
pub(super) fn path_of(store: &Path) -> PathBuf {
    with(store, GOOD)
}

/// Notes for the next start that a write has met damage in the store: nobody but it can put the store aside.
pub(super) fn suspect(store: &Path, why: &str) {
    if let Err(error) = fs::write(with(store, SUSPECT), why) {
        warn!("failed to note that the store is damaged: {error}");
    }
}

/// What an earlier supervisor has noted.
pub(super) fn suspicion(store: &Path) -> Option<String> {
    fs::read_to_string(with(store, SUSPECT)).ok()
}

/// Forgets that, once the store is another.
pub(super) fn forget_suspicion(store: &Path) -> io::Result<()> {
    match fs::remove_file(with(store, SUSPECT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// `supervisor.db` with something added.
pub(super) fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Reads the copy. `None`: there is none.
pub(super) fn read(path: &Path) -> Option<Result<Content, Flaw>> {
    if !path.exists() {
        return None;
    }
    Some((|| {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        match file::schema(&db)? {
            file::SCHEMA => file::check(&db)?,
            older => return Err(Flaw::Damaged(format!("it has schema {older}"))),
        }
        file::read(&db)
    })())
}

/// Makes a database file of `content` at `path`, wholly durable or not at all; `more` may add to it.
pub(super) fn make(
    path: &Path,
    content: &Content,
    more: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), MakeError> {
    let new = with(path, "new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    let outcome = (|| {
        let mut db = Connection::open(&new)?;
        // Nobody sees it before it is whole, so that it needs no journal of its own.
        db.pragma_update(None, "journal_mode", "MEMORY")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        let transaction = db.transaction()?;
        file::upgrade(&transaction, 0)?;
        file::fill(&transaction, content)?;
        more(&transaction)?;
        transaction.commit()?;
        db.close().map_err(|(_, error)| error)
    })();
    if let Err(error) = outcome {
        // Half a copy only takes room.
        let _ = fs::remove_file(&new);
        return Err(error.into());
    }
    Ok(())
}

/// Gives what [`make`] made its place.
pub(super) fn place(path: &Path) -> io::Result<()> {
    fs::rename(with(path, "new"), path)?;
    sync_directory(path)
}

/// Makes the names in the directory of `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// SQLite could not.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// It could not be put in its place.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes copies in time, and not too often.
#[derive(Debug)]
pub(super) struct Copier {
    path: PathBuf,
    /// When the next one is made, if the store has changed since the last.
    due: Option<Instant>,
    /// No copy before.
    earliest: Instant,
    /// The last attempt failed, and the log says so.
    failing: bool,
}

impl Copier {
    /// For the store at `store`; the first copy is due soon.
    pub(super) fn new(store: &Path) -> Self {
        let earliest = Instant::now() + PAUSE;
        Self { path: path_of(store), due: Some(earliest), earliest, failing: false }
    }

    /// The registry has changed.
    pub(super) fn note_change(&mut self) {
        self.due.get_or_insert(self.earliest);
    }

    /// When [`copy`](Self::copy) is to be called, if at all.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Copies the registry of `db`. What fails is tried again later.
    pub(super) fn copy(&mut self, db: &Connection) {
        let began = Instant::now();
        let outcome = self.attempt(db);
        let now = Instant::now();
        match outcome {
            Ok(()) => {
                self.failing = false;
                self.due = None;
                self.earliest = now + PAUSE.max((now - began) * SHARE);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let path = self.path.display();
                    warn!("failed to copy the registry to `{path}`, and tries again: {error}");
                }
                self.earliest = now + PATIENCE;
                self.due = Some(self.earliest);
            }
        }
    }

    fn attempt(&self, db: &Connection) -> Result<(), String> {
        let snapshot = db.unchecked_transaction().map_err(|error| error.to_string())?;
        let content = file::read(&snapshot).map_err(|flaw| flaw.to_string())?;
        make(&self.path, &content, |_| Ok(())).map_err(|error| error.to_string())?;
        place(&self.path).map_err(|error| error.to_string())
    }
}
