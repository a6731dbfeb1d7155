//! The files of the captured log.
//!
//! `gateway-00000001.log`, `gateway-00000002.log` and so on: a file is never renamed and never written
//! to again once a later one exists, so a reader's position in it stays good. `gateway.log` is a link to the
//! current one. Beside each stands `gateway-00000001.idx`, which says what came when and from whom, without
//! touching the gateway's bytes: records of 24 bytes, three little-endian 64-bit numbers each,
//!
//! ```text
//! offset in the .log │ milliseconds since the Unix epoch │ incarnation
//! ```
//!
//! A record is written before the bytes it describes. It holds from its offset to the next record's; of two
//! with one offset the later holds. Each file starts with one, as does each incarnation's output; others
//! follow at most every 100 ms, so a line's time is known that exactly.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use supervisor_proto::worker::LogPolicy;

use crate::clock;
use crate::complain::complain;
use crate::directory::Directory;
use crate::life::Incarnation;

/// How closely the index tells the time of a line.
const STAMP_EVERY: Duration = Duration::from_millis(100);

/// Bytes of one index record.
const STAMP: usize = 24;

/// How far a line may carry a file past its size before it is cut: output without any line end must not
/// make one endless file.
const LINE_OVERRUN: u64 = 1 << 20;

/// The link to the current file, and its name while it is made.
const LINK: &str = "gateway.log";
const FRESH_LINK: &str = ".gateway.log.new";

/// Digits of a number that is believed. A file for every nanosecond would not need more in ten days, and what an
/// agent makes up must not bring the count to its end.
const MOST_DIGITS: usize = 15;

/// Numbers tried for a new file. Only who puts obstacles in the way makes more than one necessary.
const NUMBERS_TRIED: u64 = 16;

/// Not everything was written.
#[derive(Debug)]
pub(crate) struct Short {
    /// Bytes that were.
    pub(crate) written: usize,
    /// Why no more.
    pub(crate) error: io::Error,
}

/// The file being written, with its index.
#[derive(Debug)]
struct Current {
    number: u64,
    log: File,
    size: u64,
    index: File,
    index_size: u64,
}

/// The files of one log directory, written by this process only.
#[derive(Debug)]
pub(crate) struct Segments {
    path: PathBuf,
    max_bytes: u64,
    max_files: usize,
    /// `None` until it could be opened, and once it is gone.
    directory: Option<Directory>,
    /// `None` without a directory.
    current: Option<Current>,
    /// The numbers of the files that are kept, the current one last.
    kept: VecDeque<u64>,
    line: Line,
    incarnation: Incarnation,
    /// When the last index record was written; `None` if one is due before anything else.
    stamped: Option<Instant>,
}

/// Where in a line the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Ended,
    Open,
}

