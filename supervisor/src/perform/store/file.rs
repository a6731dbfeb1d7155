//! One database file: its tables, what is in them, and whether that is what was written.
//!
//! SQLite notices when its pages do not fit together, not when a bit of a text has flipped. So each row of the
//! registry carries a sum of its text; a row whose sum is wrong is damage like a page that is.

use std::fmt;

use rusqlite::{Connection, ErrorCode, params};
use supervisor_core::{ports::Pool, record::Record};

use super::signed;
use crate::spec::InstanceSpec;

/// The version of the tables below. 2: sums.
pub(super) const SCHEMA: i64 = 2;

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE instances (name TEXT PRIMARY KEY, record TEXT NOT NULL, sum INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
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

/// A file of at most so many bytes is looked through wholly at a start, which takes up to 130 ms; of a larger one
/// only the registry is: damage in its journal is met when that is written, and remembered ([`super::copy::suspect`]).
const LOOKED_THROUGH: i64 = 16 << 20;

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum Flaw {
    /// It does not hold what was written.
    Damaged(String),
    /// A newer version wrote it.
    Newer(i64),
    /// It cannot be read or written at all, which says nothing about what is in it.
    Disk(rusqlite::Error),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => f.write_str(why),
            Self::Newer(found) => write!(f, "it has schema {found}"),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl From<rusqlite::Error> for Flaw {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::Damaged(error.to_string()) } else { Self::Disk(error) }
    }
}

/// Whether an error is the content's and not the disk's.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        // `Unknown`: a table that should be there is not.
        Some(code) => {
            matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
        }
        // A value of another type than its column's, or a text that is none.
        None => true,
    }
}

/// The registry and what goes with it: all of a file but the journal.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// The number of the last supervisor's life.
    pub(super) epoch: u64,
    /// Names the data directory among all others.
    pub(super) id: Option<String>,
    /// The boot in which the last supervisor ran, and what it added to CLOCK_MONOTONIC.
    pub(super) boot: Option<(String, u64)>,
    pub(super) pool: Option<Pool>,
    pub(super) revision: u64,
    pub(super) records: Vec<Record>,
}

/// Makes each commit wholly durable.
pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // Two megabytes of page cache; the whole registry of a thousand instances is one.
    db.pragma_update(None, "cache_size", -2_000)
}

/// The file's schema; 0 if it has no tables yet.
pub(super) fn schema(db: &Connection) -> Result<i64, Flaw> {
    let found = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (0..=SCHEMA).contains(&found) { Ok(found) } else { Err(Flaw::Newer(found)) }
}

/// Brings the tables from schema `found` to this version's.
pub(super) fn upgrade(db: &Connection, found: i64) -> rusqlite::Result<()> {
    match found {
        0 => db.execute_batch(TABLES)?,
        1 => {
            db.execute_batch(
                "ALTER TABLE meta ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
                 ALTER TABLE instances ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;",
            )?;
            for (key, value) in rows(db, "SELECT key, value FROM meta")? {
                put_meta(db, &key, &value)?;
            }
            for (name, record) in rows(db, "SELECT name, record FROM instances")? {
                put_record(db, &name, &record)?;
            }
        }
        _ => {}
    }
    db.pragma_update(None, "user_version", SCHEMA)
}

