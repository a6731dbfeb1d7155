//! What the hands know of all instances: their specs and blocks, as they were last stored.
//!
//! An instance's surroundings depend on its neighbours (nothing is shared), and a rescue's on its primaries.

use std::{collections::BTreeMap, sync::Arc};

use supervisor_core::{
    action::Write,
    ids::{ConfigId, Name},
    ports::Block,
    record::Record,
};
use tracing::error;

use crate::{openclaw::layout::Neighbour, spec::InstanceSpec};

/// One instance.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Its ports.
    pub(crate) block: Block,
    /// The first port it had before, until its configuration has followed.
    pub(crate) previous_base: Option<u16>,
    /// What was asked for.
    pub(crate) spec: Arc<InstanceSpec>,
    /// Snapshots of its configuration that must stay.
    pub(crate) needed: Vec<ConfigId>,
    /// The last of them that is good.
    pub(crate) good: Option<ConfigId>,
}

/// All instances.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    known: BTreeMap<Name, Known>,
    /// All of them as neighbours, until one changes.
    neighbours: Option<Arc<[Neighbour]>>,
}

impl Roster {
    /// What is in the store.
    pub(crate) fn new<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut roster = Self::default();
        records.for_each(|record| roster.put(record));
        roster
    }

    /// Takes note of a change of the registry.
    pub(crate) fn note(&mut self, write: &Write) {
        match write {
            Write::Put(record) => self.put(record),
            Write::Remove(name) => {
                self.known.remove(name);
                self.neighbours = None;
            }
            Write::Pool(_) => {}
        }
    }

    fn put(&mut self, record: &Record) {
        match serde_json::from_str::<InstanceSpec>(&record.spec) {
            Ok(spec) => {
                let (needed, good) = (record.trial.needed().collect(), record.trial.good());
                if let Some(known) = self.known.get_mut(&record.name)
                    && known.block == record.block
                    && *known.spec == spec
                {
                    known.needed = needed;
                    known.good = good;
                    known.previous_base = record.previous_base;
                    return;
                }
                let (block, previous_base) = (record.block, record.previous_base);
                let known = Known { block, previous_base, spec: Arc::new(spec), needed, good };
                self.known.insert(record.name.clone(), known);
                self.neighbours = None;
            }
            Err(error) => error!(instance = %record.name, %error, "failed to read its spec"),
        }
    }

    /// One instance.
    pub(crate) fn get(&self, name: &Name) -> Option<&Known> {
        self.known.get(name)
    }

    /// All instances, the one that asks included.
    pub(crate) fn neighbours(&mut self) -> Arc<[Neighbour]> {
        let known = &self.known;
        let all = self.neighbours.get_or_insert_with(|| {
            known.iter().map(|(name, known)| Neighbour::of(name, known.block, &known.spec)).collect()
        });
        Arc::clone(all)
    }
}

#[cfg(test)]
mod tests;
