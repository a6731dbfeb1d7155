//! Who stands in for whom.

use std::time::Duration;

use supervisor_core::{
    denied::Denied,
    event::LaunchFailure,
    failover::{Cause, Incident},
    ids::Incarnation,
    instance::Boot,
    journal::Kind,
    policy::{Condition, Failback, Policy},
    view::Role,
};

use crate::support::world::{World, cold, left_alone, name, plain, seconds, silent, warm, with};

fn manual(policy: Policy) -> Policy {
    with(policy, |p| p.rescue.failback = Failback::Manual)
}

/// `main` has died, and its rescue stands in.
fn away(rescue: Policy) -> World {
    let mut world = World::pair(rescue);
    world.exits("main", 1);
    if world.phase("rescue") == "stopping" {
        world.exits("rescue", 0);
    }
    if world.phase("rescue") == "spawning" {
        world.up("rescue");
    }
    assert_eq!(world.standing("main"), "away rescue");
    world.actions.clear();
    world
}

/// `main` has died, and both `rescue` and `second` could stand in.
fn three(first: Policy, second: Policy) -> World {
    let mut world = World::of(&[("main", plain()), ("rescue", first), ("second", second)]);
    for who in ["main", "rescue", "second"] {
        if world.launch(who).is_some() {
            world.up(who);
        }
    }
    world.actions.clear();
    world
}

fn incidents(world: &World) -> Vec<Incident> {
    world.launch("rescue").expect("the rescue is being started").incidents.clone()
}

#[test]
fn a_cold_rescue_is_started_with_the_incident_and_stands_in_once_it_is_ready() {
    let mut world = World::pair(cold(&["main"]));
    world.exits("main", 7);
    assert_eq!(world.standing("main"), "promoting rescue");
    let [incident] = incidents(&world).try_into().unwrap();
    assert_eq!((incident.primary, incident.since), (name("main"), world.now));
    assert!(matches!(incident.cause, Cause::Exited(_)) && incident.last_exit.is_some());
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn a_warm_rescue_is_restarted_fresh_with_the_incident() {
    let mut world = World::pair(warm(&["main"]));
    world.exits("main", 1);
    assert_eq!(world.orders("rescue"), ["stop #1 within 5s", "inform of main"]);
    world.exits("rescue", 0);
    assert_eq!(world.orders("rescue"), ["launch #2 for main", "acknowledge #1"]);
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
    assert_eq!(world.one("rescue").restarts().total(), 0, "a promotion is no restart");
}

#[test]
fn a_healthy_rescue_that_is_to_be_left_alone_stands_in_at_once() {
    let mut world = World::pair(left_alone(&["main"]));
    world.exits("main", 1);
    assert_eq!(world.standing("main"), "away rescue");
    assert_eq!(world.orders("rescue"), ["inform of main"]);
}

#[test]
fn a_rescue_to_be_left_alone_that_is_down_is_started() {
    let mut world = World::pair(left_alone(&["main"]));
    world.exits("rescue", 1);
    world.exits("main", 1);
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn a_hung_primary_is_rescued_before_it_is_dead() {
    let watched = with(plain(), |p| p.health.watch = Policy::default().health.watch);
    let mut world = World::of(&[("main", watched), ("rescue", cold(&["main"]))]);
    world.up("main");
    for _ in 0..3 {
        world.after(seconds(10));
        world.probed("main", silent());
    }
    assert_eq!(world.phase("main"), "stopping (kill)");
    assert_eq!(world.standing("main"), "promoting rescue");
}

#[test]
fn a_primary_that_cannot_be_started_is_rescued() {
    let mut world = World::of(&[("main", plain()), ("rescue", cold(&["main"]))]);
    world.launch_fails("main", LaunchFailure::Refused("no token".into()));
    assert_eq!(world.standing("main"), "promoting rescue");
}

#[test]
fn a_primary_whose_worker_is_lost_is_rescued() {
    let mut world = World::pair(cold(&["main"]));
    world.worker_lost("main");
    assert_eq!(world.standing("main"), "promoting rescue");
}

#[test]
fn main_goes_on_being_recovered_while_it_is_rescued() {
    let mut world = away(cold(&["main"]));
    world.after(seconds(1));
    world.up("main");
    assert_eq!((world.phase("main").as_str(), world.standing("main").as_str()), ("ready", "away rescue"));
}

#[test]
fn a_primary_that_is_ready_before_its_rescue_keeps_its_place() {
    let mut world = World::pair(cold(&["main"]));
    world.exits("main", 1);
    world.after(seconds(1));
    world.up("main");
    assert_eq!(world.standing("main"), "own");
    assert_eq!(world.phase("rescue"), "stopping");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::FailoverCancelled { .. })), 1);
}

