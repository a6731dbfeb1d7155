//! One instance: starts, deaths, restarts, stops.

use std::time::Duration;

use supervisor_core::{
    action::Action,
    event::{Event, ExitStatus, LaunchFailure, Process},
    ids::Incarnation,
    journal::Kind,
    policy::{Condition, Startup},
    restart::Restarts,
};

use crate::support::world::{World, cold, name, plain, seconds, with};

#[test]
fn a_started_instance_is_launched_and_is_ready_once_it_says_so() {
    let mut world = World::of(&[("main", plain())]);
    assert_eq!(world.phase("main"), "spawning");
    world.launched("main");
    assert_eq!(world.phase("main"), "starting");
    world.tell(Event::Notified(name("main"), Incarnation(1)));
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn an_instance_that_is_ready_at_once_is_ready_when_it_runs() {
    let mut world = World::of(&[("main", with(plain(), |p| p.health.startup = Startup::AtOnce))]);
    world.launched("main");
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn readiness_said_before_the_launch_is_reported_counts() {
    let mut world = World::of(&[("main", plain())]);
    world.tell(Event::Notified(name("main"), Incarnation(1)));
    assert_eq!(world.phase("main"), "spawning");
    world.launched("main");
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn readiness_of_an_earlier_life_does_not_count() {
    let mut world = World::ready(plain());
    world.exits("main", 1);
    world.after(seconds(1));
    world.launched("main");
    world.tell(Event::Notified(name("main"), Incarnation(1)));
    assert_eq!(world.phase("main"), "starting");
}

#[test]
fn a_dead_gateway_is_run_again_after_its_backoff() {
    let mut world = World::ready(plain());
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "backoff");
    assert_eq!(world.orders("main"), ["acknowledge #1"]);
    world.after(seconds(1));
    assert_eq!(world.orders("main"), ["launch #2"]);
}

#[test]
fn without_a_delay_the_next_launch_leaves_with_the_report_of_the_death() {
    let mut world = World::ready(with(plain(), |p| p.restart.initial_delay = Duration::ZERO));
    world.exits("main", 1);
    assert_eq!(world.orders("main"), ["launch #2", "acknowledge #1"]);
}

#[test]
fn a_death_before_the_launch_is_reported_is_a_death() {
    let mut world = World::of(&[("main", plain())]);
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "backoff");
    world.launched("main");
    assert_eq!(world.phase("main"), "backoff");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::StaleReport { .. })), 1);
}

#[test]
fn a_death_reported_twice_counts_once() {
    let mut world = World::ready(plain());
    let exit = world.exit("main", ExitStatus::Code(1));
    world.exits("main", 1);
    let before = world.one("main").clone();
    world.tell(Event::Exited(name("main"), exit));
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Exited(_))), 1);
    assert_eq!(*world.one("main"), before);
}

#[test]
fn a_death_for_want_of_memory_is_named_and_is_one_that_another_start_may_mend() {
    let mut world = World::ready(plain());
    world.ends("main", ExitStatus::OutOfMemory);
    assert_eq!(world.phase("main"), "backoff");
    let named = |kind: &Kind| kind.to_string() == "killed by SIGKILL, out of memory";
    assert_eq!(world.noted("main", named), 1);
}

#[test]
fn a_stale_report_leaves_the_instance_as_it_was() {
    let mut world = World::ready(plain());
    world.exits("main", 1);
    world.after(seconds(1));
    world.up("main");
    let before = world.one("main").clone();
    let process = Process { pid: 7, worker_pid: 7, started: world.now };
    world.tell(Event::Launched(name("main"), Incarnation(1), process));
    world.tell(Event::LaunchFailed(name("main"), Incarnation(1), LaunchFailure::NoAnswer));
    world.tell(Event::WorkerLost(name("main"), Incarnation(1)));
    world.tell(Event::Swept(name("main"), Incarnation(1)));
    world.tell(Event::Notified(name("main"), Incarnation(3)));
    assert_eq!(*world.one("main"), before);
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::StaleReport { .. })), 5);
}

#[test]
fn an_exit_of_a_life_that_never_was_is_not_acknowledged() {
    let mut world = World::ready(plain());
    let mut exit = world.exit("main", ExitStatus::Code(1));
    exit.incarnation = Incarnation(9);
    world.tell(Event::Exited(name("main"), exit));
    assert_eq!(world.phase("main"), "ready");
    assert_eq!(world.orders("main"), [""; 0]);
}

#[test]
fn a_status_that_another_start_cannot_mend_ends_the_restarts() {
    let mut world = World::ready(with(plain(), |p| p.restart.fatal_codes = vec![78]));
    world.exits("main", 78);
    assert_eq!(world.phase("main"), "failed (fatal)");
    assert_eq!(world.orders("main"), ["release", "acknowledge #1"]);
    assert_eq!(world.core.next_deadline(), None);
}

