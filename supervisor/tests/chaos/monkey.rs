//! The monkey: one act after the other, drawn from the seed.
//!
//! It is fair: all that it does, it undoes in the end; what it asks of the API, it remembers, and where it got no
//! answer it remembers that, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::Signal;
use serde_json::json;
use supervisor_core::rng::Rng;

use crate::{
    api::{Api, Outcome, Verb},
    fleet::{Kind, Member},
    ledger::Ledger,
    place::Place,
    processes::{self, Identity, Part},
    wounds::{self, Cure, Wounds},
};

/// Between two acts at most, with the whole fleet of fifty; a smaller one is left more time.
const PAUSE: Duration = Duration::from_millis(30);

/// The fleet that bears it.
const PAUSE_FLEET: u32 = 50;

/// The longest that the monkey waits for an answer: it has more to do.
const PATIENCE: Duration = Duration::from_millis(250);

/// Most wounds last up to this long,
const BRIEFLY: Duration = Duration::from_secs(3);

/// and some up to this long: more than the supervisor's patience with a silent worker.
const LONG: Duration = Duration::from_secs(15);

/// Extra instances at once.
const EXTRAS: u64 = 6;

/// Ports that a gateway listens on, counted from its base: itself, browser control, canvas.
const LISTENS: [u16; 3] = [0, 2, 4];

/// A squatter has this many tries to be there before the next gateway.
const SQUATS: u32 = 400;

/// What it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    KillGateway,
    KillWorker,
    KillSupervisor,
    StopGateway,
    StopWorker,
    StopSupervisor,
    Squat,
    DeleteWorkerSocket,
    DeleteControlSocket,
    DeleteRunFile,
    CorruptConfig,
    FillDisk,
    Up,
    Down,
    Restart,
    FailOver,
    FailBack,
    Apply,
    Delete,
    Watch,
    List,
    Logs,
}

/// How often it does what, of a thousand acts.
const WEIGHTS: [(Act, u64); 22] = [
    (Act::KillGateway, 220),
    (Act::KillWorker, 80),
    (Act::KillSupervisor, 12),
    (Act::StopGateway, 40),
    (Act::StopWorker, 40),
    (Act::StopSupervisor, 8),
    (Act::Squat, 40),
    (Act::DeleteWorkerSocket, 25),
    (Act::DeleteControlSocket, 8),
    (Act::DeleteRunFile, 30),
    (Act::CorruptConfig, 40),
    (Act::FillDisk, 12),
    (Act::Up, 150),
    (Act::Down, 60),
    (Act::Restart, 60),
    (Act::FailOver, 30),
    (Act::FailBack, 30),
    (Act::Apply, 15),
    (Act::Delete, 20),
    (Act::Watch, 20),
    (Act::List, 20),
    (Act::Logs, 40),
];

/// What the operators want of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) up: bool,
    /// Whether the supervisor has promised so. A call without an answer may be done at any time.
    pub(crate) promised: bool,
}

/// The monkey, and what it holds.
#[derive(Debug)]
pub(crate) struct Monkey {
    pub(crate) rng: Rng,
    pub(crate) place: Place,
    pub(crate) api: Api,
    pub(crate) ledger: Ledger,
    pub(crate) wounds: Wounds,
    pub(crate) fleet: Vec<Member>,
    pub(crate) wants: BTreeMap<String, Want>,
    /// Whose configuration was corrupted in this storm: whoever mends one says so with `up`.
    pub(crate) corrupted: BTreeSet<String>,
    /// Names the data directory in the marks.
    pub(crate) store: String,
    pub(crate) configs: BTreeMap<String, PathBuf>,
    pub(crate) ports: BTreeMap<String, u16>,
    /// Whether the supervisor is not killed any more, so that what it may leak adds up.
    pub(crate) spares_supervisor: bool,
    extras: u64,
}

impl Monkey {
    /// A monkey that has done nothing yet. All instances are wanted up.
    pub(crate) fn new(rng: Rng, place: Place, ledger: Ledger, fleet: Vec<Member>) -> anyhow::Result<Self> {
        let up = Want { up: true, promised: true };
        Ok(Self {
            rng,
            api: Api::new(place.data_dir.join("control.sock")),
            store: place.store_id()?,
            place,
            ledger,
            wounds: Wounds::default(),
            wants: fleet.iter().map(|member| (member.name.clone(), up)).collect(),
            fleet,
            corrupted: BTreeSet::new(),
            configs: BTreeMap::new(),
            ports: BTreeMap::new(),
            spares_supervisor: false,
            extras: 0,
        })
    }

