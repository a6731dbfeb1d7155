//! What a spec may not ask for.
//!
//! Only what can be seen from the spec alone. What depends on other instances (ports, rescues, directories)
//! is checked where those are known.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Component, Path},
    time::Duration,
};

use supervisor_core::{
    fence::LONGEST_POLL,
    health::OUTCOMES,
    ports::{BLOCK, Block},
};

use super::{
    Check, InstanceSpec, Probe, Probes, Restart, Runtime, Span, memory, probes::FAILURES, recovery, walls,
};

/// No wait asked for is longer: beyond it is a mistake of unit, not a wish.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);
/// The longest stop grace. OpenClaw drains for up to 315 s.
const MAX_GRACE: Duration = Duration::from_secs(3600);
/// The shortest probe interval: below it the probes would be most of what the gateway does.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// The longest probe timeout.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// The most arguments, variables and primaries. Nobody types as many; a generated file may.
pub(super) const MAX_ITEMS: usize = 256;
/// The longest argument or value. Linux allows 128 KiB each (MAX_ARG_STRLEN, execve(2)).
const MAX_TEXT: usize = 32 * 1024;
/// The longest version. Those of npm have 10 to 20 characters; it is part of a file's name.
const MAX_VERSION: usize = 64;
/// The longest path and URL path (PATH_MAX, limits.h).
pub(super) const MAX_PATH: usize = 4096;

/// A step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A field of a group, or a key.
    Field(String),
    /// An item of a list.
    Item(usize),
}

/// Where a field is in a spec: `restart.max_delay`, `rescues[1]`, `env.LANG`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(pub Vec<Step>);

impl FieldPath {
    /// The path of `steps`, each the name of a field.
    #[must_use]
    pub fn of(steps: &[&str]) -> Self {
        Self(steps.iter().map(|step| Step::Field((*step).to_owned())).collect())
    }

    /// This path and one step more.
    #[must_use]
    pub fn item(mut self, index: usize) -> Self {
        self.0.push(Step::Item(index));
        self
    }

    /// Its steps as text; items of lists as `[n]`.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|step| match step {
            Step::Field(name) => name.clone(),
            Step::Item(index) => format!("[{index}]"),
        })
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, step)| match step {
            Step::Field(name) if at == 0 => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Item(index) => write!(f, "[{index}]"),
        })
    }
}

/// A field that holds what it may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub path: FieldPath,
    /// What is wrong: a sentence without its full stop.
    pub message: String,
    /// What to do about it: a sentence without its full stop.
    pub mend: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}; {}", self.path, self.message, self.mend)
    }
}

