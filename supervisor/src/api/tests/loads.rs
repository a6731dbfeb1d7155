//! Callers that take without reading, promise without sending, and are too many.

use std::{
    io::ErrorKind,
    sync::{Arc, Barrier},
    time::Duration,
};

use futures_util::stream;
use http::Request;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use supervisor_proto::v1::{
    ApplyFleetRequest, GetInfoRequest, InstanceSpec, ReadLogsRequest, Runtime, StopInstanceRequest,
    WatchInstancesRequest, instance_service_client::InstanceServiceClient,
    log_service_client::LogServiceClient, system_service_client::SystemServiceClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time,
};
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::ServiceExt;

use super::{
    client::{Server, connect, refused, within},
    world::World,
};
use crate::api::limits::Most;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Where a caller runs is known by then. A clock that stands still runs ahead of who finds that out.
const TRACED: Duration = Duration::from_secs(5);

/// An empty SETTINGS frame (RFC 9113, section 6.5).
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A PING frame (RFC 9113, section 6.7).
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// The head of a HEADERS frame of 1,000 bytes on stream 1, which never come.
const HEADERS: &[u8] = &[0, 0x03, 0xe8, 1, 4, 0, 0, 0, 1];

/// The head of a HEADERS frame that is a whole call, up to the number of its stream: `POST http:/`, in five bytes.
const UNKNOWN_METHOD: &[u8] = &[0, 0, 5, 1, 5];

async fn crowded(most: Most) -> Server {
    let world = World::new(10);
    let gate = world.gate();
    Server::within(world, gate, most).await
}

async fn stop(server: &Server, name: &str) {
    let request = StopInstanceRequest { name: name.into(), wait: true, ..Default::default() };
    within(server.instances().stop_instance(request)).await.unwrap();
}

async fn is_answered(client: Channel) -> Result<(), Status> {
    within(SystemServiceClient::new(client).get_info(GetInfoRequest {})).await.map(|_| ())
}