impl Segments {
    /// Continues the log that `policy` describes. A directory that cannot be used now is tried again with
    /// the first output.
    pub(crate) fn open(policy: &LogPolicy) -> Self {
        let mut segments = Self {
            path: PathBuf::from(&policy.directory),
            max_bytes: policy.max_file_bytes,
            max_files: usize::try_from(policy.max_files).unwrap_or(usize::MAX),
            directory: None,
            current: None,
            kept: VecDeque::new(),
            line: Line::Ended,
            incarnation: Incarnation(0),
            stamped: None,
        };
        if let Err(error) = segments.resume() {
            complain(format_args!("failed to open the log in `{}`: {error}", segments.path.display()));
        }
        segments
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is written from now on comes from `incarnation`. A line that the one before it left open ends
    /// here.
    pub(crate) fn begin(&mut self, incarnation: Incarnation) -> Result<(), Short> {
        self.incarnation = incarnation;
        let ended = self.end_line();
        self.stamped = None;
        ended
    }

    /// Ends an open line.
    pub(crate) fn end_line(&mut self) -> Result<(), Short> {
        match self.line {
            Line::Ended => Ok(()),
            Line::Open => self.append(b"\n"),
        }
    }

    /// Writes `data`, in as many files as the policy demands.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), Short> {
        let mut written = 0;
        while written < data.len() {
            let rest = data.get(written..).unwrap_or_default();
            match self.append_part(rest) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Short { written, error }),
            }
        }
        Ok(())
    }

    /// Writes `text` as a line of its own or not at all.
    pub(crate) fn append_line(&mut self, text: &str) -> Result<(), Short> {
        self.end_line()?;
        let before = self.current.as_ref().map(|current| (current.number, current.size));
        let outcome = self.append(format!("{text}\n").as_bytes());
        if outcome.is_err()
            && let Some(current) = &mut self.current
            && let Some((number, size)) = before
            && current.number == number
            && current.log.set_len(size).is_ok()
        {
            current.size = size;
            self.line = Line::Ended;
        }
        outcome
    }

    /// Writes the front of `data` to one file, and says how much of it.
    fn append_part(&mut self, data: &[u8]) -> io::Result<usize> {
        self.make_room()?;
        self.stamp();
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let part = data.get(..cut(data, current.size, self.max_bytes)).unwrap_or(data);
        let length = current.log.write_at(part, current.size)?;
        let Some(last) = length.checked_sub(1) else { return Err(io::ErrorKind::WriteZero.into()) };
        current.size += length as u64;
        self.line = if part.get(last) == Some(&b'\n') { Line::Ended } else { Line::Open };
        Ok(length)
    }

    /// Makes sure that there is a current file which takes at least one more byte.
    fn make_room(&mut self) -> io::Result<()> {
        let Some(current) = &self.current else { return self.resume() };
        let full = match self.line {
            Line::Ended => current.size >= self.max_bytes,
            Line::Open => current.size >= self.max_bytes.saturating_add(LINE_OVERRUN),
        };
        if full { self.advance(current.number + 1) } else { Ok(()) }
    }

    /// Goes on with the highest file there is, or starts with the first.
    fn resume(&mut self) -> io::Result<()> {
        let directory = Directory::open(&self.path)?;
        self.kept = numbers(&directory, self.max_files)?;
        let last = self.kept.back().copied();
        let open = last.map(|number| reopen(&directory, number)).transpose()?.flatten();
        self.directory = Some(directory);
        match (open, last) {
            (Some(current), _) => self.enter(current),
            (None, Some(taken)) => self.advance(taken + 1),
            (None, None) => self.advance(1),
        }
    }

    /// Makes a new file the current one, with the first number from `number` on that is free. Old files go first,
    /// because they may hold the very space it needs.
    fn advance(&mut self, number: u64) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Err(io::ErrorKind::NotFound.into()) };
        while self.kept.len() >= self.max_files
            && let Some(oldest) = self.kept.pop_front()
        {
            remove(directory, oldest);
        }
        for number in number..number.saturating_add(NUMBERS_TRIED) {
            match create(directory, number) {
                Ok(current) => {
                    self.kept.push_back(number);
                    return self.enter(current);
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory) => {
                }
                Err(error) => {
                    if error.kind() == io::ErrorKind::NotFound {
                        // It has been deleted; the next attempt makes it anew.
                        self.directory = None;
                        self.current = None;
                    }
                    return Err(error);
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn enter(&mut self, current: Current) -> io::Result<()> {
        let (number, size) = (current.number, current.size);
        self.line = if ends_open(&current.log, size)? { Line::Open } else { Line::Ended };
        self.current = Some(current);
        self.stamped = None;
        if let Some(directory) = &self.directory
            && let Err(error) = directory.point(LINK, &file_name(number, "log"), FRESH_LINK)
        {
            complain(format_args!("failed to point `{LINK}` to file {number}: {error}"));
        }
        Ok(())
    }

    /// Writes an index record if one is due. If that fails it stays due: times become coarse, no output is
    /// lost.
    fn stamp(&mut self) {
        let now = Instant::now();
        if self.stamped.is_some_and(|at| now.duration_since(at) < STAMP_EVERY) {
            return;
        }
        let Some(current) = &mut self.current else { return };
        let unix_ms = u64::try_from(clock::unix_ms()).unwrap_or(0);
        let mut record = [0; STAMP];
        let fields = [current.size, unix_ms, self.incarnation.0];
        for (place, field) in record.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        if current.index.write_all_at(&record, current.index_size).is_ok() {
            current.index_size += STAMP as u64;
            self.stamped = Some(now);
        }
    }
}

fn file_name(number: u64, extension: &str) -> String {
    format!("gateway-{number:08}.{extension}")
}

/// The number of a log file, if `name` is that of one.
fn number(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_prefix("gateway-")?.strip_suffix(".log")?;
    let fits = digits.len() <= MOST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok())?
}

/// The highest numbers in `directory`, in order; files beyond `most` are removed.
fn numbers(directory: &Directory, most: usize) -> io::Result<VecDeque<u64>> {
    let mut numbers = VecDeque::new();
    directory.each(|name| {
        let Some(number) = number(name) else { return };
        numbers.insert(numbers.partition_point(|&other| other < number), number);
        if numbers.len() > most
            && let Some(oldest) = numbers.pop_front()
        {
            remove(directory, oldest);
        }
    })?;
    Ok(numbers)
}

fn remove(directory: &Directory, number: u64) {
    for extension in ["log", "idx"] {
        let _ = directory.remove(&file_name(number, extension));
    }
}

/// File `number` of an earlier time, unless it is not what it was.
fn reopen(directory: &Directory, number: u64) -> io::Result<Option<Current>> {
    let Some(log) = directory.reopen(&file_name(number, "log"))? else { return Ok(None) };
    let index = match directory.reopen(&file_name(number, "idx")) {
        Ok(index) => index,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(directory.create(&file_name(number, "idx"))?)
        }
        Err(error) => return Err(error),
    };
    index.map(|index| Current::of(number, log, index)).transpose()
}

