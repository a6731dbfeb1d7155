use std::time::Duration;

use supervisor_core::{
    action::Batch,
    ids::{Incarnation, Name, Revision},
    journal::{Entry, Kind},
    time::Moment,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::perform::store::{self, AuditRetention, Report, Retention, Store};

/// What the store keeps here.
const KEPT: u64 = 500;

/// A store that writes, and the journal that reads what it wrote.
struct Both {
    _directory: TempDir,
    store: Store,
    reports: mpsc::Receiver<Report>,
    journal: Journal,
    revision: u64,
}

impl Both {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let (connection, restored) = store::open(directory.path(), ("boot", 0)).unwrap();
        let (sender, reports) = mpsc::channel(16);
        let retention = Retention {
            entries: KEPT,
            age: Duration::from_secs(3600),
            audit: AuditRetention { entries: KEPT, age: Duration::from_secs(3600) },
        };
        let store = Store::start(
            connection,
            restored.revision,
            retention,
            sender,
            crate::metrics::Metrics::default(),
        )
        .unwrap();
        let journal = Journal::new(directory.path(), store.latest.clone());
        Self { _directory: directory, store, reports, journal, revision: 0 }
    }

    /// Writes one entry for each name, as one batch, and waits until that is durable.
    async fn write(&mut self, names: impl IntoIterator<Item = &str>) {
        let entries: Vec<Entry> = names
            .into_iter()
            .map(|name| {
                self.revision += 1;
                Entry {
                    revision: Revision(self.revision),
                    at: Moment(self.revision * 1_000),
                    instance: Name::new(name).ok(),
                    incarnation: Incarnation(7),
                    kind: Kind::StopOverdue,
                }
            })
            .collect();
        let revision = Revision(self.revision);
        self.store.persist(Batch { revision, writes: Vec::new(), entries });
        let patience = Duration::from_secs(60);
        let report = tokio::time::timeout(patience, self.reports.recv()).await.unwrap();
        assert!(matches!(report, Some(Report::Stored(stored)) if stored == revision));
    }

    async fn revisions(&self, query: Query) -> Vec<u64> {
        self.journal.read(query).await.unwrap().events.iter().map(|event| event.revision).collect()
    }
}

fn query(after: u64, limit: usize) -> Query {
    Query { after, limit, ..Query::default() }
}

#[tokio::test]
async fn entries_are_read_as_they_were_written() {
    let mut both = Both::new();
    both.write(["main", ""]).await;
    let page = both.journal.read(query(0, 10)).await.unwrap();
    let expected = Event {
        revision: 1,
        unix_ns: 1_000,
        instance: "main".into(),
        incarnation: 7,
        kind: "instance.stop_overdue".into(),
        severity: 2,
        message: Kind::StopOverdue.to_string(),
    };
    assert_eq!(page.events[0], expected);
    assert_eq!(page.events[1].instance, "");
    assert_eq!(page.trimmed, 0);
    assert_eq!(*both.journal.latest().borrow(), 2);
}

#[tokio::test]
async fn the_oldest_or_the_newest_are_read_of_all_or_of_one_instance() {
    let mut both = Both::new();
    both.write(["a", "b", "a", "b", "a"]).await;
    let of_a = |which| Query { whose: Whose::One("a".into()), which, ..query(0, 2) };
    assert_eq!(both.revisions(query(0, 2)).await, [1, 2]);
    assert_eq!(both.revisions(query(2, 2)).await, [3, 4]);
    assert_eq!(both.revisions(query(5, 2)).await, [0; 0]);
    assert_eq!(both.revisions(Query { which: Which::Newest, ..query(0, 2) }).await, [4, 5]);
    let of_some =
        |which, limit| Query { whose: Whose::Some(vec!["a".into(), "c".into()]), which, ..query(0, limit) };
    let all_of_a = both.revisions(Query { whose: Whose::One("a".into()), ..query(0, 9) }).await;
    assert_eq!(both.revisions(of_some(Which::Oldest, 9)).await, all_of_a);
    assert_eq!(both.revisions(of_some(Which::Newest, 1)).await, all_of_a[all_of_a.len() - 1..]);
    assert_eq!(both.revisions(of_a(Which::Oldest)).await, [1, 3]);
    assert_eq!(both.revisions(of_a(Which::Newest)).await, [3, 5]);
}

#[tokio::test]
async fn the_newest_revision_is_a_level_that_wakes_readers() {
    let mut both = Both::new();
    let mut latest = both.journal.latest();
    latest.mark_unchanged();
    both.write(["a"]).await;
    both.write(["a"]).await;
    latest.changed().await.unwrap();
    assert_eq!(*latest.borrow_and_update(), 2);
}

#[tokio::test]
async fn trimming_is_noted_and_gaps_are_not_mistaken_for_it() {
    let mut both = Both::new();
    both.revision = 10_000;
    both.write(["a"]).await;
    assert_eq!(both.journal.read(query(0, 1)).await.unwrap().trimmed, 0);
    // The store trims once in a while, but surely after as many as these.
    both.write(std::iter::repeat_n("a", 2_000)).await;
    let page = both.journal.read(query(0, 1)).await.unwrap();
    assert_eq!(page.events[0].revision, page.trimmed + 1);
    assert_eq!(page.trimmed, 10_000 + 1 + 2_000 - KEPT);
}

#[tokio::test]
async fn a_part_of_the_history_is_read_between_two_revisions_and_by_kind() {
    let mut both = Both::new();
    both.write(["a", "b", "a", "b", "a"]).await;
    let between = |which| Query { until: Some(4), whose: Whose::One("a".into()), which, ..query(1, 9) };
    assert_eq!(both.revisions(between(Which::Oldest)).await, [3]);
    assert_eq!(both.revisions(Query { until: Some(4), which: Which::Newest, ..query(0, 2) }).await, [3, 4]);
    let of_kinds = async |kinds: &[&str], after| {
        let events = both.journal.of_kinds(kinds, after, 2).await.unwrap();
        events.iter().map(|event| event.revision).collect::<Vec<_>>()
    };
    assert_eq!(of_kinds(&["instance.stop_overdue", "instance.ready"], 1).await, [2, 3]);
    assert_eq!(of_kinds(&["instance.ready"], 0).await, [0; 0]);
}
