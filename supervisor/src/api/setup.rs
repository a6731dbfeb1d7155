//! `SetupService`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use supervisor_core::{
    denied::Denied,
    event::{Command, Dangling},
    ids::{Incarnation, Name},
    ports::Block,
    view::View,
};
use supervisor_proto::v1::{
    self, ImportProfileRequest, ImportProfileResponse, ImportableProfile, ListProfilesRequest,
    ListProfilesResponse, ReturnProfileRequest, ReturnProfileResponse, SetUpInstanceRequest,
    SetUpInstanceResponse, setup_service_server::SetupService,
};
use tokio::{sync::Mutex, task};
use tonic::{Request, Response, Status};

use super::{
    context::{Api, FindListeners},
    convert_spec,
    gate::Admission,
    status::{Fault, Refusal},
};
use crate::{
    doctor::Listening,
    import::{self, Candidate, ImportError, Importer},
    registry,
    setup::{self, SetupError, Subject},
    spec::InstanceSpec,
};

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Setups {
    api: Arc<Api>,
    importer: Importer,
    /// Set-ups, one at a time.
    turns: Arc<Mutex<()>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Setups {
    /// Goes on with imports that an earlier supervisor has left, too.
    pub(super) fn new(api: Arc<Api>) -> Self {
        let importer =
            Importer::new(api.handle.clone(), Arc::clone(api.host()), listeners(api.listeners.clone()));
        tokio::spawn(importer.clone().resume());
        Self { api, importer, turns: Arc::default() }
    }

    async fn set_up(
        self,
        request: SetUpInstanceRequest,
        admission: Admission,
    ) -> Result<SetUpInstanceResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let asked = convert_spec::from_proto(&request.spec.unwrap_or_default())
            .and_then(|spec| convert_spec::restored(spec, None));
        let asked = asked.map_err(|violations| {
            Refusal::InvalidFields(violations.into_iter().map(Fault::from).collect())
        })?;
        // One that is created by name alone may rescue one that is still to come.
        let (spec, dangling) = match asked == InstanceSpec::default() {
            true => (InstanceSpec::default_for(&name), Dangling::Accepted),
            false => (asked, Dangling::Refused),
        };
        let choice = Some(request.auth_choice).filter(|choice| !choice.is_empty());
        let wish =
            setup::Wish { credentials: request.credentials.into_iter().collect(), auth_choice: choice };
        wish.check().map_err(|error| {
            Refusal::field(
                "credentials",
                error.to_string(),
                "give NAME=VALUE with a name and a value of a variable",
            )
        })?;
        let _turn = self.turns.lock().await;
        admission.again()?;
        let view = self.api.handle.view();
        let host = Arc::clone(self.api.host());
        let subject = Subject { host, name: name.clone(), spec, neighbours: registry::neighbours(&view) };
        let known = known(&view, &subject)?;
        if known == Known::Started {
            return self.unchanged(subject, wish, view.revision.0).await;
        }
        let planned = subject.plan(&wish).map_err(|error| refused(&name, &error))?;
        self.api.keep_apart(&view, &name, &subject.spec).await?;
        let definition = match known {
            Known::Not => Some(self.api.new_definition(name.clone(), &subject.spec).await?),
            Known::Fresh | Known::Started => None,
        };
        let definition =
            definition.map(|definition| supervisor_core::event::Definition { dangling, ..definition });
        if request.validate_only {
            let done = match definition {
                Some(definition) => self.api.validate(definition).await?.revision.0,
                None => view.revision.0,
            };
            return Ok(SetUpInstanceResponse { steps: planned, revision: done, ..Default::default() });
        }
        let mut steps = Vec::new();
        if let Some(definition) = definition {
            self.api.submit(Command::Create(definition)).await?;
            steps.push(format!("created the instance `{name}`"));
        }
        let block = self.block(&name)?;
        let done = subject.set_up(block, wish).await.map_err(|error| refused(&name, &error))?;
        steps.extend(done.steps);
        let revision = self.api.handle.view().revision.0;
        let instance = self.api.shown(&name);
        Ok(SetUpInstanceResponse { instance, steps, unchanged: false, output: done.output, revision })
    }

    /// The answer about an instance that has been started before, if nothing is left to do.
    async fn unchanged(
        &self,
        subject: Subject,
        wish: setup::Wish,
        revision: u64,
    ) -> Result<SetUpInstanceResponse, Refusal> {
        let name = subject.name.clone();
        let done = task::spawn_blocking(move || subject.is_set_up(&wish)).await;
        match done.map_err(|_| Refusal::ShuttingDown)? {
            true => {
                let instance = self.api.shown(&name);
                Ok(SetUpInstanceResponse { instance, unchanged: true, revision, ..Default::default() })
            }
            false => Err(Denied::InstanceExists(name).into()),
        }
    }

    fn block(&self, name: &Name) -> Result<Block, Refusal> {
        let view = self.api.handle.view();
        Ok(super::context::known(&view, name)?.record().block)
    }

    async fn import(
        self,
        request: ImportProfileRequest,
        admission: Admission,
    ) -> Result<ImportProfileResponse, Refusal> {
        let program = Some(request.program).filter(|program| !program.is_empty());
        let named = |path: String| Some(path).filter(|path| !path.is_empty()).map(PathBuf::from);
        let (config, workspace) = (named(request.config), named(request.workspace));
        let wish = import::Wish { stop_running: request.stop_running, program, config, workspace };
        let turn = self.importer.turn().await;
        admission.again()?;
        let report =
            self.importer.import(turn, &request.name, &wish).await.map_err(|error| unable(&error))?;
        let name = Name::new(&request.name)?;
        let revision = self.api.handle.view().revision.0;
        let (steps, notes) = (report.steps, report.notes);
        Ok(ImportProfileResponse { instance: self.api.shown(&name), steps, notes, revision })
    }

    async fn give_back(
        self,
        request: ReturnProfileRequest,
        admission: Admission,
    ) -> Result<ReturnProfileResponse, Refusal> {
        let turn = self.importer.turn().await;
        admission.again()?;
        let report = self.importer.give_back(turn, &request.name).await.map_err(|error| unable(&error))?;
        Ok(ReturnProfileResponse { steps: report.steps, notes: report.notes })
    }
}

