//! The disk: slow, sometimes failing, and torn off in the middle of its work when the supervisor dies.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use supervisor_core::{
    action::{Batch, Write},
    event::Event,
    ids::{ConfigId, Incarnation, Name, Revision},
    journal::Kind,
    ports::Pool,
    record::Record,
    time::Moment,
};

use crate::{
    agenda::Next,
    chance::{Lot, NOBODY},
    check::Violation,
    world::World,
};

/// How long a failing disk waits before it tries again, at most.
const RETRY: Duration = Duration::from_secs(3);

/// How long a disk hangs, or stays full, at most: longer than a launch may take.
const OUTAGE: Duration = Duration::from_secs(90);

/// What is durable.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    pub(crate) records: BTreeMap<Name, Record>,
    pub(crate) pool: Pool,
    pub(crate) revision: Revision,
    /// The exits in the journal, of instances that are not deleted.
    exits: BTreeSet<(Name, Incarnation)>,
    /// Deleted, and not forgotten yet.
    removed: Vec<Name>,
}

/// The disk and what waits for it.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) durable: Durable,
    queue: VecDeque<Batch>,
    /// It is full until then.
    full: Moment,
}

impl Store {
    /// Whether `name` was deleted and is to be forgotten now.
    pub(crate) fn forget(&mut self, name: &Name) -> bool {
        let removed = &mut self.durable.removed;
        removed.iter().position(|one| one == name).map(|place| removed.swap_remove(place)).is_some()
    }

    /// The configurations of `name` that must stay readable, whichever of its records is the last to become durable.
    pub(crate) fn needs(&self, name: &Name) -> Vec<ConfigId> {
        let coming = self.queue.iter().flat_map(|batch| &batch.writes).filter_map(|write| match write {
            Write::Put(record) => Some(record),
            Write::Remove(_) | Write::Pool(_) => None,
        });
        let records = self.durable.records.values().chain(coming).filter(|record| record.name == *name);
        records.flat_map(|record| record.trial.needed()).collect()
    }

    /// Nothing waits for it.
    pub(crate) fn idle(&self) -> bool {
        self.queue.is_empty()
    }
}

impl World {
    pub(crate) fn persist(&mut self, batch: Batch) {
        self.store.queue.push_back(batch);
        if self.store.queue.len() == 1 {
            self.write_next();
        }
    }

    fn write_next(&mut self) {
        let mut span = self.span(Lot::Disk, NOBODY, self.rates.write);
        if let Some(mut swarm) = self.strikes(Lot::DiskHangs, NOBODY) {
            span = swarm.span(OUTAGE);
            self.narrate(|| format!("the disk hangs for {} s", span.as_secs()));
        }
        self.after(span, Next::Written(self.epoch));
    }

    /// The disk is done with the first batch, or has failed to be.
    pub(crate) fn on_written(&mut self) -> Result<(), Violation> {
        if let Some(mut swarm) = self.strikes(Lot::DiskFull, NOBODY) {
            self.store.full = self.now + swarm.span(OUTAGE);
        }
        if self.now < self.store.full || self.strikes(Lot::WriteFails, NOBODY).is_some() {
            self.tell(None, Event::StoreFailing("no space left on device".into()));
            let span = self.span(Lot::Disk, NOBODY, RETRY);
            self.after(span, Next::Written(self.epoch));
            return Ok(());
        }
        let Some(batch) = self.store.queue.pop_front() else { return Ok(()) };
        let revision = batch.revision;
        self.make_durable(batch)?;
        self.tell(None, Event::Stored(revision));
        if !self.store.idle() {
            self.write_next();
        }
        Ok(())
    }

    /// The supervisor has died: some of what it sent is durable, in order, and the rest is lost.
    pub(crate) fn tear(&mut self) -> Result<(), Violation> {
        let most = self.store.queue.len();
        for _ in 0..self.chance.draw(Lot::Disk, NOBODY).below(most + 1) {
            if let Some(batch) = self.store.queue.pop_front() {
                self.make_durable(batch)?;
            }
        }
        self.store.queue.clear();
        Ok(())
    }

    fn make_durable(&mut self, batch: Batch) -> Result<(), Violation> {
        let durable = &mut self.store.durable;
        let entries = batch.entries.iter().map(|entry| entry.revision);
        let mut before = durable.revision;
        for after in entries {
            if after <= before {
                return Err(Violation::RevisionFalls { before, after });
            }
            before = after;
        }
        if batch.revision < before || batch.revision <= durable.revision {
            return Err(Violation::RevisionFalls { before, after: batch.revision });
        }
        durable.revision = batch.revision;
        self.reference.stored(&self.fleet, &batch);
        for entry in batch.entries {
            if let (Some(name), Kind::Exited(exit)) = (entry.instance, entry.kind)
                && !durable.exits.insert((name.clone(), exit.incarnation))
            {
                let (incarnation, status) = (exit.incarnation, exit.status);
                return Err(Violation::ExitTwice { name, incarnation, status });
            }
        }
        for write in batch.writes {
            match write {
                Write::Put(record) => {
                    let who = self.fleet.index(&record.name);
                    if let Some(who) = who {
                        self.watched[who].check_stored(durable.records.get(&record.name), &record)?;
                    }
                    durable.records.insert(record.name.clone(), record);
                }
                Write::Remove(name) => {
                    durable.records.remove(&name);
                    durable.exits.retain(|(of, _)| *of != name);
                    if let Some(who) = self.fleet.index(&name) {
                        self.host.machines[who].highest = Incarnation(0);
                    }
                    durable.removed.push(name);
                }
                Write::Pool(pool) => durable.pool = pool,
            }
        }
        Ok(())
    }
}
