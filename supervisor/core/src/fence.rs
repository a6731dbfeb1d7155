//! The fence around a channel's credentials: no two gateways ever poll with the same one.
//!
//! A bot's messages go to whoever asks for them, so two gateways that ask with one token fight for each message. Before
//! a gateway is started it is therefore known what its configuration names, and that nobody else may use any of it:
//! nobody else's life may be alive that does, and the last poll of one that died has expired.
//!
//! ```text
//!   what it names is used by     it is a rescue, or its rescue uses it     anybody else
//!   somebody else ...                     │                                    │
//!                                         ▼                                    ▼
//!                           started without its channels;          not started; looked at
//!                           started anew with them once it         again soon
//!                           should have them and may
//! ```
//!
//! Who should have them: the primary, unless a rescue with the same credential stands in for it; a rescue, once it is
//! called. What an edit adds to a running gateway cannot be kept from it: it counts as used from then on, and who
//! would meet it is named.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{
    Supervisor,
    event::{Exit, ExitStatus, LaunchFailure},
    failover::{Cause, Standing},
    ids::{Credential, Name},
    instance::{Goal, Instance, Launching, Means, Phase, Then},
    journal::{Channel, Kind},
    ladder::Purpose,
    time::{Deadline, Moment, Why},
    turn::Turn,
};

/// Credentials that edits added to a running gateway: more than any configuration names.
const LATER: usize = 64;

/// Credentials whose polls have not expired: lives that die within seconds of each other, each with others.
const LINGERING: usize = 128;

/// No poll lasts longer.
pub const LONGEST_POLL: core::time::Duration = core::time::Duration::from_secs(300);

/// Whether a gateway is started with its channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channels {
    /// It polls for messages.
    #[default]
    On,
    /// It serves all else.
    Off,
}

/// What is durable of an instance's use of credentials. It is stored before the launch that it tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fence {
    /// What the configuration named when the newest life was ordered.
    named: Vec<Credential>,
    /// What edits have added since.
    later: Vec<Credential>,
    /// Whether that life has its channels.
    channels: Channels,
    /// What lives before it used, and when the last poll with it will have expired.
    lingering: Vec<(Credential, Moment)>,
}

impl Fence {
    /// What the newest life may use.
    fn used(&self) -> impl Iterator<Item = Credential> {
        let on = self.channels == Channels::On;
        self.named.iter().chain(&self.later).copied().filter(move |_| on)
    }

    /// After a restart of the host its clock may be behind.
    pub(crate) fn no_later_than(&mut self, now: Moment) -> bool {
        let latest = now + LONGEST_POLL;
        let later = self.lingering.iter().any(|(_, until)| *until > latest);
        self.lingering.iter_mut().for_each(|(_, until)| *until = latest.min(*until));
        later
    }
}

impl Instance {
    /// Whether its newest life was started without its channels.
    #[must_use]
    pub fn channels(&self) -> Channels {
        self.record.fence.channels
    }

    /// What the life that begins may use.
    pub(crate) fn cleared(&self) -> alloc::sync::Arc<[Credential]> {
        self.record.fence.named.as_slice().into()
    }

    /// What its next life would use.
    fn wanted(&self) -> &[Credential] {
        self.seen.as_ref().map_or(&self.record.fence.named, |seen| &seen.credentials)
    }

    /// What it has to do with: what its next life would use, and what this one may.
    fn concerns(&self) -> impl Iterator<Item = Credential> {
        let current = self.record.fence.used().filter(|_| self.is_running());
        self.wanted().iter().copied().chain(current)
    }

    /// Whether it names any.
    fn has_credentials(&self) -> bool {
        let fence = &self.record.fence;
        !(self.wanted().is_empty()
            && fence.named.is_empty()
            && fence.later.is_empty()
            && fence.lingering.is_empty())
    }

    fn shares_with(&self, other: &Self) -> bool {
        self.concerns().any(|ours| other.concerns().any(|theirs| ours == theirs))
    }

    /// A life of it that may poll may be alive.
    fn may_poll(&self) -> bool {
        self.is_running() && (self.purpose == Purpose::Serve || self.phase == Phase::Adopting)
    }

