//! From core's view to the contract's messages. Pure, but for facts and figures that others keep.

use std::{
    cell::OnceCell,
    collections::HashMap,
    path::{Path, PathBuf},
};

use prost_types::Timestamp;
use supervisor_core::{
    event::{self, ExitStatus},
    failover::Standing,
    ids::{ConfigId, Name},
    instance::{Instance, Phase},
    ladder::{Purpose, Rung},
    ports::Block,
    record::{Record, Wish},
    time::Moment,
    view::{Role, View},
};
use supervisor_proto::{
    v1::{self, exit::How},
    worker,
};

use super::{
    facts::Facts,
    story::{self, Telling},
};
use crate::{
    events::Event, figures::Figures, logs::Line, openclaw::layout::Directories, recycle::Recycler,
    walls::Standings,
};

/// Offset of the browser control port in a block.
const BROWSER_CONTROL: u32 = 2;
/// Offset of the canvas port in a block.
const CANVAS: u32 = 4;
/// Offset of the first CDP port in a block; the others follow to its end.
const CDP: u32 = 11;
/// The signal by which the kernel kills when memory is short; signal(7).
const SIGKILL: i32 = 9;

/// What instances are converted from.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    view: &'a View,
    facts: &'a Facts,
    figures: &'a Figures,
    recycler: &'a Recycler,
    walls: &'a Standings,
    extent: Extent,
    /// Who may stand in for whom, by primary; worked out once if many are asked for.
    rescuers: OnceCell<HashMap<&'a Name, Vec<&'a Name>>>,
}

/// How many instances will be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// One or two.
    Few,
    /// Most of them.
    Many,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        view: &'a View,
        facts: &'a Facts,
        (figures, recycler, walls): (&'a Figures, &'a Recycler, &'a Standings),
        extent: Extent,
    ) -> Self {
        Self { view, facts, figures, recycler, walls, extent, rescuers: OnceCell::new() }
    }

    fn rescued_by(&self, primary: &'a Name) -> Vec<&'a Name> {
        match self.extent {
            Extent::Few => self.view.rescues_of(primary).map(Instance::name).collect(),
            Extent::Many => {
                self.rescuers.get_or_init(|| rescuers(self.view)).get(primary).cloned().unwrap_or_default()
            }
        }
    }

    /// An instance as the contract has it.
    pub(super) fn instance(&self, instance: &'a Instance) -> v1::Instance {
        let record = instance.record();
        let fact = self.facts.of(self.view, instance);
        let places = self.facts.directories(instance, &fact);
        let status = self.status(instance, &places.config);
        v1::Instance {
            name: record.name.to_string(),
            spec: Some(fact.message.clone()),
            etag: etag(record),
            status: Some(v1::InstanceStatus {
                runtime: fact.runtime.into(),
                runtime_note: fact.note.to_string(),
                directories: Some(directories(places)),
                ..status
            }),
        }
    }

    /// Without what only the shell knows.
    fn status(&self, instance: &'a Instance, config: &Path) -> v1::InstanceStatus {
        let record = instance.record();
        let rescued_by = self.rescued_by(instance.name());
        let role = self.view.role_given(instance, || !rescued_by.is_empty());
        let telling = Telling { view: self.view, instance, role, config };
        let process = instance.process();
        let figure = process.and_then(|_| self.figures.known(instance.name(), instance.incarnation()));
        v1::InstanceStatus {
            phase: phase(instance).into(),
            wish: wish(record.wish).into(),
            reason: telling.reason(),
            hint: telling.hint(),
            phase_time: Some(timestamp(instance.since())),
            trouble_time: instance.restarts().since().map(timestamp),
            incarnation: instance.incarnation().0,
            ports: Some(ports(record.block)),
            pid: process.map_or(0, |process| process.pid),
            worker_pid: process.map_or(0, |process| process.worker_pid),
            start_time: process.map(|process| timestamp(process.started)),
            restarts: instance.restarts().total(),
            last_exit: instance.last_exit().map(exit),
            health: process.map(|_| health(instance)),
            resources: figure.map(|figure| v1::Resources {
                cpu_percent: figure.cpu_percent,
                rss_bytes: figure.rss_bytes,
                processes: figure.processes,
                rss_growth_bytes_per_hour: figure.growth,
                recycle: self.recycler.waits(instance.name(), instance.incarnation()),
            }),
            failover: Some(self.failover(instance, role, &rescued_by)),
            next_start_time: instance.next_start().map(timestamp),
            generation: record.generation,
            observed_generation: process.map_or(0, |_| instance.observed_generation()),
            revision: instance.changed().0,
            settled: instance.settled(),
            create_time: Some(timestamp(record.created)),
            config: Some(self::config(instance)),
            ladder: Some(ladder(instance)),
            walls: process.map(|_| self.walls_of(instance)).unwrap_or_default(),
            ..v1::InstanceStatus::default()
        }
    }

    fn walls_of(&self, instance: &Instance) -> Vec<v1::WallStatus> {
        let standing = self.walls.of(instance.name(), instance.incarnation());
        standing.iter().map(wall).collect()
    }

    fn failover(&self, instance: &Instance, role: Role, rescued_by: &[&Name]) -> v1::FailoverStatus {
        let name = instance.name();
        let own = || if *instance.phase() == Phase::Ready { name.to_string() } else { String::new() };
        let active = match (&instance.record().standing, rescued_by.is_empty()) {
            (Standing::Own, true) => String::new(),
            (Standing::Own, false) | (Standing::Promoting(_), _) => own(),
            (Standing::Away(by), _) => by.rescue.to_string(),
        };
        let mine = instance.record().standing.stand_in().map(|by| by.incident.since);
        let others = self.view.stands_in_for(instance).map(|(_, by)| by.incident.since).min();
        v1::FailoverStatus {
            role: self::role(role).into(),
            active,
            rescued_by: rescued_by.iter().map(ToString::to_string).collect(),
            active_for: self
                .view
                .stands_in_for(instance)
                .map(|(primary, _)| primary.name().to_string())
                .collect(),
            since: mine.or(others).map(timestamp),
            reason: story::incident(self.view, instance),
        }
    }
}

