//! Bad configurations, repairs and restarts that a gateway asks for: with real processes and a gateway that misbehaves
//! on purpose.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{fs, path::PathBuf, process::Command};

use prost_types::Duration as Span;
use supervisor_proto::v1::{
    self, InstanceSpec, InstanceStatus, LadderPolicy, Phase, Probe, Probes, RestartPolicy, Role, TrialPolicy,
    ladder_status::Rung, probe::Check,
};
use support::{Host, builtin, program, until};

/// A configuration that no gateway could be started with.
const BROKEN: &str = "{ gateway: { mode: \"local\",\n";

/// In a configuration, this keeps a gateway from starting that was told so.
const POISON: &str = "// poison\n";

fn millis(millis: i32) -> Option<Span> {
    Some(Span { seconds: 0, nanos: millis * 1_000_000 })
}

/// A gateway whose configuration is soon good, and that misbehaves like this.
fn misbehaving(how: &str) -> InstanceSpec {
    InstanceSpec {
        env: [("BUILTIN_GATEWAY_MISBEHAVE".to_owned(), how.to_owned())].into(),
        restart: Some(RestartPolicy { initial_delay: millis(10), ..Default::default() }),
        ladder: Some(LadderPolicy { repair: Some(true), ..Default::default() }),
        trial: Some(TrialPolicy { good_after: millis(100), ..Default::default() }),
        ..builtin()
    }
}

fn well_behaved() -> InstanceSpec {
    InstanceSpec { env: Default::default(), ..misbehaving("") }
}

fn config(status: &InstanceStatus) -> PathBuf {
    status.directories.as_ref().unwrap().config.clone().into()
}

/// `main` is ready, and its configuration has proven good.
async fn proven(host: &Host, spec: InstanceSpec) -> InstanceStatus {
    host.create("main", spec).await;
    host.up("main").await;
    host.wait("main", "proven", |status| {
        let config = status.config.clone().unwrap_or_default();
        !config.good.is_empty() && config.good == config.content
    })
    .await
}

fn edit(status: &InstanceStatus, change: impl FnOnce(String) -> String) -> String {
    let path = config(status);
    let text = change(fs::read_to_string(&path).unwrap());
    fs::write(path, &text).unwrap();
    text
}

async fn restart(host: &Host, name: &str) {
    let request = v1::RestartInstanceRequest { name: name.into(), ..Default::default() };
    host.instances().await.restart_instance(request).await.unwrap();
}