fn rows(db: &Connection, sql: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Looks whether the file's pages fit together.
pub(super) fn check(db: &Connection) -> Result<(), Flaw> {
    let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let size: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let parts: &[&str] =
        if pages.saturating_mul(size) <= LOOKED_THROUGH { &["1"] } else { &["meta", "instances"] };
    for part in parts {
        let said: String = db.query_row(&format!("PRAGMA quick_check({part})"), [], |row| row.get(0))?;
        if said != "ok" {
            return Err(Flaw::Damaged(said.lines().last().unwrap_or_default().to_owned()));
        }
    }
    Ok(())
}

/// Reads all but the journal. A record that cannot be understood is named; its text is not shown, for it may hold
/// secrets.
pub(super) fn read(db: &Connection) -> Result<Content, Flaw> {
    let mut content = Content::default();
    let (mut boot, mut began) = (None, None);
    for (key, value) in summed(db, "SELECT key, value, sum FROM meta", "the")? {
        let broken = |_| Flaw::Damaged(format!("the {key} cannot be understood"));
        // Numbers are read as JSON, so that one that cannot be understood is refused like any other record.
        let number = || serde_json::from_str::<u64>(&value).map_err(broken);
        match key.as_str() {
            "epoch" => content.epoch = number()?,
            "revision" => content.revision = number()?,
            "boot_began" => began = Some(number()?),
            "pool" => content.pool = Some(serde_json::from_str(&value).map_err(broken)?),
            "id" => content.id = Some(value),
            "boot" => boot = Some(value),
            _ => {}
        }
    }
    content.boot = boot.zip(began);
    for (name, text) in summed(db, "SELECT name, record, sum FROM instances ORDER BY name", "the record of")?
    {
        let broken = |_| Flaw::Damaged(format!("the record of `{name}` cannot be understood"));
        let record: Record = serde_json::from_str(&text).map_err(broken)?;
        serde_json::from_str::<InstanceSpec>(&record.spec).map_err(broken)?;
        content.records.push(record);
    }
    let newest: Option<i64> = db.query_row("SELECT max(revision) FROM events", [], |row| row.get(0))?;
    content.revision = content.revision.max(u64::try_from(newest.unwrap_or(0)).unwrap_or(0));
    Ok(content)
}

/// The rows of a table, whose sums are right.
fn summed(db: &Connection, sql: &str, what: &str) -> Result<Vec<(String, String)>, Flaw> {
    let mut found = Vec::new();
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (key, text): (String, String) = (row.get(0)?, row.get(1)?);
        if row.get::<_, i64>(2)? != sum(&key, &text) {
            return Err(Flaw::Damaged(format!("{what} `{key}` is not what was written")));
        }
        found.push((key, text));
    }
    Ok(found)
}

/// Writes all of `content` into empty tables.
pub(super) fn fill(db: &Connection, content: &Content) -> rusqlite::Result<()> {
    put_meta(db, "epoch", &content.epoch.to_string())?;
    put_meta(db, "revision", &content.revision.to_string())?;
    if let Some(id) = &content.id {
        put_meta(db, "id", id)?;
    }
    if let Some((boot, began)) = &content.boot {
        put_meta(db, "boot", boot)?;
        put_meta(db, "boot_began", &began.to_string())?;
    }
    if let Some(pool) = &content.pool {
        put_meta(db, "pool", &json(pool)?)?;
    }
    content.records.iter().try_for_each(|record| put_record(db, &record.name, &json(record)?))
}

pub(super) fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(super) fn put_meta(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO meta VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET value = ?2, sum = ?3",
    )?
    .execute(params![key, value, sum(key, value)])
    .map(|_| ())
}

pub(super) fn put_record(db: &Connection, name: &str, record: &str) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO instances VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE SET record = ?2, sum = ?3",
    )?
    .execute(params![name, record, sum(name, record)])
    .map(|_| ())
}

/// FNV-1a, 64 bits: two rows that differ in one byte never have the same sum.
fn sum(key: &str, value: &str) -> i64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = key.bytes().chain([0]).chain(value.bytes());
    bytes.fold(BASIS, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(PRIME)).cast_signed()
}

/// An entry of the store's own, which core did not make.
pub(super) fn alarm(db: &Connection, revision: u64, message: &str) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO events VALUES (?1, CAST(unixepoch('subsec') * 1e9 AS INTEGER), '', 0,
                                    'supervisor.store_damaged', 3, ?2)",
        params![signed(revision), message],
    )
    .map(|_| ())
}
