use prost::Message;
use prost_types::FieldMask;
use supervisor_core::event::LaunchFailure;
use supervisor_proto::v1::{
    self, CreateInstanceRequest, DeleteInstanceRequest, EnterInstanceRequest, FailBackRequest,
    FailOverRequest, GetInstanceEnvironmentRequest, GetInstanceRequest, InstanceSpec, ListInstancesRequest,
    Phase, Profile, RestartInstanceRequest, RestartPolicy, Role, Runtime, StartInstanceRequest,
    StopInstanceRequest, UpdateInstanceRequest, Wish, rescue_policy::Standby,
};
use supervisor_proto::worker::{PortRange, Walls};
use tonic::Code;

use super::{
    client::{Server, refused, rescues, within},
    world::{Conduct, World},
};

fn create(name: &str, spec: InstanceSpec) -> CreateInstanceRequest {
    CreateInstanceRequest { name: name.into(), spec: Some(spec), ..Default::default() }
}

fn start(name: &str) -> StartInstanceRequest {
    StartInstanceRequest { name: name.into(), ..Default::default() }
}

fn stop(name: &str) -> StopInstanceRequest {
    StopInstanceRequest { name: name.into(), wait: true, ..Default::default() }
}

#[tokio::test]
async fn an_instance_is_created_read_and_deleted() {
    let server = Server::start().await;
    let mut client = server.instances();
    let created =
        within(client.create_instance(create("main", InstanceSpec::default()))).await.unwrap().into_inner();
    let instance = created.instance.unwrap();
    let status = instance.status.clone().unwrap();
    assert_eq!((status.phase(), status.wish()), (Phase::Stopped, Wish::Down));
    assert_eq!(
        (status.reason.as_str(), status.hint.as_str()),
        ("has never been started", "openclawctl up main")
    );
    let ports = status.ports.unwrap();
    assert_eq!((ports.gateway, ports.browser_control, ports.canvas), (18_789, 18_791, 18_793));
    assert_eq!((ports.cdp_first, ports.cdp_last, ports.last), (18_800, 18_808, 18_808));
    assert_eq!(status.runtime(), Runtime::Builtin);
    assert_eq!(status.runtime_note, "OpenClaw is not installed; the built-in gateway runs");
    assert!(status.directories.unwrap().config.ends_with("instances/main/state/openclaw.json"));
    assert!(status.settled);
    assert_eq!(server.get("main").await, instance);

    let delete = DeleteInstanceRequest { name: "main".into(), ..Default::default() };
    let deleted = within(client.delete_instance(delete)).await.unwrap().into_inner();
    assert!(deleted.revision > created.revision);
    let gone = within(client.get_instance(GetInstanceRequest { name: "main".into() })).await;
    let sentence = refused(gone, Code::NotFound, "UNKNOWN_INSTANCE");
    assert!(sentence.contains("openclawctl up main"), "{sentence}");
}

#[tokio::test]
async fn what_cannot_be_created_is_refused_by_name() {
    let world = World::new(3);
    let gate = world.gate();
    let server = Server::build(world, gate).await;
    let mut client = server.instances();
    server.create("main", InstanceSpec { port: 20_000, ..Default::default() }).await;
    let cases = [
        ("main", InstanceSpec::default(), Code::AlreadyExists, "INSTANCE_EXISTS"),
        ("Main", InstanceSpec::default(), Code::InvalidArgument, "INVALID_NAME"),
        ("a", InstanceSpec { port: 80, ..Default::default() }, Code::InvalidArgument, "INVALID_SPEC"),
        ("a", InstanceSpec { port: 20_019, ..Default::default() }, Code::FailedPrecondition, "PORT_OVERLAP"),
        (
            "a",
            InstanceSpec { port: 50_000, ..Default::default() },
            Code::InvalidArgument,
            "PORT_OUTSIDE_POOL",
        ),
        ("a", rescues("a", Standby::Warm), Code::InvalidArgument, "RESCUE_OF_ITSELF"),
        ("a", rescues("b", Standby::Warm), Code::FailedPrecondition, "UNKNOWN_PRIMARY"),
    ];
    for (name, spec, code, reason) in cases {
        refused(within(client.create_instance(create(name, spec))).await, code, reason);
    }
    server.create("a", rescues("main", Standby::Warm)).await;
    let circle = UpdateInstanceRequest {
        name: "main".into(),
        spec: Some(rescues("a", Standby::Warm)),
        ..Default::default()
    };
    refused(within(client.update_instance(circle)).await, Code::InvalidArgument, "RESCUE_CYCLE");
    server.create("c", InstanceSpec::default()).await;
    let full = within(client.create_instance(create("d", InstanceSpec::default()))).await;
    refused(full, Code::ResourceExhausted, "TOO_MANY_INSTANCES");
}

