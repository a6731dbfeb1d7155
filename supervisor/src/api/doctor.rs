//! `DoctorService`.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use supervisor_core::{event::ExitStatus, ids::Name, instance::Instance, view::View};
use supervisor_proto::v1::{
    self, ExamineRequest, ExamineResponse, doctor_service_server::DoctorService, finding,
};
use tonic::{Request, Response, Status};

use super::{
    context::{Api, FindListeners, known},
    gate::Admission,
    status::Refusal,
};
use crate::{
    doctor::{Doctor, Finding, Listening, Mend, Mended, Mode, Outcome, Patient, Scene, Severity},
    registry,
};

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Doctors {
    api: Arc<Api>,
    doctor: Doctor,
}

impl Doctors {
    pub(super) fn new(api: Arc<Api>) -> Self {
        Self { api, doctor: Doctor::default() }
    }

    async fn examine(
        self,
        request: ExamineRequest,
        admission: Admission,
    ) -> Result<ExamineResponse, Refusal> {
        let turn = self.doctor.turn().await;
        admission.again()?;
        let scene = self.scene(&request.names)?;
        let mode = if request.fix { Mode::Fix } else { Mode::Look };
        Ok(shown(self.doctor.examine(turn, scene, mode).await))
    }

    /// The fleet as it is now.
    fn scene(&self, names: &[String]) -> Result<Scene, Refusal> {
        let view = self.api.handle.view();
        Ok(Scene {
            wanted: wanted(&view, names)?,
            patients: view.instances.values().map(|instance| self.patient(instance)).collect(),
            host: Arc::clone(self.api.host()),
            pool: view.pool,
            listeners: Box::new(listeners(self.api.listeners.clone())),
            root: PathBuf::from("/"),
            configs: Default::default(),
        })
    }

    fn patient(&self, instance: &Instance) -> Patient {
        let record = instance.record();
        Patient {
            name: instance.name().clone(),
            spec: Arc::new(registry::spec(instance)),
            block: record.block,
            previous_base: record.previous_base,
            directories: self.api.facts.directories_of(instance),
            walls: match instance.process() {
                Some(_) => self.api.walls.of(instance.name(), instance.incarnation()),
                None => Arc::default(),
            },
            was_out_of_memory: instance
                .last_exit()
                .is_some_and(|exit| exit.status == ExitStatus::OutOfMemory),
            worker_pid: instance.process().map(|process| process.worker_pid),
            since: instance.since(),
        }
    }
}

fn wanted(view: &View, names: &[String]) -> Result<Option<BTreeSet<Name>>, Refusal> {
    if names.is_empty() {
        return Ok(None);
    }
    let known = |name: &String| Ok(known(view, &Name::new(name)?)?.name().clone());
    names.iter().map(known).collect::<Result<_, Refusal>>().map(Some)
}

fn listeners(find: FindListeners) -> impl Fn(&[u16]) -> Vec<Listening> + Send + Sync {
    move |ports| {
        let of = |listener: super::Listener| {
            let super::Listener { port, pid, command } = listener;
            Listening { port, pid, command }
        };
        (find.0)(ports).into_iter().map(of).collect()
    }
}

fn shown(outcome: Outcome) -> ExamineResponse {
    let Outcome { findings, mended, checks_done } = outcome;
    ExamineResponse {
        findings: findings.into_iter().map(finding).collect(),
        mended: mended.into_iter().map(mended_to_proto).collect(),
        checks_done: number(checks_done),
    }
}

fn finding(finding: Finding) -> v1::Finding {
    let severity = match finding.severity {
        Severity::Note => finding::Severity::Note,
        Severity::Warning => finding::Severity::Warning,
        Severity::Error => finding::Severity::Error,
    };
    let (mend, command) = match finding.mend {
        Mend::Do(sentence) => (sentence, String::new()),
        Mend::Type(command) => (String::new(), command),
    };
    v1::Finding {
        id: finding.id.into(),
        severity: severity.into(),
        instances: names(&finding.instances),
        what: finding.what,
        file: finding.file.map(|file| file.to_string_lossy().into_owned()).unwrap_or_default(),
        line: finding.place.map_or(0, |place| number(place.line)),
        column: finding.place.map_or(0, |place| number(place.column)),
        why: finding.why.into(),
        mend,
        command,
        safe_fix: !finding.fixes.is_empty(),
    }
}

fn mended_to_proto(mended: Mended) -> v1::Mended {
    v1::Mended { id: mended.id.into(), instances: names(&mended.instances), what: mended.what }
}

fn names(names: &[Name]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[tonic::async_trait]
impl DoctorService for Doctors {
    async fn examine(&self, request: Request<ExamineRequest>) -> Result<Response<ExamineResponse>, Status> {
        let (admission, request) = (Admission::of(&request)?, request.into_inner());
        let work = Doctors::examine(self.clone(), request.clone(), admission);
        // A look changes nothing, so a repeat looks again.
        let answer = match request.fix {
            true => self.api.requests.once(&request.request_id.clone(), request, work).await?,
            false => work.await?,
        };
        Ok(Response::new(answer))
    }
}
