//! What a supervisor finds when it comes back, and what it makes of it: with real processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use supervisor_proto::v1::{self, InstanceStatus, Phase, Wish};
use support::{Host, at_once, builtin, is_alive, kill_9, shell, until};
use tokio::time;

/// Runs until it is told to end.
const PATIENT: &str = "exec sleep 86400";

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn run_dir(host: &Host, name: &str) -> PathBuf {
    host.data_dir().join("run").join(name)
}

async fn again(host: &Host, name: &str, before: &InstanceStatus) -> InstanceStatus {
    host.wait(name, "ready in its next life", |status| {
        status.incarnation > before.incarnation && status.phase() == Phase::Ready
    })
    .await
}

#[tokio::test]
async fn a_worker_that_does_not_answer_is_killed_with_its_gateway_and_the_instance_runs_again() {
    let mut host = Host::start().await;
    host.create("main", at_once(shell(PATIENT))).await;
    let before = host.up("main").await;
    host.kill_supervisor();
    signal(before.worker_pid, Signal::SIGSTOP);
    host.start_supervisor().await;
    let after = again(&host, "main", &before).await;
    assert!(!is_alive(before.worker_pid) && !is_alive(before.pid));
    assert_eq!(host.processes_of("main"), BTreeSet::from([after.worker_pid, after.pid]));
}

#[tokio::test]
async fn a_worker_whose_socket_was_deleted_meanwhile_is_replaced() {
    let mut host = Host::start().await;
    host.create("main", at_once(builtin())).await;
    let before = host.up("main").await;
    host.kill_supervisor();
    fs::remove_file(run_dir(&host, "main").join("worker.sock")).unwrap();
    host.start_supervisor().await;
    let after = again(&host, "main", &before).await;
    assert!(!is_alive(before.worker_pid) && !is_alive(before.pid));
    assert_eq!(host.processes_of("main"), BTreeSet::from([after.worker_pid, after.pid]));
}

#[tokio::test]
async fn a_run_directory_that_is_deleted_under_a_gateway_is_there_again_after_the_next_start() {
    let mut host = Host::start().await;
    host.create("main", at_once(builtin())).await;
    let first = host.up("main").await;
    fs::remove_dir_all(run_dir(&host, "main")).unwrap();
    kill_9(first.pid);
    let second = again(&host, "main", &first).await;
    assert_ne!(second.worker_pid, first.worker_pid, "nobody could have adopted the old worker");
    assert!(!is_alive(first.worker_pid));
    host.kill_supervisor();
    host.start_supervisor().await;
    let third = host.wait_ready("main").await;
    assert_eq!((third.pid, third.incarnation), (second.pid, second.incarnation));
}

#[tokio::test]
async fn a_worker_that_was_made_to_obey_somebody_else_is_replaced() {
    let mut host = Host::start().await;
    host.create("main", at_once(builtin())).await;
    let before = host.up("main").await;
    // Its supervisor is made to believe that it has gone; the worker only hears that somebody hung up.
    let path = run_dir(&host, "main").join("worker.sock");
    let key = fs::read(run_dir(&host, "main").join("worker.key")).unwrap();
    let usurper = std::os::unix::net::UnixStream::connect(path).unwrap();
    let mut attach = Vec::new();
    let order = supervisor_proto::worker::order::Order::Attach(supervisor_proto::worker::Attach {
        role: supervisor_proto::worker::attach::Role::Control.into(),
        epoch: 1_000,
        key,
    });
    let order = supervisor_proto::worker::Order { order: Some(order) };
    supervisor_proto::frame::encode(&order, &mut attach);
    std::io::Write::write_all(&mut &usurper, &attach).unwrap();
    let after = again(&host, "main", &before).await;
    assert!(!is_alive(before.worker_pid));
    assert_eq!(host.processes_of("main"), BTreeSet::from([after.worker_pid, after.pid]));
    host.kill_supervisor();
    host.start_supervisor().await;
    assert_eq!(host.wait_ready("main").await.pid, after.pid);
}

#[tokio::test]
async fn a_worker_whose_key_was_deleted_is_replaced_before_the_next_launch_or_by_the_next_supervisor() {
    let mut host = Host::start().await;
    host.create("main", at_once(builtin())).await;
    let first = host.up("main").await;
    let key = run_dir(&host, "main").join("worker.key");
    let (before, mode) = (fs::read(&key).unwrap(), fs::metadata(&key).unwrap().permissions().mode());
    assert_eq!((before.len(), mode & 0o777), (32, 0o600));
    fs::remove_file(&key).unwrap();
    kill_9(first.pid);
    let second = again(&host, "main", &first).await;
    assert_ne!(second.worker_pid, first.worker_pid, "nobody could have adopted the old worker");
    assert_ne!(fs::read(&key).unwrap(), before);
    // While its gateway runs nobody looks, and the next supervisor finds a worker that it cannot use.
    fs::remove_file(&key).unwrap();
    host.kill_supervisor();
    host.start_supervisor().await;
    let third = again(&host, "main", &second).await;
    assert_ne!(third.worker_pid, second.worker_pid);
    assert!(!is_alive(second.worker_pid) && !is_alive(second.pid));
    host.kill_supervisor();
    host.start_supervisor().await;
    assert_eq!(host.wait_ready("main").await.pid, third.pid);
}

