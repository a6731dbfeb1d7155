//! Files and frames: the fleet, the settings, OpenClaw's configuration, the worker's messages, the captured log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    path::Path,
};

use openclaw_supervisor::{
    fleet::{self, Surroundings},
    logs::{Cursor, Reader, Request, Step},
    openclaw::{
        config::{self, Wanted},
        layout::Directories,
    },
    problem::Problem,
    settings::Settings,
};
use supervisor_core::{
    ids::Name,
    ports::{Block, Pool},
};
use supervisor_proto::{
    frame::{self, HEADER, MAX_FRAME},
    worker::{Exited, Order, Report},
};

use crate::{Bound, fuzz};

const YAML: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "- ",
    ": ",
    ", ",
    "&a ",
    "*a",
    "<<: ",
    "|\n",
    ">-\n",
    "!!str ",
    "---\n",
    "...\n",
    "~",
    "\"",
    "'",
    "\t",
    "\u{feff}",
    "\u{1f600}",
    "\n  ",
    "# ",
    "? ",
    "%YAML 1.2\n",
    ".nan",
    "0x",
    "1e999",
    "-1",
    "18446744073709551616",
    "9223372036854775807ns",
    "5s",
    "16MiB",
    "99999999999TiB",
    "version: 1\n",
    "instances:\n",
    "defaults:\n",
    "rescues: [main]",
    "port: 65535",
    "profile: ../../x",
    "runtime: command",
    "http",
    "{port}",
];

const JSON5: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "\"",
    "'",
    "\\",
    "\\u0000",
    "\\ud83d",
    "//",
    "/*",
    "*/",
    "\u{feff}",
    "\u{2028}",
    "+",
    "-",
    "Infinity",
    "NaN",
    "0x",
    "1e400",
    ".5",
    "5.",
    "null",
    "true",
    "\"$include\":",
    "gateway:",
    "port:",
    "auth:",
    "token:",
    "\"${X}\"",
    "browser:",
    "profiles:",
    "cdpPort:",
    "logging:",
    "file:",
    "agents:",
    "list:",
    "workspace:",
    "\"../..\"",
];

const FRAMES: &[&str] =
    &["\0\0\0\0", "\0\u{10}\0\0", "\u{7f}", "\u{8}", "\u{a}", "\u{12}", "\u{1a}", "\0", "\u{1}"];

/// Each problem is in the text, and shows a line of it.
fn sound(problems: &[Problem], text: &str) {
    assert!(!problems.is_empty());
    for problem in problems {
        assert!(!problem.message.is_empty() && !problem.to_string().is_empty());
        // YAML ends a line with a carriage return alone, too.
        assert!(problem.place.line <= text.split(['\n', '\r']).count() + 1, "{problem}");
    }
}

#[test]
fn a_fleet_file_of_any_content_is_taken_or_refused_with_its_place() {
    let known = BTreeSet::new();
    let upgraded = BTreeMap::from([(Name::new("main").unwrap(), "2026.9.6".to_owned())]);
    let data_dir = Path::new("/data");
    let surroundings = Surroundings { pool: Pool::default(), known: &known, data_dir, upgraded: &upgraded };
    // A tree has at most 200,000 nodes of about 100 bytes, of which aliases may make the most from the least.
    fuzz("fleet", YAML, Bound { fixed: 32 << 20, per_byte: 400 }, |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return };
        match fleet::parse(text, "fleet.yaml", &surroundings) {
            Err(problems) => sound(&problems, text),
            Ok(fleet) => {
                let again = fleet::export(&fleet).unwrap();
                assert_eq!(fleet::parse(&again, "", &surroundings).unwrap(), fleet, "{again}");
            }
        }
    });
}

#[test]
fn settings_of_any_content_are_taken_or_refused_with_their_place() {
    fuzz("settings", YAML, Bound { fixed: 32 << 20, per_byte: 400 }, |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return };
        match Settings::parse(text, "settings.yaml") {
            Err(problems) => sound(&problems, text),
            Ok(settings) => {
                let again = settings.to_yaml().unwrap();
                assert_eq!(Settings::parse(&again, "").unwrap(), settings, "{again}");
            }
        }
    });
}

