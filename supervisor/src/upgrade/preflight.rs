//! The target's own word on an instance, before anything is stopped.
//!
//! A version is asked what its own documentation says a supervisor should ask: whether it takes the configuration
//! (`config validate`) and the database (`database preflight`, on a copy that SQLite itself makes consistent, so that
//! the gateway may go on). One that does not know a question is not held to it.

use std::{fs, time::Duration};

use serde::Deserialize;
use supervisor_core::{ids::Name, ports::Block};

use crate::{
    openclaw::{
        contract::tool,
        database::consolidated_by,
        layout::{Directories, Neighbour, resolve},
        prepare::{Host, Refusal},
        reach, runtime,
    },
    spec::InstanceSpec,
    tool::Tool,
    user,
};

/// OpenClaw takes up to 40 s to answer on a loaded host.
const ANSWER: Duration = Duration::from_secs(180);

/// Where OpenClaw keeps its database, in the state directory.
const DATABASE: &str = "state/openclaw.sqlite";

/// The copy that is shown to the new version, in the instance's temporary files.
const COPY: &str = "openclawctl-preflight.sqlite";

/// Lines of a message that are told: what it is, and about what. Advice to people without a supervisor follows.
const LINES: usize = 2;

/// Problems that are told; there may be hundreds.
const FEW: usize = 5;

/// `openclaw config validate --json`, as 2026.9.6 prints it.
#[derive(Debug, Deserialize)]
struct Verdict {
    valid: bool,
    #[serde(default)]
    issues: Vec<Issue>,
    /// Also of what it finds beside the configuration, such as a database of a newer version.
    #[serde(default)]
    error: Option<Said>,
}

#[derive(Debug, Deserialize)]
struct Said {
    message: String,
}

#[derive(Debug, Deserialize)]
struct Issue {
    #[serde(default)]
    path: String,
    #[serde(default)]
    message: String,
}

/// `openclaw database preflight --json`, likewise.
#[derive(Debug, Deserialize)]
struct Compared {
    schema: String,
    status: String,
}

/// What `schema` says.
const SCHEMA: &str = "openclaw.state-schema-preflight.v1";

/// Opens the version to the user who is to run it.
fn open_up(host: &Host, spec: &InstanceSpec) -> Result<(), Refusal> {
    match user::of(spec.user.as_ref())? {
        Some(_) => Ok(reach::open_version(&host.control.data_dir, &runtime::resolve(spec, host)?)?),
        None => Ok(()),
    }
}

/// Asks the version that `spec` is pinned to. What it could not be asked is told; an error is why it declines.
pub(super) fn ask(
    host: &Host,
    name: &Name,
    block: Block,
    (spec, neighbours): (&InstanceSpec, &[Neighbour]),
) -> Result<Vec<String>, String> {
    let refused = |refusal: Refusal| format!("{refusal}; {}", refusal.mend());
    open_up(host, spec).map_err(refused)?;
    let of = |words: &[&str]| {
        let args = words.iter().map(|word| (*word).to_owned()).collect();
        tool(host, (name, block, ""), (spec, neighbours), args).map_err(refused)
    };
    let mut notes = Vec::new();
    let validate = of(&["config", "validate", "--json"])?;
    if let Some(user) = validate.user() {
        reach::look_at(&user, &host.control.data_dir, &validate.program)
            .map_err(|error| format!("{error}; {}", error.mend()))?;
    }
    match answer::<Verdict>(&validate) {
        Some(Verdict { valid: true, .. }) => {}
        Some(Verdict { valid: false, issues, error }) => return Err(declined(&issues, error.as_ref())),
        None => notes.push("it could not be asked beforehand whether it takes the configuration".to_owned()),
    }
    let directories = Directories::of(&host.control.data_dir, name, spec);
    let database = resolve(&directories.state).join(DATABASE);
    if !database.is_file() {
        return Ok(notes);
    }
    let copy = directories.tmp.join(COPY);
    let asked = of(&["database", "preflight", &copy.to_string_lossy(), "--json"])?;
    let compared = consolidated_by(host, &asked, &database, &copy).map(|()| answer::<Compared>(&asked));
    // A leftover is replaced by the next one.
    let _ = fs::remove_file(&copy);
    match compared {
        Ok(compared) => match compared.filter(|compared| compared.schema == SCHEMA) {
            Some(Compared { status, .. }) if status == "incompatible" => {
                return Err("the database is newer than the version, or of another shape".to_owned());
            }
            Some(Compared { status, .. }) if status == "indeterminate" => {
                notes.push("it cannot tell beforehand whether it takes the database".to_owned());
            }
            Some(_) => {}
            None => notes.push("it could not be asked beforehand whether it takes the database".to_owned()),
        },
        Err(error) => notes.push(format!("its database cannot be shown to it beforehand: {error}")),
    }
    Ok(notes)
}

/// A program that does not know the question prints something else, or nothing.
fn answer<T: for<'a> Deserialize<'a>>(tool: &Tool) -> Option<T> {
    serde_json::from_str(&tool.ask(ANSWER)?).ok()
}

fn declined(issues: &[Issue], error: Option<&Said>) -> String {
    let one = |issue: &Issue| match issue.path.as_str() {
        "" => issue.message.clone(),
        path => format!("`{path}`: {}", issue.message),
    };
    let lines =
        |said: &Said| said.message.lines().take(LINES).map(str::to_owned).collect::<Vec<_>>().join(" ");
    match (issues, error) {
        ([], Some(error)) => format!("the version declines: {}", lines(error).trim_end_matches('.')),
        ([], None) => "the version declines, and does not say why".into(),
        (issues, _) => {
            let text = issues.iter().take(FEW).map(one).collect::<Vec<_>>().join("; ");
            format!("the version does not take the configuration: {text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_with_their_place() {
        let text = r#"{"valid":false,"path":"x","issues":[{"path":"gateway.port","message":"too big"},{"path":"","message":"odd"}]}"#;
        let verdict: Verdict = serde_json::from_str(text).unwrap();
        let told = declined(&verdict.issues, None);
        assert_eq!(told, "the version does not take the configuration: `gateway.port`: too big; odd");
        assert_eq!(declined(&[], None), "the version declines, and does not say why");
        // As printed by 2026.9.6.
        let text = r#"{"ok":false,"error":{"type":"cli_error","message":"This OpenClaw build cannot open your existing data.\nOpenClaw state database x uses newer schema version 9999; this build supports 18.\nRefused by"},"valid":false,"path":"x"}"#;
        let verdict: Verdict = serde_json::from_str(text).unwrap();
        let told = declined(&verdict.issues, verdict.error.as_ref());
        assert!(told.ends_with("cannot open your existing data. OpenClaw state database x uses newer schema version 9999; this build supports 18"), "{told}");
        assert!(serde_json::from_str::<Verdict>("error: unknown command 'validate'").is_err());
    }
}
