//! What waits to be told to whom, and until when.
//!
//! It is kept in a file of its own beside the store, and written before anything is sent: whoever dies between the two
//! tells it once more, and never not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use jiff::civil::Time;
use serde::{Deserialize, Serialize};

use super::trouble::{Known, Trouble, Troubles, Turn, Weight};
use crate::settings::alerts::{Alerts, Sink};

/// The file in the data directory.
pub(crate) const FILE: &str = "alerts.json";

/// What has not been told by then interests nobody any more.
const OLDEST: Duration = Duration::from_secs(24 * 3600);

/// The most that waits for one sink; of more the oldest are dropped, and counted.
const MOST: usize = 500;

/// Between the first failure and the next trial. It doubles up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_secs(600);

/// A sink that has failed for so long is told of to the others.
const LOST: Duration = Duration::from_secs(120);

/// What is told of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// Of which.
    pub(crate) key: String,
    /// What became of it.
    pub(crate) turn: Turn,
    /// It.
    pub(crate) trouble: Trouble,
    /// Since when, in nanoseconds since the Unix epoch.
    pub(crate) since_ns: u64,
    /// When this was known.
    pub(crate) at_ns: u64,
}

/// A notice that has not been told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    number: u64,
    sink: String,
    /// Not before this.
    due_ns: u64,
    /// Nothing is told if it has ended by then.
    in_case: bool,
    notice: Notice,
}

/// How a sink does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// When it was told something last, in nanoseconds since the Unix epoch.
    pub(crate) told_ns: Option<u64>,
    /// Since when it cannot be told anything, and why.
    pub(crate) failing: Option<(u64, String)>,
    /// What it was not told, for it could not be reached in time.
    pub(crate) dropped: u64,
    /// Of what it was told that it began, or will be.
    of: BTreeSet<String>,
    trials: u32,
    retry_ns: u64,
}

/// All that is known and waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Desk {
    /// What is wrong.
    pub(crate) troubles: Troubles,
    /// How far the journal has been read.
    pub(crate) read: Option<u64>,
    waiting: Vec<Waiting>,
    records: BTreeMap<String, Record>,
    numbers: u64,
}

/// The time, in the ways in which it is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Nanoseconds since the Unix epoch.
    pub(super) ns: u64,
    /// The host's local time.
    pub(super) local: Time,
    /// When the host booted, in nanoseconds since the Unix epoch.
    pub(super) booted_ns: u64,
}

impl Now {
    fn after(self, span: Duration) -> u64 {
        later(self.ns, span)
    }
}

/// What is to be told to a sink now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) sink: Sink,
    pub(super) notices: Vec<Notice>,
    numbers: Vec<u64>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken.
    Told,
    /// It was not, for this reason; whoever refused it asked to be left alone for so long.
    Failed(String, Duration),
}

