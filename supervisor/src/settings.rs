//! The daemon's own settings: `settings.yaml` in its data directory.
//!
//! The file may be missing, and every field may be left out. It is refused as a whole, with line, column and
//! mend, like a fleet file.

pub mod access;
pub mod alerts;
pub mod listen;

use std::{
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use supervisor_core::ports::{BLOCK, Block, Pool};

use access::Binding;
use alerts::Alerts;
use listen::Listen;

use crate::{
    fleet::PoolText,
    logging::LogFormat,
    problem::{Place, Problem},
    spec::Span,
    web::{self, is_fit},
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
/// Entries of the audit kept: years of what people do, in about 15 MiB.
const KEEP_AUDIT: u64 = 50_000;
/// How long entries of the audit are kept.
const KEEP_AUDIT_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
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
    /// How many calls of those who may call are kept in the audit.
    pub keep_audit: u64,
    /// How long calls are kept in the audit.
    pub keep_audit_for: Duration,
    /// What the supervisor says about itself.
    pub log_level: LogLevel,
    /// How it says that.
    pub log_format: LogFormat,
    /// Where the API is served beside `control.sock`.
    pub listen: Vec<Listen>,
    /// Where the dashboard is served, if it is: on loopback.
    pub web: Option<SocketAddr>,
    /// The collector that traces are told to, if any.
    pub traces: Option<String>,
    /// Who is told when something goes wrong.
    pub alerts: Alerts,
    /// Who has which role, beside the supervisor's own user and root.
    pub access: Vec<Binding>,
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
    events: Kept,
    audit: Kept,
    log_level: Option<LogLevel>,
    log_format: Option<LogFormat>,
    listen: Vec<listen::Text>,
    web: Option<String>,
    traces: Option<String>,
    alerts: alerts::Text,
    access: Vec<access::Text>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Kept {
    keep: Option<u64>,
    keep_for: Option<Span>,
}

/// What is wrong with a field, and what to do about it.
struct Wrong {
    /// Outermost key first; items of lists as `[n]`.
    path: Vec<String>,
    message: String,
    mend: String,
}

impl Wrong {
    fn at<P: Into<String>>(
        path: impl IntoIterator<Item = P>,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        let path = path.into_iter().map(Into::into).collect();
        Self { path, message: message.into(), mend: mend.into() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pool: Pool::default(),
            max_instances: MAX_INSTANCES,
            keep_events: KEEP_EVENTS,
            keep_events_for: KEEP_EVENTS_FOR,
            keep_audit: KEEP_AUDIT,
            keep_audit_for: KEEP_AUDIT_FOR,
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            listen: Vec::new(),
            web: None,
            traces: None,
            alerts: Alerts::default(),
            access: Vec::new(),
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
        let mut wrong = Vec::new();
        let settings = Self::of(&file, &mut wrong);
        settings.judge(&mut wrong);
        let mut faults: Vec<Fault> = wrong
            .into_iter()
            .map(|Wrong { path, message, mend }| {
                let place = tree.find(path.iter().map(String::as_str)).unwrap_or(Place::START);
                path.iter().rev().fold(Fault::new(place, message, mend), |fault, key| fault.within(key))
            })
            .collect();
        faults.sort_by_key(|fault| fault.place);
        if faults.is_empty() { Ok(settings) } else { Err(refuse(faults)) }
    }

    /// Values that no supervisor could work with.
    fn judge(&self, wrong: &mut Vec<Wrong>) {
        let Pool { first, last } = self.pool;
        if first < 1024 || !Block::at(first).is_some_and(|block| self.pool.contains(block)) {
            let message = format!("no block of {BLOCK} ports fits between {first} and {last}");
            let mend = "choose `first` from 1024 on and `last` at least 19 above it";
            wrong.push(Wrong::at(["pool"], message, mend));
        }
        if !(1..=MOST_INSTANCES).contains(&self.max_instances) {
            let message = format!("{} is out of bounds", self.max_instances);
            wrong.push(Wrong::at(["max_instances"], message, format!("choose 1 to {MOST_INSTANCES}")));
        }
        let kept = [
            ("events", self.keep_events, self.keep_events_for, 100_000_000),
            ("audit", self.keep_audit, self.keep_audit_for, 1_000_000),
        ];
        for (what, keep, keep_for, most) in kept {
            if !(1_000..=most).contains(&keep) {
                let message = format!("{keep} is out of bounds");
                wrong.push(Wrong::at([what, "keep"], message, format!("choose 1000 to {most}")));
            }
            if keep_for < Duration::from_secs(3600) || keep_for > MOST_KEEP_FOR {
                let message = format!("{} is out of bounds", Span(keep_for));
                wrong.push(Wrong::at([what, "keep_for"], message, "choose 1h to 3653d"));
            }
        }
    }

    /// What is allowed but may surprise, a sentence each. `ephemeral` is the range that the kernel takes the
    /// ports of outgoing connections from.
    #[must_use]
    pub fn warnings(&self, ephemeral: Option<(u16, u16)>) -> Vec<String> {
        let Some((from, to)) = ephemeral else { return Vec::new() };
        let Pool { first, last } = self.pool;
        let pool = (first <= to && from <= last).then(|| {
            format!(
                "the port pool {first} to {last} overlaps {from} to {to}, from which the kernel takes the ports \
                 of outgoing connections: any of them may take a gateway's port; end the pool at {} or move the range with \
                 `sysctl net.ipv4.ip_local_port_range`",
                from.saturating_sub(1)
            )
        });
        let web = self.web.filter(|web| (from..=to).contains(&web.port())).map(|web| {
            format!(
                "the dashboard's port {} lies in {from} to {to}, from which the kernel takes the ports of outgoing \
                 connections: any of them may have it when it is to be opened; choose one below {from}",
                web.port()
            )
        });
        pool.into_iter().chain(web).collect()
    }

    /// The settings as a file, with all defaults filled in.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(&File {
            pool: Some(self.pool.into()),
            max_instances: Some(self.max_instances),
            events: Kept { keep: Some(self.keep_events), keep_for: Some(Span(self.keep_events_for)) },
            audit: Kept { keep: Some(self.keep_audit), keep_for: Some(Span(self.keep_audit_for)) },
            log_level: Some(self.log_level),
            log_format: Some(self.log_format),
            listen: self.listen.iter().map(listen::Text::from).collect(),
            web: self.web.map(|address| address.to_string()),
            traces: self.traces.clone(),
            alerts: alerts::Text::from(&self.alerts),
            access: self.access.iter().map(access::Text::from).collect(),
        })
    }

    /// What is different in `newer`, a sentence each.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        let pool = |pool: Pool| format!("{} to {}", pool.first, pool.last);
        let span = |duration| Span(duration).to_string();
        [
            ("pool", pool(self.pool), pool(newer.pool)),
            ("max_instances", self.max_instances.to_string(), newer.max_instances.to_string()),
            ("events.keep", self.keep_events.to_string(), newer.keep_events.to_string()),
            ("events.keep_for", span(self.keep_events_for), span(newer.keep_events_for)),
            ("audit.keep", self.keep_audit.to_string(), newer.keep_audit.to_string()),
            ("audit.keep_for", span(self.keep_audit_for), span(newer.keep_audit_for)),
            ("log_level", self.log_level.to_string(), newer.log_level.to_string()),
            ("log_format", self.log_format.to_string(), newer.log_format.to_string()),
            ("listen", listed(&self.listen), listed(&newer.listen)),
            ("web", listed(self.web.as_slice()), listed(newer.web.as_slice())),
            ("traces", listed(self.traces.as_slice()), listed(newer.traces.as_slice())),
            ("access", listed(&self.access), listed(&newer.access)),
        ]
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(field, old, new)| format!("`{field}` was {old} and is {new}"))
        // Who knows where alerts go may be able to send some.
        .chain((self.alerts != newer.alerts).then(|| "`alerts` is another".to_owned()))
        .collect()
    }
}

