//! The dashboard: pages that show the fleet and operate it, for a browser on this host.
//!
//! ```text
//!   browser ── GET  /              the page, its style and script: nothing secret, for anybody     ([`pages`])
//!           ── POST /api/session   the ticket of a link ──► that of a session                      ([`session`])
//!           ── POST /api/renew     that, of an earlier supervisor with a proof ──► another
//!           ── POST /api/rights    which calls its session may make                                 ([`rpc`])
//!           ── POST /api/…         a call of the contract, with that ──► gate ──► services         ([`rpc`])
//!                                  each signed by its page, and made once                          ([`proof`])
//! ```
//!
//! It listens on loopback alone, by plain HTTP, and only when it is asked for. Loopback is no boundary: every process of
//! the host can connect, and every page that the browser shows can make it connect. So nothing is done for who shows no
//! session, and signs what it asks with what only its page knows; what that may do is what the user may who asked for the
//! link; and whatever another page could have a browser send is refused: calls with another host's name, from another
//! origin, or without the header that only our script sends.

mod door;
mod key;
mod pages;
mod proof;
mod rpc;
mod session;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::body::{Body, to_bytes};
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_socket_send_buffer_size;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::warn;

pub(crate) use door::Dashboard;
pub(crate) use key::{FILE as KEY_FILE, load as load_key};
pub(crate) use session::Sessions;

use self::{
    proof::Proof,
    rpc::{Contract, Failure},
    session::{Refused, Session},
};
use crate::{
    api::{Inlet, Visit},
    perform::port::server,
};

/// Where it is served unless something else is said: beside the pool of ports.
pub const USUAL: u16 = 18_780;

/// The head of a request has so long to come; also how long an idle connection is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// The rest of it as well: what has no session yet is not waited for.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// The largest head, and the largest request: a name and a note.
const LARGEST: usize = 16 << 10;

/// Bytes of answers that may wait with the kernel, which takes it for half of what it may use.
const WAITING: usize = 64 << 10;

/// After a failure to accept a connection, e.g. for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What only our own script sends: another page's could only with our leave.
const OURS: &str = "x-openclaw-page";

/// By what a page shows that a call is its own.
const PROOF: &str = "x-openclaw-proof";

/// Everything that pages need.
#[derive(Debug)]
struct Web {
    inlet: Inlet,
    sessions: Sessions,
    contract: Contract,
    port: u16,
}

/// What is at the other end of a connection.
#[derive(Debug)]
struct Browser {
    /// Whose program it is, on this host.
    user: Option<u32>,
    /// A stranger's until it has shown a session.
    visit: Visit,
}

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The contract cannot be read.
    #[error("failed to read the contract")]
    Contract(#[from] prost_reflect::DescriptorError),
}

/// Serves it until `shutdown`, from when its address can be had.
pub(crate) async fn serve(
    dashboard: Dashboard,
    inlet: Inlet,
    shutdown: CancellationToken,
) -> Result<(), WebError> {
    let (sessions, port) = (dashboard.sessions().clone(), dashboard.port());
    let web = Arc::new(Web { inlet, sessions, contract: Contract::new()?, port });
    // Before callers are served, who are told where it is.
    let opened = dashboard.open().await;
    tokio::spawn(async move {
        let listeners = match opened {
            Some(listeners) => listeners,
            None => tokio::select! {
                listeners = dashboard.open_at_last() => listeners,
                () = shutdown.cancelled() => return,
            },
        };
        for listener in listeners {
            tokio::spawn(Arc::clone(&web).listen(listener, shutdown.clone()));
        }
    });
    Ok(())
}

