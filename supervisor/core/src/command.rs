//! What callers ask for: each command is done wholly, or refused by name and nothing has changed.

use alloc::{collections::BTreeSet, sync::Arc, vec::Vec};

use crate::{
    Supervisor,
    action::{Action, Done, Write},
    denied::Denied,
    event::{ApplyMode, Asker, Change, Command, Definition, Files, Manner},
    failover::{Cause, Standing, Urgency},
    ids::{CommandId, ConfigId, Incarnation, Name},
    instance::{Goal, Instance, Phase, Then},
    journal::Kind,
    ladder::Purpose,
    ports::Pool,
    record::{RESERVE, Record, Wish},
    registry::Draft,
    trial::Restoring,
    turn::Turn,
};

/// Deleted names remembered with the last number they used. Reports that late come within seconds.
const GRAVES: usize = 1_000;

/// Whether `Start` created the instance.
type Created = bool;

impl Supervisor {
    pub(crate) fn on_command(&mut self, turn: &mut Turn<'_>, id: CommandId, by: &Asker, command: Command) {
        if self.halting.is_some() && !matches!(command, Command::Halt) {
            return turn.act(Action::Reply(id, Err(Denied::ShuttingDown)));
        }
        let outcome = match command {
            Command::Create(definition) => self.create(turn, definition).map(|()| false),
            Command::Update { definition, generation } => self
                .check_generation(&definition.name, generation)
                .and_then(|()| self.apply(turn, alloc::vec![Change::Put(definition)], None, ApplyMode::Do))
                .map(|()| false),
            Command::Delete { name, generation, files } => {
                self.delete(turn, &name, generation, files).map(|()| false)
            }
            Command::Apply { changes, pool, mode } => self.apply(turn, changes, pool, mode).map(|()| false),
            Command::Start { name, otherwise } => self.start(turn, by, &name, otherwise),
            Command::Stop { name, manner } => self.stop(turn, by, &name, manner).map(|()| false),
            Command::Restart { name, manner } => self.restart(turn, by, &name, manner).map(|()| false),
            Command::Recycle { name, life } => self.recycle(turn, by, &name, life).map(|()| false),
            Command::FailOver { primary, rescue } => {
                self.fail_over_by_hand(turn, &primary, rescue).map(|()| false)
            }
            Command::FailBack { primary } => self.fail_back_by_hand(turn, &primary).map(|()| false),
            Command::RollBack { name, to } => self.roll_back_by_hand(turn, by, &name, to).map(|()| false),
            Command::MarkGood { name, content } => {
                self.known(&name).map(|instance| instance.mark_good(turn, content)).map(|()| false)
            }
            Command::Halt => return self.halt(turn, id),
        };
        match outcome {
            // The revision is filled in when the turn ends.
            Ok(created) => turn.act_durably(Action::Reply(id, Ok(Done { revision: self.revision, created }))),
            Err(denied) => turn.act(Action::Reply(id, Err(denied))),
        }
    }

    fn known(&mut self, name: &Name) -> Result<&mut Instance, Denied> {
        let instance = self.instances.get_mut(name).ok_or_else(|| Denied::UnknownInstance(name.clone()))?;
        match instance.record.deleting {
            Some(_) => Err(Denied::InstanceDeleting(name.clone())),
            None => Ok(instance),
        }
    }

    fn check_generation(&mut self, name: &Name, generation: Option<u64>) -> Result<(), Denied> {
        let current = self.known(name)?.record.generation;
        match generation {
            Some(read) if read != current => Err(Denied::StaleGeneration(name.clone())),
            Some(_) | None => Ok(()),
        }
    }

    fn create(&mut self, turn: &mut Turn<'_>, definition: Definition) -> Result<(), Denied> {
        if self.instances.contains_key(&definition.name) {
            return Err(Denied::InstanceExists(definition.name));
        }
        self.apply(turn, alloc::vec![Change::Put(definition)], None, ApplyMode::Do)
    }

