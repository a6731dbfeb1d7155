//! The page that Prometheus reads: what was measured, and how everything stands at this moment.
//!
//! It is in the OpenMetrics text format, which every Prometheus since 2.5 asks for
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeMetric,
        text::{encode_eof, encode_registry},
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};
use supervisor_core::ids::Name;

use super::{
    Metrics,
    lives::{Cause, Life, SEVERITIES},
};
use crate::figures::{self, Figure};

/// How an instance stands.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// Its name.
    pub(crate) name: Name,
    /// Its phase, in a word.
    pub(crate) phase: String,
    /// Its role in failover, in a word.
    pub(crate) role: String,
    /// Whether it should run.
    pub(crate) wanted: bool,
    /// Whether its gateway runs.
    pub(crate) up: bool,
    /// Whether it serves.
    pub(crate) ready: bool,
    /// Since when it is in its phase, in seconds since the Unix epoch.
    pub(crate) since: f64,
    /// When its gateway was started, the same; `None` if none runs.
    pub(crate) started: Option<f64>,
    /// The first port of its block.
    pub(crate) port: u16,
    /// What its processes use, as far as it is known.
    pub(crate) figure: Option<Figure>,
}

/// What the supervisor tells of itself.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// Its version.
    pub(crate) version: &'static str,
    /// When it was started, in seconds since the Unix epoch.
    pub(crate) started: f64,
    /// Whether changes cannot be stored.
    pub(crate) store_failing: bool,
    /// Blocks of ports that are held.
    pub(crate) blocks_held: u64,
    /// Blocks of ports in the pool.
    pub(crate) blocks: u64,
    /// What its process uses.
    pub(crate) figure: figures::Own,
}

/// How everything stands at a scrape.
#[derive(Debug)]
pub(crate) struct Scene {
    /// The supervisor.
    pub(crate) own: Own,
    /// Every instance, with what became of it.
    pub(crate) instances: Vec<Standing>,
}

/// With what was counted.
#[derive(Debug)]
struct Seen {
    scene: Scene,
    /// Of each instance, in the same order.
    lives: Vec<Life>,
    /// What waits in which queue, and how much may.
    queues: Vec<(&'static str, usize, usize)>,
    events: [u64; SEVERITIES.len()],
}

impl Metrics {
    /// The page.
    pub(crate) fn page(&self, scene: Scene) -> String {
        let seen = {
            let lives = self.lives();
            let of = |standing: &Standing| lives.of(&standing.name).cloned().unwrap_or_default();
            let queues = self.queues();
            Seen { lives: scene.instances.iter().map(of).collect(), queues, events: lives.events, scene }
        };
        let mut page = String::new();
        let mut momentary = Registry::default();
        momentary.register_collector(Box::new(seen));
        // Writing into a string does not fail.
        let _ = encode_registry(&mut page, &self.0.registry)
            .and_then(|()| encode_registry(&mut page, &momentary))
            .and_then(|()| encode_eof(&mut page));
        page
    }
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.own(&mut encoder)?;
        self.standings(&mut encoder)?;
        self.resources(&mut encoder)?;
        self.counts(&mut encoder)
    }
}

