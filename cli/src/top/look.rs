//! How things look on this terminal: with colours or without, in UTF-8 or in ASCII.

use std::io::{self, IsTerminal};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Effects};
use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};
use supervisor_proto::v1::Phase;
use unicode_width::UnicodeWidthStr;

use super::pager;
use crate::render::style::{self, Marks};

/// What this terminal can show and is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) marks: Marks,
    pub(crate) colored: bool,
}

impl Look {
    /// Of standard output.
    pub(crate) fn of_stdout(marks: Marks) -> Self {
        let colored = io::stdout().is_terminal() && AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        Self { marks, colored }
    }

    /// A style of this program on the screen. Without colours there is none at all.
    pub(crate) fn style(self, look: anstyle::Style) -> Style {
        if !self.colored {
            return Style::new();
        }
        let mut style = Style::new();
        if let Some(anstyle::Color::Ansi(color)) = look.get_fg_color() {
            style = style.fg(color_of(color));
        }
        let effects = look.get_effects();
        for (effect, modifier) in [(Effects::BOLD, Modifier::BOLD), (Effects::DIMMED, Modifier::DIM)] {
            if effects.contains(effect) {
                style = style.add_modifier(modifier);
            }
        }
        style
    }

    /// The row that keys act on, which has a mark, too. The cells' own colours would be its ground, and are left out.
    pub(crate) fn selected(self) -> Style {
        let bar =
            Style::new().fg(Color::Reset).remove_modifier(Modifier::DIM).add_modifier(Modifier::REVERSED);
        if self.colored { bar } else { Style::new() }
    }

    /// Text without anything that a terminal would obey, and without what it cannot show.
    pub(crate) fn text(self, text: &str) -> String {
        let text = style::printable(text);
        match self.marks {
            Marks::Shown => text,
            Marks::Hidden => text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect(),
        }
    }

    /// `text` in at most `width` columns.
    pub(crate) fn cut(self, text: &str, width: usize) -> String {
        let text = self.text(text);
        if text.width() <= width {
            return text;
        }
        let more = self.sign('…', '~');
        let room = width.saturating_sub(1);
        let kept = pager::split(&text, room);
        if width == 0 { String::new() } else { format!("{}{more}", text[..kept].trim_end()) }
    }

    /// One sign, or another where there is only ASCII.
    pub(crate) fn sign(self, sign: char, ascii: char) -> char {
        match self.marks {
            Marks::Shown => sign,
            Marks::Hidden => ascii,
        }
    }

    /// The sign of a phase.
    pub(crate) fn mark(self, phase: Phase) -> char {
        let ascii = match phase {
            Phase::Unspecified => '?',
            Phase::Stopped => '-',
            Phase::Adopting | Phase::Spawning | Phase::Starting | Phase::Stopping => '~',
            Phase::Ready => '+',
            Phase::Unhealthy => '!',
            Phase::Backoff | Phase::Repairing => '@',
            Phase::Failed => 'x',
        };
        self.sign(style::phase_look(phase).0, ascii)
    }

    /// Lines as [`crate::render`] paints them.
    pub(crate) fn painted(self, text: &str) -> Vec<Line<'static>> {
        text.lines().map(|line| self.painted_line(line)).collect()
    }

    fn painted_line(self, line: &str) -> Line<'static> {
        let mut parts = line.split('\u{1b}');
        let mut spans = vec![Span::raw(self.text(parts.next().unwrap_or_default()))];
        let mut style = Style::new();
        for part in parts {
            let rest = match part.split_once('m').and_then(|(code, rest)| Some((sequence(code)?, rest))) {
                Some((change, rest)) => {
                    style = if self.colored { change(style) } else { style };
                    rest.to_owned()
                }
                None => format!("\u{1b}{part}"),
            };
            spans.push(Span::styled(self.text(&rest), style));
        }
        spans.retain(|span| !span.content.is_empty());
        Line::from(spans)
    }
}

/// What one of the sequences that [`crate::render::style`] writes does to a style.
fn sequence(code: &str) -> Option<fn(Style) -> Style> {
    match code {
        "[0" => Some(|_| Style::new()),
        "[1" => Some(|style| style.add_modifier(Modifier::BOLD)),
        "[2" => Some(|style| style.add_modifier(Modifier::DIM)),
        "[31" => Some(|style| style.fg(Color::Red)),
        "[32" => Some(|style| style.fg(Color::Green)),
        "[33" => Some(|style| style.fg(Color::Yellow)),
        "[36" => Some(|style| style.fg(Color::Cyan)),
        _ => None,
    }
}

/// The colours that [`crate::render::style`] uses; others stay as the terminal has them.
fn color_of(color: AnsiColor) -> Color {
    match color {
        AnsiColor::Red => Color::Red,
        AnsiColor::Green => Color::Green,
        AnsiColor::Yellow => Color::Yellow,
        AnsiColor::Cyan => Color::Cyan,
        AnsiColor::Black
        | AnsiColor::Blue
        | AnsiColor::Magenta
        | AnsiColor::White
        | AnsiColor::BrightBlack
        | AnsiColor::BrightRed
        | AnsiColor::BrightGreen
        | AnsiColor::BrightYellow
        | AnsiColor::BrightBlue
        | AnsiColor::BrightMagenta
        | AnsiColor::BrightCyan
        | AnsiColor::BrightWhite => Color::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLORED: Look = Look { marks: Marks::Shown, colored: true };
    const PLAIN: Look = Look { marks: Marks::Hidden, colored: false };

    #[test]
    fn what_is_painted_keeps_its_looks_and_nothing_else_becomes_one() {
        let text = format!(
            "{} is {}\u{1b}[2J",
            style::paint(style::STRONG, "main"),
            style::paint(style::BAD, "bad")
        );
        let [line] = COLORED.painted(&text).try_into().unwrap();
        assert_eq!(line.to_string(), "main is bad\u{fffd}[2J");
        let look = |at: usize| line.spans[at].style;
        assert_eq!(look(0), Style::new().add_modifier(Modifier::BOLD));
        assert_eq!(look(1), Style::new());
        assert_eq!(look(2), Style::new().fg(Color::Red));
        assert!(PLAIN.painted(&text)[0].spans.iter().all(|span| span.style == Style::new()));
    }

    #[test]
    fn what_is_too_long_says_so() {
        assert_eq!(COLORED.cut("killed by SIGKILL", 17), "killed by SIGKILL");
        assert_eq!(COLORED.cut("killed by SIGKILL", 10), "killed by…");
        assert_eq!(PLAIN.cut("killed by SIGKILL", 9), "killed b~");
        assert_eq!(PLAIN.cut("häßlich", 9), "h??lich");
        assert_eq!(COLORED.cut("日本語", 4), "日…");
        assert_eq!(COLORED.cut("x", 0), "");
    }
}
