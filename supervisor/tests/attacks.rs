//! What an agent can try against the supervisor from inside its instance, and whoever writes its files: each test is
//! named for what is tried. What the kernel's walls refuse is tried in `walls.rs` and by the tests of the worker, what
//! the API refuses to callers inside in `rights.rs`, and to those elsewhere in `tcp.rs`.
//!
//! Nothing of it may disturb `main`, the neighbour, nor keep an operator out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    env, fs,
    io::Write,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use http::{HeaderName, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use supervisor_proto::v1::{
    self, AuditEntry, InstanceSpec, InstanceStatus, LadderPolicy, ListAuditRequest, Phase, Role, TrialPolicy,
    WallPolicy, audit_entry::Outcome, audit_service_client::AuditServiceClient, restart_policy::Condition,
};
use support::{Host, agent::Agent, builtin, is_alive, kill_9, program, until};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::{ServiceExt, service_fn};

/// A user that no host has.
const NOBODY_ELSE: u32 = 54_321;

/// An HTTP/2 preface and an empty SETTINGS frame, then the head of a HEADERS frame of 1,000 bytes.
const BEGUN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x03\xe8\x01\x04\0\0\0\x01";

/// Connections that an agent holds at a time: as many as a process usually may, less some.
const HELD: usize = 900;

/// No bomb may cost the supervisor more.
const MOST_MEMORY: u64 = 64 << 20;

/// What this binary is to be inside an instance.
const ATTACK: &str = "ATTACK";

/// A script that makes this binary an attacker.
fn attack(what: &str) -> String {
    let program = env::current_exe().unwrap();
    format!("{ATTACK}='{what}' {} --exact attacker --ignored --nocapture --test-threads=1", program.display())
}

#[test]
#[ignore = "it is run by the other tests, inside an instance"]
fn attacker() {
    let Ok(attack) = env::var(ATTACK) else { return };
    let (what, rest) = attack.split_once(' ').unwrap();
    match what {
        "flood" => flood(Path::new(rest), "flooding"),
        "crowd" => {
            // Root behind walls may; each look at its status takes long then.
            let groups: Vec<_> = (0..65_536).map(nix::unistd::Gid::from_raw).collect();
            let _ = nix::unistd::setgroups(&groups);
            flood(Path::new(rest), "crowding");
        }
        "gigabyte" => bomb(|_| (), rest),
        "endless-head" => endless_head(rest),
        "headers" => bomb(
            |request| {
                for number in 0..1_000 {
                    let name = HeaderName::from_bytes(format!("x-bomb-{number}").as_bytes()).unwrap();
                    request.headers_mut().insert(name, "x".repeat(1 << 10).parse().unwrap());
                }
            },
            rest,
        ),
        other => panic!("{other}"),
    }
}

/// Connects for ever, and says half of something on each connection. That it does so says a file of that name.
fn flood(socket: &Path, tells: &str) {
    let mut held = Vec::new();
    let mut made = 0_usize;
    loop {
        if let Ok(mut stream) = StdStream::connect(socket) {
            let _ = stream.write_all(BEGUN);
            held.push(stream);
            made += 1;
        }
        if held.len() > HELD {
            held.drain(..HELD / 2);
        }
        if made == HELD {
            fs::write(tells, "").unwrap();
        }
    }
}

/// Asks by HTTP/1 with a head that does not end, and says how much of it was taken.
fn endless_head(socket: &str) {
    let mut stream = StdStream::connect(socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nx-endless: ").unwrap();
    let taken = (0..1_000).take_while(|_| stream.write_all(&[b'x'; 1 << 10]).is_ok()).count();
    println!("taken: {}", if taken < 1_000 { "a part" } else { "all" });
}

type Bombing = Request<tonic::body::Body>;

/// Calls a method with a request of a gibibyte, and says what the answer was.
fn bomb(adjust: impl FnOnce(&mut Bombing), of: &str) {
    const CHUNK: usize = 64 << 10;
    let (socket, method) = of.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = connect(Path::new(socket)).await;
        // The head of a message of a gibibyte, and then all of it.
        let head = std::iter::once(vec![0, 0x40, 0, 0, 0]);
        let chunks = head.chain((0..(1 << 30) / CHUNK).map(|_| vec![b'x'; CHUNK]));
        let frames = chunks.map(|chunk| Ok::<_, tonic::Status>(Frame::data(hyper::body::Bytes::from(chunk))));
        let body = tonic::body::Body::new(StreamBody::new(tokio_stream::iter(frames)));
        let request = Request::post(format!("http://localhost/openclaw.supervisor.v1.{method}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let mut request = request.body(body).unwrap();
        adjust(&mut request);
        match channel.oneshot(request).await {
            Ok(answer) => {
                let status = answer.headers().get("grpc-status").and_then(|status| status.to_str().ok());
                println!("answer: {} {}", answer.status().as_u16(), status.unwrap_or("none"));
            }
            Err(error) => println!("answer: broken off: {error:?}"),
        }
    });
}

async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

/// A neighbour that is not to be disturbed.
struct Neighbour(InstanceStatus);

impl Neighbour {
    async fn start(host: &Host) -> Self {
        host.create("main", builtin()).await;
        Self(host.up("main").await)
    }

    /// It lives the life that it lived, and whoever asks is answered.
    async fn is_undisturbed(&self, host: &Host) {
        let now = host.status("main").await;
        assert_eq!(
            (now.phase(), now.pid, now.incarnation),
            (Phase::Ready, self.0.pid, self.0.incarnation),
            "{now:#?}"
        );
        assert!(is_alive(now.pid));
    }
}

/// An agent that no wall keeps from files.
fn unwalled() -> InstanceSpec {
    Agent::spec(WallPolicy { files: Some(false), ..Default::default() })
}

fn rescues(primary: &str, spec: InstanceSpec) -> InstanceSpec {
    InstanceSpec { rescues: vec![primary.into()], ..spec }
}

/// A gateway whose configuration has soon proven good.
fn proving() -> InstanceSpec {
    let soon = prost_types::Duration { seconds: 0, nanos: 100_000_000 };
    let trial = Some(TrialPolicy { good_after: Some(soon), ..Default::default() });
    InstanceSpec {
        trial,
        ladder: Some(LadderPolicy { roll_back: Some(true), ..Default::default() }),
        ..builtin()
    }
}

async fn proven(host: &Host, name: &str) -> InstanceStatus {
    host.wait(name, "proven", |status| {
        let config = status.config.clone().unwrap_or_default();
        status.phase() == Phase::Ready && !config.good.is_empty() && config.good == config.content
    })
    .await
}

fn config(host: &Host, name: &str) -> PathBuf {
    host.data_dir().join("instances").join(name).join("state/openclaw.json")
}

fn control(host: &Host) -> PathBuf {
    host.data_dir().join("control.sock")
}

/// The most resident memory that the supervisor has had.
fn peak(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.supervisor_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn ctl(host: &Host, args: &[&str]) -> Output {
    Command::new(program("openclawctl")).arg("--data-dir").arg(host.data_dir()).args(args).output().unwrap()
}

/// What it said, as one line.
fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn audit(host: &Host, method: &str) -> Vec<AuditEntry> {
    let mut client = AuditServiceClient::new(host.channel().await.unwrap());
    let request = ListAuditRequest { method: method.into(), page_size: 1_000, ..Default::default() };
    client.list_audit(request).await.unwrap().into_inner().entries
}

#[tokio::test]
async fn an_agent_that_floods_the_control_socket_keeps_nobody_out() {
    let host = Host::start().await;
    let main = Neighbour::start(&host).await;
    let (agent, _) = Agent::start(&host, "lab", Agent::spec(WallPolicy::default())).await;
    for (how, tells) in [("flood", "flooding"), ("crowd", "crowding")] {
        agent.begin(&attack(&format!("{how} {}", control(&host).display())));
        until("it floods", async || agent.home.join(tells).exists().then_some(())).await;
    }
    for number in 0..3 {
        main.is_undisturbed(&host).await;
        let output = ctl(&host, &["status"]);
        assert!(output.status.success(), "{number}: {}", said(&output));
    }
    host.create("fresh", builtin()).await;
    host.up("fresh").await;
    kill_9(host.status("fresh").await.pid);
    host.wait("fresh", "in its next life", |status| status.phase() == Phase::Ready && status.incarnation > 1)
        .await;
    // It is as mortal as before.
    host.down("lab").await;
    until("nothing of it is left", async || host.processes_of("lab").is_empty().then_some(())).await;
    main.is_undisturbed(&host).await;
}

#[tokio::test]
async fn an_agent_that_sends_a_gigabyte_or_a_bomb_of_headers_is_refused_at_its_beginning() {
    let host = Host::start().await;
    let main = Neighbour::start(&host).await;
    let rescue = rescues("main", Agent::spec(WallPolicy::default()));
    let (agent, _) = Agent::start(&host, "rescue", rescue).await;
    let before = peak(&host);
    let socket = control(&host);
    // Open to it, open to it if it is about its primary, closed to it, and unknown.
    for (method, status) in [
        ("InstanceService/GetInstance", "answer: 200 11"),
        ("InstanceService/RestartInstance", "answer: 200 7"),
        ("FleetService/ApplyFleet", "answer: 200 7"),
        ("FleetService/Nothing", "answer: 200 12"),
    ] {
        let out = agent.done(&attack(&format!("gigabyte {} {method}", socket.display()))).await;
        assert!(out.contains(status), "{method}: {out}");
        let out = agent.done(&attack(&format!("headers {} {method}", socket.display()))).await;
        assert!(out.contains("answer: 431") || out.contains("answer: broken off"), "{method}: {out}");
        main.is_undisturbed(&host).await;
    }
    let out = agent.done(&attack(&format!("endless-head {}", socket.display()))).await;
    assert!(out.contains("taken: a part"), "{out}");
    let grown = peak(&host) - before;
    assert!(grown < MOST_MEMORY, "{} MiB", grown >> 20);
    let refused = until("it is recorded", async || {
        let entries = audit(&host, "ApplyFleet").await;
        entries.into_iter().find(|entry| entry.outcome() == Outcome::Refused)
    })
    .await;
    assert_eq!(
        (refused.reason.as_str(), refused.caller.unwrap().instance.as_str()),
        ("INSIDE_INSTANCE", "rescue")
    );
}

#[tokio::test]
async fn an_agent_that_puts_a_link_in_the_place_of_the_control_socket_catches_nobody() {
    let mut host = Host::start().await;
    let main = Neighbour::start(&host).await;
    let (agent, _) = Agent::start(&host, "lab", unwalled()).await;
    let (socket, victim) = (control(&host), host.directory.path().join("victim"));
    fs::write(&victim, "mine").unwrap();
    let plant = format!("ln -sfn {} {}", victim.display(), socket.display());
    let is_back = async || {
        until("the socket is there again", async || {
            fs::symlink_metadata(&socket).is_ok_and(|found| found.file_type().is_socket()).then_some(())
        })
        .await;
        let found = fs::metadata(&socket).unwrap();
        assert_eq!((found.mode() & 0o777, found.uid()), (0o600, nix::unistd::geteuid().as_raw()));
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o644);
    };
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o644)).unwrap();
    agent.done(&plant).await;
    is_back().await;
    main.is_undisturbed(&host).await;
    // While none runs.
    host.kill_supervisor();
    agent.done(&plant).await;
    host.start_supervisor().await;
    is_back().await;
    host.wait_ready("main").await;
    main.is_undisturbed(&host).await;
}

