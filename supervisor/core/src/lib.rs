//! The mind of the supervisor: a pure state machine, events in, actions out.
//!
//! [`Supervisor::handle`] takes what happened and when, and says what to do. It reads no clock, does no I/O,
//! draws chance only from its seed, never fails, never blocks and never panics: the same events give the same
//! actions, on a laptop, in the simulator and years later from a trace.
//!
//! ```text
//!    commands   worker reports   probe answers   Stored(revision)   deadlines
//!        └───────────┴────────────────┼────────────────┴────────────────┘
//!                                     ▼
//!                       Supervisor::handle(now, event)
//!                                     │
//!     1 the event changes one instance                      (happen, command)
//!     2 settle: standings, goals and phases follow          (failover, instance, ending)
//!     3 what is due by now happens too                      (happen::on_deadline)
//!     4 finish: changes get a revision and go to the disk;
//!       what depends on them waits in the outbox            (outbox)
//!                                     ▼
//!    Persist   Launch   Stop   Kill   Sweep   Probe   Reply   …
//! ```
//!
//! The phases of one instance. Each arrow is a function in `happen`, `instance` or `ending`:
//!
//! ```text
//!              goal: run            launched             ready
//!   Stopped ──────────────► Spawning ───────► Starting ───────► Ready ◄───► Unhealthy
//!      ▲  ▲                     │                 │               │             │
//!      │  │ due                 │ cannot start    │ no progress   │ exit, hang, worker lost
//!      │  └───── Backoff ◄──────┴─────────────────┴───────┬───────┴─────────────┘
//!      │  retry                                           │ another start would not mend it,
//!      ├──────── Failed ◄─────────────────────────────────┤ or the budget is spent
//!      │                                                  │
//!      └──────── Stopping ◄───────────────────────────────┘ goal: rest, restart, hang
//!        proof that nothing is alive
//!
//!   Adopting: after a restart of the supervisor, until it is known what runs.
//! ```
//!
//! Rules that hold always are written down in [`invariant::check`].
//!
#![doc = include_str!("phases.md")]
#![no_std]

extern crate alloc;

pub mod action;
mod command;
pub mod denied;
mod ending;
pub mod event;
pub mod failover;
pub mod fence;
mod handoff;
mod happen;
pub mod health;
pub mod ids;
pub mod instance;
pub mod invariant;
pub mod journal;
pub mod ladder;
mod outbox;
pub mod policy;
pub mod ports;
pub mod record;
mod registry;
pub mod restart;
pub mod rng;
pub mod time;
pub mod trial;
mod turn;
pub mod view;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};

use crate::{
    action::Action,
    event::Event,
    ids::{CommandId, Incarnation, Name, Revision},
    instance::{Boot, Goal, Instance, Phase, Then},
    journal::Kind,
    outbox::Outbox,
    policy::Policy,
    ports::{Pool, Ports},
    record::Record,
    rng::Rng,
    time::{Deadline, Moment},
    turn::Turn,
    view::View,
};

/// Revisions skipped at each start: more than an earlier supervisor can have shown without storing them, so
/// that no revision ever means two things.
const RESTART_GAP: u64 = 10_000;

/// A turn that settles for longer than this many steps per instance would be a bug: it is cut short, and the
/// next event goes on.
const SETTLE_STEPS: usize = 50;

/// What a supervisor begins with.
#[derive(Debug, Clone)]
pub struct Origin {
    /// All instances, with the policies that follow from their specs.
    pub records: Vec<(Record, Policy)>,
    /// The port pool.
    pub pool: Pool,
    /// At most this many instances.
    pub max_instances: usize,
    /// The highest revision that is stored.
    pub revision: Revision,
    /// Whether the host was restarted meanwhile.
    pub boot: Boot,
    /// Where chance begins.
    pub seed: u64,
}

/// The whole state machine.
#[derive(Debug, Clone)]
pub struct Supervisor {
    instances: BTreeMap<Name, Instance>,
    /// Who rescues whom, by primary; rescues in the order of their names.
    rescuers: BTreeMap<Name, Vec<Name>>,
    ports: Ports,
    max_instances: usize,
    revision: Revision,
    stored: Revision,
    /// The revision of the newest changes that were sent to the disk.
    persisted: Revision,
    outbox: Outbox,
    timers: BTreeSet<(Deadline, Name)>,
    /// Instances with a reservation on its way to the disk.
    reserving: Vec<Name>,
    /// Deleted instances, and the last number each may have used.
    graves: BTreeMap<Name, Incarnation>,
    rng: Rng,
    boot: Boot,
    store_failing: bool,
    /// The callers that wait for everything to have stopped.
    halting: Option<Vec<CommandId>>,
    /// Instances changed since the last [`refresh`](Self::refresh).
    changed: Vec<Name>,
}

