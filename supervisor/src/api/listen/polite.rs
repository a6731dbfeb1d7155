//! Nothing more is read of a caller as long as it does not take what it was told.
//!
//! The headers of answers, and answers to PING, are held back by no window of HTTP/2: who called on and on and read nothing
//! would have them all kept here. Whoever takes nothing for [`WITHIN`] is let go: keepalive alone would not do it, as its
//! last word has to wait, too.
//!
//! ```text
//!          a write has to wait           it went on, so more may be waiting
//!   Free ──────────────────────► Full ──────────────────────────────────────► Tried
//!    ▲                            ▲ a write has to wait                         │
//!    └─ asked again ── Asked ─────┘◄────────────────────────────────────────────┤
//!                        ▲                                                      │ asked to read
//!                        └──────────────────────────────────────────────────────┘
//! ```
//!
//! Whoever has the connection writes all that it has each time that it is run, unless a write has to wait; so when it has
//! asked to read in two runs without such a one between, nothing is left.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Who is told something has this long to take some of it.
const WITHIN: Duration = Duration::from_secs(40);

/// A connection that is read while its caller reads.
#[derive(Debug)]
pub(super) struct Polite<S> {
    stream: S,
    way: Way,
}

/// How it is with what is to be written.
#[derive(Debug)]
enum Way {
    /// All of it is.
    Free,
    /// It waits, for as long as there is patience; and so may who would read.
    Full { reader: Option<Waker>, patience: Pin<Box<Sleep>> },
    /// Some of it went on.
    Tried,
    /// That it did was seen by who would read.
    Asked,
}

impl<S> Polite<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, way: Way::Free }
    }

    fn wrote<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            return self.waits(context).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        if let Way::Full { reader, .. } = &mut self.way {
            if let Some(reader) = reader.take() {
                reader.wake();
            }
            self.way = Way::Tried;
        }
        written
    }

    /// A write does, until patience ends.
    fn waits(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Way::Full { patience, .. } = &mut self.way {
            return patience.as_mut().poll(context);
        }
        let mut patience = Box::pin(sleep(WITHIN));
        let ended = patience.as_mut().poll(context);
        self.way = Way::Full { reader: None, patience };
        ended
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Polite<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Free => {}
            Way::Full { reader, .. } => {
                *reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            Way::Tried => {
                self.way = Way::Asked;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Way::Asked => self.way = Way::Free,
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Polite<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.stream).poll_flush(context);
        self.wrote(context, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const ROOM: usize = 64;

    #[tokio::test]
    async fn who_takes_nothing_is_not_read_until_it_has_taken_all() {
        let (ours, mut theirs) = duplex(ROOM);
        let mut polite = Polite::new(ours);
        theirs.write_all(&[7; 10]).await.unwrap();
        assert_eq!(polite.read_u8().await.unwrap(), 7);
        // More than there is room for.
        assert!(polite.write_all(&[1; ROOM + 1]).now_or_never().is_none());
        assert!(polite.read_u8().now_or_never().is_none());
        theirs.read_exact(&mut [0; 8]).await.unwrap();
        // What has gone on may be a part of it: it is read when nothing more waits.
        polite.write_all(&[1; 8]).await.unwrap();
        assert!(polite.read_u8().now_or_never().is_none());
        assert!(polite.write_all(&[1]).now_or_never().is_none(), "it is full again");
        assert!(polite.read_u8().now_or_never().is_none());
        assert!(polite.read_u8().now_or_never().is_none());
        theirs.read_exact(&mut [0; ROOM]).await.unwrap();
        polite.flush().await.unwrap();
        assert!(polite.read_u8().now_or_never().is_none());
        assert_eq!(polite.read_u8().now_or_never().unwrap().unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_go_and_who_takes_a_little_is_not() {
        let (ours, mut theirs) = duplex(ROOM);
        let mut polite = Polite::new(ours);
        let told = tokio::spawn(async move { polite.write_all(&[1; 2 * ROOM]).await });
        sleep(WITHIN / 2).await;
        theirs.read_u8().await.unwrap();
        sleep(WITHIN - Duration::from_secs(1)).await;
        assert!(!told.is_finished());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(told.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_waits_to_read_is_woken_when_its_caller_has_read() {
        let (ours, mut theirs) = duplex(ROOM);
        let mut polite = Polite::new(ours);
        assert!(polite.write_all(&[1; ROOM + 1]).now_or_never().is_none());
        theirs.write_all(&[7]).await.unwrap();
        // As a connection does: it reads, then writes what it has, each time that it is run.
        let mut left = 1;
        let talking = tokio::spawn(async move {
            poll_fn(move |context| {
                let mut byte = [0];
                let mut buffer = ReadBuf::new(&mut byte);
                if Pin::new(&mut polite).poll_read(context, &mut buffer).is_ready() {
                    return Poll::Ready(buffer.filled().to_vec());
                }
                if left > 0 && Pin::new(&mut polite).poll_write(context, &[1]).is_ready() {
                    left -= 1;
                }
                Poll::Pending
            })
            .await
        });
        theirs.read_exact(&mut [0; ROOM + 1]).await.unwrap();
        assert_eq!(talking.await.unwrap(), [7]);
    }
}
