//! Makes an instance ready to run, as far as files go: what a first start makes, and what OpenClaw's own onboarding
//! adds where somebody gives credentials.
//!
//! Directories, configuration and token come from where a start has them from ([`prepare`]), so that there is one
//! place that knows what an instance needs. Onboarding runs in the instance's own environment; it is told the
//! instance's port and workspace, and to install no service. Afterwards the configuration is held to the instance's
//! block again.
//!
//! Credentials go into `.env` of the state directory, which OpenClaw reads at each start, and into the onboarding's
//! environment: never onto a command line.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, thread, time::Duration};

use supervisor_core::{fence::Channels, ids::Name, ladder::Purpose, ports::Block};
use tokio::sync::oneshot;

use crate::{
    openclaw::{
        config::check::read_plainly,
        contract::{Contract, inside},
        file::Durability,
        layout::{Directories, Neighbour},
        place::Place,
        prepare::{Host, Prepared, Refusal, Request, prepare},
        reach, runtime,
        walls::around,
    },
    spec::{InstanceSpec, Kind, is_supervisors},
    tool::{Ran, Tool},
    user,
};

/// OpenClaw's onboarding takes 15 s, and minutes on a loaded host or where a version compiles itself first.
const ONBOARDING: Duration = Duration::from_secs(600);

/// What is kept of what it prints: its end says what went wrong.
const OUTPUT: usize = 64 << 10;

/// Credentials of one instance, and the bytes of one of them.
const MOST_CREDENTIALS: usize = 100;
const MOST_BYTES: usize = 16 << 10;

/// The largest `.env` that is completed.
const ENV_BYTES: u64 = 4 << 20;

/// Where OpenClaw looks for variables, in the state directory.
const ENV: &str = ".env";

/// What the onboarding printed, in the directory of the logs.
const LOG: &str = "setup.log";

/// For the owner alone.
const PRIVATE: u32 = 0o600;

/// Shorter values are not struck out of an output: they would be found everywhere.
const SHORT: usize = 6;

/// How OpenClaw calls signing in with a credential (`--auth-choice`), in all versions that the supervisor is held
/// against.
const CHOICES: [(&str, &str); 12] = [
    ("ANTHROPIC_API_KEY", "apiKey"),
    ("OPENAI_API_KEY", "openai-api-key"),
    ("OPENROUTER_API_KEY", "openrouter-api-key"),
    ("GEMINI_API_KEY", "gemini-api-key"),
    ("XAI_API_KEY", "xai-api-key"),
    ("MOONSHOT_API_KEY", "moonshot-api-key"),
    ("ZAI_API_KEY", "zai-api-key"),
    ("VENICE_API_KEY", "venice-api-key"),
    ("SYNTHETIC_API_KEY", "synthetic-api-key"),
    ("XIAOMI_API_KEY", "xiaomi-api-key"),
    ("QIANFAN_API_KEY", "qianfan-api-key"),
    ("AI_GATEWAY_API_KEY", "ai-gateway-api-key"),
];

/// No sign-in.
const SKIP: &str = "skip";

/// Who is set up.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) host: Arc<Host>,
    pub(crate) name: Name,
    pub(crate) spec: InstanceSpec,
    pub(crate) neighbours: Vec<Neighbour>,
}

/// What an operator gives.
#[derive(Clone, Default)]
pub(crate) struct Wish {
    /// Variables and their values.
    pub(crate) credentials: BTreeMap<String, String>,
    /// How OpenClaw is to sign in, if somebody says so.
    pub(crate) auth_choice: Option<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) steps: Vec<String>,
    pub(crate) output: String,
}

/// Why an instance is not set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// A first start would be refused, too.
    #[error("{refusal}; {}", refusal.mend())]
    Refused {
        /// Why.
        refusal: Box<Refusal>,
    },
    /// A credential that cannot be kept.
    #[error("the credential `{name}` {what}")]
    Credential {
        /// Which.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file.
    #[error("failed to write `{}`: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// OpenClaw's onboarding ended badly.
    #[error("OpenClaw's onboarding ended with status {status}: {last}; all that it said is in `{}`", log.display())]
    Onboarding {
        /// Its exit status.
        status: i32,
        /// Its last line.
        last: String,
        /// Where its output is.
        log: PathBuf,
    },
    /// It did not end.
    #[error("OpenClaw's onboarding did not end within {} s, or said too much", ONBOARDING.as_secs())]
    Endless,
    /// The system gives no thread.
    #[error("the supervisor cannot begin it: {0}")]
    Begin(io::Error),
    /// The supervisor ends.
    #[error("the supervisor is shutting down")]
    Interrupted,
}

impl From<Refusal> for SetupError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal: Box::new(refusal) }
    }
}

