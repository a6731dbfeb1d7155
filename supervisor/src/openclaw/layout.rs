//! Where an instance's files are, and that nobody else's are there.
//!
//! *Managed*, the default: all under the supervisor's data directory, made and kept 0700 by the supervisor.
//! *Profile*: state, configuration and workspace are those of an existing OpenClaw profile and stay as they
//! are; home, temporary files and logs are still the supervisor's own.
//!
//! ```text
//! <data>/instances/<name>/incident/       what a rescue is told
//!                         state/          OPENCLAW_STATE_DIR, with openclaw.json in it, where tools look
//!                         workspace/      the agents' files
//!                         home/           HOME and working directory
//!                         tmp/            TMPDIR
//!                         logs/           captured output
//!                              openclaw/  OpenClaw's own log file
//! ```
//!
//! Managed directories are never links, so two of them cannot meet, and no profile may lie in the data
//! directory or around it. What is left to compare is profiles with profiles, with all links followed.

mod apart;
mod led;

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use supervisor_core::{ids::Name, ports::Block};

use super::{
    incident,
    own::Own,
    owner::{Owner, hand_over},
    walls::OWN_LOG,
};
use crate::{
    spec::{InstanceSpec, Profile, UserName},
    user::{self, User},
};

pub(crate) use self::{
    apart::relation,
    led::{led_by_agents, led_by_people, led_grants, led_home},
};
pub use self::{
    apart::{Claimed, Clash, Relation, check_apart, clashes, resolve},
    led::Led,
};

/// For the owner alone.
const PRIVATE: u32 = 0o700;

/// For the owner alone, but others get to what is theirs below it.
const PASSABLE: u32 = 0o711;

/// What copies lie in beside a state, before the name of its instance.
pub(crate) const BESIDE: &str = ".openclawctl-upgrades-";

/// An instance's directories, and its configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// What the supervisor made for the instance.
    pub root: PathBuf,
    /// OPENCLAW_CONFIG_PATH.
    pub config: PathBuf,
    /// OPENCLAW_STATE_DIR.
    pub state: PathBuf,
    /// The agents' files.
    pub workspace: PathBuf,
    /// HOME, and the working directory.
    pub home: PathBuf,
    /// TMPDIR.
    pub tmp: PathBuf,
    /// Captured output.
    pub logs: PathBuf,
    /// Whose state, configuration and workspace they are.
    pub layout: Layout,
    /// Whose processes are in them, if not the supervisor's user's.
    pub user: Option<UserName>,
}

/// Whose an instance's state, configuration and workspace are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The supervisor's.
    Managed,
    /// An existing OpenClaw profile's.
    Profile,
}

/// Another instance, as far as this one must keep away from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: Name,
    /// Its ports.
    pub block: Block,
    /// Its profile, if it has one.
    pub profile: Option<Profile>,
    /// What it has been granted to write.
    pub writes: Vec<PathBuf>,
}

impl Neighbour {
    /// The instance with this spec.
    #[must_use]
    pub fn of(name: &Name, block: Block, spec: &InstanceSpec) -> Self {
        let (profile, writes) = (spec.profile.clone(), spec.walls.write.clone());
        Self { name: name.clone(), block, profile, writes }
    }

    /// Its directories.
    #[must_use]
    pub fn directories(&self, data_dir: &Path) -> Directories {
        Directories::at(data_dir, &self.name, self.profile.as_ref())
    }
}

