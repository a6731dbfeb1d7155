use std::str::FromStr;

use super::*;
use crate::{alerts::trouble::Weight, settings::Settings};

const SECOND: u64 = 1_000_000_000;

/// Long after the host's boot.
const BEGAN: u64 = 1_000_000 * SECOND;

fn settings(text: &str) -> Alerts {
    let text = format!("alerts:\n  after: 1m\n  group_for: 10s\n{text}");
    Settings::parse(&text, "settings.yaml").unwrap().alerts
}

/// One sink at which everything arrives.
fn one() -> Alerts {
    settings("  sinks: [{ name: phone, kind: ntfy, url: \"http://127.0.0.1:1/t\" }]\n")
}

fn at(seconds: u64) -> Now {
    Now { ns: BEGAN + seconds * SECOND, local: Time::from_str("12:00").unwrap(), booted_ns: 0 }
}

fn trouble(instance: &str, weight: Weight, at_once: bool) -> (String, Trouble) {
    let text = |text: &str| text.to_owned();
    let title = format!("{instance} is down");
    let trouble =
        Trouble { instance: text(instance), weight, title, why: text("why"), hint: text("do"), at_once };
    (format!("instance/{instance}"), trouble)
}

fn down(instance: &str) -> BTreeMap<String, Trouble> {
    [trouble(instance, Weight::Error, true)].into()
}

/// What is told at this time.
fn told(desk: &mut Desk, now: Now, alerts: &Alerts) -> Vec<(String, Turn)> {
    let batches = desk.due(now, alerts, &BTreeSet::new());
    for batch in &batches {
        desk.settle(batch, Outcome::Told, now);
    }
    let notices = batches.into_iter().flat_map(|batch| batch.notices);
    notices.map(|notice| (notice.trouble.instance, notice.turn)).collect()
}

#[test]
fn what_begins_and_ends_is_told_once_each() {
    let (mut desk, alerts) = (Desk::default(), one());
    assert!(desk.take(down("main"), at(0), &alerts));
    assert_eq!(told(&mut desk, at(9), &alerts), [], "what comes within ten seconds is told together");
    for second in 1..40 {
        assert!(!desk.take(down("main"), at(second), &alerts));
    }
    assert_eq!(told(&mut desk, at(40), &alerts), [("main".into(), Turn::Began)]);
    // Ready now and then does not end it.
    for second in 41..80 {
        let current = if second % 20 == 0 { BTreeMap::new() } else { down("main") };
        assert!(!desk.take(current, at(second), &alerts));
    }
    desk.take(BTreeMap::new(), at(80), &alerts);
    assert!(!desk.take(BTreeMap::new(), at(109), &alerts));
    assert!(desk.take(BTreeMap::new(), at(110), &alerts));
    assert_eq!(told(&mut desk, at(120), &alerts), [("main".into(), Turn::Ended)]);
    assert_eq!(told(&mut desk, at(100_000), &alerts), []);
}

#[test]
fn what_mends_itself_within_a_minute_is_told_to_nobody() {
    let (mut desk, alerts) = (Desk::default(), one());
    let passing = || BTreeMap::from([trouble("main", Weight::Error, false)]);
    desk.take(passing(), at(0), &alerts);
    desk.take(passing(), at(59), &alerts);
    desk.take(BTreeMap::new(), at(60), &alerts);
    desk.take(passing(), at(61), &alerts);
    assert_eq!(told(&mut desk, at(119), &alerts), []);
    desk.take(passing(), at(121), &alerts);
    assert_eq!(told(&mut desk, at(131), &alerts), [("main".into(), Turn::Began)]);
}

#[test]
fn what_becomes_worse_is_told_again_and_what_becomes_better_is_not() {
    let (mut desk, alerts) = (Desk::default(), one());
    let of = |weight| BTreeMap::from([trouble("main", weight, true)]);
    desk.take(of(Weight::Warning), at(0), &alerts);
    assert_eq!(told(&mut desk, at(10), &alerts), [("main".into(), Turn::Began)]);
    desk.take(of(Weight::Error), at(20), &alerts);
    assert_eq!(told(&mut desk, at(30), &alerts), [("main".into(), Turn::Worse)]);
    desk.take(of(Weight::Warning), at(40), &alerts);
    desk.take(of(Weight::Error), at(50), &alerts);
    assert_eq!(told(&mut desk, at(70), &alerts), []);
}

