//! Who has opened the dashboard: tickets that say so, sealed with a key of this supervisor.
//!
//! ```text
//!   openclawctl web ──► link (once, within minutes) ──► session (hours), in the page's own storage
//!                                                          │ the supervisor is started anew
//!                                                          └──► another, for the page that proves that it had this one
//! ```
//!
//! Neither is a cookie: browsers send those of one host to all its ports, and on the others are gateways with agents in
//! them. A ticket says whose it is and until when; what its holder may do is asked of the gate at every call.
//!
//! Whoever takes the port while the supervisor is down is sent the session of each page that is open, and can show a page
//! of his own, which has what the browser keeps under that name, and can leave there what answers in our place later: a
//! page to be kept for a year, or a service worker. So each link has a name of its own, below `localhost`, which all
//! browsers but Safari lead to this host. And a session is good for the user of this host alone whose
//! browser opened it, or whose tunnel led there; and for the life of one supervisor. The page that has seen the last one
//! gets another by a secret that it was given with the first, that it keeps in its memory and sends to nobody: it signs the
//! name of the new life, which nobody knows before. A page that is loaded anew after that does not have it, and takes a new
//! link.

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

/// What a page is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Shown with each call.
    pub(super) ticket: String,
    /// What the page proves by that it had this one.
    pub(super) secret: String,
}

/// Gives and knows tickets. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Inner>);

struct Inner {
    key: hmac::Key,
    random: SystemRandom,
    /// Names this life of the supervisor. Links of an earlier one have been followed, for all that is known.
    life: String,
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
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self, NoRandomness> {
        let (key, random) = (hmac::Key::new(hmac::HMAC_SHA256, key), SystemRandom::new());
        let life = number(&random)?;
        Ok(Self(Arc::new(Inner { key, random, life, used: Mutex::default() })))
    }

    /// What a page signs that had a session of an earlier life.
    pub(super) fn life(&self) -> &str {
        &self.0.life
    }

    /// A link's ticket for this visitor, and when it expires, in seconds since the Unix epoch.
    pub(super) fn link(&self, visitor: &Visitor) -> Result<(String, u64), NoRandomness> {
        let expires = now() + LINK_FOR.as_secs();
        Ok((self.ticket(Kind::Link(visitor.uid), visitor, expires)?, expires))
    }

    /// A name of this host that no browser has seen before: what it keeps under another is not there.
    pub(super) fn name(&self) -> Result<String, NoRandomness> {
        let mut random = [0; 8];
        self.0.random.fill(&mut random).map_err(|_| NoRandomness)?;
        Ok(format!("claw-{:016x}.localhost", u64::from_ne_bytes(random)))
    }

    /// A session for a link that is followed for the first time, by a program of the user `by`.
    pub(super) fn follow(&self, link: &str, by: u32) -> Option<Session> {
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
        self.session(by, &visitor, now() + SESSION_FOR.as_secs())
    }

    /// Another session for one of this life, until when that is good; or for one of an earlier life, if `proof` is of who
    /// had it.
    pub(super) fn renew(&self, session: &str, proof: &str, by: u32) -> Option<Session> {
        let (life, claims) = self.unsealed("session", session).filter(|(_, claims)| claims.by == by)?;
        if life != self.0.life {
            let proof = URL_SAFE_NO_PAD.decode(proof).ok()?;
            let secret = hmac::Key::new(hmac::HMAC_SHA256, self.secret(session).as_ref());
            hmac::verify(&secret, self.0.life.as_bytes(), &proof).ok()?;
        }
        self.session(by, &claims.visitor, claims.expires)
    }

    fn session(&self, by: u32, visitor: &Visitor, expires: u64) -> Option<Session> {
        let ticket = self.ticket(Kind::Session(by), visitor, expires).ok()?;
        let secret = URL_SAFE_NO_PAD.encode(self.secret(&ticket));
        Some(Session { ticket, secret })
    }

    /// No ticket begins like this, so it is no ticket's seal.
    fn secret(&self, session: &str) -> hmac::Tag {
        hmac::sign(&self.0.key, format!("secret of {session}").as_bytes())
    }

    /// Whose session this is, as long as it is one, and shown by who opened it.
    pub(super) fn visitor(&self, session: &str, by: u32) -> Option<Visitor> {
        self.read("session", session).filter(|claims| claims.by == by).map(|claims| claims.visitor)
    }

    fn ticket(&self, kind: Kind, visitor: &Visitor, expires: u64) -> Result<String, NoRandomness> {
        let number = number(&self.0.random)?;
        let groups: Vec<String> = visitor.groups.iter().map(u32::to_string).collect();
        let (word, by) = match kind {
            Kind::Link(by) => ("link", by),
            Kind::Session(by) => ("session", by),
        };
        let (life, groups) = (&self.0.life, groups.join(","));
        let claims =
            format!("{word} {life} {expires} {by} {} {} {groups} {number}", visitor.uid, visitor.gid);
        let seal = hmac::sign(&self.0.key, claims.as_bytes());
        Ok(format!("{}.{}", URL_SAFE_NO_PAD.encode(&claims), URL_SAFE_NO_PAD.encode(seal)))
    }

    /// What a ticket of this life says that is good for this.
    fn read(&self, kind: &str, ticket: &str) -> Option<Claims> {
        self.unsealed(kind, ticket).filter(|(life, _)| *life == self.0.life).map(|(_, claims)| claims)
    }

