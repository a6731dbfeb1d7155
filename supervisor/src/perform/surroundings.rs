//! What every effect needs to know of this supervisor and its host.

use std::{cell::RefCell, path::PathBuf, sync::Arc};

use supervisor_core::{event::Event, ids::Name, time::Moment};
use tokio::sync::{Semaphore, mpsc};

use super::{
    cgroup::Groups, config::Configs, contract::Contracts, port::server::Listeners, roster::Roster,
    sweep::Sweeper,
};
use crate::{lineage::Lineage, metrics::Metrics, openclaw::prepare::Host, walls::Standings};

/// Given to every effect.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Where outcomes go.
    pub(crate) events: mpsc::Sender<Event>,
    /// What instances are given of this host.
    pub(crate) host: Arc<Host>,
    /// The `gateway-worker` executable.
    pub(crate) worker_program: PathBuf,
    /// The number of this supervisor's life.
    pub(crate) epoch: u64,
    /// What to add to CLOCK_MONOTONIC to get a `Moment`.
    pub(crate) boot_began: u64,
    /// All instances.
    pub(crate) roster: RefCell<Roster>,
    /// What is known of the instances' configurations.
    pub(crate) configs: Configs,
    /// What runtimes can do.
    pub(crate) contracts: Contracts,
    /// How the walls around instances stand.
    pub(crate) walls: Standings,
    /// Tells which processes are an instance's.
    pub(crate) lineage: Lineage,
    /// Tells whose servers answer.
    pub(crate) listeners: Listeners,
    /// The control groups of instances.
    pub(crate) groups: Groups,
    /// Kills what is left of instances.
    pub(crate) sweeper: Sweeper,
    /// What is measured.
    pub(crate) metrics: Metrics,
    /// Held by whoever deletes files.
    pub(crate) deleting: Semaphore,
}

impl Surroundings {
    /// Where an instance's worker has its socket, lock and record.
    pub(crate) fn run_dir(&self, name: &Name) -> PathBuf {
        self.host.control.data_dir.join("run").join(&**name)
    }

    /// What all processes of an instance carry in their environment.
    pub(crate) fn mark(&self, name: &Name) -> String {
        self.groups.mark(name)
    }

    /// A reading of CLOCK_MONOTONIC as core counts time.
    pub(crate) fn moment(&self, monotonic_ns: u64) -> Moment {
        Moment(self.boot_began.saturating_add(monotonic_ns))
    }
}
