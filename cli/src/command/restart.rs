//! `openclawctl restart`.

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{Instance, RestartInstanceRequest};

use super::verb::{self, Answer, Outcome, few};
use crate::{
    complete,
    connect::{Supervisor, request_id},
    context::Context,
    error::{Cause, Failure, Operation},
    wait::{Effort, Patience, WaitArgs},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl restart main                 stop gracefully, start anew, wait until ready
  openclawctl restart a b c d --parallel 2 two at a time; stops at the first that fails
  openclawctl restart main --force         kill instead of a graceful stop";

/// Restart instances, one at a time
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Restart {
    /// The instances
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(complete::instances))]
    names: Vec<String>,
    /// How many at a time
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    parallel: u16,
    /// Kill instead of a graceful stop
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Restarts instances, a few at a time, and stops at the first failure: the rest keep running as they are.
pub(crate) async fn run(args: &Restart, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new(format!("restart {}", few(&args.names)));
    let supervisor = context.connect(&operation).await?;
    let patience = args.wait.patience(Effort::Stop);
    let at_once = match patience {
        Patience::None => args.names.len(),
        Patience::Until(_) => args.parallel.into(),
    };
    let mut instances: Vec<Instance> = Vec::new();
    let mut errors = Vec::new();
    let mut last_revision = 0;
    let mut rest = args.names.as_slice();
    while !rest.is_empty() && errors.is_empty() {
        let (now, later) = rest.split_at(at_once.min(rest.len()));
        rest = later;
        let answers = verb::ask_all(now, async |name| restart(&supervisor, name, args.force).await).await;
        let Outcome { instances: seen, revision, errors: wrong } =
            verb::settle(&supervisor, "restart", answers, patience).await;
        instances.extend(seen);
        errors.extend(wrong);
        last_revision = revision.max(last_revision);
    }
    errors.extend(rest.iter().map(|name| Cause::NotTried.during(&Operation::on("restart", name))));
    if !instances.is_empty() {
        verb::show(context, &instances, last_revision, &operation)?;
    }
    Failure::from_all(errors)
}

async fn restart(supervisor: &Supervisor, name: &str, force: bool) -> Answer {
    let operation = Operation::on("restart", name);
    let request =
        RestartInstanceRequest { name: name.to_owned(), force, wait: false, request_id: request_id() };
    let answer = supervisor
        .call(&operation, async || supervisor.instances().restart_instance(request.clone()).await)
        .await?;
    verb::target(answer.instance, answer.revision, &operation)
}
