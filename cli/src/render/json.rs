//! Proto JSON and YAML, by the descriptors of the contract: what is printed is what the `.proto` files say.
//!
//! Every field is there even when it holds its default, keys are sorted, and 64-bit numbers are strings, as
//! proto JSON has it. The descriptors are decoded only when this is asked for: it costs more than the rest
//! of a call.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Map, Value};
use supervisor_proto::v1::DESCRIPTORS;

use crate::error::Cause;

const PACKAGE: &str = "openclaw.supervisor.v1";

/// The machine-readable formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// One indented object.
    Json,
    /// One object a line.
    JsonLines,
    /// One document.
    Yaml,
}

/// Turns messages of the contract into text.
#[derive(Debug)]
pub(crate) struct Encoder {
    pool: DescriptorPool,
    encoding: Encoding,
}

impl Encoder {
    /// Reads the descriptors.
    pub(crate) fn new(encoding: Encoding) -> Result<Self, Cause> {
        Ok(Self { pool: DescriptorPool::decode(DESCRIPTORS)?, encoding })
    }

    /// `message` as text that ends a line. `name` is its name in the contract, e.g. "Instance".
    pub(crate) fn encode(&self, name: &'static str, message: &impl Message) -> Result<String, Cause> {
        text(self.encoding, &self.value(name, message)?)
    }

    /// `message` as one of many that follow one another.
    pub(crate) fn encode_item(&self, name: &'static str, message: &impl Message) -> Result<String, Cause> {
        let text = self.encode(name, message)?;
        Ok(match self.encoding {
            Encoding::Json | Encoding::JsonLines => text,
            Encoding::Yaml => format!("---\n{text}"),
        })
    }

    fn value(&self, name: &'static str, message: &impl Message) -> Result<Value, Cause> {
        let descriptor =
            self.pool.get_message_by_name(&format!("{PACKAGE}.{name}")).ok_or(Cause::UnknownMessage(name))?;
        let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
        let options = SerializeOptions::new().skip_default_fields(false);
        let value = dynamic.serialize_with_options(serde_json::value::Serializer, &options)?;
        Ok(sorted(value))
    }
}

/// `value` as text that ends a line.
pub(crate) fn text(encoding: Encoding, value: &Value) -> Result<String, Cause> {
    Ok(match encoding {
        Encoding::Json => serde_json::to_string_pretty(value)? + "\n",
        Encoding::JsonLines => serde_json::to_string(value)? + "\n",
        Encoding::Yaml => serde_yaml::to_string(value)?,
    })
}

/// Map fields come in an order made by chance; this gives the same text for the same message.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect::<Map<_, _>>())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}