/// Writes one metric with all its samples.
struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    /// A gauge of the whole supervisor.
    fn gauge(&mut self, (name, help): (&str, &str), unit: Option<&Unit>, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        unit: Option<&Unit>,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in samples {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        unit: Option<&Unit>,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in samples {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What a metric is called, what it is, and how it is learned.
type Told<T, V> = ((&'static str, &'static str), fn(&T) -> V);

/// A sample of an instance.
type OfInstance<'a> = ([(&'static str, &'a str); 1], f64);

impl Seen {
    fn each<'a>(
        &'a self,
        value: impl Fn(&Standing) -> Option<f64> + 'a,
    ) -> impl Iterator<Item = OfInstance<'a>> {
        let of = move |one: &'a Standing| Some(([("name", &*one.name)], value(one)?));
        self.scene.instances.iter().filter_map(of)
    }

    fn own(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let own = &self.scene.own;
        Info::new([("version", own.version)]).encode(encoder.encode_descriptor(
            "openclaw_supervisor",
            "What runs here.",
            None,
            MetricType::Info,
        )?)?;
        let mut page = Page(encoder);
        page.gauge(
            ("openclaw_supervisor_store_failing", "Whether changes cannot be stored: 1 if so."),
            None,
            number(own.store_failing),
        )?;
        let blocks = [("held", own.blocks_held), ("free", own.blocks.saturating_sub(own.blocks_held))];
        page.gauges(
            ("openclaw_supervisor_port_blocks", "Blocks of 20 ports in the pool."),
            None,
            blocks.map(|(state, blocks)| ([("state", state)], float(blocks))),
        )?;
        page.gauges(
            ("openclaw_supervisor_queue_length", "What waits in a queue of the supervisor."),
            None,
            self.queues.iter().map(|(queue, length, _)| ([("queue", *queue)], count(*length))),
        )?;
        page.gauges(
            ("openclaw_supervisor_queue_capacity", "What may wait in a queue of the supervisor."),
            None,
            self.queues.iter().map(|(queue, _, most)| ([("queue", *queue)], count(*most))),
        )?;
        let started = "When the supervisor was started, since the Unix epoch.";
        page.gauge(("process_start_time", started), Some(&Unit::Seconds), own.started)?;
        let rss = "Resident memory of the supervisor.";
        page.gauge(("process_resident_memory", rss), Some(&Unit::Bytes), float(own.figure.rss_bytes))?;
        page.gauge(
            ("process_open_fds", "Open descriptors of the supervisor."),
            None,
            float(own.figure.descriptors),
        )?;
        ConstCounter::new(own.figure.cpu.as_secs_f64()).encode(encoder.encode_descriptor(
            "process_cpu",
            "Processor time of the supervisor, of user and system.",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?)
    }

    fn standings(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let instances = &self.scene.instances;
        page.gauges(
            (
                "openclaw_instance_phase",
                "The phase that an instance is in; of the others there is no sample.",
            ),
            None,
            instances.iter().map(|one| ([("name", &*one.name), ("phase", one.phase.as_str())], 1.0)),
        )?;
        page.gauges(
            ("openclaw_instance_role", "The role in failover that an instance has."),
            None,
            instances.iter().map(|one| ([("name", &*one.name), ("role", one.role.as_str())], 1.0)),
        )?;
        let flags: [Told<Standing, bool>; 3] = [
            (("openclaw_instance_wanted", "Whether an instance should run: 1 if so."), |one| one.wanted),
            (("openclaw_instance_up", "Whether the gateway of an instance runs: 1 if so."), |one| one.up),
            (("openclaw_instance_ready", "Whether an instance serves: 1 if so."), |one| one.ready),
        ];
        for (what, flag) in flags {
            page.gauges(what, None, self.each(move |one| Some(number(flag(one)))))?;
        }
        page.gauges(
            (
                "openclaw_instance_phase_start_time",
                "Since when an instance is in its phase, since the Unix epoch.",
            ),
            Some(&Unit::Seconds),
            self.each(|one| Some(one.since)),
        )?;
        page.gauges(
            (
                "openclaw_instance_start_time",
                "When the gateway of an instance was started, since the Unix epoch.",
            ),
            Some(&Unit::Seconds),
            self.each(|one| one.started),
        )?;
        page.gauges(
            ("openclaw_instance_port", "The first port of the block of an instance."),
            None,
            self.each(|one| Some(one.port.into())),
        )
    }

    fn resources(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        page.counters(
            ("openclaw_instance_cpu", "Processor time of the processes of an instance that are alive."),
            Some(&Unit::Seconds),
            self.each(|one| one.figure.map(|figure| float(figure.cpu_ms) / 1_000.0)),
        )?;
        page.gauges(
            ("openclaw_instance_resident_memory", "Resident memory of the processes of an instance."),
            Some(&Unit::Bytes),
            self.each(|one| one.figure.map(|figure| float(figure.rss_bytes))),
        )?;
        page.gauges(
            ("openclaw_instance_processes", "Processes of an instance, without its worker."),
            None,
            self.each(|one| one.figure.map(|figure| figure.processes.into())),
        )
    }

    fn counts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let all = || self.scene.instances.iter().map(|one| &*one.name).zip(&self.lives);
        page.counters(
            ("openclaw_instance_restarts", "Starts of an instance that followed an end, by what ended it."),
            None,
            all().flat_map(|(name, life)| {
                let counts = Cause::ALL.iter().zip(life.restarts);
                counts.map(move |(cause, count)| ([("name", name), ("cause", cause.word())], float(count)))
            }),
        )?;
        let counts: [Told<Life, u64>; 3] = [
            (("openclaw_instance_failovers", "How often a rescue stood in for an instance."), |life| {
                life.failovers
            }),
            (
                ("openclaw_instance_unrescued", "How often an instance died and none of its rescues was up."),
                |life| life.unrescued,
            ),
            (
                ("openclaw_instance_rollbacks", "How often the configuration of an instance was taken back."),
                |life| life.rollbacks,
            ),
        ];
        for (what, count) in counts {
            page.counters(what, None, all().map(|(name, life)| ([("name", name)], float(count(life)))))?;
        }
        let events = SEVERITIES.iter().zip(self.events);
        page.counters(
            ("openclaw_supervisor_events", "What happened, by how much it matters."),
            None,
            events.map(|((_, severity), count)| ([("severity", *severity)], float(count))),
        )
    }
}

fn number(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}

fn count(items: usize) -> f64 {
    u64::try_from(items).map_or(f64::INFINITY, float)
}

/// What is counted here is far from where that loses anything.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes stay below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
