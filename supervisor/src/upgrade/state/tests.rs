//! States that are copied, damaged, and put back, also by supervisors that are killed in between.

use std::{
    collections::BTreeMap,
    fs::Permissions,
    os::unix::{
        fs::{PermissionsExt, chown, lchown, symlink},
        net::UnixListener,
    },
    time::SystemTime,
};

use nix::unistd::geteuid;
use supervisor_core::ids::Name;

use super::*;
use crate::spec::{Profile, UserName};

struct World {
    _data: tempfile::TempDir,
    directories: Directories,
    spec: InstanceSpec,
}

/// Whatever can be told of a tree: content or target, mode, and time of change.
type Tree = BTreeMap<PathBuf, (String, u32, Option<SystemTime>)>;

fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let within = path.strip_prefix(root).unwrap().to_owned();
            if about.is_symlink() {
                let target = fs::read_link(&path).unwrap().display().to_string();
                found.insert(within, (target, 0, None));
            } else if about.is_dir() {
                found.insert(within, (String::new(), about.mode() & 0o7777, about.modified().ok()));
                directories.push(path);
            } else if about.is_file() {
                let content = fs::read_to_string(&path).unwrap();
                found.insert(within, (content, about.mode() & 0o7777, about.modified().ok()));
            }
        }
    }
    found
}

impl World {
    fn new(profile: Option<&Profile>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let name = Name::new("main").unwrap();
        let directories = Directories::at(data.path(), &name, profile);
        for directory in ["state/agents/main/sessions", "logs", "workspace", "cache", "tmp"] {
            fs::create_dir_all(directories.state.join(directory)).unwrap();
        }
        fs::create_dir_all(&directories.root).unwrap();
        let world = Self { _data: data, directories, spec: InstanceSpec::default() };
        world.write("openclaw.json", "{}");
        world.write("state/agents/main/sessions/a.jsonl", "hello");
        world.write("state/openclaw.sqlite", "old schema");
        world.write("logs/gateway.log", "a line");
        world.write("workspace/notes.md", "mine");
        world.write("cache/big", "x");
        symlink("/nowhere", world.directories.state.join("link")).unwrap();
        fs::set_permissions(world.directories.state.join("openclaw.json"), Permissions::from_mode(0o600))
            .unwrap();
        fs::set_permissions(world.directories.state.join("state"), Permissions::from_mode(0o700)).unwrap();
        world
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.directories.state.join(path), text).unwrap();
    }

    fn plan(&self, number: u64) -> Kept {
        Kept::plan(&self.directories, &self.spec, "main", number).unwrap()
    }

    fn tree(&self) -> Tree {
        tree(&self.directories.state)
    }

    /// What a new version does to a state.
    fn spoil(&self) {
        self.write("state/openclaw.sqlite", "new schema");
        fs::remove_file(self.directories.state.join("openclaw.json")).unwrap();
        self.write("new", "new");
        self.write("logs/gateway.log", "a line\nanother");
        self.write("workspace/notes.md", "mine, and more");
    }
}

/// Without what is made anew, and with people's work as it is now.
fn expected(before: &Tree, now: &Tree) -> Tree {
    let first = |path: &Path| path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    let peoples = |path: &PathBuf| PEOPLES.contains(&first(path).as_str());
    let kept = before.iter().filter(|(path, _)| !peoples(path) && !PASSING.contains(&first(path).as_str()));
    let stays = now.iter().filter(|(path, _)| peoples(path));
    kept.chain(stays).map(|(path, about)| (path.clone(), about.clone())).collect()
}

#[test]
fn a_state_is_put_back_byte_for_byte_and_nobodys_work_is_lost() {
    let world = World::new(None);
    let _socket = UnixListener::bind(world.directories.state.join("socket")).unwrap();
    let before = world.tree();
    let kept = world.plan(1);
    kept.copy().unwrap();
    assert_eq!(world.tree(), before, "a copy changes nothing");
    world.spoil();
    let spoilt = world.tree();
    kept.put_back().unwrap();
    assert_eq!(world.tree(), expected(&before, &spoilt));
    let failed = kept.failed().unwrap();
    assert_eq!(fs::read_to_string(failed.join("state/openclaw.sqlite")).unwrap(), "new schema");
    kept.put_back().unwrap();
    assert_eq!(world.tree(), expected(&before, &spoilt), "a second time changes nothing");
}

