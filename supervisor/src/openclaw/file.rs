//! Files read without waiting, and replaced as a whole.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, open};

use super::owner;

/// What a power cut may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The old content or the new one is there afterwards, never anything else.
    Durable,
    /// An empty file may be there afterwards; whoever reads it must bear that.
    Quick,
}

/// Opens a regular file for reading, links followed. A pipe that somebody put in its place is refused, not waited
/// for: who waits for it waits for ever.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// What `path` is called while it is being replaced.
pub(crate) fn half(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Replaces `path` so that every reader sees the old content or the new. A link is replaced itself.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (Some(directory), Some(_)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
    };
    // One supervisor has the directory, and it starts an instance once at a time: the name is ours, and what
    // has it is a leftover.
    let fresh = half(path);
    let written = write(&fresh, content, mode, durability).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&fresh);
        return written;
    }
    match durability {
        Durability::Durable => File::open(directory)?.sync_all(),
        Durability::Quick => Ok(()),
    }
}

fn write(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    owner::as_around(&file, &fs::metadata(path.parent().unwrap_or(path))?)?;
    // The umask may have taken bits away.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    match durability {
        Durability::Durable => file.sync_all(),
        Durability::Quick => Ok(()),
    }
}
