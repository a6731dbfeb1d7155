//! Starts instances anew that take too much memory: over their hard limit at once, over their soft one in a quiet
//! moment.
//!
//! ```text
//!   look ──► over a limit? ──► old enough? ──► hard? ────────────────────────► Recycle that life
//!    ▲                                           └─► in its window? ──► quiet? ──┘
//!    └── every interval                                  what it waits for is shown
//! ```
//!
//! Only instances with a limit are looked at, and only while they are ready. Whether a life may be ended now is core's
//! to say. What was seen is not kept: the next supervisor looks again.

mod judge;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use supervisor_core::{
    event::{Asker, Command},
    ids::{Incarnation, Name},
    instance::{Instance, Phase},
    view::View,
};
use tokio::time::{self, Instant};
use tracing::{info, warn};

use crate::{
    driver,
    figures::{Figure, Figures, Wanted},
    handle::{Handle, SubmitError},
    registry,
    spec::Memory,
};
use judge::{Judgement, Scales};

/// Between two looks at who has a limit, when nothing changes.
const LONGEST: Duration = Duration::from_secs(60);

/// Changes of the fleet are taken in together.
const PAUSE: Duration = Duration::from_secs(1);

/// A command that is not durable by then waits for a disk that is stuck. It is done in the end, and only once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who takes too much. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recycler {
    handle: Handle,
    figures: Figures,
    /// What those wait for that are over a limit, by life.
    waiting: Arc<Mutex<BTreeMap<Name, (Incarnation, String)>>>,
}

/// An instance that has a limit.
#[derive(Debug)]
struct Limited {
    memory: Memory,
    life: Incarnation,
    due: Instant,
    scales: Scales,
}

impl Recycler {
    /// Looks from now on, for as long as there is a driver.
    pub(crate) fn start(handle: Handle) -> Self {
        let recycler = Self { handle, figures: Figures::default(), waiting: Arc::default() };
        tokio::spawn(recycler.clone().run());
        recycler
    }

    /// What it and others have seen.
    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Why this life is to be ended, and what that waits for; empty if it is not.
    pub(crate) fn waits(&self, name: &Name, life: Incarnation) -> String {
        let waiting = self.waiting();
        waiting.get(name).filter(|(of, _)| *of == life).map(|(_, what)| what.clone()).unwrap_or_default()
    }

    async fn run(self) {
        let mut views = self.handle.watch();
        let mut limited = BTreeMap::new();
        loop {
            self.follow(&mut limited, &views.borrow_and_update().clone());
            self.look(&mut limited).await;
            let next = limited.values().map(|one| one.due).min();
            let longest = Instant::now() + LONGEST;
            tokio::select! {
                () = time::sleep_until(next.map_or(longest, |next| next.min(longest))) => {}
                changed = views.changed() => match changed {
                    Ok(()) => time::sleep(PAUSE).await,
                    Err(_) => return,
                },
            }
        }
    }

    /// Those that have a limit by now, and are ready.
    fn follow(&self, limited: &mut BTreeMap<Name, Limited>, view: &View) {
        let mut before = std::mem::take(limited);
        let ready = view.instances.values().filter(|instance| *instance.phase() == Phase::Ready);
        for instance in ready {
            let Some(memory) = limits(instance) else { continue };
            let (life, due) = (instance.incarnation(), Instant::now());
            let known = before.remove(instance.name()).filter(|one| one.life == life && one.memory == memory);
            let one = known.unwrap_or_else(|| Limited { memory, life, due, scales: Scales::default() });
            limited.insert(instance.name().clone(), one);
        }
        self.waiting().retain(|name, (life, _)| limited.get(name).is_some_and(|one| one.life == *life));
    }

    async fn look(&self, limited: &mut BTreeMap<Name, Limited>) {
        let now = Instant::now();
        let view = self.handle.view();
        let due = limited.iter_mut().filter(|(_, one)| one.due <= now);
        let due: Vec<_> = due.filter_map(|(name, one)| Some((view.instances.get(name)?, one))).collect();
        self.figures.look(due.iter().filter_map(|(instance, _)| Wanted::of(instance)).collect()).await;
        for (instance, one) in due {
            one.due = now + one.memory.interval();
            if let Some(figure) = self.figures.known(instance.name(), one.life) {
                one.scales.weigh(Instant::now(), &figure);
                self.judge(instance, one, &figure).await;
            }
        }
    }

    async fn judge(&self, instance: &Instance, one: &Limited, figure: &Figure) {
        let (name, life) = (instance.name(), one.life);
        let started = instance.process().map_or(0, |process| process.started.0);
        let uptime = Duration::from_nanos(driver::realtime_ns().saturating_sub(started));
        match one.scales.judge(&one.memory, figure.rss_bytes, uptime, minute_of_day()) {
            Judgement::Fine => {
                self.waiting().remove(name);
            }
            Judgement::Waits { over, until } => {
                self.note(name, life, &format!("{over}; it is started anew {until}"));
            }
            Judgement::Due { over, short } => {
                let outcome = self.recycle(name, life, short).await;
                let then = match outcome {
                    Ok(()) => return info!(instance = %name, "{over}; it is started anew"),
                    Err(SubmitError::Denied(_)) => "once nothing else is the matter with it".to_owned(),
                    Err(error) => format!("as soon as possible ({error})"),
                };
                self.note(name, life, &format!("{over}; it is started anew {then}"));
            }
        }
    }

    async fn recycle(&self, name: &Name, life: Incarnation, short: String) -> Result<(), SubmitError> {
        let by = Asker::Part(short.into());
        let asked = self.handle.submit_by(by, Command::Recycle { name: name.clone(), life });
        time::timeout(PATIENCE, asked).await.unwrap_or(Err(SubmitError::Overloaded)).map(drop)
    }

    fn note(&self, name: &Name, life: Incarnation, what: &str) {
        let before = self.waiting().insert(name.clone(), (life, what.to_owned()));
        if before.is_none() {
            warn!(instance = %name, "{what}");
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Name, (Incarnation, String)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limits of an instance, if it has any.
fn limits(instance: &Instance) -> Option<Memory> {
    // Most have none, and need not be read.
    let spec = &instance.record().spec;
    let memory = spec.contains("\"memory\"").then(|| registry::spec(instance).memory)?;
    memory.is_limited().then_some(memory)
}

/// In the host's local time.
fn minute_of_day() -> u16 {
    let time = jiff::Zoned::now().time();
    u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs())
}