/// The directories could not be made, or are not what they must be.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The system refused.
    #[error("failed to make the directory `{}`", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else has that name.
    #[error("`{}` is not a directory but {found}", path.display())]
    NotADirectory {
        /// Which.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// Another user could write to it.
    #[error("`{}` belongs to user {owner}, not to user {me}", path.display())]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        me: u32,
    },
    /// A profile that is not there.
    #[error("the profile's state directory `{}` does not exist", path.display())]
    NoProfile {
        /// Which.
        path: PathBuf,
    },
    /// Its agent could put a link to anything in place of its state, or of the directory of its configuration.
    #[error("`{}` lies where its agent can put a link in its place, within `{}`", path.display(), tree.display())]
    Replaceable {
        /// What can be replaced.
        path: PathBuf,
        /// Where the agent writes.
        tree: PathBuf,
    },
    /// A link leads to one of its own.
    #[error(transparent)]
    Led(#[from] Led),
    /// Two instances would share files.
    #[error(transparent)]
    Clash(#[from] Clash),
}

impl LayoutError {
    /// What to do about it: a sentence without its full stop.
    #[must_use]
    pub fn mend(&self) -> String {
        match self {
            Self::Make { path, .. } => {
                format!("make `{}` writable for the supervisor's user", parent(path).display())
            }
            Self::NotADirectory { path, .. } => {
                let shown = path.display();
                format!(
                    "move `{shown}` away; to keep files elsewhere, name directories in the spec's `profile`"
                )
            }
            Self::Owner { path, me, .. } => format!("give it to user {me}: chown -R {me} {}", path.display()),
            Self::NoProfile { .. } => {
                "set the profile up with `openclaw --profile NAME setup`, or leave `profile` out".to_owned()
            }
            Self::Replaceable { path, tree } if path.is_dir() => {
                format!("move it out of `{}`, and say so in `profile.state_dir`", tree.display())
            }
            Self::Replaceable { path, tree } => {
                let name = path.file_name().unwrap_or_default();
                format!(
                    "move it to `{}`, or out of there, and say so in `profile.config`",
                    tree.join(name).display()
                )
            }
            Self::Led(led) => led.mend(),
            Self::Clash(clash) => clash.mend(),
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// The directory that holds all instances' directories.
fn instances(data_dir: &Path) -> PathBuf {
    data_dir.join("instances")
}

impl Directories {
    /// The directories of the instance `name`.
    #[must_use]
    pub fn of(data_dir: &Path, name: &Name, spec: &InstanceSpec) -> Self {
        Self { user: spec.user.clone(), ..Self::at(data_dir, name, spec.profile.as_ref()) }
    }

    /// The same where no file is to be read or written: with whose rights, is not known.
    #[must_use]
    pub fn at(data_dir: &Path, name: &Name, profile: Option<&Profile>) -> Self {
        let root = instances(data_dir).join(&**name);
        let profile = profile.and_then(|profile| Some((profile, profile.state_dir.clone()?)));
        let (layout, state, config, workspace) = match profile {
            Some((profile, state)) => {
                let config = profile.config.clone().unwrap_or_else(|| state.join("openclaw.json"));
                let workspace = profile.workspace.clone().unwrap_or_else(|| state.join("workspace"));
                (Layout::Profile, state, config, workspace)
            }
            None => {
                let state = root.join("state");
                let config = state.join("openclaw.json");
                (Layout::Managed, state, config, root.join("workspace"))
            }
        };
        let (home, tmp, logs) = (root.join("home"), root.join("tmp"), root.join("logs"));
        Self { root, config, state, workspace, home, tmp, logs, layout, user: None }
    }

    /// Copies of a profile's state that is on another file system than the other directories, of whatever name the instance
    /// had then.
    pub(crate) fn copies(&self) -> Vec<PathBuf> {
        let beside = match self.layout {
            Layout::Managed => None,
            Layout::Profile => self.state.parent(),
        };
        let entries = beside.and_then(|beside| fs::read_dir(beside).ok()).into_iter().flatten().flatten();
        let is_one =
            |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(BESIDE.as_bytes());
        entries.filter(is_one).map(|entry| entry.path()).collect()
    }

    /// The configuration, to be read or written.
    #[must_use]
    pub fn own_config(&self) -> Own<'_> {
        self.own(&self.config)
    }

    /// A file of the instance's, to be read or written.
    #[must_use]
    pub fn own<'a>(&'a self, path: &'a Path) -> Own<'a> {
        Own { path, layout: self.layout, user: self.user.as_ref() }
    }

    /// Makes what is missing, and closes to others what the supervisor made. Profiles are left as they are.
    pub fn create(&self, data_dir: &Path) -> Result<(), LayoutError> {
        self.create_for(data_dir, None)
    }

    /// The same for an instance that runs as another user than the supervisor. What that one writes is its own; what
    /// it only passes or reads stays the supervisor's, so that it can put nothing in place of it.
    pub fn create_for(&self, data_dir: &Path, user: Option<&User>) -> Result<(), LayoutError> {
        let me = Owner::me();
        let (theirs, way) = user.map_or((me, PRIVATE), |user| (Owner::of(user), PASSABLE));
        let instances = instances(data_dir);
        if !is_made(&self.root, me, way) {
            DirBuilder::new()
                .recursive(true)
                .mode(PRIVATE)
                .create(&instances)
                .map_err(|source| LayoutError::Make { path: instances.clone(), source })?;
            // Other instances may have to pass, too.
            if !is_made(&instances, me, PASSABLE) {
                make(&instances, me, way)?;
            }
            make(&self.root, me, way)?;
        }
        make(&self.logs, me, way)?;
        let (log, incident) = (self.logs.join(OWN_LOG), self.root.join(incident::DIRECTORY));
        for path in [&self.home, &self.tmp, &log, &incident] {
            make(path, theirs, PRIVATE)?;
        }
        match self.layout {
            Layout::Managed => {
                make(&self.state, theirs, PRIVATE)?;
                make(&self.workspace, theirs, PRIVATE)
            }
            Layout::Profile => self.check_profile(theirs, user),
        }
    }

    fn check_profile(&self, theirs: Owner, user: Option<&User>) -> Result<(), LayoutError> {
        let path = || self.state.clone();
        let found = fs::metadata(&self.state).map_err(|_| LayoutError::NoProfile { path: path() })?;
        if !found.is_dir() {
            return Err(LayoutError::NoProfile { path: path() });
        }
        // As they were given: where the workspace leads may be its agent's word already.
        let beside = parent(&self.config);
        for tree in [&self.state, &self.workspace] {
            if beside != tree && beside.starts_with(tree) {
                return Err(LayoutError::Replaceable { path: self.config.clone(), tree: tree.clone() });
            }
        }
        if self.state != self.workspace && self.state.starts_with(&self.workspace) {
            let (path, tree) = (self.state.clone(), self.workspace.clone());
            return Err(LayoutError::Replaceable { path, tree });
        }
        // A profile that another user has is left to those who have given it.
        if found.uid() != theirs.uid && theirs != Owner::me() {
            return Err(LayoutError::Owner { path: path(), owner: found.uid(), me: theirs.uid });
        }
        match self.workspace.is_dir() {
            true => Ok(()),
            false => self.make_workspace(user),
        }
    }

    /// Makes the workspace of a profile. With its user's rights, and nothing that is there already is given to anybody or
    /// gets another mode: an agent may have put it there, or a link above it.
    fn make_workspace(&self, user: Option<&User>) -> Result<(), LayoutError> {
        let make = || DirBuilder::new().mode(PRIVATE).create(&self.workspace);
        user::acting_if(user, make)
            .map_err(|source| LayoutError::Make { path: self.workspace.clone(), source })
    }

    /// What lies outside the data directory, and so could lie where another instance's does.
    fn claims(&self) -> Vec<&Path> {
        match self.layout {
            Layout::Managed => Vec::new(),
            // What lies in the state is the state's, wherever its agent lets it lead.
            Layout::Profile => {
                let beside = [&self.config, &self.workspace].into_iter();
                let beside = beside.filter(|path| !path.starts_with(&self.state));
                [&self.state].into_iter().chain(beside).map(PathBuf::as_path).collect()
            }
        }
    }
}

fn is_made(path: &Path, owner: Owner, mode: u32) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == owner.uid && found.mode() & 0o777 == mode)
}

/// Makes the directory if it is missing; mends its mode and, as root, its owner; refuses what cannot be mended.
fn make(path: &Path, owner: Owner, mode: u32) -> Result<(), LayoutError> {
    let failed = |source| LayoutError::Make { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Another start of the same instance cannot be under way, so nobody makes it in between.
            DirBuilder::new().mode(PRIVATE).create(path).map_err(failed)?;
            fs::symlink_metadata(path).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    if !found.is_dir() {
        let found = if found.is_symlink() { "a link" } else { "a file" };
        return Err(LayoutError::NotADirectory { path: path.to_owned(), found });
    }
    if found.uid() != owner.uid {
        if !Owner::me().is_root() {
            return Err(LayoutError::Owner { path: path.to_owned(), owner: found.uid(), me: owner.uid });
        }
        hand_over(path, found.uid(), owner).map_err(failed)?;
    }
    if found.mode() & 0o777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
