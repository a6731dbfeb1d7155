//! A program behind the walls of an instance, that is no gateway: `gateway-worker behind PROGRAM ARGUMENTS`.
//!
//! What the supervisor asks a runtime is answered by what an agent has written: its state, with plugins in it. So that
//! is run behind the walls of its gateway, which come on standard input, and all that it has started ends with it. What
//! a person runs there has a terminal: that is a [guest](crate::guest).

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{Command, ExitCode, Stdio};

use prost::{DecodeError, Message};
use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};
use rustix::stdio::stdout;
use supervisor_proto::worker::Walls;
use thiserror::Error;

use crate::kernel;
use crate::tree;
use crate::walls::{self, Builder, Survey, UnfitWalls};

/// The first argument that asks for this.
pub(crate) const BEHIND: &str = "behind";

/// More walls than this are none: some thousand trees.
pub(crate) const MOST_BYTES: u64 = 1 << 20;

/// What a shell adds to the number of the signal that has killed a program.
pub(crate) const KILLED: i32 = 128;

/// Why nothing was run.
#[derive(Debug, Error)]
pub(crate) enum ToolError {
    /// Nothing follows.
    #[error("`{BEHIND}` takes a program and its arguments")]
    NoProgram,
    /// Standard input failed.
    #[error("failed to read the walls: {0}")]
    Read(#[source] io::Error),
    /// They are none.
    #[error("failed to decode the walls: {0}")]
    Decode(#[from] DecodeError),
    /// Nothing can be run behind them.
    #[error(transparent)]
    Unready(#[from] Unready),
    /// It cannot be run, or not behind them.
    #[error("failed to run the program: {0}")]
    Spawn(#[source] io::Error),
    /// The kernel does not say how it ended.
    #[error("failed to wait for the program: {0}")]
    Wait(#[source] io::Error),
}

/// Why nothing can be run behind walls.
#[derive(Debug, Error)]
pub(crate) enum Unready {
    /// Nobody could build them.
    #[error(transparent)]
    Unfit(#[from] UnfitWalls),
    /// There are too few descriptors.
    #[error("failed to plan the walls: {0}")]
    Plan(#[source] io::Error),
    /// The kernel is older than 3.4.
    #[error("failed to become the subreaper of the program's descendants: {0}")]
    Subreaper(#[source] io::Error),
}

/// Makes ready to run something behind `walls`, and to end all that it has started.
pub(crate) fn ready(walls: &Walls) -> Result<(Builder, Survey), Unready> {
    walls::check(walls)?;
    set_child_subreaper(Some(getpid())).map_err(|error| Unready::Subreaper(error.into()))?;
    walls::plan(walls).map_err(Unready::Plan)
}

/// Runs the program that `args` name, and ends as it does, once nothing is left of it.
pub(crate) fn run(command: &[OsString]) -> Result<ExitCode, ToolError> {
    let (program, args) = command.split_first().ok_or(ToolError::NoProgram)?;
    kernel::restore_signals();
    let mut bytes = Vec::new();
    io::stdin().take(MOST_BYTES).read_to_end(&mut bytes).map_err(ToolError::Read)?;
    let walls = Walls::decode(bytes.as_slice())?;
    let (builder, survey) = ready(&walls)?;
    walls::lend(stdout(), &walls);
    let mut command = Command::new(program);
    let child = kernel::spawn_bound(command.args(args).stdin(Stdio::null()), Some(builder));
    let pid = Pid::from_child(&child.map_err(ToolError::Spawn)?);
    // What could not be built is told of when the gateway is started.
    drop(survey.take());
    let status = outlive(pid).map_err(ToolError::Wait)?;
    let code = status.exit_status().or_else(|| Some(KILLED + status.terminating_signal()?)).unwrap_or(KILLED);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Waits for `pid`, and then until nothing is left of all that it has started.
fn outlive(pid: Pid) -> io::Result<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((dead, status))) if dead == pid => return tree::end_all().map(|()| status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
