//! The screen: the fleet above, the table or a page, and below it what is to be said and which keys there are.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    text::Line,
};
use supervisor_proto::v1::Role;

use super::{
    fleet::Count,
    look::Look,
    page::Subject,
    state::{Link, Model, Prompt, Tone},
    table,
};
use crate::{
    render::{
        notes,
        style::{self, INDENT, clause, paint, printable, wrapped},
        time::{Clock, ago},
    },
    view,
};

/// There is nothing to be seen on less.
const LEAST: (u16, u16) = (20, 5);
/// From this height on there is room for more than one line about the fleet and about what is chosen.
const TALL: u16 = 12;
/// Lines about the fleet at most.
const MOST_HEAD: usize = 3;
/// Lines of what is to be said at most.
const MOST_SAID: usize = 4;
/// What keeps a place for it when nothing is to be said, so that the table does not jump.
const USUALLY_SAID: usize = 2;

/// What the keys do that a table has, the most needed first.
const TABLE_KEYS: [&str; 11] = [
    "Enter details",
    "e events",
    "l log",
    "r restart",
    "s stop",
    "u start",
    "f failover",
    "q quit",
    "/ filter",
    "< > sort",
    "j k move",
];
const PAGE_KEYS: [&str; 9] = [
    "q back",
    "Enter details",
    "e events",
    "l log",
    "r restart",
    "s stop",
    "u start",
    "f failover",
    "PgUp PgDn scroll",
];

const HELP: &str = "\
Keys

  up, down, j, k     choose a row, or scroll
  PgUp, PgDn, Space  the same by a screenful
  Home, End, g, G    to the first, to the last
  Enter              everything about it
  e                  what happened to it, as it happens
  l                  what it prints, as it comes
  r, s, u            restart, stop, start it; you are asked first
  f                  fail over to its rescue, or back
  /                  only names with this in them; Esc shows all
  <, >               order by another column
  q, Esc             back, or leave
  Ctrl-C             leave
  Ctrl-L             draw all of it anew
  Ctrl-Z             to the shell; fg comes back

The table

  Ordered by STATE, trouble comes first: failed, unhealthy, backoff, then what
  is on its way, then the rest.
  CPU is of one core. CPU, MEM and RESTARTS have the most first, UPTIME the
  youngest. Wide terminals have PORT, PID and RUNTIME, too.
  Below it stands what is not well with the chosen one, and what to type.";

/// The help, as lines.
pub(super) fn help(look: Look) -> Vec<Line<'static>> {
    look.painted(HELP)
}

/// Draws everything, and tells where the cursor belongs, if anywhere.
pub(crate) fn draw(model: &mut Model, buffer: &mut Buffer) -> Option<Position> {
    let area = buffer.area;
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("too small: {}x{}", LEAST.0, LEAST.1);
        put(buffer, area, vec![Line::raw(model.look.cut(&text, area.width.into()))]);
        return None;
    }
    let width = usize::from(area.width);
    let tall = area.height >= TALL;
    // What is chosen has to be known before anything is said of it.
    model.arrange(model.body.1);
    let mut head = head(model, width);
    head.truncate(if tall { MOST_HEAD } else { 1 });
    let link = link(model);
    let (most, least) = if tall { (MOST_SAID, USUALLY_SAID) } else { (1, 1) };
    let mut said = said(model, width);
    said.truncate(most);
    let (above, below) = (lines(head.len()), lines(said.len().max(least)));
    let (rest, keys) = split_below(area, 1);
    let (top, rest) = split_above(rest, above);
    let (rest, said_at) = split_below(rest, below);
    let (body, link_at) = split_below(rest, lines(link.len()));
    put(buffer, top, head);
    put(buffer, link_at, link);
    let cursor = cursor(model, &said, said_at);
    put(buffer, said_at, said);
    put(buffer, keys, vec![keys_line(model, width)]);
    draw_body(model, body, buffer);
    cursor
}

fn draw_body(model: &mut Model, area: Rect, buffer: &mut Buffer) {
    let size = (usize::from(area.width), usize::from(area.height));
    let look = model.look;
    if let Some(help) = &model.help {
        let lines = help.visible(size);
        model.body = size;
        return put(buffer, area, lines);
    }
    if let Some(page) = &mut model.page {
        let lines = page.visible(&model.fleet, look, size);
        model.body = size;
        return put(buffer, area, lines);
    }
    // The heading is one of its rows.
    model.body = (size.0, size.1.saturating_sub(1));
    model.arrange(model.body.1);
    if model.fleet.shown().is_empty() {
        let text = nothing(model);
        return put(buffer, area, look.painted(&wrapped(&text, Some(size.0), 0)));
    }
    table::draw(model, area, buffer);
}

/// Why the table is empty.
fn nothing(model: &Model) -> String {
    let filter = model.fleet.filter();
    if !model.fleet.is_known() {
        "asking the supervisor".to_owned()
    } else if model.fleet.len() > 0 {
        format!("no name has {} in it", printable(filter))
    } else {
        format!("there are no instances; {} openclawctl up main", paint(style::HINT, "hint:"))
    }
}

/// What is above the table or the page.
fn head(model: &Model, width: usize) -> Vec<Line<'static>> {
    let text = match (&model.help, &model.page) {
        (Some(_), _) => paint(style::STRONG, "openclawctl top: help"),
        (None, Some(page)) => {
            let name = page.subject.name();
            let state = model.fleet.get(name).map(|instance| state(model, instance)).unwrap_or_default();
            let how = match (&page.subject, page.is_following()) {
                (Subject::Details(_), _) => "",
                (Subject::Events(_) | Subject::Log(_), true) => ", followed",
                (Subject::Events(_) | Subject::Log(_), false) => ", not followed (End follows)",
            };
            format!("{}  {state}  {}{how}", paint(style::STRONG, &printable(name)), page.subject.what())
        }
        (None, None) => fleet(model),
    };
    model.look.painted(&wrapped(&text, Some(width), INDENT))
}

