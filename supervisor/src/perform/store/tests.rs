//! Against real files.

use std::time::Instant;

use supervisor_core::{
    action::Write,
    ids::{Incarnation, Name},
    journal::{Entry, Kind},
    ports::Block,
    time::Moment,
};
use tempfile::TempDir;

use super::{
    writer::{ENTRIES, JOURNAL_SLACK, WAITING, merge},
    *,
};

pub(super) const KEEP: Retention = Retention {
    entries: 100_000,
    age: Duration::from_secs(86_400),
    audit: AuditRetention { entries: 1_000, age: Duration::from_secs(86_400) },
};

pub(super) const HOUR: u64 = 3_600_000_000_000;

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn record(of: &str, generation: u64) -> Record {
    let record = Record::new(name(of), "{}".into(), Block::at(18_789).unwrap(), Moment(0));
    Record { generation, reserved: Incarnation(100), ..record }
}

pub(super) fn entry(revision: u64, at: u64) -> Entry {
    let kind = Kind::Restored { instances: 0 };
    Entry { revision: Revision(revision), at: Moment(at), instance: None, incarnation: Incarnation(0), kind }
}

pub(super) fn batch(revision: u64, writes: Vec<Write>) -> Batch {
    Batch { revision: Revision(revision), writes, entries: vec![entry(revision, HOUR)] }
}

pub(super) fn begin(directory: &TempDir) -> Restored {
    open(directory.path(), ("boot", 7)).unwrap().1
}

/// A store that is written to, and what it says.
pub(super) struct Open {
    pub(super) store: Store,
    pub(super) reports: mpsc::Receiver<Report>,
}

impl Open {
    pub(super) fn new(directory: &TempDir, retention: Retention) -> Self {
        let (opened, restored) = open(directory.path(), ("boot", 7)).unwrap();
        let (sender, reports) = mpsc::channel(64);
        let store =
            Store::start(opened, restored.revision, retention, sender, crate::metrics::Metrics::default())
                .unwrap();
        Self { store, reports }
    }

    /// Waits until this revision is said to be stored, and returns what failed until then.
    pub(super) fn stored(&mut self, revision: u64) -> Vec<String> {
        let mut failures = Vec::new();
        loop {
            match self.reports.blocking_recv().unwrap() {
                Report::Stored(stored) if stored.0 >= revision => return failures,
                Report::Stored(_) => {}
                Report::Failing(message) => failures.push(message),
            }
        }
    }

    pub(super) fn failing(&mut self) -> String {
        loop {
            if let Report::Failing(message) = self.reports.blocking_recv().unwrap() {
                return message;
            }
        }
    }
}

/// Another connection, as an operator would have.
pub(super) fn sqlite(directory: &TempDir) -> Connection {
    Connection::open(directory.path().join(FILE)).unwrap()
}

fn count(db: &Connection, table: &str) -> i64 {
    db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn each_supervisor_of_one_directory_has_the_next_epoch_and_the_same_id() {
    let directory = TempDir::new().unwrap();
    let first = begin(&directory);
    let second = begin(&directory);
    assert_eq!((first.epoch, second.epoch), (1, 2));
    assert_eq!(first.id, second.id);
    assert_ne!(first.id, begin(&TempDir::new().unwrap()).id);
    assert_eq!((first.boot, second.boot.as_deref()), (None, Some("boot")));
}

#[test]
fn within_one_boot_every_supervisor_counts_time_from_the_same_moment() {
    let directory = TempDir::new().unwrap();
    let began = |boot| open(directory.path(), boot).unwrap().1.boot_began;
    assert_eq!(began(("a", 100)), 100);
    assert_eq!(began(("a", 105)), 100, "the wall clock was set meanwhile");
    assert_eq!(began(("b", 900)), 900);
}

#[test]
fn what_is_stored_is_restored() {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, KEEP);
    let pool = Pool { first: 20_000, last: 20_999 };
    open.store.persist(batch(11, vec![Write::Put(record("main", 1)), Write::Put(record("rescue", 1))]));
    open.store.persist(batch(12, vec![Write::Put(record("main", 2)), Write::Remove(name("rescue"))]));
    open.store.persist(batch(13, vec![Write::Pool(pool)]));
    assert_eq!(open.stored(13), Vec::<String>::new());
    assert_eq!(*open.store.latest.borrow(), 13);
    drop(open);
    let restored = begin(&directory);
    assert_eq!(restored.records, [record("main", 2)]);
    assert_eq!((restored.pool, restored.revision), (Some(pool), Revision(13)));
}

