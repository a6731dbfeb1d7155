//! The built-in gateway: small enough to run a thousand of, and real enough that a supervisor and
//! the `openclaw` command line cannot tell by asking that it is not OpenClaw.
//!
//! ```text
//!   P    health endpoints, a page, WebSocket protocol 3 and 4      http, socket, methods
//!   P+2  browser-control status, loopback only                     browser
//!   P+4  files of <state dir>/canvas, loopback only                canvas
//! ```
//!
//! It has the ready half of OpenClaw's life and none of its work: no agents, channels or browser.
//! One thread runs everything; with nobody connected no timer is armed, so an idle one costs no CPU.
//! Exit codes are OpenClaw's: 0 stopped, 1 port busy or wrong usage, 78 the configuration is at fault.

mod args;
mod browser;
mod canvas;
mod census;
mod config;
mod document;
mod failure;
mod frame;
mod gateway;
mod handshake;
mod http;
mod life;
mod listen;
mod log;
mod manager;
mod methods;
mod pulse;
mod reply;
mod socket;

use std::process::ExitCode;

use args::Wish;
use config::{Config, Environment};
use failure::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::error(format_args!("{}", failure::chain(&failure)));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run() -> Result<(), Failure> {
    match args::parse(std::env::args_os().skip(1))? {
        Wish::Serve { port } => life::live(Config::load(&Environment::read(), port)?),
        Wish::Version => {
            println!("{}", gateway::VERSION);
            Ok(())
        }
    }
}
