//! A program behind the walls of an instance, that is no gateway: `gateway-worker behind --seconds N PROGRAM ARGUMENTS`.
//!
//! What the supervisor asks a runtime is answered by what an agent has written: its state, with plugins in it. So that
//! is run behind the walls of its gateway, and all that it has started ends with it. What a person runs there has a
//! terminal: that is a [guest](crate::guest).
//!
//! Its environment, its directory and the walls come as a `Launch` on standard input, and what it prints goes to
//! standard output. Standard error is this process's own: should nothing come of it, its last line says why.
//!
//! The limit is kept out here. Who is behind the walls can stop whatever else is there, timeout(1) with it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use prost::{DecodeError, Message};
use rustix::fs::Mode;
use rustix::process::{
    Pid, Signal as Sent, WaitStatus, getpid, kill_process_group, set_child_subreaper, setsid, umask,
};
use rustix::stdio::stdout;
use supervisor_proto::frame::MAX_FRAME;
use supervisor_proto::worker::{Launch, Walls};
use thiserror::Error;

use crate::complain::{chain, complain};
use crate::kernel;
use crate::tree::{self, Reaped};
use crate::turn::until;
use crate::walls::modes::{self, Keeper};
use crate::walls::{self, Builder, Survey, Surveyed, UnfitWalls};

/// The first argument that asks for this.
pub(crate) const BEHIND: &str = "behind";

/// The option by which the limit is given.
pub(crate) const SECONDS: &str = "--seconds";

/// As much as a gateway is told.
const MOST_BYTES: usize = MAX_FRAME;

/// What a shell adds to the number of the signal that has killed a program.
pub(crate) const KILLED: i32 = 128;

/// A program that is over its limit has so long to tidy up.
const GRACE: Duration = Duration::from_secs(1);

