//! Moves instances from one version of OpenClaw to another, and back if the new one does not do well.
//!
//! ```text
//!   install ──► preflight ──► Stop ──► Copy ──► Start ──► Soak ──► kept
//!      │            │           └────────┴────────┴────────┴──► PutBack ──► Return ──► remembered
//!      ▼            ▼
//!    nothing is done
//! ```
//!
//! Each step is in the journal before it is done, and each may be done again: a supervisor that is killed anywhere
//! leaves something that the next one goes on with ([`Upgrader::resume`]). What is not kept is put back whole: the
//! state directory by a rename, the configuration with it, then the program. A version that failed on an instance
//! is not tried on it again unless somebody says so.
//!
//! Nothing here decides when a gateway is started or ended under supervision: that is asked of the driver, like
//! everybody does. Which instances go together is the business of who asks: here each has its own turn.

mod back;
mod forward;
mod journal;
mod preflight;
mod state;
mod turns;

use std::{collections::BTreeSet, fmt::Write as _, io, path::PathBuf, sync::Arc, thread, time::Duration};

use futures_util::{StreamExt, stream};
use supervisor_core::{
    event::{Asker, Command, Dangling},
    ids::Name,
    instance::Instance,
    record,
    view::View,
};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockWriteGuard, RwLock, oneshot};
use tracing::{info, warn};

use crate::{
    handle::Handle,
    ledger::Trouble,
    openclaw::{
        layout::Directories,
        prepare::{Host, keep_apart},
        runtime,
    },
    registry,
    runtimes::{InstallError, Installed, Runtimes, Wanted},
    spec::{InstanceSpec, Kind},
};
use journal::{Attempt, Pin, Step, UPGRADES};
use state::{Kept, Unfit};
use turns::{SIDE_BY_SIDE, Turn, Turns};

pub(crate) use journal::{Journal, upgraded};

/// Upgrades, one of each instance at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upgrader {
    handle: Handle,
    host: Arc<Host>,
    runtimes: Runtimes,
    turns: Turns,
    /// Held by who chooses a version until it is written down; who removes those that nobody uses is alone.
    choosing: Arc<RwLock<()>>,
}

/// While it is held, nobody chooses, installs or removes a version.
#[derive(Debug)]
pub(crate) struct Alone {
    _chooser: OwnedRwLockWriteGuard<()>,
    turn: OwnedMutexGuard<()>,
}

