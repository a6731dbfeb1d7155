//! What must never be, and what must come about, seen from outside of core.

use std::collections::VecDeque;

use supervisor_core::{
    Supervisor,
    action::Action,
    event::ExitStatus,
    failover::{Cause, Standing},
    ids::{CommandId, Incarnation, Name, Revision},
    instance::{Goal, Instance, Phase},
    invariant,
    journal::Kind,
    policy::Failback,
    record::Wish,
    time::Moment,
};

use crate::world::{Epoch, World, write_down};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A rule of core's own.
    #[error("core: {0}")]
    Invariant(String),
    /// A deadline was left behind.
    #[error("a deadline at {at:?} is left behind at {now:?}")]
    DeadlinePassed {
        /// The deadline.
        at: Moment,
        /// When.
        now: Moment,
    },
    /// Something happens again and again in one moment.
    #[error("the world does not get on at {0:?}")]
    NoProgress(Moment),
    /// Two lives of one instance.
    #[error("{name}: {second} is launched while {first} is alive")]
    TwoLives {
        /// Whose.
        name: Name,
        /// The one that is alive.
        first: Incarnation,
        /// The one that is to be.
        second: Incarnation,
    },
    /// A number was used before.
    #[error("{name}: {incarnation} is launched, and {highest} was before")]
    NumberUsed {
        /// Whose.
        name: Name,
        /// The number.
        incarnation: Incarnation,
        /// The highest before.
        highest: Incarnation,
    },
    /// Launched before what it rests on was durable.
    #[error("{name}: {incarnation} is launched, but {what} is not durable")]
    NotDurable {
        /// Whose.
        name: Name,
        /// Which.
        incarnation: Incarnation,
        /// What is missing.
        what: &'static str,
    },
    /// A stopped instance was launched.
    #[error("{name}: is launched against the wish {wish:?}")]
    AgainstWish {
        /// Which.
        name: Name,
        /// What was wished last.
        wish: Option<Wish>,
    },
    /// Two living gateways share a port.
    #[error("`{name}` and `{other}` are alive on common ports")]
    PortsShared {
        /// One.
        name: Name,
        /// The other.
        other: Name,
    },
    /// A reply to nobody, or a second one.
    #[error("{0:?} is answered and does not wait for it")]
    AnsweredTwice(CommandId),
    /// A reply before durability.
    #[error("{id:?} is answered before {needs:?} is durable; {stored:?} is")]
    AnsweredEarly {
        /// Who.
        id: CommandId,
        /// What has to be durable.
        needs: Revision,
        /// What is.
        stored: Revision,
    },
    /// A promise was lost with the supervisor.
    #[error("{name}: {promised:?} was promised, and {stored:?} is stored")]
    PromiseLost {
        /// Whose.
        name: Name,
        /// What was promised.
        promised: Option<Wish>,
        /// What is stored.
        stored: Option<Wish>,
    },
    /// `Halt` was answered while something ran.
    #[error("{0}: is alive after the halt")]
    AliveAfterHalt(Name),
    /// An exit stands in the journal twice.
    #[error("{name}: the exit of {incarnation} is recorded twice, now as {status}")]
    ExitTwice {
        /// Whose.
        name: Name,
        /// Which.
        incarnation: Incarnation,
        /// How.
        status: ExitStatus,
    },
    /// An exit was forgotten before it was recorded.
    #[error("{name}: the exit of {incarnation} is acknowledged and not durable")]
    AcknowledgedEarly {
        /// Whose.
        name: Name,
        /// Which.
        incarnation: Incarnation,
    },
    /// The worker was let go while its gateway ran.
    #[error("{0}: its worker is released while its gateway is alive")]
    ReleasedAlive(Name),
    /// Files were deleted too early, or twice.
    #[error("{0}: is forgotten and not deleted, or still alive")]
    ForgottenEarly(Name),
    /// Revisions must rise.
    #[error("{after:?} is written after {before:?}")]
    RevisionFalls {
        /// The one before.
        before: Revision,
        /// The one after.
        after: Revision,
    },
    /// Who stands in was not ready.
    #[error("`{rescue}` stands in for `{primary}` and is {phase:?}")]
    PromotedUnready {
        /// For whom.
        primary: Name,
        /// Who.
        rescue: Name,
        /// Its phase.
        phase: Phase,
    },
    /// More restarts than the budget allows.
    #[error("{name}: {restarts} restarts within the window of a budget of {budget}")]
    BudgetExceeded {
        /// Who.
        name: Name,
        /// How many.
        restarts: usize,
        /// How many at most.
        budget: usize,
    },
    /// Long after the faults have ended, something is not as it should be.
    #[error("not settled long after the faults have ended: {0}")]
    NotSettled(String),
}