async fn count(host: &Host, kind: &str) -> usize {
    host.events().await.iter().filter(|event| event.r#type == kind).count()
}

#[tokio::test]
async fn a_broken_edit_is_announced_while_the_gateway_runs_and_rolled_back_at_the_next_restart() {
    let host = Host::start().await;
    let before = proven(&host, well_behaved()).await;
    edit(&before, |_| BROKEN.into());
    let alarm = host.wait_event("the alarm", |event| event.r#type == "config.broken").await;
    assert!(alarm.message.contains("openclaw.json:"), "{}", alarm.message);
    let status = host.status("main").await;
    assert_eq!((status.phase(), status.pid), (Phase::Ready, before.pid), "the gateway is not disturbed");
    assert!(status.config.unwrap().problem.contains("JSON5"));

    restart(&host, "main").await;
    let after =
        host.wait("main", "back", |status| status.phase() == Phase::Ready && status.pid != before.pid);
    let after = after.await;
    let known = after.config.clone().unwrap();
    assert!(known.degraded && known.content == known.good, "{known:?}");
    assert!(known.rejected.unwrap().reason.contains("JSON5"));
    let beside: Vec<_> = fs::read_dir(config(&after).parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".rolled-back-"))
        .collect();
    assert_eq!(beside.len(), 2, "what was there, and why it is not any more: {beside:?}");
    assert!(beside.iter().any(|path| fs::read_to_string(path).unwrap() == BROKEN));
}

#[tokio::test]
async fn an_exit_that_blames_the_configuration_leads_to_one_repair_and_then_to_the_last_good_one() {
    let host = Host::start().await;
    let spec = misbehaving("exit=78,while-config-has=poison; doctor=fails");
    let before = proven(&host, spec).await;
    edit(&before, |text| POISON.to_owned() + &text);
    restart(&host, "main").await;
    let after = host.wait("main", "back", |status| {
        status.phase() == Phase::Ready && status.config.as_ref().is_some_and(|config| config.degraded)
    });
    let after = after.await;
    assert_eq!(after.ladder.unwrap().rung(), Rung::RollBack);
    assert!(!fs::read_to_string(config(&before)).unwrap().contains("poison"));
    assert_eq!(count(&host, "instance.repairing").await, 1);
    assert_eq!(count(&host, "config.taken_back").await, 1);
}

#[tokio::test]
async fn what_the_runtimes_own_doctor_mends_is_not_rolled_back() {
    let host = Host::start().await;
    host.create("main", misbehaving("exit=78; doctor=mends")).await;
    host.up("main").await;
    host.wait_event("it is ready", |event| event.r#type == "instance.ready").await;
    let events = host.events().await;
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| &*event.r#type)
        .filter(|kind| kind.starts_with("config.") || kind.starts_with("instance.re"))
        .collect();
    assert_eq!(kinds, ["instance.repairing", "instance.repaired", "instance.ready"]);
}

#[tokio::test]
async fn an_exit_that_blames_the_configuration_again_and_again_is_no_circle() {
    let host = Host::start().await;
    host.create("main", misbehaving("exit=78; doctor=fails")).await;
    let request = v1::StartInstanceRequest { name: "main".into(), ..Default::default() };
    host.instances().await.start_instance(request).await.unwrap();
    let status = host.wait("main", "given up", |status| status.phase() == Phase::Failed).await;
    assert!(status.next_start_time.is_none() && status.reason.contains("78"), "{status:?}");
    assert_eq!(count(&host, "instance.repairing").await, 1);
    assert_eq!(status.incarnation, 3, "two gateways and one repair");
}

#[tokio::test]
async fn a_repair_goes_on_while_the_supervisor_is_killed_and_the_next_one_waits_for_it() {
    let mut host = Host::start().await;
    host.create("main", misbehaving("exit=78,times=1; tools-take=3s")).await;
    let request = v1::StartInstanceRequest { name: "main".into(), ..Default::default() };
    host.instances().await.start_instance(request).await.unwrap();
    let repaired =
        host.wait("main", "under repair", |status| status.phase() == Phase::Repairing && status.pid != 0);
    let repair = repaired.await.pid;
    host.kill_supervisor();
    host.start_supervisor().await;
    host.wait_ready("main").await;
    let adopted = host.events().await.into_iter().find(|event| event.r#type == "instance.adopted").unwrap();
    assert!(adopted.message.contains(&repair.to_string()), "{}", adopted.message);
    assert_eq!(count(&host, "instance.repairing").await, 1);
}

#[tokio::test]
async fn a_gateway_that_wants_to_be_restarted_is_and_its_rescue_is_left_alone() {
    let host = Host::start().await;
    host.create("main", well_behaved()).await;
    let rescue = InstanceSpec { rescues: vec!["main".into()], ..well_behaved() };
    host.create("rescue", rescue).await;
    let before = host.up("main").await;
    let stand_by = host.up("rescue").await;
    let environment = fs::read(format!("/proc/{}/environ", before.pid)).unwrap();
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
        let (name, value) = std::str::from_utf8(variable).unwrap().split_once('=')?;
        (name != "OPENCLAWCTL_MARK").then_some((name, value))
    });
    let asked = Command::new(program("builtin-gateway"))
        .args(["gateway", "restart"])
        .env_clear()
        .envs(variables)
        .status();
    assert!(asked.unwrap().success());
    host.wait("main", "another", |status| status.phase() == Phase::Ready && status.pid != before.pid).await;
    host.wait_event("the handoff", |event| event.r#type == "instance.restart_wanted").await;
    let rescue = host.status("rescue").await;
    assert_eq!((rescue.pid, rescue.failover.unwrap().role()), (stand_by.pid, Role::Standby));
    assert_eq!(count(&host, "failover.began").await, 0);
}

#[tokio::test]
async fn a_gateway_that_ends_well_without_a_word_has_died_and_its_rescue_is_called() {
    let host = Host::start().await;
    let away =
        Some(RestartPolicy { initial_delay: Some(Span { seconds: 30, nanos: 0 }), ..Default::default() });
    host.create("main", InstanceSpec { restart: away, ..well_behaved() }).await;
    let rescue = InstanceSpec { rescues: vec!["main".into()], ..well_behaved() };
    host.create("rescue", rescue).await;
    let main = host.up("main").await;
    host.up("rescue").await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(main.pid), nix::sys::signal::SIGTERM).unwrap();
    host.wait_role("rescue", Role::Active).await;
}

#[tokio::test]
async fn a_start_that_advances_is_given_time_beyond_its_deadline() {
    let host = Host::start().await;
    let startup = Probe {
        check: Check::Openclaw.into(),
        interval: millis(100),
        deadline: Some(Span { seconds: 3, nanos: 0 }),
        ..Default::default()
    };
    let probes = Some(Probes { startup: Some(startup), ..Default::default() });
    let spec = InstanceSpec { probes, ..misbehaving("starts-slowly=6s,phases=12") };
    host.create("main", spec).await;
    let status = host.up("main").await;
    assert_eq!((status.phase(), status.restarts), (Phase::Ready, 0));
}

#[tokio::test]
async fn in_maintenance_nothing_is_repaired_or_rolled_back() {
    let host = Host::start().await;
    let spec = InstanceSpec { maintenance: true, ..well_behaved() };
    let before = proven(&host, spec).await;
    let text = edit(&before, |_| BROKEN.into());
    restart(&host, "main").await;
    host.wait("main", "failed", |status| status.phase() == Phase::Failed).await;
    assert_eq!(fs::read_to_string(config(&before)).unwrap(), text, "somebody works on it");

    fs::write(config(&before), "{}").unwrap();
    until("it is looked at again", async || {
        (host.status("main").await.phase() == Phase::Ready).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_answers_http_and_says_nothing_by_websocket_is_hung_for_who_asks_that() {
    let host = Host::start().await;
    let probe = |check: Check| Probe { check: check.into(), interval: millis(100), ..Default::default() };
    let liveness = Probe { timeout: millis(500), failures: 2, of: 3, ..probe(Check::Websocket) };
    let probes = Some(Probes {
        liveness: Some(liveness),
        readiness: Some(probe(Check::Openclaw)),
        ..Default::default()
    });
    let mute = host.directory.path().join("mute");
    let how = format!("mute,while-file={}", mute.display());
    host.create("main", InstanceSpec { probes, ..misbehaving(&how) }).await;
    let before = host.up("main").await;
    fs::write(&mute, "").unwrap();
    host.wait_event("it is found", |event| event.r#type == "instance.examined").await;
    fs::remove_file(&mute).unwrap();
    host.wait("main", "back", |status| status.phase() == Phase::Ready && status.pid != before.pid).await;
}

#[tokio::test]
async fn what_a_gateway_was_doing_when_it_hung_is_written_down_before_it_is_killed() {
    let host = Host::start().await;
    let watched = Probe { interval: millis(100), timeout: millis(500), ..Default::default() };
    let probes = Some(Probes { liveness: Some(watched), ..Default::default() });
    let hangs = host.directory.path().join("hang");
    // Once: another one is started before the file is gone.
    let how = format!("hang,times=1,while-file={}", hangs.display());
    host.create("main", InstanceSpec { probes, ..misbehaving(&how) }).await;
    let before = host.up("main").await;
    fs::write(&hangs, "").unwrap();
    let event = host.wait_event("the evidence", |event| event.r#type == "instance.examined").await;
    fs::remove_file(&hangs).unwrap();
    let path = event.message.split(" in ").last().unwrap();
    let evidence = fs::read_to_string(path).unwrap();
    for part in
        [format!("Process {}", before.pid), "Thread".into(), "listening".into(), "End of its log".into()]
    {
        assert!(evidence.contains(&part), "{part} is missing in:\n{evidence}");
    }
    host.wait("main", "back", |status| status.phase() == Phase::Ready && status.pid != before.pid).await;
}
