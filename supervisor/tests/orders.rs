//! Orders and their outcomes, also where something is in their way: with real processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use supervisor_proto::v1::{self, Phase, RestartPolicy};
use support::{Host, at_once, builtin, is_alive, kill_9, processes, program, shell, until};
use tempfile::TempDir;
use tokio::time;
use tonic::Code;

/// Runs until it is told to end.
const PATIENT: &str = "exec sleep 86400";

async fn start(host: &Host, name: &str) {
    let request = v1::StartInstanceRequest { name: name.into(), ..Default::default() };
    host.instances().await.start_instance(request).await.unwrap();
}

async fn delete(host: &Host, name: &str, purge: bool) {
    let request = v1::DeleteInstanceRequest { name: name.into(), purge, ..Default::default() };
    host.instances().await.delete_instance(request).await.unwrap();
    until("the instance is gone", async || {
        let request = v1::GetInstanceRequest { name: name.into() };
        let answer = host.instances().await.get_instance(request).await;
        answer.is_err_and(|refused| refused.code() == Code::NotFound).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_takes_no_orders_in_is_killed_within_bounds() {
    let host = Host::start().await;
    host.create("main", shell(PATIENT)).await;
    let running = host.up("main").await;
    kill(Pid::from_raw(running.worker_pid), Signal::SIGSTOP).unwrap();
    let request = v1::StopInstanceRequest { name: "main".into(), force: true, ..Default::default() };
    host.instances().await.stop_instance(request).await.unwrap();
    host.wait("main", "stopped", |status| status.phase() == Phase::Stopped).await;
    assert!(!is_alive(running.pid) && !is_alive(running.worker_pid));
    host.up("main").await;
}

#[tokio::test]
async fn a_worker_that_dies_while_nothing_runs_is_replaced_at_the_next_start() {
    let host = Host::start().await;
    let delay = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let restart = Some(RestartPolicy { initial_delay: delay, ..Default::default() });
    host.create("main", v1::InstanceSpec { restart, ..shell(PATIENT) }).await;
    let first = host.up("main").await;
    kill_9(first.pid);
    host.wait("main", "waiting", |status| status.phase() == Phase::Backoff).await;
    kill_9(first.worker_pid);
    let second = host
        .wait("main", "in its next life", |status| {
            status.incarnation > first.incarnation && status.phase() == Phase::Ready
        })
        .await;
    assert_ne!(second.worker_pid, first.worker_pid);
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named() {
    let host = Host::start().await;
    let spec = v1::InstanceSpec { program: "/nowhere/to/be/found".into(), ..shell("") };
    host.create("main", spec).await;
    start(&host, "main").await;
    let failed = host.wait("main", "refused", |status| status.phase() == Phase::Failed).await;
    assert!(failed.reason.contains("/nowhere/to/be/found"), "{failed:?}");
    assert_eq!(failed.pid, 0);
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_named_and_leaves_no_process() {
    let host = Host::start().await;
    let program = host.directory.path().join("no-program");
    fs::write(&program, "#!/nowhere/interpreter\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let spec = v1::InstanceSpec { program: program.to_str().unwrap().into(), ..shell("") };
    host.create("main", spec).await;
    start(&host, "main").await;
    let failed = host.wait("main", "refused", |status| status.reason.contains("no-program")).await;
    assert_eq!(failed.pid, 0);
    host.down("main").await;
    until("no process is left", async || host.processes_of("main").is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_worker_that_cannot_begin_says_why() {
    let host = Host::start().await;
    host.create("main", shell(PATIENT)).await;
    let run = host.data_dir().join("run").join("main");
    // A directory where its record of exits would be.
    fs::create_dir_all(run.join("exits")).unwrap();
    start(&host, "main").await;
    let failed = host.wait("main", "refused", |status| status.reason.contains("exits")).await;
    assert_eq!(failed.pid, 0);
    fs::remove_dir(run.join("exits")).unwrap();
    host.up("main").await;
}

/// Holds an instance's run directory, as its worker does.
fn hold(host: &Host, name: &str) -> File {
    let run = host.data_dir().join("run").join(name);
    fs::create_dir_all(&run).unwrap();
    let lock = File::create(run.join("worker.lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    lock
}

#[tokio::test]
async fn a_worker_that_nobody_knows_of_is_killed_when_its_directory_is_needed() {
    let host = Host::start().await;
    host.create("main", shell(PATIENT)).await;
    let mut unknown = Command::new("sleep")
        .arg("86400")
        .env("OPENCLAWCTL_MARK", host.mark("main"))
        .stdout(hold(&host, "main"))
        .spawn()
        .unwrap();
    let up = host.up("main").await;
    assert_eq!(unknown.wait().unwrap().signal(), Some(9));
    assert_eq!(host.processes_of("main"), BTreeSet::from([up.pid, up.worker_pid]));
}

#[tokio::test]
async fn a_run_directory_that_a_stranger_holds_is_named_until_it_is_let_go() {
    let host = Host::start().await;
    host.create("main", at_once(shell(PATIENT))).await;
    let lock = hold(&host, "main");
    start(&host, "main").await;
    let run = host.data_dir().join("run").join("main");
    host.wait("main", "refused", |status| status.reason.contains(run.to_str().unwrap())).await;
    drop(lock);
    host.up("main").await;
}

/// A supervisor whose worker is this script. Its programs lie where it looks for them: beside itself.
struct Substitute {
    directory: TempDir,
    supervisor: Child,
}

impl Substitute {
    async fn start(host: &Host, script: &str) -> Self {
        // On the file system of the programs, so that a link will do.
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let daemon = directory.path().join("openclaw-supervisor");
        fs::hard_link(program("openclaw-supervisor"), &daemon).unwrap();
        let worker = directory.path().join("gateway-worker");
        fs::write(&worker, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(daemon);
        let supervisor =
            command.arg("--data-dir").arg(host.data_dir()).stderr(Stdio::null()).spawn().unwrap();
        until("the supervisor answers", async || {
            let mut client = host.try_instances().await.ok()?;
            client.list_instances(v1::ListInstancesRequest::default()).await.ok().map(drop)
        })
        .await;
        Self { directory, supervisor }
    }

    /// Puts the real worker in its place.
    fn mend(&self) {
        let real = self.directory.path().join("real");
        fs::hard_link(program("gateway-worker"), &real).unwrap();
        fs::rename(real, self.directory.path().join("gateway-worker")).unwrap();
    }
}

impl Drop for Substitute {
    fn drop(&mut self) {
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

#[tokio::test]
async fn a_worker_that_never_answers_is_killed_before_the_launch_is_given_up() {
    let host = Host::prepare();
    let substitute = Substitute::start(&host, "setsid sleep 86400 & exec sleep 86400").await;
    let delay = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let restart = Some(RestartPolicy { initial_delay: delay, ..Default::default() });
    host.create("main", v1::InstanceSpec { restart, ..shell(PATIENT) }).await;
    start(&host, "main").await;
    until("the worker runs", async || (host.processes_of("main").len() == 2).then_some(())).await;
    host.wait("main", "given up", |status| status.phase() == Phase::Backoff).await;
    assert_eq!(host.processes_of("main"), BTreeSet::new());
    host.wait_event("why", |event| event.message.contains("did not answer")).await;
    substitute.mend();
    host.up("main").await;
}

#[tokio::test]
async fn a_worker_that_dies_at_once_leaves_nothing_and_is_tried_again() {
    let host = Host::prepare();
    let substitute = Substitute::start(&host, "setsid sleep 86400 & exit 3").await;
    host.create("main", shell(PATIENT)).await;
    start(&host, "main").await;
    host.wait_event("that it hung up", |event| event.message.contains("new worker")).await;
    substitute.mend();
    let up = host.up("main").await;
    assert_eq!(host.processes_of("main"), BTreeSet::from([up.pid, up.worker_pid]));
}

#[tokio::test]
async fn a_purged_instance_leaves_no_files_and_its_ports_to_the_next() {
    let host = Host::start().await;
    let made = host.create("main", builtin()).await;
    let base = made.status.unwrap().ports.unwrap().base;
    let up = host.up("main").await;
    let config = up.directories.unwrap().config;
    assert!(fs::exists(&config).unwrap());
    host.down("main").await;
    delete(&host, "main", true).await;
    // At once, while the old one's files may still be going.
    let next = host.create("main", builtin()).await;
    assert_eq!(next.status.unwrap().ports.unwrap().base, base);
    host.up("main").await;
    host.down("main").await;
    delete(&host, "main", true).await;
    until("no file mentions it", async || {
        let left = ["run", "instances"].map(|part| host.data_dir().join(part).join("main"));
        (!left.iter().any(|path| path.exists()) && !fs::exists(&config).unwrap()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_instance_keeps_its_files_unless_they_are_purged() {
    let host = Host::start().await;
    host.create("main", builtin()).await;
    let config = host.up("main").await.directories.unwrap().config;
    host.down("main").await;
    delete(&host, "main", false).await;
    let run = host.data_dir().join("run").join("main");
    until("its run directory is gone", async || (!run.exists()).then_some(())).await;
    assert!(fs::exists(config).unwrap());
}

#[tokio::test]
async fn a_restart_does_not_wait_for_a_disk_that_takes_nothing() {
    let host = Host::start().await;
    host.create("main", at_once(builtin())).await;
    let before = host.up("main").await;
    let disk = Connection::open(host.data_dir().join("supervisor.db")).unwrap();
    disk.busy_timeout(Duration::from_secs(60)).unwrap();
    disk.execute_batch("BEGIN IMMEDIATE").unwrap();
    kill_9(before.pid);
    let after = host
        .wait("main", "in its next life", |status| {
            status.incarnation > before.incarnation && status.phase() == Phase::Ready
        })
        .await;
    // But what is promised is durable.
    let request =
        v1::CreateInstanceRequest { name: "other".into(), spec: Some(builtin()), ..Default::default() };
    let mut client = host.instances().await;
    let mut creating = Box::pin(client.create_instance(request));
    assert!(time::timeout(Duration::from_millis(500), &mut creating).await.is_err());
    disk.execute_batch("COMMIT").unwrap();
    creating.await.unwrap();
    assert_eq!(host.status("main").await.pid, after.pid);
    host.wait_event("the exit is in the journal", |event| event.r#type == "instance.exited").await;
}

/// Children of a process: pid and state.
fn children(parent: i32) -> BTreeMap<i32, char> {
    let child = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        (fields.next()?.parse() == Ok(parent)).then_some((pid, state))
    };
    processes().filter_map(child).collect()
}

#[tokio::test]
async fn fifty_lives_leave_no_process_no_descriptor_and_no_thread_behind() {
    let host = Host::start().await;
    let supervisor = host.supervisor_pid();
    let count = |what: &str| fs::read_dir(format!("/proc/{supervisor}/{what}")).unwrap().count();
    host.create("main", shell(PATIENT)).await;
    for _ in 0..5 {
        host.up("main").await;
        host.down("main").await;
    }
    // Connections of the test's own come and go, a moment after their clients.
    let settled = async || {
        until("no call is open", async || {
            let before = count("fd");
            time::sleep(Duration::from_millis(100)).await;
            (count("fd") == before).then_some(before)
        })
        .await
    };
    let (descriptors, threads) = (settled().await, count("task"));
    for _ in 0..50 {
        host.up("main").await;
        host.down("main").await;
    }
    until("every worker is reaped", async || children(supervisor).is_empty().then_some(())).await;
    assert_eq!(host.processes_of("main").len(), 0);
    until("the descriptors are closed", async || (count("fd") <= descriptors).then_some(())).await;
    // Helpers for file work come and go.
    assert!(count("task") <= threads + 8, "{} threads after {threads}", count("task"));
}
