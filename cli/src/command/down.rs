//! `openclawctl down`.

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{Instance, Phase, StopInstanceRequest, Wish};

use super::verb::{self, Answer, few};
use crate::{
    complete,
    connect::{Supervisor, request_id},
    context::{Consent, Context},
    error::{Failure, Operation},
    render::style::talk,
    view,
    wait::{Effort, WaitArgs},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl down rescue        stop one, as patiently as its `stop_grace` says
  openclawctl down --yes         stop all of them, without asking
  openclawctl down main --force  kill main and all its processes at once";

/// Stop instances gracefully
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Down {
    /// The instances; all if none is named, after asking
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    names: Vec<String>,
    /// Kill the whole process tree at once; interrupts what the gateway is doing
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Stops instances.
pub(crate) async fn run(args: &Down, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("stop the fleet");
    let supervisor = context.connect(&operation).await?;
    let mut names = args.names.clone();
    if names.is_empty() {
        let (instances, _) = supervisor.list(&operation).await?;
        names = instances
            .iter()
            .filter(|instance| is_up(instance))
            .map(|instance| instance.name.clone())
            .collect();
        if names.is_empty() {
            talk("no instance is up");
            return Ok(());
        }
        Consent::from_flag(args.yes).obtain(&format!("stop {}", few(&names)), &operation)?;
    }
    let answers = verb::ask_all(&names, async |name| stop(&supervisor, name, args.force).await).await;
    verb::finish(context, &supervisor, "stop", answers, args.wait.patience(Effort::Stop)).await
}

/// Whether stopping it would change anything.
fn is_up(instance: &Instance) -> bool {
    let status = view::status(instance);
    status.wish() != Wish::Down || status.phase() != Phase::Stopped
}

async fn stop(supervisor: &Supervisor, name: &str, force: bool) -> Answer {
    let operation = Operation::on("stop", name);
    let request = StopInstanceRequest { name: name.to_owned(), force, wait: false, request_id: request_id() };
    let answer = supervisor
        .call(&operation, async || supervisor.instances().stop_instance(request.clone()).await)
        .await?;
    verb::target(answer.instance, answer.revision, &operation)
}
