//! `openclawctl apply`: plan, show, ask, do, wait.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use clap::{Args, ValueHint};
use supervisor_proto::v1::{
    ApplyFleetRequest, ApplyFleetResponse, FleetChange, GetInstanceRequest, fleet_change::Kind,
};

use super::{
    fleet_error,
    verb::{self, few},
};
use crate::{
    connect::{Supervisor, request_id},
    context::{Consent, Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::{
        plan,
        style::{print, talk},
    },
    wait::{Effort, Patience, WaitArgs},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl apply -f fleet.yaml --dry-run   show what would be done
  openclawctl apply -f fleet.yaml             do it, and wait until all is ready
  openclawctl apply -f fleet.yaml --prune     also remove what the file does not name, after asking
  generate | openclawctl apply -f - --yes     the file from standard input";

/// The longest fleet file that the supervisor takes.
const MAX_FILE: u64 = 1 << 20;

/// Make the fleet what a file says
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Apply {
    /// The fleet file; - is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Only show the plan
    #[arg(long)]
    dry_run: bool,
    /// Remove the instances that the file does not name; asks first
    #[arg(long)]
    prune: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Neither start new instances nor restart changed ones
    #[arg(long)]
    no_start: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Applies a fleet file.
pub(crate) async fn run(args: &Apply, context: &Context) -> Result<(), Failure> {
    let file_name = if is_stdin(args) { "<stdin>".to_owned() } else { args.file.display().to_string() };
    let operation = Operation::new(format!("apply {file_name}"));
    let content = read(args, &file_name).map_err(|cause| cause.during(&operation))?;
    let supervisor = context.connect(&operation).await?;
    let mut request = ApplyFleetRequest {
        content,
        file_name,
        validate_only: true,
        prune: args.prune,
        start: !args.no_start,
        wait: false,
        request_id: request_id(),
    };
    let planned = apply(&supervisor, &request, &operation).await?;
    if args.dry_run {
        return Ok(show(context, &planned, &operation)?);
    }
    if let Show::Text(_) = context.show {
        show(context, &planned, &operation)?;
    }
    let doomed: Vec<&str> = of_kind(&planned.changes, Kind::Delete).collect();
    if !doomed.is_empty() {
        let what = format!("stop and remove {}", few(&doomed));
        Consent::from_flag(args.yes).obtain(&what, &operation)?;
    }
    request.validate_only = false;
    request.request_id = request_id();
    let done = apply(&supervisor, &request, &operation).await?;
    if let Show::Encoded(_) = context.show {
        show(context, &done, &operation)?;
    }
    if done.changes != planned.changes {
        talk("the fleet had changed meanwhile; what was done differs from the plan above:");
        print(&plan::text(&done.changes)).map_err(|error| Cause::Output(error).during(&operation))?;
    }
    outcome(args, context, &supervisor, &done).await
}

/// Waits for what was created or changed.
async fn outcome(
    args: &Apply,
    context: &Context,
    supervisor: &Supervisor,
    done: &ApplyFleetResponse,
) -> Result<(), Failure> {
    let patience = if args.no_start { Patience::None } else { args.wait.patience(Effort::Stop) };
    let names: Vec<String> = of_kind(&done.changes, Kind::Create)
        .chain(of_kind(&done.changes, Kind::Update))
        .map(str::to_owned)
        .collect();
    if names.is_empty() || patience == Patience::None {
        return Ok(());
    }
    let answers = verb::ask_all(&names, async |name| {
        let operation = Operation::on("read the status of", name);
        let request = GetInstanceRequest { name: name.to_owned() };
        let answer = supervisor
            .call(&operation, async || supervisor.instances().get_instance(request.clone()).await)
            .await?;
        verb::target(answer.instance, done.revision, &operation)
    })
    .await;
    match context.show {
        Show::Text(_) => {
            context.print(&Operation::new("show the instances"), "\n")?;
            verb::finish(context, supervisor, "bring up", answers, patience).await
        }
        // The answer has been printed; what is left is the exit code.
        Show::Encoded(_) => {
            Failure::from_all(verb::settle(supervisor, "bring up", answers, patience).await.errors)
        }
    }
}

fn is_stdin(args: &Apply) -> bool {
    args.file.as_os_str() == "-"
}

fn read(args: &Apply, name: &str) -> Result<String, Cause> {
    let failed = |source| Cause::ReadFile { name: name.to_owned(), source };
    let mut bytes = Vec::new();
    if is_stdin(args) {
        io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let file = File::open(&args.file).map_err(failed)?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(Cause::FileTooLong { limit: MAX_FILE });
    }
    String::from_utf8(bytes).map_err(|_| Cause::FileEncoding)
}

async fn apply(
    supervisor: &Supervisor,
    request: &ApplyFleetRequest,
    operation: &Operation,
) -> Result<ApplyFleetResponse, Error> {
    supervisor
        .call(operation, async || supervisor.fleet().apply_fleet(request.clone()).await)
        .await
        .map_err(|error| fleet_error::explain(error, &request.file_name, &request.content))
}

fn show(context: &Context, answer: &ApplyFleetResponse, operation: &Operation) -> Result<(), Error> {
    match context.show {
        Show::Encoded(encoding) => context.print_message(operation, encoding, "ApplyFleetResponse", answer),
        Show::Text(_) => context.print(operation, &plan::text(&answer.changes)),
    }
}

fn of_kind(changes: &[FleetChange], kind: Kind) -> impl Iterator<Item = &str> {
    changes.iter().filter(move |change| change.kind() == kind).map(|change| change.instance.as_str())
}
