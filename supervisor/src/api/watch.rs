//! `WatchInstances`: what instances are, and every change of that, as a stream.
//!
//! Each watcher looks at the view of the moment and is told what has changed since its last look. So several
//! changes of one instance may come as one, nothing is kept for a slow reader, and the driver never waits.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use supervisor_core::{
    ids::{Name, Revision},
    instance::Instance,
    view::View,
};
use supervisor_proto::v1::{
    WatchInstancesRequest, WatchInstancesResponse,
    watch_instances_response::{Bookmark, Change, Snapshot},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    context::Api,
    convert::Extent,
    inside::Scope,
    status::Refusal,
    stream::{self, Answers, Gone, Outlet, Pace, WATCHER},
    turn::Turn,
};

/// With nothing new for this long, the reader is told that there is nothing new.
const BOOKMARK: Duration = Duration::from_secs(10);

/// From so many changes on it pays to look at all instances first.
const FEW: usize = 4;

/// Looking at a large fleet that changes all the time takes long. Looks are this many times as far apart as one of
/// them takes, so that watchers cannot take the processor from those who do the work.
const SPACING: u32 = 4;

/// Looks that take less than this need no spacing.
const QUICK: Duration = Duration::from_millis(1);

/// The most names of one watch: beyond that, watch all.
const MOST_NAMES: usize = 1_000;

/// Which instances are watched.
#[derive(Debug)]
enum Watched {
    All,
    Some(BTreeSet<Name>),
}

/// What has changed.
#[derive(Debug, Clone, Copy)]
enum Changed<'a> {
    Instance(&'a Instance),
    Deleted(&'a Name),
}

/// One watcher.
struct Watcher {
    api: Arc<Api>,
    watched: Arc<Watched>,
    outlet: Outlet<WatchInstancesResponse>,
    pace: Pace,
    /// Everything up to here has been sent; `None` before the snapshot.
    sent: Option<Revision>,
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

/// Begins a watch.
pub(super) fn start(
    api: Arc<Api>,
    request: &WatchInstancesRequest,
    scope: &Scope,
    (pace, turn): (Pace, &Turn),
) -> Result<Answers<WatchInstancesResponse>, Refusal> {
    let watched = Arc::new(Watched::read(&request.names, scope)?);
    let sent = request.after_revision.map(Revision);
    if let Some(sent) = sent {
        check(&api.handle.view(), sent)?;
    }
    let (outlet, answers) = stream::channel(WATCHER);
    tokio::spawn(Watcher { api, watched, outlet, pace, sent }.run());
    Ok(answers.in_turn(turn))
}

/// How the relations of `count` instances are best found.
fn extent(count: usize) -> Extent {
    if count > FEW { Extent::Many } else { Extent::Few }
}

/// Whether all changes after `sent` can still be told.
fn check(view: &View, sent: Revision) -> Result<(), Refusal> {
    let kept = view.forgotten;
    // A revision from the future is of another data directory.
    if sent < kept || sent > view.revision { Err(Refusal::Compacted { kept: kept.0 }) } else { Ok(()) }
}

impl Watched {
    /// What may be watched is settled when the watch begins.
    fn read(names: &[String], scope: &Scope) -> Result<Self, Refusal> {
        if names.is_empty() {
            return Ok(scope.names().map_or(Self::All, Self::Some));
        }
        if names.len() > MOST_NAMES {
            let message = format!("there are {} names", names.len());
            return Err(Refusal::field("names", message, "leave them out to watch all"));
        }
        let name = |name: &String| {
            scope.may(name)?;
            Ok(Name::new(name)?)
        };
        Ok(Self::Some(names.iter().map(name).collect::<Result<_, Refusal>>()?))
    }

    /// At most so many instances of `view` are watched.
    fn most(&self, view: &View) -> usize {
        match self {
            Self::All => view.instances.len(),
            Self::Some(names) => names.len(),
        }
    }

    fn contains(&self, name: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(name),
        }
    }

    fn instances<'a>(&'a self, view: &'a View) -> Box<dyn Iterator<Item = &'a Instance> + Send + 'a> {
        match self {
            Self::All => Box::new(view.instances.values().map(Arc::as_ref)),
            Self::Some(names) => {
                Box::new(names.iter().filter_map(|name| view.instances.get(name)).map(Arc::as_ref))
            }
        }
    }

    /// What has changed after `sent`, in the order of the revisions. Who was deleted and made anew comes twice.
    fn changes<'a>(&'a self, view: &'a View, sent: Revision) -> Vec<(Revision, Changed<'a>)> {
        let removed = view.removed.iter().rev().take_while(|(revision, _)| *revision > sent);
        let removed = removed.filter(|(_, name)| self.contains(name));
        let changed = self.instances(view).filter(|instance| instance.changed() > sent);
        let mut all: Vec<_> = removed.map(|(revision, name)| (*revision, Changed::Deleted(name))).collect();
        all.extend(changed.map(|instance| (instance.changed(), Changed::Instance(instance))));
        all.sort_by_key(|(revision, _)| *revision);
        all
    }
}

