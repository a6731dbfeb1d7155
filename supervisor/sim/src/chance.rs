//! Chance: everything that is drawn in a world, each draw by itself.
//!
//! A draw follows from the seed, from what it is for, from whom it concerns and from how many of its kind there were
//! before, and from nothing else. So a fault can be left out and the rest of the world still draws what it drew:
//! that is what makes a failing world small enough to read.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use supervisor_core::rng::Rng;

use crate::fleet::NAMES;

/// Declares what can be drawn, with the words it goes by in traces.
macro_rules! lots {
    ($($(#[$doc:meta])* $lot:ident = $word:literal,)*) => {
        /// What a draw is for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Lot { $($(#[$doc])* $lot,)* }

        impl Lot {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$lot,)*];

            /// Its word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$lot => $word,)* }
            }
        }
    };
}

lots! {
    // What goes wrong.
    /// A gateway dies by itself.
    GatewayDies = "gateway-dies",
    /// A gateway dies before it is ready.
    DiesStarting = "dies-starting",
    /// A gateway never becomes ready.
    NeverReady = "never-ready",
    /// A gateway hangs, or cannot serve.
    Sickens = "sickens",
    /// A gateway can serve and cannot, by turns.
    Flaps = "flaps",
    /// A gateway does not heed SIGTERM.
    IgnoresTerm = "ignores-term",
    /// A gateway takes long to die when killed.
    HardToKill = "hard-to-kill",
    /// A port stays taken after the gateway's death.
    PortHeld = "port-held",
    /// A launch fails.
    LaunchFails = "launch-fails",
    /// A launch is not answered, whether it succeeds or not.
    Unanswered = "launch-unanswered",
    /// An order that core repeats is lost.
    OrderLost = "order-lost",
    /// An order takes long.
    OrderSlow = "order-slow",
    /// A worker dies.
    WorkerDies = "worker-dies",
    /// A worker cannot be reached by the next supervisor.
    Unreachable = "unreachable",
    /// A probe lies.
    ProbeLies = "probe-lies",
    /// A probe is never answered.
    ProbeStalls = "probe-stalls",
    /// A report comes twice.
    Twice = "report-twice",
    /// A report is overtaken by later ones.
    Overtaken = "report-overtaken",
    /// A write fails, and is tried again.
    WriteFails = "write-fails",
    /// The disk is full for a while.
    DiskFull = "disk-full",
    /// The disk hangs for a while.
    DiskHangs = "disk-hangs",
    /// The supervisor dies while nothing happens.
    SupervisorDies = "supervisor-dies",
    /// The supervisor dies before it begins an action.
    DiesActing = "dies-acting",
    /// The supervisor died because the host was restarted.
    Reboot = "reboot",
    /// After a restart of the host its clock is behind.
    ClockBack = "clock-back",
    /// The host sleeps, and wakes much later.
    HostSleeps = "host-sleeps",
    /// A caller asks for something.
    Command = "command",
    /// A caller asks at the same moment as the one before.
    Crowd = "command-at-once",
    // What is drawn beside that.
    /// What a gateway is like.
    Life = "life",
    /// How long a gateway takes.
    Gateway = "gateway",
    /// How long an order takes.
    Order = "order",
    /// How long a probe takes.
    Probe = "probe",
    /// How long a report is on its way.
    Report = "report",
    /// How long a write takes, or what is torn off.
    Disk = "disk",
    /// How late a tick is.
    Tick = "tick",
    /// What a caller asks for, and when.
    Caller = "caller",
    /// Whether an exit is still written down while everything is killed.
    Clear = "clear",
    /// What a supervisor begins with.
    Begin = "begin",
    // Of configurations and the ladder. A lot's number is part of its draws, so new ones come last.
    /// Somebody edits a configuration.
    Edited = "config-edited",
    /// A change of a configuration is not noticed, or what a life is started with cannot be kept.
    Unnoticed = "config-unnoticed",
    /// A change is noticed late.
    NoticedLate = "config-noticed-late",
    /// A configuration cannot be put back.
    RestoreFails = "restore-fails",
    /// A repair hangs.
    RepairHangs = "repair-hangs",
    /// A caller goes back to a configuration, or says that one is good.
    ConfigCommand = "config-command",
    /// What a configuration is like, and how soon it is looked at.
    Config = "config",
    /// What a repair does.
    Repair = "repair",
    // Of channels.
    /// The token in a new configuration.
    Token = "token",
    // Of the host.
    /// There is no connection for a probe.
    ProbeUnable = "probe-unable",
}

const LOTS: usize = Lot::ALL.len();

/// The place of what concerns no instance.
pub(crate) const NOBODY: usize = NAMES.len();

/// One fault that struck, or one command that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Injection {
    lot: Lot,
    who: usize,
    nth: u32,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = NAMES.get(self.who).copied().unwrap_or("-");
        write!(f, "{} {who} {}", self.lot.word(), self.nth)
    }
}

impl From<Injection> for String {
    fn from(injection: Injection) -> Self {
        injection.to_string()
    }
}

