//! Asks a gateway which state directory it serves: its greeting is the only proof of that.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use tokio::{net::TcpStream, time};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, protocol::WebSocketConfig},
};

use crate::{
    openclaw::{
        config::Token,
        protocol::{self, Caller},
    },
    perform::port::server::{self, Owner, ServerError},
};

/// A ready gateway greets within milliseconds; on a loaded host within seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// The longest message taken: the greeting grows with the gateway's sessions.
const MOST_BYTES: usize = 4 << 20;

type Socket = WebSocketStream<TcpStream>;

/// The greeting, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Hello {
    snapshot: Option<Snapshot>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Snapshot {
    state_dir: Option<PathBuf>,
}

/// The state directory of the gateway on this port; `None` if it does not say. Only `owner` is shown the token.
pub(super) async fn state_dir(
    port: u16,
    token: &Token,
    owner: &Owner,
) -> Result<Option<PathBuf>, ServerError> {
    time::timeout(LIMIT, ask(port, token, owner)).await.unwrap_or(Ok(None))
}

async fn ask(port: u16, token: &Token, owner: &Owner) -> Result<Option<PathBuf>, ServerError> {
    let Ok(mut socket) = connect(port).await else { return Ok(None) };
    server::check(socket.get_ref(), owner).await?;
    let said = converse(&mut socket, token).await;
    // A gateway warns of each connection that ends without a word.
    let _ = socket.close(None).await;
    Ok(said.ok().flatten())
}

async fn connect(port: u16) -> Result<Socket, tungstenite::Error> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let config =
        WebSocketConfig::default().max_message_size(Some(MOST_BYTES)).max_frame_size(Some(MOST_BYTES));
    let url = format!("ws://127.0.0.1:{port}/");
    Ok(client_async_with_config(url, stream, Some(config)).await?.0)
}

async fn converse(socket: &mut Socket, token: &Token) -> Result<Option<PathBuf>, tungstenite::Error> {
    let answer = protocol::introduce::<Hello>(socket, Caller::Administrator, Some(token)).await?;
    Ok(answer.and_then(|frame| frame.payload?.snapshot?.state_dir))
}
