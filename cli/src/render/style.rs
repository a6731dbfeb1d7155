//! Colours and marks. They add to words and never stand in for them: without them nothing is lost.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use supervisor_proto::v1::{Phase, Role, Severity};

/// The word `error:`.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// The word `hint:`.
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// What needs a look.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default();
/// What is well, or is added.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What is broken, or is removed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// What is less important than its neighbours.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// Headings and names.
pub(crate) const STRONG: Style = Style::new().bold();
/// Text as it is.
pub(crate) const PLAIN: Style = Style::new();

/// Of the second and further lines of a sentence.
pub(crate) const INDENT: usize = 4;

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    Always,
    Never,
}

impl Color {
    /// Makes this the choice for both streams.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// Whether a mark goes before a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// A sign before the word, for people.
    Shown,
    /// The word alone, so that columns stay one word each for `awk` and the like.
    Hidden,
}

impl Marks {
    /// Shown on a terminal whose locale can show them.
    pub(crate) fn for_stdout() -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(|name| env::var(name).ok())
            .find(|value| !value.is_empty())
            .unwrap_or_default()
            .to_ascii_lowercase();
        let able = locale.contains("utf-8") || locale.contains("utf8");
        if able && io::stdout().is_terminal() { Self::Shown } else { Self::Hidden }
    }
}

/// The width of standard output, if it is a terminal.
pub(crate) fn stdout_width() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into())
}

/// The width of standard error, if it is a terminal.
pub(crate) fn stderr_width() -> Option<usize> {
    terminal_size::terminal_size_of(io::stderr()).map(|(width, _)| width.0.into())
}

/// `text` on lines of at most `width` columns, broken between words; all but the first are indented. Without
/// a width, as for a pipe, it stays on one line.
pub(crate) fn wrapped(text: &str, width: Option<usize>, indent: usize) -> String {
    let Some(width) = width else { return text.to_owned() };
    let mut out = String::new();
    let mut column = 0;
    for (at, word) in text.split(' ').enumerate() {
        let wide = anstream::adapter::strip_str(word).to_string().chars().count();
        if column > indent && column + 1 + wide > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += wide;
    }
    out
}

/// Writes `text` to standard output, in one write where the stream allows.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Tells a person something on standard error. If nobody can hear it, so be it.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// `text` in `style`.
pub(crate) fn paint(style: Style, text: &str) -> String {
    if style.is_plain() { text.to_owned() } else { format!("{style}{text}{style:#}") }
}

/// `text` without control characters, which could move the cursor or forge lines.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `text` as the middle of a sentence: printable, and without its full stop.
pub(crate) fn clause(text: &str) -> String {
    printable(text.trim().trim_end_matches('.'))
}

/// A phase in one word.
pub(crate) fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "unknown",
        Phase::Stopped => "stopped",
        Phase::Adopting => "adopting",
        Phase::Spawning => "spawning",
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Unhealthy => "unhealthy",
        Phase::Stopping => "stopping",
        Phase::Backoff => "backoff",
        Phase::Failed => "failed",
        Phase::Repairing => "repairing",
    }
}

/// A phase as the predicate of a sentence whose subject is the instance.
pub(crate) fn phase_told(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "is in an unknown phase",
        Phase::Stopped => "is stopped",
        Phase::Adopting => "is being adopted",
        Phase::Spawning => "is being spawned",
        Phase::Starting => "is starting",
        Phase::Ready => "is ready",
        Phase::Unhealthy => "is unhealthy",
        Phase::Stopping => "is stopping",
        Phase::Backoff => "waits for its next start",
        Phase::Failed => "has failed",
        Phase::Repairing => "is being repaired",
    }
}

/// How a phase looks: its mark and its style.
pub(crate) fn phase_look(phase: Phase) -> (char, Style) {
    match phase {
        Phase::Unspecified => ('?', FAINT),
        Phase::Stopped => ('○', FAINT),
        Phase::Adopting | Phase::Spawning | Phase::Starting | Phase::Stopping => ('◌', WARNING),
        Phase::Ready => ('●', GOOD),
        Phase::Unhealthy => ('▲', WARNING),
        Phase::Backoff | Phase::Repairing => ('↻', WARNING),
        Phase::Failed => ('✗', BAD),
    }
}

/// A role in failover in one word.
pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Unspecified | Role::Single => "-",
        Role::Primary => "primary",
        Role::Rescued => "rescued",
        Role::Standby => "standby",
        Role::Promoting => "promoting",
        Role::Active => "active",
    }
}

/// How a role looks.
pub(crate) fn role_style(role: Role) -> Style {
    match role {
        Role::Unspecified | Role::Single | Role::Primary | Role::Standby => PLAIN,
        Role::Rescued | Role::Promoting | Role::Active => WARNING,
    }
}

/// A severity in one word.
pub(crate) fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Unspecified | Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// How a severity looks.
pub(crate) fn severity_style(severity: Severity) -> Style {
    match severity {
        Severity::Unspecified | Severity::Info => FAINT,
        Severity::Warning => WARNING,
        Severity::Error => BAD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_broken_between_words_and_indented() {
        assert_eq!(wrapped("aaa bbb ccc ddd", Some(8), 2), "aaa bbb\n  ccc\n  ddd");
        assert_eq!(wrapped("aaa bbb ccc ddd", None, 2), "aaa bbb ccc ddd");
        assert_eq!(wrapped("  a  bb ccc ddd", Some(8), 5), "  a  bb\n     ccc\n     ddd");
        assert_eq!(wrapped("a-word-longer-than-the-line b", Some(8), 2), "a-word-longer-than-the-line\n  b");
        assert_eq!(wrapped("\u{1b}[1maaa\u{1b}[0m bbb", Some(7), 2), "\u{1b}[1maaa\u{1b}[0m bbb");
    }

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(clause(" Killed by SIGKILL. "), "Killed by SIGKILL");
    }
}
