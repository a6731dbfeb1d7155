//! The key that tickets are sealed with, kept in the data directory: sessions outlive a supervisor by it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use ring::rand::{SecureRandom, SystemRandom};
use tracing::warn;

use super::session::NoRandomness;

/// The file's name in the data directory.
pub(crate) const FILE: &str = "web.key";

/// The key of the supervisor on `data_dir`, made if there is none. One that is damaged is replaced: then all have to open
/// the dashboard anew. So have they after this supervisor if its key cannot be kept; supervision waits for no disk.
pub(crate) fn load(data_dir: &Path) -> Result<[u8; 32], NoRandomness> {
    if let Ok(found) = fs::read(data_dir.join(FILE))
        && let Ok(key) = found.try_into()
    {
        return Ok(key);
    }
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| NoRandomness)?;
    if let Err(error) = keep(data_dir, &key) {
        warn!(%error, "the dashboard's key cannot be kept: its sessions end with this supervisor");
    }
    Ok(key)
}

fn keep(data_dir: &Path, key: &[u8]) -> io::Result<()> {
    let fresh = data_dir.join(format!(".{FILE}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(fresh, data_dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_alone_and_anew_if_it_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let key = load(directory.path()).unwrap();
        assert_eq!(load(directory.path()).unwrap(), key);
        let path = directory.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert_ne!(load(directory.path()).unwrap(), key);
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_the_sessions_and_no_start() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert_ne!(load(&missing).unwrap(), load(&missing).unwrap());
    }
}
