//! A new supervisor, and what an earlier one left running.

use supervisor_core::{
    event::{Event, Exit, ExitStatus, Found, LaunchFailure, Process},
    ids::Incarnation,
    instance::Boot,
    journal::Kind,
    policy::{Condition, Startup},
    time::Moment,
};

use crate::support::world::{Disk, World, cold, name, plain, seconds, warm, with};

fn exit(incarnation: u64, code: i32) -> Exit {
    let at = supervisor_core::time::Moment(u64::MAX);
    Exit {
        incarnation: Incarnation(incarnation),
        status: ExitStatus::Code(code),
        at,
        stragglers: 0,
        ordered: false,
    }
}

#[test]
fn a_running_gateway_goes_on_in_the_same_life() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    assert_eq!(world.orders("main"), ["adopt"]);
    world.adopted_alive("main");
    assert_eq!(world.phase("main"), "ready");
    assert_eq!(world.one("main").incarnation(), Incarnation(1));
    assert_eq!(world.orders("main"), [""; 0]);
}

#[test]
fn an_exit_that_happened_meanwhile_is_learned_recorded_and_acknowledged() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.adopted_dead("main", 3);
    assert_eq!(world.phase("main"), "backoff");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Exited(_))), 1);
    assert_eq!(world.orders("main"), ["adopt", "acknowledge #1"]);
}

#[test]
fn the_budget_does_not_begin_anew_with_the_next_supervisor() {
    let mut world = World::ready(with(plain(), |p| p.restart.budget = 2));
    for _ in 0..2 {
        world.exits("main", 1);
        world.after(seconds(10));
        world.up("main");
    }
    world.crash(Boot::Same);
    world.adopted_alive("main");
    assert_eq!(world.one("main").restarts().total(), 2);
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "failed (budget, retried)");
}

#[test]
fn a_gateway_of_which_nothing_is_left_has_an_exit_that_nobody_saw() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.adopted_gone("main");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Exited(_))), 1);
    assert_eq!(world.one("main").last_exit().unwrap().status, ExitStatus::Unknown);
}

#[test]
fn a_life_whose_end_could_not_be_stored_has_an_exit_when_a_later_one_is_found() {
    let running = Found::Running {
        incarnation: Incarnation(3),
        process: Process { pid: 7, worker_pid: 6, started: Moment(u64::MAX) },
        notified: false,
        stopping: false,
    };
    let idle = Found::Idle { incarnation: Incarnation(2) };
    for (found, exits, recorded) in [
        (running, vec![], [1].as_slice()),
        (running, vec![exit(2, 3)], &[1, 2]),
        (idle, vec![exit(2, 3)], &[1, 2]),
    ] {
        let mut world = World::ready(plain());
        world.crash(Boot::Same);
        world.adopted("main", found, exits);
        for incarnation in recorded {
            let of = |kind: &Kind| matches!(kind, Kind::Exited(exit) if exit.incarnation.0 == *incarnation);
            assert_eq!(world.noted("main", of), 1, "incarnation {incarnation}");
        }
    }
}

#[test]
fn an_exit_recorded_before_the_crash_is_not_recorded_again() {
    let mut world = World::ready(plain());
    world.exits("main", 3);
    world.crash(Boot::Same);
    world.adopted("main", Found::Idle { incarnation: Incarnation(1) }, vec![exit(1, 3)]);
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Exited(_))), 1);
    assert_eq!(world.orders("main"), ["adopt", "launch #101", "acknowledge #1"]);
}

#[test]
fn a_number_that_an_earlier_supervisor_may_have_used_is_not_used_again() {
    let mut world = World::of(&[("main", plain())]);
    // Launch #1 has left, and may have run, but nothing of that is durable when the supervisor dies.
    world.crash(Boot::Same);
    world.adopted_gone("main");
    let launch = world.launch("main").unwrap();
    assert!(launch.incarnation > Incarnation(1), "{launch:?}");
}