#[test]
fn a_profile_has_its_copy_with_its_other_directories_and_its_configuration_back_wherever_that_is() {
    let home = tempfile::tempdir().unwrap();
    let profile = Profile {
        state_dir: Some(home.path().join(".openclaw")),
        config: Some(home.path().join("elsewhere.json")),
        workspace: Some(home.path().join(".openclaw/mine")),
    };
    let world = World::new(Some(&profile));
    fs::create_dir(home.path().join(".openclaw/mine")).unwrap();
    fs::write(home.path().join("elsewhere.json"), "good").unwrap();
    let before = world.tree();
    let kept = world.plan(7);
    kept.copy().unwrap();
    world.spoil();
    fs::write(home.path().join(".openclaw/mine/new"), "work").unwrap();
    fs::write(home.path().join("elsewhere.json"), "migrated").unwrap();
    kept.put_back().unwrap();
    let now = world.tree();
    assert_eq!(now[Path::new("mine/new")].0, "work");
    assert_eq!(now[Path::new("state/openclaw.sqlite")], before[Path::new("state/openclaw.sqlite")]);
    assert_eq!(fs::read_to_string(home.path().join("elsewhere.json")).unwrap(), "good");
    assert!(world.directories.root.join("upgrades/7/failed").is_dir());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2, "nothing is left beside it");
}

fn profile(home: &Path, config: &str) -> Profile {
    let (state_dir, config) = (Some(home.join(".openclaw")), Some(home.join(config)));
    Profile { state_dir, config, ..Profile::default() }
}

#[test]
fn a_directory_that_an_agent_swaps_for_a_link_is_neither_copied_from_nor_written_to() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().canonicalize().unwrap().join(path);
    for directory in ["settings", "others"] {
        fs::create_dir(at(directory)).unwrap();
        fs::write(at(directory).join("openclaw.json"), directory).unwrap();
    }
    let world = World::new(Some(&profile(home.path(), "settings/openclaw.json")));
    let kept = world.plan(1);
    let swap = || {
        fs::rename(at("settings"), at("away")).unwrap();
        symlink(at("others"), at("settings")).unwrap();
    };
    let swap_back = || {
        fs::remove_file(at("settings")).unwrap();
        fs::rename(at("away"), at("settings")).unwrap();
    };
    swap();
    kept.copy().unwrap_err();
    swap_back();
    kept.copy().unwrap();
    fs::write(at("settings/openclaw.json"), "migrated").unwrap();
    swap();
    kept.put_back().unwrap_err();
    assert_eq!(fs::read_to_string(at("others/openclaw.json")).unwrap(), "others");
    swap_back();
    kept.put_back().unwrap();
    assert_eq!(fs::read_to_string(at("settings/openclaw.json")).unwrap(), "settings");
}

/// A profile of another user; `None` where nobody can have one.
fn of_another_user(home: &Path, config: &str) -> Option<World> {
    if !geteuid().is_root() {
        eprintln!("nothing is tried here: it takes root to have an instance of another user");
        return None;
    }
    let mut world = World::new(Some(&profile(home, config)));
    world.spec.user = Some(UserName(THEIRS.to_string()));
    world.directories.user = world.spec.user.clone();
    fs::set_permissions(home, Permissions::from_mode(0o755)).unwrap();
    chown(&world.directories.state, Some(THEIRS), Some(THEIRS)).unwrap();
    Some(world)
}

/// Users that nobody is.
const THEIRS: u32 = 64_151;
const ANOTHERS: u32 = 64_152;

#[test]
fn a_configuration_that_the_user_of_a_profile_may_not_read_is_neither_kept_nor_put_back_for_it() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().canonicalize().unwrap().join(path);
    let Some(world) = of_another_user(home.path(), "settings/openclaw.json") else { return };
    for (directory, owner) in [("settings", THEIRS), ("others", ANOTHERS)] {
        fs::create_dir(at(directory)).unwrap();
        let file = at(directory).join("openclaw.json");
        fs::write(&file, directory).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        for path in [file, at(directory)] {
            chown(path, Some(owner), Some(owner)).unwrap();
        }
    }
    // What is at the path is another's when the copy is planned, and when it is made.
    let swap = |away: &str, there: &str| {
        fs::rename(at("settings"), at(away)).unwrap();
        fs::rename(at(there), at("settings")).unwrap();
    };
    swap("away", "others");
    let error = world.plan(1).copy().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    swap("others", "away");
    let kept = world.plan(1);
    kept.copy().unwrap();
    fs::write(at("settings/openclaw.json"), "migrated").unwrap();
    swap("away", "others");
    assert_eq!(kept.put_back().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(fs::read_to_string(at("settings/openclaw.json")).unwrap(), "others");
    swap("others", "away");
    kept.put_back().unwrap();
    assert_eq!(fs::read_to_string(at("settings/openclaw.json")).unwrap(), "settings");
    assert_eq!(fs::metadata(at("settings/openclaw.json")).unwrap().uid(), THEIRS);
}

