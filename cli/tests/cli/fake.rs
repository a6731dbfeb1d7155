//! A supervisor that does what the test says: the v1 services over a Unix socket, and a world to arrange.

mod certificates;
mod recovery;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{Stream, StreamExt, stream};
use prost_types::Timestamp;
use rustix::{
    process::{Gid, Uid, getegid, geteuid},
    thread::{set_thread_res_gid, set_thread_res_uid},
};
use supervisor_proto::v1::{
    self as v1, EnterInstanceRequest, EnterInstanceResponse,
    audit_service_server::AuditServiceServer,
    certificate_service_server::CertificateServiceServer,
    config_service_server::ConfigServiceServer,
    doctor_service_server::{DoctorService, DoctorServiceServer},
    event_service_server::{EventService, EventServiceServer},
    fleet_service_server::{FleetService, FleetServiceServer},
    incident_service_server::IncidentServiceServer,
    instance_service_server::{InstanceService, InstanceServiceServer},
    log_service_server::{LogService, LogServiceServer},
    system_service_server::{SystemService, SystemServiceServer},
    watch_instances_response::{Change, Snapshot},
    *,
};
use tokio::{net::UnixSocket, sync::watch};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

use self::certificates::Certificates;
pub(crate) use self::recovery::Recovery;

/// What a start, stop or restart leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The outcome is there when the verb is answered.
    AtOnce(Phase),
    /// The outcome comes when the first watch has sent its snapshot.
    WhenWatched(Phase),
    /// Nothing comes.
    Never,
}

/// All that the fake knows.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) revision: u64,
    pub(crate) instances: BTreeMap<String, Instance>,
    /// The doctor does not answer.
    pub(crate) held: bool,
    /// Those that were there.
    pub(crate) deleted: Vec<String>,
    pub(crate) then: Then,
    /// Why an instance is as it is, once its outcome has come.
    pub(crate) reason: String,
    /// Refusals to give, by method, one a call.
    pub(crate) refusals: HashMap<&'static str, VecDeque<Status>>,
    /// Calls received: method and request id.
    pub(crate) calls: Vec<(&'static str, String)>,
    pub(crate) alarms: Vec<String>,
    pub(crate) events: Vec<Event>,
    /// What ReadLogs streams give, one batch a call; the stream then breaks if more are left.
    pub(crate) logs: VecDeque<Vec<LogLine>>,
    pub(crate) log_requests: Vec<ReadLogsRequest>,
    /// Messages of logs that a connection has taken.
    pub(crate) logs_taken: usize,
    pub(crate) ports: Vec<InstancePorts>,
    pub(crate) examined: ExamineResponse,
    pub(crate) examinations: Vec<ExamineRequest>,
    pub(crate) recovery: Recovery,
    pub(crate) certificates: Certificates,
    /// The fleet file that an export gives.
    pub(crate) exported: String,
    pub(crate) environment: GetInstanceEnvironmentResponse,
    pub(crate) entry: EnterInstanceResponse,
    pub(crate) plan: Vec<FleetChange>,
    pub(crate) applied: Vec<ApplyFleetRequest>,
    /// Streams that end at once, as when a supervisor is replaced.
    pub(crate) broken_watches: u32,
}

/// The name of a refusal, as the real supervisor words its details.
pub(crate) fn refusal(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, v1::ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

/// A time so many seconds ago.
pub(crate) fn seconds_ago(seconds: u64) -> Option<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(seconds);
    Some(Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 })
}

/// An instance in a phase, with a port block that begins at `base`.
pub(crate) fn instance(name: &str, phase: Phase, base: u32) -> Instance {
    let runs = matches!(phase, Phase::Starting | Phase::Ready | Phase::Unhealthy | Phase::Stopping);
    let status = InstanceStatus {
        phase: phase.into(),
        wish: if phase == Phase::Stopped { Wish::Down } else { Wish::Up }.into(),
        phase_time: seconds_ago(185),
        incarnation: 1,
        ports: Some(PortBlock {
            base,
            gateway: base,
            browser_control: base + 2,
            canvas: base + 4,
            cdp_first: base + 11,
            cdp_last: base + 19,
            last: base + 19,
        }),
        pid: if runs { 4_000 + (base as i32 % 1_000) } else { 0 },
        worker_pid: if runs { 3_000 } else { 0 },
        start_time: seconds_ago(185),
        runtime: Runtime::Builtin.into(),
        revision: 1,
        generation: 1,
        observed_generation: 1,
        settled: true,
        failover: Some(FailoverStatus { role: Role::Single.into(), ..Default::default() }),
        ..Default::default()
    };
    Instance {
        name: name.into(),
        status: Some(status),
        spec: Some(InstanceSpec::default()),
        etag: "1".into(),
    }
}

