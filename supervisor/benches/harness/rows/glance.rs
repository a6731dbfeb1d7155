//! What looking costs: a scrape, `openclawctl top`, and fifty dashboards.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nix::pty::{Winsize, openpty};
use ring::hmac;
use serde_json::Value;
use supervisor_proto::v1::{CreateLinkRequest, web_service_client::WebServiceClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

use crate::{
    bench::{Bench, FIRST_PORT},
    host::{self, Host, Kind},
    processes,
    rows::{
        load,
        restart::{self, NAME},
    },
    stats::Samples,
    table::{Line, Verdict, digits, time},
};

/// After the start, before anything is measured.
const SETTLE: Duration = Duration::from_secs(5);

/// Longer than a figure is taken to be fresh: each scrape looks at every process.
const BETWEEN: Duration = Duration::from_secs(2);

const MOST_SCRAPE: Duration = Duration::from_millis(100);
/// Of a core.
const MOST_TOP: f64 = 2.0;

/// Dashboards that are open at once.
const DASHBOARDS: usize = 50;

/// A death among them takes at most so many times what it takes without: what two runs of the same differ by.
const MOST_AMONG: f64 = 1.25;

/// Where the dashboard is served: below the ports of the instances, as above them the kernel gives them to callers.
const PORT: u16 = FIRST_PORT - 1;

/// All three.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let mut lines = fleet(bench).await?;
    lines.push(dashboards(bench).await?);
    Ok(lines)
}

/// Of a whole fleet.
async fn fleet(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let count = bench.instances;
    let mut host = Host::start(bench).await?;
    let mut client = host.connect().await?;
    client.apply(host::fleet(bench, Kind::Builtin, count)).await?;
    client.all_ready().await?;
    tokio::time::sleep(SETTLE).await;
    let (mut scrapes, mut bytes) = (Vec::new(), 0);
    for _ in 0..bench.runs {
        tokio::time::sleep(BETWEEN).await;
        let begun = Instant::now();
        bytes = scrape(&host.data_dir())?;
        scrapes.push(begun.elapsed());
    }
    let scrapes = Samples::new(scrapes)?;
    let scrape = Line {
        what: format!("a scrape of {count} built-in instances"),
        target: time(MOST_SCRAPE),
        measured: time(scrapes.median()),
        verdict: Verdict::of(scrapes.median() <= MOST_SCRAPE),
        runs: scrapes.count(),
        beside: format!(
            "p90 {}, {} KB; every process looked at",
            time(scrapes.percentile(90)),
            bytes / 1_000
        ),
    };
    let (used, supervisors) = top(bench, &host).await?;
    let percent = |used: Duration| used.as_secs_f64() / bench.idle.as_secs_f64() * 100.0;
    let top = Line {
        what: format!("`openclawctl top` of {count} idle instances, its CPU"),
        target: format!("{} % of a core", digits(MOST_TOP)),
        measured: format!("{} %", digits(percent(used))),
        verdict: Verdict::of(percent(used) <= MOST_TOP),
        runs: 1,
        beside: format!(
            "{} in {}, at 80x24; the supervisor's meanwhile {} %",
            time(used),
            time(bench.idle),
            digits(percent(supervisors))
        ),
    };
    Ok(vec![scrape, top])
}

/// How many bytes it has.
fn scrape(data_dir: &Path) -> anyhow::Result<usize> {
    let mut stream = UnixStream::connect(data_dir.join("control.sock")).context("failed to connect")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    anyhow::ensure!(page.starts_with(b"HTTP/1.1 200"), "there is no page");
    Ok(page.len())
}

/// What it and the supervisor use of the processor while it is looked at.
async fn top(bench: &Bench, host: &Host) -> anyhow::Result<(Duration, Duration)> {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).context("failed to make a terminal")?;
    let end = || pty.slave.try_clone().map(Stdio::from);
    let mut command = Command::new(bench.program("openclawctl")?);
    command.arg("--data-dir").arg(host.data_dir()).arg("top").env("TERM", "xterm-256color");
    command.stdin(end()?).stdout(end()?).stderr(end()?);
    let mut top = command.spawn().context("failed to start top")?;
    drop(command);
    drop(pty.slave);
    let mut screen = File::from(pty.master);
    // It ends with the terminal.
    thread::spawn(move || while screen.read(&mut [0; 64 << 10]).is_ok_and(|read| read > 0) {});
    tokio::time::sleep(SETTLE).await;
    let (pid, supervisor) = (top.id().cast_signed(), host.pid()?);
    let before = (processes::cpu_time(pid)?, processes::cpu_time(supervisor)?);
    tokio::time::sleep(bench.idle).await;
    let used = processes::cpu_time(pid)?.saturating_sub(before.0);
    let supervisors = processes::cpu_time(supervisor)?.saturating_sub(before.1);
    top.kill().context("failed to end top")?;
    top.wait()?;
    Ok((used, supervisors))
}

