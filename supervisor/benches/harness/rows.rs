//! The rows, in the order of the table.

mod failover;
mod glance;
mod idle;
mod load;
mod log;
mod restart;
mod rpc;
mod standing;
mod start;
mod walls;

use std::{future::Future, pin::Pin};

use clap::builder::PossibleValuesParser;

use crate::{bench::Bench, table::Line};

/// What a row comes to.
type Measured<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Vec<Line>>> + 'a>>;

/// Something that is measured. It may give several lines.
pub(crate) struct Row {
    /// For `--only`.
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) what: &'static str,
    /// Measures it.
    pub(crate) measure: for<'a> fn(&'a Bench) -> Measured<'a>,
}

/// All rows.
pub(crate) const ALL: [Row; 11] = [
    Row {
        name: "restart",
        what: "kill -9 of a child to its successor listening",
        measure: |bench| Box::pin(restart::child(bench)),
    },
    Row {
        name: "restart-builtin",
        what: "kill -9 of a built-in gateway to its successor listening",
        measure: |bench| Box::pin(restart::builtin(bench)),
    },
    Row {
        name: "walls",
        what: "start of a built-in gateway, open and behind its walls",
        measure: |bench| Box::pin(walls::measure(bench)),
    },
    Row {
        name: "load",
        what: "kill -9 of a child to its successor listening, among bad callers",
        measure: |bench| Box::pin(load::measure(bench)),
    },
    Row {
        name: "failover",
        what: "main's death to its rescue ready or active",
        measure: |bench| Box::pin(failover::measure(bench)),
    },
    Row {
        name: "start",
        what: "a fleet from nothing to all listening",
        measure: |bench| Box::pin(start::children(bench)),
    },
    Row {
        name: "idle",
        what: "a fleet of built-in gateways: ready, and idle",
        measure: |bench| Box::pin(idle::measure(bench)),
    },
    Row {
        name: "standing",
        what: "a standing fleet: memory, list, status, adoption",
        measure: |bench| Box::pin(standing::measure(bench)),
    },
    Row {
        name: "rpc",
        what: "calls to a supervisor of one instance",
        measure: |bench| Box::pin(rpc::measure(bench)),
    },
    Row {
        name: "glance",
        what: "what looking costs: a scrape, top, fifty dashboards",
        measure: |bench| Box::pin(glance::measure(bench)),
    },
    Row { name: "log", what: "log capture with rotation", measure: |bench| Box::pin(log::measure(bench)) },
];

/// The names that `--only` takes.
pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(ALL.iter().map(|row| row.name))
}