#[test]
fn a_directory_of_another_user_in_the_place_of_a_state_is_not_moved_away_for_it() {
    let home = tempfile::tempdir().unwrap();
    let Some(world) = of_another_user(home.path(), ".openclaw/openclaw.json") else { return };
    let (state, before) = (world.directories.state.clone(), world.tree());
    let away = state.with_file_name("away");
    let others = || {
        fs::rename(&state, &away).unwrap();
        fs::create_dir(&state).unwrap();
        fs::write(state.join("secret"), "").unwrap();
        chown(&state, Some(ANOTHERS), Some(ANOTHERS)).unwrap();
    };
    let back = || {
        assert_eq!(fs::metadata(&state).unwrap().uid(), ANOTHERS, "it was moved");
        fs::remove_dir_all(&state).unwrap();
        fs::rename(&away, &state).unwrap();
    };
    let kept = world.plan(1);
    others();
    let refused = Kept::plan(&world.directories, &world.spec, "main", 1).unwrap_err();
    assert!(matches!(refused, Unfit::Foreign { owner: ANOTHERS, .. }), "{refused}");
    assert!(kept.copy().unwrap_err().to_string().contains("belongs to user 64152"));
    back();
    kept.copy().unwrap();
    world.spoil();
    others();
    assert!(kept.put_back().unwrap_err().to_string().contains("belongs to user 64152"));
    assert!(kept.failed().is_none());
    // Nor is one without anything in it.
    fs::remove_file(state.join("secret")).unwrap();
    assert!(kept.put_back().is_err());
    back();
    kept.put_back().unwrap();
    assert_eq!(world.tree(), expected(&before, &world.tree()));
}

#[test]
fn a_state_where_others_may_put_something_in_its_place_is_not_copied() {
    let home = tempfile::tempdir().unwrap();
    let world = World::new(Some(&profile(home.path(), ".openclaw/openclaw.json")));
    let mode = |mode| fs::set_permissions(home.path(), Permissions::from_mode(mode)).unwrap();
    let kept = world.plan(1);
    kept.copy().unwrap();
    world.spoil();
    let is_refused = || {
        let refused = Kept::plan(&world.directories, &world.spec, "main", 1).unwrap_err();
        assert!(refused.to_string().contains("where other users may write"), "{refused}");
        kept.put_back().unwrap_err();
        assert!(kept.failed().is_none(), "it was moved");
    };
    mode(0o1777);
    is_refused();
    // A group that others are in, as far as this user may give it one.
    if geteuid().is_root() {
        chown(home.path(), None, Some(THEIRS)).unwrap();
        mode(0o770);
        is_refused();
        chown(home.path(), None, Some(0)).unwrap();
    }
    mode(0o770);
    world.plan(2);
    mode(0o700);
    kept.put_back().unwrap();
    assert!(kept.failed().is_some());
}

#[test]
fn a_copy_beside_the_state_of_another_user_is_that_users_work() {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let at = |path: &str| home.path().join(path);
    let Some(mut world) = of_another_user(home.path(), ".openclaw/openclaw.json") else { return };
    if fs::metadata(home.path()).unwrap().dev() == fs::metadata(&world.directories.root).unwrap().dev() {
        eprintln!("this host has no two file systems that anybody may write to");
        return;
    }
    fs::create_dir(at("way")).unwrap();
    fs::rename(&world.directories.state, at("way/.openclaw")).unwrap();
    world.directories.state = at("way/.openclaw");
    world.directories.config = at("way/.openclaw/openclaw.json");
    give(&at("way"));
    let kept = [1, 2, 3].map(|number| world.plan(number));
    kept[0].copy().unwrap();
    let copies = at("way/.openclawctl-upgrades-main");
    assert_eq!(fs::metadata(&copies).unwrap().uid(), THEIRS);
    // He leads the next ones, and what is removed of the old ones, to where only root may write.
    for number in ["1", "2", "3", "4"] {
        fs::create_dir_all(at("roots").join(number)).unwrap();
    }
    fs::rename(&copies, at("way/away")).unwrap();
    symlink(at("roots"), &copies).unwrap();
    kept[1].copy().unwrap_err();
    assert!(kept[1].prune().is_err());
    assert_eq!(fs::read_dir(at("roots")).unwrap().count(), 4);
    // The whole way, likewise.
    fs::rename(at("way"), at("before")).unwrap();
    symlink(at("roots"), at("way")).unwrap();
    kept[2].copy().unwrap_err();
    let _ = kept[2].prune();
    assert_eq!(fs::read_dir(at("roots")).unwrap().count(), 4);
}

