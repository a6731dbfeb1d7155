//! What a configuration says, value by value, each with its place.

use jsonc_parser::{CollectOptions, ParseOptions, ast::Value, common::Ranged, parse_to_ast};

use crate::problem::Place;

/// Values of one configuration that are looked at; real ones have some hundred.
const MOST: usize = 20_000;

/// A value that is neither an object nor an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// The keys that lead to it; elements of arrays are numbered.
    pub(crate) path: Vec<String>,
    /// The text or number itself, without quotes.
    pub(crate) value: String,
    /// Where it stands.
    pub(crate) place: Place,
}

impl Declared {
    /// Whether the keys are these; `*` is any.
    pub(crate) fn is(&self, keys: &[&str]) -> bool {
        self.path.len() == keys.len()
            && keys.iter().zip(&self.path).all(|(key, found)| *key == "*" || key == found)
    }

    /// The keys as people write them.
    pub(super) fn shown(&self) -> String {
        self.path.join(".")
    }
}

/// All values of a configuration; nothing if it cannot be read.
pub(crate) fn read(text: &str) -> Vec<Declared> {
    let options = ParseOptions { allow_missing_commas: false, ..ParseOptions::default() };
    let parsed = parse_to_ast(text, &CollectOptions::default(), &options);
    let mut found = Vec::new();
    if let Ok(Some(root)) = parsed.map(|parsed| parsed.value) {
        walk(text, &root, &mut Vec::new(), &mut found);
    }
    found
}

fn walk(text: &str, value: &Value<'_>, path: &mut Vec<String>, found: &mut Vec<Declared>) {
    if found.len() >= MOST {
        return;
    }
    let mut leaf = |value: &str, at: usize| {
        found.push(Declared { path: path.clone(), value: value.to_owned(), place: Place::at(text, at) });
    };
    match value {
        Value::StringLit(string) => leaf(&string.value, string.range().start),
        Value::NumberLit(number) => leaf(number.value, number.range().start),
        Value::Object(object) => {
            for property in &object.properties {
                path.push(property.name.as_str().to_owned());
                walk(text, &property.value, path, found);
                path.pop();
            }
        }
        Value::Array(array) => {
            for (index, element) in array.elements.iter().enumerate() {
                path.push(index.to_string());
                walk(text, element, path, found);
                path.pop();
            }
        }
        Value::BooleanLit(_) | Value::NullKeyword(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_found_with_its_place() {
        let text =
            "{\n  // mine\n  gateway: { port: 18789, },\n  agents: { list: [{ workspace: '/w' }] },\n}";
        let found = read(text);
        assert_eq!(found.len(), 2);
        assert!(found[0].is(&["gateway", "port"]) && found[0].value == "18789");
        assert_eq!(found[0].place, Place { line: 3, column: 20 });
        assert!(found[1].is(&["agents", "list", "*", "workspace"]) && found[1].value == "/w");
        assert_eq!(found[1].shown(), "agents.list.0.workspace");
        assert_eq!(read("{ broken"), []);
    }
}
