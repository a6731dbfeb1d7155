//! How a start and the health of a running gateway are judged.
//!
//! A start is given time by its progress, not by a fixed limit. A running gateway answers one probe for two
//! questions, liveness and readiness; each has its own threshold: N failures in a row, or N of the last M, which
//! also finds a gateway that answers now and then. Becoming ready again takes several good answers in a row, so that
//! a flapping gateway does not flap its status. A gateway that could not be asked is judged as it was before.

use alloc::string::String;
use core::time::Duration;

use crate::{
    event::{Report, Verdict},
    policy::{HealthPolicy, Startup, Threshold, Watch},
    rng::Rng,
    time::{Deadline, Moment, Why},
};

/// Good answers in a row that make an unhealthy gateway ready again.
const RECOVERY: u32 = 2;

/// Given to a probe beyond its timeout: the shell answers by the timeout, so this only passes if it cannot.
const ANSWER_SLACK: Duration = Duration::from_secs(2);

/// The outcomes of so many probes are remembered.
pub const OUTCOMES: u32 = u64::BITS;

/// The longest probe message kept.
const MESSAGE: usize = 300;

/// What is known of one incarnation's health.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    started: Moment,
    progressed: Moment,
    progress: u64,
    next_probe: Option<Moment>,
    answer_by: Option<Moment>,
    live: Outcomes,
    ready: Outcomes,
    good: u32,
    message: String,
    ready_since: Option<Moment>,
    /// It could not be asked the last time.
    unknown: bool,
}

/// How one question was answered the last times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Outcomes {
    /// Failures in a row.
    run: u32,
    /// A failure is a 1; the newest is in the lowest bit.
    bits: u64,
}

impl Outcomes {
    fn passed(&mut self) {
        *self = Self { run: 0, bits: self.bits << 1 };
    }

    fn failed(&mut self) {
        *self = Self { run: self.run.saturating_add(1), bits: self.bits << 1 | 1 };
    }

    fn reach(self, threshold: Threshold) -> bool {
        let window = u64::MAX.checked_shr(OUTCOMES.saturating_sub(threshold.of)).unwrap_or(0);
        self.run >= threshold.failures || (self.bits & window).count_ones() >= threshold.failures
    }
}

/// What an answer, or a deadline, means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing new.
    Same,
    /// The start is over, or the gateway is well again.
    Ready,
    /// From now on nothing is known of it, and why.
    Unknown(String),
    /// It runs and does not serve.
    Unhealthy(String),
    /// It does not answer any more.
    Hung(String),
    /// The start has failed.
    StartupFailed(String),
}

impl Health {
    /// A process that started now.
    #[must_use]
    pub fn starting(now: Moment, policy: &HealthPolicy) -> Self {
        let next_probe = (policy.startup == Startup::Probe).then_some(now);
        Self { started: now, progressed: now, next_probe, ..Self::default() }
    }

    /// The gateway has become ready.
    pub fn ready(&mut self, now: Moment, policy: &HealthPolicy, rng: &mut Rng) {
        self.ready_since = Some(now);
        self.live = Outcomes::default();
        self.ready = Outcomes::default();
        self.good = 0;
        self.message.clear();
        self.answer_by = None;
        // By chance, so that a thousand instances started at once are not all asked at once.
        self.next_probe = policy.watch.map(|watch| now + watch.interval / 2 + rng.span(watch.interval / 2));
    }

    /// The gateway is not ready any more.
    pub fn unready(&mut self) {
        self.ready_since = None;
        self.good = 0;
    }

    /// Since when it has been ready without a break.
    #[must_use]
    pub fn ready_since(&self) -> Option<Moment> {
        self.ready_since
    }

    /// The last failed probe's sentence; empty if the last one passed.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Failures in a row: of liveness, of readiness.
    #[must_use]
    pub fn failures(&self) -> (u32, u32) {
        (self.live.run, self.ready.run)
    }

    /// Whether a probe is due; if so it counts as asked.
    pub fn ask(&mut self, now: Moment, policy: &HealthPolicy) -> bool {
        if self.next_probe.is_none_or(|at| at > now) {
            return false;
        }
        self.next_probe = None;
        let timeout = policy.watch.map_or(policy.startup_deadline, |watch| watch.timeout);
        self.answer_by = Some(now + timeout + ANSWER_SLACK);
        true
    }

    /// A probe's answer to a starting gateway. An answer that nobody waits for says nothing.
    pub fn startup_answer(&mut self, now: Moment, policy: &HealthPolicy, report: Report) -> Finding {
        if self.answer_by.take().is_none() {
            return Finding::Same;
        }
        self.next_probe = Some(now + policy.startup_interval);
        if report.progress != self.progress {
            self.progress = report.progress;
            self.progressed = now;
        }
        match report.ready {
            Verdict::Pass => Finding::Ready,
            Verdict::Fail(message) => {
                self.unknown = false;
                self.say(message);
                Finding::Same
            }
            Verdict::Unknown(why) => {
                // It may have advanced.
                self.progressed = now;
                self.lose_sight(why)
            }
        }
    }

