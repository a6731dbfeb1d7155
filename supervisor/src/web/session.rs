//! Who has opened the dashboard: tickets that say so, sealed with a key of this supervisor.
//!
//! ```text
//!   openclawctl web ──► link (once, within minutes) ──► session (hours), in the page's own storage
//! ```
//!
//! Neither is a cookie: browsers send those of one host to all its ports, and on the others are gateways with agents in
//! them. A ticket says whose it is and until when; what its holder may do is asked of the gate at every call. A session is
//! good for the user of this host alone whose browser opened it, or whose tunnel led there: whoever takes the port while
//! the supervisor is down can show a page of his own, which has what the browser keeps under this name.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

use crate::api::Visitor;

/// So long a link may be followed: it is typed, or copied, or sent to the person's own telephone.
pub(crate) const LINK_FOR: Duration = Duration::from_secs(10 * 60);

/// A day's work.
const SESSION_FOR: Duration = Duration::from_secs(12 * 3600);

/// Links that were followed and have not expired. Of more the oldest are forgotten, with all that were given before.
const USED: usize = 4_096;

/// What a ticket is for, and who shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Anybody who has it: it is good once.
    Link(u32),
    /// This user's programs.
    Session(u32),
}

/// What a ticket says.
struct Claims {
    visitor: Visitor,
    by: u32,
    number: String,
    expires: u64,
}

/// Gives and knows tickets. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Inner>);

struct Inner {
    key: hmac::Key,
    random: SystemRandom,
    /// The supervisor's life: links of an earlier one have been followed, for all that is known.
    epoch: u64,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    /// When each of them expires, by its number.
    links: BTreeMap<String, u64>,
    /// Links that expire no later are not followed any more.
    forgotten: u64,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(crate) struct NoRandomness;

impl Sessions {
    /// Sealed with this key.
    pub(crate) fn new(key: &[u8; 32], epoch: u64) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self(Arc::new(Inner { key, random: SystemRandom::new(), epoch, used: Mutex::default() }))
    }

    /// A link's ticket for this visitor, and when it expires, in seconds since the Unix epoch.
    pub(crate) fn link(&self, visitor: &Visitor) -> Result<(String, u64), NoRandomness> {
        self.ticket(Kind::Link(visitor.uid), visitor, LINK_FOR)
    }

    /// A session for a link that is followed for the first time, by a program of the user `by`.
    pub(super) fn follow(&self, link: &str, by: u32) -> Option<String> {
        let Claims { visitor, number, expires, .. } = self.read("link", link)?;
        {
            let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
            let now = now();
            used.links.retain(|_, expires| *expires > now);
            if expires <= used.forgotten || used.links.insert(number, expires).is_some() {
                return None;
            }
            if used.links.len() > USED {
                let first = used.links.iter().min_by_key(|(_, expires)| **expires);
                if let Some((number, expires)) = first.map(|(number, expires)| (number.clone(), *expires)) {
                    used.links.remove(&number);
                    used.forgotten = used.forgotten.max(expires);
                }
            }
        }
        Some(self.ticket(Kind::Session(by), &visitor, SESSION_FOR).ok()?.0)
    }

    /// Whose session this is, as long as it is one, and shown by who opened it.
    pub(super) fn visitor(&self, session: &str, by: u32) -> Option<Visitor> {
        self.read("session", session).filter(|claims| claims.by == by).map(|claims| claims.visitor)
    }

    fn ticket(&self, kind: Kind, visitor: &Visitor, lasts: Duration) -> Result<(String, u64), NoRandomness> {
        let mut number = [0; 16];
        self.0.random.fill(&mut number).map_err(|_| NoRandomness)?;
        let expires = now() + lasts.as_secs();
        let groups: Vec<String> = visitor.groups.iter().map(u32::to_string).collect();
        let (word, by) = match kind {
            Kind::Link(by) => ("link", by),
            Kind::Session(by) => ("session", by),
        };
        let epoch = self.epoch(word);
        let claims = format!(
            "{word} {epoch} {expires} {by} {} {} {} {}",
            visitor.uid,
            visitor.gid,
            groups.join(","),
            URL_SAFE_NO_PAD.encode(number)
        );
        let seal = hmac::sign(&self.0.key, claims.as_bytes());
        let ticket = format!("{}.{}", URL_SAFE_NO_PAD.encode(&claims), URL_SAFE_NO_PAD.encode(seal));
        Ok((ticket, expires))
    }