#[test]
fn numbers_of_launches_that_failed_under_an_earlier_supervisor_are_not_used_again() {
    let mut world = World::ready(plain());
    world.exits("main", 1);
    world.after(seconds(1));
    world.launch_fails("main", LaunchFailure::Spawn("no such file".into()));
    world.crash(Boot::Same);
    world.adopted("main", Found::Idle { incarnation: Incarnation(1) }, vec![]);
    assert!(world.launch("main").unwrap().incarnation > Incarnation(2));
}

#[test]
fn after_a_gateway_that_was_found_running_comes_the_next_number() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.adopted_alive("main");
    world.exits("main", 1);
    world.after(seconds(1));
    assert_eq!(world.launch("main").unwrap().incarnation, Incarnation(2));
}

#[test]
fn a_worker_with_a_number_beyond_the_reserved_ones_is_believed() {
    for number in [5_000, u64::MAX - 3, u64::MAX] {
        let mut world = World::ready(plain());
        world.dies_unseen("main");
        world.crash(Boot::Same);
        world.adopted("main", Found::Idle { incarnation: Incarnation(number) }, vec![]);
        world.after(seconds(1));
        assert!(world.one("main").incarnation() >= Incarnation(number));
    }
}

#[test]
fn after_a_restart_of_the_host_everything_wished_up_starts_at_once() {
    let mut world = World::pair(warm(&["main"]));
    world.crash(Boot::New);
    world.adopted_gone("main");
    world.adopted_gone("rescue");
    assert_eq!((world.phase("main").as_str(), world.phase("rescue").as_str()), ("spawning", "spawning"));
    assert_eq!(world.standing("main"), "own");
}

#[test]
fn what_was_stopped_stays_stopped_and_what_runs_of_it_is_ended() {
    let mut world = World::ready(plain());
    world.stop("main").unwrap();
    world.crash(Boot::Same);
    world.adopted_alive("main");
    assert_eq!(world.phase("main"), "stopping");
    world.exits("main", 0);
    assert_eq!(world.phase("main"), "stopped");
}

#[test]
fn a_gateway_found_stopping_is_run_again_if_it_is_wished_up() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    let process = supervisor_core::event::Process { pid: 101, worker_pid: 99, started: world.now };
    let incarnation = Incarnation(1);
    world.adopted("main", Found::Running { incarnation, process, notified: true, stopping: true }, vec![]);
    assert_eq!(world.phase("main"), "stopping");
    world.exits("main", 0);
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn an_adoption_that_is_not_answered_ends_in_a_sweep_and_a_new_life() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.after(seconds(30));
    assert_eq!(world.orders("main"), ["adopt", "sweep #1"]);
    world.swept("main");
    world.after(seconds(1));
    let launch = world.launch("main").unwrap();
    assert!(launch.incarnation > Incarnation(100));
}

#[test]
fn an_adoption_that_is_not_answered_is_a_death_that_calls_the_rescue() {
    let mut world = World::pair(cold(&["main"]));
    world.crash(Boot::Same);
    world.adopted_gone("rescue");
    world.after(seconds(30));
    assert_eq!(world.standing("main"), "promoting rescue");
}

#[test]
fn an_adoption_answered_during_the_sweep_does_not_stop_the_sweep() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.after(seconds(30));
    let (incarnation, process) =
        (Incarnation(7), supervisor_core::event::Process { pid: 7, worker_pid: 6, started: world.now });
    world.adopted("main", Found::Running { incarnation, process, notified: true, stopping: false }, vec![]);
    assert_eq!(world.phase("main"), "stopping (sweep)");
    world.swept("main");
    assert_eq!(world.phase("main"), "backoff");
    assert_eq!(world.one("main").record().seen, Incarnation(7));
}

