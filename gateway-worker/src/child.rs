//! Starts the gateway's main process.
//!
//! It gets what its launch says and nothing of the worker's: an environment of its own, `/dev/null` to read,
//! one pipe for standard output and error together (so that their order is kept), a process group of its own,
//! no signal blocked or ignored, and the walls that were asked for. Should the worker die, the kernel kills it: nobody
//! would be left to tell how it ended.

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
use supervisor_proto::worker::wall::{Kind, State};
use supervisor_proto::worker::{Launch, Process, Wall};
use thiserror::Error;

use crate::group::Group;
use crate::kernel;
use crate::walls::modes::Keeper;
use crate::walls::{self, Survey, Surveyed, UnfitWalls};
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
    /// Its walls could be built by nobody.
    #[error(transparent)]
    Walls(#[from] UnfitWalls),
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
    /// No pipe for the report of its walls.
    #[error("failed to plan the gateway's walls")]
    Plan(#[source] io::Error),
    /// It was to be another user's.
    #[error("failed to become the user {uid}")]
    Become {
        /// The user.
        uid: u32,
        /// Why.
        source: io::Error,
    },
    /// Its files are walled, and it may be behind that wall itself.
    #[error("failed to execute `{program}`, which its walls may keep it from reading")]
    Walled {
        /// The program.
        program: String,
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
            Self::Pipe(source) | Self::Notify(source) | Self::Plan(source) => source,
            Self::Enter { source, .. }
            | Self::Become { source, .. }
            | Self::Walled { source, .. }
            | Self::Execute { source, .. } => source,
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
    /// The walls around it.
    pub(crate) walls: Vec<Wall>,
    /// The group that it is in.
    pub(crate) group: Option<Group>,
    /// Changes modes for it, if it does not by itself.
    pub(crate) keeper: Option<Keeper>,
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
    let Some(walls) = &launch.walls else { return Ok(()) };
    walls::paths(walls).try_for_each(|(what, path)| check_absolute(what, path))?;
    Ok(walls::check(walls)?)
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
    if let Some(walls) = &launch.walls {
        walls::lend(&input, walls);
    }
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
    let group = launch.walls.as_ref().and_then(Group::named);
    let (walls, survey) =
        launch.walls.as_ref().map(walls::plan).transpose().map_err(SpawnError::Plan)?.unzip();
    let spawned = kernel::spawn_bound(&mut command, walls);
    let surveyed = survey.map(Survey::take).unwrap_or_default();
    let child = spawned.map_err(|source| failure(launch, &surveyed, source))?;
    let pid = Pid::from_child(&child);
    // The process may be dead already, but nobody has reaped it, so its start time can still be read.
    let start_ticks = tree::start_ticks(pid).unwrap_or(0);
    let process =
        Process { pid: pid.as_raw_nonzero().get(), start_ticks, started_unix_ms, started_monotonic_ns };
    let group = group.and_then(|group| group.joined(&surveyed.walls));
    Ok(Launched { pid, process, output, walls: surveyed.walls, group, keeper: surveyed.keeper })
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (output, input) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&output, OFlags::NONBLOCK)?;
    Ok((output, input))
}

/// Different failures give the same error; this tells them apart afterwards.
fn failure(launch: &Launch, surveyed: &Surveyed, source: io::Error) -> SpawnError {
    if let Some(uid) = surveyed.not_become {
        return SpawnError::Become { uid, source };
    }
    match fs::metadata(Path::new(&launch.working_directory).join(".")) {
        Err(error) if error.raw_os_error() == source.raw_os_error() => {
            return SpawnError::Enter { path: launch.working_directory.clone(), source };
        }
        Ok(_) | Err(_) => {}
    }
    let program = launch.program.clone();
    let files =
        surveyed.walls.iter().any(|wall| wall.kind() == Kind::Files && wall.state() != State::Unavailable);
    match source.kind() == io::ErrorKind::PermissionDenied && files {
        true => SpawnError::Walled { program, source },
        false => SpawnError::Execute { program, source },
    }
}
