//! `FleetService`.

use std::{collections::BTreeSet, sync::Arc};

use supervisor_core::{
    event::{self, ApplyMode, Command, Dangling, Manner},
    ids::Name,
    ports::Pool,
    record::Wish,
    view::View,
};
use supervisor_proto::v1::{
    ApplyFleetRequest, ApplyFleetResponse, ExportFleetRequest, ExportFleetResponse, FleetChange,
    fleet_change::{Field, Kind},
    fleet_service_server::FleetService,
};
use tokio::task;
use tonic::{Request, Response, Status};

use super::{
    context::{Api, deadline},
    status::Refusal,
    wait::Awaited,
};
use crate::{
    fleet::{self, Change, Current, FieldChange, Fleet, Restarts, Surroundings, Unnamed},
    openclaw::environment::{restore, shown as shown_env},
    registry,
    spec::InstanceSpec,
    upgrade,
};

/// What a fleet file is called whose name the caller does not give.
const NAMELESS: &str = "fleet file";

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Fleets(pub(super) Arc<Api>);

/// What follows for one instance once the plan is done, if the caller wishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    /// It is new: it is started.
    Start,
    /// If it is up, it takes its new spec at once, even if it waits for its next start.
    Retry,
    /// If it is up, it takes its new spec at once, even if it runs.
    Restart,
}

fn field(field: FieldChange) -> Field {
    Field { path: field.path, old: field.old, new: field.new }
}

fn fields(changes: &[FieldChange]) -> Vec<Field> {
    changes.iter().cloned().map(field).collect()
}

/// A step of the plan in the contract's words.
fn shown(change: &Change) -> FleetChange {
    let step = |kind: Kind, name: &Name| FleetChange {
        kind: kind.into(),
        instance: name.to_string(),
        ..FleetChange::default()
    };
    match change {
        Change::Pool { fields: changed, .. } => {
            FleetChange { kind: Kind::Pool.into(), fields: fields(changed), ..FleetChange::default() }
        }
        Change::Create { name, fields: changed, .. } => {
            FleetChange { fields: fields(changed), ..step(Kind::Create, name) }
        }
        Change::Update { name, fields: changed, restarts, .. } => FleetChange {
            fields: fields(changed),
            needs_restart: *restarts == Restarts::Needed,
            ..step(Kind::Update, name)
        },
        Change::Delete { name } => step(Kind::Delete, name),
        Change::Unchanged { name } => step(Kind::Unchanged, name),
        Change::NotInFile { name } => step(Kind::NotInFile, name),
    }
}

/// The registry's instances, by name.
fn registered(view: &View) -> Vec<(Name, InstanceSpec)> {
    let instances = view.instances.values().filter(|instance| instance.record().deleting.is_none());
    instances.map(|instance| (instance.name().clone(), registry::spec(instance))).collect()
}

/// What a file calls withheld, as one that was exported does, stays as it is.
fn keep_withheld(fleet: &mut Fleet, current: &[(Name, InstanceSpec)]) -> Result<(), Refusal> {
    for (name, spec) in &mut fleet.instances {
        let now = current.iter().find(|(known, _)| known == name).map(|(_, spec)| &spec.env);
        restore(&mut spec.env, now).map_err(|variable| {
            let field = format!("instances.{name}.env.{variable}");
            let message = format!("it is withheld, and `{name}` has no value that could be kept");
            Refusal::field(&field, message, "write its value there")
        })?;
    }
    Ok(())
}

impl Api {
    /// What would make the registry agree with the file.
    async fn planned(&self, request: &ApplyFleetRequest, view: &View) -> Result<Vec<Change>, Refusal> {
        let current = registered(view);
        let (pool, unnamed) = (view.pool, if request.prune { Unnamed::Delete } else { Unnamed::Keep });
        let known: BTreeSet<Name> = match unnamed {
            Unnamed::Keep => current.iter().map(|(name, _)| name.clone()).collect(),
            Unnamed::Delete => BTreeSet::new(),
        };
        let data_dir = self.host().control.data_dir.clone();
        let (content, file_name) = (request.content.clone(), request.file_name.clone());
        // A large file takes a while, and it names directories.
        let plan = task::spawn_blocking(move || {
            let file_name = if file_name.is_empty() { NAMELESS } else { &file_name };
            let upgraded =
                upgrade::upgraded(&data_dir, &current).map_err(|error| Refusal::storage(&error))?;
            let surroundings = Surroundings { pool, known: &known, data_dir: &data_dir, upgraded: &upgraded };
            let mut fleet =
                fleet::parse(&content, file_name, &surroundings).map_err(Refusal::InvalidFleet)?;
            keep_withheld(&mut fleet, &current)?;
            Ok(fleet::plan(&Current { pool, instances: &current }, &fleet, unnamed))
        });
        plan.await.map_err(|_| Refusal::ShuttingDown)?
    }

