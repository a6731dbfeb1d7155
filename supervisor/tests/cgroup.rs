//! Instances in control groups of the kernel that runs this.
//!
//! A ground is made as a service manager would make it, and the supervisor is started in its seat. Groups that can be
//! killed whole take cgroup v2 and the right to write there; limits take controllers, which a host may have given to
//! cgroup v1. Where something is missing, a test says so and tries nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use supervisor_proto::v1::{
    DeleteInstanceRequest, InstanceSpec, InstanceStatus, LimitPolicy, MemoryPolicy, Phase, WallStatus,
    system_service_client::SystemServiceClient,
    wall_status::{Kind, State},
};
use support::{Host, PATIENCE, at_once, builtin, is_alive, kill_9, processes, program, shell, until};

/// Never killed by a test: it takes nothing, and nobody asks it for anything.
const NEIGHBOUR: &str = "neighbour";

/// The most processes that a fork bomb makes, whatever holds it.
const BOMB: u32 = 300;

/// A group that is given to a supervisor.
struct Ground(PathBuf);

impl Ground {
    /// None, and why, where no group can be made.
    fn make() -> Option<Self> {
        let made = Self::try_make();
        if made.is_none() {
            eprintln!("nothing is tried here: this user can make no cgroup");
        }
        made
    }

    fn try_make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let at = fields.next()?;
            (fields.next() == Some("cgroup2")).then(|| PathBuf::from(at))
        })?;
        // A name that no test has at the same time, in this process or in another.
        let ground = tempfile::Builder::new().prefix("openclaw-supervisor-test-").tempdir_in(root).ok()?;
        let ground = Self(ground.keep());
        fs::create_dir(ground.0.join("supervisor")).ok().map(|()| ground)
    }

    /// Whether these controllers can be applied in it; says so if not.
    fn offers(&self, controllers: &[&str]) -> bool {
        let offered = fs::read_to_string(self.0.join("cgroup.controllers")).unwrap();
        let all = controllers.iter().all(|one| offered.split_whitespace().any(|other| other == *one));
        if !all {
            eprintln!("nothing is tried here: of {controllers:?} this host offers `{}`", offered.trim());
        }
        all
    }

    /// A supervisor that is started in its seat.
    async fn start(&self, host: &mut Host) {
        let seat = self.0.join("supervisor/cgroup.procs");
        host.spawn_supervisor(|command| {
            let mut seated = Command::new("/bin/sh");
            seated.arg("-c").arg("echo 0 > \"$0\" && exec \"$@\"").arg(seat);
            seated.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
            *command = seated;
        });
        until("the supervisor answers", async || {
            let mut client = SystemServiceClient::new(host.channel().await.ok()?);
            client.get_info(supervisor_proto::v1::GetInfoRequest {}).await.ok().map(|_| ())
        })
        .await;
    }

    /// The group of an instance.
    fn group(&self, name: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let prefix = format!("gateway-{name}-");
        let mut groups = entries.filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix))
        });
        groups.next()
    }
}

