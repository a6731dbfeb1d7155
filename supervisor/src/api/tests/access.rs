//! Roles and the record, as callers have them.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

use supervisor_core::ids::Name;
use supervisor_proto::v1::{
    AuditEntry, GetInstanceRequest, InstanceSpec, ListAuditRequest, Phase, RestartInstanceRequest,
    StartInstanceRequest, StopInstanceRequest, UpdateInstanceRequest, UpgradeInstanceRequest,
    WatchEventsRequest, WatchInstancesRequest, WatchInstancesResponse, audit_entry::Outcome,
    audit_service_client::AuditServiceClient, instance_service_client::InstanceServiceClient,
    rescue_policy::Standby, upgrade_service_client::UpgradeServiceClient, watch_instances_response::Change,
};
use tonic::{Code, Request, Status, Streaming, metadata::MetadataValue, transport::Channel};
use tonic_types::StatusExt;

use super::{
    client::{Server, connect, refused, rescues, within},
    insides::call,
    world::World,
};
use crate::{
    api::{
        access::{self, METHODS, Rule},
        inside::Inside,
    },
    bindings::Table,
    lineage::Origin,
    role::Grant,
    settings::access::{Binding, Who},
};

/// Nobody's number: no caller of these tests is the supervisor's own user.
const NOBODY: [u32; 2] = [u32::MAX; 2];

/// A server to which this very user is no more than a binding says.
pub(super) async fn bound(grant: Option<Grant>) -> Server {
    let world = World::new(10);
    let gate = world.gate_of(NOBODY);
    let server = Server::build(world, gate).await;
    bind(&server, grant);
    server
}

pub(super) fn bind(server: &Server, grant: Option<Grant>) {
    let who = Who::Uid(nix::unistd::geteuid().as_raw());
    let bindings: Vec<_> = grant.into_iter().map(|grant| Binding { who: who.clone(), grant }).collect();
    server.world.bindings.replace(Table::look_up(&bindings));
}

/// Every RPC. Pages are read otherwise, and refused otherwise.
fn calls() -> impl Iterator<Item = &'static Rule> {
    METHODS.iter().filter(|rule| rule.answer != access::Answer::Page)
}

/// Whether this is the answer to somebody without the right.
fn is_turned_away(answer: &Result<(), Status>) -> bool {
    answer.as_ref().is_err_and(|status| {
        let reason = status.get_details_error_info().map(|info| info.reason);
        status.code() == Code::PermissionDenied && reason.as_deref() == Some("NOT_PERMITTED")
    })
}

#[tokio::test]
async fn every_rpc_asks_at_the_socket_for_the_role_that_its_rule_names() {
    let rescue = Grant::Rescue(Name::new("rescue").unwrap());
    let grants = [None, Some(rescue), Some(Grant::Viewer), Some(Grant::Operator), Some(Grant::Admin)];
    let server = bound(None).await;
    for grant in grants {
        let channel = server.channel.clone();
        // The last one ends it.
        let (ends, others): (Vec<&Rule>, Vec<&Rule>) = calls().partition(|rule| rule.method() == "Shutdown");
        for rule in others.into_iter().chain(ends) {
            let expected = match &grant {
                None => false,
                // Closed, or about nobody that it may see.
                Some(Grant::Rescue(_)) => rule.inside == Inside::Open,
                Some(grant @ (Grant::Viewer | Grant::Operator | Grant::Admin)) => grant.role() >= rule.needs,
            };
            // A reload has read settings that bind nobody.
            bind(&server, grant.clone());
            let answer = call(&channel, rule.path, Vec::new()).await;
            let lists = ["ListInstances", "WatchInstances", "ListEvents", "WatchEvents", "ListIncidents"];
            let narrowed = matches!(grant, Some(Grant::Rescue(_)))
                && rule.inside != Inside::Closed
                && (lists.contains(&rule.method())
                    || rule.path.contains("health")
                    || rule.method() == "GetIncident");
            if !narrowed {
                // An operator may update, but not everything, which an empty request asks for.
                let more = grant == Some(Grant::Operator) && rule.method() == "UpdateInstance";
                assert_eq!(is_turned_away(&answer), !expected || more, "{grant:?} {} {answer:?}", rule.path);
            }
        }
    }
}