#[tokio::test]
async fn an_agent_that_links_its_workers_socket_to_a_neighbours_gets_nothing_of_the_neighbour() {
    let mut host = Host::start().await;
    let main = Neighbour::start(&host).await;
    let (agent, lab) = Agent::start(&host, "lab", unwalled()).await;
    let run = host.data_dir().join("run");
    let plant = format!("ln -sfn {0}/main/worker.sock {0}/lab/worker.sock", run.display());
    host.kill_supervisor();
    agent.done(&plant).await;
    host.start_supervisor().await;
    host.wait("main", "adopted", |status| status.phase() == Phase::Ready).await;
    main.is_undisturbed(&host).await;
    let status = host.status("lab").await;
    assert!(status.pid != main.0.pid && status.worker_pid != main.0.worker_pid, "{status:#?}");
    // What it still has is ended with it.
    host.down("lab").await;
    until("nothing of it is left", async || host.processes_of("lab").is_empty().then_some(())).await;
    assert!(!is_alive(lab.pid));
    main.is_undisturbed(&host).await;
}

#[tokio::test]
async fn an_agent_that_plants_a_link_for_its_configuration_before_a_rollback_moves_nobodys_file() {
    let host = Host::start().await;
    let main = Neighbour::start(&host).await;
    // A profile's files are where its owner has them; its agent writes there.
    let state = host.directory.path().join(".openclaw-lab");
    fs::create_dir(&state).unwrap();
    let profile = v1::Profile { state_dir: state.display().to_string(), ..Default::default() };
    host.create("lab", InstanceSpec { profile: Some(profile), ..proving() }).await;
    host.up("lab").await;
    let before = proven(&host, "lab").await;
    let planted = state.join("openclaw.json");
    let good = fs::read_to_string(&planted).unwrap();
    let keys = host.directory.path().join("authorized_keys");
    fs::write(&keys, "ssh-ed25519 AAAA me\n").unwrap();
    for victim in [keys, config(&host, "main"), host.data_dir().join("settings.yaml")] {
        let content = fs::read(&victim).unwrap();
        let pid = host.wait_ready("lab").await.pid;
        fs::remove_file(&planted).unwrap();
        symlink(&victim, &planted).unwrap();
        kill_9(pid);
        host.wait("lab", "back on what was good", |status| {
            status.phase() == Phase::Ready && status.pid != pid && !planted.is_symlink()
        })
        .await;
        assert_eq!(fs::read(&victim).unwrap(), content, "{}", victim.display());
        assert_eq!(fs::read_to_string(&planted).unwrap(), good);
        main.is_undisturbed(&host).await;
    }
    // Nothing of it was kept where diffs are made from.
    let kept = fs::read_dir(host.data_dir().join("instances/lab/snapshots")).unwrap();
    for kept in kept.map(|kept| kept.unwrap().path()) {
        let text = fs::read_to_string(&kept).unwrap();
        assert!(!text.contains("ssh-ed25519") && !text.contains("pool:"), "{}", kept.display());
    }
    assert_eq!(before.config.unwrap().good, proven(&host, "lab").await.config.unwrap().good);
}

