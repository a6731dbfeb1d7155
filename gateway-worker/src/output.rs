//! From the gateway's pipe into the log, come what may.
//!
//! The gateway must never wait for its log, so the pipe is always read. What the log cannot take, on a
//! full disk say, is counted, and once it can be written to again a line says at that place how much is
//! missing:
//!
//! ```text
//! [gateway-worker: 4711 bytes of output lost: No space left on device (os error 28)]
//! ```

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionread, read};
use rustix::pipe::fcntl_setpipe_size;
use supervisor_proto::worker::{LogDropped, LogPolicy};

use crate::complain::complain;
use crate::life::Incarnation;
use crate::segment::{Segments, Short};

/// Bytes read at once. On the stack, of which an idle worker has touched two pages; larger chunks are hardly
/// faster.
const CHUNK: usize = 16 << 10;

/// Chunks read in one turn of the loop, 1 MiB: about a millisecond, so that a flood does not delay an order.
const CHUNKS_PER_TURN: usize = 64;

/// Chunks read after the last descendant's death, 2 MiB. A pipe holds 1 MiB at most, so more can only come
/// from a process outside the tree that was handed the pipe, and that may go on for ever.
const CHUNKS_AT_END: usize = 128;

/// What a pipe holds by default, pipe(7).
const NARROW: usize = 64 << 10;

/// What it holds during a flood, to bridge a slow write. The kernel bounds the sum of all pipes of a user
/// (`pipe-user-pages-soft`), which a thousand wide ones would exhaust, so they are narrowed again.
const WIDE: usize = 1 << 20;

/// How long a pipe stays wide after the last full turn.
const WIDE_FOR: Duration = Duration::from_secs(1);

/// How often a log that failed is tried again. On some file systems a failing write is slow.
const RETRY_EVERY: Duration = Duration::from_millis(200);

/// How often the operator is told of it on standard error, which is a file without bounds.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What became of the pipe in one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drained {
    /// There may be more.
    Not,
    /// It is empty.
    Dry,
    /// Nobody can write to it any more.
    Closed,
}

/// The gateway's output on its way into the log.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: Option<OwnedFd>,
    /// When to make a wide pipe narrow; `None` if it is.
    narrow_at: Option<Instant>,
    log: Log,
}

/// The log and what it failed to take.
#[derive(Debug)]
struct Log {
    segments: Segments,
    loss: Option<Loss>,
    /// Losses marked in the log but not yet reported.
    marked: Vec<LogDropped>,
    /// When the operator was last told of a failure.
    complained: Option<Instant>,
}

/// Output that has been lost since the log failed.
#[derive(Debug)]
struct Loss {
    bytes: u64,
    why: String,
    retry_at: Instant,
}

impl Output {
    /// Opens the log.
    pub(crate) fn open(policy: &LogPolicy) -> Self {
        let log = Log { segments: Segments::open(policy), loss: None, marked: Vec::new(), complained: None };
        Self { pipe: None, narrow_at: None, log }
    }

    /// Where the log is.
    pub(crate) fn directory(&self) -> &Path {
        self.log.segments.path()
    }

    /// Takes in what `incarnation` writes to `pipe`.
    pub(crate) fn begin(&mut self, incarnation: Incarnation, pipe: OwnedFd) {
        if let Err(short) = self.log.segments.begin(incarnation) {
            self.log.lose(0, &short.error);
        }
        self.pipe = Some(pipe);
        self.narrow_at = None;
    }

    /// The pipe to poll.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes in what has come, but no more than a turn allows.
    pub(crate) fn take_in(&mut self, now: Instant) {
        let (drained, chunks) = self.drain(CHUNKS_PER_TURN);
        if drained == Drained::Closed {
            self.pipe = None;
        }
        if chunks * CHUNK >= NARROW {
            self.widen(now);
        }
    }

