//! What comes before a process: surroundings, free ports, incident files. And what it takes to probe it.

use std::{
    cell::Cell,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use supervisor_core::{
    action::Launch,
    event::{Event, Files, LaunchFailure, Sighting},
    failover::Incident,
    ids::Name,
    ladder::Purpose,
    ports::Block,
};
use supervisor_proto::worker::{self, EnvironmentVariable, LogPolicy};
use tokio::{sync::OnceCell, task};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Surroundings,
    cgroup::Groups,
    config::{Place, Used},
    port::{self, server::Owner},
    probe::{self, Dialect, Secret},
    roster::Known,
    store, walls,
};
use crate::{
    openclaw::{
        config,
        contract::Contract,
        file::open_regular,
        incident::{self, IncidentError},
        layout::Directories,
        prepare::{self, Host, Refusal, Request},
        tree,
    },
    problem::cut,
    registry,
    spec::{Bytes, InstanceSpec, Kind},
    user::{self, User},
};

/// A log file is closed at this size unless the spec says otherwise.
const LOG_FILE: Bytes = Bytes::mib(16);

/// Log files kept unless the spec says otherwise.
const LOG_FILES: u32 = 8;

/// Looked at of a primary's log for its rescue.
const LOG_TAIL: u64 = 64 << 10;

/// Of that, lines handed on.
const LOG_LINES: usize = 50;

/// A program that can be run.
#[derive(Debug)]
pub(crate) struct Ready {
    /// What the worker is told.
    pub(crate) launch: worker::Launch,
    /// Where its output goes.
    pub(crate) log: LogPolicy,
}

/// What came of the preparation of a launch.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What became of the configuration that was to be put back.
    pub(crate) restored: Option<Event>,
    /// The configuration that it is started with.
    pub(crate) used: Option<Used>,
    /// The configuration, if it names credentials that the launch may not use.
    pub(crate) unexpected: Option<Sighting>,
    /// The program, if it can be run.
    pub(crate) ready: Result<Ready, LaunchFailure>,
}

/// Makes an instance's surroundings and checks its ports. File work, so it is done aside.
pub(crate) async fn prepare(
    surroundings: &Surroundings,
    launch: Launch,
    place: Place,
    contract: Contract,
) -> Prepared {
    let job = Job {
        place,
        contract,
        mark: surroundings.mark(&launch.name),
        run_dir: surroundings.run_dir(&launch.name),
        epoch: surroundings.epoch,
        groups: surroundings.groups.clone(),
        incidents: incidents(surroundings, &launch.incidents),
        launch,
    };
    match task::spawn_blocking(move || job.run()).await {
        Ok(prepared) => prepared,
        Err(error) => {
            let failure = LaunchFailure::Refused(format!("failed to prepare its surroundings: {error}"));
            Prepared { restored: None, used: None, unexpected: None, ready: Err(failure) }
        }
    }
}

/// Where the configuration of a launch is, and what it is held to.
pub(crate) fn place(surroundings: &Surroundings, launch: &Launch) -> Result<Place, LaunchFailure> {
    let spec = serde_json::from_str(&launch.spec)
        .map_err(|error| LaunchFailure::Refused(format!("failed to read its spec: {error}")))?;
    let unknown = || LaunchFailure::Refused("it is not in the registry".into());
    let place = Place::of(surroundings, &launch.name).ok_or_else(unknown)?;
    let (block, previous_base) = (launch.block, launch.previous_base);
    Ok(Place { spec: Arc::new(spec), block, previous_base, ..place })
}

/// All that is needed aside.
struct Job {
    launch: Launch,
    mark: String,
    run_dir: PathBuf,
    epoch: u64,
    groups: Groups,
    incidents: Vec<(Incident, Known)>,
    place: Place,
    contract: Contract,
}

impl Job {
    fn run(self) -> Prepared {
        let Launch { purpose, restore, .. } = &self.launch;
        let restored = self.place.restore_first(restore.as_ref());
        let ready = self.surroundings();
        let used = match (purpose, &ready) {
            (Purpose::Serve, Ok(_) | Err(LaunchFailure::BadConfig(_))) => self.place.used(&self.launch),
            // It is looked at again, or not read.
            (
                Purpose::Serve,
                Err(
                    LaunchFailure::PortTaken { .. }
                    | LaunchFailure::Refused(_)
                    | LaunchFailure::Fenced { .. }
                    | LaunchFailure::Unexpected
                    | LaunchFailure::Spawn(_)
                    | LaunchFailure::NoAnswer,
                ),
            )
            | (Purpose::Repair, _) => Ok(None),
        };
        match used {
            Ok(used) => Prepared { restored, used, unexpected: None, ready },
            Err(sighting) => {
                let ready = ready.and(Err(LaunchFailure::Unexpected));
                Prepared { restored, used: None, unexpected: Some(sighting), ready }
            }
        }
    }

