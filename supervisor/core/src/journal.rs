//! What happened, for people: a stable name, a weight and one sentence for each thing.

mod channel;
mod recovery;

use alloc::string::String;
use core::{fmt, time::Duration};

use crate::{
    event::{Asker, Exit, ExitStatus, LaunchFailure},
    failover::Cause,
    ids::{Incarnation, Name, Revision},
    ports::{Block, Pool},
    time::{Humane, Moment},
};

pub use channel::Channel;
pub use recovery::Recovery;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the history.
    pub revision: Revision,
    /// When.
    pub at: Moment,
    /// To whom; `None` for the supervisor itself.
    pub instance: Option<Name>,
    /// To which life; 0 if to none.
    pub incarnation: Incarnation,
    /// What.
    pub kind: Kind,
}

/// How much an entry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Somebody may want to look.
    Warning,
    /// Somebody should look.
    Error,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's sentence stands in `Display` below")]
pub enum Kind {
    Restored { instances: usize },
    Halting,
    PoolChanged(Pool),
    StoreFailing(String),
    StoreRecovered,
    Created(Block),
    Updated { generation: u64 },
    Moved { from: Block, to: Block },
    Deleting,
    Deleted,
    WishedUp { by: Asker },
    WishedDown { by: Asker },
    WishedRestart { by: Asker },
    Started { pid: i32 },
    Ready { after: Duration },
    Exited(Exit),
    LaunchFailed(LaunchFailure),
    BackingOff { delay: Duration },
    BudgetSpent { budget: u32, window: Duration },
    GaveUp(Exit),
    LeftDown(Exit),
    StartupFailed { message: String },
    Hung { message: String },
    Unhealthy { message: String },
    Healthy,
    NotAsked { why: String },
    Stopped,
    StopOverdue,
    Adopted { pid: i32 },
    WorkerLost,
    FailoverBegan { rescue: Name, cause: Cause },
    FailedOver { rescue: Name },
    FailoverCancelled { rescue: Name },
    RescueLost { rescue: Name },
    NoRescue { cause: Cause },
    FailedBack { rescue: Name },
    Recovery(Recovery),
    Channel(Channel),
    StaleReport { about: Incarnation },
    FilesLeft { name: Name, why: String },
}

