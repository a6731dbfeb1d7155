//! What the user of an instance gets at, where a supervisor that runs as root has instances of other users.
//!
//! Root installs where only root gets: versions of OpenClaw below the data directory, all else wherever it has its tools,
//! often in its own home. Versions hold no secrets and are nobody's to change, so one is opened to all users when the
//! first instance with a user is to run it; the directories around it can be passed, and no more. What lies elsewhere
//! stays as it is, and who keeps the user from it is told before anything is stopped or started.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
};

use super::{
    runtime::{OPENCLAW, RUNTIMES, Resolved, is_executable},
    tree, walls,
};
use crate::{
    custody,
    typed::word,
    user::{User, acting_as},
};

/// Bits by which others pass a directory.
const PASSED: u32 = 0o011;

/// A program cannot be run as the instance's user.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// Something on the way to it is closed.
    #[error("`{}` cannot be opened by user {uid}: `{}` is closed to it", path.display(), at.display())]
    Barred {
        /// The program, or what it needs.
        path: PathBuf,
        /// Whom.
        uid: u32,
        /// The first directory on the way that is closed, or the file itself.
        at: PathBuf,
        /// Whose it is to open.
        barrier: Barrier,
    },
    /// The system refused.
    #[error("failed to let other users read `{}`", path.display())]
    Open {
        /// Which version.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is closed, by which it is known how to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Barrier {
    /// What somebody has installed.
    Elsewhere,
    /// A directory around the supervisor's own, which all versions lie in.
    Above,
    /// This version, which the supervisor has installed, and has opened before.
    Version(PathBuf),
}

impl ReachError {
    /// What to do about it: a sentence without its full stop.
    #[must_use]
    pub fn mend(&self) -> String {
        match self {
            Self::Barred { barrier: Barrier::Elsewhere, .. } => {
                "install it where that user gets at it, e.g. below /opt, or remove `user` from the spec"
                    .into()
            }
            Self::Barred { at, barrier: Barrier::Above, .. } => format!(
                "let others pass with `chmod go+x {}`, start the supervisor with a directory (`--data-dir`) that they get \
                 at, e.g. in /var/lib, or remove `user` from the spec",
                word(at)
            ),
            Self::Barred { barrier: Barrier::Version(home), .. } => format!(
                "open that version with `{}` and `chmod -R go+rX {}`",
                custody::own(home, nix::unistd::geteuid().as_raw()),
                word(home)
            ),
            Self::Open { path, .. } => {
                let version = path.to_string_lossy();
                let version =
                    version.rsplit_once(&format!("/{OPENCLAW}-")).map_or("VERSION", |(_, version)| version);
                format!(
                    "move it away with `mv {} {}`, and type `openclawctl runtimes install {}`",
                    word(path),
                    word(format!("{}.old", path.display())),
                    word(version)
                )
            }
        }
    }
}

/// Lets other users pass a directory of the supervisor's.
pub(crate) fn let_pass(directory: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(directory)?.permissions().mode() & 0o777;
    match mode & PASSED == PASSED {
        true => Ok(()),
        false => fs::set_permissions(directory, Permissions::from_mode(mode | PASSED)),
    }
}

/// Opens a version that the supervisor has installed to the users of instances, unless it is open.
pub(crate) fn open_version(data_dir: &Path, runtime: &Resolved) -> Result<(), ReachError> {
    let runtimes = data_dir.join(RUNTIMES);
    let Some(home) = version_of(&runtimes, &runtime.program) else { return Ok(()) };
    let open = || {
        let_pass(data_dir)?;
        let_pass(&runtimes)?;
        match tree::is_shared(&home)? {
            true => Ok(()),
            false => tree::share(&home),
        }
    };
    open().map_err(|source| ReachError::Open { path: home.clone(), source })
}

/// The directory of the version that `program` is in.
fn version_of(runtimes: &Path, program: &Path) -> Option<PathBuf> {
    let version = program.strip_prefix(runtimes).ok()?.components().next()?;
    Some(runtimes.join(version))
}

