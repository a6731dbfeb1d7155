//! Tells people, wherever they are, when something goes wrong: once when it begins, once when it is over.
//!
//! ```text
//!   view ──► trouble ──► desk ──► message ──► sink ──► webhook, ntfy, Slack, Telegram, a program
//!   journal ────────────► │ ▲                  │
//!                alerts.json └── told, or not ◄─┘
//! ```
//!
//! * [`trouble`]: what is wrong, and when that is worth telling.
//! * [`desk`]: what waits for whom, kept on disk: neither a supervisor's death nor that of the network loses an alert.
//! * [`message`]: what is read; [`sink`]: how each kind is told; [`http`]: the way there.
//!
//! Runs beside the API and not beside the driver: a sink that is slow holds up nothing but itself.

mod desk;
mod http;
mod message;
mod sink;
mod trouble;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use supervisor_core::{instance::Instance, view::View};
use tokio::{
    sync::watch,
    task::{self, JoinSet},
    time::{self, MissedTickBehavior},
};
use tracing::{debug, warn};

use crate::{
    driver,
    events::{Event, Journal, Query, Which, Whose},
    handle::Handle,
    settings::alerts::{Alerts as Settings, Sink},
};
pub(crate) use desk::FILE;
use desk::{Batch, Desk, Notice, Now, Outcome};
use http::Http;
use message::Deed;
use trouble::{Trouble, Turn};

pub(crate) use trouble::Weight;

/// How often is looked at what is wrong.
const LOOK: Duration = Duration::from_secs(1);

/// Events read at once.
const PAGE: usize = 500;

/// What was done about something is told up to so many steps.
const DEEDS: usize = 6;

/// A configuration was put right by the supervisor.
const TAKEN_BACK: &str = "config.taken_back";

/// What tells what was done.
const DEED: [&str; 17] = [
    "config.broken",
    "config.restored",
    "config.restore_failed",
    "config.taken_back",
    "failover.began",
    "failover.done",
    "failover.failed_back",
    "failover.no_rescue",
    "failover.rescue_lost",
    "instance.budget_spent",
    "instance.exited",
    "instance.gave_up",
    "instance.hung",
    "instance.launch_failed",
    "instance.quarantined",
    "instance.repaired",
    "instance.startup_failed",
];

/// Says why an instance is as it is, and what to type.
#[derive(Clone)]
pub(crate) struct Tell(pub(crate) Arc<Telling>);

/// From an instance as it is seen to both.
type Telling = dyn Fn(&View, &Instance) -> (String, String) + Send + Sync;

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}

/// What is known, waits and is told. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Alerts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: watch::Sender<Arc<Settings>>,
    desk: Mutex<Desk>,
    data_dir: PathBuf,
    host: String,
    http: Http,
}

impl Alerts {
    /// Those of this data directory.
    pub(crate) fn new(settings: Settings, data_dir: PathBuf) -> Self {
        let desk = Desk::open(&data_dir).unwrap_or_else(|error| {
            warn!(%error, "what was known of alerts cannot be read; begins anew");
            Desk::default()
        });
        let host = fs::read_to_string("/proc/sys/kernel/hostname");
        let host = host.map_or_else(|_| "a host".into(), |host| host.trim().to_owned());
        let settings = watch::Sender::new(Arc::new(settings));
        Self(Arc::new(Inner { settings, desk: Mutex::new(desk), data_dir, host, http: Http::new() }))
    }

    /// Tells from now on, for as long as there is a driver. `beats` is its pulse.
    pub(crate) fn start(&self, handle: &Handle, journal: Journal, tell: Tell, beats: watch::Receiver<()>) {
        tokio::spawn(self.clone().run(handle.watch(), journal, tell));
        tokio::spawn(self.clone().beat(beats));
    }

    /// Tells others from now on, or otherwise.
    pub(crate) fn set(&self, settings: Settings) {
        self.0.settings.send_replace(Arc::new(settings));
    }

