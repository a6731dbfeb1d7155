//! Puts the rooms together and takes them down again.
//!
//! Two threads do the work: the driver's, with core and all hands on one single-threaded runtime, so that a
//! death and the order to restart never cross a thread; and the callers' (this one), with the API. A third
//! writes the store. Ending the daemon ends none of the gateways.

mod ground;
mod manager;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Uid,
};
use supervisor_core::{
    Origin,
    event::Event,
    ids::{Name, Revision},
    instance::Boot,
    view::View,
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    task::{self, LocalSet},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    alerts::Alerts,
    api::{self, FindHold, FindListeners, FindOrigin, Listener},
    audit::Audit,
    bindings::{Bindings, Table},
    custody::{self, Exposed},
    driver::{self, Clock, Driver, Inputs},
    events::Journal,
    handle::{self, Handle},
    lineage::Lineage,
    lock::{self, LockError},
    logging::Logging,
    metrics::Metrics,
    openclaw::{
        contract::WORKER,
        environment::{Control, DEFAULT_PATH},
        prepare::Host,
    },
    perform::{
        Configs, Contracts, Groups, Performer, Surroundings, hold,
        port::{self, Hold, Holder},
        reap,
        roster::Roster,
        store::{self, AuditRetention, Opened, Restored, Retention, Store},
        sweep::Sweeper,
    },
    recycle::Recycler,
    registry::{self, RegistryError},
    settings::{self, Settings},
    traces::Traces,
    undying::Undying,
    walls::Standings,
    web::{Dashboard, Sessions, load_key},
};

use manager::{tell_manager, tell_of_life};

pub use crate::{api::ServeError, custody::CustodyError, perform::store::StoreError};

/// Opens to this user what of a data directory is closed to it, so that a supervisor can begin there.
pub fn open_own(data_dir: &Path) {
    custody::open_own(data_dir);
}

/// Threads for file work of the driver's hands. More would only fight for the disk and the processors.
const HELPERS: usize = 4;

/// Threads for what callers ask for and takes long. Of each party a few are at work at most, and others are not to wait.
const API_HELPERS: usize = 8;

/// At the end, file work that hangs is not waited for longer than this. It is safe to break off anywhere.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Reports of the store that may wait for the driver.
const REPORTS: usize = 64;

/// The command line, installed beside the daemon.
const OPENCLAWCTL: &str = "openclawctl";

