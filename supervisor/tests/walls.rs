//! What those may do who run inside an instance: real gateways behind the walls of this kernel.
//!
//! Where it cannot build a wall, nothing is tried that the wall would have refused: what it can build is told by the
//! instance's own status, and that this is true is what is tried.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use supervisor_proto::v1::{
    self, InstanceSpec, Phase, WallPolicy,
    config_service_client::ConfigServiceClient,
    doctor_service_client::DoctorServiceClient,
    wall_status::{Kind, State},
};
use support::{
    Host,
    agent::{Agent, stand},
    builtin, is_alive, program, until,
};

/// A user that no host has.
const NOBODY_ELSE: u32 = 54_321;

fn config(host: &Host, name: &str) -> PathBuf {
    host.data_dir().join("instances").join(name).join("state/openclaw.json")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

async fn doctor(host: &Host) -> Vec<v1::Finding> {
    let mut client = DoctorServiceClient::new(host.channel().await.unwrap());
    client.examine(v1::ExamineRequest::default()).await.unwrap().into_inner().findings
}

#[tokio::test]
async fn an_instance_that_reads_another_ones_token_is_refused() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    let main = host.up("main").await;
    let (agent, status) = Agent::start(&host, "lab", Agent::spec(WallPolicy::default())).await;
    if !stand(&status, &[Kind::Files]) {
        return;
    }
    let theirs = config(&host, "main");
    agent.done("echo mine > mine && cat mine && ls -a . && echo kept > $OPENCLAW_STATE_DIR/kept").await;
    agent.refused(&format!("cat {}", shown(&theirs))).await;
    agent.refused(&format!("ls {}", shown(theirs.parent().unwrap()))).await;
    agent.refused(&format!("cp {} .", shown(&host.data_dir().join("supervisor.db")))).await;
    agent.refused(&format!("ls {}", shown(&host.data_dir()))).await;
    agent.refused(&format!("cat /proc/{}/environ", main.pid)).await;
    agent.refused(&format!("cat /proc/{}/environ", host.supervisor_pid())).await;
    agent.refused(&format!("ln -sf {} l && cat l", shown(&theirs))).await;
    // What is started twice removed is behind the same walls.
    agent.refused(&format!("setsid -w sh -c '(setsid -w cat {})'", shown(&theirs))).await;
}

#[tokio::test]
async fn an_instance_that_writes_the_supervisors_state_is_refused() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    host.up("main").await;
    let (agent, status) = Agent::start(&host, "lab", Agent::spec(WallPolicy::default())).await;
    if !stand(&status, &[Kind::Files]) {
        return;
    }
    let data = shown(&host.data_dir());
    let before = fs::read(config(&host, "main")).unwrap();
    for attempt in [
        format!(": > {data}/supervisor.db"),
        format!("echo x >> {data}/settings.yaml"),
        format!("rm {data}/control.sock"),
        format!("ln -sf /tmp/other {data}/control.sock"),
        format!("mv {data}/instances/main {data}/instances/lab/home/"),
        format!("echo '{{}}' > {}", shown(&config(&host, "main"))),
        format!("mkdir {data}/instances/new"),
        format!("rm -r {data}/run/main/launch.json"),
        // Its own: what the supervisor keeps of it is not for it to change.
        format!("mkdir {data}/instances/lab/x"),
        format!("ln -s {} {data}/instances/lab/logs/gateway-00000099.log", shown(&config(&host, "main"))),
        format!("mv {data}/instances/lab/state {data}/instances/lab/elsewhere"),
    ] {
        agent.refused(&attempt).await;
    }
    assert_eq!(fs::read(config(&host, "main")).unwrap(), before);
    assert_eq!(host.status("main").await.phase(), Phase::Ready);
}

#[tokio::test]
async fn an_instance_that_binds_a_neighbours_port_is_refused() {
    let host = Host::start().await;
    let main = host.create("main", builtin()).await.status.unwrap().ports.unwrap();
    let (agent, status) = Agent::start(&host, "lab", Agent::spec(WallPolicy::default())).await;
    if !stand(&status, &[Kind::Ports]) {
        return;
    }
    let mine = status.ports.unwrap();
    let gateway = shown(&program("builtin-gateway"));
    let listen = |base: u32| {
        format!(
            "export OPENCLAW_STATE_DIR=$PWD/bind OPENCLAW_CONFIG_PATH=$PWD/bind/openclaw.json \
             OPENCLAW_GATEWAY_PORT={base}; mkdir -p bind; \
             echo '{{gateway: {{mode: \"local\", port: {base}, auth: {{token: \"t\"}}}}}}' > bind/openclaw.json; \
             ({gateway} gateway run & echo $! > bind.pid; wait $!; echo over) > bind.log 2>&1 & \
             until grep -qE 'ready|over' bind.log; do sleep 0.05; done; \
             kill $(cat bind.pid) 2>/dev/null; cat bind.log >&2"
        )
    };
    let ran = agent.run(&listen(main.base)).await;
    assert!(ran.err.contains("ermission denied"), "{ran:?}");
    let ran = agent.run(&listen(mine.base)).await;
    assert!(!ran.err.contains("ermission denied"), "{ran:?}");
}

