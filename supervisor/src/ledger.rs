//! What is being done in several steps, so written down that the next supervisor can go on with it.
//!
//! One file for each instance or profile, in a directory of its own below the data directory, replaced as a whole
//! before each step; what keeps a step from its end is a [`Trouble`]. [`Ledger`] blocks on the disk.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use supervisor_core::{denied::Denied, ids::Name};

use crate::{
    handle::SubmitError,
    openclaw::{file::Durability, place::Place},
};

/// The version of the format, which each file says in `version`.
pub(crate) const VERSION: u32 = 1;

/// Ends the name of each file.
const SUFFIX: &str = ".json";

/// For the owner alone: it may hold a configuration, and so a secret.
const PRIVATE: u32 = 0o600;

/// One directory of such files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ledger {
    /// In the data directory.
    pub(crate) directory: &'static str,
    /// No file of it is longer.
    pub(crate) most_bytes: u64,
}

/// What is read before anything else.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Why a step does not come to its end. The sentence is whole: nothing of its source is left to tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Something that a person can understand.
    #[error("{0}")]
    Told(String),
    /// An operator has stopped it meanwhile, which stands.
    #[error("`{0}` was stopped meanwhile")]
    Stopped(Name),
    /// The driver refuses.
    #[error(transparent)]
    Submit(SubmitError),
    /// The supervisor ends; the next one goes on.
    #[error("the supervisor is shutting down")]
    Interrupted,
    /// A file.
    #[error("failed to write `{}`: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Trouble {
    pub(crate) fn told(sentence: impl Into<String>) -> Self {
        Self::Told(sentence.into())
    }
}

impl From<SubmitError> for Trouble {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Gone | SubmitError::Denied(Denied::ShuttingDown) => Self::Interrupted,
            SubmitError::Denied(_) | SubmitError::Overloaded => Self::Submit(error),
        }
    }
}

impl Ledger {
    /// Writes it down, durably.
    pub(crate) fn write(&self, data_dir: &Path, name: &str, page: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(page)?;
        let place = Place::open(data_dir)?.made_below(self.directory)?;
        place.put(&file(name), &text, PRIVATE, Durability::Durable)
    }

    /// What is written of `name`, if anything is.
    pub(crate) fn read<T: DeserializeOwned>(&self, data_dir: &Path, name: &str) -> io::Result<Option<T>> {
        let Some(place) = self.place(data_dir)? else { return Ok(None) };
        let Some(found) = place.read(&file(name), self.most_bytes)? else { return Ok(None) };
        match serde_json::from_slice(&found.content)? {
            Versioned { version: VERSION } => Ok(Some(serde_json::from_slice(&found.content)?)),
            Versioned { version } => {
                Err(io::Error::other(format!("it is of version {version}, which a newer supervisor wrote")))
            }
        }
    }

    /// Of whom anything is written, in order.
    pub(crate) fn names(&self, data_dir: &Path) -> io::Result<Vec<String>> {
        let Some(place) = self.place(data_dir)? else { return Ok(Vec::new()) };
        place.tidy()?;
        let name = |file: &String| Some(file.strip_suffix(SUFFIX)?.to_owned());
        let mut names: Vec<String> = place.names()?.iter().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Forgets it.
    pub(crate) fn remove(&self, data_dir: &Path, name: &str) -> io::Result<()> {
        self.place(data_dir)?.map_or(Ok(()), |place| place.remove(&file(name)))
    }

    /// Where it is, for people.
    pub(crate) fn path(&self, data_dir: &Path, name: &str) -> PathBuf {
        data_dir.join(self.directory).join(file(name))
    }

    /// The directory, if anything was ever written there.
    fn place(&self, data_dir: &Path) -> io::Result<Option<Place>> {
        match Place::open(data_dir)?.below(self.directory) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn file(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const LEDGER: Ledger = Ledger { directory: "things", most_bytes: 1 << 10 };

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Page {
        version: u32,
        text: String,
    }

    #[test]
    fn what_was_written_is_read_by_its_name_and_by_nobody_else() {
        let data = tempfile::tempdir().unwrap();
        let page = || Page { version: VERSION, text: "{ a: 'ä' }\n".into() };
        assert_eq!(LEDGER.names(data.path()).unwrap(), Vec::<String>::new());
        LEDGER.remove(data.path(), "lab").unwrap();
        LEDGER.write(data.path(), "lab", &page()).unwrap();
        assert_eq!(LEDGER.read(data.path(), "lab").unwrap(), Some(page()));
        assert_eq!(LEDGER.names(data.path()).unwrap(), ["lab"]);
        let mode = fs::metadata(LEDGER.path(data.path(), "lab")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        LEDGER.remove(data.path(), "lab").unwrap();
        assert_eq!(LEDGER.read::<Page>(data.path(), "lab").unwrap(), None);
    }

    #[test]
    fn what_a_newer_supervisor_wrote_is_left_alone_whatever_it_looks_like() {
        let data = tempfile::tempdir().unwrap();
        LEDGER.write(data.path(), "lab", &serde_json::json!({ "version": 2, "new": true })).unwrap();
        let refused = LEDGER.read::<Page>(data.path(), "lab").unwrap_err();
        assert!(refused.to_string().contains("newer"), "{refused}");
    }
}
