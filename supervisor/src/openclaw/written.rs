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
pub(crate) struct Written(Vec<PathBuf>);

impl Written {
    /// What instances with these directories and these grants write, to which no link leads.
    pub(crate) fn by<'a>(
        data_dir: &Path,
        instances: impl IntoIterator<Item = (&'a Directories, &'a [PathBuf])>,
    ) -> Self {
        // The supervisor makes no link among the directories that it makes.
        let mut trees = vec![data_dir.join("instances"), PathBuf::from(shared::MEMORY)];
        trees.extend(instances.into_iter().flat_map(|(directories, writes)| given(directories, writes)));
        Self(trees)
    }

    /// Whether one of them could have made what is there.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        self.0.iter().any(|tree| path.starts_with(tree))
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
