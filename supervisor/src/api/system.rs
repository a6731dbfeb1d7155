//! `SystemService`.

use std::{collections::HashSet, sync::Arc};

use supervisor_core::{
    event::{ApplyMode, Command},
    ids::Name,
    instance::Instance,
    ports::{BLOCK, Pool},
};
use supervisor_proto::v1::{
    GetInfoRequest, GetInfoResponse, GetSettingsRequest, GetSettingsResponse, InstancePorts,
    ListPortsRequest, ListPortsResponse, PortUse, ReloadRequest, ReloadResponse, ShutdownRequest,
    ShutdownResponse, system_service_server::SystemService,
};
use tokio::task;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::{
    context::{Api, Listener, known},
    convert,
    status::{Fault, Refusal},
};
use crate::{
    bindings::Table,
    figures::descendants,
    problem::Problem,
    settings::{self, Settings, SettingsError, ephemeral_ports},
    web::Dashboard,
};

/// What this build can do, for clients that speak to several versions.
const CAPABILITIES: &[&str] = &[
    "access.roles",
    "audit",
    "config.rollback",
    "config.snapshots",
    "doctor",
    "doctor.fix",
    "environment",
    "events.watch",
    "failover",
    "failover.rescues-many",
    "fleet.apply",
    "fleet.prune",
    "incidents",
    "instances.filter",
    "instances.watch",
    "logs.cursor",
    "logs.follow",
    "ports.holders",
    "request-id",
    "runtime.builtin",
    "runtime.command",
    "runtime.openclaw",
    "wait",
];

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Systems(pub(super) Arc<Api>);

type Answer<T> = Result<Response<T>, Status>;

/// An instance's block, and whose processes may listen on it.
struct Holding {
    name: Name,
    base: u16,
    last: u16,
    purposes: Vec<(u32, &'static str)>,
    worker_pid: Option<i32>,
}

impl Holding {
    fn of(instance: &Instance) -> Self {
        let block = instance.record().block;
        Self {
            name: instance.name().clone(),
            base: block.base,
            last: block.last(),
            purposes: convert::purposes(block),
            worker_pid: instance.process().map(|process| process.worker_pid),
        }
    }

    fn shown(&self, listeners: &[Listener]) -> InstancePorts {
        let mine = listeners.iter().any(|listener| (self.base..=self.last).contains(&listener.port));
        let family: HashSet<u32> = self.worker_pid.filter(|_| mine).map(descendants).unwrap_or_default();
        let ports = self.purposes.iter().map(|(port, purpose)| {
            let listener = listeners.iter().find(|listener| u32::from(listener.port) == *port);
            let foreign = |listener: &Listener| {
                let pid = listener.pid.and_then(|pid| u32::try_from(pid).ok());
                pid.is_none_or(|pid| !family.contains(&pid))
            };
            PortUse {
                port: *port,
                purpose: (*purpose).into(),
                pid: listener.and_then(|listener| listener.pid).unwrap_or(0),
                command: listener.map(|listener| listener.command.clone()).unwrap_or_default(),
                foreign: listener.is_some_and(foreign),
            }
        });
        let (base, last) = (u32::from(self.base), u32::from(self.last));
        InstancePorts { instance: self.name.to_string(), base, last, ports: ports.collect() }
    }
}

impl Systems {
    fn info(&self) -> GetInfoResponse {
        let api = &self.0;
        let view = api.handle.view();
        let control = &api.host().control;
        GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            start_time: Some(convert::timestamp(api.started)),
            data_dir: control.data_dir.to_string_lossy().into_owned(),
            socket: control.socket.to_string_lossy().into_owned(),
            capabilities: CAPABILITIES.iter().map(|capability| (*capability).to_owned()).collect(),
            revision: view.revision.0,
            epoch: api.epoch,
            instances: u32::try_from(view.instances.len()).unwrap_or(u32::MAX),
            alarms: self.alarms(),
        }
    }

    /// What is wrong with the supervisor itself.
    fn alarms(&self) -> Vec<String> {
        let view = self.0.handle.view();
        let mut alarms = Vec::new();
        if view.store_failing {
            let data_dir = self.0.host().control.data_dir.display();
            alarms.push(format!(
                "Changes cannot be stored in {data_dir}; see that the disk has room and works, and \
                 `openclawctl events` for what it says."
            ));
        }
        if view.halting {
            alarms.push("All instances are being stopped; the supervisor ends after that.".into());
        }
        let settings = self.in_force(view.pool);
        alarms.extend(settings.warnings(ephemeral_ports()).into_iter().map(|warning| format!("{warning}.")));
        alarms.extend(
            self.0.bindings.table().warnings().iter().map(|warning| format!("In the settings, {warning}.")),
        );
        alarms.extend(self.0.undying.alarms());
        alarms.extend(self.0.exposed.alarms());
        let lost = self.0.audit.lost();
        if lost > 0 {
            alarms.push(format!(
                "The audit cannot be written, and {lost} calls are missing in it; see the supervisor's log for why."
            ));
        }
        alarms.extend(self.0.alerts.alarms());
        let dashboard = self.0.web.as_ref().and_then(Dashboard::trouble);
        alarms.extend(dashboard.map(|trouble| format!("{trouble}.")));
        alarms.extend(self.0.doors.alarms().into_iter().map(|alarm| format!("{alarm}.")));
        alarms
    }

