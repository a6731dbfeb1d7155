//! The recovery ladder: what is tried, in which order, before an instance is given up.
//!
//! ```text
//!   restart ────────► repair ────────► roll back ────────► quarantine
//!   with backoff      the runtime's    the last good       with a reason, until
//!                     own, once        configuration       an operator starts it
//! ```
//!
//! The next rung is climbed after some deaths in a row on one, or at once after an exit that says that another start
//! would not mend it. A rung that does not exist here is left out: no repair without a tool for it, no rolling back
//! from what is known to be good. Being ready for long enough leads back to the foot. The rescue does not wait for
//! any of it: it is called at the first death.

use alloc::string::ToString;

use serde::{Deserialize, Serialize};

use crate::{
    action::Action,
    event::{ExitStatus, LaunchFailure},
    failover::Cause,
    ids::{ConfigId, Incarnation},
    instance::{Failure, Instance, Phase},
    journal::{Kind, Recovery},
    restart::Next,
    turn::Turn,
};

/// How far up an instance is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rung {
    /// It is restarted.
    #[default]
    Restart,
    /// It was repaired.
    Repair,
    /// Its configuration was rolled back.
    RollBack,
}

/// What is durable of an instance's climb.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ladder {
    rung: Rung,
    /// Deaths on this rung.
    deaths: u32,
    /// The life that is a repair.
    repairing: Option<Incarnation>,
}

impl Ladder {
    /// How far up it is.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Deaths in a row on this rung.
    #[must_use]
    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    /// Whether this life is a repair.
    #[must_use]
    pub fn is_repair(&self, incarnation: Incarnation) -> bool {
        self.repairing == Some(incarnation)
    }

    /// Whether it is anywhere above the foot.
    pub(crate) fn climbed(&self) -> bool {
        *self != Self::default()
    }

    /// An operator starts it: it is at the foot again, and says whether it was not. A life that is a repair stays
    /// known as one: it may still run.
    pub(crate) fn begin_anew(&mut self) -> bool {
        let foot = Self { repairing: self.repairing, ..Self::default() };
        core::mem::replace(self, foot) != foot
    }

    fn climb(&mut self, rung: Rung) {
        *self = Self { rung, ..Self::default() };
    }

    /// A repair begins with this life.
    pub(crate) fn repair(&mut self, incarnation: Incarnation) {
        *self = Self { rung: Rung::Repair, deaths: 0, repairing: Some(incarnation) };
    }
}

/// What a life is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// It serves.
    #[default]
    Serve,
    /// It repairs what keeps the gateway from serving, and ends.
    Repair,
}

impl Instance {
    /// A gateway died, or could not be started: climbs if it is time for it, and says whether it did.
    pub(crate) fn climb(&mut self, turn: &mut Turn<'_>, cause: &Cause) -> bool {
        let Some(death) = self.judge(cause) else { return false };
        let policy = self.policy.ladder;
        if policy.held {
            return false;
        }
        let ladder = &mut self.record.ladder;
        ladder.deaths = ladder.deaths.saturating_add(1);
        turn.store(&self.record.name);
        let patience = match ladder.rung {
            // What was rolled back may have been changed again.
            Rung::Restart | Rung::RollBack => policy.deaths,
            // What was repaired has one try.
            Rung::Repair => 1,
        };
        if death == Death::Mendable && ladder.deaths < patience {
            return false;
        }
        if ladder.rung == Rung::Restart && death != Death::BadConfig && policy.repair.is_some() {
            self.begin_repair(turn);
            return true;
        }
        if !policy.roll_back {
            return false;
        }
        let failed = match death {
            Death::Mendable | Death::Fatal => self.record.trial.running(self.incarnation),
            Death::BadConfig => self.seen.as_ref().and_then(|seen| seen.content),
        };
        failed.is_some_and(|failed| self.roll_back(turn, failed, cause))
    }

