//! Starts workers.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use supervisor_core::ids::Name;
use supervisor_proto::worker::{
    Bootstrap, Exited, order::Order as Body, refused::Reason, report::Report as Heard,
};
use tokio::{task, time};

use super::{
    Surroundings,
    link::{self, Link, LinkError},
};
use crate::openclaw::environment::MARK;

/// What the worker itself complains about.
const COMPLAINTS: &str = "worker.log";

/// Its complaints are few; of more than this many bytes, the older ones are no news.
const MOST_COMPLAINTS: u64 = 256 << 10;

/// A new worker answers within milliseconds. One that takes this long will not, and core waits for a launch only
/// twice as long.
const PATIENCE: Duration = Duration::from_secs(15);

/// A worker that has just let go may hold its lock for an instant longer than its socket.
const LOCKED_TRIES: u32 = 20;

/// Between two such tries.
const LOCKED_PAUSE: Duration = Duration::from_millis(10);

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// Its directory cannot be made.
    #[error("failed to make `{path}`: {source}")]
    Directory {
        /// The run directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be executed.
    #[error("failed to start `{program}`: {source}")]
    Execute {
        /// The worker's program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not take its bootstrap.
    #[error("failed to talk to a new worker: {0}")]
    Bootstrap(#[from] LinkError),
    /// It did not answer.
    #[error("a new worker did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// Another worker has the run directory and does not let go.
    #[error("another worker holds `{0}`")]
    Locked(PathBuf),
    /// It will not work.
    #[error("the worker could not begin: {0}")]
    Refused(String),
}

impl SpawnError {
    /// Whether there was a process, which may have got anywhere since.
    pub(crate) fn leaves_a_process(&self) -> bool {
        match self {
            Self::Directory { .. } | Self::Execute { .. } => false,
            Self::Bootstrap(_) | Self::Silent | Self::Locked(_) | Self::Refused(_) => true,
        }
    }
}

/// A worker that has taken its bootstrap.
#[derive(Debug)]
pub(crate) struct Worker {
    /// The connection to it.
    pub(crate) link: Link,
    /// Its process.
    pub(crate) pid: i32,
    /// Exits that the worker before it could not get rid of.
    pub(crate) exits: Vec<Exited>,
}

/// A worker's process that knows of nothing yet.
struct Made {
    link: Link,
    pid: i32,
    key: Vec<u8>,
}

/// Starts a worker, gives it its bootstrap with the key to it, and takes its first answer.
pub(crate) async fn worker(
    surroundings: &Surroundings,
    name: &Name,
    run_dir: &Path,
    bootstrap: &Bootstrap,
) -> Result<Worker, SpawnError> {
    for _ in 0..LOCKED_TRIES {
        let Made { mut link, pid, key } = spawn(surroundings, name, run_dir).await?;
        let answer = async {
            link.send(Body::Bootstrap(Bootstrap { key, ..bootstrap.clone() })).await?;
            link.receive().await
        };
        let answer = time::timeout(PATIENCE, answer).await.map_err(|_| SpawnError::Silent)??;
        match answer.report {
            Some(Heard::State(state)) => return Ok(Worker { link, pid, exits: state.exits }),
            Some(Heard::Refused(refused)) if refused.reason() == Reason::Locked => {
                time::sleep(LOCKED_PAUSE).await;
            }
            Some(Heard::Refused(refused)) => return Err(SpawnError::Refused(refused.message)),
            Some(Heard::SpawnFailed(failed)) => return Err(SpawnError::Refused(failed.message)),
            Some(Heard::Started(_) | Heard::Notified(_) | Heard::Exited(_) | Heard::LogDropped(_)) | None => {
                return Err(SpawnError::Refused("its first report is not its state".into()));
            }
        }
    }
    Err(SpawnError::Locked(run_dir.to_owned()))
}

/// The process, connected by its standard input. Making it blocks for a fraction of a millisecond, and under
/// load for longer, so that is done aside.
async fn spawn(surroundings: &Surroundings, name: &Name, run_dir: &Path) -> Result<Made, SpawnError> {
    let program = surroundings.worker_program.clone();
    let mark = surroundings.mark(name);
    let run_dir = run_dir.to_owned();
    let made = task::spawn_blocking(move || make(&program, &mark, &run_dir)).await;
    let (stream, pid, key) = made.map_err(|error| LinkError::Io(error.into()))??;
    let link = Link::new(stream).map_err(LinkError::Io)?;
    Ok(Made { link, pid, key })
}

fn make(program: &Path, mark: &str, run_dir: &Path) -> Result<(UnixStream, i32, Vec<u8>), SpawnError> {
    let unusable = |source| SpawnError::Directory { path: run_dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir).map_err(unusable)?;
    let complaints = complaints(run_dir).map_err(unusable)?;
    let key = link::key(run_dir).map_err(unusable)?;
    let unmade = |source| SpawnError::Execute { program: program.to_owned(), source };
    let (ours, theirs) = UnixStream::pair().map_err(unmade)?;
    // The process is reaped by `reap`, like every other child.
    let child = Command::new(program)
        .env_clear()
        .env(MARK, mark)
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(complaints)
        .spawn()
        .map_err(unmade)?;
    Ok((ours, i32::try_from(child.id()).unwrap_or(0), key))
}

fn complaints(run_dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(run_dir.join(COMPLAINTS))?;
    if file.metadata()?.len() > MOST_COMPLAINTS {
        file.set_len(0)?;
    }
    Ok(file)
}
