//! From a spec to core's policy: the defaults of each runtime.

use std::time::Duration;

use supervisor_core::policy::{self, HealthPolicy, Policy, RescuePolicy, RestartPolicy, Startup, Watch};

use super::{
    Check, Condition, Failback, InstanceSpec, Kind, OnPrimaryDeath, Span, Standby, probes::startup_check,
};

/// EX_CONFIG (sysexits.h): OpenClaw's and the built-in gateway's "my configuration is broken". Another start
/// cannot mend that.
const EX_CONFIG: i32 = 78;

/// What differs from runtime to runtime.
fn defaults(kind: Kind) -> Policy {
    let common = Policy::default();
    match kind {
        Kind::Openclaw => Policy {
            restart: RestartPolicy {
                // OpenClaw's crash-loop breaker trips at three unclean boots in 300 s, and then starts no
                // channels: one quick restart, one after 20 s, and then none that would be the third.
                initial_delay: Duration::from_secs(1),
                multiplier_permille: 20_000,
                max_delay: Duration::from_secs(330),
                fatal_codes: vec![EX_CONFIG],
                handoff: true,
                ..common.restart
            },
            health: HealthPolicy {
                startup: Startup::Probe,
                startup_interval: Duration::from_millis(500),
                // Users report starts of up to four minutes; progress extends the deadline.
                startup_deadline: Duration::from_secs(120),
                startup_cap: Duration::from_secs(15 * 60),
                watch: None,
            },
            // OpenClaw drains for up to 315 s and expects 330 s.
            stop_grace: Duration::from_secs(330),
            ..common
        },
        Kind::Builtin => {
            let restart = RestartPolicy { fatal_codes: vec![EX_CONFIG], handoff: true, ..common.restart };
            Policy { restart, ..common }
        }
        Kind::Command => {
            Policy { restart: RestartPolicy { fatal_codes: Vec::new(), ..common.restart }, ..common }
        }
    }
}

fn or(span: Option<Span>, default: Duration) -> Duration {
    span.map_or(default, |span| span.0)
}

impl InstanceSpec {
    /// What core is to do for this instance, with every default filled in.
    #[must_use]
    pub fn policy(&self, kind: Kind) -> Policy {
        let default = defaults(kind);
        Policy {
            port: self.port,
            rescues: self.rescues.clone(),
            rescue: self.rescue_policy(default.rescue),
            restart: self.restart_policy(default.restart),
            health: self.health_policy(kind, default.health),
            stop_grace: or(self.stop_grace, default.stop_grace),
            poll_expiry: or(self.poll_expiry, default.poll_expiry),
            ladder: self.ladder.policy(kind, self.maintenance),
            trial: self.trial.policy(default.trial),
        }
    }

    fn rescue_policy(&self, default: RescuePolicy) -> RescuePolicy {
        let asked = &self.rescue;
        RescuePolicy {
            standby: asked.standby.map_or(default.standby, |standby| match standby {
                Standby::Cold => policy::Standby::Cold,
                Standby::Warm => policy::Standby::Warm,
            }),
            on_primary_death: asked.on_primary_death.map_or(
                default.on_primary_death,
                |action| match action {
                    OnPrimaryDeath::Restart => policy::OnPrimaryDeath::Restart,
                    OnPrimaryDeath::EnsureRunning => policy::OnPrimaryDeath::EnsureRunning,
                },
            ),
            failback: asked.failback.map_or(default.failback, |failback| match failback {
                Failback::Auto => policy::Failback::Auto,
                Failback::Manual => policy::Failback::Manual,
            }),
            failback_after: or(asked.failback_after, default.failback_after),
        }
    }

    fn restart_policy(&self, default: RestartPolicy) -> RestartPolicy {
        let asked = &self.restart;
        let initial_delay = or(asked.initial_delay, default.initial_delay);
        let max_delay = or(asked.max_delay, default.max_delay);
        RestartPolicy {
            condition: asked.condition.map_or(default.condition, |condition| match condition {
                Condition::Always => policy::Condition::Always,
                Condition::OnFailure => policy::Condition::OnFailure,
                Condition::Never => policy::Condition::Never,
            }),
            // Only one of the two was asked for, and the other's default would contradict it.
            initial_delay: if asked.initial_delay.is_none() {
                initial_delay.min(max_delay)
            } else {
                initial_delay
            },
            multiplier_permille: asked.multiplier_permille.unwrap_or(default.multiplier_permille),
            max_delay: max_delay.max(if asked.max_delay.is_none() { initial_delay } else { Duration::ZERO }),
            jitter_permille: asked.jitter_permille.unwrap_or(default.jitter_permille),
            budget: asked.budget.unwrap_or(default.budget),
            window: or(asked.window, default.window),
            reset_after: or(asked.reset_after, default.reset_after),
            fatal_codes: default.fatal_codes,
            handoff: default.handoff,
        }
    }

    fn health_policy(&self, kind: Kind, default: HealthPolicy) -> HealthPolicy {
        let startup = &self.probes.startup;
        let deadline = or(startup.deadline, default.startup_deadline);
        let cap = or(startup.cap, default.startup_cap);
        HealthPolicy {
            startup: match startup_check(startup, kind) {
                Check::None => Startup::AtOnce,
                Check::Notify => Startup::Notify,
                Check::Tcp | Check::Http | Check::Websocket | Check::Openclaw => Startup::Probe,
            },
            startup_interval: or(startup.interval, default.startup_interval),
            startup_deadline: if startup.deadline.is_none() { deadline.min(cap) } else { deadline },
            startup_cap: if startup.cap.is_none() { cap.max(deadline) } else { cap },
            watch: self.watched(kind).map(|watched| Watch {
                interval: watched.interval,
                timeout: watched.timeout,
                live: watched.live,
                ready: watched.ready,
            }),
        }
    }
}
