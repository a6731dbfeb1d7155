//! The registry and the journal on disk: one SQLite file that people can query, written by one thread.
//!
//! Batches that wait are written as one transaction, so a burst costs one fsync. `Stored` leaves only after
//! the commit (WAL, `synchronous=FULL`). A write that fails is tried again, for ever and ever more patiently;
//! meanwhile the driver goes on with all that needs no disk ([`writer`]).

mod writer;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use supervisor_core::{action::Batch, ids::Revision, ports::Pool, record::Record};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use writer::{Queue, Writer};

/// At the end, the disk has this long to take what waits.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Where the file is, below the data directory.
pub(crate) const FILE: &str = "supervisor.db";

/// The version of the tables below.
const SCHEMA: i64 = 1;

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE instances (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        revision INTEGER PRIMARY KEY,
        unix_ns INTEGER NOT NULL,
        instance TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        type TEXT NOT NULL,
        severity INTEGER NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_instance ON events (instance, revision);
";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("failed to open `{path}`")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Its permissions cannot be set.
    #[error("failed to protect `{path}`")]
    Protect {
        /// The database.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it cannot be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It was written by a newer version.
    #[error("`{path}` has schema {found}, and this version knows {SCHEMA}; install a newer one")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// A record is not what any version wrote. Its text is not shown: it may hold secrets.
    #[error("`{path}` holds {what}, which cannot be understood")]
    Record {
        /// The database.
        path: PathBuf,
        /// Which record.
        what: String,
        /// Why.
        source: serde_json::Error,
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
}

/// How much of the journal is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// At most so many entries.
    pub(crate) entries: u64,
    /// None older than this.
    pub(crate) age: Duration,
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

/// Opens the store of `data_dir`, making it if need be, and reads all that is in it.
pub(crate) fn open(data_dir: &Path, boot: (&str, u64)) -> Result<(Connection, Restored), StoreError> {
    let path = data_dir.join(FILE);
    let failed = |source| StoreError::Open { path: path.clone(), source };
    let unreadable = |source| StoreError::Read { path: path.clone(), source };
    let mut connection = Connection::open(&path).map_err(failed)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if !(0..=SCHEMA).contains(&found) {
        return Err(StoreError::Newer { path, found });
    }
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, private)
        .map_err(|source| StoreError::Protect { path: path.clone(), source })?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // Two megabytes of page cache; the whole registry of a thousand instances is one.
    connection.pragma_update(None, "cache_size", -2_000).map_err(failed)?;
    // At once the right to write: who waits for it while reading is refused as soon as somebody else writes.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if found == 0 {
        transaction.execute_batch(TABLES).map_err(failed)?;
        transaction.pragma_update(None, "user_version", SCHEMA).map_err(failed)?;
    }
    let restored = restore(&transaction, &path, boot).map_err(|error| match error {
        RestoreError::Sql(source) => unreadable(source),
        RestoreError::Store(error) => error,
    })?;
    transaction.commit().map_err(failed)?;
    Ok((connection, restored))
}

enum RestoreError {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for RestoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Reads everything and begins a new epoch.
fn restore(db: &Connection, path: &Path, boot: (&str, u64)) -> Result<Restored, RestoreError> {
    let meta = |key: &str| {
        db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, String>(0)).optional()
    };
    let broken = |what: String| {
        move |source| RestoreError::Store(StoreError::Record { path: path.to_owned(), what, source })
    };
    // Numbers are read as JSON, so that one that cannot be understood is refused like any other record.
    let number = |key: &str| {
        let text = meta(key)?;
        let number = text.map(|text| serde_json::from_str::<u64>(&text)).transpose();
        number.map_err(broken(format!("the {key}")))
    };
    let epoch = number("epoch")?.unwrap_or(0) + 1;
    let id = meta("id")?.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
    let last_boot = meta("boot")?.zip(number("boot_began")?);
    let pool = meta("pool")?.map(|text| serde_json::from_str(&text)).transpose();
    let pool = pool.map_err(broken("the pool".into()))?;
    let began = match &last_boot {
        Some((id, began)) if id == boot.0 => *began,
        Some(_) | None => boot.1,
    };
    for (key, value) in [("epoch", epoch.to_string()), ("id", id.clone())] {
        put_meta(db, key, &value)?;
    }
    put_meta(db, "boot", boot.0)?;
    put_meta(db, "boot_began", &began.to_string())?;
    let mut statement = db.prepare("SELECT name, record FROM instances ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut records = Vec::new();
    for row in rows {
        let (name, text) = row?;
        let record: Record =
            serde_json::from_str(&text).map_err(broken(format!("the record of `{name}`")))?;
        records.push(record);
    }
    let newest: Option<i64> = db.query_row("SELECT max(revision) FROM events", [], |row| row.get(0))?;
    let newest = u64::try_from(newest.unwrap_or(0)).unwrap_or(0);
    let revision = Revision(number("revision")?.unwrap_or(0).max(newest));
    let boot = last_boot.map(|(id, _)| id);
    Ok(Restored { epoch, id, records, pool, revision, boot, boot_began: began })
}

fn put_meta(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2")?
        .execute([key, value])
        .map(|_| ())
}

impl Store {
    /// Starts the writing thread.
    pub(crate) fn start(
        connection: Connection,
        newest: Revision,
        retention: Retention,
        reports: mpsc::Sender<Report>,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::default());
        let (latest, watched) = watch::channel(newest.0);
        let (ends, ended) = std_mpsc::channel();
        let writer = Writer::new(connection, reports, latest, retention, ends);
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
mod tests;
