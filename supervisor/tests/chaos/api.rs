//! Calls of the API. Each has a connection of its own, as a command line would.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use supervisor_proto::v1::{
    self, Event, Instance, event_service_client::EventServiceClient,
    fleet_service_client::FleetServiceClient, instance_service_client::InstanceServiceClient,
    log_service_client::LogServiceClient, system_service_client::SystemServiceClient,
};
use tokio::{net::UnixStream, time};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The supervisor said no: nothing has changed.
    Refused(String),
    /// Nobody was there to be asked: nothing has changed.
    Unheard,
    /// There was no answer: it may have been done, or may yet be.
    Unknown(String),
}

impl Outcome {
    fn of<T>(result: Result<T, Status>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(status) => match status.code() {
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::Aborted
                | Code::OutOfRange
                | Code::ResourceExhausted
                | Code::PermissionDenied => Self::Refused(status.message().to_owned()),
                Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
                | Code::Unauthenticated => {
                    Self::Unknown(format!("{:?}: {}", status.code(), status.message()))
                }
            },
        }
    }
}

/// A caller.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    socket: PathBuf,
}

/// What is asked of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Up,
    Down { force: bool },
    Restart { force: bool },
    FailOver,
    FailBack,
    Delete,
}

impl Api {
    /// A caller of the supervisor at this socket.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// A connection.
    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        let socket = self.socket.clone();
        Endpoint::from_static("http://localhost")
            .connect_with_connector(service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }))
            .await
            .context("failed to connect to the supervisor")
    }

    /// Asks something of one instance.
    pub(crate) async fn verb(&self, name: &str, verb: Verb, patience: Duration) -> Outcome {
        let call = async {
            let Ok(channel) = self.channel().await else { return Outcome::Unheard };
            let mut client = InstanceServiceClient::new(channel);
            let name = name.to_owned();
            match verb {
                Verb::Up => {
                    let request = v1::StartInstanceRequest { name, ..Default::default() };
                    Outcome::of(client.start_instance(request).await)
                }
                Verb::Down { force } => {
                    let request = v1::StopInstanceRequest { name, force, ..Default::default() };
                    Outcome::of(client.stop_instance(request).await)
                }
                Verb::Restart { force } => {
                    let request = v1::RestartInstanceRequest { name, force, ..Default::default() };
                    Outcome::of(client.restart_instance(request).await)
                }
                Verb::FailOver => {
                    let request = v1::FailOverRequest { primary: name, ..Default::default() };
                    Outcome::of(client.fail_over(request).await)
                }
                Verb::FailBack => {
                    let request = v1::FailBackRequest { primary: name, ..Default::default() };
                    Outcome::of(client.fail_back(request).await)
                }
                Verb::Delete => {
                    let request = v1::DeleteInstanceRequest { name, purge: true, ..Default::default() };
                    Outcome::of(client.delete_instance(request).await)
                }
            }
        };
        bounded(patience, call).await
    }

    /// Applies a fleet file and starts what is new in it.
    pub(crate) async fn apply(&self, content: String, patience: Duration) -> Outcome {
        let call = async {
            let Ok(channel) = self.channel().await else { return Outcome::Unheard };
            let request = v1::ApplyFleetRequest {
                content,
                file_name: "fleet.yaml".into(),
                start: true,
                ..Default::default()
            };
            Outcome::of(FleetServiceClient::new(channel).apply_fleet(request).await)
        };
        bounded(patience, call).await
    }

    /// Begins to watch all instances, and goes away after the first change.
    pub(crate) async fn glance(&self, patience: Duration) -> Outcome {
        let call = async {
            let Ok(channel) = self.channel().await else { return Outcome::Unheard };
            let request = v1::WatchInstancesRequest::default();
            match InstanceServiceClient::new(channel).watch_instances(request).await {
                Ok(stream) => Outcome::of(stream.into_inner().message().await),
                Err(status) => Outcome::of::<()>(Err(status)),
            }
        };
        bounded(patience, call).await
    }

    /// Reads the last lines of an instance's log.
    pub(crate) async fn logs(&self, name: &str, patience: Duration) -> Outcome {
        let call = async {
            let Ok(channel) = self.channel().await else { return Outcome::Unheard };
            let request = v1::ReadLogsRequest { name: name.to_owned(), tail: Some(20), ..Default::default() };
            let mut stream = match LogServiceClient::new(channel).read_logs(request).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => return Outcome::of::<()>(Err(status)),
            };
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    end => return Outcome::of(end),
                }
            }
        };
        bounded(patience, call).await
    }

    /// Creates an instance.
    pub(crate) async fn create(&self, name: &str, spec: v1::InstanceSpec) -> anyhow::Result<Instance> {
        let mut client = InstanceServiceClient::new(self.channel().await?);
        let request =
            v1::CreateInstanceRequest { name: name.to_owned(), spec: Some(spec), ..Default::default() };
        let answer = client.create_instance(request).await;
        let answer = answer.with_context(|| format!("failed to create `{name}`"))?;
        answer.into_inner().instance.context("the supervisor made no instance")
    }

    /// All instances.
    pub(crate) async fn list(&self) -> anyhow::Result<Vec<Instance>> {
        let mut client = InstanceServiceClient::new(self.channel().await?);
        let answer = client.list_instances(v1::ListInstancesRequest::default()).await;
        Ok(answer.context("failed to list the instances")?.into_inner().instances)
    }

    /// What the supervisor says of itself.
    pub(crate) async fn info(&self) -> anyhow::Result<v1::GetInfoResponse> {
        let mut client = SystemServiceClient::new(self.channel().await?);
        let answer = client.get_info(v1::GetInfoRequest {}).await;
        Ok(answer.context("failed to ask for its state")?.into_inner())
    }

    /// Who listens on which port.
    pub(crate) async fn ports(&self) -> anyhow::Result<Vec<v1::InstancePorts>> {
        let mut client = SystemServiceClient::new(self.channel().await?);
        let answer = client.list_ports(v1::ListPortsRequest::default()).await;
        Ok(answer.context("failed to list the ports")?.into_inner().instances)
    }

    /// All events after a revision, oldest first.
    pub(crate) async fn events(&self, after_revision: u64) -> anyhow::Result<Vec<Event>> {
        let mut client = EventServiceClient::new(self.channel().await?);
        let mut events = Vec::new();
        let mut page_token = String::new();
        loop {
            let request =
                v1::ListEventsRequest { after_revision, page_size: 1_000, page_token, ..Default::default() };
            let page = client.list_events(request).await.context("failed to list the events")?.into_inner();
            events.extend(page.events);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(events);
            }
        }
    }
}

/// A call that is not waited for any longer may still be done.
async fn bounded(patience: Duration, call: impl Future<Output = Outcome>) -> Outcome {
    time::timeout(patience, call).await.unwrap_or_else(|_| Outcome::Unknown("no answer".into()))
}
