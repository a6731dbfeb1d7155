//! Who may call what.
//!
//! Every RPC stands in [`METHODS`] with the role it takes to call it; one that is missing there is not served, and a
//! test holds the table against the contract. The [gate](super::gate) goes by it.

use super::inside::Inside::{self, Closed, Mend, Open, See};
use crate::role::Role;

/// What an RPC does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only reads.
    Reads,
    /// It changes something, and is recorded.
    Changes,
}

/// Who may call one RPC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// The path of its requests.
    pub(crate) path: &'static str,
    /// The least role that may call it from outside all instances.
    pub(crate) needs: Role,
    /// What it does.
    pub(crate) effect: Effect,
    /// What it is to callers inside an instance, and to those with the role of one.
    pub(crate) inside: Inside,
    /// What its answer is.
    pub(crate) answer: Answer,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One message.
    Once,
    /// A stream of them, which may have no end.
    Streams,
    /// No gRPC: a page, for whoever reads it by HTTP.
    Page,
}

impl Rule {
    /// Its service and its name.
    pub(crate) fn full_name(&self) -> &'static str {
        self.path.trim_start_matches('/')
    }

    /// The same, answered by a stream.
    const fn streaming(self) -> Self {
        Self { answer: Answer::Streams, ..self }
    }

    /// The same, answered by a page.
    const fn page(self) -> Self {
        Self { answer: Answer::Page, ..self }
    }

    /// Its name.
    pub(crate) fn method(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

/// Shows what is there.
const fn view(path: &'static str, inside: Inside) -> Rule {
    Rule { path, needs: Role::Viewer, effect: Effect::Reads, inside, answer: Answer::Once }
}

/// Shows who may do what, and who did.
const fn inspect(path: &'static str) -> Rule {
    Rule { path, needs: Role::Admin, effect: Effect::Reads, inside: Closed, answer: Answer::Once }
}

/// Changes how what is there runs.
const fn operate(path: &'static str, inside: Inside) -> Rule {
    Rule { path, needs: Role::Operator, effect: Effect::Changes, inside, answer: Answer::Once }
}

/// Changes what is there, or the supervisor itself. Whoever says what is run can do all that the user can that it is
/// run as; so that is no operator's.
const fn administer(path: &'static str) -> Rule {
    Rule { path, needs: Role::Admin, effect: Effect::Changes, inside: Closed, answer: Answer::Once }
}

/// The page for Prometheus.
pub(super) const METRICS: &str = "/metrics";

/// Every RPC, and the pages beside them.
pub(crate) const METHODS: &[Rule] = &[
    administer("/openclaw.supervisor.v1.InstanceService/CreateInstance"),
    view("/openclaw.supervisor.v1.InstanceService/GetInstance", See),
    view("/openclaw.supervisor.v1.InstanceService/ListInstances", See),
    // `maintenance` alone; for all else its service asks for an admin.
    operate("/openclaw.supervisor.v1.InstanceService/UpdateInstance", Closed),
    administer("/openclaw.supervisor.v1.InstanceService/DeleteInstance"),
    operate("/openclaw.supervisor.v1.InstanceService/StartInstance", Mend),
    operate("/openclaw.supervisor.v1.InstanceService/StopInstance", Closed),
    operate("/openclaw.supervisor.v1.InstanceService/RestartInstance", Mend),
    operate("/openclaw.supervisor.v1.InstanceService/FailOver", Closed),
    operate("/openclaw.supervisor.v1.InstanceService/FailBack", Closed),
    view("/openclaw.supervisor.v1.InstanceService/WatchInstances", See).streaming(),
    view("/openclaw.supervisor.v1.InstanceService/GetInstanceEnvironment", Closed),
    // Whoever gets what it takes can run what an agent has written, behind its walls, if it can become its user.
    operate("/openclaw.supervisor.v1.InstanceService/EnterInstance", Closed),
    administer("/openclaw.supervisor.v1.FleetService/ApplyFleet"),
    view("/openclaw.supervisor.v1.FleetService/ExportFleet", Closed),
    view("/openclaw.supervisor.v1.EventService/ListEvents", See),
    view("/openclaw.supervisor.v1.EventService/WatchEvents", See).streaming(),
    view("/openclaw.supervisor.v1.LogService/ReadLogs", See).streaming(),
    view("/openclaw.supervisor.v1.SystemService/GetInfo", Open),
    inspect("/openclaw.supervisor.v1.SystemService/GetSettings"),
    administer("/openclaw.supervisor.v1.SystemService/Reload"),
    administer("/openclaw.supervisor.v1.SystemService/Shutdown"),
    view("/openclaw.supervisor.v1.SystemService/ListPorts", Closed),
    operate("/openclaw.supervisor.v1.DoctorService/Examine", Closed),
    view("/openclaw.supervisor.v1.ConfigService/ListSnapshots", Mend),
    operate("/openclaw.supervisor.v1.ConfigService/CreateSnapshot", Mend),
    view("/openclaw.supervisor.v1.ConfigService/DiffSnapshot", Mend),
    operate("/openclaw.supervisor.v1.ConfigService/RollBack", Mend),
    operate("/openclaw.supervisor.v1.ConfigService/MarkGood", Mend),
    view("/openclaw.supervisor.v1.IncidentService/ListIncidents", See),
    view("/openclaw.supervisor.v1.IncidentService/GetIncident", See),
    administer("/openclaw.supervisor.v1.SetupService/SetUpInstance"),
    view("/openclaw.supervisor.v1.SetupService/ListProfiles", Closed),
    administer("/openclaw.supervisor.v1.SetupService/ImportProfile"),
    administer("/openclaw.supervisor.v1.SetupService/ReturnProfile"),
    // A version of npm's registry; for what is to be taken from elsewhere its service asks for an admin.
    operate("/openclaw.supervisor.v1.UpgradeService/UpgradeInstance", Closed),
    view("/openclaw.supervisor.v1.UpgradeService/ListUpgrades", Closed),
    view("/openclaw.supervisor.v1.UpgradeService/ListRuntimes", Closed),
    operate("/openclaw.supervisor.v1.UpgradeService/InstallRuntime", Closed),
    operate("/openclaw.supervisor.v1.UpgradeService/PruneRuntimes", Closed),
    inspect("/openclaw.supervisor.v1.AuditService/ListAudit"),
    administer("/openclaw.supervisor.v1.CertificateService/InitAuthority"),
    administer("/openclaw.supervisor.v1.CertificateService/IssueCertificate"),
    inspect("/openclaw.supervisor.v1.CertificateService/ListCertificates"),
    administer("/openclaw.supervisor.v1.CertificateService/RevokeCertificate"),
    // What the link opens does what its caller may do.
    view("/openclaw.supervisor.v1.WebService/CreateLink", Closed),
    view("/openclaw.supervisor.v1.AlertService/GetAlerts", Closed),
    operate("/openclaw.supervisor.v1.AlertService/TestAlerts", Closed),
    view("/grpc.health.v1.Health/Check", See),
    view("/grpc.health.v1.Health/Watch", See).streaming(),
    // Of its answers some are kept that are not counted.
    view("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Closed).streaming(),
    view("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Closed).streaming(),
    // Of all instances at once.
    view(METRICS, Closed).page(),
];

/// Who may call the RPC at `path`; `None` if there is none.
pub(super) fn rule(path: &str) -> Option<&'static Rule> {
    METHODS.iter().find(|rule| rule.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;
    use supervisor_proto::v1::DESCRIPTORS;

    use super::*;

    /// The path of each, and whether its answer is a stream.
    fn methods_of(descriptors: &[u8]) -> Vec<(String, bool)> {
        let set = FileDescriptorSet::decode(descriptors).unwrap();
        let mut paths = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    paths.push((path, method.server_streaming()));
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
        let served: BTreeSet<_> = served.into_iter().flat_map(methods_of).collect();
        let rpcs = METHODS.iter().filter(|rule| rule.answer != Answer::Page);
        let classified: BTreeSet<_> =
            rpcs.clone().map(|rule| (rule.path.to_owned(), rule.answer == Answer::Streams)).collect();
        assert_eq!(served, classified);
        assert_eq!(classified.len(), rpcs.count());
    }

    #[test]
    fn whoever_runs_inside_an_instance_changes_nothing_but_what_a_rescue_mends() {
        for Rule { path, needs, effect, inside, answer } in METHODS {
            // What changes something is done, or not, when it is answered.
            assert!(*answer == Answer::Once || *effect == Effect::Reads, "{path}");
            match (effect, inside) {
                (Effect::Reads, Closed | Open | See | Mend) | (Effect::Changes, Closed | Mend) => {}
                (Effect::Changes, Open | See) => panic!("{path}"),
            }
            match needs {
                Role::Viewer => assert_eq!(*effect, Effect::Reads, "{path}"),
                Role::Operator => assert_eq!(*effect, Effect::Changes, "{path}"),
                Role::Admin => assert_eq!(*inside, Closed, "{path}"),
                Role::Rescue => panic!("{path}: what a rescue may is said by what it is inside"),
            }
        }
    }
}
