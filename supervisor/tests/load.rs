//! Many bad callers at once: supervision goes on, memory stays bounded, and nobody is kept out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;

use hyper_util::rt::TokioIo;
use supervisor_proto::v1::{
    self, InstanceSpec, Phase, event_service_client::EventServiceClient,
    fleet_service_client::FleetServiceClient, instance_service_client::InstanceServiceClient,
    log_service_client::LogServiceClient, system_service_client::SystemServiceClient,
};
use support::{Host, at_once, builtin, kill_9, shell, until};
use tokio::{io::AsyncWriteExt, net::UnixStream};
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

/// Callers of one kind; there are five.
const OF_EACH: usize = 40;

/// What all of them together may cost: the bound of answers that wait (64 MiB), and for 200 connections and their
/// calls half a megabyte each of buffers and queues.
const MOST_MEMORY: u64 = (64 + 100) << 20;

/// An HTTP/2 preface and an empty SETTINGS frame, then the head of a HEADERS frame of 1,000 bytes.
const BEGUN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x03\xe8\x01\x04\0\0\0\x01";

/// Lines that no window takes: 3 MB, then silence.
const TALKATIVE: &str = "seq 1 450000; exec sleep 100000";

/// A connection of its own.
async fn connect(host: &Host) -> Channel {
    let socket = host.data_dir().join("control.sock");
    let connector = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // Windows as most clients have them: those of tonic's own take megabytes before anybody reads.
    let endpoint = Endpoint::from_static("http://localhost").initial_stream_window_size(65_535);
    endpoint.connect_with_connector(connector).await.unwrap()
}

async fn raw(host: &Host, said: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(host.data_dir().join("control.sock")).await.unwrap();
    stream.write_all(said).await.unwrap();
    stream
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Resident bytes that no file stands behind.
fn memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Those who take without reading, and those who promise without sending.
#[derive(Default)]
struct Crowd {
    watches: Vec<Streaming<v1::WatchInstancesResponse>>,
    events: Vec<Streaming<v1::WatchEventsResponse>>,
    logs: Vec<Streaming<v1::ReadLogsResponse>>,
    raw: Vec<UnixStream>,
}

impl Crowd {
    async fn gather(host: &Host, of_each: usize) -> Self {
        let mut crowd = Self::default();
        for _ in 0..of_each {
            let mut client = InstanceServiceClient::new(connect(host).await);
            let watch = client.watch_instances(v1::WatchInstancesRequest::default()).await.unwrap();
            crowd.watches.push(watch.into_inner());
            let mut client = EventServiceClient::new(connect(host).await);
            let request = v1::WatchEventsRequest { after_revision: 1, ..Default::default() };
            crowd.events.push(client.watch_events(request).await.unwrap().into_inner());
            let mut client = LogServiceClient::new(connect(host).await);
            let request =
                v1::ReadLogsRequest { name: "talkative".into(), follow: true, ..Default::default() };
            crowd.logs.push(client.read_logs(request).await.unwrap().into_inner());
            crowd.raw.push(raw(host, b"").await);
            crowd.raw.push(raw(host, BEGUN).await);
        }
        crowd
    }

    /// A byte more of the headers of each slow sender.
    async fn dribble(&mut self) {
        for stream in self.raw.iter_mut().skip(1).step_by(2) {
            // It may have been let go by now.
            let _ = stream.write_all(b"x").await;
        }
    }
}

/// Kills a gateway, and waits for its next life.
async fn survives_a_death(host: &Host, name: &str) {
    let before = host.wait_ready(name).await;
    kill_9(before.pid);
    host.wait(name, "ready in its next life", |status| {
        status.phase() == Phase::Ready && status.incarnation > before.incarnation
    })
    .await;
}

#[tokio::test]
async fn two_hundred_bad_callers_hold_up_no_supervision_cost_bounded_memory_and_leave_nothing_behind() {
    let host = Host::start().await;
    host.create("main", at_once(builtin())).await;
    host.create("talkative", InstanceSpec { ..shell(TALKATIVE) }).await;
    host.up("main").await;
    host.up("talkative").await;
    let pid = host.supervisor_pid();
    survives_a_death(&host, "main").await;
    // One caller of each kind opens what stays open for all, e.g. the journal's reader.
    drop(Crowd::gather(&host, 1).await);
    let (descriptors_before, memory_before) = (descriptors(pid), memory(pid));

    let mut crowd = Crowd::gather(&host, OF_EACH).await;
    for _ in 0..10 {
        crowd.dribble().await;
        survives_a_death(&host, "main").await;
        let request = v1::ApplyFleetRequest { content: "x".repeat((4 << 20) + 1), ..Default::default() };
        let refused = FleetServiceClient::new(connect(&host).await).apply_fleet(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    }
    let grown = memory(pid).saturating_sub(memory_before);
    assert!(grown < MOST_MEMORY, "{} MiB more than before", grown >> 20);

    drop(crowd);
    until("all descriptors are given back", async || (descriptors(pid) <= descriptors_before).then_some(()))
        .await;
    survives_a_death(&host, "main").await;
}

#[tokio::test]
async fn no_number_of_silent_connections_keeps_the_operator_out() {
    let host = Host::start().await;
    let pid = host.supervisor_pid();
    let before = descriptors(pid);
    let mut silent = Vec::new();
    for _ in 0..1_200 {
        silent.push(raw(&host, b"").await);
    }
    let mut operator = SystemServiceClient::new(connect(&host).await);
    operator.get_info(v1::GetInfoRequest {}).await.unwrap();
    assert!(host.supervisor_log().contains("too many connections: a caller's connection was ended"));
    drop(operator);
    // Nobody but the supervisor ends them.
    until("the silent have been let go", async || (descriptors(pid) <= before).then_some(())).await;
    drop(silent);
}

#[tokio::test]
async fn no_number_of_calls_without_end_keeps_the_operator_out() {
    let host = Host::start().await;
    host.create("quiet", shell("echo ready; exec sleep 100000")).await;
    host.up("quiet").await;
    let mut follows = Vec::new();
    let mut ended = 0;
    for _ in 0..4 {
        let mut client = LogServiceClient::new(connect(&host).await);
        for _ in 0..300 {
            let request = v1::ReadLogsRequest { name: "quiet".into(), follow: true, ..Default::default() };
            match client.read_logs(request).await {
                Ok(follow) => follows.push(follow.into_inner()),
                // Its connection has made room for another.
                Err(_) => ended += 1,
            }
        }
    }
    let mut operator = InstanceServiceClient::new(connect(&host).await);
    let request = v1::GetInstanceRequest { name: "quiet".into() };
    operator.get_instance(request).await.unwrap();
    assert!(host.supervisor_log().contains("a caller's connection was ended"), "{ended}");
    host.create("main", builtin()).await;
    host.up("main").await;
    drop(follows);
}
