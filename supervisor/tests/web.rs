//! The dashboard's door, by real daemons: who gets in, and who does not, whatever a browser can be made to send.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::Write,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::process::CommandExt,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ring::hmac;
use supervisor_proto::v1::{
    CreateLinkRequest, GetInfoRequest, WallPolicy, web_service_client::WebServiceClient,
};
use support::{Host, agent::Agent, builtin, door::Door, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A supervisor that serves the dashboard on one of the test's own ports.
async fn start() -> (Host, u16) {
    let (mut host, port) = prepare();
    host.start_supervisor().await;
    (host, port)
}

/// One that is to.
fn prepare() -> (Host, u16) {
    let host = Host::prepare();
    let port = host.first_port + 395;
    serve(&host, port);
    (host, port)
}

/// Has it serve the dashboard there.
fn serve(host: &Host, port: u16) {
    let mut settings = OpenOptions::new().append(true).open(host.data_dir().join("settings.yaml")).unwrap();
    writeln!(settings, "web: \"127.0.0.1:{port}\"").unwrap();
}

/// Sends a request as it stands, and answers status, head and body.
async fn send(port: u16, request: String) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// A call as the page makes it, with these lines added to its head.
async fn call(port: u16, method: &str, more: &str, body: &str) -> (u16, serde_json::Value) {
    let own = format!("Host: 127.0.0.1:{port}\r\nX-OpenClaw-Page: 1\r\nConnection: close\r\n");
    let length = body.len();
    let request = format!("POST /api/{method} HTTP/1.1\r\n{own}{more}Content-Length: {length}\r\n\r\n{body}");
    let (status, _, body) = send(port, request).await;
    (status, serde_json::from_str(&body).unwrap_or_default())
}

/// The ticket of a new link.
async fn ticket(host: &Host) -> String {
    let mut client = WebServiceClient::new(host.channel().await.unwrap());
    let link = client.create_link(CreateLinkRequest {}).await.unwrap().into_inner().url;
    link.split_once("/#link=").unwrap().1.to_owned()
}

/// What an open page knows.
struct Page {
    ticket: String,
    secret: hmac::Key,
    count: AtomicU64,
}

impl Page {
    /// By a new link.
    async fn open(host: &Host, port: u16) -> Self {
        Self::of(&ticket(host).await, port).await
    }

    /// By the link that has this ticket.
    async fn of(ticket: &str, port: u16) -> Self {
        let (status, answer) = call(port, "session", "", ticket).await;
        assert_eq!(status, 200, "{answer}");
        let secret = URL_SAFE_NO_PAD.decode(answer["secret"].as_str().unwrap()).unwrap();
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { ticket: answer["session"].as_str().unwrap().to_owned(), secret, count: AtomicU64::new(0) }
    }

    fn signed(&self, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.secret, text.as_bytes()))
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.ticket)
    }

    /// What it adds to the head of this call.
    fn head(&self, method: &str, body: &str) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let seal = self.signed(&format!("call {} {method} {count}\n{body}", self.ticket));
        format!("{}X-OpenClaw-Proof: {count}.{seal}\r\n", self.bearer())
    }

    async fn call(&self, port: u16, method: &str, body: &str) -> (u16, serde_json::Value) {
        call(port, method, &self.head(method, body), body).await
    }
}

#[tokio::test]
async fn the_page_is_everybodys_and_lets_the_browser_fetch_nothing_from_elsewhere() {
    let (_host, port) = start().await;
    let get = |path: &str, named: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n\r\n")
    };
    for path in ["/", "/app.js", "/style.css"] {
        let (status, head, body) = send(port, get(path, &format!("localhost:{port}"))).await;
        assert_eq!(status, 200, "{path}");
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self';"), "{head}");
        assert!(head.contains("cache-control: no-store") && head.contains("x-frame-options: deny"), "{head}");
        assert!(
            !head.contains("set-cookie") && !body.contains("http://") && !body.contains("https://"),
            "{path}"
        );
    }
    assert_eq!(send(port, get("/../settings.yaml", &format!("127.0.0.1:{port}"))).await.0, 404);
    // A name that somebody else leads here, as an attacker's own domain can be.
    for named in
        ["evil.example", "localhost.evil.example", "evil.example/.localhost", "evil.example@a.localhost"]
    {
        assert_eq!(send(port, get("/", &format!("{named}:{port}"))).await.0, 403, "{named}");
    }
    for named in ["evil.example", "127.0.0.1"] {
        assert_eq!(send(port, get("/", named)).await.0, 403, "{named}");
    }
}

