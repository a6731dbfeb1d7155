//! The data directory itself, and what people keep in it, such as tokens and the addresses of alerts. What was closed to
//! others when it was first seen stays so. What was open then is closed as well, because whoever waits for a name can open
//! the file before it is seen; but not where instances have users of their own, who may have to read it.

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
use crate::settings;

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

/// What others are not to open.
#[derive(Debug)]
pub(super) struct Private {
    /// What they could not when it was first seen, or since it was closed.
    closed: BTreeSet<PathBuf>,
    /// What cannot be closed, which is told once.
    stuck: BTreeSet<PathBuf>,
    exposed: Exposed,
}

impl Private {
    pub(super) fn new(exposed: Exposed) -> Self {
        Self { closed: BTreeSet::new(), stuck: BTreeSet::new(), exposed }
    }

    /// Closes what is open. Others pass the data directory if they are to (`for_all`): instances with users of their own are
    /// in it.
    pub(super) fn look(&mut self, data_dir: &Path, for_all: bool) {
        let was_opened = is_open(data_dir) && self.closed.contains(data_dir);
        if was_opened && for_all {
            self.closed.remove(data_dir);
        }
        self.close(data_dir, true, false);
        let is_named = |path: &Path, names: &[&str]| {
            let name = path.file_name().unwrap_or_default();
            names.iter().any(|own| name == *own)
        };
        for path in entries(data_dir) {
            if is_named(&path, &OWN) || is_named(&path, &OF_INSTANCES) {
                continue;
            }
            let may_be_open = for_all || is_named(&path, &[settings::FILE]);
            let inside = if self.close(&path, may_be_open, was_opened) { entries(&path) } else { Vec::new() };
            for path in inside {
                self.close(&path, may_be_open, was_opened);
            }
        }
    }

    /// Closes it if it is not to be open, and tells if somebody could have read it: at any rate where it was closed before.
    /// Whether it is a directory.
    fn close(&mut self, path: &Path, may_be_open: bool, could_be_read: bool) -> bool {
        let Ok(found) = fs::symlink_metadata(path) else { return false };
        if !(found.is_file() || found.is_dir()) || found.uid() != geteuid().as_raw() {
            return false;
        }
        let mode = found.permissions().mode() & 0o777;
        let was_closed = self.closed.contains(path);
        if mode & OTHERS == 0 {
            self.closed.insert(path.to_owned());
        } else if was_closed || !may_be_open {
            let shown = path.display();
            match close(path, mode & !OTHERS) {
                Ok(()) => {
                    self.closed.insert(path.to_owned());
                    warn!(path = %shown, mode = format!("{mode:o}"), "it was open to other users; it is closed");
                }
                Err(error) => {
                    if self.stuck.insert(path.to_owned()) {
                        warn!(path = %shown, %error, "it is open to other users, and cannot be closed");
                    }
                }
            }
            if found.is_file() && (was_closed || could_be_read) {
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
        let names = ["", "deploy.token", "secrets", "secrets/slack.url", settings::FILE, "instances/x"];
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
            (settings::FILE, 0o644),
            ("instances/x", 0o600),
        ] {
            fs::write(directory.path().join(name), "x").unwrap();
            chmod(name, mode);
        }
        chmod("", 0o700);
        let exposed = Exposed::default();
        let mut private = Private::new(exposed.clone());
        private.look(directory.path(), false);
        let open = || names.into_iter().for_each(|name| chmod(name, 0o777));
        open();
        private.look(directory.path(), false);
        assert_eq!(modes(), [0o700, 0o700, 0o700, 0o700, 0o777, 0o777]);
        let told = ["deploy.token", "secrets/slack.url"].map(|name| directory.path().join(name));
        assert_eq!(exposed.paths(), told);
        open();
        private.look(directory.path(), true);
        assert_eq!(modes(), [0o777, 0o700, 0o700, 0o700, 0o777, 0o777], "others are to pass it");
    }

    #[test]
    fn what_somebody_opens_before_it_is_first_seen_is_closed_and_told_of_if_it_could_be_had() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, mode: u32| {
            let path = directory.path().join(name);
            if !path.exists() {
                fs::write(&path, "x").unwrap();
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let mode =
            |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        let exposed = Exposed::default();
        let mut private = Private::new(exposed.clone());
        put("", 0o700);
        put(settings::FILE, 0o644);
        put("fleet.yaml", 0o644);
        private.look(directory.path(), false);
        assert_eq!([mode("fleet.yaml"), mode(settings::FILE)], [0o600, 0o644]);
        assert_eq!(exposed.paths(), [PathBuf::new(); 0], "nobody could");
        put("", 0o711);
        put("telegram.token", 0o644);
        private.look(directory.path(), false);
        assert_eq!([mode(""), mode("telegram.token")], [0o700, 0o600]);
        assert_eq!(exposed.paths(), [directory.path().join("telegram.token")]);
        put("run-by-its-user", 0o755);
        private.look(directory.path(), true);
        assert_eq!(mode("run-by-its-user"), 0o755);
    }
}
