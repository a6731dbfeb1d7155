//! The reference model: what may be true of each instance, worked out from nothing but what core was told, what it
//! wrote down and what it ordered.
//!
//! It is small enough to be seen to be right, and knows none of core's phases. For each name it keeps
//!
//! * what may be alive: nothing, one life, or, after a restart of the supervisor, nobody knows what. Only a proof
//!   ends a life: its exit, a failed launch, a sweep, or an adoption that found nothing;
//! * which ports it has, and that nobody else has or may still use any of them;
//! * who is in its place: itself, a rescue on its way, or a rescue that was ready and may be alive;
//! * what was wished last, and what of that was promised to a caller and so must survive any crash.
//!
//! After every event core has to agree: [`World::compare`].

use std::{mem, time::Duration};

use supervisor_core::{
    action::{Action, Batch, Launch},
    event::{Event, Found},
    failover::Standing,
    ids::{CommandId, Incarnation, Name},
    instance::{Goal, Instance, Phase},
    journal::{Entry, Kind},
    policy::Standby,
    ports::Block,
    record::Wish,
    time::Moment,
};

use crate::{
    check::{Disagreement, Violation},
    fleet::Fleet,
    news::News,
    world::World,
};

/// An exit is not in the future by more than this.
const CLOCKS: Duration = Duration::from_secs(1);

/// What may be alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Alive {
    /// Nothing.
    #[default]
    Nothing,
    /// This life, on these ports, since then at the earliest.
    Perhaps(Incarnation, Block, Moment),
    /// Whatever an earlier supervisor left.
    Unknown,
}

/// Who is in an instance's place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Place {
    /// Itself.
    #[default]
    Own,
    /// Nobody; this rescue is on its way.
    Promised(Name),
    /// This rescue.
    Taken(Name),
}

/// What the journal says of an instance.
#[derive(Debug, Clone, Default)]
struct Book {
    /// Its ports, if there is such an instance.
    block: Option<Block>,
    place: Place,
}

/// What was wished last of one name; no wish is "it should not exist".
#[derive(Debug, Clone, Copy, Default)]
struct Wished {
    wish: Option<Wish>,
    /// The command that wished it, unless it has been answered.
    by: Option<CommandId>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    alive: Alive,
    /// The last exit that was heard of while nobody knew what is alive.
    ended: Option<(Incarnation, Moment)>,
    /// The sweep that was ordered last, unless something was launched since.
    sweep: Option<Incarnation>,
    book: Book,
    /// The same, as it is stored.
    durable: Book,
    wished: Wished,
}

/// The model of all instances.
#[derive(Debug)]
pub(crate) struct Reference {
    models: Vec<Model>,
    halting: bool,
    /// It has been compared with core since one of the two changed.
    compared: bool,
}

impl Reference {
    pub(crate) fn new(names: usize) -> Self {
        Self { models: vec![Model::default(); names], halting: false, compared: false }
    }

    /// Something has changed.
    pub(crate) fn look(&mut self) {
        self.compared = false;
    }

    /// What was wished last.
    pub(crate) fn wish(&self, who: usize) -> Option<Wish> {
        self.models[who].wished.wish
    }

    /// A command was accepted.
    pub(crate) fn wished(&mut self, who: usize, wish: Option<Wish>, by: CommandId) {
        self.compared = false;
        self.models[who].wished = Wished { wish, by: Some(by) };
    }

    /// A caller was told that it is done.
    pub(crate) fn promised(&mut self, id: CommandId) {
        for model in &mut self.models {
            model.wished.by = model.wished.by.filter(|by| *by != id);
        }
    }

    /// The supervisor has died. What was promised is stored; what was not may be.
    pub(crate) fn hang_up(&mut self, who: usize, name: &Name, stored: Option<Wish>) -> Result<(), Violation> {
        let wished = &mut self.models[who].wished;
        if wished.by.is_none() && wished.wish != stored {
            let promised = wished.wish;
            return Err(Violation::PromiseLost { name: name.clone(), promised, stored });
        }
        *wished = Wished { wish: stored, by: None };
        Ok(())
    }

