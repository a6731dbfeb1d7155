//! What a worker is told of the walls around a gateway.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use supervisor_core::ports::Block;
use supervisor_proto::worker;

use crate::{
    openclaw::{
        environment::Control,
        reach,
        walls::{Trees, around},
    },
    spec::InstanceSpec,
    user::User,
};

/// The walls of an instance with this spec.
pub(super) fn walls(
    spec: &InstanceSpec,
    trees: Option<Trees>,
    block: Block,
    user: Option<User>,
    group: Option<PathBuf>,
) -> worker::Walls {
    worker::Walls {
        cgroup: group.map(|group| group.to_string_lossy().into_owned()).unwrap_or_default(),
        ..around(spec, trees, block, user)
    }
}

/// Lets other users pass through the supervisor's directories to what is theirs, and to its socket, where a rescue
/// mends its primaries: each caller is known by the kernel's word. They see nothing of what is in the directories.
pub(super) fn open_way(control: &Control, run_dir: &Path) -> io::Result<()> {
    let Control { data_dir, socket } = control;
    DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
    for directory in [Some(data_dir.as_path()), run_dir.parent(), Some(run_dir)].into_iter().flatten() {
        reach::let_pass(directory)?;
    }
    match fs::set_permissions(socket, Permissions::from_mode(0o666)) {
        // Somebody has deleted it. The one that is made in its place is for this instance, too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
