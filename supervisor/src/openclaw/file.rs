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

use super::{layout::Layout, owner, place::Place};

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
    let (place, name, _) = Place::of_own(path, layout)?;
    place.file(&name).map_err(|error| match error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        true => refused(),
        false => error,
    })
}

/// Where an instance's own file is: in its own directories at its path, in a profile where the links of its owner lead.
/// `None` if they lead out of its directory, which only an agent would want that is to open nothing there. What leads
/// nowhere is at its path. The links on the way to it are followed once: whoever opens it follows none.
pub(crate) fn own(path: &Path, layout: Layout) -> Option<PathBuf> {
    match layout {
        Layout::Managed => Some(path.to_owned()),
        Layout::Profile => {
            let directory = path.parent().and_then(|directory| directory.canonicalize().ok());
            let (Some(directory), Some(name)) = (directory, path.file_name()) else {
                return Some(path.to_owned());
            };
            match path.canonicalize() {
                Ok(found) => found.starts_with(directory).then_some(found),
                Err(_) => Some(directory.join(name)),
            }
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
    let (place, name, _) = Place::of_own(path, layout)?;
    place.put(&name, content, mode, durability)
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

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    use super::*;

    /// A link that is followed twice is followed to two places by about one in a thousand.
    const LOOKS: usize = 50_000;

    #[test]
    fn a_directory_that_is_swapped_for_a_link_between_two_looks_leads_nowhere() {
        let world = tempfile::tempdir().unwrap();
        let at = |path: &str| world.path().canonicalize().unwrap().join(path);
        for directory in ["profile", "profile/sub", "others"] {
            fs::create_dir(at(directory)).unwrap();
        }
        symlink("sub/secret", at("profile/openclaw.json")).unwrap();
        symlink(at("others"), at("profile/link")).unwrap();
        fs::write(at("profile/sub/secret"), "mine").unwrap();
        fs::write(at("others/secret"), "others").unwrap();
        let (sub, link, done) = (at("profile/sub"), at("profile/link"), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    renameat_with(CWD, &sub, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                }
            });
            let config = at("profile/openclaw.json");
            let mut read = 0;
            for _ in 0..LOOKS {
                let mut text = String::new();
                if let Ok(mut file) = open_own(&config, Layout::Profile) {
                    file.read_to_string(&mut text).unwrap();
                    read += 1;
                }
                if text == "others" {
                    done.store(true, Ordering::Relaxed);
                }
                assert_ne!(text, "others");
            }
            done.store(true, Ordering::Relaxed);
            assert_ne!(read, 0, "it was never a directory");
        });
    }
}
