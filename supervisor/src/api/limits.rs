//! What callers may hold of this process at once: connections, calls, bytes that wait for a reader.
//!
//! Nobody who comes is turned away: else a thousand stuck callers would keep the operator out for as long as they
//! live. Where something runs short, the connection that holds the most of it is ended instead, and the log says
//! whose it was. Its client sees a lost connection and may come back.
//!
//! ```text
//! Connection ── Seat ─┐                    ┌─ connections   of the party with most: fewest calls, then the oldest
//!                     ├──► Limits: short ──┼─ calls         of the party with most: the one with most of them
//! answer ────── Call ─┘                    └─ bytes         of the party with most: the one with most that nobody has taken for a while
//! ```
//!
//! A party is all that somebody has at once, however many connections that are: who opens a thousand keeps out itself.

mod flow;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use supervisor_core::ids::Name;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(super) use self::flow::Paced;
use self::flow::{CALL, Flows};
use super::turn::{Turn, Turns};
use crate::{bindings::Bound, seldom::Seldom};

/// An answer that was not taken for so long is not on its way any more.
const STALLED: Duration = Duration::from_secs(5);

/// Times the bytes that may wait: beyond this nobody is let through for being on its way.
const SURGE: usize = 4;

/// The most of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    /// Connections. Each is a descriptor, and the workers need theirs.
    pub(super) connections: usize,
    /// Calls of all connections. Each is a task, two messages that wait, what the connection has of it, and for as long as
    /// it lasts the place of the largest message that it was given, which tonic's encoder keeps for the next.
    pub(super) calls: usize,
    /// Bytes of answers that connections have been given and have not got rid of.
    pub(super) bytes: usize,
}

impl Most {
    /// A thousand watchers of a small fleet, or a hundred that stopped reading the largest in the middle of its
    /// snapshot: together about as much as a fleet of a thousand takes anyway.
    pub(super) const USUAL: Self = Self { connections: 1_024, calls: 1_024, bytes: 64 << 20 };
}

/// What is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Short {
    Connections,
    Calls,
    Bytes,
}

/// Who shares what there is. Of two that have as much, the one that stands later here makes room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Party {
    /// The supervisor's own user, and root, outside of all instances.
    Own,
    /// Another user who has a role.
    User(u32),
    /// Whoever shows this certificate.
    Certificate(String),
    /// Whoever has a role by this group alone. One user may have thousands of numbers (subuid(5)), all of his groups.
    Group(u32),
    /// Whoever runs inside this instance.
    Inside(Name),
    /// Who has no role: a user, or a block of numbers that one user may have all of.
    Stranger(Crowd),
    /// What of this user may be an agent, and has not been traced yet.
    Untraced(u32),
    /// And what of that takes long.
    Slow(u32),
}

/// Users that may all be one: he has as many numbers more as there are in a block, by what useradd(8) writes into
/// subuid(5). It is called by its first number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Crowd(pub(in crate::api) u32);

impl Crowd {
    /// From here on users are given such numbers (`SUB_UID_MIN` of login.defs(5)).
    const FIRST: u32 = 100_000;

    /// All of them together, under a number that is nobody's.
    const ALL: Self = Self(u32::MAX);

    /// So many each (`SUB_UID_COUNT`).
    const SIZE: u32 = 65_536;

    /// The one that this user is in. Those who are given their numbers by people are alone in it.
    pub(crate) const fn of(uid: u32) -> Self {
        match uid.checked_sub(Self::FIRST) {
            None => Self(uid),
            Some(more) => Self(Self::FIRST + more / Self::SIZE * Self::SIZE),
        }
    }
}

/// What the supervisor's own user has of this counts for nothing: a watch or two are not more than what a thousand others
/// have each.
const SPARED: usize = 16;

impl Party {
    /// Of who is outside of all instances; `own` is the supervisor's user and root.
    pub(super) fn of_person(uid: u32, own: bool, bound: Option<Bound>) -> Self {
        match bound {
            _ if own => Self::Own,
            Some(Bound::User) => Self::User(uid),
            Some(Bound::Group(gid)) => Self::Group(gid),
            None => Self::Stranger(Crowd::of(uid)),
        }
    }

    /// Whether it is the supervisor's own user, or root, who keep nobody out on purpose.
    pub(super) fn is_own(&self) -> bool {
        *self == Self::Own
    }

    /// What it has, as it is held against what others have.
    fn counted(&self, has: usize) -> usize {
        if self.is_own() { has.saturating_sub(SPARED) } else { has }
    }
}

