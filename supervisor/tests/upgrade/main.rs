//! Instances moved to another version and back, with a real daemon, real gateways and the real command line.
//!
//! The gateway is the built-in one under the name of `openclaw`. Each version is a script of its own that writes into
//! the state directory, as a migration does, and can be told to wait or to die.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod planted;
mod users;
mod world;

use std::{
    fs,
    process::{Command, Stdio},
    sync::Arc,
};

use nix::unistd::geteuid;
use rusqlite::Connection;
use supervisor_proto::v1::{
    InstanceSpec, ListAuditRequest, Phase, ReloadRequest, Wish, audit_entry::Outcome,
    audit_service_client::AuditServiceClient,
};
use support::{door::Door, program, until};
use world::World;

/// Why such a state is not copied.
const TOO_DEEP: &str = "directories lie in one another more than 128 deep";

#[tokio::test]
async fn an_instance_is_upgraded_with_its_state_and_once_is_enough() {
    let world = World::new().await;
    world.version("2.0.0", "");
    world.instance("main", InstanceSpec::default()).await;
    let (code, told) = world.upgrade(&["main"], "2.0.0", &["--soak", "100ms"]).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("main: it is ready on 2.0.0, and was for 100ms"), "{told}");
    world.is_on("main", "2.0.0").await;
    let (code, told) = world.run(&["runtimes"]).await;
    assert!(code == 0 && told.contains("2.0.0") && told.ends_with("openclaw main"), "{told}");
    let before = world.host.status("main").await;
    let (code, told) = world.upgrade(&["main"], "2.0.0", &[]).await;
    assert!(code == 0 && told.contains("it is on 2.0.0 already"), "{told}");
    assert_eq!(world.host.status("main").await.pid, before.pid);
    let (_, told) = world.run(&["runtimes", "prune"]).await;
    assert!(told.contains("every version is in use"), "{told}");
    let (_, told) = world.run(&["export"]).await;
    assert!(told.contains("version: 2.0.0"), "{told}");
    world.history_says(&["its upgrade to 2.0.0 wants it down", "its upgrade to 2.0.0 wants it up"]).await;
    // A fleet file that was written before does not take it back.
    let file = world.at("fleet.yaml");
    for (what, code, said) in [
        ("", 0, "nothing to do"),
        ("version: 1.0.0,", 3, "`openclawctl upgrade main --to 1.0.0` first"),
        ("program: openclaw,", 3, "`main` was upgraded to 2.0.0, with its state"),
    ] {
        let text = format!(
            "version: 1\ninstances:\n  main: {{ {what} runtime: openclaw, walls: {{ files: false }} }}\n"
        );
        fs::write(&file, text).unwrap();
        let (ended, told) = world.run(&["apply", "-f", file.to_str().unwrap()]).await;
        assert!(ended == code && told.contains(said), "{what}: {told}");
    }
    assert_eq!(world.host.status("main").await.pid, before.pid);
    world.is_on("main", "2.0.0").await;
}

#[tokio::test]
async fn a_version_that_dies_in_its_soak_is_put_back_with_its_state_and_remembered() {
    let world = World::new().await;
    let dies = world.at("dies");
    world.version("3.0.0", &format!("exit=1,while-file={}", dies.display()));
    world.instance("main", InstanceSpec::default()).await;
    let config = fs::read(world.state("main", "openclaw.json")).unwrap();
    let asked = world.begin("main", "3.0.0", "5m");
    world.step("main", "soak").await;
    world.host.wait_ready("main").await;
    fs::write(dies, "").unwrap();
    let told = World::told(asked.wait_with_output().unwrap());
    assert_eq!(told.0, 3, "{told:?}");
    let told = told.1;
    assert!(told.contains("everything is as it was: it did not stay ready: exited with status 1"), "{told}");
    assert!(told.contains("it is ready on"), "{told}");
    world.is_on("main", "1.0.0").await;
    assert_eq!(fs::read(world.state("main", "openclaw.json")).unwrap(), config);
    assert!(!world.state("main", "made-by-3.0.0").exists());
    let upgrades = world.host.data_dir().join("instances/main/upgrades");
    let kept: Vec<_> = fs::read_dir(upgrades).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(kept.len() == 1 && kept[0].join("failed/made-by-3.0.0").exists(), "{kept:?}");
    let was = world.at("1.0.0/openclaw");
    let back = ["down", "up"].map(|way| format!("its way back to {} wants it {way}", was.display()));
    world.history_says(&["its upgrade to 3.0.0 wants it up", &back[0], &back[1]]).await;
    let (code, told) = world.upgrade(&["main"], "3.0.0", &[]).await;
    assert!(code == 3 && told.contains("3.0.0 has failed on it before: it did not stay ready"), "{told}");
    world.version("3.0.0", "");
    let (code, told) = world.upgrade(&["main"], "3.0.0", &["--again", "--soak", "0s"]).await;
    assert_eq!(code, 0, "{told}");
    world.is_on("main", "3.0.0").await;
}

