//! One instance's configurations: the file, its snapshots, and what core knows of them. All of it blocks on the disk.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use prost_types::Timestamp;
use supervisor_core::{
    ids::{ConfigId, Name},
    ports::Block,
    trial::Trial,
};
use supervisor_proto::v1::{self, snapshot::Standing};

use crate::{
    api::{
        context::{Api, known},
        convert,
        status::{Refusal, Unmet},
    },
    openclaw::{
        config::{
            Wanted,
            check::{check, lost, read_plainly, told},
            diff::{Side, diff},
        },
        environment::withheld,
        layout::{Directories, Neighbour},
        prepare::Host,
        snapshots::{Limits, Snapshot, SnapshotError, Snapshots, Why, content_id},
    },
    registry,
    spec::{InstanceSpec, Kind},
};

/// Digits by which a snapshot may be called; one in 65,536 has the same by chance.
const FEWEST_DIGITS: usize = 4;

/// Digits of a whole name.
const DIGITS: usize = 32;

/// One instance's configurations.
pub(in crate::api) struct Shelf {
    host: Arc<Host>,
    name: Name,
    spec: InstanceSpec,
    block: Block,
    previous_base: Option<u16>,
    neighbours: Vec<Neighbour>,
    pub(super) directories: Directories,
    snapshots: Snapshots,
    trial: Trial,
    /// What the running gateway was started with.
    running: Option<ConfigId>,
}

/// What the file holds.
pub(super) struct Held {
    pub(super) id: ConfigId,
    content: Vec<u8>,
}

impl Shelf {
    /// The one of the instance called `name`.
    pub(in crate::api) fn of(api: &Api, name: &str) -> Result<Self, Refusal> {
        let view = api.handle.view();
        let instance = known(&view, &Name::new(name)?)?;
        let record = instance.record();
        let directories = api.facts.directories_of(instance);
        let running = instance.process().and_then(|_| record.trial.running(instance.incarnation()));
        Ok(Self {
            host: Arc::clone(api.host()),
            name: instance.name().clone(),
            spec: registry::spec(instance),
            block: record.block,
            previous_base: record.previous_base,
            neighbours: registry::neighbours(&view),
            snapshots: Snapshots::of(&directories),
            directories,
            trial: record.trial.clone(),
            running,
        })
    }

    /// What the file holds; `None` if there is no file, or something that cannot be a configuration.
    pub(super) fn held(&self) -> Result<Option<Held>, Refusal> {
        match read_plainly(self.directories.own_config()) {
            Ok(content) => Ok(content.map(|content| Held { id: content_id(&content), content })),
            Err(error) if error.blames_file() => Ok(None),
            Err(error) => Err(Refusal::storage(&error)),
        }
    }

    /// The same where there must be one.
    fn present(&self) -> Result<Held, Refusal> {
        let (instance, good) = (self.name.clone(), self.trial.good().is_some());
        Ok(self.held()?.ok_or(Unmet::NoConfig { instance, good })?)
    }

    /// All snapshots, the newest first.
    pub(super) fn list(&self) -> Result<Vec<v1::Snapshot>, Refusal> {
        let current = self.held()?.map(|held| held.id);
        let all = self.snapshots.list().map_err(|error| Refusal::storage(&error))?;
        Ok(all.into_iter().map(|snapshot| self.shown(snapshot, current)).collect())
    }

    fn shown(&self, snapshot: Snapshot, current: Option<ConfigId>) -> v1::Snapshot {
        let Snapshot { id, at, bytes, started, note, rejected } = snapshot;
        let rejection = self.rejection(id);
        let standing = match (&rejection, self.trial.good() == Some(id)) {
            (_, true) => Standing::Good,
            (Some(_), false) => Standing::Rejected,
            (None, false) if self.trial.goods().any(|good| good == id) => Standing::GoodBefore,
            (None, false) => Standing::Unproven,
        };
        let long_ago = || {
            let reason = rejected.filter(|_| standing != Standing::Good && current != Some(id))?;
            Some(v1::ConfigRejection { content: id.into(), time: None, reason })
        };
        v1::Snapshot {
            id: id.into(),
            create_time: Some(Timestamp::from(at)),
            bytes,
            started,
            note: note.unwrap_or_default(),
            standing: standing.into(),
            current: current == Some(id),
            running: self.running == Some(id),
            rejection: rejection.or_else(long_ago),
        }
    }

    /// When and why it was taken back, if it was.
    pub(super) fn rejection(&self, id: ConfigId) -> Option<v1::ConfigRejection> {
        let rejection = self.trial.rejected().iter().find(|rejection| rejection.content == id)?;
        Some(v1::ConfigRejection {
            content: id.into(),
            time: Some(convert::timestamp(rejection.at)),
            reason: rejection.why.clone(),
        })
    }

    /// Keeps what the file holds.
    pub(super) fn create(&self, note: &str) -> Result<v1::Snapshot, Refusal> {
        let held = self.present()?;
        let why = if note.is_empty() { Why::Seen } else { Why::Asked(note.into()) };
        self.keep(&held, &why)?;
        let snapshot = self.list()?.into_iter().find(|snapshot| snapshot.current);
        // Others may have written meanwhile, and so much that it is not kept any more.
        snapshot.ok_or_else(|| Refusal::storage(&SnapshotError::Missing { id: held.id }))
    }

    fn keep(&self, held: &Held, why: &Why) -> Result<(), Refusal> {
        let keep = || {
            self.snapshots.keep(&held.content, why, SystemTime::now())?;
            let needed: Vec<ConfigId> = self.trial.needed().chain([held.id]).collect();
            let count = usize::try_from(self.spec.trial.kept()).unwrap_or(usize::MAX);
            self.snapshots.prune(&needed, Limits { count, ..Limits::default() })
        };
        keep().map(drop).map_err(|error| Refusal::storage(&error))
    }

