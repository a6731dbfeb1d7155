//! A WebSocket client from its upgrade to its close. One task per client that reads, answers and writes in
//! turn: a client that asks faster than it reads only slows itself, and nothing queues behind it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::{Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use uuid::Uuid;

use crate::frame::{Frame, Refusal, Request};
use crate::gateway::{Gateway, Phase, now_ms};
use crate::handshake::{self, Accepted, Rejected, close_code};
use crate::http::is_origin_allowed;
use crate::log;
use crate::methods;
use crate::reload;
use crate::reply::{self, Body};

/// The reason that OpenClaw gives while it starts, here and in the health endpoints.
pub(crate) const STARTING: &str = "startup-sidecars";
/// The largest message taken. Before the handshake OpenClaw allows 64 KiB; nothing asked of this gateway is
/// larger.
pub(crate) const MESSAGE_BYTES: usize = 64 * 1024;
/// The most that waits for one client: the largest answer is a few kilobytes, and they are not queued.
pub(crate) const UNSENT_BYTES: usize = 256 * 1024;
/// OpenClaw's interval of `tick` events, by which a client knows that the gateway lives.
pub(crate) const TICK: Duration = Duration::from_secs(30);
/// How long a client may take to introduce itself; OpenClaw's limit.
const HANDSHAKE_TIME: Duration = Duration::from_secs(15);
/// How long one message may wait for a client that does not read.
const SEND_TIME: Duration = Duration::from_secs(10);
/// How long a client may take to answer a close. Shorter than the drain, so that each can be told in it.
const CLOSE_TIME: Duration = Duration::from_millis(500);
/// Read at a time; the library's own 128 KiB would be most of an idle gateway's memory.
const READ_BYTES: usize = 4 * 1024;
/// A close frame holds 125 bytes, two of them the code.
const CLOSE_REASON_BYTES: usize = 123;
/// When a client turned away by the phase may come back; OpenClaw's figure.
const RETRY_MS: u64 = 500;

/// Answers a request to upgrade, and lets the session run where it is granted.
pub(crate) fn upgrade(gateway: &Arc<Gateway>, request: &mut HttpRequest<Incoming>) -> Response<Body> {
    if !is_origin_allowed(request.headers()) {
        return reply::text(StatusCode::FORBIDDEN, "Origin not allowed.");
    }
    let Ok(switch) = create_response_with_body(request, || reply::bytes("")) else {
        return reply::text(StatusCode::BAD_REQUEST, "Not a WebSocket upgrade.");
    };
    let Some(seat) = gateway.clients.enter() else {
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, "Too many clients.");
    };
    let (upgraded, gateway) = (hyper::upgrade::on(request), Arc::clone(gateway));
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            Session::open(gateway, TokioIo::new(upgraded)).await.run().await;
        }
        drop(seat);
    });
    switch
}

/// Why a session ends.
enum End {
    /// The client closed, vanished, or stopped reading: there is nobody to tell.
    Gone,
    /// The client is told why.
    Close(u16, String),
}

impl From<SocketError> for End {
    fn from(error: SocketError) -> Self {
        if let SocketError::Capacity(_) = error {
            return Self::Close(close_code::TOO_BIG, "message too large".to_owned());
        }
        Self::Gone
    }
}

