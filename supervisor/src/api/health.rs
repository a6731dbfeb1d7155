//! `grpc.health.v1.Health`: the supervisor, its services, and each instance as `instance/<name>`.
//!
//! Answered from the view of the moment; nothing is kept that could be out of date.

use std::{collections::BTreeSet, sync::Arc, sync::LazyLock};

use supervisor_core::{ids::Name, instance::Phase, view::View};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use super::{
    access::METHODS,
    context::Api,
    inside::Scope,
    status::Refusal,
    stream::{self, Answers, Outlet, WATCHER},
};

/// What an instance is called here.
const INSTANCE: &str = "instance/";

/// The services, as they stand in the paths of their methods.
static SERVICES: LazyLock<BTreeSet<&str>> =
    LazyLock::new(|| METHODS.iter().filter_map(|rule| rule.path.split('/').nth(1)).collect());

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Healths(pub(super) Arc<Api>);

/// How `service` is; the empty name is the whole supervisor's.
fn status(view: &View, service: &str) -> ServingStatus {
    let serving = |yes| if yes { ServingStatus::Serving } else { ServingStatus::NotServing };
    match service.strip_prefix(INSTANCE) {
        Some(name) => {
            let instance = Name::new(name).ok().and_then(|name| view.instances.get(&name));
            instance
                .map_or(ServingStatus::ServiceUnknown, |instance| serving(*instance.phase() == Phase::Ready))
        }
        None if service.is_empty() || SERVICES.contains(service) => serving(!view.halting),
        None => ServingStatus::ServiceUnknown,
    }
}

/// Refuses a caller that may not see the instance. How the supervisor is, everyone may know.
fn may(request: &Request<HealthCheckRequest>, service: &str) -> Result<(), Refusal> {
    service.strip_prefix(INSTANCE).map_or(Ok(()), |name| Scope::of(request)?.may(name))
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Tells the status, and each change of it.
async fn watch(api: &Api, service: &str, outlet: &Outlet<HealthCheckResponse>) -> Result<(), Refusal> {
    let mut views = api.handle.watch();
    let mut told = None;
    loop {
        let now = status(&views.borrow_and_update(), service);
        if told != Some(now) {
            if outlet.send(answer(now)).await.is_err() {
                return Ok(());
            }
            told = Some(now);
        }
        tokio::select! {
            changed = views.changed() => changed.map_err(|_| Refusal::ShuttingDown)?,
            () = outlet.gone() => return Ok(()),
            () = api.shutdown.cancelled() => return Err(Refusal::ShuttingDown),
        }
    }
}

#[tonic::async_trait]
impl Health for Healths {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        may(&request, service)?;
        match status(&self.0.handle.view(), service) {
            ServingStatus::ServiceUnknown => {
                let message =
                    format!("nothing called `{service}` is served; an instance is `instance/NAME`.");
                Err(Status::new(Code::NotFound, message))
            }
            known @ (ServingStatus::Unknown | ServingStatus::Serving | ServingStatus::NotServing) => {
                Ok(Response::new(answer(known)))
            }
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        may(&request, &request.get_ref().service)?;
        let service = request.into_inner().service;
        let api = Arc::clone(&self.0);
        let (outlet, answers) = stream::channel(WATCHER);
        tokio::spawn(async move {
            if let Err(refusal) = watch(&api, &service, &outlet).await {
                outlet.refuse(refusal);
            }
        });
        Ok(Response::new(answers))
    }
}