/// Whether the supervisor sets the variable `name` itself, or keeps it from the gateway.
#[must_use]
pub fn is_supervisors(name: &str) -> bool {
    const PREFIXES: [&str; 6] = ["OPENCLAW_", "OPENCLAWCTL_", "CLAWDBOT_", "RESCUE_", "SYSTEMD_", "LISTEN_"];
    const NAMES: [&str; 11] = [
        "HOME",
        "TMPDIR",
        "PORT",
        "NOTIFY_SOCKET",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "MAINPID",
        "MANAGERPID",
        "FDSTORE",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether it can be a version, and so the end of a directory's name.
#[must_use]
pub fn is_version(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-+_".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.len() <= MAX_VERSION
        && text.bytes().all(fits)
}

#[derive(Default)]
pub(super) struct Checker {
    found: Vec<Violation>,
}

impl Checker {
    pub(super) fn add(&mut self, path: FieldPath, message: impl Into<String>, mend: impl Into<String>) {
        self.found.push(Violation { path, message: message.into(), mend: mend.into() });
    }

    pub(super) fn span(&mut self, path: &[&str], value: Option<Span>, least: Duration, most: Duration) {
        let Some(span) = value else { return };
        if span.0 < least || span.0 > most {
            let (least, most) = (Span(least), Span(most));
            self.add(
                FieldPath::of(path),
                format!("{span} is out of bounds"),
                format!("choose {least} to {most}"),
            );
        }
    }

    pub(super) fn number(&mut self, path: &[&str], value: Option<u64>, least: u64, most: u64) {
        let Some(number) = value else { return };
        if number < least || number > most {
            self.add(
                FieldPath::of(path),
                format!("{number} is out of bounds"),
                format!("choose {least} to {most}"),
            );
        }
    }

    pub(super) fn text(&mut self, path: FieldPath, text: &str, most: usize) {
        // No program can be given a NUL; the others end a line in some YAML readers and not in others.
        if let Some(bad) = text.chars().find(|bad| matches!(bad, '\0' | '\u{85}' | '\u{2028}' | '\u{2029}')) {
            self.add(path, format!("it holds the character U+{:04X}", u32::from(bad)), "remove it");
        } else if text.len() > most {
            self.add(
                path,
                format!("it has {} bytes", text.len()),
                format!("keep it within {most}; use a file"),
            );
        }
    }

    fn ordered(&mut self, path: &[&str], low: Option<Span>, high: Option<Span>, low_name: &str) {
        if let (Some(low), Some(high)) = (low, high)
            && high < low
        {
            let mend = format!("make it at least {low}, or lower `{low_name}`");
            self.add(FieldPath::of(path), format!("{high} is less than `{low_name}`, {low}"), mend);
        }
    }
}

impl InstanceSpec {
    /// Everything that is wrong with this spec, in the order of its fields.
    #[must_use]
    pub fn validate(&self) -> Vec<Violation> {
        let mut checker = Checker::default();
        self.check_program(&mut checker);
        self.check_version(&mut checker);
        self.check_environment(&mut checker);
        self.check_place(&mut checker);
        checker.span(&["rescue", "failback_after"], self.rescue.failback_after, Duration::ZERO, MAX_WAIT);
        check_restart(&self.restart, &mut checker);
        check_probes(&self.probes, &mut checker);
        checker.span(&["stop_grace"], self.stop_grace, Duration::ZERO, MAX_GRACE);
        checker.span(&["poll_expiry"], self.poll_expiry, Duration::ZERO, LONGEST_POLL);
        let bytes = self.log.max_file_bytes.map(|bytes| bytes.0);
        checker.number(&["log", "max_file_bytes"], bytes, 4 << 10, 1 << 40);
        checker.number(&["log", "max_files"], self.log.max_files.map(u64::from), 2, 1_000);
        recovery::check(self, &mut checker);
        memory::check(self, &mut checker);
        walls::check(self, &mut checker);
        checker.found
    }

    fn check_program(&self, checker: &mut Checker) {
        let program = FieldPath::of(&["program"]);
        let runtime = self.runtime.unwrap_or(Runtime::Auto);
        match (&self.program, runtime) {
            (None, Runtime::Command) => {
                checker.add(
                    program,
                    "a command needs a program",
                    "name it: an absolute path or a word on PATH",
                );
            }
            (Some(_), Runtime::Builtin) => {
                checker.add(
                    program,
                    "the built-in gateway has its own program",
                    "remove it, or say `runtime: command`",
                );
            }
            (Some(text), Runtime::Auto | Runtime::Openclaw | Runtime::Command) => {
                if text.is_empty() || text.contains('/') && !text.starts_with('/') {
                    let message = format!("`{text}` is neither an absolute path nor a word on PATH");
                    checker.add(program.clone(), message, "write the path from `/` on");
                }
                checker.text(program, text, MAX_PATH);
            }
            (None, Runtime::Auto | Runtime::Openclaw | Runtime::Builtin) => {}
        }
        if !self.args.is_empty() && runtime != Runtime::Command {
            let message = "only a command takes arguments";
            checker.add(FieldPath::of(&["args"]), message, "remove them, or say `runtime: command`");
        }
        checker.number(
            &["args"],
            (self.args.len() > MAX_ITEMS).then_some(self.args.len() as u64),
            0,
            MAX_ITEMS as u64,
        );
        for (index, argument) in self.args.iter().enumerate().take(MAX_ITEMS) {
            checker.text(FieldPath::of(&["args"]).item(index), argument, MAX_TEXT);
        }
    }

    fn check_version(&self, checker: &mut Checker) {
        let Some(version) = &self.version else { return };
        let at = FieldPath::of(&["version"]);
        match self.runtime.unwrap_or(Runtime::Auto) {
            Runtime::Auto | Runtime::Openclaw => {}
            Runtime::Builtin | Runtime::Command => {
                let message = "only versions of OpenClaw are kept side by side";
                checker.add(at.clone(), message, "remove it, or say `runtime: openclaw`");
            }
        }
        if self.program.is_some() {
            let message = "`program` says already what runs";
            checker.add(at.clone(), message, "remove one of the two");
        }
        if !is_version(version) {
            let message = format!("`{version}` is not a version");
            checker.add(at, message, "write it as npm does, e.g. `2026.9.6`");
        }
    }

    fn check_environment(&self, checker: &mut Checker) {
        checker.number(
            &["env"],
            (self.env.len() > MAX_ITEMS).then_some(self.env.len() as u64),
            0,
            MAX_ITEMS as u64,
        );
        for (name, value) in self.env.iter().take(MAX_ITEMS) {
            let path = FieldPath::of(&["env", name]);
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty()
                || name.starts_with(|first: char| first.is_ascii_digit())
                || !name.bytes().all(word)
            {
                let message = format!("`{name}` is not the name of a variable");
                checker.add(
                    path.clone(),
                    message,
                    "use letters, digits and `_`, and do not begin with a digit",
                );
            } else if is_supervisors(name) {
                let message = format!("`{name}` is set or withheld by the supervisor");
                checker.add(path.clone(), message, "remove it: isolation between instances rests on it");
            }
            checker.text(path, value, MAX_TEXT);
        }
    }

    fn check_place(&self, checker: &mut Checker) {
        if let Some(port) = self.port
            && (port < 1024 || Block::at(port).is_none())
        {
            let most = u16::MAX - (BLOCK - 1);
            let message = format!("the {BLOCK} ports from {port} on do not fit into 1024 to 65535");
            checker.add(FieldPath::of(&["port"]), message, format!("choose 1024 to {most}, or leave it out"));
        }
        if let Some(profile) = &self.profile {
            let fields = [
                ("state_dir", &profile.state_dir),
                ("config", &profile.config),
                ("workspace", &profile.workspace),
            ];
            if profile.state_dir.is_none() {
                let path = FieldPath::of(&["profile", "state_dir"]);
                checker.add(
                    path,
                    "a profile needs its state directory",
                    "add it, e.g. `/home/you/.openclaw`",
                );
            }
            for (field, path) in fields {
                check_path(field, path.as_deref(), checker);
            }
        }
        let mut seen = BTreeSet::new();
        for (index, primary) in self.rescues.iter().enumerate() {
            if !seen.insert(primary) {
                let path = FieldPath::of(&["rescues"]).item(index);
                checker.add(path, format!("`{primary}` is named twice"), "name it once");
            }
        }
        if seen.len() > MAX_ITEMS {
            let message = format!("more than {MAX_ITEMS} primaries");
            checker.add(FieldPath::of(&["rescues"]), message, "spread them over several rescues");
        }
    }
}

fn check_path(field: &str, path: Option<&Path>, checker: &mut Checker) {
    let Some(path) = path else { return };
    let at = FieldPath::of(&["profile", field]);
    let shown = path.display();
    if !path.is_absolute() {
        checker.add(at.clone(), format!("`{shown}` is not absolute"), "write the path from `/` on");
    } else if path.components().any(|part| part == Component::ParentDir) {
        checker.add(at.clone(), format!("`{shown}` holds `..`"), "write the path without it");
    } else if path == Path::new("/") {
        checker.add(
            at.clone(),
            "the root directory cannot be a profile's",
            "name the profile's own directory",
        );
    }
    checker.text(at, &path.to_string_lossy(), MAX_PATH);
}

fn check_restart(restart: &Restart, checker: &mut Checker) {
    checker.span(&["restart", "initial_delay"], restart.initial_delay, Duration::ZERO, MAX_WAIT);
    checker.number(
        &["restart", "multiplier_permille"],
        restart.multiplier_permille.map(u64::from),
        1_000,
        1_000_000,
    );
    checker.span(&["restart", "max_delay"], restart.max_delay, Duration::ZERO, MAX_WAIT);
    checker.ordered(&["restart", "max_delay"], restart.initial_delay, restart.max_delay, "initial_delay");
    checker.number(&["restart", "jitter_permille"], restart.jitter_permille.map(u64::from), 0, 1_000);
    checker.number(&["restart", "budget"], restart.budget.map(u64::from), 1, 1_000_000);
    checker.span(&["restart", "window"], restart.window, Duration::from_secs(1), MAX_WAIT);
    checker.span(&["restart", "reset_after"], restart.reset_after, Duration::ZERO, MAX_WAIT);
}

fn check_probes(probes: &Probes, checker: &mut Checker) {
    check_probe("startup", &probes.startup, checker);
    let startup = &probes.startup;
    checker.span(&["probes", "startup", "deadline"], startup.deadline, Duration::from_secs(1), MAX_WAIT);
    checker.span(&["probes", "startup", "cap"], startup.cap, Duration::from_secs(1), MAX_WAIT);
    checker.ordered(&["probes", "startup", "cap"], startup.deadline, startup.cap, "deadline");
    for (field, set) in [("failures", startup.failures.is_some()), ("of", startup.of.is_some())] {
        if set {
            let path = FieldPath::of(&["probes", "startup", field]);
            checker.add(path, "a start is judged by time, not by failures", "use `deadline` and `cap`");
        }
    }
    for (name, probe) in [("liveness", &probes.liveness), ("readiness", &probes.readiness)] {
        check_probe(name, probe, checker);
        if probe.check == Some(Check::Notify) {
            let path = FieldPath::of(&["probes", name, "check"]);
            checker.add(
                path,
                "`notify` tells of a start only",
                "use `http`, `tcp`, `websocket`, `openclaw` or `none`",
            );
        }
        for (field, set) in [("deadline", probe.deadline.is_some()), ("cap", probe.cap.is_some())] {
            if set {
                let path = FieldPath::of(&["probes", name, field]);
                checker.add(path, "only a start has it", "use `interval`, `timeout` and `failures`");
            }
        }
    }
}

fn check_probe(name: &str, probe: &Probe, checker: &mut Checker) {
    let at = |field: &'static str| ["probes", name, field];
    checker.span(&at("interval"), probe.interval, MIN_INTERVAL, MAX_WAIT);
    checker.span(&at("timeout"), probe.timeout, MIN_INTERVAL, MAX_TIMEOUT);
    checker.number(&at("failures"), probe.failures.map(u64::from), 1, 1_000);
    checker.number(&at("of"), probe.of.map(u64::from), 1, OUTCOMES.into());
    let failures = probe.failures.unwrap_or(FAILURES);
    if let Some(of) = probe.of.filter(|of| *of < failures) {
        let message = format!("{failures} failures cannot be among the last {of} probes");
        checker.add(FieldPath::of(&at("of")), message, "choose at least as many as `failures`");
    }
    if probe.port_offset >= BLOCK {
        let message = format!("{} leaves the block of {BLOCK} ports", probe.port_offset);
        checker.add(FieldPath::of(&at("port_offset")), message, format!("choose 0 to {}", BLOCK - 1));
    }
    if let Some(path) = &probe.path {
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
        if !path.starts_with('/') || !printable || path.len() > MAX_PATH {
            let message = format!("`{path}` is not the path of a URL");
            checker.add(
                FieldPath::of(&at("path")),
                message,
                "begin it with `/` and escape what is not ASCII",
            );
        }
    }
}
