//! The way to the supervisor: where its socket is, the channel, and calls over it.

use std::{
    env,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::Either;
use hyper_util::rt::TokioIo;
use supervisor_proto::v1::{
    Instance, ListInstancesRequest, Reason, config_service_client::ConfigServiceClient,
    doctor_service_client::DoctorServiceClient, event_service_client::EventServiceClient,
    fleet_service_client::FleetServiceClient, incident_service_client::IncidentServiceClient,
    instance_service_client::InstanceServiceClient, log_service_client::LogServiceClient,
    setup_service_client::SetupServiceClient, system_service_client::SystemServiceClient,
    upgrade_service_client::UpgradeServiceClient,
};
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use crate::{
    app::Global,
    error::{Cause, Error, Operation},
};

/// No unary call takes longer than this; the supervisor answers in milliseconds unless its disk is stuck.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// A failed call is repeated once after this: time for a supervisor that is being replaced.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// A stream without an answer to a ping for this long is broken: a stopped supervisor says nothing.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// A snapshot of 10,000 instances is some 20 MiB.
const MAX_ANSWER: usize = 64 << 20;
/// Names for "did you mean" are worth this much waiting.
const NEAREST_DEADLINE: Duration = Duration::from_millis(500);
/// From this similarity on (Jaro-Winkler) a known name is offered for an unknown one.
const NEAR: f64 = 0.8;
/// More pages than this is a server that never ends its list.
const MAX_PAGES: usize = 1_000;
/// The system supervisor's data, used by root.
const SYSTEM_DATA: &str = "/var/lib/openclaw-supervisor";
const DATA_NAME: &str = "openclaw-supervisor";
const SOCKET_NAME: &str = "control.sock";
/// The longest path in a Unix socket's address, without its final NUL (unix(7)).
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Where a supervisor keeps its data and listens.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Absolute.
    pub(crate) data_dir: PathBuf,
    /// Absolute.
    pub(crate) socket: PathBuf,
}

impl Place {
    /// From the options, their variables, and the defaults, in this order.
    pub(crate) fn resolve(global: &Global) -> Result<Self, Cause> {
        let given = global.data_dir.as_deref().filter(|dir| !dir.as_os_str().is_empty());
        let socket = global.socket.as_deref().filter(|path| !path.as_os_str().is_empty());
        let data_dir = match (given, socket) {
            (Some(dir), _) => dir.to_owned(),
            (None, Some(socket)) => default_data_dir().unwrap_or_else(|| parent(socket).to_owned()),
            (None, None) => default_data_dir().ok_or(Cause::NoDataDir)?,
        };
        let data_dir = absolute(&data_dir);
        let socket = socket.map_or_else(|| data_dir.join(SOCKET_NAME), absolute);
        Ok(Self { data_dir, socket })
    }

    /// Whether a supervisor started on the data directory would listen on the socket.
    pub(crate) fn is_own_socket(&self) -> bool {
        self.socket == self.data_dir.join(SOCKET_NAME)
    }

    /// Connects to the socket, bare.
    pub(crate) async fn dial(&self) -> Result<UnixStream, Cause> {
        let dialled = if self.socket.as_os_str().len() > MAX_SOCKET_PATH {
            dial_long(&self.socket).await?
        } else {
            UnixStream::connect(&self.socket).await
        };
        dialled.map_err(|source| {
            let socket = self.socket.clone();
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
                Cause::NoListener { socket }
            } else {
                Cause::Connect { socket, source }
            }
        })
    }
}

/// Reaches a socket whose path is too long for its address through a descriptor of its directory.
#[cfg(target_os = "linux")]
async fn dial_long(socket: &Path) -> Result<io::Result<UnixStream>, Cause> {
    use std::{fs::File, os::fd::AsRawFd};

    let directory = match File::open(parent(socket)) {
        Ok(directory) => directory,
        Err(error) => return Ok(Err(error)),
    };
    let name = socket.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(UnixStream::connect(short).await)
}

#[cfg(not(target_os = "linux"))]
async fn dial_long(socket: &Path) -> Result<io::Result<UnixStream>, Cause> {
    Err(Cause::SocketPath { socket: socket.to_owned(), limit: MAX_SOCKET_PATH })
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn default_data_dir() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some(SYSTEM_DATA.into());
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base =
        absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
    Some(base.join(DATA_NAME))
}

/// A supervisor that listens.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    channel: Channel,
}

