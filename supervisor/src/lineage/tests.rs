use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::*;

/// A shell that stands for a worker, and the process that `script` tells the number of.
struct Worker {
    shell: Child,
    told: i32,
    _program: tempfile::TempDir,
}

impl Worker {
    fn start(mark: Option<&str>, script: &str) -> Self {
        Self::called(WORKER, mark, script)
    }

    /// One that runs a program of this name.
    fn called(name: &str, mark: Option<&str>, script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join(name);
        // By a process of its own: what this one has open for writing, another thread's child may have, too (ETXTBSY).
        assert!(Command::new("cp").arg("/bin/sh").arg(&program).status().unwrap().success());
        let mut command = Command::new(program);
        command.args(["-c", script]).env_remove(MARK).stdout(Stdio::piped());
        command.envs(mark.map(|mark| (MARK, mark)));
        let mut shell = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { shell, told: line.trim().parse().unwrap(), _program: directory }
    }

    fn origin(&self) -> Option<Origin> {
        traced(&Process { pid: self.told, pidfd: None })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The one it told of is either its descendant, alive for minutes, or a child that has been waited for.
        if let Some(told) = Pid::from_raw(self.told).filter(|_| parent(self.told).is_some()) {
            let _ = kill_process(told, Signal::KILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// As a caller is: with little effort, then with all.
fn traced(process: &Process) -> Option<Origin> {
    let lineage = Lineage::new("store");
    let little = lineage.trace(process, Effort::Little);
    let all = lineage.trace(process, Effort::All).unwrap();
    assert!(little == Err(Costly) || little == Ok(all.clone()), "{little:?}, {all:?}");
    all
}

fn inside(name: &str) -> Option<Origin> {
    Some(Origin::Inside(Name::new(name).unwrap()))
}

#[test]
fn what_a_worker_started_belongs_to_its_instance() {
    let worker = Worker::start(Some("store/main"), "sleep 600 & echo $!; wait");
    assert_eq!(worker.origin(), inside("main"));
}

#[test]
fn neither_an_empty_environment_nor_a_false_mark_is_heard() {
    for disguise in ["env -i", "env OPENCLAWCTL_MARK=store/rescue", "setsid env -i"] {
        let script = format!("{disguise} sh -c 'echo $$; exec sleep 600' & wait");
        let worker = Worker::start(Some("store/main"), &script);
        assert_eq!(worker.origin(), inside("main"), "{disguise}");
    }
}

#[test]
fn a_mark_that_no_worker_carries_makes_nobody_a_part_of_an_instance() {
    let told = "sleep 600 & echo $!; wait";
    assert_eq!(Worker::called("newgrp", Some("store/rescue"), told).origin(), None, "a setuid program");
    let walled = r#"import ctypes, os; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0); os.execl(os.environ["W"], "w", "-c", "sleep 600 & echo $!; wait")"#;
    let walled = format!("W=$(readlink /proc/$$/exe) {MARK}=store/rescue exec python3 -c '{walled}'");
    assert_eq!(Worker::start(None, &walled).origin(), None, "what a worker has left");
    let replaced =
        Worker::start(Some("store/main"), "rm \"$(readlink /proc/$$/exe)\"; sleep 600 & echo $!; wait");
    assert_eq!(replaced.origin(), inside("main"));
}

#[test]
fn who_has_more_parents_than_most_takes_more_effort() {
    let nested =
        "n() { if [ $1 -gt 0 ]; then (n $(($1 - 1)); :); else sh -c 'echo $PPID'; exec sleep 600; fi; }";
    let worker = Worker::start(Some("store/main"), &format!("{nested}; n {}", Effort::Little.parents()));
    let process = Process { pid: worker.told, pidfd: None };
    assert_eq!(Lineage::new("store").trace(&process, Effort::Little), Err(Costly));
    assert_eq!(worker.origin(), inside("main"));
}

#[test]
fn below_whom_a_process_is_takes_a_short_look_or_none() {
    let worker = Worker::start(None, "sleep 600 & echo $!; wait");
    let shell = i32::try_from(worker.shell.id()).unwrap();
    let sought = |wanted: i32| move |pid| (pid == wanted).then_some(pid);
    assert_eq!(nearest(worker.told, sought(shell)), Ok(Some(shell)));
    assert_eq!(nearest(worker.told, Some), Ok(Some(worker.told)));
    assert_eq!(nearest(worker.told, |_| None::<()>), Ok(None));
    assert_eq!(nearest(i32::MAX, |_| None::<()>), Err(Costly));
}

#[test]
fn who_has_no_mark_is_outside() {
    let worker = Worker::start(None, "sleep 600 & echo $!; wait");
    assert_eq!(worker.origin(), Some(Origin::Outside));
}

#[test]
fn who_calls_from_outside_the_pid_namespace_may_be_anybodys_agent() {
    let unseen = Process { pid: 0, pidfd: None };
    assert_eq!(traced(&unseen), None);
}

#[test]
fn who_has_the_mark_of_another_supervisor_is_an_agent_and_no_operator() {
    for mark in ["another/main", "storeroom/main", "store/No Name"] {
        let worker = Worker::start(Some(mark), "env -i sleep 600 & echo $!; wait");
        assert_eq!(worker.origin(), None, "{mark}");
    }
}

#[test]
fn who_is_behind_walls_and_has_shed_its_mark_is_not_taken_for_somebody_from_outside() {
    // PR_SET_NO_NEW_PRIVS.
    let walled = "import ctypes, os, time; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0); print(os.getpid(), flush=True); time.sleep(600)";
    let worker = Worker::start(None, &format!("python3 -c '{walled}' & wait"));
    assert_eq!(worker.origin(), None);
    let worker = Worker::start(Some("store/main"), &format!("python3 -c '{walled}' & wait"));
    assert_eq!(worker.origin(), inside("main"));
    let own = Walls::of(std::process::id().try_into().unwrap()).unwrap();
    assert!(!own.1.are_within(&own.1));
}

#[test]
fn walls_are_held_against_whoever_could_be_an_agent_and_nobody_else() {
    const ME: u32 = 1_000;
    const OPERATOR: u32 = 1_001;
    let walls = |no_new_privileges, filters| Walls { no_new_privileges, filters };
    let (bare, unit, agent) = (walls(false, 0), walls(true, 12), walls(true, 2));
    let (container, below_unit) = (walls(false, 1), walls(true, 13));
    // The supervisor's user and its walls, the caller's user and its walls.
    for (me, own, caller, its, refused) in [
        (ROOT, &bare, OPERATOR, &agent, true),
        (ROOT, &bare, OPERATOR, &container, true),
        (ROOT, &bare, ROOT, &bare, false),
        (ROOT, &unit, ROOT, &below_unit, true),
        (ROOT, &unit, OPERATOR, &unit, false),
        (ME, &bare, ME, &agent, true),
        (ME, &unit, ME, &below_unit, true),
        (ME, &unit, ME, &bare, false),
        (ME, &bare, OPERATOR, &agent, false),
        // Root's agents do not descend from here: whatever is behind what all agents are behind may be one.
        (ME, &bare, ROOT, &agent, true),
        (ME, &unit, ROOT, &agent, true),
        (ME, &unit, ROOT, &container, false),
        (ME, &bare, ROOT, &container, false),
        (ME, &bare, ROOT, &bare, false),
    ] {
        assert_eq!(
            its.are_an_agents(caller, own, me),
            refused,
            "{its:?} of {caller}, to {me} behind {own:?}"
        );
    }
}

#[test]
fn a_process_that_has_ended_cannot_be_traced_even_if_another_has_its_number() {
    let mut worker = Worker::start(None, "sleep 600 & echo $!; wait");
    let pid = Pid::from_child(&worker.shell);
    let pidfd = Some(pidfd_open(pid, PidfdFlags::empty()).unwrap());
    worker.shell.kill().unwrap();
    worker.shell.wait().unwrap();
    assert_eq!(traced(&Process { pid: pid.as_raw_pid(), pidfd: None }), None);
    // The number is that of this very process, which lives.
    let own = i32::try_from(std::process::id()).unwrap();
    assert_eq!(traced(&Process { pid: own, pidfd }), None);
}

#[test]
fn who_has_more_parents_than_anybody_needs_cannot_be_traced() {
    let nested =
        "n() { if [ $1 -gt 0 ]; then (n $(($1 - 1)); :); else sh -c 'echo $PPID'; exec sleep 600; fi; }";
    let worker = Worker::start(Some("store/main"), &format!("{nested}; n 300"));
    assert_eq!(worker.origin(), None);
}

#[test]
fn who_hides_its_mark_is_not_taken_for_somebody_from_outside() {
    let own = i32::try_from(std::process::id()).unwrap();
    let (above, _) = parent(own).unwrap();
    // Left to the supervisor, or to a process above it.
    assert!(is_adopted(i32::MAX, own) && is_adopted(i32::MAX, above));
    // From where the supervisor was started, and a login of its user's.
    assert!(!is_adopted(above, parent(above).unwrap().0) && !is_adopted(i32::MAX, i32::MAX - 1));
    assert_eq!(user(own), Some(nix::unistd::getuid().as_raw()));

    if geteuid().is_root() {
        eprintln!("not all of it is tried: nothing is hidden from root");
        return;
    }
    // What has more capabilities than it was started with, or other users, is not dumpable; this asks for it.
    let hide = "import ctypes, os, time; ctypes.CDLL(None).prctl(4, 0); print(os.getpid(), flush=True); time.sleep(600)";
    let worker = Worker::start(None, &format!("exec python3 -c '{hide}'"));
    assert_eq!(worker.origin(), None);
    let worker = Worker::start(Some("store/main"), &format!("python3 -c '{hide}' & wait"));
    assert_eq!(worker.origin(), inside("main"), "its worker hides nothing");
    let worker = Worker::start(None, &format!("sh -c \"python3 -c '{hide}' & wait\" & wait"));
    assert_eq!(worker.origin(), Some(Origin::Outside), "its parents are no reapers");
}

#[test]
fn who_is_in_the_control_group_of_an_instance_is_inside_it() {
    let found = |ground: &str, groups: &str| {
        let lineage = Lineage { ground: Some(ground.into()), ..Lineage::new("store") };
        lineage.grouped(groups.as_bytes()).map(Origin::Inside)
    };
    let group = group(&Name::new("main").unwrap(), "store");
    for groups in
        [format!("0::/x.service/{group}\n"), format!("1:name=systemd:/\n0::/x.service/{group}/below\n")]
    {
        assert_eq!(found("/x.service", &groups), inside("main"), "{groups}");
    }
    assert_eq!(found("/", &format!("0::/{group}\n")), inside("main"), "in a container");
    let elsewhere = [
        "0::/x.service/supervisor\n",
        "0::/x.service/gateway-main-another\n",
        "4:memory:/x.service/gateway-main-store\n",
        "",
        // Another user's.
        "0::/user.slice/user-1001.slice/gateway-main-store\n",
        "0::/x.service.d/gateway-main-store\n",
        "0::/x.service/supervisor/gateway-main-store\n",
    ];
    for elsewhere in elsewhere {
        assert_eq!(found("/x.service", elsewhere), None, "{elsewhere}");
    }
}

#[test]
fn who_has_more_parents_than_anybody_is_looked_at_once() {
    // Each shell starts the next one and waits for it; all of them end with the last.
    let script = "n=$1; [ $n -gt 0 ] || { echo $$; exec sleep 600; }; sh \"$0\" $((n - 1)); exit";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let begin = format!("sh {} {}", file.path().display(), Effort::All.parents() + 4);
    let worker = Worker::start(Some("store/main"), &begin);
    assert!(matches!(line(worker.told, Effort::All), Err(Untold::TooMuch)));
    assert_eq!(worker.origin(), None);
}
