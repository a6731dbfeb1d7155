//! Callers inside an instance: what they may do, and what not.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Label};
use supervisor_core::ids::Name;
use supervisor_proto::v1::{
    self, DESCRIPTORS, GetIncidentRequest, GetInfoRequest, GetInstanceRequest, InstanceSpec,
    ListEventsRequest, ListIncidentsRequest, ListInstancesRequest, RestartInstanceRequest,
    StopInstanceRequest, WatchEventsRequest, WatchInstancesRequest, event_service_client::EventServiceClient,
    incident_service_client::IncidentServiceClient, instance_service_client::InstanceServiceClient,
    rescue_policy::Standby, system_service_client::SystemServiceClient, watch_instances_response::Change,
};
use tokio_stream::StreamExt;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use super::client::{Server, refused, rescues, within};
use crate::{
    api::{
        access::{self, METHODS, Rule},
        inside::Inside,
    },
    lineage::Origin,
};

/// Messages as they come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put(buffer, item.as_slice());
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = prost::bytes::Buf::remaining(buffer);
        Ok(Some(prost::bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

/// The field by which each RPC names an instance, of those that do, by the RPC's path.
fn naming_fields() -> BTreeMap<String, u32> {
    let sets = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let files: Vec<_> = sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).unwrap().file).collect();
    let mut fields = BTreeMap::new();
    for file in &files {
        for service in &file.service {
            for method in &service.method {
                let input = method.input_type().rsplit('.').next().unwrap();
                let message = file.message_type.iter().find(|message| message.name() == input).unwrap();
                let naming = |name: &str| ["name", "names", "instance", "primary", "service"].contains(&name);
                if let Some(field) = message.field.iter().find(|field| naming(field.name())) {
                    assert_ne!(field.label(), Label::Required);
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    fields.insert(path, u32::try_from(field.number()).unwrap());
                }
            }
        }
    }
    fields
}

/// A request with one string field.
fn request(field: u32, text: &str) -> Vec<u8> {
    let mut message = Vec::new();
    prost::encoding::string::encode(field, &text.to_owned(), &mut message);
    message
}

pub(super) async fn call(channel: &Channel, path: &'static str, message: Vec<u8>) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    within(client.server_streaming(Request::new(message), path, Raw)).await.map(drop)
}

fn inside(name: &str) -> Option<Origin> {
    Some(Origin::Inside(Name::new(name).unwrap()))
}

/// A fleet of `main`, its rescue, and another one.
async fn fleet() -> Server {
    let server = Server::start().await;
    server.create("main", InstanceSpec::default()).await;
    server.create("rescue", rescues("main", Standby::Warm)).await;
    server.create("other", InstanceSpec::default()).await;
    for name in ["main", "rescue", "other"] {
        server.up(name).await;
    }
    server
}

#[tokio::test]
async fn whatever_is_open_to_a_rescue_and_names_an_instance_refuses_a_foreign_name() {
    let server = fleet().await;
    let rescue = server.from(inside("rescue")).await;
    let fields = naming_fields();
    let mut nameless = BTreeSet::new();
    for Rule { path, inside, .. } in METHODS.iter().filter(|rule| rule.answer != access::Answer::Page) {
        let foreign: &[&str] = match inside {
            Inside::Closed => &["main", "rescue", "other"],
            Inside::Open => continue,
            Inside::See => &["other", "nobody"],
            Inside::Mend => &["other", "nobody", "rescue"],
        };
        let Some(field) = fields.get(*path) else {
            if *inside != Inside::Closed {
                nameless.insert(*path);
            } else {
                let refusal = call(&rescue, path, Vec::new()).await;
                refused(refusal, Code::PermissionDenied, "INSIDE_INSTANCE");
            }
            continue;
        };
        for name in foreign {
            let name = if path.contains("Health") { format!("instance/{name}") } else { (*name).into() };
            let refusal = call(&rescue, path, request(*field, &name)).await;
            assert!(refusal.is_err(), "{path} about {name}");
            refused(refusal, Code::PermissionDenied, "INSIDE_INSTANCE");
        }
    }
    let others = [
        "/openclaw.supervisor.v1.IncidentService/GetIncident",
        "/openclaw.supervisor.v1.InstanceService/ListInstances",
    ];
    assert_eq!(nameless, BTreeSet::from(others), "each of these has a test of its own");
}

