//! One instance: its phases, and one function for each thing that can happen to it.
//!
//! An instance is told by [`Goal`] whether it should run; who decides that (wishes, standby, failover) is
//! [`failover`](crate::failover). Everything here is local: an instance never looks at another.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

use crate::{
    action::{Action, Launch},
    event::{Exit, ExitStatus, LaunchFailure, Process, Sighting},
    failover::Cause,
    fence::Channels,
    health::Health,
    ids::{Incarnation, Name, Revision},
    journal::Kind,
    ladder::Purpose,
    policy::{Condition, HealthPolicy, Policy},
    record::{RESERVE, RESERVE_AT, Record},
    time::{Deadline, Moment, Why},
    turn::Turn,
};

/// A launch or an adoption that is not answered by then has failed. Preparing a configuration and making a
/// process takes milliseconds; a host that swaps takes seconds.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Given to a worker beyond the grace of a stop, and to a kill, before more is done.
pub const STOP_SLACK: Duration = Duration::from_secs(10);

/// A refused configuration or a taken port is looked at again this often: people mend those by hand.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing runs.
    Stopped,
    /// What an earlier supervisor left is being looked for.
    Adopting,
    /// A process is being made.
    Spawning,
    /// The process runs; the start is not over.
    Starting,
    /// It serves.
    Ready,
    /// It runs and does not serve.
    Unhealthy,
    /// It is being ended.
    Stopping {
        /// What follows.
        then: Then,
        /// What has been done about it.
        means: Means,
    },
    /// It waits for its next start.
    Backoff {
        /// Until then.
        until: Moment,
    },
    /// It cannot run.
    Failed {
        /// Why.
        failure: Failure,
        /// When it is tried again by itself.
        retry: Option<Moment>,
    },
}

/// What follows the end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Rest, or whatever the goal says by then.
    Rest,
    /// A fresh start at once.
    Run,
    /// What follows a death by this cause.
    Recover(Cause),
}

/// How a process is being ended, from mild to harsh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Asked to end; the worker kills it after this grace.
    Grace(Duration),
    /// Killed.
    Kill,
    /// Its worker is of no use: everything of the instance is killed.
    Sweep,
}

/// Why an instance cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It ended with a status that another start cannot mend.
    Fatal(Exit),
    /// It ended, and its policy is not to run it again.
    NotRestarted(Exit),
    /// It was restarted too often.
    BudgetSpent,
    /// All has been tried.
    Quarantined(Cause),
    /// It cannot be started.
    Launch(LaunchFailure),
}

/// Whether an instance should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// It should.
    Run,
    /// It should not.
    Rest,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub(crate) record: Record,
    pub(crate) policy: Policy,
    pub(crate) phase: Phase,
    /// Since when it is in this phase.
    pub(crate) since: Moment,
    pub(crate) goal: Goal,
    /// The current life, or the last one.
    pub(crate) incarnation: Incarnation,
    /// The spec's generation that the current life was started with.
    pub(crate) observed: u64,
    /// What the current life is judged by; a changed spec shows at the next start.
    pub(crate) terms: Terms,
    /// Numbers up to this one may have been used by an earlier supervisor, if only for launches that failed; 0 once
    /// a gateway is found running, which is the last that was launched.
    pub(crate) used: Incarnation,
    /// The newest life that said READY=1.
    pub(crate) notified: Incarnation,
    pub(crate) process: Option<Process>,
    /// The start ordered last has not been answered.
    pub(crate) launching: Launching,
    pub(crate) health: Health,
    pub(crate) last_exit: Option<Exit>,
    /// Why it died, until it is ready again.
    pub(crate) death: Option<Cause>,
    /// When the stop under way is overdue.
    pub(crate) overdue: Moment,
    /// Incarnations up to this one are durably reserved.
    pub(crate) durable: Incarnation,
    /// A reservation on its way to the disk.
    pub(crate) reserving: Option<(Revision, Incarnation)>,
    /// Nothing is launched before this revision is durable.
    pub(crate) launch_gate: Revision,
    /// The revision of the last visible change.
    pub(crate) changed: Revision,
    /// How often in a row the primary lost its place again soon after a failback.
    pub(crate) flaps: u32,
    pub(crate) last_failback: Option<Moment>,
    /// The exit that its runtime is asked about.
    pub(crate) asked: Option<Exit>,
    /// What its configuration was when it was last looked at.
    pub(crate) seen: Option<Sighting>,
    /// Until when the channels may think that a life of it still polls, if none does.
    pub(crate) polled_until: Moment,
    /// Somebody else whose credential stands in its configuration, as it has been said.
    pub(crate) shared_with: Option<Name>,
    /// What the current life is for.
    pub(crate) purpose: Purpose,
    /// It has been said that it is dead and nobody rescues it.
    pub(crate) alone: bool,
    /// The deadline in the supervisor's list of them.
    pub(crate) timer: Option<Deadline>,
}