    /// What a ticket of any life says that is good for this, and which life.
    fn unsealed(&self, kind: &str, ticket: &str) -> Option<(String, Claims)> {
        let (claims, seal) = ticket.split_once('.')?;
        let (claims, seal) = (URL_SAFE_NO_PAD.decode(claims).ok()?, URL_SAFE_NO_PAD.decode(seal).ok()?);
        hmac::verify(&self.0.key, &claims, &seal).ok()?;
        let claims = String::from_utf8(claims).ok()?;
        let words: Vec<&str> = claims.split(' ').collect();
        let [word, life, expires, by, uid, gid, groups, number] = words.as_slice() else { return None };
        let expires: u64 = expires.parse().ok()?;
        if *word != kind || expires <= now() {
            return None;
        }
        let groups = groups.split(',').filter(|gid| !gid.is_empty()).map(str::parse);
        let groups: Result<Vec<u32>, _> = groups.collect();
        let visitor = Visitor { uid: uid.parse().ok()?, gid: gid.parse().ok()?, groups: groups.ok()?.into() };
        let claims = Claims { visitor, by: by.parse().ok()?, number: (*number).to_owned(), expires };
        Some(((*life).to_owned(), claims))
    }
}

/// One that nobody can guess.
fn number(random: &SystemRandom) -> Result<String, NoRandomness> {
    let mut number = [0; 16];
    random.fill(&mut number).map_err(|_| NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(number))
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

    fn sessions(key: u8) -> Sessions {
        Sessions::new(&[key; 32]).unwrap()
    }

    /// As the page does it.
    fn signed(secret: &str, life: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &URL_SAFE_NO_PAD.decode(secret).unwrap());
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, life.as_bytes()))
    }

    #[test]
    fn a_link_is_followed_once_and_becomes_a_session() {
        let sessions = sessions(1);
        let (link, _) = sessions.link(&visitor()).unwrap();
        let session = sessions.follow(&link, ME).unwrap().ticket;
        assert_eq!(sessions.follow(&link, ME), None, "once");
        assert_eq!(sessions.visitor(&session, ME), Some(visitor()));
        assert_eq!(sessions.visitor(&session, ME + 1), None, "another user has stolen it");
        assert_eq!(sessions.visitor(&link, ME), None, "a link is no session");
        assert_eq!(sessions.follow(&session, ME), None, "nor the other way round");
    }

    #[test]
    fn a_session_outlives_the_supervisor_for_the_page_that_had_it_and_for_nobody_who_was_sent_it() {
        let (sessions, next, third) = (sessions(1), sessions(1), sessions(1));
        let opened = sessions.follow(&sessions.link(&visitor()).unwrap().0, ME).unwrap();
        assert_eq!(next.visitor(&opened.ticket, ME), None);
        let proof = signed(&opened.secret, next.life());
        for (secret, life) in [(&opened.secret, sessions.life()), (&opened.ticket, next.life())] {
            let secret = secret.split('.').next().unwrap();
            assert_eq!(next.renew(&opened.ticket, &signed(secret, life), ME), None);
        }
        assert_eq!(next.renew(&opened.ticket, &proof, ME + 1), None, "another user has stolen it");
        let renewed = next.renew(&opened.ticket, &proof, ME).unwrap();
        assert_eq!(next.visitor(&renewed.ticket, ME), Some(visitor()));
        let expires = |ticket: &str| next.unsealed("session", ticket).unwrap().1.expires;
        assert_eq!(expires(&renewed.ticket), expires(&opened.ticket));
        // Loaded anew while the supervisor lives, a page has its secret again.
        let again = next.renew(&renewed.ticket, "", ME).unwrap();
        assert!(third.renew(&again.ticket, &signed(&again.secret, third.life()), ME).is_some());
        let (other, _) = sessions.link(&visitor()).unwrap();
        assert_eq!(next.follow(&other, ME), None, "its predecessor may have seen it followed");
    }

    #[test]
    fn what_this_supervisor_has_not_sealed_opens_nothing() {
        let (ours, others) = (sessions(1), sessions(2));
        let Session { ticket: session, secret } = ours.follow(&ours.link(&visitor()).unwrap().0, ME).unwrap();
        assert_eq!(others.visitor(&session, ME), None);
        assert_eq!(others.renew(&session, &signed(&secret, others.life()), ME), None);
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
        let (sessions, next) = (sessions(1), sessions(1));
        let link = sessions.ticket(Kind::Link(ME), &visitor(), now()).unwrap();
        assert_eq!(sessions.follow(&link, ME), None);
        let session = sessions.session(ME, &visitor(), now()).unwrap();
        assert_eq!(sessions.visitor(&session.ticket, ME), None);
        assert_eq!(next.renew(&session.ticket, &signed(&session.secret, next.life()), ME), None);
    }

    #[test]
    fn links_that_were_followed_are_bounded_and_none_of_them_is_followed_again() {
        let sessions = sessions(1);
        let links: Vec<String> = (0..USED + 10).map(|_| sessions.link(&visitor()).unwrap().0).collect();
        let followed = links.iter().filter(|link| sessions.follow(link, ME).is_some()).count();
        assert!(followed >= USED);
        assert!(links.iter().all(|link| sessions.follow(link, ME).is_none()));
        assert!(sessions.0.used.lock().unwrap().links.len() <= USED);
    }
}
