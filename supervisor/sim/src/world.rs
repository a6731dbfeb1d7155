//! The world: its clock, the list of what happens next, and the supervisor in the middle of it.

use std::{sync::Arc, time::Duration};

use supervisor_core::{
    Supervisor,
    action::Action,
    event::Event,
    instance::{Boot, Instance},
    time::Moment,
    view::View,
};

use crate::{
    agenda::{Agenda, Epoch, Next},
    chance::{Chance, Injection, Lot, NOBODY, Permille, Swarm},
    check::{self, Violation},
    client::Clients,
    config::Config,
    fault::{Rates, Setup},
    fleet::Fleet,
    host::Host,
    reference::Reference,
    store::Store,
    tasks::Task,
    trace::{Line, Scribe},
    trial::{Watched, watch_sighting},
    watch::{Counted, Source},
};

/// Events within one moment; more is a circle.
const AT_ONCE: u32 = 10_000;

/// How often it is looked at whether all is well once the faults have ended.
const LOOK: Duration = Duration::from_secs(10);

/// How long all has to stay well.
const QUIET: Duration = Duration::from_secs(60);

/// How long it may take until all is well. The longest wait is a failback doubled six times.
const PATIENCE: Duration = Duration::from_secs(7_200);

/// When every world begins.
pub(crate) const BEGINNING: Moment = Moment(1_000_000_000_000_000_000);

/// What a run was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Things that happened in the world.
    pub happenings: u64,
    /// Those of them that core was told of.
    pub events: u64,
    /// Actions that were begun.
    pub actions: u64,
    /// Gateways launched.
    pub launches: u64,
    /// Deaths of the supervisor.
    pub deaths: u64,
    /// Rescues that stood in.
    pub failovers: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            happenings: self.happenings + other.happenings,
            events: self.events + other.events,
            actions: self.actions + other.actions,
            launches: self.launches + other.launches,
            deaths: self.deaths + other.deaths,
            failovers: self.failovers + other.failovers,
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What it was made of.
    pub tally: Tally,
    /// How long it took, as the world has it.
    pub lasted: Duration,
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
    /// The faults that struck and the commands that were given.
    pub struck: Vec<Injection>,
    /// What happened, if it was written down.
    pub lines: Vec<Line>,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) now: Moment,
    /// How far the host's clock is behind.
    pub(crate) behind: Duration,
    pub(crate) chance: Chance,
    pub(crate) rates: Rates,
    pub(crate) calm: bool,
    pub(crate) epoch: Epoch,
    pub(crate) core: Option<Supervisor>,
    pub(crate) fleet: Fleet,
    pub(crate) host: Host,
    pub(crate) configs: Vec<Config>,
    pub(crate) tasks: Vec<Task>,
    /// When each source's last report arrives; the disk's is the last.
    pub(crate) told: Vec<Moment>,
    pub(crate) store: Store,
    pub(crate) clients: Clients,
    pub(crate) reference: Reference,
    pub(crate) tally: Tally,
    agenda: Agenda,
    /// Core's next deadline, and when its tick comes.
    pub(crate) tick: Option<(Moment, Moment)>,
    /// An empty list of actions, for the next event.
    spare: Vec<Action>,
    pub(crate) view: View,
    /// The instances as they were when they were last looked at.
    pub(crate) seen: Vec<Option<Arc<Instance>>>,
    pub(crate) boot: Boot,
    pub(crate) counted: Vec<Counted>,
    /// What is known from outside of trials and climbs.
    pub(crate) watched: Vec<Watched>,
    /// When the faults ended.
    calmed: Moment,
    /// Since when all is well, and how often had been launched then.
    well: Option<(Moment, u64)>,
    pub(crate) scribe: Scribe,
}

/// Runs a world to its end.
#[must_use]
pub fn run(setup: &Setup, scribe: Scribe) -> Outcome {
    let mut world = World::new(setup, scribe);
    let violation = world.live().err();
    let lasted = world.now.since(BEGINNING);
    let (tally, struck) = (world.tally, world.chance.struck);
    Outcome { tally, lasted, violation, struck, lines: world.scribe.into_lines() }
}