#[tokio::test]
async fn two_instances_with_one_profile_are_refused() {
    let server = Server::start().await;
    let profile = tempfile::tempdir().unwrap();
    let spec = || {
        let state_dir = profile.path().to_string_lossy().into_owned();
        InstanceSpec { profile: Some(Profile { state_dir, ..Default::default() }), ..Default::default() }
    };
    server.create("main", spec()).await;
    let second = within(server.instances().create_instance(create("other", spec()))).await;
    let sentence = refused(second, Code::FailedPrecondition, "PATH_OVERLAP");
    assert!(sentence.contains("`main`"), "{sentence}");
}

#[tokio::test]
async fn a_profile_keeps_the_port_that_its_configuration_names() {
    let server = Server::start().await;
    let profile = tempfile::tempdir().unwrap();
    let config = "{ gateway: { port: 21000 }, discovery: { mdns: { mode: 'full' } } }";
    std::fs::write(profile.path().join("openclaw.json"), config).unwrap();
    let state_dir = profile.path().to_string_lossy().into_owned();
    let profile = Some(Profile { state_dir, ..Default::default() });
    let spec = InstanceSpec { profile, ..Default::default() };
    let created = server.create("main", spec).await;
    assert_eq!(created.status.unwrap().ports.unwrap().base, 21_000);
    assert_eq!(created.spec.unwrap().port, 0, "it is not in the spec");
    let request = GetInstanceEnvironmentRequest { name: "main".into() };
    let shown = within(server.instances().get_instance_environment(request)).await.unwrap().into_inner();
    assert!(!shown.variables.contains_key("OPENCLAW_DISABLE_BONJOUR"), "it asks for announcements");
}

#[tokio::test]
async fn a_check_changes_nothing() {
    let server = Server::start().await;
    let mut client = server.instances();
    let check = CreateInstanceRequest { validate_only: true, ..create("main", InstanceSpec::default()) };
    let checked = within(client.create_instance(check)).await.unwrap().into_inner();
    assert_eq!(checked.instance.unwrap().name, "main");
    let bad = create("main", rescues("nobody", Standby::Warm));
    let bad = CreateInstanceRequest { validate_only: true, ..bad };
    refused(within(client.create_instance(bad)).await, Code::FailedPrecondition, "UNKNOWN_PRIMARY");
    let none = within(client.list_instances(ListInstancesRequest::default())).await.unwrap().into_inner();
    assert!(none.instances.is_empty());
}

#[tokio::test]
async fn an_update_changes_only_what_its_mask_names() {
    let server = Server::start().await;
    let mut client = server.instances();
    let restart = RestartPolicy { budget: 5, ..Default::default() };
    let spec = InstanceSpec { program: "openclaw".into(), restart: Some(restart), ..Default::default() };
    let first = server.create("main", spec).await;
    let new = RestartPolicy { budget: 7, ..Default::default() };
    let update = UpdateInstanceRequest {
        name: "main".into(),
        spec: Some(InstanceSpec { restart: Some(new), ..Default::default() }),
        update_mask: Some(FieldMask { paths: vec!["restart".into()] }),
        etag: first.etag.clone(),
        ..Default::default()
    };
    let updated =
        within(client.update_instance(update.clone())).await.unwrap().into_inner().instance.unwrap();
    let spec = updated.spec.unwrap();
    assert_eq!((spec.program.as_str(), spec.restart.unwrap().budget), ("openclaw", 7));
    assert_eq!(updated.status.unwrap().generation, 2);
    assert_ne!(updated.etag, first.etag);
    refused(within(client.update_instance(update.clone())).await, Code::Aborted, "ETAG_MISMATCH");

    let same = UpdateInstanceRequest { etag: String::new(), ..update.clone() };
    let same = within(client.update_instance(same)).await.unwrap().into_inner().instance.unwrap();
    assert_eq!(same.etag, updated.etag, "an update to the same spec is none");
    let unknown = FieldMask { paths: vec!["colour".into()] };
    let unknown = UpdateInstanceRequest { etag: String::new(), update_mask: Some(unknown), ..update.clone() };
    refused(within(client.update_instance(unknown)).await, Code::InvalidArgument, "INVALID_SPEC");
    let empty = UpdateInstanceRequest { etag: String::new(), spec: None, ..update };
    refused(within(client.update_instance(empty)).await, Code::InvalidArgument, "INVALID_SPEC");
}

