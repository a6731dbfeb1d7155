//! What all connections share: the configuration, the phase of life, and who is connected.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use uuid::Uuid;

use crate::census::Census;
use crate::config::Config;
use crate::handoff::Source;
use crate::misbehave::Misbehaviour;
use crate::pulse::Pulse;
use crate::reload::Accepted;

/// Shown where OpenClaw shows its own version.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-builtin");

/// HTTP connections to the base port. A supervisor keeps one or two; the rest is room for people and scripts.
const BASE_CONNECTIONS: usize = 128;
/// HTTP connections to the browser-control and canvas ports together: a browser opens six for a page.
const SIDE_CONNECTIONS: usize = 64;
/// WebSocket clients, those still in their handshake included.
const CLIENTS: usize = 64;

/// Where the gateway is in its life. It only moves downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Phase {
    /// The base port answers; the side ports are not up yet.
    Starting,
    /// Everything that will be up is up.
    Started,
    /// It ends; clients are being told.
    Draining(Farewell),
}

/// What clients are told of the end, in OpenClaw's words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Farewell {
    pub(crate) reason: &'static str,
    /// When to come back, if at all.
    pub(crate) restart_expected_ms: Option<u64>,
}

/// A wish that the gateway end and be started again.
#[derive(Debug, Clone)]
pub(crate) struct Restart {
    /// In the words of whoever wants it.
    pub(crate) reason: String,
    pub(crate) source: Source,
}

/// The running gateway.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) misbehaviour: Misbehaviour,
    /// Who may connect, which follows the configuration.
    pub(crate) accepted: Accepted,
    /// New in each process, so that a supervisor can tell a restart from a pause.
    pub(crate) boot_id: String,
    pub(crate) pulse: Pulse,
    /// HTTP connections to the base port.
    pub(crate) base: Census,
    /// HTTP connections to the side ports.
    pub(crate) side: Census,
    /// WebSocket clients.
    pub(crate) clients: Census,
    phase: watch::Sender<Phase>,
    restart: watch::Sender<Option<Restart>>,
    degraded: OnceLock<Vec<String>>,
    born: Instant,
}

impl Gateway {
    pub(crate) fn new(config: Config, misbehaviour: Misbehaviour) -> Self {
        Self {
            accepted: Accepted::new(&config),
            config,
            misbehaviour,
            boot_id: Uuid::now_v7().to_string(),
            pulse: Pulse::new(),
            base: Census::new(BASE_CONNECTIONS),
            side: Census::new(SIDE_CONNECTIONS),
            clients: Census::new(CLIENTS),
            phase: watch::Sender::new(Phase::Starting),
            restart: watch::Sender::new(None),
            degraded: OnceLock::new(),
            born: Instant::now(),
        }
    }

    /// The phase now.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Says that everything is up but for `degraded`, the parts that are not, a sentence each.
    pub(crate) fn started(&self, degraded: Vec<String>) {
        // Set once, by the one caller that starts the gateway.
        let _ = self.degraded.set(degraded);
        self.phase.send_replace(Phase::Started);
    }

    /// Begins the drain.
    pub(crate) fn drain(&self, farewell: Farewell) {
        self.phase.send_replace(Phase::Draining(farewell));
    }

    /// Waits for the drain to begin, and says what clients are to be told.
    pub(crate) async fn draining(&self) -> Farewell {
        let mut phases = self.phase.subscribe();
        loop {
            if let Phase::Draining(farewell) = *phases.borrow_and_update() {
                return farewell;
            }
            // The sender lives in `self`, so the wait cannot fail.
            let _ = phases.changed().await;
        }
    }

    /// Asks for a restart.
    pub(crate) fn restart(&self, restart: Restart) {
        self.restart.send_replace(Some(restart));
    }

    /// Waits for a restart to be asked for.
    pub(crate) async fn restart_asked(&self) -> Restart {
        let mut restarts = self.restart.subscribe();
        loop {
            if let Some(restart) = restarts.borrow_and_update().clone() {
                return restart;
            }
            // The sender lives in `self`, so the wait cannot fail.
            let _ = restarts.changed().await;
        }
    }

    /// What it gives for its version.
    pub(crate) fn version(&self) -> &str {
        self.misbehaviour.version.as_deref().unwrap_or(VERSION)
    }

    /// The parts that could not be had, a sentence each.
    pub(crate) fn degraded(&self) -> &[String] {
        self.degraded.get().map_or(&[], Vec::as_slice)
    }

    /// The time since the process began to serve.
    pub(crate) fn uptime(&self) -> Duration {
        self.born.elapsed()
    }

    /// The same in milliseconds.
    pub(crate) fn uptime_ms(&self) -> u64 {
        self.uptime().as_millis() as u64
    }
}

/// Milliseconds since the epoch, the unit of every `ts` of the protocol.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{Auth, BasePort, Bind, Supervision};

    pub(crate) const FAREWELL: Farewell = Farewell { reason: "gateway stopping", restart_expected_ms: None };

    /// A gateway that listens nowhere.
    pub(crate) fn gateway() -> Gateway {
        misbehaving("")
    }

    /// One that misbehaves, too.
    pub(crate) fn misbehaving(how: &str) -> Gateway {
        let config = Config {
            path: "/config".into(),
            state_dir: "/state".into(),
            port: BasePort::parse("18789").unwrap(),
            bind: Bind::Loopback,
            stamp: None,
            auth: Auth::None.into(),
            channels: vec![],
            supervision: Supervision::None,
        };
        Gateway::new(config, how.parse().unwrap())
    }
}
