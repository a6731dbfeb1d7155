//! The writing end: one thread that makes batches durable, and the queue before it.
//!
//! ```text
//!   persist ──► queue ──► write, commit ──► Stored
//!   note ────►    ▲            │ fails
//!                 └── pause ◄──┴─────────► Failing
//! ```
//!
//! Notes of the audit go with the next batch, so that a call is in the store no later than what it changed.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self as std_mpsc},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use rusqlite::{Connection, ErrorCode, Transaction};
use supervisor_core::action::{Batch, Write};
use tokio::sync::{mpsc, watch};
use tracing::error;

use super::{
    Opened, Report, Retention,
    audit::{self, AuditRetention, Notes},
    copy::{self, Copier},
    file::{self, json, put_meta, put_record},
    journal,
};
use crate::{
    audit::{Note, Sink},
    metrics::Metrics,
};

/// Batches that may wait for the disk. Beyond that they are merged: of each instance only the newest record is
/// kept, and of the entries only the newest [`ENTRIES`].
pub(super) const WAITING: usize = 1_000;

/// Entries that may wait for the disk.
pub(super) const ENTRIES: usize = 10_000;

/// Entries may be this many more before the oldest are deleted: deleting is not done at every commit.
pub(super) const JOURNAL_SLACK: u64 = 1_000;

/// The pause after the first failure of a write; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two attempts of a failing write.
const PATIENCE: Duration = Duration::from_secs(5);

/// What waits for the disk. Its lock is held for a push or a take, never during a write.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// How many of all the notes that came are dealt with.
    recorded: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Waiting,
    end: End,
    /// How many notes have come.
    noted: u64,
}

/// Batches, and notes of the audit.
#[derive(Debug, Default)]
struct Waiting {
    batches: Vec<Batch>,
    notes: Notes,
    /// How many notes had come when it was taken.
    noted: u64,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.notes.is_empty()
    }

    fn append(&mut self, more: Self) {
        self.batches.extend(more.batches);
        merge(&mut self.batches);
        self.notes.append(more.notes);
        self.noted = more.noted;
    }
}

impl State {
    fn take(&mut self) -> Waiting {
        Waiting { noted: self.noted, ..std::mem::take(&mut self.waiting) }
    }
}

/// Whether more batches can come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum End {
    /// They can.
    #[default]
    Open,
    /// The last one has come.
    Closed,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many batches wait.
    pub(super) fn length(&self) -> usize {
        self.lock().waiting.batches.len()
    }

    /// Adds a batch. Never waits for the disk.
    pub(super) fn push(&self, batch: Batch) {
        let mut state = self.lock();
        state.waiting.batches.push(batch);
        merge(&mut state.waiting.batches);
        self.changed.notify_one();
    }

    /// Gives back what could not be written, which is not tried before more comes.
    fn give_back(&self, notes: Notes) {
        let mut state = self.lock();
        let since = std::mem::replace(&mut state.waiting.notes, notes);
        state.waiting.notes.append(since);
    }

    /// No more batches come.
    pub(super) fn close(&self) {
        self.lock().end = End::Closed;
        self.changed.notify_one();
    }

    /// Waits for something to write and takes all there is; nothing if it is `due` before something comes. `None`: no
    /// more comes.
    fn take(&self, due: Option<Instant>) -> Option<Waiting> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let noted = state.waiting.notes.due();
            // What is known to be lost is said with what comes next.
            if state.end == End::Closed && state.waiting.batches.is_empty() && noted.is_none() {
                return None;
            }
            let until = due.into_iter().chain(noted).min();
            if state.end == End::Closed
                || !state.waiting.batches.is_empty()
                || noted.is_some_and(|noted| noted <= now)
            {
                return Some(state.take());
            }
            state = match until.map(|until| until.saturating_duration_since(now)) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Some(Waiting::default()),
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits that long, or until no more comes, and takes what there is by then.
    fn take_after(&self, pause: Duration) -> (Waiting, End) {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        while state.end == End::Open {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        (state.take(), state.end)
    }
}

