//! The record of one call that changes something: its beginning is on its way to the store before anything is done.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::message::About;
use crate::{
    api::access::Rule,
    audit::{Audit, Caller, Kept, Note, Outcome, What},
};

tokio::task_local! {
    /// The call that is being done.
    static CALL: Call;
}

/// What the services are told and tell of a call.
#[derive(Debug, Clone)]
struct Call {
    /// Whether it had been done before.
    repeated: Arc<AtomicBool>,
    /// Who calls.
    principal: Principal,
}

/// Who calls, and whose share that takes from: a group has many callers. Not to be shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Principal {
    /// Two that are told apart by this may do different things.
    pub(crate) caller: Arc<str>,
    /// What these have is counted together.
    pub(crate) party: Arc<str>,
}

/// Who makes the call that is being done here; nobody, if it is done for no caller.
pub(crate) fn principal() -> Principal {
    CALL.try_with(|call| call.principal.clone()).unwrap_or_default()
}

/// The call that is being done here had been done before, and gets its first answer.
pub(crate) fn note_repeat() {
    // Nobody listens to what is done for no caller.
    let _ = CALL.try_with(|call| call.repeated.store(true, Ordering::Relaxed));
}

/// A call under way. If it is dropped before its end, its caller has left.
pub(super) struct Record {
    audit: Audit,
    id: u64,
    began: Instant,
    repeated: Arc<AtomicBool>,
    has_ended: bool,
}

impl Record {
    pub(super) fn begin(audit: &Audit, caller: Caller, rule: &Rule, about: &About, kept: Kept) -> Self {
        let what = What { method: rule.full_name(), target: &about.target, request_id: &about.request_id };
        let id = audit.began(caller, what, kept);
        Self { audit: audit.clone(), id, began: Instant::now(), repeated: Arc::default(), has_ended: false }
    }

    /// Does `work` as part of the call of `principal`.
    pub(super) async fn scope<F: Future>(&self, principal: Principal, work: F) -> F::Output {
        CALL.scope(Call { repeated: Arc::clone(&self.repeated), principal }, work).await
    }

    /// The call has its answer, which begins with these. `is_equal` counts a refusal with one that is recorded already,
    /// if there is such a one.
    pub(super) fn end(mut self, answer: &HeaderMap, is_equal: impl FnOnce(u64, String) -> bool) {
        self.has_ended = true;
        // An answer that is none has its status where another has its first bytes.
        match Status::from_header_map(answer) {
            Some(status) if changes_nothing(status.code()) && is_equal(self.id, reason(&status)) => {
                self.audit.note(Note::Equal { id: self.id });
            }
            Some(status) if status.code() != Code::Ok => self.tell(Outcome::Refused, reason(&status)),
            Some(_) | None => self.tell(Outcome::Done, String::new()),
        }
    }

    fn tell(&self, outcome: Outcome, reason: String) {
        let repeat = self.repeated.load(Ordering::Relaxed);
        let took: Duration = self.began.elapsed();
        self.audit.note(Note::End { id: self.id, outcome, reason, repeat, took });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.has_ended {
            self.tell(Outcome::Left, String::new());
        }
    }
}

/// Whether a call that was answered so was refused by what it says itself, before anything was done. Of others somebody
/// may ask how far they got.
fn changes_nothing(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::AlreadyExists | Code::InvalidArgument | Code::PermissionDenied)
}

/// The contract's name of a refusal, or its code.
pub(super) fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| format!("{:?}", status.code()), |info| info.reason)
}
