//! What was asked for: the spec of an instance.
//!
//! Every field may be left out, and then follows the default of the runtime ([`InstanceSpec::policy`],
//! [`InstanceSpec::probe_plan`]). So a spec stored today gets the better default of tomorrow. The same names
//! are used in the registry (JSON), in fleet files (YAML) and in the `.proto` file.

mod check;
mod memory;
mod policy;
mod probes;
mod recovery;
mod units;
mod walls;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use supervisor_core::ids::Name;

pub use check::{FieldPath, Step, Violation, is_supervisors, is_version};
pub use memory::{Memory, Window};
pub use probes::{ProbePlan, Target, Watched};
pub use recovery::{Ladder, Trial};
pub use units::{Bytes, Span};
pub use walls::{Limits, UserName, Walls};

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstanceSpec {
    /// What runs inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// OpenClaw: the executable, if not the first on PATH. Command: the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// OpenClaw: this version, as the supervisor has installed it, and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Command: its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Added to the instance's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// First port of the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The directories of an existing OpenClaw profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// The primaries that this instance stands in for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rescues: Vec<Name>,
    /// How it stands in for them.
    #[serde(skip_serializing_if = "unset")]
    pub rescue: Rescue,
    /// When and how often it is run again.
    #[serde(skip_serializing_if = "unset")]
    pub restart: Restart,
    /// How its health is asked.
    #[serde(skip_serializing_if = "unset")]
    pub probes: Probes,
    /// From SIGTERM until the whole tree is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace: Option<Span>,
    /// Bounds of the captured output.
    #[serde(skip_serializing_if = "unset")]
    pub log: Log,
    /// What is tried, beyond restarts, before it is given up.
    #[serde(skip_serializing_if = "unset")]
    pub ladder: Ladder,
    /// Somebody works on it: it is restarted, and nothing more is done by itself.
    #[serde(skip_serializing_if = "unset")]
    pub maintenance: bool,
    /// When its configuration has proven good.
    #[serde(skip_serializing_if = "unset")]
    pub trial: Trial,
    /// So long after its gateway has died, nobody else is started with its channel credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_expiry: Option<Span>,
    /// How much memory it may take.
    #[serde(skip_serializing_if = "unset")]
    pub memory: Memory,
    /// What the kernel holds it to.
    #[serde(skip_serializing_if = "unset")]
    pub walls: Walls,
    /// What it may use of the host.
    #[serde(skip_serializing_if = "unset")]
    pub limits: Limits,
    /// Whose processes and files its are; the supervisor's own user's unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
}

/// What runs inside an instance, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// OpenClaw where it is installed, else the built-in gateway.
    Auto,
    /// The real OpenClaw.
    Openclaw,
    /// The built-in gateway.
    Builtin,
    /// Any program.
    Command,
}

/// What a [`Runtime`] comes to on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The real OpenClaw.
    Openclaw,
    /// The built-in gateway.
    Builtin,
    /// Any program.
    Command,
}

/// An existing OpenClaw profile, used in place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// OPENCLAW_STATE_DIR. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// OPENCLAW_CONFIG_PATH; `openclaw.json` in the state directory unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// `workspace` in the state directory unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<PathBuf>,
}

/// How an instance stands in for its primaries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rescue {
    /// Whether it runs while its primaries are well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standby: Option<Standby>,
    /// What happens to it when a primary dies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_primary_death: Option<OnPrimaryDeath>,
    /// How the primary gets its place back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failback: Option<Failback>,
    /// How long the primary must have been ready before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failback_after: Option<Span>,
}

/// Whether a rescue runs while its primaries are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standby {
    /// It is started when a primary dies.
    Cold,
    /// It runs all the time.
    Warm,
}

/// What happens to a running rescue when a primary dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPrimaryDeath {
    /// Restarted with the incident in its environment.
    Restart,
    /// Left alone if it is ready.
    #[serde(alias = "ensure-running")]
    EnsureRunning,
}

/// How the primary gets its place back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failback {
    /// Once it has been ready long enough.
    Auto,
    /// When an operator says so.
    Manual,
}

/// When and how often a dead gateway is run again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restart {
    /// After which exits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Delay of the first restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<Span>,
    /// Growth of each further delay, in thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiplier_permille: Option<u32>,
    /// No delay is longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Span>,
    /// Chance added to each delay, in thousandths of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_permille: Option<u32>,
    /// At most this many restarts within `window`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<u32>,
    /// The window of the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
    /// Ready for this long, and the delays begin anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_after: Option<Span>,
}

/// After which exits a gateway is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// All of them.
    Always,
    /// All but status 0.
    #[serde(alias = "on-failure")]
    OnFailure,
    /// None.
    Never,
}

/// How health is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probes {
    /// Until it passes, the instance is starting.
    #[serde(skip_serializing_if = "unset")]
    pub startup: Probe,
    /// `failures` of the last `of`, and the instance is hung.
    #[serde(skip_serializing_if = "unset")]
    pub liveness: Probe,
    /// `failures` of the last `of`, and the instance is unhealthy.
    #[serde(skip_serializing_if = "unset")]
    pub readiness: Probe,
}

/// One probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// What is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// HTTP: the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// TCP and HTTP: base port plus this.
    #[serde(skip_serializing_if = "unset")]
    pub port_offset: u16,
    /// Between two probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// A probe not answered by then has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// So many failures are one too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// Among so many of the last probes; as many as `failures` means in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<u32>,
    /// Startup: with no progress for this long, the start has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// Startup: the longest it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap: Option<Span>,
}

