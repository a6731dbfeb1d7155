//! What `status` shows, to people and to programs.

use serde_json::Value;
use supervisor_proto::v1::{Event, Exit, Instance, LadderStatus, Phase, Role, Severity, exit::How};

use crate::fake::{Fake, instance, seconds_ago, status};

/// main has died and rescue stands in for it; canvas-demo cannot run.
fn troubled() -> [Instance; 3] {
    let mut main = instance("main", Phase::Backoff, 18_789);
    let seen = status(&mut main);
    seen.restarts = 2;
    seen.reason = "killed by SIGKILL.".into();
    seen.ladder = Some(LadderStatus { deaths: 4, ..Default::default() });
    seen.runtime_note = "OpenClaw is not installed; the built-in gateway runs.".into();
    let failover = seen.failover.get_or_insert_default();
    failover.role = Role::Rescued.into();
    failover.rescued_by = vec!["rescue".into()];
    failover.active = "rescue".into();
    failover.reason = "main was killed by SIGKILL.".into();
    failover.since = seconds_ago(12);

    let mut rescue = instance("rescue", Phase::Ready, 19_789);
    let seen = status(&mut rescue);
    seen.runtime_note = "OpenClaw is not installed; the built-in gateway runs.".into();
    let failover = seen.failover.get_or_insert_default();
    failover.role = Role::Active.into();
    failover.active_for = vec!["main".into()];
    failover.since = seconds_ago(12);

    let mut demo = instance("canvas-demo", Phase::Failed, 18_809);
    status(&mut demo).reason = "the configuration cannot be read: line 3, column 7.".into();
    status(&mut demo).hint = "openclawctl logs canvas-demo -n 20".into();
    [main, rescue, demo]
}

/// Times of day and elapsed times differ from run to run.
fn without_times(text: &str) -> String {
    let shape =
        |word: &str| word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    text.split_inclusive([' ', '\n', '('])
        .map(|word| {
            let shaped = shape(word.trim_end());
            if shaped.trim_end_matches(['s', ')', ':']) == "00:00:00" {
                word.replace(word.trim_end(), "TIME")
            } else {
                word.to_owned()
            }
        })
        .collect()
}

#[test]
fn the_table_fits_80_columns_and_tells_below_it_what_is_not_well_and_what_to_type() {
    let fake = Fake::start();
    fake.with(troubled());
    let text = fake.ctl(&["status"]).done();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let expected = "\
NAME         STATE    ROLE      PID   PORT    FOR  UPTIME  RESTARTS
canvas-demo  failed   -           -  18809  3m 5s       -         0
  the configuration cannot be read: line 3, column 7
  hint: openclawctl logs canvas-demo -n 20
main         backoff  rescued     -  18789  3m 5s       -         2
  killed by SIGKILL; 4 deaths in a row
  rescue stands in for main since TIME (12s ago): main was killed by SIGKILL
  hint: openclawctl logs main
rescue       ready    active   4789  19789  3m 5s   3m 5s         0

note: OpenClaw is not installed; the built-in gateway runs
3 instances: 1 ready, 1 backoff, 1 failed; 2 need a look
";
    // A loaded machine may take a second or two between arranging and asking.
    let text = without_times(&text).replace("13s ago", "12s ago").replace("14s ago", "12s ago");
    let text = text.replace("3m 6s", "3m 5s").replace("3m 7s", "3m 5s");
    assert_eq!(text, expected);
}

#[test]
fn alarms_of_the_supervisor_come_before_the_table() {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789)]);
    fake.world().alarms.push("the disk is full; nothing new is durable.".into());
    let text = fake.ctl(&["status"]).done();
    assert!(text.starts_with("alarm: the disk is full; nothing new is durable\n\nNAME"), "{text}");
    assert!(text.ends_with("\n1 instance: 1 ready; all is as wished\n"), "{text}");
}

#[test]
fn an_empty_fleet_is_told_with_what_to_type() {
    let fake = Fake::start();
    let text = fake.ctl(&["status"]).done();
    assert!(text.starts_with("0 instances\nhint: openclawctl up main "), "{text}");
    assert!(text.contains("openclawctl setup") && text.contains("openclawctl import"), "{text}");
}

#[test]
fn a_process_that_runs_an_older_spec_is_pointed_out() {
    let fake = Fake::start();
    let mut main = instance("main", Phase::Ready, 18_789);
    status(&mut main).generation = 2;
    fake.with([main]);
    let text = fake.ctl(&["status"]).done();
    assert!(
        text.contains("\n  runs an older spec than was asked for\n  hint: openclawctl restart main\n"),
        "{text}"
    );
}

#[test]
fn many_that_are_not_well_do_not_bury_the_table() {
    let fake = Fake::start();
    fake.with((0..30).map(|at| instance(&format!("web-{at:02}"), Phase::Failed, 20_000 + 20 * at)));
    let text = fake.ctl(&["status"]).done();
    assert_eq!(text.matches("hint:").count(), 20);
    assert!(
        text.contains("and 10 more that need a look: openclawctl status NAME\n") && text.contains("web-29"),
        "{text}"
    );
}

#[test]
fn one_that_runs_and_dies_again_and_again_is_not_taken_for_well() {
    let fake = Fake::start();
    let mut main = instance("main", Phase::Ready, 18_789);
    status(&mut main).ladder = Some(LadderStatus { deaths: 3, ..Default::default() });
    status(&mut main).trouble_time = seconds_ago(600);
    let exit = Exit { message: "exited with status 1".into(), ..Default::default() };
    status(&mut main).last_exit = Some(exit);
    fake.with([main, instance("also", Phase::Ready, 18_809)]);
    let text = fake.ctl(&["status"]).done();
    let told = "\n  keeps dying: 3 deaths in a row within 10m; the last: exited with status 1\n  hint: openclawctl logs main\nalso ";
    assert!(text.contains(told), "{text}");
    assert!(text.ends_with("\n2 instances: 2 ready; 1 needs a look\n"), "{text}");
}

