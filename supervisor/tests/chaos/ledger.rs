//! What was done, as the monkey saw it: a line of JSON for each act, and what the audit needs to know.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use serde_json::{Map, Value, json};

/// A gateway that the monkey killed.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    pub(crate) instance: String,
    pub(crate) pid: i32,
    /// In nanoseconds since the Unix epoch.
    pub(crate) at: u64,
}

/// All that was done so far.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
    began: Instant,
    /// Acts by kind.
    pub(crate) acts: BTreeMap<&'static str, u64>,
    /// Gateways killed, each once.
    pub(crate) kills: Vec<Kill>,
    /// How often a worker of each instance was killed, stopped or robbed: each can cost the knowledge of one exit.
    pub(crate) harms: BTreeMap<String, u64>,
    /// Instances whose gateway may have found its surroundings unfit: a port taken, a configuration corrupted.
    pub(crate) spoilt: BTreeSet<String>,
    /// Whether the disk was full at some time: gateways and workers may have died of it.
    pub(crate) disk_was_full: bool,
    /// Supervisors that were killed while what they had learned could not be written: the disk was full, and so it
    /// was for the workers. Each can cost the knowledge of one exit of each instance.
    pub(crate) starvations: u64,
    /// Supervisors that were killed.
    pub(crate) supervisors_killed: u64,
}

impl Ledger {
    /// Begins a journal in `directory`.
    pub(crate) fn begin(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("acts.jsonl");
        let file = File::create(&path).with_context(|| format!("failed to create `{}`", path.display()))?;
        Ok(Self {
            file,
            began: Instant::now(),
            acts: BTreeMap::new(),
            kills: Vec::new(),
            harms: BTreeMap::new(),
            spoilt: BTreeSet::new(),
            disk_was_full: false,
            starvations: 0,
            supervisors_killed: 0,
        })
    }

    /// Writes one act down.
    pub(crate) fn act(&mut self, kind: &'static str, details: Value) -> anyhow::Result<()> {
        *self.acts.entry(kind).or_default() += 1;
        self.note(kind, details)
    }

    /// Writes down what is not an act.
    pub(crate) fn note(&mut self, kind: &str, details: Value) -> anyhow::Result<()> {
        let mut line = Map::new();
        line.insert("ms".into(), json!(self.began.elapsed().as_millis() as u64));
        line.insert("unix_ns".into(), json!(unix_ns()));
        line.insert("act".into(), json!(kind));
        if let Value::Object(details) = details {
            line.extend(details);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // One write for each line, so that a line is whole or not there.
        self.file.write_all(text.as_bytes()).context("failed to write the journal of acts")
    }

    /// A gateway was killed by SIGKILL.
    pub(crate) fn killed(&mut self, instance: &str, pid: i32) {
        self.kills.push(Kill { instance: instance.to_owned(), pid, at: unix_ns() });
    }

    /// A worker was harmed.
    pub(crate) fn harmed(&mut self, instance: &str) {
        *self.harms.entry(instance.to_owned()).or_default() += 1;
    }

    /// How many exits of an instance may be beyond anybody's knowledge.
    pub(crate) fn excuses(&self, instance: &str) -> u64 {
        self.harms.get(instance).copied().unwrap_or(0) + self.starvations
    }

    /// Since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
