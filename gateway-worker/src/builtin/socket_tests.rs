use super::*;

use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

type Client = WebSocketStream<DuplexStream>;

fn gateway() -> Arc<Gateway> {
    Arc::new(crate::gateway::tests::gateway())
}

/// A client whose session runs beside the test.
async fn client(gateway: &Arc<Gateway>) -> Client {
    let (ours, theirs) = tokio::io::duplex(UNSENT_BYTES);
    let session = Session::open(Arc::clone(gateway), theirs).await;
    tokio::spawn(session.run());
    let mut client = WebSocketStream::from_raw_socket(ours, Side::Client, None).await;
    assert_eq!(next(&mut client).await["event"], "connect.challenge");
    client
}

async fn connected(gateway: &Arc<Gateway>) -> Client {
    let mut client = client(gateway).await;
    let params = json!({ "minProtocol": 3, "maxProtocol": 4, "client": { "id": "test", "mode": "test" } });
    ask(&mut client, "connect", params).await;
    client
}

async fn ask(client: &mut Client, method: &str, params: Value) {
    let frame = json!({ "type": "req", "id": "1", "method": method, "params": params });
    client.send(Message::text(frame.to_string())).await.unwrap();
}

async fn next(client: &mut Client) -> Value {
    serde_json::from_str(client.next().await.unwrap().unwrap().to_text().unwrap()).unwrap()
}

async fn closed(client: &mut Client) -> (u16, String) {
    let message = client.next().await.unwrap().unwrap();
    let Message::Close(Some(frame)) = &message else { panic!("expected a close, not {message:?}") };
    (frame.code.into(), frame.reason.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_connected_client_hears_numbered_ticks() {
    let gateway = gateway();
    gateway.started(vec![]);
    let mut client = connected(&gateway).await;
    assert_eq!(next(&mut client).await["payload"]["policy"]["tickIntervalMs"], 30_000);
    let begun = Instant::now();
    for seq in 1..=3 {
        let tick = next(&mut client).await;
        assert_eq!((&tick["event"], &tick["seq"]), (&json!("tick"), &json!(seq)));
        assert_eq!(begun.elapsed(), TICK * seq);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_introduce_itself_is_closed_in_time() {
    let gateway = gateway();
    gateway.started(vec![]);
    let mut client = client(&gateway).await;
    let begun = Instant::now();
    assert_eq!(closed(&mut client).await, (close_code::POLICY, "handshake timeout".to_owned()));
    assert_eq!(begun.elapsed(), HANDSHAKE_TIME);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_too_early_is_told_to_come_back() {
    let gateway = gateway();
    let mut client = connected(&gateway).await;
    let refusal = next(&mut client).await;
    assert_eq!(refusal["error"]["code"], "UNAVAILABLE");
    assert_eq!(refusal["error"]["details"]["reason"], "startup-sidecars");
    assert_eq!(
        (&refusal["error"]["retryable"], &refusal["error"]["retryAfterMs"]),
        (&json!(true), &json!(500))
    );
    assert_eq!(closed(&mut client).await.0, close_code::TRY_AGAIN);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_closes_the_connection() {
    let gateway = gateway();
    gateway.started(vec![]);
    let mut client = connected(&gateway).await;
    assert_eq!(next(&mut client).await["ok"], true);
    client.send(Message::text("x".repeat(MESSAGE_BYTES + 1))).await.unwrap();
    assert_eq!(closed(&mut client).await.0, close_code::TOO_BIG);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_dropped_in_time() {
    let gateway = gateway();
    gateway.started(vec![]);
    let (ours, theirs) = tokio::io::duplex(16);
    let session = tokio::spawn(Session::open(Arc::clone(&gateway), theirs).await.run());
    let begun = Instant::now();
    session.await.unwrap();
    assert_eq!(begun.elapsed(), SEND_TIME);
    drop(ours);
}
