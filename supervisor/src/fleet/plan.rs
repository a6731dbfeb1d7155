//! What makes the registry agree with a fleet file.

use std::collections::BTreeMap;

use serde_json::Value;
use supervisor_core::{ids::Name, ports::Pool};

use super::Fleet;
use crate::{
    openclaw::environment::{WITHHELD, is_withheld},
    spec::InstanceSpec,
};

/// What is in force now.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    /// The port pool.
    pub pool: Pool,
    /// The registry's instances.
    pub instances: &'a [(Name, InstanceSpec)],
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The port pool becomes another.
    Pool {
        /// The new one.
        pool: Pool,
        /// What differs.
        fields: Vec<FieldChange>,
    },
    /// A new instance.
    Create {
        /// Its name.
        name: Name,
        /// Its spec.
        spec: Box<InstanceSpec>,
        /// What it sets.
        fields: Vec<FieldChange>,
    },
    /// Another spec.
    Update {
        /// Whose.
        name: Name,
        /// The new one.
        spec: Box<InstanceSpec>,
        /// What differs.
        fields: Vec<FieldChange>,
        /// Whether a running process notices.
        restarts: Restarts,
    },
    /// It goes.
    Delete {
        /// Which.
        name: Name,
    },
    /// It stays as it is.
    Unchanged {
        /// Which.
        name: Name,
    },
    /// The registry knows it, the file does not; it is left alone.
    NotInFile {
        /// Which.
        name: Name,
    },
}

/// What becomes of instances that the file does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnamed {
    /// They are left alone.
    Keep,
    /// They are deleted.
    Delete,
}

/// Whether a new spec takes effect only at the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarts {
    /// The running process keeps its old spec until it is restarted.
    Needed,
    /// It takes effect at once.
    NotNeeded,
}

/// One field that differs. Values of variables that may be secret are not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// E.g. `restart.max_delay`.
    pub path: String,
    /// As YAML; empty when unset.
    pub old: String,
    /// As YAML; empty when unset.
    pub new: String,
}

/// Fields that a running process was started with; all others are the supervisor's own business.
const STARTED_WITH: [&str; 8] = ["runtime", "program", "version", "args", "env", "port", "profile", "log"];

/// The steps from what is to what the file says: the pool, then the file's instances in its order, then those
/// it does not name.
#[must_use]
pub fn plan(current: &Current<'_>, fleet: &Fleet, unnamed: Unnamed) -> Vec<Change> {
    let known: BTreeMap<&Name, &InstanceSpec> =
        current.instances.iter().map(|(name, spec)| (name, spec)).collect();
    let mut changes = Vec::new();
    if let Some(pool) = fleet.pool
        && pool != current.pool
    {
        changes.push(Change::Pool { pool, fields: pool_fields(current.pool, pool) });
    }
    for (name, spec) in &fleet.instances {
        let name = name.clone();
        let new = Box::new(spec.clone());
        changes.push(match known.get(&name) {
            None => Change::Create { name, fields: differences(&InstanceSpec::default(), spec), spec: new },
            Some(old) if *old == spec => Change::Unchanged { name },
            Some(old) => {
                let fields = differences(old, spec);
                Change::Update { name, spec: new, restarts: restarts(&fields), fields }
            }
        });
    }
    let named = |name: &Name| fleet.instances.iter().any(|(of_file, _)| of_file == name);
    changes.extend(current.instances.iter().map(|(name, _)| name.clone()).filter(|name| !named(name)).map(
        |name| match unnamed {
            Unnamed::Delete => Change::Delete { name },
            Unnamed::Keep => Change::NotInFile { name },
        },
    ));
    changes
}

fn restarts(fields: &[FieldChange]) -> Restarts {
    let first = |field: &FieldChange| field.path.split(['.', '[']).next().unwrap_or_default().to_owned();
    match fields.iter().any(|field| STARTED_WITH.contains(&first(field).as_str())) {
        true => Restarts::Needed,
        false => Restarts::NotNeeded,
    }
}

fn pool_fields(old: Pool, new: Pool) -> Vec<FieldChange> {
    [("first", old.first, new.first), ("last", old.last, new.last)]
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(path, old, new)| FieldChange {
            path: path.to_owned(),
            old: old.to_string(),
            new: new.to_string(),
        })
        .collect()
}

/// The fields in which two specs differ, by path.
#[must_use]
pub fn differences(old: &InstanceSpec, new: &InstanceSpec) -> Vec<FieldChange> {
    let (old, new) = (leaves(old), leaves(new));
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter(|path| old.get(*path) != new.get(*path))
        .map(|path| {
            let variable = path.strip_prefix("env.");
            let shown = |leaves: &BTreeMap<String, String>| match leaves.get(path) {
                Some(value) if variable.is_some_and(|name| is_withheld(name, value)) => WITHHELD.to_owned(),
                Some(value) => value.clone(),
                None => String::new(),
            };
            FieldChange { path: path.clone(), old: shown(&old), new: shown(&new) }
        })
        .collect()
}

/// Every field that is set, with its value as YAML. A list is one value.
fn leaves(spec: &InstanceSpec) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, value, found);
                }
            }
            // JSON is YAML; plain words need no quotes.
            Value::String(text) if is_plain(text) => {
                found.insert(path.to_owned(), text.clone());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                found.insert(path.to_owned(), value.to_string());
            }
        }
    }
    let mut found = BTreeMap::new();
    if let Ok(value) = serde_json::to_value(spec) {
        walk("", &value, &mut found);
    }
    found
}

/// Whether YAML reads these characters as this text without quotes.
fn is_plain(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'.');
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    let duration = text.parse::<crate::spec::Span>().is_ok() || text.parse::<crate::spec::Bytes>().is_ok();
    let reserved = matches!(text, "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n");
    text.bytes().all(word)
        && (first || duration && text.bytes().any(|byte| byte.is_ascii_alphabetic()))
        && !reserved
}
