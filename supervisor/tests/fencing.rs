//! Two instances with one bot token never use it at the same time: with real processes, which are told by their
//! environment whether they have their channels.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{fs, path::PathBuf};

use prost_types::Duration as Span;
use supervisor_proto::v1::{self, InstanceSpec, InstanceStatus, Phase, RestartPolicy, Role};
use support::{Host, builtin, kill_9};

/// How long the channels are taken to poll for a gateway that was killed.
const EXPIRY: Span = Span { seconds: 1, nanos: 0 };

/// A gateway that stays down for a while when it dies.
fn bot() -> InstanceSpec {
    let hour = Some(Span { seconds: 3_600, nanos: 0 });
    InstanceSpec {
        restart: Some(RestartPolicy { initial_delay: hour, max_delay: hour, ..Default::default() }),
        poll_expiry: Some(EXPIRY),
        ..builtin()
    }
}

/// Starts `name` with the token in its configuration.
async fn begin(host: &Host, name: &str, spec: InstanceSpec) {
    host.create(name, spec).await;
    let status = host.up(name).await;
    host.down(name).await;
    let path: PathBuf = status.directories.unwrap().config.into();
    let text = fs::read_to_string(&path).unwrap();
    let (start, _) = text.trim_end().rsplit_once('}').unwrap();
    let channels = "channels: { telegram: { enabled: true, botToken: \"7:AAsecret\" } },\n}\n";
    let comma = if start.trim_end().ends_with([',', '{']) { "" } else { "," };
    fs::write(&path, format!("{start}{comma}{channels}")).unwrap();
    let request = v1::StartInstanceRequest { name: name.into(), ..Default::default() };
    host.instances().await.start_instance(request).await.unwrap();
}

/// Whether the gateway was started with its channels.
fn has_channels(status: &InstanceStatus) -> bool {
    let environment = fs::read(format!("/proc/{}/environ", status.pid)).unwrap();
    !environment.split(|byte| *byte == 0).any(|variable| variable == b"OPENCLAW_SKIP_CHANNELS=1")
}

async fn silent(host: &Host, name: &str) -> InstanceStatus {
    host.wait(name, "ready without its channels", |status| {
        status.phase() == Phase::Ready && status.reason.contains("without its channels")
    })
    .await
}

async fn with_channels(host: &Host, name: &str) -> InstanceStatus {
    host.wait(name, "ready with its channels", |status| {
        status.phase() == Phase::Ready && !status.reason.contains("without its channels")
    })
    .await
}

#[tokio::test]
async fn of_two_with_one_token_the_second_is_refused_by_name_until_the_first_has_stopped() {
    let host = Host::start().await;
    begin(&host, "one", bot()).await;
    assert!(has_channels(&host.wait_ready("one").await));
    begin(&host, "other", bot()).await;
    let refused =
        host.wait("other", "refused", |status| status.phase() == Phase::Failed && status.pid == 0).await;
    assert!(refused.reason.contains("a channel credential of `one`"), "{}", refused.reason);
    assert!(refused.hint.contains("openclawctl down one"), "{}", refused.hint);
    assert!(!format!("{refused:?}").contains("AAsecret"));
    host.down("one").await;
    assert!(has_channels(&host.wait_ready("other").await));
}

#[tokio::test]
async fn a_rescue_with_its_primarys_token_gets_the_channels_only_once_the_primary_is_dead() {
    let mut host = Host::start().await;
    begin(&host, "main", bot()).await;
    let main = host.wait_ready("main").await;
    let rescue = InstanceSpec { rescues: vec!["main".into()], ..bot() };
    begin(&host, "rescue", rescue).await;
    assert!(!has_channels(&silent(&host, "rescue").await));

    // What each of them has is known to the next supervisor, too.
    host.kill_supervisor();
    host.start_supervisor().await;
    assert_eq!(host.wait_ready("main").await.pid, main.pid);
    assert!(!has_channels(&silent(&host, "rescue").await));

    kill_9(main.pid);
    let active = host.wait_role("rescue", Role::Active).await;
    assert!(has_channels(&active));
    let on = host.wait_event("the channels", |event| event.r#type == "channels.on").await;
    let death = host.wait_event("the death", |event| {
        event.r#type == "instance.exited" && event.instance == "main" && event.message.contains("SIGKILL")
    });
    assert!(on.revision > death.await.revision);

    let request = v1::StartInstanceRequest { name: "main".into(), ..Default::default() };
    host.instances().await.start_instance(request).await.unwrap();
    assert!(!has_channels(&silent(&host, "main").await));
    let request = v1::FailBackRequest { primary: "main".into(), ..Default::default() };
    host.instances().await.fail_back(request).await.unwrap();
    assert!(has_channels(&with_channels(&host, "main").await));
    assert!(!has_channels(&silent(&host, "rescue").await));
    host.wait_role("main", Role::Primary).await;
}
