//! Making and completing a configuration.

use std::path::Path;

use jsonc_parser::cst::{CstInputValue, CstRootNode};

use super::{ConfigError, document::json5};
use crate::problem::{Place, Problem};

/// One value to set; the objects around it are made as needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) path: Vec<String>,
    pub(super) value: Set,
}

/// What it is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Set {
    Port(u16),
    Text(String),
    /// A secret drawn when it is written.
    FreshToken,
}

impl Edit {
    pub(super) fn new(path: &[&str], value: Set) -> Self {
        Self { path: path.iter().map(|key| (*key).to_owned()).collect(), value }
    }
}

/// `text` with the edits done and everything else as it was.
pub(super) fn apply(
    path: &Path,
    text: &str,
    edits: Vec<Edit>,
    token: impl Fn() -> Result<String, ConfigError>,
) -> Result<String, ConfigError> {
    let document = CstRootNode::parse(text, &json5()).map_err(|error| {
        let (file, place) = (path.to_string_lossy(), Place::at(text, error.range().start));
        let message = format!("this is not JSON5: {}", error.kind());
        ConfigError::Syntax(Box::new(Problem::new(&file, text, place, "", &message, "correct the line")))
    })?;
    for Edit { path, value } in edits {
        let value = match value {
            Set::Port(port) => CstInputValue::Number(port.to_string()),
            Set::Text(text) => CstInputValue::String(text),
            Set::FreshToken => CstInputValue::String(token()?),
        };
        let Some((last, above)) = path.split_last() else { continue };
        let object =
            above.iter().fold(document.object_value_or_set(), |object, key| object.object_value_or_set(key));
        match object.get(last) {
            Some(property) => property.set_value(value),
            None => {
                object.append(last, value);
            }
        }
    }
    Ok(document.to_string())
}