    /// Rages until `end`.
    pub(crate) async fn storm(&mut self, end: Instant) -> anyhow::Result<()> {
        let mean = PAUSE * PAUSE_FLEET / u32::try_from(self.fleet.len()).unwrap_or(1).max(1);
        while Instant::now() < end {
            self.tend()?;
            let act = self.choose();
            self.perform(act).await.with_context(|| format!("the monkey failed at {act:?}"))?;
            tokio::time::sleep(self.rng.span(mean.min(BRIEFLY / 10))).await;
        }
        Ok(())
    }

    /// What goes on by itself.
    pub(crate) fn tend(&mut self) -> anyhow::Result<()> {
        self.wounds.close(Instant::now(), &mut self.place, &mut self.ledger)?;
        if self.wounds.disk_is_full()
            && let Some(disk) = &self.place.disk
        {
            wounds::fill(disk)?;
            self.place.starved = true;
        }
        self.place.tend()
    }

    fn choose(&mut self) -> Act {
        let total = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.below(total);
        for (act, weight) in WEIGHTS {
            if drawn < weight {
                return act;
            }
            drawn -= weight;
        }
        Act::List
    }

    async fn perform(&mut self, act: Act) -> anyhow::Result<()> {
        match act {
            Act::KillGateway => self.kill(Part::Gateway, "kill a gateway").map(drop),
            Act::KillWorker => self.kill(Part::Worker, "kill a worker").map(drop),
            Act::KillSupervisor => self.kill_supervisor(),
            Act::StopGateway => self.stop(Part::Gateway, "stop a gateway"),
            Act::StopWorker => self.stop(Part::Worker, "stop a worker"),
            Act::StopSupervisor => self.stop_supervisor(),
            Act::Squat => self.squat(),
            Act::DeleteWorkerSocket => self.delete_of_run("delete a worker's socket", "worker.sock"),
            Act::DeleteControlSocket => self.delete_control_socket(),
            Act::DeleteRunFile => {
                let file = self.one_of(&["worker.lock", "exits", "worker.log", "."]);
                self.delete_of_run("delete a run file", file)
            }
            Act::CorruptConfig => self.corrupt(),
            Act::FillDisk => self.fill_disk(),
            Act::Up => self.wish("up", Verb::Up).await,
            Act::Down => {
                let force = self.rng.below(4) == 0;
                self.wish("down", Verb::Down { force }).await
            }
            Act::Restart => {
                let force = self.rng.below(4) == 0;
                self.ask("restart", Verb::Restart { force }, |_| true).await
            }
            Act::FailOver => self.ask("fail over", Verb::FailOver, |of| of.kind == Kind::Primary).await,
            Act::FailBack => self.ask("fail back", Verb::FailBack, |of| of.kind == Kind::Primary).await,
            Act::Apply => self.apply().await,
            Act::Delete => self.delete().await,
            Act::Watch => {
                let outcome = self.api.glance(PATIENCE).await;
                self.ledger.act("watch", json!({ "outcome": format!("{outcome:?}") }))
            }
            Act::List => {
                let listed = tokio::time::timeout(PATIENCE, self.api.list()).await;
                let outcome = matches!(listed, Ok(Ok(_)));
                self.ledger.act("list", json!({ "answered": outcome }))
            }
            Act::Logs => {
                let name = self.someone(|_| true);
                let outcome = self.api.logs(&name, PATIENCE).await;
                self.ledger.act("logs", json!({ "of": name, "outcome": format!("{outcome:?}") }))
            }
        }
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let index = usize::try_from(self.rng.below(all.len() as u64)).unwrap_or(0);
        all[index]
    }

    fn someone(&mut self, fits: impl Fn(&Member) -> bool) -> String {
        let all: Vec<&Member> = self.fleet.iter().filter(|member| fits(member)).collect();
        let index = usize::try_from(self.rng.below(all.len() as u64)).unwrap_or(0);
        all.get(index).map(|member| member.name.clone()).unwrap_or_default()
    }

    /// When a wound is to be closed: soon, mostly.
    fn due(&mut self) -> Instant {
        let span = if self.rng.below(8) == 0 { LONG } else { BRIEFLY };
        Instant::now() + self.rng.span(span)
    }

