//! Misbehaviour on purpose: each kind is what it says, so that tests of a supervisor can build on it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Gateway, Home, PATIENCE, config, eventually, free_block};

fn live(how: &str) -> Gateway {
    Gateway::start_live(|port| Home::new(&config(port)).misbehaving(how))
}

fn failing(gateway: &Gateway) -> Value {
    gateway.get("/readyz").json()["failing"].take()
}

/// The exit code of a start that ends by itself.
fn ended(home: &Home) -> Option<i32> {
    home.command().status().unwrap().code()
}

fn home(how: &str) -> Home {
    Home::new(&config(free_block())).misbehaving(how)
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let home = home("exit=0; explode");
    assert_eq!(ended(&home), Some(1));
    assert!(
        home.err().contains("`explode` is no misbehaviour that the built-in gateway knows"),
        "{}",
        home.err()
    );
    assert_eq!(home.tool("--version").code, Some(1));
}

#[test]
fn a_slow_start_shows_its_phases_and_ends() {
    let gateway = live("starts-slowly=2s,phases=4");
    let mut seen = vec![];
    eventually("it has started", || {
        let startup = gateway.get("/startupz");
        let body = startup.json();
        if startup.status == 200 {
            return Some(());
        }
        assert_eq!((&body["ok"], &body["status"]), (&json!(false), &json!("starting")));
        let phase = body["pendingReason"].as_str().unwrap().to_owned();
        if seen.last() != Some(&phase) {
            seen.push(phase);
        }
        None
    });
    assert!(seen.is_sorted() && seen.iter().all(|phase| phase.ends_with("-of-4")), "{seen:?}");
    eventually("it is ready", || (gateway.get("/readyz").status == 200).then_some(()));
}

#[test]
fn a_start_can_be_stuck_in_a_phase() {
    let gateway = live("starts-slowly=40ms,phases=4,stuck-in=3");
    let pending = || gateway.get("/startupz").json()["pendingReason"].take();
    eventually("it is in its third phase", || (pending() == "phase-3-of-4").then_some(()));
    assert_eq!((gateway.get("/readyz").status, gateway.told()), (503, None));
}

#[test]
fn one_that_is_not_ready_says_why_and_may_become_so() {
    let never =
        Gateway::start_in(|port| Home::new(&config(port)).misbehaving("not-ready=db+channels:telegram"));
    assert_eq!((never.get("/startupz").status, never.get("/readyz").status), (200, 503));
    assert_eq!(failing(&never), json!(["db", "channels:telegram"]));
    let later = live("not-ready=db,until=1s");
    eventually("it is ready in the end", || (later.get("/readyz").status == 200).then_some(()));
    let ill = live("not-ready=db,after=100ms");
    eventually("it is ready no more", || (failing(&ill) == json!(["db"])).then_some(()));
}

#[test]
fn a_file_makes_it_unready_for_as_long_as_it_is_there() {
    let gateway = Gateway::start_in(|port| {
        let home = Home::new(&config(port));
        let how = format!("not-ready=db,while-file={}", home.path("ill").display());
        home.misbehaving(&how)
    });
    assert_eq!(failing(&gateway), json!([]));
    fs::write(gateway.home.path("ill"), "").unwrap();
    assert_eq!(failing(&gateway), json!(["db"]));
    fs::remove_file(gateway.home.path("ill")).unwrap();
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn it_exits_and_dies_as_told() {
    assert_eq!(ended(&home("exit=42")), Some(42));
    for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGABRT] {
        let status = home(&format!("die={signal}")).command().status().unwrap();
        assert_eq!(status.signal(), Some(signal as i32), "{signal}");
    }
    let mut gateway = live("exit=3,after=300ms");
    assert_eq!(gateway.exit_code(), Some(3));
}

#[test]
fn a_file_makes_a_running_one_exit() {
    let mut gateway = Gateway::start_in(|port| {
        let home = Home::new(&config(port));
        let how = format!("exit=9,while-file={}", home.path("go").display());
        home.misbehaving(&how)
    });
    fs::write(gateway.home.path("go"), "").unwrap();
    assert_eq!(gateway.exit_code(), Some(9));
}

#[test]
fn a_crash_loop_ends_after_as_many_times() {
    let gateway = loop {
        let port = free_block();
        let home = Home::new(&config(port)).misbehaving("exit=5,times=3");
        for _ in 0..3 {
            assert_eq!(ended(&home), Some(5));
        }
        if let Some(gateway) = Gateway::try_start(home, port) {
            break gateway;
        }
    };
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn a_doctor_that_mends_ends_the_faults() {
    let home = home("exit=78; doctor=mends");
    assert_eq!(ended(&home), Some(78));
    assert_eq!(home.tool("doctor --fix --yes --non-interactive").code, Some(0));
    let mut child = home.command().spawn().unwrap();
    eventually("it starts after all, or its port is taken", || {
        let text = home.out() + &home.err();
        (text.contains("ready on port") || text.contains("already in use")).then_some(())
    });
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_doctor_can_fail_and_hang() {
    let failing = home("doctor=fails").tool("doctor --fix");
    assert_eq!(failing.code, Some(1), "{failing:?}");
    let mut hanging = home("doctor=hangs").program(&["doctor", "--fix"]).spawn().unwrap();
    let stat = format!("/proc/{}/stat", hanging.id());
    eventually("it sleeps", || fs::read_to_string(&stat).unwrap().contains(") S ").then_some(()));
    assert_eq!(hanging.try_wait().unwrap(), None);
    hanging.kill().unwrap();
    hanging.wait().unwrap();
}

#[test]
fn a_tool_can_take_its_time() {
    let begun = Instant::now();
    let outcome = home("tools-take=300ms").tool("gateway restart-handoff capabilities --json");
    assert_eq!(outcome.code, Some(0));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn one_that_hangs_accepts_connections_and_answers_nothing() {
    let gateway = Gateway::start_in(|port| {
        let home = Home::new(&config(port));
        let how = format!("hang,while-file={}", home.path("hang").display());
        home.misbehaving(&how)
    });
    fs::write(gateway.home.path("hang"), "").unwrap();
    eventually("it hangs", || gateway.home.err().contains("stands still").then_some(()));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, gateway.port)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let silence = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
}

#[test]
fn sigterm_can_be_ignored_and_the_drain_last() {
    let gateway = live("ignore-sigterm");
    gateway.signal(Signal::SIGTERM);
    eventually("it says so", || gateway.home.err().contains("ignored SIGTERM").then_some(()));
    assert_eq!(gateway.get("/healthz").status, 200);
    let mut slow = Gateway::start_in(|port| Home::new(&config(port)).misbehaving("drain=1s"));
    let begun = Instant::now();
    slow.signal(Signal::SIGTERM);
    eventually("it drains", || (slow.get("/startupz").json()["status"] == "draining").then_some(()));
    assert_eq!(slow.exit_code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < PATIENCE);
}

#[test]
fn memory_grows_up_to_its_bound() {
    let gateway = live("grow=24,up-to=32");
    eventually("it holds all", || gateway.home.err().contains("holding 32 MiB").then_some(()));
    assert!(gateway.memory() >= 32 * 1024, "{}", gateway.memory());
}

#[tokio::test]
async fn a_version_can_be_pretended() {
    let gateway = Gateway::start_in(|port| Home::new(&config(port)).misbehaving("version=2027.1.1"));
    assert_eq!(gateway.get("/startupz").json()["version"], "2027.1.1");
    assert_eq!(gateway.client().await.hello().await["server"]["version"], "2027.1.1");
    assert_eq!(gateway.home.tool("--version").out, "2027.1.1\n");
}
