//! Labelled lines below a heading.

use super::style::{self, paint};

/// The width of the labels.
const LABEL: usize = 10;

/// A list of labelled lines.
pub(crate) struct Sheet<'a> {
    out: &'a mut String,
}

impl<'a> Sheet<'a> {
    /// A sheet that is appended to `out`.
    pub(crate) fn new(out: &'a mut String) -> Self {
        Self { out }
    }

    /// One line, unless there is nothing to tell. An empty label continues the one above.
    pub(crate) fn line(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            let label = paint(style::FAINT, &format!("{label:LABEL$}"));
            self.out.push_str(&format!("  {label}  {value}\n"));
        }
    }

    /// An empty line.
    pub(crate) fn gap(&mut self) {
        self.out.push('\n');
    }
}
