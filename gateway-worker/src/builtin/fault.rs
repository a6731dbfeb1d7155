//! What can be wrong with a configuration, and where. Nothing here ever holds a secret.

use std::io;
use std::path::PathBuf;

use crate::document::Place;

/// Why a configuration cannot be served from. Exit code 78.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Neither the variables nor a home directory say where the configuration is.
    #[error("failed to find the configuration: set OPENCLAW_CONFIG_PATH or OPENCLAW_STATE_DIR")]
    NoPath,
    /// The file is missing or unreadable.
    #[error("failed to read the configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("failed to read the configuration `{}`: it is larger than 4 MiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not text.
    #[error("{place}: failed to read the configuration: not UTF-8 from here on")]
    NotUtf8 {
        /// The first byte at fault.
        place: Place,
    },
    /// The file holds no value.
    #[error("{place}: failed to parse the configuration: the file is empty")]
    Empty {
        /// The file's first character.
        place: Place,
    },
    /// The file is not JSON5.
    #[error("{place}: failed to parse the configuration: {fault}")]
    Syntax {
        /// Where the parser stopped.
        place: Place,
        /// What it met there.
        fault: String,
    },
    /// A value has the wrong type.
    #[error("{place}: `{key}` must be {expected}")]
    WrongType {
        /// The value.
        place: Place,
        /// Its key's path.
        key: String,
        /// The type it must have.
        expected: &'static str,
    },
    /// A value has the right type and is none of those that can be honoured.
    #[error("{place}: `{key}` must be {expected}, not {found}")]
    Unsupported {
        /// The value.
        place: Place,
        /// Its key's path.
        key: &'static str,
        /// What would do.
        expected: &'static str,
        /// What stands there; never a secret.
        found: String,
    },
    /// An include, whose content would go unseen.
    #[error(
        "{place}: the built-in gateway does not follow `$include`: write the `gateway` keys into this file"
    )]
    Include {
        /// The include.
        place: Place,
    },
    /// A secret names a variable that is not set.
    #[error("{place}: `{key}` refers to the environment variable `{name}`, which is not set")]
    Variable {
        /// The value.
        place: Place,
        /// Its key's path.
        key: &'static str,
        /// The variable.
        name: String,
    },
    /// Nothing says who may connect.
    #[error("{place}: no usable auth: set `{key}`, or, on loopback, `gateway.auth.mode` to \"none\"")]
    NoAuth {
        /// The nearest object that is there.
        place: Place,
        /// The key that is missing or empty.
        key: &'static str,
    },
    /// No secret is asked for on an address that others can reach.
    #[error("{place}: `gateway.auth.mode` \"none\" is only for `gateway.bind` \"loopback\"")]
    OpenToAll {
        /// The mode.
        place: Place,
    },
    /// `OPENCLAW_GATEWAY_PORT` is no port.
    #[error("failed to read OPENCLAW_GATEWAY_PORT: it must be a number from 1 to 65535")]
    PortVariable,
}

impl ConfigError {
    /// The key at fault, if it is one.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::WrongType { key, .. } => Some(key),
            Self::Unsupported { key, .. } | Self::Variable { key, .. } | Self::NoAuth { key, .. } => {
                Some(key)
            }
            Self::OpenToAll { .. } => Some("gateway.auth.mode"),
            Self::NoPath
            | Self::Read { .. }
            | Self::TooLarge { .. }
            | Self::NotUtf8 { .. }
            | Self::Empty { .. }
            | Self::Syntax { .. }
            | Self::Include { .. }
            | Self::PortVariable => None,
        }
    }
}
