//! What a collector of OpenTelemetry is told, by a real daemon, over a real connection.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs::OpenOptions,
    io::Write,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::{Span, status::StatusCode},
};
use support::{Host, builtin, kill_9, until};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A collector.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let told = request.into_inner().resource_spans.into_iter().flat_map(|of| of.scope_spans);
        self.0.lock().unwrap().extend(told.flat_map(|of| of.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// The first of this name that it is told.
    async fn first(&self, name: &str) -> Span {
        let find = async || self.0.lock().unwrap().iter().find(|span| span.name == name).cloned();
        until(name, find).await
    }
}

#[tokio::test]
async fn a_collector_is_told_of_calls_and_of_how_an_instance_came_back() {
    let mut host = Host::prepare();
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut settings = OpenOptions::new().append(true).open(host.data_dir().join("settings.yaml")).unwrap();
    writeln!(settings, "traces: \"http://{address}\"").unwrap();
    // It comes later than the supervisor does.
    host.start_supervisor().await;
    let service = TraceServiceServer::new(collector.clone());
    let serving = Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    host.create("main", builtin()).await;
    kill_9(host.up("main").await.pid);

    let recovery = collector.first("recovery").await;
    assert_eq!(recovery.status.as_ref().unwrap().code(), StatusCode::Ok);
    assert!(recovery.end_time_unix_nano > recovery.start_time_unix_nano);
    let attributes = format!("{:?}", recovery.attributes);
    assert!(attributes.contains("main") && attributes.contains("killed by SIGKILL"), "{attributes}");
    assert!(recovery.events.iter().any(|event| event.name == "instance.ready"), "{:?}", recovery.events);
    let call = collector.first("StartInstance").await;
    assert!(
        format!("{:?}", call.attributes).contains("openclaw.supervisor.v1.InstanceService/StartInstance")
    );
}
