//! What is being done to an instance, so written down that the next supervisor can go on with it; and what is
//! remembered of its upgrades.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use supervisor_core::{event::Asker, ids::Name};

use super::state::Kept;
use crate::{
    ledger::{Ledger, VERSION},
    spec::{InstanceSpec, Runtime},
};

/// All instances that were ever upgraded. A journal has a few paths and at most [`FAILED`] reasons.
pub(super) const UPGRADES: Ledger = Ledger { directory: "upgrades", most_bytes: 1 << 20 };

/// Versions that failed are remembered up to this many: half a year of weekly ones.
const FAILED: usize = 32;

/// All that is known of the upgrades of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    version: u32,
    /// The instance.
    pub(crate) name: Name,
    /// What is being done to it.
    pub(crate) attempt: Option<Attempt>,
    /// The last upgrade that was kept.
    pub(crate) last: Option<Upgraded>,
    /// The versions that it was put back from, oldest first.
    pub(crate) failed: Vec<Failed>,
}

/// An upgrade that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upgraded {
    pub(crate) version: String,
    /// A version, or a program.
    pub(crate) previous: String,
    /// In seconds since 1970.
    pub(crate) at: u64,
}

/// A version that an instance was put back from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) version: String,
    pub(crate) why: String,
    /// In seconds since 1970.
    pub(crate) at: u64,
}

/// An upgrade that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// What the instance was started with.
    pub(super) from: Pin,
    /// The same for people: a version, or a program.
    pub(super) previous: String,
    /// The version that it is moved to.
    pub(crate) to: String,
    /// Whether it is to run.
    pub(super) run: bool,
    /// It must stay ready for so many milliseconds.
    pub(super) soak: u64,
    /// Where its state is, and where the copy.
    pub(super) kept: Kept,
    /// What is being done.
    pub(super) step: Step,
    /// Why it is being put back.
    pub(super) why: Option<String>,
    /// The version is to blame for that.
    pub(super) blamed: bool,
}

/// What an instance's spec says about its program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pin {
    pub(super) program: Option<String>,
    pub(super) version: Option<String>,
}

/// A step, written down before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// The instance is stopped.
    Stop,
    /// Its state is copied aside.
    Copy,
    /// It is pinned to the version, and started.
    Start,
    /// It is to become ready, and to stay so.
    Soak,
    /// It failed: the instance is stopped, and its state put back.
    PutBack,
    /// It is pinned to what it was on, and started.
    Return,
}

impl Pin {
    pub(super) fn of(spec: &InstanceSpec) -> Self {
        Self { program: spec.program.clone(), version: spec.version.clone() }
    }

    /// `spec` with this.
    pub(super) fn put(&self, spec: &InstanceSpec) -> InstanceSpec {
        InstanceSpec { program: self.program.clone(), version: self.version.clone(), ..spec.clone() }
    }
}

impl Attempt {
    pub(super) fn soak(&self) -> Duration {
        Duration::from_millis(self.soak)
    }

    /// Who stops and starts the instance on its way there, as the history has it.
    pub(super) fn onward(&self) -> Asker {
        Asker::Part(format!("its upgrade to {}", self.to).into())
    }

    /// The same on its way back.
    pub(super) fn backward(&self) -> Asker {
        Asker::Part(format!("its way back to {}", self.previous).into())
    }
}

impl Journal {
    /// Of an instance that was never upgraded.
    pub(super) fn new(name: Name) -> Self {
        Self { version: VERSION, name, attempt: None, last: None, failed: Vec::new() }
    }

    /// The version that an upgrade has moved an instance with this spec to, and its state with it. `None` if there is
    /// none, or somebody has said since that another OpenClaw is to run.
    fn moved_to<'a>(&'a self, spec: &'a InstanceSpec) -> Option<&'a str> {
        let under_way = self.attempt.as_ref().filter(|attempt| attempt.step >= Step::Start);
        let version =
            under_way.map(|attempt| &attempt.to).or(self.last.as_ref().map(|last| &last.version))?;
        match (&spec.version, spec.runtime) {
            (Some(pinned), _) => Some(pinned),
            // For as long as something else runs in it, its state stays as it is.
            (None, Some(Runtime::Builtin | Runtime::Command)) => Some(version),
            (None, None | Some(Runtime::Auto | Runtime::Openclaw)) => None,
        }
    }

    /// Ends an upgrade that is kept.
    pub(super) fn keep(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        self.failed.retain(|failed| failed.version != attempt.to);
        self.last = Some(Upgraded { version: attempt.to, previous: attempt.previous, at: now() });
    }

