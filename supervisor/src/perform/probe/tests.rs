//! Against real sockets: a fake gateway that says what each test needs.

use std::{
    cell::Cell,
    net::Ipv6Addr,
    path::Path,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use supervisor_core::{
    action::ProbeKind::{Startup, Watch},
    event::{Report, Verdict},
    ids::Name,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task,
};
use tokio_tungstenite::{
    accept_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::*;
use crate::openclaw::{config, own::Own};

const PATIENT: Duration = Duration::from_secs(60);
const PAGE: &str = "<!doctype html><title>Control</title>";

/// What a path answers: status and JSON.
type Answers = Mutex<Vec<(&'static str, u16, String)>>;

/// What a fake gateway does with a WebSocket.
#[derive(Debug, Clone, Copy)]
enum Socket {
    /// It has none.
    None,
    /// The whole conversation, for those who know this token.
    Open(&'static str),
    /// It is not ready for that yet.
    Starting,
    /// It closes without a word.
    Shy,
}

/// A gateway that answers HTTP from a table and all else with a page.
struct Fake {
    port: u16,
    answers: Arc<Answers>,
    gets: Arc<AtomicUsize>,
    farewells: Arc<AtomicUsize>,
    farewell: Arc<Notify>,
}

impl Fake {
    async fn start(socket: Socket) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            port: listener.local_addr().unwrap().port(),
            answers: Arc::default(),
            gets: Arc::default(),
            farewells: Arc::default(),
            farewell: Arc::default(),
        };
        let (answers, gets) = (Arc::clone(&fake.answers), Arc::clone(&fake.gets));
        let (farewells, farewell) = (Arc::clone(&fake.farewells), Arc::clone(&fake.farewell));
        task::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answers, gets) = (Arc::clone(&answers), Arc::clone(&gets));
                let (farewells, farewell) = (Arc::clone(&farewells), Arc::clone(&farewell));
                task::spawn(async move {
                    if !wants_upgrade(&stream).await {
                        gets.fetch_add(1, Ordering::SeqCst);
                        answer(stream, &answers).await;
                    } else if converse(stream, socket).await {
                        farewells.fetch_add(1, Ordering::SeqCst);
                        farewell.notify_one();
                    }
                });
            }
        });
        fake
    }

    fn says(&self, path: &'static str, status: u16, body: &Value) -> &Self {
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(known, ..)| *known != path);
        answers.push((path, status, body.to_string()));
        drop(answers);
        self
    }

    fn gets(&self) -> usize {
        self.gets.swap(0, Ordering::SeqCst)
    }

    fn target(&self) -> Target {
        target(Some(spec::Target::Openclaw { port: self.port }))
    }

    fn target_with_token(&self, token: &str) -> Target {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("openclaw.json");
        let text = json!({ "gateway": { "auth": { "mode": "token", "token": token } } });
        std::fs::write(&file, text.to_string()).unwrap();
        Target { secret: secret(&file), ..self.target() }
    }
}

fn target(asked: Option<spec::Target>) -> Target {
    let plan = ProbePlan {
        startup: asked.clone(),
        startup_timeout: PATIENT,
        liveness: asked.clone(),
        readiness: asked,
    };
    let dialect = Rc::new(Cell::new(Dialect::default()));
    Target { plan, watch_timeout: PATIENT, secret: None, owner: owner(), dialect }
}

/// The token of this configuration, for a gateway of this user.
fn secret(config: &Path) -> Option<Secret> {
    let token = config::declared_token(Own::nobodys(config)).unwrap()?;
    Some(Secret { token, owner: owner() })
}

/// A gateway of this user.
fn owner() -> Owner {
    Owner { name: Name::new("main").unwrap(), uid: Ok(rustix::process::geteuid().as_raw()) }
}

/// The head, left in the socket.
async fn peek_head(stream: &TcpStream) -> String {
    let mut buffer = vec![0; 4096];
    loop {
        let length = stream.peek(&mut buffer).await.unwrap_or(0);
        let head = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if length == 0 || head.contains("\r\n\r\n") {
            return head;
        }
        task::yield_now().await;
    }
}

async fn wants_upgrade(stream: &TcpStream) -> bool {
    peek_head(stream).await.to_lowercase().contains("upgrade: websocket")
}

