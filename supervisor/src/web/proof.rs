//! By what a page shows that a call is its own, and that it has not been made before.
//!
//! What a page sends can be had by whoever had the port before this supervisor: connections outlive their listener, and the
//! browser goes on using them. So each call is signed with the page's secret, and counted: who passes it on can hold it
//! back, but neither make another of it nor send it twice.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

use crate::api::Crowd;

/// Sessions of one user whose calls are counted. Of more the oldest end, and nobody else's.
const SESSIONS: usize = 512;

/// Calls may come so far out of their order: a browser has six connections to one name.
const WINDOW: u64 = u128::BITS as u64;

/// What comes with a call: its number, from 1 on, and a seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    count: u64,
    seal: Vec<u8>,
}

impl Proof {
    /// As the header has it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (count, seal) = text.split_once('.')?;
        Some(Self { count: count.parse().ok()?, seal: URL_SAFE_NO_PAD.decode(seal).ok()? })
    }

    /// Whether this call was signed with this secret.
    pub(super) fn is_of(&self, secret: &hmac::Tag, session: &str, path: &str, body: &[u8]) -> bool {
        let mut signed = format!("call {session} {path} {}\n", self.count).into_bytes();
        signed.extend(body);
        hmac::verify(&key(secret), &signed, &self.seal).is_ok()
    }
}

/// Whether the life of a supervisor was signed with this secret.
pub(super) fn knows_life(secret: &hmac::Tag, life: &str, proof: &str) -> bool {
    let proof = URL_SAFE_NO_PAD.decode(proof).unwrap_or_default();
    hmac::verify(&key(secret), format!("life {life}").as_bytes(), &proof).is_ok()
}

fn key(secret: &hmac::Tag) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref())
}

/// Which calls were made, of each session of this life, by whose they are.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<HashMap<Crowd, Theirs>>);

/// Sessions of one user, or of as many as may be one.
#[derive(Debug, Default)]
struct Theirs {
    sessions: HashMap<String, Count>,
    begun: u64,
}

#[derive(Debug)]
struct Count {
    /// Which session it was, from the first on.
    begun: u64,
    last: u64,
    /// A bit for each of those up to the last.
    seen: u128,
}

/// Why a call is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uncounted {
    /// The session has ended.
    Unknown,
    /// It was made before, or is too old to be told from that.
    Again,
}

impl Counts {
    /// A session of this user begins.
    pub(super) fn begin(&self, uid: u32, session: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = all.entry(Crowd::of(uid)).or_default();
        let begun = theirs.begun;
        theirs.begun += 1;
        theirs.sessions.insert(session, Count { begun, last: 0, seen: 0 });
        if theirs.sessions.len() > SESSIONS {
            let oldest = theirs.sessions.iter().min_by_key(|(_, count)| count.begun);
            if let Some(oldest) = oldest.map(|(session, _)| session.clone()) {
                theirs.sessions.remove(&oldest);
            }
        }
    }

    /// Whether this is the first time.
    pub(super) fn count(&self, uid: u32, session: &str, proof: &Proof) -> Result<(), Uncounted> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = all.get_mut(&Crowd::of(uid)).ok_or(Uncounted::Unknown)?;
        let count = theirs.sessions.get_mut(session).ok_or(Uncounted::Unknown)?;
        if let Some(ahead) = proof.count.checked_sub(count.last).filter(|ahead| *ahead > 0) {
            count.seen = if ahead < WINDOW { count.seen << ahead } else { 0 };
            count.last = proof.count;
        }
        let behind = count.last - proof.count;
        if behind >= WINDOW || count.seen >> behind & 1 == 1 {
            return Err(Uncounted::Again);
        }
        count.seen |= 1 << behind;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(count: u64) -> Proof {
        Proof { count, seal: Vec::new() }
    }

    #[test]
    fn a_call_counts_once_in_whatever_order_it_comes() {
        let counts = Counts::default();
        counts.begin(7, "s".into());
        for count in [2, 1, 5, 3, 4, 100, 6, 1_000, 900, 2_000_000_000_000] {
            assert_eq!(counts.count(7, "s", &numbered(count)), Ok(()), "{count}");
            assert_eq!(counts.count(7, "s", &numbered(count)), Err(Uncounted::Again), "{count}");
        }
        for old in [1, 1_000, u64::MIN] {
            assert_eq!(counts.count(7, "s", &numbered(old)), Err(Uncounted::Again), "{old}");
        }
        assert_eq!(counts.count(7, "another", &numbered(1)), Err(Uncounted::Unknown));
        assert_eq!(counts.count(8, "s", &numbered(2_000_000_000_001)), Err(Uncounted::Unknown));
    }

    #[test]
    fn sessions_are_bounded_and_whoever_has_too_many_loses_its_oldest() {
        let counts = Counts::default();
        counts.begin(8, "of another".into());
        for session in 0..=SESSIONS {
            // A user may be a thousand (subuid(5)).
            counts.begin(100_000 + u32::try_from(session).unwrap(), session.to_string());
        }
        assert_eq!(counts.count(100_000, "0", &numbered(1)), Err(Uncounted::Unknown));
        assert_eq!(counts.count(100_000, "1", &numbered(1)), Ok(()));
        assert_eq!(counts.count(8, "of another", &numbered(1)), Ok(()));
    }

    #[test]
    fn a_proof_is_of_one_call_alone() {
        let secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"k"), b"secret");
        let seal = hmac::sign(&key(&secret), b"call s.x A/B 7\n{}");
        let proof = Proof::read(&format!("7.{}", URL_SAFE_NO_PAD.encode(seal))).unwrap();
        assert!(proof.is_of(&secret, "s.x", "A/B", b"{}"));
        for (session, path, body) in [("s.y", "A/B", "{}"), ("s.x", "A/C", "{}"), ("s.x", "A/B", "{} ")] {
            assert!(!proof.is_of(&secret, session, path, body.as_bytes()));
        }
        let other = Proof { count: 8, ..proof };
        assert!(!other.is_of(&secret, "s.x", "A/B", b"{}"));
        for text in ["", "7", "x.AA", "7.%", "-1.AA"] {
            assert_eq!(Proof::read(text), None, "{text}");
        }
    }
}
