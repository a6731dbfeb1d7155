//! Snapshots kept, damaged, pruned and put back.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use supervisor_core::ids::Name;

use super::*;
use crate::spec::Profile;

struct World {
    data: tempfile::TempDir,
    directories: Directories,
}

/// 2026-11-21T03:05:12Z, and a number of seconds.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_230_312 + seconds)
}

impl World {
    fn new() -> Self {
        Self::of(None)
    }

    fn of(profile: Option<&Profile>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let directories = Directories::at(data.path(), &Name::new("main").unwrap(), profile);
        directories.create(data.path()).unwrap();
        Self { data, directories }
    }

    fn snapshots(&self) -> Snapshots {
        Snapshots::of(&self.directories)
    }

    fn keep(&self, content: &str, why: &Why, seconds: u64) -> ConfigId {
        self.snapshots().keep(content.as_bytes(), why, at(seconds)).unwrap()
    }

    fn file(&self, id: ConfigId) -> PathBuf {
        self.snapshots().directory().join(id.to_string())
    }

    fn write(&self, content: &str) {
        fs::write(&self.directories.config, content).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.directories.config).unwrap()
    }

    fn restore(&self, to: ConfigId, seconds: u64) -> Result<Restored, RestoreError> {
        restore(&self.directories, &self.snapshots(), to, "line 3 is wrong", at(seconds))
    }

    /// The names beside the configuration that begin like this.
    fn beside(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.directories.state)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_content_is_kept_once_under_its_own_name_and_for_the_owner_alone() {
    let world = World::new();
    let id = world.keep("{}", &Why::Seen, 0);
    assert_eq!(id.to_string(), "44136fa355b3678a1146ad16f7e8649e", "SHA-256 of `{{}}`, the first half");
    let inode = fs::metadata(world.file(id)).unwrap().ino();
    assert_eq!(world.keep("{}", &Why::Seen, 9), id);
    assert_eq!(fs::metadata(world.file(id)).unwrap().ino(), inode, "not written again");
    assert_eq!(fs::metadata(world.file(id)).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(world.snapshots().directory()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(world.snapshots().read(id).unwrap(), b"{}");
    let listed = world.snapshots().list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].at, listed[0].bytes), (at(0), 2), "when it was first kept");
    assert_eq!(world.snapshots().matching("44136").unwrap(), [id]);
    assert!(world.snapshots().matching("5").unwrap().is_empty());
}

#[test]
fn reasons_add_up_and_the_newest_comes_first() {
    let world = World::new();
    let first = world.keep("1", &Why::Seen, 0);
    let second = world.keep("2", &Why::Asked("before the move".into()), 1);
    world.keep("1", &Why::Started, 2);
    world.keep("1", &Why::Rejected("it broke".repeat(1000)), 3);
    let listed = world.snapshots().list().unwrap();
    assert_eq!(listed.iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(), [second, first]);
    assert_eq!(listed[0].note.as_deref(), Some("before the move"));
    assert!(listed[1].started && listed[1].rejected.as_ref().is_some_and(|why| why.len() <= 1024));
    assert_eq!(listed[1].at, at(0));
}

#[test]
fn what_was_lost_beside_a_content_costs_its_story_and_not_the_content() {
    let world = World::new();
    let id = world.keep("1", &Why::Started, 0);
    for damage in ["", "{", r#"{"at": 99999999999999999}"#] {
        fs::write(world.file(id).with_extension("about"), damage).unwrap();
        let listed = world.snapshots().list().unwrap();
        let modified = fs::metadata(world.file(id)).unwrap().mtime();
        let seconds = listed[0].at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!((seconds, listed[0].started), (modified as u64, false), "{damage}");
    }
    assert_eq!(world.snapshots().read(id).unwrap(), b"1");
}