/// Who holds what.
#[derive(Debug)]
pub(super) struct Limits {
    most: Most,
    table: Mutex<Table>,
    turns: Turns,
}

#[derive(Debug, Default)]
struct Table {
    /// The last number given to a connection or a call: lower ones are older.
    last: u64,
    connections: BTreeMap<u64, Holder>,
    calls: BTreeMap<u64, Held>,
    bytes: usize,
    flows: Flows,
    /// Whether somebody looks again later at those that are on their way.
    waits: bool,
    /// A flood of callers is not to become a flood of lines.
    ends: Seldom,
}

/// One connection.
#[derive(Debug)]
struct Holder {
    who: String,
    party: Party,
    calls: usize,
    end: CancellationToken,
}

/// One call.
#[derive(Debug)]
struct Held {
    connection: u64,
    bytes: usize,
    since: Instant,
}

/// A connection's place. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    ticket: Ticket,
    /// Cancelled when the connection is to end.
    pub(super) end: CancellationToken,
}

/// Names a connection to its calls.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    limits: Arc<Limits>,
    connection: u64,
}

/// A call's place. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Call {
    limits: Arc<Limits>,
    call: u64,
}

impl Limits {
    pub(super) fn new(most: Most) -> Arc<Self> {
        Arc::new(Self { most, table: Mutex::default(), turns: Turns::default() })
    }

