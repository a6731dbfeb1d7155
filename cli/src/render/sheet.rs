//! Labelled lines below a heading.

use super::style::{self, paint, printable, stdout_width, wrapped};

/// The width of the labels.
const LABEL: usize = 10;
/// Where values begin: a margin, a label and a gap.
const VALUE: usize = 2 + LABEL + 2;

/// A list of labelled lines.
pub(crate) struct Sheet<'a> {
    out: &'a mut String,
    width: Option<usize>,
}

impl<'a> Sheet<'a> {
    /// A sheet that is appended to `out`, for standard output.
    pub(crate) fn new(out: &'a mut String) -> Self {
        Self::within(stdout_width(), out)
    }

    /// A sheet of this width, if it has one.
    pub(crate) fn within(width: Option<usize>, out: &'a mut String) -> Self {
        Self { out, width }
    }

    /// One plain line, unless there is nothing to tell. An empty label continues the one above.
    pub(crate) fn line(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            let label = paint(style::FAINT, &format!("{label:LABEL$}"));
            let room = self.width.map(|width| width.saturating_sub(VALUE));
            let value =
                wrapped(&printable(value), room, 0).replace('\n', &format!("\n{}", " ".repeat(VALUE)));
            self.out.push_str(&format!("  {label}  {value}\n"));
        }
    }

    /// An empty line.
    pub(crate) fn gap(&mut self) {
        self.out.push('\n');
    }
}
