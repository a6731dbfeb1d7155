//! The calls whose soundness the compiler cannot see, in one place: no other file here needs `unsafe`.

#![expect(unsafe_code, reason = "each call below has no safe counterpart; each says why it is sound")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::libc;
use nix::sys::signal::{self, SigHandler, SigSet, Signal};
use rustix::process::{Signal as DeathSignal, getpid, getppid, set_parent_process_death_signal};

/// Closes every descriptor but the standard three: whatever the supervisor left open must not be kept
/// alive by a process that outlives it. To be called before anything is opened.
pub(crate) fn close_inherited() {
    // SAFETY: no descriptor above 2 has an owner in this process yet, so none is closed under one.
    // The system call is used because glibc has a wrapper only since 2.34. On a kernel without it
    // (before 5.9) it fails and changes nothing.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Gives every signal its default meaning again, as an ignored one would stay ignored in the gateway
/// (`nohup` ignores SIGHUP). SIGPIPE stays as Rust's runtime has set it: ignored here, default in children.
pub(crate) fn restore_signals() {
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGPIPE) {
            continue;
        }
        // SAFETY: the default action runs no code of this process. The only handlers that this removes are
        // those by which Rust's runtime puts words to a stack overflow; the fault itself stays fatal.
        let _ = unsafe { signal::signal(signal, SigHandler::SigDfl) };
    }
}

/// Spawns `command` with no signal blocked, and so that the kernel kills it should this process die.
pub(crate) fn spawn_bound(command: &mut Command) -> io::Result<Child> {
    let parent = getpid();
    let bind = move || {
        SigSet::empty().thread_set_mask()?;
        set_parent_process_death_signal(Some(DeathSignal::KILL))?;
        // Had the worker died before the call above, no signal would ever come.
        if getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes three system calls on values it owns; it neither
    // allocates nor locks. This process has one thread, so no lock can be held by another at the fork.
    unsafe { command.pre_exec(bind) }.spawn()
}
