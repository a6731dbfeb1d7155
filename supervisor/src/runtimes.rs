//! Versions of OpenClaw side by side, each in a directory of its own.
//!
//! ```text
//! <data>/runtimes/openclaw-2026.9.6/bin/openclaw    what an instance that is pinned to it is started with
//!                                   bin/node        the Node that runs it
//!                                   node_modules/   what npm installed
//!                                   about.json      where it came from, and when
//!                 .new-…/                           one that is being installed
//! ```
//!
//! A version appears by the rename of a directory in which it has run once and said what it is, so it is there whole
//! or not at all. Nothing changes one afterwards, but that it is [opened](crate::openclaw::reach) to users. An OpenClaw
//! that was installed by other means is not copied: its version is a script that runs it where it is.

mod installation;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use crate::{
    openclaw::{
        prepare::Host,
        runtime::{RUNTIMES, executable, home, is_executable},
    },
    spec::is_version,
};
use installation::Installation;

/// Versions that are looked at. Nobody keeps so many: each has some 800 MB.
const MOST: usize = 1_000;

/// Begins the names of directories in which a version is being installed.
const NEW: &str = ".new-";

/// Begins the names of the others.
const PREFIX: &str = "openclaw-";

/// What is said about a version.
const ABOUT: &str = "about.json";

/// Tells directories apart that one process makes.
static INSTALLS: AtomicU64 = AtomicU64::new(0);

/// A version that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    /// Which.
    pub(crate) version: String,
    /// Its executable.
    pub(crate) program: PathBuf,
    /// Where it came from: `npm`, or a path.
    pub(crate) source: String,
    /// When, in seconds since 1970.
    pub(crate) at: u64,
}

/// What is to be installed.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// A version, or a tag that npm resolves.
    pub(crate) version: String,
    /// Instead of npm's registry.
    pub(crate) from: Option<PathBuf>,
    /// Where the `node` lies that is to run it; `None`: the first on PATH.
    pub(crate) node: Option<PathBuf>,
}

/// Why a version is not installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// It can be none.
    #[error("`{0}` is not a version")]
    NoVersion(String),
    /// What is to be installed from is not there, or is nothing of the kind.
    #[error("`{}` is neither an executable, nor a directory with `bin/openclaw` or `package.json`, nor a `.tgz`", .0.display())]
    NoSource(PathBuf),
    /// There is no Node, or no npm.
    #[error("`{0}` is not on PATH, and is needed to install OpenClaw")]
    NoTool(&'static str),
    /// npm does not end, or not well.
    #[error("npm failed: {last}; its output is in `{}`", log.display())]
    Npm {
        /// The last line that it printed.
        last: String,
        /// All of them.
        log: PathBuf,
    },
    /// What was installed does not run.
    #[error("it does not say its version: {0}")]
    Mute(String),
    /// What was installed is something else.
    #[error("it is not {wanted}: it says `{said}`")]
    Other {
        /// What was asked for.
        wanted: String,
        /// What it says.
        said: String,
    },
    /// The disk.
    #[error("failed to write `{}`: {source}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor ends, or has no thread left.
    #[error("the supervisor is shutting down")]
    Interrupted,
}

/// What is said about a version, in its directory.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    source: String,
    at: u64,
}

/// The installed versions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Runtimes {
    host: Arc<Host>,
    turns: Arc<Mutex<()>>,
}

impl Runtimes {
    /// Those of this data directory.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host, turns: Arc::default() }
    }

    /// Waits until nobody else installs or removes one, and keeps others from it until it is dropped.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turns).lock_owned().await
    }

    /// The version, installed in this [`turn`](Self::turn) if it was missing; and whether it was there.
    pub(crate) async fn ensure(
        &self,
        _turn: OwnedMutexGuard<()>,
        wanted: Wanted,
    ) -> Result<(Installed, bool), InstallError> {
        if !is_version(&wanted.version) {
            return Err(InstallError::NoVersion(wanted.version));
        }
        let host = Arc::clone(&self.host);
        aside("install", move || {
            if let Some(known) = look(&host.control.data_dir, &wanted.version) {
                return Ok((known, true));
            }
            Ok((Installation { host: &host, wanted: &wanted }.perform()?, false))
        })
        .await?
    }

    /// All that are there, by name.
    pub(crate) async fn list(&self) -> Vec<Installed> {
        let data_dir = self.host.control.data_dir.clone();
        aside("runtimes", move || list(&data_dir)).await.unwrap_or_default()
    }

    /// Removes all but these in this [`turn`](Self::turn), and says which.
    pub(crate) async fn prune(
        &self,
        _turn: OwnedMutexGuard<()>,
        used: BTreeSet<String>,
    ) -> Result<Vec<String>, InstallError> {
        let data_dir = self.host.control.data_dir.clone();
        aside("prune", move || {
            let mut removed = Vec::new();
            for unused in list(&data_dir).into_iter().filter(|one| !used.contains(&one.version)) {
                let path = home(&data_dir, &unused.version);
                remove(&path).map_err(|source| InstallError::Write { path, source })?;
                removed.push(unused.version);
            }
            Ok(removed)
        })
        .await?
    }
}

/// Does what takes minutes on a thread of its own.
async fn aside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, InstallError> {
    let (tell, outcome) = oneshot::channel();
    // Who asked may have gone meanwhile.
    let work = move || drop(tell.send(work()));
    thread::Builder::new().name(name.into()).spawn(work).map_err(|_| InstallError::Interrupted)?;
    outcome.await.map_err(|_| InstallError::Interrupted)
}

fn list(data_dir: &Path) -> Vec<Installed> {
    let Ok(entries) = fs::read_dir(data_dir.join(RUNTIMES)) else { return Vec::new() };
    let names = entries.flatten().take(MOST).filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<Installed> =
        names.filter_map(|name| look(data_dir, name.strip_prefix(PREFIX)?)).collect();
    found.sort_by(|a, b| a.version.cmp(&b.version));
    found
}

fn look(data_dir: &Path, version: &str) -> Option<Installed> {
    let home = home(data_dir, version);
    let program = executable(&home);
    let about = fs::read(home.join(ABOUT)).ok().and_then(|text| serde_json::from_slice::<About>(&text).ok());
    let about = about.unwrap_or_else(|| About { source: String::new(), at: 0 });
    let installed = || Installed {
        version: version.to_owned(),
        program: program.clone(),
        source: about.source,
        at: about.at,
    };
    (is_version(version) && is_executable(&program)).then(installed)
}

/// Takes it out of use at once; what is left of it after a crash is removed with the next one.
fn remove(home: &Path) -> io::Result<()> {
    let gone = home.with_file_name(unique());
    fs::rename(home, &gone)?;
    fs::remove_dir_all(gone)
}

fn unique() -> String {
    format!("{NEW}{}-{}", process::id(), INSTALLS.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests;
