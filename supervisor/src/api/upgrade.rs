//! `UpgradeService`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use supervisor_core::{denied::Denied, ids::Name};
use supervisor_proto::v1::{
    self, InstallRuntimeRequest, InstallRuntimeResponse, InstalledRuntime, ListRuntimesRequest,
    ListRuntimesResponse, ListUpgradesRequest, ListUpgradesResponse, PruneRuntimesRequest,
    PruneRuntimesResponse, UpgradeInstanceRequest, UpgradeInstanceResponse,
    upgrade_service_server::UpgradeService,
};
use tonic::{Request, Response, Status};

use super::{context::Api, convert::timestamp_ns, gate::Admission, inside::Scope, status::Refusal};
use crate::{
    role::Role,
    runtimes::{InstallError, Installed},
    upgrade::{Journal, UpgradeError, Upgrader, Wish},
};

/// What a crash loop needs to show itself, and a start to settle.
const SOAK: Duration = Duration::from_secs(60);

/// Nobody waits longer for an answer.
const LONGEST_SOAK: Duration = Duration::from_secs(3_600);

/// What takes more than an upgrade does.
const UPGRADE_FROM: &str = "UpgradeInstance with `from`";

/// The same of an installation.
const INSTALL_FROM: &str = "InstallRuntime with `from`";

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Upgrades {
    api: Arc<Api>,
    upgrader: Upgrader,
}

type Answer<T> = Result<Response<T>, Status>;

impl Upgrades {
    /// Goes on with upgrades that an earlier supervisor has left, too.
    pub(super) fn new(api: Arc<Api>) -> Self {
        let upgrader = Upgrader::new(api.handle.clone(), Arc::clone(api.host()));
        tokio::spawn(upgrader.clone().resume());
        Self { api, upgrader }
    }

    async fn upgrade(
        self,
        request: UpgradeInstanceRequest,
        admission: Admission,
    ) -> Result<UpgradeInstanceResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let wish = Wish {
            version: request.version,
            from: source(&request.from)?,
            soak: soak(request.soak)?,
            again: request.again,
        };
        let turn = self.upgrader.turn(&name).await;
        // That may have taken an hour.
        from_elsewhere(&request.from, UPGRADE_FROM, &admission.now(&name)?)?;
        let report = self.upgrader.upgrade(turn, &name, &wish).await.map_err(|error| unable(&error))?;
        Ok(UpgradeInstanceResponse {
            instance: self.api.shown(&name),
            version: report.version,
            previous: report.previous,
            unchanged: report.unchanged,
            steps: report.steps,
            notes: report.notes,
            revision: self.api.handle.view().revision.0,
        })
    }

    async fn install(
        self,
        request: InstallRuntimeRequest,
        admission: Admission,
    ) -> Result<InstallRuntimeResponse, Refusal> {
        let from = source(&request.from)?;
        let turn = self.upgrader.turn_to_install().await;
        from_elsewhere(&request.from, INSTALL_FROM, &admission.again()?)?;
        let installed = self.upgrader.install(turn, (&request.version, from), None).await;
        let (installed, unchanged) = installed.map_err(|error| uninstalled(&error))?;
        let all = self.upgrader.installed().await;
        let runtime = all.into_iter().find(|(one, _)| one.version == installed.version);
        Ok(InstallRuntimeResponse { runtime: runtime.map(shown), unchanged })
    }

    async fn prune(self, admission: Admission) -> Result<PruneRuntimesResponse, Refusal> {
        let alone = self.upgrader.turn_to_prune().await;
        admission.again()?;
        let versions = self.upgrader.prune(alone).await.map_err(|error| unable(&error))?;
        Ok(PruneRuntimesResponse { versions })
    }
}

fn source(from: &str) -> Result<Option<PathBuf>, Refusal> {
    let path = Some(PathBuf::from(from)).filter(|path| !path.as_os_str().is_empty());
    match path.as_ref().is_none_or(|path| path.is_absolute()) {
        true => Ok(path),
        false => Err(Refusal::field("from", "it is not absolute", "write the path from `/` on")),
    }
}

fn soak(asked: Option<prost_types::Duration>) -> Result<Duration, Refusal> {
    let Some(asked) = asked else { return Ok(SOAK) };
    let asked = Duration::try_from(asked).ok().filter(|asked| *asked <= LONGEST_SOAK);
    asked.ok_or_else(|| Refusal::field("soak", "it is out of bounds", "choose 0 s to 1 h"))
}

