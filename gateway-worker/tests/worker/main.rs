//! Drives the real `gateway-worker` over its socket, with real processes and real signals.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops and says where")]

mod control;
mod harness;
mod lifecycle;
mod log;
mod notify;
mod tree;
mod walls;
