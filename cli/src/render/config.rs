//! Configurations: which snapshot is what, what differs, and what an operator should know.

use supervisor_proto::v1::{
    ConfigStatus, Instance, LadderStatus, ListSnapshotsResponse, Phase, Snapshot, ladder_status::Rung,
    snapshot::Standing,
};

use super::{
    status::bytes,
    style::{self, INDENT, clause, paint, printable, printable_line, stdout_width, wrapped},
    table::{Cell, Side, Table},
    time::{Clock, ago},
};
use crate::view;

/// Digits by which people tell contents apart; those that the supervisor's sentences have.
const DIGITS: usize = 12;

/// What is said of a file that no gateway could start with.
pub(crate) const BROKEN: &str = "the file would not survive the next start";

/// The first digits of a snapshot's name.
pub(crate) fn short(id: &str) -> String {
    printable(id.get(..DIGITS).unwrap_or(id))
}

/// The table of snapshots, and below it what a table cannot tell.
pub(crate) fn snapshots(name: &str, answer: &ListSnapshotsResponse) -> String {
    let clock = Clock::local();
    if answer.snapshots.is_empty() {
        return format!("no configuration of {} has been seen yet\n", printable(name));
    }
    let mut table = Table::new([
        ("SNAPSHOT", Side::Left),
        ("KEPT", Side::Left),
        ("SIZE", Side::Right),
        ("STATE", Side::Left),
    ])
    .within(stdout_width())
    .ranked(&["SNAPSHOT", "STATE", "KEPT"]);
    for each in &answer.snapshots {
        let kept = each.create_time.as_ref().map_or_else(|| "-".to_owned(), |at| clock.time(at));
        let (state, look) = state(each);
        table.row(vec![
            Cell::styled(short(&each.id), style::STRONG),
            kept.into(),
            bytes(each.bytes).into(),
            if state.is_empty() { Cell::none() } else { Cell::styled(state, look) },
        ]);
    }
    let mut out = String::new();
    table.render(&mut out);
    let told: Vec<String> = answer.snapshots.iter().flat_map(|each| remarks(each, &clock)).collect();
    let width = stdout_width();
    if !told.is_empty() {
        out.push('\n');
    }
    for line in told {
        out.push_str(&wrapped(&line, width, INDENT));
        out.push('\n');
    }
    let problem = answer.status.as_ref().map(|status| clause(&status.problem)).unwrap_or_default();
    if !problem.is_empty() {
        let line = format!("{} {BROKEN}: {problem}", paint(style::BAD, "broken:"));
        out.push_str(&format!("\n{}\n", wrapped(&line, width, INDENT)));
        out.push_str(&format!("  {} openclawctl config diff {name}\n", paint(style::HINT, "hint:")));
    }
    out
}

/// What a snapshot is now, in words.
pub(crate) fn state(snapshot: &Snapshot) -> (String, anstyle::Style) {
    let (standing, look) = match snapshot.standing() {
        Standing::Good => ("good", style::GOOD),
        Standing::GoodBefore => ("good before", style::PLAIN),
        Standing::Rejected => ("taken back", style::BAD),
        Standing::Unproven if snapshot.running => ("on trial", style::WARNING),
        Standing::Unproven | Standing::Unspecified => ("", style::PLAIN),
    };
    let words = [
        if snapshot.current { "in the file" } else { "" },
        if snapshot.running { "running" } else { "" },
        standing,
    ];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    (words.join(", "), look)
}

/// Its note, and why it was taken back.
fn remarks(snapshot: &Snapshot, clock: &Clock) -> Vec<String> {
    let id = paint(style::STRONG, &short(&snapshot.id));
    let mut told = Vec::new();
    if !snapshot.note.is_empty() {
        told.push(format!("{id}  note: {}", clause(&snapshot.note)));
    }
    if let Some(rejection) = &snapshot.rejection {
        let when = rejection.time.as_ref().map(|at| format!(" at {} ({})", clock.time(at), ago(at)));
        let what = if snapshot.standing() == Standing::Rejected { "taken back" } else { "replaced" };
        told.push(format!("{id}  {what}{}: {}", when.unwrap_or_default(), clause(&rejection.reason)));
    }
    told
}