/// The refusal of an upgrade.
fn unable(error: &UpgradeError) -> Refusal {
    let (name, next) = match error {
        UpgradeError::Unknown(name) => return Denied::UnknownInstance(name.clone()).into(),
        UpgradeError::Interrupted => return Refusal::ShuttingDown,
        UpgradeError::Journal { .. } => return Refusal::storage(error),
        UpgradeError::Obstructed { name, next, .. } => (name, next.clone()),
        UpgradeError::PutBack { name, .. } => (name, format!("`openclawctl logs {name}` may say more")),
        UpgradeError::Stuck { name, .. } => (
            name,
            "mend that; asking for the upgrade again, or a restart of the supervisor, goes on".to_owned(),
        ),
    };
    Refusal::OutcomeFailed { instance: name.to_string(), sentence: error.to_string(), next }
}

/// The refusal of an installation.
fn uninstalled(error: &InstallError) -> Refusal {
    match error {
        InstallError::NoVersion(_) => {
            Refusal::field("version", error.to_string(), "write it as npm does, e.g. `2026.9.6` or `latest`")
        }
        InstallError::Interrupted => Refusal::ShuttingDown,
        InstallError::Write { .. } => Refusal::storage(error),
        InstallError::NoSource(_)
        | InstallError::NoTool(_)
        | InstallError::Npm { .. }
        | InstallError::Mute(_)
        | InstallError::Other { .. } => Refusal::OutcomeFailed {
            instance: String::new(),
            sentence: format!("it is not installed: {error}"),
            next: "`--from` installs from a file or a program instead of the network".into(),
        },
    }
}

fn at(seconds: u64) -> Option<prost_types::Timestamp> {
    (seconds > 0).then(|| timestamp_ns(seconds.saturating_mul(1_000_000_000)))
}

fn shown((installed, instances): (Installed, Vec<Name>)) -> InstalledRuntime {
    InstalledRuntime {
        version: installed.version,
        program: installed.program.to_string_lossy().into_owned(),
        source: installed.source,
        install_time: at(installed.at),
        instances: instances.iter().map(ToString::to_string).collect(),
    }
}

fn told(journal: Journal) -> v1::Upgrade {
    let last = journal.last.as_ref();
    let failed = journal.failed.into_iter().map(|failed| v1::FailedVersion {
        version: failed.version,
        reason: failed.why,
        fail_time: at(failed.at),
    });
    v1::Upgrade {
        name: journal.name.to_string(),
        version: last.map(|last| last.version.clone()).unwrap_or_default(),
        previous: last.map(|last| last.previous.clone()).unwrap_or_default(),
        upgrade_time: last.and_then(|last| at(last.at)),
        under_way: journal.attempt.map(|attempt| attempt.to).unwrap_or_default(),
        failed: failed.collect(),
    }
}

/// What is not of npm's registry may be any program.
fn from_elsewhere(from: &str, what: &str, scope: &Scope) -> Result<(), Refusal> {
    if from.is_empty() { Ok(()) } else { scope.needs(Role::Admin, what) }
}

#[tonic::async_trait]
impl UpgradeService for Upgrades {
    async fn upgrade_instance(
        &self,
        request: Request<UpgradeInstanceRequest>,
    ) -> Answer<UpgradeInstanceResponse> {
        let (scope, admission) = (Scope::of(&request)?, Admission::of(&request)?);
        let request = request.into_inner();
        from_elsewhere(&request.from, UPGRADE_FROM, &scope)?;
        let work = self.clone().upgrade(request.clone(), admission);
        Ok(Response::new(self.api.requests.once(&request.request_id.clone(), request, work).await?))
    }

    async fn list_upgrades(&self, _: Request<ListUpgradesRequest>) -> Answer<ListUpgradesResponse> {
        let journals = self.upgrader.known().await.map_err(|error| unable(&error))?;
        Ok(Response::new(ListUpgradesResponse { upgrades: journals.into_iter().map(told).collect() }))
    }

    async fn list_runtimes(&self, _: Request<ListRuntimesRequest>) -> Answer<ListRuntimesResponse> {
        let runtimes = self.upgrader.installed().await.into_iter().map(shown).collect();
        Ok(Response::new(ListRuntimesResponse { runtimes }))
    }

    async fn install_runtime(
        &self,
        request: Request<InstallRuntimeRequest>,
    ) -> Answer<InstallRuntimeResponse> {
        let (scope, admission) = (Scope::of(&request)?, Admission::of(&request)?);
        let request = request.into_inner();
        from_elsewhere(&request.from, INSTALL_FROM, &scope)?;
        let work = self.clone().install(request.clone(), admission);
        Ok(Response::new(self.api.requests.once(&request.request_id.clone(), request, work).await?))
    }

    async fn prune_runtimes(&self, request: Request<PruneRuntimesRequest>) -> Answer<PruneRuntimesResponse> {
        let (admission, request) = (Admission::of(&request)?, request.into_inner());
        let work = self.clone().prune(admission);
        Ok(Response::new(self.api.requests.once(&request.request_id.clone(), request, work).await?))
    }
}
