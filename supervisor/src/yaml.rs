//! YAML as people write it, with the place of everything kept.
//!
//! A fleet file is refused as a whole, so each refusal must say where: unknown fields and wrong types, but
//! also what only shows when the whole file is known, such as two port blocks that overlap. Parsers that
//! answer serde directly forget the places by then, and some take the last of two equal keys in silence. So
//! the text becomes a tree that remembers places ([`parse`]), the tree is given to serde ([`Node::read`]),
//! and a later check asks the tree where a field stands ([`Node::find`]).
//!
//! YAML 1.2 by `saphyr-parser`; plain scalars follow its core schema. One document per file, anchors and
//! aliases within bounds, no tags, no merge keys, keys are text and stand once.

mod de;
mod tree;

pub use tree::{Entry, MAX_BYTES, Node, Value, parse};

use crate::problem::{Place, Problem};

/// What is wrong at a place of a text; becomes a [`Problem`] once file and text are at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where. `None` until the error has passed through the node it belongs to.
    pub(crate) place: Option<Place>,
    /// The field, outermost key first; items of lists as `[n]`.
    pub(crate) path: Vec<String>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) mend: String,
}

impl Fault {
    /// A fault whose place is known.
    #[must_use]
    pub fn new(place: Place, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { place: Some(place), path: Vec::new(), message: message.into(), mend: mend.into() }
    }

    /// The same, of the field `key` of what it was a fault of.
    #[must_use]
    pub fn within(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }

    /// The same, at `place` unless it has a closer one.
    pub(crate) fn or_at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    /// The field, e.g. `instances.rescue.rescues[0]`.
    #[must_use]
    pub fn field(&self) -> String {
        self.path.join(".").replace(".[", "[")
    }

    /// The same as a problem of `file`, whose content is `text`.
    #[must_use]
    pub fn problem(&self, file: &str, text: &str) -> Problem {
        let place = self.place.unwrap_or(Place::START);
        Problem::new(file, text, place, &self.field(), &self.message, &self.mend)
    }
}
