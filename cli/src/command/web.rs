//! `openclawctl web`.

use clap::Args;
use supervisor_proto::v1::CreateLinkRequest;

use crate::{
    context::{Context, Show},
    error::{Failure, Operation},
    render::{
        style::{printable, talk},
        time::until,
    },
};

const EXAMPLES: &str = "\
Examples:
  openclawctl web                                    print a link, and open it
  ssh -L 18780:127.0.0.1:18780 HOST openclawctl web  from another host

The dashboard may do what you may, and is served only if the supervisor is told
to: `web: \"127.0.0.1:18780\"` in its settings, or --web.";

/// Print a link that opens the dashboard in a browser, once
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Web {}

/// Asks for a link.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("open the dashboard");
    let supervisor = context.connect(&operation).await?;
    let answer = supervisor
        .call(&operation, async || supervisor.web().create_link(CreateLinkRequest {}).await)
        .await?;
    match context.show {
        Show::Text(_) => {
            context.print(&operation, &format!("{}\n", printable(&answer.url)))?;
            let expires = answer.expire_time.as_ref().map(until).unwrap_or_default();
            talk(&format!("whoever opens it has your rights; it works once, and expires {expires}"));
            talk("Safari does not know such names: put localhost in its place there");
        }
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "CreateLinkResponse", &answer)?;
        }
    }
    Ok(())
}