impl Supervisor {
    /// Begins with what is stored, and asks what runs.
    #[must_use]
    pub fn restore(origin: Origin, now: Moment, actions: &mut Vec<Action>) -> Self {
        let revision = Revision(origin.revision.0 + RESTART_GAP);
        let mut supervisor = Self {
            instances: BTreeMap::new(),
            rescuers: BTreeMap::new(),
            ports: Ports::new(origin.pool),
            max_instances: origin.max_instances,
            revision,
            stored: origin.revision,
            persisted: origin.revision,
            outbox: Outbox::default(),
            timers: BTreeSet::new(),
            reserving: Vec::new(),
            graves: BTreeMap::new(),
            rng: Rng::new(origin.seed),
            boot: origin.boot,
            store_failing: false,
            halting: None,
            changed: Vec::new(),
        };
        let mut rng = supervisor.rng.clone();
        let mut turn = Turn::new(now, &mut rng);
        turn.note_own(Kind::Restored { instances: origin.records.len() });
        for (mut record, policy) in origin.records {
            let name = record.name.clone();
            if record.no_later_than(now) {
                turn.store(&name);
            }
            supervisor.ports.hold(&name, record.block);
            supervisor.relate(&mut turn, &name, &policy.rescues);
            let mut instance = Instance::new(record, policy, now);
            instance.durable = instance.record.reserved;
            instance.used = instance.record.reserved;
            instance.enter(&mut turn, Phase::Adopting);
            turn.act(Action::Adopt(name.clone()));
            supervisor.instances.insert(name, instance);
        }
        supervisor.settle(&mut turn);
        supervisor.finish(turn, actions);
        supervisor.rng = rng;
        debug_assert_eq!(invariant::check(&supervisor), Ok(()));
        supervisor
    }

    /// Takes in what happened at `now` and appends what to do.
    pub fn handle(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        let mut rng = self.rng.clone();
        let mut turn = Turn::new(now, &mut rng);
        self.dispatch(&mut turn, event);
        self.settle(&mut turn);
        self.run_due(&mut turn);
        self.conclude_halt(&mut turn);
        self.finish(turn, actions);
        self.rng = rng;
        debug_assert_eq!(invariant::check(self), Ok(()));
    }

    /// When `handle` is to be called with [`Event::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Deadline> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// The revision of the last change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Brings a view up to date, and says whether it was not.
    pub fn refresh(&mut self, view: &mut View) -> bool {
        let flags = (view.store_failing, view.halting);
        let stale = view.revision != self.revision || flags != (self.store_failing, self.halting.is_some());
        view.revision = self.revision;
        view.pool = self.ports.pool();
        view.store_failing = self.store_failing;
        view.halting = self.halting.is_some();
        for name in core::mem::take(&mut self.changed) {
            match self.instances.get(&name) {
                Some(instance) => view.put(Arc::new(instance.clone())),
                None => view.remove(&name),
            }
        }
        stale
    }

    /// The instance of this name.
    #[must_use]
    pub fn instance(&self, name: &Name) -> Option<&Instance> {
        self.instances.get(name)
    }

