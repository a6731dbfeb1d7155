//! How it came to an event, and what came of it: a line each, further in with each step.

use supervisor_proto::v1::{Event, Incident};

use super::{
    events::subject,
    sheet::Sheet,
    style::{self, clause, paint, printable, stdout_width, wrapped},
    time::{Clock, ago},
};
use crate::chain::{Link, Step};

/// Steps further in than this are not indented more: the lines would have no room.
const DEEPEST: usize = 6;
/// Said where an order in time is all that is known.
const LEGEND: &str = "then: it came after that and may have come of it; that is not recorded";

/// An event, and what is known of it beside its story.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) event: &'a Event,
    /// Earlier ones that say the same, and the first of them.
    pub(crate) alike: (usize, Option<&'a Event>),
    /// During which it happened.
    pub(crate) incident: Option<&'a Incident>,
}

/// The whole story of an event.
pub(crate) fn story(told: &Told<'_>, causes: &[Step<'_>], effects: &[Step<'_>]) -> String {
    let event = told.event;
    let clock = Clock::local();
    let mut out = String::new();
    heading(told, &clock, &mut out);
    let steps = || causes.iter().chain(effects);
    let widest = steps().map(|step| subject(step.event).chars().count()).max().unwrap_or_default();
    out.push('\n');
    for step in steps() {
        let this = step.event.revision == event.revision;
        out.push_str(&line(step, this, widest, &clock));
    }
    let mut end = Vec::new();
    if steps().any(|step| step.link == Link::Then) {
        end.push(paint(style::FAINT, LEGEND));
    }
    let (label, name) = (paint(style::HINT, "hint:"), printable(&causes[0].event.instance));
    let first = causes[0].event.r#type.as_str();
    if first == "instance.exited" {
        end.push(format!("{label} openclawctl logs {name}"));
    } else if first.starts_with("instance.wished") || first == "instance.updated" {
        end.push(format!("{label} openclawctl audit {name}"));
    }
    if !end.is_empty() {
        out.push('\n');
    }
    for line in end {
        out.push_str(&wrapped(&line, stdout_width(), style::INDENT));
        out.push('\n');
    }
    out
}

fn heading(told: &Told<'_>, clock: &Clock, out: &mut String) {
    let event = told.event;
    let severity = event.severity();
    let word = paint(style::severity_style(severity), style::severity_word(severity));
    let number = paint(style::STRONG, &format!("event {}", event.revision));
    out.push_str(&format!("{number}  {word}\n"));
    let life =
        if event.incarnation == 0 { String::new() } else { format!(", incarnation {}", event.incarnation) };
    let mut sheet = Sheet::new(out);
    sheet.line("about", &format!("{}{life}", subject(event)));
    let kind = printable(&event.r#type);
    sheet.line("what", &clause(&event.message));
    if let Some(time) = &event.time {
        sheet.line("when", &format!("{} ({})", clock.time(time), ago(time)));
    }
    if !kind.is_empty() {
        sheet.line("type", &format!("{kind}: openclawctl explain {kind}"));
    }
    if let (count @ 1.., Some(first)) = told.alike {
        let since =
            first.time.as_ref().map(|at| format!(", the first at {}", clock.time(at))).unwrap_or_default();
        sheet.line("before", &format!("{count} more that say the same{since}"));
    }
    if let Some(incident) = told.incident {
        let number = incident.number;
        let cause = clause(&incident.cause);
        sheet.line(
            "incident",
            &format!("of {}, {cause}: openclawctl incident {number}", printable(&incident.instance)),
        );
    }
}

/// E.g. `> 03:12:05  main    so: started as process 5`.
fn line(step: &Step<'_>, this: bool, widest: usize, clock: &Clock) -> String {
    let event = step.event;
    let time = event.time.as_ref().map_or_else(|| "-".to_owned(), |time| clock.time(time));
    let mark = if this { ">" } else { " " };
    let whom = format!("{:widest$}", subject(event));
    let inner = " ".repeat(2 * step.depth.min(DEEPEST));
    let link = match step.link {
        Link::Begin => "",
        Link::So => "so: ",
        Link::Then => "then: ",
    };
    let look = if this { style::STRONG } else { style::PLAIN };
    let indent = 2 + time.chars().count() + 2 + widest + 2 + inner.len() + 2;
    let width = stdout_width();
    let text =
        format!("{mark} {time}  {}  {inner}{link}{}", paint(style::STRONG, &whom), clause(&event.message));
    wrapped(&paint(look, &text), width, style::hanging(indent, width)) + "\n"
}
