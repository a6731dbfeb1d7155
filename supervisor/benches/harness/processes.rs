//! Processes as `/proc` shows them, and the end of all that were started here.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid, getppid},
};

/// How long a killed process may take to be gone.
const END: Duration = Duration::from_secs(30);

/// What `/proc/PID/stat` tells.
#[derive(Debug, Clone, Copy)]
struct Stat {
    parent: i32,
    zombie: bool,
    ticks: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; see proc_pid_stat(5).
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let utime: u64 = fields.nth(9)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(Stat { parent, zombie, ticks: utime + stime })
}

/// Processor time that a process has used so far.
pub(crate) fn cpu_time(pid: i32) -> anyhow::Result<Duration> {
    let stat = stat(pid).with_context(|| format!("failed to read the times of process {pid}"))?;
    // USER_HZ is 100 on every Linux that Rust runs on.
    Ok(Duration::from_millis(stat.ticks * 10))
}

/// A line of a file of `/proc/PID` that gives a size, in bytes.
fn size(pid: i32, file: &str, key: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("{path} has no `{key}`"))? * 1024)
}

/// Memory of a process, what it shares counted in proportion.
pub(crate) fn pss(pid: i32) -> anyhow::Result<u64> {
    size(pid, "smaps_rollup", "Pss:")
}

/// Memory of a process, what it shares counted in full.
pub(crate) fn rss(pid: i32) -> anyhow::Result<u64> {
    size(pid, "status", "VmRSS:")
}

/// The only living child of a process.
pub(crate) fn child_of(parent: i32) -> anyhow::Result<i32> {
    let mut children = all().into_iter().filter(|(_, stat)| stat.parent == parent && !stat.zombie);
    let (child, _) = children.next().with_context(|| format!("process {parent} has no child"))?;
    anyhow::ensure!(children.next().is_none(), "process {parent} has more than one child");
    Ok(child)
}

/// Every process there is.
fn all() -> HashMap<i32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Everything alive below `root`, but for this process.
fn descendants(root: i32) -> Vec<i32> {
    let all = all();
    let below = |pid: i32| {
        let mut above = all.get(&pid).map(|stat| stat.parent);
        while let Some(parent) = above.filter(|parent| *parent > 1) {
            if parent == root {
                return true;
            }
            above = all.get(&parent).map(|stat| stat.parent);
        }
        false
    };
    let own = getpid().as_raw();
    all.iter()
        .filter(|(pid, stat)| !stat.zombie && **pid != own && below(**pid))
        .map(|(pid, _)| *pid)
        .collect()
}

/// Kills all that was started by the harness, in either of its two processes, and waits until it is gone.
pub(crate) fn end_all() {
    let root = match std::env::var_os(crate::guard::DIRECTORY) {
        Some(_) => getppid(),
        None => getpid(),
    };
    let deadline = Instant::now() + END;
    loop {
        let left = descendants(root.as_raw());
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
        {
        }
        if left.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            eprintln!("these processes do not end: {left:?}");
            return;
        }
        std::thread::yield_now();
    }
}
