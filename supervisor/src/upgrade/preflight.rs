//! The target's own word on an instance, before anything is stopped.
//!
//! A version is asked what its own documentation says a supervisor should ask: whether it takes the configuration
//! (`config validate`) and the database (`database preflight`, on a copy that SQLite itself makes consistent, so that
//! the gateway may go on). One that does not know a question is not held to it.

use std::{fs, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;
use supervisor_core::{ids::Name, ports::Block};

use crate::{
    openclaw::{contract::tool, layout::Directories, prepare::Host},
    spec::InstanceSpec,
    tool::Tool,
};

/// OpenClaw takes up to 40 s to answer on a loaded host.
const ANSWER: Duration = Duration::from_secs(180);

/// Where OpenClaw keeps its database, in the state directory.
const DATABASE: &str = "state/openclaw.sqlite";

/// The copy that is shown to the new version, in the instance's temporary files.
const COPY: &str = "openclawctl-preflight.sqlite";

/// Its writer may hold the database for a moment.
const BUSY: Duration = Duration::from_secs(30);

/// Problems that are told; there may be hundreds.
const FEW: usize = 5;

/// `openclaw config validate --json`, as 2026.9.6 prints it.
#[derive(Debug, Deserialize)]
struct Verdict {
    valid: bool,
    #[serde(default)]
    issues: Vec<Issue>,
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

/// Asks the version that `spec` is pinned to. What it could not be asked is told; an error is why it declines.
pub(super) fn ask(
    host: &Host,
    name: &Name,
    block: Block,
    spec: &InstanceSpec,
) -> Result<Vec<String>, String> {
    let of = |words: &[&str]| {
        let args = words.iter().map(|word| (*word).to_owned()).collect();
        tool(host, (name, block, ""), spec, args).map_err(|error| format!("{error}; {}", error.mend()))
    };
    let mut notes = Vec::new();
    match answer::<Verdict>(&of(&["config", "validate", "--json"])?) {
        Some(Verdict { valid: true, .. }) => {}
        Some(Verdict { valid: false, issues }) => {
            return Err(format!("it does not take the configuration: {}", told(&issues)));
        }
        None => notes.push("it could not be asked beforehand whether it takes the configuration".to_owned()),
    }
    let directories = Directories::of(&host.control.data_dir, name, spec.profile.as_ref());
    let database = directories.state.join(DATABASE);
    if !database.is_file() {
        return Ok(notes);
    }
    let copy = directories.tmp.join(COPY);
    let compared = consolidated(&database, &copy).map(|()| {
        of(&["database", "preflight", &copy.to_string_lossy(), "--json"]).map(|tool| answer(&tool))
    });
    // A leftover is replaced by the next one.
    let _ = fs::remove_file(&copy);
    match compared {
        Ok(compared) => match compared?.filter(|compared: &Compared| compared.schema == SCHEMA) {
            Some(Compared { status, .. }) if status == "incompatible" => {
                return Err("its database is newer than it, or of another shape".to_owned());
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

fn told(issues: &[Issue]) -> String {
    let one = |issue: &Issue| match issue.path.as_str() {
        "" => issue.message.clone(),
        path => format!("`{path}`: {}", issue.message),
    };
    let text = issues.iter().take(FEW).map(one).collect::<Vec<_>>().join("; ");
    if text.is_empty() { "it does not say why".into() } else { text }
}

/// One file that holds all that the database does, whoever writes to it meanwhile.
fn consolidated(database: &Path, copy: &Path) -> Result<(), rusqlite::Error> {
    let _ = fs::remove_file(copy);
    let source = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    source.busy_timeout(BUSY)?;
    source.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_written_to_is_shown_as_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let (database, copy) = (directory.path().join("a.sqlite"), directory.path().join("b.sqlite"));
        let writer = Connection::open(&database).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer.pragma_update(None, "user_version", 7).unwrap();
        writer.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        for _ in 0..2 {
            consolidated(&database, &copy).unwrap();
            let shown = Connection::open(&copy).unwrap();
            assert_eq!(shown.query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
            assert_eq!(shown.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
        }
        assert!(!directory.path().join("b.sqlite-wal").exists());
    }

    #[test]
    fn problems_are_told_with_their_place() {
        let text = r#"{"valid":false,"path":"x","issues":[{"path":"gateway.port","message":"too big"},{"path":"","message":"odd"}]}"#;
        let verdict: Verdict = serde_json::from_str(text).unwrap();
        assert_eq!(told(&verdict.issues), "`gateway.port`: too big; odd");
        assert_eq!(told(&[]), "it does not say why");
        assert!(serde_json::from_str::<Verdict>("error: unknown command 'validate'").is_err());
    }
}
