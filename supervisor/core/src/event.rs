//! Everything that can happen to the supervisor.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{CommandId, ConfigId, Credential, Incarnation, Name, Revision},
    policy::Policy,
    ports::Pool,
    time::Moment,
};

/// One thing that happened, with the moment given beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A caller asks for something; answered with exactly one [`Action::Reply`](crate::action::Action).
    Command(CommandId, Asker, Command),
    /// All changes up to this revision are durable.
    Stored(Revision),
    /// The store cannot write, and says why. It goes on trying.
    StoreFailing(String),
    /// The moment has come that [`next_deadline`](crate::Supervisor::next_deadline) named.
    Tick,
    /// What became of an adoption.
    Adopted(Name, Adoption),
    /// The incarnation's process runs.
    Launched(Name, Incarnation, Process),
    /// The incarnation could not be started; nothing of it runs.
    LaunchFailed(Name, Incarnation, LaunchFailure),
    /// The incarnation said READY=1.
    Notified(Name, Incarnation),
    /// What a probe found.
    Probed(Name, Incarnation, Report),
    /// The incarnation ended, and none of its processes is alive.
    Exited(Name, Exit),
    /// The worker cannot be reached any more; what it ran may still be alive.
    WorkerLost(Name, Incarnation),
    /// No process of the instance is alive: neither worker nor gateway nor what they started.
    Swept(Name, Incarnation),
    /// What the incarnation was doing is written down there.
    Examined(Name, Incarnation, String),
    /// Whether the incarnation, which ended well, wants to be run again.
    Handoff(Name, Incarnation, Handoff),
    /// What its configuration is like: it changed, or a launch reads it.
    ConfigSeen(Name, Sighting),
    /// Its configuration holds this again.
    Restored(Name, ConfigId),
    /// Its configuration could not be restored, and why.
    RestoreFailed(Name, String),
    /// Files of a deleted instance are left that were to go, and why.
    FilesLeft(Name, String),
}

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Adds an instance.
    Create(Definition),
    /// Changes an instance's spec, if it still is at `generation`.
    Update {
        /// The new definition of a known instance.
        definition: Definition,
        /// The generation that was read, if the caller cares.
        generation: Option<u64>,
    },
    /// Removes a stopped instance.
    Delete {
        /// Which.
        name: Name,
        /// The generation that was read, if the caller cares.
        generation: Option<u64>,
        /// What happens to its files.
        files: Files,
    },
    /// Several changes, all or none.
    Apply {
        /// The changes, checked and done in order.
        changes: Vec<Change>,
        /// A new port pool.
        pool: Option<Pool>,
        /// Only check.
        mode: ApplyMode,
    },
    /// Wishes an instance up.
    Start {
        /// Which.
        name: Name,
        /// What to create if it is not known.
        otherwise: Option<Definition>,
    },
    /// Wishes an instance down.
    Stop {
        /// Which.
        name: Name,
        /// How its process is ended.
        manner: Manner,
    },
    /// Ends the process and starts a new one.
    Restart {
        /// Which.
        name: Name,
        /// How its process is ended.
        manner: Manner,
    },
    /// Ends a life that is ready and starts the next, as planned: only this life, and only while nothing else is the
    /// matter with the instance. What is remembered of its failures stays.
    Recycle {
        /// Which.
        name: Name,
        /// The life to end.
        life: Incarnation,
    },
    /// Makes a rescue active in place of its primary.
    FailOver {
        /// Who is to be rescued.
        primary: Name,
        /// By whom; `None`: the first that can.
        rescue: Option<Name>,
    },
    /// Gives a primary its place back.
    FailBack {
        /// Whose place.
        primary: Name,
    },
    /// Puts an older configuration in place and, if it should run, starts it anew.
    RollBack {
        /// Which.
        name: Name,
        /// What it is to hold.
        to: ConfigId,
    },
    /// Takes a configuration for good.
    MarkGood {
        /// Whose.
        name: Name,
        /// What it holds.
        content: ConfigId,
    },
    /// Ends every instance and answers when all have stopped. Their wishes stay.
    Halt,
}

/// Who gives a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// Somebody outside of all instances.
    Operator,
    /// Something that runs inside this one: a rescue that mends its primary.
    Inside(Name),
    /// A part of the supervisor that does what was asked for earlier, as people call it: "its upgrade to 2026.9.6".
    Part(Arc<str>),
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("an operator"),
            Self::Inside(name) => write!(f, "`{name}`"),
            Self::Part(part) => f.write_str(part),
        }
    }
}

