//! The record of refusals: equal ones of one caller are one entry, which counts them.
//!
//! Who is refused may call again as fast as it likes. It gets an answer each time, and costs the disk one line.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderMap;
use tokio::time::sleep;
use tonic::Status;
use tracing::warn;

use super::{Known, record};
use crate::{
    api::{access::Rule, status::name},
    audit::{Audit, Caller, Note, What},
    seldom::Seldom,
};
use supervisor_proto::v1::Reason;

/// An entry counts the calls of so long a time; then the next one begins another.
const WINDOW: Duration = Duration::from_secs(3600);

/// How often an entry is brought up to date.
const PAUSE: Duration = Duration::from_secs(1);

/// Entries that count. Callers, methods and reasons are few; more than this begin anew.
const MOST: usize = 4_096;

/// `grpc-status` of PERMISSION_DENIED.
const DENIED: &[u8] = b"7";

/// What was refused lately. Cheap to clone.
#[derive(Clone)]
pub(super) struct Refusals {
    audit: Audit,
    lately: Arc<Mutex<Lately>>,
}

#[derive(Default)]
struct Lately {
    counted: HashMap<Equal, Count>,
    /// A task is to tell what has been counted since.
    is_telling: bool,
    /// Whoever has no role may have thousands of numbers. The record has all.
    lines: Seldom,
}

impl Lately {
    fn log(&mut self, equal: &Equal) {
        let (caller, path, reason) = (&equal.caller, equal.method, &equal.reason);
        if let Some(count) = self.lines.count() {
            warn!(?caller, path, reason, count, "a caller was turned away");
        }
    }
}

/// What makes two refusals equal.
#[derive(PartialEq, Eq, Hash)]
struct Equal {
    caller: Caller,
    method: &'static str,
    reason: String,
}

impl Equal {
    fn new(caller: &Caller, rule: &Rule, reason: String) -> Self {
        // Another process, or the same on another connection, is the same caller.
        let caller = Caller { pid: None, from: String::new(), ..caller.clone() };
        Self { caller, method: rule.path, reason }
    }
}

struct Count {
    id: u64,
    began: Instant,
    calls: u64,
    last_ns: u64,
    /// How many of them the record says.
    told: u64,
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refusals")
    }
}

