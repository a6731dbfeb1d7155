//! The record, read from the store's file.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::{Caller, Entry, Outcome};

/// Which calls are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// Only earlier ones than this number.
    pub(crate) before: Option<u64>,
    /// Only those about this instance, or from inside it.
    pub(crate) instance: Option<String>,
    /// Only those of this user, certificate, token file or instance.
    pub(crate) caller: Option<String>,
    /// Only those of this method; its last part is enough.
    pub(crate) method: Option<String>,
    /// Only those that came, or went on, at this time or later: in nanoseconds since the Unix epoch.
    pub(crate) since_ns: Option<u64>,
    /// Only those that came before this time.
    pub(crate) until_ns: Option<u64>,
    /// At most so many.
    pub(crate) limit: usize,
    /// What had not ended up to this number was left by an earlier supervisor.
    pub(crate) died: u64,
}

/// Some calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The newest first.
    pub(crate) entries: Vec<Entry>,
    /// There are more.
    pub(crate) more: bool,
}

/// Goes through the record from its end: there are at most some ten thousand entries, which takes milliseconds.
const READ: &str = "SELECT * FROM audit
    WHERE id < ?1
      AND (?2 IS NULL OR target = ?2 OR inside = ?2)
      AND (?3 IS NULL OR ?3 IN (user, CAST(uid AS TEXT), certificate, token, inside))
      AND (?4 IS NULL OR method = ?4 OR substr(method, -length(?4) - 1) IN ('/' || ?4, '.' || ?4))
      AND (?5 IS NULL OR last_ns >= ?5)
      AND (?6 IS NULL OR unix_ns < ?6)
    ORDER BY id DESC LIMIT ?7";

/// Reads calls.
pub(crate) fn read(db: &Connection, query: &Query) -> rusqlite::Result<Page> {
    // One more than is wanted, to know whether there are more.
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut statement = db.prepare_cached(READ)?;
    let found = statement.query_map(
        params![
            query.before.map_or(i64::MAX, signed),
            query.instance,
            query.caller,
            query.method,
            query.since_ns.map(signed),
            query.until_ns.map(signed),
            limit,
        ],
        |row| entry(row, query.died),
    )?;
    let mut entries = found.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = entries.len() > query.limit;
    entries.truncate(query.limit);
    Ok(Page { entries, more })
}

fn entry(row: &Row<'_>, died: u64) -> rusqlite::Result<Entry> {
    let number = |column| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
    let id = number("id")?;
    let word: String = row.get("outcome")?;
    let took: Option<i64> = row.get("took_us")?;
    Ok(Entry {
        id,
        began_ns: number("unix_ns")?,
        last_ns: number("last_ns")?,
        calls: number("calls")?,
        caller: Caller {
            uid: row.get("uid")?,
            user: row.get("user")?,
            pid: row.get("pid")?,
            inside: row.get("inside")?,
            certificate: row.get("certificate")?,
            serial: row.get("serial")?,
            token: row.get("token")?,
            from: row.get("source")?,
            role: row.get("role")?,
            gid: row.get("gid")?,
        },
        method: row.get("method")?,
        target: row.get("target")?,
        request_id: row.get("request_id")?,
        repeat: row.get("repeat")?,
        outcome: outcome(&word, id <= died),
        reason: row.get("reason")?,
        took: took.and_then(|took| u64::try_from(took).ok()).map(Duration::from_micros),
    })
}

/// What the store's word means; one that a newer version wrote means nothing here.
fn outcome(word: &str, of_the_dead: bool) -> Outcome {
    let known = [Outcome::Done, Outcome::Refused, Outcome::Left, Outcome::Lost];
    let found = known.into_iter().find(|outcome| outcome.word() == word);
    found.unwrap_or(if of_the_dead { Outcome::Died } else { Outcome::UnderWay })
}

/// SQLite's integers have a sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
