//! The table of instances: which columns there is room for, and what is in them. Only rows that are seen are made.

use std::borrow::Cow;

use anstyle::Style;
use nix::sys::signal::Signal;
use ratatui::{buffer::Buffer, layout::Rect};
use supervisor_proto::v1::{Instance, InstanceStatus, Phase, Role, exit::How};
use unicode_width::UnicodeWidthStr;

use super::{
    fleet::{Fleet, Order},
    look::Look,
    state::Model,
};
use crate::{
    render::{
        config,
        status::uptime,
        style::{self, clause},
        table::Side,
        time::until,
    },
    view,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Before each row: the mark of the chosen one.
const MARGIN: usize = 2;
/// What names get however short they are: the titles beside each other need it.
const LEAST_NAME: usize = 6;
/// What the reason gets before columns are left out for it: the most usual ones fit.
const LEAST_HEALTH: usize = 8;
/// What it gets before columns come in that only a wide terminal has.
const AMPLE_HEALTH: usize = 24;
/// Columns that are left out of narrow terminals, first the one that is missed least.
const FIRST_TO_GO: [Column; 6] =
    [Column::Restarts, Column::Uptime, Column::Memory, Column::Cpu, Column::Role, Column::Health];
/// Columns that wide terminals have beside the usual ones.
const FURTHER: [Column; 3] = [Column::Port, Column::Pid, Column::Runtime];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    State,
    Role,
    Cpu,
    Memory,
    Uptime,
    Restarts,
    Port,
    Pid,
    Runtime,
    Health,
}

/// All of them, from the left.
const COLUMNS: [Column; 11] = [
    Column::Name,
    Column::State,
    Column::Role,
    Column::Cpu,
    Column::Memory,
    Column::Uptime,
    Column::Restarts,
    Column::Port,
    Column::Pid,
    Column::Runtime,
    Column::Health,
];

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::State => "STATE",
            Self::Role => "ROLE",
            Self::Cpu => "CPU",
            Self::Memory => "MEM",
            Self::Uptime => "UPTIME",
            Self::Restarts => "RESTARTS",
            Self::Port => "PORT",
            Self::Pid => "PID",
            Self::Runtime => "RUNTIME",
            Self::Health => "HEALTH",
        }
    }

    fn side(self) -> Side {
        match self {
            Self::Name | Self::State | Self::Role | Self::Runtime | Self::Health => Side::Left,
            Self::Cpu | Self::Memory | Self::Uptime | Self::Restarts | Self::Port | Self::Pid => Side::Right,
        }
    }

    /// The order that begins here.
    fn order(self) -> Option<Order> {
        match self {
            Self::Name => Some(Order::Name),
            Self::State => Some(Order::State),
            Self::Role => Some(Order::Role),
            Self::Cpu => Some(Order::Cpu),
            Self::Memory => Some(Order::Memory),
            Self::Uptime => Some(Order::Uptime),
            Self::Restarts => Some(Order::Restarts),
            Self::Port | Self::Pid | Self::Runtime | Self::Health => None,
        }
    }

    /// How wide it is, whatever is in it, so that nothing moves when that changes. The reason has what is left.
    fn width(self, fleet: &Fleet, screen: usize) -> usize {
        match self {
            Self::Name => {
                let longest = fleet.all().map(|instance| instance.name.width()).max().unwrap_or_default();
                longest.clamp(LEAST_NAME, (screen * 2 / 5).max(8))
            }
            Self::State => 11,
            Self::Role if fleet.all().all(is_single) => 4,
            Self::Role => 9,
            Self::Cpu | Self::Memory | Self::Port => 5,
            Self::Uptime | Self::Pid => 7,
            Self::Restarts | Self::Runtime => 8,
            Self::Health => 0,
        }
    }
}

fn is_single(instance: &Instance) -> bool {
    matches!(view::failover(instance).role(), Role::Single | Role::Unspecified)
}

