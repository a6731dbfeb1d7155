//! Takes over profiles that OpenClaw's own command line has made, and gives them back.
//!
//! ```text
//!   find ──► plan ──► Stop ──► Take ──► Verify ──► Done ──► Return
//!             │         └────────┴────────┴──► PutBack         │
//!             ▼                                   └────────────┴──► forgotten
//!          obstacles: nothing is done
//! ```
//!
//! Each step is in the journal before it is done, and each may be done again: a supervisor that is killed anywhere
//! leaves something that the next one goes on with ([`Importer::resume`]). What cannot be finished is put back whole:
//! instance deleted with its files kept, configuration byte for byte, unit enabled and started.
//!
//! Nothing here decides when a gateway is started or ended under supervision: that is asked of the driver, like
//! everybody does.

mod back;
mod find;
mod hello;
mod journal;
mod plan;
mod process;
mod take;
mod unit;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use supervisor_core::{ids::Name, view::View};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task,
};
use tracing::{info, warn};

use crate::{
    doctor::Listening,
    handle::Handle,
    ledger::Trouble,
    openclaw::{prepare::Host, snapshots::content_id},
    spec::InstanceSpec,
};
use find::{Found, Ground};
use journal::{IMPORTS, Journal, Step};

pub(crate) use unit::Unit;

/// From ports to those who listen on them. May block.
pub(crate) type ListenersOf = dyn Fn(&[u16]) -> Vec<Listening> + Send + Sync;

/// Imports, one at a time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Importer {
    handle: Handle,
    host: Arc<Host>,
    listeners: Arc<ListenersOf>,
    turns: Arc<Mutex<()>>,
}

impl fmt::Debug for Importer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Importer").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What an import is told beside the name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// A gateway that no unit runs may be ended.
    pub(crate) stop_running: bool,
    /// The `openclaw` executable.
    pub(crate) program: Option<String>,
    /// Outside the state directory.
    pub(crate) config: Option<PathBuf>,
    /// The same.
    pub(crate) workspace: Option<PathBuf>,
}

/// A profile, and what an import would do.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) state: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) workspace: PathBuf,
    pub(crate) port: Option<u16>,
    pub(crate) unit: Option<Unit>,
    pub(crate) pid: Option<i32>,
    pub(crate) sessions: usize,
    /// The instance that has it already.
    pub(crate) instance: Option<Name>,
    /// That came from an import.
    pub(crate) imported: bool,
    pub(crate) steps: Vec<String>,
    pub(crate) obstacles: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) steps: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// Why an import, or a return, has not been done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// There is no such profile.
    #[error("there is no profile `{0}` of OpenClaw with a configuration")]
    Unknown(String),
    /// There is nothing to give back.
    #[error("no import of `{0}` is remembered")]
    NotImported(String),
    /// Something is in the way; nothing was done.
    #[error("it is not imported, and nothing was done: {}", obstacles.join("; "))]
    Obstructed {
        /// Which.
        name: String,
        /// What.
        obstacles: Vec<String>,
    },
    /// It did not go well; all is as it was.
    #[error("it is not imported, and everything is as it was: {why}")]
    PutBack {
        /// Which.
        name: String,
        /// What went wrong, and what is left to do by hand.
        why: String,
    },
    /// It did not go well, and it cannot be put back.
    #[error("it is not put back yet: {source}{}", because(why.as_deref()))]
    Stuck {
        /// Which.
        name: String,
        /// Why it was to be put back.
        why: Option<String>,
        /// Why it is not.
        source: Box<Trouble>,
    },
    /// The journal cannot be read or written.
    #[error("failed to keep the journal `{}`", path.display())]
    Journal {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor ends; the next one goes on.
    #[error("the supervisor is shutting down; the next one goes on")]
    Interrupted,
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(" (it was to be put back because {why})")).unwrap_or_default()
}

impl Importer {
    /// On this host, through this door.
    pub(crate) fn new(handle: Handle, host: Arc<Host>, listeners: Arc<ListenersOf>) -> Self {
        Self { handle, host, listeners, turns: Arc::default() }
    }

    /// The profiles that are there, and what an import of each would do.
    pub(crate) async fn list(&self) -> Vec<Candidate> {
        let mut all = Vec::new();
        for found in self.find().await {
            all.push(self.candidate(&found, &Wish::default()).await.0);
        }
        all
    }

