//! The gateway's descendants: reaping and killing them.
//!
//! The worker is their subreaper, so each of them is its child or becomes one when its parent dies, no
//! matter how often it forked or which session it is in. Killing all children, again after each
//! death, therefore ends the whole tree: a killed process can no longer fork, and what it forked before
//! is a child of the worker by the time its own death is heard of.
//!
//! No pidfd is needed: only this single-threaded process reaps its children, so the pid of a child it has
//! not reaped cannot have been given to another process.

use std::fs::{self, File};
use std::io::{self, Read};

use nix::libc;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};

use crate::kernel;

/// Bytes enough for 52 fields of 20 digits, with a name of 16.
const LONGEST_STAT: usize = 1200;

/// Generations that are looked through between a process and this one. A tool of an agent is about ten below its worker,
/// a page of a browser that it drives some more; who is forked deeper than this may be doing it to keep us looking.
const GENERATIONS: usize = 32;

/// Looks at a line in which somebody dies meanwhile. A daemon loses its parents once, as it becomes one.
const LOOKS: usize = 3;

/// What one look at the children found.
#[derive(Debug)]
pub(crate) enum Reaped {
    /// This one was dead, and is gone now.
    Dead(Pid, WaitStatus),
    /// One had made this process its tracer, and stood still for that. It goes on as if it had none.
    LetGo,
    /// There are children, all alive.
    Alive,
    /// There is no child, and so no descendant.
    Empty,
}

/// Reaps one dead child, if there is one.
pub(crate) fn reap() -> Reaped {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if status.stopped() => {
                let_go(pid, status);
                return Reaped::LetGo;
            }
            Ok(Some((pid, status))) => return Reaped::Dead(pid, status),
            Ok(None) => return Reaped::Alive,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Reaped::Empty,
        }
    }
}

/// Whether a child that has stopped did so because it has made this process its tracer (`PTRACE_TRACEME` of ptrace(2)): a
/// tracer is told of each signal before its tracee gets it. It gets it now, and is traced no more.
pub(crate) fn let_go(pid: Pid, stopped: WaitStatus) -> bool {
    // That of an execution is none of its own: it is told as if the process had sent it to itself.
    let of_execution = |signal: &i32| *signal == libc::SIGTRAP && kernel::has_sent_itself(pid);
    let signal = stopped.stopping_signal().filter(|signal| !of_execution(signal));
    kernel::detach(pid, signal.unwrap_or_default())
}

/// Kills and reaps until no descendant is left. For a process that is their subreaper.
pub(crate) fn end_all() -> io::Result<()> {
    loop {
        kill_children()?;
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends SIGKILL to every child.
pub(crate) fn kill_children() -> io::Result<()> {
    for pid in children()? {
        // A child that is a zombie already takes the signal too; nothing else can fail here.
        let _ = kill_process(pid, Signal::KILL);
    }
    Ok(())
}

/// The pids of all children, living or not yet reaped. One that is born or orphaned meanwhile may be
/// missing, so the caller looks again until [`reap`] answers `Empty`.
pub(crate) fn children() -> io::Result<Vec<Pid>> {
    match fs::read_to_string("/proc/thread-self/children") {
        Ok(list) => Ok(list.split_ascii_whitespace().filter_map(pid).collect()),
        // The kernel was built without CONFIG_PROC_CHILDREN.
        Err(_) => children_by_scan(),
    }
}

/// The same from the parent field of every process there is.
fn children_by_scan() -> io::Result<Vec<Pid>> {
    let own = getpid();
    let entries = fs::read_dir("/proc")?;
    Ok(entries
        .flatten()
        .filter_map(|entry| pid(entry.file_name().to_str()?))
        .filter(|&pid| parent(pid) == Some(own))
        .collect())
}

fn pid(digits: &str) -> Option<Pid> {
    Pid::from_raw(digits.parse().ok()?)
}

fn parent(of: Pid) -> Option<Pid> {
    pid(stat_field(of, 4)?.as_str())
}

/// Whether `of` is the gateway or descends from it, however it hides: all that does has this process above it. One that
/// is reaped already cannot be told from a stranger, and is none.
pub(crate) fn is_descendant(of: Pid) -> bool {
    (0..LOOKS).find_map(|_| descends(of)).unwrap_or(false)
}

/// `None` if somebody in its line has died under our eyes, so that its pid may have become another's.
fn descends(of: Pid) -> Option<bool> {
    let own = getpid();
    let (mut below, mut above) = (of, parent(of)?);
    for _ in 0..GENERATIONS {
        if above == own {
            return Some(true);
        }
        let next = parent(above);
        // Who dies loses its children before its pid is free: this one has been their parent all the while.
        if parent(below) != Some(above) {
            return None;
        }
        // The first process of all has no parent, nor has one whose parent is in another pid namespace.
        let Some(next) = next else { return Some(false) };
        (below, above) = (above, next);
    }
    Some(false)
}

/// When `of` was started, in clock ticks since boot: field 22 of its stat.
pub(crate) fn start_ticks(of: Pid) -> Option<u64> {
    stat_field(of, 22)?.parse().ok()
}

/// Field `number` of `/proc/<pid>/stat`, counted from one as in proc(5); those before the third are out
/// of reach. The second is a name in parentheses that may itself hold spaces and parentheses.
fn stat_field(of: Pid, number: usize) -> Option<String> {
    let mut stat = [0; LONGEST_STAT];
    // The kernel makes the whole line at once, so one read gets it.
    let length = File::open(format!("/proc/{of}/stat")).ok()?.read(&mut stat).ok()?;
    let stat = stat.get(..length)?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use rustix::process::{WaitId, WaitIdOptions, getppid, waitid};

    #[test]
    fn both_ways_of_listing_children_find_a_child() {
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(children().unwrap().contains(&pid));
        assert!(children_by_scan().unwrap().contains(&pid));
        assert!(start_ticks(pid).unwrap() > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children_by_scan().unwrap().contains(&pid));
    }

    #[test]
    fn a_descendant_is_told_by_its_line_as_long_as_it_is_not_reaped() {
        // A shell gives what is in the background no input of its own, and it would end at once.
        let script = "exec 3<&0; cat <&3 & echo $!; exec cat";
        let mut command = Command::new("/bin/sh");
        let mut child =
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let grandchild = pid(line.trim()).unwrap();
        let child_pid = Pid::from_child(&child);
        // To wait for the child would close it, and end both.
        let input = child.stdin.take();
        assert!(is_descendant(child_pid) && is_descendant(grandchild));
        assert!(!is_descendant(getpid()), "nobody descends from itself");
        assert!(!getppid().is_some_and(is_descendant) && !is_descendant(Pid::INIT));
        child.kill().unwrap();
        // Dead, and not reaped.
        waitid(WaitId::Pid(child_pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert!(is_descendant(child_pid));
        child.wait().unwrap();
        assert!(!is_descendant(child_pid));
        // This process is no subreaper: its grandchild is somebody else's now.
        assert!(!is_descendant(grandchild));
        kill_process(grandchild, Signal::KILL).unwrap();
        drop(input);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_followed_to_its_end() {
        // Each shell waits for the next, and the last for the end of its input.
        let deep = |generations: usize| {
            let script =
                r#"if [ $1 -gt 1 ]; then sh -c "$0" "$0" $(($1 - 1)); :; else echo $$; read line; fi"#;
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script, script, &generations.to_string()]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            let found = is_descendant(pid(line.trim()).unwrap());
            drop(child.stdin.take());
            child.wait().unwrap();
            found
        };
        assert!(deep(GENERATIONS));
        assert!(!deep(GENERATIONS + 1));
    }
}
