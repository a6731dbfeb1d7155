//! What `incidents` and `incident` show.

use serde_json::Value;
use supervisor_proto::v1::{
    Event, GetIncidentResponse, Incident, IncidentRollback, LogLine, Severity, incident::Outcome,
};

use crate::fake::{Fake, seconds_ago};

fn incident(number: u64, outcome: Outcome) -> Incident {
    let open = matches!(outcome, Outcome::Open | Outcome::GivenUp);
    let end_time = if open { None } else { seconds_ago(60) };
    Incident {
        number,
        instance: "main".into(),
        start_time: seconds_ago(125),
        cause: "killed by SIGKILL".into(),
        outcome: outcome.into(),
        end_time,
        rescues: vec!["rescue".into()],
        quarantined: false,
    }
}

#[test]
fn the_table_marks_the_open_ones_and_fits_80_columns() {
    let fake = Fake::start();
    let long = Incident { cause: "x".repeat(200), ..incident(12_345, Outcome::FailedBack) };
    let given_up = Incident { quarantined: true, ..incident(99, Outcome::GivenUp) };
    fake.world().recovery.incidents = vec![incident(23_456, Outcome::Open), long, given_up];
    let text = fake.ctl(&["incidents", "-n", "3", "--instance", "main"]).done();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("INCIDENT  INSTANCE  BEGAN"), "{text}");
    assert!(lines[1].contains("  open         killed by SIGKILL"), "{text}");
    assert!(lines[2].contains("  failed back  xxx") && lines[2].ends_with('…'), "{text}");
    assert!(lines[3].starts_with("      99  main") && lines[3].contains("  given up     "), "{text}");
    assert!(text.ends_with("\nhint: openclawctl incident 23456\nhint: openclawctl incident 99\n"), "{text}");
    let asked = fake.world().recovery.listings.clone();
    assert_eq!((asked[0].page_size, asked[0].instance.as_str()), (3, "main"));
}

#[test]
fn a_fleet_to_which_nothing_has_happened_says_so() {
    assert_eq!(Fake::start().ctl(&["incidents"]).done(), "no incidents\n");
}

#[test]
fn one_incident_is_told_from_its_beginning_to_its_end() {
    let fake = Fake::start();
    let event = Event {
        revision: 12,
        time: seconds_ago(125),
        instance: "main".into(),
        severity: Severity::Warning.into(),
        message: "killed by SIGKILL; `rescue` is to stand in".into(),
        ..Default::default()
    };
    let rollback = IncidentRollback {
        time: seconds_ago(120),
        from: "5f1d08a2c9e3".into(),
        to: "9e3cd8812b0a".into(),
        reason: "exited with status 78".into(),
        diff: "--- a\n+++ b\n-x\n+y\n".into(),
    };
    let line = LogLine { text: b"fatal: \x1b[2Jno".to_vec(), ..Default::default() };
    fake.world().recovery.incident = GetIncidentResponse {
        incident: Some(incident(12, Outcome::Open)),
        timeline: vec![event],
        timeline_cut: false,
        rollbacks: vec![rollback],
        log: vec![line],
    };
    let text = fake.ctl(&["incident", "12"]).done();
    assert!(text.starts_with("incident 12  open for 2m"), "{text}");
    assert!(text.contains("\n  cause       killed by SIGKILL\n"), "{text}");
    assert!(text.contains("\n  rescue      rescue\n  to do       openclawctl status main\n"), "{text}");
    assert!(text.contains("  main  warning  killed by SIGKILL; `rescue` is to stand in\n"), "{text}");
    let end = "exited with status 78\n--- a\n+++ b\n-x\n+y\n\nEnd of the log of main\nfatal: \u{fffd}[2Jno\n";
    assert!(text.contains("\nConfiguration 5f1d08a2c9e3 was taken back for 9e3cd8812b0a at "), "{text}");
    assert!(text.ends_with(end), "{text}");
    let answer: Value = serde_json::from_str(&fake.ctl(&["incident", "12", "-o", "json"]).done()).unwrap();
    assert_eq!(answer["incident"]["outcome"], "OUTCOME_OPEN");
    assert_eq!(answer["rollbacks"][0]["from"], "5f1d08a2c9e3");
}

#[test]
fn an_incident_that_nobody_remembers_is_not_found() {
    let ran = Fake::start().ctl(&["incident", "7"]);
    assert_eq!(ran.code, Some(4));
    assert_eq!(
        ran.err,
        "error: failed to read incident 7: no incident has the number\nhint: openclawctl incidents\n"
    );
}
