//! The calls whose soundness the compiler cannot see, in one place: no other file here needs `unsafe`.

#![expect(unsafe_code, reason = "each call below has no safe counterpart; each says why it is sound")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

use nix::libc;
use nix::sys::signal::{self, SigHandler, SigSet, Signal};
use nix::unistd::ForkResult;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal as DeathSignal, getpid, getppid, set_parent_process_death_signal, setpgid,
};
use rustix::stdio::stdin;
use rustix::termios::tcsetpgrp;

use crate::walls::Builder;

/// Asks for the version instead of a ruleset, landlock_create_ruleset(2).
const LANDLOCK_VERSION: libc::c_uint = 1;

/// Closes every descriptor but the standard three: whatever the supervisor left open must not be kept
/// alive by a process that outlives it. To be called before anything is opened.
pub(crate) fn close_inherited() {
    // SAFETY: no descriptor above 2 has an owner in this process yet, so none is closed under one.
    // The system call is used because glibc has a wrapper only since 2.34. On a kernel without it
    // (before 5.9) it fails and changes nothing.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Closes every descriptor but the standard three and `kept`, and takes that one. To be called before anything is
/// opened.
pub(crate) fn take_inherited(kept: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: it tells about the descriptor, and touches no memory of this process.
    if kept < 3 || unsafe { libc::fcntl(kept, libc::F_GETFD) } == -1 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let kept_number = kept.unsigned_abs();
    if kept_number > 3 {
        // SAFETY: as above; `kept` is not among these.
        unsafe { libc::syscall(libc::SYS_close_range, 3, kept_number - 1, 0) };
    }
    // SAFETY: as above; `kept` is not among these.
    unsafe { libc::syscall(libc::SYS_close_range, kept_number + 1, libc::c_uint::MAX, 0) };
    // SAFETY: it is open, as was seen, and nothing in this process has owned it so far.
    Ok(unsafe { OwnedFd::from_raw_fd(kept) })
}

/// Ends this process by `signal`, as a shell and `wait` tell a death from a status. Returns if that does not kill.
pub(crate) fn die_of(signal: Signal) {
    restore_signal(signal);
    let mut alone = SigSet::empty();
    alone.add(signal);
    let _ = signal::raise(signal).and_then(|()| alone.thread_unblock());
}

/// Gives every signal its default meaning again, as an ignored one would stay ignored in the gateway
/// (`nohup` ignores SIGHUP). SIGPIPE stays as Rust's runtime has set it: ignored here, default in children.
pub(crate) fn restore_signals() {
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGPIPE) {
            continue;
        }
        restore_signal(signal);
    }
}

/// Gives one signal its default meaning again.
pub(crate) fn restore_signal(signal: Signal) {
    // SAFETY: the default action runs no code of this process. The only handlers that this removes are
    // those by which Rust's runtime puts words to a stack overflow; the fault itself stays fatal.
    let _ = unsafe { signal::signal(signal, SigHandler::SigDfl) };
}

/// The version of this kernel's Landlock, from 1 on. The landlock crate keeps it to itself, and a report needs it.
pub(crate) fn landlock_abi() -> Result<i32, Errno> {
    // SAFETY: with a null pointer and no size the call looks at no memory of this process.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<libc::c_void>(),
            0_usize,
            LANDLOCK_VERSION,
        )
    };
    match i32::try_from(version) {
        Ok(version @ 1..) => Ok(version),
        Ok(_) | Err(_) => Err(last()),
    }
}

/// Goes on in two processes, and so that the kernel kills the new one should the other die. Answers the new one's number
/// in the other. To be called while there is one thread.
pub(crate) fn fork_bound() -> io::Result<Option<Pid>> {
    let parent = getpid();
    // SAFETY: this process has one thread, so the new one has all there is of it, and no lock is held by another.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Pid::from_raw(child.as_raw())),
        ForkResult::Child => {
            die_with(parent)?;
            Ok(None)
        }
    }
}

/// Has the kernel kill this process should its parent die.
fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(DeathSignal::KILL))?;
    // Had it died before the call above, no signal would ever come.
    if getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// The same, as a job of its own in the foreground of this session's terminal.
pub(crate) fn spawn_bound_as_job(command: &mut Command, walls: Option<Builder>) -> io::Result<Child> {
    let lead = || {
        setpgid(None, None)?;
        // Signals are held back still, that for who does this from the background among them.
        Ok(tcsetpgrp(stdin(), getpid())?)
    };
    // SAFETY: as of the closure below.
    spawn_bound(unsafe { command.pre_exec(lead) }, walls)
}

