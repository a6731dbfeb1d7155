//! The parts of a spec that are about recovery.

use supervisor_proto::v1;

use super::{Reader, duration, number, set};
use crate::spec::{InstanceSpec, Ladder, Trial};

pub(super) const LADDER: [&str; 5] = ["deaths", "repair", "repair_limit", "roll_back", "quarantine"];

pub(super) const TRIAL: [&str; 2] = ["good_after", "snapshots"];

impl Reader {
    pub(super) fn ladder(&mut self, ladder: &v1::LadderPolicy) -> Ladder {
        Ladder {
            deaths: number(ladder.deaths),
            repair: ladder.repair,
            repair_limit: self.span(&["ladder", "repair_limit"], ladder.repair_limit.as_ref()),
            roll_back: ladder.roll_back,
            quarantine: ladder.quarantine,
        }
    }

    pub(super) fn trial(&mut self, trial: &v1::TrialPolicy) -> Trial {
        Trial {
            good_after: self.span(&["trial", "good_after"], trial.good_after.as_ref()),
            snapshots: number(trial.snapshots),
        }
    }
}

pub(super) fn ladder(spec: &InstanceSpec) -> Option<v1::LadderPolicy> {
    let Ladder { deaths, repair, repair_limit, roll_back, quarantine } = spec.ladder;
    set(v1::LadderPolicy {
        deaths: deaths.unwrap_or_default(),
        repair,
        repair_limit: duration(repair_limit),
        roll_back,
        quarantine,
    })
}

pub(super) fn trial(spec: &InstanceSpec) -> Option<v1::TrialPolicy> {
    let Trial { good_after, snapshots } = spec.trial;
    set(v1::TrialPolicy { good_after: duration(good_after), snapshots: snapshots.unwrap_or_default() })
}
