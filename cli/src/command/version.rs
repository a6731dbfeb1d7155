//! `openclawctl version`.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use supervisor_proto::v1::{GetInfoRequest, GetInfoResponse};

use crate::{
    connect::Supervisor,
    context::{Context, Show},
    error::{Error, Failure, Operation},
    render::{json, style::printable},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl version          of this program and of the supervisor
  openclawctl version -o json  the same for programs";

/// Print the versions of this program and the supervisor
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Version {}

/// Our own version is worth no long wait for the other's.
const DEADLINE: Duration = Duration::from_secs(2);
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Prints the versions.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("read the versions");
    let target = context.target(&operation)?;
    let info = match Supervisor::connect(&target).await {
        Ok(supervisor) => ask(&supervisor, &operation).await.map_err(|error| error.to_string()),
        Err(cause) => Err(cause.to_string()),
    };
    let text = match context.show {
        Show::Text(_) => {
            let supervisor = match &info {
                Ok(info) => format!("{} (pid {})", printable(&info.version), info.pid),
                Err(why) => format!("- ({})", printable(why)),
            };
            format!("openclawctl          {OWN}\nopenclaw-supervisor  {supervisor}\n")
        }
        Show::Encoded(encoding) => {
            let supervisor = info.ok().map(|info| info.version);
            let versions = json!({ "openclawctl": OWN, "supervisor": supervisor });
            json::text(encoding, &versions).map_err(|cause| cause.during(&operation))?
        }
    };
    Ok(context.print(&operation, &text)?)
}

async fn ask(supervisor: &Supervisor, operation: &Operation) -> Result<GetInfoResponse, Error> {
    supervisor
        .call_within(DEADLINE, operation, async || supervisor.system().get_info(GetInfoRequest {}).await)
        .await
}
