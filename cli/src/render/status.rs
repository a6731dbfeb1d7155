//! The table of instances.

use anstyle::Style;
use supervisor_proto::v1::Instance;

use super::{
    style::{self, Marks},
    table::{Cell, Side, Table},
    time::{between, humane, now},
};
use crate::view;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// How much the table tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breadth {
    /// What fits 80 columns.
    Narrow,
    /// Everything.
    Wide,
}

/// Columns by their importance: how many there is room for, the terminal decides.
const RANKS: [&str; 9] = ["NAME", "STATE", "FOR", "PORT", "RESTARTS", "ROLE", "PID", "UPTIME", "CPU"];

/// Appends the table to `out`.
pub(crate) fn table(instances: &[Instance], breadth: Breadth, marks: Marks, out: &mut String) {
    let (lines, _) = lines(&instances.iter().collect::<Vec<_>>(), breadth, marks, style::stdout_width());
    for line in lines {
        out.push_str(&line);
        out.push('\n');
    }
}

/// The heading and a line for each instance, and the columns for which there was no room. A terminal has all that
/// find room; in a pipe the columns do not depend on what there is.
pub(super) fn lines(
    instances: &[&Instance],
    breadth: Breadth,
    marks: Marks,
    width: Option<usize>,
) -> (Vec<String>, Vec<&'static str>) {
    let narrow = [
        ("NAME", Side::Left),
        ("STATE", Side::Left),
        ("ROLE", Side::Left),
        ("PID", Side::Right),
        ("PORT", Side::Right),
        ("FOR", Side::Right),
        ("UPTIME", Side::Right),
        ("RESTARTS", Side::Right),
    ];
    let further = [
        ("CPU", Side::Right),
        ("MEMORY", Side::Right),
        ("BLOCK", Side::Left),
        ("INCARNATION", Side::Right),
        ("RUNTIME", Side::Left),
    ];
    let all = breadth == Breadth::Wide || width.is_some();
    let table = if all { Table::new(narrow.into_iter().chain(further)) } else { Table::new(narrow) };
    let mut table = table.within(width).ranked(&RANKS);
    for instance in instances {
        let mut row = narrow_row(instance, marks);
        if all {
            row.extend(further_cells(instance));
        }
        table.row(row);
    }
    table.lines()
}

fn narrow_row(instance: &Instance, marks: Marks) -> Vec<Cell> {
    let status = view::status(instance);
    let role = view::failover(instance).role();
    let port = status.ports.as_ref().map_or(0, |block| block.gateway);
    vec![
        Cell::styled(style::printable(&instance.name), style::STRONG),
        state(instance, marks),
        Cell::styled(style::role_word(role), style::role_style(role)),
        number(i64::from(status.pid)),
        number(i64::from(port)),
        since(instance).map_or_else(Cell::none, Cell::from),
        uptime(instance).map_or_else(Cell::none, Cell::from),
        Cell::styled(
            status.restarts.to_string(),
            if status.restarts == 0 { style::FAINT } else { style::PLAIN },
        ),
    ]
}

fn further_cells(instance: &Instance) -> Vec<Cell> {
    let status = view::status(instance);
    let block = status.ports.as_ref().map(|block| format!("{}-{}", block.base, block.last));
    let resources = status.resources.as_ref();
    vec![
        resources.map_or_else(Cell::none, |used| Cell::from(format!("{:.1}%", used.cpu_percent))),
        resources.map_or_else(Cell::none, |used| Cell::from(bytes(used.rss_bytes))),
        block.map_or_else(Cell::none, Cell::from),
        if status.incarnation == 0 { Cell::none() } else { Cell::from(status.incarnation.to_string()) },
        Cell::from(view::runtime_word(status.runtime())),
    ]
}

/// How long it has been seen so: a supervisor that has just been started has not seen it for long.
fn since(instance: &Instance) -> Option<String> {
    Some(humane(between(view::since(instance)?, &now())))
}

fn state(instance: &Instance, marks: Marks) -> Cell {
    let phase = view::status(instance).phase();
    let word = style::phase_word(phase);
    let (mark, look): (char, Style) = style::phase_look(phase);
    match marks {
        Marks::Shown => Cell::styled(format!("{mark} {word}"), look),
        Marks::Hidden => Cell::styled(word, look),
    }
}

fn number(value: i64) -> Cell {
    if value == 0 { Cell::none() } else { Cell::from(value.to_string()) }
}

/// How long the main process has run, if one does.
pub(crate) fn uptime(instance: &Instance) -> Option<String> {
    let status = view::status(instance);
    let start = status.start_time.as_ref().filter(|_| status.pid != 0)?;
    Some(humane(between(start, &now())))
}

/// A size in the largest unit that leaves a readable number.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..MIB => format!("{} KiB", bytes / 1024),
        MIB..GIB => format!("{} MiB", bytes / MIB),
        GIB.. => {
            let tenths = bytes / (GIB / 10);
            format!("{}.{} GiB", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_in_its_largest_unit() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(82 * 1024), "82 KiB");
        assert_eq!(bytes(330 * MIB), "330 MiB");
        assert_eq!(bytes(GIB + GIB / 2), "1.5 GiB");
    }
}
