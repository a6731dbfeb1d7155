//! Incidents, told from the journal: what went wrong with an instance, from its beginning to its end.
//!
//! ```text
//!   a failover begins, or it is given up              its place is given back, it is ready again, deleted
//!                     └──────────────► open ──────────────────────┘
//!                      what else goes wrong meanwhile belongs to it
//! ```
//!
//! The journal is all there is: what is durable there is what an incident is made of, and both are forgotten
//! together. Its sentences are core's; a test holds the words that are looked for here against them.

use std::collections::BTreeMap;

use crate::events::Event;

/// A rescue is called.
const BEGAN: &str = "failover.began";
/// The rescue stands in.
const DONE: &str = "failover.done";
const CANCELLED: &str = "failover.cancelled";
const FAILED_BACK: &str = "failover.failed_back";
/// Nobody stands in any more.
const RESCUE_LOST: &str = "failover.rescue_lost";
const QUARANTINED: &str = "instance.quarantined";
/// Another start would not mend it.
const GAVE_UP: &str = "instance.gave_up";
const READY: &str = "instance.ready";
const DELETED: &str = "instance.deleted";
/// A configuration is taken back.
pub(crate) const TAKEN_BACK: &str = "config.taken_back";

/// The kinds of events that incidents are made of.
pub(crate) const KINDS: [&str; 9] =
    [BEGAN, DONE, CANCELLED, FAILED_BACK, RESCUE_LOST, QUARANTINED, GAVE_UP, READY, DELETED];

/// Something that went wrong with an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incident {
    /// The revision of the event that opened it.
    pub(crate) number: u64,
    /// To whom it happened.
    pub(crate) instance: String,
    /// When, in nanoseconds since the Unix epoch.
    pub(crate) began_ns: u64,
    /// Why.
    pub(crate) cause: String,
    /// Who was called, in this order.
    pub(crate) rescues: Vec<String>,
    /// It was given up after all was tried.
    pub(crate) quarantined: bool,
    /// Whether a rescue is in its place, or on its way there.
    failed_over: bool,
    /// The end of the one before: what happened up to there belongs to that.
    pub(crate) after: u64,
    /// It is the one that was asked for.
    pub(crate) wanted: bool,
    /// Its end, if it has come.
    pub(crate) end: Option<End>,
}

/// How an incident ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// By which event.
    pub(crate) revision: u64,
    /// When, in nanoseconds since the Unix epoch.
    pub(crate) unix_ns: u64,
    /// How.
    pub(crate) outcome: Outcome,
}

/// How an incident ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has its place back.
    FailedBack,
    /// It was ready before its rescue was.
    Cancelled,
    /// It was ready again.
    Ready,
    /// It was deleted.
    Deleted,
}

/// Reads the history forward, and knows what is open.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: BTreeMap<String, Incident>,
    /// When each instance's last incident ended.
    ended: BTreeMap<String, u64>,
    /// Whose opening events are looked for.
    wanted: Option<u64>,
}

impl Ledger {
    /// One that marks the incident to which the opening event `wanted` belongs.
    pub(crate) fn looking_for(wanted: Option<u64>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Takes in the next event, and gives the incident that it ends.
    pub(crate) fn take(&mut self, event: &Event) -> Option<Incident> {
        let failed_over = match event.kind.as_str() {
            BEGAN => {
                let incident = self.opened(event);
                incident.failed_over = true;
                if let Some(rescue) = rescue_of(event)
                    && !incident.rescues.iter().any(|known| known == rescue)
                {
                    incident.rescues.push(rescue.into());
                }
                return None;
            }
            QUARANTINED => {
                self.opened(event).quarantined = true;
                return None;
            }
            GAVE_UP => {
                self.opened(event);
                return None;
            }
            RESCUE_LOST => {
                self.open.get_mut(&event.instance)?.failed_over = false;
                return None;
            }
            _ => self.open.get(&event.instance)?.failed_over,
        };
        let outcome = match event.kind.as_str() {
            FAILED_BACK => Outcome::FailedBack,
            CANCELLED => Outcome::Cancelled,
            DELETED => Outcome::Deleted,
            // One that is failed over has to get its place back, too.
            READY if !failed_over => Outcome::Ready,
            _ => return None,
        };
        let mut incident = self.open.remove(&event.instance)?;
        self.ended.insert(event.instance.clone(), event.revision);
        incident.end = Some(End { revision: event.revision, unix_ns: event.unix_ns, outcome });
        Some(incident)
    }

    /// Those that have not ended.
    pub(crate) fn open(self) -> impl Iterator<Item = Incident> {
        self.open.into_values()
    }

    /// The incident that `event` opens, or to which it belongs.
    fn opened(&mut self, event: &Event) -> &mut Incident {
        let after = self.ended.get(&event.instance).copied().unwrap_or(0);
        let incident = self.open.entry(event.instance.clone()).or_insert_with(|| Incident {
            number: event.revision,
            instance: event.instance.clone(),
            began_ns: event.unix_ns,
            cause: cause_of(event).into(),
            rescues: Vec::new(),
            quarantined: false,
            failed_over: false,
            after,
            wanted: false,
            end: None,
        });
        incident.wanted |= self.wanted == Some(event.revision);
        incident
    }
}

/// Why, from the sentence of an opening event.
fn cause_of(event: &Event) -> &str {
    let message = event.message.as_str();
    match event.kind.as_str() {
        BEGAN => message.rsplit_once("; `").map_or(message, |(cause, _)| cause),
        GAVE_UP => message.rsplit_once("; another start").map_or(message, |(cause, _)| cause),
        _ => message.split_once("stays down: ").map_or(message, |(_, cause)| cause),
    }
}

/// Who is called.
fn rescue_of(event: &Event) -> Option<&str> {
    event.message.rsplit_once("; `")?.1.split_once('`').map(|(rescue, _)| rescue)
}

/// The first digits of what was taken back and of what was put in its place, and why.
pub(crate) fn taken_back(message: &str) -> Option<(&str, &str, &str)> {
    let rest = message.strip_prefix("its configuration ")?;
    let (from, rest) = rest.split_once(" is taken back for the last good one, ")?;
    let (to, why) = rest.split_once(": ")?;
    Some((from, to, why))
}

#[cfg(test)]
mod tests;
