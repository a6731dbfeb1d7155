//! Refusals about configurations, incidents and certificates.

use std::path::PathBuf;

use supervisor_core::ids::Name;
use supervisor_proto::v1::Reason;

use crate::{pki::INIT, web};

/// Why a call about a configuration, an incident or a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unmet {
    /// There is no such snapshot.
    #[error("no snapshot of `{instance}` is called `{asked}`")]
    UnknownSnapshot {
        /// Of which instance.
        instance: Name,
        /// What was asked for.
        asked: String,
    },
    /// There are several.
    #[error("{count} snapshots of `{instance}` begin with `{asked}`")]
    AmbiguousSnapshot {
        /// Of which instance.
        instance: Name,
        /// What was asked for.
        asked: String,
        /// How many there are.
        count: usize,
    },
    /// There is nothing to go back to.
    #[error("no other configuration of `{0}` is known to be good")]
    NoGoodConfig(Name),
    /// There is no file.
    #[error("`{instance}` has no configuration file")]
    NoConfig {
        /// Which instance.
        instance: Name,
        /// Whether a good one is kept.
        good: bool,
    },
    /// It is broken.
    #[error("no gateway of `{instance}` could start with it: {problem}")]
    BadConfig {
        /// Of which instance.
        instance: Name,
        /// Why.
        problem: String,
    },
    /// Nobody remembers it.
    #[error("no incident has the number {0}")]
    UnknownIncident(u64),
    /// No certificate is meant that could be taken back.
    #[error("{0}")]
    UnknownCertificate(String),
    /// What is there makes no certificates.
    #[error("{0}")]
    BadCertificates(String),
    /// Who calls by TCP gets none of these.
    #[error("{0} are made on the supervisor's host only")]
    Remote(&'static str),
    /// There is none.
    #[error("this supervisor serves no dashboard")]
    NoDashboard {
        /// The file that could say otherwise.
        settings: PathBuf,
    },
    /// Its address cannot be had.
    #[error("{0}")]
    DashboardShut(String),
    /// The settings do not know it, or any.
    #[error("{}", no_sink(asked))]
    UnknownSink {
        /// What was asked for; empty if nothing was.
        asked: String,
        /// Those that are there.
        known: Vec<String>,
    },
}

fn no_sink(asked: &str) -> String {
    match asked {
        "" => "the settings name nobody who is told of alerts".into(),
        asked => format!("no sink for alerts is called `{asked}`"),
    }
}

impl Unmet {
    /// Its name in the contract.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::UnknownSnapshot { .. } => Reason::UnknownSnapshot,
            Self::AmbiguousSnapshot { .. } => Reason::AmbiguousSnapshot,
            Self::NoGoodConfig(_) => Reason::NoGoodConfig,
            Self::NoConfig { .. } => Reason::NoConfig,
            Self::BadConfig { .. } => Reason::BadConfig,
            Self::UnknownIncident(_) => Reason::UnknownIncident,
            Self::UnknownCertificate(_) => Reason::UnknownCertificate,
            Self::BadCertificates(_) => Reason::BadCertificates,
            Self::Remote(_) => Reason::NotPermitted,
            Self::NoDashboard { .. } | Self::DashboardShut(_) => Reason::NoDashboard,
            Self::UnknownSink { .. } => Reason::UnknownSink,
        }
    }

    /// What to do next.
    pub(super) fn next(&self) -> String {
        match self {
            Self::UnknownSnapshot { instance, .. } | Self::NoGoodConfig(instance) => {
                format!("`openclawctl config snapshots {instance}` lists all")
            }
            Self::AmbiguousSnapshot { .. } => "give more digits".into(),
            Self::NoConfig { good: false, .. } => "its first start makes one".into(),
            Self::NoConfig { instance, good: true } => {
                format!("`openclawctl config rollback {instance}` puts the last good one back")
            }
            // The problem says it.
            Self::BadConfig { .. } | Self::DashboardShut(_) => String::new(),
            Self::UnknownIncident(_) => "`openclawctl incidents` lists those that are remembered".into(),
            Self::UnknownCertificate(_) => "`openclawctl cert list` lists all".into(),
            Self::BadCertificates(_) => {
                format!("`{INIT}` makes what is missing; certificates of another authority are issued there")
            }
            Self::Remote(_) => "call it there, on the control socket".into(),
            Self::NoDashboard { settings } => format!(
                "write `web: \"127.0.0.1:{}\"` into `{}`, then stop the supervisor and start it again: gateways run on \
                 meanwhile",
                web::USUAL,
                settings.display()
            ),
            Self::UnknownSink { known, .. } if known.is_empty() => {
                "name one as `alerts.sinks` in settings.yaml, then `openclawctl supervisor reload`".into()
            }
            Self::UnknownSink { known, .. } => format!("there are {}", known.join(", ")),
        }
    }

    pub(super) fn labels(&self) -> Vec<super::Label> {
        match self {
            Self::UnknownSnapshot { instance, asked } | Self::AmbiguousSnapshot { instance, asked, .. } => {
                vec![("instance", instance.to_string()), ("snapshot", asked.clone())]
            }
            Self::NoGoodConfig(instance)
            | Self::NoConfig { instance, .. }
            | Self::BadConfig { instance, .. } => {
                vec![("instance", instance.to_string())]
            }
            Self::UnknownIncident(number) => vec![("number", number.to_string())],
            Self::UnknownCertificate(_)
            | Self::BadCertificates(_)
            | Self::Remote(_)
            | Self::NoDashboard { .. }
            | Self::DashboardShut(_)
            | Self::UnknownSink { .. } => Vec::new(),
        }
    }
}