    /// What a life of it that may be alive was started with and uses, as far as it is known whether one is.
    pub(crate) fn started_with(&self) -> impl Iterator<Item = Credential> {
        let known = self.may_poll() && (self.process.is_some() || self.launching != Launching::No);
        let uses = known && self.record.fence.channels == Channels::On;
        self.record.fence.named.iter().copied().filter(move |_| uses)
    }

    /// Until when it keeps `credential` from others; `None`: it does not know yet.
    fn keeps(&self, credential: Credential) -> Option<Moment> {
        let used = self.record.fence.used().any(|used| used == credential);
        if used && self.may_poll() {
            return None;
        }
        let lingering = self.record.fence.lingering.iter().filter(|(known, _)| *known == credential);
        let until = lingering.map(|(_, until)| *until).max().unwrap_or_default();
        Some(if used { until.max(self.polled_until) } else { until })
    }

    /// Whether `credential` is free of it at `now`.
    fn leaves(&self, credential: Credential, now: Moment) -> bool {
        self.keeps(credential).is_some_and(|until| until <= now)
    }

    /// A life has ended, or cannot be alive any more.
    pub(crate) fn has_polled(&mut self, now: Moment, exit: Option<&Exit>) {
        let closed = exit.is_some_and(|exit| exit.ordered && exit.status == ExitStatus::Code(0));
        // A repair is no gateway, and one that ended as it was asked to has closed its polls itself.
        if self.purpose == Purpose::Serve && !closed {
            let expiry = self.policy.poll_expiry.min(LONGEST_POLL);
            self.polled_until = self.polled_until.max(now + expiry);
        }
    }

    /// Notes what the life that begins may use.
    pub(crate) fn arm(&mut self, turn: &mut Turn<'_>, channels: Channels) {
        let before = &self.record.fence;
        // Where nobody has looked yet, it may use nothing: what was known once may be another's by now.
        let unknown = self.seen.is_none() && channels == Channels::On;
        let named: Vec<_> = if unknown { Vec::new() } else { self.wanted().into() };
        let mut lingering: Vec<_> =
            before.lingering.iter().copied().filter(|(_, until)| *until > turn.now).collect();
        if self.polled_until > turn.now {
            // What it goes on to use it keeps anyhow.
            let dropped = before.used().filter(|used| channels == Channels::Off || !named.contains(used));
            lingering.extend(dropped.map(|used| (used, self.polled_until)));
        }
        lingering.sort_by_key(|(_, until)| core::cmp::Reverse(*until));
        lingering.truncate(LINGERING);
        // Without credentials there is nothing to keep it from.
        let channels = if named.is_empty() { Channels::On } else { channels };
        let fence = Fence { named, later: Vec::new(), channels, lingering };
        if fence == *before {
            return;
        }
        if fence.channels != before.channels {
            self.note(
                turn,
                Kind::Channel(match fence.channels {
                    Channels::On => Channel::On,
                    Channels::Off => Channel::Off,
                }),
            );
        }
        self.record.fence = fence;
        turn.store_before_launch(self.name());
    }

    /// What its life has read of what it may use.
    pub(crate) fn has_read(&mut self, now: Moment, read: &[Credential]) {
        let fence = &mut self.record.fence;
        if fence.channels == Channels::On && self.polled_until > now {
            let dropped = fence.named.iter().filter(|named| !read.contains(named));
            fence.lingering.extend(dropped.map(|dropped| (*dropped, self.polled_until)));
            fence.lingering.truncate(LINGERING);
        }
        fence.named.retain(|named| read.contains(named));
    }

    /// Its running gateway may take up what an edit has added.
    pub(crate) fn add_credentials(&mut self, turn: &mut Turn<'_>) {
        let Some(seen) = self.seen.as_ref().filter(|seen| seen.problem.is_none()) else { return };
        let fence = &mut self.record.fence;
        if !matches!(self.phase, Phase::Starting | Phase::Ready | Phase::Unhealthy) {
            return;
        }
        let known = |fence: &Fence, new| fence.named.iter().chain(&fence.later).any(|known| *known == new);
        for new in seen.credentials.iter().copied() {
            if !known(fence, new) && fence.later.len() < LATER {
                fence.later.push(new);
                turn.store(&self.record.name);
            }
        }
    }

    /// The launch found credentials of which nobody knew. If they are known by now, it is tried again at once.
    pub(crate) fn has_learned(&self) -> bool {
        self.wanted().iter().any(|wanted| !self.record.fence.named.contains(wanted))
    }