    /// Ends an upgrade that was put back.
    pub(super) fn give_up(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        if !attempt.blamed {
            return;
        }
        self.failed.retain(|failed| failed.version != attempt.to);
        let why = attempt.why.unwrap_or_default();
        self.failed.push(Failed { version: attempt.to, why, at: now() });
        self.failed.drain(..self.failed.len().saturating_sub(FAILED));
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What is known of the instance of this name. Blocks.
pub(super) fn read(data_dir: &Path, name: &Name) -> io::Result<Journal> {
    Ok(UPGRADES.read(data_dir, name)?.unwrap_or_else(|| Journal::new(name.clone())))
}

/// Which of these instances upgrades have moved, and to which versions. Blocks.
pub(crate) fn upgraded(
    data_dir: &Path,
    instances: &[(Name, InstanceSpec)],
) -> io::Result<BTreeMap<Name, String>> {
    let known: BTreeSet<String> = UPGRADES.names(data_dir)?.into_iter().collect();
    let mut moved = BTreeMap::new();
    for (name, spec) in instances.iter().filter(|(name, _)| known.contains(&**name)) {
        if let Some(version) = read(data_dir, name)?.moved_to(spec) {
            moved.insert(name.clone(), version.to_owned());
        }
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(to: &str) -> Attempt {
        Attempt {
            from: Pin { program: Some("/opt/openclaw".into()), version: None },
            previous: "/opt/openclaw".into(),
            to: to.into(),
            run: true,
            soak: 60_000,
            kept: Kept::default(),
            step: Step::Soak,
            why: Some("it died".into()),
            blamed: true,
        }
    }

    #[test]
    fn what_is_known_is_read_as_it_was_written() {
        let data = tempfile::tempdir().unwrap();
        let name = Name::new("main").unwrap();
        assert_eq!(read(data.path(), &name).unwrap(), Journal::new(name.clone()));
        let journal = Journal { attempt: Some(attempt("2026.9.6")), ..Journal::new(name.clone()) };
        UPGRADES.write(data.path(), &name, &journal).unwrap();
        assert_eq!(read(data.path(), &name).unwrap(), journal);
    }

    #[test]
    fn an_instance_that_was_moved_is_on_what_it_is_pinned_to_unless_that_was_taken_from_it() {
        let data = tempfile::tempdir().unwrap();
        let name = Name::new("main").unwrap();
        let on = |version: Option<&str>, runtime| {
            let version = version.map(str::to_owned);
            let instances = [(name.clone(), InstanceSpec { version, runtime, ..Default::default() })];
            upgraded(data.path(), &instances).unwrap().remove(&name)
        };
        let write = |journal: &Journal| UPGRADES.write(data.path(), &name, journal).unwrap();
        assert_eq!(on(Some("3"), None), None, "it was never upgraded");
        let mut journal = Journal { attempt: Some(attempt("3")), ..Journal::new(name.clone()) };
        write(&journal);
        assert_eq!(on(Some("3"), None).as_deref(), Some("3"), "its state may be of that version already");
        journal.keep();
        journal.attempt = Some(Attempt { step: Step::Copy, ..attempt("4") });
        write(&journal);
        assert_eq!(on(Some("3"), None).as_deref(), Some("3"));
        assert_eq!(on(Some("2"), None).as_deref(), Some("2"), "somebody has said so");
        assert_eq!(on(None, Some(Runtime::Openclaw)), None, "somebody has said so");
        assert_eq!(on(None, Some(Runtime::Builtin)).as_deref(), Some("3"));
    }

    #[test]
    fn a_version_that_failed_is_remembered_until_it_does_well() {
        let mut journal = Journal::new(Name::new("main").unwrap());
        for number in 0..FAILED + 2 {
            journal.attempt = Some(attempt(&number.to_string()));
            journal.give_up();
        }
        assert_eq!((journal.failed.len(), journal.failed[0].version.as_str()), (FAILED, "2"));
        journal.attempt = Some(attempt("5"));
        journal.keep();
        assert!(journal.failed.iter().all(|failed| failed.version != "5"));
        assert_eq!(journal.last.unwrap().version, "5");
        // The disk was full: no version is to blame for that.
        let mut journal = Journal::new(Name::new("main").unwrap());
        journal.attempt = Some(Attempt { blamed: false, ..attempt("6") });
        journal.give_up();
        assert_eq!((journal.attempt, journal.failed), (None, Vec::new()));
    }
}