/// Reads until the other end hangs up, in the time that the clock says.
async fn hung_up_after(mut stream: UnixStream) -> Duration {
    let begun = time::Instant::now();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) => return begun.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return begun.elapsed(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whether somebody answers at the other end.
async fn is_greeted(stream: &mut UnixStream) -> bool {
    let _ = stream.write_all(&[PREFACE, SETTINGS].concat()).await;
    matches!(within(stream.read(&mut [0; 4096])).await, Ok(read) if read > 0)
}

#[tokio::test]
async fn who_connects_and_says_nothing_or_only_half_is_let_go() {
    let server = Server::start().await;
    for said in [&PREFACE[..0], &PREFACE[..23]] {
        let mut silent = UnixStream::connect(server.socket()).await.unwrap();
        silent.write_all(said).await.unwrap();
        is_answered(server.channel.clone()).await.unwrap();
        time::pause();
        let took = hung_up_after(silent).await;
        time::resume();
        assert!(took <= TRACED + Duration::from_secs(11), "{took:?}");
    }
}

#[tokio::test]
async fn who_sends_headers_a_byte_at_a_time_is_let_go() {
    let server = Server::start().await;
    let slow = UnixStream::connect(server.socket()).await.unwrap();
    let (mut from, mut to) = slow.into_split();
    to.write_all(&[PREFACE, SETTINGS, HEADERS].concat()).await.unwrap();
    is_answered(server.channel.clone()).await.unwrap();
    time::pause();
    let begun = time::Instant::now();
    let sending = tokio::spawn(async move {
        while to.write_all(b"x").await.is_ok() {
            time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut bytes = [0; 4096];
    while from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    let took = begun.elapsed();
    assert!(took <= TRACED + Duration::from_secs(45), "{took:?}");
    sending.await.unwrap();
}

#[tokio::test]
async fn who_calls_on_and_on_and_reads_no_answer_is_not_listened_to_and_is_let_go() {
    const ENOUGH: usize = 8 << 20;
    let server = Server::start().await;
    let mut deaf = UnixStream::connect(server.socket()).await.unwrap();
    deaf.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    is_answered(server.channel.clone()).await.unwrap();
    time::pause();
    let begun = time::Instant::now();
    let (mut sent, mut streams) = (0, (1u32..).step_by(2));
    while sent < ENOUGH {
        let stream = streams.next().unwrap().to_be_bytes();
        let call = [UNKNOWN_METHOD, &stream, b"\x83\x86\x04\x01/"].concat();
        match deaf.write_all(&call).await {
            Ok(()) => sent += call.len(),
            Err(_) => break,
        }
    }
    assert!(sent < ENOUGH, "it is read whatever it does");
    assert!(begun.elapsed() <= TRACED + Duration::from_secs(45), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_request_that_never_arrives_is_refused_by_name() {
    let server = Server::start().await;
    let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>());
    let request = Request::post("http://localhost/openclaw.supervisor.v1.SystemService/GetInfo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(never))
        .unwrap();
    let answer = tokio::spawn(server.channel.clone().oneshot(request));
    is_answered(server.channel.clone()).await.unwrap();
    time::pause();
    let answer = answer.await.unwrap().unwrap();
    let status = Status::from_header_map(answer.headers()).unwrap();
    let said = refused(Err::<(), _>(status), Code::DeadlineExceeded, "REQUEST_TOO_SLOW");
    assert_eq!(said, "the request did not arrive within 30 seconds; begin again.");
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_its_connection_goes_on() {
    let server = Server::start().await;
    let content = "x".repeat((4 << 20) + 1);
    let request = ApplyFleetRequest { content, ..Default::default() };
    let refusal = within(server.fleets().apply_fleet(request)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::OutOfRange, "{refusal}");
    is_answered(server.channel.clone()).await.unwrap();
}

#[tokio::test]
async fn a_watcher_that_reads_on_too_late_is_told_that_it_was_dropped() {
    let server = Server::start().await;
    let bulky = InstanceSpec {
        runtime: Runtime::Command.into(),
        program: "/bin/true".into(),
        args: vec!["x".repeat(10_000); 20],
        ..Default::default()
    };
    server.create("bulky", bulky).await;
    let mut sleeper = InstanceServiceClient::new(connect(&server.socket()).await);
    let watch = within(sleeper.watch_instances(WatchInstancesRequest::default())).await.unwrap();
    let mut watch = watch.into_inner();
    // More changes than the reader's window of 2 MiB takes; then a minute passes.
    for _ in 0..10 {
        server.up("bulky").await;
        stop(&server, "bulky").await;
    }
    time::pause();
    for _ in 0..20 {
        time::sleep(Duration::from_secs(10)).await;
    }
    time::resume();
    let end = within(async {
        loop {
            match watch.message().await {
                Ok(message) => assert!(message.is_some(), "the watch ended without a reason"),
                Err(end) => return end,
            }
        }
    })
    .await;
    refused(Err::<(), _>(end), Code::ResourceExhausted, "READER_TOO_SLOW");
}

#[tokio::test]
async fn a_newcomer_gets_in_however_many_connections_there_are() {
    let most = Most { connections: 4, ..Most::USUAL };
    let server = crowded(most).await;
    let silent = [(); 4].map(|()| UnixStream::connect(server.socket()));
    let silent = futures_util::future::join_all(silent).await;
    for _ in 0..10 {
        is_answered(connect(&server.socket()).await).await.unwrap();
    }
    time::pause();
    let gone = silent.into_iter().map(|stream| within(hung_up_after(stream.unwrap())));
    futures_util::future::join_all(gone).await;
}

#[tokio::test]
async fn who_came_earlier_and_is_traced_later_does_not_take_a_newcomers_seat() {
    let server = crowded(Most { connections: 4, ..Most::USUAL }).await;
    // Who has an answer has been traced.
    is_answered(server.channel.clone()).await.unwrap();
    // A process is traced for one of its connections at a time.
    let stuck = Arc::new(Barrier::new(1 + 1));
    *server.stuck.lock().unwrap() = Some(Arc::clone(&stuck));
    let earlier = [(); 4].map(|()| UnixStream::connect(server.socket()));
    let earlier = futures_util::future::join_all(earlier).await;
    // The tracer has it, the server, and this test.
    within(async {
        while Arc::strong_count(&stuck) < 1 + 2 {
            time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    *server.stuck.lock().unwrap() = None;
    let mut newcomer = UnixStream::connect(server.socket()).await.unwrap();
    assert!(is_greeted(&mut newcomer).await);
    stuck.wait();
    let mut greeted = Vec::new();
    for early in earlier {
        greeted.push(is_greeted(&mut early.unwrap()).await);
    }
    assert_eq!(greeted, [false, true, true, true]);
    newcomer.write_all(PING).await.unwrap();
    assert!(within(newcomer.read(&mut [0; 4096])).await.unwrap() > 0);
}

#[tokio::test]
async fn a_newcomers_call_is_served_however_many_calls_there_are() {
    let server = crowded(Most { calls: 20, ..Most::USUAL }).await;
    server.create("main", InstanceSpec::default()).await;
    let mut greedy = LogServiceClient::new(connect(&server.socket()).await);
    let follow = ReadLogsRequest { name: "main".into(), follow: true, ..Default::default() };
    let mut follows = Vec::new();
    for _ in 0..20 {
        follows.push(within(greedy.read_logs(follow.clone())).await.unwrap().into_inner());
    }
    is_answered(server.channel.clone()).await.unwrap();
    for mut follow in follows {
        let end = within(follow.message()).await.unwrap_err();
        assert!(matches!(end.code(), Code::Unavailable | Code::Unknown), "{end:?}");
    }
    // Who was ended may come back.
    let mut again = LogServiceClient::new(connect(&server.socket()).await);
    within(again.read_logs(follow)).await.unwrap();
}