/// The restarts of one instance, counted from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    /// The supervisor and the policy they were counted under.
    life: (Epoch, u64),
    /// A restart was promised before that.
    granted: bool,
    total: u32,
    at: VecDeque<Moment>,
}

impl World {
    /// What holds after every event.
    pub(crate) fn examine(&mut self, actions: &[Action]) -> Result<(), Violation> {
        if let Some(trace) = &mut self.trace {
            for action in
                actions.iter().filter(|action| !(self.calm && matches!(action, Action::Probe { .. })))
            {
                write_down(trace, format!("                   -> {action:?}"));
            }
        }
        let Some(core) = &mut self.core else { return Ok(()) };
        invariant::check(core).map_err(Violation::Invariant)?;
        if let Some(deadline) = core.next_deadline().filter(|deadline| deadline.at <= self.now) {
            return Err(Violation::DeadlinePassed { at: deadline.at, now: self.now });
        }
        for instance in core.instances() {
            let Standing::Away(by) = &instance.record().standing else { continue };
            let before = self.view.instances.get(instance.name()).map(|before| &before.record().standing);
            if before.is_some_and(|before| matches!(before, Standing::Away(old) if old.rescue == by.rescue)) {
                continue;
            }
            self.tally.failovers += 1;
            let rescue = core.instances().find(|rescue| *rescue.name() == by.rescue);
            if let Some(rescue) = rescue.filter(|rescue| *rescue.phase() != Phase::Ready) {
                let (primary, phase) = (instance.name().clone(), rescue.phase().clone());
                return Err(Violation::PromotedUnready { primary, rescue: rescue.name().clone(), phase });
            }
        }
        core.refresh(&mut self.view);
        self.check_budgets(actions)
    }

    /// Restarts that their time has come for stay within the budget. A promotion is another thing: it is owed to
    /// the death of the primary, and only counted.
    fn check_budgets(&mut self, actions: &[Action]) -> Result<(), Violation> {
        let promoting = actions.iter().any(|action| {
            let Action::Persist(batch) = action else { return false };
            batch.entries.iter().any(|entry| matches!(entry.kind, Kind::FailoverBegan { .. }))
        });
        let Some(core) = &self.core else { return Ok(()) };
        for instance in core.instances() {
            let Some(who) = self.fleet.index(instance.name()) else { continue };
            let policy = &instance.policy().restart;
            let (total, life) = (instance.restarts().total(), (self.epoch, instance.record().generation));
            let counted = &mut self.counted[who];
            if total < counted.total || life != counted.life {
                let granted = instance.next_start().is_some();
                *counted = Counted { life, granted, ..Counted::default() };
            } else if total > counted.total && !std::mem::take(&mut counted.granted) && !promoting {
                counted.at.push_back(self.now);
            }
            counted.total = total;
            while counted.at.front().is_some_and(|first| self.now.since(*first) >= policy.window) {
                counted.at.pop_front();
            }
            // A rescue without a budget that is called again has been called, not restarted; it counts as one.
            let budget = usize::try_from(policy.budget.max(1)).unwrap_or(usize::MAX);
            if counted.at.len() > budget {
                let (name, restarts) = (instance.name().clone(), counted.at.len());
                return Err(Violation::BudgetExceeded { name, restarts, budget });
            }
        }
        Ok(())
    }
}

