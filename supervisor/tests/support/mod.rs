//! A real supervisor on a directory of its own, and a client of it.

#![expect(dead_code, reason = "each test file uses its part of this")]

pub(crate) mod agent;
pub(crate) mod door;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::Connection;
use supervisor_proto::v1::{
    self, Instance, InstanceSpec, InstanceStatus, Phase, Role, event_service_client::EventServiceClient,
    fleet_service_client::FleetServiceClient, instance_service_client::InstanceServiceClient,
    system_service_client::SystemServiceClient,
};
use tempfile::TempDir;
use tokio::{net::UnixStream, task, time};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// The longest that anything may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Ports of one slot: a pool for 20 instances.
const SLOT_PORTS: u16 = 400;

/// Slots between the ports that services commonly use and the kernel's ephemeral range.
const SLOTS: u16 = 28;

/// First port of the first slot.
const FIRST: u16 = 21_000;

/// The programs that the workspace builds.
pub(crate) fn program(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_openclaw-supervisor")).with_file_name(name);
    assert!(beside.exists(), "{beside:?} is missing: run `cargo build --workspace` first");
    beside
}

/// A supervisor, its data directory and its ports.
pub(crate) struct Host {
    pub(crate) directory: TempDir,
    pub(crate) first_port: u16,
    _slot: Flock<File>,
    supervisor: Option<Child>,
}

impl Host {
    /// A running supervisor that knows no instance.
    pub(crate) async fn start() -> Self {
        let mut host = Self::prepare();
        host.start_supervisor().await;
        host
    }

    /// A data directory with a pool that no other test uses.
    pub(crate) fn prepare() -> Self {
        let directory = TempDir::new().unwrap();
        let (slot, first_port) = take_slot();
        let host = Self { directory, first_port, _slot: slot, supervisor: None };
        fs::create_dir(host.data_dir()).unwrap();
        let last = first_port + SLOT_PORTS - 1;
        let settings = format!("pool: {{ first: {first_port}, last: {last} }}\n");
        fs::write(host.data_dir().join("settings.yaml"), settings).unwrap();
        host
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The supervisor's process, not yet started.
    pub(crate) fn supervisor_command(&self) -> Command {
        let mut command = Command::new(program("openclaw-supervisor"));
        command.arg("--data-dir").arg(self.data_dir()).stdin(Stdio::null());
        command
    }

    /// Starts a supervisor and waits until it answers.
    pub(crate) async fn start_supervisor(&mut self) {
        self.spawn_supervisor(|_| ());
        until("the supervisor answers", async || {
            let mut client = SystemServiceClient::new(self.channel().await.ok()?);
            client.get_info(v1::GetInfoRequest {}).await.ok().map(|_| ())
        })
        .await;
    }

    /// Starts a supervisor, changed by `adjust`, and does not wait for it.
    pub(crate) fn spawn_supervisor(&mut self, adjust: impl FnOnce(&mut Command)) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("supervisor.log"))
            .unwrap();
        let mut command = self.supervisor_command();
        adjust(&mut command);
        self.supervisor = Some(command.process_group(0).stderr(log).spawn().unwrap());
    }

    /// Whether the supervisor has ended by itself.
    pub(crate) fn supervisor_has_ended(&mut self) -> bool {
        self.supervisor.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// What the supervisor has logged so far.
    pub(crate) fn supervisor_log(&self) -> String {
        fs::read_to_string(self.directory.path().join("supervisor.log")).unwrap_or_default()
    }

    pub(crate) fn supervisor_pid(&self) -> i32 {
        i32::try_from(self.supervisor.as_ref().unwrap().id()).unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill_supervisor(&mut self) {
        let mut child = self.supervisor.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let socket = self.data_dir().join("control.sock");
        Endpoint::from_static("http://localhost")
            .connect_with_connector(service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { connect(socket).await.map(TokioIo::new) }
            }))
            .await
    }

    /// A client, if the supervisor lives.
    pub(crate) async fn try_instances(
        &self,
    ) -> Result<InstanceServiceClient<Channel>, tonic::transport::Error> {
        Ok(InstanceServiceClient::new(self.channel().await?))
    }

    pub(crate) async fn instances(&self) -> InstanceServiceClient<Channel> {
        InstanceServiceClient::new(self.channel().await.unwrap())
    }

    /// A client, if the supervisor lives.
    pub(crate) async fn try_fleet(&self) -> Result<FleetServiceClient<Channel>, tonic::transport::Error> {
        Ok(FleetServiceClient::new(self.channel().await?))
    }

    pub(crate) async fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel().await.unwrap())
    }

    pub(crate) async fn system(&self) -> SystemServiceClient<Channel> {
        SystemServiceClient::new(self.channel().await.unwrap())
    }

    pub(crate) async fn create(&self, name: &str, spec: InstanceSpec) -> Instance {
        let request = v1::CreateInstanceRequest { name: name.into(), spec: Some(spec), ..Default::default() };
        self.instances().await.create_instance(request).await.unwrap().into_inner().instance.unwrap()
    }

    /// Wishes it up, and waits until it is as it should be.
    pub(crate) async fn up(&self, name: &str) -> InstanceStatus {
        let request = v1::StartInstanceRequest { name: name.into(), wait: true, ..Default::default() };
        let mut request = tonic::Request::new(request);
        request.set_timeout(PATIENCE);
        let answer = self.instances().await.start_instance(request).await.unwrap();
        answer.into_inner().instance.unwrap().status.unwrap()
    }

    /// Wishes it down, and waits until nothing of it runs.
    pub(crate) async fn down(&self, name: &str) -> InstanceStatus {
        let request = v1::StopInstanceRequest { name: name.into(), wait: true, ..Default::default() };
        let mut request = tonic::Request::new(request);
        request.set_timeout(PATIENCE);
        let answer = self.instances().await.stop_instance(request).await.unwrap();
        answer.into_inner().instance.unwrap().status.unwrap()
    }

    pub(crate) async fn status(&self, name: &str) -> InstanceStatus {
        let request = v1::GetInstanceRequest { name: name.into() };
        let answer = self.instances().await.get_instance(request).await.unwrap();
        answer.into_inner().instance.unwrap().status.unwrap()
    }

    /// Waits for a state, however it came about.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&InstanceStatus) -> bool,
    ) -> InstanceStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(name).await;
            if holds(&status) {
                return status;
            }
            if Instant::now() > deadline {
                panic!("{name} was to be {what}, and is {status:#?}\n{}", self.supervisor_log());
            }
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn wait_ready(&self, name: &str) -> InstanceStatus {
        self.wait(name, "ready", |status| status.phase() == Phase::Ready).await
    }

    pub(crate) async fn wait_role(&self, name: &str, role: Role) -> InstanceStatus {
        self.wait(name, &format!("{role:?}"), |status| {
            status.failover.as_ref().is_some_and(|failover| failover.role() == role)
        })
        .await
    }

    /// All events so far, oldest first.
    pub(crate) async fn events(&self) -> Vec<v1::Event> {
        let mut client = EventServiceClient::new(self.channel().await.unwrap());
        let request = v1::ListEventsRequest { page_size: 1000, ..Default::default() };
        client.list_events(request).await.unwrap().into_inner().events
    }

    /// Waits for an event.
    pub(crate) async fn wait_event(&self, what: &str, is: impl Fn(&v1::Event) -> bool) -> v1::Event {
        until(what, async || self.events().await.into_iter().find(&is)).await
    }

    /// What every process of an instance carries in its environment.
    pub(crate) fn mark(&self, name: &str) -> String {
        let db = Connection::open(self.data_dir().join("supervisor.db")).unwrap();
        let store: String =
            db.query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| row.get(0)).unwrap();
        format!("{store}/{name}")
    }

    /// All living processes that carry an instance's mark, its worker included.
    pub(crate) fn processes_of(&self, name: &str) -> BTreeSet<i32> {
        let mark = format!("OPENCLAWCTL_MARK={}", self.mark(name));
        let carries = |pid: &i32| environment(*pid).split('\0').any(|variable| variable == mark);
        processes().filter(|pid| carries(pid) && is_alive(*pid)).collect()
    }
}

