//! What a table cannot tell: who stands in for whom, what is not well and why, and what to type.

use std::collections::{BTreeMap, BTreeSet};

use supervisor_proto::v1::{Instance, Phase, Role};

use super::{
    config,
    style::{self, clause, paint, phase_told, phase_word, printable},
    time::{Clock, ago, between, humane, now, until},
};
use crate::view;

/// The order in which phases are counted: what is well first, what is broken last.
const COUNTED: [Phase; 11] = [
    Phase::Ready,
    Phase::Starting,
    Phase::Spawning,
    Phase::Adopting,
    Phase::Stopping,
    Phase::Stopped,
    Phase::Unhealthy,
    Phase::Backoff,
    Phase::Repairing,
    Phase::Failed,
    Phase::Unspecified,
];

/// What is wrong with the supervisor itself, a line each.
pub(crate) fn alarms(alarms: &[String]) -> Vec<String> {
    alarms.iter().map(|alarm| format!("{} {}", paint(style::ERROR, "alarm:"), clause(alarm))).collect()
}

/// One line for each primary that is not in its place.
pub(crate) fn failovers(instances: &[Instance]) -> Vec<String> {
    let primaries: BTreeSet<&str> = instances.iter().map(|instance| instance.name.as_str()).collect();
    let clock = Clock::local();
    let mut lines = Vec::new();
    for instance in instances {
        let failover = view::failover(instance);
        let role = failover.role();
        match role {
            Role::Rescued => lines.push(rescued(instance, &clock)),
            // Only for primaries that are not among the instances shown: they tell it themselves.
            Role::Promoting | Role::Active => {
                for primary in failover.active_for.iter().filter(|name| !primaries.contains(name.as_str())) {
                    lines.push(stands_in(&instance.name, primary, role, instance, &clock));
                }
            }
            Role::Unspecified | Role::Single | Role::Primary | Role::Standby => {}
        }
    }
    lines
}

fn rescued(primary: &Instance, clock: &Clock) -> String {
    let failover = view::failover(primary);
    match view::stand_in(primary) {
        Some(rescue) => stands_in(rescue, &primary.name, Role::Active, primary, clock),
        None => {
            let by = failover.rescued_by.join(" or ");
            let by = if by.is_empty() { "a rescue".to_owned() } else { by };
            with_why(&format!("{by} is being made active in place of {}", primary.name), primary, clock)
        }
    }
}

fn stands_in(rescue: &str, primary: &str, role: Role, told_by: &Instance, clock: &Clock) -> String {
    let what = if role == Role::Active { "stands in for" } else { "is being made active in place of" };
    with_why(&format!("{rescue} {what} {primary}"), told_by, clock)
}

fn with_why(text: &str, told_by: &Instance, clock: &Clock) -> String {
    let failover = view::failover(told_by);
    let mut text = printable(text);
    if let Some(since) = &failover.since {
        text.push_str(&format!(" since {} ({})", clock.time(since), ago(since)));
    }
    let reason = clause(&failover.reason);
    if reason.is_empty() { text } else { format!("{text}: {reason}") }
}

/// Deaths in a row after which an instance that runs at the moment needs a look all the same.
const KEEPS_DYING: u32 = 2;

/// Where a sentence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By itself: it names the instance and its phase.
    Alone,
    /// Below a row that does.
    BelowItsRow,
}

/// Why an instance needs a look and what to type, if it does.
pub(crate) fn attention(instance: &Instance) -> Option<(String, String)> {
    needed(instance, Place::Alone)
}

/// The same for below a row that names the instance and its phase.
pub(crate) fn remark(instance: &Instance) -> Option<(String, String)> {
    let (why, hint) = needed(instance, Place::BelowItsRow)?;
    let rest = why.strip_prefix(&printable(&instance.name)).unwrap_or(&why);
    Some((rest.trim_start_matches([':', ' ']).to_owned(), hint))
}

fn needed(instance: &Instance, place: Place) -> Option<(String, String)> {
    let (name, status) = (&printable(&instance.name), view::status(instance));
    let unwell = view::is_unwell(status.phase());
    let held = status.ladder.as_ref().is_some_and(|ladder| ladder.held);
    let end = format!("openclawctl maintenance off {name}");
    let told = match (unwell, held) {
        (true, _) => trouble(instance, place),
        (false, true) => config::attention(instance),
        (false, false) => config::attention(instance).or_else(|| trouble(instance, place)),
    };
    match told {
        Some((what, hint)) if held => Some((
            format!("{what}; it is in maintenance: not repaired, rolled back or given up"),
            format!("{hint}, then {end}"),
        )),
        // Whatever else there may be to do, somebody is at it.
        None if held => {
            Some((format!("{name} is in maintenance: it is not repaired, rolled back or given up"), end))
        }
        told => told,
    }
}

