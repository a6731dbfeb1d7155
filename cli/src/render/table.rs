//! Columns of text, aligned, without rules: what reads well at 80 columns also pipes well.

use anstyle::Style;

use super::style;

/// Between two columns.
const GAP: &str = "  ";

/// To which side a column leans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a style, on one line.
    pub(crate) fn styled(text: impl Into<String>, look: Style) -> Self {
        Self { text: style::printable(&text.into()), style: look }
    }

    /// An empty place.
    pub(crate) fn none() -> Self {
        Self::styled("-", style::FAINT)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, style::PLAIN)
    }
}

/// The least of a flexible column, in columns of the terminal.
const LEAST: usize = 12;

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
    /// The columns, the most important first.
    ranks: Vec<usize>,
    /// The one that is shortened before another is left out.
    flexible: Option<usize>,
    /// Of the terminal, if there is one.
    width: Option<usize>,
}

impl Table {
    /// A table with these columns and no rows.
    pub(crate) fn new(columns: impl IntoIterator<Item = (&'static str, Side)>) -> Self {
        let columns: Vec<_> = columns.into_iter().collect();
        let ranks = (0..columns.len()).collect();
        Self { columns, rows: Vec::new(), ranks, flexible: None, width: None }
    }

    /// No line is wider than this, if there is a width: columns are left out until it is so, the last one first.
    pub(crate) fn within(mut self, width: Option<usize>) -> Self {
        self.width = width;
        self
    }

    /// The column `title` is shortened before others are left out.
    pub(crate) fn flexible(mut self, title: &str) -> Self {
        self.flexible = self.columns.iter().position(|(known, _)| *known == title);
        self
    }

    /// The columns by their importance. Those that are not named are the first to be left out.
    pub(crate) fn ranked(mut self, titles: &[&str]) -> Self {
        let rank = |at: &usize| titles.iter().position(|title| *title == self.columns[*at].0);
        self.ranks.sort_by_key(|at| rank(at).unwrap_or(titles.len()));
        self
    }

    /// Adds a row, one cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has one cell for each column");
        self.rows.push(cells);
    }

    /// Appends the table to `out`, a heading first. No line ends in blanks.
    pub(crate) fn render(&self, out: &mut String) {
        for line in self.lines().0 {
            out.push_str(&line);
            out.push('\n');
        }
    }

    /// The heading and the rows, and the columns for which there was no room.
    pub(crate) fn lines(&self) -> (Vec<String>, Vec<&'static str>) {
        let heading: Vec<Cell> =
            self.columns.iter().map(|(title, _)| Cell::styled(*title, style::STRONG)).collect();
        let (shown, widths) = self.fitted();
        let rows = std::iter::once(&heading).chain(&self.rows);
        let lines = rows.map(|row| self.line(row, &shown, &widths)).collect();
        let titles = self.columns.iter().enumerate();
        let left = titles.filter(|(at, _)| !shown.contains(at)).map(|(_, (title, _))| *title);
        (lines, left.collect())
    }

    fn line(&self, row: &[Cell], shown: &[usize], widths: &[usize]) -> String {
        let mut line = String::new();
        let mut blanks = 0;
        for &at in shown {
            let (cell, (_, side)) = (&row[at], self.columns[at]);
            let text = cut(&cell.text, widths[at]);
            let rest = widths[at].saturating_sub(width(&text));
            let (before, after) = match side {
                Side::Left => (0, rest),
                Side::Right => (rest, 0),
            };
            line.push_str(&" ".repeat(blanks + before));
            line.push_str(&style::paint(cell.style, &text));
            blanks = after + GAP.len();
        }
        line.trim_end().to_owned()
    }

    /// The columns for which there is room, and how wide each is.
    fn fitted(&self) -> (Vec<usize>, Vec<usize>) {
        let mut widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                cells.map(|cell| width(&cell.text)).fold(width(self.columns[at].0), usize::max)
            })
            .collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Some(room) = self.width else { return (shown, widths) };
        let taken = |shown: &[usize], widths: &[usize]| {
            let cells: usize = shown.iter().map(|at| widths[*at]).sum();
            cells + GAP.len() * shown.len().saturating_sub(1)
        };
        let shrink = |at: usize, least: usize, shown: &[usize], widths: &mut Vec<usize>| {
            let over = taken(shown, widths).saturating_sub(room);
            widths[at] = widths[at].saturating_sub(over).max(least.min(widths[at]));
        };
        for at in self.ranks.iter().rev() {
            if let Some(flexible) = self.flexible.filter(|flexible| shown.contains(flexible)) {
                shrink(flexible, LEAST, &shown, &mut widths);
            }
            if taken(&shown, &widths) <= room || shown.len() <= 2 {
                break;
            }
            shown.retain(|each| each != at);
        }
        // Words are shortened, the most important last. Half a number would be a wrong one.
        let words = |at: &&usize| shown.contains(at) && self.columns[**at].1 == Side::Left;
        for at in self.ranks.iter().rev().filter(words) {
            shrink(*at, 1, &shown, &mut widths);
        }
        (shown, widths)
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// At most `most` columns of `text`, which says so if there is more.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_no_line_ends_in_blanks() {
        let mut table = Table::new([("NAME", Side::Left), ("PORT", Side::Right), ("NOTE", Side::Left)]);
        table.row(vec!["main".into(), "9".into(), "x".into()]);
        table.row(vec!["a-longer-name".into(), "18789".into(), "".into()]);
        let mut text = String::new();
        table.render(&mut text);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "NAME            PORT  NOTE\nmain               9  x\na-longer-name  18789\n"
        );
    }

    fn shown(table: &Table, width: usize) -> String {
        let mut text = String::new();
        Table {
            columns: table.columns.clone(),
            rows: table.rows.clone(),
            ranks: table.ranks.clone(),
            ..*table
        }
        .within(Some(width))
        .render(&mut text);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn a_narrow_terminal_has_fewer_columns_and_whole_numbers() {
        let mut table = Table::new([("NAME", Side::Left), ("PORT", Side::Right), ("PID", Side::Right)])
            .ranked(&["NAME", "PID"]);
        table.row(vec!["main".into(), "18789".into(), "4711".into()]);
        assert_eq!(shown(&table, 17), "NAME   PORT   PID\nmain  18789  4711\n");
        assert_eq!(shown(&table, 16), "NAME   PID\nmain  4711\n");
        assert_eq!(table.within(Some(16)).lines().1, ["PORT"]);
    }

    #[test]
    fn a_flexible_column_gives_way_first_and_a_long_name_last() {
        let mut table = Table::new([("NAME", Side::Left), ("PORT", Side::Right), ("COMMAND", Side::Left)])
            .flexible("COMMAND");
        table.row(vec!["a-longer-name".into(), "18789".into(), "/usr/bin/python3 -m http".into()]);
        assert_eq!(
            shown(&table, 36),
            "NAME            PORT  COMMAND\na-longer-name  18789  /usr/bin/pyth…\n"
        );
        assert_eq!(shown(&table, 30), "NAME            PORT\na-longer-name  18789\n");
        assert_eq!(shown(&table, 14), "NAME      PORT\na-long…  18789\n");
    }
}