async fn answer(mut stream: TcpStream, answers: &Answers) {
    let head = peek_head(&stream).await;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let known = answers.lock().unwrap().iter().find(|(known, ..)| *known == path).cloned();
    let (status, kind, body) = match known {
        Some((_, status, body)) => (status, "application/json; charset=utf-8", body),
        None => (200, "text/html", PAGE.to_owned()),
    };
    let length = body.len();
    let text =
        format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    // Until the probe closes.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// Whether the caller said goodbye with a close frame.
async fn converse(mut stream: TcpStream, socket: Socket) -> bool {
    if matches!(socket, Socket::None) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        return false;
    }
    let mut ws = accept_async(stream).await.unwrap();
    if matches!(socket, Socket::Shy) {
        let _ = ws.close(None).await;
        while let Some(Ok(_)) = ws.next().await {}
        return false;
    }
    let event =
        |name: &str| Message::text(json!({ "type": "event", "event": name, "payload": [1] }).to_string());
    ws.send(event("tick")).await.unwrap();
    ws.send(event("connect.challenge")).await.unwrap();
    let mut farewell = false;
    while let Some(Ok(message)) = ws.next().await {
        farewell |= message.is_close();
        let Message::Text(text) = message else { continue };
        let request: Value = serde_json::from_str(&text).unwrap();
        let _ = ws.send(event("presence")).await;
        let (reply, turned_away) = reply(socket, &request);
        ws.send(Message::text(reply.to_string())).await.unwrap();
        if turned_away {
            let _ = ws.close(Some(CloseFrame { code: CloseCode::Policy, reason: "no".into() })).await;
        }
    }
    farewell
}

fn reply(socket: Socket, request: &Value) -> (Value, bool) {
    let failed =
        |error: Value| (json!({ "type": "res", "id": request["id"], "ok": false, "error": error }), true);
    let done = |payload: Value| {
        (json!({ "type": "res", "id": request["id"], "ok": true, "payload": payload }), false)
    };
    match (socket, request["method"].as_str()) {
        (Socket::Open(token), Some("connect")) => {
            let (least, most) = (&request["params"]["minProtocol"], &request["params"]["maxProtocol"]);
            assert!(least.as_u64() <= Some(3) && most.as_u64() >= Some(4), "{request}");
            match request["params"]["auth"]["token"].as_str() {
                Some(shown) if shown == token => done(json!({ "type": "hello-ok", "protocol": 4 })),
                shown => failed(json!({
                    "code": "INVALID_REQUEST",
                    "message": format!("unauthorized: {} does not match", shown.unwrap_or("nothing")),
                })),
            }
        }
        (Socket::Open(_), Some("health")) => done(json!({ "ok": true, "channels": {} })),
        (Socket::Starting, _) => failed(json!({
            "code": "UNAVAILABLE",
            "message": "not yet",
            "details": { "reason": "startup-sidecars" },
            "retryAfterMs": 500,
        })),
        (Socket::None | Socket::Shy | Socket::Open(_), _) => {
            failed(json!({ "code": "X", "message": "what?" }))
        }
    }
}

fn starting(pending: &str, uptime: u64) -> Value {
    json!({ "ok": false, "status": "starting", "pendingReason": pending, "uptimeMs": uptime })
}

fn started() -> Value {
    json!({ "ok": true, "status": "started", "uptimeMs": 9 })
}

fn ready(ready: bool, failing: &[&str]) -> Value {
    json!({ "ready": ready, "failing": failing, "uptimeMs": 9, "eventLoop": { "degraded": true } })
}

fn fails(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Pass => panic!("it passes"),
        Verdict::Fail(message) => message,
        Verdict::Unknown(why) => panic!("{why}"),
    }
}

#[track_caller]
fn assert_well(report: &Report) {
    assert_eq!((&report.live, &report.ready), (&Verdict::Pass, &Verdict::Pass));
}

#[tokio::test]
async fn a_starting_gateway_is_live_and_says_what_it_waits_for() {
    let fake = Fake::start(Socket::None).await;
    fake.says("/startupz", 503, &starting("startup-sidecars", 17));
    let report = probe(&fake.target(), Startup).await;
    assert_eq!(report.live, Verdict::Pass);
    assert_eq!(fails(&report.ready), "/startupz answered 503: startup-sidecars");
}

