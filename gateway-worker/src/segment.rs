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

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use supervisor_proto::worker::LogPolicy;

use crate::clock;
use crate::complain::complain;
use crate::life::Incarnation;

/// How closely the index tells the time of a line.
const STAMP_EVERY: Duration = Duration::from_millis(100);

/// Bytes of one index record.
const STAMP: usize = 24;

/// How far a line may carry a file past its size before it is cut: output without any line end must not
/// make one endless file.
const LINE_OVERRUN: u64 = 1 << 20;

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
    directory: PathBuf,
    max_bytes: u64,
    max_files: u64,
    /// `None` until the directory could be opened.
    current: Option<Current>,
    /// The lowest file number that may still exist.
    oldest: u64,
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
            directory: PathBuf::from(&policy.directory),
            max_bytes: policy.max_file_bytes,
            max_files: u64::from(policy.max_files),
            current: None,
            oldest: 1,
            line: Line::Ended,
            incarnation: Incarnation(0),
            stamped: None,
        };
        if let Err(error) = segments.resume() {
            complain(format_args!("failed to open the log in `{}`: {error}", segments.directory.display()));
        }
        segments
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
        if full { self.enter(current.number + 1) } else { Ok(()) }
    }

    /// Finds the highest file there is, or starts with the first.
    fn resume(&mut self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let mut numbers: Vec<u64> =
            fs::read_dir(&self.directory)?.flatten().filter_map(|entry| number(&entry.path())).collect();
        numbers.sort_unstable();
        self.oldest = numbers.first().copied().unwrap_or(1);
        self.enter(numbers.last().copied().unwrap_or(1))
    }

    /// Makes file `number` the current one. Old files go first, because they may hold the very space it
    /// needs.
    fn enter(&mut self, number: u64) -> io::Result<()> {
        while self.oldest.saturating_add(self.max_files) <= number {
            for extension in ["log", "idx"] {
                let _ = fs::remove_file(self.path(self.oldest, extension));
            }
            self.oldest += 1;
        }
        let (log, size) = open(&self.path(number, "log"))?;
        let (index, index_size) = open(&self.path(number, "idx"))?;
        self.line = if ends_open(&log, size)? { Line::Open } else { Line::Ended };
        let index_size = index_size - index_size % STAMP as u64;
        self.current = Some(Current { number, log, size, index, index_size });
        self.stamped = None;
        if let Err(error) = self.point_link(number) {
            complain(format_args!("failed to point `gateway.log` to file {number}: {error}"));
        }
        Ok(())
    }

    fn point_link(&self, number: u64) -> io::Result<()> {
        let target = file_name(number, "log");
        let link = self.directory.join("gateway.log");
        if fs::read_link(&link).is_ok_and(|old| old.as_os_str() == target.as_str()) {
            return Ok(());
        }
        let fresh = self.directory.join(".gateway.log.new");
        let _ = fs::remove_file(&fresh);
        symlink(target, &fresh)?;
        fs::rename(&fresh, &link)
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.directory.join(file_name(number, extension))
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

/// The number of a log file, if `path` is one.
fn number(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("gateway-")?.strip_suffix(".log")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
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
        assert_eq!(number(Path::new("/l/gateway-00000012.log")), Some(12));
        assert_eq!(number(Path::new("/l/gateway-100000000.log")), Some(100_000_000));
        assert_eq!(number(Path::new("/l/gateway-00000012.idx")), None);
        assert_eq!(number(Path::new("/l/gateway-+1.log")), None);
        assert_eq!(number(Path::new("/l/gateway-.log")), None);
        assert_eq!(number(Path::new("/l/gateway.log")), None);
    }
}
