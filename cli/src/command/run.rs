//! `openclawctl run`: a command in an instance's environment, behind its walls unless somebody says otherwise.
//!
//! ```text
//!   openclawctl ──exec──► gateway-worker behind …   outside the walls, with nothing but the mark in its environment
//!                           └── the command         behind them, with the environment of the instance
//! ```
//!
//! An agent writes the instance's state and home, so what is run there may be its own. The worker is the one beside this
//! program and not one that the supervisor names: who asks may be root, and the supervisor another user.
//!
//! | the supervisor listens as | it is believed about | root, who runs this, becomes | somebody else |
//! |---|---|---|---|
//! | root | everything | whom it names | has to be him; not with `--outside` |
//! | another user | that user alone, whatever else it names | that user, in the groups that the host gives it | has to be him |

use std::{
    env,
    ffi::{CString, OsString},
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
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, setgid, setgroups, setuid};
use prost::Message;
use supervisor_proto::{
    v1::{EnterInstanceRequest, EnterInstanceResponse, HostUser},
    worker::{EnvironmentVariable, Launch, Walls},
};

use crate::{
    complete,
    connect::{Owner, Supervisor},
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
shell's; it begins in the instance's home. Its exit code and the signal that
ends it are this program's. At a terminal it gets another one, which ends with
it, so that nothing in the instance reads what you type later.

It is run behind the walls of the instance's gateway, as its user, and counts as
the instance: it opens what the gateway opens, wherever you stand, and asks of
the supervisor what the gateway may. Files that you redirect stay open to it.
What it leaves running is ended with it, unless this program is killed by
SIGKILL; a stop of the instance may end it, too.
Root becomes the instance's user, others have to be that user. Walls that this
kernel cannot build are named on standard error. A command that is not there
ends with 127, one that cannot be run with 126.

--outside is for what no agent may do: no wall is around the command. Root
becomes the instance's user here, too, which is root itself for an instance
without `user` of a supervisor that is root. Others stay who they are, under
such a supervisor or their own. An agent writes the instance's home, plugins and
settings of shells included: what a program loads from there then has all rights
of whoever runs it, and your terminal.";

/// Kept from our own environment, so that the command can use the terminal.
const KEPT: &str = "TERM";

/// By which the supervisor knows the processes of an instance.
const MARK: &str = "OPENCLAWCTL_MARK";

/// By which it knows that the session is that of whoever typed this.
const GUEST: &str = "OPENCLAWCTL_GUEST";

/// Who is believed about others.
const ROOT: u32 = 0;

/// The program that builds walls.
const WORKER: &str = "gateway-worker";

/// Run a command as an instance, behind its walls
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// Around the command there is no wall, and it has all rights of the user it is run as
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
    let owner = supervisor.owner().ok_or_else(|| Cause::Incomplete("owner").during(&operation))?;
    let never = match args.outside {
        true => outside(args, (&supervisor, owner), &operation).await,
        false => inside(args, (&supervisor, owner), &operation).await,
    };
    match never {
        Ok(never) => match never {},
        Err(error) => Err(error.into()),
    }
}

/// What returns only to say why it has failed.
enum Never {}

/// Behind the walls.
async fn inside(
    args: &Run,
    (supervisor, owner): (&Supervisor, Owner),
    operation: &Operation,
) -> Result<Never, Error> {
    let request = EnterInstanceRequest { name: args.name.clone() };
    let entry = supervisor
        .call(operation, async || supervisor.instances().enter_instance(request.clone()).await)
        .await?;
    let failed = |cause: Cause| cause.during(operation);
    let mut walls = Walls::decode(entry.walls.as_slice()).map_err(|error| failed(error.into()))?;
    let user = entry.user.clone().ok_or_else(|| failed(Cause::Incomplete("user")))?;
    let user = whom(user, owner).map_err(failed)?;
    let me = geteuid();
    if user.uid != me.as_raw() && !me.is_root() {
        return Err(failed(Cause::NotItsUser { uid: user.uid, me: me.as_raw() }));
    }
    if user.uid == me.as_raw() || owner.uid != ROOT {
        walls.user = None;
    }
    // The terminal is root's: that nothing types into it is not the supervisor's to leave out.
    walls.privileges |= me.is_root() && owner.uid != ROOT;
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
    let source = command.env_clear().env(MARK, mark).env(GUEST, "1").exec();
    Err(failed(Cause::Exec { program: worker.to_string_lossy().into_owned(), source }))
}

/// What the worker is told, beside the command.
fn launch(entry: EnterInstanceResponse, walls: Walls) -> Launch {
    let term = env::var(KEPT).ok().map(|term| (KEPT.to_owned(), term));
    let own = term.into_iter().chain([(MARK.to_owned(), entry.mark), (GUEST.to_owned(), "1".to_owned())]);
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

/// Without walls: root as the instance's user, others as themselves.
async fn outside(
    args: &Run,
    (supervisor, owner): (&Supervisor, Owner),
    operation: &Operation,
) -> Result<Never, Error> {
    let environment = super::env::get(supervisor, &args.name, operation).await?;
    let Owner { uid, gid } = owner;
    // Unset, it is the supervisor's own.
    let named = environment.user.unwrap_or_else(|| HostUser { uid, gid, groups: groups_of(owner) });
    let (user, me) = (whom(named, owner).map_err(|cause| cause.during(operation))?, geteuid());
    if user.uid != me.as_raw() && !me.is_root() && owner.uid != ROOT {
        return Err(Cause::NotItsUser { uid: user.uid, me: me.as_raw() }.during(operation));
    }
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
    if user.uid != me.as_raw() && me.is_root() {
        // What root left in the instance's directories, its gateway could not read.
        become_user(&user).map_err(|source| Cause::Become { uid: user.uid, source }.during(operation))?;
    }
    let source = command.exec();
    Err(Cause::Exec { program: program.to_string_lossy().into_owned(), source }.during(operation))
}

/// Whom the command is run as, as far as this supervisor may say so. One that is not root's could name root, or a group
/// that opens as much, and have the command load what it likes.
fn whom(named: HostUser, owner: Owner) -> Result<HostUser, Cause> {
    let Owner { uid, gid } = owner;
    match (uid, named.uid == uid) {
        (ROOT, _) => Ok(named),
        (_, false) => Err(Cause::NotItsToName { uid: named.uid, owner: uid }),
        (_, true) => {
            let its = groups_of(owner);
            let groups = named.groups.into_iter().filter(|group| its.contains(group)).collect();
            Ok(HostUser { uid, gid, groups })
        }
    }
}

/// The groups of a user, as this host knows them.
fn groups_of(Owner { uid, gid }: Owner) -> Vec<u32> {
    let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let known = known.and_then(|user| Some((CString::new(user.name).ok()?, user.gid)));
    // In fewer groups less is open.
    let groups = known.and_then(|(name, own)| getgrouplist(&name, own).ok()).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).chain([gid]).collect()
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
