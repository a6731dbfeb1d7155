//! The gate: every call comes through here, and nothing that changes anything goes unrecorded.
//!
//! ```text
//!   call ──► who is it? ──► what may it? ──no──► refused, and recorded ([`refusals`])
//!                                │ yes
//!                 reads ◄────────┴────────► changes: it is read wholly ([`message`]), recorded, done,
//!                   │                       and its end is recorded ([`record`])
//!                   └► a service may still refuse a name; who loses the right loses its stream ([`stay`])
//! ```
//!
//! A process is known by the credentials that the kernel attached to its end of the socket when it connected
//! (unix(7), SO_PEERCRED), a certificate by its key, a token by its file. Where a process belongs was found out when it
//! connected, too: who runs [inside](super::inside) an instance may do little, whatever else it has. An agent may have
//! stolen a token, or have `sudo`.

mod admission;
mod message;
mod record;
mod refusals;
mod stay;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode, header::AUTHORIZATION};
use nix::unistd::geteuid;
use supervisor_core::ids::Name;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::debug;

use self::{record::Record, refusals::Refusals, stay::Stay};
use super::{
    access::{Answer as Kind, Effect, Rule, rule},
    caller::{Caller, Peer},
    inside::{How, Inside, Insider, Scope},
    limits::Party,
    status::Refusal,
    turn::Turn,
};
use crate::{
    audit::{self, Audit, Kept},
    bindings::{Bindings, Digest, Table},
    handle::Handle,
    lineage::Origin,
    problem::cut,
    registry,
    role::Grant,
    user,
};

pub(super) use admission::Admission;
pub(super) use record::{Principal, note_repeat, principal};

/// How a token is shown (RFC 6750, section 2.1).
const BEARER: &[u8] = b"Bearer ";

/// The user who may do everything.
const ROOT: u32 = 0;

/// Of a path that is none of ours, so much is quoted.
const LONGEST_PATH: usize = 100;

/// Admits two users to everything, others to what their roles allow, and nobody to more from inside an instance.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    admins: [u32; 2],
    bindings: Bindings,
    handle: Handle,
    audit: Audit,
    refusals: Refusals,
}

/// What is known of a caller.
#[derive(Debug)]
struct Known {
    peer: Option<Peer>,
    grant: Option<Grant>,
    /// The file of the token that it has its role by.
    token: Option<Arc<str>>,
    /// Its user may do everything here.
    is_admin: bool,
    table: Arc<Table>,
}

impl Gate {
    /// For the user the supervisor runs as, root, and whoever is bound to a role.
    pub(crate) fn own(handle: Handle, bindings: Bindings, audit: Audit) -> Self {
        Self::of([geteuid().as_raw(), ROOT], handle, bindings, audit)
    }

    /// For these users, and whoever is bound to a role.
    pub(crate) fn of(admins: [u32; 2], handle: Handle, bindings: Bindings, audit: Audit) -> Self {
        let refusals = Refusals::new(audit.clone());
        Self { admins, bindings, handle, audit, refusals }
    }

    /// What is known of a peer that shows this token.
    fn know(&self, peer: Option<Peer>, shown: Option<&Digest>) -> Known {
        let table = self.bindings.table();
        let is_admin = matches!(&peer, Some(Peer::Unix { uid, .. }) if self.admins.contains(uid));
        let (own, trusted) = match &peer {
            None => (None, false),
            Some(Peer::Unix { origin, .. }) if is_admin => {
                (Some(Grant::Admin), *origin == Some(Origin::Outside))
            }
            Some(Peer::Unix { uid, gid, groups, origin, .. }) => {
                let groups = groups.iter().copied().chain([*gid]);
                let own = || table.of_process(*uid, groups).cloned();
                match origin {
                    // Whatever else it has: only who is its user is at home there.
                    Some(Origin::Inside(name)) => (self.at_home(*uid, name), false),
                    None => (own(), false),
                    Some(Origin::Outside) => (own(), true),
                }
            }
            Some(Peer::Certificate { name, grant, .. }) => {
                (table.of_certificate(name).cloned().max(grant.clone()), true)
            }
        };
        let by_token = shown.filter(|_| trusted).and_then(|token| table.of_token(token));
        let by_token = by_token.map(|(grant, file)| (grant.clone(), Arc::clone(file)));
        let (grant, token) = match by_token {
            Some((grant, file)) if own.as_ref().is_none_or(|own| *own < grant) => (Some(grant), Some(file)),
            Some(_) | None => (own, None),
        };
        Known { peer, grant, token, is_admin, table }
    }

