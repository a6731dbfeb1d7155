//! The tree as serde sees it: every error comes out with the place and path of the node it belongs to.

use std::fmt::Display;

use serde::{
    Deserialize,
    de::{
        DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{Entry, Fault, Node, Value};
use crate::problem::{Place, nearest};

impl Node {
    /// Reads a value of type `T`.
    pub fn read<'de, T: Deserialize<'de>>(&'de self) -> Result<T, Fault> {
        T::deserialize(self).map_err(|fault| fault.or_at(self.place))
    }
}

impl std::error::Error for Fault {}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.message, self.mend)
    }
}

fn placeless(message: String, mend: String) -> Fault {
    Fault { place: None, path: Vec::new(), message, mend }
}

fn choice(word: &str, known: &[&str], none: &str) -> String {
    match (nearest(word, known.iter().copied()), known) {
        (Some(meant), _) => format!("did you mean `{meant}`?"),
        (None, []) => none.to_owned(),
        (None, _) => format!("use one of: {}", known.join(", ")),
    }
}

impl Error for Fault {
    /// What follows a semicolon in `text` is the mend.
    fn custom<T: Display>(text: T) -> Self {
        let text = text.to_string();
        let (message, mend) = text.split_once("; ").unwrap_or((&text, "correct the value"));
        placeless(message.to_owned(), mend.to_owned())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = plainly(&expected.to_string());
        let bare = matches!(
            found,
            Unexpected::Bool(_) | Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_)
        );
        let mend = match bare && wanted == TEXT {
            true => "put it in quotes".to_owned(),
            false => format!("write {wanted}"),
        };
        placeless(format!("{wanted} is wanted here, not {}", found_plainly(found)), mend)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = plainly(&expected.to_string());
        placeless(format!("{wanted} is wanted here, not {}", found_plainly(found)), format!("write {wanted}"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        placeless(format!("there is no field `{field}` here"), choice(field, expected, "remove it"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        placeless(format!("`{variant}` is none of the choices"), choice(variant, expected, "remove it"))
    }

    fn missing_field(field: &'static str) -> Self {
        placeless(format!("the field `{field}` is missing"), format!("add `{field}:`"))
    }
}

const TEXT: &str = "text";

/// What serde calls by a programmer's name.
fn plainly(expected: &str) -> String {
    match expected {
        "a string" => TEXT.to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a sequence" => "a list such as `[a, b]`".to_owned(),
        "a map" => "fields".to_owned(),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" => "a whole number".to_owned(),
        other if other.starts_with("struct ") => "fields".to_owned(),
        other => other.to_owned(),
    }
}

fn found_plainly(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Signed(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("`{value}`"),
        Unexpected::Float(value) => format!("the fraction `{value}`"),
        Unexpected::Str(value) => format!("`{value}`"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "fields".to_owned(),
        Unexpected::Char(_)
        | Unexpected::Bytes(_)
        | Unexpected::NewtypeStruct
        | Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant
        | Unexpected::Other(_) => found.to_string(),
    }
}

/// What a plain scalar is by YAML 1.2's core schema.
enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
}

fn resolve(text: &str) -> Scalar<'_> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    let radix =
        |prefix, base| text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, base).ok());
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Scalar::Unsigned(number);
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Scalar::Float(f64::NAN);
    }
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return Scalar::Text(text);
    }
    if let Ok(number) = text.parse() {
        Scalar::Unsigned(number)
    } else if let Ok(number) = text.parse() {
        Scalar::Signed(number)
    } else if let Ok(number) = text.parse() {
        Scalar::Float(number)
    } else {
        Scalar::Text(text)
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Plain(text) => match resolve(text) {
                Scalar::Null => visitor.visit_unit(),
                Scalar::Bool(value) => visitor.visit_bool(value),
                Scalar::Unsigned(value) => visitor.visit_u64(value),
                Scalar::Signed(value) => visitor.visit_i64(value),
                Scalar::Float(value) => visitor.visit_f64(value),
                Scalar::Text(text) => visitor.visit_borrowed_str(text),
            },
            Value::Sequence(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Value::Mapping(entries) => visitor.visit_map(Fields { entries: entries.iter(), value: None }),
        }
        .map_err(|fault| fault.or_at(self.place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
            .map_err(|fault| fault.or_at(self.place))
    }

    /// A group of fields with nothing under it is an empty group.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let fields = Fields { entries: self.entries()?.iter(), value: None };
        visitor.visit_map(fields).map_err(|fault| fault.or_at(self.place))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Plain(text) | Value::Text(text) => {
                visitor.visit_enum(Word(text)).map_err(|fault| fault.or_at(self.place))
            }
            Value::Sequence(_) | Value::Mapping(_) => Err(Fault::new(
                self.place,
                "a single word is wanted here",
                choice("", variants, "write one word"),
            )),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self).map_err(|fault| fault.or_at(self.place))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct identifier ignored_any
    }
}