#[tokio::test]
async fn a_version_that_declines_or_a_state_that_cannot_be_copied_stops_nothing() {
    let world = World::new().await;
    world.version("2.0.0", "");
    let before = world.instance("main", InstanceSpec::default()).await;
    fs::write(world.at("2.0.0/declines"), "").unwrap();
    let (code, told) = world.upgrade(&["main"], "2.0.0", &[]).await;
    let expected =
        "nothing was done: the version does not take the configuration: `gateway.port`: no such key";
    assert!(code == 3 && told.contains(expected), "{told}");
    fs::remove_file(world.at("2.0.0/declines")).unwrap();
    world.dig("main");
    let (code, told) = world.upgrade(&["main"], "2.0.0", &[]).await;
    assert!(code == 3 && told.contains(TOO_DEEP), "{told}");
    let (code, told) = world.run(&["upgrade", "main", "--to", "9.9.9", "--from", "/nowhere"]).await;
    assert!(code == 3 && told.contains("`/nowhere` is neither an executable"), "{told}");
    let after = world.host.status("main").await;
    assert_eq!((after.pid, after.phase()), (before.pid, Phase::Ready));
    assert!(world.journal("main")["attempt"].is_null());
}

#[tokio::test]
async fn an_upgrade_whose_supervisor_is_killed_anywhere_is_finished_by_the_next() {
    let mut world = World::new().await;
    // A stop takes a while, so that a supervisor can be killed in it.
    world.version("1.0.0", "drain=1s");
    world.version("2.0.0", "drain=1s");
    world.version("3.0.0", "");
    let before = world.instance("main", InstanceSpec::default()).await;
    // While it is looked at, nothing has begun.
    world.hold("2.0.0", "config");
    let mut asked = world.begin("main", "2.0.0", "0s");
    world.held("2.0.0", "config").await;
    world.host.kill_supervisor();
    asked.wait().unwrap();
    world.release("2.0.0", "config");
    world.start().await;
    assert_eq!(world.host.wait_ready("main").await.pid, before.pid);
    // While it stops, and while it starts.
    world.hold("2.0.0", "run");
    let mut asked = world.begin("main", "2.0.0", "100ms");
    world.step("main", "stop").await;
    world.replace_supervisor().await;
    world.held("2.0.0", "run").await;
    world.replace_supervisor().await;
    world.release("2.0.0", "run");
    world.settled("main").await;
    asked.wait().unwrap();
    world.is_on("main", "2.0.0").await;
    // While it is watched.
    let mut asked = world.begin("main", "3.0.0", "3s");
    world.step("main", "soak").await;
    world.replace_supervisor().await;
    world.settled("main").await;
    asked.wait().unwrap();
    world.is_on("main", "3.0.0").await;
    assert_eq!(world.journal("main")["last"]["previous"], "2.0.0");
}

#[tokio::test]
async fn what_a_killed_supervisor_was_putting_back_is_put_back_by_the_next() {
    let mut world = World::new().await;
    let dies = world.at("dies");
    world.version("3.0.0", &format!("exit=1,while-file={}", dies.display()));
    world.instance("main", InstanceSpec::default()).await;
    world.hold("1.0.0", "run");
    let mut asked = world.begin("main", "3.0.0", "5m");
    // It dies while nobody watches.
    world.step("main", "soak").await;
    world.host.wait_ready("main").await;
    world.host.kill_supervisor();
    fs::write(dies, "").unwrap();
    world.start().await;
    world.held("1.0.0", "run").await;
    world.replace_supervisor().await;
    world.release("1.0.0", "run");
    world.settled("main").await;
    assert_ne!(asked.wait().unwrap().code(), Some(0));
    world.is_on("main", "1.0.0").await;
    assert!(!world.state("main", "made-by-3.0.0").exists());
    assert_eq!(world.journal("main")["failed"][0]["version"], "3.0.0");
}

#[tokio::test]
async fn what_an_operator_stops_meanwhile_stays_stopped_on_what_it_was() {
    let world = World::new().await;
    world.version("2.0.0", "");
    world.instance("main", InstanceSpec::default()).await;
    let asked = world.begin("main", "2.0.0", "5m");
    world.step("main", "soak").await;
    world.host.wait_ready("main").await;
    world.host.down("main").await;
    let told = asked.wait_with_output().unwrap();
    assert_eq!(told.status.code(), Some(3));
    world.settled("main").await;
    let status = world.host.status("main").await;
    assert_eq!((status.phase(), status.wish()), (Phase::Stopped, Wish::Down));
    assert_eq!(world.spec("main").await.version, "");
    assert_eq!(world.journal("main")["failed"], serde_json::json!([]), "no version is to blame for that");
    // One that does not run is only pinned.
    let (code, told) = world.upgrade(&["main"], "2.0.0", &[]).await;
    assert!(code == 0 && told.contains("it does not run"), "{told}");
    world.host.up("main").await;
    world.is_on("main", "2.0.0").await;
}

