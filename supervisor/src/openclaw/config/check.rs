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

use supervisor_core::{event::Sighting, ids::ConfigId};

use super::{
    ConfigError, EMPTY, MAX_BYTES, Wanted,
    credentials::{self, Named, Purse},
    document, edit, is_blank, pin,
};
use crate::openclaw::{
    file::open_regular,
    layout::Directories,
    own::Own,
    snapshots::{Snapshots, content_id},
};

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

/// Looks at an instance's configuration; `good` is what could be put back. Blocks on the disk.
#[must_use]
pub fn look(wanted: &Wanted<'_>, good: Option<ConfigId>, purse: &Purse<'_>) -> Look {
    if let Some(error) = lost(wanted.directories, good) {
        // For the ladder, which goes back from one content to another: nothing is a content, too.
        let nothing = Vec::new();
        let (content, problem) = (Some(content_id(&nothing)), Some(told(&error)));
        let sighting = Sighting { content, problem, ..Sighting::default() };
        return Look { sighting, content: Some(nothing), ..Look::default() };
    }
    let content = match read_plainly(wanted.directories.own_config()) {
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

/// Why there is no configuration although there was a good one, if that is so: then none is made anew, which would have
/// neither channels nor models. What cannot be put back any more is not missed. Blocks on the disk.
#[must_use]
pub fn lost(directories: &Directories, good: Option<ConfigId>) -> Option<ConfigError> {
    let path = &directories.config;
    let error = match read_plainly(directories.own_config()) {
        Ok(Some(content)) if !is_blank(&content) => return None,
        Ok(_) => ConfigError::Gone { path: path.clone() },
        Err(error) if error.blames_file() => error,
        Err(_) => return None,
    };
    Snapshots::of(directories).read(good?).ok().map(|_| error)
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
pub fn read_plainly(config: Own<'_>) -> Result<Option<Vec<u8>>, ConfigError> {
    match config.open().and_then(|file| bounded(file, MAX_BYTES)) {
        Ok(content) => Ok(Some(content)),
        Err(error) => unread(config, error),
    }
}

/// Why a file was not read; `None` if there is none.
pub(super) fn unread<T>(config: Own<'_>, source: io::Error) -> Result<Option<T>, ConfigError> {
    let path = config.path.to_owned();
    let kind = source.kind();
    if kind == io::ErrorKind::NotFound {
        return Ok(None);
    }
    Err(if matches!(config.found(), Ok(None)) {
        ConfigError::LeadsOut { path }
    } else if kind == io::ErrorKind::FileTooLarge {
        ConfigError::TooLarge { path }
    } else if kind == io::ErrorKind::InvalidInput {
        ConfigError::NotAFile { path }
    } else {
        ConfigError::Read { path, source }
    })
}

/// A regular file of at most `max` bytes.
pub(super) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    bounded(open_regular(path)?, max)
}

fn bounded(file: File, max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
