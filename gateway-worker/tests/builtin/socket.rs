//! The WebSocket protocol.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::support::{Client, Gateway, PATIENCE, TOKEN, config, eventually};

#[tokio::test]
async fn the_newest_common_protocol_is_spoken() {
    let gateway = Gateway::start();
    for (protocols, spoken) in [((3, 3), 3), ((3, 4), 4), ((4, 4), 4), ((3, 9), 4)] {
        let response = gateway.client().await.connect(protocols, json!({ "token": TOKEN })).await;
        assert_eq!(response["payload"]["type"], "hello-ok", "{response}");
        assert_eq!(response["payload"]["protocol"], spoken, "{protocols:?}");
    }
}

#[tokio::test]
async fn the_hello_says_which_instance_and_which_boot_answers() {
    let gateway = Gateway::start();
    let hello = gateway.client().await.hello().await;
    let snapshot = &hello["snapshot"];
    assert_eq!(snapshot["configPath"], gateway.home.config().to_str().unwrap());
    assert_eq!(snapshot["stateDir"], gateway.home.path("").to_str().unwrap().trim_end_matches('/'));
    assert_eq!(snapshot["health"]["ok"], true);
    assert!(snapshot["uptimeMs"].is_u64() && snapshot["stateVersion"].is_object());
    assert_eq!(hello["auth"], json!({ "role": "operator", "scopes": ["operator.admin"] }));
    assert_eq!(hello["policy"]["tickIntervalMs"], 30_000);
    assert!(hello["policy"]["maxPayload"].is_u64() && hello["policy"]["maxBufferedBytes"].is_u64());
    let again = gateway.client().await.hello().await;
    assert_eq!(hello["server"]["bootId"], again["server"]["bootId"]);
    assert_ne!(hello["server"]["connId"], again["server"]["connId"]);

    let (port, home) = (gateway.port, gateway.crash());
    let successor = Gateway::try_start(home, port).expect("its port is free after its death");
    let hello_of_successor = successor.client().await.hello().await;
    assert_ne!(hello["server"]["bootId"], hello_of_successor["server"]["bootId"]);
}

