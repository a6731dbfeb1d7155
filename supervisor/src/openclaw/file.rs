//! Files read without waiting, and replaced as a whole.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};

use super::{layout::Layout, owner};

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

/// The same of an instance's own file. In its own directories no link is followed, and in a profile none that leads out
/// of the file's directory: an agent may have made it, and what is read here is kept where the agent can read it, or
/// sent to its gateway.
pub(crate) fn open_own(path: &Path, layout: Layout) -> io::Result<File> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    let path = own(path, layout).ok_or_else(refused)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP => refused(),
        error => error.into(),
    })?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(refused()),
    }
}

/// Where an instance's own file is: in its own directories at its path, in a profile where the links of its owner lead.
/// `None` if they lead out of its directory, which only an agent would want that is to open nothing there. What leads
/// nowhere is at its path.
pub(crate) fn own(path: &Path, layout: Layout) -> Option<PathBuf> {
    match layout {
        Layout::Managed => Some(path.to_owned()),
        Layout::Profile => {
            let directory = path.parent().and_then(|directory| directory.canonicalize().ok());
            let (Some(directory), Ok(found)) = (directory, path.canonicalize()) else {
                return Some(path.to_owned());
            };
            found.starts_with(directory).then_some(found)
        }
    }
}

/// Replaces `path` so that every reader sees the old content or the new. A link is replaced itself.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
    };
    // One supervisor has the directory, and it starts an instance once at a time: the name is ours, and what
    // has it is a leftover.
    let fresh = directory.join(format!(".{}.new", name.to_string_lossy()));
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

/// The same of an instance's own file: links are followed as far as [`own`] does.
pub(crate) fn replace_own(
    (path, layout): (&Path, Layout),
    content: &[u8],
    mode: u32,
    durability: Durability,
) -> io::Result<()> {
    let leads_out =
        || io::Error::new(io::ErrorKind::InvalidInput, "it is a link that leads out of its directory");
    replace(&own(path, layout).ok_or_else(leads_out)?, content, mode, durability)
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
