//! What `config` shows and asks for, and what `status` tells of configurations.

use serde_json::Value;
use supervisor_proto::v1::{
    ConfigRejection, ConfigStatus, DiffSnapshotResponse, Instance, LadderStatus, ListSnapshotsResponse,
    Phase, RollBackResponse, Snapshot, ladder_status::Rung, snapshot::Standing,
};
use tonic::Code;

use crate::{
    ctl::finish,
    fake::{Fake, instance, refusal, seconds_ago, status},
};

const GOOD: &str = "9e3cd8812b0a00000000000000000000";
const BAD: &str = "5f1d08a2c9e300000000000000000000";
const BEFORE: &str = "77aa10b2c3d400000000000000000000";

const PROBLEM: &str = "/m/openclaw.json:3:9: this is not JSON5";

fn fake() -> Fake {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789)]);
    fake
}

fn snapshot(id: &str, standing: Standing) -> Snapshot {
    let create_time = seconds_ago(90);
    Snapshot { id: id.into(), create_time, bytes: 2_048, standing: standing.into(), ..Default::default() }
}

fn rejection(reason: &str) -> ConfigRejection {
    ConfigRejection { content: BAD.into(), time: seconds_ago(62), reason: reason.into() }
}

/// An instance that runs on its last good configuration, after another was taken back.
fn degraded() -> Instance {
    let mut main = instance("main", Phase::Ready, 18_789);
    status(&mut main).config = Some(ConfigStatus {
        content: GOOD.into(),
        running: GOOD.into(),
        good: GOOD.into(),
        degraded: true,
        rejected: Some(rejection("exited with status 78")),
        ..Default::default()
    });
    main
}

#[test]
fn the_table_tells_what_each_snapshot_is_and_fits_80_columns() {
    let fake = fake();
    let running = Snapshot { running: true, current: true, ..snapshot(GOOD, Standing::Good) };
    let rejected =
        Snapshot { rejection: Some(rejection("exited with status 78")), ..snapshot(BAD, Standing::Rejected) };
    let noted = Snapshot { note: "before the upgrade".into(), ..snapshot(BEFORE, Standing::GoodBefore) };
    fake.world().recovery.snapshots =
        ListSnapshotsResponse { snapshots: vec![rejected, running, noted], ..Default::default() };
    let text = fake.ctl(&["config", "snapshots", "main"]).done();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    // Times change with the clock.
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("SNAPSHOT      KEPT") && lines[0].ends_with("SIZE  STATE"), "{text}");
    assert!(lines[1].starts_with("5f1d08a2c9e3  ") && lines[1].ends_with("2 KiB  taken back"), "{text}");
    assert!(lines[2].ends_with("2 KiB  in the file, running, good"), "{text}");
    assert!(lines[3].ends_with("2 KiB  good before"), "{text}");
    assert!(lines[5].starts_with("5f1d08a2c9e3  taken back at "), "{text}");
    assert!(lines[5].ends_with("s ago): exited with status 78"), "{text}");
    assert_eq!(lines[6], "77aa10b2c3d4  note: before the upgrade");
    let lines = fake.ctl(&["config", "snapshots", "main", "-o", "jsonl"]).done();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((first["id"].as_str(), first["standing"].as_str()), (Some(BAD), Some("STANDING_REJECTED")));
}

#[test]
fn below_the_snapshots_stands_what_is_wrong_with_the_file() {
    let fake = fake();
    let trial = Snapshot { running: true, ..snapshot(GOOD, Standing::Unproven) };
    let config = ConfigStatus { problem: PROBLEM.into(), ..Default::default() };
    fake.world().recovery.snapshots =
        ListSnapshotsResponse { snapshots: vec![trial], status: Some(config), ..Default::default() };
    let text = fake.ctl(&["config", "snapshots", "main"]).done();
    assert!(text.contains("running, on trial\n"), "{text}");
    let told = format!(
        "\nbroken: the file would not survive the next start: {PROBLEM}\n  hint: openclawctl config diff main\n"
    );
    assert!(text.ends_with(&told), "{text}");
    fake.world().recovery.snapshots = ListSnapshotsResponse::default();
    let text = fake.ctl(&["config", "snapshots", "main"]).done();
    assert_eq!(text, "no configuration of main has been seen yet\n");
}