impl Drop for Host {
    /// Nothing may outlive a test, not even a failed one.
    fn drop(&mut self) {
        if let Some(child) = &mut self.supervisor {
            let _ = child.kill();
            let _ = child.wait();
        }
        let data_dir = self.directory.path().join("data");
        let run = data_dir.join("run").to_string_lossy().into_owned();
        for pid in processes() {
            let of_ours = fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|directory| directory.to_string_lossy().starts_with(&run));
            let marked = environment(pid).contains(&*data_dir.to_string_lossy());
            if of_ours || marked {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- supervisor.log\n{}", self.supervisor_log());
        }
    }
}

/// A spec that runs `script` with sh, which may open what it likes: tests look at what it writes.
pub(crate) fn shell(script: &str) -> InstanceSpec {
    InstanceSpec {
        walls: Some(v1::WallPolicy { files: Some(false), ..Default::default() }),
        runtime: v1::Runtime::Command.into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        ..Default::default()
    }
}

/// A spec of the built-in gateway.
pub(crate) fn builtin() -> InstanceSpec {
    InstanceSpec { runtime: v1::Runtime::Builtin.into(), ..Default::default() }
}

/// Without delay between a death and the next life.
pub(crate) fn at_once(mut spec: InstanceSpec) -> InstanceSpec {
    spec.restart = Some(v1::RestartPolicy {
        initial_delay: Some(prost_types::Duration::default()),
        ..spec.restart.unwrap_or_default()
    });
    spec
}

/// Waits in the kernel's line if as many callers wait as may.
async fn connect(socket: PathBuf) -> std::io::Result<UnixStream> {
    let connected = task::spawn_blocking(|| std::os::unix::net::UnixStream::connect(socket)).await;
    let stream = connected.map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Polls until there is something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn environment(pid: i32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()).into_owned()
}

/// Whether a process is alive and no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

pub(crate) fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// A slot of ports that no other test has, in this process or another, nor anybody else on the host.
fn take_slot() -> (Flock<File>, u16) {
    let directory = std::env::temp_dir().join("openclaw-supervisor-test-slots");
    fs::create_dir_all(&directory).unwrap();
    let begin = u16::try_from(std::process::id() % u32::from(SLOTS)).unwrap();
    let deadline = Instant::now() + PATIENCE * 5;
    loop {
        for slot in (0..SLOTS).map(|n| (begin + n) % SLOTS) {
            let file = File::create(directory.join(slot.to_string())).unwrap();
            let first = FIRST + slot * SLOT_PORTS;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if is_free(first) => return (lock, first),
                Ok(_) | Err(_) => {}
            }
        }
        assert!(Instant::now() < deadline, "no slot of ports became free");
        std::thread::yield_now();
    }
}

/// Whether nobody has any port of the slot that begins here, at whichever address: so asks the supervisor, too.
pub(crate) fn is_free(first: u16) -> bool {
    let is_taken = |address: IpAddr, port: u16| {
        TcpListener::bind((address, port)).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
    };
    // Where there is IPv6, the first is both.
    let everywhere: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    (first..first + SLOT_PORTS).all(|port| everywhere.iter().all(|address| !is_taken(*address, port)))
}
