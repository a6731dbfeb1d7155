//! Compares how it was before an event with how it is after it.

use std::collections::VecDeque;

use std::sync::Arc;

use supervisor_core::{
    Supervisor,
    action::Action,
    event::{Event, LaunchFailure},
    failover::{Cause, Standing},
    ids::{CommandId, Incarnation, Name},
    instance::{Failure, Goal, Instance, Phase, Then},
    invariant,
    journal::Kind,
    ladder::Purpose,
    policy::Failback,
    time::Moment,
};

use crate::{agenda::Epoch, check::Violation, world::World};

/// Where an event comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A caller.
    Caller(CommandId),
    /// A caller, at a moment when something else is due.
    Due,
    /// A report about a life that is over, of an instance that is like this.
    Stale(Box<Instance>),
    /// A launch found what core did not know of, which is no failure.
    Unexpected,
    /// Anything else.
    World,
}

impl Source {
    fn is_caller(&self) -> bool {
        matches!(self, Self::Caller(_) | Self::Due)
    }

    pub(crate) fn of(event: &Event, core: &Supervisor, now: Moment) -> Self {
        let due = core.next_deadline().is_some_and(|deadline| deadline.at <= now);
        let (name, about) = match event {
            Event::Command(..) if due => return Self::Due,
            Event::Command(id, ..) => return Self::Caller(*id),
            Event::Stored(_)
            | Event::StoreFailing(_)
            | Event::Tick
            | Event::Adopted(..)
            | Event::Handoff(..)
            | Event::Examined(..)
            | Event::ConfigSeen(..)
            | Event::Restored(..)
            | Event::RestoreFailed(..)
            | Event::FilesLeft(..) => return Self::World,
            Event::Launched(name, incarnation, _)
            | Event::LaunchFailed(name, incarnation, _)
            | Event::Notified(name, incarnation)
            | Event::Probed(name, incarnation, _)
            | Event::WorkerLost(name, incarnation)
            | Event::Swept(name, incarnation) => (name, *incarnation),
            Event::Exited(name, exit) => (name, exit.incarnation),
        };
        let stale = core.instance(name).filter(|instance| !due && is_over(instance, event, about));
        match (stale, event) {
            (Some(instance), _) => Self::Stale(Box::new(instance.clone())),
            (None, Event::LaunchFailed(_, _, LaunchFailure::Unexpected)) => Self::Unexpected,
            (None, _) => Self::World,
        }
    }
}

/// Whether an event is about a life of which everything is known.
fn is_over(instance: &Instance, event: &Event, about: Incarnation) -> bool {
    let unknown = matches!(instance.phase(), Phase::Adopting | Phase::Stopping { .. });
    let known = match event {
        Event::Exited(..) => about <= instance.record().seen,
        Event::Command(..)
        | Event::Stored(_)
        | Event::StoreFailing(_)
        | Event::Tick
        | Event::Adopted(..)
        | Event::Launched(..)
        | Event::LaunchFailed(..)
        | Event::Notified(..)
        | Event::Probed(..)
        | Event::WorkerLost(..)
        | Event::Swept(..)
        | Event::Handoff(..)
        | Event::Examined(..)
        | Event::ConfigSeen(..)
        | Event::Restored(..)
        | Event::RestoreFailed(..)
        | Event::FilesLeft(..) => true,
    };
    known && about < instance.incarnation() && !(unknown && instance.process().is_none())
}

/// The restarts of one instance, counted from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    /// The supervisor and the policy they were counted under.
    life: (Epoch, u64),
    /// A restart was promised before that.
    granted: bool,
    /// What core says; it falls when an operator starts the instance.
    total: u32,
    at: VecDeque<Moment>,
}

