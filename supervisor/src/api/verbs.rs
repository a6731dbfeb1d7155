//! What the calls of `InstanceService` come to: each one command to the driver, answered once it is durable.

use std::sync::Arc;

use supervisor_core::{
    action::Done,
    denied::Denied,
    event::{ApplyMode, Asker, Change, Command, Dangling, Definition, Files, Manner},
    ids::Name,
};
use supervisor_proto::v1;

use super::{
    context::{Api, known},
    convert::etag,
    convert_spec,
    status::{Fault, Refusal},
};
use crate::{
    registry,
    spec::{InstanceSpec, Violation},
};

/// An update that names no etag is tried anew when another one came first; so often.
const ATTEMPTS: usize = 8;

fn manner(force: bool) -> Manner {
    if force { Manner::Force } else { Manner::Graceful }
}

fn faults(violations: Vec<Violation>) -> Refusal {
    Refusal::InvalidFields(violations.into_iter().map(Fault::from).collect())
}

/// The message of what an instance would be.
fn planned(name: &Name, spec: &InstanceSpec) -> v1::Instance {
    v1::Instance {
        name: name.to_string(),
        spec: Some(convert_spec::to_proto(spec)),
        ..v1::Instance::default()
    }
}

impl Api {
    /// Whether `definition` could be taken now.
    pub(super) async fn validate(&self, definition: Definition) -> Result<Done, Refusal> {
        let changes = vec![Change::Put(definition)];
        self.submit(Command::Apply { changes, pool: None, mode: ApplyMode::Validate }).await
    }

