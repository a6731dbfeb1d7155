//! Core with the real store and imaginary processes.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use supervisor_core::{
    Origin, Supervisor,
    action::Action,
    event::{Adoption, Event, Exit, ExitStatus, Found, Handoff, LaunchFailure, Process, Report, Verdict},
    ids::{CommandId, Incarnation, Name, Revision},
    instance::Boot,
    ports::Pool,
    time::Moment,
    view::View,
};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    api::gate::Gate,
    audit::Audit,
    bindings::Bindings,
    events::Journal,
    handle::{Handle, Submission},
    metrics::Metrics,
    perform::store::{self, AuditRetention, Retention, Store},
};

/// When the world began: 2026-01-01, in nanoseconds since the Unix epoch.
pub(super) const BEGAN: u64 = 1_767_225_600_000_000_000;

/// What an instance's processes do when they are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conduct {
    /// They are ready at once.
    Ready,
    /// They never say that they are ready.
    Starting,
    /// They cannot be started.
    Fails(LaunchFailure),
    /// They end at once.
    Exits(i32),
    /// They do not end when asked to.
    Stubborn,
}

/// What tests can do to the world.
#[derive(Debug)]
enum Deed {
    /// The processes of an instance end.
    Kill(Name),
    /// The disk takes nothing any more.
    BreakDisk,
}

/// The world, seen by tests.
#[derive(Debug)]
pub(super) struct World {
    pub(super) handle: Handle,
    pub(super) journal: Journal,
    pub(super) audit: Audit,
    pub(super) metrics: Metrics,
    /// Who has which role; nobody at first.
    pub(super) bindings: Bindings,
    pub(super) directory: TempDir,
    /// Where the API is to listen, if not where it usually does.
    pub(super) socket: Option<PathBuf>,
    conducts: Arc<Mutex<HashMap<Name, Conduct>>>,
    deeds: mpsc::UnboundedSender<Deed>,
}

impl World {
    pub(super) fn new(most: usize) -> Self {
        let directory = TempDir::new().unwrap();
        let (connection, restored) = store::open(directory.path(), ("boot", 0)).unwrap();
        let (reports, store_reports) = mpsc::channel(64);
        let retention = Retention {
            entries: 100_000,
            age: Duration::from_secs(1_000_000_000),
            audit: AuditRetention { entries: 100_000, age: Duration::from_secs(1_000_000_000) },
        };
        let metrics = Metrics::default();
        let store = Store::start(connection, restored.revision, retention, reports, metrics.clone()).unwrap();
        let journal = Journal::new(directory.path(), store.latest.clone());
        let audit = Audit::new(store.audit(), restored.audited, || BEGAN);
        let (published, view) = watch::channel(Arc::new(View::new(Revision(0))));
        let (handle, commands) = Handle::new(view);
        let (deeds, inbox) = mpsc::unbounded_channel();
        let conducts = Arc::default();
        let origin = Origin {
            records: Vec::new(),
            pool: Pool::default(),
            max_instances: most,
            revision: restored.revision,
            boot: Boot::Same,
            seed: 7,
        };
        let mut actions = Vec::new();
        let core = Supervisor::restore(origin, Moment(BEGAN), &mut actions);
        let view = View::new(core.revision());
        let driver = Driver {
            core,
            view,
            published,
            store,
            metrics: metrics.clone(),
            actions,
            began: Instant::now(),
            conducts: Arc::clone(&conducts),
            incarnations: BTreeMap::new(),
            replies: HashMap::new(),
            outcomes: Vec::new(),
            next: 0,
            broken: false,
        };
        tokio::spawn(driver.run(commands, store_reports, inbox));
        let bindings = Bindings::default();
        Self { handle, journal, audit, metrics, bindings, directory, socket: None, conducts, deeds }
    }

    /// The gate of the user that the tests run as.
    pub(super) fn gate(&self) -> Gate {
        Gate::own(self.handle.clone(), self.bindings.clone(), self.audit.clone())
    }

    /// One that knows these users as its own.
    pub(super) fn gate_of(&self, admins: [u32; 2]) -> Gate {
        Gate::of(admins, self.handle.clone(), self.bindings.clone(), self.audit.clone())
    }

    /// From its next start on, `name` behaves like this.
    pub(super) fn conduct(&self, name: &str, conduct: Conduct) {
        self.conducts.lock().unwrap().insert(Name::new(name).unwrap(), conduct);
    }

    /// The processes of `name` are killed.
    pub(super) fn kill(&self, name: &str) {
        self.deeds.send(Deed::Kill(Name::new(name).unwrap())).unwrap();
    }

    pub(super) fn break_disk(&self) {
        self.deeds.send(Deed::BreakDisk).unwrap();
    }
}

