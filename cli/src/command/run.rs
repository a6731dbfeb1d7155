//! `openclawctl run`: a command in an instance's environment, behind its walls unless somebody says otherwise.
//!
//! ```text
//!   openclawctl ──exec──► gateway-worker behind …   outside the walls, with nothing but the mark in its environment
//!                           └── the command         behind them, with the environment of the instance
//! ```
//!
//! An agent writes the instance's state and home, so what is run there may be its own. The worker is the one beside this
//! program and not one that the supervisor names: who asks may be root, and the supervisor another user.

use std::{
    env,
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
};

use clap::{Args, ValueHint};
use clap_complete::ArgValueCompleter;
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use prost::Message;
use supervisor_proto::{
    v1::{EnterInstanceRequest, EnterInstanceResponse, HostUser},
    worker::{EnvironmentVariable, Launch, Walls},
};

use crate::{
    complete,
    connect::Supervisor,
    context::Context,
    daemon,
    error::{Cause, Error, Failure, Operation},
    render::style::{printable, talk},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl run rescue -- openclaw status    ask rescue's gateway, not main's
  openclawctl run main -- openclaw doctor
  openclawctl run --outside main -- openclawctl restart other

The command gets the instance's environment, TERM, and nothing else of this
shell's; it begins in the instance's home. Its terminal, its exit code and the
signal that ends it are this program's.

It is run behind the walls of the instance's gateway, as its user, and counts as
the instance: it opens what the gateway opens, wherever you stand, and asks of
the supervisor what the gateway may. Files that you redirect stay open to it.
What it leaves running is ended with it, unless this program is killed by
SIGKILL; a stop of the instance may end it, too.
Root becomes the instance's user, others have to be that user. Walls that this
kernel cannot build are named on standard error. A command that is not there
ends with 127, one that cannot be run with 126.

--outside is for what no agent may do: no wall is around the command, and it is
whoever you are. An agent writes the instance's home, plugins and settings of
shells included: what a program loads from there then has all your rights.";

/// Kept from our own environment, so that the command can use the terminal.
const KEPT: &str = "TERM";

/// By which the supervisor knows the processes of an instance.
const MARK: &str = "OPENCLAWCTL_MARK";

/// The program that builds walls.
const WORKER: &str = "gateway-worker";

/// Run a command as an instance, behind its walls
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// Around the command there is no wall, and it has all your rights
    #[arg(long)]
    outside: bool,
    /// The instance
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    name: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// Becomes the command, or what stands around it.
pub(crate) async fn run(args: &Run, context: &Context) -> Result<(), Failure> {
    let operation = Operation::on("run a command as", &args.name);
    // It runs here, in directories that are here.
    context.place(&operation)?;
    let supervisor = context.connect(&operation).await?;
    let never = match args.outside {
        true => outside(args, &supervisor, &operation).await,
        false => inside(args, &supervisor, &operation).await,
    };
    match never {
        Ok(never) => match never {},
        Err(error) => Err(error.into()),
    }
}

/// What returns only to say why it has failed.
enum Never {}

/// Behind the walls.
async fn inside(args: &Run, supervisor: &Supervisor, operation: &Operation) -> Result<Never, Error> {
    let request = EnterInstanceRequest { name: args.name.clone() };
    let entry = supervisor
        .call(operation, async || supervisor.instances().enter_instance(request.clone()).await)
        .await?;
    let failed = |cause: Cause| cause.during(operation);
    let mut walls = Walls::decode(entry.walls.as_slice()).map_err(|error| failed(error.into()))?;
    let user = entry.user.clone().ok_or_else(|| failed(Cause::Incomplete("user")))?;
    let me = geteuid();
    if user.uid == me.as_raw() {
        walls.user = None;
    } else if !me.is_root() {
        return Err(failed(Cause::NotItsUser { uid: user.uid, me: me.as_raw() }));
    }
    enterable(&entry.working_directory, operation)?;
    let worker = daemon::find(WORKER).ok_or_else(|| failed(Cause::WorkerMissing))?;
    // The supervisor's own user has no right over its workers but its own; others are taken on between worker and
    // command.
    if user.uid != me.as_raw() && walls.user.is_none() {
        become_user(&user).map_err(|source| failed(Cause::Become { uid: user.uid, source }))?;
    }
    tell_withheld(&entry.withheld);
    let mark = entry.mark.clone();
    let launch = hand_over(&launch(entry, walls).encode_to_vec())
        .map_err(|source| failed(Cause::HandOver { source }))?;
    let mut command = Command::new(&worker);
    command.args(["behind", "--launch-fd", &launch.as_raw_fd().to_string()]).args(&args.command);
    // No variable of an instance changes how the worker itself is loaded.
    let source = command.env_clear().env(MARK, mark).exec();
    Err(failed(Cause::Exec { program: worker.to_string_lossy().into_owned(), source }))
}

/// What the worker is told, beside the command.
fn launch(entry: EnterInstanceResponse, walls: Walls) -> Launch {
    let term = env::var(KEPT).ok().map(|term| (KEPT.to_owned(), term));
    let own = term.into_iter().chain([(MARK.to_owned(), entry.mark)]);
    let mut environment = entry.variables;
    for (name, value) in own {
        environment.entry(name).or_insert(value);
    }
    let variable = |(name, value)| EnvironmentVariable { name, value };
    Launch {
        environment: environment.into_iter().map(variable).collect(),
        working_directory: entry.working_directory,
        walls: Some(walls),
        ..Launch::default()
    }
}

/// A descriptor that the worker inherits, and from which it reads `bytes`.
#[cfg(target_os = "linux")]
fn hand_over(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::{
        fs::File,
        io::{Seek, Write},
    };

    use nix::sys::memfd::{MFdFlags, memfd_create};

    let mut file = File::from(memfd_create(c"launch", MFdFlags::empty())?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// There are no walls elsewhere.
#[cfg(not(target_os = "linux"))]
fn hand_over(_: &[u8]) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Without walls, as whoever runs this.
async fn outside(args: &Run, supervisor: &Supervisor, operation: &Operation) -> Result<Never, Error> {
    let environment = super::env::get(supervisor, &args.name, operation).await?;
    tell_withheld(&environment.withheld);
    let (program, arguments) = args
        .command
        .split_first()
        .map_or_else(Default::default, |(program, rest)| (program.clone(), rest.to_vec()));
    let mut command = Command::new(&program);
    command.args(arguments).env_clear().envs(env::var_os(KEPT).map(|term| (KEPT, term)));
    command.envs(&environment.variables);
    if !environment.working_directory.is_empty() {
        enterable(&environment.working_directory, operation)?;
        command.current_dir(&environment.working_directory);
    }
    if let Some(user) = environment.user.filter(|_| geteuid().is_root()) {
        // What root left in the instance's directories, its gateway could not read.
        become_user(&user).map_err(|source| Cause::Become { uid: user.uid, source }.during(operation))?;
    }
    let source = command.exec();
    Err(Cause::Exec { program: program.to_string_lossy().into_owned(), source }.during(operation))
}

fn tell_withheld(withheld: &[String]) {
    if !withheld.is_empty() {
        talk(&format!("without {}: withheld", printable(&withheld.join(", "))));
    }
}

/// Refuses a directory that is not there. Told apart here, as `exec` gives the same error for a missing program.
fn enterable(directory: &str, operation: &Operation) -> Result<(), Error> {
    let directory = Path::new(directory);
    let entered = directory.read_dir().map(drop);
    entered.map_err(|source| Cause::Enter { path: directory.to_owned(), source }.during(operation))
}

/// Becomes a user, for good.
fn become_user(user: &HostUser) -> io::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setgid(Gid::from_raw(user.gid))?;
    Ok(setuid(Uid::from_raw(user.uid))?)
}
