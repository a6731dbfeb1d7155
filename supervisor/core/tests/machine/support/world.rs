//! A world in which everything happens when the test says so: a disk, workers that answer by script, a clock.
//!
//! Whatever is done through it, the rules of [`invariant::check`] hold after every event, no deadline lies in
//! the past, nothing is launched before its number is durable, and each command is answered once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use supervisor_core::{
    Origin, Supervisor,
    action::{Action, Batch, Done, Launch, Write},
    denied::Denied,
    event::{
        Adoption, Asker, Command, Dangling, Definition, Event, Exit, ExitStatus, Files, Found, LaunchFailure,
        Manner, Process, Report, Sighting, Verdict,
    },
    ids::{CommandId, ConfigId, Credential, Incarnation, Name, Revision},
    instance::{Boot, Instance},
    invariant,
    journal::{Entry, Kind},
    policy::{OnPrimaryDeath, Policy, Standby, Startup},
    ports::Pool,
    record::{Record, Wish},
    time::Moment,
    view::View,
};

use super::tell;

/// Whether the disk takes changes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// At once.
    Prompt,
    /// Only when told.
    Stuck,
}

/// What is durable.
#[derive(Clone, Default)]
pub(crate) struct Durable {
    pub(crate) records: BTreeMap<Name, Record>,
    pub(crate) pool: Pool,
    pub(crate) revision: Revision,
    pub(crate) entries: Vec<Entry>,
}

pub(crate) struct World {
    pub(crate) core: Supervisor,
    pub(crate) now: Moment,
    pub(crate) durable: Durable,
    pub(crate) actions: Vec<Action>,
    disk: Disk,
    writing: VecDeque<Batch>,
    policies: BTreeMap<Arc<str>, Policy>,
    launches: BTreeMap<Name, Launch>,
    lives: BTreeMap<Name, (Incarnation, Process)>,
    replies: BTreeMap<CommandId, Result<Done, Denied>>,
    commands: u64,
    max_instances: usize,
    view: View,
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a test's name is well formed")
}

