//! An instance's files, looked at by somebody who may do more than its agent.
//!
//! An agent can put a link in the place of any directory that it writes to, at any time. So nothing of an instance is
//! listed, read or changed by way of a link. What lies above its directories is the host's: links there are followed
//! once, before anything is looked at.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat2, unlinkat};

use super::{
    fix::Seen,
    scene::{Budget, Patient, Scene, bounded},
};
use crate::{
    custody,
    openclaw::layout::{Directories, Layout, resolve},
};

/// Where the directories of `patient` are, links of the host followed.
pub(super) fn directories(scene: &Scene, patient: &Patient) -> Directories {
    let own = &patient.directories;
    let made = Directories::at(&resolve(scene.data_dir()), &patient.name, None);
    match own.layout {
        Layout::Managed => made,
        // By the way on which there is no link. Where one leads there now, nothing is looked at.
        Layout::Profile => {
            let Directories { state, config, workspace, layout, user, .. } = own.clone();
            Directories { state, config, workspace, layout, user, ..made }
        }
    }
}

/// `path`, links of the directory that it is in followed.
pub(super) fn above(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) => resolve(directory).join(name),
        (None, _) | (_, None) => path.to_owned(),
    }
}

/// What is there; a link is itself.
pub(super) fn look(path: &Path) -> Option<Metadata> {
    custody::hold(path).and_then(|held| held.metadata()).ok()
}

/// A small text file.
pub(super) fn text(path: &Path) -> Option<String> {
    bounded(File::from(open(path, OFlags::NONBLOCK).ok()?))
}

/// Removes a file that is still what was seen.
pub(super) fn remove(path: &Path, seen: Seen) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = open(directory, OFlags::DIRECTORY)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = File::from(rustix::fs::openat(&directory, name, flags, Mode::empty())?);
    if Seen::of(&found.metadata()?) != seen {
        return Err(io::Error::other("it has changed meanwhile"));
    }
    Ok(unlinkat(&directory, name, AtFlags::empty())?)
}

fn open(path: &Path, more: OFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

impl Budget {
    /// The entries of an instance's directory, in the order of their names, as far as they can be looked at.
    pub(super) fn inside(&self, directory: &Path) -> Vec<PathBuf> {
        let Ok(entries) = open(directory, OFlags::DIRECTORY).and_then(Dir::new) else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name().to_bytes().to_owned());
        let names = names.filter(|name| name != b"." && name != b"..").take_while(|_| self.take());
        let mut paths: Vec<PathBuf> =
            names.map(|name| directory.join(std::ffi::OsStr::from_bytes(&name))).collect();
        paths.sort_unstable();
        paths
    }

    /// The files in an instance's directory and below it, `depth` directories deep.
    pub(super) fn files(&self, directory: &Path, depth: u32) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for path in self.inside(directory) {
            match look(&path) {
                Some(found) if found.is_dir() && depth > 0 => files.extend(self.files(&path, depth - 1)),
                Some(found) if found.is_file() => files.push(path),
                Some(_) | None => {}
            }
        }
        files
    }
}
