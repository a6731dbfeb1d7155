//! What is particular to OpenClaw: its files, variables, ports and exit codes.
//!
//! Nothing here knows processes, sockets or policy. [`prepare()`](prepare::prepare) makes an instance's
//! surroundings so that its gateway can be started and shares nothing with any other instance; what it needs
//! for that is in the rooms beside it.

pub mod config;
pub mod contract;
pub mod database;
pub mod environment;
pub(crate) mod file;
pub(crate) mod guest;
pub mod incident;
pub mod layout;
pub mod own;
mod owner;
pub(crate) mod place;
pub mod prepare;
pub(crate) mod protocol;
pub(crate) mod reach;
pub mod runtime;
pub mod secret;
pub mod snapshots;
pub(crate) mod tree;
pub mod walls;
pub(crate) mod ways;
pub(crate) mod written;