impl Desk {
    /// That of an earlier supervisor; a new one if there is none, or none that can be read.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        match fs::read(data_dir.join(FILE)) {
            Ok(content) => Ok(serde_json::from_slice(&content)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it so that the next one reads the whole of it, or the one before.
    pub(super) fn save(&self, data_dir: &Path) -> io::Result<()> {
        let new = data_dir.join(format!("{FILE}.new"));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(new, data_dir.join(FILE))?;
        File::open(data_dir)?.sync_all()
    }

    /// Takes in what is wrong now. Whether there was anything new.
    pub(super) fn take(&mut self, mut current: BTreeMap<String, Trouble>, now: Now, alerts: &Alerts) -> bool {
        self.forget(alerts, now);
        current.extend(self.lost(now));
        let before = self.troubles.0.len();
        let turns = self.troubles.take(current, now.ns, alerts.after);
        let is_new = !turns.is_empty() || self.troubles.0.len() != before;
        for (turn, known, key) in turns {
            let Known { trouble, since_ns, .. } = known;
            self.tell(&Notice { key, turn, trouble, since_ns, at_ns: now.ns }, now, alerts);
        }
        is_new
    }

    /// Puts a notice before everyone whom it concerns.
    pub(super) fn tell(&mut self, notice: &Notice, now: Now, alerts: &Alerts) {
        let boot_ends = later(now.booted_ns, alerts.boot_grace);
        for sink in alerts.sinks.iter().filter(|sink| concerns(sink, notice)) {
            let record = self.records.entry(sink.name.clone()).or_default();
            let is_known = record.of.contains(&notice.key);
            let mut due_ns = now.after(alerts.group_for);
            let mut in_case = false;
            match notice.turn {
                Turn::Ended if !is_known => continue,
                Turn::Ended => {
                    record.of.remove(&notice.key);
                    let count = self.waiting.len();
                    let told_of = |one: &Waiting| one.sink == sink.name && one.notice.key == notice.key;
                    self.waiting.retain(|one| !(one.in_case && told_of(one)));
                    if self.waiting.len() < count {
                        continue;
                    }
                }
                Turn::Began | Turn::Worse => {
                    if !notice.trouble.weight.reaches(sink.severity) {
                        continue;
                    }
                    record.of.insert(notice.key.clone());
                    let first = later(notice.since_ns, sink.after).max(boot_ends);
                    in_case = !is_known && first > due_ns;
                    due_ns = if is_known { due_ns } else { due_ns.max(first) };
                }
                Turn::Mended | Turn::Test => {
                    if !notice.trouble.weight.reaches(sink.severity) {
                        continue;
                    }
                }
            }
            self.numbers += 1;
            let (number, sink) = (self.numbers, sink.name.clone());
            self.waiting.push(Waiting { number, sink, due_ns, in_case, notice: notice.clone() });
        }
    }

    /// What is to be told now, by sink. Those that are being told something are left alone.
    pub(super) fn due(&self, now: Now, alerts: &Alerts, busy: &BTreeSet<String>) -> Vec<Batch> {
        let is_quiet = alerts.quiet.is_some_and(|quiet| quiet.holds_at(now.local));
        let batch = |sink: &Sink| {
            let record = self.records.get(&sink.name);
            if busy.contains(&sink.name) || record.is_some_and(|record| record.retry_ns > now.ns) {
                return None;
            }
            let is_held = |one: &Waiting| {
                is_quiet && !sink.in_quiet_hours && one.notice.trouble.weight == Weight::Warning
            };
            let mine = self.waiting.iter().filter(|one| one.sink == sink.name && !is_held(one));
            if !mine.clone().any(|one| one.due_ns <= now.ns) {
                return None;
            }
            let together = mine.filter(|one| one.due_ns <= now.after(alerts.group_for));
            let (numbers, notices) = together.map(|one| (one.number, one.notice.clone())).unzip();
            Some(Batch { sink: sink.clone(), notices, numbers })
        };
        alerts.sinks.iter().filter_map(batch).collect()
    }

    /// Takes in what became of a batch.
    pub(super) fn settle(&mut self, batch: &Batch, outcome: Outcome, now: Now) {
        let record = self.records.entry(batch.sink.name.clone()).or_default();
        match outcome {
            Outcome::Told => {
                self.waiting.retain(|one| !batch.numbers.contains(&one.number));
                *record = Record {
                    told_ns: Some(now.ns),
                    of: std::mem::take(&mut record.of),
                    dropped: record.dropped,
                    ..Record::default()
                };
            }
            Outcome::Failed(why, leave) => {
                let delay = FASTEST.saturating_mul(1 << record.trials.min(16)).min(SLOWEST).max(leave);
                record.trials = record.trials.saturating_add(1);
                record.retry_ns = now.after(delay);
                let since = record.failing.as_ref().map_or(now.ns, |(since, _)| *since);
                record.failing = Some((since, why));
            }
        }
    }

    /// How a sink does, and how much waits for it.
    pub(crate) fn record(&self, sink: &str) -> (Record, usize) {
        let waiting = self.waiting.iter().filter(|one| one.sink == sink).count();
        (self.records.get(sink).cloned().unwrap_or_default(), waiting)
    }

    /// Drops what is for nobody, what is too old and what is too much.
    fn forget(&mut self, alerts: &Alerts, now: Now) {
        let is_there = |name: &str| alerts.sinks.iter().any(|sink| sink.name == name);
        self.records.retain(|name, _| is_there(name));
        self.waiting.retain(|one| is_there(&one.sink));
        for sink in &alerts.sinks {
            let mine = self.waiting.iter().filter(|one| one.sink == sink.name).count();
            let mut too_many = mine.saturating_sub(MOST);
            let before = self.waiting.len();
            self.waiting.retain(|one| {
                if one.sink != sink.name {
                    return true;
                }
                let is_old = later(one.due_ns, OLDEST) < now.ns;
                let is_too_much = too_many > 0;
                too_many = too_many.saturating_sub(1);
                !(is_old || is_too_much)
            });
            let dropped = u64::try_from(before - self.waiting.len()).unwrap_or(0);
            if dropped > 0 {
                self.records.entry(sink.name.clone()).or_default().dropped += dropped;
            }
        }
    }

    /// Sinks that cannot be told anything: the others are told so.
    fn lost(&self, now: Now) -> Vec<(String, Trouble)> {
        let lost = self.records.iter().filter_map(|(name, record)| {
            let (since, why) = record.failing.as_ref()?;
            let trouble = Trouble {
                instance: String::new(),
                weight: Weight::Warning,
                title: format!("alerts do not reach {name}"),
                why: why.clone(),
                hint: format!("openclawctl alerts test {name}"),
                at_once: true,
            };
            (later(*since, LOST) <= now.ns).then(|| (key_of(name), trouble))
        });
        lost.collect()
    }
}

/// Under what it is known that a sink cannot be told anything.
fn key_of(sink: &str) -> String {
    format!("sink/{sink}")
}

fn concerns(sink: &Sink, notice: &Notice) -> bool {
    let is_its =
        sink.instances.is_empty() || sink.instances.iter().any(|name| **name == *notice.trouble.instance);
    is_its && notice.key != key_of(&sink.name)
}

fn later(ns: u64, span: Duration) -> u64 {
    ns.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
