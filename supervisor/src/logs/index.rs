//! What came when, and from whom.

use std::{cell::OnceCell, collections::VecDeque, fs::File, os::unix::fs::FileExt, path::PathBuf};

use crate::openclaw::file::open_regular;

/// Bytes of one record.
pub(super) const RECORD: usize = 24;

/// Records read at once: 12 KiB.
const AHEAD: usize = 512;

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// It holds from this offset on.
    pub(super) offset: u64,
    pub(super) unix_ms: u64,
    pub(super) incarnation: u64,
}

/// The index of one file. One that is missing or damaged only costs times, never lines.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// Opened when it is there: workers make it a moment after the log.
    file: OnceCell<File>,
}

impl Index {
    pub(super) fn new(path: PathBuf) -> Self {
        let index = Self { path, file: OnceCell::new() };
        // Now rather than when it is needed, which may be after it was deleted.
        let _ = index.file();
        index
    }

    fn file(&self) -> Option<&File> {
        if let Some(file) = self.file.get() {
            return Some(file);
        }
        let file = open_regular(&self.path).ok()?;
        Some(self.file.get_or_init(|| file))
    }

    fn count(&self) -> u64 {
        let size = self.file().and_then(|file| file.metadata().ok()).map_or(0, |data| data.len());
        size / RECORD as u64
    }

    fn record(&self, number: u64) -> Option<Stamp> {
        let mut bytes = [0; RECORD];
        self.file()?.read_exact_at(&mut bytes, number * RECORD as u64).ok()?;
        Some(decode(&bytes))
    }

    /// The number of the first record that is not `before`, where those that are come first.
    fn partition(&self, before: impl Fn(Stamp) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record(middle).is_some_and(&before) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Where what was captured at `unix_ms` or later begins, if anything was.
    pub(super) fn since(&self, unix_ms: u64) -> Option<u64> {
        let first = self.partition(|stamp| stamp.unix_ms < unix_ms);
        self.record(first).map(|stamp| stamp.offset)
    }
}

fn decode(bytes: &[u8]) -> Stamp {
    let mut fields = bytes.as_chunks::<8>().0.iter().map(|field| u64::from_le_bytes(*field));
    let mut next = || fields.next().unwrap_or_default();
    Stamp { offset: next(), unix_ms: next(), incarnation: next() }
}

/// Looks up rising offsets.
#[derive(Debug, Default)]
pub(super) struct Walk {
    current: Option<Stamp>,
    ahead: VecDeque<Stamp>,
    /// The number of the record after those in `ahead`; `None` before the first look.
    next: Option<u64>,
    /// There were no more records at the last look.
    dry: bool,
}

impl Walk {
    /// More has been written: records are written before what they describe, so only now can there be more.
    pub(super) fn grown(&mut self) {
        self.dry = false;
    }

    /// The record that holds at `offset`.
    pub(super) fn at(&mut self, index: &Index, offset: u64) -> Option<Stamp> {
        if self.next.is_none() {
            let after = index.partition(|stamp| stamp.offset <= offset);
            self.current = after.checked_sub(1).and_then(|number| index.record(number));
            self.next = Some(after);
        }
        while self.peek(index).is_some_and(|stamp| stamp.offset <= offset) {
            self.current = self.ahead.pop_front();
        }
        self.current
    }

    fn peek(&mut self, index: &Index) -> Option<Stamp> {
        if self.ahead.is_empty() && !self.dry {
            let next = self.next.unwrap_or(0);
            let mut bytes = [0; AHEAD * RECORD];
            let read = index.file().and_then(|file| file.read_at(&mut bytes, next * RECORD as u64).ok());
            let whole = bytes.get(..read.unwrap_or(0)).unwrap_or_default().as_chunks::<RECORD>().0;
            self.ahead.extend(whole.iter().map(|record| decode(record)));
            self.next = Some(next + whole.len() as u64);
            self.dry = whole.is_empty();
        }
        self.ahead.front().copied()
    }
}
