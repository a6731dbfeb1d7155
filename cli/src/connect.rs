//! The way to the supervisor: which one it is, the channel, and calls over it.

mod place;
mod remote;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::Either;
use hyper_util::rt::TokioIo;
use supervisor_proto::v1::{
    Instance, ListInstancesRequest, Reason, alert_service_client::AlertServiceClient,
    audit_service_client::AuditServiceClient, certificate_service_client::CertificateServiceClient,
    config_service_client::ConfigServiceClient, doctor_service_client::DoctorServiceClient,
    event_service_client::EventServiceClient, fleet_service_client::FleetServiceClient,
    incident_service_client::IncidentServiceClient, instance_service_client::InstanceServiceClient,
    log_service_client::LogServiceClient, setup_service_client::SetupServiceClient,
    system_service_client::SystemServiceClient, upgrade_service_client::UpgradeServiceClient,
    web_service_client::WebServiceClient,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tower::service_fn;

pub(crate) use self::{
    place::{Owner, Place},
    remote::{Remote, RemoteError},
};
use crate::{
    app::Global,
    contexts::{Contexts, Door},
    error::{Cause, Error, Operation},
    progress,
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
/// Names a context, where nothing nearer names a supervisor.
pub(crate) const CONTEXT: &str = "OPENCLAWCTL_CONTEXT";
/// More pages than this is a server that never ends its list.
const MAX_PAGES: usize = 1_000;

/// Which supervisor.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) way: Way,
    /// A file with a token to show.
    token: Option<PathBuf>,
}

/// How it is reached.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// On this host, by a Unix socket.
    Here(Place),
    /// By TCP.
    There(Remote),
}

impl Target {
    /// From `--context`; else from the options and variables that name a place; else from the variable that names a
    /// context, the current context, and the defaults, in this order.
    pub(crate) fn resolve(global: &Global) -> Result<Self, Cause> {
        let target = Self::find(global)?;
        let given = global.token_file.clone().filter(|path| !path.as_os_str().is_empty());
        Ok(Self { token: given.or(target.token), ..target })
    }

    fn find(global: &Global) -> Result<Self, Cause> {
        let named = match &global.context {
            Some(context) => Some(context.clone()),
            None if Place::is_named(global) => None,
            None => std::env::var(CONTEXT).ok().filter(|name| !name.is_empty()),
        };
        if named.is_none() && Place::is_named(global) {
            return Self::here(global);
        }
        let contexts = Contexts::load()?;
        let Some(name) = named.or_else(|| contexts.current().map(str::to_owned)) else {
            return Self::here(global);
        };
        let entry = contexts.get(&name)?;
        let way = match &entry.door {
            Door::Unix(socket) => Way::Here(Place::of_socket(&contexts.absolute(socket))),
            Door::Tcp(tcp) => Way::There(Remote::new(&name, tcp, &contexts)?),
        };
        Ok(Self { way, token: entry.token_file.as_deref().map(|path| contexts.absolute(path)) })
    }

    fn here(global: &Global) -> Result<Self, Cause> {
        Ok(Self { way: Way::Here(Place::resolve(global)?), token: None })
    }

    async fn dial(&self) -> Result<Dialled, Cause> {
        match &self.way {
            Way::Here(place) => {
                let stream = place.dial().await?;
                let owner = Owner::of(&stream)
                    .map_err(|source| Cause::Connect { socket: place.socket.clone(), source })?;
                Ok((Box::new(stream), Some(owner)))
            }
            Way::There(remote) => Ok((Box::new(remote.dial().await?), None)),
        }
    }

    /// Connects again, to the same user's supervisor: what was learnt of the first one is relied on.
    async fn redial(&self, owner: Option<Owner>) -> Result<Box<dyn Stream>, Cause> {
        let (stream, now) = self.dial().await?;
        match now == owner {
            true => Ok(stream),
            false => Err(Cause::Broken("another user's supervisor listens there now".to_owned())),
        }
    }
}

impl From<Place> for Target {
    fn from(place: Place) -> Self {
        Self { way: Way::Here(place), token: None }
    }
}

/// What a channel is made over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A stream, and who is at its other end if that is on this host.
type Dialled = (Box<dyn Stream>, Option<Owner>);

