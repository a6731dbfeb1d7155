//! Waiting for an outcome by level: it has come as soon as a view shows it, at the wish's revision or later.
//!
//! What happened before the wait began, or several things at once, can therefore not be missed.

use std::{fmt, future::pending, sync::Arc};

use supervisor_core::{
    denied::Denied,
    failover::Standing,
    ids::{ConfigId, Name},
    instance::{Goal, Instance, Phase},
    record::Wish,
    view::View,
};
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use super::{context::Api, convert::Extent, status::Refusal};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// It serves, or stands by as it should.
    Up,
    /// Nothing of it runs.
    Down,
    /// Another one is in its place.
    FailedOver,
    /// It is in its own place.
    InPlace,
    /// An older configuration is in place, and if it is to run, it serves with it.
    RolledBack {
        /// What was in place.
        from: Option<ConfigId>,
        /// What is to be.
        to: ConfigId,
    },
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::FailedOver => "failed over",
            Self::InPlace => "back in its place",
            Self::RolledBack { .. } => "rolled back",
        })
    }
}

/// How far it has come.
enum Verdict {
    Reached,
    NotYet,
    /// It cannot run; its story says why.
    Failed,
    /// What came instead.
    Never(String),
}

impl Api {
    /// Waits until all of `wanted` have come to their outcome, wished at `revision`. Fails when that cannot come for
    /// one of them, once it is known of all; and at the deadline.
    pub(super) async fn outcome(
        &self,
        wanted: &[(Name, Awaited)],
        revision: u64,
        deadline: Option<Instant>,
    ) -> Result<Arc<View>, Status> {
        let mut views = self.handle.watch();
        let reached = async {
            loop {
                let view = Arc::clone(&views.borrow_and_update());
                if view.revision.0 >= revision
                    && let Some(outcome) = self.decided(&view, wanted)
                {
                    return outcome.map(|()| view);
                }
                if views.changed().await.is_err() {
                    return Err(Refusal::ShuttingDown);
                }
            }
        };
        let impatient = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = reached => outcome.map_err(Status::from),
            () = self.shutdown.cancelled() => Err(Refusal::ShuttingDown.into()),
            () = impatient => Err(self.not_in_time(wanted)),
        }
    }

    /// The outcome, if it is known of all.
    fn decided(&self, view: &View, wanted: &[(Name, Awaited)]) -> Option<Result<(), Refusal>> {
        let mut failures = Vec::new();
        for (name, awaited) in wanted {
            let Some(instance) = view.instances.get(name) else {
                failures.push(Refusal::Denied(Denied::UnknownInstance(name.clone())));
                continue;
            };
            let why = match judge(view, instance, *awaited) {
                Verdict::Reached => continue,
                Verdict::NotYet => return None,
                Verdict::Failed => None,
                Verdict::Never(why) => Some(why),
            };
            let status = self.scene(view, Extent::Few).instance(instance).status.unwrap_or_default();
            let sentence = format!("`{name}` is not {awaited}: {}", why.unwrap_or(status.reason));
            let next = typed(&status.hint);
            failures.push(Refusal::OutcomeFailed { instance: name.to_string(), sentence, next });
        }
        Some(match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => Err(together(&failures)),
        })
    }

    /// The caller's patience ends before the outcome has come.
    fn not_in_time(&self, wanted: &[(Name, Awaited)]) -> Status {
        let view = self.handle.view();
        let scene = self.scene(&view, Extent::Few);
        let open: Vec<String> = wanted
            .iter()
            .filter_map(|(name, awaited)| {
                let instance = view.instances.get(name)?;
                let Verdict::NotYet = judge(&view, instance, *awaited) else { return None };
                let reason = scene.instance(instance).status.unwrap_or_default().reason;
                Some(format!("`{name}` is not {awaited} yet: {reason}"))
            })
            .collect();
        let message =
            format!("{}; the wish stands, and `openclawctl status` tells how far it is.", open.join("; "));
        Status::new(Code::DeadlineExceeded, message)
    }
}