#[test]
fn wide_adds_columns() {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789)]);
    let text = fake.ctl(&["status", "-o", "wide"]).done();
    let heading = text.lines().next().unwrap();
    for column in ["NAME", "RESTARTS", "BLOCK", "CPU", "MEMORY", "INCARNATION", "RUNTIME"] {
        assert!(heading.contains(column), "{text}");
    }
    assert!(text.contains("18789-18808") && text.contains("builtin"), "{text}");
}

#[test]
fn one_instance_is_told_wholly() {
    let fake = Fake::start();
    let [mut main, rescue, _] = troubled();
    status(&mut main).incarnation = 9;
    status(&mut main).last_exit = Some(Exit {
        incarnation: 9,
        how: Some(How::Signal(9)),
        core_dumped: false,
        time: seconds_ago(13),
        message: "killed by SIGKILL".into(),
        out_of_memory: false,
    });
    fake.with([main, rescue]);
    fake.world().events.extend((1..9).map(|revision| Event {
        revision,
        instance: "main".into(),
        time: seconds_ago(20),
        severity: Severity::Warning.into(),
        message: format!("event {revision}."),
        ..Default::default()
    }));
    for (at, event) in fake.world().events.iter_mut().enumerate().take(4) {
        (event.r#type, event.incarnation) = ("instance.exited".into(), 5 + at as u64);
    }
    let text = without_times(&fake.ctl(&["status", "main"]).done());
    for line in [
        "main  backoff for 3m",
        "  why         killed by SIGKILL\n",
        "  to do       openclawctl logs main\n",
        "  wish        up\n",
        "  role        rescued, rescued by rescue\n",
        "  failover    rescue stands in for main since TIME (1",
        "  last exit   killed by SIGKILL, TIME (1",
        "ago), incarnation 9\n              event 4, TIME (2",
        "ago), incarnation 8\n              event 3, TIME (2",
        "  runtime     builtin: OpenClaw is not installed; the built-in gateway runs\n",
        "  ports       18789 to 18808\n              18789 gateway\n              18791 browser control\n",
        "              18800 to 18808 CDP\n",
        "Last events\n  TIME  warning  event 4\n",
        "  TIME  warning  event 8\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    fake.change(|world| status(world.instances.get_mut("main").unwrap()).last_exit = None);
    let later = without_times(&fake.ctl(&["status", "main"]).done());
    assert!(later.contains("  last exit   event 4, TIME (2"), "{later}");
    assert!(!text.contains("event 2") && !text.contains("warning  event 3"), "{text}");
}

#[test]
fn json_is_the_proto_json_with_all_fields_in_a_stable_order() {
    let fake = Fake::start();
    fake.with(troubled());
    let first = fake.ctl(&["status", "-o", "json"]).done();
    assert_eq!(first, fake.ctl(&["status", "-o", "json"]).done());
    let list: Value = serde_json::from_str(&first).unwrap();
    // All pages in one list, 64-bit numbers as strings, enums by name, defaults present.
    assert_eq!(list["instances"].as_array().unwrap().len(), 3);
    assert_eq!(list["revision"], "10");
    let main = &list["instances"][1];
    assert_eq!(main["name"], "main");
    assert_eq!(main["status"]["phase"], "PHASE_BACKOFF");
    assert_eq!(main["status"]["incarnation"], "1");
    assert_eq!(main["status"]["pid"], 0);
    assert_eq!(main["status"]["failover"]["rescuedBy"], serde_json::json!(["rescue"]));
}

#[test]
fn json_of_one_instance_is_the_instance() {
    let fake = Fake::start();
    fake.with(troubled());
    let one: Value = serde_json::from_str(&fake.ctl(&["status", "rescue", "-o", "json"]).done()).unwrap();
    assert_eq!(one["name"], "rescue");
    let lines = fake.ctl(&["status", "-o", "jsonl"]).done();
    let names: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].clone()).collect();
    assert_eq!(names, ["canvas-demo", "main", "rescue"]);
    let yaml: Value = serde_yaml::from_str(&fake.ctl(&["status", "rescue", "-o", "yaml"]).done()).unwrap();
    assert_eq!(yaml, one);
}

#[test]
fn colour_is_for_terminals_unless_asked_for_and_no_color_is_heeded() {
    let fake = Fake::start();
    fake.with(troubled());
    let coloured = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = fake.command(args);
        command.envs(variables.iter().copied());
        crate::ctl::finish(command).done().contains('\x1b')
    };
    assert!(!coloured(&["status"], &[]));
    assert!(coloured(&["status", "--color", "always"], &[]));
    assert!(coloured(&["status"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&["status"], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(!coloured(&["status", "--color", "never"], &[("CLICOLOR_FORCE", "1")]));
}

#[test]
fn text_from_elsewhere_cannot_move_the_cursor() {
    let fake = Fake::start();
    let mut main = instance("main", Phase::Failed, 18_789);
    status(&mut main).reason = "bad \x1b[2Jthing\r\nfake line".into();
    fake.with([main]);
    let text = fake.ctl(&["status", "--color", "always"]).done();
    assert!(!text.contains("\x1b[2J") && !text.contains('\r') && !text.contains("\nfake"), "{text:?}");
}
