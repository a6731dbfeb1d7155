//! What can happen to an instance: one function for each event, one arm for each phase.

use alloc::sync::Arc;

use crate::{
    action::{Action, ProbeKind},
    event::{Adoption, Exit, ExitStatus, Found, LaunchFailure, Manner, Process, Report},
    failover::Cause,
    health::{Finding, Health},
    ids::Incarnation,
    instance::{ANSWER_LIMIT, Boot, Failure, Goal, Instance, Launching, Means, Phase, Then},
    journal::Kind,
    policy::Startup,
    turn::Turn,
};

impl Instance {
    pub(crate) fn on_launched(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation, process: Process) {
        if incarnation != self.incarnation || self.launching == Launching::No {
            return self.stale(turn, incarnation);
        }
        self.launching = Launching::No;
        self.process = Some(process);
        self.record.launched = incarnation;
        if self.record.previous_base.take().is_some() {
            turn.store(self.name());
        }
        self.note(turn, Kind::Started { pid: process.pid });
        match &self.phase {
            Phase::Spawning => self.started(turn),
            Phase::Stopping { .. } => self.order(turn),
            Phase::Stopped
            | Phase::Adopting
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    fn started(&mut self, turn: &mut Turn<'_>) {
        self.health = Health::starting(turn.now, &self.policy.health);
        self.enter(turn, Phase::Starting);
        match self.policy.health.startup {
            Startup::AtOnce => self.become_ready(turn),
            Startup::Notify => {}
            Startup::Probe => self.probe(turn, ProbeKind::Startup),
        }
    }

    fn become_ready(&mut self, turn: &mut Turn<'_>) {
        let after = turn.now.since(self.process.map_or(turn.now, |process| process.started));
        let kind = if self.phase == Phase::Unhealthy { Kind::Healthy } else { Kind::Ready { after } };
        self.health.ready(turn.now, &self.policy.health, turn.rng);
        self.note(turn, kind);
        self.death = None;
        self.alone = false;
        self.enter(turn, Phase::Ready);
    }

    pub(crate) fn on_launch_failed(
        &mut self,
        turn: &mut Turn<'_>,
        incarnation: Incarnation,
        failure: LaunchFailure,
    ) {
        if incarnation != self.incarnation || self.launching == Launching::No {
            return self.stale(turn, incarnation);
        }
        self.launching = Launching::No;
        let then = match &self.phase {
            Phase::Stopping { means: Means::Sweep, .. } => return,
            Phase::Stopping { then, .. } => then.clone(),
            Phase::Spawning
            | Phase::Stopped
            | Phase::Adopting
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {
                if self.death != Some(Cause::CannotStart(failure.clone())) {
                    self.note(turn, Kind::LaunchFailed(failure.clone()));
                }
                Then::Recover(Cause::CannotStart(failure))
            }
        };
        self.rest(turn, then);
    }

    pub(crate) fn on_notified(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) {
        if incarnation != self.incarnation {
            return self.stale(turn, incarnation);
        }
        if self.phase == Phase::Starting && self.policy.health.startup == Startup::Notify {
            self.become_ready(turn);
        }
    }

    pub(crate) fn on_probed(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation, report: Report) {
        if incarnation != self.incarnation {
            return self.stale(turn, incarnation);
        }
        let finding = match self.phase {
            Phase::Starting => self.health.startup_answer(turn.now, &self.policy.health, report),
            Phase::Ready | Phase::Unhealthy => {
                self.health.watch_answer(turn.now, &self.policy.health, report)
            }
            Phase::Stopped
            | Phase::Adopting
            | Phase::Spawning
            | Phase::Stopping { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => return,
        };
        turn.rearm(self.name());
        self.on_finding(turn, finding);
    }

    fn on_finding(&mut self, turn: &mut Turn<'_>, finding: Finding) {
        match finding {
            Finding::Same => {}
            Finding::Ready => self.become_ready(turn),
            Finding::Unhealthy(message) => {
                self.health.unready();
                self.note(turn, Kind::Unhealthy { message });
                self.enter(turn, Phase::Unhealthy);
            }
            Finding::Hung(message) => {
                self.note(turn, Kind::Hung { message: message.clone() });
                self.die(turn, Cause::Hung(message));
            }
            Finding::StartupFailed(message) => {
                self.note(turn, Kind::StartupFailed { message: message.clone() });
                self.die(turn, Cause::StartupFailed(message));
            }
        }
    }

    /// It is as good as dead: it is killed, and its death counts from now.
    fn die(&mut self, turn: &mut Turn<'_>, cause: Cause) {
        self.death = Some(cause.clone());
        self.order_end(turn, Means::Kill, Then::Recover(cause));
    }

    pub(crate) fn on_exited(&mut self, turn: &mut Turn<'_>, exit: Exit) {
        turn.act_durably(Action::Acknowledge { name: self.name().clone(), incarnation: exit.incarnation });
        if exit.incarnation <= self.record.seen || exit.incarnation > self.incarnation {
            return self.stale(turn, exit.incarnation);
        }
        self.record_exit(turn, &exit);
        if exit.incarnation < self.incarnation {
            return;
        }
        self.launching = Launching::No;
        match &self.phase {
            Phase::Spawning | Phase::Starting | Phase::Ready | Phase::Unhealthy => {
                self.health.unready();
                self.process = None;
                if self.goal == Goal::Run {
                    self.recover(turn, Cause::Exited(exit));
                } else {
                    self.rest(turn, Then::Rest);
                }
            }
            // Only the sweep proves that the worker itself is gone.
            Phase::Stopping { means: Means::Sweep, .. } => {}
            Phase::Stopping { then, .. } => {
                let then = then.clone();
                self.rest(turn, then);
            }
            Phase::Stopped | Phase::Adopting | Phase::Backoff { .. } | Phase::Failed { .. } => {}
        }
    }

    fn record_exit(&mut self, turn: &mut Turn<'_>, exit: &Exit) {
        self.record.seen = exit.incarnation;
        self.record.launched = self.record.launched.max(exit.incarnation);
        turn.store(self.name());
        turn.note(self.name(), exit.incarnation, Kind::Exited(exit.clone()));
        self.last_exit = Some(exit.clone());
    }

    fn record_unknown_exit(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) -> Exit {
        let exit =
            Exit { incarnation, status: ExitStatus::Unknown, at: turn.now, stragglers: 0, ordered: false };
        self.record_exit(turn, &exit);
        exit
    }

    pub(crate) fn on_worker_lost(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) {
        if incarnation != self.incarnation {
            return;
        }
        match &self.phase {
            Phase::Spawning | Phase::Starting | Phase::Ready | Phase::Unhealthy => {
                self.note(turn, Kind::WorkerLost);
                self.launching = Launching::No;
                self.death = Some(Cause::WorkerLost);
                self.sweep(turn, Then::Recover(Cause::WorkerLost));
            }
            Phase::Stopping { then, means: Means::Grace(_) | Means::Kill } => {
                let then = then.clone();
                self.launching = Launching::No;
                self.sweep(turn, then);
            }
            Phase::Stopping { means: Means::Sweep, .. }
            | Phase::Stopped
            | Phase::Adopting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    pub(crate) fn on_swept(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) {
        if incarnation != self.incarnation {
            return self.stale(turn, incarnation);
        }
        let Phase::Stopping { then, means: Means::Sweep } = &self.phase else { return };
        let then = then.clone();
        if self.record.seen < incarnation && self.record.launched >= incarnation {
            let _exit = self.record_unknown_exit(turn, incarnation);
        }
        self.rest(turn, then);
    }

    pub(crate) fn on_adopted(&mut self, turn: &mut Turn<'_>, adoption: Adoption, boot: Boot) {
        let mut news = None;
        for exit in adoption.exits {
            turn.act_durably(Action::Acknowledge {
                name: self.name().clone(),
                incarnation: exit.incarnation,
            });
            if exit.incarnation > self.record.seen {
                self.record_exit(turn, &exit);
                news = Some(exit);
            }
        }
        let then = match &self.phase {
            Phase::Adopting => None,
            Phase::Stopping { then, .. } => Some(then.clone()),
            Phase::Stopped
            | Phase::Spawning
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => return,
        };
        match adoption.found {
            Found::Running { incarnation, process, notified, stopping } => {
                self.adopt(turn, incarnation, process, notified);
                if stopping || self.goal == Goal::Rest || then.is_some() {
                    let means = self.means(Manner::Graceful);
                    self.order_end(turn, means, then.unwrap_or(Then::Run));
                }
            }
            Found::Idle { incarnation } => {
                self.incarnation = self.incarnation.max(incarnation);
                self.found_dead(turn, then, news, boot);
            }
            Found::Nothing => self.found_dead(turn, then, news, boot),
        }
    }

    fn adopt(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation, process: Process, notified: bool) {
        self.incarnation = incarnation;
        self.process = Some(process);
        if self.record.launched < incarnation {
            self.record.launched = incarnation;
            turn.store(self.name());
        }
        self.note(turn, Kind::Adopted { pid: process.pid });
        self.started(turn);
        if notified && self.phase == Phase::Starting && self.policy.health.startup == Startup::Notify {
            self.become_ready(turn);
        }
    }

    fn found_dead(&mut self, turn: &mut Turn<'_>, then: Option<Then>, news: Option<Exit>, boot: Boot) {
        let mut news = news;
        if self.record.seen < self.record.launched {
            news = Some(self.record_unknown_exit(turn, self.record.launched));
        }
        match (then, news) {
            (Some(then), _) => self.rest(turn, then),
            (None, Some(exit)) if !exit.ordered && boot == Boot::Same && self.goal == Goal::Run => {
                self.recover(turn, Cause::Exited(exit));
            }
            (None, _) => {
                self.enter(turn, Phase::Stopped);
                if self.goal == Goal::Rest {
                    turn.act(Action::Release { name: self.name().clone() });
                }
            }
        }
    }

    /// Whatever has come due by now.
    pub(crate) fn on_deadline(&mut self, turn: &mut Turn<'_>) {
        match &self.phase {
            Phase::Stopped => {}
            Phase::Adopting => self.sweep(turn, Then::Run),
            Phase::Spawning => {
                if let Launching::Ordered(at) = self.launching
                    && at + ANSWER_LIMIT <= turn.now
                {
                    self.launching = Launching::No;
                    self.note(turn, Kind::LaunchFailed(LaunchFailure::NoAnswer));
                    self.sweep(turn, Then::Recover(Cause::CannotStart(LaunchFailure::NoAnswer)));
                }
            }
            Phase::Starting => {
                let finding = self.health.startup_due(turn.now, &self.policy.health);
                self.on_finding(turn, finding);
                if self.phase == Phase::Starting {
                    self.probe(turn, ProbeKind::Startup);
                }
            }
            Phase::Ready | Phase::Unhealthy => {
                if self.stable_at().is_some_and(|at| at <= turn.now) {
                    self.restarts.stable();
                }
                let finding = self.health.watch_due(turn.now, &self.policy.health);
                self.on_finding(turn, finding);
                if matches!(self.phase, Phase::Ready | Phase::Unhealthy) {
                    self.probe(turn, ProbeKind::Watch);
                }
            }
            Phase::Stopping { .. } => self.on_overdue(turn),
            // Due again: `settle` starts it, as it starts whatever should run and does not.
            Phase::Backoff { until } if *until <= turn.now => self.again(turn),
            Phase::Failed { retry: Some(at), failure } if *at <= turn.now => {
                if matches!(failure, Failure::BudgetSpent) {
                    self.again(turn);
                } else {
                    self.enter(turn, Phase::Stopped);
                }
            }
            Phase::Backoff { .. } | Phase::Failed { .. } => {}
        }
    }

    /// A restart that counts.
    fn again(&mut self, turn: &mut Turn<'_>) {
        self.restarts.count(turn.now, &self.policy.restart);
        self.enter(turn, Phase::Stopped);
    }

    fn on_overdue(&mut self, turn: &mut Turn<'_>) {
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

    fn probe(&mut self, turn: &mut Turn<'_>, kind: ProbeKind) {
        if self.health.ask(turn.now, &self.policy.health) {
            turn.act(Action::Probe {
                name: self.name().clone(),
                incarnation: self.incarnation,
                kind,
                block: self.record.block,
                spec: Arc::clone(&self.record.spec),
            });
        }
        turn.rearm(self.name());
    }

    fn stale(&self, turn: &mut Turn<'_>, about: Incarnation) {
        self.note(turn, Kind::StaleReport { about });
    }
}
