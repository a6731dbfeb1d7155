//! One client's connection, whatever it came by: it has a seat, has to greet in time, and makes room when told to.

use std::{
    io,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::oneshot,
    time::{Sleep, sleep},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{either::Either, sync::WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::debug;

use super::polite::Polite;
use crate::api::{
    caller::{Caller, Peer},
    limits::{Paced, Seat},
};

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Who speaks HTTP/1 asks for `/metrics`, in so many bytes at most. hyper would keep some 400 KB of a request that does not end.
const LONGEST_QUESTION: usize = 16 << 10;

/// It has this long to say it. From then on keepalive sees who is gone; before that nothing else would.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);

/// What it came by.
pub(super) type Stream = Either<UnixStream, TlsStream<TcpStream>>;

/// A client's connection.
pub(super) struct Connection {
    stream: Polite<Paced<Stream>>,
    peer: Peer,
    seat: Seat,
    /// When it has to make room for others.
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` once the preface has come.
    greeting: Option<Greeting>,
    /// Of who speaks HTTP/1: what has come since it was last answered.
    question: Option<usize>,
    /// Dropped with it.
    _alive: Option<oneshot::Sender<()>>,
}

/// A preface on its way.
struct Greeting {
    missing: usize,
    patience: Pin<Box<Sleep>>,
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: Peer, seat: Seat) -> Self {
        let ended = Box::pin(seat.end.clone().cancelled_owned());
        let greeting = Greeting { missing: PREFACE.len(), patience: Box::pin(sleep(PREFACE_WITHIN)) };
        let stream = Polite::new(Paced::new(stream, seat.ticket()));
        Self { stream, peer, seat, ended, greeting: Some(greeting), question: None, _alive: None }
    }

    /// Has `alive` dropped when the connection has ended.
    pub(super) fn until_dropped(self, alive: oneshot::Sender<()>) -> Self {
        Self { _alive: Some(alive), ..self }
    }

    /// An error if it has to make room for others.
    fn check(&mut self, context: &mut task::Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connection {
    /// Whether it came by a socket of this host, and not by TCP.
    pub(super) fn is_local(&self) -> bool {
        match self.peer {
            Peer::Unix { .. } => true,
            Peer::Certificate { .. } => false,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller { peer: self.peer.clone(), ticket: self.seat.ticket() }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().get(before..).unwrap_or_default();
        let this = &mut *self;
        if let Some(greeting) = &this.greeting {
            let expected = &PREFACE[PREFACE.len() - greeting.missing..];
            if came.iter().zip(expected).any(|(came, expected)| came != expected) {
                this.question.get_or_insert(0);
            }
        }
        if let Some(question) = &mut this.question {
            *question += came.len();
            if *question > LONGEST_QUESTION {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        if let Some(greeting) = &mut self.greeting {
            greeting.missing = greeting.missing.saturating_sub(came.len());
            if greeting.missing == 0 {
                self.greeting = None;
            } else if greeting.patience.as_mut().poll(context).is_ready() {
                debug!("a caller that did not say what it wants was let go");
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        self.question = self.question.map(|_| 0);
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
        self.check(context)?;
        self.question = self.question.map(|_| 0);
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
