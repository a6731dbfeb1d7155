use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use prost_types::Timestamp;
use supervisor_proto::v1::{DeleteInstanceRequest, InstanceSpec, LogLine, ReadLogsRequest, ReadLogsResponse};
use tonic::{Code, Streaming};

use super::client::{Server, refused, within};

/// Writes lines as the worker of `main` would.
struct Worker(PathBuf);

impl Worker {
    async fn of(server: &Server) -> Self {
        let main = server.create("main", InstanceSpec::default()).await;
        Self(main.status.unwrap().directories.unwrap().logs.into())
    }

    fn write(&self, text: &str, unix_ms: u64) {
        fs::create_dir_all(&self.0).unwrap();
        let log = self.0.join("gateway-00000001.log");
        let offset = fs::metadata(&log).map_or(0, |data| data.len());
        let record: Vec<u8> =
            [offset, unix_ms, 4].iter().flat_map(|field: &u64| field.to_le_bytes()).collect();
        append(&self.0.join("gateway-00000001.idx"), &record);
        append(&log, text.as_bytes());
    }
}

fn append(path: &Path, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn main() -> ReadLogsRequest {
    ReadLogsRequest { name: "main".into(), ..Default::default() }
}

async fn read(server: &Server, request: ReadLogsRequest) -> Streaming<ReadLogsResponse> {
    within(server.logs().read_logs(request)).await.unwrap().into_inner()
}

/// At least `count` lines, or all if the stream ends.
async fn take(stream: &mut Streaming<ReadLogsResponse>, count: usize) -> Vec<LogLine> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let Some(message) = within(stream.message()).await.unwrap() else { break };
        lines.extend(message.lines);
    }
    lines
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| std::str::from_utf8(&line.text).unwrap()).collect()
}

#[tokio::test]
async fn lines_are_read_with_time_and_incarnation_and_resumed_by_cursor() {
    let server = Server::start().await;
    let worker = Worker::of(&server).await;
    worker.write("one\ntwo\n", 1_500);
    worker.write("three\n", 2_000);
    let lines = take(&mut read(&server, main()).await, usize::MAX).await;
    assert_eq!(texts(&lines), ["one", "two", "three"]);
    assert_eq!(lines[0].time, Some(Timestamp { seconds: 1, nanos: 500_000_000 }));
    assert_eq!(lines[0].incarnation, 4);
    let after = ReadLogsRequest { after_cursor: lines[0].cursor.clone(), ..main() };
    assert_eq!(take(&mut read(&server, after).await, usize::MAX).await, lines[1..]);
    let tail = ReadLogsRequest { tail: Some(1), ..main() };
    assert_eq!(take(&mut read(&server, tail).await, usize::MAX).await, lines[2..]);
    let since = ReadLogsRequest { since: Some(Timestamp { seconds: 2, nanos: 0 }), ..main() };
    assert_eq!(take(&mut read(&server, since).await, usize::MAX).await, lines[2..]);
}

#[tokio::test]
async fn a_follower_gets_lines_as_they_come_even_from_a_log_that_is_not_there_yet() {
    let server = Server::start().await;
    let worker = Worker::of(&server).await;
    let mut stream = read(&server, ReadLogsRequest { follow: true, ..main() }).await;
    worker.write("one\n", 1_000);
    assert_eq!(texts(&take(&mut stream, 1).await), ["one"]);
    worker.write("two\n", 2_000);
    assert_eq!(texts(&take(&mut stream, 1).await), ["two"]);
}

#[tokio::test]
async fn following_a_deleted_instance_ends() {
    let server = Server::start().await;
    let worker = Worker::of(&server).await;
    worker.write("one\n", 1_000);
    let mut stream = read(&server, ReadLogsRequest { follow: true, ..main() }).await;
    let delete = DeleteInstanceRequest { name: "main".into(), ..Default::default() };
    within(server.instances().delete_instance(delete)).await.unwrap();
    assert_eq!(texts(&take(&mut stream, usize::MAX).await), ["one"]);
}

#[tokio::test]
async fn an_unknown_instance_or_a_foreign_cursor_is_refused() {
    let server = Server::start().await;
    let worker = Worker::of(&server).await;
    worker.write("one\n", 1_000);
    let cursor = take(&mut read(&server, main()).await, 1).await.remove(0).cursor;
    server.create("other", InstanceSpec::default()).await;
    let other = ReadLogsRequest { name: "other".into(), after_cursor: cursor, ..Default::default() };
    refused(within(server.logs().read_logs(other)).await, Code::InvalidArgument, "INVALID_CURSOR");
    let nobody = ReadLogsRequest { name: "nobody".into(), ..Default::default() };
    refused(within(server.logs().read_logs(nobody)).await, Code::NotFound, "UNKNOWN_INSTANCE");
}
