//! What people and programs read.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use supervisor_core::time::Humane;
use supervisor_proto::text::misleads;

use super::{
    desk::Notice,
    trouble::{Turn, Weight},
};
use crate::problem::cut;

/// The longest text; ntfy and Telegram take 4,096 bytes.
const LONGEST: usize = 3_500;

/// The longest sentence in it. What a gateway said of itself may be longer.
const LONGEST_LINE: usize = 400;

/// All alerts together, for programs: a variable of the environment holds 128 KiB (execve(2)), whatever an agent has made
/// its instance say.
const LONGEST_JSON: usize = 100_000;

/// The most that is told one by one: things that went wrong, and what was done about each.
const MOST: usize = 10;

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    /// One line.
    pub(super) title: String,
    /// What happened, what was done, what is left to do.
    pub(super) text: String,
    /// How much the worst of it matters.
    pub(super) weight: Weight,
    /// All of it is over.
    pub(super) is_over: bool,
    /// The same for programs.
    pub(super) json: Value,
}

/// Something that was done about it, when, in nanoseconds since the Unix epoch.
pub(super) type Deed = (u64, String);

/// A message of all these. `deeds` has what was done, by instance; `host` is where.
pub(super) fn compose(notices: &[Notice], deeds: &BTreeMap<String, Vec<Deed>>, host: &str) -> Message {
    let folded = fold(notices);
    let is_over = folded.iter().all(|(notice, _)| matches!(notice.turn, Turn::Ended | Turn::Mended));
    let weight = folded.iter().map(|(notice, _)| notice.trouble.weight).max().unwrap_or(Weight::Warning);
    let title = match folded.as_slice() {
        [(notice, was_told)] => headline(notice, *was_told),
        several => {
            let over = several.iter().filter(|(notice, _)| notice.turn == Turn::Ended).count();
            match (several.len() - over, over) {
                (wrong, 0) => format!("{wrong} things went wrong"),
                (0, over) => format!("{over} things are well again"),
                (wrong, over) => format!("{wrong} things went wrong, {over} are well again"),
            }
        }
    };
    let title = printable(&format!("{} ({host})", cut(&title, LONGEST_LINE)));
    let mut text = String::new();
    for (notice, was_told) in folded.iter().take(MOST) {
        let deeds = deeds.get(&notice.trouble.instance).map(Vec::as_slice).unwrap_or_default();
        if folded.len() > 1 {
            text.push_str(&format!("{}\n", printable(&cut(&headline(notice, *was_told), LONGEST_LINE))));
        }
        text.push_str(&paragraph(notice, deeds));
    }
    if folded.len() > MOST {
        text.push_str(&format!("… and {} more: openclawctl status\n", folded.len() - MOST));
    }
    let alerts = as_many_as_fit(folded.iter().map(|(notice, _)| shown(notice, deeds)));
    let json = json!({
        "version": 1, "host": host, "title": title, "severity": weight.word(), "alerts": alerts,
        "more": folded.len() - alerts.len(),
    });
    Message { title, text: cut(text.trim_end(), LONGEST), weight, is_over, json }
}

fn as_many_as_fit(alerts: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut left = LONGEST_JSON;
    alerts
        .map_while(|alert| {
            left = left.checked_sub(alert.to_string().len())?;
            Some(alert)
        })
        .collect()
}

/// What is left of several notices about the same thing: the last, and whether its beginning was told before.
fn fold(notices: &[Notice]) -> Vec<(Notice, bool)> {
    let mut folded: Vec<(Notice, bool)> = Vec::new();
    for notice in notices {
        match folded.iter_mut().find(|(known, _)| known.key == notice.key && notice.turn != Turn::Mended) {
            Some((known, _)) => *known = notice.clone(),
            None => folded.push((notice.clone(), notice.turn == Turn::Ended)),
        }
    }
    folded
}

fn headline(notice: &Notice, was_told: bool) -> String {
    let trouble = &notice.trouble;
    let of = if trouble.instance.is_empty() { "the supervisor" } else { &trouble.instance };
    match notice.turn {
        Turn::Began | Turn::Worse | Turn::Mended | Turn::Test => trouble.title.clone(),
        Turn::Ended if notice.key.starts_with("sink/") => format!("no more: {}", trouble.title),
        Turn::Ended if was_told => format!("{of} is well again"),
        Turn::Ended => format!("{of} is well again; it was not for {}", lasted(notice)),
    }
}

fn lasted(notice: &Notice) -> Humane {
    Humane(std::time::Duration::from_secs(notice.at_ns.saturating_sub(notice.since_ns) / 1_000_000_000))
}

fn paragraph(notice: &Notice, deeds: &[Deed]) -> String {
    let trouble = &notice.trouble;
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&printable(&cut(&line, LONGEST_LINE)));
        text.push('\n');
    };
    match notice.turn {
        Turn::Ended => line(format!("It was not for {}.", lasted(notice))),
        Turn::Began | Turn::Worse | Turn::Mended | Turn::Test => {
            if !trouble.why.is_empty() {
                line(format!("{}.", trouble.why));
            }
        }
    }
    for (at, deed) in deeds {
        line(format!("  {}  {deed}", clock(*at)));
    }
    match notice.turn {
        Turn::Ended => {
            line(format!("To read on: openclawctl events {}", trouble.instance).trim_end().to_owned());
        }
        Turn::Began | Turn::Worse | Turn::Mended => line(format!("To do: {}", trouble.hint)),
        Turn::Test => {}
    }
    text
}

fn shown(notice: &Notice, deeds: &BTreeMap<String, Vec<Deed>>) -> Value {
    let trouble = &notice.trouble;
    let deeds = deeds.get(&trouble.instance).map(Vec::as_slice).unwrap_or_default();
    let line = |text: &str| printable(&cut(text, LONGEST_LINE));
    let last = deeds.len().saturating_sub(MOST);
    let deeds: Vec<Value> =
        deeds.iter().skip(last).map(|(at, deed)| json!({ "time": time(*at), "what": line(deed) })).collect();
    json!({
        "key": notice.key,
        "state": notice.turn.word(),
        "instance": trouble.instance,
        "severity": trouble.weight.word(),
        "title": line(&trouble.title),
        "why": line(&trouble.why),
        "done": deeds,
        "to_do": line(&trouble.hint),
        "since": time(notice.since_ns),
        "time": time(notice.at_ns),
    })
}

fn moment(unix_ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn time(unix_ns: u64) -> String {
    moment(unix_ns - unix_ns % 1_000_000).to_string()
}

fn clock(unix_ns: u64) -> String {
    moment(unix_ns).to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// What a gateway has written reaches people's terminals and phones as text, and as nothing else.
fn printable(text: &str) -> String {
    text.chars().map(|c| if misleads(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
