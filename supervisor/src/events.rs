//! What happened, read from the journal.
//!
//! The store writes entries into the `events` table of its SQLite file, and deletes the oldest when there are
//! too many. Readers have a read-only connection of their own, so that they never hold up the store. Nothing
//! is seen here before it is durable, and `latest` says how far that is.

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use tokio::{
    sync::{Mutex, watch},
    task,
};

/// Where the file is, below the data directory.
const FILE: &str = "supervisor.db";

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the history.
    pub revision: u64,
    /// When, in nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// To whom; empty for the supervisor itself.
    pub instance: String,
    /// To which incarnation; 0 if to none.
    pub incarnation: u64,
    /// Its stable machine name.
    pub kind: String,
    /// The number of the API's `Severity`.
    pub severity: i32,
    /// One sentence.
    pub message: String,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only later ones than this revision.
    pub after: u64,
    /// Only up to this one.
    pub until: Option<u64>,
    /// Only theirs.
    pub whose: Whose,
    /// At most so many.
    pub limit: usize,
    /// Which of them, if there are more.
    pub which: Which,
}

/// Which events are wanted of more than may be given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Which {
    /// The oldest.
    #[default]
    Oldest,
    /// The newest.
    Newest,
}

/// Whose events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Whose {
    /// Everyone's, the supervisor's own included.
    #[default]
    All,
    /// This instance's.
    One(String),
    /// These instances'. All events are looked at on the way.
    Some(Vec<String>),
}

/// Some events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In rising order.
    pub events: Vec<Event>,
    /// Events up to this revision are not kept any more.
    pub trimmed: u64,
}

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened.
    #[error("failed to open the journal in `{path}`")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Something in it cannot be read.
    #[error("failed to read the journal")]
    Read(#[from] rusqlite::Error),
    /// The thread that read was ended, as threads are when the process ends.
    #[error("failed to finish reading the journal")]
    Ended(#[from] task::JoinError),
}

/// The reading end of the journal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    /// One reader at a time: a read takes a fraction of a millisecond, and a thread for each of a thousand
    /// watchers would take more than they wait.
    file: Arc<Mutex<File>>,
    latest: watch::Receiver<u64>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    connection: OnceCell<Connection>,
}

impl File {
    fn connection(&self) -> Result<&Connection, JournalError> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection);
        }
        let failed = |source| JournalError::Open { path: self.path.clone(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(failed)?;
        // Half a megabyte of page cache; who reads on reads new pages.
        connection.pragma_update(None, "cache_size", -500).map_err(failed)?;
        Ok(self.connection.get_or_init(|| connection))
    }
}

impl Journal {
    /// The journal in `data_dir`, which the store has made. It is opened when it is first read. `latest` is the
    /// revision of the newest durable entry.
    #[must_use]
    pub fn new(data_dir: &Path, latest: watch::Receiver<u64>) -> Self {
        let file = File { path: data_dir.join(FILE), connection: OnceCell::new() };
        Self { file: Arc::new(Mutex::new(file)), latest }
    }

    /// The revision of the newest event that can be read. Several new ones may come as one change.
    #[must_use]
    pub fn latest(&self) -> watch::Receiver<u64> {
        self.latest.clone()
    }

    /// Reads events.
    pub async fn read(&self, query: Query) -> Result<Page, JournalError> {
        let file = Arc::clone(&self.file).lock_owned().await;
        task::spawn_blocking(move || Ok(read(file.connection()?, &query)?)).await?
    }

    /// Reads something else that is in the same file.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let file = Arc::clone(&self.file).lock_owned().await;
        task::spawn_blocking(move || Ok(read(file.connection()?)?)).await?
    }

    /// Reads the oldest `limit` events of some kinds that are later than `after`. Looks at all of them on the way,
    /// so it is not for those who watch.
    pub async fn of_kinds(
        &self,
        kinds: &[&str],
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, JournalError> {
        let kinds = serde_json::Value::from(kinds).to_string();
        let file = Arc::clone(&self.file).lock_owned().await;
        task::spawn_blocking(move || Ok(of_kinds(file.connection()?, &kinds, after, limit)?)).await?
    }
}

fn read(db: &Connection, query: &Query) -> rusqlite::Result<Page> {
    // Both from one snapshot, so that nothing is trimmed between them unseen.
    let transaction = db.unchecked_transaction()?;
    let trimmed: Option<String> = transaction
        .prepare_cached("SELECT value FROM meta WHERE key = 'trimmed'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let trimmed = trimmed.and_then(|text| text.parse().ok()).unwrap_or(0);
    let instance = match &query.whose {
        Whose::All => None,
        Whose::One(name) => Some(name.clone()),
        Whose::Some(names) => Some(serde_json::Value::from(names.as_slice()).to_string()),
    };
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let until = query.until.map_or(i64::MAX, signed);
    let mut statement = transaction.prepare_cached(sql(query))?;
    let mut events = statement
        .query_map(params![signed(query.after), instance, limit, until], event)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if query.which == Which::Newest {
        events.reverse();
    }
    Ok(Page { events, trimmed })
}

fn of_kinds(db: &Connection, kinds: &str, after: u64, limit: usize) -> rusqlite::Result<Vec<Event>> {
    const OF_KINDS: &str = "SELECT * FROM events \
        WHERE revision > ?1 AND type IN (SELECT value FROM json_each(?2)) ORDER BY revision LIMIT ?3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(OF_KINDS)?;
    statement.query_map(params![signed(after), kinds, limit], event)?.collect()
}

/// One statement for each case, so that each is found by its index.
fn sql(query: &Query) -> &'static str {
    const OLDEST: &str = "SELECT * FROM events \
        WHERE revision > ?1 AND revision <= ?4 AND ?2 IS NULL ORDER BY revision LIMIT ?3";
    const NEWEST: &str = "SELECT * FROM events \
        WHERE revision > ?1 AND revision <= ?4 AND ?2 IS NULL ORDER BY revision DESC LIMIT ?3";
    const OLDEST_OF: &str = "SELECT * FROM events \
        WHERE revision > ?1 AND revision <= ?4 AND instance = ?2 ORDER BY revision LIMIT ?3";
    const NEWEST_OF: &str = "SELECT * FROM events \
        WHERE revision > ?1 AND revision <= ?4 AND instance = ?2 ORDER BY revision DESC LIMIT ?3";
    const OLDEST_OF_SOME: &str = "SELECT * FROM events \
        WHERE revision > ?1 AND revision <= ?4 AND instance IN (SELECT value FROM json_each(?2)) \
        ORDER BY revision LIMIT ?3";
    const NEWEST_OF_SOME: &str = "SELECT * FROM events \
        WHERE revision > ?1 AND revision <= ?4 AND instance IN (SELECT value FROM json_each(?2)) \
        ORDER BY revision DESC LIMIT ?3";
    match (query.which, &query.whose) {
        (Which::Oldest, Whose::All) => OLDEST,
        (Which::Newest, Whose::All) => NEWEST,
        (Which::Oldest, Whose::One(_)) => OLDEST_OF,
        (Which::Newest, Whose::One(_)) => NEWEST_OF,
        (Which::Oldest, Whose::Some(_)) => OLDEST_OF_SOME,
        (Which::Newest, Whose::Some(_)) => NEWEST_OF_SOME,
    }
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let number = |column| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
    Ok(Event {
        revision: number("revision")?,
        unix_ns: number("unix_ns")?,
        instance: row.get("instance")?,
        incarnation: number("incarnation")?,
        kind: row.get("type")?,
        severity: row.get("severity")?,
        message: row.get("message")?,
    })
}

/// SQLite's integers have a sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
