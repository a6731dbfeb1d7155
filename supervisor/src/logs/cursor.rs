//! Places in a log, and how they are written down.

use std::fmt;

/// The byte at `offset` of file `file`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: u64,
    pub(super) offset: u64,
}

/// A place in the log of one instance. Opaque to whoever keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(super) place: Place,
    /// Ties it to the instance, and finds what was mistyped or cut short.
    check: u32,
}

impl Cursor {
    pub(super) fn new(place: Place, instance: &str) -> Self {
        Self { place, check: check(place, instance) }
    }

    /// Reads what [`Display`](fmt::Display) wrote, if it was written for `instance`.
    #[must_use]
    pub fn parse(text: &str, instance: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let file = hexadecimal(parts.next()?)?;
        let offset = hexadecimal(parts.next()?)?;
        let check = u32::try_from(hexadecimal(parts.next()?)?).ok()?;
        let cursor = Self::new(Place { file, offset }, instance);
        (parts.next().is_none() && cursor.check == check).then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{:x}", self.place.file, self.place.offset, self.check)
    }
}

/// Only digits: `from_str_radix` alone would take a sign.
fn hexadecimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(text, 16).ok())?
}

/// FNV-1a, 32 bits.
fn check(place: Place, instance: &str) -> u32 {
    let bytes = instance.bytes().chain([0]).chain(place.file.to_le_bytes()).chain(place.offset.to_le_bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_for_its_own_instance_only() {
        let cursor = Cursor::new(Place { file: 7, offset: 123_456_789 }, "main");
        let text = cursor.to_string();
        assert_eq!(Cursor::parse(&text, "main"), Some(cursor));
        assert_eq!(Cursor::parse(&text, "rescue"), None);
    }

    #[test]
    fn what_is_not_a_cursor_is_refused() {
        let text = Cursor::new(Place { file: 7, offset: 9 }, "main").to_string();
        for bad in
            ["", "7", "7.9", "7.9.0", &format!("{text}0"), &format!("{text}.1"), &format!("+{text}"), "é.1.1"]
        {
            assert_eq!(Cursor::parse(bad, "main"), None, "{bad}");
        }
    }
}
