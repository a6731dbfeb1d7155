//! `ConfigService`.

mod shelf;

use std::{path::Path, sync::Arc};

use supervisor_core::{
    event::{Asker, Command},
    ids::{ConfigId, Name},
};
use supervisor_proto::v1::{
    self, CreateSnapshotRequest, CreateSnapshotResponse, DiffSnapshotRequest, DiffSnapshotResponse,
    ListSnapshotsRequest, ListSnapshotsResponse, MarkGoodRequest, MarkGoodResponse, RollBackRequest,
    RollBackResponse, config_service_server::ConfigService,
};
use tokio::{task, time::Instant};
use tonic::{Request, Response, Status};

pub(super) use self::shelf::Shelf;
use super::{
    context::{Api, deadline},
    gate::Admission,
    inside::Scope,
    page::{self, Sizes},
    status::Refusal,
    wait::Awaited,
};
use crate::openclaw::snapshots;

/// Pages of `ListSnapshots`.
const PAGES: Sizes = Sizes { usual: 1_000, most: 1_000 };

/// The longest note, in bytes: a few sentences.
const MAX_NOTE: usize = 1_000;

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Configs(pub(super) Arc<Api>);

type Answer<T> = Result<Response<T>, Status>;

/// Does file work on a thread for it. The one error of that is that the process is ending.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    task::spawn_blocking(work).await.map_err(|_| Refusal::ShuttingDown)?
}

/// The same of what more than reads, in its caller's turn: if it still may do this to the instance then.
async fn in_turn<T: Send + 'static>(
    (admission, name): (&Admission, &str),
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let turn = admission.turn(name).await?;
    let done = aside(move || {
        let done = work();
        drop(turn);
        done
    });
    done.await
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Configs {
    async fn list(self, request: ListSnapshotsRequest) -> Result<ListSnapshotsResponse, Refusal> {
        let size = PAGES.of(request.page_size)?;
        let conditions = page::conditions("snapshots", &[&request.name]);
        let after = page::begin(conditions, &request.page_token)?;
        let shelf = Shelf::of(&self.0, &request.name)?;
        let all = aside(move || shelf.list()).await?;
        let begin = match after {
            None => 0,
            // One that has gone meanwhile was an old one, and so are all after it.
            Some(last) => all.iter().position(|snapshot| snapshot.id == last).map_or(all.len(), |at| at + 1),
        };
        let more = all.len() - begin > size;
        let snapshots: Vec<v1::Snapshot> = all.into_iter().skip(begin).take(size).collect();
        let last = snapshots.last().filter(|_| more);
        let next_page_token = last.map(|last| page::token(conditions, &last.id)).unwrap_or_default();
        let shown = self.0.shown(&Name::new(&request.name)?);
        let status = shown.and_then(|shown| shown.status).and_then(|status| status.config);
        Ok(ListSnapshotsResponse { snapshots, next_page_token, status })
    }

    async fn create(
        self,
        request: CreateSnapshotRequest,
        admission: Admission,
    ) -> Result<CreateSnapshotResponse, Refusal> {
        if request.note.len() > MAX_NOTE {
            let message = format!("it has {} bytes", request.note.len());
            return Err(Refusal::field("note", message, format!("keep it within {MAX_NOTE}")));
        }
        let shelf = Shelf::of(&self.0, &request.name)?;
        let CreateSnapshotRequest { name, note, .. } = request;
        let snapshot = in_turn((&admission, &name), move || shelf.create(&note)).await?;
        Ok(CreateSnapshotResponse { snapshot: Some(snapshot) })
    }

    async fn roll_back(
        self,
        request: RollBackRequest,
        (by, admission): (Asker, Admission),
    ) -> Result<RollBackResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let shelf = Shelf::of(&self.0, &request.name)?;
        let kept_in = snapshots::kept_in(&shelf.directories);
        let way_back = move || {
            let (to, from) = shelf.way_back(&request.to)?;
            Ok((to, from, shelf.rejection(to)))
        };
        let (to, from, rejection) = in_turn((&admission, &name), way_back).await?;
        let mut revision = self.0.handle.view().revision.0;
        if !request.validate_only {
            revision = self.0.submit_by(by, Command::RollBack { name: name.clone(), to }).await?.revision.0;
        }
        Ok(RollBackResponse {
            instance: self.0.shown(&name),
            revision,
            to: to.into(),
            from: from.map(String::from).unwrap_or_default(),
            kept_in: from.filter(|from| *from != to).map(|_| text(&kept_in)).unwrap_or_default(),
            rejection,
        })
    }

    /// The outcome of a rollback, as it is then.
    async fn rolled_back(
        self,
        name: &str,
        answer: RollBackResponse,
        deadline: Option<Instant>,
    ) -> Result<RollBackResponse, Status> {
        let name = Name::new(name).map_err(Refusal::from)?;
        let (from, to) = (answer.from.parse::<ConfigId>().ok(), answer.to.parse::<ConfigId>().ok());
        let awaited = to.map_or(Awaited::Up, |to| Awaited::RolledBack { from, to });
        self.0.outcome(&[(name.clone(), awaited)], answer.revision, deadline).await?;
        let shelf = Shelf::of(&self.0, &name)?;
        let replaced = from.filter(|from| Some(*from) != to);
        let kept_in = aside(move || Ok(replaced.and_then(|replaced| shelf.kept_beside(replaced)))).await?;
        let kept_in = kept_in.map_or(answer.kept_in, |path| text(&path));
        Ok(RollBackResponse { instance: self.0.shown(&name), kept_in, ..answer })
    }

    async fn mark_good(
        self,
        request: MarkGoodRequest,
        admission: Admission,
    ) -> Result<MarkGoodResponse, Refusal> {
        let name = Name::new(&request.name)?;
        let shelf = Shelf::of(&self.0, &request.name)?;
        let content = in_turn((&admission, &name), move || shelf.vouched(&request.snapshot)).await?;
        let done = self.0.submit(Command::MarkGood { name: name.clone(), content }).await?;
        let (instance, revision) = (self.0.shown(&name), done.revision.0);
        Ok(MarkGoodResponse { instance, revision, snapshot: content.into() })
    }
}

