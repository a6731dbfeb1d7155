//! Trees that agents have written: measured, copied and removed. And those that they run, opened to them.
//!
//! Whatever is planted in one, or moved meanwhile, nothing outside is reached: each name is looked up in the descriptor
//! of its directory, and no link is followed. Nor does its shape do harm: what recurses does so a bounded number of
//! levels, as directories in one another, a hundred thousand of them, end a thread's stack and the supervisor with it.

use std::{
    collections::BTreeMap,
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        self, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, SeekFrom, Stat,
        Timespec, Timestamps, Uid,
    },
    io::Errno,
};

use super::owner::Owner;

/// Directories in directories that are copied: each holds a descriptor.
const DEPTH: u32 = 128;

/// Files of one tree that are copied. Years of sessions have tens of thousands.
const MOST_FILES: u64 = 1_000_000;

/// Files with several names of which each is one file in a copy as well, and counted once. Of more every name is a file.
const MOST_LINKED: usize = 100_000;

/// How often what was moved up is gone through, [`DEPTH`] levels each time.
const MOST_PASSES: u32 = 100_000;

/// So often a directory that somebody writes to is emptied.
const TRIES: u32 = 100;

/// What is copied of a mode. Programs that run as whoever has them are no state, and a copy of one may be root's.
const MODE: u32 = 0o777;

/// What is left of a mode where others may look: whoever owns it may do what he could, and nobody else may write.
const SHARED: u32 = 0o755;

/// For the owner alone.
const PRIVATE: Mode = Mode::RWXU;

/// The least that a file takes on a disk.
const BLOCK: u64 = 4096;

/// In what a file's blocks are counted (stat(3type)).
const SECTOR: u64 = 512;

/// Counts what takes place on the disk of what is in `tree` under `wanted` names.
pub(crate) fn measure(tree: &Path, wanted: &dyn Fn(&CStr) -> bool) -> io::Result<u64> {
    let (mut files, mut bytes, mut linked) = (0, 0, Linked::default());
    measure_in(&open(tree)?, DEPTH, wanted, &mut |about| {
        count(&mut files)?;
        if linked.find(about).is_some() {
            return Ok(());
        }
        linked.keep(about, ());
        bytes += u64::try_from(about.st_blocks).unwrap_or(0).saturating_mul(SECTOR).max(BLOCK);
        Ok(())
    })?;
    Ok(bytes)
}

fn measure_in(
    directory: &OwnedFd,
    depth: u32,
    wanted: &dyn Fn(&CStr) -> bool,
    each: &mut dyn FnMut(&Stat) -> io::Result<()>,
) -> io::Result<()> {
    for_each(directory, |name, about| {
        if !wanted(name) {
            return Ok(());
        }
        each(about)?;
        match kind(about).is_dir() {
            true => measure_in(&below(directory, name)?, deeper(depth)?, &|_| true, each),
            false => Ok(()),
        }
    })
}

/// Copies what is in `from` under `wanted` names to the directory `to`, which is made. For root, owners stay what they
/// are. Sockets and pipes are left out: they are nothing without the process that made them.
pub(crate) fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&CStr) -> bool) -> io::Result<()> {
    let from = open(from)?;
    let (above, name) = entry(to)?;
    fs::mkdirat(&above, name, PRIVATE)?;
    let to = fs::openat(&above, name, DIRECTORY, Mode::empty())?;
    let (is_root, linked) = (Owner::me().is_root(), Linked::default());
    Copying { files: 0, is_root, top: &to, linked }.directory((&from, &to), Path::new(""), DEPTH, wanted)
}

/// What is known of files that have several names, as those that package managers install do.
struct Linked<T>(BTreeMap<(u64, u64), T>);

impl<T> Default for Linked<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Linked<T> {
    fn find(&self, about: &Stat) -> Option<&T> {
        self.0.get(&(about.st_dev, about.st_ino))
    }

    fn keep(&mut self, about: &Stat, what: T) {
        if kind(about).is_file() && about.st_nlink > 1 && self.0.len() < MOST_LINKED {
            self.0.insert((about.st_dev, about.st_ino), what);
        }
    }
}

/// On the way.
struct Copying<'a> {
    files: u64,
    is_root: bool,
    /// Of the copy.
    top: &'a OwnedFd,
    /// Where each was copied to.
    linked: Linked<PathBuf>,
}

