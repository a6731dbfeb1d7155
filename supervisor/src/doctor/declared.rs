//! What a configuration says, value by value, each with its place.

use jsonc_parser::{CollectOptions, ParseOptions, ast::Value, common::Ranged, parse_to_ast};

use crate::problem::Place;

/// Values of one configuration that are looked at; real ones have some hundred.
const MOST: usize = 20_000;

/// Bytes of them, with the keys that lead to them.
const MOST_BYTES: usize = 4 << 20;

/// The longest key, and the longest value: nothing that is looked for is longer than a path.
const LONGEST: usize = 4_096;

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
    let mut walk =
        Walk { text, at: 0, place: Place::START, path: Vec::new(), room: MOST_BYTES, found: Vec::new() };
    if let Ok(Some(root)) = parsed.map(|parsed| parsed.value) {
        walk.over(&root);
    }
    walk.found
}

/// On the way through a configuration, from its beginning to its end.
struct Walk<'a> {
    text: &'a str,
    /// So far it has come,
    at: usize,
    /// which is here.
    place: Place,
    path: Vec<String>,
    /// Bytes that may still be taken.
    room: usize,
    found: Vec<Declared>,
}

impl Walk<'_> {
    fn over(&mut self, value: &Value<'_>) {
        match value {
            Value::StringLit(string) => self.leaf(&string.value, string.range().start),
            Value::NumberLit(number) => self.leaf(number.value, number.range().start),
            Value::Object(object) => {
                for property in &object.properties {
                    self.below(property.name.as_str().to_owned(), &property.value);
                }
            }
            Value::Array(array) => {
                for (index, element) in array.elements.iter().enumerate() {
                    self.below(index.to_string(), element);
                }
            }
            Value::BooleanLit(_) | Value::NullKeyword(_) => {}
        }
    }

    fn below(&mut self, key: String, value: &Value<'_>) {
        if key.len() > LONGEST || self.found.len() >= MOST || self.room == 0 {
            return;
        }
        self.path.push(key);
        self.over(value);
        self.path.pop();
    }

    fn leaf(&mut self, value: &str, at: usize) {
        let takes = value.len() + self.path.iter().map(String::len).sum::<usize>();
        self.room = self.room.saturating_sub(takes);
        if value.len() > LONGEST || self.room == 0 {
            return;
        }
        self.go_to(at);
        self.found.push(Declared { path: self.path.clone(), value: value.to_owned(), place: self.place });
    }

    /// Goes on to a later byte.
    fn go_to(&mut self, at: usize) {
        let passed = self.text.get(self.at..at).unwrap_or_default();
        match passed.rsplit_once('\n') {
            None => self.place.column += passed.chars().count(),
            Some((lines, rest)) => {
                self.place.line += 1 + lines.matches('\n').count();
                self.place.column = 1 + rest.chars().count();
            }
        }
        self.at = at;
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

    #[test]
    fn what_is_behind_much_else_has_its_place_and_what_is_too_much_is_left_out() {
        let many: Vec<String> = (0..500).map(|port| format!("{{ p: 'ä{port}',\n q: {port} }}")).collect();
        let text = format!("{{ x: '{}', many: [{}] }}", "x".repeat(LONGEST + 1), many.join(", "));
        let found = read(&text);
        assert_eq!(found.len(), 1_000);
        for declared in [&found[0], &found[500], &found[998]] {
            let at = text.find(&format!("'{}'", declared.value)).unwrap();
            assert_eq!(declared.place, Place::at(&text, at));
        }
        let last = text.rfind("499").unwrap();
        assert_eq!(found[999].place, Place::at(&text, last));
        let deep = format!(
            "{{ {}: {{ {} }} }}",
            "k".repeat(LONGEST),
            (0..9_999).map(|n| format!("a{n}: {n},")).collect::<String>()
        );
        assert!(read(&deep).len() < MOST_BYTES / LONGEST);
    }
}
