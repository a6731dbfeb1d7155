//! Why the gateway did not start or ended by itself, or a tool failed, and the exit code that says so.

use std::error::Error;
use std::io;

use crate::args::UsageError;
use crate::doctor::DoctorError;
use crate::fault::ConfigError;
use crate::listen::BindError;
use crate::misbehave::MisbehaveError;
use crate::restart::RestartError;

/// OpenClaw's code for a port that is busy and for wrong usage: trying again may help.
const EXIT_FAILURE: u8 = 1;
/// `EX_CONFIG` of sysexits.h, OpenClaw's code for a configuration at fault: trying again cannot help.
const EXIT_CONFIG: u8 = 78;

/// The end of the gateway other than by a wish to stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line was not understood.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The configuration is at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The base port could not be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The misbehaviour that is asked for was not understood.
    #[error(transparent)]
    Misbehave(#[from] MisbehaveError),
    /// The running gateway could not be asked to restart.
    #[error(transparent)]
    Restart(#[from] RestartError),
    /// The doctor could not help.
    #[error(transparent)]
    Doctor(#[from] DoctorError),
    /// A restart could not be announced: exit 0 would say that the gateway is to stay down.
    #[error("failed to leave the restart handoff")]
    Handoff(#[source] io::Error),
    /// The async runtime could not be built.
    #[error("failed to build the runtime")]
    Runtime(#[source] io::Error),
    /// The signal handlers could not be installed.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
}

impl Failure {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_CONFIG,
            Self::Usage(_)
            | Self::Bind(_)
            | Self::Misbehave(_)
            | Self::Restart(_)
            | Self::Doctor(_)
            | Self::Handoff(_)
            | Self::Runtime(_)
            | Self::Signals(_) => EXIT_FAILURE,
        }
    }
}

/// The error and everything that caused it, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
