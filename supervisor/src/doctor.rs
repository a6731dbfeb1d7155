//! Examines the fleet and its host: what is shared that must not be, and what will be in the way of the next start.
//!
//! ```text
//!  view, specs ──► Scene ──► checks ──────────────► findings ──► safe fixes
//!                            a thread each, few at
//!                            a time, each bounded
//! ```
//!
//! The checks look at files and processes, which may hang (a dead network disk), so none of them runs on a thread
//! that anybody else needs, and none is waited for longer than [`LIMIT`]. One that still hangs is told as such, and
//! is not begun again before it has come back. What a check looks at is bounded by its budget.

mod certificates;
mod configs;
mod custody;
pub(crate) mod declared;
mod files;
mod finding;
mod fix;
mod ground;
mod host;
mod locks;
mod paths;
mod ports;
mod runtimes;
mod scene;
pub(crate) mod services;
mod walls;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use supervisor_core::ids::Name;
use tokio::{
    sync::{Mutex as Turns, OwnedMutexGuard as Turn, oneshot},
    time::{Instant, timeout},
};
use tracing::{info, warn};

use scene::Budget;

pub(crate) use finding::{Finding, Mend, Mended, Severity};
pub(crate) use scene::{Listening, Patient, Scene};

/// How long a check is waited for. They take milliseconds where disks answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A program that is asked for a line has this long.
const ASK: Duration = Duration::from_secs(5);

/// After this a check ends by itself, so that what it has found is told.
const ENOUGH: Duration = Duration::from_secs(8);

/// Files and directories that one check looks at: some hundred for each of a hundred instances.
const FILES: u32 = 50_000;

/// Checks at a time: supervision needs the processors, too.
const AT_ONCE: usize = 2;

/// Findings of one check that are told. When everything is wrong, the first ones say enough.
const MOST: usize = 200;

/// Of them, findings about one instance.
const MOST_OF_ONE: usize = 20;

/// A look at one thing.
type Check = fn(&Scene, &Budget) -> Vec<Finding>;

/// All checks, by what they look at.
const CHECKS: &[(&str, Check)] = &[
    ("directories of instances", paths::shared),
    ("directories and the supervisor's", paths::supervisors),
    ("directories and other profiles", paths::strangers),
    ("links", paths::links),
    ("holders of ports", ports::squatters),
    ("ephemeral ports", ports::ephemeral),
    ("port pool", ports::pool),
    ("ports in configurations", ports::declared),
    ("browsers", ports::browsers),
    ("configurations", configs::refused),
    ("channel credentials", configs::tokens),
    ("certificates", certificates::ending),
    ("the supervisor's own files", custody::own),
    ("modes of files", files::open),
    ("owners of files", files::foreign),
    ("leftovers of writes", files::leftovers),
    ("locks", locks::stale),
    ("the place of locks", locks::squatted),
    ("run directories", locks::run_directories),
    ("systemd units", services::units),
    ("launch agents", services::agents),
    ("crontabs", services::crontabs),
    ("other gateways", services::processes),
    ("runtimes", runtimes::missing),
    ("Node versions", runtimes::node),
    ("lingering", host::linger),
    ("clock", host::clock),
    ("disks", host::disks),
    ("limits", host::limits),
    ("walls", walls::missing),
    ("memory", walls::out_of_memory),
    ("walls of the kernel", walls::kernel),
    ("paths behind walls", walls::outside),
];

/// Whether anything is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing is.
    Look,
    /// What is safe to mend is mended.
    Fix,
}

/// What an examination comes to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What is wrong still, the worst first.
    pub(crate) findings: Vec<Finding>,
    /// What was mended.
    pub(crate) mended: Vec<Mended>,
    /// How many checks were made to their end.
    pub(crate) checks_done: usize,
}

