//! What a rescue is told about the primary it stands in for.
//!
//! In full in a file, in short in environment variables, so that a script, an agent or a person inside the
//! rescue knows at once who is down, since when and why, and what to type to look and to mend. All of that may be
//! typed inside the rescue; it is what a rescue has a right to.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Serialize;
use supervisor_core::ids::Name;

use super::file::{Durability, replace};

/// The longest sentence handed on, in bytes.
pub const MAX_TEXT: usize = 1024;
/// Log lines handed on: a stack trace and what led to it.
pub const MAX_LOG_LINES: usize = 200;
/// The longest log line handed on, in bytes.
const MAX_LOG_LINE: usize = 4096;

/// One primary that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Its number in the supervisor's history.
    pub number: u64,
    /// Who is down.
    pub primary: Name,
    /// Since when.
    pub since: SystemTime,
    /// Why, one sentence.
    pub reason: String,
    /// How its process ended, e.g. "killed by SIGKILL"; `None` if it still runs, as when it hangs.
    pub last_exit: Option<String>,
    /// The end of its log, oldest line first.
    pub log: Vec<String>,
    /// Its configuration.
    pub config: PathBuf,
    /// Its configuration's revision, if it could be read.
    pub config_revision: Option<String>,
    /// Its state directory.
    pub state_dir: PathBuf,
    /// Its gateway's port.
    pub port: u16,
}

/// The incidents could not be written down.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the incident file `{}`", path.display())]
pub struct IncidentError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The directory of an instance's incidents, beside its others: it reads all of that, and nothing else in there.
pub(super) const DIRECTORY: &str = "incident";

/// Where an instance's incidents are written.
#[must_use]
pub fn file(root: &Path) -> PathBuf {
    root.join(DIRECTORY).join("incident.json")
}

/// Brings the incident file up to date: all incidents, or no file when there are none.
pub fn write(path: &Path, rescue: &Name, incidents: &[Incident]) -> Result<(), IncidentError> {
    let failed = |source| IncidentError { path: path.to_owned(), source };
    if incidents.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    let file = File {
        version: 1,
        rescue,
        written: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        incidents: incidents.iter().map(Described::from).collect(),
    };
    let mut text = serde_json::to_string_pretty(&file).map_err(|error| failed(error.into()))?;
    text.push('\n');
    // After a power cut the incident is another one; it need not outlive it.
    replace(path, text.as_bytes(), 0o600, Durability::Quick).map_err(failed)
}

/// Since when, as RFC 3339.
pub(crate) fn since_text(incident: &Incident) -> String {
    humantime::format_rfc3339_seconds(incident.since).to_string()
}

/// How it ended, in words.
pub(crate) fn exit_text(incident: &Incident) -> String {
    shortened(incident.last_exit.as_deref().unwrap_or("still running"), MAX_TEXT).replace('\0', "")
}

/// At most the first `most` bytes of `text`.
pub(crate) fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[derive(Serialize)]
struct File<'a> {
    version: u32,
    rescue: &'a Name,
    written: String,
    incidents: Vec<Described<'a>>,
}

#[derive(Serialize)]
struct Described<'a> {
    number: u64,
    primary: &'a Name,
    since: String,
    reason: &'a str,
    last_exit: String,
    config: String,
    config_revision: Option<&'a str>,
    state_dir: String,
    port: u16,
    log: Vec<&'a str>,
    /// What to type, and what it does.
    commands: Vec<Command>,
}

#[derive(Serialize)]
struct Command {
    run: String,
    to: &'static str,
}

impl<'a> From<&'a Incident> for Described<'a> {
    fn from(incident: &'a Incident) -> Self {
        let primary = &incident.primary;
        let command = |run: String, to| Command { run, to };
        let skipped = incident.log.len().saturating_sub(MAX_LOG_LINES);
        Self {
            number: incident.number,
            primary,
            since: since_text(incident),
            reason: shortened(&incident.reason, MAX_TEXT),
            last_exit: exit_text(incident),
            config: incident.config.to_string_lossy().into_owned(),
            config_revision: incident.config_revision.as_deref(),
            state_dir: incident.state_dir.to_string_lossy().into_owned(),
            port: incident.port,
            log: incident.log[skipped..].iter().map(|line| shortened(line, MAX_LOG_LINE)).collect(),
            commands: vec![
                command(
                    format!("openclawctl incident {}", incident.number),
                    "read all that is known of this",
                ),
                command(format!("openclawctl status {primary}"), "see its state and why"),
                command(format!("openclawctl logs {primary} -n 200"), "read the end of its log"),
                command(
                    format!("openclawctl config snapshots {primary}"),
                    "see which configurations it has had, and which were good",
                ),
                command(
                    format!("openclawctl config diff {primary}"),
                    "see how its configuration differs from the last good one",
                ),
                command(
                    format!("openclawctl config rollback {primary} --yes"),
                    "put the last good configuration back, and start it with that",
                ),
                command(format!("openclawctl restart {primary}"), "start it anew"),
            ],
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use super::*;

    pub(crate) fn incident(primary: &str) -> Incident {
        Incident {
            number: 7,
            primary: Name::new(primary).unwrap(),
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
            reason: "it crashed".into(),
            last_exit: Some("killed by SIGKILL".into()),
            log: (0..300).map(|line| format!("line {line} {}", "ä".repeat(line * 10))).collect(),
            config: "/data/instances/main/state/openclaw.json".into(),
            config_revision: Some("0123456789abcdef".into()),
            state_dir: "/data/instances/main/state".into(),
            port: 18_789,
        }
    }

    /// The file's place in an instance's directory.
    fn made(root: &Path) -> PathBuf {
        fs::create_dir(root.join(DIRECTORY)).unwrap();
        file(root)
    }

    #[test]
    fn the_file_tells_who_since_when_why_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = made(directory.path());
        let rescue = Name::new("rescue").unwrap();
        write(&path, &rescue, &[incident("main")]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let told: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let first = &told["incidents"][0];
        assert_eq!(told["rescue"], "rescue");
        assert_eq!(first["primary"], "main");
        assert_eq!(first["since"], "2026-09-21T14:13:20Z");
        assert_eq!(first["last_exit"], "killed by SIGKILL");
        let log = first["log"].as_array().unwrap();
        assert_eq!(log.len(), MAX_LOG_LINES);
        assert!(log[199].as_str().unwrap().starts_with("line 299 ä"), "the newest lines are kept");
        assert!(log.iter().all(|line| line.as_str().unwrap().len() <= MAX_LOG_LINE));
        let commands = first["commands"].as_array().unwrap();
        let run: Vec<&str> = commands.iter().map(|command| command["run"].as_str().unwrap()).collect();
        assert_eq!(run[0], "openclawctl incident 7");
        for wanted in ["config diff main", "config rollback main --yes", "restart main"] {
            assert!(run.contains(&format!("openclawctl {wanted}").as_str()), "{run:?}");
        }
    }

    #[test]
    fn when_all_is_well_there_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = made(directory.path());
        let rescue = Name::new("rescue").unwrap();
        write(&path, &rescue, &[]).unwrap();
        write(&path, &rescue, &[incident("main")]).unwrap();
        write(&path, &rescue, &[]).unwrap();
        assert!(!path.exists());
    }
}