    /// A living process of some instance, the extras included.
    fn target(&mut self, part: Part) -> Option<(String, Identity)> {
        let all: Vec<(String, Identity)> = processes::of_store(&self.store)
            .into_iter()
            .flat_map(|(name, members)| members.into_iter().map(move |member| (name.clone(), member)))
            .filter(|(_, member)| member.part == part)
            .map(|(name, member)| (name, member.identity))
            .collect();
        (!all.is_empty())
            .then(|| self.rng.below(all.len() as u64))
            .and_then(|index| all.get(usize::try_from(index).unwrap_or(0)).cloned())
    }

    fn kill(&mut self, part: Part, kind: &'static str) -> anyhow::Result<Option<String>> {
        let Some((name, identity)) = self.target(part) else { return Ok(None) };
        // Written down before it is done: what dies of it may be recorded at once.
        match part {
            Part::Worker => self.ledger.harmed(&name),
            Part::Gateway | Part::Other | Part::Unborn => {}
        }
        if !processes::signal(identity, Signal::KILL)? {
            return Ok(None);
        }
        if part == Part::Gateway {
            self.ledger.killed(&name, identity.pid);
        }
        self.ledger.act(kind, json!({ "of": name, "pid": identity.pid }))?;
        Ok(Some(name))
    }

    fn stop(&mut self, part: Part, kind: &'static str) -> anyhow::Result<()> {
        let Some((name, identity)) = self.target(part) else { return Ok(()) };
        let Some(held) = processes::hold(identity)? else { return Ok(()) };
        if part == Part::Worker {
            self.ledger.harmed(&name);
        }
        if processes::signal(identity, Signal::STOP)? {
            let due = self.due();
            self.wounds.open(&name, due, Cure::Continue(held));
            self.ledger.act(kind, json!({ "of": name, "pid": identity.pid }))?;
        }
        Ok(())
    }

    fn kill_supervisor(&mut self) -> anyhow::Result<()> {
        if self.spares_supervisor {
            return Ok(());
        }
        let starved = self.place.starved;
        if !self.place.kill_supervisor()? {
            return Ok(());
        }
        self.ledger.starvations += u64::from(starved);
        self.ledger.supervisors_killed += 1;
        let due = Instant::now() + self.rng.span(BRIEFLY / 2);
        self.wounds.open("supervisor", due, Cure::Start);
        self.ledger.act("kill the supervisor", json!({}))
    }

    fn stop_supervisor(&mut self) -> anyhow::Result<()> {
        let Some(identity) = self.place.supervisor() else { return Ok(()) };
        let Some(held) = processes::hold(identity)? else { return Ok(()) };
        if processes::signal(identity, Signal::STOP)? {
            let due = Instant::now() + self.rng.span(BRIEFLY);
            self.wounds.open("supervisor", due, Cure::Continue(held));
            self.ledger.act("stop the supervisor", json!({ "pid": identity.pid }))?;
        }
        Ok(())
    }

    /// Kills a gateway and takes its port, if it is faster than the next.
    fn squat(&mut self) -> anyhow::Result<()> {
        let name = self.someone(|_| true);
        let Some(base) = self.ports.get(&name).copied() else { return Ok(()) };
        let members = processes::of_store(&self.store).remove(&name).unwrap_or_default();
        if let Some(gateway) = members.iter().find(|member| member.part == Part::Gateway)
            && processes::signal(gateway.identity, Signal::KILL)?
        {
            self.ledger.killed(&name, gateway.identity.pid);
            self.ledger.act("kill a gateway", json!({ "of": name, "pid": gateway.identity.pid }))?;
        }
        let port = base + self.one_of(&LISTENS);
        let taken = (0..SQUATS).find_map(|_| TcpListener::bind(("127.0.0.1", port)).ok());
        let Some(listener) = taken else { return Ok(()) };
        self.ledger.spoilt.insert(name.clone());
        let due = self.due();
        self.wounds.open(&name, due, Cure::Release(listener));
        self.ledger.act("squat on a port", json!({ "of": name, "port": port }))
    }

    fn delete_of_run(&mut self, kind: &'static str, file: &str) -> anyhow::Result<()> {
        let name = self.someone(|_| true);
        let directory = self.place.run_dir(&name);
        let deleted = match file {
            "." => fs::remove_dir_all(&directory),
            file => fs::remove_file(directory.join(file)),
        };
        if deleted.is_ok() {
            self.ledger.harmed(&name);
            self.ledger.act(kind, json!({ "of": name, "file": file }))?;
        }
        Ok(())
    }

