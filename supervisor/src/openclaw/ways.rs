//! Links followed, for whoever asks about many paths at once: each part of the way is looked at once.

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::OsString,
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

/// As path_resolution(7) has it.
const MOST_LINKS: usize = 40;

/// What has been found.
#[derive(Debug, Default)]
pub(super) struct Ways {
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
    /// Where `path` leads, if anything is there, as [`Path::canonicalize`] says.
    pub(super) fn found(&self, path: &Path) -> Option<PathBuf> {
        self.way(path).end
    }

    /// The links that are followed on the way to `path`, as far as anything is there, each where it is.
    pub(super) fn links(&self, path: &Path) -> Vec<PathBuf> {
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
        let (Some(above), Some(Component::Normal(name))) = (path.parent(), path.components().next_back())
        else {
            return Way { end: path.canonicalize().ok(), links: links(path) };
        };
        if !path.is_absolute() {
            return Way { end: path.canonicalize().ok(), links: links(path) };
        }
        let Way { end, links: before } = self.way(above);
        let Some(at) = end.map(|above| above.join(name)) else { return Way { end: None, links: before } };
        match at.read_link() {
            Ok(_) => {
                let links = before.into_iter().chain(links(&at)).collect();
                Way { end: at.canonicalize().ok(), links }
            }
            // It is there, and no link.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Way { end: Some(at), links: before },
            Err(_) => Way { end: None, links: before },
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

/// The links on the way to `path`, which is absolute, each where it is, up to the first thing that is not there.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut at = PathBuf::from("/");
    let mut ahead: Vec<OsString> = reversed(path);
    while let Some(part) = ahead.pop() {
        match part.as_encoded_bytes() {
            b"/" => at = PathBuf::from("/"),
            b"." => {}
            b".." => drop(at.pop()),
            _ => {
                let next = at.join(&part);
                match next.read_link() {
                    // The kernel follows no more either.
                    Ok(_) if found.len() == MOST_LINKS => break,
                    Ok(target) => {
                        ahead.extend(reversed(&target));
                        found.push(next);
                    }
                    Err(error) if error.kind() == ErrorKind::InvalidInput => at = next,
                    Err(_) => break,
                }
            }
        }
    }
    found
}

fn reversed(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
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
