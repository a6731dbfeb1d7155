//! `openclawctl incidents` and `openclawctl incident`: what went wrong, from its beginning to its end.

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{GetIncidentRequest, ListIncidentsRequest, ListIncidentsResponse};

use crate::{
    complete,
    context::{Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::{
        incident,
        json::{Encoder, Encoding},
    },
};

const EXAMPLES: &str = "\
A failover opens an incident, and so does an instance that is given up.

Examples:
  openclawctl incidents                    the last 20, the newest first
  openclawctl incidents --instance main    only main's
  openclawctl incident 1234                all that is known of one";

const EXAMPLES_OF_ONE: &str = "\
Examples:
  openclawctl incident 1234            timeline, rollbacks, the end of the log
  openclawctl incident 1234 -o json    the same for programs";

/// List what went wrong
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Incidents {
    /// This many of the last ones
    #[arg(short, long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(i32).range(1..=1000))]
    number: i32,
    /// Only what happened to this instance
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    instance: Option<String>,
}

/// Show all that is known of one incident
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES_OF_ONE)]
pub(crate) struct Incident {
    /// Its number
    #[arg(value_name = "N")]
    number: u64,
}

/// Lists incidents.
pub(crate) async fn list(args: &Incidents, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("list the incidents");
    let supervisor = context.connect(&operation).await?;
    let request = ListIncidentsRequest {
        page_size: args.number,
        page_token: String::new(),
        instance: args.instance.clone().unwrap_or_default(),
    };
    let answer = supervisor
        .call(&operation, async || supervisor.incidents().list_incidents(request.clone()).await)
        .await?;
    Ok(show(context, &answer, &operation)?)
}

fn show(context: &Context, answer: &ListIncidentsResponse, operation: &Operation) -> Result<(), Error> {
    match context.show {
        Show::Text(_) => context.print(operation, &incident::list(&answer.incidents)),
        Show::Encoded(encoding @ (Encoding::Json | Encoding::Yaml)) => {
            context.print_message(operation, encoding, "ListIncidentsResponse", answer)
        }
        Show::Encoded(Encoding::JsonLines) => {
            let encode = || -> Result<String, Cause> {
                let encoder = Encoder::new(Encoding::JsonLines)?;
                answer.incidents.iter().map(|each| encoder.encode("Incident", each)).collect()
            };
            let text = encode().map_err(|cause| cause.during(operation))?;
            context.print(operation, &text)
        }
    }
}

/// Shows one.
pub(crate) async fn one(args: &Incident, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new(format!("read incident {}", args.number));
    let supervisor = context.connect(&operation).await?;
    let request = GetIncidentRequest { number: args.number };
    let answer =
        supervisor.call(&operation, async || supervisor.incidents().get_incident(request).await).await?;
    match context.show {
        Show::Text(breadth) => context.print(&operation, &incident::one(&answer, breadth))?,
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "GetIncidentResponse", &answer)?;
        }
    }
    Ok(())
}
