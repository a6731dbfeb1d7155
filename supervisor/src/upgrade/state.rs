//! An instance's state copied aside while nothing runs in it, and put back.
//!
//! ```text
//! <aside>/1763750000/before/     what the state directory was; complete, or not there
//!                    config      the configuration, if it lies elsewhere
//!                    failed/     what a version that failed has made of it
//! ```
//!
//! Copy and state lie in one file system, so that putting back is two renames, whatever the size; each step looks
//! what is there already, so all may be done again. Logs and workspaces are people's work and are never taken
//! back; temporary files and caches are made anew by whoever needs them.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, FileTimes, Metadata, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{OFlags, statvfs, syncfs};
use serde::{Deserialize, Serialize};

use crate::openclaw::{
    file::{Durability, replace},
    layout::{Directories, Layout},
};

/// Copies that are kept of one instance.
pub(super) const COPIES: usize = 2;

/// Files of one state that are copied. Years of sessions have tens of thousands.
const MOST_FILES: usize = 1_000_000;

/// What must be left on the disk after a copy: the new version needs room, too.
const SPARE: u64 = 256 << 20;

/// For the owner alone.
const PRIVATE: u32 = 0o700;

/// In the state directory, these stay as they are whatever happens.
const PEOPLES: [&str; 2] = ["logs", "workspace"];

/// In the state directory, these are made anew.
const PASSING: [&str; 2] = ["tmp", "cache"];

const BEFORE: &str = "before";
const FAILED: &str = "failed";
const CONFIG: &str = "config";
const PARTIAL: &str = "partial";

/// Where a state is, and where its copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The state directory, links resolved.
    state: PathBuf,
    /// The configuration, if it is not in there.
    config: Option<PathBuf>,
    /// What in the state directory is the workspace, if it is there under another name.
    workspace: Option<String>,
    /// What this upgrade has aside.
    aside: PathBuf,
}

