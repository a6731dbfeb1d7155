//! Traces for OpenTelemetry: what callers had done, and how instances came back. Off unless a collector is named.
//!
//! ```text
//!   journal ──► [`story`]: from a death to ready again, from a call for a rescue to its standing in ──┐
//!   audit ────► a call that changed something ────────────────────────────────────────────────────────┴──► OTLP
//! ```
//!
//! They are told afterwards, from what is durable: nothing that is supervised waits for a trace, and a collector that is
//! slow or gone costs what is told to it, and no more. Those of before the supervisor's start are not told.

mod story;

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    KeyValue,
    trace::{Span, SpanKind, Status, Tracer, TracerProvider},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};
use tokio::{
    task,
    time::{sleep, timeout},
};
use tracing::{debug, info};

use crate::{
    audit::{self, Outcome},
    events::{Journal, JournalError, Query},
};
use story::{Story, Tale};

/// Between two looks at what is new. Events of the same moment are told together.
const LOOK: Duration = Duration::from_secs(1);

/// Events read at once, and calls.
const PAGE: usize = 500;

/// At the end a collector has so long.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Who tells.
const SERVICE: &str = "openclaw-supervisor";

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
#[error("failed to prepare for the collector of traces")]
pub(crate) struct TracesError(#[from] ExporterBuildError);

/// What tells, until it is dropped.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Tells the collector at `endpoint` from now on.
    pub(crate) fn start(endpoint: &str, journal: Journal) -> Result<Self, TracesError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
        let resource = Resource::builder().with_service_name(SERVICE);
        let resource =
            resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        info!(endpoint, "traces are told");
        tokio::spawn(tell(provider.tracer(SERVICE), journal));
        Ok(Self { provider })
    }

    /// Tells what waits. The thread that does so needs this one, to send it.
    pub(crate) async fn end(self) {
        let ended = task::spawn_blocking(move || self.provider.shutdown());
        match timeout(LAST_PATIENCE, ended).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => debug!("the last traces were not told"),
        }
    }
}

async fn tell(tracer: SdkTracer, journal: Journal) {
    let mut story = Story::default();
    let mut after = *journal.latest().borrow();
    let newest = newest(&journal, 1).await.unwrap_or_default();
    let mut called = Called { floor: newest.first().map_or(0, |call| call.id), ..Called::default() };
    loop {
        sleep(LOOK).await;
        let told = async {
            after = happened(&tracer, &journal, &mut story, after).await?;
            called.tell(&tracer, &journal).await
        };
        if let Err(error) = told.await {
            debug!(%error, "what is to be told as traces cannot be read");
        }
    }
}

/// Tells what has happened since, and up to where.
async fn happened(
    tracer: &SdkTracer,
    journal: &Journal,
    story: &mut Story,
    mut after: u64,
) -> Result<u64, JournalError> {
    while after < *journal.latest().borrow() {
        let page = journal.read(Query { after, limit: PAGE, ..Query::default() }).await?;
        let Some(last) = page.events.last() else { break };
        after = last.revision;
        page.events
            .into_iter()
            .filter_map(|event| story.take(event))
            .for_each(|tale| tell_tale(tracer, tale));
    }
    Ok(after)
}

fn tell_tale(tracer: &SdkTracer, tale: Tale) {
    let attributes =
        vec![KeyValue::new("openclaw.instance", tale.instance), KeyValue::new("openclaw.cause", tale.cause)];
    let span = tracer.span_builder(tale.name).with_kind(SpanKind::Internal).with_attributes(attributes);
    let mut span = span.with_start_time(time(tale.began_ns)).start(tracer);
    for (at, kind, message) in tale.steps {
        span.add_event_with_timestamp(kind, time(at), vec![KeyValue::new("message", message)]);
    }
    span.set_status(if tale.is_well { Status::Ok } else { Status::error(tale.end) });
    span.end_with_timestamp(time(tale.ended_ns));
}

/// Which calls have been told.
#[derive(Debug, Default)]
struct Called {
    /// All up to this number, or never.
    floor: u64,
    told: BTreeSet<u64>,
}

impl Called {
    /// Tells those of the newest that have ended since.
    async fn tell(&mut self, tracer: &SdkTracer, journal: &Journal) -> Result<(), JournalError> {
        for call in newest(journal, PAGE).await? {
            if call.id > self.floor && has_ended(call.outcome) && self.told.insert(call.id) {
                tell_call(tracer, call);
            }
        }
        while self.told.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
        while self.told.len() > 2 * PAGE {
            self.floor = self.told.pop_first().unwrap_or(self.floor);
        }
        Ok(())
    }
}

/// The newest calls, in the order in which they came.
async fn newest(journal: &Journal, limit: usize) -> Result<Vec<audit::Entry>, JournalError> {
    let query = audit::Query { limit, ..audit::Query::default() };
    let mut page = journal.with(move |db| audit::read(db, &query)).await?;
    page.entries.reverse();
    Ok(page.entries)
}

const fn has_ended(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Done | Outcome::Refused | Outcome::Left | Outcome::Lost | Outcome::Died => true,
        Outcome::UnderWay => false,
    }
}

fn tell_call(tracer: &SdkTracer, call: audit::Entry) {
    let name = call.method.rsplit('/').next().unwrap_or_default().to_owned();
    let attributes = vec![
        KeyValue::new("rpc.system", "grpc"),
        KeyValue::new("rpc.method", call.method),
        KeyValue::new("openclaw.instance", call.target),
        KeyValue::new("openclaw.outcome", call.outcome.word()),
        KeyValue::new("openclaw.role", call.caller.role),
        KeyValue::new("enduser.id", call.caller.uid.map_or(call.caller.certificate, |uid| uid.to_string())),
    ];
    let span = tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
    let mut span = span.with_start_time(time(call.began_ns)).start(tracer);
    span.set_status(if call.outcome == Outcome::Done { Status::Ok } else { Status::error(call.reason) });
    span.end_with_timestamp(time(call.began_ns) + call.took.unwrap_or_default());
}

fn time(unix_ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_ns)
}
