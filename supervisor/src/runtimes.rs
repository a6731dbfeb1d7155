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

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, oneshot};
use tracing::{info, warn};

use crate::{
    openclaw::{
        environment::DEFAULT_PATH,
        file::{Durability, replace},
        prepare::Host,
        runtime::{RUNTIMES, executable, home, is_executable},
    },
    spec::is_version,
    tool::{Ran, Tool},
};

/// npm downloads some 650 MB; measured: a minute. A slow line takes ten times that.
const INSTALL: Duration = Duration::from_secs(1_800);

/// OpenClaw says its version within a second; the first start of a Node from a cold disk takes longer.
const SAY: Duration = Duration::from_secs(120);

/// Versions that are looked at. Nobody keeps so many: each has some 800 MB.
const MOST: usize = 1_000;

/// Begins the names of directories in which a version is being installed.
const NEW: &str = ".new-";

/// Begins the names of the others.
const PREFIX: &str = "openclaw-";

/// What is said about a version.
const ABOUT: &str = "about.json";

/// For the owner alone.
const PRIVATE: u32 = 0o700;

/// Dependencies of published versions that cannot be installed as they are asked for: the range for linkedom admits
/// one that cannot stand beside the others, and libsignal is asked for by an address that is not npm's. They are used
/// only when npm fails without them.
const OVERRIDES: &str = r#"{"linkedom": "0.18.12", "libsignal": "npm:libsignal@6.0.0"}"#;

/// Variables of the supervisor that are none of npm's business.
const WITHHELD: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "NODE_OPTIONS"];

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

/// What a version is made from.
enum Source {
    /// An executable that is used where it is.
    Program(PathBuf),
    /// What npm is told to install.
    Package(String),
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

    /// The version, installed if it was missing; and whether it was there.
    pub(crate) async fn ensure(&self, wanted: Wanted) -> Result<(Installed, bool), InstallError> {
        if !is_version(&wanted.version) {
            return Err(InstallError::NoVersion(wanted.version));
        }
        let _turn = self.turns.lock().await;
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

    /// Removes all but these, and says which.
    pub(crate) async fn prune(&self, used: BTreeSet<String>) -> Result<Vec<String>, InstallError> {
        let _turn = self.turns.lock().await;
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

/// A version on its way.
struct Installation<'a> {
    host: &'a Host,
    wanted: &'a Wanted,
}

impl Installation<'_> {
    fn perform(&self) -> Result<Installed, InstallError> {
        let source = self.source()?;
        let runtimes = self.host.control.data_dir.join(RUNTIMES);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| InstallError::Write { path, source }
        };
        let private = |path: &Path| DirBuilder::new().recursive(true).mode(PRIVATE).create(path);
        private(&runtimes).map_err(failed(&runtimes))?;
        tidy(&runtimes);
        let work = runtimes.join(unique());
        private(&work.join("bin")).map_err(failed(&work))?;
        let made = self.make(&source, &work);
        if made.is_err() {
            // The first error is the one to tell; what is left is removed before the next one.
            let _ = fs::remove_dir_all(&work);
        }
        let version = made?;
        let home = home(&self.host.control.data_dir, &version);
        if look(&self.host.control.data_dir, &version).is_some() {
            // A tag that comes to a version that is there.
            let _ = fs::remove_dir_all(&work);
        } else {
            place(&work, &home).map_err(failed(&home))?;
            info!(version, "installed a version of OpenClaw");
        }
        look(&self.host.control.data_dir, &version).ok_or_else(|| InstallError::Mute("it is gone".into()))
    }

    fn source(&self) -> Result<Source, InstallError> {
        let Some(from) = &self.wanted.from else {
            return Ok(Source::Package(self.wanted.version.clone()));
        };
        let is_package = from.join("package.json").is_file()
            || from.extension().is_some_and(|end| end == "tgz") && from.is_file();
        let program = [from.clone(), from.join("bin/openclaw")].into_iter().find(|path| is_executable(path));
        match (from.is_absolute(), program, is_package) {
            (true, Some(program), _) => Ok(Source::Program(program)),
            (true, None, true) => Ok(Source::Package(format!("file:{}", from.display()))),
            (true, None, false) | (false, _, _) => Err(InstallError::NoSource(from.clone())),
        }
    }