    /// The supervisor has died: what was not stored is forgotten, and nobody knows what is alive.
    pub(crate) fn lose(&mut self) {
        self.halting = false;
        self.compared = false;
        for model in &mut self.models {
            model.book = model.durable.clone();
            model.ended = None;
            model.sweep = None;
            model.alive = if model.book.block.is_some() { Alive::Unknown } else { Alive::Nothing };
        }
    }

    /// Core is told something: is it a proof?
    pub(crate) fn hear(&mut self, fleet: &Fleet, now: Moment, event: &Event) {
        let Some((name, proof)) = proof(event) else { return };
        self.compared = false;
        let Some(model) = fleet.index(name).and_then(|who| self.models.get_mut(who)) else { return };
        model.alive = match (model.alive, proof) {
            (Alive::Unknown, Proof::Found(None)) => Alive::Nothing,
            (Alive::Unknown, Proof::Exited(exited, at)) => {
                model.ended = Some((exited, at));
                Alive::Unknown
            }
            // The news of its end came before the news that it runs.
            (Alive::Unknown, Proof::Found(Some((life, since))))
                if model.ended.is_some_and(|(exited, at)| exited == life && since <= at) =>
            {
                Alive::Nothing
            }
            (Alive::Unknown, Proof::Found(Some((life, since)))) => {
                Alive::Perhaps(life, model.book.block.unwrap_or(Block { base: 0 }), since)
            }
            (_, Proof::Swept(swept)) if model.sweep == Some(swept) => Alive::Nothing,
            (Alive::Perhaps(life, ..), Proof::Failed(failed)) if life == failed => Alive::Nothing,
            // Neither before it began nor in times to come.
            (Alive::Perhaps(life, _, since), Proof::Exited(exited, at))
                if life == exited && since <= at && at.since(now) <= CLOCKS =>
            {
                Alive::Nothing
            }
            (alive, Proof::Found(_) | Proof::Swept(_) | Proof::Failed(_) | Proof::Exited(..)) => alive,
        };
    }

    /// Core begins an action.
    pub(crate) fn order(&mut self, fleet: &Fleet, action: &Action, now: Moment) -> Result<(), Disagreement> {
        match action {
            Action::Launch(Launch { name, incarnation, block, .. }) => {
                self.compared = false;
                let Some(model) = fleet.index(name).map(|who| &mut self.models[who]) else { return Ok(()) };
                model.sweep = None;
                match mem::replace(&mut model.alive, Alive::Perhaps(*incarnation, *block, now)) {
                    Alive::Nothing => Ok(()),
                    before @ (Alive::Perhaps(..) | Alive::Unknown) => Err(Disagreement::LaunchedBesides {
                        name: name.clone(),
                        incarnation: *incarnation,
                        alive: before.to_string(),
                    }),
                }
            }
            Action::Sweep { name, incarnation } => {
                if let Some(who) = fleet.index(name) {
                    self.models[who].sweep = Some(*incarnation);
                }
                Ok(())
            }
            Action::Persist(_)
            | Action::Reply(..)
            | Action::Adopt(_)
            | Action::Stop { .. }
            | Action::Kill { .. }
            | Action::Acknowledge { .. }
            | Action::Release { .. }
            | Action::Probe { .. }
            | Action::Inform { .. }
            | Action::Restore { .. }
            | Action::AskHandoff { .. }
            | Action::Examine { .. }
            | Action::Forget { .. } => Ok(()),
        }
    }

    /// A batch is durable.
    pub(crate) fn stored(&mut self, fleet: &Fleet, batch: &Batch) {
        for entry in &batch.entries {
            let who = entry.instance.as_ref().and_then(|name| fleet.index(name));
            if let Some(model) = who.and_then(|who| self.models.get_mut(who)) {
                model.durable.write(&News::of(&entry.kind));
            }
        }
    }

    /// Core writes down what happened.
    fn note(&mut self, fleet: &Fleet, entry: &Entry) -> Result<(), Disagreement> {
        self.halting |= entry.kind == Kind::Halting;
        let Some(name) = &entry.instance else { return Ok(()) };
        let Some(who) = fleet.index(name) else { return Ok(()) };
        let news = News::of(&entry.kind);
        match news {
            News::Ports(block) | News::Created(block) => self.check_ports(fleet, who, block)?,
            News::Deleted if self.models[who].alive != Alive::Nothing => {
                return Err(Disagreement::DeletedAlive(name.clone()));
            }
            News::Deleted | News::Other => {}
            News::Called(_) | News::StandsIn(_) | News::Back(_) => {
                if !self.is_step(fleet, who, &news) {
                    let before = self.models[who].book.place.to_string();
                    return Err(Disagreement::Step {
                        name: name.clone(),
                        before,
                        then: entry.kind.to_string(),
                    });
                }
            }
        }
        self.models[who].book.write(&news);
        Ok(())
    }