/// What an upgrade is told beside the name.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// A version, or a tag that npm resolves.
    pub(crate) version: String,
    /// Instead of npm's registry.
    pub(crate) from: Option<PathBuf>,
    /// It must stay ready for this long.
    pub(crate) soak: Duration,
    /// Try a version that has failed.
    pub(crate) again: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What it is on.
    pub(crate) version: String,
    /// What it was on.
    pub(crate) previous: String,
    /// It was on it already.
    pub(crate) unchanged: bool,
    pub(crate) steps: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// Why an upgrade has not been done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// There is no such instance.
    #[error("there is no instance `{0}`")]
    Unknown(Name),
    /// Something is in the way.
    #[error("it is not upgraded, and nothing was done: {why}")]
    Obstructed {
        /// Which.
        name: Name,
        /// What.
        why: String,
        /// What to do about it; empty if the sentence says so.
        next: String,
    },
    /// It did not go well; all is as it was.
    #[error("it is not upgraded, and everything is as it was: {why}")]
    PutBack {
        /// Which.
        name: Name,
        /// What went wrong.
        why: String,
    },
    /// It did not go well, and it cannot be put back.
    #[error("it is not put back yet: {source} (it was to be put back because {why})")]
    Stuck {
        /// Which.
        name: Name,
        /// Why it was to be put back.
        why: String,
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

/// What is known before anything is done.
struct Plan {
    installed: Installed,
    attempt: Attempt,
    notes: Vec<String>,
}

impl Upgrader {
    /// On this host, through this door.
    pub(crate) fn new(handle: Handle, host: Arc<Host>) -> Self {
        let runtimes = Runtimes::new(Arc::clone(&host));
        Self { handle, runtimes, host, turns: Turns::new(), choosing: Arc::default() }
    }

    /// Waits until the upgrades of this instance that were asked for before have ended.
    pub(crate) async fn turn(&self, name: &Name) -> Turn {
        self.turns.take(name).await
    }

    /// Moves an instance to a version in its [`turn`](Self::turn). One that an interrupted upgrade is still to bring somewhere
    /// goes there first.
    pub(crate) async fn upgrade(
        &self,
        _turn: Turn,
        name: &Name,
        wish: &Wish,
    ) -> Result<Report, UpgradeError> {
        let journal = self.read(name).await?;
        if journal.attempt.is_some() {
            return self.carry_on(journal).await;
        }
        let choosing = self.choosing.read().await;
        let plan = match self.plan(name, wish, &journal).await? {
            Ok(plan) => plan,
            Err(unchanged) => return Ok(unchanged),
        };
        let Plan { installed, attempt, notes } = plan;
        let mut journal = journal;
        journal.attempt = Some(attempt);
        self.note(&mut journal, Step::Stop).await.map_err(|trouble| match trouble {
            Trouble::Write { path, source } => UpgradeError::Journal { path, source },
            Trouble::Told(_) | Trouble::Stopped(_) | Trouble::Submit(_) | Trouble::Interrupted => {
                UpgradeError::Interrupted
            }
        })?;
        drop(choosing);
        let report = self.carry_on(journal).await?;
        let steps =
            [vec![format!("OpenClaw {} is installed aside", installed.version)], report.steps].concat();
        Ok(Report { steps, notes: [notes, report.notes].concat(), ..report })
    }

    /// Everything that can be found out before the instance is stopped; or the answer, if it is on the version.
    async fn plan(
        &self,
        name: &Name,
        wish: &Wish,
        journal: &Journal,
    ) -> Result<Result<Plan, Report>, UpgradeError> {
        let obstructed =
            |why: String, next: String| UpgradeError::Obstructed { name: name.clone(), why, next };
        let view = self.handle.view();
        let instance = known(&view, name)?;
        let before = spec(instance);
        let kind = registry::kind(&before, &self.host);
        if kind != Kind::Openclaw {
            return Err(obstructed(format!("it runs {kind}, of which no versions are kept"), String::new()));
        }
        self.refuse_failed(journal, &wish.version, wish)?;
        let turn = self.runtimes.turn().await;
        let installed = self.install(turn, (&wish.version, wish.from.clone()), Some(&before)).await;
        let (installed, _) = installed.map_err(|error| obstructed(error.to_string(), String::new()))?;
        self.refuse_failed(journal, &installed.version, wish)?;
        let previous = called(&before, &self.host);
        let version = installed.version.clone();
        if before.version.as_deref() == Some(version.as_str()) {
            return Ok(Err(Report {
                previous: version.clone(),
                version,
                unchanged: true,
                ..Report::default()
            }));
        }
        let to = Pin { program: None, version: Some(version.clone()) };
        let after = to.put(&before);
        if let Some(violation) = after.validate().first() {
            return Err(obstructed(violation.to_string(), String::new()));
        }
        let block = instance.record().block;
        let runs = instance.record().wish == record::Wish::Up && !instance.is_cold_standby();
        let (host, of, neighbours) = (Arc::clone(&self.host), name.clone(), registry::neighbours(&view));
        let looked = aside(move || {
            let notes = preflight::ask(&host, &of, block, (&after, &neighbours))?;
            let directories = Directories::of(&host.control.data_dir, &of, &after);
            keep_apart(&host.control.data_dir, (&of, &after), &directories, &neighbours)
                .map_err(|error| format!("{error}; {}", error.mend()))?;
            let kept = Kept::plan(&directories, &after, &of, journal::now())
                .map_err(|error: Unfit| error.to_string())?;
            Ok::<_, String>((notes, kept))
        });
        let looked = looked.await.ok_or(UpgradeError::Interrupted)?;
        let (notes, kept) = looked.map_err(|why| obstructed(why, format!("`{name}` goes on as it is")))?;
        let attempt = Attempt {
            from: Pin::of(&before),
            previous,
            to: version,
            run: runs,
            soak: u64::try_from(wish.soak.as_millis()).unwrap_or(u64::MAX),
            kept,
            step: Step::Stop,
            why: None,
            blamed: false,
        };
        Ok(Ok(Plan { installed, attempt, notes }))
    }

    fn refuse_failed(&self, journal: &Journal, version: &str, wish: &Wish) -> Result<(), UpgradeError> {
        let failed = journal.failed.iter().find(|failed| failed.version == version && !wish.again);
        failed.map_or(Ok(()), |failed| {
            let why = format!("{version} has failed on it before: {}", failed.why);
            let next = "say `--again` to try it once more".to_owned();
            Err(UpgradeError::Obstructed { name: journal.name.clone(), why, next })
        })
    }

    /// Waits until nobody else installs or removes a version.
    pub(crate) async fn turn_to_install(&self) -> OwnedMutexGuard<()> {
        self.runtimes.turn().await
    }

    /// Installs a version aside in this turn; for an instance with this spec, by the Node that runs it now.
    pub(crate) async fn install(
        &self,
        turn: OwnedMutexGuard<()>,
        (version, from): (&str, Option<PathBuf>),
        spec: Option<&InstanceSpec>,
    ) -> Result<(Installed, bool), InstallError> {
        let resolved = spec.and_then(|spec| runtime::resolve(spec, &self.host).ok());
        let node = resolved.and_then(|resolved| resolved.beside);
        self.runtimes.ensure(turn, Wanted { version: version.to_owned(), from, node }).await
    }

    /// The versions that are there, and the instances that are pinned to them.
    pub(crate) async fn installed(&self) -> Vec<(Installed, Vec<Name>)> {
        let view = self.handle.view();
        let pinned = |version: &str| {
            let on = |one: &&Arc<Instance>| spec(one).version.as_deref() == Some(version);
            view.instances.values().filter(on).map(|one| one.name().clone()).collect()
        };
        self.runtimes.list().await.into_iter().map(|one| (one.clone(), pinned(&one.version))).collect()
    }

    /// Waits until nobody chooses, installs or removes a version.
    pub(crate) async fn turn_to_prune(&self) -> Alone {
        Alone { _chooser: Arc::clone(&self.choosing).write_owned().await, turn: self.runtimes.turn().await }
    }

    /// Removes the versions that nobody is pinned to or came from.
    pub(crate) async fn prune(&self, alone: Alone) -> Result<Vec<String>, UpgradeError> {
        let mut used = BTreeSet::new();
        for journal in self.known().await? {
            used.extend(journal.last.map(|last| last.previous));
            if let Some(attempt) = journal.attempt {
                used.extend([Some(attempt.to), attempt.from.version].into_iter().flatten());
            }
        }
        // After the journals: an upgrade that has come to its end meanwhile is seen here.
        used.extend(self.handle.view().instances.values().filter_map(|one| spec(one).version));
        self.runtimes.prune(alone.turn, used).await.map_err(|error| match error {
            InstallError::Write { path, source } => UpgradeError::Journal { path, source },
            InstallError::NoVersion(_)
            | InstallError::NoSource(_)
            | InstallError::NoTool(_)
            | InstallError::Npm { .. }
            | InstallError::Mute(_)
            | InstallError::Other { .. }
            | InstallError::Interrupted => UpgradeError::Interrupted,
        })
    }

    /// What is known of each instance that is there and was ever upgraded.
    pub(crate) async fn known(&self) -> Result<Vec<Journal>, UpgradeError> {
        let view = self.handle.view();
        let mut journals = Vec::new();
        for name in self.names().await?.iter().filter(|name| view.instances.contains_key(*name)) {
            journals.push(self.read(name).await?);
        }
        Ok(journals)
    }

    /// Whoever was ever upgraded, those that are not there any more, too.
    async fn names(&self) -> Result<Vec<Name>, UpgradeError> {
        let data_dir = self.host.control.data_dir.clone();
        let path = data_dir.clone();
        let names = aside(move || UPGRADES.names(&data_dir)).await.ok_or(UpgradeError::Interrupted)?;
        let names = names.map_err(|source| UpgradeError::Journal { path, source })?;
        Ok(names.iter().filter_map(|name| Name::new(name).ok()).collect())
    }

    /// Goes on with what an earlier supervisor has left.
    pub(crate) async fn resume(self) {
        match self.names().await {
            Ok(names) => {
                let each = stream::iter(names).map(|name| self.resume_one(name));
                each.buffer_unordered(SIDE_BY_SIDE).collect::<()>().await;
            }
            Err(error) => warn!(error = &error as &dyn std::error::Error, "the upgrades cannot be read"),
        }
    }

    async fn resume_one(&self, name: Name) {
        let _turn = self.turn(&name).await;
        let journal = match self.read(&name).await {
            Ok(journal) => journal,
            Err(error) => {
                return warn!(%name, error = &error as &dyn std::error::Error, "its upgrades cannot be read");
            }
        };
        let Some(attempt) = &journal.attempt else { return self.forget_deleted(name).await };
        info!(%name, to = attempt.to, step = ?attempt.step, "an upgrade was interrupted; it goes on");
        match self.carry_on(journal).await {
            Ok(_) => info!(%name, "the upgrade has come to its end"),
            Err(error) => warn!(%name, error = &error as &dyn std::error::Error, "an upgrade failed"),
        }
    }

    /// A namesake that is created later has upgrades of its own.
    async fn forget_deleted(&self, name: Name) {
        if self.handle.view().instances.contains_key(&name) {
            return;
        }
        let data_dir = self.host.control.data_dir.clone();
        if let Some(Err(error)) = aside(move || UPGRADES.remove(&data_dir, &name)).await {
            warn!(%error, "the upgrades of a deleted instance cannot be forgotten");
        }
    }

    /// From whatever step it is in to an end.
    async fn carry_on(&self, mut journal: Journal) -> Result<Report, UpgradeError> {
        let is_going_back = |attempt: &Attempt| matches!(attempt.step, Step::PutBack | Step::Return);
        if !journal.attempt.as_ref().is_some_and(is_going_back) {
            let trouble = match self.forward(&mut journal).await {
                Ok(report) => return Ok(report),
                Err(Trouble::Interrupted) => return Err(UpgradeError::Interrupted),
                Err(trouble) => trouble,
            };
            if let Some(attempt) = &mut journal.attempt {
                let is_stopped = matches!(trouble, Trouble::Stopped(_));
                attempt.blamed = attempt.step >= Step::Start && !is_stopped;
                attempt.run = attempt.run && !is_stopped;
                attempt.step = Step::PutBack;
                attempt.why = Some(trouble.to_string());
            }
            warn!(name = %journal.name, why = %trouble, "an upgrade is put back");
        }
        let name = journal.name.clone();
        let attempt = journal.attempt.as_ref();
        let mut why = attempt.and_then(|attempt| attempt.why.clone()).unwrap_or_default();
        match self.back(&mut journal).await {
            Ok(notes) => {
                for note in notes {
                    // A String takes whatever is written to it.
                    let _ = write!(why, "; {note}");
                }
                Err(UpgradeError::PutBack { name, why })
            }
            Err(Trouble::Interrupted) => Err(UpgradeError::Interrupted),
            Err(trouble) => Err(UpgradeError::Stuck { name, why, source: Box::new(trouble) }),
        }
    }

    /// Changes what the instance is started with.
    async fn pin(&self, name: &Name, pin: &Pin, by: Asker) -> Result<(), Trouble> {
        let view = self.handle.view();
        let instance = present(&view, name)?;
        let before = spec(instance);
        let after = pin.put(&before);
        if after == before {
            return Ok(());
        }
        let definition = registry::definition(name.clone(), &after, Dangling::Accepted, &self.host)
            .map_err(|error| Trouble::Told(error.to_string()))?;
        let generation = Some(instance.record().generation);
        self.handle.submit_by(by, Command::Update { definition, generation }).await?;
        Ok(())
    }

    async fn read(&self, name: &Name) -> Result<Journal, UpgradeError> {
        let (data_dir, of) = (self.host.control.data_dir.clone(), name.clone());
        let path = UPGRADES.path(&data_dir, name);
        let read = aside(move || journal::read(&data_dir, &of)).await.ok_or(UpgradeError::Interrupted)?;
        read.map_err(|source| UpgradeError::Journal { path, source })
    }

    /// Writes down what is done next.
    async fn note(&self, journal: &mut Journal, step: Step) -> Result<(), Trouble> {
        if let Some(attempt) = &mut journal.attempt {
            attempt.step = step;
        }
        self.write(journal).await
    }

    async fn write(&self, journal: &Journal) -> Result<(), Trouble> {
        let (data_dir, noted) = (self.host.control.data_dir.clone(), journal.clone());
        let path = UPGRADES.path(&data_dir, &journal.name);
        let written = aside(move || UPGRADES.write(&data_dir, &noted.name, &noted))
            .await
            .ok_or(Trouble::Interrupted)?;
        written.map_err(|source| Trouble::Write { path, source })
    }
}

/// Does what may take minutes on a thread of its own; `None` if the host has no more threads.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, outcome) = oneshot::channel();
    // Who asked may have gone meanwhile.
    let work = move || drop(tell.send(work()));
    thread::Builder::new().name("upgrade".into()).spawn(work).ok()?;
    outcome.await.ok()
}

/// What was asked for.
fn spec(instance: &Instance) -> InstanceSpec {
    // A stored spec that cannot be read keeps the supervisor from starting, so there is none.
    serde_json::from_str(&instance.record().spec).unwrap_or_default()
}

/// What an instance with this spec is on, for people.
fn called(spec: &InstanceSpec, host: &Host) -> String {
    let program = || runtime::resolve(spec, host).ok().map(|resolved| resolved.program.display().to_string());
    spec.version.clone().or_else(program).unwrap_or_else(|| "openclaw".into())
}

fn known<'a>(view: &'a View, name: &Name) -> Result<&'a Instance, UpgradeError> {
    view.instances.get(name).map(Arc::as_ref).ok_or_else(|| UpgradeError::Unknown(name.clone()))
}

/// The same of one that was there when the upgrade began.
fn present<'a>(view: &'a View, name: &Name) -> Result<&'a Instance, Trouble> {
    let instance = view.instances.get(name).map(Arc::as_ref);
    instance.ok_or_else(|| Trouble::Told(format!("the instance `{name}` was deleted meanwhile")))
}
