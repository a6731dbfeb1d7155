//! From the first frame on standard input to a worker that serves.
//!
//! Everything that could fail is tried before the gateway is started, the lock on the run directory first:
//! whoever holds it is the only worker of the instance.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::libc;
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::getpid;
use rustix::stdio::stdin;
use supervisor_proto::frame::{self, FrameError};
use supervisor_proto::worker::refused::Reason;
use supervisor_proto::worker::{Bootstrap, Launch, LogPolicy, Order, Refused, Report, Run, SpawnFailed};
use supervisor_proto::worker::{order, report};
use thiserror::Error;

use crate::child::{UnfitLaunch, check, check_absolute};
use crate::complain::{chain, complain};
use crate::confine::{ConfineError, cut_loose};
use crate::key::Key;
use crate::output::Output;
use crate::record::Exits;
use crate::serve::Server;
use crate::worker::{Parts, Worker};

const LOCK: &str = "worker.lock";

/// What lies in the run directory is the worker's own, and never a link to something else.
const NOFOLLOW: i32 = libc::O_NOFOLLOW;

/// How long the supervisor may take to send the bootstrap, and to read why it failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes read at once.
const CHUNK: usize = 4 << 10;

/// Why the worker did not begin.
#[derive(Debug, Error)]
pub(crate) enum BootError {
    /// Somebody has run it by hand.
    #[error("standard input is not a Unix stream socket; this program is started by openclaw-supervisor")]
    NotASocket,
    /// The supervisor went away before it had sent the bootstrap.
    #[error("the supervisor went away")]
    Abandoned,
    /// The supervisor's socket failed or kept silent.
    #[error("failed to read the bootstrap")]
    Read(#[source] io::Error),
    /// The first frame is none.
    #[error("failed to decode the bootstrap")]
    Frame(#[source] FrameError),
    /// The first order is another one.
    #[error("the first order is not a bootstrap")]
    Order,
    /// Something that must be there is not.
    #[error("the bootstrap lacks {0}")]
    Lacks(&'static str),
    /// It could never be carried out.
    #[error(transparent)]
    Unfit(#[from] UnfitLaunch),
    /// Its key could be guessed.
    #[error("a key has 16 to 64 bytes")]
    Key,
    /// The log's bounds cannot be kept.
    #[error("a log needs at least 2 files of at least 1 byte")]
    LogBounds,
    /// The run directory is not there.
    #[error("failed to enter `{path}`")]
    Enter {
        /// The directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The lock's file cannot be used.
    #[error("failed to lock `worker.lock`")]
    Lock(#[source] io::Error),
    /// There is another worker.
    #[error("worker {holder} holds the run directory")]
    Locked {
        /// What that one wrote into its lock: its pid.
        holder: String,
    },
    /// The process could not be cut loose.
    #[error("failed to leave the supervisor's session")]
    Confine(#[source] ConfineError),
    /// The record cannot be used.
    #[error("failed to open `exits`")]
    Record(#[source] io::Error),
    /// The socket cannot be made.
    #[error("failed to listen on `worker.sock`")]
    Listen(#[source] io::Error),
}

/// A worker that did not begin, and whoever wants to know why.
#[derive(Debug)]
pub(crate) struct BootFailure {
    error: BootError,
    incarnation: u64,
    supervisor: Option<UnixStream>,
}

/// What the first frame holds, with nothing left out.
struct Charge {
    instance: String,
    run_dir: String,
    epoch: u64,
    log: LogPolicy,
    run: Run,
    launch: Launch,
    key: Key,
}

/// Reads the bootstrap, takes hold of the run directory, and starts the first incarnation.
pub(crate) fn boot() -> Result<Worker, BootFailure> {
    let early = |error| BootFailure { error, incarnation: 0, supervisor: None };
    let supervisor = take_stdin().map_err(early)?;
    let (order, rest) = match receive(&supervisor) {
        Ok(received) => received,
        Err(error) => return Err(BootFailure { error, incarnation: 0, supervisor: Some(supervisor) }),
    };
    let incarnation = requested(&order);
    match order.order.ok_or(BootError::Order).and_then(charge).and_then(establish) {
        Ok((parts, run)) => begin(parts, run, supervisor, rest),
        Err(error) => Err(BootFailure { error, incarnation, supervisor: Some(supervisor) }),
    }
}

/// Moves the socket away from standard input, which is about to be closed.
fn take_stdin() -> Result<UnixStream, BootError> {
    let is_stream = socket_type(stdin()) == Ok(SocketType::STREAM);
    if !is_stream || socket_domain(stdin()) != Ok(AddressFamily::UNIX) {
        return Err(BootError::NotASocket);
    }
    let socket = fcntl_dupfd_cloexec(stdin(), 3).map_err(|error| BootError::Read(error.into()))?;
    Ok(UnixStream::from(socket))
}

/// Reads the first order, and whatever came with it.
fn receive(mut supervisor: &UnixStream) -> Result<(Order, Vec<u8>), BootError> {
    supervisor.set_nonblocking(false).map_err(BootError::Read)?;
    supervisor.set_read_timeout(Some(PATIENCE)).map_err(BootError::Read)?;
    let mut inbox = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        match supervisor.read(&mut chunk) {
            Ok(0) => return Err(BootError::Abandoned),
            Ok(length) => inbox.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(BootError::Read(error)),
        }
        if let Some(order) = frame::decode(&mut inbox).map_err(BootError::Frame)? {
            return Ok((order, inbox));
        }
    }
}

fn requested(order: &Order) -> u64 {
    match &order.order {
        Some(order::Order::Bootstrap(Bootstrap { run: Some(run), .. })) => run.incarnation,
        Some(_) | None => 0,
    }
}

/// Checks the order.
fn charge(order: order::Order) -> Result<Charge, BootError> {
    let order::Order::Bootstrap(bootstrap) = order else { return Err(BootError::Order) };
    let log = bootstrap.log.ok_or(BootError::Lacks("a log policy"))?;
    let mut run = bootstrap.run.ok_or(BootError::Lacks("an incarnation to run"))?;
    if run.incarnation == 0 {
        return Err(BootError::Lacks("an incarnation to run"));
    }
    let launch = run.launch.take().ok_or(BootError::Lacks("a launch"))?;
    check(&launch)?;
    check_absolute("run directory", &bootstrap.run_dir)?;
    check_absolute("log directory", &log.directory)?;
    if log.max_files < 2 || log.max_file_bytes == 0 {
        return Err(BootError::LogBounds);
    }
    let Bootstrap { instance, run_dir, epoch, key, .. } = bootstrap;
    let key = Key::new(key).ok_or(BootError::Key)?;
    Ok(Charge { instance, run_dir, epoch, log, run, launch, key })
}

/// Takes hold of everything but the gateway.
fn establish(charge: Charge) -> Result<(Parts, Run), BootError> {
    let Charge { instance, run_dir, epoch, log, run, launch, key } = charge;
    env::set_current_dir(&run_dir).map_err(|source| BootError::Enter { path: run_dir.clone(), source })?;
    let lock = lock()?;
    let signals = cut_loose(&instance).map_err(BootError::Confine)?;
    let exits = Exits::open().map_err(BootError::Record)?;
    let server = Server::bind().map_err(BootError::Listen)?;
    let output = Output::open(&log);
    let run_dir = PathBuf::from(run_dir);
    Ok((Parts { run_dir, lock, signals, exits, server, output, launch, epoch, key }, run))
}

/// Takes the lock for as long as this process lives, and says in it who holds it.
fn lock() -> Result<File, BootError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(NOFOLLOW)
        .open(LOCK)
        .map_err(BootError::Lock)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(BootError::Locked { holder: holder(&file) }),
        Err(error) => return Err(BootError::Lock(error.into())),
    }
    file.set_len(0).map_err(BootError::Lock)?;
    file.write_all_at(format!("{}\n", getpid()).as_bytes(), 0).map_err(BootError::Lock)?;
    Ok(file)
}

fn holder(file: &File) -> String {
    let mut pid = [0; 16];
    let length = file.read_at(&mut pid, 0).unwrap_or(0);
    String::from_utf8_lossy(pid.get(..length).unwrap_or_default()).trim().to_owned()
}

/// Hands the connection over and runs the first incarnation.
fn begin(parts: Parts, run: Run, supervisor: UnixStream, rest: Vec<u8>) -> Result<Worker, BootFailure> {
    let incarnation = run.incarnation;
    let mut worker = Worker::new(parts);
    match worker.begin(supervisor, rest, run) {
        Ok(()) => Ok(worker),
        Err(source) => Err(BootFailure { error: BootError::Read(source), incarnation, supervisor: None }),
    }
}

impl BootFailure {
    /// Tells the supervisor, and standard error. A supervisor that just went away is no news to anyone.
    pub(crate) fn explain(mut self) {
        if matches!(self.error, BootError::Abandoned) {
            return;
        }
        let message = chain(&self.error);
        complain(format_args!("{message}"));
        if let Some(supervisor) = &mut self.supervisor {
            let mut bytes = Vec::new();
            let report = Report { report: Some(self.error.report(self.incarnation, message)) };
            frame::encode(&report, &mut bytes);
            let _ = supervisor.set_write_timeout(Some(PATIENCE));
            let _ = supervisor.write_all(&bytes);
        }
    }
}

impl BootError {
    fn report(&self, incarnation: u64, message: String) -> report::Report {
        let refused = |reason: Reason, message| {
            report::Report::Refused(Refused { reason: reason.into(), incarnation, message })
        };
        let failed = |errno: &io::Error, message| {
            let errno = errno.raw_os_error().unwrap_or(0);
            report::Report::SpawnFailed(SpawnFailed { incarnation, errno, message })
        };
        match self {
            Self::Locked { .. } => refused(Reason::Locked, message),
            Self::NotASocket | Self::Abandoned | Self::Frame(_) | Self::Order => {
                refused(Reason::Invalid, message)
            }
            Self::Lacks(_) | Self::Unfit(_) | Self::LogBounds | Self::Key => {
                refused(Reason::Invalid, message)
            }
            Self::Read(source)
            | Self::Enter { source, .. }
            | Self::Lock(source)
            | Self::Record(source)
            | Self::Listen(source) => failed(source, message),
            Self::Confine(source) => failed(source.cause(), message),
        }
    }
}
