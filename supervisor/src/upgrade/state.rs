//! An instance's state copied aside while nothing runs in it, and put back.
//!
//! ```text
//! <aside>/1763750000/before/     what the state directory was; complete, or not there
//!                    config      the configuration, if it lies elsewhere
//!                    failed/     what a version that failed has made of it
//! ```
//!
//! Copy and state lie in one file system, so that putting back is two renames, whatever the size; each step looks
//! what is there already, so all may be done again. They lie with the instance's other directories, where its agent
//! gets at nothing, and beside the state of a profile only if that is on another file system. Logs and workspaces are
//! people's work and are never taken back; temporary files and caches are made anew by whoever needs them.

use std::{
    collections::BTreeSet,
    ffi::{CStr, OsStr},
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{statvfs, syncfs};
use serde::{Deserialize, Serialize};

use crate::{
    custody,
    openclaw::{
        config::MAX_BYTES,
        file::Durability,
        layout::{BESIDE, Directories, resolve},
        place::{Place, Standing},
        tree,
    },
    spec::{InstanceSpec, UserName},
    typed::word,
    user::{self, User, UserError},
};

/// Copies that are kept of one instance.
pub(super) const COPIES: usize = 2;

/// What must be left on the disk after a copy: the new version needs room, too.
const SPARE: u64 = 256 << 20;

/// For the owner alone.
const PRIVATE: u32 = 0o700;

/// Who may write everywhere.
const ROOT: u32 = 0;

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
    /// The configuration, if it is not in there, links resolved.
    config: Option<PathBuf>,
    /// Whose the state is, if not the supervisor's user's.
    user: Option<UserName>,
    /// What in the state directory is the workspace, if it is there under another name.
    workspace: Option<String>,
    /// What this upgrade has aside.
    aside: PathBuf,
}