#[test]
fn main_gets_its_place_back_once_it_has_been_ready_for_long_enough() {
    let mut world = away(cold(&["main"]));
    world.after(seconds(1));
    world.up("main");
    world.after(seconds(59));
    assert_eq!(world.standing("main"), "away rescue");
    world.after(seconds(1));
    assert_eq!(world.standing("main"), "own");
    assert_eq!(world.orders("rescue"), ["inform of none", "stop #1 within 10s"]);
}

#[test]
fn a_warm_rescue_runs_on_after_the_failback() {
    let mut world = away(warm(&["main"]));
    world.after(seconds(1));
    world.up("main");
    world.after(seconds(60));
    assert_eq!((world.standing("main").as_str(), world.phase("rescue").as_str()), ("own", "ready"));
    assert_eq!(world.orders("rescue"), ["inform of none"]);
}

#[test]
fn a_primary_that_dies_before_its_failback_waits_again() {
    let mut world = away(cold(&["main"]));
    world.after(seconds(1));
    world.up("main");
    world.after(seconds(59));
    world.exits("main", 1);
    world.after(seconds(2));
    world.up("main");
    world.after(seconds(59));
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn each_failover_soon_after_a_failback_doubles_the_wait_for_the_next() {
    let mut world = away(left_alone(&["main"]));
    for wait in [60, 120, 240] {
        world.after(seconds(1));
        world.up("main");
        world.after(seconds(wait - 1));
        assert_eq!(world.standing("main"), "away rescue", "after {wait} s");
        world.after(seconds(1));
        assert_eq!(world.standing("main"), "own", "after {wait} s");
        world.exits("main", 1);
        assert_eq!(world.standing("main"), "away rescue");
    }
}

#[test]
fn a_long_time_in_its_place_makes_the_wait_short_again() {
    let mut world = away(left_alone(&["main"]));
    for _ in 0..3 {
        world.after(seconds(1));
        world.up("main");
        world.after(seconds(60));
        assert_eq!(world.standing("main"), "own");
        world.after(seconds(3_600));
        world.exits("main", 1);
    }
}

#[test]
fn a_manual_failback_waits_for_its_order() {
    let mut world = away(manual(cold(&["main"])));
    assert_eq!(world.fail_back("main"), Err(Denied::PrimaryNotReady(name("main"))));
    world.after(seconds(1));
    world.up("main");
    world.after(seconds(100_000));
    assert_eq!(world.standing("main"), "away rescue");
    world.fail_back("main").unwrap();
    assert_eq!(world.standing("main"), "own");
    assert_eq!(world.fail_back("main"), Err(Denied::NotFailedOver(name("main"))));
}

#[test]
fn a_failover_by_hand_leaves_main_running_and_waits_for_a_failback_by_hand() {
    let mut world = World::pair(cold(&["main"]));
    world.fail_over("main", None).unwrap();
    world.up("rescue");
    world.after(seconds(100_000));
    assert_eq!((world.standing("main").as_str(), world.phase("main").as_str()), ("away rescue", "ready"));
    world.fail_back("main").unwrap();
    assert_eq!(world.phase("rescue"), "stopping");
}

#[test]
fn a_failover_by_hand_can_be_called_off_before_the_rescue_is_ready() {
    let mut world = World::pair(cold(&["main"]));
    world.fail_over("main", None).unwrap();
    world.fail_back("main").unwrap();
    assert_eq!(world.standing("main"), "own");
}

#[test]
fn a_failover_by_hand_is_refused_by_name() {
    let mut world = three(cold(&["main"]), plain());
    let not_a_rescue = Denied::NotARescue { rescue: name("second"), primary: name("main") };
    assert_eq!(world.fail_over("main", Some("second")), Err(not_a_rescue));
    assert_eq!(world.fail_over("second", None), Err(Denied::NoRescue(name("second"))));
    world.stop("rescue").unwrap();
    assert_eq!(world.fail_over("main", None), Err(Denied::RescueDown(name("main"))));
    world.start("rescue").unwrap();
    world.fail_over("main", Some("rescue")).unwrap();
    let already = Denied::AlreadyFailedOver { primary: name("main"), rescue: name("rescue") };
    assert_eq!(world.fail_over("main", None), Err(already));
}

#[test]
fn a_rescue_that_dies_while_it_stands_in_is_called_again() {
    let mut world = away(cold(&["main"]));
    world.exits("rescue", 1);
    assert_eq!(world.standing("main"), "promoting rescue");
    assert_eq!(world.phase("rescue"), "backoff", "rescues must not die in a tight circle");
    world.after(seconds(1));
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn a_rescue_that_dies_while_main_is_ready_gives_the_place_back() {
    let mut world = away(cold(&["main"]));
    world.after(seconds(1));
    world.up("main");
    world.exits("rescue", 1);
    assert_eq!(world.standing("main"), "own");
}

#[test]
fn a_rescue_that_dies_on_its_way_makes_room_for_one_that_is_ready() {
    let mut world = three(cold(&["main"]), left_alone(&["main"]));
    world.stop("second").unwrap();
    world.exits("second", 0);
    world.exits("main", 1);
    world.start("second").unwrap();
    world.up("second");
    assert_eq!(world.standing("main"), "promoting rescue");
    world.exits("rescue", 1);
    assert_eq!(world.standing("main"), "away second");
}

#[test]
fn when_the_active_rescue_dies_the_next_one_takes_over() {
    let mut world = three(cold(&["main"]), cold(&["main"]));
    world.exits("main", 1);
    world.up("rescue");
    world.exits("rescue", 1);
    assert_eq!(world.standing("main"), "promoting second");
    world.up("second");
    assert_eq!(world.standing("main"), "away second");
}

#[test]
fn the_incident_stays_the_same_from_rescue_to_rescue() {
    let mut world = three(cold(&["main"]), cold(&["main"]));
    world.exits("main", 1);
    let first = world.launch("rescue").unwrap().incidents[0].clone();
    world.up("rescue");
    world.after(seconds(1));
    world.exits("rescue", 1);
    assert_eq!(world.launch("second").unwrap().incidents, [first]);
}

#[test]
fn two_primaries_that_die_in_one_moment_have_incidents_of_their_own() {
    let slow = with(plain(), |p| p.health.startup_deadline = seconds(5));
    let rescue = cold(&["main", "other"]);
    let mut world = World::of(&[("main", slow.clone()), ("other", slow), ("rescue", rescue)]);
    world.launched("main");
    world.launched("other");
    world.after(seconds(5));
    let numbers = |world: &World| -> Vec<_> { incidents(world).iter().map(|i| i.number).collect() };
    let [a, b] = numbers(&world).try_into().unwrap();
    assert_ne!(a, b);
}

#[test]
fn a_ready_rescue_is_preferred_to_one_that_is_down() {
    let mut world = three(cold(&["main"]), left_alone(&["main"]));
    world.exits("main", 1);
    assert_eq!(world.standing("main"), "away second");
}

#[test]
fn two_failed_rescues_do_not_hand_the_place_to_each_other_for_ever() {
    let mut world = three(cold(&["main"]), cold(&["main"]));
    world.exits("main", 1);
    let refused = || LaunchFailure::Refused("no token".into());
    world.launch_fails("rescue", refused());
    assert_eq!(world.standing("main"), "promoting second");
    world.launch_fails("second", refused());
    world.after(seconds(15));
    let who = if world.launch("rescue").is_some() { "rescue" } else { "second" };
    world.up(who);
    assert_eq!(world.standing("main"), format!("away {who}"));
}

#[test]
fn a_rescue_that_failed_for_good_is_not_started_again_and_again() {
    let once = with(cold(&["main"]), |p| p.restart.condition = Condition::Never);
    let mut world = World::pair(once);
    world.exits("main", 1);
    world.up("rescue");
    world.exits("rescue", 1);
    assert_eq!(world.phase("rescue"), "failed (not restarted)");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::NoRescue { .. })), 1);
    world.start("rescue").unwrap();
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn two_rescues_that_die_in_turn_do_not_do_so_without_delay() {
    let mut world = three(cold(&["main"]), cold(&["main"]));
    world.update("main", with(plain(), |p| p.restart.condition = Condition::Never)).unwrap();
    world.exits("main", 1);
    let mut died = [0, 0];
    for _ in 0..16 {
        for (who, died) in ["rescue", "second"].into_iter().zip(&mut died) {
            if world.launch(who).is_some() {
                world.up(who);
                world.exits(who, 1);
                *died += 1;
            }
        }
        let both_died = died.iter().all(|died| *died > 0);
        let at_once = ["rescue", "second"].into_iter().find(|who| world.launch(who).is_some());
        assert!(!both_died || at_once.is_none(), "{at_once:?} is launched at once after {died:?} deaths");
        let next = world.core.next_deadline().unwrap().at;
        world.after(next.since(world.now));
    }
}

