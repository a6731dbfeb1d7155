//! Callers: what they ask for, what they were promised, and what they may conclude from it.

use std::collections::BTreeMap;

use supervisor_core::{
    action::{Action, Done},
    denied::Denied,
    event::{ApplyMode, Change, Command, Event, Files, Manner},
    ids::{CommandId, Revision},
    ports::Pool,
    record::Wish,
};

use crate::{
    check::Violation,
    fault::Swarm,
    world::{Next, World},
};

/// What was wished last of one name; no wish is "it should not exist".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wished {
    wish: Option<Wish>,
    /// The command that wished it, unless it has been answered.
    by: Option<CommandId>,
}

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
    wishes: Vec<Wished>,
}

impl Clients {
    pub(crate) fn new(names: usize) -> Self {
        Self { wishes: vec![Wished::default(); names], ..Self::default() }
    }

    /// Somebody who waits.
    pub(crate) fn waiting(&self) -> Option<CommandId> {
        self.waiting.keys().next().copied()
    }

    /// What was wished last.
    pub(crate) fn wish(&self, who: usize) -> Option<Wish> {
        self.wishes[who].wish
    }
}

impl World {
    /// A caller asks for something, and the next one will.
    pub(crate) fn on_caller(&mut self) -> Result<(), Violation> {
        let span = Swarm(&mut self.rng).around(self.faults.commands);
        self.after(span, Next::Caller);
        if self.core.is_none() {
            return Ok(());
        }
        let command = self.draw_command();
        self.submit(command)
    }

    pub(crate) fn submit(&mut self, command: Command) -> Result<(), Violation> {
        self.clients.last += 1;
        let id = CommandId(self.clients.last);
        let wishes = self.wishes_of(&command);
        let halts = command == Command::Halt;
        self.clients.waiting.insert(id, Waiting { needs: Revision(0), halts });
        let mut actions = self.handle(Event::Command(id, command))?;
        if !actions.iter().any(|action| matches!(action, Action::Reply(to, Err(_)) if *to == id)) {
            for (who, wish) in wishes {
                self.clients.wishes[who] = Wished { wish, by: Some(id) };
            }
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
        let known = |who: usize| self.clients.wishes[who].wish.is_some();
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
            | Command::FailOver { .. }
            | Command::FailBack { .. }
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
        for wished in &mut self.clients.wishes {
            wished.by = wished.by.filter(|by| *by != id);
        }
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
        for (who, wished) in self.clients.wishes.iter_mut().enumerate() {
            let name = &self.fleet.names[who];
            let record = self.store.durable.records.get(name).filter(|record| record.deleting.is_none());
            let stored = record.map(|record| record.wish);
            if wished.by.is_none() && wished.wish != stored {
                return Err(Violation::PromiseLost { name: name.clone(), promised: wished.wish, stored });
            }
            *wished = Wished { wish: stored, by: None };
        }
        Ok(())
    }

    fn draw_command(&mut self) -> Command {
        let count = u64::try_from(self.fleet.names.len()).unwrap_or(1);
        let who = usize::try_from(self.rng.below(count)).unwrap_or(0);
        let name = self.fleet.names[who].clone();
        let unknown = self.clients.wishes[who].wish.is_none();
        let draw = self.rng.below(100);
        let mut swarm = Swarm(&mut self.rng);
        let manner = swarm.one_of(&[Manner::Graceful, Manner::Graceful, Manner::Force]);
        let files = swarm.one_of(&[Files::Keep, Files::Purge]);
        let by_name = swarm.often(300);
        let generation = swarm.often(50).then_some(1);
        match draw {
            _ if unknown && draw < 60 => {
                let otherwise = Some(self.fleet.define(&mut self.rng, who));
                Command::Start { name, otherwise }
            }
            0..10 if unknown => Command::Create(self.fleet.define(&mut self.rng, who)),
            0..30 => Command::Start { name, otherwise: None },
            30..45 => Command::Stop { name, manner },
            45..60 => Command::Restart { name, manner },
            60..70 => Command::Update { definition: self.fleet.define(&mut self.rng, who), generation },
            70..75 => Command::Delete { name, generation, files },
            75..82 => {
                let rescue = usize::try_from(self.rng.below(count)).unwrap_or(0);
                Command::FailOver { primary: name, rescue: by_name.then(|| self.fleet.names[rescue].clone()) }
            }
            82..89 => Command::FailBack { primary: name },
            89..99 => self.draw_apply(),
            _ => Command::Halt,
        }
    }

    fn draw_apply(&mut self) -> Command {
        let mut changes = Vec::new();
        for who in 0..self.fleet.names.len() {
            match self.rng.below(6) {
                0 => changes.push(Change::Put(self.fleet.define(&mut self.rng, who))),
                1 => changes.push(Change::Remove(self.fleet.names[who].clone())),
                _ => {}
            }
        }
        let mut swarm = Swarm(&mut self.rng);
        let pool = swarm.often(100).then(|| {
            let first = swarm.one_of(&[18_789, 19_000]);
            Pool { first, last: first + swarm.one_of(&[40, 100, 10_000]) }
        });
        let mode = swarm.one_of(&[ApplyMode::Do, ApplyMode::Do, ApplyMode::Do, ApplyMode::Validate]);
        Command::Apply { changes, pool, mode }
    }
}
