//! What the processes of instances use: processor, memory, how many they are.
//!
//! Looking costs some system calls a process, so it is done only for instances that somebody asks about, on a
//! thread that may block, and not again within a second. An instance's processes are the descendants of its
//! worker, which is their subreaper: nothing that a gateway starts can get out of that tree.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use supervisor_core::{
    ids::{Incarnation, Name},
    instance::Instance,
};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
    time::Instant,
};

/// A figure that somebody waits for is not looked at again within this.
const FRESH: Duration = Duration::from_secs(1);

/// One that nobody waits for is not looked at again within this: looking at a thousand instances takes a tenth of
/// a second.
const LAZY: Duration = Duration::from_secs(5);

/// Processes of one instance that are looked at. A gateway with more is not measured but endured.
const MOST_PROCESSES: usize = 1_000;

/// Growth is told from what was seen at least this far apart.
const SAMPLE_EVERY: Duration = Duration::from_secs(300);

/// So many of that: an hour.
const SAMPLES: usize = 12;

/// And from no less: the first minutes of a gateway's life are all growth.
const GROWTH_OVER: Duration = Duration::from_secs(600);

/// What an instance's processes use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    /// Of one core, in percent: since the last look, or, at the first look, since they were started.
    pub(crate) cpu_percent: f64,
    /// Processor time so far.
    pub(crate) cpu_ms: u64,
    /// Resident memory; what processes share counts for each.
    pub(crate) rss_bytes: u64,
    /// How fast that grows, in bytes an hour; `None` until it can be told.
    pub(crate) growth: Option<i64>,
    /// How many they are. The worker is not one of them.
    pub(crate) processes: u32,
}

/// An instance to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) name: Name,
    /// Its current life.
    pub(crate) incarnation: Incarnation,
    /// Its worker.
    pub(crate) worker_pid: i32,
}

impl Wanted {
    /// The processes of `instance`, if there are any.
    pub(crate) fn of(instance: &Instance) -> Option<Self> {
        let (name, incarnation) = (instance.name().clone(), instance.incarnation());
        Some(Self { name, incarnation, worker_pid: instance.process()?.worker_pid })
    }
}

/// What was seen at the last look.
#[derive(Debug, Clone)]
struct Seen {
    incarnation: Incarnation,
    at: Instant,
    figure: Figure,
    /// What was resident when, the oldest first.
    samples: VecDeque<(Instant, u64)>,
}

impl Seen {
    /// The next look at the same life as `last`, or the first.
    fn next(last: Option<Self>, incarnation: Incarnation, at: Instant, figure: Figure) -> Self {
        let last = last.filter(|last| last.incarnation == incarnation);
        let used = |last: &Self| figure.cpu_ms.saturating_sub(last.figure.cpu_ms);
        let cpu_percent = last.as_ref().map_or(figure.cpu_percent, |last| share(used(last), at - last.at));
        let mut samples = last.map(|last| last.samples).unwrap_or_default();
        if samples.back().is_none_or(|(newest, _)| at - *newest >= SAMPLE_EVERY) {
            if samples.len() == SAMPLES {
                samples.pop_front();
            }
            samples.push_back((at, figure.rss_bytes));
        }
        let growth = samples.front().and_then(|oldest| growth(*oldest, (at, figure.rss_bytes)));
        Self { incarnation, at, figure: Figure { cpu_percent, growth, ..figure }, samples }
    }
}

/// From one look to another, in bytes an hour.
fn growth((then, before): (Instant, u64), (now, rss): (Instant, u64)) -> Option<i64> {
    const HOUR: i128 = 3_600_000;
    let span = now - then;
    let grown = i128::from(rss) - i128::from(before);
    let hourly = (span >= GROWTH_OVER).then(|| grown * HOUR / span.as_millis().max(1).cast_signed())?;
    i64::try_from(hourly).ok()
}

/// The figures of all instances that anybody has asked about. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    seen: Arc<Mutex<HashMap<Name, Seen>>>,
    /// One look at a time.
    looking: Arc<Semaphore>,
}

impl Default for Figures {
    fn default() -> Self {
        Self { seen: Arc::default(), looking: Arc::new(Semaphore::new(1)) }
    }
}