#[tokio::test]
async fn a_supervisor_that_is_told_to_end_leaves_its_gateways_to_the_next() {
    let mut host = Host::start().await;
    let mut before = Vec::new();
    for name in ["main", "rescue", "spare"] {
        host.create(name, builtin()).await;
        before.push((name, host.up(name).await));
    }
    let supervisor = host.supervisor_pid();
    host.system().await.shutdown(v1::ShutdownRequest::default()).await.unwrap();
    until("the supervisor has ended", async || (!is_alive(supervisor)).then_some(())).await;
    assert!(before.iter().all(|(_, status)| is_alive(status.pid)));
    host.start_supervisor().await;
    for (name, before) in before {
        let after = host.wait_ready(name).await;
        assert_eq!((after.pid, after.worker_pid), (before.pid, before.worker_pid), "{name}");
    }
}

#[tokio::test]
async fn a_supervisor_that_ends_with_all_its_gateways_leaves_nothing_and_keeps_the_wishes() {
    let mut host = Host::start().await;
    let names: Vec<String> = (0..5).map(|n| format!("gateway-{n}")).collect();
    for name in &names {
        host.create(name, builtin()).await;
        host.up(name).await;
    }
    // One has stopped before, and one cannot run: their workers must go as well.
    host.down("gateway-0").await;
    host.create("broken", shell("exit 1")).await;
    let start = v1::StartInstanceRequest { name: "broken".into(), ..Default::default() };
    host.instances().await.start_instance(start).await.unwrap();
    host.wait("broken", "dead", |status| status.last_exit.is_some()).await;

    let supervisor = host.supervisor_pid();
    host.system().await.shutdown(v1::ShutdownRequest { stop_instances: true }).await.unwrap();
    until("the supervisor has ended", async || (!is_alive(supervisor)).then_some(())).await;
    for name in names.iter().map(String::as_str).chain(["broken"]) {
        assert_eq!(host.processes_of(name), BTreeSet::new(), "{name}");
    }
    host.start_supervisor().await;
    for name in &names[1..] {
        host.wait_ready(name).await;
    }
    assert_eq!(host.status("gateway-0").await.wish(), Wish::Down);
}

/// The same numbers for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What was asked of an instance before the supervisor was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// And answered: it must be so.
    Promised(Wish),
    /// And not answered: it may be so.
    Open,
}

/// Asks without waiting for the outcome; whether it was answered.
async fn ask(host: &Host, name: &str, wish: Wish) -> bool {
    let Ok(mut client) = host.try_instances().await else { return false };
    match wish {
        Wish::Up => {
            let request = v1::StartInstanceRequest { name: name.into(), ..Default::default() };
            client.start_instance(request).await.is_ok()
        }
        Wish::Down | Wish::Unspecified => {
            let request = v1::StopInstanceRequest { name: name.into(), ..Default::default() };
            client.stop_instance(request).await.is_ok()
        }
    }
}

#[tokio::test]
async fn a_supervisor_killed_at_any_moment_keeps_every_promise_and_runs_everything_once() {
    const ROUNDS: u64 = 20;
    let seed = u64::from(std::process::id());
    let mut chance = Chance(seed);
    let mut host = Host::start().await;
    let names: Vec<String> = (0..10).map(|n| format!("gateway-{n}")).collect();
    for name in &names {
        host.create(name, at_once(builtin())).await;
    }
    for round in 0..ROUNDS {
        let mut asked = Vec::new();
        // Some are asked and answered, so that the kill meets them starting or stopping.
        for name in &names {
            let wish = if chance.below(3) > 0 { Wish::Up } else { Wish::Down };
            assert!(ask(&host, name, wish).await, "seed {seed}, round {round}");
            asked.push(Asked::Promised(wish));
        }
        // And one is being asked while the supervisor dies.
        let last = usize::try_from(chance.below(10)).unwrap();
        let wish = if chance.below(2) == 0 { Wish::Up } else { Wish::Down };
        let moment = Duration::from_micros(chance.below(40) * chance.below(1_000));
        let supervisor = host.supervisor_pid();
        let (answered, ()) = tokio::join!(ask(&host, &names[last], wish), async {
            time::sleep(moment).await;
            kill_9(supervisor);
        });
        asked[last] = match (answered, asked[last]) {
            (true, _) => Asked::Promised(wish),
            (false, before) if before == Asked::Promised(wish) => before,
            (false, _) => Asked::Open,
        };
        host.kill_supervisor();
        host.start_supervisor().await;
        for (name, asked) in names.iter().zip(asked) {
            let story = format!("seed {seed}, round {round}, {name}: {asked:?}");
            let status = host.wait(name, &format!("settled: {story}"), |status| status.settled).await;
            if let Asked::Promised(wish) = asked {
                assert_eq!(status.wish(), wish, "{story}");
            }
            let expected = match status.wish() {
                Wish::Up => {
                    assert_eq!(status.phase(), Phase::Ready, "{story}");
                    BTreeSet::from([status.pid, status.worker_pid])
                }
                Wish::Down | Wish::Unspecified => BTreeSet::new(),
            };
            // A worker that is not needed any more may take a moment to go.
            until(&format!("{story}: only {expected:?}"), async || {
                (host.processes_of(name) == expected).then_some(())
            })
            .await;
        }
    }
}
