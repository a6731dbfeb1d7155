//! Specs between the API and the registry.
//!
//! The names are the same on both sides; what differs is how "not set" is said: proto3 says it with 0, an
//! empty string or an absent message, the registry with an absent field.

mod memory;
mod recovery;
mod walls;
mod withheld;

use std::{path::PathBuf, time::Duration};

use prost_types::FieldMask;
use serde_json::Value;
use supervisor_core::ids::Name;
use supervisor_proto::v1;

pub(crate) use self::withheld::restored;
use crate::openclaw::environment::shown as shown_env;
use crate::spec::{
    Bytes, Check, Condition, Failback, FieldPath, InstanceSpec, Kind, Log, OnPrimaryDeath, Probe, Probes,
    Profile, Rescue, Restart, Runtime, Span, Standby, UserName, Violation,
};

/// The most violations named at once.
const MAX_VIOLATIONS: usize = 50;

/// Collects what is wrong on the way.
#[derive(Default)]
struct Reader(Vec<Violation>);

impl Reader {
    fn refuse(&mut self, path: FieldPath, message: String, mend: &str) {
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push(Violation { path, message, mend: mend.to_owned() });
        }
    }

    fn span(&mut self, path: &[&str], value: Option<&prost_types::Duration>) -> Option<Span> {
        let value = value?;
        match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
            (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Some(Span(Duration::new(seconds, nanos))),
            (Ok(_) | Err(_), _) => {
                self.refuse(
                    FieldPath::of(path),
                    "a duration cannot be negative".to_owned(),
                    "send 0 or more",
                );
                None
            }
        }
    }

    /// An enum's value; `None` for UNSPECIFIED.
    fn choice<P: TryFrom<i32>, T>(
        &mut self,
        path: &[&str],
        value: i32,
        known: impl Fn(P) -> Option<T>,
    ) -> Option<T> {
        match P::try_from(value) {
            Ok(value) => known(value),
            Err(_) => {
                let message = format!("{value} is none of the choices");
                self.refuse(
                    FieldPath::of(path),
                    message,
                    "see the enum in instance.proto, or update the supervisor",
                );
                None
            }
        }
    }

    fn port(&mut self, path: &[&str], value: u32) -> u16 {
        u16::try_from(value).unwrap_or_else(|_| {
            self.refuse(
                FieldPath::of(path),
                format!("{value} is not a port"),
                "send 1 to 65535, or 0 for none",
            );
            0
        })
    }

    fn probe(&mut self, name: &str, probe: Option<&v1::Probe>) -> Probe {
        let Some(probe) = probe else { return Probe::default() };
        let at = |field: &'static str| ["probes", name, field];
        Probe {
            check: self.choice(&at("check"), probe.check, |check| match check {
                v1::probe::Check::Unspecified => None,
                v1::probe::Check::None => Some(Check::None),
                v1::probe::Check::Tcp => Some(Check::Tcp),
                v1::probe::Check::Http => Some(Check::Http),
                v1::probe::Check::Notify => Some(Check::Notify),
                v1::probe::Check::Openclaw => Some(Check::Openclaw),
                v1::probe::Check::Websocket => Some(Check::Websocket),
            }),
            path: text(&probe.path),
            port_offset: self.port(&at("port_offset"), probe.port_offset),
            interval: self.span(&at("interval"), probe.interval.as_ref()),
            timeout: self.span(&at("timeout"), probe.timeout.as_ref()),
            failures: number(probe.failures),
            of: number(probe.of),
            deadline: self.span(&at("deadline"), probe.deadline.as_ref()),
            cap: self.span(&at("cap"), probe.cap.as_ref()),
        }
    }

    fn rescue(&mut self, rescue: &v1::RescuePolicy) -> Rescue {
        use v1::rescue_policy::{Failback as F, OnPrimaryDeath as O, Standby as S};
        Rescue {
            standby: self.choice(&["rescue", "standby"], rescue.standby, |standby| match standby {
                S::Unspecified => None,
                S::Cold => Some(Standby::Cold),
                S::Warm => Some(Standby::Warm),
            }),
            on_primary_death: self.choice(
                &["rescue", "on_primary_death"],
                rescue.on_primary_death,
                |action| match action {
                    O::Unspecified => None,
                    O::Restart => Some(OnPrimaryDeath::Restart),
                    O::EnsureRunning => Some(OnPrimaryDeath::EnsureRunning),
                },
            ),
            failback: self.choice(&["rescue", "failback"], rescue.failback, |failback| match failback {
                F::Unspecified => None,
                F::Auto => Some(Failback::Auto),
                F::Manual => Some(Failback::Manual),
            }),
            failback_after: self.span(&["rescue", "failback_after"], rescue.failback_after.as_ref()),
        }
    }

    fn restart(&mut self, restart: &v1::RestartPolicy) -> Restart {
        use v1::restart_policy::Condition as C;
        Restart {
            condition: self.choice(
                &["restart", "condition"],
                restart.condition,
                |condition| match condition {
                    C::Unspecified => None,
                    C::Always => Some(Condition::Always),
                    C::OnFailure => Some(Condition::OnFailure),
                    C::Never => Some(Condition::Never),
                },
            ),
            initial_delay: self.span(&["restart", "initial_delay"], restart.initial_delay.as_ref()),
            multiplier_permille: number(restart.multiplier_permille),
            max_delay: self.span(&["restart", "max_delay"], restart.max_delay.as_ref()),
            jitter_permille: restart.jitter_permille,
            budget: number(restart.budget),
            window: self.span(&["restart", "window"], restart.window.as_ref()),
            reset_after: self.span(&["restart", "reset_after"], restart.reset_after.as_ref()),
        }
    }

    fn rescues(&mut self, names: &[String]) -> Vec<Name> {
        let mut found = Vec::with_capacity(names.len());
        for (index, text) in names.iter().enumerate() {
            match Name::new(text) {
                Ok(name) => found.push(name),
                Err(invalid) => {
                    let path = FieldPath::of(&["rescues"]).item(index);
                    self.refuse(path, invalid.to_string(), "name an instance");
                }
            }
        }
        found
    }
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn number(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

/// A spec from the API. What [`InstanceSpec::validate`] refuses is refused here, too.
pub(crate) fn from_proto(spec: &v1::InstanceSpec) -> Result<InstanceSpec, Vec<Violation>> {
    valid(read(spec)?)
}

fn valid(spec: InstanceSpec) -> Result<InstanceSpec, Vec<Violation>> {
    let violations = spec.validate();
    if violations.is_empty() { Ok(spec) } else { Err(violations) }
}

/// A spec whose fields are what they should be, though they may not go together.
fn read(spec: &v1::InstanceSpec) -> Result<InstanceSpec, Vec<Violation>> {
    let mut reader = Reader::default();
    let probes = spec.probes.clone().unwrap_or_default();
    let found = InstanceSpec {
        runtime: reader.choice(&["runtime"], spec.runtime, |runtime| match runtime {
            v1::Runtime::Unspecified => None,
            v1::Runtime::Auto => Some(Runtime::Auto),
            v1::Runtime::Openclaw => Some(Runtime::Openclaw),
            v1::Runtime::Builtin => Some(Runtime::Builtin),
            v1::Runtime::Command => Some(Runtime::Command),
        }),
        program: text(&spec.program),
        version: text(&spec.version),
        args: spec.args.clone(),
        env: spec.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        port: Some(reader.port(&["port"], spec.port)).filter(|port| *port != 0),
        profile: spec.profile.as_ref().map(|profile| Profile {
            state_dir: path(&profile.state_dir),
            config: path(&profile.config),
            workspace: path(&profile.workspace),
        }),
        rescues: reader.rescues(&spec.rescues),
        rescue: spec.rescue.as_ref().map(|rescue| reader.rescue(rescue)).unwrap_or_default(),
        restart: spec.restart.as_ref().map(|restart| reader.restart(restart)).unwrap_or_default(),
        probes: Probes {
            startup: reader.probe("startup", probes.startup.as_ref()),
            liveness: reader.probe("liveness", probes.liveness.as_ref()),
            readiness: reader.probe("readiness", probes.readiness.as_ref()),
        },
        stop_grace: reader.span(&["stop_grace"], spec.stop_grace.as_ref()),
        log: spec.log.as_ref().map_or_else(Log::default, |log| Log {
            max_file_bytes: (log.max_file_bytes != 0).then_some(Bytes(log.max_file_bytes)),
            max_files: number(log.max_files),
        }),
        ladder: spec.ladder.as_ref().map(|ladder| reader.ladder(ladder)).unwrap_or_default(),
        maintenance: spec.maintenance,
        trial: spec.trial.as_ref().map(|trial| reader.trial(trial)).unwrap_or_default(),
        poll_expiry: reader.span(&["poll_expiry"], spec.poll_expiry.as_ref()),
        memory: spec.memory.as_ref().map(|memory| reader.memory(memory)).unwrap_or_default(),
        walls: spec.walls.as_ref().map(walls::walls).unwrap_or_default(),
        limits: spec.limits.as_ref().map(walls::limits).unwrap_or_default(),
        user: text(&spec.user).map(UserName),
    };
    if reader.0.is_empty() { Ok(found) } else { Err(reader.0) }
}

fn duration(span: Option<Span>) -> Option<prost_types::Duration> {
    span.map(|Span(span)| prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        // Below a thousand million.
        nanos: span.subsec_nanos() as i32,
    })
}