    /// Nothing is known of it from now on, if that is new.
    fn lose_sight(&mut self, why: String) -> Finding {
        self.say(why);
        if core::mem::replace(&mut self.unknown, true) {
            return Finding::Same;
        }
        Finding::Unknown(self.message.clone())
    }

    /// A probe's answer to a running gateway. An answer that nobody waits for says nothing.
    pub fn watch_answer(&mut self, now: Moment, policy: &HealthPolicy, report: Report) -> Finding {
        let (Some(watch), Some(_)) = (policy.watch, self.answer_by.take()) else { return Finding::Same };
        self.next_probe = Some(now + watch.interval);
        self.judge(watch, report)
    }

    fn judge(&mut self, watch: Watch, report: Report) -> Finding {
        match report.live {
            Verdict::Pass => self.live.passed(),
            Verdict::Fail(message) => {
                self.live.failed();
                self.good = 0;
                self.say(message);
                if self.live.reach(watch.live) {
                    return Finding::Hung(self.message.clone());
                }
            }
            // For nothing it has done.
            Verdict::Unknown(why) => return self.lose_sight(why),
        }
        if !matches!(report.ready, Verdict::Unknown(_)) {
            self.unknown = false;
        }
        match report.ready {
            Verdict::Pass => {
                self.ready.passed();
                self.message.clear();
                self.good = self.good.saturating_add(1);
                if self.ready_since.is_none() && self.good >= RECOVERY {
                    return Finding::Ready;
                }
            }
            Verdict::Fail(message) => {
                self.ready.failed();
                self.good = 0;
                self.say(message);
                if self.ready_since.is_some() && self.ready.reach(watch.ready) {
                    return Finding::Unhealthy(self.message.clone());
                }
            }
            Verdict::Unknown(why) => return self.lose_sight(why),
        }
        Finding::Same
    }

    /// What has come due by now while starting.
    pub fn startup_due(&mut self, now: Moment, policy: &HealthPolicy) -> Finding {
        if self.answer_by.is_some_and(|by| by <= now) {
            self.answer_by = None;
            self.next_probe = Some(now);
            self.say("a startup probe was not answered".into());
        }
        if self.startup_by(policy) > now {
            return Finding::Same;
        }
        let limit = if self.started + policy.startup_cap <= now {
            alloc::format!("took longer than {}", crate::time::Humane(policy.startup_cap))
        } else {
            alloc::format!("no progress for {}", crate::time::Humane(policy.startup_deadline))
        };
        let last = if self.message.is_empty() { "" } else { "; last answer: " };
        Finding::StartupFailed(alloc::format!("{limit}{last}{}", self.message))
    }

    /// What has come due by now while running.
    pub fn watch_due(&mut self, now: Moment, policy: &HealthPolicy) -> Finding {
        if self.answer_by.is_none_or(|by| by > now) {
            return Finding::Same;
        }
        let no_answer = || Verdict::Fail("a probe was not answered".into());
        self.watch_answer(now, policy, Report { live: no_answer(), ready: no_answer(), progress: 0 })
    }

    /// When the start fails unless something happens.
    fn startup_by(&self, policy: &HealthPolicy) -> Moment {
        (self.progressed + policy.startup_deadline).min(self.started + policy.startup_cap)
    }

    /// When to look again while starting.
    #[must_use]
    pub fn startup_deadline(&self, policy: &HealthPolicy) -> Deadline {
        let limit = Deadline { at: self.startup_by(policy), why: Why::Startup };
        self.probe_deadline().map_or(limit, |probe| probe.min(limit))
    }

    /// When to look again while running.
    #[must_use]
    pub fn probe_deadline(&self) -> Option<Deadline> {
        let probe = self.next_probe.map(|at| Deadline { at, why: Why::Probe });
        let answer = self.answer_by.map(|at| Deadline { at, why: Why::ProbeAnswer });
        probe.into_iter().chain(answer).min()
    }

    fn say(&mut self, mut message: String) {
        if let Some((cut, _)) = message.char_indices().nth(MESSAGE) {
            message.truncate(cut);
        }
        self.message = message;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn n_of_the_last_m_is_what_a_list_of_all_outcomes_says(
            failures in 1..12_u32,
            more in 0..60_u32,
            all in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let threshold = Threshold { failures, of: (failures + more).min(OUTCOMES) };
            let mut outcomes = Outcomes::default();
            for (at, failed) in all.iter().enumerate() {
                if *failed { outcomes.failed() } else { outcomes.passed() }
                let newest = all[..=at].iter().rev().take(threshold.of as usize);
                let failed = newest.filter(|failed| **failed).count();
                prop_assert_eq!(outcomes.reach(threshold), failed >= failures as usize);
            }
        }
    }

    #[test]
    fn failures_in_a_row_may_be_more_than_are_remembered() {
        let mut outcomes = Outcomes::default();
        let threshold = Threshold::in_a_row(2 * OUTCOMES);
        for _ in 1..2 * OUTCOMES {
            outcomes.failed();
            assert!(!outcomes.reach(threshold) && !outcomes.reach(Threshold::NEVER));
        }
        outcomes.failed();
        assert!(outcomes.reach(threshold));
    }
}
