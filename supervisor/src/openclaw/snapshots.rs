//! Configurations as they were: kept by content, so that one that is known to be good can be put back.
//!
//! ```text
//! <data>/instances/<name>/snapshots/            0700
//!     5f1d…e3 (32 hexadecimal digits)           the content, byte for byte, 0600
//!     5f1d…e3.about                             when and why it was kept, as JSON
//! ```
//!
//! A content is kept once, and is durable before its name is given out: a gateway that is started with it can
//! be brought back to it after any crash. What is said about it is written afterwards and not waited for; a
//! content without it is one that was seen, at the time of its file. A content that does not hash to its name
//! is damaged and is never put back.

mod restore;

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use supervisor_core::ids::ConfigId;

pub use self::restore::{RestoreError, Restored, kept_beside, kept_in, restore};
use super::{
    config::MAX_BYTES,
    file::Durability,
    incident::{MAX_TEXT, shortened},
    layout::Directories,
    place::Place,
};

/// Of files: a configuration holds secrets.
const PRIVATE: u32 = 0o600;

/// The directory, in the instance's.
pub(crate) const DIRECTORY: &str = "snapshots";

/// What is said about a content, after its name.
const ABOUT: &str = ".about";

/// What is said about a content is two sentences of at most [`MAX_TEXT`] bytes.
const MAX_ABOUT: u64 = 16 << 10;

/// The end of the year 9999. Later times cannot be written, and somebody else wrote them.
const LAST_SECOND: u64 = 253_402_300_799;

/// The name of a content.
#[must_use]
pub fn content_id(content: &[u8]) -> ConfigId {
    ConfigId::of_digest(&Sha256::digest(content).into())
}

/// Why a content is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Somebody wrote it into the configuration.
    Seen,
    /// A gateway is started with it.
    Started,
    /// An operator asked for it, with a note.
    Asked(String),
    /// It was taken out of use, for this reason.
    Rejected(String),
}

/// A content that is kept, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: ConfigId,
    /// When it was first kept.
    pub at: SystemTime,
    /// Its length.
    pub bytes: u64,
    /// Whether a gateway was started with it.
    pub started: bool,
    /// What an operator noted.
    pub note: Option<String>,
    /// Why it was taken out of use, the last time.
    pub rejected: Option<String>,
}

/// How much is kept of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Contents.
    pub count: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Limits {
    fn half(self) -> Self {
        Self { count: self.count / 2, bytes: self.bytes / 2 }
    }

    /// How many of the first of `more` there is room for beside `kept`.
    fn fit(self, kept: &[&Snapshot], more: &[&Snapshot]) -> usize {
        let mut count = kept.len();
        let mut bytes: u64 = kept.iter().map(|snapshot| snapshot.bytes).sum();
        let fitting = more.iter().take_while(|snapshot| {
            count += 1;
            bytes = bytes.saturating_add(snapshot.bytes);
            count <= self.count && bytes <= self.bytes
        });
        fitting.count()
    }
}

impl Default for Limits {
    /// Weeks of edits by hand; a day of an agent that edits all the time.
    fn default() -> Self {
        Self { count: 50, bytes: 16 << 20 }
    }
}

/// A snapshot could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The system refused.
    #[error("failed to keep a snapshot in `{}`", path.display())]
    Keep {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused.
    #[error("failed to read the snapshots in `{}`", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No configuration is that large.
    #[error("failed to keep a snapshot of {bytes} bytes: it is larger than 4 MiB")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// It was never kept, or others were kept since.
    #[error("there is no snapshot {}", id.short())]
    Missing {
        /// Which.
        id: ConfigId,
    },
    /// Somebody or something changed the file.
    #[error("the snapshot {} is damaged: its content is not what its name says", id.short())]
    Damaged {
        /// Which.
        id: ConfigId,
    },
}

/// What is said about a content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    /// When it was first kept, in seconds since 1970.
    #[serde(default)]
    at: Option<u64>,
    #[serde(default)]
    started: bool,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    rejected: Option<String>,
}

impl About {
    /// The same after the content was kept for another reason. Reasons add up.
    fn and(&self, why: &Why, at: SystemTime) -> Self {
        let mut after = self.clone();
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        after.at.get_or_insert(seconds);
        match why {
            Why::Seen => {}
            Why::Started => after.started = true,
            Why::Asked(note) => after.note = Some(shortened(note, MAX_TEXT).to_owned()),
            Why::Rejected(error) => after.rejected = Some(shortened(error, MAX_TEXT).to_owned()),
        }
        after
    }
}

/// One instance's snapshots. Any number may be used at the same time, also by several threads.
#[derive(Debug, Clone)]
pub struct Snapshots {
    /// The instance's directory.
    root: PathBuf,
}

impl Snapshots {
    /// Those of the instance with these directories.
    #[must_use]
    pub fn of(directories: &Directories) -> Self {
        Self { root: directories.root.clone() }
    }