/// A configuration's content.
pub(crate) fn config(content: u8) -> ConfigId {
    ConfigId::of_digest(&[content; 32])
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A policy without chance, whose numbers are easy to count in.
pub(crate) fn plain() -> Policy {
    let mut policy = Policy::default();
    policy.restart.jitter_permille = 0;
    policy.restart.initial_delay = seconds(1);
    policy.health.watch = None;
    policy
}

pub(crate) fn warm(primaries: &[&str]) -> Policy {
    let mut policy = plain();
    policy.rescues = primaries.iter().map(|primary| name(primary)).collect();
    policy
}

pub(crate) fn cold(primaries: &[&str]) -> Policy {
    let mut policy = warm(primaries);
    policy.rescue.standby = Standby::Cold;
    policy
}

pub(crate) fn with(mut policy: Policy, change: impl FnOnce(&mut Policy)) -> Policy {
    change(&mut policy);
    policy
}

pub(crate) fn left_alone(primaries: &[&str]) -> Policy {
    with(warm(primaries), |policy| policy.rescue.on_primary_death = OnPrimaryDeath::EnsureRunning)
}

pub(crate) fn good() -> Report {
    Report { live: Verdict::Pass, ready: Verdict::Pass, progress: 0 }
}

pub(crate) fn not_ready() -> Report {
    Report { live: Verdict::Pass, ready: Verdict::Fail("busy".into()), progress: 0 }
}

pub(crate) fn silent() -> Report {
    let no = || Verdict::Fail("no answer".into());
    Report { live: no(), ready: no(), progress: 0 }
}

impl World {
    /// Nothing is known yet.
    pub(crate) fn empty() -> Self {
        Self::limited(100)
    }

    pub(crate) fn limited(max_instances: usize) -> Self {
        let now = Moment(1_000_000_000_000);
        let mut actions = Vec::new();
        let core = Supervisor::restore(
            Origin {
                records: Vec::new(),
                pool: Pool::default(),
                max_instances,
                revision: Revision(0),
                boot: Boot::Same,
                seed: 1,
            },
            now,
            &mut actions,
        );
        let mut world = Self {
            core,
            now,
            durable: Durable::default(),
            actions: Vec::new(),
            disk: Disk::Prompt,
            writing: VecDeque::new(),
            policies: BTreeMap::new(),
            launches: BTreeMap::new(),
            lives: BTreeMap::new(),
            replies: BTreeMap::new(),
            commands: 0,
            max_instances,
            view: View::default(),
        };
        world.take_in(actions);
        world.settle_disk();
        world
    }

    /// These instances exist and are wished up; nothing runs yet.
    pub(crate) fn of(instances: &[(&str, Policy)]) -> Self {
        let mut world = Self::empty();
        for (name, policy) in instances {
            world.create(name, policy.clone()).expect("the test's instance is allowed");
            world.start(name).expect("a new instance can be started");
        }
        world.actions.clear();
        world
    }

    /// `main` is ready.
    pub(crate) fn ready(policy: Policy) -> Self {
        let mut world = Self::of(&[("main", policy)]);
        world.up("main");
        world.actions.clear();
        world
    }

    /// `main` and its rescue, both as ready as the rescue's standby wants.
    pub(crate) fn pair(rescue: Policy) -> Self {
        let standby = rescue.rescue.standby;
        let mut world = Self::of(&[("main", plain()), ("rescue", rescue)]);
        world.up("main");
        if standby == Standby::Warm {
            world.up("rescue");
        }
        world.actions.clear();
        world
    }

    // What happens.

    /// One event, its consequences, and what must hold after it.
    pub(crate) fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.handle(self.now, event, &mut actions);
        self.take_in(actions);
        self.settle_disk();
    }

    fn take_in(&mut self, actions: Vec<Action>) {
        invariant::check(&self.core).expect("the invariants hold");
        if let Some(deadline) = self.core.next_deadline() {
            assert!(deadline.at > self.now, "{deadline:?} is left behind at {:?}", self.now);
        }
        self.core.refresh(&mut self.view);
        for action in actions {
            match &action {
                Action::Persist(batch) => self.writing.push_back(batch.clone()),
                Action::Launch(launch) => self.check_launch(launch),
                Action::Reply(id, outcome) => {
                    assert!(id.0 <= self.commands, "an answer to nobody");
                    let before = self.replies.insert(*id, outcome.clone());
                    assert!(before.is_none(), "{id:?} is answered twice");
                }
                Action::Adopt(_)
                | Action::Stop { .. }
                | Action::Kill { .. }
                | Action::Acknowledge { .. }
                | Action::Release { .. }
                | Action::Sweep { .. }
                | Action::Probe { .. }
                | Action::Inform { .. }
                | Action::Restore { .. }
                | Action::AskHandoff { .. }
                | Action::Examine { .. }
                | Action::Forget { .. } => {}
            }
            self.actions.push(action);
        }
    }

    fn check_launch(&mut self, launch: &Launch) {
        let record = self.durable.records.get(&launch.name).expect("what is launched is durable");
        assert!(launch.incarnation <= record.reserved, "{launch:?} has a number that is not durable");
        assert_eq!(record.wish, Wish::Up, "{launch:?} is against its wish");
        let alive = self.lives.get(&launch.name);
        assert!(alive.is_none(), "{launch:?} while {alive:?} is alive");
        self.launches.insert(launch.name.clone(), launch.clone());
    }

    fn settle_disk(&mut self) {
        while self.disk == Disk::Prompt && !self.writing.is_empty() {
            self.store_one();
        }
    }

    fn store_one(&mut self) {
        let Some(batch) = self.writing.pop_front() else { return };
        let revision = batch.revision;
        self.durable.apply(batch);
        self.tell(Event::Stored(revision));
    }

    pub(crate) fn disk(&mut self, disk: Disk) {
        self.disk = disk;
        self.settle_disk();
    }

    /// Time passes; every deadline is kept.
    pub(crate) fn after(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..10_000 {
            let Some(due) = self.core.next_deadline().filter(|due| due.at <= end) else {
                self.now = end;
                return;
            };
            self.now = due.at;
            self.tell(Event::Tick);
        }
        panic!("the deadlines do not end: {:?}", self.core.next_deadline());
    }

    // Commands.

    /// Asks without waiting for the answer.
    pub(crate) fn submit(&mut self, command: Command) -> CommandId {
        self.commands += 1;
        let id = CommandId(self.commands);
        self.tell(Event::Command(id, Asker::Operator, command));
        id
    }

    pub(crate) fn answer(&self, id: CommandId) -> Option<&Result<Done, Denied>> {
        self.replies.get(&id)
    }

    /// Asks on a prompt disk, which answers at once.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Done, Denied> {
        let id = self.submit(command);
        self.replies.get(&id).cloned().expect("a command is answered once its changes are durable")
    }

    pub(crate) fn definition(&mut self, who: &str, policy: Policy) -> Definition {
        let spec: Arc<str> = format!("spec {} of {who}", self.policies.len()).into();
        self.policies.insert(Arc::clone(&spec), policy.clone());
        Definition { name: name(who), spec, policy: Box::new(policy), dangling: Dangling::Accepted }
    }

    pub(crate) fn create(&mut self, who: &str, policy: Policy) -> Result<Done, Denied> {
        let definition = self.definition(who, policy);
        self.ask(Command::Create(definition))
    }

    pub(crate) fn update(&mut self, who: &str, policy: Policy) -> Result<Done, Denied> {
        let definition = self.definition(who, policy);
        self.ask(Command::Update { definition, generation: None })
    }

    pub(crate) fn start(&mut self, who: &str) -> Result<Done, Denied> {
        self.ask(Command::Start { name: name(who), otherwise: None })
    }

    pub(crate) fn stop(&mut self, who: &str) -> Result<Done, Denied> {
        self.ask(Command::Stop { name: name(who), manner: Manner::Graceful })
    }

    pub(crate) fn force_stop(&mut self, who: &str) -> Result<Done, Denied> {
        self.ask(Command::Stop { name: name(who), manner: Manner::Force })
    }

    pub(crate) fn restart(&mut self, who: &str) -> Result<Done, Denied> {
        self.ask(Command::Restart { name: name(who), manner: Manner::Graceful })
    }

    pub(crate) fn recycle(&mut self, who: &str, life: u64) -> Result<Done, Denied> {
        self.ask(Command::Recycle { name: name(who), life: Incarnation(life) })
    }

    pub(crate) fn delete(&mut self, who: &str) -> Result<Done, Denied> {
        self.ask(Command::Delete { name: name(who), generation: None, files: Files::Keep })
    }

    pub(crate) fn fail_over(&mut self, who: &str, by: Option<&str>) -> Result<Done, Denied> {
        self.ask(Command::FailOver { primary: name(who), rescue: by.map(name) })
    }

    pub(crate) fn fail_back(&mut self, who: &str) -> Result<Done, Denied> {
        self.ask(Command::FailBack { primary: name(who) })
    }

    // Workers.

    /// The launch that waits for its answer.
    pub(crate) fn launch(&self, who: &str) -> Option<&Launch> {
        self.launches.get(who)
    }

    pub(crate) fn launched(&mut self, who: &str) {
        let launch = self.launches.remove(who).expect("a launch has left");
        let pid = i32::try_from(100 + launch.incarnation.0).unwrap_or(i32::MAX);
        let process = Process { pid, worker_pid: 99, started: self.now };
        self.lives.insert(launch.name.clone(), (launch.incarnation, process));
        self.tell(Event::Launched(launch.name, launch.incarnation, process));
    }

    /// The launch puts in place what it was told to, and reads this configuration.
    pub(crate) fn reads(&mut self, who: &str, content: u8) {
        let launch = self.launches.get(who).cloned().expect("a launch has left");
        if let Some(restoring) = launch.restore {
            self.tell(Event::Restored(launch.name.clone(), restoring.to));
        }
        let used_by = Some(launch.incarnation);
        let sighting = Sighting { content: Some(config(content)), used_by, ..Sighting::default() };
        self.tell(Event::ConfigSeen(launch.name, sighting));
    }

    /// A gateway is started with this configuration, and serves.
    pub(crate) fn up_with(&mut self, who: &str, content: u8) {
        self.reads(who, content);
        self.up(who);
    }

    /// Somebody edits the configuration.
    pub(crate) fn edited(&mut self, who: &str, content: u8) {
        let sighting = Sighting { content: Some(config(content)), ..Sighting::default() };
        self.tell(Event::ConfigSeen(name(who), sighting));
    }

    /// Its configuration is looked at, and names these channel credentials.
    pub(crate) fn names(&mut self, who: &str, content: u8, credentials: &[u64]) {
        let credentials = credentials.iter().copied().map(Credential).collect();
        let sighting = Sighting { content: Some(config(content)), credentials, ..Sighting::default() };
        self.tell(Event::ConfigSeen(name(who), sighting));
    }

    pub(crate) fn launch_fails(&mut self, who: &str, failure: LaunchFailure) {
        let launch = self.launches.remove(who).expect("a launch has left");
        self.tell(Event::LaunchFailed(launch.name, launch.incarnation, failure));
    }

    /// The launch is answered, and the gateway says that it serves.
    pub(crate) fn up(&mut self, who: &str) {
        self.launched(who);
        if self.one(who).policy().health.startup == Startup::Notify {
            self.tell(Event::Notified(name(who), self.one(who).incarnation()));
        }
    }

    pub(crate) fn exit(&self, who: &str, status: ExitStatus) -> Exit {
        let ordered = matches!(self.one(who).phase(), supervisor_core::instance::Phase::Stopping { .. });
        Exit { incarnation: self.one(who).incarnation(), status, at: self.now, stragglers: 0, ordered }
    }

    /// The current life ends with this status.
    pub(crate) fn exits(&mut self, who: &str, code: i32) {
        self.ends(who, ExitStatus::Code(code));
    }

    /// It is killed.
    pub(crate) fn killed(&mut self, who: &str) {
        self.ends(who, ExitStatus::Signal { number: 9, core: false });
    }

    /// The current life ends like this.
    pub(crate) fn ends(&mut self, who: &str, status: ExitStatus) {
        self.lives.remove(who);
        let exit = self.exit(who, status);
        self.tell(Event::Exited(name(who), exit));
    }

    /// It dies, and nobody is told.
    pub(crate) fn dies_unseen(&mut self, who: &str) {
        self.lives.remove(who);
    }

    /// As above, if that is still to be found out.
    pub(crate) fn dies_unseen_if_adopting(&mut self) {
        if self.core.instances().all(|one| *one.phase() == supervisor_core::instance::Phase::Adopting) {
            self.lives.clear();
        }
    }

    /// The current life has ended, and the worker with it.
    pub(crate) fn swept(&mut self, who: &str) {
        self.lives.remove(who);
        self.launches.remove(who);
        self.tell(Event::Swept(name(who), self.one(who).incarnation()));
    }

    pub(crate) fn worker_lost(&mut self, who: &str) {
        self.tell(Event::WorkerLost(name(who), self.one(who).incarnation()));
    }

    pub(crate) fn probed(&mut self, who: &str, report: Report) {
        self.tell(Event::Probed(name(who), self.one(who).incarnation(), report));
    }

    // Another supervisor.

    /// The supervisor dies; what is not durable is lost. The next one begins, and has heard of nothing yet.
    pub(crate) fn crash(&mut self, boot: Boot) {
        self.writing.clear();
        self.launches.clear();
        self.replies.clear();
        if boot == Boot::New {
            self.lives.clear();
        }
        let records = self.durable.records.values().cloned();
        let with_policy = |record: Record| {
            let policy = self.policies.get(&record.spec).cloned().expect("a durable spec is known");
            (record, policy)
        };
        let origin = Origin {
            records: records.map(with_policy).collect(),
            pool: self.durable.pool,
            max_instances: self.max_instances,
            revision: self.durable.revision,
            boot,
            seed: 2,
        };
        let mut actions = Vec::new();
        self.core = Supervisor::restore(origin, self.now, &mut actions);
        self.view = View::new(self.core.revision());
        self.actions.clear();
        self.take_in(actions);
        self.settle_disk();
    }

    pub(crate) fn adopted(&mut self, who: &str, found: Found, exits: Vec<Exit>) {
        self.tell(Event::Adopted(name(who), Adoption { found, exits }));
    }

    /// Its worker and its gateway, as they are.
    pub(crate) fn found_alive(&self, who: &str) -> Found {
        let (incarnation, process) = *self.lives.get(who).expect("it is alive");
        Found::Running { incarnation, process, notified: true, stopping: false }
    }

    /// Its worker is found, and its gateway runs and serves.
    pub(crate) fn adopted_alive(&mut self, who: &str) {
        let found = self.found_alive(who);
        self.adopted(who, found, vec![]);
    }

    /// Its worker is found, without its gateway, which died by this status.
    pub(crate) fn adopted_dead(&mut self, who: &str, code: i32) {
        let (incarnation, _) = self.lives.remove(who).expect("it was alive");
        let status = ExitStatus::Code(code);
        let exit = Exit { incarnation, status, at: self.now, stragglers: 0, ordered: false };
        self.adopted(who, Found::Idle { incarnation }, vec![exit]);
    }

    /// Nothing is found of it.
    pub(crate) fn adopted_gone(&mut self, who: &str) {
        self.lives.remove(who);
        self.adopted(who, Found::Nothing, vec![]);
    }

    /// It is found as it is.
    pub(crate) fn adopt_as_it_is(&mut self, who: &str) {
        if self.lives.contains_key(who) { self.adopted_alive(who) } else { self.adopted_gone(who) }
    }

    // What is seen.

    pub(crate) fn one(&self, who: &str) -> &Instance {
        self.core.instances().find(|instance| **instance.name() == *who).expect("the instance is known")
    }

    pub(crate) fn knows(&self, who: &str) -> bool {
        self.core.instances().any(|instance| **instance.name() == *who)
    }

    pub(crate) fn phase(&self, who: &str) -> String {
        tell::phase(self.one(who))
    }

    pub(crate) fn standing(&self, who: &str) -> String {
        tell::standing(&self.one(who).record().standing)
    }

    /// What has been ordered of `who` since this was last asked, or since the scene was set.
    pub(crate) fn orders(&mut self, who: &str) -> Vec<String> {
        let (of, rest) = std::mem::take(&mut self.actions)
            .into_iter()
            .partition::<Vec<_>, _>(|action| tell::about(action) == Some(who));
        self.actions = rest;
        of.iter().map(tell::action).collect()
    }

    /// Whether this has been ordered of `who` since this was last asked.
    pub(crate) fn ordered(&mut self, who: &str, order: &str) -> bool {
        self.orders(who).iter().any(|one| one == order)
    }

    /// How often this has been written down durably of `who`.
    pub(crate) fn noted(&self, who: &str, is: impl Fn(&Kind) -> bool) -> usize {
        let of = self.durable.entries.iter().filter(|entry| entry.instance.as_deref() == Some(who));
        of.filter(|entry| is(&entry.kind)).count()
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }
}

impl Durable {
    pub(crate) fn apply(&mut self, batch: Batch) {
        assert!(batch.revision > self.revision, "revisions rise");
        self.revision = batch.revision;
        self.entries.extend(batch.entries);
        for write in batch.writes {
            match write {
                Write::Put(record) => drop(self.records.insert(record.name.clone(), record)),
                Write::Remove(name) => drop(self.records.remove(&name)),
                Write::Pool(pool) => self.pool = pool,
            }
        }
    }
}
