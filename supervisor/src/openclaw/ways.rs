//! Links followed, for whoever asks about many paths at once: each part of the way is looked at once.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

/// What has been found.
#[derive(Debug, Default)]
pub(super) struct Ways {
    known: RefCell<HashMap<PathBuf, Option<PathBuf>>>,
}

impl Ways {
    /// Where `path` leads, if anything is there, as [`Path::canonicalize`] says.
    pub(super) fn found(&self, path: &Path) -> Option<PathBuf> {
        if let Some(known) = self.known.borrow().get(path) {
            return known.clone();
        }
        let found = self.look(path);
        self.known.borrow_mut().insert(path.to_owned(), found.clone());
        found
    }

    fn look(&self, path: &Path) -> Option<PathBuf> {
        let (Some(above), Some(Component::Normal(name))) = (path.parent(), path.components().next_back())
        else {
            return path.canonicalize().ok();
        };
        if !path.is_absolute() {
            return path.canonicalize().ok();
        }
        let at = self.found(above)?.join(name);
        match at.read_link() {
            Ok(_) => at.canonicalize().ok(),
            // It is there, and no link.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Some(at),
            Err(_) => None,
        }
    }

    /// `path` with every link of its existing part followed.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        path.ancestors()
            .find_map(|existing| {
                let rest = path.strip_prefix(existing).ok()?;
                let found = self.found(existing)?;
                Some(if rest.as_os_str().is_empty() { found } else { found.join(rest) })
            })
            .unwrap_or_else(|| path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::openclaw::layout::resolve;

    #[test]
    fn every_path_leads_where_the_system_says() {
        let world = tempfile::tempdir().unwrap();
        let at = |path: &str| world.path().join(path);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::write(at("a/file"), "").unwrap();
        for (to, link) in [
            ("b", "a/near"),
            ("/usr", "a/far"),
            ("../a/near/c", "a/b/up"),
            ("loop", "loop"),
            ("gone", "a/gone"),
        ] {
            symlink(to, at(link)).unwrap();
        }
        let ways = Ways::default();
        let within = [
            "",
            "a",
            "a/b",
            "a/b/c",
            "a/near",
            "a/near/c",
            "a/far/bin",
            "a/b/up",
            "a/b/up/x/y",
            "a/gone",
            "a/gone/x",
            "loop",
            "loop/x",
            "a/file",
            "a/file/x",
            "a/./b",
            "a/near/../b",
            "a/b/../../a/far",
            "none/at/all",
            "a/b/",
        ];
        let others = ["/", "//usr", "/bin", "/proc/self/exe", "relative", "."].map(PathBuf::from);
        // The second time nothing is looked at.
        for path in within.map(at).into_iter().chain(others).flat_map(|path| [path.clone(), path]) {
            assert_eq!(ways.found(&path), path.canonicalize().ok(), "{}", path.display());
            assert_eq!(ways.resolve(&path), resolve(&path), "{}", path.display());
        }
    }
}
