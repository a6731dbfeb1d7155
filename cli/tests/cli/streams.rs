//! Logs and events: bytes as they are, loss told, and streams that outlive a supervisor.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use supervisor_proto::v1::{Event, LogLine, Phase, Severity};

use crate::{
    ctl::{finish, until},
    fake::{Fake, instance, seconds_ago},
};

fn line(text: &[u8], cursor: &str) -> LogLine {
    LogLine { text: text.to_vec(), cursor: cursor.into(), time: seconds_ago(1), ..Default::default() }
}

fn with_logs(batches: impl IntoIterator<Item = Vec<LogLine>>) -> Fake {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789)]);
    fake.world().logs.extend(batches);
    fake
}

/// Main is killed, and started again.
fn killed() -> Fake {
    let fake = Fake::start();
    let event = |revision, kind: &str, severity: Severity, message: &str| Event {
        revision,
        instance: "main".into(),
        incarnation: 1,
        r#type: kind.into(),
        severity: severity.into(),
        message: message.into(),
        time: seconds_ago(60 - revision),
    };
    fake.world().events = vec![
        event(3, "instance.exited", Severity::Warning, "killed by SIGKILL."),
        event(7, "instance.ready", Severity::Info, "ready 5ms after its start."),
        event(11, "instance.exited", Severity::Warning, "killed by SIGKILL."),
        event(12, "instance.backing_off", Severity::Info, "will be started again in 1s."),
        event(14, "instance.started", Severity::Info, "started as process 5."),
    ];
    fake
}

#[test]
fn an_event_is_explained_by_what_led_to_it_and_what_came_of_it() {
    let fake = killed();
    let text = fake.ctl(&["events", "--explain", "12"]).done();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "event 12  info");
    assert!(
        text.contains("  type        instance.backing_off: openclawctl explain instance.backing_off\n"),
        "{text}"
    );
    let story: Vec<&str> =
        lines.iter().filter_map(|line| line.split_once("  main  ")).map(|(_, told)| told).collect();
    assert_eq!(
        story,
        ["killed by SIGKILL", "  so: will be started again in 1s", "    so: started as process 5"]
    );
    assert!(text.contains("\n> ") && text.ends_with("\nhint: openclawctl logs main\n"), "{text}");
}