    /// Waits until no other profile is taken over or given back.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turns).lock_owned().await
    }

    /// Takes a profile over in this [`turn`](Self::turn). One that has been begun is gone on with, and one that is imported
    /// stays so.
    pub(crate) async fn import(
        &self,
        _turn: OwnedMutexGuard<()>,
        name: &str,
        wish: &Wish,
    ) -> Result<Report, ImportError> {
        let before = self.read(name).await?;
        if let Some(journal) =
            before.clone().filter(|journal| journal.step != Step::Done || self.has(journal))
        {
            return match journal.step {
                Step::Done => {
                    Ok(Report { steps: vec!["it is imported already".into()], ..Report::default() })
                }
                Step::Stop | Step::Take | Step::Verify | Step::PutBack | Step::Return => {
                    self.carry_on(journal).await
                }
            };
        }
        let found = self.find().await.into_iter().find(|found| found.name == name);
        let found = found.ok_or_else(|| ImportError::Unknown(name.to_owned()))?;
        let (candidate, spec) = self.candidate(&found, wish).await;
        if let Some(instance) = candidate.instance {
            let steps = vec![format!("the instance `{instance}` has it already")];
            return Ok(Report { steps, ..Report::default() });
        }
        let (true, Ok(name)) = (candidate.obstacles.is_empty(), Name::new(name)) else {
            return Err(ImportError::Obstructed { name: name.to_owned(), obstacles: candidate.obstacles });
        };
        let notes = candidate.notes;
        let mut journal = begin(name, found, spec, before);
        self.note(&mut journal, Step::Stop).await.map_err(|trouble| match trouble {
            Trouble::Write { path, source } => ImportError::Journal { path, source },
            Trouble::Told(_) | Trouble::Stopped(_) | Trouble::Submit(_) | Trouble::Interrupted => {
                ImportError::Interrupted
            }
        })?;
        let report = self.carry_on(journal).await?;
        Ok(Report { notes: [notes, report.notes].concat(), ..report })
    }

    /// Gives a profile back in this [`turn`](Self::turn).
    pub(crate) async fn give_back(
        &self,
        _turn: OwnedMutexGuard<()>,
        name: &str,
    ) -> Result<Report, ImportError> {
        let journal = self.read(name).await?;
        let mut journal = journal.ok_or_else(|| ImportError::NotImported(name.to_owned()))?;
        journal.step = match journal.step {
            Step::Done | Step::Return => Step::Return,
            Step::Stop | Step::Take | Step::Verify | Step::PutBack => Step::PutBack,
        };
        self.return_all(journal).await
    }

    /// Goes on with what an earlier supervisor has left.
    pub(crate) async fn resume(self) {
        let _turn = self.turn().await;
        let data_dir = self.host.control.data_dir.clone();
        let names = match task::spawn_blocking(move || IMPORTS.names(&data_dir)).await {
            Ok(Ok(names)) => names,
            Ok(Err(error)) => return warn!(%error, "the imports cannot be read"),
            Err(_) => return,
        };
        for name in names {
            let journal = match self.read(&name).await {
                Ok(Some(journal)) if journal.step != Step::Done => journal,
                Ok(_) => continue,
                Err(error) => {
                    warn!(name, error = &error as &dyn std::error::Error, "an import cannot be read");
                    continue;
                }
            };
            info!(name, step = ?journal.step, "an import was interrupted; it goes on");
            match self.carry_on(journal).await {
                Ok(_) => info!(name, "the import has come to its end"),
                Err(error) => warn!(name, error = &error as &dyn std::error::Error, "an import failed"),
            }
        }
    }

    /// From whatever step it is in to an end.
    async fn carry_on(&self, mut journal: Journal) -> Result<Report, ImportError> {
        if matches!(journal.step, Step::PutBack | Step::Return) {
            return self.return_all(journal).await;
        }
        let taken = self.take(&mut journal).await;
        let trouble = match taken {
            Ok(report) => return Ok(report),
            Err(Trouble::Interrupted) => return Err(ImportError::Interrupted),
            Err(trouble) => trouble,
        };
        let why = trouble.to_string();
        warn!(name = %journal.name, why, "an import is put back");
        journal.step = Step::PutBack;
        journal.why = Some(why.clone());
        let report = self.return_all(journal.clone()).await?;
        let notes = report.notes.iter().map(|note| format!("; {note}"));
        let why = [why].into_iter().chain(notes).collect();
        Err(ImportError::PutBack { name: journal.name.to_string(), why })
    }

    /// Puts everything back, and forgets the import.
    async fn return_all(&self, journal: Journal) -> Result<Report, ImportError> {
        let name = journal.name.to_string();
        let why = journal.why.clone();
        match self.put_back(&journal).await {
            Ok(report) => {
                let (data_dir, of) = (self.host.control.data_dir.clone(), name.clone());
                let removed = aside(move || IMPORTS.remove(&data_dir, &of)).await;
                removed.map_err(|source| self.journal_error(&name, source))?;
                Ok(report)
            }
            Err(Trouble::Interrupted) => Err(ImportError::Interrupted),
            Err(trouble) => Err(ImportError::Stuck { name, why, source: Box::new(trouble) }),
        }
    }

    async fn read(&self, name: &str) -> Result<Option<Journal>, ImportError> {
        // What is no name of an instance is no name of a file, either.
        if Name::new(name).is_err() {
            return Ok(None);
        }
        let (data_dir, of) = (self.host.control.data_dir.clone(), name.to_owned());
        let read = aside(move || IMPORTS.read(&data_dir, &of)).await;
        read.map_err(|source| self.journal_error(name, source))
    }

    /// Writes down what is done next.
    async fn note(&self, journal: &mut Journal, step: Step) -> Result<(), Trouble> {
        journal.step = step;
        let (data_dir, noted) = (self.host.control.data_dir.clone(), journal.clone());
        let path = IMPORTS.path(&data_dir, &journal.name);
        let written = aside(move || IMPORTS.write(&data_dir, &noted.name, &noted)).await;
        written.map_err(|source| Trouble::Write { path, source })
    }

    fn journal_error(&self, name: &str, source: io::Error) -> ImportError {
        ImportError::Journal { path: IMPORTS.path(&self.host.control.data_dir, name), source }
    }

    async fn find(&self) -> Vec<Found> {
        let path = |name: &str| {
            self.host.environment.get(name).filter(|path| path.starts_with('/')).map(PathBuf::from)
        };
        let ground = Ground { home: path("HOME"), root: PathBuf::from("/"), ocm: path("OCM_HOME") };
        task::spawn_blocking(move || find::profiles(&ground)).await.unwrap_or_default()
    }

    /// Whether the instance of an import is there.
    fn has(&self, journal: &Journal) -> bool {
        has(&self.handle.view(), journal)
    }

    fn data_dir(&self) -> &Path {
        &self.host.control.data_dir
    }
}

