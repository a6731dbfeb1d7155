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
    ids::{Incarnation, Name},
    instance::{Goal, Instance, Means, Phase, Then},
    journal::Kind,
    policy::{Failback, OnPrimaryDeath, Standby},
    record::Wish,
    time::{Deadline, Why},
    turn::Turn,
};

/// The longest grace a standby gets when it is restarted for an incident: it has nothing to drain.
const PROMOTION_GRACE: Duration = Duration::from_secs(5);

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
    pub since: crate::time::Moment,
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
        let name = instance.name();
        let wanted =
            self.halting.is_none() && instance.record.wish == Wish::Up && instance.record.deleting.is_none();
        let cold = !instance.policy.rescues.is_empty() && instance.policy.rescue.standby == Standby::Cold;
        let called = || instance.policy.rescues.iter().any(|primary| self.stands_in(name, primary));
        if wanted && (!cold || called()) { Goal::Run } else { Goal::Rest }
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

    /// Brings the standing of `primary` in line with what is.
    pub(crate) fn evaluate(&mut self, turn: &mut Turn<'_>, primary: &Name) {
        let Some(instance) = self.instances.get(primary) else { return };
        if self.halting.is_some() {
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
            Standing::Away(stand_in) => self.evaluate_away(turn, primary, &stand_in),
        }
    }

    /// The primary is dead: the best rescue is called, if there is one.
    fn call_rescue(&mut self, turn: &mut Turn<'_>, primary: &Name, cause: Cause) {
        let Some(rescue) = self.candidate(primary, None) else {
            let Some(instance) = self.instances.get_mut(primary) else { return };
            if self.rescuers.contains_key(primary) && !core::mem::replace(&mut instance.alone, true) {
                instance.note(turn, Kind::NoRescue { cause });
            }
            return;
        };
        self.count_flap(turn, primary, &rescue);
        self.promote(turn, primary, &rescue, cause, Urgency::AtOnce);
    }

    /// The rescue that can stand in soonest: ready before alive before down; then by name.
    pub(crate) fn candidate(&self, primary: &Name, except: Option<&Name>) -> Option<Name> {
        let rank = |rescue: &&Instance| match rescue.phase {
            Phase::Ready => 0,
            Phase::Starting | Phase::Unhealthy | Phase::Spawning | Phase::Adopting => 1,
            Phase::Stopped | Phase::Stopping { .. } => 2,
            Phase::Backoff { .. } => 3,
            Phase::Failed { .. } => 4,
        };
        self.rescues_of(primary)
            .filter(|rescue| Some(rescue.name()) != except && Self::can_stand_in(rescue))
            .filter(|rescue| !matches!(rescue.phase, Phase::Failed { retry: None, .. }))
            .min_by_key(rank)
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
        cause: Cause,
        urgency: Urgency,
    ) {
        let busy = self.is_active(rescue);
        let Some(called) = self.instances.get(rescue) else { return };
        let alone = busy || called.policy.rescue.on_primary_death == OnPrimaryDeath::EnsureRunning;
        let fresh = !alone && called.is_running();
        // A launch that has not begun will carry the incident by itself.
        let after = if fresh { called.incarnation } else { Incarnation(0) };
        let number = self.revision.0 + 1;
        let Some(instance) = self.instances.get_mut(primary) else { return };
        let last_exit = instance.last_exit.clone();
        let incident =
            Incident { number, primary: primary.clone(), since: turn.now, cause: cause.clone(), last_exit };
        instance.record.standing = Standing::Promoting(StandIn { rescue: rescue.clone(), after, incident });
        instance.alone = false;
        instance.note(turn, Kind::FailoverBegan { rescue: rescue.clone(), cause });
        turn.store(primary);
        self.refresh_goal(rescue);
        let Some(called) = self.instances.get_mut(rescue) else { return };
        if fresh {
            let grace = called.policy.stop_grace.min(PROMOTION_GRACE);
            called.end(turn, Means::Grace(grace), Then::Run);
        } else if urgency == Urgency::AtOnce && !called.is_running() && called.phase != Phase::Stopped {
            called.restarts.count(turn.now, &called.policy.restart);
            called.enter(turn, Phase::Stopped);
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
    fn inform(&self, turn: &mut Turn<'_>, rescue: &Name) {
        if let Some(instance) = self.instances.get(rescue) {
            let incidents = self.incidents_of(instance);
            turn.act(Action::Inform { name: rescue.clone(), incidents });
        }
    }

    fn evaluate_promotion(&mut self, turn: &mut Turn<'_>, primary: &Name, stand_in: StandIn) {
        let rescue = stand_in.rescue.clone();
        let viable = self.rescues_of(primary).find(|candidate| *candidate.name() == rescue);
        let Some(candidate) = viable.filter(|candidate| Self::can_stand_in(candidate)) else {
            return self.rescue_lost(turn, primary, &stand_in);
        };
        let Some(instance) = self.instances.get(primary) else { return };
        if candidate.phase == Phase::Ready && candidate.incarnation > stand_in.after {
            self.set_standing(turn, primary, Standing::Away(stand_in), Kind::FailedOver { rescue });
        } else if instance.phase == Phase::Ready && stand_in.incident.cause != Cause::ByHand {
            self.set_standing(
                turn,
                primary,
                Standing::Own,
                Kind::FailoverCancelled { rescue: rescue.clone() },
            );
            self.stand_down(turn, &rescue);
        } else if matches!(candidate.phase, Phase::Failed { .. })
            && let Some(other) = self.candidate(primary, Some(&rescue))
        {
            self.promote(turn, primary, &other, stand_in.incident.cause, Urgency::InTime);
        }
    }

    fn evaluate_away(&mut self, turn: &mut Turn<'_>, primary: &Name, stand_in: &StandIn) {
        let viable = self.rescues_of(primary).find(|candidate| *candidate.name() == stand_in.rescue);
        let alive = viable.is_some_and(|rescue| {
            Self::can_stand_in(rescue) && rescue.death.is_none() && rescue.is_running()
        });
        if !alive {
            self.rescue_lost(turn, primary, stand_in);
        } else if self.failback_due(primary).is_some_and(|due| due.at <= turn.now) {
            self.fail_back(turn, primary);
        }
    }

    /// The rescue cannot stand in any more: the primary, if it is ready, or the next one.
    fn rescue_lost(&mut self, turn: &mut Turn<'_>, primary: &Name, stand_in: &StandIn) {
        let rescue = &stand_in.rescue;
        let Some(instance) = self.instances.get(primary) else { return };
        if instance.phase == Phase::Ready {
            return self.fail_back(turn, primary);
        }
        let next = self.candidate(primary, Some(rescue)).or_else(|| self.candidate(primary, None));
        self.set_standing(turn, primary, Standing::Own, Kind::RescueLost { rescue: rescue.clone() });
        self.stand_down(turn, rescue);
        if let Some(next) = next {
            self.promote(turn, primary, &next, stand_in.incident.cause.clone(), Urgency::InTime);
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
    fn stand_down(&mut self, turn: &mut Turn<'_>, rescue: &Name) {
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