    /// The instances, by name.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    fn dispatch(&mut self, turn: &mut Turn<'_>, event: Event) {
        match event {
            Event::Command(id, by, command) => self.on_command(turn, id, &by, command),
            Event::Stored(revision) => self.on_stored(turn, revision),
            Event::StoreFailing(message) => {
                if !core::mem::replace(&mut self.store_failing, true) {
                    turn.note_own(Kind::StoreFailing(message));
                }
            }
            Event::Tick => {}
            Event::Adopted(name, adoption) => {
                let boot = self.boot;
                self.with(&name, |instance| instance.on_adopted(turn, adoption, boot));
                self.on_found(turn, &name);
            }
            Event::Launched(name, incarnation, process) => {
                self.with(&name, |instance| instance.on_launched(turn, incarnation, process));
            }
            Event::LaunchFailed(name, incarnation, failure) => {
                self.with(&name, |instance| instance.on_launch_failed(turn, incarnation, failure));
            }
            Event::Notified(name, incarnation) => {
                self.with(&name, |instance| instance.on_notified(turn, incarnation));
            }
            Event::Probed(name, incarnation, report) => {
                self.with(&name, |instance| instance.on_probed(turn, incarnation, report));
            }
            Event::Exited(name, exit) => self.with(&name, |instance| instance.on_exited(turn, exit)),
            Event::WorkerLost(name, incarnation) => {
                self.with(&name, |instance| instance.on_worker_lost(turn, incarnation));
            }
            Event::Swept(name, incarnation) => {
                self.with(&name, |instance| instance.on_swept(turn, incarnation));
            }
            Event::Examined(name, incarnation, evidence) => {
                self.with(&name, |instance| instance.on_examined(turn, incarnation, evidence));
            }
            Event::Handoff(name, incarnation, handoff) => {
                self.with(&name, |instance| instance.on_handoff(turn, incarnation, handoff));
            }
            Event::ConfigSeen(name, sighting) => {
                self.with(&name, |instance| instance.on_config_seen(turn, &sighting));
                self.warn_shared(turn, &name);
            }
            Event::Restored(name, content) => {
                self.with(&name, |instance| instance.on_restored(turn, content));
            }
            Event::RestoreFailed(name, message) => {
                self.with(&name, |instance| instance.on_restore_failed(turn, message));
            }
            Event::FilesLeft(name, why) => turn.note_own(Kind::FilesLeft { name, why }),
        }
    }

    /// A report about an instance that is gone changes nothing.
    fn with(&mut self, name: &Name, then: impl FnOnce(&mut Instance)) {
        if let Some(instance) = self.instances.get_mut(name) {
            then(instance);
        }
    }

    /// Lets standings, goals and phases follow from what has changed, until nothing changes any more.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        let mut steps = SETTLE_STEPS * (self.instances.len() + 1);
        while let Some(name) = turn.unsettled.pop() {
            self.settle_one(turn, &name);
            steps -= 1;
            if steps == 0 {
                debug_assert!(false, "settling goes in circles");
                turn.unsettled.clear();
                return;
            }
        }
    }

    fn settle_one(&mut self, turn: &mut Turn<'_>, name: &Name) {
        self.refresh_goal(name);
        let primaries = self.instances.get(name).map(|i| i.policy.rescues.clone()).unwrap_or_default();
        self.evaluate(turn, name);
        primaries.iter().for_each(|primary| self.evaluate(turn, primary));
        self.refresh_goal(name);
        let Some(instance) = self.instances.get(name) else { return };
        match (instance.goal, &instance.phase) {
            (Goal::Run, Phase::Stopped) => self.begin(turn, name),
            (
                Goal::Rest,
                Phase::Spawning
                | Phase::Starting
                | Phase::Ready
                | Phase::Unhealthy
                | Phase::Backoff { .. }
                | Phase::Failed { .. },
            ) => {
                let means = instance.means(event::Manner::Graceful);
                self.with(name, |instance| instance.end(turn, means, Then::Rest));
            }
            (Goal::Rest, Phase::Stopped) => self.bury(turn, name),
            (Goal::Rest, Phase::Adopting | Phase::Stopping { .. })
            | (
                Goal::Run,
                Phase::Adopting
                | Phase::Spawning
                | Phase::Starting
                | Phase::Ready
                | Phase::Unhealthy
                | Phase::Stopping { .. }
                | Phase::Backoff { .. }
                | Phase::Failed { .. },
            ) => {}
        }
        self.align(turn, name);
    }

    fn refresh_goal(&mut self, name: &Name) {
        let Some(goal) = self.instances.get(name).map(|instance| self.goal(instance)) else { return };
        self.with(name, |instance| instance.goal = goal);
    }

    /// Handles every deadline that has passed; none is left behind.
    fn run_due(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..SETTLE_STEPS {
            self.rearm(turn);
            let due: Vec<Name> = self
                .timers
                .iter()
                .take_while(|(deadline, _)| deadline.at <= turn.now)
                .map(|(_, name)| name.clone())
                .collect();
            if due.is_empty() {
                return;
            }
            for name in due {
                turn.rearm(&name);
                self.with(&name, |instance| instance.on_deadline(turn));
                self.evaluate(turn, &name);
                self.align_one(turn, &name);
                self.settle(turn);
            }
        }
    }

    /// Brings the list of deadlines in line with the instances.
    fn rearm(&mut self, turn: &mut Turn<'_>) {
        for name in core::mem::take(&mut turn.rearmed) {
            self.rearm_one(&name);
        }
    }

    fn rearm_one(&mut self, name: &Name) {
        let next = self.instances.get(name).and_then(|instance| self.deadline_of(instance));
        let Some(instance) = self.instances.get_mut(name) else { return };
        if next != instance.timer {
            if let Some(old) = core::mem::replace(&mut instance.timer, next) {
                self.timers.remove(&(old, name.clone()));
            }
            self.timers.extend(next.map(|next| (next, name.clone())));
        }
    }

    /// When something about `instance` is due, as it and the others are.
    pub(crate) fn deadline_of(&self, instance: &Instance) -> Option<Deadline> {
        let of_others = self.failback_due(instance.name()).into_iter().chain(self.fence_due(instance));
        instance.deadline().into_iter().chain(of_others).min()
    }

    /// Once nothing runs, the callers of `Halt` are answered.
    fn conclude_halt(&mut self, turn: &mut Turn<'_>) {
        if let Some(waiting) = self.halting.as_mut()
            && !self.instances.values().any(Instance::is_running)
        {
            for id in core::mem::take(waiting) {
                let done = action::Done { revision: self.revision, created: false };
                turn.act_durably(Action::Reply(id, Ok(done)));
            }
        }
    }
}
