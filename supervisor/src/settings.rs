//! The daemon's own settings: `settings.yaml` in its data directory.
//!
//! The file may be missing, and every field may be left out. It is refused as a whole, with line, column and
//! mend, like a fleet file.

pub mod access;
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
use listen::Listen;

use crate::{
    fleet::PoolText,
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
    /// Where the API is served beside `control.sock`.
    pub listen: Vec<Listen>,
    /// Where the dashboard is served, if it is: on loopback.
    pub web: Option<SocketAddr>,
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
    listen: Vec<listen::Text>,
    web: Option<String>,
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
            listen: Vec::new(),
            web: None,
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
            events: Kept { keep: Some(self.keep_events), keep_for: Some(Span(self.keep_events_for)) },
            audit: Kept { keep: Some(self.keep_audit), keep_for: Some(Span(self.keep_audit_for)) },
            log_level: Some(self.log_level),
            listen: self.listen.iter().map(listen::Text::from).collect(),
            web: self.web.map(|address| address.to_string()),
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
            ("listen", listed(&self.listen), listed(&newer.listen)),
            ("web", listed(self.web.as_slice()), listed(newer.web.as_slice())),
            ("access", listed(&self.access), listed(&newer.access)),
        ]
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(field, old, new)| format!("`{field}` was {old} and is {new}"))
        .collect()
    }
}

