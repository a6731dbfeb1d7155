//! The gateway's descendants: none outlives it.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use supervisor_proto::worker::exited::How;

use crate::harness::{KILLED, Place, alive, eventually, pid, signal};

/// A shell line that leaves behind a process in a session of its own, whose parent is gone.
const FORK_TWICE: &str =
    "setsid sh -c 'sleep 1000 & echo $! >grandchild; sh -c \"sleep 1000 & echo \\$! >deeper; wait\"' &";

fn two_descendants(place: &Place) -> [i32; 2] {
    [place.number("grandchild"), place.number("deeper")]
}

#[test]
fn a_stop_takes_double_forked_grandchildren_in_their_own_sessions_with_it() {
    let place = Place::new();
    let (_worker, mut link, _) = place.start_shell(&format!("trap 'exit 0' TERM; {FORK_TWICE} echo; wait"));
    let descendants = two_descendants(&place);
    assert!(descendants.iter().all(|&pid| alive(pid)));
    link.stop(1, Duration::from_secs(60));
    let exited = link.exited();
    assert!(descendants.iter().all(|&pid| !alive(pid)));
    assert_eq!((exited.how, exited.ordered), (Some(How::Code(0)), true));
    assert!(exited.stragglers >= 2, "{exited:?}");
}

#[test]
fn a_crash_takes_double_forked_grandchildren_with_it() {
    let place = Place::new();
    let (_worker, mut link, started) = place.start_shell(&format!("{FORK_TWICE} exec sleep 1000"));
    let descendants = two_descendants(&place);
    signal(pid(&started), Signal::KILL);
    let exited = link.exited();
    assert!(descendants.iter().all(|&pid| !alive(pid)));
    assert_eq!((exited.how, exited.ordered), (KILLED, false));
    assert!(exited.stragglers >= 2, "{exited:?}");
}

#[test]
fn a_kill_takes_the_whole_tree_at_once() {
    let place = Place::new();
    let (_worker, mut link, started) =
        place.start_shell(&format!("trap '' TERM; {FORK_TWICE} sleep 1000; :"));
    let descendants = two_descendants(&place);
    link.kill(1);
    let exited = link.exited();
    assert_eq!((exited.how, exited.ordered), (KILLED, true));
    assert!(!alive(pid(&started)) && descendants.iter().all(|&pid| !alive(pid)));
}

#[test]
fn the_gateway_dies_with_its_worker() {
    let place = Place::new();
    let (mut worker, _link, started) = place.start_shell("exec sleep 1000");
    signal(worker.pid(), Signal::KILL);
    worker.wait();
    eventually("the gateway is dead", || !alive(pid(&started)));
}

#[test]
fn a_gateway_that_ignores_sigterm_is_killed_after_the_grace_and_not_before() {
    let place = Place::new();
    let (_worker, mut link, _) =
        place.start_shell("trap 'echo no' TERM; echo up; while :; do sleep 0.05; done");
    eventually("the gateway is up", || place.captured() == "up\n");
    let asked = Instant::now();
    link.stop(1, Duration::from_millis(700));
    let exited = link.exited();
    assert!(asked.elapsed() >= Duration::from_millis(700));
    assert_eq!((exited.how, exited.ordered), (KILLED, true));
}

#[test]
fn a_second_stop_shortens_the_grace_and_sends_no_second_sigterm() {
    let place = Place::new();
    let (_worker, mut link, _) =
        place.start_shell("trap 'echo no' TERM; echo up; while :; do sleep 0.05; done");
    eventually("the gateway is up", || place.captured() == "up\n");
    link.stop(1, Duration::from_secs(3600));
    eventually("the gateway has heard", || place.captured() == "up\nno\n");
    link.stop(1, Duration::from_millis(300));
    link.stop(1, Duration::from_secs(3600));
    assert_eq!(link.exited().how, KILLED);
    assert_eq!(place.captured(), "up\nno\n");
}

#[test]
fn a_suspended_gateway_can_be_stopped() {
    let place = Place::new();
    let (_worker, mut link, started) =
        place.start_shell("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done");
    eventually("the gateway is up", || place.captured() == "up\n");
    signal(pid(&started), Signal::STOP);
    link.stop(1, Duration::from_secs(3600));
    assert_eq!(link.exited().how, Some(How::Code(9)));
}

#[test]
fn orphans_that_die_while_the_gateway_lives_are_reaped_in_silence() {
    let place = Place::new();
    let script = "for i in 1 2 3 4 5 6 7 8; do (sh -c 'echo $$ >>orphans' &); done; wait; \
                  echo done >done; exec sleep 1000";
    let (worker, mut link, _) = place.start_shell(script);
    eventually("the orphans have run", || {
        fs::read_to_string(place.home().join("orphans")).unwrap_or_default().lines().count() == 8
            && place.home().join("done").exists()
    });
    let children = format!("/proc/{0}/task/{0}/children", worker.pid());
    eventually("only the gateway is left", || {
        fs::read_to_string(&children).unwrap().split_ascii_whitespace().count() == 1
    });
    link.kill(1);
    let exited = link.exited();
    assert_eq!((exited.how, exited.stragglers), (KILLED, 0));
}

#[test]
fn a_hundred_descendants_in_a_hundred_sessions_are_all_counted_and_gone() {
    let place = Place::new();
    let script =
        "for i in $(seq 100); do setsid sleep 1000 & echo $! >>pids; done; echo >done; exec sleep 1000";
    let (_worker, mut link, started) = place.start_shell(script);
    eventually("all are there", || place.home().join("done").exists());
    signal(pid(&started), Signal::KILL);
    let exited = link.exited();
    assert_eq!((exited.how, exited.stragglers), (KILLED, 100));
    let pids = fs::read_to_string(place.home().join("pids")).unwrap();
    assert!(pids.lines().all(|pid| !alive(pid.parse().unwrap())));
}

#[test]
fn a_process_that_keeps_forking_away_from_its_killer_is_caught() {
    let place = Place::new();
    // Each generation forks the next in the background and exits; the tag finds the survivors.
    let tag = format!("chain-{}", std::process::id());
    let chain = format!(
        "echo 'echo $$ >>links; sh chain.sh {tag} & exit 0' >chain.sh; sh chain.sh {tag} & exec sleep 1000"
    );
    let (_worker, mut link, started) = place.start_shell(&chain);
    eventually("the chain is long", || {
        fs::read_to_string(place.home().join("links")).unwrap_or_default().lines().count() > 20
    });
    signal(pid(&started), Signal::KILL);
    assert_eq!(link.exited().how, KILLED);
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!command.contains(&tag), "{command:?} has survived");
    }
}
