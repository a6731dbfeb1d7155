//! What can happen to an instance: one function for each event, one arm for each phase.

use alloc::sync::Arc;
use core::time::Duration;

use crate::{
    action::{Action, ProbeKind},
    event::{Adoption, Exit, ExitStatus, Found, LaunchFailure, Manner, Process, Report},
    failover::Cause,
    health::{Finding, Health},
    ids::Incarnation,
    instance::{ANSWER_LIMIT, Boot, Failure, Goal, Instance, Launching, Means, Phase, Then},
    journal::Kind,
    ladder::{Ladder, Purpose},
    policy::Startup,
    time::Moment,
    turn::Turn,
};

/// Clocks of two processes of one host are taken for the same within this.
const CLOCKS: Duration = Duration::from_secs(1);

impl Instance {
    pub(crate) fn on_launched(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation, process: Process) {
        let expected = match self.launching {
            Launching::Ordered(_) => true,
            // Too late to be wanted, in time to be known: the sweep will end it, and its end is recorded.
            Launching::No => self.is_being_swept() && self.record.launched < incarnation,
            Launching::Held => false,
        };
        if incarnation != self.incarnation || !expected {
            return self.stale(turn, incarnation);
        }
        self.launching = Launching::No;
        self.process = Some(process);
        self.record.launched = incarnation;
        self.record.observed = self.observed;
        self.record.previous_base = None;
        turn.store(self.name());
        self.note(turn, Kind::Started { pid: process.pid });
        match &self.phase {
            Phase::Spawning => self.started(turn),
            Phase::Stopping { means: Means::Grace(_) | Means::Kill, .. } => self.order(turn),
            Phase::Stopping { means: Means::Sweep, .. }
            | Phase::Stopped
            | Phase::Adopting
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    fn started(&mut self, turn: &mut Turn<'_>) {
        self.health = Health::starting(turn.now, &self.terms.health);
        self.enter(turn, Phase::Starting);
        match self.terms.health.startup {
            Startup::AtOnce => self.become_ready(turn),
            Startup::Notify if self.notified == self.incarnation => self.become_ready(turn),
            Startup::Notify | Startup::Never => {}
            Startup::Probe => self.probe(turn, ProbeKind::Startup),
        }
    }

    fn become_ready(&mut self, turn: &mut Turn<'_>) {
        let after = turn.now.since(self.process.map_or(turn.now, |process| process.started));
        let kind = if self.phase == Phase::Unhealthy { Kind::Healthy } else { Kind::Ready { after } };
        self.health.ready(turn.now, &self.terms.health, turn.rng);
        self.note(turn, kind);
        self.death = None;
        self.alone = false;
        self.enter(turn, Phase::Ready);
        if self.stable_at().is_none() && self.record.restarts.since().is_some() {
            self.record.restarts.over();
            turn.store(self.name());
        }
    }

    pub(crate) fn on_launch_failed(
        &mut self,
        turn: &mut Turn<'_>,
        incarnation: Incarnation,
        failure: LaunchFailure,
    ) {
        if incarnation != self.incarnation || !matches!(self.launching, Launching::Ordered(_)) {
            return self.stale(turn, incarnation);
        }
        self.launching = Launching::No;
        let then = match &self.phase {
            Phase::Stopping { means: Means::Sweep, .. } => return,
            Phase::Stopping { then, .. } => then.clone(),
            // Nothing ran, and it is known by now what would have.
            Phase::Spawning if failure == LaunchFailure::Unexpected && self.has_learned() => Then::Run,
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
        self.notified = incarnation;
        if self.phase == Phase::Starting && self.terms.health.startup == Startup::Notify {
            self.become_ready(turn);
        }
    }

    pub(crate) fn on_probed(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation, report: Report) {
        if incarnation != self.incarnation {
            return self.stale(turn, incarnation);
        }
        let finding = match self.phase {
            Phase::Starting => self.health.startup_answer(turn.now, &self.terms.health, report),
            Phase::Ready | Phase::Unhealthy => self.health.watch_answer(turn.now, &self.terms.health, report),
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
            Finding::Unknown(why) => self.note(turn, Kind::NotAsked { why }),
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
        self.mourn(cause.clone());
        self.examine(turn, &cause);
        self.order_end(turn, Means::Kill, Then::Recover(cause));
    }

    /// It is dead by this. The end of a repair is no death: that was before.
    fn mourn(&mut self, cause: Cause) {
        match self.purpose {
            Purpose::Serve => self.death = Some(cause),
            Purpose::Repair => {}
        }
    }

    pub(crate) fn on_exited(&mut self, turn: &mut Turn<'_>, exit: Exit) {
        let Exit { incarnation, .. } = exit;
        let unborn = incarnation == self.incarnation && self.launching == Launching::Held;
        let possible = incarnation <= self.incarnation.max(self.used) || self.awaits_adoption();
        if unborn || !possible || self.is_of_another_life(turn.now, &exit) {
            return self.stale(turn, incarnation);
        }
        turn.act_durably(Action::Acknowledge { name: self.name().clone(), incarnation });
        if incarnation <= self.record.seen {
            return self.stale(turn, incarnation);
        }
        self.record_exit(turn, &exit);
        // A later life may run: only the adoption tells.
        if incarnation != self.incarnation || self.awaits_adoption() {
            return;
        }
        self.launching = Launching::No;
        match &self.phase {
            Phase::Spawning | Phase::Starting | Phase::Ready | Phase::Unhealthy => {
                self.health.unready();
                if !self.asks_about(turn, &exit) {
                    self.rest(turn, Then::Recover(Cause::Exited(exit)));
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

    /// An instance of the same name, since deleted, left it behind in the directory that the new worker took over: it
    /// happened before this instance was created, or has this life's number and happened before its start or is still
    /// to happen, because the host was restarted since and its clock has fallen back.
    fn is_of_another_life(&self, now: Moment, exit: &Exit) -> bool {
        if exit.incarnation != self.incarnation {
            return exit.at < self.record.created;
        }
        let began = match (self.process, &self.phase) {
            (Some(process), _) => process.started,
            (None, Phase::Spawning) => self.since,
            (None, _) => self.record.created,
        };
        exit.at < began || exit.at > now + CLOCKS && !self.awaits_adoption()
    }

    fn record_exit(&mut self, turn: &mut Turn<'_>, exit: &Exit) {
        self.record_lost_exit(turn, exit.incarnation);
        self.record.seen = exit.incarnation;
        self.has_polled(turn.now, Some(exit));
        self.record.launched = self.record.launched.max(exit.incarnation);
        turn.store(self.name());
        turn.note(self.name(), exit.incarnation, Kind::Exited(exit.clone()));
        self.last_exit = Some(exit.clone());
    }

    /// A life that was over before `later` began, and whose exit an earlier supervisor learned and could not store.
    fn record_lost_exit(&mut self, turn: &mut Turn<'_>, later: Incarnation) {
        let launched = self.record.launched;
        if self.record.seen < launched && launched < later {
            let _exit = self.record_unknown_exit(turn, launched);
        }
    }

    fn record_unknown_exit(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) -> Exit {
        let exit =
            Exit { incarnation, status: ExitStatus::Unknown, at: turn.now, stragglers: 0, ordered: false };
        self.record_exit(turn, &exit);
        exit
    }

    pub(crate) fn on_worker_lost(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) {
        // Before the adoption is answered, the worker's number is not known.
        let current = incarnation == self.incarnation || self.awaits_adoption();
        if !current || self.launching == Launching::Held {
            return self.stale(turn, incarnation);
        }
        match &self.phase {
            Phase::Adopting | Phase::Spawning | Phase::Starting | Phase::Ready | Phase::Unhealthy => {
                self.lose(turn);
            }
            Phase::Stopping { then, means: Means::Grace(_) | Means::Kill } => {
                let then = then.clone();
                self.launching = Launching::No;
                self.sweep(turn, then);
            }
            Phase::Stopping { means: Means::Sweep, .. }
            | Phase::Stopped
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    /// Its worker is of no use any more: what is left is killed, and its death counts from now.
    fn lose(&mut self, turn: &mut Turn<'_>) {
        self.note(turn, Kind::WorkerLost);
        self.launching = Launching::No;
        self.mourn(Cause::WorkerLost);
        self.sweep(turn, Then::Recover(Cause::WorkerLost));
    }

    pub(crate) fn on_swept(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) {
        if incarnation != self.incarnation {
            return self.stale(turn, incarnation);
        }
        let Phase::Stopping { then, means: Means::Sweep } = &self.phase else { return };
        let then = then.clone();
        if self.record.seen < self.record.launched {
            let _exit = self.record_unknown_exit(turn, self.record.launched);
        }
        self.has_polled(turn.now, None);
        self.rest(turn, then);
    }

    pub(crate) fn on_adopted(&mut self, turn: &mut Turn<'_>, mut adoption: Adoption, boot: Boot) {
        adoption.exits.retain(|exit| self.is_own(exit, &adoption.found));
        if !self.awaits_adoption() {
            return self.on_late_adoption(turn, adoption);
        }
        let mut news = None;
        for exit in adoption.exits {
            let (name, incarnation) = (self.name().clone(), exit.incarnation);
            turn.act_durably(Action::Acknowledge { name, incarnation });
            if incarnation > self.record.seen {
                self.record_exit(turn, &exit);
                news = Some(exit);
            }
        }
        match adoption.found {
            Found::Running { incarnation, process, notified, stopping } if incarnation > self.record.seen => {
                let ending = self.ending().or_else(|| {
                    let unwanted = stopping || self.goal == Goal::Rest;
                    unwanted.then(|| (self.means(Manner::Graceful), Then::Run))
                });
                if notified {
                    self.notified = incarnation;
                }
                self.adopt(turn, incarnation, process);
                match ending {
                    Some((means, then)) => self.order_end(turn, means, then),
                    None => self.started(turn),
                }
            }
            // Its exit is in the journal: it runs no more.
            Found::Running { incarnation, .. } | Found::Idle { incarnation } => {
                self.incarnation = self.incarnation.max(incarnation);
                self.found_dead(turn, news, boot);
            }
            Found::Nothing => self.found_dead(turn, news, boot),
        }
    }

    /// Whether an exit that was found is this instance's: a deleted one of the same name left those behind that are
    /// older than this instance, or as new as what runs.
    fn is_own(&self, exit: &Exit, found: &Found) -> bool {
        let over = match found {
            Found::Running { incarnation, .. } => exit.incarnation < *incarnation,
            Found::Idle { .. } | Found::Nothing => true,
        };
        over && exit.at >= self.record.created
    }

    /// The answer was not waited for any more: a sweep decides, and what is learned is its number.
    fn on_late_adoption(&mut self, turn: &mut Turn<'_>, adoption: Adoption) {
        for exit in adoption.exits {
            self.on_exited(turn, exit);
        }
        if let Found::Running { incarnation, .. } = adoption.found
            && self.is_being_swept()
            && self.record.launched < incarnation
        {
            self.record_lost_exit(turn, incarnation);
            self.record.launched = incarnation;
            turn.store(self.name());
        }
    }

    fn adopt(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation, process: Process) {
        self.incarnation = incarnation;
        // Nobody knows when the life before it died, and perhaps this one uses nothing of what that one polled with.
        self.has_polled(turn.now, None);
        self.recall_purpose();
        if self.purpose == Purpose::Repair {
            // It died before: its rescue must not wait for the repair.
            self.death = Some(Cause::StartupFailed("it was being repaired".into()));
        }
        if self.record.quarantined.take().is_some() {
            // Somebody started it, and that was not stored in time.
            turn.store(self.name());
        }
        self.used = Incarnation(0);
        self.process = Some(process);
        self.record_lost_exit(turn, incarnation);
        if self.record.launched < incarnation {
            self.record.launched = incarnation;
            self.record.observed = self.observed;
            turn.store(self.name());
        }
        self.reserve(turn);
        self.note(turn, Kind::Adopted { pid: process.pid });
    }

    /// What the life that was found was for.
    fn recall_purpose(&mut self) {
        let repair = self.record.ladder.is_repair(self.incarnation);
        self.purpose = if repair { Purpose::Repair } else { Purpose::Serve };
        self.terms = self.terms_of(self.purpose);
    }

    fn found_dead(&mut self, turn: &mut Turn<'_>, news: Option<Exit>, boot: Boot) {
        let mut news = news;
        self.has_polled(turn.now, None);
        if self.record.seen < self.record.launched {
            news = Some(self.record_unknown_exit(turn, self.record.launched));
        }
        self.incarnation = self.incarnation.max(self.record.launched);
        if self.goal == Goal::Run || self.incarnation > self.record.reserved {
            self.reserve(turn);
        }
        // What died is recovered, and what was given up is left so. After a restart of the host, and after an
        // end that was ordered, it begins anew.
        let death = news.filter(|exit| !exit.ordered).or_else(|| self.record.gave_up.clone());
        let death = death.filter(|_| boot == Boot::Same && self.goal == Goal::Run);
        if boot == Boot::New && self.record.quarantined.take().is_some() {
            turn.store(self.name());
        }
        let quarantined = self.record.quarantined.clone().filter(|_| self.goal == Goal::Run);
        self.recall_purpose();
        match (self.ending(), quarantined, death) {
            (Some((_, then)), ..) => self.rest(turn, then),
            (None, Some(cause), _) => {
                self.stay_down(turn, cause);
            }
            (None, None, Some(exit)) => self.recover(turn, &Cause::Exited(exit)),
            (None, None, None) => {
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
            Phase::Adopting => self.lose(turn),
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
                let finding = self.health.startup_due(turn.now, &self.terms.health);
                self.on_finding(turn, finding);
                if self.phase == Phase::Starting {
                    self.probe(turn, ProbeKind::Startup);
                }
            }
            Phase::Ready | Phase::Unhealthy => {
                if self.stable_at().is_some_and(|at| at <= turn.now) {
                    self.record.restarts.stable();
                    self.record.ladder = Ladder::default();
                    turn.store(self.name());
                }
                self.prove(turn);
                let finding = self.health.watch_due(turn.now, &self.terms.health);
                self.on_finding(turn, finding);
                if matches!(self.phase, Phase::Ready | Phase::Unhealthy) {
                    self.probe(turn, ProbeKind::Watch);
                }
            }
            Phase::Stopping { .. } => self.on_overdue(turn),
            Phase::Backoff { until } if *until <= turn.now => self.waited(turn),
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
    pub(crate) fn again(&mut self, turn: &mut Turn<'_>) {
        self.count_restart(turn);
        self.enter(turn, Phase::Stopped);
    }

    /// Counts a restart. It does not wait for the disk: a crash now forgets this one restart at most.
    pub(crate) fn count_restart(&mut self, turn: &mut Turn<'_>) {
        self.record.restarts.count(turn.now, &self.policy.restart);
        turn.store(self.name());
    }

    fn probe(&mut self, turn: &mut Turn<'_>, kind: ProbeKind) {
        if self.health.ask(turn.now, &self.terms.health) {
            turn.act(Action::Probe {
                name: self.name().clone(),
                incarnation: self.incarnation,
                kind,
                block: self.record.block,
                spec: Arc::clone(&self.terms.spec),
            });
        }
        turn.rearm(self.name());
    }

    /// It changes nothing, and says so.
    pub(crate) fn stale(&self, turn: &mut Turn<'_>, about: Incarnation) {
        turn.entries.push((Some(self.name().clone()), self.incarnation, Kind::StaleReport { about }));
    }
}
