//! The loop: the only caller of core, and the only reader of the clock.
//!
//! ```text
//!   commands ──┐                                  ┌──► replies
//!   events   ──┼──► handle(now, event) ──► actions ──► perform ──► the world ──┐
//!   store    ──┤                                  └──► view                    │
//!   deadline ──┘                                                               │
//!      ▲                                                                       │
//!      └──────────────────────────── events ◄──────────────────────────────────┘
//! ```
//!
//! Nothing here waits for the world. A burst of events is taken in before the view is published once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};
use supervisor_core::{
    Origin, Supervisor,
    action::{Action, Done},
    denied::Denied,
    event::Event,
    ids::CommandId,
    time::Moment,
    view::View,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    handle::Submission,
    metrics::Metrics,
    perform::{Performer, store},
};

/// Events that may wait for the driver; who sends more waits with them.
pub(crate) const EVENTS: usize = 1024;

/// Events taken in before the view is published, so that readers see a burst's progress.
const BURST: usize = 256;

/// How often somebody is told that the driver is alive, beside its work.
pub(crate) const PULSE: Duration = Duration::from_secs(5);

/// The host's clock as core counts time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// What CLOCK_MONOTONIC is added to.
    pub(crate) boot_began: u64,
}

impl Clock {
    /// The moment.
    pub(crate) fn now(self) -> Moment {
        Moment(self.boot_began.saturating_add(monotonic_ns()))
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// CLOCK_REALTIME in nanoseconds since the Unix epoch. Read once, when the daemon begins.
pub(crate) fn realtime_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

fn nanoseconds(time: Timespec) -> u64 {
    let whole = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
    whole.saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// What the driver listens to.
pub(crate) struct Inputs {
    /// Commands, from the handles.
    pub(crate) commands: mpsc::Receiver<Submission>,
    /// Events, from the hands.
    pub(crate) events: mpsc::Receiver<Event>,
    /// Reports of the store.
    pub(crate) store: mpsc::Receiver<store::Report>,
    /// Ends the loop.
    pub(crate) shutdown: CancellationToken,
}

/// The loop's state.
pub(crate) struct Driver {
    clock: Clock,
    core: Supervisor,
    performer: Performer,
    view: View,
    published: watch::Sender<Arc<View>>,
    replies: HashMap<CommandId, oneshot::Sender<Result<Done, Denied>>>,
    metrics: Metrics,
    /// Replies that leave once the view shows what they say.
    outcomes: Vec<(CommandId, Result<Done, Denied>)>,
    actions: Vec<Action>,
    last_command: u64,
}

impl Driver {
    /// Restores core and begins what it asks for.
    pub(crate) fn restore(
        clock: Clock,
        origin: Origin,
        (performer, metrics): (Performer, Metrics),
        published: watch::Sender<Arc<View>>,
    ) -> Self {
        let mut actions = Vec::new();
        let core = Supervisor::restore(origin, clock.now(), &mut actions);
        let view = View::new(core.revision());
        let mut driver = Self {
            clock,
            core,
            performer,
            view,
            published,
            metrics,
            replies: HashMap::new(),
            outcomes: Vec::new(),
            actions,
            last_command: 0,
        };
        driver.act();
        driver.publish();
        driver
    }

    /// Runs until the shutdown.
    pub(crate) async fn run(mut self, mut inputs: Inputs, pulse: impl Fn()) {
        let mut beat = time::interval(PULSE);
        beat.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let idle = self.idle();
            tokio::select! {
                biased;
                () = inputs.shutdown.cancelled() => break,
                // Before the work: who is busy is alive.
                _ = beat.tick() => pulse(),
                Some(event) = inputs.events.recv() => self.handle(event),
                Some(report) = inputs.store.recv() => self.handle(stored(report)),
                Some(submission) = inputs.commands.recv() => self.take(submission),
                () = time::sleep(idle) => self.handle(Event::Tick),
            }
            for _ in 0..BURST {
                if let Ok(event) = inputs.events.try_recv() {
                    self.handle(event);
                } else if let Ok(report) = inputs.store.try_recv() {
                    self.handle(stored(report));
                } else if let Ok(submission) = inputs.commands.try_recv() {
                    self.take(submission);
                } else {
                    break;
                }
            }
            self.publish();
        }
        // Nothing is decided any more. Callers that still wait are told so, and hands that still report are not
        // waited for by anyone.
        drop(inputs);
        self.replies.clear();
        self.performer.finish().await;
    }

    /// Until the next deadline.
    fn idle(&self) -> Duration {
        self.core.next_deadline().map_or(PULSE, |deadline| deadline.at.since(self.clock.now()).min(PULSE))
    }

    fn take(&mut self, (by, command, reply): Submission) {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.replies.insert(id, reply);
        self.handle(Event::Command(id, by, command));
    }

    fn handle(&mut self, event: Event) {
        let begun = monotonic_ns();
        self.core.handle(self.clock.now(), event, &mut self.actions);
        self.act();
        self.metrics.handled(Duration::from_nanos(monotonic_ns().saturating_sub(begun)));
    }

    fn act(&mut self) {
        for action in self.actions.drain(..) {
            match action {
                Action::Reply(id, outcome) => self.outcomes.push((id, outcome)),
                Action::Persist(_)
                | Action::Adopt(_)
                | Action::Launch(_)
                | Action::Stop { .. }
                | Action::Kill { .. }
                | Action::Acknowledge { .. }
                | Action::Release { .. }
                | Action::Sweep { .. }
                | Action::Probe { .. }
                | Action::Inform { .. }
                | Action::Restore { .. }
                | Action::AskHandoff { .. }
                | Action::Examine { .. }
                | Action::Forget { .. } => self.performer.begin(action),
            }
        }
    }

    /// Shows what has changed, then answers.
    fn publish(&mut self) {
        if self.core.refresh(&mut self.view) {
            self.published.send_replace(Arc::new(self.view.clone()));
        }
        for (id, outcome) in self.outcomes.drain(..) {
            if let Some(reply) = self.replies.remove(&id) {
                // A caller that has gone does not wait for its reply.
                let _ = reply.send(outcome);
            }
        }
    }
}

fn stored(report: store::Report) -> Event {
    match report {
        store::Report::Stored(revision) => Event::Stored(revision),
        store::Report::Failing(message) => Event::StoreFailing(message),
    }
}
