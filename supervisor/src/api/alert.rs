//! `AlertService`.

use std::{cmp::Reverse, sync::Arc};

use futures_util::future::join_all;
use supervisor_proto::v1::{
    self, AlertSink, GetAlertsRequest, GetAlertsResponse, SinkOutcome, TestAlertsRequest, TestAlertsResponse,
    alert_service_server::AlertService,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    context::Api,
    convert::{self, Extent},
    status::{Refusal, Unmet},
};
use crate::{
    alerts::{Tell, Weight},
    settings::alerts::Sink,
};

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Alerting(pub(super) Arc<Api>);

/// Tells people from now on.
pub(super) fn begin(api: &Arc<Api>, beats: watch::Receiver<()>) {
    let told = Arc::clone(api);
    let tell = Tell(Arc::new(move |view, instance| {
        let status = told.scene(view, Extent::Few).instance(instance).status.unwrap_or_default();
        (status.reason, status.hint)
    }));
    api.alerts.start(&api.handle, api.journal.clone(), tell, beats);
}

impl Alerting {
    fn get(&self) -> GetAlertsResponse {
        let settings = self.0.alerts.settings();
        let desk = self.0.alerts.desk();
        let mut alerts: Vec<v1::Alert> = desk
            .troubles
            .0
            .iter()
            .map(|(key, known)| v1::Alert {
                key: key.clone(),
                instance: known.trouble.instance.clone(),
                severity: severity(known.trouble.weight).into(),
                title: known.trouble.title.clone(),
                reason: known.trouble.why.clone(),
                hint: known.trouble.hint.clone(),
                begin_time: Some(convert::timestamp_ns(known.since_ns)),
                told: known.told.is_some(),
            })
            .collect();
        alerts.sort_by_key(|alert| (Reverse(alert.severity), !alert.told));
        let sinks = settings.sinks.iter().map(|sink| {
            let (record, waiting) = desk.record(&sink.name);
            let (fail_time, failure) = record.failing.unzip();
            AlertSink {
                name: sink.name.clone(),
                kind: sink.way.kind().into(),
                waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
                tell_time: record.told_ns.map(convert::timestamp_ns),
                fail_time: fail_time.map(convert::timestamp_ns),
                failure: failure.unwrap_or_default(),
                dropped: record.dropped,
            }
        });
        let sinks = sinks.collect();
        drop(desk);
        GetAlertsResponse { alerts, sinks }
    }

    async fn test(&self, names: &[String]) -> Result<TestAlertsResponse, Refusal> {
        let settings = self.0.alerts.settings();
        if settings.sinks.is_empty() {
            return Err(Unmet::UnknownSink { asked: String::new(), known: Vec::new() }.into());
        }
        let known = || settings.sinks.iter().map(|sink| sink.name.clone()).collect();
        let named = |name: &String| {
            let found = settings.sinks.iter().find(|sink| sink.name == *name);
            found.ok_or_else(|| Unmet::UnknownSink { asked: name.clone(), known: known() })
        };
        let sinks: Vec<&Sink> = match names {
            [] => settings.sinks.iter().collect(),
            names => names.iter().map(named).collect::<Result<_, _>>()?,
        };
        let test = async |sink: &Sink| SinkOutcome {
            name: sink.name.clone(),
            failure: self.0.alerts.test(sink).await.err().unwrap_or_default(),
        };
        let outcomes = join_all(sinks.into_iter().map(test)).await;
        Ok(TestAlertsResponse { outcomes })
    }
}

fn severity(weight: Weight) -> v1::Severity {
    match weight {
        Weight::Warning => v1::Severity::Warning,
        Weight::Error => v1::Severity::Error,
    }
}

#[tonic::async_trait]
impl AlertService for Alerting {
    async fn get_alerts(&self, _: Request<GetAlertsRequest>) -> Result<Response<GetAlertsResponse>, Status> {
        Ok(Response::new(self.get()))
    }

    async fn test_alerts(
        &self,
        request: Request<TestAlertsRequest>,
    ) -> Result<Response<TestAlertsResponse>, Status> {
        Ok(Response::new(self.test(&request.get_ref().names).await?))
    }
}
