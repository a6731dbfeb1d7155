//! `openclawctl export`.

use clap::Args;
use supervisor_proto::v1::ExportFleetRequest;

use crate::{
    context::{Context, Show},
    error::{Failure, Operation},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl export > fleet.yaml              keep it, change it …
  openclawctl apply -f fleet.yaml --dry-run    … and see what the change would do";

/// Print the running fleet as a fleet file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {}

/// Prints the fleet file.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("export the fleet");
    let supervisor = context.connect(&operation).await?;
    let answer = supervisor
        .call(&operation, async || supervisor.fleet().export_fleet(ExportFleetRequest {}).await)
        .await?;
    match context.show {
        Show::Text(_) => context.print_data(&operation, &answer.content)?,
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "ExportFleetResponse", &answer)?;
        }
    }
    Ok(())
}
