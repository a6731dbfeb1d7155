//! Requests that were done already (AIP-155): a repeat gets the first answer.
//!
//! A client whose connection broke cannot know whether its request was done. It repeats it with the same
//! `request_id`; if the first one was taken, its answer is given again, and a repeat that comes while the first
//! is under way waits for it. So that a caller who gives up leaves no request half remembered, each is done by a
//! task of its own. An id is its caller's: one that another has used says nothing, neither what was answered nor that it
//! was used. Nor does one party's asking make what another has asked forgotten: whoever has most makes room. Refusals are
//! not remembered: nothing has changed, and the next attempt may succeed.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prost::Message;
use tokio::sync::watch;

use super::{
    gate::{Principal, note_repeat, principal},
    status::Refusal,
};

/// Requests remembered. Clients repeat within seconds; in that time there are not as many mutations.
const MOST: usize = 1_000;

/// Their size in bytes, requests and answers together. A fleet file has up to a mebibyte.
const MOST_BYTES: usize = 16 << 20;

/// The longest `request_id`, in bytes; a UUID has 36.
const LONGEST: usize = 128;

type Answer = Arc<dyn Any + Send + Sync>;
type Outcome = Option<Result<Answer, Refusal>>;

/// The requests done lately. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests(Arc<Mutex<Known>>);

/// An id, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    caller: Arc<str>,
    id: String,
}

#[derive(Debug, Default)]
struct Known {
    by_key: HashMap<Key, Entry>,
    /// Oldest first; a key may stand here twice after a refusal.
    order: VecDeque<Asked>,
    bytes: usize,
    next: u64,
}

/// What was asked, and of which party.
#[derive(Debug)]
struct Asked {
    key: Key,
    number: u64,
    party: Arc<str>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    request: Box<dyn Any + Send>,
    bytes: usize,
    outcome: watch::Receiver<Outcome>,
}

/// What a request turns out to be.
enum Met {
    First(watch::Sender<Outcome>, u64),
    Repeat(watch::Receiver<Outcome>),
}

