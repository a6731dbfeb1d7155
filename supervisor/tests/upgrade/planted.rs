//! What an agent has planted in its state before an upgrade, and what does not come of it.

use std::{
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, chown},
    },
    path::Path,
};

use nix::unistd::geteuid;
use rusqlite::Connection;
use supervisor_proto::v1::{self, InstanceSpec};

use crate::{
    support::{processes, until},
    world::World,
};

/// Deeper than any directory that is handed over or copied.
const DEEP: usize = 200;

/// The processes that copy `database`.
fn copying(database: &Path) -> Option<i32> {
    let words = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_it = |words: &[u8]| {
        let mut words = words.split(|byte| *byte == 0).skip(1);
        words.next() == Some(b"consolidate") && words.next() == Some(database.as_os_str().as_bytes())
    };
    processes().find(|pid| is_it(&words(pid)))
}

/// Whoever swaps a directory of its state for a link while the database is copied has the copy shown to itself.
#[tokio::test]
async fn a_database_is_copied_by_a_process_behind_the_walls_of_its_instance() {
    let world = World::new().await;
    world.version("2.0.0", "");
    world
        .host
        .create("main", InstanceSpec { runtime: v1::Runtime::Openclaw.into(), ..Default::default() })
        .await;
    world.host.up("main").await;
    let database = world.state("main", "state/openclaw.sqlite");
    fs::create_dir_all(database.parent().unwrap()).unwrap();
    let writer = Connection::open(&database).unwrap();
    writer.execute_batch("CREATE TABLE t (x); BEGIN EXCLUSIVE").unwrap();
    let asked = world.begin("main", "2.0.0", "0s");
    let copying = until("it is copied", async || copying(&database)).await;
    let status = fs::read_to_string(format!("/proc/{copying}/status")).unwrap();
    writer.execute_batch("COMMIT").unwrap();
    let (code, told) = World::told(asked.wait_with_output().unwrap());
    assert_eq!(code, 0, "{told}");
    assert!(!told.contains("cannot be shown"), "{told}");
    for wall in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(wall), "{status}");
    }
}

#[tokio::test]
async fn a_program_that_runs_as_its_owner_does_not_become_roots_by_an_upgrade_however_deep_it_lies() {
    if !geteuid().is_root() {
        eprintln!("only root has instances of other users");
        return;
    }
    let world = World::new().await;
    world.version("2.0.0", "exit=1");
    const USER: u32 = 64_131;
    let all =
        [world.host.directory.path().to_owned(), world.at("real"), world.at("1.0.0"), world.at("2.0.0")];
    for path in all {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let walls = Some(v1::WallPolicy { files: Some(false), ..Default::default() });
    let spec = InstanceSpec {
        runtime: v1::Runtime::Openclaw.into(),
        user: USER.to_string(),
        walls,
        ..Default::default()
    };
    world.host.create("lab", spec).await;
    world.host.up("lab").await;
    let deep = world.state("lab", &"d/".repeat(DEEP / 2));
    fs::create_dir_all(&deep).unwrap();
    let planted = deep.join("sh");
    fs::copy("/bin/sh", &planted).unwrap();
    for path in planted.ancestors().take(DEEP / 2 + 1) {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    fs::set_permissions(&planted, Permissions::from_mode(0o6755)).unwrap();
    let (code, told) = world.upgrade(&["lab"], "2.0.0", &["--soak", "0s"]).await;
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("everything is as it was"), "{told}");
    let found = fs::metadata(&planted).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (USER, 0o755));
}
