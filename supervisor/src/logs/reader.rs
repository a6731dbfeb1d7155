//! Reading forward, line by line, from file to file.

use std::path::PathBuf;

use super::{
    Cursor, Follow, Line, LogError, MAX_LINE, Request,
    cursor::Place,
    index::Walk,
    segment::{Directory, Segment},
    start::{self, First},
};

/// Bytes read at once.
const BLOCK: usize = 64 << 10;

/// Bytes of text handed out at once: far below what gRPC clients take in one message by default, 4 MiB.
const BATCH: usize = 256 << 10;

/// Lines handed out at once: short ones weigh more than their text, about 200 bytes each.
const BATCH_LINES: usize = 1_000;

/// What one call of [`Reader::read`] came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Some lines; there may be more at once.
    Lines(Vec<Line>),
    /// All there is has been handed out; there may be more later.
    Dry,
    /// All that was asked for has been handed out.
    End,
}

/// A place in a log that moves forward.
#[derive(Debug)]
pub struct Reader {
    instance: String,
    directory: Directory,
    /// Reading ends here, unless it follows.
    until: Option<Place>,
    /// The place of the first byte that has not been handed out.
    at: Place,
    open: Option<Open>,
    /// What has been read from `at` on.
    pending: Vec<u8>,
    /// So much of it holds no end of line.
    searched: usize,
    /// It may hold finished lines: the last batch was full.
    uncut: bool,
    first: First,
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    walk: Walk,
}

impl Reader {
    /// Finds where to begin in the log of `instance`, which is in `directory`.
    pub fn open(instance: &str, directory: PathBuf, request: &Request) -> Result<Self, LogError> {
        let directory = Directory::new(directory);
        let numbers = directory.numbers()?;
        let until = match request.follow {
            Follow::Yes => None,
            Follow::No => Some(start::end(&directory, &numbers)?),
        };
        let begin = start::find(&directory, &numbers, request)?;
        Ok(Self {
            instance: instance.into(),
            directory,
            until,
            at: begin.place,
            open: None,
            pending: Vec::new(),
            searched: 0,
            uncut: false,
            first: begin.first,
        })
    }

    /// Hands out the next lines.
    pub fn read(&mut self) -> Result<Step, LogError> {
        let mut lines = Vec::new();
        let mut size = 0;
        while size < BATCH && lines.len() < BATCH_LINES {
            let before = lines.len();
            if !self.uncut && !self.advance(&mut lines)? {
                return Ok(self.rest(lines));
            }
            self.cut(&mut lines);
            size += lines.iter().skip(before).map(|line| line.text.len()).sum::<usize>();
        }
        Ok(Step::Lines(lines))
    }

    /// Reads more, from the next file if need be; `false` if there is none.
    fn advance(&mut self, lines: &mut Vec<Line>) -> Result<bool, LogError> {
        if self.open.is_none() && !self.enter(lines)? {
            return Ok(false);
        }
        Ok(self.fill()? > 0 || self.leave(lines)?)
    }

    /// There is no more.
    fn rest(&mut self, mut lines: Vec<Line>) -> Step {
        if self.until.is_some() {
            self.finish(&mut lines);
        }
        match (lines.is_empty(), self.until) {
            (false, _) => Step::Lines(lines),
            (true, Some(_)) => Step::End,
            (true, None) => Step::Dry,
        }
    }

    /// Opens the file that `at` is in, or the first one after it; `false` if there is none.
    fn enter(&mut self, lines: &mut Vec<Line>) -> Result<bool, LogError> {
        loop {
            if let Some(segment) = self.directory.open(self.at.file)? {
                self.open = Some(Open { segment, walk: Walk::default() });
                return Ok(true);
            }
            let Some(next) = self.later(self.at.file)? else { return Ok(false) };
            // The first file has the number 1. A log that was still empty when reading began is at 0.
            let missed = next - self.at.file.max(1);
            self.skip_to(next, missed, lines)?;
        }
    }

    /// The number of the first file after `number`.
    fn later(&self, number: u64) -> Result<Option<u64>, LogError> {
        Ok(self.directory.numbers()?.into_iter().find(|later| *later > number))
    }

