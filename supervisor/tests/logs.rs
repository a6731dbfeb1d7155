//! The captured log from end to end: a gateway that writes as fast as it can, and a reader behind the API.
//!
//! 64 MiB by default; `LOG_MIB=1024` makes it a gigabyte.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use supervisor_proto::v1::{
    InstanceSpec, LogLine, LogPolicy, ReadLogsRequest, ReadLogsResponse,
    log_service_client::LogServiceClient, restart_policy::Condition,
};
use support::{Host, shell, until};
use tonic::Streaming;

/// Bytes of a line, its end included.
const LINE: usize = 1024;

/// What follows the number and a tab in each line.
const FILLING: usize = LINE - 8;

/// Times that the supervisor is killed under its reader.
const KILLS: usize = 3;

fn lines() -> usize {
    let mebibytes = env::var("LOG_MIB").map_or(64, |text| text.parse::<usize>().unwrap());
    mebibytes * (1 << 20) / LINE
}

/// Writes that many numbered lines, then touches `written` and stays.
fn flood(lines: usize, max_file_bytes: u64, max_files: u32) -> InstanceSpec {
    let script = format!(
        "line=$(head -c {FILLING} /dev/zero | tr '\\0' x); yes \"$line\" | head -n {lines} | cat -n; \
         : > written; exec sleep 100000"
    );
    let never =
        supervisor_proto::v1::RestartPolicy { condition: Condition::Never.into(), ..Default::default() };
    InstanceSpec {
        log: Some(LogPolicy { max_file_bytes, max_files }),
        restart: Some(never),
        ..shell(&script)
    }
}

/// The number of a line that is whole.
fn number(line: &LogLine) -> usize {
    let text = str::from_utf8(&line.text).unwrap();
    let (number, filling) = text.split_once('\t').unwrap();
    assert!(filling.len() == FILLING && filling.bytes().all(|byte| byte == b'x'), "torn: {text}");
    number.trim().parse().unwrap()
}

async fn follow(host: &Host, after_cursor: &str) -> Streaming<ReadLogsResponse> {
    let request = ReadLogsRequest {
        name: "loud".into(),
        follow: true,
        after_cursor: after_cursor.into(),
        ..Default::default()
    };
    LogServiceClient::new(host.channel().await.unwrap()).read_logs(request).await.unwrap().into_inner()
}

/// The directories of the log and of the gateway's own files.
async fn places(host: &Host) -> (PathBuf, PathBuf) {
    let status = host.status("loud").await;
    (status.directories.unwrap().logs.into(), fs::read_link(format!("/proc/{}/cwd", status.pid)).unwrap())
}

async fn written(home: &Path) {
    until("everything is written", async || home.join("written").exists().then_some(())).await;
}

/// Bytes in a directory.
fn size(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().map_or(0, |file| file.size()))
        .sum()
}

#[tokio::test]
async fn a_follower_sees_each_line_once_and_in_order_across_rotations_and_kills_of_the_supervisor() {
    let lines = lines();
    let mut host = Host::start().await;
    host.create("loud", flood(lines, 4 << 20, 1_000)).await;
    host.up("loud").await;
    let (directory, home) = places(&host).await;

    let mut seen = 0;
    let mut cursor = String::new();
    for life in 0..=KILLS {
        let enough = if life < KILLS { lines * (life + 1) / (KILLS + 1) } else { lines };
        let mut stream = follow(&host, &cursor).await;
        while seen < enough {
            for line in stream.message().await.unwrap().unwrap().lines {
                assert_eq!(line.gap_bytes, 0, "nothing was rotated away");
                assert_eq!(number(&line), seen + 1);
                seen += 1;
                cursor = line.cursor;
            }
        }
        if life < KILLS {
            host.kill_supervisor();
            host.start_supervisor().await;
        }
    }
    assert_eq!(seen, lines);
    written(&home).await;
    let files = fs::read_dir(&directory).unwrap().count();
    assert!(files > lines * LINE / (4 << 20), "it was rotated: {files}");
    // Nothing comes after the last line, once or twice.
    let request = ReadLogsRequest { name: "loud".into(), after_cursor: cursor, ..Default::default() };
    let mut client = LogServiceClient::new(host.channel().await.unwrap());
    let rest = client.read_logs(request).await.unwrap().into_inner().message().await.unwrap();
    assert_eq!(rest, None);
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_how_much_it_missed_and_the_disk_stays_within_the_policy() {
    const FILE: u64 = 256 << 10;
    const FILES: u32 = 4;
    let lines = lines();
    let host = Host::start().await;
    host.create("loud", flood(lines, FILE, FILES)).await;
    let mut stream = {
        let stream = follow(&host, "").await;
        host.up("loud").await;
        stream
    };
    let (directory, home) = places(&host).await;
    // Meanwhile the reader takes nothing.
    written(&home).await;
    // A file ends with the line that reaches its size; its index has a record for each tenth of a second.
    assert!(size(&directory) < u64::from(FILES) * (FILE + LINE as u64) + (64 << 10), "{}", size(&directory));

    let (mut last, mut missed, mut told) = (0, 0, 0);
    while last < lines {
        for line in stream.message().await.unwrap().unwrap().lines {
            if line.gap_bytes > 0 {
                told += line.gap_bytes;
                continue;
            }
            let number = number(&line);
            assert!(number > last, "line {number} came after line {last}");
            missed += (number - last - 1) * LINE;
            // What is missing was told of before.
            assert!(missed == 0 || told > 0, "line {number} came after line {last}, and nobody said why");
            last = number;
        }
    }
    assert!(missed > 0, "it did fall behind");
    // Each file that is gone counts as large as the next one; they differ by less than a line, the last by all.
    let files = missed / usize::try_from(FILE).unwrap() + 2;
    let most = files * LINE + usize::try_from(FILE).unwrap();
    assert!(
        missed.abs_diff(usize::try_from(told).unwrap()) <= most,
        "missed {missed}, and was told of {told}"
    );
}
