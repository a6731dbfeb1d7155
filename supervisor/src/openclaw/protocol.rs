//! OpenClaw's own protocol, as far as a supervisor speaks it.
//!
//! ```text
//!   <- event connect.challenge   -> req 1 connect   <- res 1   ...
//! ```
//!
//! Messages only, and events may come in between. Who holds the socket says how long a message may be and how long all
//! of it may take, and takes its leave.

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

use super::config::Token;

/// The protocols spoken: 3 in February 2026, 4 since.
const PROTOCOLS: (u32, u32) = (3, 4);

/// The id of the first request.
const CONNECT: &str = "1";

/// As whom the supervisor speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Who asks how the gateway is. Only clients of the mode `cli` do not appear in its list of who is present, each
    /// probe anew.
    Probe,
    /// Who asks which gateway it is: later versions tell their directories to administrators only.
    Administrator,
}

/// One message of the gateway, with a payload of which `P` is what matters.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame<P> {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    #[serde(default)]
    pub(crate) ok: bool,
    pub(crate) error: Option<Refused>,
    pub(crate) payload: Option<P>,
}

/// Why the gateway does not do what it is asked.
#[derive(Debug, Deserialize)]
pub(crate) struct Refused {
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) details: Value,
}

/// What the gateway says first. `None`: it closed the connection.
pub(crate) async fn challenge<P: DeserializeOwned>(
    messages: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
) -> Result<Option<Frame<P>>, tungstenite::Error> {
    next(messages, |frame| frame.event.as_deref() == Some("connect.challenge")).await
}

/// Waits for the challenge, and says who is there. `None`: the gateway closed the connection. The token is shown to
/// whoever holds the other end: that it is the gateway, the caller has made sure.
pub(crate) async fn introduce<P: DeserializeOwned>(
    socket: &mut (
             impl Stream<Item = Result<Message, tungstenite::Error>>
             + Sink<Message, Error = tungstenite::Error>
             + Unpin
         ),
    caller: Caller,
    token: Option<&Token>,
) -> Result<Option<Frame<P>>, tungstenite::Error> {
    if challenge::<P>(socket).await?.is_none() {
        return Ok(None);
    }
    socket.send(Message::text(connect(caller, token).to_string())).await?;
    answer(socket, CONNECT).await
}

/// The answer to the request with this id. `None`: the gateway closed the connection.
pub(crate) async fn answer<P: DeserializeOwned>(
    messages: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
    id: &str,
) -> Result<Option<Frame<P>>, tungstenite::Error> {
    next(messages, |frame| frame.id.as_deref() == Some(id)).await
}

/// The next frame of that kind. Others are passed over; how long that may go on, the caller says.
async fn next<P: DeserializeOwned>(
    messages: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
    wanted: impl Fn(&Frame<P>) -> bool,
) -> Result<Option<Frame<P>>, tungstenite::Error> {
    while let Some(message) = messages.next().await {
        if let Message::Text(text) = message?
            && let Ok(frame) = serde_json::from_str(&text)
            && wanted(&frame)
        {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

fn connect(caller: Caller, token: Option<&Token>) -> Value {
    let (mode, scope) = match caller {
        Caller::Probe => ("cli", "operator.read"),
        Caller::Administrator => ("backend", "operator.admin"),
    };
    let auth = token.map_or_else(|| json!({}), |token| json!({ "token": token.expose() }));
    json!({
        "type": "req",
        "id": CONNECT,
        "method": "connect",
        "params": {
            "minProtocol": PROTOCOLS.0,
            "maxProtocol": PROTOCOLS.1,
            "client": {
                "id": "gateway-client",
                "displayName": "openclaw-supervisor",
                "version": env!("CARGO_PKG_VERSION"),
                "platform": std::env::consts::OS,
                "mode": mode,
            },
            "role": "operator",
            "scopes": [scope],
            "caps": [],
            "auth": auth,
        },
    })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use serde::de::IgnoredAny;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_found_among_events_and_whatever_else_is_said() {
        let said = [
            Message::text("not JSON"),
            Message::binary(&b"bytes"[..]),
            Message::text(r#"{"type":"event","event":"tick","payload":{"id":"2"}}"#),
            Message::text(r#"{"type":"res","id":"1","ok":true,"payload":null}"#),
            Message::text(r#"{"type":"res","id":"2","ok":false,"error":{"code":"BUSY"}}"#),
        ];
        let mut messages = stream::iter(said.map(Ok));
        let frame = answer::<IgnoredAny>(&mut messages, "2").await.unwrap().unwrap();
        assert_eq!((frame.ok, frame.error.unwrap().code.as_str()), (false, "BUSY"));
        assert!(answer::<IgnoredAny>(&mut messages, "2").await.unwrap().is_none(), "it hung up");
    }
}
