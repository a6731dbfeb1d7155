//! The health endpoints, the page, and the side ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use serde_json::{Value, json};

use crate::support::{self, Gateway, Home, Reply, TOKEN, config, free_block};

/// Loopback as well, and not the address that a loopback listener is bound to.
const OTHER_LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_health_endpoints_answer_in_openclaws_shapes() {
    let gateway = Gateway::start();
    for path in ["/healthz", "/health"] {
        let live = gateway.get(path);
        assert_eq!((live.status, live.text()), (200, r#"{"ok":true,"status":"live"}"#));
        assert_eq!(live.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(live.header("cache-control"), Some("no-store"));
    }
    for path in ["/startupz", "/startup"] {
        let started = gateway.get(path);
        assert_eq!(started.status, 200);
        assert!(started.text().starts_with(r#"{"ok":true,"status":"started","#), "{started:?}");
        let body = started.json();
        assert_eq!(keys(&body), ["ok", "status", "uptimeMs", "version"]);
        assert!(body["uptimeMs"].is_u64() && body["version"].is_string(), "{body}");
    }
    for path in ["/readyz", "/ready"] {
        let ready = gateway.get(path);
        assert_eq!(ready.status, 200);
        assert!(ready.text().starts_with(r#"{"ready":true,"failing":[],"#), "{ready:?}");
        let body = ready.json();
        assert_eq!(keys(&body), ["eventLoop", "failing", "ready", "uptimeMs"]);
        assert_eq!(body["eventLoop"]["degraded"], false);
        for figure in ["delayP99Ms", "delayMaxMs", "utilization", "cpuCoreRatio", "intervalMs"] {
            assert!(
                body["eventLoop"][figure].as_f64().is_some_and(|figure| figure >= 0.0),
                "{figure}: {body}"
            );
        }
    }
}

#[test]
fn a_head_request_gets_the_head_alone_and_other_methods_are_refused() {
    let gateway = Gateway::start();
    for path in ["/healthz", "/startupz", "/readyz"] {
        let head = Reply::to(gateway.port, "HEAD", path, &[]);
        assert_eq!((head.status, head.text()), (200, ""));
        let length: usize = head.header("content-length").unwrap().parse().unwrap();
        assert!(length >= r#"{"ok":true,"status":"live"}"#.len());
        let post = Reply::to(gateway.port, "POST", path, &[]);
        assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    }
}

#[test]
fn every_other_path_is_a_page_with_status_200() {
    let gateway = Gateway::start();
    for path in ["/", "/healthz/x", "/healthzz", "/no/such/path?query"] {
        let page = gateway.get(path);
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(page.text().starts_with("<!doctype html>"));
    }
}

#[test]
fn both_loopback_addresses_answer_where_the_machine_has_them() {
    let gateway = Gateway::start();
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return;
    }
    let reply = Reply::at(Ipv6Addr::LOCALHOST.into(), gateway.port, "GET", "/healthz", &[]).unwrap();
    assert_eq!(reply.text(), r#"{"ok":true,"status":"live"}"#);
}

#[test]
fn browser_control_says_that_there_is_no_browser() {
    let gateway = Gateway::start();
    let status = Reply::to(gateway.port + 2, "GET", "/", &[]);
    assert_eq!(status.status, 200);
    let body = status.json();
    assert_eq!(
        (&body["ok"], &body["enabled"], &body["running"]),
        (&json!(true), &json!(false), &json!(false))
    );
    assert_eq!(body["cdpPort"], gateway.port + 11);
    assert_eq!(Reply::to(gateway.port + 2, "GET", "/tabs", &[]).status, 404);
    assert_eq!(Reply::to(gateway.port + 2, "POST", "/", &[]).status, 405);
}

#[test]
fn nothing_listens_beyond_loopback_unless_the_configuration_says_so() {
    let gateway = Gateway::start();
    for port in [gateway.port, gateway.port + 2, gateway.port + 4] {
        assert!(Reply::at(OTHER_LOOPBACK, port, "GET", "/", &[]).is_err(), "{port}");
    }
    let lan = Gateway::start_with(|port| config(port).replace("loopback", "lan"));
    assert_eq!(Reply::at(OTHER_LOOPBACK, lan.port, "GET", "/healthz", &[]).unwrap().status, 200);
    for port in [lan.port + 2, lan.port + 4] {
        assert!(Reply::at(OTHER_LOOPBACK, port, "GET", "/", &[]).is_err(), "{port}");
    }
}

#[test]
fn the_side_ports_refuse_a_name_that_only_resolves_to_this_machine() {
    let gateway = Gateway::start();
    for port in [gateway.port + 2, gateway.port + 4] {
        assert_eq!(Reply::to(port, "GET", "/", &[("Host", "rebound.example")]).status, 403);
        assert_eq!(Reply::to(port, "GET", "/", &[("Host", "127.0.0.1")]).status, 200);
    }
}

#[tokio::test]
async fn busy_side_ports_degrade_the_gateway_and_do_not_stop_it() {
    let (gateway, _squatters) = support::eventually("a gateway beside squatters", || {
        let port = free_block();
        let squatters = [port + 2, port + 4].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        let squatters = squatters.into_iter().collect::<Result<Vec<_>, _>>().ok()?;
        Some((Gateway::try_start(Home::new(&config(port)), port)?, squatters))
    });
    assert_eq!(gateway.get("/readyz").status, 200);
    let mut client = gateway.client().await;
    let degraded = client.hello().await["snapshot"]["health"]["degraded"].clone();
    let (browser, canvas) = (gateway.port + 2, gateway.port + 4);
    assert_eq!(
        degraded,
        json!([
            format!("browser control: port {browser} is already in use on 127.0.0.1"),
            format!("canvas: port {canvas} is already in use on 127.0.0.1"),
        ])
    );
    let said = gateway.home.err();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.lines().all(|line| line.contains(" warn degraded: ")), "{said}");
}

#[test]
fn whoever_connects_and_says_nothing_keeps_nobody_out() {
    let gateway = Gateway::start();
    let address = (Ipv4Addr::LOCALHOST, gateway.port);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.extend((0..128).map(|_| std::net::TcpStream::connect(address).unwrap()));
        let answer = Reply::at(Ipv4Addr::LOCALHOST.into(), gateway.port, "GET", "/readyz", &[]).unwrap();
        assert_eq!(answer.status, 200);
    }
    // Those who came first have made room.
    let read = std::io::Read::read(&mut held[0], &mut [0]);
    assert!(read.map_or(true, |read| read == 0));
}

#[test]
fn no_log_line_shows_the_token() {
    let gateway = Gateway::start();
    gateway.get(&format!("/?token={TOKEN}"));
    let (out, err) = (gateway.home.out(), gateway.home.err());
    assert!(
        out.contains(" info ready on port ") && !out.contains(TOKEN) && !err.contains(TOKEN),
        "{out}{err}"
    );
}
