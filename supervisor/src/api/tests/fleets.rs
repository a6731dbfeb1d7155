use std::fs;

use supervisor_proto::v1::{
    ApplyFleetRequest, ApplyFleetResponse, ExportFleetRequest, InstanceSpec, Phase, fleet_change::Kind,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::client::{Server, refused, within};

const FLEET: &str = "\
version: 1
defaults: { stop_grace: 3s }
instances:
  main:
  rescue:
    rescues: [main]
";

fn apply(content: &str) -> ApplyFleetRequest {
    ApplyFleetRequest { content: content.into(), file_name: "fleet.yaml".into(), ..Default::default() }
}

async fn applied(server: &Server, request: ApplyFleetRequest) -> Result<ApplyFleetResponse, Status> {
    within(server.fleets().apply_fleet(request)).await.map(tonic::Response::into_inner)
}

fn kinds(answer: &ApplyFleetResponse) -> Vec<(Kind, &str)> {
    answer.changes.iter().map(|change| (change.kind(), change.instance.as_str())).collect()
}

#[tokio::test]
async fn a_file_is_planned_then_done_then_nothing_is_left_to_do() {
    let server = Server::start().await;
    let plan = applied(&server, ApplyFleetRequest { validate_only: true, ..apply(FLEET) }).await.unwrap();
    assert_eq!(kinds(&plan), [(Kind::Create, "main"), (Kind::Create, "rescue")]);
    assert!(plan.changes[1].fields.iter().any(|field| field.path == "rescues"));
    let start = ApplyFleetRequest { start: true, wait: true, ..apply(FLEET) };
    let done = applied(&server, start.clone()).await.unwrap();
    assert_eq!(done.changes, plan.changes);
    for name in ["main", "rescue"] {
        assert_eq!(server.get(name).await.status.unwrap().phase(), Phase::Ready);
    }
    let again = applied(&server, start).await.unwrap();
    assert_eq!(kinds(&again), [(Kind::Unchanged, "main"), (Kind::Unchanged, "rescue")]);
}

#[tokio::test]
async fn only_those_whose_process_must_change_are_restarted() {
    let server = Server::start().await;
    let start = |content: &str| ApplyFleetRequest { start: true, wait: true, ..apply(content) };
    applied(&server, start(FLEET)).await.unwrap();
    let changed = "version: 1\ninstances:\n  main: { env: { A: b }, stop_grace: 3s }\n  rescue: { rescues: [main], stop_grace: 4s }\n";
    let done = applied(&server, start(changed)).await.unwrap();
    assert_eq!(kinds(&done), [(Kind::Update, "main"), (Kind::Update, "rescue")]);
    assert_eq!(done.changes.iter().map(|change| change.needs_restart).collect::<Vec<_>>(), [true, false]);
    let main = server.get("main").await.status.unwrap();
    assert_eq!((main.generation, main.observed_generation, main.incarnation), (2, 2, 2));
    let rescue = server.get("rescue").await.status.unwrap();
    assert_eq!((rescue.generation, rescue.observed_generation, rescue.incarnation), (2, 1, 1));
}

#[tokio::test]
async fn what_is_down_by_wish_stays_down_when_its_spec_changes() {
    let server = Server::start().await;
    server.create("main", InstanceSpec::default()).await;
    let file = "version: 1\ninstances: { main: { env: { A: b } } }\n";
    let request = ApplyFleetRequest { start: true, wait: true, ..apply(file) };
    let done = applied(&server, request).await.unwrap();
    assert_eq!(kinds(&done), [(Kind::Update, "main")]);
    let main = server.get("main").await.status.unwrap();
    assert_eq!((main.generation, main.phase()), (2, Phase::Stopped));
}

#[tokio::test]
async fn what_an_upgrade_has_moved_stays_on_its_version_whatever_an_older_file_says() {
    let server = Server::start().await;
    server.create("main", InstanceSpec { version: "2026.9.6".into(), ..Default::default() }).await;
    let upgrades = server.world.directory.path().join("upgrades");
    fs::create_dir(&upgrades).unwrap();
    let last = r#"{"version":"2026.9.6","previous":"/opt/openclaw","at":1}"#;
    let journal = format!(r#"{{"version":1,"name":"main","attempt":null,"last":{last},"failed":[]}}"#);
    fs::write(upgrades.join("main.json"), journal).unwrap();
    let file = |of_main: &str| apply(&format!("version: 1\ninstances:\n  main: {of_main}\n"));
    let plan = applied(&server, file("")).await.unwrap();
    assert_eq!(kinds(&plan), [(Kind::Unchanged, "main")]);
    let plan = applied(&server, file("{ stop_grace: 3s }")).await.unwrap();
    let changed: Vec<&str> = plan.changes[0].fields.iter().map(|field| field.path.as_str()).collect();
    assert_eq!(changed, ["stop_grace"]);
    for older in ["{ version: 2026.2.9 }", "{ program: /opt/openclaw }"] {
        let refusal = applied(&server, file(older)).await;
        let sentence = refused(refusal, Code::InvalidArgument, "INVALID_FLEET");
        assert!(sentence.contains("`main` was upgraded to 2026.9.6"), "{sentence}");
    }
    assert_eq!(server.get("main").await.spec.unwrap().version, "2026.9.6");
}

#[tokio::test]
async fn a_wrong_file_is_refused_with_line_column_and_mend() {
    let server = Server::start().await;
    let wrong = "version: 1\ninstances:\n  main: { prot: 5 }\n  other: { rescues: [nobody] }\n";
    let refusal = applied(&server, apply(wrong)).await.unwrap_err();
    let violations = refusal.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "instances.main.prot");
    assert!(violations[0].description.contains("fleet.yaml:3:11"), "{}", violations[0].description);
    assert!(violations[0].description.contains("did you mean `port`?"), "{}", violations[0].description);
    let sentence = refused(Err::<(), _>(refusal), Code::InvalidArgument, "INVALID_FLEET");
    assert!(sentence.starts_with("fleet.yaml:3:11"), "{sentence}");
    let exported = within(server.fleets().export_fleet(ExportFleetRequest {})).await.unwrap().into_inner();
    assert!(!exported.content.contains("main"), "nothing has changed");
}

#[tokio::test]
async fn what_the_file_does_not_name_is_left_alone_or_pruned() {
    let server = Server::start().await;
    server.create("old", InstanceSpec::default()).await;
    server.up("running").await;
    let kept = applied(&server, apply(FLEET)).await.unwrap();
    assert!(kinds(&kept).contains(&(Kind::NotInFile, "old")));
    let pruned = applied(&server, ApplyFleetRequest { prune: true, ..apply(FLEET) }).await.unwrap();
    assert!(kinds(&pruned).contains(&(Kind::Delete, "old")));
    let mut views = server.world.handle.watch();
    within(views.wait_for(|view| view.instances.len() == 2)).await.unwrap();
}

#[tokio::test]
async fn a_refusal_by_the_registry_leaves_everything_as_it_was() {
    let server = Server::start().await;
    server.create("holder", InstanceSpec { port: 20_000, ..Default::default() }).await;
    let meets = "version: 1\ninstances:\n  a:\n  b: { port: 20005 }\n";
    refused(applied(&server, apply(meets)).await, Code::FailedPrecondition, "PORT_OVERLAP");
    assert_eq!(server.world.handle.view().instances.len(), 1);
}

#[tokio::test]
async fn the_pool_of_a_file_is_taken_over() {
    let server = Server::start().await;
    let file = "version: 1\npool: { first: 20000, last: 20039 }\ninstances: { a: , b: }\n";
    let done = applied(&server, apply(file)).await.unwrap();
    assert_eq!(done.changes[0].kind(), Kind::Pool);
    assert_eq!(server.get("b").await.status.unwrap().ports.unwrap().base, 20_020);
    let more = "version: 1\ninstances: { c: }\n";
    refused(applied(&server, apply(more)).await, Code::ResourceExhausted, "POOL_EXHAUSTED");
}

#[tokio::test]
async fn an_exported_fleet_changes_nothing_when_it_is_applied() {
    let server = Server::start().await;
    applied(&server, apply(FLEET)).await.unwrap();
    let spec =
        InstanceSpec { port: 25_000, args: Vec::new(), program: "openclaw".into(), ..Default::default() };
    server.create("third", spec).await;
    let exported =
        within(server.fleets().export_fleet(ExportFleetRequest {})).await.unwrap().into_inner().content;
    let plan = applied(&server, ApplyFleetRequest { prune: true, ..apply(&exported) }).await.unwrap();
    assert!(plan.changes.iter().all(|change| change.kind() == Kind::Unchanged), "{:?}", plan.changes);
}

#[tokio::test]
async fn a_file_that_is_too_large_is_refused() {
    let server = Server::start().await;
    let large = format!("version: 1\n# {}\n", "x".repeat(2 << 20));
    refused(applied(&server, apply(&large)).await, Code::InvalidArgument, "INVALID_FLEET");
    let huge = "#".repeat(5 << 20);
    let refusal = applied(&server, apply(&huge)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::OutOfRange, "{refusal}");
}
