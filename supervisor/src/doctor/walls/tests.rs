use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use supervisor_proto::worker::Wall;

use super::*;
use crate::{
    doctor::tests::World,
    spec::{Bytes, InstanceSpec, Memory, Runtime, Walls},
};

fn wall(kind: Kind, state: State, reason: &str) -> Wall {
    Wall { kind: kind.into(), state: state.into(), reason: reason.into() }
}

#[test]
fn a_wall_that_several_lack_is_one_finding() {
    let mut world = World::new();
    world.instance("main", 20_000).instance("rescue", 20_020).instance("lab", 20_040);
    let ports = "this kernel's Landlock (ABI 3) knows no ports";
    for (name, state) in
        [("main", State::Unavailable), ("rescue", State::Unavailable), ("lab", State::Enforced)]
    {
        world.walls(name, vec![wall(Kind::Ports, state, ports), wall(Kind::Files, State::Enforced, "")]);
    }
    let found = world.check(missing);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].what, format!("the wall around its ports is not there: {ports}"));
    let names: Vec<&str> = found[0].instances.iter().map(|name| &**name).collect();
    assert_eq!(names, ["main", "rescue"]);
}

#[test]
fn a_life_that_was_killed_for_memory_is_told_with_what_it_may_have() {
    let mut world = World::new();
    let memory = Memory { hard_limit: Some(Bytes::mib(512)), ..Memory::default() };
    world.add("lab", 20_000, InstanceSpec { memory, ..InstanceSpec::default() });
    world.instance("main", 20_020);
    assert_eq!(world.check(out_of_memory), []);
    world.out_of_memory("lab");
    let found = world.check(out_of_memory);
    let what = "the last life of `lab` was killed by the kernel for memory, of which it may have 512MiB";
    assert_eq!((found.len(), &*found[0].what), (1, what));
}

#[test]
fn a_kernel_that_was_started_without_landlock_is_told_how_to_be_started() {
    let world = World::new();
    assert_eq!(world.check(kernel), [], "nothing is known of it");
    world.write("root/sys/kernel/security/lsm", "capability,landlock,yama");
    assert_eq!(world.check(kernel), []);
    world.write("root/sys/kernel/security/lsm", "capability,yama\n");
    let found = world.check(kernel);
    assert_eq!(found[0].mend, Mend::Do("start it with `lsm=landlock,capability,yama`".into()));
}

#[test]
fn a_workspace_behind_the_wall_is_told_with_its_line() {
    let mut world = World::new();
    world.instance("main", 20_000);
    let config = world.config("main", "{\n  agents: { defaults: { workspace: '/srv/work' } }\n}");
    let found = world.check(outside);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].what, "`/srv/work` of `main` lies behind the wall around its files");
    assert_eq!(
        (found[0].file.as_deref(), found[0].place.map(|place| place.line)),
        (Some(config.as_path()), Some(2))
    );
    let mut world = World::new();
    let walls = Walls { write: vec!["/srv".into()], ..Walls::default() };
    world.add("main", 20_000, InstanceSpec { walls, ..InstanceSpec::default() });
    world.config("main", "{agents: {defaults: {workspace: '/srv/work'}}}");
    assert_eq!(world.check(outside), [], "it is granted");
}

#[test]
fn the_directory_that_openclaw_prefers_to_its_own_is_told_of_while_it_is_fit() {
    let mut world = World::new();
    let shared = world.at("root/tmp/openclaw");
    fs::create_dir_all(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o700)).unwrap();
    let spec = |runtime, files| {
        let walls = Walls { files: Some(files), ..Walls::default() };
        InstanceSpec { runtime: Some(runtime), walls, ..InstanceSpec::default() }
    };
    world.add("lab", 20_020, spec(Runtime::Builtin, true));
    world.add("open", 20_040, spec(Runtime::Openclaw, false));
    assert_eq!(world.check(outside), [], "it is not of OpenClaw, or not closed to it");
    world.add("main", 20_000, spec(Runtime::Openclaw, true));
    let found = world.check(outside);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.contains("prefers it to its TMPDIR"), "{}", found[0].what);
    assert_eq!(found[0].mend, Mend::Type("openclawctl restart main".into()));
    assert_eq!(found[0].instances.iter().map(|name| &**name).collect::<Vec<_>>(), ["main"]);
    fs::set_permissions(&shared, Permissions::from_mode(0o720)).unwrap();
    assert_eq!(world.check(outside), [], "OpenClaw makes do with another");
}
