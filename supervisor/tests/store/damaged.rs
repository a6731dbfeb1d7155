//! A damaged store under a fleet that runs: it is kept and named, and the fleet runs on under its last good copy.

use std::{collections::BTreeMap, fs, os::unix::fs::FileExt, path::Path};

use rusqlite::Connection;
use supervisor_proto::v1::{InstanceStatus, Phase};

use crate::{
    script::{self, STEPS, Step},
    support::{Host, is_alive, kill_9, until},
};

const STORE: &str = "supervisor.db";
const LOG: &str = "supervisor.db-wal";
const COPY: &str = "supervisor.db.good";

/// A fleet that runs, and its registry has been copied.
async fn copied() -> (Host, BTreeMap<String, InstanceStatus>) {
    let mut host = Host::start().await;
    for step in &STEPS[..5] {
        step.give(&host).await.unwrap();
    }
    let fleet = script::settled(&mut host).await.unwrap();
    until("the registry is copied", async || {
        // What the last start changed may be stored only now.
        let stored = records(&host.data_dir().join(STORE))?;
        (records(&host.data_dir().join(COPY))? == stored).then_some(())
    })
    .await;
    (host, fleet)
}

/// The same without its supervisor, which was killed.
///
/// All of a young store may still be in its log, so a test that damages the store damages both.
async fn orphaned() -> (Host, BTreeMap<String, InstanceStatus>) {
    let (mut host, fleet) = copied().await;
    host.kill_supervisor();
    (host, fleet)
}

/// All records of a database, if it is one.
fn records(path: &Path) -> Option<Vec<String>> {
    let db = Connection::open(path).ok()?;
    let mut statement = db.prepare("SELECT record FROM instances ORDER BY name").ok()?;
    let rows = statement.query_map([], |row| row.get(0)).ok()?;
    rows.collect::<Result<_, _>>().ok()
}

/// The next supervisor has the same fleet, and says what happened.
async fn assert_runs_on(host: &mut Host, fleet: &BTreeMap<String, InstanceStatus>, said: &str) {
    host.start_supervisor().await;
    let all = script::settled(host).await.unwrap();
    for (name, was) in fleet {
        let is = &all[name];
        assert_eq!((is.pid, is.incarnation, is.ports), (was.pid, was.incarnation, was.ports), "{name}");
    }
    let alarm = host.wait_event("an alarm", |event| event.r#type == "supervisor.store_damaged").await;
    assert!(alarm.message.contains(said), "{}", alarm.message);
    script::assert_sound(host, &all, said).await;
    // And it goes on from there.
    kill_9(all["lab"].pid);
    let next =
        host.wait("lab", "in its next life", |status| status.settled && status.pid != all["lab"].pid).await;
    assert!(next.incarnation > fleet["lab"].incarnation);
    Step::Down.give(host).await.unwrap();
    Step::Remove.give(host).await.unwrap();
    // Once is enough: the next supervisor finds nothing wrong.
    host.kill_supervisor();
    host.start_supervisor().await;
    let all = script::settled(host).await.unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["main", "rescue"]);
    let alarms = host.events().await.into_iter().filter(|event| event.r#type == "supervisor.store_damaged");
    assert_eq!(alarms.count(), 1);
}

#[tokio::test]
async fn under_a_store_of_garbage_the_fleet_runs_on_from_the_last_good_copy() {
    let (mut host, fleet) = orphaned().await;
    let garbage = b"no database".repeat(1_000);
    for file in [STORE, LOG] {
        fs::write(host.data_dir().join(file), &garbage).unwrap();
    }
    assert_runs_on(&mut host, &fleet, "the registry is that of its last good copy").await;
    let kept = fs::read_dir(host.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = kept
        .filter(|path| {
            path.to_string_lossy().contains(".damaged-") && !path.to_string_lossy().ends_with("-wal")
        })
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(fs::read(&kept[0]).unwrap(), garbage);
}

#[tokio::test]
async fn without_its_store_the_fleet_runs_on_from_the_last_good_copy() {
    let (mut host, fleet) = orphaned().await;
    for file in [STORE, LOG, "supervisor.db-shm"] {
        let _ = fs::remove_file(host.data_dir().join(file));
    }
    assert_runs_on(&mut host, &fleet, "it is missing").await;
}

#[tokio::test]
async fn without_the_stores_log_the_fleet_runs_on_from_the_last_good_copy() {
    let (mut host, fleet) = orphaned().await;
    fs::remove_file(host.data_dir().join(LOG)).unwrap();
    assert_runs_on(&mut host, &fleet, "").await;
}

#[tokio::test]
async fn without_store_and_copy_the_fleet_runs_on_from_what_its_workers_were_told() {
    let (mut host, fleet) = orphaned().await;
    for file in [STORE, LOG, COPY] {
        fs::write(host.data_dir().join(file), "garbage").unwrap();
    }
    assert_runs_on(&mut host, &fleet, "what its workers were told").await;
}

#[tokio::test]
async fn a_store_damaged_under_a_running_supervisor_stops_nothing_and_is_mended_at_the_next_start() {
    let (mut host, fleet) = copied().await;
    let store = host.data_dir().join(STORE);
    Connection::open(&store).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let size = usize::try_from(fs::metadata(&store).unwrap().len()).unwrap();
    let file = fs::File::options().write(true).open(&store).unwrap();
    file.write_all_at(&vec![0xa5; size], 0).unwrap();
    kill_9(fleet["main"].pid);
    host.wait("main", "in its next life", |status| {
        status.settled && status.phase() == Phase::Ready && status.pid != fleet["main"].pid
    })
    .await;
    let fleet = script::settled(&mut host).await.unwrap();
    host.kill_supervisor();
    assert_runs_on(&mut host, &fleet, "the registry is that of its last good copy").await;
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_by_name_and_gateways_run_on() {
    let (host, fleet) = orphaned().await;
    let store = host.data_dir().join(STORE);
    Connection::open(&store).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let output = host.supervisor_command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for expected in [store.to_str().unwrap(), "schema 99", "install a newer one"] {
        assert!(said.contains(expected), "{said}");
    }
    for (name, status) in &fleet {
        assert!(is_alive(status.worker_pid), "the worker of {name}: {status:?}");
        assert!(is_alive(status.pid), "{name}: {status:?}");
    }
}
