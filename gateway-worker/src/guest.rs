//! A person's command behind the walls of an instance: `gateway-worker behind --launch-fd N PROGRAM ARGUMENTS`.
//!
//! An agent can plant a plugin or a shell's settings in its state, so what a person runs there may be the agent's. It is
//! run behind the walls of the gateway, and below this process, which carries the instance's mark in an environment of
//! its own: what it asks of the supervisor is known to come from inside.
//!
//! If standard input, output and error are a terminal, the command gets [another one](crate::terminal), and else it has
//! them as they are, in the foreground group of a terminal that is among them. So this process stands between a shell and
//! its job, and passes on what either is told:
//!
//! | | |
//! |---|---|
//! | the terminal signals (Ctrl-C, Ctrl-\, Ctrl-Z, hang-up) | the kernel tells all of the job, so the command has heard |
//! | somebody signals this process | the command is sent the same |
//! | the command is stopped | this stops, too, so that the shell has its prompt; once this goes on, the command does |
//! | the command ends | all that it has started is killed, and this ends as it did |
//!
//! The environment and the walls come as a `Launch` by a descriptor of their own. Its program and arguments are those of
//! the command line, as they need not be UTF-8.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{
    Pid, Resource, Rlimit, Signal as Sent, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpid,
    kill_process, kill_process_group, setrlimit, wait, waitid,
};
use supervisor_proto::worker::wall::{Kind, State};
use supervisor_proto::worker::{Launch, Wall, Walls};
use thiserror::Error;

use crate::complain::{chain, complain};
use crate::kernel;
use crate::terminal::{self, Side};
use crate::tool::{self, BEHIND, KILLED, NoLaunch, Unready};
use crate::tree;
use crate::walls::Surveyed;
use crate::walls::modes::{self, Keeper};

/// The option by which a descriptor is named.
pub(crate) const LAUNCH: &str = "--launch-fd";

/// All of a job are told within microseconds; whoever is told alone goes on this much later.
const LOOKS: u32 = 20;

/// Between two looks at that.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What env(1) and others end with if a program is not there.
const NOT_FOUND: u8 = 127;

/// The same if it is there and cannot be run.
const NOT_RUN: u8 = 126;

/// The same if they fail themselves.
const FAILED: u8 = 125;

