//! What comes from the supervisor while the screen is on: the watch, figures, and what the page of the moment needs.
//!
//! Each of these is a task that never ends by itself: what breaks is begun anew, for as long as somebody looks. They
//! all tell into one bounded channel, so that a slow terminal slows them down and piles nothing up.

use std::time::Duration;

use supervisor_proto::v1::{
    Event, GetInfoRequest, GetInstanceRequest, ListEventsRequest, ReadLogsRequest, Reason,
    WatchEventsRequest, WatchInstancesRequest,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    act,
    page::{LOG_TAIL, Subject},
    state::{Looking, News, Verb},
};
use crate::{
    connect::Supervisor,
    error::{Cause, Operation},
    render::time::now,
};

/// News that nobody has taken in yet. A snapshot of a thousand instances is one of them.
const BACKLOG: usize = 64;
/// Between two attempts to begin anew, at first.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The same at last.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often figures are asked for.
const FIGURES: Duration = Duration::from_secs(2);
/// The same for a large fleet, whose every process the supervisor has to look at.
const FIGURES_OF_MANY: Duration = Duration::from_secs(5);

/// Everything that is told, and the tasks that do, which are local: this program has one thread.
pub(crate) struct Feed {
    supervisor: Supervisor,
    news: mpsc::Sender<News>,
    looking: watch::Sender<Looking>,
    /// Those that last as long as the screen.
    tasks: JoinSet<()>,
    /// Of the page of the moment.
    page: JoinSet<()>,
}

impl Feed {
    /// Begins to tell about the fleet.
    pub(crate) fn begin(supervisor: Supervisor) -> (Self, mpsc::Receiver<News>) {
        let (news, told) = mpsc::channel(BACKLOG);
        let (looking, looked) = watch::channel(Looking::Nowhere);
        let mut tasks = JoinSet::new();
        tasks.spawn_local(instances(supervisor.clone(), news.clone()));
        tasks.spawn_local(figures(supervisor.clone(), news.clone(), looked));
        (Self { supervisor, news, looking, tasks, page: JoinSet::new() }, told)
    }

    /// Whose figures are needed from now on.
    pub(crate) fn look(&self, at: Looking) {
        self.looking.send_if_modified(|looking| {
            let differs = *looking != at;
            *looking = at;
            differs
        });
    }

    /// Tells the page of this number about its subject, and no other page.
    pub(crate) fn follow(&mut self, page: u64, subject: Subject) {
        self.page.abort_all();
        let (supervisor, news) = (self.supervisor.clone(), self.news.clone());
        match subject {
            Subject::Log(name) => self.page.spawn_local(log(supervisor, news, page, name)),
            Subject::Details(_) | Subject::Events(_) => {
                self.page.spawn_local(events(supervisor, news, page, subject))
            }
        };
    }

    /// Tells no page about anything.
    pub(crate) fn unfollow(&mut self) {
        self.page.abort_all();
    }

    /// Does what was wished, and tells what comes of it.
    pub(crate) fn act(&mut self, verb: Verb, name: String) {
        // Those that have ended leave nothing to be collected.
        while self.tasks.try_join_next().is_some() {}
        let (supervisor, news) = (self.supervisor.clone(), self.news.clone());
        self.tasks.spawn_local(async move {
            let outcome = act::act(&supervisor, verb, &name, &news).await;
            let _ = news.send(News::Outcome(outcome)).await;
        });
    }
}

/// The pauses between attempts: longer with each, until one succeeds.
struct Pause(Duration);

impl Pause {
    const fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// Whether it is worth while to begin anew.
fn may_pass(cause: &Cause) -> bool {
    let busy =
        |reason| matches!(reason, Some(Reason::Overloaded | Reason::RequestTooSlow | Reason::ShuttingDown));
    cause.may_pass()
        || matches!(cause, Cause::NoAnswer(_))
        || matches!(cause, Cause::Refused(refusal) if busy(refusal.reason))
}

/// The stream's end, which is always too early.
fn ended() -> Cause {
    Cause::Broken("the stream ended".to_owned())
}

/// Watches the fleet.
async fn instances(supervisor: Supervisor, news: mpsc::Sender<News>) {
    let operation = Operation::new("watch the instances");
    let mut pause = Pause::new();
    loop {
        let broken = match supervisor.instances().watch_instances(WatchInstancesRequest::default()).await {
            Err(status) => Cause::from(status),
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            pause = Pause::new();
                            if news.send(News::Watched(Box::new(message))).await.is_err() {
                                return;
                            }
                        }
                        Ok(None) => break ended(),
                        Err(status) => break Cause::from(status),
                    }
                }
            }
        };
        if !may_pass(&broken) {
            let _ = news.send(News::Ended(broken.during(&operation))).await;
            return;
        }
        if news.send(News::Broken(now(), broken.to_string())).await.is_err() {
            return;
        }
        pause.wait().await;
    }
}

