//! Answers of streaming RPCs, from a task of their own to the connection.
//!
//! Each stream has a small bounded queue. A reader that takes nothing holds up only its own task; one that
//! takes nothing for long is dropped, and told why if it ever reads on.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::Stream;
use tokio::{
    sync::mpsc,
    task::{self, JoinError},
    time,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status};

use super::{status::Refusal, turn::Turn};

/// Messages that wait for the connection: one to send while the next is made.
const WAITING: usize = 2;

/// The end of a stream, once it is known.
type End = Arc<Mutex<Option<Status>>>;

/// How long a reader may take nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as it likes: what it reads is kept elsewhere, and so is its place.
    Endless,
    /// So long.
    Until(Duration),
}

/// A minute without reading is not a slow network but a reader that does something else.
pub(super) const WATCHER: Patience = Patience::Until(Duration::from_secs(60));

/// How long after news a reader is told, in the extensions of its request. What follows on it meanwhile is told with it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace(Duration);

impl Pace {
    /// For what people look at, who see no difference. While an instance is run again, nobody encodes for fifty of them.
    pub(super) const EYES: Self = Self(Duration::from_millis(150));

    pub(super) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get().copied().unwrap_or_default()
    }

    pub(super) async fn wait(self) {
        if !self.0.is_zero() {
            time::sleep(self.0).await;
        }
    }
}

/// A message on its way.
enum Due<T> {
    Made(T),
    /// A large one is made when the connection has room for it, so that one that nobody reads takes no place; and when it is
    /// its caller's turn.
    ToMake(Make<T>),
}

type Make<T> = Box<dyn FnOnce() -> T + Send>;

/// The task's end.
pub(super) struct Outlet<T> {
    messages: mpsc::Sender<Due<T>>,
    end: End,
    patience: Patience,
}

/// The connection's end.
pub(super) struct Answers<T> {
    messages: mpsc::Receiver<Due<T>>,
    making: Option<AbortOnDropHandle<Result<T, JoinError>>>,
    turn: Turn,
    end: End,
}

/// The reader is gone, or was dropped.
#[derive(Debug)]
pub(super) struct Gone;

pub(super) fn channel<T>(patience: Patience) -> (Outlet<T>, Answers<T>) {
    let (sender, messages) = mpsc::channel(WAITING);
    let end = End::default();
    (
        Outlet { messages: sender, end: Arc::clone(&end), patience },
        Answers { messages, making: None, turn: Turn::default(), end },
    )
}

impl<T: Send + 'static> Outlet<T> {
    /// Gives the reader a message as soon as it has room for it.
    pub(super) async fn send(&self, message: T) -> Result<(), Gone> {
        self.put(Due::Made(message)).await
    }

    /// The same with one that is large.
    pub(super) async fn send_made(&self, make: impl FnOnce() -> T + Send + 'static) -> Result<(), Gone> {
        self.put(Due::ToMake(Box::new(make))).await
    }

    async fn put(&self, message: Due<T>) -> Result<(), Gone> {
        let room = self.messages.reserve();
        let permit = match self.patience {
            Patience::Endless => room.await,
            Patience::Until(limit) => match time::timeout(limit, room).await {
                Ok(permit) => permit,
                Err(_) => {
                    self.set_end(Refusal::ReaderTooSlow(limit));
                    return Err(Gone);
                }
            },
        };
        permit.map(|permit| permit.send(message)).map_err(|_| Gone)
    }

    /// Ends the stream with a refusal. What was sent before still arrives.
    pub(super) fn refuse(self, refusal: impl Into<Refusal>) {
        self.set_end(refusal.into());
    }

    /// When the reader has gone.
    pub(super) async fn gone(&self) {
        self.messages.closed().await;
    }

    fn set_end(&self, refusal: Refusal) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal.into());
    }
}

impl<T: Send + 'static> Answers<T> {
    /// Large ones are made in this turn.
    pub(super) fn in_turn(self, turn: &Turn) -> Self {
        Self { turn: turn.clone(), ..self }
    }
}

impl<T: Send + 'static> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.making.is_none() {
            match ready!(self.messages.poll_recv(context)) {
                Some(Due::Made(message)) => return Poll::Ready(Some(Ok(message))),
                Some(Due::ToMake(make)) => self.making = Some(made(make, self.turn.clone())),
                None => {
                    let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return Poll::Ready(end.map(Err));
                }
            }
        }
        let Some(making) = &mut self.making else { return Poll::Ready(None) };
        let made = ready!(Pin::new(making).poll(context));
        self.making = None;
        Poll::Ready(Some(made.flatten().map_err(|error| Status::internal(error.to_string()))))
    }
}

/// Makes a message in this turn. That is a task's, not the connection's: it looks at an answer no more while the reader has
/// no room for it, and would keep a turn that came meanwhile.
fn made<T: Send + 'static>(make: Make<T>, turn: Turn) -> AbortOnDropHandle<Result<T, JoinError>> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let turn = turn.take().await;
        // Whoever does such work here keeps those from being heard who have just called.
        let made = task::spawn_blocking(move || {
            let made = make();
            drop(turn);
            made
        });
        made.await
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use tonic::Code;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_dropped_and_told_why() {
        let (outlet, mut answers) = channel(WATCHER);
        for number in 0..WAITING {
            outlet.send(number).await.unwrap();
        }
        assert!(outlet.send(WAITING).await.is_err());
        drop(outlet);
        for number in 0..WAITING {
            assert_eq!(answers.next().await.unwrap().unwrap(), number);
        }
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::ResourceExhausted);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_has_no_room_when_its_turn_comes_does_not_keep_it() {
        let turn = Turn::default();
        let before = turn.take().await;
        let (outlet, answers) = channel(Patience::Endless);
        let mut answers = answers.in_turn(&turn);
        outlet.send_made(|| 7).await.unwrap();
        assert!(answers.next().now_or_never().is_none());
        drop(before);
        // It is looked at only after the turn of the next.
        drop(turn.take().await);
        assert_eq!(answers.next().await.unwrap().unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_patient_stream_waits_as_long_as_its_reader_likes() {
        let (outlet, mut answers) = channel(Patience::Endless);
        let writer = tokio::spawn(async move {
            for number in 0..10 {
                outlet.send(number).await.unwrap();
            }
            outlet.refuse(Refusal::ShuttingDown);
        });
        for number in 0..10 {
            time::sleep(Duration::from_secs(3600)).await;
            assert_eq!(answers.next().await.unwrap().unwrap(), number);
        }
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        writer.await.unwrap();
    }
}