    /// The snapshot that is called like this.
    pub(super) fn called(&self, asked: &str) -> Result<ConfigId, Refusal> {
        let digits = asked.to_ascii_lowercase();
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !hexadecimal || !(FEWEST_DIGITS..=DIGITS).contains(&digits.len()) {
            return Err(Refusal::field(
                "snapshot",
                format!("`{asked}` is not the name of a snapshot"),
                format!("give {FEWEST_DIGITS} to {DIGITS} of its hexadecimal digits"),
            ));
        }
        let found = self.snapshots.matching(&digits).map_err(|error| Refusal::storage(&error))?;
        let (instance, asked) = (self.name.clone(), asked.to_owned());
        match found.as_slice() {
            [only] => Ok(*only),
            [] => Err(Unmet::UnknownSnapshot { instance, asked }.into()),
            several => Err(Unmet::AmbiguousSnapshot { instance, asked, count: several.len() }.into()),
        }
    }

    fn read(&self, id: ConfigId) -> Result<Vec<u8>, Refusal> {
        self.snapshots.read(id).map_err(|error| match error {
            SnapshotError::Missing { id } => {
                Unmet::UnknownSnapshot { instance: self.name.clone(), asked: id.short() }.into()
            }
            SnapshotError::Keep { .. }
            | SnapshotError::Read { .. }
            | SnapshotError::TooLarge { .. }
            | SnapshotError::Damaged { .. } => Refusal::storage(&error),
        })
    }

    /// What is gone back to, and what the file holds. An empty name is the newest good one that it does not hold.
    pub(super) fn way_back(&self, asked: &str) -> Result<(ConfigId, Option<ConfigId>), Refusal> {
        let held = self.held()?.map(|held| held.id);
        if !asked.is_empty() {
            let to = self.called(asked)?;
            return self.read(to).map(|_| (to, held));
        }
        let to = self.trial.goods().find(|good| Some(*good) != held && self.snapshots.read(*good).is_ok());
        let to = to.ok_or_else(|| Unmet::NoGoodConfig(self.name.clone()))?;
        Ok((to, held))
    }

    /// What somebody says is good. It is kept.
    pub(super) fn vouched(&self, asked: &str) -> Result<ConfigId, Refusal> {
        let held = match asked {
            "" => self.present()?,
            asked => {
                let id = self.called(asked)?;
                Held { id, content: self.read(id)? }
            }
        };
        if let Some(problem) = self.problem(&held) {
            return Err(Unmet::BadConfig { instance: self.name.clone(), problem }.into());
        }
        self.keep(&held, &Why::Seen)?;
        Ok(held.id)
    }

    /// Why no gateway could start with it, if none could.
    fn problem(&self, held: &Held) -> Option<String> {
        match registry::kind(&self.spec, &self.host) {
            // Whatever it reads, it is no configuration of OpenClaw's.
            Kind::Command => return None,
            Kind::Openclaw | Kind::Builtin => {}
        }
        let wanted = Wanted {
            name: &self.name,
            directories: &self.directories,
            block: self.block,
            previous_base: self.previous_base,
            data_dir: &self.host.control.data_dir,
            neighbours: &self.neighbours,
        };
        check(&wanted, &held.content).err().map(|error| told(&error))
    }

    /// What differs.
    pub(super) fn differ(&self, from: &str, to: &str) -> Result<v1::DiffSnapshotResponse, Refusal> {
        let (new, problem, new_label) = match to {
            "" => {
                let (held, problem) = match lost(&self.directories, self.trial.good()) {
                    Some(error) => (Held { id: content_id(&[]), content: Vec::new() }, Some(told(&error))),
                    None => {
                        let held = self.present()?;
                        let problem = self.problem(&held);
                        (held, problem)
                    }
                };
                (held, problem, "the file as it is now".to_owned())
            }
            to => {
                let id = self.called(to)?;
                (Held { id, content: self.read(id)? }, None, self.label(id))
            }
        };
        let old = match from {
            "" => self.trial.good().or(self.running).ok_or_else(|| Unmet::NoGoodConfig(self.name.clone()))?,
            from => self.called(from)?,
        };
        let before = self.read(old)?;
        let diff = diff(
            &Side { label: &self.label(old), content: &before },
            &Side { label: &new_label, content: &new.content },
            &self.secrets(),
        );
        let problem = problem.unwrap_or_default();
        Ok(v1::DiffSnapshotResponse { from: old.into(), to: new.id.into(), diff, problem })
    }

    /// What the snapshot `new` has that `old` has not; `None` if one of them is not kept any more.
    pub(in crate::api) fn compared(&self, old: &str, new: &str) -> Option<String> {
        let (old, new) = (self.called(old).ok()?, self.called(new).ok()?);
        let (before, after) = (self.read(old).ok()?, self.read(new).ok()?);
        Some(diff(
            &Side { label: &self.label(old), content: &before },
            &Side { label: &self.label(new), content: &after },
            &self.secrets(),
        ))
    }

    fn label(&self, id: ConfigId) -> String {
        let what = if self.trial.good() == Some(id) { " (good)" } else { "" };
        format!("snapshot {}{what}", id.short())
    }

    /// Values that are secret wherever they stand.
    fn secrets(&self) -> Vec<&str> {
        let names = withheld(&self.spec.env);
        names.iter().filter_map(|name| self.spec.env.get(name)).map(String::as_str).collect()
    }

    /// The file that keeps `replaced`, if there is one.
    pub(super) fn kept_beside(&self, replaced: ConfigId) -> Option<PathBuf> {
        crate::openclaw::snapshots::kept_beside(&self.directories, replaced)
    }
}
