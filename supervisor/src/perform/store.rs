//! The registry and the journal on disk: one SQLite file that people can query, written by one thread.
//!
//! Batches that wait are written as one transaction, so a burst costs one fsync. `Stored` leaves only after
//! the commit (WAL, `synchronous=FULL`). A write that fails is tried again, for ever and ever more patiently;
//! meanwhile the driver goes on with all that needs no disk ([`writer`]).
//!
//! ```text
//!   supervisor.db                 registry and journal; each row of the registry with a sum      ([`file`])
//!                                 and who called for what                                       ([`audit`])
//!   supervisor.db.good            the registry's last good copy, at most a second older         ([`copy`])
//!   run/NAME/launch.json          what each worker was told to run, if the copy does not know it ([`trace`])
//!   supervisor.db.damaged-TIME    what was found damaged and put aside                           ([`mend`])
//! ```

mod audit;
mod copy;
mod file;
mod journal;
mod mend;
mod trace;
mod writer;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use supervisor_core::{action::Batch, ids::Revision, ports::Pool, record::Record};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use copy::MakeError;
use file::{Content, Flaw, SCHEMA, put_meta};
use mend::Evidence;
use writer::{Queue, Writer};

pub(crate) use audit::AuditRetention;
pub(crate) use trace::leave as leave_trace;

use crate::{audit::Sink, metrics::Metrics};

/// At the end, the disk has this long to take what waits.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Where the file is, below the data directory.
pub(crate) const FILE: &str = "supervisor.db";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or written.
    #[error(
        "failed to open `{path}`; see that its disk has room and works, and start again; gateways that run are not \
         affected"
    )]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It was written by a newer version.
    #[error(
        "`{path}` has schema {found}, and this version knows {SCHEMA}; install a newer one, or move the file aside"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// It is damaged, and there is nothing to make a new one of.
    #[error(
        "`{path}` is damaged ({why}), and its last good copy `{path}.good` {copy}; restore a backup, or move both \
         aside to begin anew (gateways that run are not affected, nor known then)"
    )]
    Lost {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What is wrong with the copy.
        copy: String,
    },
    /// It is damaged, and the new one cannot be written.
    #[error(
        "`{path}` is damaged ({why}), and its last good copy could not take its place; see that the disk has room \
         and can be written, and start again; gateways that run are not affected"
    )]
    Mend {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// Why it could not.
        source: MakeError,
    },
    /// The thread cannot be made.
    #[error("failed to start the store's thread")]
    Thread(#[source] std::io::Error),
}

/// What an earlier supervisor stored.
#[derive(Debug)]
pub(crate) struct Restored {
    /// The number of this supervisor's life, one above the last.
    pub(crate) epoch: u64,
    /// Names this data directory among all others.
    pub(crate) id: String,
    /// All instances.
    pub(crate) records: Vec<Record>,
    /// The pool, if it was ever changed.
    pub(crate) pool: Option<Pool>,
    /// The highest revision stored.
    pub(crate) revision: Revision,
    /// The boot in which the last supervisor ran.
    pub(crate) boot: Option<String>,
    /// What is added to CLOCK_MONOTONIC in this boot, by every supervisor alike.
    pub(crate) boot_began: u64,
    /// The highest number in the audit.
    pub(crate) audited: u64,
}

/// How much of the journal is kept, and of the audit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// At most so many entries.
    pub(crate) entries: u64,
    /// None older than this.
    pub(crate) age: Duration,
    /// The same of the audit.
    pub(crate) audit: AuditRetention,
}

/// What the store tells the driver.
#[derive(Debug)]
pub(crate) enum Report {
    /// All batches up to this revision are durable.
    Stored(Revision),
    /// Writing fails.
    Failing(String),
}

/// The writing end of the store.
#[derive(Debug)]
pub(crate) struct Store {
    queue: Arc<Queue>,
    /// Disconnected once the thread has ended.
    ended: std_mpsc::Receiver<()>,
    /// The revision of the newest durable entry.
    pub(crate) latest: watch::Receiver<u64>,
}

