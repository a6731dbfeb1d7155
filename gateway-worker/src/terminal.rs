//! A terminal of its own for a person's command.
//!
//! A command that has the person's terminal can hand it to whatever runs in the instance, which reads what is typed there
//! when the command has long ended. So it gets another one, whose other end is with this process alone and goes with it:
//!
//! ```text
//!   shell, its terminal ◄──► this process ◄──► another terminal ◄── command and all that it starts
//!                            (one job of the        ▲
//!                             shell's)              └── leader of the session there, which runs the command: [`guest`]
//! ```
//!
//! What is typed goes there as it is, and becomes signals there; what comes from there is shown as it is. When the leader
//! stops, as its command has, this process gives the terminal back and stops, too.
//!
//! [`guest`]: crate::guest

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::{Errno, read, write};
use rustix::process::{
    Pid, Signal as Sent, WaitOptions, WaitStatus, geteuid, getpgrp, getpid, ioctl_tiocsctty, kill_process,
    setsid, waitpid,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use rustix::termios::{
    OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
    tcsetwinsize,
};
use supervisor_proto::worker::User;

use crate::guest::{self, end_as};
use crate::kernel;

/// Read at once.
const PIECE: usize = 4_096;

/// Written at once: where a terminal has any room it has as much, so nobody waits for one that is held (Ctrl-S).
const MOUTHFUL: usize = 256;

/// Shown of what is left when the command has stopped or ended: a terminal holds no more. Whoever has its own end could go
/// on.
const REST: usize = 64 << 10;

/// Between two looks at whether this has come to the foreground.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What is held back here beside what a command is sent: a terminal's own signals.
const HEARD: [Signal; 2] = [Signal::SIGCONT, Signal::SIGWINCH];

/// What there is from now on.
#[derive(Debug)]
pub(crate) enum Side {
    /// This process has the streams that it was given.
    Given,
    /// This process leads a session at a terminal of its own.
    Within,
    /// This process had the person's terminal, and all is over.
    Without(ExitCode),
}

/// Goes on at another terminal, if all streams are one, and leaves the first one to another process. `user` is whose the
/// new one is to be.
pub(crate) fn part(user: Option<&User>) -> io::Result<Side> {
    if !has_terminal() {
        return Ok(Side::Given);
    }
    let before = tcgetattr(stdin())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let inner = openpt(flags)?;
    unlockpt(&inner)?;
    let theirs = ioctl_tiocgptpeer(&inner, flags)?;
    // Otherwise it is as the shell in the foreground has it while somebody types.
    if is_in_foreground() {
        tcsetattr(&theirs, OptionalActions::Now, &before)?;
    }
    if let Some(user) = user.filter(|_| geteuid().is_root()) {
        fchown(&theirs, Some(Uid::from_raw(user.uid)), None)?;
    }
    // From here on, so that no stop and no end of the other is missed, whatever was inherited.
    kernel::restore_signal(Signal::SIGCHLD);
    let heard: SigSet = guest::HEARD.into_iter().chain(HEARD).collect();
    heard.thread_set_mask()?;
    let Some(leader) = kernel::fork_bound()? else {
        drop(inner);
        setsid()?;
        ioctl_tiocsctty(&theirs)?;
        dup2_stdin(&theirs)?;
        dup2_stdout(&theirs)?;
        dup2_stderr(&theirs)?;
        return Ok(Side::Within);
    };
    drop(theirs);
    fcntl_setfl(&inner, fcntl_getfl(&inner)? | OFlags::NONBLOCK)?;
    let signals = SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut relay =
        Relay { leader, inner: Some(inner), before, typed: Vec::new(), unshown: Vec::new(), is_raw: false };
    relay.take();
    let status = relay.run(&signals);
    relay.give_back();
    Ok(Side::Without(end_as(status?)))
}

/// Whether all streams are one terminal. What else there is, a pipe between commands, is none of the command's to keep.
fn has_terminal() -> bool {
    let streams = [stdin(), stdout(), stderr()];
    let which =
        streams.map(|stream| fstat(stream).ok().filter(|_| isatty(stream)).map(|found| found.st_rdev));
    which[0].is_some() && which.iter().all(|one| *one == which[0])
}

/// Between both terminals.
#[derive(Debug)]
struct Relay {
    /// Who leads the session at the inner one.
    leader: Pid,
    /// The other end of that, until the outer one has hung up.
    inner: Option<OwnedFd>,
    /// How the outer one was.
    before: Termios,
    typed: Vec<u8>,
    unshown: Vec<u8>,
    /// Whether what is typed at the outer one comes as it is. It is only read then.
    is_raw: bool,
}

impl Relay {
    /// Passes on what is typed, shown and told, until the other process has ended.
    fn run(&mut self, signals: &SignalFd) -> io::Result<WaitStatus> {
        loop {
            self.pass_on(signals)?;
            loop {
                match signals.read_signal() {
                    Ok(Some(heard)) => {
                        if let Some(status) = self.hear(&heard)? {
                            self.show_rest();
                            return Ok(status);
                        }
                    }
                    Ok(None) => break,
                    Err(nix::errno::Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
    }

    /// What the other process has ended with, if this says so.
    fn hear(&mut self, heard: &siginfo) -> io::Result<Option<WaitStatus>> {
        let number = libc::c_int::try_from(heard.ssi_signo).unwrap_or_default();
        match number {
            libc::SIGCHLD => return self.look(),
            libc::SIGCONT => self.take(),
            libc::SIGWINCH => self.resize(),
            // The kernel's word: the outer terminal is gone. So is the inner one, whose session is told by that.
            libc::SIGHUP if heard.ssi_code > 0 => {
                self.is_raw = false;
                self.inner = None;
            }
            _ => {
                if heard.ssi_code <= 0
                    && let Some(signal) = Sent::from_named_raw(number)
                {
                    // It has not been reaped, so its number is still its own.
                    let _ = kill_process(self.leader, signal);
                }
            }
        }
        Ok(None)
    }

    /// How the other process has ended, if it has. Stops with it, and has it go on with this.
    fn look(&mut self) -> io::Result<Option<WaitStatus>> {
        loop {
            match waitpid(Some(self.leader), WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((_, status))) if status.stopped() => {
                    self.show_rest();
                    self.give_back();
                    kill_process(getpid(), Sent::STOP)?;
                    self.take();
                    kill_process(self.leader, Sent::CONT)?;
                }
                Ok(Some((_, status))) => return Ok(Some(status)),
                Ok(None) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has the outer terminal pass on what is typed as it is, if this is its job in the foreground.
    fn take(&mut self) {
        self.resize();
        if self.is_raw || self.inner.is_none() || !is_in_foreground() {
            return;
        }
        let Ok(before) = tcgetattr(stdin()) else { return };
        self.before = before;
        let mut raw = self.before.clone();
        raw.make_raw();
        // What somebody else has read meanwhile is not waited for.
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        self.is_raw = tcsetattr(stdin(), OptionalActions::Now, &raw).is_ok();
    }

    fn give_back(&mut self) {
        if std::mem::take(&mut self.is_raw) && is_in_foreground() {
            let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
        }
    }

    /// Makes the inner terminal as large as the outer one.
    fn resize(&self) {
        if let (Some(inner), Ok(size)) = (&self.inner, tcgetwinsize(stdin())) {
            let _ = tcsetwinsize(inner, size);
        }
    }

    /// Waits until something can be passed on or heard, and passes it on.
    fn pass_on(&mut self, signals: &SignalFd) -> io::Result<()> {
        let when = |wanted: bool, flags: PollFlags| if wanted { flags } else { PollFlags::empty() };
        let from_inner = when(self.unshown.is_empty(), PollFlags::IN);
        let to_inner = when(!self.typed.is_empty(), PollFlags::OUT);
        let from_outer = when(self.is_raw && self.typed.is_empty(), PollFlags::IN);
        let to_outer = when(!self.unshown.is_empty(), PollFlags::OUT);
        let (outer_in, outer_out, signals) = (stdin(), stdout(), signals.as_fd());
        let mut fds = vec![PollFd::from_borrowed_fd(signals, PollFlags::IN)];
        let wanted = [
            (Some(outer_in), from_outer),
            (Some(outer_out), to_outer),
            (self.inner.as_ref().map(AsFd::as_fd), from_inner | to_inner),
        ];
        // What nobody waits for is left out: that it has hung up would be told again and again.
        let wanted = wanted.map(|(fd, flags)| fd.filter(|_| !flags.is_empty()).map(|fd| (fd, flags)));
        fds.extend(wanted.iter().flatten().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)));
        // A shell does not say that it has brought what runs to the foreground.
        let again = (!self.is_raw && self.inner.is_some()).then_some(&LOOK_AGAIN);
        match poll(&mut fds, again) {
            Ok(0) => {
                self.take();
                return Ok(());
            }
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut told = fds.iter().skip(1).map(PollFd::revents).collect::<Vec<_>>().into_iter();
        let mut told = |wanted: bool| {
            if wanted { told.next().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() }
        };
        let [outer_in, outer_out, inner] = wanted.map(|wanted| told(wanted.is_some()));
        if !outer_in.is_empty() {
            self.read_typed();
        }
        if !outer_out.is_empty() {
            self.show();
        }
        if inner.contains(PollFlags::OUT) {
            self.type_in();
        }
        if inner.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.unshown.is_empty() {
            self.read_shown();
        }
        Ok(())
    }

    fn read_typed(&mut self) {
        let mut piece = [0; PIECE];
        match read(stdin(), &mut piece) {
            Ok(length) => self.typed.extend(piece.iter().take(length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // It has hung up, which the kernel says by a signal as well.
            Err(_) => self.is_raw = false,
        }
    }

    fn type_in(&mut self) {
        let Some(inner) = &self.inner else { return self.typed.clear() };
        match write(inner, &self.typed) {
            Ok(length) => drop(self.typed.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.typed.clear(),
        }
    }

    fn read_shown(&mut self) {
        let Some(inner) = &self.inner else { return };
        let mut piece = [0; PIECE];
        match read(inner, &mut piece) {
            Ok(length) if length > 0 => self.unshown.extend(piece.iter().take(length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody has it open any more.
            Ok(_) | Err(_) => self.inner = None,
        }
    }

    fn show(&mut self) {
        let mouthful = self.unshown.len().min(MOUTHFUL);
        match write(stdout(), &self.unshown[..mouthful]) {
            Ok(length) => drop(self.unshown.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.unshown.clear(),
        }
    }

    /// Shows what is there.
    fn show_rest(&mut self) {
        for _ in 0..REST / PIECE {
            while !self.unshown.is_empty() {
                self.show();
            }
            self.read_shown();
            if self.unshown.is_empty() {
                return;
            }
        }
    }
}

/// Whether what is typed at the outer terminal is for this job. Without a session that has it, it is for whoever reads.
fn is_in_foreground() -> bool {
    tcgetpgrp(stdin()).map_or(true, |group| group == getpgrp())
}
