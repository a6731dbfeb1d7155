//! Run by hand: what a probe costs, and the real OpenClaw.

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Probes per measurement.
const PROBES: u32 = 5_000;

/// Processor time of this thread, in microseconds.
fn spent() -> u64 {
    let figures = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    figures.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000
}

/// `PROBED_PORT=18789 cargo test --release -p openclaw-supervisor -- --ignored --nocapture what_a_probe_costs`,
/// with a gateway of another process on that port.
#[tokio::test]
#[ignore = "measures; needs a gateway and PROBED_PORT"]
async fn what_a_probe_costs() {
    let port = env::var("PROBED_PORT").unwrap().parse().unwrap();
    let questions = [
        ("tcp", spec::Target::Tcp { port }),
        ("http", spec::Target::Http { port, path: "/healthz".into() }),
        ("openclaw", spec::Target::Openclaw { port }),
    ];
    for (name, asked) in questions {
        let target = target(Some(asked));
        let before = spent();
        for _ in 0..PROBES {
            assert_well(&probe(&target, Watch).await);
        }
        let cost = (spent() - before) / u64::from(PROBES);
        writeln!(std::io::stderr(), "{name}: {cost} us of processor time a probe").unwrap();
    }
}

/// `OPENCLAW_PROGRAM=…/bin/openclaw cargo test -p openclaw-supervisor -- --ignored --nocapture real_openclaw`
#[tokio::test]
#[ignore = "needs an installed OpenClaw and OPENCLAW_PROGRAM"]
async fn the_real_openclaw_is_followed_from_its_start_to_its_end() {
    let program = env::var("OPENCLAW_PROGRAM").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut gateway = start(&program, directory.path(), port);
    let target = Target {
        secret: secret(&directory.path().join("openclaw.json")),
        ..target(Some(spec::Target::Openclaw { port }))
    };
    let begin = std::time::Instant::now();
    let say = |what: &str, report: &Report| {
        let at = begin.elapsed().as_secs_f64();
        writeln!(std::io::stderr(), "{at:6.2} s {what}: {report:?} by {:?}", target.dialect.get()).unwrap();
    };
    let mut last = None;
    loop {
        let report = probe(&target, Startup).await;
        if last.as_ref() != Some(&report) {
            say("startup", &report);
        }
        if report.ready == Verdict::Pass {
            break;
        }
        assert!(begin.elapsed() < PATIENT * 3, "it does not start");
        last = Some(report);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..3 {
        let before = std::time::Instant::now();
        let report = probe(&target, Watch).await;
        say(&format!("watch in {:?}", before.elapsed()), &report);
        assert_well(&report);
    }
    let fresh = |secret| Target { secret, dialect: Rc::default(), ..target.clone() };
    say("websocket", &super::super::openclaw::by_websocket(port, &fresh(target.secret.clone())).await);
    say("websocket without token", &super::super::openclaw::by_websocket(port, &fresh(None)).await);
    let pid = Pid::from_child(&gateway);
    kill_process(pid, Signal::STOP).unwrap();
    let hung = Target { watch_timeout: Duration::from_secs(2), ..target.clone() };
    say("stopped", &probe(&hung, Watch).await);
    kill_process(pid, Signal::CONT).unwrap();
    say("continued", &probe(&target, Watch).await);
    kill_process(pid, Signal::TERM).unwrap();
    let status = gateway.wait().unwrap();
    say(&format!("ended with {status}"), &probe(&target, Watch).await);
    let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
    let output = fs::read_to_string(directory.path().join("output")).unwrap_or_default();
    for line in log.lines().chain(output.lines()).filter(|line| line.to_lowercase().contains("ws")) {
        writeln!(std::io::stderr(), "log: {line}").unwrap();
    }
}

fn start(program: &str, directory: &Path, port: u16) -> std::process::Child {
    let path = |name: &str| directory.join(name);
    let config = json!({
        "gateway": {
            "mode": "local",
            "port": port,
            "bind": "loopback",
            "auth": { "mode": "token", "token": "a-token-for-a-test" },
        },
        "logging": { "file": path("log") },
    });
    fs::write(path("openclaw.json"), config.to_string()).unwrap();
    let output = fs::File::create(path("output")).unwrap();
    Command::new(program)
        .args(["gateway", "run"])
        .env_clear()
        .env("PATH", Path::new(program).parent().unwrap())
        .envs([("HOME", directory), ("TMPDIR", directory), ("OPENCLAW_STATE_DIR", directory)])
        .env("OPENCLAW_CONFIG_PATH", path("openclaw.json"))
        .envs([("OPENCLAW_NO_RESPAWN", "1"), ("OPENCLAW_SUPERVISOR_MODE", "external")])
        .envs([("OPENCLAW_SERVICE_REPAIR_POLICY", "external"), ("OPENCLAW_NO_AUTO_UPDATE", "1")])
        .env("OPENCLAW_DISABLE_BONJOUR", "1")
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap()
}
