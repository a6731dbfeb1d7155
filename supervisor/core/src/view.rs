//! What readers see: a snapshot that shares whatever has not changed.

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use crate::{
    event::{Exit, Process, Sighting},
    failover::{Cause, StandIn, Standing},
    health::Health,
    ids::{Incarnation, Name, Revision},
    instance::{Failure, Goal, Instance, Launching, Means, Phase},
    ladder::Purpose,
    policy::{Policy, Standby},
    ports::Pool,
    record::{Record, Wish},
    restart::Restarts,
    time::Moment,
};

/// Deletions remembered for those who watch; who is further behind begins with a new snapshot.
const REMOVED: usize = 1_000;

/// All that readers may see, at one revision.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Of when it is.
    pub revision: Revision,
    /// The instances, by name.
    pub instances: BTreeMap<Name, Arc<Instance>>,
    /// The port pool.
    pub pool: Pool,
    /// Changes cannot be stored at the moment.
    pub store_failing: bool,
    /// The supervisor is ending.
    pub halting: bool,
    /// The newest deletions, oldest first.
    pub removed: VecDeque<(Revision, Name)>,
    /// Deletions up to this revision are not remembered.
    pub forgotten: Revision,
}

/// Who an instance is in failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// No rescue, and none rescued.
    Single,
    /// A primary in its own place.
    Primary,
    /// A primary in whose place another is, or is about to be.
    Rescued,
    /// A rescue that stands by.
    Standby,
    /// A rescue on its way.
    Promoting,
    /// A rescue that stands in.
    Active,
}

impl View {
    /// The view of a supervisor that has just been restored.
    #[must_use]
    pub fn new(revision: Revision) -> Self {
        Self { forgotten: revision, ..Self::default() }
    }

    pub(crate) fn put(&mut self, instance: Arc<Instance>) {
        self.instances.insert(instance.name().clone(), instance);
    }

    pub(crate) fn remove(&mut self, name: &Name) {
        if self.instances.remove(name).is_none() {
            return;
        }
        self.removed.push_back((self.revision, name.clone()));
        if self.removed.len() > REMOVED
            && let Some((revision, _)) = self.removed.pop_front()
        {
            self.forgotten = revision;
        }
    }

    /// The instances that may stand in for `primary`.
    pub fn rescues_of<'a>(&'a self, primary: &'a Name) -> impl Iterator<Item = &'a Instance> {
        self.instances.values().map(Arc::as_ref).filter(|i| i.policy.rescues.contains(primary))
    }

    /// Those in whose place `rescue` is, or is on its way to.
    pub fn stands_in_for<'a>(
        &'a self,
        rescue: &'a Instance,
    ) -> impl Iterator<Item = (&'a Instance, &'a StandIn)> {
        let primaries = rescue.policy.rescues.iter().filter_map(|name| self.instances.get(name));
        primaries.filter_map(|primary| {
            let stand_in = primary.record.standing.stand_in()?;
            (stand_in.rescue == *rescue.name()).then_some((primary.as_ref(), stand_in))
        })
    }

    /// Who `instance` is in failover.
    #[must_use]
    pub fn role(&self, instance: &Instance) -> Role {
        self.role_given(instance, || self.rescues_of(instance.name()).next().is_some())
    }

    /// The same for who knows already whether anyone may stand in for it, as those do who ask for all.
    #[must_use]
    pub fn role_given(&self, instance: &Instance, has_rescue: impl FnOnce() -> bool) -> Role {
        match &instance.record.standing {
            Standing::Promoting(_) | Standing::Away(_) => return Role::Rescued,
            Standing::Own => {}
        }
        let places: Vec<_> =
            self.stands_in_for(instance).map(|(primary, _)| &primary.record.standing).collect();
        if places.iter().any(|standing| matches!(standing, Standing::Away(_))) {
            return Role::Active;
        }
        match (places.is_empty(), instance.policy.rescues.is_empty()) {
            (false, _) => Role::Promoting,
            (true, false) => Role::Standby,
            (true, true) if has_rescue() => Role::Primary,
            (true, true) => Role::Single,
        }
    }
}

