//! A way in for the dashboard: its calls pass the gate like all others, as those of the user who opened it.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header::CONTENT_TYPE};
use http_body_util::Full;
use nix::unistd::geteuid;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tower::{Layer, Service, ServiceExt};

use super::{
    caller::{Caller, Peer},
    gate::{Gate, Guarded},
    limits::{Limits, Party, Seat},
    patience::{Patience, Patient},
    stream::Pace,
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
    service: Patient<Guarded<Routes>>,
    gate: Gate,
    limits: Arc<Limits>,
    from: Arc<Path>,
}

impl std::fmt::Debug for Inlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inlet")
    }
}

/// An answer, and what it holds until it is dropped.
pub(crate) struct Answer {
    /// As gRPC has it.
    pub(crate) response: Response<Body>,
    /// Cancelled when the caller has to make room for others.
    pub(crate) end: CancellationToken,
    _seat: Seat,
}

impl Inlet {
    /// `from` is what the record calls the place.
    pub(super) fn new(gate: &Gate, routes: Routes, limits: Arc<Limits>, from: &Path) -> Self {
        let service = Patience.layer(gate.layer(routes));
        Self { service, gate: gate.clone(), limits, from: from.into() }
    }

    /// Whether the gate would let this visitor call the method at `path` now.
    pub(crate) fn may(&self, visitor: &Visitor, path: &str) -> bool {
        self.gate.lets(self.peer(visitor), path)
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

    /// Calls the method at `path` with a message in its frame.
    pub(crate) async fn call(&self, visitor: &Visitor, path: &str, message: Bytes) -> Answer {
        let own = [0, geteuid().as_raw()].contains(&visitor.uid);
        let party = if own { Party::Own } else { Party::User(visitor.uid) };
        let seat = self.limits.admit(format!("user {} in the dashboard", visitor.uid), party);
        let peer = self.peer(visitor);
        let mut request = Request::new(Body::new(Full::new(message)));
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        request.extensions_mut().insert(Caller { peer, ticket: seat.ticket() });
        request.extensions_mut().insert(Pace::EYES);
        let end = seat.end.clone();
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
        Answer { response, end, _seat: seat }
    }
}
