//! The frames of OpenClaw's WebSocket protocol: what comes in, what goes out, and what a refusal says.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A request frame.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    #[serde(rename = "type")]
    _kind: RequestKind,
    pub(crate) id: String,
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) params: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RequestKind {
    Req,
}

impl Request {
    /// Reads a frame. The error is the response to send.
    pub(crate) fn read(text: &str) -> Result<Self, Frame> {
        let read: Option<Self> = serde_json::from_str(text).ok();
        read.filter(|request| !request.id.is_empty() && !request.method.is_empty()).ok_or_else(|| {
            let frame: Value = serde_json::from_str(text).unwrap_or_default();
            let id = frame["id"].as_str().filter(|id| !id.is_empty()).unwrap_or("invalid");
            Frame::refused(id, Refusal::invalid("invalid request frame"))
        })
    }
}

/// A frame to a client.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Frame {
    /// Something that the client did not ask for.
    Event {
        event: &'static str,
        payload: Value,
        /// Counts the events of a connection, so that a client notices a gap.
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
    },
    /// The answer to one request.
    Res {
        id: String,
        ok: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Box<Refusal>>,
    },
}

impl Frame {
    /// A response with what was asked for.
    pub(crate) fn answered(id: &str, payload: Value) -> Self {
        Self::Res { id: id.to_owned(), ok: true, payload: Some(payload), error: None }
    }

    /// A response with a refusal.
    pub(crate) fn refused(id: &str, refusal: Refusal) -> Self {
        Self::Res { id: id.to_owned(), ok: false, payload: None, error: Some(Box::new(refusal)) }
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refusal {
    code: &'static str,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Refusal {
    /// The request itself is at fault.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code: "INVALID_REQUEST", message, details: None, retryable: None, retry_after_ms: None }
    }

    /// The gateway cannot take it now, and may later.
    pub(crate) fn unavailable(message: &str, reason: &str, retry_after_ms: u64) -> Self {
        Self {
            code: "UNAVAILABLE",
            message: message.to_owned(),
            details: Some(json!({ "reason": reason })),
            retryable: Some(true),
            retry_after_ms: Some(retry_after_ms),
        }
    }

    /// The same with what a program needs to act on it.
    pub(crate) fn with(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frame: &Frame) -> Value {
        serde_json::to_value(frame).unwrap()
    }

    #[test]
    fn frames_are_written_as_openclaw_writes_them() {
        let event = Frame::Event { event: "tick", payload: json!({ "ts": 1 }), seq: Some(2) };
        assert_eq!(
            written(&event),
            json!({ "type": "event", "event": "tick", "payload": { "ts": 1 }, "seq": 2 })
        );
        let answered = Frame::answered("1", json!({}));
        assert_eq!(written(&answered), json!({ "type": "res", "id": "1", "ok": true, "payload": {} }));
        let refused = Frame::refused("1", Refusal::unavailable("later", "why", 500));
        assert_eq!(
            written(&refused),
            json!({ "type": "res", "id": "1", "ok": false, "error": {
                "code": "UNAVAILABLE", "message": "later", "details": { "reason": "why" },
                "retryable": true, "retryAfterMs": 500,
            }})
        );
    }

    #[test]
    fn a_bad_frame_is_answered_under_its_own_id_where_it_has_one() {
        for (text, id) in [
            (r#"{"type":"req","id":"9"}"#, "9"),
            (r#"{"type":"res","id":"9","method":"x"}"#, "9"),
            (r#"{"type":"req","id":"9","method":""}"#, "9"),
            (r#"{"type":"req","id":"","method":"x"}"#, "invalid"),
            ("nonsense", "invalid"),
            ("[]", "invalid"),
        ] {
            let response = written(&Request::read(text).unwrap_err());
            assert_eq!(
                (response["id"].as_str(), response["ok"].as_bool()),
                (Some(id), Some(false)),
                "{text}"
            );
        }
    }
}