#[tokio::test]
async fn an_operator_runs_what_there_is_and_says_not_what_is_run() {
    let server = bound(Some(Grant::Admin)).await;
    server.create("main", InstanceSpec::default()).await;
    bind(&server, Some(Grant::Operator));
    server.up("main").await;
    let mut client = server.instances();
    let update = |paths: &[&str]| UpdateInstanceRequest {
        name: "main".into(),
        spec: Some(InstanceSpec { maintenance: true, program: "/bin/sh".into(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }),
        ..Default::default()
    };
    within(client.update_instance(update(&["maintenance"]))).await.unwrap();
    for paths in [&["program"][..], &["maintenance", "program"], &[]] {
        let sentence = refused(
            within(client.update_instance(update(paths))).await,
            Code::PermissionDenied,
            "NOT_PERMITTED",
        );
        assert!(sentence.contains("UpdateInstance of more than `maintenance` takes admin"), "{sentence}");
    }
    let upgrade = UpgradeInstanceRequest {
        name: "main".into(),
        version: "1.0.0".into(),
        from: "/tmp/evil.tgz".into(),
        ..Default::default()
    };
    let mut upgrades = UpgradeServiceClient::new(server.channel.clone());
    refused(within(upgrades.upgrade_instance(upgrade)).await, Code::PermissionDenied, "NOT_PERMITTED");
}

#[tokio::test]
async fn the_role_of_a_rescue_is_what_a_caller_inside_it_may_do() {
    let server = bound(Some(Grant::Admin)).await;
    server.create("main", InstanceSpec::default()).await;
    server.create("rescue", rescues("main", Standby::Warm)).await;
    server.create("other", InstanceSpec::default()).await;
    server.up("main").await;
    bind(&server, Some(Grant::Rescue(Name::new("rescue").unwrap())));
    let mut client = server.instances();
    let restart = |name: &str| RestartInstanceRequest { name: name.into(), ..Default::default() };
    within(client.restart_instance(restart("main"))).await.unwrap();
    for name in ["other", "rescue"] {
        let refusal = within(client.restart_instance(restart(name))).await;
        let sentence = refused(refusal, Code::PermissionDenied, "NOT_PERMITTED");
        assert!(sentence.contains("the role of `rescue` as a rescue"), "{sentence}");
    }
    let stop = StopInstanceRequest { name: "main".into(), ..Default::default() };
    refused(within(client.stop_instance(stop)).await, Code::PermissionDenied, "NOT_PERMITTED");
    let get = GetInstanceRequest { name: "other".into() };
    refused(within(client.get_instance(get)).await, Code::PermissionDenied, "NOT_PERMITTED");
}

#[tokio::test]
async fn a_token_gives_its_role_to_whoever_shows_it_from_outside() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let server = bound(None).await;
    let file = server.world.directory.path().join("deploy.token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let binding = Binding { who: Who::TokenFile(file), grant: Grant::Operator };
    server.world.bindings.replace(Table::look_up(&[binding]));
    let start = |token: &str| {
        let mut request = Request::new(StartInstanceRequest {
            name: "main".into(),
            allow_missing: true,
            ..Default::default()
        });
        let shown: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", shown);
        request
    };
    let mut client = server.instances();
    refused(within(client.start_instance(start("wrong"))).await, Code::PermissionDenied, "NOT_PERMITTED");
    within(client.start_instance(start(TOKEN))).await.unwrap();
    // Also by an agent that has stolen it.
    let inside = server.from(Some(Origin::Inside(Name::new("main").unwrap()))).await;
    let mut agent = InstanceServiceClient::new(inside);
    assert_eq!(within(agent.start_instance(start(TOKEN))).await.unwrap_err().code(), Code::PermissionDenied);
    let entries = audit(&server, ListAuditRequest::default()).await;
    let by_token = entries.iter().find(|entry| entry.outcome() == Outcome::Done).unwrap();
    assert_eq!(by_token.caller.as_ref().unwrap().token_file, "deploy.token");
    assert!(!format!("{entries:?}").contains(TOKEN));
}

/// Reads a watch until an instance of its is ready.
async fn until_ready(stream: &mut Streaming<WatchInstancesResponse>) {
    let is_ready = |change: Change| match change {
        Change::Changed(one) => one.status.is_some_and(|status| status.phase() == Phase::Ready),
        Change::Snapshot(_) | Change::Deleted(_) | Change::Bookmark(_) => false,
    };
    while !within(stream.message()).await.unwrap().unwrap().change.is_some_and(is_ready) {}
}

/// With what a stream ends.
pub(super) async fn end_of<T>(stream: &mut Streaming<T>) -> Status {
    within(async {
        loop {
            match stream.message().await {
                Ok(message) => assert!(message.is_some(), "it ended well"),
                Err(status) => return status,
            }
        }
    })
    .await
}

#[tokio::test]
async fn who_loses_its_role_loses_its_open_streams_and_others_keep_theirs() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let server = bound(Some(Grant::Admin)).await;
    server.create("main", InstanceSpec::default()).await;
    let file = server.world.directory.path().join("watch.token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let reload = |grant: Option<Grant>| {
        let user = Who::Uid(nix::unistd::geteuid().as_raw());
        let by_user = grant.map(|grant| Binding { who: user, grant });
        let by_token = Binding { who: Who::TokenFile(file.clone()), grant: Grant::Viewer };
        let bindings: Vec<_> = by_user.into_iter().chain([by_token]).collect();
        server.world.bindings.replace(Table::look_up(&bindings));
    };
    let watch = |token: Option<&str>| {
        let mut request = Request::new(WatchInstancesRequest::default());
        let shown = token.map(|token| format!("Bearer {token}").parse().unwrap());
        shown.map(|shown: MetadataValue<_>| request.metadata_mut().insert("authorization", shown));
        let mut client = server.instances();
        async move { within(client.watch_instances(request)).await.map(tonic::Response::into_inner) }
    };
    // The token's holder has no other role when it calls.
    reload(None);
    let mut others = watch(Some(TOKEN)).await.unwrap();
    reload(Some(Grant::Viewer));
    let mut mine = watch(None).await.unwrap();
    let mut events = server.events();
    let mut events = within(events.watch_events(WatchEventsRequest::default())).await.unwrap().into_inner();
    // Another role that is enough disturbs nobody.
    reload(Some(Grant::Operator));
    server.up("main").await;
    until_ready(&mut mine).await;

    reload(None);
    let fresh = watch(None).await.unwrap_err();
    let ended = end_of(&mut mine).await;
    assert_eq!((ended.code(), ended.message()), (Code::PermissionDenied, fresh.message()));
    assert_eq!(ended.details(), fresh.details());
    assert!(end_of(&mut events).await.message().contains("and WatchEvents takes viewer"));
    until_ready(&mut others).await;

    // A role that shows less does not go on with what showed more.
    reload(Some(Grant::Viewer));
    let mut mine = watch(None).await.unwrap();
    reload(Some(Grant::Rescue(Name::new("main").unwrap())));
    let ended = end_of(&mut mine).await;
    assert!(ended.message().contains("and WatchInstances takes viewer"), "{ended}");
    watch(None).await.unwrap();

    // The token is another.
    fs::write(&file, TOKEN.replace('0', "f")).unwrap();
    reload(None);
    let fresh = watch(Some(TOKEN)).await.unwrap_err();
    let ended = end_of(&mut others).await;
    assert_eq!((ended.code(), ended.message()), (Code::PermissionDenied, fresh.message()));
}