    /// Nobody else has or may use any of the ports that are given.
    fn check_ports(&self, fleet: &Fleet, who: usize, block: Block) -> Result<(), Disagreement> {
        let meets = |model: &Model| {
            let used = if let Alive::Perhaps(_, used, _) = model.alive { Some(used) } else { None };
            model.book.block.into_iter().chain(used).any(|other| other.overlaps(block))
        };
        let other = self.models.iter().enumerate().find(|(other, model)| *other != who && meets(model));
        match other {
            None => Ok(()),
            Some((other, _)) => Err(Disagreement::PortsGivenTwice {
                name: fleet.names[who].clone(),
                block,
                other: fleet.names[other].clone(),
            }),
        }
    }

    /// A place goes from one to another only by the steps of a failover, and only to who may be alive.
    fn is_step(&self, fleet: &Fleet, who: usize, news: &News<'_>) -> bool {
        match (news, &self.models[who].book.place) {
            (News::Called(_), place) => *place == Place::Own,
            (News::StandsIn(rescue), Place::Promised(promised)) => {
                let alive = fleet.index(rescue).map(|rescue| self.models[rescue].alive);
                *rescue == promised && matches!(alive, Some(Alive::Perhaps(..)))
            }
            (News::Back(rescue), Place::Promised(by) | Place::Taken(by)) => *rescue == by,
            (News::StandsIn(_) | News::Back(_), Place::Own | Place::Taken(_)) => false,
            (News::Created(_) | News::Ports(_) | News::Deleted | News::Other, _) => true,
        }
    }

    /// Whether core agrees about `who`.
    fn compare(&self, fleet: &Fleet, who: usize, core: Option<&Instance>) -> Result<(), Disagreement> {
        let (model, name) = (&self.models[who], &fleet.names[who]);
        let Some(core) = core else {
            let unknown = model.book.block.is_none() && model.alive == Alive::Nothing;
            return if unknown { Ok(()) } else { Err(Disagreement::Known(name.clone())) };
        };
        let record = core.record();
        match model.book.block {
            None => return Err(Disagreement::Known(name.clone())),
            Some(block) if block != record.block => return Err(Disagreement::Ports(name.clone())),
            Some(_) => {}
        }
        let known = record.deleting.is_none().then_some(record.wish);
        if model.wished.wish != known {
            let wished = model.wished.wish;
            return Err(Disagreement::Wish { name: name.clone(), wished, known });
        }
        if !agrees(model.alive, core) {
            let (phase, incarnation) = (core.phase().clone(), core.incarnation());
            let (name, alive) = (name.clone(), model.alive.to_string());
            return Err(Disagreement::Alive { name, phase, incarnation, alive });
        }
        let same = match (&model.book.place, &record.standing) {
            (Place::Own, Standing::Own) => true,
            (Place::Promised(rescue), Standing::Promoting(by))
            | (Place::Taken(rescue), Standing::Away(by)) => *rescue == by.rescue,
            (Place::Own | Place::Promised(_) | Place::Taken(_), _) => false,
        };
        if !same {
            let (place, standing) = (model.book.place.to_string(), format!("{:?}", record.standing));
            return Err(Disagreement::Place { name: name.clone(), place, standing });
        }
        if self.goal(fleet, who, core) == core.goal() {
            Ok(())
        } else {
            Err(Disagreement::Goal(name.clone(), core.goal()))
        }
    }

    /// Whether it should run.
    fn goal(&self, fleet: &Fleet, who: usize, core: &Instance) -> Goal {
        let policy = core.policy();
        let called = || {
            let primaries = policy.rescues.iter().filter_map(|primary| fleet.index(primary));
            let mut places = primaries.map(|primary| &self.models[primary].book.place);
            places.any(|place| match place {
                Place::Own => false,
                Place::Promised(rescue) | Place::Taken(rescue) => *rescue == fleet.names[who],
            })
        };
        let wanted = !self.halting && self.models[who].wished.wish == Some(Wish::Up);
        let needed = policy.rescues.is_empty() || policy.rescue.standby == Standby::Warm || called();
        if wanted && needed { Goal::Run } else { Goal::Rest }
    }
}