/// The message, or none if nothing in it is set.
fn set<T: Default + PartialEq>(message: T) -> Option<T> {
    (message != T::default()).then_some(message)
}

fn probe_to_proto(probe: &Probe) -> v1::Probe {
    v1::Probe {
        check: probe.check.map_or(v1::probe::Check::Unspecified, |check| match check {
            Check::None => v1::probe::Check::None,
            Check::Tcp => v1::probe::Check::Tcp,
            Check::Http => v1::probe::Check::Http,
            Check::Notify => v1::probe::Check::Notify,
            Check::Websocket => v1::probe::Check::Websocket,
            Check::Openclaw => v1::probe::Check::Openclaw,
        }) as i32,
        path: probe.path.clone().unwrap_or_default(),
        port_offset: u32::from(probe.port_offset),
        interval: duration(probe.interval),
        timeout: duration(probe.timeout),
        failures: probe.failures.unwrap_or_default(),
        of: probe.of.unwrap_or_default(),
        deadline: duration(probe.deadline),
        cap: duration(probe.cap),
    }
}

fn rescue_to_proto(rescue: &Rescue) -> v1::RescuePolicy {
    use v1::rescue_policy::{Failback as F, OnPrimaryDeath as O, Standby as S};
    v1::RescuePolicy {
        standby: rescue.standby.map_or(S::Unspecified, |standby| match standby {
            Standby::Cold => S::Cold,
            Standby::Warm => S::Warm,
        }) as i32,
        on_primary_death: rescue.on_primary_death.map_or(O::Unspecified, |action| match action {
            OnPrimaryDeath::Restart => O::Restart,
            OnPrimaryDeath::EnsureRunning => O::EnsureRunning,
        }) as i32,
        failback: rescue.failback.map_or(F::Unspecified, |failback| match failback {
            Failback::Auto => F::Auto,
            Failback::Manual => F::Manual,
        }) as i32,
        failback_after: duration(rescue.failback_after),
    }
}

