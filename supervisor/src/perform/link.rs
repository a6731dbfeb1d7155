//! One connection to a worker: frames in, frames out.

mod key;

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{fd::AsRawFd, unix::net::UnixStream as StdStream},
    path::Path,
};

use nix::errno::Errno;
use supervisor_proto::{
    frame::{self, FrameError},
    worker::{
        Attach, Exited, Order, Report, State, attach::Role, order::Order as Body, refused::Reason,
        report::Report as Heard,
    },
};
use tokio::net::UnixStream;

/// The worker's socket in its run directory.
const SOCKET: &str = "worker.sock";

/// The exits that a worker has not been told to forget.
const EXITS: &str = "exits";

/// Bound of that file: the worker keeps 512 records of less than 100 bytes.
const MAX_EXITS: u64 = 256 << 10;

/// Read at once. Reports are small; only a `State` with many exits is longer.
const CHUNK: usize = 4096;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The worker is gone, or has hung up.
    #[error("the worker hung up")]
    Closed,
    /// The socket failed.
    #[error("failed to talk to the worker")]
    Io(#[from] io::Error),
    /// The worker said something that is no frame.
    #[error("failed to understand the worker")]
    Frame(#[from] FrameError),
    /// The worker was given another key than the one that is left.
    #[error("the worker has another key than the `worker.key` beside its socket, or that is lost")]
    WrongKey,
    /// The worker obeys somebody else.
    #[error("the worker refused: {0}")]
    Refused(String),
}

impl LinkError {
    /// Whether it says nothing about the worker, and may be otherwise in a moment: this process lacks
    /// descriptors or memory, or more callers wait at the worker's socket than it holds, or it made room for
    /// another.
    pub(crate) fn is_passing(&self) -> bool {
        let passing =
            [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EAGAIN, Errno::EINTR];
        match self {
            Self::Closed => true,
            // A worker with more callers than it takes hangs up on the next, whatever that one has sent.
            Self::Io(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
            {
                true
            }
            Self::Io(error) => {
                error.raw_os_error().is_some_and(|number| passing.contains(&Errno::from_raw(number)))
            }
            Self::Frame(_) | Self::WrongKey | Self::Refused(_) => false,
        }
    }

    /// Whether this user does not get at its own worker: an agent of the same user can take that away.
    pub(crate) fn is_shut_out(&self) -> bool {
        let Self::Io(error) = self else { return false };
        error.kind() == io::ErrorKind::PermissionDenied
    }

    /// Whether nobody listens where the worker would.
    pub(crate) fn is_absence(&self) -> bool {
        let Self::Io(error) = self else { return false };
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    }
}

/// A connection to a worker.
#[derive(Debug)]
pub(crate) struct Link {
    stream: UnixStream,
    inbox: Vec<u8>,
}

impl Link {
    /// Takes over a connected socket.
    pub(crate) fn new(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, inbox: Vec::new() })
    }

    /// Connects to the worker of `run_dir` as its controller, and learns what it does. Waits as long as a stopped
    /// worker is silent.
    pub(crate) async fn attach(run_dir: &Path, epoch: u64) -> Result<(Self, State), LinkError> {
        // A path below /proc/self/fd is short, however long that of the run directory is.
        let directory = File::open(run_dir)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let stream = UnixStream::connect(path).await?;
        let mut link = Self { stream, inbox: Vec::new() };
        let key = key::read(run_dir)?.unwrap_or_default();
        let attach = Body::Attach(Attach { role: Role::Control.into(), epoch, key });
        let mut unsent = link.send(attach).await.err();
        loop {
            // One that hangs up at once may have said why.
            let received = link.receive().await;
            match received.map_err(|error| unsent.take().unwrap_or(error))?.report {
                Some(Heard::State(state)) => return Ok((link, state)),
                Some(Heard::Refused(refused)) => {
                    return Err(match refused.reason() == Reason::WrongKey {
                        true => LinkError::WrongKey,
                        false => LinkError::Refused(refused.message),
                    });
                }
                Some(
                    Heard::Started(_)
                    | Heard::SpawnFailed(_)
                    | Heard::Notified(_)
                    | Heard::Exited(_)
                    | Heard::LogDropped(_),
                )
                | None => {}
            }
        }
    }

    /// Sends one order.
    pub(crate) async fn send(&mut self, order: Body) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        frame::encode(&Order { order: Some(order) }, &mut bytes);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next report. Can be dropped at any await without losing one.
    pub(crate) async fn receive(&mut self) -> Result<Report, LinkError> {
        loop {
            if let Some(report) = frame::decode(&mut self.inbox)? {
                return Ok(report);
            }
            self.stream.readable().await?;
            let mut chunk = [0; CHUNK];
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(read) => self.inbox.extend_from_slice(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether a later supervisor would find the worker of `run_dir`, and have its key.
pub(crate) fn can_be_found(run_dir: &Path) -> bool {
    let has_key = key::read(run_dir).is_ok_and(|key| key.is_some());
    has_key && fs::symlink_metadata(run_dir.join(SOCKET)).is_ok()
}

/// The key that a new worker of `run_dir` is to be given.
pub(crate) fn key(run_dir: &Path) -> io::Result<Vec<u8>> {
    key::read_or_choose(run_dir)
}

/// The exits that a dead worker left. A record that its death cut short is not one: the worker reports an exit
/// only after it has been written.
pub(crate) fn left_exits(run_dir: &Path) -> Vec<Exited> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(run_dir.join(EXITS)) {
        // What cannot be read is not there; the exit is then one of unknown status.
        let _ = file.take(MAX_EXITS).read_to_end(&mut bytes);
    }
    let mut exits = Vec::new();
    while let Ok(Some(exit)) = frame::decode(&mut bytes) {
        exits.push(exit);
    }
    exits
}

/// Forgets them.
pub(crate) fn forget_exits(run_dir: &Path) -> io::Result<()> {
    match fs::remove_file(run_dir.join(EXITS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests;