    /// Takes in the rest after the last descendant's death, and lets go of the pipe.
    pub(crate) fn end(&mut self) {
        let (drained, _) = self.drain(CHUNKS_AT_END);
        if let Some(pipe) = self.pipe.take()
            && drained == Drained::Not
        {
            let left = ioctl_fionread(&pipe).unwrap_or(0);
            self.log.lose(left, &io::Error::other("the gateway's pipe is written to from outside"));
        }
        if let Err(short) = self.log.segments.end_line() {
            self.log.lose(0, &short.error);
        }
    }

    /// Reads up to `limit` chunks, and says how many there were.
    fn drain(&mut self, limit: usize) -> (Drained, usize) {
        let Some(pipe) = &self.pipe else { return (Drained::Closed, 0) };
        let mut buffer = [MaybeUninit::<u8>::uninit(); CHUNK];
        for chunks in 0..limit {
            match read(pipe, &mut buffer[..]) {
                Ok(([], _)) => return (Drained::Closed, chunks),
                Ok((data, _)) => self.log.keep(data),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return (Drained::Dry, chunks),
                Err(error) => {
                    complain(format_args!("failed to read the gateway's output: {error}"));
                    return (Drained::Closed, chunks);
                }
            }
        }
        (Drained::Not, limit)
    }

    /// Lets the pipe hold more for a while. Where the kernel does not allow it, it stays as it is.
    fn widen(&mut self, now: Instant) {
        if self.narrow_at.is_none()
            && let Some(pipe) = &self.pipe
        {
            let _ = fcntl_setpipe_size(pipe, WIDE);
        }
        self.narrow_at = Some(now + WIDE_FOR);
    }

    /// When [`Output::pass`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let retry = self.log.loss.as_ref().map(|loss| loss.retry_at);
        self.narrow_at.into_iter().chain(retry).min()
    }

    /// Does what has become due at `now`.
    pub(crate) fn pass(&mut self, now: Instant) {
        if self.narrow_at.is_some_and(|at| at <= now) {
            if let Some(pipe) = &self.pipe {
                let _ = fcntl_setpipe_size(pipe, NARROW);
            }
            self.narrow_at = None;
        }
        self.log.recover(now);
    }

    /// Losses to report.
    pub(crate) fn take_losses(&mut self) -> Vec<LogDropped> {
        std::mem::take(&mut self.log.marked)
    }

    /// Output that no marker tells of yet.
    pub(crate) fn unmarked(&self) -> Option<LogDropped> {
        self.log.loss.as_ref().map(Loss::report)
    }
}

impl Log {
    /// Writes `data`, or counts it.
    fn keep(&mut self, data: &[u8]) {
        if self.loss.is_some() {
            self.recover(Instant::now());
        }
        if let Some(loss) = &mut self.loss {
            loss.bytes += data.len() as u64;
        } else if let Err(Short { written, error }) = self.segments.append(data) {
            self.lose((data.len() - written) as u64, &error);
        }
    }

    fn lose(&mut self, bytes: u64, why: &io::Error) {
        match &mut self.loss {
            Some(loss) => loss.bytes += bytes,
            None => {
                let now = Instant::now();
                if self.complained.is_none_or(|at| now.duration_since(at) >= COMPLAIN_EVERY) {
                    complain(format_args!("failed to write the log: {why}"));
                    self.complained = Some(now);
                }
                self.loss = Some(Loss { bytes, why: why.to_string(), retry_at: now + RETRY_EVERY });
            }
        }
    }

    /// After a failure, marks the place in the log if it can be written to again.
    fn recover(&mut self, now: Instant) {
        let Some(loss) = &mut self.loss else { return };
        if loss.retry_at > now {
            return;
        }
        loss.retry_at = now + RETRY_EVERY;
        let outcome = match loss.bytes {
            0 => self.segments.end_line(),
            bytes => {
                let marker = format!("[gateway-worker: {bytes} bytes of output lost: {}]", loss.why);
                self.segments.append_line(&marker)
            }
        };
        if outcome.is_ok() {
            self.marked.extend(Some(loss.report()).filter(|report| report.bytes > 0));
            self.loss = None;
        }
    }
}

impl Loss {
    fn report(&self) -> LogDropped {
        LogDropped { bytes: self.bytes, message: self.why.clone() }
    }
}