#[test]
fn an_instance_to_be_run_once_is_not_run_again() {
    let mut world = World::ready(with(plain(), |p| p.restart.condition = Condition::Never));
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "failed (not restarted)");
}

#[test]
fn a_success_is_not_restarted_on_failure_only() {
    let on_failure = with(plain(), |p| p.restart.condition = Condition::OnFailure);
    let mut world = World::ready(on_failure);
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "backoff");
    world.after(seconds(1));
    world.up("main");
    world.exits("main", 0);
    assert_eq!(world.phase("main"), "failed (not restarted)");
}

#[test]
fn a_spent_budget_waits_until_the_oldest_restart_leaves_the_window() {
    let mut world = World::ready(with(plain(), |p| {
        p.restart.budget = 2;
        p.restart.window = seconds(100);
    }));
    for _ in 0..2 {
        world.exits("main", 1);
        world.after(seconds(5));
        world.up("main");
    }
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "failed (budget, retried)");
    world.after(seconds(85));
    assert_eq!(world.phase("main"), "failed (budget, retried)");
    world.after(seconds(10));
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn a_budget_of_none_means_never() {
    let mut world = World::ready(with(plain(), |p| p.restart.budget = 0));
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "failed (budget)");
    world.after(seconds(100_000));
    assert_eq!(world.phase("main"), "failed (budget)");
}

#[test]
fn a_budget_made_smaller_is_kept() {
    let roomy = with(plain(), |p| {
        p.restart.budget = 5;
        p.restart.multiplier_permille = 1_000;
    });
    let mut world = World::ready(roomy.clone());
    for _ in 0..5 {
        world.exits("main", 1);
        world.after(seconds(10));
        world.up("main");
    }
    world.update("main", with(roomy, |p| p.restart.budget = 2)).unwrap();
    world.exits("main", 1);
    // Restarts happened after 1, 11, 21, 31 and 41 seconds; two may stay within 600 seconds.
    world.after(seconds(580));
    assert_eq!(world.phase("main"), "failed (budget, retried)");
    world.after(seconds(2));
    assert_eq!(world.phase("main"), "spawning");
    assert!(within(world.one("main").restarts(), &world) <= 2);
}

fn within(restarts: &Restarts, world: &World) -> usize {
    restarts.within(world.now, seconds(600))
}

#[test]
fn once_stable_its_delays_begin_anew() {
    let mut world = World::ready(plain());
    world.exits("main", 1);
    world.after(seconds(1));
    world.up("main");
    world.after(seconds(61));
    world.exits("main", 1);
    world.after(seconds(1));
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn a_program_that_cannot_be_run_is_tried_again_with_growing_delays() {
    let mut world = World::of(&[("main", plain())]);
    world.launch_fails("main", LaunchFailure::Spawn("no such file".into()));
    assert_eq!(world.phase("main"), "backoff");
    world.after(seconds(1));
    world.launch_fails("main", LaunchFailure::Spawn("no such file".into()));
    world.after(seconds(1));
    assert_eq!(world.phase("main"), "backoff");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::LaunchFailed(_))), 1);
}

#[test]
fn a_taken_port_is_looked_at_again_and_the_budget_is_not_touched() {
    let mut world = World::of(&[("main", plain())]);
    for _ in 0..30 {
        let taken = LaunchFailure::PortTaken { port: 18_789, holder: "pid 7 (nc)".into() };
        world.launch_fails("main", taken);
        assert_eq!(world.phase("main"), "failed (launch, retried)");
        world.after(seconds(10));
    }
    assert_eq!(world.phase("main"), "spawning");
    assert_eq!(world.one("main").restarts().total(), 0);
}

#[test]
fn trouble_counts_from_its_beginning_until_it_is_well_for_long_enough() {
    let mut world = World::ready(plain());
    assert_eq!(world.one("main").restarts().since(), None);
    let died = world.now;
    for _ in 0..3 {
        world.exits("main", 1);
        assert_eq!(world.one("main").restarts().since(), Some(died));
        world.after(seconds(10));
        world.up("main");
        assert_eq!(world.phase("main"), "ready");
    }
    world.after(seconds(61));
    assert_eq!(world.one("main").restarts().since(), None);
}

#[test]
fn what_could_not_be_started_is_well_again_once_it_is_ready() {
    let mut world = World::of(&[("main", plain())]);
    let began = world.now;
    for _ in 0..3 {
        let taken = LaunchFailure::PortTaken { port: 18_789, holder: "pid 7 (nc)".into() };
        world.launch_fails("main", taken);
        assert_eq!(world.one("main").restarts().since(), Some(began));
        world.after(seconds(10));
    }
    world.up("main");
    assert_eq!(world.one("main").restarts().since(), None);
}

