use std::{fs, path::PathBuf};

use supervisor_proto::v1::{
    CreateSnapshotRequest, DiffSnapshotRequest, DiffSnapshotResponse, ListSnapshotsRequest, MarkGoodRequest,
    MarkGoodResponse, RollBackRequest, RollBackResponse, Snapshot,
    config_service_client::ConfigServiceClient, snapshot::Standing,
};
use tonic::{Code, Status, transport::Channel};

use super::client::{Server, refused, within};

/// A server that knows `main`, with a configuration that holds `text`.
async fn with_config(text: &str) -> Server {
    let server = Server::start().await;
    server.create("main", Default::default()).await;
    fs::create_dir_all(config(&server).parent().unwrap()).unwrap();
    write(&server, text);
    server
}

fn config(server: &Server) -> PathBuf {
    server.world.directory.path().join("instances/main/state/openclaw.json")
}

fn write(server: &Server, text: &str) {
    fs::write(config(server), text).unwrap();
}

fn client(server: &Server) -> ConfigServiceClient<Channel> {
    ConfigServiceClient::new(server.channel.clone())
}

fn name() -> String {
    "main".into()
}

async fn list(server: &Server) -> Vec<Snapshot> {
    let request = ListSnapshotsRequest { name: name(), ..Default::default() };
    within(client(server).list_snapshots(request)).await.unwrap().into_inner().snapshots
}

async fn create(server: &Server, note: &str) -> Result<Snapshot, Status> {
    let request = CreateSnapshotRequest { name: name(), note: note.into(), ..Default::default() };
    Ok(within(client(server).create_snapshot(request)).await?.into_inner().snapshot.unwrap())
}

async fn diff(server: &Server, from: &str, to: &str) -> Result<DiffSnapshotResponse, Status> {
    let request = DiffSnapshotRequest { name: name(), from: from.into(), to: to.into() };
    Ok(within(client(server).diff_snapshot(request)).await?.into_inner())
}

async fn mark_good(server: &Server, snapshot: &str) -> Result<MarkGoodResponse, Status> {
    let request = MarkGoodRequest { name: name(), snapshot: snapshot.into(), ..Default::default() };
    Ok(within(client(server).mark_good(request)).await?.into_inner())
}

async fn roll_back(server: &Server, request: RollBackRequest) -> Result<RollBackResponse, Status> {
    let request = RollBackRequest { name: name(), ..request };
    Ok(within(client(server).roll_back(request)).await?.into_inner())
}

#[tokio::test]
async fn a_content_is_kept_once_and_its_note_is_the_last_one() {
    let server = with_config("{ a: 1 }").await;
    let first = create(&server, "one").await.unwrap();
    let second = create(&server, "two").await.unwrap();
    assert_eq!((first.id.len(), first.note.as_str(), first.current), (32, "one", true));
    assert_eq!((second.id, second.note.as_str()), (first.id, "two"));
    assert_eq!(create(&server, "").await.unwrap().note, "two", "no note leaves the old one");
    write(&server, "{ a: 2 }");
    create(&server, "").await.unwrap();
    let all = list(&server).await;
    let current: Vec<bool> = all.iter().map(|snapshot| snapshot.current).collect();
    assert_eq!((all.len(), current.iter().filter(|current| **current).count()), (2, 1));
    assert!(all.iter().all(|snapshot| snapshot.standing() == Standing::Unproven && !snapshot.running));
    let too_long = create(&server, &"x".repeat(1_001)).await;
    refused(too_long, Code::InvalidArgument, "INVALID_SPEC");
}

