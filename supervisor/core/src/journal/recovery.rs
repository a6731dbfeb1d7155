//! What happened to configurations, and on the ladder.

use alloc::string::String;
use core::fmt;

use super::Severity;
use crate::{failover::Cause, ids::ConfigId};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's sentence stands in `Display` below")]
pub enum Recovery {
    ConfigChanged { content: ConfigId, good: bool },
    ConfigBroken { problem: String },
    ConfigGood { content: ConfigId },
    ConfigTakenBack { from: ConfigId, to: ConfigId, why: String },
    ConfigRestored { content: ConfigId },
    RestoreFailed { message: String },
    Repairing,
    Repaired { outcome: String },
    Quarantined { cause: Cause },
    Examined { evidence: String },
    RestartWanted { reason: String },
    HandoffUnknown { why: String },
}

impl Recovery {
    /// The stable machine name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::ConfigChanged { .. } => "config.changed",
            Self::ConfigBroken { .. } => "config.broken",
            Self::ConfigGood { .. } => "config.good",
            Self::ConfigTakenBack { .. } => "config.taken_back",
            Self::ConfigRestored { .. } => "config.restored",
            Self::RestoreFailed { .. } => "config.restore_failed",
            Self::Repairing => "instance.repairing",
            Self::Repaired { .. } => "instance.repaired",
            Self::Quarantined { .. } => "instance.quarantined",
            Self::Examined { .. } => "instance.examined",
            Self::RestartWanted { .. } => "instance.restart_wanted",
            Self::HandoffUnknown { .. } => "instance.handoff_unknown",
        }
    }

    /// How much it matters.
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::ConfigChanged { .. }
            | Self::ConfigGood { .. }
            | Self::Repaired { .. }
            | Self::Examined { .. }
            | Self::RestartWanted { .. }
            | Self::HandoffUnknown { .. } => Severity::Info,
            Self::ConfigBroken { .. }
            | Self::ConfigTakenBack { .. }
            | Self::ConfigRestored { .. }
            | Self::Repairing => Severity::Warning,
            Self::RestoreFailed { .. } | Self::Quarantined { .. } => Severity::Error,
        }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigChanged { content, good: false } => {
                write!(
                    f,
                    "its configuration was changed, to {}; on trial from the next start on",
                    content.short()
                )
            }
            Self::ConfigChanged { content, good: true } => {
                write!(f, "its configuration is the last good one again, {}", content.short())
            }
            Self::ConfigBroken { problem } => {
                write!(f, "its configuration would not survive the next start: {problem}")
            }
            Self::ConfigGood { content } => write!(f, "its configuration is good: {}", content.short()),
            Self::ConfigTakenBack { from, to, why } => {
                write!(
                    f,
                    "its configuration {} is taken back for the last good one, {}: {why}",
                    from.short(),
                    to.short()
                )
            }
            Self::ConfigRestored { content } => {
                write!(f, "its configuration is {} again; what was there is kept beside it", content.short())
            }
            Self::RestoreFailed { message } => {
                write!(f, "its configuration could not be put back: {message}")
            }
            Self::Repairing => f.write_str("is repaired by its runtime's own means"),
            Self::Repaired { outcome } => write!(f, "the repair has ended: {outcome}"),
            Self::Examined { evidence } => write!(f, "what it was doing is written down in {evidence}"),
            Self::RestartWanted { reason } => write!(f, "it ended to be started anew: {reason}"),
            Self::HandoffUnknown { why } => write!(f, "whether it wants to be run again is not known: {why}"),
            Self::Quarantined { cause } => write!(f, "all has been tried, and it stays down: {cause}"),
        }
    }
}