impl World {
    /// What holds after every event.
    pub(crate) fn examine(&mut self, actions: &[Action], source: &Source) -> Result<(), Violation> {
        let Some(core) = &mut self.core else { return Ok(()) };
        invariant::check(core).map_err(Violation::Invariant)?;
        let now = self.clock();
        let Some(core) = &mut self.core else { return Ok(()) };
        if let Some(deadline) = core.next_deadline().filter(|deadline| deadline.at <= now) {
            return Err(Violation::DeadlinePassed { at: deadline.at, now });
        }
        let revision = self.view.revision;
        core.refresh(&mut self.view);
        let refused =
            |id| actions.iter().any(|action| matches!(action, Action::Reply(to, Err(_)) if *to == id));
        match source {
            Source::Caller(id) if refused(*id) && self.view.revision != revision => {
                return Err(Violation::RefusedChanged(*id));
            }
            Source::Stale(before) => check_stale(core, before, actions)?,
            Source::Caller(_) | Source::Due | Source::Unexpected | Source::World => {}
        }
        if self.view.revision == revision {
            // Whatever changes visibly gets a revision.
            return Ok(());
        }
        self.reference.look();
        self.note(actions)?;
        self.check_entries(actions)?;
        self.examine_changes(actions, source)
    }

    /// Looks at the instances that changed visibly.
    fn examine_changes(&mut self, actions: &[Action], source: &Source) -> Result<(), Violation> {
        let promoting = || {
            actions.iter().any(|action| {
                let Action::Persist(batch) = action else { return false };
                batch.entries.iter().any(|entry| matches!(entry.kind, Kind::FailoverBegan { .. }))
            })
        };
        let mut promoted = None;
        for who in 0..self.fleet.names.len() {
            let now = self.view.instances.get(&self.fleet.names[who]).cloned();
            let same = match (&self.seen[who], &now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if same {
                continue;
            }
            let before = std::mem::replace(&mut self.seen[who], now.clone());
            self.check_trial(who, before.as_deref(), now.as_deref())?;
            let (Some(before), Some(now)) = (before, now) else { continue };
            self.check_place(&before, &now, became_ready(actions, now.name()), source)?;
            let promoting = *promoted.get_or_insert_with(promoting);
            let wished = source.is_caller() || matches!(source, Source::Unexpected);
            let restarted = !wished && !promoting && is_restart(&before, &now);
            self.check_budget(who, &now, restarted)?;
            let away = matches!(now.record().standing, Standing::Away(_));
            self.tally.failovers += u64::from(away && before.record().standing != now.record().standing);
        }
        Ok(())
    }

    /// A supervisor begins: what it knows is not compared with what another one knew.
    pub(crate) fn look_again(&mut self) {
        for (seen, name) in self.seen.iter_mut().zip(&self.fleet.names) {
            *seen = self.view.instances.get(name).cloned();
        }
    }

    /// Who comes to stand in is ready. Who stands in well goes when its policy says so.
    fn check_place(
        &self,
        before: &Instance,
        now: &Instance,
        became_ready: bool,
        source: &Source,
    ) -> Result<(), Violation> {
        let Some(core) = &self.core else { return Ok(()) };
        let (old, new) = (&before.record().standing, &now.record().standing);
        let primary = now.name().clone();
        if let Standing::Away(by) = new
            && !matches!(old, Standing::Away(old) if old.rescue == by.rescue)
            && let Some(rescue) = core.instance(&by.rescue)
            // Ready, or it was until a probe that was due in the same moment.
            && !matches!(rescue.phase(), Phase::Ready | Phase::Unhealthy)
            // Ready, and in the same moment to be started anew without its channels.
            && !(self.fleet.channels && matches!(rescue.phase(), Phase::Stopping { then: Then::Run, .. }))
        {
            let phase = rescue.phase().clone();
            return Err(Violation::PromotedUnready { primary, rescue: by.rescue.clone(), phase });
        }
        if let (Standing::Away(by), Standing::Own) = (old, new)
            && !source.is_caller()
            && let Some(rescue) = core.instance(&by.rescue)
            && rescue.policy().rescues.contains(&primary)
            && rescue.goal() == Goal::Run
            && rescue.death().is_none()
            && matches!(rescue.phase(), Phase::Starting | Phase::Ready | Phase::Unhealthy)
        {
            let policy = rescue.policy().rescue;
            let by_itself = by.incident.cause != Cause::ByHand && policy.failback == Failback::Auto;
            // It may have been ready until this very event, or from it on, or within it.
            let since = before.health().ready_since().or(now.health().ready_since());
            let since = since.or(became_ready.then(|| self.clock()));
            let ready = since.is_some_and(|since| self.clock() >= since + policy.failback_after);
            if !(by_itself && ready) {
                return Err(Violation::GivenBack { primary, rescue: by.rescue.clone() });
            }
        }
        Ok(())
    }

    /// Restarts stay within the budget. A promotion is another thing: it is owed to the death of the primary.
    fn check_budget(&mut self, who: usize, now: &Instance, restarted: bool) -> Result<(), Violation> {
        let clock = self.clock();
        let counted = &mut self.counted[who];
        let policy = &now.policy().restart;
        let (total, life) = (now.restarts().total(), (self.epoch, now.record().generation));
        if total < counted.total || life != counted.life {
            let granted = now.next_start().is_some();
            *counted = Counted { life, granted, ..Counted::default() };
        } else if restarted && !std::mem::take(&mut counted.granted) {
            counted.at.push_back(clock);
        }
        counted.total = total;
        while counted.at.front().is_some_and(|first| clock.since(*first) >= policy.window) {
            counted.at.pop_front();
        }
        // A rescue without a budget that is called again has been called, not restarted; it counts as one.
        let budget = usize::try_from(policy.budget.max(1)).unwrap_or(usize::MAX);
        let (name, restarts) = (now.name().clone(), counted.at.len());
        if restarts > budget { Err(Violation::BudgetExceeded { name, restarts, budget }) } else { Ok(()) }
    }
}

/// A new life follows upon a death. A repair is none: it is owed to the ladder, once.
fn is_restart(before: &Instance, now: &Instance) -> bool {
    let after_death = match before.phase() {
        Phase::Spawning | Phase::Starting | Phase::Ready | Phase::Unhealthy | Phase::Backoff { .. } => true,
        Phase::Failed { failure, .. } => *failure == Failure::BudgetSpent,
        Phase::Stopping { then, .. } => matches!(then, Then::Recover(_)),
        Phase::Stopped | Phase::Adopting => false,
    };
    after_death && now.purpose() == Purpose::Serve && now.incarnation() > before.incarnation()
}

/// Whether it is written down that it has become ready.
fn became_ready(actions: &[Action], name: &Name) -> bool {
    actions.iter().any(|action| {
        let Action::Persist(batch) = action else { return false };
        let mut of = batch.entries.iter().filter(|entry| entry.instance.as_ref() == Some(name));
        of.any(|entry| matches!(entry.kind, Kind::Ready { .. }))
    })
}

/// What comes too late changes nothing, and is at most noted.
fn check_stale(core: &Supervisor, before: &Instance, actions: &[Action]) -> Result<(), Violation> {
    let noted = |action: &Action| match action {
        Action::Persist(batch) => {
            let stale = |kind: &Kind| matches!(kind, Kind::StaleReport { .. });
            batch.writes.is_empty() && batch.entries.iter().all(|entry| stale(&entry.kind))
        }
        Action::Acknowledge { .. } => true,
        Action::Reply(..)
        | Action::Adopt(_)
        | Action::Launch(_)
        | Action::Stop { .. }
        | Action::Kill { .. }
        | Action::Release { .. }
        | Action::Sweep { .. }
        | Action::Probe { .. }
        | Action::Inform { .. }
        | Action::Restore { .. }
        | Action::AskHandoff { .. }
        | Action::Examine { .. }
        | Action::Forget { .. } => false,
    };
    let after = core.instance(before.name());
    if after == Some(before) && actions.iter().all(noted) {
        return Ok(());
    }
    let (name, before, after) =
        (before.name().clone(), format!("{before:?}"), format!("{after:?}, {actions:?}"));
    Err(Violation::StaleChanged { name, before, after })
}