#[test]
fn an_openclaw_configuration_of_any_content_is_pinned_or_refused_and_then_stays_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let name = Name::new("main").unwrap();
    let directories = Directories::at(data.path(), &name, None);
    directories.create(data.path()).unwrap();
    let block = Block::at(18_789).unwrap();
    let wanted = Wanted {
        name: &name,
        directories: &directories,
        block,
        previous_base: Some(18_809),
        data_dir: data.path(),
        neighbours: &[],
    };
    let path = &directories.config;
    fuzz("config", JSON5, Bound { fixed: 1 << 20, per_byte: 1_000 }, |bytes| {
        fs::write(path, bytes).unwrap();
        let _ = config::declared_port(directories.own_config());
        let _ = config::declared_discovery(&directories);
        let _ = config::declared_token(directories.own_config());
        match config::pin(&wanted) {
            Err(error) => assert!(!error.to_string().is_empty() && fs::read(path).unwrap() == bytes),
            Ok(pinned) => {
                let written = fs::read(path).unwrap();
                assert_eq!(config::pin(&wanted).unwrap().port, pinned.port);
                assert_eq!(fs::read(path).unwrap(), written, "a second look changes nothing");
            }
        }
    });
}

#[test]
fn frames_of_any_bytes_are_messages_or_refused_and_never_read_beyond_their_length() {
    /// Reads all that is whole.
    fn drain<M: prost::Message + Default + PartialEq + Debug>(bytes: &[u8]) {
        let mut buffer = bytes.to_vec();
        loop {
            let before = buffer.len();
            match frame::decode::<M>(&mut buffer) {
                Ok(Some(message)) => {
                    assert!(before - buffer.len() <= HEADER + MAX_FRAME);
                    let mut again = Vec::new();
                    frame::encode(&message, &mut again);
                    assert_eq!(frame::decode::<M>(&mut again).unwrap(), Some(message));
                }
                Ok(None) | Err(_) => return assert_eq!(buffer.len(), before, "what is not whole stays"),
            }
        }
    }
    // An empty message of a list takes two bytes on the wire, and up to a hundred and some in memory.
    fuzz("frames", FRAMES, Bound { fixed: 64 << 10, per_byte: 400 }, |bytes| {
        drain::<Order>(bytes);
        drain::<Report>(bytes);
        drain::<Exited>(bytes);
    });
}

#[test]
fn a_log_of_any_bytes_with_an_index_of_any_bytes_is_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (log, index) = ("gateway-00000001.log", "gateway-00000001.idx");
    fuzz("frames", &["\n", "\n\n\n\n", "\r", "\0"], Bound { fixed: 2 << 20, per_byte: 400 }, |bytes| {
        fs::write(directory.path().join(log), bytes).unwrap();
        fs::write(directory.path().join(index), bytes).unwrap();
        let path = || directory.path().to_owned();
        let mut reader = Reader::open("main", path(), &Request::default()).unwrap();
        let mut cursors = Vec::new();
        let mut length = 0;
        while let Step::Lines(lines) = reader.read().unwrap() {
            length += lines.iter().map(|line| line.text.len()).sum::<usize>();
            cursors.extend(lines.last().map(|line| line.cursor));
        }
        assert_eq!(length, bytes.iter().filter(|byte| **byte != b'\n').count());
        for after in cursors {
            assert_eq!(Cursor::parse(&after.to_string(), "main"), Some(after));
            let request =
                Request { after: Some(after), since_ms: Some(1), tail: Some(3), ..Request::default() };
            Reader::open("main", path(), &request).unwrap();
        }
        let request = Request { since_ms: Some(1 << 40), tail: Some(2), ..Request::default() };
        let mut reader = Reader::open("main", path(), &request).unwrap();
        while let Step::Lines(_) = reader.read().unwrap() {}
        let _ = Cursor::parse(&String::from_utf8_lossy(bytes), "main");
    });
}
