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

const HOUR: u64 = 3_600_000_000_000;

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
        let store = Store::start(opened, restored.revision, retention, sender).unwrap();
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
    let store = Store::start(opened, restored.revision, KEEP, sender).unwrap();
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

mod audit {
    use super::*;
    use crate::{
        audit::{Audit, Caller, Kept, Note, Outcome, Query, What, read},
        perform::store::audit::{SLACK, WAITING as NOTES},
    };

    /// Its calls come at the times that a test says.
    fn recorder(open: &Open, now_ns: u64) -> Audit {
        Audit::new(open.store.audit(), 0, move || now_ns)
    }

    fn called(audit: &Audit, target: &str, kept: Kept) -> u64 {
        let what = What { method: "Service/Call", target, request_id: "r" };
        audit.began(Caller { uid: Some(7), user: "alice".into(), ..Caller::default() }, what, kept)
    }

    fn ended(audit: &Audit, id: u64) {
        let took = Duration::from_micros(5);
        audit.note(Note::End { id, outcome: Outcome::Done, reason: String::new(), repeat: true, took });
    }

    fn recorded(directory: &TempDir, died: u64) -> Vec<crate::audit::Entry> {
        let query = Query { limit: 100_000, died, ..Query::default() };
        let mut entries = read(&sqlite(directory), &query).unwrap().entries;
        entries.reverse();
        entries
    }

    fn finish(open: Open) {
        let Open { store, reports } = open;
        drop(reports);
        store.finish();
    }

    #[test]
    fn a_call_is_in_the_store_no_later_than_what_came_after_it() {
        let directory = TempDir::new().unwrap();
        let mut open = Open::new(&directory, KEEP);
        let audit = recorder(&open, HOUR);
        for revision in 1..=50 {
            let id = called(&audit, "main", Kept::Long);
            open.store.persist(batch(revision, vec![Write::Put(record("main", revision))]));
            open.stored(revision);
            assert_eq!(recorded(&directory, 0).last().unwrap().id, id, "with its change or before it");
            ended(&audit, id);
        }
        finish(open);
        let entries = recorded(&directory, 0);
        assert_eq!(entries.len(), 50);
        let last = entries.last().unwrap();
        assert_eq!(
            (last.outcome, last.repeat, last.took),
            (Outcome::Done, true, Some(Duration::from_micros(5)))
        );
        assert_eq!((last.caller.user.as_str(), last.target.as_str()), ("alice", "main"));
    }

