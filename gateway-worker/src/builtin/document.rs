//! The text of a configuration and where things stand in it, so that every fault can name line and column.
//! Source lines are never quoted: the line at fault may be the one with the token.

use std::fmt;
use std::path::{Path, PathBuf};

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions};

use crate::fault::ConfigError;

/// JSON5 has everything that the parser can be lenient about, except missing commas.
const JSON5: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: true,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: true,
    allow_hexadecimal_numbers: true,
    allow_unary_plus_numbers: true,
    allow_bare_decimal_point_numbers: true,
    allow_non_finite_numbers: true,
    allow_extended_string_escapes: true,
};

/// A place in a file, both numbers from 1, the column in characters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    path: PathBuf,
    line: usize,
    column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// A configuration file's text under its name.
pub(crate) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Document<'a> {
    /// Takes a file's bytes, which must be UTF-8.
    pub(crate) fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self, ConfigError> {
        match std::str::from_utf8(bytes) {
            // JSON5 counts a byte order mark as white space.
            Ok(text) => Ok(Self { path, text: text.strip_prefix('\u{feff}').unwrap_or(text) }),
            Err(error) => {
                let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                Err(ConfigError::NotUtf8 { place: place(path, &good) })
            }
        }
    }

    /// Reads the one object that the document is.
    pub(crate) fn parse(&self) -> Result<Object<'a>, ConfigError> {
        let parsed =
            jsonc_parser::parse_to_ast(self.text, &CollectOptions::default(), &JSON5).map_err(|error| {
                ConfigError::Syntax {
                    place: Place {
                        path: self.path.to_owned(),
                        line: error.line_display(),
                        column: error.column_display(),
                    },
                    fault: lower_first(&error.kind().to_string()),
                }
            })?;
        let end = Range::from_byte_index(0);
        let root = parsed.value.ok_or_else(|| ConfigError::Empty { place: self.place(end) })?;
        if let Value::Object(root) = root {
            return Ok(root);
        }
        Err(self.wrong_type("the configuration", "an object", root.range()))
    }

    /// Where `range` begins.
    pub(crate) fn place(&self, range: Range) -> Place {
        place(self.path, self.text.get(..range.start).unwrap_or(self.text))
    }

    /// The value of `key` as an object, if `key` is there.
    pub(crate) fn object<'v>(
        &self,
        parent: Option<&'v Object<'a>>,
        key: &Key<'_>,
    ) -> Result<Option<&'v Object<'a>>, ConfigError> {
        self.typed(parent, key, "an object", Value::as_object)
    }

    /// The value of `key` as a string and where it stands, if `key` is there.
    pub(crate) fn string<'v>(
        &self,
        parent: Option<&'v Object<'a>>,
        key: &Key<'_>,
    ) -> Result<Option<(&'v str, Range)>, ConfigError> {
        let literal = self.typed(parent, key, "a string", Value::as_string_lit)?;
        Ok(literal.map(|literal| (literal.value.as_ref(), literal.range)))
    }

    /// The value of `key` as the text of a number and where it stands, if `key` is there.
    pub(crate) fn number<'v>(
        &self,
        parent: Option<&'v Object<'a>>,
        key: &Key<'_>,
    ) -> Result<Option<(&'v str, Range)>, ConfigError> {
        let literal = self.typed(parent, key, "a number", Value::as_number_lit)?;
        Ok(literal.map(|literal| (literal.value, literal.range)))
    }

    fn typed<'v, T>(
        &self,
        parent: Option<&'v Object<'a>>,
        key: &Key<'_>,
        expected: &'static str,
        read: impl Fn(&'v Value<'a>) -> Option<&'v T>,
    ) -> Result<Option<&'v T>, ConfigError> {
        let Some(property) = parent.and_then(|parent| last(parent, key.name())) else { return Ok(None) };
        match read(&property.value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong_type(key.0, expected, property.value.range())),
        }
    }

    fn wrong_type(&self, key: &str, expected: &'static str, range: Range) -> ConfigError {
        ConfigError::WrongType { place: self.place(range), key: key.to_owned(), expected }
    }
}

/// A key by its whole path, `gateway.auth.token`: what messages name, and whose last part is looked up.
pub(crate) struct Key<'k>(pub(crate) &'k str);

impl Key<'_> {
    fn name(&self) -> &str {
        self.0.rsplit_once('.').map_or(self.0, |(_, name)| name)
    }
}

/// The property called `name`; of several the last, as in JSON5.
pub(crate) fn last<'v, 'a>(object: &'v Object<'a>, name: &str) -> Option<&'v ObjectProp<'a>> {
    object.properties.iter().rfind(|property| property.name.as_str() == name)
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| format!("{}{}", first.to_lowercase(), characters.as_str()))
}

fn place(path: &Path, before: &str) -> Place {
    let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
    Place { path: path.to_owned(), line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
}