#[tokio::test]
async fn a_wave_goes_side_by_side_and_a_failure_in_it_is_the_end_of_the_waves() {
    let mut world = World::new().await;
    world.version("2.0.0", "");
    for name in ["a", "b", "c"] {
        world.instance(name, InstanceSpec::default()).await;
    }
    let rescues = InstanceSpec { rescues: vec!["a".into()], ..Default::default() };
    let rescue = world.instance("a-rescue", rescues).await;
    let last = world.host.status("c").await;
    world.hold("2.0.0", "run");
    let from = world.at("2.0.0/openclaw");
    let words = ["upgrade", "a-rescue", "a", "b", "c", "--parallel", "2", "--yes", "--soak", "0s"];
    let words = [&words[..], &["--to", "2.0.0", "--from", from.to_str().unwrap()]].concat();
    let mut asked = world.command(&words).spawn().unwrap();
    // Neither comes to its end before the other has begun. The next supervisor goes on with both.
    for name in ["a", "b"] {
        world.step(name, "soak").await;
    }
    world.host.kill_supervisor();
    asked.wait().unwrap();
    world.start().await;
    for name in ["a", "b"] {
        world.step(name, "soak").await;
    }
    world.release("2.0.0", "run");
    for name in ["a", "b"] {
        world.settled(name).await;
        world.is_on(name, "2.0.0").await;
    }
    for name in ["a-rescue", "c"] {
        assert!(world.journal(name)["attempt"].is_null(), "{name} was still to come");
    }
    // One that fails is no reason for the other one of its wave to stop.
    world.version("3.0.0", "");
    world.dig("a");
    let flags = ["--parallel", "2", "--yes", "--soak", "0s"];
    let (code, told) = world.upgrade(&["a-rescue", "a", "b", "c"], "3.0.0", &flags).await;
    assert!(code == 3 && told.contains(TOO_DEEP), "{told}");
    assert_eq!(told.matches("not tried, as an earlier one failed").count(), 2, "{told}");
    world.is_on("a", "2.0.0").await;
    world.is_on("b", "3.0.0").await;
    assert_eq!(world.host.status("c").await.pid, last.pid);
    assert_eq!(world.host.status("a-rescue").await.pid, rescue.pid);
}

#[tokio::test]
async fn two_upgrades_of_one_instance_come_one_after_the_other() {
    let world = World::new().await;
    world.version("2.0.0", "");
    world.version("3.0.0", "");
    world.instance("main", InstanceSpec::default()).await;
    world.hold("2.0.0", "run");
    let first = world.begin("main", "2.0.0", "0s");
    world.step("main", "soak").await;
    let second = world.begin("main", "3.0.0", "0s");
    world.release("2.0.0", "run");
    for asked in [first, second] {
        let (code, told) = World::told(asked.wait_with_output().unwrap());
        assert_eq!(code, 0, "{told}");
    }
    world.is_on("main", "3.0.0").await;
    assert_eq!(world.journal("main")["last"]["previous"], "2.0.0");
}

#[tokio::test]
async fn what_waits_for_an_upgrade_is_refused_to_who_has_lost_its_role_by_then() {
    const OPERATOR: u32 = 64_133;
    if !geteuid().is_root() {
        eprintln!("only root can become another user");
        return;
    }
    let mut world = World::new().await;
    let door = Arc::new(Door::new());
    door.open(&world.host, &format!("- {{uid: {OPERATOR}, role: operator}}\n"));
    world.replace_supervisor().await;
    world.version("2.0.0", "");
    world.version("3.0.0", "");
    world.instance("main", InstanceSpec::default()).await;
    let (code, told) = world.upgrade(&["main"], "2.0.0", &["--soak", "0s"]).await;
    assert_eq!(code, 0, "{told}");
    world.hold("3.0.0", "config");
    let first = world.begin("main", "3.0.0", "0s");
    world.held("3.0.0", "config").await;
    let asked: Vec<_> = [&["upgrade", "main", "--to", "2.0.0", "--soak", "0s"][..], &["runtimes", "prune"]]
        .into_iter()
        .map(|words| {
            let door = Arc::clone(&door);
            tokio::task::spawn_blocking(move || door.run(OPERATOR, words))
        })
        .collect();
    let mut audit = AuditServiceClient::new(world.host.channel().await.unwrap());
    let request = ListAuditRequest { caller: OPERATOR.to_string(), ..Default::default() };
    until("both are asked for", async || {
        let entries = audit.list_audit(request.clone()).await.unwrap().into_inner().entries;
        let waits = entries.iter().filter(|entry| entry.outcome() == Outcome::UnderWay).count();
        (waits == asked.len()).then_some(())
    })
    .await;
    door.open(&world.host, " []\n");
    world.host.system().await.reload(ReloadRequest {}).await.unwrap();
    world.release("3.0.0", "config");
    let (code, told) = World::told(first.wait_with_output().unwrap());
    assert_eq!(code, 0, "{told}");
    for answer in asked {
        let (code, told) = World::told(answer.await.unwrap());
        assert!(code == 7 && told.contains("has no role here"), "{told}");
    }
    world.is_on("main", "3.0.0").await;
}

