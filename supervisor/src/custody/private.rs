//! What people keep in the data directory, such as tokens and the addresses of alerts: what was theirs alone stays so.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use tracing::warn;

use super::{OF_INSTANCES, OWN, close, entries};

/// Bits of others.
const OTHERS: u32 = 0o077;

/// Files that nobody else could open when they were first seen.
#[derive(Debug, Default)]
pub(super) struct Private(BTreeSet<PathBuf>);

impl Private {
    /// Closes again what has been opened since, in the data directory and in what people have made in it.
    pub(super) fn look(&mut self, data_dir: &Path) {
        let is_people_s = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            ![&OWN[..], &OF_INSTANCES[..]].concat().iter().any(|own| name == *own)
        };
        for path in entries(data_dir).into_iter().filter(|path| is_people_s(path)) {
            let is_directory = self.close(&path);
            let inside = if is_directory { entries(&path) } else { Vec::new() };
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
            self.0.insert(path.to_owned());
        } else if self.0.contains(path) {
            let shown = path.display();
            match close(path, mode & !OTHERS) {
                Ok(()) => warn!(
                    path = %shown, mode = format!("{mode:o}"),
                    "it was opened to other users, and is closed again; make what is secret in it anew"
                ),
                Err(error) => {
                    warn!(path = %shown, %error, "it was opened to other users, and cannot be closed")
                }
            }
        }
        found.is_dir()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_keep_for_themselves_beside_the_supervisors_own_is_closed_again_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let mode =
            |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        let chmod = |name: &str, mode: u32| {
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
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
        let mut private = Private::default();
        private.look(directory.path());
        for name in ["deploy.token", "secrets", "secrets/slack.url", "fleet.yaml", "instances/x"] {
            chmod(name, 0o777);
        }
        private.look(directory.path());
        let modes = ["deploy.token", "secrets", "secrets/slack.url", "fleet.yaml", "instances/x"].map(mode);
        assert_eq!(modes, [0o700, 0o700, 0o700, 0o777, 0o777]);
    }
}
