//! What goes wrong in one world, drawn from its seed: some faults often, some never, so that every mixture has its turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use supervisor_core::rng::Rng;

use crate::chance::{ALWAYS, Injection, Lot, Permille, Swarm};

/// How often a fault strikes each time it could: one of these, in half of all worlds.
const OFTEN: &[(Lot, &[Permille])] = &[
    (Lot::DiesStarting, &[50, 300]),
    (Lot::NeverReady, &[50, 300]),
    (Lot::IgnoresTerm, &[100, 500]),
    (Lot::HardToKill, &[50, 300]),
    (Lot::PortHeld, &[50, 300]),
    (Lot::LaunchFails, &[50, 300, 800]),
    (Lot::Unanswered, &[20, 200]),
    (Lot::OrderLost, &[20, 200]),
    (Lot::OrderSlow, &[20, 200]),
    (Lot::Unreachable, &[100, 500]),
    (Lot::ProbeLies, &[20, 300]),
    (Lot::ProbeStalls, &[20, 300]),
    (Lot::Twice, &[20, 300]),
    (Lot::Overtaken, &[20, 300]),
    (Lot::WriteFails, &[20, 300]),
    (Lot::DiskFull, &[5, 50]),
    (Lot::DiskHangs, &[5, 50]),
    (Lot::DiesActing, &[1, 20]),
    (Lot::Reboot, &[100, 500]),
    (Lot::ClockBack, &[500]),
    (Lot::Crowd, &[100, 500]),
    (Lot::ProbeUnable, &[20, 300]),
];

/// The mean time, in seconds, until a fault strikes: one of these, in half of all worlds.
const EVERY: &[(Lot, &[u64])] = &[
    (Lot::GatewayDies, &[1, 10, 100]),
    (Lot::Sickens, &[5, 50]),
    (Lot::Flaps, &[1, 5]),
    (Lot::WorkerDies, &[5, 60]),
    (Lot::SupervisorDies, &[5, 60]),
    (Lot::HostSleeps, &[20, 100]),
];

/// The same, of configurations and the ladder.
const OFTEN_CONFIGURED: &[(Lot, &[Permille])] = &[
    (Lot::Unnoticed, &[50, 500]),
    (Lot::NoticedLate, &[50, 500]),
    (Lot::RestoreFails, &[50, 500]),
    (Lot::RepairHangs, &[200, 800]),
    (Lot::ConfigCommand, &[20, 200]),
];

/// The mean time, in seconds, between two edits.
const EDITED: &[u64] = &[2, 10, 60];

/// Worlds whose instances have configurations. The others run what reads none.
const CONFIGURED: Permille = 750;

/// Worlds whose configurations name tokens, of those that have configurations.
const CHANNELS: Permille = 500;

/// The faults of one world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// How long they go on, in seconds.
    pub span_s: u64,
    /// How often each strikes, in thousandths.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    permille: BTreeMap<Lot, Permille>,
    /// The mean time to each, in seconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    every_s: BTreeMap<Lot, u64>,
    /// The longest write, usually, in milliseconds.
    pub write_ms: u64,
    /// How late ticks may be, in milliseconds.
    pub late_ticks_ms: u64,
    /// Mean time between two commands, in milliseconds.
    pub commands_ms: u64,
    /// Whether the gateways read configurations.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub configured: bool,
    /// Whether their configurations name tokens.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub channels: bool,
}

impl Serialize for Lot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for Lot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let known = Self::ALL.iter().copied().find(|lot| lot.word() == word);
        known.ok_or_else(|| serde::de::Error::custom(format!("there is no fault `{word}`")))
    }
}