impl Figures {
    /// What was seen of this life at the last look.
    #[must_use]
    pub(crate) fn known(&self, name: &Name, incarnation: Incarnation) -> Option<Figure> {
        self.lock().get(name).filter(|seen| seen.incarnation == incarnation).map(|seen| seen.figure)
    }

    /// Brings the figures of `wanted` up to date.
    pub(crate) async fn look(&self, wanted: Vec<Wanted>) {
        if self.stale(&wanted, FRESH).is_empty() {
            return;
        }
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(&self.looking).acquire_owned().await {
            self.look_with(permit, &wanted).await;
        }
    }

    /// Does so in the background, unless somebody is looking already.
    pub(crate) fn look_later(&self, wanted: Vec<Wanted>) {
        if self.stale(&wanted, LAZY).is_empty() {
            return;
        }
        if let Ok(permit) = Arc::clone(&self.looking).try_acquire_owned() {
            let figures = self.clone();
            task::spawn(async move { figures.look_with(permit, &wanted).await });
        }
    }

    async fn look_with(&self, permit: OwnedSemaphorePermit, wanted: &[Wanted]) {
        // Whoever had the permit before may have looked at the same.
        let stale = self.stale(wanted, FRESH);
        let seen = Arc::clone(&self.seen);
        let look = task::spawn_blocking(move || {
            let _permit = permit;
            for (wanted, figure) in look(&stale) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let last = seen.remove(&wanted.name);
                let next = Seen::next(last, wanted.incarnation, Instant::now(), figure);
                seen.insert(wanted.name, next);
            }
        });
        // It only fails when the process ends.
        let _ = look.await;
    }

    /// Forgets the instances that are not `known` any more.
    pub(crate) fn retain(&self, known: impl Fn(&Name) -> bool) {
        self.lock().retain(|name, _| known(name));
    }

    fn stale(&self, wanted: &[Wanted], age: Duration) -> Vec<Wanted> {
        let (seen, now) = (self.lock(), Instant::now());
        let fresh = |wanted: &&Wanted| {
            let last = seen.get(&wanted.name).filter(|last| last.incarnation == wanted.incarnation);
            last.is_some_and(|last| now - last.at < age)
        };
        wanted.iter().filter(|wanted| !fresh(wanted)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of one core, in percent.
fn share(cpu_ms: u64, span: Duration) -> f64 {
    let span_ms = span.as_secs_f64() * 1_000.0;
    if span_ms < 1.0 { 0.0 } else { 100.0 * cpu_ms as f64 / span_ms }
}

/// Looks at each instance: its figure with the average since its start.
fn look(wanted: &[Wanted]) -> Vec<(Wanted, Figure)> {
    let trees: Vec<Vec<Pid>> = wanted
        .iter()
        .map(|wanted| descendants(wanted.worker_pid).into_iter().map(Pid::from_u32).collect())
        .collect();
    let all: Vec<Pid> = trees.iter().flatten().copied().collect();
    // On Linux this cannot fail.
    let Ok(mut system) = System::new() else { return Vec::new() };
    let kind = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&all), true, kind);
    let each = wanted.iter().zip(trees).map(|(wanted, tree)| {
        let processes: Vec<_> = tree.iter().filter_map(|pid| system.process(*pid)).collect();
        let cpu_ms = processes.iter().map(|process| process.accumulated_cpu_time()).sum();
        let oldest = processes.iter().map(|process| process.run_time()).max().unwrap_or(0);
        let figure = Figure {
            cpu_percent: share(cpu_ms, Duration::from_secs(oldest.max(1))),
            cpu_ms,
            growth: None,
            rss_bytes: processes.iter().map(|process| process.memory()).sum(),
            processes: u32::try_from(processes.len()).unwrap_or(u32::MAX),
        };
        (wanted.clone(), figure)
    });
    each.collect()
}

/// What this process uses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Own {
    /// Processor time so far.
    pub(crate) cpu: Duration,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
}

