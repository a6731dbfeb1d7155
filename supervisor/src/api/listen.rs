//! Serves the API on the control socket.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net,
        },
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task,
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use supervisor_proto::v1::{
    DESCRIPTORS, config_service_server::ConfigServiceServer, doctor_service_server::DoctorServiceServer,
    event_service_server::EventServiceServer, fleet_service_server::FleetServiceServer,
    incident_service_server::IncidentServiceServer, instance_service_server::InstanceServiceServer,
    log_service_server::LogServiceServer, setup_service_server::SetupServiceServer,
    system_service_server::SystemServiceServer, upgrade_service_server::UpgradeServiceServer,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    time::{Sleep, sleep},
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::{
    Server,
    server::{Connected, UdsConnectInfo},
};
use tonic_health::pb::health_server::HealthServer;
use tracing::{info, warn};

use super::{
    access::Gate,
    config::Configs,
    context::{Api, Context},
    doctor::Doctors,
    event::Events,
    fleet::Fleets,
    health::Healths,
    incident::Incidents,
    inside::{FindOrigin, TRACED},
    instance::Instances,
    limits::{Limits, Most, Seat, Ticket},
    log::Logs,
    patience::Patience,
    setup::Setups,
    system::Systems,
    upgrade::Upgrades,
};
use crate::lineage::Origin;

/// The socket's name in the data directory.
const SOCKET: &str = "control.sock";

/// The longest path in a Unix socket's address, without its final NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// The largest request: a fleet file has up to 1 MiB.
const MAX_REQUEST: usize = 4 << 20;

/// Calls at once on one connection; a client that begins more waits, as HTTP/2 has it.
const STREAMS: u32 = 1_024;

/// What an HTTP/2 client says first: 24 bytes (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// It has this long to say it. From then on keepalive sees who is gone; before that nothing else would.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);

/// A connection that is silent for this long is asked whether it is alive.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// And it is dropped when it has not answered after this long: a stopped watcher would hold it for ever.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

/// At the end, calls have this long to finish. Watches end at once, but their readers may be asleep.
const GRACE: Duration = Duration::from_secs(3);

/// After a failure to accept a connection, e.g. for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How soon a socket that somebody has deleted is there again.
const LOOK_AFTER: Duration = Duration::from_secs(2);

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
    let gate = Gate::own(context.handle.clone());
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
    let origins = context.origins.clone();
    let socket = Socket::bind(&path).map_err(|source| ServeError::Listen { path, source })?;
    let api = Api::new(context);
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .max_concurrent_streams(STREAMS)
        .layer(Patience)
        .layer(gate)
        .add_service(
            InstanceServiceServer::new(Instances(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(FleetServiceServer::new(Fleets(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST))
        .add_service(EventServiceServer::new(Events(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST))
        .add_service(LogServiceServer::new(Logs(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST))
        .add_service(
            SystemServiceServer::new(Systems(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            ConfigServiceServer::new(Configs(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            IncidentServiceServer::new(Incidents(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            DoctorServiceServer::new(Doctors::new(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            SetupServiceServer::new(Setups::new(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            UpgradeServiceServer::new(Upgrades::new(Arc::clone(&api))).max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(HealthServer::new(Healths(api)).max_decoding_message_size(MAX_REQUEST))
        .add_service(descriptors().build_v1()?)
        .add_service(descriptors().build_v1alpha()?);
    info!(socket = %socket.path.display(), "listening");
    let ended = shutdown.clone();
    let connections = socket.connections(most, origins);
    let serving = server.serve_with_incoming_shutdown(connections, async move { ended.cancelled().await });
    listening();
    tokio::select! {
        served = serving => Ok(served?),
        () = async { shutdown.cancelled().await; sleep(GRACE).await } => {
            warn!("some calls did not finish in time");
            Ok(())
        }
    }
}

/// The control socket. It is removed when it is dropped.
#[derive(Debug)]
struct Socket {
    path: PathBuf,
    listener: UnixListener,
    file: Inode,
}

/// Device and inode of the socket's file.
type Inode = (u64, u64);

impl Socket {
    fn bind(path: &Path) -> io::Result<Self> {
        let (listener, file) = Self::listen(path)?;
        Ok(Self { path: path.to_owned(), listener, file })
    }

    /// Listens on `path`, for this user alone. What is there already is left over from an earlier supervisor, as
    /// this one holds the data directory's lock. It is replaced at once, so that there is never nothing there.
    fn listen(path: &Path) -> io::Result<(UnixListener, Inode)> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let fresh = directory.join(format!(".{SOCKET}.new"));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = bind(directory, &fresh)?;
        // Nobody else can have connected before: the directory is this user's alone.
        fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        let file = inode(&fresh)?;
        fs::rename(&fresh, path)?;
        listener.set_nonblocking(true)?;
        Ok((UnixListener::from_std(listener)?, file))
    }

    /// Listens anew if nobody can find the socket any more. Who is connected stays so.
    fn look_after(&mut self) {
        if inode(&self.path).is_ok_and(|file| file == self.file) {
            return;
        }
        match Self::listen(&self.path) {
            Ok((listener, file)) => {
                warn!(socket = %self.path.display(), "the socket had been deleted; it is there again");
                (self.listener, self.file) = (listener, file);
            }
            Err(error) => warn!(%error, "the socket has been deleted and cannot be made again yet"),
        }
    }

    /// Each connection that comes, as soon as it is known from where. One whose process takes long to trace holds up
    /// no other; it has its seat from the moment it came, so that it cannot take that of who came later.
    fn connections(self, most: Most, origins: FindOrigin) -> impl Stream<Item = io::Result<Connection>> {
        let limits = Limits::new(most);
        let accepted = stream::unfold(self, |mut socket| async { Some((socket.accept().await, socket)) });
        let traced = accepted.map(move |stream| {
            let origins = origins.clone();
            let seat = limits.admit(stream.peer_cred().ok().and_then(|peer| peer.pid()));
            async move {
                let origin = origins.of(&stream).await;
                Ok(Connection::new(stream, origin, seat))
            }
        });
        traced.buffer_unordered(TRACED)
    }

    async fn accept(&mut self) -> UnixStream {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = sleep(LOOK_AFTER) => {
                    self.look_after();
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A socket that stays only means that the next client is refused instead of finding none.
        let _ = fs::remove_file(&self.path);
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Binds a path of any length.
fn bind(directory: &Path, path: &Path) -> io::Result<net::UnixListener> {
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return net::UnixListener::bind(path);
    }
    let directory = File::open(directory)?;
    let name = path.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    net::UnixListener::bind(short)
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// What the kernel says of it.
    pub(super) peer: UdsConnectInfo,
    /// Where its process belongs, if that could be told.
    pub(super) origin: Option<Origin>,
    /// What its calls are counted by.
    pub(super) ticket: Ticket,
}

/// A client's connection.
struct Connection {
    stream: UnixStream,
    origin: Option<Origin>,
    seat: Seat,
    /// When it has to make room for others.
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` once the preface has come.
    greeting: Option<Greeting>,
}

/// A preface on its way.
struct Greeting {
    missing: usize,
    patience: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: UnixStream, origin: Option<Origin>, seat: Seat) -> Self {
        let ended = Box::pin(seat.end.clone().cancelled_owned());
        let greeting = Greeting { missing: PREFACE, patience: Box::pin(sleep(PREFACE_WITHIN)) };
        Self { stream, origin, seat, ended, greeting: Some(greeting) }
    }

    /// An error if it has to make room for others.
    fn check(&mut self, context: &mut task::Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(context) {
            task::Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            task::Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller { peer: self.stream.connect_info(), origin: self.origin.clone(), ticket: self.seat.ticket() }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len() - before;
        if let Some(greeting) = &mut self.greeting {
            greeting.missing = greeting.missing.saturating_sub(came);
            if greeting.missing == 0 {
                self.greeting = None;
            } else if greeting.patience.as_mut().poll(context).is_ready() {
                warn!("a caller that did not say what it wants was let go");
                return task::Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> task::Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> task::Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