/// Why nothing came of it.
#[derive(Debug, Error)]
pub(crate) enum ToolError {
    /// Something is left out.
    #[error("`{BEHIND}` takes `{SECONDS}` with a number, a program and its arguments")]
    Usage,
    /// It is not known what to run it with.
    #[error(transparent)]
    NoLaunch(#[from] NoLaunch),
    /// Nothing can be run behind the walls.
    #[error(transparent)]
    Unready(#[from] Unready),
    /// Deaths cannot be heard of.
    #[error("failed to receive signals")]
    Signals(#[source] io::Error),
    /// It cannot be run, or not behind the walls.
    #[error("failed to run `{program}`")]
    Spawn {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not say how it ended.
    #[error("failed to wait for the program")]
    Wait(#[source] io::Error),
    /// It was ended.
    #[error("`{program}` has not ended by itself within {seconds} s")]
    Late {
        /// Which.
        program: String,
        /// Its limit.
        seconds: u32,
    },
}

/// Why it is not known what to run a program with.
#[derive(Debug, Error)]
pub(crate) enum NoLaunch {
    /// It is not open, or fails.
    #[error("failed to read the launch")]
    Read(#[source] io::Error),
    /// A part of it may hold fewer walls.
    #[error("environment and walls have more than {MOST_BYTES} bytes together")]
    TooLong,
    /// It is something else, or has been cut off.
    #[error("failed to decode the launch")]
    Decode(#[from] DecodeError),
    /// It has been cut off, or comes from whoever means a program without any.
    #[error("the launch says nothing of walls")]
    NoWalls,
}

/// Why nothing can be run behind walls.
#[derive(Debug, Error)]
pub(crate) enum Unready {
    /// Nobody could build them.
    #[error(transparent)]
    Unfit(#[from] UnfitWalls),
    /// There are too few descriptors.
    #[error("failed to plan the walls")]
    Plan(#[source] io::Error),
    /// The kernel is older than 3.4.
    #[error("failed to become the subreaper of the program's descendants")]
    Subreaper(#[source] io::Error),
}

/// What a program is to be run with, and behind. Walls may hold nothing, but have to be there.
pub(crate) fn read(from: impl Read) -> Result<(Launch, Walls), NoLaunch> {
    let mut bytes = Vec::new();
    from.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(NoLaunch::Read)?;
    if bytes.len() > MOST_BYTES {
        return Err(NoLaunch::TooLong);
    }
    let mut launch = Launch::decode(bytes.as_slice())?;
    let walls = launch.walls.take().ok_or(NoLaunch::NoWalls)?;
    Ok((launch, walls))
}

/// What is run in the surroundings that `launch` gives it.
pub(crate) fn command(program: &OsStr, args: &[OsString], launch: &Launch) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear();
    command.envs(launch.environment.iter().map(|variable| (&variable.name, &variable.value)));
    if !launch.working_directory.is_empty() {
        command.current_dir(&launch.working_directory);
    }
    command
}

/// Makes ready to run something behind `walls`, and to end all that it has started.
pub(crate) fn ready(walls: &Walls) -> Result<(Builder, Survey), Unready> {
    walls::check(walls)?;
    // What it writes is a gateway's, which has the same.
    umask(Mode::RWXG | Mode::RWXO);
    set_child_subreaper(Some(getpid())).map_err(|error| Unready::Subreaper(error.into()))?;
    walls::plan(walls).map_err(Unready::Plan)
}

/// Runs a program, and ends as it does, once nothing is left of it.
pub(crate) fn run(args: &[OsString]) -> Result<ExitCode, ToolError> {
    let (seconds, program, args) = parsed(args).ok_or(ToolError::Usage)?;
    kernel::restore_signals();
    // Groups of a session can be joined, and its processes share what autogroups have of a processor (sched(7)): the
    // supervisor's are none of the program's.
    let _ = setsid();
    let (launch, walls) = read(io::stdin())?;
    let (builder, survey) = ready(&walls)?;
    walls::lend(stdout(), &walls);
    let deaths = hear_deaths().map_err(|errno| ToolError::Signals(errno.into()))?;
    let mut command = command(program, args, &launch);
    // Nothing behind the walls speaks for this process. In a group of its own it does not stop this by `kill 0` where
    // the kernel lets signals out of the walls.
    command.stdin(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let child = kernel::spawn_bound(&mut command, Some(builder));
    let named = || program.to_string_lossy().into_owned();
    let child = child.map_err(|source| ToolError::Spawn { program: named(), source })?;
    // What could not be built is told of when the gateway is started.
    let Surveyed { keeper, .. } = survey.take();
    let limit = Duration::from_secs(seconds.into());
    let mut heard = Heard { deaths, keeper };
    let status = outlive(Pid::from_child(&child), &mut heard, limit).map_err(ToolError::Wait)?;
    let status = status.ok_or_else(|| ToolError::Late { program: named(), seconds })?;
    let code = status.exit_status().or_else(|| Some(KILLED + status.terminating_signal()?)).unwrap_or(KILLED);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// What follows `behind`: the limit, a program and its arguments.
fn parsed(args: &[OsString]) -> Option<(u32, &OsStr, &[OsString])> {
    let [option, seconds, program, args @ ..] = args else { return None };
    let seconds = seconds.to_str()?.parse().ok().filter(|_| option == SECONDS)?;
    Some((seconds, program, args))
}

impl ToolError {
    /// Tells it on standard error. Answers the status to end with.
    pub(crate) fn explain(&self) -> ExitCode {
        complain(format_args!("{}", chain(self)));
        ExitCode::FAILURE
    }
}

/// Makes deaths readable: several may be one signal.
fn hear_deaths() -> nix::Result<SignalFd> {
    let heard: SigSet = [Signal::SIGCHLD].into_iter().collect();
    heard.thread_block()?;
    SignalFd::with_flags(&heard, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// What is heard of a program that runs.
struct Heard {
    deaths: SignalFd,
    /// Whom it waits for when it changes modes.
    keeper: Option<Keeper>,
}

/// Ends `program` after `limit`, and with it all that it has started. `None` if it had to be ended.
fn outlive(program: Pid, heard: &mut Heard, limit: Duration) -> io::Result<Option<WaitStatus>> {
    let status = end_of(program, heard, limit)?;
    if status.is_none() {
        // It has not been reaped, so its number is still its own.
        let _ = kill_process_group(program, Sent::TERM);
        end_of(program, heard, GRACE)?;
    }
    tree::end_all()?;
    Ok(status)
}

/// How `program` ends, if it does within `patience`. Reaps what else does.
fn end_of(program: Pid, heard: &mut Heard, patience: Duration) -> io::Result<Option<WaitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        while let Ok(Some(_)) = heard.deaths.read_signal() {}
        loop {
            match tree::reap() {
                Reaped::Dead(dead, status) if dead == program => return Ok(Some(status)),
                Reaped::Dead(..) | Reaped::LetGo if Instant::now() < deadline => {}
                Reaped::Dead(..) | Reaped::LetGo | Reaped::Alive | Reaped::Empty => break,
            }
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        modes::wait(&heard.deaths, &mut heard.keeper, Some(&until(deadline)))?;
    }
}

#[cfg(test)]
mod tests {
    use supervisor_proto::worker::EnvironmentVariable;

    use super::*;

    #[test]
    fn a_launch_that_is_cut_off_anywhere_or_too_long_is_none() {
        let variable = |name: &str| EnvironmentVariable { name: name.into(), value: "x".into() };
        let launch = Launch {
            environment: ["A", "B"].map(variable).into(),
            working_directory: "/".into(),
            walls: Some(Walls { apart: true, privileges: true, ..Walls::default() }),
            ..Launch::default()
        };
        let whole = launch.encode_to_vec();
        let (rest, walls) = read(whole.as_slice()).unwrap();
        assert_eq!((Launch { walls: Some(walls), ..rest }), launch);
        for cut in 0..whole.len() {
            let error = read(whole.get(..cut).unwrap()).unwrap_err();
            assert!(matches!(error, NoLaunch::Decode(_) | NoLaunch::NoWalls), "{cut}: {error}");
        }
        // Without any is what may be said, too.
        read(Launch { walls: Some(Walls::default()), ..Launch::default() }.encode_to_vec().as_slice())
            .unwrap();
        let valued = |length: usize| {
            let value = "x".repeat(length);
            let environment = vec![EnvironmentVariable { name: "LONG".into(), value }];
            Launch { environment, ..launch.clone() }.encode_to_vec()
        };
        // All lengths of about a megabyte have as many digits.
        let around = valued(MOST_BYTES / 2).len() - MOST_BYTES / 2;
        let padded = |length: usize| valued(length - around);
        assert_eq!(padded(MOST_BYTES).len(), MOST_BYTES);
        read(padded(MOST_BYTES).as_slice()).unwrap();
        assert!(matches!(read(padded(MOST_BYTES + 1).as_slice()), Err(NoLaunch::TooLong)));
    }
}
