//! `openclawctl ports`: every block, every derived port, who holds it, who squats on it.

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{ListPortsRequest, ListPortsResponse};

use crate::{
    complete,
    context::{Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::{
        json::{Encoder, Encoding},
        ports,
    },
};

const EXAMPLES: &str = "\
Examples:
  openclawctl ports         every block, and who listens on each of its ports
  openclawctl ports rescue  only rescue's";

/// Show every port block, and who holds each port
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ports {
    /// Only this instance's
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    name: Option<String>,
}

/// Shows the ports.
pub(crate) async fn run(args: &Ports, context: &Context) -> Result<(), Failure> {
    let operation = match &args.name {
        Some(name) => Operation::on("list the ports of", name),
        None => Operation::new("list the ports"),
    };
    let supervisor = context.connect(&operation).await?;
    let request = ListPortsRequest { name: args.name.clone().unwrap_or_default() };
    let answer =
        supervisor.call(&operation, async || supervisor.system().list_ports(request.clone()).await).await?;
    Ok(show(context, &answer, &operation)?)
}

fn show(context: &Context, answer: &ListPortsResponse, operation: &Operation) -> Result<(), Error> {
    match context.show {
        Show::Text(breadth) => context.print(operation, &ports::text(&answer.instances, breadth)),
        Show::Encoded(encoding @ (Encoding::Json | Encoding::Yaml)) => {
            context.print_message(operation, encoding, "ListPortsResponse", answer)
        }
        Show::Encoded(Encoding::JsonLines) => {
            let encode = || -> Result<String, Cause> {
                let encoder = Encoder::new(Encoding::JsonLines)?;
                answer.instances.iter().map(|each| encoder.encode("InstancePorts", each)).collect()
            };
            let text = encode().map_err(|cause| cause.during(operation))?;
            context.print(operation, &text)
        }
    }
}
