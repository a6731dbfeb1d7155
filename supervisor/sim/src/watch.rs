//! Compares how it was before an event with how it is after it.

use std::collections::VecDeque;

use supervisor_core::{
    Supervisor,
    action::Action,
    failover::{Cause, Standing},
    instance::{Failure, Goal, Instance, Phase, Then},
    invariant,
    journal::Kind,
    policy::Failback,
    time::Moment,
};

use crate::{
    check::Violation,
    world::{Epoch, World, write_down},
};

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A caller.
    Caller,
    /// Anything else.
    World,
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
    pub(crate) fn examine(&mut self, actions: &[Action], source: Source) -> Result<(), Violation> {
        if let Some(trace) = &mut self.trace {
            for action in actions {
                if !(self.calm && matches!(action, Action::Probe { .. })) {
                    write_down(trace, format!("                   -> {action:?}"));
                }
            }
        }
        let Some(core) = &self.core else { return Ok(()) };
        invariant::check(core).map_err(Violation::Invariant)?;
        if let Some(deadline) = core.next_deadline().filter(|deadline| deadline.at <= self.now) {
            return Err(Violation::DeadlinePassed { at: deadline.at, now: self.now });
        }
        let promoting = actions.iter().any(|action| {
            let Action::Persist(batch) = action else { return false };
            batch.entries.iter().any(|entry| matches!(entry.kind, Kind::FailoverBegan { .. }))
        });
        let mut counted = std::mem::take(&mut self.counted);
        for (who, name) in self.fleet.names.iter().enumerate() {
            let now = self.view.instances.get(name).and_then(|before| Some((before, core.instance(name)?)));
            let Some((before, now)) = now else { continue };
            self.check_place(core, before, now, source)?;
            let restarted = source == Source::World && !promoting && is_restart(before, now);
            self.check_budget(&mut counted[who], now, restarted)?;
            let away = matches!(now.record().standing, Standing::Away(_));
            self.tally.failovers += u64::from(away && before.record().standing != now.record().standing);
        }
        self.counted = counted;
        if let Some(core) = &mut self.core {
            core.refresh(&mut self.view);
        }
        Ok(())
    }

    /// Who comes to stand in is ready. Who stands in well goes when its policy says so.
    fn check_place(
        &self,
        core: &Supervisor,
        before: &Instance,
        now: &Instance,
        source: Source,
    ) -> Result<(), Violation> {
        let (old, new) = (&before.record().standing, &now.record().standing);
        let primary = now.name().clone();
        if let Standing::Away(by) = new
            && !matches!(old, Standing::Away(old) if old.rescue == by.rescue)
            && let Some(rescue) = core.instance(&by.rescue)
            // Ready, or it was until a probe that was due in the same moment.
            && !matches!(rescue.phase(), Phase::Ready | Phase::Unhealthy)
        {
            let phase = rescue.phase().clone();
            return Err(Violation::PromotedUnready { primary, rescue: by.rescue.clone(), phase });
        }
        if let (Standing::Away(by), Standing::Own) = (old, new)
            && source == Source::World
            && let Some(rescue) = core.instance(&by.rescue)
            && rescue.policy().rescues.contains(&primary)
            && rescue.goal() == Goal::Run
            && rescue.death().is_none()
            && matches!(rescue.phase(), Phase::Starting | Phase::Ready | Phase::Unhealthy)
        {
            let policy = rescue.policy().rescue;
            let by_itself = by.incident.cause != Cause::ByHand && policy.failback == Failback::Auto;
            // It may have been ready until this very event, or from it on.
            let since = before.health().ready_since().or(now.health().ready_since());
            let ready = since.is_some_and(|since| self.now >= since + policy.failback_after);
            if !(by_itself && ready) {
                return Err(Violation::GivenBack { primary, rescue: by.rescue.clone() });
            }
        }
        Ok(())
    }

    /// Restarts stay within the budget. A promotion is another thing: it is owed to the death of the primary.
    fn check_budget(&self, counted: &mut Counted, now: &Instance, restarted: bool) -> Result<(), Violation> {
        let policy = &now.policy().restart;
        let (total, life) = (now.restarts().total(), (self.epoch, now.record().generation));
        if total < counted.total || life != counted.life {
            let granted = now.next_start().is_some();
            *counted = Counted { life, granted, ..Counted::default() };
        } else if restarted && !std::mem::take(&mut counted.granted) {
            counted.at.push_back(self.now);
        }
        counted.total = total;
        while counted.at.front().is_some_and(|first| self.now.since(*first) >= policy.window) {
            counted.at.pop_front();
        }
        // A rescue without a budget that is called again has been called, not restarted; it counts as one.
        let budget = usize::try_from(policy.budget.max(1)).unwrap_or(usize::MAX);
        let (name, restarts) = (now.name().clone(), counted.at.len());
        if restarts > budget { Err(Violation::BudgetExceeded { name, restarts, budget }) } else { Ok(()) }
    }
}

/// A new life follows upon a death.
fn is_restart(before: &Instance, now: &Instance) -> bool {
    let after_death = match before.phase() {
        Phase::Spawning | Phase::Starting | Phase::Ready | Phase::Unhealthy | Phase::Backoff { .. } => true,
        Phase::Failed { failure, .. } => *failure == Failure::BudgetSpent,
        Phase::Stopping { then, .. } => matches!(then, Then::Recover(_)),
        Phase::Stopped | Phase::Adopting => false,
    };
    after_death && now.incarnation() > before.incarnation()
}
