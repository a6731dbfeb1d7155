//! Signals to processes that are not children of this one, without ever meeting the next bearer of a pid.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};
use tracing::debug;

use super::look::{Identity, Looker, State};

/// How long a death is waited for at a time, and how often in all: most come within a millisecond, that of a
/// process with much memory within a hundred.
const DEATH_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
const DEATH_TRIES: u32 = 20;

/// Sends a signal to exactly this process. One that is gone needs none; one that may not be signalled is found
/// again by the next look.
pub(super) fn send(looker: &mut Looker, process: Identity, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let sent = match open(looker, process) {
        Ok(Some(pidfd)) => pidfd_send_signal(pidfd, signal),
        Ok(None) => Ok(()),
        // A sandbox without pidfds: pid and start time, the next best.
        Err(Errno::NOSYS) => match looker.state(process) {
            Ok(State::Dead) | Err(_) => Ok(()),
            Ok(State::Running | State::Still) => kill_process(pid, signal),
        },
        Err(error) => Err(error),
    };
    match sent {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => debug!(pid = process.pid, %error, "failed to send a signal"),
    }
}

/// Waits a moment for the deaths of these processes. Whether it was long enough, the next look finds out.
pub(super) fn await_deaths(looker: &mut Looker, processes: &[Identity]) {
    let mut tries = DEATH_TRIES;
    for process in processes {
        let Ok(Some(pidfd)) = open(looker, *process) else { continue };
        while tries > 0 {
            // Readable once the process has ended, whether its parent knows or not.
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&DEATH_PAUSE)) {
                Ok(0) | Err(Errno::INTR) => tries -= 1,
                Ok(_) | Err(_) => break,
            }
        }
    }
}

/// `None`: it is dead. After the check the pidfd cannot name another process, for the pid was not free before.
fn open(looker: &mut Looker, process: Identity) -> rustix::io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(match looker.state(process)? {
        State::Dead => None,
        State::Running | State::Still => Some(pidfd),
    })
}
