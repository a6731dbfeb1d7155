//! Serves the API: on the control socket always, and wherever else the settings say.

mod addresses;
mod connection;
mod doors;
mod polite;
mod residents;
mod tcp;
mod unix;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use supervisor_proto::v1::{
    DESCRIPTORS, alert_service_server::AlertServiceServer, audit_service_server::AuditServiceServer,
    certificate_service_server::CertificateServiceServer, config_service_server::ConfigServiceServer,
    doctor_service_server::DoctorServiceServer, event_service_server::EventServiceServer,
    fleet_service_server::FleetServiceServer, incident_service_server::IncidentServiceServer,
    instance_service_server::InstanceServiceServer, log_service_server::LogServiceServer,
    setup_service_server::SetupServiceServer, system_service_server::SystemServiceServer,
    upgrade_service_server::UpgradeServiceServer, web_service_server::WebServiceServer,
};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tonic_health::pb::health_server::HealthServer;
use tracing::{info, warn};

pub(super) use self::doors::Doors;
use self::{
    connection::Connection,
    residents::Residents,
    unix::{Rights, Socket},
};
use super::{
    alert::{self, Alerting},
    audit::Audits,
    certificate::Certificates,
    config::Configs,
    context::{Api, Context},
    doctor::Doctors,
    event::Events,
    fleet::Fleets,
    gate::Gate,
    health::Healths,
    incident::Incidents,
    inlet::Inlet,
    instance::Instances,
    limits::{Limits, Most},
    log::Logs,
    metrics,
    patience::Patience,
    setup::Setups,
    system::Systems,
    upgrade::Upgrades,
    web::Webs,
};
use crate::{
    registry,
    web::{self, WebError},
};

/// The socket's name in the data directory.
const SOCKET: &str = "control.sock";

/// The largest request: a fleet file has up to 1 MiB.
pub(super) const MAX_REQUEST: usize = 4 << 20;

/// The headers of a request, decompressed. Ours need a hundred bytes; a token and a trace need some hundred more.
const MAX_HEADERS: u32 = 16 << 10;

/// Calls at once on one connection; a client that begins more waits, as HTTP/2 has it.
const STREAMS: u32 = 1_024;

/// A connection that is silent for this long is asked whether it is alive.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// And it is dropped when it has not answered after this long: a stopped watcher would hold it for ever.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

/// At the end, calls have this long to finish. Watches end at once, but their readers may be asleep.
const GRACE: Duration = Duration::from_secs(3);

/// After a failure to accept a connection, e.g. for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// As the record calls the place from where those call who have opened it.
const DASHBOARD: &str = "the dashboard";

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket cannot be made.
    #[error("failed to listen on `{path}`")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The descriptors for reflection are damaged.
    #[error("failed to describe the API")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The dashboard cannot be served.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The server failed.
    #[error("failed to serve the API")]
    Serve(#[from] tonic::transport::Error),
}

/// Where the supervisor on `data_dir` listens.
#[must_use]
pub(crate) fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// Serves until the context's `shutdown`. `listening` is called once clients can connect.
pub(crate) async fn serve(context: Context, listening: impl FnOnce()) -> Result<(), ServeError> {
    let gate = Gate::own(context.handle.clone(), context.bindings.clone(), context.audit.clone());
    serve_through(gate, Most::USUAL, context, listening).await
}

