//! The way there: end what runs the profile, start it as an instance, see that it is the right one.

use std::{sync::Arc, time::Duration};

use supervisor_core::{
    event::{Command, Dangling},
    ids::{Incarnation, Name},
    instance::{Failure, Instance, Phase},
    ladder::Purpose,
    record::Wish,
    view::View,
};
use tokio::{
    task,
    time::{self, Instant},
};
use tracing::info;

use super::{
    Importer, Report, Trouble, find, has, hello,
    journal::{Journal, Step},
};
use crate::{
    openclaw::{
        config::{check::read_plainly, declared_token},
        layout::resolve,
        snapshots::content_id,
    },
    perform::port::server::{Owner, ServerError},
    registry,
    spec::InstanceSpec,
    user,
};

/// A gateway has 330 s to end, and then systemd kills it; one that was started by hand is waited for as long.
pub(super) const GONE: Duration = Duration::from_secs(350);

/// OpenClaw takes up to 4 minutes to be ready on small hosts, and may be started twice.
const READY: Duration = Duration::from_secs(600);

/// Once they are gone, their port is free at once; whoever still listens on it is somebody else.
const FREE: Duration = Duration::from_secs(10);

/// Between two looks at processes and ports.
const LOOK: Duration = Duration::from_millis(100);

/// Lives that may end before it is ready. The first may meet what the old gateway has left behind.
const LIVES: u64 = 2;

impl Importer {
    /// Goes all the way, from the step that the journal says.
    pub(super) async fn take(&self, journal: &mut Journal) -> Result<Report, Trouble> {
        let mut report = Report::default();
        if journal.step <= Step::Stop {
            self.note(journal, Step::Stop).await?;
            report.steps.extend(self.stop(journal).await?);
        }
        if journal.step <= Step::Take {
            self.note(journal, Step::Take).await?;
            self.create(journal).await?;
            let start = Command::Start { name: journal.name.clone(), otherwise: None };
            self.handle.submit_by(journal.asker(), start).await?;
            report.steps.push("took its directories over as they are".into());
        }
        self.note(journal, Step::Verify).await?;
        let port = self.ready(&journal.name).await?;
        report.notes.extend(self.verify(journal, port).await?);
        journal.adopted = self.content(journal).await;
        self.note(journal, Step::Done).await?;
        info!(name = %journal.name, "imported");
        report.steps.push(format!("it is ready on port {port}{}", sessions(journal.sessions)));
        Ok(report)
    }

    /// Ends what runs the profile, and waits for proof of that.
    async fn stop(&self, journal: &Journal) -> Result<Vec<String>, Trouble> {
        let mut steps = Vec::new();
        if let Some(unit) = journal.unit.clone().filter(|unit| unit.active || unit.enabled) {
            steps.push(format!("ended its service: `{}`", unit.typed("disable --now")));
            task::spawn_blocking(move || unit.end()).await.map_err(|_| Trouble::Interrupted)?;
        } else if let Some(running) = journal.running.filter(|running| running.is_alive()) {
            steps.push(format!("ended its gateway: SIGTERM to process {}", running.pid));
            running.terminate().map_err(|error| {
                Trouble::told(format!("process {} cannot be asked to end: {error}", running.pid))
            })?;
        }
        self.gone(journal).await?;
        Ok(steps)
    }

    /// Waits until nothing of the old gateway is left, and nobody else has its port.
    async fn gone(&self, journal: &Journal) -> Result<(), Trouble> {
        let of = journal.clone();
        self.until_free(GONE, move || left_of(&of)).await?;
        let (port, listeners) = (journal.spec.port, Arc::clone(&self.listeners));
        let held = move || {
            let listening = listeners(&[port?]).into_iter().next()?;
            let who = listening.pid.map(|pid| format!(" by process {pid} ({})", listening.command));
            Some(format!("port {} is held{}", listening.port, who.unwrap_or_default()))
        };
        self.until_free(FREE, held).await
    }