#[tokio::test]
async fn an_instance_that_signals_its_neighbour_its_worker_or_the_supervisor_is_refused() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    let main = host.up("main").await;
    let (agent, status) = Agent::start(&host, "lab", Agent::spec(WallPolicy::default())).await;
    if !stand(&status, &[Kind::Apart]) {
        return;
    }
    for pid in [main.pid, main.worker_pid, status.worker_pid, host.supervisor_pid()] {
        agent.refused(&format!("kill -9 {pid}")).await;
        assert!(is_alive(pid), "process {pid}");
    }
    agent.done("sleep 100 & kill -9 $!").await;
}

#[tokio::test]
async fn a_rescue_reads_its_primarys_logs_and_of_the_rest_what_it_is_granted() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    host.up("main").await;
    let root = host.data_dir().join("instances/main");
    let rescue = |walls| InstanceSpec { rescues: vec!["main".into()], ..Agent::spec(walls) };
    let (agent, status) = Agent::start(&host, "rescue", rescue(WallPolicy::default())).await;
    if !stand(&status, &[Kind::Files]) {
        return;
    }
    agent.done(&format!("cat {}", shown(&root.join("logs/gateway.log")))).await;
    agent.refused(&format!("cat {}", shown(&config(&host, "main")))).await;
    let granted = WallPolicy { read: vec![shown(&root.join("state"))], ..WallPolicy::default() };
    let (agent, _) = Agent::start(&host, "second", rescue(granted)).await;
    let text = agent.done(&format!("cat {}", shown(&config(&host, "main")))).await;
    assert!(text.contains("token"), "{text}");
    agent.refused(&format!("echo x >> {}", shown(&config(&host, "main")))).await;
}

#[tokio::test]
async fn a_grant_that_would_open_what_is_anothers_is_refused_when_it_is_asked_for() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    let refused = async |path: PathBuf| {
        let walls = WallPolicy { write: vec![shown(&path)], ..WallPolicy::default() };
        let spec = Some(Agent::spec(walls));
        let request = v1::CreateInstanceRequest { name: "lab".into(), spec, ..Default::default() };
        host.instances().await.create_instance(request).await.unwrap_err().message().to_owned()
    };
    let told = refused(host.data_dir().join("instances/main/workspace")).await;
    assert!(told.contains("granted to `lab`") && told.contains("of `main`"), "{told}");
    let told = refused(host.directory.path().to_owned()).await;
    assert!(told.contains("lies around"), "{told}");
}

#[tokio::test]
async fn a_link_planted_in_place_of_a_configuration_is_neither_kept_nor_followed() {
    let host = Host::start().await;
    for name in ["main", "lab"] {
        host.create(name, builtin()).await;
        host.up(name).await;
    }
    host.down("lab").await;
    let before = fs::read_to_string(config(&host, "main")).unwrap();
    fs::remove_file(config(&host, "lab")).unwrap();
    symlink(config(&host, "main"), config(&host, "lab")).unwrap();
    let start = v1::StartInstanceRequest { name: "lab".into(), ..Default::default() };
    host.instances().await.start_instance(start).await.unwrap();
    let status = host.wait("lab", "refused", |status| status.reason.contains("not a regular file")).await;
    assert_eq!(status.pid, 0);
    // Nor by hand.
    let mut client = ConfigServiceClient::new(host.channel().await.unwrap());
    let keep = v1::CreateSnapshotRequest { name: "lab".into(), ..Default::default() };
    client.create_snapshot(keep).await.unwrap_err();
    let snapshots = host.data_dir().join("instances/lab/snapshots");
    for kept in fs::read_dir(snapshots).unwrap() {
        let text = fs::read_to_string(kept.unwrap().path()).unwrap();
        assert_ne!(text, before, "a neighbour's configuration was kept");
    }
    assert_eq!(fs::read_to_string(config(&host, "main")).unwrap(), before);
    assert_eq!(host.status("main").await.phase(), Phase::Ready);
}

#[tokio::test]
async fn how_the_walls_stand_is_told_by_the_status_and_by_the_doctor() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    let status = host.up("main").await;
    let kinds: Vec<Kind> = status.walls.iter().map(v1::WallStatus::kind).collect();
    let all = [Kind::Files, Kind::Ports, Kind::Apart, Kind::Privileges, Kind::Syscalls, Kind::Limits];
    assert!(all.iter().all(|kind| kinds.contains(kind)), "{:?}", status.walls);
    for wall in &status.walls {
        assert_eq!(wall.state() == State::Enforced, wall.reason.is_empty(), "{wall:?}");
    }
    let missing = status.walls.iter().filter(|wall| wall.state() != State::Enforced).count();
    let told = doctor(&host).await.iter().filter(|finding| finding.id == "walls.missing").count();
    assert_eq!(told, missing, "{:?}", status.walls);
    let open = WallPolicy {
        files: Some(false),
        ports: Some(false),
        apart: Some(false),
        privileges: Some(false),
        ..WallPolicy::default()
    };
    let (_, status) = Agent::start(&host, "open", Agent::spec(open)).await;
    assert!(status.walls.iter().all(|wall| wall.kind() == Kind::Limits), "{:?}", status.walls);
}

