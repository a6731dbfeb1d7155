//! Calls on the store's files that fail, or do half of what was asked: once, and for a while.

use std::{fs, time::Duration};

use supervisor_proto::v1::{self, Phase};
use tokio::time;

use crate::{
    layer::{self, Count, Fault, When},
    script::{self, STEPS},
    support::{Host, at_once, builtin, kill_9, until},
};

/// Of all calls, one in so many is tried in one run.
const SAMPLE: u64 = 41;

/// How long an answer that must not come is waited for.
const A_WHILE: Duration = Duration::from_millis(500);

/// While the disk takes nothing: what runs is supervised, what was promised waits, and everybody is told.
pub(crate) async fn assert_goes_on_without_its_disk(host: &Host, mend: impl FnOnce()) {
    let before = host.status("main").await;
    kill_9(before.pid);
    let after = host
        .wait("main", "in its next life", |status| {
            status.incarnation > before.incarnation && status.phase() == Phase::Ready
        })
        .await;
    until("the supervisor raises an alarm", async || {
        let info = host.system().await.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
        info.alarms.iter().any(|alarm| alarm.starts_with("Changes cannot be stored in ")).then_some(())
    })
    .await;
    let spec = Some(at_once(builtin()));
    let request = v1::CreateInstanceRequest { name: "other".into(), spec, ..Default::default() };
    let mut client = host.instances().await;
    let mut creating = Box::pin(client.create_instance(request));
    assert!(time::timeout(A_WHILE, &mut creating).await.is_err(), "answered without being durable");
    mend();
    creating.await.unwrap();
    assert_eq!(host.status("main").await.pid, after.pid);
    host.wait_event("what failed is in the journal", |event| event.r#type == "supervisor.store_failing")
        .await;
    host.wait_event("and that it recovered", |event| event.r#type == "supervisor.store_recovered").await;
    host.wait_event("and who died meanwhile", |event| {
        event.r#type == "instance.exited" && event.incarnation == before.incarnation
    })
    .await;
    let info = host.system().await.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    assert!(!info.alarms.iter().any(|alarm| alarm.starts_with("Changes cannot")), "{:?}", info.alarms);
}

async fn goes_on(fault: Fault) {
    let mut host = Host::prepare();
    let count = Count::new(host.directory.path());
    let broken = host.directory.path().join("broken");
    host.spawn_supervisor(|command| layer::put_under(command, fault, When::While(&broken), &count));
    script::settled(&mut host).await.unwrap();
    host.create("main", at_once(builtin())).await;
    host.up("main").await;
    let environment = fs::read(format!("/proc/{}/environ", host.status("main").await.pid)).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("STORE_FAULT") && !environment.contains("LD_PRELOAD"), "{environment}");
    fs::write(&broken, "").unwrap();
    assert_goes_on_without_its_disk(&host, || fs::remove_file(&broken).unwrap()).await;
    // What was promised in the end is there.
    host.kill_supervisor();
    host.start_supervisor().await;
    let all = script::settled(&mut host).await.unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["main", "other"]);
}

#[tokio::test]
async fn a_disk_that_fails_every_call_delays_promises_and_nothing_else() {
    goes_on(Fault::Fail).await;
}

#[tokio::test]
async fn a_disk_that_does_half_of_every_call_delays_promises_and_nothing_else() {
    goes_on(Fault::Short).await;
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_delays_promises_and_nothing_else() {
    goes_on(Fault::ReadOnly).await;
}

#[tokio::test]
async fn a_disk_without_room_for_the_store_delays_promises_and_nothing_else() {
    goes_on(Fault::Full).await;
}

/// One call fails. Every command is done all the same, or the supervisor never began and said why.
async fn fails_at(at: u64, fault: Fault) -> u64 {
    let story = format!("{fault:?} at call {at}");
    let mut host = Host::prepare();
    let count = Count::new(host.directory.path());
    host.spawn_supervisor(|command| layer::put_under(command, fault, When::At(at), &count));
    if script::settled(&mut host).await.is_none() {
        let said = host.supervisor_log();
        assert!(
            said.contains("error: failed to open `") && said.contains("supervisor.db"),
            "{story}: {said}"
        );
        host.kill_supervisor();
        host.start_supervisor().await;
    }
    for (done, step) in STEPS.iter().enumerate() {
        step.give(&host).await.unwrap_or_else(|said| panic!("{story}: {said}"));
        let expected = script::promised(done + 1);
        until(&format!("{story}: {expected:#?}"), async || {
            (script::actual(&script::settled(&mut host).await?) == expected).then_some(())
        })
        .await;
    }
    let calls = count.so_far();
    host.kill_supervisor();
    host.start_supervisor().await;
    let all = script::settled(&mut host).await.unwrap();
    assert_eq!(script::actual(&all), script::promised(STEPS.len()), "{story}");
    script::assert_sound(&host, &all, &story).await;
    calls
}

#[tokio::test]
async fn any_single_call_on_the_store_may_fail_or_be_cut_short_and_every_command_is_done() {
    let all = std::env::var("STORE_TORTURE").is_ok_and(|what| what == "all");
    let every = if all { 1 } else { SAMPLE };
    let mut at = 1 + u64::from(std::process::id()) % every;
    loop {
        let faults: &[Fault] = match (all, at % 2) {
            (true, _) => &[Fault::Fail, Fault::Short],
            (false, 0) => &[Fault::Fail],
            (false, _) => &[Fault::Short],
        };
        let mut calls = 0;
        for fault in faults {
            calls = fails_at(at, *fault).await;
        }
        if calls < at {
            break;
        }
        at += every;
    }
}
