//! A store that is damaged: it is put aside, and a new one is made of its last good copy and of what the workers
//! know.
//!
//! ```text
//!   copy ────► records ◄──── traces of the launches since: they win
//!                 │ numbers skipped: none is used twice
//!                 ▼
//!   supervisor.db.new ─► supervisor.db-wal, supervisor.db put aside ─► supervisor.db
//! ```
//!
//! A crash at any of these points leaves a store that is missing or damaged, and the next start does it again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::Connection;
use supervisor_core::{
    ids::{Incarnation, Name},
    ports::Ports,
    record::{Record, Wish},
    time::Moment,
};
use tracing::error;

use super::{
    StoreError,
    copy::{self, MakeError},
    file::{self, Content, Flaw},
    trace::{Found, Trace},
};

/// Incarnations skipped: more than can have been launched since the copy was made, which is renewed within seconds
/// of every launch.
const INCARNATION_GAP: u64 = 100_000;

/// Epochs skipped: more than supervisors can have begun since the copy was made. A worker obeys no lower epoch than
/// it has seen.
const EPOCH_GAP: u64 = 1_000;

/// Revisions skipped: more than can have been shown since the copy was made.
const REVISION_GAP: u64 = 1_000_000_000;

/// Damaged stores that are kept; of more, the oldest are deleted, so that a disk that damages each is not filled by
/// them.
const KEPT: usize = 5;

/// What is added to a damaged store's name, before the time.
const DAMAGED: &str = "damaged";

/// What is known when a store turns out to be damaged.
pub(super) struct Evidence {
    pub(super) copy: Option<Result<Content, Flaw>>,
    pub(super) traces: Vec<Found>,
}

impl Evidence {
    /// Whether there has been a store.
    pub(super) fn of_a_store(&self) -> bool {
        self.copy.is_some() || !self.traces.is_empty()
    }

    /// Why `content` cannot be what was stored last: something that came after it is known.
    pub(super) fn against(&self, content: &Content) -> Option<String> {
        let age = |content: &Content| (content.epoch, content.revision);
        if let Some(Ok(copy)) = &self.copy
            && age(copy) > age(content)
        {
            return Some("it is older than its copy".into());
        }
        let launched_later = |found: &&Found| {
            let trace = &found.trace;
            let record = content.records.iter().find(|record| record.name == trace.name);
            let unreserved = record.is_some_and(|record| record.reserved < trace.incarnation);
            // The life of a supervisor that began on a full disk is one above what is stored. And what a deleted
            // instance left says nothing of its successor, but nothing of it is alive.
            trace.epoch > content.epoch + 1 || (found.alive && unreserved)
        };
        let later = self.traces.iter().find(launched_later)?;
        Some(format!("it is older than the last start of `{}`", later.trace.name))
    }
}

/// Puts the damaged store aside and makes a new one. Without anything to make it of, all is left as it is.
pub(super) fn restore(path: &Path, why: &str, evidence: &Evidence) -> Result<(), StoreError> {
    let lost = |copy: String| StoreError::Lost { path: path.to_owned(), why: why.to_owned(), copy };
    let (mut content, source) = match &evidence.copy {
        Some(Ok(copy)) => (copy.clone(), "its last good copy"),
        Some(Err(flaw)) if evidence.traces.is_empty() => {
            return Err(lost(format!("is damaged, too ({flaw})")));
        }
        None if evidence.traces.is_empty() => return Err(lost("does not exist".into())),
        Some(Err(_)) | None => (Content::default(), "what its workers were told, for there is no good copy"),
    };
    let copied = content.revision;
    let changes = reconcile(&mut content, &evidence.traces);
    content.revision += REVISION_GAP;
    let failed = |source: MakeError| StoreError::Mend { path: path.to_owned(), why: why.to_owned(), source };
    let aside = match path.exists() {
        true => Some(stamp(path).map_err(failed)?),
        false => None,
    };
    let kept = aside
        .as_ref()
        .map_or_else(String::new, |stamp| format!("; it is kept as `{}.{stamp}`", path.display()));
    let changes = if changes.is_empty() { String::new() } else { format!("; {}", changes.join("; ")) };
    let message = format!(
        "`{}` was damaged ({why}){kept}; the registry is that of {source}, of revision {copied}, and what was \
         changed after that may be lost{changes}; earlier events are not shown any more",
        path.display(),
    );
    copy::make(path, &content, |db| {
        file::put_meta(db, "trimmed", &content.revision.to_string())?;
        file::put_meta(db, "revision", &(content.revision + 1).to_string())?;
        file::alarm(db, content.revision + 1, &message)
    })
    .map_err(failed)?;
    put_aside(path, aside.as_deref())
        .and_then(|()| copy::place(path))
        .and_then(|()| copy::forget_suspicion(path))
        .map_err(|error| failed(error.into()))?;
    error!("{message}");
    Ok(())
}

