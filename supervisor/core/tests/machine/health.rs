//! Starts judged by progress, and the watch over running gateways.

use supervisor_core::{
    event::{Event, Report, Verdict},
    instance::Boot,
    policy::{Policy, Startup, Threshold, Watch},
};

use crate::support::world::{World, good, name, not_ready, plain, seconds, silent, with};

fn watched() -> Policy {
    with(plain(), |p| {
        p.health.watch = Some(Watch {
            interval: seconds(10),
            timeout: seconds(5),
            live: Threshold::in_a_row(3),
            ready: Threshold::in_a_row(2),
        });
    })
}

fn probed() -> Policy {
    with(plain(), |p| p.health.startup = Startup::Probe)
}

/// The next probe is asked and answered.
fn ask(world: &mut World, report: Report) {
    world.after(seconds(10));
    assert!(world.orders("main").iter().any(|order| order.starts_with("probe")));
    world.probed("main", report);
}

#[test]
fn a_start_is_over_when_its_probe_passes() {
    let mut world = World::of(&[("main", probed())]);
    world.launched("main");
    assert_eq!(world.orders("main"), ["probe #1 startup"]);
    world.probed("main", not_ready());
    world.after(seconds(1));
    assert_eq!(world.orders("main"), ["probe #1 startup"]);
    world.probed("main", good());
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn a_start_without_progress_fails() {
    let mut world = World::of(&[("main", probed())]);
    world.launched("main");
    world.after(seconds(60));
    assert_eq!(world.phase("main"), "stopping (kill)");
}

#[test]
fn progress_gives_a_start_more_time_but_not_for_ever() {
    let mut world = World::of(&[("main", with(probed(), |p| p.health.startup_interval = seconds(10)))]);
    world.launched("main");
    for progress in 1..30 {
        world.probed("main", Report { progress, ..not_ready() });
        world.after(seconds(10));
        assert_eq!(world.phase("main"), "starting");
    }
    world.probed("main", Report { progress: 30, ..not_ready() });
    world.after(seconds(10));
    assert_eq!(world.phase("main"), "stopping (kill)");
}

#[test]
fn a_startup_probe_that_is_never_answered_is_asked_again() {
    let mut world = World::of(&[("main", with(watched(), |p| p.health.startup = Startup::Probe))]);
    world.launched("main");
    world.after(seconds(7));
    assert_eq!(world.orders("main"), ["probe #1 startup", "probe #1 startup"]);
    world.probed("main", good());
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn a_gateway_that_does_not_answer_is_hung_killed_and_run_again() {
    let mut world = World::ready(watched());
    for _ in 0..3 {
        assert_eq!(world.phase("main"), "ready");
        ask(&mut world, Report { ready: Verdict::Pass, ..silent() });
    }
    assert_eq!(world.orders("main"), ["examine #1", "kill #1"]);
    world.exits("main", 0);
    assert_eq!(world.phase("main"), "backoff");
}

#[test]
fn a_gateway_that_answers_now_and_then_is_hung_once_too_many_of_the_last_probes_have_failed() {
    let mut world = World::ready(with(watched(), |p| {
        if let Some(watch) = &mut p.health.watch {
            watch.live = Threshold { failures: 3, of: 5 };
        }
    }));
    let dead = || Report { ready: Verdict::Pass, ..silent() };
    for report in [dead(), good(), dead(), good(), good(), dead(), good()] {
        ask(&mut world, report);
        assert_eq!(world.phase("main"), "ready");
    }
    // The last five: well, well, dead, well, dead.
    ask(&mut world, dead());
    assert_eq!(world.phase("main"), "ready");
    ask(&mut world, dead());
    assert_eq!(world.orders("main"), ["examine #1", "kill #1"]);
}

#[test]
fn a_gateway_that_could_not_be_asked_is_neither_hung_nor_well() {
    let mut world = World::ready(watched());
    let unknown = || Report { live: why(), ready: why(), progress: 0 };
    fn why() -> Verdict {
        Verdict::Unknown("the host has no port left".into())
    }
    for _ in 0..20 {
        ask(&mut world, unknown());
        assert_eq!(world.phase("main"), "ready");
    }
    // What was found before still counts.
    let dead = || Report { ready: Verdict::Pass, ..silent() };
    ask(&mut world, dead());
    ask(&mut world, dead());
    ask(&mut world, unknown());
    assert_eq!(world.phase("main"), "ready");
    ask(&mut world, dead());
    assert_eq!(world.orders("main"), ["examine #1", "kill #1"]);
    // It is told when it begins, not every time.
    let told = world.durable.entries.iter().filter(|entry| entry.kind.name() == "instance.not_asked");
    assert_eq!(told.count(), 2);
}

#[test]
fn a_start_that_could_not_be_asked_about_has_not_failed_for_that() {
    let mut world = World::of(&[("main", with(watched(), |p| p.health.startup = Startup::Probe))]);
    world.launched("main");
    let why = || Verdict::Unknown("the host has no port left".into());
    for _ in 0..20 {
        world.probed("main", Report { live: why(), ready: why(), progress: 0 });
        world.after(seconds(2));
        assert_eq!(world.phase("main"), "starting");
    }
}

#[test]
fn a_gateway_that_is_not_ready_is_left_running() {
    let mut world = World::ready(watched());
    for _ in 0..10 {
        ask(&mut world, not_ready());
    }
    assert_eq!(world.phase("main"), "unhealthy");
    ask(&mut world, good());
    assert_eq!(world.phase("main"), "unhealthy");
    ask(&mut world, good());
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn a_probe_that_is_not_answered_has_failed() {
    let mut world = World::ready(watched());
    world.after(seconds(120));
    assert_eq!(world.phase("main"), "stopping (sweep)");
}

#[test]
fn an_answer_that_nobody_asked_for_does_not_count() {
    let mut world = World::ready(watched());
    ask(&mut world, good());
    for _ in 0..5 {
        world.probed("main", silent());
    }
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn a_late_answer_of_the_startup_probe_does_not_count_against_a_ready_gateway() {
    let policy = with(watched(), |p| {
        p.health.startup = Startup::Probe;
        if let Some(watch) = &mut p.health.watch {
            watch.ready = Threshold::in_a_row(1);
        }
    });
    let mut world = World::of(&[("main", policy)]);
    world.launched("main");
    world.probed("main", good());
    world.probed("main", not_ready());
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn a_watch_taken_away_goes_on_until_the_next_start() {
    let mut world = World::ready(watched());
    world.update("main", plain()).unwrap();
    ask(&mut world, good());
    ask(&mut world, silent());
    world.restart("main").unwrap();
    world.exits("main", 0);
    world.up("main");
    world.orders("main");
    world.after(seconds(3_600));
    assert_eq!(world.orders("main"), [""; 0]);
}

#[test]
fn a_changed_way_to_judge_the_start_shows_at_the_next_start() {
    let mut world = World::of(&[("main", plain())]);
    world.launched("main");
    world.update("main", probed()).unwrap();
    world.tell(Event::Notified(name("main"), world.one("main").incarnation()));
    assert_eq!(world.phase("main"), "ready");
    world.exits("main", 1);
    world.after(seconds(1));
    world.launched("main");
    assert_eq!(world.orders("main").last().unwrap(), "probe #2 startup");
}

#[test]
fn a_watch_of_zero_length_does_not_go_in_circles() {
    let mut world = World::ready(with(plain(), |p| {
        let zero = std::time::Duration::ZERO;
        p.health.watch = Some(Watch {
            interval: zero,
            timeout: zero,
            live: Threshold::in_a_row(0),
            ready: Threshold::in_a_row(0),
        });
    }));
    world.after(seconds(60));
    world.stop("main").unwrap();
}

#[test]
fn a_start_that_may_take_no_time_fails_without_going_in_circles() {
    let mut world = World::of(&[("main", with(probed(), |p| p.health.startup_deadline = seconds(0)))]);
    world.launched("main");
    assert_eq!(world.phase("main"), "stopping (kill)");
}

#[test]
fn an_adopted_gateway_is_judged_anew() {
    let mut world = World::ready(probed());
    world.crash(Boot::Same);
    world.adopted_alive("main");
    assert_eq!(world.phase("main"), "starting");
    world.probed("main", good());
    assert_eq!(world.phase("main"), "ready");
}