/// Asks again and again for what processes use, and for alarms. That nothing comes is told by the watch.
async fn figures(supervisor: Supervisor, news: mpsc::Sender<News>, mut looking: watch::Receiver<Looking>) {
    loop {
        let at = looking.borrow_and_update().clone();
        let every = match &at {
            Looking::Fleet { many: true } => FIGURES_OF_MANY,
            Looking::Fleet { many: false } | Looking::One(_) | Looking::Nowhere => FIGURES,
        };
        for each in figures_of(&supervisor, &at).await {
            if news.send(each).await.is_err() {
                return;
            }
        }
        let changed = match at {
            Looking::Nowhere => Ok(looking.changed().await),
            Looking::One(_) | Looking::Fleet { .. } => timeout(every, looking.changed()).await,
        };
        if let Ok(Err(_)) = changed {
            return;
        }
    }
}

async fn figures_of(supervisor: &Supervisor, at: &Looking) -> Vec<News> {
    let operation = Operation::new("read the figures");
    match at {
        Looking::Nowhere => Vec::new(),
        Looking::One(name) => {
            let request = GetInstanceRequest { name: name.clone() };
            let answer = supervisor
                .call(&operation, async || supervisor.instances().get_instance(request.clone()).await)
                .await;
            let instance = answer.ok().and_then(|answer| answer.instance);
            instance.map(|instance| News::Figures(vec![instance])).into_iter().collect()
        }
        Looking::Fleet { .. } => {
            let info =
                supervisor.call(&operation, async || supervisor.system().get_info(GetInfoRequest {}).await);
            let (info, listed) = tokio::join!(info, supervisor.list(&operation));
            let alarms = info.ok().map(|info| News::Alarms(info.alarms));
            alarms.into_iter().chain(listed.ok().map(|(instances, _)| News::Figures(instances))).collect()
        }
    }
}

/// Tells a page the last events of its subject, and those that come.
async fn events(supervisor: Supervisor, news: mpsc::Sender<News>, page: u64, subject: Subject) {
    let mut pause = Pause::new();
    loop {
        let Err(broken) = follow_events(&supervisor, &news, page, &subject, &mut pause).await else { return };
        if !tell_trouble(&news, page, &broken).await {
            return;
        }
        pause.wait().await;
    }
}

/// `Ok`: nobody listens any more.
async fn follow_events(
    supervisor: &Supervisor,
    news: &mpsc::Sender<News>,
    page: u64,
    subject: &Subject,
    pause: &mut Pause,
) -> Result<(), Cause> {
    let mut client = supervisor.events();
    let instance = subject.name().to_owned();
    // Asked before the list, for a watch that begins after an empty one: nothing falls between them.
    let begin = supervisor.system().get_info(GetInfoRequest {}).await?.into_inner().revision;
    let newest = ListEventsRequest {
        instance: instance.clone(),
        page_size: i32::try_from(subject.events()).unwrap_or(i32::MAX),
        newest: true,
        ..Default::default()
    };
    let events = client.list_events(newest).await?.into_inner().events;
    let after_revision = events.last().map_or(begin, |event: &Event| event.revision);
    if news.send(News::Events { page, events, all: true }).await.is_err() {
        return Ok(());
    }
    let mut stream = client.watch_events(WatchEventsRequest { after_revision, instance }).await?.into_inner();
    while let Some(batch) = stream.message().await? {
        *pause = Pause::new();
        if !batch.events.is_empty()
            && news.send(News::Events { page, events: batch.events, all: false }).await.is_err()
        {
            return Ok(());
        }
    }
    Err(ended())
}

/// Tells a page what its subject prints.
async fn log(supervisor: Supervisor, news: mpsc::Sender<News>, page: u64, name: String) {
    let mut pause = Pause::new();
    let mut request = ReadLogsRequest { name, tail: Some(LOG_TAIL), follow: true, ..Default::default() };
    loop {
        let Err(broken) = follow_log(&supervisor, &news, page, &mut request, &mut pause).await else {
            return;
        };
        if !tell_trouble(&news, page, &broken).await {
            return;
        }
        pause.wait().await;
    }
}

/// `Ok`: nobody listens any more.
async fn follow_log(
    supervisor: &Supervisor,
    news: &mpsc::Sender<News>,
    page: u64,
    request: &mut ReadLogsRequest,
    pause: &mut Pause,
) -> Result<(), Cause> {
    let mut stream = supervisor.logs().read_logs(request.clone()).await?.into_inner();
    while let Some(batch) = stream.message().await? {
        *pause = Pause::new();
        if let Some(line) = batch.lines.last() {
            request.after_cursor.clone_from(&line.cursor);
        }
        if news.send(News::Log { page, lines: batch.lines }).await.is_err() {
            return Ok(());
        }
    }
    Err(ended())
}

/// Why nothing comes to a page. Whether it is worth while to begin anew.
async fn tell_trouble(news: &mpsc::Sender<News>, page: u64, broken: &Cause) -> bool {
    let told = news.send(News::Trouble { page, why: broken.to_string() }).await;
    told.is_ok() && may_pass(broken)
}