#[test]
fn the_last_warning_is_found_and_an_event_that_is_not_there_is_refused() {
    let fake = killed();
    let text = fake.ctl(&["events", "main", "--explain", "last"]).done();
    assert!(
        text.starts_with("event 11  warning\n") && text.contains("  before      1 more that say the same"),
        "{text}"
    );
    let json = fake.ctl(&["events", "--explain", "11", "-o", "json"]).done();
    let list: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(list["events"].as_array().unwrap().len(), 3, "{json}");
    let ran = fake.ctl(&["events", "--explain", "13"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.ends_with("there is no such event\nhint: openclawctl events -o wide\n"), "{ran:?}");
    assert_eq!(fake.ctl(&["events", "--explain", "main"]).code, Some(2));
}

#[test]
fn logs_are_the_bytes_that_were_printed_and_loss_is_told_beside_them() {
    let gap = LogLine { gap_bytes: 3 << 20, cursor: "2".into(), ..Default::default() };
    let fake = with_logs([vec![line(b"\x1b[1mone\x1b[0m \xff", "1"), gap, line(b"two", "3")]]);
    let output = fake.command(&["logs", "main"]).output().unwrap();
    assert_eq!(output.stdout, b"\x1b[1mone\x1b[0m \xff\ntwo\n");
    assert_eq!(output.stderr, b"(3 MiB were rotated away before they were read)\n");
    assert_eq!(fake.world().log_requests[0].tail, Some(100));
}

#[test]
fn log_options_are_passed_on() {
    let fake = with_logs([]);
    fake.ctl(&["logs", "main", "-n", "7"]).done();
    fake.ctl(&["logs", "main", "-n", "all"]).done();
    fake.ctl(&["logs", "main", "--since", "5m"]).done();
    let world = fake.world();
    let [seven, all, since] = world.log_requests.as_slice() else { panic!("{:?}", world.log_requests) };
    assert_eq!((seven.tail, seven.since), (Some(7), None));
    assert_eq!((all.tail, all.since), (None, None));
    assert!(since.tail.is_none() && since.since.unwrap().seconds <= seconds_ago(300).unwrap().seconds);
}

#[test]
fn a_followed_log_goes_on_after_its_last_cursor_when_the_stream_breaks() {
    let fake = with_logs([vec![line(b"one", "c1")], vec![line(b"two", "c2")]]);
    let mut child =
        fake.command(&["logs", "main", "-f"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    child.kill().unwrap();
    child.wait().unwrap();
    let mut told = String::new();
    child.stderr.unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told, "the supervisor is gone; waiting for it to come back\nthe supervisor is back\n");
    let world = fake.world();
    assert_eq!(world.log_requests[0].after_cursor, "");
    assert_eq!(world.log_requests[1].after_cursor, "c1");
}

#[test]
fn timestamps_go_before_each_line() {
    let fake = with_logs([vec![line(b"one", "1")]]);
    let text = fake.ctl(&["logs", "main", "-t"]).done();
    let (stamp, rest) = text.split_once("  ").unwrap();
    assert!(stamp.ends_with("+00:00") && stamp.len() == "2026-01-01T00:00:00.000+00:00".len(), "{text}");
    assert_eq!(rest, "one\n");
}

fn event(revision: u64, name: &str, severity: Severity, message: &str) -> Event {
    Event {
        revision,
        time: seconds_ago(1),
        instance: name.into(),
        severity: severity.into(),
        message: message.into(),
        r#type: "instance.exited".into(),
        ..Default::default()
    }
}

fn with_events() -> Fake {
    let fake = Fake::start();
    fake.world().events = vec![
        event(3, "", Severity::Info, "the supervisor began."),
        event(7, "main", Severity::Warning, "killed by SIGKILL."),
    ];
    fake
}

#[test]
fn events_are_lines_of_time_name_severity_and_message() {
    let fake = with_events();
    let text = fake.ctl(&["events"]).done();
    let rest: Vec<&str> = text.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(rest, ["supervisor  info     the supervisor began", "main        warning  killed by SIGKILL"]);
    let wide = fake.ctl(&["events", "-o", "wide", "--after", "3"]).done();
    assert!(wide.starts_with("       7  ") && wide.contains("instance.exited"), "{wide}");
    let json: serde_json::Value = serde_json::from_str(&fake.ctl(&["events", "-o", "json"]).done()).unwrap();
    assert_eq!(json["events"][1]["revision"], "7");
}

#[test]
fn events_of_nobody_are_a_name_typed_wrong_unless_there_are_some() {
    let fake = with_events();
    let wrong = fake.ctl(&["events", "mian"]);
    assert_eq!(wrong.code, Some(4), "{wrong:?}");
    assert!(wrong.out.is_empty() && wrong.err.contains("mian"), "{wrong:?}");
    fake.world().events.push(event(8, "gone", Severity::Info, "deleted."));
    assert!(fake.ctl(&["events", "gone"]).done().contains("deleted"));
}

#[test]
fn followed_events_go_on_where_the_list_ended_and_after_each_break() {
    let fake = with_events();
    let mut child = fake
        .command(&["events", "-f", "-o", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let revisions: Vec<String> = lines
        .take(4)
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
        .map(|event| event["revision"].as_str().unwrap().to_owned())
        .collect();
    // The fake breaks each watch after one event.
    assert_eq!(revisions, ["3", "7", "8", "9"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let many = (0..20_000).map(|at| line(format!("line {at}").as_bytes(), "x")).collect();
    let fake = with_logs([many]);
    let mut child =
        fake.command(&["logs", "main"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    assert_eq!(first, "line 0\n");
}

#[test]
fn a_closed_pipe_is_quiet_for_tables_too() {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789)]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command: Command = fake.command(&["status"]);
    command.stdout(writer).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    finish(fake.command(&["status"])).done();
}

#[test]
fn a_reader_that_does_something_else_meanwhile_gets_all_of_it_afterwards() {
    const MESSAGES: usize = 150;
    let text = [b'x'; 100];
    let fake = with_logs([(0..MESSAGES * 100).map(|at| line(&text, &at.to_string())).collect()]);
    let mut command = fake.command(&["logs", "main", "-n", "all"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    // The pipe takes the smallest part: whoever speaks with the supervisor goes on while who prints waits.
    until("all has been taken", || fake.world().logs_taken == MESSAGES);
    let mut told = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut told).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(told.len(), MESSAGES * 100 * 101);
}
