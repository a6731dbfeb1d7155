//! The captured log: nothing lost, nothing blocked.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::process::{Signal, getuid};
use supervisor_proto::worker::Run;
use supervisor_proto::worker::exited::How;
use supervisor_proto::worker::order::Order as Demand;
use supervisor_proto::worker::report::Report as Body;

use crate::harness::{KILLED, Place, WORKER, Worker, eventually, files, pid, signal};

/// The records of an index file.
fn index(path: &Path) -> Vec<[u64; 3]> {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes.len() % 24, 0);
    let field = |record: &[u8], n: usize| u64::from_le_bytes(record[n * 8..n * 8 + 8].try_into().unwrap());
    bytes.chunks(24).map(|record| [0, 1, 2].map(|n| field(record, n))).collect()
}

#[test]
fn a_hundred_megabytes_through_small_files_lose_no_byte() {
    const LINES: u64 = 12_500_000;
    let mut place = Place::new();
    place.policy.max_file_bytes = 1 << 20;
    place.policy.max_files = 1000;
    let (_worker, mut link, _) = place.start_shell(&format!("exec seq 1 {LINES}"));
    assert_eq!(link.exited().how, Some(How::Code(0)));

    let logs = place.log_files();
    assert!(logs.len() > 90);
    let mut next = 1;
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for (nth, path) in logs.iter().enumerate() {
        bytes.clear();
        BufReader::new(File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
        let last = nth + 1 == logs.len();
        assert!(
            last || (bytes.len() >= 1 << 20 && bytes.len() < (1 << 20) + 16),
            "{path:?} has {}",
            bytes.len()
        );
        expected.clear();
        while expected.len() < bytes.len() {
            expected.extend_from_slice(format!("{next}\n").as_bytes());
            next += 1;
        }
        assert!(bytes == expected, "{path:?} differs");
        let records = index(&path.with_extension("idx"));
        assert_eq!(records[0][0], 0);
        assert!(records.iter().all(|record| record[0] < bytes.len() as u64 && record[2] == 1));
    }
    assert_eq!(next, LINES + 1);
    assert_eq!(
        fs::read_link(place.log().join("gateway.log")).unwrap(),
        PathBuf::from(logs.last().unwrap().file_name().unwrap())
    );
}

#[test]
fn the_oldest_files_go_and_the_newest_stay() {
    let mut place = Place::new();
    place.policy.max_file_bytes = 1000;
    place.policy.max_files = 3;
    let (_worker, mut link, _) = place.start_shell("exec seq 1 100000");
    link.exited();
    let logs = place.log_files();
    assert_eq!(logs.len(), 3);
    assert_eq!(files(&place.log(), "idx").len(), 3);
    assert!(place.captured().ends_with("\n99999\n100000\n"));
}

#[test]
fn a_line_without_end_does_not_make_a_file_without_end() {
    let mut place = Place::new();
    place.policy.max_file_bytes = 1000;
    place.policy.max_files = 100;
    let (_worker, mut link, _) = place.start_shell("head -c 5000000 /dev/zero | tr '\\0' x");
    link.exited();
    let text = place.captured();
    assert_eq!(text.len(), 5_000_001);
    assert!(text.strip_suffix('\n').unwrap().bytes().all(|byte| byte == b'x'));
    let longest = place.log_files().iter().map(|path| path.metadata().unwrap().size()).max().unwrap();
    assert_eq!(longest, 1000 + (1 << 20));
}

#[test]
fn output_and_errors_keep_their_order() {
    let place = Place::new();
    let (_worker, mut link, _) =
        place.start_shell("for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done");
    link.exited();
    let expected: String = (1..10).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(place.captured(), expected);
}

#[test]
fn an_unfinished_last_line_is_ended_before_the_next_incarnation_speaks() {
    let place = Place::new();
    let (mut worker, mut link, _) = place.start_shell("printf one");
    link.exited();
    link.run(2);
    link.started();
    link.exited();
    assert_eq!(place.captured(), "one\none\n");

    // Also if the worker dies before it can, and the next one finds the line open.
    link.order(Demand::Run(Run {
        incarnation: 3,
        launch: Some(place.shell("printf open; exec sleep 1000")),
    }));
    link.started();
    eventually("the line is open", || place.captured().ends_with("open"));
    signal(worker.pid(), Signal::KILL);
    worker.wait();
    let before = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let (_worker, mut link) = Worker::spawn(Command::new(WORKER));
    let mut bootstrap = place.bootstrap(place.shell("echo next"));
    bootstrap.run.as_mut().unwrap().incarnation = 4;
    link.order(Demand::Bootstrap(bootstrap));
    link.state();
    link.started();
    link.exited();
    assert_eq!(place.captured(), "one\none\nopen\nnext\n");

    let records = index(&place.log().join("gateway-00000001.idx"));
    let last = records.last().unwrap();
    assert_eq!((last[0], last[2]), ("one\none\nopen\n".len() as u64, 4));
    assert!(u128::from(last[1]) + 1 >= before);
    let incarnations: Vec<u64> = records.iter().map(|record| record[2]).collect();
    assert!(incarnations.is_sorted() && incarnations.contains(&1) && incarnations.contains(&2));
}

#[test]
fn a_gateway_that_floods_its_log_is_killed_no_later() {
    let mut place = Place::new();
    place.policy.max_file_bytes = 16 << 20;
    let (_worker, mut link, started) = place.start_shell("exec yes flood");
    eventually("the flood is on", || place.log_files().len() > 2);
    link.kill(1);
    assert_eq!(link.exited().how, KILLED);
    link.run(2);
    assert_ne!(pid(&link.started()), pid(&started));
    link.stop(2, Duration::from_secs(60));
    assert_eq!(link.exited().how, Some(How::Signal(15)));
}

/// A small file system of its own, for whoever may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&at).status();
        (getuid().is_root() && mount.is_ok_and(|status| status.success())).then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_blocks_no_gateway_and_the_log_says_how_much_it_lacks() {
    let mut place = Place::new();
    let Some(disk) = SmallDisk::mount(place.log()) else {
        eprintln!("skipped: only root can mount the small disk this needs");
        return;
    };
    place.policy.max_file_bytes = 1 << 30;
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![0; 128 << 10]).unwrap();
    let script = "seq 1 200000; echo flooded >flooded; read line <go; echo after; exec sleep 1000";
    let go = place.fifo("go");
    let (_worker, mut link, _) = place.start_shell(script);
    eventually("the gateway was not held up", || place.home().join("flooded").exists());
    let total: u64 = (1..=200_000).map(|n: u64| n.to_string().len() as u64 + 1).sum();

    fs::remove_file(&ballast).unwrap();
    let Some(Body::LogDropped(dropped)) = link.next() else { panic!("no loss was reported") };
    assert_eq!(dropped.message, "No space left on device (os error 28)");
    fs::write(go, "\n").unwrap();
    eventually("the log goes on", || place.captured().ends_with("\nafter\n"));
    let text = place.captured();
    let marker = format!("\n[gateway-worker: {} bytes of output lost: {}]\n", dropped.bytes, dropped.message);
    let (before, after) = text.split_once(&marker).unwrap();
    assert_eq!(after, "after\n");
    let whole: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let open = usize::from(!whole.starts_with(&format!("{before}\n")));
    assert!(whole.starts_with(before), "what came before the loss is as it was");
    // All bytes are accounted for, but for the line end that the marker may have added.
    assert_eq!(before.len() as u64 + dropped.bytes + u64::from(open == 0), total);
    link.kill(1);
    assert_eq!(link.exited().how, KILLED);
}