impl Drop for Ground {
    /// Nothing may be left, not even of a test that failed.
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let below = fs::read_dir(&self.0).into_iter().flatten().flatten();
            below.filter(|entry| entry.path().is_dir()).for_each(|entry| {
                let _ = fs::remove_dir(entry.path());
            });
            if fs::remove_dir(&self.0).is_ok() || Instant::now() > deadline {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// A process that no instance has started, in the group of one.
struct Stranger(Child);

impl Stranger {
    fn in_group(group: &Path) -> Self {
        let child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self(child)
    }

    async fn dies(&mut self) {
        until("what was put into the group dies", async || self.0.try_wait().unwrap()).await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The group of a process.
fn group_of(pid: i32) -> String {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

fn wall(status: &InstanceStatus) -> &WallStatus {
    let found = status.walls.iter().find(|wall| wall.kind() == Kind::Cgroup);
    found.unwrap_or_else(|| panic!("no group: {:?}", status.walls))
}

/// A spec with limits that only a group can keep.
fn limited(spec: InstanceSpec) -> InstanceSpec {
    let memory = MemoryPolicy { hard_limit: 96 << 20, ..Default::default() };
    let limits = LimitPolicy { processes: 100, cpu_permille: 900, ..Default::default() };
    InstanceSpec { memory: Some(memory), limits: Some(limits), ..spec }
}

/// Neither a neighbour nor the supervisor has been disturbed.
async fn is_undisturbed(host: &Host, before: &InstanceStatus, supervisor: i32) {
    let now = host.status(NEIGHBOUR).await;
    assert_eq!((now.pid, now.incarnation, now.phase()), (before.pid, before.incarnation, Phase::Ready));
    assert_eq!(host.supervisor_pid(), supervisor);
    assert!(is_alive(supervisor) && is_alive(before.pid));
}

#[tokio::test]
async fn a_gateway_has_a_group_of_its_own_and_what_is_to_outlive_it_has_another() {
    let Some(ground) = Ground::make() else { return };
    let mut host = Host::prepare();
    ground.start(&mut host).await;
    for name in ["main", NEIGHBOUR] {
        host.create(name, limited(builtin())).await;
    }
    let (main, other) = (host.up("main").await, host.up(NEIGHBOUR).await);
    assert!(group_of(main.pid).contains("/gateway-main-"), "{}", group_of(main.pid));
    assert_ne!(group_of(main.pid), group_of(other.pid));
    for pid in [main.worker_pid, other.worker_pid, host.supervisor_pid()] {
        assert!(group_of(pid).ends_with("/supervisor"), "{}", group_of(pid));
    }
    let offered = fs::read_to_string(ground.0.join("cgroup.controllers")).unwrap();
    let lacks = |controller| !offered.split_whitespace().any(|one| one == controller);
    let told = wall(&main);
    for (controller, what) in [
        ("memory", "`memory.hard_limit` is only looked at every 30s"),
        ("cpu", "`limits.cpu_permille` is not kept"),
    ] {
        assert_eq!(told.reason.contains(what), lacks(controller), "{controller}: {told:?}");
    }
    let none = !["memory", "cpu", "pids"].into_iter().any(lacks);
    let files = main.walls.iter().any(|wall| wall.kind() == Kind::Files && wall.state() == State::Enforced);
    assert_eq!(told.state() == State::Enforced, none && files, "{told:?}");
}

#[tokio::test]
async fn what_a_person_runs_in_an_instance_joins_its_group() {
    let Some(ground) = Ground::make() else { return };
    let mut host = Host::prepare();
    ground.start(&mut host).await;
    host.create("main", builtin()).await;
    host.up("main").await;
    let mut run = Command::new(program("openclawctl"));
    run.arg("--data-dir").arg(host.data_dir()).args(["run", "main", "--", "cat", "/proc/self/cgroup"]);
    let ran = run.output().unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && told.contains("/gateway-main-"), "{ran:?}");
}

#[tokio::test]
async fn a_supervisor_that_was_given_no_group_says_what_is_not_kept_and_makes_none() {
    // This one is started where the test is.
    let host = Host::start().await;
    host.create("main", limited(builtin())).await;
    host.create("modest", builtin()).await;
    let (main, modest) = (host.up("main").await, host.up("modest").await);
    if let Some(group) =
        main.walls.iter().find(|wall| wall.kind() == Kind::Cgroup && wall.state() != State::Unavailable)
    {
        eprintln!("nothing is tried here: this test was given a group: {group:?}");
        return;
    }
    assert!(wall(&main).reason.contains("`limits.cpu_permille` is not kept"), "{:?}", wall(&main));
    assert_eq!(group_of(main.pid), group_of(host.supervisor_pid()));
    assert!(
        modest.walls.iter().all(|wall| wall.kind() != Kind::Cgroup),
        "nothing was asked for: {:?}",
        modest.walls
    );
}

#[tokio::test]
async fn whatever_is_in_the_group_of_an_instance_dies_with_it_and_nothing_else_does() {
    let Some(ground) = Ground::make() else { return };
    let mut host = Host::prepare();
    ground.start(&mut host).await;
    for name in ["main", NEIGHBOUR] {
        host.create(name, builtin()).await;
        host.up(name).await;
    }
    let (before, supervisor) = (host.status(NEIGHBOUR).await, host.supervisor_pid());
    let group = ground.group("main").unwrap();
    // Neither its descent nor its environment tells whose it is.
    let mut stranger = Stranger::in_group(&group);
    host.down("main").await;
    stranger.dies().await;
    // The same when nobody is left but the supervisor.
    let status = host.up("main").await;
    let mut stranger = Stranger::in_group(&group);
    kill_9(status.worker_pid);
    stranger.dies().await;
    host.wait("main", "started anew", |now| now.phase() == Phase::Ready && now.pid != status.pid).await;
    is_undisturbed(&host, &before, supervisor).await;
}

#[tokio::test]
async fn the_next_supervisor_finds_the_groups_of_the_one_that_was_killed_and_removes_those_of_the_deleted() {
    let Some(ground) = Ground::make() else { return };
    let mut host = Host::prepare();
    ground.start(&mut host).await;
    for name in ["main", NEIGHBOUR] {
        host.create(name, limited(builtin())).await;
    }
    let before = host.up("main").await;
    host.up(NEIGHBOUR).await;
    host.kill_supervisor();
    // A group that the killed one had no time to remove.
    let stale = PathBuf::from(ground.group("main").unwrap().to_str().unwrap().replace("-main-", "-gone-"));
    fs::create_dir(&stale).unwrap();
    ground.start(&mut host).await;
    let after = host.wait("main", "adopted", |status| status.phase() == Phase::Ready).await;
    assert_eq!((after.pid, &after.walls), (before.pid, &before.walls));
    assert!(!stale.exists());
    host.down("main").await;
    let request = DeleteInstanceRequest { name: "main".into(), ..Default::default() };
    host.instances().await.delete_instance(request).await.unwrap();
    until("its group is removed", async || ground.group("main").is_none().then_some(())).await;
    assert!(ground.group(NEIGHBOUR).is_some());
    assert_eq!(host.status(NEIGHBOUR).await.phase(), Phase::Ready);
}

#[tokio::test]
async fn an_instance_that_forks_away_from_its_mark_is_ended_by_its_group_though_its_worker_is_dead() {
    let Some(ground) = Ground::make() else { return };
    let mut host = Host::prepare();
    ground.start(&mut host).await;
    host.create(NEIGHBOUR, builtin()).await;
    let (before, supervisor) = (host.up(NEIGHBOUR).await, host.supervisor_pid());
    // Each link forks the next and ends. With parent, session and environment gone, nothing tells whose it is: without
    // groups, this one gets away.
    let script = "[ -e links ] && exec sleep 1000; \
                  echo 'echo >> links; env -i PATH=$PATH setsid sh chain & exit 0' > chain; \
                  for i in $(seq 10); do sh chain & done; exec sleep 1000";
    host.create("lab", at_once(shell(script))).await;
    let first = host.up("lab").await;
    let home = host.data_dir().join("instances/lab/home");
    let links = || fs::read_to_string(home.join("links")).unwrap_or_default().len();
    until("the chains are long", async || (links() > 50).then_some(())).await;
    kill_9(first.worker_pid);
    let second = host
        .wait("lab", "started anew", |now| now.phase() == Phase::Ready && now.incarnation > first.incarnation)
        .await;
    let last = links();
    let here = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == home);
    let alive: Vec<i32> = processes().filter(|pid| here(pid) && is_alive(*pid)).collect();
    assert_eq!(alive, [second.pid]);
    is_undisturbed(&host, &before, supervisor).await;
    assert_eq!(links(), last, "a chain goes on");
}

#[tokio::test]
async fn an_instance_that_eats_memory_is_killed_by_its_group_and_named_out_of_memory() {
    let Some(ground) = Ground::make().filter(|ground| ground.offers(&["memory"])) else { return };
    let mut host = Host::prepare();
    ground.start(&mut host).await;
    host.create(NEIGHBOUR, builtin()).await;
    let (before, supervisor) = (host.up(NEIGHBOUR).await, host.supervisor_pid());
    // The first life becomes a process that takes 200 MiB.
    let script = "[ -e eaten ] && exec sleep 1000; echo > eaten; mkfifo food; \
                  (head -c 200M /dev/zero; sleep 1000) > food & exec tail -c 300M food";
    host.create("lab", limited(shell(script))).await;
    let start = supervisor_proto::v1::StartInstanceRequest { name: "lab".into(), ..Default::default() };
    host.instances().await.start_instance(start).await.unwrap();
    let status = host
        .wait("lab", "killed for its memory and started anew", |status| {
            status.phase() == Phase::Ready && status.last_exit.is_some()
        })
        .await;
    let exit = status.last_exit.unwrap();
    assert!(exit.out_of_memory, "{exit:?}");
    assert!(exit.message.starts_with("killed by SIGKILL, out of memory"), "{}", exit.message);
    host.wait_event("it is told", |event| event.message.contains("out of memory")).await;
    is_undisturbed(&host, &before, supervisor).await;
}

#[tokio::test]
async fn a_tool_that_eats_memory_is_killed_and_its_gateway_is_not() {
    let Some(ground) = Ground::make().filter(|ground| ground.offers(&["memory"])) else { return };
    let mut host = Host::prepare();
    ground.start(&mut host).await;
    let script = "head -c 200M /dev/zero | tail -c 300M > /dev/null; echo $? > eaten; exec sleep 1000";
    host.create("lab", limited(shell(script))).await;
    let before = host.up("lab").await;
    let eaten = host.data_dir().join("instances/lab/home/eaten");
    until("the tool is killed", async || fs::read_to_string(&eaten).ok().filter(|text| text == "137\n"))
        .await;
    let after = host.status("lab").await;
    assert_eq!((after.pid, after.phase()), (before.pid, Phase::Ready));
}

#[tokio::test]
async fn an_instance_that_fills_the_process_table_fills_its_own_group() {
    let Some(ground) = Ground::make().filter(|ground| ground.offers(&["pids"])) else { return };
    let mut host = Host::prepare();
    ground.start(&mut host).await;
    host.create(NEIGHBOUR, builtin()).await;
    let (before, supervisor) = (host.up(NEIGHBOUR).await, host.supervisor_pid());
    let bomb = format!(
        "(i=0; while [ $i -lt {BOMB} ]; do sleep 1000 & i=$((i+1)); echo $i > forked; done); echo > done; exec sleep 1000"
    );
    host.create("lab", limited(shell(&bomb))).await;
    host.up("lab").await;
    let home = host.data_dir().join("instances/lab/home");
    until("the bomb has gone off", async || home.join("done").exists().then_some(())).await;
    let forked: u32 = fs::read_to_string(home.join("forked")).unwrap().trim().parse().unwrap();
    assert!(forked < 100, "{forked} processes were made of 100 that it may have");
    is_undisturbed(&host, &before, supervisor).await;
    host.down("lab").await;
    assert!(host.processes_of("lab").iter().all(|pid| group_of(*pid).ends_with("/supervisor")));
}

#[tokio::test]
async fn an_instance_that_burns_processors_gets_no_more_than_its_share() {
    let Some(ground) = Ground::make().filter(|ground| ground.offers(&["cpu"])) else { return };
    let mut host = Host::prepare();
    ground.start(&mut host).await;
    host.create("lab", limited(shell("for i in 1 2 3; do while :; do :; done & done; exec sleep 1000")))
        .await;
    host.up("lab").await;
    let group = ground.group("lab").unwrap();
    assert_eq!(fs::read_to_string(group.join("cpu.max")).unwrap().trim(), "90000 100000");
    until("it is held back", async || {
        let stat = fs::read_to_string(group.join("cpu.stat")).unwrap();
        let held = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
        (held.parse::<u64>().unwrap() > 3).then_some(())
    })
    .await;
}
