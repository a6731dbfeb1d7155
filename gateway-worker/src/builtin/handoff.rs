//! The restart handoff: a note by which a gateway that ends says "start me again", and by which its
//! supervisor tells that exit 0 from one that means "stopped".
//!
//! Fields, life time and answers are those of OpenClaw's protocol `openclaw.gateway.restart-handoff`, version
//! 1 (its `docs/cli/gateway/restart-and-supervision.md`). OpenClaw keeps the note in its SQLite store; here it
//! is a file in the state directory, which is nobody's business either way: supervisors ask by command.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::gateway::now_ms;

const PROTOCOL: &str = "openclaw.gateway.restart-handoff";
const PROTOCOL_VERSION: u64 = 1;
const KIND: &str = "gateway-supervisor-restart-handoff";
const FILE: &str = "gateway-restart-handoff.json";
const LOCK: &str = "gateway-restart-handoff.lock";
const DRAFT: &str = "gateway-restart-handoff.draft";
/// OpenClaw's life time of a note: an exit that is looked at later is an exit.
const LIFE_MS: u64 = 60_000;
/// OpenClaw's bound for the text that a caller may send along.
const REASON_CHARS: usize = 200;

/// What made the gateway restart, in OpenClaw's words.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// Somebody asked by command or method.
    OperatorRestart,
    /// SIGUSR2.
    Signal,
    /// The caller gave a reason that OpenClaw does not know.
    Unknown,
}

/// The note.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Handoff {
    kind: String,
    version: u64,
    intent_id: String,
    pid: u64,
    process_instance_id: String,
    created_at: u64,
    expires_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    source: Source,
    restart_kind: String,
    supervisor_mode: String,
}

impl Handoff {
    /// The note of this process.
    pub(crate) fn new(boot_id: &str, reason: &str, source: Source) -> Self {
        let reason: String = reason.trim().chars().take(REASON_CHARS).collect();
        let created_at = now_ms();
        Self {
            kind: KIND.to_owned(),
            version: PROTOCOL_VERSION,
            intent_id: Uuid::now_v7().to_string(),
            pid: u64::from(std::process::id()),
            process_instance_id: boot_id.to_owned(),
            created_at,
            expires_at: created_at + LIFE_MS,
            reason: Some(reason).filter(|reason| !reason.is_empty()),
            source,
            restart_kind: "full-process".to_owned(),
            supervisor_mode: "external".to_owned(),
        }
    }

    /// Leaves the note in the state directory, whole or not at all.
    pub(crate) fn leave(&self, state_dir: &Path) -> io::Result<()> {
        let _lock = lock(state_dir)?;
        let draft = state_dir.join(DRAFT);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(draft, state_dir.join(FILE))
    }

    fn is_sound(&self, now: u64) -> bool {
        self.kind == KIND
            && self.version == PROTOCOL_VERSION
            && !self.intent_id.is_empty()
            && self.created_at <= now
            && (1..=LIFE_MS).contains(&self.expires_at.saturating_sub(self.created_at))
    }
}

/// What came of taking the note.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub(crate) enum Taken {
    /// It was there for this process, and is there no more.
    Accepted { handoff: Box<Handoff> },
    /// It was not for this process, or worth nothing.
    Rejected {
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        handoff_pid: Option<u64>,
    },
    /// There was none.
    None { reason: &'static str },
}

/// Takes the note of the process `expected_pid`. One that is for another process stays for whoever waits for
/// it; any other is gone before the answer, so that no two callers are told to start the same gateway.
pub(crate) fn take(state_dir: &Path, expected_pid: u64, now: u64) -> io::Result<Taken> {
    let _lock = lock(state_dir)?;
    let path = state_dir.join(FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Taken::None { reason: "missing" }),
        read => read?,
    };
    let sound = serde_json::from_slice::<Handoff>(&bytes).ok().filter(|handoff| handoff.is_sound(now));
    let taken = match sound {
        None => Taken::Rejected { reason: "invalid", handoff_pid: None },
        Some(old) if old.expires_at <= now => {
            Taken::Rejected { reason: "expired", handoff_pid: Some(old.pid) }
        }
        Some(other) if other.pid != expected_pid => {
            return Ok(Taken::Rejected { reason: "pid-mismatch", handoff_pid: Some(other.pid) });
        }
        Some(handoff) => Taken::Accepted { handoff: Box::new(handoff) },
    };
    fs::remove_file(&path)?;
    Ok(taken)
}