    /// Makes it in `work`, and says which version it is.
    fn make(&self, source: &Source, work: &Path) -> Result<String, InstallError> {
        let written = |source| InstallError::Write { path: work.to_owned(), source };
        let (script, said, from) = match source {
            Source::Program(program) => {
                if let Some(node) =
                    program.parent().map(|bin| bin.join("node")).filter(|node| is_executable(node))
                {
                    symlink(node, work.join("bin/node")).map_err(written)?;
                }
                let said = self.ask(program, &[], work)?;
                (script(std::slice::from_ref(program)), said, program.display().to_string())
            }
            Source::Package(package) => {
                let node = self.find("node")?;
                let node = fs::canonicalize(&node).unwrap_or(node);
                symlink(&node, work.join("bin/node")).map_err(written)?;
                self.npm(package, work)?;
                let entry = Path::new("node_modules/openclaw/openclaw.mjs");
                let said = self.ask(&node, &[&work.join(entry).to_string_lossy()], work)?;
                let from = self.wanted.from.as_ref().map_or("npm".into(), |from| from.display().to_string());
                let version = packaged(work).unwrap_or_else(|| self.wanted.version.clone());
                let home = home(&self.host.control.data_dir, &version);
                (script(&[home.join("bin/node"), home.join(entry)]), said, from)
            }
        };
        let version = match packaged(work) {
            // A tag is what it comes to; a version must be what was asked for.
            Some(version) if !self.wanted.version.starts_with(|first: char| first.is_ascii_digit()) => {
                version
            }
            Some(_) | None => self.wanted.version.clone(),
        };
        if !is_version(&version) || !says(&said, &version) {
            return Err(InstallError::Other { wanted: version, said });
        }
        let program = executable(work);
        fs::write(&program, script).map_err(written)?;
        fs::set_permissions(&program, Permissions::from_mode(0o755)).map_err(written)?;
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let about = serde_json::to_vec(&About { source: from, at }).unwrap_or_default();
        replace(&work.join(ABOUT), &about, 0o600, Durability::Durable).map_err(written)?;
        Ok(version)
    }

    /// What it says when it is asked for its version.
    fn ask(&self, program: &Path, first: &[&str], work: &Path) -> Result<String, InstallError> {
        let home = work.join(".home");
        fs::create_dir_all(&home).map_err(|source| InstallError::Write { path: home.clone(), source })?;
        let environment = BTreeMap::from([
            ("PATH".to_owned(), self.path(work)),
            ("HOME".to_owned(), home.to_string_lossy().into_owned()),
            ("TMPDIR".to_owned(), home.to_string_lossy().into_owned()),
        ]);
        let args = first.iter().chain(&["--version"]).map(|word| (*word).to_owned()).collect();
        let tool = Tool {
            program: program.to_owned(),
            args,
            environment: Some(environment),
            directory: Some(home.clone()),
            inside: None,
        };
        let ran = tool.run(SAY);
        // It may have been used as a cache; nothing is kept of that.
        let _ = fs::remove_dir_all(home);
        match ran {
            Some(Ran { status: 0, output }) => Ok(last_line(&output)),
            Some(Ran { status, output }) => {
                Err(InstallError::Mute(format!("it exits with status {status}: {}", last_line(&output))))
            }
            None => Err(InstallError::Mute(format!("it does not end within {} s", SAY.as_secs()))),
        }
    }

