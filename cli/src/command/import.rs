//! `openclawctl import`: existing profiles of OpenClaw taken over, and given back.

use std::time::Duration;

use clap::{Args, ValueHint};
use supervisor_proto::v1::{
    ImportProfileRequest, ImportProfileResponse, ImportableProfile, ListProfilesRequest,
    ListProfilesResponse, ReturnProfileRequest, ReturnProfileResponse,
};

use super::{
    up::{self, Autostart},
    verb::few,
};
use crate::{
    connect::{Supervisor, request_id},
    context::{Consent, Context, Show},
    error::{Error, Failure, Operation},
    render::{
        import,
        json::{Encoder, Encoding},
        style::talk,
    },
};

/// An old gateway has six minutes to end, the new one ten to be ready, and the way back takes as long again.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// systemd is asked about each unit.
const LIST_PATIENCE: Duration = Duration::from_secs(180);

const HELP: &str = "\
Finds ~/.openclaw, ~/.openclaw-NAME, OCM's environments, and what systemd units
called openclaw-gateway* run. Directories are taken over as they are, on the
port that they have; no session is lost. What does not come to a ready gateway
is put back whole, also if the supervisor is killed in the middle.

Examples:
  openclawctl import                      what is there, and what would be done
  openclawctl import main                 take ~/.openclaw over; asks first
  openclawctl import lab --stop-running   also end a gateway started by hand
  openclawctl import --all --yes          everything that nothing is in the way of
  openclawctl import --undo main          and back";

/// Take existing profiles of OpenClaw over, or list them
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Import {
    /// The profiles; `main` is the default one
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Every profile that nothing is in the way of
    #[arg(long, conflicts_with_all = ["names", "undo"])]
    all: bool,
    /// Give them back to what ran them before
    #[arg(long, requires = "names")]
    undo: bool,
    /// End gateways that no unit runs, too (SIGTERM)
    #[arg(long, conflicts_with = "undo")]
    stop_running: bool,
    /// The `openclaw` executable, if not the first on PATH
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, conflicts_with = "undo")]
    program: Option<String>,
    /// Where its agents work, if its configuration names a place outside its state
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["undo", "all"])]
    workspace: Option<String>,
    /// Its configuration, if a link in its state leads to one elsewhere
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["undo", "all"])]
    config: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Fail if no supervisor is listening, instead of starting one
    #[arg(long)]
    no_autostart: bool,
}

/// Lists, imports or gives back.
pub(crate) async fn run(args: &Import, context: &Context) -> Result<(), Failure> {
    let operation = match (args.names.as_slice(), args.undo) {
        ([], _) => Operation::new("import profiles"),
        ([one], false) => Operation::on("import", one),
        ([one], true) => Operation::on("give back", one),
        (many, false) => Operation::new(format!("import {}", few(many))),
        (many, true) => Operation::new(format!("give back {}", few(many))),
    };
    let autostart = if args.no_autostart { Autostart::Refused } else { Autostart::Allowed };
    let supervisor = up::connect(context, autostart, &operation).await?;
    if args.undo {
        return give_back(args, context, &supervisor, &operation).await;
    }
    if args.names.is_empty() && !args.all {
        let found = list(&supervisor, &operation).await?;
        return Ok(show_list(context, &found, &operation)?);
    }
    let names = match args.all {
        true => importable(&list(&supervisor, &operation).await?.profiles),
        false => args.names.clone(),
    };
    if names.is_empty() {
        talk("there is nothing to import; `openclawctl import` tells why");
        return Ok(());
    }
    let what = format!("end what runs {} now, and run it under this supervisor", few(&names));
    Consent::from_flag(args.yes).obtain(&what, &operation)?;
    let mut errors = Vec::new();
    for name in &names {
        let operation = Operation::on("import", name);
        match take_over(args, name, &supervisor, &operation).await {
            Ok(answer) => show_import(context, name, &answer, &operation)?,
            Err(error) => errors.push(error),
        }
    }
    Failure::from_all(errors)
}