    pub(super) async fn create(
        self: Arc<Self>,
        request: v1::CreateInstanceRequest,
    ) -> Result<v1::CreateInstanceResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let spec = convert_spec::from_proto(&request.spec.unwrap_or_default())
            .and_then(|spec| convert_spec::restored(spec, None))
            .map_err(faults)?;
        let view = self.handle.view();
        if view.instances.contains_key(&name) {
            return Err(Denied::InstanceExists(name).into());
        }
        self.keep_apart(&view, &name, &spec).await?;
        let definition = self.new_definition(name.clone(), &spec).await?;
        if request.validate_only {
            let done = self.validate(definition).await?;
            let instance = Some(planned(&name, &spec));
            return Ok(v1::CreateInstanceResponse { instance, revision: done.revision.0 });
        }
        let done = self.submit(Command::Create(definition)).await?;
        Ok(v1::CreateInstanceResponse { instance: self.shown(&name), revision: done.revision.0 })
    }

    pub(super) async fn update(
        self: Arc<Self>,
        request: v1::UpdateInstanceRequest,
    ) -> Result<v1::UpdateInstanceResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let mut outcome = self.update_once(&name, &request).await;
        for _ in 1..ATTEMPTS {
            match &outcome {
                Err(Refusal::Denied(Denied::StaleGeneration(_))) if request.etag.is_empty() => {
                    outcome = self.update_once(&name, &request).await;
                }
                Ok(_) | Err(_) => break,
            }
        }
        outcome
    }

    /// Reads the spec, changes it, and writes it back if nobody else has meanwhile.
    async fn update_once(
        &self,
        name: &Name,
        request: &v1::UpdateInstanceRequest,
    ) -> Result<v1::UpdateInstanceResponse, Refusal> {
        let Some(update) = &request.spec else {
            return Err(Refusal::field(
                "spec",
                "it is missing",
                "send the spec, or the fields named in the mask",
            ));
        };
        let view = self.handle.view();
        let instance = known(&view, name)?;
        let record = instance.record();
        if !request.etag.is_empty() && request.etag != etag(record) {
            return Err(Denied::StaleGeneration(name.clone()).into());
        }
        let current = registry::spec(instance);
        let spec = convert_spec::masked(&current, update, request.update_mask.as_ref())
            .and_then(|spec| convert_spec::restored(spec, Some(&current)))
            .map_err(faults)?;
        if spec == current && record.deleting.is_none() {
            return Ok(v1::UpdateInstanceResponse { instance: self.shown(name), revision: view.revision.0 });
        }
        self.keep_apart(&view, name, &spec).await?;
        // An instance made from defaults may rescue one that is still to come; it may keep doing so.
        let dangling = if spec.rescues == current.rescues { Dangling::Accepted } else { Dangling::Refused };
        let definition = self.definition(name.clone(), &spec, dangling)?;
        if request.validate_only {
            let done = self.validate(definition).await?;
            let instance =
                self.shown(name).map(|shown| v1::Instance { spec: planned(name, &spec).spec, ..shown });
            return Ok(v1::UpdateInstanceResponse { instance, revision: done.revision.0 });
        }
        let done = self.submit(Command::Update { definition, generation: Some(record.generation) }).await?;
        Ok(v1::UpdateInstanceResponse { instance: self.shown(name), revision: done.revision.0 })
    }

    pub(super) async fn delete(
        self: Arc<Self>,
        request: v1::DeleteInstanceRequest,
    ) -> Result<v1::DeleteInstanceResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let view = self.handle.view();
        let record = known(&view, &name)?.record();
        if !request.etag.is_empty() && request.etag != etag(record) {
            return Err(Denied::StaleGeneration(name).into());
        }
        let generation = Some(record.generation).filter(|_| !request.etag.is_empty());
        let files = if request.purge { Files::Purge } else { Files::Keep };
        let done = self.submit(Command::Delete { name, generation, files }).await?;
        Ok(v1::DeleteInstanceResponse { revision: done.revision.0 })
    }

    pub(super) async fn start(
        self: Arc<Self>,
        request: v1::StartInstanceRequest,
        by: Asker,
    ) -> Result<v1::StartInstanceResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let otherwise = match request.allow_missing {
            true => {
                Some(self.definition(name.clone(), &InstanceSpec::default_for(&name), Dangling::Accepted)?)
            }
            false => None,
        };
        let done = self.submit_by(by, Command::Start { name: name.clone(), otherwise }).await?;
        let (instance, revision) = (self.shown(&name), done.revision.0);
        Ok(v1::StartInstanceResponse { instance, revision, created: done.created })
    }

    pub(super) async fn stop(
        self: Arc<Self>,
        request: v1::StopInstanceRequest,
    ) -> Result<v1::StopInstanceResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let done = self.submit(Command::Stop { name: name.clone(), manner: manner(request.force) }).await?;
        Ok(v1::StopInstanceResponse { instance: self.shown(&name), revision: done.revision.0 })
    }

    pub(super) async fn restart(
        self: Arc<Self>,
        request: v1::RestartInstanceRequest,
        by: Asker,
    ) -> Result<v1::RestartInstanceResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let done = self
            .submit_by(by, Command::Restart { name: name.clone(), manner: manner(request.force) })
            .await?;
        Ok(v1::RestartInstanceResponse { instance: self.shown(&name), revision: done.revision.0 })
    }

    pub(super) async fn fail_over(
        self: Arc<Self>,
        request: v1::FailOverRequest,
    ) -> Result<v1::FailOverResponse, Refusal> {
        let primary = Name::new(&request.primary)?;
        let rescue = Some(&request.rescue).filter(|rescue| !rescue.is_empty());
        let rescue = rescue.map(|rescue| Name::new(rescue)).transpose()?;
        let done = self.submit(Command::FailOver { primary: primary.clone(), rescue }).await?;
        Ok(v1::FailOverResponse { instance: self.shown(&primary), revision: done.revision.0 })
    }

    pub(super) async fn fail_back(
        self: Arc<Self>,
        request: v1::FailBackRequest,
    ) -> Result<v1::FailBackResponse, Refusal> {
        let primary = Name::new(&request.primary)?;
        let done = self.submit(Command::FailBack { primary: primary.clone() }).await?;
        Ok(v1::FailBackResponse { instance: self.shown(&primary), revision: done.revision.0 })
    }
}