    /// Waits until `left` has nothing to tell.
    async fn until_free(
        &self,
        limit: Duration,
        left: impl Fn() -> Option<String> + Clone + Send + 'static,
    ) -> Result<(), Trouble> {
        let deadline = Instant::now() + limit;
        loop {
            let looked = task::spawn_blocking(left.clone()).await.map_err(|_| Trouble::Interrupted)?;
            let Some(left) = looked else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(Trouble::told(format!("after {} s {left}", limit.as_secs())));
            }
            time::sleep(LOOK).await;
        }
    }

    /// Creates the instance, unless that was done before.
    async fn create(&self, journal: &Journal) -> Result<(), Trouble> {
        if has(&self.handle.view(), journal) {
            return Ok(());
        }
        let (name, spec) = (journal.name.clone(), &journal.spec);
        let definition = registry::definition(name, spec, Dangling::Refused, &self.host)
            .map_err(|error| Trouble::told(error.to_string()))?;
        self.handle.submit_by(journal.asker(), Command::Create(definition)).await?;
        Ok(())
    }

    /// Waits until the instance is ready, and says on which port.
    async fn ready(&self, name: &Name) -> Result<u16, Trouble> {
        let mut views = self.handle.watch();
        let first = known(&self.handle.view(), name)?.incarnation();
        let decided = async {
            loop {
                let view = Arc::clone(&views.borrow_and_update());
                let instance = known(&view, name)?;
                if let Some(outcome) = judge(instance, first) {
                    return outcome.map(|()| instance.record().block.base);
                }
                views.changed().await.map_err(|_| Trouble::Interrupted)?;
            }
        };
        let late = |_| Trouble::told(format!("`{name}` is not ready after {} s", READY.as_secs()));
        time::timeout(READY, decided).await.map_err(late)?
    }

    /// Whether what answers is the profile's gateway, and nothing is missing. What could not be asked is told.
    async fn verify(&self, journal: &Journal, port: u16) -> Result<Vec<String>, Trouble> {
        let mut notes = Vec::new();
        let state = state_dir(&journal.spec);
        let (of, within) = (journal.clone(), state.clone());
        let looked = task::spawn_blocking(move || {
            let token = declared_token(of.own_config()).ok().flatten();
            (token, user::uid(of.spec.user.as_ref()), find::sessions(&within))
        });
        let (token, uid, sessions) = looked.await.map_err(|_| Trouble::Interrupted)?;
        if sessions < journal.sessions {
            let missing = journal.sessions - sessions;
            return Err(Trouble::told(format!(
                "{missing} of {} session files are missing",
                journal.sessions
            )));
        }
        let said = match &token {
            Some(token) => {
                let owner = Owner { name: journal.name.clone(), uid };
                hello::state_dir(port, token, &owner).await
            }
            None => Ok(None),
        };
        match said {
            Ok(Some(said)) if resolve(&said) == resolve(&state) => {}
            Ok(Some(said)) => {
                let (said, wanted) = (said.display(), state.display());
                return Err(Trouble::told(format!(
                    "what answers on port {port} has `{said}` for its state, not `{wanted}`"
                )));
            }
            Ok(None) => notes.push("its gateway does not say which state directory it has".into()),
            Err(error @ ServerError::Foreign { .. }) => return Err(Trouble::told(error.to_string())),
            Err(error @ (ServerError::Nobody { .. } | ServerError::Look { .. })) => {
                notes.push(error.to_string());
            }
        }
        Ok(notes)
    }

    /// The name of what the configuration holds now.
    async fn content(&self, journal: &Journal) -> Option<String> {
        let of = journal.clone();
        let content =
            task::spawn_blocking(move || read_plainly(of.own_config()).ok().flatten()).await.ok()??;
        Some(content_id(&content).into())
    }
}

/// What is left of the old gateway, if anything is.
fn left_of(journal: &Journal) -> Option<String> {
    if let Some(unit) = &journal.unit
        && unit.is_active() == Some(true)
    {
        return Some(format!("the unit `{}` is still active", unit.name));
    }
    let running = journal.running.filter(|running| running.is_alive())?;
    Some(format!("process {} still runs", running.pid))
}

/// Where the profile's state is.
pub(super) fn state_dir(spec: &InstanceSpec) -> std::path::PathBuf {
    spec.profile.as_ref().and_then(|profile| profile.state_dir.clone()).unwrap_or_default()
}

fn known<'a>(view: &'a View, name: &Name) -> Result<&'a Instance, Trouble> {
    let instance = view.instances.get(name);
    instance
        .map(Arc::as_ref)
        .ok_or_else(|| Trouble::told(format!("the instance `{name}` was deleted meanwhile")))
}

/// Whether it is decided that the instance is ready, or will not be.
fn judge(instance: &Instance, first: Incarnation) -> Option<Result<(), Trouble>> {
    let name = instance.name();
    let why = || instance.death().map(|cause| format!(": {cause}")).unwrap_or_default();
    if instance.record().wish == Wish::Down {
        return Some(Err(Trouble::Stopped(name.clone())));
    }
    // What a doctor would do to a profile that is still somebody else's cannot be put back.
    if instance.purpose() == Purpose::Repair {
        return Some(Err(Trouble::told(format!("`{name}` cannot start as it is{}", why()))));
    }
    match instance.phase() {
        Phase::Ready => Some(Ok(())),
        Phase::Failed { failure: Failure::Launch(failure), .. } => {
            Some(Err(Trouble::told(format!("`{name}` cannot be started: {failure}"))))
        }
        Phase::Failed { .. } => Some(Err(Trouble::told(format!("`{name}` does not stay up{}", why())))),
        Phase::Backoff { .. } if instance.incarnation().0 + 1 >= first.0.max(1) + LIVES => {
            Some(Err(Trouble::told(format!("`{name}` does not become ready{}", why()))))
        }
        Phase::Stopped
        | Phase::Adopting
        | Phase::Spawning
        | Phase::Starting
        | Phase::Unhealthy
        | Phase::Stopping { .. }
        | Phase::Backoff { .. } => None,
    }
}

fn sessions(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => ", with its session file".into(),
        many => format!(", with all its {many} session files"),
    }
}
