//! Asks as OpenClaw is asked.
//!
//! ```text
//!   /startupz, /readyz     since 2026.3
//!   /healthz alone         in case a version has only that
//!   WebSocket `health`     before 2026.3
//! ```
//!
//! All versions answer a path they do not know with status 200 and a page, so only the JSON counts. The probe
//! begins with what this incarnation was found to speak, and goes down the list from there.

use serde::Deserialize;
use supervisor_core::event::Report;

use super::{
    Target,
    http::{self, Answer},
    progress, quoted, silent, unconnected, unready, unwell,
    websocket::{self, AskError, Heard},
    well,
};

/// The least status that says the server has failed, not that the path is unknown.
const SERVER_ERROR: u16 = 500;

/// What a gateway speaks, learned by asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The health endpoints; also what is tried first.
    #[default]
    Endpoints,
    /// `/healthz` and no `/readyz`.
    LivenessOnly,
    /// None of them: health is asked by WebSocket.
    WebSocket,
}

/// The body of `/startupz`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Startup {
    ok: bool,
    status: String,
    #[serde(default)]
    pending_reason: Option<String>,
}

/// The body of `/readyz`.
#[derive(Debug, Deserialize)]
struct Readiness {
    ready: bool,
    #[serde(default)]
    failing: Vec<String>,
}

/// The body of `/healthz`.
#[derive(Debug, Deserialize)]
struct Liveness {
    ok: bool,
}

/// Is the start over? Only when it serves, because a rescue takes over at that word.
pub(super) async fn startup(port: u16, target: &Target) -> Report {
    if target.dialect.get() == Dialect::Endpoints {
        match http::json::<Startup>(port, "/startupz").await {
            Ok(Answer::Understood(_, Startup { ok: true, .. })) => {}
            Ok(Answer::Understood(status, Startup { ok: false, status: phase, pending_reason })) => {
                let why = quoted(pending_reason.as_ref().unwrap_or(&phase));
                return unready(
                    format!("/startupz answered {status}: {why}"),
                    progress((phase, pending_reason)),
                );
            }
            // It may have the others.
            Ok(Answer::Other(_)) => {}
            Err(error) => return silent(&error),
        }
    }
    watch(port, target).await
}

/// Is it live, and is it ready?
pub(super) async fn watch(port: u16, target: &Target) -> Report {
    let begin = target.dialect.get();
    if begin == Dialect::Endpoints
        && let Some(report) = readiness(port).await
    {
        return report;
    }
    if begin != Dialect::WebSocket
        && let Some(report) = liveness(port, target).await
    {
        return report;
    }
    by_websocket(port, target).await
}

/// One answer says both: that it comes is liveness. `None`: there is no such endpoint.
async fn readiness(port: u16) -> Option<Report> {
    match http::json(port, "/readyz").await {
        Ok(Answer::Understood(_, Readiness { ready: true, .. })) => Some(well()),
        Ok(Answer::Understood(status, Readiness { ready: false, mut failing })) => {
            failing.sort_unstable();
            let why = if failing.is_empty() { String::new() } else { format!(": {}", failing.join(", ")) };
            Some(unready(quoted(&format!("/readyz answered {status}{why}")), progress(failing)))
        }
        Ok(Answer::Other(status)) => broken("/readyz", status),
        Err(error) => Some(silent(&error)),
    }
}

/// `None`: there is no such endpoint.
async fn liveness(port: u16, target: &Target) -> Option<Report> {
    match http::json(port, "/healthz").await {
        Ok(Answer::Understood(status, Liveness { ok })) => {
            target.dialect.set(Dialect::LivenessOnly);
            Some(if ok { well() } else { unready(format!("/healthz answered {status}"), progress("unwell")) })
        }
        Ok(Answer::Other(status)) => broken("/healthz", status),
        Err(error) => Some(silent(&error)),
    }
}

pub(super) async fn by_websocket(port: u16, target: &Target) -> Report {
    let heard = match websocket::ask(port, target.secret.as_ref()).await {
        Ok(heard) => heard,
        Err(error) => return unasked(&error),
    };
    target.dialect.set(Dialect::WebSocket);
    match heard {
        Heard::Well => well(),
        Heard::Starting(why) => {
            unready(format!("the gateway is starting: {}", quoted(&why)), progress(("starting", why)))
        }
        Heard::Unwell(why) => {
            unready(format!("the gateway is not well: {}", quoted(&why)), progress(("unwell", why)))
        }
        // With nothing to show, to be turned away in good form is all the health there is to see.
        Heard::TurnedAway(_) if target.secret.is_none() => well(),
        // With its token in hand, it may be another gateway that sits on the port.
        Heard::TurnedAway(why) => {
            unready(format!("the gateway turned the probe away: {}", quoted(&why)), progress("turned away"))
        }
    }
}

/// Does it greet those who connect? Nothing more is said to it.
pub(super) async fn challenged(port: u16) -> Report {
    match websocket::challenge(port).await {
        Ok(()) => well(),
        Err(error) => unasked(&error),
    }
}

/// Nothing could be asked by WebSocket.
fn unasked(error: &AskError) -> Report {
    match error {
        AskError::Connect(error) => unconnected(error),
        AskError::Server(_) | AskError::Socket { .. } | AskError::Closed(_) => {
            unwell(quoted(&error.to_string()), progress("accepts connections"))
        }
    }
}

/// An answer without the JSON: the server has failed, or does not know the path.
fn broken(path: &str, status: u16) -> Option<Report> {
    (status >= SERVER_ERROR).then(|| unwell(format!("{path} answered {status}"), progress("answers")))
}
