//! `kill -9` at every call on the store's files.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use supervisor_proto::v1::{InstanceStatus, Wish};
use tokio::time;

use crate::{
    layer::{self, Count, Fault, When},
    script::{self, STEPS, Step},
    support::{Host, PATIENCE, until},
};

/// Of all calls, one in so many is tried in one run; each run begins with another.
const SAMPLE: u64 = 17;

/// Gives all commands, until the supervisor is dead. How many were answered, and what ran last.
async fn run(host: &mut Host) -> (usize, BTreeMap<String, InstanceStatus>) {
    let mut known = BTreeMap::new();
    for (done, step) in STEPS.iter().enumerate() {
        if let Err(said) = step.give(host).await {
            until(&format!("the supervisor is dead, having said {said}"), async || {
                host.supervisor_has_ended().then_some(())
            })
            .await;
            return (done, known);
        }
        match script::settled(host).await {
            Some(all) => known = all,
            None => return (done + 1, known),
        }
    }
    (STEPS.len(), known)
}

/// Starts a supervisor that may never come to answer.
async fn start(host: &mut Host, fault: Fault, at: u64, count: &Count) {
    host.spawn_supervisor(|command| layer::put_under(command, fault, When::At(at), count));
    let _ = script::settled(host).await;
}

/// The old or the new, and nothing twice.
async fn assert_kept(host: &mut Host, done: usize, before: &BTreeMap<String, InstanceStatus>, story: &str) {
    let (old, new) = (script::promised(done), script::promised((done + 1).min(STEPS.len())));
    let deadline = Instant::now() + PATIENCE;
    let after = loop {
        let all = script::settled(host).await.expect("without the layer it lives");
        let so = script::actual(&all);
        if so == old || so == new {
            break all;
        }
        // A deletion or a failover may go on after the start.
        assert!(Instant::now() < deadline, "{story}: {so:#?}\nis neither\n{old:#?}\nnor\n{new:#?}");
        time::sleep(Duration::from_millis(10)).await;
    };
    script::assert_sound(host, &after, story).await;
    let touched = STEPS.get(done).map_or(&[] as &[&str], |step| step.touches());
    // What the last answered step began may not have been seen to end.
    let last: &[&str] = done.checked_sub(1).map_or(&[], |last| STEPS[last].touches());
    for (name, was) in before {
        let calm = !touched.contains(&name.as_str()) && !last.contains(&name.as_str());
        let Some(is) = after.get(name).filter(|is| is.wish() == Wish::Up && calm) else { continue };
        assert_eq!((is.pid, is.incarnation), (was.pid, was.incarnation), "{story}: {name} was not adopted");
    }
}

async fn killed_at(at: u64, fault: Fault) -> u64 {
    let mut host = Host::prepare();
    let count = Count::new(host.directory.path());
    start(&mut host, fault, at, &count).await;
    let (done, before) =
        if host.supervisor_has_ended() { (0, BTreeMap::new()) } else { run(&mut host).await };
    let calls = count.so_far();
    host.kill_supervisor();
    host.start_supervisor().await;
    let next: Option<&Step> = STEPS.get(done);
    let story = format!("{fault:?} at call {at}, after {done} answers, at {next:?}");
    assert_kept(&mut host, done, &before, &story).await;
    calls
}

#[tokio::test]
async fn a_supervisor_killed_at_any_call_on_its_store_keeps_every_promise_and_runs_everything_once() {
    let all = std::env::var("STORE_TORTURE").is_ok_and(|what| what == "all");
    let every = if all { 1 } else { SAMPLE };
    let mut at = 1 + u64::from(std::process::id()) % every;
    let mut tried = 0;
    loop {
        let fault = if (at + tried) % 2 == 0 { Fault::KillBefore } else { Fault::KillAfter };
        let faults = if all { vec![Fault::KillBefore, Fault::KillAfter] } else { vec![fault] };
        let mut calls = 0;
        for fault in faults {
            calls = killed_at(at, fault).await;
            tried += 1;
        }
        // It has not come to this call any more: there are no further ones.
        if calls < at {
            break;
        }
        at += every;
    }
    println!("killed {tried} times, at 1 call in {every} of {at}");
    assert!(tried > 3);
}
