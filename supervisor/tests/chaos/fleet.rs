//! The instances: singles, primaries with a warm or a cold rescue, and gateways that flood.

use std::{env, time::Duration};

use anyhow::Context;
use supervisor_core::rng::Rng;
use supervisor_proto::v1::{
    self, InstanceSpec, RescuePolicy, RestartPolicy,
    probe::Check,
    rescue_policy::{Failback, OnPrimaryDeath, Standby},
};

use crate::arguments::FLOOD;

/// What an instance is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    Primary,
    Rescue { of: String, standby: Standby, on_death: OnPrimaryDeath, failback: Failback },
    Flooder,
}

/// One of the fleet.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

impl Member {
    /// Whether it rests while its primary is well.
    pub(crate) fn is_cold(&self) -> bool {
        matches!(self.kind, Kind::Rescue { standby: Standby::Cold, .. })
    }

    /// Processes it has while it runs: worker, gateway, and what the gateway left.
    pub(crate) fn processes(&self) -> usize {
        if self.kind == Kind::Flooder { 3 } else { 2 }
    }

    /// What is asked of the supervisor.
    pub(crate) fn spec(&self) -> anyhow::Result<InstanceSpec> {
        let mut spec = base();
        match &self.kind {
            Kind::Single | Kind::Primary => spec.runtime = v1::Runtime::Builtin.into(),
            Kind::Rescue { of, standby, on_death, failback } => {
                spec.runtime = v1::Runtime::Builtin.into();
                spec.rescues = vec![of.clone()];
                spec.rescue = Some(RescuePolicy {
                    standby: (*standby).into(),
                    on_primary_death: (*on_death).into(),
                    failback: (*failback).into(),
                    failback_after: span(Duration::from_millis(500)),
                });
            }
            Kind::Flooder => {
                let program = env::current_exe().context("failed to find the run's own program")?;
                spec.runtime = v1::Runtime::Command.into();
                spec.program = program.to_string_lossy().into_owned();
                spec.args = vec![FLOOD.into(), "{port}".into()];
                let startup = v1::Probe { check: Check::Tcp.into(), ..Default::default() };
                spec.probes = Some(v1::Probes { startup: Some(startup), ..Default::default() });
            }
        }
        Ok(spec)
    }
}

/// What all have in common: hangs are found within seconds, and no budget ends before the monkey does.
fn base() -> InstanceSpec {
    let liveness = v1::Probe {
        interval: span(Duration::from_secs(1)),
        timeout: span(Duration::from_secs(3)),
        failures: 3,
        ..Default::default()
    };
    InstanceSpec {
        restart: Some(RestartPolicy {
            initial_delay: span(Duration::from_millis(20)),
            max_delay: span(Duration::from_secs(1)),
            budget: 100_000,
            reset_after: span(Duration::from_secs(2)),
            ..Default::default()
        }),
        probes: Some(v1::Probes { liveness: Some(liveness), ..Default::default() }),
        stop_grace: span(Duration::from_secs(2)),
        log: Some(v1::LogPolicy { max_file_bytes: 256 << 10, max_files: 2 }),
        ..Default::default()
    }
}

fn span(of: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(of).ok()
}

/// The fleet of this size.
pub(crate) fn plan(instances: usize, rng: &mut Rng) -> Vec<Member> {
    let mut fleet = Vec::with_capacity(instances);
    while fleet.len() < instances {
        let number = fleet.len();
        let left = instances - number;
        match number % 10 {
            0 | 2 if left >= 2 => {
                let standby = if number % 10 == 0 { Standby::Warm } else { Standby::Cold };
                let primary = format!("main-{number}");
                let kind = Kind::Rescue {
                    of: primary.clone(),
                    standby,
                    on_death: one_of(rng, [OnPrimaryDeath::Restart, OnPrimaryDeath::EnsureRunning]),
                    failback: one_of(rng, [Failback::Auto, Failback::Auto, Failback::Manual]),
                };
                fleet.push(Member { name: primary, kind: Kind::Primary });
                fleet.push(Member { name: format!("rescue-{number}"), kind });
            }
            9 => fleet.push(Member { name: format!("flood-{number}"), kind: Kind::Flooder }),
            _ => fleet.push(Member { name: format!("single-{number}"), kind: Kind::Single }),
        }
    }
    fleet
}

fn one_of<T: Copy, const N: usize>(rng: &mut Rng, all: [T; N]) -> T {
    let index = usize::try_from(rng.below(N as u64)).unwrap_or(0);
    all[index.min(N - 1)]
}
