//! Exits with status 0: "I was stopped" or "run me again".
//!
//! The gateway leaves a note beside its state that says which, and asking for it takes seconds. An instance that is
//! always run again is run again meanwhile; what waits for the answer is whether it died, which calls its rescue. One
//! that is left down after a clean exit waits with its start, too.

use core::time::Duration;

use crate::{
    action::Action,
    event::{Exit, ExitStatus, Handoff},
    failover::Cause,
    ids::Incarnation,
    instance::{Instance, Phase},
    journal::{Kind, Recovery},
    ladder::Purpose,
    policy::Condition,
    turn::Turn,
};

/// The shell answers sooner; this passes only if it cannot.
const LIMIT: Duration = Duration::from_secs(30);

impl Instance {
    /// A life ended by itself. If only its runtime knows what that means, it is asked, and nothing else is to be done
    /// about it for now.
    pub(crate) fn asks_about(&mut self, turn: &mut Turn<'_>, exit: &Exit) -> bool {
        let clean = exit.status == ExitStatus::Code(0) && !exit.ordered;
        let Some(process) = self.process else { return false };
        if !clean || !self.policy.restart.handoff || self.purpose == Purpose::Repair {
            return false;
        }
        let (name, incarnation) = (self.name().clone(), exit.incarnation);
        turn.act(Action::AskHandoff { name, incarnation, pid: process.pid });
        self.process = None;
        self.asked = Some(exit.clone());
        match self.policy.restart.condition {
            Condition::Always => self.retry(turn),
            Condition::OnFailure | Condition::Never => {
                self.enter(turn, Phase::Backoff { until: turn.now + LIMIT });
            }
        }
        true
    }

    pub(crate) fn on_handoff(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation, handoff: Handoff) {
        let Some(exit) = self.asked.take_if(|exit| exit.incarnation == incarnation) else {
            return self.stale(turn, incarnation);
        };
        match handoff {
            Handoff::Restart(reason) => {
                self.note(turn, Kind::Recovery(Recovery::RestartWanted { reason }));
                if matches!(self.phase, Phase::Backoff { .. }) {
                    self.again(turn);
                }
            }
            Handoff::Nothing => self.ended_by_itself(turn, exit),
            Handoff::Unknown(why) => {
                self.note(turn, Kind::Recovery(Recovery::HandoffUnknown { why }));
                self.ended_by_itself(turn, exit);
            }
        }
    }

    /// It did not want to be run again. Where that makes no difference, it has died.
    fn ended_by_itself(&mut self, turn: &mut Turn<'_>, exit: Exit) {
        let waits = matches!(self.phase, Phase::Backoff { .. });
        let cause = Cause::Exited(exit);
        match self.policy.restart.condition {
            Condition::OnFailure | Condition::Never if waits => self.recover(turn, &cause),
            Condition::Always | Condition::OnFailure | Condition::Never => {
                let is_back = match self.phase {
                    Phase::Ready | Phase::Stopped | Phase::Stopping { .. } | Phase::Adopting => true,
                    Phase::Spawning
                    | Phase::Starting
                    | Phase::Unhealthy
                    | Phase::Backoff { .. }
                    | Phase::Failed { .. } => false,
                };
                if !is_back && self.death.is_none() {
                    self.death = Some(cause);
                    turn.touch(self.name());
                }
            }
        }
    }

    /// Its backoff is over. `settle` starts it, as it starts whatever should run and does not; but who waited for an
    /// answer has got none.
    pub(crate) fn waited(&mut self, turn: &mut Turn<'_>) {
        match (self.policy.restart.condition, &self.asked) {
            (Condition::OnFailure | Condition::Never, Some(exit)) => {
                let cause = Cause::Exited(exit.clone());
                self.asked = None;
                self.recover(turn, &cause);
            }
            (Condition::Always, _) | (Condition::OnFailure | Condition::Never, None) => self.again(turn),
        }
    }
}
