//! Who is here: one count that both bounds a kind of guest and lets the drain wait for the last of them.

use std::sync::Arc;

use tokio::sync::watch;

/// A count with a limit.
#[derive(Clone)]
pub(crate) struct Census {
    limit: usize,
    count: Arc<watch::Sender<usize>>,
}

/// A place in a [`Census`], given back when dropped.
#[must_use = "a seat that is dropped is given back at once"]
pub(crate) struct Seat(Arc<watch::Sender<usize>>);

impl Census {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, count: Arc::new(watch::Sender::new(0)) }
    }

    /// Takes a seat, or `None` where all are taken.
    pub(crate) fn enter(&self) -> Option<Seat> {
        let entered = self.count.send_if_modified(|count| {
            let free = *count < self.limit;
            *count += usize::from(free);
            free
        });
        entered.then(|| Seat(Arc::clone(&self.count)))
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
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
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
}
