//! Who may call what.
//!
//! Every RPC stands in [`METHODS`] with what it takes to call it; one that is missing there is not served, and a
//! test holds the table against the contract. A caller is known by the credentials that the kernel attached
//! to its end of the socket when it connected (unix(7), SO_PEERCRED): they cannot be forged. Where its process
//! belongs was found out then, too: who runs [inside](super::inside) an instance may do little.

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use nix::unistd::geteuid;
use supervisor_core::ids::Name;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{info, warn};

use super::{
    inside::{
        Inside::{self, Closed, Mend, Open, See},
        Insider, Scope,
    },
    listen::Caller,
    status::Refusal,
};
use crate::{handle::Handle, lineage::Origin};

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

/// Who may call one RPC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// The path of its requests.
    pub(crate) path: &'static str,
    /// What it takes.
    pub(crate) access: Access,
    /// What it is to callers inside an instance.
    pub(crate) inside: Inside,
}

const fn read(path: &'static str, inside: Inside) -> Rule {
    Rule { path, access: Access::Read, inside }
}

const fn operate(path: &'static str, inside: Inside) -> Rule {
    Rule { path, access: Access::Operate, inside }
}

const fn administer(path: &'static str) -> Rule {
    Rule { path, access: Access::Administer, inside: Inside::Closed }
}

/// Every RPC.
pub(crate) const METHODS: &[Rule] = &[
    operate("/openclaw.supervisor.v1.InstanceService/CreateInstance", Closed),
    read("/openclaw.supervisor.v1.InstanceService/GetInstance", See),
    read("/openclaw.supervisor.v1.InstanceService/ListInstances", See),
    operate("/openclaw.supervisor.v1.InstanceService/UpdateInstance", Closed),
    operate("/openclaw.supervisor.v1.InstanceService/DeleteInstance", Closed),
    operate("/openclaw.supervisor.v1.InstanceService/StartInstance", Mend),
    operate("/openclaw.supervisor.v1.InstanceService/StopInstance", Closed),
    operate("/openclaw.supervisor.v1.InstanceService/RestartInstance", Mend),
    operate("/openclaw.supervisor.v1.InstanceService/FailOver", Closed),
    operate("/openclaw.supervisor.v1.InstanceService/FailBack", Closed),
    read("/openclaw.supervisor.v1.InstanceService/WatchInstances", See),
    read("/openclaw.supervisor.v1.InstanceService/GetInstanceEnvironment", Closed),
    operate("/openclaw.supervisor.v1.FleetService/ApplyFleet", Closed),
    read("/openclaw.supervisor.v1.FleetService/ExportFleet", Closed),
    read("/openclaw.supervisor.v1.EventService/ListEvents", See),
    read("/openclaw.supervisor.v1.EventService/WatchEvents", See),
    read("/openclaw.supervisor.v1.LogService/ReadLogs", See),
    read("/openclaw.supervisor.v1.SystemService/GetInfo", Open),
    read("/openclaw.supervisor.v1.SystemService/GetSettings", Closed),
    administer("/openclaw.supervisor.v1.SystemService/Reload"),
    administer("/openclaw.supervisor.v1.SystemService/Shutdown"),
    read("/openclaw.supervisor.v1.SystemService/ListPorts", Closed),
    operate("/openclaw.supervisor.v1.DoctorService/Examine", Closed),
    read("/openclaw.supervisor.v1.ConfigService/ListSnapshots", Mend),
    operate("/openclaw.supervisor.v1.ConfigService/CreateSnapshot", Mend),
    read("/openclaw.supervisor.v1.ConfigService/DiffSnapshot", Mend),
    operate("/openclaw.supervisor.v1.ConfigService/RollBack", Mend),
    operate("/openclaw.supervisor.v1.ConfigService/MarkGood", Mend),
    read("/openclaw.supervisor.v1.IncidentService/ListIncidents", See),
    read("/openclaw.supervisor.v1.IncidentService/GetIncident", See),
    operate("/openclaw.supervisor.v1.SetupService/SetUpInstance", Closed),
    read("/openclaw.supervisor.v1.SetupService/ListProfiles", Closed),
    operate("/openclaw.supervisor.v1.SetupService/ImportProfile", Closed),
    operate("/openclaw.supervisor.v1.SetupService/ReturnProfile", Closed),
    operate("/openclaw.supervisor.v1.UpgradeService/UpgradeInstance", Closed),
    read("/openclaw.supervisor.v1.UpgradeService/ListUpgrades", Closed),
    read("/openclaw.supervisor.v1.UpgradeService/ListRuntimes", Closed),
    operate("/openclaw.supervisor.v1.UpgradeService/InstallRuntime", Closed),
    operate("/openclaw.supervisor.v1.UpgradeService/PruneRuntimes", Closed),
    read("/grpc.health.v1.Health/Check", See),
    read("/grpc.health.v1.Health/Watch", See),
    read("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Open),
    read("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Open),
];

/// Who may call the RPC at `path`; `None` if there is none.
fn rule(path: &str) -> Option<&'static Rule> {
    METHODS.iter().find(|rule| rule.path == path)
}

/// Admits two users to everything, except from inside an instance, and nobody else to anything.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    admitted: [u32; 2],
    handle: Handle,
}

