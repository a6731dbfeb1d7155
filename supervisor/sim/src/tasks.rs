//! The supervisor's hands: one task for each instance, which carries out its orders one after the other, and tells
//! what it hears. They die with the supervisor.

use std::{collections::VecDeque, time::Duration};

use supervisor_core::{
    action::{Action, Launch, ProbeKind},
    event::{Adoption, Event, Files, Found, LaunchFailure},
    failover::Incident,
    ids::{ConfigId, Incarnation, Name},
    ladder::Purpose,
    ports::Block,
    record::Wish,
    time::Moment,
};

use crate::{
    agenda::Next,
    chance::{Lot, NOBODY},
    check::Violation,
    fence::Polls,
    host::Mood,
    world::{BEGINNING, World},
};

/// How long an order takes, usually.
const QUICK: Duration = Duration::from_millis(20);

/// How long it takes when things are bad.
const SLOW: Duration = Duration::from_secs(40);

/// How long a report is on its way, usually.
const REPORT: Duration = Duration::from_millis(2);

/// How long it is on its way when it is overtaken.
const OVERTAKEN: Duration = Duration::from_secs(5);

/// What one instance's task knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Task {
    /// Its connection to the worker.
    linked: bool,
    /// The newest number it knows of.
    incarnation: Incarnation,
    /// When it is done with its orders.
    busy: Moment,
    orders: VecDeque<Order>,
}

/// What a task is told.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Adopt,
    Launch(Box<Launch>),
    Stop(Incarnation, Duration),
    Kill(Incarnation),
    Acknowledge(Incarnation),
    Release,
    Sweep(Incarnation),
    Inform(Vec<Incident>),
    Restore(ConfigId),
    Forget(Files),
}

impl Order {
    /// Whether core asks again if nothing comes of it.
    fn is_repeated(&self) -> bool {
        match self {
            Self::Adopt | Self::Launch(_) | Self::Stop(..) | Self::Kill(_) | Self::Sweep(_) => true,
            Self::Acknowledge(_) | Self::Release | Self::Inform(_) | Self::Restore(_) | Self::Forget(_) => {
                false
            }
        }
    }
}

impl World {
    /// Begins what core asks for; the supervisor may die before any of it.
    pub(crate) fn perform(&mut self, actions: &mut Vec<Action>) -> Result<(), Violation> {
        let now = self.clock();
        for action in actions.drain(..) {
            if self.strikes(Lot::DiesActing, NOBODY).is_some() {
                return self.on_supervisor_dies();
            }
            self.tally.actions += 1;
            self.scribe.action(self.now.since(BEGINNING), &action, self.calm);
            self.reference.order(&self.fleet, &action, now)?;
            match action {
                Action::Persist(batch) => self.persist(batch),
                Action::Reply(id, outcome) => self.on_reply(id, &outcome)?,
                Action::Adopt(name) => self.order(&name, Order::Adopt),
                Action::Launch(launch) => {
                    self.check_launch(&launch)?;
                    self.order(&launch.name.clone(), Order::Launch(Box::new(launch)));
                }
                Action::Stop { name, incarnation, grace } => {
                    self.order(&name, Order::Stop(incarnation, grace));
                }
                Action::Kill { name, incarnation } => self.order(&name, Order::Kill(incarnation)),
                Action::Acknowledge { name, incarnation } => {
                    self.order(&name, Order::Acknowledge(incarnation));
                }
                Action::Release { name } => self.order(&name, Order::Release),
                Action::Sweep { name, incarnation } => self.order(&name, Order::Sweep(incarnation)),
                Action::Inform { name, incidents } => self.order(&name, Order::Inform(incidents)),
                Action::Forget { name, files } => {
                    if !self.store.forget(&name) {
                        return Err(Violation::ForgottenEarly(name));
                    }
                    self.order(&name, Order::Forget(files));
                }
                // No gateway here ends in order to be run again, and nobody reads what a hung one was doing.
                Action::AskHandoff { .. } | Action::Examine { .. } => {}
                Action::Restore { name, to, .. } => {
                    self.check_restore(&name, to, false)?;
                    self.order(&name, Order::Restore(to));
                }
                Action::Probe { name, incarnation, kind, .. } => self.begin_probe(&name, incarnation, kind),
            }
        }
        self.compare()
    }

