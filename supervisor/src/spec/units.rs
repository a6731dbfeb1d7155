//! Durations and sizes as people write them.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration, written with its unit: `500ms`, `330s`, `10m`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    #[must_use]
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|_| {
            format!("`{text}` is not a duration; write it like `500ms`, `330s`, `10m` or `1h30m`")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(nanos / 1_000_000), "ms"),
            (u64::from(nanos / 1_000 % 1_000), "us"),
            (u64::from(nanos % 1_000), "ns"),
        ];
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .try_for_each(|(count, unit)| write!(f, "{count}{unit}"))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `330s`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Span, E> {
                Err(E::custom(format_args!("{number} has no unit; write `{number}s` or `{number}ms`")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A number of bytes, written as such or with a unit: `4096`, `64KiB`, `16MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Longest first, so that a number is shown with the largest unit that divides it.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Bytes {
    /// So many MiB.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    fn written(self) -> Cow<'static, str> {
        UNITS.into_iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit)).map_or_else(
            || self.0.to_string().into(),
            |(name, unit)| format!("{}{name}", self.0 / unit).into(),
        )
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = UNITS
            .into_iter()
            .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits, unit)))
            .unwrap_or((text, 1));
        digits.trim_end().parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).map(Self).ok_or_else(
            || format!("`{text}` is not a size; write it in bytes or like `64KiB`, `16MiB` or `1GiB`"),
        )
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.written() {
            text if text.ends_with('B') => serializer.serialize_str(&text),
            _ => serializer.serialize_u64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as `16MiB`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_and_sizes_read_as_they_are_written() {
        assert_eq!("330s".parse(), Ok(Span::secs(330)));
        assert_eq!("1h30m".parse(), Ok(Span::secs(5_400)));
        assert_eq!(Span::secs(330).to_string(), "5m30s");
        assert_eq!(Span(Duration::from_millis(1_500)).to_string(), "1s500ms");
        assert_eq!("16MiB".parse(), Ok(Bytes::mib(16)));
        assert_eq!(Bytes(1_000).to_string(), "1000");
        assert!("5".parse::<Span>().unwrap_err().contains("write it like"));
        assert!("16MB".parse::<Bytes>().is_err());
        assert!("99999999999GiB".parse::<Bytes>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(nanos in any::<u64>(), bytes in any::<u64>(), shift in 0..40u32) {
            let span = Span(Duration::from_nanos(nanos));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let bytes = Bytes((bytes >> shift) << shift);
            prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
        }
    }
}
