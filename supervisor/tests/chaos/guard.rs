//! Leaves nothing behind, whatever happens.
//!
//! What is broken here outlives its parent by design. So the program runs twice: the outer process breaks nothing,
//! mounts the disk, is the subreaper of everything that the inner one starts, and once that has ended, in whatever
//! way, kills what is left, unmounts, and removes the directory, or keeps it after a failure.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    sys::{
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::process::{getpid, set_child_subreaper, set_parent_process_death_signal};

use crate::{arguments::Arguments, processes};

/// Tells the inner process that it is the inner one, and where to put things.
const DIRECTORY: &str = "OPENCLAW_CHAOS_DIR";

/// The small disk, below the run's directory.
pub(crate) const DISK: &str = "disk";

/// The data directory as it was when the run failed, below the run's directory.
const KEPT: &str = "data-as-it-was";

/// Bytes of the small disk: a run of half an hour leaves some tens of megabytes in the journal.
pub(crate) const DISK_BYTES: u64 = 192 << 20;

/// How long a killed process may take to be gone.
const END: Duration = Duration::from_secs(30);

/// Which of the two processes this is.
pub(crate) enum Guarded {
    /// The inner one: break things, and put all files here.
    Inside(PathBuf),
    /// The outer one, and the inner one has ended.
    Ended(ExitCode),
}

/// Starts the inner process and waits for its end, or is the inner process.
pub(crate) fn enter(arguments: &Arguments) -> anyhow::Result<Guarded> {
    if let Some(directory) = env::var_os(DIRECTORY) {
        set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("failed to bind the run to its guard")?;
        return Ok(Guarded::Inside(directory.into()));
    }
    let directory = tempfile::Builder::new()
        .prefix("openclaw-chaos-")
        .tempdir()
        .context("failed to make a directory for the run")?;
    let disk = directory.path().join(DISK);
    fs::create_dir(&disk).context("failed to make the disk's directory")?;
    let mounted = mount(&disk);
    set_child_subreaper(Some(getpid())).context("failed to become a subreaper")?;
    let signals: SigSet =
        [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("failed to block signals")?;
    let inner = Command::new(env::current_exe().context("failed to find the run's own program")?)
        .args(["--for", &format!("{}ms", arguments.span.as_millis())])
        .args(["--seed", &arguments.seed.to_string()])
        .args(["--instances", &arguments.instances.to_string()])
        .env(DIRECTORY, directory.path())
        .spawn()
        .context("failed to start the run")?;
    let outcome = wait(Pid::from_raw(inner.id().cast_signed()), &signals);
    end_all();
    let kept = match outcome {
        Ok(0) => None,
        Ok(_) | Err(_) => Some(directory.keep()),
    };
    if let Some(kept) = &kept {
        keep(kept);
        eprintln!("kept: {}", kept.display());
    }
    if mounted {
        unmount(&disk);
    }
    outcome.map(|code| Guarded::Ended(ExitCode::from(code)))
}

/// Whether the disk could be mounted.
fn mount(disk: &Path) -> bool {
    let options = format!("size={DISK_BYTES},mode=0700");
    Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "openclaw-chaos"])
        .arg(disk)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Whether the disk was mounted.
pub(crate) fn is_mounted(disk: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == disk.to_str())
}

fn unmount(disk: &Path) {
    let unmounted = Command::new("umount").arg(disk).status().is_ok_and(|status| status.success());
    if !unmounted {
        eprintln!("failed to unmount {}", disk.display());
    }
}

/// Copies the data directory beside the disk, for whoever looks for the reason.
fn keep(directory: &Path) {
    let _ = fs::remove_file(directory.join(DISK).join("ballast"));
    let _ = Command::new("cp").arg("-a").arg(directory.join(DISK)).arg(directory.join(KEPT)).status();
}

/// Reaps everything until `inner` is among it.
fn wait(inner: Pid, signals: &SigSet) -> anyhow::Result<u8> {
    loop {
        let signal = signals.wait().context("failed to wait for a signal")?;
        if signal != Signal::SIGCHLD {
            kill(inner, Signal::SIGKILL).context("failed to end the run")?;
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)).context("failed to wait for the run")? {
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(pid, code) if pid == inner => return Ok(u8::try_from(code).unwrap_or(1)),
                WaitStatus::Signaled(pid, ..) if pid == inner => return Ok(1),
                // A process that nobody else was left to reap, or one that goes on.
                WaitStatus::Exited(..)
                | WaitStatus::Signaled(..)
                | WaitStatus::Stopped(..)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(..)
                | WaitStatus::Continued(..) => {}
            }
        }
    }
}

/// Kills all that was started by the run, and waits until it is gone.
fn end_all() {
    let own = getpid().as_raw_nonzero().get();
    let deadline = Instant::now() + END;
    loop {
        let left = processes::descendants(own, own);
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
        {
        }
        if left.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            eprintln!("these processes do not end: {left:?}");
            return;
        }
        std::thread::yield_now();
    }
}
