//! Profiles that can be imported, and what an import does, as text.

use supervisor_proto::v1::ImportableProfile;

use super::{
    status::Breadth,
    style::{self, INDENT, clause, paint, printable, quoted, stdout_width, wrapped},
    table::{Cell, Side, Table},
};

/// Lines below a profile begin here.
const MARGIN: &str = "  ";

/// A table, and below it for each profile what would be done and what is in the way.
pub(crate) fn list(profiles: &[ImportableProfile], breadth: Breadth) -> String {
    if profiles.is_empty() {
        let none = "no profile of OpenClaw is here: no ~/.openclaw, no ~/.openclaw-NAME, no unit";
        return wrapped(none, stdout_width(), INDENT) + "\n";
    }
    let mut table = Table::new([
        ("NAME", Side::Left),
        ("PORT", Side::Right),
        ("RUN BY", Side::Left),
        ("SESSIONS", Side::Right),
        ("IMPORT", Side::Left),
    ])
    .within(stdout_width())
    .ranked(&["NAME", "PORT", "IMPORT", "RUN BY"]);
    for profile in profiles {
        table.row(vec![
            printable(&profile.name).into(),
            if profile.port == 0 { Cell::none() } else { profile.port.to_string().into() },
            run_by(profile).map_or_else(Cell::none, Cell::from),
            profile.sessions.to_string().into(),
            standing(profile),
        ]);
    }
    let mut text = String::new();
    table.render(&mut text);
    for profile in profiles {
        detail(profile, breadth, &mut text);
    }
    let free: Vec<&str> = profiles
        .iter()
        .filter(|one| one.instance.is_empty() && one.obstacles.is_empty())
        .map(|one| one.name.as_str())
        .collect();
    if let Some(first) = free.first() {
        text.push_str(&format!(
            "\n{} openclawctl import {}\n",
            paint(style::HINT, "hint:"),
            printable(&quoted(first))
        ));
    }
    text
}

fn run_by(profile: &ImportableProfile) -> Option<String> {
    match (profile.instance.as_str(), profile.unit_active, profile.pid) {
        ("", true, _) => Some(printable(&profile.unit)),
        ("", false, 0) => None,
        ("", false, pid) => Some(format!("process {pid}")),
        (_, _, _) => Some("this supervisor".to_owned()),
    }
}

fn standing(profile: &ImportableProfile) -> Cell {
    match (profile.instance.as_str(), profile.imported, profile.obstacles.len()) {
        ("", _, 0) => Cell::styled("possible", style::GOOD),
        ("", _, _) => Cell::styled("not possible", style::WARNING),
        (_, true, _) => "imported".into(),
        (instance, false, _) => format!("is {}", printable(instance)).into(),
    }
}

fn detail(profile: &ImportableProfile, breadth: Breadth, text: &mut String) {
    let is_taken = !profile.instance.is_empty();
    let wide = match breadth {
        Breadth::Wide => true,
        Breadth::Narrow => false,
    };
    if is_taken && !wide && profile.notes.is_empty() {
        return;
    }
    text.push('\n');
    let width = stdout_width();
    let mut line = |label: &str, what: &str| {
        text.push_str(&wrapped(&format!("{MARGIN}{label} {what}"), width, MARGIN.len() + INDENT));
        text.push('\n');
    };
    line(&paint(style::STRONG, &printable(&profile.name)), &format!("in {}", printable(&profile.state_dir)));
    if wide {
        line("config:", &printable(&profile.config));
        line("workspace:", &printable(&profile.workspace));
    }
    for obstacle in &profile.obstacles {
        line(&paint(style::WARNING, "in the way:"), &clause(obstacle));
    }
    let steps = if profile.obstacles.is_empty() { profile.steps.as_slice() } else { &[] };
    for step in steps {
        line("would", &clause(step));
    }
    for note in &profile.notes {
        line(&paint(style::FAINT, "note:"), &clause(note));
    }
}

/// What was done to one.
pub(crate) fn done(name: &str, steps: &[String], notes: &[String]) -> String {
    let width = stdout_width();
    let name = printable(name);
    let step = |step: &String| format!("{name}: {}", clause(step));
    let note = |note: &String| format!("{name}: {} {}", paint(style::FAINT, "note:"), clause(note));
    let lines = steps.iter().map(step).chain(notes.iter().map(note));
    lines.map(|line| wrapped(&line, width, INDENT) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str) -> ImportableProfile {
        ImportableProfile {
            name: name.into(),
            state_dir: format!("/home/me/.openclaw-{name}"),
            port: 18_789,
            sessions: 3,
            ..Default::default()
        }
    }

    #[test]
    fn a_list_tells_what_would_be_done_or_what_is_in_the_way() {
        let lab = ImportableProfile {
            unit: "openclaw-gateway-lab.service".into(),
            unit_active: true,
            steps: vec!["end its service".into()],
            ..profile("lab")
        };
        let own = ImportableProfile { pid: 7, obstacles: vec!["it is in the way".into()], ..profile("own") };
        let main = ImportableProfile { instance: "main".into(), imported: true, ..profile("main") };
        let text = anstream::adapter::strip_str(&list(&[lab, own, main], Breadth::Narrow)).to_string();
        let expected = "\
NAME   PORT  RUN BY                        SESSIONS  IMPORT
lab   18789  openclaw-gateway-lab.service         3  possible
own   18789  process 7                            3  not possible
main  18789  this supervisor                      3  imported

  lab in /home/me/.openclaw-lab
  would end its service

  own in /home/me/.openclaw-own
  in the way: it is in the way

hint: openclawctl import lab
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.len() <= 80));
    }
}
