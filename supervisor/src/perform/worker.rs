//! The workers: one task for each instance, which does what it is told in order and reports what it hears.
//!
//! A task is the only one that talks to its instance's worker, so a sweep never meets a launch. It never
//! decides: what it cannot do, it reports, and core says what comes next.

use std::{fs, io, path::PathBuf, rc::Rc, time::Duration};

use supervisor_core::{
    action::Launch,
    event::{Adoption, Event, Exit, ExitStatus, Files, Found, LaunchFailure, Process},
    failover::Incident,
    ids::{Incarnation, Name},
};
use supervisor_proto::worker::{
    self, Acknowledge, Exited, Kill, Quit, Refused, Report, Run, State, Stop, exited::How,
    order::Order as Body, refused::Reason, report::Report as Heard, state::Phase,
};
use tokio::{sync::mpsc, task, time};
use tracing::{debug, warn};

use super::{
    Surroundings,
    launch::{self, Ready},
    link::{self, Link, LinkError},
    spawn,
};

/// Orders that may wait for one instance's task. Core gives a few per life of an instance.
const ORDERS: usize = 64;

/// A worker answers within a millisecond; one that takes this long is stopped or stuck.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// It is deleted. The task ends.
    Forget(Files),
}

/// Starts the task of one instance.
pub(crate) fn start(name: Name, surroundings: Rc<Surroundings>) -> mpsc::Sender<Order> {
    let (orders, inbox) = mpsc::channel(ORDERS);
    let run_dir = surroundings.run_dir(&name);
    let task = Task { name, run_dir, surroundings, link: None, worker_pid: 0, incarnation: Incarnation(0) };
    task::spawn_local(task.run(inbox));
    orders
}

struct Task {
    name: Name,
    run_dir: PathBuf,
    surroundings: Rc<Surroundings>,
    link: Option<Link>,
    /// The worker's process; 0 until there is one.
    worker_pid: i32,
    /// The newest life that this task knows of.
    incarnation: Incarnation,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                biased;
                report = receive(&mut self.link) => match report {
                    Ok(report) => self.heard(report).await,
                    Err(error) => self.lost(&error).await,
                },
                order = inbox.recv() => match order {
                    None => return,
                    Some(Order::Forget(files)) => return self.forget(files).await,
                    Some(order) => self.obey(order).await,
                },
            }
        }
    }

    async fn obey(&mut self, order: Order) {
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
        self.tell(Event::WorkerLost(self.name.clone(), self.incarnation)).await;
    }

    async fn heard(&mut self, report: Report) {
        let name = self.name.clone();
        match report.report {
            Some(Heard::State(state)) => {
                for exit in &state.exits {
                    self.tell(Event::Exited(name.clone(), self.exit(exit))).await;
                }
            }
            Some(Heard::Started(started)) => {
                let process = self.process(started.process.unwrap_or_default());
                self.tell(Event::Launched(name, Incarnation(started.incarnation), process)).await;
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
        let fails = match refused.reason() {
            Reason::Running | Reason::Locked | Reason::Invalid => refused.incarnation == self.incarnation.0,
            Reason::StaleIncarnation | Reason::StaleEpoch | Reason::Unspecified => false,
        };
        debug!(instance = %self.name, "the worker refused an order: {}", refused.message);
        if fails {
            let failure = LaunchFailure::Spawn(refused.message);
            self.tell(Event::LaunchFailed(self.name.clone(), self.incarnation, failure)).await;
        }
    }

    async fn launch(&mut self, launch: Launch) {
        let (name, incarnation) = (self.name.clone(), launch.incarnation);
        self.incarnation = incarnation;
        let outcome = match launch::prepare(&self.surroundings, launch).await {
            Ok(ready) => self.run_incarnation(incarnation, ready).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = outcome {
            self.tell(Event::LaunchFailed(name, incarnation, failure)).await;
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
        };
        match spawn::worker(&self.surroundings, &self.name, &self.run_dir, bootstrap).await {
            Ok(spawn::Worker { link, pid }) => {
                self.link = Some(link);
                self.worker_pid = pid;
                Ok(())
            }
            Err(error) => Err(LaunchFailure::Spawn(error.to_string())),
        }
    }

    async fn adopt(&mut self) {
        let adoption = match self.find_worker().await {
            Some((link, state)) => {
                self.link = Some(link);
                self.incarnation = Incarnation(state.incarnation);
                self.worker_pid = state.worker_pid;
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
            let mut link = Link::attach(&self.run_dir, self.surroundings.epoch).await?;
            loop {
                if let Some(Heard::State(state)) = link.receive().await?.report {
                    return Ok::<_, LinkError>((link, state));
                }
            }
        };
        match time::timeout(PATIENCE, attach).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                debug!(instance = %self.name, error = &error as &dyn std::error::Error, "no worker to adopt");
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

    /// Lets the worker go, and waits until it has.
    async fn release(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        let quit = async {
            link.send(Body::Quit(Quit {})).await?;
            loop {
                link.receive().await?;
            }
        };
        // The loop ends with `Closed`: that is what is waited for.
        let outcome: Result<Result<(), LinkError>, _> = time::timeout(PATIENCE, quit).await;
        if outcome.is_err() {
            warn!(instance = %self.name, "its worker does not let go and is killed");
            self.clear().await;
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

    /// Kills whatever carries the instance's mark; returns when nothing does.
    async fn clear(&self) {
        self.surroundings.sweeper.sweep(&self.surroundings.mark(&self.name)).await;
    }

    fn left_exits(&self) -> Vec<Exit> {
        link::left_exits(&self.run_dir).iter().map(|exit| self.exit(exit)).collect()
    }

    async fn inform(&self, incidents: Vec<Incident>) {
        if let Err(error) = launch::inform(&self.surroundings, self.name.clone(), &incidents).await {
            warn!(instance = %self.name, error = &error as &dyn std::error::Error, "failed to write its incident file");
        }
    }

    async fn forget(&mut self, files: Files) {
        self.release().await;
        if let Err(error) = fs::remove_dir_all(&self.run_dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(instance = %self.name, %error, "failed to delete its run directory");
        }
        if files == Files::Purge
            && let Err(error) = launch::purge(&self.surroundings, &self.name).await
        {
            warn!(instance = %self.name, %error, "failed to delete its files");
        }
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
