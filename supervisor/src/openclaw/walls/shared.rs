//! What OpenClaw keeps in /tmp whatever its TMPDIR is, so that all gateways of a user have it in common.
//!
//! | | |
//! |---|---|
//! | `/tmp/openclaw-state-locks-UID` | one gateway for each state directory: opened to all of the user's, as it does its work only in common |
//! | `/tmp/openclaw` | downloads, uploads and browsers' settings, if it is there and fit: opened to none, and made unfit |
//!
//! A directory is unfit to OpenClaw if others may write there; then it makes do with one in its TMPDIR. It mends what
//! it can open, which a gateway behind its walls cannot, nor anybody but root while the owner may not read.

use std::{
    fs::{self, DirBuilder, File, Metadata, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::ffi::OsStrExt,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};

use super::Trees;

use crate::typed::word;

/// Memory that all processes of the host share.
pub(crate) const MEMORY: &str = "/dev/shm";

/// Where locks are; the user's number follows.
const LOCKS: &str = "/tmp/openclaw-state-locks-";

/// What OpenClaw prefers to its TMPDIR.
pub(crate) const TEMPORARY: &str = "/tmp/openclaw";

/// The right that makes it unfit, as long as nobody has more: without passing (`x`) nothing can be written.
const UNFIT: u32 = 0o320;

/// With one of these a directory is unfit.
const OTHERS_WRITE: u32 = 0o022;

/// What the directory of locks has.
pub(crate) const PRIVATE: u32 = 0o700;

/// All rights, of what stat(2) says.
const MODE: u32 = 0o7777;

/// Where OpenClaw keeps locks, whoever runs it.
pub(crate) fn locks(uid: u32) -> PathBuf {
    format!("{LOCKS}{uid}").into()
}

/// Whether `path` lies where all of a user's gateways keep locks.
pub(crate) fn is_in_locks(path: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(LOCKS.as_bytes())
}

/// What is wrong with what is in the place of the locks. Anybody can have put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Squat {
    /// It would lead OpenClaw elsewhere.
    #[error("is a link")]
    Link,
    /// A file, or the like.
    #[error("is no directory")]
    NoDirectory,
    /// Of this one.
    #[error("belongs to user {0}")]
    Foreign(u32),
    /// By this mode.
    #[error("can be written by other users (mode {0:o})")]
    Open(u32),
}

impl Squat {
    /// Of what was found without following links, in the place of this user's locks.
    pub(crate) fn of(found: &Metadata, uid: u32) -> Option<Self> {
        if found.is_symlink() {
            Some(Self::Link)
        } else if !found.is_dir() {
            Some(Self::NoDirectory)
        } else if found.uid() != uid {
            Some(Self::Foreign(found.uid()))
        } else {
            (found.mode() & OTHERS_WRITE != 0).then_some(Self::Open(found.mode() & MODE))
        }
    }

    /// What to type about it.
    pub(crate) fn mend(self, path: &Path) -> String {
        match self {
            Self::Open(_) => format!("chmod {PRIVATE:o} {}", word(path)),
            // /tmp is sticky: only its owner and root can.
            Self::Link | Self::NoDirectory | Self::Foreign(_) => {
                let sudo = if nix::unistd::geteuid().is_root() { "" } else { "sudo " };
                format!("{sudo}rm -r {}", word(path))
            }
        }
    }
}

/// OpenClaw cannot have its locks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to find a place for OpenClaw's locks: `{}` {squat}", path.display())]
pub struct LocksError {
    path: PathBuf,
    squat: Squat,
}

impl LocksError {
    /// What to do about it: a sentence without its full stop.
    pub(crate) fn mend(&self) -> String {
        format!("see what it is, then `{}`", self.squat.mend(&self.path))
    }
}

/// Refuses what keeps this user's OpenClaw from starting, and nobody but root or another user can take away. It would
/// end with the status of a broken configuration, and good ones would be rolled back for it.
pub(crate) fn look(uid: u32) -> Result<(), LocksError> {
    let path = locks(uid);
    // What cannot be looked at is not there, or nobody's doing.
    let squat = fs::symlink_metadata(&path).ok().and_then(|found| Squat::of(&found, uid));
    match squat {
        Some(squat @ (Squat::Link | Squat::NoDirectory | Squat::Foreign(_))) => {
            Err(LocksError { path, squat })
        }
        // It is closed before the start.
        Some(Squat::Open(_)) | None => Ok(()),
    }
}

/// Makes what OpenClaw needs there, and makes unfit what it must not have. Answers what is wrong, in sentences.
pub(crate) fn make(trees: &mut Trees, uid: u32) -> Vec<String> {
    // Trees of what is not OpenClaw have none.
    let Some(at) = trees.write.iter().position(|tree| *tree == locks(uid)) else { return Vec::new() };
    let mut wrong = Vec::new();
    if let Err(error) = make_locks(&trees.write[at], uid) {
        let path = trees.write.remove(at);
        wrong.push(format!("OpenClaw's locks cannot be kept in `{}`: {error}", path.display()));
    }
    if let Err(error) = make_unfit(Path::new(TEMPORARY), uid) {
        wrong.push(format!("`{TEMPORARY}` may be in the way of browsers: {error}"));
    }
    wrong
}

