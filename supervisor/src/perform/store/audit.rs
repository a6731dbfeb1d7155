//! The audit's part of the store: its table, and what waits to be written into it.
//!
//! Notes are written in the same transactions as the batches that come after them, and wait a moment for one: a call
//! costs the disk nothing that its change does not cost anyway. Where the table cannot be written though the rest of
//! the file can, supervision goes on without a record, and counts what is missing in it.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::signed;
use crate::audit::{Entry, Kept, Note, Outcome};

/// Beside the tables of the schema: versions that do not know it leave it alone, so that they can be gone back to.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS audit (
        id INTEGER PRIMARY KEY,
        unix_ns INTEGER NOT NULL,
        last_ns INTEGER NOT NULL,
        calls INTEGER NOT NULL,
        apart INTEGER NOT NULL,
        uid INTEGER,
        user TEXT NOT NULL,
        pid INTEGER,
        inside TEXT NOT NULL,
        certificate TEXT NOT NULL,
        serial TEXT NOT NULL,
        token TEXT NOT NULL,
        source TEXT NOT NULL,
        role TEXT NOT NULL,
        method TEXT NOT NULL,
        target TEXT NOT NULL,
        request_id TEXT NOT NULL,
        repeat INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        reason TEXT NOT NULL,
        took_us INTEGER,
        gid INTEGER
    ) STRICT;
    CREATE INDEX IF NOT EXISTS audit_by_kind ON audit (apart, id);
    CREATE INDEX IF NOT EXISTS audit_by_caller ON audit (apart, inside, token, uid, certificate);
";

/// What tables of earlier versions lack.
const ADDED: &str = "ALTER TABLE audit ADD COLUMN gid INTEGER";

/// Notes that may wait for the disk, in about 4 MiB. Of more, the oldest are lost, and it is written down how many.
pub(super) const WAITING: usize = 8_192;

/// So long notes wait for a batch to go with: a change follows its call within this, unless it waits for something.
const PAUSE: Duration = Duration::from_millis(20);

/// Entries may be this many more before the oldest are deleted: deleting is not done at every commit.
pub(super) const SLACK: u64 = 500;

/// Of calls that are kept apart so many, however many of the others are kept. Each caller's equal refusals are one,
/// so that this is a thousand attempts of ten agents.
const KEPT_APART: u64 = 10_000;

/// How much of the audit is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AuditRetention {
    /// At most so many calls of those who may call.
    pub(crate) entries: u64,
    /// None older than this.
    pub(crate) age: Duration,
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Notes {
    waiting: VecDeque<Note>,
    /// When the first of them came.
    since: Option<Instant>,
    /// What could not wait.
    gap: Option<Gap>,
}

/// Calls of which nothing is known but that they were.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// The number of the first.
    id: u64,
    /// When it came.
    unix_ns: u64,
    /// When the last one came.
    last_ns: u64,
    calls: u64,
}

impl Notes {
    /// Adds one.
    pub(super) fn push(&mut self, note: Note) {
        self.since.get_or_insert_with(Instant::now);
        self.waiting.push_back(note);
        if self.waiting.len() > WAITING {
            let oldest = self.waiting.pop_front();
            oldest.iter().for_each(|note| lose(&mut self.gap, note));
        }
    }

    /// Adds those that came after these.
    pub(super) fn append(&mut self, more: Self) {
        if let Some(gap) = more.gap {
            widen(&mut self.gap, gap);
        }
        more.waiting.into_iter().for_each(|note| self.push(note));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.gap.is_none()
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.waiting.len()).unwrap_or(u64::MAX)
    }

    /// When they are to be written at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PAUSE)
    }

    /// How many calls are lost, and are not said to be in the record.
    pub(super) fn lost(&self) -> u64 {
        self.gap.map_or(0, |gap| gap.calls)
    }

    /// None of them can be written; what is left of them is how many they were.
    pub(super) fn lose_all(&mut self) {
        let notes = std::mem::take(&mut self.waiting);
        notes.iter().for_each(|note| lose(&mut self.gap, note));
        self.since = None;
    }
}

fn lose(gap: &mut Option<Gap>, note: &Note) {
    match note {
        Note::Call(entry, _) => {
            let Entry { id, began_ns, last_ns, calls, .. } = **entry;
            widen(gap, Gap { id, unix_ns: began_ns, last_ns, calls });
        }
        // Its call is there, and says that its end is not known.
        Note::End { .. } | Note::Equal { .. } | Note::Again { .. } => {}
    }
}

