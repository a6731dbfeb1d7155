//! `IncidentService`.

use std::{collections::BTreeMap, sync::Arc};

use supervisor_core::{failover::Standing, ids::Name, instance::Phase, record::Wish, view::View};
use supervisor_proto::v1::{
    self, GetIncidentRequest, GetIncidentResponse, IncidentRollback, ListIncidentsRequest,
    ListIncidentsResponse, LogLine, incident::Outcome as Shown, incident_service_server::IncidentService,
};
use tonic::{Request, Response, Status};

use super::{
    config::{Shelf, aside},
    context::Api,
    convert,
    inside::Scope,
    page::{self, Sizes},
    status::{Refusal, Unmet},
};
use crate::{
    events::{Event, Query, Which, Whose},
    incidents::{self, Incident, KINDS, Ledger, Outcome, TAKEN_BACK},
    logs::{self, Follow, Reader, Step},
};

/// Pages of `ListIncidents`.
const PAGES: Sizes = Sizes { usual: 20, most: 1_000 };

/// Events read at once while the history is gone through; a few hundred kilobytes.
const BATCH: usize = 1_000;

/// Events of the instance shown from before its incident: what led to it.
const BEFORE: usize = 20;

/// Events of a timeline; of more the first and the last half.
const MOST: usize = 500;

/// Rollbacks shown of one incident: the ladder takes back one, and an agent that edits makes it some more.
const ROLLBACKS: usize = 5;

/// Lines of the log shown: a stack trace and what led to it.
const LOG_LINES: u64 = 50;

/// And of these so many bytes.
const LOG_BYTES: usize = 64 << 10;

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Incidents(pub(super) Arc<Api>);

impl Incidents {
    /// Goes through the whole history. Who looks is told of one incident after the other, the open ones last.
    async fn told(&self, wanted: Option<u64>, mut tell: impl FnMut(Incident) + Send) -> Result<(), Refusal> {
        let mut ledger = Ledger::looking_for(wanted);
        let mut after = 0;
        loop {
            let events = self.0.journal.of_kinds(&KINDS, after, BATCH).await?;
            let Some(last) = events.last() else { break };
            after = last.revision;
            events.iter().filter_map(|event| ledger.take(event)).for_each(&mut tell);
        }
        ledger.open().for_each(tell);
        Ok(())
    }

    async fn list(
        &self,
        request: &ListIncidentsRequest,
        scope: &Scope,
    ) -> Result<ListIncidentsResponse, Refusal> {
        let size = PAGES.of(request.page_size)?;
        let instance = match request.instance.as_str() {
            "" => None,
            name => {
                scope.may(name)?;
                Some(Name::new(name)?)
            }
        };
        let seen = scope.names();
        let conditions = page::conditions("incidents", &[&request.instance]);
        let before = page::begin(conditions, &request.page_token)?;
        let before = before.map(|before| before.parse::<u64>().map_err(|_| Refusal::InvalidPageToken));
        let before = before.transpose()?.unwrap_or(u64::MAX);
        let mut newest = BTreeMap::new();
        let tell = |incident: Incident| {
            let of = &*incident.instance;
            let whose = instance.as_ref().is_none_or(|name| **name == *of)
                && seen.as_ref().is_none_or(|seen| seen.contains(of));
            if whose && incident.number < before {
                newest.insert(incident.number, incident);
            }
            // One more than the page has, to know whether there is another page.
            if newest.len() > size + 1 {
                newest.pop_first();
            }
        };
        self.told(None, tell).await?;
        let view = self.0.handle.view();
        let more = newest.len() > size;
        let shown = newest.values().rev().take(size).map(|incident| shown(&view, incident));
        let incidents: Vec<v1::Incident> = shown.collect();
        let last = incidents.last().filter(|_| more);
        let next_page_token =
            last.map(|last| page::token(conditions, &last.number.to_string())).unwrap_or_default();
        Ok(ListIncidentsResponse { incidents, next_page_token })
    }

    async fn get(&self, number: u64, scope: &Scope) -> Result<GetIncidentResponse, Refusal> {
        let mut found = None;
        let tell = |incident: Incident| {
            if incident.wanted {
                found = Some(incident);
            }
        };
        self.told(Some(number), tell).await?;
        let incident = found.ok_or(Unmet::UnknownIncident(number))?;
        scope.may(&incident.instance)?;
        let view = self.0.handle.view();
        let told = shown(&view, &incident);
        let (timeline, timeline_cut) = self.timeline(&incident).await?;
        let rollbacks = self.rollbacks(&incident, &timeline).await?;
        let log = match told.outcome() {
            Shown::Open | Shown::GivenUp => self.log(&view, &incident.instance).await?,
            Shown::Unspecified
            | Shown::FailedBack
            | Shown::Cancelled
            | Shown::Ready
            | Shown::Deleted
            | Shown::Unrecorded => Vec::new(),
        };
        let timeline = timeline.into_iter().map(convert::event).collect();
        Ok(GetIncidentResponse { incident: Some(told), timeline, timeline_cut, rollbacks, log })
    }