#[tokio::test]
async fn each_link_has_a_name_of_its_own_where_no_browser_keeps_anything() {
    let (host, port) = start().await;
    let mut links = WebServiceClient::new(host.channel().await.unwrap());
    let mut names = BTreeSet::new();
    for _ in 0..2 {
        let link = links.create_link(CreateLinkRequest {}).await.unwrap().into_inner().url;
        let (name, ticket) = link.split_once("/#link=").unwrap();
        let name = name.strip_prefix("http://").unwrap();
        assert!(name.starts_with("claw-") && name.ends_with(&format!(".localhost:{port}")), "{name}");
        let request = format!(
            "POST /api/session HTTP/1.1\r\nHost: {name}\r\nOrigin: http://{name}\r\nX-OpenClaw-Page: 1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{ticket}",
            ticket.len()
        );
        assert_eq!(send(port, request).await.0, 200);
        names.insert(name.to_owned());
    }
    assert_eq!(names.len(), 2);
}

#[tokio::test]
async fn a_link_opens_one_session_which_the_next_supervisor_knows_by_a_proof() {
    let (mut host, port) = start().await;
    host.create("main", builtin()).await;
    let ticket = ticket(&host).await;
    assert_eq!(call(port, "session", "", &ticket).await.0, 200);
    let (status, again) = call(port, "session", "", &ticket).await;
    assert_eq!((status, &again["code"]), (401, &"Unauthenticated".into()));
    assert!(again["message"].as_str().unwrap().contains("type `openclawctl web`"), "{again}");

    let list = "InstanceService/ListInstances";
    let mut page = Page::open(&host, port).await;
    let (status, fleet) = page.call(port, list, "{}").await;
    assert_eq!((status, &fleet["instances"][0]["name"]), (200, &"main".into()));
    host.kill_supervisor();
    host.start_supervisor().await;
    // Whoever had the port meanwhile was sent the session, and nothing to go on with it.
    let (status, over) = page.call(port, list, "{}").await;
    assert_eq!(status, 401);
    let life = over["life"].as_str().unwrap().to_owned();
    let guessed = URL_SAFE_NO_PAD.encode(b"guessed");
    assert_eq!(call(port, "renew", &page.bearer(), &guessed).await.0, 401);
    let proof = page.signed(&format!("life {life}"));
    let (status, renewed) = call(port, "renew", &page.bearer(), &proof).await;
    assert_eq!((status, &renewed["secret"]), (200, &serde_json::Value::Null), "{renewed}");
    page.ticket = renewed["session"].as_str().unwrap().to_owned();
    // Whoever has passed that on knows the session, and can neither call with it nor have it again.
    assert_eq!(call(port, list, &page.bearer(), "{}").await.0, 401);
    assert_eq!(call(port, "renew", &page.bearer(), "").await.0, 401);
    assert_eq!(page.call(port, list, "{}").await.0, 200);
    // What a dashboard has no business with is not there, whoever asks.
    for method in ["InstanceService/DeleteInstance", "SystemService/Shutdown", "Nothing/AtAll", "x"] {
        assert_eq!(page.call(port, method, "{}").await.0, 501, "{method}");
    }
    assert_eq!(page.call(port, list, "{\"pageSize\": \"many\"}").await.0, 400);
}