/// Whether `view` shows the instance that an import has made.
fn has(view: &View, journal: &Journal) -> bool {
    let instance = view.instances.get(&journal.name);
    instance.is_some_and(|instance| {
        serde_json::from_str::<InstanceSpec>(&instance.record().spec)
            .is_ok_and(|spec| spec.profile == journal.spec.profile)
    })
}

/// `before` is an import whose instance has been deleted since.
fn begin(name: Name, found: Found, spec: InstanceSpec, before: Option<Journal>) -> Journal {
    // What a first import has completed is not how it was.
    let adopted = Some(String::from(content_id(&found.content)));
    let earlier = before.as_ref().filter(|before| before.adopted == adopted);
    let config = earlier.map(|before| before.config.clone()).unwrap_or_else(|| journal::Config {
        path: found.config,
        // Whoever plans has refused what is no text.
        content: String::from_utf8_lossy(&found.content).into_owned(),
        mode: found.mode,
    });
    let mut journal = Journal::begin(name, spec, config);
    // The unit has been disabled by the first import, which is not how it is to be put back.
    let earlier = before.and_then(|before| before.unit);
    let is_off = |unit: &Unit| !unit.enabled && !unit.active;
    journal.unit = match (found.unit, earlier) {
        (Some(now), Some(earlier)) if is_off(&now) && earlier.name == now.name => Some(earlier),
        (now, _) => now,
    };
    journal.running = found.running;
    journal.sessions = found.sessions;
    journal
}

/// Does file work where nobody waits for it.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    task::spawn_blocking(work).await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}