#[tokio::test]
async fn a_wrong_or_missing_token_is_answered_and_closed_with_1008() {
    let gateway = Gateway::start();
    for (auth, code) in [
        (json!({ "token": "wrong" }), "AUTH_TOKEN_MISMATCH"),
        (json!({ "password": "wrong" }), "AUTH_TOKEN_MISMATCH"),
        (json!({ "token": "" }), "AUTH_TOKEN_MISSING"),
        (json!({}), "AUTH_TOKEN_MISSING"),
        (json!(null), "AUTH_TOKEN_MISSING"),
    ] {
        let mut client = gateway.client().await;
        let response = client.connect((3, 4), auth).await;
        assert_eq!(response["ok"], false);
        assert_eq!(response["error"]["details"]["code"], code, "{response}");
        let (close, reason) = client.closed().await;
        assert_eq!(close, 1008);
        assert!(reason.starts_with("unauthorized: gateway token"), "{reason}");
    }
    let said = gateway.home.err();
    assert_eq!(said.matches(r#"refused "gateway-client (backend)": unauthorized"#).count(), 5, "{said}");
    assert!(!said.contains("wrong"), "{said}");
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_is_answered_and_closed_with_1002() {
    let gateway = Gateway::start();
    for protocols in [(5, 6), (1, 2)] {
        let mut client = gateway.client().await;
        let response = client.connect(protocols, json!({ "token": TOKEN })).await;
        assert_eq!(response["error"]["details"]["code"], "PROTOCOL_MISMATCH");
        assert_eq!(client.closed().await, (1002, "protocol mismatch".to_owned()));
    }
}

#[tokio::test]
async fn a_first_frame_that_is_no_connect_is_closed_with_1008() {
    let gateway = Gateway::start();
    for frame in ["nonsense", "{}", r#"{"type":"event"}"#, "\"\""] {
        let mut client = gateway.client().await;
        client.say(frame).await;
        assert_eq!(client.closed().await, (1008, "invalid request frame".to_owned()));
    }
    let mut client = gateway.client().await;
    let response = client.ask("health", json!({})).await;
    assert_eq!(response["error"]["code"], "INVALID_REQUEST");
    assert_eq!(client.closed().await.0, 1008);
    let mut client = gateway.client().await;
    let response = client.ask("connect", json!({ "auth": TOKEN })).await;
    assert!(!response.to_string().contains(TOKEN), "{response}");
    assert_eq!(client.closed().await.0, 1008);
}

#[tokio::test]
async fn a_password_and_no_secret_are_modes_too() {
    let password = Gateway::start_with(|port| config(port).replace("\"token\"", "\"password\""));
    assert_eq!(password.client().await.connect((3, 4), json!({ "password": TOKEN })).await["ok"], true);
    // OpenClaw takes the secret from either field.
    assert_eq!(password.client().await.connect((3, 4), json!({ "token": TOKEN })).await["ok"], true);
    let wrong = password.client().await.connect((3, 4), json!({ "password": "x" })).await;
    assert_eq!(wrong["error"]["details"]["code"], "AUTH_PASSWORD_MISMATCH");
    let open = Gateway::start_with(|port| {
        json!({ "gateway": { "mode": "local", "port": port, "auth": { "mode": "none" } } }).to_string()
    });
    assert_eq!(open.client().await.connect((3, 4), json!(null)).await["ok"], true);
}

#[tokio::test]
async fn the_methods_of_openclaws_command_line_are_answered() {
    let gateway = Gateway::start();
    let mut client = gateway.client().await;
    let methods = client.hello().await["features"]["methods"].clone();
    let mut asked = Vec::new();
    for (method, params, expected) in [
        (
            "health",
            json!({}),
            json!({ "ok": true, "channels": {}, "channelOrder": [], "defaultAgentId": "main" }),
        ),
        ("status", json!({}), json!({ "channelSummary": [], "queuedSystemEvents": [] })),
        ("channels.status", json!({}), json!({ "channels": {}, "channelAccounts": {}, "channelOrder": [] })),
        ("config.get", json!({}), json!({ "path": gateway.home.config(), "exists": true, "valid": true })),
        (
            "browser.request",
            json!({ "method": "GET", "path": "/" }),
            json!({ "enabled": false, "running": false }),
        ),
    ] {
        let response = client.ask(method, params).await;
        assert_eq!(response["ok"], true, "{response}");
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&response["payload"][key], value, "{method}: {key}");
        }
        asked.push(method);
    }
    let presence = client.ask("system-presence", json!({})).await;
    assert_eq!(presence["payload"][0]["mode"], "gateway", "{presence}");
    asked.push("system-presence");
    // Asked elsewhere: it ends the gateway.
    asked.push("gateway.restart.request");
    let mut offered: Vec<_> = methods.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    offered.sort_unstable();
    asked.sort_unstable();
    assert_eq!(offered, asked);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_the_connection_stays() {
    let gateway = Gateway::start();
    let mut client = gateway.client().await;
    client.hello().await;
    let unknown = client.ask("agent.run", json!({})).await;
    assert_eq!(
        unknown["error"],
        json!({ "code": "INVALID_REQUEST", "message": "unknown method: agent.run" })
    );
    let again = client.ask("connect", json!({})).await;
    assert_eq!(again["error"]["message"], "connect is only valid as the first request");
    for params in
        [json!({}), json!({ "method": "POST", "path": "/" }), json!({ "method": "GET", "path": "/tabs" })]
    {
        assert_eq!(client.ask("browser.request", params).await["ok"], false);
    }
    client.say("nonsense").await;
    let invalid = client.next().await;
    assert_eq!((&invalid["id"], &invalid["ok"]), (&json!("invalid"), &json!(false)));
    assert_eq!(client.ask("health", json!({})).await["ok"], true);
}

#[tokio::test]
async fn no_answer_shows_a_secret_of_the_shared_configuration() {
    const BOT: &str = "a-bot-token-of-a-channel";
    let gateway = Gateway::start_with(|port| {
        let channels = format!(r#"{{ "channels": {{ "telegram": {{ "botToken": "{BOT}" }} }}, "gateway""#);
        config(port).replacen("{\"gateway\"", &channels, 1)
    });
    let mut client = gateway.client().await;
    let mut answers = vec![client.hello().await];
    for method in ["config.get", "health", "status", "channels.status", "system-presence"] {
        answers.push(client.ask(method, json!({})).await);
    }
    for answer in answers {
        let answer = answer.to_string();
        assert!(!answer.contains(TOKEN) && !answer.contains(BOT), "{answer}");
    }
    let config = client.ask("config.get", json!({})).await;
    assert_eq!(config["payload"]["parsed"]["gateway"]["auth"]["token"], "__OPENCLAW_REDACTED__");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_closed_with_1009() {
    let gateway = Gateway::start();
    let mut client = gateway.client().await;
    let limit = client.hello().await["policy"]["maxPayload"].as_u64().unwrap() as usize;
    client.say(&"x".repeat(limit + 1)).await;
    assert_eq!(client.closed().await.0, 1009);
}

#[test]
fn a_web_page_from_elsewhere_cannot_open_a_socket() {
    let gateway = Gateway::start();
    assert_eq!(upgrade(gateway.port, "Origin: https://evil.example\r\nSec-WebSocket-Key: {KEY}"), 403);
    assert_eq!(upgrade(gateway.port, "Origin: http://localhost:3000\r\nSec-WebSocket-Key: {KEY}"), 101);
    assert_eq!(upgrade(gateway.port, "Sec-WebSocket-Key: too-short"), 400);
}

#[tokio::test]
async fn clients_are_bounded_and_their_places_come_free() {
    let gateway = Gateway::start();
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(Client::open(gateway.port).await);
    }
    assert_eq!(upgrade(gateway.port, "Sec-WebSocket-Key: {KEY}"), 503);
    assert_eq!(gateway.get("/healthz").status, 200);
    drop(clients);
    eventually("a client's place comes free", || {
        (upgrade(gateway.port, "Sec-WebSocket-Key: {KEY}") == 101).then_some(())
    });
}

/// The status of an upgrade with these headers beside the usual ones.
fn upgrade(port: u16, headers: &str) -> u16 {
    let headers = headers.replace("{KEY}", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let usual = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
    write!(stream, "GET / HTTP/1.1\r\n{usual}\r\n{headers}\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}