    #[test]
    fn a_call_without_a_change_is_written_all_the_same() {
        let directory = TempDir::new().unwrap();
        let open = Open::new(&directory, KEEP);
        let audit = recorder(&open, HOUR);
        called(&audit, "main", Kept::Long);
        let deadline = Instant::now() + Duration::from_secs(60);
        while recorded(&directory, 0).is_empty() {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
    }

    #[test]
    fn the_next_supervisor_goes_on_counting_and_knows_which_calls_its_predecessor_left() {
        let directory = TempDir::new().unwrap();
        let open = Open::new(&directory, KEEP);
        let audit = recorder(&open, HOUR);
        let first = called(&audit, "main", Kept::Long);
        ended(&audit, first);
        called(&audit, "main", Kept::Long);
        finish(open);
        let restored = begin(&directory);
        assert_eq!(restored.audited, 2);
        let outcomes: Vec<Outcome> = recorded(&directory, 2).iter().map(|entry| entry.outcome).collect();
        assert_eq!(outcomes, [Outcome::Done, Outcome::Died]);
        assert_eq!(recorded(&directory, 0)[1].outcome, Outcome::UnderWay);
    }

    #[test]
    fn of_each_kind_only_so_many_are_kept_and_neither_pushes_the_other_out() {
        let directory = TempDir::new().unwrap();
        let open = Open::new(&directory, KEEP);
        let audit = recorder(&open, HOUR);
        let operators = called(&audit, "main", Kept::Long);
        for _ in 0..KEEP.audit.entries + 3 * SLACK {
            called(&audit, "main", Kept::Apart);
        }
        finish(open);
        let entries = recorded(&directory, 0);
        assert_eq!(entries[0].id, operators);
        let bound = usize::try_from(KEEP.audit.entries + 2 * SLACK).unwrap();
        assert!(entries.len() <= bound, "{}", entries.len());
        // Those that are too old go, too.
        let open = Open::new(&directory, KEEP);
        let later = Audit::new(open.store.audit(), 1_000_000, || 48 * HOUR);
        called(&later, "main", Kept::Long);
        finish(open);
        assert_eq!(recorded(&directory, 0).len(), 1);
    }

    #[test]
    fn of_a_full_record_the_oldest_of_whoever_has_most_go_first() {
        let directory = TempDir::new().unwrap();
        let open = Open::new(&directory, KEEP);
        let audit = recorder(&open, HOUR);
        let call = |caller: Caller| audit.began(caller, What::default(), Kept::Long);
        let known = || Caller { role: "operator".into(), ..Caller::default() };
        let user = |uid| Caller { uid: Some(uid), ..known() };
        let certificate = || Caller { certificate: "ci".into(), ..known() };
        // One token is one caller, whoever shows it.
        let token = |uid| Caller { token: "deploy.token".into(), ..user(uid) };
        let others: Vec<u64> =
            (0..100).flat_map(|_| [call(user(7)), call(user(8)), call(certificate())]).collect();
        let flood = KEEP.audit.entries + 5 * SLACK;
        let flooded: Vec<u64> =
            (0..flood).map(|number| call(token(7 + u32::from(number % 2 == 0)))).collect();
        finish(open);
        let ids: Vec<u64> = recorded(&directory, 0).iter().map(|entry| entry.id).collect();
        assert_eq!(ids[..others.len()], others, "whoever had less keeps all");
        let left = &ids[others.len()..];
        assert!(left.len() < flooded.len() && left.len() >= 700, "{}", left.len());
        assert_eq!(left, &flooded[flooded.len() - left.len()..], "the newest of the flood are there");
    }

    #[test]
    fn callers_without_a_role_are_one_however_many_numbers_they_have() {
        let directory = TempDir::new().unwrap();
        let open = Open::new(&directory, KEEP);
        let audit = recorder(&open, HOUR);
        let agent = || Caller { inside: "main".into(), ..Caller::default() };
        let theirs: Vec<u64> =
            (0..50).map(|_| audit.refused(agent(), What::default(), "INSIDE_INSTANCE".into())).collect();
        let flood = u32::try_from(KEEP.audit.entries + 5 * SLACK).unwrap();
        for uid in 0..flood {
            let stranger = Caller { uid: Some(100_000 + uid), ..Caller::default() };
            audit.refused(stranger, What::default(), "NOT_PERMITTED".into());
        }
        finish(open);
        let ids: Vec<u64> = recorded(&directory, 0).iter().map(|entry| entry.id).collect();
        assert_eq!(ids[..theirs.len()], theirs);
        assert!(ids.len() < theirs.len() + flood as usize, "some of the flood are gone");
    }

    #[test]
    fn notes_that_the_disk_does_not_take_are_bounded_and_what_is_lost_is_said() {
        let directory = TempDir::new().unwrap();
        let all = AuditRetention { entries: 1_000_000, ..KEEP.audit };
        let mut open = Open::new(&directory, Retention { audit: all, ..KEEP });
        let db = sqlite(&directory);
        db.execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
        open.store.persist(batch(1, Vec::new()));
        open.failing();
        let audit = recorder(&open, HOUR);
        // So many wait with what is tried again, and so many behind it.
        let sent = 3 * NOTES;
        for _ in 0..sent {
            called(&audit, "main", Kept::Long);
        }
        db.execute_batch("DROP TRIGGER refuse").unwrap();
        open.stored(1);
        finish(open);
        let entries = recorded(&directory, 0);
        let (lost, kept): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.outcome == Outcome::Lost);
        let lost: u64 = lost.iter().map(|entry| entry.calls).sum();
        assert!(kept.len() <= 2 * NOTES, "{}", kept.len());
        assert_eq!(usize::try_from(lost).unwrap() + kept.len(), sent);
    }

    #[test]
    fn a_record_that_cannot_be_written_does_not_keep_the_registry_from_being_written() {
        let directory = TempDir::new().unwrap();
        let mut open = Open::new(&directory, KEEP);
        let db = sqlite(&directory);
        db.execute_batch("DROP TABLE audit").unwrap();
        let audit = recorder(&open, HOUR);
        for revision in 1..=3 {
            called(&audit, "main", Kept::Long);
            open.store.persist(batch(revision, vec![Write::Put(record("main", revision))]));
            assert_eq!(open.stored(revision), Vec::<String>::new());
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while audit.lost() != 3 {
            assert!(Instant::now() < deadline, "{}", audit.lost());
            thread::yield_now();
        }
        // Once it can be written again, it says so itself.
        crate::perform::store::audit::prepare(&db).unwrap();
        called(&audit, "main", Kept::Long);
        finish(open);
        let entries = recorded(&directory, 0);
        assert_eq!((entries[0].outcome, entries[0].calls), (Outcome::Lost, 3));
        assert_eq!(entries.len(), 2);
        assert_eq!(begin(&directory).records, [record("main", 3)]);
    }
}
