//! One file for each command, and what several of them share.

pub(crate) mod alerts;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod cert;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod env;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod failback;
pub(crate) mod failover;
pub(crate) mod import;
pub(crate) mod incidents;
pub(crate) mod logs;
pub(crate) mod maintenance;
pub(crate) mod man;
pub(crate) mod ports;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod runtimes;
pub(crate) mod setup;
pub(crate) mod status;
pub(crate) mod supervisor;
pub(crate) mod top;
pub(crate) mod up;
pub(crate) mod upgrade;
pub(crate) mod verb;
pub(crate) mod version;
pub(crate) mod web;

mod fleet_error;
mod follow;
