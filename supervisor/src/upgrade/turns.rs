//! Whose turn it is.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, Weak},
};

use supervisor_core::ids::Name;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// Upgrades that go side by side. Each copies a state and starts a gateway: more would wait for the same disk and the
/// same processors.
pub(super) const SIDE_BY_SIDE: usize = 8;

/// Two upgrades of one instance exclude each other; those of several go side by side. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    /// Of each instance whose turn somebody has or waits for.
    each: Arc<std::sync::Mutex<BTreeMap<Name, Weak<Mutex<()>>>>>,
    seats: Arc<Semaphore>,
}

/// The turn of one instance, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _own: OwnedMutexGuard<()>,
    /// The seats are never closed, so there is one.
    _seat: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { each: Arc::default(), seats: Arc::new(Semaphore::new(SIDE_BY_SIDE)) }
    }

    /// Waits for the turn of this instance.
    pub(super) async fn take(&self, name: &Name) -> Turn {
        let own = self.of(name).lock_owned().await;
        // The seat comes last: who waits for another upgrade of its instance keeps none from the others.
        let seat = Arc::clone(&self.seats).acquire_owned().await;
        Turn { _own: own, _seat: seat.ok() }
    }

    fn of(&self, name: &Name) -> Arc<Mutex<()>> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        each.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = each.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        each.insert(name.clone(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::join_all};

    use super::*;

    fn names() -> impl Iterator<Item = Name> {
        (0..).map(|number| Name::new(&format!("i{number}")).unwrap())
    }

    #[tokio::test]
    async fn an_instance_has_one_turn_and_only_so_many_have_theirs_at_once() {
        let turns = Turns::new();
        let mut taken =
            join_all(names().take(SIDE_BY_SIDE - 1).map(async |name| turns.take(&name).await)).await;
        let first = names().next().unwrap();
        assert!(turns.take(&first).now_or_never().is_none(), "it is taken");
        let mut again = Box::pin(turns.take(&first));
        assert!((&mut again).now_or_never().is_none());
        let last = turns.take(&names().nth(SIDE_BY_SIDE).unwrap()).now_or_never();
        assert!(last.is_some(), "who waits for its own turn has no seat");
        let late = names().nth(SIDE_BY_SIDE + 1).unwrap();
        assert!(turns.take(&late).now_or_never().is_none(), "all seats are taken");
        drop(last);
        taken.swap_remove(0);
        again.await;
        drop(taken);
        turns.take(&late).await;
        assert_eq!(turns.each.lock().unwrap().len(), 1, "those who have had their turn are forgotten");
    }
}
