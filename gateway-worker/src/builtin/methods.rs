//! What the gateway answers to an authenticated client: the methods that OpenClaw's own command line asks, in
//! the shapes it reads. There are no agents or sessions, so most of what is answered is an honest
//! nothing.

use std::time::Instant;

use serde_json::{Value, json};

use crate::frame::Refusal;
use crate::gateway::{Gateway, Restart, now_ms};
use crate::handoff::Source;
use crate::handshake::Accepted;
use crate::socket;
use crate::{browser, channels, restart};

/// OpenClaw's mark in the place of a secret.
const REDACTED: &str = "__OPENCLAW_REDACTED__";
/// The agent that every OpenClaw has.
const AGENT: &str = "main";
/// OpenClaw's interval between agent heartbeats, which its command line prints.
const HEARTBEAT_SECONDS: u64 = 1800;

/// A method that is served.
#[derive(Debug, Clone, Copy)]
enum Method {
    Health,
    Status,
    SystemPresence,
    ConfigGet,
    ChannelsStatus,
    BrowserRequest,
    RestartRequest,
}

const METHODS: [(&str, Method); 7] = [
    ("health", Method::Health),
    ("status", Method::Status),
    ("system-presence", Method::SystemPresence),
    ("config.get", Method::ConfigGet),
    ("channels.status", Method::ChannelsStatus),
    ("browser.request", Method::BrowserRequest),
    (restart::METHOD, Method::RestartRequest),
];

/// Carries out a request.
pub(crate) async fn answer(gateway: &Gateway, method: &str, params: &Value) -> Result<Value, Refusal> {
    let Some((_, known)) = METHODS.iter().find(|(name, _)| *name == method) else {
        return Err(match method {
            "connect" => Refusal::invalid("connect is only valid as the first request"),
            unknown => Refusal::invalid(format!("unknown method: {}", bounded(unknown))),
        });
    };
    match known {
        Method::Health => Ok(health(gateway).await),
        Method::Status => Ok(status(gateway).await),
        Method::SystemPresence => Ok(presence(gateway)),
        Method::ConfigGet => Ok(config(gateway)),
        Method::ChannelsStatus => Ok(channels_status(gateway).await),
        Method::BrowserRequest => browser_request(gateway, params),
        Method::RestartRequest => restart_request(gateway, params),
    }
}

/// The answer to an accepted `connect`.
pub(crate) async fn hello(gateway: &Gateway, accepted: &Accepted, connection: &str) -> Value {
    json!({
        "type": "hello-ok",
        "protocol": accepted.protocol,
        "server": { "version": gateway.version(), "bootId": gateway.boot_id, "connId": connection },
        "features": {
            "methods": METHODS.map(|(name, _)| name),
            "events": ["connect.challenge", "tick", "shutdown"],
        },
        "snapshot": {
            "presence": presence(gateway),
            "health": health(gateway).await,
            "stateVersion": { "presence": 1, "health": 1 },
            "uptimeMs": gateway.uptime_ms(),
            "configPath": gateway.config.path,
            "stateDir": gateway.config.state_dir,
            "authMode": gateway.accepted.auth().mode(),
            "sessionDefaults": {
                "defaultAgentId": AGENT,
                "mainKey": AGENT,
                "mainSessionKey": "agent:main:main",
                "scope": "per-sender",
            },
        },
        "auth": { "role": "operator", "scopes": accepted.scopes },
        "policy": {
            "maxPayload": socket::MESSAGE_BYTES,
            "maxBufferedBytes": socket::UNSENT_BYTES,
            "tickIntervalMs": socket::TICK.as_millis() as u64,
        },
    })
}

async fn health(gateway: &Gateway) -> Value {
    let begun = Instant::now();
    let event_loop = gateway.pulse.measure().await;
    let sessions = sessions(gateway);
    let health = json!({
        "ok": true,
        "ts": now_ms(),
        "durationMs": begun.elapsed().as_millis() as u64,
        "degraded": gateway.degraded(),
        "heartbeatSeconds": HEARTBEAT_SECONDS,
        "defaultAgentId": AGENT,
        "agents": [{
            "agentId": AGENT,
            "isDefault": true,
            "heartbeat": { "enabled": false, "every": "disabled", "everyMs": null },
            "sessions": sessions,
        }],
        "sessions": sessions,
        "eventLoop": event_loop,
    });
    merged(health, channels::health(gateway))
}

