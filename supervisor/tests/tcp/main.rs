//! Callers by TCP: whom a certificate lets in, who is turned away, and that nobody who is turned away disturbs others.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod fort;
mod turns;

use std::{
    fs,
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use fort::*;
use http::Request as HttpRequest;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use supervisor_proto::v1::{
    self, Reason, certificate::State, certificate_service_client::CertificateServiceClient,
    instance_service_client::InstanceServiceClient, system_service_client::SystemServiceClient,
};
use support::{Host, PATIENCE, builtin, program, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::{
    Code,
    transport::{Endpoint, Uri},
};
use tower::{ServiceExt, service_fn};

#[tokio::test]
async fn a_certificate_lets_its_holder_do_what_its_role_allows() {
    let fort = Fort::build().await;
    fort.host.create("main", builtin()).await;
    let start = |name: &str| v1::StartInstanceRequest { name: name.into(), ..Default::default() };
    for (role, instance, may_start, may_reload) in [
        ("viewer", "", false, false),
        ("operator", "", true, false),
        ("admin", "", true, true),
        ("rescue", "main", false, false),
    ] {
        let channel = fort.channel(&fort.papers(&format!("the-{role}"), role, instance).await).await;
        let mut system = SystemServiceClient::new(channel.clone());
        system.get_info(v1::GetInfoRequest {}).await.unwrap();
        let started = InstanceServiceClient::new(channel).start_instance(start("main")).await;
        assert_eq!(started.is_ok(), may_start, "{role}: {started:?}");
        let reloaded = system.reload(v1::ReloadRequest {}).await;
        assert_eq!(reloaded.is_ok(), may_reload, "{role}: {reloaded:?}");
        for refused in [started.err(), reloaded.err()].into_iter().flatten() {
            assert_eq!(refused.code(), Code::PermissionDenied, "{role}: {refused}");
        }
    }
}

#[tokio::test]
async fn certificates_are_not_made_by_tcp_whoever_asks() {
    let fort = Fort::build().await;
    let channel = fort.channel(&fort.papers("root", "admin", "").await).await;
    let mut client = CertificateServiceClient::new(channel);
    let request = v1::IssueCertificateRequest {
        name: "another".into(),
        role: "admin".into(),
        signing_request: request_of(&KeyPair::generate().unwrap()),
        ..Default::default()
    };
    let refused = client.issue_certificate(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let refused = client.list_certificates(v1::ListCertificatesRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

#[tokio::test]
async fn without_a_certificate_that_is_good_here_nobody_is_let_in() {
    let fort = Fort::build().await;
    let good = fort.papers("good", "viewer", "").await;
    let mut witness = SystemServiceClient::new(fort.channel(&good).await);
    let ca = good.ca.clone();
    let h2: &[&[u8]] = &[b"h2"];

    let none = Papers { ca: ca.clone(), own: None };
    fort.turns_away(&none, h2, "peer sent no certificates").await;
    let strange = strange_authority();
    fort.turns_away(&signed_by(&strange, ca.clone(), |_| ()), h2, "UnknownIssuer").await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let own = Some((params.self_signed(&key).unwrap().pem(), key.serialize_pem()));
    fort.turns_away(&Papers { ca: ca.clone(), own }, h2, "UnknownIssuer").await;
    let past = fort.forged(|params| params.not_after = now() - Duration::from_secs(60));
    fort.turns_away(&past, h2, "certificate expired").await;
    let future = fort.forged(|params| params.not_before = now() + Duration::from_secs(600));
    fort.turns_away(&future, h2, "not valid yet").await;
    let server = fort.forged(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    fort.turns_away(&server, h2, "extended key usage").await;
    let pem = fs::read_to_string(fort.host.data_dir().join("pki/server.pem")).unwrap();
    fort.turns_away(&Papers { ca: ca.clone(), own: Some((pem.clone(), pem)) }, h2, "extended key usage")
        .await;
    let unknown = fort.forged(|params| {
        params.subject_alt_names = vec![SanType::URI("openclaw:role/emperor".try_into().unwrap())];
    });
    fort.turns_away(&unknown, h2, "its role is not known here").await;

    let revoked = fort.papers("thief", "admin", "").await;
    fort.enter(&revoked, h2).await.unwrap();
    let request = v1::RevokeCertificateRequest { name: "thief".into(), ..Default::default() };
    fort.host.certificates().await.revoke_certificate(request).await.unwrap();
    fort.turns_away(&revoked, h2, "Revoked").await;

    fort.turns_away(&good, &[b"http/1.1"], "any known protocol").await;
    fort.turns_away(&good, &[], "it does not say that it speaks HTTP/2").await;
    witness.get_info(v1::GetInfoRequest {}).await.unwrap();
}

#[tokio::test]
async fn neither_plain_text_nor_older_tls_is_spoken() {
    let fort = Fort::build().await;
    let good = fort.papers("good", "viewer", "").await;
    // TLS 1.2, RFC 5246: a ClientHello without extensions that offers one suite.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    for (said, told) in
        [(PREFACE, "corrupt message"), (b"GET / HTTP/1.1\r\n\r\n", "corrupt message"), (&hello, "")]
    {
        let answer = until("it is turned away", async || {
            let mut stream = TcpStream::connect(fort.address).await.unwrap();
            stream.write_all(said).await.unwrap();
            let mut answer = Vec::new();
            // What was not read when it was closed may reset it.
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
            fort.has_logged(told).then_some(answer)
        })
        .await;
        // An alert at most: nothing of HTTP.
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    }
    fort.info(&good).await.unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let fort = Fort::build().await;
    let ends_soon = fort.forged(|params| params.not_after = now() + Duration::from_secs(5));
    let mut stream = fort.enter(&ends_soon, &[b"h2"]).await.unwrap();
    timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.unwrap().ok();
    assert!(fort.host.supervisor_log().contains("its certificate has ended"));

    let thief = fort.papers("thief", "admin", "").await;
    let good = fort.papers("good", "viewer", "").await;
    let mut stolen = fort.enter(&thief, &[b"h2"]).await.unwrap();
    let mut kept = SystemServiceClient::new(fort.channel(&good).await);
    kept.get_info(v1::GetInfoRequest {}).await.unwrap();
    let mut certificates = fort.host.certificates().await;
    let request = v1::RevokeCertificateRequest { name: "thief".into(), ..Default::default() };
    let revoked = certificates.revoke_certificate(request.clone()).await.unwrap().into_inner().revoked;
    assert_eq!((revoked.len(), revoked[0].state()), (1, State::Revoked));
    timeout(PATIENCE, stolen.read_to_end(&mut Vec::new())).await.unwrap().ok();
    kept.get_info(v1::GetInfoRequest {}).await.unwrap();

    let again = certificates.revoke_certificate(request).await.unwrap_err();
    assert_eq!((again.code(), reason_of(&again)), (Code::NotFound, Some(Reason::UnknownCertificate)));
    let list = certificates.list_certificates(v1::ListCertificatesRequest {}).await.unwrap().into_inner();
    let states: Vec<_> = list.certificates.iter().map(|one| (one.name.as_str(), one.state())).collect();
    assert_eq!(states, [("good", State::Good), ("thief", State::Revoked)]);
}

#[tokio::test]
async fn bombs_are_refused_and_nothing_else_is_disturbed() {
    let fort = Fort::build().await;
    let papers = fort.papers("bomber", "admin", "").await;
    let channel = fort.channel(&papers).await;
    let uri = "http://localhost/openclaw.supervisor.v1.FleetService/ApplyFleet";
    let request = |body: Vec<u8>| {
        let body = tonic::body::Body::new(Full::from(body));
        HttpRequest::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap()
    };
    // A gRPC frame that promises a gibibyte, and the beginning of it.
    let mut gibibyte = vec![0, 0x40, 0, 0, 0];
    gibibyte.extend([b'x'; 1 << 10]);
    let answer = timeout(PATIENCE, channel.clone().oneshot(request(gibibyte))).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], (Code::OutOfRange as i32).to_string());

    let mut bomb = request(Vec::new());
    for number in 0..64 {
        let name = http::HeaderName::from_bytes(format!("x-bomb-{number}").as_bytes()).unwrap();
        bomb.headers_mut().insert(name, "x".repeat(1 << 10).parse().unwrap());
    }
    match timeout(PATIENCE, channel.clone().oneshot(bomb)).await.unwrap() {
        Ok(answer) => assert_ne!(answer.status(), http::StatusCode::OK, "{answer:?}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    fort.info(&papers).await.unwrap();
}

#[tokio::test]
async fn two_hundred_idle_handshakes_keep_nobody_out() {
    let fort = Fort::build().await;
    let papers = fort.papers("newcomer", "viewer", "").await;
    let before = descriptors(fort.host.supervisor_pid());
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(fort.address).await.unwrap());
    }
    fort.info(&papers).await.unwrap();
    until("few of them are left", async || {
        (descriptors(fort.host.supervisor_pid()) < before + 60).then_some(())
    })
    .await;
    fort.info(&papers).await.unwrap();
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test]
async fn certificates_are_replaced_under_load_and_no_newcomer_is_dropped() {
    let fort = Fort::build().await;
    let papers = fort.papers("steady", "viewer", "").await;
    let mut certificates = fort.host.certificates().await;
    let server = |list: v1::ListCertificatesResponse| list.server.unwrap().serial;
    let list = v1::ListCertificatesRequest {};
    let first = server(certificates.list_certificates(list).await.unwrap().into_inner());
    let mut entered = 0;
    for _ in 0..5 {
        let request =
            v1::InitAuthorityRequest { hosts: vec!["box.example.org".into()], ..Default::default() };
        let init = certificates.init_authority(request);
        tokio::pin!(init);
        loop {
            tokio::select! {
                done = &mut init => {
                    let steps = done.unwrap().into_inner().steps;
                    assert_eq!(steps.len(), 1, "the authority stays: {steps:?}");
                    break;
                }
                info = fort.info(&papers) => {
                    info.unwrap();
                    entered += 1;
                }
            }
        }
        fort.info(&papers).await.unwrap();
    }
    let last = server(certificates.list_certificates(list).await.unwrap().into_inner());
    assert_ne!(first, last);
    assert!(entered > 0);
}

#[tokio::test]
async fn damaged_certificates_leave_those_before_in_force_and_are_told_of() {
    let fort = Fort::build().await;
    let papers = fort.papers("steady", "viewer", "").await;
    let pki = fort.host.data_dir().join("pki");
    for (file, damage, told) in [
        ("server.pem", "-----BEGIN CERTIFICATE-----\nnonsense", "server.pem"),
        ("ca.crl", "", "ca.crl"),
        ("ca.crt", "nothing", "ca.crt"),
    ] {
        let path = pki.join(file);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, damage).unwrap();
        until("it is told of", async || {
            let alarms = fort.host.alarms().await;
            alarms.iter().any(|alarm| alarm.contains(told) && alarm.contains("stay in force")).then_some(())
        })
        .await;
        fort.info(&papers).await.unwrap();
        fs::write(&path, whole).unwrap();
        until("all is well", async || fort.host.alarms().await.is_empty().then_some(())).await;
    }
    let key = pki.join("server.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    until("it is told of", async || {
        fort.host.alarms().await.iter().any(|alarm| alarm.contains("chmod 600")).then_some(())
    })
    .await;
    fort.info(&papers).await.unwrap();
}

#[tokio::test]
async fn nothing_listens_by_tcp_without_certificates() {
    let mut host = Host::prepare();
    let address = free_address();
    host.listen(&format!("[{{tcp: \"{address}\"}}]"));
    host.start_supervisor().await;
    let alarm = until("it says what to type", async || {
        host.alarms().await.into_iter().find(|alarm| alarm.contains("openclawctl cert init"))
    })
    .await;
    assert!(alarm.contains(&address.to_string()), "{alarm}");
    TcpStream::connect(address).await.unwrap_err();

    let refused = host.system().await.reload(v1::ReloadRequest {}).await;
    assert!(refused.is_ok(), "what is asked for already is no change");
    let other = free_address();
    host.listen(&format!("[{{tcp: \"{address}\"}}, {{tcp: \"{other}\"}}]"));
    let refused = host.system().await.reload(v1::ReloadRequest {}).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidSpec), "{refused}");
    assert!(refused.message().contains("openclawctl cert init"), "{refused}");
    TcpStream::connect(other).await.unwrap_err();

    host.certificates().await.init_authority(v1::InitAuthorityRequest::default()).await.unwrap();
    until("it listens", async || TcpStream::connect(address).await.ok()).await;
    assert!(host.alarms().await.is_empty());
    host.listen("[]");
    host.system().await.reload(v1::ReloadRequest {}).await.unwrap();
    until("it does not listen", async || TcpStream::connect(address).await.err()).await;
}

