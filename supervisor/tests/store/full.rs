//! A disk without room, and one that cannot be written: while the supervisor runs, and when it begins.

use std::fs;

use supervisor_proto::v1;

use crate::{
    failing::assert_goes_on_without_its_disk,
    layer::{self, Count, Fault, When},
    script,
    small::{ReadOnly, Small},
    support::{Host, at_once, builtin, is_alive},
};

/// What a test says when it cannot do what its name says, and does the next best thing.
fn cannot_mount() {
    eprintln!("this process may not mount: the layer under the store says ENOSPC or EROFS instead");
}

#[tokio::test]
async fn a_full_disk_delays_promises_and_nothing_else() {
    let Some(mut small) = Small::prepare() else {
        // The whole of it with the layer is `a_disk_without_room_for_the_store_delays_promises_and_nothing_else`.
        return cannot_mount();
    };
    small.host.start_supervisor().await;
    small.host.create("main", at_once(builtin())).await;
    small.host.up("main").await;
    small.fill();
    assert_goes_on_without_its_disk(&small.host, || small.free()).await;
}

/// What runs is adopted and supervised by a supervisor that can store nothing.
async fn assert_adopted(host: &mut Host, main: &v1::InstanceStatus, mend: impl FnOnce()) {
    let all = script::settled(host).await.expect("a supervisor that cannot store supervises all the same");
    assert_eq!((all["main"].pid, all["main"].incarnation), (main.pid, main.incarnation));
    assert!(host.supervisor_log().contains("the disk takes nothing; begins with what is stored"));
    assert_goes_on_without_its_disk(host, mend).await;
    host.kill_supervisor();
    host.start_supervisor().await;
    let all = script::settled(host).await.unwrap();
    script::assert_sound(host, &all, "after the disk was full at a start").await;
}

#[tokio::test]
async fn on_a_disk_that_is_full_at_the_start_gateways_are_adopted_and_supervised() {
    let Some(mut small) = Small::prepare() else {
        cannot_mount();
        let mut host = Host::start().await;
        host.create("main", at_once(builtin())).await;
        let main = host.up("main").await;
        host.kill_supervisor();
        let count = Count::new(host.directory.path());
        let full = host.directory.path().join("full");
        fs::write(&full, "").unwrap();
        host.spawn_supervisor(|command| layer::put_under(command, Fault::Full, When::While(&full), &count));
        return assert_adopted(&mut host, &main, || fs::remove_file(full).unwrap()).await;
    };
    small.host.start_supervisor().await;
    small.host.create("main", at_once(builtin())).await;
    let main = small.host.up("main").await;
    small.host.kill_supervisor();
    small.fill();
    small.host.spawn_supervisor(|_| ());
    let filler = small.host.data_dir().join("filler");
    assert_adopted(&mut small.host, &main, || fs::remove_file(filler).unwrap()).await;
}

/// Starts a supervisor that refuses to run, and returns what it says.
fn refusal(host: &Host) -> String {
    let output = host.supervisor_command().output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn on_a_disk_that_is_full_before_there_is_a_store_the_supervisor_says_so() {
    let Some(small) = Small::prepare() else {
        cannot_mount();
        let mut host = Host::prepare();
        let count = Count::new(host.directory.path());
        let full = host.directory.path().join("full");
        fs::write(&full, "").unwrap();
        host.spawn_supervisor(|command| layer::put_under(command, Fault::Full, When::While(&full), &count));
        assert!(script::settled(&mut host).await.is_none());
        return assert!(host.supervisor_log().contains("see that its disk has room"));
    };
    small.fill();
    let said = refusal(&small.host);
    assert!(said.contains("supervisor.db") && said.contains("see that its disk has room"), "{said}");
}

#[tokio::test]
async fn a_disk_that_is_read_only_at_the_start_is_refused_by_name_and_gateways_run_on() {
    let mut host = Host::start().await;
    host.create("main", at_once(builtin())).await;
    let main = host.up("main").await;
    host.kill_supervisor();
    let Some(read_only) = ReadOnly::make(&host.data_dir()) else {
        cannot_mount();
        let count = Count::new(host.directory.path());
        let broken = host.directory.path().join("broken");
        fs::write(&broken, "").unwrap();
        host.spawn_supervisor(|command| {
            layer::put_under(command, Fault::ReadOnly, When::While(&broken), &count);
        });
        return assert_adopted(&mut host, &main, || fs::remove_file(broken).unwrap()).await;
    };
    let said = refusal(&host);
    for expected in [host.data_dir().to_str().unwrap(), "read-only", "gateways that run are not affected"] {
        assert!(said.contains(expected), "{said}");
    }
    assert!(is_alive(main.pid) && is_alive(main.worker_pid));
    drop(read_only);
    host.start_supervisor().await;
    assert_eq!(host.wait_ready("main").await.pid, main.pid);
}