#[test]
fn who_is_called_later_is_not_called_for_what_has_ended_by_then() {
    let alerts = settings(
        "  sinks:\n  - { name: phone, kind: ntfy, url: \"http://127.0.0.1:1/t\" }\n  - { name: boss, kind: exec, command: [/bin/page], after: 15m }\n",
    );
    let mut desk = Desk::default();
    desk.take(down("main"), at(0), &alerts);
    assert_eq!(told(&mut desk, at(10), &alerts).len(), 1);
    desk.take(BTreeMap::new(), at(600), &alerts);
    desk.take(BTreeMap::new(), at(640), &alerts);
    assert_eq!(told(&mut desk, at(650), &alerts), [("main".into(), Turn::Ended)], "the phone alone");
    assert_eq!(told(&mut desk, at(2_000), &alerts), []);

    desk.take(down("main"), at(3_000), &alerts);
    assert_eq!(told(&mut desk, at(3_010), &alerts).len(), 1);
    assert_eq!(told(&mut desk, at(3_890), &alerts), []);
    assert_eq!(told(&mut desk, at(3_900), &alerts), [("main".into(), Turn::Began)]);
    desk.take(BTreeMap::new(), at(4_000), &alerts);
    desk.take(BTreeMap::new(), at(4_030), &alerts);
    assert_eq!(told(&mut desk, at(4_040), &alerts).len(), 2, "both know of it, and are told its end");
}

#[test]
fn each_is_told_of_what_it_asked_for() {
    let alerts = settings(
        "  sinks:\n  - { name: a, kind: ntfy, url: \"http://127.0.0.1:1/t\", severity: error }\n  - { name: b, kind: ntfy, url: \"http://127.0.0.1:1/t\", instances: [main] }\n",
    );
    let mut desk = Desk::default();
    let of = |name, weight| BTreeMap::from([trouble(name, weight, true)]);
    desk.take(of("other", Weight::Warning), at(0), &alerts);
    assert_eq!(told(&mut desk, at(10), &alerts), []);
    desk.take(
        [of("other", Weight::Error), of("main", Weight::Warning)].into_iter().flatten().collect(),
        at(20),
        &alerts,
    );
    let batches = desk.due(at(30), &alerts, &BTreeSet::new());
    let whom: Vec<_> = batches
        .iter()
        .map(|batch| (batch.sink.name.as_str(), batch.notices[0].trouble.instance.as_str()))
        .collect();
    assert_eq!(whom, [("a", "other"), ("b", "main")]);
}

#[test]
fn in_quiet_hours_only_errors_are_told_and_the_rest_waits() {
    let alerts = settings(
        "  quiet: { from: \"22:00\", until: \"07:00\" }\n  sinks: [{ name: phone, kind: ntfy, url: \"http://127.0.0.1:1/t\" }]\n",
    );
    let night = |seconds| Now { local: Time::from_str("03:00").unwrap(), ..at(seconds) };
    let mut desk = Desk::default();
    desk.take(
        [trouble("a", Weight::Warning, true), trouble("b", Weight::Error, true)].into(),
        night(0),
        &alerts,
    );
    assert_eq!(told(&mut desk, night(10), &alerts), [("b".into(), Turn::Began)]);
    assert_eq!(told(&mut desk, night(9_000), &alerts), []);
    assert_eq!(told(&mut desk, at(20_000), &alerts), [("a".into(), Turn::Began)]);
}

