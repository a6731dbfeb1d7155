//! A supervisor's API and its clients.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::Path,
    sync::{Arc, Barrier, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use supervisor_proto::v1::{
    CreateInstanceRequest, GetInfoRequest, Instance, InstanceSpec, InstanceStatus, RescuePolicy,
    StartInstanceRequest, event_service_client::EventServiceClient, fleet_service_client::FleetServiceClient,
    instance_service_client::InstanceServiceClient, log_service_client::LogServiceClient,
    rescue_policy::Standby, system_service_client::SystemServiceClient,
};
use tokio::{net::UnixStream, sync::oneshot, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use tower::service_fn;

use super::world::{BEGAN, World};
use crate::{
    alerts::Alerts,
    api::{
        Context, FindHold, FindListeners, FindOrigin, Listener, ServeError,
        gate::Gate,
        limits::Most,
        listen::{serve_through, socket_path},
    },
    custody::Exposed,
    lineage::Origin,
    logging::Logging,
    openclaw::{
        environment::Control,
        guest::{self, Held},
        prepare::Host,
        walls::around,
    },
    recycle::Recycler,
    settings::Settings,
    undying::Undying,
    user::User,
};
use supervisor_core::time::Moment;

/// Nothing that is waited for takes this long, on however busy a host.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A world with an API before it.
pub(super) struct Server {
    pub(super) world: World,
    pub(super) channel: Channel,
    pub(super) shutdown: CancellationToken,
    pub(super) served: JoinHandle<Result<(), ServeError>>,
    /// Where all who connect from now on come from.
    pub(super) origin: Arc<Mutex<Option<Origin>>>,
    /// What finding that out waits for.
    pub(super) stuck: Arc<Mutex<Option<Arc<Barrier>>>>,
    /// Whoever enters an instance comes there, and goes on from it the second time.
    pub(super) entering: Arc<Mutex<Option<Arc<Barrier>>>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let world = World::new(100);
        let gate = world.gate();
        Self::build(world, gate).await
    }

    pub(super) async fn build(world: World, gate: Gate) -> Self {
        Self::within(world, gate, Most::USUAL).await
    }

    pub(super) async fn within(world: World, gate: Gate, most: Most) -> Self {
        let data_dir = world.directory.path().to_owned();
        // Where the built-in gateway is looked for.
        let builtin = data_dir.join("builtin-gateway");
        fs::write(&builtin, "").unwrap();
        fs::set_permissions(&builtin, fs::Permissions::from_mode(0o755)).unwrap();
        let socket = world.socket.clone().unwrap_or_else(|| socket_path(&data_dir));
        let environment = [("PATH", "/nowhere"), ("OPENAI_API_KEY", "sk-1"), ("LANG", "C"), ("TERM", "dumb")];
        let environment: BTreeMap<_, _> =
            environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let shutdown = CancellationToken::new();
        let origin = Arc::new(Mutex::new(Some(Origin::Outside)));
        let stuck = Arc::new(Mutex::new(None::<Arc<Barrier>>));
        let (found, waits) = (Arc::clone(&origin), Arc::clone(&stuck));
        let entering = Arc::new(Mutex::new(None::<Arc<Barrier>>));
        let enters = Arc::clone(&entering);
        let context = Context {
            handle: world.handle.clone(),
            journal: world.journal.clone(),
            host: Arc::new(Host {
                control: Control { data_dir: data_dir.clone(), socket: socket.clone() },
                environment,
                beside_daemon: data_dir,
            }),
            settings: Settings::default(),
            recycler: Recycler::start(world.handle.clone()),
            walls: Default::default(),
            listeners: FindListeners(Arc::new(listeners)),
            hold: FindHold(Arc::new(move |host, guest| {
                let barrier = enters.lock().unwrap().clone();
                if let Some(barrier) = barrier {
                    barrier.wait();
                    barrier.wait();
                }
                let (user, trees) = guest::place(host, guest)?;
                let walls = around(&guest.spec, trees, guest.block, user.clone());
                let mark = format!("store/{}", guest.name);
                Ok(Held { user: user.unwrap_or_else(User::own), walls, mark })
            })),
            origins: FindOrigin::new(move |_, _| {
                let stuck = waits.lock().unwrap().clone();
                if let Some(stuck) = stuck {
                    stuck.wait();
                }
                Ok(found.lock().unwrap().clone())
            }),
            exposed: Exposed::default(),
            undying: Undying::default(),
            bindings: world.bindings.clone(),
            audit: world.audit.clone(),
            metrics: world.metrics.clone(),
            started: Moment(BEGAN),
            epoch: 3,
            web: None,
            alerts: Alerts::new(Default::default(), world.directory.path().to_owned()),
            logging: Logging::default(),
            beats: tokio::sync::watch::channel(()).1,
            shutdown: shutdown.clone(),
        };
        let (listening, ready) = oneshot::channel();
        let served = tokio::spawn(serve_through(gate, most, context, move || listening.send(()).unwrap()));
        within(ready).await.unwrap();
        Self { world, channel: connect(&socket).await, shutdown, served, origin, stuck, entering }
    }

    /// A connection from there.
    pub(super) async fn from(&self, origin: Option<Origin>) -> Channel {
        *self.origin.lock().unwrap() = origin;
        let channel = connect(&self.socket()).await;
        // Who has an answer has been traced.
        let _ = within(SystemServiceClient::new(channel.clone()).get_info(GetInfoRequest {})).await;
        *self.origin.lock().unwrap() = Some(Origin::Outside);
        channel
    }

    pub(super) fn socket(&self) -> std::path::PathBuf {
        socket_path(self.world.directory.path())
    }

    pub(super) fn instances(&self) -> InstanceServiceClient<Channel> {
        InstanceServiceClient::new(self.channel.clone())
    }

    pub(super) fn fleets(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel.clone())
    }

    pub(super) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone())
    }

    pub(super) fn logs(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel.clone())
    }

    pub(super) fn system(&self) -> SystemServiceClient<Channel> {
        SystemServiceClient::new(self.channel.clone())
    }

    /// Creates an instance with this spec.
    pub(super) async fn create(&self, name: &str, spec: InstanceSpec) -> Instance {
        let request = CreateInstanceRequest { name: name.into(), spec: Some(spec), ..Default::default() };
        within(self.instances().create_instance(request)).await.unwrap().into_inner().instance.unwrap()
    }

    /// Starts an instance, made from defaults if need be, and waits until it is ready.
    pub(super) async fn up(&self, name: &str) -> Instance {
        let name = name.to_owned();
        let request = StartInstanceRequest { name, allow_missing: true, wait: true, ..Default::default() };
        within(self.instances().start_instance(request)).await.unwrap().into_inner().instance.unwrap()
    }

    /// An instance as it is now.
    pub(super) async fn get(&self, name: &str) -> Instance {
        let request = supervisor_proto::v1::GetInstanceRequest { name: name.into() };
        within(self.instances().get_instance(request)).await.unwrap().into_inner().instance.unwrap()
    }

    /// Waits until an instance is there and as it should be.
    pub(super) async fn until(&self, name: &str, is: impl Fn(&InstanceStatus) -> bool) -> InstanceStatus {
        let mut views = self.world.handle.watch();
        within(async {
            loop {
                if views.borrow_and_update().instances.contains_key(name) {
                    let status = self.get(name).await.status.unwrap();
                    if is(&status) {
                        return status;
                    }
                }
                views.changed().await.unwrap();
            }
        })
        .await
    }
}

