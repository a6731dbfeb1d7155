//! Connections that have not shown a session yet. Every process of the host can make any number of them, so they have few
//! seats; of several users the one who has most makes room, with the oldest.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// So many at once, of all users together. A page is known with its second call.
const SEATS: usize = 128;

/// All of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<Seated>>);

#[derive(Debug, Default)]
struct Seated {
    /// By user, the oldest first.
    parties: HashMap<Option<u32>, VecDeque<(u64, CancellationToken)>>,
    last: u64,
}

/// One of them, for as long as this is kept.
#[derive(Debug)]
pub(super) struct Stranger {
    user: Option<u32>,
    number: u64,
    gone: CancellationToken,
    all: Strangers,
}

impl Strangers {
    /// Takes a seat for a program of this user.
    pub(super) fn enter(&self, user: Option<u32>) -> Stranger {
        let gone = CancellationToken::new();
        let mut seated = self.lock();
        seated.last += 1;
        let number = seated.last;
        seated.parties.entry(user).or_default().push_back((number, gone.clone()));
        if seated.parties.values().map(VecDeque::len).sum::<usize>() > SEATS {
            let largest = seated.parties.values_mut().max_by_key(|party| party.len());
            if let Some((_, oldest)) = largest.and_then(VecDeque::pop_front) {
                oldest.cancel();
            }
        }
        Stranger { user, number, gone, all: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Seated> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Is cancelled when another takes its seat.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut seated = self.all.lock();
        let Some(party) = seated.parties.get_mut(&self.user) else { return };
        party.retain(|(number, _)| *number != self.number);
        if party.is_empty() {
            seated.parties.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_most_makes_room_with_the_oldest() {
        let strangers = Strangers::default();
        let person = strangers.enter(Some(1));
        let crowd: Vec<Stranger> = (0..SEATS + 10).map(|_| strangers.enter(Some(2))).collect();
        assert!(!person.gone().is_cancelled());
        let gone = crowd.iter().filter(|stranger| stranger.gone().is_cancelled()).count();
        assert_eq!(gone, 11);
        assert!(crowd[..11].iter().all(|stranger| stranger.gone().is_cancelled()));
        drop(crowd);
        drop(person);
        assert!(strangers.lock().parties.is_empty());
    }
}
