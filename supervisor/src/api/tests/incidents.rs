use std::{fs, time::Duration};

use supervisor_core::event::LaunchFailure;
use supervisor_proto::v1::{
    FailBackRequest, GetIncidentRequest, GetIncidentResponse, Incident, LadderPolicy, ListIncidentsRequest,
    ListIncidentsResponse, Phase, RestartPolicy, Role, incident::Outcome,
    incident_service_client::IncidentServiceClient, rescue_policy::Standby,
};
use tonic::{Code, Status, transport::Channel};

use super::{
    client::{PATIENCE, Server, refused, rescues, within},
    world::Conduct,
};

fn client(server: &Server) -> IncidentServiceClient<Channel> {
    IncidentServiceClient::new(server.channel.clone())
}

async fn list(server: &Server, request: ListIncidentsRequest) -> ListIncidentsResponse {
    within(client(server).list_incidents(request)).await.unwrap().into_inner()
}

async fn get(server: &Server, number: u64) -> Result<GetIncidentResponse, Status> {
    Ok(within(client(server).get_incident(GetIncidentRequest { number })).await?.into_inner())
}

/// The incidents, once the journal tells so many, of which the newest has come to this.
async fn until(server: &Server, many: usize, outcome: Outcome) -> Vec<Incident> {
    let mut latest = server.world.journal.latest();
    within(async {
        loop {
            latest.borrow_and_update();
            let all = list(server, ListIncidentsRequest::default()).await.incidents;
            if all.len() == many && all[0].outcome() == outcome {
                return all;
            }
            // The view may be ahead of the journal, or the other way round.
            let _ = tokio::time::timeout(Duration::from_millis(20), latest.changed()).await;
        }
    })
    .await
}

async fn pair() -> Server {
    let server = Server::start().await;
    server.create("main", Default::default()).await;
    server.create("rescue", rescues("main", Standby::Warm)).await;
    server.up("main").await;
    server.up("rescue").await;
    server
}

