//! The daemon's own settings: `settings.yaml` in its data directory.
//!
//! The file may be missing, and every field may be left out. It is refused as a whole, with line, column and
//! mend, like a fleet file.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use supervisor_core::ports::{BLOCK, Block, Pool};

use crate::{
    fleet::PoolText,
    problem::{Place, Problem},
    spec::Span,
    yaml::{self, Fault},
};

/// The file's name in the data directory.
pub const FILE: &str = "settings.yaml";

/// How many instances one supervisor is known to bear.
const MAX_INSTANCES: u32 = 2_000;
/// No wish for more is believed; the ports alone end at about 3,200.
const MOST_INSTANCES: u32 = 3_000;
/// Events kept: weeks of a busy fleet, in about 50 MiB.
const KEEP_EVENTS: u64 = 200_000;
/// How long events are kept.
const KEEP_EVENTS_FOR: Duration = Duration::from_secs(90 * 24 * 3600);
/// Ten years: more is a mistake of unit.
const MOST_KEEP_FOR: Duration = Duration::from_secs(3_653 * 24 * 3600);

/// The settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The ports that blocks are taken from.
    pub pool: Pool,
    /// The most instances.
    pub max_instances: u32,
    /// How many events are kept.
    pub keep_events: u64,
    /// How long events are kept.
    pub keep_events_for: Duration,
    /// What the supervisor says about itself.
    pub log_level: LogLevel,
}

/// What the supervisor says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// And what may need one.
    Warn,
    /// And what was done.
    Info,
    /// And why.
    Debug,
    /// And how.
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// The settings cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The system refused.
    #[error("failed to read the settings `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is wrong.
    #[error("{}", sentences(.0))]
    Wrong(Vec<Problem>),
}

fn sentences(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    pool: Option<PoolText>,
    max_instances: Option<u32>,
    events: Events,
    log_level: Option<LogLevel>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Events {
    keep: Option<u64>,
    keep_for: Option<Span>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pool: Pool::default(),
            max_instances: MAX_INSTANCES,
            keep_events: KEEP_EVENTS,
            keep_events_for: KEEP_EVENTS_FOR,
            log_level: LogLevel::Info,
        }
    }
}

/// The settings of the supervisor on `data_dir`.
pub fn load(data_dir: &Path) -> Result<Settings, SettingsError> {
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Settings::parse(&text, &path.to_string_lossy()).map_err(SettingsError::Wrong),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
        Err(source) => Err(SettingsError::Read { path, source }),
    }
}

impl Settings {
    /// Reads a settings file. `file_name` is only for the problems.
    pub fn parse(content: &str, file_name: &str) -> Result<Self, Vec<Problem>> {
        let refuse = |faults: Vec<Fault>| -> Vec<Problem> {
            faults.iter().map(|fault| fault.problem(file_name, content)).collect()
        };
        let tree = yaml::parse(content).map_err(|fault| refuse(vec![fault]))?;
        let file: File = tree.read().map_err(|fault| refuse(vec![fault]))?;
        let settings = Self::from(&file);
        let faults: Vec<Fault> = settings
            .faults()
            .into_iter()
            .map(|(path, message, mend)| {
                let place = tree.find(path.iter().copied()).unwrap_or(Place::START);
                path.iter().rev().fold(Fault::new(place, message, mend), |fault, key| fault.within(key))
            })
            .collect();
        if faults.is_empty() { Ok(settings) } else { Err(refuse(faults)) }
    }

    /// Values that no supervisor could work with.
    fn faults(&self) -> Vec<(&'static [&'static str], String, String)> {
        let mut faults: Vec<(&'static [&'static str], String, String)> = Vec::new();
        let Pool { first, last } = self.pool;
        if first < 1024 || !Block::at(first).is_some_and(|block| self.pool.contains(block)) {
            let message = format!("no block of {BLOCK} ports fits between {first} and {last}");
            faults.push((
                &["pool"],
                message,
                "choose `first` from 1024 on and `last` at least 19 above it".into(),
            ));
        }
        if !(1..=MOST_INSTANCES).contains(&self.max_instances) {
            let message = format!("{} is out of bounds", self.max_instances);
            faults.push((&["max_instances"], message, format!("choose 1 to {MOST_INSTANCES}")));
        }
        if !(1_000..=100_000_000).contains(&self.keep_events) {
            let message = format!("{} is out of bounds", self.keep_events);
            faults.push((&["events", "keep"], message, "choose 1000 to 100000000".into()));
        }
        if self.keep_events_for < Duration::from_secs(3600) || self.keep_events_for > MOST_KEEP_FOR {
            let message = format!("{} is out of bounds", Span(self.keep_events_for));
            faults.push((&["events", "keep_for"], message, "choose 1h to 3653d".into()));
        }
        faults
    }

    /// What is allowed but may surprise, a sentence each. `ephemeral` is the range that the kernel takes the
    /// ports of outgoing connections from.
    #[must_use]
    pub fn warnings(&self, ephemeral: Option<(u16, u16)>) -> Vec<String> {
        let Pool { first, last } = self.pool;
        match ephemeral {
            Some((from, to)) if first <= to && from <= last => vec![format!(
                "the port pool {first} to {last} overlaps {from} to {to}, from which the kernel takes the ports \
                 of outgoing connections: any of them may take a gateway's port; end the pool at {} or move the range with \
                 `sysctl net.ipv4.ip_local_port_range`",
                from.saturating_sub(1)
            )],
            Some(_) | None => Vec::new(),
        }
    }

    /// The settings as a file, with all defaults filled in.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(&File {
            pool: Some(self.pool.into()),
            max_instances: Some(self.max_instances),
            events: Events { keep: Some(self.keep_events), keep_for: Some(Span(self.keep_events_for)) },
            log_level: Some(self.log_level),
        })
    }

    /// What is different in `newer`, a sentence each.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        let pool = |pool: Pool| format!("{} to {}", pool.first, pool.last);
        [
            ("pool", pool(self.pool), pool(newer.pool)),
            ("max_instances", self.max_instances.to_string(), newer.max_instances.to_string()),
            ("events.keep", self.keep_events.to_string(), newer.keep_events.to_string()),
            (
                "events.keep_for",
                Span(self.keep_events_for).to_string(),
                Span(newer.keep_events_for).to_string(),
            ),
            ("log_level", self.log_level.to_string(), newer.log_level.to_string()),
        ]
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(field, old, new)| format!("`{field}` was {old} and is {new}"))
        .collect()
    }
}

