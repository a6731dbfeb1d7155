//! What is being done to a profile, so written down that the next supervisor can go on with it.
//!
//! It stays when the import is done: it knows what to put back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use supervisor_core::{event::Asker, ids::Name};

use super::{process::Running, unit::Unit};
use crate::{
    ledger::{Ledger, VERSION},
    openclaw::{layout::Layout, own::Own},
    spec::InstanceSpec,
};

/// All imports. A configuration has 4 MiB at most, and twice that as JSON.
pub(super) const IMPORTS: Ledger = Ledger { directory: "imports", most_bytes: 16 << 20 };

/// An import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    /// The instance.
    pub(super) name: Name,
    /// What it is asked for.
    pub(super) spec: InstanceSpec,
    /// The unit that ran it, as it was.
    pub(super) unit: Option<Unit>,
    /// The gateway that ran.
    pub(super) running: Option<Running>,
    /// How many session files there were.
    pub(super) sessions: usize,
    /// The configuration as it was.
    pub(super) config: Config,
    /// What the configuration was when the import was done (the name of its content).
    pub(super) adopted: Option<String>,
    /// What is being done.
    pub(super) step: Step,
    /// Why it is being put back.
    pub(super) why: Option<String>,
}

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) path: PathBuf,
    pub(super) content: String,
    pub(super) mode: u32,
}

/// A step, written down before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// What runs the profile is ended.
    Stop,
    /// The instance is created and started.
    Take,
    /// It is to become ready, and to be the right one.
    Verify,
    /// It is imported.
    Done,
    /// It failed, and everything is put back.
    PutBack,
    /// It is given back because somebody wants that.
    Return,
}

impl Journal {
    /// The configuration, to be read or written.
    pub(super) fn own_config(&self) -> Own<'_> {
        Own { path: &self.config.path, layout: Layout::Profile, user: self.spec.user.as_ref() }
    }

    /// Of an import that begins. The configuration has no secrets but those that are its own.
    pub(super) fn begin(name: Name, spec: InstanceSpec, config: Config) -> Self {
        Self {
            version: VERSION,
            name,
            spec,
            unit: None,
            running: None,
            sessions: 0,
            config,
            adopted: None,
            step: Step::Stop,
            why: None,
        }
    }

    /// Who stops and starts the instance meanwhile, as the history has it.
    pub(super) fn asker(&self) -> Asker {
        Asker::Part(match self.step {
            Step::Stop | Step::Take | Step::Verify | Step::Done => "its import".into(),
            Step::PutBack | Step::Return => "the way back from its import".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_read_as_it_was_written() {
        let data = tempfile::tempdir().unwrap();
        let config = Config { path: "/p/openclaw.json".into(), content: "{ a: 'ä' }\n".into(), mode: 0o644 };
        let mut journal = Journal::begin(Name::new("lab").unwrap(), InstanceSpec::default(), config);
        journal.running = Some(Running { started: 5, pid: 7 });
        journal.step = Step::Verify;
        IMPORTS.write(data.path(), "lab", &journal).unwrap();
        assert_eq!(IMPORTS.read(data.path(), "lab").unwrap(), Some(journal));
    }
}
