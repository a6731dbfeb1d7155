//! Lines that are longer and more than the screen: where one looks, and what is seen there.
//!
//! A place is a line and a row of it, so that finding what is seen costs a screenful however much there is.

use std::collections::VecDeque;

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthChar;

/// Lines that are kept; the oldest go.
const MOST_LINES: usize = 2_000;

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// What is seen when more lines come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// What was seen before.
    Stay,
    /// The last lines, unless somebody has looked further up.
    Follow,
}

/// The first row that is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    line: usize,
    row: usize,
}

/// Width and height of what is seen.
pub(crate) type Size = (usize, usize);

/// Lines, and where one looks.
#[derive(Debug)]
pub(crate) struct Pager {
    lines: VecDeque<Line<'static>>,
    manner: Manner,
    /// `None`: the end.
    top: Option<Place>,
}

impl Pager {
    /// Without lines.
    pub(crate) fn new(manner: Manner) -> Self {
        let top = match manner {
            Manner::Stay => Some(Place { line: 0, row: 0 }),
            Manner::Follow => None,
        };
        Self { lines: VecDeque::new(), manner, top }
    }

    /// Adds a line at the end.
    pub(crate) fn push(&mut self, line: Line<'static>) {
        if self.lines.len() == MOST_LINES {
            self.lines.pop_front();
            if let Some(top) = &mut self.top {
                *top = match top.line.checked_sub(1) {
                    Some(line) => Place { line, ..*top },
                    None => Place { line: 0, row: 0 },
                };
            }
        }
        self.lines.push_back(line);
    }

    /// Has these lines instead.
    pub(crate) fn replace(&mut self, lines: Vec<Line<'static>>) {
        let more = lines.len().saturating_sub(MOST_LINES);
        self.lines = lines.into_iter().skip(more).collect();
    }

    /// Whether the last lines are seen, and will be when more come.
    pub(crate) fn is_at_end(&self) -> bool {
        self.top.is_none()
    }

    /// Looks elsewhere.
    pub(crate) fn go(&mut self, to: Move, size: Size) {
        let (width, height) = size;
        let page = height.saturating_sub(1).max(1);
        let here = self.place(size);
        let there = match to {
            Move::Up => self.back(here, 1, width),
            Move::PageUp => self.back(here, page, width),
            Move::Down => self.forth(here, 1, width),
            Move::PageDown => self.forth(here, page, width),
            Move::Home => Place { line: 0, row: 0 },
            Move::End => self.last(size),
        };
        let last = self.last(size);
        self.top = match self.manner {
            Manner::Follow if there >= last => None,
            Manner::Follow | Manner::Stay => Some(there.min(last)),
        };
    }

    /// The rows that are seen.
    pub(crate) fn visible(&self, size: Size) -> Vec<Line<'static>> {
        let (width, height) = size;
        let Place { line, row } = self.place(size);
        let rows = self.lines.iter().skip(line).flat_map(|line| wrap(line, width));
        rows.skip(row).take(height).collect()
    }

    /// The first row that is seen, which is never so far down that rows would be left empty.
    fn place(&self, size: Size) -> Place {
        let last = self.last(size);
        self.top.map_or(last, |top| {
            let rows = self.rows(top.line, size.0);
            Place { row: top.row.min(rows.saturating_sub(1)), ..top }.min(last)
        })
    }

    /// The first row that is seen when the last one is.
    fn last(&self, (width, height): Size) -> Place {
        let Some(line) = self.lines.len().checked_sub(1) else { return Place { line: 0, row: 0 } };
        let row = self.rows(line, width).saturating_sub(1);
        self.back(Place { line, row }, height.saturating_sub(1), width)
    }

    fn back(&self, mut place: Place, mut rows: usize, width: usize) -> Place {
        while rows > place.row {
            let Some(line) = place.line.checked_sub(1) else { return Place { line: 0, row: 0 } };
            rows -= place.row + 1;
            place = Place { line, row: self.rows(line, width).saturating_sub(1) };
        }
        Place { row: place.row - rows, ..place }
    }

    fn forth(&self, mut place: Place, mut rows: usize, width: usize) -> Place {
        loop {
            let left = self.rows(place.line, width).saturating_sub(1).saturating_sub(place.row);
            if rows <= left {
                return Place { row: place.row + rows, ..place };
            }
            if place.line + 1 >= self.lines.len() {
                return Place { row: place.row + left, ..place };
            }
            rows -= left + 1;
            place = Place { line: place.line + 1, row: 0 };
        }
    }

    fn rows(&self, line: usize, width: usize) -> usize {
        self.lines.get(line).map_or(1, |line| wrap(line, width).len())
    }
}