#[test]
fn a_damaged_content_is_not_given_out_and_is_mended_when_it_is_kept_again() {
    let world = World::new();
    let id = world.keep("good", &Why::Seen, 0);
    fs::write(world.file(id), "evil").unwrap();
    assert!(matches!(world.snapshots().read(id), Err(SnapshotError::Damaged { .. })));
    assert!(matches!(world.restore(id, 0), Err(RestoreError::Snapshot(SnapshotError::Damaged { .. }))));
    world.keep("good", &Why::Seen, 0);
    assert_eq!(world.snapshots().read(id).unwrap(), b"good");
    let never = content_id(b"never");
    assert!(matches!(world.snapshots().read(never), Err(SnapshotError::Missing { .. })));
    assert!(matches!(World::new().snapshots().read(never), Err(SnapshotError::Missing { .. })));
    let large = vec![b' '; 5 << 20];
    let refused = world.snapshots().keep(&large, &Why::Seen, at(0));
    assert!(matches!(refused, Err(SnapshotError::TooLarge { .. })));
}

#[test]
fn links_and_pipes_that_an_agent_plants_lead_nowhere() {
    let world = World::new();
    let outside = world.data.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    let id = world.keep("content", &Why::Seen, 0);
    // In place of a content, and of what is said about it.
    for planted in [world.file(id), world.file(id).with_extension("about")] {
        fs::remove_file(&planted).unwrap();
        symlink(&outside, &planted).unwrap();
    }
    assert!(matches!(world.snapshots().read(id), Err(SnapshotError::Read { .. })));
    assert!(world.snapshots().list().unwrap().is_empty());
    world.keep("content", &Why::Asked("mine".into()), 0);
    assert_eq!(world.snapshots().read(id).unwrap(), b"content");
    fs::remove_file(world.file(id)).unwrap();
    nix::unistd::mkfifo(&world.file(id), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(world.snapshots().read(id).is_err(), "and nobody waits for a writer");
    // In place of the directory.
    fs::remove_dir_all(world.snapshots().directory()).unwrap();
    fs::create_dir(world.data.path().join("trap")).unwrap();
    symlink(world.data.path().join("trap"), world.snapshots().directory()).unwrap();
    assert!(matches!(world.snapshots().keep(b"x", &Why::Seen, at(0)), Err(SnapshotError::Keep { .. })));
    assert!(world.snapshots().list().is_err());
    assert_eq!(fs::read_dir(world.data.path().join("trap")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(outside).unwrap(), "mine");
}

#[test]
fn the_oldest_go_first_and_what_is_wanted_stays() {
    let world = World::new();
    let ids: Vec<ConfigId> = (0..10).map(|n| world.keep(&format!("{n:0100}"), &Why::Started, n)).collect();
    let left = |world: &World| {
        world.snapshots().list().unwrap().iter().map(|snapshot| snapshot.id).collect::<Vec<_>>()
    };
    assert_eq!(world.snapshots().prune(&[], Limits::default()).unwrap(), 0);
    let limits = Limits { count: 4, bytes: 1 << 20 };
    assert_eq!(world.snapshots().prune(&[ids[0]], limits).unwrap(), 6);
    assert_eq!(left(&world), [ids[9], ids[8], ids[7], ids[0]]);
    let limits = Limits { count: 50, bytes: 250 };
    assert_eq!(world.snapshots().prune(&[ids[0], ids[7]], limits).unwrap(), 2);
    assert_eq!(left(&world), [ids[7], ids[0]]);
    assert_eq!(world.snapshots().prune(&[ids[0]], Limits { count: 0, bytes: 0 }).unwrap(), 1);
    assert_eq!(fs::read_dir(world.snapshots().directory()).unwrap().count(), 2, "the content and its story");
}

#[test]
fn what_somebody_has_noted_is_not_pushed_out_by_edits() {
    let world = World::new();
    let limits = Limits { count: 6, bytes: 100 };
    let noted = |number: u64| world.keep(&format!("noted {number}"), &Why::Asked("mine".into()), number);
    let notes: Vec<ConfigId> = (0..4).map(noted).collect();
    let edits: Vec<ConfigId> =
        (0..9).map(|number| world.keep(&format!("edit {number}"), &Why::Seen, 100 + number)).collect();
    world.snapshots().prune(&[], limits).unwrap();
    let left: Vec<ConfigId> = world.snapshots().list().unwrap().iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(left, [edits[8], edits[7], edits[6], notes[3], notes[2], notes[1]], "half is for them");
    // Nor by a large one.
    world.keep(&"x".repeat(90), &Why::Seen, 200);
    world.snapshots().prune(&[], limits).unwrap();
    let left: Vec<ConfigId> = world.snapshots().list().unwrap().iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(left, [notes[3], notes[2], notes[1]]);
}

#[test]
fn what_a_dead_supervisor_left_half_written_goes_with_the_next_pruning() {
    let world = World::new();
    world.keep("1", &Why::Seen, 0);
    let leftover = world.snapshots().directory().join(".unfinished-1-0");
    fs::write(&leftover, "hal").unwrap();
    assert_eq!(world.snapshots().list().unwrap().len(), 1);
    world.snapshots().prune(&[], Limits::default()).unwrap();
    assert!(!leftover.exists());
}

#[test]
fn many_may_keep_at_once() {
    let world = World::new();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let world = &world;
            scope.spawn(move || {
                for n in 0..20 {
                    world.keep(&format!("{}", (n + thread) % 10), &Why::Seen, n);
                }
            });
        }
    });
    let listed = world.snapshots().list().unwrap();
    assert_eq!(listed.len(), 10);
    assert!(listed.iter().all(|snapshot| world.snapshots().read(snapshot.id).is_ok()));
}

