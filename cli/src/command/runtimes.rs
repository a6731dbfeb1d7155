//! `openclawctl runtimes`: the versions of OpenClaw that are installed side by side.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueHint};
use supervisor_proto::v1::{
    InstallRuntimeRequest, ListRuntimesRequest, ListUpgradesRequest, PruneRuntimesRequest,
};

use super::upgrade::source;
use crate::{
    connect::{Supervisor, request_id},
    context::{Context, Show},
    error::{Error, Failure, Operation},
    render::{style::talk, upgrade},
};

/// npm downloads some 650 MB, perhaps over a slow line.
const PATIENCE: Duration = Duration::from_secs(4_000);

const HELP: &str = "\
Examples:
  openclawctl runtimes                   what is installed, and who is pinned to it
  openclawctl runtimes install 2026.9.6  aside, from npm; no instance changes
  openclawctl runtimes prune             remove what nobody is pinned to or came from";

/// List, install and remove versions of OpenClaw
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Runtimes {
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What to do with them.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Install a version aside
    Install {
        /// The version, or a tag of npm's such as `latest`
        version: String,
        /// A program, package directory or .tgz to take it from, instead of npm's registry
        #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        from: Option<PathBuf>,
    },
    /// Remove the versions that no instance is pinned to or came from
    Prune,
}

/// Lists, installs or removes.
pub(crate) async fn run(args: &Runtimes, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new(match &args.verb {
        None => "list the runtimes".to_owned(),
        Some(Verb::Install { version, .. }) => format!("install OpenClaw {version}"),
        Some(Verb::Prune) => "remove unused runtimes".to_owned(),
    });
    let supervisor = context.connect(&operation).await?;
    let done = match &args.verb {
        None => list(context, &supervisor, &operation).await,
        Some(Verb::Install { version, from }) => match source(from.as_deref(), &operation) {
            Ok(from) => install(context, &supervisor, &operation, (version, from)).await,
            Err(error) => Err(error),
        },
        Some(Verb::Prune) => prune(context, &supervisor, &operation).await,
    };
    Ok(done?)
}

async fn list(context: &Context, supervisor: &Supervisor, operation: &Operation) -> Result<(), Error> {
    let call = async || supervisor.upgrade().list_runtimes(ListRuntimesRequest {}).await;
    let runtimes = supervisor.call(operation, call).await?;
    match context.show {
        Show::Encoded(encoding) => {
            context.print_message(operation, encoding, "ListRuntimesResponse", &runtimes)
        }
        Show::Text(_) => {
            let call = async || supervisor.upgrade().list_upgrades(ListUpgradesRequest {}).await;
            let upgrades = supervisor.call(operation, call).await?;
            context.print(operation, &upgrade::list(&runtimes.runtimes, &upgrades.upgrades))
        }
    }
}

async fn install(
    context: &Context,
    supervisor: &Supervisor,
    operation: &Operation,
    (version, from): (&str, String),
) -> Result<(), Error> {
    let request = InstallRuntimeRequest { version: version.to_owned(), from, request_id: request_id() };
    let call = async || supervisor.upgrade().install_runtime(request.clone()).await;
    let answer = supervisor.call_within(PATIENCE, operation, call).await?;
    match context.show {
        Show::Encoded(encoding) => {
            context.print_message(operation, encoding, "InstallRuntimeResponse", &answer)
        }
        Show::Text(_) => {
            let version = answer.runtime.map(|runtime| runtime.version).unwrap_or_default();
            let done = if answer.unchanged { "was installed already" } else { "is installed" };
            talk(&format!("OpenClaw {version} {done}"));
            Ok(())
        }
    }
}

async fn prune(context: &Context, supervisor: &Supervisor, operation: &Operation) -> Result<(), Error> {
    let request = PruneRuntimesRequest { request_id: request_id() };
    let call = async || supervisor.upgrade().prune_runtimes(request.clone()).await;
    let answer = supervisor.call_within(PATIENCE, operation, call).await?;
    match context.show {
        Show::Encoded(encoding) => {
            context.print_message(operation, encoding, "PruneRuntimesResponse", &answer)
        }
        Show::Text(_) => {
            for version in &answer.versions {
                talk(&format!("removed OpenClaw {version}"));
            }
            if answer.versions.is_empty() {
                talk("every version is in use");
            }
            Ok(())
        }
    }
}
