//! Starting, ending, and everything around the worker's own life.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use supervisor_proto::worker::attach::Role;
use supervisor_proto::worker::exited::How;
use supervisor_proto::worker::order::Order as Demand;
use supervisor_proto::worker::refused::Reason;
use supervisor_proto::worker::report::Report as Body;
use supervisor_proto::worker::state::Phase;
use supervisor_proto::worker::{Quit, Run, SpawnFailed};

use crate::harness::{KILLED, Place, TERMINATED, WORKER, Worker, alive, eventually, frame, pid, signal};

#[test]
fn a_gateway_is_started_and_the_way_it_ended_is_reported() {
    let place = Place::new();
    let fifo = place.fifo("go");
    let (worker, mut link) = Worker::spawn(Command::new(WORKER));
    link.order(Demand::Bootstrap(place.bootstrap(place.shell("read line <go; exit 7"))));

    let state = link.state();
    assert_eq!((state.phase(), state.incarnation, state.worker_pid), (Phase::Empty, 0, worker.pid()));
    let started = link.started();
    let process = started.process.unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[19], process.start_ticks.to_string());
    assert!(process.started_unix_ms > 1_700_000_000_000 && process.started_monotonic_ns > 0);

    fs::write(&fifo, "\n").unwrap();
    let exited = link.exited();
    assert_eq!((exited.incarnation, exited.how, exited.pid), (1, Some(How::Code(7)), process.pid));
    assert_eq!((exited.stragglers, exited.ordered, exited.core_dumped), (0, false, false));
    assert!(exited.exited_unix_ms >= process.started_unix_ms);
    assert!(exited.exited_monotonic_ns > process.started_monotonic_ns);
}

#[test]
fn a_gateway_killed_by_a_signal_is_reported_with_its_number() {
    let place = Place::new();
    let (_worker, mut link, started) = place.start_shell("exec sleep 1000");
    signal(pid(&started), Signal::KILL);
    let exited = link.exited();
    assert_eq!((exited.how, exited.ordered), (KILLED, false));
}

#[test]
fn a_stopped_gateway_is_reported_as_ended_by_order() {
    let place = Place::new();
    let (_worker, mut link, _) = place.start_shell("exec sleep 1000");
    link.stop(1, Duration::from_secs(30));
    let exited = link.exited();
    assert_eq!((exited.how, exited.ordered), (TERMINATED, true));
}

#[test]
fn the_next_incarnation_runs_the_last_launch_again_and_a_new_one_replaces_it() {
    let place = Place::new();
    let (_worker, mut link, _) = place.start_shell("echo once; exit 1");
    assert_eq!(link.exited().how, Some(How::Code(1)));
    link.run(5);
    assert_eq!(link.started().incarnation, 5);
    assert_eq!(link.exited().how, Some(How::Code(1)));
    link.order(Demand::Run(Run { incarnation: 6, launch: Some(place.shell("echo twice; exit 2")) }));
    assert_eq!(link.started().incarnation, 6);
    assert_eq!(link.exited().how, Some(How::Code(2)));
    link.run(7);
    assert_eq!(link.started().incarnation, 7);
    assert_eq!(link.exited().how, Some(How::Code(2)));
    assert_eq!(place.captured(), "once\nonce\ntwice\ntwice\n");
}

