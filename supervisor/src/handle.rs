//! The door to the driver: commands in, views out. Cheap to clone; usable from any thread.

use std::{sync::Arc, time::Duration};

use supervisor_core::{
    action::Done,
    denied::Denied,
    event::{Asker, Command},
    view::View,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};

/// Commands that may wait for the driver. It takes in thousands a second, so that more would only wait longer.
pub(crate) const COMMANDS: usize = 256;

/// How long a caller waits among those. The driver takes a command in within microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who asks for what, and where the reply goes.
pub(crate) type Submission = (Asker, Command, oneshot::Sender<Result<Done, Denied>>);

/// The door.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Submission>,
    view: watch::Receiver<Arc<View>>,
}

/// Why a command has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Core refused it; nothing has changed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Too many commands wait, and have waited for long.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The driver has ended. The command may or may not have been done.
    #[error("the supervisor is shutting down")]
    Gone,
}

impl Handle {
    /// A door, and the driver's side of it.
    pub(crate) fn new(view: watch::Receiver<Arc<View>>) -> (Self, mpsc::Receiver<Submission>) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        (Self { commands, view }, inbox)
    }

    /// Gives a command and waits until it is durable, or refused.
    pub async fn submit(&self, command: Command) -> Result<Done, SubmitError> {
        self.submit_by(Asker::Operator, command).await
    }

    /// The same for somebody in particular.
    pub async fn submit_by(&self, by: Asker, command: Command) -> Result<Done, SubmitError> {
        let (reply, outcome) = oneshot::channel();
        let given = time::timeout(PATIENCE, self.commands.send((by, command, reply))).await;
        given.map_err(|_| SubmitError::Overloaded)?.map_err(|_| SubmitError::Gone)?;
        Ok(outcome.await.map_err(|_| SubmitError::Gone)??)
    }

    /// How many commands wait.
    pub(crate) fn waiting(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// What is seen now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Wakes whenever what is seen has changed. Several changes may come as one; none is missed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }
}

#[cfg(test)]
mod tests;
