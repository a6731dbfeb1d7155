//! `openclawctl env`.

use std::collections::BTreeMap;

use clap::Args;
use clap_complete::ArgValueCompleter;
use nix::unistd::geteuid;
use supervisor_proto::v1::{GetInstanceEnvironmentRequest, GetInstanceEnvironmentResponse};

use crate::{
    complete,
    connect::Supervisor,
    context::{Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::style::{printable, quoted},
};

const ROOT: u32 = 0;

const EXAMPLES: &str = "\
Examples:
  openclawctl env rescue            its environment as `export` lines
  eval \"$(openclawctl env rescue)\"  this shell as rescue's gateway sees the world
  openclawctl run rescue -- env     only one command in it, and nothing inherited";

/// Print an instance's environment as `export` lines
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Env {
    /// The instance
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    name: String,
}

/// Prints the environment.
pub(crate) async fn run(args: &Env, context: &Context) -> Result<(), Failure> {
    let operation = Operation::on("read the environment of", &args.name);
    let supervisor = context.connect(&operation).await?;
    let environment = get(&supervisor, &args.name, &operation).await?;
    match context.show {
        Show::Text(_) => {
            // The shell would load what that user likes.
            let owner = supervisor.owner().map(|owner| owner.uid);
            if !owner.is_some_and(|owner| [ROOT, geteuid().as_raw()].contains(&owner)) {
                return Err(Cause::ForeignExports { owner }.during(&operation).into());
            }
            context.print_data(&operation, &exports(&environment))?;
        }
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "GetInstanceEnvironmentResponse", &environment)?;
        }
    }
    Ok(())
}

/// Reads an instance's environment.
pub(super) async fn get(
    supervisor: &Supervisor,
    name: &str,
    operation: &Operation,
) -> Result<GetInstanceEnvironmentResponse, Error> {
    let request = GetInstanceEnvironmentRequest { name: name.to_owned() };
    supervisor
        .call(operation, async || supervisor.instances().get_instance_environment(request.clone()).await)
        .await
}

/// Lines that a POSIX shell can evaluate, by name.
fn exports(environment: &GetInstanceEnvironmentResponse) -> String {
    let mut lines: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &environment.variables {
        let line = if is_identifier(name) {
            format!("export {name}={}\n", quoted(value))
        } else {
            format!("# {} is set, and no shell can hold such a name\n", printable(name))
        };
        lines.insert(name, line);
    }
    for name in &environment.withheld {
        lines.insert(name, format!("# {} is set, and its value withheld\n", printable(name)));
    }
    lines.into_values().collect()
}

/// Whether a shell can assign to this name (POSIX.1-2024, 3.216).
fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_shell_can_hold_becomes_a_comment() {
        let environment = GetInstanceEnvironmentResponse {
            variables: [("A B;reboot".to_owned(), "x".to_owned())].into(),
            withheld: vec!["TOKEN\nreboot".to_owned()],
            working_directory: String::new(),
            user: None,
        };
        let text = exports(&environment);
        assert!(text.lines().count() == 2 && text.lines().all(|line| line.starts_with("# ")), "{text}");
    }
}