impl World {
    fn new(setup: &Setup, scribe: Scribe) -> Self {
        let fleet = Fleet::new(setup);
        let names = fleet.names.len();
        let mut world = Self {
            now: BEGINNING,
            behind: Duration::ZERO,
            chance: Chance::new(setup.seed, setup.kept.clone()),
            rates: Rates::of(&setup.faults),
            calm: false,
            epoch: 0,
            core: None,
            host: Host::new(names),
            configs: vec![Config::default(); names],
            tasks: vec![Task::default(); names],
            told: vec![BEGINNING; NOBODY + 1],
            store: Store::default(),
            clients: Clients::default(),
            reference: Reference::new(names),
            tally: Tally::default(),
            agenda: Agenda::default(),
            tick: None,
            spare: Vec::new(),
            view: View::default(),
            seen: vec![None; names],
            boot: Boot::New,
            counted: vec![Counted::default(); names],
            watched: vec![Watched::default(); names],
            calmed: BEGINNING,
            well: None,
            scribe,
            fleet,
        };
        world.after(Duration::ZERO, Next::Begins);
        world.after(Duration::ZERO, Next::Caller);
        world.after(Duration::from_secs(setup.faults.span_s), Next::Calm);
        world.draw_next(Lot::SupervisorDies, Next::Dies);
        world.draw_next(Lot::HostSleeps, Next::Sleeps);
        world.draw_next(Lot::Edited, Next::Edits);
        world
    }

    /// What happens again and again, with the same mean time between.
    pub(crate) fn draw_next(&mut self, lot: Lot, next: Next) {
        if let Some(mean) = self.rates.every(lot) {
            let span = self.chance.draw(lot, NOBODY).around(mean);
            self.after(span, next);
        }
    }

    /// Whether a fault strikes, and what else is drawn about it.
    pub(crate) fn strikes(&mut self, lot: Lot, who: usize) -> Option<Swarm> {
        self.chance.strikes(lot, who, self.rates.often(lot))
    }

    pub(crate) fn strikes_so(&mut self, lot: Lot, who: usize, often: Permille) -> Option<Swarm> {
        self.chance.strikes(lot, who, often)
    }

    /// A span of no importance.
    pub(crate) fn span(&mut self, lot: Lot, who: usize, most: Duration) -> Duration {
        self.chance.draw(lot, who).span(most)
    }

    pub(crate) fn after(&mut self, span: Duration, next: Next) {
        self.at(self.now + span, next);
    }

    pub(crate) fn at(&mut self, at: Moment, next: Next) {
        self.agenda.put(at, next);
    }

    /// What the host's clock says.
    pub(crate) fn clock(&self) -> Moment {
        Moment(self.now.0.saturating_sub(nanos(self.behind)))
    }

    /// Something happens that core does not see.
    pub(crate) fn narrate(&mut self, text: impl FnOnce() -> String) {
        self.scribe.happening(self.now.since(BEGINNING), text);
    }

    /// Lets happen what happens, until all has been well for long enough.
    fn live(&mut self) -> Result<(), Violation> {
        let (mut moment, mut at_once) = (self.now, 0);
        loop {
            match (self.next_tick(), self.agenda.soonest()) {
                (Some(due), Some(soonest)) if due <= soonest => self.on_tick(due)?,
                (Some(due), None) => self.on_tick(due)?,
                (_, Some(_)) => {
                    let Some((at, next)) = self.agenda.take() else { return Ok(()) };
                    self.now = self.now.max(at);
                    if self.happen(next)? == Life::Over {
                        return Ok(());
                    }
                }
                (None, None) => return Ok(()),
            }
            self.tally.happenings += 1;
            at_once = if self.now == moment { at_once + 1 } else { 0 };
            moment = self.now;
            if at_once > AT_ONCE {
                return Err(Violation::NoProgress(moment));
            }
        }
    }

