//! Instances that run as users of their own.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::{spec::UserName, user::User};

/// A user that no host has.
const SOMEBODY: u32 = 54_321;

fn world() -> World {
    let mut world = World::new();
    let user = Some(UserName(SOMEBODY.to_string()));
    world.add("main", 18_789, InstanceSpec { user, ..InstanceSpec::default() });
    let user = User { uid: SOMEBODY, gid: SOMEBODY, groups: Vec::new() };
    world.patients[0].directories.create_for(&world.at("data"), Some(&user)).unwrap();
    for path in ["", "/agents", "/agents/a", "/agents/a/agent", "/credentials"] {
        let path = world.at(&format!("data/instances/main/state{path}"));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        chown(&path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
    for file in ["openclaw.json", ".env", "credentials/oauth.json", "agents/a/agent/auth.json"] {
        let path = world.write(&format!("data/instances/main/state/{file}"), "{}");
        chown(&path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
    world
}

#[test]
fn what_a_user_of_its_own_has_by_right_is_not_foreign() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = world();
    assert_eq!(world.check(files::foreign), []);
    assert_eq!(world.check(files::open), []);
    let (state, logs) = (world.at("data/instances/main/state"), world.at("data/instances/main/logs"));
    // What an agent could not read, and so would be said to have lost.
    chown(state.join(".env"), Some(0), None).unwrap();
    let [finding] = &world.check(files::foreign)[..] else { panic!("one is root's") };
    let what = format!("1 path belongs of `main` to user 0, but its gateway runs as user {SOMEBODY}: `");
    assert!(finding.what.starts_with(&what), "{}", finding.what);
    assert_eq!(finding.mend, Mend::Type(format!("chown -hR {SOMEBODY} {}", state.display())));
    chown(state.join(".env"), Some(SOMEBODY), None).unwrap();
    // What the supervisor writes, and the gateway may not.
    chown(&logs, Some(SOMEBODY), None).unwrap();
    let [finding] = &world.check(files::foreign)[..] else { panic!("one is the user's") };
    assert!(finding.what.contains("but the supervisor runs as user 0: `"), "{}", finding.what);
    assert_eq!(finding.mend, Mend::Type(format!("chown -h 0 {}", logs.display())));
}

#[test]
fn what_a_user_of_its_own_has_open_is_closed_and_stays_its_own() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = world();
    let at = |path: &str| world.at(&format!("data/instances/main/{path}"));
    for (path, mode) in [("", 0o755), ("state", 0o755), ("state/.env", 0o644)] {
        fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
    }
    let outcome = world.fix(files::open);
    assert_eq!((outcome.findings.len(), outcome.mended.len()), (0, 3), "{outcome:?}");
    let found = |path: &str| fs::metadata(at(path)).map(|found| (found.mode() & 0o777, found.uid())).unwrap();
    let closed = [found(""), found("state"), found("state/.env")];
    assert_eq!(closed, [(0o711, 0), (0o700, SOMEBODY), (0o600, SOMEBODY)]);
    // A file of root's there may have another name elsewhere, or none that this user knows.
    fs::set_permissions(at("state/.env"), Permissions::from_mode(0o644)).unwrap();
    let findings = world.check(files::open);
    chown(at("state/.env"), Some(0), None).unwrap();
    for fix in findings.iter().flat_map(|finding| &finding.fixes) {
        fix.apply().unwrap_err();
    }
    assert_eq!((findings.len(), found("state/.env")), (1, (0o644, 0)));
}
