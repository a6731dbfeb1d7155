//! `InstanceService`.

use std::{ops::Bound, sync::Arc};

use prost::Message;
use supervisor_core::{ids::Name, instance::Instance};
use supervisor_proto::v1::{self, instance_service_server::InstanceService};
use tokio::{task, time::Instant};
use tonic::{Request, Response, Status};

use super::{
    context::{Api, deadline, known},
    convert::Extent,
    facts::Entry,
    filter::Filter,
    gate::Admission,
    inside::Scope,
    page::{self, Sizes},
    status::Refusal,
    stream::{Answers, Pace},
    turn::Turn,
    wait::Awaited,
    watch,
};
use crate::{
    registry,
    role::Role,
    user::{self, User, UserError},
};

/// Pages of `ListInstances`.
const PAGES: Sizes = Sizes { usual: 1_000, most: 1_000 };

/// A page ends before its specs are larger than this, so that its message stays below the 4 MiB that gRPC clients
/// take by default.
const PAGE_BYTES: usize = 2 << 20;

/// The field that an operator may change: all others may say which program runs.
const OPERATED: &str = "maintenance";

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Instances(pub(super) Arc<Api>);

type Answer<T> = Result<Response<T>, Status>;

impl Instances {
    /// The outcome of a verb, if the caller waits for it: the instance as it is then.
    async fn outcome(
        &self,
        wait: bool,
        (name, awaited): (&str, Awaited),
        revision: u64,
        deadline: Option<Instant>,
    ) -> Result<Option<v1::Instance>, Status> {
        if !wait {
            return Ok(None);
        }
        let name = Name::new(name).map_err(Refusal::from)?;
        let view = self.0.outcome(&[(name.clone(), awaited)], revision, deadline).await?;
        let scene = self.0.scene(&view, Extent::Few);
        Ok(view.instances.get(&name).map(|instance| scene.instance(instance)))
    }

    async fn list(
        &self,
        request: &v1::ListInstancesRequest,
        scope: &Scope,
    ) -> Result<v1::ListInstancesResponse, Refusal> {
        let size = PAGES.of(request.page_size)?;
        let filter = Filter::parse(&request.filter)?;
        let conditions = page::conditions("instances", &[&request.filter]);
        let after = page::begin(conditions, &request.page_token)?;
        let names = scope.names();
        let view = self.0.handle.view();
        self.0.look(view.instances.values().map(Arc::as_ref)).await;
        let scene = self.0.scene(&view, Extent::Many);
        let begin = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = view.instances.range::<str, _>((begin, Bound::Unbounded));
        let mut instances = Vec::new();
        let (mut bytes, mut more) = (0, false);
        for (name, instance) in rest {
            if names.as_ref().is_some_and(|names| !names.contains(name)) {
                continue;
            }
            let shown = scene.instance(instance);
            if !filter.admits(&shown) {
                continue;
            }
            bytes += instance.record().spec.len();
            if instances.len() == size || bytes > PAGE_BYTES && !instances.is_empty() {
                more = true;
                break;
            }
            instances.push(shown);
        }
        let last = instances.last().filter(|_| more);
        let next_page_token = last.map(|last| page::token(conditions, &last.name)).unwrap_or_default();
        Ok(v1::ListInstancesResponse { instances, next_page_token, revision: view.revision.0 })
    }

    async fn get(&self, name: &str) -> Result<v1::GetInstanceResponse, Refusal> {
        let name = Name::new(name)?;
        let view = self.0.handle.view();
        let instance: &Instance = known(&view, &name)?;
        self.0.look([instance].into_iter()).await;
        let shown = self.0.scene(&view, Extent::Few).instance(instance);
        Ok(v1::GetInstanceResponse { instance: Some(shown), revision: view.revision.0 })
    }
}

#[tonic::async_trait]
impl InstanceService for Instances {
    type WatchInstancesStream = Answers<v1::WatchInstancesResponse>;

    async fn create_instance(
        &self,
        request: Request<v1::CreateInstanceRequest>,
    ) -> Answer<v1::CreateInstanceResponse> {
        let request = request.into_inner();
        let work = Arc::clone(&self.0).create(request.clone());
        Ok(Response::new(self.0.requests.once(&request.request_id.clone(), request, work).await?))
    }

    async fn get_instance(
        &self,
        request: Request<v1::GetInstanceRequest>,
    ) -> Answer<v1::GetInstanceResponse> {
        let name = &request.get_ref().name;
        Scope::of(&request)?.may(name)?;
        Ok(Response::new(self.get(name).await?))
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Answer<v1::ListInstancesResponse> {
        Ok(Response::new(self.list(request.get_ref(), &Scope::of(&request)?).await?))
    }

    async fn update_instance(
        &self,
        request: Request<v1::UpdateInstanceRequest>,
    ) -> Answer<v1::UpdateInstanceResponse> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let changed = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        if changed.is_empty() || changed.iter().any(|path| path != OPERATED) {
            scope.needs(Role::Admin, "UpdateInstance of more than `maintenance`")?;
        }
        let work = Arc::clone(&self.0).update(request.clone());
        Ok(Response::new(self.0.requests.once(&request.request_id.clone(), request, work).await?))
    }

    async fn delete_instance(
        &self,
        request: Request<v1::DeleteInstanceRequest>,
    ) -> Answer<v1::DeleteInstanceResponse> {
        let request = request.into_inner();
        let work = Arc::clone(&self.0).delete(request.clone());
        Ok(Response::new(self.0.requests.once(&request.request_id.clone(), request, work).await?))
    }

