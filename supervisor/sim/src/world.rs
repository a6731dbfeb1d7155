//! The world: its clock, the list of what happens next, and the supervisor in the middle of it.

use std::{cmp::Ordering, collections::BinaryHeap, fmt, time::Duration};

use supervisor_core::{
    Origin, Supervisor, action::Action, event::Event, ids::Incarnation, instance::Boot, rng::Rng,
    time::Moment, view::View,
};

use crate::{
    check::{self, Violation},
    client::Clients,
    fault::{Faults, Swarm},
    fleet::Fleet,
    host::{Host, Serial, Turn},
    store::Store,
    tasks::Task,
    watch::{Counted, Source},
};

/// Lines of a trace that are kept.
const TRACE: usize = 400;

/// Events within one moment; more is a circle.
const AT_ONCE: u32 = 10_000;

/// How often it is looked at whether all is well once the faults have ended.
const LOOK: Duration = Duration::from_secs(10);

/// How long all has to stay well.
const QUIET: Duration = Duration::from_secs(60);

/// How long it may take until all is well. The longest wait is a failback doubled six times.
const PATIENCE: Duration = Duration::from_secs(7_200);

/// The number of a supervisor's life. What was on its way to an earlier one never comes.
pub(crate) type Epoch = u64;

/// What happens next.
#[derive(Debug)]
pub(crate) enum Next {
    /// An event reaches the supervisor.
    Tell(Epoch, Box<Event>),
    /// A task has carried out an order.
    Order(Epoch, usize),
    /// A probe has its answer.
    Probed(Epoch, usize, Incarnation),
    /// The disk has written.
    Written(Epoch),
    /// Something becomes of a gateway.
    Gateway(usize, Serial, Turn),
    /// A worker dies.
    WorkerDies(usize, Serial),
    /// A caller asks for something.
    Caller,
    /// The supervisor dies.
    Dies,
    /// The supervisor has halted and ends.
    Ends(Epoch),
    /// The next supervisor begins.
    Begins,
    /// Nothing goes wrong any more.
    Calm,
    /// Is all well?
    Look,
}

struct Coming {
    at: Moment,
    number: u64,
    next: Next,
}

impl PartialEq for Coming {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Coming {}

impl PartialOrd for Coming {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Coming {
    /// The soonest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What a run was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that core handled.
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
            events: self.events + other.events,
            actions: self.actions + other.actions,
            launches: self.launches + other.launches,
            deaths: self.deaths + other.deaths,
            failovers: self.failovers + other.failovers,
        }
    }
}

/// Whether a run is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// It is not; fast.
    Off,
    /// The end of it is.
    On,
}

/// A run that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// Shows it again.
    pub seed: u64,
    /// When.
    pub at: Moment,
    /// What.
    pub violation: Violation,
    /// The faults that were drawn.
    pub faults: Faults,
    /// What happened before, if it was written down.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "faults: {}", self.faults)?;
        write!(f, "seed {} after {:?}: {}", self.seed, self.at.since(BEGINNING), self.violation)
    }
}

/// When every world begins.
const BEGINNING: Moment = Moment(1_000_000_000_000);

/// Everything there is.
pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) calm: bool,
    pub(crate) epoch: Epoch,
    pub(crate) core: Option<Supervisor>,
    pub(crate) fleet: Fleet,
    pub(crate) host: Host,
    pub(crate) tasks: Vec<Task>,
    /// When each source's last report arrives; the disk's is the last.
    pub(crate) told: Vec<Moment>,
    pub(crate) store: Store,
    pub(crate) clients: Clients,
    pub(crate) tally: Tally,
    coming: BinaryHeap<Coming>,
    number: u64,
    pub(crate) view: View,
    boot: Boot,
    pub(crate) counted: Vec<Counted>,
    /// When the faults ended.
    calmed: Moment,
    /// Since when all is well, and how often had been launched then.
    well: Option<(Moment, u64)>,
    pub(crate) trace: Option<Vec<String>>,
}

/// Runs the world of `seed` to its end.
pub fn run(seed: u64, trace: Trace) -> Result<Tally, Box<Failure>> {
    let mut world = World::new(seed, trace);
    let faults = world.faults.clone();
    match world.live() {
        Ok(()) => Ok(world.tally),
        Err(violation) => {
            let trace = world.trace.unwrap_or_default();
            Err(Box::new(Failure { seed, at: world.now, violation, faults, trace }))
        }
    }
}