    /// When core's next tick comes.
    fn next_tick(&mut self) -> Option<Moment> {
        let deadline = self.core.as_ref()?.next_deadline()?.at;
        let due = deadline + self.behind;
        match self.tick {
            Some((for_deadline, at)) if for_deadline == due => Some(at),
            Some(_) | None => {
                let late = self.rates.late_ticks;
                let late = if late.is_zero() { late } else { self.span(Lot::Tick, NOBODY, late) };
                self.tick = Some((due, due + late));
                Some(due + late)
            }
        }
    }

    fn on_tick(&mut self, due: Moment) -> Result<(), Violation> {
        self.now = self.now.max(due);
        self.tick = None;
        self.take_in(Event::Tick)
    }

    fn happen(&mut self, next: Next) -> Result<Life, Violation> {
        match next {
            Next::Tell(epoch, event) if epoch == self.epoch => self.take_in(*event)?,
            Next::Order(epoch, who) if epoch == self.epoch => self.on_order(who)?,
            Next::Probed(epoch, who, incarnation) if epoch == self.epoch => self.on_probed(who, incarnation),
            Next::Written(epoch) if epoch == self.epoch => self.on_written()?,
            Next::Noticed(epoch, who) if epoch == self.epoch => self.on_noticed(who),
            Next::Kept(epoch, who, content, life) if epoch == self.epoch => self.on_kept(who, content, life),
            Next::Tell(..)
            | Next::Order(..)
            | Next::Probed(..)
            | Next::Written(_)
            | Next::Noticed(..)
            | Next::Kept(..) => {}
            Next::Gateway(who, serial, turn) => self.on_gateway(who, serial, turn),
            Next::WorkerDies(who, serial) => self.on_worker_dies(who, serial),
            Next::Caller | Next::Dies | Next::Sleeps | Next::Edits if self.calm => {}
            Next::Caller => self.on_caller()?,
            Next::Dies => self.on_death_drawn()?,
            Next::Sleeps => self.on_sleep(),
            Next::Edits => self.on_edit(),
            Next::Ends(epoch) if epoch == self.epoch => self.on_supervisor_dies()?,
            Next::Ends(_) => {}
            Next::Begins => self.on_supervisor_begins()?,
            Next::Calm => {
                self.narrate(|| "nothing goes wrong any more".into());
                self.calm = true;
                self.calmed = self.now;
                self.rates = Rates::none();
                self.heal();
                self.mend();
                self.after(LOOK, Next::Look);
            }
            Next::Look => return self.on_look(),
        }
        Ok(Life::GoesOn)
    }

    /// The supervisor takes an event in and does what follows.
    pub(crate) fn take_in(&mut self, event: Event) -> Result<(), Violation> {
        let mut actions = std::mem::take(&mut self.spare);
        self.check_overtaken(&event);
        self.handle(event, &mut actions)?;
        self.perform(&mut actions)?;
        actions.clear();
        self.spare = actions;
        Ok(())
    }

    /// Core handles an event; nothing is done about it yet.
    pub(crate) fn handle(&mut self, event: Event, actions: &mut Vec<Action>) -> Result<(), Violation> {
        let now = self.clock();
        let Some(core) = &mut self.core else { return Ok(()) };
        self.scribe.event(self.now.since(BEGINNING), &event, self.calm);
        self.tally.events += 1;
        self.reference.hear(&self.fleet, now, &event);
        let source = Source::of(&event, core, now);
        watch_sighting(core, &self.fleet, &mut self.watched, &event);
        core.handle(now, event, actions);
        self.examine(actions, &source)
    }

    fn on_look(&mut self) -> Result<Life, Violation> {
        match (check::settled(self), self.well) {
            (Ok(()), Some((since, launches))) if launches == self.tally.launches => {
                if self.now.since(since) >= QUIET {
                    return Ok(Life::Over);
                }
            }
            (Ok(()), _) => self.well = Some((self.now, self.tally.launches)),
            (Err(what), _) if self.now.since(self.calmed) > PATIENCE => {
                return Err(Violation::NotSettled(what));
            }
            (Err(_), _) => self.well = None,
        }
        self.mend();
        self.after(LOOK, Next::Look);
        Ok(Life::GoesOn)
    }
}

pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether there is more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    GoesOn,
    Over,
}
