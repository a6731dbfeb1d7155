//! A configuration looked at and left alone: what a start with it would say.
//!
//! The same rules as those of a start, from the same code, but nothing is completed, no mode is mended, and a
//! missing value that a start would add is no fault. So an edit can be judged while the gateway still runs on
//! the configuration before it, and a candidate before anybody writes it.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::fs::{Mode, OFlags, open};
use supervisor_core::event::Sighting;

use super::{
    ConfigError, EMPTY, MAX_BYTES, Wanted,
    credentials::{self, Named, Purse},
    document, edit, is_blank, pin,
};
use crate::openclaw::snapshots::content_id;

/// What is found where an instance's configuration is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// For core. Which life uses it is not known here.
    pub sighting: Sighting,
    /// The file, byte for byte; `None` if there is none, or it cannot be read.
    pub content: Option<Vec<u8>>,
    /// The credentials, with the places that they stand in.
    pub credentials: Vec<Named>,
}

/// Looks at an instance's configuration. Blocks on the disk.
#[must_use]
pub fn look(wanted: &Wanted<'_>, purse: &Purse<'_>) -> Look {
    let path = &wanted.directories.config;
    let content = match read_plainly(path) {
        Ok(Some(content)) => content,
        // The next start makes one.
        Ok(None) => return Look::default(),
        Err(error) => {
            let sighting = Sighting { problem: Some(told(&error)), ..Sighting::default() };
            return Look { sighting, ..Look::default() };
        }
    };
    let problem = check(wanted, &content).err().map(|error| told(&error));
    // What cannot be read names nobody: the gateway that runs has what it read before.
    let credentials = std::str::from_utf8(&content)
        .map(|text| credentials::of(text, wanted.directories, purse))
        .unwrap_or_default();
    let sighting = Sighting {
        content: Some(content_id(&content)),
        problem,
        credentials: credentials.iter().map(|named| named.credential).collect(),
        used_by: None,
    };
    Look { sighting, content: Some(content), credentials }
}

/// Whether a start with this content would be refused, and why. Writes nothing.
pub fn check(wanted: &Wanted<'_>, content: &[u8]) -> Result<(), ConfigError> {
    let path = &wanted.directories.config;
    if content.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.clone() });
    }
    if is_blank(content) {
        return Ok(());
    }
    let text = String::from_utf8(content.to_vec()).map_err(|error| document::not_text(path, &error))?;
    let (_, edits) = pin::examine(wanted, &text)?;
    if edits.is_empty() {
        return Ok(());
    }
    // What the start would add must suit the rest. The token is drawn when it is written.
    let text = edit::apply(path, &text, edits, || Ok(EMPTY.to_owned()))?;
    pin::examine(wanted, &text).map(|_| ())
}

/// What is wrong and what to do, in one sentence.
#[must_use]
pub fn told(error: &ConfigError) -> String {
    let mend = error.mend();
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}; {mend}"),
        None => format!("{error}; {mend}"),
    }
}

/// The file as it is; `None` if there is none.
pub fn read_plainly(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    match read_bounded(path, MAX_BYTES) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(ConfigError::TooLarge { path: path.to_owned() })
        }
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

/// A regular file of at most `max` bytes. A pipe in its place is refused, not waited for.
pub(super) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