#[tokio::test]
async fn the_walls_are_known_again_to_the_next_supervisor() {
    let mut host = Host::start().await;
    host.create("main", builtin()).await;
    let before = host.up("main").await.walls;
    assert!(!before.is_empty());
    host.kill_supervisor();
    host.start_supervisor().await;
    let after = host.wait("main", "adopted", |status| status.phase() == Phase::Ready).await;
    assert_eq!(after.walls, before);
}

#[tokio::test]
async fn an_instance_of_another_user_has_its_own_files_and_cannot_open_the_supervisors() {
    let host = Host::start().await;
    let spec = InstanceSpec { user: NOBODY_ELSE.to_string(), ..Agent::spec(WallPolicy::default()) };
    if !nix::unistd::geteuid().is_root() {
        host.create("lab", spec).await;
        let start = v1::StartInstanceRequest { name: "lab".into(), ..Default::default() };
        host.instances().await.start_instance(start).await.unwrap();
        host.wait("lab", "refused", |status| status.reason.contains("can start nothing as")).await;
        return;
    }
    fs::set_permissions(host.directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let (agent, status) = Agent::start(&host, "lab", spec).await;
    assert_eq!(agent.done("id -u").await.trim(), NOBODY_ELSE.to_string());
    agent.done("echo mine > $OPENCLAW_STATE_DIR/mine && echo tmp > $TMPDIR/mine").await;
    for closed in ["supervisor.db", "settings.yaml", "instances/lab/snapshots", "run/lab/launch.json"] {
        let path = host.data_dir().join(closed);
        let ran = agent.run(&format!("cat {}", shown(&path))).await;
        assert_ne!(ran.status, 0, "{closed}: {ran:?}");
    }
    let root = host.data_dir().join("instances/lab");
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    for own in ["state", "workspace", "home", "tmp"] {
        assert_eq!(owner(&root.join(own)), NOBODY_ELSE, "{own}");
    }
    assert_eq!(
        (owner(&root), owner(&root.join("logs"))),
        (0, 0),
        "what it only passes stays the supervisor's"
    );
    assert!(is_alive(status.pid));
}

#[tokio::test]
async fn a_rescue_of_another_user_mends_its_primary_from_behind_its_walls_and_is_refused_the_rest() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("nothing is tried here: it takes root to run something as another user");
        return;
    }
    let host = Host::start().await;
    for name in ["main", "lab"] {
        host.create(name, builtin()).await;
        host.up(name).await;
    }
    fs::set_permissions(host.directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    // Where the program is built, that user may not get to.
    let tools = host.directory.path().join("tools");
    fs::create_dir(&tools).unwrap();
    fs::copy(program("openclawctl"), tools.join("openclawctl")).unwrap();
    let walls = WallPolicy { read: vec![shown(&tools)], ..WallPolicy::default() };
    let user = NOBODY_ELSE.to_string();
    let spec = InstanceSpec { user: user.clone(), rescues: vec!["main".into()], ..Agent::spec(walls) };
    let (agent, _) = Agent::start(&host, "rescue", spec).await;
    let ctl = format!("PATH=$PATH:{} openclawctl", shown(&tools));
    let before = host.status("main").await.pid;
    agent
        .done(&format!("{ctl} logs main -n 1 && {ctl} config snapshots main && {ctl} restart main --no-wait"))
        .await;
    host.wait("main", "restarted", |status| status.phase() == Phase::Ready && status.pid != before).await;
    for closed in ["restart lab", "down main --yes", "logs lab", "export", "rm main --yes"] {
        let ran = agent.run(&format!("{ctl} {closed}")).await;
        assert!(ran.status != 0 && ran.err.contains("called from inside `rescue`"), "{closed}: {ran:?}");
    }
    // The same user elsewhere is nobody to the supervisor, though it can knock now.
    let mut outside = std::process::Command::new(tools.join("openclawctl"));
    outside.args(["status"]).env("OPENCLAWCTL_DATA_DIR", host.data_dir());
    let uid = nix::unistd::Uid::from_raw(NOBODY_ELSE).as_raw();
    let told = std::os::unix::process::CommandExt::uid(&mut outside, uid).output().unwrap();
    assert!(!told.status.success(), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("role"), "{told:?}");
    // A socket that is made anew can be reached like the one before.
    fs::remove_file(host.data_dir().join("control.sock")).unwrap();
    until("the socket is there again", async || host.data_dir().join("control.sock").exists().then_some(()))
        .await;
    agent.done(&format!("{ctl} status main")).await;
}
