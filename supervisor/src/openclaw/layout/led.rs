//! That what people name is where they say, and no link leads there.
//!
//! Whoever may write where a link lies can have it lead elsewhere: an agent that had been granted that, or another user
//! of the host. Nobody can tell afterwards whose link it is. So a state, a workspace, the directory of a configuration and
//! a grant are named by the way on which there is none. What lies in a state goes with that, whatever its agent has
//! made of it.

use std::path::{Path, PathBuf};

use super::{Directories, Layout, Neighbour};
use crate::{
    openclaw::{ways::Ways, written::Written},
    spec::{FieldPath, InstanceSpec},
    typed::word,
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
        match &self.end {
            Some(end) => format!(
                "if nobody knows of that link, remove it; else write `{}`, where no link can lead it elsewhere",
                end.display()
            ),
            None => format!("see where it leads (`readlink {}`), and name that", word(&self.link)),
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

/// Of those, what people can mend: a link where instances write could be an agent's, which is not to keep everybody from
/// changing anything. Nothing is opened by that either.
pub(crate) fn led_by_people<'a>(
    data_dir: &Path,
    spec: &InstanceSpec,
    all: impl IntoIterator<Item = (&'a Directories, &'a [PathBuf])>,
) -> Vec<(FieldPath, Led)> {
    let mut led: Vec<(FieldPath, Led)> = led_grants(spec).collect();
    if !led.is_empty() {
        let written = Written::by(data_dir, all);
        led.retain(|(_, led)| !written.holds(&led.link));
    }
    led
}

/// The grants that a link leads to, and the fields that name them.
pub(crate) fn led_grants(spec: &InstanceSpec) -> impl Iterator<Item = (FieldPath, Led)> {
    let ways = Ways::default();
    spec.walls.grants().filter_map(move |(field, index, path)| {
        Some((FieldPath::of(&["walls", field]).item(index), Led::to(&ways, path)?))
    })
}

/// The first of these to which a link leads that an agent could have made, in a sentence with what to do.
pub(crate) fn led_by_agents(data_dir: &Path, paths: &[&Path], others: &[Neighbour]) -> Option<String> {
    let ways = Ways::default();
    let directories: Vec<Directories> = others.iter().map(|other| other.directories(data_dir)).collect();
    let written = directories.iter().zip(others.iter().map(|other| other.writes.as_slice()));
    let written = Written::by(data_dir, written);
    let link = |path: &Path| ways.links(path).into_iter().find(|link| written.holds(link));
    paths.iter().find_map(|path| {
        let (path, link) = (path.display(), link(path)?);
        Some(format!(
            "the way to `{path}` leads over `{}`, where an instance writes; see where that leads (`readlink {}`), and \
             remove it",
            link.display(),
            word(&link)
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use supervisor_core::ports::Block;

    use super::*;

    #[test]
    fn what_an_agent_calls_its_link_is_run_by_nobody_who_does_as_he_is_told() {
        let world = tempfile::tempdir().unwrap();
        let at = world.path().canonicalize().unwrap();
        let data_dir = at.join("data");
        let name = supervisor_core::ids::Name::new("main").unwrap();
        let block = Block::at(20_000).unwrap();
        let main = Neighbour { name, block, profile: None, writes: vec![at.join("shared")] };
        for directory in ["data", "shared", "elsewhere"] {
            fs::create_dir(at.join(directory)).unwrap();
        }
        let planted = at.join("shared/$(reboot);it's");
        symlink(at.join("elsewhere"), &planted).unwrap();
        symlink(&planted, at.join("profile")).unwrap();
        let told = led_by_agents(&data_dir, &[&at.join("profile")], &[main]).unwrap();
        let typed = format!(r"`readlink '{}/shared/$(reboot);it'\''s'`", at.display());
        assert!(told.contains(&typed), "{told}");
    }
}