#[tokio::test]
async fn an_instance_made_from_defaults_may_be_updated_before_its_primary_comes() {
    let server = Server::start().await;
    server.up("rescue").await;
    let update = UpdateInstanceRequest {
        name: "rescue".into(),
        spec: Some(InstanceSpec { program: "openclaw".into(), ..Default::default() }),
        update_mask: Some(FieldMask { paths: vec!["program".into()] }),
        ..Default::default()
    };
    let updated = within(server.instances().update_instance(update)).await.unwrap().into_inner();
    assert_eq!(updated.instance.unwrap().spec.unwrap().rescues, ["main"]);
}

#[tokio::test]
async fn the_ports_of_a_running_instance_stay() {
    let server = Server::start().await;
    server.up("main").await;
    let update = UpdateInstanceRequest {
        name: "main".into(),
        spec: Some(InstanceSpec { port: 25_000, ..Default::default() }),
        ..Default::default()
    };
    let mut client = server.instances();
    refused(within(client.update_instance(update.clone())).await, Code::FailedPrecondition, "PORT_IN_USE");
    within(client.stop_instance(stop("main"))).await.unwrap();
    let moved = within(client.update_instance(update)).await.unwrap().into_inner().instance.unwrap();
    assert_eq!(moved.status.unwrap().ports.unwrap().base, 25_000);
}

#[tokio::test]
async fn starting_what_is_up_and_stopping_what_is_down_succeed() {
    let server = Server::start().await;
    let mut client = server.instances();
    let up = server.up("main").await;
    let again = within(client.start_instance(start("main"))).await.unwrap().into_inner();
    assert!(!again.created);
    let (first, second) = (up.status.unwrap(), again.instance.unwrap().status.unwrap());
    assert_eq!(first.incarnation, second.incarnation);
    assert!(again.revision >= second.revision);
    for _ in 0..2 {
        let down = within(client.stop_instance(stop("main"))).await.unwrap().into_inner();
        let status = down.instance.unwrap().status.unwrap();
        assert_eq!((status.phase(), status.wish(), status.pid), (Phase::Stopped, Wish::Down, 0));
        assert_eq!(status.reason, "an operator wants it down");
    }
}

#[tokio::test]
async fn an_unknown_instance_is_started_only_if_the_caller_says_so() {
    let server = Server::start().await;
    let mut client = server.instances();
    refused(within(client.start_instance(start("rescue"))).await, Code::NotFound, "UNKNOWN_INSTANCE");
    let allowed = StartInstanceRequest { allow_missing: true, wait: true, ..start("rescue") };
    let started = within(client.start_instance(allowed)).await.unwrap().into_inner();
    assert!(started.created);
    let instance = started.instance.unwrap();
    assert_eq!(instance.spec.unwrap().rescues, ["main"]);
    let status = instance.status.unwrap();
    assert_eq!((status.phase(), status.incarnation), (Phase::Ready, 1));
    assert_eq!(status.failover.unwrap().role(), Role::Standby);
    assert_eq!(status.reason, "serves and stands by for `main`");
}

#[tokio::test]
async fn a_restart_ends_one_life_and_begins_another() {
    let server = Server::start().await;
    let mut client = server.instances();
    server.up("main").await;
    let restart = RestartInstanceRequest { name: "main".into(), wait: true, ..Default::default() };
    let again = within(client.restart_instance(restart.clone())).await.unwrap().into_inner();
    let status = again.instance.unwrap().status.unwrap();
    assert_eq!((status.phase(), status.incarnation, status.restarts), (Phase::Ready, 2, 0));
    let exit = status.last_exit.unwrap();
    assert_eq!((exit.incarnation, exit.message.as_str()), (1, "exited with status 0"));
    assert_eq!(exit.how, Some(v1::exit::How::Code(0)));
    within(client.stop_instance(stop("main"))).await.unwrap();
    let down = within(client.restart_instance(restart)).await;
    refused(down, Code::FailedPrecondition, "INSTANCE_DOWN");
}

