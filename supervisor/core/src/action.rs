//! Everything that core asks of the world, and its replies.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::time::Duration;

use crate::{
    denied::Denied,
    event::Files,
    failover::Incident,
    fence::Channels,
    ids::{CommandId, ConfigId, Credential, Incarnation, Name, Revision},
    journal::Entry,
    ladder::Purpose,
    ports::{Block, Pool},
    record::Record,
    trial::Restoring,
};

/// One thing to do. Its outcome, where there is one, comes back as an [`Event`](crate::event::Event).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make these changes durable as one, then say `Stored`.
    Persist(Batch),
    /// Answer a caller.
    Reply(CommandId, Result<Done, Denied>),
    /// Find out what an earlier supervisor left running; answered with `Adopted`.
    Adopt(Name),
    /// Prepare the instance's surroundings and run its program; answered with `Launched` or `LaunchFailed`.
    Launch(Launch),
    /// Ask the main process to end; after the grace the worker kills the whole tree.
    Stop {
        /// Which instance.
        name: Name,
        /// Which life of it.
        incarnation: Incarnation,
        /// Until the kill.
        grace: Duration,
    },
    /// Kill the whole tree.
    Kill {
        /// Which instance.
        name: Name,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// The exit is durable here; the worker may forget it.
    Acknowledge {
        /// Which instance.
        name: Name,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// The worker is not needed any more.
    Release {
        /// Which instance.
        name: Name,
    },
    /// Kill whatever is left of the instance, worker included, and say `Swept` when nothing is alive.
    Sweep {
        /// Which instance.
        name: Name,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// Ask the gateway how it is; answered with `Probed`.
    Probe {
        /// Which instance.
        name: Name,
        /// Which life of it.
        incarnation: Incarnation,
        /// What the answer is for.
        kind: ProbeKind,
        /// Where the gateway listens.
        block: Block,
        /// How to ask is in the spec.
        spec: Arc<str>,
    },
    /// Tell a running rescue, by its incident file, for whom it stands in.
    Inform {
        /// The rescue.
        name: Name,
        /// Its incidents; empty when all is well again.
        incidents: Vec<Incident>,
    },
    /// Write down what its processes are doing before they are killed; answered with `Examined`. The order to kill
    /// follows.
    Examine {
        /// Which instance.
        name: Name,
        /// Which life of it.
        incarnation: Incarnation,
        /// Why it is killed.
        why: String,
    },
    /// Find out whether a gateway that ended well wants to be run again; answered with `Handoff`, within seconds.
    AskHandoff {
        /// Which instance.
        name: Name,
        /// Which life of it.
        incarnation: Incarnation,
        /// Its main process.
        pid: i32,
    },
    /// Put an older configuration in place while nothing runs; answered with `Restored` or `RestoreFailed`.
    Restore {
        /// Which instance.
        name: Name,
        /// What it is to hold.
        to: ConfigId,
        /// Why, for who finds what was there beside it.
        why: String,
    },
    /// A deleted instance's files.
    Forget {
        /// Which instance.
        name: Name,
        /// What becomes of them.
        files: Files,
    },
}

/// Changes that become durable together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The revision that `Stored` names.
    pub revision: Revision,
    /// Changes of the registry.
    pub writes: Vec<Write>,
    /// What happened.
    pub entries: Vec<Entry>,
}

/// One change of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every write is a record")]
pub enum Write {
    /// The instance's record is now this.
    Put(Record),
    /// The instance is gone.
    Remove(Name),
    /// The port pool is now this.
    Pool(Pool),
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Which instance.
    pub name: Name,
    /// Its new life.
    pub incarnation: Incarnation,
    /// Its ports.
    pub block: Block,
    /// The first port of the block it had before this one, if that changed.
    pub previous_base: Option<u16>,
    /// What to run, in the shell's words.
    pub spec: Arc<str>,
    /// Whom it stands in for, and why.
    pub incidents: Vec<Incident>,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether the gateway has its channels.
    pub channels: Channels,
    /// The channel credentials that it may use. If its configuration names another one, and it has its channels, it is
    /// not started: that is told, and then that the launch has failed as [`Unexpected`](crate::event::LaunchFailure).
    pub credentials: Arc<[Credential]>,
    /// What its configuration is to hold; put in place first, and answered as `Restore` is.
    pub restore: Option<Restoring>,
}

/// What a probe's answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// Whether the start is over.
    Startup,
    /// Whether it is live and ready.
    Watch,
}

/// A command is done, as far as the caller has to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The revision to watch from.
    pub revision: Revision,
    /// Whether `Start` created the instance.
    pub created: bool,
}
