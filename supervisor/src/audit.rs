//! Who changed what, and who was refused: the record of it.
//!
//! ```text
//!   gate ──── call ─────► queue of the store ──► table `audit` ──► ListAudit
//!     │                     ▲    ▲
//!   service ─ the change ───┘    │      in this order: no change is in the store whose call is not
//!     └────── its end ───────────┘
//! ```
//!
//! A call without an end is one whose outcome nobody knows: its caller left, or its supervisor died. Calls are told
//! apart in two kinds ([`Kept`]), of which neither pushes the other out: what an agent in an instance does, and what
//! anyone is refused, cannot hide what an operator did. Within a kind the oldest entries of whoever has most go first,
//! so that nobody's flood hides what another did; and equal calls of one caller that are refused before they change
//! anything are one entry.

mod read;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

pub(crate) use read::{Query, read};

/// The longest text of a call that its caller has chosen, in bytes: a method, a name, a request id.
const LONGEST: usize = 128;

/// A reader waits so long for a disk to take the newest calls, and then gets the record without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// A call, as it is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its place in the record; rises.
    pub(crate) id: u64,
    /// When it came, in nanoseconds since the Unix epoch.
    pub(crate) began_ns: u64,
    /// When the last one of its kind came.
    pub(crate) last_ns: u64,
    /// How many equal ones this stands for.
    pub(crate) calls: u64,
    /// Who called.
    pub(crate) caller: Caller,
    /// The method, without a leading slash.
    pub(crate) method: String,
    /// What it was about, if it says so.
    pub(crate) target: String,
    /// The caller's own name for it.
    pub(crate) request_id: String,
    /// It had been done already, and its first answer was given.
    pub(crate) repeat: bool,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// The contract's name of a refusal, or the code of an error that has none.
    pub(crate) reason: String,
    /// From its arrival to its answer.
    pub(crate) took: Option<Duration>,
}

/// Who called. What does not apply is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Caller {
    /// The user of its process.
    pub(crate) uid: Option<u32>,
    /// That user's name, if it was known at no cost.
    pub(crate) user: String,
    /// Its process.
    pub(crate) pid: Option<i32>,
    /// The instance it ran in.
    pub(crate) inside: String,
    /// To whom its certificate was issued.
    pub(crate) certificate: String,
    /// The certificate's serial number.
    pub(crate) serial: String,
    /// The file of its token.
    pub(crate) token: String,
    /// The socket it called on, or the address it called from.
    pub(crate) from: String,
    /// The role it had.
    pub(crate) role: String,
    /// The group that gave it the role, if its user alone did not.
    pub(crate) gid: Option<u32>,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has not ended.
    #[default]
    UnderWay,
    /// It was done.
    Done,
    /// It was refused.
    Refused,
    /// Its caller did not wait for the end.
    Left,
    /// Its supervisor did not live to see the end.
    Died,
    /// Nothing is known of so many calls: the disk did not take them.
    Lost,
}

impl Outcome {
    /// As the store has it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            // Who has died does not write it down.
            Self::UnderWay | Self::Died => "",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Left => "left",
            Self::Lost => "lost",
        }
    }
}

/// Calls that are kept together: of each kind only so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Of those who may call.
    Long,
    /// Of those who may not, or who run inside an instance.
    Apart,
}

impl Kept {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Long, Self::Apart];

    /// As the store has it.
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Long => 0,
            Self::Apart => 1,
        }
    }
}

/// What the store is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// A call came.
    Call(Box<Entry>, Kept),
    /// It ended.
    End {
        /// Which.
        id: u64,
        /// How.
        outcome: Outcome,
        /// Why, if it was refused.
        reason: String,
        /// Whether its first answer was given again.
        repeat: bool,
        /// After how long.
        took: Duration,
    },
    /// It was refused, as one that was recorded before: that one counts it ([`Note::Again`]).
    Equal {
        /// Which.
        id: u64,
    },
    /// Equal ones came.
    Again {
        /// Equal to which.
        id: u64,
        /// How many there are now.
        calls: u64,
        /// When the last one came.
        last_ns: u64,
    },
}

/// Takes notes, in their order, and never blocks.
pub(crate) trait Sink: fmt::Debug + Send + Sync {
    /// Takes one.
    fn note(&self, note: Note);

    /// How many calls could not be recorded, since the record was last able to say so itself.
    fn lost(&self) -> u64;

