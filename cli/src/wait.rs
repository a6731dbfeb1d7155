//! Waits for outcomes by level: it asks what is, again and again, and never for what happened.
//!
//! A verb answers with the revision of its wish. From then on an instance has come to its outcome as soon
//! as it is seen, at that revision or later, in the state that was waited for. A change that came before
//! the watch began, a broken stream or a replaced supervisor therefore loses nothing.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use supervisor_proto::v1::{
    Instance, Role, WatchInstancesRequest, WatchInstancesResponse, watch_instances_response::Change,
};
use tokio::time::{Instant, MissedTickBehavior, error::Elapsed, interval, sleep, timeout, timeout_at};

use crate::{
    connect::Supervisor,
    error::{Cause, Error, Operation},
    progress::Progress,
    view,
};

/// How long verbs wait unless told otherwise. OpenClaw's cold start has been seen to take a minute.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// The same for what stops first: OpenClaw may drain for 330 s.
const STOP_PATIENCE: Duration = Duration::from_secs(360);
/// Between two attempts to watch again after a broken stream.
const REWATCH_PAUSE: Duration = Duration::from_millis(200);
/// More names than this cannot be asked for: then all instances are watched.
const MOST_NAMES: usize = 1_000;
/// How often the progress line tells a new time.
const REDRAW: Duration = Duration::from_millis(200);

/// `--wait` and `--no-wait`.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    /// Wait at most this long [default: 2m, or 6m if it must stop first]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = humantime::parse_duration)]
    wait: Option<Option<Duration>>,
    /// Return as soon as the wish is recorded
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
}

/// What a verb must do before its outcome, as far as it takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Start,
    Stop,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    Until(Duration),
}

impl WaitArgs {
    /// What was asked for, or what `effort` usually needs.
    pub(crate) fn patience(&self, effort: Effort) -> Patience {
        if self.no_wait {
            return Patience::None;
        }
        Patience::Until(self.wait.flatten().unwrap_or(usual_patience(effort)))
    }
}

/// What `effort` usually needs at most.
pub(crate) fn usual_patience(effort: Effort) -> Duration {
    match effort {
        Effort::Start => START_PATIENCE,
        Effort::Stop => STOP_PATIENCE,
    }
}

/// The state that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Its wish is fulfilled or cannot be.
    Settled,
    /// Another one is active in its place.
    FailedOver,
    /// It is active in its own place.
    InPlace,
}

impl Goal {
    fn is_reached(self, instance: &Instance) -> bool {
        match self {
            Self::Settled => view::status(instance).settled,
            Self::FailedOver => view::stand_in(instance).is_some(),
            Self::InPlace => view::failover(instance).role() != Role::Rescued,
        }
    }
}

/// What is waited for, for one instance.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The instance as the verb answered it.
    pub(crate) instance: Instance,
    /// The revision of the wish.
    pub(crate) revision: u64,
    pub(crate) goal: Goal,
}

/// One instance that is waited for.
#[derive(Debug)]
struct Watched {
    /// The last seen; `None` once it is deleted.
    seen: Option<Instance>,
    /// It is known to be as it was at this revision.
    at: u64,
    wish: u64,
    goal: Goal,
}

impl Watched {
    fn is_done(&self) -> bool {
        match &self.seen {
            None => true,
            Some(instance) => self.at >= self.wish && self.goal.is_reached(instance),
        }
    }
}

/// How far one instance has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing<'a> {
    pub(crate) name: &'a str,
    /// As it was last seen; `None` once it is deleted.
    pub(crate) seen: Option<&'a Instance>,
    pub(crate) goal: Goal,
    /// It has come to its outcome.
    pub(crate) done: bool,
}

/// What is known of the instances that are waited for.
#[derive(Debug)]
pub(crate) struct Tracker(BTreeMap<String, Watched>);

impl Tracker {
    /// Begins with what the verbs answered.
    pub(crate) fn new(targets: Vec<Target>) -> Self {
        let watched = |target: Target| {
            let (name, at) = (target.instance.name.clone(), view::status(&target.instance).revision);
            (name, Watched { seen: Some(target.instance), at, wish: target.revision, goal: target.goal })
        };
        Self(targets.into_iter().map(watched).collect())
    }

