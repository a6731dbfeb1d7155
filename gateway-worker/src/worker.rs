//! The worker itself: what it holds, the orders it obeys, and the life of an incarnation.
//!
//! ```text
//!                     Run                    main process dies, or Kill, or the grace is over
//!   ┌──────► EMPTY ──────────► RUNNING ─────────────────────────────┐
//!   │                             │ Stop                            ▼
//!   │                             └─────────► STOPPING ────► the tree is killed
//!   │  Exited                     SIGTERM, grace runs               │
//!   └────────────────────────────────────────────────── no descendant is left
//! ```

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use rustix::process::{Pid, WaitStatus, getuid};
use supervisor_proto::worker::report::Report as Body;
use supervisor_proto::worker::{Launch, Notified, Report, Run, SpawnFailed, Started};

use crate::child::{self, Launched, SpawnError};
use crate::complain::complain;
use crate::key::Key;
use crate::life::{Death, Incarnation, Life, Readiness};
use crate::notify::{Audience, NotifySocket};
use crate::output::Output;
use crate::record::Exits;
use crate::serve::{ConnectionId, Role, Server};
use crate::tree::{self, Reaped};
use crate::walls::modes::Keeper;

/// How soon an unacknowledged exit is made safe from the death of the host. An acknowledgement usually comes
/// first and spares the fsync, which would keep the next incarnation waiting.
const SETTLE_AFTER: Duration = Duration::from_secs(1);

/// How soon that is tried again after it failed.
const SETTLE_AGAIN: Duration = Duration::from_secs(30);

/// Children reaped in a row, about 10 ms. A storm of short-lived orphans must not keep orders waiting.
const REAPED_PER_TURN: usize = 8192;

/// How soon descendants that were sent SIGKILL are looked for again if no death is heard of: the kernel's
/// list of children may miss one while it changes. Doubled each time in vain: then something is stuck in the
/// kernel.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The longest such pause.
const LOOK_AGAIN_WITHIN: Duration = Duration::from_secs(2);

/// Whether the worker is to exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It waits for orders.
    No,
    /// It exits as soon as nothing runs.
    WhenEmpty,
}

/// What a worker is given at the start.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The working directory.
    pub(crate) run_dir: PathBuf,
    /// The lock on it.
    #[expect(dead_code, reason = "held, never read: closing it would let another worker in")]
    pub(crate) lock: File,
    /// Deaths of children, and SIGTERM.
    pub(crate) signals: SignalFd,
    /// Exits not yet acknowledged.
    pub(crate) exits: Exits,
    /// Everyone connected.
    pub(crate) server: Server,
    /// The log.
    pub(crate) output: Output,
    /// What the last incarnation ran, or the first will.
    pub(crate) launch: Launch,
    /// The highest epoch of a controller so far.
    pub(crate) epoch: u64,
    /// Opens the socket.
    pub(crate) key: Key,
}

/// The worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// What it was given.
    pub(crate) parts: Parts,
    /// The last incarnation that was run.
    pub(crate) incarnation: Incarnation,
    /// Of that incarnation.
    pub(crate) readiness: Readiness,
    /// Set while anything of that incarnation is alive.
    pub(crate) life: Option<Life>,
    /// Set if that incarnation may say that it is ready.
    pub(crate) notify: Option<NotifySocket>,
    /// Set while who is behind walls waits for their modes to be changed from here.
    pub(crate) keeper: Option<Keeper>,
    /// Whether the worker is to exit.
    pub(crate) leaving: Leaving,
    /// When to make the record of exits durable.
    settle_at: Option<Instant>,
    /// When to look for dead or unkilled children without having heard of any.
    look_at: Option<Instant>,
    /// The pause before that.
    pause: Duration,
}

