//! Incidents: a table of them, and everything about one.

use anstyle::Style;
use supervisor_proto::v1::{GetIncidentResponse, Incident, incident::Outcome};

use super::{
    config::{diff, short},
    events::Lines,
    sheet::Sheet,
    status::Breadth,
    style::{self, INDENT, clause, paint, printable, stdout_width, wrapped},
    table::{Cell, Side, Table, cut},
    time::{Clock, ago, between, humane, now},
};
use crate::view;

/// Of a cause in the table, when the width of the terminal leaves less, in columns.
const LEAST: usize = 16;

/// Columns that the rest of the table takes: what its widest cells have.
const USUAL_WIDTH: usize = 80;

/// The table, the newest first.
pub(crate) fn list(incidents: &[Incident]) -> String {
    if incidents.is_empty() {
        return "no incidents\n".into();
    }
    let clock = Clock::local();
    let rows: Vec<[(String, Style); 5]> = incidents.iter().map(|each| row(each, &clock)).collect();
    let titles = ["INCIDENT", "INSTANCE", "BEGAN", "LASTED", "OUTCOME"];
    let wide = |at: usize| {
        let cells = rows.iter().map(|row| row[at].0.chars().count());
        cells.fold(titles[at].len(), usize::max) + 2
    };
    let taken: usize = (0..titles.len()).map(wide).sum();
    let room = stdout_width().unwrap_or(USUAL_WIDTH).saturating_sub(taken).max(LEAST);
    let sides = [Side::Right, Side::Left, Side::Left, Side::Right, Side::Left];
    let mut table = Table::new(titles.into_iter().zip(sides).chain([("CAUSE", Side::Left)]))
        .within(stdout_width())
        .ranked(&["INCIDENT", "INSTANCE", "OUTCOME", "BEGAN"])
        .flexible("CAUSE");
    for (each, row) in incidents.iter().zip(rows) {
        let cells = row.into_iter().map(|(text, look)| Cell::styled(text, look));
        table.row(cells.chain([cut(&clause(&each.cause), room).into()]).collect());
    }
    let mut out = String::new();
    table.render(&mut out);
    for each in incidents.iter().filter(|each| view::is_open(each)) {
        out.push_str(&format!("\n{} openclawctl incident {}", paint(style::HINT, "hint:"), each.number));
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

fn row(incident: &Incident, clock: &Clock) -> [(String, Style); 5] {
    let (word, look) = outcome(incident);
    [
        (incident.number.to_string(), style::STRONG),
        (printable(&incident.instance), style::PLAIN),
        (incident.start_time.as_ref().map_or_else(|| "-".to_owned(), |at| clock.time(at)), style::PLAIN),
        (lasted(incident).unwrap_or_else(|| "-".into()), style::PLAIN),
        (word.into(), look),
    ]
}

/// How long it has lasted so far, or until its end.
fn lasted(incident: &Incident) -> Option<String> {
    let begun = incident.start_time.as_ref()?;
    match &incident.end_time {
        Some(end) => Some(humane(between(begun, end))),
        None => view::is_open(incident).then(|| humane(between(begun, &now()))),
    }
}

fn outcome(incident: &Incident) -> (&'static str, Style) {
    match incident.outcome() {
        Outcome::GivenUp => ("given up", style::BAD),
        Outcome::Open => ("open", style::WARNING),
        Outcome::FailedBack => ("failed back", style::GOOD),
        Outcome::Cancelled => ("recovered", style::GOOD),
        Outcome::Ready => ("ready again", style::GOOD),
        Outcome::Deleted => ("deleted", style::FAINT),
        Outcome::Unrecorded | Outcome::Unspecified => ("over", style::FAINT),
    }
}

/// Everything about one.
pub(crate) fn one(answer: &GetIncidentResponse, breadth: Breadth) -> String {
    let clock = Clock::local();
    let mut out = String::new();
    let incident = answer.incident.clone().unwrap_or_default();
    heading(&incident, &clock, &mut out);
    let section =
        |title: &str, out: &mut String| out.push_str(&format!("\n{}\n", paint(style::STRONG, title)));
    if !answer.timeline.is_empty() {
        section("Timeline", &mut out);
        out.push_str(&Lines::new(breadth).text(&answer.timeline));
        if answer.timeline_cut {
            out.push_str("there was more between them: openclawctl events --after N\n");
        }
    }
    for rollback in &answer.rollbacks {
        let at = rollback.time.as_ref().map(|at| format!(" at {}", clock.time(at))).unwrap_or_default();
        let (from, to) = (short(&rollback.from), short(&rollback.to));
        section(&format!("Configuration {from} was taken back for {to}{at}"), &mut out);
        out.push_str(&wrapped(&clause(&rollback.reason), stdout_width(), INDENT));
        out.push('\n');
        out.push_str(&diff(&rollback.diff));
    }
    if !answer.log.is_empty() {
        section(&format!("End of the log of {}", printable(&incident.instance)), &mut out);
        for line in &answer.log {
            out.push_str(&printable(&String::from_utf8_lossy(&line.text)));
            out.push('\n');
        }
    }
    out
}

fn heading(incident: &Incident, clock: &Clock, out: &mut String) {
    let (word, look) = outcome(incident);
    let number = paint(style::STRONG, &format!("incident {}", incident.number));
    let lasted = lasted(incident).map(|lasted| match incident.outcome() {
        Outcome::Open => format!(" for {lasted}"),
        Outcome::GivenUp => format!(", open for {lasted}"),
        Outcome::Unspecified
        | Outcome::FailedBack
        | Outcome::Cancelled
        | Outcome::Ready
        | Outcome::Deleted
        | Outcome::Unrecorded => format!(" after {lasted}"),
    });
    out.push_str(&format!("{number}  {}{}\n", paint(look, word), lasted.unwrap_or_default()));
    let name = printable(&incident.instance);
    let mut sheet = Sheet::new(out);
    sheet.line("instance", &name);
    sheet.line("cause", &clause(&incident.cause));
    let told = |at| format!("{} ({})", clock.time(at), ago(at));
    sheet.line("began", &incident.start_time.as_ref().map(told).unwrap_or_default());
    sheet.line("ended", &incident.end_time.as_ref().map(told).unwrap_or_default());
    sheet.line("rescue", &printable(&incident.rescues.join(", then ")));
    if incident.quarantined {
        sheet.line("", "all was tried, and it was given up");
    }
    if view::is_open(incident) {
        sheet.line("to do", &format!("openclawctl status {name}"));
    }
}
