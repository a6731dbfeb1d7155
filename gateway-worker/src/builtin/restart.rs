//! `gateway restart`: asks the running gateway over its own protocol, as OpenClaw's command does from inside
//! an instance. OpenClaw's command also waits for the next gateway to be well; this one is done once the
//! gateway has taken the wish, since what comes next is the supervisor's to tell.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::config::{Auth, Config};

/// OpenClaw's limit for such a call.
const CALL_TIME: Duration = Duration::from_secs(10);
/// The reason that OpenClaw's command gives, which makes the handoff's source `operator-restart`.
pub(crate) const REASON: &str = "gateway.restart";
/// The method that takes the wish.
pub(crate) const METHOD: &str = "gateway.restart.request";
/// Events that may come before an answer: a gateway sends one in half a minute.
const FRAMES: usize = 64;

/// Why the gateway was not asked, or did not agree.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestartError {
    /// The runtime could not be built.
    #[error("failed to build the runtime")]
    Runtime(#[source] io::Error),
    /// Nobody answers at the port, or not as a gateway does.
    #[error("failed to reach a gateway on port {port}")]
    Unreachable {
        /// The port.
        port: u16,
        /// What came of the attempt.
        source: Box<SocketError>,
    },
    /// The gateway said nothing, or nothing that can be read, in time.
    #[error("the gateway on port {0} did not answer as a gateway does")]
    Silent(u16),
    /// The gateway refused.
    #[error("the gateway refused to restart: {0}")]
    Refused(String),
}

/// Asks the gateway of this configuration to restart, and returns its process id.
pub(crate) fn ask(config: &Config) -> Result<u64, RestartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(RestartError::Runtime)?;
    let port = config.port.number();
    let called = runtime.block_on(async { timeout(CALL_TIME, call(config)).await });
    called.map_err(|_| RestartError::Silent(port))?
}

async fn call(config: &Config) -> Result<u64, RestartError> {
    let port = config.port.number();
    let unreachable = |source| RestartError::Unreachable { port, source: Box::new(source) };
    let (mut socket, _) = connect_async_with_config(format!("ws://127.0.0.1:{port}/"), None, true)
        .await
        .map_err(unreachable)?;
    let auth = match &*config.auth {
        Auth::None => json!({}),
        Auth::Token(secret) => json!({ "token": secret.reveal() }),
        Auth::Password(secret) => json!({ "password": secret.reveal() }),
    };
    let connect = json!({
        "minProtocol": 3,
        "maxProtocol": 4,
        "client": { "id": "cli", "version": "1", "platform": std::env::consts::OS, "mode": "cli" },
        "role": "operator",
        "scopes": ["operator.admin"],
        "caps": [],
        "auth": auth,
    });
    request(&mut socket, port, "connect", &connect).await?;
    let taken = request(&mut socket, port, METHOD, &json!({ "reason": REASON })).await?;
    taken["pid"].as_u64().ok_or(RestartError::Silent(port))
}

/// Sends one request, and returns the payload of its answer. The method is its id, too: each is asked once.
async fn request(
    socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>,
    port: u16,
    method: &str,
    params: &Value,
) -> Result<Value, RestartError> {
    let unreachable = |source| RestartError::Unreachable { port, source: Box::new(source) };
    let frame = json!({ "type": "req", "id": method, "method": method, "params": params });
    socket.send(Message::text(frame.to_string())).await.map_err(unreachable)?;
    for _ in 0..FRAMES {
        let message = socket.next().await.ok_or(RestartError::Silent(port))?.map_err(unreachable)?;
        let frame: Value =
            message.to_text().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        if frame["id"] == method {
            let refused = || frame["error"]["message"].as_str().unwrap_or("no reason given").to_owned();
            return if frame["ok"] == true {
                Ok(frame["payload"].clone())
            } else {
                Err(RestartError::Refused(refused()))
            };
        }
    }
    Err(RestartError::Silent(port))
}
