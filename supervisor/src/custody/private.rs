//! The data directory itself, and what people keep in it, such as tokens and the addresses of alerts. What was closed to
//! others when it was first seen stays so. What was open then is closed as well, because whoever waits for a name can open
//! the file before it is seen; but not where instances have users of their own, who may have to read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::unistd::geteuid;
use tracing::warn;

use super::{CHANGED, OF_INSTANCES, OWN, close, entries};
use crate::settings;

/// Bits of others.
const OTHERS: u32 = 0o077;

/// How others get, or got, at what is not theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exposure {
    /// They could read it until it was closed: what is secret in it is to be made anew.
    Read,
    /// They could change it until it was closed.
    Changed,
    /// They still can read it, as it cannot be closed.
    Open,
}

/// What others could have opened while this supervisor ran, or before. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exposed(Arc<Mutex<BTreeMap<PathBuf, Exposure>>>);

impl Exposed {
    /// These, to begin with.
    pub(crate) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(paths.into_iter().map(|path| (path, Exposure::Read)).collect())))
    }

    /// All of them, in words.
    pub(crate) fn alarms(&self) -> Vec<String> {
        let alarm = |(path, exposure): (&PathBuf, &Exposure)| {
            let path = path.display();
            match exposure {
                Exposure::Read => format!(
                    "Other users could read {path} until this supervisor closed it; make what is secret in it anew."
                ),
                Exposure::Changed => format!(
                    "Other users could change {path} until this supervisor closed it; see that it is as you left it."
                ),
                Exposure::Open => format!(
                    "Other users can open {path}, and it cannot be closed, as the log says why; put another in its place."
                ),
            }
        };
        self.lock().iter().map(alarm).collect()
    }

    /// It is known to be no better than this.
    pub(super) fn note(&self, path: &Path, exposure: Exposure) {
        let mut known = self.lock();
        let worst = known.get(path).copied().unwrap_or(exposure).max(exposure);
        known.insert(path.to_owned(), worst);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Exposure>> {
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
            let mut exposure = if mode & CHANGED == 0 { Exposure::Read } else { Exposure::Changed };
            match close(path, mode & !OTHERS) {
                Ok(()) => {
                    self.closed.insert(path.to_owned());
                    warn!(path = %shown, mode = format!("{mode:o}"), "it was open to other users; it is closed");
                }
                Err(error) => {
                    exposure = Exposure::Open;
                    if self.stuck.insert(path.to_owned()) {
                        warn!(path = %shown, %error, "it is open to other users, and cannot be closed");
                    }
                }
            }
            if found.is_file() && (was_closed || could_be_read) {
                self.exposed.note(path, exposure);
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
        let told = ["deploy.token", "secrets/slack.url"].map(|name| {
            let path = directory.path().join(name);
            format!(
                "Other users could change {} until this supervisor closed it; see that it is as you left it.",
                path.display()
            )
        });
        assert_eq!(exposed.alarms(), told);
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
        assert_eq!(exposed.alarms(), [""; 0], "nobody could");
        put("", 0o711);
        put("telegram.token", 0o644);
        private.look(directory.path(), false);
        assert_eq!([mode(""), mode("telegram.token")], [0o700, 0o600]);
        let [told] = exposed.alarms().try_into().unwrap();
        assert!(told.contains("could read") && told.contains("telegram.token"), "{told}");
        fs::hard_link(directory.path().join("telegram.token"), directory.path().join("another-name"))
            .unwrap();
        put("telegram.token", 0o604);
        private.look(directory.path(), false);
        let told = exposed.alarms();
        assert!(
            told.iter().any(|told| told.contains("can open") && told.contains("telegram.token")),
            "{told:?}"
        );
        put("run-by-its-user", 0o755);
        private.look(directory.path(), true);
        assert_eq!(mode("run-by-its-user"), 0o755);
    }
}