    /// What was on its way is gone after a while, or stalled; nobody may ask for room by then.
    async fn relieve_later(&self) {
        loop {
            sleep(STALLED).await;
            let mut table = self.lock();
            if table.relieve(self.most.bytes, Instant::now()) {
                table.waits = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a connection of `who`, as the log is to call it.
    pub(super) fn admit(self: &Arc<Self>, who: String, party: Party) -> Seat {
        let mut table = self.lock();
        if table.connections.len() >= self.most.connections {
            let victim = table.idlest();
            table.end(victim, Short::Connections);
        }
        let connection = table.next();
        let end = CancellationToken::new();
        table.connections.insert(connection, Holder { who, party, calls: 0, end: end.clone() });
        Seat { ticket: Ticket { limits: Arc::clone(self), connection }, end }
    }
}

impl Table {
    /// A connection has sent so many bytes. When more is read of it, if that is not at once.
    fn spend(&mut self, connection: u64, bytes: usize) -> Option<Instant> {
        let holder = self.connections.get(&connection)?;
        self.flows.spend(&holder.party, bytes, Instant::now())
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The connections of the party that has most of something. Strangers are one among the others, as an agent of root's
    /// can be all of them; among themselves they are told apart, as one of them may have a token.
    fn of_the_greediest(&self, has: impl Fn(u64, &Holder) -> usize) -> impl Iterator<Item = (&u64, &Holder)> {
        const STRANGERS: &Party = &Party::Stranger(Crowd::ALL);
        let (mut sums, mut crowds) = (BTreeMap::<&Party, usize>::new(), BTreeMap::<Crowd, usize>::new());
        for (id, holder) in &self.connections {
            let has = has(*id, holder);
            let mut party = &holder.party;
            if let Party::Stranger(crowd) = party {
                *crowds.entry(*crowd).or_default() += has;
                party = STRANGERS;
            }
            *sums.entry(party).or_default() += has;
        }
        // Of several the last.
        let greediest =
            sums.into_iter().max_by_key(|(party, sum)| party.counted(*sum)).map(|(party, _)| party);
        let most = crowds.values().copied().max();
        self.connections.iter().filter(move |(_, holder)| match (&holder.party, &greediest) {
            // Of several all, so that the oldest goes and not always the same.
            (Party::Stranger(crowd), Some(Party::Stranger(_))) => crowds.get(crowd).copied() == most,
            (party, greediest) => Some(party) == *greediest,
        })
    }

    /// The connection that makes room for another.
    fn idlest(&self) -> Option<u64> {
        self.of_the_greediest(|_, _| 1).min_by_key(|(id, holder)| (holder.calls, **id)).map(|(id, _)| *id)
    }

    /// The one that makes room for another call; of several the oldest.
    fn busiest(&self) -> Option<u64> {
        let theirs = self.of_the_greediest(|_, holder| holder.calls);
        theirs.max_by_key(|(id, holder)| (holder.calls, Reverse(**id))).map(|(id, _)| *id)
    }

    /// Ends who keeps bytes from being less than `most`. Whether they are.
    fn relieve(&mut self, most: usize, now: Instant) -> bool {
        while self.bytes > most {
            // What is on its way is let through: it is gone in a moment.
            let patience = if self.bytes > most * SURGE { Duration::ZERO } else { STALLED };
            let Some(victim) = self.heaviest(now, patience) else { return false };
            self.end(Some(victim), Short::Bytes);
        }
        true
    }

    /// The connection that has most bytes which nobody has taken for so long, if there are any, of the party that has most
    /// bytes on their way or not; of several the oldest.
    fn heaviest(&self, now: Instant, patience: Duration) -> Option<u64> {
        // All of them, and those that nobody takes.
        let mut sums = BTreeMap::<u64, (usize, usize)>::new();
        for held in self.calls.values() {
            let (all, stalled) = sums.entry(held.connection).or_default();
            *all += held.bytes;
            *stalled += if now.duration_since(held.since) >= patience { held.bytes } else { 0 };
        }
        let sum = |id| sums.get(&id).copied().unwrap_or_default();
        let theirs = self.of_the_greediest(|id, _| sum(id).0).map(|(id, _)| (sum(*id).1, Reverse(*id)));
        theirs.filter(|(stalled, _)| *stalled > 0).max().map(|(_, Reverse(id))| id)
    }

    /// Ends a connection, and counts nothing of it any more.
    fn end(&mut self, connection: Option<u64>, short: Short) {
        let Some((id, holder)) = connection.and_then(|id| self.connections.remove_entry(&id)) else { return };
        let bytes = &mut self.bytes;
        self.calls.retain(|_, held| {
            let other = held.connection != id;
            *bytes -= if other { 0 } else { held.bytes };
            other
        });
        holder.end.cancel();
        if let Some(count) = self.ends.count() {
            let what = match short {
                Short::Connections => "connections",
                Short::Calls => "calls",
                Short::Bytes => "answers that nobody reads",
            };
            let who = holder.who;
            warn!(who, calls = holder.calls, count, "too many {what}: a caller's connection was ended");
        }
    }
}

impl Seat {
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// It is known now whose it is.
    pub(super) fn is_of(&self, party: Party) {
        if let Some(holder) = self.ticket.limits.lock().connections.get_mut(&self.ticket.connection) {
            holder.party = party;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.ticket.limits.lock().connections.remove(&self.ticket.connection);
    }
}

impl Ticket {
    /// The turn of whoever has the connection.
    pub(super) fn turn(&self) -> Turn {
        let party = self.limits.lock().connections.get(&self.connection).map(|holder| holder.party.clone());
        party.map(|party| self.limits.turns.of(&party)).unwrap_or_default()
    }

    /// The connection has sent so many bytes. When more is read of it, if that is not at once.
    fn spend(&self, bytes: usize) -> Option<Instant> {
        self.limits.lock().spend(self.connection, bytes)
    }

    /// Makes room for a call, in which so many bytes were said.
    pub(super) fn call(&self, said: usize) -> Call {
        let mut table = self.limits.lock();
        table.spend(self.connection, said.max(CALL));
        if table.calls.len() >= self.limits.most.calls {
            let victim = table.busiest();
            table.end(victim, Short::Calls);
        }
        let call = table.next();
        // A connection that has just been ended begins nothing any more.
        if let Some(holder) = table.connections.get_mut(&self.connection) {
            holder.calls += 1;
            table.calls.insert(call, Held { connection: self.connection, bytes: 0, since: Instant::now() });
        }
        Call { limits: Arc::clone(&self.limits), call }
    }
}

impl Call {
    /// The connection has been given so many bytes of the answer, and has got rid of those before.
    pub(super) fn hold(&self, bytes: usize) {
        let mut table = self.limits.lock();
        let now = Instant::now();
        let Some(held) = table.calls.get_mut(&self.call) else { return };
        held.since = now;
        let before = std::mem::replace(&mut held.bytes, bytes);
        table.bytes = table.bytes - before + bytes;
        if !table.relieve(self.limits.most.bytes, now) && !std::mem::replace(&mut table.waits, true) {
            let limits = Arc::clone(&self.limits);
            tokio::spawn(async move { limits.relieve_later().await });
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut table = self.limits.lock();
        let Some(held) = table.calls.remove(&self.call) else { return };
        table.bytes -= held.bytes;
        if let Some(holder) = table.connections.get_mut(&held.connection) {
            holder.calls -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
