//! The wind tunnel: the supervisor's mind in a simulated world.
//!
//! A world has a clock of its own, one list of what will happen, hosts with workers and
//! gateways, a disk, callers, and a supervisor that may die between any two of its actions. All of it follows
//! from one seed, so that a failure can be seen again by its number.
//!
//! ```text
//!   seed ──► faults, fleet          drawn once                      (fault, fleet)
//!                │
//!                ▼
//!   what happens next ──► Supervisor::handle ──► actions            (world)
//!        ▲                                          │
//!        │        workers, gateways, probes (host)  │
//!        └─────── the disk (store), callers (client)◄┘
//!
//!   after every event: what must never be                           (watch, check)
//!   once the faults stop: what must come about                      (check)
//! ```
//!
//! Nothing here knows how core works inside. What holds within core is checked by core's own
//! [`invariant::check`](supervisor_core::invariant::check), which runs after every event as well.

pub mod check;
mod client;
pub mod fault;
mod fleet;
mod host;
mod store;
mod tasks;
mod watch;
pub mod world;

pub use check::Violation;
pub use world::{Failure, Tally, Trace, run};
