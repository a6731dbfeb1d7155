//! Who answers what over HTTP: the doors, and the base port's health endpoints and page.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, ORIGIN, UPGRADE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde::Serialize;

use crate::census::Census;
use crate::gateway::{Gateway, Phase};
use crate::mischief;
use crate::pulse::EventLoop;
use crate::reply::{self, Body};
use crate::{browser, canvas, socket};

/// OpenClaw answers every path it does not know with its control page; a probe that looks at the status alone
/// is as wrong here as there.
const PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <title>Built-in gateway</title>\n\
    <h1>Built-in gateway</h1>\n<p>This gateway speaks OpenClaw's protocol and runs no agents. \
    Its health is at <a href=\"/readyz\">/readyz</a>.</p>\n</html>\n";

/// The port that a request came in by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Door {
    /// The base port.
    Base,
    /// Browser control.
    Browser,
    /// Canvas.
    Canvas,
}

impl Door {
    /// The count that bounds this door's connections.
    pub(crate) fn seats(self, gateway: &Gateway) -> &Census {
        match self {
            Self::Base => &gateway.base,
            Self::Browser | Self::Canvas => &gateway.side,
        }
    }
}

/// Answers a request.
pub(crate) async fn answer(
    gateway: &Arc<Gateway>,
    door: Door,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut response = match door {
        Door::Base => base(gateway, peer, request).await,
        Door::Browser | Door::Canvas if !names_this_machine(request.headers(), request.uri()) => {
            reply::text(StatusCode::FORBIDDEN, "This port is for this machine only.")
        }
        Door::Browser => browser::answer(gateway, &request),
        Door::Canvas => canvas::answer(&gateway.config.state_dir, &request).await,
    };
    if matches!(gateway.phase(), Phase::Draining(_)) {
        // Kept connections would hold the drain until its limit.
        response.headers_mut().entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
    }
    response
}

async fn base(gateway: &Arc<Gateway>, peer: SocketAddr, mut request: Request<Incoming>) -> Response<Body> {
    // Other upgrades, such as curl's offer of HTTP/2, may be passed over.
    if request.headers().get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return socket::upgrade(gateway, &mut request);
    }
    let details = if peer.ip().is_loopback() { Details::Shown } else { Details::Withheld };
    match request.uri().path() {
        "/health" | "/healthz" | "/startup" | "/startupz" | "/ready" | "/readyz"
            if !is_read(request.method()) =>
        {
            reply::method_not_allowed()
        }
        "/health" | "/healthz" => reply::json(StatusCode::OK, &Live { ok: true, status: "live" }),
        "/startup" | "/startupz" => startup(gateway, details),
        "/ready" | "/readyz" => readiness(gateway, details).await,
        _ => reply::reply(StatusCode::OK, "text/html; charset=utf-8", reply::bytes(PAGE)),
    }
}

/// Whether a caller learns more than yes or no. OpenClaw withholds the rest from other machines.
#[derive(Clone, Copy)]
enum Details {
    Shown,
    Withheld,
}

/// The body of `/healthz`.
#[derive(Serialize)]
struct Live {
    ok: bool,
    status: &'static str,
}

/// The body of `/startupz`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Startup<'g> {
    ok: bool,
    status: &'static str,
    #[serde(flatten)]
    details: Option<StartupDetails<'g>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartupDetails<'g> {
    version: &'g str,
    uptime_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_reason: Option<Cow<'static, str>>,
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Readiness<'g> {
    ready: bool,
    #[serde(flatten)]
    details: Option<ReadinessDetails<'g>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadinessDetails<'g> {
    failing: Vec<&'g str>,
    uptime_ms: u64,
    event_loop: EventLoop,
}

fn startup(gateway: &Gateway, details: Details) -> Response<Body> {
    let (status, pending_reason) = match gateway.phase() {
        Phase::Starting => {
            ("starting", Some(mischief::phase(gateway).map_or(socket::STARTING.into(), Cow::Owned)))
        }
        Phase::Started => ("started", None),
        Phase::Draining(_) => ("draining", None),
    };
    let details = match details {
        Details::Shown => Some(StartupDetails {
            version: gateway.version(),
            uptime_ms: gateway.uptime_ms(),
            pending_reason,
        }),
        Details::Withheld => None,
    };
    let ok = gateway.phase() == Phase::Started;
    reply::json(available(ok), &Startup { ok, status, details })
}

async fn readiness(gateway: &Gateway, details: Details) -> Response<Body> {
    let failing = match gateway.phase() {
        Phase::Starting => vec![socket::STARTING],
        Phase::Started => gateway.misbehaviour.failing(gateway.uptime()),
        Phase::Draining(_) => vec!["gateway-draining"],
    };
    let ready = failing.is_empty();
    let details = match details {
        Details::Shown => {
            let event_loop = gateway.pulse.measure().await;
            Some(ReadinessDetails { failing, uptime_ms: gateway.uptime_ms(), event_loop })
        }
        Details::Withheld => None,
    };
    reply::json(available(ready), &Readiness { ready, details })
}

fn available(yes: bool) -> StatusCode {
    if yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Whether the method only reads.
pub(crate) fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// Whether a request for a loopback port names this machine as its host. A web page can make its own name
/// resolve to 127.0.0.1; this keeps it from reading what only this machine may.
fn names_this_machine(headers: &HeaderMap, uri: &Uri) -> bool {
    let host = match (uri.host(), headers.get(HOST)) {
        (Some(host), _) => Some(host.to_owned()),
        (None, Some(host)) => host.to_str().ok().and_then(host_of),
        // HTTP/1.0, which no browser speaks.
        (None, None) => return true,
    };
    host.is_some_and(|host| is_loopback_name(&host))
}

/// Whether a WebSocket may be opened for a page of this origin: only for one served by this machine. Programs
/// send no origin. OpenClaw has the same rule, because with auth `none` nothing else stands in a page's way.
pub(crate) fn is_origin_allowed(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let host = origin.to_str().ok().and_then(|origin| host_of(origin.split_once("://")?.1));
    host.is_some_and(|host| is_loopback_name(&host))
}

fn host_of(authority: &str) -> Option<String> {
    authority.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned))
}

