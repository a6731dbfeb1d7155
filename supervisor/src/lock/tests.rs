use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::*;

#[test]
fn a_second_taker_is_told_who_was_first() {
    let directory = TempDir::new().unwrap();
    let _first = take(directory.path()).unwrap();
    let refused = take(directory.path()).unwrap_err();
    let said = refused.to_string();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    assert!(said.contains(directory.path().to_str().unwrap()), "{said}");
}

#[test]
fn a_lock_that_was_let_go_is_taken_again() {
    let directory = TempDir::new().unwrap();
    drop(take(directory.path()).unwrap());
    take(directory.path()).unwrap();
}

#[test]
fn a_lock_that_its_dead_taker_left_to_a_child_is_waited_for() {
    let directory = TempDir::new().unwrap();
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let path = directory.path().join(FILE);
    std::fs::write(&path, format!("{}\n", dead.id())).unwrap();
    // Holds the same open file, as a forked child does until it executes its program.
    let held = File::open(&path).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    let mut heir = Command::new("cat").stdin(Stdio::piped()).stdout(held).spawn().unwrap();
    let waiting = thread::spawn({
        let directory = directory.path().to_owned();
        move || take(&directory).map(drop)
    });
    drop(heir.stdin.take());
    heir.wait().unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_taker_that_has_been_killed_is_waited_for_until_it_has_let_go() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(FILE);
    // Nobody has reaped it.
    let mut killed = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    killed.kill().unwrap();
    let pid = Pid::from_raw(i32::try_from(killed.id()).unwrap());
    while !is_dead(pid) {
        thread::yield_now();
    }
    assert!(kill(pid, None).is_ok(), "there still is such a process");
    std::fs::write(&path, format!("{pid}\n")).unwrap();
    let held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    let waiting = thread::spawn({
        let directory = directory.path().to_owned();
        move || take(&directory).map(drop)
    });
    drop(held);
    waiting.join().unwrap().unwrap();
    killed.wait().unwrap();
}

#[test]
fn who_lives_is_not_taken_for_dead() {
    assert!(!is_dead(Pid::this()));
}

#[test]
fn a_file_that_names_nobody_says_so() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(FILE);
    std::fs::write(&path, "not a pid").unwrap();
    let _held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    assert!(take(directory.path()).unwrap_err().to_string().contains("process ?"));
}