/// Where the collector of traces is.
fn traces(text: &str, wrong: &mut Vec<Wrong>) -> Option<String> {
    let uri: Option<http::Uri> = text.parse().ok();
    if uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some()) {
        return Some(text.to_owned());
    }
    let message = format!("`{text}` is not the URL of a collector that speaks OTLP by gRPC");
    let mend = "write \"http://127.0.0.1:4317\"; a collector on this host tells others by TLS";
    wrong.push(Wrong::at(["traces"], message, mend));
    None
}

/// Where the dashboard is to be served.
fn web(text: &str, wrong: &mut Vec<Wrong>) -> Option<SocketAddr> {
    let mend = format!("write \"127.0.0.1:{}\", and reach it from elsewhere by `ssh -L`", web::USUAL);
    let found: Option<SocketAddr> = text.parse().ok();
    let message = match found {
        Some(address) if is_fit(address) => return found,
        Some(address) => format!("the dashboard is served on 127.0.0.1 or [::1], and {address} is neither"),
        None => format!("`{text}` is not an address with a port"),
    };
    wrong.push(Wrong::at(["web"], message, mend));
    None
}

impl Settings {
    fn of(file: &File, wrong: &mut Vec<Wrong>) -> Self {
        let default = Self::default();
        let span = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        Self {
            pool: file.pool.map_or(default.pool, Pool::from),
            max_instances: file.max_instances.unwrap_or(default.max_instances),
            keep_events: file.events.keep.unwrap_or(default.keep_events),
            keep_events_for: span(file.events.keep_for, default.keep_events_for),
            keep_audit: file.audit.keep.unwrap_or(default.keep_audit),
            keep_audit_for: span(file.audit.keep_for, default.keep_audit_for),
            log_level: file.log_level.unwrap_or(default.log_level),
            log_format: file.log_format.unwrap_or(default.log_format),
            listen: listen::read(&file.listen, wrong),
            web: file.web.as_deref().and_then(|text| web(text, wrong)),
            traces: file.traces.as_deref().and_then(|text| traces(text, wrong)),
            alerts: alerts::read(&file.alerts, wrong),
            access: access::read(&file.access, wrong),
        }
    }
}

/// A list in one sentence.
fn listed(items: &[impl fmt::Display]) -> String {
    match items {
        [] => "empty".into(),
        _ => format!("[{}]", items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
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
mod tests;
