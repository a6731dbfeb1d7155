//! Callers: what they ask for, and that each of them is answered once, and not too early.

use std::collections::BTreeMap;

use supervisor_core::{
    action::{Action, Done},
    denied::Denied,
    event::{ApplyMode, Asker, Change, Command, Event, Files, Manner},
    ids::{CommandId, Incarnation, Name, Revision},
    instance::Instance,
    ports::Pool,
    record::Wish,
};

use crate::{
    agenda::Next,
    chance::{Lot, NOBODY, Swarm},
    check::Violation,
    world::World,
};

/// Who waits for an answer.
#[derive(Debug)]
struct Waiting {
    needs: Revision,
    halts: bool,
}

/// All callers.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    last: u64,
    waiting: BTreeMap<CommandId, Waiting>,
}

impl Clients {
    /// Somebody who waits.
    pub(crate) fn waiting(&self) -> Option<CommandId> {
        self.waiting.keys().next().copied()
    }
}

impl World {
    /// A caller asks for something, others perhaps at the same moment, and the next one will.
    pub(crate) fn on_caller(&mut self) -> Result<(), Violation> {
        let span = self.chance.draw(Lot::Caller, NOBODY).around(self.rates.commands);
        self.after(span, Next::Caller);
        let mut asks = self.strikes(Lot::Command, NOBODY);
        while let Some(mut swarm) = asks {
            if self.core.is_none() {
                return Ok(());
            }
            let command = self.draw_command(&mut swarm);
            self.submit(command)?;
            asks = self.strikes(Lot::Crowd, NOBODY);
        }
        if self.core.is_some()
            && let Some(mut swarm) = self.strikes(Lot::ConfigCommand, NOBODY)
            && let Some(command) = self.draw_config_command(&mut swarm)
        {
            self.submit(command)?;
        }
        Ok(())
    }

    pub(crate) fn submit(&mut self, command: Command) -> Result<(), Violation> {
        self.clients.last += 1;
        let id = CommandId(self.clients.last);
        let wishes = self.wishes_of(&command);
        let halts = command == Command::Halt;
        self.ask_watched(&command);
        self.clients.waiting.insert(id, Waiting { needs: Revision(0), halts });
        let mut actions = Vec::new();
        self.handle(Event::Command(id, Asker::Operator, command), &mut actions)?;
        let refused = |action: &Action| matches!(action, Action::Reply(to, Err(_)) if *to == id);
        let allowed = !actions.iter().any(refused);
        self.answer_watched(allowed);
        if allowed {
            wishes.into_iter().for_each(|(who, wish)| self.reference.wished(who, wish, id));
            let needs = actions.iter().filter_map(|action| {
                if let Action::Persist(batch) = action { Some(batch.revision) } else { None }
            });
            if let (Some(needs), Some(waiting)) = (needs.max(), self.clients.waiting.get_mut(&id)) {
                waiting.needs = needs;
            }
        }
        self.perform(&mut actions)
    }

    /// What will be wished of whom, should the command be allowed.
    fn wishes_of(&self, command: &Command) -> Vec<(usize, Option<Wish>)> {
        let known = |who: usize| self.reference.wish(who).is_some();
        let of = |name, wish| self.fleet.index(name).map(|who| (who, wish)).into_iter().collect();
        match command {
            Command::Create(definition) => of(&definition.name, Some(Wish::Down)),
            Command::Start { name, .. } => of(name, Some(Wish::Up)),
            Command::Stop { name, .. } => of(name, Some(Wish::Down)),
            Command::Delete { name, .. } => of(name, None),
            Command::Apply { changes, mode: ApplyMode::Do, .. } => {
                let wish = |change: &Change| match change {
                    Change::Put(definition) => {
                        let who = self.fleet.index(&definition.name)?;
                        (!known(who)).then_some((who, Some(Wish::Down)))
                    }
                    Change::Remove(name) => Some((self.fleet.index(name)?, None)),
                };
                changes.iter().filter_map(wish).collect()
            }
            Command::Apply { mode: ApplyMode::Validate, .. }
            | Command::Update { .. }
            | Command::Restart { .. }
            | Command::Recycle { .. }
            | Command::FailOver { .. }
            | Command::FailBack { .. }
            | Command::RollBack { .. }
            | Command::MarkGood { .. }
            | Command::Halt => Vec::new(),
        }
    }