#[tokio::test]
async fn a_call_that_somebody_passes_on_is_made_once_and_as_the_page_has_made_it() {
    let (host, port) = start().await;
    host.create("main", builtin()).await;
    let page = Page::open(&host, port).await;
    let (start, stop, body) =
        ("InstanceService/StartInstance", "InstanceService/StopInstance", r#"{"name": "main"}"#);
    let head = page.head(start, body);
    for (method, body) in [(stop, body), (start, r#"{"name": "other"}"#), (start, r#"{"name": "main" }"#)] {
        assert_eq!(call(port, method, &head, body).await.0, 401, "{method} {body}");
    }
    assert_eq!(call(port, start, &head, body).await.0, 200);
    let (status, again) = call(port, start, &head, body).await;
    assert_eq!((status, &again["again"]), (401, &"yes".into()));
    host.wait_ready("main").await;
}

#[tokio::test]
async fn whatever_another_page_can_have_a_browser_send_does_nothing() {
    let (host, port) = start().await;
    host.create("main", builtin()).await;
    let page = Page::open(&host, port).await;
    let start = "InstanceService/StartInstance";
    let body = r#"{"name": "main"}"#;
    let mine = || page.head(start, body);
    for more in [
        String::new(),
        "Authorization: Bearer guessed\r\n".into(),
        "Cookie: session=guessed\r\n".into(),
        format!("{}Origin: http://evil.example\r\n", mine()),
        format!("{}Origin: null\r\n", mine()),
        format!("{}Origin: http://127.0.0.1:{}\r\n", mine(), port + 1),
        // A name of this host that another program had once.
        format!("{}Origin: http://localhost:{port}\r\n", mine()),
    ] {
        let (status, _) = call(port, start, &more, body).await;
        assert!([401, 403].contains(&status), "{status}: {more}");
    }
    let plain = |method: &str, more: &str| {
        format!(
            "{method} /api/{start} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{}{more}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            mine(),
            body.len()
        )
    };
    // As a form does, without the header that a page of another origin may not set.
    assert_eq!(send(port, plain("POST", "")).await.0, 403);
    assert_eq!(send(port, plain("GET", "X-OpenClaw-Page: 1\r\n")).await.0, 403);
    assert_eq!(host.status("main").await.incarnation, 0);
    let (status, _) =
        call(port, start, &format!("{}Origin: http://127.0.0.1:{port}\r\n", mine()), body).await;
    assert_eq!(status, 200);
    host.wait_ready("main").await;
}

#[tokio::test]
async fn an_agent_gets_no_link() {
    let (host, port) = start().await;
    let (agent, _) = Agent::start(&host, "main", Agent::spec(WallPolicy::default())).await;
    let openclawctl = support::program("openclawctl");
    let data_dir = host.data_dir();
    let asked = format!("{} --data-dir {} web", openclawctl.display(), data_dir.display());
    let ran = agent.run(&asked).await;
    assert_eq!((ran.status, ran.out.as_str()), (7, ""), "{ran:?}");
    assert!(ran.err.contains("from inside `main`"), "{ran:?}");
    // It can connect, as every process of the host can.
    assert_eq!(call(port, "InstanceService/ListInstances", "", "{}").await.0, 401);
}

#[tokio::test]
async fn a_session_that_another_user_has_stolen_is_none() {
    // It takes root to be somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (host, port) = start().await;
    let page = Page::open(&host, port).await;
    let list = "InstanceService/ListInstances";
    assert_eq!(page.call(port, list, "{}").await.0, 200);
    let mine = page.head(list, "{}");
    let request = format!(
        "POST /api/{list} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-OpenClaw-Page: 1\r\n{mine}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf %s \"$REQUEST\" >&3; head -1 <&3");
    let thief = Command::new("bash")
        .args(["-c", &script])
        .env("REQUEST", request)
        .uid(64_127)
        .gid(64_127)
        .output()
        .unwrap();
    let said = String::from_utf8(thief.stdout).unwrap();
    assert!(said.starts_with("HTTP/1.1 401"), "{said}");
}

#[tokio::test]
async fn a_crowd_that_says_half_of_something_keeps_nobody_out() {
    let (host, port) = start().await;
    let page = Page::open(&host, port).await;
    let own = format!("Host: 127.0.0.1:{port}\r\nX-OpenClaw-Page: 1\r\n");
    let mut crowd = Vec::new();
    for said in [
        String::new(),
        "POST /api/ses".into(),
        format!("POST /api/session HTTP/1.1\r\n{own}Content-Length: 9\r\n\r\nx"),
    ] {
        for _ in 0..200 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            // Who has had to make room is not heard any more.
            let _ = stream.write_all(said.as_bytes()).await;
            crowd.push(stream);
        }
    }
    assert_eq!(page.call(port, "InstanceService/ListInstances", "{}").await.0, 200);
    assert_eq!(call(port, "session", "", &ticket(&host).await).await.0, 200);
    drop(crowd);
}

#[tokio::test]
async fn a_viewer_with_more_streams_than_there_are_places_keeps_no_operator_out() {
    // It takes root to be somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    const VIEWER: u32 = 64_127;
    let (mut host, door) = (Host::prepare(), Door::new());
    let port = host.first_port + 395;
    door.open(&host, &format!("- {{uid: {VIEWER}, role: viewer}}\n"));
    serve(&host, port);
    host.start_supervisor().await;
    let link = door.done(VIEWER, &["web"]);
    let (_, ticket) = link.trim().split_once("/#link=").unwrap();
    let viewer = Page::of(ticket, port).await;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let (watch, mut crowd) = ("InstanceService/WatchInstances", Vec::new());
    for _ in 0..1_100 {
        let head = viewer.head(watch, "{}");
        let own = format!("Host: 127.0.0.1:{port}\r\nX-OpenClaw-Page: 1\r\n{head}Content-Length: 2\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(format!("POST /api/{watch} HTTP/1.1\r\n{own}\r\n{{}}").as_bytes()).await.unwrap();
        let mut status = [0; 12];
        let _ = stream.read_exact(&mut status).await.unwrap();
        assert_eq!(status, *b"HTTP/1.1 200");
        crowd.push(stream);
    }
    let page = Page::open(&host, port).await;
    assert_eq!(page.call(port, "InstanceService/ListInstances", "{}").await.0, 200);
    drop(crowd);
}

#[tokio::test]
async fn whoever_has_the_port_keeps_no_supervisor_from_starting_and_is_sent_nobody() {
    let (mut host, port) = prepare();
    // A browser that is led to `localhost` takes either.
    let [other, own] = [SocketAddr::from((Ipv6Addr::LOCALHOST, port)), (Ipv4Addr::LOCALHOST, port).into()];
    let mut squatters = Vec::new();
    for address in [own, other] {
        squatters.extend(TcpListener::bind(address).await);
    }
    assert!(!squatters.is_empty());
    host.start_supervisor().await;
    let told = |address| format!("the dashboard cannot be served on {address}: ");
    let alarms = host.system().await.get_info(GetInfoRequest {}).await.unwrap().into_inner().alarms;
    assert!(alarms.iter().any(|alarm| alarm.starts_with(&told(own))), "{alarms:?}");
    let mut links = WebServiceClient::new(host.channel().await.unwrap());
    let refused = links.create_link(CreateLinkRequest {}).await.unwrap_err();
    assert!(refused.message().starts_with(&told(own)), "{refused:?}");
    drop(squatters.remove(0));
    if !squatters.is_empty() {
        let why = until("the next one is told of", async || {
            let why = links.create_link(CreateLinkRequest {}).await.unwrap_err().message().to_owned();
            (!why.starts_with(&told(own))).then_some(why)
        });
        assert!(why.await.starts_with(&told(other)));
    }
    drop(squatters);
    until("the dashboard is served", async || links.create_link(CreateLinkRequest {}).await.ok()).await;
    let (status, _) = call(port, "session", "", &ticket(&host).await).await;
    assert_eq!(status, 200);
}
