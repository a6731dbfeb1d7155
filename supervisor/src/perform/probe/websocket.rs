//! Asks in OpenClaw's own protocol: the handshake, one `health` request, a proper goodbye.
//!
//! ```text
//!   <- event connect.challenge   -> req 1 connect   <- res 1   -> req 2 health   <- res 2   close
//! ```
//!
//! Events may come in between. Every connection is closed with a close frame: the gateway logs a warning about
//! each one that is not. It logs one about each that says goodbye before `connect`, too: so who only wants to see
//! the challenge has to ask for that (`check: websocket`).

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task, time};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use super::{
    Secret,
    tcp::{self, ConnectError},
};
use crate::{
    openclaw::{
        config::Token,
        protocol::{self, Caller, Frame, Refused},
    },
    perform::port::server::{self, Owner, ServerError},
};

/// The longest message taken. The greeting carries a snapshot of the gateway, which grows with its sessions.
const LIMIT: usize = 4 * 1024 * 1024;

/// The longest message taken by who only waits for the challenge, which has some hundred bytes.
const CHALLENGE: usize = 64 * 1024;

/// How long the gateway may take to return the close frame. The probe's answer does not wait for it.
const GOODBYE: Duration = Duration::from_secs(2);

/// The id of the second request.
const HEALTH: &str = "2";

type Socket = WebSocketStream<TcpStream>;

/// What the gateway answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is well.
    Well,
    /// It is still starting.
    Starting(String),
    /// It knows the caller and cannot tell its health.
    Unwell(String),
    /// It does not let the caller in.
    TurnedAway(String),
}

/// Why there is no answer. The sentence is shown to people as it stands.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It is not the gateway's, and so is not shown the gateway's token.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// It is not a WebSocket, or broke.
    #[error("port {port} does not answer as OpenClaw does: {source}")]
    Socket {
        /// The port.
        port: u16,
        /// Why.
        source: Box<tungstenite::Error>,
    },
    /// It was closed in the middle.
    #[error("the gateway on port {0} closed the connection without an answer")]
    Closed(u16),
}

/// Connects, asks, and says goodbye.
pub(super) async fn ask(port: u16, secret: Option<&Secret>) -> Result<Heard, AskError> {
    let (owner, token) = secret.map(|Secret { owner, token }| (owner, token)).unzip();
    let heard = during(port, LIMIT, owner, async |socket| converse(socket, token).await).await?;
    Ok(without(token, heard))
}

/// Connects, waits for the challenge, and says goodbye.
pub(super) async fn challenge(port: u16) -> Result<(), AskError> {
    let conversation =
        async |socket: &mut Socket| Ok(protocol::challenge::<IgnoredAny>(socket).await?.map(drop));
    during(port, CHALLENGE, None, conversation).await
}

/// What comes of `conversation` on a connection of its own, which takes no message larger than `limit`. With an
/// `owner`, it only begins if that one serves the port.
async fn during<T>(
    port: u16,
    limit: usize,
    owner: Option<&Owner>,
    conversation: impl AsyncFnOnce(&mut Socket) -> Result<Option<T>, tungstenite::Error>,
) -> Result<T, AskError> {
    let stream = tcp::connect(port).await?;
    let broken = |source| AskError::Socket { port, source: Box::new(source) };
    let config = WebSocketConfig::default().max_message_size(Some(limit)).max_frame_size(Some(limit));
    let url = format!("ws://127.0.0.1:{port}/");
    let (mut socket, _) = client_async_with_config(url, stream, Some(config)).await.map_err(broken)?;
    if let Some(owner) = owner {
        server::check(socket.get_ref(), owner).await?;
    }
    let outcome = conversation(&mut socket).await;
    task::spawn(time::timeout(GOODBYE, goodbye(socket)));
    outcome.map_err(broken)?.ok_or(AskError::Closed(port))
}

/// `None`: the gateway closed the connection.
async fn converse(socket: &mut Socket, token: Option<&Token>) -> Result<Option<Heard>, tungstenite::Error> {
    match protocol::introduce::<IgnoredAny>(socket, Caller::Probe, token).await? {
        None => return Ok(None),
        Some(Frame { ok: true, .. }) => {}
        Some(Frame { error, .. }) => return Ok(Some(refusal(error, Heard::TurnedAway))),
    }
    let health = json!({ "type": "req", "id": HEALTH, "method": "health", "params": {} });
    socket.send(Message::text(health.to_string())).await?;
    Ok(protocol::answer::<IgnoredAny>(socket, HEALTH).await?.map(|frame| match frame {
        Frame { ok: true, .. } => Heard::Well,
        Frame { error, .. } => refusal(error, Heard::Unwell),
    }))
}

/// What a request's refusal means.
fn refusal(refused: Option<Refused>, otherwise: impl FnOnce(String) -> Heard) -> Heard {
    let Some(Refused { code, message, details }) = refused else {
        return otherwise("no reason given".into());
    };
    let reason = details.get("reason").and_then(Value::as_str).unwrap_or(&message);
    if code == "UNAVAILABLE" { Heard::Starting(reason.to_owned()) } else { otherwise(message) }
}

/// A gateway that repeats its token in an error has that struck out.
fn without(token: Option<&Token>, heard: Heard) -> Heard {
    let clean = |said: String| match token {
        Some(token) if !token.expose().is_empty() => said.replace(token.expose(), "(token)"),
        Some(_) | None => said,
    };
    match heard {
        Heard::Well => Heard::Well,
        Heard::Starting(said) => Heard::Starting(clean(said)),
        Heard::Unwell(said) => Heard::Unwell(clean(said)),
        Heard::TurnedAway(said) => Heard::TurnedAway(clean(said)),
    }
}

/// Sends the close frame, or answers the gateway's, and waits for the end.
async fn goodbye(mut socket: Socket) {
    if socket.close(None).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}
