//! The table: what was measured, what was aimed at, and whether it was met.

use std::{
    io::{self, Write},
    time::Duration,
};

/// How the table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For a terminal.
    Text,
    /// For the README.
    Markdown,
}

/// Whether a target was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was.
    Pass,
    /// It was not.
    Missed,
    /// There is no figure.
    NotMeasured,
}

impl Verdict {
    /// From whether all that was aimed at is so.
    pub(crate) fn of(met: bool) -> Self {
        if met { Self::Pass } else { Self::Missed }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Missed => "MISSED",
            Self::NotMeasured => "not measured",
        }
    }
}

/// One line.
#[derive(Debug)]
pub(crate) struct Line {
    /// What was measured.
    pub(crate) what: String,
    /// What was aimed at.
    pub(crate) target: String,
    /// The figure.
    pub(crate) measured: String,
    /// Whether it meets the target.
    pub(crate) verdict: Verdict,
    /// How often it was measured.
    pub(crate) runs: usize,
    /// What stands beside it: the floor, the peers, the percentiles.
    pub(crate) beside: String,
}

/// A duration with three digits, in the unit that suits it.
pub(crate) fn time(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    if milliseconds >= 1_000.0 {
        format!("{} s", digits(milliseconds / 1e3))
    } else {
        format!("{} ms", digits(milliseconds))
    }
}

/// A size in MiB.
pub(crate) fn mebibytes(bytes: f64) -> String {
    format!("{} MiB", digits(bytes / f64::from(1 << 20)))
}

/// A number with about three digits.
pub(crate) fn digits(number: f64) -> String {
    if number >= 100.0 {
        format!("{number:.0}")
    } else if number >= 10.0 {
        format!("{number:.1}")
    } else if number >= 0.1 {
        format!("{number:.2}")
    } else {
        format!("{number:.3}")
    }
}

/// All lines, and what they were measured on.
#[derive(Debug)]
pub(crate) struct Table {
    machine: String,
    lines: Vec<Line>,
}

const HEADER: [&str; 6] = ["what", "target", "measured", "", "runs", "beside"];

impl Table {
    /// Without lines.
    pub(crate) fn new(machine: String) -> Self {
        Self { machine, lines: Vec::new() }
    }

    /// Adds lines.
    pub(crate) fn extend(&mut self, lines: Vec<Line>) {
        self.lines.extend(lines);
    }

    /// Adds the line of a row that failed.
    pub(crate) fn not_measured(&mut self, what: &str, why: &anyhow::Error) {
        self.lines.push(Line {
            what: what.to_owned(),
            target: String::new(),
            measured: String::new(),
            verdict: Verdict::NotMeasured,
            runs: 0,
            beside: format!("{why:#}").lines().next().unwrap_or_default().to_owned(),
        });
    }

    /// To standard output.
    pub(crate) fn print(&self, format: Format) -> io::Result<()> {
        let rows: Vec<[String; 6]> = self.lines.iter().map(cells).collect();
        let mut out = io::stdout().lock();
        match format {
            Format::Text => {
                let width = |column: usize| {
                    let cells = rows.iter().map(|row| row[column].chars().count());
                    cells.chain([HEADER[column].chars().count()]).max().unwrap_or(0)
                };
                let widths: [usize; 6] = std::array::from_fn(width);
                writeln!(out)?;
                for row in std::iter::once(&HEADER.map(str::to_owned)).chain(&rows) {
                    let padded: Vec<String> =
                        row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
                    writeln!(out, "{}", padded.join("  ").trim_end())?;
                }
                writeln!(out, "\n{}", self.machine)
            }
            Format::Markdown => {
                writeln!(out, "| {} |\n|---|---|---|---|---|---|", HEADER.join(" | "))?;
                for row in &rows {
                    writeln!(out, "| {} |", row.join(" | "))?;
                }
                writeln!(out, "\n{}.", self.machine)
            }
        }
    }
}

fn cells(line: &Line) -> [String; 6] {
    let runs = if line.runs > 0 { line.runs.to_string() } else { String::new() };
    let Line { what, target, measured, verdict, beside, .. } = line;
    [what.clone(), target.clone(), measured.clone(), verdict.word().to_owned(), runs, beside.clone()]
}
