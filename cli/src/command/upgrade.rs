//! `openclawctl upgrade`: instances moved to another version of OpenClaw, and back if it does not do well.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueHint};
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{Instance, Runtime, UpgradeInstanceRequest, UpgradeInstanceResponse};

use super::verb::few;
use crate::{
    complete,
    connect::{Supervisor, request_id},
    context::{Consent, Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::{json::Encoder, style::talk, upgrade},
    view,
};

/// An installation takes minutes, a stop up to six, a start up to four, and the way back as long again.
const PATIENCE: Duration = Duration::from_secs(7_200);

const HELP: &str = "\
The version is installed aside and asked whether it takes the instance's
configuration and database. Then, one instance after the other, rescues last:
stop, copy the state aside, start, ready, and ready for as long as --soak says.
What does not stay ready is put back, state and program together, also if the
supervisor is killed in the middle; then the rest is left as it is.

Examples:
  openclawctl upgrade main --to 2026.9.6
  openclawctl upgrade --all --to latest --canary   the first one only
  openclawctl upgrade --all --to latest --yes      and the others
  openclawctl upgrade main --to 2026.9.6 --from ./openclaw-2026.9.6.tgz
  openclawctl upgrade main --to 2026.9.6 --again   although it failed here";

/// Move instances to another version of OpenClaw
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Upgrade {
    /// The instances
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// Every instance that runs OpenClaw
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// The version, or a tag of npm's such as `latest`
    #[arg(long, value_name = "VERSION")]
    to: String,
    /// A program, package directory or .tgz to take it from, instead of npm's registry
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    from: Option<PathBuf>,
    /// Only the first one
    #[arg(long)]
    canary: bool,
    /// It must stay ready for this long; 60s unless given
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    soak: Option<Duration>,
    /// Try a version that has failed before
    #[arg(long)]
    again: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Upgrades one after the other, and stops at the first failure.
pub(crate) async fn run(args: &Upgrade, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("upgrade");
    let supervisor = context.connect(&operation).await?;
    let (instances, _) = supervisor.list(&operation).await?;
    let names = order(args, &instances);
    let Some(first) = names.first() else {
        talk("no instance runs OpenClaw");
        return Ok(());
    };
    let now = if args.canary { std::slice::from_ref(first) } else { names.as_slice() };
    if now.len() > 1 || args.all {
        let what = format!("restart {} on OpenClaw {}, one at a time", few(now), args.to);
        Consent::from_flag(args.yes).obtain(&what, &operation)?;
    }
    let mut errors = Vec::new();
    for name in now {
        if !errors.is_empty() {
            errors.push(Cause::NotTried.during(&Operation::on("upgrade", name)));
            continue;
        }
        match upgrade(args, name, &supervisor).await {
            Ok(answer) => show(context, name, &answer, &operation)?,
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() && now.len() < names.len() {
        let rest = names.get(now.len()..).unwrap_or_default();
        talk(&format!("{} still to be upgraded; the same without --canary goes on", few(rest)));
    }
    Failure::from_all(errors)
}

/// As they were named, rescues last: whoever may be needed is not touched before the others do well.
fn order(args: &Upgrade, instances: &[Instance]) -> Vec<String> {
    let is_rescue = |name: &str| {
        let spec = instances.iter().find(|one| one.name == name).and_then(|one| one.spec.as_ref());
        spec.is_some_and(|spec| !spec.rescues.is_empty())
    };
    let all = || {
        let on_openclaw = instances.iter().filter(|one| view::status(one).runtime() == Runtime::Openclaw);
        on_openclaw.map(|one| one.name.clone()).collect()
    };
    let mut names: Vec<String> = if args.all { all() } else { args.names.clone() };
    names.sort_by_key(|name| is_rescue(name));
    names
}

async fn upgrade(
    args: &Upgrade,
    name: &str,
    supervisor: &Supervisor,
) -> Result<UpgradeInstanceResponse, Error> {
    let operation = Operation::on("upgrade", name);
    let soak = args.soak.map(|soak| {
        prost_types::Duration::try_from(soak).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
    });
    let request = UpgradeInstanceRequest {
        name: name.to_owned(),
        version: args.to.clone(),
        from: source(args.from.as_deref(), &operation)?,
        soak,
        again: args.again,
        request_id: request_id(),
    };
    let call = async || supervisor.upgrade().upgrade_instance(request.clone()).await;
    supervisor.call_within(PATIENCE, &operation, call).await
}

/// As the supervisor, which runs elsewhere, finds it.
pub(super) fn source(from: Option<&Path>, operation: &Operation) -> Result<String, Error> {
    let Some(from) = from else { return Ok(String::new()) };
    let path = std::path::absolute(from)
        .map_err(|source| Cause::ReadFile { name: from.display().to_string(), source }.during(operation))?;
    Ok(path.to_string_lossy().into_owned())
}

fn show(
    context: &Context,
    name: &str,
    answer: &UpgradeInstanceResponse,
    operation: &Operation,
) -> Result<(), Error> {
    match context.show {
        Show::Text(_) => context.print(operation, &upgrade::done(name, answer)),
        Show::Encoded(encoding) => {
            let encode = || Encoder::new(encoding)?.encode_item("UpgradeInstanceResponse", answer);
            context.print(operation, &encode().map_err(|cause| cause.during(operation))?)
        }
    }
}