    /// Takes in one message of a watch.
    pub(crate) fn observe(&mut self, message: WatchInstancesResponse) {
        let at = message.revision;
        match message.change {
            Some(Change::Snapshot(snapshot)) => {
                let mut here: BTreeMap<String, Instance> = snapshot
                    .instances
                    .into_iter()
                    .map(|instance| (instance.name.clone(), instance))
                    .collect();
                for (name, watched) in &mut self.0 {
                    watched.seen = here.remove(name);
                    watched.at = watched.at.max(at);
                }
            }
            Some(Change::Changed(instance)) => {
                if let Some(watched) = self.0.get_mut(&instance.name) {
                    watched.at = watched.at.max(view::status(&instance).revision);
                    watched.seen = Some(*instance);
                }
            }
            Some(Change::Deleted(name)) => {
                if let Some(watched) = self.0.get_mut(&name) {
                    watched.seen = None;
                }
            }
            Some(Change::Bookmark(_)) => {
                for watched in self.0.values_mut() {
                    watched.at = watched.at.max(at);
                }
            }
            None => {}
        }
    }

    /// Whether all have come to their outcomes.
    pub(crate) fn is_done(&self) -> bool {
        self.0.values().all(Watched::is_done)
    }

    /// Every instance that is waited for, by name.
    pub(crate) fn each(&self) -> impl Iterator<Item = Standing<'_>> {
        self.0.iter().map(|(name, watched)| Standing {
            name,
            seen: watched.seen.as_ref(),
            goal: watched.goal,
            done: watched.is_done(),
        })
    }
}

/// How the waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All came to their outcomes.
    Done,
    /// The patience ran out after this long.
    TimedOut(Duration),
    /// Ctrl-C.
    Interrupted,
}

/// Waits until all targets have come to their outcomes.
pub(crate) async fn wait(
    supervisor: &Supervisor,
    targets: Vec<Target>,
    patience: Duration,
    operation: &Operation,
) -> Result<(Tracker, End), Error> {
    let mut tracker = Tracker::new(targets);
    let mut progress = Progress::new();
    let deadline = Instant::now() + patience;
    let mut show = |tracker: &Tracker| progress.show(tracker);
    let outcome = tokio::select! {
        watched = timeout_at(deadline, watch(supervisor, &mut tracker, &mut show, operation)) => {
            judged(watched, patience)
        }
        _ = tokio::signal::ctrl_c() => Ok(End::Interrupted),
    };
    progress.clear();
    outcome.map(|end| (tracker, end))
}

/// The same for who tells of it elsewhere and is interrupted there.
pub(crate) async fn wait_in_silence(
    supervisor: &Supervisor,
    targets: Vec<Target>,
    patience: Duration,
    operation: &Operation,
) -> Result<(Tracker, End), Error> {
    let mut tracker = Tracker::new(targets);
    let watched = timeout(patience, watch(supervisor, &mut tracker, &mut |_| {}, operation)).await;
    judged(watched, patience).map(|end| (tracker, end))
}

fn judged(watched: Result<Result<(), Error>, Elapsed>, patience: Duration) -> Result<End, Error> {
    match watched {
        Ok(Ok(())) => Ok(End::Done),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(End::TimedOut(patience)),
    }
}

/// Follows the instances until all are done, watching anew whenever a stream breaks.
async fn watch(
    supervisor: &Supervisor,
    tracker: &mut Tracker,
    show: &mut impl FnMut(&Tracker),
    operation: &Operation,
) -> Result<(), Error> {
    show(tracker);
    while !tracker.is_done() {
        let mut names: Vec<String> = tracker.each().map(|each| each.name.to_owned()).collect();
        if names.len() > MOST_NAMES {
            names.clear();
        }
        let request = WatchInstancesRequest { names, after_revision: None };
        match supervisor.instances().watch_instances(request).await {
            Ok(stream) => follow(stream.into_inner(), tracker, show).await,
            Err(status) => {
                let cause = Cause::from(status);
                if !cause.may_pass() {
                    return Err(cause.during(operation));
                }
            }
        }
        if !tracker.is_done() {
            sleep(REWATCH_PAUSE).await;
        }
    }
    Ok(())
}

