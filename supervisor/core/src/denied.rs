//! Every refusal, a sentence each.

use alloc::string::String;

use crate::{ids::Name, ports::Block};

/// Why a command is refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody has this name.
    #[error("no instance is called `{0}`")]
    UnknownInstance(Name),
    /// The name is taken.
    #[error("an instance called `{0}` exists already")]
    InstanceExists(Name),
    /// The caller read an older spec.
    #[error("`{0}` has been changed since it was read; read it again")]
    StaleGeneration(Name),
    /// The pool has no room for another block.
    #[error("no block of 20 ports is free between {first} and {last}; widen the pool or delete an instance")]
    PoolExhausted {
        /// First port of the pool.
        first: u16,
        /// Last port of the pool.
        last: u16,
    },
    /// The wanted block meets another one.
    #[error("ports {wanted} of `{name}` overlap {held} of `{holder}`")]
    PortOverlap {
        /// Who wants it.
        name: Name,
        /// What it wants.
        wanted: Block,
        /// Who has it.
        holder: Name,
        /// What that one has.
        held: Block,
    },
    /// The wanted block is not inside the pool.
    #[error("ports {wanted} of `{name}` leave the pool {first} to {last}")]
    PortOutsidePool {
        /// Who wants it.
        name: Name,
        /// What it wants.
        wanted: Block,
        /// First port of the pool.
        first: u16,
        /// Last port of the pool.
        last: u16,
    },
    /// A block moves only while nothing runs on it.
    #[error("the ports of `{0}` change only while it is down")]
    PortInUse(Name),
    /// A rescue of itself.
    #[error("`{0}` cannot rescue itself")]
    RescueOfItself(Name),
    /// A circle of rescues.
    #[error("the rescues form a circle: {0}")]
    RescueCycle(String),
    /// `rescues` names nobody.
    #[error("`{rescue}` is to rescue `{primary}`, which is not known")]
    UnknownPrimary {
        /// The rescue.
        rescue: Name,
        /// Whom it names.
        primary: Name,
    },
    /// It does not rescue that one.
    #[error("`{rescue}` does not rescue `{primary}`")]
    NotARescue {
        /// The one asked for.
        rescue: Name,
        /// The primary.
        primary: Name,
    },
    /// Nobody rescues it.
    #[error("nobody rescues `{0}`")]
    NoRescue(Name),
    /// No rescue can be started.
    #[error("no rescue of `{0}` is up")]
    RescueDown(Name),
    /// There is nothing to give back.
    #[error("`{0}` is in its place")]
    NotFailedOver(Name),
    /// Somebody stands in already.
    #[error("`{rescue}` stands in for `{primary}` already")]
    AlreadyFailedOver {
        /// The primary.
        primary: Name,
        /// Who stands in.
        rescue: Name,
    },
    /// The primary cannot take its place yet.
    #[error("`{0}` is not ready to take its place back")]
    PrimaryNotReady(Name),
    /// It runs.
    #[error("`{0}` is not down")]
    InstanceRunning(Name),
    /// It is down by wish.
    #[error("`{0}` is down")]
    InstanceDown(Name),
    /// The life is over, or something else is the matter with the instance.
    #[error("`{0}` is not recycled now")]
    NotRecycled(Name),
    /// It is about to be gone.
    #[error("`{0}` is being deleted")]
    InstanceDeleting(Name),
    /// The registry is full.
    #[error("there are {0} instances already, and no more are allowed")]
    TooManyInstances(usize),
    /// The supervisor ends.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
}
