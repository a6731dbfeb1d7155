//! OpenClaw's configuration: made where it is missing, pinned to the instance's ports, never rewritten.
//!
//! OpenClaw takes its port, its bind address and its browsers' ports from `openclaw.json`, and its schema is
//! strict: an unknown key blocks the start. So before each start the file is read, and only values that are
//! missing are added, as small edits that keep comments, order and quoting. A value that somebody set and
//! that leaves the instance's block is not corrected but refused, with file, line and mend: it is a wish that
//! only a person can weigh.
//!
//! When nothing is to be changed, nothing is written. Not seen: what `$include` brings in; there the variable
//! `OPENCLAW_GATEWAY_PORT` still holds the gateway to its block.

pub mod check;
pub mod credentials;
pub mod diff;
mod document;
mod edit;
mod pin;

use std::{
    fmt,
    fs::{self, File, Permissions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use supervisor_core::{ids::Name, ports::Block};

use super::{
    file::Durability,
    layout::{Directories, Layout, Neighbour},
    own::Own,
};
use crate::problem::Problem;

/// Real configurations are a few kilobytes; the bound keeps a wrong path from filling memory.
pub(crate) const MAX_BYTES: u64 = 4 << 20;

/// What a missing configuration is completed from.
const EMPTY: &str = "{\n}\n";

/// Of a new configuration, and of one in the supervisor's own directories: it holds a secret.
const PRIVATE: u32 = 0o600;

/// The gateway's shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The secret itself, for the one request that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Whether the configuration asks for announcements on the local network (`discovery.mdns.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// It does.
    AskedFor,
    /// It does not.
    Quiet,
}

/// A configuration that may be started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// Changes whenever the file's content does. Tells contents apart; proves nothing.
    pub revision: String,
    /// The gateway's port.
    pub port: u16,
    /// `gateway.auth.token`, if it stands there in the clear.
    pub token: Option<Token>,
    /// Whether it is to announce itself.
    pub discovery: Discovery,
}

/// What a configuration is held to.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The instance.
    pub name: &'a Name,
    /// Its directories.
    pub directories: &'a Directories,
    /// Its ports.
    pub block: Block,
    /// The first port of the block it had before, which the file may still name.
    pub previous_base: Option<u16>,
    /// The supervisor's data directory.
    pub data_dir: &'a Path,
    /// The other instances.
    pub neighbours: &'a [Neighbour],
}

/// The configuration cannot be started with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The system refused.
    #[error("failed to read the configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused.
    #[error("failed to write the configuration `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There was a good one.
    #[error("nothing is in the configuration `{}` any more", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// A directory, a pipe, a device.
    #[error("failed to read the configuration `{}`: it is not a regular file", path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// It is a link, and what it leads to is not the instance's.
    #[error("failed to read the configuration `{}`: it is a link that leads out of its directory", path.display())]
    LeadsOut {
        /// The link.
        path: PathBuf,
    },
    /// No configuration is that large.
    #[error("failed to read the configuration `{}`: it is larger than 4 MiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// No randomness for a token.
    #[error("failed to draw a token from /dev/urandom")]
    Entropy(#[source] io::Error),
    /// It is not JSON5.
    #[error("{}", .0.sentence())]
    Syntax(Box<Problem>),
    /// A value that matters here has the wrong type, or stands twice.
    #[error("{}", .0.sentence())]
    Shape(Box<Problem>),
    /// A port leaves the block.
    #[error("{}", .0.sentence())]
    PortOutside(Box<Problem>),
    /// A port is used twice.
    #[error("{}", .0.sentence())]
    PortTwice(Box<Problem>),
    /// More browser profiles than CDP ports.
    #[error("{}", .0.sentence())]
    NoPortLeft(Box<Problem>),
    /// A browser of another instance.
    #[error("{}", .0.sentence())]
    ForeignBrowser(Box<Problem>),
    /// A directory or file of another instance.
    #[error("{}", .0.sentence())]
    ForeignPath(Box<Problem>),
}