/// Whether `user` gets at an instance's program, and where that is a version that the supervisor has installed, at what
/// its script runs. Scripts of others may do without what they name.
pub(crate) fn look_at(user: &User, data_dir: &Path, program: &Path) -> Result<(), ReachError> {
    let runtimes = data_dir.join(RUNTIMES);
    let Some(home) = version_of(&runtimes, program) else { return look(user, program) };
    let named = walls::named_in(program);
    let mut needed = [program].into_iter().chain(named.iter().map(PathBuf::as_path));
    needed.try_for_each(|file| look(user, file)).map_err(|error| match error {
        ReachError::Barred { path, uid, at, .. } => {
            let barrier = barrier(&runtimes, &home, &at);
            ReachError::Barred { path, uid, at, barrier }
        }
        ReachError::Open { .. } => error,
    })
}

/// What `at` is, which keeps a user from a version with this home, or from what that needs.
fn barrier(runtimes: &Path, home: &Path, at: &Path) -> Barrier {
    // A version may be linked to what lies elsewhere.
    let settled = [runtimes, home, at].map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    let [around, version, closed] = &settled;
    if around.starts_with(closed) || runtimes.starts_with(at) {
        Barrier::Above
    } else if closed.starts_with(version) {
        Barrier::Version(home.to_owned())
    } else {
        Barrier::Elsewhere
    }
}

