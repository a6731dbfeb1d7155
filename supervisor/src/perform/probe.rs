//! Asks a gateway how it is.
//!
//! A probe is one question of one kind: is the start over, or is the running gateway live and ready? It makes
//! its own connections, closes them, and always has an answer by its timeout. What the answer means for the
//! instance is core's affair.

mod http;
mod openclaw;
mod tcp;
mod websocket;

use std::{
    cell::Cell,
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
    time::Duration,
};

use supervisor_core::{
    action::ProbeKind,
    event::{Report, Verdict},
};
use tokio::time;

use super::port::server::{Listeners, Owner};
use crate::{
    lineage::Lineage,
    openclaw::config::Token,
    spec::{self, ProbePlan},
};

use self::{http::GetError, tcp::ConnectError};

pub(crate) use openclaw::Dialect;

/// The longest message of a gateway that is passed on, in characters.
const QUOTED: usize = 160;

/// What is asked of one gateway, and all that is needed for asking.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What is asked, and where.
    pub(crate) plan: ProbePlan,
    /// Until a probe of the running gateway has failed.
    pub(crate) watch_timeout: Duration,
    /// What an OpenClaw without health endpoints wants to see before it answers.
    pub(crate) secret: Option<Secret>,
    /// Who is to answer.
    pub(crate) owner: Owner,
    /// What this incarnation has been found to speak. A new incarnation may be a new version, so it begins
    /// anew.
    pub(crate) dialect: Rc<Cell<Dialect>>,
}

/// A token, and the only one to whom it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Secret {
    /// What is shown.
    pub(crate) token: Token,
    /// To whom.
    pub(crate) owner: Owner,
}

/// Asks, and answers within the timeout.
pub(crate) async fn probe(target: &Target, kind: ProbeKind) -> Report {
    let plan = &target.plan;
    match kind {
        ProbeKind::Startup => ask(target, plan.startup.as_ref(), kind, plan.startup_timeout).await,
        ProbeKind::Watch if plan.liveness == plan.readiness => {
            ask(target, plan.liveness.as_ref(), kind, target.watch_timeout).await
        }
        ProbeKind::Watch => {
            let (live, ready) = tokio::join!(
                ask(target, plan.liveness.as_ref(), kind, target.watch_timeout),
                ask(target, plan.readiness.as_ref(), kind, target.watch_timeout),
            );
            Report { live: live.live, ready: ready.ready, progress: 0 }
        }
    }
}

/// The report, but for what somebody else has answered: between a start and its gateway's first listening its port is
/// anybody's, and again once the gateway has let go of it.
pub(crate) async fn unless_squatted(
    mut report: Report,
    target: &Target,
    kind: ProbeKind,
    (listeners, lineage): (&Listeners, &Lineage),
) -> Report {
    let plan = &target.plan;
    let answered = |verdict: &Verdict, asked: &Option<spec::Target>| {
        asked.as_ref().filter(|_| *verdict == Verdict::Pass).map(spec::Target::port)
    };
    let (live, ready) = match kind {
        ProbeKind::Startup => (None, answered(&report.ready, &plan.startup)),
        ProbeKind::Watch => {
            (answered(&report.live, &plan.liveness), answered(&report.ready, &plan.readiness))
        }
    };
    let may_wait = kind == ProbeKind::Watch;
    let squatter = async |port| listeners.squatter(port, (&target.owner, lineage), may_wait).await;
    for port in [live, ready].into_iter().flatten().collect::<BTreeSet<u16>>() {
        let Some(error) = squatter(port).await else { continue };
        let unwell = unwell(error.to_string(), progress("another answers"));
        let is_both = kind == ProbeKind::Startup;
        report.progress = unwell.progress;
        if is_both || live == Some(port) {
            report.live = unwell.live;
        }
        if is_both || ready == Some(port) {
            report.ready = unwell.ready;
        }
    }
    report
}

async fn ask(target: &Target, what: Option<&spec::Target>, kind: ProbeKind, limit: Duration) -> Report {
    let Some(what) = what else { return well() };
    let answer = async {
        match what {
            spec::Target::Tcp { port } => match tcp::connect(*port).await {
                Ok(_) => well(),
                Err(error) => unconnected(&error),
            },
            spec::Target::Http { port, path } => match http::status(*port, path).await {
                Ok(status) if (200..400).contains(&status) => well(),
                Ok(status) => unwell(format!("{path} answered {status}"), progress("answers")),
                Err(error) => silent(&error),
            },
            spec::Target::Websocket { port } => openclaw::challenged(*port).await,
            spec::Target::Openclaw { port } => match kind {
                ProbeKind::Startup => openclaw::startup(*port, target).await,
                ProbeKind::Watch => openclaw::watch(*port, target).await,
            },
        }
    };
    time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| unwell(format!("no answer within {limit:?}"), progress("accepts connections")))
}

/// It is live and ready.
fn well() -> Report {
    Report { live: Verdict::Pass, ready: Verdict::Pass, progress: progress("well") }
}

/// It is neither live nor ready.
fn unwell(message: String, progress: u64) -> Report {
    Report { live: Verdict::Fail(message.clone()), ready: Verdict::Fail(message), progress }
}

/// It is live and not ready.
fn unready(message: String, progress: u64) -> Report {
    Report { live: Verdict::Pass, ready: Verdict::Fail(message), progress }
}

/// Nothing could be asked.
fn silent(error: &GetError) -> Report {
    let progress = match error {
        GetError::Connect(error) => return unconnected(error),
        GetError::Path { .. } => 0,
        GetError::Answer { .. } | GetError::Body { .. } => progress("accepts connections"),
    };
    unwell(quoted(&error.to_string()), progress)
}

/// There is no connection.
fn unconnected(error: &ConnectError) -> Report {
    match error {
        ConnectError::Refused(_) | ConnectError::Connect { .. } => unwell(error.to_string(), 0),
        ConnectError::Unable { .. } => {
            let why = error.to_string();
            Report { live: Verdict::Unknown(why.clone()), ready: Verdict::Unknown(why), progress: 0 }
        }
    }
}

/// A number that stands for how far a start has come.
fn progress(stage: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    stage.hash(&mut hasher);
    hasher.finish()
}

/// What a gateway said, fit for a line of a terminal.
fn quoted(said: &str) -> String {
    said.chars().take(QUOTED).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