/// Supervision among them, beside the same supervisor without.
async fn dashboards(bench: &Bench) -> anyhow::Result<Line> {
    let mut host = Host::prepare(bench)?;
    let settings = OpenOptions::new().append(true).open(host.data_dir().join("settings.yaml"));
    writeln!(settings.context("failed to open the settings")?, "web: \"127.0.0.1:{PORT}\"")?;
    host.spawn()?;
    let mut client = host.connect().await?;
    client.run(NAME, host::child(bench, &[])).await?;
    let alone = Samples::new(restart::of(bench, &mut client).await?)?;
    let channel = load::connect(&host.data_dir().join("control.sock")).await?;
    let link = WebServiceClient::new(channel).create_link(CreateLinkRequest {}).await?.into_inner().url;
    let (_, ticket) = link.split_once("#link=").context("the link has no ticket")?;
    let lookers = Lookers::gather(ticket.to_owned())?;
    let among = Samples::new(restart::of(bench, &mut client).await?)?;
    let seen = lookers.leave()?;
    let ratio = among.median().as_secs_f64() / alone.median().as_secs_f64();
    Ok(Line {
        what: format!("`kill -9` of a child to its successor listening, {DASHBOARDS} dashboards open"),
        target: format!("{} times without", digits(MOST_AMONG)),
        measured: time(among.median()),
        verdict: Verdict::of(ratio <= MOST_AMONG),
        runs: among.count(),
        beside: format!(
            "without {}: {}x; p90 {}; {} KB told to each",
            time(alone.median()),
            digits(ratio),
            time(among.percentile(90)),
            seen / DASHBOARDS / 1_000
        ),
    })
}

/// Open dashboards, on a thread of their own.
struct Lookers {
    leave: oneshot::Sender<()>,
    thread: thread::JoinHandle<usize>,
}

impl Lookers {
    /// Returns once all of them see the fleet.
    fn gather(ticket: String) -> anyhow::Result<Self> {
        let (leave, left) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let gathered = runtime.context("failed to start the dashboards' runtime").and_then(|runtime| {
                let streams = runtime.block_on(look(&ticket))?;
                Ok((runtime, streams))
            });
            match gathered {
                Ok((runtime, streams)) => {
                    let _ = tell.send(Ok(()));
                    runtime.block_on(go_on(streams, left))
                }
                Err(error) => {
                    drop(tell.send(Err(error)));
                    0
                }
            }
        });
        told.recv().context("the dashboards ended")??;
        Ok(Self { leave, thread })
    }

    /// Answers how many bytes they were told.
    fn leave(self) -> anyhow::Result<usize> {
        drop(self.leave);
        self.thread.join().map_err(|_| anyhow::anyhow!("the dashboards panicked"))
    }
}

async fn post(path: &str, head: &str, body: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).await.context("failed to connect")?;
    let length = body.len();
    let request = format!(
        "POST /api/{path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nX-OpenClaw-Page: 1\r\n{head}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// What each of them follows: the fleet, and what happens.
async fn look(ticket: &str) -> anyhow::Result<Vec<TcpStream>> {
    let mut opened = post("session", "", ticket).await?;
    let mut answer = vec![0; 64 << 10];
    let length = opened.read(&mut answer).await?;
    let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
    let (_, body) = answer.split_once("\r\n\r\n").context("no session was opened")?;
    let body: Value = serde_json::from_str(body).context("no session was opened")?;
    let session = body["session"].as_str().context("no session was opened")?;
    let secret = URL_SAFE_NO_PAD.decode(body["secret"].as_str().context("no session was opened")?)?;
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let mut streams = Vec::new();
    for _ in 0..DASHBOARDS {
        for method in ["InstanceService/WatchInstances", "EventService/WatchEvents"] {
            let count = streams.len() + 1;
            let seal = hmac::sign(&secret, format!("call {session} {method} {count}\n{{}}").as_bytes());
            let seal = URL_SAFE_NO_PAD.encode(seal);
            let head = format!("Authorization: Bearer {session}\r\nX-OpenClaw-Proof: {count}.{seal}\r\n");
            let mut stream = post(method, &head, "{}").await?;
            let mut head = [0; 12];
            stream.read_exact(&mut head).await?;
            anyhow::ensure!(&head == b"HTTP/1.1 200", "{method} was refused");
            streams.push(stream);
        }
    }
    Ok(streams)
}

/// Reads all that comes, until `left`.
async fn go_on(streams: Vec<TcpStream>, left: oneshot::Receiver<()>) -> usize {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    for mut stream in streams {
        let told = told.clone();
        tokio::spawn(async move {
            let mut bytes = vec![0; 16 << 10];
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                let _ = told.send(read);
            }
        });
    }
    // However it ends.
    let _ = left.await;
    let mut all = 0;
    while let Ok(read) = heard.try_recv() {
        all += read;
    }
    all
}
