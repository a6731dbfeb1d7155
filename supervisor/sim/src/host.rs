//! What is true: workers, gateways and what they leave behind, whoever knows of it.

use std::time::Duration;

use supervisor_core::{
    action::Launch,
    event::{Event, Exit, ExitStatus, Process, Report, Verdict},
    ids::{Incarnation, Name},
    ladder::Purpose,
    ports::Block,
    time::Moment,
};

use crate::{
    agenda::Next,
    chance::{ALWAYS, Lot},
    check::Violation,
    fence::Polls,
    world::World,
};

/// A gateway that is well becomes ready within this.
const START: Duration = Duration::from_millis(900);

/// How long a port stays taken after its gateway's death, at most.
const LINGER: Duration = Duration::from_secs(30);

/// Tells one life from all others.
pub(crate) type Serial = u64;

/// What an instance has on the host.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) worker: Option<Worker>,
    /// The gateway and all it started; it may outlive its worker.
    pub(crate) life: Option<Life>,
    /// Exits in the run directory that nobody acknowledged.
    pub(crate) exits: Vec<Exit>,
    /// The highest number ever launched.
    pub(crate) highest: Incarnation,
    /// Ports that are still taken after its last gateway's death, and until when.
    pub(crate) taken: Option<(Block, Moment)>,
    /// For whom its incident file says that it stands in.
    pub(crate) informed: Vec<Name>,
    /// What it polls with, and did.
    pub(crate) polls: Polls,
}

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) serial: Serial,
    /// The last number it ran.
    pub(crate) incarnation: Incarnation,
}

/// A gateway.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) serial: Serial,
    pub(crate) incarnation: Incarnation,
    pub(crate) process: Process,
    pub(crate) block: Block,
    pub(crate) mood: Mood,
    /// How it will end, if that follows from what it is for or from its configuration.
    pub(crate) doom: Option<Doom>,
    /// It has been ready.
    pub(crate) notified: bool,
    /// An end has been ordered.
    pub(crate) ordered: bool,
    heeds_term: bool,
    hard_to_kill: bool,
    progress: u64,
}

/// How a gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// On its way.
    Starting,
    /// It serves.
    Well,
    /// It answers that it cannot serve.
    Unable,
    /// It does not answer.
    Hung,
}

/// How a life ends that cannot serve, whatever else goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    /// By itself, with this status.
    Ends(ExitStatus),
    /// It does not: it hangs.
    Hangs,
    /// It is a repair.
    Repairs,
}

/// What a gateway does next by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is ready.
    Ready,
    /// It heeds SIGTERM, or was killed.
    Ends(ExitStatus),
    /// Its fate: it dies by itself.
    Fails(ExitStatus),
    /// Its fate: it hangs, or cannot serve, or is well again.
    Turns(Mood),
    /// Its fate: it can serve and cannot, by turns of this length.
    Flaps(Duration),
    /// The grace is over, and its worker kills it.
    GraceOver,
    /// It is a repair, and mends the configuration.
    Mends,
}

/// All of the host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) machines: Vec<Machine>,
    serial: Serial,
}

impl Host {
    pub(crate) fn new(names: usize) -> Self {
        Self { machines: (0..names).map(|_| Machine::default()).collect(), serial: 0 }
    }

    fn serial(&mut self) -> Serial {
        self.serial += 1;
        self.serial
    }
}

impl World {
    /// A program is run: by the worker there is, or by a new one.
    pub(crate) fn spawn(&mut self, who: usize, launch: &Launch) -> Result<Process, Violation> {
        let Launch { incarnation, block, purpose, .. } = *launch;
        let name = &self.fleet.names[who];
        let machine = &self.host.machines[who];
        if let Some(life) = &machine.life {
            return Err(Violation::TwoLives {
                name: name.clone(),
                first: life.incarnation,
                second: incarnation,
            });
        }
        let meets = |other: &Machine| other.life.as_ref().is_some_and(|life| life.block.overlaps(block));
        if let Some(other) = self.host.machines.iter().position(meets) {
            return Err(Violation::PortsShared {
                name: name.clone(),
                other: self.fleet.names[other].clone(),
            });
        }
        self.begin_polls(who, launch)?;
        let (worker, serial) = (self.host.serial(), self.host.serial());
        let machine = &mut self.host.machines[who];
        let fresh = machine.worker.is_none();
        let worker = machine.worker.get_or_insert(Worker { serial: worker, incarnation });
        worker.incarnation = incarnation;
        let worker = worker.serial;
        if fresh && let Some(span) = self.fate(Lot::WorkerDies, who) {
            self.after(span, Next::WorkerDies(who, worker));
        }
        let pid = i32::try_from(serial).unwrap_or(i32::MAX);
        let process = Process { pid, worker_pid: 1, started: self.clock() };
        let heeds_term = self.strikes(Lot::IgnoresTerm, who).is_none();
        let hard_to_kill = self.strikes(Lot::HardToKill, who).is_some();
        let doom = match purpose {
            Purpose::Serve => self.configs[who].doom(),
            Purpose::Repair => Some(Doom::Repairs),
        };
        self.host.machines[who].life = Some(Life {
            serial,
            incarnation,
            process,
            block,
            mood: if doom == Some(Doom::Hangs) { Mood::Hung } else { Mood::Starting },
            doom,
            notified: false,
            ordered: false,
            heeds_term,
            hard_to_kill,
            progress: 0,
        });
        match doom {
            Some(doom) => self.draw_doom(who, serial, doom),
            None => self.draw_fate(who, serial),
        }
        Ok(process)
    }