impl Copying<'_> {
    fn directory(
        &mut self,
        (from, to): (&OwnedFd, &OwnedFd),
        path: &Path,
        depth: u32,
        wanted: &dyn Fn(&CStr) -> bool,
    ) -> io::Result<()> {
        for_each(from, |name, about| {
            if !wanted(name) {
                return Ok(());
            }
            count(&mut self.files)?;
            match kind(about) {
                FileType::Directory => {
                    fs::mkdirat(to, name, PRIVATE)?;
                    let both = (&below(from, name)?, &below(to, name)?);
                    self.directory(both, &path.join(named(name)), deeper(depth)?, &|_| true)
                }
                FileType::Symlink => {
                    fs::symlinkat(&*fs::readlinkat(from, name, Vec::new())?, to, name)?;
                    let (uid, gid) = owner(about);
                    match self.is_root {
                        true => Ok(fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?),
                        false => Ok(()),
                    }
                }
                FileType::RegularFile => {
                    // What cannot be one file, as it has too many names already, is two.
                    if self.linked.find(about).is_some_and(|first| self.link(first, (to, name)).is_ok()) {
                        return Ok(());
                    }
                    let source = fs::openat(from, name, READ, Mode::empty())?;
                    let target = fs::openat(to, name, FRESH, Mode::RUSR | Mode::WUSR)?;
                    self.linked.keep(about, path.join(named(name)));
                    self.content(source.into(), target.into())
                }
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => Ok(()),
            }
        })?;
        // Only now: what is made in a directory changes its time.
        self.like(to, &fs::fstat(from)?)
    }

    /// Gives the file that was copied to `first` another name.
    fn link(&self, first: &Path, (to, name): (&OwnedFd, &CStr)) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let way = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let first = fs::openat2(self.top, first, flags, Mode::empty(), way)?;
        Ok(fs::linkat(CWD, path_of(&first), to, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn content(&self, mut source: File, mut target: File) -> io::Result<()> {
        let about = fs::fstat(&source)?;
        if !kind(&about).is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        copy_data(&mut source, &mut target)?;
        let size = u64::try_from(about.st_size).unwrap_or(0);
        if target.metadata()?.len() < size {
            target.set_len(size)?;
        }
        self.like(&target, &about)
    }

    fn like(&self, copy: &impl AsFd, about: &Stat) -> io::Result<()> {
        if self.is_root {
            let (uid, gid) = owner(about);
            fs::fchown(copy, uid, gid)?;
        }
        fs::fchmod(copy, Mode::from_raw_mode(about.st_mode & MODE))?;
        let modified =
            Timespec { tv_sec: about.st_mtime, tv_nsec: about.st_mtime_nsec.try_into().unwrap_or_default() };
        let last_access = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
        Ok(fs::futimens(copy, &Timestamps { last_access, last_modification: modified })?)
    }
}

/// Copies what has been written of a file: a hole of terabytes takes no place, and the copy is to take none. On file systems
/// that can, it shares its blocks with the original (copy_file_range(2)).
fn copy_data(source: &mut File, target: &mut File) -> io::Result<()> {
    let mut at = 0;
    loop {
        let data = match fs::seek(&*source, SeekFrom::Data(at)) {
            Ok(data) => data,
            // There is nothing behind.
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let hole = fs::seek(&*source, SeekFrom::Hole(data))?;
        for file in [&*source, &*target] {
            fs::seek(file, SeekFrom::Start(data))?;
        }
        io::copy(&mut source.take(hole.saturating_sub(data)), target)?;
        at = hole;
    }
}

/// Gives what is at `from` the path `to`.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let ((from, old), (to, new)) = (entry(from)?, entry(to)?);
    Ok(fs::renameat(from, old, to, new)?)
}

/// The same if nothing is there yet.
pub(crate) fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    let ((from, old), (to, new)) = (entry(from)?, entry(to)?);
    Ok(fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)?)
}