/// What the daemon is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The settings in force.
    pub settings: Settings,
    /// What it says about itself.
    pub logging: Logging,
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data directory cannot be made or protected.
    #[error("failed to prepare the data directory `{path}`")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be kept in it.
    #[error(
        "the data directory `{path}` is on a read-only file system; make it writable and start again (gateways that run are not affected)"
    )]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// It is something else, open to others, and would be closed to them.
    #[error(
        "`{path}` holds other things than a supervisor's and is open to other users; name a directory for the supervisor alone"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Something in it may be another user's.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// Another supervisor has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored cannot be understood.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A part of the daemon cannot be started.
    #[error("failed to start {part}")]
    Start {
        /// Which.
        part: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It would be one of the instance's processes, and end with it.
    #[error("refused to start inside `{0}`, an instance of this data directory; ask an operator to start it")]
    Inside(Name),
    /// The API cannot be served.
    #[error(transparent)]
    Api(#[from] ServeError),
}

/// Where everything is kept unless somebody says otherwise.
#[must_use]
pub fn default_data_dir() -> Option<PathBuf> {
    const NAME: &str = "openclaw-supervisor";
    if Uid::effective().is_root() {
        return Some(Path::new("/var/lib").join(NAME));
    }
    let from = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = from("XDG_DATA_HOME").or_else(|| from("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join(NAME))
}

/// Runs the daemon until it is told to end.
pub fn run(options: Options) -> Result<(), DaemonError> {
    let (data_dir, exposed) = ground::prepare(&options.data_dir)?;
    let _lock = lock::take(&data_dir)?;
    let Options { settings, logging, .. } = options;
    for warning in settings.warnings(settings::ephemeral_ports()) {
        warn!("{warning}");
    }
    raise_file_limit();
    let boot_id = ground::boot_id();
    let began = driver::realtime_ns().saturating_sub(driver::monotonic_ns());
    let (opened, restored) = store::open(&data_dir, (&boot_id, began))?;
    let boot = match &restored.boot {
        Some(id) if *id == boot_id => Boot::Same,
        Some(_) | None => Boot::New,
    };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(HELPERS)
        .build()
        .map_err(|source| DaemonError::Start { part: "the API's runtime", source })?;
    let outcome =
        runtime.block_on(serve(Begun { data_dir, exposed, settings, logging, opened, restored, boot }));
    runtime.shutdown_timeout(LAST_PATIENCE);
    outcome
}

/// What is known once the store is open.
struct Begun {
    data_dir: PathBuf,
    exposed: Vec<PathBuf>,
    settings: Settings,
    logging: Logging,
    opened: Opened,
    restored: Restored,
    boot: Boot,
}

async fn serve(begun: Begun) -> Result<(), DaemonError> {
    let Begun { data_dir, exposed, settings, logging, opened, restored, boot } = begun;
    let (shutdown, (reports, store_reports)) = (CancellationToken::new(), mpsc::channel(REPORTS));
    let (epoch, boot_began, revision) = (restored.epoch, restored.boot_began, restored.revision);
    let metrics = Metrics::default();
    let store = Store::start(opened, revision, retention(&settings), reports, metrics.clone())?;
    let clock = Clock { boot_began };
    let audit = Audit::new(store.audit(), restored.audited, move || clock.now().0);
    let journal = Journal::new(&data_dir, store.latest.clone());
    let (published, view) = watch::channel(Arc::new(View::new(Revision(0))));
    let ((handle, commands), (events, event_inbox)) = (Handle::new(view), mpsc::channel(driver::EVENTS));
    watch_queues(&metrics, &handle, &events);
    let exposed = guarded(&data_dir, exposed, handle.clone());
    let lineage = from_outside(Lineage::new(&restored.id))?;
    let (host, walls) = (Arc::new(host(data_dir)), Standings::default());
    let groups = Groups::find(&restored.id, restored.records.iter().map(|record| &record.name));
    let (sweeper, undying) = sweeper()?;
    let surroundings = surroundings(events, &host, sweeper, (&groups, &walls, &lineage, &metrics), &restored);
    let pool = restored.pool.unwrap_or(settings.pool);
    let records = registry::restore(restored.records, &host)?;
    let max_instances = usize::try_from(settings.max_instances).unwrap_or(usize::MAX);
    let origin = Origin { pool, max_instances, revision, boot, seed: driver::monotonic_ns(), records };
    let ((pulse, beats), (ready, restored)) = (watch::channel(()), oneshot::channel());
    let driving = Driving {
        clock,
        origin,
        surroundings,
        store,
        published,
        inputs: Inputs { commands, events: event_inbox, store: store_reports, shutdown: shutdown.clone() },
        pulse,
    };
    let driver = driving.start(ready)?;
    if restored.await.is_ok() {
        end_on_signal(&shutdown)?;
        let (listening, alerts_dir) = (Arc::new(Notify::new()), host.control.data_dir.clone());
        let web = dashboard(&settings, &host.control.data_dir)?;
        let traces = traced(&settings, &journal)?;
        tell_of_life(beats.clone(), Arc::clone(&listening), handle.watch());
        let context = api::Context {
            recycler: Recycler::start(handle.clone()),
            walls,
            handle,
            journal,
            host,
            listeners: FindListeners(Arc::new(listeners)),
            hold: FindHold(Arc::new(move |host, guest| hold(&groups, host, guest))),
            origins: FindOrigin::new(move |process, effort| lineage.trace(process, effort)),
            bindings: bindings(&settings).await,
            web,
            alerts: Alerts::new(settings.alerts.clone(), alerts_dir),
            beats,
            logging,
            settings,
            exposed,
            undying,
            audit,
            metrics,
            started: clock.now(),
            epoch,
            shutdown: shutdown.clone(),
        };
        answer(context, &listening).await?;
        if let Some(traces) = traces {
            traces.end().await;
        }
    }
    join(driver)
}

/// What kills what is left of instances, and what it cannot kill.
fn sweeper() -> Result<(Sweeper, Undying), DaemonError> {
    let undying = Undying::default();
    let sweeper = Sweeper::start(undying.clone());
    let sweeper = sweeper.map_err(|source| DaemonError::Start { part: "the sweeper", source })?;
    Ok((sweeper, undying))
}

/// Tells whoever collects traces, if anybody does.
fn traced(settings: &Settings, journal: &Journal) -> Result<Option<Traces>, DaemonError> {
    let traces = settings.traces.as_deref().map(|endpoint| Traces::start(endpoint, journal.clone()));
    traces.transpose().map_err(|error| DaemonError::Start { part: "traces", source: io::Error::other(error) })
}

/// Keeps the data directory closed from now on. `exposed` could be read until then; answers what it comes to be.
fn guarded(data_dir: &Path, exposed: Vec<PathBuf>, handle: Handle) -> Exposed {
    let exposed = Exposed::new(exposed);
    let for_all = move || registry::are_for_all(&handle.view());
    task::spawn(custody::guard(data_dir.to_owned(), exposed.clone(), for_all));
    exposed
}

/// What the hands are given.
fn surroundings(
    events: mpsc::Sender<Event>,
    host: &Arc<Host>,
    sweeper: Sweeper,
    (groups, walls, lineage, metrics): (&Groups, &Standings, &Lineage, &Metrics),
    restored: &Restored,
) -> Surroundings {
    Surroundings {
        events,
        worker_program: host.beside_daemon.join(WORKER),
        host: Arc::clone(host),
        groups: groups.clone(),
        epoch: restored.epoch,
        boot_began: restored.boot_began,
        roster: RefCell::new(Roster::new(restored.records.iter())),
        configs: Configs::default(),
        contracts: Contracts::default(),
        sweeper,
        deleting: Semaphore::new(1),
        walls: walls.clone(),
        lineage: lineage.clone(),
        listeners: Default::default(),
        metrics: metrics.clone(),
    }
}

/// Serves callers until the end, and says that it has come.
async fn answer(context: api::Context, listening: &Notify) -> Result<(), ServeError> {
    let shutdown = context.shutdown.clone();
    let served = api::serve(context, || listening.notify_one()).await;
    shutdown.cancel();
    let _ = time::timeout(LAST_PATIENCE, tell_manager(sd_notify::NotifyState::Stopping)).await;
    served
}

/// Shows how full the driver's queues are.
fn watch_queues(metrics: &Metrics, handle: &Handle, events: &mpsc::Sender<Event>) {
    let handle = handle.clone();
    metrics.watch_queue("commands", handle::COMMANDS, move || handle.waiting());
    // It is the hands' to say when there are no more.
    let events = events.downgrade();
    metrics.watch_queue("events", driver::EVENTS, move || {
        events.upgrade().map_or(0, |events| events.max_capacity() - events.capacity())
    });
}

/// How much is kept of what happens.
fn retention(settings: &Settings) -> Retention {
    Retention {
        entries: settings.keep_events,
        age: settings.keep_events_for,
        audit: AuditRetention { entries: settings.keep_audit, age: settings.keep_audit_for },
    }
}

/// Where the dashboard is served, if it is, and who has opened it.
fn dashboard(settings: &Settings, data_dir: &Path) -> Result<Option<Dashboard>, DaemonError> {
    let Some(address) = settings.web else { return Ok(None) };
    let sessions = load_key(data_dir).and_then(|key| Sessions::new(&key));
    let failed = |error| DaemonError::Start { part: "the dashboard", source: io::Error::other(error) };
    Ok(Some(Dashboard::new(address, sessions.map_err(failed)?)))
}

/// Who has which role. Only callers wait for the host's databases; supervision has begun.
async fn bindings(settings: &Settings) -> Bindings {
    let bound = settings.access.clone();
    let table = task::spawn_blocking(move || Table::look_up(&bound)).await;
    Bindings::new(table.unwrap_or_default())
}

/// Waits for the driver's end.
fn join(driver: thread::JoinHandle<io::Result<()>>) -> Result<(), DaemonError> {
    let outcome = driver.join().unwrap_or_else(|_| Err(io::Error::other("the driver panicked")));
    outcome.map_err(|source| DaemonError::Start { part: "the driver", source })?;
    info!("ended; gateways run on");
    Ok(())
}

/// What the driver's thread is given: core's beginning and all hands.
struct Driving {
    clock: Clock,
    origin: Origin,
    surroundings: Surroundings,
    store: Store,
    published: watch::Sender<Arc<View>>,
    inputs: Inputs,
    pulse: watch::Sender<()>,
}

impl Driving {
    /// On a thread of its own; `ready` is told once core is restored.
    fn start(self, ready: oneshot::Sender<()>) -> Result<thread::JoinHandle<io::Result<()>>, DaemonError> {
        thread::Builder::new()
            .name("driver".into())
            .spawn(move || self.run(ready))
            .map_err(|source| DaemonError::Start { part: "the driver's thread", source })
    }

    fn run(self, ready: oneshot::Sender<()>) -> io::Result<()> {
        // Without a driver the API would answer from a view that never changes again.
        let _ends_all = self.inputs.shutdown.clone().drop_guard();
        let runtime =
            runtime::Builder::new_current_thread().enable_all().max_blocking_threads(API_HELPERS).build()?;
        let outcome = LocalSet::new().block_on(&runtime, async {
            reap::start()?;
            let metrics = self.surroundings.metrics.clone();
            let performer = Performer::new(self.surroundings, self.store);
            let driver = Driver::restore(self.clock, self.origin, (performer, metrics), self.published);
            let _ = ready.send(());
            driver.run(self.inputs, || self.pulse.send_replace(())).await;
            Ok(())
        });
        runtime.shutdown_timeout(LAST_PATIENCE);
        outcome
    }
}

/// Who listens on the given ports, for the API, which knows no processes.
fn listeners(ports: &[u16]) -> Vec<Listener> {
    let described = |holder: Holder| Listener { port: holder.port, pid: holder.pid, command: holder.command };
    let listening = |holder: &Holder| holder.hold == Hold::Listening;
    port::holders(ports).into_iter().filter(listening).map(described).collect()
}

/// What instances are given of this host.
fn host(data_dir: PathBuf) -> Host {
    let beside_daemon = beside_daemon();
    Host {
        control: Control { socket: api::socket_path(&data_dir), data_dir },
        environment: with_openclawctl(host_environment(), &beside_daemon),
        beside_daemon,
    }
}

/// Refuses to be started by an agent in one of the instances that would be supervised.
fn from_outside(lineage: Lineage) -> Result<Lineage, DaemonError> {
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    // What cannot be told is no reason to leave gateways without a supervisor.
    lineage.carried(pid).map_or(Ok(lineage), |name| Err(DaemonError::Inside(name)))
}

/// Adds the directory of `openclawctl` to the end of the PATH: what mends a primary from inside its rescue must be
/// found there, wherever this supervisor was installed.
fn with_openclawctl(
    mut environment: BTreeMap<String, String>,
    beside_daemon: &Path,
) -> BTreeMap<String, String> {
    let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let known = || env::split_paths(path).any(|directory| directory.join(OPENCLAWCTL).exists());
    if beside_daemon.join(OPENCLAWCTL).exists() && !known() {
        let path = format!("{path}:{}", beside_daemon.display());
        environment.insert("PATH".into(), path);
    }
    environment
}

/// The environment of this process, as far as it is text.
fn host_environment() -> BTreeMap<String, String> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The directory of this executable, where the worker and the built-in gateway are, too.
fn beside_daemon() -> PathBuf {
    let own = env::current_exe().ok();
    own.and_then(|own| own.parent().map(Path::to_owned)).unwrap_or_else(|| PathBuf::from("/usr/bin"))
}

/// Ends the daemon on SIGTERM and SIGINT.
fn end_on_signal(shutdown: &CancellationToken) -> Result<(), DaemonError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut asked =
            signal(kind).map_err(|source| DaemonError::Start { part: "the signal handler", source })?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            asked.recv().await;
            shutdown.cancel();
        });
    }
    Ok(())
}

/// A thousand instances need a few thousand descriptors; the usual soft limit is 1,024.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        warn!(%error, "failed to raise the limit of open files");
    }
}
