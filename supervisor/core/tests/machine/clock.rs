//! The host is restarted, and its clock is behind what is stored.

use supervisor_core::{
    event::{Event, Exit, ExitStatus, Found},
    ids::Incarnation,
    instance::Boot,
    journal::Kind,
    time::Moment,
};

use crate::support::world::{World, name, plain, seconds, with};

#[test]
fn a_spent_budget_does_not_wait_for_the_clock_to_catch_up() {
    let mut world = World::ready(with(plain(), |p| {
        p.restart.budget = 1;
        p.restart.window = seconds(60);
    }));
    world.after(seconds(86_400));
    world.exits("main", 1);
    world.after(seconds(10));
    world.up("main");
    world.now = Moment(world.now.0 - 86_000_000_000_000);
    world.crash(Boot::New);
    world.adopted_gone("main");
    world.up("main");
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "failed (budget, retried)");
    world.after(seconds(61));
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn an_exit_after_the_restart_is_recorded_though_the_clock_is_before_the_creation() {
    let mut world = World::ready(plain());
    world.now = Moment(world.now.0 / 2);
    world.crash(Boot::New);
    world.adopted_gone("main");
    world.up("main");
    world.crash(Boot::Same);
    world.adopted_dead("main", 3);
    let exited = |kind: &Kind| matches!(kind, Kind::Exited(exit) if exit.status == ExitStatus::Code(3));
    assert_eq!(world.noted("main", exited), 1);
}

#[test]
fn an_exit_with_the_number_of_what_runs_is_a_deleted_namesakes() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    let found = world.found_alive("main");
    let later = Moment(u64::MAX);
    let status = ExitStatus::Code(0);
    let exit = Exit { incarnation: Incarnation(1), status, at: later, stragglers: 0, ordered: false };
    // The second answer is nothing new, and comes all the same.
    for _ in 0..2 {
        world.adopted("main", found, vec![exit.clone()]);
        assert_eq!(world.phase("main"), "ready");
    }
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Exited(_))), 0);
}

#[test]
fn an_exit_from_before_the_creation_is_not_recorded_where_nothing_is_found() {
    let mut world = World::ready(plain());
    world.crash(Boot::Same);
    let status = ExitStatus::Code(0);
    let exit = Exit { incarnation: Incarnation(7), status, at: Moment(1), stragglers: 0, ordered: false };
    world.adopted("main", Found::Nothing, vec![exit]);
    let of_seven = |kind: &Kind| matches!(kind, Kind::Exited(exit) if exit.incarnation.0 == 7);
    assert_eq!(world.noted("main", of_seven), 0);
}

#[test]
fn an_exit_that_is_still_to_happen_is_a_deleted_namesakes() {
    let left_behind = |world: &World| Exit {
        incarnation: world.one("main").incarnation(),
        status: ExitStatus::Code(1),
        at: Moment(world.now.0 + 7_200_000_000_000),
        stragglers: 0,
        ordered: true,
    };
    let mut world = World::ready(plain());
    let exit = left_behind(&world);
    world.tell(Event::Exited(name("main"), exit));
    assert_eq!(world.phase("main"), "ready");

    let mut world = World::of(&[("main", plain())]);
    world.stop("main").expect("its launch has left");
    let exit = left_behind(&world);
    world.tell(Event::Exited(name("main"), exit));
    assert_eq!(world.phase("main"), "stopping", "what is launched may be alive");
}
