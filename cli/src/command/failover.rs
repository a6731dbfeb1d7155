//! `openclawctl failover`, and which primary is meant when none is named.

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{FailOverRequest, Instance};

use super::verb;
use crate::{
    complete,
    connect::{Supervisor, request_id},
    context::Context,
    error::{Cause, Error, Failure, Operation},
    view,
    wait::{Effort, Goal, Target, WaitArgs},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl failover                          when only one instance has a rescue
  openclawctl failover --from main --to rescue
  openclawctl failback                          the way back";

/// Make a rescue active in place of its primary, by hand
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FailOver {
    /// The primary; need not be named if only one has a rescue
    #[arg(long, value_name = "PRIMARY", add = ArgValueCompleter::new(complete::instances))]
    from: Option<String>,
    /// The rescue; the first that can if none is named
    #[arg(long, value_name = "RESCUE", add = ArgValueCompleter::new(complete::instances))]
    to: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Fails over by hand.
pub(crate) async fn run(args: &FailOver, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("fail over");
    let supervisor = context.connect(&operation).await?;
    let primary = primary(&supervisor, args.from.as_deref(), &operation).await?;
    let operation = Operation::on("fail over", &primary);
    let request = FailOverRequest {
        primary,
        rescue: args.to.clone().unwrap_or_default(),
        wait: false,
        request_id: request_id(),
    };
    let answer =
        supervisor.call(&operation, async || supervisor.instances().fail_over(request.clone()).await).await?;
    let target = verb::target(answer.instance, answer.revision, &operation)?;
    let answers = with_rescues(&supervisor, Target { goal: Goal::FailedOver, ..target }, &operation).await?;
    verb::finish(context, &supervisor, "fail over", answers, args.wait.patience(Effort::Start)).await
}

/// The primary that is meant: the one named, else the only one that has a rescue.
pub(super) async fn primary(
    supervisor: &Supervisor,
    named: Option<&str>,
    operation: &Operation,
) -> Result<String, Error> {
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    let (instances, _) = supervisor.list(operation).await?;
    let has_rescue = |instance: &&Instance| !view::failover(instance).rescued_by.is_empty();
    let mut primaries: Vec<String> =
        instances.iter().filter(has_rescue).map(|instance| instance.name.clone()).collect();
    match (primaries.pop(), primaries.is_empty()) {
        (None, _) => Err(Cause::NoRescue.during(operation)),
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            primaries.push(last);
            Err(Cause::SeveralPrimaries(primaries).during(operation))
        }
    }
}

/// The primary and, so that they are shown and waited for too, its rescues.
pub(super) async fn with_rescues(
    supervisor: &Supervisor,
    primary: Target,
    operation: &Operation,
) -> Result<Vec<verb::Answer>, Error> {
    let rescues = view::failover(&primary.instance).rescued_by.clone();
    let (instances, _) = supervisor.list(operation).await?;
    let revision = primary.revision;
    let rescue = |instance| Ok(Target { instance, revision, goal: Goal::Settled });
    let mut answers = vec![Ok(primary)];
    answers.extend(instances.into_iter().filter(|instance| rescues.contains(&instance.name)).map(rescue));
    Ok(answers)
}
