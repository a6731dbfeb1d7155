//! What a supervisor says is shown by a terminal, and never obeyed.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Command, Stdio},
};

use nix::pty::{Winsize, openpty};
use supervisor_proto::v1::*;
use tonic::{Code, Status};

use crate::{
    ctl::finish,
    fake::{Fake, Then, instance, refusal, seconds_ago, status},
};

/// Names the window, colours and hides, clears by an ESC and by a C1 control, goes back over its line, begins one of
/// its own, and turns the rest around.
const EVIL: &str = "EVIL\x1b]0;x\x07\x1b[31m\x1b[8mE\u{9b}2J\x08\rCR\nFORGED\u{2028}FORGED\u{202e}\x7f";
/// What this program itself says to a terminal.
const OWN: [&str; 9] =
    ["\r\x1b[K", "\r\n", "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[31m"];

/// What a terminal of 60 columns is told by a command, whose question is answered with no.
fn on_terminal(command: Command) -> String {
    on_terminal_of(60, command)
}

/// The same of another width.
pub(crate) fn on_terminal_of(columns: u16, mut command: Command) -> String {
    let size = Winsize { ws_row: 25, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(Some(&size), None).unwrap();
    let end = || Stdio::from(pair.slave.try_clone().unwrap());
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    // Its last end is the child's: reading ends when that does.
    drop((command, pair.slave));
    let (mut side, mut told) = (File::from(pair.master), Vec::new());
    side.write_all(b"n\n").unwrap();
    let _ = side.read_to_end(&mut told);
    child.wait().unwrap();
    String::from_utf8(told).unwrap()
}

/// Runs a command in colours, and asserts that it shows what is evil and means nothing by it.
fn shows(fake: &Fake, args: &[&str]) -> String {
    let told = on_terminal(fake.command(&[&["--color", "always"], args].concat()));
    assert!(told.contains("EVIL"), "{args:?}: {told:?}");
    // The colour stands where no colour of this program's would.
    assert!(!told.contains("\x1b[31m\u{fffd}") && !told.contains("\x1b[31mE\u{fffd}"), "{args:?}: {told:?}");
    let rest = OWN
        .iter()
        .fold(told.clone(), |rest, own| rest.replace(own, if own.ends_with('\n') { "\n" } else { "" }));
    let evil = |c: char| c.is_control() && c != '\n' || "\u{2028}\u{202e}".contains(c);
    assert!(!rest.contains(evil), "{args:?}: {told:?}");
    rest
}

/// The same where everything stands on lines of this program's own.
fn shows_in_line(fake: &Fake, args: &[&str]) {
    let rest = shows(fake, args);
    assert!(!rest.lines().any(|line| line.trim_start().starts_with("FORGED")), "{args:?}: {rest}");
}

fn evil() -> String {
    EVIL.to_owned()
}

/// One whose every word is evil.
fn evil_instance(name: &str) -> Instance {
    let mut evil_one = instance(name, Phase::Unhealthy, 18_789);
    let told = status(&mut evil_one);
    (told.reason, told.hint, told.runtime_note) = (evil(), evil(), evil());
    told.failover = Some(FailoverStatus {
        role: Role::Rescued.into(),
        active: evil(),
        rescued_by: vec![evil()],
        active_for: vec![evil()],
        reason: evil(),
        ..Default::default()
    });
    told.health = Some(Health { failing: vec![evil()], message: evil(), ..Default::default() });
    told.config = Some(ConfigStatus {
        content: evil(),
        running: evil(),
        good: evil(),
        degraded: true,
        rejected: Some(ConfigRejection { content: evil(), reason: evil(), ..Default::default() }),
        ..Default::default()
    });
    evil_one
}

fn evil_fake() -> Fake {
    let fake = Fake::start();
    fake.with([evil_instance("main"), evil_instance(EVIL)]);
    let mut world = fake.world();
    (world.then, world.reason) = (Then::WhenWatched(Phase::Failed), evil());
    world.alarms = vec![evil()];
    drop(world);
    fake
}

#[test]
fn a_refusal_is_shown_on_its_own_lines_and_with_no_control_of_the_terminal() {
    let fake = evil_fake();
    fake.refuse("GetInstance", Status::internal(EVIL));
    shows_in_line(&fake, &["status", "main"]);
    fake.refuse("GetInstanceEnvironment", refusal(Code::FailedPrecondition, EVIL, EVIL));
    shows_in_line(&fake, &["env", "main"]);
    for (verb, method) in [("up", "StartInstance"), ("down", "StopInstance"), ("restart", "RestartInstance")]
    {
        fake.refuse(method, refusal(Code::Aborted, "STORAGE", EVIL));
        shows_in_line(&fake, &[verb, "main"]);
    }
}

#[test]
fn instances_and_what_becomes_of_them_are_shown_with_no_control_of_the_terminal() {
    let fake = evil_fake();
    for args in [
        &["status"][..],
        &["status", "-o", "wide"],
        &["status", "main"],
        &["up"],
        &["up", "main"],
        &["up", EVIL, "--no-wait"],
        &["down"],
        &["down", "--yes"],
        &["down", "main"],
        &["restart", EVIL],
        &["maintenance", "on", EVIL],
        &["maintenance", "off", EVIL, "main"],
        &["supervisor", "status"],
    ] {
        shows_in_line(&fake, args);
    }
    // One that is new to it.
    fake.world().instances.clear();
    shows_in_line(&fake, &["up", EVIL, "--no-wait"]);
}

#[test]
fn events_snapshots_and_certificates_are_shown_with_no_control_of_the_terminal() {
    let fake = evil_fake();
    let mut world = fake.world();
    world.events = vec![Event {
        revision: 1,
        instance: evil(),
        r#type: evil(),
        message: evil(),
        time: seconds_ago(3),
        ..Default::default()
    }];
    let snapshot = Snapshot { id: evil(), note: evil(), ..Default::default() };
    world.recovery.snapshots.snapshots = vec![snapshot];
    world.recovery.diff = DiffSnapshotResponse {
        from: evil(),
        problem: evil(),
        diff: format!("+{EVIL}"),
        ..Default::default()
    };
    world.recovery.rollback = RollBackResponse { to: evil(), kept_in: evil(), ..Default::default() };
    let certificate = Certificate { name: evil(), role: evil(), serial: evil(), ..Default::default() };
    world.certificates.steps = vec![evil()];
    world.certificates.listed =
        ListCertificatesResponse { certificates: vec![certificate], ..Default::default() };
    drop(world);
    for args in [
        &["events"][..],
        &["events", "-o", "wide"],
        &["config", "snapshots", "main"],
        &["config", "snapshot", "main"],
        &["config", "mark-good", "main"],
        &["config", "rollback", "main"],
        &["config", "rollback", "main", "--yes"],
        &["cert", "init"],
        &["cert", "list"],
        &["cert", "revoke", "lab", "--yes"],
    ] {
        shows_in_line(&fake, args);
    }
    // A difference has lines of its own.
    shows(&fake, &["config", "diff", "main"]);
    for form in ["json", "yaml", "jsonl"] {
        shows(&fake, &["events", "-o", form]);
    }
}

#[test]
fn what_programs_read_is_shown_by_a_terminal_and_unchanged_in_a_pipe() {
    let fake = evil_fake();
    let content = format!("# {EVIL}\ninstances:\n  main: {{}}\n");
    fake.world().environment.variables = [("A".to_owned(), evil())].into();
    fake.world().exported.clone_from(&content);
    shows(&fake, &["env", "main"]);
    shows(&fake, &["export"]);
    assert_eq!(fake.ctl(&["env", "main"]).done(), format!("export A='{EVIL}'\n"));
    assert_eq!(fake.ctl(&["export"]).done(), content);
    assert_eq!(finish(fake.command(&["--color", "never", "export"])).done(), content);
    let json = fake.ctl(&["export", "-o", "json"]).done();
    assert_eq!(json, format!("{{\n  \"content\": {}\n}}\n", serde_json::to_string(&content).unwrap()));
}

#[test]
fn a_name_that_would_move_the_cursor_is_not_offered_to_the_shell() {
    let fake = evil_fake();
    let mut command = fake.command(&["--", "openclawctl", "status", ""]);
    command.env("OPENCLAWCTL_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2").env("_CLAP_IFS", "\n");
    let offered = finish(command).done();
    assert!(offered.contains("main") && !offered.contains("EVIL"), "{offered:?}");
}
