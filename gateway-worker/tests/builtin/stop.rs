//! How it ends.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Gateway, PATIENCE, Reply, eventually};

#[tokio::test]
async fn clients_are_told_and_closed_with_1012_before_it_exits_with_0() {
    for (signal, name) in [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGINT, "SIGINT")] {
        let mut gateway = Gateway::start();
        let mut first = gateway.client().await;
        first.hello().await;
        let mut second = gateway.client().await;
        second.hello().await;
        // One that has not introduced itself is closed without the event.
        let mut stranger = gateway.client().await;
        gateway.signal(signal);
        for client in [&mut first, &mut second] {
            let event = client.next().await;
            assert_eq!((&event["type"], &event["event"]), (&json!("event"), &json!("shutdown")));
            assert_eq!(event["payload"], json!({ "reason": "gateway stopping", "restartExpectedMs": null }));
            assert_eq!(client.closed().await, (1012, "service restart".to_owned()));
        }
        assert_eq!(stranger.closed().await.0, 1012);
        drop((first, second, stranger));
        assert_eq!(gateway.exit_code(), Some(0));
        let said = gateway.home.out();
        assert!(said.contains(&format!("received {name}")) && said.ends_with(" info stopped\n"), "{said}");
    }
}

#[test]
fn an_idle_one_exits_with_0_and_tells_its_manager() {
    let mut gateway = Gateway::start();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(), Some(0));
    assert_eq!(gateway.told().as_deref(), Some("STOPPING=1"));
    assert_eq!(gateway.home.err(), "");
}

#[test]
fn a_manager_that_does_not_read_holds_neither_the_start_nor_the_stop() {
    let mut gateway = Gateway::start_with_full_manager();
    eventually("the manager hears it in the end", || gateway.told().filter(|told| told == "READY=1"));
    gateway.fill_manager();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(), Some(0));
}

/// A client that shook hands over WebSocket and then neither reads nor closes.
fn deaf_client(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, gateway.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut switched = [0; 12];
    stream.read_exact(&mut switched).unwrap();
    assert_eq!(&switched, b"HTTP/1.1 101");
    stream
}

#[test]
fn it_drains_while_a_client_does_not_close_and_is_not_held_by_it() {
    // The drain lasts half a second at most. On a machine under load a look may come too late; one look in
    // time is proof enough.
    let seen = (0..20).any(|_| {
        let mut gateway = Gateway::start();
        let _deaf = deaf_client(&gateway);
        gateway.signal(Signal::SIGTERM);
        let begun = Instant::now();
        let mut seen = false;
        while let Ok(startup) = Reply::at(Ipv4Addr::LOCALHOST.into(), gateway.port, "GET", "/startupz", &[]) {
            let body = startup.json();
            if body["status"] == "draining" {
                assert_eq!((startup.status, &body["ok"]), (503, &json!(false)));
                seen = true;
            }
            assert!(begun.elapsed() < PATIENCE, "a client that does not close holds the exit");
        }
        assert_eq!(gateway.exit_code(), Some(0));
        seen
    });
    assert!(seen, "no drain was seen");
}

#[test]
fn an_open_connection_that_asks_nothing_does_not_hold_it() {
    let mut gateway = Gateway::start();
    let idle: Vec<_> = [0, 2, 4]
        .iter()
        .map(|offset| TcpStream::connect((Ipv4Addr::LOCALHOST, gateway.port + offset)).unwrap())
        .collect();
    assert_eq!(gateway.get("/healthz").status, 200);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(), Some(0));
    drop(idle);
}

#[test]
fn the_signal_reserved_for_restarts_is_ignored() {
    let mut gateway = Gateway::start();
    gateway.signal(Signal::SIGUSR2);
    eventually("the log says so", || gateway.home.out().contains("ignored SIGUSR2").then_some(()));
    assert_eq!(gateway.get("/readyz").status, 200);
    assert_eq!(gateway.exited(), None);
}

#[test]
fn an_idle_one_uses_no_cpu() {
    let gateway = Gateway::start();
    assert_eq!(gateway.get("/readyz").status, 200);
    let switches = || gateway.voluntary_switches();
    // The thread that prepared the canvas ends soon after.
    eventually("only the main thread is left", || (gateway.threads() == 1).then_some(()));
    eventually("it sleeps for a whole second", || {
        let (before, begun) = (switches(), Instant::now());
        eventually("a second passes", || (begun.elapsed() > Duration::from_secs(1)).then_some(()));
        (switches() == before).then_some(())
    });
}
