//! Disks of a test's own: one that is soon full, and one that cannot be written.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::support::Host;

/// Room for a store, and the logs and files of a few gateways.
const ROOM: &str = "size=8m,mode=700";

/// Written at a time when a disk is filled.
const CHUNK: usize = 4096;

/// A supervisor on a disk of its own.
pub(crate) struct Small {
    // Dropped first: its processes use the disk.
    pub(crate) host: Host,
    _mount: Mount,
}

struct Mount {
    at: PathBuf,
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        if let Some(directory) = self.at.parent() {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

impl Small {
    /// A host whose data directory is a small tmpfs. `None` where this process may not mount.
    pub(crate) fn prepare() -> Option<Self> {
        let host = Host::prepare();
        let settings = fs::read(host.data_dir().join("settings.yaml")).unwrap();
        let at = host.data_dir();
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(ROOM)).ok()?;
        fs::write(at.join("settings.yaml"), settings).unwrap();
        Some(Self { host, _mount: Mount { at } })
    }

    /// Takes all room there is.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        // Whole pages first, for a tmpfs has no smaller ones.
        while filler.write_all(&[0; CHUNK]).is_ok() {}
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.host.data_dir().join("filler")
    }
}

/// A directory that cannot be written as long as this lives.
pub(crate) struct ReadOnly(PathBuf);

impl ReadOnly {
    /// `None` where this process may not mount. What is open already can still be written.
    pub(crate) fn make(directory: &Path) -> Option<Self> {
        let nothing = None::<&str>;
        mount(Some(directory), directory, nothing, MsFlags::MS_BIND, nothing).ok()?;
        let made = Self(directory.to_owned());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(nothing, directory, nothing, flags, nothing).unwrap();
        Some(made)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
