//! The key to the worker's socket.
//!
//! The socket admits the worker's own user, and that is the gateway's user as a rule: without a key, whatever runs
//! in one instance could order a neighbour's gateway to be killed, or see its exits and tell its supervisor to go.
//! The key lies where walls keep gateways from reading.

use std::fmt;

use subtle::ConstantTimeEq;

/// Shorter ones could be guessed.
const SHORTEST: usize = 16;

/// Longer ones are no safer.
const LONGEST: usize = 64;

/// What an attach has to show.
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// Takes the key of a bootstrap; an empty one opens to everybody whom the socket admits. `None` if it is none.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.is_empty() || (SHORTEST..=LONGEST).contains(&bytes.len())).then_some(Self(bytes))
    }

    /// Whether `shown` is it, in a time that does not tell how much of it fits.
    pub(crate) fn fits(&self, shown: &[u8]) -> bool {
        self.0.is_empty() || bool::from(self.0.as_slice().ct_eq(shown))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_to_itself_and_none_opens_to_everybody() {
        let key = Key::new(vec![7; SHORTEST]).unwrap();
        assert!(key.fits(&[7; SHORTEST]));
        for wrong in [&[7; SHORTEST - 1][..], &[7; SHORTEST + 1], &[8; SHORTEST], &[]] {
            assert!(!key.fits(wrong));
        }
        let none = Key::new(Vec::new()).unwrap();
        assert!(none.fits(&[]) && none.fits(&[1]));
    }

    #[test]
    fn a_key_that_could_be_guessed_is_none() {
        assert!(Key::new(vec![0; SHORTEST - 1]).is_none());
        assert!(Key::new(vec![0; LONGEST + 1]).is_none());
        assert!(Key::new(vec![0; LONGEST]).is_some());
    }
}
