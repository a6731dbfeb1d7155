use std::time::Duration;

use prost_types::Timestamp;
use ratatui::{Terminal, backend::TestBackend, style::Modifier};
use supervisor_proto::v1::{
    FailoverStatus, Health, Instance, InstanceStatus, LogLine, Phase, PortBlock, Resources, Runtime,
    WatchInstancesResponse, Wish,
    watch_instances_response::{Change, Snapshot},
};

use super::*;
use crate::{
    render::{style::Marks, time::before_now},
    top::{keys::Key, state::News},
};

const UTF8: Look = Look { marks: Marks::Shown, colored: false };
const ASCII: Look = Look { marks: Marks::Hidden, colored: false };
const COLORED: Look = Look { marks: Marks::Shown, colored: true };

/// One in a phase, for two and a half hours: that says the same for a minute.
fn instance(name: &str, phase: Phase, role: Role) -> Instance {
    let runs = matches!(phase, Phase::Ready | Phase::Unhealthy | Phase::Starting);
    let status = InstanceStatus {
        phase: phase.into(),
        wish: Wish::Up.into(),
        start_time: Some(before_now(Duration::from_secs(9_000))),
        pid: if runs { 4_100 } else { 0 },
        ports: Some(PortBlock { gateway: 18_789, ..Default::default() }),
        runtime: Runtime::Openclaw.into(),
        resources: runs.then(|| Resources { cpu_percent: 3.21, rss_bytes: 340 << 20, ..Default::default() }),
        failover: Some(FailoverStatus { role: role.into(), ..Default::default() }),
        ..Default::default()
    };
    Instance { name: name.into(), status: Some(status), ..Default::default() }
}

fn status(instance: &mut Instance) -> &mut InstanceStatus {
    instance.status.as_mut().unwrap()
}

/// Main is rescued, another has failed, and a third is not asked for.
fn usual() -> Vec<Instance> {
    let mut main = instance("main", Phase::Unhealthy, Role::Rescued);
    status(&mut main).failover.as_mut().unwrap().active = "rescue".into();
    status(&mut main).health = Some(Health { failing: vec!["telegram".into()], ..Default::default() });
    (status(&mut main).restarts, status(&mut main).reason) = (12, "telegram does not answer.".into());
    let mut lab = instance("lab", Phase::Failed, Role::Single);
    status(&mut lab).reason = "its program is missing: /opt/openclaw/bin/openclaw.".into();
    let mut old = instance("old", Phase::Stopped, Role::Single);
    status(&mut old).wish = Wish::Down.into();
    vec![instance("rescue", Phase::Ready, Role::Active), main, lab, old]
}

fn model(look: Look, instances: Vec<Instance>) -> Model {
    let mut model = Model::new(look);
    let change = Some(Change::Snapshot(Snapshot { instances }));
    model.take(News::Watched(Box::new(WatchInstancesResponse { revision: 1, change }))).unwrap();
    model
}

fn drawn(model: &mut Model, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    // Twice: the first frame tells the model how much room there is.
    for _ in 0..2 {
        terminal
            .draw(|frame| assert!(draw(model, frame.buffer_mut()).is_none_or(|at| at.x < width)))
            .unwrap();
    }
    terminal
}