    fn delete_control_socket(&mut self) -> anyhow::Result<()> {
        if fs::remove_file(self.place.data_dir.join("control.sock")).is_ok() {
            self.ledger.act("delete the control socket", json!({}))?;
        }
        Ok(())
    }

    /// Makes a configuration what it must not be: empty, cut short, no JSON, or outside its block.
    fn corrupt(&mut self) -> anyhow::Result<()> {
        let name = self.someone(|of| of.kind != Kind::Flooder);
        let Some(path) = self.configs.get(&name).cloned() else { return Ok(()) };
        if self.wounds.is_spoilt(&path) {
            return Ok(());
        }
        let Ok(content) = fs::read(&path) else { return Ok(()) };
        let half = content.get(..content.len() / 2).unwrap_or_default();
        let garbage = match self.rng.below(4) {
            0 => Vec::new(),
            1 => half.to_vec(),
            2 => b"\x00\xffnot a configuration".to_vec(),
            _ => b"{ \"gateway\": { \"port\": 1 } }\n".to_vec(),
        };
        self.ledger.spoilt.insert(name.clone());
        self.corrupted.insert(name.clone());
        let due = self.due();
        let spoilt = fs::write(&path, garbage);
        self.wounds.open(&name, due, Cure::Mend { path, content });
        self.ledger.act("corrupt a configuration", json!({ "of": name, "written": spoilt.is_ok() }))
    }

    fn fill_disk(&mut self) -> anyhow::Result<()> {
        let Some(disk) = self.place.disk.clone() else { return Ok(()) };
        if self.wounds.disk_is_full() {
            return Ok(());
        }
        self.ledger.disk_was_full = true;
        self.place.starved = true;
        wounds::fill(&disk)?;
        let due = Instant::now() + self.rng.span(BRIEFLY);
        self.wounds.open("disk", due, Cure::Free);
        self.ledger.act("fill the disk", json!({}))
    }

    /// Wishes an instance up or down, and remembers what was promised.
    async fn wish(&mut self, kind: &'static str, verb: Verb) -> anyhow::Result<()> {
        let up = verb == Verb::Up;
        // Mostly those are started that are down: the rest would be no change.
        let down: BTreeSet<String> =
            self.wants.iter().filter(|(_, want)| !want.up).map(|(name, _)| name.clone()).collect();
        let only_down = up && !down.is_empty() && self.rng.below(4) > 0;
        let name = self.someone(|of| !only_down || down.contains(&of.name));
        let outcome = self.api.verb(&name, verb, PATIENCE).await;
        if let Some(want) = self.wants.get_mut(&name) {
            match outcome {
                Outcome::Done => want.up = up,
                Outcome::Refused(_) | Outcome::Unheard => {}
                Outcome::Unknown(_) => *want = Want { up, promised: false },
            }
        }
        self.ledger
            .act(kind, json!({ "of": name, "verb": format!("{verb:?}"), "outcome": format!("{outcome:?}") }))
    }

    async fn ask(
        &mut self,
        kind: &'static str,
        verb: Verb,
        fits: impl Fn(&Member) -> bool,
    ) -> anyhow::Result<()> {
        let name = self.someone(fits);
        let outcome = self.api.verb(&name, verb, PATIENCE).await;
        self.ledger
            .act(kind, json!({ "of": name, "verb": format!("{verb:?}"), "outcome": format!("{outcome:?}") }))
    }

    /// Applies a fleet file with an instance that nobody knows yet, or knew once.
    async fn apply(&mut self) -> anyhow::Result<()> {
        self.extras += 1;
        let number = self.rng.below(EXTRAS);
        let content =
            format!("version: 1\ninstances:\n  extra-{number}:\n    runtime: builtin\n    stop_grace: 2s\n");
        let outcome = self.api.apply(content, PATIENCE).await;
        self.ledger.act(
            "apply a fleet",
            json!({ "of": format!("extra-{number}"), "outcome": format!("{outcome:?}") }),
        )
    }

    async fn delete(&mut self) -> anyhow::Result<()> {
        if self.extras == 0 {
            return Ok(());
        }
        let name = format!("extra-{}", self.rng.below(EXTRAS));
        let stopped = self.api.verb(&name, Verb::Down { force: false }, PATIENCE).await;
        let deleted = self.api.verb(&name, Verb::Delete, PATIENCE).await;
        let outcome = format!("{stopped:?}, {deleted:?}");
        self.ledger.act("delete an instance", json!({ "of": name, "outcome": outcome }))
    }
}