/// Why a state cannot be copied aside.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// It cannot be read, or the copy has no place.
    #[error("failed to look at `{}`: {source}", path.display())]
    Look {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be put back by a rename.
    #[error("its state directory `{}` is a file system of its own, which cannot be put back as a whole", .0.display())]
    Mount(PathBuf),
    /// The disk is too full.
    #[error("there is no room for a copy of its state: it has {}, and `{}` has {} free", mib(*needed), path.display(), mib(*free))]
    Room {
        /// Bytes of the state.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Where.
        path: PathBuf,
    },
    /// Nothing is copied without a bound.
    #[error("its state has more than {MOST_FILES} files")]
    Files,
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

impl Kept {
    /// Where the copy of this upgrade will be, if there is room for it. Blocks, as all of these do.
    pub(super) fn plan(directories: &Directories, name: &str, number: u64) -> Result<Self, Unfit> {
        let looked = |path: &Path| {
            let path = path.to_owned();
            move |source| Unfit::Look { path, source }
        };
        let state = fs::canonicalize(&directories.state).map_err(looked(&directories.state))?;
        let beside = state.parent().unwrap_or(Path::new("/")).to_owned();
        let base = match directories.layout {
            Layout::Managed => directories.root.join("upgrades"),
            Layout::Profile => beside.join(format!(".openclawctl-upgrades-{name}")),
        };
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(looked(path));
        if device(&state)? != device(&beside)? || device(&state)? != device(base.parent().unwrap_or(&beside))?
        {
            return Err(Unfit::Mount(state));
        }
        let inside = |path: &Path| {
            let path = fs::canonicalize(path).ok()?;
            let first = path.strip_prefix(&state).ok()?.components().next()?;
            let Component::Normal(first) = first else { return None };
            Some(first.to_string_lossy().into_owned())
        };
        let config =
            Some(directories.config.clone()).filter(|config| inside(config).is_none() && config.exists());
        let workspace = inside(&directories.workspace);
        let kept = Self { aside: base.join(number.to_string()), config, workspace, state };
        kept.has_room(&beside)?;
        Ok(kept)
    }

    fn has_room(&self, path: &Path) -> Result<(), Unfit> {
        let looked = |source| Unfit::Look { path: path.to_owned(), source };
        let (mut needed, mut files) = (0u64, 0);
        self.walk(|_, about| {
            files += 1;
            needed = needed.saturating_add(about.len().max(4096));
            Ok(files <= MOST_FILES)
        })
        .map_err(looked)?;
        if files > MOST_FILES {
            return Err(Unfit::Files);
        }
        let disk = statvfs(path).map_err(|error| looked(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match needed.saturating_add(SPARE) <= free {
            true => Ok(()),
            false => Err(Unfit::Room { needed, free, path: path.to_owned() }),
        }
    }

    /// Everything that is copied, directories before what is in them, by its path in the state directory; until
    /// `each` says that it is enough.
    fn walk(&self, mut each: impl FnMut(&Path, &Metadata) -> io::Result<bool>) -> io::Result<()> {
        let mut directories = vec![PathBuf::new()];
        while let Some(within) = directories.pop() {
            for entry in fs::read_dir(self.state.join(&within))? {
                let name = entry?.file_name();
                if within.as_os_str().is_empty() && !self.is_copied(&name.to_string_lossy()) {
                    continue;
                }
                let path = within.join(name);
                // What is gone meanwhile was somebody's temporary file: nothing of the instance runs.
                let Ok(about) = fs::symlink_metadata(self.state.join(&path)) else { continue };
                if !each(&path, &about)? {
                    return Ok(());
                }
                if about.is_dir() {
                    directories.push(path);
                }
            }
        }
        Ok(())
    }

    fn is_copied(&self, name: &str) -> bool {
        !self.is_peoples(name) && !PASSING.contains(&name)
    }

    /// Whether it is never taken back. OpenClaw calls the workspaces of other profiles `workspace-NAME`.
    fn is_peoples(&self, name: &str) -> bool {
        PEOPLES.contains(&name) || name.starts_with("workspace-") || self.workspace.as_deref() == Some(name)
    }

    fn is_there(&self, name: &str) -> bool {
        fs::symlink_metadata(self.aside.join(name)).is_ok()
    }

    /// Copies the state aside, durably, unless that was done.
    pub(super) fn copy(&self) -> io::Result<()> {
        if self.is_there(BEFORE) {
            return Ok(());
        }
        let partial = self.aside.join(PARTIAL);
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        DirBuilder::new().recursive(true).mode(PRIVATE).create(&partial)?;
        let mut made: Vec<(PathBuf, Metadata)> = Vec::new();
        let mut files = 0;
        self.walk(|path, about| {
            let (from, to) = (self.state.join(path), partial.join(path));
            files += 1;
            if about.is_dir() {
                DirBuilder::new().mode(PRIVATE).create(&to)?;
                made.push((to, about.clone()));
            } else if about.is_symlink() {
                symlink(fs::read_link(from)?, to)?;
            } else if about.is_file() {
                copy_file(&from, &to, about)?;
            }
            // Sockets and pipes are nothing without the process that made them.
            Ok(files <= MOST_FILES)
        })?;
        if files > MOST_FILES {
            return Err(io::Error::other("it has too many files"));
        }
        // From the innermost on, and only now: what is made in a directory changes its time.
        for (path, about) in made.iter().rev() {
            like(path, about)?;
        }
        like(&partial, &fs::metadata(&self.state)?)?;
        if let Some(config) = &self.config {
            copy_file(config, &self.aside.join(CONFIG), &fs::metadata(config)?)?;
        }
        syncfs(File::open(&self.aside)?)?;
        fs::rename(partial, self.aside.join(BEFORE))?;
        File::open(&self.aside)?.sync_all()
    }

    /// Puts the state back, unless that was done or it was never copied.
    pub(super) fn put_back(&self) -> io::Result<()> {
        if !self.is_there(BEFORE) {
            return Ok(());
        }
        let (before, failed) = (self.aside.join(BEFORE), self.aside.join(FAILED));
        if !self.is_there(FAILED) && self.state.exists() {
            fs::rename(&self.state, &failed)?;
        }
        if self.is_there(FAILED) {
            for entry in fs::read_dir(&failed)? {
                let name = entry?.file_name();
                if self.is_peoples(&name.to_string_lossy()) && !before.join(&name).exists() {
                    fs::rename(failed.join(&name), before.join(&name))?;
                }
            }
        }
        if let Some(config) = &self.config {
            let kept = self.aside.join(CONFIG);
            let mode = fs::metadata(&kept)?.permissions().mode() & 0o777;
            replace(config, &fs::read(kept)?, mode, Durability::Durable)?;
        }
        // Whoever looked meanwhile may have made an empty one, which a rename replaces.
        fs::rename(before, &self.state)?;
        for directory in [Some(self.aside.as_path()), self.state.parent()].into_iter().flatten() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    /// What a version that failed has left, if anything is kept of that.
    pub(super) fn failed(&self) -> Option<PathBuf> {
        self.is_there(FAILED).then(|| self.aside.join(FAILED))
    }

    /// Removes the copies of earlier upgrades, but for the last ones.
    pub(super) fn prune(&self) -> io::Result<()> {
        let Some(base) = self.aside.parent().filter(|base| base.exists()) else { return Ok(()) };
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u64>().ok();
        let numbers: BTreeSet<u64> = fs::read_dir(base)?.flatten().filter_map(number).collect();
        for old in numbers.iter().rev().skip(COPIES) {
            fs::remove_dir_all(base.join(old.to_string()))?;
        }
        Ok(())
    }
}

/// On file systems that can, the copy shares its blocks with the original (copy_file_range(2)).
fn copy_file(from: &Path, to: &Path, about: &Metadata) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut source = OpenOptions::new().read(true).custom_flags(flags).open(from)?;
    let mut target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    io::copy(&mut source, &mut target)?;
    drop(target);
    like(to, about)
}

/// Gives it the mode and the time of the original.
fn like(path: &Path, about: &Metadata) -> io::Result<()> {
    let file = File::open(path)?;
    file.set_times(FileTimes::new().set_modified(about.modified()?))?;
    file.set_permissions(Permissions::from_mode(about.mode() & 0o7777))
}

#[cfg(test)]
mod tests;
