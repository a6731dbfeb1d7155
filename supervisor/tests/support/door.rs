//! A way in for users of this host other than the test's own.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

use super::{Host, program};

/// A group that only tests have.
pub(crate) const GROUP: u32 = 64_124;

/// A place that every user can reach: a socket, and a command line of their own.
pub(crate) struct Door {
    pub(crate) directory: TempDir,
    pub(crate) socket: PathBuf,
    ctl: PathBuf,
}

impl Door {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let ctl = directory.path().join("openclawctl");
        fs::copy(program("openclawctl"), &ctl).unwrap();
        Self { socket: directory.path().join("control.sock"), ctl, directory }
    }

    /// Adds itself and `access` to the settings of a supervisor that is not running yet.
    pub(crate) fn open(&self, host: &Host, access: &str) {
        let path = host.data_dir().join("settings.yaml");
        let pool = fs::read_to_string(&path).unwrap();
        let pool = pool.lines().next().unwrap().to_owned();
        let socket = self.socket.display();
        let text = format!("{pool}\nlisten:\n- {{unix: {socket}, mode: '0666'}}\naccess:\n{access}");
        fs::write(path, text).unwrap();
    }

    /// The command line as that user, in that group.
    pub(crate) fn run(&self, uid: u32, args: &[&str]) -> Output {
        let mut command = Command::new(&self.ctl);
        command.env_clear().env("HOME", self.directory.path()).current_dir("/").uid(uid).gid(GROUP);
        command.arg("--socket").arg(&self.socket).args(args).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn done(&self, uid: u32, args: &[&str]) -> String {
        let output = self.run(uid, args);
        assert!(output.status.success(), "{uid} {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn refused(&self, uid: u32, args: &[&str], why: &str) {
        let output = self.run(uid, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(7), "{uid} {args:?}: {output:?}");
        // Lines are broken between words.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(why), "{uid} {args:?}: {said}");
    }
}