    async fn start_instance(
        &self,
        request: Request<v1::StartInstanceRequest>,
    ) -> Answer<v1::StartInstanceResponse> {
        let scope = Scope::of(&request)?;
        scope.may(&request.get_ref().name)?;
        let deadline = deadline(&request);
        let request = request.into_inner();
        let work = Arc::clone(&self.0).start(request.clone(), scope.asker());
        let answer = self.0.requests.once(&request.request_id, request.clone(), work).await?;
        let awaited = (request.name.as_str(), Awaited::Up);
        let outcome = self.outcome(request.wait, awaited, answer.revision, deadline).await?;
        Ok(Response::new(v1::StartInstanceResponse { instance: outcome.or(answer.instance), ..answer }))
    }

    async fn stop_instance(
        &self,
        request: Request<v1::StopInstanceRequest>,
    ) -> Answer<v1::StopInstanceResponse> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let work = Arc::clone(&self.0).stop(request.clone());
        let answer = self.0.requests.once(&request.request_id, request.clone(), work).await?;
        let awaited = (request.name.as_str(), Awaited::Down);
        let outcome = self.outcome(request.wait, awaited, answer.revision, deadline).await?;
        Ok(Response::new(v1::StopInstanceResponse { instance: outcome.or(answer.instance), ..answer }))
    }

    async fn restart_instance(
        &self,
        request: Request<v1::RestartInstanceRequest>,
    ) -> Answer<v1::RestartInstanceResponse> {
        let scope = Scope::of(&request)?;
        scope.may(&request.get_ref().name)?;
        let deadline = deadline(&request);
        let request = request.into_inner();
        let work = Arc::clone(&self.0).restart(request.clone(), scope.asker());
        let answer = self.0.requests.once(&request.request_id, request.clone(), work).await?;
        let awaited = (request.name.as_str(), Awaited::Up);
        let outcome = self.outcome(request.wait, awaited, answer.revision, deadline).await?;
        Ok(Response::new(v1::RestartInstanceResponse { instance: outcome.or(answer.instance), ..answer }))
    }

    async fn fail_over(&self, request: Request<v1::FailOverRequest>) -> Answer<v1::FailOverResponse> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let work = Arc::clone(&self.0).fail_over(request.clone());
        let answer = self.0.requests.once(&request.request_id, request.clone(), work).await?;
        let awaited = (request.primary.as_str(), Awaited::FailedOver);
        let outcome = self.outcome(request.wait, awaited, answer.revision, deadline).await?;
        Ok(Response::new(v1::FailOverResponse { instance: outcome.or(answer.instance), ..answer }))
    }

    async fn fail_back(&self, request: Request<v1::FailBackRequest>) -> Answer<v1::FailBackResponse> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let work = Arc::clone(&self.0).fail_back(request.clone());
        let answer = self.0.requests.once(&request.request_id, request.clone(), work).await?;
        let awaited = (request.primary.as_str(), Awaited::InPlace);
        let outcome = self.outcome(request.wait, awaited, answer.revision, deadline).await?;
        Ok(Response::new(v1::FailBackResponse { instance: outcome.or(answer.instance), ..answer }))
    }

    async fn watch_instances(
        &self,
        request: Request<v1::WatchInstancesRequest>,
    ) -> Answer<Self::WatchInstancesStream> {
        let scope = Scope::of(&request)?;
        let when = (Pace::of(&request), &Turn::of(&request));
        Ok(Response::new(watch::start(Arc::clone(&self.0), request.get_ref(), &scope, when)?))
    }

    async fn get_instance_environment(
        &self,
        request: Request<v1::GetInstanceEnvironmentRequest>,
    ) -> Answer<v1::GetInstanceEnvironmentResponse> {
        let name = Name::new(&request.get_ref().name).map_err(Refusal::from)?;
        let api = Arc::clone(&self.0);
        let found = task::spawn_blocking(move || {
            let view = api.handle.view();
            let instance = known(&view, &name)?;
            // Unset, it would be the supervisor's own.
            let user = registry::spec(instance).user.as_ref().map(user::resolve).transpose();
            let user = user.map_err(|error| no_user(&error))?.flatten();
            Ok::<_, Refusal>((api.facts.surroundings(&view, instance), user))
        });
        let (surroundings, user) = found.await.map_err(|_| Refusal::ShuttingDown)??;
        Ok(Response::new(v1::GetInstanceEnvironmentResponse {
            variables: surroundings.variables.into_iter().collect(),
            withheld: surroundings.withheld,
            working_directory: surroundings.working_directory.to_string_lossy().into_owned(),
            user: user.map(host_user),
        }))
    }

    async fn enter_instance(
        &self,
        request: Request<v1::EnterInstanceRequest>,
    ) -> Answer<v1::EnterInstanceResponse> {
        let name = Name::new(&request.get_ref().name).map_err(Refusal::from)?;
        let (api, turn) = (Arc::clone(&self.0), Admission::of(&request)?.turn(&name).await?);
        let found = task::spawn_blocking(move || {
            let _turn = turn;
            let view = api.handle.view();
            let instance = known(&view, &name)?;
            api.facts.entry(&view, instance, &api.hold).map_err(|error| no_user(&error))
        });
        let Entry { surroundings, held } = found.await.map_err(|_| Refusal::ShuttingDown)??;
        Ok(Response::new(v1::EnterInstanceResponse {
            variables: surroundings.variables.into_iter().collect(),
            withheld: surroundings.withheld,
            working_directory: surroundings.working_directory.to_string_lossy().into_owned(),
            user: Some(host_user(held.user)),
            walls: held.walls.encode_to_vec(),
            mark: held.mark,
        }))
    }
}

fn no_user(error: &UserError) -> Refusal {
    Refusal::field("spec.user", error.to_string(), error.mend())
}

fn host_user(User { uid, gid, groups }: User) -> v1::HostUser {
    v1::HostUser { uid, gid, groups }
}