/// A new file `number`. What lies in the place of its index belongs to no log.
fn create(directory: &Directory, number: u64) -> io::Result<Current> {
    let name = file_name(number, "log");
    let log = directory.create(&name)?;
    let index = file_name(number, "idx");
    match directory.remove(&index).and_then(|()| directory.create(&index)) {
        Ok(index) => Current::of(number, log, index),
        Err(error) => {
            let _ = directory.remove(&name);
            Err(error)
        }
    }
}

impl Current {
    fn of(number: u64, log: File, index: File) -> io::Result<Self> {
        let (size, index_size) = (log.metadata()?.len(), index.metadata()?.len());
        Ok(Self { number, log, size, index, index_size: index_size - index_size % STAMP as u64 })
    }
}

fn ends_open(log: &File, size: u64) -> io::Result<bool> {
    let Some(last) = size.checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    log.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

/// How many bytes of `data` belong into a file of `size` bytes: up to the end of the line that reaches
/// `max`, or as far as a line may overrun it.
fn cut(data: &[u8], size: u64, max: u64) -> usize {
    let room = usize::try_from(max.saturating_sub(size)).unwrap_or(usize::MAX);
    if data.len() < room {
        return data.len();
    }
    let from = room.saturating_sub(1);
    let line_end = data.iter().skip(from).position(|&byte| byte == b'\n');
    let limit = max.saturating_add(LINE_OVERRUN).saturating_sub(size);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(data.len());
    line_end.map_or(limit, |distance| (from + distance + 1).min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_ends_with_the_line_that_reaches_its_size() {
        assert_eq!(cut(b"ab\ncd\n", 0, 100), 6);
        assert_eq!(cut(b"ab\ncd\n", 0, 6), 6);
        assert_eq!(cut(b"ab\ncd\nef\n", 0, 4), 6);
        assert_eq!(cut(b"ab\ncd\n", 8, 10), 3);
        assert_eq!(cut(b"ab\ncd\n", 7, 10), 3);
        assert_eq!(cut(b"ab\ncd\n", 10, 10), 3);
        assert_eq!(cut(b"abcdef", 8, 10), 6);
    }

    #[test]
    fn a_line_without_end_is_cut_at_the_overrun() {
        assert_eq!(cut(&[b'x'; 10], LINE_OVERRUN + 6, 10), 4);
        assert_eq!(cut(b"xxxxx\n", LINE_OVERRUN + 6, 10), 4);
    }

    #[test]
    fn only_log_files_have_numbers() {
        let number = |name: &str| number(OsStr::new(name));
        assert_eq!(number("gateway-00000012.log"), Some(12));
        assert_eq!(number("gateway-100000000.log"), Some(100_000_000));
        assert_eq!(number("gateway-00000012.idx"), None);
        assert_eq!(number("gateway-+1.log"), None);
        assert_eq!(number("gateway-.log"), None);
        assert_eq!(number("gateway.log"), None);
        assert_eq!(number("gateway-18446744073709551615.log"), None);
    }

    #[test]
    fn the_highest_numbers_are_kept_in_order_and_the_others_removed() {
        let world = tempfile::tempdir().unwrap();
        let directory = Directory::open(world.path()).unwrap();
        for number in [3, 900, 1, 77, 2] {
            create(&directory, number).unwrap();
        }
        assert_eq!(numbers(&directory, 3).unwrap(), [3, 77, 900]);
        assert_eq!(numbers(&directory, 100).unwrap(), [3, 77, 900]);
    }
}
