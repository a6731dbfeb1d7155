//! Looks that change nothing.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use supervisor_core::{ids::Name, ports::Block};

use super::*;
use crate::openclaw::snapshots::Why;

struct World {
    data: tempfile::TempDir,
    name: Name,
    directories: Directories,
}

impl World {
    fn new() -> Self {
        let (data, name) = (tempfile::tempdir().unwrap(), Name::new("main").unwrap());
        let directories = Directories::at(data.path(), &name, None);
        directories.create(data.path()).unwrap();
        Self { data, name, directories }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            name: &self.name,
            directories: &self.directories,
            block: Block::at(18_789).unwrap(),
            previous_base: None,
            data_dir: self.data.path(),
            neighbours: &[],
        }
    }

    fn look(&self) -> Look {
        look(&self.wanted(), None, &Purse { salt: "store", spec: &crate::spec::InstanceSpec::default() })
    }

    fn look_at(&self, content: impl AsRef<[u8]>) -> Look {
        fs::write(self.path(), content).unwrap();
        self.look()
    }

    fn path(&self) -> &PathBuf {
        &self.directories.config
    }
}

#[test]
fn a_look_says_what_a_start_would_say_and_changes_nothing() {
    let world = World::new();
    for (text, problem) in [
        ("{\n  gateway: {port: 18789}\n", Some("openclaw.json:")),
        ("{\n  gateway: {port: 19001}}", Some("openclaw.json:2:19: `gateway.port`: the port is 19001")),
        ("{gateway: {port: 1}, gateway: {}}", Some("the first is on line 1")),
        ("{gateway: 5}", Some("an object is wanted here; write")),
        // A start adds what is missing.
        ("{}", None),
        ("", None),
        ("{gateway: {mode: 'local', port: 18789, bind: 'loopback', auth: {token: 'abc'}}}", None),
    ] {
        fs::write(world.path(), text).unwrap();
        let before = fs::metadata(world.path()).unwrap();
        let found = world.look();
        let after = fs::metadata(world.path()).unwrap();
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()), "{text}");
        assert_eq!(before.mode(), after.mode(), "{text}");
        match problem {
            None => assert_eq!(found.sighting.problem, None, "{text}"),
            Some(part) => {
                let said = found.sighting.problem.unwrap();
                assert!(said.contains(part), "{text}: {said}");
                let refused = super::super::pin(&world.wanted()).unwrap_err().to_string();
                assert!(said.starts_with(&refused), "a start says: {refused}");
            }
        }
        assert_eq!(found.sighting.content, Some(content_id(text.as_bytes())));
        assert_eq!(found.content.unwrap(), text.as_bytes());
    }
}

#[test]
fn a_sound_configuration_is_not_completed_by_a_look() {
    let world = World::new();
    assert_eq!(world.look(), Look::default(), "there is none, and the next start makes one");
    world.look_at("{}");
    assert_eq!(fs::read_to_string(world.path()).unwrap(), "{}");
    assert_eq!(fs::read_dir(&world.directories.state).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_read_is_a_problem_without_a_content() {
    let world = World::new();
    let found = world.look_at(vec![b' '; 5 << 20]);
    assert!(found.sighting.problem.unwrap().contains("larger than 4 MiB"));
    assert_eq!(found.sighting.content, None);
    let found = world.look_at(b"{\n  \"a\": \"\xff\"}");
    assert!(found.sighting.problem.unwrap().contains("2:9: this is not UTF-8 text"));
    assert!(found.sighting.content.is_some(), "it was read");
    fs::remove_file(world.path()).unwrap();
    nix::unistd::mkfifo(world.path(), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(
        world.look().sighting.problem.unwrap().contains("not a regular file"),
        "nobody waits for a writer"
    );
    fs::remove_file(world.path()).unwrap();
    fs::create_dir(world.path()).unwrap();
    assert!(world.look().sighting.problem.is_some());
}

#[test]
fn what_is_lost_of_a_good_configuration_is_a_problem_as_long_as_the_good_one_can_be_put_back() {
    let world = World::new();
    let snapshots = Snapshots::of(&world.directories);
    let good = snapshots.keep(b"{}", &Why::Started, std::time::SystemTime::now()).unwrap();
    let lost = || lost(&world.directories, Some(good)).map(|error| error.to_string());
    assert!(lost().is_some_and(|told| told.ends_with("any more")), "there is none");
    fs::write(world.path(), "\0\0\n").unwrap();
    assert!(lost().is_some_and(|told| told.ends_with("any more")), "there is nothing in it");
    fs::remove_file(world.path()).unwrap();
    fs::create_dir(world.path()).unwrap();
    assert!(lost().is_some_and(|told| told.ends_with("not a regular file")));
    fs::remove_dir(world.path()).unwrap();
    let purse = Purse { salt: "store", spec: &crate::spec::InstanceSpec::default() };
    let found = look(&world.wanted(), Some(good), &purse);
    assert_eq!((found.sighting.content, found.content), (Some(content_id(b"")), Some(Vec::new())));
    fs::write(world.path(), "{}").unwrap();
    assert_eq!(lost(), None);
    fs::remove_file(world.path()).unwrap();
    fs::remove_dir_all(snapshots.directory()).unwrap();
    assert_eq!(lost(), None, "one is made anew");
}

#[test]
fn a_candidate_is_checked_with_what_a_start_would_add() {
    let world = World::new();
    let ten: String = (0..10).map(|n| format!("p{n}: {{}}, ")).collect();
    let crowded = format!("{{browser: {{profiles: {{{ten}}}}}}}");
    assert!(check(&world.wanted(), crowded.as_bytes()).unwrap_err().to_string().contains("no port from"));
    assert!(check(&world.wanted(), b"{browser: {profiles: {a: {}}}} // mine").is_ok());
    assert!(!world.path().exists());
}

#[test]
fn a_look_names_the_credentials() {
    let world = World::new();
    let found = world.look_at("{channels: {telegram: {botToken: '123456:secret'}}}");
    assert_eq!(found.credentials.len(), 1);
    assert_eq!(found.credentials[0].label, "telegram");
    assert_eq!(found.sighting.credentials, [found.credentials[0].credential]);
    assert!(world.look_at("{channels: {telegram: {botToken: '123456:secret'}}").credentials.is_empty());
}
