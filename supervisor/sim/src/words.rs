//! Events and actions in a few words, so that a trace reads as a story.

use std::fmt::Write as _;

use supervisor_core::{
    action::{Action, Batch, ProbeKind, Write},
    event::{
        Adoption, ApplyMode, Change, Command, Definition, Event, Found, Handoff, Manner, Report, Sighting,
        Verdict,
    },
    failover::Incident,
    fence::Channels,
    ids::Name,
    ladder::Purpose,
    policy::{Failback, Policy, Standby},
    record::Wish,
    time::Humane,
};

pub(crate) fn event(event: &Event) -> String {
    match event {
        Event::Command(id, _, command) => format!("caller {}: {}", id.0, asks(command)),
        Event::Stored(revision) => format!("stored up to {}", revision.0),
        Event::StoreFailing(why) => format!("cannot store: {why}"),
        Event::Tick => "tick".into(),
        Event::Adopted(name, found) => format!("{name}: {}", adoption(found)),
        Event::Launched(name, incarnation, process) => {
            format!("{name} {incarnation} runs as process {}", process.pid)
        }
        Event::LaunchFailed(name, incarnation, why) => {
            format!("{name} {incarnation} cannot be started: {why}")
        }
        Event::Notified(name, incarnation) => format!("{name} {incarnation} says that it is ready"),
        Event::Probed(name, incarnation, report) => format!("{name} {incarnation} is {}", health(report)),
        Event::Exited(name, exit) => {
            let ordered = if exit.ordered { ", as ordered" } else { "" };
            format!("{name} {} {exit}{ordered}", exit.incarnation)
        }
        Event::WorkerLost(name, incarnation) => format!("{name} {incarnation} has lost its worker"),
        Event::Handoff(name, incarnation, handoff) => format!("{name} {incarnation} {}", left(handoff)),
        Event::Examined(name, incarnation, evidence) => {
            format!("what {name} {incarnation} was doing is in {evidence}")
        }
        Event::ConfigSeen(name, sighting) => format!("{name} has {}", configuration(sighting)),
        Event::Restored(name, content) => format!("{name} has {} again", content.short()),
        Event::FilesLeft(name, why) => format!("files of {name} are left: {why}"),
        Event::RestoreFailed(name, why) => format!("{name} cannot have its configuration back: {why}"),
        Event::Swept(name, incarnation) => format!("nothing of {name} {incarnation} is alive"),
    }
}

fn left(handoff: &Handoff) -> String {
    match handoff {
        Handoff::Restart(reason) => format!("ended to be run again: {reason}"),
        Handoff::Nothing => "ended, and left nothing".into(),
        Handoff::Unknown(why) => format!("ended, nobody knows why: {why}"),
    }
}

fn configuration(sighting: &Sighting) -> String {
    let mut text = sighting.content.map_or("no configuration".into(), |content| content.short());
    if let Some(life) = sighting.used_by {
        let _ = write!(text, " for {life}");
    }
    for token in &sighting.credentials {
        let _ = write!(text, " with token {}", token.0);
    }
    if let Some(problem) = &sighting.problem {
        let _ = write!(text, ", which no gateway could be started with: {problem}");
    }
    text
}

fn health(report: &Report) -> &'static str {
    match (&report.live, &report.ready) {
        (_, Verdict::Pass) => "ready",
        (Verdict::Pass, Verdict::Fail(_)) => "live, not ready",
        (Verdict::Fail(_), Verdict::Fail(_)) => "not live",
        (Verdict::Unknown(_), _) | (_, Verdict::Unknown(_)) => "not asked",
    }
}

fn adoption(adoption: &Adoption) -> String {
    let mut text = match adoption.found {
        Found::Running { incarnation, notified, stopping, .. } => {
            let ready = if notified { ", ready" } else { "" };
            let stopping = if stopping { ", being ended" } else { "" };
            format!("{incarnation} is found running{ready}{stopping}")
        }
        Found::Idle { incarnation } => format!("only the worker of {incarnation} is found"),
        Found::Nothing => "nothing is found".into(),
    };
    for exit in &adoption.exits {
        let _ = write!(text, "; {} {exit}", exit.incarnation);
    }
    text
}