struct Session<S> {
    gateway: Arc<Gateway>,
    socket: WebSocketStream<S>,
    /// Events sent since the handshake.
    events: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    async fn open(gateway: Arc<Gateway>, stream: S) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(UNSENT_BYTES)
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Self { gateway, socket, events: 0 }
    }

    async fn run(mut self) {
        let Err(end) = self.converse().await;
        if let End::Close(code, reason) = end {
            // The other side may be beyond answering; it has had its word.
            let _ = timeout(CLOSE_TIME, self.close(code, &reason)).await;
        }
    }

    /// Speaks with the client until one of the two has had enough: it always returns why.
    async fn converse(&mut self) -> Result<std::convert::Infallible, End> {
        let gateway = Arc::clone(&self.gateway);
        if gateway.misbehaviour.is_mute(gateway.uptime()) {
            // Until the client gives up. What it says is not even read.
            gateway.draining().await;
            return Err(End::Gone);
        }
        let challenge = json!({ "nonce": Uuid::now_v7().to_string(), "ts": now_ms() });
        self.send(&Frame::Event { event: "connect.challenge", payload: challenge, seq: None }).await?;
        let first = tokio::select! {
            first = timeout(HANDSHAKE_TIME, self.receive()) => {
                first.map_err(|_| End::Close(close_code::POLICY, "handshake timeout".to_owned()))??
            }
            _ = gateway.draining() => return Err(restart()),
        };
        let accepted = self.admit(&first).await?;
        let hello = methods::hello(&gateway, &accepted, &Uuid::now_v7().to_string()).await;
        self.send(&Frame::answered(&accepted.id, hello)).await?;
        let mut ticks = interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                farewell = gateway.draining() => {
                    let expected = farewell.restart_expected_ms;
                    let payload = json!({ "reason": farewell.reason, "restartExpectedMs": expected });
                    self.event("shutdown", payload).await?;
                    return Err(restart());
                }
                _ = ticks.tick() => self.event("tick", json!({ "ts": now_ms() })).await?,
                text = self.receive() => self.answer(&text?).await?,
            }
        }
    }

    /// Judges the first frame, and answers it where it is refused.
    async fn admit(&mut self, first: &str) -> Result<Accepted, End> {
        let auth = reload::auth(&self.gateway).await;
        let verdict = handshake::judge(&auth, first);
        let rejected = match (verdict, self.gateway.phase()) {
            (Ok(accepted), Phase::Started) => return Ok(accepted),
            (Ok(accepted), Phase::Starting) => {
                let refusal = Refusal::unavailable("gateway starting; retry shortly", STARTING, RETRY_MS);
                Rejected::new(&accepted.id, close_code::TRY_AGAIN, refusal)
            }
            (Ok(accepted), Phase::Draining(_)) => {
                let refusal = Refusal::unavailable("gateway draining", "gateway-draining", RETRY_MS);
                Rejected::new(&accepted.id, close_code::TRY_AGAIN, refusal)
            }
            (Err(rejected), _) => {
                let client = rejected.client.as_deref().map_or_else(|| "a client".to_owned(), log::quoted);
                log::warn(format_args!("refused {client}: {}", rejected.reason));
                rejected
            }
        };
        if let Some(response) = &rejected.response {
            self.send(response).await?;
        }
        Err(End::Close(rejected.close, rejected.reason))
    }

    async fn answer(&mut self, text: &str) -> Result<(), End> {
        let response = match Request::read(text) {
            Err(response) => response,
            Ok(request) => match methods::answer(&self.gateway, &request.method, &request.params).await {
                Ok(payload) => Frame::answered(&request.id, payload),
                Err(refusal) => Frame::refused(&request.id, refusal),
            },
        };
        self.send(&response).await
    }

    async fn event(&mut self, event: &'static str, payload: Value) -> Result<(), End> {
        self.events += 1;
        self.send(&Frame::Event { event, payload, seq: Some(self.events) }).await
    }

    /// The next message's text; OpenClaw takes binary messages for text too. Safe to drop between messages.
    async fn receive(&mut self) -> Result<String, End> {
        loop {
            let Some(message) = self.socket.next().await else { return Err(End::Gone) };
            match message? {
                Message::Text(text) => return Ok(text.as_str().to_owned()),
                Message::Binary(bytes) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                // The library answers pings, and returns the close's echo before the stream ends.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_) => {}
            }
        }
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), End> {
        // Frames hold strings and numbers under string keys: nothing that JSON cannot say.
        let text = serde_json::to_string(frame).map_err(|_| End::Gone)?;
        timeout(SEND_TIME, self.socket.send(Message::text(text))).await.map_err(|_| End::Gone)??;
        Ok(())
    }

    async fn close(&mut self, code: u16, reason: &str) {
        let end = reason.floor_char_boundary(CLOSE_REASON_BYTES);
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason[..end].into() };
        if self.socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = self.socket.next().await {}
        }
    }
}

fn restart() -> End {
    End::Close(close_code::SERVICE_RESTART, "service restart".to_owned())
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
