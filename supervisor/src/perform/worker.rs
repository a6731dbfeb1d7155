//! The workers: one task for each instance, which does what it is told in order and reports what it hears.
//!
//! A task is the only one that talks to its instance's worker, so a sweep never meets a launch. It never
//! decides: what it cannot do, it reports, and core says what comes next.

mod files;

use std::{io, path::PathBuf, rc::Rc, time::Duration};

use supervisor_core::{
    action::Launch,
    event::{Adoption, Event, Exit, ExitStatus, Files, Found, LaunchFailure, Process},
    failover::Incident,
    ids::{ConfigId, Incarnation, Name},
};
use supervisor_proto::worker::{
    self, Acknowledge, Exited, Kill, Quit, Refused, Report, Run, State, Stop, exited::How,
    order::Order as Body, refused::Reason, report::Report as Heard, state::Phase,
};
use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
    time,
};
use tracing::{debug, warn};

use super::{
    Surroundings,
    config::{self, Place, Used},
    contract,
    launch::{self, Prepared, Ready},
    link::{self, Link, LinkError},
    spawn::{self, SpawnError, Worker},
};
use crate::{custody, openclaw::contract::Contract};

/// Orders that may wait for one instance's task. Core gives a few per life of an instance.
const ORDERS: usize = 64;

/// A worker answers within a millisecond, on a host that swaps within seconds; one that takes this long is stopped
/// or stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts to reach a worker while this process lacks what it takes.
const REACH_AGAIN: Duration = Duration::from_millis(50);

/// What one instance's task is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Find out what runs.
    Adopt,
    /// Run a new incarnation.
    Launch(Box<Launch>),
    /// End it patiently.
    Stop(Incarnation, Duration),
    /// End it at once.
    Kill(Incarnation),
    /// Its exit is durable.
    Acknowledge(Incarnation),
    /// The worker is not needed any more.
    Release,
    /// Kill whatever is left.
    Sweep(Incarnation),
    /// Its incidents have changed.
    Inform(Vec<Incident>),
    /// Write down what it is doing.
    Examine(Incarnation, String),
    /// Find out whether a life that ended well wants to be run again.
    AskHandoff(Incarnation, i32),
    /// Put an older configuration in place.
    Restore(ConfigId, String),
    /// It is deleted. The task ends, unless there are orders for the next instance of this name already.
    Forget(Files),
}

/// Whether anything of the instance may be alive that this task has no connection to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    None,
    Possible,
}

/// Starts the task of one instance.
pub(crate) fn start(name: Name, surroundings: Rc<Surroundings>) -> (mpsc::Sender<Order>, JoinHandle<()>) {
    let (orders, inbox) = mpsc::channel(ORDERS);
    let run_dir = surroundings.run_dir(&name);
    let task = Task {
        name,
        run_dir,
        surroundings,
        link: None,
        leftovers: Leftovers::None,
        worker_pid: 0,
        incarnation: Incarnation(0),
        // Of one that is adopted nothing is known, and asking does no harm.
        contract: Contract::Handoff,
        has_run: false,
    };
    (orders, task::spawn_local(task.run(inbox)))
}

