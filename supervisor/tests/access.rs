//! Who may call, and the record of it: real users, a real socket beside the own one, and supervisors that are killed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use nix::unistd::geteuid;
use supervisor_proto::v1::{
    self, AuditEntry, ListAuditRequest, ReloadRequest, StopInstanceRequest, audit_entry::Outcome,
    audit_service_client::AuditServiceClient,
};
use support::{
    Host, builtin,
    door::{Door, GROUP},
    shell, until,
};

/// A user that owns nothing, and one more.
const NOBODY: u32 = 65_534;
const OTHER: u32 = 64_123;

async fn audit(host: &Host, request: ListAuditRequest) -> Vec<AuditEntry> {
    let mut client = AuditServiceClient::new(host.channel().await.unwrap());
    let request = ListAuditRequest { page_size: 1_000, ..request };
    client.list_audit(request).await.unwrap().into_inner().entries
}

fn method(entry: &AuditEntry) -> &str {
    entry.method.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn another_user_may_do_what_its_role_allows_and_nobody_else_anything() {
    if !geteuid().is_root() {
        eprintln!("only root can become another user; the unit tests of the gate stand in");
        return;
    }
    let mut host = Host::prepare();
    let door = Door::new();
    door.open(&host, &format!("- {{uid: {NOBODY}, role: viewer}}\n"));
    host.start_supervisor().await;
    host.create("main", builtin()).await;
    host.up("main").await;

    assert!(door.done(NOBODY, &["status"]).contains("main"));
    let lacks = format!("({NOBODY}) has the role viewer, and StopInstance takes operator");
    door.refused(NOBODY, &["down", "main"], &lacks);
    door.refused(NOBODY, &["audit"], "ListAudit takes admin");
    door.refused(OTHER, &["status"], &format!("user {OTHER} has no role here"));

    // A role is given without a restart, here by group.
    door.open(&host, &format!("- {{uid: {NOBODY}, role: viewer}}\n- {{gid: {GROUP}, role: operator}}\n"));
    let changes = host.system().await.reload(ReloadRequest {}).await.unwrap().into_inner().changes;
    assert!(changes[0].starts_with("`access` was"), "{changes:?}");
    door.done(OTHER, &["restart", "main"]);
    door.refused(OTHER, &["rm", "main", "--yes"], "DeleteInstance takes admin");
    host.wait_ready("main").await;

    let entries = audit(&host, ListAuditRequest { caller: OTHER.to_string(), ..Default::default() }).await;
    let told: Vec<_> = entries.iter().map(|entry| (method(entry), entry.outcome())).collect();
    assert!(told.contains(&("RestartInstance", Outcome::Done)), "{told:?}");
    assert!(told.contains(&("DeleteInstance", Outcome::Refused)), "{told:?}");
    let caller = entries[0].caller.clone().unwrap();
    assert_eq!((caller.uid, caller.from), (Some(OTHER), door.socket.to_string_lossy().into_owned()));
}

#[tokio::test]
async fn a_token_file_gives_its_role_to_another_user_and_is_shown_nowhere() {
    if !geteuid().is_root() {
        return;
    }
    const TOKEN: &str = "canary-0123456789abcdef0123456789abcdef";
    let mut host = Host::prepare();
    let door = Door::new();
    let secret = |name: &str, owner: u32| {
        let path = door.directory.path().join(name);
        fs::write(&path, TOKEN).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
        path
    };
    let (server_side, client_side) = (secret("deploy.token", 0), secret("mine.token", NOBODY));
    let access = format!("- {{token_file: {}, role: operator}}\n", server_side.display());
    door.open(&host, &access);
    host.start_supervisor().await;
    host.create("main", builtin()).await;
    let client_side = client_side.to_str().unwrap();
    door.done(NOBODY, &["up", "main", "--token-file", client_side]);
    door.refused(NOBODY, &["rm", "main", "--token-file", client_side, "--yes"], "the token of deploy.token");
    door.refused(NOBODY, &["status"], "has no role here");
    let entries =
        audit(&host, ListAuditRequest { caller: "deploy.token".into(), ..Default::default() }).await;
    assert_eq!(entries.len(), 2, "{entries:#?}");
    let store = fs::read(host.data_dir().join("supervisor.db")).unwrap();
    let log = fs::read(host.data_dir().join("supervisor.db-wal")).unwrap_or_default();
    for text in [String::from_utf8_lossy(&store), String::from_utf8_lossy(&log), host.supervisor_log().into()]
    {
        assert!(!text.contains(TOKEN));
    }
    // One that others can read is not taken, and the supervisor says so.
    fs::set_permissions(&server_side, fs::Permissions::from_mode(0o644)).unwrap();
    host.system().await.reload(ReloadRequest {}).await.unwrap();
    door.refused(NOBODY, &["down", "main", "--token-file", client_side], "has no role here");
    let info = host.system().await.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    assert!(info.alarms.iter().any(|alarm| alarm.contains("chmod 600")), "{:?}", info.alarms);
}

#[tokio::test]
async fn the_audit_outlives_a_supervisor_that_is_killed_in_the_middle_of_a_change() {
    let mut host = Host::start().await;
    // It takes its time to end, and the call waits for that.
    host.create("slow", shell("trap '' TERM; while :; do sleep 0.1; done")).await;
    host.up("slow").await;
    let mut client = host.instances().await;
    let stop = StopInstanceRequest {
        name: "slow".into(),
        wait: true,
        request_id: "stop-slow".into(),
        ..Default::default()
    };
    let call = tokio::spawn(async move { client.stop_instance(stop).await });
    let asked = || ListAuditRequest { method: "StopInstance".into(), ..Default::default() };
    until("the call is recorded", async || {
        let entries = audit(&host, asked()).await;
        entries.first().filter(|entry| entry.outcome() == Outcome::UnderWay).map(|_| ())
    })
    .await;
    host.kill_supervisor();
    call.await.unwrap().unwrap_err();
    host.start_supervisor().await;
    let entries = audit(&host, asked()).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].target.as_str(), entries[0].request_id.as_str()), ("slow", "stop-slow"));
    assert_eq!(entries[0].outcome(), Outcome::SupervisorDied);
    let all = audit(&host, ListAuditRequest::default()).await;
    let told: Vec<_> = all.iter().map(|entry| (method(entry), entry.outcome())).collect();
    let expected = [
        ("StopInstance", Outcome::SupervisorDied),
        ("StartInstance", Outcome::Done),
        ("CreateInstance", Outcome::Done),
    ];
    assert_eq!(told, expected);
    // The next call goes on counting.
    host.up("slow").await;
    let next = audit(&host, ListAuditRequest::default()).await;
    assert!(next[0].number > all[0].number, "{next:#?}");
}
