//! A run: a fleet, storms and calms, and the end of everything.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::process::{getpid, getppid};
use supervisor_core::rng::Rng;

use crate::{
    api::{Outcome, Verb},
    arguments::Arguments,
    audit::Figures,
    calm::until,
    exits::Tally,
    fleet::{self, Member},
    guard,
    ledger::Ledger,
    monkey::Monkey,
    place::{self, Place},
    processes,
    witness::Witness,
};

/// A storm lasts this long at most: long enough for every fault to meet every other, short enough for what is
/// found to be near its cause.
const STORM: Duration = Duration::from_secs(20);

/// The longest that the first start of a fleet may take, or its end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a run came to.
#[derive(Debug, Default)]
struct Summary {
    rounds: u32,
    slowest: Duration,
    before: Figures,
    figures: Figures,
    tally: Tally,
}

/// Runs it all.
pub(crate) fn run(arguments: &Arguments, directory: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the callers' runtime")?;
    runtime.block_on(chaos(arguments, directory))
}

async fn chaos(arguments: &Arguments, directory: PathBuf) -> anyhow::Result<()> {
    let mut rng = Rng::new(arguments.seed);
    let fleet = fleet::plan(arguments.instances, &mut rng);
    announce(arguments, &fleet, &directory);
    let ledger = Ledger::begin(&directory)?;
    let mut place = Place::prepare(directory)?;
    place.start_supervisor()?;
    let mut monkey = begin(rng, place, ledger, fleet).await?;
    let known = monkey.api.events(0).await?;
    let witness = Witness::start(monkey.api.clone(), known);
    let outcome = weather(arguments, &mut monkey, &witness).await;
    let resumed = witness.seen().resumed;
    drop(witness);
    if let Err(error) = &outcome {
        eprintln!("FAILED after {:.1} s: {error:#}", monkey.ledger.elapsed().as_secs_f64());
    }
    let summary = outcome?;
    end(&mut monkey).await?;
    print(&monkey, &summary, resumed);
    Ok(())
}

fn announce(arguments: &Arguments, fleet: &[Member], directory: &Path) {
    let Arguments { span, seed, instances } = arguments;
    let count = |what: &str| fleet.iter().filter(|member| member.name.starts_with(what)).count();
    println!("seed {seed}: {instances} instances, {} of chaos", humantime::format_duration(*span));
    println!(
        "fleet: {} singles, {} primaries with as many rescues ({} cold), {} that flood",
        count("single"),
        count("main"),
        fleet.iter().filter(|member| member.is_cold()).count(),
        count("flood"),
    );
    if !guard::is_mounted(&directory.join(guard::DISK)) {
        println!("note: no disk can be mounted here, which takes root, so none is filled");
    }
    println!(
        "plan: storms of up to {STORM:?}, a calm and an audit after each; from half-time on the supervisor is stopped and\n      starved, but not killed, so that what it leaks adds up; then all is ended"
    );
    println!(
        "again: cargo test -p openclaw-supervisor --test chaos -- --for {}s --seed {seed} --instances {instances}",
        span.as_secs()
    );
    println!("acts: {}", directory.join("acts.jsonl").display());
}

/// A fleet that is up.
async fn begin(rng: Rng, place: Place, ledger: Ledger, fleet: Vec<Member>) -> anyhow::Result<Monkey> {
    let api = crate::api::Api::new(place.data_dir.join("control.sock"));
    until("the first supervisor answers", PATIENCE, async || Ok(api.info().await.map_err(|e| e.to_string())))
        .await?;
    let mut monkey = Monkey::new(rng, place, ledger, fleet)?;
    for member in &monkey.fleet {
        let made = api.create(&member.name, member.spec()?).await?;
        let status = made.status.context("an instance without a status")?;
        let base = status.ports.context("an instance without ports")?.base;
        monkey.ports.insert(member.name.clone(), u16::try_from(base)?);
        let config = status.directories.context("an instance without directories")?.config;
        monkey.configs.insert(member.name.clone(), config.into());
        let outcome = api.verb(&member.name, Verb::Up, PATIENCE).await;
        ensure!(outcome == Outcome::Done, "`{}` could not be started: {outcome:?}", member.name);
    }
    monkey.calm().await.context("the fleet did not come up before anything was broken")?;
    Ok(monkey)
}