#[test]
fn an_agent_that_takes_the_names_of_what_is_rolled_back_keeps_nothing_from_being_put_back() {
    let world = World::new();
    let good = world.keep("{good: 1}", &Why::Started, 0);
    let name = |second: u64, more: &str| {
        let time = format!("openclaw.json.rolled-back-20261121T03051{}Z", 2 + second);
        world.directories.state.join(format!("{time}{more}"))
    };
    let numbers = || std::iter::once(String::new()).chain((2..=9).map(|number| format!("-{number}")));
    for number in numbers() {
        fs::write(name(0, &number), "").unwrap();
        // Or only those of what is said about it, with what cannot be removed.
        fs::create_dir_all(name(1, &format!("{number}.why")).join("full")).unwrap();
        fs::create_dir_all(name(2, &number).join("full")).unwrap();
    }
    for second in 0..3 {
        world.write("{broken");
        world.restore(good, second).unwrap();
        assert_eq!(world.text(), "{good: 1}");
    }
}

#[test]
fn a_restored_configuration_is_the_snapshot_and_the_rejected_one_lies_beside_it() {
    let world = World::new();
    let good = world.keep("{good: 1}", &Why::Started, 0);
    world.write("{broken");
    fs::write(world.directories.state.join("openclaw.json.bak"), "OpenClaw's own").unwrap();
    let broken = content_id(b"{broken");
    let aside = world.directories.state.join("openclaw.json.rolled-back-20261121T030512Z");
    let restored = world.restore(good, 0).unwrap();
    assert_eq!(restored, Restored::Replaced { rejected: Some(broken), aside: aside.clone() });
    assert_eq!(world.text(), "{good: 1}");
    assert_eq!(fs::metadata(&world.directories.config).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&aside).unwrap(), "{broken");
    let why =
        fs::read_to_string(world.directories.state.join("openclaw.json.rolled-back-20261121T030512Z.why"))
            .unwrap();
    for part in
        ["2026-11-21T03:05:12Z", "openclaw-supervisor", "line 3 is wrong", "openclawctl config rollback main"]
    {
        assert!(why.contains(part), "{part}: {why}");
    }
    let kept = world.snapshots().list().unwrap();
    let kept = kept.iter().find(|snapshot| snapshot.id == broken).unwrap();
    assert_eq!(kept.rejected.as_deref(), Some("line 3 is wrong"));
    assert_eq!(world.beside("openclaw.json.bak"), ["openclaw.json.bak"]);
    assert_eq!(world.restore(good, 1).unwrap(), Restored::Already);
    assert_eq!(world.beside("openclaw.json.rolled-back").len(), 2);
}

#[test]
fn a_missing_configuration_is_made_and_one_that_is_too_large_is_moved_away() {
    let world = World::new();
    let good = world.keep("{}", &Why::Started, 0);
    assert_eq!(world.restore(good, 0).unwrap(), Restored::Made);
    assert_eq!(fs::metadata(&world.directories.config).unwrap().mode() & 0o777, 0o600);
    fs::write(&world.directories.config, vec![b' '; 5 << 20]).unwrap();
    let Restored::Replaced { rejected: None, aside } = world.restore(good, 0).unwrap() else { panic!() };
    assert_eq!(fs::metadata(aside).unwrap().len(), 5 << 20);
    assert_eq!(world.text(), "{}");
    assert_eq!(world.beside("openclaw.json.rolled-back").len(), 2);
}

