//! Colours and marks. They add to words and never stand in for them: without them nothing is lost.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use supervisor_proto::{
    text::misleads,
    v1::{Phase, Role, Severity},
};

use super::charset;

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

/// What begins a sequence for the terminal.
const ESCAPE: char = '\u{1b}';
/// All that stands behind it in the styles above.
const OWN: [&str; 7] = ["[0m", "[1m", "[2m", "[31m", "[32m", "[33m", "[36m"];
/// What is shown for a control character.
const INSTEAD: char = '\u{fffd}';

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
        if charset::is_utf8() && io::stdout().is_terminal() { Self::Shown } else { Self::Hidden }
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

/// `text` on lines of at most `width` columns, broken between words and nowhere else; all but the first are indented.
/// Without a width, as for a pipe, it stays on one line.
pub(crate) fn wrapped(text: &str, width: Option<usize>, indent: usize) -> String {
    let text = printable_styled(text);
    let Some(width) = width else { return text };
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

/// Where further lines begin that would best begin at `column`: in a narrow window there is no room for that.
pub(crate) fn hanging(column: usize, width: Option<usize>) -> usize {
    if width.is_some_and(|width| 2 * column > width) { INDENT.min(column) } else { column }
}

/// Writes `text`, which is meant for people, to standard output, in one write where the stream allows.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let text = guarded(text);
    let text = if io::stdout().is_terminal() { charset::shown(&text) } else { text.into() };
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes `text`, which is meant for programs, to standard output: byte for byte, but to a terminal as
/// [`printable_text`].
pub(crate) fn print_data(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.is_terminal() {
        true => out.write_all(printable_text(text).as_bytes())?,
        false => out.write_all(text.as_bytes())?,
    }
    out.flush()
}

/// Tells a person one plain line on standard error. If nobody can hear it, so be it.
pub(crate) fn talk(line: &str) {
    tell(&printable(line));
}

/// The same for a sentence that may need several lines.
pub(crate) fn talk_wrapped(sentence: &str) {
    tell(&wrapped(&printable(sentence), stderr_width(), INDENT));
}

/// The same for lines with colours.
pub(crate) fn tell(lines: &str) {
    let lines = guarded(lines);
    let lines = if io::stderr().is_terminal() { charset::shown(&lines) } else { lines.into() };
    let _ = writeln!(anstream::stderr().lock(), "{lines}");
}

/// Asks a person, on standard error.
pub(crate) fn ask(question: &str) -> io::Result<()> {
    let mut err = anstream::stderr().lock();
    write!(err, "{} ", wrapped(&printable(question), stderr_width(), 0))?;
    err.flush()
}

/// `text` in `style`.
pub(crate) fn paint(style: Style, text: &str) -> String {
    if style.is_plain() { text.to_owned() } else { format!("{style}{text}{style:#}") }
}

/// `text` without control characters, which could move the cursor or forge lines, and without those that turn the
/// order of others around.
pub(crate) fn printable(text: &str) -> String {
    printable_but(text, &[])
}

/// The same for a line of a file or log, with its tabs.
pub(crate) fn printable_line(text: &str) -> String {
    printable_but(text, &['\t'])
}

/// The same for several lines.
pub(crate) fn printable_text(text: &str) -> String {
    printable_but(text, &['\t', '\n'])
}

/// The same for a line that has colours already.
pub(crate) fn printable_styled(text: &str) -> String {
    printable_but(text, &['\t', ESCAPE])
}

/// `value` as one word of a POSIX shell, whatever it holds.
pub(crate) fn quoted(value: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if !value.is_empty() && value.chars().all(harmless) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn printable_but(text: &str, kept: &[char]) -> String {
    text.chars().map(|c| if misleads(c) && !kept.contains(&c) { INSTEAD } else { c }).collect()
}

/// `text` with no other control characters than line ends, tabs and the sequences of [`OWN`]. All that people read
/// comes through here, whatever a caller may have forgotten.
pub(crate) fn guarded(text: &str) -> String {
    let mut parts = text.split(ESCAPE);
    let mut out = printable_text(parts.next().unwrap_or_default());
    for part in parts {
        match OWN.iter().find(|own| part.starts_with(**own)) {
            Some(_) => out.push(ESCAPE),
            None => out.push(INSTEAD),
        }
        out.push_str(&printable_text(part));
    }
    out
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
    fn nothing_in_a_value_is_seen_by_the_shell() {
        assert_eq!(quoted("/usr/bin:/bin"), "/usr/bin:/bin");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("$(reboot)"), "'$(reboot)'");
        assert_eq!(quoted("~"), "'~'");
        assert_eq!(quoted("a\nb"), "'a\nb'");
    }

    #[test]
    fn only_sequences_of_its_own_reach_a_terminal() {
        let styles = [ERROR, HINT, WARNING, GOOD, BAD, FAINT, STRONG, PLAIN];
        let own: String = styles.iter().map(|style| paint(*style, "word\t\n")).collect();
        assert_eq!(guarded(&own), own);
        assert_eq!(
            guarded("\u{1b}]0;x\u{7}\u{1b}[8m\u{1b}\u{1b}[2J\u{9b}2J\r\u{1b}"),
            "\u{fffd}]0;x\u{fffd}\u{fffd}[8m\u{fffd}\u{fffd}[2J\u{fffd}2J\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_sentence_forges_no_line() {
        assert_eq!(wrapped("a\nerror: b", None, 2), "a\u{fffd}error: b");
        assert_eq!(wrapped("a\nerror: b", Some(8), 2), "a\u{fffd}error:\n  b");
    }

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
        assert_eq!(printable("a\u{9b}2J\u{202e}b\u{2028}c"), "a\u{fffd}2J\u{fffd}b\u{fffd}c");
        assert_eq!(clause(" Killed by SIGKILL. "), "Killed by SIGKILL");
    }
}
