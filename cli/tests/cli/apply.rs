//! `apply` and `export`.

use std::{fs, io::Write, process::Stdio};

use supervisor_proto::v1::{
    FleetChange, Phase,
    fleet_change::{Field, Kind},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    ctl::Ran,
    fake::{Fake, instance},
};

const FILE: &str = "instances:\n  rescue:\n    prot: 19789\n    rescues: [main]\n";

fn change(kind: Kind, name: &str, fields: &[(&str, &str, &str)]) -> FleetChange {
    let field = |(path, old, new): &(&str, &str, &str)| Field {
        path: (*path).to_owned(),
        old: (*old).to_owned(),
        new: (*new).to_owned(),
    };
    FleetChange {
        kind: kind.into(),
        instance: name.to_owned(),
        fields: fields.iter().map(field).collect(),
        needs_restart: kind == Kind::Update,
    }
}

fn planned() -> Fake {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789), instance("old", Phase::Ready, 18_809)]);
    fake.world().plan = vec![
        change(Kind::Pool, "", &[("pool.last", "20788", "22788")]),
        change(Kind::Create, "rescue", &[("rescues", "", "[main]"), ("args", "", "- a\n- b\n")]),
        change(Kind::Update, "main", &[("restart.max_delay", "60s", "30s"), ("env.A", "1", "")]),
        change(Kind::Unchanged, "web", &[]),
        change(Kind::NotInFile, "left", &[]),
    ];
    fs::write(fake.data_dir.join("fleet.yaml"), FILE).unwrap();
    fake
}

fn run(fake: &Fake, args: &[&str]) -> Ran {
    let mut command = fake.command(args);
    command.current_dir(&fake.data_dir);
    crate::ctl::finish(command)
}

#[test]
fn a_dry_run_shows_the_plan_as_a_diff_and_changes_nothing() {
    let fake = planned();
    let text = run(&fake, &["apply", "-f", "fleet.yaml", "--dry-run"]).done();
    assert_eq!(
        text,
        "\
~ pool
    pool.last: 20788 -> 22788
+ rescue
    rescues: [main]
    args: 
      - a
      - b
~ main  takes effect with a restart
    restart.max_delay: 60s -> 30s
    env.A: 1 (unset)
  left  not in the file, left alone; --prune removes it

1 to create, 2 to change, 1 unchanged, 1 not in the file
"
        .replace("args: \n", "args:\n")
    );
    assert!(fake.world().applied.iter().all(|request| request.validate_only));
}

#[test]
fn apply_shows_the_plan_does_it_and_waits() {
    let fake = planned();
    let ran = run(&fake, &["apply", "-f", "fleet.yaml"]);
    assert!(ran.out.contains("+ rescue") && ran.out.contains("rescue  ready"), "{ran:?}");
    ran.done();
    let applied = &fake.world().applied;
    assert_eq!(applied.len(), 2);
    assert!(!applied[1].validate_only && applied[1].start && !applied[1].prune && applied[1].content == FILE);
    assert_ne!(applied[0].request_id, applied[1].request_id);
}

#[test]
fn no_start_neither_starts_nor_waits() {
    let fake = planned();
    run(&fake, &["apply", "-f", "fleet.yaml", "--no-start"]).done();
    assert!(!fake.world().applied[1].start);
    assert!(fake.world().calls.iter().all(|(method, _)| *method != "WatchInstances"));
}

#[test]
fn removals_must_be_confirmed_when_nobody_can_be_asked() {
    let fake = planned();
    fake.world().plan = vec![change(Kind::Delete, "old", &[])];
    let ran = run(&fake, &["apply", "-f", "fleet.yaml", "--prune"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.out.starts_with("- old  its data is kept\n\n1 to remove\n"), "{ran:?}");
    assert!(ran.err.contains("this would stop and remove old"), "{ran:?}");
    assert_eq!(fake.world().applied.len(), 1);
    run(&fake, &["apply", "-f", "fleet.yaml", "--prune", "--yes"]).done();
    assert!(fake.world().applied[2].prune);
}

#[test]
fn a_file_that_changes_nothing_says_so() {
    let fake = planned();
    fake.world().plan = vec![change(Kind::Unchanged, "main", &[])];
    let text = run(&fake, &["apply", "-f", "fleet.yaml"]).done();
    assert_eq!(text, "nothing to do: 1 unchanged\n");
}

#[test]
fn the_file_may_come_from_standard_input() {
    let fake = planned();
    let mut command = fake.command(&["apply", "-f", "-", "--dry-run"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(FILE.as_bytes()).unwrap();
    Ran::from(child.wait_with_output().unwrap()).done();
    let world = fake.world();
    assert_eq!((world.applied[0].file_name.as_str(), world.applied[0].content.as_str()), ("<stdin>", FILE));
}

#[test]
fn an_error_in_the_file_is_shown_at_its_place_with_what_to_type() {
    let fake = planned();
    let mut details = ErrorDetails::with_error_info(
        "INVALID_FLEET",
        "openclaw.supervisor",
        std::collections::HashMap::new(),
    );
    details.add_bad_request_violation(
        "instances.rescue.prot",
        "fleet.yaml:3:5: `instances.rescue.prot`: unknown field\n 3 |     prot: 19789\n   |     ^\n   = did you mean `port`?",
    );
    let message = "fleet.yaml:3:5: `instances.rescue.prot`: unknown field; did you mean `port`?";
    fake.refuse("ApplyFleet", Status::with_error_details(Code::InvalidArgument, message, details));
    let ran = run(&fake, &["apply", "-f", "fleet.yaml"]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(
        ran.err,
        "\
error: failed to apply fleet.yaml: the file has an error; nothing was changed
  --> fleet.yaml:3:5 (instances.rescue.prot)
     |
   3 |     prot: 19789
     |     ^^^^ unknown field
     = did you mean `port`?
hint: mend the file, then try it with --dry-run
"
    );
    assert_eq!(ran.out, "");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let fake = Fake::start();
    let ran = fake.ctl(&["apply", "-f", "/nowhere/fleet.yaml"]);
    assert_eq!(ran.code, Some(4));
    assert_eq!(
        ran.err,
        "error: failed to apply /nowhere/fleet.yaml: cannot read /nowhere/fleet.yaml: \
         No such file or directory (os error 2)\n"
    );
    fs::write(fake.data_dir.join("big.yaml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(run(&fake, &["apply", "-f", "big.yaml"]).code, Some(2));
    fs::write(fake.data_dir.join("raw.yaml"), [0xff]).unwrap();
    assert_eq!(run(&fake, &["apply", "-f", "raw.yaml"]).code, Some(2));
}

#[test]
fn apply_answers_programs_with_the_changes() {
    let fake = planned();
    let text = run(&fake, &["apply", "-f", "fleet.yaml", "-o", "json"]).done();
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["changes"][1]["kind"], "KIND_CREATE");
}

#[test]
fn export_prints_the_file_as_it_is() {
    let fake = Fake::start();
    assert_eq!(fake.ctl(&["export"]).done(), "instances:\n  main: {}\n");
}
