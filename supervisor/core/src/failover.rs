//! Who stands in for whom.
//!
//! Each primary knows who is in its place: itself, a rescue on its way there ([`Standing::Promoting`]), or a
//! rescue ([`Standing::Away`]). So there is never more than one. What should be is worked out anew from what
//! is, whenever one of the two changes; nothing hangs on having seen a certain event.
//!
//! ```text
//!            the primary dies, or by hand           the rescue is ready
//!   Own ────────────────────────────────► Promoting ───────────────────► Away
//!    ▲                                        │                            │
//!    ├────────────────────────────────────────┘                            │
//!    │  the primary was ready first                                        │
//!    └─────────────────────────────────────────────────────────────────────┘
//!       the primary has been ready for long enough, or by hand, or the rescue is lost
//! ```
//!
//! Against flapping: coming back takes `failback_after` of readiness, doubled for each failover that followed
//! soon upon a failback; and a primary that recovers before its rescue is ready keeps its place.

use alloc::{string::String, vec::Vec};
use core::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Supervisor,
    action::Action,
    event::{Exit, LaunchFailure},
    fence::Channels,
    ids::{Incarnation, Name},
    instance::{Goal, Instance, Means, Phase, Then},
    journal::Kind,
    policy::{Failback, OnPrimaryDeath, Standby},
    record::Wish,
    restart::Next,
    time::{Deadline, Moment, Why},
    turn::Turn,
};

/// The longest grace a standby gets when it is restarted for an incident: it has nothing to drain.
pub(crate) const PROMOTION_GRACE: Duration = Duration::from_secs(5);

/// The time before a failback doubles at most this often: by default to about an hour.
const MAX_FLAPS: u32 = 6;

/// Who is in a primary's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// The primary itself.
    Own,
    /// Nobody yet; this rescue is on its way.
    Promoting(StandIn),
    /// This rescue.
    Away(StandIn),
}

/// A rescue and why it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// The rescue.
    pub rescue: Name,
    /// It counts as ready only in a later life than this one.
    pub after: Incarnation,
    /// What it is called for.
    pub incident: Incident,
}

/// What a rescue is called for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number; rises.
    pub number: u64,
    /// Who needs rescue.
    pub primary: Name,
    /// Since when.
    pub since: Moment,
    /// Why.
    pub cause: Cause,
    /// How the primary's last life ended.
    pub last_exit: Option<Exit>,
}

/// Why an instance is dead, or its rescue is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Its process ended.
    Exited(Exit),
    /// It did not answer its liveness probe.
    Hung(String),
    /// Its start made no progress.
    StartupFailed(String),
    /// It could not be started.
    CannotStart(LaunchFailure),
    /// Its worker died, and it with it.
    WorkerLost,
    /// An operator wished it.
    ByHand,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(exit) => exit.status.fmt(f),
            Self::Hung(message) => write!(f, "hung: {message}"),
            Self::StartupFailed(message) => write!(f, "did not become ready: {message}"),
            Self::CannotStart(failure) => write!(f, "could not be started: {failure}"),
            Self::WorkerLost => f.write_str("its worker died"),
            Self::ByHand => f.write_str("an operator wished it"),
        }
    }
}

/// Whether a called rescue waits for the end of its own backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// It does not: the primary has just died.
    AtOnce,
    /// It does: rescues are dying too, and must not die in a tight circle.
    InTime,
}

impl Standing {
    /// Who stands in or is about to.
    #[must_use]
    pub fn stand_in(&self) -> Option<&StandIn> {
        match self {
            Self::Own => None,
            Self::Promoting(stand_in) | Self::Away(stand_in) => Some(stand_in),
        }
    }
}

impl Supervisor {
    /// Whether the instance should run.
    pub(crate) fn goal(&self, instance: &Instance) -> Goal {
        let wanted =
            self.halting.is_none() && instance.record.wish == Wish::Up && instance.record.deleting.is_none();
        let cold = !instance.policy.rescues.is_empty() && instance.policy.rescue.standby == Standby::Cold;
        if wanted && (!cold || self.is_called(instance)) { Goal::Run } else { Goal::Rest }
    }