#[tokio::test]
async fn a_rescue_that_plants_a_link_for_its_incident_file_has_nobodys_file_overwritten() {
    let host = Host::start().await;
    // It stays down, and its incident open.
    let never = v1::RestartPolicy { condition: Condition::Never.into(), ..Default::default() };
    host.create("main", InstanceSpec { restart: Some(never), ..builtin() }).await;
    host.up("main").await;
    let is_root = nix::unistd::geteuid().is_root();
    let user = if is_root { NOBODY_ELSE.to_string() } else { String::new() };
    if is_root {
        fs::set_permissions(host.directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    }
    let (agent, _) =
        Agent::start(&host, "rescue", InstanceSpec { user, ..rescues("main", unwalled()) }).await;
    let victim = host.directory.path().join("passwd");
    fs::write(&victim, "root:x:0:0\n").unwrap();
    let file = host.data_dir().join("instances/rescue/incident/incident.json");
    agent.done(&format!("ln -sfn {} {}", victim.display(), file.display())).await;
    kill_9(host.status("main").await.pid);
    host.wait_role("rescue", Role::Active).await;
    until("it has its incident", async || (!file.is_symlink() && file.is_file()).then_some(())).await;
    assert!(fs::read_to_string(&file).unwrap().contains("\"primary\": \"main\""));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "root:x:0:0\n");
    assert_eq!(fs::metadata(&victim).unwrap().uid(), nix::unistd::geteuid().as_raw());
}