fn restart_to_proto(restart: &Restart) -> v1::RestartPolicy {
    use v1::restart_policy::Condition as C;
    v1::RestartPolicy {
        condition: restart.condition.map_or(C::Unspecified, |condition| match condition {
            Condition::Always => C::Always,
            Condition::OnFailure => C::OnFailure,
            Condition::Never => C::Never,
        }) as i32,
        initial_delay: duration(restart.initial_delay),
        multiplier_permille: restart.multiplier_permille.unwrap_or_default(),
        max_delay: duration(restart.max_delay),
        jitter_permille: restart.jitter_permille,
        budget: restart.budget.unwrap_or_default(),
        window: duration(restart.window),
        reset_after: duration(restart.reset_after),
    }
}

/// A spec for the API, without its secrets.
pub(crate) fn to_proto(spec: &InstanceSpec) -> v1::InstanceSpec {
    let shown = |path: &Option<PathBuf>| {
        path.as_ref().map_or_else(String::new, |path| path.to_string_lossy().into_owned())
    };
    v1::InstanceSpec {
        runtime: spec.runtime.map_or(v1::Runtime::Unspecified, |runtime| match runtime {
            Runtime::Auto => v1::Runtime::Auto,
            Runtime::Openclaw => v1::Runtime::Openclaw,
            Runtime::Builtin => v1::Runtime::Builtin,
            Runtime::Command => v1::Runtime::Command,
        }) as i32,
        program: spec.program.clone().unwrap_or_default(),
        version: spec.version.clone().unwrap_or_default(),
        args: spec.args.clone(),
        env: shown_env(&spec.env).into_iter().collect(),
        port: spec.port.map_or(0, u32::from),
        profile: spec.profile.as_ref().map(|profile| v1::Profile {
            state_dir: shown(&profile.state_dir),
            config: shown(&profile.config),
            workspace: shown(&profile.workspace),
        }),
        rescues: spec.rescues.iter().map(ToString::to_string).collect(),
        rescue: set(rescue_to_proto(&spec.rescue)),
        restart: set(restart_to_proto(&spec.restart)),
        probes: set(v1::Probes {
            startup: set(probe_to_proto(&spec.probes.startup)),
            liveness: set(probe_to_proto(&spec.probes.liveness)),
            readiness: set(probe_to_proto(&spec.probes.readiness)),
        }),
        stop_grace: duration(spec.stop_grace),
        log: set(v1::LogPolicy {
            max_file_bytes: spec.log.max_file_bytes.map_or(0, |bytes| bytes.0),
            max_files: spec.log.max_files.unwrap_or_default(),
        }),
        ladder: recovery::ladder(spec),
        maintenance: spec.maintenance,
        trial: recovery::trial(spec),
        poll_expiry: duration(spec.poll_expiry),
        memory: memory::memory(spec),
        walls: walls::to_proto(&spec.walls),
        limits: walls::limits_to_proto(&spec.limits),
        user: spec.user.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// What a runtime came to, for the API.
pub(crate) fn kind_to_proto(kind: Kind) -> v1::Runtime {
    match kind {
        Kind::Openclaw => v1::Runtime::Openclaw,
        Kind::Builtin => v1::Runtime::Builtin,
        Kind::Command => v1::Runtime::Command,
    }
}

/// Fields with fields of their own.
const GROUPS: [(&str, &[&str]); 13] = [
    ("profile", &["state_dir", "config", "workspace"]),
    ("rescue", &["standby", "on_primary_death", "failback", "failback_after"]),
    (
        "restart",
        &[
            "condition",
            "initial_delay",
            "multiplier_permille",
            "max_delay",
            "jitter_permille",
            "budget",
            "window",
            "reset_after",
        ],
    ),
    ("probes", &["startup", "liveness", "readiness"]),
    ("probes.startup", &PROBE),
    ("probes.liveness", &PROBE),
    ("probes.readiness", &PROBE),
    ("log", &["max_file_bytes", "max_files"]),
    ("ladder", &recovery::LADDER),
    ("trial", &recovery::TRIAL),
    ("memory", &memory::MEMORY),
    ("walls", &walls::WALLS),
    ("limits", &walls::LIMITS),
];

const PROBE: [&str; 9] =
    ["check", "path", "port_offset", "interval", "timeout", "failures", "of", "deadline", "cap"];

const FIELDS: [&str; 21] = [
    "runtime",
    "program",
    "version",
    "args",
    "env",
    "port",
    "profile",
    "rescues",
    "rescue",
    "restart",
    "probes",
    "stop_grace",
    "log",
    "ladder",
    "maintenance",
    "trial",
    "poll_expiry",
    "memory",
    "walls",
    "limits",
    "user",
];

fn is_field(path: &str) -> bool {
    match path.rsplit_once('.') {
        None => FIELDS.contains(&path),
        Some((group, field)) => GROUPS.iter().any(|(name, fields)| *name == group && fields.contains(&field)),
    }
}

/// `current` with the fields that `mask` names taken from `update`, set or not. An absent or empty mask, or
/// `*`, replaces the whole spec (AIP-134).
pub(crate) fn masked(
    current: &InstanceSpec,
    update: &v1::InstanceSpec,
    mask: Option<&FieldMask>,
) -> Result<InstanceSpec, Vec<Violation>> {
    let paths = mask.map_or(&[][..], |mask| &mask.paths);
    if paths.is_empty() || paths.iter().any(|path| path == "*") {
        return from_proto(update);
    }
    let unknown: Vec<Violation> = paths
        .iter()
        .enumerate()
        .filter(|(_, path)| !is_field(path))
        .take(MAX_VIOLATIONS)
        .map(|(index, path)| Violation {
            path: FieldPath::of(&["update_mask", "paths"]).item(index),
            message: format!("`{path}` is not a field of a spec"),
            mend: "name fields like `stop_grace` or `restart.max_delay`".to_owned(),
        })
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    // The names are those of the stored form, so the fields are exchanged there. Only the named fields of the
    // update matter: the others may be left unset even where a whole spec would need them.
    let update = serde_json::to_value(read(update)?).unwrap_or_default();
    let mut merged = serde_json::to_value(current).unwrap_or_default();
    for path in paths {
        exchange(&mut merged, &update, path);
    }
    let found: InstanceSpec = serde_json::from_value(merged).map_err(|error| {
        vec![Violation {
            path: FieldPath::default(),
            message: format!("the result is no spec: {error}"),
            mend: "replace the whole spec".to_owned(),
        }]
    })?;
    valid(found)
}

/// Puts what stands at `path` of `from` in its place in `into`, or removes it there.
fn exchange(into: &mut Value, from: &Value, path: &str) {
    let (group, field) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer: String =
        group.split('.').filter(|step| !step.is_empty()).map(|step| format!("/{step}")).collect();
    let value = from.pointer(&pointer).and_then(|group| group.get(field)).cloned();
    let mut target = into;
    for step in group.split('.').filter(|step| !step.is_empty()) {
        let Some(fields) = target.as_object_mut() else { return };
        target = fields.entry(step).or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    let Some(fields) = target.as_object_mut() else { return };
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
}

#[cfg(test)]
mod tests;