#[tokio::test]
async fn snapshots_come_in_pages() {
    let server = with_config("{ a: 0 }").await;
    for number in 0..5 {
        write(&server, &format!("{{ a: {number} }}"));
        create(&server, "").await.unwrap();
    }
    let mut request = ListSnapshotsRequest { name: name(), page_size: 2, ..Default::default() };
    let mut seen = Vec::new();
    loop {
        let page = within(client(&server).list_snapshots(request.clone())).await.unwrap().into_inner();
        seen.extend(page.snapshots.into_iter().map(|snapshot| snapshot.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let all: Vec<String> = list(&server).await.into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!((seen.len(), seen), (5, all));
}

#[tokio::test]
async fn a_snapshot_is_called_by_its_first_digits() {
    let server = with_config("{ a: 1 }").await;
    let id = create(&server, "").await.unwrap().id;
    mark_good(&server, &id[..4].to_uppercase()).await.unwrap();
    let unknown = if id.starts_with("0000") { "1111" } else { "0000" };
    let told = refused(mark_good(&server, unknown).await, Code::NotFound, "UNKNOWN_SNAPSHOT");
    assert_eq!(
        told,
        format!(
            "no snapshot of `main` is called `{unknown}`; `openclawctl config snapshots main` lists all."
        )
    );
    for bad in ["abc", "not-hexadecimal", "../../etc/passwd", &"a".repeat(33)] {
        refused(mark_good(&server, bad).await, Code::InvalidArgument, "INVALID_SPEC");
    }
    // Two names that begin with the same digits are rare, so they are made.
    let snapshots = server.world.directory.path().join("instances/main/snapshots");
    for last in ["1", "2"] {
        fs::write(snapshots.join(format!("abcd{:0>28}", last)), "{}").unwrap();
    }
    let told = refused(mark_good(&server, "abcd").await, Code::InvalidArgument, "AMBIGUOUS_SNAPSHOT");
    assert_eq!(told, "2 snapshots of `main` begin with `abcd`; give more digits.");
    let damaged = format!("abcd{:0>28}", "1");
    refused(
        roll_back(&server, RollBackRequest { to: damaged, ..Default::default() }).await,
        Code::Unavailable,
        "STORAGE",
    );
}

#[tokio::test]
async fn what_is_good_is_gone_back_to_and_a_question_changes_nothing() {
    let server = with_config("{ a: 1 }").await;
    let none = roll_back(&server, RollBackRequest::default()).await;
    refused(none, Code::FailedPrecondition, "NO_GOOD_CONFIG");
    let good = mark_good(&server, "").await.unwrap().snapshot;
    let none = roll_back(&server, RollBackRequest::default()).await;
    refused(none, Code::FailedPrecondition, "NO_GOOD_CONFIG");
    write(&server, "{ a: 2 }");
    let second = create(&server, "").await.unwrap().id;

    let asked = RollBackRequest { validate_only: true, ..Default::default() };
    let plan = roll_back(&server, asked).await.unwrap();
    assert_eq!((&plan.to, &plan.from), (&good, &second));
    assert_eq!(plan.kept_in, format!("{}.rolled-back-", config(&server).display()));
    assert_eq!(fs::read_to_string(config(&server)).unwrap(), "{ a: 2 }");

    let done = roll_back(&server, RollBackRequest { wait: true, ..Default::default() }).await.unwrap();
    assert_eq!((&done.to, &done.from), (&good, &second));
    let status = done.instance.unwrap().status.unwrap().config.unwrap();
    assert_eq!((status.content, status.degraded), (good.clone(), false), "an operator wanted it");

    mark_good(&server, &second).await.unwrap();
    let standings: Vec<(String, Standing)> =
        list(&server).await.into_iter().map(|each| (each.id.clone(), each.standing())).collect();
    assert!(standings.contains(&(good, Standing::GoodBefore)), "{standings:?}");
    assert!(standings.contains(&(second, Standing::Good)), "{standings:?}");
}

#[tokio::test]
async fn a_repeated_rollback_gets_the_first_answer() {
    let server = with_config("{ a: 1 }").await;
    let good = mark_good(&server, "").await.unwrap().snapshot;
    write(&server, "{ a: 2 }");
    let request = RollBackRequest { request_id: "once".into(), ..Default::default() };
    let first = roll_back(&server, request.clone()).await.unwrap();
    // Whatever has happened since.
    write(&server, "{ a: 3 }");
    let again = roll_back(&server, request).await.unwrap();
    assert_eq!((first.to.as_str(), &first.from, first.revision), (&*good, &again.from, again.revision));
}

#[tokio::test]
async fn a_broken_file_is_compared_without_its_secrets_and_is_not_marked_good() {
    let server = with_config("{ gateway: { auth: { token: 'old-secret-token' } } }").await;
    refused(diff(&server, "", "").await, Code::FailedPrecondition, "NO_GOOD_CONFIG");
    let good = mark_good(&server, "").await.unwrap().snapshot;
    let same = diff(&server, "", "").await.unwrap();
    assert_eq!((same.diff.as_str(), &same.from, &same.to), ("", &good, &good));
    write(&server, "{ gateway: { auth: { token: 'new-secret-token' } }\n");
    let answer = diff(&server, "", "").await.unwrap();
    assert!(!answer.diff.contains("secret-token"), "{}", answer.diff);
    assert!(answer.diff.contains("token: '[withheld 1]'") && answer.diff.contains("'[withheld 2]'"));
    assert!(
        answer.diff.starts_with(&format!("--- snapshot {} (good)\n+++ the file as it is now\n", &good[..12]))
    );
    assert!(answer.problem.contains("openclaw.json:"), "{}", answer.problem);
    let told = refused(mark_good(&server, "").await, Code::FailedPrecondition, "BAD_CONFIG");
    assert!(told.starts_with("no gateway of `main` could start with it: "), "{told}");
    let bad = create(&server, "").await.unwrap().id;
    let backwards = diff(&server, &bad, &good).await.unwrap();
    assert_eq!((backwards.problem.as_str(), backwards.from, backwards.to), ("", bad, good));
}

#[tokio::test]
async fn without_a_file_there_is_nothing_to_keep_or_to_praise_and_all_that_was_good_to_compare() {
    let server = with_config("{}").await;
    let good = mark_good(&server, "").await.unwrap().snapshot;
    fs::remove_file(config(&server)).unwrap();
    let told = refused(create(&server, "").await, Code::FailedPrecondition, "NO_CONFIG");
    let next = "`openclawctl config rollback main` puts the last good one back.";
    assert_eq!(told, format!("`main` has no configuration file; {next}"));
    let lost = diff(&server, "", "").await.unwrap();
    assert!(lost.problem.contains("nothing is in the configuration"), "{}", lost.problem);
    assert!(lost.diff.ends_with("\n-{}\n"), "{}", lost.diff);
    refused(mark_good(&server, "").await, Code::FailedPrecondition, "NO_CONFIG");
    let back = roll_back(&server, RollBackRequest { wait: true, ..Default::default() }).await.unwrap();
    assert_eq!((back.to, back.from.as_str(), back.kept_in.as_str()), (good, "", ""));
    let request = ListSnapshotsRequest { name: "nobody".into(), ..Default::default() };
    refused(within(client(&server).list_snapshots(request)).await, Code::NotFound, "UNKNOWN_INSTANCE");
}
