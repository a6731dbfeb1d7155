//! What became of the instances, counted as it happens.

use std::{collections::HashMap, time::Duration};

use supervisor_core::{
    event::{Exit, ExitStatus},
    ids::Name,
    journal::{Entry, Kind, Recovery, Severity},
    time::Moment,
};

use super::Means;

/// Why an instance was started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It exited.
    Exited,
    /// A signal killed it.
    Killed,
    /// The kernel did, for want of memory.
    OutOfMemory,
    /// It died, and nobody was left to learn how.
    Unknown,
    /// It did not answer.
    Hung,
    /// It did not become ready.
    StartupFailed,
    /// It could not be started.
    LaunchFailed,
    /// Its worker died.
    WorkerLost,
    /// Somebody asked for it.
    Asked,
}

impl Cause {
    pub(super) const ALL: [Self; 9] = [
        Self::Exited,
        Self::Killed,
        Self::OutOfMemory,
        Self::Unknown,
        Self::Hung,
        Self::StartupFailed,
        Self::LaunchFailed,
        Self::WorkerLost,
        Self::Asked,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Killed => "killed",
            Self::OutOfMemory => "out_of_memory",
            Self::Unknown => "unknown",
            Self::Hung => "hung",
            Self::StartupFailed => "startup_failed",
            Self::LaunchFailed => "launch_failed",
            Self::WorkerLost => "worker_lost",
            Self::Asked => "asked",
        }
    }

    const fn of(exit: &Exit) -> Self {
        match exit.status {
            ExitStatus::Code(_) => Self::Exited,
            ExitStatus::Signal { .. } => Self::Killed,
            ExitStatus::OutOfMemory => Self::OutOfMemory,
            ExitStatus::Unknown => Self::Unknown,
        }
    }
}

/// The lives of one instance.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    /// How often it was started anew, in the order of [`Cause::ALL`].
    pub(super) restarts: [u64; Cause::ALL.len()],
    /// How often a rescue stood in for it.
    pub(super) failovers: u64,
    /// How often none could.
    pub(super) unrescued: u64,
    /// How often its configuration was taken back.
    pub(super) rollbacks: u64,
    /// Why it is down, until it is started anew. What came first is the cause of the rest.
    cause: Option<Cause>,
    /// Since when it is missed by those who use it.
    missed: Option<Moment>,
}

impl Life {
    /// It is down, or about to be, and not because somebody asked for it.
    fn dies(&mut self, of: Cause, at: Moment) {
        self.cause.get_or_insert(of);
        self.missed.get_or_insert(at);
    }

    /// It is meant to be as it is now.
    fn rests(&mut self) {
        (self.cause, self.missed) = (None, None);
    }
}

/// All of them. Bounded by what the registry has.
#[derive(Debug, Default)]
pub(super) struct Lives {
    by_name: HashMap<Name, Life>,
    /// How many events there were of each severity: in the order of [`SEVERITIES`].
    pub(super) events: [u64; SEVERITIES.len()],
}

/// Each with its word.
pub(super) const SEVERITIES: [(Severity, &str); 3] =
    [(Severity::Info, "info"), (Severity::Warning, "warning"), (Severity::Error, "error")];

impl Lives {
    /// One of them; the default if nothing has become of it yet.
    pub(super) fn of(&self, name: &Name) -> Option<&Life> {
        self.by_name.get(name)
    }

    /// Takes in what happened. Says how an instance that was missed came back, and after how long, if it did so now.
    pub(super) fn note(&mut self, entry: &Entry) -> Option<(Means, Duration)> {
        let severity = entry.kind.severity();
        let counts = SEVERITIES.iter().zip(&mut self.events);
        counts.filter(|((known, _), _)| *known == severity).for_each(|(_, count)| *count += 1);
        let name = entry.instance.as_ref()?;
        if entry.kind == Kind::Deleted {
            self.by_name.remove(name);
            return None;
        }
        let life = self.by_name.entry(name.clone()).or_default();
        live(life, entry)
    }
}

