//! `openclawctl rm`.

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::DeleteInstanceRequest;

use super::verb::few;
use crate::{
    complete,
    connect::{Supervisor, request_id},
    context::{Consent, Context},
    error::{Error, Failure, Operation},
    render::style::talk,
};

const EXAMPLES: &str = "\
Examples:
  openclawctl rm rescue           forget a stopped instance, and keep its data
  openclawctl rm rescue --purge   and delete the directories that were made for it";

/// Remove stopped instances; asks first, and keeps their data
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rm {
    /// The instances
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(complete::instances))]
    names: Vec<String>,
    /// Delete the directories that the supervisor made for it, too
    #[arg(long)]
    purge: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Removes instances.
pub(crate) async fn run(args: &Rm, context: &Context) -> Result<(), Failure> {
    let names = few(&args.names);
    let operation = match args.names.as_slice() {
        [name] => Operation::on("remove", name),
        _ => Operation::new(format!("remove {names}")),
    };
    let supervisor = context.connect(&operation).await?;
    let what =
        if args.purge { format!("remove {names} and delete all data") } else { format!("remove {names}") };
    Consent::from_flag(args.yes).obtain(&what, &operation)?;
    let mut errors = Vec::new();
    for name in &args.names {
        match remove(&supervisor, name, args.purge).await {
            Ok(()) => talk(&format!(
                "removed {name}{}",
                if args.purge { "; its data is being deleted" } else { "; its data is kept" }
            )),
            Err(error) => errors.push(error),
        }
    }
    Failure::from_all(errors)
}

async fn remove(supervisor: &Supervisor, name: &str, purge: bool) -> Result<(), Error> {
    let operation = Operation::on("remove", name);
    let request =
        DeleteInstanceRequest { name: name.to_owned(), etag: String::new(), request_id: request_id(), purge };
    supervisor
        .call(&operation, async || supervisor.instances().delete_instance(request.clone()).await)
        .await
        .map(|_| ())
}
