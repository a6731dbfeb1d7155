//! What is measured, for Prometheus: how fast the supervisor does its work, and what became of the instances.
//!
//! ```text
//!   driver, probes, store ── how long it took ──┐
//!   journal ── what happened ([`lives`]) ───────┼──► Metrics ──► text ([`page`])
//!   view, figures ── how it stands, at a scrape ┘
//! ```
//!
//! Whatever hands over a measurement goes on at once: nothing here waits, and nothing grows with time. Names are by the
//! Prometheus conventions (<https://prometheus.io/docs/practices/naming/>), with base units. An instance is told by the
//! label `name`: `instance` is Prometheus' own, for whom it asks. Counts begin anew with each supervisor, as counters
//! may; how an instance stands is what the view says at the moment of the scrape.

mod lives;
mod page;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::{
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use supervisor_core::{action::ProbeKind, journal::Entry};

use self::lives::Lives;
pub(crate) use self::page::{Own, Scene, Standing};

/// From 50 microseconds to a second: what is done between two looks at the clock.
const SHORT: [f64; 10] = [0.000_05, 0.000_2, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.1, 0.25, 1.0];

/// From a millisecond to ten seconds: what goes over a socket.
const USUAL: [f64; 10] = [0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0];

/// From a twentieth of a second to a quarter of an hour: what people wait for.
const LONG: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 900.0];

/// One label.
type Label = [(&'static str, &'static str); 1];

/// A histogram for each value of a label.
type By = Family<Label, Histogram, fn() -> Histogram>;

/// The measurements. Cheap to clone; all clones measure together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    registry: Registry,
    handling: Histogram,
    commits: Histogram,
    probes: By,
    recoveries: By,
    lives: Mutex<Lives>,
    queues: Mutex<Vec<Queue>>,
}

/// A queue of the supervisor.
struct Queue {
    name: &'static str,
    /// What may wait in it.
    most: usize,
    /// What does.
    length: Box<dyn Fn() -> usize + Send + Sync>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// How something that was down came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// It was started anew.
    Restart,
    /// Its rescue stands in.
    Failover,
}

impl Means {
    const ALL: [Self; 2] = [Self::Restart, Self::Failover];

    const fn label(self) -> Label {
        match self {
            Self::Restart => [("by", "restart")],
            Self::Failover => [("by", "failover")],
        }
    }
}

const fn kind(kind: ProbeKind) -> Label {
    match kind {
        ProbeKind::Startup => [("kind", "startup")],
        ProbeKind::Watch => [("kind", "watch")],
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let handling = Histogram::new(SHORT);
        let commits = Histogram::new(USUAL);
        let probes: By = Family::new_with_constructor(|| Histogram::new(USUAL));
        let recoveries: By = Family::new_with_constructor(|| Histogram::new(LONG));
        // Complete from the first scrape on: what has not happened is a count of 0.
        for kind in [ProbeKind::Startup, ProbeKind::Watch].map(kind) {
            drop(probes.get_or_create(&kind));
        }
        for means in Means::ALL {
            drop(recoveries.get_or_create(&means.label()));
        }
        let mut registry = Registry::default();
        registry.register_with_unit(
            "openclaw_supervisor_handling",
            "Time the driver took for one event and for beginning what followed",
            Unit::Seconds,
            handling.clone(),
        );
        registry.register_with_unit(
            "openclaw_supervisor_store_commit",
            "Time the store took to make waiting changes durable",
            Unit::Seconds,
            commits.clone(),
        );
        registry.register_with_unit(
            "openclaw_probe",
            "Time until a gateway had answered a probe, or had not",
            Unit::Seconds,
            probes.clone(),
        );
        registry.register_with_unit(
            "openclaw_recovery",
            "Time from the death of a gateway until it was ready again, or its rescue stood in for it",
            Unit::Seconds,
            recoveries.clone(),
        );
        let (lives, queues) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { registry, handling, commits, probes, recoveries, lives, queues }))
    }
}

impl Metrics {
    /// The driver has handled an event.
    pub(crate) fn handled(&self, took: Duration) {
        self.0.handling.observe(took.as_secs_f64());
    }

    /// The store has made a transaction durable.
    pub(crate) fn committed(&self, took: Duration) {
        self.0.commits.observe(took.as_secs_f64());
    }

    /// A gateway was asked.
    pub(crate) fn probed(&self, of: ProbeKind, took: Duration) {
        self.0.probes.get_or_create(&kind(of)).observe(took.as_secs_f64());
    }

    /// Something happened.
    pub(crate) fn note(&self, entry: &Entry) {
        let recovered = self.lives().note(entry);
        if let Some((means, took)) = recovered {
            self.0.recoveries.get_or_create(&means.label()).observe(took.as_secs_f64());
        }
    }

    /// Shows how full a queue is, from now on.
    pub(crate) fn watch_queue(
        &self,
        name: &'static str,
        most: usize,
        length: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        let queue = Queue { name, most, length: Box::new(length) };
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).push(queue);
    }

    /// How full each is, and how full it may be.
    fn queues(&self) -> Vec<(&'static str, usize, usize)> {
        let queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().map(|queue| (queue.name, (queue.length)(), queue.most)).collect()
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.0.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
