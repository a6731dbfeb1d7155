//! How much callers may send: what arrives has to be looked at, and frames that ask for nothing are refused by nobody.
//!
//! Whoever has sent much waits until that is long enough ago, on all connections of its party together. Meanwhile those of
//! others are read.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    task::{self, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{Party, Ticket};

/// Bytes in a second, of a party. As frames of a few bytes they take some hundredths of a processor.
const RATE: u64 = 512 << 10;

/// Bytes that are not waited for: the largest request.
const BURST: u64 = 4 << 20;

/// Read at once: a call of somebody who is of the same party, and floods nobody, does not wait behind megabytes.
const PIECE: usize = 1 << 10;

/// Nobody waits longer for the next. A thousand connections that are read so often come to the rate.
const LONGEST: Duration = Duration::from_secs(2);

/// What is looked at costs as much as so many bytes at least.
const LEAST: u64 = 256;

/// So does a call: its headers may be few bytes, if they are like the last ones.
pub(super) const CALL: usize = 256;

/// Until when each party would have sent what it has, had it kept to its rate.
#[derive(Debug, Default)]
pub(super) struct Flows(BTreeMap<Party, Instant>);

impl Flows {
    /// The party has sent so many bytes. When more is read of it, if that is not at once.
    pub(super) fn spend(&mut self, party: &Party, bytes: usize, now: Instant) -> Option<Instant> {
        if party.is_own() {
            return None;
        }
        let until = match self.0.get_mut(party) {
            Some(until) => until,
            None => {
                self.0.retain(|_, until| *until > now);
                self.0.entry(party.clone()).or_insert(now)
            }
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).max(LEAST);
        let ahead = lasts(BURST);
        *until = ((*until).max(now) + lasts(bytes)).min(now + ahead + LONGEST);
        (*until > now + ahead).then(|| *until - ahead)
    }
}

fn lasts(bytes: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / RATE)
}

/// A connection that is read no faster than its party may send.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    stream: S,
    ticket: Ticket,
    wait: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(in crate::api) fn new(stream: S, ticket: Ticket) -> Self {
        Self { stream, ticket, wait: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        let room = buffer.remaining().min(PIECE);
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        let came = piece.filled().len();
        buffer.advance(came);
        let until = self.ticket.spend(came);
        self.wait = until.map(|until| Box::pin(sleep_until(until)));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex, repeat};

    use super::*;
    use crate::api::limits::{Limits, Most};

    /// Reads so much of a connection that never ends.
    async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: u64) -> Duration {
        let began = Instant::now();
        tokio::io::copy(&mut stream.take(bytes), &mut tokio::io::sink()).await.unwrap();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_sent_much_waits_on_all_its_connections_and_keeps_nobody_else_waiting() {
        let limits = Limits::new(Most::USUAL);
        let seat = |party| limits.admit(String::new(), party);
        let (stranger, operator, own) = (Party::User(7), Party::User(8), Party::Own);
        let seats = [stranger.clone(), stranger, operator, own].map(seat);
        let [mut first, mut second, mut other, mut unbounded] =
            seats.each_ref().map(|seat| Paced::new(repeat(0), seat.ticket()));
        assert_eq!(read(&mut first, BURST).await, Duration::ZERO);
        let took = read(&mut first, RATE).await;
        assert!((900..=1_100).contains(&took.as_millis()), "{took:?}");
        let took = read(&mut second, RATE).await;
        assert!((900..=1_100).contains(&took.as_millis()), "{took:?}");
        let mut crowd: Vec<_> = (0..9_999).map(|_| Paced::new(repeat(0), seats[0].ticket())).collect();
        for one in &mut crowd {
            assert_eq!(read(one, 1).await, Duration::ZERO);
        }
        assert!(read(&mut crowd[0], 1).await <= LONGEST, "a call of this party is not read after all others");
        assert_eq!(read(&mut other, BURST).await, Duration::ZERO);
        assert_eq!(read(&mut unbounded, 10 * BURST).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_in_calls_counts_in_however_few_bytes_it_was_sent() {
        let limits = Limits::new(Most::USUAL);
        let seat = limits.admit(String::new(), Party::User(7));
        let mut stream = Paced::new(repeat(0), seat.ticket());
        let calls: Vec<_> = (0..BURST >> 13).map(|_| seat.ticket().call(8 << 10)).collect();
        let took = read(&mut stream, RATE).await;
        assert!((900..=1_100).contains(&took.as_millis()), "{took:?} after {} calls", calls.len());
    }

    #[test]
    fn small_things_cost_more_than_their_bytes_and_what_is_long_ago_is_forgotten() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let many = BURST / LEAST;
        for _ in 0..many {
            assert_eq!(flows.spend(&Party::User(7), 1, now), None);
        }
        assert!(flows.spend(&Party::User(7), 1, now).is_some());
        let later = now + lasts(BURST) + lasts(LEAST);
        assert_eq!(flows.spend(&Party::User(8), 1, later), None);
        assert_eq!(flows.0.len(), 1);
    }

    #[tokio::test]
    async fn what_is_written_goes_on() {
        let limits = Limits::new(Most::USUAL);
        let seat = limits.admit(String::new(), Party::User(7));
        let (ours, mut theirs) = duplex(64);
        let mut paced = Paced::new(ours, seat.ticket());
        tokio::io::AsyncWriteExt::write_all(&mut paced, b"hello").await.unwrap();
        drop(paced);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
    }
}
