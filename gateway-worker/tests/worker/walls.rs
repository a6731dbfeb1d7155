//! What an agent inside a gateway tries against its neighbours, its worker and the host, with real processes.
//!
//! Every attack is made twice: with walls, where it must meet the errno that is named, and without, where it must
//! succeed, so that no test passes for want of a victim. As root all are made as root and as nobody.

pub(crate) mod attack;
mod cost;
mod modes;
mod planted;
mod report;

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::libc;
use prost::Message;
use rustix::process::{Signal, getuid};
use supervisor_proto::worker::attach::Role;
use supervisor_proto::worker::exited::How;
use supervisor_proto::worker::order::Order as Demand;
use supervisor_proto::worker::refused::Reason;
use supervisor_proto::worker::report::Report as Body;
use supervisor_proto::worker::wall::{Kind, State};
use supervisor_proto::worker::{
    EnvironmentVariable, Launch, Limits, PortRange, Run, SpawnFailed, Started, User, Wall, Walls,
};

use self::attack::{ARGS, ATTACK};
use crate::harness::{KILLED, Link, Place, WORKER, Worker, alive, eventually, pid, signal};

/// The user and the group of nobody, by which a test that is root has a user without power.
const NOBODY: u32 = 65534;

/// Whose the workers of a test are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Me,
    Nobody,
}

/// Does `test` as everybody that this user can be.
fn as_everybody(test: impl Fn(Who)) {
    test(Who::Me);
    if getuid().is_root() {
        test(Who::Nobody);
    }
}

/// A place for an attacker or a victim of `who`.
struct Home {
    place: Place,
    who: Who,
    /// The worker's program, open: its path may lead through directories that nobody may enter.
    worker: File,
}

impl Home {
    fn of(who: Who) -> Self {
        let place = Place::new();
        let program = place.path().join("attacker");
        let this = std::env::current_exe().unwrap();
        fs::hard_link(&this, &program).or_else(|_| fs::copy(this, &program).map(drop)).unwrap();
        let home = Self { place, who, worker: File::open(WORKER).unwrap() };
        home.give(home.place.path());
        for path in [home.place.run(), home.place.log(), home.place.home()] {
            home.give(&path);
        }
        home
    }

