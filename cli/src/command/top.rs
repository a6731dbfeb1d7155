//! `openclawctl top`.

use std::env;

use clap::Args;

use crate::{
    context::{Context, Show},
    error::{Cause, Failure, Operation},
    top::{self, Look},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl top                  the fleet, trouble first; ? tells all keys
  openclawctl top --context lab    that of another supervisor
  openclawctl top --color never    without colours, as with NO_COLOR

It needs a terminal of 20x5 or more. q leaves; whatever runs goes on.";

/// Watch the fleet on a full screen
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {}

/// Shows the fleet until somebody leaves.
pub(crate) async fn run(_: &Top, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("show the fleet");
    let cannot = |why| Failure::from(Cause::NoScreen(why).during(&operation));
    match context.show {
        Show::Text(_) => {}
        Show::Encoded(_) => return Err(cannot("a full screen is for people, and has no such output")),
    }
    if !top::is_there() {
        return Err(cannot("it needs a terminal, for input and for output"));
    }
    if env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return Err(cannot("this terminal says that it is dumb ($TERM)"));
    }
    let supervisor = context.connect(&operation).await?;
    Ok(top::run(supervisor, Look::of_stdout(context.marks), &operation).await?)
}
