//! Runs the worlds of a range of seeds and says how fast.

use std::{env, process::ExitCode, time::Instant};

use supervisor_sim::{Tally, Trace, run};

const USAGE: &str = "usage: supervisor-sim --seeds FIRST..END    runs the worlds of these seeds
       supervisor-sim --seed N             runs one and, if it fails, prints its end";

/// Seeds between two lines of progress.
const PROGRESS: u64 = 10_000;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let range = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--seeds", range] => {
            range.split_once("..").and_then(|(first, end)| Some((first.parse().ok()?, end.parse().ok()?)))
        }
        ["--seed", seed] => seed.parse::<u64>().ok().and_then(|seed| Some((seed, seed.checked_add(1)?))),
        _ => None,
    };
    let Some((first, end)) = range else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let mut tally = Tally::default();
    for seed in first..end {
        match run(seed, Trace::Off) {
            Ok(one) => tally = tally.plus(one),
            Err(_) => {
                // The same world again, this time written down.
                if let Err(failure) = run(seed, Trace::On) {
                    eprintln!("{failure}");
                }
                return ExitCode::FAILURE;
            }
        }
        if (seed + 1 - first).is_multiple_of(PROGRESS) {
            summary(seed + 1 - first, tally, began);
        }
    }
    summary(end.saturating_sub(first), tally, began);
    ExitCode::SUCCESS
}

fn summary(seeds: u64, tally: Tally, began: Instant) {
    let Tally { events, actions, launches, deaths, failovers } = tally;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{seeds} worlds in {seconds:.1} s: {events} events ({:.0} per second), {actions} actions, {launches} launches, \
         {failovers} failovers, {deaths} deaths of the supervisor; all well",
        events as f64 / seconds
    );
}