impl Faults {
    fn draw(swarm: &mut Swarm) -> Self {
        let span_s = swarm.one_of(&[20, 120, 600]);
        let mut permille = BTreeMap::from([(Lot::Command, ALWAYS)]);
        for (lot, choices) in OFTEN {
            permille.extend(swarm.maybe(choices).map(|often| (*lot, often)));
        }
        let mut every_s = BTreeMap::new();
        for (lot, choices) in EVERY {
            every_s.extend(swarm.maybe(choices).map(|seconds| (*lot, seconds)));
        }
        let mut faults = Self {
            span_s,
            permille,
            every_s,
            write_ms: swarm.one_of(&[1, 1, 50, 5_000]),
            late_ticks_ms: swarm.one_of(&[0, 0, 5, 500]),
            commands_ms: swarm.one_of(&[300, 3_000, 30_000]),
            configured: false,
            channels: false,
        };
        // Last, so that whatever is drawn before it stays what it was.
        faults.draw_configured(swarm);
        faults.channels = swarm.often(CHANNELS) && faults.configured;
        faults
    }

    fn draw_configured(&mut self, swarm: &mut Swarm) {
        self.configured = swarm.often(CONFIGURED);
        for (lot, choices) in OFTEN_CONFIGURED.iter().filter(|_| self.configured) {
            self.permille.extend(swarm.maybe(choices).map(|often| (*lot, often)));
        }
        if self.configured {
            self.every_s.extend(swarm.maybe(EDITED).map(|seconds| (Lot::Edited, seconds)));
        }
    }

    /// The same without one of them, if it has it.
    pub(crate) fn without(&self, lot: Lot) -> Option<Self> {
        let mut less = self.clone();
        let had = less.permille.remove(&lot).is_some() | less.every_s.remove(&lot).is_some();
        had.then_some(less)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {} s, a command every {} ms", self.span_s, self.commands_ms)?;
        write!(f, ", writes of up to {} ms, ticks up to {} ms late", self.write_ms, self.late_ticks_ms)?;
        for (lot, often) in self.permille.iter().filter(|(lot, _)| **lot != Lot::Command) {
            write!(f, "; {} {often} in 1000", lot.word())?;
        }
        for (lot, seconds) in &self.every_s {
            write!(f, "; {} every {seconds} s", lot.word())?;
        }
        if self.configured {
            write!(f, "; with configurations")?;
        }
        if self.channels {
            write!(f, "; with channels")?;
        }
        Ok(())
    }
}

/// The same as [`Faults`], as a world looks it up.
#[derive(Debug, Clone)]
pub(crate) struct Rates {
    often: [Permille; Lot::ALL.len()],
    every: [Option<Duration>; Lot::ALL.len()],
    pub(crate) write: Duration,
    pub(crate) late_ticks: Duration,
    pub(crate) commands: Duration,
}

impl Rates {
    pub(crate) fn of(faults: &Faults) -> Self {
        let mut rates = Self {
            write: Duration::from_millis(faults.write_ms),
            late_ticks: Duration::from_millis(faults.late_ticks_ms),
            commands: Duration::from_millis(faults.commands_ms),
            ..Self::none()
        };
        faults.permille.iter().for_each(|(lot, often)| rates.often[*lot as usize] = *often);
        for (lot, seconds) in &faults.every_s {
            rates.every[*lot as usize] = Some(Duration::from_secs(*seconds));
        }
        rates
    }

    /// All is well.
    pub(crate) fn none() -> Self {
        Self {
            often: [0; Lot::ALL.len()],
            every: [None; Lot::ALL.len()],
            write: Duration::from_millis(1),
            late_ticks: Duration::ZERO,
            commands: Duration::MAX,
        }
    }

    pub(crate) fn often(&self, lot: Lot) -> Permille {
        self.often[lot as usize]
    }

    pub(crate) fn every(&self, lot: Lot) -> Option<Duration> {
        self.every[lot as usize]
    }
}

/// All that makes a world what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Where all chance begins.
    pub seed: u64,
    /// How many names there are.
    pub instances: usize,
    /// What goes wrong.
    pub faults: Faults,
    /// Of all that, only this strikes; `None`: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<BTreeSet<Injection>>,
}

impl Setup {
    /// The world of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut swarm = Swarm(Rng::new(seed));
        let instances = swarm.one_of(&[1, 2, 2, 3, 3, 4, 6]);
        Self { seed, instances, faults: Faults::draw(&mut swarm), kept: None }
    }
}