/// The text is no injection.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no injection: it should read like `gateway-dies main 3`")]
pub struct NoInjection(String);

impl FromStr for Injection {
    type Err = NoInjection;
    fn from_str(text: &str) -> Result<Self, NoInjection> {
        let parse = || {
            let [word, who, nth] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
            let lot = Lot::ALL.iter().copied().find(|lot| lot.word() == word)?;
            let who = NAMES.iter().position(|name| *name == who).or((who == "-").then_some(NOBODY))?;
            Some(Self { lot, who, nth: nth.parse().ok()? })
        };
        parse().ok_or_else(|| NoInjection(text.into()))
    }
}

impl TryFrom<String> for Injection {
    type Error = NoInjection;
    fn try_from(text: String) -> Result<Self, NoInjection> {
        text.parse()
    }
}

/// All draws of one world.
#[derive(Debug)]
pub(crate) struct Chance {
    seed: u64,
    drawn: Vec<[u32; LOTS]>,
    /// Only these strike; `None`: all do.
    kept: Option<BTreeSet<Injection>>,
    /// What struck.
    pub(crate) struck: Vec<Injection>,
}

impl Chance {
    pub(crate) fn new(seed: u64, kept: Option<BTreeSet<Injection>>) -> Self {
        Self { seed, drawn: vec![[0; LOTS]; NOBODY + 1], kept, struck: Vec::new() }
    }

    /// Counts a draw and gives what follows from it.
    fn count(&mut self, lot: Lot, who: usize) -> (Rng, u32) {
        let count = &mut self.drawn[who][lot as usize];
        *count += 1;
        let place = (lot as u64) << 40 | (who as u64) << 32 | u64::from(*count);
        // Drawn once, so that neighbouring places have nothing in common.
        let start = Rng::new(self.seed.wrapping_mul(0xd134_2543_de82_ef95) ^ place).draw();
        (Rng::new(start), *count)
    }

    /// A draw that is no fault.
    pub(crate) fn draw(&mut self, lot: Lot, who: usize) -> Swarm {
        Swarm(self.count(lot, who).0)
    }

    /// Whether a fault strikes that strikes so often, and what else is drawn about it.
    pub(crate) fn strikes(&mut self, lot: Lot, who: usize, often: Permille) -> Option<Swarm> {
        if often == 0 {
            return None;
        }
        let (rng, nth) = self.count(lot, who);
        let mut swarm = Swarm(rng);
        let injection = Injection { lot, who, nth };
        let strikes = swarm.often(often) && self.kept.as_ref().is_none_or(|kept| kept.contains(&injection));
        strikes.then(|| {
            self.struck.push(injection);
            swarm
        })
    }

    /// A number that is never drawn again, for what is no chance but has to differ.
    pub(crate) fn seed(&mut self) -> u64 {
        self.draw(Lot::Begin, NOBODY).0.draw()
    }
}

/// How often something happens, in thousandths.
pub type Permille = u64;

/// Always.
pub(crate) const ALWAYS: Permille = 1_000;

/// Chance, in the forms that worlds need it.
pub(crate) struct Swarm(pub(crate) Rng);

impl Swarm {
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.0.below(bound)).unwrap_or(0)
    }

    /// Off in half of all runs.
    pub(crate) fn maybe<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        self.often(500).then(|| self.one_of(choices))
    }

    pub(crate) fn time(&mut self, seconds: &[u64]) -> Duration {
        Duration::from_secs(self.one_of(seconds))
    }

    pub(crate) fn often(&mut self, permille: Permille) -> bool {
        permille > 0 && self.0.below(ALWAYS) < permille
    }

    /// Up to `most`.
    pub(crate) fn span(&mut self, most: Duration) -> Duration {
        self.0.span(most)
    }

    /// Around `mean`: half of all draws are below 0.7 of it, few above five times.
    pub(crate) fn around(&mut self, mean: Duration) -> Duration {
        let step = mean * 7 / 10;
        let halvings = self.0.draw().trailing_zeros();
        step * halvings + self.0.span(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injection_is_read_as_it_is_written() {
        for text in ["gateway-dies rescue 3", "disk-full - 12"] {
            assert_eq!(text.parse::<Injection>().map(|it| it.to_string()).ok().as_deref(), Some(text));
        }
        for text in ["", "gateway-dies", "gateway-dies nobody 1", "moon-falls main 1"] {
            assert!(text.parse::<Injection>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_left_out_changes_no_other_draw() {
        let draws = |kept: Option<BTreeSet<Injection>>| {
            let mut chance = Chance::new(7, kept);
            let struck = (0..50).filter(|_| chance.strikes(Lot::Twice, 0, 500).is_some()).count();
            (struck, chance.draw(Lot::Order, 1).0.draw())
        };
        let (all, with) = draws(None);
        let (none, without) = draws(Some(BTreeSet::new()));
        assert!(all > 0 && none == 0);
        assert_eq!(with, without);
    }
}