    /// With whom a process of this user shares what there is, if it is outside of all instances.
    pub(super) fn party(&self, uid: u32, gid: u32, groups: &[u32]) -> Party {
        let bound = self.bindings.table().bound_by(uid, groups.iter().copied().chain([gid]));
        Party::of_person(uid, self.admins.contains(&uid), bound)
    }

    /// Whether a peer that shows no token may call the method at `path`, whatever it is about.
    pub(super) fn lets(&self, peer: Peer, path: &str) -> bool {
        rule(path).is_some_and(|rule| self.admit(rule, &self.know(Some(peer), None)).is_ok())
    }

    /// The role of who runs inside an instance as the user that this is to run as.
    fn at_home(&self, uid: u32, name: &Name) -> Option<Grant> {
        let view = self.handle.view();
        let user = registry::spec(view.instances.get(name)?).user?;
        let is_its = user::resolve(&user).ok()??.uid == uid;
        is_its.then(|| Grant::Rescue(name.clone()))
    }

    /// Whom a call of this method may be about, or why it is refused.
    fn admit(&self, rule: &'static Rule, known: &Known) -> Result<Scope, Refusal> {
        let Some(grant) = &known.grant else {
            let insider = |name: &Name| Insider::new(name.clone(), How::Inside, &self.handle.view());
            return Err(known.inside().map_or_else(|| known.lacks(rule), |name| insider(name).into()));
        };
        match &known.peer {
            None => return Err(known.lacks(rule)),
            Some(Peer::Certificate { .. } | Peer::Unix { origin: Some(Origin::Outside), .. }) => {}
            Some(Peer::Unix { origin: Some(Origin::Inside(name)), .. }) => {
                return self.admit_insider(rule, known, name);
            }
            // Nobody needs an answer who has ended. Root is no exception.
            Some(Peer::Unix { pid, origin: None, .. }) => return Err(Refusal::Untraced(pid.unwrap_or(0))),
        }
        match (grant, rule.inside) {
            (Grant::Rescue(name), Inside::Open | Inside::See | Inside::Mend) => {
                let insider = Insider::new(name.clone(), How::Role, &self.handle.view());
                Ok(Scope::narrow(known.who(), insider, rule.inside, self.handle.clone()))
            }
            (Grant::Viewer | Grant::Operator | Grant::Admin, _) if grant.role() >= rule.needs => {
                Ok(Scope::whole(known.who(), grant.role()))
            }
            (Grant::Rescue(_) | Grant::Viewer | Grant::Operator | Grant::Admin, _) => Err(known.lacks(rule)),
        }
    }

    fn admit_insider(&self, rule: &Rule, known: &Known, name: &Name) -> Result<Scope, Refusal> {
        let insider = Insider::new(name.clone(), How::Inside, &self.handle.view());
        match rule.inside {
            Inside::Closed => return Err(insider.into()),
            Inside::Open | Inside::See => {}
            Inside::Mend => debug!(instance = %name, path = rule.path, "asked for from inside an instance"),
        }
        Ok(Scope::narrow(known.who(), insider, rule.inside, self.handle.clone()))
    }

    /// Records that a call was refused, and makes that its answer.
    fn refuse(&self, rule: &'static Rule, known: &Known, refusal: Refusal) -> Response<Body> {
        self.refusals.note(known.recorded(), rule, refusal.reason());
        let status = Status::from(refusal);
        match rule.answer {
            Kind::Once | Kind::Streams => status.into_http(),
            Kind::Page => {
                let mut answer = Response::new(Body::new(format!("{}\n", status.message())));
                *answer.status_mut() = StatusCode::FORBIDDEN;
                answer
            }
        }
    }
}