    /// Who is told.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.0.settings.borrow())
    }

    /// What is known and waits.
    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sinks that cannot be told anything, a sentence each.
    pub(crate) fn alarms(&self) -> Vec<String> {
        let (settings, desk) = (self.settings(), self.desk());
        let failing = settings.sinks.iter().filter_map(|sink| {
            let why = desk.record(&sink.name).0.failing?.1;
            Some(format!("Alerts do not reach `{}`: {why}.", sink.name))
        });
        failing.collect()
    }

    /// Tells one sink something now, beside all that waits; says why it was not taken.
    pub(crate) async fn test(&self, sink: &Sink) -> Result<(), String> {
        let now = now().ns;
        let trouble = Trouble {
            instance: String::new(),
            weight: Weight::Warning,
            title: "a test: alerts arrive here".into(),
            why: format!("somebody typed `openclawctl alerts test`, and `{}` is one of the sinks", sink.name),
            hint: String::new(),
            at_once: true,
        };
        let notice = Notice { key: "test".into(), turn: Turn::Test, trouble, since_ns: now, at_ns: now };
        let message = message::compose(&[notice], &BTreeMap::new(), &self.0.host);
        match sink::tell(&sink.way, &message, &self.0.http).await {
            Outcome::Told => Ok(()),
            Outcome::Failed(why, _) => Err(why),
        }
    }

    async fn run(self, views: watch::Receiver<Arc<View>>, journal: Journal, tell: Tell) {
        let mut ticks = time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent: JoinSet<(Batch, Outcome)> = JoinSet::new();
        let mut busy = BTreeSet::new();
        // A view that nobody publishes any more does not become worse.
        while views.has_changed().is_ok() {
            let is_new = tokio::select! {
                _ = ticks.tick() => {
                    let settings = self.settings();
                    if settings.sinks.is_empty() {
                        continue;
                    }
                    let told = self.read(&journal, &settings).await;
                    let view = Arc::clone(&views.borrow());
                    let current = trouble::of_fleet(&view, |instance| (tell.0)(&view, instance));
                    self.desk().take(current, now(), &settings) || told
                }
                Some(Ok((batch, outcome))) = sent.join_next() => {
                    if let Outcome::Failed(why, _) = &outcome {
                        warn!(sink = batch.sink.name, "an alert could not be told: {why}");
                    }
                    busy.remove(&batch.sink.name);
                    self.desk().settle(&batch, outcome, now());
                    true
                }
            };
            if is_new {
                self.save().await;
            }
            let due = self.desk().due(now(), &self.settings(), &busy);
            for batch in due {
                busy.insert(batch.sink.name.clone());
                sent.spawn(self.clone().send(batch, journal.clone()));
            }
        }
    }

    async fn send(self, batch: Batch, journal: Journal) -> (Batch, Outcome) {
        let mut deeds = BTreeMap::new();
        for notice in &batch.notices {
            let name = &notice.trouble.instance;
            if !name.is_empty() && !deeds.contains_key(name) {
                deeds.insert(name.clone(), done(&journal, notice).await);
            }
        }
        let message = message::compose(&batch.notices, &deeds, &self.0.host);
        let outcome = sink::tell(&batch.sink.way, &message, &self.0.http).await;
        (batch, outcome)
    }

    /// Takes in what has happened since it was read last, as far as that is told for itself.
    async fn read(&self, journal: &Journal, settings: &Settings) -> bool {
        let latest = *journal.latest().borrow();
        let known = self.desk().read;
        let Some(mut after) = known else {
            self.desk().read = Some(latest);
            return true;
        };
        let mut has_read = false;
        while after < latest {
            let query = Query { after, limit: PAGE, ..Query::default() };
            let events = match journal.read(query).await {
                Ok(page) => page.events,
                Err(error) => {
                    debug!(%error, "the journal cannot be read for alerts");
                    return has_read;
                }
            };
            after = events.last().map_or(latest, |last| last.revision);
            let mut desk = self.desk();
            for event in events.iter().filter(|event| event.kind == TAKEN_BACK) {
                desk.tell(&taken_back(event), now(), settings);
                has_read = true;
            }
            desk.read = Some(after);
        }
        has_read
    }

    async fn save(&self) {
        let (desk, data_dir) = (self.desk().clone(), self.0.data_dir.clone());
        let saved = task::spawn_blocking(move || desk.save(&data_dir)).await;
        if let Ok(Err(error)) = saved {
            warn!(%error, "what is known of alerts cannot be stored; it is told all the same");
        }
    }

    /// Says that all is well to who raises an alarm when he hears nothing. Nothing is said while the driver stands still.
    async fn beat(self, mut beats: watch::Receiver<()>) {
        let mut settings = self.0.settings.subscribe();
        loop {
            let heartbeat = settings.borrow_and_update().heartbeat.clone();
            let Some(heartbeat) = heartbeat else {
                if settings.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if beats.changed().await.is_err() {
                return;
            }
            let outcome = match sink::beat(&heartbeat.place) {
                Ok(request) => self.0.http.ask(request).await.map_err(|error| error.to_string()),
                Err(why) => Err(why),
            };
            match outcome {
                Ok(reply) if reply.status.is_success() => {}
                Ok(reply) => warn!(status = %reply.status, "the heartbeat was not taken"),
                Err(why) => warn!("the heartbeat was not heard: {why}"),
            }
            tokio::select! {
                () = time::sleep(heartbeat.every) => {}
                changed = settings.changed() => if changed.is_err() { return },
            }
        }
    }
}

fn taken_back(event: &Event) -> Notice {
    let trouble = Trouble {
        instance: event.instance.clone(),
        weight: Weight::Warning,
        title: format!("{}: a bad configuration was taken back", event.instance),
        why: event.message.clone(),
        hint: format!("openclawctl config diff {}", event.instance),
        at_once: true,
    };
    let key = format!("event/{}", event.revision);
    Notice { key, turn: Turn::Mended, trouble, since_ns: event.unix_ns, at_ns: event.unix_ns }
}

/// What has been done about it: the first step, which says what happened, and the last ones.
async fn done(journal: &Journal, notice: &Notice) -> Vec<Deed> {
    let whose = Whose::One(notice.trouble.instance.clone());
    let query = Query { whose, limit: PAGE, which: Which::Newest, ..Query::default() };
    let Ok(page) = journal.read(query).await else { return Vec::new() };
    // What led to it was written down shortly before it was seen.
    let from = notice.since_ns.saturating_sub(5_000_000_000);
    let deeds = page.events.into_iter().filter(|event| event.unix_ns >= from && DEED.contains(&&*event.kind));
    let mut deeds: Vec<Deed> = deeds.map(|event| (event.unix_ns, event.message)).collect();
    if deeds.len() > DEEDS {
        deeds.drain(1..deeds.len() - DEEDS + 1);
    }
    deeds
}

fn now() -> Now {
    let ns = driver::realtime_ns();
    let up =
        u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
    Now { ns, local: jiff::Zoned::now().time(), booted_ns: ns.saturating_sub(up) }
}