    fn judge(&self, cause: &Cause) -> Option<Death> {
        match cause {
            Cause::Exited(exit) => match exit.status {
                ExitStatus::Code(code) if self.policy.restart.fatal_codes.contains(&code) => {
                    Some(Death::Fatal)
                }
                ExitStatus::Code(_)
                | ExitStatus::Signal { .. }
                | ExitStatus::OutOfMemory
                | ExitStatus::Unknown => Some(Death::Mendable),
            },
            Cause::Hung(_) | Cause::StartupFailed(_) => Some(Death::Mendable),
            Cause::CannotStart(LaunchFailure::BadConfig(_)) => Some(Death::BadConfig),
            // Neither the gateway nor its configuration has failed.
            Cause::CannotStart(
                LaunchFailure::PortTaken { .. }
                | LaunchFailure::Refused(_)
                | LaunchFailure::Fenced { .. }
                | LaunchFailure::Unexpected
                | LaunchFailure::Spawn(_)
                | LaunchFailure::NoAnswer,
            )
            | Cause::WorkerLost
            | Cause::ByHand => None,
        }
    }

    /// The repair is a life of its own, and known to be one before it begins: who finds it must not wait for it to
    /// become ready.
    fn begin_repair(&mut self, turn: &mut Turn<'_>) {
        self.note(turn, Kind::Recovery(Recovery::Repairing));
        self.begin_life(turn, Purpose::Repair);
        self.record.ladder.repair(self.incarnation);
        turn.store_before_launch(self.name());
    }

    fn roll_back(&mut self, turn: &mut Turn<'_>, failed: ConfigId, cause: &Cause) -> bool {
        let Some(to) = self.record.trial.refuge(failed) else { return false };
        self.record.ladder.climb(Rung::RollBack);
        self.take_back(turn, failed, to, &cause.to_string());
        self.retry(turn);
        true
    }

    /// The repair has ended, however it did: the gateway is tried once more.
    pub(crate) fn repaired(&mut self, turn: &mut Turn<'_>, cause: &Cause) {
        self.purpose = Purpose::Serve;
        // Where an earlier supervisor knew why it died, this one knows that it is dead.
        self.death.get_or_insert_with(|| cause.clone());
        self.record.ladder.repairing = None;
        turn.store(self.name());
        self.note(turn, Kind::Recovery(Recovery::Repaired { outcome: cause.to_string() }));
        self.retry(turn);
    }

    /// Tried again soon, within the budget: something has been done about it.
    pub(crate) fn retry(&mut self, turn: &mut Turn<'_>) {
        turn.store(self.name());
        let next = self.record.restarts.soon(turn.now, &self.policy.restart);
        self.wait(turn, next);
    }

    /// Waits for its next start.
    pub(crate) fn wait(&mut self, turn: &mut Turn<'_>, next: Next) {
        let policy = &self.policy.restart;
        match next {
            Next::After(delay) => {
                if !delay.is_zero() {
                    self.note(turn, Kind::BackingOff { delay });
                }
                self.enter(turn, Phase::Backoff { until: turn.now + delay });
            }
            Next::Spent(until) => {
                self.note(turn, Kind::BudgetSpent { budget: policy.budget, window: policy.window });
                // No budget at all means never.
                let retry = (policy.budget > 0).then_some(until);
                if self.policy.ladder.quarantine && !self.policy.ladder.held {
                    return self.quarantine(turn);
                }
                self.enter(turn, Phase::Failed { failure: Failure::BudgetSpent, retry });
                turn.act(Action::Release { name: self.name().clone() });
            }
        }
    }

    /// All has been tried.
    fn quarantine(&mut self, turn: &mut Turn<'_>) {
        let cause = self.death.clone().unwrap_or(Cause::WorkerLost);
        self.record.quarantined = Some(cause.clone());
        turn.store(self.name());
        self.note(turn, Kind::Recovery(Recovery::Quarantined { cause: cause.clone() }));
        self.stay_down(turn, cause);
        turn.act(Action::Release { name: self.name().clone() });
    }

    /// It is quarantined, until an operator starts it or the host is restarted.
    pub(crate) fn stay_down(&mut self, turn: &mut Turn<'_>, cause: Cause) {
        self.death = Some(cause.clone());
        self.enter(turn, Phase::Failed { failure: Failure::Quarantined(cause), retry: None });
    }
}

/// What a death says about the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// It may go well.
    Mendable,
    /// It would end the same way.
    Fatal,
    /// Its configuration is refused before it.
    BadConfig,
}