/// Why a state cannot be copied aside.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// It cannot be read, or the copy has no place.
    #[error("failed to look at `{}`: {source}; see what is there with `ls -la {}`", path.display(), word(path))]
    Look {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be put back by a rename.
    #[error("its state directory `{}` is a file system of its own, which cannot be put back as a whole", .0.display())]
    Mount(PathBuf),
    /// Others could have put something in its place.
    #[error(
        "its state lies in `{}`, where other users may write or which is another's; move it to a directory of its own user's, \
         and say so in `profile.state_dir`",
        .0.display()
    )]
    Shared(PathBuf),
    /// The instance could write where its copy would be.
    #[error(
        "its state lies on another file system than the supervisor's data, and a copy in `{}` would be in the instance's \
         own hands; put its configuration into its state directory, or take what lies there out of its `walls.write`",
        .0.display()
    )]
    Open(PathBuf),
    /// It could be anybody's: a link leads to it that its own user has made.
    #[error(
        "its state `{}` belongs to user {owner} and not to the instance's; if a link has led there (`ls -ld {}`), remove \
         that, and if it is this instance's, type `{}`",
        path.display(), word(named), custody::own(path, *user)
    )]
    Foreign {
        /// What.
        path: PathBuf,
        /// By which name it was found.
        named: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        user: u32,
    },
    /// It is not known whose it should be.
    #[error("{}; {}", .0, .0.mend())]
    User(#[from] UserError),
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
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

impl Kept {
    /// Where the copy of this upgrade will be, if there is room for it. Blocks, as all of these do.
    pub(super) fn plan(
        directories: &Directories,
        spec: &InstanceSpec,
        name: &str,
        number: u64,
    ) -> Result<Self, Unfit> {
        let looked = |path: &Path| {
            let path = path.to_owned();
            move |source| Unfit::Look { path, source }
        };
        let settled = |path: &Path| fs::canonicalize(path).map_err(looked(path));
        let (state, root) = (settled(&directories.state)?, settled(&directories.root)?);
        // Whoever else has it was not asked.
        let user = user::of(spec.user.as_ref())?.unwrap_or_else(User::own);
        let found = fs::metadata(&state).map_err(looked(&state))?;
        if spec.user.is_some() && found.uid() != user.uid {
            let named = directories.state.clone();
            return Err(Unfit::Foreign { path: state, named, owner: found.uid(), user: user.uid });
        }
        let beside = state.parent().unwrap_or(Path::new("/")).to_owned();
        if !is_kept_by(&beside, &user).map_err(looked(&beside))? {
            return Err(Unfit::Shared(beside));
        }
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(looked(path));
        if device(&state)? != device(&beside)? {
            return Err(Unfit::Mount(state));
        }
        let base = match device(&state)? == device(&root)? {
            true => root.join("upgrades"),
            // By whoever writes in there, a copy could be replaced, and led astray.
            false if is_open(&beside, directories, spec) => return Err(Unfit::Open(beside)),
            false => beside.join(format!("{BESIDE}{name}")),
        };
        let inside = |path: &Path| {
            let path = fs::canonicalize(path).ok()?;
            let first = path.strip_prefix(&state).ok()?.components().next()?;
            let Component::Normal(first) = first else { return None };
            Some(first.to_string_lossy().into_owned())
        };
        let config = directories.own_config().found().map_err(looked(&directories.config))?;
        let config = config.filter(|config| inside(config).is_none() && config.exists());
        let (workspace, user) = (inside(&directories.workspace), spec.user.clone());
        let kept = Self { aside: base.join(number.to_string()), config, user, workspace, state };
        has_room(&beside, kept.needed()?)?;
        Ok(kept)
    }

    /// What a copy takes of the disk.
    fn needed(&self) -> Result<u64, Unfit> {
        let measured = self.acting(|| tree::measure(&self.state, &|name| self.is_copied(name)));
        measured.map_err(|source| Unfit::Look { path: self.state.clone(), source })
    }

    fn is_copied(&self, name: &CStr) -> bool {
        let name = &*name.to_string_lossy();
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
        self.acting(|| self.copy_aside())
    }

    fn copy_aside(&self) -> io::Result<()> {
        if self.is_there(BEFORE) {
            return Ok(());
        }
        let partial = self.aside.join(PARTIAL);
        if self.is_there(PARTIAL) {
            tree::remove(&partial)?;
        }
        DirBuilder::new().recursive(true).mode(PRIVATE).create(&self.aside)?;
        tree::copy(&self.state, &partial, &|name| self.is_copied(name))?;
        self.check_owner(&partial)?;
        self.copy_config()?;
        syncfs(File::open(&self.aside)?)?;
        tree::rename(&partial, &self.aside.join(BEFORE))?;
        File::open(&self.aside)?.sync_all()
    }

    /// Copies the configuration aside, if it is not in the state directory.
    fn copy_config(&self) -> io::Result<()> {
        let Some((place, name)) = self.config_in_place()? else { return Ok(()) };
        let Some(found) = place.read(name, MAX_BYTES)? else { return Ok(()) };
        Place::settled(&self.aside)?.put(CONFIG, &found.content, found.mode, Durability::Durable)
    }

    fn put_config_back(&self) -> io::Result<()> {
        let Some((place, name)) = self.config_in_place()? else { return Ok(()) };
        let Some(kept) = Place::settled(&self.aside)?.read(CONFIG, MAX_BYTES)? else { return Ok(()) };
        match place.read(name, MAX_BYTES) {
            Ok(Some(found)) if found.content == kept.content => Ok(()),
            Ok(_) | Err(_) => place.put(name, &kept.content, kept.mode, Durability::Durable),
        }
    }

    /// The directory of the configuration, for its user's rights and through no link, and its name there.
    fn config_in_place(&self) -> io::Result<Option<(Place, &str)>> {
        let Some(config) = &self.config else { return Ok(None) };
        let (directory, name) = (config.parent(), config.file_name().and_then(OsStr::to_str));
        let (Some(directory), Some(name)) = (directory, name) else { return Ok(None) };
        Ok(Some((Place::settled_for(directory, self.user()?)?, name)))
    }

    /// Refuses a state at `path` that is not its user's: that one may have had something else be there meanwhile.
    fn check_owner(&self, path: &Path) -> io::Result<()> {
        let (Some(name), found) = (&self.user, fs::symlink_metadata(path)?) else { return Ok(()) };
        match found.uid() == self.user()?.unwrap_or_else(User::own).uid {
            true => Ok(()),
            false => {
                let (state, owner) = (self.state.display(), found.uid());
                Err(io::Error::other(format!("`{state}` belongs to user {owner} and not to `{name}`")))
            }
        }
    }

    /// A copy beside the state of another user is his own work: he could lead root anywhere.
    fn acting<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let base = self.aside.parent().and_then(Path::file_name).unwrap_or_default();
        let user = match base.to_string_lossy().starts_with(BESIDE) {
            true => self.user()?,
            false => None,
        };
        user::acting_if(user.as_ref(), work)
    }

    fn beside(&self) -> &Path {
        self.state.parent().unwrap_or(&self.state)
    }

    fn user(&self) -> io::Result<Option<User>> {
        user::of(self.user.as_ref()).map_err(io::Error::other)
    }

    /// Puts the state back, unless that was done or it was never copied.
    pub(super) fn put_back(&self) -> io::Result<()> {
        self.acting(|| self.put_in_place())
    }

    fn put_in_place(&self) -> io::Result<()> {
        if !self.is_there(BEFORE) {
            return Ok(());
        }
        let (before, failed) = (self.aside.join(BEFORE), self.aside.join(FAILED));
        let user = self.user()?.unwrap_or_else(User::own);
        if !is_kept_by(self.beside(), &user)? {
            let shown = self.beside().display();
            return Err(io::Error::other(format!("`{shown}` is another user's, or others may write there")));
        }
        if !self.is_there(FAILED) && fs::symlink_metadata(&self.state).is_ok() {
            self.check_owner(&self.state)?;
            tree::rename(&self.state, &failed)?;
        }
        // Where it is now, nobody puts another in its place; before, somebody may have.
        if self.is_there(FAILED)
            && let Err(error) = self.check_owner(&failed)
        {
            tree::rename_to_free(&failed, &self.state)?;
            return Err(error);
        }
        if self.is_there(FAILED) {
            tree::move_missing(&failed, &before, &|name| self.is_peoples(&name.to_string_lossy()))?;
        }
        self.put_config_back()?;
        match tree::rename_to_free(&before, &self.state) {
            // Whoever looked meanwhile may have made an empty one, which a rename replaces.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.check_owner(&self.state)?;
                tree::rename(&before, &self.state)?;
            }
            renamed => renamed?,
        }
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
        self.acting(|| self.remove_old())
    }

    fn remove_old(&self) -> io::Result<()> {
        let Some(base) = self.aside.parent().filter(|base| base.exists()) else { return Ok(()) };
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u64>().ok();
        let numbers: BTreeSet<u64> = fs::read_dir(base)?.flatten().filter_map(number).collect();
        for old in numbers.iter().rev().skip(COPIES) {
            tree::remove(&base.join(old.to_string()))?;
        }
        Ok(())
    }
}

