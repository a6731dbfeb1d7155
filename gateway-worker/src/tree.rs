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

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};

/// Bytes enough for 52 fields of 20 digits, with a name of 16.
const LONGEST_STAT: usize = 1200;

/// What one look at the children found.
#[derive(Debug)]
pub(crate) enum Reaped {
    /// This one was dead, and is gone now.
    Dead(Pid, WaitStatus),
    /// There are children, all alive.
    Alive,
    /// There is no child, and so no descendant.
    Empty,
}

/// Reaps one dead child, if there is one.
pub(crate) fn reap() -> Reaped {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => return Reaped::Dead(pid, status),
            Ok(None) => return Reaped::Alive,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Reaped::Empty,
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
    use std::process::{Command, Stdio};

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
}
