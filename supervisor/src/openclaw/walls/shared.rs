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
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};

use super::Trees;

/// Where locks are; the user's number follows.
const LOCKS: &str = "/tmp/openclaw-state-locks-";

/// What OpenClaw prefers to its TMPDIR.
pub(crate) const TEMPORARY: &str = "/tmp/openclaw";

/// The right that makes it unfit, as long as nobody has more: without passing (`x`) nothing can be written.
const UNFIT: u32 = 0o320;

/// With one of these a directory is unfit.
const OTHERS_WRITE: u32 = 0o022;

/// Where OpenClaw keeps locks, whoever runs it.
pub(super) fn locks(uid: u32) -> PathBuf {
    format!("{LOCKS}{uid}").into()
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

/// Makes the directory of OpenClaw's locks, which it could not make itself. Anybody can have made something there
/// before: what is not a directory of this user alone is opened to nobody.
fn make_locks(path: &Path, uid: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) if uid != nix::unistd::geteuid().as_raw() => lchown(path, Some(uid), None),
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match is_fit(&fs::symlink_metadata(path)?, uid) {
                true => Ok(()),
                false => Err(io::Error::other("it is not a directory of this user alone")),
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether it is a directory of this user alone, which OpenClaw takes for its own.
pub(crate) fn is_fit(found: &Metadata, uid: u32) -> bool {
    found.is_dir() && found.uid() == uid && found.mode() & OTHERS_WRITE == 0
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
        for _ in 0..2 {
            make_locks(&at("locks"), me).unwrap();
        }
        assert_eq!(mode(&at("locks")), 0o700);
        fs::set_permissions(at("locks"), Permissions::from_mode(0o770)).unwrap();
        make_locks(&at("locks"), me).unwrap_err();
        fs::create_dir(at("elsewhere")).unwrap();
        symlink(at("elsewhere"), at("link")).unwrap();
        make_locks(&at("link"), me).unwrap_err();
        assert_eq!(make(&mut Trees::default(), me), Vec::<String>::new(), "who needs none is made none");
    }
}