    fn check_launch(&mut self, launch: &Launch) -> Result<(), Violation> {
        self.tally.launches += 1;
        let Launch { name, incarnation, block, purpose, restore, .. } = launch;
        let name = name.clone();
        let (incarnation, block) = (*incarnation, *block);
        let missing = match self.store.durable.records.get(&name) {
            None => Some("it"),
            Some(record) if record.reserved < incarnation => Some("its number"),
            Some(record) if record.wish != Wish::Up => Some("its wish"),
            Some(record) if record.deleting.is_some() => Some("its life"),
            Some(record) if record.block != block => Some("its block"),
            Some(record) if *purpose == Purpose::Repair && !record.ladder.is_repair(incarnation) => {
                Some("that it is a repair")
            }
            Some(record) if restore.is_some() && record.trial.restoring().is_none() => {
                Some("what it puts back")
            }
            Some(_) => None,
        };
        if let Some(what) = missing {
            return Err(Violation::NotDurable { name, incarnation, what });
        }
        let Some(who) = self.fleet.index(&name) else { return Ok(()) };
        let wish = self.reference.wish(who);
        if wish != Some(Wish::Up) {
            return Err(Violation::AgainstWish { name, wish });
        }
        let highest = self.host.machines[who].highest;
        if incarnation <= highest {
            return Err(Violation::NumberUsed { name, incarnation, highest });
        }
        self.host.machines[who].highest = incarnation;
        self.check_climb(who, launch)
    }

    fn order(&mut self, name: &Name, order: Order) {
        let Some(who) = self.fleet.index(name) else { return };
        if order.is_repeated() && self.strikes(Lot::OrderLost, who).is_some() {
            // The first order of all is only lost once it has been begun, and begins with this.
            if matches!(order, Order::Adopt) {
                self.look_at_config(who);
            }
            return self.narrate(|| format!("an order for {name} is lost"));
        }
        let most = if self.strikes(Lot::OrderSlow, who).is_some() { SLOW } else { QUICK };
        let span = self.span(Lot::Order, who, most);
        let task = &mut self.tasks[who];
        task.orders.push_back(order);
        task.busy = task.busy.max(self.now) + span;
        let at = task.busy;
        self.at(at, Next::Order(self.epoch, who));
    }

    /// The task has carried out its first order.
    pub(crate) fn on_order(&mut self, who: usize) -> Result<(), Violation> {
        let Some(order) = self.tasks[who].orders.pop_front() else { return Ok(()) };
        let name = self.fleet.names[who].clone();
        let machine = &mut self.host.machines[who];
        let alive = machine.life.as_ref().map(|life| life.incarnation);
        let linked = self.tasks[who].linked;
        match order {
            Order::Adopt => self.adopt(who),
            Order::Launch(launch) => return self.launch(who, &launch),
            Order::Stop(incarnation, grace) if linked && alive == Some(incarnation) => self.stop(who, grace),
            Order::Kill(incarnation) if linked && alive == Some(incarnation) => self.kill(who),
            Order::Stop(..) | Order::Kill(_) => {}
            Order::Acknowledge(incarnation) => {
                let stored = self.store.durable.records.get(&name);
                if stored.is_some_and(|record| record.seen < incarnation) {
                    return Err(Violation::AcknowledgedEarly { name, incarnation });
                }
                machine.exits.retain(|exit| exit.incarnation > incarnation);
            }
            Order::Release if alive.is_some() => return Err(Violation::ReleasedAlive(name)),
            Order::Release => {
                machine.worker = None;
                self.tasks[who].linked = false;
            }
            Order::Sweep(incarnation) => {
                self.tasks[who].linked = false;
                self.clear(who);
                for exit in self.host.machines[who].exits.clone() {
                    self.tell(Some(who), Event::Exited(name.clone(), exit));
                }
                self.tell(Some(who), Event::Swept(name, incarnation));
            }
            Order::Inform(incidents) => machine.informed = primaries(&incidents),
            Order::Restore(to) => self.put_back(who, to),
            Order::Forget(_) if alive.is_some() => return Err(Violation::ForgottenEarly(name)),
            Order::Forget(files) => {
                machine.worker = None;
                machine.exits.clear();
                machine.informed.clear();
                machine.polls = Polls::default();
                self.tasks[who].linked = false;
                self.forget_config(who, files);
            }
        }
        Ok(())
    }

    fn launch(&mut self, who: usize, launch: &Launch) -> Result<(), Violation> {
        let (name, incarnation) = (launch.name.clone(), launch.incarnation);
        self.tasks[who].incarnation = incarnation;
        self.host.machines[who].informed = primaries(&launch.incidents);
        let unanswered = self.strikes(Lot::Unanswered, who);
        let late = unanswered.map(|mut swarm| (swarm.often(500), swarm.span(SLOW)));
        if let Some((true, _)) = late {
            return Ok(());
        }
        if let Some(restoring) = &launch.restore {
            self.put_back(who, restoring.to);
        }
        let failure = match launch.purpose {
            Purpose::Serve => self.bad_config(who, incarnation).or_else(|| self.unexpected(who, launch)),
            Purpose::Repair => None,
        };
        if let Some(failure) = failure.or_else(|| self.launch_failure(who, &launch.block)) {
            self.tell(Some(who), Event::LaunchFailed(name, incarnation, failure));
            return Ok(());
        }
        if launch.purpose == Purpose::Serve {
            self.read_config(who, incarnation);
        }
        let process = self.spawn(who, launch)?;
        self.tasks[who].linked = true;
        let event = Event::Launched(name, incarnation, process);
        match late {
            Some((_, span)) => self.after(span, Next::Tell(self.epoch, Box::new(event))),
            None => self.tell(Some(who), event),
        }
        Ok(())
    }