    /// Checks all changes on a draft, then makes them.
    fn apply(
        &mut self,
        turn: &mut Turn<'_>,
        changes: Vec<Change>,
        pool: Option<Pool>,
        mode: ApplyMode,
    ) -> Result<(), Denied> {
        let mut draft = Draft::new(self, pool);
        let mut blocks = Vec::new();
        check_names(&changes)?;
        // Removals first, so that a file may rename an instance within a full registry.
        for change in &changes {
            if let Change::Remove(name) = change {
                self.known(name)?;
                draft.remove(name);
            }
        }
        for change in &changes {
            let Change::Put(definition) = change else { continue };
            blocks.push(match self.instances.get(&definition.name) {
                Some(_) => {
                    let known = self.known(&definition.name)?;
                    draft.update(definition, known.record.block, &known.phase)?
                }
                None => draft.create(definition)?,
            });
        }
        draft.check()?;
        if mode == ApplyMode::Validate {
            return Ok(());
        }
        self.ports = draft.ports;
        if let Some(pool) = pool {
            turn.writes.push(Write::Pool(pool));
            turn.note_own(Kind::PoolChanged(pool));
        }
        let mut blocks = blocks.into_iter();
        for change in changes {
            match change {
                Change::Put(definition) => {
                    if let Some(block) = blocks.next() {
                        self.put(turn, definition, block);
                    }
                }
                Change::Remove(name) => self.remove(turn, &name, Files::Keep),
            }
        }
        Ok(())
    }

    fn put(&mut self, turn: &mut Turn<'_>, definition: Definition, block: crate::ports::Block) {
        let Definition { name, spec, policy, dangling: _ } = definition;
        self.relate(turn, &name, &policy.rescues);
        match self.instances.get_mut(&name) {
            Some(instance) => {
                let record = &mut instance.record;
                record.generation += 1;
                record.spec = spec;
                let from = core::mem::replace(&mut record.block, block);
                let rescues_before = core::mem::replace(&mut instance.policy, *policy).rescues;
                let generation = instance.record.generation;
                instance.note(turn, Kind::Updated { generation });
                if from != block {
                    // Moved twice, its configuration still says where it was at first.
                    instance.record.previous_base.get_or_insert(from.base);
                    instance.note(turn, Kind::Moved { from, to: block });
                }
                if instance.is_running() && instance.policy.rescues != rescues_before {
                    self.inform(turn, &name);
                }
            }
            None => {
                // Reports about an instance of this name that is gone must not be taken for this one's.
                let last = self.graves.remove(&name).unwrap_or_default();
                let record = Record {
                    reserved: Incarnation(last.0.saturating_add(RESERVE)),
                    launched: last,
                    seen: last,
                    ..Record::new(name.clone(), spec, block, turn.now)
                };
                let instance = Instance::new(record, *policy, turn.now);
                instance.note(turn, Kind::Created(block));
                self.instances.insert(name.clone(), instance);
                turn.reserve(&name);
            }
        }
        turn.store_before_launch(&name);
    }

    fn delete(
        &mut self,
        turn: &mut Turn<'_>,
        name: &Name,
        generation: Option<u64>,
        files: Files,
    ) -> Result<(), Denied> {
        self.check_generation(name, generation)?;
        if self.known(name)?.phase != Phase::Stopped {
            return Err(Denied::InstanceRunning(name.clone()));
        }
        self.remove(turn, name, files);
        Ok(())
    }

    /// Marks the instance as one to delete; `settle` ends it, and deletes it once it is stopped.
    fn remove(&mut self, turn: &mut Turn<'_>, name: &Name, files: Files) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        instance.record.deleting = Some(files);
        instance.record.wish = Wish::Down;
        if instance.phase != Phase::Stopped {
            instance.note(turn, Kind::Deleting);
        }
        turn.store(name);
        turn.touch(name);
    }

    fn start(
        &mut self,
        turn: &mut Turn<'_>,
        by: &Asker,
        name: &Name,
        otherwise: Option<Definition>,
    ) -> Result<Created, Denied> {
        let missing = !self.instances.contains_key(name);
        if missing && let Some(definition) = otherwise.filter(|definition| definition.name == *name) {
            self.create(turn, definition)?;
        }
        let instance = self.known(name)?;
        if instance.record.wish == Wish::Down {
            instance.record.wish = Wish::Up;
            instance.note(turn, Kind::WishedUp { by: by.clone() });
            turn.store_before_launch(name);
        }
        let ladder = instance.record.ladder;
        instance.begin_anew(turn);
        if instance.purpose == Purpose::Repair && instance.is_running() {
            // The repair under way is that of the climb which begins now.
            instance.record.ladder = ladder;
        }
        if matches!(instance.phase, Phase::Backoff { .. } | Phase::Failed { .. }) {
            instance.enter(turn, Phase::Stopped);
        }
        turn.touch(name);
        Ok(missing)
    }

