//! The key to a worker's socket.
//!
//! It lies beside the socket, one for each run directory, and is as good as the directory is: no wall lets a gateway
//! read there, and whoever loses it loses the socket, too. One key for the whole data directory would cost every
//! gateway if it were lost.
//!
//! It is chosen by the kernel when the first worker is started there, and kept for those after it, so that a full
//! disk keeps no worker from being replaced. If the file alone is lost while its worker runs, the supervisor that
//! started the worker is connected and needs it no more; the worker is replaced before the next launch
//! ([`can_be_found`](super::can_be_found)), and a supervisor that comes before that finds a worker that it cannot
//! use, and replaces it with its gateway.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::libc::O_NOFOLLOW;

use crate::openclaw::file::{Durability, replace};

/// The key, in a run directory.
const FILE: &str = "worker.key";

/// As many as nobody guesses.
const BYTES: usize = 32;

/// What opens a worker's socket.
pub(super) type Key = Vec<u8>;

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(FILE)
}

/// The key of the workers of `run_dir`. `None` if there has been no worker that knew of keys, or it is lost.
pub(super) fn read(run_dir: &Path) -> io::Result<Option<Key>> {
    let mut key = Vec::new();
    match File::options().read(true).custom_flags(O_NOFOLLOW).open(path(run_dir)) {
        Ok(file) => file.take(BYTES as u64 + 1).read_to_end(&mut key)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((key.len() == BYTES).then_some(key))
}

/// The same; if there is none, it is chosen now.
pub(super) fn read_or_choose(run_dir: &Path) -> io::Result<Key> {
    if let Some(key) = read(run_dir)? {
        return Ok(key);
    }
    let mut key = vec![0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    // No worker outlives the host, and neither does the need for its key.
    replace(&path(run_dir), &key, 0o600, Durability::Quick)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_key_is_chosen_once_and_only_its_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
        let key = read_or_choose(directory.path()).unwrap();
        assert_eq!(read_or_choose(directory.path()).unwrap(), key);
        assert_eq!(read(directory.path()).unwrap(), Some(key.clone()));
        let mode = fs::metadata(path(directory.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(read_or_choose(other.path()).unwrap(), key);
    }

    #[test]
    fn half_a_key_is_none_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        for broken in [&b""[..], &[7; BYTES - 1], &[7; BYTES + 1]] {
            fs::write(path(directory.path()), broken).unwrap();
            assert_eq!(read(directory.path()).unwrap(), None);
        }
        assert_eq!(read_or_choose(directory.path()).unwrap().len(), BYTES);
        assert!(read(directory.path()).unwrap().is_some());
    }
}
