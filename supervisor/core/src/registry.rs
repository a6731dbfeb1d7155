//! The rules of the registry: what may be created, changed and deleted together.
//!
//! A change is first made to a [`Draft`]; only when every step is allowed does the draft become the registry.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use crate::{
    denied::Denied,
    event::{Dangling, Definition},
    ids::Name,
    instance::Phase,
    ports::{Block, Pool, Ports},
};

use crate::Supervisor;

/// The registry as it would be.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) ports: Ports,
    /// Who would exist, and whom each would rescue.
    known: BTreeMap<Name, Vec<Name>>,
    /// Who is added or changed.
    changed: Vec<Name>,
    /// Rescues whose primaries must be known.
    strict: Vec<Name>,
    most: usize,
}

impl Draft {
    pub(crate) fn new(supervisor: &Supervisor, pool: Option<Pool>) -> Self {
        let mut ports = supervisor.ports.clone();
        if let Some(pool) = pool {
            ports.set_pool(pool);
        }
        let rescues = |name: &Name| supervisor.instances.get(name).map(|i| i.policy.rescues.clone());
        let known =
            supervisor.instances.keys().filter_map(|name| rescues(name).map(|r| (name.clone(), r))).collect();
        Self { ports, known, changed: Vec::new(), strict: Vec::new(), most: supervisor.max_instances }
    }

    /// Adds an instance and says which block it gets.
    pub(crate) fn create(&mut self, definition: &Definition) -> Result<Block, Denied> {
        let name = &definition.name;
        if self.known.contains_key(name) {
            return Err(Denied::InstanceExists(name.clone()));
        }
        if self.known.len() >= self.most {
            return Err(Denied::TooManyInstances(self.most));
        }
        self.relate(definition);
        self.ports.take(name, definition.policy.port)
    }

    /// Changes an instance that holds `block` and says which block it has then.
    pub(crate) fn update(
        &mut self,
        definition: &Definition,
        block: Block,
        phase: &Phase,
    ) -> Result<Block, Denied> {
        self.relate(definition);
        let name = &definition.name;
        match definition.policy.port {
            Some(base) if base != block.base => {
                self.ports.check(name, base)?;
                if *phase != Phase::Stopped {
                    return Err(Denied::PortInUse(name.clone()));
                }
                self.ports.free(block);
                self.ports.take(name, Some(base))
            }
            Some(_) | None => Ok(block),
        }
    }

    /// Removes an instance; its block is freed by whoever proves that nothing of it is alive.
    pub(crate) fn remove(&mut self, name: &Name) {
        self.known.remove(name);
    }

    fn relate(&mut self, definition: &Definition) {
        if definition.dangling == Dangling::Refused {
            self.strict.push(definition.name.clone());
        }
        self.changed.push(definition.name.clone());
        self.known.insert(definition.name.clone(), definition.policy.rescues.clone());
    }

    /// Checks what only the whole can show.
    pub(crate) fn check(&self) -> Result<(), Denied> {
        for (rescue, primaries) in &self.known {
            if primaries.contains(rescue) {
                return Err(Denied::RescueOfItself(rescue.clone()));
            }
            let strict = self.strict.contains(rescue);
            if let Some(primary) = primaries.iter().find(|name| strict && !self.known.contains_key(*name)) {
                return Err(Denied::UnknownPrimary { rescue: rescue.clone(), primary: primary.clone() });
            }
        }
        self.changed.iter().try_for_each(|name| self.check_circle(name))
    }

    /// Whether following `rescues` from `start` leads back to it.
    fn check_circle(&self, start: &Name) -> Result<(), Denied> {
        let mut came_from: BTreeMap<&Name, &Name> = BTreeMap::new();
        let mut open = alloc::vec![start];
        while let Some(name) = open.pop() {
            for primary in self.known.get(name).into_iter().flatten() {
                if primary == start {
                    return Err(Denied::RescueCycle(path(&came_from, start, name)));
                }
                if !came_from.contains_key(primary) {
                    came_from.insert(primary, name);
                    open.push(primary);
                }
            }
        }
        Ok(())
    }
}

/// `start rescues a rescues b rescues start`.
fn path(came_from: &BTreeMap<&Name, &Name>, start: &Name, end: &Name) -> String {
    let mut names = alloc::vec![end];
    while let Some(before) = names.last().filter(|name| **name != start).and_then(|name| came_from.get(name))
    {
        names.push(before);
    }
    let chain = names.iter().rev().fold(String::new(), |text, name| text + name + " rescues ");
    chain + start
}
