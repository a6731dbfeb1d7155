//! The doctor and the check of a configuration, as a supervisor calls them between two starts.

use std::fs;

use serde_json::json;

use crate::support::{Home, TOKEN, config};

const FIX: &str = "doctor --fix --yes --non-interactive";
const VALIDATE: &str = "config validate --json";
const BROKEN: &str = "{ gateway: {";

fn good() -> String {
    config(18_789)
}

#[test]
fn a_broken_configuration_is_replaced_by_the_last_good_one_and_kept() {
    let home = Home::new(BROKEN);
    fs::write(home.path("openclaw.json.last-good"), good()).unwrap();
    let outcome = home.tool(FIX);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(fs::read_to_string(home.config()).unwrap(), good());
    assert_eq!(fs::read_to_string(home.path("openclaw.json.last-good")).unwrap(), good());
    let kept = home.files("openclaw.json.clobbered.");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(fs::read_to_string(home.path(&kept[0])).unwrap(), BROKEN);
    assert_eq!(home.files("openclaw.json").len(), 3);
    assert!(!outcome.out.contains(TOKEN));
}

#[test]
fn a_missing_configuration_comes_back() {
    let home = Home::new("");
    fs::rename(home.config(), home.path("elsewhere")).unwrap();
    fs::write(home.path("openclaw.json.last-good"), good()).unwrap();
    assert_eq!(home.tool(FIX).code, Some(0));
    assert_eq!(fs::read_to_string(home.config()).unwrap(), good());
}

#[test]
fn without_a_last_good_one_the_doctor_names_the_fault_and_touches_nothing() {
    let home = Home::new(BROKEN);
    let outcome = home.tool(FIX);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.err.contains("openclaw.json:1:") && outcome.err.contains("remains unchanged"),
        "{outcome:?}"
    );
    fs::write(home.path("openclaw.json.last-good"), "also broken").unwrap();
    assert_eq!(home.tool(FIX).code, Some(1));
    assert_eq!(fs::read_to_string(home.config()).unwrap(), BROKEN);
    assert_eq!(home.files("openclaw.json").len(), 2);
}

#[test]
fn a_doctor_who_is_not_to_fix_changes_nothing() {
    let home = Home::new(BROKEN);
    fs::write(home.path("openclaw.json.last-good"), good()).unwrap();
    let outcome = home.tool("doctor");
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.err.contains("doctor --fix"), "{outcome:?}");
    assert_eq!(fs::read_to_string(home.config()).unwrap(), BROKEN);
}

#[test]
fn a_sound_configuration_is_left_alone() {
    let home = Home::new(&good());
    assert_eq!(home.tool(FIX).code, Some(0));
    assert_eq!(home.files("openclaw.json"), ["openclaw.json"]);
}

#[test]
fn what_misbehaviour_spoils_is_mended_by_the_last_good_one() {
    let poisoned = good().replace("loopback\"", "loopback\",\"poison\":1");
    let home = Home::new(&poisoned).misbehaving("exit=78,while-config-has=poison");
    fs::write(home.path("openclaw.json.last-good"), good()).unwrap();
    assert_eq!(home.program(&["gateway", "run"]).status().unwrap().code(), Some(78));
    assert_eq!(home.tool(FIX).code, Some(0));
    assert_eq!(fs::read_to_string(home.config()).unwrap(), good());
}

#[test]
fn a_configuration_is_checked_in_openclaws_words() {
    let home = Home::new(&good());
    let path = home.config();
    let outcome = home.tool(VALIDATE);
    assert_eq!(outcome.code, Some(0));
    assert_eq!(outcome.json(), json!({ "valid": true, "path": path, "warnings": [] }));

    fs::write(home.config(), good().replace("18789", "\"18789\"")).unwrap();
    let outcome = home.tool(VALIDATE);
    let mut answer = outcome.json();
    assert_eq!(outcome.code, Some(1));
    let issue = answer["issues"][0].take();
    assert_eq!(issue["path"], "gateway.port");
    assert!(issue["message"].as_str().unwrap().contains("must be a number"), "{issue}");
    let message = format!("OpenClaw config is invalid: {}", path.display());
    let error = json!({ "type": "cli_error", "message": message });
    assert_eq!(
        answer,
        json!({ "ok": false, "error": error, "valid": false, "path": path, "issues": [null] })
    );

    fs::write(home.config(), BROKEN).unwrap();
    let outcome = home.tool(VALIDATE);
    assert_eq!((outcome.code, &outcome.json()["issues"][0]["path"]), (Some(1), &json!("<root>")));

    fs::remove_file(home.config()).unwrap();
    let outcome = home.tool(VALIDATE);
    let error = json!({ "type": "cli_error", "message": "file not found" });
    let answer = json!({ "ok": false, "error": error, "valid": false, "path": path });
    assert_eq!((outcome.code, outcome.json()), (Some(1), answer));
}
