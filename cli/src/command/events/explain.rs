//! `openclawctl events --explain`.

use supervisor_proto::v1::{
    Event, Incident, ListEventsRequest, ListEventsResponse, ListIncidentsRequest, Severity,
};

use crate::{
    chain::{Chain, Step},
    connect::Supervisor,
    context::{Context, Show},
    error::{Cause, Error, Operation},
    render::{
        chain::{self, Told},
        time::between,
    },
    view,
};

/// Revisions before and after an event in which all events are read.
const AROUND: u64 = 2_000;
/// The same before it for those of its own instance.
const BEFORE: u64 = 100_000;
/// Of one page.
const PAGE: i32 = 1_000;
/// Pages that are read at most: what lies further away is not told.
const PAGES: usize = 20;
/// Incidents that are looked through for the one that an event belongs to.
const INCIDENTS: i32 = 200;

/// Which event is to be explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That of a revision.
    Revision(u64),
    /// The last one that is a warning or an error.
    Last,
}

impl std::str::FromStr for Wanted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "last" => Ok(Self::Last),
            number => number.parse().map(Self::Revision).map_err(|_| "it is neither a revision nor `last`"),
        }
    }
}

/// Tells how it came to an event, and what came of it.
pub(super) async fn run(
    wanted: Wanted,
    instance: Option<&str>,
    supervisor: &Supervisor,
    context: &Context,
) -> Result<(), Error> {
    let operation = Operation::new(match wanted {
        Wanted::Revision(revision) => format!("explain event {revision}"),
        Wanted::Last => "explain the last warning".to_owned(),
    });
    let source = Source { supervisor, operation: &operation };
    let event = source.find(wanted, instance.unwrap_or_default()).await?;
    let Some(event) = event else { return Err(nothing().during(&operation)) };
    let mut events =
        source.between(event.revision.saturating_sub(AROUND), event.revision + AROUND, "").await?;
    if !event.instance.is_empty() {
        let begin = event.revision.saturating_sub(BEFORE);
        events.extend(source.between(begin, event.revision, &event.instance).await?);
    }
    let known = Chain::new(events.into_iter().chain([event.clone()]));
    let (causes, effects) = known.story(&event);
    match context.show {
        Show::Encoded(encoding) => {
            let told = |step: &Step<'_>| step.event.clone();
            let events = causes.iter().chain(&effects).map(told).collect();
            let answer = ListEventsResponse { events, ..Default::default() };
            context.print_message(&operation, encoding, "ListEventsResponse", &answer)
        }
        Show::Text(_) => {
            let incident = source.incident(&event).await?;
            let told = Told { event: &event, alike: known.alike(&event), incident: incident.as_ref() };
            context.print(&operation, &chain::story(&told, &causes, &effects))
        }
    }
}

fn nothing() -> Cause {
    Cause::Nothing { what: "such event", hint: "openclawctl events -o wide".to_owned() }
}

/// Where events come from.
struct Source<'a> {
    supervisor: &'a Supervisor,
    operation: &'a Operation,
}

impl Source<'_> {
    async fn list(&self, request: &ListEventsRequest) -> Result<ListEventsResponse, Error> {
        let call = async || self.supervisor.events().list_events(request.clone()).await;
        self.supervisor.call(self.operation, call).await
    }

    async fn find(&self, wanted: Wanted, instance: &str) -> Result<Option<Event>, Error> {
        let newest = matches!(wanted, Wanted::Last);
        let request = ListEventsRequest {
            after_revision: if let Wanted::Revision(revision) = wanted {
                revision.saturating_sub(1)
            } else {
                0
            },
            instance: instance.to_owned(),
            page_size: if newest { PAGE } else { 1 },
            newest,
            ..Default::default()
        };
        let mut events = self.list(&request).await?.events.into_iter();
        Ok(match wanted {
            Wanted::Revision(revision) => events.find(|event| event.revision == revision),
            Wanted::Last => {
                events.rfind(|event| matches!(event.severity(), Severity::Warning | Severity::Error))
            }
        })
    }

    /// Events later than `after`, up to a revision or a little more.
    async fn between(&self, after: u64, until: u64, instance: &str) -> Result<Vec<Event>, Error> {
        let mut request = ListEventsRequest {
            after_revision: after,
            instance: instance.to_owned(),
            page_size: PAGE,
            ..Default::default()
        };
        let mut events = Vec::new();
        for _ in 0..PAGES {
            let page = self.list(&request).await?;
            let is_last = page.next_page_token.is_empty();
            events.extend(page.events);
            if is_last || events.last().is_none_or(|event| event.revision >= until) {
                break;
            }
            request.page_token = page.next_page_token;
        }
        Ok(events)
    }

    /// The incident during which it happened to its instance, or to a rescue that was called.
    async fn incident(&self, event: &Event) -> Result<Option<Incident>, Error> {
        if event.instance.is_empty() {
            return Ok(None);
        }
        let request = ListIncidentsRequest { page_size: INCIDENTS, ..Default::default() };
        let call = async || self.supervisor.incidents().list_incidents(request.clone()).await;
        let answer = self.supervisor.call(self.operation, call).await?;
        Ok(answer.incidents.into_iter().find(|incident| is_during(event, incident)))
    }
}

fn is_during(event: &Event, incident: &Incident) -> bool {
    let concerned = incident.instance == event.instance || incident.rescues.contains(&event.instance);
    let (Some(time), Some(begun)) = (&event.time, &incident.start_time) else { return false };
    // The death that it begins with comes right before it.
    let begins = event.revision >= incident.number || (time == begun && incident.instance == event.instance);
    let over = match &incident.end_time {
        Some(end) => !between(end, time).is_zero(),
        None => !view::is_open(incident),
    };
    concerned && begins && !over
}