impl Wish {
    /// Whether everything given can be kept as it is.
    pub(crate) fn check(&self) -> Result<(), SetupError> {
        for (at, (name, value)) in self.credentials.iter().enumerate() {
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let quotes = value.contains('\'') && value.contains('"');
            let is_programs = matches!(name.as_str(), "PATH" | "NODE_OPTIONS") || name.starts_with("LD_");
            let faults = [
                (at >= MOST_CREDENTIALS, "is one too many"),
                (!is_name, "is not a name of a variable"),
                (is_supervisors(name), "is a variable that the supervisor sets"),
                (is_programs, "is no credential"),
                (value.is_empty(), "is empty"),
                (value.len() > MOST_BYTES, "is longer than 16 KiB"),
                (value.chars().any(char::is_control), "has a control character in it"),
                (quotes, "has both kinds of quotes in it"),
            ];
            if let Some((_, what)) = faults.into_iter().find(|(is_so, _)| *is_so) {
                return Err(SetupError::Credential { name: name.to_owned(), what });
            }
        }
        Ok(())
    }

    /// How OpenClaw is to sign in; `None` if it is not to be onboarded at all.
    fn choice(&self) -> Option<&str> {
        let known = || CHOICES.iter().find(|(name, _)| self.credentials.contains_key(*name));
        let some = !self.credentials.is_empty();
        let choice = self.auth_choice.as_deref().or_else(|| known().map(|(_, choice)| *choice));
        choice.or(some.then_some(SKIP))
    }

    /// `text` without the credentials.
    fn without(&self, text: &str) -> String {
        let long = self.credentials.values().filter(|value| value.len() >= SHORT);
        long.fold(text.to_owned(), |text, value| text.replace(value.as_str(), "(withheld)"))
    }
}

impl Subject {
    fn directories(&self) -> Directories {
        Directories::of(&self.host.control.data_dir, &self.name, &self.spec)
    }

    /// What would be done.
    pub(crate) fn plan(&self, wish: &Wish) -> Result<Vec<String>, SetupError> {
        let runtime = runtime::resolve(&self.spec, &self.host)
            .map_err(|error| SetupError::from(Refusal::from(error)))?;
        let Directories { root, config, .. } = self.directories();
        let mut steps = vec![
            format!("create the instance `{}`, with a block of ports of its own", self.name),
            format!("make its directories in `{}`", root.display()),
            format!("write `{}`, with a token of its own", config.display()),
        ];
        if let Some(note) = &runtime.note {
            steps.push(format!("choose its runtime: {note}"));
        }
        if !wish.credentials.is_empty() {
            steps.push(format!("keep {} for it", counted(wish.credentials.len())));
        }
        if let (Some(choice), Kind::Openclaw) = (wish.choice(), runtime.kind) {
            steps.push(format!("run OpenClaw's onboarding in it (`--auth-choice {choice}`)"));
        }
        Ok(steps)
    }

    /// Whether nothing is left to do. Blocks on the disk.
    pub(crate) fn is_set_up(&self, wish: &Wish) -> bool {
        let directories = self.directories();
        let env = env_file(&directories).unwrap_or_default();
        let kept = |(name, value): (&String, &String)| env.lines().any(|known| known == line(name, value));
        read_plainly(directories.own_config()).is_ok_and(|found| found.is_some())
            && wish.credentials.iter().all(kept)
    }

    /// Does it, on a thread of its own: onboarding may take minutes.
    pub(crate) async fn set_up(self, block: Block, wish: Wish) -> Result<Report, SetupError> {
        let (tell, outcome) = oneshot::channel();
        // Who asked may have gone meanwhile.
        let work = move || drop(tell.send(self.work(block, &wish)));
        thread::Builder::new().name("setup".into()).spawn(work).map_err(SetupError::Begin)?;
        outcome.await.map_err(|_| SetupError::Interrupted)?
    }

    fn work(&self, block: Block, wish: &Wish) -> Result<Report, SetupError> {
        let had_config = self.directories().config.exists();
        let prepared = self.prepare(block)?;
        let directories = &prepared.directories;
        let mut report = Report::default();
        report.steps.push(format!("made its directories in `{}`", directories.root.display()));
        report.steps.push(match had_config {
            false => format!("wrote `{}`, with a token of its own", directories.config.display()),
            true => format!("kept `{}`", directories.config.display()),
        });
        if let Some(note) = &prepared.runtime.note {
            report.steps.push(format!("chose its runtime: {note}"));
        }
        if !wish.credentials.is_empty() {
            keep(directories, wish)?;
            let env = directories.state.join(ENV);
            report.steps.push(format!("kept {} in `{}`", counted(wish.credentials.len()), env.display()));
        }
        match (wish.choice(), prepared.runtime.kind) {
            (Some(choice), Kind::Openclaw) => {
                report.output = self.onboard(&prepared, block, wish, choice)?;
                // What is the supervisor's in the configuration still is, or a first start would be refused.
                self.prepare(block)?;
                report.steps.push(format!("ran OpenClaw's onboarding (`--auth-choice {choice}`)"));
            }
            (Some(_), kind @ (Kind::Builtin | Kind::Command)) => {
                report.steps.push(format!("did not onboard: {kind} knows no onboarding"));
            }
            (None, Kind::Openclaw | Kind::Builtin | Kind::Command) => {}
        }
        Ok(report)
    }

