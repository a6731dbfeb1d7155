use std::time::Duration;

use supervisor_core::event::LaunchFailure;
use supervisor_proto::v1::{
    ApplyFleetRequest, DeleteInstanceRequest, FailOverRequest, InstanceSpec, Phase, StartInstanceRequest,
    StopInstanceRequest, rescue_policy::Standby,
};
use tonic::{Code, Request};

use super::{
    client::{Server, refused, rescues, within},
    world::Conduct,
};

fn start(name: &str) -> StartInstanceRequest {
    StartInstanceRequest { name: name.into(), allow_missing: true, wait: true, ..Default::default() }
}

#[tokio::test]
async fn who_waits_for_what_cannot_come_is_told_why() {
    let server = Server::start().await;
    server.world.conduct("main", Conduct::Exits(78));
    let failed = within(server.instances().start_instance(start("main"))).await;
    let sentence = refused(failed, Code::FailedPrecondition, "OUTCOME_FAILED");
    assert!(sentence.starts_with("`main` is not up: exited with status 78"), "{sentence}");
    assert!(sentence.contains("openclawctl logs main"), "{sentence}");
}

#[tokio::test]
async fn who_waits_is_told_when_someone_else_decides_otherwise() {
    let server = Server::start().await;
    server.world.conduct("main", Conduct::Starting);
    let mut client = server.instances();
    let waits = tokio::spawn(async move { client.start_instance(start("main")).await });
    server.until("main", |main| main.phase() == Phase::Starting).await;
    let stop = StopInstanceRequest { name: "main".into(), wait: true, ..Default::default() };
    within(server.instances().stop_instance(stop)).await.unwrap();
    let sentence = refused(within(waits).await.unwrap(), Code::FailedPrecondition, "OUTCOME_FAILED");
    assert!(sentence.contains("an operator wants it down"), "{sentence}");
}

#[tokio::test]
async fn who_waits_for_a_deleted_instance_is_told_that_it_is_gone() {
    let server = Server::start().await;
    server.world.conduct("main", Conduct::Starting);
    let mut client = server.instances();
    let waits = tokio::spawn(async move { client.start_instance(start("main")).await });
    server.until("main", |main| main.phase() == Phase::Starting).await;
    let empty = ApplyFleetRequest {
        content: "version: 1\ninstances: {}\n".into(),
        prune: true,
        ..Default::default()
    };
    within(server.fleets().apply_fleet(empty)).await.unwrap();
    let refusal = within(waits).await.unwrap().unwrap_err();
    assert!([Code::NotFound, Code::FailedPrecondition].contains(&refusal.code()), "{refusal}");
}

#[tokio::test]
async fn a_wait_ends_with_the_callers_patience_and_says_how_far_it_is() {
    let server = Server::start().await;
    server.world.conduct("main", Conduct::Starting);
    let mut request = Request::new(start("main"));
    request.set_timeout(Duration::from_millis(500));
    let late = within(server.instances().start_instance(request)).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(late.message().contains("has not said yet that it is ready"), "{}", late.message());
    assert_eq!(server.get("main").await.status.unwrap().phase(), Phase::Starting, "the wish stands");
}

#[tokio::test]
async fn a_stop_that_takes_long_can_be_hastened() {
    let server = Server::start().await;
    server.world.conduct("main", Conduct::Stubborn);
    server.up("main").await;
    let stop = StopInstanceRequest { name: "main".into(), ..Default::default() };
    let answer = within(server.instances().stop_instance(stop.clone())).await.unwrap().into_inner();
    let status = answer.instance.unwrap().status.unwrap();
    assert_eq!((status.phase(), status.settled), (Phase::Stopping, false));
    assert_eq!(status.hint, "openclawctl down main --force");
    assert_eq!(status.reason, "an operator wants it down; was asked to end and has 10s for it");
    let delete = DeleteInstanceRequest { name: "main".into(), ..Default::default() };
    refused(
        within(server.instances().delete_instance(delete)).await,
        Code::FailedPrecondition,
        "INSTANCE_RUNNING",
    );
    let force = StopInstanceRequest { force: true, wait: true, ..stop };
    let answer = within(server.instances().stop_instance(force)).await.unwrap().into_inner();
    assert_eq!(answer.instance.unwrap().status.unwrap().phase(), Phase::Stopped);
}

#[tokio::test]
async fn a_failover_that_cannot_come_is_told() {
    let server = Server::start().await;
    server.up("main").await;
    server.create("spare", rescues("main", Standby::Cold)).await;
    server.up("spare").await;
    server.world.conduct("spare", Conduct::Fails(LaunchFailure::Refused("its configuration is odd".into())));
    let over = FailOverRequest { primary: "main".into(), wait: true, ..Default::default() };
    let failed = within(server.instances().fail_over(over)).await;
    let sentence = refused(failed, Code::FailedPrecondition, "OUTCOME_FAILED");
    assert!(sentence.starts_with("`main` is not failed over: `spare` cannot stand in"), "{sentence}");
}

#[tokio::test]
async fn a_fleet_that_does_not_come_up_is_told_by_name() {
    let server = Server::start().await;
    server.create("a", InstanceSpec::default()).await;
    server.world.conduct("b", Conduct::Exits(78));
    server.world.conduct("c", Conduct::Exits(78));
    let apply = ApplyFleetRequest {
        content: "version: 1\ninstances: { a: , b: , c: , d: }\n".into(),
        start: true,
        wait: true,
        ..Default::default()
    };
    let failed = within(server.fleets().apply_fleet(apply)).await;
    let sentence = refused(failed, Code::FailedPrecondition, "OUTCOME_FAILED");
    assert!(sentence.contains("`b` is not up") && sentence.contains("`c` is not up"), "{sentence}");
    assert_eq!(server.get("d").await.status.unwrap().phase(), Phase::Ready);
}