/// The columns that a screen has room for, and how wide they are.
fn columns(fleet: &Fleet, screen: usize) -> Vec<(Column, usize)> {
    let wide = |column: &Column| (*column, column.width(fleet, screen));
    let left = |columns: &[(Column, usize)]| {
        let taken: usize = columns.iter().map(|(_, width)| width + 1).sum();
        (screen + 1).saturating_sub(MARGIN + taken)
    };
    let mut columns: Vec<(Column, usize)> = COLUMNS.iter().map(wide).collect();
    if left(&columns) < AMPLE_HEALTH {
        columns.retain(|(column, _)| !FURTHER.contains(column));
    }
    let mut to_go = FIRST_TO_GO.iter();
    while left(&columns) < LEAST_HEALTH
        && columns.iter().any(|(column, _)| *column == Column::Health)
        && let Some(least) = to_go.next()
    {
        columns.retain(|(column, _)| column != least);
    }
    let rest = left(&columns);
    if let Some((_, width)) = columns.iter_mut().find(|(column, _)| *column == Column::Health) {
        *width = rest;
    }
    columns
}

/// Draws the heading on the first row of `area`, and below it the rows that are seen.
pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let look = model.look;
    let columns = columns(&model.fleet, area.width.into());
    heading(model, &columns, area, buffer);
    let rows = area.rows().skip(1);
    let shown = model.fleet.shown().iter().enumerate().skip(model.first);
    for (row, (at, name)) in rows.zip(shown) {
        let Some(instance) = model.fleet.get(name) else { continue };
        if at == model.row {
            buffer.set_string(row.x, row.y, ">", look.style(style::STRONG));
        }
        let mut x = usize::from(row.x) + MARGIN;
        for (column, width) in &columns {
            let (text, style) = cell(*column, instance, look);
            put(buffer, (x, row.y), (&text, *width, column.side()), look, style);
            x += width + 1;
        }
        if at == model.row {
            buffer.set_style(row, look.selected());
        }
    }
}

fn heading(model: &Model, columns: &[(Column, usize)], area: Rect, buffer: &mut Buffer) {
    let look = model.look;
    let mut x = usize::from(area.x) + MARGIN;
    for (column, width) in columns {
        let title = column.title();
        put(buffer, (x, area.y), (title, *width, column.side()), look, style::STRONG);
        if column.order() == Some(model.fleet.order()) {
            // It stands in the gap before the title, which every column has.
            let before = match column.side() {
                Side::Left => 0,
                Side::Right => width.saturating_sub(title.len()),
            };
            let mark = look.sign('▾', '*').to_string();
            put(buffer, (x + before - 1, area.y), (&mark, 1, Side::Left), look, style::STRONG);
        }
        x += width + 1;
    }
}

/// Writes a cell, as far as the screen reaches.
fn put(buffer: &mut Buffer, (x, y): (usize, u16), cell: (&str, usize, Side), look: Look, style: Style) {
    let (text, width, side) = cell;
    let end = usize::from(buffer.area.right());
    let width = width.min(end.saturating_sub(x));
    let text = look.cut(text, width);
    let before = match side {
        Side::Left => 0,
        Side::Right => width.saturating_sub(text.width()),
    };
    if let Ok(x) = u16::try_from(x + before)
        && !text.is_empty()
    {
        buffer.set_string(x, y, text, look.style(style));
    }
}