impl Refusals {
    pub(super) fn new(audit: Audit) -> Self {
        Self { audit, lately: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records one.
    pub(super) fn note(&self, caller: Caller, rule: &'static Rule, reason: impl Into<Why>) {
        let Why(reason) = reason.into();
        let equal = Equal::new(&caller, rule, reason);
        let mut lately = self.lock();
        if self.counts(&mut lately, &equal) {
            return;
        }
        lately.log(&equal);
        let what = What { method: rule.full_name(), ..What::default() };
        let id = self.audit.refused(caller, what, equal.reason.clone());
        self.begin(&mut lately, equal, id);
    }

    /// Records that whoever serves a call has refused it for want of a right, if its answer begins with that.
    pub(super) fn note_served(&self, known: &Known, rule: &'static Rule, answer: &HeaderMap) {
        if let Some(reason) = reason(answer) {
            self.note(known.recorded(), rule, reason);
        }
    }

    /// Whether a call that is recorded under `id` already, and was refused by whoever serves it, is counted with another
    /// that was refused before it; if not, those that come after it are counted with it.
    pub(super) fn is_equal(&self, id: u64, caller: &Caller, rule: &'static Rule, reason: String) -> bool {
        let equal = Equal::new(caller, rule, reason);
        let mut lately = self.lock();
        if self.counts(&mut lately, &equal) {
            return true;
        }
        self.begin(&mut lately, equal, id);
        false
    }

    /// Counts one with its equals, if there were any lately.
    fn counts(&self, lately: &mut Lately, equal: &Equal) -> bool {
        let Some(count) = lately.counted.get_mut(equal).filter(|count| count.began.elapsed() < WINDOW) else {
            return false;
        };
        count.calls += 1;
        count.last_ns = self.audit.now_ns();
        if !std::mem::replace(&mut lately.is_telling, true) {
            tokio::spawn(self.clone().tell());
        }
        true
    }

    /// Counts from now on what is equal to the entry `id`.
    fn begin(&self, lately: &mut Lately, equal: Equal, id: u64) {
        if lately.counted.len() >= MOST {
            self.say(lately);
            lately.counted.clear();
        }
        let last_ns = self.audit.now_ns();
        let count = Count { id, began: Instant::now(), calls: 1, last_ns, told: 1 };
        if let Some(before) = lately.counted.insert(equal, count) {
            self.say_one(&before);
        }
    }

    /// Brings the record up to date until there is nothing more to say.
    async fn tell(self) {
        loop {
            sleep(PAUSE).await;
            let mut lately = self.lock();
            if self.say(&mut lately) == 0 {
                lately.is_telling = false;
                return;
            }
        }
    }

    /// Says what has been counted, and how many entries that was about.
    fn say(&self, lately: &mut Lately) -> usize {
        let mut said = 0;
        for count in lately.counted.values_mut().filter(|count| count.calls > count.told) {
            self.say_one(count);
            count.told = count.calls;
            said += 1;
        }
        said
    }

    fn say_one(&self, count: &Count) {
        if count.calls > count.told {
            self.audit.note(Note::Again { id: count.id, calls: count.calls, last_ns: count.last_ns });
        }
    }
}

/// The contract's name of a refusal.
pub(super) struct Why(String);

impl From<Reason> for Why {
    fn from(reason: Reason) -> Self {
        Self(name(reason).into())
    }
}

impl From<String> for Why {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// Why the call with this answer was refused for want of a right; `None` if it was not.
fn reason(answer: &HeaderMap) -> Option<String> {
    answer.get(Status::GRPC_STATUS).filter(|status| status.as_bytes() == DENIED)?;
    Some(record::reason(&Status::from_header_map(answer)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::access::METHODS,
        audit::{Kept, Sink, tests::Heard},
    };

    fn caller(uid: u32, pid: i32) -> Caller {
        Caller { uid: Some(uid), pid: Some(pid), ..Caller::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_equal_refusals_is_one_entry_that_counts_them() {
        let heard = Arc::new(Heard::default());
        let audit = Audit::new(Arc::clone(&heard) as Arc<dyn Sink>, 0, || 9);
        let refusals = Refusals::new(audit);
        for pid in 0..10_000 {
            refusals.note(caller(7, pid), &METHODS[0], Reason::NotPermitted);
        }
        refusals.note(caller(8, 1), &METHODS[0], Reason::NotPermitted);
        refusals.note(caller(7, 1), &METHODS[1], Reason::NotPermitted);
        refusals.note(caller(7, 1), &METHODS[1], "INSIDE_INSTANCE".to_owned());
        assert_eq!(heard.0.lock().unwrap().len(), 4);
        sleep(PAUSE * 3).await;
        let notes = std::mem::take(&mut *heard.0.lock().unwrap());
        let [Note::Call(first, Kept::Apart), _, _, _, Note::Again { id, calls, last_ns }] = notes.as_slice()
        else {
            panic!("{notes:?}");
        };
        assert_eq!((first.id, first.caller.pid, first.calls), (1, Some(0), 1));
        assert_eq!((*id, *calls, *last_ns), (1, 10_000, 9));
        // Nobody calls any more, and nothing more is said.
        sleep(PAUSE * 3).await;
        assert!(heard.0.lock().unwrap().is_empty());
        refusals.note(caller(7, 1), &METHODS[0], Reason::NotPermitted);
        sleep(PAUSE * 3).await;
        let notes = heard.0.lock().unwrap();
        assert!(matches!(notes.as_slice(), [Note::Again { id: 1, calls: 10_001, .. }]), "{notes:?}");
    }
}