/// What a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Nothing: it passes at once.
    None,
    /// The port accepts a connection.
    Tcp,
    /// GET answers 200 to 399.
    Http,
    /// The program sends READY=1. Startup only.
    Notify,
    /// A WebSocket begins with OpenClaw's challenge.
    Websocket,
    /// As OpenClaw is asked.
    Openclaw,
}

/// Bounds of the captured output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A file is closed at the end of the line that reaches this size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<Bytes>,
    /// Files kept, the current one included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
}

/// Whether a group of fields has none set.
fn unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Openclaw => "OpenClaw",
            Self::Builtin => "the built-in gateway",
            Self::Command => "a command",
        })
    }
}

/// `mine`, or the default's where it is not set.
fn or<T: Clone>(mine: &Option<T>, default: &Option<T>) -> Option<T> {
    mine.clone().or_else(|| default.clone())
}

impl InstanceSpec {
    /// The spec of an instance that is created by name alone: `rescue` rescues `main`, as OpenClaw's guide
    /// has it, and everyone else is on their own.
    #[must_use]
    pub fn default_for(name: &Name) -> Self {
        let rescues = match &**name {
            "rescue" => Name::new("main").into_iter().collect(),
            _ => Vec::new(),
        };
        Self { rescues, ..Self::default() }
    }

    /// This spec with the fields that it leaves out taken from `defaults`. Lists count as left out when they
    /// are empty; `env` is merged by variable.
    #[must_use]
    pub fn merged(&self, defaults: &Self) -> Self {
        let list = |mine: &Vec<String>, theirs: &Vec<String>| {
            if mine.is_empty() { theirs.clone() } else { mine.clone() }
        };
        // They are two ways to say what runs: whoever names one does not inherit the other.
        let inherits = self.program.is_none() && self.version.is_none();
        let unless_chosen = |mine: &Option<String>, theirs: &Option<String>| {
            if inherits { theirs.clone() } else { mine.clone() }
        };
        let mut env = defaults.env.clone();
        env.extend(self.env.clone());
        Self {
            runtime: or(&self.runtime, &defaults.runtime),
            program: unless_chosen(&self.program, &defaults.program),
            version: unless_chosen(&self.version, &defaults.version),
            args: list(&self.args, &defaults.args),
            env,
            port: or(&self.port, &defaults.port),
            profile: or(&self.profile, &defaults.profile),
            rescues: if self.rescues.is_empty() { defaults.rescues.clone() } else { self.rescues.clone() },
            rescue: Rescue {
                standby: or(&self.rescue.standby, &defaults.rescue.standby),
                on_primary_death: or(&self.rescue.on_primary_death, &defaults.rescue.on_primary_death),
                failback: or(&self.rescue.failback, &defaults.rescue.failback),
                failback_after: or(&self.rescue.failback_after, &defaults.rescue.failback_after),
            },
            restart: self.restart.merged(&defaults.restart),
            probes: Probes {
                startup: self.probes.startup.merged(&defaults.probes.startup),
                liveness: self.probes.liveness.merged(&defaults.probes.liveness),
                readiness: self.probes.readiness.merged(&defaults.probes.readiness),
            },
            stop_grace: or(&self.stop_grace, &defaults.stop_grace),
            log: Log {
                max_file_bytes: or(&self.log.max_file_bytes, &defaults.log.max_file_bytes),
                max_files: or(&self.log.max_files, &defaults.log.max_files),
            },
            ladder: self.ladder.merged(&defaults.ladder),
            maintenance: self.maintenance || defaults.maintenance,
            trial: self.trial.merged(&defaults.trial),
            poll_expiry: or(&self.poll_expiry, &defaults.poll_expiry),
            memory: self.memory.merged(&defaults.memory),
            walls: self.walls.merged(&defaults.walls),
            limits: self.limits.merged(&defaults.limits),
            user: or(&self.user, &defaults.user),
        }
    }
}

impl Restart {
    fn merged(&self, defaults: &Self) -> Self {
        Self {
            condition: or(&self.condition, &defaults.condition),
            initial_delay: or(&self.initial_delay, &defaults.initial_delay),
            multiplier_permille: or(&self.multiplier_permille, &defaults.multiplier_permille),
            max_delay: or(&self.max_delay, &defaults.max_delay),
            jitter_permille: or(&self.jitter_permille, &defaults.jitter_permille),
            budget: or(&self.budget, &defaults.budget),
            window: or(&self.window, &defaults.window),
            reset_after: or(&self.reset_after, &defaults.reset_after),
        }
    }
}

impl Probe {
    fn merged(&self, defaults: &Self) -> Self {
        Self {
            check: or(&self.check, &defaults.check),
            path: or(&self.path, &defaults.path),
            port_offset: if self.port_offset == 0 { defaults.port_offset } else { self.port_offset },
            interval: or(&self.interval, &defaults.interval),
            timeout: or(&self.timeout, &defaults.timeout),
            failures: or(&self.failures, &defaults.failures),
            of: or(&self.of, &defaults.of),
            deadline: or(&self.deadline, &defaults.deadline),
            cap: or(&self.cap, &defaults.cap),
        }
    }
}

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;