impl Worker {
    /// A worker that runs nothing yet.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            incarnation: Incarnation(0),
            readiness: Readiness::Unsaid,
            life: None,
            notify: None,
            keeper: None,
            leaving: Leaving::No,
            settle_at: None,
            look_at: None,
            pause: LOOK_AGAIN_AFTER,
        }
    }

    /// Starts with the connection that brought the bootstrap, as if its peer had attached and then ordered
    /// `run`. `rest` came with the bootstrap.
    pub(crate) fn begin(&mut self, supervisor: UnixStream, rest: Vec<u8>, run: Run) -> io::Result<()> {
        let id = self.parts.server.adopt(supervisor, rest, Role::Control)?;
        self.report_state(id);
        self.run_incarnation(id, run);
        self.obey_all(id);
        Ok(())
    }

    /// Starts `incarnation` with the present launch, and reports the outcome.
    pub(crate) fn start(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        self.readiness = Readiness::Unsaid;
        let outcome = self
            .prepare_notify()
            .and_then(|()| child::spawn(&self.parts.launch, self.notify.as_ref().map(NotifySocket::address)));
        match outcome {
            Ok(Launched { pid, process, output, walls, group, keeper }) => {
                self.keeper = keeper;
                self.parts.output.begin(incarnation, output);
                self.life = Some(Life::begun(pid, process, walls.clone(), group));
                self.broadcast(Body::Started(Started {
                    incarnation: incarnation.0,
                    process: Some(process),
                    walls,
                }));
            }
            Err(error) => {
                let (errno, message) = (error.errno(), error.explanation());
                complain(format_args!("{message}"));
                self.broadcast(Body::SpawnFailed(SpawnFailed { incarnation: incarnation.0, errno, message }));
            }
        }
    }

    fn prepare_notify(&mut self) -> Result<(), SpawnError> {
        let Launch { notify, walls, .. } = &self.parts.launch;
        let user = walls.as_ref().and_then(|walls| walls.user.as_ref());
        let other = user.map(|user| user.uid).filter(|uid| *uid != getuid().as_raw());
        let audience = other.map_or(Audience::Own, Audience::Other);
        match self.notify.take().filter(|socket| *notify && socket.audience() == audience) {
            Some(socket) => {
                socket.drain();
                self.notify = Some(socket);
            }
            None if *notify => {
                let bound = match audience {
                    Audience::Own => NotifySocket::bind(&self.parts.run_dir),
                    Audience::Other(uid) => NotifySocket::bind_for(uid, self.parts.output.directory()),
                };
                self.notify = Some(bound.map_err(SpawnError::Notify)?);
            }
            None => {}
        }
        Ok(())
    }

    /// Reads what the gateway has said about itself.
    pub(crate) fn hear_gateway(&mut self) {
        let Some(socket) = &self.notify else { return };
        // What nobody waits for costs nobody a look at who said it.
        if self.readiness == Readiness::Said || self.life.is_none() {
            return socket.drain();
        }
        if socket.receive() == Readiness::Said {
            self.readiness = Readiness::Said;
            self.broadcast(Body::Notified(Notified { incarnation: self.incarnation.0 }));
        }
    }

    /// Reaps what has died. Once the main process has, nothing of the incarnation may live on.
    pub(crate) fn reap(&mut self, now: Instant) {
        self.look_at = None;
        // Who is reaped cannot be told any more, and its last word would be nobody's.
        self.hear_gateway();
        for _ in 0..REAPED_PER_TURN {
            match tree::reap() {
                Reaped::Dead(pid, status) => self.note_death(pid, status),
                Reaped::LetGo => {}
                Reaped::Alive => return self.kill_rest(now),
                Reaped::Empty => return self.finish(now),
            }
        }
        self.kill_rest(now);
        self.look_at = Some(now);
    }

    fn note_death(&mut self, pid: Pid, status: WaitStatus) {
        self.pause = LOOK_AGAIN_AFTER;
        let Some(life) = &mut self.life else { return };
        match &mut life.death {
            None if pid == life.pid => life.death = Some(Death::now(status)),
            // An orphan of the living gateway.
            None => {}
            Some(death) => death.note_other(),
        }
    }

    /// The main process is dead, others are not: ends them.
    fn kill_rest(&mut self, now: Instant) {
        let Some(life) = &mut self.life else { return };
        let Some(death) = &mut life.death else { return };
        death.sweep();
        life.kill_group();
        if let Err(error) = tree::kill_children() {
            complain(format_args!("failed to find the gateway's descendants: {error}"));
        }
        self.look_at = Some(now + self.pause);
        let next = (self.pause * 2).min(LOOK_AGAIN_WITHIN);
        if self.pause < next && next == LOOK_AGAIN_WITHIN {
            let left = tree::children().unwrap_or_default();
            complain(format_args!("SIGKILL does not end these descendants of the gateway: {left:?}"));
        }
        self.pause = next;
    }

    /// Nothing is left: takes in the last output, records the exit, then reports it.
    fn finish(&mut self, now: Instant) {
        let Some(exited) = self.life.as_ref().and_then(|life| life.exited(self.incarnation)) else { return };
        self.parts.output.end();
        // Whoever is in its group without having been its descendant was put there, and goes with it.
        self.life.iter().for_each(Life::kill_group);
        self.life = None;
        self.parts.exits.append(exited);
        self.settle_at.get_or_insert(now + SETTLE_AFTER);
        self.report_losses();
        self.broadcast(Body::Exited(exited));
    }

    /// Forgets the exits up to `incarnation`.
    pub(crate) fn acknowledge(&mut self, incarnation: u64) {
        self.parts.exits.acknowledge(incarnation);
        if !self.parts.exits.is_unsettled() {
            self.settle_at = None;
        }
    }

    /// Makes the record of exits survive the host.
    pub(crate) fn settle(&mut self, now: Instant) {
        self.parts.exits.settle();
        self.settle_at = self.parts.exits.is_unsettled().then(|| now + SETTLE_AGAIN);
    }

    /// Reports output that the log could not take.
    pub(crate) fn report_losses(&mut self) {
        for loss in self.parts.output.take_losses() {
            self.broadcast(Body::LogDropped(loss));
        }
    }

    /// When [`Worker::pass`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let patience = self.life.as_ref().and_then(Life::kill_at);
        let server = self.parts.server.deadline();
        let output = self.parts.output.deadline();
        [patience, server, output, self.settle_at, self.look_at].into_iter().flatten().min()
    }

    /// Does what has become due at `now`.
    pub(crate) fn pass(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.life.as_ref().and_then(Life::kill_at)) {
            self.kill_tree();
        }
        if due(self.look_at) {
            self.reap(now);
        }
        self.parts.output.pass(now);
        self.report_losses();
        self.parts.server.pass(now);
        if due(self.settle_at) {
            self.settle(now);
        }
    }

    /// Tells everyone.
    pub(crate) fn broadcast(&mut self, body: Body) {
        self.parts.server.broadcast(&Report { report: Some(body) });
    }

    /// Tells `id`.
    pub(crate) fn report(&mut self, id: ConnectionId, body: Body) {
        self.parts.server.send(id, &Report { report: Some(body) });
    }
}