impl Known {
    /// The instance it runs in.
    fn inside(&self) -> Option<&Name> {
        match &self.peer {
            Some(Peer::Unix { origin: Some(Origin::Inside(name)), .. }) => Some(name),
            Some(Peer::Unix { origin: Some(Origin::Outside) | None, .. } | Peer::Certificate { .. })
            | None => None,
        }
    }

    /// Whether what it does is recorded apart from what operators do.
    fn kept(&self) -> Kept {
        match &self.grant {
            None | Some(Grant::Rescue(_)) => Kept::Apart,
            Some(_) if self.inside().is_some() => Kept::Apart,
            Some(Grant::Viewer | Grant::Operator | Grant::Admin) => Kept::Long,
        }
    }

    /// In a sentence.
    fn who(&self) -> String {
        let who = match &self.peer {
            None => "an unknown caller".to_owned(),
            Some(Peer::Unix { uid, .. }) => match self.table.name(*uid) {
                Some(name) => format!("user {name} ({uid})"),
                None => format!("user {uid}"),
            },
            Some(Peer::Certificate { name, .. }) => format!("the certificate of {name}"),
        };
        match &self.token {
            Some(file) => format!("{who} with the token of {file}"),
            None => who,
        }
    }

    /// The group that gives it its role, if nothing else does.
    fn group(&self) -> Option<u32> {
        match (&self.token, &self.peer) {
            (None, Some(Peer::Unix { uid, gid, groups, .. }))
                if !self.is_admin && self.inside().is_none() =>
            {
                self.table.bound_by(*uid, groups.iter().copied().chain([*gid]))?.group()
            }
            (Some(_), _) | (None, Some(Peer::Unix { .. } | Peer::Certificate { .. }) | None) => None,
        }
    }

    /// By which a caller is told from others: what one has asked for is not another's to repeat.
    fn principal(&self) -> Principal {
        let caller: Arc<str> = match (self.inside(), &self.token, &self.peer) {
            (Some(name), _, _) => format!("inside {name}").into(),
            (None, Some(file), _) => format!("token {file}").into(),
            (None, None, Some(Peer::Unix { uid, .. })) => format!("uid {uid}").into(),
            (None, None, Some(Peer::Certificate { name, .. })) => format!("certificate {name}").into(),
            (None, None, None) => Arc::default(),
        };
        let party = self.group().map_or_else(|| Arc::clone(&caller), |gid| format!("gid {gid}").into());
        Principal { caller, party }
    }

    fn lacks(&self, rule: &'static Rule) -> Refusal {
        let has = self.grant.as_ref().map(ToString::to_string);
        Refusal::NotPermitted { who: self.who(), has, what: rule.method().into(), needs: rule.needs }
    }