/// An open store that nothing has been written to.
#[derive(Debug)]
pub(crate) struct Opened {
    path: PathBuf,
    /// Absent while the disk takes nothing.
    connection: Option<Connection>,
    /// What begins this supervisor's life in the store and is not in it yet.
    unwritten: Vec<(&'static str, String)>,
}

/// Opens the store of `data_dir`, making it if need be, and reads all that is in it.
///
/// A damaged store is put aside and answered from its last good copy. Where the disk takes nothing at all but what
/// is stored can be read, that is what the supervisor begins with: what runs is adopted and supervised, and what
/// needs the disk waits for it. The number of its life is not durable then, and the next supervisor may have the
/// same; workers obey both, and only one can hold the data directory's lock.
pub(crate) fn open(data_dir: &Path, boot: (&str, u64)) -> Result<(Opened, Restored), StoreError> {
    let path = data_dir.join(FILE);
    let evidence = Evidence { copy: copy::read(&copy::path_of(&path)), traces: trace::all(data_dir) };
    let begun = match begin(&path, boot, &evidence) {
        Err(Flaw::Damaged(why)) => {
            mend::restore(&path, &why, &evidence)?;
            begin(&path, boot, &evidence)
        }
        outcome => outcome,
    };
    match begun {
        Ok(begun) => Ok(begun),
        Err(Flaw::Damaged(why)) => Err(StoreError::Lost { path, why, copy: "was no better".into() }),
        Err(Flaw::Newer(found)) => Err(StoreError::Newer { path, found }),
        Err(Flaw::Disk(source)) => match look(&path, &evidence) {
            Ok((content, audited)) => {
                warn!("the disk takes nothing; begins with what is stored: {source}");
                let (restored, unwritten) = next_life(content, boot, audited);
                Ok((Opened { path, connection: None, unwritten }, restored))
            }
            Err(_) => Err(StoreError::Open { path, source }),
        },
    }
}

/// Opens the file, looks through it, and begins a new epoch in it.
fn begin(path: &Path, boot: (&str, u64), evidence: &Evidence) -> Result<(Opened, Restored), Flaw> {
    if fs::metadata(path).map_or(0, |file| file.len()) == 0 && evidence.of_a_store() {
        return Err(Flaw::Damaged(if path.exists() { "it is empty" } else { "it is missing" }.into()));
    }
    if let Some(why) = copy::suspicion(path).filter(|_| evidence.of_a_store()) {
        return Err(Flaw::Damaged(why));
    }
    let mut connection = Connection::open(path)?;
    let found = file::schema(&connection)?;
    protect(path)?;
    file::prepare(&connection)?;
    // At once the right to write: who waits for it while reading is refused as soon as somebody else writes.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if found < SCHEMA {
        if found == 0 && evidence.of_a_store() {
            return Err(Flaw::Damaged("it has no tables".into()));
        }
        file::upgrade(&transaction, found)?;
    }
    audit::prepare(&transaction)?;
    let content = read_checked(&transaction, evidence)?;
    let (restored, metas) = next_life(content, boot, audit::last(&transaction));
    metas.iter().try_for_each(|(key, value)| put_meta(&transaction, key, value))?;
    transaction.commit()?;
    let opened = Opened { path: path.to_owned(), connection: Some(connection), unwritten: Vec::new() };
    Ok((opened, restored))
}

/// Reads what is stored, and the highest number in the audit, without writing anything, not even beside it.
fn look(path: &Path, evidence: &Evidence) -> Result<(Content, u64), Flaw> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // So the log's index is kept in memory, and not in a file that the disk would have to take.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    match file::schema(&connection)? {
        SCHEMA => Ok((read_checked(&connection, evidence)?, audit::last(&connection))),
        older => Err(Flaw::Damaged(format!("it has schema {older}, which cannot be upgraded now"))),
    }
}

fn read_checked(db: &Connection, evidence: &Evidence) -> Result<Content, Flaw> {
    file::check(db)?;
    let content = file::read(db)?;
    evidence.against(&content).map_or(Ok(content), |why| Err(Flaw::Damaged(why)))
}

fn protect(path: &Path) -> Result<(), Flaw> {
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, private).map_err(|error| {
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        Flaw::Disk(rusqlite::Error::SqliteFailure(failure, Some(format!("failed to protect it: {error}"))))
    })
}

/// What the next supervisor is told, and what it adds to the store.
fn next_life(content: Content, boot: (&str, u64), audited: u64) -> (Restored, Vec<(&'static str, String)>) {
    let epoch = content.epoch + 1;
    let id = content.id.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
    let began = match &content.boot {
        Some((last, began)) if last == boot.0 => *began,
        Some(_) | None => boot.1,
    };
    let metas = vec![
        ("epoch", epoch.to_string()),
        ("id", id.clone()),
        ("boot", boot.0.to_owned()),
        ("boot_began", began.to_string()),
    ];
    let restored = Restored {
        epoch,
        id,
        records: content.records,
        pool: content.pool,
        revision: Revision(content.revision),
        boot: content.boot.map(|(last, _)| last),
        boot_began: began,
        audited,
    };
    (restored, metas)
}

/// As SQLite has numbers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Store {
    /// Starts the writing thread.
    pub(crate) fn start(
        opened: Opened,
        newest: Revision,
        retention: Retention,
        reports: mpsc::Sender<Report>,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::default());
        let (latest, watched) = watch::channel(newest.0);
        let (ends, ended) = std_mpsc::channel();
        let waiting = Arc::clone(&queue);
        metrics.watch_queue("store", writer::WAITING, move || waiting.length());
        let writer = Writer::new(opened, (reports, latest), retention, metrics, ends);
        let batches = Arc::clone(&queue);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&batches))
            .map_err(StoreError::Thread)?;
        Ok(Self { queue, ended, latest: watched })
    }

    /// Queues a batch. Never blocks.
    pub(crate) fn persist(&self, batch: Batch) {
        // Without the thread there is no `Stored` either, and everything that needs the disk waits.
        self.queue.push(batch);
    }

    /// Where the audit's notes go. They are stored in their order, each no later than what was queued after it.
    pub(crate) fn audit(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.queue) as Arc<dyn Sink>
    }

    /// Writes what waits, and waits for that. To be called when nobody listens to the reports any more.
    pub(crate) fn finish(&self) {
        self.queue.close();
        if self.ended.recv_timeout(LAST_PATIENCE) == Err(std_mpsc::RecvTimeoutError::Timeout) {
            warn!("the disk did not take the last changes in time; none of them was promised to anyone");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;