/// Examines, one caller at a time. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doctor {
    turns: Arc<Turns<()>>,
    /// Checks that have not come back.
    away: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Doctor {
    /// Waits until no other caller has something examined.
    pub(crate) async fn turn(&self) -> Turn<()> {
        Arc::clone(&self.turns).lock_owned().await
    }

    /// Makes every check in this [`turn`](Self::turn).
    pub(crate) async fn examine(&self, _turn: Turn<()>, scene: Scene, mode: Mode) -> Outcome {
        self.examine_with(CHECKS, LIMIT, scene, mode).await
    }

    async fn examine_with(
        &self,
        checks: &[(&'static str, Check)],
        limit: Duration,
        scene: Scene,
        mode: Mode,
    ) -> Outcome {
        let scene = Arc::new(scene);
        let mut made = Vec::with_capacity(checks.len());
        for &(name, check) in checks {
            made.push(self.clone().make(name, check, limit, Arc::clone(&scene), mode));
        }
        let mut outcomes = stream::iter(made).buffer_unordered(AT_ONCE);
        let mut all = Outcome::default();
        while let Some(one) = outcomes.next().await {
            all.findings.extend(one.findings);
            all.mended.extend(one.mended);
            all.checks_done += one.checks_done;
        }
        sort(&mut all);
        all
    }

    /// Makes one check on a thread of its own, and waits for it within bounds.
    async fn make(
        self,
        name: &'static str,
        check: Check,
        limit: Duration,
        scene: Arc<Scene>,
        mode: Mode,
    ) -> Outcome {
        let is_back = self.away.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        if !is_back {
            return unanswered(name);
        }
        let (done, outcome) = oneshot::channel();
        let away = Arc::clone(&self.away);
        let until = (Instant::now() + limit.min(ENOUGH)).into_std();
        let begun = thread::Builder::new().name("doctor".into()).spawn(move || {
            let outcome = run(name, check, &scene, &Budget::new(until, FILES), mode);
            away.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            // The caller may have given up.
            let _ = done.send(outcome);
        });
        if let Err(error) = begun {
            warn!(%error, check = name, "failed to begin a check");
            self.away.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            return unanswered(name);
        }
        match timeout(limit, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Err(_) => unanswered(name),
            // It panicked.
            Ok(Err(_)) => {
                self.away.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                unanswered(name)
            }
        }
    }
}

/// The worst first, and of two that say one thing about one place, the one that says more.
fn sort(outcome: &mut Outcome) {
    const GENERAL: &str = "config.refused";
    let told: BTreeSet<_> = outcome
        .findings
        .iter()
        .filter(|finding| finding.id != GENERAL)
        .filter_map(|finding| Some((finding.file.clone()?, finding.place?)))
        .collect();
    outcome.findings.retain(|finding| {
        let place = finding.file.clone().zip(finding.place);
        finding.id != GENERAL || !place.is_some_and(|place| told.contains(&place))
    });
    outcome.findings.sort_by(|a, b| {
        (Reverse(a.severity), a.id, &a.instances, &a.what).cmp(&(
            Reverse(b.severity),
            b.id,
            &b.instances,
            &b.what,
        ))
    });
    outcome.mended.sort_by(|a, b| (a.id, &a.instances, &a.what).cmp(&(b.id, &b.instances, &b.what)));
}

fn run(name: &'static str, check: Check, scene: &Scene, budget: &Budget, mode: Mode) -> Outcome {
    let mut outcome = Outcome { checks_done: 1, ..Outcome::default() };
    let found = check(scene, budget).into_iter().filter(|finding| is_wanted(scene, finding));
    let (found, more) = fairly(found);
    outcome.findings.extend(more.into_iter().map(|(instance, more)| {
        let what = format!("the check of {name} has {more} more to say of `{instance}`");
        let why = "one instance with much that is wrong is not to hide what is wrong with others";
        let mend = Mend::Do("mend what is told, and ask again".to_owned());
        Finding::new("doctor.incomplete", Severity::Note, what, why, mend).of(&instance)
    }));
    for finding in found.into_iter().take(MOST) {
        match mode {
            Mode::Look => outcome.findings.push(finding),
            Mode::Fix => mend(finding, &mut outcome),
        }
    }
    if budget.is_spent() {
        let what = format!("the check of {name} has not looked at everything");
        let why = "there is more than a check looks at, or the disk is slow";
        let mend = Mend::Do("ask for one instance at a time: openclawctl doctor NAME".to_owned());
        outcome.findings.push(Finding::new("doctor.incomplete", Severity::Note, what, why, mend));
    }
    outcome
}

/// The first few of each instance, the first of all of them first, and how many more there are of which.
fn fairly(found: impl Iterator<Item = Finding>) -> (Vec<Finding>, BTreeMap<Name, usize>) {
    let (mut kept, mut told) = (BTreeMap::<usize, Vec<Finding>>::new(), BTreeMap::<Name, usize>::new());
    for finding in found {
        // The first is whose file it is in.
        let of = finding.instances.first().map_or(0, |name| {
            let told = told.entry(name.clone()).or_default();
            *told += 1;
            *told
        });
        if of <= MOST_OF_ONE {
            kept.entry(of).or_default().push(finding);
        }
    }
    let more = told.into_iter().filter_map(|(name, told)| {
        let more = told.checked_sub(MOST_OF_ONE).filter(|more| *more > 0)?;
        Some((name, more))
    });
    (kept.into_values().flatten().collect(), more.collect())
}

fn is_wanted(scene: &Scene, finding: &Finding) -> bool {
    scene.wanted.as_ref().is_none_or(|wanted| finding.instances.iter().any(|name| wanted.contains(name)))
}

/// Does what is safe. What could not be done stays a finding.
fn mend(mut finding: Finding, outcome: &mut Outcome) {
    if finding.fixes.is_empty() {
        return outcome.findings.push(finding);
    }
    let mut left = Vec::new();
    for fix in std::mem::take(&mut finding.fixes) {
        match fix.apply() {
            Ok(()) => {
                let (id, instances, what) = (finding.id, finding.instances.clone(), fix.done());
                info!(id, %what, "mended");
                outcome.mended.push(Mended { id, instances, what });
            }
            Err(error) => left.push((fix, error)),
        }
    }
    if let Some((_, error)) = left.first() {
        finding.what = format!("{}; this could not be mended: {error}", finding.what);
        outcome.findings.push(finding);
    }
}

/// A check that did not come back in time.
fn unanswered(name: &str) -> Outcome {
    let what = format!("the check of {name} did not come back in time");
    let why = "a disk or a mount that it looks at hangs, and so may gateways that use it";
    let mend = Mend::Do("see at which mount `df` stops".to_owned());
    let finding = Finding::new("doctor.unanswered", Severity::Warning, what, why, mend);
    Outcome { findings: vec![finding], ..Outcome::default() }
}

#[cfg(test)]
mod tests;