    /// Why a launch fails, if it does.
    fn launch_failure(&mut self, who: usize, block: &Block) -> Option<LaunchFailure> {
        let port = block.base;
        let taken = self.host.machines.iter().filter_map(|machine| machine.taken);
        if taken.clone().any(|(held, until)| held.overlaps(*block) && self.now < until) {
            return Some(LaunchFailure::PortTaken { port, holder: "nobody to be seen".into() });
        }
        let mut swarm = self.strikes(Lot::LaunchFails, who)?;
        Some(match swarm.below(4) {
            0 => LaunchFailure::PortTaken { port, holder: "pid 7 (nc)".into() },
            1 => LaunchFailure::Refused("no token".into()),
            _ => LaunchFailure::Spawn("no such file".into()),
        })
    }

    fn adopt(&mut self, who: usize) {
        self.look_at_config(who);
        let reachable = self.strikes(Lot::Unreachable, who).is_none();
        if !reachable || self.host.machines[who].worker.is_none() {
            self.clear(who);
        }
        let machine = &self.host.machines[who];
        let found = match (&machine.worker, &machine.life) {
            (None, _) => Found::Nothing,
            (Some(worker), None) => Found::Idle { incarnation: worker.incarnation },
            (Some(_), Some(life)) => Found::Running {
                incarnation: life.incarnation,
                process: life.process,
                notified: life.notified,
                stopping: life.ordered,
            },
        };
        let adoption = Adoption { found, exits: machine.exits.clone() };
        self.tasks[who].linked = machine.worker.is_some();
        self.tasks[who].incarnation = machine.worker.as_ref().map(|w| w.incarnation).unwrap_or_default();
        let name = self.fleet.names[who].clone();
        self.tell(Some(who), Event::Adopted(name, adoption));
    }

    fn begin_probe(&mut self, name: &Name, incarnation: Incarnation, kind: ProbeKind) {
        let Some(who) = self.fleet.index(name) else { return };
        if self.strikes(Lot::ProbeStalls, who).is_some() {
            return;
        }
        let hung = self.host.machines[who].life.as_ref().is_some_and(|life| life.mood == Mood::Hung);
        let most = if hung && kind == ProbeKind::Watch { Duration::from_secs(5) } else { QUICK };
        let span = self.span(Lot::Probe, who, most);
        self.after(span, Next::Probed(self.epoch, who, incarnation));
    }

    pub(crate) fn on_probed(&mut self, who: usize, incarnation: Incarnation) {
        let report = self.ask(who, incarnation);
        let name = self.fleet.names[who].clone();
        self.tell(Some(who), Event::Probed(name, incarnation, report));
    }

    /// A worker's report, heard if there is somebody to hear it.
    pub(crate) fn report(&mut self, who: usize, event: Event) {
        if self.tasks[who].linked {
            self.tell(Some(who), event);
        }
    }

    pub(crate) fn lose_link(&mut self, who: usize) {
        if std::mem::take(&mut self.tasks[who].linked) {
            let event = Event::WorkerLost(self.fleet.names[who].clone(), self.tasks[who].incarnation);
            self.tell(Some(who), event);
        }
    }

    /// Sends an event on its way to the supervisor, in the order of its source unless it is overtaken.
    pub(crate) fn tell(&mut self, who: Option<usize>, event: Event) {
        let place = who.unwrap_or(NOBODY);
        let twice = self.strikes(Lot::Twice, place).map(|mut swarm| swarm.span(OVERTAKEN));
        let overtaken = self.strikes(Lot::Overtaken, place).map(|mut swarm| swarm.span(OVERTAKEN));
        let at = match overtaken {
            Some(span) => self.now + span,
            None => self.in_order(place),
        };
        if let Some(later) = twice {
            self.at(at + later, Next::Tell(self.epoch, Box::new(event.clone())));
        }
        self.at(at, Next::Tell(self.epoch, Box::new(event)));
    }

    /// The same, and nothing overtakes it.
    pub(crate) fn tell_in_order(&mut self, who: usize, event: Event) {
        let at = self.in_order(who);
        self.at(at, Next::Tell(self.epoch, Box::new(event)));
    }

    /// When the next report of a source arrives.
    fn in_order(&mut self, place: usize) -> Moment {
        let span = self.span(Lot::Report, place, REPORT);
        self.told[place] = (self.now + span).max(self.told[place]);
        self.told[place]
    }
}

fn primaries(incidents: &[Incident]) -> Vec<Name> {
    incidents.iter().map(|incident| incident.primary.clone()).collect()
}
