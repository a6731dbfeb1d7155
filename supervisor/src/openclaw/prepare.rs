//! Everything that must be in place before an instance's gateway is started.
//!
//! Directories, program, place of locks, configuration, incident file, environment, in this order: each can refuse, and
//! the first refusal says what to mend. Nothing is written when nothing has changed, so that a restart costs a few looks
//! at the file system and no wait for the disk.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use supervisor_core::{
    fence::Channels,
    ids::{ConfigId, Name},
    ladder::Purpose,
    ports::Block,
};

use super::{
    config::{self, ConfigError, Discovery, Token, Wanted},
    contract::Contract,
    environment::{Control, Ingredients, environment},
    incident::{self, Incident},
    layout::{Directories, LayoutError, Neighbour, check_apart, led_home},
    reach::{self, ReachError},
    runtime::{self, Resolved, RuntimeError},
    walls::{
        self, Ground, Trees,
        grants::{Other, overreach},
        shared::LocksError,
    },
};
use crate::{
    spec::{Check, InstanceSpec, Kind},
    user::{User, UserError},
};

/// The runtime's own repair: what its documentation says to do about an exit that says that the configuration is
/// broken. The built-in gateway knows the same words.
const DOCTOR: [&str; 4] = ["doctor", "--fix", "--yes", "--non-interactive"];

/// What the supervisor knows of itself and of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// How it is reached.
    pub control: Control,
    /// The environment it was started with.
    pub environment: BTreeMap<String, String>,
    /// The directory of its own executable, where the built-in gateway is.
    pub beside_daemon: PathBuf,
}

/// Whose gateway is to be started.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The instance.
    pub name: &'a Name,
    /// What was asked for.
    pub spec: &'a InstanceSpec,
    /// Its ports.
    pub block: Block,
    /// The first port of the block it had before, if that changed.
    pub previous_base: Option<u16>,
    /// By which its processes are known again.
    pub mark: &'a str,
    /// Whom it stands in for, most important first.
    pub incidents: &'a [Incident],
    /// The other instances.
    pub neighbours: &'a [Neighbour],
    /// What the program is run for.
    pub purpose: Purpose,
    /// Whether the runtime hands its restarts over.
    pub contract: Contract,
    /// Whether the gateway has its channels.
    pub channels: Channels,
    /// The last good configuration, which could be put back.
    pub good: Option<ConfigId>,
    /// Whose processes and files its are; the supervisor's own user's, unless given.
    pub user: Option<&'a User>,
}

/// What is to be started, and in what surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Absolute.
    pub program: PathBuf,
    /// Without the program's own name.
    pub args: Vec<String>,
    /// All of it.
    pub environment: BTreeMap<String, String>,
    /// Absolute and existing.
    pub working_directory: PathBuf,
    /// The instance's directories.
    pub directories: Directories,
    /// For probes; `None` where the configuration holds none in the clear.
    pub token: Option<Token>,
    /// The configuration's revision; `None` for a command without one.
    pub config_revision: Option<String>,
    /// What the runtime came to.
    pub runtime: Resolved,
    /// Ports that must be free, because the program listens on them.
    pub listens: Vec<u16>,
    /// Whether it tells by READY=1 that it has started.
    pub notify: bool,
    /// What it may open; `None` without a wall around its files.
    pub trees: Option<Trees>,
    /// What went wrong without being a reason not to start, a sentence each.
    pub warnings: Vec<String>,
}

/// Why an instance cannot be started as it is.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Its directories.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its program.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The place of its locks.
    #[error(transparent)]
    Locks(#[from] LocksError),
    /// Its program, which its user does not get at.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// Its user.
    #[error(transparent)]
    User(#[from] UserError),
}

impl Refusal {
    /// What to do about it: a sentence without its full stop.
    #[must_use]
    pub fn mend(&self) -> String {
        match self {
            Self::Layout(error) => error.mend(),
            Self::Runtime(error) => error.mend(),
            Self::Config(error) => error.mend(),
            Self::Locks(error) => error.mend(),
            Self::Reach(error) => error.mend(),
            Self::User(error) => error.mend(),
        }
    }

    /// Whether it is the configuration that is wrong.
    #[must_use]
    pub fn blames_config(&self) -> bool {
        match self {
            Self::Layout(_) | Self::Runtime(_) | Self::Locks(_) | Self::Reach(_) | Self::User(_) => false,
            Self::Config(error) => error.blames_file(),
        }
    }
}

/// Makes the surroundings of an instance's gateway.
pub fn prepare(host: &Host, request: &Request<'_>) -> Result<Prepared, Refusal> {
    let Request { name, spec, block, .. } = *request;
    let data_dir = &host.control.data_dir;
    let directories = Directories::of(data_dir, name, spec);
    keep_apart(data_dir, (request.name, request.spec), &directories, request.neighbours)?;
    directories.create_for(data_dir, request.user)?;
    let runtime = runtime::resolve(spec, host)?;
    check_program(data_dir, request.user, &runtime)?;
    let needed = request.purpose == Purpose::Serve && needs_config(&runtime, &directories.config);
    if needed && let Some(error) = config::check::lost(&directories, request.good) {
        return Err(error.into());
    }
    let config = match needed {
        true => Some(config::pin(&Wanted {
            name,
            directories: &directories,
            block,
            previous_base: request.previous_base,
            data_dir,
            neighbours: request.neighbours,
        })?),
        false => None,
    };
    let incident_file = incident::file(&directories.root);
    // A rescue that knows less is better than none.
    let mut warnings = match incident::write(&incident_file, name, request.incidents) {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!("{error}: {}", error.source)],
    };
    let environment = environment(&Ingredients {
        host: &host.environment,
        name,
        directories: &directories,
        block,
        added: &spec.env,
        runtime: &runtime,
        mark: request.mark,
        control: &host.control,
        discovery: config.as_ref().map_or(Discovery::Quiet, |config| config.discovery),
        incidents: request.incidents,
        incident_file: &incident_file,
        contract: request.contract,
        channels: request.channels,
    });
    let args = args(request, &runtime, &directories);
    let (trees, wrong) =
        walls::stand(&ground(host, request, (&directories, &runtime), (&args, &environment)));
    warnings.extend(wrong);
    Ok(Prepared {
        program: runtime.program.clone(),
        args,
        environment,
        working_directory: directories.home.clone(),
        token: config.as_ref().and_then(|config| config.token.clone()),
        config_revision: config.map(|config| config.revision),
        listens: match request.purpose {
            Purpose::Serve => listens(runtime.kind, block),
            Purpose::Repair => Vec::new(),
        },
        notify: request.purpose == Purpose::Serve && notifies(spec, runtime.kind),
        runtime,
        directories,
        trees,
        warnings,
    })
}

