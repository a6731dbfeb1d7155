//! The command line.

use std::{
    io::{self, Write as _},
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};

use crate::{Error, Header, Outcome, Scribe, Setup, Show, Tally, Trace, kind_of, run, shrink};

/// Seeds that a thread takes at a time: some tens of milliseconds.
const TAKE: u64 = 32;

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Of so many worlds that show the same, the shortest is written down.
const SHORTEST_OF: usize = 8;

/// Failing seeds after which a run ends. Each is printed at once.
const FAILURES: u64 = 10;

#[derive(Debug, Parser)]
#[command(name = "supervisor-sim", about = "The supervisor's core in simulated worlds")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run the worlds of many seeds, or one, and say how fast.
    Run {
        /// The seeds: FIRST..END.
        #[arg(long, value_parser = range, required_unless_present = "seed")]
        seeds: Option<Range<u64>>,
        /// One seed; its faults are printed first.
        #[arg(long, conflicts_with = "seeds")]
        seed: Option<u64>,
        /// Threads; as many as there are cores unless said.
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Write a world down as JSON lines.
    Trace {
        /// A seed.
        seed: u64,
    },
    /// Run a trace again and compare.
    Replay {
        /// The trace.
        file: PathBuf,
        /// Write it anew as it goes now.
        #[arg(long)]
        update: bool,
    },
    /// Print a world, happening by happening.
    Step {
        /// A trace or a seed.
        world: String,
        /// From this second on.
        #[arg(long, default_value_t = 0.0)]
        from: f64,
        /// Up to this second.
        #[arg(long, default_value_t = f64::INFINITY)]
        to: f64,
        /// Wait for Enter after each event.
        #[arg(long)]
        wait: bool,
    },
    /// Make a world smaller that fails, or that tells a story, and write it as JSON lines.
    Shrink {
        /// A trace, a seed, or seeds to look through: FIRST..END.
        world: String,
        /// It still has to tell this, one after the other, and to end well; `!…` must not come before the next.
        #[arg(long)]
        telling: Vec<String>,
        /// The story in one line.
        #[arg(long, default_value = "")]
        title: String,
    },
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parse = || {
        let (first, end) = text.split_once("..")?;
        Some(first.parse().ok()?..end.parse().ok()?)
    };
    parse().ok_or_else(|| format!("`{text}` should read like 0..1000"))
}

/// Reads the arguments and does what they say. Exit status: 0 all well, 1 something failed, 2 wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Run { seed: Some(seed), .. } => Ok(run_one(seed)),
        What::Run { seeds, jobs, .. } => Ok(run_many(seeds.unwrap_or(0..0), jobs)),
        What::Trace { seed } => write(&Trace::of(header(Setup::draw(seed))).0).map(|()| true),
        What::Replay { file, update } => replay(&file, update),
        What::Step { world, from, to, wait } => step(&world, from..to, wait),
        What::Shrink { world, telling, title } => make_smaller(&world, &telling, &title),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let source = std::error::Error::source(&error);
            eprintln!("{error}{}", source.map(|source| format!(": {source}")).unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn header(setup: Setup) -> Header {
    Header { title: String::new(), setup }
}

fn run_one(seed: u64) -> bool {
    let setup = Setup::draw(seed);
    println!("{} names; {}", setup.instances, setup.faults);
    let outcome = run(&setup, Scribe::Idle);
    println!("{}", summary(outcome.tally));
    told(seed, &outcome)
}

/// Says how a world failed, if it did.
fn told(seed: u64, outcome: &Outcome) -> bool {
    let Some(violation) = &outcome.violation else { return true };
    println!("seed {seed} fails after {:?}: {violation}", outcome.lasted);
    println!("  to see it: supervisor-sim step {seed}; to make it smaller: supervisor-sim shrink {seed}");
    false
}

fn summary(tally: Tally) -> String {
    let Tally { happenings, events, actions, launches, deaths, failovers } = tally;
    format!(
        "{happenings} happenings, {events} of them told to core, {actions} actions, {launches} launches, {failovers} failovers, {deaths} deaths of the \
         supervisor"
    )
}

/// What the threads of a run share.
struct Shared {
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    tally: Mutex<Tally>,
    failed: AtomicU64,
}

fn run_many(seeds: Range<u64>, jobs: Option<usize>) -> bool {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let jobs = jobs.unwrap_or_else(cores).max(1);
    let shared = Shared {
        next: AtomicU64::new(seeds.start),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        tally: Mutex::default(),
        failed: AtomicU64::new(0),
    };
    let began = Instant::now();
    thread::scope(|scope| {
        let work: Vec<_> = (0..jobs).map(|_| scope.spawn(|| work(&shared, seeds.end))).collect();
        let mut said = Instant::now();
        while !work.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::park_timeout(Duration::from_millis(50));
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                progress(&shared, began, jobs);
            }
        }
    });
    progress(&shared, began, jobs);
    let failed = shared.failed.load(Ordering::Relaxed);
    if failed == 0 {
        println!("all well");
    }
    failed == 0
}