/// Whether all that should run is ready or failed for good, and all is at rest. `Err` says what is not.
pub(crate) fn settled(world: &World) -> Result<(), String> {
    let Some(core) = world.core.as_ref() else { return Err("the supervisor is down".into()) };
    if let Some(id) = world.clients.waiting() {
        return Err(format!("{id:?} waits for its answer"));
    }
    if !world.store.idle() {
        return Err("the disk is busy".into());
    }
    if core.instances().count() != world.store.durable.records.len() {
        return Err("what is stored is not what is known".into());
    }
    for instance in core.instances() {
        let name = instance.name();
        one_settled(world, core, instance).map_err(|what| format!("{name}: {what}: {instance:?}"))?;
    }
    Ok(())
}

fn one_settled(world: &World, core: &Supervisor, instance: &Instance) -> Result<(), &'static str> {
    let name = instance.name();
    if world.store.durable.records.get(name) != Some(instance.record()) {
        return Err("its record is not what is stored");
    }
    let Some(who) = world.fleet.index(name) else { return Err("nobody knows it") };
    if world.clients.wish(who) != Some(instance.record().wish) {
        return Err("its wish is not what was wished");
    }
    let alive = world.host.machines[who].life.as_ref().map(|life| life.incarnation);
    match (instance.phase(), instance.goal()) {
        (Phase::Ready, Goal::Run) if alive != Some(instance.incarnation()) => {
            return Err("ready, but not alive");
        }
        (Phase::Ready, Goal::Run) => {}
        (Phase::Stopped, Goal::Rest) if alive.is_some() => return Err("stopped, but alive"),
        (Phase::Stopped, Goal::Rest) => {}
        (Phase::Failed { .. }, Goal::Run) if alive.is_some() => return Err("failed, but alive"),
        (Phase::Failed { retry: None, .. }, Goal::Run) if instance.death().is_some() => {}
        (
            Phase::Stopped
            | Phase::Adopting
            | Phase::Spawning
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Stopping { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. },
            Goal::Run | Goal::Rest,
        ) => return Err("neither ready, nor at rest, nor failed for good"),
    }
    standing_settled(core, instance)?;
    let informed = &world.host.machines[who].informed;
    let called: Vec<_> =
        core.instances().filter(|primary| stands_in(primary, name)).map(Instance::name).collect();
    let right = informed.len() == called.len() && called.iter().all(|primary| informed.contains(primary));
    if *instance.phase() == Phase::Ready && !instance.policy().rescues.is_empty() && !right {
        return Err("it does not know for whom it stands in");
    }
    Ok(())
}

fn stands_in(primary: &Instance, rescue: &Name) -> bool {
    primary.record().standing.stand_in().is_some_and(|by| by.rescue == *rescue)
}

fn standing_settled(core: &Supervisor, instance: &Instance) -> Result<(), &'static str> {
    let ready = *instance.phase() == Phase::Ready;
    let find = |name: &Name| core.instances().find(|other| other.name() == name);
    match &instance.record().standing {
        Standing::Own => {
            let mut rescues = core.rescues_of(instance.name());
            let dead = instance.goal() == Goal::Run && !ready;
            if dead && rescues.any(|rescue| rescue.goal() == Goal::Run && *rescue.phase() == Phase::Ready) {
                return Err("dead, and a rescue is ready");
            }
        }
        Standing::Promoting(by) => {
            let failed =
                find(&by.rescue).is_some_and(|rescue| matches!(rescue.phase(), Phase::Failed { .. }));
            if ready || !failed {
                return Err("its rescue is still on its way");
            }
        }
        Standing::Away(by) => {
            let Some(rescue) = find(&by.rescue) else { return Err("its rescue is gone") };
            let kept =
                by.incident.cause == Cause::ByHand || rescue.policy().rescue.failback == Failback::Manual;
            if ready && !kept {
                return Err("it should have its place back");
            }
            if *rescue.phase() != Phase::Ready {
                return Err("who stands in is not ready");
            }
        }
    }
    Ok(())
}
