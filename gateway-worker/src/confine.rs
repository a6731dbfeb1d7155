//! Cuts the worker loose from whoever started it.
//!
//! After this it is a session of its own with nothing of the supervisor's but standard error, so that
//! neither the supervisor's death nor a terminal's hangup reaches it; and it is the subreaper of its
//! descendants, so that none can escape it by a double fork.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getsid};
use rustix::fs::Mode;
use rustix::process::{getpid, set_child_subreaper, setsid, umask};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use rustix::thread::set_name;
use thiserror::Error;

use crate::kernel;

/// The longest name a thread can have, in bytes: `TASK_COMM_LEN` less the terminator.
const LONGEST_NAME: usize = 15;

/// Why the worker could not be cut loose.
#[derive(Debug, Error)]
pub(crate) enum ConfineError {
    /// It leads a process group and so cannot lead a session.
    #[error("failed to start a session")]
    Session(#[source] io::Error),
    /// The kernel is older than 3.4.
    #[error("failed to become the subreaper of the gateway's descendants")]
    Subreaper(#[source] io::Error),
    /// No `/dev/null`, or it cannot be put in place.
    #[error("failed to put `/dev/null` on standard input and output")]
    Stdio(#[source] io::Error),
    /// Signals could not be turned into reads.
    #[error("failed to receive signals")]
    Signals(#[source] io::Error),
}

impl ConfineError {
    /// The system's error.
    pub(crate) fn cause(&self) -> &io::Error {
        match self {
            Self::Session(source) | Self::Subreaper(source) | Self::Stdio(source) | Self::Signals(source) => {
                source
            }
        }
    }
}

/// Leaves the supervisor's session and terminal, takes over orphans, and drops inherited signal settings.
pub(crate) fn cut_loose(instance: &str) -> Result<SignalFd, ConfineError> {
    // nix, not rustix: the session is 0 in a pid namespace that its leader is not in, and rustix panics on that.
    let leads_already = getsid(None).is_ok_and(|session| session == Pid::this());
    if !leads_already {
        setsid().map_err(|error| ConfineError::Session(error.into()))?;
    }
    set_child_subreaper(Some(getpid())).map_err(|error| ConfineError::Subreaper(error.into()))?;
    umask(Mode::RWXG | Mode::RWXO);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(ConfineError::Stdio)?;
    dup2_stdin(&null).map_err(|error| ConfineError::Stdio(error.into()))?;
    dup2_stdout(&null).map_err(|error| ConfineError::Stdio(error.into()))?;
    name(instance);
    receive_signals().map_err(|errno| ConfineError::Signals(errno.into()))
}

/// Makes SIGCHLD and SIGTERM readable. SIGHUP and SIGINT are blocked and never read, which is as good as
/// ignoring them.
fn receive_signals() -> nix::Result<SignalFd> {
    kernel::restore_signals();
    let mut heard = SigSet::empty();
    heard.add(Signal::SIGCHLD);
    heard.add(Signal::SIGTERM);
    let mut blocked = heard;
    blocked.add(Signal::SIGHUP);
    blocked.add(Signal::SIGINT);
    blocked.thread_set_mask()?;
    SignalFd::with_flags(&heard, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Shows the instance in `ps` and `top`, as far as the kernel's short name allows.
fn name(instance: &str) {
    let mut name = format!("gw:{instance}");
    while name.len() > LONGEST_NAME {
        name.pop();
    }
    if let Ok(name) = CString::new(name) {
        let _ = set_name(&name);
    }
}
