//! The loop around `poll(2)`: wait, do what is ready, do what is due.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Instant;

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use supervisor_proto::worker::report::Report as Body;

use crate::complain::complain;
use crate::serve;
use crate::serve::ConnectionId;
use crate::walls::modes;
use crate::worker::{Leaving, Worker};

/// Where something can happen. In the order in which they are served: deaths and orders before output.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Peer(ConnectionId),
    Listener,
    Gateway,
    Modes,
    Output,
}

impl Worker {
    /// Serves until told to quit.
    pub(crate) fn run(&mut self) -> ExitCode {
        while self.leaving == Leaving::No || self.life.is_some() {
            let ready = self.wait();
            let now = Instant::now();
            for (source, flags) in ready {
                self.serve(source, flags, now);
            }
            self.pass(now);
            self.parts.server.sweep();
        }
        self.leave();
        ExitCode::SUCCESS
    }

    /// Waits until something is ready or due.
    fn wait(&self) -> Vec<(Source, PollFlags)> {
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::from_borrowed_fd(self.parts.signals.as_fd(), PollFlags::IN)];
        let mut watch = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        for (id, fd, unsent) in self.parts.server.connections() {
            watch(Source::Peer(id), fd, if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN });
        }
        if let Some(listener) = self.parts.server.listener() {
            watch(Source::Listener, listener, PollFlags::IN);
        }
        if let Some(socket) = &self.notify {
            watch(Source::Gateway, socket.as_fd(), PollFlags::IN);
        }
        if let Some(keeper) = &self.keeper {
            watch(Source::Modes, keeper.as_fd(), PollFlags::IN);
        }
        if let Some(pipe) = self.parts.output.pipe() {
            watch(Source::Output, pipe, PollFlags::IN);
        }
        let timeout = self.deadline().map(until);
        // The only failures are a lack of kernel memory and an interruption: the next turn tries again.
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        sources
            .into_iter()
            .zip(&fds)
            .map(|(source, fd)| (source, fd.revents()))
            .filter(|(_, flags)| !flags.is_empty())
            .collect()
    }

    fn serve(&mut self, source: Source, flags: PollFlags, now: Instant) {
        match source {
            Source::Signals => self.hear_signals(now),
            Source::Peer(id) => {
                if flags.contains(PollFlags::OUT) {
                    self.parts.server.flush(id);
                }
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.parts.server.receive(id);
                    self.obey_all(id);
                }
            }
            Source::Listener => self.parts.server.accept(now),
            Source::Gateway => self.hear_gateway(),
            Source::Modes => modes::serve(&mut self.keeper, flags),
            Source::Output => self.parts.output.take_in(now),
        }
    }

    /// Reads which signals have come. Several deaths may be one signal, so the signal says only that it is
    /// time to look.
    fn hear_signals(&mut self, now: Instant) {
        let mut someone_died = false;
        while let Ok(Some(signal)) = self.parts.signals.read_signal() {
            match i32::try_from(signal.ssi_signo) {
                Ok(libc::SIGCHLD) => someone_died = true,
                Ok(libc::SIGTERM) => self.retire(),
                Ok(_) | Err(_) => {}
            }
        }
        if someone_died {
            self.reap(now);
        }
    }

    /// Says the last words and tidies up. The lock goes with the process, so until then the sockets here are
    /// ours.
    fn leave(&mut self) {
        if let Some(loss) = self.parts.output.unmarked().filter(|loss| loss.bytes > 0) {
            complain(format_args!("{} bytes of output are lost: {}", loss.bytes, loss.message));
            self.broadcast(Body::LogDropped(loss));
        }
        self.settle(Instant::now());
        serve::remove();
        self.notify = None;
        self.parts.server.bid_farewell();
    }
}

/// The time from now until `deadline`.
pub(crate) fn until(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}