#[tokio::test]
async fn another_socket_has_its_mode_and_is_not_opened_where_others_could_replace_it() {
    let host = Host::start().await;
    let directory = host.directory.path().join("shared");
    fs::create_dir(&directory).unwrap();
    let path: PathBuf = directory.join("door.sock");
    host.listen(&format!("[{{unix: \"{}\", mode: \"0660\"}}]", path.display()));
    host.system().await.reload(v1::ReloadRequest {}).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let socket = path.clone();
    let connector = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    SystemServiceClient::new(channel).get_info(v1::GetInfoRequest {}).await.unwrap();

    let open = host.directory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    host.listen(&format!("[{{unix: \"{}\"}}]", open.join("door.sock").display()));
    let refused = host.system().await.reload(v1::ReloadRequest {}).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidSpec), "{refused}");
    assert!(!open.join("door.sock").exists());
    assert!(path.exists(), "nothing has changed");
    host.listen("[]");
    host.system().await.reload(v1::ReloadRequest {}).await.unwrap();
    until("it is gone", async || (!path.exists()).then_some(())).await;
}

/// The command line of somebody with a home of his own.
fn ctl(home: &std::path::Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(program("openclawctl"));
    command.env_clear().env("HOME", home).current_dir(home).args(args);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_takes_a_stranger_from_nothing_to_a_status_by_tcp_and_out_again() {
    let mut host = Host::prepare();
    let address = free_address();
    host.listen(&format!("[{{tcp: \"{address}\"}}]"));
    host.start_supervisor().await;
    let data = host.data_dir();
    let here = |args: &[&str]| {
        let all = [&["--data-dir", data.to_str().unwrap()], args].concat();
        ctl(host.directory.path(), &all)
    };
    let done = |(code, said): (i32, String)| {
        assert_eq!(code, 0, "{said}");
        said
    };
    let said = done(here(&["cert", "init", "--name", "box.example.org"]));
    assert!(said.contains("box.example.org"), "{said}");
    until("it listens", async || TcpStream::connect(address).await.ok()).await;
    let said = done(here(&["cert", "issue", "laptop", "--role", "viewer"]));
    assert!(!said.contains("BEGIN"), "{said}");
    let papers = host.directory.path().join("laptop");
    for file in ["ca.crt", "client.crt", "client.key", "context.yaml"] {
        assert_eq!(fs::metadata(papers.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let (code, said) = here(&["cert", "issue", "laptop", "--role", "viewer"]);
    assert_eq!(code, 3, "what is there is not replaced: {said}");

    let elsewhere = tempfile::tempdir().unwrap();
    let there = |args: &[&str]| ctl(elsewhere.path(), args);
    let from = papers.to_str().unwrap();
    done(there(&["context", "add", "box", "--from", from]));
    fs::remove_dir_all(&papers).unwrap();
    let said = done(there(&["supervisor", "status"]));
    assert!(said.contains(&data.display().to_string()), "{said}");
    assert_eq!(
        done(there(&["context", "list"])).lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["*".to_owned(), "box".to_owned(), address.to_string()]
    );
    let (code, said) = there(&["up", "main"]);
    assert_eq!(code, 7, "a viewer starts nothing: {said}");
    let (code, said) = there(&["--context", "bxo", "status"]);
    assert!(code == 4 && said.contains("did you mean `box`?"), "{said}");
    let (code, said) = there(&["run", "main", "--", "true"]);
    assert!(code == 2 && said.contains("on another host"), "{said}");

    done(here(&["cert", "revoke", "laptop", "--yes"]));
    let (code, said) = there(&["status"]);
    assert!(code == 7 && said.contains("it was revoked"), "{code} {said}");
    let listed = done(here(&["cert", "list"]));
    assert!(listed.contains("revoked") && listed.contains(&address.to_string()), "{listed}");
    done(there(&["context", "rm", "box"]));
    assert!(!elsewhere.path().join(".config/openclawctl/box").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_made_elsewhere_never_leaves_there() {
    let fort = Fort::build().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, said) = ctl(elsewhere.path(), &["cert", "request", "laptop"]);
    assert_eq!(code, 0, "{said}");
    let made = elsewhere.path().join("laptop");
    let key = fs::read_to_string(made.join("client.key")).unwrap();
    let (data, out) = (fort.host.data_dir(), fort.host.directory.path().join("out"));
    let request = made.join("client.csr");
    let args = [
        "--data-dir",
        data.to_str().unwrap(),
        "cert",
        "issue",
        "laptop",
        "--role",
        "operator",
        "--request",
        request.to_str().unwrap(),
        "--dir",
        out.to_str().unwrap(),
    ];
    let (code, said) = ctl(fort.host.directory.path(), &args);
    assert_eq!(code, 0, "{said}");
    assert!(!out.join("client.key").exists());
    for file in ["ca.crt", "client.crt", "context.yaml"] {
        fs::copy(out.join(file), made.join(file)).unwrap();
    }
    let said = ctl(elsewhere.path(), &["context", "add", "box", "--from", "laptop"]);
    assert_eq!(said.0, 0, "{said:?}");
    let said = ctl(elsewhere.path(), &["status"]);
    assert_eq!(said.0, 0, "{said:?}");
    let secret: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    let mut everything = Vec::new();
    collect(&fort.host.directory.path().join("data"), &mut everything);
    for path in everything {
        let mut content = Vec::new();
        fs::File::open(&path).unwrap().read_to_end(&mut content).unwrap();
        let content = String::from_utf8_lossy(&content).replace('\n', "");
        assert!(!content.contains(&secret), "the key is in {}", path.display());
    }
}

#[tokio::test]
async fn a_key_is_not_written_where_a_link_leads() {
    let here = tempfile::tempdir().unwrap();
    let theirs = here.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    symlink(&theirs, here.path().join("laptop")).unwrap();
    for args in [&["cert", "request", "laptop"][..], &["cert", "issue", "laptop", "--role", "viewer"]] {
        let (code, said) = ctl(here.path(), args);
        assert!(
            code == 3 && said.contains("laptop") && said.contains("--dir DIR"),
            "{args:?}: {code} {said}"
        );
    }
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0);
}

/// Every file below.
fn collect(directory: &std::path::Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let file = fs::symlink_metadata(&path).unwrap();
        if file.is_dir() {
            collect(&path, found);
        } else if file.is_file() {
            found.push(path);
        }
    }
}
