//! Edits of the configuration while the gateway runs.

use std::fs;

use serde_json::json;

use crate::support::{Gateway, TOKEN, config};

const NEW_TOKEN: &str = "another-token-that-no-log-may-show";

async fn admits(gateway: &Gateway, token: &str) -> bool {
    let mut client = gateway.client().await;
    client.connect((3, 4), json!({ "token": token })).await["ok"] == true
}

#[tokio::test]
async fn a_broken_edit_is_skipped_and_said_once() {
    let gateway = Gateway::start();
    fs::write(gateway.home.config(), "{ gateway: {").unwrap();
    assert!(admits(&gateway, TOKEN).await && admits(&gateway, TOKEN).await);
    let said = gateway.home.err();
    assert_eq!(said.matches("config reload skipped (invalid config): ").count(), 1, "{said}");
    fs::remove_file(gateway.home.config()).unwrap();
    assert!(admits(&gateway, TOKEN).await);
    assert!(gateway.home.err().contains("config reload skipped (config file not found)"));
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[tokio::test]
async fn a_new_token_holds_at_once_and_the_old_one_no_more() {
    let gateway = Gateway::start();
    fs::write(gateway.home.config(), config(gateway.port).replace(TOKEN, NEW_TOKEN)).unwrap();
    assert!(!admits(&gateway, TOKEN).await);
    assert!(admits(&gateway, NEW_TOKEN).await);
    let said = gateway.home.out() + &gateway.home.err();
    assert!(said.contains("config hot reload applied (gateway.auth)"), "{said}");
    assert!(!said.contains(TOKEN) && !said.contains(NEW_TOKEN), "{said}");
}
