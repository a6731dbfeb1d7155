//! A configuration on trial: what an instance was started with, what has proven good, what was taken back.
//!
//! ```text
//!                     a gateway was started with it and
//!                     has been ready for long enough
//!   an edit ──► candidate ───────────────────────────► good, the last one known
//!                   │                                       │
//!                   │ the ladder comes to it                │ put in its place
//!                   └──────────► rejected ◄─────────────────┘
//! ```
//!
//! A hot reload proves nothing: only what a gateway was *started* with can bring one up again. What is good is never
//! forgotten before something else has proven good, so there is always something to go back to.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    action::Action,
    event::{LaunchFailure, Sighting},
    ids::{ConfigId, Incarnation},
    instance::{Failure, Instance, Launching, Phase},
    journal::{Kind, Recovery},
    time::{Deadline, Moment, Why},
    turn::Turn,
};

/// Configurations remembered as good: the last one, and a few for an operator to go back to.
pub const GOODS: usize = 4;

/// Rejected ones remembered, so that the same mistake made again is not tried again.
pub const REJECTED: usize = 8;

/// The longest reason kept, in bytes.
const REASON: usize = 300;

/// What is durable of an instance's configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trial {
    /// Good ones, the newest last.
    good: Vec<ConfigId>,
    /// What the newest life was started with.
    running: Option<(Incarnation, ConfigId)>,
    /// Those taken back, the newest last.
    rejected: Vec<Rejection>,
    /// What is to be put in place before the next start.
    restoring: Option<Restoring>,
    /// The instance runs on an older configuration than somebody wanted.
    degraded: bool,
    /// The life that has proven what it was started with. It does so once: what somebody says to be good since then is
    /// the last good one.
    proven: Option<Incarnation>,
}

/// A configuration that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Which.
    pub content: ConfigId,
    /// When.
    pub at: Moment,
    /// Why.
    pub why: String,
}

/// A configuration on its way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// What is put in place.
    pub to: ConfigId,
    /// Why.
    pub why: String,
    /// Whether nobody asked for it.
    pub unasked: bool,
}

impl Trial {
    /// The last configuration known to be good.
    #[must_use]
    pub fn good(&self) -> Option<ConfigId> {
        self.good.last().copied()
    }

    /// All that are remembered as good, the newest first.
    pub fn goods(&self) -> impl Iterator<Item = ConfigId> {
        self.good.iter().rev().copied()
    }

    /// What this life was started with, if that is known.
    #[must_use]
    pub fn running(&self, incarnation: Incarnation) -> Option<ConfigId> {
        self.running.filter(|(of, _)| *of == incarnation).map(|(_, content)| content)
    }

    /// Those taken back, the newest last.
    #[must_use]
    pub fn rejected(&self) -> &[Rejection] {
        &self.rejected
    }

    /// What is to be put in place before the next start.
    #[must_use]
    pub fn restoring(&self) -> Option<&Restoring> {
        self.restoring.as_ref()
    }

    /// Whether the instance runs on an older configuration than somebody wanted.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.degraded
    }

    /// Contents that must stay readable.
    pub fn needed(&self) -> impl Iterator<Item = ConfigId> {
        let rejected = self.rejected.iter().map(|rejection| rejection.content);
        let restoring = self.restoring.iter().map(|restoring| restoring.to);
        self.goods().chain(rejected).chain(restoring).chain(self.running.map(|(_, content)| content))
    }

    fn rejection(&self, content: ConfigId) -> Option<&Rejection> {
        self.rejected.iter().find(|rejection| rejection.content == content)
    }

    /// It is good. Whether that is news.
    fn prove(&mut self, content: ConfigId) -> bool {
        if self.good() == Some(content) {
            return false;
        }
        self.good.retain(|known| *known != content);
        self.good.push(content);
        if self.good.len() > GOODS {
            // What runs is still good, however long ago it was found to be.
            let running = self.running.map(|(_, running)| running);
            let oldest = self.good.iter().position(|known| Some(*known) != running);
            self.good.remove(oldest.unwrap_or(0));
        }
        self.pardon(content);
        // Nothing is put in the place of what is good without somebody asking for it.
        self.restoring.take_if(|restoring| restoring.unasked);
        self.degraded = false;
        true
    }

    fn reject(&mut self, content: ConfigId, at: Moment, why: String) {
        self.rejected.retain(|rejection| rejection.content != content);
        self.rejected.push(Rejection { content, at, why });
        if self.rejected.len() > REJECTED {
            self.rejected.remove(0);
        }
    }

    /// What to go back to from `failed`: the last good one, unless that is what failed.
    pub(crate) fn refuge(&self, failed: ConfigId) -> Option<ConfigId> {
        self.good().filter(|good| *good != failed)
    }

    /// Somebody wants it all the same.
    pub(crate) fn pardon(&mut self, content: ConfigId) {
        self.rejected.retain(|rejection| rejection.content != content);
    }

    /// Lets nothing in it be later than `now`.
    pub(crate) fn no_later_than(&mut self, now: Moment) -> bool {
        let later = self.rejected.iter().any(|rejection| rejection.at > now);
        self.rejected.iter_mut().for_each(|rejection| rejection.at = rejection.at.min(now));
        later
    }
}

