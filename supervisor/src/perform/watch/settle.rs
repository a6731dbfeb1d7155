//! Finds the directories by which a file is seen, and watches them. Blocks on the disk.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use inotify::{WatchDescriptor, WatchMask, Watches};

/// Directories may come and go while they are watched; whoever plays with them for longer is found by a look.
const TRIES: usize = 16;

/// What a file was like, as far as a look can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file as it is now; `None` if there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// How a file is watched.
#[derive(Default)]
pub(super) struct Settled {
    /// The watches, and the entry of the directory that each is for.
    pub(super) spots: Vec<(WatchDescriptor, OsString)>,
    /// All watches that there are now; not all may be needed.
    pub(super) added: Vec<WatchDescriptor>,
    /// Why it is not watched, or not wholly.
    pub(super) refused: Option<io::Error>,
    /// Taken when the watches were there.
    pub(super) stamp: Option<Stamp>,
}

/// Watches a file, whether it exists or not.
pub(super) fn settle(watches: Option<&Watches>, path: &Path) -> Settled {
    let mut settled = Settled::default();
    if let Some(watches) = watches {
        let mut watches = watches.clone();
        for target in targets(path) {
            if let Err(error) = watch(&mut watches, &target, &mut settled) {
                settled.refused = Some(error);
            }
        }
    }
    settled.stamp = Stamp::of(path);
    settled
}

/// The file, and where it leads if it is a link.
fn targets(path: &Path) -> Vec<PathBuf> {
    let led = fs::canonicalize(path).or_else(|_| {
        // The link may lead to a file that is not there yet.
        fs::read_link(path).map(|led| path.parent().unwrap_or(path).join(led))
    });
    let mut targets = vec![path.to_owned()];
    targets.extend(led.ok().filter(|led| led != path));
    targets
}

/// Watches the directory of `target`, or the nearest one above it.
fn watch(watches: &mut Watches, target: &Path, settled: &mut Settled) -> io::Result<()> {
    let events = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..TRIES {
        let Some((directory, entry)) = nearest(target) else { return Err(last) };
        match watches.add(&directory, events | WatchMask::ONLYDIR) {
            Ok(watch) => {
                settled.added.push(watch.clone());
                // What is next may have been made before the watch was there.
                if nearest(target).is_some_and(|(now, _)| now == directory) {
                    settled.spots.push((watch, entry));
                    return Ok(());
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// The nearest directory above `target` that exists, and the entry in it that leads to `target`.
fn nearest(target: &Path) -> Option<(PathBuf, OsString)> {
    let mut below = target;
    loop {
        let directory = below.parent()?;
        if directory.is_dir() {
            return Some((directory.to_owned(), below.file_name()?.to_owned()));
        }
        below = directory;
    }
}
