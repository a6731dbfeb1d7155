//! What the hosts that call by TCP may hold, each by itself and all together: handshakes under way, connections, and
//! how many handshakes a second they cost.
//!
//! As with [`Limits`](crate::api::limits), nobody who comes is turned away for others' sake: where it becomes crowded,
//! the oldest of the host that has the most has to go. An address is one host; of IPv6 it is a network of 64 bits, as
//! whoever has one address there has all.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many there may be.
#[derive(Debug, Clone, Copy)]
struct Most {
    each: usize,
    all: usize,
}

/// Handshakes under way: a few kilobytes each, for ten seconds at most.
const HANDSHAKES: Most = Most { each: 32, all: 256 };

/// Connections of those who have a certificate. All callers together have 1,024.
const CONNECTIONS: Most = Most { each: 128, all: 512 };

/// Handshakes that one host begins go on at this distance: one costs about a third of a millisecond.
const EACH_AFTER: Duration = Duration::from_millis(20);

/// And those of all: a tenth of a processor's time.
const ALL_AFTER: Duration = Duration::from_millis(3);

/// So many of a host, or of all, may come together before they are held to their distance.
const BURST: u32 = 64;

/// Who is there.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    handshakes: Crowd,
    connections: Crowd,
    paces: HashMap<Host, Pace>,
    pace: Pace,
}

/// Guests by the number they were given: lower ones are older.
#[derive(Debug, Default)]
struct Crowd(BTreeMap<u64, (Host, CancellationToken)>);

/// Whose address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Host(IpAddr);

/// Until when what has come is paid for, at one for each distance.
#[derive(Debug, Clone, Copy, Default)]
struct Pace(Option<Instant>);

/// A handshake's or a connection's place. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    addresses: Arc<Addresses>,
    number: u64,
    host: Host,
    /// Cancelled when it has to go.
    pub(super) end: CancellationToken,
}

impl Host {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        })
    }
}

impl Pace {
    /// When the next one may go on.
    fn next(&mut self, now: Instant, distance: Duration) -> Instant {
        // What nobody waits for any more is forgotten: else a flood would close the door for hours.
        let most = now + distance * (2 * BURST);
        let paid = self.0.map_or(now, |paid| paid.clamp(now, most));
        self.0 = Some(paid + distance);
        paid.checked_sub(distance * BURST).map_or(now, |at| at.max(now))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.0.is_none_or(|paid| paid <= now)
    }
}

impl Crowd {
    fn admit(&mut self, number: u64, host: Host, most: Most) -> CancellationToken {
        let mut counts = BTreeMap::<Host, usize>::new();
        for (host, _) in self.0.values() {
            *counts.entry(*host).or_default() += 1;
        }
        let of = if counts.get(&host).is_some_and(|count| *count >= most.each) {
            Some(host)
        } else if self.0.len() >= most.all {
            counts.into_iter().max_by_key(|(_, count)| *count).map(|(host, _)| host)
        } else {
            None
        };
        let victim = of.and_then(|of| self.0.iter().find(|(_, (host, _))| *host == of).map(|(id, _)| *id));
        if let Some((_, end)) = victim.and_then(|victim| self.0.remove(&victim)) {
            end.cancel();
        }
        let end = CancellationToken::new();
        self.0.insert(number, (host, end.clone()));
        end
    }
}

impl Addresses {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a handshake, and says when it may go on.
    pub(super) fn greet(self: &Arc<Self>, address: IpAddr) -> (Guest, Instant) {
        let (host, now) = (Host::of(address), Instant::now());
        let mut table = self.lock();
        let number = table.next();
        let end = table.handshakes.admit(number, host, HANDSHAKES);
        table.paces.retain(|_, pace| !pace.is_over(now));
        let own = table.paces.entry(host).or_default().next(now, EACH_AFTER);
        let all = table.pace.next(now, ALL_AFTER);
        (Guest { addresses: Arc::clone(self), number, host, end }, own.max(all))
    }
}

impl Table {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Guest {
    /// The handshake is done: makes room for the connection.
    pub(super) fn settle(self) -> Self {
        let mut table = self.addresses.lock();
        let number = table.next();
        let end = table.connections.admit(number, self.host, CONNECTIONS);
        drop(table);
        Self { addresses: Arc::clone(&self.addresses), number, host: self.host, end }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut table = self.addresses.lock();
        // A number is in one of them, or in none once it had to go.
        table.handshakes.0.remove(&self.number);
        table.connections.0.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn greet(addresses: &Arc<Addresses>, last: u8) -> Guest {
        addresses.greet(address(last)).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_with_too_many_handshakes_loses_its_oldest_and_nobody_else_does() {
        let addresses = Arc::<Addresses>::default();
        let other = greet(&addresses, 1);
        let many: Vec<Guest> = (0..=HANDSHAKES.each).map(|_| greet(&addresses, 2)).collect();
        let ended: Vec<usize> = (0..many.len()).filter(|at| many[*at].end.is_cancelled()).collect();
        assert_eq!(ended, [0]);
        assert!(!other.end.is_cancelled());
        drop(many);
        assert_eq!(addresses.lock().handshakes.0.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_is_full_the_oldest_of_the_host_that_has_the_most_goes() {
        let addresses = Arc::<Addresses>::default();
        let few = greet(&addresses, 255);
        let mut guests: Vec<Guest> = Vec::new();
        for host in 0..u8::MAX {
            if guests.len() + 1 == HANDSHAKES.all {
                break;
            }
            let count = HANDSHAKES.each.min(HANDSHAKES.all - 1 - guests.len());
            guests.extend((0..count).map(|_| greet(&addresses, host)));
        }
        let newcomer = greet(&addresses, 254);
        assert!(!few.end.is_cancelled() && !newcomer.end.is_cancelled());
        assert_eq!(guests.iter().filter(|guest| guest.end.is_cancelled()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_comes_too_often_waits_and_is_forgiven() {
        let addresses = Arc::<Addresses>::default();
        let now = Instant::now();
        let waits = |addresses: &Arc<Addresses>, last| addresses.greet(address(last)).1 - Instant::now();
        for _ in 0..BURST {
            assert_eq!(waits(&addresses, 1), Duration::ZERO);
        }
        assert!((0..10_000).any(|_| waits(&addresses, 1) > Duration::ZERO));
        assert!(waits(&addresses, 1) <= EACH_AFTER * (BURST + 1), "a flood must not close the door for long");
        assert!(waits(&addresses, 2) <= ALL_AFTER * (BURST + 1), "nor to others");
        advance(Duration::from_secs(10)).await;
        assert_eq!(waits(&addresses, 1), Duration::ZERO);
        assert_eq!(addresses.lock().paces.len(), 1);
        assert!(Instant::now() > now);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_counted_apart_from_handshakes() {
        let addresses = Arc::<Addresses>::default();
        let settled: Vec<Guest> = (0..=CONNECTIONS.each).map(|_| greet(&addresses, 1).settle()).collect();
        assert!(addresses.lock().handshakes.0.is_empty());
        assert!(settled[0].end.is_cancelled() && !settled[1].end.is_cancelled());
    }

    #[test]
    fn a_network_of_ipv6_is_one_host() {
        let host = |text: &str| Host::of(text.parse().unwrap());
        assert_eq!(host("2001:db8::1"), host("2001:db8::ffff:1"));
        assert_ne!(host("2001:db8::1"), host("2001:db8:0:1::1"));
        assert_eq!(host("::ffff:192.0.2.1"), host("192.0.2.1"));
    }
}
