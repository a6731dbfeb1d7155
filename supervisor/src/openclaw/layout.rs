//! Where an instance's files are, and that nobody else's are there.
//!
//! *Managed*, the default: all under the supervisor's data directory, made and kept 0700 by the supervisor.
//! *Profile*: state, configuration and workspace are those of an existing OpenClaw profile and stay as they
//! are; home, temporary files and logs are still the supervisor's own.
//!
//! ```text
//! <data>/instances/<name>/incident.json   what a rescue is told
//!                         state/          OPENCLAW_STATE_DIR, with openclaw.json in it, where tools look
//!                         workspace/      the agents' files
//!                         home/           HOME and working directory
//!                         tmp/            TMPDIR
//!                         logs/           captured output, and OpenClaw's own log file
//! ```
//!
//! Managed directories are never links, so two of them cannot meet, and no profile may lie in the data
//! directory or around it. What is left to compare is profiles with profiles, with all links followed.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use supervisor_core::{ids::Name, ports::Block};

use crate::spec::Profile;

/// For the owner alone.
const PRIVATE: u32 = 0o700;

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
}

impl Neighbour {
    /// Its directories.
    #[must_use]
    pub fn directories(&self, data_dir: &Path) -> Directories {
        Directories::of(data_dir, &self.name, self.profile.as_ref())
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
            Self::Clash(clash) => clash.mend(),
        }
    }
}

/// Two instances would share a directory or file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` of `{name}` {relation} `{}` of {}", mine.display(), theirs.display(), owner(other.as_ref()))]
pub struct Clash {
    /// The instance that is refused.
    pub name: Name,
    /// Its path, as its spec names it.
    pub mine: PathBuf,
    /// How the two lie, after links are followed.
    pub relation: Relation,
    /// Who has the other; `None`: the supervisor.
    pub other: Option<Name>,
    /// The other path.
    pub theirs: PathBuf,
}

/// How two paths lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// One place.
    Same,
    /// The first lies in the second.
    Inside,
    /// The second lies in the first.
    Around,
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Same => "is the same place as",
            Self::Inside => "lies inside",
            Self::Around => "lies around",
        })
    }
}

impl Clash {
    /// What to do about it: a sentence without its full stop.
    #[must_use]
    pub fn mend(&self) -> String {
        match &self.other {
            Some(other) => format!("give `{}` or `{other}` a directory of its own", self.name),
            None => "leave `profile` out, and the supervisor makes directories of its own".to_owned(),
        }
    }
}

fn owner(name: Option<&Name>) -> String {
    name.map_or_else(|| "the supervisor".to_owned(), |name| format!("`{name}`"))
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
    pub fn of(data_dir: &Path, name: &Name, profile: Option<&Profile>) -> Self {
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
        Self { root, config, state, workspace, home, tmp, logs, layout }
    }

    /// Makes what is missing, and closes to others what the supervisor made. Profiles are left as they are.
    pub fn create(&self, data_dir: &Path) -> Result<(), LayoutError> {
        let me = nix::unistd::geteuid().as_raw();
        let instances = instances(data_dir);
        if !is_private(&self.root, me) {
            DirBuilder::new()
                .recursive(true)
                .mode(PRIVATE)
                .create(&instances)
                .map_err(|source| LayoutError::Make { path: instances.clone(), source })?;
            make_private(&instances, me)?;
            make_private(&self.root, me)?;
        }
        for path in [&self.home, &self.tmp, &self.logs] {
            make_private(path, me)?;
        }
        match self.layout {
            Layout::Managed => {
                make_private(&self.state, me)?;
                make_private(&self.workspace, me)
            }
            Layout::Profile if !self.state.is_dir() => {
                Err(LayoutError::NoProfile { path: self.state.clone() })
            }
            Layout::Profile if self.workspace.is_dir() => Ok(()),
            Layout::Profile => make_private(&self.workspace, me),
        }
    }

    /// What lies outside the data directory, and so could lie where another instance's does.
    fn claims(&self) -> Vec<&Path> {
        match self.layout {
            Layout::Managed => Vec::new(),
            Layout::Profile => vec![&self.state, &self.config, &self.workspace],
        }
    }
}

fn is_private(path: &Path, me: u32) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == me && found.mode() & 0o777 == PRIVATE)
}

