//! Which probes a spec asks for on this host, with all defaults filled in.

use std::time::Duration;

use supervisor_core::{policy::Threshold, ports::Block};

use super::{Check, InstanceSpec, Kind, Probe};

/// Between two probes of a running gateway: a hang is found within half a minute, and 1,000 instances cost
/// 100 probes a second.
const INTERVAL: Duration = Duration::from_secs(10);
/// Failures in a row that count, so that one slow answer costs nothing.
pub(super) const FAILURES: u32 = 3;

/// What is asked of an instance's gateway, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePlan {
    /// Until it passes, the instance is starting. `None`: nothing is asked.
    pub startup: Option<Target>,
    /// Until a startup probe has failed.
    pub startup_timeout: Duration,
    /// A failure says that it hangs. `None`: nothing is asked.
    pub liveness: Option<Target>,
    /// A failure says that it cannot serve. `None`: nothing is asked.
    pub readiness: Option<Target>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Does the port accept a connection?
    Tcp {
        /// The port on loopback.
        port: u16,
    },
    /// Does GET answer 200 to 399?
    Http {
        /// The port on loopback.
        port: u16,
        /// The path, from `/` on.
        path: String,
    },
    /// Does a WebSocket begin with OpenClaw's challenge?
    Websocket {
        /// The port on loopback.
        port: u16,
    },
    /// How is the gateway, as OpenClaw is asked?
    Openclaw {
        /// The gateway's port on loopback.
        port: u16,
    },
}

impl Target {
    /// The port that is asked.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp { port }
            | Self::Http { port, .. }
            | Self::Websocket { port }
            | Self::Openclaw { port } => *port,
        }
    }
}

/// How a running gateway is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Between two probes: the shorter of the two intervals.
    pub interval: Duration,
    /// Until a probe has failed: the longer of the two timeouts.
    pub timeout: Duration,
    /// Liveness failures that count.
    pub live: Threshold,
    /// Readiness failures that count.
    pub ready: Threshold,
}

/// What a running gateway of this kind is asked unless its spec says otherwise.
fn default_check(kind: Kind) -> Check {
    match kind {
        Kind::Openclaw | Kind::Builtin => Check::Openclaw,
        Kind::Command => Check::None,
    }
}

/// Until a probe has failed.
fn default_timeout(kind: Kind) -> Duration {
    match kind {
        // A busy event loop has been seen to answer after seconds.
        Kind::Openclaw => Duration::from_secs(10),
        Kind::Builtin | Kind::Command => Duration::from_secs(5),
    }
}

/// What tells that it has started.
pub(super) fn startup_check(probe: &Probe, kind: Kind) -> Check {
    probe.check.unwrap_or(match kind {
        Kind::Openclaw => Check::Openclaw,
        Kind::Builtin => Check::Notify,
        Kind::Command => Check::None,
    })
}

fn target(check: Check, probe: &Probe, block: Block) -> Option<Target> {
    let port = block.base.saturating_add(probe.port_offset);
    match check {
        Check::None | Check::Notify => None,
        Check::Tcp => Some(Target::Tcp { port }),
        Check::Http => {
            Some(Target::Http { port, path: probe.path.clone().unwrap_or_else(|| "/".to_owned()) })
        }
        Check::Websocket => Some(Target::Websocket { port }),
        Check::Openclaw => Some(Target::Openclaw { port: block.base }),
    }
}

impl InstanceSpec {
    /// What is asked of the gateway, for the shell that does the asking.
    #[must_use]
    pub fn probe_plan(&self, kind: Kind, block: Block) -> ProbePlan {
        let watch = |probe: &Probe| target(probe.check.unwrap_or(default_check(kind)), probe, block);
        ProbePlan {
            startup: target(startup_check(&self.probes.startup, kind), &self.probes.startup, block),
            startup_timeout: self.probes.startup.timeout.map_or(default_timeout(kind), |span| span.0),
            liveness: watch(&self.probes.liveness),
            readiness: watch(&self.probes.readiness),
        }
    }

    /// How often, for the mind that does the scheduling. `None`: only the process is watched.
    #[must_use]
    pub fn watched(&self, kind: Kind) -> Option<Watched> {
        let asked = |probe: &Probe| match probe.check.unwrap_or(default_check(kind)) {
            Check::None | Check::Notify => false,
            Check::Tcp | Check::Http | Check::Websocket | Check::Openclaw => true,
        };
        let timeout = default_timeout(kind);
        let (live, ready) = (&self.probes.liveness, &self.probes.readiness);
        let used = || [live, ready].into_iter().filter(|probe| asked(probe));
        let threshold = |probe: &Probe| {
            let failures = probe.failures.unwrap_or(FAILURES);
            let said = Threshold { failures, of: probe.of.unwrap_or(failures) };
            if asked(probe) { said } else { Threshold::NEVER }
        };
        used().next()?;
        // One probe answers for both, so what is said of one holds for the other unless that says otherwise.
        Some(Watched {
            interval: used().filter_map(|probe| probe.interval).map(|span| span.0).min().unwrap_or(INTERVAL),
            timeout: used().filter_map(|probe| probe.timeout).map(|span| span.0).max().unwrap_or(timeout),
            live: threshold(live),
            ready: threshold(ready),
        })
    }
}