/// Both objects in one.
fn merged(mut object: Value, other: Value) -> Value {
    if let (Value::Object(object), Value::Object(other)) = (&mut object, other) {
        object.extend(other);
    }
    object
}

/// The store that OpenClaw would keep here; there is none, so it counts nothing.
fn sessions(gateway: &Gateway) -> Value {
    let path = gateway.config.state_dir.join("agents").join(AGENT).join("sessions");
    json!({ "path": path, "count": 0, "recent": [] })
}

async fn status(gateway: &Gateway) -> Value {
    let mut store = sessions(gateway);
    let path = store["path"].take();
    json!({
        "runtimeVersion": gateway.version(),
        "pid": std::process::id(),
        "heartbeat": {
            "defaultAgentId": AGENT,
            "agents": [{ "agentId": AGENT, "enabled": false, "every": "disabled", "everyMs": null }],
        },
        "channelSummary": [],
        "queuedSystemEvents": [],
        "degraded": gateway.degraded(),
        "sessions": {
            "paths": [path],
            "count": 0,
            "defaults": { "model": null, "contextTokens": null },
            "recent": [],
            "byAgent": [{ "agentId": AGENT, "path": path, "count": 0, "recent": [] }],
        },
        "eventLoop": gateway.pulse.measure().await,
    })
}

fn presence(gateway: &Gateway) -> Value {
    let (host, version) = (host(), gateway.version());
    json!([{
        "host": host,
        "version": version,
        "platform": std::env::consts::OS,
        "mode": "gateway",
        "reason": "self",
        "instanceId": gateway.boot_id,
        "text": format!("Gateway: {host} · app {version} · mode gateway · reason self"),
        "ts": now_ms(),
    }])
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

/// Only what this gateway read and understood. The rest of the file may hold the secrets of channels and
/// models in places that no list can foresee, so none of it leaves.
fn config(gateway: &Gateway) -> Value {
    let config = &gateway.config;
    let mode = gateway.accepted.auth().mode();
    let mut auth = json!({ "mode": mode });
    if mode != "none" {
        auth[mode] = REDACTED.into();
    }
    let effective = json!({ "gateway": {
        "mode": "local",
        "port": config.port.number(),
        "bind": config.bind.name(),
        "auth": auth,
    }});
    json!({
        "path": config.path,
        "exists": true,
        "valid": true,
        "parsed": effective,
        "config": effective,
        "issues": [],
        "warnings": [],
        "legacyIssues": [],
    })
}

async fn channels_status(gateway: &Gateway) -> Value {
    merged(json!({ "ts": now_ms(), "eventLoop": gateway.pulse.measure().await }), channels::status(gateway))
}

/// Takes the wish for a restart. A caller that names the process it means is held to it, so that none restarts
/// the successor of the gateway it knew.
fn restart_request(gateway: &Gateway, params: &Value) -> Result<Value, Refusal> {
    let pid = std::process::id();
    if !params["target"].is_null() && params["target"]["pid"] != pid {
        return Err(Refusal::invalid("target gateway no longer owns the active lock"));
    }
    let reason = params["reason"].as_str().unwrap_or_default();
    let source = if reason == restart::REASON { Source::OperatorRestart } else { Source::Unknown };
    gateway.restart(Restart { reason: bounded(reason), source });
    Ok(json!({ "ok": true, "status": "emitted", "pid": pid }))
}

fn browser_request(gateway: &Gateway, params: &Value) -> Result<Value, Refusal> {
    match (params["method"].as_str(), params["path"].as_str()) {
        (Some("GET"), Some("/")) => Ok(browser::status(gateway)),
        (Some(_), Some(_)) => {
            Err(Refusal::invalid("the built-in gateway has no browser: only GET / is answered"))
        }
        (None, _) | (_, None) => Err(Refusal::invalid("browser.request needs `method` and `path`")),
    }
}

/// As much of a client's text as is worth sending back.
fn bounded(text: &str) -> String {
    text.chars().take(128).collect()
}