/// The same, but for its configuration and whether somebody works on it.
fn trouble(instance: &Instance, place: Place) -> Option<(String, String)> {
    let (name, status) = (&printable(&instance.name), view::status(instance));
    let phase = status.phase();
    let hint = printable(status.hint.trim());
    let unwell = view::is_unwell(phase);
    let recycle = status.resources.as_ref().map(|used| clause(&used.recycle)).unwrap_or_default();
    if !unwell && !recycle.is_empty() {
        return Some((format!("{name}: {recycle}"), format!("openclawctl restart {name}")));
    }
    if !unwell && view::runs_old_spec(instance) {
        let what = format!("{name} runs an older spec than was asked for");
        return Some((what, format!("openclawctl restart {name}")));
    }
    if let (false, Some(deaths)) = (unwell, keeps_dying(instance)) {
        return Some((format!("{name}: {deaths}"), format!("openclawctl logs {name}")));
    }
    // What is stopped is so by wish: that it could be started is nothing to look at.
    if !unwell && (hint.is_empty() || phase == Phase::Stopped) {
        return None;
    }
    let what = if phase == Phase::Backoff { "" } else { "next start " };
    let next = status.next_start_time.as_ref().map(|next| format!(" ({what}{})", until(next)));
    let (next, reason) = (next.unwrap_or_default(), clause(&status.reason));
    let why = match (place, reason.is_empty()) {
        (Place::Alone, true) => format!("{name} {}{next}", phase_told(phase)),
        (Place::Alone, false) => format!("{name} {}{next}: {reason}", phase_told(phase)),
        (Place::BelowItsRow, true) => format!("{}{next}", phase_told(phase)),
        (Place::BelowItsRow, false) => {
            let deaths = in_a_row(instance).map(|deaths| format!("; {deaths}")).unwrap_or_default();
            match (phase, &status.next_start_time) {
                // First, as the reason may be long.
                (Phase::Failed, Some(next)) => format!("next start {}: {reason}{deaths}", until(next)),
                _ => format!("{reason}{next}{deaths}"),
            }
        }
    };
    Some((why, if hint.is_empty() { format!("openclawctl logs {name}") } else { hint }))
}

/// E.g. "3 deaths in a row", if that is worth a word.
fn in_a_row(instance: &Instance) -> Option<String> {
    let deaths = view::status(instance).ladder.as_ref()?.deaths;
    (deaths >= KEEPS_DYING).then(|| format!("{deaths} deaths in a row"))
}

/// That one that runs at the moment has died again and again, and how it did last.
fn keeps_dying(instance: &Instance) -> Option<String> {
    let status = view::status(instance);
    let runs = matches!(status.phase(), Phase::Spawning | Phase::Starting | Phase::Ready);
    let deaths = in_a_row(instance).filter(|_| runs)?;
    // Its row says since when it has been ready, which is not what matters here.
    let within =
        status.trouble_time.as_ref().map(|since| format!(" within {}", humane(between(since, &now()))));
    let exit = status.last_exit.as_ref();
    let last = exit.map(|exit| {
        let when = exit.time.as_ref().map(|at| format!(" ({})", ago(at))).unwrap_or_default();
        format!("; the last: {}{when}", clause(&exit.message))
    });
    Some(format!("keeps dying: {deaths}{}{}", within.unwrap_or_default(), last.unwrap_or_default()))
}

/// What AUTO came to, each note once.
pub(crate) fn runtimes(instances: &[Instance]) -> Vec<String> {
    let notes: BTreeSet<String> =
        instances.iter().map(|instance| clause(&view::status(instance).runtime_note)).collect();
    let label = paint(style::FAINT, "note:");
    notes.into_iter().filter(|note| !note.is_empty()).map(|note| format!("{label} {note}")).collect()
}

/// E.g. "3 instances: 2 ready, 1 failed".
pub(crate) fn summary(instances: &[Instance]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in instances {
        *counts.entry(phase_word(view::status(instance).phase())).or_default() += 1;
    }
    let total = match instances.len() {
        1 => "1 instance".to_owned(),
        many => format!("{many} instances"),
    };
    let parts: Vec<String> = COUNTED
        .iter()
        .filter_map(|phase| {
            counts.get(phase_word(*phase)).map(|count| format!("{count} {}", phase_word(*phase)))
        })
        .collect();
    if parts.is_empty() { total } else { format!("{total}: {}", parts.join(", ")) }
}