/// Makes the directory if it is missing; mends its mode; refuses what cannot be mended.
fn make_private(path: &Path, me: u32) -> Result<(), LayoutError> {
    let make = |source| LayoutError::Make { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Another start of the same instance cannot be under way, so nobody makes it in between.
            return DirBuilder::new().mode(PRIVATE).create(path).map_err(make);
        }
        Err(error) => return Err(make(error)),
    };
    if !found.is_dir() {
        let found = if found.is_symlink() { "a link" } else { "a file" };
        return Err(LayoutError::NotADirectory { path: path.to_owned(), found });
    }
    if found.uid() != me {
        return Err(LayoutError::Owner { path: path.to_owned(), owner: found.uid(), me });
    }
    if found.mode() & 0o777 != PRIVATE {
        fs::set_permissions(path, Permissions::from_mode(PRIVATE)).map_err(make)?;
    }
    Ok(())
}

/// `path` with every link of its existing part followed.
#[must_use]
pub fn resolve(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|existing| {
            let rest = path.strip_prefix(existing).ok()?;
            let found = existing.canonicalize().ok()?;
            Some(if rest.as_os_str().is_empty() { found } else { found.join(rest) })
        })
        .unwrap_or_else(|| path.to_owned())
}

/// Whether `me` shares no directory or file with any of `others`, nor with the supervisor.
pub fn check_apart<'a>(
    data_dir: &Path,
    me: (&'a Name, &'a Directories),
    others: impl IntoIterator<Item = (&'a Name, &'a Directories)>,
) -> Result<(), Clash> {
    match me.1.layout {
        Layout::Managed => Ok(()),
        Layout::Profile => {
            let all = others.into_iter().chain([me]);
            clashes(data_dir, all).into_iter().find(|clash| clash.name == *me.0).map_or(Ok(()), Err)
        }
    }
}

/// A path that an instance claims for itself alone.
struct Claim<'a> {
    name: &'a Name,
    path: &'a Path,
    resolved: PathBuf,
}

impl Claim<'_> {
    fn clash(&self, relation: Relation, other: Option<&Name>, theirs: &Path) -> Clash {
        let (name, mine) = (self.name.clone(), self.path.to_owned());
        Clash { name, mine, relation, other: other.cloned(), theirs: theirs.to_owned() }
    }
}

/// Every pair of instances that clash, once: as a refusal of the later of the two.
#[must_use]
pub fn clashes<'a>(
    data_dir: &Path,
    all: impl IntoIterator<Item = (&'a Name, &'a Directories)>,
) -> Vec<Clash> {
    let claims: Vec<Claim<'_>> = all
        .into_iter()
        .flat_map(|(name, directories)| {
            directories.claims().into_iter().map(move |path| Claim { name, path, resolved: resolve(path) })
        })
        .collect();
    let mut first: HashMap<&Path, usize> = HashMap::new();
    for (index, claim) in claims.iter().enumerate() {
        first.entry(&claim.resolved).or_insert(index);
    }
    let supervisors = resolve(data_dir);
    let mut found: Vec<Clash> = Vec::new();
    let mut add = |clash: Clash| {
        if !found.iter().any(|known| known.name == clash.name && known.other == clash.other) {
            found.push(clash);
        }
    };
    for (index, claim) in claims.iter().enumerate() {
        if let Some(relation) = relation(&claim.resolved, &supervisors) {
            add(claim.clash(relation, None, data_dir));
        }
        for around in claim.resolved.ancestors() {
            let Some(at) = first.get(around).copied() else { continue };
            let holder = &claims[at];
            match (holder.name == claim.name, holder.resolved == claim.resolved, at < index) {
                (true, ..) => {}
                (false, true, _) => add(claim.clash(Relation::Same, Some(holder.name), holder.path)),
                (false, false, true) => add(claim.clash(Relation::Inside, Some(holder.name), holder.path)),
                (false, false, false) => add(holder.clash(Relation::Around, Some(claim.name), claim.path)),
            }
        }
    }
    found
}

/// How the first path lies to the second, if they meet.
pub(crate) fn relation(mine: &Path, theirs: &Path) -> Option<Relation> {
    match (mine == theirs, mine.starts_with(theirs), theirs.starts_with(mine)) {
        (true, ..) => Some(Relation::Same),
        (false, true, _) => Some(Relation::Inside),
        (false, false, true) => Some(Relation::Around),
        (false, false, false) => None,
    }
}

#[cfg(test)]
mod tests;