impl Requests {
    /// Does `work` for `request`, unless a request with this id was done; then gives its answer. Requests without
    /// an id are always done.
    pub(super) async fn once<Q, A, W>(&self, id: &str, request: Q, work: W) -> Result<A, Refusal>
    where
        Q: Message + Clone + PartialEq + 'static,
        A: Message + Clone + 'static,
        W: Future<Output = Result<A, Refusal>> + Send + 'static,
    {
        if id.len() > LONGEST {
            let message = format!("it has {} bytes", id.len());
            return Err(Refusal::field(
                "request_id",
                message,
                format!("keep it within {LONGEST}; a UUID does"),
            ));
        }
        if id.is_empty() {
            return tokio::spawn(work).await.unwrap_or(Err(Refusal::ShuttingDown));
        }
        let Principal { caller, party } = principal();
        let key = Key { caller, id: id.to_owned() };
        let mut outcome = match self.meet(&key, party, &request)? {
            Met::Repeat(outcome) => {
                note_repeat();
                outcome
            }
            Met::First(sender, number) => {
                let outcome = sender.subscribe();
                let known = self.clone();
                tokio::spawn(async move {
                    let answer = work.await;
                    known.done(&key, number, answer.as_ref().map(Message::encoded_len).ok());
                    sender.send_replace(Some(answer.map(|answer| Arc::new(answer) as Answer)));
                });
                outcome
            }
        };
        // The sender only goes without an answer if the task panicked or the runtime is ending.
        let answer = outcome.wait_for(Option::is_some).await.map_err(|_| Refusal::ShuttingDown)?.clone();
        let answer = answer.unwrap_or(Err(Refusal::ShuttingDown))?;
        answer.downcast_ref::<A>().cloned().ok_or_else(|| Refusal::RequestIdReused(id.into()))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meet<Q>(&self, key: &Key, party: Arc<str>, request: &Q) -> Result<Met, Refusal>
    where
        Q: Message + Clone + PartialEq + 'static,
    {
        let mut known = self.lock();
        if let Some(entry) = known.by_key.get(key) {
            return match entry.request.downcast_ref::<Q>() {
                Some(first) if first == request => Ok(Met::Repeat(entry.outcome.clone())),
                Some(_) | None => Err(Refusal::RequestIdReused(key.id.clone())),
            };
        }
        let (sender, outcome) = watch::channel(None);
        known.next += 1;
        let (number, bytes) = (known.next, request.encoded_len());
        known.bytes += bytes;
        known
            .by_key
            .insert(key.clone(), Entry { number, request: Box::new(request.clone()), bytes, outcome });
        known.order.push_back(Asked { key: key.clone(), number, party });
        known.shrink();
        Ok(Met::First(sender, number))
    }

    /// The request is done; `size` is that of its answer, or it was refused.
    fn done(&self, key: &Key, number: u64, size: Option<usize>) {
        let mut known = self.lock();
        match (known.by_key.get_mut(key).filter(|entry| entry.number == number), size) {
            (Some(entry), Some(size)) => {
                entry.bytes += size;
                known.bytes += size;
                known.shrink();
            }
            (Some(_), None) => known.forget(key, number),
            (None, _) => {}
        }
    }
}

impl Known {
    /// Forgets beyond what is kept the oldest of the party that has most. One that is under way goes on; only a repeat
    /// would not know it.
    fn shrink(&mut self) {
        while self.order.len() > MOST || self.bytes > MOST_BYTES {
            let is_many = self.order.len() > MOST;
            let mut held = HashMap::<&Arc<str>, usize>::new();
            for Asked { key, number, party } in &self.order {
                let known = self.by_key.get(key).filter(|entry| entry.number == *number);
                let bytes = known.map_or(0, |entry| entry.bytes);
                *held.entry(party).or_default() += if is_many { 1 } else { bytes };
            }
            let Some((most, _)) = held.into_iter().max_by_key(|(_, held)| *held) else { return };
            let oldest = self.order.iter().position(|asked| asked.party == *most);
            let Some(asked) = oldest.and_then(|at| self.order.remove(at)) else { return };
            self.forget(&asked.key, asked.number);
        }
    }

