//! The socket on which a gateway says that it is ready, sd_notify(3).
//!
//! It lies in the run directory, which only this user can enter. It is bound by its relative name, as a Unix socket's
//! path has room for 107 bytes only; the gateway, which works elsewhere, is given the absolute path where that fits and
//! otherwise the way through this process's own working directory, which always does (but not behind Landlock: there,
//! readiness has to be probed). A gateway of another user cannot enter the run directory. Its socket lies beside its log,
//! and is its own.
//!
//! Neither place keeps a neighbour of the same user out. So who is heard is the gateway and what it has started, as far
//! as it has the gateway's user, by the kernel's word for who has sent what (`SCM_CREDENTIALS`, unix(7)). Only who could
//! change the host anyway can have the kernel say otherwise. Two cannot be told, and are not heard: who is in a pid
//! namespace that cannot be seen from here, and who has ended and been reaped before its word was read. Whoever says
//! `READY=1` and ends has to wait until that is read, as systemd-notify(1) does; systemd asks as much. What ends as a
//! child of this process, as the gateway does and its orphans, is read before it is reaped. A pid that was given away
//! anew by then counts for who has it now; for a neighbour's to become the gateway's takes a whole round of pids.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::cmsg_space;
// rustix has no pid 0, which the kernel says of some senders.
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use rustix::fs::{AtFlags, Mode, chownat};
use rustix::net::sockopt::set_socket_passcred;
use rustix::process::{Pid, Uid, geteuid, getpid, umask};

use crate::directory::Directory;
use crate::life::Readiness;
use crate::tree::is_descendant;

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
    /// This other one.
    Other(u32),
}

/// The bound socket.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    audience: Audience,
    address: OsString,
    /// Where it lies, unless in the current directory.
    elsewhere: Option<Directory>,
}

impl NotifySocket {
    /// Binds it in the current directory, which `run_dir` names.
    pub(crate) fn bind(run_dir: &Path) -> io::Result<Self> {
        remove();
        let socket = UnixDatagram::bind(NAME)?;
        Self::new(socket, (Audience::Own, run_dir), None)
    }

    /// Binds it in `log_dir`, where this user may enter.
    pub(crate) fn bind_for(uid: u32, log_dir: &Path) -> io::Result<Self> {
        let directory = Directory::open(log_dir)?;
        directory.remove(NAME)?;
        let path = format!("/proc/self/fd/{}/{NAME}", directory.as_fd().as_raw_fd());
        let before = umask(Mode::RWXG | Mode::RWXO);
        let bound = UnixDatagram::bind(path);
        umask(before);
        let socket = bound?;
        // Nobody else writes in there: the name is still the socket's.
        chownat(directory.as_fd(), NAME, Some(Uid::from_raw(uid)), None, AtFlags::SYMLINK_NOFOLLOW)?;
        Self::new(socket, (Audience::Other(uid), log_dir), Some(directory))
    }

    fn new(
        socket: UnixDatagram,
        (audience, directory): (Audience, &Path),
        elsewhere: Option<Directory>,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        set_socket_passcred(&socket, true)?;
        let mut path = directory.join(NAME);
        if path.as_os_str().as_bytes().len() > LONGEST_PATH {
            path = Path::new("/proc").join(getpid().to_string()).join("cwd").join(NAME);
        }
        Ok(Self { socket, audience, address: path.into_os_string(), elsewhere })
    }

    /// Who reaches it.
    pub(crate) fn audience(&self) -> Audience {
        self.audience
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(crate) fn address(&self) -> &OsString {
        &self.address
    }

    /// Reads what has come. Anything but `READY=1` of the gateway's is dropped.
    pub(crate) fn receive(&self) -> Readiness {
        let mut readiness = Readiness::Unsaid;
        let mut datagram = [0; DATAGRAM];
        for _ in 0..DATAGRAMS_PER_TURN {
            let mut space = cmsg_space!(UnixCredentials);
            let mut parts = [IoSliceMut::new(&mut datagram)];
            let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_CMSG_CLOEXEC);
            let Ok(received) = recvmsg::<()>(socket, &mut parts, Some(&mut space), flags) else { break };
            // There is no room for files, so what comes with some has no sender here, and the kernel closes them.
            let sender =
                received.cmsgs().ok().and_then(|mut found| found.find_map(|message| credentials(&message)));
            let bytes = received.bytes;
            let is_told = says_ready(datagram.get(..bytes).unwrap_or_default());
            if is_told && readiness == Readiness::Unsaid && sender.is_some_and(|sender| self.is_its(sender)) {
                readiness = Readiness::Said;
            }
        }
        readiness
    }

    /// Whether it is the gateway's, or of what that has started. The kernel says 0 of who cannot be seen from here.
    fn is_its(&self, sender: UnixCredentials) -> bool {
        sender.uid() == self.user() && Pid::from_raw(sender.pid()).is_some_and(is_descendant)
    }

    /// Who is heard.
    fn user(&self) -> u32 {
        match self.audience {
            Audience::Own => geteuid().as_raw(),
            Audience::Other(uid) => uid,
        }
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

fn credentials(message: &ControlMessageOwned) -> Option<UnixCredentials> {
    let ControlMessageOwned::ScmCredentials(sender) = message else { return None };
    Some(*sender)
}

fn says_ready(datagram: &[u8]) -> bool {
    datagram.split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use landlock::{AccessFs, Ruleset, RulesetAttr};

    use super::*;

    #[test]
    fn what_keeps_a_socket_from_being_bound_is_told() {
        let world = tempfile::tempdir().unwrap();
        let (uid, log_dir) = (geteuid().as_raw(), world.path().to_owned());
        // Of no user but for this: root is refused little, and it holds for the thread alone.
        let no_sockets = Ruleset::default().handle_access(AccessFs::MakeSock).unwrap().create().unwrap();
        let refused = thread::spawn(move || {
            no_sockets.restrict_self().unwrap();
            NotifySocket::bind_for(uid, &log_dir).map(drop)
        });
        let refused = refused.join().unwrap();
        if crate::kernel::landlock_abi().is_err() {
            eprintln!("nothing is tried here: this kernel has no Landlock");
            return;
        }
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn ready_is_found_among_other_lines_and_only_whole() {
        assert!(says_ready(b"READY=1"));
        assert!(says_ready(b"STATUS=up\nREADY=1\nMAINPID=3\n"));
        assert!(!says_ready(b"READY=10"));
        assert!(!says_ready(b"STATUS=READY=1"));
        assert!(!says_ready(b""));
    }
}