#[test]
fn a_launch_that_is_not_answered_is_swept_away_and_tried_again() {
    let mut world = World::of(&[("main", plain())]);
    world.after(seconds(30));
    assert_eq!(world.orders("main"), ["sweep #1"]);
    world.swept("main");
    assert_eq!(world.phase("main"), "backoff");
    world.after(seconds(1));
    assert_eq!(world.orders("main"), ["launch #2"]);
}

#[test]
fn a_launch_answered_during_its_sweep_leaves_an_exit_behind() {
    let mut world = World::of(&[("main", plain())]);
    world.after(seconds(30));
    world.launched("main");
    assert_eq!(world.phase("main"), "stopping (sweep)");
    world.swept("main");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Exited(_))), 1);
    assert_eq!(world.one("main").record().seen, Incarnation(1));
}

#[test]
fn a_launch_that_fails_during_its_sweep_waits_for_the_sweep() {
    let mut world = World::of(&[("main", plain())]);
    world.worker_lost("main");
    world.launch_fails("main", LaunchFailure::Spawn("gone".into()));
    assert_eq!(world.phase("main"), "stopping (sweep)");
    world.swept("main");
    assert_eq!(world.phase("main"), "backoff");
}

#[test]
fn a_launch_that_fails_after_its_stop_was_overdue_waits_for_the_sweep() {
    let mut world = World::of(&[("main", plain())]);
    world.stop("main").unwrap();
    world.after(seconds(20));
    world.launch_fails("main", LaunchFailure::Spawn("gone".into()));
    assert_eq!(world.phase("main"), "stopping (sweep)");
    world.swept("main");
    assert_eq!(world.phase("main"), "stopped");
}

#[test]
fn a_lost_worker_is_swept_away_before_the_next_start() {
    let mut world = World::ready(plain());
    world.worker_lost("main");
    assert_eq!(world.orders("main"), ["sweep #1"]);
    world.after(seconds(10));
    assert_eq!(world.orders("main"), ["sweep #1"]);
    world.swept("main");
    world.after(seconds(1));
    assert_eq!(world.orders("main"), ["launch #2"]);
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Exited(_))), 1);
}

#[test]
fn a_worker_lost_while_nothing_runs_changes_nothing() {
    let mut world = World::ready(plain());
    world.exits("main", 1);
    world.worker_lost("main");
    assert_eq!(world.phase("main"), "backoff");
    world.after(seconds(1));
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn the_exit_of_a_swept_life_is_recorded_once_even_if_its_own_report_comes_too() {
    let mut world = World::ready(plain());
    let exit = world.exit("main", ExitStatus::Code(3));
    world.worker_lost("main");
    world.tell(Event::Exited(name("main"), exit.clone()));
    assert_eq!(world.phase("main"), "stopping (sweep)");
    world.swept("main");
    world.tell(Event::Exited(name("main"), exit));
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Exited(_))), 1);
    assert_eq!(world.one("main").last_exit().unwrap().status, ExitStatus::Code(3));
}

#[test]
fn a_stop_is_asked_for_then_forced_then_swept() {
    let mut world = World::ready(plain());
    world.stop("main").unwrap();
    assert_eq!(world.orders("main"), ["stop #1 within 10s"]);
    world.after(seconds(20));
    assert_eq!(world.orders("main"), ["kill #1"]);
    world.after(seconds(10));
    assert_eq!(world.orders("main"), ["sweep #1"]);
    world.swept("main");
    assert_eq!(world.phase("main"), "stopped");
    assert_eq!(world.orders("main"), ["release"]);
}

#[test]
fn a_stop_can_be_made_harsher_but_not_milder() {
    let mut world = World::ready(plain());
    world.stop("main").unwrap();
    world.force_stop("main").unwrap();
    world.stop("main").unwrap();
    assert_eq!(world.orders("main"), ["stop #1 within 10s", "kill #1"]);
    assert_eq!(world.phase("main"), "stopping (kill)");
}

#[test]
fn a_stop_in_the_middle_of_a_launch_stops_what_comes_of_it() {
    let mut world = World::of(&[("main", plain())]);
    world.stop("main").unwrap();
    assert_eq!(world.orders("main"), ["stop #1 within 10s"]);
    world.launched("main");
    assert_eq!(world.orders("main"), ["stop #1 within 10s"]);
    world.exits("main", 0);
    assert_eq!(world.phase("main"), "stopped");
}

