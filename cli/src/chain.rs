//! What led to an event and what came of it, from the events alone.
//!
//! An event does not name its cause. What is told here is what the order of things allows: within one life of an
//! instance, and between a primary and the rescue that its failover names, the supervisor does each thing because of
//! the one before, and that is told as [`Link::So`]. Where something only came before and may have led there, as a
//! change of a configuration before a death, it is [`Link::Then`]. Where not even that is known, the chain ends.

use std::collections::BTreeMap;

use supervisor_proto::v1::{Event, Severity};

/// Steps that a story has at most, in each direction.
const STEPS: usize = 12;

/// How an event hangs on the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// It is the first that is known.
    Begin,
    /// It was done because of that.
    So,
    /// It came after that, and may have come of it.
    Then,
}

/// One event of a story.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step<'a> {
    pub(crate) event: &'a Event,
    pub(crate) link: Link,
    /// How many steps it is from the first.
    pub(crate) depth: usize,
}

const DEATHS: [&str; 6] = [
    "instance.exited",
    "instance.launch_failed",
    "instance.startup_failed",
    "instance.hung",
    "instance.worker_lost",
    "instance.gave_up",
];
const STARTS: [&str; 8] = [
    "instance.backing_off",
    "instance.wished_up",
    "instance.wished_restart",
    "instance.restart_wanted",
    "instance.repaired",
    "instance.budget_spent",
    "config.restored",
    "failover.began",
];
const ENDS: [&str; 8] = [
    "instance.wished_down",
    "instance.wished_restart",
    "instance.deleting",
    "instance.stop_overdue",
    "instance.repairing",
    "supervisor.halting",
    "failover.began",
    "failover.failed_back",
];

/// What each event is done because of: the last of these before it, of the same instance.
const BECAUSE: [(&str, &[&str]); 29] = [
    ("instance.started", &STARTS),
    ("instance.ready", &["instance.started", "instance.adopted"]),
    ("instance.healthy", &["instance.unhealthy"]),
    ("instance.backing_off", &DEATHS),
    ("instance.budget_spent", &DEATHS),
    ("instance.gave_up", &["instance.exited"]),
    ("instance.left_down", &["instance.exited"]),
    ("instance.restart_wanted", &["instance.exited"]),
    ("instance.handoff_unknown", &["instance.exited"]),
    ("instance.examined", &["instance.hung"]),
    ("instance.stopped", &["instance.exited", "instance.wished_down", "instance.worker_lost"]),
    ("instance.stop_overdue", &ENDS),
    ("instance.startup_failed", &["instance.started"]),
    ("instance.adopted", &["supervisor.restored"]),
    ("instance.repairing", &DEATHS),
    ("instance.repaired", &["instance.repairing"]),
    ("instance.quarantined", &DEATHS),
    ("instance.deleted", &["instance.deleting"]),
    ("config.good", &["instance.ready", "instance.adopted"]),
    ("config.broken", &["config.changed"]),
    ("config.taken_back", &DEATHS),
    ("config.restored", &["config.taken_back"]),
    ("config.restore_failed", &["config.taken_back"]),
    ("failover.began", &DEATHS),
    ("failover.no_rescue", &DEATHS),
    ("failover.done", &["failover.began"]),
    ("failover.cancelled", &["failover.began"]),
    ("failover.failed_back", &["failover.done"]),
    ("supervisor.store_recovered", &["supervisor.store_failing"]),
];

/// Everything that is known around an event, in rising order.
#[derive(Debug)]
pub(crate) struct Chain(BTreeMap<u64, Event>);

impl Chain {
    /// From events in any order.
    pub(crate) fn new(events: impl IntoIterator<Item = Event>) -> Self {
        Self(events.into_iter().map(|event| (event.revision, event)).collect())
    }