    /// Has npm install it: as it is, and if that fails with the dependencies that are known to be needed.
    fn npm(&self, package: &str, work: &Path) -> Result<(), InstallError> {
        let npm = self.find("npm")?;
        let log =
            self.host.control.data_dir.join(RUNTIMES).join(format!("install-{}.log", self.wanted.version));
        let mut told = String::new();
        for overrides in ["{}", OVERRIDES] {
            let manifest = format!(
                r#"{{"private": true, "dependencies": {{"openclaw": {}}}, "overrides": {overrides}}}"#,
                serde_json::Value::from(package)
            );
            let path = work.join("package.json");
            fs::write(&path, manifest).map_err(|source| InstallError::Write { path, source })?;
            let prefix = work.to_string_lossy();
            #[rustfmt::skip]
            let words = [
                "install", "--prefix", &prefix, "--install-links", "--no-package-lock", "--no-audit", "--no-fund",
                "--no-update-notifier", "--loglevel=error",
            ];
            let (environment, directory) = (Some(self.environment(work)), Some(work.to_owned()));
            let ran = Tool { environment, directory, ..Tool::new(&npm, &words) }.run(INSTALL);
            let (is_done, output) = match ran {
                Some(Ran { status, output }) => (status == 0, output),
                None => {
                    (false, format!("it does not end within {} s, or prints too much", INSTALL.as_secs()))
                }
            };
            told.push_str(&output);
            told.push('\n');
            // The log is for people; npm's own word comes first.
            let _ = replace(&log, told.as_bytes(), 0o600, Durability::Quick);
            if is_done {
                return Ok(());
            }
            let _ = fs::remove_dir_all(work.join("node_modules"));
        }
        Err(InstallError::Npm { last: last_line(&told), log })
    }

    fn environment(&self, work: &Path) -> BTreeMap<String, String> {
        let mut environment = self.host.environment.clone();
        environment.retain(|name, _| !name.starts_with("OPENCLAW") && !WITHHELD.contains(&name.as_str()));
        environment.insert("PATH".into(), self.path(work));
        environment
    }

    /// The Node that is to run it comes first: its packages are built for that one.
    fn path(&self, work: &Path) -> String {
        let path = self.host.environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let beside = self.wanted.node.as_ref().map(|node| format!("{}:", node.display())).unwrap_or_default();
        format!("{}:{beside}{path}", work.join("bin").display())
    }

    fn find(&self, program: &'static str) -> Result<PathBuf, InstallError> {
        let path = self.host.environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let directories = self.wanted.node.iter().cloned().chain(path.split(':').map(PathBuf::from));
        directories
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(program))
            .find(|path| is_executable(path))
            .ok_or(InstallError::NoTool(program))
    }
}

/// Removes what installations and removals before this one have left.
fn tidy(runtimes: &Path) {
    let Ok(entries) = fs::read_dir(runtimes) else { return };
    for entry in entries.flatten().take(MOST) {
        if entry.file_name().to_string_lossy().starts_with(NEW)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            warn!(%error, path = %entry.path().display(), "what is left of an installation cannot be removed");
        }
    }
}

/// Brings it into being, durably.
fn place(work: &Path, home: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(work)?)?;
    // What has the name is no version, or it would have been found.
    if home.exists() {
        remove(home)?;
    }
    fs::rename(work, home)?;
    home.parent().map_or(Ok(()), |runtimes| File::open(runtimes)?.sync_all())
}

/// The version that npm has installed.
fn packaged(work: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Package {
        version: String,
    }
    let text = fs::read(work.join("node_modules/openclaw/package.json")).ok()?;
    Some(serde_json::from_slice::<Package>(&text).ok()?.version)
}

/// `exec`, so that the process that is started is the gateway itself.
fn script(words: &[PathBuf]) -> String {
    let quoted = |word: &PathBuf| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    let words: Vec<String> = words.iter().map(quoted).collect();
    format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "))
}

/// Whether the version stands in what was said as a word of its own.
fn says(said: &str, version: &str) -> bool {
    said.split(|c: char| !c.is_ascii_alphanumeric() && !".-+_".contains(c)).any(|word| word == version)
}

/// What it said last that is worth telling; npm ends with where its own log is, beside the one that is told.
fn last_line(output: &str) -> String {
    /// Enough for a person to know what is meant.
    const MOST: usize = 300;
    let tells = |line: &&str| line.len() > 1 && !line.contains("A complete log of this run");
    let line = output.lines().rev().map(str::trim).find(tells).unwrap_or("it says nothing");
    line.chars().filter(|c| !c.is_control()).take(MOST).collect()
}

#[cfg(test)]
mod tests;