impl Gate {
    /// For the user the supervisor runs as, and root.
    pub(crate) fn own(handle: Handle) -> Self {
        const ROOT: u32 = 0;
        Self::of([geteuid().as_raw(), ROOT], handle)
    }

    /// For these users.
    pub(crate) fn of(admitted: [u32; 2], handle: Handle) -> Self {
        Self { admitted, handle }
    }

    /// Whom the request at `path` may be about, or why there is no answer to it.
    fn check(&self, path: &str, caller: Option<&Caller>) -> Result<Scope, Status> {
        let Some(rule) = rule(path) else {
            return Err(Status::new(Code::Unimplemented, format!("there is no method {path}.")));
        };
        let peer = caller.and_then(|caller| caller.peer.peer_cred.as_ref());
        let (uid, pid) = (peer.map(|peer| peer.uid()), peer.and_then(|peer| peer.pid()));
        match rule.access {
            Access::Read | Access::Operate | Access::Administer
                if uid.is_some_and(|uid| self.admitted.contains(&uid)) => {}
            Access::Read | Access::Operate | Access::Administer => {
                let who = uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
                warn!(uid = %who, path, "a caller was turned away");
                return Err(Refusal::NotPermitted(who).into());
            }
        }
        match caller.and_then(|caller| caller.origin.as_ref()) {
            Some(Origin::Outside) => Ok(Scope::WHOLE),
            Some(Origin::Inside(name)) => self.check_inside(rule, name),
            // Nobody needs an answer who has ended. Root is no exception: an agent may have `sudo`.
            None => {
                warn!(pid, path, "a caller that cannot be traced was turned away");
                Err(Refusal::Untraced(pid.unwrap_or(0)).into())
            }
        }
    }

    fn check_inside(&self, rule: &Rule, name: &Name) -> Result<Scope, Status> {
        let path = rule.path;
        match rule.inside {
            Inside::Closed => {
                warn!(instance = %name, path, "a caller inside an instance was turned away");
                Err(Refusal::from(Insider::new(name.clone(), &self.handle.view())).into())
            }
            Inside::Open | Inside::See => Ok(Scope::narrow(name.clone(), rule.inside, self.handle.clone())),
            Inside::Mend => {
                info!(instance = %name, path, "asked for from inside an instance");
                Ok(Scope::narrow(name.clone(), rule.inside, self.handle.clone()))
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.gate.check(request.uri().path(), request.extensions().get()) {
            Ok(scope) => {
                request.extensions_mut().insert(scope);
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use prost::Message;
    use prost_types::FileDescriptorSet;
    use supervisor_proto::v1::DESCRIPTORS;
    use tokio::sync::watch;

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
        let classified: BTreeSet<String> = METHODS.iter().map(|rule| rule.path.to_owned()).collect();
        assert_eq!(served, classified);
        assert_eq!(classified.len(), METHODS.len());
    }

    #[test]
    fn a_caller_without_credentials_is_turned_away() {
        let (_, view) = watch::channel(Arc::default());
        let gate = Gate::own(Handle::new(view).0);
        let refused = gate.check(METHODS[0].path, None).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let unknown = gate.check("/openclaw.supervisor.v1.InstanceService/Fly", None).unwrap_err();
        assert_eq!(unknown.code(), Code::Unimplemented);
    }

    #[test]
    fn whoever_runs_inside_an_instance_changes_nothing_but_what_a_rescue_mends() {
        for Rule { path, access, inside } in METHODS {
            match (access, inside) {
                (Access::Read, Inside::Closed | Inside::Open | Inside::See | Inside::Mend)
                | (Access::Operate, Inside::Closed | Inside::Mend)
                | (Access::Administer, Inside::Closed) => {}
                (Access::Operate, Inside::Open | Inside::See)
                | (Access::Administer, Inside::Open | Inside::See | Inside::Mend) => panic!("{path}"),
            }
        }
    }
}
