//! How a life is ended: from mild to harsh, and what follows once nothing of it is alive.

use alloc::string::{String, ToString};

use crate::{
    action::Action,
    event::Manner,
    failover::Cause,
    ids::Incarnation,
    instance::{ANSWER_LIMIT, Goal, Instance, Launching, Means, Phase, STOP_SLACK, Then},
    journal::{Kind, Recovery},
    time::Moment,
    turn::Turn,
};

impl Instance {
    /// How `manner` is done to this instance.
    pub(crate) fn means(&self, manner: Manner) -> Means {
        match manner {
            Manner::Graceful => Means::Grace(self.policy.stop_grace),
            Manner::Force => Means::Kill,
        }
    }

    /// How it is being ended, and what follows.
    pub(crate) fn ending(&self) -> Option<(Means, Then)> {
        if let Phase::Stopping { then, means } = &self.phase { Some((*means, then.clone())) } else { None }
    }

    /// Ends the current life.
    pub(crate) fn end(&mut self, turn: &mut Turn<'_>, means: Means, then: Then) {
        match &self.phase {
            Phase::Stopped => {}
            Phase::Backoff { .. } | Phase::Failed { .. } => self.rest(turn, then),
            Phase::Adopting => {
                self.overdue = self.since + ANSWER_LIMIT;
                self.enter(turn, Phase::Stopping { then, means });
            }
            Phase::Spawning if self.launching == Launching::Held => {
                turn.cancelled.push(self.name().clone());
                self.launching = Launching::No;
                self.rest(turn, then);
            }
            Phase::Spawning | Phase::Starting | Phase::Ready | Phase::Unhealthy => {
                self.order_end(turn, means, then);
            }
            Phase::Stopping { means: now, .. } => {
                let (now, harsher) = (*now, self.is_harsher(turn.now, means));
                if harsher && !self.awaits_adoption() {
                    return self.order_end(turn, means, then);
                }
                let means = if harsher { means } else { now };
                self.phase = Phase::Stopping { then, means };
                turn.touch(self.name());
            }
        }
    }

    /// Whether `means` would end it sooner than what has been ordered.
    fn is_harsher(&self, now: Moment, means: Means) -> bool {
        let Phase::Stopping { means: ordered, .. } = self.phase else { return true };
        match (ordered, means) {
            (Means::Grace(_), Means::Grace(grace)) => now + grace + STOP_SLACK < self.overdue,
            (Means::Grace(_), Means::Kill | Means::Sweep) | (Means::Kill, Means::Sweep) => true,
            (Means::Kill | Means::Sweep, Means::Grace(_))
            | (Means::Kill | Means::Sweep, Means::Kill)
            | (Means::Sweep, Means::Sweep) => false,
        }
    }

    pub(crate) fn order_end(&mut self, turn: &mut Turn<'_>, means: Means, then: Then) {
        self.health.unready();
        self.enter(turn, Phase::Stopping { then, means });
        self.order(turn);
    }

    /// What is about to be killed because it hangs is looked at first.
    pub(crate) fn examine(&self, turn: &mut Turn<'_>, cause: &Cause) {
        let (name, incarnation) = (self.name().clone(), self.incarnation);
        turn.act(Action::Examine { name, incarnation, why: cause.to_string() });
    }

    pub(crate) fn on_examined(&self, turn: &mut Turn<'_>, incarnation: Incarnation, evidence: String) {
        turn.note(self.name(), incarnation, Kind::Recovery(Recovery::Examined { evidence }));
    }

    /// Gives the order that fits the means, and sets the time by which it should have worked.
    pub(crate) fn order(&mut self, turn: &mut Turn<'_>) {
        let Phase::Stopping { means, .. } = self.phase else { return };
        let (name, incarnation) = (self.name().clone(), self.incarnation);
        match means {
            Means::Grace(grace) => {
                self.overdue = turn.now + grace + STOP_SLACK;
                turn.act(Action::Stop { name, incarnation, grace });
            }
            Means::Kill => {
                self.overdue = turn.now + STOP_SLACK;
                turn.act(Action::Kill { name, incarnation });
            }
            Means::Sweep => {
                self.overdue = turn.now + STOP_SLACK;
                turn.act(Action::Sweep { name, incarnation });
            }
        }
    }

    /// It takes longer than it should: something harsher is done.
    pub(crate) fn on_overdue(&mut self, turn: &mut Turn<'_>) {
        if self.overdue > turn.now {
            return;
        }
        let Phase::Stopping { then, means } = &self.phase else { return };
        let then = then.clone();
        let means = match (means, self.process.is_some()) {
            (Means::Grace(_), true) => {
                self.note(turn, Kind::StopOverdue);
                Means::Kill
            }
            (Means::Grace(_), false) | (Means::Kill | Means::Sweep, _) => Means::Sweep,
        };
        self.phase = Phase::Stopping { then, means };
        self.order(turn);
        turn.touch(self.name());
    }

    /// The worker is of no use; everything is killed.
    pub(crate) fn sweep(&mut self, turn: &mut Turn<'_>, then: Then) {
        self.order_end(turn, Means::Sweep, then);
    }

    /// Nothing is alive any more.
    pub(crate) fn rest(&mut self, turn: &mut Turn<'_>, then: Then) {
        self.process = None;
        self.launching = Launching::No;
        match (then, self.goal) {
            (Then::Recover(cause), Goal::Run) => self.recover(turn, &cause),
            // `settle` starts it again at once, with the worker it has.
            (Then::Run, Goal::Run) => self.enter(turn, Phase::Stopped),
            (Then::Rest, Goal::Run) => {
                self.death = None;
                self.note(turn, Kind::Stopped);
                self.enter(turn, Phase::Stopped);
            }
            (Then::Rest | Then::Run | Then::Recover(_), Goal::Rest) => {
                self.death = None;
                self.note(turn, Kind::Stopped);
                self.enter(turn, Phase::Stopped);
                turn.act(Action::Release { name: self.name().clone() });
                self.restore_now(turn);
            }
        }
    }
}