/// Port 18791 is held by someone else.
fn listeners(ports: &[u16]) -> Vec<Listener> {
    let held = ports.iter().filter(|port| **port == 18_791);
    held.map(|port| Listener { port: *port, pid: Some(1), command: "init".into() }).collect()
}

/// A connection of its own.
pub(super) async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = service_fn(move |_| -> BoxFuture<'static, std::io::Result<TokioIo<UnixStream>>> {
        let socket = socket.clone();
        Box::pin(async move {
            // A path too long for an address is reached through a descriptor of its directory.
            let directory = fs::File::open(socket.parent().unwrap())?;
            let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
            Ok(TokioIo::new(UnixStream::connect(short.join(socket.file_name().unwrap())).await?))
        })
    });
    within(Endpoint::from_static("http://localhost").connect_with_connector(connector)).await.unwrap()
}

/// Fails the test if `work` is not done in time.
pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it should have been done by now")
}

/// Asserts a refusal, and gives its sentence.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> String {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    let info = status.get_details_error_info().expect("each refusal has its reason");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "openclaw.supervisor"));
    assert!(status.message().ends_with('.'), "{}", status.message());
    status.message().to_owned()
}

/// A spec that stands in for `primary`.
pub(super) fn rescues(primary: &str, standby: Standby) -> InstanceSpec {
    InstanceSpec {
        rescues: vec![primary.into()],
        rescue: Some(RescuePolicy { standby: standby.into(), ..Default::default() }),
        ..Default::default()
    }
}
