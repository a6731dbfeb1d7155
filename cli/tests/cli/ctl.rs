//! Runs the real binary in a known environment.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::fake::Fake;

/// A command of `openclawctl` on a data directory, with nothing inherited.
pub(crate) fn ctl(data_dir: &Path, args: &[&str]) -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_openclawctl")), data_dir, args)
}

/// The same with another copy of the binary.
pub(crate) fn program(program: &Path, data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("TZ", "UTC").env("OPENCLAWCTL_DATA_DIR", data_dir).args(args);
    command.stdin(Stdio::null());
    command
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Standard output, after a run that must have done what it was asked.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command) -> Ran {
    command.output().unwrap().into()
}

impl Fake {
    /// A command that talks to this supervisor.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        ctl(&self.data_dir, args)
    }

    /// Runs `openclawctl` with these arguments to its end.
    pub(crate) fn ctl(&self, args: &[&str]) -> Ran {
        finish(self.command(args))
    }
}

/// Waits for a level, as long as a loaded machine may need.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reached() {
        assert!(Instant::now() < deadline, "{what} has not come");
        pause();
    }
}

/// Between two looks at a level.
#[expect(clippy::disallowed_methods, reason = "the one place where tests wait between two looks")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
