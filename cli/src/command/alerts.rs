//! `openclawctl alerts`: what is wrong, and who is told of it.

use clap::{Args, Subcommand};
use supervisor_proto::v1::{GetAlertsRequest, TestAlertsRequest};

use crate::{
    context::{Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::alerts,
};

const EXAMPLES: &str = "\
Who is told stands in the supervisor's settings, as `alerts.sinks`; after a
change, `openclawctl supervisor reload`. Each sink is told once when something
begins, once more if it becomes worse, and once when it is over.

Examples:
  openclawctl alerts                what is wrong, and how the sinks do
  openclawctl alerts test           tell all of them something now
  openclawctl alerts test phone     tell this one";

/// Show what is wrong, and who is told of it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Alerts {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell sinks something now, and say whether they took it
    Test(Test),
}

#[derive(Debug, Args)]
struct Test {
    /// Only these; all if there are none
    #[arg(value_name = "SINK")]
    sinks: Vec<String>,
}

/// Shows it, or tries them.
pub(crate) async fn run(args: &Alerts, context: &Context) -> Result<(), Failure> {
    match &args.command {
        None => show(context).await,
        Some(Command::Test(test)) => try_all(test, context).await,
    }
}

async fn show(context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("read the alerts");
    let supervisor = context.connect(&operation).await?;
    let answer = supervisor
        .call(&operation, async || supervisor.alerts().get_alerts(GetAlertsRequest {}).await)
        .await?;
    match context.show {
        Show::Text(_) => context.print(&operation, &alerts::list(&answer))?,
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "GetAlertsResponse", &answer)?;
        }
    }
    Ok(())
}

async fn try_all(test: &Test, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("test the alerts");
    let supervisor = context.connect(&operation).await?;
    let request = TestAlertsRequest { names: test.sinks.clone() };
    let answer =
        supervisor.call(&operation, async || supervisor.alerts().test_alerts(request.clone()).await).await?;
    match context.show {
        Show::Text(_) => context.print(&operation, &alerts::tested(&answer.outcomes))?,
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "TestAlertsResponse", &answer)?;
        }
    }
    let failed = answer.outcomes.iter().filter(|outcome| !outcome.failure.is_empty()).count();
    if failed == 0 {
        return Ok(());
    }
    let of = answer.outcomes.len();
    let reason =
        if of == 1 { "it was not taken".into() } else { format!("{failed} of {of} did not take it") };
    let hint = "mend the sink in settings.yaml, then `openclawctl supervisor reload`".into();
    let error: Error = Cause::Outcome { reason, hint }.during(&operation);
    Err(error.into())
}
