//! The record of calls, on real files.

use std::{thread, time::Instant};

use supervisor_core::action::Write;
use tempfile::TempDir;

use super::{
    audit::{SLACK, WAITING as NOTES},
    tests::{HOUR, KEEP, Open, batch, begin, record, sqlite},
    *,
};
use crate::audit::{Audit, Caller, Kept, Note, Outcome, Query, What, read};

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
    assert_eq!((last.outcome, last.repeat, last.took), (Outcome::Done, true, Some(Duration::from_micros(5))));
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
    let flooded: Vec<u64> = (0..flood).map(|number| call(token(7 + u32::from(number % 2 == 0)))).collect();
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
fn callers_by_a_group_are_one_and_of_everybody_something_is_left() {
    let directory = TempDir::new().unwrap();
    let open = Open::new(&directory, KEEP);
    let audit = recorder(&open, HOUR);
    let refused = |caller: Caller| audit.refused(caller, What::default(), "NOT_PERMITTED".into());
    let user = |uid| Caller { uid: Some(uid), role: "viewer".into(), ..Caller::default() };
    let theirs: Vec<u64> = (0..50).map(|_| refused(user(7))).collect();
    let flood = u32::try_from(KEEP.audit.entries + 5 * SLACK).unwrap();
    (0..flood).for_each(|number| {
        refused(Caller { gid: Some(9), ..user(100_000 + number) });
    });
    finish(open);
    let entries = recorded(&directory, 0);
    assert!(entries.len() < theirs.len() + flood as usize, "some of the flood are gone");
    let left =
        |gid: Option<u32>| entries.iter().filter(move |entry| entry.caller.gid == gid).map(|entry| entry.id);
    assert_eq!(left(None).collect::<Vec<_>>(), theirs);
    assert!(left(Some(9)).count() > 0);
    // With more who call than entries are kept, nobody's last call is forgotten.
    let directory = TempDir::new().unwrap();
    let open = Open::new(&directory, KEEP);
    let audit = recorder(&open, HOUR);
    let certificate = |number| Caller { certificate: format!("c{number}"), role: "viewer".into(), ..user(7) };
    (0..flood).for_each(|number| {
        audit.refused(Caller { uid: None, ..certificate(number) }, What::default(), "NOT_PERMITTED".into());
    });
    finish(open);
    assert_eq!(recorded(&directory, 0).len(), flood as usize);
}

#[test]
fn a_record_of_an_earlier_version_is_gone_on_with() {
    let directory = TempDir::new().unwrap();
    finish(Open::new(&directory, KEEP));
    sqlite(&directory).execute_batch("ALTER TABLE audit DROP COLUMN gid").unwrap();
    let open = Open::new(&directory, KEEP);
    called(&recorder(&open, HOUR), "main", Kept::Long);
    finish(open);
    assert_eq!(recorded(&directory, 0).len(), 1);
}

#[test]
fn notes_that_the_disk_does_not_take_are_bounded_and_what_is_lost_is_said() {
    let directory = TempDir::new().unwrap();
    let all = AuditRetention { entries: 1_000_000, ..KEEP.audit };
    let mut open = Open::new(&directory, Retention { audit: all, ..KEEP });
    let db = sqlite(&directory);
    db.execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END")
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
