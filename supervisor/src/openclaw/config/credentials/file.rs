//! Files that hold a token.
//!
//! An agent says which, and by what becomes of it would learn whether a file that it cannot read holds a neighbour's
//! token, or keep the neighbour from starting. So what is read is what its gateway could read itself.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use crate::{
    openclaw::{layout::Directories, walls},
    spec::InstanceSpec,
    user,
};

/// The longest; real ones have some fifty bytes.
const MAX_BYTES: u64 = 16 << 10;

/// Where hosts keep what all their users may read.
const OF_THE_HOST: &str = "/etc";

/// What stands in the file, if that is text and the instance may have it.
pub(super) fn read(path: &Path, directories: &Directories, spec: &InstanceSpec) -> Option<String> {
    let user = user::of(directories.user.as_ref()).ok()?;
    user::acting_if(user.as_ref(), || read_as_it_is(path, directories, spec)).ok()
}

fn read_as_it_is(path: &Path, directories: &Directories, spec: &InstanceSpec) -> io::Result<String> {
    // What is checked is what is read: no link leads away from it afterwards.
    let path = path.canonicalize()?;
    if spec.walls.files() && !is_open(&path, directories, spec) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    match file.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 {
        0..=MAX_BYTES => Ok(text),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// Whether the wall around its files leaves it this.
fn is_open(path: &Path, directories: &Directories, spec: &InstanceSpec) -> bool {
    let open = walls::granted(directories, spec);
    open.iter().map(PathBuf::as_path).chain([Path::new(OF_THE_HOST)]).any(|tree| path.starts_with(tree))
}