/// What is known of an instance that is to be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Not,
    /// It was never started: a set-up may have been broken off.
    Fresh,
    Started,
}

fn known(view: &View, subject: &Subject) -> Result<Known, Refusal> {
    let Some(instance) = view.instances.get(&subject.name) else { return Ok(Known::Not) };
    let record = instance.record();
    match (registry::spec(instance) == subject.spec, record.launched) {
        (true, Incarnation(0)) => Ok(Known::Fresh),
        (true, _) => Ok(Known::Started),
        (false, _) => Err(Denied::InstanceExists(subject.name.clone()).into()),
    }
}

fn listeners(find: FindListeners) -> Arc<import::ListenersOf> {
    Arc::new(move |ports: &[u16]| {
        let of = |listener: super::Listener| {
            let super::Listener { port, pid, command } = listener;
            Listening { port, pid, command }
        };
        (find.0)(ports).into_iter().map(of).collect()
    })
}

/// The refusal of a set-up.
fn refused(name: &Name, error: &SetupError) -> Refusal {
    let next = match error {
        SetupError::Interrupted => return Refusal::ShuttingDown,
        SetupError::Write { .. } | SetupError::Begin(_) => return Refusal::storage(error),
        // These say what to mend themselves.
        SetupError::Refused { .. } | SetupError::Credential { .. } => {
            format!("then `openclawctl setup {name}` again")
        }
        SetupError::Onboarding { .. } | SetupError::Endless => {
            format!("mend that, and `openclawctl setup {name}` goes on")
        }
    };
    Refusal::OutcomeFailed { instance: name.to_string(), sentence: error.to_string(), next }
}