/// Shows the token, if there is one, with each call.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn read(token: Option<&Path>) -> Result<Self, Cause> {
        let Some(path) = token else { return Ok(Self(None)) };
        let token = remote::secret(path)?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| RemoteError::NoToken { path: path.to_owned() })?;
        // Kept out of what is printed for debugging.
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// What calls go over.
pub(crate) type Line = InterceptedService<Channel, Bearer>;

/// A supervisor that listens.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    line: Line,
    owner: Option<Owner>,
}

impl Supervisor {
    /// Connects.
    pub(crate) async fn connect(target: &Target) -> Result<Self, Cause> {
        let bearer = Bearer::read(target.token.as_deref())?;
        // Dialled here first, because the channel's own errors no longer tell a missing socket from a
        // forbidden one.
        let (first, owner) = target.dial().await?;
        let first = Arc::new(Mutex::new(Some(first)));
        let redial = target.clone();
        let connector = service_fn(move |_| {
            let ready = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            match ready {
                Some(stream) => Either::Left(std::future::ready(Ok(TokioIo::new(stream)))),
                None => {
                    let target = redial.clone();
                    Either::Right(async move {
                        target.redial(owner).await.map(TokioIo::new).map_err(io::Error::other)
                    })
                }
            }
        });
        let channel = Endpoint::from_static("http://localhost")
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .connect_with_connector(connector)
            .await
            .map_err(|error| Cause::Broken(error.to_string()))?;
        Ok(Self { line: InterceptedService::new(channel, bearer), owner })
    }

    /// As whom it listens, if it does on this host.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.owner
    }

    pub(crate) fn instances(&self) -> InstanceServiceClient<Line> {
        InstanceServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn fleet(&self) -> FleetServiceClient<Line> {
        FleetServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn events(&self) -> EventServiceClient<Line> {
        EventServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn logs(&self) -> LogServiceClient<Line> {
        LogServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn configs(&self) -> ConfigServiceClient<Line> {
        ConfigServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Line> {
        AuditServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn incidents(&self) -> IncidentServiceClient<Line> {
        IncidentServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn doctor(&self) -> DoctorServiceClient<Line> {
        DoctorServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn setup(&self) -> SetupServiceClient<Line> {
        SetupServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn upgrade(&self) -> UpgradeServiceClient<Line> {
        UpgradeServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn certificates(&self) -> CertificateServiceClient<Line> {
        CertificateServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn web(&self) -> WebServiceClient<Line> {
        WebServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn alerts(&self) -> AlertServiceClient<Line> {
        AlertServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn system(&self) -> SystemServiceClient<Line> {
        SystemServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Sends a call, and once more if it may have been lost. `send` must use the same `request_id` each time.
    pub(crate) async fn call<T>(
        &self,
        operation: &Operation,
        send: impl AsyncFn() -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        self.sent(CALL_DEADLINE, operation, send).await
    }

    /// Like [`call`](Self::call), for calls that wait at the other end. A terminal shows that they do.
    pub(crate) async fn call_within<T>(
        &self,
        deadline: Duration,
        operation: &Operation,
        send: impl AsyncFn() -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        progress::during(&operation.to_string(), self.sent(deadline, operation, send)).await
    }

    async fn sent<T>(
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

pub(crate) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let allowed = (name.chars().count() / 3).max(1);
    known
        .map(|candidate| (strsim::osa_distance(name, &candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
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
        assert_eq!(nearest("amin", known()).as_deref(), Some("main"));
        assert_eq!(nearest("zzz", known()), None);
    }

    #[tokio::test]
    async fn a_connection_is_made_again_to_the_same_users_supervisor_alone() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let _listening = tokio::net::UnixListener::bind(&socket).unwrap();
        let target = Target::from(Place::of_socket(&socket));
        let (_, owner) = target.dial().await.ok().unwrap();
        assert_eq!(owner.map(|owner| owner.uid), Some(nix::unistd::geteuid().as_raw()));
        assert!(target.redial(owner).await.is_ok());
        let another = owner.map(|owner| Owner { uid: owner.uid + 1, ..owner });
        let refused = target.redial(another).await.err().unwrap();
        assert_eq!(
            refused.to_string(),
            "the connection to the supervisor broke: another user's supervisor listens there now"
        );
    }
}
