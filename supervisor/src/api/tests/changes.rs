//! What a caller may, asked again while its call or its stream is under way.

use std::{
    fs,
    sync::{Arc, Barrier},
};

use futures_util::stream;
use prost::Message;
use prost_types::FieldMask;
use supervisor_core::ids::Name;
use supervisor_proto::v1::{
    CreateSnapshotRequest, EnterInstanceRequest, InstanceSpec, ListInstancesRequest, ListSnapshotsRequest,
    MarkGoodRequest, RestartInstanceRequest, RollBackRequest, UpdateInstanceRequest, WatchEventsRequest,
    WatchInstancesRequest, config_service_client::ConfigServiceClient,
    event_service_client::EventServiceClient, instance_service_client::InstanceServiceClient,
    rescue_policy::Standby, snapshot::Standing,
};
use tokio::{sync::oneshot, task};
use tonic::{Code, Request, Response, Status, client::Grpc};

use super::{
    access::{bind, bound, end_of},
    client::{Server, refused, rescues, within},
    insides::Raw,
};
use crate::{api::turn, lineage::Origin, role::Grant};

async fn takes_over(server: &Server, rescue: &str, primary: &str) {
    let update = UpdateInstanceRequest {
        name: rescue.into(),
        spec: Some(rescues(primary, Standby::Warm)),
        update_mask: Some(FieldMask { paths: vec!["rescues".into()] }),
        ..Default::default()
    };
    within(server.instances().update_instance(update)).await.unwrap();
}

#[tokio::test]
async fn a_rescue_that_is_given_another_primary_loses_the_streams_of_its_old_one() {
    let server = Server::start().await;
    for name in ["main", "other"] {
        server.create(name, InstanceSpec::default()).await;
    }
    server.create("rescue", rescues("main", Standby::Warm)).await;
    let inside = server.from(Some(Origin::Inside(Name::new("rescue").unwrap()))).await;
    let mut instances = InstanceServiceClient::new(inside.clone());
    let watch = WatchInstancesRequest::default();
    let mut watched = within(instances.watch_instances(watch.clone())).await.unwrap().into_inner();
    let mut events = EventServiceClient::new(inside);
    let mut told = within(events.watch_events(WatchEventsRequest::default())).await.unwrap().into_inner();
    // What happens to its primary ends nothing.
    server.up("main").await;
    takes_over(&server, "rescue", "other").await;
    assert_eq!(end_of(&mut watched).await.code(), Code::PermissionDenied);
    assert!(end_of(&mut told).await.message().contains("may only see itself and `other`"));
    within(instances.watch_instances(watch)).await.unwrap();
}

#[tokio::test]
async fn a_call_whose_caller_loses_its_role_before_all_of_it_has_come_is_not_done() {
    let server = bound(Some(Grant::Admin)).await;
    server.create("main", InstanceSpec::default()).await;
    server.up("main").await;
    bind(&server, Some(Grant::Operator));
    let restart = RestartInstanceRequest { name: "main".into(), ..Default::default() };
    let (send, sent) = oneshot::channel::<()>();
    let message = restart.encode_to_vec();
    let late = stream::once(async move {
        sent.await.unwrap();
        message
    });
    let mut client = Grpc::new(server.channel.clone());
    client.ready().await.unwrap();
    let path =
        http::uri::PathAndQuery::from_static("/openclaw.supervisor.v1.InstanceService/RestartInstance");
    let call = client.client_streaming(Request::new(late), path, Raw);
    tokio::pin!(call);
    // Its headers are there once a call after it has been answered.
    tokio::select! {
        _ = &mut call => panic!("nothing has been sent"),
        _ = server.get("main") => {}
    }
    bind(&server, Some(Grant::Viewer));
    send.send(()).unwrap();
    refused(within(call).await.map(|_| ()), Code::PermissionDenied, "NOT_PERMITTED");
    assert_eq!(server.get("main").await.status.unwrap().incarnation, 1);
}

/// Where a call is, and what becomes of it.
type Queued = task::JoinHandle<Result<(), Status>>;

fn begin<T: Send + 'static>(
    call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
) -> Queued {
    tokio::spawn(async move { call.await.map(|_| ()) })
}

#[tokio::test]
async fn who_loses_its_role_while_its_calls_wait_for_its_turn_is_refused_when_that_comes() {
    let server = bound(Some(Grant::Admin)).await;
    server.create("main", InstanceSpec::default()).await;
    let config = server.world.directory.path().join("instances/main/state/openclaw.json");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let (mut instances, mut configs) = (server.instances(), ConfigServiceClient::new(server.channel.clone()));
    let name = || "main".to_owned();
    for text in ["{ a: 1 }", "{ a: 2 }"] {
        fs::write(&config, text).unwrap();
        let request = CreateSnapshotRequest { name: name(), ..Default::default() };
        within(configs.create_snapshot(request)).await.unwrap();
    }
    let list = ListSnapshotsRequest { name: name(), ..Default::default() };
    let before = within(configs.list_snapshots(list.clone())).await.unwrap().into_inner().snapshots;
    let snapshot = before.iter().find(|snapshot| !snapshot.current).unwrap().id.clone();
    bind(&server, Some(Grant::Operator));
    let barrier = Arc::new(Barrier::new(turn::OWN + 1));
    *server.entering.lock().unwrap() = Some(Arc::clone(&barrier));
    let comes = async || {
        let barrier = Arc::clone(&barrier);
        within(task::spawn_blocking(move || barrier.wait())).await.unwrap();
    };
    let enter = || {
        let mut instances = instances.clone();
        begin(async move { instances.enter_instance(EnterInstanceRequest { name: "main".into() }).await })
    };
    let all_places: Vec<_> = (0..turn::OWN).map(|_| enter()).collect();
    comes().await;
    *server.entering.lock().unwrap() = None;
    let mut listing = instances.clone();
    let (mut marking, mut rolling, mut keeping) = (configs.clone(), configs.clone(), configs.clone());
    let mark = MarkGoodRequest { name: name(), snapshot: snapshot.clone(), ..Default::default() };
    let back = RollBackRequest { name: name(), to: snapshot, ..Default::default() };
    let keep = CreateSnapshotRequest { name: name(), note: "late".into(), ..Default::default() };
    let queue = [
        enter(),
        begin(async move { listing.list_instances(ListInstancesRequest::default()).await }),
        begin(async move { marking.mark_good(mark).await }),
        begin(async move { rolling.roll_back(back).await }),
        begin(async move { keeping.create_snapshot(keep).await }),
    ];
    // They wait once a call after them has been answered. A watch takes no turn.
    let mut watched =
        within(instances.watch_instances(WatchInstancesRequest::default())).await.unwrap().into_inner();
    bind(&server, None);
    end_of(&mut watched).await;
    comes().await;
    for admitted in all_places {
        within(admitted).await.unwrap().unwrap();
    }
    for queued in queue {
        refused(within(queued).await.unwrap(), Code::PermissionDenied, "NOT_PERMITTED");
    }
    bind(&server, Some(Grant::Admin));
    let after = within(configs.list_snapshots(list)).await.unwrap().into_inner().snapshots;
    assert_eq!(after, before);
    assert!(after.iter().all(|snapshot| snapshot.standing() == Standing::Unproven));
}
