//! An instance that takes all that there is, on a host without control groups: what stands in for them holds it, or at
//! least ends it, and neither its neighbour nor the supervisor notices. With groups: `cgroup.rs`.
//!
//! Each attack is bounded by itself, too, so that a test that fails costs nobody else anything.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use prost_types::Duration as Span;
use supervisor_proto::v1::{InstanceSpec, InstanceStatus, LimitPolicy, MemoryPolicy, Phase};
use support::{Host, at_once, builtin, is_alive, kill_9, processes, shell, until};

/// Never killed by a test: it takes nothing, and nobody asks it for anything.
const NEIGHBOUR: &str = "neighbour";

/// The most processes that a fork bomb makes, whatever holds it.
const BOMB: u64 = 300;

/// Processes that an instance may have beside those that its user has anyway.
const ALLOWED: u64 = 64;

/// A user that no host has, and no other test.
const NOBODY_ELSE: u32 = 54_322;

/// A supervisor with an instance that is not to notice anything.
async fn with_neighbour() -> (Host, InstanceStatus) {
    let host = Host::start().await;
    host.create(NEIGHBOUR, builtin()).await;
    let neighbour = host.up(NEIGHBOUR).await;
    (host, neighbour)
}

/// Neither the neighbour nor the supervisor has been disturbed, and another instance can be started.
async fn is_undisturbed(host: &mut Host, before: &InstanceStatus) {
    assert!(!host.supervisor_has_ended());
    let now = host.status(NEIGHBOUR).await;
    assert_eq!((now.pid, now.incarnation, now.phase()), (before.pid, before.incarnation, Phase::Ready));
    host.create("late", builtin()).await;
    assert_eq!(host.up("late").await.phase(), Phase::Ready);
}

fn home(host: &Host, name: &str) -> PathBuf {
    host.data_dir().join("instances").join(name).join("home")
}

/// Threads of this user, as setrlimit(2) counts them.
fn threads_of_mine() -> u64 {
    let mine =
        |pid: &i32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|found| found.uid() == geteuid().as_raw());
    let threads =
        |pid: i32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count() as u64);
    processes().filter(mine).map(threads).sum()
}

#[tokio::test]
async fn an_instance_that_fills_the_process_table_is_stopped_by_the_limit_of_its_user() {
    let (mut host, before) = with_neighbour().await;
    let bomb = format!(
        "(i=0; while [ $i -lt {BOMB} ]; do sleep 1000 & i=$((i+1)); echo $i > forked; done); echo > done; exec sleep 1000"
    );
    // The kernel counts no process of root's.
    let root = geteuid().is_root();
    let (user, taken) = if root { (NOBODY_ELSE.to_string(), 0) } else { (String::new(), threads_of_mine()) };
    let limits = LimitPolicy { processes: taken + ALLOWED, ..Default::default() };
    let spec = InstanceSpec { user, limits: Some(limits), ..shell(&bomb) };
    fs::set_permissions(host.directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    host.create("lab", spec).await;
    host.up("lab").await;
    let home = home(&host, "lab");
    until("the bomb has gone off", async || home.join("done").exists().then_some(())).await;
    let forked: u64 = fs::read_to_string(home.join("forked")).unwrap().trim().parse().unwrap();
    assert!(forked < BOMB, "{forked} processes were made");
    assert!(!root || forked < ALLOWED, "{forked} processes were made of {ALLOWED} that it may have");
    is_undisturbed(&mut host, &before).await;
    host.down("lab").await;
    until("nothing of it is left", async || host.processes_of("lab").is_empty().then_some(())).await;
}

/// Ten chains, each of which forks its next link by `fork` and ends, and 200 processes that just stay.
fn chains(fork: &str) -> String {
    format!(
        "echo 'echo >> links; {fork} sh chain & exit 0' > chain; \
         for i in $(seq 10); do sh chain & done; for i in $(seq 200); do setsid sleep 1000 & done; exec sleep 1000"
    )
}

/// How far the chains have come.
fn links(home: &Path) -> usize {
    fs::read_to_string(home.join("links")).unwrap_or_default().len()
}

/// What is alive of an instance, by where it is: it may have left its environment behind.
fn alive_in(home: &Path) -> Vec<i32> {
    let here = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == home);
    processes().filter(|pid| here(pid) && is_alive(*pid)).collect()
}

#[tokio::test]
async fn an_instance_that_forks_without_end_and_hides_is_ended_by_its_stop() {
    let (mut host, before) = with_neighbour().await;
    // A link has neither its session nor its environment from the one before, which is gone.
    host.create("lab", shell(&chains("env -i PATH=$PATH setsid"))).await;
    host.up("lab").await;
    let home = home(&host, "lab");
    until("the chains are long", async || (links(&home) > 50 && alive_in(&home).len() > 200).then_some(()))
        .await;
    host.down("lab").await;
    let last = links(&home);
    assert_eq!(alive_in(&home), []);
    is_undisturbed(&mut host, &before).await;
    assert_eq!(links(&home), last, "a chain goes on");
}

#[tokio::test]
async fn an_instance_that_forks_without_end_is_ended_though_its_worker_is_dead() {
    let (mut host, before) = with_neighbour().await;
    let once = format!("[ -e went-off ] && exec sleep 1000; echo > went-off; {}", chains("setsid"));
    host.create("lab", at_once(shell(&once))).await;
    let first = host.up("lab").await;
    let home = home(&host, "lab");
    until("the chains are long", async || (links(&home) > 50 && alive_in(&home).len() > 200).then_some(()))
        .await;
    // Nobody is left who is told of each orphan: the supervisor has to find them all.
    kill_9(first.worker_pid);
    let second = host
        .wait("lab", "started anew", |now| now.phase() == Phase::Ready && now.incarnation > first.incarnation)
        .await;
    let last = links(&home);
    assert_eq!(alive_in(&home), [second.pid]);
    is_undisturbed(&mut host, &before).await;
    assert_eq!(links(&home), last, "a chain goes on");
}

#[tokio::test]
async fn an_instance_that_eats_memory_is_started_anew_for_it_by_name() {
    let (mut host, before) = with_neighbour().await;
    let seconds = |seconds| Some(Span { seconds, nanos: 0 });
    let memory = MemoryPolicy {
        hard_limit: 64 << 20,
        min_uptime: seconds(0),
        interval: seconds(1),
        ..Default::default()
    };
    // A tool takes 160 MiB and keeps them, once.
    let script = "[ -e eaten ] && exec sleep 1000; echo > eaten; \
                  (head -c 160M /dev/zero; sleep 1000) | tail -c 300M > /dev/null & exec sleep 1000";
    host.create("lab", InstanceSpec { memory: Some(memory), ..at_once(shell(script)) }).await;
    let first = host.up("lab").await;
    let told =
        host.wait_event("it is told", |event| event.message.contains("over its hard limit of 64MiB")).await;
    assert_eq!(told.instance, "lab");
    host.wait("lab", "started anew", |now| {
        now.phase() == Phase::Ready && now.incarnation > first.incarnation
    })
    .await;
    is_undisturbed(&mut host, &before).await;
    let eaters = host.processes_of("lab").into_iter().filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("300M"))
    });
    assert_eq!(eaters.count(), 0, "the eater went with the life that had started it");
}
