//! `openclawctl up`.

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::StartInstanceRequest;

use super::verb::{self, Answer, few};
use crate::{
    complete,
    connect::{Supervisor, Way, request_id},
    context::Context,
    daemon,
    error::{Cause, Error, Failure, Operation},
    render::style::talk,
    wait::{Effort, WaitArgs},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl up                 every known instance; `main` if none is known yet
  openclawctl up main rescue     these two, created from defaults if they are not known
  openclawctl up main --no-wait  return as soon as the wish is recorded";

/// What a fleet begins with.
const FIRST: &str = "main";

/// Start instances; starts a supervisor if none is listening
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Up {
    /// The instances; all if none is named
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    names: Vec<String>,
    /// Fail if no supervisor is listening, instead of starting one
    #[arg(long)]
    no_autostart: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Whether a missing supervisor is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Autostart {
    Allowed,
    Refused,
}

/// Starts instances.
pub(crate) async fn run(args: &Up, context: &Context) -> Result<(), Failure> {
    let operation = match args.names.as_slice() {
        [] => Operation::new("start the fleet"),
        names => Operation::new(format!("start {}", few(names))),
    };
    let autostart = if args.no_autostart { Autostart::Refused } else { Autostart::Allowed };
    let supervisor = connect(context, autostart, &operation).await?;
    let names = if args.names.is_empty() { all(&supervisor, &operation).await? } else { args.names.clone() };
    // One after the other: new instances get their ports in the order of their names here.
    let mut answers = Vec::with_capacity(names.len());
    for name in &names {
        answers.push(start(&supervisor, name).await);
    }
    verb::finish(context, &supervisor, "start", answers, args.wait.patience(Effort::Start)).await
}

/// Connects, and starts a supervisor first if none is listening.
pub(super) async fn connect(
    context: &Context,
    autostart: Autostart,
    operation: &Operation,
) -> Result<Supervisor, Error> {
    let target = context.target(operation)?;
    let Way::Here(place) = &target.way else { return context.connect(operation).await };
    if let Some((supervisor, _)) = daemon::answering(place).await {
        return Ok(supervisor);
    }
    match Supervisor::connect(&target).await {
        // A supervisor of ours would listen elsewhere than on a socket named apart from its directory.
        Err(Cause::NoListener { .. }) if autostart == Autostart::Allowed && place.may_start() => {
            daemon::start(place, operation).await
        }
        outcome => outcome.map_err(|cause| cause.during(operation)),
    }
}

async fn all(supervisor: &Supervisor, operation: &Operation) -> Result<Vec<String>, Error> {
    let (instances, _) = supervisor.list(operation).await?;
    let names: Vec<String> = instances.into_iter().map(|instance| instance.name).collect();
    Ok(if names.is_empty() { vec![FIRST.to_owned()] } else { names })
}

async fn start(supervisor: &Supervisor, name: &str) -> Answer {
    let operation = Operation::on("start", name);
    let request = StartInstanceRequest {
        name: name.to_owned(),
        allow_missing: true,
        wait: false,
        request_id: request_id(),
    };
    let answer = supervisor
        .call(&operation, async || supervisor.instances().start_instance(request.clone()).await)
        .await?;
    if answer.created {
        talk(&format!("{name}: created from defaults"));
    }
    verb::target(answer.instance, answer.revision, &operation)
}
