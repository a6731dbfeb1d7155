//! What is wrong, and when that is worth telling.
//!
//! ```text
//!             it is wrong            for long enough, or it needs a person
//!   fine ──────────────────► known ─────────────────────────────────────► told
//!    ▲                         │                                            │ worse: told again
//!    ├─────── it is not ───────┘                                            │
//!    └──────────────────── it has not been for a while: told ───────────────┘
//! ```
//!
//! Goes by what is, and not by what happened: nothing hangs on having seen a certain event. What is known outlives the
//! supervisor, so that nothing is told twice, and no end is missed.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use supervisor_core::{
    failover::Standing,
    ids::Name,
    instance::{Failure, Goal, Instance, Phase},
    journal::Severity,
    record::Wish,
    view::View,
};

/// What is fine again is believed after this long: who dies over and over is ready now and then.
const SETTLED: Duration = Duration::from_secs(30);

/// The key of what is wrong with the store.
const STORE: &str = "store";

/// How much something matters to who is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    /// It goes on, and not as it should.
    Warning,
    /// Somebody is not served, or nothing is left to try.
    Error,
}

impl Weight {
    /// Whether one who wants nothing less than this is told.
    pub(super) fn reaches(self, least: Severity) -> bool {
        match self {
            Self::Warning => least <= Severity::Warning,
            Self::Error => true,
        }
    }

    /// As people read it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// With whom; empty for the supervisor itself.
    pub(crate) instance: String,
    /// How much it matters.
    pub(crate) weight: Weight,
    /// What, in a few words.
    pub(crate) title: String,
    /// Why, in one sentence without a full stop.
    pub(crate) why: String,
    /// What to type.
    pub(crate) hint: String,
    /// It is told at once.
    pub(crate) at_once: bool,
}

/// Something that is wrong, since when, and what was told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// It, as it was last.
    pub(crate) trouble: Trouble,
    /// Since when, in nanoseconds since the Unix epoch.
    pub(crate) since_ns: u64,
    /// How much it mattered when it was told.
    pub(crate) told: Option<Weight>,
    /// Since when it is not wrong any more.
    fine_ns: Option<u64>,
}

/// What is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Turn {
    /// It has begun.
    Began,
    /// It is worse than what was told.
    Worse,
    /// It has ended.
    Ended,
    /// Nothing is wrong any more: it was put right by itself.
    Mended,
    /// Somebody wants to know whether this arrives.
    Test,
}

impl Turn {
    /// As programs read it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Worse => "worse",
            Self::Ended => "ended",
            Self::Mended => "mended",
            Self::Test => "test",
        }
    }
}

/// All that is known, by a name for each.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Troubles(pub(crate) BTreeMap<String, Known>);

impl Troubles {
    /// Takes in what is wrong now, and says what of that is to be told. `after` is how long something lasts first.
    pub(super) fn take(
        &mut self,
        mut current: BTreeMap<String, Trouble>,
        now_ns: u64,
        after: Duration,
    ) -> Vec<(Turn, Known, String)> {
        let lasted = |since: u64| Duration::from_nanos(now_ns.saturating_sub(since));
        let mut turns = Vec::new();
        self.0.retain(|key, known| {
            if let Some(trouble) = current.remove(key) {
                known.fine_ns = None;
                known.trouble = trouble;
                return true;
            }
            if known.told.is_none() {
                return false;
            }
            let is_over = lasted(*known.fine_ns.get_or_insert(now_ns)) >= SETTLED;
            if is_over {
                turns.push((Turn::Ended, known.clone(), key.clone()));
            }
            !is_over
        });
        let fresh = |trouble| Known { trouble, since_ns: now_ns, told: None, fine_ns: None };
        self.0.extend(current.into_iter().map(|(key, trouble)| (key, fresh(trouble))));
        for (key, known) in &mut self.0 {
            if known.fine_ns.is_some() {
                continue;
            }
            let weight = known.trouble.weight;
            let turn = match known.told {
                None if known.trouble.at_once || lasted(known.since_ns) >= after => Turn::Began,
                Some(told) if told < weight => Turn::Worse,
                None | Some(_) => continue,
            };
            known.told = Some(weight);
            turns.push((turn, known.clone(), key.clone()));
        }
        turns
    }
}