    /// Started anew, to have its channels or to be without them.
    fn realign(&mut self, turn: &mut Turn<'_>, channels: Channels) {
        let means = match channels {
            // It was a standby, and has nothing to drain.
            Channels::On => Means::Grace(self.policy.stop_grace.min(crate::failover::PROMOTION_GRACE)),
            Channels::Off => Means::Grace(self.policy.stop_grace),
        };
        self.end(turn, means, Then::Run);
    }
}

impl Supervisor {
    /// Starts `name`, with its channels or without, or not at all.
    pub(crate) fn begin(&mut self, turn: &mut Turn<'_>, name: &Name) {
        match self.clearance(name, turn.now) {
            Ok(channels) => self.with(name, |instance| instance.begin(turn, channels)),
            Err(holder) => self.with(name, |instance| instance.fence_off(turn, holder)),
        }
    }

    /// Whether `name` may be started, and how; else who is in its way.
    fn clearance(&self, name: &Name, now: Moment) -> Result<Channels, Name> {
        let waits = |instance: &&Instance| instance.record.quarantined.is_none();
        let Some(instance) = self.instances.get(name).filter(waits) else { return Ok(Channels::On) };
        if self.entitled(instance) == Channels::Off {
            return Ok(Channels::Off);
        }
        if instance.seen.is_none() {
            // Its launch looks first, and then it is known.
            return Ok(Channels::On);
        }
        match self.holder(instance, now) {
            None => Ok(Channels::On),
            // A rescue can look after its primary without them.
            Some(holder) if are_kin(instance, holder) || !instance.policy.rescues.is_empty() => {
                Ok(Channels::Off)
            }
            Some(holder) => Err(holder.name().clone()),
        }
    }

    /// Who may still use what `instance` would.
    fn holder(&self, instance: &Instance, now: Moment) -> Option<&Instance> {
        let wanted = instance.wanted();
        if wanted.is_empty() {
            return None;
        }
        let mut others = self.instances.values().filter(|other| other.name() != instance.name());
        others.find(|other| wanted.iter().any(|wanted| !other.leaves(*wanted, now)))
    }

    /// Whether `instance` should have its channels, as things stand.
    fn entitled(&self, instance: &Instance) -> Channels {
        if !instance.has_credentials() {
            return Channels::On;
        }
        let primaries = instance.policy.rescues.iter().filter_map(|primary| self.instances.get(primary));
        let mut sharing = primaries.filter(|primary| primary.shares_with(instance)).peekable();
        let standby = sharing.peek().is_some()
            && !sharing.any(|primary| self.stands_in(instance.name(), primary.name()));
        if standby || self.is_replaced(instance) { Channels::Off } else { Channels::On }
    }

    /// Whether a rescue with one of its credentials is in its place, or is to be there because somebody wants it so.
    fn is_replaced(&self, primary: &Instance) -> bool {
        let by = match &primary.record.standing {
            Standing::Own => return false,
            Standing::Promoting(by) if by.incident.cause != Cause::ByHand => return false,
            Standing::Promoting(by) | Standing::Away(by) => by,
        };
        let rescue = self.instances.get(&by.rescue);
        rescue.is_some_and(|rescue| rescue.shares_with(primary) && !self.is_barred(rescue))
    }

    /// Whether somebody uses what it would who will not leave it to it: anybody but those it is called for.
    fn is_barred(&self, instance: &Instance) -> bool {
        let mut others = self.instances.values().filter(|other| other.name() != instance.name());
        let uses = |other: &Instance| instance.wanted().iter().any(|wanted| other.keeps(*wanted).is_none());
        others.any(|other| !self.stands_in(instance.name(), other.name()) && uses(other))
    }

    /// Whether a rescue has as much of its channels as it can have for now.
    pub(crate) fn can_serve(&self, rescue: &Instance) -> bool {
        rescue.channels() == self.entitled(rescue) || self.is_barred(rescue)
    }

