//! The gateways' captured output, read where their workers write it.
//!
//! A log is a directory of numbered files that are never renamed: `gateway-00000001.log` and so on, the highest
//! being written, the oldest deleted when there are too many. So a place in it is a file's number and an
//! offset, good for as long as the file exists. Beside each file stands its index, `gateway-00000001.idx`, which
//! says when its bytes were captured and from which incarnation:
//!
//! ```text
//! offset in the .log │ milliseconds since the Unix epoch │ incarnation      (u64, little-endian, each)
//! ```
//!
//! A record holds from its offset to the next record's. Reading takes a bounded amount of memory, whatever the
//! files' sizes, and never disturbs the writer. All of it blocks on the disk: callers use a thread for that.

mod cursor;
mod index;
mod notice;
mod reader;
mod segment;
mod start;

use std::{io, path::PathBuf};

pub use cursor::Cursor;
pub use notice::{Notice, Notices};
pub use reader::{Reader, Step};

/// A line longer than this comes in parts.
pub const MAX_LINE: usize = 64 << 10;

/// What is wanted of a log.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Begin with this many last lines.
    pub tail: Option<u64>,
    /// Only lines captured since then, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Go on after the line that had this cursor; the two above do not count then.
    pub after: Option<Cursor>,
    /// What happens at the end.
    pub follow: Follow,
}

/// What happens at the end of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Follow {
    /// Reading ends where the log ended when it began, an unfinished line included.
    #[default]
    No,
    /// Reading waits for more; a line comes when it is finished.
    Yes,
}

/// One line, or a part of a very long one, or what is known of missing ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Without its end of line.
    pub text: Vec<u8>,
    /// The place after it.
    pub cursor: Cursor,
    /// When it was captured, in milliseconds since the Unix epoch, if the index says so.
    pub unix_ms: Option<u64>,
    /// From which incarnation; 0 if the index does not say.
    pub incarnation: u64,
    /// Not a line: about this many bytes before this place were deleted before they were read. Nobody knows
    /// how large a deleted file was, so each counts as large as the next one that is still there.
    pub gap_bytes: u64,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directory cannot be read.
    #[error("failed to list `{path}`")]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be opened.
    #[error("failed to open `{path}`")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("failed to read log file {number}")]
    Read {
        /// Its number.
        number: u64,
        /// Why.
        source: io::Error,
    },
    /// The cursor names a place that this log never had.
    #[error("the cursor does not belong to this log")]
    InvalidCursor,
}

#[cfg(test)]
mod tests;
