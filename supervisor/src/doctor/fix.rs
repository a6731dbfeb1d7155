//! What is safe to do without asking.
//!
//! Between the look and the fix the world may have changed, so each fix looks again at what it is about to
//! touch, by the file itself and not by its name, and does nothing if that is not what was found.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use super::ground;
use crate::{custody, openclaw::tree};

/// The lock that a living worker holds on its run directory.
const WORKER_LOCK: &str = "worker.lock";

/// The socket that a living worker listens on.
const WORKER_SOCKET: &str = "worker.sock";

/// One thing that is safe to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fix {
    /// Closes a file or directory to others than its owner.
    Close {
        /// Which.
        path: PathBuf,
        /// The mode it gets.
        mode: u32,
        /// Whose it is. Another's is left as it is.
        owner: u32,
    },
    /// Removes a file that nobody uses any more.
    Remove {
        /// Which.
        path: PathBuf,
        /// What it was when that was found out.
        seen: Seen,
    },
    /// Removes the run directory of an instance that does not exist.
    RemoveRunDirectory {
        /// Which.
        path: PathBuf,
    },
}

/// By which a file is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Seen {
    /// The file as it is.
    pub(super) fn of(found: &fs::Metadata) -> Self {
        let changed = (found.ctime(), found.ctime_nsec());
        Self { device: found.dev(), inode: found.ino(), changed }
    }
}

impl Fix {
    /// What was done, once it is: a sentence without its full stop.
    pub(super) fn done(&self) -> String {
        match self {
            Self::Close { path, mode, .. } => format!("`{}` has mode {mode:o} now", path.display()),
            Self::Remove { path, .. } => format!("removed `{}`", path.display()),
            Self::RemoveRunDirectory { path } => format!("removed the directory `{}`", path.display()),
        }
    }

    /// Does it.
    pub(super) fn apply(&self) -> io::Result<()> {
        match self {
            Self::Close { path, mode, owner } => custody::close_of(path, *mode, *owner),
            Self::Remove { path, seen } => ground::remove(path, *seen),
            Self::RemoveRunDirectory { path } => {
                if has_worker(path)? {
                    return Err(io::Error::other("a worker uses it"));
                }
                tree::remove(path)
            }
        }
    }
}

/// Whether a worker lives in this run directory.
pub(super) fn has_worker(run_dir: &Path) -> io::Result<bool> {
    let socket = File::open(run_dir)?;
    // The path of a data directory may be longer than a socket's address.
    let short = Path::new("/proc/self/fd").join(socket.as_raw_fd().to_string()).join(WORKER_SOCKET);
    if UnixStream::connect(short).is_ok() {
        return Ok(true);
    }
    match File::open(run_dir.join(WORKER_LOCK)) {
        Ok(file) => Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::{
            fs::{PermissionsExt, symlink},
            net::UnixListener,
        },
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_file_is_closed_and_what_a_link_points_to_is_not() {
        let world = tempfile::tempdir().unwrap();
        let (file, link) = (world.path().join(".env"), world.path().join("link"));
        fs::write(&file, "KEY=1").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        symlink(&file, &link).unwrap();
        let owner = nix::unistd::geteuid().as_raw();
        assert!(Fix::Close { path: link, mode: 0o600, owner }.apply().is_err());
        assert_eq!(mode(&file), 0o644);
        let fix = Fix::Close { path: file.clone(), mode: 0o600, owner };
        fix.apply().unwrap();
        assert_eq!(mode(&file), 0o600);
        assert!(fix.done().ends_with(".env` has mode 600 now"), "{}", fix.done());
        fs::hard_link(&file, world.path().join("other")).unwrap();
        assert!(fix.apply().is_err(), "its other name may be meant to be read");
    }

    #[test]
    fn a_file_that_was_replaced_meanwhile_stays() {
        let world = tempfile::tempdir().unwrap();
        let path = world.path().join("x.lock");
        fs::write(&path, "old").unwrap();
        let fix = Fix::Remove { path: path.clone(), seen: Seen::of(&fs::symlink_metadata(&path).unwrap()) };
        fs::write(world.path().join("new"), "new").unwrap();
        fs::rename(world.path().join("new"), &path).unwrap();
        assert!(fix.apply().is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let fix = Fix::Remove { path: path.clone(), seen: Seen::of(&fs::symlink_metadata(&path).unwrap()) };
        fix.apply().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_run_directory_stays_as_long_as_a_worker_has_it() {
        let world = tempfile::tempdir().unwrap();
        let run_dir = world.path().join("gone");
        fs::create_dir(&run_dir).unwrap();
        let fix = Fix::RemoveRunDirectory { path: run_dir.clone() };
        let listener = UnixListener::bind(run_dir.join(WORKER_SOCKET)).unwrap();
        assert!(fix.apply().is_err());
        drop(listener);
        let lock = File::create(run_dir.join(WORKER_LOCK)).unwrap();
        let held = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        assert!(fix.apply().is_err());
        drop(held);
        fix.apply().unwrap();
        assert!(!run_dir.exists());
    }
}