/// One step of [`Command::Apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds an instance, or replaces its definition.
    Put(Definition),
    /// Removes an instance, stopping it first.
    Remove(Name),
}

/// Whether a change is done or only checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyMode {
    /// Check and do.
    Do,
    /// Check.
    Validate,
}

/// What a caller knows of an instance it defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: Name,
    /// What was asked for, in the shell's own words; core keeps it and hands it back.
    pub spec: Arc<str>,
    /// What core needs to know of it.
    pub policy: Box<Policy>,
    /// Whether `rescues` may name instances that are not known yet.
    pub dangling: Dangling,
}

/// Whether `rescues` may name instances that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dangling {
    /// They must be known.
    Refused,
    /// They may come later.
    Accepted,
}

/// How a process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// A request to end, the grace, then the whole tree is killed.
    Graceful,
    /// The whole tree is killed at once.
    Force,
}

/// What becomes of a deleted instance's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Files {
    /// They stay.
    Keep,
    /// Those that the supervisor made are deleted.
    Purge,
}

/// A gateway's process and the worker that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// The gateway's main process.
    pub pid: i32,
    /// Its worker.
    pub worker_pid: i32,
    /// When the main process was started.
    pub started: Moment,
}

/// What an adoption found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// What runs.
    pub found: Found,
    /// Exits that the worker recorded and nobody acknowledged, oldest first.
    pub exits: Vec<Exit>,
}

/// What runs of an instance that an earlier supervisor left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The worker and its gateway.
    Running {
        /// The gateway's incarnation.
        incarnation: Incarnation,
        /// Its process.
        process: Process,
        /// It has said READY=1.
        notified: bool,
        /// It is being ended.
        stopping: bool,
    },
    /// The worker alone.
    Idle {
        /// The last incarnation it ran.
        incarnation: Incarnation,
    },
    /// Nothing, proven.
    Nothing,
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Which.
    pub incarnation: Incarnation,
    /// How.
    pub status: ExitStatus,
    /// When.
    pub at: Moment,
    /// Processes that outlived the main process and were killed.
    pub stragglers: u32,
    /// Whether the supervisor had asked for it.
    pub ordered: bool,
}

/// An exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// exit(3) with this code.
    Code(i32),
    /// Ended by a signal.
    Signal {
        /// Its number.
        number: i32,
        /// Whether a core was dumped.
        core: bool,
    },
    /// Ended by SIGKILL, from the kernel, because memory was short.
    OutOfMemory,
    /// Nobody was left to learn it.
    Unknown,
}

/// Why an incarnation could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LaunchFailure {
    /// A port of the block is taken by a process that is not the instance's.
    #[error("port {port} is taken by {holder}")]
    PortTaken {
        /// The port.
        port: u16,
        /// Pid and command, as far as they can be learned.
        holder: String,
    },
    /// The instance's configuration or directories are refused.
    #[error("{0}")]
    Refused(String),
    /// Its configuration is refused: no gateway could be started with it.
    #[error("{0}")]
    BadConfig(String),
    /// A gateway that may be alive uses a channel credential of its configuration.
    #[error("its configuration names a channel credential of `{by}`, which may use it")]
    Fenced {
        /// Whose it is.
        by: Name,
    },
    /// Its configuration names channel credentials that it did not name when the launch was ordered.
    #[error("its configuration names other channel credentials than a moment ago")]
    Unexpected,
    /// The program cannot be run.
    #[error("{0}")]
    Spawn(String),
    /// The launch was not answered in time.
    #[error("the worker did not answer in time")]
    NoAnswer,
}

/// What a gateway that ended well left for who runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handoff {
    /// It wants to be run again, for this reason.
    Restart(String),
    /// Nothing: somebody stopped it.
    Nothing,
    /// It cannot be learned, and why.
    Unknown(String),
}

/// What an instance's configuration is like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// What it holds; `None` if there is none.
    pub content: Option<ConfigId>,
    /// Why no gateway could be started with it.
    pub problem: Option<String>,
    /// The channel credentials that it names.
    pub credentials: Vec<Credential>,
    /// The life that is started with it, if that is why it was looked at.
    pub used_by: Option<Incarnation>,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether the gateway answers at all.
    pub live: Verdict,
    /// Whether it serves.
    pub ready: Verdict,
    /// Changes whenever a start advances.
    pub progress: u64,
}

/// One answer of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Pass,
    /// No, and why.
    Fail(String),
    /// It could not be asked, and why: nothing is known of it.
    Unknown(String),
}
