//! What is around the services: the socket, the gate, health, reflection, the end.

use std::{fs, os::unix::fs::PermissionsExt};

use supervisor_proto::v1::{
    GetInfoRequest, ReadLogsRequest, StartInstanceRequest, StopInstanceRequest, WatchEventsRequest,
    WatchInstancesRequest, instance_service_client::InstanceServiceClient,
    system_service_client::SystemServiceClient,
};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};
use tower::ServiceExt;

use super::{
    client::{Server, connect, refused, within},
    world::{Conduct, World},
};
use crate::api::listen::socket_path;

impl Server {
    pub(super) fn socket_of(world: &World) -> std::path::PathBuf {
        socket_path(world.directory.path())
    }
}

fn service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.into() }
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone_and_replaces_a_stale_one() {
    let world = World::new(10);
    let socket = Server::socket_of(&world);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let gate = world.gate();
    let server = Server::build(world, gate).await;
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    server.up("main").await;
    server.shutdown.cancel();
    within(server.served).await.unwrap().unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn other_users_are_turned_away() {
    let others = [nix::unistd::geteuid().as_raw() + 1; 2];
    let world = World::new(10);
    let gate = world.gate_of(others);
    let server = Server::build(world, gate).await;
    let refusal = within(server.system().get_info(GetInfoRequest {})).await;
    refused(refusal, Code::PermissionDenied, "NOT_PERMITTED");
}

#[tokio::test]
async fn of_what_a_caller_sent_little_is_quoted_to_it() {
    const LITTLE: usize = 2 << 10;
    let server = Server::start().await;
    let unknown = service(&"x".repeat(1 << 20));
    let quoted = within(HealthClient::new(server.channel.clone()).check(unknown)).await.unwrap_err();
    assert!(quoted.code() == Code::NotFound && quoted.message().len() < LITTLE, "{quoted}");
    let name = "y".repeat(1 << 20);
    let request = StartInstanceRequest { name, ..Default::default() };
    let quoted = within(server.instances().start_instance(request)).await.unwrap_err();
    assert!(quoted.code() == Code::InvalidArgument && quoted.message().len() < LITTLE, "{quoted}");
    assert!(quoted.details().len() < 2 * LITTLE);
    let path = format!("http://localhost/{}", "z".repeat(4_000));
    let request = http::Request::post(path).body(tonic::body::Body::empty()).unwrap();
    let answer = within(server.channel.clone().oneshot(request)).await.unwrap();
    let quoted = tonic::Status::from_header_map(answer.headers()).unwrap();
    assert!(quoted.code() == Code::Unimplemented && quoted.message().len() < 200, "{quoted}");
}

#[tokio::test]
async fn health_follows_the_instance() {
    let server = Server::start().await;
    let mut client = HealthClient::new(server.channel.clone());
    for name in ["", "openclaw.supervisor.v1.InstanceService", "grpc.health.v1.Health"] {
        let answer = within(client.check(service(name))).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{name}");
    }
    for name in ["nobody", "instance/main", "instance/No"] {
        assert_eq!(within(client.check(service(name))).await.unwrap_err().code(), Code::NotFound, "{name}");
    }
    let mut watch = within(client.watch(service("instance/main"))).await.unwrap().into_inner();
    let mut until = async |status: ServingStatus| {
        while within(watch.message()).await.unwrap().unwrap().status() != status {}
    };
    until(ServingStatus::ServiceUnknown).await;
    server.up("main").await;
    until(ServingStatus::Serving).await;
    let stop = StopInstanceRequest { name: "main".into(), wait: true, ..Default::default() };
    within(server.instances().stop_instance(stop)).await.unwrap();
    until(ServingStatus::NotServing).await;
    let delete = supervisor_proto::v1::DeleteInstanceRequest { name: "main".into(), ..Default::default() };
    within(server.instances().delete_instance(delete)).await.unwrap();
    until(ServingStatus::ServiceUnknown).await;
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let server = Server::start().await;
    let expected = [
        "grpc.health.v1.Health",
        "openclaw.supervisor.v1.EventService",
        "openclaw.supervisor.v1.FleetService",
        "openclaw.supervisor.v1.InstanceService",
        "openclaw.supervisor.v1.LogService",
        "openclaw.supervisor.v1.SystemService",
    ];
    let request = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let mut answers =
        within(client.server_reflection_info(tokio_stream::once(request))).await.unwrap().into_inner();
    let answer = within(answers.message()).await.unwrap().unwrap().message_response;
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in expected {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }

    let symbol = "openclaw.supervisor.v1.InstanceService".to_owned();
    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            symbol,
        )),
        ..Default::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let mut answers =
        within(client.server_reflection_info(tokio_stream::once(request))).await.unwrap().into_inner();
    let answer = within(answers.next()).await.unwrap().unwrap().message_response;
    assert!(
        matches!(
            answer,
            Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
        ),
        "{answer:?}"
    );
}

#[tokio::test]
async fn what_does_not_exist_is_unimplemented() {
    let server = Server::start().await;
    let uri = "http://localhost/openclaw.supervisor.v1.InstanceService/Fly";
    let request = http::Request::post(uri).body(tonic::body::Body::empty()).unwrap();
    let answer = within(server.channel.clone().oneshot(request)).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], (Code::Unimplemented as i32).to_string());
}

#[tokio::test]
async fn the_end_is_told_to_all_who_wait_and_waits_for_no_sleeper() {
    let server = Server::start().await;
    server.world.conduct("main", Conduct::Starting);
    let mut waiting = server.instances();
    let wait =
        StartInstanceRequest { name: "main".into(), allow_missing: true, wait: true, ..Default::default() };
    let waiting = tokio::spawn(async move { waiting.start_instance(wait).await });
    server.until("main", |main| main.incarnation == 1).await;
    let mut watch = within(server.instances().watch_instances(WatchInstancesRequest::default()))
        .await
        .unwrap()
        .into_inner();
    let mut events =
        within(server.events().watch_events(WatchEventsRequest::default())).await.unwrap().into_inner();
    let follow = ReadLogsRequest { name: "main".into(), follow: true, ..Default::default() };
    let mut logs = within(server.logs().read_logs(follow)).await.unwrap().into_inner();
    let mut health = HealthClient::new(server.channel.clone());
    let mut health = within(health.watch(service(""))).await.unwrap().into_inner();
    let mut sleeper = InstanceServiceClient::new(connect(&server.socket()).await);
    let asleep = within(sleeper.watch_instances(WatchInstancesRequest::default())).await.unwrap();

    server.shutdown.cancel();
    refused(within(waiting).await.unwrap(), Code::Unavailable, "SHUTTING_DOWN");
    macro_rules! ends {
        ($stream:ident) => {
            let end = loop {
                if let Err(end) = within($stream.message()).await {
                    break end;
                }
            };
            refused(Err::<(), _>(end), Code::Unavailable, "SHUTTING_DOWN");
        };
    }
    ends!(watch);
    ends!(events);
    ends!(logs);
    ends!(health);
    within(server.served).await.unwrap().unwrap();
    drop(asleep);
}

#[tokio::test]
async fn a_socket_with_a_very_long_path_is_served() {
    let mut world = World::new(10);
    let deep = world.directory.path().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    world.socket = Some(deep.join("control.sock"));
    let gate = world.gate();
    let server = Server::build(world, gate).await;
    let mut client = SystemServiceClient::new(server.channel.clone());
    let info = within(client.get_info(GetInfoRequest {})).await.unwrap().into_inner();
    assert!(info.socket.len() > 200, "{}", info.socket);
}
