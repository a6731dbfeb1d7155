//! Drives the real `openclawctl` against a fake supervisor that speaks the real contract over a real socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod apply;
mod audit;
mod config;
mod contexts;
mod ctl;
mod daemon;
mod doctor;
mod errors;
mod explain;
mod fake;
mod incidents;
mod misc;
mod narrow;
mod shells;
mod status;
mod streams;
mod terminal;
mod top;
mod verbs;
mod watch;
