//! The built-in gateway as its supervisor and its clients meet it: the real binary, real sockets, real
//! signals.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end where it stands")]

mod canvas;
mod channels;
mod doctor;
mod http;
mod misbehave;
mod reload;
mod restart;
mod socket;
mod start;
mod stop;
mod support;
