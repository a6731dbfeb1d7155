//! The files of one log.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{LogError, index::Index};
use crate::openclaw::file::open_regular;

/// A log's directory.
#[derive(Debug, Clone)]
pub(super) struct Directory(PathBuf);

/// One file of a log. It can be read to its end even after it was deleted.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    file: File,
    pub(super) index: Index,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The numbers of the files there are, rising; none if the instance has never run.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, LogError> {
        let failed = |source| LogError::List { path: self.0.clone(), source };
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            numbers.extend(number(Path::new(&entry.map_err(failed)?.file_name())));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Opens a file; `None` if it has been deleted.
    pub(super) fn open(&self, number: u64) -> Result<Option<Segment>, LogError> {
        let path = self.0.join(format!("gateway-{number:08}.log"));
        let file = match open_regular(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LogError::Open { path, source }),
        };
        let index = Index::new(path.with_extension("idx"));
        Ok(Some(Segment { number, file, index }))
    }
}

impl Segment {
    fn failed(&self, source: io::Error) -> LogError {
        LogError::Read { number: self.number, source }
    }

    pub(super) fn size(&self) -> Result<u64, LogError> {
        self.file.metadata().map(|data| data.len()).map_err(|error| self.failed(error))
    }

    /// Reads at most `buffer.len()` bytes from `offset` on; 0 at the end.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, LogError> {
        loop {
            match self.file.read_at(buffer, offset) {
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Whether a line begins at `offset`.
    pub(super) fn begins_line(&self, offset: u64) -> Result<bool, LogError> {
        let Some(before) = offset.checked_sub(1) else { return Ok(true) };
        let mut byte = [0];
        Ok(self.read_at(&mut byte, before)? == 0 || byte == *b"\n")
    }
}

/// The number of a log file, if `name` is one's.
fn number(name: &Path) -> Option<u64> {
    let digits = name.to_str()?.strip_prefix("gateway-")?.strip_suffix(".log")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
