//! `openclawctl audit`: who changed what, and who was refused.

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{ListAuditRequest, ListAuditResponse};

use crate::{
    complete,
    context::{Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::{
        audit,
        json::{Encoder, Encoding},
        style::talk_wrapped,
        time::before_now,
    },
};

const EXAMPLES: &str = "\
Every call that changes something is recorded before it is carried out, and
every call that is refused for want of a right. It takes the role admin to read.

Examples:
  openclawctl audit                       the last 50, the newest first
  openclawctl audit main --since 1d       what was done to main, and from inside it
  openclawctl audit --caller alice        what alice did, or tried to
  openclawctl audit --method StopInstance -o wide
                                          who stopped what, from where";

/// Show who changed what, and who was refused
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Audit {
    /// Only what was done to this instance, or from inside it
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    name: Option<String>,
    /// This many of the last ones
    #[arg(short, long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(i32).range(1..=1000))]
    number: i32,
    /// Only what was done in this last time, e.g. 2h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Only of this user, certificate or token file, or from inside this instance
    #[arg(long, value_name = "WHO")]
    caller: Option<String>,
    /// Only calls of this method, e.g. StopInstance
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
}

/// Shows it.
pub(crate) async fn run(args: &Audit, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("read the audit");
    let supervisor = context.connect(&operation).await?;
    let request = ListAuditRequest {
        page_size: args.number,
        page_token: String::new(),
        instance: args.name.clone().unwrap_or_default(),
        caller: args.caller.clone().unwrap_or_default(),
        method: args.method.clone().unwrap_or_default(),
        since: args.since.map(before_now),
        until: None,
    };
    let answer =
        supervisor.call(&operation, async || supervisor.audit().list_audit(request.clone()).await).await?;
    Ok(show(context, &answer, &operation)?)
}

fn show(context: &Context, answer: &ListAuditResponse, operation: &Operation) -> Result<(), Error> {
    if answer.missing > 0 {
        let told = format!("warning: {} calls are missing: the audit cannot be written", answer.missing);
        talk_wrapped(&told);
    }
    match context.show {
        Show::Text(breadth) => context.print(operation, &audit::list(&answer.entries, breadth)),
        Show::Encoded(encoding @ (Encoding::Json | Encoding::Yaml)) => {
            context.print_message(operation, encoding, "ListAuditResponse", answer)
        }
        Show::Encoded(Encoding::JsonLines) => {
            let encode = || -> Result<String, Cause> {
                let encoder = Encoder::new(Encoding::JsonLines)?;
                answer.entries.iter().map(|each| encoder.encode("AuditEntry", each)).collect()
            };
            let text = encode().map_err(|cause| cause.during(operation))?;
            context.print(operation, &text)
        }
    }
}