#[tokio::test]
async fn a_failover_is_an_open_incident_until_the_place_is_given_back() {
    let server = pair().await;
    assert!(list(&server, ListIncidentsRequest::default()).await.incidents.is_empty());
    let logs = server.world.directory.path().join("instances/main/logs");
    fs::create_dir_all(&logs).unwrap();
    fs::write(logs.join("gateway-00000001.log"), "first\nlast words\n").unwrap();
    server.world.conduct("main", Conduct::Starting);
    server.world.kill("main");
    let [open] = until(&server, 1, Outcome::Open).await.try_into().unwrap();
    assert_eq!((open.instance.as_str(), open.cause.as_str()), ("main", "killed by SIGKILL"));
    assert_eq!((open.rescues.as_slice(), open.end_time), (&["rescue".to_owned()][..], None));
    let told = get(&server, open.number).await.unwrap();
    let log: Vec<&[u8]> = told.log.iter().map(|line| line.text.as_slice()).collect();
    assert_eq!(log, [&b"first"[..], b"last words"]);
    let types: Vec<&str> = told.timeline.iter().map(|event| event.r#type.as_str()).collect();
    let began = types.iter().position(|kind| *kind == "failover.began").unwrap();
    assert!(types[..began].contains(&"instance.exited"), "what led to it is told: {types:?}");
    assert!(told.timeline.is_sorted_by_key(|event| event.revision) && !told.timeline_cut);

    server.world.conduct("main", Conduct::Ready);
    server.world.kill("main");
    server.until("main", |status| status.phase() == Phase::Ready).await;
    server.until("main", |status| status.failover.as_ref().unwrap().role() == Role::Rescued).await;
    let request = FailBackRequest { primary: "main".into(), wait: true, ..Default::default() };
    within(server.instances().fail_back(request)).await.unwrap();
    let [closed] = until(&server, 1, Outcome::FailedBack).await.try_into().unwrap();
    assert_eq!(closed.number, open.number);
    assert!(closed.end_time.is_some());
    let told = get(&server, closed.number).await.unwrap();
    assert!(told.log.is_empty(), "the log goes on, and is not the incident's any more");
    assert_eq!(told.timeline.last().unwrap().r#type, "failover.failed_back");
    assert!(told.timeline.iter().any(|event| event.instance == "rescue"), "its rescue's part is told");
}

#[tokio::test]
async fn a_quarantine_is_an_incident_until_an_operator_has_started_it_again() {
    let server = Server::start().await;
    let ladder = LadderPolicy { quarantine: Some(true), ..Default::default() };
    let restart = RestartPolicy {
        initial_delay: Some(prost_types::Duration { seconds: 0, nanos: 10_000_000 }),
        budget: 1,
        ..Default::default()
    };
    let spec = supervisor_proto::v1::InstanceSpec {
        ladder: Some(ladder),
        restart: Some(restart),
        ..Default::default()
    };
    server.create("main", spec).await;
    server.world.conduct("main", Conduct::Exits(1));
    let request = supervisor_proto::v1::StartInstanceRequest { name: "main".into(), ..Default::default() };
    within(server.instances().start_instance(request)).await.unwrap();
    let [open] = until(&server, 1, Outcome::GivenUp).await.try_into().unwrap();
    assert_eq!((open.quarantined, open.cause.as_str()), (true, "exited with status 1"));
    server.world.conduct("main", Conduct::Ready);
    server.up("main").await;
    let [closed] = until(&server, 1, Outcome::Ready).await.try_into().unwrap();
    assert_eq!(closed.number, open.number);
}

#[tokio::test]
async fn what_another_start_would_not_mend_is_given_up_and_not_open() {
    let server = Server::start().await;
    let ladder = LadderPolicy { repair: Some(false), ..Default::default() };
    let spec = supervisor_proto::v1::InstanceSpec { ladder: Some(ladder), ..Default::default() };
    server.create("main", spec).await;
    server.world.conduct("main", Conduct::Exits(78));
    let request = supervisor_proto::v1::StartInstanceRequest { name: "main".into(), ..Default::default() };
    within(server.instances().start_instance(request)).await.unwrap();
    let [open] = until(&server, 1, Outcome::GivenUp).await.try_into().unwrap();
    assert_eq!((open.quarantined, open.cause.as_str()), (false, "exited with status 78"));
}

#[tokio::test]
async fn incidents_come_newest_first_in_pages_and_by_instance() {
    let server = pair().await;
    for round in 1..=3 {
        server.world.kill("main");
        // It is ready again at once, or its rescue is: both end it, by hand if need be.
        tokio::time::timeout(PATIENCE, async {
            loop {
                let request = FailBackRequest { primary: "main".into(), ..Default::default() };
                let _ = server.instances().fail_back(request).await;
                let all = list(&server, ListIncidentsRequest::default()).await.incidents;
                if all.len() == round && all[0].outcome() != Outcome::Open {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
    let all = list(&server, ListIncidentsRequest::default()).await.incidents;
    let numbers: Vec<u64> = all.iter().map(|incident| incident.number).collect();
    assert!(numbers.len() == 3 && numbers.is_sorted_by(|a, b| a > b), "{numbers:?}");
    let first = ListIncidentsRequest { page_size: 2, ..Default::default() };
    let page = list(&server, first.clone()).await;
    assert_eq!(page.incidents.len(), 2);
    let rest = list(&server, ListIncidentsRequest { page_token: page.next_page_token, ..first }).await;
    assert_eq!((rest.incidents[0].number, rest.next_page_token.as_str()), (numbers[2], ""));
    let of_rescue = ListIncidentsRequest { instance: "rescue".into(), ..Default::default() };
    assert!(list(&server, of_rescue).await.incidents.is_empty());
    let told = refused(get(&server, 7_777_777).await, Code::NotFound, "UNKNOWN_INCIDENT");
    assert_eq!(
        told,
        "no incident has the number 7777777; `openclawctl incidents` lists those that are remembered."
    );
}

#[tokio::test]
async fn a_deleted_instance_has_no_open_incident() {
    let server = pair().await;
    server.world.conduct("main", Conduct::Fails(LaunchFailure::NoAnswer));
    server.world.kill("main");
    until(&server, 1, Outcome::Open).await;
    let down =
        supervisor_proto::v1::StopInstanceRequest { name: "main".into(), wait: true, ..Default::default() };
    within(server.instances().stop_instance(down)).await.unwrap();
    let delete = supervisor_proto::v1::DeleteInstanceRequest { name: "main".into(), ..Default::default() };
    within(server.instances().delete_instance(delete)).await.unwrap();
    let [closed] = until(&server, 1, Outcome::Deleted).await.try_into().unwrap();
    let told = get(&server, closed.number).await.unwrap();
    assert_eq!(told.timeline.last().unwrap().r#type, "instance.deleted");
}
