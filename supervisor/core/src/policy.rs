//! What core needs to know of an instance's spec: numbers and choices, all defaults filled in.

use alloc::vec::Vec;
use core::time::Duration;

use crate::ids::Name;

/// How one instance is to be treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// First port of the block, if the user chose it.
    pub port: Option<u16>,
    /// The primaries this instance stands in for, most important first.
    pub rescues: Vec<Name>,
    /// How it stands in for them.
    pub rescue: RescuePolicy,
    /// When and how often it is run again.
    pub restart: RestartPolicy,
    /// How its start and its health are judged.
    pub health: HealthPolicy,
    /// From the request to end until the whole process tree is killed.
    pub stop_grace: Duration,
    /// So long after a gateway has died, its channels may still think that it polls.
    pub poll_expiry: Duration,
    /// What is done beyond restarts.
    pub ladder: LadderPolicy,
    /// When its configuration has proven good.
    pub trial: TrialPolicy,
}

/// How far up the ladder an instance may be helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LadderPolicy {
    /// So many deaths in a row, and the next rung is climbed.
    pub deaths: u32,
    /// The runtime's own repair, and how long it may take; `None`: there is none.
    pub repair: Option<Duration>,
    /// Whether the last good configuration is put back.
    pub roll_back: bool,
    /// Whether an instance whose budget is spent stays down until an operator starts it.
    pub quarantine: bool,
    /// Maintenance: it is restarted, and nothing more is done.
    pub held: bool,
}

/// When a configuration has proven good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialPolicy {
    /// Started with it, and ready for this long.
    pub good_after: Duration,
}

/// How a rescue stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RescuePolicy {
    /// Whether it runs while its primaries are well.
    pub standby: Standby,
    /// What happens to it when a primary dies.
    pub on_primary_death: OnPrimaryDeath,
    /// How the primary gets its place back.
    pub failback: Failback,
    /// How long the primary must have been ready before that.
    pub failback_after: Duration,
}

/// Whether a rescue runs while its primaries are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standby {
    /// Started when a primary dies.
    Cold,
    /// Runs all the time.
    Warm,
}

/// What happens to a running rescue when a primary dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPrimaryDeath {
    /// Restarted, so that it finds the incident in its environment.
    Restart,
    /// Left alone if it is ready.
    EnsureRunning,
}

/// How a primary gets its place back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failback {
    /// By itself, once it has been ready long enough.
    Auto,
    /// When an operator says so.
    Manual,
}

/// When and how often a dead gateway is run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// After which exits.
    pub condition: Condition,
    /// Delay of the first restart.
    pub initial_delay: Duration,
    /// Growth of each further delay, in thousandths.
    pub multiplier_permille: u32,
    /// No delay is longer.
    pub max_delay: Duration,
    /// Chance added to each delay, in thousandths of it.
    pub jitter_permille: u32,
    /// At most so many restarts within `window`.
    pub budget: u32,
    /// The window of the budget.
    pub window: Duration,
    /// Ready for this long, and the delays begin anew.
    pub reset_after: Duration,
    /// Exit statuses that another start cannot mend, e.g. 78 for a broken configuration.
    pub fatal_codes: Vec<i32>,
    /// Whether status 0 may say "run me again", which the runtime can be asked.
    pub handoff: bool,
}

/// After which exits a gateway is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// All of them.
    Always,
    /// All but status 0.
    OnFailure,
    /// None.
    Never,
}

/// How start and health are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPolicy {
    /// When a start is over.
    pub startup: Startup,
    /// Between two startup probes.
    pub startup_interval: Duration,
    /// Without progress for this long, a start has failed.
    pub startup_deadline: Duration,
    /// No start may take longer, progress or not.
    pub startup_cap: Duration,
    /// How a running gateway is watched; `None` only watches its process.
    pub watch: Option<Watch>,
}

/// When a start is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// As soon as the process runs.
    AtOnce,
    /// When the program says READY=1.
    Notify,
    /// When its startup probe passes.
    Probe,
    /// Never: it does its work and ends.
    Never,
}

/// How a running gateway is watched. One probe answers for liveness and readiness both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// Between two probes.
    pub interval: Duration,
    /// A probe not answered by then has failed both ways.
    pub timeout: Duration,
    /// Liveness failures that make the gateway hung.
    pub live: Threshold,
    /// Readiness failures that make it unhealthy.
    pub ready: Threshold,
}

/// How many failed probes are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// So many.
    pub failures: u32,
    /// Among so many of the last ones, at most [`OUTCOMES`](crate::health::OUTCOMES). As many as `failures`: in a
    /// row, and then of any number.
    pub of: u32,
}

impl Threshold {
    /// Of what is not asked.
    pub const NEVER: Self = Self::in_a_row(u32::MAX);

    /// So many in a row.
    #[must_use]
    pub const fn in_a_row(failures: u32) -> Self {
        Self { failures, of: failures }
    }
}

impl HealthPolicy {
    /// How a repair is judged: it says nothing, and has this long.
    pub(crate) fn of_repair(limit: Duration) -> Self {
        Self {
            startup: Startup::Never,
            startup_interval: limit,
            startup_deadline: limit,
            startup_cap: limit,
            watch: None,
        }
    }
}

impl Default for Policy {
    /// The policy of the built-in gateway; the shell's defaults for each runtime begin here.
    fn default() -> Self {
        Self {
            port: None,
            rescues: Vec::new(),
            rescue: RescuePolicy {
                standby: Standby::Warm,
                on_primary_death: OnPrimaryDeath::Restart,
                failback: Failback::Auto,
                failback_after: Duration::from_secs(60),
            },
            restart: RestartPolicy {
                condition: Condition::Always,
                initial_delay: Duration::from_millis(100),
                multiplier_permille: 2_000,
                max_delay: Duration::from_secs(60),
                jitter_permille: 100,
                budget: 20,
                window: Duration::from_secs(600),
                reset_after: Duration::from_secs(60),
                fatal_codes: Vec::new(),
                handoff: false,
            },
            health: HealthPolicy {
                startup: Startup::Notify,
                startup_interval: Duration::from_millis(500),
                startup_deadline: Duration::from_secs(60),
                startup_cap: Duration::from_secs(300),
                watch: Some(Watch {
                    interval: Duration::from_secs(10),
                    timeout: Duration::from_secs(5),
                    live: Threshold::in_a_row(3),
                    ready: Threshold::in_a_row(3),
                }),
            },
            stop_grace: Duration::from_secs(10),
            poll_expiry: Duration::from_secs(30),
            ladder: LadderPolicy { deaths: 3, repair: None, roll_back: true, quarantine: false, held: false },
            trial: TrialPolicy { good_after: Duration::from_secs(60) },
        }
    }
}