fn is_loopback_name(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::gateway::tests::{FAREWELL, gateway};

    async fn read(reply: Response<Body>) -> (u16, Value) {
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn the_endpoints_follow_the_phase() {
        let gateway = gateway();
        let (status, body) = read(startup(&gateway, Details::Shown)).await;
        assert_eq!((status, &body["ok"], &body["status"]), (503, &json!(false), &json!("starting")));
        assert_eq!(body["pendingReason"], "startup-sidecars");
        let (status, body) = read(readiness(&gateway, Details::Shown).await).await;
        assert_eq!(
            (status, &body["ready"], &body["failing"]),
            (503, &json!(false), &json!(["startup-sidecars"]))
        );
        gateway.started(vec!["canvas: gone".to_owned()]);
        let (status, body) = read(startup(&gateway, Details::Shown)).await;
        assert_eq!((status, &body["ok"], &body["status"]), (200, &json!(true), &json!("started")));
        assert_eq!(body.get("pendingReason"), None);
        let (status, body) = read(readiness(&gateway, Details::Shown).await).await;
        assert_eq!((status, &body["ready"], &body["failing"]), (200, &json!(true), &json!([])));
        gateway.drain(FAREWELL);
        let (status, body) = read(startup(&gateway, Details::Shown)).await;
        assert_eq!((status, &body["ok"], &body["status"]), (503, &json!(false), &json!("draining")));
        let (status, body) = read(readiness(&gateway, Details::Shown).await).await;
        assert_eq!(
            (status, &body["ready"], &body["failing"]),
            (503, &json!(false), &json!(["gateway-draining"]))
        );
    }

    #[tokio::test]
    async fn other_machines_learn_yes_or_no() {
        let gateway = gateway();
        gateway.started(vec![]);
        let (_, body) = read(startup(&gateway, Details::Withheld)).await;
        assert_eq!(body, json!({ "ok": true, "status": "started" }));
        let (_, body) = read(readiness(&gateway, Details::Withheld).await).await;
        assert_eq!(body, json!({ "ready": true }));
    }

    fn headers(name: hyper::header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_this_machines_pages_may_open_a_socket() {
        assert!(is_origin_allowed(&HeaderMap::new()));
        for origin in
            ["http://localhost:18789", "http://127.0.0.1:1", "http://[::1]:18789", "https://LOCALHOST"]
        {
            assert!(is_origin_allowed(&headers(ORIGIN, origin)), "{origin}");
        }
        for origin in ["http://evil.example", "null", "http://127.0.0.1.evil.example", "http://"] {
            assert!(!is_origin_allowed(&headers(ORIGIN, origin)), "{origin}");
        }
    }

    #[test]
    fn a_rebound_name_is_not_this_machine() {
        let uri = Uri::from_static("/");
        assert!(names_this_machine(&HeaderMap::new(), &uri));
        assert!(names_this_machine(&headers(HOST, "127.0.0.1:18791"), &uri));
        assert!(names_this_machine(&headers(HOST, "[::1]:18791"), &uri));
        for host in ["evil.example:18791", "127.0.0.1.evil.example", "", "a b"] {
            assert!(!names_this_machine(&headers(HOST, host), &uri), "{host}");
        }
    }
}