    fn stop(&mut self, turn: &mut Turn<'_>, by: &Asker, name: &Name, manner: Manner) -> Result<(), Denied> {
        let instance = self.known(name)?;
        if instance.record.wish == Wish::Up {
            instance.record.wish = Wish::Down;
            instance.note(turn, Kind::WishedDown { by: by.clone() });
            turn.store_before_launch(name);
        }
        self.refresh_goal(name);
        let instance = self.known(name)?;
        let means = instance.means(manner);
        instance.end(turn, means, Then::Rest);
        turn.touch(name);
        Ok(())
    }

    fn restart(
        &mut self,
        turn: &mut Turn<'_>,
        by: &Asker,
        name: &Name,
        manner: Manner,
    ) -> Result<(), Denied> {
        let instance = self.known(name)?;
        if instance.record.wish == Wish::Down {
            return Err(Denied::InstanceDown(name.clone()));
        }
        instance.note(turn, Kind::WishedRestart { by: by.clone() });
        instance.begin_anew(turn);
        let means = instance.means(manner);
        if instance.is_running() {
            instance.end(turn, means, Then::Run);
        } else if instance.phase != Phase::Stopped {
            instance.enter(turn, Phase::Stopped);
        }
        Ok(())
    }

    /// Not in the middle of anything: who stands in for another, or is worked on, is left alone.
    fn recycle(
        &mut self,
        turn: &mut Turn<'_>,
        by: &Asker,
        name: &Name,
        life: Incarnation,
    ) -> Result<(), Denied> {
        let called = self.instances.get(name).is_some_and(|instance| self.is_called(instance));
        let instance = self.known(name)?;
        let own_place = !called && instance.record.standing == Standing::Own;
        let undisturbed = instance.phase == Phase::Ready && instance.goal == Goal::Run;
        if instance.incarnation != life || !own_place || !undisturbed || instance.policy.ladder.held {
            return Err(Denied::NotRecycled(name.clone()));
        }
        instance.note(turn, Kind::WishedRestart { by: by.clone() });
        let means = instance.means(Manner::Graceful);
        instance.end(turn, means, Then::Run);
        Ok(())
    }

    /// An operator wants an older configuration. A gateway that runs is ended first, so that it sees the new one from
    /// the start.
    fn roll_back_by_hand(
        &mut self,
        turn: &mut Turn<'_>,
        by: &Asker,
        name: &Name,
        to: ConfigId,
    ) -> Result<(), Denied> {
        let instance = self.known(name)?;
        instance.record.trial.pardon(to);
        instance.restore(turn, Restoring { to, why: alloc::format!("{by} wished it"), unasked: false });
        let means = instance.means(Manner::Graceful);
        if instance.is_running() {
            instance.end(turn, means, Then::Run);
        } else if instance.goal == Goal::Run && instance.phase != Phase::Stopped {
            instance.begin_anew(turn);
            instance.enter(turn, Phase::Stopped);
        } else {
            instance.restore_now(turn);
        }
        Ok(())
    }

    fn fail_over_by_hand(
        &mut self,
        turn: &mut Turn<'_>,
        primary: &Name,
        rescue: Option<Name>,
    ) -> Result<(), Denied> {
        if let Some(by) = self.known(primary)?.record.standing.stand_in() {
            return Err(Denied::AlreadyFailedOver { primary: primary.clone(), rescue: by.rescue.clone() });
        }
        let rescue = match rescue {
            Some(rescue) => {
                let known = self.known(&rescue)?;
                if !known.policy.rescues.contains(primary) {
                    return Err(Denied::NotARescue { rescue, primary: primary.clone() });
                }
                let able = Self::can_stand_in(known);
                if able && known.record.quarantined.take().is_some() {
                    turn.store(&rescue);
                }
                Some(rescue).filter(|_| able)
            }
            None if self.rescues_of(primary).next().is_none() => {
                return Err(Denied::NoRescue(primary.clone()));
            }
            None => self.candidate(primary, None),
        };
        let rescue = rescue.ok_or_else(|| Denied::RescueDown(primary.clone()))?;
        let incident = self.incident(turn, primary, Cause::ByHand);
        let incident = incident.ok_or_else(|| Denied::UnknownInstance(primary.clone()))?;
        self.promote(turn, primary, &rescue, incident, Urgency::AtOnce);
        Ok(())
    }

