//! Actions and phases in a few words, for tables and for assertions that read well.

use std::fmt::Write as _;

use supervisor_core::{
    action::{Action, Batch, Launch, ProbeKind, Write},
    failover::Standing,
    instance::{Failure, Instance, Means, Phase},
    ladder::Purpose,
    record::Wish,
    time::Humane,
};

/// A phase in one or two words.
pub(crate) fn phase(instance: &Instance) -> String {
    match instance.phase() {
        Phase::Stopped => "stopped".into(),
        Phase::Adopting => "adopting".into(),
        Phase::Spawning if instance.waits_for_disk() => "spawning (held)".into(),
        Phase::Spawning => "spawning".into(),
        Phase::Starting => "starting".into(),
        Phase::Ready => "ready".into(),
        Phase::Unhealthy => "unhealthy".into(),
        Phase::Stopping { means: Means::Grace(_), .. } => "stopping".into(),
        Phase::Stopping { means: Means::Kill, .. } => "stopping (kill)".into(),
        Phase::Stopping { means: Means::Sweep, .. } => "stopping (sweep)".into(),
        Phase::Backoff { .. } => "backoff".into(),
        Phase::Failed { failure, retry } => {
            let why = match failure {
                Failure::Fatal(_) => "fatal",
                Failure::NotRestarted(_) => "not restarted",
                Failure::BudgetSpent => "budget",
                Failure::Quarantined(_) => "quarantined",
                Failure::Launch(_) => "launch",
            };
            let again = if retry.is_some() { ", retried" } else { "" };
            format!("failed ({why}{again})")
        }
    }
}

/// Who is in an instance's place.
pub(crate) fn standing(standing: &Standing) -> String {
    match standing {
        Standing::Own => "own".into(),
        Standing::Promoting(by) => format!("promoting {}", by.rescue),
        Standing::Away(by) => format!("away {}", by.rescue),
    }
}

/// An action without the instance's name, which its place tells.
pub(crate) fn action(action: &Action) -> String {
    match action {
        Action::Persist(batch) => persist(batch),
        Action::Reply(_, Ok(_)) => "reply ok".into(),
        Action::Reply(_, Err(denied)) => format!("refuse: {denied}"),
        Action::Adopt(_) => "adopt".into(),
        Action::Launch(launch) => self::launch(launch),
        Action::Stop { incarnation, grace, .. } => format!("stop {incarnation} within {}", Humane(*grace)),
        Action::Kill { incarnation, .. } => format!("kill {incarnation}"),
        Action::Acknowledge { incarnation, .. } => format!("acknowledge {incarnation}"),
        Action::Release { .. } => "release".into(),
        Action::Sweep { incarnation, .. } => format!("sweep {incarnation}"),
        Action::Probe { incarnation, kind: ProbeKind::Startup, .. } => format!("probe {incarnation} startup"),
        Action::Probe { incarnation, kind: ProbeKind::Watch, .. } => format!("probe {incarnation}"),
        Action::Inform { incidents, .. } => {
            let whom: Vec<_> = incidents.iter().map(|i| i.primary.to_string()).collect();
            if whom.is_empty() {
                "inform of none".into()
            } else {
                format!("inform of {}", whom.join(" and "))
            }
        }
        Action::Examine { incarnation, .. } => format!("examine {incarnation}"),
        Action::AskHandoff { incarnation, .. } => format!("ask about {incarnation}"),
        Action::Restore { to, .. } => format!("restore {}", &to.short()[..2]),
        Action::Forget { files, .. } => format!("forget {files:?}").to_lowercase(),
    }
}

fn launch(launch: &Launch) -> String {
    let what = match launch.purpose {
        Purpose::Serve => "launch",
        Purpose::Repair => "repair",
    };
    let whom: Vec<_> = launch.incidents.iter().map(|i| i.primary.to_string()).collect();
    let whom = if whom.is_empty() { String::new() } else { format!(" for {}", whom.join(" and ")) };
    let restore = launch.restore.as_ref().map(|restoring| format!(" with {}", &restoring.to.short()[..2]));
    format!("{what} {}{whom}{}", launch.incarnation, restore.unwrap_or_default())
}

/// Which instance an action is about.
pub(crate) fn about(action: &Action) -> Option<&str> {
    match action {
        Action::Persist(_) | Action::Reply(..) => None,
        Action::Launch(launch) => Some(&launch.name),
        Action::Adopt(name)
        | Action::Stop { name, .. }
        | Action::Kill { name, .. }
        | Action::Acknowledge { name, .. }
        | Action::Release { name }
        | Action::Sweep { name, .. }
        | Action::Probe { name, .. }
        | Action::Inform { name, .. }
        | Action::Restore { name, .. }
        | Action::AskHandoff { name, .. }
        | Action::Examine { name, .. }
        | Action::Forget { name, .. } => Some(name),
    }
}

fn persist(batch: &Batch) -> String {
    let mut text = String::from("persist");
    for write in &batch.writes {
        let _ = match write {
            Write::Put(record) => {
                let wish = if record.wish == Wish::Up { "up" } else { "down" };
                let deleting = if record.deleting.is_some() { " deleting" } else { "" };
                write!(text, " [{wish} launched {} seen {}{deleting}]", record.launched, record.seen)
            }
            Write::Remove(_) => write!(text, " [removed]"),
            Write::Pool(pool) => write!(text, " [pool {} to {}]", pool.first, pool.last),
        };
    }
    let names: Vec<_> = batch.entries.iter().map(|entry| entry.kind.name()).collect();
    if !names.is_empty() {
        let _ = write!(text, " ({})", names.join(", "));
    }
    text
}
