use std::collections::BTreeMap;

use supervisor_proto::v1::{
    DeleteInstanceRequest, InstanceSpec, Phase, StopInstanceRequest, WatchInstancesRequest,
    WatchInstancesResponse, watch_instances_response::Change,
};
use tonic::{Code, Streaming};

use super::client::{Server, connect, refused, within};
use supervisor_proto::v1::instance_service_client::InstanceServiceClient;

/// A watch, and what it has told so far.
struct Watch {
    stream: Streaming<WatchInstancesResponse>,
    revision: u64,
    phases: BTreeMap<String, Phase>,
}

impl Watch {
    async fn begin(server: &Server, names: &[&str], after_revision: Option<u64>) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let request = WatchInstancesRequest { names, after_revision };
        let stream = within(server.instances().watch_instances(request)).await.unwrap().into_inner();
        Self { stream, revision: 0, phases: BTreeMap::new() }
    }

    async fn next(&mut self) -> Change {
        let message = within(self.stream.message()).await.unwrap().unwrap();
        assert!(message.revision >= self.revision, "revisions rise");
        self.revision = message.revision;
        let change = message.change.unwrap();
        match &change {
            Change::Snapshot(snapshot) => {
                let all = snapshot.instances.iter();
                self.phases =
                    all.map(|one| (one.name.clone(), one.status.as_ref().unwrap().phase())).collect();
            }
            Change::Changed(one) => {
                self.phases.insert(one.name.clone(), one.status.as_ref().unwrap().phase());
            }
            Change::Deleted(name) => {
                self.phases.remove(name);
            }
            Change::Bookmark(_) => {}
        }
        change
    }

    /// Reads on until what has been told is as it should be.
    async fn until(&mut self, is: impl Fn(&BTreeMap<String, Phase>) -> bool) {
        while !is(&self.phases) {
            self.next().await;
        }
    }
}

fn is(phases: &BTreeMap<String, Phase>, name: &str, phase: Phase) -> bool {
    phases.get(name) == Some(&phase)
}

async fn stop(server: &Server, name: &str) {
    let stop = StopInstanceRequest { name: name.into(), wait: true, ..Default::default() };
    within(server.instances().stop_instance(stop)).await.unwrap();
}

async fn delete(server: &Server, name: &str) -> u64 {
    let delete = DeleteInstanceRequest { name: name.into(), ..Default::default() };
    within(server.instances().delete_instance(delete)).await.unwrap().into_inner().revision
}

#[tokio::test]
async fn a_watch_begins_with_everything_and_goes_on_with_changes() {
    let server = Server::start().await;
    server.create("a", InstanceSpec::default()).await;
    let mut watch = Watch::begin(&server, &[], None).await;
    assert!(matches!(watch.next().await, Change::Snapshot(snapshot) if snapshot.instances.len() == 1));
    server.up("b").await;
    watch.until(|phases| is(phases, "b", Phase::Ready)).await;
    stop(&server, "b").await;
    watch.until(|phases| is(phases, "b", Phase::Stopped)).await;
    delete(&server, "b").await;
    watch.until(|phases| !phases.contains_key("b")).await;
    assert!(is(&watch.phases, "a", Phase::Stopped));
}

#[tokio::test]
async fn a_watch_of_some_names_tells_of_no_others() {
    let server = Server::start().await;
    server.create("other", InstanceSpec::default()).await;
    let mut watch = Watch::begin(&server, &["main"], None).await;
    assert!(matches!(watch.next().await, Change::Snapshot(snapshot) if snapshot.instances.is_empty()));
    server.up("other").await;
    server.up("main").await;
    watch.until(|phases| is(phases, "main", Phase::Ready)).await;
    assert_eq!(watch.phases.len(), 1);
    let bad = WatchInstancesRequest { names: vec!["No".into()], after_revision: None };
    refused(within(server.instances().watch_instances(bad)).await, Code::InvalidArgument, "INVALID_NAME");
}

#[tokio::test]
async fn a_watch_goes_on_after_a_revision_without_a_gap() {
    let server = Server::start().await;
    let names: Vec<String> = (0..20).map(|number| format!("i{number}")).collect();
    for name in &names {
        server.create(name, InstanceSpec::default()).await;
    }
    let mut watch = Watch::begin(&server, &[], None).await;
    watch.next().await;
    for name in &names {
        server.up(name).await;
    }
    let last = names.last().unwrap();
    // Wherever the stream breaks off, who goes on from there sees the same in the end.
    while !is(&watch.phases, last, Phase::Ready) {
        watch.next().await;
        let mut again = Watch::begin(&server, &[], Some(watch.revision)).await;
        again.phases = watch.phases.clone();
        again.until(|phases| names.iter().all(|name| is(phases, name, Phase::Ready))).await;
    }
}

#[tokio::test]
async fn deletions_are_told_to_those_who_come_back() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        server.create(name, InstanceSpec::default()).await;
    }
    let mut watch = Watch::begin(&server, &[], None).await;
    watch.next().await;
    let (revision, phases) = (watch.revision, watch.phases.clone());
    drop(watch);
    delete(&server, "a").await;
    server.create("a", InstanceSpec::default()).await;
    delete(&server, "b").await;
    let mut again = Watch::begin(&server, &[], Some(revision)).await;
    again.phases = phases;
    again.until(|phases| phases.keys().eq(["a"])).await;
}

#[tokio::test]
async fn a_revision_that_is_too_old_or_from_the_future_is_refused() {
    let server = Server::start().await;
    for revision in [1, u64::MAX] {
        let request = WatchInstancesRequest { names: Vec::new(), after_revision: Some(revision) };
        let refusal = within(server.instances().watch_instances(request)).await;
        refused(refusal, Code::OutOfRange, "REVISION_COMPACTED");
    }
}

#[tokio::test]
async fn an_idle_watch_is_told_that_nothing_is_new() {
    let server = Server::start().await;
    server.create("a", InstanceSpec::default()).await;
    let mut watch = Watch::begin(&server, &[], None).await;
    watch.next().await;
    tokio::time::pause();
    for _ in 0..3 {
        assert!(matches!(watch.next().await, Change::Bookmark(_)));
    }
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_up_nobody() {
    let server = Server::start().await;
    let args = vec!["x".repeat(10_000); 20];
    let bulky = || InstanceSpec {
        runtime: supervisor_proto::v1::Runtime::Command.into(),
        program: "/bin/true".into(),
        args: args.clone(),
        ..Default::default()
    };
    for number in 0..10 {
        server.create(&format!("bulky{number}"), bulky()).await;
    }
    // A connection of its own, whose window fills with megabytes that nobody takes.
    let mut sleeper = InstanceServiceClient::new(connect(&server.socket()).await);
    let asleep =
        within(sleeper.watch_instances(WatchInstancesRequest::default())).await.unwrap().into_inner();
    let mut awake = Watch::begin(&server, &[], None).await;
    for round in 0..20 {
        let name = format!("bulky{}", round % 10);
        server.up(&name).await;
        stop(&server, &name).await;
    }
    awake.until(|phases| phases.len() == 10 && phases.values().all(|phase| *phase == Phase::Stopped)).await;
    drop(asleep);
}