/// Brings a copy up to what was launched after it was made, so that no number, no port and no running gateway is
/// lost. Says what that changed.
fn reconcile(content: &mut Content, traces: &[Found]) -> Vec<String> {
    let mut said = Vec::new();
    let newest = traces.iter().map(|found| found.trace.epoch).max();
    content.epoch = content.epoch.max(newest.unwrap_or(0)) + EPOCH_GAP;
    for Found { trace, alive } in traces {
        content.id.get_or_insert_with(|| trace.store.clone());
        if content.id.as_ref() != Some(&trace.store) {
            continue;
        }
        let Some(record) = content.records.iter_mut().find(|record| record.name == trace.name) else {
            let (wish, doing) =
                if *alive { (Wish::Up, "runs and is adopted") } else { (Wish::Down, "is kept stopped") };
            said.push(format!("`{}`, unknown to it, {doing}", trace.name));
            content.records.push(unknown(trace, wish));
            continue;
        };
        record.reserved = record.reserved.max(trace.incarnation);
        if !alive || trace.incarnation <= record.launched {
            continue;
        }
        if *record.spec != *trace.spec {
            record.generation += 1;
            record.spec = trace.spec.as_str().into();
            said.push(format!("`{}` has the settings that it was last started with", trace.name));
        }
        if record.block != trace.block {
            record.previous_base = None;
            record.block = trace.block;
        }
        // Only what is wished up is launched.
        if record.wish == Wish::Down || record.deleting.is_some() {
            record.deleting = None;
            record.wish = Wish::Up;
            said.push(format!("`{}` was started since and is wished up", trace.name));
        }
    }
    for record in &mut content.records {
        record.reserved = Incarnation(record.reserved.0.saturating_add(INCARNATION_GAP));
    }
    part(content, traces, &mut said);
    said
}

/// An instance that was created after the copy was made.
fn unknown(trace: &Trace, wish: Wish) -> Record {
    Record {
        wish,
        reserved: trace.incarnation,
        ..Record::new(trace.name.clone(), Arc::from(trace.spec.as_str()), trace.block, Moment(0))
    }
}

/// Gives other ports to those whose ports were given to others after the copy was made. Who runs keeps its own.
fn part(content: &mut Content, traces: &[Found], said: &mut Vec<String>) {
    let runs = |name: &Name| traces.iter().any(|found| found.alive && found.trace.name == *name);
    let mut ports = Ports::new(content.pool.unwrap_or_default());
    let (running, others): (Vec<_>, Vec<_>) =
        content.records.iter_mut().partition(|record| runs(&record.name));
    for record in running.into_iter().chain(others) {
        let taken = ports.held().any(|(block, _)| block.overlaps(record.block));
        if taken && let Ok(block) = ports.take(&record.name, None) {
            said.push(format!("`{}` has the ports {block}, as its own are taken", record.name));
            record.previous_base = Some(record.block.base);
            record.block = block;
        }
        ports.hold(&record.name, record.block);
    }
}

/// What a store that is damaged now is called, without its own name.
fn stamp(path: &Path) -> Result<String, MakeError> {
    // SQLite knows the time and how it is written.
    let now: String =
        Connection::open_in_memory()?
            .query_row("SELECT strftime('%Y%m%dT%H%M%fZ', 'now')", [], |row| row.get(0))?;
    let stamp = format!("{DAMAGED}-{now}");
    debug_assert!(!copy::with(path, &stamp).exists());
    Ok(stamp)
}

/// Renames the damaged store together with its log, which belongs to it and to no other.
fn put_aside(path: &Path, stamp: Option<&str>) -> io::Result<()> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    let Some(stamp) = stamp else {
        // A log without its store is nothing, and must not be taken for the new one's.
        return gone(fs::remove_file(beside("-wal"))).and_then(|()| gone(fs::remove_file(beside("-shm"))));
    };
    let kept = copy::with(path, stamp);
    let mut kept_log = kept.clone().into_os_string();
    kept_log.push("-wal");
    gone(fs::rename(beside("-wal"), kept_log))?;
    gone(fs::remove_file(beside("-shm")))?;
    fs::rename(path, kept)?;
    copy::sync_directory(path)?;
    forget_oldest(path)
}

/// Deletes the oldest damaged stores beyond what is kept.
fn forget_oldest(path: &Path) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = format!("{}.{DAMAGED}-", name.to_string_lossy());
    let mut kept: Vec<String> = fs::read_dir(directory)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix) && !name.ends_with("-wal"))
        .collect();
    kept.sort();
    for name in kept.iter().take(kept.len().saturating_sub(KEPT)) {
        fs::remove_file(directory.join(name))?;
        let _ = fs::remove_file(directory.join(format!("{name}-wal")));
    }
    Ok(())
}