/// Spawns `command` with no signal blocked, behind its walls, and so that the kernel kills it should this process
/// die.
pub(crate) fn spawn_bound(command: &mut Command, mut walls: Option<Builder>) -> io::Result<Child> {
    let parent = getpid();
    let bind = move || {
        SigSet::empty().thread_set_mask()?;
        if let Some(walls) = &mut walls {
            walls.build()?;
        }
        // The kernel forgets this when a process changes its user, so it comes last.
        die_with(parent)
    };
    // SAFETY: between fork and exec the closure makes system calls on values it owns. This process has one thread,
    // so no lock, that of the allocator included, can be held by another at the fork.
    unsafe { command.pre_exec(bind) }.spawn()
}

/// A call that waits for this process (seccomp_unotify(2)).
#[derive(Debug)]
pub(crate) struct Call {
    /// Names it.
    pub(crate) id: u64,
    /// The thread that makes it.
    pub(crate) pid: i32,
    /// Which call.
    pub(crate) number: libc::c_long,
    /// Its arguments, as registers hold them.
    pub(crate) arguments: [u64; 6],
}

/// Puts this process and all that it starts behind `filter`; the calls that it hands over wait at what this answers.
pub(crate) fn hand_over(filter: &[seccompiler::sock_filter]) -> Result<OwnedFd, Errno> {
    let length = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel reads `program` and the instructions that it names, which outlive the call; they are laid out as the
    // kernel has them.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let descriptor =
        RawFd::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0).ok_or_else(last)?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The next call that waits there. Waits itself if there is none.
pub(crate) fn next_call(calls: BorrowedFd<'_>) -> Result<Call, Errno> {
    let mut notice = MaybeUninit::<libc::seccomp_notif>::zeroed();
    // SAFETY: the kernel takes zeroes and writes one such structure, of the size that the request's number holds.
    let received =
        unsafe { libc::ioctl(calls.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, notice.as_mut_ptr()) };
    if received == -1 {
        return Err(last());
    }
    // SAFETY: all of it is numbers, and zeroes at the least.
    let libc::seccomp_notif { id, pid, data, .. } = unsafe { notice.assume_init() };
    let pid = i32::try_from(pid).map_err(|_| Errno::SRCH)?;
    Ok(Call { id, pid, number: data.nr.into(), arguments: data.args })
}

/// Whether a call still waits. If so, its thread has lived up to now, and its number is its own.
pub(crate) fn waits(calls: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one number.
    unsafe { libc::ioctl(calls.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Ends a call. Who made it may be gone.
pub(crate) fn answer(calls: BorrowedFd<'_>, id: u64, outcome: Result<(), Errno>) {
    let error = outcome.err().map_or(0, |errno| -errno.raw_os_error());
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error, flags: 0 };
    // SAFETY: the kernel reads one such structure, of the size that the request's number holds.
    unsafe { libc::ioctl(calls.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
}

/// Whether the signal for which a traced child stands still is one that it has sent itself by kill(2).
pub(crate) fn has_sent_itself(child: Pid) -> bool {
    let mut about = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the kernel writes one such structure.
    let told = unsafe {
        libc::ptrace(
            libc::PTRACE_GETSIGINFO,
            child.as_raw_nonzero().get(),
            ptr::null_mut::<libc::c_void>(),
            about.as_mut_ptr(),
        )
    };
    // SAFETY: all of it is numbers and addresses, and zeroes at the least.
    let about = unsafe { about.assume_init() };
    // SAFETY: of what this code says there is a process number, and zeroes are one, too.
    told != -1 && about.si_code == libc::SI_USER && unsafe { about.si_pid() } == child.as_raw_nonzero().get()
}

/// Stops to trace a child, which takes the signal, if it is one. Whether it was traced.
pub(crate) fn detach(child: Pid, signal: libc::c_int) -> bool {
    let signal = ptr::without_provenance_mut::<libc::c_void>(usize::try_from(signal).unwrap_or_default());
    // SAFETY: it takes no address of this process: the last argument is a number.
    let detached = unsafe {
        libc::ptrace(
            libc::PTRACE_DETACH,
            child.as_raw_nonzero().get(),
            ptr::null_mut::<libc::c_void>(),
            signal,
        )
    };
    detached != -1
}

fn last() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::NOSYS)
}
