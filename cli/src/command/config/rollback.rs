//! `openclawctl config rollback`: an older configuration in place of the present one.

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{RollBackRequest, RollBackResponse, Wish};
use tonic::Request;

use crate::{
    command::verb,
    complete,
    connect::{Supervisor, request_id},
    context::{Consent, Context, Show},
    error::{Error, Operation},
    render::{
        config::short,
        style::{clause, printable, talk_wrapped},
    },
    view,
    wait::{Effort, Patience, WaitArgs},
};

const EXAMPLES: &str = "\
What was there is kept beside it and as a snapshot. A running gateway is stopped
first and started anew.

Examples:
  openclawctl config rollback main          to the newest good one not in place
  openclawctl config rollback main 5f1d     to this one
  openclawctl config rollback main --yes    without a question, for scripts";

/// Put an older configuration in place; asks first
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RollBack {
    /// The instance
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    name: String,
    /// Which [default: the newest good one that is not in place]
    #[arg(add = ArgValueCompleter::new(complete::snapshots))]
    snapshot: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Rolls back. What is agreed to is what is done: the snapshot is chosen before the question.
pub(super) async fn run(args: &RollBack, context: &Context) -> Result<(), Error> {
    let operation = Operation::on("roll back", &args.name);
    let supervisor = context.connect(&operation).await?;
    let to = args.snapshot.clone().unwrap_or_default();
    let plan = RollBackRequest { name: args.name.clone(), to, validate_only: true, ..Default::default() };
    let plan = ask(&supervisor, &plan, Patience::None, &operation).await?;
    Consent::from_flag(args.yes).obtain(&intent(&args.name, &plan), &operation)?;
    let patience = args.wait.patience(Effort::Stop);
    let request = RollBackRequest {
        name: args.name.clone(),
        to: plan.to,
        wait: patience != Patience::None,
        request_id: request_id(),
        validate_only: false,
    };
    let answer = ask(&supervisor, &request, patience, &operation).await?;
    let instances: Vec<_> = answer.instance.clone().into_iter().collect();
    match context.show {
        Show::Text(_) => {
            talk_wrapped(&outcome(&args.name, &answer, request.wait));
            verb::show(context, &instances, answer.revision, &operation)
        }
        Show::Encoded(encoding) => context.print_message(&operation, encoding, "RollBackResponse", &answer),
    }
}

async fn ask(
    supervisor: &Supervisor,
    request: &RollBackRequest,
    patience: Patience,
    operation: &Operation,
) -> Result<RollBackResponse, Error> {
    let send = |request: Request<RollBackRequest>| async { supervisor.configs().roll_back(request).await };
    match patience {
        Patience::None => {
            supervisor.call(operation, async || send(Request::new(request.clone())).await).await
        }
        Patience::Until(patience) => {
            // The supervisor answers before it is over; who does not answer even then is not there.
            let deadline = patience.saturating_add(patience / 10).saturating_add(verb::TRAVEL);
            let call = async || {
                let mut request = Request::new(request.clone());
                request.set_timeout(patience);
                send(request).await
            };
            supervisor.call_within(deadline, operation, call).await
        }
    }
}

/// What would be done.
fn intent(name: &str, plan: &RollBackResponse) -> String {
    let kept = match plan.kept_in.as_str() {
        "" => String::new(),
        path => format!(", keep what is there in {}TIME", printable(path)),
    };
    let wished_up = plan.instance.as_ref().is_some_and(|instance| view::status(instance).wish() == Wish::Up);
    let restart = if wished_up { ", and restart it" } else { "" };
    let to = short(&plan.to);
    let what = match plan.from.as_str() {
        from if from == plan.to => format!("leave {to} in place as the configuration of {name}{restart}"),
        "" => format!("make {to} the configuration of {name}{restart}"),
        from => {
            let from = short(from);
            format!("put {to} in place of {from} as the configuration of {name}{kept}{restart}")
        }
    };
    match &plan.rejection {
        Some(rejection) => {
            format!("{what}, though {to} was taken back before: {}", clause(&rejection.reason))
        }
        None => what,
    }
}

/// What was done.
fn outcome(name: &str, answer: &RollBackResponse, waited: bool) -> String {
    let to = short(&answer.to);
    let kept = match (answer.kept_in.as_str(), waited) {
        ("", _) => String::new(),
        (path, true) => format!("; what was there is kept in {}", printable(path)),
        (path, false) => format!("; what is there will be kept in {}TIME", printable(path)),
    };
    let done = if waited { "rolled back" } else { "to be rolled back" };
    format!("{name}: {done} to {to}{kept}")
}
