//! What `doctor` shows, and with which code it ends.

use serde_json::Value;
use supervisor_proto::v1::{ExamineResponse, Finding, Mended, Phase, finding::Severity};

use crate::fake::{Fake, instance};

fn shared() -> Finding {
    Finding {
        id: "path.shared".into(),
        severity: Severity::Error.into(),
        instances: vec!["rescue".into(), "main".into()],
        what: "the workspace `/w` of `rescue` is the same place as the workspace `/w` of `main`".into(),
        file: "/r/openclaw.json".into(),
        line: 3,
        column: 12,
        why: "two agents undo each other's work".into(),
        mend: "name a directory of its own there".into(),
        ..Default::default()
    }
}

fn open() -> Finding {
    Finding {
        id: "file.readable".into(),
        severity: Severity::Note.into(),
        instances: vec!["main".into()],
        what: "`/m/.env` of `main` can be read by other users".into(),
        file: "/m/.env".into(),
        why: "who reads a token can speak as the bot".into(),
        command: "chmod 600 /m/.env".into(),
        safe_fix: true,
        ..Default::default()
    }
}

fn fake(findings: Vec<Finding>) -> Fake {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789)]);
    fake.world().examined = ExamineResponse { findings, mended: Vec::new(), checks_done: 26 };
    fake
}

#[test]
fn what_is_wrong_is_told_with_what_to_type_and_ends_with_3() {
    let ran = fake(vec![shared(), open()]).ctl(&["doctor"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(3), ""));
    let expected = "\
error[path.shared]: the workspace `/w` of `rescue` is the same place as the workspace `/w` of `main`
  at: /r/openclaw.json:3:12
  why: two agents undo each other's work
  hint: name a directory of its own there

note[file.readable]: `/m/.env` of `main` can be read by other users
  why: who reads a token can speak as the bot
  hint: chmod 600 /m/.env

1 error, 1 note; 26 checks
hint: `openclawctl doctor --fix` mends 1 of them
";
    assert_eq!(ran.out, expected);
}

#[test]
fn a_fleet_without_a_finding_is_well_and_notes_are_no_failure() {
    assert_eq!(fake(Vec::new()).ctl(&["doctor"]).done(), "all well: 26 checks\n");
    let text = fake(vec![open()]).ctl(&["doctor"]).done();
    assert!(text.contains("\n1 note; 26 checks\n"), "{text}");
}

#[test]
fn a_fix_is_asked_for_once_and_told_line_by_line() {
    let fake = fake(Vec::new());
    let what = "`/m/.env` has mode 600 now".into();
    fake.world().examined.mended =
        vec![Mended { id: "file.readable".into(), instances: vec!["main".into()], what }];
    let text = fake.ctl(&["doctor", "main", "--fix"]).done();
    assert_eq!(text, "mended: `/m/.env` has mode 600 now\nall well: 26 checks\n");
    let asked = fake.world().examinations.clone();
    assert_eq!((asked.len(), asked[0].fix, asked[0].names.as_slice()), (1, true, &["main".to_owned()][..]));
    assert!(!asked[0].request_id.is_empty());
}

#[test]
fn programs_get_the_contract_s_json_and_the_same_exit_code() {
    let fake = fake(vec![shared(), open()]);
    let ran = fake.ctl(&["doctor", "-o", "json"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(3), ""));
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["checksDone"], 26);
    assert_eq!(answer["findings"][0]["severity"], "SEVERITY_ERROR");
    assert_eq!(answer["findings"][1]["safeFix"], true);
    let lines = fake.ctl(&["doctor", "-o", "jsonl"]);
    assert_eq!((lines.code, lines.out.lines().count()), (Some(3), 2));
}

#[test]
fn an_unknown_instance_is_not_found() {
    let ran = fake(Vec::new()).ctl(&["doctor", "mian"]);
    assert_eq!(ran.code, Some(4));
    assert!(ran.err.contains("failed to examine `mian`"), "{}", ran.err);
}
