//! `openclawctl doctor`: what is wrong with the fleet and its host, and what to type.

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{ExamineRequest, ExamineResponse, finding::Severity};

use crate::{
    complete,
    connect::request_id,
    context::{Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::{
        doctor,
        json::{Encoder, Encoding},
    },
};

/// Each check is bounded by the supervisor, a hanging disk included; all of them come back within this.
const PATIENCE: Duration = Duration::from_secs(180);

const HELP: &str = "\
Checks directories, ports, configurations, credentials, files, locks, services
that would start a second copy, runtimes, and the host: clock, disks, limits.

--fix closes secrets that others can read, and removes locks of dead processes
and what was left over. It stops nothing and starts nothing.

Exit codes: 0 nothing worse than a note, 3 a warning or an error.

Examples:
  openclawctl doctor            the whole fleet, and the host
  openclawctl doctor rescue     only what concerns rescue
  openclawctl doctor --fix      mend what is safe to mend";

/// Find what is wrong with fleet and host, and what to type
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Doctor {
    /// Only what concerns these instances
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    names: Vec<String>,
    /// Mend what is safe to mend
    #[arg(long)]
    fix: bool,
}

/// Examines, and shows what is found.
pub(crate) async fn run(args: &Doctor, context: &Context) -> Result<(), Failure> {
    let operation = match args.names.as_slice() {
        [only] => Operation::on("examine", only),
        [] | [_, ..] => Operation::new("examine the fleet"),
    };
    let supervisor = context.connect(&operation).await?;
    let request = ExamineRequest { names: args.names.clone(), fix: args.fix, request_id: request_id() };
    let answer = supervisor
        .call_within(PATIENCE, &operation, async || supervisor.doctor().examine(request.clone()).await)
        .await?;
    show(context, &answer, &operation)?;
    let is_well = answer.findings.iter().all(|finding| match finding.severity() {
        Severity::Unspecified | Severity::Note => true,
        Severity::Warning | Severity::Error => false,
    });
    if is_well { Ok(()) } else { Err(Cause::Unwell.during(&operation).into()) }
}

fn show(context: &Context, answer: &ExamineResponse, operation: &Operation) -> Result<(), Error> {
    match context.show {
        Show::Text(_) => context.print(operation, &doctor::text(answer)),
        Show::Encoded(encoding @ (Encoding::Json | Encoding::Yaml)) => {
            context.print_message(operation, encoding, "ExamineResponse", answer)
        }
        Show::Encoded(Encoding::JsonLines) => {
            let encode = || -> Result<String, Cause> {
                let encoder = Encoder::new(Encoding::JsonLines)?;
                answer.findings.iter().map(|each| encoder.encode("Finding", each)).collect()
            };
            let text = encode().map_err(|cause| cause.during(operation))?;
            context.print(operation, &text)
        }
    }
}
