//! A real supervisor on a data directory of its own, and a client of it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use supervisor_proto::v1::{
    self, Instance, InstanceSpec, InstanceStatus, Phase, Role, Runtime, WatchInstancesResponse,
    fleet_service_client::FleetServiceClient, instance_service_client::InstanceServiceClient,
    system_service_client::SystemServiceClient, watch_instances_response::Change,
};
use tokio::{net::UnixStream, time};
use tonic::{
    Request, Streaming,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::{
    bench::{Bench, FIRST_PORT, LAST_PORT},
    processes,
    watch::PATIENCE,
};

/// Between two questions while something is on its way and nothing is measured.
const PAUSE: Duration = Duration::from_millis(2);

/// A budget that no measurement spends.
const RESTARTS: u32 = 1_000_000;

/// A supervisor and its data directory.
#[derive(Debug)]
pub(crate) struct Host {
    directory: PathBuf,
    program: PathBuf,
    supervisor: Option<Child>,
}

impl Host {
    /// A supervisor that knows no instance and answers.
    pub(crate) async fn start(bench: &Bench) -> anyhow::Result<Self> {
        let mut host = Self::prepare(bench)?;
        host.spawn()?;
        host.connect().await?;
        Ok(host)
    }

    /// A data directory without a supervisor.
    pub(crate) fn prepare(bench: &Bench) -> anyhow::Result<Self> {
        let directory = bench.place()?;
        let host = Self { directory, program: bench.program("openclaw-supervisor")?, supervisor: None };
        fs::create_dir(host.data_dir()).context("failed to make a data directory")?;
        let settings = format!("pool: {{ first: {FIRST_PORT}, last: {LAST_PORT} }}\n");
        fs::write(host.data_dir().join("settings.yaml"), settings).context("failed to write the settings")?;
        Ok(host)
    }

    /// Where the supervisor keeps everything.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Starts the supervisor. It may not answer yet.
    pub(crate) fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("supervisor.log"))
            .context("failed to open the supervisor's log")?;
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(self.data_dir()).args(["--log", "warn"]);
        command.env("MALLOC_ARENA_MAX", "2"); // as `openclawctl` and the units set it
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.supervisor = Some(command.spawn().context("failed to start the supervisor")?);
        Ok(())
    }

    /// `kill -9` of the supervisor, at the moment that is returned.
    pub(crate) fn kill(&mut self) -> anyhow::Result<Instant> {
        let mut child = self.supervisor.take().context("no supervisor runs")?;
        let moment = Instant::now();
        child.kill().context("failed to kill the supervisor")?;
        child.wait().context("failed to wait for the supervisor's death")?;
        Ok(moment)
    }

    /// The supervisor's process.
    pub(crate) fn pid(&self) -> anyhow::Result<i32> {
        Ok(self.supervisor.as_ref().context("no supervisor runs")?.id().cast_signed())
    }

    /// A connection, as soon as the supervisor takes one.
    pub(crate) async fn connect(&mut self) -> anyhow::Result<Client> {
        let socket = self.data_dir().join("control.sock");
        let deadline = Instant::now() + PATIENCE;
        let channel = loop {
            let socket = socket.clone();
            let connector = service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            });
            match Endpoint::from_static("http://localhost").connect_with_connector(connector).await {
                Ok(channel) => break channel,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("the supervisor does not answer");
                }
                Err(_) => self.check_alive()?,
            }
            time::sleep(PAUSE).await;
        };
        Ok(Client::new(channel))
    }

    /// Waiting for a supervisor that has ended would take for ever, and its log says why.
    fn check_alive(&mut self) -> anyhow::Result<()> {
        let ended = self.supervisor.as_mut().map(Child::try_wait).transpose();
        if let Some(Some(status)) = ended.context("failed to look after the supervisor")? {
            let log = fs::read_to_string(self.directory.join("supervisor.log")).unwrap_or_default();
            anyhow::bail!("the supervisor ended, {status}: {}", log.trim());
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.supervisor.take());
        processes::end_all();
    }
}