struct Fields<'de> {
    entries: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.entries.next();
        let Some(entry) = self.value else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| fault.or_at(entry.place).within(&entry.key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let entry =
            self.value.ok_or_else(|| Fault::new(Place::START, "a value without its key", "report this"))?;
        seed.deserialize(&*entry.node).map_err(|fault| fault.or_at(entry.node.place).within(&entry.key))
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, std::rc::Rc<Node>>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(&**item)
            .map(Some)
            .map_err(|fault| fault.or_at(item.place).within(&format!("[{index}]")))
    }
}

/// An enum's variant, which is never more than a word here.
struct Word<'de>(&'de str);

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let word: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Fault> {
        Err(Fault::invalid_type(Unexpected::UnitVariant, &"a value"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::invalid_type(Unexpected::UnitVariant, &"a list"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Fault> {
        Err(Fault::invalid_type(Unexpected::UnitVariant, &"fields"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::yaml::parse;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        port: Option<u16>,
        on: bool,
        words: Vec<String>,
        inner: Inner,
        env: BTreeMap<String, String>,
        kind: Option<Kind>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        count: u32,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Cold,
        Warm,
    }

    fn fault(text: &str) -> (String, String, String, String) {
        let fault = parse(text).unwrap().read::<Sample>().unwrap_err();
        (fault.place.unwrap().to_string(), fault.field(), fault.message, fault.mend)
    }

    #[test]
    fn what_is_well_written_is_read() {
        let text = "port: 18789\non: true\nwords: [a, '1']\ninner:\nenv: {A: b, C: 'true'}\nkind: warm\n";
        let sample: Sample = parse(text).unwrap().read().unwrap();
        assert_eq!(sample.port, Some(18_789));
        assert_eq!(sample.words, ["a", "1"]);
        assert_eq!(sample.kind, Some(Kind::Warm));
        assert_eq!(sample.env["C"], "true");
        assert_eq!(parse("").unwrap().read::<Sample>().unwrap(), Sample::default());
    }

    #[test]
    fn an_unknown_field_is_named_at_its_key_with_what_was_meant() {
        let (place, path, message, mend) = fault("on: true\ninner:\n  cuont: 1\n");
        assert_eq!((place.as_str(), path.as_str()), ("3:3", "inner.cuont"));
        assert_eq!(message, "there is no field `cuont` here");
        assert_eq!(mend, "did you mean `count`?");
    }

    #[test]
    fn a_wrong_type_is_named_at_its_value() {
        let (place, path, message, mend) = fault("env:\n  PORT: 80\n");
        assert_eq!((place.as_str(), path.as_str()), ("2:9", "env.PORT"));
        assert_eq!(message, "text is wanted here, not `80`");
        assert_eq!(mend, "put it in quotes");
        let (place, path, ..) = fault("words:\n- a\n- [b]\n");
        assert_eq!((place.as_str(), path.as_str()), ("3:3", "words[1]"));
        assert_eq!(fault("port: 70000\n").0, "1:7");
        assert_eq!(fault("port: -1\n").0, "1:7");
        assert_eq!(fault("inner: 5\n").0, "1:8");
    }

    #[test]
    fn a_wrong_choice_lists_the_right_ones() {
        let (place, _, message, mend) = fault("kind: wram\n");
        assert_eq!((place.as_str(), message.as_str()), ("1:7", "`wram` is none of the choices"));
        assert_eq!(mend, "did you mean `warm`?");
        assert_eq!(fault("kind: tepid\n").3, "use one of: cold, warm");
    }
}
