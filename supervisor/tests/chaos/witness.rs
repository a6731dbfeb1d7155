//! Follows the event journal throughout, over every death of the supervisor: nothing may be missing from what it
//! sees, nothing may come twice, and nothing that it saw may be gone later.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use supervisor_proto::v1::{self, Event, event_service_client::EventServiceClient};
use tokio::{task::JoinHandle, time};
use tonic::Code;

use crate::api::Api;

/// Between two attempts to reach the supervisor.
const AGAIN: Duration = Duration::from_millis(50);

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// In the order in which they came.
    pub(crate) events: Vec<Event>,
    /// What was wrong with that, a sentence each.
    pub(crate) faults: Vec<String>,
    /// Times the stream was broken and taken up again.
    pub(crate) resumed: u64,
}

/// The follower.
#[derive(Debug)]
pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Witness {
    /// Begins after the events that are known already.
    pub(crate) fn start(api: Api, known: Vec<Event>) -> Self {
        let seen = Arc::new(Mutex::new(Seen { events: known, ..Seen::default() }));
        let task = tokio::spawn(follow(api, Arc::clone(&seen)));
        Self { seen, task }
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// The revision of the last event seen.
    pub(crate) fn last(&self) -> u64 {
        last(&self.seen())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn last(seen: &Seen) -> u64 {
    seen.events.last().map_or(0, |event| event.revision)
}

async fn follow(api: Api, seen: Arc<Mutex<Seen>>) {
    loop {
        let end = watch(&api, &seen).await;
        if let Err(status) = end
            && status.code() == Code::OutOfRange
        {
            lock(&seen).faults.push(format!("events were trimmed before they were seen: {status}"));
            return;
        }
        time::sleep(AGAIN).await;
    }
}

async fn watch(api: &Api, seen: &Mutex<Seen>) -> Result<(), tonic::Status> {
    let Ok(channel) = api.channel().await else { return Ok(()) };
    let after_revision = last(&lock(seen));
    let request = v1::WatchEventsRequest { after_revision, ..Default::default() };
    let mut stream = EventServiceClient::new(channel).watch_events(request).await?.into_inner();
    lock(seen).resumed += 1;
    while let Some(news) = stream.message().await? {
        let mut seen = lock(seen);
        for event in news.events {
            let last = last(&seen);
            if event.revision <= last {
                seen.faults.push(format!("revision {} came after {last}", event.revision));
            }
            seen.events.push(event);
        }
    }
    Ok(())
}
