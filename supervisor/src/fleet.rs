//! The fleet file: all instances of one supervisor, as a person writes them.
//!
//! ```yaml
//! version: 1
//! pool: { first: 18789, last: 32767 }
//! defaults: { stop_grace: 30s }
//! instances:
//!   main:
//!   rescue:
//!     rescues: [main]
//!     port: 19789
//! ```
//!
//! A file is taken as a whole or not at all. [`parse`] refuses everything that can be seen from the file and
//! this host, each refusal with line, column and mend; [`plan()`] says what would change; core checks again
//! what depends on the registry at the moment of the change.

mod check;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::{Deserialize, Serialize, Serializer, de::Error as _, ser::SerializeMap};
use supervisor_core::{ids::Name, ports::Pool};

use crate::{
    problem::{Place, Problem},
    spec::InstanceSpec,
    yaml::{self, Fault, Node},
};

pub use plan::{Change, Current, FieldChange, Restarts, Unnamed, differences, plan};

/// The only version of the format so far.
const VERSION: u64 = 1;

/// Problems named at once. A person mends a few at a time; a file of another kind has thousands.
const MAX_PROBLEMS: usize = 20;

/// A fleet, with the file's defaults already merged into each instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The port pool, if the file sets it.
    pub pool: Option<Pool>,
    /// The instances, in the order of the file.
    pub instances: Vec<(Name, InstanceSpec)>,
}

/// What a fleet file is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The pool in force, for files that set none.
    pub pool: Pool,
    /// Instances of the registry that will still be there, whether the file names them or not.
    pub known: &'a BTreeSet<Name>,
    /// The supervisor's data directory, where no profile may lie.
    pub data_dir: &'a Path,
    /// The version that an upgrade has moved an instance to, and its state with it.
    pub upgraded: &'a BTreeMap<Name, String>,
}

/// The file could not be written as YAML.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the fleet as YAML")]
pub struct ExportError(#[from] serde_yaml::Error);

/// The ports that blocks are taken from, as the file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolText {
    first: u16,
    last: u16,
}

impl From<Pool> for PoolText {
    fn from(Pool { first, last }: Pool) -> Self {
        Self { first, last }
    }
}

impl From<PoolText> for Pool {
    fn from(PoolText { first, last }: PoolText) -> Self {
        Self { first, last }
    }
}

/// What has been read so far, and what is wrong with it.
struct Reader<'a> {
    tree: &'a Node,
    faults: Vec<Fault>,
    pool: Option<Pool>,
    defaults: InstanceSpec,
    instances: Vec<(Name, InstanceSpec)>,
}

/// Reads a fleet file. `file_name` is only for the problems.
pub fn parse(content: &str, file_name: &str, surroundings: &Surroundings<'_>) -> Result<Fleet, Vec<Problem>> {
    let refuse = |mut faults: Vec<Fault>| {
        faults.sort_by_key(|fault| fault.place);
        faults.iter().take(MAX_PROBLEMS).map(|fault| fault.problem(file_name, content)).collect()
    };
    let tree = yaml::parse(content).map_err(|fault| refuse(vec![fault]))?;
    let mut reader = Reader {
        tree: &tree,
        faults: Vec::new(),
        pool: None,
        defaults: InstanceSpec::default(),
        instances: Vec::new(),
    };
    reader.read();
    if reader.faults.is_empty() {
        reader.check(surroundings);
    }
    if !reader.faults.is_empty() {
        return Err(refuse(reader.faults));
    }
    let merged = reader.merged();
    let kept = |(name, spec): (Name, InstanceSpec)| {
        let version = surroundings.upgraded.get(&name).filter(|_| check::leaves_open(&spec)).cloned();
        let spec = InstanceSpec { version: version.or(spec.version), ..spec };
        (name, spec)
    };
    Ok(Fleet { pool: reader.pool, instances: merged.into_iter().map(kept).collect() })
}

impl Reader<'_> {
    /// The instances with the file's defaults.
    fn merged(&self) -> Vec<(Name, InstanceSpec)> {
        self.instances.iter().map(|(name, spec)| (name.clone(), spec.merged(&self.defaults))).collect()
    }

    fn note<T>(&mut self, outcome: Result<T, Fault>, within: &[&str]) -> Option<T> {
        outcome
            .map_err(|fault| {
                self.faults.push(within.iter().rev().fold(fault, |fault, key| fault.within(key)));
            })
            .ok()
    }

    /// The file's fields, each read by itself, so that one mistake does not hide another.
    fn read(&mut self) {
        let tree = self.tree;
        let Some(entries) = self.note(tree.entries(), &[]) else { return };
        const FIELDS: &[&str] = &["version", "pool", "defaults", "instances"];
        for entry in entries {
            let key = entry.key.as_str();
            match key {
                "version" => {
                    let version = entry.node.read::<u64>();
                    if let Some(version) = self.note(version, &[key])
                        && version != VERSION
                    {
                        let message = format!("version {version} of the format is not known");
                        let mend = format!("write `version: {VERSION}`, or use a newer supervisor");
                        self.faults.push(Fault::new(entry.node.place, message, mend).within(key));
                    }
                }
                "pool" => {
                    let pool = entry.node.read::<PoolText>();
                    self.pool = self.note(pool, &[key]).map(Pool::from);
                }
                "defaults" => {
                    let defaults = entry.node.read();
                    self.defaults = self.note(defaults, &[key]).unwrap_or_default();
                }
                "instances" => self.read_instances(&entry.node),
                _ => self.faults.push(Fault::unknown_field(key, FIELDS).or_at(entry.place).within(key)),
            }
        }
        if tree.get("version").is_none() {
            let mend = format!("begin the file with `version: {VERSION}`");
            self.faults
                .push(Fault::new(Place::START, "the field `version` is missing", mend).within("version"));
        }
    }

    fn read_instances(&mut self, node: &Node) {
        let Some(entries) = self.note(node.entries(), &["instances"]) else { return };
        for entry in entries {
            let within = ["instances", entry.key.as_str()];
            let name = Name::new(&entry.key).map_err(|invalid| Fault::custom(invalid).or_at(entry.place));
            let name = self.note(name, &within);
            let spec = entry.node.read();
            if let (Some(spec), Some(name)) = (self.note(spec, &within), name) {
                self.instances.push((name, spec));
            }
        }
    }
}

/// The fleet as a file that [`parse`] reads back into the same fleet.
pub fn export(fleet: &Fleet) -> Result<String, ExportError> {
    #[derive(Serialize)]
    struct File<'a> {
        version: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        pool: Option<PoolText>,
        instances: InOrder<'a>,
    }
    let instances = InOrder(&fleet.instances);
    Ok(serde_yaml::to_string(&File { version: VERSION, pool: fleet.pool.map(PoolText::from), instances })?)
}

/// Instances as a mapping in their own order.
struct InOrder<'a>(&'a [(Name, InstanceSpec)]);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, spec) in self.0 {
            map.serialize_entry(&**name, spec)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