impl Sink for Queue {
    fn note(&self, note: Note) {
        let mut state = self.lock();
        // A thread that knows of one looks again in time.
        let is_first = state.waiting.notes.due().is_none();
        state.waiting.notes.push(note);
        state.noted += 1;
        if is_first {
            self.changed.notify_one();
        }
    }

    fn lost(&self) -> u64 {
        self.lock().waiting.notes.lost()
    }

    fn caught_up(&self) -> BoxFuture<'static, ()> {
        let noted = self.lock().noted;
        let mut recorded = self.recorded.subscribe();
        Box::pin(async move {
            // Of a store that has ended nothing is to be waited for.
            let _ = recorded.wait_for(|recorded| *recorded >= noted).await;
        })
    }
}

/// The thread's own.
pub(super) struct Writer {
    store: Opened,
    copier: Copier,
    reports: mpsc::Sender<Report>,
    latest: watch::Sender<u64>,
    retention: Retention,
    metrics: Metrics,
    /// Entries written since the oldest were last deleted.
    since_trim: u64,
    /// The same of the audit.
    since_audit_trim: u64,
    /// The audit cannot be written, and the log says so.
    unrecorded: bool,
    /// Dropped when the thread ends.
    _ended: std_mpsc::Sender<()>,
}

impl Writer {
    pub(super) fn new(
        store: Opened,
        (reports, latest): (mpsc::Sender<Report>, watch::Sender<u64>),
        retention: Retention,
        metrics: Metrics,
        ended: std_mpsc::Sender<()>,
    ) -> Self {
        // Supervisors that live for a few entries each would never get to delete any.
        let copier = Copier::new(&store.path);
        Self {
            store,
            copier,
            reports,
            latest,
            retention,
            metrics,
            since_trim: JOURNAL_SLACK,
            since_audit_trim: audit::SLACK,
            unrecorded: false,
            _ended: ended,
        }
    }

    /// Writes until the driver is gone and everything is written, or cannot be.
    pub(super) fn run(mut self, queue: &Queue) {
        while let Some(mut waiting) = queue.take(self.copier.due()) {
            if waiting.is_empty() {
                self.copy();
                continue;
            }
            let mut pause = FIRST_PAUSE;
            while let Err(error) = self.write(&mut waiting) {
                let _ = self.reports.blocking_send(Report::Failing(self.describe(&error)));
                let (more, end) = queue.take_after(pause);
                waiting.append(more);
                pause = (pause * 2).min(PATIENCE);
                if end == End::Closed {
                    // Nobody was told that this is durable.
                    let _ = self.write(&mut waiting);
                    return;
                }
            }
            self.announce(&waiting.batches);
            if waiting.notes.lost() > 0 {
                queue.give_back(waiting.notes);
            }
            queue.recorded.send_replace(waiting.noted);
            if self.copier.due().is_some_and(|due| due <= Instant::now()) {
                self.copy();
            }
        }
        self.copy();
    }

    /// Copies the registry, if it has changed.
    fn copy(&mut self) {
        if let Some(db) = self.store.connection.as_ref().filter(|_| self.copier.due().is_some()) {
            self.copier.copy(db);
        }
    }

    /// What is wrong, and what mends it if the disk's recovery does not.
    fn describe(&self, error: &rusqlite::Error) -> String {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                copy::suspect(&self.store.path, &error.to_string());
                format!("{error}; restart the supervisor, which restores the last good copy; gateways run on")
            }
            Some(_) | None => error.to_string(),
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

