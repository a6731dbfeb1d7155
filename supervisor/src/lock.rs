//! One supervisor per data directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub(crate) const FILE: &str = "supervisor.lock";

/// A pid has ten digits at most.
const MAX_PID: u64 = 16;

/// A supervisor that was killed keeps its lock until it has given back all it had, and leaves it to a process that it
/// made at that moment until that has executed its program: some microseconds, on a host that swaps some seconds.
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

/// Whether it has ended, or is killed and still gives back what it had: with much memory that takes a while.
fn is_dead(pid: Pid) -> bool {
    kill(pid, None) == Err(Errno::ESRCH) || is_killed(pid) || is_exiting(pid)
}

/// SIGKILL waits for it (proc_pid_status(5)).
fn is_killed(pid: Pid) -> bool {
    const SIGKILL: u64 = 1 << (Signal::SIGKILL as u64 - 1);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending =
        status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    pending.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok()).any(|set| set & SIGKILL != 0)
}

/// Its state and flags say so (proc_pid_stat(5)).
fn is_exiting(pid: Pid) -> bool {
    // PF_EXITING in the kernel's sched.h.
    const EXITING: u64 = 0x4;
    const FLAGS: usize = 6;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().collect()).unwrap_or_default();
    let flags = fields.get(FLAGS).and_then(|flags| flags.parse::<u64>().ok());
    matches!(fields.first(), Some(&("Z" | "X"))) || flags.is_some_and(|flags| flags & EXITING != 0)
}

#[cfg(test)]
mod tests;