/// Makes the directory of OpenClaw's locks, which it could not make itself, or closes it to others, as OpenClaw does.
/// What is not a directory of this user is opened to nobody.
fn make_locks(path: &Path, uid: u32) -> io::Result<()> {
    match DirBuilder::new().mode(PRIVATE).create(path) {
        Ok(()) if uid != nix::unistd::geteuid().as_raw() => return lchown(path, Some(uid), None),
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = File::from(open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?);
    match Squat::of(&found.metadata()?, uid) {
        None => Ok(()),
        Some(Squat::Open(_)) => set_mode(&found, PRIVATE),
        Some(squat) => Err(io::Error::other(format!("it {squat}"))),
    }
}

/// Whether it is a directory of this user alone, which OpenClaw takes for its own.
pub(crate) fn is_fit(found: &Metadata, uid: u32) -> bool {
    Squat::of(found, uid).is_none()
}

/// Makes `path` unfit for this user's OpenClaw, or makes it so. What somebody runs outside all walls goes on with what
/// it has in there: its owner may do everything in it but look around.
fn make_unfit(path: &Path, uid: u32) -> io::Result<()> {
    let is_new = match DirBuilder::new().mode(UNFIT).create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match open(path, flags, Mode::empty()) {
        Ok(directory) => File::from(directory),
        // It is no directory, and so unfit.
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match is_new || is_fit(&directory.metadata()?, uid) {
        true => set_mode(&directory, UNFIT),
        false => Ok(()),
    }
}

/// Of a file that is open for nothing but its name, which may be another's by now.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_directory_that_openclaw_prefers_is_unfit_whether_it_was_there_or_not() {
        let (world, me) = (tempfile::tempdir().unwrap(), nix::unistd::geteuid().as_raw());
        let (new, old) = (world.path().join("new"), world.path().join("old"));
        fs::create_dir(&old).unwrap();
        fs::write(old.join("openclaw.log"), "kept").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o700)).unwrap();
        assert!(is_fit(&fs::metadata(&old).unwrap(), me));
        for path in [&new, &old] {
            // The second time nothing is left to do.
            for _ in 0..2 {
                make_unfit(path, me).unwrap();
                assert_eq!(mode(path), 0o320);
                assert!(!is_fit(&fs::metadata(path).unwrap(), me));
            }
        }
        // Who has it already goes on with it.
        fs::write(old.join("more.log"), "written").unwrap();
        assert_eq!(fs::read_to_string(old.join("openclaw.log")).unwrap(), "kept");
        for path in [&new, &old] {
            fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn what_is_unfit_already_is_left_as_it_is() {
        let (world, me) = (tempfile::tempdir().unwrap(), nix::unistd::geteuid().as_raw());
        let at = |name: &str| world.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        fs::create_dir(at("theirs")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink(at("elsewhere"), at("link")).unwrap();
        let before = [mode(&at("elsewhere")), mode(&at("file")), mode(&at("theirs"))];
        make_unfit(&at("link"), me).unwrap();
        make_unfit(&at("file"), me).unwrap();
        make_unfit(&at("theirs"), me + 1).unwrap();
        assert_eq!([mode(&at("elsewhere")), mode(&at("file")), mode(&at("theirs"))], before);
    }

    #[test]
    fn locks_that_are_not_this_users_alone_are_refused() {
        let (world, me) = (tempfile::tempdir().unwrap(), nix::unistd::geteuid().as_raw());
        let at = |name: &str| world.path().join(name);
        let squat = |name: &str, uid| Squat::of(&fs::symlink_metadata(at(name)).unwrap(), uid);
        for _ in 0..2 {
            make_locks(&at("locks"), me).unwrap();
        }
        assert_eq!((mode(&at("locks")), squat("locks", me)), (0o700, None));
        fs::create_dir(at("elsewhere")).unwrap();
        fs::set_permissions(at("elsewhere"), Permissions::from_mode(0o777)).unwrap();
        symlink(at("elsewhere"), at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        for (name, uid, what) in [
            ("link", me, Squat::Link),
            ("file", me, Squat::NoDirectory),
            ("locks", me + 1, Squat::Foreign(me)),
        ] {
            assert_eq!(squat(name, uid), Some(what));
            let error = make_locks(&at(name), uid).unwrap_err();
            assert_eq!(error.to_string(), format!("it {what}"));
        }
        assert_eq!(mode(&at("elsewhere")), 0o777, "it was not followed");
        assert_eq!(make(&mut Trees::default(), me), Vec::<String>::new(), "who needs none is made none");
    }

    #[test]
    fn locks_of_this_user_that_others_could_write_are_closed() {
        let (world, me) = (tempfile::tempdir().unwrap(), nix::unistd::geteuid().as_raw());
        let locks = world.path().join("locks");
        make_locks(&locks, me).unwrap();
        fs::write(locks.join("a.lock.sqlite"), "kept").unwrap();
        fs::set_permissions(&locks, Permissions::from_mode(0o1770)).unwrap();
        let found = Squat::of(&fs::metadata(&locks).unwrap(), me).unwrap();
        assert_eq!(found, Squat::Open(0o1770));
        assert_eq!(found.mend(&locks), format!("chmod 700 {}", locks.display()));
        make_locks(&locks, me).unwrap();
        assert_eq!((mode(&locks), locks.join("a.lock.sqlite").exists()), (0o700, true));
    }
}
