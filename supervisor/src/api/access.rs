//! Who may call what.
//!
//! Every RPC stands in [`METHODS`] with what it takes to call it; one that is missing there is not served, and a
//! test holds the table against the contract. A caller is known by the credentials that the kernel attached
//! to its end of the socket when it connected (unix(7), SO_PEERCRED): they cannot be forged.

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use nix::unistd::geteuid;
use tonic::{Code, Status, body::Body, transport::server::UdsConnectInfo};
use tower::{Layer, Service};
use tracing::warn;

use super::{listen::Caller, status::Refusal};

/// What an RPC takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It only reads.
    Read,
    /// It changes what instances are, or what is wished of them.
    Operate,
    /// It changes or ends the supervisor itself.
    Administer,
}

const fn read(path: &'static str) -> (&'static str, Access) {
    (path, Access::Read)
}

const fn operate(path: &'static str) -> (&'static str, Access) {
    (path, Access::Operate)
}

const fn administer(path: &'static str) -> (&'static str, Access) {
    (path, Access::Administer)
}

/// Every RPC, by the path of its requests.
pub(crate) const METHODS: &[(&str, Access)] = &[
    operate("/openclaw.supervisor.v1.InstanceService/CreateInstance"),
    read("/openclaw.supervisor.v1.InstanceService/GetInstance"),
    read("/openclaw.supervisor.v1.InstanceService/ListInstances"),
    operate("/openclaw.supervisor.v1.InstanceService/UpdateInstance"),
    operate("/openclaw.supervisor.v1.InstanceService/DeleteInstance"),
    operate("/openclaw.supervisor.v1.InstanceService/StartInstance"),
    operate("/openclaw.supervisor.v1.InstanceService/StopInstance"),
    operate("/openclaw.supervisor.v1.InstanceService/RestartInstance"),
    operate("/openclaw.supervisor.v1.InstanceService/FailOver"),
    operate("/openclaw.supervisor.v1.InstanceService/FailBack"),
    read("/openclaw.supervisor.v1.InstanceService/WatchInstances"),
    read("/openclaw.supervisor.v1.InstanceService/GetInstanceEnvironment"),
    operate("/openclaw.supervisor.v1.FleetService/ApplyFleet"),
    read("/openclaw.supervisor.v1.FleetService/ExportFleet"),
    read("/openclaw.supervisor.v1.EventService/ListEvents"),
    read("/openclaw.supervisor.v1.EventService/WatchEvents"),
    read("/openclaw.supervisor.v1.LogService/ReadLogs"),
    read("/openclaw.supervisor.v1.SystemService/GetInfo"),
    read("/openclaw.supervisor.v1.SystemService/GetSettings"),
    administer("/openclaw.supervisor.v1.SystemService/Reload"),
    administer("/openclaw.supervisor.v1.SystemService/Shutdown"),
    read("/openclaw.supervisor.v1.SystemService/ListPorts"),
    operate("/openclaw.supervisor.v1.DoctorService/Examine"),
    read("/openclaw.supervisor.v1.ConfigService/ListSnapshots"),
    operate("/openclaw.supervisor.v1.ConfigService/CreateSnapshot"),
    read("/openclaw.supervisor.v1.ConfigService/DiffSnapshot"),
    operate("/openclaw.supervisor.v1.ConfigService/RollBack"),
    operate("/openclaw.supervisor.v1.ConfigService/MarkGood"),
    read("/openclaw.supervisor.v1.IncidentService/ListIncidents"),
    read("/openclaw.supervisor.v1.IncidentService/GetIncident"),
    read("/grpc.health.v1.Health/Check"),
    read("/grpc.health.v1.Health/Watch"),
    read("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    read("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
];

/// What it takes to call the RPC at `path`; `None` if there is none.
pub(crate) fn access(path: &str) -> Option<Access> {
    METHODS.iter().find(|(known, _)| *known == path).map(|(_, access)| *access)
}

/// Admits two users to everything, and nobody else to anything.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    admitted: [u32; 2],
}

impl Gate {
    /// For the user the supervisor runs as, and root.
    pub(crate) fn own() -> Self {
        const ROOT: u32 = 0;
        Self::of([geteuid().as_raw(), ROOT])
    }

    /// For these users.
    pub(crate) fn of(admitted: [u32; 2]) -> Self {
        Self { admitted }
    }

    fn check(&self, path: &str, peer: Option<&UdsConnectInfo>) -> Result<(), Status> {
        let Some(access) = access(path) else {
            return Err(Status::new(Code::Unimplemented, format!("there is no method {path}.")));
        };
        let uid = peer.and_then(|peer| peer.peer_cred.as_ref()).map(|credentials| credentials.uid());
        match access {
            Access::Read | Access::Operate | Access::Administer
                if uid.is_some_and(|uid| self.admitted.contains(&uid)) =>
            {
                Ok(())
            }
            Access::Read | Access::Operate | Access::Administer => {
                let who = uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
                warn!(uid = %who, path, "a caller was turned away");
                Err(Refusal::NotPermitted(who).into())
            }
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { gate: self.clone(), inner }
    }
}

/// A service behind the [`Gate`].
#[derive(Debug, Clone)]
pub(crate) struct Guarded<S> {
    gate: Gate,
    inner: S,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = request.extensions().get().map(|caller: &Caller| &caller.peer);
        match self.gate.check(request.uri().path(), peer) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;
    use supervisor_proto::v1::DESCRIPTORS;

    use super::*;

    fn methods_of(descriptors: &[u8]) -> Vec<String> {
        let set = FileDescriptorSet::decode(descriptors).unwrap();
        let mut paths = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        paths
    }

    #[test]
    fn every_rpc_of_the_contract_is_classified_and_nothing_else() {
        let served = [
            DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let served: BTreeSet<String> = served.into_iter().flat_map(methods_of).collect();
        let classified: BTreeSet<String> = METHODS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(served, classified);
        assert_eq!(classified.len(), METHODS.len());
    }

    #[test]
    fn a_caller_without_credentials_is_turned_away() {
        let refused = Gate::own().check(METHODS[0].0, None).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let unknown = Gate::own().check("/openclaw.supervisor.v1.InstanceService/Fly", None).unwrap_err();
        assert_eq!(unknown.code(), Code::Unimplemented);
    }
}