    /// Whether it is in some primary's place or on its way.
    pub(crate) fn is_called(&self, rescue: &Instance) -> bool {
        rescue.policy.rescues.iter().any(|primary| self.stands_in(rescue.name(), primary))
    }

    /// Whether `rescue` is in `primary`'s place or on its way.
    pub(crate) fn stands_in(&self, rescue: &Name, primary: &Name) -> bool {
        let standing = self.instances.get(primary).map(|instance| &instance.record.standing);
        standing.and_then(Standing::stand_in).is_some_and(|stand_in| stand_in.rescue == *rescue)
    }

    /// The instances that may stand in for `primary`, in the order of their names.
    pub fn rescues_of<'a>(&'a self, primary: &Name) -> impl Iterator<Item = &'a Instance> {
        let names = self.rescuers.get(primary).map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(|name| self.instances.get(name))
    }

    /// What a rescue is called for now.
    pub(crate) fn incidents_of(&self, rescue: &Instance) -> Vec<Incident> {
        let primaries = rescue.policy.rescues.iter().filter_map(|name| self.instances.get(name));
        primaries
            .filter_map(|primary| primary.record.standing.stand_in())
            .filter(|stand_in| stand_in.rescue == *rescue.name())
            .map(|stand_in| stand_in.incident.clone())
            .collect()
    }

    /// Brings the standing of `primary` in line with what is. One that is being deleted keeps its standing until
    /// it is gone.
    pub(crate) fn evaluate(&mut self, turn: &mut Turn<'_>, primary: &Name) {
        let Some(instance) = self.instances.get(primary) else { return };
        if self.halting.is_some() || instance.record.deleting.is_some() {
            return;
        }
        match instance.record.standing.clone() {
            Standing::Own => {
                if let Some(cause) = instance.death.clone()
                    && instance.goal == Goal::Run
                {
                    self.call_rescue(turn, primary, cause);
                }
            }
            Standing::Promoting(stand_in) => self.evaluate_promotion(turn, primary, stand_in),
            Standing::Away(stand_in) => self.evaluate_away(turn, primary, stand_in),
        }
    }

    /// The primary is dead: the best rescue is called, if there is one.
    fn call_rescue(&mut self, turn: &mut Turn<'_>, primary: &Name, cause: Cause) {
        let Some(rescue) = self.candidate(primary, None) else {
            if self.rescuers.contains_key(primary) {
                self.note_alone(turn, primary, cause);
            }
            return;
        };
        self.count_flap(turn, primary, &rescue);
        if let Some(incident) = self.incident(turn, primary, cause) {
            self.promote(turn, primary, &rescue, incident, Urgency::AtOnce);
        }
    }

    /// Says once that it is dead and nobody can stand in.
    fn note_alone(&mut self, turn: &mut Turn<'_>, primary: &Name, cause: Cause) {
        let Some(instance) = self.instances.get_mut(primary) else { return };
        if !core::mem::replace(&mut instance.alone, true) {
            instance.note(turn, Kind::NoRescue { cause });
        }
    }

    /// A new incident. Its number is the revision of the entry that will tell of it.
    pub(crate) fn incident(&self, turn: &Turn<'_>, primary: &Name, cause: Cause) -> Option<Incident> {
        let last_exit = self.instances.get(primary)?.last_exit.clone();
        let entries = u64::try_from(turn.entries.len()).unwrap_or(u64::MAX);
        let number = self.revision.0.saturating_add(entries).saturating_add(1);
        Some(Incident { number, primary: primary.clone(), since: turn.now, cause, last_exit })
    }

    /// The rescue that can stand in soonest: ready before alive before down; then by name.
    pub(crate) fn candidate(&self, primary: &Name, except: Option<&Name>) -> Option<Name> {
        self.rescues_of(primary)
            .filter(|rescue| Some(rescue.name()) != except && Self::can_stand_in(rescue))
            .filter(|rescue| !matches!(rescue.phase, Phase::Failed { retry: None, .. }))
            .filter(|rescue| rescue.record.quarantined.is_none())
            .min_by_key(|rescue| rank(rescue))
            .map(|rescue| rescue.name().clone())
    }

    pub(crate) fn can_stand_in(rescue: &Instance) -> bool {
        rescue.record.wish == Wish::Up && rescue.record.deleting.is_none()
    }

    fn count_flap(&mut self, turn: &Turn<'_>, primary: &Name, rescue: &Name) {
        let Some(after) = self.instances.get(rescue).map(|rescue| rescue.policy.rescue.failback_after) else {
            return;
        };
        let Some(instance) = self.instances.get_mut(primary) else { return };
        let soon = after.saturating_mul(2 << instance.flaps);
        let flapped = instance.last_failback.is_some_and(|last| turn.now.since(last) < soon);
        instance.flaps = if flapped { (instance.flaps + 1).min(MAX_FLAPS) } else { 0 };
    }

    /// Puts `rescue` on its way into the place of `primary`.
    pub(crate) fn promote(
        &mut self,
        turn: &mut Turn<'_>,
        primary: &Name,
        rescue: &Name,
        incident: Incident,
        urgency: Urgency,
    ) {
        let busy = self.is_active(rescue);
        let Some(called) = self.instances.get(rescue) else { return };
        let alone = busy || called.policy.rescue.on_primary_death == OnPrimaryDeath::EnsureRunning;
        let fresh = !alone && called.is_running();
        // A launch that has not begun will carry the incident by itself.
        let after = if fresh { called.incarnation } else { Incarnation(0) };
        let Some(instance) = self.instances.get_mut(primary) else { return };
        let cause = incident.cause.clone();
        instance.record.standing = Standing::Promoting(StandIn { rescue: rescue.clone(), after, incident });
        instance.alone = false;
        instance.note(turn, Kind::FailoverBegan { rescue: rescue.clone(), cause });
        turn.store(primary);
        self.refresh_goal(rescue);
        let Some(called) = self.instances.get_mut(rescue) else { return };
        if fresh {
            called.freshen(turn);
        } else if !called.is_running() {
            called.hurry(turn, urgency);
        }
        turn.touch(rescue);
        self.inform(turn, rescue);
    }

    /// Whether `rescue` is in some primary's place.
    fn is_active(&self, rescue: &Name) -> bool {
        let Some(instance) = self.instances.get(rescue) else { return false };
        let primaries = instance.policy.rescues.iter().filter_map(|name| self.instances.get(name));
        let mut standings = primaries.map(|primary| &primary.record.standing);
        standings.any(|standing| matches!(standing, Standing::Away(by) if by.rescue == *rescue))
    }

    /// Brings the incident file of a running rescue up to date.
    pub(crate) fn inform(&self, turn: &mut Turn<'_>, rescue: &Name) {
        if let Some(instance) = self.instances.get(rescue) {
            let incidents = self.incidents_of(instance);
            turn.act(Action::Inform { name: rescue.clone(), incidents });
        }
    }

    fn evaluate_promotion(&mut self, turn: &mut Turn<'_>, primary: &Name, stand_in: StandIn) {
        let rescue = stand_in.rescue.clone();
        let viable = self.rescues_of(primary).find(|candidate| *candidate.name() == rescue);
        let Some(candidate) = viable.filter(|candidate| Self::can_stand_in(candidate)) else {
            return self.rescue_lost(turn, primary, stand_in);
        };
        let Some(instance) = self.instances.get(primary) else { return };
        // One that is active elsewhere serves, and is not restarted for a second primary.
        let fresh = candidate.incarnation > stand_in.after || self.is_active(&rescue);
        if candidate.phase == Phase::Ready && fresh && self.can_serve(candidate) {
            return self.set_standing(turn, primary, Standing::Away(stand_in), Kind::FailedOver { rescue });
        }
        let back = instance.phase == Phase::Ready && instance.channels() == Channels::On;
        if back && stand_in.incident.cause != Cause::ByHand {
            let kind = Kind::FailoverCancelled { rescue: rescue.clone() };
            self.set_standing(turn, primary, Standing::Own, kind);
            return self.stand_down(turn, &rescue);
        }
        match candidate.phase {
            // The order to restart it was lost with an earlier supervisor.
            Phase::Spawning | Phase::Starting | Phase::Ready | Phase::Unhealthy if !fresh => {
                self.with(&rescue, |rescue| rescue.freshen(turn));
            }
            Phase::Backoff { .. } | Phase::Failed { .. } => self.pass_on(turn, primary, stand_in),
            Phase::Stopped
            | Phase::Adopting
            | Phase::Spawning
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Stopping { .. } => {}
        }
    }

    /// The rescue died on its way: another one may be sooner. If it died for good and nobody else is there, the
    /// call stands, and an operator or the primary itself will end it.
    fn pass_on(&mut self, turn: &mut Turn<'_>, primary: &Name, stand_in: StandIn) {
        let rescue = stand_in.rescue.clone();
        let other = self.candidate(primary, Some(&rescue));
        let sooner = other.filter(|name| self.instances.get(name).is_some_and(|other| rank(other) < DEAD));
        let phase = self.instances.get(&rescue).map(|rescue| &rescue.phase);
        if let Some(next) = sooner {
            self.set_standing(turn, primary, Standing::Own, Kind::RescueLost { rescue: rescue.clone() });
            self.stand_down(turn, &rescue);
            self.promote(turn, primary, &next, stand_in.incident, Urgency::InTime);
        } else if matches!(phase, Some(Phase::Failed { retry: None, .. })) {
            let cause = stand_in.incident.cause;
            let ready = self.instances.get(primary).is_some_and(|instance| instance.phase == Phase::Ready);
            if ready { self.fail_back(turn, primary) } else { self.note_alone(turn, primary, cause) }
        }
    }

    /// The active rescue stays in its place as long as it lives; being restarted by hand is living, too.
    fn evaluate_away(&mut self, turn: &mut Turn<'_>, primary: &Name, stand_in: StandIn) {
        let viable = self.rescues_of(primary).find(|candidate| *candidate.name() == stand_in.rescue);
        let alive = viable.is_some_and(|rescue| {
            let up = rescue.is_running() || rescue.phase == Phase::Stopped;
            Self::can_stand_in(rescue) && rescue.death.is_none() && up
        });
        if !alive {
            self.rescue_lost(turn, primary, stand_in);
        } else if self.failback_due(primary).is_some_and(|due| due.at <= turn.now) {
            self.fail_back(turn, primary);
        }
    }

    /// An adoption has found out how `rescue` is. One that runs is told again for whom it stands in: the last word
    /// may have been lost with the supervisor. One of which nothing is alive has to become ready again first.
    pub(crate) fn on_found(&mut self, turn: &mut Turn<'_>, rescue: &Name) {
        let Some(instance) = self.instances.get(rescue) else { return };
        let primaries = instance.policy.rescues.clone();
        match instance.phase {
            Phase::Starting | Phase::Ready if !primaries.is_empty() => self.inform(turn, rescue),
            Phase::Stopped if self.halting.is_none() => {
                primaries.iter().for_each(|primary| self.found_down(turn, primary, rescue));
            }
            Phase::Stopped
            | Phase::Adopting
            | Phase::Spawning
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Stopping { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    fn found_down(&mut self, turn: &mut Turn<'_>, primary: &Name, rescue: &Name) {
        let standing = self.instances.get(primary).map(|instance| instance.record.standing.clone());
        if let Some(Standing::Away(by)) = standing
            && by.rescue == *rescue
        {
            self.rescue_lost(turn, primary, by);
        }
    }

    /// The rescue cannot stand in any more: the primary, if it is ready, or the next one. Where an operator took
    /// both down, nobody else is called.
    fn rescue_lost(&mut self, turn: &mut Turn<'_>, primary: &Name, stand_in: StandIn) {
        let StandIn { rescue, incident, .. } = stand_in;
        let Some(instance) = self.instances.get(primary) else { return };
        if instance.phase == Phase::Ready {
            return self.fail_back(turn, primary);
        }
        let called = self.rescues_of(primary).find(|candidate| *candidate.name() == rescue);
        let able = called.is_some_and(Self::can_stand_in);
        let wanted = instance.goal == Goal::Run || able;
        self.set_standing(turn, primary, Standing::Own, Kind::RescueLost { rescue: rescue.clone() });
        self.stand_down(turn, &rescue);
        let next = self.candidate(primary, None).or(able.then_some(rescue));
        if let Some(next) = next.filter(|_| wanted) {
            self.promote(turn, primary, &next, incident, Urgency::InTime);
        }
    }

    /// Gives the primary its place back.
    pub(crate) fn fail_back(&mut self, turn: &mut Turn<'_>, primary: &Name) {
        let Some(instance) = self.instances.get_mut(primary) else { return };
        let Some(rescue) = instance.record.standing.stand_in().map(|by| by.rescue.clone()) else { return };
        instance.last_failback = Some(turn.now);
        self.set_standing(turn, primary, Standing::Own, Kind::FailedBack { rescue: rescue.clone() });
        self.stand_down(turn, &rescue);
    }

    /// The rescue's role has ended; a cold one is stopped by its goal.
    pub(crate) fn stand_down(&mut self, turn: &mut Turn<'_>, rescue: &Name) {
        self.refresh_goal(rescue);
        turn.touch(rescue);
        self.inform(turn, rescue);
    }

    fn set_standing(&mut self, turn: &mut Turn<'_>, primary: &Name, standing: Standing, kind: Kind) {
        let Some(instance) = self.instances.get_mut(primary) else { return };
        let rescue = standing.stand_in().map(|by| by.rescue.clone());
        instance.record.standing = standing;
        instance.note(turn, kind);
        turn.store(primary);
        if let Some(rescue) = rescue {
            turn.touch(&rescue);
        }
    }

    /// When `primary` gets its place back by itself.
    pub(crate) fn failback_due(&self, primary: &Name) -> Option<Deadline> {
        let instance = self.instances.get(primary)?;
        let Standing::Away(stand_in) = &instance.record.standing else { return None };
        let policy = self.instances.get(&stand_in.rescue)?.policy.rescue;
        if stand_in.incident.cause == Cause::ByHand || policy.failback == Failback::Manual {
            return None;
        }
        let since = instance.health.ready_since().filter(|_| instance.phase == Phase::Ready)?;
        let after = policy.failback_after.saturating_mul(1 << instance.flaps);
        Some(Deadline { at: since + after, why: Why::Failback })
    }
}

impl Instance {
    /// Restarts a rescue that runs since before the incident, so that it finds the incident in its surroundings.
    fn freshen(&mut self, turn: &mut Turn<'_>) {
        if self.death.is_some() {
            // It was about to be restarted anyhow.
            self.count_restart(turn);
        }
        let grace = self.policy.stop_grace.min(PROMOTION_GRACE);
        self.end(turn, Means::Grace(grace), Then::Run);
    }

    /// A rescue that is down is called.
    fn hurry(&mut self, turn: &mut Turn<'_>, urgency: Urgency) {
        let waits = self.phase != Phase::Stopped;
        match urgency {
            Urgency::AtOnce if waits => self.again(turn),
            // It was stopped before its backoff was over.
            Urgency::InTime if !waits && self.record.restarts.troubled() => {
                turn.store(self.name());
                let until = match self.record.restarts.next(turn.now, &self.policy.restart, turn.rng) {
                    Next::After(delay) => turn.now + delay,
                    Next::Spent(until) => until,
                };
                self.enter(turn, Phase::Backoff { until });
            }
            Urgency::AtOnce | Urgency::InTime => {}
        }
    }
}

/// From this rank on, a rescue has died or failed.
const DEAD: u8 = 3;

/// How soon a rescue can stand in: 0 now, 1 it runs, 2 it can be started. One that died before it was stable is
/// called late even where it is down, so that two of them do not start and die in a tight circle.
fn rank(rescue: &Instance) -> u8 {
    let troubled = rescue.death.is_some() || rescue.record.restarts.troubled();
    match rescue.phase {
        Phase::Ready => 0,
        Phase::Starting | Phase::Unhealthy | Phase::Spawning | Phase::Adopting => 1,
        Phase::Stopped | Phase::Stopping { .. } if troubled => DEAD,
        Phase::Stopped | Phase::Stopping { .. } => 2,
        Phase::Backoff { .. } => DEAD,
        Phase::Failed { .. } => DEAD + 1,
    }
}