/// What is wrong in a fleet. `tell` says why an instance is as it is, and what to type; it is asked for those alone with
/// which something is wrong.
pub(super) fn of_fleet(
    view: &View,
    tell: impl Fn(&Instance) -> (String, String),
) -> BTreeMap<String, Trouble> {
    let troubled = view.instances.values().filter_map(|instance| {
        let (weight, at_once) = weigh(view, instance)?;
        let (why, hint) = tell(instance);
        let name = instance.name();
        let hint = if hint.is_empty() { format!("openclawctl status {name}") } else { hint };
        let title = title(view, instance);
        let trouble = Trouble { instance: name.to_string(), weight, title, why, hint, at_once };
        Some((format!("instance/{name}"), trouble))
    });
    let mut troubles: BTreeMap<String, Trouble> = troubled.collect();
    if view.store_failing {
        let trouble = Trouble {
            instance: String::new(),
            weight: Weight::Error,
            title: "the supervisor cannot store anything".into(),
            why: "the disk takes nothing; gateways run on, and nothing can be changed".into(),
            hint: "see that the disk has room and works, then `openclawctl supervisor status`".into(),
            at_once: false,
        };
        troubles.insert(STORE.into(), trouble);
    }
    troubles
}

/// How much what is wrong with an instance matters, and whether it needs a person; `None` if nothing is.
fn weigh(view: &View, instance: &Instance) -> Option<(Weight, bool)> {
    if instance.record().wish == Wish::Down || instance.is_cold_standby() {
        return None;
    }
    let given_up = match instance.phase() {
        Phase::Failed { failure: Failure::Fatal(_) | Failure::Quarantined(_), .. } => true,
        Phase::Failed { failure: Failure::NotRestarted(_), .. } => return None,
        Phase::Failed { failure: Failure::BudgetSpent | Failure::Launch(_), .. }
        | Phase::Stopped
        | Phase::Adopting
        | Phase::Spawning
        | Phase::Starting
        | Phase::Ready
        | Phase::Unhealthy
        | Phase::Stopping { .. }
        | Phase::Backoff { .. } => false,
    };
    match &instance.record().standing {
        Standing::Away(by) if is_ready(view, &by.rescue) => {
            return Some((if given_up { Weight::Error } else { Weight::Warning }, true));
        }
        Standing::Promoting(_) | Standing::Away(_) => return Some((Weight::Error, true)),
        Standing::Own => {}
    }
    let is_well = match instance.phase() {
        Phase::Ready | Phase::Stopped | Phase::Adopting => true,
        // Wanted so, until it has died of it.
        Phase::Spawning | Phase::Starting | Phase::Stopping { .. } => instance.death().is_none(),
        Phase::Unhealthy | Phase::Backoff { .. } | Phase::Failed { .. } => false,
    };
    (!is_well && instance.goal() == Goal::Run).then_some((Weight::Error, given_up))
}

fn is_ready(view: &View, name: &Name) -> bool {
    view.instances.get(name).is_some_and(|instance| *instance.phase() == Phase::Ready)
}

fn title(view: &View, instance: &Instance) -> String {
    let name = instance.name();
    let state = match instance.phase() {
        Phase::Failed { failure: Failure::Quarantined(_) | Failure::Fatal(_), .. } => "is given up",
        Phase::Unhealthy => "does not serve",
        Phase::Ready => "is ready again",
        Phase::Stopped
        | Phase::Adopting
        | Phase::Spawning
        | Phase::Starting
        | Phase::Stopping { .. }
        | Phase::Backoff { .. }
        | Phase::Failed { .. } => "is down",
    };
    match &instance.record().standing {
        Standing::Away(by) if is_ready(view, &by.rescue) => {
            format!("{name} {state}, {} stands in", by.rescue)
        }
        Standing::Promoting(by) => format!("{name} {state}, {} is to stand in", by.rescue),
        Standing::Away(by) => format!("{name} {state}, and so is {}, which stood in", by.rescue),
        Standing::Own => format!("{name} {state}"),
    }
}
