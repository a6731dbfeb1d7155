//! Instance names for the shell's completion: quick, and silent when there is nobody to ask.

use std::{env, ffi::OsStr, path::PathBuf, time::Duration};

use clap_complete::CompletionCandidate;
use supervisor_proto::v1::{Instance, ListInstancesRequest, ListSnapshotsRequest};
use tokio::{runtime::Builder, time::timeout};

use crate::{
    app::{Global, Output},
    connect::{Supervisor, Target},
    contexts::{Contexts, Door},
    render::{
        config,
        style::{Color, phase_word},
    },
    view,
};

/// The variable by which a shell asks for completions.
pub(crate) const VARIABLE: &str = "OPENCLAWCTL_COMPLETE";

/// A person waits with a finger on the key.
const DEADLINE: Duration = Duration::from_millis(400);

/// The instances whose names begin with `current`, with their phases.
pub(crate) fn instances(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    known()
        .unwrap_or_default()
        .into_iter()
        .filter(|instance| instance.name.starts_with(current) && is_harmless(&instance.name))
        .map(|instance| {
            let phase = phase_word(view::status(&instance).phase());
            CompletionCandidate::new(instance.name).help(Some(phase.into()))
        })
        .collect()
}

/// The snapshots, of the instance that is named before, whose names begin with `current`.
pub(crate) fn snapshots(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let Some(name) = named_before() else { return Vec::new() };
    let request = ListSnapshotsRequest { name, ..Default::default() };
    let answer = asked(async |supervisor| supervisor.configs().list_snapshots(request).await.ok());
    let snapshots = answer.map(|answer| answer.into_inner().snapshots).unwrap_or_default();
    snapshots
        .into_iter()
        .filter(|snapshot| snapshot.id.starts_with(current) && is_harmless(&snapshot.id))
        .map(|snapshot| {
            let (state, _) = config::state(&snapshot);
            CompletionCandidate::new(config::short(&snapshot.id)).help(Some(state.into()))
        })
        .collect()
}

/// Whether a shell takes it as a word and nothing else, unquoted as it stands on the line. A supervisor may be anybody's.
fn is_harmless(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// The contexts whose names begin with `current`, with where they lead.
pub(crate) fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    let (Some(current), Ok(contexts)) = (current.to_str(), Contexts::load()) else { return Vec::new() };
    let begun = contexts.all().filter(|(name, _)| name.starts_with(current));
    begun
        .map(|(name, entry)| {
            let place = match &entry.door {
                Door::Unix(socket) => socket.display().to_string(),
                Door::Tcp(tcp) => tcp.address.clone(),
            };
            CompletionCandidate::new(name).help(Some(place.into()))
        })
        .collect()
}

/// The instance in `config VERB NAME …`.
fn named_before() -> Option<String> {
    let words: Vec<String> = env::args_os().filter_map(|word| word.into_string().ok()).collect();
    let verb = words.iter().rposition(|word| word == "config")? + 1;
    words.into_iter().skip(verb + 1).find(|word| !word.starts_with('-'))
}

fn known() -> Option<Vec<Instance>> {
    let answer = asked(async |supervisor| {
        supervisor.instances().list_instances(ListInstancesRequest::default()).await.ok()
    });
    Some(answer?.into_inner().instances)
}

/// What the supervisor answers, if it does so in time.
fn asked<T>(question: impl AsyncFnOnce(Supervisor) -> Option<T>) -> Option<T> {
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let target = Target::resolve(&global()).ok()?;
    runtime.block_on(async {
        let ask = async { question(Supervisor::connect(&target).await.ok()?).await };
        timeout(DEADLINE, ask).await.ok().flatten()
    })
}

/// The options that say where the supervisor is, from the half-typed command line.
fn global() -> Global {
    let words: Vec<_> = env::args_os().collect();
    let given = |name: &str| -> Option<PathBuf> {
        words.iter().enumerate().find_map(|(at, word)| {
            let word = word.to_str()?;
            match word.strip_prefix(name)?.strip_prefix('=') {
                Some(value) => Some(value.into()),
                None if word == name => words.get(at + 1).map(PathBuf::from),
                None => None,
            }
        })
    };
    let option = |name, variable| given(name).or_else(|| env::var_os(variable).map(PathBuf::from));
    Global {
        data_dir: option("--data-dir", "OPENCLAWCTL_DATA_DIR"),
        socket: option("--socket", "OPENCLAWCTL_SOCKET"),
        token_file: option("--token-file", "OPENCLAWCTL_TOKEN_FILE"),
        context: given("--context").and_then(|name| name.into_os_string().into_string().ok()),
        output: Output::Table,
        color: Color::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_run_is_not_offered() {
        assert!(["main", "web-1", "a1b2c3", "x_y.z"].into_iter().all(is_harmless));
        let words = ["a$(id)", "a`id`", "a;id", "a b", "a'b", "a\\b", "a\u{1b}[0m", "a>b", "~root", "a&"];
        assert!(!words.into_iter().any(is_harmless));
    }
}
