//! What verbs ask for, how they wait, and how they end.

use std::{collections::BTreeSet, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use supervisor_proto::v1::{Instance, Phase, Role};
use tonic::Code;

use crate::{
    ctl::{Ran, until},
    fake::{Fake, Then, instance, refusal, status},
};

fn calls(fake: &Fake, method: &str) -> usize {
    fake.world().calls.iter().filter(|(called, _)| *called == method).count()
}

#[test]
fn up_creates_what_is_not_known_and_shows_what_came_of_it() {
    let fake = Fake::start();
    let ran = fake.ctl(&["up", "main", "rescue"]);
    assert_eq!(
        ran.err,
        "main: created from defaults\nrescue: created from defaults\nmain: ready\nrescue: ready\n"
    );
    let out = ran.done();
    let states: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(states, [["NAME", "STATE"], ["main", "ready"], ["rescue", "ready"]]);
}

#[test]
fn up_without_names_starts_all_that_are_known_or_main() {
    let fake = Fake::start();
    assert!(fake.ctl(&["up"]).done().contains("\nmain"));
    fake.with([instance("web-1", Phase::Stopped, 20_000), instance("web-2", Phase::Stopped, 20_020)]);
    fake.ctl(&["up"]).done();
    assert_eq!(calls(&fake, "StartInstance"), 1 + 3);
}

#[test]
fn an_outcome_that_comes_later_is_waited_for() {
    let fake = Fake::start();
    fake.world().then = Then::WhenWatched(Phase::Ready);
    let ran = fake.ctl(&["up", "main"]);
    assert_eq!(ran.err, "main: created from defaults\nmain: starting\nmain: ready\n");
    ran.done();
}

#[test]
fn an_outcome_that_came_before_the_watch_is_not_missed() {
    let fake = Fake::start();
    // Ready already: the wish changes nothing, so the instance's own revision stays behind.
    fake.with([instance("main", Phase::Ready, 18_789)]);
    fake.world().then = Then::AtOnce(Phase::Ready);
    fake.ctl(&["up", "main", "--wait=60s"]).done();
}

#[test]
fn a_watch_that_breaks_is_begun_again() {
    let fake = Fake::start();
    fake.world().then = Then::WhenWatched(Phase::Ready);
    fake.world().broken_watches = 2;
    fake.ctl(&["up", "main", "--wait=60s"]).done();
    assert_eq!(calls(&fake, "WatchInstances"), 3);
}

#[test]
fn an_instance_that_fails_ends_with_3_its_reason_and_its_hint() {
    let fake = Fake::start();
    fake.world().then = Then::WhenWatched(Phase::Failed);
    fake.world().reason = "port 18789 is held by pid 77 (nginx).".into();
    let ran = fake.ctl(&["up", "main"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.out.contains("failed"), "{ran:?}");
    assert!(
        ran.err.ends_with(
            "error: failed to start `main`: it has failed (port 18789 is held by pid 77 (nginx))\n\
             hint: openclawctl logs main\n"
        ),
        "{ran:?}"
    );
}

#[test]
fn patience_that_runs_out_ends_with_5_and_tells_how_far_it_came() {
    let fake = Fake::start();
    fake.world().then = Then::Never;
    fake.world().reason = "its startup probe has not passed.".into();
    let ran = fake.ctl(&["up", "main", "--wait=300ms"]);
    assert_eq!(ran.code, Some(5));
    assert!(
        ran.err.ends_with(
            "error: failed to start `main`: no outcome within 300ms: it is starting (its startup probe has not passed)\n\
             hint: openclawctl status main\n"
        ),
        "{ran:?}"
    );
}

#[test]
fn no_wait_returns_once_the_wish_is_recorded() {
    let fake = Fake::start();
    fake.world().then = Then::Never;
    assert!(fake.ctl(&["up", "main", "--no-wait"]).done().contains("starting"));
    assert_eq!(calls(&fake, "WatchInstances"), 0);
}

#[test]
fn one_refused_name_does_not_keep_the_others_from_starting() {
    let fake = Fake::start();
    let ran = fake.ctl(&["up", "Main", "rescue"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.out.contains("rescue  ready"), "{ran:?}");
    assert!(ran.err.contains("error: failed to start `Main`: `Main` is not a name\n"), "{ran:?}");
}

#[test]
fn a_call_that_finds_the_supervisor_leaving_is_repeated_once_with_the_same_request_id() {
    let fake = Fake::start();
    fake.refuse(
        "StartInstance",
        refusal(Code::Unavailable, "SHUTTING_DOWN", "the supervisor is shutting down."),
    );
    fake.ctl(&["up", "main"]).done();
    let ids: Vec<String> = fake
        .world()
        .calls
        .iter()
        .filter(|(method, _)| *method == "StartInstance")
        .map(|(_, request_id)| request_id.clone())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(ids[0].len(), 36);
}

#[test]
fn ctrl_c_while_waiting_ends_with_130_and_says_that_the_wish_stands() {
    let fake = Fake::start();
    fake.world().then = Then::Never;
    let mut command = fake.command(&["up", "main"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the watch", || calls(&fake, "WatchInstances") > 0);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.err.contains("the wish stands"), "{ran:?}");
    assert!(ran.err.ends_with("hint: openclawctl status main\n"), "{ran:?}");
}

#[test]
fn down_of_all_must_be_confirmed_when_nobody_can_be_asked() {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789), instance("old", Phase::Stopped, 20_000)]);
    fake.world().then = Then::WhenWatched(Phase::Stopped);
    let ran = fake.ctl(&["down"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("this would stop main, and nobody can be asked"), "{ran:?}");
    assert!(ran.err.ends_with("hint: add --yes\n"), "{ran:?}");
    assert!(fake.ctl(&["down", "--yes"]).done().contains("stopped"));
    assert_eq!(calls(&fake, "StopInstance"), 1);
    let ran = fake.ctl(&["down"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), "no instance is up\n"));
}

#[test]
fn down_of_a_named_one_is_not_asked_about_and_force_is_a_wish_of_its_own() {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789)]);
    fake.world().then = Then::WhenWatched(Phase::Stopped);
    fake.ctl(&["down", "main"]).done();
    fake.ctl(&["down", "main", "--force"]).done();
    assert_eq!((calls(&fake, "StopInstance"), calls(&fake, "KillInstance")), (1, 1));
}

