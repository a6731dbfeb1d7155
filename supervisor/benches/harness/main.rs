//! Measures the supervisor against its targets, beside the floor and the tools that people use today.
//!
//! ```text
//! cargo bench -p openclaw-supervisor                               every row
//! cargo bench -p openclaw-supervisor -- --only restart,failover    some of them
//! cargo bench -p openclaw-supervisor -- --markdown                 the table as it stands in the README
//! ```
//!
//! `--runs N` is how often a row is measured (rows that start a whole fleet take a fifth of it), `--instances N`
//! how large that fleet is, `--idle SECONDS` how long it is watched doing nothing, `--no-build` takes the programs
//! in `target/dist` as they are.
//!
//! It measures the programs as `deploy/build` makes them and as users run them: real processes, the real socket,
//! time taken from outside. Nothing here is a test: the exit status is 0 even when a target is missed, and 1 only
//! when a row could not be measured. Quiet machines give good figures; the load is printed with them. s6, runit
//! and daemontools are measured when they are on PATH. A C compiler makes the child, a static program that binds
//! its port and does nothing else.

mod bench;
mod child;
mod floor;
mod guard;
mod host;
mod machine;
mod peers;
mod processes;
mod rows;
mod stats;
mod table;
mod watch;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use crate::{
    bench::Bench,
    guard::Guarded,
    table::{Format, Table},
};

/// What `cargo bench -- …` takes.
#[derive(Debug, Parser)]
#[command(name = "harness", about = "Measures the supervisor against its targets")]
pub(crate) struct Arguments {
    /// Measure these rows only.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = rows::names())]
    only: Vec<String>,
    /// How often a row is measured; those that start a whole fleet take a fifth of it.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Instances of a whole fleet.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    instances: u32,
    /// How long the CPU of an idle fleet is watched.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    idle: u32,
    /// Print the table as Markdown.
    #[arg(long)]
    markdown: bool,
    /// Measure what is in target/dist; do not build first.
    #[arg(long)]
    no_build: bool,
    /// Given by `cargo bench`, and not by `cargo test --benches`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        eprintln!("Nothing to test here; `cargo bench` measures.");
        return ExitCode::SUCCESS;
    }
    match guard::enter() {
        Ok(Guarded::Ended(code)) => code,
        Ok(Guarded::Inside(directory)) => measure(&arguments, directory).unwrap_or_else(|error| fail(&error)),
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn measure(arguments: &Arguments, directory: std::path::PathBuf) -> anyhow::Result<ExitCode> {
    let bench = Bench::prepare(arguments, directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the client's runtime")?;
    let mut table = Table::new(machine::describe());
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let mut code = ExitCode::SUCCESS;
    for row in rows::ALL.iter().filter(|row| wanted(row.name)) {
        eprintln!("{}: {}", row.name, row.what);
        let outcome = runtime.block_on((row.measure)(&bench));
        processes::end_all();
        match outcome {
            Ok(lines) => table.extend(lines),
            Err(error) => {
                eprintln!("{}: {error:#}", row.name);
                table.not_measured(row.what, &error);
                code = ExitCode::FAILURE;
            }
        }
    }
    let format = if arguments.markdown { Format::Markdown } else { Format::Text };
    table.print(format).context("failed to print the table")?;
    Ok(code)
}