fn rescuers(view: &View) -> HashMap<&Name, Vec<&Name>> {
    let mut rescuers: HashMap<&Name, Vec<&Name>> = HashMap::new();
    for rescue in view.instances.values() {
        for primary in &rescue.policy().rescues {
            rescuers.entry(primary).or_default().push(rescue.name());
        }
    }
    rescuers
}

/// Changes whenever the spec changes, and with the instance itself: one that was deleted and created anew
/// begins at generation 1 again.
pub(super) fn etag(record: &Record) -> String {
    format!("{:x}-{:x}", record.generation, record.created.0)
}

pub(super) fn timestamp(moment: Moment) -> Timestamp {
    timestamp_ns(moment.0)
}

pub(super) fn timestamp_ns(unix_ns: u64) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    let nanos = i32::try_from(unix_ns % SECOND).unwrap_or(0);
    Timestamp { seconds: i64::try_from(unix_ns / SECOND).unwrap_or(i64::MAX), nanos }
}

pub(super) fn phase(instance: &Instance) -> v1::Phase {
    match instance.phase() {
        Phase::Spawning | Phase::Starting if instance.purpose() == Purpose::Repair => v1::Phase::Repairing,
        Phase::Stopped => v1::Phase::Stopped,
        Phase::Adopting => v1::Phase::Adopting,
        Phase::Spawning => v1::Phase::Spawning,
        Phase::Starting => v1::Phase::Starting,
        Phase::Ready => v1::Phase::Ready,
        Phase::Unhealthy => v1::Phase::Unhealthy,
        Phase::Stopping { .. } => v1::Phase::Stopping,
        Phase::Backoff { .. } => v1::Phase::Backoff,
        Phase::Failed { .. } => v1::Phase::Failed,
    }
}

fn wish(wish: Wish) -> v1::Wish {
    match wish {
        Wish::Up => v1::Wish::Up,
        Wish::Down => v1::Wish::Down,
    }
}

pub(super) fn role(role: Role) -> v1::Role {
    match role {
        Role::Single => v1::Role::Single,
        Role::Primary => v1::Role::Primary,
        Role::Rescued => v1::Role::Rescued,
        Role::Standby => v1::Role::Standby,
        Role::Promoting => v1::Role::Promoting,
        Role::Active => v1::Role::Active,
    }
}

fn ports(block: Block) -> v1::PortBlock {
    let base = u32::from(block.base);
    v1::PortBlock {
        base,
        gateway: base,
        browser_control: base + BROWSER_CONTROL,
        canvas: base + CANVAS,
        cdp_first: base + CDP,
        cdp_last: u32::from(block.last()),
        last: u32::from(block.last()),
    }
}

/// The ports of a block that have a purpose, and what it is.
pub(super) fn purposes(block: Block) -> Vec<(u32, &'static str)> {
    let base = u32::from(block.base);
    let named = [(base, "gateway"), (base + BROWSER_CONTROL, "browser-control"), (base + CANVAS, "canvas")];
    let cdp = (base + CDP..=u32::from(block.last())).map(|port| (port, "cdp"));
    named.into_iter().chain(cdp).collect()
}