fn widen(gap: &mut Option<Gap>, by: Gap) {
    match gap {
        Some(gap) => {
            gap.calls += by.calls;
            gap.last_ns = gap.last_ns.max(by.last_ns);
        }
        None => *gap = Some(by),
    }
}

/// Makes the table, unless it is there.
pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(TABLE)?;
    let has_all = db.prepare("SELECT 1 FROM pragma_table_info('audit') WHERE name = 'gid'")?.exists([])?;
    if has_all { Ok(()) } else { db.execute_batch(ADDED) }
}

/// The highest number in the record; 0 if there is none, or none can be read.
pub(super) fn last(db: &Connection) -> u64 {
    let last = db.query_row("SELECT max(id) FROM audit", [], |row| row.get::<_, Option<i64>>(0));
    last.ok().flatten().and_then(|last| u64::try_from(last).ok()).unwrap_or(0)
}

/// Writes them all. Says how many entries that makes, and when the last one came.
pub(super) fn write(db: &Connection, notes: &Notes) -> rusqlite::Result<(u64, u64)> {
    let (mut entries, mut now_ns) = (0, 0);
    if let Some(Gap { id, unix_ns, last_ns, calls }) = notes.gap {
        let outcome = Outcome::Lost;
        let lost = Entry { id, began_ns: unix_ns, last_ns, calls, outcome, ..Entry::default() };
        put(db, &lost, Kept::Long)?;
        entries += 1;
    }
    for note in &notes.waiting {
        match note {
            Note::Call(entry, kept) => {
                put(db, entry, *kept)?;
                entries += 1;
                now_ns = entry.began_ns;
            }
            Note::End { id, outcome, reason, repeat, took } => {
                let took = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
                db.prepare_cached(
                    "UPDATE audit SET outcome = ?2, reason = ?3, repeat = ?4, took_us = ?5 WHERE id = ?1",
                )?
                .execute(params![signed(*id), outcome.word(), reason, repeat, took])?;
            }
            Note::Equal { id } => {
                db.prepare_cached("DELETE FROM audit WHERE id = ?1")?.execute([signed(*id)])?;
            }
            Note::Again { id, calls, last_ns } => {
                db.prepare_cached("UPDATE audit SET calls = ?2, last_ns = ?3 WHERE id = ?1")?
                    .execute(params![signed(*id), signed(*calls), signed(*last_ns)])?;
            }
        }
    }
    Ok((entries, now_ns))
}

fn put(db: &Connection, entry: &Entry, kept: Kept) -> rusqlite::Result<()> {
    let Entry { caller, .. } = entry;
    db.prepare_cached(
        "INSERT OR REPLACE INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
         ?15, ?16, ?17, ?18, ?19, ?20, NULL, ?21)",
    )?
    .execute(params![
        signed(entry.id),
        signed(entry.began_ns),
        signed(entry.last_ns),
        signed(entry.calls),
        kept.number(),
        caller.uid,
        caller.user,
        caller.pid,
        caller.inside,
        caller.certificate,
        caller.serial,
        caller.token,
        caller.from,
        caller.role,
        entry.method,
        entry.target,
        entry.request_id,
        entry.repeat,
        entry.outcome.word(),
        entry.reason,
        caller.gid,
    ])
    .map(|_| ())
}

/// Deletes of each kind what is too old, and beyond what is kept the oldest entries of whoever has most: nobody's flood
/// pushes out what others did, as long as they did less.
pub(super) fn trim(db: &Connection, retention: AuditRetention, now_ns: u64) -> rusqlite::Result<()> {
    let oldest = now_ns.saturating_sub(u64::try_from(retention.age.as_nanos()).unwrap_or(u64::MAX));
    for kept in Kept::ALL {
        let entries = match kept {
            Kept::Long => retention.entries,
            Kept::Apart => KEPT_APART.min(retention.entries),
        };
        // Entries are in the order of their times, so this looks only at what is expired and at one more.
        let young: Option<i64> = db
            .prepare_cached("SELECT id FROM audit WHERE apart = ?1 AND last_ns >= ?2 ORDER BY id LIMIT 1")?
            .query_row(params![kept.number(), signed(oldest)], |row| row.get(0))
            .optional()?;
        let expired = young.map_or(i64::MAX, |id| id - 1);
        db.prepare_cached("DELETE FROM audit WHERE apart = ?1 AND id <= ?2")?
            .execute([kept.number(), expired])?;
        let mut held = held(db, kept)?;
        let counts: Vec<u64> = held.values().map(|(entries, _)| *entries).collect();
        let share = share(counts, entries);
        held.retain(|_, (entries, _)| *entries > share);
        for (entries, hands) in held.values() {
            forget(db, kept, hands, entries - share)?;
        }
    }
    Ok(())
}

