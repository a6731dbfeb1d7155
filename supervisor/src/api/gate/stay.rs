//! A stream goes on as long as its caller may open it: each time the roles change, that is asked again, and of a rescue
//! each time that it is another's.
//!
//! ```text
//!   service ──► messages ──► may it still? ──yes──► its caller
//!                                 │ no
//!                                 └► PERMISSION_DENIED, as a new call gets it; what it was served from is dropped
//! ```
//!
//! Where nothing changes this costs nothing: it waits for the roles and for the messages, and for no time.

use std::{
    collections::BTreeSet,
    future::pending,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use supervisor_core::ids::Name;
use tokio::sync::watch;
use tonic::{Status, body::Body};

use super::{Admission, Gate, Known};
use crate::{
    api::{access::Rule, inside::Scope, status::Refusal},
    bindings::Table,
};

/// By what a caller may go on with its stream.
pub(super) struct Stay {
    pub(super) gate: Gate,
    pub(super) rule: &'static Rule,
    pub(super) admission: Admission,
    /// What the stream is about.
    pub(super) scope: Scope,
    /// The roles, since before it was admitted.
    pub(super) bound: watch::Receiver<Arc<Table>>,
}

impl Stay {
    /// This answer, as long as its caller may have it.
    pub(super) fn guard(self, answer: Body) -> Body {
        Body::new(Guarded { answer: Some(answer), refused: Box::pin(self.refused()) })
    }

    /// Ends once its caller would be refused, with what it would be told.
    async fn refused(mut self) -> Status {
        let whom = self.scope.names();
        while self.changes(whom.as_ref()).await {
            let (known, scope) = self.admission.look();
            if let Err(refusal) = scope.and_then(|scope| self.ask(&scope, &known, whom.as_ref())) {
                self.gate.refusals.note(known.recorded(), self.rule, refusal.reason());
                return refusal.into();
            }
        }
        pending().await
    }

    /// Waits until the roles have changed, or whom the stream may be about. False if neither will any more.
    async fn changes(&mut self, whom: Option<&BTreeSet<Name>>) -> bool {
        let Some(whom) = whom else { return self.bound.changed().await.is_ok() };
        let mut views = self.gate.handle.watch();
        let others = views.wait_for(|_| self.scope.names().is_none_or(|now| !now.is_superset(whom)));
        tokio::select! {
            changed = self.bound.changed() => changed.is_ok(),
            changed = others => changed.is_ok(),
        }
    }

    fn ask(&self, scope: &Scope, known: &Known, whom: Option<&BTreeSet<Name>>) -> Result<(), Refusal> {
        // A narrower one might be admitted, but not to this stream.
        if !scope.covers(&self.scope) {
            return Err(known.lacks(self.rule));
        }
        whom.into_iter().flatten().try_for_each(|name| scope.may(name))
    }
}

/// An answer whose caller may lose the right to it.
struct Guarded {
    /// None once it has been taken away.
    answer: Option<Body>,
    refused: BoxFuture<'static, Status>,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(answer) = &mut this.answer else { return Poll::Ready(None) };
        // First, so that a stream that always has more ends, too.
        if let Poll::Ready(status) = this.refused.as_mut().poll(context) {
            this.answer = None;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
        Pin::new(answer).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // It may end with something else at any time.
        SizeHint::default()
    }
}