/// A unified diff, coloured.
pub(crate) fn diff(diff: &str) -> String {
    let mut out = String::new();
    for line in diff.lines() {
        let look = match line.as_bytes().first() {
            _ if line.starts_with("--- ") || line.starts_with("+++ ") => style::STRONG,
            Some(b'+') => style::GOOD,
            Some(b'-') => style::BAD,
            Some(b'@') => style::FAINT,
            Some(_) | None => style::PLAIN,
        };
        out.push_str(&paint(look, &printable_line(line)));
        out.push('\n');
    }
    out
}

/// What is known of an instance's configuration, a line each.
pub(crate) fn story(instance: &Instance) -> Vec<String> {
    let Some(config) = &view::status(instance).config else { return Vec::new() };
    let ConfigStatus { content, running, good, .. } = config;
    let mut lines = Vec::new();
    let standing = |id: &str| match id {
        id if id == good => format!("{} is good", short(id)),
        id if good.is_empty() => format!("{} is on trial; none has proven good yet", short(id)),
        id => format!("{} is on trial; {} is the last good one", short(id), short(good)),
    };
    match (running.as_str(), content.as_str()) {
        ("", "") => {}
        ("", content) => lines.push(standing(content)),
        (running, content) => {
            lines.push(standing(running));
            if !content.is_empty() && content != running {
                let what = if content == good { ", which is the last good one" } else { "" };
                let edited = format!("the file was changed since the start, to {}{what}", short(content));
                lines.push(edited);
            }
        }
    }
    lines
}

/// Why it runs on an older configuration than somebody wanted; empty if it does not.
pub(crate) fn degraded(instance: &Instance) -> String {
    let config = view::status(instance).config.as_ref();
    let Some(config) = config.filter(|config| config.degraded) else { return String::new() };
    let Some(rejected) = &config.rejected else {
        return "its configuration was taken back".into();
    };
    let mut reason = format!(": {}", clause(&rejected.reason));
    // A failover for the same reason tells it already.
    if clause(&rejected.reason) == clause(&view::failover(instance).reason) {
        reason.clear();
    }
    let clock = Clock::local();
    let when = rejected.time.as_ref().map(|at| format!(" at {} ({})", clock.time(at), ago(at)));
    format!("{} was taken back{}{reason}", short(&rejected.content), when.unwrap_or_default())
}

/// How to say that the older configuration is the right one; empty if none is in place.
pub(crate) fn way_out(instance: &Instance) -> String {
    let config = view::status(instance).config.as_ref();
    let Some(config) = config.filter(|config| config.degraded && !config.good.is_empty()) else {
        return String::new();
    };
    format!(
        "to stay with the older one: openclawctl config mark-good {} {}",
        instance.name,
        short(&config.good)
    )
}

/// How far up its ladder it is; empty at the foot.
pub(crate) fn ladder(instance: &Instance) -> String {
    let Some(LadderStatus { deaths, held, .. }) = &view::status(instance).ladder else {
        return String::new();
    };
    let rung = view::status(instance).ladder.as_ref().map_or(Rung::Unspecified, LadderStatus::rung);
    let mut told = match rung {
        Rung::Unspecified | Rung::Restart => String::new(),
        Rung::Repair => "it was repaired".into(),
        Rung::RollBack => "its configuration was rolled back".into(),
        Rung::Quarantine => "all was tried, and it was given up".into(),
    };
    let mut add = |what: String| {
        let gap = if told.is_empty() { "" } else { "; " };
        told = format!("{told}{gap}{what}");
    };
    match deaths {
        0 => {}
        1 => add("1 death in a row".into()),
        many => add(format!("{many} deaths in a row")),
    }
    if *held {
        add("held: somebody works on it".into());
    }
    told
}

/// What an operator should know of an instance's configuration, and what to type.
pub(crate) fn attention(instance: &Instance) -> Option<(String, String)> {
    let name = &printable(&instance.name);
    let config = view::status(instance).config.as_ref()?;
    let problem = clause(&config.problem);
    if !problem.is_empty() {
        let why = format!("{name}: its configuration would not survive the next start: {problem}");
        return Some((why, format!("openclawctl config diff {name}")));
    }
    let degraded = degraded(instance);
    if degraded.is_empty() {
        return None;
    }
    let rejected = config.rejected.as_ref().map_or_else(String::new, |rejected| short(&rejected.content));
    let good = short(&config.good);
    let stopped = view::status(instance).phase() == Phase::Stopped;
    let how = if stopped { "is to start on" } else { "runs on" };
    let why = format!("{name} {how} an older configuration: {degraded}");
    Some((why, format!("openclawctl config diff {name} {good} {rejected}")))
}