/// Takes in one stream until all are done or it ends, however it ends: the next one begins with a snapshot.
async fn follow(
    mut stream: tonic::Streaming<WatchInstancesResponse>,
    tracker: &mut Tracker,
    show: &mut impl FnMut(&Tracker),
) {
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !tracker.is_done() {
        tokio::select! {
            message = stream.message() => match message {
                Ok(Some(message)) => tracker.observe(message),
                Ok(None) | Err(_) => return,
            },
            _ = redraw.tick() => {}
        }
        show(tracker);
    }
}

#[cfg(test)]
mod tests {
    use supervisor_proto::v1::{
        FailoverStatus, InstanceStatus,
        watch_instances_response::{Bookmark, Snapshot},
    };

    use super::*;

    fn main_at(revision: u64, settled: bool) -> Instance {
        let status = InstanceStatus { revision, settled, ..Default::default() };
        Instance { name: "main".into(), status: Some(status), ..Default::default() }
    }

    fn tracker(answer: Instance, wish: u64, goal: Goal) -> Tracker {
        Tracker::new(vec![Target { instance: answer, revision: wish, goal }])
    }

    fn message(revision: u64, change: Change) -> WatchInstancesResponse {
        WatchInstancesResponse { revision, change: Some(change) }
    }

    #[test]
    fn an_outcome_older_than_the_wish_is_not_taken_for_it() {
        let mut tracker = tracker(main_at(3, true), 5, Goal::Settled);
        assert!(!tracker.is_done());
        tracker.observe(message(4, Change::Changed(Box::new(main_at(4, true)))));
        assert!(!tracker.is_done());
        tracker.observe(message(6, Change::Changed(Box::new(main_at(6, false)))));
        assert!(!tracker.is_done());
        tracker.observe(message(9, Change::Changed(Box::new(main_at(9, true)))));
        assert!(tracker.is_done());
    }

    #[test]
    fn an_outcome_that_came_before_the_watch_is_seen_in_its_snapshot() {
        // Starting what is ready changes nothing: its own revision stays behind the wish's.
        let mut tracker = tracker(main_at(3, true), 5, Goal::Settled);
        tracker.observe(message(5, Change::Snapshot(Snapshot { instances: vec![main_at(3, true)] })));
        assert!(tracker.is_done());
    }

    #[test]
    fn a_snapshot_from_before_the_wish_waits_for_the_bookmark() {
        let mut tracker = tracker(main_at(3, true), 5, Goal::Settled);
        tracker.observe(message(4, Change::Snapshot(Snapshot { instances: vec![main_at(3, true)] })));
        assert!(!tracker.is_done());
        tracker.observe(message(5, Change::Bookmark(Bookmark {})));
        assert!(tracker.is_done());
    }

    #[test]
    fn a_deleted_instance_is_not_waited_for() {
        let mut tracker = tracker(main_at(3, false), 3, Goal::Settled);
        tracker.observe(message(4, Change::Deleted("main".into())));
        assert!(tracker.is_done());
        assert!(tracker.each().all(|main| main.name == "main" && main.seen.is_none()));
    }

    #[test]
    fn changes_of_other_instances_change_nothing() {
        let mut tracker = tracker(main_at(3, false), 3, Goal::Settled);
        let other = Instance { name: "other".into(), ..main_at(9, true) };
        tracker.observe(message(9, Change::Changed(Box::new(other))));
        assert!(!tracker.is_done());
    }

    #[test]
    fn a_failover_is_done_when_another_one_is_active() {
        let place = |role: Role, active: &str| {
            let mut instance = main_at(7, true);
            if let Some(status) = &mut instance.status {
                let failover =
                    FailoverStatus { role: role.into(), active: active.into(), ..Default::default() };
                status.failover = Some(failover);
            }
            instance
        };
        assert!(!Goal::FailedOver.is_reached(&place(Role::Primary, "main")));
        assert!(!Goal::FailedOver.is_reached(&place(Role::Rescued, "")));
        assert!(Goal::FailedOver.is_reached(&place(Role::Rescued, "rescue")));
        assert!(!Goal::InPlace.is_reached(&place(Role::Rescued, "rescue")));
        assert!(Goal::InPlace.is_reached(&place(Role::Primary, "main")));
    }
}
