//! The judgement of a client's first frame. Pure: text in, verdict out; `socket` does the sending and
//! closing.

use serde::Deserialize;
use serde_json::json;

use crate::config::Auth;
use crate::frame::{Frame, Refusal, Request};

/// The protocol of OpenClaw's releases from before 2026.3.
const OLDEST_PROTOCOL: u64 = 3;
/// The protocol of the releases since.
const NEWEST_PROTOCOL: u64 = 4;

/// WebSocket close codes, RFC 6455 and the registry it founded.
pub(crate) mod close_code {
    pub(crate) const PROTOCOL: u16 = 1002;
    pub(crate) const POLICY: u16 = 1008;
    pub(crate) const TOO_BIG: u16 = 1009;
    pub(crate) const SERVICE_RESTART: u16 = 1012;
    pub(crate) const TRY_AGAIN: u16 = 1013;
}

/// A client that may stay.
#[derive(Debug, PartialEq)]
pub(crate) struct Accepted {
    /// The id of its `connect` request.
    pub(crate) id: String,
    /// The newest protocol that both sides speak.
    pub(crate) protocol: u64,
    /// The scopes it asked for. The secret is the whole authority here, so it has what it asks for.
    pub(crate) scopes: Vec<String>,
}

/// A client that may not.
#[derive(Debug, PartialEq)]
pub(crate) struct Rejected {
    /// Who it says it is, if it came so far.
    pub(crate) client: Option<String>,
    /// What to answer before the close, if there was a request to answer.
    pub(crate) response: Option<Frame>,
    pub(crate) close: u16,
    pub(crate) reason: String,
}