#[tokio::test]
async fn a_version_that_an_instance_is_about_to_be_moved_to_is_not_pruned() {
    let world = World::new().await;
    world.version("2.0.0", "");
    world.instance("main", InstanceSpec::default()).await;
    world.hold("2.0.0", "config");
    let asked = world.begin("main", "2.0.0", "0s");
    world.held("2.0.0", "config").await;
    let pruned = world.command(&["runtimes", "prune"]).spawn().unwrap();
    for _ in 0..5 {
        let (_, told) = world.run(&["runtimes"]).await;
        assert!(told.contains("2.0.0"), "{told}");
    }
    world.release("2.0.0", "config");
    for child in [asked, pruned] {
        let (code, told) = World::told(child.wait_with_output().unwrap());
        assert_eq!(code, 0, "{told}");
    }
    world.is_on("main", "2.0.0").await;
}

#[tokio::test]
async fn a_fleet_is_upgraded_one_at_a_time_and_stops_at_the_first_failure_before_its_rescue() {
    let world = World::new().await;
    world.version("2.0.0", "");
    let rescues = |name: &str| InstanceSpec { rescues: vec![name.into()], ..Default::default() };
    world.instance("b", InstanceSpec::default()).await;
    let rescue = world.instance("a-rescue", rescues("b")).await;
    world.instance("c", InstanceSpec::default()).await;
    let last = world.instance("d", InstanceSpec::default()).await;
    let (code, told) = world.upgrade(&["--all"], "2.0.0", &["--canary", "--yes", "--soak", "0s"]).await;
    assert!(code == 0 && told.contains("c, d, a-rescue still to be upgraded"), "{told}");
    world.is_on("b", "2.0.0").await;
    world.dig("c");
    let (code, told) = world.upgrade(&["--all"], "2.0.0", &["--yes", "--soak", "0s"]).await;
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("b: it is on 2.0.0 already"), "{told}");
    assert_eq!(told.matches("not tried, as an earlier one failed").count(), 2, "{told}");
    world.is_on("c", "1.0.0").await;
    assert_eq!(world.host.status("d").await.pid, last.pid);
    assert_eq!(world.host.status("a-rescue").await.pid, rescue.pid);
    fs::remove_dir_all(world.state("c", "deep")).unwrap();
    let (code, told) = world.upgrade(&["--all"], "2.0.0", &["--yes", "--soak", "0s"]).await;
    assert_eq!(code, 0, "{told}");
    for name in ["b", "c", "d", "a-rescue"] {
        world.is_on(name, "2.0.0").await;
    }
}

/// As a package does it: the file that the supervisor runs is another one's then.
#[tokio::test]
async fn a_supervisor_whose_program_was_replaced_shows_the_database_to_a_version_all_the_same() {
    let mut world = World::new().await;
    world.version("2.0.0", "");
    world.host.kill_supervisor();
    fs::create_dir(world.at("daemon")).unwrap();
    for name in ["openclaw-supervisor", "gateway-worker", "openclawctl"] {
        fs::copy(program(name), world.at(&format!("daemon/{name}"))).unwrap();
    }
    let daemon = world.at("daemon/openclaw-supervisor");
    let (data_dir, path) = (world.host.data_dir(), world.at("1.0.0"));
    let started = daemon.clone();
    world.host.spawn_supervisor(move |command| {
        *command = Command::new(started);
        command.arg("--data-dir").arg(data_dir).stdin(Stdio::null());
        command.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
    });
    until("the supervisor answers", async || world.host.try_instances().await.ok().map(|_| ())).await;
    world.instance("main", InstanceSpec::default()).await;
    let database = world.state("main", "state/openclaw.sqlite");
    fs::create_dir_all(database.parent().unwrap()).unwrap();
    Connection::open(database).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    fs::copy(&daemon, world.at("daemon/new")).unwrap();
    fs::rename(world.at("daemon/new"), &daemon).unwrap();
    let (code, told) = world.upgrade(&["main"], "2.0.0", &["--soak", "0s"]).await;
    assert!(code == 0 && !told.contains("cannot be shown"), "{told}");
}
