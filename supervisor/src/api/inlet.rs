//! A way in for the dashboard: its calls pass the gate like all others, as those of the user who opened it.

use std::{path::Path, sync::Arc};

use axum::body::Body as Page;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header::CONTENT_TYPE};
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tower::{Layer, Service, ServiceExt};

use super::{
    caller::{Caller, Peer},
    gate::{Gate, Guarded},
    limits::{Call, Crowd, Limits, Paced, Party, Seat},
    patience::Leaving,
    stream::Pace,
    turn::Turn,
};
use crate::lineage::Origin;

/// The user who has opened the dashboard, by a process outside of all instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visitor {
    /// Who.
    pub(crate) uid: u32,
    /// That user's group.
    pub(crate) gid: u32,
    /// The other groups that its process was in.
    pub(crate) groups: Arc<[u32]>,
}

/// The services behind the gate.
#[derive(Clone)]
pub(crate) struct Inlet {
    service: Guarded<Routes>,
    gate: Gate,
    limits: Arc<Limits>,
    from: Arc<Path>,
}

impl std::fmt::Debug for Inlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inlet")
    }
}

/// A browser's connection, which has a seat as all others have.
#[derive(Debug)]
pub(crate) struct Visit(Seat);

impl Visit {
    /// A program of this user of the host is at its other end.
    pub(crate) fn is_from(&self, uid: u32) {
        self.0.is_of(Party::Stranger(Crowd::of(uid)));
    }

    /// What it sends.
    pub(crate) fn paced<S>(&self, stream: S) -> Paced<S> {
        Paced::new(stream, self.0.ticket())
    }

    /// Cancelled when it has to make room for others.
    pub(crate) fn end(&self) -> CancellationToken {
        self.0.end.clone()
    }
}

/// One that has shown whose it is.
#[derive(Debug)]
pub(crate) struct Met<'a> {
    visit: &'a Visit,
    visitor: Visitor,
}

/// An answer as gRPC has it, and what it takes to pass it on.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) begun: Begun,
    /// For what takes long.
    pub(crate) turn: Turn,
}

/// A call, which counts from its beginning until all of its answer has been taken.
#[derive(Debug)]
pub(crate) struct Begun(Call);

impl Begun {
    /// So many bytes of the answer wait for whoever reads it.
    pub(crate) fn hold(&self, bytes: usize) {
        self.0.hold(bytes);
    }

    /// Is answered with this.
    pub(crate) fn with(self, answer: Response<Page>) -> Response<Page> {
        answer.map(|body| Page::new(Leaving::new(body, Some(self.0))))
    }
}

impl Inlet {
    /// `from` is what the record calls the place.
    pub(super) fn new(gate: &Gate, routes: Routes, limits: Arc<Limits>, from: &Path) -> Self {
        let service = gate.layer(routes);
        Self { service, gate: gate.clone(), limits, from: from.into() }
    }

    /// Makes room for a connection, of which nothing is known yet.
    pub(crate) fn enter(&self) -> Visit {
        Visit(self.limits.admit("somebody in a browser".to_owned(), Party::Stranger(Crowd::of(u32::MAX))))
    }

    /// Whether the gate would let this caller call the method at `path` now.
    pub(crate) fn may(&self, caller: &Met<'_>, path: &str) -> bool {
        self.gate.lets(self.peer(&caller.visitor), path)
    }

    fn peer(&self, visitor: &Visitor) -> Peer {
        Peer::Unix {
            uid: visitor.uid,
            gid: visitor.gid,
            pid: None,
            groups: Arc::clone(&visitor.groups),
            origin: Some(Origin::Outside),
            socket: Arc::clone(&self.from),
        }
    }

    /// The connection has shown whose it is.
    pub(crate) fn meet<'a>(&self, visit: &'a Visit, visitor: Visitor) -> Met<'a> {
        visit.0.is_of(self.gate.party(visitor.uid, visitor.gid, &visitor.groups));
        Met { visit, visitor }
    }

    /// Calls the method at `path` with a message in its frame.
    pub(crate) async fn call(&self, caller: &Met<'_>, path: &str, message: Bytes) -> Answer {
        let (peer, ticket) = (self.peer(&caller.visitor), caller.visit.0.ticket());
        let (begun, turn) = (Begun(ticket.call(0)), ticket.turn());
        let mut request = Request::new(Body::new(Full::new(message)));
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        request.extensions_mut().insert(Caller { peer, ticket });
        request.extensions_mut().insert(Pace::EYES);
        // Paths are of the contract, and so are fit for a request.
        if let Ok(uri) = path.parse() {
            *request.uri_mut() = uri;
        }
        let mut service = self.service.clone();
        let response = match service.ready().await {
            Ok(service) => service.call(request).await,
            Err(never) => match never {},
        };
        let Ok(response) = response;
        Answer { response, begun, turn }
    }
}
