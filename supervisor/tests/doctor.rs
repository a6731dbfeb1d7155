//! The doctor with a real daemon, real gateways and the real command line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

use supervisor_proto::v1::{self, ExamineRequest, doctor_service_client::DoctorServiceClient};
use support::{Host, builtin, program, until};

/// A supervisor whose user's home is its own.
async fn host() -> (Host, PathBuf) {
    let mut host = Host::prepare();
    let home = host.directory.path().join("home");
    fs::create_dir(&home).unwrap();
    let of_supervisor = home.clone();
    host.spawn_supervisor(|command| {
        command.env("HOME", of_supervisor);
    });
    until("the supervisor answers", async || host.try_instances().await.ok().map(|_| ())).await;
    (host, home)
}

fn doctor(host: &Host, args: &[&str]) -> Output {
    let mut command = Command::new(program("openclawctl"));
    command.arg("--data-dir").arg(host.data_dir()).arg("doctor").args(args).output().unwrap()
}

/// What is found about an instance, by its kind. What is wrong with the machine under test is not of interest.
fn found(host: &Host, names: &[&str]) -> (Option<i32>, Vec<serde_json::Value>) {
    let args: Vec<&str> = names.iter().copied().chain(["-o", "json"]).collect();
    let output = doctor(host, &args);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code(), answer["findings"].as_array().unwrap().clone())
}

fn ids(findings: &[serde_json::Value]) -> Vec<&str> {
    findings.iter().map(|finding| finding["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_fleet_that_shares_nothing_is_well_while_it_runs() {
    let (host, _) = host().await;
    for name in ["main", "rescue"] {
        host.create(name, builtin()).await;
    }
    let before = host.up("main").await;
    let output = doctor(&host, &["main", "rescue"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), text.starts_with("all well: ")), (Some(0), true), "{text}");
    let after = host.status("main").await;
    assert_eq!((after.pid, after.restarts), (before.pid, before.restarts), "looking does not touch it");
}

#[tokio::test]
async fn what_would_break_the_next_start_is_found_while_the_gateway_still_runs() {
    let (host, home) = host().await;
    for name in ["main", "rescue"] {
        host.create(name, builtin()).await;
    }
    host.up("main").await;
    let base = host.status("rescue").await.ports.unwrap().base;
    let squatter = TcpListener::bind(("127.0.0.1", u16::try_from(base).unwrap())).unwrap();
    let config = host.data_dir().join("instances/main/state/openclaw.json");
    fs::write(&config, "{\n  gateway: { port: 1 },\n}\n").unwrap();
    let units = home.join(".config/systemd/user");
    fs::create_dir_all(&units).unwrap();
    let state = host.data_dir().join("instances/main/state").canonicalize().unwrap();
    let unit = format!("[Service]\nEnvironment=OPENCLAW_STATE_DIR={}\n", state.display());
    fs::write(units.join("openclaw-gateway.service"), unit).unwrap();

    let (code, findings) = found(&host, &["main"]);
    assert_eq!(code, Some(3));
    assert_eq!(ids(&findings), ["port.outside", "service.unit"], "{findings:#?}");
    assert_eq!((findings[0]["line"].as_u64(), findings[0]["column"].as_u64()), (Some(2), Some(20)));

    let (code, findings) = found(&host, &["rescue"]);
    assert_eq!((code, ids(&findings)), (Some(3), vec!["port.squatted"]), "{findings:#?}");
    let pid = std::process::id().to_string();
    assert!(findings[0]["what"].as_str().unwrap().contains(&pid), "{findings:#?}");
    drop(squatter);
    assert_eq!(found(&host, &["rescue"]), (Some(0), Vec::new()));
}

#[tokio::test]
async fn what_is_safe_to_mend_is_mended_and_said_line_by_line() {
    let (host, _) = host().await;
    host.create("main", builtin()).await;
    host.up("main").await;
    host.down("main").await;
    let state = host.data_dir().join("instances/main/state");
    let env = state.join(".env");
    fs::write(&env, "KEY=1\n").unwrap();
    fs::set_permissions(&env, Permissions::from_mode(0o644)).unwrap();
    let lock = state.join("session.jsonl.lock");
    fs::write(&lock, format!(r#"{{"pid":{},"createdAt":"2026-01-01T00:00:00Z"}}"#, i32::MAX)).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::open(&lock).unwrap().set_modified(long_ago).unwrap();

    let (code, findings) = found(&host, &["main"]);
    assert_eq!((code, ids(&findings)), (Some(0), vec!["file.readable", "lock.stale"]), "{findings:#?}");
    let output = doctor(&host, &["main", "--fix"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(lines[0].ends_with(".env` has mode 600 now"), "{text}");
    assert!(lines[1].starts_with("mended: removed `") && lines[1].ends_with("session.jsonl.lock`"), "{text}");
    assert!(lines[2].starts_with("all well: "), "{text}");
    assert!(!lock.exists());
    assert_eq!(fs::metadata(&env).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_fix_that_is_asked_for_again_gets_the_first_answer() {
    let (host, _) = host().await;
    host.create("main", builtin()).await;
    host.up("main").await;
    let env = host.data_dir().join("instances/main/state/.env");
    fs::write(&env, "KEY=1\n").unwrap();
    fs::set_permissions(&env, Permissions::from_mode(0o640)).unwrap();
    let mut client = DoctorServiceClient::new(host.channel().await.unwrap());
    let request = |request_id: &str| ExamineRequest {
        names: vec!["main".into()],
        fix: true,
        request_id: request_id.into(),
    };
    let first = client.examine(request("a")).await.unwrap().into_inner();
    assert_eq!((first.mended.len(), first.findings.len()), (1, 0), "{first:?}");
    assert_eq!(client.examine(request("a")).await.unwrap().into_inner(), first);
    let other = client.examine(request("b")).await.unwrap().into_inner();
    assert_eq!((other.mended.len(), other.checks_done), (0, first.checks_done));
}

#[tokio::test]
async fn a_node_that_an_agent_could_have_put_there_is_run_behind_its_walls() {
    let (host, home) = host().await;
    let state = home.join(".openclaw-lab");
    fs::create_dir_all(state.join("bin")).unwrap();
    fs::write(state.join("package.json"), r#"{"engines":{"node":">=22.12.0"}}"#).unwrap();
    let (inside, outside) = (state.join("ran"), home.join("ran"));
    let node = state.join("bin/node");
    let openclaw = state.join("bin/openclaw");
    let script = |path: &PathBuf, text: String| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    };
    script(
        &node,
        format!("#!/bin/sh\necho >{}\necho >{}\necho v1.0.0\n", inside.display(), outside.display()),
    );
    script(&openclaw, format!("#!/bin/sh\nexec {} {}/openclaw.mjs\n", node.display(), state.display()));
    let spec = v1::InstanceSpec {
        runtime: v1::Runtime::Openclaw.into(),
        program: openclaw.display().to_string(),
        profile: Some(v1::Profile { state_dir: state.display().to_string(), ..Default::default() }),
        ..Default::default()
    };
    host.create("lab", spec).await;
    let (_, findings) = found(&host, &["lab"]);
    assert!(ids(&findings).contains(&"runtime.node"), "{findings:?}");
    assert!(inside.exists() && !outside.exists(), "it was run outside");
}

#[tokio::test]
async fn an_unknown_instance_is_refused() {
    let (host, _) = host().await;
    let output = doctor(&host, &["nobody"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}