/// As an entry says who called: who runs inside an instance is that, whatever else it is, and so on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Principal {
    Inside(String),
    Token(String),
    User(u32),
    /// All who have their role by it: each of them may have thousands of numbers (subuid(5)), too.
    Group(u32),
    Certificate(String),
    /// All who have no role, for the same reason.
    Strangers,
}

/// The columns of one kind of entries of one principal: of a token there are as many as users who showed it.
struct Hand {
    inside: String,
    token: String,
    uid: Option<u32>,
    gid: Option<u32>,
    certificate: String,
    has_role: bool,
}

impl Hand {
    fn principal(&self) -> Principal {
        match (self.uid, self.gid) {
            _ if !self.inside.is_empty() => Principal::Inside(self.inside.clone()),
            _ if !self.has_role => Principal::Strangers,
            _ if !self.token.is_empty() => Principal::Token(self.token.clone()),
            (_, Some(gid)) => Principal::Group(gid),
            (Some(uid), None) => Principal::User(uid),
            (None, None) => Principal::Certificate(self.certificate.clone()),
        }
    }
}

/// How many entries each has.
fn held(db: &Connection, kept: Kept) -> rusqlite::Result<HashMap<Principal, (u64, Vec<Hand>)>> {
    let mut held: HashMap<Principal, (u64, Vec<Hand>)> = HashMap::new();
    let mut statement = db.prepare_cached(
        "SELECT inside, token, uid, certificate, gid, role != '', count(*) FROM audit WHERE apart = ?1
         GROUP BY inside, token, uid, certificate, gid, role != ''",
    )?;
    let mut rows = statement.query([kept.number()])?;
    while let Some(row) = rows.next()? {
        let hand = Hand {
            inside: row.get(0)?,
            token: row.get(1)?,
            uid: row.get(2)?,
            certificate: row.get(3)?,
            gid: row.get(4)?,
            has_role: row.get(5)?,
        };
        let (entries, hands) = held.entry(hand.principal()).or_default();
        *entries += u64::try_from(row.get::<_, i64>(6)?).unwrap_or(0);
        hands.push(hand);
    }
    Ok(held)
}

/// How many entries whoever has more may keep, so that all together have no more than `most`; but of each something is
/// left, however many they are.
pub(super) fn share(mut counts: Vec<u64>, most: u64) -> u64 {
    counts.sort_unstable();
    let mut left = most;
    let mut others = u64::try_from(counts.len()).unwrap_or(u64::MAX);
    for count in counts {
        // Whoever has least keeps all, and leaves more to the others.
        let equal = left / others;
        if count > equal {
            return equal.max(1);
        }
        left -= count;
        others -= 1;
    }
    u64::MAX
}

/// Deletes the oldest entries of one principal.
fn forget(db: &Connection, kept: Kept, hands: &[Hand], entries: u64) -> rusqlite::Result<()> {
    let mut ids: Vec<i64> = Vec::new();
    for hand in hands {
        let Hand { inside, token, uid, gid, certificate, has_role } = hand;
        let mut statement = db.prepare_cached(
            "SELECT id FROM audit
             WHERE apart = ?1 AND inside = ?2 AND token = ?3 AND uid IS ?4 AND certificate = ?5 AND gid IS ?6
               AND (role != '') = ?7
             ORDER BY id LIMIT ?8",
        )?;
        let found = statement.query_map(
            params![kept.number(), inside, token, uid, certificate, gid, has_role, signed(entries)],
            |row| row.get(0),
        )?;
        for id in found {
            ids.push(id?);
        }
    }
    ids.sort_unstable();
    ids.truncate(usize::try_from(entries).unwrap_or(usize::MAX));
    let mut delete = db.prepare_cached("DELETE FROM audit WHERE id = ?1")?;
    for id in ids {
        delete.execute([id])?;
    }
    Ok(())
}

/// Whether an error is the disk's, and so nothing else could be written either.
pub(super) fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OperationInterrupted,
        OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    matches!(
        error.sqlite_error_code(),
        Some(
            CannotOpen
                | DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | FileLockingProtocolFailed
                | OperationInterrupted
                | OutOfMemory
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure
        )
    )
}
