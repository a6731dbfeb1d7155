//! What each order means.

use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use supervisor_proto::worker::attach::Role as AskedRole;
use supervisor_proto::worker::order::Order as Demand;
use supervisor_proto::worker::refused::Reason;
use supervisor_proto::worker::report::Report as Body;
use supervisor_proto::worker::state::Phase;
use supervisor_proto::worker::{Attach, Order, Refused, Run, State, Stop};

use crate::child;
use crate::complain::complain;
use crate::life::{Ending, Incarnation, Readiness};
use crate::serve::{ConnectionId, Role};
use crate::tree;
use crate::worker::{Leaving, Worker};

/// The grace when nobody said one: SIGTERM to the worker.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Longer than any grace that is meant, yet any `Instant` can be added to it.
const LONGEST_GRACE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Worker {
    /// Obeys what `id` has sent so far.
    pub(crate) fn obey_all(&mut self, id: ConnectionId) {
        while let Some(order) = self.parts.server.next_order(id) {
            self.obey(id, order);
        }
    }

    fn obey(&mut self, id: ConnectionId, order: Order) {
        match (self.parts.server.role(id), order.order) {
            (None, _) => {}
            (Some(Role::Undeclared(_)), Some(Demand::Attach(attach))) => self.attach(id, &attach),
            (Some(Role::Undeclared(_)), _) => {
                self.refuse(id, Reason::Invalid, 0, "the first order has to be an attach");
                self.parts.server.hang_up(id);
            }
            (Some(Role::Control), Some(demand)) => self.carry_out(id, demand),
            (Some(Role::Watch), Some(_)) => self.refuse(id, Reason::Invalid, 0, "a watcher gives no orders"),
            (Some(Role::Watch | Role::Control), None) => {
                self.refuse(id, Reason::Invalid, 0, "the order is not known to this worker");
            }
        }
    }

    fn attach(&mut self, id: ConnectionId, attach: &Attach) {
        if !self.parts.key.fits(&attach.key) {
            self.refuse(id, Reason::WrongKey, 0, "the key is not that of this worker");
            return self.parts.server.hang_up(id);
        }
        let role = match attach.role() {
            AskedRole::Control if attach.epoch < self.parts.epoch => {
                let message = format!("a controller of epoch {} has been here", self.parts.epoch);
                self.refuse(id, Reason::StaleEpoch, 0, &message);
                return self.parts.server.hang_up(id);
            }
            AskedRole::Control => {
                self.parts.epoch = attach.epoch;
                Role::Control
            }
            AskedRole::Watch => Role::Watch,
            AskedRole::Unspecified => {
                self.refuse(id, Reason::Invalid, 0, "an attach has to name a role");
                return self.parts.server.hang_up(id);
            }
        };
        self.parts.server.set_role(id, role);
        self.report_state(id);
    }

    fn carry_out(&mut self, id: ConnectionId, demand: Demand) {
        match demand {
            Demand::Bootstrap(_) => self.refuse(id, Reason::Invalid, 0, "this worker has had its bootstrap"),
            Demand::Attach(_) => self.refuse(id, Reason::Invalid, 0, "this connection is attached"),
            Demand::Run(run) => self.run_incarnation(id, run),
            Demand::Stop(stop) => {
                if self.concerns_current(id, stop.incarnation) {
                    self.stop(grace(stop));
                }
            }
            Demand::Kill(kill) => {
                if self.concerns_current(id, kill.incarnation) {
                    self.kill_tree();
                }
            }
            Demand::Acknowledge(acknowledge) => self.acknowledge(acknowledge.incarnation),
            Demand::Quit(_) => match &self.life {
                Some(_) => self.refuse_as_running(id),
                None => self.leaving = Leaving::WhenEmpty,
            },
        }
    }

    /// Runs the next incarnation, if there can be one.
    pub(crate) fn run_incarnation(&mut self, id: ConnectionId, run: Run) {
        let incarnation = Incarnation(run.incarnation);
        if self.life.is_some() {
            return self.refuse_as_running(id);
        }
        if self.leaving == Leaving::WhenEmpty {
            return self.refuse(id, Reason::Invalid, incarnation.0, "this worker is about to exit");
        }
        if incarnation <= self.incarnation {
            let message = format!("incarnation {} has been run", self.incarnation);
            return self.refuse(id, Reason::StaleIncarnation, incarnation.0, &message);
        }
        if let Some(launch) = run.launch {
            if let Err(unfit) = child::check(&launch) {
                return self.refuse(id, Reason::Invalid, incarnation.0, &unfit.to_string());
            }
            self.parts.launch = launch;
        }
        self.start(incarnation);
    }

    /// Asks the main process to end, and sets the time after which the tree is killed. A repeated stop can
    /// only bring that forward, and sends no second SIGTERM, which some gateways take for impatience.
    pub(crate) fn stop(&mut self, grace: Duration) {
        let Some(life) = self.life.as_mut().filter(|life| life.death.is_none()) else { return };
        let kill_at = Instant::now() + grace.min(LONGEST_GRACE);
        match life.ending {
            Ending::Killed => {}
            Ending::Patient(before) => life.ending = Ending::Patient(before.min(kill_at)),
            Ending::Unasked => {
                life.ending = Ending::Patient(kill_at);
                // The pid is that of our child, which only we can reap and have not: it is no one else's.
                // A stopped process would not see the SIGTERM, hence SIGCONT.
                let _ = kill_process(life.pid, Signal::TERM);
                let _ = kill_process(life.pid, Signal::CONT);
            }
        }
    }

    /// Ends the tree at once. What is not a child yet becomes one when its parent dies, and is killed then.
    /// If the main process is dead, that is going on already.
    pub(crate) fn kill_tree(&mut self) {
        let Some(life) = self.life.as_mut().filter(|life| life.death.is_none()) else { return };
        life.ending = Ending::Killed;
        // As above, the pid cannot be another's.
        let _ = kill_process(life.pid, Signal::KILL);
        life.kill_group();
        if let Err(error) = tree::kill_children() {
            complain(format_args!("failed to find the gateway's descendants: {error}"));
        }
    }

    /// SIGTERM: takes the gateway down, then itself.
    pub(crate) fn retire(&mut self) {
        self.leaving = Leaving::WhenEmpty;
        self.stop(DEFAULT_GRACE);
    }

    /// Says what the worker is doing.
    pub(crate) fn report_state(&mut self, id: ConnectionId) {
        let phase = match &self.life {
            None => Phase::Empty,
            Some(life) if life.death.is_none() && life.ending == Ending::Unasked => Phase::Running,
            Some(_) => Phase::Stopping,
        };
        let state = State {
            phase: phase.into(),
            incarnation: self.incarnation.0,
            worker_pid: getpid().as_raw_nonzero().get(),
            process: self.life.as_ref().map(|life| life.process),
            notified: self.readiness == Readiness::Said,
            exits: self.parts.exits.unacknowledged(),
            walls: self.life.as_ref().map(|life| life.walls.clone()).unwrap_or_default(),
        };
        self.report(id, Body::State(state));
    }

    /// Whether an order about `incarnation` is about the current one; refuses it otherwise. If the current
    /// one has ended already, the order has been overtaken by what it wanted, and nothing is left to do.
    fn concerns_current(&mut self, id: ConnectionId, incarnation: u64) -> bool {
        if Incarnation(incarnation) == self.incarnation {
            return true;
        }
        let message = format!("the current incarnation is {}", self.incarnation);
        self.refuse(id, Reason::StaleIncarnation, incarnation, &message);
        false
    }

    fn refuse_as_running(&mut self, id: ConnectionId) {
        let message = format!("incarnation {} is running", self.incarnation);
        self.refuse(id, Reason::Running, self.incarnation.0, &message);
    }

    fn refuse(&mut self, id: ConnectionId, reason: Reason, incarnation: u64, message: &str) {
        let refused = Refused { reason: reason.into(), incarnation, message: message.to_owned() };
        self.report(id, Body::Refused(refused));
    }
}

fn grace(stop: Stop) -> Duration {
    Duration::from_millis(stop.grace_ms)
}
