//! Where agents write, and so could have put a link in the place of anything.
//!
//! Of what belongs to the host (programs, certificates, the directories on a PATH) links are followed, but none of these.

use std::path::{Path, PathBuf};

use super::{
    layout::{Directories, Layout},
    walls::shared,
    ways::Ways,
};

/// The trees.
#[derive(Debug, Default)]
pub(crate) struct Written {
    trees: Vec<PathBuf>,
    /// Directories in which files are made, and no directories.
    beside: Vec<PathBuf>,
}

impl Written {
    /// What instances with these directories and these grants write, to which no link leads.
    pub(crate) fn by<'a>(
        data_dir: &Path,
        instances: impl IntoIterator<Item = (&'a Directories, &'a [PathBuf])>,
    ) -> Self {
        // The supervisor makes no link among the directories that it makes.
        let mut trees = vec![data_dir.join("instances"), PathBuf::from(shared::MEMORY)];
        let mut beside = Vec::new();
        for (directories, writes) in instances {
            trees.extend(given(directories, writes));
            beside.extend(directories.config.parent().map(Path::to_owned));
        }
        Self { trees, beside }
    }

    /// Whether one of them could have made what is there, by the way that `path` says.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        let is_beside = || path.parent().is_some_and(|parent| self.beside.iter().any(|one| one == parent));
        self.trees.iter().any(|tree| path.starts_with(tree)) || is_beside() || shared::is_in_locks(path)
    }

    /// Whether one of them could have made what is there, or have led there.
    pub(crate) fn could_be(&self, ways: &Ways, path: &Path) -> bool {
        self.holds(path) || self.holds(&ways.resolve(path)) || self.leads(ways, path)
    }

    /// Whether one of them could have led to `path`.
    pub(crate) fn leads(&self, ways: &Ways, path: &Path) -> bool {
        ways.links(path).iter().any(|link| self.holds(link))
    }
}

fn given<'a>(directories: &'a Directories, writes: &'a [PathBuf]) -> impl Iterator<Item = PathBuf> + 'a {
    let own = match directories.layout {
        Layout::Managed => None,
        Layout::Profile => Some([&directories.state, &directories.workspace]),
    };
    own.into_iter().flatten().chain(writes).cloned()
}
