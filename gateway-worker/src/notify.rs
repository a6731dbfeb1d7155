//! The socket on which a gateway says that it is ready, sd_notify(3).
//!
//! It lies in the run directory, which only this user can enter, so whoever can send to it could also do the
//! gateway worse. It is bound by its relative name, as a Unix socket's path has room for 107 bytes only; the
//! gateway, which works elsewhere, is given the absolute path where that fits and otherwise the way through
//! this process's own working directory, which always does (but not behind Landlock: there, readiness has to be
//! probed).
//!
//! A gateway of another user cannot enter the run directory. Its socket lies beside its log, for all who get there.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{getpid, umask};

use crate::directory::Directory;
use crate::life::Readiness;

const NAME: &str = "notify.sock";

/// `sun_path` less its terminator, unix(7).
const LONGEST_PATH: usize = 107;

/// Datagrams read in a row. More stay in the socket for the next turn.
const DATAGRAMS_PER_TURN: usize = 16;

/// More datagrams than a socket queues by any usual `net.unix.max_dgram_qlen`.
const DATAGRAMS_QUEUED: usize = 1024;

/// Bytes of one datagram that are looked at. sd_notify messages are a few short lines.
const DATAGRAM: usize = 2048;

/// Who is to reach the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The user of this process.
    Own,
    /// Another one.
    Other,
}

/// The bound socket.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    address: OsString,
    /// Where it lies, unless in the current directory.
    elsewhere: Option<Directory>,
}

impl NotifySocket {
    /// Binds it in the current directory, which `run_dir` names.
    pub(crate) fn bind(run_dir: &Path) -> io::Result<Self> {
        remove();
        let socket = UnixDatagram::bind(NAME)?;
        Self::new(socket, run_dir, None)
    }

    /// Binds it in `log_dir`, for whoever may enter that.
    pub(crate) fn bind_for_others(log_dir: &Path) -> io::Result<Self> {
        let directory = Directory::open(log_dir)?;
        directory.remove(NAME)?;
        let path = format!("/proc/self/fd/{}/{NAME}", directory.as_fd().as_raw_fd());
        // To change the mode afterwards would take a name that may be another file's by then.
        let before = umask(Mode::empty());
        let bound = UnixDatagram::bind(path);
        umask(before);
        Self::new(bound?, log_dir, Some(directory))
    }

    fn new(socket: UnixDatagram, directory: &Path, elsewhere: Option<Directory>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let mut path = directory.join(NAME);
        if path.as_os_str().as_bytes().len() > LONGEST_PATH {
            path = Path::new("/proc").join(getpid().to_string()).join("cwd").join(NAME);
        }
        Ok(Self { socket, address: path.into_os_string(), elsewhere })
    }

    /// Who reaches it.
    pub(crate) fn audience(&self) -> Audience {
        if self.elsewhere.is_some() { Audience::Other } else { Audience::Own }
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(crate) fn address(&self) -> &OsString {
        &self.address
    }

    /// Reads what has come. Anything but `READY=1` is dropped.
    pub(crate) fn receive(&self) -> Readiness {
        let mut readiness = Readiness::Unsaid;
        let mut datagram = [0; DATAGRAM];
        for _ in 0..DATAGRAMS_PER_TURN {
            let Ok(length) = self.socket.recv(&mut datagram) else { break };
            if says_ready(datagram.get(..length).unwrap_or_default()) {
                readiness = Readiness::Said;
            }
        }
        readiness
    }

    /// Drops what an earlier incarnation may have left unread.
    pub(crate) fn drain(&self) {
        for _ in 0..DATAGRAMS_QUEUED {
            if self.socket.recv(&mut [0]).is_err() {
                return;
            }
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        match &self.elsewhere {
            Some(directory) => drop(directory.remove(NAME)),
            None => remove(),
        }
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes the socket's name out of the current directory.
pub(crate) fn remove() {
    let _ = fs::remove_file(NAME);
}

fn says_ready(datagram: &[u8]) -> bool {
    datagram.split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_found_among_other_lines_and_only_whole() {
        assert!(says_ready(b"READY=1"));
        assert!(says_ready(b"STATUS=up\nREADY=1\nMAINPID=3\n"));
        assert!(!says_ready(b"READY=10"));
        assert!(!says_ready(b"STATUS=READY=1"));
        assert!(!says_ready(b""));
    }
}