#[tokio::test]
async fn a_rescue_sees_itself_and_its_primary_and_restarts_only_that() {
    let server = fleet().await;
    let channel = server.from(inside("rescue")).await;
    let mut client = InstanceServiceClient::new(channel.clone());
    let list = within(client.list_instances(ListInstancesRequest::default())).await.unwrap().into_inner();
    let names: Vec<_> = list.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, ["main", "rescue"]);
    let watch = within(client.watch_instances(WatchInstancesRequest::default())).await.unwrap();
    let first = within(watch.into_inner().next()).await.unwrap().unwrap();
    let Some(Change::Snapshot(snapshot)) = first.change else { panic!("{first:?}") };
    assert_eq!(snapshot.instances.len(), 2);
    for name in ["main", "rescue"] {
        within(client.get_instance(GetInstanceRequest { name: name.into() })).await.unwrap();
    }
    let restart = |name: &str| RestartInstanceRequest { name: name.into(), ..Default::default() };
    within(client.restart_instance(restart("main"))).await.unwrap();
    let refusal = within(client.restart_instance(restart("rescue"))).await;
    let sentence = refused(refusal, Code::PermissionDenied, "INSIDE_INSTANCE");
    assert_eq!(
        sentence,
        "this was called from inside `rescue`, which may only see itself and `main`, start or restart `main`, \
         and put an older configuration of `main` back; leave the rest to an operator."
    );
    let stop = StopInstanceRequest { name: "main".into(), ..Default::default() };
    refused(within(client.stop_instance(stop)).await, Code::PermissionDenied, "INSIDE_INSTANCE");
}

#[tokio::test]
async fn events_are_shown_as_far_as_they_are_of_the_caller_and_its_primary() {
    let server = fleet().await;
    let mut client = EventServiceClient::new(server.from(inside("rescue")).await);
    let whose = |events: &[v1::Event]| -> BTreeSet<String> {
        events.iter().map(|event| event.instance.clone()).collect()
    };
    let both = BTreeSet::from(["main".to_owned(), "rescue".to_owned()]);
    let listed = within(client.list_events(ListEventsRequest::default())).await.unwrap().into_inner();
    assert_eq!(whose(&listed.events), both);
    let request = WatchEventsRequest { after_revision: listed.events[0].revision, ..Default::default() };
    let mut watch = within(client.watch_events(request)).await.unwrap().into_inner();
    let seen = within(watch.next()).await.unwrap().unwrap();
    assert_eq!(whose(&seen.events), both);
}

#[tokio::test]
async fn an_instance_that_rescues_nobody_sees_itself_and_one_that_is_gone_nothing() {
    let server = fleet().await;
    let mut client = InstanceServiceClient::new(server.from(inside("main")).await);
    let list = within(client.list_instances(ListInstancesRequest::default())).await.unwrap().into_inner();
    assert_eq!(list.instances.len(), 1);
    let request = RestartInstanceRequest { name: "main".into(), ..Default::default() };
    let refusal = within(client.restart_instance(request)).await;
    let sentence = refused(refusal, Code::PermissionDenied, "INSIDE_INSTANCE");
    assert_eq!(
        sentence,
        "this was called from inside `main`, which may only see its own status, events and logs; leave the \
         rest to an operator."
    );
    let mut client = InstanceServiceClient::new(server.from(inside("deleted")).await);
    let list = within(client.list_instances(ListInstancesRequest::default())).await.unwrap().into_inner();
    assert!(list.instances.is_empty());
}

#[tokio::test]
async fn an_incident_is_shown_to_the_rescue_of_its_instance_and_to_no_other() {
    let server = fleet().await;
    server.world.kill("main");
    let mut client = IncidentServiceClient::new(server.from(inside("rescue")).await);
    let mut latest = server.world.journal.latest();
    let number = within(async {
        loop {
            latest.borrow_and_update();
            let list = client.list_incidents(ListIncidentsRequest::default()).await.unwrap().into_inner();
            if let Some(incident) = list.incidents.first() {
                return incident.number;
            }
            latest.changed().await.unwrap();
        }
    })
    .await;
    let told = within(client.get_incident(GetIncidentRequest { number })).await.unwrap().into_inner();
    assert_eq!(told.incident.unwrap().instance, "main");
    let mut client = IncidentServiceClient::new(server.from(inside("other")).await);
    let list = within(client.list_incidents(ListIncidentsRequest::default())).await.unwrap().into_inner();
    assert!(list.incidents.is_empty());
    let refusal = within(client.get_incident(GetIncidentRequest { number })).await;
    refused(refusal, Code::PermissionDenied, "INSIDE_INSTANCE");
}

#[tokio::test]
async fn a_caller_that_cannot_be_traced_is_turned_away_whoever_it_is() {
    let server = Server::start().await;
    let mut client = SystemServiceClient::new(server.from(None).await);
    let refusal = within(client.get_info(GetInfoRequest {})).await;
    let sentence = refused(refusal, Code::PermissionDenied, "NOT_PERMITTED");
    assert!(sentence.contains("whether it runs inside an instance cannot be told"), "{sentence}");
    assert!(
        sentence.contains("; type it in a login of this host")
            && sentence.contains("`openclawctl cert issue ")
    );
}
