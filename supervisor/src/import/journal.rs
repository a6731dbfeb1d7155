//! What is being done to a profile, so written down that the next supervisor can go on with it.
//!
//! One file for each import in `imports` of the data directory, replaced as a whole before each step. It stays when
//! the import is done: it knows what to put back.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use supervisor_core::ids::Name;

use super::{process::Running, unit::Unit};
use crate::{
    openclaw::{file::Durability, place::Place},
    spec::InstanceSpec,
};

/// In the data directory.
const DIRECTORY: &str = "imports";

/// Ends the name of each file.
const SUFFIX: &str = ".json";

/// It holds a configuration, and so a secret.
const PRIVATE: u32 = 0o600;

/// A configuration has 4 MiB at most, and twice that as JSON.
const MOST_BYTES: u64 = 16 << 20;

/// The version of the format.
const VERSION: u32 = 1;

/// An import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    /// The instance.
    pub(super) name: Name,
    /// What it is asked for.
    pub(super) spec: InstanceSpec,
    /// The unit that ran it, as it was.
    pub(super) unit: Option<Unit>,
    /// The gateway that ran.
    pub(super) running: Option<Running>,
    /// How many session files there were.
    pub(super) sessions: usize,
    /// The configuration as it was.
    pub(super) config: Config,
    /// What the configuration was when the import was done (the name of its content).
    pub(super) adopted: Option<String>,
    /// What is being done.
    pub(super) step: Step,
    /// Why it is being put back.
    pub(super) why: Option<String>,
}

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) path: PathBuf,
    pub(super) content: String,
    pub(super) mode: u32,
}

/// A step, written down before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// What runs the profile is ended.
    Stop,
    /// The instance is created and started.
    Take,
    /// It is to become ready, and to be the right one.
    Verify,
    /// It is imported.
    Done,
    /// It failed, and everything is put back.
    PutBack,
    /// It is given back because somebody wants that.
    Return,
}

impl Journal {
    /// Of an import that begins. The configuration has no secrets but those that are its own.
    pub(super) fn begin(name: Name, spec: InstanceSpec, config: Config) -> Self {
        Self {
            version: VERSION,
            name,
            spec,
            unit: None,
            running: None,
            sessions: 0,
            config,
            adopted: None,
            step: Step::Stop,
            why: None,
        }
    }
}

/// Writes it down, durably. Blocks, as all of these do.
pub(super) fn write(data_dir: &Path, journal: &Journal) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(journal)?;
    place(data_dir)?.put(&file(&journal.name), &text, PRIVATE, Durability::Durable)
}

/// The import of this name, if there is one.
pub(super) fn read(data_dir: &Path, name: &str) -> io::Result<Option<Journal>> {
    let Some(place) = existing(data_dir)? else { return Ok(None) };
    let Some(found) = place.read(&file(name), MOST_BYTES)? else { return Ok(None) };
    let journal: Journal = serde_json::from_slice(&found.content)?;
    match journal.version {
        VERSION => Ok(Some(journal)),
        newer => Err(io::Error::other(format!("it is of version {newer}, which a newer supervisor wrote"))),
    }
}

/// The names of all imports.
pub(super) fn names(data_dir: &Path) -> io::Result<Vec<String>> {
    let Some(place) = existing(data_dir)? else { return Ok(Vec::new()) };
    place.tidy()?;
    let mut names: Vec<String> =
        place.names()?.iter().filter_map(|name| Some(name.strip_suffix(SUFFIX)?.to_owned())).collect();
    names.sort_unstable();
    Ok(names)
}

/// Forgets an import.
pub(super) fn remove(data_dir: &Path, name: &str) -> io::Result<()> {
    place(data_dir)?.remove(&file(name))
}

/// Where it is, for people.
pub(super) fn path(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join(DIRECTORY).join(file(name))
}

fn place(data_dir: &Path) -> io::Result<Place> {
    Place::open(data_dir)?.made_below(DIRECTORY)
}

/// The same, if anything was ever imported.
fn existing(data_dir: &Path) -> io::Result<Option<Place>> {
    match Place::open(data_dir)?.below(DIRECTORY) {
        Ok(place) => Ok(Some(place)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn file(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn an_import_is_read_as_it_was_written_and_nobody_else_can_read_it() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(names(data.path()).unwrap(), Vec::<String>::new());
        let config = Config { path: "/p/openclaw.json".into(), content: "{ a: 'ä' }\n".into(), mode: 0o644 };
        let name = Name::new("lab").unwrap();
        let mut journal = Journal::begin(name, InstanceSpec::default(), config);
        journal.running = Some(Running { started: 5, pid: 7 });
        journal.step = Step::Verify;
        write(data.path(), &journal).unwrap();
        assert_eq!(read(data.path(), "lab").unwrap(), Some(journal));
        assert_eq!(names(data.path()).unwrap(), ["lab"]);
        let mode = fs::metadata(path(data.path(), "lab")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        remove(data.path(), "lab").unwrap();
        assert_eq!(read(data.path(), "lab").unwrap(), None);
    }

    #[test]
    fn an_import_of_a_newer_version_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let config = Config { path: "/c".into(), content: String::new(), mode: 0o600 };
        let journal = Journal::begin(Name::new("lab").unwrap(), InstanceSpec::default(), config);
        write(data.path(), &Journal { version: 2, ..journal }).unwrap();
        assert!(read(data.path(), "lab").unwrap_err().to_string().contains("newer"));
    }
}