    /// The settings, with the pool that a fleet file may have changed.
    fn in_force(&self, pool: Pool) -> Settings {
        Settings { pool, ..self.0.settings().clone() }
    }

    fn settings(&self) -> Result<GetSettingsResponse, Refusal> {
        let settings = self.in_force(self.0.handle.view().pool);
        Ok(GetSettingsResponse {
            pool_first: settings.pool.first.into(),
            pool_last: settings.pool.last.into(),
            block_size: BLOCK.into(),
            max_instances: settings.max_instances,
            content: settings.to_yaml().map_err(|error| Refusal::storage(&error))?,
        })
    }

    /// Reads the settings file again. The pool, the places to listen at, the roles, the alerts and the log level change at once; all else is what
    /// the supervisor was built with.
    async fn reload(&self) -> Result<ReloadResponse, Refusal> {
        let data_dir = self.0.host().control.data_dir.clone();
        let loaded = task::spawn_blocking(move || settings::load(&data_dir)).await;
        let newer = loaded.map_err(|_| Refusal::ShuttingDown)?.map_err(|error| match error {
            SettingsError::Wrong(problems) => {
                let fault = |problem: Problem| {
                    let Problem { file, place, path, message, mend, .. } = problem;
                    Fault::new(path, format!("{file}:{place}: {message}"), mend)
                };
                Refusal::InvalidFields(problems.into_iter().map(fault).collect())
            }
            SettingsError::Read { .. } => Refusal::storage(&error),
        })?;
        let older = self.0.settings().clone();
        self.0
            .doors
            .set(&newer.listen)
            .await
            .map_err(|error| Refusal::field("listen", error.to_string(), error.mend()))?;
        if newer.pool != older.pool {
            let pool = Some(newer.pool);
            let applied = Command::Apply { changes: Vec::new(), pool, mode: ApplyMode::Do };
            if let Err(refusal) = self.0.submit(applied).await {
                // Those that were open before can be opened again, unless somebody has just taken their place.
                if let Err(error) = self.0.doors.set(&older.listen).await {
                    warn!(%error, "the places to listen at could not be put back");
                }
                return Err(refusal);
            }
        }
        // Also where the settings are the same: users, groups and tokens may be others.
        let bound = newer.access.clone();
        let found = task::spawn_blocking(move || Table::look_up(&bound)).await;
        self.0.bindings.replace(found.map_err(|_| Refusal::ShuttingDown)?);
        let at_once = Settings {
            pool: newer.pool,
            listen: newer.listen.clone(),
            access: newer.access.clone(),
            alerts: newer.alerts.clone(),
            log_level: if self.0.logging.set(newer.log_level) { newer.log_level } else { older.log_level },
            ..older.clone()
        };
        let mut changes: Vec<String> =
            older.changes(&at_once).into_iter().map(|change| format!("{change}.")).collect();
        let later = at_once.changes(&newer).into_iter();
        changes.extend(later.map(|change| format!("{change}, from the supervisor's next start on.")));
        self.0.alerts.set(newer.alerts);
        *self.0.settings() = at_once;
        info!(?changes, "the settings were read again");
        Ok(ReloadResponse { changes })
    }

    async fn shutdown(&self, request: ShutdownRequest) -> Result<ShutdownResponse, Refusal> {
        let api = Arc::clone(&self.0);
        info!(stop_instances = request.stop_instances, "a caller ends the supervisor");
        // A caller who leaves does not leave a supervisor that is halted for ever.
        let ended = tokio::spawn(async move {
            let halted =
                if request.stop_instances { api.submit(Command::Halt).await.map(drop) } else { Ok(()) };
            if halted.is_ok() {
                api.shutdown.cancel();
            }
            halted
        });
        ended.await.unwrap_or(Err(Refusal::ShuttingDown))?;
        Ok(ShutdownResponse {})
    }

    async fn ports(&self, request: &ListPortsRequest) -> Result<ListPortsResponse, Refusal> {
        let holdings: Vec<Holding> = {
            let view = self.0.handle.view();
            match request.name.as_str() {
                "" => view.instances.values().map(|instance| Holding::of(instance)).collect(),
                name => vec![Holding::of(known(&view, &Name::new(name)?)?)],
            }
        };
        let find = self.0.listeners.clone();
        let looked = task::spawn_blocking(move || {
            let wanted: Vec<u16> = holdings.iter().flat_map(|holding| holding.base..=holding.last).collect();
            let listeners = (find.0)(&wanted);
            holdings.iter().map(|holding| holding.shown(&listeners)).collect()
        });
        Ok(ListPortsResponse { instances: looked.await.map_err(|_| Refusal::ShuttingDown)? })
    }
}

#[tonic::async_trait]
impl SystemService for Systems {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Answer<GetInfoResponse> {
        Ok(Response::new(self.info()))
    }

    async fn get_settings(&self, _: Request<GetSettingsRequest>) -> Answer<GetSettingsResponse> {
        Ok(Response::new(self.settings()?))
    }

    async fn reload(&self, _: Request<ReloadRequest>) -> Answer<ReloadResponse> {
        Ok(Response::new(Systems::reload(self).await?))
    }

    async fn shutdown(&self, request: Request<ShutdownRequest>) -> Answer<ShutdownResponse> {
        Ok(Response::new(Systems::shutdown(self, request.into_inner()).await?))
    }

    async fn list_ports(&self, request: Request<ListPortsRequest>) -> Answer<ListPortsResponse> {
        Ok(Response::new(self.ports(request.get_ref()).await?))
    }
}
