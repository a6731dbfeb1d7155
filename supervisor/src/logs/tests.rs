use std::{fs, path::Path, time::Duration};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Writes logs as workers do, each append at a time of its own.
struct Writer {
    directory: TempDir,
    file: u64,
    clock_ms: u64,
    incarnation: u64,
}

impl Writer {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), file: 1, clock_ms: 1_000, incarnation: 1 }
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.directory.path().join(format!("gateway-{number:08}.{extension}"))
    }

    fn write(&mut self, text: &[u8]) {
        let offset = fs::metadata(self.path(self.file, "log")).map_or(0, |data| data.len());
        let record: Vec<u8> =
            [offset, self.clock_ms, self.incarnation].iter().flat_map(|field| field.to_le_bytes()).collect();
        append(&self.path(self.file, "idx"), &record);
        append(&self.path(self.file, "log"), text);
        self.clock_ms += 100;
    }

    fn rotate(&mut self) {
        // The first file is made before the second, even if nothing is written to it.
        append(&self.path(self.file, "log"), b"");
        self.file += 1;
        append(&self.path(self.file, "log"), b"");
    }

    fn delete(&self, number: u64) {
        fs::remove_file(self.path(number, "log")).unwrap();
        fs::remove_file(self.path(number, "idx")).unwrap();
    }

    fn reader(&self, request: &Request) -> Result<Reader, LogError> {
        Reader::open("main", self.directory.path().to_owned(), request)
    }

    fn read(&self, request: &Request) -> Vec<Line> {
        drain(&mut self.reader(request).unwrap())
    }

    fn texts(&self, request: &Request) -> Vec<String> {
        texts(&self.read(request))
    }
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// All that there is now.
fn drain(reader: &mut Reader) -> Vec<Line> {
    let mut all = Vec::new();
    while let Step::Lines(lines) = reader.read().unwrap() {
        all.extend(lines);
    }
    all
}

fn texts(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
}

fn all() -> Request {
    Request::default()
}

fn tail(lines: u64) -> Request {
    Request { tail: Some(lines), ..Request::default() }
}

fn follow(request: &Request) -> Request {
    Request { follow: Follow::Yes, ..request.clone() }
}

#[test]
fn lines_come_in_order_with_their_time_and_incarnation() {
    let mut log = Writer::new();
    log.write(b"one\ntwo\n");
    log.incarnation = 2;
    log.write(b"three\n");
    log.rotate();
    log.write(b"four\n");
    let seen: Vec<_> =
        log.read(&all()).into_iter().map(|l| (l.text, l.unix_ms.unwrap(), l.incarnation)).collect();
    let expected: [(&[u8], u64, u64); 4] =
        [(b"one", 1_000, 1), (b"two", 1_000, 1), (b"three", 1_100, 2), (b"four", 1_200, 2)];
    assert_eq!(seen, expected.map(|(text, at, life)| (text.to_vec(), at, life)));
}

#[test]
fn an_instance_that_never_ran_has_an_empty_log() {
    let log = Writer::new();
    assert_eq!(log.read(&tail(10)), []);
    let missing = log.directory.path().join("none");
    assert_eq!(Reader::open("main", missing, &all()).unwrap().read().unwrap(), Step::End);
}

#[test]
fn a_missing_index_costs_times_and_no_lines() {
    let mut log = Writer::new();
    log.write(b"one\ntwo\n");
    fs::remove_file(log.path(1, "idx")).unwrap();
    let lines = log.read(&all());
    assert_eq!(texts(&lines), ["one", "two"]);
    assert_eq!(lines[0].unix_ms, None);
}

#[test]
fn a_damaged_index_costs_times_and_no_lines() {
    let mut log = Writer::new();
    log.write(b"one\ntwo\n");
    for offset in [5, 8, 9, u64::MAX] {
        let record: Vec<u8> = [offset, 1_000, 1].iter().flat_map(|field| field.to_le_bytes()).collect();
        fs::write(log.path(1, "idx"), record).unwrap();
        assert_eq!(log.texts(&all()), ["one", "two"]);
        log.reader(&Request { since_ms: Some(500), ..all() }).unwrap();
    }
}

#[test]
fn only_lines_since_a_time_are_read() {
    let mut log = Writer::new();
    for text in ["a\nb\n", "c\nbegun ", "ended\nd\n"] {
        log.write(text.as_bytes());
    }
    log.rotate();
    log.write(b"e\n");
    let since = |ms| log.texts(&Request { since_ms: Some(ms), ..all() });
    assert_eq!(since(0), ["a", "b", "c", "begun ended", "d", "e"]);
    assert_eq!(since(1_001), ["c", "begun ended", "d", "e"]);
    assert_eq!(since(1_200), ["d", "e"]);
    assert_eq!(since(1_300), ["e"]);
    assert_eq!(since(1_301), [""; 0]);
    assert_eq!(log.texts(&Request { since_ms: Some(1_001), ..tail(1) }), ["e"]);
    assert_eq!(log.texts(&Request { since_ms: Some(1_300), ..tail(9) }), ["e"]);
}