#[test]
fn an_adoption_answered_twice_counts_once() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.adopted_alive("main");
    world.restart("main").unwrap();
    world.adopted_alive("main");
    world.exits("main", 0);
    world.up("main");
    let before = world.one("main").clone();
    let process = before.process().unwrap();
    let found = Found::Running { incarnation: Incarnation(1), process, notified: true, stopping: false };
    world.adopted("main", found, vec![exit(1, 0)]);
    assert_eq!(*world.one("main"), before);
}

#[test]
fn an_exit_reported_beside_the_adoption_does_not_stand_for_it() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.stop("main").unwrap();
    world.tell(Event::Exited(name("main"), exit(1, 0)));
    assert_eq!(world.phase("main"), "stopping", "a later life may run: only the adoption can tell");
    world.adopted("main", Found::Idle { incarnation: Incarnation(1) }, vec![]);
    assert_eq!(world.phase("main"), "stopped");
}

#[test]
fn a_life_whose_exit_is_recorded_is_not_adopted() {
    let mut world = World::ready(plain());
    world.dies_unseen("main");
    world.crash(Boot::Same);
    world.tell(Event::Exited(name("main"), exit(1, 1)));
    let process = supervisor_core::event::Process { pid: 101, worker_pid: 99, started: world.now };
    let found = Found::Running { incarnation: Incarnation(1), process, notified: true, stopping: false };
    world.adopted("main", found, vec![]);
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn a_forced_stop_during_the_adoption_is_forced() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.force_stop("main").unwrap();
    world.adopted_alive("main");
    assert_eq!(world.orders("main"), ["adopt", "kill #1"]);
}

#[test]
fn a_restart_during_the_adoption_ends_what_is_found() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.restart("main").unwrap();
    world.adopted_alive("main");
    assert_eq!(world.phase("main"), "stopping");
    world.exits("main", 0);
    assert_eq!(world.launch("main").unwrap().incarnation, Incarnation(2));
}

#[test]
fn a_stop_during_an_adoption_that_is_never_answered_is_done_by_a_sweep() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.stop("main").unwrap();
    world.after(seconds(30));
    assert_eq!(world.phase("main"), "stopping (sweep)");
    world.swept("main");
    assert_eq!(world.phase("main"), "stopped");
}

