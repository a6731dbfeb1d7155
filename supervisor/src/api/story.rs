//! Why an instance is as it is, in one sentence, and what to type next.
//!
//! The sentence has neither a capital nor a full stop, so that it can stand after a colon. It holds no time that
//! runs: a watcher gets it once, and it must stay true.

use std::path::Path;

use supervisor_core::{
    event::{Exit, ExitStatus, LaunchFailure},
    failover::{Cause, Standing},
    fence::Channels,
    instance::{Failure, Instance, Means, Phase, Then},
    ladder::Purpose,
    policy::Failback,
    record::Wish,
    time::Humane,
    view::{Role, View},
};

/// EX_CONFIG (sysexits.h), by which gateways say that their configuration is broken.
const EX_CONFIG: i32 = 78;

/// What a story is told from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Telling<'a> {
    pub(super) view: &'a View,
    pub(super) instance: &'a Instance,
    pub(super) role: Role,
    /// Its configuration file.
    pub(super) config: &'a Path,
}

impl Telling<'_> {
    /// Why it is in its phase.
    pub(super) fn reason(&self) -> String {
        let instance = self.instance;
        match instance.phase() {
            Phase::Stopped => self.stopped(),
            Phase::Adopting => "the supervisor was restarted and asks what runs".into(),
            Phase::Spawning | Phase::Starting if instance.purpose() == Purpose::Repair => {
                "its runtime's own doctor is at it".into()
            }
            Phase::Spawning if instance.waits_for_disk() && self.view.store_failing => {
                "its start waits until it can be stored, and the disk refuses".into()
            }
            Phase::Spawning if instance.waits_for_disk() => "its start waits until it is stored".into(),
            Phase::Spawning => "its surroundings are made and its process is started".into(),
            Phase::Starting if instance.health().message().is_empty() => {
                "has not said yet that it is ready".into()
            }
            Phase::Starting => format!("not ready yet: {}", instance.health().message()),
            Phase::Ready => self.ready(),
            Phase::Unhealthy => format!("runs but does not serve: {}", instance.health().message()),
            Phase::Stopping { then, means } => self.stopping(then, *means),
            Phase::Backoff { until } => {
                let delay = Humane(until.since(instance.since()));
                match instance.death() {
                    Some(cause) => format!("{cause}; starts again after {delay}"),
                    None => format!("starts again after {delay}"),
                }
            }
            Phase::Failed { failure, .. } => self.failed(failure),
        }
    }

    fn stopped(&self) -> String {
        let record = self.instance.record();
        if record.deleting.is_some() {
            "is being deleted".into()
        } else if self.instance.is_cold_standby() {
            format!("stands by, cold, for {}", self.primaries())
        } else {
            match record.wish {
                Wish::Down if self.instance.incarnation().0 == 0 => "has never been started".into(),
                Wish::Down => "an operator wants it down".into(),
                Wish::Up if self.view.halting => "the supervisor stops all instances".into(),
                Wish::Up => "is about to be started".into(),
            }
        }
    }

    fn ready(&self) -> String {
        let without = match self.instance.channels() {
            Channels::On => "",
            Channels::Off => ", without its channels: another instance uses their credentials",
        };
        format!("{}{without}", self.serves())
    }

    fn serves(&self) -> String {
        match self.role {
            Role::Single | Role::Primary => "serves".into(),
            Role::Standby => format!("serves and stands by for {}", self.primaries()),
            Role::Promoting => format!("serves and takes the place of {}", self.stands_in_for()),
            Role::Active => format!("serves in the place of {}", self.stands_in_for()),
            Role::Rescued => self.rescued(),
        }
    }

    /// Ready, and not in its place.
    fn rescued(&self) -> String {
        match &self.instance.record().standing {
            Standing::Own => "serves".into(),
            Standing::Promoting(by) => format!("serves until `{}` is ready to take its place", by.rescue),
            Standing::Away(by) if self.by_hand() => {
                format!("serves; `{}` keeps its place until it is given back by hand", by.rescue)
            }
            Standing::Away(by) => {
                let (rescue, own) = (&by.rescue, self.instance.name());
                format!("serves; `{rescue}` keeps its place until `{own}` has been ready for long enough")
            }
        }
    }

    /// Whether the primary gets its place back only when an operator says so.
    fn by_hand(&self) -> bool {
        let Some(by) = self.instance.record().standing.stand_in() else { return false };
        let policy = self.view.instances.get(&by.rescue).map(|rescue| rescue.policy().rescue.failback);
        by.incident.cause == Cause::ByHand || policy == Some(Failback::Manual)
    }

    fn stopping(&self, then: &Then, means: Means) -> String {
        let record = self.instance.record();
        let how = match means {
            Means::Grace(grace) => format!("was asked to end and has {} for it", Humane(grace)),
            Means::Kill => "is being killed".into(),
            Means::Sweep => "what is left of it is being killed".into(),
        };
        match then {
            Then::Recover(cause) => format!("{cause}; {how}"),
            Then::Run if record.wish == Wish::Up && !self.view.halting => format!("{how}; starts anew then"),
            Then::Rest | Then::Run if record.deleting.is_some() => format!("{how}; is deleted then"),
            Then::Rest | Then::Run if self.view.halting => {
                format!("the supervisor stops all instances; {how}")
            }
            Then::Rest | Then::Run => match record.wish {
                Wish::Down => format!("an operator wants it down; {how}"),
                Wish::Up => format!("is not needed; {how}"),
            },
        }
    }

    fn failed(&self, failure: &Failure) -> String {
        let restart = &self.instance.policy().restart;
        match failure {
            Failure::Fatal(exit) if is_config(exit) => {
                let status = exit.status;
                format!(
                    "{status}, which blames its configuration or its state; another start would not mend that"
                )
            }
            Failure::Fatal(exit) => format!("{}; another start would not mend that", exit.status),
            Failure::NotRestarted(exit) => format!("{exit}; its restart policy leaves it so"),
            Failure::BudgetSpent => {
                let last = self.instance.death().map(|cause| format!("{cause}; ")).unwrap_or_default();
                format!(
                    "{last}restarted {} times within {}, and no more for now",
                    restart.budget,
                    Humane(restart.window)
                )
            }
            Failure::Quarantined(cause) => format!("{cause}; all has been tried, and it stays down"),
            Failure::Launch(failure) => match failure {
                LaunchFailure::PortTaken { .. }
                | LaunchFailure::Refused(_)
                | LaunchFailure::BadConfig(_)
                | LaunchFailure::Fenced { .. }
                | LaunchFailure::Unexpected
                | LaunchFailure::Spawn(_)
                | LaunchFailure::NoAnswer => failure.to_string(),
            },
        }
    }

    /// What to type next; empty if nothing needs to be done.
    pub(super) fn hint(&self) -> String {
        let name = self.instance.name();
        let config = self.config.display();
        let logs = || format!("openclawctl logs {name}");
        let up = || format!("openclawctl up {name}");
        match self.instance.phase() {
            Phase::Stopped if self.instance.record().deleting.is_some() => String::new(),
            Phase::Stopped => match self.instance.record().wish {
                Wish::Down => up(),
                Wish::Up => String::new(),
            },
            Phase::Adopting => String::new(),
            Phase::Spawning if self.view.store_failing => "openclawctl supervisor status".into(),
            Phase::Spawning => String::new(),
            Phase::Starting => format!("openclawctl logs {name} -f"),
            Phase::Ready if self.role == Role::Rescued && self.by_hand() => "openclawctl failback".into(),
            Phase::Ready if self.runs_old_spec() => format!("openclawctl restart {name}"),
            Phase::Ready => String::new(),
            Phase::Unhealthy | Phase::Backoff { .. } => logs(),
            Phase::Stopping { means: Means::Grace(_), .. } => format!("openclawctl down {name} --force"),
            Phase::Stopping { means: Means::Kill | Means::Sweep, .. } => String::new(),
            Phase::Failed { failure, .. } => match failure {
                Failure::Fatal(exit) if is_config(exit) => {
                    format!("openclawctl logs {name}, edit {config}, then openclawctl up {name}")
                }
                Failure::Fatal(_) | Failure::NotRestarted(_) => {
                    format!("openclawctl logs {name}, then {}", up())
                }
                Failure::BudgetSpent => logs(),
                Failure::Quarantined(_) => format!("openclawctl logs {name}, then {}", up()),
                Failure::Launch(LaunchFailure::PortTaken { .. }) => "openclawctl ports".into(),
                Failure::Launch(LaunchFailure::Fenced { by }) => {
                    format!("give it a bot of its own in {config}, or openclawctl down {by}")
                }
                // A refusal says itself what to mend, and where.
                Failure::Launch(
                    LaunchFailure::Refused(_)
                    | LaunchFailure::BadConfig(_)
                    | LaunchFailure::Unexpected
                    | LaunchFailure::Spawn(_)
                    | LaunchFailure::NoAnswer,
                ) => up(),
            },
        }
    }

    /// Whether the running process was started with an older spec.
    fn runs_old_spec(&self) -> bool {
        self.instance.observed_generation() < self.instance.record().generation
    }

    fn primaries(&self) -> String {
        list(self.instance.policy().rescues.iter().map(|name| &**name))
    }

    fn stands_in_for(&self) -> String {
        list(self.view.stands_in_for(self.instance).map(|(primary, _)| &**primary.name()))
    }
}

/// Why an instance is not in its place, or why it is in others'; empty if all are in theirs.
pub(super) fn incident(view: &View, instance: &Instance) -> String {
    if let Some(by) = instance.record().standing.stand_in() {
        return by.incident.cause.to_string();
    }
    let causes = view
        .stands_in_for(instance)
        .map(|(primary, by)| format!("`{}`: {}", primary.name(), by.incident.cause));
    causes.collect::<Vec<_>>().join("; ")
}

fn is_config(exit: &Exit) -> bool {
    match exit.status {
        ExitStatus::Code(code) => code == EX_CONFIG,
        ExitStatus::Signal { .. } | ExitStatus::OutOfMemory | ExitStatus::Unknown => false,
    }
}

/// "`a`, `b` and `c`".
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}
