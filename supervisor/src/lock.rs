//! One supervisor per data directory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::kill,
    unistd::Pid,
};

const FILE: &str = "supervisor.lock";

/// A pid has ten digits at most.
const MAX_PID: u64 = 16;

/// A supervisor that was killed while it made a process leaves its lock to that process until it has executed its
/// program: some microseconds, on a host that swaps some seconds.
const DEAD_TRIES: u32 = 200;

/// Between two tries.
const DEAD_PAUSE: Duration = Duration::from_millis(10);

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
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    for _ in 0..DEAD_TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut locked) => {
                // A courtesy to whoever comes second; a full disk must not stop the first.
                let _ = write_pid(&mut locked);
                return Ok(Lock(locked));
            }
            Err((held, Errno::EAGAIN)) => file = held,
            Err((_, error)) => return Err(failed(error.into())),
        }
        if !holder(&file).is_some_and(is_dead) {
            break;
        }
        thread::park_timeout(DEAD_PAUSE);
    }
    let pid = holder(&file).map_or_else(|| "?".into(), |pid| pid.to_string());
    Err(LockError::Held { data_dir: data_dir.to_owned(), pid })
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// The process that the lock's file names.
fn holder(mut file: &File) -> Option<Pid> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MAX_PID).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

fn is_dead(pid: Pid) -> bool {
    kill(pid, None) == Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests;
