//! The registry and the journal on disk: one SQLite file that people can query, written by one thread.
//!
//! Batches that wait are written as one transaction, so a burst costs one fsync. `Stored` leaves only after
//! the commit (WAL, `synchronous=FULL`). A write that fails is tried again, for ever and ever more patiently;
//! meanwhile the driver goes on with all that needs no disk.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, params};
use supervisor_core::{
    action::{Batch, Write},
    ids::Revision,
    journal::{Entry, Severity},
    ports::Pool,
    record::Record,
};
use tokio::sync::{mpsc, watch};

/// Batches that may wait for the disk. Beyond that they are merged: of each instance only the newest record is
/// kept, and of the entries only the newest [`ENTRIES`].
const WAITING: usize = 1_000;

/// Entries that may wait for the disk.
const ENTRIES: usize = 10_000;

/// Entries may be this many more before the oldest are deleted: deleting is not done at every commit.
const JOURNAL_SLACK: u64 = 1_000;

/// The longest pause between two attempts of a failing write.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the file is, below the data directory.
const FILE: &str = "supervisor.db";

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
    /// A record is not what this version writes.
    #[error("`{path}` holds a record that cannot be read: {record}")]
    Record {
        /// The database.
        path: PathBuf,
        /// The record's text.
        record: String,
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
    /// Bounded by [`merge`] on the other side.
    batches: std::sync::mpsc::Sender<Batch>,
    /// The revision of the newest durable entry.
    pub(crate) latest: watch::Receiver<u64>,
}

/// Opens the store of `data_dir`, making it if need be, and reads all that is in it.
pub(crate) fn open(data_dir: &Path, boot: (&str, u64)) -> Result<(Connection, Restored), StoreError> {
    let path = data_dir.join(FILE);
    let failed = |source| StoreError::Open { path: path.clone(), source };
    let unreadable = |source| StoreError::Read { path: path.clone(), source };
    let mut connection = Connection::open(&path).map_err(failed)?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, private)
        .map_err(|source| StoreError::Protect { path: path.clone(), source })?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // Two megabytes of page cache; the whole registry of a thousand instances is one.
    connection.pragma_update(None, "cache_size", -2_000).map_err(failed)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let transaction = connection.transaction().map_err(failed)?;
    match found {
        0 => transaction.execute_batch(TABLES).map_err(failed)?,
        SCHEMA => {}
        _ => return Err(StoreError::Newer { path, found }),
    }
    transaction.pragma_update(None, "user_version", SCHEMA).map_err(failed)?;
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
    let number = |key: &str| meta(key).map(|text| text.and_then(|text| text.parse::<u64>().ok()));
    let json = |text: String| {
        serde_json::from_str(&text)
            .map_err(|source| StoreError::Record { path: path.to_owned(), record: text, source })
            .map_err(RestoreError::Store)
    };
    let epoch = number("epoch")?.unwrap_or(0) + 1;
    let id = meta("id")?.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
    let last_boot = meta("boot")?.zip(number("boot_began")?);
    let pool = meta("pool")?.map(|text| serde_json::from_str(&text)).transpose();
    let pool = pool
        .map_err(|source| StoreError::Record { path: path.to_owned(), record: "pool".into(), source })
        .map_err(RestoreError::Store)?;
    let began = match &last_boot {
        Some((id, began)) if id == boot.0 => *began,
        Some(_) | None => boot.1,
    };
    for (key, value) in [("epoch", epoch.to_string()), ("id", id.clone())] {
        put_meta(db, key, &value)?;
    }
    put_meta(db, "boot", boot.0)?;
    put_meta(db, "boot_began", &began.to_string())?;
    let mut statement = db.prepare("SELECT record FROM instances ORDER BY name")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let records = rows.into_iter().map(json).collect::<Result<Vec<Record>, _>>()?;
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
        let (batches, inbox) = std::sync::mpsc::channel();
        let (latest, watched) = watch::channel(newest.0);
        let writer = Writer { connection, reports, latest, retention, since_trim: 0 };
        thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&inbox))
            .map_err(StoreError::Thread)?;
        Ok(Self { batches, latest: watched })
    }

    /// Queues a batch. Never blocks.
    pub(crate) fn persist(&self, batch: Batch) {
        // Without the thread there is no `Stored` either, and everything that needs the disk waits.
        let _ = self.batches.send(batch);
    }
}

struct Writer {
    connection: Connection,
    reports: mpsc::Sender<Report>,
    latest: watch::Sender<u64>,
    retention: Retention,
    since_trim: u64,
}