    /// Goes on with file `next`, after `missed` files that are gone.
    fn skip_to(&mut self, next: u64, missed: u64, lines: &mut Vec<Line>) -> Result<(), LogError> {
        self.open = None;
        self.at = Place { file: next, offset: 0 };
        if missed > 0 {
            let typical = self.directory.open(next)?.map(|segment| segment.size()).transpose()?;
            let gap_bytes = typical.unwrap_or(0).max(1).saturating_mul(missed);
            self.first = First::Wanted;
            lines.push(Line {
                text: Vec::new(),
                cursor: Cursor::new(self.at, &self.instance),
                unix_ms: None,
                incarnation: 0,
                gap_bytes,
            });
        }
        Ok(())
    }

    /// Reads on in the open file; 0 at its end, or where reading is to end.
    fn fill(&mut self) -> Result<usize, LogError> {
        let Some(open) = &mut self.open else { return Ok(0) };
        let held = self.pending.len();
        let from = self.at.offset + held as u64;
        let limit = match self.until {
            Some(until) if self.at.file > until.file => 0,
            Some(until) if self.at.file == until.file => until.offset.saturating_sub(from),
            Some(_) | None => BLOCK as u64,
        };
        let wanted = usize::try_from(limit).unwrap_or(BLOCK).min(BLOCK);
        self.pending.resize(held + wanted, 0);
        let read = open.segment.read_at(self.pending.get_mut(held..).unwrap_or_default(), from);
        self.pending.truncate(held + *read.as_ref().unwrap_or(&0));
        if matches!(read, Ok(1..)) {
            open.walk.grown();
        }
        read
    }

    /// At the end of the open file: goes on to the next one, if this one is complete; `false` if there is none.
    fn leave(&mut self, lines: &mut Vec<Line>) -> Result<bool, LogError> {
        let here = self.at.file;
        if self.until.is_some_and(|until| here >= until.file) {
            return Ok(false);
        }
        let Some(next) = self.later(here)? else { return Ok(false) };
        // A file is complete once a later one exists: what came before that is still to be read.
        if self.fill()? > 0 {
            return Ok(true);
        }
        self.finish(lines);
        self.skip_to(next, next - here - 1, lines)?;
        Ok(true)
    }

    /// Hands out the finished lines among what has been read, as far as the batch has room, and the parts of one
    /// that is too long.
    fn cut(&mut self, lines: &mut Vec<Line>) {
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        let mut searched = self.searched;
        self.uncut = false;
        while let Some(end) = rest.iter().skip(searched).position(|byte| *byte == b'\n') {
            if lines.len() >= BATCH_LINES {
                self.uncut = true;
                break;
            }
            let (line, after) = rest.split_at(searched + end);
            self.push_parts(line, 1, lines);
            rest = after.get(1..).unwrap_or_default();
            searched = 0;
        }
        while !self.uncut && rest.len() > MAX_LINE {
            let (part, after) = rest.split_at(MAX_LINE);
            self.push(part, 0, lines);
            rest = after;
        }
        self.searched = if self.uncut { searched } else { rest.len() };
        self.pending = rest.to_vec();
    }

    /// Hands out what has been read of an unfinished line.
    fn finish(&mut self, lines: &mut Vec<Line>) {
        let rest = std::mem::take(&mut self.pending);
        self.searched = 0;
        if !rest.is_empty() {
            self.push_parts(&rest, 0, lines);
        }
        self.first = First::Wanted;
    }

    /// A finished line, followed by `ending` bytes that are not part of it.
    fn push_parts(&mut self, line: &[u8], ending: u64, lines: &mut Vec<Line>) {
        let mut rest = line;
        while rest.len() > MAX_LINE {
            let (part, after) = rest.split_at(MAX_LINE);
            self.push(part, 0, lines);
            rest = after;
        }
        self.push(rest, ending, lines);
        if ending > 0 {
            self.first = First::Wanted;
        }
    }

    /// The next `text.len() + ending` bytes are handed out as one line.
    fn push(&mut self, text: &[u8], ending: u64, lines: &mut Vec<Line>) {
        let begin = self.at.offset;
        self.at.offset += text.len() as u64 + ending;
        if self.first == First::Rest {
            return;
        }
        let Some(open) = &mut self.open else { return };
        let stamp = open.walk.at(&open.segment.index, begin);
        lines.push(Line {
            text: text.to_vec(),
            cursor: Cursor::new(self.at, &self.instance),
            unix_ms: stamp.map(|stamp| stamp.unix_ms),
            incarnation: stamp.map_or(0, |stamp| stamp.incarnation),
            gap_bytes: 0,
        });
    }
}