/// The status of an instance, to arrange.
pub(crate) fn status(instance: &mut Instance) -> &mut InstanceStatus {
    instance.status.get_or_insert_default()
}

#[derive(Clone)]
struct Service {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

impl Service {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn admit(&self, method: &'static str, request_id: &str) -> Result<(), Status> {
        let mut world = self.world();
        world.calls.push((method, request_id.to_owned()));
        match world.refusals.get_mut(method).and_then(VecDeque::pop_front) {
            Some(status) => Err(status),
            None => Ok(()),
        }
    }

    fn get(&self, name: &str) -> Result<Instance, Status> {
        let unknown =
            || refusal(Code::NotFound, "UNKNOWN_INSTANCE", &format!("no instance is called `{name}`."));
        self.world().instances.get(name).cloned().ok_or_else(unknown)
    }

    /// Records a wish, and what comes of it.
    fn wish(&self, name: &str, under_way: Phase) -> Result<(Instance, u64), Status> {
        self.get(name)?;
        let mut world = self.world();
        world.revision += 1;
        let (revision, then, reason) = (world.revision, world.then, world.reason.clone());
        let instance = world.instances.get_mut(name).unwrap();
        let outcome = if let Then::AtOnce(phase) = then { phase } else { under_way };
        settle(instance, outcome, revision, &reason, matches!(then, Then::AtOnce(_)));
        status(instance).wish = if under_way == Phase::Stopping { Wish::Down } else { Wish::Up }.into();
        let answer = instance.clone();
        drop(world);
        self.changed.send_replace(revision);
        Ok((answer, revision))
    }
}

fn settle(instance: &mut Instance, phase: Phase, revision: u64, reason: &str, settled: bool) {
    let status = status(instance);
    status.phase = phase.into();
    status.revision = revision;
    status.settled = settled;
    status.reason = reason.to_owned();
    status.phase_time = seconds_ago(0);
    let runs = !matches!(phase, Phase::Stopped | Phase::Failed | Phase::Backoff | Phase::Spawning);
    status.pid = if runs { 4_242 } else { 0 };
    status.start_time = seconds_ago(3);
}

/// In one message.
const LOG_LINES: usize = 100;

/// A fake supervisor that serves until it is dropped.
pub(crate) struct Fake {
    service: Service,
    _directory: Option<tempfile::TempDir>,
    pub(crate) data_dir: PathBuf,
    server: Option<JoinHandle<()>>,
}

impl Fake {
    /// One on a directory of its own.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().to_owned();
        let mut fake = Self::start_in(&data_dir);
        fake._directory = Some(directory);
        fake
    }

    /// One on a directory that is there.
    pub(crate) fn start_in(data_dir: &Path) -> Self {
        Self::start_as(data_dir, nix::unistd::geteuid().as_raw())
    }