/// What is seen, without the blanks at the ends of lines.
fn screen(model: &mut Model, width: u16, height: u16) -> String {
    let terminal = drawn(model, width, height);
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    let rows = cells.chunks(usize::from(width)).map(|row| row.concat().trim_end().to_owned());
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_fleet_fits_eighty_columns_with_trouble_first_and_what_to_do_below() {
    let mut model = model(UTF8, usual());
    assert_eq!(
        screen(&mut model, 80, 13),
        "\
1 of 3 ready, 2 not ready, 1 stopped; rescue stands in for main
  NAME  ▾STATE       ROLE        CPU   MEM  UPTIME RESTARTS HEALTH
> lab    ✗ failed    -             -     -       -        0 its program is miss…
  main   ▲ unhealthy rescued    3.2%  340M  2h 30m       12 telegram
  old    ○ stopped   -             -     -       -        0 -
  rescue ● ready     active     3.2%  340M  2h 30m        0 ok




lab has failed: its program is missing: /opt/openclaw/bin/openclaw
  hint: openclawctl logs lab
Enter details  e events  l log  r restart  s stop  u start  f failover  ? help"
    );
}

#[test]
fn wide_terminals_have_more_columns_and_narrow_ones_fewer() {
    let mut model = model(UTF8, usual());
    let wide = screen(&mut model, 120, 8);
    assert!(wide.contains("UPTIME RESTARTS  PORT     PID RUNTIME  HEALTH"), "{wide}");
    assert!(wide.contains("2h 30m       12 18789    4100 openclaw telegram"), "{wide}");
    assert_eq!(
        screen(&mut model, 60, 8),
        "\
1 of 3 ready, 2 not ready, 1 stopped; rescue stands in for
  NAME  ▾STATE       ROLE        CPU   MEM  UPTIME HEALTH
> lab    ✗ failed    -             -     -       - its prog…
  main   ▲ unhealthy rescued    3.2%  340M  2h 30m telegram
  old    ○ stopped   -             -     -       - -
  rescue ● ready     active     3.2%  340M  2h 30m ok
lab has failed: its program is missing:
Enter details  e events  l log  r restart  s stop  ? help"
    );
    assert_eq!(
        screen(&mut model, 20, 5),
        "\
1 of 3 ready, 2 not
  NAME  ▾STATE
> lab    ✗ failed
lab has failed: its
? help"
    );
}

#[test]
fn what_is_too_small_says_so_and_nothing_is_too_large() {
    let mut model = model(UTF8, usual());
    assert_eq!(screen(&mut model, 19, 3), "too small: 20x5\n\n");
    assert_eq!(screen(&mut model, 4, 1), "too…");
    for (width, height) in [(20, 5), (21, 12), (33, 6), (41, 13), (500, 200), (1, 1)] {
        for keys in ["", "?", "/", "r", "e", "l"] {
            let mut model = self::model(ASCII, usual());
            drawn(&mut model, width, height);
            keys.chars().for_each(|key| drop(model.key(&Key::Char(key))));
            drawn(&mut model, width, height);
        }
        model.key(&Key::Enter);
        drawn(&mut model, width, height);
        model.key(&Key::Esc);
    }
}

#[test]
fn without_utf8_there_is_nothing_but_ascii() {
    let mut instances = usual();
    instances.push(instance("busy", Phase::Starting, Role::Promoting));
    let mut model = model(ASCII, instances);
    let text = screen(&mut model, 80, 12);
    assert!(text.is_ascii(), "{text}");
    assert!(text.contains("\n> lab    x failed "), "{text}");
    assert!(text.contains("\n  NAME  *STATE "), "{text}");
    assert!(text.contains("\n  busy   ~ starting  promoting "), "{text}");
    for key in ["?", "l"] {
        model.key(&Key::Char(key.chars().next().unwrap()));
        let lines = vec![LogLine { text: "grüße".into(), ..Default::default() }];
        model.take(News::Log { page: 1, lines }).unwrap();
        assert!(screen(&mut model, 80, 12).is_ascii());
        model.key(&Key::Esc);
    }
}

#[test]
fn colours_add_and_without_them_no_cell_has_a_style() {
    let text = screen(&mut model(COLORED, usual()), 80, 12);
    assert_eq!(text, screen(&mut model(UTF8, usual()), 80, 12));
    let styled = |look: Look| {
        let terminal = drawn(&mut model(look, usual()), 80, 12);
        let cells = terminal.backend().buffer().content().to_vec();
        cells
            .into_iter()
            .filter(|cell| (cell.fg, cell.bg) != Default::default() || cell.modifier != Modifier::empty())
            .count()
    };
    assert!(styled(COLORED) > 80);
    assert_eq!(styled(UTF8), 0);
}

#[test]
fn what_an_agent_has_written_is_shown_and_forges_nothing() {
    let evil = "EVIL\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}2J\r\nFORGED\u{202e}";
    let mut one = instance(evil, Phase::Failed, Role::Rescued);
    status(&mut one).reason = evil.into();
    status(&mut one).hint = evil.into();
    status(&mut one).failover.as_mut().unwrap().active = evil.repeat(2);
    let mut model = model(UTF8, vec![one]);
    model.alarms = vec![evil.into()];
    model.link = Link::Old(Timestamp::default(), evil.into());
    let mut seen = vec![screen(&mut model, 100, 14)];
    for key in [Key::Char('r'), Key::Char('n'), Key::Enter, Key::Char('l')] {
        model.key(&key);
        let lines = vec![LogLine { text: evil.into(), ..Default::default() }];
        model.take(News::Log { page: 2, lines }).unwrap();
        seen.push(screen(&mut model, 100, 14));
    }
    model.take(News::Outcome(Err(evil.into()))).unwrap();
    seen.push(screen(&mut model, 100, 14));
    for text in seen {
        assert!(text.contains("EVIL"), "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{text:?}");
        assert!(!text.lines().any(|line| line.trim_start().starts_with("FORGED")), "{text}");
    }
}

#[test]
fn an_empty_table_says_why() {
    let mut unknown = Model::new(UTF8);
    assert!(screen(&mut unknown, 80, 10).contains("asking the supervisor"));
    let mut empty = model(UTF8, Vec::new());
    let text = screen(&mut empty, 80, 10);
    assert!(text.starts_with("0 of 0 ready\nthere are no instances; hint: openclawctl up main\n"), "{text}");
    let mut filtered = model(UTF8, usual());
    "/zzz".chars().for_each(|key| drop(filtered.key(&Key::Char(key))));
    let text = screen(&mut filtered, 80, 10);
    assert!(text.contains("0 of 4 shown: zzz") && text.contains("no name has zzz in it"), "{text}");
    assert!(text.contains("\n/zzz\n"), "{text}");
}

#[test]
fn questions_alarms_and_old_age_are_told_beside_the_table() {
    let mut model = model(UTF8, usual());
    model.alarms = vec!["the disk is full; nothing can be recorded.".into()];
    model.link = Link::Old(before_now(Duration::from_secs(90)), "the stream ended".into());
    drawn(&mut model, 80, 14);
    model.key(&Key::Char('r'));
    let text = screen(&mut model, 80, 14);
    assert!(text.starts_with(
        "1 of 3 ready, 2 not ready, 1 stopped; alarm: the disk is full; nothing can be\n    recorded; rescue stands in"
    ), "{text}");
    let [link, asked] = ["old: no answer since ", "\nrestart lab? y/n\n"].map(|part| text.find(part));
    assert!(link.is_some() && link < asked, "{text}");
    assert!(text.contains("(1m 30s ago); shown is what was then"), "{text}");
    assert!(text.ends_with("\ny yes  n no"), "{text}");
    let terminal = drawn(&mut model, 80, 14);
    let mut buffer = terminal.backend().buffer().clone();
    assert_eq!(draw(&mut model, &mut buffer).map(|at| at.x), Some(16));
}

#[test]
fn everything_about_one_is_a_page_that_scrolls() {
    let mut model = model(UTF8, usual());
    drawn(&mut model, 80, 12);
    model.key(&Key::Down);
    model.key(&Key::Enter);
    let text = screen(&mut model, 80, 12);
    assert!(
        text.starts_with(
            "main  ▲ unhealthy  details\nmain  ▲ unhealthy\n  why         telegram does not answer\n"
        ),
        "{text}"
    );
    model.take(News::Events { page: 1, events: Vec::new(), all: true }).unwrap();
    model.key(&Key::End);
    let text = screen(&mut model, 80, 12);
    assert!(text.contains("\n  ports       0 to 0\n              18789 gateway\n"), "{text}");
    model
        .take(News::Watched(Box::new(WatchInstancesResponse {
            revision: 2,
            change: Some(Change::Deleted("main".into())),
        })))
        .unwrap();
    assert!(screen(&mut model, 80, 12).contains("there is no instance called main any more"));
}

#[test]
fn of_a_thousand_only_those_that_are_seen_are_drawn() {
    let many = (0..1_000).map(|n| instance(&format!("gateway-{n:04}"), Phase::Ready, Role::Single));
    let mut model = model(UTF8, many.collect());
    drawn(&mut model, 80, 24);
    model.key(&Key::End);
    let text = screen(&mut model, 80, 24);
    assert!(text.contains("\n> gateway-0999 ● ready "), "{text}");
    assert!(!text.contains("gateway-0900"), "{text}");
}
