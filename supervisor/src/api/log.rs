//! `LogService`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use supervisor_core::ids::Name;
use supervisor_proto::v1::{ReadLogsRequest, ReadLogsResponse, log_service_server::LogService};
use tokio::{task, time::sleep};
use tonic::{Request, Response, Status};

use super::{
    context::{Api, known},
    convert,
    inside::Scope,
    status::Refusal,
    stream::{self, Answers, Outlet, Patience},
    turn::Turn,
};
use crate::logs::{self, Cursor, Follow, LogError, Notice, Reader, Step};

/// A follower that cannot be told of growth looks again after this long; one that can be told, too, in case the
/// directory was replaced.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Logs(pub(super) Arc<Api>);

/// One reader of one log.
struct Reading {
    api: Arc<Api>,
    name: Name,
    directory: PathBuf,
    outlet: Outlet<ReadLogsResponse>,
    turn: Turn,
}

/// What a log request asks for.
fn request(name: &Name, request: &ReadLogsRequest) -> Result<logs::Request, Refusal> {
    let after = match request.after_cursor.as_str() {
        "" => None,
        text => Some(Cursor::parse(text, name).ok_or_else(|| Refusal::InvalidCursor(name.to_string()))?),
    };
    Ok(logs::Request {
        tail: request.tail,
        since_ms: request.since.as_ref().map(convert::unix_ms),
        after,
        follow: if request.follow { Follow::Yes } else { Follow::No },
    })
}

/// Does file work on a thread for it, in its caller's turn. The one error of that is that the process is ending.
async fn aside<T: Send + 'static>(
    (name, turn): (&Name, &Turn),
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, Refusal> {
    let turn = turn.take().await;
    let work = move || {
        let done = work();
        drop(turn);
        done
    };
    let outcome = task::spawn_blocking(work).await.map_err(|_| Refusal::ShuttingDown)?;
    outcome.map_err(|error| Refusal::log(&error, name))
}

impl Reading {
    async fn run(self, reader: Reader) {
        if let Err(refusal) = self.read(reader).await {
            self.outlet.refuse(refusal);
        }
    }

    /// Hands out lines until there are no more, or until the reader has gone.
    async fn read(&self, mut reader: Reader) -> Result<(), Refusal> {
        let mut notice = self.api.notices.watch(&self.directory);
        loop {
            // Before looking, so that nothing that comes after the look is missed.
            if let Some(notice) = &mut notice {
                notice.mark();
            }
            let (step, used) =
                aside((&self.name, &self.turn), move || reader.read().map(|step| (step, reader))).await?;
            reader = used;
            match step {
                Step::End => return Ok(()),
                Step::Lines(lines) => {
                    let lines = lines.into_iter().map(convert::line).collect();
                    if self.outlet.send(ReadLogsResponse { lines }).await.is_err() {
                        return Ok(());
                    }
                }
                Step::Dry => {
                    if self.wait(&mut notice).await? == Next::Stop {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits until there may be more.
    async fn wait(&self, notice: &mut Option<Notice>) -> Result<Next, Refusal> {
        tokio::select! {
            () = grown(notice) => {}
            () = sleep(LOOK_AGAIN) => {}
            () = self.outlet.gone() => return Ok(Next::Stop),
            () = self.api.shutdown.cancelled() => return Err(Refusal::ShuttingDown),
        }
        if notice.is_none() {
            *notice = self.api.notices.watch(&self.directory);
        }
        // What a deleted instance left has been read by now.
        let exists = self.api.handle.view().instances.contains_key(&self.name);
        Ok(if exists { Next::GoOn } else { Next::Stop })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

/// When the log has grown, if that can be noticed.
async fn grown(notice: &mut Option<Notice>) {
    let changed = match notice {
        Some(notice) => notice.changed().await,
        None => std::future::pending().await,
    };
    if changed.is_err() {
        *notice = None;
    }
}

#[tonic::async_trait]
impl LogService for Logs {
    type ReadLogsStream = Answers<ReadLogsResponse>;

    async fn read_logs(
        &self,
        request: Request<ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        Scope::of(&request)?.may(&request.get_ref().name)?;
        let turn = Turn::of(&request);
        let asked = request.into_inner();
        let name = Name::new(&asked.name).map_err(Refusal::from)?;
        let wanted = self::request(&name, &asked)?;
        let directory = {
            let view = self.0.handle.view();
            self.0.facts.directories_of(known(&view, &name)?).logs
        };
        let place = (name.clone(), directory.clone());
        let reader = aside((&name, &turn), move || Reader::open(&place.0, place.1, &wanted)).await?;
        // A person with a pager takes all the time there is; the lines wait on the disk.
        let (outlet, answers) = stream::channel(Patience::Endless);
        tokio::spawn(Reading { api: Arc::clone(&self.0), name, directory, outlet, turn }.run(reader));
        Ok(Response::new(answers))
    }
}