    /// Keeps a content. It is durable afterwards. One that is kept already costs no write, unless the reason is
    /// new.
    pub fn keep(&self, content: &[u8], why: &Why, at: SystemTime) -> Result<ConfigId, SnapshotError> {
        if content.len() as u64 > MAX_BYTES {
            return Err(SnapshotError::TooLarge { bytes: content.len() });
        }
        let id = content_id(content);
        let keep = || -> io::Result<()> {
            let place = Place::open(&self.root)?.made_below(DIRECTORY)?;
            let name = id.to_string();
            // Whatever else has the name is damaged, and replaced.
            let known = place.read(&name, MAX_BYTES).ok().flatten();
            if known.is_none_or(|known| known.content != content) {
                place.put(&name, content, PRIVATE, Durability::Durable)?;
            }
            let before = about(&place, id);
            let after = before.and(why, at);
            if after == before {
                return Ok(());
            }
            let text = serde_json::to_vec_pretty(&after)?;
            place.put(&format!("{name}{ABOUT}"), &text, PRIVATE, Durability::Quick)
        };
        keep().map(|()| id).map_err(|source| SnapshotError::Keep { path: self.directory(), source })
    }

    /// A content, as it was kept.
    pub fn read(&self, id: ConfigId) -> Result<Vec<u8>, SnapshotError> {
        let found = match self.open()? {
            Some(place) => place.read(&id.to_string(), MAX_BYTES).map_err(|error| self.unreadable(error))?,
            None => None,
        };
        match found {
            Some(found) if content_id(&found.content) == id => Ok(found.content),
            Some(_) => Err(SnapshotError::Damaged { id }),
            None => Err(SnapshotError::Missing { id }),
        }
    }

    /// All of them, the newest first.
    pub fn list(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let Some(place) = self.open()? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for id in ids(&place).map_err(|error| self.unreadable(error))? {
            // One that has just been pruned, or is not a file.
            let Ok(Some(look)) = place.look(&id.to_string()) else { continue };
            let About { at, started, note, rejected } = about(&place, id);
            let at = at.filter(|seconds| *seconds <= LAST_SECOND);
            let at = at.map_or(look.modified, |at| SystemTime::UNIX_EPOCH + Duration::from_secs(at));
            all.push(Snapshot { id, at, bytes: look.bytes, started, note, rejected });
        }
        all.sort_by_key(|snapshot| (std::cmp::Reverse(snapshot.at), snapshot.id));
        Ok(all)
    }

    /// Those whose names begin with `prefix`, for people who type the first digits.
    pub fn matching(&self, prefix: &str) -> Result<Vec<ConfigId>, SnapshotError> {
        let Some(place) = self.open()? else { return Ok(Vec::new()) };
        let mut ids = ids(&place).map_err(|error| self.unreadable(error))?;
        ids.retain(|id| id.to_string().starts_with(prefix));
        Ok(ids)
    }

    /// Removes the oldest until the rest is within the limits, but none of `wanted`. Those that somebody has noted go last as
    /// long as they are within half of them: an agent that edits all the time has no others forgotten. Answers how many went.
    pub fn prune(&self, wanted: &[ConfigId], limits: Limits) -> Result<usize, SnapshotError> {
        let Some(place) = self.open()? else { return Ok(0) };
        let all = self.list()?;
        let (kept, others): (Vec<&Snapshot>, Vec<&Snapshot>) =
            all.iter().partition(|snapshot| wanted.contains(&snapshot.id));
        let noted: Vec<&Snapshot> =
            others.iter().copied().filter(|snapshot| snapshot.note.is_some()).collect();
        let noted = &noted[..limits.half().fit(&[], &noted)];
        let is_noted = |snapshot: &Snapshot| noted.iter().any(|noted| noted.id == snapshot.id);
        let others: Vec<&Snapshot> = others.into_iter().filter(|snapshot| !is_noted(snapshot)).collect();
        let old = &others[limits.fit(&[&kept, noted].concat(), &others)..];
        let prune = || -> io::Result<()> {
            for snapshot in old {
                let name = snapshot.id.to_string();
                // In this order nothing is said about what is gone.
                place.remove(&format!("{name}{ABOUT}"))?;
                place.remove(&name)?;
            }
            place.tidy()
        };
        prune().map(|()| old.len()).map_err(|source| SnapshotError::Keep { path: self.directory(), source })
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.root.join(DIRECTORY)
    }

    fn open(&self) -> Result<Option<Place>, SnapshotError> {
        match Place::open(&self.root).and_then(|root| root.below(DIRECTORY)) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    fn unreadable(&self, source: io::Error) -> SnapshotError {
        SnapshotError::Read { path: self.directory(), source }
    }

    /// The instance's directory.
    fn root(&self) -> &Path {
        &self.root
    }
}

fn ids(place: &Place) -> io::Result<Vec<ConfigId>> {
    Ok(place.names()?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// What is said about a content; nothing, if that is missing or cannot be read.
fn about(place: &Place, id: ConfigId) -> About {
    let found = place.read(&format!("{id}{ABOUT}"), MAX_ABOUT).ok().flatten();
    found.and_then(|found| serde_json::from_slice(&found.content).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