/// Looks at this process. What cannot be learned is 0.
pub(crate) fn own() -> Own {
    let Ok(process) = sysinfo::get_current_pid() else { return Own::default() };
    let Ok(mut system) = System::new() else { return Own::default() };
    let kind = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), false, kind);
    let Some(found) = system.process(process) else { return Own::default() };
    Own {
        cpu: Duration::from_millis(found.accumulated_cpu_time()),
        rss_bytes: found.memory(),
        descriptors: found.open_files().and_then(|open| u64::try_from(open).ok()).unwrap_or(0),
    }
}

/// The processes that `pid` and its descendants have started and that are alive, in no order.
#[must_use]
pub(crate) fn descendants(pid: i32) -> HashSet<u32> {
    let mut found = HashSet::new();
    let mut open: Vec<u32> = u32::try_from(pid).into_iter().filter(|pid| *pid > 1).collect();
    while let Some(parent) = open.pop() {
        // A child belongs to the thread that started it.
        let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
                if found.len() < MOST_PROCESSES && found.insert(child) {
                    open.push(child);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that stands for a worker, with two children.
    struct Worker(Child);

    impl Worker {
        fn start() -> Self {
            let mut shell = Command::new("sh");
            let script = "sleep 600 & sleep 600 & echo ready; exec 1>&-; wait";
            let mut child = shell.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            let output = child.stdout.as_mut().unwrap();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
            Self(child)
        }

        fn wanted(&self, incarnation: u64) -> Wanted {
            let worker_pid = i32::try_from(self.0.id()).unwrap();
            Wanted { name: Name::new("main").unwrap(), incarnation: Incarnation(incarnation), worker_pid }
        }
    }

    impl Drop for Worker {
        fn drop(&mut self) {
            for child in descendants(i32::try_from(self.0.id()).unwrap()) {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(child).unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    async fn the_descendants_of_a_worker_are_counted_and_measured() {
        let worker = Worker::start();
        let figures = Figures::default();
        let wanted = worker.wanted(1);
        assert_eq!(figures.known(&wanted.name, wanted.incarnation), None);
        figures.look(vec![wanted.clone()]).await;
        let figure = figures.known(&wanted.name, wanted.incarnation).unwrap();
        assert_eq!(figure.processes, 2);
        assert!(figure.rss_bytes > 10_000, "{figure:?}");
        assert!((0.0..100.0).contains(&figure.cpu_percent), "{figure:?}");
    }

    #[tokio::test]
    async fn a_figure_of_an_earlier_life_is_not_shown() {
        let worker = Worker::start();
        let figures = Figures::default();
        figures.look(vec![worker.wanted(1)]).await;
        let name = worker.wanted(1).name;
        assert!(figures.known(&name, Incarnation(2)).is_none());
        figures.retain(|_| false);
        assert!(figures.known(&name, Incarnation(1)).is_none());
    }

    #[test]
    fn growth_is_told_over_an_hour_and_not_before_ten_minutes() {
        let (begun, life) = (Instant::now(), Incarnation(1));
        let figure = |mib: u64| Figure {
            cpu_percent: 0.0,
            cpu_ms: 0,
            rss_bytes: mib << 20,
            growth: None,
            processes: 1,
        };
        let mut seen = None;
        let mut at = |minutes: u64, mib: u64| {
            let now = begun + Duration::from_secs(60 * minutes);
            let next = Seen::next(seen.take(), life, now, figure(mib));
            let growth = next.figure.growth;
            seen = Some(next);
            growth.map(|growth| growth >> 20)
        };
        assert_eq!(at(0, 100), None);
        assert_eq!(at(9, 109), None);
        assert_eq!(at(10, 110), Some(60));
        assert_eq!(at(20, 90), Some(-30));
        (21..=59).for_each(|minutes| {
            at(minutes, 100);
        });
        // The steep beginning is forgotten after an hour of looks.
        (60..=120).for_each(|minutes| {
            at(minutes, 200);
        });
        assert_eq!(at(121, 200), Some(0));
        let anew = Seen::next(seen, Incarnation(2), begun + Duration::from_secs(9_000), figure(50));
        assert_eq!(anew.figure.growth, None);
    }

    #[test]
    fn nobody_descends_from_what_is_not_there() {
        assert!(descendants(0).is_empty());
        assert!(descendants(-1).is_empty());
        assert!(descendants(i32::MAX).is_empty());
    }
}
