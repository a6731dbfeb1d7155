//! One incarnation: its main process, how far its end has come, and the numbers that fence orders.

use std::fmt;
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitStatus};
use supervisor_proto::worker::exited::How;
use supervisor_proto::worker::{Exited, Process, Wall};

use crate::clock;
use crate::group::Group;

/// The bit of a wait status that says a core was dumped, wait(2).
const CORE_DUMPED: i32 = 0x80;

/// The number of one life of the instance's process. Orders and reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Incarnation(pub(crate) u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the incarnation has said that it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not yet, or it was not asked to.
    Unsaid,
    /// It sent `READY=1`.
    Said,
}

/// How far an ordered end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nobody has asked for one.
    Unasked,
    /// SIGTERM was sent to the main process; SIGKILL goes to the tree at this moment.
    Patient(Instant),
    /// SIGKILL was sent to the tree.
    Killed,
}

/// How the main process ended, taken down the moment it was reaped.
#[derive(Debug)]
pub(crate) struct Death {
    status: WaitStatus,
    unix_ms: i64,
    monotonic_ns: u64,
    sweep: Sweep,
    stragglers: u32,
}

/// Whether what the main process left behind has been sent SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    NotNeeded,
    Begun,
}

impl Death {
    /// Takes the time now.
    pub(crate) fn now(status: WaitStatus) -> Self {
        let (unix_ms, monotonic_ns) = (clock::unix_ms(), clock::monotonic_ns());
        Self { status, unix_ms, monotonic_ns, sweep: Sweep::NotNeeded, stragglers: 0 }
    }

    /// From here on, whoever is reaped had to be killed.
    pub(crate) fn sweep(&mut self) {
        self.sweep = Sweep::Begun;
    }

    /// Another descendant has been reaped: a straggler, unless it was dead before the main process.
    pub(crate) fn note_other(&mut self) {
        if self.sweep == Sweep::Begun {
            self.stragglers += 1;
        }
    }
}

/// An incarnation of which something is still alive.
#[derive(Debug)]
pub(crate) struct Life {
    /// Its main process.
    pub(crate) pid: Pid,
    /// The same with everything that tells it from other processes of that number.
    pub(crate) process: Process,
    /// The walls around it.
    pub(crate) walls: Vec<Wall>,
    /// The group that it is in.
    pub(crate) group: Option<Group>,
    /// What has been done to end it while the main process lived.
    pub(crate) ending: Ending,
    /// Set once the main process is dead. Until no descendant is left either, the incarnation lives on.
    pub(crate) death: Option<Death>,
}

impl Life {
    /// A life that has just begun.
    pub(crate) fn begun(pid: Pid, process: Process, walls: Vec<Wall>, group: Option<Group>) -> Self {
        Self { pid, process, walls, group, ending: Ending::Unasked, death: None }
    }

    /// Sends SIGKILL to whatever is in its group.
    pub(crate) fn kill_group(&self) {
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// Whether `status` is that of a process which the kernel has killed because memory was short.
    fn was_out_of_memory(&self, status: WaitStatus) -> bool {
        let killed = status.terminating_signal() == Some(Signal::KILL.as_raw());
        let asked = self.ending != Ending::Unasked;
        killed && !asked && self.group.as_ref().is_some_and(Group::was_out_of_memory)
    }

    /// When patience with it ends.
    pub(crate) fn kill_at(&self) -> Option<Instant> {
        match self.ending {
            Ending::Patient(kill_at) => Some(kill_at),
            Ending::Unasked | Ending::Killed => None,
        }
    }

    /// The report of its end. `None` while the main process lives.
    pub(crate) fn exited(&self, incarnation: Incarnation) -> Option<Exited> {
        let death = self.death.as_ref()?;
        let how = match death.status.terminating_signal() {
            Some(signal) => How::Signal(signal),
            None => How::Code(death.status.exit_status().unwrap_or(0)),
        };
        Some(Exited {
            incarnation: incarnation.0,
            how: Some(how),
            core_dumped: death.status.signaled() && death.status.as_raw() & CORE_DUMPED != 0,
            exited_unix_ms: death.unix_ms,
            exited_monotonic_ns: death.monotonic_ns,
            stragglers: death.stragglers,
            ordered: self.ending != Ending::Unasked,
            pid: self.process.pid,
            out_of_memory: self.was_out_of_memory(death.status),
        })
    }
}