    fn surroundings(&self) -> Result<Ready, LaunchFailure> {
        let Launch { name, block, .. } = &self.launch;
        let spec = &self.place.spec;
        let user = self.user()?;
        let prepared = self.prepared(user.as_ref())?;
        for warning in &prepared.warnings {
            warn!(instance = %name, "{warning}");
        }
        if let Some(taken) = port::taken(&prepared.listens) {
            let holder = port::holders(&[taken]).first().map(ToString::to_string);
            let holder = holder.unwrap_or_else(|| "another process".into());
            return Err(LaunchFailure::PortTaken { port: taken, holder });
        }
        if let Some(note) = &prepared.runtime.note {
            info!(instance = %name, "{note}");
        }
        let environment = prepared
            .environment
            .into_iter()
            .map(|(name, value)| EnvironmentVariable { name, value })
            .collect();
        let log = LogPolicy {
            directory: text(&prepared.directories.logs),
            max_file_bytes: spec.log.max_file_bytes.unwrap_or(LOG_FILE).0,
            max_files: spec.log.max_files.unwrap_or(LOG_FILES),
        };
        let group = self.groups.prepare(name, spec);
        let launch = worker::Launch {
            program: text(&prepared.program),
            args: prepared.args,
            environment,
            working_directory: text(&prepared.working_directory),
            notify: prepared.notify,
            walls: Some(walls::walls(spec, prepared.trees, *block, user, group)),
        };
        // What could not be noted is only missed if the store is damaged next.
        if let Err(error) = store::leave_trace(&self.run_dir, &self.place.store_id, self.epoch, &self.launch)
        {
            warn!(instance = %name, %error, "failed to note what is launched");
        }
        Ok(Ready { launch, log })
    }

    /// Whose processes they are to be, if not the supervisor's user's. What that one has lies in what is the
    /// supervisor's, which it must be able to pass.
    fn user(&self) -> Result<Option<User>, LaunchFailure> {
        let refused = |why: String| LaunchFailure::Refused(why);
        let Some(name) = &self.place.spec.user else { return Ok(None) };
        let user = user::of(Some(name)).map_err(|error| refused(format!("{error}; {}", error.mend())))?;
        if user.is_some() {
            walls::open_way(&self.place.host.control, &self.run_dir).map_err(|error| {
                refused(format!("failed to let `{name}` pass to its own directories: {error}"))
            })?;
        }
        Ok(user)
    }

    fn prepared(&self, user: Option<&User>) -> Result<prepare::Prepared, LaunchFailure> {
        let described: Vec<_> = self
            .incidents
            .iter()
            .map(|(incident, primary)| describe(&self.place.host, incident, primary))
            .collect();
        let request = Request {
            name: &self.launch.name,
            spec: &self.place.spec,
            block: self.launch.block,
            previous_base: self.launch.previous_base,
            mark: &self.mark,
            incidents: &described,
            neighbours: &self.place.neighbours,
            purpose: self.launch.purpose,
            contract: self.contract,
            channels: self.launch.channels,
            good: self.place.good,
            user,
        };
        prepare::prepare(&self.place.host, &request).map_err(|refusal| refused(&refusal))
    }
}

/// The longest refusal, in bytes: it may name several paths, and goes into events and alerts.
const LONGEST: usize = 8_000;

/// A refusal in one line: what is wrong, where, and what to do.
fn refused(refusal: &Refusal) -> LaunchFailure {
    let mut sentence = refusal.to_string();
    let mut source = std::error::Error::source(refusal);
    while let Some(error) = source {
        sentence = format!("{sentence}: {error}");
        source = error.source();
    }
    let sentence = cut(&format!("{sentence}; {}", refusal.mend()), LONGEST);
    match refusal.blames_config() {
        true => LaunchFailure::BadConfig(sentence),
        false => LaunchFailure::Refused(sentence),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The incidents together with what is known of their primaries.
fn incidents(surroundings: &Surroundings, incidents: &[Incident]) -> Vec<(Incident, Known)> {
    let roster = surroundings.roster.borrow();
    let known = |incident: &Incident| roster.get(&incident.primary).cloned();
    incidents.iter().filter_map(|incident| Some((incident.clone(), known(incident)?))).collect()
}

/// An incident as the rescue reads it.
fn describe(host: &Host, incident: &Incident, primary: &Known) -> incident::Incident {
    let directories = Directories::of(&host.control.data_dir, &incident.primary, &primary.spec);
    incident::Incident {
        number: incident.number,
        primary: incident.primary.clone(),
        since: UNIX_EPOCH + Duration::from_nanos(incident.since.0),
        reason: incident.cause.to_string(),
        last_exit: incident.last_exit.as_ref().map(ToString::to_string),
        log: log_tail(&directories.logs).unwrap_or_default(),
        config_revision: config::current_revision(&directories),
        config: directories.config,
        state_dir: directories.state,
        port: primary.block.base,
    }
}

/// The last lines of a log.
pub(super) fn log_tail(logs: &Path) -> io::Result<Vec<String>> {
    let mut file = open_regular(&logs.join("gateway.log"))?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).map(|line| (*line).to_owned()).collect())
}