impl Instance {
    /// Its configuration has been looked at: because it changed, or because a launch reads it.
    pub(crate) fn on_config_seen(&mut self, turn: &mut Turn<'_>, sighting: &Sighting) {
        // Its own launch has told, or will tell, what this life has read since.
        if let Some(life) = sighting.used_by.filter(|life| *life < self.incarnation) {
            return self.stale(turn, life);
        }
        // It may come after the life has begun: the first content of all is kept while the gateway starts.
        let used = sighting.used_by == Some(self.incarnation) && self.launching != Launching::Held;
        if used && let Some(content) = sighting.content {
            self.record.trial.running = Some((self.incarnation, content));
            if sighting.problem.is_none() {
                self.has_read(turn.now, &sighting.credentials);
            }
            turn.store(self.name());
            turn.touch(self.name());
        }
        let before = self.seen.replace(sighting.clone());
        if before.as_ref().is_none_or(|before| before.credentials != sighting.credentials) {
            self.add_credentials(turn);
            turn.touch(self.name());
        }
        if before.as_ref().is_some_and(|before| before.content == sighting.content) {
            return;
        }
        // A launch tells itself what became of it.
        if sighting.used_by.is_none() {
            self.announce(turn, before.is_some(), sighting);
        }
        if sighting.problem.is_none() && before.is_some() {
            self.try_edited(turn);
        }
    }

    /// Says what a new content is. The first look at a sound one is no news.
    fn announce(&mut self, turn: &mut Turn<'_>, changed: bool, sighting: &Sighting) {
        let trial = &self.record.trial;
        let kind = match (&sighting.problem, sighting.content) {
            (Some(problem), _) => Some(Kind::Recovery(Recovery::ConfigBroken { problem: problem.clone() })),
            (None, Some(content)) if changed => Some(match trial.rejection(content) {
                Some(rejection) => {
                    let problem = alloc::format!("it was taken back before: {}", rejection.why);
                    Kind::Recovery(Recovery::ConfigBroken { problem })
                }
                None => {
                    Kind::Recovery(Recovery::ConfigChanged { content, good: trial.good() == Some(content) })
                }
            }),
            (None, Some(_) | None) => None,
        };
        match kind {
            Some(kind) => self.note(turn, kind),
            None => turn.touch(self.name()),
        }
    }

    /// What could not be started with the old content may be startable with the new one.
    fn try_edited(&mut self, turn: &mut Turn<'_>) {
        let hopeful = match &self.phase {
            Phase::Failed { failure, .. } => match failure {
                Failure::Launch(LaunchFailure::BadConfig(_) | LaunchFailure::Fenced { .. })
                | Failure::Fatal(_) => true,
                Failure::Launch(
                    LaunchFailure::PortTaken { .. }
                    | LaunchFailure::Refused(_)
                    | LaunchFailure::Unexpected
                    | LaunchFailure::Spawn(_)
                    | LaunchFailure::NoAnswer,
                )
                | Failure::NotRestarted(_)
                | Failure::BudgetSpent
                | Failure::Quarantined(_) => false,
            },
            Phase::Stopped
            | Phase::Adopting
            | Phase::Spawning
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Stopping { .. }
            | Phase::Backoff { .. } => false,
        };
        if hopeful {
            self.retry(turn);
        }
    }

