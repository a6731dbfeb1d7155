//! Keeps a followed stream alive across the end and return of the supervisor.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    error::{Cause, Error, Operation},
    render::style::talk,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A supervisor that has been away for this long is not being upgraded.
const GIVE_UP: Duration = Duration::from_secs(120);

/// The pauses between attempts, and what is told meanwhile.
#[derive(Debug)]
pub(super) struct Reconnect {
    pause: Duration,
    away_since: Option<Instant>,
}

impl Reconnect {
    pub(super) fn new() -> Self {
        Self { pause: FIRST_PAUSE, away_since: None }
    }

    /// The supervisor answers.
    pub(super) fn answered(&mut self) {
        if self.away_since.take().is_some() {
            talk("the supervisor is back");
        }
        self.pause = FIRST_PAUSE;
    }

    /// The stream broke: waits before the next attempt, or gives up.
    pub(super) async fn broke(&mut self, cause: Cause, operation: &Operation) -> Result<(), Error> {
        let now = Instant::now();
        let since = *self.away_since.get_or_insert_with(|| {
            talk("the supervisor is gone; waiting for it to come back");
            now
        });
        if now >= since + GIVE_UP {
            return Err(cause.during(operation));
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