impl World {
    fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let faults = Faults::draw(&mut rng);
        let fleet = Fleet::draw(&mut rng);
        let names = fleet.names.len();
        let mut world = Self {
            now: BEGINNING,
            rng,
            calm: false,
            epoch: 0,
            core: None,
            host: Host::new(names),
            tasks: vec![Task::default(); names],
            told: vec![BEGINNING; names + 1],
            store: Store::default(),
            clients: Clients::new(names),
            tally: Tally::default(),
            coming: BinaryHeap::new(),
            number: 0,
            view: View::default(),
            boot: Boot::New,
            counted: vec![Counted::default(); names],
            calmed: BEGINNING,
            well: None,
            trace: (trace == Trace::On).then(Vec::new),
            fleet,
            faults,
        };
        world.after(Duration::ZERO, Next::Begins);
        world.after(Duration::ZERO, Next::Caller);
        world.after(world.faults.span, Next::Calm);
        world.draw_death();
        world
    }

    fn draw_death(&mut self) {
        if let Some(mean) = self.faults.supervisor_dies {
            let span = Swarm(&mut self.rng).around(mean);
            self.after(span, Next::Dies);
        }
    }

    pub(crate) fn after(&mut self, span: Duration, next: Next) {
        self.at(self.now + span, next);
    }

    pub(crate) fn at(&mut self, at: Moment, next: Next) {
        self.number += 1;
        self.coming.push(Coming { at, number: self.number, next });
    }

    /// Lets happen what happens, until all has been well for long enough.
    fn live(&mut self) -> Result<(), Violation> {
        let (mut moment, mut at_once) = (self.now, 0);
        loop {
            let due = self.core.as_ref().and_then(Supervisor::next_deadline).map(|deadline| deadline.at);
            let due = due.map(|due| due + Swarm(&mut self.rng).span(self.faults.late_ticks));
            let soonest = self.coming.peek().map(|coming| coming.at);
            match (due, soonest) {
                (Some(due), Some(soonest)) if due <= soonest => self.tick(due)?,
                (Some(due), None) => self.tick(due)?,
                (_, Some(_)) => {
                    let Some(coming) = self.coming.pop() else { return Ok(()) };
                    self.now = self.now.max(coming.at);
                    if self.happen(coming.next)? == Life::Over {
                        return Ok(());
                    }
                }
                (None, None) => return Ok(()),
            }
            at_once = if self.now == moment { at_once + 1 } else { 0 };
            moment = self.now;
            if at_once > AT_ONCE {
                return Err(Violation::NoProgress(moment));
            }
        }
    }

    fn tick(&mut self, due: Moment) -> Result<(), Violation> {
        self.now = self.now.max(due);
        self.take_in(Event::Tick)
    }

    fn happen(&mut self, next: Next) -> Result<Life, Violation> {
        match next {
            Next::Tell(epoch, event) if epoch == self.epoch => self.take_in(*event)?,
            Next::Order(epoch, who) if epoch == self.epoch => self.on_order(who)?,
            Next::Probed(epoch, who, incarnation) if epoch == self.epoch => self.on_probed(who, incarnation),
            Next::Written(epoch) if epoch == self.epoch => self.on_written()?,
            Next::Tell(..) | Next::Order(..) | Next::Probed(..) | Next::Written(_) => {}
            Next::Gateway(who, serial, turn) => self.on_gateway(who, serial, turn),
            Next::WorkerDies(who, serial) => self.on_worker_dies(who, serial),
            Next::Caller if self.calm => {}
            Next::Caller => self.on_caller()?,
            Next::Dies if self.calm => {}
            Next::Dies => {
                self.draw_death();
                self.on_supervisor_dies()?;
            }
            Next::Ends(epoch) if epoch == self.epoch => self.on_supervisor_dies()?,
            Next::Ends(_) => {}
            Next::Begins => self.on_supervisor_begins()?,
            Next::Calm => {
                self.calm = true;
                self.calmed = self.now;
                self.faults = Faults::none();
                self.heal();
                self.after(LOOK, Next::Look);
            }
            Next::Look => return self.on_look(),
        }
        Ok(Life::GoesOn)
    }

    /// The supervisor takes an event in and does what follows.
    pub(crate) fn take_in(&mut self, event: Event) -> Result<(), Violation> {
        let mut actions = self.handle(event)?;
        self.perform(&mut actions)
    }

    /// Core handles an event; nothing is done about it yet.
    pub(crate) fn handle(&mut self, event: Event) -> Result<Vec<Action>, Violation> {
        let Some(core) = &mut self.core else { return Ok(Vec::new()) };
        // Once all is calm, probes are all there is, and they tell nothing.
        if let Some(trace) = &mut self.trace
            && !(self.calm && matches!(event, Event::Tick | Event::Probed(..)))
        {
            write_down(trace, format!("{:>14?} {event:?}", self.now.since(BEGINNING)));
        }
        self.tally.events += 1;
        let source = if matches!(event, Event::Command(..)) { Source::Caller } else { Source::World };
        let mut actions = Vec::new();
        core.handle(self.now, event, &mut actions);
        self.examine(&actions, source)?;
        Ok(actions)
    }

    pub(crate) fn on_supervisor_dies(&mut self) -> Result<(), Violation> {
        if self.core.take().is_none() {
            return Ok(());
        }
        if let Some(trace) = &mut self.trace {
            write_down(trace, format!("{:>14?} the supervisor dies", self.now.since(BEGINNING)));
        }
        self.tally.deaths += 1;
        self.epoch += 1;
        self.tear()?;
        self.hang_up()?;
        if Swarm(&mut self.rng).often(self.faults.reboots) {
            self.boot = Boot::New;
            self.reboot();
        }
        self.tasks.fill(Task::default());
        let span = Swarm(&mut self.rng).span(Duration::from_secs(3));
        self.after(span, Next::Begins);
        Ok(())
    }

    fn on_supervisor_begins(&mut self) -> Result<(), Violation> {
        let records = self.store.durable.records.values();
        let origin = Origin {
            records: records.map(|record| (record.clone(), self.fleet.policy(&record.spec))).collect(),
            pool: self.store.durable.pool,
            max_instances: self.fleet.names.len().max(2) - 1,
            revision: self.store.durable.revision,
            boot: std::mem::replace(&mut self.boot, Boot::Same),
            seed: self.rng.draw(),
        };
        let mut actions = Vec::new();
        let core = Supervisor::restore(origin, self.now, &mut actions);
        self.view = View::new(core.revision());
        for instance in core.instances() {
            self.view.instances.insert(instance.name().clone(), instance.clone().into());
        }
        self.core = Some(core);
        self.examine(&actions, Source::World)?;
        self.perform(&mut actions)
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
        self.after(LOOK, Next::Look);
        Ok(Life::GoesOn)
    }
}

/// Whether there is more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    GoesOn,
    Over,
}

pub(crate) fn write_down(trace: &mut Vec<String>, line: String) {
    if trace.len() >= 2 * TRACE {
        trace.drain(..TRACE);
    }
    trace.push(line);
}