/// The same behind another gate, and within other limits.
pub(super) async fn serve_through(
    gate: Gate,
    most: Most,
    context: Context,
    listening: impl FnOnce(),
) -> Result<(), ServeError> {
    let path = context.host.control.socket.clone();
    let shutdown = context.shutdown.clone();
    let handle = context.handle.clone();
    // One with a user of its own calls from there.
    let for_all = move || registry::are_for_all(&handle.view());
    let control = Socket::bind(&path, move || Rights::control(for_all()))
        .map_err(|source| ServeError::Listen { path, source })?;
    let residents = Residents::following(&context.handle);
    let (origins, bindings) = (context.origins.clone(), context.bindings.clone());
    let limits = Limits::new(most);
    let (doors, connections) = Doors::new(&context.host, origins, bindings, residents, Arc::clone(&limits));
    let (places, web) = (context.settings.listen.clone(), context.web.clone());
    let beats = context.beats.clone();
    let api = Api::new(context, doors.clone());
    alert::begin(&api, beats);
    let routes = routes(api)?;
    if let Some(dashboard) = web {
        let inlet = Inlet::new(&gate, routes.clone(), limits, Path::new(DASHBOARD));
        web::serve(dashboard, inlet, shutdown.clone()).await?;
    }
    info!(socket = %control.path().display(), "listening");
    let (local, remote) = sorted(connections);
    let serving = async {
        tokio::try_join!(
            converse(local, Speech::Either, (gate.clone(), routes.clone()), &shutdown),
            converse(remote, Speech::Http2, (gate, routes), &shutdown),
        )
        .map(drop)
    };
    doors.serve(control);
    doors.begin(&places).await;
    listening();
    let served = tokio::select! {
        served = serving => served.map_err(ServeError::from),
        () = async { shutdown.cancelled().await; sleep(GRACE).await } => {
            warn!("some calls did not finish in time");
            Ok(())
        }
    };
    doors.close().await;
    served
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    /// HTTP/1 or HTTP/2, as the caller's first words say.
    Either,
    /// HTTP/2, as was agreed on beforehand. The server speaks first: callers wait for its word to know that they are let in.
    Http2,
}

/// Serves these connections until the end.
async fn converse(
    connections: mpsc::Receiver<Connection>,
    speech: Speech,
    (gate, routes): (Gate, Routes),
    shutdown: &CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let server = Server::builder()
        .accept_http1(speech == Speech::Either)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(STREAMS)
        .layer(Patience)
        .layer(gate)
        .add_routes(routes);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, io::Error>);
    server.serve_with_incoming_shutdown(incoming, shutdown.cancelled()).await
}

/// Those by sockets, and those by TCP.
fn sorted(
    mut connections: mpsc::Receiver<Connection>,
) -> (mpsc::Receiver<Connection>, mpsc::Receiver<Connection>) {
    let ((to_local, local), (to_remote, remote)) = (mpsc::channel(1), mpsc::channel(1));
    tokio::spawn(async move {
        while let Some(connection) = connections.recv().await {
            let to = if connection.is_local() { &to_local } else { &to_remote };
            // Nobody takes it any more at the end.
            let _ = to.send(connection).await;
        }
    });
    (local, remote)
}

/// Every service, and the pages beside them.
fn routes(api: Arc<Api>) -> Result<Routes, tonic_reflection::server::Error> {
    macro_rules! sized {
        ($server:ident, $service:expr) => {
            $server::new($service).max_decoding_message_size(MAX_REQUEST)
        };
    }
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let services = Routes::new(sized!(InstanceServiceServer, Instances(Arc::clone(&api))))
        .add_service(sized!(FleetServiceServer, Fleets(Arc::clone(&api))))
        .add_service(sized!(EventServiceServer, Events(Arc::clone(&api))))
        .add_service(sized!(LogServiceServer, Logs(Arc::clone(&api))))
        .add_service(sized!(SystemServiceServer, Systems(Arc::clone(&api))))
        .add_service(sized!(ConfigServiceServer, Configs(Arc::clone(&api))))
        .add_service(sized!(IncidentServiceServer, Incidents(Arc::clone(&api))))
        .add_service(sized!(DoctorServiceServer, Doctors::new(Arc::clone(&api))))
        .add_service(sized!(SetupServiceServer, Setups::new(Arc::clone(&api))))
        .add_service(sized!(UpgradeServiceServer, Upgrades::new(Arc::clone(&api))))
        .add_service(sized!(AuditServiceServer, Audits(Arc::clone(&api))))
        .add_service(sized!(CertificateServiceServer, Certificates::new(Arc::clone(&api))))
        .add_service(sized!(WebServiceServer, Webs(Arc::clone(&api))))
        .add_service(sized!(AlertServiceServer, Alerting(Arc::clone(&api))))
        .add_service(sized!(HealthServer, Healths(Arc::clone(&api))))
        .add_service(descriptors().build_v1()?)
        .add_service(descriptors().build_v1alpha()?);
    Ok(Routes::from(services.into_axum_router().merge(metrics::pages(api))))
}
