//! Starts the gateway's main process.
//!
//! It gets what its launch says and nothing of the worker's: an environment of its own, `/dev/null` to read,
//! one pipe for standard output and error together (so that their order is kept), a process group of its own,
//! no signal blocked or ignored. Should the worker die, the kernel kills it: nobody would be left to tell how
//! it ended.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use supervisor_proto::worker::{Launch, Process};
use thiserror::Error;

use crate::kernel;
use crate::{clock, tree};

/// Why a launch cannot be carried out by anyone.
#[derive(Debug, Error)]
pub(crate) enum UnfitLaunch {
    /// A path that has to be absolute is not.
    #[error("the {what} `{path}` is not an absolute path")]
    Relative {
        /// Which one.
        what: &'static str,
        /// As it was given.
        path: String,
    },
    /// A C string cannot hold it.
    #[error("{0} contains a NUL character")]
    Nul(&'static str),
    /// An environment cannot hold it.
    #[error("`{0}` is not a name for an environment variable")]
    VariableName(String),
}

/// Why the gateway could not be started.
#[derive(Debug, Error)]
pub(crate) enum SpawnError {
    /// No pipe for its output.
    #[error("failed to create a pipe for the gateway's output")]
    Pipe(#[source] io::Error),
    /// No socket for its readiness.
    #[error("failed to bind `notify.sock`")]
    Notify(#[source] io::Error),
    /// Its working directory is not there.
    #[error("failed to enter `{path}`")]
    Enter {
        /// The directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// No process, or it could not become the program.
    #[error("failed to execute `{program}`")]
    Execute {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
}

impl SpawnError {
    /// The number of the system's error.
    pub(crate) fn errno(&self) -> i32 {
        self.cause().raw_os_error().unwrap_or(0)
    }

    /// What failed and why, in one line.
    pub(crate) fn explanation(&self) -> String {
        match self.cause().raw_os_error() {
            Some(errno) => format!("{self}: {}", Errno::from_raw(errno).desc()),
            None => format!("{self}: {}", self.cause()),
        }
    }

    fn cause(&self) -> &io::Error {
        match self {
            Self::Pipe(source) | Self::Notify(source) => source,
            Self::Enter { source, .. } | Self::Execute { source, .. } => source,
        }
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its main process.
    pub(crate) pid: Pid,
    /// The same for the report.
    pub(crate) process: Process,
    /// The end to read its output from. Does not block.
    pub(crate) output: OwnedFd,
}

/// Refuses what could never be started.
pub(crate) fn check(launch: &Launch) -> Result<(), UnfitLaunch> {
    check_absolute("program", &launch.program)?;
    check_absolute("working directory", &launch.working_directory)?;
    if launch.args.iter().any(|arg| arg.contains('\0')) {
        return Err(UnfitLaunch::Nul("an argument"));
    }
    for variable in &launch.environment {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            return Err(UnfitLaunch::VariableName(variable.name.clone()));
        }
        if variable.value.contains('\0') {
            return Err(UnfitLaunch::Nul("an environment variable"));
        }
    }
    Ok(())
}

/// Refuses a path that is relative or no path at all.
pub(crate) fn check_absolute(what: &'static str, path: &str) -> Result<(), UnfitLaunch> {
    if path.contains('\0') {
        return Err(UnfitLaunch::Nul(what));
    }
    if Path::new(path).is_absolute() {
        return Ok(());
    }
    Err(UnfitLaunch::Relative { what, path: path.to_owned() })
}

/// Starts `launch`, which [`check`] has passed. When this returns, the program has been executed.
pub(crate) fn spawn(launch: &Launch, notify: Option<&OsString>) -> Result<Launched, SpawnError> {
    let (output, input) = pipe().map_err(SpawnError::Pipe)?;
    let second = input.try_clone().map_err(SpawnError::Pipe)?;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.args)
        .env_clear()
        .envs(launch.environment.iter().map(|variable| (&variable.name, &variable.value)))
        .current_dir(&launch.working_directory)
        .stdin(Stdio::null())
        .stdout(input)
        .stderr(second)
        .process_group(0);
    if let Some(address) = notify {
        command.env("NOTIFY_SOCKET", address);
    }
    let started_unix_ms = clock::unix_ms();
    let started_monotonic_ns = clock::monotonic_ns();
    let child = kernel::spawn_bound(&mut command).map_err(|source| failure(launch, source))?;
    let pid = Pid::from_child(&child);
    // The process may be dead already, but nobody has reaped it, so its start time can still be read.
    let start_ticks = tree::start_ticks(pid).unwrap_or(0);
    let process =
        Process { pid: pid.as_raw_nonzero().get(), start_ticks, started_unix_ms, started_monotonic_ns };
    Ok(Launched { pid, process, output })
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (output, input) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&output, OFlags::NONBLOCK)?;
    Ok((output, input))
}

/// A missing directory and a missing program give the same error; this tells them apart afterwards.
fn failure(launch: &Launch, source: io::Error) -> SpawnError {
    match fs::metadata(Path::new(&launch.working_directory).join(".")) {
        Err(error) if error.raw_os_error() == source.raw_os_error() => {
            SpawnError::Enter { path: launch.working_directory.clone(), source }
        }
        Ok(_) | Err(_) => SpawnError::Execute { program: launch.program.clone(), source },
    }
}