fn live(life: &mut Life, Entry { at, kind, .. }: &Entry) -> Option<(Means, Duration)> {
    let back = |missed: &mut Option<Moment>, means| missed.take().map(|since| (means, at.since(since)));
    match kind {
        Kind::Exited(exit) if !exit.ordered => life.dies(Cause::of(exit), exit.at),
        Kind::Hung { .. } => life.dies(Cause::Hung, *at),
        Kind::StartupFailed { .. } => life.dies(Cause::StartupFailed, *at),
        Kind::LaunchFailed(_) => life.dies(Cause::LaunchFailed, *at),
        Kind::WorkerLost => life.dies(Cause::WorkerLost, *at),
        Kind::WishedRestart { .. } => life.cause = life.cause.or(Some(Cause::Asked)),
        Kind::WishedUp { .. } | Kind::WishedDown { .. } | Kind::Stopped => life.rests(),
        Kind::Started { .. } => {
            if let Some(cause) = life.cause.take()
                && let Some(at) = Cause::ALL.iter().position(|known| *known == cause)
            {
                life.restarts[at] += 1;
            }
        }
        Kind::Ready { .. } => return back(&mut life.missed, Means::Restart),
        Kind::FailedOver { .. } => {
            life.failovers += 1;
            return back(&mut life.missed, Means::Failover);
        }
        Kind::NoRescue { .. } => life.unrescued += 1,
        Kind::Recovery(Recovery::ConfigTakenBack { .. }) => life.rollbacks += 1,
        Kind::Restored { .. }
        | Kind::Halting
        | Kind::PoolChanged(_)
        | Kind::StoreFailing(_)
        | Kind::StoreRecovered
        | Kind::Created(_)
        | Kind::Updated { .. }
        | Kind::Moved { .. }
        | Kind::Deleting
        | Kind::Deleted
        | Kind::Exited(_)
        | Kind::BackingOff { .. }
        | Kind::BudgetSpent { .. }
        | Kind::GaveUp(_)
        | Kind::LeftDown(_)
        | Kind::Unhealthy { .. }
        | Kind::Healthy
        | Kind::NotAsked { .. }
        | Kind::StopOverdue
        | Kind::Adopted { .. }
        | Kind::FailoverBegan { .. }
        | Kind::FailoverCancelled { .. }
        | Kind::RescueLost { .. }
        | Kind::FailedBack { .. }
        | Kind::Recovery(_)
        | Kind::Channel(_)
        | Kind::StaleReport { .. }
        | Kind::FilesLeft { .. } => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use supervisor_core::{
        event::Asker,
        failover::Cause as Death,
        ids::{Incarnation, Revision},
    };

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn name() -> Name {
        Name::new("main").unwrap()
    }

    fn exit(at: u64, status: ExitStatus, ordered: bool) -> Kind {
        let (incarnation, at) = (Incarnation(1), Moment(at * SECOND));
        Kind::Exited(Exit { incarnation, status, at, stragglers: 0, ordered })
    }

    /// What comes of entries at these seconds.
    fn told(lives: &mut Lives, entries: impl IntoIterator<Item = (u64, Kind)>) -> Vec<(Means, u64)> {
        let entries = entries.into_iter().map(|(at, kind)| Entry {
            revision: Revision(1),
            at: Moment(at * SECOND),
            instance: Some(name()),
            incarnation: Incarnation(1),
            kind,
        });
        entries.filter_map(|entry| lives.note(&entry)).map(|(means, took)| (means, took.as_secs())).collect()
    }

    fn restarts(lives: &Lives) -> Vec<(&'static str, u64)> {
        let counts = lives.of(&name()).unwrap().restarts;
        let all = Cause::ALL.iter().map(|cause| cause.word()).zip(counts);
        all.filter(|(_, count)| *count > 0).collect()
    }

    fn started() -> Kind {
        Kind::Started { pid: 7 }
    }

    fn ready() -> Kind {
        Kind::Ready { after: Duration::ZERO }
    }

    #[test]
    fn a_restart_is_counted_by_what_came_first_and_recovery_is_timed_from_there() {
        let mut lives = Lives::default();
        let killed = ExitStatus::Signal { number: 9, core: false };
        let back =
            told(&mut lives, [(0, started()), (1, ready()), (10, exit(9, killed, false)), (12, started())]);
        assert!(back.is_empty());
        assert_eq!(told(&mut lives, [(14, ready())]), [(Means::Restart, 5)]);
        // A hung one is killed in order to be started anew: that is one restart, of one that hung.
        let hung = Kind::Hung { message: String::new() };
        let back = told(
            &mut lives,
            [(20, hung), (21, exit(21, killed, true)), (22, started()), (23, ready()), (24, ready())],
        );
        assert_eq!(back, [(Means::Restart, 3)]);
        assert_eq!(restarts(&lives), [("killed", 1), ("hung", 1)]);
    }

    #[test]
    fn what_somebody_asked_for_is_no_recovery() {
        let mut lives = Lives::default();
        let asked = || Kind::WishedRestart { by: Asker::Operator };
        let ended = || exit(2, ExitStatus::Code(0), true);
        let back = told(&mut lives, [(1, asked()), (2, ended()), (3, started()), (4, ready())]);
        assert!(back.is_empty());
        assert_eq!(restarts(&lives), [("asked", 1)]);
        let crash = exit(5, ExitStatus::Code(1), false);
        let down = Kind::WishedDown { by: Asker::Operator };
        let up = Kind::WishedUp { by: Asker::Operator };
        let back = told(&mut lives, [(5, crash), (6, down), (7, up), (8, started()), (9, ready())]);
        assert!(back.is_empty());
        assert_eq!(restarts(&lives), [("asked", 1)], "a start by hand is none");
    }

    #[test]
    fn a_failover_ends_the_time_in_which_a_primary_is_missed() {
        let mut lives = Lives::default();
        let rescue = || Name::new("rescue").unwrap();
        let crash = exit(5, ExitStatus::OutOfMemory, false);
        let cause = Death::ByHand;
        let began = Kind::FailoverBegan { rescue: rescue(), cause };
        let done = Kind::FailedOver { rescue: rescue() };
        let back = told(&mut lives, [(5, crash), (6, began), (8, done), (20, started()), (30, ready())]);
        assert_eq!(back, [(Means::Failover, 3)]);
        assert_eq!((lives.of(&name()).unwrap().failovers, restarts(&lives)), (1, vec![("out_of_memory", 1)]));
        assert!(told(&mut lives, [(31, Kind::Deleted)]).is_empty());
        assert!(lives.of(&name()).is_none());
        assert_eq!(lives.events.iter().sum::<u64>(), 6);
    }
}
