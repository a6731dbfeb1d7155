//! Everything that acts on the world: one file for each kind of effect.
//!
//! An action is begun here and never awaited by the driver; its outcome comes back as an event. Nothing here
//! decides: what fails is reported, and core says what comes next.

mod cgroup;
mod config;
mod contract;
mod evidence;
mod guest;
mod launch;
mod link;
mod performer;
pub(crate) mod port;
mod probe;
pub(crate) mod reap;
pub(crate) mod roster;
mod spawn;
pub(crate) mod store;
mod surroundings;
pub(crate) mod sweep;
mod walls;
pub(crate) mod watch;
mod worker;

pub(crate) use cgroup::Groups;
pub(crate) use config::Configs;
pub(crate) use contract::Contracts;
pub(crate) use guest::hold;
pub(crate) use performer::Performer;
pub(crate) use surroundings::Surroundings;
