//! That what people name is where they say, and no link leads there.
//!
//! Whoever may write where a link lies can have it lead elsewhere: an agent that had been granted that, or another user
//! of the host. Nobody can tell afterwards whose link it is. So a state, a workspace, the directory of a configuration and
//! a grant are named by the way on which there is none. What lies in a state goes with that, whatever its agent has
//! made of it.

use std::path::{Path, PathBuf};

use super::{Directories, Layout};
use crate::{
    openclaw::ways::Ways,
    spec::{FieldPath, InstanceSpec},
};

/// A link leads there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the way to `{}` leads over `{}`, a link", path.display(), link.display())]
pub struct Led {
    /// Where to.
    pub path: PathBuf,
    /// By what.
    pub link: PathBuf,
    /// What it came to, if anything is there.
    pub end: Option<PathBuf>,
}

impl Led {
    /// What to do about it: a sentence without its full stop.
    #[must_use]
    pub fn mend(&self) -> String {
        let link = self.link.display();
        match &self.end {
            Some(end) => format!(
                "if nobody knows of that link, remove it; else write `{}`, where no link can lead it elsewhere",
                end.display()
            ),
            None => format!("see where it leads (`readlink {link}`), and name that"),
        }
    }

    /// The way to `path`, if it is one over a link.
    pub(crate) fn to(ways: &Ways, path: &Path) -> Option<Self> {
        let link = ways.links(path).into_iter().next()?;
        Some(Self { path: path.to_owned(), link, end: ways.found(path) })
    }
}

/// The first of an instance's own directories that a link leads to, and the field that names it.
pub(crate) fn led_home(directories: &Directories) -> Option<(FieldPath, Led)> {
    let Directories { state, workspace, config, layout, .. } = directories;
    if *layout == Layout::Managed {
        return None;
    }
    let ways = Ways::default();
    let beside = [("workspace", workspace.as_path()), ("config", config.parent().unwrap_or(config))];
    let beside = beside.into_iter().filter(|(_, path)| !path.starts_with(state));
    let mut all = [("state_dir", state.as_path())].into_iter().chain(beside);
    all.find_map(|(field, path)| Some((FieldPath::of(&["profile", field]), Led::to(&ways, path)?)))
}

/// The grants that a link leads to, and the fields that name them.
pub(crate) fn led_grants(spec: &InstanceSpec) -> impl Iterator<Item = (FieldPath, Led)> {
    let ways = Ways::default();
    spec.walls.grants().filter_map(move |(field, index, path)| {
        Some((FieldPath::of(&["walls", field]).item(index), Led::to(&ways, path)?))
    })
}
