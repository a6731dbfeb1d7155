//! The tree of commands, and the way from arguments to an exit code.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, parser::ValueSource};
use clap_complete::{ArgValueCompleter, CompleteEnv};

use crate::{
    command, complete,
    context::Context,
    error::{Cause, Failure, Operation},
    help,
    render::style::{self, Color},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl up main rescue       two gateways, ready
  openclawctl status               the fleet; with a name, everything about it
  openclawctl apply -f fleet.yaml  make the fleet what the file says
  openclawctl logs main -f         what main prints, as it comes
  openclawctl explain              what the words mean that are printed here

The data directory is --data-dir, else $OPENCLAWCTL_DATA_DIR, else for root
/var/lib/openclaw-supervisor, else openclaw-supervisor in $XDG_DATA_HOME or
~/.local/share. Supervisors on other hosts are reached through contexts: see
openclawctl context --help. JSON and YAML are the proto JSON of the API.
NO_COLOR is heeded.

Exit codes: 0 done, 1 a bug, 2 usage, 3 refused, 4 not found, 5 timed out
waiting, 6 no supervisor reached, 7 not permitted, 130 interrupted.";

/// Run fleets of OpenClaw gateways: isolated, kept up, rescued when one dies
#[derive(Debug, Parser)]
#[command(name = "openclawctl", version, after_help = EXAMPLES, max_term_width = 80)]
pub(crate) struct App {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The supervisor's data directory
    #[arg(long, global = true, env = "OPENCLAWCTL_DATA_DIR", hide_env = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Its socket, if not control.sock in there
    #[arg(long, global = true, env = "OPENCLAWCTL_SOCKET", hide_env = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Another supervisor, by the name it was added under (openclawctl context)
    #[arg(long, global = true, value_name = "NAME", add = ArgValueCompleter::new(complete::contexts))]
    pub(crate) context: Option<String>,
    /// A file with a token to show, for a role of its own
    #[arg(long, global = true, env = "OPENCLAWCTL_TOKEN_FILE", hide_env = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// table, wide, json, yaml or jsonl
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    #[arg(hide_possible_values = true, hide_default_value = true, value_name = "FORMAT")]
    pub(crate) output: Output,
    /// auto, always or never
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    #[arg(hide_possible_values = true, hide_default_value = true, value_name = "WHEN")]
    pub(crate) color: Color,
}

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Jsonl,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Setup(command::setup::Setup),
    Import(command::import::Import),
    Up(command::up::Up),
    Down(command::down::Down),
    Restart(command::restart::Restart),
    Status(command::status::Status),
    Top(command::top::Top),
    Apply(command::apply::Apply),
    Export(command::export::Export),
    Logs(command::logs::Logs),
    Events(command::events::Events),
    Explain(command::explain::Explain),
    #[command(name = "failover")]
    FailOver(command::failover::FailOver),
    #[command(name = "failback")]
    FailBack(command::failback::FailBack),
    Upgrade(command::upgrade::Upgrade),
    Runtimes(command::runtimes::Runtimes),
    Config(command::config::Config),
    Maintenance(command::maintenance::Maintenance),
    Incidents(command::incidents::Incidents),
    Incident(command::incidents::Incident),
    Audit(command::audit::Audit),
    Alerts(command::alerts::Alerts),
    Ports(command::ports::Ports),
    Doctor(command::doctor::Doctor),
    Env(command::env::Env),
    Run(command::run::Run),
    Rm(command::rm::Rm),
    Supervisor(command::supervisor::Supervisor),
    Context(command::context::Contexts),
    Cert(command::cert::Cert),
    Web(command::web::Web),
    Completion(command::completion::Completion),
    Man(command::man::Man),
    Version(command::version::Version),
}

/// Help is never wider: long lines are hard to read.
const WIDEST_HELP: usize = 80;

impl App {
    /// The tree of commands as people see it.
    pub(crate) fn tree() -> clap::Command {
        help::completed(Self::command(), style::stdout_width().map(|width| width.min(WIDEST_HELP)))
    }

    /// The arguments. A data directory that somebody types counts more than a socket that the environment names.
    fn read() -> Self {
        let matches = Self::tree().get_matches();
        let mut app = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let typed = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        if typed("data_dir") && !typed("socket") {
            app.global.socket = None;
        }
        app
    }
}

/// Runs the process from its arguments to its exit code.
pub(crate) fn main() -> ExitCode {
    CompleteEnv::with_factory(App::command).var(complete::VARIABLE).complete();
    let app = App::read();
    app.global.color.apply();
    let outcome = match &app.command {
        None => App::tree()
            .print_help()
            .map_err(|source| Cause::from(source).during(&Operation::new("print the help")).into()),
        Some(command) => perform(command, &Context::new(app.global.clone())),
    };
    ExitCode::from(outcome.map_or_else(|failure| failure.tell(), |()| 0))
}

fn perform(command: &Command, context: &Context) -> Result<(), Failure> {
    // The connection has a thread of its own: it is spoken on while what is printed waits for its reader.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|source| Cause::Runtime { source }.during(&Operation::new("begin")))?;
    runtime.block_on(async {
        match command {
            Command::Setup(args) => command::setup::run(args, context).await,
            Command::Import(args) => command::import::run(args, context).await,
            Command::Up(args) => command::up::run(args, context).await,
            Command::Down(args) => command::down::run(args, context).await,
            Command::Restart(args) => command::restart::run(args, context).await,
            Command::Status(args) => command::status::run(args, context).await,
            Command::Top(args) => command::top::run(args, context).await,
            Command::Apply(args) => command::apply::run(args, context).await,
            Command::Export(_) => command::export::run(context).await,
            Command::Logs(args) => command::logs::run(args, context).await,
            Command::Events(args) => command::events::run(args, context).await,
            Command::Explain(args) => command::explain::run(args, context),
            Command::FailOver(args) => command::failover::run(args, context).await,
            Command::FailBack(args) => command::failback::run(args, context).await,
            Command::Upgrade(args) => command::upgrade::run(args, context).await,
            Command::Runtimes(args) => command::runtimes::run(args, context).await,
            Command::Config(args) => command::config::run(args, context).await,
            Command::Maintenance(args) => command::maintenance::run(args, context).await,
            Command::Incidents(args) => command::incidents::list(args, context).await,
            Command::Incident(args) => command::incidents::one(args, context).await,
            Command::Alerts(args) => command::alerts::run(args, context).await,
            Command::Audit(args) => command::audit::run(args, context).await,
            Command::Ports(args) => command::ports::run(args, context).await,
            Command::Doctor(args) => command::doctor::run(args, context).await,
            Command::Env(args) => command::env::run(args, context).await,
            Command::Run(args) => command::run::run(args, context).await,
            Command::Rm(args) => command::rm::run(args, context).await,
            Command::Supervisor(args) => command::supervisor::run(args, context).await,
            Command::Context(args) => command::context::run(args, context),
            Command::Cert(args) => command::cert::run(args, context).await,
            Command::Web(_) => command::web::run(context).await,
            Command::Completion(args) => command::completion::run(args, context),
            Command::Man(args) => command::man::run(args),
            Command::Version(_) => command::version::run(context).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_holds_together() {
        App::command().debug_assert();
    }
}
