//! `openclawctl status --watch`, on a terminal and in pipes.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use supervisor_proto::v1::{Phase, Resources};

use crate::{
    fake::{Fake, instance, status},
    top::{Top, USUAL},
};

/// One that runs in a pipe.
struct Piped {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Piped {
    fn start(fake: &Fake, args: &[&str]) -> Self {
        let mut child = fake.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// All lines up to the one that begins so.
    fn through(&mut self, begin: &str) -> String {
        let mut text = String::new();
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "{begin:?} has not come: {text}");
            text.push_str(&line);
            if line.starts_with(begin) {
                return text;
            }
        }
    }

    /// Ctrl-C; how it ends.
    fn interrupt(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
        self.child.wait().unwrap().code()
    }
}

fn fails(fake: &Fake, name: &str) {
    fake.change(|world| {
        let known = world.instances.get_mut(name).unwrap();
        status(known).phase = Phase::Failed.into();
        status(known).reason = "the port is taken.".into();
        status(known).revision += 1;
    });
}

fn fleet() -> Fake {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789), instance("web", Phase::Ready, 18_809)]);
    fake
}

#[test]
fn the_same_lines_are_written_again_and_the_last_picture_stays() {
    let fake = fleet();
    let mut watch = Top::start_as(&fake, &["status", "--watch"], &USUAL);
    let first = watch.shows("2 instances: 2 ready; all is as wished");
    assert!(first.starts_with("NAME  STATE    ROLE"), "{first}");
    fails(&fake, "web");
    let then = watch.shows("2 instances: 1 ready, 1 failed; 1 needs a look");
    assert!(then.contains("\nweb   ✗ failed") && then.contains("\n  the port is taken  hint: "), "{then}");
    assert_eq!(then.matches("NAME").count(), 1, "{then}");
    watch.resize(40, 12);
    let narrow = watch.until("a narrow one", |screen| !screen.contains("ROLE") && screen.contains("Ctrl-C"));
    assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    assert_eq!(narrow.matches("NAME").count(), 1, "{narrow}");
    watch.press("\u{3}");
    assert_eq!(watch.leaves(), Some(0));
    let last = watch.screen();
    assert!(last.contains("2 instances: 1 ready") && last.contains("NAME"), "{last}");
}

#[test]
fn while_the_supervisor_is_away_what_is_shown_is_old_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start_in(directory.path());
    fake.with([instance("main", Phase::Ready, 18_789)]);
    let watch = Top::start_as(&fake, &["status", "--watch"], &USUAL);
    watch.shows("1 instance: 1 ready");
    drop(fake);
    let away = watch.shows("alarm: no supervisor since");
    assert!(away.split_whitespace().collect::<Vec<_>>().join(" ").contains("what is shown is old"), "{away}");
    assert!(away.contains("1 instance: 1 ready"), "{away}");
    let next = Fake::start_in(directory.path());
    next.with([instance("web", Phase::Failed, 18_789)]);
    let back = watch.shows("1 instance: 1 failed");
    assert!(!back.contains("alarm"), "{back}");
}

#[test]
fn a_long_call_says_on_a_terminal_that_it_goes_on() {
    let fake = fleet();
    fake.world().held = true;
    let mut doctor = Top::start_as(&fake, &["doctor"], &USUAL);
    doctor.until("a time", |screen| screen.contains("s  examine"));
    fake.change(|world| world.held = false);
    let told = doctor.shows("all well: ");
    assert_eq!(doctor.leaves(), Some(0));
    assert!(told.starts_with("all well"), "{told}");
}

#[test]
fn what_one_uses_is_drawn_as_it_changes() {
    let fake = fleet();
    let watch = Top::start_as(&fake, &["status", "main", "--watch"], &USUAL);
    for (cpu_percent, rss_bytes) in [(1.0, 10 << 20), (80.0, 20 << 20)] {
        fake.change(|world| {
            let main = status(world.instances.get_mut("main").unwrap());
            main.resources = Some(Resources { cpu_percent, rss_bytes, processes: 1, ..Resources::default() });
        });
        watch.shows(&format!("{cpu_percent:.1}%"));
    }
    watch.shows("█ 80.0%, 1 process");
    // A screen that is looked at may be half drawn.
    watch.shows("█ 20 MiB");
    watch.shows("Last events");
}

#[test]
fn in_a_pipe_a_table_comes_when_something_has_changed() {
    let fake = fleet();
    let mut watch = Piped::start(&fake, &["status", "--watch"]);
    let first = watch.through("2 instances");
    assert!(first.contains("\nmain  ready") && !first.contains('\u{1b}'), "{first}");
    // Figures are no change.
    fake.change(|world| {
        let main = status(world.instances.get_mut("main").unwrap());
        main.resources = Some(Resources { cpu_percent: 9.0, ..Resources::default() });
    });
    fails(&fake, "web");
    let second = watch.through("2 instances");
    assert!(second.starts_with('\n') && second.contains("\nweb   failed"), "{second}");
    assert_eq!(watch.interrupt(), Some(0));
}

#[test]
fn programs_are_told_each_instance_and_again_when_it_changes() {
    let fake = fleet();
    let mut watch = Piped::start(&fake, &["status", "--watch", "-o", "json"]);
    let read = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let names: Vec<Value> = (0..2).map(|_| read(&watch.line())["name"].clone()).collect();
    assert_eq!(names, ["main", "web"]);
    fails(&fake, "web");
    let changed = read(&watch.line());
    assert_eq!((&changed["name"], &changed["status"]["phase"]), (&"web".into(), &"PHASE_FAILED".into()));
    fake.delete("web");
    let gone = read(&watch.line());
    assert_eq!((&gone["name"], &gone["status"]), (&"web".into(), &Value::Null));
    assert_eq!(watch.interrupt(), Some(0));
}

#[test]
fn only_those_that_are_named_are_told_and_an_unknown_name_is_refused() {
    let fake = fleet();
    let mut watch = Piped::start(&fake, &["status", "--watch", "-o", "jsonl", "web"]);
    assert!(watch.line().contains("\"name\":\"web\""));
    fails(&fake, "main");
    fails(&fake, "web");
    assert!(watch.line().contains("PHASE_FAILED"));
    assert_eq!(watch.interrupt(), Some(0));
    let ran = fake.ctl(&["status", "--watch", "wbe"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.contains("did you mean `web`?"), "{ran:?}");
}
