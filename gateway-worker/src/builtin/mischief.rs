//! Does what [`misbehave`](crate::misbehave) has read.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::raise;

use crate::config::Config;
use crate::gateway::{Gateway, Phase};
use crate::log;
use crate::misbehave::{Doctor, Fault, Growth, Misbehaviour, Planned, When};

/// How often is looked whether a fault is due: a test waits for it, and nobody counts the cost.
const LOOK: Duration = Duration::from_millis(20);
/// In the state directory, once a doctor that mends has been.
const MENDED: &str = "builtin-gateway.mended";

impl Misbehaviour {
    /// What is left of it in a life that begins with this configuration.
    pub(crate) fn in_life(mut self, config: &Config) -> Self {
        if self.doctor == Some(Doctor::Mends) && config.state_dir.join(MENDED).exists() {
            self.faults.clear();
            self.slow_start = None;
        }
        self.faults.retain(|planned| planned.when.suits(&config.path));
        self
    }

    /// Whether it makes this configuration one that the gateway exits over: what the doctor would find.
    pub(crate) fn spoils(&self, config: &Path) -> bool {
        self.faults.iter().any(|planned| {
            matches!(planned.fault, Fault::Exit(_))
                && planned.when.config_has.is_some()
                && planned.when.suits(config)
        })
    }

    /// Notes that the doctor has mended it.
    pub(crate) fn mend(state_dir: &Path) -> io::Result<()> {
        fs::write(state_dir.join(MENDED), "")
    }

    /// Ends the process if it is to end before it serves.
    pub(crate) fn end_at_start(&self, state_dir: &Path) {
        for planned in &self.faults {
            if matches!(planned.fault, Fault::Exit(_) | Fault::Die(_)) {
                planned.commit_if_due(Duration::ZERO, state_dir);
            }
        }
    }

    /// What makes it unready this long after its start.
    pub(crate) fn failing(&self, uptime: Duration) -> Vec<&str> {
        let mut failing = Vec::new();
        for planned in &self.faults {
            if let Fault::NotReady(names) = &planned.fault
                && planned.when.holds(uptime)
            {
                failing.extend(names.iter().map(String::as_str));
            }
        }
        failing
    }

    /// Whether it says nothing in WebSockets this long after its start.
    pub(crate) fn is_mute(&self, uptime: Duration) -> bool {
        self.faults.iter().any(|planned| planned.fault == Fault::Mute && planned.when.holds(uptime))
    }
}

impl When {
    /// Whether the configuration has what it must have.
    fn suits(&self, config: &Path) -> bool {
        let Some(text) = &self.config_has else { return true };
        fs::read(config).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
    }

    fn holds(&self, uptime: Duration) -> bool {
        uptime >= self.after
            && self.until.is_none_or(|until| uptime < until)
            && self.file.as_ref().is_none_or(|file| file.exists())
    }

    /// Counts one more time across restarts, or says that it has been often enough.
    fn count(&self, counter: &Path) -> bool {
        let Some(times) = self.times else { return true };
        let before = fs::read_to_string(counter).ok().and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        // Uncounted, it would never end.
        before < times && fs::write(counter, (before + 1).to_string()).is_ok()
    }
}

impl Planned {
    fn commit_if_due(&self, uptime: Duration, state_dir: &Path) {
        let counter = state_dir.join(format!("builtin-gateway.fault-{}", self.number));
        if self.when.holds(uptime) && self.when.count(&counter) {
            self.commit();
        }
    }

    fn commit(&self) {
        match &self.fault {
            Fault::NotReady(_) | Fault::Mute => {}
            Fault::Exit(code) => {
                log::warn(format_args!("misbehaving: exiting with status {code}"));
                std::process::exit((*code).into());
            }
            Fault::Die(signal) => {
                log::warn(format_args!("misbehaving: dying by {signal}"));
                // The runtime's handler of stack overflows takes the first of some signals and puts back the
                // default.
                while raise(*signal).is_ok() {}
            }
            Fault::Hang => {
                log::warn(format_args!("misbehaving: the event loop stands still"));
                stand_still();
            }
        }
    }
}

/// Commits each fault once it is due. Without faults it costs nothing.
pub(crate) async fn act(gateway: &Arc<Gateway>) -> Infallible {
    let misbehaviour = &gateway.misbehaviour;
    if let Some(growth) = misbehaviour.growth {
        tokio::spawn(grow(growth));
    }
    let acts = |planned: &&Planned| !matches!(planned.fault, Fault::NotReady(_) | Fault::Mute);
    while misbehaviour.faults.iter().any(|planned| acts(&planned)) {
        for planned in misbehaviour.faults.iter().filter(acts) {
            planned.commit_if_due(gateway.uptime(), &gateway.config.state_dir);
        }
        tokio::time::sleep(LOOK).await;
    }
    std::future::pending().await
}

/// Waits until a slow start is over.
pub(crate) async fn start_slowly(gateway: &Gateway) {
    let Some(start) = &gateway.misbehaviour.slow_start else { return };
    while start.phase(gateway.uptime()).is_some() {
        tokio::time::sleep(LOOK).await;
    }
}

/// The phase of a slow start, as `/startupz` gives it.
pub(crate) fn phase(gateway: &Gateway) -> Option<String> {
    let start = gateway.misbehaviour.slow_start.as_ref().filter(|_| gateway.phase() == Phase::Starting)?;
    // The side ports may take longer than all phases.
    let phase = start.phase(gateway.uptime()).unwrap_or(start.phases);
    Some(format!("phase-{phase}-of-{}", start.phases))
}

async fn grow(Growth { per_second, up_to }: Growth) -> Infallible {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    let mut left = up_to;
    while left > 0 {
        let next = per_second.clamp(1, left);
        // Not zeros, which the kernel would lend without memory.
        taken.push(vec![1; next << 20]);
        left -= next;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    log::warn(format_args!("misbehaving: holding {up_to} MiB in {} pieces", taken.len()));
    std::future::pending().await
}

/// Holds the thread for ever.
pub(crate) fn stand_still() -> ! {
    loop {
        thread::park();
    }
}

/// Holds the thread for a time.
pub(crate) fn dawdle(time: Duration) {
    let begun = Instant::now();
    while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
