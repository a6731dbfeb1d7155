//! Inside which instance a process runs.
//!
//! Every process of an instance descends from its worker, which is their subreaper: a double fork or `setsid`
//! leaves the parents a process has, all the way up. The worker carries the instance's mark in the environment
//! it was started with, and what runs below it cannot take that away. So a process is traced from parent to
//! parent, and the mark nearest to the root says where it belongs:
//!
//! ```text
//!   init ─ supervisor ─ gateway-worker ─ gateway ─ agent ─ sh ─ openclawctl
//!                       mark: main                    env -i, or a false mark: not heard
//! ```
//!
//! What a person runs in an instance by `openclawctl run` has a worker of its own with the same mark.
//!
//! A list of the workers that are known to run would not do. While a supervisor adopts what its predecessor left,
//! or an instance is being started, it knows processes whose worker it does not know yet; the mark is there from
//! a worker's first moment on. It is heard from a worker alone: a process of the supervisor's user, outside all walls,
//! that runs the worker's program. Anybody can put a mark on itself, and have a setuid program carry it as root. So once
//! a worker has been killed, what it leaves is known by its control group, where instances have one, and else nobody.
//!
//! What is behind more walls than the supervisor itself is not taken for an operator, either: walls cannot be shed, and
//! agents of other supervisors stand behind some, too. That is asked of whoever could be an agent: of all users by a
//! supervisor that is root, else of its own user and of root.
//!
//! Where an instance has no walls this is a fence and no jail, and nowhere does it hold against an agent that has
//! somebody else with the same user id (a service manager, cron, sshd) start a process for it. The jail is a user of
//! its own.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    str,
};

use nix::unistd::geteuid;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};
use supervisor_core::ids::Name;

use crate::{
    openclaw::{contract::WORKER, environment::MARK},
    proc,
};

/// How much is looked at to trace a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effort {
    /// As much as most need, so that who makes itself hard to trace holds up nobody else: a fraction of a millisecond.
    Little,
    /// As much as anybody could need. Who needs more does so in order not to be traced.
    All,
}

impl Effort {
    /// The most parents.
    const fn parents(self) -> usize {
        match self {
            Self::Little => 32,
            Self::All => 256,
        }
    }

    /// How often it is looked again when a process among the parents ended meanwhile.
    const fn tries(self) -> usize {
        match self {
            Self::Little => 2,
            Self::All => 16,
        }
    }

    /// Of all environments that are looked through. Two hundred parents with a few KiB each are fewer than all.
    const fn bytes(self) -> usize {
        match self {
            Self::Little => 512 << 10,
            Self::All => 4 << 20,
        }
    }
}

/// It takes more effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Costly;

/// Of `/proc/PID/task/PID/stat`: 52 numbers and a name.
const MOST_STAT: u64 = 2 << 10;

/// Of `/proc/PID/status`: some sixty lines.
const MOST_STATUS: u64 = 16 << 10;

/// Of `/proc/PID/cgroup`: a line for each hierarchy.
const MOST_GROUPS: u64 = 64 << 10;

/// Who may do everything, beside the supervisor's own user.
const ROOT: u32 = 0;

/// Where a process belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// To no instance of this supervisor.
    Outside,
    /// It runs inside this one.
    Inside(Name),
}

/// Traces processes to the instances of one supervisor.
#[derive(Debug, Clone)]
pub(crate) struct Lineage {
    /// What follows the name of the variable in the marks of its instances, before theirs.
    prefix: Vec<u8>,
    /// How the names of their control groups end.
    suffix: String,
    /// The group that those lie in. Anybody may have a group called so elsewhere.
    ground: Option<PathBuf>,
}

/// How the name of an instance's control group begins. Its own follows, and then the store's: two supervisors may have
/// their groups in one place.
pub(crate) const GROUP: &str = "gateway-";

/// The group in which a supervisor is started that has those of its instances beside it.
pub(crate) const SEAT: &str = "supervisor";