impl Watcher {
    async fn run(mut self) {
        let end = match self.watch().await {
            Err(End::Refused(refusal)) => refusal,
            Err(End::Gone) | Ok(()) => return,
        };
        self.outlet.refuse(end);
    }

    async fn watch(&mut self) -> Result<(), End> {
        let shutdown = self.api.shutdown.clone();
        let mut views = self.api.handle.watch();
        let mut bookmark_at = Instant::now();
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            if self.tell(&view).await? {
                bookmark_at = Instant::now() + BOOKMARK;
            }
            tokio::select! {
                changed = views.changed() => {
                    changed.map_err(|_| End::Refused(Refusal::ShuttingDown))?;
                    self.pace.wait().await;
                }
                () = sleep_until(bookmark_at) => {
                    self.send(view.revision, Change::Bookmark(Bookmark {})).await?;
                    bookmark_at = Instant::now() + BOOKMARK;
                }
                () = shutdown.cancelled() => return Err(End::Refused(Refusal::ShuttingDown)),
                () = self.outlet.gone() => return Err(End::Gone),
            }
        }
    }

    /// Tells what is new, and says whether anything was.
    async fn tell(&mut self, view: &Arc<View>) -> Result<bool, End> {
        let Some(sent) = self.sent else {
            let (api, watched, of) = (Arc::clone(&self.api), Arc::clone(&self.watched), Arc::clone(view));
            let snapshot = move || {
                let scene = api.scene(&of, extent(watched.most(&of)));
                let instances = watched.instances(&of).map(|instance| scene.instance(instance)).collect();
                response(of.revision, Change::Snapshot(Snapshot { instances }))
            };
            self.outlet.send_made(snapshot).await?;
            self.sent = Some(view.revision);
            return Ok(true);
        };
        check(view, sent).map_err(End::Refused)?;
        let began = Instant::now();
        let messages = self.messages(view, sent);
        let took = began.elapsed();
        let news = !messages.is_empty();
        for message in messages {
            self.outlet.send(message).await?;
        }
        self.sent = Some(view.revision);
        if took > QUICK {
            sleep(took * SPACING).await;
        }
        Ok(news)
    }

    /// What has changed after `sent`, told.
    fn messages(&self, view: &View, sent: Revision) -> Vec<WatchInstancesResponse> {
        let changes = self.watched.changes(view, sent);
        let scene = self.api.scene(view, extent(changes.len()));
        let mut safe = sent;
        let mut messages = Vec::with_capacity(changes.len());
        for (at, (revision, changed)) in changes.iter().enumerate() {
            // Of several with one revision only the last may bear it: who goes on from there has them all.
            if changes.get(at + 1).is_none_or(|(next, _)| next > revision) {
                safe = *revision;
            }
            let change = match changed {
                Changed::Instance(instance) => Change::Changed(Box::new(scene.instance(instance))),
                Changed::Deleted(name) => Change::Deleted(name.to_string()),
            };
            messages.push(response(safe, change));
        }
        messages
    }

    async fn send(&self, revision: Revision, change: Change) -> Result<(), Gone> {
        self.outlet.send(response(revision, change)).await
    }
}

fn response(revision: Revision, change: Change) -> WatchInstancesResponse {
    WatchInstancesResponse { revision: revision.0, change: Some(change) }
}
