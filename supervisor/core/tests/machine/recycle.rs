//! Lives that are ended as planned.

use supervisor_core::{denied::Denied, policy::Policy};

use crate::support::world::{World, name, plain, seconds, warm, with};

fn fragile() -> Policy {
    with(plain(), |policy| policy.restart.budget = 1)
}

fn refused(world: &mut World, who: &str, life: u64) -> bool {
    world.recycle(who, life) == Err(Denied::NotRecycled(name(who)))
}

#[test]
fn a_recycled_gateway_is_asked_to_end_and_started_anew_at_once_and_nobody_stands_in_for_it() {
    let mut world = World::pair(warm(&["main"]));
    world.orders("main");
    world.recycle("main", 1).expect("it is ready");
    assert_eq!(world.phase("main"), "stopping");
    world.exits("main", 0);
    assert!(world.ordered("main", "launch #2"));
    world.up("main");
    assert_eq!(world.standing("main"), "own");
}

#[test]
fn only_the_life_that_is_meant_is_recycled() {
    let mut world = World::of(&[("main", plain())]);
    assert!(refused(&mut world, "main", 1), "it is not ready yet");
    world.up("main");
    world.recycle("main", 1).expect("it is ready");
    assert!(refused(&mut world, "main", 1), "it is ending");
    world.exits("main", 0);
    world.up("main");
    assert!(refused(&mut world, "main", 1), "that was the last one");
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn what_is_remembered_of_failures_outlives_it() {
    let mut world = World::of(&[("main", fragile())]);
    world.up("main");
    world.exits("main", 1);
    world.after(seconds(1));
    world.up("main");
    world.recycle("main", 2).expect("it is ready");
    world.exits("main", 0);
    world.up("main");
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "failed (budget, retried)");
}

#[test]
fn nobody_is_recycled_who_stands_in_for_another_or_is_stood_in_for() {
    let mut world = World::pair(warm(&["main"]));
    world.fail_over("main", None).expect("the rescue is ready");
    world.exits("rescue", 0);
    world.up("rescue");
    assert_eq!((world.phase("main").as_str(), world.phase("rescue").as_str()), ("ready", "ready"));
    let lives = ["main", "rescue"].map(|who| world.one(who).incarnation().0);
    assert!(refused(&mut world, "rescue", lives[1]));
    assert!(refused(&mut world, "main", lives[0]));
}

#[test]
fn nobody_is_recycled_while_somebody_works_on_it() {
    let mut world = World::ready(with(plain(), |policy| policy.ladder.held = true));
    assert!(refused(&mut world, "main", 1));
}
