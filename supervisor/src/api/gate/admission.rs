//! What a caller may is asked anew whenever it has waited: the roles may be others by then.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tonic::Request;

use super::{Gate, Known};
use crate::{
    api::{access::Rule, caller::Peer, inside::Scope, status::Refusal, turn::Turn},
    bindings::Digest,
};

/// By what a call was admitted, in the extensions of its request. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::api) struct Admission(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    gate: Gate,
    rule: &'static Rule,
    peer: Option<Peer>,
    token: Option<Digest>,
    turn: Turn,
}

impl Admission {
    /// Of whoever calls what `rule` is about, with this token, and whose turn this is.
    pub(super) fn new(
        gate: Gate,
        rule: &'static Rule,
        (peer, token): (Option<Peer>, Option<Digest>),
        turn: Turn,
    ) -> Self {
        Self(Arc::new(Shown { gate, rule, peer, token, turn }))
    }

    /// Of a request that has passed the gate. None means no right.
    pub(in crate::api) fn of<T>(request: &Request<T>) -> Result<Self, Refusal> {
        request.extensions().get::<Self>().cloned().ok_or(Refusal::Untraced(0))
    }

    /// What is known of the caller now, and whom its call may be about, or why it is refused.
    pub(super) fn look(&self) -> (Known, Result<Scope, Refusal>) {
        let Shown { gate, rule, peer, token, .. } = &*self.0;
        let known = gate.know(peer.clone(), token.as_ref());
        let scope = gate.admit(rule, &known);
        (known, scope)
    }

    /// Waits for the caller's turn, which is over when what this answers is dropped, and refuses a caller who may not do this
    /// to `name` any more.
    pub(in crate::api) async fn turn(&self, name: &str) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let turn = self.0.turn.take().await;
        self.now(name)?;
        Ok(turn)
    }

    /// Refuses a caller who may not call this any more, whatever it is about.
    pub(in crate::api) fn again(&self) -> Result<Scope, Refusal> {
        self.look().1
    }

    /// What the caller's call may be about now, or why it is refused; and so it is if that is not `name`.
    pub(in crate::api) fn now(&self, name: &str) -> Result<Scope, Refusal> {
        let scope = self.again()?;
        scope.may(name)?;
        Ok(scope)
    }
}
