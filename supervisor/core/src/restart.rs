//! When a dead instance is run again: growing delays with chance added, within a budget.

use alloc::collections::VecDeque;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{policy::RestartPolicy, rng::Rng, time::Moment};

/// What an instance's restarts have been so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Restarts within the budget's window, oldest first; never more than the budget.
    recent: VecDeque<Moment>,
    /// Deaths since the instance was last stable.
    in_row: u32,
    /// Restarts since the instance was last started by hand.
    total: u32,
    /// Since when it has died or could not be started, without having been well for long enough meanwhile.
    #[serde(default)]
    since: Option<Moment>,
}

/// What to do about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run it again after this delay.
    After(Duration),
    /// The budget is spent until then.
    Spent(Moment),
}

impl Restarts {
    /// When it is run again after something was done about its death: after the shortest delay, within the budget.
    #[must_use]
    pub fn soon(&mut self, now: Moment, policy: &RestartPolicy) -> Next {
        self.spent(now, policy).map_or(Next::After(policy.initial_delay.min(policy.max_delay)), Next::Spent)
    }

    /// Until when the budget is spent, if it is.
    fn spent(&mut self, now: Moment, policy: &RestartPolicy) -> Option<Moment> {
        while self.recent.front().is_some_and(|first| now.since(*first) >= policy.window) {
            self.recent.pop_front();
        }
        let budget = usize::try_from(policy.budget).unwrap_or(usize::MAX);
        let over = self.recent.len().checked_sub(budget)?;
        // A budget made smaller may be overspent by several: all of those have to leave the window.
        Some(self.recent.get(over).map_or(now, |last| *last) + policy.window)
    }

    /// Judges a death now.
    #[must_use]
    pub fn next(&mut self, now: Moment, policy: &RestartPolicy, rng: &mut Rng) -> Next {
        if let Some(until) = self.spent(now, policy) {
            return Next::Spent(until);
        }
        let delay = delay(self.in_row, policy);
        self.in_row = self.in_row.saturating_add(1);
        let jitter = delay.as_nanos() * u128::from(policy.jitter_permille) / 1000;
        let jitter = Duration::from_nanos(u64::try_from(jitter).unwrap_or(u64::MAX));
        Next::After(delay + rng.span(jitter))
    }

    /// A restart happens now.
    pub fn count(&mut self, now: Moment, policy: &RestartPolicy) {
        self.total = self.total.saturating_add(1);
        self.recent.push_back(now);
        while self.recent.len() > usize::try_from(policy.budget).unwrap_or(usize::MAX).max(1) {
            self.recent.pop_front();
        }
    }

    /// The instance has been well for long enough.
    pub fn stable(&mut self) {
        self.in_row = 0;
        self.since = None;
    }

    /// It died, or could not be started. Whether that is the first trouble since it was well.
    pub(crate) fn trouble(&mut self, now: Moment) -> bool {
        self.since.replace(self.since.unwrap_or(now)).is_none()
    }

    /// It is ready, and no death is counted: it could not be started for some time, no more.
    pub(crate) fn over(&mut self) {
        self.since = None;
    }

    /// Since when it has died or could not be started, without having been well for long enough meanwhile.
    #[must_use]
    pub fn since(&self) -> Option<Moment> {
        self.since
    }

    /// An operator starts it: all is forgotten. Whether there was anything.
    pub fn forget(&mut self) -> bool {
        core::mem::take(self) != Self::default()
    }

    /// Lets none of them be later than `now`, and says whether one was.
    pub(crate) fn no_later_than(&mut self, now: Moment) -> bool {
        let moments = self.recent.iter_mut().chain(self.since.as_mut());
        moments.fold(false, |later, at| {
            let kept = now.min(*at);
            core::mem::replace(at, kept) > now || later
        })
    }

    /// Restarts since the instance was last started by hand.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Whether there are deaths to forget.
    #[must_use]
    pub fn troubled(&self) -> bool {
        self.in_row > 0
    }

    /// Restarts that still count against the budget at `now`.
    #[must_use]
    pub fn within(&self, now: Moment, window: Duration) -> usize {
        self.recent.iter().filter(|at| now.since(**at) < window).count()
    }
}

/// The delay after so many deaths in a row, without chance.
fn delay(in_row: u32, policy: &RestartPolicy) -> Duration {
    let mut delay = policy.initial_delay.min(policy.max_delay);
    for _ in 0..in_row {
        let grown = delay.as_nanos() * u128::from(policy.multiplier_permille) / 1000;
        let grown = Duration::from_nanos(u64::try_from(grown).unwrap_or(u64::MAX));
        if grown <= delay || grown >= policy.max_delay {
            return if grown <= delay { delay } else { policy.max_delay };
        }
        delay = grown;
    }
    delay
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use proptest::prelude::{prop_assert, proptest};

    fn policy() -> RestartPolicy {
        RestartPolicy { jitter_permille: 0, ..Policy::default().restart }
    }

    #[test]
    fn delays_double_up_to_their_limit_and_begin_anew_once_stable() {
        let (policy, mut rng) = (RestartPolicy { budget: 100, ..policy() }, Rng::new(0));
        let mut restarts = Restarts::default();
        let mut next = || restarts.next(Moment(0), &policy, &mut rng);
        assert_eq!(next(), Next::After(Duration::from_millis(100)));
        assert_eq!(next(), Next::After(Duration::from_millis(200)));
        for _ in 0..20 {
            let _ = next();
        }
        assert_eq!(next(), Next::After(Duration::from_secs(60)));
        restarts.stable();
        assert_eq!(restarts.next(Moment(0), &policy, &mut rng), Next::After(Duration::from_millis(100)));
    }

    #[test]
    fn openclaws_crash_loop_breaker_is_not_tripped_by_the_default_delays() {
        let policy = RestartPolicy {
            initial_delay: Duration::from_secs(1),
            multiplier_permille: 20_000,
            max_delay: Duration::from_secs(330),
            ..policy()
        };
        let delays: [_; 4] = core::array::from_fn(|n| delay(u32::try_from(n).unwrap(), &policy).as_secs());
        assert_eq!(delays, [1, 20, 330, 330]);
    }

    proptest! {
        #[test]
        fn no_window_holds_more_restarts_than_the_budget(
            budget in 1u32..6, window in 1u64..50, gaps in proptest::collection::vec(0u64..20, 1..200), seed: u64,
        ) {
            let policy = RestartPolicy { budget, window: Duration::from_nanos(window), ..policy() };
            let (mut restarts, mut rng) = (Restarts::default(), Rng::new(seed));
            let (mut now, mut done) = (Moment(0), alloc::vec::Vec::new());
            for gap in gaps {
                now = now + Duration::from_nanos(gap);
                match restarts.next(now, &policy, &mut rng) {
                    Next::After(delay) => {
                        now = now + delay;
                        restarts.count(now, &policy);
                        done.push(now);
                    }
                    Next::Spent(until) => prop_assert!(until > now),
                }
                let inside = done.iter().filter(|at| now.since(**at) < policy.window).count();
                prop_assert!(inside <= usize::try_from(budget).unwrap());
            }
        }
    }
}