/// What is held back here, to be passed on or followed.
pub(crate) const HEARD: [Signal; 10] = [
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// What is run.
#[derive(Debug)]
struct Command {
    pid: Pid,
    /// It is a job of its own, of which the person's shell knows nothing.
    is_apart: bool,
}

/// Why nothing was run, or why it is not known how it ended.
#[derive(Debug, Error)]
pub(crate) enum GuestError {
    /// Nothing follows.
    #[error("`{BEHIND} {LAUNCH}` takes a descriptor, a program and its arguments")]
    NoProgram,
    /// It is not known what to run it with.
    #[error(transparent)]
    NoLaunch(#[from] NoLaunch),
    /// Nothing can be run behind the walls.
    #[error(transparent)]
    Unready(#[from] Unready),
    /// It gets no terminal, and is not to have the person's.
    #[error("failed to give the command a terminal of its own")]
    Terminal(#[source] io::Error),
    /// Signals cannot be heard.
    #[error("failed to receive signals")]
    Signals(#[source] io::Error),
    /// Nothing is run as anybody else.
    #[error("cannot become user {uid}")]
    Become {
        /// That user.
        uid: u32,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The program cannot be run.
    #[error("cannot run `{program}` behind these walls")]
    Run {
        /// As it was typed.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel does not say how it ended.
    #[error("failed to wait for the command")]
    Wait(#[source] io::Error),
}

impl GuestError {
    /// Answers the status to end with, as env(1) would.
    pub(crate) fn explain(&self) -> ExitCode {
        complain(format_args!("{}", chain(self)));
        ExitCode::from(match self {
            Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::Run { .. } => NOT_RUN,
            Self::NoProgram
            | Self::NoLaunch(_)
            | Self::Unready(_)
            | Self::Terminal(_)
            | Self::Signals(_)
            | Self::Become { .. }
            | Self::Wait(_) => FAILED,
        })
    }
}

/// Runs a command, and ends as it does, once nothing is left of it.
pub(crate) fn run(descriptor: &OsStr, command: &[OsString]) -> Result<ExitCode, GuestError> {
    let (launch, walls) = read(descriptor)?;
    let (program, args) = command.split_first().ok_or(GuestError::NoProgram)?;
    let is_apart = match terminal::part(walls.user.as_ref()).map_err(GuestError::Terminal)? {
        Side::Given => false,
        Side::Within => true,
        Side::Without(code) => return Ok(code),
    };
    let signals = hear().map_err(|errno| GuestError::Signals(errno.into()))?;
    let (builder, survey) = tool::ready(&walls)?;
    let mut command = tool::command(program, args, &launch);
    let spawn = if is_apart { kernel::spawn_bound_as_job } else { kernel::spawn_bound };
    let child = spawn(&mut command, Some(builder));
    let Surveyed { walls, not_become, keeper } = survey.take();
    let child = child.map_err(|source| match not_become {
        Some(uid) => GuestError::Become { uid, source },
        None => GuestError::Run { program: program.to_string_lossy().into_owned(), source },
    })?;
    tell(&walls);
    let command = Command { pid: Pid::from_child(&child), is_apart };
    let status = accompany(&command, &signals, keeper).map_err(GuestError::Wait)?;
    Ok(end_as(status))
}

/// What comes by the descriptor; all others are closed.
fn read(descriptor: &OsStr) -> Result<(Launch, Walls), NoLaunch> {
    let none = || NoLaunch::Read(io::Error::from_raw_os_error(libc::EBADF));
    let number: RawFd = descriptor.to_str().and_then(|number| number.parse().ok()).ok_or_else(none)?;
    tool::read(File::from(kernel::take_inherited(number).map_err(NoLaunch::Read)?))
}

/// Holds signals back, to be read. One that whoever started this ignores stays ignored in the command, as with nohup(1).
fn hear() -> nix::Result<SignalFd> {
    kernel::restore_signal(Signal::SIGCHLD);
    let heard: SigSet = HEARD.into_iter().collect();
    heard.thread_set_mask()?;
    SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC)
}

/// Says in a line which walls do not stand. The control group is joined by whoever may, and bounds only how much is
/// taken.
fn tell(walls: &[Wall]) {
    let gaps: Vec<String> = walls.iter().filter_map(gap).collect();
    if !gaps.is_empty() {
        complain(format_args!("this command is not behind all walls: {}", gaps.join("; ")));
    }
}

fn gap(wall: &Wall) -> Option<String> {
    let what = match wall.kind() {
        Kind::Files => "files",
        Kind::Ports => "ports",
        Kind::Apart => "apart",
        Kind::Privileges => "privileges",
        Kind::Syscalls => "system calls",
        Kind::Limits => "limits",
        Kind::User => "user",
        Kind::Cgroup | Kind::Unspecified => return None,
    };
    let how = match wall.state() {
        State::Enforced => return None,
        State::Partial => "partial",
        State::Unavailable | State::Unspecified => "unavailable",
    };
    Some(format!("{what} {how} ({})", wall.reason))
}

/// Passes on what is told to the command or to this process, until the command has ended and all that it has started.
fn accompany(command: &Command, signals: &SignalFd, mut keeper: Option<Keeper>) -> io::Result<WaitStatus> {
    loop {
        if !modes::wait(signals, &mut keeper, None)? {
            continue;
        }
        let heard = match signals.read_signal() {
            Ok(Some(heard)) => heard,
            Ok(None) | Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let number = libc::c_int::try_from(heard.ssi_signo).unwrap_or_default();
        if number == libc::SIGCHLD {
            if let Some(status) = look(command)? {
                tree::end_all()?;
                return Ok(status);
            }
        } else if heard.ssi_code <= 0
            && let Some(signal) = Sent::from_named_raw(number)
        {
            // A process has sent it, and to this one: what the kernel sends it sends to the whole job. The command has
            // not been reaped, so its number is still its own.
            let _ = kill_process(command.pid, signal);
        }
    }
}

/// How the command has ended, if it has. Reaps what else has, and stops with it.
fn look(command: &Command) -> io::Result<Option<WaitStatus>> {
    loop {
        match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if status.stopped() && tree::let_go(pid, status) => {}
            Ok(Some((pid, status))) if pid == command.pid && status.stopped() => {
                kill_process(getpid(), Sent::STOP)?;
                // Somebody wants it to go on: the shell has told all of the job, and it may have stopped again, or
                // others have told this process alone.
                if command.is_apart {
                    let _ = kill_process_group(pid, Sent::CONT);
                } else if !is_told(pid)? {
                    let _ = kill_process(pid, Sent::CONT);
                }
            }
            Ok(Some((pid, status))) if pid == command.pid => return Ok(Some(status)),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the command goes on, or has, by what this process was told. The kernel tells all of a job one after another,
/// and this may be at it before the command is told: to tell it then would be to tell it twice, and the second time would
/// send on its way what has stopped again in between.
#[expect(
    clippy::disallowed_methods,
    reason = "waitid(2) waits for ever or not at all, and SIGCHLD may be an older one"
)]
fn is_told(command: Pid) -> io::Result<bool> {
    for _ in 0..LOOKS {
        if has_gone_on(command)? {
            return Ok(true);
        }
        thread::sleep(LOOK_AGAIN);
    }
    has_gone_on(command)
}

/// Whether anything has become of the command since its last stop was told. Takes none of it from [`look`].
fn has_gone_on(command: Pid) -> io::Result<bool> {
    let anything = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED;
    let unheard = WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(command), anything | unheard)?.is_some())
}

/// Ends as the command has: by the same signal, or with the status to be answered.
pub(crate) fn end_as(status: WaitStatus) -> ExitCode {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(number)) => {
            // The command has dumped its core, if it was to.
            let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
            if let Ok(signal) = Signal::try_from(number) {
                kernel::die_of(signal);
            }
            KILLED + number
        }
        (None, None) => KILLED,
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
