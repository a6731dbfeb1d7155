//! The way there: stop, copy the state aside, start with the version, see that it stays ready.

use std::{sync::Arc, time::Duration};

use supervisor_core::{
    event::{Asker, Command, Manner},
    ids::{Incarnation, Name},
    instance::{Failure, Instance, Phase},
    ladder::Purpose,
    record::Wish,
    view::View,
};
use tokio::time::{self, Instant};
use tracing::info;

use super::{
    Report, Trouble, Upgrader, aside,
    journal::{Attempt, Journal, Pin, Step},
    present,
};

/// The worker kills what does not end within its grace, and proves that nothing is left; this is for that proof.
const PROOF: Duration = Duration::from_secs(120);

/// The supervisor itself ends a start that takes longer than its cap, 15 minutes unless the spec says otherwise. This
/// is for whoever has set that to a day.
const READY: Duration = Duration::from_secs(3_600);

/// Restarts until it is ready that are no failure: a version that has migrated its state may ask to be run again.
const RESTARTS: u32 = 1;

impl Upgrader {
    /// Goes all the way, from the step that the journal says.
    pub(super) async fn forward(&self, journal: &mut Journal) -> Result<Report, Trouble> {
        let name = journal.name.clone();
        let Some(attempt) = journal.attempt.clone() else { return Ok(Report::default()) };
        let mut report =
            Report { version: attempt.to.clone(), previous: attempt.previous.clone(), ..Report::default() };
        if attempt.step <= Step::Stop {
            self.note(journal, Step::Stop).await?;
            self.stop(&name, attempt.onward()).await?;
        }
        if attempt.step <= Step::Copy {
            self.note(journal, Step::Copy).await?;
            self.copy(&attempt).await?;
            report.steps.push("stopped it and copied its state aside".into());
        }
        if attempt.step <= Step::Start {
            self.note(journal, Step::Start).await?;
            let pin = Pin { program: None, version: Some(attempt.to.clone()) };
            self.pin(&name, &pin, attempt.onward()).await?;
            if attempt.run {
                let start = Command::Start { name: name.clone(), otherwise: None };
                self.handle.submit_by(attempt.onward(), start).await?;
            }
        }
        if attempt.run {
            self.note(journal, Step::Soak).await?;
            self.soak(&name, attempt.soak()).await?;
            let soaked = humantime::format_duration(attempt.soak());
            report.steps.push(format!("it is ready on {}, and was for {soaked}", attempt.to));
        } else {
            report.notes.push(format!("it does not run: it is started with {} when it does", attempt.to));
        }
        journal.keep();
        self.write(journal).await?;
        self.tidy(&attempt, &mut report.notes).await;
        info!(%name, version = attempt.to, previous = attempt.previous, "upgraded");
        report
            .notes
            .push(format!("a fleet file that says what runs `{name}` needs `version: {}` now", attempt.to));
        Ok(report)
    }

    /// Stops the instance, and waits until nothing of it runs.
    pub(super) async fn stop(&self, name: &Name, by: Asker) -> Result<(), Trouble> {
        let grace = present(&self.handle.view(), name)?.policy().stop_grace;
        let stop = Command::Stop { name: name.clone(), manner: Manner::Graceful };
        self.handle.submit_by(by, stop).await?;
        let is_down = |view: &View| {
            view.instances.get(name).is_none_or(|instance| {
                instance.record().wish == Wish::Down && *instance.phase() == Phase::Stopped
            })
        };
        let limit = grace + PROOF;
        let mut views = self.handle.watch();
        let ended = time::timeout(limit, views.wait_for(|view| is_down(view))).await;
        let late = || Trouble::Told(format!("`{name}` has not ended after {} s", limit.as_secs()));
        ended.map_err(|_| late())?.map_err(|_| Trouble::Interrupted)?;
        present(&self.handle.view(), name).map(drop)
    }

    async fn copy(&self, attempt: &Attempt) -> Result<(), Trouble> {
        let kept = attempt.kept.clone();
        let copied = aside(move || kept.copy()).await.ok_or(Trouble::Interrupted)?;
        copied.map_err(|source| Trouble::Told(format!("its state cannot be copied aside: {source}")))
    }

    /// Removes old copies. That they stay is a pity, not a failure.
    pub(super) async fn tidy(&self, attempt: &Attempt, notes: &mut Vec<String>) {
        let kept = attempt.kept.clone();
        if let Some(Err(error)) = aside(move || kept.prune()).await {
            notes.push(format!("copies of earlier upgrades cannot be removed: {error}"));
        }
    }

    /// Waits until the instance is ready, and then whether it stays so.
    async fn soak(&self, name: &Name, soak: Duration) -> Result<(), Trouble> {
        let life = self.ready(name).await?;
        let mut views = self.handle.watch();
        let until = Instant::now() + soak;
        loop {
            {
                let view = Arc::clone(&views.borrow_and_update());
                let instance = present(&view, name)?;
                stopped(instance)?;
                if *instance.phase() != Phase::Ready || instance.incarnation() != life {
                    return Err(Trouble::Told(format!("it did not stay ready{}", why(instance))));
                }
            }
            match time::timeout_at(until, views.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Trouble::Interrupted),
                Err(_) => return Ok(()),
            }
        }
    }

    /// Waits until the instance is ready, and says which life of it is.
    pub(super) async fn ready(&self, name: &Name) -> Result<Incarnation, Trouble> {
        let mut views = self.handle.watch();
        let before = present(&self.handle.view(), name)?.restarts().total();
        let decided = async {
            loop {
                let view = Arc::clone(&views.borrow_and_update());
                let instance = present(&view, name)?;
                stopped(instance)?;
                if let Some(outcome) = judge(instance, before) {
                    return outcome.map(|()| instance.incarnation());
                }
                views.changed().await.map_err(|_| Trouble::Interrupted)?;
            }
        };
        let late = |_| Trouble::Told(format!("it is not ready after {} s", READY.as_secs()));
        time::timeout(READY, decided).await.map_err(late)?
    }
}

/// What an operator has said meanwhile stands.
fn stopped(instance: &Instance) -> Result<(), Trouble> {
    match instance.record().wish {
        Wish::Up => Ok(()),
        Wish::Down => Err(Trouble::Stopped(instance.name().clone())),
    }
}

/// Whether it is decided that the instance is ready, or will not be.
fn judge(instance: &Instance, before: u32) -> Option<Result<(), Trouble>> {
    let told = |what: &str| Some(Err(Trouble::Told(format!("{what}{}", why(instance)))));
    // A repair would be of the new version's making, and is put back with all the rest.
    if instance.purpose() == Purpose::Repair {
        return told("it cannot start");
    }
    if instance.restarts().total() > before.saturating_add(RESTARTS) {
        return told("it does not stay up");
    }
    match instance.phase() {
        Phase::Ready => Some(Ok(())),
        Phase::Failed { failure: Failure::Launch(failure), .. } => {
            Some(Err(Trouble::Told(format!("it cannot be started: {failure}"))))
        }
        Phase::Failed { .. } | Phase::Backoff { .. } => told("it does not become ready"),
        Phase::Stopped
        | Phase::Adopting
        | Phase::Spawning
        | Phase::Starting
        | Phase::Unhealthy
        | Phase::Stopping { .. } => None,
    }
}

/// As far as it is known.
fn why(instance: &Instance) -> String {
    let reason = instance.death().map_or_else(|| instance.reason(), ToString::to_string);
    if reason.is_empty() { reason } else { format!(": {reason}") }
}
