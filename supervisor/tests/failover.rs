//! Main dies, rescue takes over, main comes back: with real processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;

use prost_types::Duration as Span;
use supervisor_proto::v1::{
    self, InstanceSpec, Phase, RescuePolicy, RestartPolicy, Role,
    rescue_policy::{Failback, OnPrimaryDeath, Standby},
};
use support::{Host, at_once, builtin, is_alive, kill_9};

fn rescue(standby: Standby, on_primary_death: OnPrimaryDeath, failback: Failback) -> InstanceSpec {
    InstanceSpec {
        rescues: vec!["main".into()],
        rescue: Some(RescuePolicy {
            standby: standby.into(),
            on_primary_death: on_primary_death.into(),
            failback: failback.into(),
            failback_after: Some(Span { seconds: 0, nanos: 200_000_000 }),
        }),
        ..at_once(builtin())
    }
}

/// A primary that stays away long enough for its rescue to be seen.
fn slow_to_return() -> InstanceSpec {
    let delay = Some(Span { seconds: 2, nanos: 0 });
    InstanceSpec { restart: Some(RestartPolicy { initial_delay: delay, ..Default::default() }), ..builtin() }
}

#[tokio::test]
async fn a_cold_rescue_is_started_when_main_dies_and_stopped_when_main_is_back() {
    let host = Host::start().await;
    host.create("main", slow_to_return()).await;
    host.create("rescue", rescue(Standby::Cold, OnPrimaryDeath::Restart, Failback::Auto)).await;
    let main = host.up("main").await;
    let standing_by = host.up("rescue").await;
    assert_eq!((standing_by.phase(), standing_by.pid), (Phase::Stopped, 0));
    host.wait_role("rescue", Role::Standby).await;

    kill_9(main.pid);
    let active = host.wait_role("rescue", Role::Active).await;
    assert_eq!(active.phase(), Phase::Ready);
    assert_eq!(active.failover.unwrap().active_for, ["main"]);

    let back = host.wait_ready("main").await;
    assert_ne!(back.pid, main.pid);
    host.wait_role("main", Role::Primary).await;
    let resting = host.wait("rescue", "stopped", |status| status.phase() == Phase::Stopped).await;
    assert_eq!(resting.failover.unwrap().role(), Role::Standby);
    assert!(!is_alive(active.pid));
}

#[tokio::test]
async fn a_warm_rescue_is_restarted_with_the_incident_in_its_hands() {
    let host = Host::start().await;
    host.create("main", slow_to_return()).await;
    host.create("rescue", rescue(Standby::Warm, OnPrimaryDeath::Restart, Failback::Manual)).await;
    let main = host.up("main").await;
    let before = host.up("rescue").await;

    kill_9(main.pid);
    let active = host.wait_role("rescue", Role::Active).await;
    assert_ne!(active.pid, before.pid);
    let environment = fs::read(format!("/proc/{}/environ", active.pid)).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let variable =
        |name: &str| environment.split('\0').find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    assert_eq!(variable("RESCUE_PRIMARY="), "main");
    assert!(variable("RESCUE_REASON=").contains("SIGKILL"), "{environment}");
    let incident = fs::read_to_string(variable("RESCUE_INCIDENT_FILE=")).unwrap();
    assert!(incident.contains("SIGKILL") && incident.contains("main"), "{incident}");
}

#[tokio::test]
async fn a_warm_rescue_that_is_to_be_left_alone_is_active_in_the_same_life() {
    let host = Host::start().await;
    host.create("main", slow_to_return()).await;
    host.create("rescue", rescue(Standby::Warm, OnPrimaryDeath::EnsureRunning, Failback::Auto)).await;
    let main = host.up("main").await;
    let before = host.up("rescue").await;

    kill_9(main.pid);
    let active = host.wait_role("rescue", Role::Active).await;
    assert_eq!((active.pid, active.incarnation), (before.pid, before.incarnation));
    host.wait_role("main", Role::Primary).await;
    let after = host.wait_role("rescue", Role::Standby).await;
    assert_eq!(after.pid, before.pid);
}

#[tokio::test]
async fn a_manual_failback_waits_for_the_operator() {
    let host = Host::start().await;
    host.create("main", slow_to_return()).await;
    host.create("rescue", rescue(Standby::Warm, OnPrimaryDeath::EnsureRunning, Failback::Manual)).await;
    let main = host.up("main").await;
    host.up("rescue").await;

    kill_9(main.pid);
    host.wait_role("rescue", Role::Active).await;
    let early = v1::FailBackRequest { primary: "main".into(), ..Default::default() };
    let refused = host.instances().await.fail_back(early.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");

    host.wait_ready("main").await;
    assert_eq!(host.wait_role("rescue", Role::Active).await.phase(), Phase::Ready);
    host.instances().await.fail_back(early).await.unwrap();
    host.wait_role("rescue", Role::Standby).await;
    host.wait_role("main", Role::Primary).await;
}

#[tokio::test]
async fn an_operator_can_fail_over_while_all_is_well() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    host.create("rescue", rescue(Standby::Cold, OnPrimaryDeath::Restart, Failback::Auto)).await;
    host.up("main").await;
    host.up("rescue").await;
    let request = v1::FailOverRequest { primary: "main".into(), ..Default::default() };
    host.instances().await.fail_over(request).await.unwrap();
    host.wait_role("rescue", Role::Active).await;
    host.wait_role("main", Role::Rescued).await;
    assert_eq!(host.status("main").await.phase(), Phase::Ready);
}

#[tokio::test]
async fn main_hangs_and_the_rescue_takes_over() {
    let host = Host::start().await;
    let probe = v1::Probe {
        interval: Some(Span { seconds: 0, nanos: 100_000_000 }),
        timeout: Some(Span { seconds: 0, nanos: 300_000_000 }),
        failures: 2,
        ..Default::default()
    };
    let probes = v1::Probes { liveness: Some(probe), ..Default::default() };
    host.create("main", InstanceSpec { probes: Some(probes), ..slow_to_return() }).await;
    host.create("rescue", rescue(Standby::Warm, OnPrimaryDeath::EnsureRunning, Failback::Auto)).await;
    let main = host.up("main").await;
    host.up("rescue").await;

    let hung = nix::unistd::Pid::from_raw(main.pid);
    nix::sys::signal::kill(hung, nix::sys::signal::Signal::SIGSTOP).unwrap();
    host.wait_role("rescue", Role::Active).await;
    host.wait_event("main was found to hang", |event| event.r#type == "instance.hung").await;
    host.wait_ready("main").await;
    assert!(!is_alive(main.pid));
}

#[tokio::test]
async fn circles_and_rescues_of_oneself_are_refused() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    host.create("rescue", rescue(Standby::Cold, OnPrimaryDeath::Restart, Failback::Auto)).await;
    let rescued_by = |name: &str| InstanceSpec { rescues: vec![name.into()], ..builtin() };
    let request = |name: &str, spec| v1::UpdateInstanceRequest {
        name: name.into(),
        spec: Some(spec),
        ..Default::default()
    };
    let mut client = host.instances().await;
    let circle = client.update_instance(request("main", rescued_by("rescue"))).await.unwrap_err();
    assert!(circle.message().contains("main rescues rescue rescues main"), "{circle}");
    let itself = client.update_instance(request("main", rescued_by("main"))).await.unwrap_err();
    assert!(itself.message().contains("cannot rescue itself"), "{itself}");
    let unknown = client.update_instance(request("main", rescued_by("nobody"))).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::FailedPrecondition, "{unknown}");
}
