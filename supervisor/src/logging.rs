//! What the supervisor says about itself: as text or JSON on standard error, or in systemd's journal.

use std::{fmt, io};

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, layer::SubscriberExt, registry::LookupSpan, reload,
    util::SubscriberInitExt,
};

use crate::settings::LogLevel;

/// A stranger who breaks the protocol has the library below say so each time.
const QUIETER: &str = "h2=error";

/// How it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object in each line.
    Json,
    /// Entries of systemd's journal, with a field for each value.
    Journald,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Journald => "journald",
        })
    }
}

/// What is said can be more or less from now on. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Logging(Option<reload::Handle<EnvFilter, Registry>>);

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// What was asked for is no filter.
    #[error("failed to read the log filter `{filter}`")]
    Filter {
        /// It.
        filter: String,
        /// Why.
        source: ParseError,
    },
    /// There is no journal.
    #[error("failed to reach systemd's journal; write `log_format: text` into the settings, or leave it out")]
    Journal(#[source] io::Error),
}

impl Logging {
    /// Says what `filter` lets pass, or what is of this level: that can be changed later, a filter cannot.
    pub fn start(filter: Option<&str>, level: LogLevel, format: LogFormat) -> Result<Self, LoggingError> {
        let usual = usual(level);
        let text = filter.unwrap_or(&usual);
        let read = EnvFilter::try_new(text);
        let read = read.map_err(|source| LoggingError::Filter { filter: text.to_owned(), source })?;
        let (read, handle) = reload::Layer::new(read);
        tracing_subscriber::registry().with(read).with(layer(format)?).init();
        Ok(Self(filter.is_none().then_some(handle)))
    }

    /// Says what is of this level from now on; false if a filter says what is said.
    pub(crate) fn set(&self, level: LogLevel) -> bool {
        let Some(handle) = &self.0 else { return false };
        EnvFilter::try_new(usual(level)).is_ok_and(|filter| handle.reload(filter).is_ok())
    }
}

fn usual(level: LogLevel) -> String {
    format!("{level},{QUIETER}")
}

fn layer<S>(format: LogFormat) -> Result<Box<dyn Layer<S> + Send + Sync>, LoggingError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    Ok(match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Journald => tracing_journald::layer().map_err(LoggingError::Journal)?.boxed(),
    })
}
