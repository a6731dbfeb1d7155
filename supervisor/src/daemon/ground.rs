//! What the daemon stands on: the data directory, made ours alone before anything else is done in it, and a boot of the host.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{FsFlags, statvfs};
use tracing::warn;

use super::DaemonError;
use crate::{custody, perform::store, settings};

/// Files that make a data directory known as one: settings, store, and the log of a supervisor that a client
/// started.
const OURS: [&str; 3] = [settings::FILE, store::FILE, "supervisor.log"];

/// Makes the data directory ours alone. Says where it really is, and what others could read in it until now.
pub(super) fn prepare(data_dir: &Path) -> Result<(PathBuf, Vec<PathBuf>), DaemonError> {
    let failed = |source| DaemonError::DataDir { path: data_dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let flags = statvfs(data_dir).map_err(|error| failed(error.into()))?.flags();
    if flags.contains(FsFlags::ST_RDONLY) {
        return Err(DaemonError::ReadOnly { path: data_dir.to_owned() });
    }
    let data_dir = data_dir.canonicalize().map_err(failed)?;
    let open_to_others = fs::metadata(&data_dir).map_err(failed)?.permissions().mode() & 0o066 != 0;
    match open_to_others.then(|| contents(&data_dir)).transpose().map_err(failed)? {
        Some(Contents::Others) => return Err(DaemonError::Foreign { path: data_dir }),
        // Nobody has put anything there, as where a container's volume is new.
        Some(Contents::None) => custody::close(&data_dir, 0o700).map_err(failed)?,
        Some(Contents::Ours) | None => {}
    }
    let exposed = custody::take(&data_dir)?;
    for path in &exposed {
        warn!(path = %path.display(), "other users could read this until now; it is closed");
    }
    Ok((data_dir, exposed))
}

/// What is in a directory that others may use.
enum Contents {
    None,
    Ours,
    Others,
}

fn contents(directory: &Path) -> io::Result<Contents> {
    let is_ours = OURS.iter().any(|file| directory.join(file).exists());
    let is_empty = fs::read_dir(directory)?.next().is_none();
    Ok(match (is_empty, is_ours) {
        (true, _) => Contents::None,
        (false, true) => Contents::Ours,
        (false, false) => Contents::Others,
    })
}

/// Names this boot of the host; see random(4).
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().into())
}