impl Web {
    async fn listen(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (web, shutdown) = (Arc::clone(&self), shutdown.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = web.converse(stream) => {}
                            () = shutdown.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "failed to accept a connection of the dashboard");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Until the browser has gone, or has to make room for others.
    async fn converse(self: Arc<Self>, stream: TcpStream) {
        // Before anything else takes time: who has no seat is counted by nobody.
        let visit = self.inlet.enter();
        let ended = visit.end();
        tokio::select! {
            () = self.serve(stream, visit) => {}
            () = ended.cancelled() => {}
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, visit: Visit) {
        let (Ok(own), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else { return };
        // The kernel would keep megabytes that nobody reads, where nobody counts them.
        if set_socket_send_buffer_size(&stream, WAITING).is_err() {
            return;
        }
        let user = server::client((own, peer)).await;
        user.into_iter().for_each(|uid| visit.is_from(uid));
        let stream = visit.paced(stream);
        let browser = Arc::new(Browser { user, visit });
        let service = service_fn(move |request| {
            let (web, browser) = (Arc::clone(&self), Arc::clone(&browser));
            async move { Ok::<_, std::convert::Infallible>(web.answer(request, &browser).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(LARGEST)
            .serve_connection(TokioIo::new(stream), service);
        // A browser that has gone is no news.
        let _ = served.await;
    }

    async fn answer(&self, request: Request<Incoming>, browser: &Browser) -> Response<Body> {
        let mut answer = if self.is_called_right(&request) {
            self.route(request, browser).await
        } else {
            Failure::new(Code::PermissionDenied, "open the dashboard by the link of `openclawctl web`.")
                .answer()
        };
        pages::protect(answer.headers_mut());
        answer
    }

    /// Whether it is called by a name of this host, of which each link has one of its own. Another name that leads here is
    /// somebody else's (DNS rebinding).
    fn is_called_right(&self, request: &Request<Incoming>) -> bool {
        let port = format!(":{}", self.port);
        // Of the usual port browsers do not speak.
        let name = host(request).and_then(|host| match self.port {
            80 => Some(host),
            _ => host.strip_suffix(&port),
        });
        name.is_some_and(|name| match name.strip_suffix(".localhost") {
            Some(own) => own.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            None => ["127.0.0.1", "localhost", "[::1]"].contains(&name),
        })
    }

    async fn route(&self, request: Request<Incoming>, browser: &Browser) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let Some(call) = path.strip_prefix("/api/") else {
            return match *request.method() {
                Method::GET => pages::page(&path),
                _ => plain(StatusCode::METHOD_NOT_ALLOWED, "pages are read"),
            };
        };
        if *request.method() != Method::POST || !is_ours(&request) {
            return Failure::new(Code::PermissionDenied, "calls are made by the page itself.").answer();
        }
        let session = bearer(&request).map(str::to_owned);
        let proof = request.headers().get(PROOF).and_then(|proof| Proof::read(proof.to_str().ok()?));
        let body = timeout(BODY_WITHIN, to_bytes(Body::new(request.into_body()), LARGEST)).await;
        let Ok(Ok(body)) = body else {
            let message = "the request is too long, or broke off.";
            return Failure::new(Code::InvalidArgument, message).answer();
        };
        let Some(user) = browser.user else {
            let message = "nobody can tell whose browser this is; open the dashboard on the supervisor's host, or by ssh -L.";
            return Failure::new(Code::PermissionDenied, message).answer();
        };
        let (session, text) = (session.unwrap_or_default(), String::from_utf8_lossy(&body));
        if call == "session" {
            return self.open(&text, user);
        }
        if call == "renew" {
            return self.renew(&session, &text, user);
        }
        let Some(proof) = proof else { return self.over() };
        let visitor = match self.sessions.visitor(&session, user, &proof, (call, &body)) {
            Ok(visitor) => visitor,
            Err(Refused::Over) => return self.over(),
            Err(Refused::Again) => return again(),
        };
        let caller = self.inlet.meet(&browser.visit, visitor);
        if call == "rights" {
            return rpc::rights(&self.inlet, &caller);
        }
        let (service, name) = call.split_once('/').unwrap_or((call, ""));
        match self.contract.method(service, name) {
            Ok(method) if method.streams() => method.follow(&self.inlet, &caller, &text).await,
            Ok(method) => method.ask(&self.inlet, &caller, &text).await,
            Err(failure) => failure.answer(),
        }
    }

    /// Makes a session of a link.
    fn open(&self, link: &str, user: u32) -> Response<Body> {
        self.sessions.follow(link.trim(), user).map_or_else(
            || {
                let message =
                    "this link was followed already, or is too old; type `openclawctl web` for another.";
                Failure::new(Code::Unauthenticated, message).answer()
            },
            |session| given(&session),
        )
    }

    /// Goes on with a session, of an earlier supervisor with a proof.
    fn renew(&self, session: &str, proof: &str, user: u32) -> Response<Body> {
        let renewed = self.sessions.renew(session, proof.trim(), user);
        renewed.map_or_else(|| self.over(), |session| given(&session))
    }

    /// The session is none, or of an earlier life; which life this is.
    fn over(&self) -> Response<Body> {
        let message = "this session is over; open the dashboard by the link of `openclawctl web`.";
        Failure::new(Code::Unauthenticated, message).answer_with("life", self.sessions.life())
    }
}

/// A browser sends a call anew whose connection broke; another program may, too. The page makes another of it, with the same
/// request id.
fn again() -> Response<Body> {
    let message = "this call was made already.";
    Failure::new(Code::Unauthenticated, message).answer_with("again", "yes")
}

fn host(request: &Request<Incoming>) -> Option<&str> {
    request.headers().get(header::HOST)?.to_str().ok()
}

/// Whether only our own script can have sent it, from a page of the same name.
fn is_ours(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let same = host(request).map(|host| format!("http://{host}"));
    headers.contains_key(OURS) && origin.is_none_or(|origin| same.as_deref() == Some(origin))
}

fn given(session: &Session) -> Response<Body> {
    let Session { ticket, secret } = session;
    rpc::answer(StatusCode::OK, &json!({ "session": ticket, "secret": secret }))
}

fn bearer(request: &Request<Incoming>) -> Option<&str> {
    request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer
}

/// Whether it may be served there: where browsers look for this host, and others are forwarded by those who may.
#[must_use]
pub fn is_fit(address: SocketAddr) -> bool {
    [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&address.ip())
}