fn cell(column: Column, instance: &Instance, look: Look) -> (Cow<'_, str>, Style) {
    const NONE: (Cow<'static, str>, Style) = (Cow::Borrowed("-"), style::FAINT);
    let status = view::status(instance);
    let plain = |text: String| (Cow::Owned(text), style::PLAIN);
    let number = |number: i64| if number == 0 { NONE } else { plain(number.to_string()) };
    match column {
        Column::Name => (Cow::Borrowed(instance.name.as_str()), style::STRONG),
        Column::State => {
            let (phase, (_, style)) = (status.phase(), style::phase_look(status.phase()));
            (format!("{} {}", look.mark(phase), style::phase_word(phase)).into(), style)
        }
        Column::Role => {
            let role = view::failover(instance).role();
            (style::role_word(role).into(), style::role_style(role))
        }
        Column::Cpu => status.resources.as_ref().map_or(NONE, |used| plain(percent(used.cpu_percent))),
        Column::Memory => status.resources.as_ref().map_or(NONE, |used| plain(short_bytes(used.rss_bytes))),
        Column::Uptime => uptime(instance).map_or(NONE, plain),
        Column::Restarts if status.restarts == 0 => ("0".into(), style::FAINT),
        Column::Restarts => plain(status.restarts.to_string()),
        Column::Port => number(status.ports.as_ref().map_or(0, |block| block.gateway.into())),
        Column::Pid => number(status.pid.into()),
        Column::Runtime => (view::runtime_word(status.runtime()).into(), style::PLAIN),
        Column::Health => match health(instance) {
            (text, _) if text.is_empty() => NONE,
            (text, style) => (text.into(), style),
        },
    }
}

/// How an instance is, and why, in as few words as there are. All of it is said below the table.
pub(super) fn health(instance: &Instance) -> (String, Style) {
    let status = view::status(instance);
    let reason = short_reason(status);
    let failing = status.health.as_ref().map(|health| (health.failing.join(", "), clause(&health.message)));
    let next = status.next_start_time.as_ref().map(|next| format!(", {}", until(next))).unwrap_or_default();
    match status.phase() {
        Phase::Ready => match failing {
            Some((failing, _)) if !failing.is_empty() => (failing, style::WARNING),
            Some(_) | None => drawback(instance),
        },
        Phase::Unhealthy => match failing {
            Some((failing, _)) if !failing.is_empty() => (failing, style::WARNING),
            Some((_, message)) if !message.is_empty() => (message, style::WARNING),
            Some(_) | None => (reason, style::WARNING),
        },
        Phase::Failed => (format!("{reason}{next}"), style::BAD),
        Phase::Backoff | Phase::Repairing => (format!("{reason}{next}"), style::WARNING),
        Phase::Adopting | Phase::Spawning | Phase::Starting | Phase::Stopping => (reason, style::PLAIN),
        Phase::Stopped | Phase::Unspecified => (reason, style::FAINT),
    }
}

/// The reason, but of a mere exit no more than how it ended.
fn short_reason(status: &InstanceStatus) -> String {
    let reason = clause(&status.reason);
    let exit = status.last_exit.as_ref().filter(|exit| !exit.message.is_empty());
    let Some(exit) = exit.filter(|exit| reason.starts_with(&clause(&exit.message))) else { return reason };
    match &exit.how {
        Some(How::Code(code)) => format!("exit {code}"),
        Some(How::Signal(signal)) => {
            Signal::try_from(*signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
        }
        Some(How::Unknown(_)) | None => reason,
    }
}

/// What is to be said of one that serves.
fn drawback(instance: &Instance) -> (String, Style) {
    let status = view::status(instance);
    let problem = status.config.as_ref().is_some_and(|config| !config.problem.is_empty());
    let recycle = status.resources.as_ref().is_some_and(|used| !used.recycle.is_empty());
    let held = status.ladder.as_ref().is_some_and(|ladder| ladder.held);
    let (word, style) = if problem {
        ("config broken", style::BAD)
    } else if !config::degraded(instance).is_empty() {
        ("older config", style::WARNING)
    } else if recycle {
        ("over memory", style::WARNING)
    } else if view::runs_old_spec(instance) {
        ("older spec", style::WARNING)
    } else if held {
        ("maintenance", style::WARNING)
    } else {
        ("ok", style::GOOD)
    };
    (word.to_owned(), style)
}

/// E.g. "0.4%", "99.9%", "312%".
fn percent(percent: f64) -> String {
    if percent < 99.95 { format!("{percent:.1}%") } else { format!("{percent:.0}%") }
}

/// A size in five columns or less, e.g. "820K", "330M", "1.5G".
fn short_bytes(bytes: u64) -> String {
    match bytes {
        0..MIB => format!("{}K", bytes / 1024),
        MIB..GIB => format!("{}M", bytes / MIB),
        GIB.. => {
            let tenths = bytes / (GIB / 10);
            if tenths < 1_000 {
                format!("{}.{}G", tenths / 10, tenths % 10)
            } else {
                format!("{}G", tenths / 10)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_their_columns() {
        assert_eq!(
            [0.0, 0.44, 99.94, 99.96, 6_400.0].map(percent),
            ["0.0%", "0.4%", "99.9%", "100%", "6400%"]
        );
        assert_eq!(
            [0, 820 << 10, 330 << 20, (1 << 30) + (1 << 29), 640 << 30].map(short_bytes),
            ["0K", "820K", "330M", "1.5G", "640G"]
        );
    }
}