/// Held by whoever writes or takes the note, for the moment that this takes.
fn lock(state_dir: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(state_dir.join(LOCK))?;
    file.lock()?;
    Ok(file)
}

/// What a supervisor reads, field by field as OpenClaw prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    ok: bool,
    protocol: &'static str,
    protocol_version: u64,
    #[serde(flatten)]
    said: Said,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said {
    Capabilities { operations: [&'static str; 1] },
    Taken(Taken),
    Refused { status: &'static str, reason: &'static str },
}

impl Answer {
    /// The answer to "what can you do?".
    pub(crate) fn capabilities() -> Self {
        Self::new(true, Said::Capabilities { operations: ["consume"] })
    }

    /// What came of taking the note.
    pub(crate) fn taken(taken: Taken) -> Self {
        Self::new(true, Said::Taken(taken))
    }

    /// The answer where nothing could be taken, for this reason.
    pub(crate) fn refused(reason: &'static str) -> Self {
        Self::new(false, Said::Refused { status: "error", reason })
    }

    fn new(ok: bool, said: Said) -> Self {
        Self { ok, protocol: PROTOCOL, protocol_version: PROTOCOL_VERSION, said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left() -> (tempfile::TempDir, Handoff) {
        let state = tempfile::tempdir().unwrap();
        let handoff = Handoff::new("boot", " gateway.restart ", Source::OperatorRestart);
        handoff.leave(state.path()).unwrap();
        (state, handoff)
    }

    #[test]
    fn a_note_is_taken_once_and_only_for_its_own_process() {
        let (state, handoff) = left();
        let (pid, now) = (handoff.pid, handoff.created_at);
        let take = |pid| take(state.path(), pid, now).unwrap();
        let mismatch = Taken::Rejected { reason: "pid-mismatch", handoff_pid: Some(pid) };
        assert_eq!(take(pid + 1), mismatch);
        assert_eq!(take(pid), Taken::Accepted { handoff: Box::new(handoff) });
        assert_eq!(take(pid), Taken::None { reason: "missing" });
    }

    #[test]
    fn an_old_note_is_refused_and_gone() {
        let (state, handoff) = left();
        let later = handoff.created_at + LIFE_MS;
        let expired = Taken::Rejected { reason: "expired", handoff_pid: Some(handoff.pid) };
        assert_eq!(take(state.path(), handoff.pid, later).unwrap(), expired);
        assert_eq!(take(state.path(), handoff.pid, later).unwrap(), Taken::None { reason: "missing" });
    }

    #[test]
    fn a_note_that_cannot_be_is_refused_and_gone() {
        let (state, mut handoff) = left();
        let invalid = Taken::Rejected { reason: "invalid", handoff_pid: None };
        let missing = Taken::None { reason: "missing" };
        assert_eq!(take(state.path(), handoff.pid, handoff.created_at - 1).unwrap(), invalid);
        for forged in [0, handoff.created_at + LIFE_MS + 1] {
            handoff.expires_at = forged;
            handoff.leave(state.path()).unwrap();
            assert_eq!(take(state.path(), handoff.pid, handoff.created_at).unwrap(), invalid, "{forged}");
        }
        fs::write(state.path().join(FILE), "{").unwrap();
        assert_eq!(take(state.path(), handoff.pid, handoff.created_at).unwrap(), invalid);
        assert_eq!(take(state.path(), handoff.pid, handoff.created_at).unwrap(), missing);
    }

    #[test]
    fn a_reason_is_bounded() {
        let long = Handoff::new("boot", &"x".repeat(REASON_CHARS + 1), Source::Unknown);
        assert_eq!(long.reason.unwrap().len(), REASON_CHARS);
        assert_eq!(Handoff::new("boot", " ", Source::Unknown).reason, None);
    }
}