#[tokio::test]
async fn progress_is_a_new_phase_and_not_the_passing_of_time() {
    let fake = Fake::start(Socket::None).await;
    let target = fake.target();
    fake.says("/startupz", 503, &starting("config", 17));
    let first = probe(&target, Startup).await.progress;
    fake.says("/startupz", 503, &starting("config", 18));
    assert_eq!(probe(&target, Startup).await.progress, first);
    fake.says("/startupz", 503, &starting("startup-sidecars", 19));
    let second = probe(&target, Startup).await.progress;
    assert_ne!(second, first);
    fake.says("/startupz", 200, &started()).says("/readyz", 503, &ready(false, &["channels", "a"]));
    let third = probe(&target, Startup).await.progress;
    assert_ne!(third, second);
    fake.says("/readyz", 503, &ready(false, &["a", "channels"]));
    assert_eq!(probe(&target, Startup).await.progress, third);
}

#[tokio::test]
async fn a_start_is_over_when_the_gateway_has_started_and_is_ready() {
    let fake = Fake::start(Socket::None).await;
    let target = fake.target();
    fake.says("/startupz", 200, &started()).says("/readyz", 503, &ready(false, &["channels"]));
    let report = probe(&target, Startup).await;
    assert_eq!(report.live, Verdict::Pass);
    assert_eq!(fails(&report.ready), "/readyz answered 503: channels");
    fake.says("/readyz", 200, &ready(true, &[]));
    assert_well(&probe(&target, Startup).await);
}

#[tokio::test]
async fn a_running_gateway_answers_both_questions_with_one_request() {
    let fake = Fake::start(Socket::None).await;
    let target = fake.target();
    fake.says("/readyz", 200, &ready(true, &[]));
    assert_well(&probe(&target, Watch).await);
    assert_eq!(fake.gets(), 1);
    fake.says("/readyz", 503, &ready(false, &["gateway-draining"]));
    let report = probe(&target, Watch).await;
    assert_eq!(fake.gets(), 1);
    assert_eq!(report.live, Verdict::Pass);
    assert_eq!(fails(&report.ready), "/readyz answered 503: gateway-draining");
}

#[tokio::test]
async fn a_page_with_status_200_is_no_health() {
    let fake = Fake::start(Socket::None).await;
    for kind in [Startup, Watch] {
        let report = probe(&fake.target(), kind).await;
        let message = fails(&report.live);
        assert!(message.contains("does not answer as OpenClaw does"), "{message}");
        fails(&report.ready);
    }
}

#[tokio::test]
async fn a_server_error_is_neither_live_nor_an_older_version() {
    let fake = Fake::start(Socket::Open("t")).await;
    fake.says("/readyz", 500, &json!({ "error": "boom" }));
    let target = fake.target_with_token("t");
    let report = probe(&target, Watch).await;
    assert_eq!(fails(&report.live), "/readyz answered 500");
    assert_eq!(target.dialect.get(), Dialect::Endpoints);
}

#[tokio::test]
async fn a_gateway_with_a_liveness_endpoint_alone_is_judged_by_that() {
    let fake = Fake::start(Socket::None).await;
    let target = fake.target();
    fake.says("/healthz", 200, &json!({ "ok": true, "status": "live" }));
    assert_well(&probe(&target, Startup).await);
    assert_eq!(fake.gets(), 3);
    assert_well(&probe(&target, Watch).await);
    assert_eq!(fake.gets(), 1, "what it speaks is remembered");
}

#[tokio::test]
async fn an_older_gateway_is_asked_by_websocket_and_left_politely() {
    let fake = Fake::start(Socket::Open("t0ken")).await;
    let target = fake.target_with_token("t0ken");
    assert_well(&probe(&target, Startup).await);
    assert_eq!(target.dialect.get(), Dialect::WebSocket);
    assert_eq!(fake.gets(), 3);
    assert_well(&probe(&target, Watch).await);
    assert_eq!(fake.gets(), 0, "what it speaks is remembered");
    while fake.farewells.load(Ordering::SeqCst) < 2 {
        fake.farewell.notified().await;
    }
}

#[tokio::test]
async fn a_gateway_whose_websocket_is_unavailable_is_live_and_starting() {
    let fake = Fake::start(Socket::Starting).await;
    let report = probe(&fake.target(), Startup).await;
    assert_eq!(report.live, Verdict::Pass);
    assert_eq!(fails(&report.ready), "the gateway is starting: startup-sidecars");
    assert_ne!(report.progress, 0);
}

#[tokio::test]
async fn a_refused_token_means_another_gateway_and_is_never_shown() {
    let fake = Fake::start(Socket::Open("theirs")).await;
    let report = probe(&fake.target_with_token("0urs"), Watch).await;
    assert_eq!(report.live, Verdict::Pass);
    let message = fails(&report.ready);
    assert_eq!(message, "the gateway turned the probe away: unauthorized: (token) does not match");
}

