//! One supervisor per data directory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

const FILE: &str = "supervisor.lock";

/// A pid has ten digits at most.
const MAX_PID: u64 = 16;

/// Why the directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another supervisor has it.
    #[error(
        "another supervisor, process {pid}, runs on `{data_dir}`; use it, or end it with `openclawctl supervisor stop`"
    )]
    Held {
        /// The directory.
        data_dir: PathBuf,
        /// Its process, or `?`.
        pid: String,
    },
    /// The lock file cannot be used.
    #[error("failed to lock `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The right to use a data directory. Ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, never read")] Flock<File>);

/// Takes the data directory for this process.
pub fn take(data_dir: &Path) -> Result<Lock, LockError> {
    let path = data_dir.join(FILE);
    let failed = |source| LockError::Io { path: path.clone(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            let write = |file: &mut File| {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())
            };
            write(&mut file).map_err(failed)?;
            Ok(Lock(file))
        }
        Err((file, Errno::EAGAIN)) => {
            let mut pid = String::new();
            let _ = file.take(MAX_PID).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "?".into() } else { pid.trim().into() };
            Err(LockError::Held { data_dir: data_dir.to_owned(), pid })
        }
        Err((_, error)) => Err(failed(error.into())),
    }
}
