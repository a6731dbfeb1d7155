//! Pages of lists (AIP-158): where the next one begins, in a token that means nothing to its holder.
//!
//! A token belongs to one list with one set of conditions; given with others, it is refused, because its pages
//! would not fit together.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::status::Refusal;

/// How many items a page may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// If the caller does not say.
    pub(super) usual: usize,
    /// At most.
    pub(super) most: usize,
}

impl Sizes {
    /// What the caller gets who asks for `asked`.
    pub(super) fn of(self, asked: i32) -> Result<usize, Refusal> {
        match usize::try_from(asked) {
            Ok(0) => Ok(self.usual),
            Ok(size) => Ok(size.min(self.most)),
            Err(_) => Err(Refusal::field(
                "page_size",
                format!("{asked} is negative"),
                "leave it out, or give a number",
            )),
        }
    }
}

/// What makes two requests ask for the same list.
pub(super) fn conditions(list: &str, conditions: &[&str]) -> u32 {
    let mut hasher = DefaultHasher::new();
    (list, conditions).hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The token of a page that begins after `last`.
pub(super) fn token(conditions: u32, last: &str) -> String {
    let last: String = last.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{conditions:08x}{last}")
}

/// After which item the page begins; `None` for the first page.
pub(super) fn begin(conditions: u32, token: &str) -> Result<Option<String>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let last = token.strip_prefix(&format!("{conditions:08x}")).and_then(|last| {
        let (bytes, []) = last.as_bytes().as_chunks::<2>() else { return None };
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        String::from_utf8(bytes.iter().map(byte).collect::<Option<_>>()?).ok()
    });
    last.map(Some).ok_or(Refusal::InvalidPageToken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_on_in_its_own_list_only() {
        let mine = conditions("instances", &["phase = READY"]);
        let token = token(mine, "main");
        assert_eq!(begin(mine, &token).unwrap(), Some("main".into()));
        assert_eq!(begin(mine, "").unwrap(), None);
        let other = conditions("instances", &["phase = FAILED"]);
        for bad in [
            begin(other, &token),
            begin(mine, "x"),
            begin(mine, &token[..9]),
            begin(mine, &format!("{token}é")),
        ] {
            assert!(matches!(bad, Err(Refusal::InvalidPageToken)), "{bad:?}");
        }
    }

    #[test]
    fn pages_have_a_usual_and_a_greatest_size() {
        let sizes = Sizes { usual: 100, most: 1_000 };
        assert_eq!(sizes.of(0).unwrap(), 100);
        assert_eq!(sizes.of(7).unwrap(), 7);
        assert_eq!(sizes.of(i32::MAX).unwrap(), 1_000);
        assert!(sizes.of(-1).is_err());
    }
}