impl Supervisor {
    /// Connects.
    pub(crate) async fn connect(place: &Place) -> Result<Self, Cause> {
        // Dialled here first, because the channel's own errors no longer tell a missing socket from a
        // forbidden one.
        let first = Arc::new(Mutex::new(Some(place.dial().await?)));
        let redial = place.clone();
        let connector = service_fn(move |_| {
            let ready = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            match ready {
                Some(stream) => Either::Left(std::future::ready(Ok(TokioIo::new(stream)))),
                None => {
                    let place = redial.clone();
                    Either::Right(
                        async move { place.dial().await.map(TokioIo::new).map_err(io::Error::other) },
                    )
                }
            }
        });
        let channel = Endpoint::from_static("http://localhost")
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .connect_with_connector(connector)
            .await
            .map_err(|error| Cause::Broken(error.to_string()))?;
        Ok(Self { channel })
    }

    pub(crate) fn instances(&self) -> InstanceServiceClient<Channel> {
        InstanceServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn logs(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn configs(&self) -> ConfigServiceClient<Channel> {
        ConfigServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn incidents(&self) -> IncidentServiceClient<Channel> {
        IncidentServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn doctor(&self) -> DoctorServiceClient<Channel> {
        DoctorServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn setup(&self) -> SetupServiceClient<Channel> {
        SetupServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn upgrade(&self) -> UpgradeServiceClient<Channel> {
        UpgradeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn system(&self) -> SystemServiceClient<Channel> {
        SystemServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Sends a call, and once more if it may have been lost. `send` must use the same `request_id` each time.
    pub(crate) async fn call<T>(
        &self,
        operation: &Operation,
        send: impl AsyncFn() -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        self.call_within(CALL_DEADLINE, operation, send).await
    }

    /// Like [`call`](Self::call), for calls that wait at the other end.
    pub(crate) async fn call_within<T>(
        &self,
        deadline: Duration,
        operation: &Operation,
        send: impl AsyncFn() -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let attempt = async || -> Result<T, Cause> {
            match timeout(deadline, send()).await {
                Ok(Ok(answer)) => Ok(answer.into_inner()),
                Ok(Err(status)) => Err(Cause::from(status)),
                Err(_) => Err(Cause::NoAnswer(deadline)),
            }
        };
        let mut outcome = attempt().await;
        if matches!(&outcome, Err(cause) if cause.may_pass()) {
            tokio::time::sleep(RETRY_PAUSE).await;
            outcome = attempt().await;
        }
        match outcome {
            Ok(answer) => Ok(answer),
            Err(cause) => Err(self.explain(cause, operation).await),
        }
    }

    /// Every instance, by name, and the revision they were read at.
    pub(crate) async fn list(&self, operation: &Operation) -> Result<(Vec<Instance>, u64), Error> {
        let mut instances = Vec::new();
        let mut page_token = String::new();
        for _ in 0..MAX_PAGES {
            let answer = self
                .call(operation, async || {
                    let request =
                        ListInstancesRequest { page_token: page_token.clone(), ..Default::default() };
                    self.instances().list_instances(request).await
                })
                .await?;
            instances.extend(answer.instances);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok((instances, answer.revision));
            }
        }
        Err(Cause::Incomplete("last page").during(operation))
    }

    /// Names the operation that ended, and to "no such instance" the nearest known name.
    pub(crate) async fn explain(&self, mut cause: Cause, operation: &Operation) -> Error {
        if let (Cause::Refused(refusal), Some(name)) = (&mut cause, operation.subject())
            && refusal.reason == Some(Reason::UnknownInstance)
            && let Ok(Ok(answer)) =
                timeout(NEAREST_DEADLINE, self.instances().list_instances(ListInstancesRequest::default()))
                    .await
        {
            let known = answer.into_inner().instances.into_iter().map(|instance| instance.name);
            refusal.nearest = nearest(name, known);
        }
        cause.during(operation)
    }
}

fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A new request id: the same call may be sent again with it.
pub(crate) fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_if_it_is_near() {
        let known = || ["main", "rescue", "web-1"].map(str::to_owned).into_iter();
        assert_eq!(nearest("rescu", known()).as_deref(), Some("rescue"));
        assert_eq!(nearest("mian", known()).as_deref(), Some("main"));
        assert_eq!(nearest("zzz", known()), None);
    }
}
