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
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use supervisor_proto::v1::{
    CreateLinkRequest, GetInfoRequest, WallPolicy, web_service_client::WebServiceClient,
};
use support::{Host, agent::Agent, builtin, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A supervisor that serves the dashboard on one of the test's own ports.
async fn start() -> (Host, u16) {
    let mut host = Host::prepare();
    let port = host.first_port + 395;
    let mut settings = OpenOptions::new().append(true).open(host.data_dir().join("settings.yaml")).unwrap();
    writeln!(settings, "web: \"127.0.0.1:{port}\"").unwrap();
    host.start_supervisor().await;
    (host, port)
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

/// What a session shows of itself with each call.
async fn session(host: &Host, port: u16) -> String {
    let (status, answer) = call(port, "session", "", &ticket(host).await).await;
    assert_eq!(status, 200, "{answer}");
    format!("Authorization: Bearer {}\r\n", answer["session"].as_str().unwrap())
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
    let (status, answer) = call(port, "session", "", &ticket).await;
    assert_eq!(status, 200);
    let mine = format!("Authorization: Bearer {}\r\n", answer["session"].as_str().unwrap());
    let (status, again) = call(port, "session", "", &ticket).await;
    assert_eq!((status, &again["code"]), (401, &"Unauthenticated".into()));
    assert!(again["message"].as_str().unwrap().contains("type `openclawctl web`"), "{again}");

    let list = "InstanceService/ListInstances";
    let (status, fleet) = call(port, list, &mine, "{}").await;
    assert_eq!((status, &fleet["instances"][0]["name"]), (200, &"main".into()));
    host.kill_supervisor();
    host.start_supervisor().await;
    // Whoever had the port meanwhile was sent the session, and nothing to go on with it.
    let (status, over) = call(port, list, &mine, "{}").await;
    assert_eq!(status, 401);
    let life = over["life"].as_str().unwrap();
    let secret = URL_SAFE_NO_PAD.decode(answer["secret"].as_str().unwrap()).unwrap();
    let signed = |secret: &[u8]| {
        URL_SAFE_NO_PAD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), life.as_bytes()))
    };
    assert_eq!(call(port, "renew", &mine, &signed(b"guessed")).await.0, 401);
    let (status, renewed) = call(port, "renew", &mine, &signed(&secret)).await;
    assert_eq!(status, 200, "{renewed}");
    let mine = format!("Authorization: Bearer {}\r\n", renewed["session"].as_str().unwrap());
    assert_eq!(call(port, list, &mine, "{}").await.0, 200);
    // What a dashboard has no business with is not there, whoever asks.
    for method in ["InstanceService/DeleteInstance", "SystemService/Shutdown", "Nothing/AtAll", "x"] {
        assert_eq!(call(port, method, &mine, "{}").await.0, 501, "{method}");
    }
    assert_eq!(call(port, list, &mine, "{\"pageSize\": \"many\"}").await.0, 400);
}

#[tokio::test]
async fn whatever_another_page_can_have_a_browser_send_does_nothing() {
    let (host, port) = start().await;
    host.create("main", builtin()).await;
    let mine = session(&host, port).await;
    let start = "InstanceService/StartInstance";
    let body = r#"{"name": "main"}"#;
    for more in [
        String::new(),
        "Authorization: Bearer guessed\r\n".into(),
        "Cookie: session=guessed\r\n".into(),
        format!("{mine}Origin: http://evil.example\r\n"),
        format!("{mine}Origin: null\r\n"),
        format!("{mine}Origin: http://127.0.0.1:{}\r\n", port + 1),
        // A name of this host that another program had once.
        format!("{mine}Origin: http://localhost:{port}\r\n"),
    ] {
        let (status, _) = call(port, start, &more, body).await;
        assert!([401, 403].contains(&status), "{status}: {more}");
    }
    let plain = |method: &str, more: &str| {
        format!(
            "{method} /api/{start} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{mine}{more}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    // As a form does, without the header that a page of another origin may not set.
    assert_eq!(send(port, plain("POST", "")).await.0, 403);
    assert_eq!(send(port, plain("GET", "X-OpenClaw-Page: 1\r\n")).await.0, 403);
    assert_eq!(host.status("main").await.incarnation, 0);
    let (status, _) = call(port, start, &format!("{mine}Origin: http://127.0.0.1:{port}\r\n"), body).await;
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
    let mine = session(&host, port).await;
    let list = "InstanceService/ListInstances";
    assert_eq!(call(port, list, &mine, "{}").await.0, 200);
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
async fn whoever_has_the_port_keeps_no_supervisor_from_starting_and_is_sent_nobody() {
    let mut host = Host::prepare();
    let port = host.first_port + 395;
    let mut settings = OpenOptions::new().append(true).open(host.data_dir().join("settings.yaml")).unwrap();
    writeln!(settings, "web: \"127.0.0.1:{port}\"").unwrap();
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
