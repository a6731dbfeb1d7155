//! Gateways of which only the challenge is wanted.

use super::*;

#[tokio::test]
async fn who_only_waits_for_the_challenge_needs_no_token_and_leaves_politely() {
    let fake = Fake::start(Socket::Open("s3cret")).await;
    let asked = target(Some(spec::Target::Websocket { port: fake.port }));
    assert_well(&probe(&asked, Watch).await);
    fake.farewell.notified().await;
    assert_eq!((fake.farewells.load(Ordering::SeqCst), fake.gets()), (1, 0));
}

#[tokio::test]
async fn an_endless_challenge_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    task::spawn(async move {
        let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
        let _ = socket.send(Message::text("x".repeat(1 << 20))).await;
        std::future::pending::<()>().await;
    });
    let report = probe(&target(Some(spec::Target::Websocket { port })), Watch).await;
    assert!(fails(&report.live).contains("does not answer as OpenClaw does"), "{report:?}");
}
