//! Instances with users of their own, upgraded by a supervisor that runs as root with a umask of its own.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::{Command, Stdio},
};

use nix::unistd::geteuid;
use rusqlite::Connection;
use supervisor_proto::v1::{self, InstanceSpec, Phase};

use crate::{
    support::{Host, program, until},
    world::World,
};

/// A user that no host has.
const USER: u32 = 64_132;

/// A supervisor whose programs are in a directory of this mode, and the gateway where everybody gets. `None` where
/// nobody else can be run as.
async fn world(mode: u32) -> Option<World> {
    if !geteuid().is_root() {
        eprintln!("only root has instances of other users");
        return None;
    }
    let mut world = World { host: Host::prepare() };
    let copy = |name: &str, to: &str| {
        fs::create_dir_all(world.at(to).parent().unwrap()).unwrap();
        fs::copy(program(name), world.at(to)).unwrap();
        fs::set_permissions(world.at(to), Permissions::from_mode(0o755)).unwrap();
    };
    for name in ["openclaw-supervisor", "gateway-worker"] {
        copy(name, &format!("daemon/{name}"));
    }
    copy("builtin-gateway", "real/openclaw");
    for version in ["1.0.0", "2.0.0"] {
        world.version(version, "");
    }
    world.version("3.0.0", "exit=1");
    for path in ["", "real", "1.0.0", "2.0.0", "3.0.0"] {
        fs::set_permissions(world.at(path), Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(world.at("daemon"), Permissions::from_mode(mode)).unwrap();
    start(&mut world).await;
    Some(world)
}

async fn start(world: &mut World) {
    let daemon = world.at("daemon/openclaw-supervisor");
    let data_dir = world.host.data_dir();
    // The gateway, which scripts of scripts name, is opened with all that is on its PATH.
    let [first, gateway] = ["1.0.0", "real"].map(|directory| world.at(directory));
    let path = format!("{}:{}:/usr/bin:/bin", first.display(), gateway.display());
    world.host.spawn_supervisor(|command| {
        *command = Command::new(daemon);
        command.arg("--data-dir").arg(data_dir).env("PATH", path).stdin(Stdio::null());
    });
    until("the supervisor answers", async || world.host.try_instances().await.ok().map(|_| ())).await;
}

/// An instance of the user that runs, with files at several levels and a database.
async fn lab(world: &World) {
    let spec =
        InstanceSpec { runtime: v1::Runtime::Openclaw.into(), user: USER.to_string(), ..Default::default() };
    world.host.create("lab", spec).await;
    world.host.up("lab").await;
    let deep = world.state("lab", "agents/main/sessions");
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir_all(world.state("lab", "state")).unwrap();
    fs::write(deep.join("one.jsonl"), "{}").unwrap();
    fs::write(world.state("lab", "precious"), "lab").unwrap();
    let database = Connection::open(world.state("lab", "state/openclaw.sqlite")).unwrap();
    database.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    drop(database);
    give(&world.state("lab", ""));
}

fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
}

/// How many there are at and below `path`, each of them the user's.
fn is_theirs(path: &Path) -> usize {
    let found = fs::symlink_metadata(path).unwrap();
    assert_eq!((found.uid(), found.gid()), (USER, USER), "{}", path.display());
    match found.is_dir() {
        true => 1 + fs::read_dir(path).unwrap().map(|entry| is_theirs(&entry.unwrap().path())).sum::<usize>(),
        false => 1,
    }
}

/// It runs as its user on this version, and what it has is its user's at every level.
async fn is_well_on(world: &World, version: &str) {
    world.is_on("lab", version).await;
    let status = world.host.status("lab").await;
    let told = fs::read_to_string(format!("/proc/{}/status", status.pid)).unwrap();
    assert!(told.contains(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}")), "{told}");
    assert!(is_theirs(&world.state("lab", "")) > 8);
    assert_eq!(fs::read_to_string(world.state("lab", "agents/main/sessions/one.jsonl")).unwrap(), "{}");
}

fn mode(world: &World, path: &str) -> u32 {
    fs::metadata(world.host.data_dir().join(path)).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn an_instance_of_another_user_is_upgraded_and_put_back_and_its_state_stays_that_users() {
    let Some(mut world) = world(0o755).await else { return };
    lab(&world).await;
    let (code, told) = world.upgrade(&["lab"], "2.0.0", &["--soak", "100ms"]).await;
    assert_eq!(code, 0, "{told}");
    assert!(!told.contains("cannot be shown"), "{told}");
    is_well_on(&world, "2.0.0").await;
    assert_eq!(["", "runtimes"].map(|path| mode(&world, path)), [0o711; 2]);
    let home = "runtimes/openclaw-2.0.0";
    assert_eq!([mode(&world, home), mode(&world, &format!("{home}/bin/openclaw"))], [0o755; 2]);
    // It has run, and not only been forbidden to: its traces are kept.
    let (code, told) = world.upgrade(&["lab"], "3.0.0", &["--soak", "0s"]).await;
    assert!(code == 3 && told.contains("everything is as it was"), "{told}");
    is_well_on(&world, "2.0.0").await;
    assert!(!world.state("lab", "made-by-3.0.0").exists());
    let upgrades = world.host.data_dir().join("instances/lab/upgrades");
    let failed = |path: &Path| path.join("failed/made-by-3.0.0").exists();
    assert!(fs::read_dir(upgrades).unwrap().any(|entry| failed(&entry.unwrap().path())), "{told}");
    // The next supervisor finds nothing to close, and one that an earlier supervisor had closed is opened.
    world.host.kill_supervisor();
    let home = world.host.data_dir().join(home);
    for path in [&home.join("bin/openclaw"), &home.join("bin"), &home, home.parent().unwrap()] {
        fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    }
    start(&mut world).await;
    world.host.wait_ready("lab").await;
    world.host.down("lab").await;
    world.host.up("lab").await;
    is_well_on(&world, "2.0.0").await;
    assert_eq!(mode(&world, "runtimes"), 0o711);
}

#[tokio::test]
async fn what_a_user_does_not_get_at_is_told_before_anything_is_stopped() {
    let Some(world) = world(0o700).await else { return };
    lab(&world).await;
    let before = world.host.status("lab").await;
    // Its program.
    fs::set_permissions(world.at("2.0.0"), Permissions::from_mode(0o700)).unwrap();
    let (code, told) = world.upgrade(&["lab"], "2.0.0", &["--soak", "0s"]).await;
    let closed = |file: &str, at: &str| {
        let (file, at) = (world.at(file), world.at(at));
        format!("`{}` cannot be opened by user {USER}: `{}` is closed to it", file.display(), at.display())
    };
    assert!(code == 3 && told.contains(&closed("2.0.0/openclaw", "2.0.0")), "{told}");
    assert!(
        told.contains("nothing was done") && told.contains("install it where that user gets at it"),
        "{told}"
    );
    let after = world.host.status("lab").await;
    assert_eq!((after.pid, after.phase()), (before.pid, Phase::Ready));
    // The supervisor's own, which shows it the database.
    fs::set_permissions(world.at("2.0.0"), Permissions::from_mode(0o755)).unwrap();
    let (code, told) = world.upgrade(&["lab"], "2.0.0", &["--soak", "0s"]).await;
    assert_eq!(code, 0, "{told}");
    let note = closed("daemon/openclaw-supervisor", "daemon");
    assert!(told.contains(&format!("its database cannot be shown to it beforehand: {note}")), "{told}");
    is_well_on(&world, "2.0.0").await;
}

/// OpenClaw is asked beside the first start, and again beside a gateway that runs if it has not answered.
#[tokio::test]
async fn what_a_user_has_is_not_taken_from_it_to_ask_its_runtime_what_it_can_do() {
    let Some(world) = world(0o755).await else { return };
    let program = world.at("1.0.0/openclaw");
    let asked = "#!/bin/sh\n[ \"$2\" != restart-handoff ] || : >\"$OPENCLAW_STATE_DIR/asked\"\n";
    let text = fs::read_to_string(&program).unwrap().replacen("#!/bin/sh\n", asked, 1);
    fs::write(program, text).unwrap();
    lab(&world).await;
    let asked = world.state("lab", "asked");
    until("the runtime is asked as its user", async || asked.exists().then_some(())).await;
    is_well_on(&world, "1.0.0").await;
}
