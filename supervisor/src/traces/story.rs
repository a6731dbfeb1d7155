//! What is told of instances: each time that one came back, or did not.

use std::collections::{HashMap, hash_map::Entry};

use crate::events::Event;

/// Steps told of one tale; whoever dies over and over has more.
const MOST: usize = 64;

/// What begins a recovery.
const DEATHS: [&str; 6] = [
    "instance.exited",
    "instance.hung",
    "instance.launch_failed",
    "instance.startup_failed",
    "instance.unhealthy",
    "instance.worker_lost",
];

/// The number of the API's `Severity` of what was ordered: no death of which anybody has to recover.
const INFO: i32 = 1;

/// Something that began and ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tale {
    /// What it is about.
    pub(super) name: &'static str,
    /// Whose.
    pub(super) instance: String,
    /// Why.
    pub(super) cause: String,
    /// When it began, in nanoseconds since the Unix epoch.
    pub(super) began_ns: u64,
    /// When it ended.
    pub(super) ended_ns: u64,
    /// It ended as it should.
    pub(super) is_well: bool,
    /// How it ended.
    pub(super) end: String,
    /// What happened meanwhile: when, what kind, in a sentence.
    pub(super) steps: Vec<(u64, String, String)>,
}

/// What has begun and not ended, by instance. As many as there are instances, at most.
#[derive(Debug, Default)]
pub(super) struct Story {
    recoveries: HashMap<String, Tale>,
    failovers: HashMap<String, Tale>,
}

impl Story {
    /// Takes in the next event, and gives what it ends.
    pub(super) fn take(&mut self, event: Event) -> Option<Tale> {
        let tales = match event.kind.as_str() {
            kind if kind.starts_with("failover.") => &mut self.failovers,
            _ => &mut self.recoveries,
        };
        let mut tale = match tales.entry(event.instance.clone()) {
            Entry::Occupied(known) => known,
            Entry::Vacant(place) => {
                place.insert(begun(begins(&event)?, &event));
                return None;
            }
        };
        let steps = &mut tale.get_mut().steps;
        if steps.len() < MOST {
            steps.push((event.unix_ns, event.kind.clone(), event.message.clone()));
        }
        let is_well = match event.kind.as_str() {
            "instance.ready" | "instance.healthy" | "failover.done" | "failover.cancelled" => true,
            "instance.gave_up" | "instance.quarantined" | "failover.rescue_lost" => false,
            "instance.stopped" | "instance.deleted" | "failover.failed_back" => {
                tale.remove();
                return None;
            }
            _ => return None,
        };
        let tale = tale.remove();
        Some(Tale { ended_ns: event.unix_ns, is_well, end: event.message, ..tale })
    }
}

/// What an event begins, if anything.
fn begins(event: &Event) -> Option<&'static str> {
    match event.kind.as_str() {
        "failover.began" => Some("failover"),
        kind if DEATHS.contains(&kind) && event.severity != INFO => Some("recovery"),
        _ => None,
    }
}

fn begun(name: &'static str, event: &Event) -> Tale {
    Tale {
        name,
        instance: event.instance.clone(),
        cause: event.message.clone(),
        began_ns: event.unix_ns,
        ended_ns: event.unix_ns,
        is_well: false,
        end: String::new(),
        steps: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: u64, instance: &str, kind: &str, severity: i32) -> Event {
        Event {
            revision: second,
            unix_ns: second,
            instance: instance.into(),
            incarnation: 1,
            kind: kind.into(),
            severity,
            message: kind.to_uppercase(),
        }
    }

    #[test]
    fn a_recovery_is_from_the_first_death_to_ready_again() {
        let mut story = Story::default();
        let mut take = |second, kind| story.take(event(second, "main", kind, 2));
        assert_eq!(take(1, "instance.started"), None);
        assert_eq!(take(2, "instance.exited"), None);
        assert_eq!(take(3, "instance.exited"), None);
        let tale = take(9, "instance.ready").unwrap();
        assert_eq!((tale.name, tale.began_ns, tale.ended_ns, tale.is_well), ("recovery", 2, 9, true));
        assert_eq!((tale.cause.as_str(), tale.steps.len()), ("INSTANCE.EXITED", 2));
        assert_eq!(take(10, "instance.ready"), None);
        assert_eq!(take(11, "instance.hung"), None);
        assert!(!take(12, "instance.quarantined").unwrap().is_well);
    }

    #[test]
    fn what_was_ordered_is_no_recovery_and_each_instance_has_its_own() {
        let mut story = Story::default();
        assert_eq!(story.take(event(1, "main", "instance.exited", INFO)), None);
        assert_eq!(story.take(event(2, "main", "instance.ready", INFO)), None);
        story.take(event(3, "main", "instance.exited", 2));
        story.take(event(3, "main", "failover.began", 2));
        assert_eq!(story.take(event(4, "rescue", "instance.ready", INFO)), None);
        let failover = story.take(event(5, "main", "failover.done", 2)).unwrap();
        assert_eq!((failover.name, failover.ended_ns), ("failover", 5));
        assert_eq!(story.take(event(6, "main", "instance.stopped", INFO)), None);
        assert_eq!(story.take(event(7, "main", "instance.ready", INFO)), None, "a person stopped it");
    }

    #[test]
    fn a_tale_is_bounded() {
        let mut story = Story::default();
        for second in 0..1_000 {
            assert_eq!(story.take(event(second, "main", "instance.exited", 2)), None);
        }
        assert_eq!(story.take(event(1_000, "main", "instance.ready", 1)).unwrap().steps.len(), MOST);
    }
}
