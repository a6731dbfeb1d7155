//! Leaves nothing behind, whatever happens.
//!
//! What is measured here outlives its parent by design. So the harness runs twice: the outer process measures
//! nothing, is the subreaper of everything that the inner one starts, and once that has ended, in whatever way,
//! kills what is left and removes the directory.

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::Context;
use nix::{
    sys::{
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::process::{getpid, set_child_subreaper, set_parent_process_death_signal};

use crate::processes;

/// Tells the inner process that it is the inner one, and where to put things.
pub(crate) const DIRECTORY: &str = "OPENCLAW_HARNESS_DIR";

/// Which of the two processes this is.
pub(crate) enum Guarded {
    /// The inner one: measure, and put all files here.
    Inside(PathBuf),
    /// The outer one, and the inner one has ended.
    Ended(ExitCode),
}

/// Starts the inner process and waits for its end, or is the inner process.
pub(crate) fn enter() -> anyhow::Result<Guarded> {
    if let Some(directory) = env::var_os(DIRECTORY) {
        set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("failed to bind the harness to its guard")?;
        return Ok(Guarded::Inside(directory.into()));
    }
    let directory = tempfile::Builder::new()
        .prefix("openclaw-bench-")
        .tempdir()
        .context("failed to make a directory for the measurements")?;
    set_child_subreaper(Some(getpid())).context("failed to become a subreaper")?;
    let signals: SigSet =
        [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("failed to block signals")?;
    let inner = Command::new(env::current_exe().context("failed to find the harness's own program")?)
        .args(env::args_os().skip(1))
        .env(DIRECTORY, directory.path())
        .spawn()
        .context("failed to start the harness")?;
    let code = wait(Pid::from_raw(inner.id().cast_signed()), &signals);
    processes::end_all();
    code.map(Guarded::Ended)
}

/// Reaps everything until `inner` is among it.
fn wait(inner: Pid, signals: &SigSet) -> anyhow::Result<ExitCode> {
    loop {
        let signal = signals.wait().context("failed to wait for a signal")?;
        if signal != Signal::SIGCHLD {
            kill(inner, Signal::SIGKILL).context("failed to end the harness")?;
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)).context("failed to wait for the harness")? {
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(pid, code) if pid == inner => {
                    return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
                }
                WaitStatus::Signaled(pid, ..) if pid == inner => return Ok(ExitCode::FAILURE),
                // A process that nobody else was left to reap, or one that goes on.
                WaitStatus::Exited(..)
                | WaitStatus::Signaled(..)
                | WaitStatus::Stopped(..)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(..)
                | WaitStatus::Continued(..) => {}
            }
        }
    }
}