#[tokio::test]
async fn a_json5_bomb_of_nested_lists_in_a_configuration_brings_nobody_down() {
    let host = Host::start().await;
    let main = Neighbour::start(&host).await;
    host.create("lab", proving()).await;
    host.up("lab").await;
    proven(&host, "lab").await;
    let good = fs::read_to_string(config(&host, "lab")).unwrap();
    let before = peak(&host);
    let deep = 200_000;
    for bomb in [
        "[".repeat(4 * deep),
        "{a:".repeat(deep),
        format!("{{a: {}1{}}}", "[".repeat(deep), "]".repeat(deep)),
        format!("{{\"$include\": \"./openclaw.json\", a: {}", "{a: [".repeat(deep / 2)),
    ] {
        fs::write(config(&host, "lab"), &bomb).unwrap();
        host.wait("lab", "known to be broken", |status| {
            status.config.as_ref().is_some_and(|config| !config.problem.is_empty())
        })
        .await;
        for args in [&["config", "diff", "lab"][..], &["env", "lab"], &["doctor"], &["status", "lab"]] {
            // Whatever they say, they say it.
            let output = ctl(&host, args);
            assert!(output.status.code().is_some_and(|code| code != 1), "{args:?}: {}", said(&output));
        }
        main.is_undisturbed(&host).await;
        fs::write(config(&host, "lab"), &good).unwrap();
        host.wait("lab", "whole again", |status| {
            status.config.as_ref().is_some_and(|config| config.problem.is_empty())
        })
        .await;
    }
    // And at a start.
    fs::write(config(&host, "lab"), "[".repeat(deep)).unwrap();
    kill_9(host.status("lab").await.pid);
    host.wait("lab", "back on what was good", |status| {
        status.phase() == Phase::Ready && status.incarnation > 1
    })
    .await;
    assert_eq!(fs::read_to_string(config(&host, "lab")).unwrap(), good);
    let grown = peak(&host) - before;
    assert!(grown < 3 * MOST_MEMORY, "{} MiB", grown >> 20);
    main.is_undisturbed(&host).await;
}