#[test]
fn an_instance_that_was_to_run_once_is_not_run_again_by_a_new_supervisor() {
    let mut world = World::ready(with(plain(), |p| p.restart.condition = Condition::OnFailure));
    world.exits("main", 0);
    world.crash(Boot::Same);
    world.adopted_gone("main");
    assert_eq!(world.phase("main"), "failed (not restarted)");
    world.start("main").unwrap();
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn an_instance_that_was_to_run_once_runs_again_after_a_restart_of_the_host() {
    let mut world = World::ready(with(plain(), |p| p.restart.condition = Condition::OnFailure));
    world.exits("main", 0);
    world.crash(Boot::New);
    world.adopted_gone("main");
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn the_generation_that_a_running_gateway_was_started_with_is_remembered() {
    let mut world = World::ready(plain());
    world.update("main", with(plain(), |p| p.restart.budget = 7)).unwrap();
    world.crash(Boot::Same);
    world.adopted_alive("main");
    assert_eq!(world.one("main").record().generation, 2);
    assert_eq!(world.one("main").observed_generation(), 1);
}

#[test]
fn a_rescue_that_stands_in_goes_on_standing_in_under_the_next_supervisor() {
    let mut world = World::pair(cold(&["main"]));
    world.exits("main", 1);
    world.up("rescue");
    world.crash(Boot::Same);
    world.adopted_alive("rescue");
    world.adopted_gone("main");
    assert_eq!((world.standing("main").as_str(), world.phase("rescue").as_str()), ("away rescue", "ready"));
}

#[test]
fn a_rescue_found_dead_where_it_stood_in_has_to_be_ready_again_first() {
    let mut world = World::pair(cold(&["main"]));
    world.exits("main", 1);
    world.up("rescue");
    world.crash(Boot::Same);
    world.adopted_dead("rescue", 9);
    assert_eq!(world.standing("main"), "promoting rescue");
}

#[test]
fn after_a_restart_of_the_host_a_rescue_has_to_be_ready_again_before_it_stands_in() {
    let mut world = World::pair(warm(&["main"]));
    world.fail_over("main", None).unwrap();
    world.exits("rescue", 0);
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
    world.crash(Boot::New);
    world.adopted_gone("rescue");
    assert_eq!(world.standing("main"), "promoting rescue");
    world.adopted_gone("main");
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn a_promotion_cut_short_is_finished_by_the_next_supervisor() {
    let mut world = World::pair(warm(&["main"]));
    world.exits("main", 1);
    assert_eq!(world.standing("main"), "promoting rescue");
    // The order to restart the rescue is lost with the supervisor.
    world.crash(Boot::Same);
    world.adopted_alive("rescue");
    assert_eq!(world.phase("rescue"), "stopping");
    world.exits("rescue", 0);
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn a_notified_gateway_is_not_asked_to_say_it_again() {
    let mut world = World::ready(with(plain(), |p| p.health.startup = Startup::Notify));
    world.disk(Disk::Stuck);
    world.crash(Boot::Same);
    world.adopted_alive("main");
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn an_exit_that_a_deleted_namesake_left_behind_is_not_taken_for_its_own() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    let (found, old) = (world.found_alive("main"), supervisor_core::time::Moment(7));
    world.tell(Event::Exited(name("main"), Exit { at: old, ..exit(30, 0) }));
    world.adopted("main", found, vec![Exit { at: old, ..exit(30, 0) }]);
    assert_eq!((world.phase("main").as_str(), world.one("main").incarnation()), ("ready", Incarnation(1)));
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Exited(_))), 0);
}

#[test]
fn an_adopted_rescue_is_told_again_for_whom_it_stands_in() {
    let mut world = World::pair(warm(&["main"]));
    world.crash(Boot::Same);
    world.adopted_alive("rescue");
    assert_eq!(world.orders("rescue"), ["adopt", "inform of none"]);
}

#[test]
fn a_rescue_found_ready_for_one_primary_is_not_restarted_for_another() {
    let mut world = World::of(&[("a", plain()), ("main", plain()), ("rescue", warm(&["a", "main"]))]);
    ["a", "main", "rescue"].iter().for_each(|who| world.up(who));
    world.exits("rescue", 1);
    world.exits("a", 1);
    world.launched("rescue");
    world.exits("main", 1);
    // The order to restart the rescue for `main` is lost, and it becomes ready meanwhile.
    world.crash(Boot::Same);
    world.adopted_alive("rescue");
    assert_eq!((world.standing("a"), world.standing("main")), ("away rescue".into(), "away rescue".into()));
    assert_eq!(world.phase("rescue"), "ready");
}

#[test]
fn an_exit_learned_in_an_adoption_is_durable_before_it_is_acknowledged() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.disk(Disk::Stuck);
    world.adopted_dead("main", 3);
    assert_eq!(world.orders("main"), ["adopt"]);
    world.disk(Disk::Prompt);
    assert_eq!(world.orders("main"), ["acknowledge #1"]);
    assert_eq!(world.durable.records[&name("main")].seen, Incarnation(1));
}

#[test]
fn a_worker_lost_before_its_adoption_is_answered_is_not_adopted() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    world.worker_lost("main");
    assert_eq!(world.orders("main"), ["adopt", "sweep #1"]);
    world.adopted_alive("main");
    world.swept("main");
    assert_eq!(world.phase("main"), "backoff");
}

#[test]
fn an_exit_from_before_its_start_is_not_its_own() {
    let mut world = World::of(&[("main", plain())]);
    let old = Exit { at: supervisor_core::time::Moment(7), ..exit(1, 0) };
    world.tell(Event::Exited(name("main"), old.clone()));
    assert_eq!(world.phase("main"), "spawning");
    world.up("main");
    world.tell(Event::Exited(name("main"), old));
    assert_eq!(world.phase("main"), "ready");
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "backoff");
}