/// The supervisor's API.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Instances.
    pub(crate) instances: InstanceServiceClient<Channel>,
    /// Fleets.
    pub(crate) fleet: FleetServiceClient<Channel>,
    /// The supervisor itself.
    pub(crate) system: SystemServiceClient<Channel>,
}

/// A call that may take as long as it likes, within reason.
fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn status_of(instance: Option<Instance>) -> anyhow::Result<InstanceStatus> {
    instance.and_then(|instance| instance.status).context("the supervisor answered without a status")
}

impl Client {
    fn new(channel: Channel) -> Self {
        Self {
            instances: InstanceServiceClient::new(channel.clone()),
            fleet: FleetServiceClient::new(channel.clone()),
            system: SystemServiceClient::new(channel),
        }
    }

    /// Creates an instance, starts it, and waits until it is ready.
    pub(crate) async fn run(&mut self, name: &str, spec: InstanceSpec) -> anyhow::Result<InstanceStatus> {
        self.create(name, spec).await?;
        self.up(name).await
    }

    /// Creates an instance that does not run.
    pub(crate) async fn create(&mut self, name: &str, spec: InstanceSpec) -> anyhow::Result<()> {
        let request = v1::CreateInstanceRequest { name: name.into(), spec: Some(spec), ..Default::default() };
        self.instances.create_instance(request).await.context("failed to create an instance")?;
        Ok(())
    }

    /// Wishes it up, and waits until it is as it should be.
    pub(crate) async fn up(&mut self, name: &str) -> anyhow::Result<InstanceStatus> {
        let request = v1::StartInstanceRequest { name: name.into(), wait: true, ..Default::default() };
        let answer = self.instances.start_instance(patient(request)).await;
        status_of(answer.context("failed to start an instance")?.into_inner().instance)
    }

    /// Wishes it down at once, and waits until nothing of it runs.
    pub(crate) async fn down(&mut self, name: &str) -> anyhow::Result<()> {
        let request =
            v1::StopInstanceRequest { name: name.into(), force: true, wait: true, ..Default::default() };
        self.instances.stop_instance(patient(request)).await.context("failed to stop an instance")?;
        Ok(())
    }

    /// How it is now.
    pub(crate) async fn status(&mut self, name: &str) -> anyhow::Result<InstanceStatus> {
        let request = v1::GetInstanceRequest { name: name.into() };
        let answer = self.instances.get_instance(request).await.context("failed to get an instance")?;
        status_of(answer.into_inner().instance)
    }

    /// Waits until it is so.
    pub(crate) async fn wait(
        &mut self,
        name: &str,
        what: &str,
        is: impl Fn(&InstanceStatus) -> bool,
    ) -> anyhow::Result<InstanceStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(name).await?;
            if is(&status) {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "{name} is not {what}: {status:?}");
            time::sleep(PAUSE).await;
        }
    }

    /// All instances, by name.
    pub(crate) async fn list(&mut self) -> anyhow::Result<BTreeMap<String, InstanceStatus>> {
        let answer = self.instances.list_instances(v1::ListInstancesRequest::default()).await;
        let instances = answer.context("failed to list the instances")?.into_inner().instances;
        instances
            .into_iter()
            .map(|instance| Ok((instance.name.clone(), status_of(Some(instance))?)))
            .collect()
    }

    /// Waits until all are ready.
    pub(crate) async fn all_ready(&mut self) -> anyhow::Result<BTreeMap<String, InstanceStatus>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = self.list().await?;
            let not_ready = all.iter().find(|(_, status)| status.phase() != Phase::Ready);
            let Some((name, status)) = not_ready else { return Ok(all) };
            anyhow::ensure!(Instant::now() < deadline, "{name} is not ready: {status:?}");
            time::sleep(PAUSE).await;
        }
    }

    /// Applies a fleet file and starts what it names. Answers the gateways' ports.
    pub(crate) async fn apply(&mut self, content: String) -> anyhow::Result<Vec<u16>> {
        let request = v1::ApplyFleetRequest {
            content,
            file_name: "fleet.yaml".into(),
            start: true,
            ..Default::default()
        };
        self.fleet.apply_fleet(patient(request)).await.context("failed to apply a fleet")?;
        self.list().await?.values().map(gateway_port).collect()
    }

    /// Follows all instances from what they are now.
    pub(crate) async fn watch(&mut self) -> anyhow::Result<Watch> {
        let request = v1::WatchInstancesRequest::default();
        let stream = self.instances.watch_instances(request).await.context("failed to watch")?.into_inner();
        Ok(Watch { stream, seen: BTreeMap::new() })
    }
}