    /// Makes `path` its user's.
    fn give(&self, path: &Path) {
        if self.who == Who::Nobody {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// A file that only its user can read.
    fn file(&self, name: &str) -> String {
        let path = self.place.path().join(name);
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.give(&path);
        path.to_str().unwrap().to_owned()
    }

    fn start(&self, launch: Launch) -> (Worker, Link, Started) {
        let mut worker = Command::new(format!("/proc/self/fd/{}", self.worker.as_raw_fd()));
        if self.who == Who::Nobody {
            worker.uid(NOBODY).gid(NOBODY);
        }
        self.place.start_by(worker, launch)
    }

    /// Everything that can be asked of any user: its own files, a port, no privileges.
    fn walls(&self) -> Walls {
        let system = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/sys"].map(Path::new);
        let system = system.iter().filter(|path| path.exists()).map(|path| real(path));
        Walls {
            write: vec![real(&self.place.home()), real(&self.place.log()), "/dev/null".into()],
            read: system.chain([real(&self.place.path().join("attacker"))]).collect(),
            bind: vec![PortRange { first: 1, last: 1 }],
            apart: true,
            privileges: true,
            ..Walls::default()
        }
    }

    /// A launch that tries `attack`.
    fn attack(&self, attack: &str, walls: Option<Walls>) -> Launch {
        Launch {
            program: self.place.path().join("attacker").to_str().unwrap().into(),
            args: ARGS.map(str::to_owned).to_vec(),
            environment: vec![EnvironmentVariable { name: ATTACK.into(), value: attack.into() }],
            walls,
            ..self.place.shell("")
        }
    }

    /// How `attack` ends.
    fn outcome(&self, attack: &str, walls: Option<Walls>) -> Option<How> {
        let (_worker, mut link, _) = self.start(self.attack(attack, walls));
        link.exited().how
    }

    /// `attack` meets `errno` behind the walls, and nothing without.
    fn is_stopped(&self, attack: &str, errno: i32) {
        let said = || format!("{attack} as {:?}: {}", self.who, self.place.captured());
        assert_eq!(self.outcome(attack, Some(self.walls())), Some(How::Code(errno)), "{}", said());
        assert_eq!(self.outcome(attack, None), Some(How::Code(0)), "{}", said());
    }
}

/// A neighbour whose gateway runs.
fn neighbour(who: Who) -> (Home, Worker, Link, Started) {
    let home = Home::of(who);
    let launch = home.place.shell("exec sleep 1000");
    let (worker, link, started) = home.start(launch);
    (home, worker, link, started)
}

fn wall(walls: &[Wall], kind: Kind) -> &Wall {
    walls.iter().find(|wall| wall.kind() == kind).unwrap_or_else(|| panic!("no {kind:?} in {walls:?}"))
}

#[test]
fn an_agent_that_reads_the_token_of_another_or_writes_the_supervisors_state_is_refused() {
    as_everybody(|who| {
        let (attacker, victim) = (Home::of(who), Home::of(who));
        let token = victim.file("token");
        for attack in ["read", "write", "truncate"] {
            attacker.is_stopped(&format!("{attack} {token}"), libc::EACCES);
        }
        attacker.is_stopped(&format!("list {}", victim.place.path().display()), libc::EACCES);
        attacker.is_stopped(&format!("write {}/new", victim.place.path().display()), libc::EACCES);
        for attack in ["link-in", "move-in", "delete"] {
            let treasure = victim.file("treasure");
            let stolen = attacker.place.home().join("stolen");
            let errno = if attack == "link-in" { libc::EXDEV } else { libc::EACCES };
            attacker.is_stopped(&format!("{attack} {treasure}"), errno);
            assert_eq!(stolen.exists(), attack != "delete");
            let _ = fs::remove_file(stolen);
        }
    });
}

#[test]
fn an_agent_that_reaches_a_neighbour_through_a_link_of_its_own_is_refused() {
    as_everybody(|who| {
        let (attacker, victim) = (Home::of(who), Home::of(who));
        symlink(victim.file("token"), attacker.place.home().join("link")).unwrap();
        attacker.is_stopped(&format!("read {}/link", attacker.place.home().display()), libc::EACCES);
    });
}

#[test]
fn a_link_in_the_place_of_a_tree_moves_no_wall() {
    as_everybody(|who| {
        let (attacker, victim) = (Home::of(who), Home::of(who));
        let token = victim.file("token");
        let tree = attacker.place.home().join("tree");
        symlink(victim.place.path(), &tree).unwrap();
        let planted = tree.to_str().unwrap().to_owned();
        for path in [planted.clone(), format!("{planted}/home")] {
            let mut walls = attacker.walls();
            walls.write.push(path.clone());
            walls.read.push(path);
            let outcome = attacker.outcome(&format!("read {token}"), Some(walls));
            assert_eq!(outcome, Some(How::Code(libc::EACCES)));
        }
        assert_eq!(attacker.outcome(&format!("read {token}"), None), Some(How::Code(0)));
    });
}

#[test]
fn where_only_files_are_replaced_no_directory_is_and_no_link_is_made() {
    as_everybody(|who| {
        let attacker = Home::of(who);
        let beside = attacker.place.path().join("beside");
        for made in [beside.clone(), beside.join("state"), beside.join("state/inner")] {
            fs::create_dir(&made).unwrap();
            attacker.give(&made);
        }
        fs::write(beside.join("config"), "old").unwrap();
        attacker.give(&beside.join("config"));
        let mut walls = attacker.walls();
        walls.files = vec![real(&beside)];
        let outcome = |attack: &str, path: &str| {
            attacker.outcome(&format!("{attack} {}", beside.join(path).display()), Some(walls.clone()))
        };
        for (attack, path) in [
            ("replace", "config"),
            ("write", "copy"),
            ("read", "config"),
            ("list", "state"),
            ("delete", "copy"),
        ] {
            let found = outcome(attack, path);
            assert_eq!(found, Some(How::Code(0)), "{attack} as {who:?}: {}", attacker.place.captured());
        }
        assert_eq!(fs::read_to_string(beside.join("config")).unwrap(), "new");
        for (attack, path) in
            [("move", "state"), ("move", "state/inner"), ("make", "new"), ("link", "link"), ("pipe", "pipe")]
        {
            let found = outcome(attack, path);
            assert_eq!(found, Some(How::Code(libc::EACCES)), "{attack} as {who:?}");
        }
        for (attack, path) in [("make", "new"), ("link", "link"), ("pipe", "pipe"), ("move", "state")] {
            let path = beside.join(path);
            assert_eq!(attacker.outcome(&format!("{attack} {}", path.display()), None), Some(How::Code(0)));
        }
    });
}

#[test]
fn an_agent_that_has_others_wait_for_a_file_is_refused() {
    as_everybody(|who| Home::of(who).is_stopped("lease", libc::EPERM));
}

#[test]
fn an_agent_that_makes_its_command_line_longer_is_refused() {
    as_everybody(|who| Home::of(who).is_stopped("lengthen", libc::EPERM));
}

#[test]
fn an_agent_that_copies_a_tree_past_landlock_is_refused() {
    as_everybody(|who| Home::of(who).is_stopped("copy", libc::EPERM));
}

#[test]
fn an_agent_that_binds_a_neighbours_port_is_refused_by_tcp_and_by_what_is_like_it() {
    as_everybody(|who| {
        let attacker = Home::of(who);
        // Free again when the attack is made, and like a neighbour's that is just restarting.
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        attacker.is_stopped(&format!("bind {}", port()), libc::EACCES);
        if attacker.outcome(&format!("bind-mptcp {}", port()), None) == Some(How::Code(0)) {
            attacker.is_stopped(&format!("bind-mptcp {}", port()), libc::EPERM);
        }
        attacker.is_stopped("bind-ulp", libc::EPERM);
        let mut own = attacker.walls();
        let first = u32::from(port());
        own.bind = vec![PortRange { first, last: first }];
        assert_eq!(attacker.outcome(&format!("bind {first}"), Some(own.clone())), Some(How::Code(0)));
        assert_eq!(attacker.outcome("bind 0", Some(own)), Some(How::Code(0)));
    });
}

#[test]
fn an_agent_that_signals_a_neighbour_or_its_own_worker_is_refused() {
    as_everybody(|who| {
        let (_home, worker, mut link, victim) = neighbour(who);
        let attacker = Home::of(who);
        let attack = format!("signal {}", pid(&victim));
        for target in [pid(&victim), worker.pid()] {
            let outcome = attacker.outcome(&format!("signal {target}"), Some(attacker.walls()));
            assert_eq!(outcome, Some(How::Code(libc::EPERM)), "{}", attacker.place.captured());
        }
        assert!(alive(pid(&victim)) && alive(worker.pid()));
        let script = "kill -TERM $PPID; echo $? >said; exec sleep 1000";
        let launch = Launch { walls: Some(attacker.walls()), ..attacker.place.shell(script) };
        let (own_worker, mut own_link, _) = attacker.start(launch);
        assert_ne!(attacker.place.number("said"), 0);
        assert!(alive(own_worker.pid()));
        own_link.kill(1);
        assert_eq!(own_link.exited().how, KILLED);
        drop(own_worker);
        assert_eq!(attacker.outcome(&attack, None), Some(How::Code(0)));
        assert_eq!(link.exited().how, Some(How::Signal(15)));
    });
}

#[test]
fn an_agent_that_traces_a_neighbour_or_looks_into_its_memory_is_refused() {
    as_everybody(|who| {
        let (_home, worker, _link, victim) = neighbour(who);
        let attacker = Home::of(who);
        for target in [pid(&victim), worker.pid()] {
            attacker.is_stopped(&format!("trace {target}"), libc::EPERM);
            attacker.is_stopped(&format!("memory {target}"), libc::EACCES);
            attacker.is_stopped(&format!("environ {target}"), libc::EACCES);
        }
        // Where nothing but the filter stands between them.
        let alone = Walls { privileges: true, ..Walls::default() };
        let outcome = attacker.outcome(&format!("trace {}", pid(&victim)), Some(alone));
        assert_eq!(outcome, Some(How::Code(libc::EPERM)));
    });
}

#[test]
fn an_agent_that_makes_its_worker_its_tracer_dies_of_what_it_dies_of() {
    as_everybody(|who| {
        let home = Home::of(who);
        for walls in [Some(home.walls()), None] {
            for (attack, signal) in [("traced", libc::SIGUSR1), ("trapped", libc::SIGTRAP)] {
                let outcome = home.outcome(attack, walls.clone());
                assert_eq!(outcome, Some(How::Signal(signal)), "{who:?}: {}", home.place.captured());
            }
        }
    });
}

#[test]
fn an_agent_that_sets_limits_or_priorities_of_others_is_refused_and_may_set_its_own() {
    as_everybody(|who| {
        let (_home, worker, _link, victim) = neighbour(who);
        let attacker = Home::of(who);
        for target in [pid(&victim), worker.pid()] {
            attacker.is_stopped(&format!("meddle {target}"), libc::EPERM);
        }
        assert_eq!(attacker.outcome("own-limits", Some(attacker.walls())), Some(How::Code(0)));
    });
}

#[test]
fn an_agent_that_makes_a_program_which_runs_as_its_user_for_whoever_starts_it_is_refused() {
    as_everybody(|who| {
        let attacker = Home::of(who);
        attacker.is_stopped("bits", libc::EPERM);
        let unseen = attacker.outcome("bits-unseen", Some(attacker.walls()));
        assert_eq!(unseen, Some(How::Code(libc::EPERM)));
        assert_eq!(attacker.outcome("own-bits", Some(attacker.walls())), Some(How::Code(0)));
    });
}

/// Where programs that are run aside are found.
const PATH: &str = "/usr/bin:/bin";

fn real(path: &Path) -> String {
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

fn told(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a program in `home` is run aside with.
fn launch(home: &Home) -> Launch {
    let path = EnvironmentVariable { name: "PATH".into(), value: PATH.into() };
    Launch {
        environment: vec![path],
        working_directory: real(&home.place.home()),
        walls: Some(home.walls()),
        ..Launch::default()
    }
}

/// Runs `script` aside.
fn aside(home: &Home, seconds: u32, script: &str) -> Output {
    let mut command = Command::new(WORKER);
    command.args(["behind", "--seconds", &seconds.to_string(), "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&launch(home).encode_to_vec()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_program_that_is_run_aside_is_behind_the_same_walls_and_leaves_nothing_behind() {
    let (home, other) = (Home::of(Who::Me), Home::of(Who::Me));
    let secret = other.file("secret");
    let run = |script: &str| {
        let output = aside(&home, 600, script);
        (output.status.code(), told(&output.stdout))
    };
    let script = format!("cat {secret} 2>/dev/null; echo $?; grep Seccomp: /proc/self/status; exit 7");
    assert_eq!(run(&script), (Some(7), "1\nSeccomp:\t2\n".into()));
    let orphan =
        "setsid sh -c 'echo $$ >pid; exec sleep 600' & until [ -s pid ]; do :; done; cat pid; kill -9 $$";
    let (code, pid) = run(orphan);
    assert_eq!(code, Some(137));
    let left: i32 = pid.trim().parse().unwrap();
    assert!(!Path::new(&format!("/proc/{left}")).exists(), "process {left} has outlived it");
    // Its session is its worker's own: groups of this one cannot be joined, and processor time is shared by sessions.
    let (_, stat) = run("cat /proc/$PPID/stat");
    let session = |stat: &str| stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().to_owned();
    assert_ne!(session(&stat), session(&fs::read_to_string("/proc/self/stat").unwrap()), "{stat}");
    // It begins where it is told to, with no other environment, and nothing that it says is taken for its worker's word.
    let output = aside(&home, 600, "pwd; echo $HOME${PATH:+,$PATH}; echo mine >&2");
    assert_eq!(told(&output.stdout), format!("{}\n,{PATH}\n", real(&home.place.home())));
    assert_eq!(told(&output.stderr), "");
}

#[test]
fn a_program_that_is_run_aside_and_stops_all_that_it_can_is_ended_at_its_limit() {
    let home = Home::of(Who::Me);
    // Itself with whoever would keep the limit from in there, and whatever else it may.
    let stop = "echo here; setsid sh -c 'echo $$ >pid; exec sleep 600' & until [ -s pid ]; do :; done; \
                timeout -k 1 1 sh -c 'kill -STOP $PPID' & kill -STOP $PPID; kill -STOP 0";
    let output = aside(&home, 3, stop);
    assert_eq!((output.status.code(), told(&output.stdout)), (Some(1), "here\n".into()));
    assert_eq!(told(&output.stderr), "gateway-worker: `sh` has not ended by itself within 3 s\n");
    let left = home.place.number("pid");
    assert!(!Path::new(&format!("/proc/{left}")).exists(), "process {left} has outlived it");
    // Who only takes long is asked first.
    let output = aside(&home, 3, "trap 'echo asked; exit' TERM; while :; do sleep 0.05; done");
    assert_eq!((output.status.code(), told(&output.stdout)), (Some(1), "asked\n".into()));
}

#[test]
fn nothing_is_run_behind_walls_that_are_missing_or_cut_off() {
    let home = Home::of(Who::Me);
    let (file, ran) = (home.place.path().join("launch"), home.place.home().join("ran"));
    let long = EnvironmentVariable { name: "LONG".into(), value: "x".repeat(1 << 20) };
    let missing = Launch { walls: None, ..launch(&home) };
    let long = Launch { environment: vec![long], ..launch(&home) };
    for (launch, why) in [
        (missing.encode_to_vec(), "the launch says nothing of walls"),
        (Vec::new(), "the launch says nothing of walls"),
        (long.encode_to_vec(), "environment and walls have more than 1048576 bytes together"),
        (vec![0xff], "failed to decode the launch: "),
    ] {
        fs::write(&file, launch).unwrap();
        for (how, status) in [("--seconds 600", 1), ("--launch-fd 3", 125)] {
            let mut command = Command::new("sh");
            let script = format!("exec {WORKER} behind {how} touch {} <$0 3<$0", ran.display());
            let output = command.arg("-c").arg(script).arg(&file).output().unwrap();
            let said = told(&output.stderr);
            assert!(said.starts_with(&format!("gateway-worker: {why}")), "{how}: {said}");
            assert_eq!((output.status.code(), ran.exists()), (Some(status), false), "{how}: {why}");
        }
    }
}

#[test]
fn a_program_that_types_into_the_terminal_of_whoever_runs_it_is_refused() {
    as_everybody(|who| Home::of(who).is_stopped("type", libc::EPERM));
}

#[test]
fn an_agent_that_calls_an_abstract_socket_outside_is_refused() {
    as_everybody(|who| {
        let attacker = Home::of(who);
        let name = format!("neighbour-{}-{who:?}", std::process::id());
        let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        attacker.is_stopped(&format!("abstract {name}"), libc::EPERM);
    });
}

#[test]
fn an_agent_that_takes_over_a_neighbours_worker_is_refused() {
    as_everybody(|who| {
        let (mut home, worker, mut link, victim) = neighbour(who);
        let attacker = Home::of(who);
        let attack = format!("take-over {}/worker.sock", home.place.run().display());
        for walls in [None, Some(attacker.walls())] {
            let outcome = attacker.outcome(&attack, walls);
            assert_eq!(outcome, Some(How::Code(libc::EACCES)), "{}", attacker.place.captured());
        }
        for role in [Role::Control, Role::Watch] {
            let mut stranger = home.place.connect();
            stranger.attach(role, 1000, &[8; 32]);
            let refused = stranger.refused();
            assert_eq!(refused.reason(), Reason::WrongKey);
            assert!(stranger.next().is_none());
        }
        assert!(alive(pid(&victim)));
        link.kill(1);
        link.exited();
        // A worker of an older supervisor has no key and asks for none.
        drop((worker, link));
        home.place.key = Vec::new();
        let (_worker, _link, _) = home.start(home.place.shell("exec sleep 1000"));
        assert_eq!(attacker.outcome(&attack, None), Some(How::Code(0)), "{}", attacker.place.captured());
    });
}

#[test]
fn no_number_of_callers_without_a_key_keeps_the_supervisor_out() {
    let place = Place::new();
    let (_worker, link, _) = place.start_shell("exec sleep 1000");
    drop(link);
    let _crowd: Vec<Link> = (0..40).map(|_| place.connect()).collect();
    let (mut link, _) = place.attach(Role::Control, 2);
    let _late: Vec<Link> = (0..40).map(|_| place.connect()).collect();
    link.kill(1);
    assert_eq!(link.exited().how, KILLED);
}

#[test]
fn an_agent_that_gains_privileges_by_a_setuid_program_gains_none() {
    if !getuid().is_root() {
        eprintln!("skipped: only root can make such a program");
        return;
    }
    let home = Home::of(Who::Nobody);
    let program = home.place.home().join("cat");
    fs::copy("/bin/cat", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let secret = home.place.home().join("secret");
    fs::write(&secret, "").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let tried = |walls: Option<Walls>| {
        let launch = Launch { walls, ..home.place.shell("exec ./cat secret") };
        home.start(launch).1.exited().how
    };
    assert_eq!(tried(Some(home.walls())), Some(How::Code(1)));
    assert_eq!(tried(None), Some(How::Code(0)), "{}", home.place.captured());
}

#[test]
fn an_agent_that_loads_a_module_or_calls_what_no_gateway_needs_is_refused() {
    let refused = Some(How::Code(libc::EPERM));
    as_everybody(|who| {
        let attacker = Home::of(who);
        let walls = || Some(attacker.walls());
        assert_eq!(attacker.outcome("calls", walls()), refused, "{}", attacker.place.captured());
        assert_eq!(attacker.outcome("rings", walls()), refused);
        assert_eq!(attacker.outcome("x32", walls()), refused);
        assert_eq!(attacker.outcome("netfilter", walls()), refused);
        assert_eq!(attacker.outcome("packets", walls()), refused);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(attacker.outcome("other-mode", walls()), Some(How::Signal(libc::SIGSYS)));
        }
        if who == Who::Me && getuid().is_root() {
            for attack in ["calls", "packets"] {
                let outcome = attacker.outcome(attack, None);
                assert_eq!(outcome, Some(How::Code(0)), "{}", attacker.place.captured());
            }
        }
    });
}

#[test]
fn an_agent_that_would_begin_a_process_in_a_neighbours_group_is_refused_as_if_no_kernel_could() {
    as_everybody(|who| {
        let attacker = Home::of(who);
        let outcome = attacker.outcome("clone3", Some(attacker.walls()));
        assert_eq!(outcome, Some(How::Code(libc::ENOSYS)), "{}", attacker.place.captured());
        let walls = Walls { privileges: false, bind: Vec::new(), ..attacker.walls() };
        assert_eq!(attacker.outcome("clone3", Some(walls)), Some(How::Code(libc::ENOSYS)));
        assert_eq!(attacker.outcome("clone3", None), Some(How::Code(libc::EINVAL)));
    });
}

#[test]
fn a_browser_can_still_build_its_own_sandbox() {
    as_everybody(|who| {
        let home = Home::of(who);
        if home.outcome("sandbox", None) != Some(How::Code(0)) {
            eprintln!("skipped: this host lets {who:?} make no user namespaces");
            return;
        }
        let mut walls = home.walls();
        // The maps of a namespace are written there.
        walls.write.push("/proc".into());
        assert_eq!(home.outcome("sandbox", Some(walls)), Some(How::Code(0)), "{}", home.place.captured());
    });
}

#[test]
fn a_double_fork_leads_out_of_no_wall() {
    as_everybody(|who| {
        let (attacker, victim) = (Home::of(who), Home::of(who));
        let token = victim.file("token");
        let tried = |walls: Option<Walls>| {
            let script = format!(
                "rm -f said; (setsid sh -c 'cat {token} >found; echo $? >said.new; mv said.new said' &); \
                 exec sleep 1000"
            );
            let (_worker, mut link, _) = attacker.start(Launch { walls, ..attacker.place.shell(&script) });
            let said = attacker.place.number("said");
            link.kill(1);
            link.exited();
            fs::remove_file(attacker.place.home().join("said")).unwrap();
            said
        };
        assert_ne!(tried(Some(attacker.walls())), 0);
        assert_eq!(tried(None), 0);
    });
}
