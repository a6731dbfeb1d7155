//! What is examined: the instances and the host, as they are when somebody asks.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Instant,
};

use nix::unistd::geteuid;
use supervisor_core::{
    ids::Name,
    ports::{Block, Pool},
    time::Moment,
};

use supervisor_proto::worker::Wall;

use super::declared::{self, Declared};
use crate::{
    openclaw::{
        file::open_regular,
        layout::{Directories, Neighbour, resolve},
        prepare::Host,
    },
    registry,
    spec::{InstanceSpec, Kind},
    user,
};

/// No file that a check reads as a whole is larger: configurations, units, crontabs, locks.
const MOST_BYTES: u64 = 4 << 20;

/// An instance.
#[derive(Debug, Clone)]
pub(crate) struct Patient {
    /// Its name.
    pub(crate) name: Name,
    /// What was asked for.
    pub(crate) spec: Arc<InstanceSpec>,
    /// Its ports.
    pub(crate) block: Block,
    /// The first port of the block it had before, which its configuration may still name.
    pub(crate) previous_base: Option<u16>,
    /// Its files.
    pub(crate) directories: Directories,
    /// How the walls around it stand, if it runs.
    pub(crate) walls: Arc<[Wall]>,
    /// Whether its last life ended because memory was short.
    pub(crate) was_out_of_memory: bool,
    /// Its worker, if something of it runs.
    pub(crate) worker_pid: Option<i32>,
    /// Since when it is in its phase.
    pub(crate) since: Moment,
}

impl Patient {
    /// The text of its configuration; no link is followed that its agent could have made.
    pub(super) fn config(&self) -> Option<String> {
        bounded(self.directories.own_config().open().ok()?)
    }

    /// Whose its processes are; the supervisor's user's, if theirs cannot be told.
    pub(super) fn uid(&self) -> u32 {
        self.owner().unwrap_or_else(|| geteuid().as_raw())
    }

    /// Whose its processes are, and so what they write; `None` if that cannot be told.
    pub(super) fn owner(&self) -> Option<u32> {
        user::uid(self.spec.user.as_ref()).ok()
    }
}

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listening {
    /// The port.
    pub(crate) port: u16,
    /// The process; `None` if it cannot be seen from here.
    pub(crate) pid: Option<i32>,
    /// Its command.
    pub(crate) command: String,
}

/// From ports to those who listen on them.
pub(crate) type ListenersOf = dyn Fn(&[u16]) -> Vec<Listening> + Send + Sync;

/// All that is examined.
pub(crate) struct Scene {
    /// The instances, by name.
    pub(crate) patients: Vec<Patient>,
    /// Whom to tell about; `None`: everything.
    pub(crate) wanted: Option<BTreeSet<Name>>,
    /// What the supervisor knows of itself.
    pub(crate) host: Arc<Host>,
    /// The port pool.
    pub(crate) pool: Pool,
    /// Finds out who listens.
    pub(crate) listeners: Box<ListenersOf>,
    /// Where the host's files are: `/`.
    pub(crate) root: PathBuf,
    /// Each instance's configuration, read once.
    pub(crate) configs: OnceLock<BTreeMap<Name, Vec<Declared>>>,
}

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scene").field("patients", &self.patients).finish_non_exhaustive()
    }
}

impl Scene {
    /// Whom findings about one instance are to be about.
    pub(super) fn asked_for(&self) -> Vec<&Patient> {
        let is_wanted =
            |patient: &&Patient| self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&patient.name));
        self.patients.iter().filter(is_wanted).collect()
    }

    /// The supervisor's data directory.
    pub(super) fn data_dir(&self) -> &Path {
        &self.host.control.data_dir
    }

    /// The home of the supervisor's user, where profiles and units are.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.host.environment.get("HOME").filter(|home| home.starts_with('/')).map(PathBuf::from)
    }

    /// A file of the host.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What each configuration says. One that cannot be read says nothing: that is a finding of its own.
    pub(super) fn configs(&self) -> &BTreeMap<Name, Vec<Declared>> {
        self.configs.get_or_init(|| {
            let read = |patient: &Patient| {
                let text = patient.config()?;
                Some((patient.name.clone(), declared::read(&text)))
            };
            self.patients.iter().filter_map(read).collect()
        })
    }

    /// What the configuration of `patient` says.
    pub(super) fn config(&self, patient: &Patient) -> &[Declared] {
        self.configs().get(&patient.name).map_or(&[], Vec::as_slice)
    }

    /// Whether OpenClaw itself is its program, as far as that can be known.
    pub(super) fn is_openclaw(&self, patient: &Patient) -> bool {
        registry::kind(&patient.spec, &self.host) == Kind::Openclaw
    }

    /// The instances as they see each other.
    pub(super) fn neighbours(&self) -> Vec<Neighbour> {
        let neighbour = |patient: &Patient| Neighbour::of(&patient.name, patient.block, &patient.spec);
        self.patients.iter().map(neighbour).collect()
    }

    /// The instance whose state directory this is, links followed.
    pub(super) fn owner_of(&self, state: &Path) -> Option<&Patient> {
        let state = resolve(state);
        self.patients.iter().find(|patient| resolve(&patient.directories.state) == state)
    }

    /// The instance whose block has this port.
    pub(super) fn holder_of(&self, port: u16) -> Option<&Patient> {
        self.patients.iter().find(|patient| contains(patient.block, port))
    }
}