#[test]
fn a_rescue_that_failed_for_good_on_its_way_gives_a_ready_primary_its_place_back() {
    let mut world = World::pair(with(cold(&["main"]), |p| p.restart.condition = Condition::Never));
    world.fail_over("main", None).unwrap();
    world.launched("rescue");
    world.exits("rescue", 1);
    assert_eq!(world.standing("main"), "own");
}

#[test]
fn one_rescue_serves_two_primaries_and_is_not_restarted_while_it_is_active() {
    let mut world = three(plain(), warm(&["main", "rescue"]));
    world.exits("main", 1);
    world.exits("second", 0);
    world.up("second");
    assert_eq!(world.standing("main"), "away second");
    world.actions.clear();
    world.exits("rescue", 1);
    assert_eq!(
        (world.standing("main"), world.standing("rescue")),
        ("away second".into(), "away second".into())
    );
    assert_eq!(world.orders("second"), ["inform of main and rescue"]);
}

#[test]
fn a_cold_rescue_of_two_goes_down_only_when_both_are_back() {
    let mut world = three(plain(), cold(&["main", "rescue"]));
    world.exits("main", 1);
    world.up("second");
    world.exits("rescue", 1);
    assert_eq!(world.standing("rescue"), "away second");
    world.after(seconds(1));
    world.up("main");
    world.after(seconds(20));
    world.up("rescue");
    world.after(seconds(40));
    assert_eq!((world.standing("main").as_str(), world.phase("second").as_str()), ("own", "ready"));
    world.after(seconds(20));
    assert_eq!(world.phase("second"), "stopping");
}

