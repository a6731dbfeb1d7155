//! Configurations in an operator's hands, and incidents afterwards: a real daemon, real gateways and the real command
//! line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output},
};

use supervisor_proto::v1::{InstanceSpec, Phase, RescuePolicy, Role, TrialPolicy};
use support::{Host, builtin, kill_9, program, until};

/// A gateway whose configuration has soon proven good.
fn proving() -> InstanceSpec {
    let soon = prost_types::Duration { seconds: 0, nanos: 100_000_000 };
    InstanceSpec { trial: Some(TrialPolicy { good_after: Some(soon), ..Default::default() }), ..builtin() }
}

fn ctl(host: &Host, args: &[&str]) -> Output {
    let mut command = Command::new(program("openclawctl"));
    command.env("TZ", "UTC").arg("--data-dir").arg(host.data_dir()).args(args).output().unwrap()
}

/// What it prints, after a run that must have done what it was asked.
fn done(host: &Host, args: &[&str]) -> String {
    let output = ctl(host, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(host: &Host, args: &[&str]) -> serde_json::Value {
    let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
    serde_json::from_str(&done(host, &args)).unwrap()
}

fn config(host: &Host) -> PathBuf {
    host.data_dir().join("instances/main/state/openclaw.json")
}

fn held(host: &Host) -> String {
    fs::read_to_string(config(host)).unwrap()
}

/// `main` is ready, and what it was started with has proven good.
async fn proven(host: &Host) -> String {
    host.create("main", proving()).await;
    host.up("main").await;
    let status = host.wait("main", "proven", |status| {
        let config = status.config.clone().unwrap_or_default();
        !config.good.is_empty() && config.good == config.running
    });
    status.await.config.unwrap().good
}

/// Writes a configuration, and waits until the supervisor has seen it.
async fn write(host: &Host, text: &str) -> String {
    let before = host.status("main").await.config.unwrap().content;
    fs::write(config(host), text).unwrap();
    let seen = host.wait("main", "seen", |status| status.config.as_ref().unwrap().content != before).await;
    seen.config.unwrap().content
}

#[tokio::test]
async fn an_operator_goes_back_to_what_was_good_and_finds_beside_it_what_was_there() {
    let host = Host::start().await;
    let good = proven(&host).await;
    let before = host.status("main").await;
    let first = held(&host);
    let edited = format!("// an edit\n{first}");
    let second = write(&host, &edited).await;
    let table = done(&host, &["config", "snapshots", "main"]);
    assert!(table.contains("  in the file\n") && table.contains("  running, good\n"), "{table}");
    let diff = done(&host, &["config", "diff", "main"]);
    assert!(diff.contains("\n+// an edit\n"), "{diff}");

    let answer = json(&host, &["config", "rollback", "main", "--yes"]);
    assert_eq!((answer["to"].as_str(), answer["from"].as_str()), (Some(&*good), Some(&*second)));
    assert_eq!(fs::read_to_string(answer["keptIn"].as_str().unwrap()).unwrap(), edited);
    assert_eq!(held(&host), first);
    let after = host.status("main").await;
    assert!(after.phase() == Phase::Ready && after.pid != before.pid, "{after:?}");
    let known = after.config.unwrap();
    assert_eq!((known.running, known.degraded), (good, false), "an operator wanted it");

    let back = json(&host, &["config", "rollback", "main", &second[..8], "--yes"]);
    assert_eq!((back["to"].as_str(), held(&host)), (Some(&*second), edited));
}

#[tokio::test]
async fn what_is_stopped_is_rolled_back_and_stays_stopped() {
    let host = Host::start().await;
    let good = proven(&host).await;
    let first = held(&host);
    host.down("main").await;
    write(&host, "{ broken").await;
    let text = done(&host, &["config", "rollback", "main", "--yes"]);
    assert!(text.contains("\nmain  stopped"), "{text}");
    assert_eq!(held(&host), first);
    let status = host.status("main").await;
    assert_eq!((status.phase(), status.config.unwrap().content), (Phase::Stopped, good));
}

#[tokio::test]
async fn a_rollback_that_cannot_be_done_is_an_error_and_not_a_success() {
    let host = Host::start().await;
    proven(&host).await;
    host.down("main").await;
    write(&host, "{ broken").await;
    // Nothing is written through a link that somebody put there.
    let elsewhere = host.data_dir().join("elsewhere");
    let state = config(&host).parent().unwrap().to_owned();
    fs::rename(&state, &elsewhere).unwrap();
    symlink(&elsewhere, &state).unwrap();
    let output = ctl(&host, &["config", "rollback", "main", "--yes"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("`main` is not rolled back: its configuration could not be put back"), "{told}");
    assert_eq!(fs::read_to_string(elsewhere.join("openclaw.json")).unwrap(), "{ broken");
}

/// What an agent can make of its configuration that is none.
type Damage = (&'static str, fn(&PathBuf));

#[tokio::test]
async fn what_is_lost_of_a_configuration_is_announced_and_put_back_and_holds_nobody_up() {
    let host = Host::start().await;
    let good = proven(&host).await;
    host.create("rescue", InstanceSpec { rescues: vec!["main".into()], ..builtin() }).await;
    host.up("rescue").await;
    host.wait_ready("rescue").await;
    let first = held(&host);
    let damages: [Damage; 6] = [
        ("missing", |_| {}),
        ("empty", |path| fs::write(path, "\n").unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a pipe", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("a link to nowhere", |path| symlink("nowhere", path).unwrap()),
        ("too large", |path| fs::write(path, vec![b' '; 5 << 20].as_slice()).unwrap()),
    ];
    for (what, damage) in damages {
        fs::remove_file(config(&host)).unwrap();
        damage(&config(&host));
        let announced = |status: &supervisor_proto::v1::InstanceStatus| {
            !status.config.as_ref().unwrap().problem.is_empty()
        };
        host.wait("main", what, announced).await;
        let table = done(&host, &["config", "snapshots", "main"]);
        assert!(table.contains("broken: "), "{what}: {table}");
        let diff = done(&host, &["config", "diff", "main"]);
        assert!(diff.contains("\n-  \"gateway\": {\n"), "{what}: {diff}");

        let before = host.status("main").await.pid;
        kill_9(before);
        host.wait("main", what, |status| status.phase() == Phase::Ready && status.pid != before).await;
        assert_eq!(held(&host), first, "{what}");
        assert_eq!(host.status("main").await.config.unwrap().running, good, "{what}");
        host.wait_role("rescue", Role::Active).await;
        done(&host, &["failback"]);
        host.wait_role("rescue", Role::Standby).await;
    }
}

#[tokio::test]
async fn maintenance_leaves_a_broken_configuration_to_whoever_works_on_it_until_it_is_over() {
    let host = Host::start().await;
    proven(&host).await;
    let first = held(&host);
    let told = String::from_utf8(ctl(&host, &["maintenance", "on", "main"]).stderr).unwrap();
    assert_eq!(told, "main: in maintenance: not repaired, rolled back or given up\n");
    let table = done(&host, &["status"]);
    assert!(table.contains("\n  is in maintenance: it is not repaired"), "{table}");
    assert!(table.contains("hint: openclawctl maintenance off main"), "{table}");
    write(&host, "{ broken").await;
    let restarted = ctl(&host, &["restart", "main"]);
    assert_eq!(restarted.status.code(), Some(3), "{restarted:?}");
    assert_eq!(held(&host), "{ broken", "somebody works on it");
    let sheet = done(&host, &["status", "main"]);
    assert!(sheet.contains("held: somebody works on it"), "{sheet}");
    let table = done(&host, &["status"]);
    assert!(table.contains("it is in maintenance: not repaired, rolled back or given up\n"), "{table}");
    assert!(table.contains("openclawctl up main, then openclawctl maintenance off main\n"), "{table}");

    done(&host, &["maintenance", "off", "main"]);
    done(&host, &["up", "main"]);
    assert_eq!(held(&host), first);
    assert!(!done(&host, &["status"]).contains("maintenance"));
    assert_eq!(ctl(&host, &["maintenance", "on", "nobody"]).status.code(), Some(4));
}

#[tokio::test]
async fn a_question_without_a_terminal_is_a_no() {
    let host = Host::start().await;
    proven(&host).await;
    let edited = format!("// an edit\n{}", held(&host));
    write(&host, &edited).await;
    let mut command = Command::new(program("openclawctl"));
    command.arg("--data-dir").arg(host.data_dir()).args(["config", "rollback", "main"]);
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(held(&host), edited);
}

#[tokio::test]
async fn no_answer_shows_the_gateways_token() {
    let host = Host::start().await;
    proven(&host).await;
    let text = held(&host);
    let key = text.split("\"token\": \"").nth(1).unwrap();
    let token = &key[..key.find('"').unwrap()];
    write(&host, &text.replace(token, "another-token-of-32-characters-00")).await;
    let diff = done(&host, &["config", "diff", "main"]);
    assert!(diff.contains("[withheld 1]") && diff.contains("[withheld 2]"), "{diff}");
    for secret in [token, "another-token"] {
        assert!(!diff.contains(secret), "{diff}");
        assert!(!done(&host, &["config", "snapshots", "main", "-o", "json"]).contains(secret));
    }
}

#[tokio::test]
async fn an_incident_is_told_from_the_bad_edit_to_its_end() {
    let host = Host::start().await;
    let good = proven(&host).await;
    let later = prost_types::Duration { seconds: 3_600, nanos: 0 };
    let rescue = RescuePolicy { failback_after: Some(later), ..Default::default() };
    host.create("rescue", InstanceSpec { rescues: vec!["main".into()], rescue: Some(rescue), ..builtin() })
        .await;
    host.up("rescue").await;
    let token = held(&host);
    let token = token.split("\"token\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let bad = write(&host, "{ gateway: { mode: 'local',\n").await;
    let fleet = done(&host, &["status"]);
    assert!(fleet.contains("\n  its configuration would not survive the next start: "), "{fleet}");

    done(&host, &["restart", "main"]);
    host.wait_role("rescue", Role::Active).await;
    host.wait_ready("main").await;
    let incidents = json(&host, &["incidents"]);
    let open = &incidents["incidents"][0];
    assert_eq!((open["instance"].as_str(), open["outcome"].as_str()), (Some("main"), Some("OUTCOME_OPEN")));
    let number = open["number"].as_str().unwrap();
    let file = host.data_dir().join("instances/rescue/incident/incident.json");
    let file: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(file["incidents"][0]["number"].to_string(), number);
    assert_eq!(file["incidents"][0]["commands"][0]["run"], format!("openclawctl incident {number}"));

    let told = json(&host, &["incident", number]);
    let rollback = &told["rollbacks"][0];
    assert_eq!((rollback["from"].as_str(), rollback["to"].as_str()), (Some(&bad[..12]), Some(&good[..12])));
    assert!(rollback["diff"].as_str().unwrap().contains("\n+{ gateway: { mode: 'local',\n"), "{rollback}");
    assert!(!told.to_string().contains(&token), "no token is told");
    let kinds: Vec<&str> =
        told["timeline"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    let order = ["config.broken", "instance.launch_failed", "config.taken_back", "failover.began"];
    let mut rest = kinds.iter();
    assert!(order.iter().all(|kind| rest.any(|seen| seen == kind)), "{kinds:?}");

    done(&host, &["failback"]);
    until("its end is durable", async || {
        let ended = json(&host, &["incident", number])["incident"]["outcome"] == "OUTCOME_FAILED_BACK";
        ended.then_some(())
    })
    .await;
    let page = done(&host, &["incident", number]);
    assert!(page.starts_with(&format!("incident {number}  failed back after ")), "{page}");
    assert!(page.contains(&format!("\nConfiguration {} was taken back for {} at ", &bad[..12], &good[..12])));
}