struct Task {
    name: Name,
    run_dir: PathBuf,
    surroundings: Rc<Surroundings>,
    link: Option<Link>,
    leftovers: Leftovers,
    /// The worker's process; 0 until there is one.
    worker_pid: i32,
    /// The newest life that this task knows of.
    incarnation: Incarnation,
    /// What its runtime can do.
    contract: Contract,
    /// It has been started or adopted: from now on nothing may delay a start.
    has_run: bool,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                biased;
                report = receive(&mut self.link) => match report {
                    // What is to be done about it is put aside, here and below: else each instance would carry for
                    // ever what the largest of it needs for a moment.
                    Ok(report) => Box::pin(self.heard(report)).await,
                    Err(error) => self.lost(&error).await,
                },
                order = inbox.recv() => match order {
                    None => return,
                    Some(Order::Forget(files)) => {
                        Box::pin(self.forget(files)).await;
                        // Whoever finds the inbox closed starts another task; on this thread nothing comes between.
                        if inbox.is_empty() {
                            return;
                        }
                    }
                    Some(order) => Box::pin(self.obey(order)).await,
                },
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        // The daemon is ending: what is ended now need not be ended later, but nothing is begun.
        let begins = matches!(
            order,
            Order::Adopt | Order::Launch(_) | Order::Sweep(_) | Order::Inform(_) | Order::Restore(..)
        );
        if begins && self.surroundings.events.is_closed() {
            return;
        }
        match order {
            Order::Adopt => self.adopt().await,
            Order::Launch(launch) => self.launch(*launch).await,
            Order::Stop(incarnation, grace) => {
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                self.send(Body::Stop(Stop { incarnation: incarnation.0, grace_ms })).await;
            }
            Order::Kill(incarnation) => self.send(Body::Kill(Kill { incarnation: incarnation.0 })).await,
            Order::Acknowledge(incarnation) => self.acknowledge(incarnation).await,
            Order::Release => self.release().await,
            Order::Sweep(incarnation) => self.sweep(incarnation).await,
            Order::Inform(incidents) => self.inform(incidents).await,
            Order::Examine(incarnation, why) => self.examine(incarnation, why).await,
            Order::AskHandoff(incarnation, pid) => {
                let (surroundings, name) = (Rc::clone(&self.surroundings), self.name.clone());
                contract::ask_handoff(surroundings, name, incarnation, pid, self.contract);
            }
            Order::Restore(to, why) => self.restore(to, why).await,
            Order::Forget(_) => {}
        }
    }

    /// Tells the driver. It always takes events in, so this waits only while it is busy with others.
    async fn tell(&self, event: Event) {
        let _ = self.surroundings.events.send(event).await;
    }

    /// Gives an order to the worker, if there is one. A worker that does not take it in is as good as lost.
    async fn send(&mut self, order: Body) {
        let Some(link) = &mut self.link else { return };
        let outcome = time::timeout(PATIENCE, link.send(order)).await;
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => LinkError::Io(io::ErrorKind::TimedOut.into()),
        };
        self.lost(&error).await;
    }

    async fn lost(&mut self, error: &LinkError) {
        debug!(instance = %self.name, error = error as &dyn std::error::Error, "lost the worker");
        self.link = None;
        self.leftovers = Leftovers::Possible;
        self.tell(Event::WorkerLost(self.name.clone(), self.incarnation)).await;
    }

    async fn heard(&mut self, report: Report) {
        let name = self.name.clone();
        match report.report {
            Some(Heard::State(state)) => self.tell_exits(&state.exits).await,
            Some(Heard::Started(started)) => {
                let process = self.process(started.process.unwrap_or_default());
                let incarnation = Incarnation(started.incarnation);
                self.note_walls(incarnation, started.walls).await;
                self.tell(Event::Launched(name, incarnation, process)).await;
            }
            Some(Heard::SpawnFailed(failed)) => {
                let failure = LaunchFailure::Spawn(failed.message);
                self.tell(Event::LaunchFailed(name, Incarnation(failed.incarnation), failure)).await;
            }
            Some(Heard::Notified(notified)) => {
                self.tell(Event::Notified(name, Incarnation(notified.incarnation))).await;
            }
            Some(Heard::Exited(exited)) => self.tell(Event::Exited(name, self.exit(&exited))).await,
            Some(Heard::Refused(refused)) => self.refused(refused).await,
            Some(Heard::LogDropped(dropped)) => {
                warn!(instance = %name, bytes = dropped.bytes, "output was lost: {}", dropped.message);
            }
            None => {}
        }
    }

    /// Only a refused run needs an answer; a refused stop means that the exit is on its way.
    async fn refused(&mut self, refused: Refused) {
        let current = refused.incarnation == self.incarnation.0;
        match refused.reason() {
            // It runs what core takes for ended, or has run what core takes for new: a sweep ends the difference.
            Reason::Running => self.lost(&LinkError::Refused(refused.message)).await,
            Reason::StaleIncarnation if current => self.lost(&LinkError::Refused(refused.message)).await,
            Reason::Invalid | Reason::Locked if current => {
                let failure = LaunchFailure::Spawn(refused.message);
                self.tell(Event::LaunchFailed(self.name.clone(), self.incarnation, failure)).await;
            }
            Reason::StaleIncarnation
            | Reason::Invalid
            | Reason::Locked
            | Reason::StaleEpoch
            | Reason::WrongKey
            | Reason::Unspecified => {
                debug!(instance = %self.name, "the worker refused an order: {}", refused.message);
            }
        }
    }

    async fn launch(&mut self, launch: Launch) {
        let (name, incarnation) = (self.name.clone(), launch.incarnation);
        self.incarnation = incarnation;
        self.make_way().await;
        let outcome = match launch::place(&self.surroundings, &launch) {
            Ok(place) => self.launch_at(place, launch).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = outcome {
            self.tell(Event::LaunchFailed(name, incarnation, failure)).await;
        }
    }

    async fn launch_at(&mut self, place: Place, launch: Launch) -> Result<(), LaunchFailure> {
        let incarnation = launch.incarnation;
        let patience = if self.has_run { Duration::ZERO } else { contract::FIRST_START };
        self.contract = self.contract(&place, patience).await;
        self.has_run = true;
        let Prepared { restored, used, unexpected, ready } =
            launch::prepare(&self.surroundings, launch, place.clone(), self.contract).await;
        if let Some(event) = restored {
            self.tell(event).await;
        }
        if let Some(sighting) = unexpected {
            // Before the failure: core tries again with what it knows then. The next launch keeps the content.
            config::tell_unkept(&self.surroundings, self.name.clone(), sighting).await;
        }
        match used {
            Some(Used { sighting, unkept: Some(content) }) => {
                config::keep_then_tell(Rc::clone(&self.surroundings), place, content, sighting);
            }
            Some(Used { sighting, unkept: None }) => {
                config::tell(&self.surroundings, self.name.clone(), sighting).await;
            }
            None => {}
        }
        self.watch();
        self.run_incarnation(incarnation, ready?).await
    }

    /// Sees to it that there is a worker that can be used, or none.
    async fn make_way(&mut self) {
        if self.link.is_some() && !link::can_be_found(&self.run_dir) {
            warn!(instance = %self.name, "its worker's socket or key has been deleted; the worker is replaced");
            self.release().await;
        }
        if self.leftovers == Leftovers::Possible {
            self.clear().await;
        }
    }

    /// Orders the run, from the worker there is or from a new one.
    async fn run_incarnation(&mut self, incarnation: Incarnation, ready: Ready) -> Result<(), LaunchFailure> {
        let run = Run { incarnation: incarnation.0, launch: Some(ready.launch) };
        if self.link.is_some() {
            self.send(Body::Run(run)).await;
            return Ok(());
        }
        let bootstrap = worker::Bootstrap {
            instance: self.name.to_string(),
            run_dir: self.run_dir.to_string_lossy().into_owned(),
            epoch: self.surroundings.epoch,
            log: Some(ready.log),
            run: Some(run),
            // It lies in a directory that the worker's start makes.
            key: Vec::new(),
        };
        let worker = self.start_worker(&bootstrap).await;
        let Worker { link, pid, exits } = worker.map_err(|error| LaunchFailure::Spawn(error.to_string()))?;
        self.link = Some(link);
        self.worker_pid = pid;
        self.tell_exits(&exits).await;
        Ok(())
    }

    /// A new worker. If there is none, nothing of the attempt is alive.
    async fn start_worker(&mut self, bootstrap: &worker::Bootstrap) -> Result<Worker, SpawnError> {
        let mut worker = spawn::worker(&self.surroundings, &self.name, &self.run_dir, bootstrap).await;
        if let Err(SpawnError::Locked(_)) = worker {
            // Whoever holds the directory is not this task's, so it is nobody's.
            self.clear().await;
            worker = spawn::worker(&self.surroundings, &self.name, &self.run_dir, bootstrap).await;
        }
        if worker.as_ref().is_err_and(SpawnError::leaves_a_process) {
            self.clear().await;
        }
        worker
    }

    async fn adopt(&mut self) {
        self.watch();
        self.has_run = true;
        let adoption = match self.find_worker().await {
            Some((link, state)) => {
                self.link = Some(link);
                self.incarnation = Incarnation(state.incarnation);
                self.worker_pid = state.worker_pid;
                self.renew_group(&state.walls).await;
                self.note_walls(self.incarnation, state.walls.clone()).await;
                self.adoption(&state)
            }
            None => {
                self.clear().await;
                Adoption { found: Found::Nothing, exits: self.left_exits() }
            }
        };
        self.tell(Event::Adopted(self.name.clone(), adoption)).await;
    }

    async fn find_worker(&self) -> Option<(Link, State)> {
        let attach = async {
            loop {
                match Link::attach(&self.run_dir, self.surroundings.epoch).await {
                    Err(error) if error.is_passing() => time::sleep(REACH_AGAIN).await,
                    Err(error) if error.is_shut_out() => {
                        custody::open_run(&self.run_dir);
                        time::sleep(REACH_AGAIN).await;
                    }
                    outcome => return outcome,
                }
            }
        };
        match time::timeout(PATIENCE, attach).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) if error.is_absence() => None,
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                warn!(instance = %self.name, error, "its worker cannot be adopted and is killed");
                None
            }
            Err(_) => {
                warn!(instance = %self.name, "its worker does not answer and is killed");
                None
            }
        }
    }

    fn adoption(&self, state: &State) -> Adoption {
        let incarnation = Incarnation(state.incarnation);
        let exits = state.exits.iter().map(|exit| self.exit(exit)).collect();
        let running = |stopping| Found::Running {
            incarnation,
            process: self.process(state.process.unwrap_or_default()),
            notified: state.notified,
            stopping,
        };
        let found = match state.phase() {
            Phase::Running => running(false),
            Phase::Stopping => running(true),
            Phase::Empty | Phase::Unspecified => Found::Idle { incarnation },
        };
        Adoption { found, exits }
    }

    async fn acknowledge(&mut self, incarnation: Incarnation) {
        if self.link.is_some() {
            return self.send(Body::Acknowledge(Acknowledge { incarnation: incarnation.0 })).await;
        }
        if self.left_exits().iter().all(|exit| exit.incarnation <= incarnation)
            && let Err(error) = link::forget_exits(&self.run_dir)
        {
            warn!(instance = %self.name, %error, "failed to forget exits");
        }
    }

    /// Lets the worker go, and waits until it has. Then nothing of the instance is alive.
    async fn release(&mut self) {
        if let Some(link) = self.link.take() {
            match time::timeout(PATIENCE, self.dismiss(link)).await {
                Ok(LinkError::Closed) => {}
                Ok(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(instance = %self.name, error, "its worker does not let go and is killed");
                    self.leftovers = Leftovers::Possible;
                }
                Err(_) => {
                    warn!(instance = %self.name, "its worker does not answer and is killed");
                    self.leftovers = Leftovers::Possible;
                }
            }
        }
        if self.leftovers == Leftovers::Possible {
            self.clear().await;
        }
    }

    /// Tells a worker to quit and hears its last words. `Closed` is as it should be.
    async fn dismiss(&mut self, mut link: Link) -> LinkError {
        if let Err(error) = link.send(Body::Quit(Quit {})).await {
            return error;
        }
        loop {
            match link.receive().await {
                Ok(Report { report: Some(Heard::Refused(refused)) }) => {
                    return LinkError::Refused(refused.message);
                }
                Ok(report) => self.heard(report).await,
                Err(error) => return error,
            }
        }
    }

    async fn sweep(&mut self, incarnation: Incarnation) {
        self.link = None;
        self.clear().await;
        for exit in self.left_exits() {
            self.tell(Event::Exited(self.name.clone(), exit)).await;
        }
        self.tell(Event::Swept(self.name.clone(), incarnation)).await;
    }

    async fn tell_exits(&self, exits: &[Exited]) {
        for exit in exits {
            self.tell(Event::Exited(self.name.clone(), self.exit(exit))).await;
        }
    }

    fn left_exits(&self) -> Vec<Exit> {
        link::left_exits(&self.run_dir).iter().map(|exit| self.exit(exit)).collect()
    }

    fn process(&self, process: worker::Process) -> Process {
        Process {
            pid: process.pid,
            worker_pid: self.worker_pid,
            started: self.surroundings.moment(process.started_monotonic_ns),
        }
    }

    fn exit(&self, exited: &Exited) -> Exit {
        let status = match exited.how {
            Some(_) if exited.out_of_memory => ExitStatus::OutOfMemory,
            Some(How::Code(code)) => ExitStatus::Code(code),
            Some(How::Signal(number)) => ExitStatus::Signal { number, core: exited.core_dumped },
            None => ExitStatus::Unknown,
        };
        Exit {
            incarnation: Incarnation(exited.incarnation),
            status,
            at: self.surroundings.moment(exited.exited_monotonic_ns),
            stragglers: exited.stragglers,
            ordered: exited.ordered,
        }
    }
}

/// Waits for ever without a link.
async fn receive(link: &mut Option<Link>) -> Result<Report, LinkError> {
    match link {
        Some(link) => link.receive().await,
        None => std::future::pending().await,
    }
}