    /// The same, where the kernel says that it listens as this user, and as a group of the same number.
    pub(crate) fn start_as(data_dir: &Path, user: u32) -> Self {
        let world = World {
            revision: 10,
            instances: BTreeMap::new(),
            held: false,
            deleted: Vec::new(),
            then: Then::AtOnce(Phase::Ready),
            reason: String::new(),
            refusals: HashMap::new(),
            calls: Vec::new(),
            alarms: Vec::new(),
            events: Vec::new(),
            logs: VecDeque::new(),
            log_requests: Vec::new(),
            logs_taken: 0,
            ports: Vec::new(),
            examined: ExamineResponse::default(),
            examinations: Vec::new(),
            recovery: Recovery::default(),
            certificates: Certificates::default(),
            exported: "instances:\n  main: {}\n".into(),
            environment: GetInstanceEnvironmentResponse::default(),
            entry: EnterInstanceResponse::default(),
            plan: Vec::new(),
            applied: Vec::new(),
            broken_watches: 0,
        };
        let service = Service {
            world: Arc::new(Mutex::new(world)),
            changed: watch::Sender::new(10),
            stop: watch::Sender::new(false),
        };
        let (ready, listening) = std::sync::mpsc::channel();
        let (server, data_dir) = (service.clone(), data_dir.to_owned());
        let socket = data_dir.join("control.sock");
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap()
                .block_on(serve(server, (socket, user), move || ready.send(()).unwrap()));
        });
        listening.recv().unwrap();
        Self { service, _directory: None, data_dir, server: Some(thread) }
    }

    /// What the fake knows, to look at and to arrange.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.service.world()
    }

    /// Puts instances into the world.
    pub(crate) fn with(&self, instances: impl IntoIterator<Item = Instance>) -> &Self {
        let mut world = self.world();
        world.instances.extend(instances.into_iter().map(|instance| (instance.name.clone(), instance)));
        drop(world);
        self
    }

    /// Changes the world, and tells all watchers.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        let mut world = self.world();
        change(&mut world);
        world.revision += 1;
        let revision = world.revision;
        drop(world);
        self.service.changed.send_replace(revision);
    }

    /// Deletes an instance, and tells all watchers.
    pub(crate) fn delete(&self, name: &str) {
        self.change(|world| {
            world.instances.remove(name).unwrap();
            world.deleted.push(name.to_owned());
        });
    }

    /// The next call of `method` is refused.
    pub(crate) fn refuse(&self, method: &'static str, status: Status) -> &Self {
        self.world().refusals.entry(method).or_default().push_back(status);
        self
    }

    /// Serves until it is shut down over the wire.
    pub(crate) fn join(mut self) {
        self.server.take().unwrap().join().unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.service.stop.send_replace(true);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// The path is reached through its directory where it is too long for a socket's address.
async fn serve(service: Service, (socket, user): (PathBuf, u32), ready: impl FnOnce()) {
    let directory = std::fs::File::open(socket.parent().unwrap()).unwrap();
    let short = format!("/proc/self/fd/{}/control.sock", std::os::fd::AsRawFd::as_raw_fd(&directory));
    let unheard = UnixSocket::new_stream().unwrap();
    unheard.bind(short).unwrap();
    let listener = as_user(user, || unheard.listen(64).unwrap());
    ready();
    let mut stop = service.stop.subscribe();
    let server = Server::builder()
        .add_service(InstanceServiceServer::new(service.clone()))
        .add_service(FleetServiceServer::new(service.clone()))
        .add_service(EventServiceServer::new(service.clone()))
        .add_service(LogServiceServer::new(service.clone()))
        .add_service(DoctorServiceServer::new(service.clone()))
        .add_service(ConfigServiceServer::new(service.clone()))
        .add_service(IncidentServiceServer::new(service.clone()))
        .add_service(CertificateServiceServer::new(service.clone()))
        .add_service(AuditServiceServer::new(service.clone()))
        .add_service(SystemServiceServer::new(service))
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::select! {
        served = server => served.unwrap(),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    let _ = std::fs::remove_file(socket);
}

/// Does what this thread alone does as another user, and becomes itself again.
fn as_user<T>(user: u32, work: impl FnOnce() -> T) -> T {
    let (own_user, own_group) = (geteuid(), getegid());
    if user == own_user.as_raw() {
        return work();
    }
    // The real and the saved one stay: they are the way back.
    let group = |group| set_thread_res_gid(own_group, group, own_group).unwrap();
    let become_user = |user| set_thread_res_uid(own_user, user, own_user).unwrap();
    group(Gid::from_raw(user));
    become_user(Uid::from_raw(user));
    let done = work();
    become_user(own_user);
    group(own_group);
    done
}

type Answer<T> = Result<Response<T>, Status>;

fn respond<T>(answer: T) -> Answer<T> {
    Ok(Response::new(answer))
}
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl InstanceService for Service {
    async fn create_instance(&self, _: Request<CreateInstanceRequest>) -> Answer<CreateInstanceResponse> {
        Err(Status::unimplemented("not needed"))
    }

    async fn get_instance(&self, request: Request<GetInstanceRequest>) -> Answer<GetInstanceResponse> {
        self.admit("GetInstance", "")?;
        let instance = self.get(&request.into_inner().name)?;
        Ok(Response::new(GetInstanceResponse { instance: Some(instance), revision: self.world().revision }))
    }

    async fn list_instances(&self, request: Request<ListInstancesRequest>) -> Answer<ListInstancesResponse> {
        self.admit("ListInstances", "")?;
        // Pages of two, so that every list of three or more is put together from several.
        let token: usize = request.into_inner().page_token.parse().unwrap_or_default();
        let world = self.world();
        let instances: Vec<Instance> = world.instances.values().skip(token).take(2).cloned().collect();
        let next = token + instances.len();
        let next_page_token = if next < world.instances.len() { next.to_string() } else { String::new() };
        Ok(Response::new(ListInstancesResponse { instances, next_page_token, revision: world.revision }))
    }

    async fn update_instance(
        &self,
        request: Request<UpdateInstanceRequest>,
    ) -> Answer<UpdateInstanceResponse> {
        let request = request.into_inner();
        self.admit("UpdateInstance", &request.request_id)?;
        let instance = Some(self.get(&request.name)?);
        respond(UpdateInstanceResponse { instance, revision: self.world().revision })
    }

    async fn delete_instance(
        &self,
        request: Request<DeleteInstanceRequest>,
    ) -> Answer<DeleteInstanceResponse> {
        let request = request.into_inner();
        self.admit(if request.purge { "PurgeInstance" } else { "DeleteInstance" }, &request.request_id)?;
        self.get(&request.name)?;
        self.world().instances.remove(&request.name);
        Ok(Response::new(DeleteInstanceResponse { revision: 0 }))
    }

    async fn start_instance(&self, request: Request<StartInstanceRequest>) -> Answer<StartInstanceResponse> {
        let request = request.into_inner();
        self.admit("StartInstance", &request.request_id)?;
        if request.name.contains(char::is_uppercase) {
            let message = format!("`{}` is not a name.", request.name);
            return Err(refusal(Code::InvalidArgument, "INVALID_NAME", &message));
        }
        let created = request.allow_missing && !self.world().instances.contains_key(&request.name);
        if created {
            let base = 18_789 + 1_000 * self.world().instances.len() as u32;
            let new = instance(&request.name, Phase::Stopped, base);
            self.world().instances.insert(request.name.clone(), new);
        }
        let (instance, revision) = self.wish(&request.name, Phase::Starting)?;
        Ok(Response::new(StartInstanceResponse { instance: Some(instance), revision, created }))
    }

    async fn stop_instance(&self, request: Request<StopInstanceRequest>) -> Answer<StopInstanceResponse> {
        let request = request.into_inner();
        self.admit(if request.force { "KillInstance" } else { "StopInstance" }, &request.request_id)?;
        let (instance, revision) = self.wish(&request.name, Phase::Stopping)?;
        Ok(Response::new(StopInstanceResponse { instance: Some(instance), revision }))
    }

    async fn restart_instance(
        &self,
        request: Request<RestartInstanceRequest>,
    ) -> Answer<RestartInstanceResponse> {
        let request = request.into_inner();
        self.admit("RestartInstance", &request.request_id)?;
        let (instance, revision) = self.wish(&request.name, Phase::Spawning)?;
        Ok(Response::new(RestartInstanceResponse { instance: Some(instance), revision }))
    }

    async fn fail_over(&self, request: Request<FailOverRequest>) -> Answer<FailOverResponse> {
        let request = request.into_inner();
        self.admit("FailOver", &request.request_id)?;
        let mut world = self.world();
        world.revision += 1;
        let revision = world.revision;
        let instance = world.instances.get_mut(&request.primary).unwrap();
        let failover = status(instance).failover.get_or_insert_default();
        failover.role = Role::Rescued.into();
        failover.active = failover.rescued_by[0].clone();
        failover.since = seconds_ago(12);
        failover.reason = "asked for by hand.".into();
        status(instance).revision = revision;
        let answer = instance.clone();
        drop(world);
        self.changed.send_replace(revision);
        Ok(Response::new(FailOverResponse { instance: Some(answer), revision }))
    }

    async fn fail_back(&self, request: Request<FailBackRequest>) -> Answer<FailBackResponse> {
        let request = request.into_inner();
        self.admit("FailBack", &request.request_id)?;
        let mut world = self.world();
        world.revision += 1;
        let revision = world.revision;
        let instance = world.instances.get_mut(&request.primary).unwrap();
        let failover = status(instance).failover.get_or_insert_default();
        failover.role = Role::Primary.into();
        failover.active = request.primary;
        status(instance).revision = revision;
        let answer = instance.clone();
        drop(world);
        self.changed.send_replace(revision);
        Ok(Response::new(FailBackResponse { instance: Some(answer), revision }))
    }

    type WatchInstancesStream = Streamed<WatchInstancesResponse>;

    async fn watch_instances(&self, _: Request<WatchInstancesRequest>) -> Answer<Self::WatchInstancesStream> {
        self.admit("WatchInstances", "")?;
        let broken = self.world().broken_watches;
        if broken > 0 {
            self.world().broken_watches = broken - 1;
            return Ok(Response::new(Box::pin(stream::empty())));
        }
        let service = self.clone();
        let changes = WatchStream::new(self.changed.subscribe()).enumerate().flat_map(move |(at, _)| {
            let mut world = service.world();
            let all: Vec<Instance> = world.instances.values().cloned().collect();
            let message = |revision, change| Ok(WatchInstancesResponse { revision, change: Some(change) });
            let changed =
                |revision, each: &Instance| message(revision, Change::Changed(Box::new(each.clone())));
            let revision = world.revision;
            if at > 0 {
                let gone = world.deleted.iter().map(|name| message(revision, Change::Deleted(name.clone())));
                let told = all.iter().map(|each| changed(revision, each)).chain(gone);
                return stream::iter(told.collect::<Vec<_>>());
            }
            let mut messages = vec![message(revision, Change::Snapshot(Snapshot { instances: all }))];
            if let Then::WhenWatched(phase) = world.then {
                world.revision += 1;
                let (revision, reason) = (world.revision, world.reason.clone());
                for each in world.instances.values_mut().filter(|each| !each.status.as_ref().unwrap().settled)
                {
                    settle(each, phase, revision, &reason, true);
                    messages.push(changed(revision, each));
                }
            }
            stream::iter(messages)
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn get_instance_environment(
        &self,
        request: Request<GetInstanceEnvironmentRequest>,
    ) -> Answer<GetInstanceEnvironmentResponse> {
        self.admit("GetInstanceEnvironment", "")?;
        self.get(&request.into_inner().name)?;
        Ok(Response::new(self.world().environment.clone()))
    }

    async fn enter_instance(&self, request: Request<EnterInstanceRequest>) -> Answer<EnterInstanceResponse> {
        self.admit("EnterInstance", "")?;
        self.get(&request.into_inner().name)?;
        Ok(Response::new(self.world().entry.clone()))
    }
}

#[tonic::async_trait]
impl FleetService for Service {
    async fn apply_fleet(&self, request: Request<ApplyFleetRequest>) -> Answer<ApplyFleetResponse> {
        let request = request.into_inner();
        self.admit("ApplyFleet", &request.request_id)?;
        let mut world = self.world();
        world.applied.push(request.clone());
        let changes = world.plan.clone();
        if !request.validate_only {
            world.revision += 1;
            let revision = world.revision;
            for change in changes.iter().filter(|change| change.kind() == fleet_change::Kind::Create) {
                let mut new = instance(&change.instance, Phase::Ready, 19_789);
                status(&mut new).revision = revision;
                world.instances.insert(change.instance.clone(), new);
            }
        }
        Ok(Response::new(ApplyFleetResponse { changes, revision: world.revision }))
    }

    async fn export_fleet(&self, _: Request<ExportFleetRequest>) -> Answer<ExportFleetResponse> {
        self.admit("ExportFleet", "")?;
        respond(ExportFleetResponse { content: self.world().exported.clone() })
    }
}

#[tonic::async_trait]
impl EventService for Service {
    async fn list_events(&self, request: Request<ListEventsRequest>) -> Answer<ListEventsResponse> {
        self.admit("ListEvents", "")?;
        let request = request.into_inner();
        let mut events = self.world().events.clone();
        events.retain(|event| event.revision > request.after_revision);
        events.retain(|event| request.instance.is_empty() || event.instance == request.instance);
        if request.newest {
            events.drain(..events.len().saturating_sub(request.page_size as usize));
        }
        Ok(Response::new(ListEventsResponse { events, next_page_token: String::new() }))
    }

    type WatchEventsStream = Streamed<WatchEventsResponse>;

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Answer<Self::WatchEventsStream> {
        self.admit("WatchEvents", "")?;
        let after = request.into_inner().after_revision;
        let event = Event {
            revision: after + 1,
            instance: "main".into(),
            message: format!("came after {after}."),
            time: seconds_ago(0),
            ..Default::default()
        };
        let batch = WatchEventsResponse { revision: event.revision, events: vec![event] };
        Ok(Response::new(Box::pin(stream::iter([Ok(batch)]))))
    }
}

#[tonic::async_trait]
impl LogService for Service {
    type ReadLogsStream = Streamed<ReadLogsResponse>;

    async fn read_logs(&self, request: Request<ReadLogsRequest>) -> Answer<Self::ReadLogsStream> {
        self.admit("ReadLogs", "")?;
        let request = request.into_inner();
        self.get(&request.name)?;
        let mut world = self.world();
        let lines = world.logs.pop_front().unwrap_or_default();
        let follow = request.follow && world.logs.is_empty();
        world.log_requests.push(request);
        let messages: Vec<_> =
            lines.chunks(LOG_LINES).map(|lines| ReadLogsResponse { lines: lines.to_vec() }).collect();
        let service = self.clone();
        let batch = stream::iter(messages).map(move |message| {
            service.world().logs_taken += 1;
            Ok(message)
        });
        // A followed log stays open when all is told, and breaks before that.
        Ok(Response::new(if follow { Box::pin(batch.chain(stream::pending())) } else { Box::pin(batch) }))
    }
}

#[tonic::async_trait]
impl DoctorService for Service {
    async fn examine(&self, request: Request<ExamineRequest>) -> Answer<ExamineResponse> {
        let request = request.into_inner();
        self.admit("Examine", &request.request_id)?;
        let mut changes = self.changed.subscribe();
        let _ = changes.wait_for(|_| !self.world().held).await;
        for name in &request.names {
            self.get(name)?;
        }
        let mut world = self.world();
        world.examinations.push(request);
        Ok(Response::new(world.examined.clone()))
    }
}

#[tonic::async_trait]
impl SystemService for Service {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Answer<GetInfoResponse> {
        self.admit("GetInfo", "")?;
        let world = self.world();
        Ok(Response::new(GetInfoResponse {
            version: "0.1.0".into(),
            pid: std::process::id() as i32,
            start_time: seconds_ago(3_700),
            data_dir: "/var/lib/openclaw-supervisor".into(),
            socket: "/var/lib/openclaw-supervisor/control.sock".into(),
            capabilities: vec!["failover".into(), "logs.follow".into()],
            revision: world.revision,
            epoch: 3,
            instances: world.instances.len() as u32,
            alarms: world.alarms.clone(),
        }))
    }

    async fn get_settings(&self, _: Request<GetSettingsRequest>) -> Answer<GetSettingsResponse> {
        Err(Status::unimplemented("not needed"))
    }

    async fn reload(&self, _: Request<ReloadRequest>) -> Answer<ReloadResponse> {
        Err(Status::unimplemented("not needed"))
    }

    async fn shutdown(&self, request: Request<ShutdownRequest>) -> Answer<ShutdownResponse> {
        let all = request.into_inner().stop_instances;
        self.admit(if all { "ShutdownAll" } else { "Shutdown" }, "")?;
        // The answer has to leave before the connection does.
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.send_replace(true);
        });
        Ok(Response::new(ShutdownResponse {}))
    }

    async fn list_ports(&self, _: Request<ListPortsRequest>) -> Answer<ListPortsResponse> {
        self.admit("ListPorts", "")?;
        Ok(Response::new(ListPortsResponse { instances: self.world().ports.clone() }))
    }
}