/// Storms and calms until the time is over.
async fn weather(arguments: &Arguments, monkey: &mut Monkey, witness: &Witness) -> anyhow::Result<Summary> {
    let (baseline, figures) = monkey.baseline().await?;
    let mut summary = Summary { before: figures, ..Summary::default() };
    let end = Instant::now() + arguments.span;
    let half = Instant::now() + arguments.span / 2;
    // At least one, however short the time.
    loop {
        summary.rounds += 1;
        let round = summary.rounds;
        monkey.spares_supervisor = Instant::now() > half;
        let until = (Instant::now() + STORM).min(end);
        monkey.storm(until).await?;
        let calm = monkey.calm().await.with_context(|| format!("in the calm of round {round}"))?;
        let audit = monkey.audit(&baseline, witness).await;
        let (figures, tally) = audit.with_context(|| format!("in the audit of round {round}"))?;
        summary.slowest = summary.slowest.max(calm.recovery);
        println!(
            "round {round}: {:.0} s, {} acts, {} lives, {} exits; all well {:.1} s after the last cure; supervisor {} KiB",
            monkey.ledger.elapsed().as_secs_f64(),
            monkey.ledger.acts.values().sum::<u64>(),
            tally.lives,
            tally.exits,
            calm.recovery.as_secs_f64(),
            figures.supervisor_memory / 1024,
        );
        (summary.figures, summary.tally) = (figures, tally);
        if Instant::now() >= end {
            return Ok(summary);
        }
    }
}

/// Ends everything, as an operator would; nothing may be alive after that.
async fn end(monkey: &mut Monkey) -> anyhow::Result<()> {
    let output = Command::new(place::program("openclawctl")?)
        .arg("--data-dir")
        .arg(&monkey.place.data_dir)
        .args(["supervisor", "stop", "--all", "--yes"])
        .stdin(Stdio::null())
        .output()
        .context("failed to run openclawctl")?;
    ensure!(
        output.status.success(),
        "`supervisor stop --all` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    monkey.place.wait_for_end(PATIENCE)?;
    // All that the run started is below the guard, whatever marks it has lost.
    let (guard, own) =
        (getppid().map_or(1, |pid| pid.as_raw_nonzero().get()), getpid().as_raw_nonzero().get());
    until("nothing is alive", PATIENCE, async || {
        let left: Vec<i32> = processes::descendants(guard, own);
        let left: Vec<String> = left.into_iter().map(processes::describe).collect();
        Ok(if left.is_empty() { Ok(()) } else { Err(left.join("; ")) })
    })
    .await
}

fn print(monkey: &Monkey, summary: &Summary, resumed: u64) {
    let Summary { rounds, slowest, before, figures, tally } = summary;
    println!();
    for (act, times) in &monkey.ledger.acts {
        println!("{times:>7}  {act}");
    }
    println!();
    println!(
        "{rounds} rounds; {} supervisors, {} of them killed",
        monkey.place.lives, monkey.ledger.supervisors_killed
    );
    println!(
        "{} lives, {} exits, {} failovers; the stream of events was taken up {resumed} times",
        tally.lives, tally.exits, tally.failovers
    );
    println!(
        "exits: {} as the monkey knows them, {} overtaken by an order, {} whose status nobody was left to learn; \
         {} lives that nobody had heard of",
        tally.confirmed, tally.overtaken, tally.unknown, tally.unheard,
    );
    println!("slowest recovery: {:.1} s after the last cure", slowest.as_secs_f64());
    println!("before: {before}");
    println!("after:  {figures}");
}