    fn prepare(&self, block: Block) -> Result<Prepared, Refusal> {
        let user = user::of(self.spec.user.as_ref())?;
        if user.is_some() {
            // Onboarding says so if it does not get there.
            let _ = reach::let_pass(&self.host.control.data_dir);
        }
        prepare(
            &self.host,
            &Request {
                name: &self.name,
                spec: &self.spec,
                block,
                previous_base: None,
                mark: "",
                incidents: &[],
                neighbours: &self.neighbours,
                purpose: Purpose::Serve,
                contract: Contract::None,
                channels: Channels::On,
                good: None,
                user: user.as_ref(),
            },
        )
    }

    fn onboard(
        &self,
        prepared: &Prepared,
        block: Block,
        wish: &Wish,
        choice: &str,
    ) -> Result<String, SetupError> {
        let mut environment = prepared.environment.clone();
        environment.extend(wish.credentials.clone());
        let workspace = prepared.directories.workspace.to_string_lossy().into_owned();
        let user = user::of(self.spec.user.as_ref()).map_err(Refusal::from)?;
        let walls = around(&self.spec, prepared.trees.clone(), block, user);
        let tool = Tool {
            program: prepared.program.clone(),
            args: onboarding(choice, block, &workspace),
            environment: Some(environment),
            directory: Some(prepared.working_directory.clone()),
            // A profile has had an agent, whose plugins would be loaded.
            inside: Some(inside(&self.host, walls)),
        };
        let Ran { status, output } = tool.run(ONBOARDING).ok_or(SetupError::Endless)?;
        let output = last_of(&wish.without(&output)).to_owned();
        let log = prepared.directories.logs.join(LOG);
        Place::open(&prepared.directories.logs)
            .and_then(|logs| logs.put(LOG, output.as_bytes(), PRIVATE, Durability::Quick))
            .map_err(|source| SetupError::Write { path: log.clone(), source })?;
        if status == 0 {
            return Ok(output);
        }
        let last =
            output.lines().rev().map(str::trim).find(|line| line.len() > 1).unwrap_or("it said nothing");
        let last = last.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Err(SetupError::Onboarding { status, last, log })
    }
}

/// As all versions know it. `--skip-daemon` is the same as `--no-install-daemon`: the supervisor is the service.
fn onboarding(choice: &str, block: Block, workspace: &str) -> Vec<String> {
    let port = block.base.to_string();
    #[rustfmt::skip]
    let words = [
        "onboard", "--non-interactive", "--accept-risk", "--mode", "local", "--auth-choice", choice,
        "--gateway-port", &port, "--gateway-bind", "loopback", "--workspace", workspace,
        "--no-install-daemon", "--skip-channels", "--skip-skills", "--skip-health", "--skip-ui", "--json",
    ];
    words.map(str::to_owned).to_vec()
}

fn counted(number: usize) -> String {
    if number == 1 { "1 credential".into() } else { format!("{number} credentials") }
}

/// The end of a text, from the beginning of a line.
fn last_of(text: &str) -> &str {
    let Some(from) = text.len().checked_sub(OUTPUT) else { return text };
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[from..].split_once('\n').map_or("", |(_, rest)| rest)
}

/// A line of `.env`; which quotes it needs has been checked.
fn line(name: &str, value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:/+=@".contains(c);
    match (value.chars().all(plain), value.contains('\'')) {
        (true, _) => format!("{name}={value}"),
        (false, false) => format!("{name}='{value}'"),
        (false, true) => format!("{name}=\"{value}\""),
    }
}

fn env_file(directories: &Directories) -> io::Result<String> {
    // Before the first set-up there is no such directory.
    if !directories.state.exists() {
        return Ok(String::new());
    }
    let path = directories.state.join(ENV);
    let (place, name, _) = directories.own(&path).directory_of_link()?;
    let found = place.read(&name, ENV_BYTES)?;
    Ok(found.map(|found| String::from_utf8_lossy(&found.content).into_owned()).unwrap_or_default())
}

/// Puts the credentials into `.env`, in place of older ones of the same names.
fn keep(directories: &Directories, wish: &Wish) -> Result<(), SetupError> {
    let path = directories.state.join(ENV);
    let write = || {
        let before = env_file(directories)?;
        let is_other = |known: &&str| {
            let name = known.split_once('=').map_or("", |(name, _)| name.trim());
            !wish.credentials.contains_key(name.trim_start_matches("export ").trim())
        };
        let kept = before.lines().filter(is_other).map(str::to_owned);
        let added = wish.credentials.iter().map(|(name, value)| line(name, value));
        let text: String = kept.chain(added).map(|line| line + "\n").collect();
        let (place, name, _) = directories.own(&path).directory_of_link()?;
        place.put(&name, text.as_bytes(), PRIVATE, Durability::Durable)
    };
    write().map_err(|source| SetupError::Write { path: path.clone(), source })
}

#[cfg(test)]
mod tests;
