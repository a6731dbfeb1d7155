//! With real sockets and files, and a worker that is played by the test.

use std::{
    io::Write,
    os::unix::net::{UnixListener, UnixStream as Peer},
    thread,
};

use supervisor_proto::worker::{Kill, Notified, Refused, exited::How};
use tempfile::TempDir;

use super::*;

fn pair() -> (Link, Peer) {
    let (ours, theirs) = Peer::pair().unwrap();
    (Link::new(ours).unwrap(), theirs)
}

fn report(body: Heard) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&Report { report: Some(body) }, &mut bytes);
    bytes
}

fn exit(incarnation: u64) -> Exited {
    Exited { incarnation, how: Some(How::Code(7)), ..Default::default() }
}

#[tokio::test]
async fn a_report_in_pieces_is_heard_whole_and_two_at_once_are_heard_in_turn() {
    let (mut link, mut worker) = pair();
    let mut bytes = report(Heard::Exited(exit(1)));
    bytes.extend(report(Heard::Notified(Notified { incarnation: 2 })));
    let (first, second) = bytes.split_at(5);
    worker.write_all(first).unwrap();
    let early = tokio::time::timeout(std::time::Duration::from_millis(20), link.receive()).await;
    assert!(early.is_err(), "half a report is none");
    worker.write_all(second).unwrap();
    assert_eq!(link.receive().await.unwrap().report, Some(Heard::Exited(exit(1))));
    assert_eq!(link.receive().await.unwrap().report, Some(Heard::Notified(Notified { incarnation: 2 })));
    drop(worker);
    assert!(matches!(link.receive().await, Err(LinkError::Closed)));
}

#[tokio::test]
async fn a_worker_that_hangs_up_before_it_has_heard_is_called_again() {
    let (mut link, worker) = pair();
    drop(worker);
    let error = link.send(Body::Kill(Kill::default())).await.unwrap_err();
    assert!(error.is_passing(), "{error:?}");
}

#[tokio::test]
async fn an_order_larger_than_the_socket_holds_goes_out_whole() {
    let (mut link, mut worker) = pair();
    let message = "x".repeat(900 << 10);
    let big =
        Body::Bootstrap(supervisor_proto::worker::Bootstrap { instance: message, ..Default::default() });
    let expected = big.encoded_len();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        worker.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    link.send(big).await.unwrap();
    drop(link);
    assert!(reader.join().unwrap() > expected);
}

#[tokio::test]
async fn an_order_to_a_worker_that_is_gone_fails() {
    let (mut link, worker) = pair();
    drop(worker);
    assert!(link.send(Body::Kill(Kill { incarnation: 1 })).await.is_err());
}

#[tokio::test]
async fn nonsense_is_an_error_and_not_a_report() {
    let (mut link, mut worker) = pair();
    worker.write_all(&[0xff; 64]).unwrap();
    assert!(matches!(link.receive().await, Err(LinkError::Frame(_))));
}

#[tokio::test]
async fn a_worker_is_reached_in_a_run_directory_of_any_length() {
    let directory = TempDir::new().unwrap();
    let run_dir = directory.path().join("n".repeat(120));
    fs::create_dir(&run_dir).unwrap();
    let inside = File::open(&run_dir).unwrap();
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", inside.as_raw_fd())).unwrap();
    let worker = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let state = State { incarnation: 4, ..Default::default() };
        stream.write_all(&report(Heard::State(state))).unwrap();
        stream
    });
    let (_, state) = Link::attach(&run_dir, 1).await.unwrap();
    assert_eq!(state.incarnation, 4);
    worker.join().unwrap();
}

#[tokio::test]
async fn a_worker_that_obeys_somebody_else_is_not_adopted() {
    let directory = TempDir::new().unwrap();
    let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
    let worker = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let refused =
            Refused { message: "a controller of epoch 9 has been here".into(), ..Default::default() };
        stream.write_all(&report(Heard::Refused(refused))).unwrap();
    });
    let error = Link::attach(directory.path(), 1).await.unwrap_err();
    assert!(error.to_string().contains("epoch 9"), "{error}");
    worker.join().unwrap();
}

#[tokio::test]
async fn no_directory_no_socket_and_a_dead_socket_are_absences() {
    let directory = TempDir::new().unwrap();
    let absent = async |path: &Path| Link::attach(path, 1).await.unwrap_err().is_absence();
    assert!(absent(&directory.path().join("missing")).await);
    assert!(absent(directory.path()).await);
    drop(UnixListener::bind(directory.path().join(SOCKET)).unwrap());
    assert!(absent(directory.path()).await);
}

#[tokio::test]
async fn a_worker_that_does_not_accept_never_blocks_the_thread() {
    let directory = TempDir::new().unwrap();
    let _stopped = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
    // More than its backlog of 128 holds.
    let mut waiting = Vec::new();
    let passing = loop {
        let attach = Link::attach(directory.path(), 1);
        tokio::pin!(attach);
        match futures_util::poll!(&mut attach) {
            std::task::Poll::Pending => {
                let path = directory.path().join(SOCKET);
                waiting.push(tokio::net::UnixStream::connect(path).await);
                if waiting.iter().any(Result::is_err) {
                    break Link::attach(directory.path(), 1).await.unwrap_err();
                }
            }
            std::task::Poll::Ready(outcome) => break outcome.map(drop).unwrap_err(),
        }
    };
    assert!(passing.is_passing(), "{passing:?}");
}

#[test]
fn exits_cut_short_by_a_death_are_read_up_to_the_cut() {
    let directory = TempDir::new().unwrap();
    assert_eq!(left_exits(directory.path()), []);
    let mut bytes = Vec::new();
    frame::encode(&exit(1), &mut bytes);
    frame::encode(&exit(2), &mut bytes);
    let whole = bytes.len();
    frame::encode(&exit(3), &mut bytes);
    for cut in whole..bytes.len() {
        fs::write(directory.path().join(EXITS), &bytes[..cut]).unwrap();
        assert_eq!(left_exits(directory.path()), [exit(1), exit(2)]);
    }
    forget_exits(directory.path()).unwrap();
    forget_exits(directory.path()).unwrap();
    assert_eq!(left_exits(directory.path()), []);
}
