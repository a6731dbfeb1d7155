//! Whose files are, where a supervisor that runs as root has instances of other users.
//!
//! An agent has written where this goes as root: nothing is reached but through the descriptor of its directory, and
//! no link is followed.

use std::{
    fs::{File, Metadata},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, fchown},
    },
    path::Path,
};

use rustix::fs::{self, AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

use crate::user::User;

/// Directories in directories: each holds a descriptor. What is deeper stays as it is.
const DEPTH: u32 = 128;

/// Who has a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    gid: u32,
}

impl Owner {
    /// The user of this process.
    pub(super) fn me() -> Self {
        Self { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    pub(super) fn of(user: &User) -> Self {
        Self { uid: user.uid, gid: user.gid }
    }

    pub(super) fn is_root(self) -> bool {
        self.uid == 0
    }
}

/// Gives a new file to whoever has its directory: what root writes for an instance is the instance's.
pub(super) fn as_around(file: &File, directory: &Metadata) -> io::Result<()> {
    match Owner::me().is_root() && directory.uid() != 0 {
        true => fchown(file, Some(directory.uid()), Some(directory.gid())),
        false => Ok(()),
    }
}

/// Gives a directory and all that `from` has in it to `to`. Other file systems that are mounted in it stay as they are,
/// and so do files with more names than one: the other may be that of somebody's file elsewhere.
pub(super) fn hand_over(path: &Path, from: u32, to: Owner) -> io::Result<()> {
    let top = fs::open(path, directory_flags(), Mode::empty())?;
    let device = fs::fstat(&top)?.st_dev;
    Handover { from, to, device }.directory(&top, DEPTH)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

struct Handover {
    from: u32,
    to: Owner,
    device: u64,
}

impl Handover {
    fn directory(&self, directory: &OwnedFd, depth: u32) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let found = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if found.st_dev != self.device {
                continue;
            }
            if FileType::from_raw_mode(found.st_mode).is_dir() {
                if let Some(depth) = depth.checked_sub(1) {
                    let below = fs::openat(directory, name, directory_flags(), Mode::empty())?;
                    self.directory(&below, depth)?;
                }
            } else if self.is_handed(&found) {
                let (uid, gid) = self.numbers();
                fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        if fs::fstat(directory)?.st_uid == self.from {
            let (uid, gid) = self.numbers();
            fs::fchown(directory.as_fd(), uid, gid)?;
        }
        Ok(())
    }

    fn is_handed(&self, found: &Stat) -> bool {
        found.st_uid == self.from && found.st_nlink == 1
    }

    fn numbers(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.to.uid)), Some(Gid::from_raw(self.to.gid)))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs as std_fs,
        os::unix::fs::{lchown, symlink},
    };

    use super::*;

    const OTHER: Owner = Owner { uid: 54_321, gid: 54_321 };

    #[test]
    fn what_is_handed_over_is_the_tree_and_nothing_that_is_linked_in_it() {
        if !Owner::me().is_root() {
            return;
        }
        let world = tempfile::tempdir().unwrap();
        let at = |path: &str| world.path().join(path);
        std_fs::create_dir_all(at("tree/deep")).unwrap();
        std_fs::write(at("tree/deep/mine"), "").unwrap();
        std_fs::write(at("outside"), "").unwrap();
        std_fs::create_dir(at("elsewhere")).unwrap();
        symlink(at("outside"), at("tree/link")).unwrap();
        symlink(at("elsewhere"), at("tree/directory")).unwrap();
        std_fs::hard_link(at("outside"), at("tree/name")).unwrap();
        std_fs::write(at("tree/theirs"), "").unwrap();
        lchown(at("tree/theirs"), Some(1), Some(1)).unwrap();
        hand_over(&at("tree"), 0, OTHER).unwrap();
        let owner = |path: &str| std_fs::symlink_metadata(at(path)).unwrap().uid();
        for path in ["tree", "tree/deep", "tree/deep/mine", "tree/link", "tree/directory"] {
            assert_eq!(owner(path), OTHER.uid, "{path}");
        }
        assert_eq!((owner("outside"), owner("elsewhere"), owner("tree/theirs")), (0, 0, 1));
    }

    #[test]
    fn what_root_writes_belongs_to_whoever_has_the_directory() {
        if !Owner::me().is_root() {
            return;
        }
        let world = tempfile::tempdir().unwrap();
        lchown(world.path(), Some(OTHER.uid), Some(OTHER.gid)).unwrap();
        let path = world.path().join("openclaw.json");
        super::super::file::replace(&path, b"{}", 0o600, super::super::file::Durability::Quick).unwrap();
        let place = super::super::place::Place::open(world.path()).unwrap();
        place.put("other.json", b"{}", 0o600, super::super::file::Durability::Quick).unwrap();
        for name in ["openclaw.json", "other.json"] {
            let found = std_fs::metadata(world.path().join(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (OTHER.uid, OTHER.gid), "{name}");
        }
    }
}