fn state(model: &Model, instance: &supervisor_proto::v1::Instance) -> String {
    let phase = view::status(instance).phase();
    let (_, look) = style::phase_look(phase);
    paint(look, &format!("{} {}", model.look.mark(phase), style::phase_word(phase)))
}

/// The fleet in a line, as long as it is well.
fn fleet(model: &Model) -> String {
    if !model.fleet.is_known() {
        return paint(style::STRONG, "openclawctl top");
    }
    let Count { ready, lacking, down } = model.fleet.count();
    let look = if lacking == 0 { style::GOOD } else { style::WARNING };
    let mut parts = vec![paint(look, &format!("{ready} of {} ready", ready + lacking))];
    if lacking > 0 {
        parts.push(paint(style::BAD, &format!("{lacking} not ready")));
    }
    if down > 0 {
        parts.push(format!("{down} stopped"));
    }
    if !model.fleet.filter().is_empty() {
        let (shown, all) = (model.fleet.shown().len(), model.fleet.len());
        parts.push(format!("{shown} of {all} shown: {}", printable(model.fleet.filter())));
    }
    let alarms =
        model.alarms.iter().map(|alarm| format!("{} {}", paint(style::ERROR, "alarm:"), clause(alarm)));
    let stand_ins = model.fleet.all().filter_map(|primary| {
        let who = match (view::failover(primary).role(), view::stand_in(primary)) {
            (_, Some(rescue)) => format!("{rescue} stands in for {}", primary.name),
            (Role::Rescued, None) => format!("{} has nobody in its place yet", primary.name),
            (_, None) => return None,
        };
        Some(paint(style::WARNING, &printable(&who)))
    });
    let mut line = parts.join(", ");
    for each in alarms.chain(stand_ins) {
        line.push_str("; ");
        line.push_str(&each);
    }
    line
}

/// Since when all that is shown is old, if it is.
fn link(model: &Model) -> Vec<Line<'static>> {
    let Link::Old(since, why) = &model.link else { return Vec::new() };
    let (when, label) = (Clock::local().time(since), paint(style::ERROR, "old:"));
    let text =
        format!("{label} no answer since {when} ({}); shown is what was then; {}", ago(since), clause(why));
    model.look.painted(&text)
}

/// What is asked, what came of a wish, or what is to be known of what is chosen.
fn said(model: &Model, width: usize) -> Vec<Line<'static>> {
    let told = |text: &str| model.look.painted(&wrapped(text, Some(width), INDENT));
    match &model.prompt {
        Prompt::Ask(verb, name) => {
            let question = format!("{} {}? y/n", verb.word(), printable(name));
            return told(&paint(style::WARNING, &question));
        }
        Prompt::Filter => return told(&format!("/{}", printable(model.fleet.filter()))),
        Prompt::None => {}
    }
    if let Some((tone, text)) = &model.notice {
        let look = match tone {
            Tone::Plain => style::PLAIN,
            Tone::Good => style::GOOD,
            Tone::Bad => style::BAD,
        };
        return told(&paint(look, &printable(text)));
    }
    if model.help.is_some() {
        return Vec::new();
    }
    if let Some(page) = &model.page {
        return told(&printable(page.problem()));
    }
    let Some(instance) = model.selected() else { return Vec::new() };
    let Some((why, hint)) = notes::attention(instance) else {
        let failover = notes::failovers(std::slice::from_ref(instance)).pop();
        return failover.map(|line| told(&paint(style::WARNING, &line))).unwrap_or_default();
    };
    let mut lines = told(&why);
    lines.truncate(MOST_SAID - 1);
    lines.extend(told(&format!("  {} {hint}", paint(style::HINT, "hint:"))));
    lines
}

fn cursor(model: &Model, said: &[Line<'_>], area: Rect) -> Option<Position> {
    let typed = matches!(model.prompt, Prompt::Filter | Prompt::Ask(..));
    let line = said.last().filter(|_| typed)?;
    let x = u16::try_from(line.width()).ok()?.min(area.width.saturating_sub(1));
    Some(Position { x: area.x + x, y: area.y + lines(said.len()).saturating_sub(1) })
}

/// The keys there is room for, and how to see all of them.
fn keys_line(model: &Model, width: usize) -> Line<'static> {
    let (keys, last): (&[&str], &str) = match (&model.prompt, &model.help, &model.page) {
        (Prompt::Ask(..), ..) => (&["y yes"], "n no"),
        (Prompt::Filter, ..) => (&["Enter keep it"], "Esc show all"),
        (Prompt::None, Some(_), _) => (&["q back"], "PgUp PgDn scroll"),
        (Prompt::None, None, Some(_)) => (&PAGE_KEYS, "? help"),
        (Prompt::None, None, None) => (&TABLE_KEYS, "? help"),
    };
    let mut shown = String::new();
    for key in keys {
        if shown.len() + key.len() + 2 + last.len() > width {
            break;
        }
        shown.push_str(key);
        shown.push_str("  ");
    }
    Line::styled(format!("{shown}{last}"), model.look.style(style::FAINT))
}

fn put(buffer: &mut Buffer, area: Rect, lines: Vec<Line<'static>>) {
    for (row, line) in area.rows().zip(lines) {
        buffer.set_line(row.x, row.y, &line, row.width);
    }
}

fn lines(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn split_above(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let above = Rect { height, ..area };
    (above, Rect { y: area.y + height, height: area.height - height, ..area })
}

fn split_below(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    split_above(area, area.height - height)
}

#[cfg(test)]
mod tests;