impl From<&File> for Settings {
    fn from(file: &File) -> Self {
        let default = Self::default();
        Self {
            pool: file.pool.map_or(default.pool, Pool::from),
            max_instances: file.max_instances.unwrap_or(default.max_instances),
            keep_events: file.events.keep.unwrap_or(default.keep_events),
            keep_events_for: file.events.keep_for.map_or(default.keep_events_for, |span| span.0),
            log_level: file.log_level.unwrap_or(default.log_level),
        }
    }
}

/// The range that the kernel takes the ports of outgoing connections from (ip(7)); `None` where it cannot be
/// read.
#[must_use]
pub fn ephemeral_ports() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map(str::parse);
    Some((ports.next()?.ok()?, ports.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        let problems = Settings::parse(text, "settings.yaml").unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems[0].clone()
    }

    #[test]
    fn without_a_file_the_defaults_are_in_force() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(load(data.path()).unwrap(), Settings::default());
        fs::write(data.path().join(FILE), "# nothing yet\n").unwrap();
        assert_eq!(load(data.path()).unwrap(), Settings::default());
        fs::write(data.path().join(FILE), [0xff]).unwrap();
        assert!(matches!(load(data.path()), Err(SettingsError::Read { .. })));
        fs::write(data.path().join(FILE), "pool: 5\n").unwrap();
        let refused = load(data.path()).unwrap_err().to_string();
        assert!(refused.contains("settings.yaml:1:7"), "{refused}");
    }

    #[test]
    fn the_settings_in_force_are_a_file_that_sets_them() {
        let text = "pool: {first: 20000, last: 21000}\nmax_instances: 10\nevents: {keep: 5000, keep_for: 30d}\nlog_level: debug\n";
        let settings = Settings::parse(text, "").unwrap();
        assert_eq!(settings.pool, Pool { first: 20_000, last: 21_000 });
        assert_eq!(Settings::parse(&settings.to_yaml().unwrap(), ""), Ok(settings.clone()));
        assert_eq!(Settings::default().changes(&settings)[1], "`max_instances` was 2000 and is 10");
        assert_eq!(settings.changes(&settings), [""; 0]);
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        let unknown = problem("events:\n  kepp: 5\n");
        assert_eq!(
            (unknown.place.to_string().as_str(), unknown.mend.as_str()),
            ("2:3", "did you mean `keep`?")
        );
        for (text, place) in [
            ("max_instances: 0\n", "1:16"),
            ("max_instances: many\n", "1:16"),
            ("pool: {first: 100, last: 200}\n", "1:1"),
            ("pool: {first: 20000, last: 20010}\n", "1:1"),
            ("log_level: info\nevents: {keep_for: 5s}\n", "2:20"),
            ("log_level: loud\n", "1:12"),
        ] {
            assert_eq!(problem(text).place.to_string(), place, "{text}");
        }
    }

    #[test]
    fn a_pool_in_the_ephemeral_range_is_warned_of() {
        let settings = Settings::parse("pool: {first: 30000, last: 40000}\n", "").unwrap();
        assert_eq!(settings.warnings(Some((32_768, 60_999))).len(), 1);
        assert!(settings.warnings(Some((32_768, 60_999)))[0].contains("end the pool at 32767"));
        assert_eq!(Settings::default().warnings(Some((32_768, 60_999))), [""; 0]);
        assert_eq!(settings.warnings(None), [""; 0]);
        assert!(ephemeral_ports().is_some_and(|(from, to)| from < to));
    }
}
