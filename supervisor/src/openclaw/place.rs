//! A directory held open: whoever plants links in it leads nobody out of it.
//!
//! Agents inside an instance may write wherever the instance's files are. So what the supervisor keeps there is
//! reached from the directory's descriptor, by names without a slash, and never through a link.

use std::{
    ffi::OsStr,
    fs::{File, Permissions},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use rustix::{
    fs::{self, AtFlags, Dir, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::openclaw::{
    file::{Durability, own},
    layout::Layout,
    owner,
};

/// Of directories that are made.
const PRIVATE: u32 = 0o700;

/// Names of one directory that are looked at; an agent may have filled it.
const MAX_NAMES: usize = 10_000;

/// How files that are being written are called: the supervisor's pid and a number follow.
const UNFINISHED: &str = ".unfinished-";

/// Tells files apart that are being written at the same time.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// The directory.
pub(crate) struct Place(OwnedFd);

/// A regular file in it.
pub(crate) struct Found {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

/// What is known of a file without reading it.
pub(crate) struct Look {
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

impl Place {
    /// Opens a directory that is not a link itself.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::open(path, directory(), Mode::empty())?))
    }

    /// Opens a directory that no link leads to.
    pub(crate) fn settled(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::openat2(fs::CWD, path, directory(), Mode::empty(), ResolveFlags::NO_SYMLINKS)?))
    }

    /// Opens the directory of an instance's own file, and says what the file is called there and where that is. Links are
    /// followed as far as [`own`] does; one that is put there meanwhile leads nowhere.
    pub(crate) fn of_own(path: &Path, layout: Layout) -> io::Result<(Self, String, PathBuf)> {
        let leads_out =
            || io::Error::new(io::ErrorKind::InvalidInput, "it is a link that leads out of its directory");
        let file = own(path, layout).ok_or_else(leads_out)?;
        let (directory, name) = (file.parent(), file.file_name().and_then(OsStr::to_str));
        let (Some(directory), Some(name)) = (directory, name) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
        };
        let place = match layout {
            Layout::Managed => Self::open(directory),
            Layout::Profile => Self::settled(directory),
        };
        let is_link = |error: &io::Error| {
            [Errno::LOOP, Errno::NOTDIR]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        };
        let place = place.map_err(|error| if is_link(&error) { leads_out() } else { error })?;
        Ok((place, name.to_owned(), file))
    }

    /// Opens a directory in it.
    pub(crate) fn below(&self, name: &str) -> io::Result<Self> {
        Ok(Self(fs::openat(&self.0, name, directory(), Mode::empty())?))
    }

    /// The same, made if it is missing, and closed to others.
    pub(crate) fn made_below(&self, name: &str) -> io::Result<Self> {
        match fs::mkdirat(&self.0, name, Mode::from_raw_mode(PRIVATE)) {
            Ok(()) => fs::fsync(&self.0)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let below = self.below(name)?;
        if fs::fstat(&below.0)?.st_mode & 0o777 != PRIVATE {
            fs::fchmod(&below.0, Mode::from_raw_mode(PRIVATE))?;
        }
        Ok(below)
    }

    /// Opens a regular file in it for reading.
    pub(crate) fn file(&self, name: &str) -> io::Result<File> {
        // A pipe that somebody put there is not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&self.0, name, flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// A file's content, of at most `max` bytes; `None` if there is no such file.
    pub(crate) fn read(&self, name: &str, max: u64) -> io::Result<Option<Found>> {
        let file = match self.file(name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let about = file.metadata()?;
        let mut content = Vec::new();
        file.take(max + 1).read_to_end(&mut content)?;
        if content.len() as u64 > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(Found { content, mode: about.mode() & 0o777 }))
    }

    /// A look at a regular file; `None` if there is no such file.
    pub(crate) fn look(&self, name: &str) -> io::Result<Option<Look>> {
        let found = match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !fs::FileType::from_raw_mode(found.st_mode).is_file() {
            return Ok(None);
        }
        let since_1970 = std::time::Duration::from_secs(u64::try_from(found.st_mtime).unwrap_or(0));
        let bytes = u64::try_from(found.st_size).unwrap_or(0);
        Ok(Some(Look { bytes, modified: SystemTime::UNIX_EPOCH + since_1970 }))
    }

    /// Makes or replaces a file, so that every reader sees the old content or the new. What has the name is
    /// replaced even if it is a link.
    pub(crate) fn put(
        &self,
        name: &str,
        content: &[u8],
        mode: u32,
        durability: Durability,
    ) -> io::Result<()> {
        let number = WRITES.fetch_add(1, Ordering::Relaxed);
        let fresh = format!("{UNFINISHED}{}-{number}", process::id());
        let written = self
            .write(&fresh, content, mode, durability)
            .and_then(|()| Ok(fs::renameat(&self.0, &fresh, &self.0, name)?));
        if written.is_err() {
            // The first error is the one to tell.
            let _ = self.remove(&fresh);
            return written;
        }
        match durability {
            Durability::Durable => Ok(fs::fsync(&self.0)?),
            Durability::Quick => Ok(()),
        }
    }

    fn write(&self, name: &str, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
        // A leftover of an earlier process that had the same pid.
        self.remove(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.0, name, flags, Mode::from_raw_mode(mode))?);
        owner::as_around(&file, &File::from(self.0.try_clone()?).metadata()?)?;
        // The umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        match durability {
            Durability::Durable => file.sync_all(),
            Durability::Quick => Ok(()),
        }
    }

    /// Gives a file another name, which must be free.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat_with(&self.0, from, &self.0, to, fs::RenameFlags::NOREPLACE)?)
    }

    /// Removes a file if it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What is in it, in no order. Names that are not text are none of ours.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)?.take(MAX_NAMES) {
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Removes what supervisors before this one left half written.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        let mine = format!("{UNFINISHED}{}-", process::id());
        let names = self.names()?;
        names
            .iter()
            .filter(|name| name.starts_with(UNFINISHED) && !name.starts_with(&mine))
            .try_for_each(|name| self.remove(name))
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}
