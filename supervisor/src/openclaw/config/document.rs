//! A configuration as text with places: JSON5, read without losing where things stand.

use std::{path::Path, string::FromUtf8Error};

use jsonc_parser::{
    CollectOptions, ParseOptions,
    ast::{Object, Value},
    common::{Range, Ranged},
    parse_to_ast,
};

use super::ConfigError;
use crate::problem::{Place, Problem};

/// What OpenClaw reads, which is JSON5: commas may trail, they may not be missing.
pub(super) fn json5() -> ParseOptions {
    ParseOptions { allow_missing_commas: false, ..ParseOptions::default() }
}

/// A configuration and its file.
pub(super) struct Document<'a> {
    file: String,
    text: &'a str,
    root: Option<Value<'a>>,
}

pub(super) fn not_text(path: &Path, error: &FromUtf8Error) -> ConfigError {
    let text = String::from_utf8_lossy(error.as_bytes());
    let place = Place::at(&text, error.utf8_error().valid_up_to());
    let file = path.to_string_lossy();
    let (message, mend) = ("this is not UTF-8 text", "save it as UTF-8");
    ConfigError::Syntax(Box::new(Problem::new(&file, &text, place, "", message, mend)))
}

impl<'a> Document<'a> {
    pub(super) fn parse(path: &Path, text: &'a str) -> Result<Self, ConfigError> {
        let file = path.to_string_lossy().into_owned();
        match parse_to_ast(text, &CollectOptions::default(), &json5()) {
            Ok(parsed) => Ok(Self { file, text, root: parsed.value }),
            Err(error) => {
                let place = Place::at(text, error.range().start);
                let message = format!("this is not JSON5: {}", lower(&error.kind().to_string()));
                let problem = Problem::new(&file, text, place, "", &message, "correct the line");
                Err(ConfigError::Syntax(Box::new(problem)))
            }
        }
    }

    /// A problem at a place of this file.
    pub(super) fn problem(&self, at: Range, path: &str, message: &str, mend: &str) -> Box<Problem> {
        Box::new(Problem::new(&self.file, self.text, Place::at(self.text, at.start), path, message, mend))
    }

    /// The line of a place.
    pub(super) fn line(&self, at: Range) -> usize {
        Place::at(self.text, at.start).line
    }

    fn shape(&self, at: Range, path: &str, message: &str, mend: &str) -> ConfigError {
        ConfigError::Shape(self.problem(at, path, message, mend))
    }

    /// The outermost object.
    pub(super) fn root(&self) -> Result<&Object<'a>, ConfigError> {
        match &self.root {
            Some(Value::Object(root)) => Ok(root),
            other => {
                let at = other.as_ref().map_or(Range::new(0, 0), Value::range);
                Err(self.shape(
                    at,
                    "",
                    "a configuration is an object",
                    "begin it with `{` and end it with `}`",
                ))
            }
        }
    }

    /// The value of `key` in `object`, which `path` leads to. Refuses a key that stands twice: OpenClaw would
    /// take the last, and an edit would reach the first.
    pub(super) fn get<'d>(
        &self,
        object: &'d Object<'a>,
        path: &str,
        key: &str,
    ) -> Result<Option<&'d Value<'a>>, ConfigError> {
        let mut found = object.properties.iter().filter(|property| property.name.as_str() == key);
        let Some(first) = found.next() else { return Ok(None) };
        if let Some(second) = found.next() {
            let line = self.line(first.name.range());
            let message = format!("this key stands for the second time; the first is on line {line}");
            return Err(self.shape(second.name.range(), &join(path, key), &message, "keep one of the two"));
        }
        Ok(Some(&first.value))
    }

    /// The object at `key`, if there is one.
    pub(super) fn object<'d>(
        &self,
        object: &'d Object<'a>,
        path: &str,
        key: &str,
    ) -> Result<Option<&'d Object<'a>>, ConfigError> {
        match self.get(object, path, key)? {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(value) => {
                Err(self.shape(value.range(), &join(path, key), "an object is wanted here", "write `{ … }`"))
            }
        }
    }

    /// What stands at `path`, beginning at `root`.
    pub(super) fn sight<'d>(
        &self,
        root: &'d Object<'a>,
        path: &[&str],
    ) -> Result<Sight<'d, 'a>, ConfigError> {
        let Some((last, above)) = path.split_last() else { return Ok(Sight::Absent) };
        let (mut object, mut at, mut included) = (root, String::new(), has_include(root));
        let absent = |included| if included { Sight::Included } else { Sight::Absent };
        for key in above {
            let Some(below) = self.object(object, &at, key)? else { return Ok(absent(included)) };
            at = join(&at, key);
            object = below;
            included |= has_include(object);
        }
        Ok(self.get(object, &at, last)?.map_or_else(|| absent(included), Sight::Seen))
    }

    /// The port number at `key` and its place, if there is one.
    pub(super) fn port(
        &self,
        object: &Object<'a>,
        path: &str,
        key: &str,
    ) -> Result<Option<(u16, Range)>, ConfigError> {
        let Some(value) = self.get(object, path, key)? else { return Ok(None) };
        let number = match value {
            Value::NumberLit(number) => number_of(number.value),
            Value::StringLit(_)
            | Value::BooleanLit(_)
            | Value::Object(_)
            | Value::Array(_)
            | Value::NullKeyword(_) => None,
        };
        match number {
            Some(port) => Ok(Some((port, value.range()))),
            None => {
                let message = "a port is wanted here: a number from 1 to 65535";
                Err(self.shape(value.range(), &join(path, key), message, "write the number without quotes"))
            }
        }
    }

    /// The text at `key`, if there is one.
    pub(super) fn text<'d>(
        &self,
        object: &'d Object<'a>,
        path: &str,
        key: &str,
    ) -> Result<Option<&'d str>, ConfigError> {
        Ok(self.get(object, path, key)?.and_then(Value::as_string_lit).map(|text| &*text.value))
    }
}

/// What can be seen at the end of a path.
pub(super) enum Sight<'d, 'a> {
    /// A value.
    Seen(&'d Value<'a>),
    /// Nothing.
    Absent,
    /// Nothing, but an include on the way may bring it in.
    Included,
}

/// Whether parts of the object are in another file.
pub(super) fn has_include(object: &Object<'_>) -> bool {
    object.properties.iter().any(|property| property.name.as_str() == "$include")
}

/// `path` and one key more.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A port as JSON5 may write it: decimal, hexadecimal, or a float without a fraction.
fn number_of(literal: &str) -> Option<u16> {
    let digits = literal.trim_start_matches('+');
    if let Some(digits) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u16::from_str_radix(digits, 16).ok().filter(|port| *port > 0);
    }
    let number: f64 = digits.parse().ok()?;
    let whole = number.fract() == 0.0 && (1.0..=f64::from(u16::MAX)).contains(&number);
    // Checked to be whole and in range.
    whole.then_some(number as u16)
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