/// What a life is judged by: fixed at its start, like the program's own configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) spec: Arc<str>,
    pub(crate) health: HealthPolicy,
}

/// How far a launch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launching {
    /// None is under way.
    No,
    /// It waits for durability.
    Held,
    /// The shell is at it, since then.
    Ordered(Moment),
}

impl Instance {
    /// A new instance that has never run.
    pub(crate) fn new(record: Record, policy: Policy, now: Moment) -> Self {
        let incarnation = record.launched;
        let observed = if record.observed == 0 { record.generation } else { record.observed };
        let terms = Terms { spec: Arc::clone(&record.spec), health: policy.health };
        Self {
            record,
            policy,
            phase: Phase::Stopped,
            since: now,
            goal: Goal::Rest,
            incarnation,
            observed,
            terms,
            used: Incarnation(0),
            notified: Incarnation(0),
            process: None,
            launching: Launching::No,
            health: Health::default(),
            last_exit: None,
            death: None,
            overdue: now,
            durable: Incarnation(0),
            reserving: None,
            launch_gate: Revision(0),
            changed: Revision(0),
            flaps: 0,
            last_failback: None,
            asked: None,
            seen: None,
            polled_until: Moment::default(),
            shared_with: None,
            purpose: Purpose::Serve,
            alone: false,
            timer: None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.record.name
    }

    /// Whether a process of it may be alive.
    pub(crate) fn is_running(&self) -> bool {
        match self.phase {
            Phase::Stopped | Phase::Backoff { .. } | Phase::Failed { .. } => false,
            Phase::Adopting
            | Phase::Spawning
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Stopping { .. } => true,
        }
    }

    /// Whether it is not known yet what an earlier supervisor left of it.
    pub(crate) fn awaits_adoption(&self) -> bool {
        match self.phase {
            Phase::Adopting => true,
            // Whatever else is being ended has a process, or a launch that will tell whether it has.
            Phase::Stopping { means: Means::Grace(_) | Means::Kill, .. } => {
                self.process.is_none() && self.launching == Launching::No
            }
            Phase::Stopped
            | Phase::Spawning
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Stopping { means: Means::Sweep, .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => false,
        }
    }

    pub(crate) fn note(&self, turn: &mut Turn<'_>, kind: Kind) {
        turn.note(self.name(), self.incarnation, kind);
    }

    pub(crate) fn enter(&mut self, turn: &mut Turn<'_>, phase: Phase) {
        self.phase = phase;
        self.since = turn.now;
        turn.touch(self.name());
    }

    /// Starts a gateway.
    pub(crate) fn begin(&mut self, turn: &mut Turn<'_>, channels: Channels) {
        if let Some(cause) = self.record.quarantined.clone() {
            return self.stay_down(turn, cause);
        }
        if self.record.gave_up.take().is_some() {
            turn.store(self.name());
        }
        self.avoid_relapse(turn);
        self.arm(turn, channels);
        self.begin_life(turn, Purpose::Serve);
    }

    /// Starts a new life. Its launch is told whom it stands in for, and what is to be put back, when it leaves.
    pub(crate) fn begin_life(&mut self, turn: &mut Turn<'_>, purpose: Purpose) {
        self.incarnation = self.incarnation.max(self.record.launched).max(self.used).next();
        self.observed = self.record.generation;
        self.purpose = purpose;
        self.terms = self.terms_of(purpose);
        self.process = None;
        self.reserve(turn);
        self.launching = Launching::Held;
        self.enter(turn, Phase::Spawning);
        turn.launches.push(Launch {
            name: self.name().clone(),
            incarnation: self.incarnation,
            block: self.record.block,
            previous_base: self.record.previous_base,
            spec: Arc::clone(&self.record.spec),
            incidents: Vec::new(),
            purpose,
            channels: self.channels(),
            credentials: self.cleared(),
            restore: None,
        });
    }

    /// What a life with this purpose is judged by.
    pub(crate) fn terms_of(&self, purpose: Purpose) -> Terms {
        let health = match (purpose, self.policy.ladder.repair) {
            (Purpose::Serve, _) => self.policy.health,
            (Purpose::Repair, limit) => HealthPolicy::of_repair(limit.unwrap_or(ANSWER_LIMIT)),
        };
        Terms { spec: Arc::clone(&self.record.spec), health }
    }

    /// What was taken back once is not started with again unless somebody says that it is good.
    fn avoid_relapse(&mut self, turn: &mut Turn<'_>) {
        let ladder = &self.policy.ladder;
        if self.record.trial.restoring().is_none()
            && ladder.roll_back
            && !ladder.held
            && let Some((from, to, why)) = self.relapse()
        {
            self.take_back(turn, from, to, &why);
        }
    }

    /// Reserves further incarnations in time. A reservation that is on its way is not repeated, unless lives
    /// that never left used it up meanwhile.
    pub(crate) fn reserve(&mut self, turn: &mut Turn<'_>) {
        let Incarnation(newest) = self.incarnation.max(self.record.launched).max(self.used);
        let Incarnation(reserved) = self.record.reserved;
        let spare = reserved.saturating_sub(newest);
        if newest > reserved || (spare < RESERVE_AT && self.reserving.is_none()) {
            self.record.reserved = Incarnation(newest.saturating_add(RESERVE));
            turn.reserve(self.name());
        }
    }

    /// It died, or could not be started: when is it run again?
    pub(crate) fn recover(&mut self, turn: &mut Turn<'_>, cause: &Cause) {
        if self.purpose == Purpose::Repair {
            return self.repaired(turn, cause);
        }
        self.death = Some(cause.clone());
        if self.record.restarts.trouble(turn.now) {
            turn.store(self.name());
        }
        let policy = &self.policy.restart;
        let failure = final_failure(cause, policy.condition, &policy.fatal_codes);
        if !matches!(failure, Some(Failure::NotRestarted(_))) && self.climb(turn, cause) {
            return;
        }
        if let Some(failure) = failure {
            let note = match &failure {
                Failure::Fatal(exit) => Some((exit, Kind::GaveUp(exit.clone()))),
                Failure::NotRestarted(exit) => Some((exit, Kind::LeftDown(exit.clone()))),
                Failure::Launch(_) | Failure::BudgetSpent | Failure::Quarantined(_) => None,
            };
            if let Some((exit, note)) = note {
                self.note(turn, note);
                self.record.gave_up = Some(exit.clone());
                turn.store(self.name());
            }
            self.enter(turn, Phase::Failed { failure, retry: None });
            turn.act(Action::Release { name: self.name().clone() });
            return;
        }
        if let Cause::CannotStart(failure) = cause
            && matches!(
                failure,
                LaunchFailure::PortTaken { .. }
                    | LaunchFailure::Refused(_)
                    | LaunchFailure::BadConfig(_)
                    | LaunchFailure::Fenced { .. }
            )
        {
            let failure = Failure::Launch(failure.clone());
            self.enter(turn, Phase::Failed { failure, retry: Some(turn.now + LOOK_AGAIN) });
            return;
        }
        turn.store(self.name());
        let next = self.record.restarts.next(turn.now, &self.policy.restart, turn.rng);
        self.wait(turn, next);
    }

    /// When its failures are forgotten.
    pub(crate) fn stable_at(&self) -> Option<Moment> {
        let troubled = self.record.restarts.troubled() || self.record.ladder.climbed();
        let since = self.health.ready_since().filter(|_| troubled)?;
        Some(since + self.policy.restart.reset_after)
    }

    /// When it wants to be looked at again.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        match &self.phase {
            Phase::Stopped => None,
            Phase::Adopting => Some(Deadline { at: self.since + ANSWER_LIMIT, why: Why::Answer }),
            Phase::Spawning => match self.launching {
                Launching::Ordered(at) => Some(Deadline { at: at + ANSWER_LIMIT, why: Why::Answer }),
                Launching::No | Launching::Held => None,
            },
            Phase::Starting => Some(self.health.startup_deadline(&self.terms.health)),
            Phase::Ready | Phase::Unhealthy => {
                let stable = self.stable_at().map(|at| Deadline { at, why: Why::Stable });
                self.health.probe_deadline().into_iter().chain(stable).chain(self.proven_at()).min()
            }
            Phase::Stopping { .. } => Some(Deadline { at: self.overdue, why: Why::Stop }),
            Phase::Backoff { until } => Some(Deadline { at: *until, why: Why::Backoff }),
            Phase::Failed { retry, .. } => retry.map(|at| Deadline { at, why: Why::Retry }),
        }
    }
}

/// Whether the host has been restarted since the last supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// It has not: what is not alive has died.
    Same,
    /// It has: nothing could be alive.
    New,
}

/// Whether a death is the last one by policy.
fn final_failure(cause: &Cause, condition: Condition, fatal: &[i32]) -> Option<Failure> {
    let Cause::Exited(exit) = cause else { return None };
    let code = match exit.status {
        ExitStatus::Code(code) => Some(code),
        ExitStatus::Signal { .. } | ExitStatus::OutOfMemory | ExitStatus::Unknown => None,
    };
    if code.is_some_and(|code| fatal.contains(&code)) {
        return Some(Failure::Fatal(exit.clone()));
    }
    let restarted = match condition {
        Condition::Always => true,
        Condition::OnFailure => code != Some(0),
        Condition::Never => false,
    };
    (!restarted).then(|| Failure::NotRestarted(exit.clone()))
}