/// Refuses what its user could not run, or not with the locks that it takes.
fn check_program(data_dir: &Path, user: Option<&User>, runtime: &Resolved) -> Result<(), Refusal> {
    if let Some(user) = user {
        reach::open_version(data_dir, runtime)?;
        reach::look_at(user, data_dir, &runtime.program)?;
    }
    if runtime.kind == Kind::Openclaw {
        walls::shared::look(uid(user))?;
    }
    Ok(())
}

fn args(request: &Request<'_>, runtime: &Resolved, directories: &Directories) -> Vec<String> {
    let filled = |argument: &String| filled_in(argument, request.name, request.block, directories);
    match request.purpose {
        Purpose::Serve => runtime.args.iter().map(filled).collect(),
        Purpose::Repair => DOCTOR.map(str::to_owned).to_vec(),
    }
}

/// What the walls around the program depend on.
fn ground<'a>(
    host: &'a Host,
    request: &Request<'a>,
    (directories, runtime): (&'a Directories, &'a Resolved),
    (args, environment): (&'a [String], &'a BTreeMap<String, String>),
) -> Ground<'a> {
    let Request { name, spec, neighbours, user, .. } = *request;
    let (kind, program) = (runtime.kind, runtime.program.as_path());
    Ground { host, name, spec, directories, neighbours, kind, program, args, environment, uid: uid(user) }
}

/// Whose its processes are.
fn uid(user: Option<&User>) -> u32 {
    user.map_or_else(|| nix::unistd::geteuid().as_raw(), |user| user.uid)
}

/// Only profiles can meet, and only grants reach out, and most fleets have none: then nothing is looked at.
pub(crate) fn keep_apart(
    data_dir: &Path,
    (name, spec): (&Name, &InstanceSpec),
    mine: &Directories,
    neighbours: &[Neighbour],
) -> Result<(), LayoutError> {
    let grants = spec.walls.grants().next().is_some();
    if spec.profile.is_none() && !grants {
        return Ok(());
    }
    let others: Vec<(&Neighbour, Directories)> = neighbours
        .iter()
        .filter(|other| (grants || other.profile.is_some()) && other.name != *name)
        .map(|other| (other, other.directories(data_dir)))
        .collect();
    if let Some((_, led)) = led_home(mine) {
        return Err(led.into());
    }
    check_apart(data_dir, (name, mine), others.iter().map(|(other, paths)| (&other.name, paths)))?;
    let others: Vec<Other<'_>> = others
        .iter()
        .map(|(other, directories)| Other { name: &other.name, directories, writes: &other.writes })
        .collect();
    overreach(data_dir, (name, mine), spec, &others).map_or(Ok(()), |clash| Err(clash.into()))
}

/// A command may be a wrapper of OpenClaw; then it names the configuration, or somebody put one there.
fn needs_config(runtime: &Resolved, config: &Path) -> bool {
    match runtime.kind {
        Kind::Openclaw | Kind::Builtin => true,
        Kind::Command => runtime.args.iter().any(|argument| argument.contains("{config}")) || config.exists(),
    }
}

pub(crate) fn filled_in(argument: &str, name: &Name, block: Block, directories: &Directories) -> String {
    if !argument.contains('{') {
        return argument.to_owned();
    }
    argument
        .replace("{port}", &block.base.to_string())
        .replace("{state_dir}", &directories.state.to_string_lossy())
        .replace("{config}", &directories.config.to_string_lossy())
        .replace("{workspace}", &directories.workspace.to_string_lossy())
        .replace("{name}", name)
}

/// OpenClaw opens its browsers' ports later and bears it when one is taken; its own port it must have.
fn listens(kind: Kind, block: Block) -> Vec<u16> {
    match kind {
        Kind::Openclaw | Kind::Command => vec![block.base],
        Kind::Builtin => vec![block.base, block.base + 2, block.base + 4],
    }
}

fn notifies(spec: &InstanceSpec, kind: Kind) -> bool {
    match (kind, spec.probes.startup.check) {
        (Kind::Builtin, None) | (_, Some(Check::Notify)) => true,
        (_, Some(Check::None | Check::Tcp | Check::Http | Check::Websocket | Check::Openclaw)) => false,
        (Kind::Openclaw | Kind::Command, None) => false,
    }
}

#[cfg(test)]
mod tests;