#[test]
fn a_gateway_inherits_nothing_but_its_launch() {
    let place = Place::new();
    let script = "env; pwd; umask; ls -l /proc/self/fd; grep -E '^Sig(Blk|Ign)' /proc/self/status; \
                  read one two three four pgrp session rest </proc/self/stat; echo $$ $pgrp";
    let mut dirty = Command::new("/bin/sh");
    dirty.args(["-c", "trap '' HUP INT USR1; exec 7</etc/passwd; exec \"$0\"", WORKER]).env("LEAK", "secret");
    place.fifo("go");
    let (worker, mut link) = Worker::spawn(dirty);
    link.order(Demand::Bootstrap(place.bootstrap(place.shell(&format!("{script}; read line <go")))));
    link.state();
    let started = link.started();
    let mut text = String::new();
    let last = format!("\n{} {}\n", pid(&started), pid(&started));
    eventually("the script has said everything", || {
        text = place.captured();
        text.ends_with(&last)
    });
    assert!(!text.contains("LEAK") && !text.contains("/etc/passwd"), "{text}");
    assert!(text.contains(&format!("\n{}\n0077\n", place.home().display())), "{text}");
    let signals = |kind: &str| {
        let digits = text.split_once(kind).unwrap().1.split_once('\n').unwrap().0;
        u64::from_str_radix(digits.trim(), 16).unwrap()
    };
    assert_eq!(signals("SigBlk:"), 0);
    // The C library's own two, 32 and 33, are ignored in whatever it spawns.
    assert_eq!(signals("SigIgn:") & 0x7fff_ffff, 0);
    let descriptors: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .map(
            |(left, right)| {
                if right.starts_with("/proc/") { "list" } else { left.rsplit(' ').next().unwrap() }
            },
        )
        .collect();
    assert_eq!(descriptors, BTreeSet::from(["0", "1", "2", "list"]), "{text}");

    for entry in fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap_or_default();
        assert_ne!(target.to_str(), Some("/etc/passwd"));
    }
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", worker.pid())).unwrap(), "gw:main\n");
    let mode = fs::metadata(place.run().join("worker.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_program_that_cannot_be_executed_is_named_and_the_worker_waits_for_a_better_one() {
    let place = Place::new();
    let (_worker, mut link) = Worker::spawn(Command::new(WORKER));
    let mut launch = place.shell("exit 3");
    launch.program = "/usr/bin/no-such-gateway".into();
    link.order(Demand::Bootstrap(place.bootstrap(launch)));
    link.state();
    let message = "failed to execute `/usr/bin/no-such-gateway`: No such file or directory".to_owned();
    assert_eq!(link.next(), Some(Body::SpawnFailed(SpawnFailed { incarnation: 1, errno: 2, message })));

    let mut launch = place.shell("exit 3");
    launch.working_directory = "/no/such/directory".into();
    link.order(Demand::Run(Run { incarnation: 2, launch: Some(launch) }));
    let message = "failed to enter `/no/such/directory`: No such file or directory".to_owned();
    assert_eq!(link.next(), Some(Body::SpawnFailed(SpawnFailed { incarnation: 2, errno: 2, message })));

    link.order(Demand::Run(Run { incarnation: 3, launch: Some(place.shell("exit 3")) }));
    assert_eq!(link.started().incarnation, 3);
    assert_eq!(link.exited().how, Some(How::Code(3)));
}

#[test]
fn a_launch_that_could_never_work_is_refused() {
    let place = Place::new();
    let (_worker, mut link, _) = place.start_shell("exit 0");
    link.exited();
    let mut launch = place.shell("exit 0");
    launch.program = "sh".into();
    link.order(Demand::Run(Run { incarnation: 2, launch: Some(launch) }));
    let refused = link.refused();
    assert_eq!((refused.reason(), refused.incarnation), (Reason::Invalid, 2));
    assert_eq!(refused.message, "the program `sh` is not an absolute path");

    let mut launch = place.shell("exit 0");
    launch.environment[0].name = "A=B".into();
    link.order(Demand::Run(Run { incarnation: 2, launch: Some(launch) }));
    assert_eq!(link.refused().reason(), Reason::Invalid);

    link.run(2);
    assert_eq!(link.started().incarnation, 2);
}

#[test]
fn an_unfit_bootstrap_is_refused_and_the_worker_exits() {
    let place = Place::new();
    let (mut worker, mut link) = Worker::spawn(Command::new(WORKER));
    let mut bootstrap = place.bootstrap(place.shell("echo ran >ran"));
    bootstrap.log.as_mut().unwrap().max_files = 1;
    link.order(Demand::Bootstrap(bootstrap));
    assert_eq!(link.refused().reason(), Reason::Invalid);
    assert_eq!(link.next(), None);
    assert_eq!(worker.wait().code(), Some(1));

    let (mut worker, mut link) = Worker::spawn(Command::new(WORKER));
    let mut bootstrap = place.bootstrap(place.shell("echo ran >ran"));
    bootstrap.run_dir = "/no/such/directory".into();
    link.order(Demand::Bootstrap(bootstrap));
    match link.next() {
        Some(Body::SpawnFailed(failed)) => {
            assert!(failed.message.contains("/no/such/directory"), "{failed:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(worker.wait().code(), Some(1));
    assert!(!place.home().join("ran").exists());
}

#[test]
fn a_supervisor_that_goes_away_before_the_bootstrap_is_whole_starts_nothing() {
    let place = Place::new();
    let (mut worker, mut link) = Worker::spawn(Command::new(WORKER));
    let bytes = frame(Demand::Bootstrap(place.bootstrap(place.shell("echo ran >ran"))));
    link.bytes(&bytes[..bytes.len() - 1]);
    drop(link);
    assert_eq!(worker.wait().code(), Some(1));
    assert!(!place.home().join("ran").exists());
    assert_eq!(fs::read_dir(place.run()).unwrap().count(), 0);
}

#[test]
fn a_worker_started_by_hand_says_who_should_start_it() {
    let output = Command::new(WORKER).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("is started by openclaw-supervisor"), "{text}");
}

#[test]
fn a_second_worker_on_one_run_directory_is_refused_and_the_first_is_named() {
    let place = Place::new();
    let (first, mut link, started) = place.start_shell("exec sleep 1000");
    let (mut second, mut other) = Worker::spawn(Command::new(WORKER));
    other.order(Demand::Bootstrap(place.bootstrap(place.shell("echo ran >ran"))));
    let refused = other.refused();
    assert_eq!(refused.reason(), Reason::Locked);
    assert_eq!(refused.message, format!("worker {} holds the run directory", first.pid()));
    assert_eq!(other.next(), None);
    assert_eq!(second.wait().code(), Some(1));
    assert!(!place.home().join("ran").exists());
    assert!(alive(pid(&started)));
    // The first still has its socket.
    place.attach(Role::Watch, 0);
    link.kill(1);
    assert_eq!(link.exited().how, KILLED);
}

#[test]
fn quit_is_refused_while_a_gateway_runs_and_leaves_no_socket_behind() {
    let place = Place::new();
    let (mut worker, mut link, _) = place.start_shell("exec sleep 1000");
    link.order(Demand::Quit(Quit {}));
    let refused = link.refused();
    assert_eq!((refused.reason(), refused.incarnation), (Reason::Running, 1));
    link.run(2);
    assert_eq!(link.refused().reason(), Reason::Running);
    link.kill(1);
    link.exited();
    let run = Demand::Run(Run { incarnation: 2, launch: None });
    link.bytes(&[frame(Demand::Quit(Quit {})), frame(run)].concat());
    if let Some(answer) = link.next() {
        assert!(matches!(answer, Body::Refused(_)), "{answer:?}");
        assert_eq!(link.next(), None);
    }
    assert_eq!(worker.wait().code(), Some(0));
    assert!(!place.run().join("worker.sock").exists());

    // The directory is free again, and what was not acknowledged is still known.
    let (_worker, mut link) = Worker::spawn(Command::new(WORKER));
    link.order(Demand::Bootstrap(place.bootstrap(place.shell("exit 0"))));
    let state = link.state();
    assert_eq!(state.exits.len(), 1);
    assert_eq!(state.exits[0].how, KILLED);
}

#[test]
fn sigterm_to_the_worker_stops_the_gateway_patiently_then_ends_the_worker() {
    let place = Place::new();
    let (mut worker, mut link, _) =
        place.start_shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done");
    eventually("the gateway is up", || place.captured() == "up\n");
    signal(worker.pid(), Signal::TERM);
    let exited = link.exited();
    assert_eq!((exited.how, exited.ordered), (Some(How::Code(0)), true));
    assert_eq!(link.next(), None);
    assert_eq!(worker.wait().code(), Some(0));
    assert_eq!(place.captured(), "up\nbye\n");
}

#[test]
fn hangup_and_interrupt_do_not_reach_the_worker() {
    let place = Place::new();
    let (worker, mut link, _) = place.start_shell("exec sleep 1000");
    signal(worker.pid(), Signal::HUP);
    signal(worker.pid(), Signal::INT);
    link.kill(1);
    assert_eq!(link.exited().how, KILLED);
}
