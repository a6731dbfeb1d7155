//! `EventService`.

use std::{sync::Arc, time::Duration};

use supervisor_core::ids::Name;
use supervisor_proto::v1::{
    ListEventsRequest, ListEventsResponse, WatchEventsRequest, WatchEventsResponse,
    event_service_server::EventService,
};
use tokio::time::sleep;
use tonic::{Request, Response, Status};

use super::{
    context::Api,
    convert,
    inside::Scope,
    page::{self, Sizes},
    status::Refusal,
    stream::{self, Answers, Gone, Outlet, Pace, WATCHER},
    turn::Turn,
};
use crate::events::{Query, Which, Whose};

/// Pages of `ListEvents`.
const PAGES: Sizes = Sizes { usual: 100, most: 1_000 };

/// Events in one message of a watch.
const BATCH: usize = 500;

/// With nothing new for this long, the reader is told that there is nothing new.
const BOOKMARK: Duration = Duration::from_secs(10);

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Events(pub(super) Arc<Api>);

/// Whose events are wanted; the empty name is everyone's, as far as the caller may see them. One that is gone may
/// still have events.
fn whose(name: &str, scope: &Scope) -> Result<Whose, Refusal> {
    if name.is_empty() {
        let names = scope.names().map(|names| names.iter().map(ToString::to_string).collect());
        return Ok(names.map_or(Whose::All, Whose::Some));
    }
    scope.may(name)?;
    Ok(Whose::One(Name::new(name)?.to_string()))
}

impl Events {
    async fn list(&self, request: &ListEventsRequest, scope: &Scope) -> Result<ListEventsResponse, Refusal> {
        let size = PAGES.of(request.page_size)?;
        let whose = whose(&request.instance, scope)?;
        let conditions =
            page::conditions("events", &[&request.instance, &request.after_revision.to_string()]);
        let after = page::begin(conditions, &request.page_token)?;
        let after = after.map(|after| after.parse().map_err(|_| Refusal::InvalidPageToken)).transpose()?;
        let (which, extra) = if request.newest { (Which::Newest, 0) } else { (Which::Oldest, 1) };
        // One more than the page has, to know whether there is another page.
        let limit = size.saturating_add(extra);
        let after = after.unwrap_or(request.after_revision);
        let page = self.0.journal.read(Query { after, whose, limit, which, ..Query::default() }).await?;
        let more = page.events.len() > size;
        let events: Vec<_> = page.events.into_iter().take(size).map(convert::event).collect();
        let last = events.last().filter(|_| more);
        let next_page_token =
            last.map(|last| page::token(conditions, &last.revision.to_string())).unwrap_or_default();
        Ok(ListEventsResponse { events, next_page_token })
    }
}

/// One watcher.
struct Watcher {
    api: Arc<Api>,
    whose: Whose,
    outlet: Outlet<WatchEventsResponse>,
    pace: Pace,
    turn: Turn,
    /// Everything up to here has been sent.
    sent: u64,
}

/// Why a watch ends.
enum End {
    Gone,
    Refused(Refusal),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Watcher {
    async fn run(mut self) {
        if let Err(End::Refused(refusal)) = self.watch().await {
            self.outlet.refuse(refusal);
        }
    }

    async fn watch(&mut self) -> Result<(), End> {
        let shutdown = self.api.shutdown.clone();
        let mut latest = self.api.journal.latest();
        loop {
            let readable = *latest.borrow_and_update();
            self.tell(readable).await?;
            tokio::select! {
                changed = latest.changed() => {
                    changed.map_err(|_| End::Refused(Refusal::ShuttingDown))?;
                    self.pace.wait().await;
                }
                () = sleep(BOOKMARK) => self.send(Vec::new()).await?,
                () = shutdown.cancelled() => return Err(End::Refused(Refusal::ShuttingDown)),
                () = self.outlet.gone() => return Err(End::Gone),
            }
        }
    }

    /// Tells all that is new, at least up to `readable`.
    async fn tell(&mut self, readable: u64) -> Result<(), End> {
        while self.sent < readable {
            let whose = self.whose.clone();
            let query = Query { after: self.sent, whose, limit: BATCH, ..Query::default() };
            let turn = self.turn.take().await;
            let page = self.api.journal.read(query).await.map_err(|error| End::Refused(error.into()))?;
            drop(turn);
            if self.sent < page.trimmed {
                return Err(End::Refused(Refusal::Compacted { kept: page.trimmed }));
            }
            let full = page.events.len() == BATCH;
            let last = page.events.last().map_or(0, |last| last.revision);
            self.sent = if full { last } else { last.max(readable) };
            if !page.events.is_empty() {
                self.send(page.events.into_iter().map(convert::event).collect()).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, events: Vec<supervisor_proto::v1::Event>) -> Result<(), Gone> {
        self.outlet.send(WatchEventsResponse { events, revision: self.sent }).await
    }
}

#[tonic::async_trait]
impl EventService for Events {
    type WatchEventsStream = Answers<WatchEventsResponse>;

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref(), &Scope::of(&request)?).await?))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let whose = whose(&request.get_ref().instance, &Scope::of(&request)?)?;
        let (pace, turn) = (Pace::of(&request), Turn::of(&request));
        let request = request.into_inner();
        let latest = *self.0.journal.latest().borrow();
        let sent = if request.after_revision == 0 { latest } else { request.after_revision };
        let (outlet, answers) = stream::channel(WATCHER);
        tokio::spawn(Watcher { api: Arc::clone(&self.0), whose, outlet, pace, turn, sent }.run());
        Ok(Response::new(answers))
    }
}
