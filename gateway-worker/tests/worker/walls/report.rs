//! What is said of the walls, and limits, users and groups.

use super::*;

/// The fields of `/proc/PID/status`.
fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field}")).trim().to_owned()
}

fn capabilities(pid: i32, set: &str) -> u64 {
    u64::from_str_radix(&status(pid, set), 16).unwrap()
}

fn sleeping(home: &Home, walls: Walls) -> (Worker, Link, Started) {
    home.start(Launch { walls: Some(walls), ..home.place.shell("exec sleep 1000") })
}

#[test]
fn every_wall_that_was_asked_for_is_reported_as_it_stands_and_no_other() {
    as_everybody(|who| {
        let home = Home::of(who);
        let (_worker, mut link, started) = sleeping(&home, home.walls());
        let kinds: Vec<Kind> = started.walls.iter().map(Wall::kind).collect();
        assert_eq!(kinds, [Kind::Files, Kind::Ports, Kind::Apart, Kind::Privileges, Kind::Syscalls]);
        for wall in &started.walls {
            assert_eq!(wall.state() == State::Enforced, wall.reason.is_empty(), "{wall:?}");
        }
        assert_eq!(wall(&started.walls, Kind::Privileges).state(), State::Enforced);
        assert_eq!(wall(&started.walls, Kind::Syscalls).state(), State::Enforced);
        assert_eq!(home.place.attach(Role::Watch, 0).1.walls, started.walls);
        assert_eq!(status(pid(&started), "NoNewPrivs"), "1");
        assert_eq!(status(pid(&started), "Seccomp"), "2");
        link.kill(1);
        link.exited();
        assert!(home.place.attach(Role::Watch, 0).1.walls.is_empty());

        // The walls of a launch are its own.
        link.order(Demand::Run(Run { incarnation: 2, launch: Some(home.place.shell("exec sleep 1000")) }));
        let open = link.started();
        assert!(open.walls.is_empty());
        assert_eq!(status(pid(&open), "NoNewPrivs"), "0");
        assert_eq!(status(pid(&open), "Seccomp"), "0");
    });
}

#[test]
fn root_behind_walls_has_no_capability_that_could_change_the_host() {
    if !getuid().is_root() {
        eprintln!("skipped: only root has any");
        return;
    }
    let home = Home::of(Who::Me);
    let (worker, _link, started) = sleeping(&home, home.walls());
    const DAC_OVERRIDE: u64 = 1 << 1;
    const RAW_MODULE_PTRACE_ADMIN: u64 = 1 << 13 | 1 << 16 | 1 << 19 | 1 << 21;
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        let left = capabilities(pid(&started), set);
        assert_eq!(left & RAW_MODULE_PTRACE_ADMIN, 0, "{set}");
        assert_eq!(left & DAC_OVERRIDE, DAC_OVERRIDE, "{set}");
        assert_ne!(capabilities(worker.pid(), set) & RAW_MODULE_PTRACE_ADMIN, 0, "the worker keeps its own");
    }
}

#[test]
fn limits_are_set_and_what_may_not_be_set_is_said() {
    as_everybody(|who| {
        let home = Home::of(who);
        let mut walls = Walls {
            limits: Some(Limits { files: Some(100), processes: Some(1 << 20), core_bytes: Some(0) }),
            oom_score_adj: Some(700),
            ..Walls::default()
        };
        let (_worker, _link, started) = sleeping(&home, walls.clone());
        let limits = wall(&started.walls, Kind::Limits);
        assert_eq!((limits.state(), &*limits.reason), (State::Enforced, ""));
        let process = pid(&started);
        let text = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let limit = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line[26..].split_ascii_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(limit("Max open files"), ["100", "100"]);
        assert_eq!(limit("Max core file size"), ["0", "0"]);
        assert_eq!(fs::read_to_string(format!("/proc/{process}/oom_score_adj")).unwrap(), "700\n");

        if who == Who::Nobody {
            let other = Home::of(who);
            walls.oom_score_adj = Some(-700);
            let (_worker, _link, started) = sleeping(&other, walls.clone());
            let limits = wall(&started.walls, Kind::Limits);
            assert_eq!(limits.state(), State::Partial);
            assert_eq!(limits.reason, "failed to set oom_score_adj to -700: Permission denied");
            let (_worker, _link, started) = sleeping(&Home::of(who), Walls { limits: None, ..walls });
            assert_eq!(wall(&started.walls, Kind::Limits).state(), State::Unavailable);
        }
    });
}