/// Where the dashboard is to be served.
fn web(text: &str, wrong: &mut Vec<Wrong>) -> Option<SocketAddr> {
    let mend = format!("write \"127.0.0.1:{}\", and reach it from elsewhere by `ssh -L`", web::USUAL);
    let found: Option<SocketAddr> = text.parse().ok();
    let message = match found {
        Some(address) if is_fit(address) => return found,
        Some(address) => format!("the dashboard is served on loopback only, and {address} is not there"),
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
            listen: listen::read(&file.listen, wrong),
            web: file.web.as_deref().and_then(|text| web(text, wrong)),
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
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        let problems = Settings::parse(text, "settings.yaml").unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems[0].clone()
    }

    #[test]
    fn the_shipped_file_has_every_setting_with_its_default() {
        let shipped = include_str!("../../deploy/settings.yaml");
        assert_eq!(Settings::parse(shipped, "settings.yaml").unwrap(), Settings::default());
        let File { pool, max_instances, events, audit, log_level, listen, web, access } =
            serde_yaml::from_str(shipped).unwrap();
        assert!(pool.is_some() && max_instances.is_some() && log_level.is_some());
        assert!([events, audit].iter().all(|kept| kept.keep.is_some() && kept.keep_for.is_some()));
        assert!(listen.is_empty() && web.is_none() && access.is_empty());
        // What stands behind `#  ` is taken, too.
        let examples = shipped.replace(": []\n", ":\n").replace("\n#  ", "\n  ");
        let settings = Settings::parse(&examples, "settings.yaml").unwrap();
        assert_eq!((settings.listen.len(), settings.access.len()), (2, 5));
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
    fn who_may_call_and_where_is_read_and_written_again() {
        let text = "listen:\n- {unix: /run/a.sock, mode: '0666'}\n- {unix: /run/b.sock, group: ops}\n\
                    - {unix: /run/c.sock, group: 100}\n- {unix: /run/d.sock}\n- {tcp: '[::1]:7443'}\n\
                    access:\n- {uid: 7, role: viewer}\n- {user: alice, role: operator}\n\
                    - {gid: 8, role: viewer}\n- {group: ops, role: admin}\n\
                    - {certificate: ci, role: operator}\n\
                    - {token_file: /srv/a.token, role: rescue, instance: rescue}\n\
                    audit: {keep: 2000, keep_for: 7d}\n";
        let settings = Settings::parse(text, "").unwrap();
        assert_eq!(Settings::parse(&settings.to_yaml().unwrap(), ""), Ok(settings.clone()));
        let told: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        let sockets =
            ["/run/a.sock (0666)", "/run/b.sock (0660, group ops)", "/run/c.sock (0660, group 100)"];
        assert_eq!(told[..3], sockets);
        assert_eq!(told[3..], ["/run/d.sock (0600)", "[::1]:7443"]);
        let told: Vec<String> = settings.access.iter().map(ToString::to_string).collect();
        assert_eq!(told[0], "uid 7: viewer");
        assert_eq!(told[5], "token_file /srv/a.token: rescue of `rescue`");
        assert_eq!(
            Settings::default().changes(&Settings { access: settings.access, ..Settings::default() }).len(),
            1
        );
    }

    #[test]
    fn a_role_that_cannot_be_given_and_a_place_that_cannot_be_served_are_refused_where_they_stand() {
        for (text, place, field) in [
            ("access:\n- {role: viewer}\n", "2:3", "access[0]"),
            ("access:\n- {uid: 7}\n", "2:3", "access[0]"),
            ("access:\n- {uid: 7, role: root}\n", "2:18", "access[0].role"),
            ("access:\n- {uid: -1, role: viewer}\n", "2:9", "access[0].uid"),
            ("access:\n- {uid: 7, user: a, role: viewer}\n", "2:18", "access[0].user"),
            ("access:\n- {uid: 7, role: rescue}\n", "2:3", "access[0]"),
            ("access:\n- {uid: 7, role: admin, instance: main}\n", "2:35", "access[0].instance"),
            ("access:\n- {uid: 7, role: rescue, instance: Main}\n", "2:36", "access[0].instance"),
            ("access:\n- {user: '', role: viewer}\n", "2:10", "access[0].user"),
            ("access:\n- {token_file: a.token, role: viewer}\n", "2:16", "access[0].token_file"),
            ("access:\n- {token: abc, role: viewer}\n", "2:4", "access[0].token"),
            ("listen:\n- {unix: a.sock}\n", "2:10", "listen[0].unix"),
            ("listen:\n- {unix: /a.sock, mode: 0660}\n", "2:25", "listen[0].mode"),
            ("listen:\n- {unix: /a.sock, mode: '0777'}\n", "2:25", "listen[0].mode"),
            ("listen:\n- {tcp: 'localhost:1'}\n", "2:9", "listen[0].tcp"),
            ("listen:\n- {tcp: '[::]:1', group: ops}\n", "2:26", "listen[0].group"),
            ("listen:\n- {tcp: '[::]:1', unix: /a}\n", "2:9", "listen[0].tcp"),
            ("listen:\n- {unix: /a}\n- {unix: /a, mode: '0666'}\n", "3:3", "listen[1]"),
            ("listen:\n- {}\n", "2:3", "listen[0]"),
            ("audit: {keep: 5}\n", "1:15", "audit.keep"),
        ] {
            let problem = problem(text);
            assert_eq!((problem.place.to_string().as_str(), problem.path.as_str()), (place, field), "{text}");
        }
    }

    #[test]
    fn token_files_of_one_name_are_refused_as_they_would_be_one_caller() {
        let text = "access:\n- {token_file: /srv/a/token, role: admin}\n- {uid: 7, role: viewer}\n\
                    - {token_file: /srv/b/token, role: operator}\n";
        let found = problem(text);
        assert_eq!(
            (found.file.as_str(), found.place.to_string().as_str(), found.path.as_str()),
            ("settings.yaml", "4:16", "access[2].token_file")
        );
        assert_eq!(
            found.message,
            "the file is called as `/srv/a/token` of `access[0]` is, and callers are told apart by that name"
        );
        assert_eq!(found.mend, "`mv /srv/b/token /srv/b/b-token`, and write the new path here");
        // Each that is like the first is told of.
        let third = format!("{text}- {{token_file: /token, role: viewer}}\n");
        let problems = Settings::parse(&third, "settings.yaml").unwrap_err();
        assert_eq!(problems.len(), 2);
        assert_eq!(problems[1].mend, "`mv /token /other-token`, and write the new path here");
        // One file is one caller, whatever roles it is given.
        for other in ["/srv/a/token", "/srv//a/token", "/srv/a/Token", "/srv/b/b.token"] {
            let text = text.replace("/srv/b/token", other);
            assert_eq!(Settings::parse(&text, "").unwrap().access.len(), 3, "{other}");
        }
    }

    #[test]
    fn a_token_file_that_every_instance_could_read_is_refused() {
        let found =
            problem("access:\n- {uid: 7, role: viewer}\n- {token_file: /etc/claw/token, role: admin}\n");
        assert_eq!(found.path, "access[1].token_file");
        assert_eq!(found.message, "every instance may read in `/etc`, and so the token");
        assert!(
            found.mend.starts_with("move the file into the supervisor's data directory"),
            "{}",
            found.mend
        );
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
