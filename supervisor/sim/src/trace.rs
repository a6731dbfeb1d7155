//! A world written down: one line of JSON for what it is made of, one for each thing that happens and each action,
//! and one for how it ended. Such a file can be run again, compared, stepped through and made smaller.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use supervisor_core::{action::Action, event::Event};

use crate::{
    fault::Setup,
    words,
    world::{Outcome, run},
};

/// Lines that are written down of one world. The longest of ten thousand had a tenth of that.
const LINES: usize = 1_000_000;

/// What kind of thing a line tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Something that core does not see.
    World(String),
    /// Something that core is told.
    Event(String),
    /// Something that core asks for, and that is begun.
    Action(String),
    /// How the world ended.
    End(String),
}

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, in seconds since the world began.
    pub at: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

impl Line {
    /// Its words.
    #[must_use]
    pub fn text(&self) -> &str {
        match &self.what {
            What::World(text) | What::Event(text) | What::Action(text) | What::End(text) => text,
        }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = match self.what {
            What::World(_) => "*",
            What::Event(_) => " ",
            What::Action(_) => "    ->",
            What::End(_) => "=",
        };
        write!(f, "{:>13} {sign} {}", self.at, self.text())
    }
}

/// Whether a run is written down, and how fully.
#[derive(Debug)]
pub enum Scribe {
    /// It is not: fast.
    Idle,
    /// Everything is.
    Full(Vec<Line>),
    /// Everything but what comes of itself: probes, and ticks, answers and writes from which nothing follows.
    Story {
        /// What is written down.
        lines: Vec<Line>,
        /// What is written down if something follows from it.
        pending: Option<Line>,
    },
}

impl Scribe {
    /// One that writes everything.
    #[must_use]
    pub fn full() -> Self {
        Self::Full(Vec::new())
    }

    /// One that tells a story.
    #[must_use]
    pub fn story() -> Self {
        Self::Story { lines: Vec::new(), pending: None }
    }

    fn line(&mut self, at: Duration, routine: bool, what: impl FnOnce() -> What) {
        let line = || Line { at: format!("{:.6}", at.as_secs_f64()), what: what() };
        match self {
            Self::Full(lines) if lines.len() < LINES => lines.push(line()),
            Self::Story { pending, .. } if routine => *pending = Some(line()),
            Self::Story { lines, pending } if lines.len() < LINES => {
                let line = line();
                let before = pending.take().filter(|_| matches!(line.what, What::Action(_)));
                lines.extend(before.into_iter().chain([line]));
            }
            Self::Idle | Self::Full(_) | Self::Story { .. } => {}
        }
    }

    pub(crate) fn happening(&mut self, at: Duration, text: impl FnOnce() -> String) {
        self.line(at, false, || What::World(text()));
    }

    pub(crate) fn event(&mut self, at: Duration, event: &Event, calm: bool) {
        let routine = matches!(event, Event::Tick | Event::Probed(..) | Event::Stored(_));
        if !(calm && matches!(event, Event::Tick | Event::Probed(..))) {
            self.line(at, routine, || What::Event(words::event(event)));
        }
    }

    pub(crate) fn action(&mut self, at: Duration, action: &Action, calm: bool) {
        let probe = matches!(action, Action::Probe { .. });
        if !(probe && (calm || matches!(self, Self::Story { .. }))) {
            self.line(at, false, || What::Action(words::action(action)));
        }
    }

    pub(crate) fn into_lines(self) -> Vec<Line> {
        match self {
            Self::Idle => Vec::new(),
            Self::Full(lines) | Self::Story { lines, .. } => lines,
        }
    }
}

/// The first line of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The story in one line. Where there is one, only what belongs to a story is written down.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// What the world is made of.
    pub setup: Setup,
}

/// A world and all that happened in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What it is.
    pub header: Header,
    /// What happened.
    pub lines: Vec<Line>,
}

/// A trace cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file.
    #[error("failed to read or write `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line.
    #[error("line {line} of `{path}` is no line of a trace")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// Nothing in it.
    #[error("`{0}` is empty")]
    Empty(PathBuf),
}

impl Trace {
    /// Runs a world and writes it down.
    #[must_use]
    pub fn of(header: Header) -> (Self, Outcome) {
        let scribe = if header.title.is_empty() { Scribe::full() } else { Scribe::story() };
        let mut outcome = run(&header.setup, scribe);
        let mut lines = std::mem::take(&mut outcome.lines);
        let end = match &outcome.violation {
            Some(violation) => violation.to_string(),
            None => "all is well".into(),
        };
        lines.push(Line { at: format!("{:.6}", outcome.lasted.as_secs_f64()), what: What::End(end) });
        (Self { header, lines }, outcome)
    }

    /// Runs its world again, and says at which line it goes another way, if it does.
    #[must_use]
    pub fn replay(&self) -> (Self, Option<usize>) {
        let (again, _) = Self::of(self.header.clone());
        let same = self.lines.iter().zip(&again.lines).take_while(|(before, now)| before == now).count();
        let differs = same < self.lines.len().max(again.lines.len());
        (again, differs.then_some(same))
    }

    /// Whether it tells all of these, one after the other. What begins with `!` must not be told before the next.
    #[must_use]
    pub fn tells(&self, words: &[String]) -> bool {
        let mut lines = self.lines.iter().map(Line::text);
        let mut never = None;
        for word in words {
            if let Some(word) = word.strip_prefix('!') {
                never = Some(word);
                continue;
            }
            let next =
                lines.find(|line| line.contains(word.as_str()) || never.is_some_and(|it| line.contains(it)));
            if next.is_none_or(|line| never.take().is_some_and(|it| line.contains(it))) {
                return false;
            }
        }
        true
    }

    /// Reads a trace.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = |source| Error::File { path: path.into(), source };
        let mut lines = BufReader::new(File::open(path).map_err(file)?).lines();
        let wrong = |line| move |source| Error::Line { path: path.into(), line, source };
        let first = lines.next().ok_or_else(|| Error::Empty(path.into()))?.map_err(file)?;
        let header = serde_json::from_str(&first).map_err(wrong(1))?;
        let mut rest = Vec::new();
        for (number, line) in lines.enumerate() {
            rest.push(serde_json::from_str(&line.map_err(file)?).map_err(wrong(number + 2))?);
        }
        Ok(Self { header, lines: rest })
    }

    /// Writes it, one line each.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "{}", serde_json::to_string(&self.header)?)?;
        self.lines.iter().try_for_each(|line| writeln!(to, "{}", serde_json::to_string(line)?))
    }
}