#[test]
fn a_rescue_being_restarted_for_one_primary_carries_the_incident_of_a_second() {
    let mut world = three(plain(), warm(&["main", "rescue"]));
    world.exits("main", 1);
    world.exits("rescue", 1);
    world.exits("second", 0);
    let launch = world.launch("second").unwrap();
    assert_eq!(launch.incidents.len(), 2);
    world.up("second");
    assert_eq!(
        (world.standing("main"), world.standing("rescue")),
        ("away second".into(), "away second".into())
    );
}

#[test]
fn a_rescue_that_starts_in_the_moment_it_is_called_is_told_of_it() {
    let watched = |p: &mut Policy| p.health.startup_deadline = seconds(1);
    let mut world = World::of(&[("main", with(plain(), watched)), ("rescue", left_alone(&["main"]))]);
    world.up("rescue");
    world.exits("rescue", 1);
    world.launched("main");
    // The rescue's backoff and the primary's start are over in the same moment.
    world.after(seconds(1));
    assert_eq!(world.standing("main"), "promoting rescue");
    assert_eq!(incidents(&world).len(), 1);
}

#[test]
fn a_rescue_of_a_rescue_stands_in_for_it() {
    let mut world = three(cold(&["main"]), cold(&["rescue"]));
    world.exits("main", 1);
    world.up("rescue");
    world.exits("rescue", 1);
    world.up("second");
    assert_eq!(
        (world.standing("main"), world.standing("rescue")),
        ("promoting rescue".into(), "away second".into())
    );
    world.after(seconds(1));
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn main_down_by_wish_calls_nobody() {
    let mut world = World::pair(cold(&["main"]));
    world.stop("main").unwrap();
    world.exits("main", 1);
    assert_eq!((world.standing("main").as_str(), world.phase("rescue").as_str()), ("own", "stopped"));
}

#[test]
fn main_may_be_taken_down_while_its_rescue_serves() {
    let mut world = away(cold(&["main"]));
    world.stop("main").unwrap();
    assert_eq!((world.standing("main").as_str(), world.phase("rescue").as_str()), ("away rescue", "ready"));
    world.exits("rescue", 1);
    assert_eq!(
        world.standing("main"),
        "promoting rescue",
        "somebody serves until an operator says otherwise"
    );
    world.after(seconds(1));
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn a_stopped_rescue_leaves_its_place_and_is_not_started_again() {
    let mut world = away(cold(&["main"]));
    world.stop("rescue").unwrap();
    assert_eq!(world.standing("main"), "own");
    world.exits("rescue", 0);
    world.after(seconds(1_000));
    assert_eq!(world.phase("rescue"), "stopped");
}

#[test]
fn the_rescues_of_a_primary_that_is_down_by_wish_are_not_started_when_the_active_one_is_stopped() {
    let mut world = three(cold(&["main"]), cold(&["main"]));
    world.exits("main", 1);
    world.up("rescue");
    world.stop("main").unwrap();
    world.stop("rescue").unwrap();
    assert_eq!((world.standing("main").as_str(), world.phase("second").as_str()), ("own", "stopped"));
}

#[test]
fn a_restart_by_hand_of_the_active_rescue_leaves_it_in_its_place() {
    let mut world = away(manual(cold(&["main"])));
    world.after(seconds(1));
    world.up("main");
    world.restart("rescue").unwrap();
    world.exits("rescue", 0);
    assert_eq!(world.standing("main"), "away rescue");
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::RescueLost { .. })), 0);
}