impl ConfigError {
    /// Where the file is wrong, unless it is the system that refused.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Syntax(problem)
            | Self::Shape(problem)
            | Self::PortOutside(problem)
            | Self::PortTwice(problem)
            | Self::NoPortLeft(problem)
            | Self::ForeignBrowser(problem)
            | Self::ForeignPath(problem) => Some(problem),
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Gone { .. }
            | Self::NotAFile { .. }
            | Self::LeadsOut { .. }
            | Self::TooLarge { .. }
            | Self::Entropy(_) => None,
        }
    }

    /// Whether it is the file that is wrong, and not the system that refused.
    #[must_use]
    pub fn blames_file(&self) -> bool {
        match self {
            Self::Syntax(_)
            | Self::Shape(_)
            | Self::PortOutside(_)
            | Self::PortTwice(_)
            | Self::NoPortLeft(_)
            | Self::ForeignBrowser(_)
            | Self::ForeignPath(_)
            | Self::Gone { .. }
            | Self::NotAFile { .. }
            | Self::LeadsOut { .. }
            | Self::TooLarge { .. } => true,
            Self::Read { .. } | Self::Write { .. } | Self::Entropy(_) => false,
        }
    }

    /// What to do about it: a sentence without its full stop.
    #[must_use]
    pub fn mend(&self) -> String {
        match self {
            Self::Read { path, .. } => {
                format!("make `{}` readable for the supervisor's user", path.display())
            }
            Self::Write { path, .. } => format!("make `{}` and its directory writable", path.display()),
            Self::Gone { .. } => "roll back, or write `{}` into it to begin anew".to_owned(),
            Self::NotAFile { .. } => "move away what is there".to_owned(),
            Self::LeadsOut { .. } => {
                "put the file itself there, or name it as `config` of the profile in the fleet file"
                    .to_owned()
            }
            Self::TooLarge { .. } => "check that the path is that of a configuration".to_owned(),
            Self::Entropy(_) => "check that /dev/urandom can be read".to_owned(),
            Self::Syntax(problem)
            | Self::Shape(problem)
            | Self::PortOutside(problem)
            | Self::PortTwice(problem)
            | Self::NoPortLeft(problem)
            | Self::ForeignBrowser(problem)
            | Self::ForeignPath(problem) => problem.mend.clone(),
        }
    }
}

/// Reads the instance's configuration, makes or completes it, and refuses what leaves the block.
pub fn pin(wanted: &Wanted<'_>) -> Result<Config, ConfigError> {
    let path = &wanted.directories.config;
    let found = read(wanted.directories.own_config())?;
    let text = found.as_deref().unwrap_or(EMPTY);
    let (config, edits) = pin::examine(wanted, text)?;
    if edits.is_empty() {
        return Ok(config);
    }
    let text = edit::apply(path, text, edits, fresh_token)?;
    let (mode, durability) = match &found {
        Some(_) => (fs::metadata(path).map_or(PRIVATE, |found| found.mode() & 0o777), Durability::Durable),
        // After a power cut a new file may be empty, and then it is made anew, like this one.
        None => (PRIVATE, Durability::Quick),
    };
    let config = wanted.directories.own_config();
    config
        .replace(text.as_bytes(), mode, durability)
        .map_err(|source| ConfigError::Write { path: path.clone(), source })?;
    pin::examine(wanted, &text).map(|(config, _)| config)
}

/// The port that a configuration names, for choosing the block of a profile that has one already.
pub fn declared_port(config: Own<'_>) -> Result<Option<u16>, ConfigError> {
    match read(config)? {
        Some(text) => pin::port(config.path, &text),
        None => Ok(None),
    }
}

/// Whether a configuration asks for announcements on the local network, for showing an environment.
pub fn declared_discovery(directories: &Directories) -> Result<Discovery, ConfigError> {
    match read(directories.own_config())? {
        Some(text) => pin::declared_discovery(&directories.config, &text),
        None => Ok(Discovery::Quiet),
    }
}

/// The token that a configuration holds in the clear, for probes of a gateway that is adopted.
pub fn declared_token(config: Own<'_>) -> Result<Option<Token>, ConfigError> {
    match read(config)? {
        Some(text) => pin::token(config.path, &text),
        None => Ok(None),
    }
}

/// A name for the file's content: FNV-1a, 64 bits, in hexadecimal.
#[must_use]
pub fn revision(content: &[u8]) -> String {
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The revision of the file as it is now, if it can be read.
#[must_use]
pub fn current_revision(directories: &Directories) -> Option<String> {
    let mut content = Vec::new();
    directories.own_config().open().ok()?.take(MAX_BYTES).read_to_end(&mut content).ok()?;
    Some(revision(&content))
}

/// The file's text; `None` if there is nothing in it.
fn read(config: Own<'_>) -> Result<Option<String>, ConfigError> {
    let Own { path, layout, .. } = config;
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut file = match config.open() {
        Ok(file) => file,
        Err(error) => return check::unread(config, error),
    };
    let found = file.metadata().map_err(failed)?;
    if found.len() > MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    if layout == Layout::Managed && found.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(PRIVATE)).map_err(failed)?;
    }
    let mut content = Vec::new();
    Read::by_ref(&mut file).take(MAX_BYTES).read_to_end(&mut content).map_err(failed)?;
    if is_blank(&content) {
        return Ok(None);
    }
    String::from_utf8(content).map(Some).map_err(|error| document::not_text(path, &error))
}

/// Whether there is nothing in the file: a power cut may leave zeros.
fn is_blank(content: &[u8]) -> bool {
    content.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace())
}

/// 32 bytes of the kernel's randomness, in hexadecimal.
fn fresh_token() -> Result<String, ConfigError> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(ConfigError::Entropy)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
