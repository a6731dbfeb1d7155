//! A directory held open: whoever plants links in it leads nobody out of it.
//!
//! Agents inside an instance may write wherever the instance's files are. So what the supervisor keeps there is
//! reached from the directory's descriptor, by names without a slash, and never through a link. Where even the directory
//! could be another than it seems, all of it is done with the rights of the user who has it.

use std::{
    fs::{File, Permissions},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
    process,
    time::SystemTime,
};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::{
    fs::{self, AtFlags, Dir, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::{
    openclaw::{file::Durability, owner},
    user::{User, acting_if},
};

/// Of directories that are made.
const PRIVATE: u32 = 0o700;

/// Names of one directory that are looked at; an agent may have filled it.
const MAX_NAMES: usize = 10_000;

/// How files that are being written are called: the supervisor's pid and a number follow, which no agent can know and take.
/// One supervisor has a directory: those of another pid are nobody's any more.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// The directory.
pub(crate) struct Place {
    directory: OwnedFd,
    /// With whose rights everything in it is done, if not with those of this process.
    user: Option<User>,
}

/// A regular file in it.
pub(crate) struct Found {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

/// Whose a directory is, and who may do what in it.
pub(crate) struct Standing {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
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
        Ok(Self::own(fs::open(path, directory(), Mode::empty())?))
    }

    /// Opens a directory that no link leads to.
    pub(crate) fn settled(path: &Path) -> io::Result<Self> {
        Self::settled_for(path, None)
    }

    /// The same with the rights of a user, as all that is done in it then is.
    pub(crate) fn settled_for(path: &Path, user: Option<User>) -> io::Result<Self> {
        let open = || Ok(fs::openat2(fs::CWD, path, directory(), Mode::empty(), ResolveFlags::NO_SYMLINKS)?);
        let directory = acting_if(user.as_ref(), open)?;
        Ok(Self { directory, user })
    }

    /// Of the supervisor's own.
    fn own(directory: OwnedFd) -> Self {
        Self { directory, user: None }
    }

    /// Whose it is.
    pub(crate) fn standing(&self) -> io::Result<Standing> {
        let found = fs::fstat(&self.directory)?;
        Ok(Standing { uid: found.st_uid, gid: found.st_gid, mode: found.st_mode & 0o7777 })
    }

    /// Opens a directory in it.
    pub(crate) fn below(&self, name: &str) -> io::Result<Self> {
        let directory = self.acting(|| Ok(fs::openat(&self.directory, name, directory(), Mode::empty())?))?;
        Ok(Self { directory, user: self.user.clone() })
    }

    /// The same, made if it is missing, and closed to others.
    pub(crate) fn made_below(&self, name: &str) -> io::Result<Self> {
        self.acting(|| match fs::mkdirat(&self.directory, name, Mode::from_raw_mode(PRIVATE)) {
            Ok(()) => Ok(fs::fsync(&self.directory)?),
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        })?;
        let below = self.below(name)?;
        below.acting(|| match fs::fstat(&below.directory)?.st_mode & 0o777 {
            PRIVATE => Ok(()),
            _ => Ok(fs::fchmod(&below.directory, Mode::from_raw_mode(PRIVATE))?),
        })?;
        Ok(below)
    }

    fn acting<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        acting_if(self.user.as_ref(), work)
    }

    /// Opens a regular file in it for reading.
    pub(crate) fn file(&self, name: &str) -> io::Result<File> {
        // A pipe that somebody put there is not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || Ok(File::from(fs::openat(&self.directory, name, flags, Mode::empty())?));
        let file = self.acting(open)?;
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
        let found = self.acting(|| match fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        let Some(found) = found.filter(|found| fs::FileType::from_raw_mode(found.st_mode).is_file()) else {
            return Ok(None);
        };
        let since_1970 = std::time::Duration::from_secs(u64::try_from(found.st_mtime).unwrap_or(0));
        let bytes = u64::try_from(found.st_size).unwrap_or(0);
        Ok(Some(Look { bytes, modified: SystemTime::UNIX_EPOCH + since_1970 }))
    }

    /// Makes or replaces a file, so that every reader sees the old content or the new. What has the name is
    /// replaced even if it is a link. Halves that were left here go with it: whoever was killed in between is started
    /// again, and does it again.
    pub(crate) fn put(
        &self,
        name: &str,
        content: &[u8],
        mode: u32,
        durability: Durability,
    ) -> io::Result<()> {
        let mut number = [0; 8];
        SystemRandom::new()
            .fill(&mut number)
            .map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let fresh = format!("{UNFINISHED}{}-{}", process::id(), u64::from_ne_bytes(number));
        let done = self.acting(|| {
            let written = self
                .write(&fresh, content, mode, durability)
                .and_then(|()| Ok(fs::renameat(&self.directory, &fresh, &self.directory, name)?));
            if written.is_err() {
                // The first error is the one to tell.
                let _ = self.unlink(&fresh);
                return written;
            }
            match durability {
                Durability::Durable => Ok(fs::fsync(&self.directory)?),
                Durability::Quick => Ok(()),
            }
        });
        // It is written, whatever else lies around; what stays is told of by the doctor.
        let _ = self.tidy();
        done
    }

    fn write(&self, name: &str, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.directory, name, flags, Mode::from_raw_mode(mode))?);
        // What is made with a user's rights is his.
        if self.user.is_none() {
            owner::as_around(&file, &File::from(self.directory.try_clone()?).metadata()?)?;
        }
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
        let (at, free) = (&self.directory, fs::RenameFlags::NOREPLACE);
        self.acting(|| Ok(fs::renameat_with(at, from, at, to, free)?))
    }

    /// Removes a file if it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.acting(|| self.unlink(name))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        match fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What is in it, in no order. Names that are not text are none of ours.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        // What has been opened for reading may be read.
        for entry in Dir::read_from(&self.directory)?.take(MAX_NAMES) {
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Removes what supervisors before this one left half written. One that had the same pid is not told from this one.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        let mine = format!("{UNFINISHED}{}-", process::id());
        let names = self.names()?;
        let left = names.iter().filter(|name| name.starts_with(UNFINISHED) && !name.starts_with(&mine));
        // Each is tried: an agent may have put a directory among them.
        left.map(|name| self.remove(name)).fold(Ok(()), Result::and)
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_supervisor_left_half_written_goes_with_the_next_write() {
        let world = tempfile::tempdir().unwrap();
        let at = |name: &str| world.path().join(name);
        let mine = format!("{UNFINISHED}{}-{}", process::id(), u64::MAX);
        for name in [&format!("{UNFINISHED}1-0"), &mine, ".unfinished", "openclaw.json"] {
            std::fs::write(at(name), "TOKEN=1").unwrap();
        }
        // No agent keeps a write from being done.
        std::fs::create_dir(at(&format!("{UNFINISHED}directory"))).unwrap();
        for number in 0..1_000 {
            std::fs::create_dir(at(&format!("{UNFINISHED}{}-{number}", process::id()))).unwrap();
        }
        let place = Place::open(world.path()).unwrap();
        place.put("openclaw.json", b"{}", 0o600, Durability::Durable).unwrap();
        let mut left = place.names().unwrap();
        let of_agent = |name: &str| at(name).is_dir() && name.contains(&format!("-{}-", process::id()));
        left.retain(|name| ![".", ".."].contains(&name.as_str()) && !of_agent(name));
        left.sort();
        let mut expected = [".unfinished", &mine, &format!("{UNFINISHED}directory"), "openclaw.json"];
        expected.sort_unstable();
        assert_eq!(left, expected, "what is being written, or is none, stays");
        assert_eq!(std::fs::read_to_string(at("openclaw.json")).unwrap(), "{}");
    }
}