/// Whether the port is in the block.
pub(super) fn contains(block: Block, port: u16) -> bool {
    (block.base..=block.last()).contains(&port)
}

/// A small text file of the host; `None` if it is not there, not small, or no text.
pub(super) fn text(path: &Path) -> Option<String> {
    // A pipe or a device would be waited for.
    bounded(open_regular(path).ok()?)
}

/// The text in a small file; `None` if it is not small, or no text.
pub(super) fn bounded(file: fs::File) -> Option<String> {
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut text = String::new();
    let read = file.take(MOST_BYTES + 1).read_to_string(&mut text).ok()?;
    (read as u64 <= MOST_BYTES).then_some(text)
}

fn length<T>(all: &[T]) -> u32 {
    u32::try_from(all.len()).unwrap_or(u32::MAX).max(1)
}

/// Files of one of many, before the others have had theirs. Most have some hundred.
const FIRST: u32 = 1_000;

/// What a check may spend.
#[derive(Debug)]
pub(super) struct Budget {
    until: Instant,
    files: Cell<u32>,
    spent: Cell<bool>,
    /// Something of one of many was left out.
    partly: Cell<bool>,
}

impl Budget {
    pub(super) fn new(until: Instant, files: u32) -> Self {
        Self { until, files: Cell::new(files), spent: Cell::new(false), partly: Cell::new(false) }
    }

    /// Looks at each of `all`, so that one with very much leaves something for the others: at no more than some of it before
    /// all have had their turn, and then at the rest as far as it goes.
    pub(super) fn fairly<T, R>(&self, all: &[T], mut look: impl FnMut(&T, &Self) -> R) -> Vec<R> {
        let first = (self.files.get() / length(all)).max(FIRST);
        let mut cut = Vec::new();
        let mut found: Vec<R> = Vec::with_capacity(all.len());
        for (at, one) in all.iter().enumerate() {
            let (seen, whole) = self.part(first, |share| look(one, share));
            found.push(seen);
            if !whole {
                cut.push(at);
            }
        }
        while let Some(at) = cut.pop() {
            let more = self.files.get() / length(&cut).saturating_add(1);
            if more <= first {
                self.partly.set(true);
                break;
            }
            let (seen, whole) = self.part(more, |share| look(&all[at], share));
            found[at] = seen;
            self.partly.set(self.partly.get() || !whole);
        }
        found
    }

    /// Spends so much of this at most. Whether that was enough.
    pub(super) fn part<R>(&self, most: u32, look: impl FnOnce(&Self) -> R) -> (R, bool) {
        let most = most.min(self.files.get());
        let share = Self::new(self.until, most);
        let seen = look(&share);
        self.files.set(self.files.get() - most + share.files.get());
        (seen, !share.is_spent())
    }

    /// Takes one more file; `false` if that would be too much.
    pub(super) fn take(&self) -> bool {
        match self.files.get().checked_sub(1) {
            Some(left) if Instant::now() < self.until => self.files.set(left),
            Some(_) | None => self.spent.set(true),
        }
        !self.spent.get()
    }

    /// Whether something was left out.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.get() || self.partly.get()
    }

    /// The entries of a directory of the host, in the order of their names, as far as they can be looked at.
    pub(super) fn entries(&self, directory: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        let mut paths: Vec<PathBuf> =
            entries.flatten().take_while(|_| self.take()).map(|entry| entry.path()).collect();
        paths.sort_unstable();
        paths
    }
}