    /// The content that `to` was put in place of, as far as it is known, is taken back.
    pub(crate) fn take_back(&mut self, turn: &mut Turn<'_>, failed: ConfigId, to: ConfigId, why: &str) {
        let why = shortened(why);
        self.record.trial.reject(failed, turn.now, why.clone());
        self.note(turn, Kind::Recovery(Recovery::ConfigTakenBack { from: failed, to, why: why.clone() }));
        self.restore(turn, Restoring { to, why, unasked: true });
    }

    /// Before the next start, an older content is put in place.
    pub(crate) fn restore(&mut self, turn: &mut Turn<'_>, restoring: Restoring) {
        self.record.trial.restoring = Some(restoring);
        turn.store_before_launch(self.name());
        turn.touch(self.name());
    }

    /// Nothing runs and nothing is to be run: it is done now.
    pub(crate) fn restore_now(&self, turn: &mut Turn<'_>) {
        if let Some(Restoring { to, why, .. }) = self.record.trial.restoring.clone() {
            turn.act_durably(Action::Restore { name: self.name().clone(), to, why });
        }
    }

    pub(crate) fn on_restored(&mut self, turn: &mut Turn<'_>, content: ConfigId) {
        let Some(restoring) = self.record.trial.restoring.take_if(|restoring| restoring.to == content) else {
            return;
        };
        self.record.trial.degraded = restoring.unasked;
        self.seen = Some(Sighting { content: Some(content), ..Sighting::default() });
        self.note(turn, Kind::Recovery(Recovery::ConfigRestored { content }));
        turn.store(self.name());
    }

    pub(crate) fn on_restore_failed(&mut self, turn: &mut Turn<'_>, message: String) {
        if self.record.trial.restoring.take().is_some() {
            self.note(turn, Kind::Recovery(Recovery::RestoreFailed { message }));
            turn.store(self.name());
        }
    }

    /// An operator says that a content is good.
    pub(crate) fn mark_good(&mut self, turn: &mut Turn<'_>, content: ConfigId) {
        let restoring = self.record.trial.restoring().cloned().filter(|restoring| restoring.unasked);
        let degraded = core::mem::take(&mut self.record.trial.degraded);
        let running = self.record.trial.running(self.incarnation);
        if running.is_some_and(|running| self.record.trial.good.contains(&running)) {
            self.record.trial.proven = Some(self.incarnation);
            // What runs is not waited for any more.
            turn.rearm(self.name());
        }
        if self.record.trial.prove(content) || degraded {
            self.note(turn, Kind::Recovery(Recovery::ConfigGood { content }));
        }
        // What was on its way back is not the last good one any more.
        if let Some(Restoring { why, .. }) = restoring
            && self.seen.as_ref().and_then(|seen| seen.content) != Some(content)
        {
            self.restore(turn, Restoring { to: content, why, unasked: true });
        }
        turn.store(self.name());
    }

    /// When what runs will have proven good.
    pub(crate) fn proven_at(&self) -> Option<Deadline> {
        let since = self.health.ready_since().filter(|_| self.phase == Phase::Ready)?;
        let running = self.record.trial.running(self.incarnation)?;
        let trial = &self.record.trial;
        let on_trial = trial.proven != Some(self.incarnation) && trial.good() != Some(running);
        on_trial.then(|| Deadline { at: since + self.policy.trial.good_after, why: Why::Trial })
    }

    /// What runs has been ready for long enough.
    pub(crate) fn prove(&mut self, turn: &mut Turn<'_>) {
        if let Some(due) = self.proven_at()
            && due.at <= turn.now
            && let Some(content) = self.record.trial.running(self.incarnation)
            && self.record.trial.prove(content)
        {
            self.record.trial.proven = Some(self.incarnation);
            self.note(turn, Kind::Recovery(Recovery::ConfigGood { content }));
            turn.store(self.name());
        }
    }

    /// What would be started with now, if it was taken back before: the same mistake is not tried again.
    pub(crate) fn relapse(&self) -> Option<(ConfigId, ConfigId, String)> {
        let content = self.seen.as_ref()?.content?;
        let rejection = self.record.trial.rejection(content)?;
        let to = self.record.trial.refuge(content)?;
        Some((content, to, rejection.why.to_string()))
    }
}

fn shortened(why: &str) -> String {
    why[..why.floor_char_boundary(REASON)].into()
}