/// Whether `user` may run `file`, or read it if it is no program. Where that cannot be known, it may.
pub(crate) fn look(user: &User, file: &Path) -> Result<(), ReachError> {
    let access = if is_executable(file) { Access::EXEC_OK } else { Access::READ_OK };
    // Looked up here: the user may be kept from where it leads.
    let ways: Vec<PathBuf> =
        [Some(file.to_owned()), file.canonicalize().ok()].into_iter().flatten().collect();
    let barrier = || {
        let is_closed = |path: &Path, access| {
            // Not by the real user, who stays root.
            accessat(CWD, path, access, AtFlags::EACCESS) == Err(Errno::ACCESS)
        };
        if !is_closed(file, access) {
            return Ok(None);
        }
        let first_of = |way: &PathBuf| {
            let mut above: Vec<&Path> = way.ancestors().skip(1).collect();
            above.reverse();
            above.into_iter().find(|directory| is_closed(directory, Access::EXEC_OK)).map(Path::to_owned)
        };
        Ok(Some(ways.iter().find_map(first_of).unwrap_or_else(|| file.to_owned())))
    };
    match acting_as(user, barrier) {
        Ok(Some(at)) => {
            Err(ReachError::Barred { path: file.to_owned(), uid: user.uid, at, barrier: Barrier::Elsewhere })
        }
        Ok(None) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::{openclaw::runtime, spec::Kind};

    const USER: u32 = 54_321;

    struct World(tempfile::TempDir);

    impl World {
        /// A data directory with a version, all of it root's alone, and a Node elsewhere. `None`: nobody else can be
        /// acted as.
        fn new() -> Option<Self> {
            if !nix::unistd::geteuid().is_root() {
                eprintln!("only root has instances of other users");
                return None;
            }
            let world = Self(tempfile::tempdir().unwrap());
            fs::set_permissions(world.0.path(), Permissions::from_mode(0o755)).unwrap();
            let bin = world.home().join("bin");
            fs::create_dir_all(&bin).unwrap();
            fs::create_dir(world.at("node")).unwrap();
            for program in ["node/node", "data/runtimes/openclaw-1/bin/openclaw"] {
                fs::write(world.at(program), format!("#!/bin/sh\nexec '{}/node'\n", bin.display())).unwrap();
                world.chmod(program, 0o700);
            }
            symlink(world.at("node/node"), bin.join("node")).unwrap();
            for closed in
                ["data/runtimes/openclaw-1/bin", "data/runtimes/openclaw-1", "data/runtimes", "data"]
            {
                world.chmod(closed, 0o700);
            }
            Some(world)
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(path)
        }

        fn home(&self) -> PathBuf {
            runtime::home(&self.at("data"), "1")
        }

        fn chmod(&self, path: &str, mode: u32) {
            fs::set_permissions(self.at(path), Permissions::from_mode(mode)).unwrap();
        }

        fn open(&self) {
            let program = runtime::executable(&self.home());
            let resolved =
                Resolved { kind: Kind::Openclaw, program, args: Vec::new(), note: None, beside: None };
            open_version(&self.at("data"), &resolved).unwrap();
        }

        fn refused(&self) -> Option<ReachError> {
            let user = User { uid: USER, gid: USER, groups: Vec::new() };
            let program = runtime::executable(&self.home());
            look_at(&user, &self.at("data"), &program).err()
        }

        fn told(&self) -> Option<String> {
            self.refused().map(|error| error.to_string())
        }

        fn mend(&self) -> String {
            self.refused().unwrap().mend()
        }
    }

    #[test]
    fn a_version_is_opened_to_users_and_the_directories_around_it_are_only_passed() {
        let Some(world) = World::new() else { return };
        let told = world.told().unwrap();
        assert!(told.ends_with(&format!("`{}` is closed to it", world.at("data").display())), "{told}");
        world.chmod("node/node", 0o755);
        world.open();
        assert_eq!(world.told(), None);
        let mode = |path: &str| fs::metadata(world.at(path)).unwrap().mode() & 0o777;
        assert_eq!([mode("data"), mode("data/runtimes")], [0o711; 2]);
        assert_eq!(mode("data/runtimes/openclaw-1"), 0o755);
        world.open();
    }

    #[test]
    fn what_keeps_a_user_from_the_node_that_a_version_is_linked_to_is_named() {
        let Some(world) = World::new() else { return };
        world.open();
        let node = world.home().join("bin/node");
        let closed = |at: &Path| {
            let (node, at) = (node.display(), at.display());
            Some(format!("`{node}` cannot be opened by user {USER}: `{at}` is closed to it"))
        };
        assert_eq!(world.told(), closed(&node), "the file itself is root's alone");
        world.chmod("node/node", 0o755);
        world.chmod("node", 0o700);
        assert_eq!(world.told(), closed(&world.at("node")));
        world.chmod("node", 0o750);
        std::os::unix::fs::chown(world.at("node"), None, Some(54_322)).unwrap();
        assert_eq!(world.told(), closed(&world.at("node")));
        let user = User { uid: USER, gid: USER, groups: vec![54_322] };
        look_at(&user, &world.at("data"), &runtime::executable(&world.home())).unwrap();
    }

    #[test]
    fn who_keeps_a_user_from_a_version_is_told_what_to_type() {
        let Some(world) = World::new() else { return };
        world.chmod("node/node", 0o755);
        world.open();
        world.chmod("node", 0o700);
        assert!(world.mend().starts_with("install it where that user gets at it"), "{}", world.mend());
        world.chmod("node", 0o755);

        // In somebody's closed home.
        world.chmod("", 0o700);
        let above = world.0.path().canonicalize().unwrap();
        let closed = format!("`{}` is closed to it", above.display());
        assert!(world.told().unwrap().ends_with(&closed), "{:?}", world.told());
        let typed = format!("`chmod go+x {}`, start the supervisor with a directory", above.display());
        assert!(world.mend().contains(&typed) && !world.mend().contains("/opt"), "{}", world.mend());
        world.chmod("", 0o711);
        assert_eq!(world.told(), None);

        let home = world.home();
        std::os::unix::fs::chown(home.join("bin"), Some(54_323), None).unwrap();
        fs::set_permissions(home.join("bin"), Permissions::from_mode(0o700)).unwrap();
        let shown = home.display();
        assert_eq!(
            world.mend(),
            format!("open that version with `chown -hR 0 {shown}` and `chmod -R go+rX {shown}`")
        );

        let error = ReachError::Open { path: home.clone(), source: io::ErrorKind::NotFound.into() };
        let typed = format!("`mv {shown} {shown}.old`, and type `openclawctl runtimes install 1`");
        assert!(error.mend().ends_with(&typed), "{}", error.mend());
    }
}