/// Brings a rescue's incident file up to date.
pub(crate) async fn inform(
    surroundings: &Surroundings,
    name: Name,
    incidents: &[Incident],
) -> Result<(), IncidentError> {
    let host = Arc::clone(&surroundings.host);
    let incidents = self::incidents(surroundings, incidents);
    let Some(spec) = surroundings.roster.borrow().get(&name).map(|known| Arc::clone(&known.spec)) else {
        return Ok(());
    };
    let write = move || {
        let root = Directories::of(&host.control.data_dir, &name, &spec).root;
        let described: Vec<_> =
            incidents.iter().map(|(incident, primary)| describe(&host, incident, primary)).collect();
        incident::write(&incident::file(&root), &name, &described)
    };
    // The thread can only be gone because the daemon is ending.
    task::spawn_blocking(write).await.unwrap_or(Ok(()))
}

/// Deletes the run directory of an instance that is gone and, if that is wished, all else that the supervisor made
/// for it.
pub(crate) async fn delete(
    surroundings: &Surroundings,
    name: &Name,
    run_dir: PathBuf,
    files: Files,
) -> io::Result<()> {
    let root = Directories::at(&surroundings.host.control.data_dir, name, None).root;
    let unless_gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    let remove = move |directory: PathBuf| unless_gone(tree::remove(&directory));
    // Under another name, so that the next instance of this one inherits nothing of what cannot be removed.
    let gone = format!(".{name}.gone-{}", Uuid::now_v7());
    let purge = move |directory: PathBuf| {
        let gone = directory.with_file_name(gone);
        match tree::rename(&directory, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => remove(directory),
            Ok(()) => remove(gone.clone())
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", gone.display()))),
        }
    };
    // One at a time: launches need the threads that do file work, and a big directory takes seconds. The semaphore
    // is never closed.
    let _turn = surroundings.deleting.acquire().await;
    let delete = move || match files {
        Files::Keep => remove(run_dir),
        Files::Purge => remove(run_dir).and(purge(root)),
    };
    task::spawn_blocking(delete).await.unwrap_or(Ok(()))
}

/// How to ask one incarnation. Its configuration is read when it is first asked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    resolved: Rc<OnceCell<probe::Target>>,
}

impl Target {
    /// A target that has not been asked.
    pub(crate) fn new() -> Self {
        Self { resolved: Rc::default() }
    }

    /// What the prober needs.
    pub(crate) async fn resolve(
        &self,
        surroundings: &Surroundings,
        name: &Name,
        block: Block,
        spec: &str,
    ) -> Option<probe::Target> {
        let target = self.resolved.get_or_try_init(|| async {
            let spec: InstanceSpec = serde_json::from_str(spec).map_err(|_| None)?;
            let host = &surroundings.host;
            let kind = registry::kind(&spec, host);
            let owner = owner(name, &spec).await.ok_or(None)?;
            let secret = match kind {
                Kind::Openclaw => secret(host, &owner, &spec).await,
                Kind::Builtin | Kind::Command => None,
            };
            let watch_timeout = spec.watched(kind).map_or(Duration::from_secs(5), |watched| watched.timeout);
            let plan = spec.probe_plan(kind, block);
            // Who cannot be told now, may be next time.
            let is_known = owner.uid.is_ok();
            let dialect = Rc::new(Cell::new(Dialect::default()));
            let target = probe::Target { plan, watch_timeout, secret, owner, dialect };
            if is_known { Ok(target) } else { Err(Some(target)) }
        });
        target.await.cloned().map_or_else(|once| once, Some)
    }
}

/// The gateway's token, from its configuration, if there is one.
async fn secret(host: &Host, owner: &Owner, spec: &InstanceSpec) -> Option<Secret> {
    let directories = Directories::of(&host.control.data_dir, &owner.name, spec);
    let owner = owner.clone();
    let find = move || {
        let declared = config::declared_token(directories.own_config());
        let token = declared.ok().flatten()?;
        Some(Secret { token, owner })
    };
    task::spawn_blocking(find).await.ok()?
}

/// Who is to answer; `None` if there is nobody left to look that up.
async fn owner(name: &Name, spec: &InstanceSpec) -> Option<Owner> {
    let (name, user) = (name.clone(), spec.user.clone());
    task::spawn_blocking(move || Owner { name, uid: user::uid(user.as_ref()) }).await.ok()
}
