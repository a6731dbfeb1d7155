//! What happened at the fence around channel credentials.

use core::fmt;

use super::Severity;
use crate::ids::Name;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's sentence stands in `Display` below")]
pub enum Channel {
    Off,
    On,
    Shared { with: Name },
}

impl Channel {
    /// The stable machine name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Off => "channels.off",
            Self::On => "channels.on",
            Self::Shared { .. } => "channels.shared",
        }
    }

    /// How much it matters.
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::Off | Self::On => Severity::Info,
            Self::Shared { .. } => Severity::Warning,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("starts without its channels, whose credentials another instance uses"),
            Self::On => f.write_str("starts with its channels: nobody else uses their credentials any more"),
            Self::Shared { with } => {
                write!(
                    f,
                    "its configuration names a channel credential of `{with}`; only one can be started with it"
                )
            }
        }
    }
}
