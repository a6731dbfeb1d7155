//! The restart handoff: how a gateway says "start me again", and how its supervisor hears it.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Gateway, Home, config};

const CONSUME: &str = "gateway restart-handoff consume --json --expected-pid";

fn supervised() -> Gateway {
    Gateway::start_in(|port| Home::new(&config(port)).supervised())
}

/// The answer of one who takes the handoff of `pid`.
fn taken(home: &Home, pid: u32) -> Value {
    let outcome = home.tool(&format!("{CONSUME} {pid}"));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.json()
}

fn missing() -> Value {
    json!({
        "ok": true, "protocol": "openclaw.gateway.restart-handoff", "protocolVersion": 1,
        "status": "none", "reason": "missing",
    })
}

#[test]
fn it_says_what_it_can_do_as_openclaw_does() {
    let outcome = Home::new("").tool("gateway restart-handoff capabilities --json");
    assert_eq!(outcome.code, Some(0));
    let capabilities = json!({
        "ok": true, "protocol": "openclaw.gateway.restart-handoff", "protocolVersion": 1,
        "operations": ["consume"],
    });
    assert_eq!(outcome.json(), capabilities);
}

#[test]
fn a_restart_asked_for_from_inside_is_an_exit_with_a_handoff_that_is_taken_once() {
    let mut gateway = supervised();
    let pid = gateway.pid();
    let outcome = gateway.home.tool("gateway restart");
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""));
    let said = format!(
        "Gateway restart request sent to externally supervised process on port {}: {pid}.\n",
        gateway.port
    );
    assert_eq!(outcome.out, said);
    assert_eq!(gateway.exit_code(), Some(0));
    let other = taken(&gateway.home, pid + 1);
    assert_eq!((&other["status"], &other["reason"]), (&json!("rejected"), &json!("pid-mismatch")));
    assert_eq!(other["handoffPid"], pid);
    let accepted = taken(&gateway.home, pid);
    assert_eq!((&accepted["ok"], &accepted["status"]), (&json!(true), &json!("accepted")));
    let handoff = &accepted["handoff"];
    for (field, value) in [
        ("kind", json!("gateway-supervisor-restart-handoff")),
        ("version", json!(1)),
        ("pid", json!(pid)),
        ("reason", json!("gateway.restart")),
        ("source", json!("operator-restart")),
        ("restartKind", json!("full-process")),
        ("supervisorMode", json!("external")),
    ] {
        assert_eq!(handoff[field], value, "{field}");
    }
    assert_eq!(
        handoff["expiresAt"].as_u64().unwrap() - handoff["createdAt"].as_u64().unwrap(),
        60_000,
        "{handoff}"
    );
    assert!(handoff["intentId"].is_string() && handoff["processInstanceId"].is_string(), "{handoff}");
    assert_eq!(taken(&gateway.home, pid), missing());
}

#[tokio::test]
async fn clients_are_told_that_it_comes_back() {
    let mut gateway = supervised();
    let mut client = gateway.client().await;
    client.hello().await;
    let target = json!({ "pid": gateway.pid() });
    let answer = client.ask("gateway.restart.request", json!({ "reason": "tired", "target": target })).await;
    assert_eq!(answer["payload"], json!({ "ok": true, "status": "emitted", "pid": gateway.pid() }));
    let shutdown = client.next().await;
    let told = json!({ "reason": "gateway restarting", "restartExpectedMs": 1500 });
    assert_eq!((&shutdown["event"], &shutdown["payload"]), (&json!("shutdown"), &told));
    assert_eq!(client.closed().await.0, 1012);
    assert_eq!(gateway.exit_code(), Some(0));
    let handoff = taken(&gateway.home, gateway.pid())["handoff"].take();
    assert_eq!((&handoff["reason"], &handoff["source"]), (&json!("tired"), &json!("unknown")));
}

#[tokio::test]
async fn a_restart_meant_for_another_process_is_refused() {
    let mut gateway = supervised();
    let mut client = gateway.client().await;
    client.hello().await;
    let target = json!({ "pid": gateway.pid() + 1 });
    let answer = client.ask("gateway.restart.request", json!({ "target": target })).await;
    assert_eq!(answer["ok"], false, "{answer}");
    assert_eq!(gateway.get("/readyz").status, 200);
    assert_eq!(gateway.exited(), None);
}

#[test]
fn the_restart_signal_leaves_a_handoff_too() {
    let mut gateway = supervised();
    gateway.signal(Signal::SIGUSR2);
    assert_eq!(gateway.exit_code(), Some(0));
    let handoff = taken(&gateway.home, gateway.pid())["handoff"].take();
    assert_eq!((&handoff["reason"], &handoff["source"]), (&json!("SIGUSR2"), &json!("signal")));
}

#[test]
fn a_stop_leaves_no_handoff() {
    let mut gateway = supervised();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(), Some(0));
    assert_eq!(taken(&gateway.home, gateway.pid()), missing());
}

#[test]
fn without_a_supervisor_a_restart_is_an_exit_without_handoff() {
    let mut gateway = Gateway::start();
    assert_eq!(gateway.home.tool("gateway restart").code, Some(0));
    assert_eq!(gateway.exit_code(), Some(0));
    assert_eq!(taken(&gateway.home, gateway.pid()), missing());
}

#[test]
fn a_restart_of_nothing_fails() {
    let mut gateway = supervised();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(), Some(0));
    let outcome = gateway.home.tool("gateway restart");
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.err.contains(&format!("failed to reach a gateway on port {}", gateway.port)),
        "{outcome:?}"
    );
}

#[test]
fn a_machines_mistake_is_answered_in_json() {
    let home = Home::new("");
    for arguments in ["gateway restart-handoff consume --json", &format!("{CONSUME} abc")] {
        let outcome = home.tool(arguments);
        let refusal = json!({
            "ok": false, "protocol": "openclaw.gateway.restart-handoff", "protocolVersion": 1,
            "status": "error", "reason": "invalid-expected-pid",
        });
        assert_eq!((outcome.code, outcome.json()), (Some(2), refusal), "{arguments}");
    }
}

#[test]
fn a_state_directory_that_is_gone_is_an_error_and_no_answer() {
    let home = Home::new("").with("OPENCLAW_STATE_DIR", "/nonexistent/state");
    let outcome = home.tool(&format!("{CONSUME} 1"));
    assert_eq!((outcome.code, &outcome.json()["reason"]), (Some(1), &json!("store-unavailable")));
}

#[test]
fn an_openclaw_without_handoffs_can_be_had() {
    let mut gateway =
        Gateway::start_in(|port| Home::new(&config(port)).supervised().misbehaving("without-handoff"));
    let outcome = gateway.home.tool("gateway restart-handoff capabilities --json");
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(1), ""));
    assert_eq!(gateway.home.tool("gateway restart").code, Some(0));
    assert_eq!(gateway.exit_code(), Some(0));
    assert_eq!(gateway.home.files("gateway-restart-handoff"), Vec::<String>::new());
}
