//! `openclawctl audit`.

use prost_types::{Duration, Timestamp};
use supervisor_proto::v1::{AuditCaller, AuditEntry, ListAuditResponse, audit_entry::Outcome};
use tonic::Code;

use crate::fake::{Fake, refusal};

fn entry(number: u64, caller: AuditCaller, method: &str, target: &str, outcome: Outcome) -> AuditEntry {
    let at = Some(Timestamp { seconds: 1_767_225_600 + i64::try_from(number).unwrap(), nanos: 0 });
    AuditEntry {
        number,
        time: at,
        last_time: at,
        calls: 1,
        caller: Some(caller),
        method: format!("openclaw.supervisor.v1.InstanceService/{method}"),
        target: target.into(),
        outcome: outcome.into(),
        duration: Some(Duration { seconds: 0, nanos: 1_000_000 }),
        ..Default::default()
    }
}

fn answer() -> ListAuditResponse {
    let root = AuditCaller {
        uid: Some(0),
        user: "root".into(),
        pid: 7,
        role: "admin".into(),
        from: "/x/control.sock".into(),
        ..Default::default()
    };
    let nobody = AuditCaller { uid: Some(65_534), ..Default::default() };
    let agent = AuditCaller { uid: Some(0), instance: "rescue".into(), ..Default::default() };
    let certificate = AuditCaller { certificate: "ci".into(), ..Default::default() };
    let token = AuditCaller { uid: Some(7), token_file: "deploy.token".into(), ..Default::default() };
    let refused =
        |entry: AuditEntry, calls: u64| AuditEntry { reason: "NOT_PERMITTED".into(), calls, ..entry };
    let entries = vec![
        entry(9, AuditCaller::default(), "", "", Outcome::Lost),
        entry(8, token, "StopInstance", "\u{1b}[31mmain", Outcome::CallerLeft),
        entry(7, certificate, "UpgradeInstance", "main", Outcome::SupervisorDied),
        AuditEntry { repeat: true, ..entry(6, agent, "RestartInstance", "main", Outcome::Done) },
        refused(entry(5, nobody, "StopInstance", "", Outcome::Refused), 311),
        entry(4, root, "GetSomethingWithAVeryLongName", &"x".repeat(50), Outcome::UnderWay),
    ];
    ListAuditResponse { entries, missing: 3, ..Default::default() }
}

#[test]
fn each_call_is_a_line_of_at_most_80_columns_that_says_who_and_what_became_of_it() {
    let fake = Fake::start();
    fake.audit(answer());
    let ran = fake.ctl(&["audit"]);
    assert!(ran.err.contains("3 calls are missing"), "{ran:?}");
    let out = ran.done();
    let told: Vec<&str> = out.lines().collect();
    assert!(told.iter().all(|line| line.chars().count() <= 80), "{out}");
    assert!(told[0].starts_with("TIME"), "{out}");
    for (line, parts) in told[1..].iter().zip([
        &["not recorded"][..],
        &["token", "StopInstance", "caller left"],
        &["cert ci", "UpgradeInstance", "main", "supervisor died"],
        &["inside", "RestartInstance", "main", "done before"],
        &["uid", "StopInstance", "NOT_PERMITTED ×311"],
        &["root", "GetSomethingWith…", "under way"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line} should tell {parts:?}");
    }
    assert!(!out.contains('\u{1b}'), "{out:?}");
    let wide = fake.ctl(&["audit", "-o", "wide"]).done();
    assert!(wide.contains("/x/control.sock") && wide.contains("token deploy.token"), "{wide}");
}

#[test]
fn programs_get_the_answer_as_the_contract_has_it_and_the_filters_are_sent() {
    let fake = Fake::start();
    fake.audit(answer());
    let ran =
        fake.ctl(&["audit", "main", "-n", "5", "--caller", "root", "--method", "StopInstance", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.done()).unwrap();
    assert_eq!(json["entries"][1]["caller"]["tokenFile"], "deploy.token");
    let asked = fake.asked_audit();
    assert_eq!((asked.page_size, asked.instance.as_str()), (5, "main"));
    assert_eq!((asked.caller.as_str(), asked.method.as_str()), ("root", "StopInstance"));
    let lines = fake.ctl(&["audit", "-o", "jsonl"]).done();
    assert_eq!(lines.lines().count(), 6);
}

#[test]
fn whoever_may_not_read_it_ends_with_7() {
    let fake = Fake::start();
    let sentence = "user 7 has the role viewer, and ListAudit takes admin.";
    fake.refuse("ListAudit", refusal(Code::PermissionDenied, "NOT_PERMITTED", sentence));
    let ran = fake.ctl(&["audit"]);
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(ran.err.contains("has the role viewer"), "{ran:?}");
}
