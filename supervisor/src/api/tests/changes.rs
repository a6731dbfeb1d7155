//! What a caller may, asked again while its call or its stream is under way.

use futures_util::stream;
use prost::Message;
use prost_types::FieldMask;
use supervisor_core::ids::Name;
use supervisor_proto::v1::{
    InstanceSpec, RestartInstanceRequest, UpdateInstanceRequest, WatchEventsRequest, WatchInstancesRequest,
    event_service_client::EventServiceClient, instance_service_client::InstanceServiceClient,
    rescue_policy::Standby,
};
use tokio::sync::oneshot;
use tonic::{Code, Request, client::Grpc};

use super::{
    access::{bind, bound, end_of},
    client::{Server, refused, rescues, within},
    insides::Raw,
};
use crate::{lineage::Origin, role::Grant};

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
