//! What was closed to others when it was first seen: the data directory itself, and what people keep in it, such as tokens and
//! the addresses of alerts. It stays so.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::unistd::geteuid;
use tracing::warn;

use super::{OF_INSTANCES, OWN, close, entries};

/// Bits of others.
const OTHERS: u32 = 0o077;

/// What others could have read until it was closed: what is secret in it is to be made anew. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exposed(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Exposed {
    /// These, to begin with.
    pub(crate) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(paths.into_iter().collect())))
    }

    /// All of them.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files and directories that nobody else could open when they were first seen.
#[derive(Debug)]
pub(super) struct Private {
    closed: BTreeSet<PathBuf>,
    exposed: Exposed,
}

impl Private {
    pub(super) fn new(exposed: Exposed) -> Self {
        Self { closed: BTreeSet::new(), exposed }
    }

    /// Closes again what has been opened since. Others pass the data directory if they are to (`for_all`): instances with
    /// users of their own are in it.
    pub(super) fn look(&mut self, data_dir: &Path, for_all: impl Fn() -> bool) {
        let was_opened = is_open(data_dir) && self.closed.contains(data_dir);
        if was_opened && for_all() {
            self.closed.remove(data_dir);
        }
        self.close(data_dir);
        let is_people_s = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            !OWN.iter().chain(&OF_INSTANCES).any(|own| name == *own)
        };
        for path in entries(data_dir).into_iter().filter(|path| is_people_s(path)) {
            let inside = if self.close(&path) { entries(&path) } else { Vec::new() };
            for path in inside {
                self.close(&path);
            }
        }
    }

    /// Whether it is a directory.
    fn close(&mut self, path: &Path) -> bool {
        let Ok(found) = fs::symlink_metadata(path) else { return false };
        if !(found.is_file() || found.is_dir()) || found.uid() != geteuid().as_raw() {
            return false;
        }
        let mode = found.permissions().mode() & 0o777;
        if mode & OTHERS == 0 {
            self.closed.insert(path.to_owned());
        } else if self.closed.contains(path) {
            let shown = path.display();
            match close(path, mode & !OTHERS) {
                Ok(()) => {
                    warn!(path = %shown, mode = format!("{mode:o}"), "it was opened to other users; it is closed");
                }
                Err(error) => {
                    warn!(path = %shown, %error, "it was opened to other users, and cannot be closed");
                }
            }
            if found.is_file() {
                self.exposed.lock().insert(path.to_owned());
            }
        }
        found.is_dir()
    }
}

fn is_open(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_keep_for_themselves_beside_the_supervisors_own_is_closed_again_and_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let chmod = |name: &str, mode: u32| {
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        let names = ["", "deploy.token", "secrets", "secrets/slack.url", "fleet.yaml", "instances/x"];
        let modes = || {
            names.map(|name| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777)
        };
        for name in ["secrets", "instances"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            chmod(name, 0o700);
        }
        for (name, mode) in [
            ("deploy.token", 0o600),
            ("secrets/slack.url", 0o400),
            ("fleet.yaml", 0o644),
            ("instances/x", 0o600),
        ] {
            fs::write(directory.path().join(name), "x").unwrap();
            chmod(name, mode);
        }
        chmod("", 0o700);
        let exposed = Exposed::default();
        let mut private = Private::new(exposed.clone());
        private.look(directory.path(), || false);
        let open = || names.into_iter().for_each(|name| chmod(name, 0o777));
        open();
        private.look(directory.path(), || false);
        assert_eq!(modes(), [0o700, 0o700, 0o700, 0o700, 0o777, 0o777]);
        let told = ["deploy.token", "secrets/slack.url"].map(|name| directory.path().join(name));
        assert_eq!(exposed.paths(), told);
        open();
        private.look(directory.path(), || true);
        assert_eq!(modes(), [0o777, 0o700, 0o700, 0o700, 0o777, 0o777], "others are to pass it");
    }
}