/// The refusal of an import.
fn unable(error: &ImportError) -> Refusal {
    let (name, next) = match error {
        ImportError::Unknown(_) => {
            return Refusal::field(
                "name",
                error.to_string(),
                "`openclawctl import` lists those that are there",
            );
        }
        ImportError::NotImported(_) => {
            return Refusal::field(
                "name",
                error.to_string(),
                "`openclawctl import` tells which are imported",
            );
        }
        ImportError::Interrupted => return Refusal::ShuttingDown,
        ImportError::Journal { .. } => return Refusal::storage(error),
        ImportError::Obstructed { name, .. } => (name, "`openclawctl import` lists what is there".to_owned()),
        ImportError::PutBack { name, .. } => (name, format!("`openclawctl logs {name}` may say more")),
        ImportError::Stuck { name, .. } => (name, format!("`openclawctl import --undo {name}` tries again")),
    };
    Refusal::OutcomeFailed { instance: name.clone(), sentence: error.to_string(), next }
}

fn shown(candidate: Candidate) -> ImportableProfile {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let unit = candidate.unit.as_ref();
    ImportableProfile {
        name: candidate.name,
        state_dir: text(&candidate.state),
        config: text(&candidate.config),
        workspace: text(&candidate.workspace),
        port: candidate.port.unwrap_or(0).into(),
        unit: unit.map(|unit| unit.name.clone()).unwrap_or_default(),
        system_unit: unit.is_some_and(|unit| unit.system),
        unit_enabled: unit.is_some_and(|unit| unit.enabled),
        unit_active: unit.is_some_and(|unit| unit.active),
        pid: candidate.pid.unwrap_or(0),
        sessions: u32::try_from(candidate.sessions).unwrap_or(u32::MAX),
        instance: candidate.instance.map(|name| name.to_string()).unwrap_or_default(),
        imported: candidate.imported,
        steps: candidate.steps,
        obstacles: candidate.obstacles,
        notes: candidate.notes,
    }
}

/// A request as it is remembered: without what is secret.
fn remembered(request: &SetUpInstanceRequest) -> SetUpInstanceRequest {
    let credentials = request.credentials.keys().map(|name| (name.clone(), String::new())).collect();
    SetUpInstanceRequest { credentials, ..request.clone() }
}

#[tonic::async_trait]
impl SetupService for Setups {
    async fn set_up_instance(&self, request: Request<SetUpInstanceRequest>) -> Answer<SetUpInstanceResponse> {
        let (admission, request) = (Admission::of(&request)?, request.into_inner());
        let (id, remembered) = (request.request_id.clone(), remembered(&request));
        let validate_only = request.validate_only;
        let work = self.clone().set_up(request, admission);
        Ok(Response::new(match validate_only {
            true => work.await?,
            false => self.api.requests.once(&id, remembered, work).await?,
        }))
    }

    async fn list_profiles(&self, _: Request<ListProfilesRequest>) -> Answer<ListProfilesResponse> {
        let profiles = self.importer.list().await.into_iter().map(shown).collect();
        Ok(Response::new(v1::ListProfilesResponse { profiles }))
    }

    async fn import_profile(&self, request: Request<ImportProfileRequest>) -> Answer<ImportProfileResponse> {
        let (admission, request) = (Admission::of(&request)?, request.into_inner());
        let work = self.clone().import(request.clone(), admission);
        Ok(Response::new(self.api.requests.once(&request.request_id.clone(), request, work).await?))
    }

    async fn return_profile(&self, request: Request<ReturnProfileRequest>) -> Answer<ReturnProfileResponse> {
        let (admission, request) = (Admission::of(&request)?, request.into_inner());
        let work = self.clone().give_back(request.clone(), admission);
        Ok(Response::new(self.api.requests.once(&request.request_id.clone(), request, work).await?))
    }
}