#[test]
fn stored_is_said_only_when_another_reader_can_see_it() {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, KEEP);
    let reader = sqlite(&directory);
    for revision in 1..=50 {
        open.store.persist(batch(revision, vec![Write::Put(record("main", revision))]));
        open.stored(revision);
        let text: String = reader.query_row("SELECT record FROM instances", [], |row| row.get(0)).unwrap();
        assert!(serde_json::from_str::<Record>(&text).unwrap().generation >= revision);
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    begin(&directory);
    sqlite(&directory).pragma_update(None, "user_version", SCHEMA + 1).unwrap();
    let path = directory.path().join(FILE);
    let before = fs::read(&path).unwrap();
    let said = open(directory.path(), ("boot", 7)).unwrap_err().to_string();
    assert!(said.contains(path.to_str().unwrap()) && said.contains("schema 3"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_and_has_no_copy_is_refused_and_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(FILE);
    let garbage = b"this is no database, but it may be dear to somebody".repeat(100);
    fs::write(&path, &garbage).unwrap();
    let said = open(directory.path(), ("boot", 7)).unwrap_err().to_string();
    assert!(said.contains(path.to_str().unwrap()), "{said}");
    assert_eq!(fs::read(&path).unwrap(), garbage);
}

#[test]
fn a_record_that_cannot_be_understood_is_named_without_its_text_and_nothing_is_changed() {
    let directory = TempDir::new().unwrap();
    begin(&directory);
    let db = sqlite(&directory);
    file::put_record(&db, "main", "sesame").unwrap();
    let error = open(directory.path(), ("boot", 7)).unwrap_err();
    let said = format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(said.contains("the record of `main`"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
    let epoch: String =
        db.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0)).unwrap();
    assert_eq!(epoch, "1");
}

#[test]
fn an_epoch_that_is_no_number_is_refused_rather_than_begun_anew() {
    let directory = TempDir::new().unwrap();
    begin(&directory);
    put_meta(&sqlite(&directory), "epoch", "7x").unwrap();
    let said = open(directory.path(), ("boot", 7)).unwrap_err().to_string();
    assert!(said.contains("the epoch"), "{said}");
}

#[test]
fn the_file_is_for_its_owner_alone() {
    let directory = TempDir::new().unwrap();
    begin(&directory);
    let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_write_that_fails_is_said_and_tried_until_it_succeeds() {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, KEEP);
    let db = sqlite(&directory);
    db.execute_batch(
        "CREATE TRIGGER refuse BEFORE INSERT ON instances BEGIN SELECT RAISE(ABORT, 'disk on fire'); END",
    )
    .unwrap();
    open.store.persist(batch(1, vec![Write::Put(record("main", 1))]));
    assert!(open.failing().contains("disk on fire"));
    // What comes meanwhile waits with it: all is written in its order, or nothing.
    open.store.persist(batch(2, vec![Write::Put(record("main", 2))]));
    open.failing();
    assert_eq!((count(&db, "instances"), count(&db, "events")), (0, 0));
    db.execute_batch("DROP TRIGGER refuse").unwrap();
    open.stored(2);
    drop(open);
    assert_eq!(begin(&directory).records, [record("main", 2)]);
}

#[test]
fn a_full_disk_leaves_the_registry_whole() {
    let directory = TempDir::new().unwrap();
    let (opened, restored) = open(directory.path(), ("boot", 7)).unwrap();
    let connection = opened.connection.as_ref().unwrap();
    // SQLite meets the end of the disk here, as it would on a full one.
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    connection.pragma_update(None, "max_page_count", pages + 8).unwrap();
    let (sender, reports) = mpsc::channel(64);
    let store =
        Store::start(opened, restored.revision, KEEP, sender, crate::metrics::Metrics::default()).unwrap();
    let mut full = Open { store, reports };
    full.store.persist(batch(1, vec![Write::Put(record("main", 1))]));
    full.stored(1);
    let many = (0..500).map(|n| Write::Put(record(&format!("gateway-{n}"), 1))).collect();
    full.store.persist(batch(2, many));
    assert!(full.failing().contains("full"));
    drop(full);
    let restored = begin(&directory);
    assert_eq!((restored.records, restored.revision), (vec![record("main", 1)], Revision(1)));
}

#[test]
fn what_waits_at_the_end_is_written() {
    let directory = TempDir::new().unwrap();
    let open = Open::new(&directory, KEEP);
    for revision in 1..=100 {
        open.store.persist(batch(revision, vec![Write::Put(record("main", revision))]));
    }
    let Open { store, reports } = open;
    drop(reports);
    store.finish();
    assert_eq!(begin(&directory).records, [record("main", 100)]);
}

#[test]
fn a_store_that_cannot_write_ends_all_the_same() {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, KEEP);
    sqlite(&directory)
        .execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    open.store.persist(batch(1, Vec::new()));
    open.failing();
    let began = Instant::now();
    open.store.finish();
    assert!(
        open.store.ended.try_recv() == Err(std_mpsc::TryRecvError::Disconnected),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn of_batches_that_wait_for_long_the_newest_record_of_each_instance_is_kept() {
    let many = 3 * WAITING as u64;
    let mut waiting = Vec::new();
    for revision in 1..=many {
        let of = format!("gateway-{}", revision % 7);
        waiting.push(batch(revision, vec![Write::Put(record(&of, revision))]));
        merge(&mut waiting);
        assert!(waiting.len() <= WAITING);
    }
    waiting.push(batch(many + 1, vec![Write::Remove(name("gateway-3"))]));
    let mut last = Vec::new();
    last.resize_with(WAITING, || batch(many + 2, Vec::new()));
    waiting.extend(last);
    merge(&mut waiting);
    let [merged] = waiting.as_slice() else { panic!("{}", waiting.len()) };
    assert_eq!(merged.revision, Revision(many + 2));
    let mut seen = Vec::new();
    for write in &merged.writes {
        match write {
            Write::Put(record) => {
                assert!(record.generation > many - 7, "{record:?}");
                seen.push(record.name.to_string());
            }
            Write::Remove(removed) => seen.push(format!("no {removed}")),
            Write::Pool(_) => panic!("nobody changed the pool"),
        }
    }
    seen.sort();
    let left = ["gateway-0", "gateway-1", "gateway-2", "gateway-4", "gateway-5", "gateway-6", "no gateway-3"];
    assert_eq!(seen, left);
}

#[test]
fn of_entries_that_wait_for_long_the_newest_are_kept() {
    let mut waiting: Vec<Batch> = Vec::new();
    for revision in 1..=(ENTRIES + 3 * WAITING) as u64 {
        waiting.push(batch(revision, Vec::new()));
        merge(&mut waiting);
    }
    let entries: Vec<u64> =
        waiting.iter().flat_map(|batch| batch.entries.iter().map(|entry| entry.revision.0)).collect();
    assert!(entries.len() <= ENTRIES + WAITING);
    assert_eq!(entries.last(), Some(&((ENTRIES + 3 * WAITING) as u64)));
    assert!(entries.is_sorted());
}

#[test]
fn the_oldest_entries_beyond_the_number_kept_are_deleted_and_the_place_is_noted() {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, Retention { entries: 10, ..KEEP });
    let last = 2 * JOURNAL_SLACK + 5;
    for revision in 1..=last {
        open.store.persist(batch(revision, Vec::new()));
    }
    open.stored(last);
    drop(open);
    // The next supervisor deletes at once, so that short lives do not add up.
    let mut open = Open::new(&directory, Retention { entries: 10, ..KEEP });
    open.store.persist(batch(last + 1, Vec::new()));
    open.stored(last + 1);
    let db = sqlite(&directory);
    assert_eq!(count(&db, "events"), 10);
    let oldest: i64 = db.query_row("SELECT min(revision) FROM events", [], |row| row.get(0)).unwrap();
    let trimmed: String =
        db.query_row("SELECT value FROM meta WHERE key = 'trimmed'", [], |row| row.get(0)).unwrap();
    assert_eq!(trimmed, (oldest - 1).to_string());
}

#[test]
fn beyond_what_is_kept_whoever_has_most_loses_its_oldest_entries() {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, Retention { entries: 1_000, ..KEEP });
    let of = |revision, who: &str| Entry { instance: Some(name(who)), ..entry(revision, HOUR) };
    let mut entries: Vec<Entry> = (1..=300).map(|revision| of(revision, "main")).collect();
    let flood = 300 + 2 * 1_000 + JOURNAL_SLACK;
    entries.extend((301..=flood).map(|revision| of(revision, "agent")));
    open.store.persist(Batch { revision: Revision(flood), writes: Vec::new(), entries });
    open.stored(flood);
    let db = sqlite(&directory);
    let kept = |who: &str| -> (i64, i64) {
        let count = "SELECT count(*), min(revision) FROM events WHERE instance = ?1";
        db.query_row(count, [who], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    assert_eq!(kept("main"), (300, 1));
    let first = i64::try_from(flood).unwrap() - 699;
    assert_eq!(kept("agent"), (700, first));
    let trimmed: String =
        db.query_row("SELECT value FROM meta WHERE key = 'trimmed'", [], |row| row.get(0)).unwrap();
    assert_eq!(trimmed, (first - 1).to_string());
}

#[test]
fn entries_older_than_the_age_kept_are_deleted() {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, Retention { age: Duration::from_secs(3_600), ..KEEP });
    let entries = vec![entry(1, HOUR), entry(2, HOUR * 2), entry(3, HOUR * 3 - 1), entry(4, HOUR * 3 + 1)];
    open.store.persist(Batch { revision: Revision(4), writes: Vec::new(), entries });
    open.stored(4);
    let db = sqlite(&directory);
    let kept: Vec<i64> = {
        let mut statement = db.prepare("SELECT revision FROM events ORDER BY revision").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(kept, [3, 4]);
}

#[test]
fn revisions_go_on_where_they_ended_even_if_every_entry_is_gone() {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, KEEP);
    open.store.persist(batch(500, Vec::new()));
    open.stored(500);
    drop(open);
    sqlite(&directory).execute("DELETE FROM events", []).unwrap();
    assert_eq!(begin(&directory).revision, Revision(500));
}
