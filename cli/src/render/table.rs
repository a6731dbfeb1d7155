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

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub(crate) fn new(columns: impl IntoIterator<Item = (&'static str, Side)>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row, one cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has one cell for each column");
        self.rows.push(cells);
    }

    /// Appends the table to `out`, a heading first. No line ends in blanks.
    pub(crate) fn render(&self, out: &mut String) {
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                cells.map(|cell| width(&cell.text)).fold(width(self.columns[at].0), usize::max)
            })
            .collect();
        let heading: Vec<Cell> =
            self.columns.iter().map(|(title, _)| Cell::styled(*title, style::STRONG)).collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            let mut blanks = 0;
            for ((cell, (_, side)), &wide) in row.iter().zip(&self.columns).zip(&widths) {
                let rest = wide.saturating_sub(width(&cell.text));
                let (before, after) = match side {
                    Side::Left => (0, rest),
                    Side::Right => (rest, 0),
                };
                line.push_str(&" ".repeat(blanks + before));
                line.push_str(&style::paint(cell.style, &cell.text));
                blanks = after + GAP.len();
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
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
}