    fn fail_back_by_hand(&mut self, turn: &mut Turn<'_>, primary: &Name) -> Result<(), Denied> {
        let instance = self.known(primary)?;
        if instance.record.standing == Standing::Own {
            return Err(Denied::NotFailedOver(primary.clone()));
        }
        if instance.phase != Phase::Ready {
            return Err(Denied::PrimaryNotReady(primary.clone()));
        }
        instance.flaps = 0;
        self.fail_back(turn, primary);
        Ok(())
    }

    fn halt(&mut self, turn: &mut Turn<'_>, id: CommandId) {
        if self.halting.is_none() {
            turn.note_own(Kind::Halting);
        }
        self.halting.get_or_insert_default().push(id);
        let names: Vec<Name> = self.instances.keys().cloned().collect();
        names.iter().for_each(|name| turn.touch(name));
    }

    /// A deleted instance that has stopped is gone.
    pub(crate) fn bury(&mut self, turn: &mut Turn<'_>, name: &Name) {
        let Some(instance) = self.instances.get(name) else { return };
        let Some(files) = instance.record.deleting.filter(|_| instance.phase == Phase::Stopped) else {
            return;
        };
        instance.note(turn, Kind::Deleted);
        let last = instance.incarnation.max(instance.record.launched).max(instance.used);
        let stand_in = instance.record.standing.stand_in().map(|by| by.rescue.clone());
        if let Some(timer) = instance.timer {
            self.timers.remove(&(timer, name.clone()));
        }
        self.ports.free(instance.record.block);
        self.relate(turn, name, &[]);
        self.instances.remove(name);
        if self.graves.len() >= GRAVES {
            self.graves.pop_first();
        }
        self.graves.insert(name.clone(), last);
        turn.writes.push(Write::Remove(name.clone()));
        turn.act_durably(Action::Forget { name: name.clone(), files });
        if let Some(rescue) = stand_in {
            self.stand_down(turn, &rescue);
        }
    }

    /// Keeps the list of who rescues whom. The primaries are looked at again: they may have gained or lost a rescue,
    /// or wait for a failback by its policy.
    pub(crate) fn relate(&mut self, turn: &mut Turn<'_>, rescue: &Name, primaries: &[Name]) {
        let before = self.instances.get(rescue).map(|i| i.policy.rescues.clone()).unwrap_or_default();
        for primary in before.iter().filter(|name| !primaries.contains(name)) {
            if let Some(rescues) = self.rescuers.get_mut(primary) {
                rescues.retain(|name| name != rescue);
            }
            turn.touch(primary);
        }
        self.rescuers.retain(|_, rescues| !rescues.is_empty());
        for primary in primaries {
            let rescues = self.rescuers.entry(primary.clone()).or_default();
            if let Err(place) = rescues.binary_search(rescue) {
                rescues.insert(place, rescue.clone());
            }
            turn.touch(primary);
        }
    }

    /// Shares the spec of an instance.
    #[must_use]
    pub fn spec(&self, name: &Name) -> Option<Arc<str>> {
        self.instances.get(name).map(|instance| Arc::clone(&instance.record.spec))
    }
}

impl Instance {
    /// An operator starts it: what it has been through is forgotten.
    fn begin_anew(&mut self, turn: &mut Turn<'_>) {
        let climbed = self.record.ladder.begin_anew();
        let quarantined = self.record.quarantined.take().is_some();
        if self.record.restarts.forget() || climbed || quarantined {
            turn.store(self.name());
        }
    }
}

/// Each name is defined at most once, and not if it is also removed.
fn check_names(changes: &[Change]) -> Result<(), Denied> {
    let mut removed = BTreeSet::new();
    let mut defined = BTreeSet::new();
    for change in changes {
        match change {
            Change::Remove(name) => {
                removed.insert(name);
            }
            Change::Put(definition) if !defined.insert(&definition.name) => {
                return Err(Denied::InstanceExists(definition.name.clone()));
            }
            Change::Put(_) => {}
        }
    }
    match removed.intersection(&defined).next() {
        Some(name) => Err(Denied::InstanceDeleting((*name).clone())),
        None => Ok(()),
    }
}