/// The group of cgroup v2 in what `/proc/PID/cgroup` says.
fn unified(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// What the control group of an instance is called.
pub(crate) fn group(instance: &Name, store_id: &str) -> String {
    format!("{GROUP}{instance}-{store_id}")
}

/// A process, by its number and by what holds on to it.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: i32,
    /// Where the kernel gives one: then it is sure that the number still means this process.
    pub(crate) pidfd: Option<OwnedFd>,
}

impl Lineage {
    /// For the instances of the supervisor whose store has this name.
    pub(crate) fn new(store_id: &str) -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = unified(&groups).map(Path::new);
        // Started in one of its own, or around them.
        let ground = own.map(|own| match own.file_name().is_some_and(|name| name == SEAT) {
            true => own.parent().unwrap_or(own).to_owned(),
            false => own.to_owned(),
        });
        Self { prefix: format!("={store_id}/").into_bytes(), suffix: format!("-{store_id}"), ground }
    }

    /// Where `process` belongs; `None` if that cannot be told, as when it has ended. Reads some files of proc(5).
    pub(crate) fn trace(&self, process: &Process, effort: Effort) -> Result<Option<Origin>, Costly> {
        // One without a number here is in no PID namespace below this one: a person on a container's host, or an agent
        // of another supervisor there.
        if process.pid == 0 {
            return Ok(None);
        }
        let is_the_same = || process.pidfd.as_ref().is_none_or(is_alive);
        for _ in 0..effort.tries() {
            // Nobody needs an answer who has ended.
            let traced =
                if is_the_same() { self.trace_once(process.pid, effort) } else { Err(Untold::Hidden) };
            match (traced, effort) {
                (Ok(origin), _) => return Ok(is_the_same().then_some(origin)),
                (Err(Untold::TooMuch), Effort::Little) => return Err(Costly),
                (Err(Untold::Hidden | Untold::TooMuch), _) => return Ok(None),
                (Err(Untold::Ended), _) => {}
            }
        }
        match effort {
            Effort::Little => Err(Costly),
            Effort::All => Ok(None),
        }
    }

    fn trace_once(&self, pid: i32, effort: Effort) -> Result<Origin, Untold> {
        let mut above = 0;
        let mut hides = false;
        let mut looked_through = 0;
        for ancestor in line(pid, effort)?.into_iter().rev() {
            let (mark, bytes) = self.marked(ancestor);
            looked_through += bytes;
            match mark {
                Ok(Mark::Ours(name)) if is_worker(ancestor) => return Ok(Origin::Inside(name)),
                // What a worker has left, or somebody who lies.
                Ok(Mark::Ours(_)) => hides = true,
                // An agent is nobody's operator.
                Ok(Mark::Others) => return Err(Untold::Hidden),
                Ok(Mark::None) if looked_through > effort.bytes() => return Err(Untold::TooMuch),
                Ok(Mark::None) => {}
                // No worker: this supervisor can read those.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    let owner = user(ancestor).ok_or(Untold::Ended)?;
                    hides |= owner == geteuid().as_raw() && is_adopted(ancestor, above);
                }
                Err(_) => return Err(Untold::Ended),
            }
            above = ancestor;
        }
        if let Some(name) = self.grouped(&read(pid, "cgroup", MOST_GROUPS).map_err(|_| Untold::Ended)?) {
            return Ok(Origin::Inside(name));
        }
        // It may be what a killed worker has left, and keeps its mark to itself or has shed it. Walls cannot be shed.
        match hides || is_walled(pid).ok_or(Untold::Ended)? {
            true => Err(Untold::Hidden),
            false => Ok(Origin::Outside),
        }
    }

    /// Whether a process runs below a worker of this instance.
    pub(crate) fn is_below_a_worker(&self, pid: i32, name: &Name) -> bool {
        let is_its = |ancestor: &i32| {
            matches!(self.marked(*ancestor).0, Ok(Mark::Ours(of)) if of == *name) && is_worker(*ancestor)
        };
        line(pid, Effort::All).is_ok_and(|line| line.iter().skip(1).any(is_its))
    }

    /// The instance whose mark this process or one of its parents carries, worker or not. To be asked by who has no
    /// reason to lie: an agent may not look at its worker.
    pub(crate) fn carried(&self, pid: i32) -> Option<Name> {
        let ours = |ancestor| match self.marked(ancestor).0 {
            Ok(Mark::Ours(name)) => Some(name),
            Ok(Mark::None | Mark::Others) | Err(_) => None,
        };
        line(pid, Effort::All).ok()?.into_iter().rev().find_map(ours)
    }

    /// The instance in whose control group, or in one below that, a process is that has these (cgroups(7)).
    fn grouped(&self, groups: &[u8]) -> Option<Name> {
        let group = Path::new(unified(str::from_utf8(groups).ok()?)?);
        let within = group.strip_prefix(self.ground.as_ref()?).ok()?;
        let part = within.components().next()?.as_os_str().to_str()?;
        Name::new(part.strip_prefix(GROUP)?.strip_suffix(&self.suffix)?).ok()
    }

    /// The mark that a process carries, and how much was looked through for it.
    fn marked(&self, pid: i32) -> (io::Result<Mark>, usize) {
        // A worker's has one variable; what others hide beyond this says nothing of a worker.
        match read(pid, "environ", proc::ENVIRONMENT) {
            Ok(environment) => (Ok(self.mark_in(&environment)), environment.len()),
            Err(error) => (Err(error), 0),
        }
    }

    fn mark_in(&self, environment: &[u8]) -> Mark {
        let variables = environment.split(|byte| *byte == 0);
        let mut marks = variables.filter_map(|variable| variable.strip_prefix(MARK.as_bytes())).peekable();
        if marks.peek().is_none() {
            return Mark::None;
        }
        let name = marks.find_map(|mark| mark.strip_prefix(self.prefix.as_slice()));
        let name = name.and_then(|name| Name::new(str::from_utf8(name).ok()?).ok());
        name.map_or(Mark::Others, Mark::Ours)
    }
}