fn work(shared: &Shared, end: u64) {
    loop {
        let first = shared.next.fetch_add(TAKE, Ordering::Relaxed);
        if first >= end || shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let mut tally = Tally::default();
        for seed in first..end.min(first + TAKE) {
            let outcome = run(&Setup::draw(seed), Scribe::Idle);
            tally = tally.plus(outcome.tally);
            if !told(seed, &outcome) {
                let failed = shared.failed.fetch_add(1, Ordering::Relaxed) + 1;
                shared.stop.fetch_or(failed >= FAILURES, Ordering::Relaxed);
            }
            shared.done.fetch_add(1, Ordering::Relaxed);
        }
        let mut sum = shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = sum.plus(tally);
    }
}

fn progress(shared: &Shared, began: Instant, jobs: usize) {
    let tally = *shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = shared.failed.load(Ordering::Relaxed);
    let (done, seconds) = (shared.done.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    println!(
        "{done} worlds in {seconds:.1} s, {:.0} happenings per second on {jobs} threads; {failed} failed; {}",
        tally.happenings as f64 / seconds,
        summary(tally)
    );
}

fn write(trace: &Trace) -> Result<(), Error> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = trace.write(&mut out).and_then(|()| out.flush());
    written.map_err(|source| Error::File { path: "standard output".into(), source })
}

fn replay(path: &std::path::Path, update: bool) -> Result<bool, Error> {
    let before = Trace::read(path)?;
    let (again, differs) = before.replay();
    if update {
        let file = |source| Error::File { path: path.into(), source };
        let mut to = io::BufWriter::new(std::fs::File::create(path).map_err(file)?);
        again.write(&mut to).and_then(|()| to.flush()).map_err(file)?;
        return Ok(true);
    }
    let Some(place) = differs else {
        println!("{} lines, all the same", again.lines.len());
        return Ok(true);
    };
    let line = |trace: &Trace| trace.lines.get(place).map_or("nothing".into(), ToString::to_string);
    println!("line {} differs\nbefore: {}\nnow:    {}", place + 2, line(&before), line(&again));
    Ok(false)
}

/// The world of a trace or of a seed.
fn world(text: &str) -> Result<Header, Error> {
    match text.parse() {
        Ok(seed) => Ok(header(Setup::draw(seed))),
        Err(_) => Trace::read(text.as_ref()).map(|trace| trace.header),
    }
}

fn step(text: &str, span: Range<f64>, wait: bool) -> Result<bool, Error> {
    let header = world(text)?;
    println!("{} names; {}", header.setup.instances, header.setup.faults);
    for injection in header.setup.kept.iter().flatten() {
        println!("kept: {injection}");
    }
    let (trace, outcome) = Trace::of(header);
    for line in trace.lines {
        if line.at.parse().is_ok_and(|at: f64| span.contains(&at)) {
            println!("{line}");
            if wait && !matches!(line.what, crate::What::Action(_)) {
                // Whatever is typed goes on to the next.
                let _ = io::stdin().read_line(&mut String::new());
            }
        }
    }
    Ok(outcome.violation.is_none())
}

fn make_smaller(text: &str, telling: &[String], title: &str) -> Result<bool, Error> {
    let candidates: Vec<Setup> = match range(text) {
        Ok(seeds) => seeds.map(Setup::draw).collect(),
        Err(_) => vec![world(text)?.setup],
    };
    let smaller = candidates.iter().filter_map(|setup| {
        let show = if telling.is_empty() {
            Show::Failure(kind_of(&run(setup, Scribe::Idle))?)
        } else {
            Show::Story(telling.to_vec())
        };
        let setup = shrink(setup, &show)?;
        Some(Trace::of(Header { title: title.into(), setup }).0)
    });
    match smaller.take(SHORTEST_OF).min_by_key(|trace| trace.lines.len()) {
        Some(trace) => write(&trace).map(|()| true),
        None => {
            eprintln!("none of these worlds shows it");
            Ok(false)
        }
    }
}