#[test]
fn a_diff_is_plain_in_a_pipe_and_coloured_on_demand_and_says_that_the_file_is_broken() {
    let fake = fake();
    fake.world().recovery.diff = DiffSnapshotResponse {
        from: GOOD.into(),
        to: BAD.into(),
        diff: "--- snapshot\n+++ the file\n@@ -1 +1 @@\n-a\u{1b}[2J\n+b\tc\n".into(),
        problem: PROBLEM.into(),
    };
    let ran = fake.ctl(&["config", "diff", "main"]);
    assert_eq!(ran.err, format!("the file would not survive the next start: {PROBLEM}\n"));
    assert_eq!(ran.done(), "--- snapshot\n+++ the file\n@@ -1 +1 @@\n-a\u{fffd}[2J\n+b\tc\n");
    let coloured = fake.ctl(&["config", "diff", "main", "5f1d", "9e3c", "--color", "always"]).done();
    assert!(coloured.contains("\u{1b}[32m+b\tc\u{1b}[0m\n"), "{coloured:?}");
    let asked = fake.world().recovery.diffs.clone();
    assert_eq!((asked[0].from.as_str(), asked[0].to.as_str()), ("", ""));
    assert_eq!((asked[1].from.as_str(), asked[1].to.as_str()), ("5f1d", "9e3c"));
}

#[test]
fn a_file_that_is_the_last_good_one_has_no_diff_and_that_is_said() {
    let fake = fake();
    fake.world().recovery.diff =
        DiffSnapshotResponse { from: GOOD.into(), to: GOOD.into(), ..Default::default() };
    let ran = fake.ctl(&["config", "diff", "main"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "nothing differs: the file holds 9e3cd8812b0a\n"));
    assert_eq!(ran.code, Some(0));
}