/// A few aliases that stand for 10 to the power of 12 nodes.
fn alias_bomb() -> String {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    bomb
}

#[tokio::test]
async fn a_yaml_bomb_of_aliases_is_refused_as_a_fleet_file_and_as_settings() {
    let mut host = Host::start().await;
    let main = Neighbour::start(&host).await;
    let before = peak(&host);
    let file = host.directory.path().join("fleet.yaml");
    fs::write(&file, format!("version: 1\n{}instances: {{}}\n", alias_bomb())).unwrap();
    let output = ctl(&host, &["apply", "-f", file.to_str().unwrap(), "--yes"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("stands for more than"), "{}", said(&output));
    let entries = audit(&host, "ApplyFleet").await;
    assert!(entries.iter().all(|entry| entry.outcome() == Outcome::Refused), "{entries:#?}");

    let settings = host.data_dir().join("settings.yaml");
    let whole = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, alias_bomb()).unwrap();
    let refused = host.system().await.reload(v1::ReloadRequest {}).await.unwrap_err();
    assert!(refused.message().contains("settings.yaml"), "{refused}");
    main.is_undisturbed(&host).await;
    let grown = peak(&host) - before;
    assert!(grown < MOST_MEMORY, "{} MiB", grown >> 20);
    let reload = until("it is recorded", async || audit(&host, "Reload").await.into_iter().next()).await;
    assert_eq!(reload.outcome(), Outcome::Refused);

    // With it none begins; the gateway goes on.
    host.kill_supervisor();
    let output = host.supervisor_command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("stands for more than"), "{}", said(&output));
    assert!(is_alive(main.0.pid));
    fs::write(&settings, whole).unwrap();
    host.start_supervisor().await;
    host.wait_ready("main").await;
    main.is_undisturbed(&host).await;
}
