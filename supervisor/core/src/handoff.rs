//! Exits with status 0: "I was stopped" or "run me again".
//!
//! The gateway leaves a note beside its state that says which, and asking for it takes a moment. Until the answer comes
//! it is neither run again nor taken for dead: a restart that was wanted calls no rescue and counts as no failure.

use core::time::Duration;

use crate::{
    action::Action,
    event::{Exit, ExitStatus, Handoff},
    failover::Cause,
    ids::Incarnation,
    instance::{Instance, Phase},
    journal::{Kind, Recovery},
    ladder::Purpose,
    restart::Next,
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
        self.enter(turn, Phase::Backoff { until: turn.now + LIMIT });
        true
    }

    pub(crate) fn on_handoff(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation, handoff: Handoff) {
        let Some(exit) = self.asked.take_if(|exit| exit.incarnation == incarnation) else {
            return self.stale(turn, incarnation);
        };
        let waits = matches!(self.phase, Phase::Backoff { .. });
        match handoff {
            Handoff::Restart(reason) => {
                self.note(turn, Kind::Recovery(Recovery::RestartWanted { reason }));
                if waits {
                    self.wanted_again(turn);
                }
            }
            Handoff::Unknown(why) => {
                self.note(turn, Kind::Recovery(Recovery::HandoffUnknown { why }));
                if waits {
                    self.recover(turn, &Cause::Exited(exit));
                }
            }
            Handoff::Nothing if waits => self.recover(turn, &Cause::Exited(exit)),
            Handoff::Nothing => {}
        }
    }

    /// It is run again at once; only one that wants that all the time is held by its budget.
    fn wanted_again(&mut self, turn: &mut Turn<'_>) {
        match self.record.restarts.soon(turn.now, &self.policy.restart) {
            Next::After(_) => self.again(turn),
            spent @ Next::Spent(_) => self.wait(turn, spent),
        }
    }

    /// Its backoff is over. `settle` starts it, as it starts whatever should run and does not; but who waited for an
    /// answer has got none.
    pub(crate) fn waited(&mut self, turn: &mut Turn<'_>) {
        match self.asked.take() {
            Some(exit) => self.recover(turn, &Cause::Exited(exit)),
            None => self.again(turn),
        }
    }
}