    /// The same for core, and what is to follow.
    async fn steps(&self, plan: &[Change]) -> Result<Steps, Refusal> {
        let mut steps = Steps { changes: Vec::new(), pool: None, follow: Vec::new() };
        for change in plan {
            match change {
                Change::Pool { pool, .. } => steps.pool = Some(*pool),
                Change::Create { name, spec, .. } => {
                    let definition = self.new_definition(name.clone(), spec).await?;
                    steps.changes.push(event::Change::Put(definition));
                    steps.follow.push((name.clone(), Follows::Start));
                }
                Change::Update { name, spec, restarts, .. } => {
                    let definition = self.definition(name.clone(), spec, Dangling::Refused)?;
                    steps.changes.push(event::Change::Put(definition));
                    let follows = match restarts {
                        Restarts::Needed => Follows::Restart,
                        Restarts::NotNeeded => Follows::Retry,
                    };
                    steps.follow.push((name.clone(), follows));
                }
                Change::Delete { name } => steps.changes.push(event::Change::Remove(name.clone())),
                Change::Unchanged { .. } | Change::NotInFile { .. } => {}
            }
        }
        Ok(steps)
    }

    async fn apply(self: Arc<Self>, request: ApplyFleetRequest) -> Result<ApplyFleetResponse, Refusal> {
        let view = self.handle.view();
        let plan = self.planned(&request, &view).await?;
        let changes = plan.iter().map(shown).collect();
        let steps = self.steps(&plan).await?;
        let mode = if request.validate_only { ApplyMode::Validate } else { ApplyMode::Do };
        let mut revision = view.revision.0;
        if !steps.changes.is_empty() || steps.pool.is_some() {
            let command = Command::Apply { changes: steps.changes, pool: steps.pool, mode };
            revision = self.submit(command).await?.revision.0;
        }
        if request.start && !request.validate_only {
            for (name, follows) in steps.follow {
                revision = self.follow(name, follows).await?.max(revision);
            }
        }
        Ok(ApplyFleetResponse { changes, revision })
    }

    /// Starts what is new, and brings what has changed up to date. What is down by wish stays down.
    async fn follow(&self, name: Name, follows: Follows) -> Result<u64, Refusal> {
        let view = self.handle.view();
        let Some(instance) = view.instances.get(&name) else { return Ok(0) };
        let (runs, wish) = (instance.process().is_some(), instance.record().wish);
        let command = match (follows, wish) {
            (Follows::Start, Wish::Up | Wish::Down) => Command::Start { name, otherwise: None },
            (Follows::Restart, Wish::Up) if runs => Command::Restart { name, manner: Manner::Graceful },
            (Follows::Retry, Wish::Up) if runs => return Ok(0),
            (Follows::Restart | Follows::Retry, Wish::Up) => Command::Start { name, otherwise: None },
            (Follows::Restart | Follows::Retry, Wish::Down) => return Ok(0),
        };
        Ok(self.submit(command).await?.revision.0)
    }

    /// The instances of a plan that are to be up once it is done.
    fn awaited(&self, changes: &[FleetChange]) -> Vec<(Name, Awaited)> {
        let view = self.handle.view();
        let changed = changes.iter().filter(|change| matches!(change.kind(), Kind::Create | Kind::Update));
        let names = changed.filter_map(|change| Name::new(&change.instance).ok());
        let up = |name: &Name| view.instances.get(name).is_some_and(|one| one.record().wish == Wish::Up);
        names.filter(up).map(|name| (name, Awaited::Up)).collect()
    }

    fn export(&self) -> Result<String, Refusal> {
        let view = self.handle.view();
        let pool = Some(view.pool).filter(|pool| *pool != Pool::default());
        // What is withheld says, read back, that it is to stay as it is.
        let without_secrets = |(name, spec): (Name, InstanceSpec)| {
            let env = shown_env(&spec.env);
            (name, InstanceSpec { env, ..spec })
        };
        let instances = registered(&view).into_iter().map(without_secrets).collect();
        let fleet = Fleet { pool, instances };
        fleet::export(&fleet).map_err(|error| Refusal::storage(&error))
    }
}

/// A plan as core takes it.
struct Steps {
    changes: Vec<event::Change>,
    pool: Option<Pool>,
    /// What is done after that if the caller wishes.
    follow: Vec<(Name, Follows)>,
}

#[tonic::async_trait]
impl FleetService for Fleets {
    async fn apply_fleet(
        &self,
        request: Request<ApplyFleetRequest>,
    ) -> Result<Response<ApplyFleetResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let work = Arc::clone(&self.0).apply(request.clone());
        let waits = request.start && request.wait && !request.validate_only;
        let answer = self.0.requests.once(&request.request_id.clone(), request, work).await?;
        if waits {
            let wanted = self.0.awaited(&answer.changes);
            self.0.outcome(&wanted, answer.revision, deadline).await?;
        }
        Ok(Response::new(answer))
    }

    async fn export_fleet(
        &self,
        _: Request<ExportFleetRequest>,
    ) -> Result<Response<ExportFleetResponse>, Status> {
        Ok(Response::new(ExportFleetResponse { content: self.0.export()? }))
    }
}
