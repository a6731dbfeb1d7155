//! How far the supervisor goes by itself to bring an instance back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use supervisor_core::policy::{LadderPolicy, TrialPolicy};

use super::{FieldPath, InstanceSpec, Kind, Runtime, Span, check::Checker, or};

/// How long a repair may take unless the spec says otherwise. OpenClaw's commands take up to 40 s before they begin.
const REPAIR_LIMIT: Duration = Duration::from_secs(300);

/// Configurations kept unless the spec says otherwise.
const SNAPSHOTS: u32 = 50;

/// What is tried, beyond restarts, before an instance is given up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ladder {
    /// So many deaths in a row, and the next rung is climbed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deaths: Option<u32>,
    /// Whether the runtime's own doctor is let at it, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<bool>,
    /// How long that may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair_limit: Option<Span>,
    /// Whether the last good configuration is put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roll_back: Option<bool>,
    /// Whether it stays down, once all has been tried and the budget is spent, until an operator starts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<bool>,
}

/// When a configuration has proven good, and how many are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trial {
    /// Started with it, and ready for this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub good_after: Option<Span>,
    /// Snapshots kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u32>,
}

impl Ladder {
    pub(super) fn merged(&self, defaults: &Self) -> Self {
        Self {
            deaths: or(&self.deaths, &defaults.deaths),
            repair: or(&self.repair, &defaults.repair),
            repair_limit: or(&self.repair_limit, &defaults.repair_limit),
            roll_back: or(&self.roll_back, &defaults.roll_back),
            quarantine: or(&self.quarantine, &defaults.quarantine),
        }
    }

    /// For core, with what this kind of runtime does by default.
    pub(super) fn policy(&self, kind: Kind, held: bool) -> LadderPolicy {
        let has_doctor = match kind {
            Kind::Openclaw | Kind::Builtin => true,
            Kind::Command => false,
        };
        // A fleet of built-in gateways is restarted faster than it could be examined.
        let real = kind == Kind::Openclaw;
        let limit = self.repair_limit.map_or(REPAIR_LIMIT, |span| span.0);
        LadderPolicy {
            deaths: self.deaths.unwrap_or(3),
            repair: (has_doctor && self.repair.unwrap_or(real)).then_some(limit),
            roll_back: self.roll_back.unwrap_or(true),
            quarantine: self.quarantine.unwrap_or(real),
            held,
        }
    }
}

impl Trial {
    pub(super) fn merged(&self, defaults: &Self) -> Self {
        Self {
            good_after: or(&self.good_after, &defaults.good_after),
            snapshots: or(&self.snapshots, &defaults.snapshots),
        }
    }

    pub(super) fn policy(&self, default: TrialPolicy) -> TrialPolicy {
        TrialPolicy { good_after: self.good_after.map_or(default.good_after, |span| span.0) }
    }

    /// How many snapshots are kept.
    #[must_use]
    pub fn kept(&self) -> u32 {
        self.snapshots.unwrap_or(SNAPSHOTS)
    }
}

/// What is wrong with these parts of a spec.
pub(super) fn check(spec: &InstanceSpec, checker: &mut Checker) {
    let Ladder { deaths, repair, repair_limit, .. } = &spec.ladder;
    checker.number(&["ladder", "deaths"], deaths.map(u64::from), 1, 1_000);
    let hour = Duration::from_secs(3600);
    checker.span(&["ladder", "repair_limit"], *repair_limit, Duration::from_secs(1), hour);
    if *repair == Some(true) && spec.runtime == Some(Runtime::Command) {
        let mend = "remove it; OpenClaw and the built-in gateway have one";
        checker.add(FieldPath::of(&["ladder", "repair"]), "a command has no doctor", mend);
    }
    checker.span(&["trial", "good_after"], spec.trial.good_after, Duration::ZERO, 24 * hour);
    checker.number(&["trial", "snapshots"], spec.trial.snapshots.map(u64::from), 8, 1_000);
}
