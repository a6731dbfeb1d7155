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
//! Whoever takes the port while the supervisor is down is sent what each page that is open sends, afterwards too, by the
//! connections that he has then; and he can show a page of his own, which has what the browser keeps under that name, and can
//! leave there what answers in our place later: a page to be kept for a year, or a service worker. So each link has a name of
//! its own, below `localhost`, which all browsers but Safari lead to this host. A session is good for the user of this host
//! alone whose browser opened it, or whose tunnel led there; for the life of one supervisor; and for who signs each call
//! ([`proof`](super::proof)) with the secret that came with it, which a page keeps in its memory and sends to nobody. By that
//! the page gets a session of the next supervisor, too. One that is loaded anew has its secret again for its session, unless
//! that was carried over from an earlier life, and so may be known to others: then it takes a new link.

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

use super::proof::{Counts, Proof, Uncounted, knows_life};
use crate::api::{Crowd, Visitor};

/// So long a link may be followed: it is typed, or copied, or sent to the person's own telephone.
pub(crate) const LINK_FOR: Duration = Duration::from_secs(10 * 60);

/// A day's work.
const SESSION_FOR: Duration = Duration::from_secs(12 * 3600);

/// Links of one user that were followed and have not expired. Of more the oldest are forgotten, with all that were given him
/// before.
const USED: usize = 1_024;

/// What a ticket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Opens a session, for anybody who has it, once.
    Link,
    /// One that was opened in this life.
    Session,
    /// One that was opened in an earlier life.
    Carried,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Link, Self::Session, Self::Carried];

    fn word(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Session => "session",
            Self::Carried => "carried",
        }
    }
}

/// What a ticket says.
struct Claims {
    kind: Kind,
    life: String,
    visitor: Visitor,
    /// Whose programs show it.
    by: u32,
    /// The link, by which all sessions that came of it have one secret.
    link: String,
    number: String,
    expires: u64,
}

/// What a page is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Shown with each call.
    pub(super) ticket: String,
    /// Signs them. A page that goes on in another life has it.
    pub(super) secret: Option<String>,
}

/// Why a call is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The session is none, or of an earlier life, or somebody else's.
    Over,
    /// It was made before.
    Again,
}

/// Gives and knows tickets. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Inner>);