#[test]
fn an_unfinished_line_is_given_out_at_the_end_or_once_it_is_finished() {
    let mut log = Writer::new();
    log.write(b"one\ntw");
    assert_eq!(log.texts(&all()), ["one", "tw"]);
    assert_eq!(log.texts(&tail(1)), ["tw"]);
    let mut reader = log.reader(&follow(&tail(1))).unwrap();
    assert_eq!(texts(&drain(&mut reader)), ["one"]);
    log.write(b"o\nthree");
    assert_eq!(texts(&drain(&mut reader)), ["two"]);
    assert_eq!(reader.read().unwrap(), Step::Dry);
}

#[test]
fn a_very_long_line_comes_in_parts() {
    let mut log = Writer::new();
    let long: Vec<u8> = (0..MAX_LINE * 5 / 2).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    log.write(&long);
    log.write(b"\nshort\n");
    let lines = log.read(&all());
    let sizes: Vec<_> = lines.iter().map(|line| line.text.len()).collect();
    assert_eq!(sizes, [MAX_LINE, MAX_LINE, MAX_LINE / 2, 5]);
    let joined: Vec<u8> = lines.iter().take(3).flat_map(|line| line.text.clone()).collect();
    assert_eq!(joined, long);
    let rest = log.read(&Request { after: Some(lines[0].cursor), ..all() });
    assert_eq!(rest, lines[1..]);
}

#[test]
fn what_was_rotated_away_before_it_was_read_is_counted() {
    let mut log = Writer::new();
    log.write(b"one\n");
    let first = log.read(&all()).remove(0);
    let mut slow = log.reader(&follow(&all())).unwrap();
    assert_eq!(texts(&drain(&mut slow)), ["one"]);
    log.write(b"missed by those who come back\n");
    for text in ["two\n", "three\n", "four\n"] {
        log.rotate();
        log.write(text.as_bytes());
    }
    for number in 1..=2 {
        log.delete(number);
    }
    let again = log.read(&Request { after: Some(first.cursor), ..all() });
    assert_eq!(again.iter().map(|line| line.gap_bytes).collect::<Vec<_>>(), [12, 0, 0]);
    assert_eq!(texts(&again), ["", "three", "four"]);
    // Who still has the deleted file open reads it to its end.
    let rest = drain(&mut slow);
    assert_eq!(texts(&rest), ["missed by those who come back", "", "three", "four"]);
    assert_eq!(rest[1].gap_bytes, 6);
}

#[test]
fn a_follower_of_a_log_that_began_later_is_told_what_was_rotated_away_before_it_looked() {
    let mut log = Writer::new();
    let mut reader = log.reader(&Request { follow: Follow::Yes, ..all() }).unwrap();
    assert_eq!(reader.read().unwrap(), Step::Dry);
    for text in ["one\n", "two\n", "last\n"] {
        log.write(text.as_bytes());
        log.rotate();
    }
    log.delete(1);
    log.delete(2);
    let lines = drain(&mut reader);
    assert_eq!(lines.iter().map(|line| line.gap_bytes).collect::<Vec<_>>(), [10, 0]);
    assert_eq!(lines[1].text, b"last");
}

#[test]
fn a_cursor_of_another_log_or_beyond_the_end_is_refused() {
    let mut log = Writer::new();
    log.write(b"one\ntwo\n");
    let last = log.read(&all()).remove(1).cursor;
    assert!(log.reader(&Request { after: Some(last), ..all() }).is_ok());
    let mut shorter = Writer::new();
    shorter.write(b"one\n");
    let refused = shorter.reader(&Request { after: Some(last), ..all() });
    assert!(matches!(refused, Err(LogError::InvalidCursor)));
    let empty = Writer::new().reader(&Request { after: Some(last), ..all() });
    assert!(matches!(empty, Err(LogError::InvalidCursor)));
    assert_eq!(Cursor::parse(&last.to_string(), "rescue"), None);
}

#[test]
fn a_reader_that_does_not_follow_ends_where_the_log_ended_when_it_began() {
    let mut log = Writer::new();
    log.write(b"one\n");
    let mut reader = log.reader(&all()).unwrap();
    log.write(b"two\n");
    log.rotate();
    log.write(b"three\n");
    assert_eq!(texts(&drain(&mut reader)), ["one"]);
}