    /// Earlier events of the same instance that say the same, and the first of them.
    pub(crate) fn alike(&self, event: &Event) -> (usize, Option<&Event>) {
        let same = |other: &&Event| {
            (&other.instance, &other.r#type, &other.message)
                == (&event.instance, &event.r#type, &event.message)
        };
        let alike: Vec<&Event> = self.before(event).filter(same).collect();
        (alike.len(), alike.last().copied())
    }

    /// How it came to an event, the first cause first and the event itself last, and what came of it.
    pub(crate) fn story<'a>(&'a self, event: &'a Event) -> (Vec<Step<'a>>, Vec<Step<'a>>) {
        let mut back = vec![];
        let mut at = event;
        while back.len() < STEPS {
            match self.cause(at) {
                Some((cause, link)) => {
                    back.push((at, link));
                    at = cause;
                }
                None => break,
            }
        }
        back.push((at, Link::Begin));
        let causes: Vec<Step<'_>> = back
            .into_iter()
            .rev()
            .enumerate()
            .map(|(depth, (event, link))| Step { event, link, depth })
            .collect();
        let mut depths = BTreeMap::from([(event.revision, causes.len() - 1)]);
        let mut effects = Vec::new();
        for later in self.0.range(event.revision + 1..).map(|(_, later)| later) {
            let Some((cause, link)) = self.cause(later) else { continue };
            let Some(depth) = depths.get(&cause.revision).map(|depth| depth + 1) else { continue };
            depths.insert(later.revision, depth);
            effects.push(Step { event: later, link, depth });
            if effects.len() == STEPS {
                break;
            }
        }
        (causes, effects)
    }

    /// What an event hangs on.
    fn cause(&self, event: &Event) -> Option<(&Event, Link)> {
        match event.r#type.as_str() {
            "instance.exited" => self.cause_of_exit(event),
            "instance.launch_failed" => self.cause_of_launch_failure(event),
            "instance.started" => self.last_before(event, &STARTS).map(so),
            "failover.rescue_lost" => {
                let died =
                    |other: &Event| DEATHS.contains(&other.r#type.as_str()) && names(event, &other.instance);
                self.before(event).find(|other| died(other)).map(so)
            }
            "failover.began" if event.message.starts_with("an operator") => None,
            kind => {
                let (_, causes) = BECAUSE.iter().find(|(effect, _)| *effect == kind)?;
                self.last_before(event, causes).map(so)
            }
        }
    }

    /// One that was ordered is done because of the order. Why another one has ended, only what killed it tells.
    fn cause_of_exit(&self, event: &Event) -> Option<(&Event, Link)> {
        if event.severity() == Severity::Info {
            return self.last_before(event, &ENDS).map(so);
        }
        let life =
            |other: &&Event| other.instance == event.instance && other.incarnation == event.incarnation;
        let own = || self.before(event).filter(life);
        let killed = ["instance.hung", "instance.startup_failed", "instance.stop_overdue"];
        if let Some(order) = own().find(|other| killed.contains(&other.r#type.as_str())) {
            return Some(so(order));
        }
        if let Some(sick) =
            own().take_while(|other| other.r#type != "instance.healthy").find(is("instance.unhealthy"))
        {
            return Some((sick, Link::Then));
        }
        self.unproven(event).map(|change| (change, Link::Then))
    }

    fn cause_of_launch_failure(&self, event: &Event) -> Option<(&Event, Link)> {
        match self.unproven(event) {
            // The same words: it is what was announced.
            Some(broken)
                if broken.message.rsplit(": ").next().is_some_and(|why| event.message.contains(why)) =>
            {
                Some(so(broken))
            }
            _ => self.last_before(event, &STARTS).map(so),
        }
    }

    /// The last change of the configuration, if nothing has shown since that it is good.
    fn unproven(&self, event: &Event) -> Option<&Event> {
        let of_config =
            |other: &&Event| other.instance == event.instance && other.r#type.starts_with("config.");
        let last = self.before(event).find(of_config)?;
        ["config.changed", "config.broken"].contains(&last.r#type.as_str()).then_some(last)
    }

    /// All events before one, the last first.
    fn before(&self, event: &Event) -> impl Iterator<Item = &Event> {
        self.0.range(..event.revision).rev().map(|(_, other)| other)
    }

    /// The last event before one that is of these types and about its instance. A failover is about its rescue, too,
    /// and what happens to the supervisor about all.
    fn last_before(&self, event: &Event, types: &[&str]) -> Option<&Event> {
        let about = |other: &Event| match other.r#type.as_str() {
            "failover.began" | "failover.failed_back" if other.instance != event.instance => {
                names(other, &event.instance)
            }
            // Of a primary these are no reason to end it or to start it.
            "failover.began" | "failover.failed_back" => event.r#type.starts_with("failover."),
            _ => other.instance.is_empty() || other.instance == event.instance,
        };
        self.before(event).find(|other| types.contains(&other.r#type.as_str()) && about(other))
    }
}

fn so(event: &Event) -> (&Event, Link) {
    (event, Link::So)
}

fn is(kind: &'static str) -> impl Fn(&&Event) -> bool {
    move |event| event.r#type == kind
}

/// Whether an event's sentence names an instance.
fn names(event: &Event, instance: &str) -> bool {
    !instance.is_empty() && event.message.contains(&format!("`{instance}`"))
}

#[cfg(test)]
mod tests;