    /// After how long a fault strikes that strikes after a while.
    fn fate(&mut self, lot: Lot, who: usize) -> Option<Duration> {
        let mean = self.rates.every(lot)?;
        self.strikes_so(lot, who, ALWAYS).map(|mut swarm| swarm.around(mean))
    }

    fn draw_fate(&mut self, who: usize, serial: Serial) {
        let mut swarm = self.chance.draw(Lot::Life, who);
        let start = swarm.span(START);
        let status = swarm.one_of(&[
            ExitStatus::Code(0),
            ExitStatus::Code(1),
            ExitStatus::Code(1),
            ExitStatus::Code(78),
            ExitStatus::Signal { number: 9, core: false },
            ExitStatus::Signal { number: 11, core: true },
        ]);
        let mood = swarm.one_of(&[Mood::Hung, Mood::Unable]);
        let heals = swarm.often(500).then(|| swarm.span(Duration::from_secs(60)));
        if self.strikes(Lot::NeverReady, who).is_none() {
            self.after(start, Next::Gateway(who, serial, Turn::Ready));
        }
        let dies_starting = self.strikes(Lot::DiesStarting, who).map(|mut swarm| swarm.span(start));
        let dies = self.fate(Lot::GatewayDies, who);
        for span in dies_starting.into_iter().chain(dies) {
            self.after(span, Next::Gateway(who, serial, Turn::Fails(status)));
        }
        if let Some(span) = self.fate(Lot::Sickens, who) {
            self.after(span, Next::Gateway(who, serial, Turn::Turns(mood)));
            if let Some(later) = heals {
                self.after(span + later, Next::Gateway(who, serial, Turn::Turns(Mood::Well)));
            }
        }
        if let Some(span) = self.fate(Lot::Flaps, who) {
            self.after(span, Next::Gateway(who, serial, Turn::Flaps(span)));
        }
    }

    /// Something becomes of a gateway, if it is still that one.
    pub(crate) fn on_gateway(&mut self, who: usize, serial: Serial, turn: Turn) {
        let calm = self.calm;
        let Some(life) = self.host.machines[who].life.as_mut().filter(|life| life.serial == serial) else {
            return;
        };
        match turn {
            Turn::Ready => {
                let incarnation = life.incarnation;
                life.mood = Mood::Well;
                if !std::mem::replace(&mut life.notified, true) {
                    let name = self.fleet.names[who].clone();
                    self.report(who, Event::Notified(name, incarnation));
                }
            }
            Turn::Fails(_) | Turn::Turns(_) | Turn::Flaps(_) if calm => {}
            Turn::Ends(status) | Turn::Fails(status) => self.end_life(who, status),
            Turn::Flaps(span) => {
                life.mood = match life.mood {
                    Mood::Well => Mood::Unable,
                    Mood::Unable => Mood::Well,
                    Mood::Starting | Mood::Hung => life.mood,
                };
                self.after(span, Next::Gateway(who, serial, Turn::Flaps(span)));
            }
            Turn::Turns(mood) if life.notified => life.mood = mood,
            Turn::Turns(_) => {}
            Turn::GraceOver => self.kill(who),
            Turn::Mends => self.mend_one(who),
        }
    }

    /// SIGTERM to the main process; after the grace the worker kills it.
    pub(crate) fn stop(&mut self, who: usize, grace: Duration) {
        let Some(life) = &mut self.host.machines[who].life else { return };
        let (serial, heeds) = (life.serial, life.heeds_term && life.mood != Mood::Hung);
        if !std::mem::replace(&mut life.ordered, true) && heeds {
            let span = self.span(Lot::Gateway, who, START);
            self.after(span, Next::Gateway(who, serial, Turn::Ends(ExitStatus::Code(0))));
        }
        self.after(grace, Next::Gateway(who, serial, Turn::GraceOver));
    }