#[test]
fn batches_are_bounded_however_short_the_lines() {
    for line in [&b"0123456789abcdef\n"[..], b"\n"] {
        let mut log = Writer::new();
        log.write(&line.repeat(100_000));
        let mut reader = log.reader(&all()).unwrap();
        let mut count = 0;
        while let Step::Lines(lines) = reader.read().unwrap() {
            assert!(lines.len() <= 1_000, "{}", lines.len());
            count += lines.len();
        }
        assert_eq!(count, 100_000);
    }
}

#[tokio::test]
async fn a_waiting_reader_is_told_of_growth() {
    let mut log = Writer::new();
    log.write(b"one\n");
    let notices = Notices::start();
    let mut notice = notices.watch(log.directory.path()).unwrap();
    let mut other = notices.watch(log.directory.path()).unwrap();
    let patience = Duration::from_secs(60);
    log.write(b"two\n");
    tokio::time::timeout(patience, notice.changed()).await.unwrap().unwrap();
    drop(notice);
    other.mark();
    log.rotate();
    tokio::time::timeout(patience, other.changed()).await.unwrap().unwrap();
    drop(log);
    tokio::time::timeout(patience, async { while other.changed().await.is_ok() {} }).await.unwrap();
}

#[test]
fn a_follower_of_a_fast_writer_misses_nothing_without_being_told() {
    const LINES: usize = 20_000;
    let mut log = Writer::new();
    append(&log.path(1, "log"), b"");
    let mut follower = log.reader(&follow(&all())).unwrap();
    let writer = std::thread::spawn(move || {
        for number in 0..LINES {
            if number % 500 == 499 {
                log.rotate();
                if log.file > 3 {
                    log.delete(log.file - 3);
                }
            }
            log.write(format!("{number}\n").as_bytes());
        }
        log
    });
    let mut expected = 0;
    let mut told = false;
    while expected < LINES {
        for line in drain(&mut follower) {
            told |= line.gap_bytes > 0;
            let Ok(number) = String::from_utf8(line.text).unwrap().parse::<usize>() else { continue };
            assert!(number == expected || number > expected && told, "{expected} is missing before {number}");
            (expected, told) = (number + 1, false);
        }
    }
    drop(writer.join().unwrap());
}

/// What the worker might do next.
#[derive(Debug, Clone)]
enum Deed {
    Write(Vec<u8>),
    Rotate,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let text = proptest::collection::vec(prop_oneof![3 => Just(b'x'), 1 => Just(b'\n')], 0..12);
    let deed = prop_oneof![5 => text.prop_map(Deed::Write), 1 => Just(Deed::Rotate)];
    proptest::collection::vec(deed, 0..20)
}

fn done(deeds: &[Deed]) -> Writer {
    let mut log = Writer::new();
    append(&log.path(1, "log"), b"");
    for deed in deeds {
        match deed {
            Deed::Write(text) => log.write(text),
            Deed::Rotate => log.rotate(),
        }
    }
    log
}

/// All lines, read the simplest way.
fn expected(log: &Writer) -> Vec<String> {
    let mut lines = Vec::new();
    for number in 1..=log.file {
        let text = fs::read_to_string(log.path(number, "log")).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_tail_is_the_end_of_the_whole(deeds in deeds()) {
        let log = done(&deeds);
        let whole = expected(&log);
        prop_assert_eq!(&log.texts(&all()), &whole);
        for count in 0..=whole.len() + 1 {
            let from = whole.len().saturating_sub(count);
            prop_assert_eq!(&log.texts(&tail(count as u64)), &whole[from..], "tail {}", count);
        }
    }

    #[test]
    fn every_cursor_resumes_after_its_line(deeds in deeds()) {
        let log = done(&deeds);
        let whole = log.read(&all());
        for (at, line) in whole.iter().enumerate() {
            prop_assert_eq!(Cursor::parse(&line.cursor.to_string(), "main"), Some(line.cursor));
            prop_assert_eq!(&log.read(&Request { after: Some(line.cursor), ..all() }), &whole[at + 1..]);
        }
    }

    #[test]
    fn a_follower_reads_what_a_later_reader_reads(deeds in deeds()) {
        let mut log = Writer::new();
        let mut follower = log.reader(&follow(&all())).unwrap();
        let mut seen = Vec::new();
        for deed in &deeds {
            match deed {
                Deed::Write(text) => log.write(text),
                Deed::Rotate => log.rotate(),
            }
            seen.extend(drain(&mut follower));
        }
        log.write(b"\n");
        seen.extend(drain(&mut follower));
        prop_assert_eq!(seen, log.read(&all()));
    }
}