#[test]
fn what_cannot_be_a_configuration_is_moved_away() {
    let world = World::new();
    let good = world.keep("{}", &Why::Started, 0);
    let config = &world.directories.config;
    let plant: [&dyn Fn(); 3] = [
        &|| fs::create_dir(config).unwrap(),
        &|| nix::unistd::mkfifo(config, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        &|| symlink("nowhere", config).unwrap(),
    ];
    for (at, plant) in plant.into_iter().enumerate() {
        plant();
        let Restored::Replaced { rejected: None, aside } = world.restore(good, at as u64).unwrap() else {
            panic!()
        };
        assert!(aside.symlink_metadata().is_ok_and(|found| !found.is_file()));
        assert_eq!(world.text(), "{}");
        fs::remove_file(config).unwrap();
    }
    for round in 3..9 {
        world.write("1");
        world.restore(good, round).unwrap();
    }
}

#[test]
fn five_rolled_back_configurations_are_kept_beside_the_present_one() {
    let world = World::new();
    let good = world.keep("{}", &Why::Started, 0);
    for round in 0..9 {
        world.write(&round.to_string());
        world.restore(good, round / 3).unwrap();
    }
    let beside = world.beside("openclaw.json.rolled-back");
    assert_eq!(beside.len(), 10, "{beside:?}");
    let read = |name: &str| fs::read_to_string(world.directories.state.join(name)).unwrap();
    assert_eq!(read("openclaw.json.rolled-back-20261121T030513Z-2"), "4");
    assert_eq!(read("openclaw.json.rolled-back-20261121T030514Z-3"), "8");
}

/// A profile whose configuration is a link to a file of that name, from its directory.
fn linked(target: &str) -> (tempfile::TempDir, World, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join(".openclaw");
    fs::create_dir(&state).unwrap();
    let world = World::of(Some(&Profile { state_dir: Some(state.clone()), ..Profile::default() }));
    fs::write(state.join(target), "{broken").unwrap();
    fs::set_permissions(state.join(target), Permissions::from_mode(0o640)).unwrap();
    symlink(target, &world.directories.config).unwrap();
    (home, world, state.join(target))
}

#[test]
fn a_profiles_link_is_followed_within_its_directory_and_its_mode_is_kept() {
    let (_home, world, target) = linked("real.json");
    let good = world.keep("{}", &Why::Started, 0);
    let Restored::Replaced { aside, .. } = world.restore(good, 0).unwrap() else { panic!() };
    assert!(world.directories.config.is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), "{}");
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(&aside).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_profiles_link_that_leads_out_of_it_is_laid_aside_and_nothing_is_written_through_it() {
    let (home, world, target) = linked("../authorized_keys");
    let good = world.keep("{}", &Why::Started, 0);
    let Restored::Replaced { aside, rejected } = world.restore(good, 0).unwrap() else { panic!() };
    assert_eq!(rejected, None, "what it leads to is not kept");
    assert!(aside.is_symlink() && !world.directories.config.is_symlink());
    assert_eq!(fs::read_to_string(&world.directories.config).unwrap(), "{}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "{broken");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn nothing_is_written_through_a_link_in_an_instances_own_directories() {
    let world = World::new();
    let good = world.keep("{}", &Why::Started, 0);
    let outside = world.data.path().join("outside.json");
    fs::write(&outside, "mine").unwrap();
    symlink(&outside, &world.directories.config).unwrap();
    let Restored::Replaced { rejected: None, aside } = world.restore(good, 0).unwrap() else { panic!() };
    assert_eq!(fs::read_link(aside).unwrap(), outside);
    assert_eq!(fs::read_to_string(&world.directories.config).unwrap(), "{}");
    fs::remove_dir_all(&world.directories.state).unwrap();
    fs::create_dir(world.data.path().join("trap")).unwrap();
    symlink(world.data.path().join("trap"), &world.directories.state).unwrap();
    assert!(matches!(world.restore(good, 0), Err(RestoreError::Write { .. })));
    assert_eq!(fs::read_dir(world.data.path().join("trap")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(outside).unwrap(), "mine");
}
