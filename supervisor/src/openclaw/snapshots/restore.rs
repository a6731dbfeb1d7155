//! A configuration put back, and the one in its place kept where people look for it.
//!
//! ```text
//! openclaw.json                                   the snapshot's content
//! openclaw.json.rolled-back-20261121T030512Z      what was there
//! openclaw.json.rolled-back-20261121T030512Z.why  when, why, and how to get it back
//! ```
//!
//! The order is: keep what is there as a snapshot, lay it beside, replace it. A crash in between leaves a copy
//! more and the old configuration, and the next attempt does all of it again.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::io::Errno;
use supervisor_core::ids::ConfigId;
use uuid::Uuid;

use super::{PRIVATE, SnapshotError, Snapshots, Why, content_id};
use crate::openclaw::{
    config::MAX_BYTES,
    file::Durability,
    incident::{MAX_TEXT, shortened},
    layout::{Directories, Layout},
    place::Place,
};

/// What was rolled back, after the configuration's name; the time follows.
const ASIDE: &str = ".rolled-back-";

/// The explanation, after that.
const WHY: &str = ".why";

/// Rolled-back configurations that lie beside the present one. All of them are snapshots, too.
const MAX_ASIDE: usize = 5;

/// Rollbacks of one second that get names of their own.
const MAX_A_SECOND: usize = 9;

/// What became of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// It was that already. Nothing was written.
    Already,
    /// There was none, and now there is.
    Made,
    /// It was another.
    Replaced {
        /// What it was; `None` if that cannot be kept as a snapshot.
        rejected: Option<ConfigId>,
        /// Where that is now.
        aside: PathBuf,
    },
}