#[test]
fn a_gateway_of_another_user_has_that_users_power_and_dies_with_its_worker() {
    if !getuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let (home, theirs) = (Home::of(Who::Me), Home::of(Who::Nobody));
    let secret = home.file("secret");
    let user = User { uid: NOBODY, gid: NOBODY, groups: vec![NOBODY, 4711] };
    let walls = Walls { user: Some(user), privileges: true, ..Walls::default() };
    let script = format!("cat {secret}; echo $? >/dev/stdout; exec sleep 1000");
    let launch = Launch {
        walls: Some(walls.clone()),
        working_directory: theirs.place.home().to_str().unwrap().into(),
        ..home.place.shell(&script)
    };
    let (mut worker, _link, started) = home.start(launch);
    let process = pid(&started);
    assert_eq!(wall(&started.walls, Kind::User).state(), State::Enforced);
    assert_eq!(status(process, "Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(status(process, "Gid"), "65534\t65534\t65534\t65534");
    assert_eq!(status(process, "Groups"), "4711 65534");
    assert_eq!(capabilities(process, "CapPrm"), 0);
    eventually("it has tried", || home.place.captured().lines().count() == 2);
    assert!(home.place.captured().ends_with("Permission denied\n1\n"), "{}", home.place.captured());
    signal(worker.pid(), Signal::KILL);
    worker.wait();
    eventually("the gateway died with its worker", || !alive(process));

    // Who cannot become another starts nothing, whatever else is asked.
    let (_worker, mut link, _) = theirs.start(theirs.place.shell("exit 0"));
    link.exited();
    let root = User { uid: 0, gid: 0, groups: Vec::new() };
    let launch =
        Launch { walls: Some(Walls { user: Some(root), ..walls }), ..theirs.place.shell("echo ran >ran") };
    link.order(Demand::Run(Run { incarnation: 2, launch: Some(launch) }));
    let message = "failed to become the user 0: Operation not permitted".to_owned();
    assert_eq!(
        link.next(),
        Some(Body::SpawnFailed(SpawnFailed { incarnation: 2, errno: libc::EPERM, message }))
    );
    assert!(!theirs.place.home().join("ran").exists());
}

/// A home through which nobody gets to its log, and that user; none, if this one cannot become it.
pub(super) fn passable() -> Option<(Home, User)> {
    if !getuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return None;
    }
    let home = Home::of(Who::Me);
    for path in [home.place.path(), &home.place.log()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap();
    }
    Some((home, User { uid: NOBODY, gid: NOBODY, groups: Vec::new() }))
}

#[test]
fn a_gateway_of_another_user_can_say_that_it_is_ready() {
    let Some((home, user)) = passable() else { return };
    let walls = |user| Walls { user, ..home.walls() };
    let launch = |user| Launch { notify: true, ..home.attack("notify", Some(walls(user))) };
    let (_worker, mut link, _) = home.start(launch(Some(user)));
    assert!(matches!(link.next(), Some(Body::Notified(_))), "{}", home.place.captured());
    assert!(home.place.log().join("notify.sock").exists());
    link.kill(1);
    link.exited();
    link.order(Demand::Run(Run { incarnation: 2, launch: Some(launch(None)) }));
    link.started();
    assert!(matches!(link.next(), Some(Body::Notified(_))), "{}", home.place.captured());
    assert!(!home.place.log().join("notify.sock").exists());
}

#[test]
fn nobody_but_the_gateways_user_can_say_that_it_is_ready() {
    let Some((home, user)) = passable() else { return };
    let launch = Launch {
        notify: true,
        walls: Some(Walls { user: Some(user), ..Walls::default() }),
        working_directory: "/".into(),
        ..home.place.shell("exec sleep 1000")
    };
    let (_worker, mut link, _) = home.start(launch);
    let socket = home.place.log().join("notify.sock");
    let send = "import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', sys.argv[1])";
    let says = |uid: u32| {
        let mut says = Command::new("python3");
        says.args(["-c", send]).arg(&socket).uid(uid).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(!says(64_321), "it is its user's alone");
    // A neighbour of the same user.
    assert!(says(NOBODY));
    link.kill(1);
    let Some(Body::Exited(_)) = link.next() else { panic!("a stranger was heard") };
}

/// A control group of a test's own.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").ok()?;
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let at = fields.next()?;
            (fields.next() == Some("cgroup2")).then(|| PathBuf::from(at))
        })?;
        let group = root.join(format!("gateway-worker-test-{}", std::process::id()));
        fs::create_dir(&group).is_ok().then_some(Self(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_cgroup_is_joined_by_all_that_the_gateway_starts_and_a_missing_one_is_said() {
    let home = Home::of(Who::Me);
    let walls = Walls { cgroup: "/no/such/group".into(), ..Walls::default() };
    let (_worker, mut link, started) = sleeping(&home, walls);
    let group = wall(&started.walls, Kind::Cgroup);
    let reason = "failed to open `/no/such/group/cgroup.procs`: No such file or directory";
    assert_eq!((group.state(), &*group.reason), (State::Unavailable, reason));
    link.kill(1);
    link.exited();
    let Some(group) = Group::make() else {
        eprintln!("skipped: this user can make no cgroup here");
        return;
    };
    let walls = Walls { cgroup: group.0.to_str().unwrap().into(), ..Walls::default() };
    let script = "sleep 1000 & echo $! >child; exec sleep 1000";
    let launch = Launch { walls: Some(walls), ..home.place.shell(script) };
    link.order(Demand::Run(Run { incarnation: 2, launch: Some(launch) }));
    let started = link.started();
    assert_eq!(wall(&started.walls, Kind::Cgroup).state(), State::Enforced);
    let child = home.place.number("child");
    let members = fs::read_to_string(group.0.join("cgroup.procs")).unwrap();
    for member in [pid(&started), child] {
        assert!(members.lines().any(|line| line == member.to_string()), "{members}");
    }
    link.kill(2);
    link.exited();
}

#[test]
fn a_program_behind_its_own_walls_is_said_to_be() {
    let home = Home::of(Who::Me);
    let (_worker, mut link, _) = home.start(home.place.shell("exit 0"));
    link.exited();
    let walls = Walls { write: vec![home.walls().write[0].clone()], ..Walls::default() };
    let launch = Launch { walls: Some(walls), ..home.place.shell("exit 0") };
    link.order(Demand::Run(Run { incarnation: 2, launch: Some(launch) }));
    match link.next() {
        Some(Body::SpawnFailed(failed)) => assert_eq!(
            failed.message,
            "failed to execute `/bin/sh`, which its walls may keep it from reading: Permission denied"
        ),
        // A kernel without Landlock.
        Some(Body::Started(started)) => {
            assert_eq!(wall(&started.walls, Kind::Files).state(), State::Unavailable);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn walls_that_nobody_could_build_are_refused_and_nothing_is_started() {
    let place = Place::new();
    let (_worker, mut link, _) = place.start_shell("exit 0");
    link.exited();
    let unfit = [
        (Walls { read: vec!["etc".into()], ..Walls::default() }, "the tree `etc` is not an absolute path"),
        (Walls { cgroup: "group".into(), ..Walls::default() }, "the cgroup `group` is not an absolute path"),
        (
            Walls { bind: vec![PortRange { first: 9, last: 8 }], ..Walls::default() },
            "9 to 8 is no range of ports",
        ),
    ];
    for (walls, message) in unfit {
        let launch = Launch { walls: Some(walls), ..place.shell("exit 0") };
        link.order(Demand::Run(Run { incarnation: 2, launch: Some(launch) }));
        let refused = link.refused();
        assert_eq!((refused.reason(), &*refused.message), (Reason::Invalid, message));
    }
}
