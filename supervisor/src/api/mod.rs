//! The gRPC API, `openclaw.supervisor.v1`: one file for each service, and what they share.
//!
//! Nothing here decides, and nothing here acts: a call becomes a command to the driver, an answer is made from
//! a view. What takes time is waited for by level, on views that only move forward.

mod access;
mod alert;
mod audit;
mod caller;
mod certificate;
mod config;
mod context;
mod convert;
mod convert_spec;
mod doctor;
mod event;
mod facts;
mod filter;
mod fleet;
mod gate;
mod health;
mod incident;
mod inlet;
mod inside;
mod instance;
mod limits;
mod listen;
mod log;
mod metrics;
mod origin;
mod page;
mod patience;
mod requests;
mod setup;
mod status;
mod story;
mod stream;
mod system;
mod turn;
mod upgrade;
mod verbs;
mod wait;
mod watch;
mod web;

pub(crate) use context::{Context, FindHold, FindListeners, Listener};
pub(crate) use inlet::{Answer, Inlet, Met, Visit, Visitor};
pub(crate) use limits::Crowd;
pub use listen::ServeError;
pub(crate) use listen::{serve, socket_path};
pub(crate) use origin::FindOrigin;
pub(crate) use turn::Turn;

#[cfg(test)]
mod tests;
