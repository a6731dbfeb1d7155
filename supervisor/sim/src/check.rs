//! What must never be, and what must come about, seen from outside of core.

use supervisor_core::{
    Supervisor,
    event::ExitStatus,
    failover::{Cause, Standing},
    ids::{CommandId, Incarnation, Name, Revision},
    instance::{Goal, Instance, Phase},
    policy::Failback,
    ports::Block,
    record::Wish,
    time::Moment,
};

use crate::{fence::Fight, trial::Misstep, world::World};

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
    /// A primary got its place back too early.
    #[error("`{primary}` has its place back from `{rescue}`, which its policy does not allow yet")]
    GivenBack {
        /// Whose place.
        primary: Name,
        /// Who stood in.
        rescue: Name,
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
    /// What came too late changed something.
    #[error("{name}: a report that came too late changed something, from {before} to {after}")]
    StaleChanged {
        /// Whose.
        name: Name,
        /// How it was.
        before: String,
        /// How it is.
        after: String,
    },
    /// A refused command changed something.
    #[error("{0:?} is refused, and something has changed")]
    RefusedChanged(CommandId),
    /// Core and the reference model do not agree.
    #[error("reference: {0}")]
    Reference(#[from] Disagreement),
    /// A rule of configurations or of the ladder.
    #[error("{0}")]
    Misstep(#[from] Misstep),
    /// A rule of the fence around channel credentials.
    #[error("{0}")]
    Fight(#[from] Fight),
    /// Long after the faults have ended, something is not as it should be.
    #[error("not settled long after the faults have ended: {0}")]
    NotSettled(String),
}

/// Where core and the model part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// One of the two knows no such instance.
    #[error("{0}: only one of core and the model knows it")]
    Known(Name),
    /// Different ports.
    #[error("{0}: the journal says that it has other ports")]
    Ports(Name),
    /// Ports of which somebody else has or may use one.
    #[error("{name}: gets ports {block}, which `{other}` has or may still use")]
    PortsGivenTwice {
        /// Whose.
        name: Name,
        /// The ports.
        block: Block,
        /// Who has them.
        other: Name,
    },
    /// Something may be alive where core thinks nothing is, or the other way.
    #[error("{name}: {phase:?} #{}, but {alive} may be alive", incarnation.0)]
    Alive {
        /// Whose.
        name: Name,
        /// Its phase.
        phase: Phase,
        /// Its life.
        incarnation: Incarnation,
        /// What may be alive.
        alive: String,
    },
    /// A launch before there was proof that nothing is alive.
    #[error("{name}: {incarnation} is launched, and {alive} may be alive")]
    LaunchedBesides {
        /// Whose.
        name: Name,
        /// The new life.
        incarnation: Incarnation,
        /// What may be alive.
        alive: String,
    },
    /// Gone, and not proven to be dead.
    #[error("{0}: is deleted, and may be alive")]
    DeletedAlive(Name),
    /// Another place.
    #[error("{name}: {place} by the journal, {standing} by core")]
    Place {
        /// Whose.
        name: Name,
        /// What the journal says.
        place: String,
        /// What core says.
        standing: String,
    },
    /// A step between two places that must not be.
    #[error("{name}: {before}, and then {then}")]
    Step {
        /// Whose place.
        name: Name,
        /// How it was.
        before: String,
        /// What is written down.
        then: String,
    },
    /// The wish is another one.
    #[error("{name}: {wished:?} was wished, and core has {known:?}")]
    Wish {
        /// Whose.
        name: Name,
        /// What was wished.
        wished: Option<Wish>,
        /// What core has.
        known: Option<Wish>,
    },
    /// It should run and core does not mean to run it, or the other way.
    #[error("{0}: should it run? {1:?}, says core")]
    Goal(Name, Goal),
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
    if world.reference.wish(who) != Some(instance.record().wish) {
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
        (Phase::Failed { .. }, Goal::Run) if world.is_kept_off(who, instance) => {}
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
    world.channels_settled(who, instance)?;
    standing_settled(world, core, instance)?;
    world.config_settled(who, instance)?;
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

fn standing_settled(world: &World, core: &Supervisor, instance: &Instance) -> Result<(), &'static str> {
    let ready = *instance.phase() == Phase::Ready;
    match &instance.record().standing {
        Standing::Own => {
            let mut rescues = core.rescues_of(instance.name());
            let dead = instance.goal() == Goal::Run && !ready;
            if dead && rescues.any(|rescue| rescue.goal() == Goal::Run && *rescue.phase() == Phase::Ready) {
                return Err("dead, and a rescue is ready");
            }
        }
        Standing::Promoting(by) => {
            let rescue = core.instance(&by.rescue);
            let failed = rescue.is_some_and(|rescue| matches!(rescue.phase(), Phase::Failed { .. }));
            let muted = |instance: &Instance| {
                world.fleet.index(instance.name()).is_some_and(|who| world.is_muted(who, instance))
            };
            let kept_off = |instance: &Instance| {
                world.fleet.index(instance.name()).is_some_and(|who| world.is_kept_off(who, instance))
            };
            let ready = ready && !muted(instance) && !rescue.is_some_and(kept_off);
            if ready || !(failed || rescue.is_some_and(muted)) {
                return Err("its rescue is still on its way");
            }
        }
        Standing::Away(by) => {
            let Some(rescue) = core.instance(&by.rescue) else { return Err("its rescue is gone") };
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