impl Instance {
    /// What is durable of it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// How it is treated.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where it is in its life.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Moment {
        self.since
    }

    /// The current life, or the last one.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The spec's generation that the current life was started with.
    #[must_use]
    pub fn observed_generation(&self) -> u64 {
        self.observed
    }

    /// Its processes.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        self.process
    }

    /// Its restarts.
    #[must_use]
    pub fn restarts(&self) -> &Restarts {
        &self.record.restarts
    }

    /// Its health.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// How its last life ended.
    #[must_use]
    pub fn last_exit(&self) -> Option<&Exit> {
        self.last_exit.as_ref()
    }

    /// Why it is dead, unless it has been ready since.
    #[must_use]
    pub fn death(&self) -> Option<&Cause> {
        self.death.as_ref()
    }

    /// The revision of its last visible change.
    #[must_use]
    pub fn changed(&self) -> Revision {
        self.changed
    }

    /// Whether it should run.
    #[must_use]
    pub fn goal(&self) -> Goal {
        self.goal
    }

    /// What its configuration was when it was last looked at.
    #[must_use]
    pub fn seen(&self) -> Option<&Sighting> {
        self.seen.as_ref()
    }

    /// What its life is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether a start of it waits for the disk.
    #[must_use]
    pub fn waits_for_disk(&self) -> bool {
        self.launching == Launching::Held
    }

    /// When it is started again by itself.
    #[must_use]
    pub fn next_start(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Backoff { until } => Some(*until),
            Phase::Failed { retry, .. } => *retry,
            Phase::Stopped
            | Phase::Adopting
            | Phase::Spawning
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Stopping { .. } => None,
        }
    }

    /// Whether its wish is fulfilled, or cannot be.
    #[must_use]
    pub fn settled(&self) -> bool {
        match (&self.phase, self.goal) {
            (Phase::Ready, Goal::Run) | (Phase::Stopped, Goal::Rest) => true,
            (Phase::Failed { failure, .. }, Goal::Run) => match failure {
                Failure::Fatal(_)
                | Failure::NotRestarted(_)
                | Failure::BudgetSpent
                | Failure::Quarantined(_)
                | Failure::Launch(_) => true,
            },
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
            ) => false,
        }
    }

    /// Whether it waits, down, for a primary to die.
    #[must_use]
    pub fn is_cold_standby(&self) -> bool {
        self.record.wish == Wish::Up
            && self.goal == Goal::Rest
            && !self.policy.rescues.is_empty()
            && self.policy.rescue.standby == Standby::Cold
    }

    /// Whether its worker, too, is given up.
    #[must_use]
    pub fn is_being_swept(&self) -> bool {
        matches!(self.phase, Phase::Stopping { means: Means::Sweep, .. })
    }

    /// Why it is in its phase, one sentence without a full stop.
    #[must_use]
    pub fn reason(&self) -> String {
        match &self.phase {
            Phase::Failed { failure, .. } => match failure {
                Failure::Fatal(exit) | Failure::NotRestarted(exit) => exit.status.to_string(),
                Failure::BudgetSpent => "restarted too often".into(),
                Failure::Quarantined(cause) => cause.to_string(),
                Failure::Launch(failure) => failure.to_string(),
            },
            Phase::Backoff { .. } => self.death.as_ref().map(ToString::to_string).unwrap_or_default(),
            Phase::Starting | Phase::Unhealthy => self.health.message().into(),
            Phase::Spawning if self.launching == Launching::Held => "waits for the disk".into(),
            Phase::Stopping { means: Means::Grace(_), .. } => "was asked to end".into(),
            Phase::Stopping { means: Means::Kill, .. } => "is being killed".into(),
            Phase::Stopping { means: Means::Sweep, .. } => "what is left of it is being killed".into(),
            Phase::Stopped | Phase::Adopting | Phase::Spawning | Phase::Ready => String::new(),
        }
    }
}