/// A hint as the end of a sentence.
fn typed(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("next: {hint}") }
}

/// Several refusals as one.
fn together(failures: &[Refusal]) -> Refusal {
    let sentences: Vec<String> = failures.iter().map(ToString::to_string).collect();
    Refusal::OutcomeFailed {
        instance: String::new(),
        sentence: sentences.join("; "),
        next: "`openclawctl status` says more".into(),
    }
}

fn judge(view: &View, instance: &Instance, awaited: Awaited) -> Verdict {
    let record = instance.record();
    match (awaited, record.wish, &record.standing) {
        (Awaited::Up, Wish::Down, _) => Verdict::Never("an operator wants it down".into()),
        (Awaited::Up, Wish::Up, _) if view.halting => {
            Verdict::Never("the supervisor stops all instances".into())
        }
        (Awaited::Up, Wish::Up, _) => up(instance),
        (Awaited::Down, Wish::Up, _) => Verdict::Never("an operator wants it up".into()),
        (Awaited::Down, Wish::Down, _) if *instance.phase() == Phase::Stopped => Verdict::Reached,
        (Awaited::Down, Wish::Down, _) => Verdict::NotYet,
        (Awaited::FailedOver, _, Standing::Away(_)) | (Awaited::InPlace, _, Standing::Own) => {
            Verdict::Reached
        }
        (Awaited::FailedOver, _, Standing::Own) => Verdict::Never("it has its place again".into()),
        (Awaited::FailedOver, _, Standing::Promoting(by)) => {
            match view.instances.get(&by.rescue).map(|r| r.phase()) {
                Some(Phase::Failed { .. }) | None => {
                    Verdict::Never(format!("`{}` cannot stand in", by.rescue))
                }
                Some(
                    Phase::Stopped
                    | Phase::Adopting
                    | Phase::Spawning
                    | Phase::Starting
                    | Phase::Ready
                    | Phase::Unhealthy
                    | Phase::Stopping { .. }
                    | Phase::Backoff { .. },
                ) => Verdict::NotYet,
            }
        }
        (Awaited::RolledBack { from, to }, wish, _) => match (back(instance, from, to), wish) {
            (Verdict::Reached, Wish::Up) if instance.goal() == Goal::Run => up(instance),
            (back, Wish::Up | Wish::Down) => back,
        },
        (Awaited::InPlace, _, Standing::Promoting(by) | Standing::Away(by)) => {
            Verdict::Never(format!("`{}` stands in for it again", by.rescue))
        }
    }
}

/// Whether the configuration is back. The gateway may have written into it since. What could not be read before says
/// nothing by being different.
fn back(instance: &Instance, from: Option<ConfigId>, to: ConfigId) -> Verdict {
    let content = instance.seen().and_then(|seen| seen.content);
    match instance.record().trial.restoring() {
        Some(restoring) if restoring.to == to => Verdict::NotYet,
        Some(_) | None
            if content.is_some_and(|found| found == to || from.is_some_and(|from| from != found)) =>
        {
            Verdict::Reached
        }
        Some(_) | None => Verdict::Never(not_back(instance, to)),
    }
}

/// Why the configuration is what it was before.
fn not_back(instance: &Instance, to: ConfigId) -> String {
    let rejected = instance.record().trial.rejected();
    match rejected.iter().find(|rejection| rejection.content == to) {
        Some(rejection) => format!(
            "its configuration is what it was before, for {} was taken back: {}",
            to.short(),
            rejection.why
        ),
        None => "its configuration could not be put back".into(),
    }
}

fn up(instance: &Instance) -> Verdict {
    match (instance.settled(), instance.phase()) {
        (true, Phase::Failed { .. }) => Verdict::Failed,
        (true, _) => Verdict::Reached,
        (false, _) => Verdict::NotYet,
    }
}