#[test]
fn after_a_boot_what_mends_itself_is_told_to_nobody() {
    let alerts = one();
    let booted = |seconds| Now { booted_ns: BEGAN, ..at(seconds) };
    let mut desk = Desk::default();
    desk.take(down("main"), booted(5), &alerts);
    assert_eq!(told(&mut desk, booted(179), &alerts), []);
    desk.take(BTreeMap::new(), booted(100), &alerts);
    desk.take(BTreeMap::new(), booted(130), &alerts);
    assert_eq!(told(&mut desk, booted(1_000), &alerts), []);
    desk.take(down("main"), booted(170), &alerts);
    assert_eq!(told(&mut desk, booted(181), &alerts), [("main".into(), Turn::Began)]);
}

#[test]
fn who_cannot_be_reached_is_told_later_and_the_others_hear_of_it() {
    let alerts = settings(
        "  sinks:\n  - { name: a, kind: ntfy, url: \"http://127.0.0.1:1/t\" }\n  - { name: b, kind: ntfy, url: \"http://127.0.0.1:1/t\" }\n",
    );
    let mut desk = Desk::default();
    desk.take(down("main"), at(0), &alerts);
    let batches = desk.due(at(10), &alerts, &BTreeSet::new());
    desk.settle(&batches[0], Outcome::Failed("gone".into(), Duration::ZERO), at(10));
    desk.settle(&batches[1], Outcome::Told, at(10));
    assert_eq!(desk.due(at(14), &alerts, &BTreeSet::new()), [], "it is left alone for five seconds");
    let again = desk.due(at(15), &alerts, &BTreeSet::new());
    assert_eq!((again.len(), again[0].sink.name.as_str()), (1, "a"));
    desk.settle(&again[0], Outcome::Failed("gone".into(), Duration::ZERO), at(15));
    assert_eq!(desk.due(at(24), &alerts, &BTreeSet::new()), [], "and for ten the next time");

    desk.take(down("main"), at(140), &alerts);
    let busy = BTreeSet::from(["a".to_owned()]);
    let others = desk.due(at(150), &alerts, &busy);
    assert_eq!((others.len(), others[0].sink.name.as_str()), (1, "b"));
    assert_eq!(others[0].notices[0].trouble.title, "alerts do not reach a");
    assert_eq!(desk.record("a").0.failing.unwrap().1, "gone");
    let late = desk.due(at(150), &alerts, &BTreeSet::new());
    desk.settle(&late[0], Outcome::Told, at(150));
    assert_eq!(
        desk.record("a"),
        (Record { told_ns: Some(at(150).ns), of: desk.record("a").0.of, ..Record::default() }, 0)
    );
}

#[test]
fn what_is_too_old_or_too_much_is_dropped_and_counted() {
    let (mut desk, alerts) = (Desk::default(), one());
    for number in 0..510 {
        desk.take(down(&format!("a{number}")), at(0), &alerts);
    }
    desk.take(BTreeMap::new(), at(1), &alerts);
    assert_eq!((desk.record("phone").1, desk.record("phone").0.dropped), (500, 10));
    desk.take(BTreeMap::new(), at(100_000), &alerts);
    assert_eq!(desk.record("phone").0.dropped, 510);
}

#[test]
fn another_supervisor_goes_on_where_this_one_ended() {
    let data = tempfile::tempdir().unwrap();
    let alerts = one();
    let mut desk = Desk::open(data.path()).unwrap();
    desk.take(down("main"), at(0), &alerts);
    desk.save(data.path()).unwrap();
    let mut next = Desk::open(data.path()).unwrap();
    assert_eq!(next, desk);
    assert!(!next.take(down("main"), at(5), &alerts));
    assert_eq!(told(&mut next, at(10), &alerts), [("main".into(), Turn::Began)]);
    fs::write(data.path().join(FILE), "{").unwrap();
    assert!(Desk::open(data.path()).is_err());
}

#[test]
fn sinks_that_are_no_more_leave_nothing() {
    let (mut desk, alerts) = (Desk::default(), one());
    desk.take(down("main"), at(0), &alerts);
    desk.take(down("main"), at(1), &Alerts::default());
    assert_eq!((desk.waiting.len(), desk.records.len()), (0, 0));
}
