//! Processes as `/proc` shows them.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
};

use anyhow::Context;
use rustix::{
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::flood::STRAY;

/// The variable that marks every process of an instance.
const MARK: &str = "OPENCLAWCTL_MARK=";

/// A process, so named that the next bearer of its pid is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// In clock ticks since boot.
    pub(crate) started: u64,
}

/// What `/proc/PID/stat` tells of a living process.
#[derive(Debug, Clone, Copy)]
struct Stat {
    identity: Identity,
    parent: i32,
}

/// What a process of an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Worker,
    /// The main process.
    Gateway,
    /// Started by the gateway.
    Other,
    /// A worker's child that has not become a program of its own yet.
    Unborn,
}

/// A living process of an instance.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) identity: Identity,
    pub(crate) part: Part,
}

/// None for the dead: a zombie is nobody.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; see proc_pid_stat(5).
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Stat { identity: Identity { pid, started }, parent })
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn mark(pid: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let marked = environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(MARK.as_bytes()));
    marked.map(|mark| String::from_utf8_lossy(mark).into_owned())
}

fn program(pid: i32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether it is alive, and the same.
pub(crate) fn is_alive(identity: Identity) -> bool {
    stat(identity.pid).is_some_and(|stat| stat.identity == identity)
}

/// The living processes of every instance of the store, by instance.
pub(crate) fn of_store(store: &str) -> BTreeMap<String, Vec<Member>> {
    let mut found: HashMap<i32, (Stat, String, String)> = HashMap::new();
    for pid in pids() {
        let Some(instance) =
            mark(pid).and_then(|mark| Some(mark.strip_prefix(store)?.strip_prefix('/')?.to_owned()))
        else {
            continue;
        };
        if let Some(stat) = stat(pid) {
            found.insert(pid, (stat, instance, program(pid)));
        }
    }
    let mut members: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    for (stat, instance, program) in found.values() {
        let parent = found.get(&stat.parent).map(|(_, _, program)| program.as_str());
        let part = match (program.as_str(), parent) {
            ("gateway-worker", Some("gateway-worker")) => Part::Unborn,
            ("gateway-worker", _) => Part::Worker,
            (STRAY | "setsid", _) => Part::Other,
            (_, Some("gateway-worker")) => Part::Gateway,
            // Its worker is dead; it is about to be.
            (_, _) => Part::Other,
        };
        members.entry(instance.clone()).or_default().push(Member { identity: stat.identity, part });
    }
    members
}

/// Everything alive below `root`, but for `except`.
pub(crate) fn descendants(root: i32, except: i32) -> Vec<i32> {
    let all: HashMap<i32, Stat> = pids().filter_map(|pid| Some((pid, stat(pid)?))).collect();
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
    all.keys().copied().filter(|pid| *pid != except && below(*pid)).collect()
}

/// A few words about a process, for whoever reads why a run failed.
pub(crate) fn describe(pid: i32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    format!("{pid} ({}, mark {:?})", command.trim(), mark(pid))
}

/// Holds a process, so that no signal can reach another one. `None` when it is dead.
pub(crate) fn hold(identity: Identity) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(identity.pid) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Looked at after it is held: the pid may have had a new bearer before that.
        Ok(held) => Ok(is_alive(identity).then_some(held)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to a process; says whether it was alive.
pub(crate) fn signal(identity: Identity, signal: Signal) -> anyhow::Result<bool> {
    let failed = || format!("failed to signal process {}", identity.pid);
    let Some(held) = hold(identity).with_context(failed)? else { return Ok(false) };
    match pidfd_send_signal(&held, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error).with_context(failed),
    }
}

/// The process of this pid, if there is one.
pub(crate) fn identify(pid: i32) -> Option<Identity> {
    stat(pid).map(|stat| stat.identity)
}

/// Open descriptors. `None` for the dead.
pub(crate) fn descriptors(pid: i32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Memory that is a process's own, in bytes: its program's pages come and go as the host likes. `None` for the dead.
pub(crate) fn memory(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