#[tonic::async_trait]
impl ConfigService for Configs {
    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        Scope::of(&request)?.may(&request.get_ref().name)?;
        Ok(Response::new(self.clone().list(request.into_inner()).await?))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<CreateSnapshotResponse> {
        Scope::of(&request)?.may(&request.get_ref().name)?;
        let admission = Admission::of(&request)?;
        let request = request.into_inner();
        let work = self.clone().create(request.clone(), admission);
        Ok(Response::new(self.0.requests.once(&request.request_id.clone(), request, work).await?))
    }

    async fn diff_snapshot(&self, request: Request<DiffSnapshotRequest>) -> Answer<DiffSnapshotResponse> {
        Scope::of(&request)?.may(&request.get_ref().name)?;
        let DiffSnapshotRequest { name, from, to } = request.into_inner();
        let shelf = Shelf::of(&self.0, &name)?;
        Ok(Response::new(aside(move || shelf.differ(&from, &to)).await?))
    }

    async fn roll_back(&self, request: Request<RollBackRequest>) -> Answer<RollBackResponse> {
        let scope = Scope::of(&request)?;
        scope.may(&request.get_ref().name)?;
        let (deadline, admission) = (deadline(&request), Admission::of(&request)?);
        let request = request.into_inner();
        let work = Configs::roll_back(self.clone(), request.clone(), (scope.asker(), admission));
        if request.validate_only {
            return Ok(Response::new(work.await?));
        }
        let answer = self.0.requests.once(&request.request_id, request.clone(), work).await?;
        let answer = match request.wait {
            true => self.clone().rolled_back(&request.name, answer, deadline).await?,
            false => answer,
        };
        Ok(Response::new(answer))
    }

    async fn mark_good(&self, request: Request<MarkGoodRequest>) -> Answer<MarkGoodResponse> {
        Scope::of(&request)?.may(&request.get_ref().name)?;
        let admission = Admission::of(&request)?;
        let request = request.into_inner();
        let work = Configs::mark_good(self.clone(), request.clone(), admission);
        Ok(Response::new(self.0.requests.once(&request.request_id.clone(), request, work).await?))
    }
}