async fn list(supervisor: &Supervisor, operation: &Operation) -> Result<ListProfilesResponse, Error> {
    let call = async || supervisor.setup().list_profiles(ListProfilesRequest {}).await;
    supervisor.call_within(LIST_PATIENCE, operation, call).await
}

/// Those that nothing is in the way of.
fn importable(profiles: &[ImportableProfile]) -> Vec<String> {
    let free = |one: &&ImportableProfile| one.instance.is_empty() && one.obstacles.is_empty();
    profiles.iter().filter(free).map(|one| one.name.clone()).collect()
}

async fn take_over(
    args: &Import,
    name: &str,
    supervisor: &Supervisor,
    operation: &Operation,
) -> Result<ImportProfileResponse, Error> {
    let request = ImportProfileRequest {
        name: name.to_owned(),
        stop_running: args.stop_running,
        program: args.program.clone().unwrap_or_default(),
        workspace: args.workspace.clone().unwrap_or_default(),
        config: args.config.clone().unwrap_or_default(),
        request_id: request_id(),
    };
    let call = async || supervisor.setup().import_profile(request.clone()).await;
    supervisor.call_within(PATIENCE, operation, call).await
}

async fn give_back(
    args: &Import,
    context: &Context,
    supervisor: &Supervisor,
    operation: &Operation,
) -> Result<(), Failure> {
    let what = format!("stop {}, and give it back to what ran it before", few(&args.names));
    Consent::from_flag(args.yes).obtain(&what, operation)?;
    let mut errors = Vec::new();
    for name in &args.names {
        let operation = Operation::on("give back", name);
        let request = ReturnProfileRequest { name: name.clone(), request_id: request_id() };
        let call = async || supervisor.setup().return_profile(request.clone()).await;
        match supervisor.call_within(PATIENCE, &operation, call).await {
            Ok(answer) => show_return(context, name, &answer, &operation)?,
            Err(error) => errors.push(error),
        }
    }
    Failure::from_all(errors)
}

fn show_list(context: &Context, found: &ListProfilesResponse, operation: &Operation) -> Result<(), Error> {
    match context.show {
        Show::Text(breadth) => context.print(operation, &import::list(&found.profiles, breadth)),
        Show::Encoded(encoding @ (Encoding::Json | Encoding::Yaml)) => {
            context.print_message(operation, encoding, "ListProfilesResponse", found)
        }
        Show::Encoded(Encoding::JsonLines) => {
            let encode = || {
                let encoder = Encoder::new(Encoding::JsonLines)?;
                found.profiles.iter().map(|each| encoder.encode("ImportableProfile", each)).collect()
            };
            let text: Result<String, _> = encode();
            context.print(operation, &text.map_err(|cause| cause.during(operation))?)
        }
    }
}

fn show_import(
    context: &Context,
    name: &str,
    answer: &ImportProfileResponse,
    operation: &Operation,
) -> Result<(), Error> {
    match context.show {
        Show::Text(_) => context.print(operation, &import::done(name, &answer.steps, &answer.notes)),
        Show::Encoded(encoding) => {
            let encode = || Encoder::new(encoding)?.encode_item("ImportProfileResponse", answer);
            context.print(operation, &encode().map_err(|cause| cause.during(operation))?)
        }
    }
}

fn show_return(
    context: &Context,
    name: &str,
    answer: &ReturnProfileResponse,
    operation: &Operation,
) -> Result<(), Error> {
    match context.show {
        Show::Text(_) => context.print(operation, &import::done(name, &answer.steps, &answer.notes)),
        Show::Encoded(encoding) => {
            let encode = || Encoder::new(encoding)?.encode_item("ReturnProfileResponse", answer);
            context.print(operation, &encode().map_err(|cause| cause.during(operation))?)
        }
    }
}
