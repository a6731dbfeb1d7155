//! Who there is: few names, so that they meet, and policies with numbers at both ends.

use std::{sync::Arc, time::Duration};

use supervisor_core::{
    event::{Dangling, Definition},
    ids::Name,
    policy::{
        Condition, Failback, HealthPolicy, LadderPolicy, OnPrimaryDeath, Policy, RescuePolicy, RestartPolicy,
        Standby, Startup, Threshold, TrialPolicy, Watch,
    },
    rng::Rng,
};

use crate::{
    chance::Swarm,
    fault::{Faults, Setup},
    fence::draw_expiry,
};

/// The names. Who comes later may rescue who comes before.
pub(crate) const NAMES: [&str; 6] = ["main", "rescue", "second", "third", "other", "loner"];

/// Every name there may be, and every policy that was ever drawn.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) names: Vec<Name>,
    /// Whether they have configurations.
    pub(crate) configured: bool,
    /// Whether those name tokens.
    pub(crate) channels: bool,
    /// How long the channels think that a dead gateway polls.
    pub(crate) poll_expiry: Duration,
    /// A spec is the number of its policy.
    policies: Vec<Policy>,
}

impl Fleet {
    pub(crate) fn new(setup: &Setup) -> Self {
        let names = NAMES.iter().take(setup.instances).filter_map(|name| Name::new(name).ok()).collect();
        let Faults { configured, channels, .. } = setup.faults;
        let poll_expiry = draw_expiry(&mut Swarm(Rng::new(setup.seed)));
        Self { names, configured, channels, poll_expiry, policies: Vec::new() }
    }

    /// Which of the names this is.
    pub(crate) fn index(&self, name: &Name) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The policy that follows from a spec.
    pub(crate) fn policy(&self, spec: &str) -> Policy {
        let number: Option<usize> = spec.parse().ok();
        number.and_then(|number| self.policies.get(number)).cloned().unwrap_or_default()
    }

    /// A new definition of one of the names.
    pub(crate) fn define(&mut self, swarm: &mut Swarm, who: usize) -> Definition {
        // Aside, so that whatever is drawn after it stays what it was.
        let mut aside = Swarm(Rng::new(swarm.0.clone().draw()));
        let mut policy = self.draw_policy(swarm, who);
        if self.configured {
            (policy.ladder, policy.trial) = draw_ladder(&mut aside);
        }
        let spec: Arc<str> = self.policies.len().to_string().into();
        self.policies.push(policy.clone());
        let dangling = if swarm.often(900) { Dangling::Accepted } else { Dangling::Refused };
        Definition { name: self.names[who].clone(), spec, policy: Box::new(policy), dangling }
    }

    fn draw_policy(&self, swarm: &mut Swarm, who: usize) -> Policy {
        let rescues = self.draw_rescues(swarm, who);
        Policy {
            port: swarm.often(100).then(|| swarm.one_of(&[18_789, 20_000, 20_010, 20_100])),
            rescues,
            rescue: RescuePolicy {
                standby: swarm.one_of(&[Standby::Cold, Standby::Warm]),
                on_primary_death: swarm.one_of(&[
                    OnPrimaryDeath::Restart,
                    OnPrimaryDeath::Restart,
                    OnPrimaryDeath::EnsureRunning,
                ]),
                failback: swarm.one_of(&[Failback::Auto, Failback::Auto, Failback::Manual]),
                failback_after: swarm.time(&[0, 1, 20]),
            },
            restart: RestartPolicy {
                condition: swarm.one_of(&[
                    Condition::Always,
                    Condition::Always,
                    Condition::Always,
                    Condition::OnFailure,
                    Condition::Never,
                ]),
                initial_delay: Duration::from_millis(swarm.one_of(&[0, 10, 100, 1_000])),
                multiplier_permille: swarm.one_of(&[1_000, 2_000, 10_000]),
                max_delay: swarm.time(&[1, 10, 60]),
                jitter_permille: swarm.one_of(&[0, 100, 500]),
                budget: swarm.one_of(&[0, 1, 3, 20, 20, 20]),
                window: swarm.time(&[5, 60, 120]),
                reset_after: swarm.time(&[0, 1, 10, 60]),
                fatal_codes: if swarm.often(500) { vec![78] } else { Vec::new() },
                handoff: false,
            },
            health: draw_health(swarm),
            stop_grace: swarm.time(&[0, 1, 10]),
            poll_expiry: self.poll_expiry,
            ..Policy::default()
        }
    }

    /// Mostly of names that come before; rarely of any, to be refused.
    fn draw_rescues(&self, swarm: &mut Swarm, who: usize) -> Vec<Name> {
        let before = if swarm.often(30) { NAMES.len() } else { who };
        // Drawn for every name, so that a world with fewer of them draws the same of those.
        let drawn = NAMES.map(|_| swarm.often(600));
        let chosen = self.names.iter().zip(drawn).take(before).filter(|(_, rescued)| *rescued);
        chosen.map(|(name, _)| name.clone()).collect()
    }
}

fn draw_ladder(swarm: &mut Swarm) -> (LadderPolicy, TrialPolicy) {
    let limit = swarm.time(&[1, 10, 60]);
    let ladder = LadderPolicy {
        deaths: swarm.one_of(&[1, 2, 3]),
        repair: swarm.often(500).then_some(limit),
        roll_back: swarm.often(850),
        quarantine: swarm.often(500),
        held: swarm.often(100),
    };
    (ladder, TrialPolicy { good_after: swarm.time(&[0, 1, 20]) })
}

fn draw_threshold(swarm: &mut Swarm) -> Threshold {
    swarm.one_of(&[Threshold::in_a_row(1), Threshold::in_a_row(3), Threshold { failures: 3, of: 5 }])
}

fn draw_health(swarm: &mut Swarm) -> HealthPolicy {
    let watch = Watch {
        interval: swarm.time(&[1, 5, 20]),
        timeout: Duration::from_millis(swarm.one_of(&[200, 5_000])),
        live: draw_threshold(swarm),
        ready: draw_threshold(swarm),
    };
    HealthPolicy {
        startup: swarm.one_of(&[Startup::Notify, Startup::Probe, Startup::AtOnce]),
        startup_interval: Duration::from_millis(swarm.one_of(&[50, 500])),
        startup_deadline: swarm.time(&[2, 10, 60]),
        startup_cap: swarm.time(&[5, 20, 120]),
        watch: swarm.often(800).then_some(watch),
    }
}