    /// What happened to the instance and its rescues, and whether some of it is left out.
    async fn timeline(&self, incident: &Incident) -> Result<(Vec<Event>, bool), Refusal> {
        let read = async |query: Query| -> Result<Vec<Event>, Refusal> {
            Ok(self.0.journal.read(query).await?.events)
        };
        let whose = |name: &str| Query { whose: Whose::One(name.into()), ..Query::default() };
        let until = incident.end.map(|end| end.revision);
        let before =
            Query { after: incident.after, until: Some(incident.number - 1), ..whose(&incident.instance) };
        let mut all = read(Query { limit: BEFORE, which: Which::Newest, ..before }).await?;
        let mut cut = false;
        let whom = [&incident.instance].into_iter().chain(&incident.rescues);
        for name in whom {
            let during = Query { after: incident.number - 1, until, limit: MOST, ..whose(name) };
            let mut events = read(during.clone()).await?;
            if events.len() == MOST {
                cut = true;
                events.truncate(MOST / 2);
                let after = events.last().map_or(0, |last| last.revision);
                events.extend(read(Query { after, limit: MOST / 2, which: Which::Newest, ..during }).await?);
            }
            all.extend(events);
        }
        all.sort_by_key(|event| event.revision);
        all.dedup_by_key(|event| event.revision);
        if all.len() > MOST {
            cut = true;
            all.drain(MOST / 2..all.len() - MOST / 2);
        }
        Ok((all, cut))
    }

    /// The configurations that were taken back.
    async fn rollbacks(
        &self,
        incident: &Incident,
        timeline: &[Event],
    ) -> Result<Vec<IncidentRollback>, Refusal> {
        let mine = timeline
            .iter()
            .filter(|event| event.kind == TAKEN_BACK && event.instance == incident.instance)
            .filter_map(|event| {
                let (from, to, reason) = incidents::taken_back(&event.message)?;
                Some(IncidentRollback {
                    time: convert::event(event.clone()).time,
                    from: from.into(),
                    to: to.into(),
                    reason: reason.into(),
                    diff: String::new(),
                })
            });
        let mut rollbacks: Vec<IncidentRollback> = mine.collect();
        rollbacks.drain(..rollbacks.len().saturating_sub(ROLLBACKS));
        // One that is deleted has no snapshots any more.
        let Ok(shelf) = Shelf::of(&self.0, &incident.instance) else { return Ok(rollbacks) };
        aside(move || {
            for rollback in &mut rollbacks {
                rollback.diff = shelf.compared(&rollback.to, &rollback.from).unwrap_or_default();
            }
            Ok(rollbacks)
        })
        .await
    }

    /// The end of an instance's log.
    async fn log(&self, view: &View, name: &str) -> Result<Vec<LogLine>, Refusal> {
        let Some(instance) = view.instances.get(name) else { return Ok(Vec::new()) };
        let directory = self.0.facts.directories_of(instance).logs;
        let name = name.to_owned();
        aside(move || {
            let failed = |error| Refusal::log(&error, &name);
            let wanted =
                logs::Request { tail: Some(LOG_LINES), follow: Follow::No, ..logs::Request::default() };
            let mut reader = Reader::open(&name, directory, &wanted).map_err(failed)?;
            let mut lines = Vec::new();
            while let Step::Lines(more) = reader.read().map_err(failed)? {
                lines.extend(more);
            }
            let mut bytes = 0;
            let fitting = lines.iter().rev().take_while(|line| {
                bytes += line.text.len();
                bytes <= LOG_BYTES
            });
            let skipped = lines.len() - fitting.count();
            Ok(lines.into_iter().skip(skipped).map(convert::line).collect())
        })
        .await
    }
}

/// An incident in the contract's words. What the journal does not tell, because the store was damaged or the event is
/// still on its way there, is seen by how the instance is now.
fn shown(view: &View, incident: &Incident) -> v1::Incident {
    let outcome = match incident.end.map(|end| end.outcome) {
        Some(Outcome::FailedBack) => Shown::FailedBack,
        Some(Outcome::Cancelled) => Shown::Cancelled,
        Some(Outcome::Ready) => Shown::Ready,
        Some(Outcome::Deleted) => Shown::Deleted,
        None if is_given_up(view, &incident.instance) => Shown::GivenUp,
        None if goes_on(view, &incident.instance) => Shown::Open,
        None => Shown::Unrecorded,
    };
    v1::Incident {
        number: incident.number,
        instance: incident.instance.clone(),
        start_time: Some(convert::timestamp_ns(incident.began_ns)),
        cause: incident.cause.clone(),
        outcome: outcome.into(),
        end_time: incident.end.map(|end| convert::timestamp_ns(end.unix_ns)),
        rescues: incident.rescues.clone(),
        quarantined: incident.quarantined,
    }
}

/// Whether no start is to come, because all was tried or because another one would not mend it.
fn is_given_up(view: &View, name: &str) -> bool {
    view.instances.get(name).is_some_and(|instance| {
        let record = instance.record();
        record.quarantined.is_some() || record.gave_up.is_some()
    })
}

/// Whether an incident of this instance can be open.
fn goes_on(view: &View, name: &str) -> bool {
    view.instances.get(name).is_some_and(|instance| {
        let record = instance.record();
        let well = *instance.phase() == Phase::Ready || record.wish == Wish::Down;
        record.standing != Standing::Own || !well
    })
}

#[tonic::async_trait]
impl IncidentService for Incidents {
    async fn list_incidents(
        &self,
        request: Request<ListIncidentsRequest>,
    ) -> Result<Response<ListIncidentsResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref(), &Scope::of(&request)?).await?))
    }

    async fn get_incident(
        &self,
        request: Request<GetIncidentRequest>,
    ) -> Result<Response<GetIncidentResponse>, Status> {
        Ok(Response::new(self.get(request.get_ref().number, &Scope::of(&request)?).await?))
    }
}
