//! Chaos on real processes: a seeded monkey breaks things, and afterwards nothing may be lost.
//!
//! ```text
//! cargo test -p openclaw-supervisor --test chaos                                       a short run
//! cargo test -p openclaw-supervisor --test chaos -- --for 2m --seed 7 --instances 50   what CI runs
//! cargo test -p openclaw-supervisor --test chaos -- --for 30m                          by hand
//! ```
//!
//! ```text
//!   guard ── holds the disk (a tmpfs) and reaps; when the run has ended, nothing it started may be alive
//!     └─ run
//!          place ── the supervisor, its data directory, its ports
//!          fleet ── instances: singles, primaries with warm and cold rescues, gateways that flood
//!          ┌──────────────────── round after round, as long as asked ────────────────────┐
//!          │ storm    the monkey kills, stops, squats, deletes, corrupts, fills and calls  │
//!          │ calm     it undoes what it did; all that is wanted has to come back by itself │
//!          │ audit    processes, exits, events, ports, descriptors, memory, complaints     │
//!          └──────────────────────────────────────────────────────────────────────────────┘
//!          witness ── follows the event journal throughout, over every death of the supervisor
//! ```
//!
//! The seed decides what the monkey does and in which order; whom it meets is decided by real time, so a seed
//! repeats the kind of weather, not each drop. Every act is a line of `acts.jsonl` in the run's directory, which
//! is kept and named when a run fails, together with the supervisor's log and the data directory.

mod api;
mod arguments;
mod audit;
mod calm;
mod exits;
mod fleet;
mod flood;
mod guard;
mod ledger;
mod monkey;
mod place;
mod processes;
mod run;
mod witness;
mod wounds;

use std::process::ExitCode;

use arguments::Asked;
use guard::Guarded;

fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> anyhow::Result<ExitCode> {
    match arguments::parse(std::env::args().skip(1))? {
        Asked::Flood { port } => flood::run(port),
        Asked::Nothing => Ok(ExitCode::SUCCESS),
        Asked::List => {
            println!("chaos: test");
            Ok(ExitCode::SUCCESS)
        }
        Asked::Run(arguments) => match guard::enter(&arguments)? {
            Guarded::Ended(code) => Ok(code),
            Guarded::Inside(directory) => run::run(&arguments, directory).map(|()| ExitCode::SUCCESS),
        },
    }
}