/// Why it cannot be told where a process belongs.
enum Untold {
    /// It, or one of its parents, has ended meanwhile.
    Ended,
    /// It would be no other if it were looked at again.
    Hidden,
    /// By this effort.
    TooMuch,
}

/// Whether a process may be an agent, by its walls: of this supervisor, or of another. `None` if it has ended.
pub(crate) fn is_walled(pid: i32) -> Option<bool> {
    let own = std::process::id().try_into().ok()?;
    let (caller, walls) = Walls::of(pid)?;
    Some(walls.are_an_agents(caller, &Walls::of(own)?.1, geteuid().as_raw()))
}

/// Whose instance a process says that it belongs to.
enum Mark {
    /// Nobody's.
    None,
    /// This one of this supervisor.
    Ours(Name),
    /// One of another supervisor, or none that there could be.
    Others,
}

/// What holds a process whatever it does (proc_pid_status(5)).
#[derive(Debug)]
struct Walls {
    no_new_privileges: bool,
    /// How many filters of system calls.
    filters: u32,
}

impl Walls {
    /// Those of a process, and its user, by one look: for who is in thousands of groups that is a long one.
    fn of(pid: i32) -> Option<(u32, Self)> {
        let status = read(pid, "status", MOST_STATUS).ok()?;
        let field = |name| field(&status, name)?.parse().ok();
        // Before Linux 5.9 it is only told whether there are any.
        let filters = field("Seccomp_filters:").or_else(|| field("Seccomp:"))?;
        Some((field("Uid:")?, Self { no_new_privileges: field("NoNewPrivs:")? != 0, filters }))
    }

    /// Whether a process of the user `caller` behind these may be an agent, to a supervisor of the user `me` behind `own`.
    fn are_an_agents(&self, caller: u32, own: &Self, me: u32) -> bool {
        match (me, caller) {
            // Agents of this supervisor may be root, and what is root becomes anybody: an operator, too.
            (ROOT, _) => own.are_within(self),
            // None of this supervisor's is root, but one of root's own may be. It does not descend from here, so nothing
            // follows from how many walls there are on either side. No wall of a worker's stands without this one.
            (_, ROOT) => self.no_new_privileges,
            // What others than this user run is no agent of this supervisor's.
            (_, _) => me == caller && own.are_within(self),
        }
    }

    /// Whether `other` is held by all that holds this, and by more.
    fn are_within(&self, other: &Self) -> bool {
        other.filters > self.filters || other.no_new_privileges && !self.no_new_privileges
    }
}