    /// Writes what waits as one transaction. What is left of the notes after that could not be written.
    fn write(&mut self, waiting: &mut Waiting) -> rusqlite::Result<()> {
        let Waiting { batches, notes, noted: _ } = waiting;
        let begun = Instant::now();
        let mut transaction = connected(&mut self.store.connection, &self.store.path)?.transaction()?;
        for (key, value) in &self.store.unwritten {
            put_meta(&transaction, key, value)?;
        }
        let mut entries = self.since_trim;
        for batch in batches.iter() {
            for write in &batch.writes {
                apply(&transaction, write)?;
            }
            for entry in &batch.entries {
                journal::append(&transaction, entry)?;
                entries += 1;
            }
        }
        if let Some(last) = batches.last() {
            put_meta(&transaction, "revision", &last.revision.0.to_string())?;
        }
        let newest = batches.iter().rev().find_map(|batch| batch.entries.last());
        if let Some(newest) = newest.filter(|_| entries >= JOURNAL_SLACK) {
            journal::trim(&transaction, self.retention, newest.at.0)?;
            entries = 0;
        }
        let is_due = self.since_audit_trim + notes.count() >= audit::SLACK;
        let recorded = record(&mut transaction, notes, is_due.then_some(self.retention.audit))?;
        transaction.commit()?;
        self.metrics.committed(begun.elapsed());
        self.store.unwritten.clear();
        self.since_trim = entries;
        self.note_recorded(recorded, notes);
        if batches.iter().any(|batch| !batch.writes.is_empty()) {
            self.copier.note_change();
        }
        Ok(())
    }

    fn note_recorded(&mut self, recorded: Recorded, notes: &mut Notes) {
        match recorded {
            Recorded::All { entries, trimmed } => {
                *notes = Notes::default();
                self.unrecorded = false;
                self.since_audit_trim = if trimmed { 0 } else { self.since_audit_trim + entries };
            }
            Recorded::Nothing(why) => {
                notes.lose_all();
                if !std::mem::replace(&mut self.unrecorded, true) {
                    let why = self.describe(&why);
                    error!("the audit cannot be written; calls are served without a record: {why}");
                }
            }
        }
    }
}

/// What became of the notes.
enum Recorded {
    /// They are written.
    All {
        /// How many entries that made.
        entries: u64,
        /// Whether the oldest were deleted.
        trimmed: bool,
    },
    /// None is, and none could be, though all else can.
    Nothing(rusqlite::Error),
}

/// Writes the notes; `trim` if the oldest are to go. An error is the disk's; what is wrong with the audit alone does
/// not keep the rest from being written.
fn record(
    transaction: &mut Transaction<'_>,
    notes: &Notes,
    trim: Option<AuditRetention>,
) -> rusqlite::Result<Recorded> {
    if notes.is_empty() {
        return Ok(Recorded::All { entries: 0, trimmed: false });
    }
    let savepoint = transaction.savepoint()?;
    let written = audit::write(&savepoint, notes).and_then(|(entries, now_ns)| {
        let trim = trim.filter(|_| now_ns > 0);
        if let Some(retention) = trim {
            audit::trim(&savepoint, retention, now_ns)?;
        }
        Ok(Recorded::All { entries, trimmed: trim.is_some() })
    });
    match written {
        Ok(recorded) => savepoint.commit().map(|()| recorded),
        Err(error) if audit::is_of_the_disk(&error) => Err(error),
        Err(error) => savepoint.finish().map(|()| Recorded::Nothing(error)),
    }
}

/// The connection, made if there was no making it before.
fn connected<'a>(made: &'a mut Option<Connection>, path: &Path) -> rusqlite::Result<&'a mut Connection> {
    if made.is_none() {
        let db = Connection::open(path)?;
        file::prepare(&db)?;
        audit::prepare(&db)?;
        *made = Some(db);
    }
    made.as_mut().ok_or(rusqlite::Error::InvalidQuery)
}

fn apply(db: &Connection, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Put(record) => put_record(db, &record.name, &json(record)?)?,
        Write::Remove(name) => {
            db.prepare_cached("DELETE FROM instances WHERE name = ?1")?.execute([&**name])?;
        }
        Write::Pool(pool) => put_meta(db, "pool", &json(pool)?)?,
    }
    Ok(())
}

/// The disk has not taken anything for long: what waits becomes one batch of bounded size.
pub(super) fn merge(waiting: &mut Vec<Batch>) {
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
