//! The journal's part of the store: entries added, and the oldest deleted.

use rusqlite::{Connection, OptionalExtension, params};
use supervisor_core::journal::{Entry, Severity};

use super::{Retention, audit::share, file::put_meta, signed};

/// Adds one.
pub(super) fn append(db: &Connection, entry: &Entry) -> rusqlite::Result<()> {
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

/// Deletes what is too old and, beyond what is kept, the oldest entries of whoever has most. Notes how far that went, for
/// readers who come from there.
pub(super) fn trim(db: &Connection, retention: Retention, now_ns: u64) -> rusqlite::Result<()> {
    let oldest = now_ns.saturating_sub(u64::try_from(retention.age.as_nanos()).unwrap_or(u64::MAX));
    // Entries are in the order of their times, so this looks only at what is expired and at one more.
    let young: Option<i64> = db
        .prepare_cached("SELECT revision FROM events WHERE unix_ns >= ?1 ORDER BY revision LIMIT 1")?
        .query_row([signed(oldest)], |row| row.get(0))
        .optional()?;
    let mut newest = None;
    if let Some(expired) = young.map(|revision| revision - 1) {
        let deleted = db.prepare_cached("DELETE FROM events WHERE revision <= ?1")?.execute([expired])?;
        newest = (deleted > 0).then_some(expired);
    }
    let is_full = db
        .prepare_cached("SELECT 1 FROM events ORDER BY revision LIMIT 1 OFFSET ?1")?
        .exists([signed(retention.entries)])?;
    if is_full {
        newest = newest.max(share_out(db, retention.entries)?);
    }
    match newest {
        Some(newest) => put_meta(db, "trimmed", &newest.to_string()),
        None => Ok(()),
    }
}

/// Deletes of each instance, and of each weight, what is beyond its share, and says how far that went: an agent that makes
/// its instance have events for hours pushes out those of no other, and not what its own failed by.
fn share_out(db: &Connection, most: u64) -> rusqlite::Result<Option<i64>> {
    let held: Vec<(String, i64, u64)> = db
        .prepare_cached("SELECT instance, severity, count(*) FROM events GROUP BY instance, severity")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row.get(2)?))))?
        .collect::<rusqlite::Result<_>>()?;
    let share = share(held.iter().map(|(.., entries)| *entries).collect(), most);
    let mut newest = None;
    for (instance, severity, entries) in held.into_iter().filter(|(.., entries)| *entries > share) {
        let last: i64 = db
            .prepare_cached(
                "SELECT revision FROM events WHERE instance = ?1 AND severity = ?2
                 ORDER BY revision LIMIT 1 OFFSET ?3",
            )?
            .query_row(params![instance, severity, signed(entries - share - 1)], |row| row.get(0))?;
        db.prepare_cached("DELETE FROM events WHERE instance = ?1 AND severity = ?2 AND revision <= ?3")?
            .execute(params![instance, severity, last])?;
        newest = newest.max(Some(last));
    }
    Ok(newest)
}

/// SQLite's integers have a sign, and counts have none.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
