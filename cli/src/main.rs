//! `openclawctl`, the command line of the OpenClaw supervisor: a gRPC client and a terminal, nothing else.

use std::process::ExitCode;

mod app;
mod chain;
mod command;
mod complete;
mod connect;
mod context;
mod contexts;
mod daemon;
mod error;
mod explain;
mod help;
mod progress;
mod render;
mod top;
mod view;
mod wait;

fn main() -> ExitCode {
    app::main()
}