/// Whether the instance may write in `directory`, as far as its files are walled.
fn is_open(directory: &Path, directories: &Directories, spec: &InstanceSpec) -> bool {
    let beside = directories.config.parent();
    let open = [beside, Some(&directories.workspace)].into_iter().flatten();
    let open = open.chain(spec.walls.write.iter().map(PathBuf::as_path));
    spec.walls.files() && open.map(resolve).any(|tree| directory.starts_with(tree))
}

/// Whether nobody but `user`, and root, may put something in `directory`. No link leads there.
fn is_kept_by(directory: &Path, user: &User) -> io::Result<bool> {
    let Standing { uid, gid, mode } = Place::settled(directory)?.standing()?;
    // Most hosts give each user a group of his own, and let that one write.
    let by_a_group = mode & 0o020 != 0 && ![ROOT, user.gid].contains(&gid);
    Ok([ROOT, user.uid].contains(&uid) && mode & 0o002 == 0 && !by_a_group)
}

/// Whether so much fits on the disk that `path` is on.
fn has_room(path: &Path, needed: u64) -> Result<(), Unfit> {
    let looked = |source| Unfit::Look { path: path.to_owned(), source };
    let disk = statvfs(path).map_err(|error| looked(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    match needed.saturating_add(SPARE) <= free {
        true => Ok(()),
        false => Err(Unfit::Room { needed, free, path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
