//! One instance on the whole screen: everything about it, its events, or its log.

use std::collections::VecDeque;

use ratatui::text::Line;
use supervisor_proto::v1::{Event, LogLine};

use super::{
    fleet::Fleet,
    look::Look,
    pager::{Manner, Move, Pager, Size},
};
use crate::render::{
    detail::{self, Story},
    events::Lines,
    status::{Breadth, bytes},
    style,
};

/// Events that a page of them keeps; the oldest go.
pub(crate) const MOST_EVENTS: usize = 500;
/// The last events shown with all else about an instance.
pub(crate) const FEW_EVENTS: usize = 5;
/// Lines of a log that one begins with.
pub(crate) const LOG_TAIL: u64 = 500;
/// Of a line of a log; a gateway's lines may be 64 KiB.
const LINE_CHARS: usize = 2_000;
/// Between the stops of tabs.
const TAB: usize = 8;

/// What a page is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Details(String),
    Events(String),
    Log(String),
}

impl Subject {
    /// The instance.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Details(name) | Self::Events(name) | Self::Log(name) => name,
        }
    }

    /// What is shown of it.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Details(_) => "details",
            Self::Events(_) => "events",
            Self::Log(_) => "log",
        }
    }

    /// How many of its last events are needed.
    pub(crate) fn events(&self) -> usize {
        match self {
            Self::Details(_) => FEW_EVENTS,
            Self::Events(_) => MOST_EVENTS,
            Self::Log(_) => 0,
        }
    }
}

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Tells what was asked for by this page from what an earlier one had asked for.
    pub(crate) number: u64,
    pub(crate) subject: Subject,
    events: VecDeque<Event>,
    pager: Pager,
    /// What it waits for or why nothing comes, in a sentence; empty when all is well.
    problem: String,
    /// For which width the lines were made; `None` if not from what is known now.
    made_for: Option<usize>,
}

impl Page {
    /// An empty page.
    pub(crate) fn new(number: u64, subject: Subject) -> Self {
        let manner = match subject {
            Subject::Details(_) => Manner::Stay,
            Subject::Events(_) | Subject::Log(_) => Manner::Follow,
        };
        let problem = "being read".to_owned();
        Self { number, subject, events: VecDeque::new(), pager: Pager::new(manner), problem, made_for: None }
    }

    /// Events have come: all there are to show, or further ones.
    pub(crate) fn take_events(&mut self, events: Vec<Event>, all: bool) {
        if all {
            self.events.clear();
        }
        self.events.extend(events);
        let more = self.events.len().saturating_sub(self.subject.events());
        self.events.drain(..more);
        self.made_for = None;
        self.problem = match (&self.subject, self.events.is_empty()) {
            (Subject::Events(_), true) => "nothing has happened to it".to_owned(),
            (Subject::Events(_) | Subject::Details(_) | Subject::Log(_), _) => String::new(),
        };
    }

    /// Lines of its log have come.
    pub(crate) fn take_log(&mut self, lines: &[LogLine], look: Look) {
        self.problem.clear();
        for line in lines {
            self.pager.push(log_line(line, look));
        }
    }

    /// Nothing comes, for this reason.
    pub(crate) fn trouble(&mut self, why: String) {
        self.problem = why;
    }

    /// What stands in the way of seeing more; empty if nothing does.
    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }

    /// Whether more will be shown as it comes.
    pub(crate) fn is_following(&self) -> bool {
        self.pager.is_at_end()
    }

    /// Looks elsewhere.
    pub(crate) fn go(&mut self, to: Move, size: Size) {
        self.pager.go(to, size);
    }

    /// Brings the lines up to date, and gives those that are seen.
    pub(crate) fn visible(&mut self, fleet: &Fleet, look: Look, size: Size) -> Vec<Line<'static>> {
        let width = size.0;
        match &self.subject {
            // Its times go on with each second.
            Subject::Details(name) => {
                let mut text = String::new();
                match fleet.get(name) {
                    Some(instance) => {
                        let events = self.events.make_contiguous();
                        let story = Story { instance, events, trend: None };
                        detail::sheet(&story, look.marks, Some(width), &mut text);
                    }
                    None => text = format!("there is no instance called {} any more", style::printable(name)),
                }
                self.pager.replace(look.painted(&text));
            }
            Subject::Events(_) if self.made_for != Some(width) => {
                let text = Lines::within(Breadth::Narrow, Some(width)).text(self.events.make_contiguous());
                self.pager.replace(look.painted(&text));
                self.made_for = Some(width);
            }
            Subject::Events(_) | Subject::Log(_) => {}
        }
        self.pager.visible(size)
    }
}

/// What a gateway prints is its agent's to choose: nothing of it is obeyed.
fn log_line(line: &LogLine, look: Look) -> Line<'static> {
    if line.gap_bytes > 0 {
        let told = format!("({} were rotated away before they were read)", bytes(line.gap_bytes));
        return Line::styled(told, look.style(style::FAINT));
    }
    let text = String::from_utf8_lossy(&line.text);
    let mut shown = String::new();
    let mut column = 0;
    for c in text.chars().take(LINE_CHARS) {
        let wide = if c == '\t' { TAB - column % TAB } else { 1 };
        match c {
            '\t' => shown.extend(std::iter::repeat_n(' ', wide)),
            c => shown.push(c),
        }
        column += wide;
    }
    if text.chars().nth(LINE_CHARS).is_some() {
        shown.push_str(" (and more)");
    }
    Line::raw(look.text(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::style::Marks;

    const LOOK: Look = Look { marks: Marks::Shown, colored: false };

    fn told(text: &str) -> String {
        log_line(&LogLine { text: text.into(), ..Default::default() }, LOOK).to_string()
    }

    #[test]
    fn a_line_of_a_log_is_shown_and_not_obeyed() {
        assert_eq!(told("a\tb\u{1b}[2J\r"), "a       b\u{fffd}[2J\u{fffd}");
        assert!(told(&"x".repeat(70_000)).ends_with("x (and more)"));
        assert!(told(&"x".repeat(70_000)).len() < 2_020);
        let gap = LogLine { gap_bytes: 2_048, ..Default::default() };
        assert_eq!(log_line(&gap, LOOK).to_string(), "(2 KiB were rotated away before they were read)");
    }

    #[test]
    fn a_page_of_events_keeps_the_last_ones_and_says_when_there_are_none() {
        let mut page = Page::new(1, Subject::Events("main".into()));
        let fleet = Fleet::new();
        page.take_events(Vec::new(), true);
        assert_eq!(page.problem(), "nothing has happened to it");
        let event = |revision: u64| Event {
            revision,
            instance: "main".into(),
            message: format!("number {revision}."),
            ..Default::default()
        };
        page.take_events((0..600).map(event).collect(), false);
        assert_eq!(page.problem(), "");
        let seen = page.visible(&fleet, LOOK, (60, 2));
        assert_eq!(seen.last().unwrap().to_string(), "-  main  info     number 599");
        page.go(Move::Home, (60, 2));
        assert_eq!(page.visible(&fleet, LOOK, (60, 2))[0].to_string(), "-  main  info     number 100");
        page.take_events(vec![event(7)], true);
        assert_eq!(page.visible(&fleet, LOOK, (60, 2)).len(), 1);
    }
}
