//! Who is here: one count that both bounds a kind of guest and lets the drain wait for the last of them.
//!
//! A guest that asks for nothing makes room for one that comes: else whoever opens some hundred connections and says
//! nothing would keep all others out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

/// A count with a limit.
#[derive(Clone)]
pub(crate) struct Census {
    limit: usize,
    count: Arc<watch::Sender<usize>>,
    guests: Arc<Mutex<Guests>>,
}

#[derive(Default)]
struct Guests {
    last: u64,
    /// Those who ask for nothing, the longest here first, and what tells each of them to go.
    idle: BTreeMap<u64, Arc<Notify>>,
}

/// A place in a [`Census`], given back when dropped.
#[must_use = "a seat that is dropped is given back at once"]
pub(crate) struct Seat {
    census: Census,
    number: u64,
    leave: Arc<Notify>,
}

impl Census {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, count: Arc::new(watch::Sender::new(0)), guests: Arc::default() }
    }

    /// Takes a seat, of whoever has asked for nothing for longest where all are taken; `None` where all are busy.
    pub(crate) fn enter(&self) -> Option<Seat> {
        let mut guests = self.guests();
        if self.count() >= self.limit {
            let (_, leave) = guests.idle.pop_first()?;
            leave.notify_one();
        }
        guests.last += 1;
        let number = guests.last;
        // Above the limit for as long as it takes that one to leave.
        self.count.send_modify(|count| *count += 1);
        Some(Seat { census: self.clone(), number, leave: Arc::default() })
    }

    /// How many are here.
    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until nobody is here.
    pub(crate) async fn empty(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// It asks for nothing from now on.
    pub(crate) fn idles(&self) {
        self.census.guests().idle.insert(self.number, Arc::clone(&self.leave));
    }

    /// It asks for something, and stays.
    pub(crate) fn is_busy(&self) {
        self.census.guests().idle.remove(&self.number);
    }

    /// Ends when it has to make room.
    pub(crate) async fn leaves(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.is_busy();
        self.census.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn seats_are_bounded_and_given_back() {
        let census = Census::new(2);
        let (first, second) = (census.enter().unwrap(), census.enter().unwrap());
        assert!(census.enter().is_none());
        drop(first);
        assert_eq!(census.count(), 1);
        drop(second);
        census.empty().await;
    }

    #[tokio::test]
    async fn who_asks_for_nothing_makes_room_the_longest_here_first() {
        let census = Census::new(2);
        let (first, second) = (census.enter().unwrap(), census.enter().unwrap());
        second.idles();
        first.idles();
        let newcomer = census.enter().unwrap();
        first.leaves().await;
        drop(first);
        second.is_busy();
        assert!(census.enter().is_none(), "who is busy stays");
        drop((second, newcomer));
        census.empty().await;
    }
}
