//! Reaps dead workers.
//!
//! A worker's death is learned from its socket, and its last word is in its record; all that is left to do is
//! to free its entry in the process table. Nothing else in this process waits for children.

use std::io;

use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task,
};

/// Reaps children from now on. To be called on the driver's runtime.
pub(crate) fn start() -> io::Result<()> {
    let mut deaths = signal(SignalKind::child())?;
    task::spawn_local(async move {
        loop {
            reap_all();
            if deaths.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

fn reap_all() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
