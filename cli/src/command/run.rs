//! `openclawctl run`: a command in an instance's environment.

use std::{env, ffi::OsString, io, os::unix::process::CommandExt, path::Path, process::Command};

use clap::{Args, ValueHint};
use clap_complete::ArgValueCompleter;
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use supervisor_proto::v1::HostUser;

use crate::{
    complete,
    context::Context,
    error::{Cause, Failure, Operation},
    render::style::{printable, talk},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl run rescue -- openclaw status    ask rescue's gateway, not main's
  openclawctl run main -- openclaw doctor

The command replaces this program, so its exit code is the command's. It gets the instance's
environment and working directory, TERM, and nothing else of this shell's. Where the instance has a
user of its own, root becomes that user first. No wall is around it.";

/// Kept from our own environment, so that the command can use the terminal.
const KEPT: &str = "TERM";

/// Run a command inside an instance's environment
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// The instance
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    name: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// Becomes the command.
pub(crate) async fn run(args: &Run, context: &Context) -> Result<(), Failure> {
    let operation = Operation::on("run a command as", &args.name);
    // It runs here, in directories that are here.
    context.place(&operation)?;
    let supervisor = context.connect(&operation).await?;
    let environment = super::env::get(&supervisor, &args.name, &operation).await?;
    if !environment.withheld.is_empty() {
        talk(&format!("without {}: withheld", printable(&environment.withheld.join(", "))));
    }
    let (program, arguments) = args
        .command
        .split_first()
        .map_or_else(Default::default, |(program, rest)| (program.clone(), rest.to_vec()));
    let mut command = Command::new(&program);
    command.args(arguments).env_clear().envs(env::var_os(KEPT).map(|term| (KEPT, term)));
    command.envs(&environment.variables);
    if !environment.working_directory.is_empty() {
        // Told apart here, as `exec` gives the same error for a missing directory and a missing program.
        let directory = Path::new(&environment.working_directory);
        if let Err(source) = directory.read_dir() {
            return Err(Cause::Enter { path: directory.to_owned(), source }.during(&operation).into());
        }
        command.current_dir(directory);
    }
    if let Some(user) = environment.user.filter(|_| geteuid().is_root()) {
        // What root left in the instance's directories, its gateway could not read.
        become_user(&user).map_err(|source| Cause::Become { uid: user.uid, source }.during(&operation))?;
    }
    let source = command.exec();
    Err(Cause::Exec { program: program.to_string_lossy().into_owned(), source }.during(&operation).into())
}

/// Becomes a user, for good.
fn become_user(user: &HostUser) -> io::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setgid(Gid::from_raw(user.gid))?;
    Ok(setuid(Uid::from_raw(user.uid))?)
}