    /// Sessions outlive a supervisor.
    fn epoch(&self, word: &str) -> u64 {
        if word == "link" { self.0.epoch } else { 0 }
    }

    /// What a ticket says that is good for this.
    fn read(&self, kind: &str, ticket: &str) -> Option<Claims> {
        let (claims, seal) = ticket.split_once('.')?;
        let (claims, seal) = (URL_SAFE_NO_PAD.decode(claims).ok()?, URL_SAFE_NO_PAD.decode(seal).ok()?);
        hmac::verify(&self.0.key, &claims, &seal).ok()?;
        let claims = String::from_utf8(claims).ok()?;
        let words: Vec<&str> = claims.split(' ').collect();
        let [word, epoch, expires, by, uid, gid, groups, number] = words.as_slice() else { return None };
        let expires: u64 = expires.parse().ok()?;
        if *word != kind || epoch.parse() != Ok(self.epoch(kind)) || expires <= now() {
            return None;
        }
        let groups = groups.split(',').filter(|gid| !gid.is_empty()).map(str::parse);
        let groups: Result<Vec<u32>, _> = groups.collect();
        let visitor = Visitor { uid: uid.parse().ok()?, gid: gid.parse().ok()?, groups: groups.ok()?.into() };
        Some(Claims { visitor, by: by.parse().ok()?, number: (*number).to_owned(), expires })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose browser it is.
    const ME: u32 = 70;

    fn visitor() -> Visitor {
        Visitor { uid: 7, gid: 8, groups: [9, 10].into() }
    }

    #[test]
    fn a_link_is_followed_once_and_becomes_a_session_that_outlives_the_supervisor() {
        let sessions = Sessions::new(&[1; 32], 3);
        let (link, _) = sessions.link(&visitor()).unwrap();
        let session = sessions.follow(&link, ME).unwrap();
        assert_eq!(sessions.follow(&link, ME), None, "once");
        assert_eq!(sessions.visitor(&session, ME), Some(visitor()));
        assert_eq!(sessions.visitor(&session, ME + 1), None, "another user has stolen it");
        assert_eq!(sessions.visitor(&link, ME), None, "a link is no session");
        assert_eq!(sessions.follow(&session, ME), None, "nor the other way round");
        let next = Sessions::new(&[1; 32], 4);
        assert_eq!(next.visitor(&session, ME), Some(visitor()));
        let (other, _) = sessions.link(&visitor()).unwrap();
        assert_eq!(next.follow(&other, ME), None, "its predecessor may have seen it followed");
    }

    #[test]
    fn what_this_supervisor_has_not_sealed_opens_nothing() {
        let (ours, others) = (Sessions::new(&[1; 32], 3), Sessions::new(&[2; 32], 3));
        let session = ours.follow(&ours.link(&visitor()).unwrap().0, ME).unwrap();
        assert_eq!(others.visitor(&session, ME), None);
        let (claims, seal) = session.split_once('.').unwrap();
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        let root = URL_SAFE_NO_PAD.encode(claims.replacen(" 7 ", " 0 ", 1));
        for forged in
            [format!("{root}.{seal}"), String::new(), ".".into(), format!("{session}A"), "a.b.c".into()]
        {
            assert_eq!(ours.visitor(&forged, ME), None, "{forged}");
        }
    }

    #[test]
    fn what_has_expired_opens_nothing() {
        let sessions = Sessions::new(&[1; 32], 3);
        let (link, _) = sessions.ticket(Kind::Link(ME), &visitor(), Duration::ZERO).unwrap();
        assert_eq!(sessions.follow(&link, ME), None);
        let (session, _) = sessions.ticket(Kind::Session(ME), &visitor(), Duration::ZERO).unwrap();
        assert_eq!(sessions.visitor(&session, ME), None);
    }

    #[test]
    fn links_that_were_followed_are_bounded_and_none_of_them_is_followed_again() {
        let sessions = Sessions::new(&[1; 32], 3);
        let links: Vec<String> = (0..USED + 10).map(|_| sessions.link(&visitor()).unwrap().0).collect();
        let followed = links.iter().filter(|link| sessions.follow(link, ME).is_some()).count();
        assert!(followed >= USED);
        assert!(links.iter().all(|link| sessions.follow(link, ME).is_none()));
        assert!(sessions.0.used.lock().unwrap().links.len() <= USED);
    }
}
