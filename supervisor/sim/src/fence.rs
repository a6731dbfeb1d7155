//! Channels: who polls with which token, and what must never be of that.

use std::{collections::BTreeSet, time::Duration};

use supervisor_core::{
    action::Launch,
    event::{ExitStatus, LaunchFailure},
    failover::Standing,
    fence::Channels,
    ids::{Credential, Name},
    instance::{Failure, Instance, Phase},
    ladder::Purpose,
    time::Moment,
};

use crate::{chance::Swarm, check::Violation, world::World};

/// The tokens there are: few, so that they meet.
const TOKENS: &[Option<u64>] = &[None, Some(1), Some(1), Some(1), Some(2)];

impl Polls {
    /// Its instance is deleted. Nobody waits for the polls of what is gone.
    pub(crate) fn forget(&mut self) {
        self.before = None;
    }
}

/// How long the channels of a world think that a dead gateway polls: one of these, in seconds.
const EXPIRIES: &[u64] = &[0, 1, 10, 30];

/// A rule of the fence that is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fight {
    /// Two gateways poll with one token.
    #[error("`{name}` is started and polls with the token that `{other}` polls with")]
    Both {
        /// Who is started.
        name: Name,
        /// Who polls.
        other: Name,
    },
    /// A gateway polls while a dead one's last poll has not expired.
    #[error(
        "`{name}` is started and polls with a token that `{other}` may be thought to poll with until {until:?}"
    )]
    TooEarly {
        /// Who is started.
        name: Name,
        /// Who polled.
        other: Name,
        /// Until when.
        until: Moment,
    },
    /// A gateway polls with a token that it was not cleared for.
    #[error("{0}: polls with a token that its launch does not name")]
    NotCleared(Name),
}

/// What a life does with the channels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Polls {
    /// What it polls with.
    now: Option<Credential>,
    /// What it was cleared for, and what edits have named since: core cannot know that it uses none of it.
    perhaps: BTreeSet<Credential>,
    /// What lives before it polled with, and until when the channels think that one of them does.
    before: Option<(Credential, Moment)>,
}

/// How long the channels of a world think that a dead gateway polls.
pub(crate) fn draw_expiry(swarm: &mut Swarm) -> Duration {
    swarm.time(EXPIRIES)
}

/// A token for a new configuration, or none.
pub(crate) fn draw_token(swarm: &mut Swarm) -> Option<Credential> {
    swarm.one_of(TOKENS).map(Credential)
}

impl World {
    /// The token in what `who` would be started with.
    fn token(&self, who: usize) -> Option<Credential> {
        self.configs[who].token()
    }

    /// A launch reads a token that it may not use.
    pub(crate) fn unexpected(&mut self, who: usize, launch: &Launch) -> Option<LaunchFailure> {
        let token = self.token(who)?;
        if !has_channels(launch) || launch.credentials.contains(&token) {
            return None;
        }
        self.tell_of_config(who);
        Some(LaunchFailure::Unexpected)
    }

    /// A gateway is started.
    pub(crate) fn begin_polls(&mut self, who: usize, launch: &Launch) -> Result<(), Violation> {
        let token = self.token(who).filter(|_| has_channels(launch));
        let now = self.clock();
        let name = &self.fleet.names[who];
        if token.is_some_and(|token| !launch.credentials.contains(&token)) {
            return Err(Fight::NotCleared(name.clone()).into());
        }
        for (place, machine) in self.host.machines.iter().enumerate().filter(|(place, _)| *place != who) {
            let other = self.fleet.names[place].clone();
            let Some(token) = token else { break };
            if machine.polls.now == Some(token) && machine.life.is_some() {
                return Err(Fight::Both { name: name.clone(), other }.into());
            }
            if let Some((used, until)) = machine.polls.before
                && used == token
                && until > now
            {
                return Err(Fight::TooEarly { name: name.clone(), other, until }.into());
            }
        }
        let polls = &mut self.host.machines[who].polls;
        polls.now = token;
        let cleared = launch.credentials.iter().copied().filter(|_| has_channels(launch));
        polls.perhaps = cleared.collect();
        // Who polls ends whatever poll of its own there was.
        polls.before.take_if(|(used, _)| Some(*used) == token);
        Ok(())
    }

    /// Whoever runs may take up what an edit names.
    pub(crate) fn note_edit(&mut self, who: usize) {
        let token = self.token(who);
        self.host.machines[who].polls.perhaps.extend(token);
    }

    /// A gateway is no more. One that ended as it was asked to has closed its polls.
    pub(crate) fn end_polls(&mut self, who: usize, how: Option<(ExitStatus, bool)>) {
        let until = self.clock() + self.fleet.poll_expiry;
        let polls = &mut self.host.machines[who].polls;
        let Some(token) = polls.now.take() else { return };
        if how != Some((ExitStatus::Code(0), true)) {
            polls.before = Some((token, until));
        }
    }

    /// Whether what `who` would poll with is polled with by somebody else who is alive.
    fn is_outdone(&self, who: usize) -> bool {
        let token = self.token(who);
        let mut others = self.host.machines.iter().enumerate().filter(|(place, _)| *place != who);
        let Some(token) = token else { return false };
        others.any(|(_, other)| {
            other.life.is_some() && (other.polls.now == Some(token) || other.polls.perhaps.contains(&token))
        })
    }

    /// Whether it is kept from running, for good, by who polls with its token.
    pub(crate) fn is_kept_off(&self, who: usize, instance: &Instance) -> bool {
        let fenced = matches!(
            instance.phase(),
            Phase::Failed { failure: Failure::Launch(LaunchFailure::Fenced { .. }), .. }
        );
        fenced && self.is_outdone(who)
    }

    /// Whether it runs and may not poll, for as long as somebody else does.
    pub(crate) fn is_muted(&self, who: usize, instance: &Instance) -> bool {
        *instance.phase() == Phase::Ready && instance.channels() == Channels::Off && self.is_outdone(who)
    }

    /// Once all is at rest, who has no channels has a reason for it. `Err` says that there is none.
    pub(crate) fn channels_settled(&self, who: usize, instance: &Instance) -> Result<(), &'static str> {
        let silent = *instance.phase() == Phase::Ready && instance.channels() == Channels::Off;
        let Some(token) = self.token(who).filter(|_| silent && !self.is_outdone(who)) else { return Ok(()) };
        let shares = |name: &Name| {
            self.fleet.index(name).is_some_and(|place| {
                self.token(place) == Some(token) || self.configs[place].is_bad() || self.configs[who].is_bad()
            })
        };
        let core = self.core.as_ref();
        let waits_for = |name: &Name| {
            let primary = core.and_then(|core| core.instance(name));
            primary.is_some_and(|primary| match &primary.record().standing {
                Standing::Own => true,
                Standing::Promoting(by) | Standing::Away(by) => by.rescue != *instance.name(),
            })
        };
        let rescues = &instance.policy().rescues;
        let standby = rescues.iter().any(|primary| shares(primary) && waits_for(primary));
        if standby { Ok(()) } else { Err("has no channels, and nobody else uses them") }
    }
}

fn has_channels(launch: &Launch) -> bool {
    launch.purpose == Purpose::Serve && launch.channels == Channels::On
}
