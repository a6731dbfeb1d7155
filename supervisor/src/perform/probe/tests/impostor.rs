//! Another process on the port, which answers as an OpenClaw without health endpoints does.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, ChildStdout, Command, Stdio},
};

use super::*;

/// A user that no host has.
const SOMEBODY: u32 = 54_321;

const TOKEN: &str = "0123456789abcdef";

/// Listens on the address it is told, says 404 to all that is asked, and greets who speaks WebSocket. It prints its port,
/// and then whatever that one says, until it hangs up.
const SCRIPT: &str = r#"
import base64, hashlib, re, socket, sys
listener = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print(listener.getsockname()[1], flush=True)
while True:
    caller, _ = listener.accept()
    head = b""
    while b"\r\n\r\n" not in head:
        head += caller.recv(4096)
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
    if not key:
        caller.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        caller.recv(1)
        continue
    accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    caller.sendall(b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                   b"sec-websocket-accept: " + accept + b"\r\n\r\n")
    said = b'{"type":"event","event":"connect.challenge","payload":{"nonce":"1"}}'
    caller.sendall(bytes([0x81, len(said)]) + said)
    while True:
        frame = caller.recv(2)
        if len(frame) < 2:
            break
        length = frame[1] & 127
        if length == 126:
            length = int.from_bytes(caller.recv(2), "big")
        mask, text = caller.recv(4), b""
        while len(text) < length:
            text += caller.recv(length - len(text))
        print("heard", bytes(byte ^ mask[at % 4] for at, byte in enumerate(text)), flush=True)
        # An answer that refuses.
        said = b'{"type":"res","id":"1","ok":false,"error":{"code":"X","message":"no"}}'
        caller.sendall(bytes([0x81, len(said)]) + said)
    break
"#;

struct Impostor {
    child: Child,
    port: u16,
    heard: BufReader<ChildStdout>,
}

impl Impostor {
    fn start(address: &str, uid: u32) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT, address]).current_dir("/").stdout(Stdio::piped());
        if rustix::process::geteuid().is_root() {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn().unwrap();
        let mut heard = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        heard.read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap(), heard }
    }

    /// What is said to it in all, once the caller has hung up.
    fn heard(mut self) -> String {
        let mut heard = String::new();
        self.heard.read_to_string(&mut heard).unwrap();
        heard
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is reported of a gateway of this process's user, and what the impostor hears.
async fn probed(address: &str, uid: u32) -> (u16, Report, String) {
    let impostor = Impostor::start(address, uid);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("openclaw.json");
    let text = json!({ "gateway": { "auth": { "mode": "token", "token": TOKEN } } });
    std::fs::write(&config, text.to_string()).unwrap();
    let port = impostor.port;
    let asked = target(Some(spec::Target::Openclaw { port }));
    let report = probe(&Target { secret: secret(&config), ..asked }, Startup).await;
    let heard = task::spawn_blocking(|| impostor.heard()).await.unwrap();
    (port, report, heard)
}

#[tokio::test]
async fn who_has_taken_the_gateways_port_as_another_user_is_not_shown_its_token() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for address in ["127.0.0.1", "::1"] {
        if std::net::TcpListener::bind((address, 0)).is_err() {
            continue;
        }
        let (port, report, heard) = probed(address, SOMEBODY).await;
        assert!(!heard.contains(TOKEN), "{heard}");
        let shown = std::net::SocketAddr::new(address.parse().unwrap(), port);
        let why = format!("`{shown}` is served by user {SOMEBODY}, not by `main`");
        assert_eq!((fails(&report.live), fails(&report.ready)), (&*why, &*why));
        assert_ne!(report.progress, 0, "somebody listens");
    }
}

#[tokio::test]
async fn a_gateway_of_the_instances_user_is_shown_its_token() {
    let (_, report, heard) = probed("127.0.0.1", rustix::process::geteuid().as_raw()).await;
    assert!(heard.contains(TOKEN), "{heard}");
    assert_eq!(fails(&report.ready), "the gateway turned the probe away: no");
}

#[tokio::test]
async fn what_another_user_answers_on_a_gateways_port_is_not_its_answer() {
    let (listeners, lineage) = (Listeners::default(), Lineage::new("store"));
    let report = async |uid: u32, kind: ProbeKind| {
        let impostor = Impostor::start("127.0.0.1", uid);
        let asked = target(Some(spec::Target::Tcp { port: impostor.port }));
        let report = probe(&asked, kind).await;
        assert_eq!((&report.live, &report.ready), (&Verdict::Pass, &Verdict::Pass));
        (impostor.port, unless_squatted(report, &asked, kind, (&listeners, &lineage)).await)
    };
    for kind in [Startup, Watch] {
        let (_, mine) = report(rustix::process::geteuid().as_raw(), kind).await;
        assert_eq!((mine.live, mine.ready), (Verdict::Pass, Verdict::Pass), "{kind:?}");
        if rustix::process::geteuid().is_root() {
            let (port, theirs) = report(SOMEBODY, kind).await;
            let expected =
                Verdict::Fail(format!("`127.0.0.1:{port}` is served by user {SOMEBODY}, not by `main`"));
            assert_eq!((&theirs.live, &theirs.ready), (&expected, &expected), "{kind:?}");
        }
    }
}
