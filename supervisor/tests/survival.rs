//! What is killed, and what survives it: with real processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{fs, net::TcpListener, process::Stdio};

use supervisor_proto::v1::{self, Phase, exit::How};
use support::{Host, at_once, builtin, is_alive, kill_9, shell, until};

/// Ignores SIGTERM, and has a grandchild in a session of its own that ignores it too and holds on.
const STUBBORN: &str = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ > grandchild; while :; do sleep 1; done' &) ; while :; do sleep 1; done";

#[tokio::test]
async fn a_killed_supervisor_takes_no_gateway_down_and_the_next_one_adopts_all() {
    let mut host = Host::start().await;
    let names: Vec<String> = (0..20).map(|n| format!("gateway-{n}")).collect();
    let mut before = Vec::new();
    for name in &names {
        host.create(name, builtin()).await;
        before.push(host.up(name).await);
    }

    host.kill_supervisor();
    assert!(before.iter().all(|status| is_alive(status.pid)));
    // One of them dies while nobody looks.
    kill_9(before[7].pid);
    until("the death of gateway-7", async || (!is_alive(before[7].pid)).then_some(())).await;
    host.start_supervisor().await;

    for (n, name) in names.iter().enumerate() {
        let after = host.wait_ready(name).await;
        let same = (after.pid, after.incarnation) == (before[n].pid, before[n].incarnation);
        assert_eq!(same, n != 7, "{name}: {after:?}");
    }
    let exit = host
        .wait_event("the exit that happened meanwhile", |event| {
            event.r#type == "instance.exited" && event.instance == "gateway-7"
        })
        .await;
    assert_eq!(exit.message, "killed by SIGKILL");
    let exits = host.events().await.iter().filter(|event| event.r#type == "instance.exited").count();
    assert_eq!(exits, 1, "no other gateway ended");
}

#[tokio::test]
async fn a_stop_leaves_nothing_of_a_stubborn_gateway_behind() {
    let host = Host::start().await;
    let grace = Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 });
    host.create("stubborn", v1::InstanceSpec { stop_grace: grace, ..shell(STUBBORN) }).await;
    let running = host.up("stubborn").await;
    let grandchild = grandchild(&running).await;
    let stopped = host.down("stubborn").await;
    assert_eq!(stopped.phase(), Phase::Stopped);
    assert!(!is_alive(running.pid) && !is_alive(grandchild));
    // The worker was let go, and may take a moment.
    until("nothing of it is left", async || host.processes_of("stubborn").is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_crash_leaves_nothing_of_a_stubborn_gateway_behind() {
    let host = Host::start().await;
    host.create("stubborn", at_once(shell(STUBBORN))).await;
    let running = host.up("stubborn").await;
    let grandchild = grandchild(&running).await;
    kill_9(running.pid);
    let next = host
        .wait("stubborn", "in its next life", |status| {
            status.incarnation > running.incarnation && status.pid > 0
        })
        .await;
    assert!(!is_alive(grandchild), "the old grandchild lives beside process {}", next.pid);
}

#[tokio::test]
async fn a_killed_worker_leaves_nothing_behind_and_its_gateway_is_run_again() {
    let host = Host::start().await;
    host.create("stubborn", at_once(shell(STUBBORN))).await;
    let running = host.up("stubborn").await;
    let grandchild = grandchild(&running).await;
    kill_9(running.worker_pid);
    let next = host
        .wait("stubborn", "in its next life", |status| {
            status.incarnation > running.incarnation && status.phase() == Phase::Ready
        })
        .await;
    assert!(!is_alive(running.pid) && !is_alive(grandchild));
    assert_ne!(next.worker_pid, running.worker_pid);
}

#[tokio::test]
async fn a_killed_worker_and_supervisor_together_leave_nothing_behind() {
    let mut host = Host::start().await;
    host.create("stubborn", at_once(shell(STUBBORN))).await;
    let running = host.up("stubborn").await;
    let grandchild = grandchild(&running).await;
    host.kill_supervisor();
    kill_9(running.worker_pid);
    host.start_supervisor().await;
    host.wait("stubborn", "in its next life", |status| {
        status.incarnation > running.incarnation && status.phase() == Phase::Ready
    })
    .await;
    assert!(!is_alive(running.pid) && !is_alive(grandchild));
    host.wait_event("the exit nobody saw", |event| event.r#type == "instance.exited").await;
}

#[tokio::test]
async fn a_second_supervisor_on_the_same_directory_names_the_first() {
    let host = Host::start().await;
    let second = host.supervisor_command().stderr(Stdio::piped()).output().unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("process {}", host.supervisor_pid())), "{said}");
    assert!(said.contains(host.data_dir().to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn who_squats_on_a_port_is_named() {
    let host = Host::start().await;
    let made = host.create("main", builtin()).await;
    let base = made.status.unwrap().ports.unwrap().base;
    let squatter = TcpListener::bind(("127.0.0.1", u16::try_from(base).unwrap())).unwrap();
    let request = v1::StartInstanceRequest { name: "main".into(), ..Default::default() };
    host.instances().await.start_instance(request).await.unwrap();
    let failed = host.wait("main", "refused", |status| status.phase() == Phase::Failed).await;
    let pid = std::process::id().to_string();
    assert!(failed.reason.contains(&base.to_string()), "{}", failed.reason);
    assert!(failed.reason.contains(&pid), "{}", failed.reason);
    drop(squatter);
    host.up("main").await;
}

#[tokio::test]
async fn an_exit_status_is_reported_as_it_was() {
    let host = Host::start().await;
    let never =
        v1::RestartPolicy { condition: v1::restart_policy::Condition::Never.into(), ..Default::default() };
    host.create("brief", v1::InstanceSpec { restart: Some(never), ..shell("exit 7") }).await;
    let request = v1::StartInstanceRequest { name: "brief".into(), ..Default::default() };
    host.instances().await.start_instance(request).await.unwrap();
    let failed = host.wait("brief", "failed", |status| status.phase() == Phase::Failed).await;
    assert_eq!(failed.last_exit.unwrap().how, Some(How::Code(7)));
}

#[tokio::test]
async fn a_browser_port_outside_the_block_is_refused_with_file_and_line() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    let up = host.up("main").await;
    host.down("main").await;
    let config = up.directories.unwrap().config;
    let text = fs::read_to_string(&config).unwrap();
    let end = text.trim_end().strip_suffix('}').unwrap().trim_end();
    let outside = format!(
        "{end},\n  \"browser\": {{\n    \"profiles\": {{\n      \"work\": {{ \"cdpPort\": 18000 }}\n    }}\n  }}\n}}\n"
    );
    let line = 1 + outside.lines().position(|line| line.contains("cdpPort")).unwrap();
    fs::write(&config, outside).unwrap();
    let request = v1::StartInstanceRequest { name: "main".into(), ..Default::default() };
    host.instances().await.start_instance(request).await.unwrap();
    let failed = host.wait("main", "refused", |status| status.phase() == Phase::Failed).await;
    assert!(failed.reason.contains(&format!("{config}:{line}:")), "{}", failed.reason);
    assert!(failed.reason.contains("18000"), "{}", failed.reason);
}

#[tokio::test]
async fn a_fleet_file_with_overlapping_ports_is_refused_with_file_and_line_and_changes_nothing() {
    let host = Host::start().await;
    let base = host.first_port;
    let content =
        format!("version: 1\ninstances:\n  main:\n    port: {base}\n  other:\n    port: {}\n", base + 10);
    let request = v1::ApplyFleetRequest { content, file_name: "fleet.yaml".into(), ..Default::default() };
    let refused = host.fleet().await.apply_fleet(request).await.unwrap_err();
    let said = format!("{} {:?}", refused.message(), tonic_types::StatusExt::get_error_details(&refused));
    assert!(said.contains("fleet.yaml:6:"), "{said}");
    assert!(said.contains("main"), "{said}");
    let request = v1::ListInstancesRequest::default();
    let known = host.instances().await.list_instances(request).await.unwrap().into_inner();
    assert_eq!(known.instances.len(), 0);
}

/// The pid that the stubborn gateway's grandchild wrote into its working directory.
async fn grandchild(status: &v1::InstanceStatus) -> i32 {
    let path = fs::read_link(format!("/proc/{}/cwd", status.pid)).unwrap().join("grandchild");
    until("the grandchild", async || fs::read_to_string(&path).ok()?.trim().parse().ok()).await
}