#[tokio::test]
async fn a_gateway_whose_token_is_not_known_is_well_if_it_turns_the_probe_away() {
    let fake = Fake::start(Socket::Open("theirs")).await;
    assert_well(&probe(&fake.target(), Watch).await);
}

#[tokio::test]
async fn a_websocket_that_closes_without_a_word_is_not_live() {
    let fake = Fake::start(Socket::Shy).await;
    let report = probe(&fake.target(), Watch).await;
    assert!(fails(&report.live).contains("closed the connection without an answer"), "{report:?}");
}

/// A port on which nothing listens, held so that nobody else takes it.
fn dead_port() -> (u16, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap().port(), socket)
}

#[tokio::test]
async fn a_gateway_that_does_not_listen_yet_has_made_no_progress() {
    let (port, _held) = dead_port();
    for asked in [
        spec::Target::Openclaw { port },
        spec::Target::Tcp { port },
        spec::Target::Http { port, path: "/".into() },
    ] {
        let report = probe(&target(Some(asked)), Startup).await;
        assert_eq!(fails(&report.live), format!("connection refused on port {port}"));
        assert_eq!(report.progress, 0);
    }
}

#[tokio::test]
async fn a_gateway_that_accepts_and_says_nothing_is_found_out_by_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut target = target(Some(spec::Target::Openclaw { port }));
    target.watch_timeout = Duration::from_millis(200);
    let report = probe(&target, Watch).await;
    assert_eq!(fails(&report.live), "no answer within 200ms");
    assert_eq!(fails(&report.ready), "no answer within 200ms");
    target.plan.startup_timeout = Duration::from_millis(1_500);
    let report = probe(&target, Startup).await;
    assert_eq!(fails(&report.ready), "no answer within 1.5s");
    assert_ne!(report.progress, 0, "that it listens is progress");
}

#[tokio::test]
async fn a_command_passes_by_its_status_alone() {
    let fake = Fake::start(Socket::None).await;
    fake.says("/moved", 302, &json!({})).says("/gone", 404, &json!({}));
    let asked = |path: &str| target(Some(spec::Target::Http { port: fake.port, path: path.into() }));
    assert_well(&probe(&asked("/"), Watch).await);
    assert_well(&probe(&asked("/moved"), Startup).await);
    assert_eq!(fails(&probe(&asked("/gone"), Watch).await.live), "/gone answered 404");
}

#[tokio::test]
async fn an_endless_answer_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    task::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    assert_well(&probe(&target(Some(spec::Target::Http { port, path: "/events".into() })), Watch).await);
}

#[tokio::test]
async fn an_answer_beyond_the_bound_is_refused() {
    let fake = Fake::start(Socket::None).await;
    let long = "x".repeat(100_000);
    fake.says("/readyz", 503, &ready(false, &[&long]));
    let report = probe(&fake.target(), Watch).await;
    assert!(fails(&report.live).starts_with("the answer to /readyz could not be read"), "{report:?}");
    fake.says("/readyz", 503, &ready(false, &["a\u{1b}[2J\n", &long[..5_000]]));
    let report = probe(&fake.target(), Watch).await;
    let message = fails(&report.ready);
    assert!(message.chars().count() <= QUOTED && !message.contains(char::is_control), "{message}");
}

#[tokio::test]
async fn a_port_that_listens_over_ipv6_alone_is_found() {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else { return };
    let port = listener.local_addr().unwrap().port();
    assert_well(&probe(&target(Some(spec::Target::Tcp { port })), Watch).await);
}

#[tokio::test]
async fn liveness_and_readiness_may_ask_different_things() {
    let fake = Fake::start(Socket::None).await;
    fake.says("/ready", 503, &json!({}));
    let mut target = target(Some(spec::Target::Tcp { port: fake.port }));
    target.plan.readiness = Some(spec::Target::Http { port: fake.port, path: "/ready".into() });
    let report = probe(&target, Watch).await;
    assert_eq!(report.live, Verdict::Pass);
    assert_eq!(fails(&report.ready), "/ready answered 503");
}

#[tokio::test]
async fn what_is_not_asked_passes() {
    let (port, _held) = dead_port();
    let mut target = target(None);
    assert_well(&probe(&target, Startup).await);
    assert_well(&probe(&target, Watch).await);
    target.plan.liveness = Some(spec::Target::Tcp { port });
    let report = probe(&target, Watch).await;
    fails(&report.live);
    assert_eq!(report.ready, Verdict::Pass);
}

mod by_hand;
mod challenge;
mod impostor;