/// Whether what core thinks is alive may be, and nothing else.
fn agrees(alive: Alive, core: &Instance) -> bool {
    let current = matches!(alive, Alive::Perhaps(life, ..) if life == core.incarnation());
    match core.phase() {
        Phase::Stopped | Phase::Backoff { .. } | Phase::Failed { .. } => alive == Alive::Nothing,
        Phase::Spawning if core.waits_for_disk() => alive == Alive::Nothing,
        Phase::Spawning | Phase::Starting | Phase::Ready | Phase::Unhealthy => current,
        Phase::Adopting => alive == Alive::Unknown,
        // Only a proof that has not been heard yet, or a sweep, ends it.
        Phase::Stopping { .. } => true,
    }
}

/// What an event may prove.
enum Proof {
    /// This life was left, since then; or nothing was.
    Found(Option<(Incarnation, Moment)>),
    /// Nothing is alive, as asked about this life.
    Swept(Incarnation),
    /// This life never began.
    Failed(Incarnation),
    /// This life ended then.
    Exited(Incarnation, Moment),
}

fn proof(event: &Event) -> Option<(&Name, Proof)> {
    match event {
        Event::Adopted(name, adoption) => {
            let found = match adoption.found {
                Found::Running { incarnation, process, .. } => Some((incarnation, process.started)),
                Found::Idle { .. } | Found::Nothing => None,
            };
            Some((name, Proof::Found(found)))
        }
        Event::Swept(name, incarnation) => Some((name, Proof::Swept(*incarnation))),
        Event::LaunchFailed(name, incarnation, _) => Some((name, Proof::Failed(*incarnation))),
        Event::Exited(name, exit) => Some((name, Proof::Exited(exit.incarnation, exit.at))),
        Event::Command(..)
        | Event::Stored(_)
        | Event::StoreFailing(_)
        | Event::Tick
        | Event::Launched(..)
        | Event::Notified(..)
        | Event::Probed(..)
        | Event::WorkerLost(..)
        | Event::Handoff(..)
        | Event::Examined(..)
        | Event::ConfigSeen(..)
        | Event::Restored(..)
        | Event::RestoreFailed(..)
        | Event::FilesLeft(..) => None,
    }
}

impl Book {
    fn write(&mut self, news: &News<'_>) {
        match news {
            News::Created(block) => *self = Self { block: Some(*block), place: Place::Own },
            News::Ports(block) => self.block = Some(*block),
            News::Deleted => *self = Self::default(),
            News::Called(rescue) => self.place = Place::Promised((*rescue).clone()),
            News::StandsIn(rescue) => self.place = Place::Taken((*rescue).clone()),
            News::Back(_) => self.place = Place::Own,
            News::Other => {}
        }
    }
}

impl std::fmt::Display for Alive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Perhaps(life, ..) => life.fmt(f),
            Self::Unknown => f.write_str("anything"),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => f.write_str("in its own place"),
            Self::Promised(rescue) => write!(f, "`{rescue}` on its way"),
            Self::Taken(rescue) => write!(f, "`{rescue}` in its place"),
        }
    }
}

impl World {
    /// What core writes down is compared with what may be.
    pub(crate) fn note(&mut self, actions: &[Action]) -> Result<(), Violation> {
        for action in actions {
            let Action::Persist(batch) = action else { continue };
            for entry in &batch.entries {
                self.reference.note(&self.fleet, entry)?;
            }
        }
        Ok(())
    }

    /// Once everything is done about an event, core and the model agree.
    pub(crate) fn compare(&mut self) -> Result<(), Violation> {
        let Some(core) = self.core.as_ref().filter(|_| !self.reference.compared) else { return Ok(()) };
        self.reference.compared = true;
        for (who, name) in self.fleet.names.iter().enumerate() {
            self.reference.compare(&self.fleet, who, core.instance(name))?;
        }
        Ok(())
    }
}
