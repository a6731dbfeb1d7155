use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::{CommandFactory, Parser};
use prost_reflect::DescriptorPool;
use supervisor_proto::v1::DESCRIPTORS;

use super::*;
use crate::app::App;

fn words(kind: Kind) -> BTreeSet<String> {
    pages().iter().filter(|page| page.kind == kind).map(|page| page.word.to_owned()).collect()
}

/// The values of an enum of the contract, without their prefix and the one that is none.
fn values(name: &str, prefix: &str) -> BTreeSet<String> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let found = pool.get_enum_by_name(&format!("openclaw.supervisor.v1.{name}")).unwrap();
    let named = found.values().map(|value| value.name().strip_prefix(prefix).unwrap().to_owned());
    named.filter(|value| value != "UNSPECIFIED").collect()
}

fn lower(words: &BTreeSet<String>) -> BTreeSet<String> {
    words.iter().map(|word| word.to_ascii_lowercase()).collect()
}

/// The text of all sources below a directory of the supervisor's, without their tests.
fn sources(directory: &str) -> String {
    fn walk(path: &Path, text: &mut String) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tests" {
                walk(&path, text);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                text.push_str(fs::read_to_string(&path).unwrap().split("#[cfg(test)]").next().unwrap());
            }
        }
    }
    let mut text = String::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../supervisor").join(directory), &mut text);
    text
}

/// The quoted words with a point that begin with one of these names.
fn dotted(text: &str, begin: &[&str]) -> BTreeSet<String> {
    let named = |word: &str| word.split_once('.').is_some_and(|(first, _)| begin.contains(&first));
    let plain = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || "._-".contains(c));
    text.split(['"', '\'']).filter(|word| named(word) && plain(word)).map(str::to_owned).collect()
}

#[test]
fn every_refusal_phase_and_wall_has_a_page_and_no_other() {
    assert_eq!(words(Kind::Refusal), values("Reason", "REASON_"));
    assert_eq!(words(Kind::Phase), lower(&values("Phase", "PHASE_")));
    assert_eq!(words(Kind::Wall), lower(&values("WallStatus.Kind", "KIND_")));
}

#[test]
fn every_event_has_a_page_and_no_other() {
    let journal = sources("core/src");
    let begin = ["supervisor", "instance", "config", "failover", "channels"];
    let mut known = dotted(&journal, &begin);
    assert!(known.len() > 40, "{known:?}");
    // The one that the store writes by itself.
    let own = dotted(&sources("src/perform/store"), &["supervisor"]);
    known.extend(own.into_iter().filter(|word| word == "supervisor.store_damaged"));
    assert_eq!(words(Kind::Event), known);
}

#[test]
fn every_finding_has_a_page_and_no_other() {
    let doctor = sources("src/doctor")
        + &fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../supervisor/src/doctor.rs"))
            .unwrap();
    let begin = [
        "certificates",
        "config",
        "doctor",
        "file",
        "host",
        "lock",
        "memory",
        "path",
        "port",
        "process",
        "run",
        "runtime",
        "service",
        "state",
        "token",
        "walls",
    ];
    let found = dotted(&doctor, &begin);
    let files = ["memory.max", "run.lock"];
    let found: BTreeSet<String> = found.into_iter().filter(|word| !files.contains(&word.as_str())).collect();
    assert_eq!(words(Kind::Finding), found);
}

#[test]
fn a_page_says_what_and_why_in_sentences_and_its_commands_can_be_typed() {
    App::command().debug_assert();
    for page in pages() {
        let word = page.word;
        for text in [page.what, page.why] {
            assert!(text.ends_with('.') && text.starts_with(|c: char| !c.is_lowercase()), "{word}: {text:?}");
        }
        for (command, what) in page.commands {
            assert!(!what.is_empty(), "{word}: {command}");
            let typed = App::try_parse_from(command.split_whitespace());
            assert!(typed.is_ok(), "{word}: {command}: {:?}", typed.err());
        }
    }
}

#[test]
fn a_word_is_known_however_it_is_written_and_means_one_thing() {
    let mut seen = BTreeMap::new();
    for page in pages() {
        assert_eq!(seen.insert(plain(page.word), page.kind), None, "{}", page.word);
    }
    for word in ["PORT_OVERLAP", "port-overlap", "REASON_PORT_OVERLAP", " Port_Overlap"] {
        assert_eq!(page(word).unwrap().word, "PORT_OVERLAP");
    }
    assert_eq!(page("PHASE_BACKOFF").unwrap().word, "backoff");
    assert_eq!(page("system calls").unwrap().word, "syscalls");
    assert_eq!(page("control-group").unwrap().word, "cgroup");
    assert_eq!(page("nothing"), None);
}

#[test]
fn the_nearest_words_are_suggested() {
    assert_eq!(nearest("instance.exitd")[0], "instance.exited");
    assert_eq!(nearest("exited")[0], "instance.exited");
    assert_eq!(nearest("PORT_OVERLAPS")[0], "PORT_OVERLAP");
    assert!(nearest("squat").contains(&"port.squatted"), "{:?}", nearest("squat"));
    assert!(nearest("zzzzzz").is_empty());
}