/// What `of` says of the process, or else of the nearest of its parents of which it says anything. A short look, which
/// takes as long for one as for another.
pub(crate) fn nearest<T>(pid: i32, of: impl Fn(i32) -> Option<T>) -> Result<Option<T>, Costly> {
    let mut found = None;
    let is_found = |ancestor| {
        found = of(ancestor);
        found.is_some()
    };
    line_up_to(pid, Effort::Little, is_found).map_err(|_| Costly)?;
    Ok(found)
}

/// A process and its parents, the root last.
fn line(pid: i32, effort: Effort) -> Result<Vec<i32>, Untold> {
    line_up_to(pid, effort, |_| false)
}

/// The same, up to the first that is sought.
fn line_up_to(pid: i32, effort: Effort, mut is_sought: impl FnMut(i32) -> bool) -> Result<Vec<i32>, Untold> {
    let mut line = Vec::new();
    let (mut next, mut child_started) = (pid, u64::MAX);
    while next != 0 && !is_sought(next) {
        let (parent, started) = parent(next).ok_or(Untold::Ended)?;
        // No child is older than its parent: this is somebody else with the number of a parent that has ended.
        if started > child_started {
            return Err(Untold::Ended);
        }
        if line.len() == effort.parents() {
            return Err(Untold::TooMuch);
        }
        line.push(next);
        (next, child_started) = (parent, started);
    }
    Ok(line)
}

/// The parent of a process, and when the process was started, in clock ticks.
fn parent(pid: i32) -> Option<(i32, u64)> {
    // Of the first thread: that of the process is looked together from all of them.
    let stat = read(pid, &format!("task/{pid}/stat"), MOST_STAT).ok()?;
    // The name before may hold anything, parentheses included.
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = str::from_utf8(stat.get(end_of_name + 1..)?).ok()?.split_ascii_whitespace();
    // Fields 4 and 22 of proc_pid_stat(5); the first one here is field 3.
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((parent, started))
}

/// Whether a process may be an orphan of a worker, from what its parent is: such are given to a process from which the
/// supervisor descends, too (PR_SET_CHILD_SUBREAPER). A login of the supervisor's user, which nobody may read
/// either, has a parent of its own; that from which the supervisor was started is no orphan of it.
fn is_adopted(pid: i32, parent: i32) -> bool {
    let Some(own) = i32::try_from(std::process::id()).ok().and_then(|own| line(own, Effort::All).ok()) else {
        return true;
    };
    !own.contains(&pid) && own.contains(&parent)
}

/// Whether a process is a worker, if what it carries says so: nobody else has root run this program.
fn is_worker(pid: i32) -> bool {
    is_called_worker(pid) && user(pid) == Some(geteuid().as_raw()) && is_walled(pid) == Some(false)
}

/// Whether a process runs a program of the name of workers, as far as that can be seen. Anybody may call his own so.
pub(crate) fn is_called_worker(pid: i32) -> bool {
    let runs = |program: &Path| {
        let name = program.file_name().unwrap_or_default().as_bytes();
        // An upgrade replaces the file.
        name.strip_suffix(b" (deleted)").unwrap_or(name) == WORKER.as_bytes()
    };
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| runs(&program))
}

/// The user that a process runs as, its real one. Others than the kernel cannot hide it.
fn user(pid: i32) -> Option<u32> {
    field(&read(pid, "status", MOST_STATUS).ok()?, "Uid:")?.parse().ok()
}

/// The first word of a line of `/proc/PID/status`.
pub(crate) fn field<'a>(status: &'a [u8], name: &str) -> Option<&'a str> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
    str::from_utf8(line).ok()?.split_ascii_whitespace().next()
}

fn read(pid: i32, file: &str, most: u64) -> io::Result<Vec<u8>> {
    proc::read(format!("/proc/{pid}/{file}"), most)
}

/// A descriptor of a process can be read from once that has ended (pidfd_open(2)).
fn is_alive(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    retry_on_intr(|| poll(&mut polled, Some(&now))) == Ok(0)
}

#[cfg(test)]
mod tests;
