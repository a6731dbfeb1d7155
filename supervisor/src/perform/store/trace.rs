//! What lies beside each worker and says what it was told to run.
//!
//! A store that is restored from a copy may be older than what runs. Each launch leaves a trace in the instance's
//! run directory: name, ports, spec and incarnation. It is read only when the store is damaged, or to see that it
//! is not. It is not synchronised: it matters as long as the worker lives, and no worker outlives the host.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use supervisor_core::{
    action::Launch,
    ids::{Incarnation, Name},
    ports::Block,
};

use crate::spec::InstanceSpec;

/// The trace in a run directory.
const FILE: &str = "launch.json";

/// It is made under this name.
const NEW: &str = "launch.json.new";

/// Held by a living worker.
const LOCK: &str = "worker.lock";

/// Bound of a trace: specs are limited to less.
const MAX_BYTES: u64 = 1 << 20;

/// What a launch leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    pub(super) name: Name,
    /// The store's id.
    pub(super) store: String,
    /// The supervisor's life.
    pub(super) epoch: u64,
    pub(super) incarnation: Incarnation,
    pub(super) block: Block,
    pub(super) spec: String,
}

/// A trace, and whether its worker lives.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) trace: Trace,
    pub(super) alive: bool,
}

/// Leaves the trace of `launch` in the instance's run directory.
pub(crate) fn leave(run_dir: &Path, store: &str, epoch: u64, launch: &Launch) -> io::Result<()> {
    let trace = Trace {
        name: launch.name.clone(),
        store: store.to_owned(),
        epoch,
        incarnation: launch.incarnation,
        block: launch.block,
        spec: launch.spec.to_string(),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
    let new = run_dir.join(NEW);
    // A spec may hold secrets.
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(&trace)?)?;
    fs::rename(new, run_dir.join(FILE))
}

/// All traces of a data directory that can be understood, by name.
pub(super) fn all(data_dir: &Path) -> Vec<Found> {
    let Ok(entries) = fs::read_dir(data_dir.join("run")) else { return Vec::new() };
    let mut found: Vec<Found> =
        entries.filter_map(Result::ok).filter_map(|entry| read(&entry.path())).collect();
    found.sort_by(|one, other| one.trace.name.cmp(&other.trace.name));
    found
}

fn read(run_dir: &Path) -> Option<Found> {
    let mut bytes = Vec::new();
    File::open(run_dir.join(FILE)).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let trace: Trace = serde_json::from_slice(&bytes).ok()?;
    serde_json::from_str::<InstanceSpec>(&trace.spec).ok()?;
    let in_place = run_dir.file_name().is_some_and(|name| name == &*trace.name);
    in_place.then(|| Found { alive: is_held(&run_dir.join(LOCK)), trace })
}

/// Whether somebody holds the lock. Ours, if we get it, ends here.
fn is_held(lock: &Path) -> bool {
    File::open(lock).is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err())
}