#[test]
fn restart_goes_one_by_one_and_leaves_the_rest_alone_after_a_failure() {
    let fake = Fake::start();
    fake.with(["a", "b", "c"].map(|name| instance(name, Phase::Ready, 20_000)));
    fake.world().then = Then::WhenWatched(Phase::Ready);
    fake.ctl(&["restart", "a", "b", "c"]).done();
    assert_eq!((calls(&fake, "RestartInstance"), calls(&fake, "WatchInstances")), (3, 3));
    fake.ctl(&["restart", "a", "b", "c", "--parallel", "2"]).done();
    assert_eq!((calls(&fake, "RestartInstance"), calls(&fake, "WatchInstances")), (6, 5));

    fake.world().then = Then::WhenWatched(Phase::Failed);
    let ran = fake.ctl(&["restart", "a", "b", "c"]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(calls(&fake, "RestartInstance"), 7);
    assert!(ran.err.contains("failed to restart `c`: not tried, as an earlier one failed\n"), "{ran:?}");
}

#[test]
fn rm_asks_and_says_what_became_of_the_data() {
    let fake = Fake::start();
    fake.with(["a", "b"].map(|name| instance(name, Phase::Stopped, 20_000)));
    assert_eq!(fake.ctl(&["rm", "a"]).code, Some(2));
    assert_eq!(fake.ctl(&["rm", "a", "--yes"]).err, "removed a; its data is kept\n");
    assert_eq!(fake.ctl(&["rm", "b", "--yes", "--purge"]).err, "removed b; its data is being deleted\n");
    assert!(fake.world().instances.is_empty());
    let running = refusal(Code::FailedPrecondition, "INSTANCE_RUNNING", "`a` runs; stop it first.");
    fake.with([instance("a", Phase::Ready, 20_000)]).refuse("DeleteInstance", running);
    let ran = fake.ctl(&["rm", "a", "--yes"]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(ran.err, "error: failed to remove `a`: `a` runs; stop it first\nhint: openclawctl down a\n");
}

fn pair() -> [Instance; 2] {
    let mut main = instance("main", Phase::Ready, 18_789);
    let failover = status(&mut main).failover.get_or_insert_default();
    failover.role = Role::Primary.into();
    failover.active = "main".into();
    failover.rescued_by = vec!["rescue".into()];
    let mut rescue = instance("rescue", Phase::Ready, 19_789);
    status(&mut rescue).failover.get_or_insert_default().role = Role::Standby.into();
    [main, rescue]
}

#[test]
fn failover_and_failback_need_no_names_when_only_one_has_a_rescue() {
    let fake = Fake::start();
    fake.with(pair());
    let out = fake.ctl(&["failover"]).done();
    assert!(out.contains("rescue stands in for main since "), "{out}");
    assert!(out.contains("): asked for by hand\n"), "{out}");
    let out = fake.ctl(&["failback"]).done();
    assert!(out.contains("main    ready  primary") && !out.contains("stands in"), "{out}");
}

#[test]
fn failover_asks_which_when_several_have_a_rescue() {
    let fake = Fake::start();
    let ran = fake.ctl(&["failover"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.starts_with("error: failed to fail over: no instance has a rescue\n"), "{ran:?}");
    let [main, rescue] = pair();
    let other = Instance { name: "other".into(), ..main.clone() };
    fake.with([main, rescue, other]);
    let ran = fake.ctl(&["failover"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err.contains("several primaries have a rescue: main, other\nhint: name one with --from NAME"),
        "{ran:?}"
    );
}

#[test]
fn verbs_answer_programs_with_the_list_of_what_they_touched() {
    let fake = Fake::start();
    let out = fake.ctl(&["up", "main", "-o", "json"]).done();
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list["instances"][0]["status"]["phase"], "PHASE_READY");
}
