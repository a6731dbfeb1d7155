//! On a directory that stands for a ground, with the files that the kernel would have made. What the kernel then does
//! is tried where it is (`tests/cgroup.rs`).

use supervisor_proto::worker::{
    Wall,
    wall::{Kind, State},
};
use tempfile::TempDir;

use super::*;
use crate::spec::{Bytes, Limits, Memory};

const STORE: &str = "0190b5d0";

/// A stand-in for a ground.
struct World {
    directory: TempDir,
    groups: Groups,
}

impl World {
    fn new(seat: Seat, offered: &str, elsewhere: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(OFFERED), offered).unwrap();
        fs::write(directory.path().join(APPLIED), "").unwrap();
        let elsewhere = elsewhere.iter().map(|name| (*name).to_owned()).collect();
        let ground = Ground { directory: directory.path().to_owned(), seat, elsewhere };
        let groups = Groups(Arc::new(Inner { store: STORE.to_owned(), ground: Ok(ground) }));
        Self { directory, groups }
    }

    fn group(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("gateway-{name}-{STORE}"))
    }

    /// The files that the kernel makes in a group by these controllers.
    fn furnish(&self, name: &str, files: &[&str]) {
        let group = self.group(name);
        fs::create_dir_all(&group).unwrap();
        let all = ["cgroup.kill", "cgroup.events", "cgroup.max.descendants"];
        for file in all.iter().chain(files) {
            fs::write(group.join(file), "").unwrap();
        }
    }

    fn read(&self, name: &str, file: &str) -> String {
        fs::read_to_string(self.group(name).join(file)).unwrap()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn spec() -> InstanceSpec {
    let memory = Memory { hard_limit: Some(Bytes::mib(64)), ..Memory::default() };
    let limits = Limits { processes: Some(300), cpu_permille: Some(500), ..Limits::default() };
    InstanceSpec { memory, limits, ..InstanceSpec::default() }
}

/// What its worker says of a life that is in its group and behind the wall of its files.
fn reported() -> Vec<Wall> {
    let wall = |kind: Kind| Wall { kind: kind.into(), state: State::Enforced.into(), reason: String::new() };
    vec![wall(Kind::Files), wall(Kind::Cgroup)]
}

const ALL: [&str; 4] = ["memory.swap.max", "memory.max", "cpu.max", "pids.max"];

#[test]
fn a_group_is_emptied_and_bounded_before_anything_is_started_in_it() {
    let world = World::new(Seat::Beside, "cpuset cpu io memory pids\n", &[]);
    world.furnish("main", &ALL);
    let group = world.groups.prepare(&name("main"), &spec()).unwrap();
    assert_eq!(group, world.group("main"));
    assert_eq!(world.read("main", "cgroup.kill"), "1");
    assert_eq!(world.read("main", "memory.max"), (64u64 << 20).to_string());
    assert_eq!(world.read("main", "memory.swap.max"), "0");
    assert_eq!(world.read("main", "cpu.max"), "50000 100000");
    assert_eq!(world.read("main", "pids.max"), "300");
    let wall = world.groups.standing(&name("main"), &spec(), &reported()).unwrap();
    assert_eq!((wall.state(), &*wall.reason), (State::Enforced, ""));
}

#[test]
fn controllers_are_applied_once_each_and_none_that_no_bound_is_made_of() {
    let world = World::new(Seat::Beside, "cpuset cpu io memory pids\n", &[]);
    world.furnish("main", &ALL);
    let applied = world.directory.path().join(APPLIED);
    fs::write(&applied, "memory pids").unwrap();
    world.groups.prepare(&name("main"), &spec()).unwrap();
    // The kernel would have added it to the others.
    assert!(fs::read_to_string(&applied).unwrap().starts_with("+cpu"));
    fs::write(&applied, "cpu memory pids").unwrap();
    world.groups.prepare(&name("main"), &spec()).unwrap();
    assert_eq!(fs::read_to_string(&applied).unwrap(), "cpu memory pids", "nothing is left to apply");
}

#[test]
fn a_supervisor_in_the_ground_itself_applies_none_lest_the_next_one_be_refused() {
    let world = World::new(Seat::Within, "cpu memory pids\n", &[]);
    world.furnish("main", &[]);
    world.groups.prepare(&name("main"), &spec()).unwrap();
    assert_eq!(fs::read_to_string(world.directory.path().join(APPLIED)).unwrap(), "");
    let wall = world.groups.standing(&name("main"), &spec(), &reported()).unwrap();
    assert_eq!(wall.state(), State::Partial);
    assert!(wall.reason.starts_with("`memory.hard_limit` is only looked at every 30s, "), "{}", wall.reason);
    assert!(wall.reason.contains("itself, and not in `supervisor` below it"), "{}", wall.reason);
}

#[test]
fn what_holds_is_read_from_the_group_and_what_does_not_is_told_with_its_reason() {
    let world = World::new(Seat::Beside, "pids\n", &["memory"]);
    world.furnish("main", &["pids.max"]);
    world.groups.prepare(&name("main"), &spec()).unwrap();
    let wall = world.groups.standing(&name("main"), &spec(), &reported()).unwrap();
    assert_eq!(wall.state(), State::Partial);
    let memory = "`memory.hard_limit` is only looked at every 30s: the host has given `memory` to cgroup v1, which is \
                  not supported";
    assert!(wall.reason.contains(memory), "{}", wall.reason);
    let cpu = "`limits.cpu_permille` is not kept: `";
    assert!(
        wall.reason.contains(cpu) && wall.reason.contains("is given no controller `cpu`"),
        "{}",
        wall.reason
    );
    // Nobody was promised more than a bound of processes, and that holds.
    let modest = InstanceSpec { limits: spec().limits, ..InstanceSpec::default() };
    let modest = InstanceSpec { limits: Limits { cpu_permille: None, ..modest.limits }, ..modest };
    let wall = world.groups.standing(&name("main"), &modest, &reported()).unwrap();
    assert_eq!((wall.state(), &*wall.reason), (State::Enforced, ""));
}

#[test]
fn who_can_write_to_its_group_can_leave_it_and_that_is_told() {
    let world = World::new(Seat::Beside, "cpu memory pids\n", &[]);
    world.furnish("main", &ALL);
    world.groups.prepare(&name("main"), &spec()).unwrap();
    let open: Vec<Wall> = reported().into_iter().filter(|wall| wall.kind() == Kind::Cgroup).collect();
    let wall = world.groups.standing(&name("main"), &spec(), &open).unwrap();
    assert_eq!(wall.state(), State::Partial);
    assert_eq!(wall.reason, "it can leave its group, as its files are not walled");
}

#[test]
fn without_a_ground_only_what_was_asked_for_is_missed() {
    let why = "no cgroup v2 is mounted here".to_owned();
    let groups = Groups(Arc::new(Inner { store: STORE.to_owned(), ground: Err(why) }));
    let walled: Vec<Wall> = reported().into_iter().filter(|wall| wall.kind() == Kind::Files).collect();
    assert_eq!(groups.prepare(&name("main"), &spec()), None);
    assert_eq!(groups.standing(&name("main"), &InstanceSpec::default(), &walled), None);
    let wall = groups.standing(&name("main"), &spec(), &walled).unwrap();
    assert_eq!(wall.state(), State::Unavailable);
    assert!(wall.reason.contains("`limits.cpu_permille` is not kept"), "{}", wall.reason);
    assert!(wall.reason.ends_with(": no cgroup v2 is mounted here"), "{}", wall.reason);
    // One that runs in the group that the supervisor before had is as that one left it.
    assert_eq!(groups.standing(&name("main"), &spec(), &reported()), reported().pop());
}

#[test]
fn one_that_could_not_join_its_group_or_is_from_before_is_told_so() {
    let world = World::new(Seat::Beside, "memory\n", &[]);
    let failed = Wall { kind: Kind::Cgroup.into(), state: State::Unavailable.into(), reason: "EROFS".into() };
    let standing = |reported: &[Wall]| world.groups.standing(&name("main"), &spec(), reported);
    assert_eq!(standing(std::slice::from_ref(&failed)), Some(failed));
    let walled: Vec<Wall> = reported().into_iter().filter(|wall| wall.kind() == Kind::Files).collect();
    assert!(standing(&walled).unwrap().reason.contains("restart it"));
    assert_eq!(standing(&[]), None, "its worker knows no walls at all");
}

#[test]
fn bounds_that_are_gone_from_the_spec_are_taken_away() {
    let world = World::new(Seat::Beside, "cpu memory pids\n", &[]);
    world.furnish("main", &ALL);
    world.groups.prepare(&name("main"), &spec()).unwrap();
    for file in ALL {
        fs::write(world.group("main").join(file), "").unwrap();
    }
    world.groups.renew(&name("main"), &InstanceSpec::default());
    assert_eq!(world.read("main", "memory.max"), "max");
    assert_eq!(world.read("main", "cpu.max"), "max 100000");
}

#[test]
fn groups_of_instances_that_are_gone_are_removed_and_no_others() {
    let world = World::new(Seat::Beside, "", &[]);
    let strange = world.directory.path().join("gateway-gone-otherstore");
    for group in [world.group("main"), world.group("gone"), strange.clone()] {
        fs::create_dir(group).unwrap();
    }
    world.groups.tidy([name("main")].iter());
    assert!(world.group("main").exists() && strange.exists() && !world.group("gone").exists());
    world.groups.remove(&name("main"));
    assert!(!world.group("main").exists());
    world.groups.remove(&name("main"));
}
