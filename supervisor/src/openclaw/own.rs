//! An instance's own file, where an agent may have planted links on the way to it.
//!
//! In its own directories no link is followed. In a profile those of its owner are, as far as the file's directory, for
//! people keep their configurations in other places; what leads out of it is refused, as an agent may have made it. The
//! links are followed once, and whoever opens what they led to follows none.
//!
//! A profile lies where its user's other processes may move it, and where root follows them they could lead it anywhere.
//! So what root does there, it does with that user's rights.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{file::Durability, layout::Layout, place::Place};
use crate::{
    spec::UserName,
    user::{self, User, acting_if},
};

/// A file.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Where its instance has it.
    pub path: &'a Path,
    /// What it may be reached by.
    pub layout: Layout,
    /// Whose processes the instance's are, if not the supervisor's user's.
    pub user: Option<&'a UserName>,
}

impl<'a> Own<'a> {
    /// A configuration that is no instance's yet.
    #[must_use]
    pub fn nobodys(path: &'a Path) -> Self {
        Self { path, layout: Layout::Profile, user: None }
    }
}

impl Own<'_> {
    /// Opens it for reading. A pipe that somebody put in its place is refused, not waited for.
    pub(crate) fn open(&self) -> io::Result<File> {
        let refused = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        let (place, name, _) = self.directory()?;
        place.file(&name).map_err(|error| match error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
            true => refused(),
            false => error,
        })
    }

    /// Replaces it, so that every reader sees the old content or the new.
    pub(crate) fn replace(&self, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
        let (place, name, _) = self.directory()?;
        place.put(&name, content, mode, durability)
    }

    /// Where it is: at its path, or where links lead. `None` if they lead out of its directory. What leads nowhere is at
    /// its path.
    pub(crate) fn found(&self) -> io::Result<Option<PathBuf>> {
        acting_if(self.acting()?.as_ref(), || Ok(self.followed()))
    }

    /// Opens its directory, and says what it is called there and where that is.
    pub(crate) fn directory(&self) -> io::Result<(Place, String, PathBuf)> {
        let user = self.acting()?;
        let found = acting_if(user.as_ref(), || Ok(self.followed()))?;
        self.around(found.ok_or_else(leads_out)?, user)
    }

    /// The same of what is at its path, even if that is a link.
    pub(crate) fn directory_of_link(&self) -> io::Result<(Place, String, PathBuf)> {
        let (user, directory) = (self.acting()?, self.path.parent().unwrap_or(self.path));
        let directory = match self.layout {
            Layout::Managed => directory.to_owned(),
            Layout::Profile => acting_if(user.as_ref(), || directory.canonicalize())?,
        };
        self.around(directory.join(self.path.file_name().unwrap_or_default()), user)
    }

    /// The directory of what is at its path, if that is a link that leads out, and its own otherwise.
    pub(crate) fn directory_or_link(&self) -> io::Result<(Place, String, PathBuf)> {
        match self.found()? {
            Some(_) => self.directory(),
            None => self.directory_of_link(),
        }
    }

    /// With whose rights it is worked on, if not with those of this process.
    fn acting(&self) -> io::Result<Option<User>> {
        match self.layout {
            Layout::Managed => Ok(None),
            Layout::Profile => user::of(self.user).map_err(io::Error::other),
        }
    }

    fn followed(&self) -> Option<PathBuf> {
        let path = self.path;
        match self.layout {
            Layout::Managed => Some(path.to_owned()),
            Layout::Profile => {
                let directory = path.parent().and_then(|directory| directory.canonicalize().ok());
                let (Some(directory), Some(name)) = (directory, path.file_name()) else {
                    return Some(path.to_owned());
                };
                let at = directory.join(name);
                match at.canonicalize() {
                    Ok(found) => found.starts_with(directory).then_some(found),
                    Err(_) => Some(at),
                }
            }
        }
    }

    fn around(&self, file: PathBuf, user: Option<User>) -> io::Result<(Place, String, PathBuf)> {
        let (Some(directory), Some(name)) = (file.parent(), file.file_name().and_then(OsStr::to_str)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
        };
        let place = match self.layout {
            Layout::Managed => Place::open(directory),
            Layout::Profile => Place::settled_for(directory, user),
        };
        let is_link = |error: &io::Error| {
            [Errno::LOOP, Errno::NOTDIR]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        };
        let place = place.map_err(|error| if is_link(&error) { leads_out() } else { error })?;
        Ok((place, name.to_owned(), file))
    }
}

fn leads_out() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is a link that leads out of its directory")
}

#[cfg(test)]
mod tests;
