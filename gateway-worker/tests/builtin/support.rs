//! A gateway to test, and the clients that ask it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long anything may take on a machine under heavy load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const TOKEN: &str = "a-token-that-no-log-may-show";
/// Below the kernel's ephemeral range, so that no outgoing connection takes one meanwhile.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const BLOCK: u16 = 20;

/// A running gateway, its files, and its service manager.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) port: u16,
    pub(crate) home: Home,
    notify: UnixDatagram,
}

/// The files and the environment of one gateway.
pub(crate) struct Home {
    directory: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Home {
    pub(crate) fn new(config: &str) -> Self {
        let home = Self::empty();
        fs::write(home.config(), config).unwrap();
        home
    }

    fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), variables: vec![] }
    }

    /// The same with one more variable in the environment.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(set, _)| *set != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    /// The same with a gateway that misbehaves like this.
    pub(crate) fn misbehaving(self, how: &str) -> Self {
        self.with("BUILTIN_GATEWAY_MISBEHAVE", how)
    }

    /// The same under a supervisor that reads handoffs.
    pub(crate) fn supervised(self) -> Self {
        self.with("OPENCLAW_SUPERVISOR_MODE", "external")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The names of all files that begin so.
    pub(crate) fn files(&self, start: &str) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(start)).collect()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("openclaw.json")
    }

    pub(crate) fn canvas(&self) -> PathBuf {
        self.path("canvas")
    }

    /// The binary in an environment of its own, its output in files.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.program(&["gateway", "run"]);
        command
            .stdout(File::create(self.path("out.log")).unwrap())
            .stderr(File::create(self.path("err.log")).unwrap());
        command
    }

    /// The binary in the same environment with these arguments.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_builtin-gateway"));
        command
            .args(arguments)
            .env_clear()
            .env("OPENCLAW_STATE_DIR", self.directory.path())
            .env("OPENCLAW_CONFIG_PATH", self.config())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs one of its tools to its end.
    pub(crate) fn tool(&self, arguments: &str) -> Outcome {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let output = self.program(&arguments).output().unwrap();
        Outcome {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The socket of a service manager.
    fn manager(&self) -> UnixDatagram {
        let _ = fs::remove_file(self.path("notify"));
        let notify = UnixDatagram::bind(self.path("notify")).unwrap();
        notify.set_nonblocking(true).unwrap();
        notify
    }

    /// Sends to the manager's socket until it takes no more.
    fn fill(&self, manager: &UnixDatagram) {
        while manager.send_to(b"X=1", self.path("notify")).is_ok() {}
    }

    pub(crate) fn out(&self) -> String {
        fs::read_to_string(self.path("out.log")).unwrap()
    }

    pub(crate) fn err(&self) -> String {
        fs::read_to_string(self.path("err.log")).unwrap()
    }
}

/// What came of running a tool.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    /// What it printed, as a machine reads it.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// OpenClaw's smallest configuration.
pub(crate) fn config(port: u16) -> String {
    json!({ "gateway": {
        "mode": "local", "port": port, "bind": "loopback", "auth": { "mode": "token", "token": TOKEN },
    }})
    .to_string()
}

impl Gateway {
    pub(crate) fn start() -> Self {
        Self::start_with(config)
    }

    /// Starts one with the configuration that `config` makes for its port.
    pub(crate) fn start_with(config: impl Fn(u16) -> String) -> Self {
        Self::start_in(|port| Home::new(&config(port)))
    }

    /// Starts one on a free block from the files that `home` makes for its port, and waits until it says that
    /// it is ready. Where another process takes the port first, another block is tried.
    pub(crate) fn start_in(home: impl Fn(u16) -> Home) -> Self {
        loop {
            let port = free_block();
            if let Some(gateway) = Self::try_start(home(port), port) {
                return gateway;
            }
        }
    }

    /// Starts one whose service manager has no room for another message, and waits until it is ready.
    pub(crate) fn start_with_full_manager() -> Self {
        Self::start_until("/readyz", |port, notify| {
            let home = Home::new(&config(port));
            let notify = notify(&home);
            home.fill(&notify);
            (home, notify)
        })
    }

    /// Starts one from the files that `home` makes for its port, and waits until it is live, which is before
    /// it is ready.
    pub(crate) fn start_live(home: impl Fn(u16) -> Home) -> Self {
        Self::start_until("/healthz", |port, notify| {
            let home = home(port);
            let notify = notify(&home);
            (home, notify)
        })
    }

    fn start_until(
        path: &str,
        make: impl Fn(u16, fn(&Home) -> UnixDatagram) -> (Home, UnixDatagram),
    ) -> Self {
        loop {
            let port = free_block();
            let (home, notify) = make(port, Home::manager);
            let mut gateway = Self::spawn(home, port, notify);
            let asked = || Reply::at(Ipv4Addr::LOCALHOST.into(), port, "GET", path, &[]).ok();
            let well = eventually("the gateway is well, or exits", || {
                let well = asked().filter(|reply| reply.status == 200).map(|_| true);
                gateway.exited().map(|_| false).or(well)
            });
            if well {
                return gateway;
            }
        }
    }

    fn spawn(home: Home, port: u16, notify: UnixDatagram) -> Self {
        let child = home.command().env("NOTIFY_SOCKET", home.path("notify")).spawn().unwrap();
        Self { child, port, home, notify }
    }

    /// Starts one from these files, or `None` if its port is taken.
    pub(crate) fn try_start(home: Home, port: u16) -> Option<Self> {
        let notify = home.manager();
        let mut gateway = Self::spawn(home, port, notify);
        let ready = eventually("the gateway says that it is ready, or exits", || {
            gateway.told().map(|told| told == "READY=1").or_else(|| gateway.exited().map(|_| false))
        });
        if ready {
            return Some(gateway);
        }
        let fault = gateway.home.err();
        assert!(fault.contains("already in use"), "{fault}");
        None
    }

    /// What the gateway has told its service manager, if anything is waiting.
    pub(crate) fn told(&self) -> Option<String> {
        let mut message = [0; 256];
        let length = self.notify.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).trim().to_owned())
    }

    /// Leaves its service manager no room for another message.
    pub(crate) fn fill_manager(&self) {
        self.home.fill(&self.notify);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its memory in kilobytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        eventually("the gateway exits", || self.exited()).code()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        Reply::to(self.port, "GET", path, &[])
    }

    pub(crate) async fn client(&self) -> Client {
        Client::open(self.port).await
    }

    /// How often its main thread has gone to sleep.
    pub(crate) fn voluntary_switches(&self) -> u64 {
        self.status("voluntary_ctxt_switches:")
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().parse().unwrap()
    }

    /// Ends it at once and leaves its files.
    pub(crate) fn crash(mut self) -> Home {
        self.signal(Signal::SIGKILL);
        eventually("the gateway dies", || self.exited());
        std::mem::replace(&mut self.home, Home::empty())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port whose whole block can be listened on now.
pub(crate) fn free_block() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let blocks = (PORTS.end - PORTS.start) / BLOCK;
    // Each test process begins elsewhere, so that two of them seldom meet.
    let first = (std::process::id() as u16).wrapping_mul(7);
    for _ in 0..blocks {
        let block = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % blocks;
        let port = PORTS.start + block * BLOCK;
        if [port, port + 2, port + 4]
            .iter()
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        {
            return port;
        }
    }
    panic!("no free port block");
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "timed out waiting: {what}");
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a test waits between two looks at a level"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// An HTTP reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn to(port: u16, method: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), port, method, path, headers).unwrap()
    }

    /// Fails where the connection does.
    pub(crate) fn at(
        ip: IpAddr,
        port: u16,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect((ip, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{request}\r\n").as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Self { status, head, body: bytes.split_off(end + 4) })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head.lines().find(line).map(|line| line.split_once(':').unwrap().1.trim())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A WebSocket client.
pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    asked: u64,
}

impl Client {
    /// Opens a connection and reads the challenge.
    pub(crate) async fn open(port: u16) -> Self {
        let (socket, _) = connect_async(format!("ws://127.0.0.1:{port}/")).await.unwrap();
        let mut client = Self { socket, asked: 0 };
        let challenge = client.next().await;
        assert_eq!((&challenge["type"], &challenge["event"]), (&json!("event"), &json!("connect.challenge")));
        assert!(
            challenge["payload"]["nonce"].is_string() && challenge["payload"]["ts"].is_u64(),
            "{challenge}"
        );
        client
    }

    /// Introduces itself and returns the response.
    pub(crate) async fn connect(&mut self, protocols: (u64, u64), auth: Value) -> Value {
        let params = json!({
            "minProtocol": protocols.0, "maxProtocol": protocols.1,
            "client": { "id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend" },
            "role": "operator", "scopes": ["operator.admin"], "caps": [], "auth": auth,
        });
        self.ask("connect", params).await
    }

    /// Introduces itself as OpenClaw's newest clients do, and returns the `hello-ok`.
    pub(crate) async fn hello(&mut self) -> Value {
        let mut response = self.connect((3, 4), json!({ "token": TOKEN })).await;
        assert_eq!(response["ok"], true, "{response}");
        response["payload"].take()
    }

    /// Sends a request and returns its response.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let id = self.asked.to_string();
        let frame = json!({ "type": "req", "id": id, "method": method, "params": params });
        self.say(&frame.to_string()).await;
        let response = self.next().await;
        assert_eq!((&response["type"], &response["id"]), (&json!("res"), &json!(id)), "{response}");
        response
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Value {
        let message = self.message().await;
        let Message::Text(text) = &message else { panic!("expected a frame, not {message:?}") };
        serde_json::from_str(text.as_str()).unwrap()
    }

    /// The code and reason of the close, which must come next.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let message = self.message().await;
        let Message::Close(Some(frame)) = &message else { panic!("expected a close, not {message:?}") };
        (frame.code.into(), frame.reason.to_string())
    }

    async fn message(&mut self) -> Message {
        timeout(PATIENCE, self.socket.next()).await.expect("a message in time").unwrap().unwrap()
    }
}