/// The audit, as an admin reads it, once all of `server`'s calls are in it.
async fn audit(server: &Server, request: ListAuditRequest) -> Vec<AuditEntry> {
    bind(server, Some(Grant::Admin));
    let mut client = AuditServiceClient::new(connect(&server.socket()).await);
    within(async {
        loop {
            let request = ListAuditRequest { page_size: 1_000, ..request.clone() };
            let entries = client.list_audit(request).await.unwrap().into_inner().entries;
            // The newest is written last.
            let written = entries.iter().all(|entry| entry.outcome() != Outcome::UnderWay);
            if written && !entries.is_empty() {
                return entries;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

fn told(entry: &AuditEntry) -> (&str, &str, &str, &str) {
    let method = entry.method.rsplit('/').next().unwrap();
    (method, &entry.target, &entry.request_id, &entry.reason)
}

#[tokio::test]
async fn every_change_is_recorded_with_who_what_and_what_became_of_it_and_a_repeat_says_so() {
    let server = Server::start().await;
    let start = StartInstanceRequest {
        name: "main".into(),
        allow_missing: true,
        request_id: "r-1".into(),
        ..Default::default()
    };
    let mut client = server.instances();
    let first = within(client.start_instance(start.clone())).await.unwrap().into_inner();
    let again = within(client.start_instance(start)).await.unwrap().into_inner();
    assert_eq!(first.revision, again.revision);
    let stop = StopInstanceRequest { name: "nobody".into(), ..Default::default() };
    refused(within(client.stop_instance(stop)).await, Code::NotFound, "UNKNOWN_INSTANCE");
    within(client.get_instance(GetInstanceRequest { name: "main".into() })).await.unwrap();
    let entries = audit(&server, ListAuditRequest::default()).await;
    let all: Vec<_> = entries.iter().map(told).collect();
    assert_eq!(
        all,
        [
            ("StopInstance", "nobody", "", "UNKNOWN_INSTANCE"),
            ("StartInstance", "main", "r-1", ""),
            ("StartInstance", "main", "r-1", ""),
        ]
    );
    assert_eq!(entries.iter().map(|entry| entry.repeat).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(
        entries.iter().map(AuditEntry::outcome).collect::<Vec<_>>(),
        [Outcome::Refused, Outcome::Done, Outcome::Done]
    );
    let caller = entries[0].caller.clone().unwrap();
    assert_eq!(caller.uid, Some(nix::unistd::geteuid().as_raw()));
    assert_eq!(caller.pid, i32::try_from(std::process::id()).unwrap());
    assert_eq!(
        (caller.role.as_str(), caller.from),
        ("admin", server.socket().to_string_lossy().into_owned())
    );
    assert!(entries[0].time.is_some() && entries[0].duration.is_some());
}

#[tokio::test]
async fn a_request_id_that_another_caller_has_used_gives_no_answer_of_its_and_is_in_nobodys_way() {
    let server = Server::start().await;
    server.up("main").await;
    server.create("rescue", rescues("main", Standby::Warm)).await;
    let inside = server.from(Some(Origin::Inside(Name::new("rescue").unwrap()))).await;
    let mut agent = InstanceServiceClient::new(inside);
    let mut operator = server.instances();
    let restart =
        || RestartInstanceRequest { name: "main".into(), request_id: "r-1".into(), ..Default::default() };
    // The agent was first, by guessing: the operator's is done all the same.
    within(agent.restart_instance(restart())).await.unwrap();
    within(operator.restart_instance(restart())).await.unwrap();
    within(operator.restart_instance(restart())).await.unwrap();
    // What it may not ask for it does not learn by repeating it, either.
    let stop = || StopInstanceRequest { name: "main".into(), request_id: "s-1".into(), ..Default::default() };
    within(operator.stop_instance(stop())).await.unwrap();
    refused(within(agent.stop_instance(stop())).await, Code::PermissionDenied, "INSIDE_INSTANCE");
    // Nor by another request that it may ask for.
    let start = StartInstanceRequest { name: "main".into(), request_id: "s-1".into(), ..Default::default() };
    within(agent.start_instance(start)).await.unwrap();
    let entries = audit(&server, ListAuditRequest::default()).await;
    let told: Vec<_> = entries
        .iter()
        .rev()
        .filter(|entry| !entry.request_id.is_empty())
        .map(|entry| {
            let inside = entry.caller.as_ref().is_some_and(|caller| !caller.instance.is_empty());
            (inside, entry.request_id.as_str(), entry.repeat)
        })
        .collect();
    let (from_inside, from_outside) = (true, false);
    assert_eq!(
        told,
        [
            (from_inside, "r-1", false),
            (from_outside, "r-1", false),
            (from_outside, "r-1", true),
            (from_outside, "s-1", false),
            (from_inside, "s-1", false),
        ]
    );
}

#[tokio::test]
async fn a_flood_of_refused_calls_is_one_entry_and_pushes_none_out() {
    let server = Server::start().await;
    server.up("main").await;
    let rescue = server.from(Some(Origin::Inside(Name::new("main").unwrap()))).await;
    let flood = |channel: Channel| async move {
        let mut client = InstanceServiceClient::new(channel);
        for number in 0..300 {
            let stop = StopInstanceRequest { name: format!("x-{number}"), ..Default::default() };
            within(client.stop_instance(stop)).await.unwrap_err();
            // Open to a rescue, but not about these.
            let restart = RestartInstanceRequest { name: format!("x-{number}"), ..Default::default() };
            within(client.restart_instance(restart)).await.unwrap_err();
            let get = GetInstanceRequest { name: format!("x-{number}") };
            within(client.get_instance(get)).await.unwrap_err();
        }
    };
    flood(rescue).await;
    let request = ListAuditRequest { caller: "main".into(), ..Default::default() };
    let entries = within(async {
        loop {
            let entries = audit(&server, request.clone()).await;
            if entries.iter().all(|entry| entry.calls == 300) {
                return entries;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let methods: BTreeSet<_> = entries.iter().map(|entry| told(entry).0).collect();
    assert_eq!(methods, BTreeSet::from(["StopInstance", "RestartInstance", "GetInstance"]));
    assert_eq!(entries.len(), 3, "{entries:#?}");
    assert!(entries.iter().all(|entry| entry.reason == "INSIDE_INSTANCE"));
    let all = audit(&server, ListAuditRequest::default()).await;
    assert!(all.iter().any(|entry| told(entry).0 == "StartInstance" && entry.outcome() == Outcome::Done));
}

#[tokio::test]
async fn changes_that_are_refused_for_what_they_say_are_one_entry_for_each_caller_method_and_reason() {
    let server = Server::start().await;
    server.up("main").await;
    let mut client = server.instances();
    for number in 0..300 {
        let name = format!("x-{number}");
        let stop = StopInstanceRequest { name: name.clone(), ..Default::default() };
        refused(within(client.stop_instance(stop)).await, Code::NotFound, "UNKNOWN_INSTANCE");
        let restart = RestartInstanceRequest { name, ..Default::default() };
        refused(within(client.restart_instance(restart)).await, Code::NotFound, "UNKNOWN_INSTANCE");
        // What is done is an entry each time.
        let start = StartInstanceRequest { name: "main".into(), ..Default::default() };
        within(client.start_instance(start)).await.unwrap();
    }
    let is_counted = |entries: &[AuditEntry]| {
        let mut refusals = entries.iter().filter(|entry| entry.outcome() == Outcome::Refused);
        refusals.clone().count() == 2 && refusals.all(|entry| entry.calls == 300)
    };
    let entries = within(async {
        loop {
            let entries = audit(&server, ListAuditRequest::default()).await;
            if is_counted(&entries) {
                return entries;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refusals: BTreeSet<_> =
        entries.iter().filter(|entry| entry.outcome() == Outcome::Refused).map(told).collect();
    let unknown = "UNKNOWN_INSTANCE";
    assert_eq!(
        refusals,
        BTreeSet::from([("StopInstance", "x-0", "", unknown), ("RestartInstance", "x-0", "", unknown)])
    );
    assert_eq!(entries.iter().filter(|entry| told(entry).0 == "StartInstance").count(), 301);
}

#[tokio::test]
async fn a_caller_that_leaves_is_remembered_with_an_unknown_outcome() {
    let server = Server::start().await;
    server.world.conduct("main", super::world::Conduct::Starting);
    let mut client = InstanceServiceClient::new(connect(&server.socket()).await);
    let start =
        StartInstanceRequest { name: "main".into(), allow_missing: true, wait: true, ..Default::default() };
    let call = tokio::spawn(async move { client.start_instance(start).await });
    server.until("main", |_| true).await;
    call.abort();
    let entries = audit(&server, ListAuditRequest::default()).await;
    assert_eq!((told(&entries[0]).0, entries[0].outcome()), ("StartInstance", Outcome::CallerLeft));
}

#[tokio::test]
async fn the_record_is_read_in_pages_and_by_what_is_asked_for() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.up(name).await;
        let stop = StopInstanceRequest { name: name.into(), ..Default::default() };
        within(server.instances().stop_instance(stop)).await.unwrap();
    }
    let all = audit(&server, ListAuditRequest::default()).await;
    assert_eq!(all.len(), 6);
    let mut client = AuditServiceClient::new(server.channel.clone());
    let mut pages = Vec::new();
    let mut request = ListAuditRequest { page_size: 4, ..Default::default() };
    loop {
        let answer = within(client.list_audit(request.clone())).await.unwrap().into_inner();
        pages.push(answer.entries.len());
        if answer.next_page_token.is_empty() {
            break;
        }
        request.page_token = answer.next_page_token;
    }
    assert_eq!(pages, [4, 2]);
    let asked = async |request: ListAuditRequest| {
        within(client.clone().list_audit(request)).await.unwrap().into_inner().entries.len()
    };
    assert_eq!(asked(ListAuditRequest { instance: "b".into(), ..Default::default() }).await, 2);
    assert_eq!(asked(ListAuditRequest { method: "StopInstance".into(), ..Default::default() }).await, 3);
    let whole = "openclaw.supervisor.v1.InstanceService/StopInstance";
    assert_eq!(asked(ListAuditRequest { method: whole.into(), ..Default::default() }).await, 3);
    assert_eq!(asked(ListAuditRequest { method: "Instance".into(), ..Default::default() }).await, 0);
    let uid = nix::unistd::geteuid().to_string();
    assert_eq!(asked(ListAuditRequest { caller: uid, ..Default::default() }).await, 6);
    assert_eq!(asked(ListAuditRequest { caller: "mallory".into(), ..Default::default() }).await, 0);
    let later = Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 });
    assert_eq!(asked(ListAuditRequest { since: later, ..Default::default() }).await, 0);
    assert_eq!(asked(ListAuditRequest { until: later, ..Default::default() }).await, 6);
}
