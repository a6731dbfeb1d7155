//! Actions that wait for the disk: persist, then act, then answer.
//!
//! What is held is bounded by who waits for it: one reply for each caller, one launch for each instance, and one
//! acknowledgement for each exit, of which there are no more than numbers reserved.

use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};

use crate::{
    Supervisor,
    action::{Action, Batch, Launch, Write},
    ids::{Name, Revision},
    instance::{Launching, Phase},
    journal::{Entry, Kind},
    time::Moment,
    turn::{Stored, Turn},
};

/// Actions in the order of the revisions they wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outbox {
    held: VecDeque<(Revision, Action)>,
}

impl Outbox {
    /// Holds `action` until `revision` is durable.
    pub(crate) fn hold(&mut self, revision: Revision, action: Action) {
        let place = self.held.partition_point(|(held, _)| *held <= revision);
        self.held.insert(place, (revision, action));
    }

    /// Takes out what waited for `stored` or less.
    pub(crate) fn release(&mut self, stored: Revision) -> Vec<Action> {
        let ready = self.held.partition_point(|(held, _)| *held <= stored);
        self.held.drain(..ready).map(|(_, action)| action).collect()
    }

    /// The launches that have not left yet, and the revisions they wait for.
    pub(crate) fn launches(&self) -> impl Iterator<Item = (Revision, &Launch)> {
        self.held.iter().filter_map(|(revision, action)| {
            if let Action::Launch(launch) = action { Some((*revision, launch)) } else { None }
        })
    }

    /// Drops the launch of `name` that has not left yet.
    pub(crate) fn cancel_launch(&mut self, name: &Name) {
        self.held.retain(|(_, action)| !matches!(action, Action::Launch(launch) if launch.name == *name));
    }
}

impl Supervisor {
    pub(crate) fn on_stored(&mut self, turn: &mut Turn<'_>, revision: Revision) {
        self.stored = self.stored.max(revision.min(self.persisted));
        if core::mem::take(&mut self.store_failing) {
            turn.note_own(Kind::StoreRecovered);
        }
        let stored = self.stored;
        let instances = &mut self.instances;
        self.reserving.retain(|name| {
            let Some(instance) = instances.get_mut(name) else { return false };
            if let Some((_, ceiling)) = instance.reserving.take_if(|(at, _)| *at <= stored) {
                instance.durable = ceiling;
            }
            instance.reserving.is_some()
        });
        for mut action in self.outbox.release(stored) {
            if let Action::Launch(launch) = &mut action {
                if !self.still_wanted(launch) {
                    continue;
                }
                self.let_go(turn.now, launch);
                turn.touch(&launch.name);
            }
            turn.act(action);
        }
    }

    /// A launch leaves, with what its instance stands in for and what is to be put back by now.
    fn let_go(&mut self, now: Moment, launch: &mut Launch) {
        if let Some(instance) = self.instances.get(&launch.name) {
            launch.incidents = self.incidents_of(instance);
            launch.restore = instance.record.trial.restoring().cloned();
        }
        self.with(&launch.name, |instance| instance.launching = Launching::Ordered(now));
    }

    /// Gives the turn's changes their revisions, sends them to the disk, and holds back what waits for that.
    pub(crate) fn finish(&mut self, mut turn: Turn<'_>, actions: &mut Vec<Action>) {
        self.rearm(&mut turn);
        turn.cancelled.iter().for_each(|name| self.outbox.cancel_launch(name));
        turn.launches.retain(|launch| !turn.cancelled.contains(&launch.name) || self.still_wanted(launch));
        let batch = self.batch(&mut turn);
        actions.append(&mut turn.actions);
        for launch in turn.launches {
            self.launch(turn.now, launch, actions);
        }
        for mut action in turn.durably {
            if let Action::Reply(_, Ok(done)) = &mut action {
                done.revision = self.revision;
            }
            if self.persisted <= self.stored {
                actions.push(action);
            } else {
                self.outbox.hold(self.persisted, action);
            }
        }
        actions.extend(batch.map(Action::Persist));
    }

    fn still_wanted(&self, launch: &Launch) -> bool {
        self.instances
            .get(&launch.name)
            .is_some_and(|i| i.phase == Phase::Spawning && i.incarnation == launch.incarnation)
    }

    /// The turn's changes as one batch.
    fn batch(&mut self, turn: &mut Turn<'_>) -> Option<Batch> {
        let mut entries = Vec::with_capacity(turn.entries.len());
        for (instance, incarnation, kind) in core::mem::take(&mut turn.entries) {
            self.revision.0 += 1;
            entries.push(Entry { revision: self.revision, at: turn.now, instance, incarnation, kind });
        }
        let quiet = entries.is_empty();
        if quiet && !(turn.stored.is_empty() && turn.writes.is_empty() && turn.touched.is_empty()) {
            self.revision.0 += 1;
        }
        let revision = self.revision;
        let mut writes = core::mem::take(&mut turn.writes);
        let mut written: BTreeSet<Name> = BTreeSet::new();
        for (name, why) in core::mem::take(&mut turn.stored) {
            let Some(instance) = self.instances.get_mut(&name) else { continue };
            match why {
                Stored::Later => {}
                Stored::BeforeLaunch => instance.launch_gate = revision,
                Stored::Reservation => {
                    instance.reserving = Some((revision, instance.record.reserved));
                    self.reserving.push(name.clone());
                }
            }
            if written.insert(name) {
                writes.push(Write::Put(instance.record.clone()));
            }
        }
        for name in core::mem::take(&mut turn.touched) {
            self.with(&name, |instance| instance.changed = revision);
            self.changed.push(name);
        }
        let batch = Batch { revision, writes, entries };
        let something = !(batch.writes.is_empty() && batch.entries.is_empty());
        if something {
            self.persisted = revision;
        }
        something.then_some(batch)
    }

    /// Lets a launch go, or holds it until its instance and its number are durable.
    fn launch(&mut self, now: Moment, mut launch: Launch, actions: &mut Vec<Action>) {
        let Some(instance) = self.instances.get(&launch.name) else { return };
        let reserved = match instance.reserving {
            Some((at, _)) if launch.incarnation > instance.durable => at,
            Some(_) | None => Revision(0),
        };
        let gate = instance.launch_gate.max(reserved);
        if gate > self.stored {
            return self.outbox.hold(gate, Action::Launch(launch));
        }
        self.let_go(now, &mut launch);
        self.rearm_one(&launch.name);
        actions.push(Action::Launch(launch));
    }
}