    fn forget(&mut self, key: &Key, number: u64) {
        if self.by_key.get(key).is_some_and(|entry| entry.number == number)
            && let Some(entry) = self.by_key.remove(key)
        {
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use supervisor_proto::v1::{StartInstanceRequest, StartInstanceResponse, StopInstanceRequest};
    use tokio::sync::Semaphore;

    use super::*;

    fn request(name: &str) -> StartInstanceRequest {
        StartInstanceRequest { name: name.into(), ..StartInstanceRequest::default() }
    }

    /// Work that counts how often it is done, once it is let go.
    fn counted(
        count: &Arc<AtomicUsize>,
        gate: &Arc<Semaphore>,
    ) -> impl Future<Output = Result<StartInstanceResponse, Refusal>> + Send + 'static {
        let (count, gate) = (Arc::clone(count), Arc::clone(gate));
        async move {
            let _permit = gate.acquire().await;
            let revision = count.fetch_add(1, Ordering::SeqCst) as u64 + 1;
            Ok(StartInstanceResponse { revision, ..StartInstanceResponse::default() })
        }
    }

    #[tokio::test]
    async fn a_repeat_gets_the_first_answer_even_while_the_first_is_under_way() {
        let (requests, count, gate) = (Requests::default(), Arc::default(), Arc::new(Semaphore::new(0)));
        let first = requests.once("a", request("main"), counted(&count, &gate));
        let repeat = requests.once("a", request("main"), counted(&count, &gate));
        let open = async { gate.add_permits(1) };
        let (first, repeat, ()) = tokio::join!(first, repeat, open);
        assert_eq!((first.unwrap().revision, repeat.unwrap().revision), (1, 1));
        let later = requests.once("a", request("main"), counted(&count, &gate)).await.unwrap();
        assert_eq!((later.revision, count.load(Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn a_caller_who_leaves_does_not_undo_the_request() {
        let (requests, count, gate) = (Requests::default(), Arc::default(), Arc::new(Semaphore::new(0)));
        {
            let leaves = requests.once("a", request("main"), counted(&count, &gate));
            let at_once = tokio::time::timeout(std::time::Duration::ZERO, leaves).await;
            assert!(at_once.is_err());
        }
        gate.add_permits(1);
        let repeat = requests.once("a", request("main"), counted(&count, &gate)).await.unwrap();
        assert_eq!((repeat.revision, count.load(Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn another_request_with_the_same_id_is_refused() {
        let (requests, count, gate) = (Requests::default(), Arc::default(), Arc::new(Semaphore::new(9)));
        requests.once("a", request("main"), counted(&count, &gate)).await.unwrap();
        let other = requests.once("a", request("rescue"), counted(&count, &gate)).await;
        assert!(matches!(other, Err(Refusal::RequestIdReused(_))));
        let of_another_kind = StopInstanceRequest { name: "main".into(), ..StopInstanceRequest::default() };
        let other = requests.once("a", of_another_kind, counted(&count, &gate)).await;
        assert!(matches!(other, Err(Refusal::RequestIdReused(_))));
    }

    #[tokio::test]
    async fn a_refused_request_may_be_tried_again() {
        let (requests, count, gate) = (Requests::default(), Arc::default(), Arc::new(Semaphore::new(9)));
        let refused = async { Err::<StartInstanceResponse, _>(Refusal::Overloaded) };
        assert!(requests.once("a", request("main"), refused).await.is_err());
        assert!(requests.once("a", request("main"), counted(&count, &gate)).await.is_ok());
    }

    #[tokio::test]
    async fn who_asks_for_much_makes_no_other_forgotten() {
        let requests = Requests::default();
        let of = |caller: &str, party: &str, number: usize, name: &str| {
            let key = Key { caller: caller.into(), id: number.to_string() };
            requests
                .meet(&key, party.into(), &request(name))
                .map(|met| matches!(met, Met::First(..)))
                .unwrap()
        };
        let meet = |caller: &str, number, name: &str| of(caller, caller, number, name);
        assert!(meet("operator", 0, "main"));
        assert!((0..MOST * 2).all(|number| meet("rescue", number, "main")));
        assert!((0..MOST * 2).all(|number| of(&format!("uid {number}"), "gid 7", 0, "main")));
        let large = "x".repeat(MOST_BYTES / 2);
        assert!((0..4).all(|number| meet("viewer", number, &large)));
        assert!(!meet("operator", 0, "main"), "it is known still");
        assert!(meet("rescue", 0, "main"));
    }

    #[tokio::test]
    async fn only_so_many_are_remembered_and_only_so_much() {
        let (requests, count, gate) = (Requests::default(), Arc::default(), Arc::new(Semaphore::new(9)));
        for number in 0..MOST * 2 {
            let id = number.to_string();
            requests.once(&id, request("main"), counted(&count, &gate)).await.unwrap();
        }
        assert_eq!(requests.lock().by_key.len(), MOST);
        let large = request(&"x".repeat(MOST_BYTES / 2));
        for id in ["large", "larger", "largest"] {
            requests.once(id, large.clone(), counted(&count, &gate)).await.unwrap();
        }
        {
            let known = requests.lock();
            assert!(known.bytes <= MOST_BYTES, "{}", known.bytes);
            assert_eq!(known.bytes, known.by_key.values().map(|entry| entry.bytes).sum::<usize>());
        }
        assert!(requests.once(&"x".repeat(LONGEST + 1), request("a"), counted(&count, &gate)).await.is_err());
    }
}