    pub(crate) fn on_reply(
        &mut self,
        id: CommandId,
        outcome: &Result<Done, Denied>,
    ) -> Result<(), Violation> {
        let Some(waiting) = self.clients.waiting.remove(&id) else {
            return Err(Violation::AnsweredTwice(id));
        };
        if outcome.is_err() {
            return Ok(());
        }
        let stored = self.store.durable.revision;
        if waiting.needs > stored {
            return Err(Violation::AnsweredEarly { id, needs: waiting.needs, stored });
        }
        self.reference.promised(id);
        if waiting.halts {
            if let Some(who) = self.host.machines.iter().position(|machine| machine.life.is_some()) {
                return Err(Violation::AliveAfterHalt(self.fleet.names[who].clone()));
            }
            self.after(supervisor_core::instance::STOP_SLACK, Next::Ends(self.epoch));
        }
        Ok(())
    }

    /// The supervisor has died: whoever waited is not answered, and what was promised is stored.
    pub(crate) fn hang_up(&mut self) -> Result<(), Violation> {
        self.clients.waiting.clear();
        for (who, name) in self.fleet.names.iter().enumerate() {
            let record = self.store.durable.records.get(name).filter(|record| record.deleting.is_none());
            self.reference.hang_up(who, name, record.map(|record| record.wish))?;
        }
        Ok(())
    }

    fn draw_command(&mut self, swarm: &mut Swarm) -> Command {
        let count = self.fleet.names.len();
        let who = swarm.below(count);
        let name = self.fleet.names[who].clone();
        let unknown = self.reference.wish(who).is_none();
        let draw = swarm.below(100);
        let manner = swarm.one_of(&[Manner::Graceful, Manner::Graceful, Manner::Force]);
        let files = swarm.one_of(&[Files::Keep, Files::Purge]);
        let by_name = swarm.often(300);
        let generation = swarm.often(50).then_some(1);
        match draw {
            _ if unknown && draw < 60 => {
                let otherwise = Some(self.fleet.define(swarm, who));
                Command::Start { name, otherwise }
            }
            0..10 if unknown => Command::Create(self.fleet.define(swarm, who)),
            0..30 => Command::Start { name, otherwise: None },
            30..45 => Command::Stop { name, manner },
            45..57 => Command::Restart { name, manner },
            57..60 => Command::Recycle { life: self.draw_life(swarm, &name), name },
            60..70 => Command::Update { definition: self.fleet.define(swarm, who), generation },
            70..75 => Command::Delete { name, generation, files },
            75..82 => {
                let rescue = swarm.below(count);
                Command::FailOver { primary: name, rescue: by_name.then(|| self.fleet.names[rescue].clone()) }
            }
            82..89 => Command::FailBack { primary: name },
            89..99 => self.draw_apply(swarm),
            _ => Command::Halt,
        }
    }

    /// The current life of an instance, as far as the caller knows.
    fn draw_life(&self, swarm: &mut Swarm, name: &Name) -> Incarnation {
        let known = self.core.as_ref().and_then(|core| core.instance(name));
        let Incarnation(life) = known.map_or(Incarnation(0), Instance::incarnation);
        Incarnation(life.saturating_sub(u64::from(swarm.often(200))))
    }

    fn draw_apply(&mut self, swarm: &mut Swarm) -> Command {
        let mut changes = Vec::new();
        for who in 0..self.fleet.names.len() {
            match swarm.below(6) {
                0 => changes.push(Change::Put(self.fleet.define(swarm, who))),
                1 => changes.push(Change::Remove(self.fleet.names[who].clone())),
                _ => {}
            }
        }
        let pool = swarm.often(100).then(|| {
            let first = swarm.one_of(&[18_789, 19_000]);
            Pool { first, last: first + swarm.one_of(&[40, 100, 10_000]) }
        });
        let mode = swarm.one_of(&[ApplyMode::Do, ApplyMode::Do, ApplyMode::Do, ApplyMode::Validate]);
        Command::Apply { changes, pool, mode }
    }
}
