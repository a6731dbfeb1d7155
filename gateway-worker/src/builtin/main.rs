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
//! Exit codes are OpenClaw's: 0 stopped or to be restarted, 1 port busy or wrong usage, 78 the configuration is
//! at fault. A restart is told from a stop by a handoff, as in OpenClaw under an external supervisor
//! ([`handoff`]).
//!
//! Every fault of a real gateway can be had on purpose: see [`misbehave`].

mod args;
mod browser;
mod canvas;
mod census;
mod channels;
mod config;
mod doctor;
mod document;
mod failure;
mod fault;
mod frame;
mod gateway;
mod handoff;
mod handshake;
mod http;
mod life;
mod listen;
mod log;
mod manager;
mod methods;
mod misbehave;
mod mischief;
mod pulse;
mod reload;
mod reply;
mod restart;
mod socket;
mod tools;

use std::process::ExitCode;

use args::Wish;
use config::{Config, Environment};
use failure::Failure;
use misbehave::Misbehaviour;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(failure) => {
            log::error(format_args!("{}", failure::chain(&failure)));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run() -> Result<ExitCode, Failure> {
    let environment = Environment::read();
    let misbehaviour = Misbehaviour::read(&environment)?;
    match args::parse(std::env::args_os().skip(1))? {
        Wish::Serve { port } => {
            let config = Config::load(&environment, port)?;
            let misbehaviour = misbehaviour.in_life(&config);
            misbehaviour.end_at_start(&config.state_dir);
            life::live(config, misbehaviour).map(|()| ExitCode::SUCCESS)
        }
        Wish::Do(tool) => tools::run(tool, &environment, &misbehaviour),
        Wish::Version => {
            println!("{}", misbehaviour.version.as_deref().unwrap_or(gateway::VERSION));
            Ok(ExitCode::SUCCESS)
        }
    }
}
