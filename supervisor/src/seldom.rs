//! Lines of the log that somebody could have written as often as he likes: one in a while says how many there were.

use std::time::Duration;

use tokio::time::Instant;

/// Between two of them.
const EVERY: Duration = Duration::from_secs(1);

/// One kind of line.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// There is one more. If it is to be told of, how many there were since the last that was, with this one.
    pub(crate) fn count(&mut self) -> Option<u64> {
        self.untold += 1;
        let now = Instant::now();
        if self.told.is_some_and(|at| now.duration_since(at) < EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_the_others_once_in_a_while() {
        let mut lines = Seldom::default();
        assert_eq!([lines.count(), lines.count(), lines.count()], [Some(1), None, None]);
        advance(EVERY).await;
        assert_eq!([lines.count(), lines.count()], [Some(3), None]);
    }
}
