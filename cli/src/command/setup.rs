//! `openclawctl setup`: a new instance made ready to run.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum, ValueHint};
use supervisor_proto::v1::{self, InstanceSpec, SetUpInstanceRequest, SetUpInstanceResponse};
use tonic::Request;

use super::up::{self, Autostart};
use crate::{
    connect::request_id,
    context::{Context, Show},
    error::{Cause, Failure, Operation},
    render::style::{HINT, INDENT, clause, paint, stdout_width, wrapped},
};

/// OpenClaw's onboarding has ten minutes, and the supervisor tells when they are over.
const PATIENCE: Duration = Duration::from_secs(660);

/// The largest file of credentials.
const MAX_FILE: u64 = 1 << 20;

const HELP: &str = "\
Makes ports, directories and a configuration with a token of its own. With
credentials it also runs OpenClaw's own onboarding, which chooses a model and
writes the workspace's first files; no service is installed.

Credentials are NAME=VALUE lines in a file, or in whatever --credentials names:
- is standard input, /dev/fd/3 a descriptor. They are kept in .env of the
instance's state directory, for its owner alone.

Examples:
  openclawctl setup lab                          ready for `openclawctl up lab`
  openclawctl setup lab --dry-run                only show what would be done
  openclawctl setup lab --credentials keys.env   with ANTHROPIC_API_KEY=… in it
  pass show lab | openclawctl setup lab --credentials -";

/// Make a new instance ready to run, without starting it
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Setup {
    /// What it is to be called
    name: String,
    /// A file of NAME=VALUE lines; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    credentials: Option<PathBuf>,
    /// How OpenClaw signs in, as in `openclaw onboard` [default: by the credentials]
    #[arg(long, value_name = "CHOICE")]
    auth_choice: Option<String>,
    /// What runs inside [default: OpenClaw where it is installed]
    #[arg(long, value_enum, value_name = "RUNTIME")]
    runtime: Option<Runtime>,
    /// The `openclaw` executable, if not the first on PATH
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    program: Option<String>,
    /// First port of its block [default: the supervisor chooses]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Fail if no supervisor is listening, instead of starting one
    #[arg(long)]
    no_autostart: bool,
}

/// `--runtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runtime {
    Openclaw,
    Builtin,
}

/// Sets an instance up.
pub(crate) async fn run(args: &Setup, context: &Context) -> Result<(), Failure> {
    let operation = Operation::on("set up", &args.name);
    let credentials = match args.credentials.as_deref() {
        Some(path) => {
            let reading = Operation::new(format!("read the credentials in `{}`", path.display()));
            read(path).map_err(|cause| cause.during(&reading))?
        }
        None => HashMap::new(),
    };
    let autostart = if args.no_autostart { Autostart::Refused } else { Autostart::Allowed };
    let supervisor = up::connect(context, autostart, &operation).await?;
    let runtime = match args.runtime {
        // Whoever says where OpenClaw is wants no other runtime if it is not there.
        None if args.program.is_some() => v1::Runtime::Openclaw,
        None => v1::Runtime::Unspecified,
        Some(Runtime::Openclaw) => v1::Runtime::Openclaw,
        Some(Runtime::Builtin) => v1::Runtime::Builtin,
    };
    let request = SetUpInstanceRequest {
        name: args.name.clone(),
        spec: Some(InstanceSpec {
            runtime: runtime.into(),
            program: args.program.clone().unwrap_or_default(),
            port: args.port.unwrap_or_default().into(),
            ..InstanceSpec::default()
        }),
        credentials,
        auth_choice: args.auth_choice.clone().unwrap_or_default(),
        validate_only: args.dry_run,
        request_id: request_id(),
    };
    let call = async || supervisor.setup().set_up_instance(Request::new(request.clone())).await;
    let answer = supervisor.call_within(PATIENCE, &operation, call).await?;
    match context.show {
        Show::Text(_) => context.print(&operation, &text(args, &answer))?,
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "SetUpInstanceResponse", &answer)?;
        }
    }
    Ok(())
}

/// The credentials in a file: NAME=VALUE lines, empty ones, and comments. No error shows what is in it.
fn read(path: &std::path::Path) -> Result<HashMap<String, String>, Cause> {
    let name = path.display().to_string();
    let failed = |source| Cause::ReadFile { name: name.clone(), source };
    let mut bytes = Vec::new();
    match name.as_str() {
        "-" => io::stdin().take(MAX_FILE + 1).read_to_end(&mut bytes),
        _ => File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut bytes),
    }
    .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Cause::FileTooLong { limit: MAX_FILE });
    }
    parse(&String::from_utf8(bytes).map_err(|_| Cause::FileEncoding)?)
}

fn parse(text: &str) -> Result<HashMap<String, String>, Cause> {
    let mut found = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            return Err(Cause::NoCredential { line: index + 1 });
        };
        found.insert(name.trim().to_owned(), unquoted(value.trim()).to_owned());
    }
    Ok(found)
}

fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

fn text(args: &Setup, answer: &SetUpInstanceResponse) -> String {
    let name = &args.name;
    if answer.unchanged {
        return format!("{name}: set up already\n");
    }
    let width = stdout_width();
    let would = if args.dry_run { "would " } else { "" };
    let line = |step: &String| wrapped(&format!("{name}: {would}{}", clause(step)), width, INDENT) + "\n";
    let mut text: String = answer.steps.iter().map(line).collect();
    let next =
        if args.dry_run { "the same without --dry-run does it" } else { &format!("openclawctl up {name}") };
    text.push_str(&format!("{} {next}\n", paint(HINT, "hint:")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_lines_as_in_an_environment_file() {
        let found = parse("# keys\n\nA=1\nexport B = \"x=y z\"\nC='q'\n").unwrap();
        let expected = [("A", "1"), ("B", "x=y z"), ("C", "q")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert!(matches!(parse("A=1\nsecret"), Err(Cause::NoCredential { line: 2 })));
    }
}
