//! Where agents write, and so could have put a link in the place of anything.
//!
//! Of what belongs to the host (programs, certificates, the directories on a PATH) links are followed, but none of these.

use std::path::{Path, PathBuf};

use super::{
    layout::{Directories, Layout, Neighbour},
    walls::shared,
    ways::Ways,
};
use crate::spec::InstanceSpec;

/// The trees.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<PathBuf>);

impl Written {
    /// What `me` and all others of a data directory write, to which no link leads.
    pub(super) fn by(me: (&Directories, &InstanceSpec), data_dir: &Path, instances: &[Neighbour]) -> Self {
        // The supervisor makes no link among the directories that it makes.
        let mut trees = vec![data_dir.join("instances"), PathBuf::from(shared::MEMORY)];
        trees.extend(given(me.0, &me.1.walls.write));
        for instance in instances.iter().filter(|one| one.profile.is_some() || !one.writes.is_empty()) {
            trees.extend(given(&instance.directories(data_dir), &instance.writes));
        }
        Self(trees)
    }

    /// Whether one of them could have led there.
    pub(super) fn leads(&self, ways: &Ways, path: &Path) -> bool {
        ways.links(path).iter().any(|link| self.0.iter().any(|tree| link.starts_with(tree)))
    }
}

fn given<'a>(directories: &'a Directories, writes: &'a [PathBuf]) -> impl Iterator<Item = PathBuf> + 'a {
    let own = match directories.layout {
        Layout::Managed => None,
        Layout::Profile => Some([&directories.state, &directories.workspace]),
    };
    own.into_iter().flatten().chain(writes).cloned()
}