impl Rejected {
    /// Answers with the refusal, then closes with its message.
    pub(crate) fn new(id: &str, close: u16, refusal: Refusal) -> Box<Self> {
        let reason = refusal.message.clone();
        Box::new(Self { client: None, response: Some(Frame::refused(id, refusal)), close, reason })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnectParams {
    min_protocol: u64,
    max_protocol: u64,
    client: ClientParams,
    role: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    auth: Option<AuthParams>,
}

/// The part of a client's self-description that must be there. OpenClaw checks id and mode against lists that
/// grow with its releases; a client newer than this gateway is welcome here.
#[derive(Deserialize)]
struct ClientParams {
    id: String,
    mode: String,
}

#[derive(Deserialize)]
struct AuthParams {
    token: Option<String>,
    password: Option<String>,
}

impl AuthParams {
    /// OpenClaw takes the secret from either field; the one named after the mode goes first.
    fn offered(&self, auth: &Auth) -> Option<&str> {
        let (first, second) = match auth {
            Auth::None | Auth::Token(_) => (&self.token, &self.password),
            Auth::Password(_) => (&self.password, &self.token),
        };
        [first, second].into_iter().flatten().map(String::as_str).find(|secret| !secret.is_empty())
    }
}

/// Judges a client's first frame.
pub(crate) fn judge(auth: &Auth, text: &str) -> Result<Accepted, Box<Rejected>> {
    let request = Request::read(text).map_err(|_| {
        let reason = "invalid request frame".to_owned();
        Box::new(Rejected { client: None, response: None, close: close_code::POLICY, reason })
    })?;
    let id = request.id;
    if request.method != "connect" {
        let refusal = Refusal::invalid("invalid handshake: first request must be connect");
        return Err(Rejected::new(&id, close_code::POLICY, refusal));
    }
    // The parser's own message could quote a secret that stands in the wrong place.
    let params: ConnectParams = serde_json::from_value(request.params).map_err(|_| {
        let refusal = Refusal::invalid(
            "invalid connect params: minProtocol, maxProtocol, client.id and client.mode are needed",
        );
        Rejected::new(&id, close_code::POLICY, refusal)
    })?;
    match admitted(auth, &params) {
        Ok(protocol) => Ok(Accepted { id, protocol, scopes: params.scopes }),
        Err((close, refusal)) => {
            let mut rejected = Rejected::new(&id, close, refusal);
            rejected.client = Some(format!("{} ({})", params.client.id, params.client.mode));
            Err(rejected)
        }
    }
}

/// The protocol to speak with a client, or why it is turned away and how it is closed.
fn admitted(auth: &Auth, params: &ConnectParams) -> Result<u64, (u16, Refusal)> {
    let protocol = negotiated(params.min_protocol, params.max_protocol)
        .ok_or_else(|| (close_code::PROTOCOL, mismatch(params)))?;
    if params.role.as_deref().is_some_and(|role| role != "operator") {
        let refusal = Refusal::invalid("invalid role: the built-in gateway takes operators only");
        return Err((close_code::POLICY, refusal));
    }
    authorize(auth, params.auth.as_ref()).map_err(|refusal| (close_code::POLICY, refusal))?;
    Ok(protocol)
}

fn negotiated(min: u64, max: u64) -> Option<u64> {
    let newest = max.min(NEWEST_PROTOCOL);
    (newest >= min.max(OLDEST_PROTOCOL)).then_some(newest)
}

fn mismatch(params: &ConnectParams) -> Refusal {
    Refusal::invalid("protocol mismatch").with(json!({
        "code": "PROTOCOL_MISMATCH",
        "clientMinProtocol": params.min_protocol,
        "clientMaxProtocol": params.max_protocol,
        "expectedProtocol": NEWEST_PROTOCOL,
        "minimumProbeProtocol": OLDEST_PROTOCOL,
    }))
}

/// Holds what is offered against the secret. Message and details are OpenClaw's own: its clients match on
/// them.
fn authorize(auth: &Auth, offered: Option<&AuthParams>) -> Result<(), Refusal> {
    let (kind, secret) = match auth {
        Auth::None => return Ok(()),
        Auth::Token(secret) => ("token", secret),
        Auth::Password(secret) => ("password", secret),
    };
    let fault = match offered.and_then(|offered| offered.offered(auth)) {
        Some(offer) if secret.matches(offer) => return Ok(()),
        Some(_) => "mismatch",
        None => "missing",
    };
    Err(Refusal::invalid(format!("unauthorized: gateway {kind} {fault} (provide gateway auth {kind})")).with(
        json!({
            "code": format!("AUTH_{}_{}", kind.to_uppercase(), fault.to_uppercase()),
            "authReason": format!("{kind}_{fault}"),
            "canRetryWithDeviceToken": false,
            "recommendedNextStep": "update_auth_credentials",
        }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(min: u64, max: u64) -> String {
        json!({ "type": "req", "id": "1", "method": "connect", "params": {
            "minProtocol": min, "maxProtocol": max, "client": { "id": "test", "mode": "test" },
        }})
        .to_string()
    }

    #[test]
    fn the_newest_common_protocol_is_chosen() {
        for (min, max, expected) in [(3, 3, 3), (3, 4, 4), (4, 4, 4), (1, 3, 3), (3, 9, 4)] {
            assert_eq!(judge(&Auth::None, &connect(min, max)).unwrap().protocol, expected, "{min}..{max}");
        }
        for (min, max) in [(5, 6), (1, 2), (4, 3)] {
            let rejected = judge(&Auth::None, &connect(min, max)).unwrap_err();
            assert_eq!(rejected.close, close_code::PROTOCOL, "{min}..{max}");
            let response = serde_json::to_value(rejected.response).unwrap();
            let details = &response["error"]["details"];
            assert_eq!(
                (details["code"].as_str(), details["clientMaxProtocol"].as_u64()),
                (Some("PROTOCOL_MISMATCH"), Some(max))
            );
        }
    }

    #[test]
    fn what_is_no_connect_is_closed_by_policy() {
        for text in ["", "null", "[]", "{}", r#"{"type":"event","event":"x"}"#, r#"{"type":"req","id":1}"#] {
            let rejected = judge(&Auth::None, text).unwrap_err();
            assert_eq!((rejected.close, rejected.response), (close_code::POLICY, None), "{text}");
        }
        let health = r#"{"type":"req","id":"7","method":"health"}"#;
        let rejected = judge(&Auth::None, health).unwrap_err();
        assert_eq!(rejected.close, close_code::POLICY);
        assert_eq!(serde_json::to_value(rejected.response).unwrap()["id"], "7");
    }

    #[test]
    fn a_node_is_turned_away() {
        let text = connect(3, 4).replace(r#""minProtocol""#, r#""role":"node","minProtocol""#);
        assert!(judge(&Auth::None, &text).unwrap_err().reason.contains("role"));
    }
}