#[test]
fn a_deleted_primary_lets_its_cold_rescue_go() {
    let mut world = away(cold(&["main"]));
    world.stop("main").unwrap();
    world.delete("main").unwrap();
    assert_eq!(world.phase("rescue"), "stopping");
    assert_eq!(world.orders("rescue"), ["inform of none", "stop #1 within 10s"]);
}

#[test]
fn a_deleted_rescue_leaves_the_place_to_the_next() {
    let mut world = three(cold(&["main"]), cold(&["main"]));
    world.exits("main", 1);
    world.up("rescue");
    let change = supervisor_core::event::Change::Remove(name("rescue"));
    let mode = supervisor_core::event::ApplyMode::Do;
    let apply = supervisor_core::event::Command::Apply { changes: vec![change], pool: None, mode };
    world.ask(apply).unwrap();
    assert_eq!(world.standing("main"), "promoting second");
    world.exits("rescue", 0);
    assert!(!world.knows("rescue"));
}

#[test]
fn an_instance_named_like_a_deleted_rescue_is_not_a_rescue() {
    let mut world = World::pair(cold(&["main"]));
    world.stop("rescue").unwrap();
    world.delete("rescue").unwrap();
    world.create("rescue", plain()).unwrap();
    world.start("rescue").unwrap();
    assert_eq!(world.fail_over("main", None), Err(Denied::NoRescue(name("main"))));
    world.exits("main", 1);
    assert_eq!(world.standing("main"), "own");
}

#[test]
fn a_rescue_that_is_no_rescue_any_more_leaves_the_place() {
    let mut world = away(warm(&["main"]));
    world.update("rescue", plain()).unwrap();
    assert_eq!((world.standing("main").as_str(), world.phase("rescue").as_str()), ("own", "ready"));
    assert_eq!(world.orders("rescue"), ["inform of none", "inform of none"]);
}

#[test]
fn a_running_instance_that_becomes_a_rescue_is_told_for_whom_it_stands_in() {
    let mut world = World::pair(plain());
    world.update("rescue", warm(&["main"])).unwrap();
    assert_eq!(world.orders("rescue"), ["inform of none"]);
}

#[test]
fn a_failback_that_is_waited_for_follows_the_policy_of_the_moment() {
    let mut world = away(warm(&["main"]));
    world.after(seconds(1));
    world.up("main");
    world.update("rescue", with(warm(&["main"]), |p| p.rescue.failback_after = seconds(5))).unwrap();
    world.after(seconds(5));
    assert_eq!(world.standing("main"), "own");
}