#[test]
fn a_stop_in_the_middle_of_a_launch_that_fails_is_done() {
    let mut world = World::of(&[("main", plain())]);
    world.stop("main").unwrap();
    world.launch_fails("main", LaunchFailure::Spawn("no".into()));
    assert_eq!(world.phase("main"), "stopped");
    assert_eq!(world.one("main").death(), None);
}

#[test]
fn a_stop_ends_the_wait_for_the_next_start() {
    let mut world = World::ready(plain());
    world.exits("main", 1);
    world.stop("main").unwrap();
    assert_eq!(world.phase("main"), "stopped");
    world.after(seconds(100));
    assert_eq!(world.phase("main"), "stopped");
}

#[test]
fn a_stopped_instance_stays_stopped_whatever_is_reported() {
    let mut world = World::ready(plain());
    world.stop("main").unwrap();
    world.exits("main", 1);
    world.orders("main");
    let process = Process { pid: 7, worker_pid: 7, started: world.now };
    world.tell(Event::Launched(name("main"), Incarnation(1), process));
    world.tell(Event::Notified(name("main"), Incarnation(1)));
    world.worker_lost("main");
    world.tell(Event::Swept(name("main"), Incarnation(1)));
    world.after(seconds(1_000));
    assert_eq!(world.phase("main"), "stopped");
    assert_eq!(world.orders("main"), [""; 0]);
}

#[test]
fn a_start_while_stopping_begins_anew_once_all_is_dead() {
    let mut world = World::ready(plain());
    world.stop("main").unwrap();
    world.start("main").unwrap();
    assert_eq!(world.phase("main"), "stopping");
    world.orders("main");
    world.exits("main", 0);
    assert_eq!(world.orders("main"), ["launch #2", "acknowledge #1"]);
}

#[test]
fn a_start_forgets_the_deaths_before_it() {
    let mut world = World::ready(with(plain(), |p| p.restart.fatal_codes = vec![78]));
    world.exits("main", 78);
    world.start("main").unwrap();
    assert_eq!(world.phase("main"), "spawning");
    assert_eq!(world.one("main").restarts().total(), 0);
}

#[test]
fn a_restart_by_hand_costs_no_budget() {
    let mut world = World::ready(plain());
    world.restart("main").unwrap();
    world.exits("main", 0);
    assert_eq!(world.orders("main"), ["stop #1 within 10s", "launch #2", "acknowledge #1"]);
    assert_eq!(world.one("main").restarts().total(), 0);
}

#[test]
fn a_cold_standby_is_settled_while_it_is_down() {
    let world = World::pair(cold(&["main"]));
    assert_eq!(world.phase("rescue"), "stopped");
    assert!(world.one("rescue").settled() && world.one("rescue").is_cold_standby());
}

#[test]
fn halting_ends_everything_and_keeps_the_wishes() {
    let mut world = World::pair(crate::support::world::warm(&["main"]));
    let halt = world.submit(supervisor_core::event::Command::Halt);
    assert!(world.start("main").is_err());
    world.exits("main", 0);
    assert_eq!(world.answer(halt), None);
    world.exits("rescue", 0);
    assert!(world.answer(halt).unwrap().is_ok());
    assert!(world.durable.records.values().all(|r| r.wish == supervisor_core::record::Wish::Up));
}

#[test]
fn halting_waits_for_an_adoption_and_ends_what_it_finds() {
    let mut world = World::ready(plain());
    world.crash(supervisor_core::instance::Boot::Same);
    let halt = world.submit(supervisor_core::event::Command::Halt);
    world.adopted_alive("main");
    assert_eq!(world.phase("main"), "stopping");
    world.exits("main", 0);
    assert!(world.answer(halt).unwrap().is_ok());
}

#[test]
fn a_second_halt_is_answered_too() {
    let mut world = World::ready(plain());
    let first = world.submit(supervisor_core::event::Command::Halt);
    let second = world.submit(supervisor_core::event::Command::Halt);
    world.exits("main", 0);
    let third = world.submit(supervisor_core::event::Command::Halt);
    assert!([first, second, third].iter().all(|id| world.answer(*id).is_some_and(Result::is_ok)));
}

#[test]
fn numbers_are_reserved_before_they_run_out_and_no_restart_waits_for_the_disk() {
    let mut world = World::ready(with(plain(), |p| {
        p.restart.initial_delay = Duration::ZERO;
        p.restart.budget = 1_000;
    }));
    for _ in 0..250 {
        world.exits("main", 1);
        assert_eq!(world.phase("main"), "spawning");
        world.up("main");
    }
    assert_eq!(world.one("main").incarnation(), Incarnation(251));
    let launches = world.actions.iter().filter(|action| matches!(action, Action::Launch(_)));
    assert_eq!(launches.count(), 250);
}
