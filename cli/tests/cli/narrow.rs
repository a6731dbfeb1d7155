//! Small windows, terminals without UTF-8, and no colours.

use supervisor_proto::v1::*;

use crate::{
    ctl::ctl,
    fake::{Fake, instance, seconds_ago, status},
    terminal::on_terminal_of,
};

const UTF8: &[(&str, &str)] = &[("LANG", "C.UTF-8"), ("TERM", "xterm")];

/// The lines that a terminal of so many columns is told, as they come.
fn lines(fake: &Fake, columns: u16, args: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let mut command = fake.command(args);
    command.envs(variables.iter().copied());
    let told = on_terminal_of(columns, command);
    // The answer that the terminal was given comes back from it.
    told.replace("\r\n", "\n").lines().filter(|line| *line != "n").map(str::to_owned).collect()
}

fn plain(line: &str) -> String {
    anstream::adapter::strip_str(line).to_string()
}

/// A fleet in trouble, with long numbers.
fn fleet() -> Fake {
    let fake = Fake::start();
    let mut main = instance("main", Phase::Failed, 18_789);
    status(&mut main).reason = "port 18789 is taken by process 4194303, which is nobody's we know.".into();
    status(&mut main).hint = "openclawctl ports".into();
    let mut web = instance("a-name-of-middling-length", Phase::Ready, 28_789);
    status(&mut web).pid = 4_194_303;
    status(&mut web).phase_time = seconds_ago(86_400 * 300 + 3_600 * 5);
    status(&mut web).resources =
        Some(Resources { cpu_percent: 123.4, rss_bytes: 34 << 30, processes: 12, ..Default::default() });
    fake.with([main, web]);
    let mut world = fake.world();
    world.events = vec![Event {
        revision: 12_345_678,
        instance: "main".into(),
        incarnation: 17,
        r#type: "instance.exited".into(),
        severity: Severity::Warning.into(),
        message: "exited with status 1; 12 processes that it had left were killed.".into(),
        time: seconds_ago(86_400 * 40),
    }];
    let port = |port, pid| PortUse { port, pid, purpose: "gateway".into(), ..Default::default() };
    world.ports = vec![InstancePorts {
        instance: "main".into(),
        base: 18_789,
        last: 18_808,
        ports: vec![port(18_789, 4_194_303)],
    }];
    drop(world);
    fake
}

#[test]
fn in_40_columns_no_line_is_broken_within_a_number() {
    let fake = fleet();
    for args in [
        &["status"][..],
        &["status", "-o", "wide"],
        &["status", "main"],
        &["status", "a-name-of-middling-length", "main"],
        &["events"],
        &["events", "-o", "wide"],
        &["events", "--explain", "last"],
        &["ports"],
        &["ports", "-o", "wide"],
        &["explain"],
        &["explain", "PORT_OVERLAP"],
        &["context", "list"],
        &["runtimes"],
        &["supervisor", "status"],
        &["version"],
    ] {
        for line in lines(&fake, 40, args, UTF8).iter().map(|line| plain(line)) {
            // A command or a path stands on a line of its own: it is copied.
            let is_one = line.trim_start().starts_with(['/', '`']) || line.contains("openclawctl ");
            let is_path = line.contains("  /") || line.contains("(/");
            assert!(line.chars().count() <= 40 || is_one || is_path, "{args:?}: {line:?}");
        }
    }
}

#[test]
fn columns_come_and_go_with_the_window() {
    let fake = fleet();
    let heading = |columns| plain(&lines(&fake, columns, &["status"], UTF8)[0]);
    assert_eq!(heading(40).split_whitespace().collect::<Vec<_>>(), ["NAME", "STATE"]);
    assert!(heading(60).contains(" PORT ") && heading(60).ends_with(" FOR"), "{}", heading(60));
    assert!(heading(200).ends_with("RUNTIME"), "{}", heading(200));
    let wide = lines(&fake, 80, &["status", "-o", "wide"], UTF8).join("\n");
    assert!(wide.contains("the window has no room for "), "{wide}");
}

#[test]
fn a_terminal_without_utf8_is_told_in_ascii() {
    let fake = fleet();
    fake.change(|world| {
        let main = status(world.instances.get_mut("main").unwrap());
        main.reason = "the path /ü/… is “shared” – with whom → nobody knows.".into();
    });
    for args in [&["status"][..], &["status", "main"], &["explain"], &["events"]] {
        let told = lines(&fake, 60, args, &[("LANG", "C"), ("TERM", "xterm")]).join("\n");
        assert!(told.is_ascii(), "{args:?}: {told}");
    }
    let told = lines(&fake, 100, &["status"], &[("LANG", "C"), ("TERM", "xterm")]).join("\n");
    assert!(told.contains("the path /?/~ is \"shared\" - with whom > nobody knows"), "{told}");
    let told = lines(&fake, 100, &["status"], UTF8).join("\n");
    assert!(told.contains("✗ failed") && told.contains("/ü/… is “shared”"), "{told}");
}

#[test]
fn no_color_is_heeded_on_a_terminal_and_by_the_watch() {
    let fake = fleet();
    let coloured = |variables: &[(&str, &str)]| {
        lines(&fake, 80, &["status"], &[UTF8, variables].concat()).concat().contains('\u{1b}')
    };
    assert!(coloured(&[]));
    assert!(!coloured(&[("NO_COLOR", "1")]));
}

#[test]
fn who_has_no_supervisor_or_no_instance_yet_is_told_the_first_steps() {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = ctl(nowhere.path(), &["status"]);
    command.envs(UTF8.iter().copied());
    let told = on_terminal_of(40, command).replace("\r\n", "\n");
    assert!(told.contains("`openclawctl") && told.contains("supervisor start`"), "{told}");
    let told = lines(&Fake::start(), 40, &["status"], UTF8).join("\n");
    assert!(told.contains("openclawctl up main") && told.contains("openclawctl import"), "{told}");
}
