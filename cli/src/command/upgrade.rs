//! `openclawctl upgrade`: instances moved to another version of OpenClaw, and back if it does not do well.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueHint};
use clap_complete::ArgValueCompleter;
use futures_util::{StreamExt, stream};
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
configuration and database. Then, one instance after the other or in waves of
--parallel, rescues last: stop, copy the state aside, start, ready, and ready
for as long as --soak says. What does not stay ready is put back, state and
program together, also if the supervisor is killed in the middle; then the
waves to come are left as they are.

Examples:
  openclawctl upgrade main --to 2026.9.6
  openclawctl upgrade --all --to latest --canary   the first one only
  openclawctl upgrade --all --to latest --parallel 4 --yes   and the others
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
    /// How many at a time
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    parallel: u16,
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

/// Upgrades wave after wave, and stops after the first one in which something failed.
pub(crate) async fn run(args: &Upgrade, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("upgrade");
    let supervisor = context.connect(&operation).await?;
    let (instances, _) = supervisor.list(&operation).await?;
    let mut waves = waves(args, &instances);
    if waves.is_empty() {
        talk("no instance runs OpenClaw");
        return Ok(());
    }
    let later = waves.split_off(if args.canary { 1 } else { waves.len() }).concat();
    let now = waves.concat();
    if now.len() > 1 || args.all {
        let what = format!("restart {} on OpenClaw {}, {}", few(&now), args.to, pace(&waves));
        Consent::from_flag(args.yes).obtain(&what, &operation)?;
    }
    let mut errors = Vec::new();
    for wave in &waves {
        if !errors.is_empty() {
            errors.extend(wave.iter().map(|name| Cause::NotTried.during(&Operation::on("upgrade", name))));
            continue;
        }
        let supervisor = &supervisor;
        let each =
            stream::iter(wave).map(|name| async move { (name, upgrade(args, name, supervisor).await) });
        let mut answers = each.buffer_unordered(wave.len());
        while let Some((name, answer)) = answers.next().await {
            match answer {
                Ok(answer) => show(context, name, &answer, &operation)?,
                Err(error) => errors.push(error),
            }
        }
    }
    if errors.is_empty() && !later.is_empty() {
        talk(&format!("{} still to be upgraded; the same without --canary goes on", few(&later)));
    }
    Failure::from_all(errors)
}

/// How many at a time, for people.
fn pace(waves: &[Vec<String>]) -> String {
    match waves.iter().map(Vec::len).max() {
        None | Some(0 | 1) => "one at a time".to_owned(),
        Some(many) => format!("up to {many} at a time"),
    }
}

/// As they were named, each once, rescues last and in waves of their own: whoever may be needed is not touched before
/// the others do well. The canary goes alone.
fn waves(args: &Upgrade, instances: &[Instance]) -> Vec<Vec<String>> {
    let is_rescue = |name: &str| {
        let spec = instances.iter().find(|one| one.name == name).and_then(|one| one.spec.as_ref());
        spec.is_some_and(|spec| !spec.rescues.is_empty())
    };
    let all = || {
        let on_openclaw = instances.iter().filter(|one| view::status(one).runtime() == Runtime::Openclaw);
        on_openclaw.map(|one| one.name.clone()).collect()
    };
    let mut names: Vec<String> = if args.all { all() } else { args.names.clone() };
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let (rescues, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_rescue(name));
    let at_once = if args.canary { 1 } else { args.parallel.into() };
    [others, rescues].iter().flat_map(|part| part.chunks(at_once)).map(<[String]>::to_vec).collect()
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use supervisor_proto::v1::InstanceSpec;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        upgrade: Upgrade,
    }

    #[test]
    fn waves_are_as_large_as_was_asked_with_the_rescues_in_the_last_ones() {
        let instance = |name: &str, rescues: &[&str]| Instance {
            name: name.into(),
            spec: Some(InstanceSpec {
                rescues: rescues.iter().map(|name| (*name).to_owned()).collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let all = [
            instance("r", &["a"]),
            instance("a", &[]),
            instance("b", &[]),
            instance("s", &["b"]),
            instance("c", &[]),
        ];
        let waves = |flags: &[&str]| {
            let words = [&["upgrade", "r", "a", "b", "a", "s", "c", "--to", "2"], flags].concat();
            let waves = waves(&Line::parse_from(words).upgrade, &all);
            waves.iter().map(|wave| wave.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(waves(&[]), ["a", "b", "c", "r", "s"]);
        assert_eq!(waves(&["--parallel", "2"]), ["a b", "c", "r s"]);
        assert_eq!(waves(&["--parallel", "9"]), ["a b c", "r s"]);
        assert_eq!(waves(&["--parallel", "2", "--canary"])[0], "a");
    }
}
