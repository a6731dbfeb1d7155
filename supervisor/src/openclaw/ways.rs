//! Links followed, for whoever asks about many paths at once: each part of the way is looked at once.

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::{OsStr, OsString},
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

/// As path_resolution(7) has it.
const MOST_LINKS: usize = 40;

/// What has been found.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    known: RefCell<HashMap<PathBuf, Way>>,
}

/// How a path is found.
#[derive(Debug, Clone, Default)]
struct Way {
    /// Where it leads, if anything is there.
    end: Option<PathBuf>,
    /// The links that are followed, each where it is.
    links: Vec<PathBuf>,
}

impl Ways {
    /// Where `path` leads, if it is absolute and anything is there, as [`Path::canonicalize`] says.
    pub(crate) fn found(&self, path: &Path) -> Option<PathBuf> {
        self.way(path).end
    }

    /// The links that are followed on the way to `path`, as far as anything is there, each where it is.
    pub(crate) fn links(&self, path: &Path) -> Vec<PathBuf> {
        self.way(path).links
    }

    fn way(&self, path: &Path) -> Way {
        if let Some(known) = self.known.borrow().get(path) {
            return known.clone();
        }
        let found = self.look(path);
        self.known.borrow_mut().insert(path.to_owned(), found.clone());
        found
    }

    fn look(&self, path: &Path) -> Way {
        let begins = Way { end: Some(PathBuf::from("/")), links: Vec::new() };
        match (path.parent(), path.components().next_back()) {
            _ if !path.is_absolute() => Way::default(),
            (Some(above), Some(last @ Component::Normal(_))) => go(self.way(above), last.as_os_str()),
            _ => path.iter().fold(begins, go),
        }
    }

    /// `path` with every link of its existing part followed.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        path.ancestors()
            .find_map(|existing| {
                let rest = path.strip_prefix(existing).ok()?;
                let found = self.found(existing)?;
                Some(if rest.as_os_str().is_empty() { found } else { found.join(rest) })
            })
            .unwrap_or_else(|| path.to_owned())
    }
}

/// One part further, and on wherever a link leads there. Nothing is looked at twice: somebody may change it between two
/// looks, and what is no link now would lead elsewhere then.
fn go(way: Way, part: &OsStr) -> Way {
    let Way { end: Some(mut at), mut links } = way else { return way };
    let mut ahead: Vec<OsString> = vec![part.to_owned()];
    while let Some(part) = ahead.pop() {
        match part.as_encoded_bytes() {
            b"/" => at = PathBuf::from("/"),
            b"." => {}
            b".." => drop(at.pop()),
            _ => {
                let next = at.join(&part);
                match next.read_link() {
                    // The kernel follows no more either.
                    Ok(_) if links.len() == MOST_LINKS => return Way { end: None, links },
                    Ok(target) => {
                        ahead.extend(target.iter().rev().map(OsStr::to_owned));
                        links.push(next);
                    }
                    // It is there, and no link.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => at = next,
                    Err(_) => return Way { end: None, links },
                }
            }
        }
    }
    Way { end: Some(at), links }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::openclaw::layout::resolve;

    #[test]
    fn what_becomes_a_link_while_it_is_looked_at_leads_nowhere_unseen() {
        let world = tempfile::tempdir().unwrap();
        let root = world.path().canonicalize().unwrap();
        let (place, link, treasure) = (root.join("place"), root.join("link"), root.join("treasure"));
        fs::create_dir(&place).unwrap();
        fs::create_dir(&treasure).unwrap();
        symlink(&treasure, &link).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let mut seen = [0; 2];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    rustix::fs::renameat_with(rustix::fs::CWD, &place, rustix::fs::CWD, &link, exchange)
                        .unwrap();
                }
            });
            for _ in 0..20_000 {
                let ways = Ways::default();
                let (end, links) = (ways.found(&place), ways.links(&place));
                let is_link = !links.is_empty();
                assert_eq!(end.as_ref(), Some(if is_link { &treasure } else { &place }), "{links:?}");
                seen[usize::from(is_link)] += 1;
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
    }

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
        let others = ["/", "//usr", "/bin", "/proc/self/exe", "/.."].map(PathBuf::from);
        // The second time nothing is looked at.
        for path in within.map(at).into_iter().chain(others).flat_map(|path| [path.clone(), path]) {
            assert_eq!(ways.found(&path), path.canonicalize().ok(), "{}", path.display());
            assert_eq!(ways.resolve(&path), resolve(&path), "{}", path.display());
        }
        assert_eq!(ways.found(Path::new("relative")), None);
    }
}
