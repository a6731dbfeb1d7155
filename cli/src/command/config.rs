//! `openclawctl config`: what an instance's configuration file holds and held, and the way back.

mod rollback;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{
    CreateSnapshotRequest, DiffSnapshotRequest, ListSnapshotsRequest, MarkGoodRequest, Snapshot,
};

use crate::{
    complete,
    connect::request_id,
    context::{Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::{
        config,
        json::{Encoder, Encoding},
        style::{clause, talk, talk_wrapped},
    },
};

const EXAMPLES: &str = "\
The supervisor keeps each content of openclaw.json that it sees, and puts the
last good one back when a start fails on another. A snapshot is called by 4 or
more of its digits.

Examples:
  openclawctl config snapshots main        what is kept, and which of it is good
  openclawctl config diff main             the last good one against the file
  openclawctl config rollback main         back to the last good one
  openclawctl config mark-good main 9e3c   as if it had proven good
  openclawctl config snapshot main -m \"before the upgrade\"";

/// Snapshots of an instance's configuration, and the way back
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Snapshots(Snapshots),
    Snapshot(Create),
    Diff(Diff),
    Rollback(rollback::RollBack),
    MarkGood(MarkGood),
}

/// List what is kept, the newest first
#[derive(Debug, Args)]
struct Snapshots {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    name: String,
}

/// Keep what the file holds now, with a note
#[derive(Debug, Args)]
struct Create {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    name: String,
    /// Why it is kept
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

/// Show what differs, without secrets
#[derive(Debug, Args)]
struct Diff {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    name: String,
    /// The old side [default: the last good one]
    #[arg(add = ArgValueCompleter::new(complete::snapshots))]
    from: Option<String>,
    /// The new side [default: the file as it is now]
    #[arg(add = ArgValueCompleter::new(complete::snapshots))]
    to: Option<String>,
}

/// Say that a configuration is good: the one to go back to
#[derive(Debug, Args)]
struct MarkGood {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    name: String,
    /// Which [default: what the file holds now]
    #[arg(add = ArgValueCompleter::new(complete::snapshots))]
    snapshot: Option<String>,
}

/// Does what was asked of a configuration.
pub(crate) async fn run(args: &Config, context: &Context) -> Result<(), Failure> {
    match &args.command {
        Command::Snapshots(args) => snapshots(args, context).await?,
        Command::Snapshot(args) => create(args, context).await?,
        Command::Diff(args) => diff(args, context).await?,
        Command::Rollback(args) => rollback::run(args, context).await?,
        Command::MarkGood(args) => mark_good(args, context).await?,
    }
    Ok(())
}

async fn snapshots(args: &Snapshots, context: &Context) -> Result<(), Error> {
    let operation = Operation::on("list the snapshots of", &args.name);
    let supervisor = context.connect(&operation).await?;
    let request = ListSnapshotsRequest { name: args.name.clone(), ..Default::default() };
    let answer = supervisor
        .call(&operation, async || supervisor.configs().list_snapshots(request.clone()).await)
        .await?;
    match context.show {
        Show::Text(_) => context.print(&operation, &config::snapshots(&args.name, &answer)),
        Show::Encoded(encoding @ (Encoding::Json | Encoding::Yaml)) => {
            context.print_message(&operation, encoding, "ListSnapshotsResponse", &answer)
        }
        Show::Encoded(Encoding::JsonLines) => {
            let lines = |snapshots: &[Snapshot]| -> Result<String, Cause> {
                let encoder = Encoder::new(Encoding::JsonLines)?;
                snapshots.iter().map(|each| encoder.encode("Snapshot", each)).collect()
            };
            let text = lines(&answer.snapshots).map_err(|cause| cause.during(&operation))?;
            context.print(&operation, &text)
        }
    }
}

async fn create(args: &Create, context: &Context) -> Result<(), Error> {
    let operation = Operation::on("keep the configuration of", &args.name);
    let supervisor = context.connect(&operation).await?;
    let (name, note) = (args.name.clone(), args.note.clone());
    let request = CreateSnapshotRequest { name, note, request_id: request_id() };
    let answer = supervisor
        .call(&operation, async || supervisor.configs().create_snapshot(request.clone()).await)
        .await?;
    match context.show {
        Show::Text(_) => {
            let id = answer.snapshot.as_ref().map_or("", |snapshot| &snapshot.id);
            context.print(&operation, &format!("kept as {}\n", config::short(id)))
        }
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "CreateSnapshotResponse", &answer)
        }
    }
}

async fn diff(args: &Diff, context: &Context) -> Result<(), Error> {
    let operation = Operation::on("compare configurations of", &args.name);
    let supervisor = context.connect(&operation).await?;
    let request = DiffSnapshotRequest {
        name: args.name.clone(),
        from: args.from.clone().unwrap_or_default(),
        to: args.to.clone().unwrap_or_default(),
    };
    let answer = supervisor
        .call(&operation, async || supervisor.configs().diff_snapshot(request.clone()).await)
        .await?;
    match context.show {
        Show::Text(_) => {
            context.print(&operation, &config::diff(&answer.diff))?;
            if answer.diff.is_empty() {
                let what = if args.to.is_none() { "the file holds " } else { "both are " };
                talk(&format!("nothing differs: {what}{}", config::short(&answer.from)));
            }
            if !answer.problem.is_empty() {
                let told = format!("{}: {}", config::BROKEN, clause(&answer.problem));
                talk_wrapped(&told);
            }
            Ok(())
        }
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "DiffSnapshotResponse", &answer)
        }
    }
}

async fn mark_good(args: &MarkGood, context: &Context) -> Result<(), Error> {
    let operation = Operation::on("mark a configuration as good of", &args.name);
    let supervisor = context.connect(&operation).await?;
    let request = MarkGoodRequest {
        name: args.name.clone(),
        snapshot: args.snapshot.clone().unwrap_or_default(),
        request_id: request_id(),
    };
    let answer =
        supervisor.call(&operation, async || supervisor.configs().mark_good(request.clone()).await).await?;
    match context.show {
        Show::Text(_) => {
            let id = config::short(&answer.snapshot);
            context.print(&operation, &format!("{}: {id} is good: the one to go back to\n", args.name))
        }
        Show::Encoded(encoding) => context.print_message(&operation, encoding, "MarkGoodResponse", &answer),
    }
}