/// What a client knows that watches.
#[derive(Debug)]
pub(crate) struct Watch {
    stream: Streaming<WatchInstancesResponse>,
    seen: BTreeMap<String, InstanceStatus>,
}

impl Watch {
    /// Waits until the stream has said so.
    pub(crate) async fn until(
        &mut self,
        name: &str,
        what: &str,
        is: impl Fn(&InstanceStatus) -> bool,
    ) -> anyhow::Result<Instant> {
        let told = async {
            while !self.seen.get(name).is_some_and(&is) {
                let message = self.stream.message().await.context("the watch broke off")?;
                match message.context("the watch ended")?.change {
                    Some(Change::Snapshot(snapshot)) => {
                        snapshot.instances.into_iter().for_each(|one| self.see(one));
                    }
                    Some(Change::Changed(instance)) => self.see(*instance),
                    Some(Change::Deleted(name)) => drop(self.seen.remove(&name)),
                    Some(Change::Bookmark(_)) | None => {}
                }
            }
            Ok(Instant::now())
        };
        time::timeout(PATIENCE, told).await.with_context(|| format!("{name} is not {what}"))?
    }

    fn see(&mut self, instance: Instance) {
        self.seen.insert(instance.name, instance.status.unwrap_or_default());
    }
}

/// Who an instance is in failover.
pub(crate) fn role(status: &InstanceStatus) -> Role {
    status.failover.as_ref().map_or(Role::Unspecified, |failover| failover.role())
}

/// The port that its gateway serves on.
pub(crate) fn gateway_port(status: &InstanceStatus) -> anyhow::Result<u16> {
    let port = status.ports.as_ref().map_or(0, |block| block.gateway);
    u16::try_from(port).ok().filter(|port| *port > 0).context("an instance has no ports")
}

/// Restarted without delay, as often as need be.
fn at_once() -> v1::RestartPolicy {
    v1::RestartPolicy {
        initial_delay: Some(prost_types::Duration::default()),
        budget: RESTARTS,
        ..Default::default()
    }
}

/// A spec of the child; what follows its port is for it alone.
pub(crate) fn child(bench: &Bench, more: &[String]) -> InstanceSpec {
    let mut args = vec!["{port}".to_owned()];
    args.extend_from_slice(more);
    InstanceSpec {
        runtime: Runtime::Command.into(),
        program: bench.child.to_string_lossy().into_owned(),
        args,
        restart: Some(at_once()),
        ..Default::default()
    }
}

/// A spec of the built-in gateway.
pub(crate) fn builtin() -> InstanceSpec {
    InstanceSpec { runtime: Runtime::Builtin.into(), restart: Some(at_once()), ..Default::default() }
}

/// What a fleet consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The child.
    Child,
    /// The built-in gateway.
    Builtin,
}

/// A fleet file of `count` instances.
pub(crate) fn fleet(bench: &Bench, kind: Kind, count: u16) -> String {
    let runtime = match kind {
        Kind::Child => format!("runtime: command, program: {:?}, args: [\"{{port}}\"]", bench.child),
        Kind::Builtin => "runtime: builtin".to_owned(),
    };
    let mut text = format!(
        "version: 1\ndefaults: {{ {runtime}, restart: {{ initial_delay: 0s, budget: {RESTARTS} }} }}\ninstances:\n"
    );
    for number in 0..count {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  i{number:04}: {{}}");
    }
    text
}
