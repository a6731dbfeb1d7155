//! How the daemon begins and ends: with real processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use supervisor_proto::v1::{self, Phase};
use support::{Host, at_once, builtin, is_alive, is_free, program, shell, until};

/// More than the daemon's own bounds together, on a loaded machine.
const PROMPT: Duration = Duration::from_secs(20);

/// A process that does not outlive its test.
struct Guarded(Child);

impl Guarded {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[tokio::test]
async fn a_stopped_watcher_does_not_keep_the_daemon_from_ending() {
    let mut host = Host::start().await;
    host.create("main", at_once(builtin())).await;
    let running = host.up("main").await;
    let mut watcher = Command::new(program("openclawctl"))
        .arg("--data-dir")
        .arg(host.data_dir())
        .args(["events", "-f"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map(Guarded)
        .unwrap();
    let mut line = String::new();
    BufReader::new(watcher.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "it watches");
    signal(watcher.pid(), Signal::SIGSTOP);
    let supervisor = host.supervisor_pid();
    let asked = Instant::now();
    signal(supervisor, Signal::SIGTERM);
    until("the supervisor has ended", async || (!is_alive(supervisor)).then_some(())).await;
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    assert!(is_alive(running.pid));
    host.start_supervisor().await;
    assert_eq!(host.wait_ready("main").await.pid, running.pid);
}

#[test]
fn a_directory_that_others_use_is_not_closed_to_them() {
    let directory = tempfile::TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.path().join("dear to somebody"), "").unwrap();
    let mut daemon = Command::new(program("openclaw-supervisor"));
    let refused = daemon.arg("--data-dir").arg(directory.path()).output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains(directory.path().to_str().unwrap()), "{said}");
    let mode = fs::metadata(directory.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn the_daemon_ends_while_a_worker_is_stopped() {
    let host = Host::start().await;
    host.create("main", shell("exec sleep 86400")).await;
    let running = host.up("main").await;
    signal(running.worker_pid, Signal::SIGSTOP);
    let supervisor = host.supervisor_pid();
    let asked = Instant::now();
    signal(supervisor, Signal::SIGTERM);
    until("the supervisor has ended", async || (!is_alive(supervisor)).then_some(())).await;
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
}

/// Reads what the daemon tells its service manager, until it has said this.
async fn told(manager: &UnixDatagram, what: &str) {
    until(what, async || {
        let mut message = [0; 512];
        let length = manager.recv(&mut message).ok()?;
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        text.lines().any(|line| line == what).then_some(())
    })
    .await;
}

#[tokio::test]
async fn systemd_is_told_when_everything_is_adopted_and_no_gateway_learns_of_systemd() {
    let mut host = Host::start().await;
    host.create("main", at_once(builtin())).await;
    host.create("stuck", at_once(shell("exec sleep 86400"))).await;
    host.up("main").await;
    let stuck = host.up("stuck").await;
    host.kill_supervisor();
    // This one takes a while to adopt.
    signal(stuck.worker_pid, Signal::SIGSTOP);

    let path = host.directory.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let log = fs::File::create(host.directory.path().join("notified.log")).unwrap();
    let supervisor = host
        .supervisor_command()
        .env("NOTIFY_SOCKET", &path)
        .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
        .stderr(log)
        .spawn()
        .map(Guarded)
        .unwrap();
    told(&manager, "READY=1").await;
    for name in ["main", "stuck"] {
        let status = host.status(name).await;
        assert_ne!(status.phase(), Phase::Adopting, "{name}");
    }
    host.wait_ready("stuck").await;
    host.create("fresh", shell("exec sleep 86400")).await;
    host.up("fresh").await;
    for name in ["main", "stuck", "fresh"] {
        let status = host.wait_ready(name).await;
        for pid in [status.pid, status.worker_pid] {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
            let environment = String::from_utf8_lossy(&environment).into_owned();
            assert!(!environment.contains(path.to_str().unwrap()), "{name}, process {pid}: {environment}");
            assert!(!environment.contains("INVOCATION_ID"), "{name}, process {pid}: {environment}");
        }
    }
    told(&manager, "WATCHDOG=1").await;
    signal(supervisor.pid(), Signal::SIGTERM);
    told(&manager, "STOPPING=1").await;
    until("the supervisor has ended", async || (!is_alive(supervisor.pid())).then_some(())).await;
}

#[tokio::test]
async fn a_control_socket_that_is_deleted_is_there_again_and_its_callers_are_not_disturbed() {
    let host = Host::start().await;
    let mut connected = host.system().await;
    let socket = host.data_dir().join("control.sock");
    // Deleted, and replaced by something else.
    for replacement in [false, true] {
        fs::remove_file(&socket).unwrap();
        if replacement {
            fs::write(&socket, "not a socket").unwrap();
        }
        until("new callers are heard again", async || {
            let mut client = host.try_instances().await.ok()?;
            client.list_instances(v1::ListInstancesRequest::default()).await.ok().map(drop)
        })
        .await;
        connected.get_info(v1::GetInfoRequest {}).await.unwrap();
    }
}

#[test]
fn a_test_gets_no_ports_of_which_somebody_else_has_one() {
    let host = Host::prepare();
    assert!(is_free(host.first_port));
    let port = host.first_port + 217;
    let addresses: [IpAddr; 3] =
        [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()];
    for address in addresses {
        match TcpListener::bind((address, port)) {
            Ok(_squatter) => assert!(!is_free(host.first_port), "{address}"),
            Err(error) => assert!(address.is_ipv6(), "{address}: {error}"),
        }
    }
    assert!(is_free(host.first_port));
}

#[tokio::test]
async fn what_it_says_is_json_where_that_is_wanted_and_less_from_a_reload_on() {
    let mut host = Host::prepare();
    let settings = host.data_dir().join("settings.yaml");
    let begun = format!("{}log_format: json\n", fs::read_to_string(&settings).unwrap());
    fs::write(&settings, &begun).unwrap();
    host.start_supervisor().await;
    let reload = async || {
        let answer = host.system().await.reload(v1::ReloadRequest {}).await.unwrap();
        let read = host.supervisor_log().lines().filter(|line| line.contains("read again")).count();
        (answer.into_inner().changes, read)
    };
    assert_eq!(reload().await, (Vec::new(), 1));
    fs::write(&settings, format!("{begun}log_level: error\n")).unwrap();
    assert_eq!(reload().await, (vec!["`log_level` was info and is error.".to_owned()], 1));
    for line in host.supervisor_log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}
