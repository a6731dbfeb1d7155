//! Who polls: channels as the gateway shows them, and as it leaves them alone.

use serde_json::{Value, json};

use crate::support::{Gateway, Home, config};

const SECRET: &str = "123456:a-bot-token-that-nobody-may-see";

fn with_channels(port: u16) -> String {
    let mut config: Value = serde_json::from_str(&config(port)).unwrap();
    config["channels"] = json!({
        "telegram": { "enabled": true, "botToken": SECRET },
        "discord": { "token": SECRET },
        "slack": { "enabled": false, "botToken": SECRET },
        "defaults": { "groupPolicy": "open" },
        "modelByChannel": {},
        "odd": "not an object",
    });
    config.to_string()
}

async fn asked(gateway: &Gateway, method: &str) -> Value {
    let mut client = gateway.client().await;
    client.hello().await;
    client.ask(method, json!({})).await["payload"].take()
}

#[tokio::test]
async fn configured_channels_are_shown_as_running_and_no_secret_is() {
    let gateway = Gateway::start_with(with_channels);
    let health = asked(&gateway, "health").await;
    assert_eq!(health["channelOrder"], json!(["discord", "telegram"]));
    assert_eq!(health["channelLabels"], json!({ "telegram": "Telegram", "discord": "Discord" }));
    let telegram = &health["channels"]["telegram"];
    assert_eq!((&telegram["configured"], &telegram["running"]), (&json!(true), &json!(true)));
    assert_eq!(telegram["accounts"]["default"]["running"], true);
    let status = asked(&gateway, "channels.status").await;
    assert_eq!(status["channels"]["discord"]["running"], true);
    assert_eq!(status["channelAccounts"]["telegram"][0]["accountId"], "default");
    assert_eq!(status["channelDefaultAccountId"]["telegram"], "default");
    assert!(!health.to_string().contains(SECRET) && !status.to_string().contains(SECRET));
}

#[tokio::test]
async fn a_standby_polls_nothing_and_is_ready() {
    for variable in ["OPENCLAW_SKIP_CHANNELS", "OPENCLAW_SKIP_PROVIDERS"] {
        let gateway = Gateway::start_in(|port| Home::new(&with_channels(port)).with(variable, "1"));
        let health = asked(&gateway, "health").await;
        let telegram = &health["channels"]["telegram"];
        assert_eq!((&telegram["configured"], &telegram["running"]), (&json!(false), &json!(false)));
        let status = asked(&gateway, "channels.status").await;
        assert_eq!(status["channelAccounts"]["discord"][0]["running"], false);
        let ready = gateway.get("/readyz");
        assert_eq!((ready.status, &ready.json()["failing"]), (200, &json!([])));
    }
}
