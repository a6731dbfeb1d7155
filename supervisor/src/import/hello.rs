//! Asks a gateway which state directory it serves: its greeting is the only proof of that.

use std::{path::PathBuf, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use crate::openclaw::config::Token;

/// A ready gateway greets within milliseconds; on a loaded host within seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// The longest message taken: the greeting grows with the gateway's sessions.
const MOST_BYTES: usize = 4 << 20;

/// The protocols spoken: 3 in February 2026, 4 since.
const PROTOCOLS: (u32, u32) = (3, 4);

type Socket = WebSocketStream<TcpStream>;

/// The state directory of the gateway on this port; `None` if it does not say.
pub(super) async fn state_dir(port: u16, token: &Token) -> Option<PathBuf> {
    time::timeout(LIMIT, ask(port, token)).await.ok()?.ok()?
}

async fn ask(port: u16, token: &Token) -> Result<Option<PathBuf>, tungstenite::Error> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let config =
        WebSocketConfig::default().max_message_size(Some(MOST_BYTES)).max_frame_size(Some(MOST_BYTES));
    let url = format!("ws://127.0.0.1:{port}/");
    let (mut socket, _) = client_async_with_config(url, stream, Some(config)).await?;
    let said = converse(&mut socket, token).await;
    // A gateway warns of each connection that ends without a word.
    let _ = socket.close(None).await;
    said
}

async fn converse(socket: &mut Socket, token: &Token) -> Result<Option<PathBuf>, tungstenite::Error> {
    let challenge = next(socket, |frame| frame["event"] == "connect.challenge").await?;
    if challenge.is_none() {
        return Ok(None);
    }
    socket.send(Message::text(connect(token).to_string())).await?;
    let hello = next(socket, |frame| frame["id"] == "1").await?.unwrap_or_default();
    Ok(hello["payload"]["snapshot"]["stateDir"].as_str().map(PathBuf::from))
}

async fn next(
    socket: &mut Socket,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Option<Value>, tungstenite::Error> {
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message?
            && let Ok(frame) = serde_json::from_str(&text)
            && wanted(&frame)
        {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

/// Later versions tell their directories to administrators only.
fn connect(token: &Token) -> Value {
    json!({
        "type": "req",
        "id": "1",
        "method": "connect",
        "params": {
            "minProtocol": PROTOCOLS.0,
            "maxProtocol": PROTOCOLS.1,
            "client": {
                "id": "gateway-client",
                "displayName": "openclaw-supervisor",
                "version": env!("CARGO_PKG_VERSION"),
                "platform": std::env::consts::OS,
                "mode": "backend",
            },
            "role": "operator",
            "scopes": ["operator.admin"],
            "caps": [],
            "auth": { "token": token.expose() },
        },
    })
}