#[test]
fn a_rollback_asks_first_and_what_is_agreed_to_is_what_is_done() {
    let fake = fake();
    fake.world().recovery.rollback = RollBackResponse {
        to: GOOD.into(),
        from: BAD.into(),
        kept_in: "/m/openclaw.json.rolled-back-".into(),
        ..Default::default()
    };
    let ran = fake.ctl(&["config", "rollback", "main"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let would = "this would put 9e3cd8812b0a in place of 5f1d08a2c9e3 as the configuration of main, keep what is \
        there in /m/openclaw.json.rolled-back-TIME, and restart it, and nobody can be asked";
    assert!(ran.err.contains(would), "{ran:?}");
    let asked = std::mem::take(&mut fake.world().recovery.rollbacks);
    assert_eq!((asked.len(), asked[0].validate_only, asked[0].to.as_str()), (1, true, ""));

    let ran = fake.ctl(&["config", "rollback", "main", "--yes"]);
    let kept = "main: rolled back to 9e3cd8812b0a; what was there is kept in /m/openclaw.json.rolled-back-\n";
    assert_eq!(ran.err, kept);
    assert!(ran.done().contains("\nmain  ready"));
    let asked = fake.world().recovery.rollbacks.clone();
    assert_eq!((asked.len(), asked[1].validate_only, asked[1].wait), (2, false, true));
    assert_eq!(asked[1].to, GOOD);
    assert!(!asked[1].request_id.is_empty());
}

#[test]
fn who_goes_back_to_what_was_taken_back_is_told_so_before() {
    let fake = fake();
    fake.world().recovery.rollback = RollBackResponse {
        to: BAD.into(),
        from: GOOD.into(),
        rejection: Some(rejection("exited with status 78")),
        ..Default::default()
    };
    let ran = fake.ctl(&["config", "rollback", "main", "5f1d"]);
    let told = "and restart it, though 5f1d08a2c9e3 was taken back before: exited with status 78, and nobody";
    assert!(ran.err.contains(told), "{ran:?}");
}

#[test]
fn snapshots_complete_from_the_instance_that_is_named_before() {
    let fake = fake();
    fake.world().recovery.snapshots.snapshots =
        vec![snapshot(GOOD, Standing::Good), snapshot(BAD, Standing::Rejected)];
    let mut command = fake.command(&["--", "openclawctl", "config", "rollback", "main", "5f"]);
    command.env("OPENCLAWCTL_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "4").env("_CLAP_IFS", "\n");
    assert_eq!(finish(command).done(), "5f1d08a2c9e3");
}

#[test]
fn who_does_not_wait_for_a_rollback_is_told_where_the_file_will_be_kept() {
    let fake = fake();
    fake.world().recovery.rollback = RollBackResponse {
        to: GOOD.into(),
        from: BAD.into(),
        kept_in: "/m/openclaw.json.rolled-back-".into(),
        ..Default::default()
    };
    let ran = fake.ctl(&["config", "rollback", "main", "9e3c", "--yes", "--no-wait"]);
    assert_eq!(
        ran.err,
        "main: to be rolled back to 9e3cd8812b0a; what is there will be kept in \
         /m/openclaw.json.rolled-back-TIME\n"
    );
    assert!(!fake.world().recovery.rollbacks[1].wait);
}

#[test]
fn what_is_kept_or_marked_is_named() {
    let fake = fake();
    fake.world().recovery.snapshots.snapshots = vec![snapshot(GOOD, Standing::Unproven)];
    let kept = fake.ctl(&["config", "snapshot", "main", "-m", "before the upgrade"]).done();
    assert_eq!(kept, "kept as 9e3cd8812b0a\n");
    assert_eq!(fake.world().recovery.notes, ["before the upgrade"]);
    let marked = fake.ctl(&["config", "mark-good", "main", "9e3c"]).done();
    assert_eq!(marked, "main: 9e3cd8812b0a is good: the one to go back to\n");
    assert_eq!(fake.world().recovery.marked[0].snapshot, "9e3c");
}

#[test]
fn each_refusal_has_its_exit_code_and_its_hint() {
    let fake = fake();
    for (code, reason, exit, hint) in [
        (Code::NotFound, "UNKNOWN_SNAPSHOT", 4, "openclawctl config snapshots main"),
        (Code::InvalidArgument, "AMBIGUOUS_SNAPSHOT", 3, "openclawctl config snapshots main"),
        (Code::FailedPrecondition, "NO_GOOD_CONFIG", 3, "openclawctl config snapshots main"),
        (Code::FailedPrecondition, "NO_CONFIG", 3, "openclawctl up main"),
        (Code::FailedPrecondition, "BAD_CONFIG", 3, "openclawctl config snapshots main"),
    ] {
        fake.refuse("DiffSnapshot", refusal(code, reason, "no."));
        let ran = fake.ctl(&["config", "diff", "main"]);
        assert_eq!(ran.code, Some(exit), "{ran:?}");
        let told = format!("error: failed to compare configurations of `main`: no\nhint: {hint}\n");
        assert_eq!(ran.err, told);
    }
}

#[test]
fn the_fleet_s_status_tells_of_a_file_that_would_not_survive_the_next_start() {
    let mut main = instance("main", Phase::Ready, 18_789);
    status(&mut main).config = Some(ConfigStatus { problem: PROBLEM.into(), ..Default::default() });
    let fake = Fake::start();
    fake.with([main]);
    let text = fake.ctl(&["status"]).done();
    let told = format!(
        "\n  its configuration would not survive the next start: {PROBLEM}\n  \
         hint: openclawctl config diff main\n"
    );
    assert!(text.contains(&told), "{text}");
}

#[test]
fn the_fleet_s_status_tells_who_runs_on_an_older_configuration_than_wanted() {
    let fake = Fake::start();
    fake.with([degraded()]);
    let text = fake.ctl(&["status"]).done();
    assert!(text.contains("\n  runs on an older configuration: 5f1d08a2c9e3 was taken back at "), "{text}");
    assert!(text.contains("): exited with status 78\n"), "{text}");
    assert!(text.contains("  hint: openclawctl config diff main 9e3cd8812b0a 5f1d08a2c9e3\n"), "{text}");
    let mut stopped = degraded();
    status(&mut stopped).set_phase(Phase::Stopped);
    fake.with([stopped]);
    let text = fake.ctl(&["status"]).done();
    assert!(text.contains("\n  is to start on an older configuration: 5f1d08a2c9e3 was"), "{text}");
}

#[test]
fn the_status_of_one_instance_tells_what_its_configuration_is_and_how_far_up_the_ladder_it_is() {
    let fake = Fake::start();
    let mut main = degraded();
    let ladder = LadderStatus { rung: Rung::RollBack.into(), deaths: 1, held: true };
    status(&mut main).ladder = Some(ladder);
    fake.with([main]);
    let text = fake.ctl(&["status", "main"]).done();
    assert!(text.contains("\n  degraded    5f1d08a2c9e3 was taken back at "), "{text}");
    let way_out = "to stay with the older one: openclawctl config mark-good main 9e3cd8812b0a\n";
    assert!(text.contains(way_out), "{text}");
    let both = "\n  to do       openclawctl config diff main 9e3cd8812b0a 5f1d08a2c9e3, then openclawctl \
        maintenance off main\n";
    assert!(text.contains(both), "{text}");
    let told =
        "\n  ladder      its configuration was rolled back; 1 death in a row; held: somebody works on it\n";
    assert!(text.contains(told), "{text}");

    let mut main = instance("main", Phase::Ready, 18_789);
    status(&mut main).directories.get_or_insert_default().config = "/m/openclaw.json".into();
    status(&mut main).config = Some(ConfigStatus {
        content: BAD.into(),
        running: BEFORE.into(),
        good: GOOD.into(),
        problem: PROBLEM.into(),
        ..Default::default()
    });
    fake.with([main]);
    let text = fake.ctl(&["status", "main"]).done();
    let told = "\n  config      /m/openclaw.json\n              \
        77aa10b2c3d4 is on trial; 9e3cd8812b0a is the last good one\n              \
        the file was changed since the start, to 5f1d08a2c9e3\n";
    assert!(text.contains(told), "{text}");
    assert!(
        text.contains(&format!("\n  broken      the file would not survive the next start: {PROBLEM}\n"))
    );
    assert!(!text.contains("ladder"), "{text}");
}
