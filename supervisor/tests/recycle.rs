//! Gateways that take too much memory are started anew, when that disturbs nobody.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use prost_types::Duration as Span;
use supervisor_proto::v1::{InstanceSpec, InstanceStatus, MemoryPolicy, Phase, UpdateInstanceRequest};
use support::{Host, builtin};

/// More than a built-in gateway needs, and less than one has that grows.
const LIMIT: u64 = 96 << 20;

fn seconds(seconds: i64) -> Option<Span> {
    Some(Span { seconds, nanos: 0 })
}

/// A gateway that leaks up to 160 MiB, and is looked at every second.
fn leaky(memory: MemoryPolicy) -> InstanceSpec {
    let memory = MemoryPolicy { min_uptime: seconds(0), interval: seconds(1), ..memory };
    InstanceSpec {
        env: [("BUILTIN_GATEWAY_MISBEHAVE".to_owned(), "grow=80,up-to=160".to_owned())].into(),
        memory: Some(memory),
        ..builtin()
    }
}

fn waits(status: &InstanceStatus) -> String {
    status.resources.as_ref().map(|used| used.recycle.clone()).unwrap_or_default()
}

/// A part of the day that is not now.
fn not_now() -> String {
    let hour = i64::from(jiff::Zoned::now().hour());
    format!("{:02}:00-{:02}:00", (hour + 6) % 24, (hour + 7) % 24)
}

#[tokio::test]
async fn a_gateway_over_its_soft_limit_is_asked_to_end_in_a_quiet_moment_and_started_anew() {
    let host = Host::start().await;
    let memory = MemoryPolicy { soft_limit: LIMIT, ..Default::default() };
    host.create("main", leaky(memory)).await;
    let first = host.up("main").await;
    let told = host
        .wait_event("asked to end for its memory", |event| {
            event.message.contains("its memory (") && event.message.contains("over its soft limit of 96MiB")
        })
        .await;
    assert_eq!(told.incarnation, first.incarnation, "{told:?}");
    let second = host
        .wait("main", "ready anew", |status| {
            status.incarnation > first.incarnation && status.phase() == Phase::Ready
        })
        .await;
    assert_eq!(second.restarts, 0, "it has not died");
    let end = second.last_exit.unwrap();
    assert!(end.message.contains("status 0"), "it was asked to end: {}", end.message);
}

#[tokio::test]
async fn outside_of_its_window_it_is_left_alone_and_status_says_what_it_waits_for() {
    let host = Host::start().await;
    let window = not_now();
    let memory = MemoryPolicy { soft_limit: LIMIT, window: window.clone(), ..Default::default() };
    host.create("main", leaky(memory)).await;
    let first = host.up("main").await;
    let waiting = host.wait("main", "over its limit", |status| !waits(status).is_empty()).await;
    let why = waits(&waiting);
    assert!(why.contains("is over its soft limit, 96MiB"), "{why}");
    assert!(why.ends_with(&format!("in a quiet moment within {window}")), "{why}");

    // Over a hard limit it does not wait.
    let memory = MemoryPolicy { hard_limit: LIMIT, window, ..Default::default() };
    let spec = leaky(memory);
    let request = UpdateInstanceRequest { name: "main".into(), spec: Some(spec), ..Default::default() };
    host.instances().await.update_instance(request).await.unwrap();
    host.wait("main", "anew", |status| status.incarnation > first.incarnation).await;
}

#[tokio::test]
async fn a_gateway_that_somebody_works_on_is_left_alone() {
    let host = Host::start().await;
    let memory = MemoryPolicy { hard_limit: LIMIT, ..Default::default() };
    let spec = InstanceSpec { maintenance: true, ..leaky(memory) };
    host.create("main", spec).await;
    let first = host.up("main").await;
    let refused = host
        .wait("main", "held", |status| waits(status).ends_with("once nothing else is the matter with it"))
        .await;
    assert_eq!((refused.incarnation, refused.phase()), (first.incarnation, Phase::Ready));
}
