//! The directory of the log: written by the worker, and by whatever runs in the instance.
//!
//! The worker is outside the gateway's walls, and may be root where the gateway is nobody. A link that an agent puts
//! into this directory must not lead it anywhere: the directory is opened once, no link is followed to it or in it,
//! a file is written to only if the worker has just made it or it is the worker's alone, and the names that are
//! removed or replaced are those of this directory.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, mkdirat, openat, readlinkat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

/// What the log needs of each of its files. A pipe in the place of one is not waited for.
const FLAGS: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The log is nobody else's.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// Opens `path`, made if it is not there. What leads to it is the supervisor's and may hold links; the directory
    /// itself may be none.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Self(openat(CWD, path, flags, Mode::empty())?));
        };
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let parent = openat(CWD, parent, flags - OFlags::NOFOLLOW, Mode::empty())?;
        match mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        match openat(&parent, name, flags, Mode::empty()) {
            Ok(directory) => Ok(Self(directory)),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(io::Error::other("it is a link, or no directory")),
            Err(error) => Err(error.into()),
        }
    }

    /// Calls `take` with every name in it.
    pub(crate) fn each(&self, mut take: impl FnMut(&OsStr)) -> io::Result<()> {
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            take(OsStr::from_bytes(entry.file_name().to_bytes()));
        }
        Ok(())
    }

    /// Makes a file.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        Ok(File::from(openat(&self.0, name, FLAGS | OFlags::CREATE | OFlags::EXCL, PRIVATE)?))
    }

    /// Opens a file that this worker or one before it has made. `None` if there is something else by its name, or it
    /// has another name elsewhere.
    pub(crate) fn reopen(&self, name: &str) -> io::Result<Option<File>> {
        let file = match openat(&self.0, name, FLAGS, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR | Errno::ACCESS) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = file.metadata()?;
        let ours = found.is_file() && found.nlink() == 1 && found.uid() == geteuid().as_raw();
        Ok(ours.then_some(file))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes `link` a link to `target`, by way of `fresh`.
    pub(crate) fn point(&self, link: &str, target: &str, fresh: &str) -> io::Result<()> {
        if readlinkat(&self.0, link, Vec::new()).is_ok_and(|old| old.as_bytes() == target.as_bytes()) {
            return Ok(());
        }
        self.remove(fresh)?;
        symlinkat(target, &self.0, fresh)?;
        Ok(renameat(&self.0, fresh, &self.0, link)?)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_is_made_and_a_link_in_its_place_is_not_followed() {
        let world = tempfile::tempdir().unwrap();
        let path = world.path().join("deep/logs");
        Directory::open(&path).unwrap().create("made").unwrap();
        assert!(path.join("made").exists());
        fs::rename(&path, world.path().join("elsewhere")).unwrap();
        symlink(world.path().join("elsewhere"), &path).unwrap();
        assert!(Directory::open(&path).unwrap_err().to_string().contains("a link"));
    }

    #[test]
    fn only_what_is_ours_alone_is_written_to_again() {
        let world = tempfile::tempdir().unwrap();
        let directory = Directory::open(world.path()).unwrap();
        let treasure = world.path().join("treasure");
        fs::write(&treasure, "gold").unwrap();
        symlink(&treasure, world.path().join("link")).unwrap();
        fs::hard_link(&treasure, world.path().join("other-name")).unwrap();
        fs::create_dir(world.path().join("directory")).unwrap();
        rustix::fs::mkfifoat(&directory.0, "pipe", PRIVATE).unwrap();
        for planted in ["link", "other-name", "directory", "pipe"] {
            assert!(directory.reopen(planted).unwrap().is_none(), "{planted}");
            assert_eq!(directory.create(planted).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        drop(directory.create("ours").unwrap());
        assert!(directory.reopen("ours").unwrap().is_some());
        assert_eq!(directory.reopen("none").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let world = tempfile::tempdir().unwrap();
        let directory = Directory::open(world.path()).unwrap();
        let treasure = world.path().join("treasure");
        fs::write(&treasure, "gold").unwrap();
        symlink(&treasure, world.path().join("current")).unwrap();
        symlink(&treasure, world.path().join(".fresh")).unwrap();
        directory.point("current", "file", ".fresh").unwrap();
        assert_eq!(fs::read_link(world.path().join("current")).unwrap(), Path::new("file"));
        directory.remove("current").unwrap();
        directory.remove("current").unwrap();
        assert_eq!(fs::read_to_string(treasure).unwrap(), "gold");
    }
}
