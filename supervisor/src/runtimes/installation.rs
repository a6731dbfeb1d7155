//! A version that is being installed: made in a directory of its own, asked what it is, and put into its place.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use tracing::{info, warn};

use super::{ABOUT, About, InstallError, Installed, MOST, NEW, Wanted, look, remove, unique};
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

/// For the owner alone.
const PRIVATE: u32 = 0o700;

/// Dependencies of published versions that cannot be installed as they are asked for: the range for linkedom admits
/// one that cannot stand beside the others, and libsignal is asked for by an address that is not npm's. They are used
/// only when npm fails without them.
const OVERRIDES: &str = r#"{"linkedom": "0.18.12", "libsignal": "npm:libsignal@6.0.0"}"#;

/// Variables of the supervisor that are none of npm's business.
const WITHHELD: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "NODE_OPTIONS"];

/// What a version is made from.
enum Source {
    /// An executable that is used where it is.
    Program(PathBuf),
    /// What npm is told to install.
    Package(String),
}

/// A version on its way.
pub(super) struct Installation<'a> {
    pub(super) host: &'a Host,
    pub(super) wanted: &'a Wanted,
}

impl Installation<'_> {
    /// Begins it, and brings it to its end.
    pub(super) fn perform(&self) -> Result<Installed, InstallError> {
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