impl Writer {
    /// Until the driver is gone.
    fn run(mut self, inbox: &std::sync::mpsc::Receiver<Batch>) {
        let mut waiting: Vec<Batch> = Vec::new();
        let mut pause = Duration::ZERO;
        loop {
            let next = if waiting.is_empty() {
                match inbox.recv() {
                    Ok(batch) => Some(batch),
                    Err(std::sync::mpsc::RecvError) => return,
                }
            } else {
                inbox.recv_timeout(pause).ok()
            };
            waiting.extend(next);
            waiting.extend(inbox.try_iter());
            match self.write(&waiting) {
                Ok(()) => {
                    self.announce(&waiting);
                    waiting.clear();
                    pause = Duration::ZERO;
                }
                Err(error) => {
                    pause = (pause * 2).clamp(Duration::from_millis(50), PATIENCE);
                    let _ = self.reports.blocking_send(Report::Failing(error.to_string()));
                    merge(&mut waiting);
                }
            }
        }
    }

    fn announce(&mut self, written: &[Batch]) {
        let Some(last) = written.last() else { return };
        let newest = written.iter().rev().find_map(|batch| batch.entries.last());
        if let Some(newest) = newest {
            self.latest.send_replace(newest.revision.0);
        }
        let _ = self.reports.blocking_send(Report::Stored(last.revision));
    }

    fn write(&mut self, batches: &[Batch]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut entries = 0;
        for batch in batches {
            for write in &batch.writes {
                apply(&transaction, write)?;
            }
            for entry in &batch.entries {
                append(&transaction, entry)?;
                entries += 1;
            }
        }
        if let Some(last) = batches.last() {
            put_meta(&transaction, "revision", &last.revision.0.to_string())?;
        }
        if self.since_trim + entries >= JOURNAL_SLACK {
            let newest = batches.iter().rev().find_map(|batch| batch.entries.last());
            trim(&transaction, self.retention, newest.map_or(0, |entry| entry.at.0))?;
        }
        transaction.commit()?;
        self.since_trim =
            if self.since_trim + entries >= JOURNAL_SLACK { 0 } else { self.since_trim + entries };
        Ok(())
    }
}

fn apply(db: &Connection, write: &Write) -> rusqlite::Result<()> {
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    };
    match write {
        Write::Put(record) => {
            let text = json(serde_json::to_string(record))?;
            db.prepare_cached(
                "INSERT INTO instances VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET record = ?2",
            )?
            .execute([&*record.name, text.as_str()])?;
        }
        Write::Remove(name) => {
            db.prepare_cached("DELETE FROM instances WHERE name = ?1")?.execute([&**name])?;
        }
        Write::Pool(pool) => put_meta(db, "pool", &json(serde_json::to_string(pool))?)?,
    }
    Ok(())
}

fn append(db: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            signed(entry.revision.0),
            signed(entry.at.0),
            entry.instance.as_deref().unwrap_or_default(),
            signed(entry.incarnation.0),
            entry.kind.name(),
            severity(entry.kind.severity()),
            entry.kind.to_string(),
        ])
        .map(|_| ())
}

/// As the column `severity` has it: the numbers of the API's `Severity`.
fn severity(severity: Severity) -> i64 {
    match severity {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Error => 3,
    }
}

/// Deletes the oldest entries beyond what is kept, and notes how far that went, for readers who come from there.
fn trim(db: &Connection, retention: Retention, now_ns: u64) -> rusqlite::Result<()> {
    let oldest = now_ns.saturating_sub(u64::try_from(retention.age.as_nanos()).unwrap_or(u64::MAX));
    let beyond: Option<i64> = db
        .prepare_cached("SELECT revision FROM events ORDER BY revision DESC LIMIT 1 OFFSET ?1")?
        .query_row([signed(retention.entries)], |row| row.get(0))
        .optional()?;
    let expired: Option<i64> = db
        .prepare_cached("SELECT max(revision) FROM events WHERE unix_ns < ?1")?
        .query_row([signed(oldest)], |row| row.get(0))?;
    let Some(newest) = beyond.max(expired) else { return Ok(()) };
    db.prepare_cached("DELETE FROM events WHERE revision <= ?1")?.execute([newest])?;
    put_meta(db, "trimmed", &newest.to_string())
}

/// As SQLite has numbers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The disk has not taken anything for long: what waits becomes one batch of bounded size.
fn merge(waiting: &mut Vec<Batch>) {
    let Some(last) = waiting.last().filter(|_| waiting.len() > WAITING) else { return };
    let mut merged = Batch { revision: last.revision, writes: Vec::new(), entries: Vec::new() };
    let mut newest: BTreeMap<String, Write> = BTreeMap::new();
    for batch in waiting.drain(..) {
        for write in batch.writes {
            let key = match &write {
                Write::Put(record) => format!("instance {}", record.name),
                Write::Remove(name) => format!("instance {name}"),
                Write::Pool(_) => "pool".into(),
            };
            newest.insert(key, write);
        }
        merged.entries.extend(batch.entries);
    }
    merged.writes = newest.into_values().collect();
    let excess = merged.entries.len().saturating_sub(ENTRIES);
    merged.entries.drain(..excess);
    waiting.push(merged);
}