#[test]
fn a_rescue_that_appears_while_main_is_dead_is_called() {
    let mut world = World::pair(plain());
    world.exits("main", 1);
    world.update("rescue", left_alone(&["main"])).unwrap();
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn a_standby_made_cold_goes_down_and_one_made_warm_comes_up() {
    let mut world = World::pair(warm(&["main"]));
    world.update("rescue", cold(&["main"])).unwrap();
    assert_eq!(world.phase("rescue"), "stopping");
    world.exits("rescue", 0);
    world.update("rescue", warm(&["main"])).unwrap();
    assert_eq!(world.phase("rescue"), "spawning");
}

#[test]
fn that_nobody_rescues_is_said_once_for_each_outage() {
    let mut world = World::pair(cold(&["main"]));
    world.stop("rescue").unwrap();
    for outage in 1..3 {
        for _ in 0..2 {
            world.exits("main", 1);
            world.after(seconds(20));
            world.launched("main");
        }
        world.tell(supervisor_core::event::Event::Notified(name("main"), world.one("main").incarnation()));
        assert_eq!(world.noted("main", |kind| matches!(kind, Kind::NoRescue { .. })), outage);
    }
}

#[test]
fn a_promotion_out_of_a_backoff_counts_as_a_restart() {
    let mut world = World::pair(warm(&["main"]));
    world.exits("rescue", 1);
    assert_eq!(world.phase("rescue"), "backoff");
    world.exits("main", 1);
    assert_eq!(world.phase("rescue"), "spawning");
    assert_eq!(world.one("rescue").restarts().total(), 1);
}

#[test]
fn a_promotion_of_a_dying_rescue_counts_as_a_restart() {
    let mut world = World::pair(warm(&["main"]));
    world.worker_lost("rescue");
    world.exits("main", 1);
    world.swept("rescue");
    assert_eq!(world.phase("rescue"), "spawning");
    assert_eq!(world.one("rescue").restarts().total(), 1);
}

#[test]
fn a_promotion_shortens_the_grace_of_a_stop_under_way() {
    let patient = with(cold(&["main"]), |p| p.stop_grace = seconds(330));
    let mut world = away(patient);
    world.after(seconds(1));
    world.up("main");
    world.after(seconds(60));
    assert_eq!(world.phase("rescue"), "stopping");
    world.actions.clear();
    world.exits("main", 1);
    assert_eq!(world.orders("rescue"), ["stop #1 within 5s", "inform of main"]);
}

#[test]
fn halting_leaves_the_standings_as_they_are() {
    let mut world = away(cold(&["main"]));
    let halt = world.submit(supervisor_core::event::Command::Halt);
    world.exits("rescue", 0);
    assert!(world.answer(halt).unwrap().is_ok());
    assert_eq!(world.standing("main"), "away rescue");
    world.crash(Boot::Same);
    world.adopted_gone("rescue");
    world.adopted_gone("main");
    assert_eq!(world.standing("main"), "promoting rescue");
}

#[test]
fn the_view_tells_each_ones_role() {
    let mut world = World::pair(cold(&["main"]));
    let role = |world: &World, who: &str| world.view().role(&world.view().instances[who]);
    assert_eq!((role(&world, "main"), role(&world, "rescue")), (Role::Primary, Role::Standby));
    world.exits("main", 1);
    assert_eq!((role(&world, "main"), role(&world, "rescue")), (Role::Rescued, Role::Promoting));
    world.up("rescue");
    assert_eq!((role(&world, "main"), role(&world, "rescue")), (Role::Rescued, Role::Active));
}

#[test]
fn a_rescue_without_delay_does_not_spin_when_it_cannot_be_started() {
    let mut world = World::pair(with(cold(&["main"]), |p| p.restart.initial_delay = Duration::ZERO));
    world.exits("main", 1);
    for _ in 0..20 {
        world.launch_fails("rescue", LaunchFailure::Spawn("no such file".into()));
        world.after(seconds(0));
    }
    world.launch_fails("rescue", LaunchFailure::Spawn("no such file".into()));
    assert_eq!(world.phase("rescue"), "failed (budget, retried)");
    assert_eq!(world.one("rescue").incarnation(), Incarnation(21));
}
