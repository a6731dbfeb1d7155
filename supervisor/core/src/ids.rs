//! Names and numbers that must not be mistaken for each other.

use alloc::{string::String, sync::Arc};
use core::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// The longest instance name, in bytes. Names become directory names and parts of process titles.
pub const MAX_NAME: usize = 40;

/// An instance's name: 1 to [`MAX_NAME`] of `a-z`, `0-9` and inner hyphens, beginning with a letter.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name {
    text: Arc<str>,
    /// The first bytes, as a number that is ordered as they are: most comparisons, and every event has dozens, look
    /// no further.
    head: u64,
}

/// Bytes of a name's head.
const HEAD: usize = 8;

/// The text is not an instance name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an instance name: use 1 to {MAX_NAME} of a-z, 0-9 and inner hyphens, beginning with a letter"
)]
pub struct InvalidName(pub String);

impl Name {
    /// Checks and takes `text`.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let bytes = text.as_bytes();
        let well_formed = bytes.len() <= MAX_NAME
            && bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.last().is_some_and(|last| *last != b'-')
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if !well_formed {
            return Err(InvalidName(text.into()));
        }
        let mut head = [0; HEAD];
        head.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(Self { text: text.into(), head: u64::from_be_bytes(head) })
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    /// As the texts are ordered. No name has a byte 0, so where both end within the head, the head is all.
    fn cmp(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| {
            if self.text.len().max(other.text.len()) <= HEAD || Arc::ptr_eq(&self.text, &other.text) {
                Ordering::Equal
            } else {
                self.text.cmp(&other.text)
            }
        })
    }
}

impl Hash for Name {
    /// As the text has it, which maps are asked for, too.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        (*name.text).into()
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.text
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Name").field(&self.text).finish()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One life of an instance's process. 0 is "never ran"; the first life is 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The life after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A place in the supervisor's history; rises with every change, across its restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

/// Names the caller that waits for a reply. Chosen by the shell, given back in the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// What a configuration holds: the first half of the SHA-256 of its bytes. Core compares it and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigId([u8; 16]);

/// The text is not the name of a configuration's content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a snapshot: use the 32 hexadecimal digits that it is listed with")]
pub struct InvalidConfigId(pub String);

impl ConfigId {
    /// Takes the first half of a digest.
    #[must_use]
    pub fn of_digest(digest: &[u8; 32]) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Self(half)
    }

    /// Enough of it for people to tell contents apart.
    #[must_use]
    pub fn short(self) -> String {
        let mut text = String::from(self);
        text.truncate(SHORT);
        text
    }
}

/// Digits of a content's short name.
const SHORT: usize = 12;

impl FromStr for ConfigId {
    type Err = InvalidConfigId;
    fn from_str(text: &str) -> Result<Self, InvalidConfigId> {
        let invalid = || InvalidConfigId(text.into());
        let hexadecimal = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if text.len() != 32 || !text.bytes().all(hexadecimal) {
            return Err(invalid());
        }
        u128::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| invalid())
    }
}

impl TryFrom<String> for ConfigId {
    type Error = InvalidConfigId;
    fn try_from(text: String) -> Result<Self, InvalidConfigId> {
        text.parse()
    }
}

impl From<ConfigId> for String {
    fn from(id: ConfigId) -> Self {
        alloc::format!("{id}")
    }
}

impl fmt::Display for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigId({self})")
    }
}

/// The fingerprint of one channel credential. Two instances with the same one fight for its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Credential(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lowercase_words() {
        for good in ["a", "main", "rescue-2", "x9"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(MAX_NAME + 1);
        for bad in ["", "-a", "a-", "9a", "Main", "a/b", "a b", "..", "ä", long.as_str()] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn contents_are_named_as_they_are_read() {
        let id = ConfigId::of_digest(&core::array::from_fn(|n| u8::try_from(n).unwrap()));
        assert_eq!(String::from(id), "000102030405060708090a0b0c0d0e0f");
        assert_eq!(id.short(), "000102030405");
        assert_eq!(String::from(id).parse(), Ok(id));
        for bad in ["", "0", "000102030405060708090A0B0C0D0E0F", "+00102030405060708090a0b0c0d0e0f"] {
            assert!(bad.parse::<ConfigId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_ordered_as_their_texts() {
        let texts = ["a", "ab", "abcdefgh", "abcdefgh-a", "abcdefgh-b", "abcdefghi", "b", "main", "main-2"];
        for (one, other) in texts.iter().flat_map(|one| texts.map(|other| (*one, other))) {
            let order = Name::new(one).unwrap().cmp(&Name::new(other).unwrap());
            assert_eq!(order, one.cmp(other), "{one} {other}");
        }
    }
}