impl Kind {
    /// The stable machine name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Restored { .. } => "supervisor.restored",
            Self::Halting => "supervisor.halting",
            Self::PoolChanged(_) => "supervisor.pool_changed",
            Self::StoreFailing(_) => "supervisor.store_failing",
            Self::StoreRecovered => "supervisor.store_recovered",
            Self::Created(_) => "instance.created",
            Self::Updated { .. } => "instance.updated",
            Self::Moved { .. } => "instance.moved",
            Self::Deleting => "instance.deleting",
            Self::Deleted => "instance.deleted",
            Self::WishedUp { .. } => "instance.wished_up",
            Self::WishedDown { .. } => "instance.wished_down",
            Self::WishedRestart { .. } => "instance.wished_restart",
            Self::Started { .. } => "instance.started",
            Self::Ready { .. } => "instance.ready",
            Self::Exited(_) => "instance.exited",
            Self::LaunchFailed(_) => "instance.launch_failed",
            Self::BackingOff { .. } => "instance.backing_off",
            Self::BudgetSpent { .. } => "instance.budget_spent",
            Self::GaveUp(_) => "instance.gave_up",
            Self::LeftDown(_) => "instance.left_down",
            Self::StartupFailed { .. } => "instance.startup_failed",
            Self::Hung { .. } => "instance.hung",
            Self::Unhealthy { .. } => "instance.unhealthy",
            Self::Healthy => "instance.healthy",
            Self::NotAsked { .. } => "instance.not_asked",
            Self::Stopped => "instance.stopped",
            Self::StopOverdue => "instance.stop_overdue",
            Self::Adopted { .. } => "instance.adopted",
            Self::WorkerLost => "instance.worker_lost",
            Self::FailoverBegan { .. } => "failover.began",
            Self::FailedOver { .. } => "failover.done",
            Self::FailoverCancelled { .. } => "failover.cancelled",
            Self::RescueLost { .. } => "failover.rescue_lost",
            Self::NoRescue { .. } => "failover.no_rescue",
            Self::FailedBack { .. } => "failover.failed_back",
            Self::Recovery(recovery) => recovery.name(),
            Self::Channel(channel) => channel.name(),
            Self::StaleReport { .. } => "instance.stale_report",
            Self::FilesLeft { .. } => "supervisor.files_left",
        }
    }

    /// How much it matters.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Exited(exit) if !exit.ordered => Severity::Warning,
            Self::Recovery(recovery) => recovery.severity(),
            Self::Channel(channel) => channel.severity(),
            Self::Restored { .. }
            | Self::Halting
            | Self::PoolChanged(_)
            | Self::StoreRecovered
            | Self::Created(_)
            | Self::Updated { .. }
            | Self::Moved { .. }
            | Self::Deleting
            | Self::Deleted
            | Self::WishedUp { .. }
            | Self::WishedDown { .. }
            | Self::WishedRestart { .. }
            | Self::Started { .. }
            | Self::Ready { .. }
            | Self::Exited(_)
            | Self::BackingOff { .. }
            | Self::Healthy
            | Self::LeftDown(_)
            | Self::Stopped
            | Self::Adopted { .. }
            | Self::FailoverCancelled { .. }
            | Self::FailedBack { .. }
            | Self::StaleReport { .. } => Severity::Info,
            Self::Unhealthy { .. }
            | Self::NotAsked { .. }
            | Self::StopOverdue
            | Self::WorkerLost
            | Self::FailoverBegan { .. }
            | Self::FailedOver { .. }
            | Self::RescueLost { .. } => Severity::Warning,
            Self::StoreFailing(_)
            | Self::LaunchFailed(_)
            | Self::BudgetSpent { .. }
            | Self::GaveUp(_)
            | Self::StartupFailed { .. }
            | Self::Hung { .. }
            | Self::NoRescue { .. }
            | Self::FilesLeft { .. } => Severity::Error,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored { instances: 1 } => f.write_str("the supervisor runs and knows 1 instance"),
            Self::Restored { instances } => write!(f, "the supervisor runs and knows {instances} instances"),
            Self::Halting => f.write_str("all instances are being stopped"),
            Self::PoolChanged(pool) => write!(f, "the port pool is now {} to {}", pool.first, pool.last),
            Self::StoreFailing(message) => write!(f, "changes cannot be stored: {message}"),
            Self::StoreRecovered => f.write_str("changes can be stored again"),
            Self::Created(block) => write!(f, "created with ports {block}"),
            Self::Updated { generation } => write!(f, "the spec was changed to generation {generation}"),
            Self::Moved { from, to } => write!(f, "moved from ports {from} to {to}"),
            Self::Deleting => f.write_str("to be deleted once it has stopped"),
            Self::Deleted => f.write_str("deleted"),
            Self::WishedUp { by } => write!(f, "{by} wants it up"),
            Self::WishedDown { by } => write!(f, "{by} wants it down"),
            Self::WishedRestart { by } => write!(f, "{by} wants it restarted"),
            Self::Started { pid } => write!(f, "started as process {pid}"),
            Self::Ready { after } => write!(f, "ready {} after its start", Humane(*after)),
            Self::Exited(exit) => exit.fmt(f),
            Self::LaunchFailed(failure) => write!(f, "could not be started: {failure}"),
            Self::BackingOff { delay } => write!(f, "will be started again in {}", Humane(*delay)),
            Self::BudgetSpent { budget, window } => {
                write!(f, "restarted {budget} times within {}; waits until that has passed", Humane(*window))
            }
            Self::GaveUp(exit) => write!(f, "{}; another start would not mend that", exit.status),
            Self::LeftDown(exit) => write!(f, "{}; its restart policy leaves it so", exit.status),
            Self::StartupFailed { message } => write!(f, "did not become ready: {message}"),
            Self::Hung { message } => write!(f, "hangs and is killed: {message}"),
            Self::Unhealthy { message } => write!(f, "runs but is not ready: {message}"),
            Self::Healthy => f.write_str("ready again"),
            Self::NotAsked { why } => write!(f, "cannot be asked how it is, and is left as it is: {why}"),
            Self::Stopped => f.write_str("stopped; none of its processes is alive"),
            Self::StopOverdue => f.write_str("did not stop in time and is killed"),
            Self::Adopted { pid } => write!(f, "runs on as process {pid} under this supervisor"),
            Self::WorkerLost => f.write_str("its worker died; what is left of it is killed"),
            Self::FailoverBegan { rescue, cause } => write!(f, "{cause}; `{rescue}` is to stand in"),
            Self::FailedOver { rescue } => write!(f, "`{rescue}` stands in"),
            Self::FailoverCancelled { rescue } => {
                write!(f, "ready again before `{rescue}` was; back in place")
            }
            Self::RescueLost { rescue } => write!(f, "`{rescue}` died while it stood in"),
            Self::NoRescue { cause } => write!(f, "{cause}, and no rescue is up"),
            Self::FailedBack { rescue } => write!(f, "back in its place; `{rescue}` stands by"),
            Self::Recovery(recovery) => recovery.fmt(f),
            Self::Channel(channel) => channel.fmt(f),
            Self::FilesLeft { name, why } => write!(f, "not all files of `{name}` could be deleted: {why}"),
            Self::StaleReport { about } => {
                write!(f, "a report about {about} came too late and changed nothing")
            }
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        match self.stragglers {
            0 => Ok(()),
            1 => f.write_str("; 1 process it left was killed"),
            n => write!(f, "; {n} processes it left were killed"),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal { number, core } => {
                match signal_name(*number) {
                    Some(name) => write!(f, "killed by {name}")?,
                    None => write!(f, "killed by signal {number}")?,
                }
                if *core { f.write_str(" and dumped core") } else { Ok(()) }
            }
            Self::OutOfMemory => f.write_str("killed by SIGKILL, out of memory"),
            Self::Unknown => f.write_str("died, and nobody was left to learn how"),
        }
    }
}

/// The name of a signal that commonly ends a process; see signal(7), numbers of x86 and ARM.
fn signal_name(number: i32) -> Option<&'static str> {
    const NAMES: [(i32, &str); 14] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (5, "SIGTRAP"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (15, "SIGTERM"),
        (24, "SIGXCPU"),
        (31, "SIGSYS"),
    ];
    NAMES.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}
