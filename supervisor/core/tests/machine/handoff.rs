//! Exits with status 0 of gateways that may want to be run again.

use supervisor_core::{
    event::{Event, Handoff},
    ids::Incarnation,
    journal::{Kind, Recovery},
    policy::{Condition, Policy},
};

use crate::support::world::{World, name, plain, seconds, warm, with};

fn openclaw() -> Policy {
    with(plain(), |policy| policy.restart.handoff = true)
}

fn on_failure() -> Policy {
    with(openclaw(), |policy| policy.restart.condition = Condition::OnFailure)
}

fn pair() -> World {
    let mut world = World::of(&[("main", openclaw()), ("rescue", warm(&["main"]))]);
    world.up("main");
    world.up("rescue");
    world.orders("main");
    world
}

fn answer(world: &mut World, incarnation: u64, handoff: Handoff) {
    world.tell(Event::Handoff(name("main"), Incarnation(incarnation), handoff));
}

fn wanted() -> Handoff {
    Handoff::Restart("config.apply".into())
}

#[test]
fn a_gateway_that_wants_to_be_restarted_is_and_nobody_stands_in_for_it() {
    let mut world = pair();
    world.exits("main", 0);
    assert!(world.ordered("main", "ask about #1"));
    answer(&mut world, 1, wanted());
    assert!(world.ordered("main", "launch #2"), "at once");
    world.up("main");
    assert_eq!(world.standing("main"), "own");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Recovery(Recovery::RestartWanted { .. }))), 1);
}

#[test]
fn one_that_ended_for_another_reason_has_died_and_its_rescue_is_called() {
    for handoff in [Handoff::Nothing, Handoff::Unknown("it took too long".into())] {
        let mut world = pair();
        world.exits("main", 0);
        assert_eq!(world.standing("main"), "own");
        answer(&mut world, 1, handoff);
        assert_eq!(world.standing("main"), "promoting rescue");
    }
}

#[test]
fn one_that_nobody_can_tell_about_has_died() {
    let mut world = pair();
    world.exits("main", 0);
    world.after(seconds(29));
    assert_eq!((world.phase("main").as_str(), world.standing("main").as_str()), ("backoff", "own"));
    world.after(seconds(1));
    assert_eq!(world.standing("main"), "promoting rescue");
    answer(&mut world, 1, wanted());
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::StaleReport { .. })), 1, "too late");
}

#[test]
fn an_operator_need_not_wait_for_the_answer() {
    let mut world = pair();
    world.exits("main", 0);
    world.start("main").expect("an operator may");
    assert!(world.ordered("main", "launch #2"));
    answer(&mut world, 1, Handoff::Nothing);
    assert_eq!((world.phase("main").as_str(), world.standing("main").as_str()), ("spawning", "own"));
}

#[test]
fn one_that_is_left_down_after_a_clean_exit_waits_for_the_answer() {
    let mut world = World::ready(on_failure());
    world.exits("main", 0);
    assert_eq!(world.phase("main"), "backoff");
    answer(&mut world, 1, Handoff::Nothing);
    assert_eq!(world.phase("main"), "failed (not restarted)");

    let mut world = World::ready(on_failure());
    world.exits("main", 0);
    answer(&mut world, 1, wanted());
    assert_eq!(world.phase("main"), "spawning");

    let mut world = World::ready(on_failure());
    world.exits("main", 0);
    world.after(seconds(30));
    assert_eq!(world.phase("main"), "failed (not restarted)", "nobody has answered");
}

#[test]
fn an_answer_about_an_earlier_life_changes_nothing() {
    let mut world = pair();
    world.exits("main", 0);
    world.start("main").expect("an operator may");
    world.up("main");
    world.exits("main", 0);
    answer(&mut world, 1, Handoff::Nothing);
    assert_eq!(world.standing("main"), "own");
    answer(&mut world, 2, Handoff::Nothing);
    assert_eq!(world.standing("main"), "promoting rescue");
}

#[test]
fn other_ends_are_not_asked_about() {
    let mut world = pair();
    world.exits("main", 1);
    assert!(!world.ordered("main", "ask about #1"));
    assert_eq!(world.standing("main"), "promoting rescue");
    let mut world = World::ready(openclaw());
    world.stop("main").expect("it runs");
    world.exits("main", 0);
    assert!(!world.ordered("main", "ask about #1"));
}

#[test]
fn a_gateway_that_restarts_itself_again_and_again_is_held_by_its_budget() {
    let mut world = World::ready(with(openclaw(), |policy| policy.restart.budget = 3));
    for life in 1..=4 {
        world.exits("main", 0);
        answer(&mut world, life, wanted());
        if world.launch("main").is_some() {
            world.up("main");
        }
    }
    assert_eq!(world.phase("main"), "failed (budget, retried)");
}