/// How many bytes of `text` fit into `width` columns.
pub(crate) fn split(text: &str, width: usize) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            return at;
        }
    }
    text.len()
}

/// A line as rows of at most `width` columns.
pub(crate) fn wrap(line: &Line<'static>, width: usize) -> Vec<Line<'static>> {
    let mut rows = Vec::new();
    let mut row: Vec<Span<'static>> = Vec::new();
    let mut room = width;
    for span in &line.spans {
        let mut rest: &str = &span.content;
        while !rest.is_empty() {
            let at = split(rest, room);
            let (now, later) = rest.split_at(at);
            if !now.is_empty() {
                row.push(Span::styled(now.to_owned(), span.style));
            }
            room = room.saturating_sub(Span::raw(now).width());
            rest = later;
            if !rest.is_empty() {
                // A character that is wider than the screen is left out, or this would never end.
                if room == width && at == 0 {
                    rest = &rest[rest.chars().next().map_or(1, char::len_utf8)..];
                } else {
                    rows.push(Line::from(std::mem::take(&mut row)));
                    room = width;
                }
            }
        }
    }
    rows.push(Line::from(row));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pager(manner: Manner, lines: impl IntoIterator<Item = &'static str>) -> Pager {
        let mut pager = Pager::new(manner);
        lines.into_iter().for_each(|line| pager.push(Line::from(line)));
        pager
    }

    fn seen(pager: &Pager, size: Size) -> String {
        pager.visible(size).iter().map(Line::to_string).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn long_lines_take_several_rows_and_every_row_can_be_reached() {
        let mut pager = pager(Manner::Stay, ["aaaabbbbcc", "d", "", "eeeeff"]);
        assert_eq!(seen(&pager, (4, 3)), "aaaa|bbbb|cc");
        pager.go(Move::Down, (4, 3));
        assert_eq!(seen(&pager, (4, 3)), "bbbb|cc|d");
        pager.go(Move::PageDown, (4, 3));
        assert_eq!(seen(&pager, (4, 3)), "d||eeee");
        pager.go(Move::PageDown, (4, 3));
        assert_eq!(seen(&pager, (4, 3)), "|eeee|ff");
        pager.go(Move::PageUp, (4, 3));
        assert_eq!(seen(&pager, (4, 3)), "cc|d|");
        pager.go(Move::End, (4, 3));
        assert_eq!(seen(&pager, (4, 3)), "|eeee|ff");
        pager.go(Move::Home, (4, 3));
        assert_eq!(seen(&pager, (4, 3)), "aaaa|bbbb|cc");
        // Wider, there is nothing left to go to.
        assert_eq!(seen(&pager, (40, 9)), "aaaabbbbcc|d||eeeeff");
    }

    #[test]
    fn the_end_is_followed_until_somebody_looks_further_up() {
        let mut pager = pager(Manner::Follow, ["a", "b", "c"]);
        assert_eq!(seen(&pager, (9, 2)), "b|c");
        pager.push(Line::from("d"));
        assert_eq!(seen(&pager, (9, 2)), "c|d");
        pager.go(Move::Up, (9, 2));
        pager.push(Line::from("e"));
        assert_eq!(seen(&pager, (9, 2)), "b|c");
        assert!(!pager.is_at_end());
        pager.go(Move::PageDown, (9, 2));
        pager.go(Move::PageDown, (9, 2));
        assert!(pager.is_at_end());
        assert_eq!(seen(&pager, (9, 2)), "d|e");
    }

    #[test]
    fn what_is_seen_stays_while_the_oldest_lines_go() {
        let mut pager = pager(Manner::Follow, std::iter::repeat_n("x", MOST_LINES - 2).chain(["y", "z"]));
        pager.go(Move::Up, (9, 2));
        assert_eq!(seen(&pager, (9, 2)), "x|y");
        pager.push(Line::from("new"));
        assert_eq!(seen(&pager, (9, 2)), "x|y");
        pager.go(Move::Home, (9, 2));
        pager.push(Line::from("newer"));
        assert_eq!(seen(&pager, (9, 1)), "x");
    }

    #[test]
    fn no_width_and_no_text_is_too_small() {
        for size in [(0, 0), (1, 1), (0, 5), (5, 0)] {
            let mut pager = pager(Manner::Follow, ["日本語 text", ""]);
            for to in [Move::Up, Move::PageUp, Move::Home, Move::Down, Move::PageDown, Move::End] {
                pager.go(to, size);
                assert!(pager.visible(size).len() <= size.1);
            }
            Pager::new(Manner::Stay).go(Move::PageDown, size);
        }
        assert_eq!(wrap(&Line::from("a日b"), 2).len(), 3);
    }
}