    /// Ends once all that was noted before is in the record, or never will be.
    fn caught_up(&self) -> BoxFuture<'static, ()>;
}

/// The writing end. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Audit(Arc<Shared>);

struct Shared {
    sink: Arc<dyn Sink>,
    now_ns: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The last number of earlier supervisors.
    before: u64,
    last: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("sink", &self.sink)
            .field("before", &self.before)
            .finish_non_exhaustive()
    }
}

impl Audit {
    /// One that goes on after the number `before`. `now_ns` is the time, in nanoseconds since the Unix epoch.
    pub(crate) fn new(
        sink: Arc<dyn Sink>,
        before: u64,
        now_ns: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared { sink, now_ns: Box::new(now_ns), before, last: AtomicU64::new(before) }))
    }

    /// The last number that an earlier supervisor gave: what had not ended up to there never will.
    pub(crate) fn before(&self) -> u64 {
        self.0.before
    }

    /// The time, in nanoseconds since the Unix epoch.
    pub(crate) fn now_ns(&self) -> u64 {
        (self.0.now_ns)()
    }

    /// How many calls could not be recorded, as far as the record does not say so itself.
    pub(crate) fn lost(&self) -> u64 {
        self.0.sink.lost()
    }

    /// Records that a call has come, and gives its number.
    pub(crate) fn began(&self, caller: Caller, what: What<'_>, kept: Kept) -> u64 {
        self.call(caller, what, (Outcome::UnderWay, String::new()), kept)
    }

    /// Records a call that was refused at once.
    pub(crate) fn refused(&self, caller: Caller, what: What<'_>, reason: String) -> u64 {
        self.call(caller, what, (Outcome::Refused, reason), Kept::Apart)
    }

    fn call(&self, caller: Caller, what: What<'_>, (outcome, reason): (Outcome, String), kept: Kept) -> u64 {
        let id = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let now_ns = self.now_ns();
        let entry = Entry {
            id,
            began_ns: now_ns,
            last_ns: now_ns,
            calls: 1,
            caller,
            method: shortened(what.method),
            target: shortened(what.target),
            request_id: shortened(what.request_id),
            outcome,
            reason,
            ..Entry::default()
        };
        self.0.sink.note(Note::Call(Box::new(entry), kept));
        id
    }

    /// Waits until the record has all that came before, as long as that is worth waiting for.
    pub(crate) async fn caught_up(&self) {
        let _ = timeout(PATIENCE, self.0.sink.caught_up()).await;
    }

    /// Records anything else.
    pub(crate) fn note(&self, note: Note) {
        self.0.sink.note(note);
    }
}

/// What is called.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct What<'a> {
    /// The method, without a leading slash.
    pub(crate) method: &'a str,
    /// What it is about.
    pub(crate) target: &'a str,
    /// The caller's own name for it.
    pub(crate) request_id: &'a str,
}

/// As much as is kept of a text that its caller has chosen.
fn shortened(text: &str) -> String {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Keeps the notes for a test.
    #[derive(Debug, Default)]
    pub(crate) struct Heard(pub(crate) Mutex<Vec<Note>>);

    impl Sink for Heard {
        fn note(&self, note: Note) {
            self.0.lock().unwrap().push(note);
        }

        fn lost(&self) -> u64 {
            0
        }

        fn caught_up(&self) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    #[test]
    fn numbers_go_on_where_the_last_supervisor_ended_and_what_callers_choose_is_shortened() {
        let heard = Arc::new(Heard::default());
        let audit = Audit::new(Arc::clone(&heard) as Arc<dyn Sink>, 40, || 7);
        let long = "ä".repeat(LONGEST);
        let what = What { method: "a/B", target: &long, request_id: "" };
        assert_eq!(audit.began(Caller::default(), what, Kept::Long), 41);
        assert_eq!(audit.refused(Caller::default(), What::default(), "NOT_PERMITTED".into()), 42);
        let notes = heard.0.lock().unwrap();
        let [Note::Call(first, Kept::Long), Note::Call(second, Kept::Apart)] = notes.as_slice() else {
            panic!("{notes:?}");
        };
        assert_eq!((first.began_ns, first.target.len(), first.outcome), (7, LONGEST, Outcome::UnderWay));
        assert_eq!((second.outcome, second.reason.as_str()), (Outcome::Refused, "NOT_PERMITTED"));
    }
}