struct Inner {
    key: hmac::Key,
    random: SystemRandom,
    /// Names this life of the supervisor. Links of an earlier one have been followed, for all that is known.
    life: String,
    /// By whose they are: nobody's links push out another's.
    used: Mutex<BTreeMap<Crowd, Used>>,
    counts: Counts,
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
        Ok(Self(Arc::new(Inner { key, random, life, used: Mutex::default(), counts: Counts::default() })))
    }

    /// What a page signs that had a session of an earlier life.
    pub(super) fn life(&self) -> &str {
        &self.0.life
    }

    /// A link's ticket for this visitor, and when it expires, in seconds since the Unix epoch.
    pub(super) fn link(&self, visitor: &Visitor) -> Result<(String, u64), NoRandomness> {
        let expires = now() + LINK_FOR.as_secs();
        let (life, number) = (self.0.life.clone(), number(&self.0.random)?);
        let (kind, visitor, link) = (Kind::Link, visitor.clone(), number.clone());
        let claims = Claims { kind, life, by: visitor.uid, visitor, link, number, expires };
        Ok((self.sealed(&claims), expires))
    }

    /// A name of this host that no browser has seen before: what it keeps under another is not there.
    pub(super) fn name(&self) -> Result<String, NoRandomness> {
        let mut random = [0; 8];
        self.0.random.fill(&mut random).map_err(|_| NoRandomness)?;
        Ok(format!("claw-{:016x}.localhost", u64::from_ne_bytes(random)))
    }

    /// A session for a link that is followed for the first time, by a program of the user `by`.
    pub(super) fn follow(&self, link: &str, by: u32) -> Option<Session> {
        let link = self.read(link).filter(|claims| claims.kind == Kind::Link)?;
        let (number, expires) = (link.number.clone(), link.expires);
        {
            let mut all = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
            let (now, used) = (now(), all.entry(Crowd::of(link.visitor.uid)).or_default());
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
        let expires = now() + SESSION_FOR.as_secs();
        self.session(Claims { kind: Kind::Session, by, expires, ..link })
    }

    /// Another session for one that was opened in this life; or for one of an earlier life, if `proof` is of who had it.
    pub(super) fn renew(&self, session: &str, proof: &str, by: u32) -> Option<Session> {
        let claims = self.unsealed(session).filter(|claims| claims.by == by)?;
        match (claims.kind, claims.life == self.0.life) {
            (Kind::Session, true) => self.session(claims),
            (Kind::Session | Kind::Carried, false)
                if knows_life(&self.secret(&claims), self.life(), proof) =>
            {
                self.session(Claims { kind: Kind::Carried, ..claims })
            }
            (Kind::Link, _) | (Kind::Carried, true) | (Kind::Session | Kind::Carried, false) => None,
        }
    }

    fn session(&self, claims: Claims) -> Option<Session> {
        let claims = Claims { life: self.0.life.clone(), number: number(&self.0.random).ok()?, ..claims };
        // Whoever passes it on is not to have it.
        let secret = (claims.kind == Kind::Session).then(|| URL_SAFE_NO_PAD.encode(self.secret(&claims)));
        let ticket = self.sealed(&claims);
        self.0.counts.begin(claims.visitor.uid, claims.number);
        Some(Session { ticket, secret })
    }

    /// No ticket begins like this, so it is no ticket's seal.
    fn secret(&self, claims: &Claims) -> hmac::Tag {
        hmac::sign(&self.0.key, format!("secret of {}", claims.link).as_bytes())
    }

    /// Whose call this is, if it is made with a session, by who opened it, for the first time.
    pub(super) fn visitor(
        &self,
        session: &str,
        by: u32,
        proof: &Proof,
        (path, body): (&str, &[u8]),
    ) -> Result<Visitor, Refused> {
        let claims = self.read(session).filter(|claims| claims.kind != Kind::Link && claims.by == by);
        let claims = claims.ok_or(Refused::Over)?;
        if !proof.is_of(&self.secret(&claims), session, path, body) {
            return Err(Refused::Over);
        }
        match self.0.counts.count(claims.visitor.uid, &claims.number, proof) {
            Ok(()) => Ok(claims.visitor),
            Err(Uncounted::Unknown) => Err(Refused::Over),
            Err(Uncounted::Again) => Err(Refused::Again),
        }
    }

    fn sealed(&self, claims: &Claims) -> String {
        let Claims { kind, life, visitor, by, link, number, expires } = claims;
        let groups: Vec<String> = visitor.groups.iter().map(u32::to_string).collect();
        let (word, uid, gid, groups) = (kind.word(), visitor.uid, visitor.gid, groups.join(","));
        let claims = format!("{word} {life} {expires} {by} {uid} {gid} {groups} {link} {number}");
        let seal = hmac::sign(&self.0.key, claims.as_bytes());
        format!("{}.{}", URL_SAFE_NO_PAD.encode(&claims), URL_SAFE_NO_PAD.encode(seal))
    }

    /// What a ticket of this life says.
    fn read(&self, ticket: &str) -> Option<Claims> {
        self.unsealed(ticket).filter(|claims| claims.life == self.0.life)
    }

    /// What a ticket of any life says.
    fn unsealed(&self, ticket: &str) -> Option<Claims> {
        let (claims, seal) = ticket.split_once('.')?;
        let (claims, seal) = (URL_SAFE_NO_PAD.decode(claims).ok()?, URL_SAFE_NO_PAD.decode(seal).ok()?);
        hmac::verify(&self.0.key, &claims, &seal).ok()?;
        let claims = String::from_utf8(claims).ok()?;
        let words: Vec<&str> = claims.split(' ').collect();
        let [word, life, expires, by, uid, gid, groups, link, number] = words.as_slice() else { return None };
        let kind = Kind::ALL.into_iter().find(|kind| kind.word() == *word)?;
        let expires = expires.parse().ok().filter(|expires| *expires > now())?;
        let groups = groups.split(',').filter(|gid| !gid.is_empty()).map(str::parse);
        let groups: Result<Vec<u32>, _> = groups.collect();
        let visitor = Visitor { uid: uid.parse().ok()?, gid: gid.parse().ok()?, groups: groups.ok()?.into() };
        let (life, link, number) = ((*life).to_owned(), (*link).to_owned(), (*number).to_owned());
        Some(Claims { kind, life, visitor, by: by.parse().ok()?, link, number, expires })
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

    fn key(secret: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &URL_SAFE_NO_PAD.decode(secret).unwrap())
    }

    /// As the page does it.
    fn signed(secret: &str, life: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&key(secret), format!("life {life}").as_bytes()))
    }

    /// A call as the page makes it.
    fn call(
        sessions: &Sessions,
        session: &str,
        secret: &str,
        count: u64,
        by: u32,
    ) -> Result<Visitor, Refused> {
        let seal = hmac::sign(&key(secret), format!("call {session} A/B {count}\n{{}}").as_bytes());
        let proof = Proof::read(&format!("{count}.{}", URL_SAFE_NO_PAD.encode(seal))).unwrap();
        sessions.visitor(session, by, &proof, ("A/B", b"{}"))
    }

    fn opened(sessions: &Sessions) -> (String, String) {
        let Session { ticket, secret } = sessions.follow(&sessions.link(&visitor()).unwrap().0, ME).unwrap();
        (ticket, secret.unwrap())
    }

    #[test]
    fn a_link_is_followed_once_and_becomes_a_session() {
        let sessions = sessions(1);
        let (link, _) = sessions.link(&visitor()).unwrap();
        let Session { ticket, secret } = sessions.follow(&link, ME).unwrap();
        let secret = secret.unwrap();
        assert_eq!(sessions.follow(&link, ME), None, "once");
        assert_eq!(call(&sessions, &ticket, &secret, 1, ME), Ok(visitor()));
        assert_eq!(call(&sessions, &ticket, &secret, 1, ME), Err(Refused::Again));
        assert_eq!(
            call(&sessions, &ticket, &secret, 2, ME + 1),
            Err(Refused::Over),
            "another user has stolen it"
        );
        assert_eq!(call(&sessions, &ticket, &ticket[..8], 2, ME), Err(Refused::Over), "not the page");
        assert_eq!(call(&sessions, &link, &secret, 2, ME), Err(Refused::Over), "a link is no session");
        assert_eq!(sessions.follow(&ticket, ME), None, "nor the other way round");
    }

    #[test]
    fn a_session_outlives_the_supervisor_for_the_page_that_had_it_and_for_nobody_who_was_sent_it() {
        let (sessions, next, third) = (sessions(1), sessions(1), sessions(1));
        let (ticket, secret) = opened(&sessions);
        assert_eq!(call(&next, &ticket, &secret, 1, ME), Err(Refused::Over));
        let proof = signed(&secret, next.life());
        let ticket_s = ticket.split('.').next().unwrap();
        for (secret, life) in [(&*secret, sessions.life()), (ticket_s, next.life())] {
            assert_eq!(next.renew(&ticket, &signed(secret, life), ME), None);
        }
        assert_eq!(next.renew(&ticket, "", ME), None);
        assert_eq!(next.renew(&ticket, &proof, ME + 1), None, "another user has stolen it");
        let renewed = next.renew(&ticket, &proof, ME).unwrap();
        assert_eq!(renewed.secret, None, "whoever passes it on is not told");
        assert_eq!(call(&next, &renewed.ticket, &secret, 1, ME), Ok(visitor()));
        let expires = |ticket: &str| next.unsealed(ticket).unwrap().expires;
        assert_eq!(expires(&renewed.ticket), expires(&ticket));
        assert_eq!(
            next.renew(&renewed.ticket, "", ME),
            None,
            "who was sent it, or a page that is loaded anew"
        );
        let proof = signed(&secret, third.life());
        assert!(third.renew(&renewed.ticket, &proof, ME).is_some());
        let (other, _) = sessions.link(&visitor()).unwrap();
        assert_eq!(next.follow(&other, ME), None, "its predecessor may have seen it followed");
    }

    #[test]
    fn a_page_that_is_loaded_anew_goes_on_in_the_life_in_which_it_was_opened() {
        let sessions = sessions(1);
        let (ticket, secret) = opened(&sessions);
        let again = sessions.renew(&ticket, "", ME).unwrap();
        assert_eq!(again.secret.as_ref(), Some(&secret));
        assert_eq!(call(&sessions, &again.ticket, &secret, 1, ME), Ok(visitor()));
    }

    #[test]
    fn what_this_supervisor_has_not_sealed_opens_nothing() {
        let (ours, others) = (sessions(1), sessions(2));
        let (session, secret) = opened(&ours);
        assert_eq!(call(&others, &session, &secret, 1, ME), Err(Refused::Over));
        assert_eq!(others.renew(&session, &signed(&secret, others.life()), ME), None);
        let (claims, seal) = session.split_once('.').unwrap();
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        let root = URL_SAFE_NO_PAD.encode(claims.replacen(" 7 ", " 0 ", 1));
        for forged in
            [format!("{root}.{seal}"), String::new(), ".".into(), format!("{session}A"), "a.b.c".into()]
        {
            assert_eq!(call(&ours, &forged, &secret, 1, ME), Err(Refused::Over), "{forged}");
        }
    }

    #[test]
    fn what_has_expired_opens_nothing() {
        let (sessions, next) = (sessions(1), sessions(1));
        let (link, _) = sessions.link(&visitor()).unwrap();
        let expired = || Claims { expires: now(), ..sessions.read(&link).unwrap() };
        assert_eq!(sessions.follow(&sessions.sealed(&expired()), ME), None);
        let claims = Claims { kind: Kind::Session, by: ME, ..expired() };
        let Session { ticket, secret } = sessions.session(claims).unwrap();
        let secret = secret.unwrap();
        assert_eq!(call(&sessions, &ticket, &secret, 1, ME), Err(Refused::Over));
        assert_eq!(next.renew(&ticket, &signed(&secret, next.life()), ME), None);
    }

    #[test]
    fn links_that_were_followed_are_bounded_and_none_of_them_is_followed_again() {
        let sessions = sessions(1);
        let (others, _) = sessions.link(&Visitor { uid: 8, ..visitor() }).unwrap();
        let links: Vec<String> = (0..USED + 10).map(|_| sessions.link(&visitor()).unwrap().0).collect();
        let followed = links.iter().filter(|link| sessions.follow(link, ME).is_some()).count();
        assert!(followed >= USED);
        assert!(links.iter().all(|link| sessions.follow(link, ME).is_none()));
        assert!(sessions.0.used.lock().unwrap()[&Crowd::of(visitor().uid)].links.len() <= USED);
        assert!(sessions.follow(&others, ME).is_some(), "given before all of them");
    }
}
