//! The wind tunnel: the supervisor's mind in a simulated world.
//!
//! A world has a clock of its own, one list of what will happen, hosts with workers and gateways, a disk, callers,
//! and a supervisor that may die between any two of its actions. All of it follows from one seed, so that a failure
//! can be seen again by its number, and can be made smaller by leaving out what does not matter.
//!
//! ```text
//!   seed ──► names, faults, kept     what the world is made of       (fault, fleet)
//!                │
//!                ▼
//!   what happens next ──► Supervisor::handle ──► actions             (agenda, world, daemon)
//!        ▲                                          │
//!        │        workers, gateways, probes (host)  │
//!        │        configurations, repairs (config)  │
//!        │        channels and tokens (fence)       │
//!        └─────── the disk (store), callers (client)◄┘               (tasks)
//!
//!   after every event: what must never be                            (watch, check, trial, fence, reference)
//!   once the faults stop: what must come about                       (check)
//!
//!   written down, run again, made smaller                            (trace, words, shrink, command)
//! ```
//!
//! Nothing here knows how core works inside. What holds within core is checked by core's own
//! [`invariant::check`](supervisor_core::invariant::check), which runs after every event as well.

mod agenda;
mod chance;
pub mod check;
mod client;
pub mod command;
mod config;
mod daemon;
mod fault;
mod fence;
mod fleet;
mod host;
mod news;
mod reference;
mod shrink;
mod store;
mod tasks;
mod trace;
mod trial;
mod watch;
mod words;
mod world;

pub use chance::{Injection, Lot, NoInjection, Permille};
pub use check::{Disagreement, Violation};
pub use fault::{Faults, Setup};
pub use fence::Fight;
pub use shrink::{Show, kind_of, shrink};
pub use trace::{Error, Header, Line, Scribe, Trace, What};
pub use trial::Misstep;
pub use world::{Outcome, Tally, run};