    /// For the record.
    fn recorded(&self) -> audit::Caller {
        let inside = self.inside().map(ToString::to_string);
        // A role that does not count inside an instance is none there.
        let role = match (&inside, &self.grant) {
            (Some(_), _) | (None, None) => String::new(),
            (None, Some(grant)) => grant.role().to_string(),
        };
        let known = audit::Caller {
            inside: inside.unwrap_or_default(),
            role,
            token: self.token.as_deref().unwrap_or_default().into(),
            ..audit::Caller::default()
        };
        match &self.peer {
            None => known,
            Some(Peer::Unix { uid, pid, socket, .. }) => audit::Caller {
                uid: Some(*uid),
                user: self.table.name(*uid).unwrap_or_default().into(),
                pid: *pid,
                gid: self.group(),
                from: socket.to_string_lossy().into_owned(),
                ..known
            },
            Some(Peer::Certificate { name, serial, address, .. }) => audit::Caller {
                certificate: name.clone(),
                serial: serial.clone(),
                from: address.to_string(),
                ..known
            },
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { gate: self.clone(), inner }
    }
}

/// The token that a call shows.
fn shown(headers: &HeaderMap) -> Option<Digest> {
    headers.get(AUTHORIZATION)?.as_bytes().strip_prefix(BEARER).map(Digest::of)
}

/// A service behind the [`Gate`].
#[derive(Debug, Clone)]
pub(crate) struct Guarded<S> {
    gate: Gate,
    inner: S,
}

type Answer<E> = Result<Response<Body>, E>;

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Answer<S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(rule) = rule(request.uri().path()) else {
            let path = cut(request.uri().path(), LONGEST_PATH);
            let none = Status::new(Code::Unimplemented, format!("there is no method {path}."));
            return Box::pin(async move { Ok(none.into_http()) });
        };
        let gate = self.gate.clone();
        let peer = request.extensions().get().map(|caller: &Caller| caller.peer.clone());
        let token = shown(request.headers());
        // Nobody behind the gate is to have it.
        request.headers_mut().remove(AUTHORIZATION);
        // From before its role is looked up on, so that no change is missed.
        let bound = (rule.answer == Kind::Streams).then(|| gate.bindings.watch());
        let turn = Turn::within(request.extensions());
        let admission = Admission::new(gate.clone(), rule, (peer, token), turn);
        let (known, scope) = admission.look();
        let scope = match scope {
            Ok(scope) => scope,
            Err(refusal) => {
                let answer = gate.refuse(rule, &known, refusal);
                return Box::pin(async move { Ok(answer) });
            }
        };
        request.extensions_mut().insert(scope.clone());
        request.extensions_mut().insert(admission.clone());
        // What was found ready is what is called.
        let fresh = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, fresh);
        match rule.effect {
            Effect::Reads => Box::pin(async move {
                let Some(bound) = bound else { return read((gate, rule), admission, (ready, request)).await };
                let answer = ready.call(request).await?;
                gate.refusals.note_served(&known, rule, answer.headers());
                let stay = Stay { gate, rule, admission, scope, bound };
                Ok(answer.map(|body| stay.guard(body)))
            }),
            Effect::Changes => Box::pin(changed((gate, rule), admission, (ready, request))),
        }
    }
}

/// A call that reads something, and has one answer. That is read in its caller's turn, and once it has begun to its end: what
/// takes long goes on although its caller has left, and the turn with it. Whoever has filled its own turn may wait for
/// long; what it may is asked again then.
async fn read<S>(
    (gate, rule): (Gate, &'static Rule),
    admission: Admission,
    (mut service, request): (S, Request<Body>),
) -> Answer<S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send,
{
    let turn = Turn::within(request.extensions());
    let (mut parts, body) = request.into_parts();
    // Whoever is slow to ask is not to have the turn meanwhile.
    let body = message::arrive(body, rule).await.body;
    let turn = turn.take().await;
    let (known, scope) = admission.look();
    match scope {
        Ok(scope) => parts.extensions.insert(scope),
        Err(refusal) => return Ok(gate.refuse(rule, &known, refusal)),
    };
    let call = tokio::spawn(async move {
        let answer = service.call(Request::from_parts(parts, body)).await;
        drop(turn);
        answer
    });
    let Ok(answer) = call.await else { return Ok(Status::from(Refusal::ShuttingDown).into_http()) };
    let answer = answer?;
    gate.refusals.note_served(&known, rule, answer.headers());
    Ok(answer)
}

/// A call that changes something, from its arrival to its answer. What its caller may is asked again once it has arrived:
/// that can take half a minute, and the roles be others by then.
async fn changed<S>(
    (gate, rule): (Gate, &'static Rule),
    admission: Admission,
    (mut service, request): (S, Request<Body>),
) -> Answer<S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let (mut parts, body) = request.into_parts();
    let arrived = message::arrive(body, rule).await;
    let (known, admitted) = admission.look();
    match admitted.and_then(|scope| scope.may(&arrived.about.target).map(|()| scope)) {
        Ok(scope) => parts.extensions.insert(scope),
        Err(refusal) => return Ok(gate.refuse(rule, &known, refusal)),
    };
    let record = Record::begin(&gate.audit, known.recorded(), rule, &arrived.about, known.kept());
    let answer =
        record.scope(known.principal(), service.call(Request::from_parts(parts, arrived.body))).await?;
    record.end(answer.headers(), |id, reason| gate.refusals.is_equal(id, &known.recorded(), rule, reason));
    Ok(answer)
}

#[cfg(test)]
mod tests;