    /// `name` has changed: who should have its channels now and may is started anew, and so is who should not.
    pub(crate) fn align(&mut self, turn: &mut Turn<'_>, name: &Name) {
        let silent = |other: &&Instance| other.record.fence.channels == Channels::Off;
        let silent = self.instances.values().filter(silent).map(Instance::name);
        let mut names: Vec<Name> = silent.cloned().collect();
        if self.instances.get(name).is_some_and(Instance::has_credentials) {
            names.push(name.clone());
            names.extend(self.rescues_of(name).map(|rescue| rescue.name().clone()));
            names.extend(
                self.instances.get(name).into_iter().flat_map(|instance| instance.policy.rescues.clone()),
            );
        }
        for name in names {
            self.align_one(turn, &name);
            self.reconsider(turn, &name);
        }
    }

    /// Whoever stands by for its channels may have as much of them by now as it can have.
    fn reconsider(&mut self, turn: &mut Turn<'_>, rescue: &Name) {
        let waits = |rescue: &&Instance| {
            rescue.phase == Phase::Ready && rescue.record.fence.channels == Channels::Off
        };
        let primaries = self.instances.get(rescue).filter(waits).map(|rescue| rescue.policy.rescues.clone());
        for primary in primaries.into_iter().flatten() {
            let standing = self.instances.get(&primary).map(|primary| &primary.record.standing);
            if matches!(standing, Some(Standing::Promoting(by)) if by.rescue == *rescue) {
                self.evaluate(turn, &primary);
            }
        }
    }

    /// The same for one.
    pub(crate) fn align_one(&mut self, turn: &mut Turn<'_>, name: &Name) {
        turn.rearm(name);
        let Some(instance) = self.instances.get(name).filter(|instance| is_settled(instance)) else { return };
        let entitled = self.entitled(instance);
        let may = match entitled {
            Channels::Off => instance.record.fence.used().next().is_some(),
            Channels::On => self.holder(instance, turn.now).is_none(),
        };
        if entitled != instance.record.fence.channels && may {
            self.with(name, |instance| instance.realign(turn, entitled));
        }
    }

    /// When the last poll will have expired that keeps a gateway from its channels.
    pub(crate) fn fence_due(&self, instance: &Instance) -> Option<Deadline> {
        let silent = instance.record.fence.channels == Channels::Off;
        if !silent || !is_settled(instance) || self.entitled(instance) == Channels::Off {
            return None;
        }
        let others = self.instances.values().filter(|other| other.name() != instance.name());
        let mut at = Moment::default();
        for other in others {
            for wanted in instance.wanted() {
                at = at.max(other.keeps(*wanted)?);
            }
        }
        Some(Deadline { at, why: Why::Fence })
    }

    /// Says once that another one's credential stands in its configuration.
    pub(crate) fn warn_shared(&mut self, turn: &mut Turn<'_>, name: &Name) {
        let Some(instance) = self.instances.get(name) else { return };
        let mut others = self.instances.values().filter(|other| other.name() != name);
        let wanted = instance.wanted();
        let other = others.find(|other| {
            !are_kin(instance, other) && wanted.iter().any(|wanted| !other.leaves(*wanted, turn.now))
        });
        let with = other.map(|other| other.name().clone());
        self.with(name, |instance| {
            if let Some(with) = with.clone().filter(|_| instance.shared_with != with) {
                instance.note(turn, Kind::Channel(Channel::Shared { with }));
            }
            instance.shared_with = with;
        });
    }
}

impl Instance {
    /// Somebody else may use what it would: it is looked at again soon.
    fn fence_off(&mut self, turn: &mut Turn<'_>, by: Name) {
        let failure = LaunchFailure::Fenced { by };
        let cause = Cause::CannotStart(failure.clone());
        if self.death.as_ref() != Some(&cause) {
            self.note(turn, Kind::LaunchFailed(failure));
        }
        self.recover(turn, &cause);
    }
}

/// Whether one of the two may stand in for the other, or both for a third.
fn are_kin(one: &Instance, other: &Instance) -> bool {
    let (ours, theirs) = (&one.policy.rescues, &other.policy.rescues);
    ours.contains(other.name())
        || theirs.contains(one.name())
        || ours.iter().any(|name| theirs.contains(name))
}

/// Whether it runs, is to run on, and can be started anew.
fn is_settled(instance: &Instance) -> bool {
    instance.goal == Goal::Run
        && instance.purpose == Purpose::Serve
        && matches!(instance.phase, Phase::Starting | Phase::Ready | Phase::Unhealthy)
}