/// The configuration could not be put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot, or one of what is there.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The system refused.
    #[error("failed to put the configuration `{}` back", path.display())]
    Write {
        /// The configuration.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Puts the snapshot `to` in place of the instance's configuration.
pub fn restore(
    directories: &Directories,
    snapshots: &Snapshots,
    to: ConfigId,
    why: &str,
    at: SystemTime,
) -> Result<Restored, RestoreError> {
    let content = snapshots.read(to)?;
    let path = &directories.config;
    let failed = |source| RestoreError::Write { path: path.clone(), source };
    let (place, file) = open(directories).map_err(failed)?;
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mode = |found: u32| if directories.layout == Layout::Managed { PRIVATE } else { found };
    let put = |mode| place.put(name, &content, mode, Durability::Durable).map_err(failed);
    let found = match place.read(name, MAX_BYTES) {
        Ok(Some(found)) => found,
        Ok(None) => {
            put(PRIVATE)?;
            return Ok(Restored::Made);
        }
        Err(error) if is_no_configuration(&error) => {
            let aside = free_name(&place, name, at).map_err(failed)?;
            let text = explanation(snapshots.root(), None, to, why, at);
            place.rename(name, &aside).map_err(failed)?;
            put(PRIVATE)?;
            place
                .put(&format!("{aside}{WHY}"), text.as_bytes(), PRIVATE, Durability::Quick)
                .map_err(failed)?;
            forget_old(&place, name);
            return Ok(Restored::Replaced { rejected: None, aside: file.with_file_name(aside) });
        }
        Err(error) => return Err(failed(error)),
    };
    if found.content == content {
        return Ok(Restored::Already);
    }
    let rejected = snapshots.keep(&found.content, &Why::Rejected(why.to_owned()), at)?;
    let beside = || -> io::Result<String> {
        let aside = free_name(&place, name, at)?;
        let text = explanation(snapshots.root(), Some(rejected), to, why, at);
        place.put(&aside, &found.content, mode(found.mode), Durability::Durable)?;
        place.put(&format!("{aside}{WHY}"), text.as_bytes(), PRIVATE, Durability::Quick)?;
        forget_old(&place, name);
        Ok(aside)
    };
    let aside = beside().map_err(failed)?;
    put(mode(found.mode))?;
    Ok(Restored::Replaced { rejected: Some(rejected), aside: file.with_file_name(aside) })
}

/// Whether what is there is too large, or a directory, a pipe or a link: nothing is read or written through one.
fn is_no_configuration(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::FileTooLarge
        || kind == io::ErrorKind::InvalidInput
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// How the files begin that replaced configurations are kept in; the time follows.
#[must_use]
pub fn kept_in(directories: &Directories) -> PathBuf {
    let mut path = directories.config.clone().into_os_string();
    path.push(ASIDE);
    path.into()
}

/// The newest file beside the configuration that keeps this content, if one does. Blocks on the disk.
#[must_use]
pub fn kept_beside(directories: &Directories, content: ConfigId) -> Option<PathBuf> {
    let (place, file) = open(directories).ok()?;
    let name = file.file_name()?.to_str()?;
    let mut all = asides(&place, name).ok()?;
    all.reverse();
    let holds = |aside: &String| {
        let found = place.read(aside, MAX_BYTES).ok().flatten();
        found.is_some_and(|found| content_id(&found.content) == content)
    };
    all.into_iter().find(holds).map(|aside| file.with_file_name(aside))
}

/// The configuration's directory and file. In an instance's own directories no link is followed, and in a profile none
/// that leads out of its directory: that is what takes the configuration's place.
fn open(directories: &Directories) -> io::Result<(Place, PathBuf)> {
    let (place, _, file) = directories.own_config().directory_or_link()?;
    Ok((place, file))
}

/// A name for what is rolled back at this time. An agent that has taken all that it could foresee has not taken it.
fn free_name(place: &Place, name: &str, at: SystemTime) -> io::Result<String> {
    let time = humantime::format_rfc3339_seconds(at).to_string().replace(['-', ':'], "");
    let first = format!("{name}{ASIDE}{time}");
    let others = (2..=MAX_A_SECOND).map(|number| format!("{first}-{number}"));
    let taken = place.names()?;
    let is_free = |name: &String| !taken.contains(name) && !taken.contains(&format!("{name}{WHY}"));
    let free = std::iter::once(first.clone()).chain(others).find(is_free);
    Ok(free.unwrap_or_else(|| format!("{first}-{}", Uuid::now_v7().simple())))
}

/// What was rolled back, the oldest first: the times sort as they are written.
fn asides(place: &Place, name: &str) -> io::Result<Vec<String>> {
    let prefix = format!("{name}{ASIDE}");
    let mut all = place.names()?;
    all.retain(|found| found.starts_with(&prefix) && !found.ends_with(WHY));
    all.sort();
    Ok(all)
}

/// Removes the oldest of what was rolled back, as far as that goes: an agent may have put anything under such names.
fn forget_old(place: &Place, name: &str) {
    let all = asides(place, name).unwrap_or_default();
    for old in &all[..all.len().saturating_sub(MAX_ASIDE)] {
        let _ = place.remove(&format!("{old}{WHY}"));
        let _ = place.remove(old);
    }
}

/// What is laid beside a rolled-back configuration. `root` is the instance's directory, which has its name.
fn explanation(root: &Path, rejected: Option<ConfigId>, to: ConfigId, why: &str, at: SystemTime) -> String {
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    let when = humantime::format_rfc3339_seconds(at);
    let why = shortened(why, MAX_TEXT);
    let to = to.short();
    let kept = match rejected.map(ConfigId::short) {
        Some(rejected) => format!(
            "It is kept as snapshot {rejected}; snapshot {to} is in its place.\n\n\
             What differs:  openclawctl config diff {name} {to} {rejected}\n\
             Put it back:   openclawctl config rollback {name} {rejected}\n\
             All of them:   openclawctl config snapshots {name}\n"
        ),
        None => format!("It cannot be kept as a snapshot; snapshot {to} is in its place.\n"),
    };
    format!(
        "This configuration was taken out of use by openclaw-supervisor at {when}.\n\nWhy: {why}\n\n{kept}"
    )
}