fn asks(command: &Command) -> String {
    let force = |manner: &Manner| if *manner == Manner::Force { ", by force" } else { "" };
    match command {
        Command::Create(definition) => format!("create {}", defines(definition)),
        Command::Update { definition, .. } => format!("change {}", defines(definition)),
        Command::Delete { name, .. } => format!("delete {name}"),
        Command::Apply { changes, pool, mode } => {
            let mut text = String::from(if *mode == ApplyMode::Do { "apply" } else { "check" });
            for change in changes {
                let _ = match change {
                    Change::Put(definition) => write!(text, " [put {}]", defines(definition)),
                    Change::Remove(name) => write!(text, " [remove {name}]"),
                };
            }
            if let Some(pool) = pool {
                let _ = write!(text, " [ports {} to {}]", pool.first, pool.last);
            }
            text
        }
        Command::Start { name, otherwise: None } => format!("start {name}"),
        Command::Start { otherwise: Some(definition), .. } => format!("start {}", defines(definition)),
        Command::Stop { name, manner } => format!("stop {name}{}", force(manner)),
        Command::Restart { name, manner } => format!("restart {name}{}", force(manner)),
        Command::Recycle { name, life } => format!("recycle {name} {life}"),
        Command::FailOver { primary, rescue: Some(rescue) } => format!("fail {primary} over to {rescue}"),
        Command::FailOver { primary, rescue: None } => format!("fail {primary} over"),
        Command::FailBack { primary } => format!("fail {primary} back"),
        Command::RollBack { name, to } => format!("roll {name} back to {}", to.short()),
        Command::MarkGood { name, content } => format!("{} is good for {name}", content.short()),
        Command::Halt => "halt".into(),
    }
}

fn defines(definition: &Definition) -> String {
    let Policy { rescues, rescue, restart, .. } = &*definition.policy;
    let mut text = definition.name.to_string();
    if !rescues.is_empty() {
        let standby = if rescue.standby == Standby::Cold { "cold" } else { "warm" };
        let manual = if rescue.failback == Failback::Manual { ", back by hand" } else { "" };
        let _ = write!(text, " ({standby} rescue of {}{manual})", names(rescues.iter()));
    }
    let _ = write!(text, " (budget {})", restart.budget);
    text
}

fn names<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    let names: Vec<&str> = names.map(|name| &**name).collect();
    names.join(" and ")
}

fn whom(incidents: &[Incident]) -> String {
    names(incidents.iter().map(|incident| &incident.primary))
}

pub(crate) fn action(action: &Action) -> String {
    match action {
        Action::Persist(batch) => persist(batch),
        Action::Reply(id, Ok(_)) => format!("tell caller {} that it is done", id.0),
        Action::Reply(id, Err(denied)) => format!("tell caller {}: {denied}", id.0),
        Action::Adopt(name) => format!("look for {name}"),
        Action::Launch(launch) => {
            let whom = whom(&launch.incidents);
            let whom = if whom.is_empty() { whom } else { format!(", in the place of {whom}") };
            let what = match launch.purpose {
                Purpose::Serve => "launch",
                Purpose::Repair => "repair",
            };
            let restore = launch.restore.as_ref().map(|restoring| format!(" with {}", restoring.to.short()));
            let restore = restore.unwrap_or_default();
            let channels = if launch.channels == Channels::Off { ", without channels" } else { "" };
            format!(
                "{what} {} {} on {}{restore}{channels}{whom}",
                launch.name, launch.incarnation, launch.block
            )
        }
        Action::Stop { name, incarnation, grace } => {
            format!("ask {name} {incarnation} to end within {}", Humane(*grace))
        }
        Action::Kill { name, incarnation } => format!("kill {name} {incarnation}"),
        Action::Acknowledge { name, incarnation } => format!("acknowledge the exit of {name} {incarnation}"),
        Action::Release { name } => format!("let the worker of {name} go"),
        Action::Sweep { name, incarnation } => format!("kill whatever is left of {name} {incarnation}"),
        Action::Probe { name, incarnation, kind: ProbeKind::Startup, .. } => {
            format!("ask {name} {incarnation} whether it has started")
        }
        Action::Probe { name, incarnation, kind: ProbeKind::Watch, .. } => {
            format!("ask {name} {incarnation} how it is")
        }
        Action::Inform { name, incidents } if incidents.is_empty() => {
            format!("tell {name} that it stands by")
        }
        Action::Inform { name, incidents } => {
            format!("tell {name} that it stands in for {}", whom(incidents))
        }
        Action::Examine { name, incarnation, .. } => {
            format!("write down what {name} {incarnation} is doing")
        }
        Action::AskHandoff { name, incarnation, .. } => {
            format!("ask why {name} {incarnation} has ended")
        }
        Action::Restore { name, to, why } => format!("put {} back for {name}: {why}", to.short()),
        Action::Forget { name, files } => format!("forget {name}, files: {files:?}"),
    }
}

fn persist(batch: &Batch) -> String {
    let mut text = format!("store {}:", batch.revision.0);
    for write in &batch.writes {
        let _ = match write {
            Write::Put(record) => {
                let wish = if record.wish == Wish::Up { "up" } else { "down" };
                let deleting = if record.deleting.is_some() { ", to be deleted" } else { "" };
                write!(text, " [{} {wish}, launched {}{deleting}]", record.name, record.launched)
            }
            Write::Remove(name) => write!(text, " [{name} removed]"),
            Write::Pool(pool) => write!(text, " [ports {} to {}]", pool.first, pool.last),
        };
    }
    for entry in &batch.entries {
        let who = entry.instance.as_ref().map_or("-", |name| name);
        let _ = write!(text, " ({who}: {})", entry.kind);
    }
    text
}