fn exit(exit: &event::Exit) -> v1::Exit {
    let (how, core_dumped) = match exit.status {
        ExitStatus::Code(code) => (How::Code(code), false),
        ExitStatus::Signal { number, core } => (How::Signal(number), core),
        ExitStatus::OutOfMemory => (How::Signal(SIGKILL), false),
        ExitStatus::Unknown => (How::Unknown("its worker died, too".into()), false),
    };
    v1::Exit {
        incarnation: exit.incarnation.0,
        how: Some(how),
        core_dumped,
        time: Some(timestamp(exit.at)),
        message: exit.to_string(),
        out_of_memory: exit.status == ExitStatus::OutOfMemory,
    }
}

fn health(instance: &Instance) -> v1::Health {
    let health = instance.health();
    let (live_failures, ready_failures) = health.failures();
    v1::Health {
        live: live_failures == 0,
        ready: *instance.phase() == Phase::Ready,
        failing: Vec::new(),
        message: health.message().into(),
        consecutive_failures: live_failures.max(ready_failures),
    }
}

fn config(instance: &Instance) -> v1::ConfigStatus {
    let trial = &instance.record().trial;
    let named = |content: Option<ConfigId>| content.map(String::from).unwrap_or_default();
    let seen = instance.seen();
    v1::ConfigStatus {
        content: named(seen.and_then(|seen| seen.content)),
        running: named(instance.process().and_then(|_| trial.running(instance.incarnation()))),
        good: named(trial.good()),
        problem: seen.and_then(|seen| seen.problem.clone()).unwrap_or_default(),
        degraded: trial.degraded(),
        rejected: trial.rejected().last().map(|rejection| v1::ConfigRejection {
            content: rejection.content.into(),
            time: Some(timestamp(rejection.at)),
            reason: rejection.why.clone(),
        }),
    }
}

fn ladder(instance: &Instance) -> v1::LadderStatus {
    use v1::ladder_status::Rung as R;
    let ladder = &instance.record().ladder;
    let rung = match ladder.rung() {
        Rung::Restart | Rung::Repair | Rung::RollBack if instance.record().quarantined.is_some() => {
            R::Quarantine
        }
        Rung::Restart => R::Restart,
        Rung::Repair => R::Repair,
        Rung::RollBack => R::RollBack,
    };
    v1::LadderStatus { rung: rung.into(), deaths: ladder.deaths(), held: instance.policy().ladder.held }
}

/// The kinds and states of the contract have the numbers of the worker's; a test holds them to it.
fn wall(wall: &worker::Wall) -> v1::WallStatus {
    v1::WallStatus { kind: wall.kind, state: wall.state, reason: wall.reason.clone() }
}

fn directories(directories: Directories) -> v1::Directories {
    let text = |path: PathBuf| {
        path.into_os_string().into_string().unwrap_or_else(|path| path.to_string_lossy().into_owned())
    };
    v1::Directories {
        config: text(directories.config),
        state: text(directories.state),
        workspace: text(directories.workspace),
        home: text(directories.home),
        tmp: text(directories.tmp),
        logs: text(directories.logs),
    }
}

/// An event of the journal.
pub(super) fn event(event: Event) -> v1::Event {
    v1::Event {
        revision: event.revision,
        time: Some(timestamp_ns(event.unix_ns)),
        instance: event.instance,
        incarnation: event.incarnation,
        r#type: event.kind,
        severity: event.severity,
        message: event.message,
    }
}

/// A line of a log.
pub(super) fn line(line: Line) -> v1::LogLine {
    v1::LogLine {
        cursor: line.cursor.to_string(),
        text: line.text,
        time: line.unix_ms.map(|unix_ms| timestamp_ns(unix_ms.saturating_mul(1_000_000))),
        incarnation: line.incarnation,
        gap_bytes: line.gap_bytes,
    }
}

/// Since when, in milliseconds since the Unix epoch. What is before it is the beginning.
pub(super) fn unix_ms(time: &Timestamp) -> u64 {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let nanos = u64::try_from(time.nanos).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use supervisor_proto::{
        v1::wall_status,
        worker::wall::{Kind, State},
    };

    #[test]
    fn a_wall_is_called_by_the_api_what_the_worker_calls_it() {
        for number in 0..=i32::from(u8::MAX) {
            let kinds = (Kind::try_from(number), wall_status::Kind::try_from(number));
            let names = (kinds.0.map(|kind| kind.as_str_name()), kinds.1.map(|kind| kind.as_str_name()));
            assert_eq!(names.0.ok(), names.1.ok());
            let states = (State::try_from(number), wall_status::State::try_from(number));
            let names =
                (states.0.map(|state| state.as_str_name()), states.1.map(|state| state.as_str_name()));
            assert_eq!(names.0.ok(), names.1.ok());
        }
    }
}
