//! Supervision while two hundred callers behave badly.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use supervisor_proto::v1::{
    self, event_service_client::EventServiceClient, fleet_service_client::FleetServiceClient,
    instance_service_client::InstanceServiceClient, log_service_client::LogServiceClient,
};
use tokio::{io::AsyncWriteExt, net::UnixStream, sync::oneshot};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::{
    bench::Bench,
    host::{self, Host},
    processes,
    rows::restart::{self, NAME},
    stats::Samples,
    table::{Line, Verdict, digits, mebibytes, time},
};

/// Callers of each of the five kinds.
const OF_EACH: usize = 40;

/// A death under load takes at most so many times what it takes without.
const MOST: f64 = 2.0;

/// Between two turns of those who go on: each slow sender's next byte and a message over the limit.
const TURN: Duration = Duration::from_millis(50);

/// An HTTP/2 preface, an empty SETTINGS frame, and the head of a HEADERS frame of 1,000 bytes (RFC 9113).
const BEGUN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x03\xe8\x01\x04\0\0\0\x01";

/// A megabyte over the limit.
const OVERSIZE: usize = 5 << 20;

/// Beside the same supervisor without them.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let mut host = Host::start(bench).await?;
    let mut client = host.connect().await?;
    client.run(NAME, host::child(bench, &[])).await?;
    let idle = Samples::new(restart::of(bench, &mut client).await?)?;
    let before = processes::rss(host.pid()?)?;
    let crowd = Crowd::gather(host.data_dir().join("control.sock"))?;
    let loaded = Samples::new(restart::of(bench, &mut client).await?)?;
    let grown = processes::rss(host.pid()?)?.saturating_sub(before);
    crowd.leave()?;
    let ratio = loaded.median().as_secs_f64() / idle.median().as_secs_f64();
    Ok(vec![Line {
        what: format!("the same with {} callers that do not read, send half or too much", 5 * OF_EACH),
        target: format!("{} times idle", digits(MOST)),
        measured: time(loaded.median()),
        verdict: Verdict::of(ratio <= MOST),
        runs: loaded.count(),
        beside: format!(
            "idle {}: {}x; p90 {}; the supervisor's memory grew by {}",
            time(idle.median()),
            digits(ratio),
            time(loaded.percentile(90)),
            mebibytes(grown as f64)
        ),
    }])
}

/// The bad callers, on a thread of their own.
struct Crowd {
    leave: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Crowd {
    /// Returns once all of them are there.
    fn gather(socket: PathBuf) -> anyhow::Result<Self> {
        let (leave, left) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let gathered = runtime.context("failed to start the callers' runtime").and_then(|runtime| {
                let callers = runtime.block_on(Callers::gather(&socket))?;
                Ok((runtime, callers))
            });
            match gathered {
                Ok((runtime, callers)) => {
                    let _ = tell.send(Ok(()));
                    runtime.block_on(callers.go_on(left));
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        });
        told.recv().context("the callers ended")??;
        Ok(Self { leave, thread })
    }

    fn leave(self) -> anyhow::Result<()> {
        drop(self.leave);
        self.thread.join().map_err(|_| anyhow::anyhow!("the callers panicked"))
    }
}

/// What they hold on to.
struct Callers {
    channel: Channel,
    _watches: Vec<Streaming<v1::WatchInstancesResponse>>,
    _events: Vec<Streaming<v1::WatchEventsResponse>>,
    _logs: Vec<Streaming<v1::ReadLogsResponse>>,
    _silent: Vec<UnixStream>,
    slow: Vec<UnixStream>,
}

pub(super) async fn connect(socket: &Path) -> anyhow::Result<Channel> {
    let socket = socket.to_owned();
    let connector = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost").initial_stream_window_size(65_535);
    endpoint.connect_with_connector(connector).await.context("failed to connect")
}

impl Callers {
    async fn gather(socket: &Path) -> anyhow::Result<Self> {
        let channel = connect(socket).await?;
        let (mut watches, mut events, mut logs) = (Vec::new(), Vec::new(), Vec::new());
        let (mut silent, mut slow) = (Vec::new(), Vec::new());
        for _ in 0..OF_EACH {
            let mut client = InstanceServiceClient::new(connect(socket).await?);
            watches.push(client.watch_instances(v1::WatchInstancesRequest::default()).await?.into_inner());
            let mut client = EventServiceClient::new(connect(socket).await?);
            let request = v1::WatchEventsRequest { after_revision: 1, ..Default::default() };
            events.push(client.watch_events(request).await?.into_inner());
            let mut client = LogServiceClient::new(connect(socket).await?);
            let request = v1::ReadLogsRequest { name: NAME.into(), follow: true, ..Default::default() };
            logs.push(client.read_logs(request).await?.into_inner());
            silent.push(UnixStream::connect(socket).await?);
            let mut sender = UnixStream::connect(socket).await?;
            sender.write_all(BEGUN).await?;
            slow.push(sender);
        }
        Ok(Self { channel, _watches: watches, _events: events, _logs: logs, _silent: silent, slow })
    }

    /// Until `left`.
    async fn go_on(mut self, mut left: oneshot::Receiver<()>) {
        while tokio::time::timeout(TURN, &mut left).await.is_err() {
            for sender in &mut self.slow {
                // It may have been let go by now.
                let _ = sender.write_all(b"x").await;
            }
            let content = "x".repeat(OVERSIZE);
            let request = v1::ApplyFleetRequest { content, ..Default::default() };
            let _ = FleetServiceClient::new(self.channel.clone()).apply_fleet(request).await;
        }
    }
}