/// What the real driver and its hands do, in small.
struct Driver {
    core: Supervisor,
    view: View,
    published: watch::Sender<Arc<View>>,
    store: Store,
    metrics: Metrics,
    actions: Vec<Action>,
    began: Instant,
    conducts: Arc<Mutex<HashMap<Name, Conduct>>>,
    incarnations: BTreeMap<Name, Incarnation>,
    replies: HashMap<CommandId, tokio::sync::oneshot::Sender<Reply>>,
    outcomes: Vec<(CommandId, Reply)>,
    next: u64,
    /// The disk takes nothing any more.
    broken: bool,
}

type Reply = Result<supervisor_core::action::Done, supervisor_core::denied::Denied>;

impl Driver {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Submission>,
        mut reports: mpsc::Receiver<store::Report>,
        mut deeds: mpsc::UnboundedReceiver<Deed>,
    ) {
        loop {
            self.act();
            let idle =
                self.core.next_deadline().map_or(Duration::from_secs(60), |next| next.at.since(self.now()));
            tokio::select! {
                Some((by, command, reply)) = commands.recv() => {
                    self.next += 1;
                    self.replies.insert(CommandId(self.next), reply);
                    self.handle(Event::Command(CommandId(self.next), by, command));
                }
                Some(report) = reports.recv(), if !self.broken => self.handle(match report {
                    store::Report::Stored(revision) => Event::Stored(revision),
                    store::Report::Failing(message) => Event::StoreFailing(message),
                }),
                Some(deed) = deeds.recv() => match deed {
                    Deed::Kill(name) => self.exit(&name, ExitStatus::Signal { number: 9, core: false }, false),
                    Deed::BreakDisk => {
                        self.broken = true;
                        self.handle(Event::StoreFailing("no space".into()));
                    }
                },
                () = sleep(idle) => self.handle(Event::Tick),
                else => return,
            }
        }
    }

    fn now(&self) -> Moment {
        Moment(BEGAN) + self.began.elapsed()
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(self.now(), event, &mut self.actions);
    }

    /// Does what is to be done, until nothing is; then shows it and answers, like the real driver.
    fn act(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.perform(action);
            }
        }
        if self.core.refresh(&mut self.view) {
            self.published.send_replace(Arc::new(self.view.clone()));
        }
        for (id, outcome) in std::mem::take(&mut self.outcomes) {
            let _ = self.replies.remove(&id).map(|reply| reply.send(outcome));
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Persist(batch) => {
                batch.entries.iter().for_each(|entry| self.metrics.note(entry));
                self.store.persist(batch);
            }
            Action::Reply(id, outcome) => self.outcomes.push((id, outcome)),
            Action::Adopt(name) => {
                self.handle(Event::Adopted(name, Adoption { found: Found::Nothing, exits: Vec::new() }));
            }
            Action::Launch(launch) => self.launch(launch.name, launch.incarnation),
            Action::Stop { name, .. } if self.conduct(&name) == Conduct::Stubborn => {}
            Action::Stop { name, .. } => self.exit(&name, ExitStatus::Code(0), true),
            Action::Kill { name, .. } => {
                self.exit(&name, ExitStatus::Signal { number: 9, core: false }, true);
            }
            Action::AskHandoff { name, incarnation, .. } => {
                self.handle(Event::Handoff(name, incarnation, Handoff::Nothing));
            }
            Action::Restore { name, to, .. } => self.handle(Event::Restored(name, to)),
            Action::Sweep { name, incarnation } => self.handle(Event::Swept(name, incarnation)),
            Action::Probe { name, incarnation, .. } => {
                let report = Report { live: Verdict::Pass, ready: Verdict::Pass, progress: 1 };
                self.handle(Event::Probed(name, incarnation, report));
            }
            Action::Acknowledge { .. }
            | Action::Release { .. }
            | Action::Inform { .. }
            | Action::Examine { .. }
            | Action::Forget { .. } => {}
        }
    }

    fn conduct(&self, name: &Name) -> Conduct {
        self.conducts.lock().unwrap().get(name).cloned().unwrap_or(Conduct::Ready)
    }

    fn launch(&mut self, name: Name, incarnation: Incarnation) {
        self.incarnations.insert(name.clone(), incarnation);
        let conduct = self.conduct(&name);
        if let Conduct::Fails(failure) = conduct {
            return self.handle(Event::LaunchFailed(name, incarnation, failure));
        }
        // This very process stands for all of them: it is sure to be there.
        let pid = i32::try_from(std::process::id()).unwrap();
        let process = Process { pid, worker_pid: pid, started: self.now() };
        self.handle(Event::Launched(name.clone(), incarnation, process));
        match conduct {
            Conduct::Ready | Conduct::Stubborn => self.handle(Event::Notified(name, incarnation)),
            Conduct::Exits(code) => self.exit(&name, ExitStatus::Code(code), false),
            Conduct::Starting | Conduct::Fails(_) => {}
        }
    }

    fn exit(&mut self, name: &Name, status: ExitStatus, ordered: bool) {
        let Some(incarnation) = self.incarnations.get(name).copied() else { return };
        let exit = Exit { incarnation, status, at: self.now(), stragglers: 0, ordered };
        self.handle(Event::Exited(name.clone(), exit));
    }
}