fn give(path: &Path) {
    lchown(path, Some(THEIRS), Some(THEIRS)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
}

#[test]
fn a_copy_that_would_lie_in_the_hands_of_the_instance_is_not_made() {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let world = World::new(Some(&profile(home.path(), ".openclaw/openclaw.json")));
    if fs::metadata(home.path()).unwrap().dev() == fs::metadata(&world.directories.root).unwrap().dev() {
        eprintln!("this host has no two file systems that anybody may write to");
        return;
    }
    world.plan(1).copy().unwrap();
    assert!(home.path().join(".openclawctl-upgrades-main/1/before").is_dir());
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let world = World::new(Some(&profile(home.path(), "openclaw.json")));
    fs::write(home.path().join("openclaw.json"), "{}").unwrap();
    let refused = Kept::plan(&world.directories, &world.spec, "main", 1).unwrap_err();
    assert!(refused.to_string().contains("in the instance's own hands"), "{refused}");
}

#[test]
fn a_state_that_cannot_be_copied_is_told_with_what_to_type() {
    let home = tempfile::tempdir().unwrap();
    let (state, others) = (home.path().join(".openclaw"), home.path().join("others"));
    let mut world = World::new(Some(&profile(home.path(), ".openclaw/openclaw.json")));
    let told =
        |world: &World| Kept::plan(&world.directories, &world.spec, "main", 1).unwrap_err().to_string();
    let user = |name: &str| Some(UserName(name.to_owned()));
    if geteuid().is_root() {
        fs::rename(&state, &others).unwrap();
        symlink(&others, &state).unwrap();
        world.spec.user = user("54321");
        let (others, link) = (others.canonicalize().unwrap(), state.display());
        let sentence = format!(
            "its state `{0}` belongs to user 0 and not to the instance's; if a link has led there (`ls -ld {link}`), remove \
             that, and if it is this instance's, type `chown -hR 54321 {0}`",
            others.display()
        );
        assert_eq!(told(&world), sentence);
        fs::remove_file(&state).unwrap();
        fs::rename(others, &state).unwrap();
    }
    world.spec.user = user("nobody-has-this");
    assert!(told(&world).contains("`useradd --system nobody-has-this`"), "{}", told(&world));
    world.spec.user = None;
    fs::remove_dir_all(&state).unwrap();
    assert!(
        told(&world).ends_with(&format!("; see what is there with `ls -la {}`", state.display())),
        "{}",
        told(&world)
    );
}

#[test]
fn a_copy_that_was_broken_off_is_made_anew() {
    let world = World::new(None);
    let before = world.tree();
    let kept = world.plan(1);
    fs::create_dir_all(kept.aside.join(PARTIAL).join("state")).unwrap();
    fs::write(kept.aside.join(PARTIAL).join("state/half"), "half").unwrap();
    kept.put_back().unwrap();
    assert_eq!(world.tree(), before, "half a copy is none");
    kept.copy().unwrap();
    world.spoil();
    // A copy that is complete is never made again: this is the new version's state.
    kept.copy().unwrap();
    let spoilt = world.tree();
    kept.put_back().unwrap();
    assert_eq!(world.tree(), expected(&before, &spoilt));
}

#[test]
fn putting_back_goes_on_wherever_it_was_broken_off() {
    for broken_off in 0..3 {
        let world = World::new(None);
        let before = world.tree();
        let kept = world.plan(1);
        kept.copy().unwrap();
        world.spoil();
        let spoilt = world.tree();
        let (failed, copy) = (kept.aside.join(FAILED), kept.aside.join(BEFORE));
        fs::rename(&world.directories.state, &failed).unwrap();
        if broken_off > 0 {
            fs::rename(failed.join("logs"), copy.join("logs")).unwrap();
        }
        if broken_off > 1 {
            // Somebody has looked for the state meanwhile, and made an empty one.
            fs::create_dir(&world.directories.state).unwrap();
        }
        kept.put_back().unwrap();
        assert_eq!(world.tree(), expected(&before, &spoilt), "{broken_off}");
    }
}

#[test]
fn a_state_that_has_no_room_is_not_copied() {
    let world = World::new(None);
    let error = has_room(&world.directories.state, 8 << 40).unwrap_err();
    assert!(
        error.to_string().starts_with("there is no room for a copy of its state: it has 8388"),
        "{error}"
    );
    // What is not copied needs none, and what has never been written neither.
    let before = world.plan(1).needed().unwrap();
    fs::write(world.directories.state.join("cache/large"), vec![1; 1 << 20]).unwrap();
    File::create(world.directories.state.join("huge")).unwrap().set_len(8 << 40).unwrap();
    assert!(world.plan(1).needed().unwrap() < before + (1 << 20));
}

#[test]
fn only_the_last_copies_are_kept() {
    let world = World::new(None);
    for number in [9, 10, 11, 12] {
        world.plan(number).copy().unwrap();
    }
    fs::create_dir(world.directories.root.join("upgrades/mine")).unwrap();
    world.plan(12).prune().unwrap();
    let mut names: Vec<_> = fs::read_dir(world.directories.root.join("upgrades"))
        .unwrap()
        .map(|one| one.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["11", "12", "mine"]);
}
