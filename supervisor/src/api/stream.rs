//! Answers of streaming RPCs, from a task of their own to the connection.
//!
//! Each stream has a small bounded queue. A reader that takes nothing holds up only its own task; one that
//! takes nothing for long is dropped, and told why if it ever reads on.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use tokio::{sync::mpsc, time};
use tonic::{Request, Status};

use super::status::Refusal;

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

/// A message that is made when the connection has room for it: one that is not read takes no place.
type Due<T> = Box<dyn FnOnce() -> T + Send>;

/// The task's end.
pub(super) struct Outlet<T> {
    messages: mpsc::Sender<Due<T>>,
    end: End,
    patience: Patience,
}

/// The connection's end.
pub(super) struct Answers<T> {
    messages: mpsc::Receiver<Due<T>>,
    end: End,
}

/// The reader is gone, or was dropped.
#[derive(Debug)]
pub(super) struct Gone;

pub(super) fn channel<T>(patience: Patience) -> (Outlet<T>, Answers<T>) {
    let (sender, messages) = mpsc::channel(WAITING);
    let end = End::default();
    (Outlet { messages: sender, end: Arc::clone(&end), patience }, Answers { messages, end })
}

impl<T: Send + 'static> Outlet<T> {
    /// Gives the reader a message as soon as it has room for it.
    pub(super) async fn send(&self, message: T) -> Result<(), Gone> {
        self.send_when_due(move || message).await
    }

    /// The same with one that is large: it is made when the reader takes it.
    pub(super) async fn send_when_due(
        &self,
        message: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(), Gone> {
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
        permit.map(|permit| permit.send(Box::new(message))).map_err(|_| Gone)
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

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(context).map(|message| match message {
            Some(message) => Some(Ok(message())),
            None => self.end.lock().unwrap_or_else(PoisonError::into_inner).take().map(Err),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
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
