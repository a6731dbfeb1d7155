//! `openclawctl failback`.

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::FailBackRequest;

use super::{
    failover::{primary, with_rescues},
    verb,
};
use crate::{
    complete,
    connect::request_id,
    context::Context,
    error::{Failure, Operation},
    wait::{Effort, Goal, Target, WaitArgs},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl failback               when only one instance has a rescue
  openclawctl failback --from main";

/// Give a primary its place back
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FailBack {
    /// The primary; need not be named if only one has a rescue
    #[arg(long, value_name = "PRIMARY", add = ArgValueCompleter::new(complete::instances))]
    from: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Fails back by hand.
pub(crate) async fn run(args: &FailBack, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("fail back");
    let supervisor = context.connect(&operation).await?;
    let primary = primary(&supervisor, args.from.as_deref(), &operation).await?;
    let operation = Operation::on("fail back", &primary);
    let request = FailBackRequest { primary, wait: false, request_id: request_id() };
    let answer =
        supervisor.call(&operation, async || supervisor.instances().fail_back(request.clone()).await).await?;
    let target = verb::target(answer.instance, answer.revision, &operation)?;
    let answers = with_rescues(&supervisor, Target { goal: Goal::InPlace, ..target }, &operation).await?;
    verb::finish(context, &supervisor, "fail back", answers, args.wait.patience(Effort::Stop)).await
}
