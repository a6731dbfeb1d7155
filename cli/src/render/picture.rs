//! A text that is written again in its own place, among the other lines of a terminal.
//!
//! Each picture is one write: up to where the last one began, each line over the old one, and what is left of that is
//! erased. Nothing is erased that is written again, so nothing flickers. The last picture stays when the program ends.

use std::{
    borrow::Cow,
    env,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

use anstream::{AutoStream, ColorChoice};
use terminal_size::{Height, Width, terminal_size_of};

use super::{
    charset,
    style::{FAINT, guarded, paint},
};

/// "Begin" and "end synchronized update": a terminal that knows them shows all at once, others ignore them.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
/// "Erase to the end of the line" and "of the screen" (ECMA-48 EL and ED).
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// To the first line of the screen.
const HOME: &str = "\x1b[H";

/// Where pictures are drawn.
#[derive(Debug)]
pub(crate) struct Canvas {
    colored: bool,
    /// Lines of the terminal that the last picture has taken.
    drawn: usize,
    /// What the terminal's size was then.
    size: (usize, usize),
}

impl Canvas {
    /// On standard output, if that is a terminal whose cursor can be moved.
    pub(crate) fn on_stdout() -> Option<Self> {
        let able = io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        let colored = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        able.then_some(Self { colored, drawn: 0, size: (0, 0) })
    }

    /// Puts `text` in place of the last picture, as far as the terminal has room.
    pub(crate) fn draw(&mut self, text: &str) -> io::Result<()> {
        let Some((Width(width), Height(height))) = terminal_size_of(io::stdout()) else { return Ok(()) };
        let bytes = self.frame(text, (width.into(), height.into()));
        let mut out = io::stdout().lock();
        out.write_all(bytes.as_bytes())?;
        out.flush()
    }

    fn frame(&mut self, text: &str, (width, height): (usize, usize)) -> String {
        let text = guarded(text);
        let text = charset::shown(&text);
        let mut frame = BEGIN.to_owned();
        match (self.drawn, self.size == (width, height)) {
            (0, _) => {}
            (up, true) => {
                let _ = write!(frame, "\r\x1b[{up}A");
            }
            // Where its lines are now, only the terminal knows.
            (_, false) => frame.push_str(HOME),
        }
        let (lines, drawn) = fitting(&text, width, height);
        for line in lines {
            let line = if self.colored { line } else { plain(&line).into() };
            let _ = write!(frame, "{line}{CLEAR_LINE}\r\n");
        }
        (self.drawn, self.size) = (drawn, (width, height));
        frame + CLEAR_BELOW + END
    }
}

fn plain(line: &str) -> String {
    anstream::adapter::strip_str(line).to_string()
}

/// The lines for which the terminal has room above its last one, and how many of its lines they take.
fn fitting(text: &str, width: usize, height: usize) -> (Vec<Cow<'_, str>>, usize) {
    let taken = |line: &str| plain(line).chars().count().div_ceil(width.max(1)).max(1);
    let all: usize = text.lines().map(taken).sum();
    if all < height {
        return (text.lines().map(Cow::Borrowed).collect(), all);
    }
    let (mut shown, mut drawn) = (Vec::new(), 0);
    for line in text.lines() {
        if drawn + taken(line) + 2 > height {
            break;
        }
        drawn += taken(line);
        shown.push(Cow::Borrowed(line));
    }
    let more = text.lines().count() - shown.len();
    let told: String = format!("{more} more lines; openclawctl top shows all").chars().take(width).collect();
    shown.push(paint(FAINT, &told).into());
    (shown, drawn + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(frames: &[(&str, u16, u16)]) -> String {
        let mut canvas = Canvas { colored: false, drawn: 0, size: (0, 0) };
        let cells = |count: u16| std::num::NonZero::new(count).unwrap();
        let mut parser = vt100::Parser::new(cells(frames[0].2), cells(frames[0].1), 0);
        parser.process(b"$ before\r\n");
        for (text, width, height) in frames {
            parser.screen_mut().set_size(cells(*height), cells(*width));
            parser.process(canvas.frame(text, (usize::from(*width), usize::from(*height))).as_bytes());
        }
        let shown = parser.screen().contents();
        shown.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    #[test]
    fn a_picture_takes_the_place_of_the_last_one() {
        assert_eq!(screen(&[("long line\nsecond\nthird\n", 20, 10)]), "$ before\nlong line\nsecond\nthird");
        assert_eq!(
            screen(&[("long line\nsecond\nthird\n", 20, 10), ("short\n2nd\n", 20, 10)]),
            "$ before\nshort\n2nd"
        );
    }

    #[test]
    fn one_that_began_on_the_last_line_moves_the_others_up() {
        let frames = [("a\nb\n", 20, 4), ("c\nd\ne\n", 20, 4), ("f\n", 20, 4)];
        assert_eq!(screen(&frames[..2]), "c\nd\ne");
        assert_eq!(screen(&frames), "f");
    }

    #[test]
    fn more_than_there_is_room_for_is_counted() {
        assert_eq!(
            screen(&[("1\n2\n3\n4\n5\n6\n", 44, 5)]),
            "1\n2\n3\n3 more lines; openclawctl top shows all"
        );
        // A line that the terminal breaks counts as what it takes.
        let long = "x".repeat(50);
        assert_eq!(screen(&[(&long, 40, 5), ("y\n", 40, 5)]), "$ before\ny");
    }

    #[test]
    fn a_new_size_begins_anew_at_the_top() {
        assert_eq!(screen(&[("a\nb\nc\n", 20, 10), ("d\ne\n", 30, 8)]), "d\ne");
    }
}