    /// SIGKILL to everything.
    pub(crate) fn kill(&mut self, who: usize) {
        let Some(life) = &mut self.host.machines[who].life else { return };
        life.ordered = true;
        let serial = life.serial;
        let most =
            if life.hard_to_kill && !self.calm { Duration::from_secs(30) } else { Duration::from_millis(20) };
        let span = self.span(Lot::Gateway, who, most);
        let status = ExitStatus::Signal { number: 9, core: false };
        self.after(span, Next::Gateway(who, serial, Turn::Ends(status)));
    }

    /// A gateway has ended. Its worker, if there is one, records that and tells.
    pub(crate) fn end_life(&mut self, who: usize, status: ExitStatus) {
        let Some(life) = self.host.machines[who].life.take() else { return };
        self.narrate_end(who, life.incarnation, status);
        self.end_polls(who, Some((status, life.ordered)));
        if let Some(mut swarm) = self.strikes(Lot::PortHeld, who) {
            self.host.machines[who].taken = Some((life.block, self.now + swarm.span(LINGER)));
        }
        let at = self.clock();
        let machine = &mut self.host.machines[who];
        if machine.worker.is_none() {
            return;
        }
        let exit = Exit { incarnation: life.incarnation, status, at, stragglers: 0, ordered: life.ordered };
        machine.exits.push(exit.clone());
        let name = self.fleet.names[who].clone();
        self.report(who, Event::Exited(name, exit));
    }

    fn narrate_end(&mut self, who: usize, incarnation: Incarnation, status: ExitStatus) {
        let name = self.fleet.names[who].clone();
        self.narrate(|| format!("{name} {incarnation} is no more: {status}"));
    }

    /// A worker dies; its gateway with it, or not.
    pub(crate) fn on_worker_dies(&mut self, who: usize, serial: Serial) {
        let machine = &mut self.host.machines[who];
        if self.calm || machine.worker.as_ref().is_none_or(|worker| worker.serial != serial) {
            return;
        }
        machine.worker = None;
        let both = self.chance.draw(Lot::Gateway, who).often(500);
        if both {
            self.host.machines[who].life = None;
            self.end_polls(who, None);
        }
        let name = self.fleet.names[who].clone();
        self.narrate(|| format!("the worker of {name} dies{}", if both { ", and its gateway" } else { "" }));
        self.lose_link(who);
    }

    /// Whatever is left of an instance is killed, its worker included.
    pub(crate) fn clear(&mut self, who: usize) {
        // The worker may just have had the time to write the exit down.
        if self.chance.draw(Lot::Clear, who).often(200) {
            self.end_life(who, ExitStatus::Signal { number: 9, core: false });
        }
        self.end_polls(who, None);
        let machine = &mut self.host.machines[who];
        machine.life = None;
        machine.worker = None;
    }

    /// The host is restarted: only files are left.
    pub(crate) fn lose_processes(&mut self) {
        for machine in &mut self.host.machines {
            machine.life = None;
            machine.worker = None;
            machine.taken = None;
            machine.polls = Polls::default();
        }
    }

    /// Nothing goes wrong by itself any more.
    pub(crate) fn heal(&mut self) {
        let mut starting = Vec::new();
        for (who, machine) in self.host.machines.iter_mut().enumerate() {
            let Some(life) = machine.life.as_mut().filter(|life| life.doom.is_none()) else { continue };
            match life.mood {
                Mood::Starting => starting.push((who, life.serial)),
                Mood::Well | Mood::Unable | Mood::Hung => life.mood = Mood::Well,
            }
        }
        for (who, serial) in starting {
            self.after(START, Next::Gateway(who, serial, Turn::Ready));
        }
    }

    /// What a probe finds.
    pub(crate) fn ask(&mut self, who: usize, incarnation: Incarnation) -> Report {
        let lies = self.strikes(Lot::ProbeLies, who).is_some();
        let is_unable = self.strikes(Lot::ProbeUnable, who).is_some();
        let life = self.host.machines[who].life.as_mut().filter(|life| life.incarnation == incarnation);
        let fail = || Verdict::Fail("it does not say it".into());
        let mut report = Report { live: fail(), ready: fail(), progress: 0 };
        let Some(life) = life else { return report };
        if life.mood == Mood::Starting {
            life.progress += 1;
        }
        report.progress = life.progress;
        if is_unable {
            let why = || Verdict::Unknown("it could not be asked".into());
            return Report { live: why(), ready: why(), progress: 0 };
        }
        let (live, ready) = match life.mood {
            Mood::Starting | Mood::Unable => (true, false),
            Mood::Well => (true, true),
            Mood::Hung => (false, false),
        };
        if live != lies {
            report.live = Verdict::Pass;
        }
        if ready != lies {
            report.ready = Verdict::Pass;
        }
        report
    }
}