#[tokio::test]
async fn a_running_instance_is_not_deleted() {
    let server = Server::start().await;
    server.up("main").await;
    let delete = DeleteInstanceRequest { name: "main".into(), ..Default::default() };
    let sentence = refused(
        within(server.instances().delete_instance(delete)).await,
        Code::FailedPrecondition,
        "INSTANCE_RUNNING",
    );
    assert!(sentence.contains("openclawctl down main"), "{sentence}");
    let delete = DeleteInstanceRequest { name: "main".into(), etag: "1-1".into(), ..Default::default() };
    refused(within(server.instances().delete_instance(delete)).await, Code::Aborted, "ETAG_MISMATCH");
}

#[tokio::test]
async fn lists_come_in_pages_and_are_filtered() {
    let server = Server::start().await;
    for name in ["d", "b", "a", "c", "e"] {
        server.create(name, InstanceSpec::default()).await;
    }
    server.up("b").await;
    let mut client = server.instances();
    let mut seen = Vec::new();
    let mut page = ListInstancesRequest { page_size: 2, ..Default::default() };
    loop {
        let answer = within(client.list_instances(page.clone())).await.unwrap().into_inner();
        assert!(answer.instances.len() <= 2);
        seen.extend(answer.instances.into_iter().map(|instance| instance.name));
        if answer.next_page_token.is_empty() {
            break;
        }
        page.page_token = answer.next_page_token;
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    let filtered = ListInstancesRequest { filter: "phase = READY".into(), ..Default::default() };
    let filtered = within(client.list_instances(filtered)).await.unwrap().into_inner();
    assert_eq!(filtered.instances.len(), 1);
    assert_eq!(filtered.instances[0].name, "b");

    let other = ListInstancesRequest { filter: "wish = UP".into(), ..page };
    refused(within(client.list_instances(other)).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    let bad = ListInstancesRequest { filter: "phase ~ READY".into(), ..Default::default() };
    refused(within(client.list_instances(bad)).await, Code::InvalidArgument, "INVALID_FILTER");
    let bad = ListInstancesRequest { page_size: -1, ..Default::default() };
    refused(within(client.list_instances(bad)).await, Code::InvalidArgument, "INVALID_SPEC");
}

#[tokio::test]
async fn a_page_of_bulky_specs_is_shorter() {
    let server = Server::start().await;
    let args = vec!["x".repeat(30_000); 30];
    for number in 0..4 {
        let spec = InstanceSpec {
            runtime: Runtime::Command.into(),
            program: "/bin/true".into(),
            args: args.clone(),
            ..Default::default()
        };
        server.create(&format!("i{number}"), spec).await;
    }
    let page = ListInstancesRequest::default();
    let first = within(server.instances().list_instances(page.clone())).await.unwrap().into_inner();
    assert_eq!(first.instances.len(), 2);
    let page = ListInstancesRequest { page_token: first.next_page_token, ..page };
    let second = within(server.instances().list_instances(page)).await.unwrap().into_inner();
    assert_eq!((second.instances.len(), second.next_page_token.as_str()), (2, ""));
}

#[tokio::test]
async fn a_failover_by_hand_lasts_until_the_failback() {
    let server = Server::start().await;
    let mut client = server.instances();
    server.up("main").await;
    let over = |rescue: &str| FailOverRequest {
        primary: "main".into(),
        rescue: rescue.into(),
        wait: true,
        ..Default::default()
    };
    refused(within(client.fail_over(over(""))).await, Code::FailedPrecondition, "NOT_A_RESCUE");
    server.create("rescue", rescues("main", Standby::Warm)).await;
    server.create("other", InstanceSpec::default()).await;
    refused(within(client.fail_over(over("other"))).await, Code::FailedPrecondition, "NOT_A_RESCUE");
    refused(within(client.fail_over(over(""))).await, Code::FailedPrecondition, "RESCUE_DOWN");
    server.up("rescue").await;
    let main = within(client.fail_over(over(""))).await.unwrap().into_inner().instance.unwrap();
    let status = main.status.unwrap();
    assert_eq!(status.hint, "openclawctl failback");
    assert_eq!(status.reason, "serves; `rescue` keeps its place until it is given back by hand");
    let failover = status.failover.unwrap();
    assert_eq!((failover.role(), failover.active.as_str()), (Role::Rescued, "rescue"));
    assert_eq!(
        (failover.rescued_by, failover.reason.as_str()),
        (vec!["rescue".into()], "an operator wished it")
    );
    let rescue = server.get("rescue").await.status.unwrap();
    assert_eq!(rescue.reason, "serves in the place of `main`");
    let role = rescue.failover.unwrap();
    assert_eq!((role.role(), role.active_for), (Role::Active, vec!["main".into()]));
    refused(within(client.fail_over(over(""))).await, Code::FailedPrecondition, "ALREADY_FAILED_OVER");

    let back = FailBackRequest { primary: "main".into(), wait: true, ..Default::default() };
    let main = within(client.fail_back(back.clone())).await.unwrap().into_inner().instance.unwrap();
    let failover = main.status.unwrap().failover.unwrap();
    assert_eq!((failover.role(), failover.active.as_str()), (Role::Primary, "main"));
    refused(within(client.fail_back(back)).await, Code::FailedPrecondition, "NOT_FAILED_OVER");
}

#[tokio::test]
async fn a_dead_primary_cannot_have_its_place_back() {
    let server = Server::start().await;
    server.up("main").await;
    server.up("rescue").await;
    let refusal = LaunchFailure::Refused("state/openclaw.json:3:5: `gateway.port` is odd".into());
    server.world.conduct("main", Conduct::Fails(refusal));
    server.world.kill("main");
    let failover = |status: &v1::InstanceStatus| status.failover.clone().unwrap();
    let main =
        server.until("main", |main| failover(main).active == "rescue" && main.phase() == Phase::Failed).await;
    assert_eq!(failover(&main).reason, "killed by SIGKILL");
    assert!(main.reason.contains("`gateway.port` is odd"), "{}", main.reason);
    let hint = main.hint;
    assert_eq!(hint, "openclawctl up main", "the refusal says what to edit");
    assert!(main.next_start_time.is_some() && main.settled);
    let back = FailBackRequest { primary: "main".into(), ..Default::default() };
    refused(within(server.instances().fail_back(back)).await, Code::FailedPrecondition, "PRIMARY_NOT_READY");
}

#[tokio::test]
async fn a_cold_standby_says_that_it_stands_by() {
    let server = Server::start().await;
    server.up("main").await;
    server.create("spare", rescues("main", Standby::Cold)).await;
    let spare = server.up("spare").await.status.unwrap();
    assert_eq!((spare.phase(), spare.wish()), (Phase::Stopped, Wish::Up));
    assert_eq!((spare.reason.as_str(), spare.hint.as_str()), ("stands by, cold, for `main`", ""));
    server.world.kill("main");
    let spare = server.until("spare", |spare| spare.phase() == Phase::Ready).await;
    assert_eq!(spare.incarnation, 1);
}

#[tokio::test]
async fn a_taken_port_is_told_with_its_holder() {
    let server = Server::start().await;
    let taken = LaunchFailure::PortTaken { port: 18_789, holder: "process 4711 (nc)".into() };
    server.world.conduct("main", Conduct::Fails(taken));
    let request = StartInstanceRequest { allow_missing: true, ..start("main") };
    within(server.instances().start_instance(request)).await.unwrap();
    let main = server.until("main", |main| main.phase() == Phase::Failed).await;
    assert_eq!(main.reason, "port 18789 is taken by process 4711 (nc)");
    assert_eq!(main.hint, "openclawctl ports");
}

#[tokio::test]
async fn a_dying_gateway_is_told_with_its_next_start() {
    let server = Server::start().await;
    server.world.conduct("main", Conduct::Exits(3));
    let slow = prost_types::Duration { seconds: 3600, nanos: 0 };
    let restart = RestartPolicy { initial_delay: Some(slow), jitter_permille: Some(0), ..Default::default() };
    server.create("main", InstanceSpec { restart: Some(restart), ..Default::default() }).await;
    within(server.instances().start_instance(start("main"))).await.unwrap();
    let main = server.until("main", |main| main.phase() == Phase::Backoff).await;
    assert_eq!(main.reason, "exited with status 3; starts again after 1h");
    assert_eq!(main.hint, "openclawctl logs main");
    let (since, next) = (main.phase_time.unwrap(), main.next_start_time.unwrap());
    assert_eq!(next.seconds - since.seconds, 3600);
}

#[tokio::test]
async fn the_environment_is_shown_without_its_secrets() {
    let server = Server::start().await;
    let spec = InstanceSpec {
        env: [("BOT_TOKEN".to_owned(), "hidden".to_owned()), ("COLOUR".to_owned(), "red".to_owned())].into(),
        ..Default::default()
    };
    server.create("main", spec).await;
    let request = GetInstanceEnvironmentRequest { name: "main".into() };
    let shown = within(server.instances().get_instance_environment(request)).await.unwrap().into_inner();
    assert_eq!(shown.variables["COLOUR"], "red");
    assert_eq!(shown.variables["OPENCLAW_GATEWAY_PORT"], "18789");
    assert_eq!(shown.variables["LANG"], "C");
    assert!(!shown.variables.contains_key("TERM"), "only what is on the list is inherited");
    assert!(!shown.variables.contains_key("OPENCLAWCTL_MARK"));
    assert!(shown.variables.values().all(|value| value != "hidden"));
    assert_eq!(shown.withheld, ["BOT_TOKEN"]);
    assert!(shown.working_directory.ends_with("instances/main/home"));
}

#[tokio::test]
async fn who_enters_an_instance_is_told_its_walls_and_its_mark_and_no_secret() {
    let server = Server::start().await;
    let spec =
        InstanceSpec { env: [("BOT_TOKEN".to_owned(), "hidden".to_owned())].into(), ..Default::default() };
    server.create("main", spec).await;
    server.create("other", InstanceSpec::default()).await;
    let enter = EnterInstanceRequest { name: "main".into() };
    let entry = within(server.instances().enter_instance(enter)).await.unwrap().into_inner();
    assert_eq!(
        (entry.mark.as_str(), entry.withheld.as_slice()),
        ("store/main", &["BOT_TOKEN".to_owned()][..])
    );
    assert!(!entry.variables.contains_key("OPENCLAWCTL_MARK") && !format!("{entry:?}").contains("hidden"));
    assert_eq!(entry.user.unwrap().uid, nix::unistd::geteuid().as_raw());
    let walls = Walls::decode(entry.walls.as_slice()).unwrap();
    assert!(walls.write.contains(&entry.working_directory), "{walls:?}");
    assert!(walls.write.iter().chain(&walls.read).all(|tree| !tree.contains("/instances/other")));
    assert!(walls.apart && walls.privileges && walls.user.is_none());
    assert_eq!(walls.bind, [PortRange { first: 18_789, last: 18_808 }]);
}

#[tokio::test]
async fn nobody_enters_an_instance_as_somebody_else_because_its_user_is_not_there() {
    let server = Server::start().await;
    let spec = InstanceSpec { user: "nobody-is-called-so".into(), ..Default::default() };
    server.create("main", spec).await;
    let enter = EnterInstanceRequest { name: "main".into() };
    let refusal = within(server.instances().enter_instance(enter)).await;
    let sentence = refused(refusal, Code::InvalidArgument, "INVALID_SPEC");
    assert!(sentence.contains("no user `nobody-is-called-so`"), "{sentence}");
    // Outside its walls, where one without a name stays who it is.
    let request = GetInstanceEnvironmentRequest { name: "main".into() };
    let refusal = within(server.instances().get_instance_environment(request)).await;
    let sentence = refused(refusal, Code::InvalidArgument, "INVALID_SPEC");
    assert!(sentence.contains("`useradd --system nobody-is-called-so`"), "{sentence}");
}

#[tokio::test]
async fn a_repeated_request_is_done_once() {
    let server = Server::start().await;
    let mut client = server.instances();
    server.up("main").await;
    let restart = RestartInstanceRequest {
        name: "main".into(),
        wait: true,
        request_id: "r1".into(),
        ..Default::default()
    };
    let first = within(client.restart_instance(restart.clone())).await.unwrap().into_inner();
    let repeat = within(client.restart_instance(restart.clone())).await.unwrap().into_inner();
    assert_eq!(first.revision, repeat.revision);
    assert_eq!(repeat.instance.unwrap().status.unwrap().incarnation, 2);
    let other = RestartInstanceRequest { force: true, ..restart };
    refused(within(client.restart_instance(other)).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let created = CreateInstanceRequest { request_id: "r2".into(), ..create("a", InstanceSpec::default()) };
    let first = within(client.create_instance(created.clone())).await.unwrap().into_inner();
    let repeat = within(client.create_instance(created)).await.unwrap().into_inner();
    assert_eq!(first, repeat);
}
