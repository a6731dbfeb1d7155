//! What takes long, as to tell of a thousand instances or to compare configurations, is done for one call of a party after
//! the other. So whoever asks a thousand times keeps itself waiting, and others get at the processors, and at the threads
//! for such work, between two of its calls.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Extensions, Request};

use super::{caller::Caller, limits::Party};

/// Calls at once of the supervisor's own user. There are more threads for such work than that.
pub(super) const OWN: usize = 4;

/// Of all parties that have one, or wait for one.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<Party, Weak<Semaphore>>>);

/// Of one party. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Turn(Arc<Semaphore>);

impl Turns {
    pub(super) fn of(&self, party: &Party) -> Turn {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(party).and_then(Weak::upgrade) {
            return Turn(turn);
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = if party.is_own() { Turn::with_places(OWN) } else { Turn::default() };
        turns.insert(party.clone(), Arc::downgrade(&turn.0));
        turn
    }
}

impl Default for Turn {
    /// Nobody else's.
    fn default() -> Self {
        Self::with_places(1)
    }
}

impl Turn {
    fn with_places(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// The one of whoever calls.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self::within(request.extensions())
    }

    /// The same, by what is known of a request.
    pub(super) fn within(extensions: &Extensions) -> Self {
        extensions.get().map(|caller: &Caller| caller.ticket.turn()).unwrap_or_default()
    }

    /// Waits for it. It is over when what this answers is dropped.
    pub(crate) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_party_waits_for_itself_and_for_nobody_else() {
        let turns = Turns::default();
        let (viewer, operator) = (Party::User(7), Party::User(8));
        let first = turns.of(&viewer).take().now_or_never().unwrap();
        assert!(turns.of(&viewer).take().now_or_never().is_none());
        assert!(turns.of(&operator).take().now_or_never().is_some());
        drop(first);
        assert!(turns.of(&viewer).take().now_or_never().is_some());
        assert_eq!(turns.0.lock().unwrap().len(), 1, "nothing is kept of who does not wait");
        let own = turns.of(&Party::Own);
        let taken: Vec<_> = (0..OWN).filter_map(|_| own.take().now_or_never().flatten()).collect();
        assert!(taken.len() == OWN && own.take().now_or_never().is_none());
    }
}
