//! Where agents write, and so could have put a link in the place of anything.
//!
//! An instance's directories and its grants are given by people, and links in their way are people's too, unless an agent
//! could have made them. Such a link is not followed: neither when it is said what an instance may open, nor when its
//! state is to be copied or replaced.

use std::path::{Path, PathBuf};

use super::{
    layout::{Directories, Layout, LayoutError, Neighbour, resolve},
    ways::Ways,
};
use crate::spec::InstanceSpec;

/// The trees, links followed.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<PathBuf>);

impl Written {
    /// What the instances write.
    pub(super) fn by(me: (&Directories, &InstanceSpec), data_dir: &Path, instances: &[Neighbour]) -> Self {
        let Self(mut trees) = Self::by_one(me.0, me.1);
        for instance in instances.iter().filter(|one| one.profile.is_some() || !one.writes.is_empty()) {
            trees.extend(given(&instance.directories(data_dir), &instance.writes));
        }
        Self(trees)
    }

    /// What one instance writes.
    pub(super) fn by_one(directories: &Directories, spec: &InstanceSpec) -> Self {
        let writes = if spec.walls.files() { &*spec.walls.write } else { &[] };
        // The supervisor makes no link among the directories that it makes.
        let instances = directories.root.parent().map(resolve);
        Self(instances.into_iter().chain(given(directories, writes)).collect())
    }

    /// The first link on the way to `path` that one of them could have made.
    pub(super) fn link(&self, ways: &Ways, path: &Path) -> Option<PathBuf> {
        let mut links = ways.links(path).into_iter();
        links.find(|link| self.0.iter().any(|tree| link != tree && link.starts_with(tree)))
    }
}

/// What people have named. What lies in another of those is that one's, wherever an agent lets it lead.
fn given(directories: &Directories, writes: &[PathBuf]) -> Vec<PathBuf> {
    let own = match directories.layout {
        Layout::Managed => None,
        Layout::Profile => Some([&directories.state, &directories.workspace]),
    };
    let named: Vec<&PathBuf> = own.into_iter().flatten().chain(writes).collect();
    let is_outermost = |path: &Path| !named.iter().any(|other| path != **other && path.starts_with(other));
    named.iter().filter(|path| is_outermost(path)).map(|path| resolve(path)).collect()
}

/// Refuses an instance whose state, workspace or configuration is found by a link that an agent could have made.
pub(super) fn check(
    me: (&Directories, &InstanceSpec),
    data_dir: &Path,
    instances: &[Neighbour],
) -> Result<(), LayoutError> {
    let Directories { state, workspace, config, .. } = me.0;
    let (ways, written) = (Ways::default(), Written::by(me, data_dir, instances));
    // What lies in the state goes with it.
    let beside = [Some(workspace.as_path()), config.parent()].into_iter().flatten();
    let mut named = [state.as_path()].into_iter().chain(beside.filter(|path| !path.starts_with(state)));
    let led = named.find_map(|path| Some((path.to_owned(), written.link(&ways, path)?)));
    led.map_or(Ok(()), |(path, link)| Err(LayoutError::Led { path, link }))
}