/// Moves what is in `from` under `wanted` names, and not in `to`, there.
pub(crate) fn move_missing(from: &Path, to: &Path, wanted: &dyn Fn(&CStr) -> bool) -> io::Result<()> {
    let (from, to) = (open(from)?, open(to)?);
    for_each(&from, |name, _| {
        if !wanted(name) {
            return Ok(());
        }
        match fs::renameat_with(&from, name, &to, name, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
}

/// Lets every user read what this one has in `tree`, and run what is a program, and change nothing. What a link leads to
/// stays as it is, and so do other file systems, and files with more names than one: the other may be that of somebody's
/// file elsewhere. The top is opened last, so that one that is open is open wholly.
pub(crate) fn share(tree: &Path) -> io::Result<()> {
    let top = fs::open(tree, DIRECTORY, Mode::empty())?;
    let device = fs::fstat(&top)?.st_dev;
    Sharing { files: 0, me: Owner::me().uid, device }.directory(&top, DEPTH)
}

/// Whether `tree` has been [shared](share).
pub(crate) fn is_shared(tree: &Path) -> io::Result<bool> {
    let about = fs::lstat(tree)?;
    Ok(kind(&about).is_dir() && about.st_mode & 0o077 == SHARED & 0o077)
}

/// On the way.
struct Sharing {
    files: u64,
    me: u32,
    device: u64,
}

impl Sharing {
    fn directory(&mut self, directory: &OwnedFd, depth: u32) -> io::Result<()> {
        for_each(directory, |name, about| {
            count(&mut self.files)?;
            let kind = kind(about);
            if !self.is_mine(about) || !(kind.is_dir() || kind.is_file()) {
                return Ok(());
            }
            match kind.is_dir() {
                true => self.directory(&below(directory, name)?, deeper(depth)?),
                false => self.open(&fs::openat(directory, name, READ, Mode::empty())?, 0o044),
            }
        })?;
        self.open(directory, 0o055)
    }

    fn open(&self, file: &OwnedFd, others: u32) -> io::Result<()> {
        // It may be another one by now.
        let about = fs::fstat(file)?;
        let is_one = kind(&about).is_dir() || kind(&about).is_file() && about.st_nlink == 1;
        if !self.is_mine(&about) || !is_one {
            return Ok(());
        }
        let run = if about.st_mode & 0o100 == 0 { 0 } else { 0o011 };
        let mode = about.st_mode & SHARED | others | run;
        match about.st_mode & 0o7777 == mode {
            true => Ok(()),
            false => Ok(fs::fchmod(file, Mode::from_raw_mode(mode))?),
        }
    }

    fn is_mine(&self, about: &Stat) -> bool {
        about.st_uid == self.me && about.st_dev == self.device
    }
}

/// Removes `tree`, whatever it is. The directory that it is in is no agent's.
pub(crate) fn remove(tree: &Path) -> io::Result<()> {
    if !kind(&fs::lstat(tree)?).is_dir() {
        return Ok(fs::unlink(tree)?);
    }
    let (above, name) = entry(tree)?;
    let top = to_empty(&above, &std::ffi::CString::new(name.as_bytes())?)?;
    let (mut moved, mut tries) = (0, 0);
    for _ in 0..MOST_PASSES {
        let before = moved;
        let emptied = empty(&top, DEPTH, &top, &mut moved);
        if moved != before {
            continue;
        }
        match emptied.and_then(|()| Ok(fs::rmdir(tree)?)) {
            // Somebody who can still writes there.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < TRIES => tries += 1,
            outcome => return outcome,
        }
    }
    Err(too_deep())
}

/// Removes what is in `directory`, as much of it as goes. What is too deep is moved to `top`, under a number.
fn empty(directory: &OwnedFd, depth: u32, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    let mut left = Ok(());
    for_each(directory, |name, about| {
        let mut gone = || -> io::Result<()> {
            if !kind(about).is_dir() {
                return Ok(fs::unlinkat(directory, name, AtFlags::empty())?);
            }
            let Ok(depth) = deeper(depth) else { return Ok(move_up(directory, name, top, moved)?) };
            empty(&to_empty(directory, name)?, depth, top, moved)?;
            Ok(fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
        };
        match gone() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => left = Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(())
    })?;
    left
}

/// The directory `name`, in which its owner may do what it takes: an agent can have taken that away.
fn to_empty(directory: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let held = fs::openat(directory, name, DIRECTORY | OFlags::PATH, Mode::empty())?;
    let about = fs::fstat(&held)?;
    let mode = Mode::from_raw_mode(about.st_mode & MODE);
    if about.st_uid == Owner::me().uid && !mode.contains(PRIVATE) {
        // One that is held so cannot be changed otherwise.
        fs::chmod(path_of(&held), mode | PRIVATE)?;
    }
    below(directory, name)
}

fn move_up(directory: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> rustix::io::Result<()> {
    loop {
        *moved += 1;
        match fs::renameat_with(directory, name, top, moved.to_string(), RenameFlags::NOREPLACE) {
            // It has such a name already.
            Err(Errno::EXIST) => {}
            outcome => return outcome,
        }
    }
}

/// Goes through `directory`. What has gone meanwhile was somebody's temporary file.
fn for_each(directory: &OwnedFd, mut each: impl FnMut(&CStr, &Stat) -> io::Result<()>) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => each(name, &about)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

const FRESH: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

const DIRECTORY: OFlags = READ.union(OFlags::DIRECTORY);

fn below(directory: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    Ok(fs::openat(directory, name, DIRECTORY, Mode::empty())?)
}

/// Its path has no link in it: who may write above it could have put one there.
fn open(directory: &Path) -> io::Result<OwnedFd> {
    open_with(directory, DIRECTORY)
}

fn open_with(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

/// The directory that `path` is in, to which no link leads, and its name there.
fn entry(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) => Ok((open(directory)?, name)),
        (None, _) | (_, None) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn named(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

/// The path of what is open under this descriptor, and not of what may have its name by now (proc(5)).
fn path_of(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

fn kind(about: &Stat) -> FileType {
    FileType::from_raw_mode(about.st_mode)
}

fn owner(about: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(about.st_uid)), Some(Gid::from_raw(about.st_gid)))
}

fn deeper(depth: u32) -> io::Result<u32> {
    depth.checked_sub(1).ok_or_else(too_deep)
}

fn count(files: &mut u64) -> io::Result<()> {
    *files += 1;
    match *files <= MOST_FILES {
        true => Ok(()),
        false => Err(io::Error::other(format!("it has more than {MOST_FILES} files"))),
    }
}

fn too_deep() -> io::Error {
    io::Error::other(format!("directories lie in one another more than {DEPTH} deep"))
}

#[cfg(test)]
mod tests;
