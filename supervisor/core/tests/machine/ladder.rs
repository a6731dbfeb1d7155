//! What is tried before an instance is given up, and in which order.

use std::time::Duration;

use supervisor_core::{
    event::{Command, LaunchFailure, Manner},
    instance::Boot,
    journal::{Kind, Recovery},
    ladder::{Purpose, Rung},
    policy::Policy,
};

use crate::support::world::{Disk, World, cold, config, name, plain, seconds, with};

const EX_CONFIG: i32 = 78;

/// With a repair, which takes a minute at most.
fn openclaw() -> Policy {
    with(plain(), |policy| {
        policy.restart.fatal_codes = vec![EX_CONFIG];
        policy.restart.budget = 6;
        policy.ladder.repair = Some(seconds(60));
        policy.ladder.quarantine = true;
    })
}

/// `main` is ready with configuration 1, which has proven good.
fn proven(policy: Policy) -> World {
    let mut world = World::of(&[("main", policy)]);
    world.up_with("main", 1);
    world.after(seconds(60));
    assert_eq!(world.one("main").record().trial.good(), Some(config(1)));
    world.orders("main");
    world
}

/// The next start is due, and is answered with this configuration.
fn comes_again(world: &mut World, content: u8) {
    while world.launch("main").is_none() {
        world.after(seconds(1));
    }
    world.up_with("main", content);
}

/// It dies by this status as often as that, each time after it served for a moment.
fn dies(world: &mut World, times: u32, code: i32, content: u8) {
    for n in 0..times {
        if n > 0 {
            comes_again(world, content);
        }
        world.exits("main", code);
    }
}

fn rung(world: &World) -> Rung {
    world.one("main").record().ladder.rung()
}

#[test]
fn a_few_deaths_are_only_restarted() {
    let mut world = proven(openclaw());
    dies(&mut world, 2, 1, 1);
    assert_eq!(world.phase("main"), "backoff");
    assert_eq!(rung(&world), Rung::Restart);
}

#[test]
fn after_three_deaths_in_a_row_the_runtime_repairs_itself_once_and_is_tried_again() {
    let mut world = proven(openclaw());
    dies(&mut world, 3, 1, 1);
    assert!(world.ordered("main", "repair #4"));
    assert_eq!(world.one("main").purpose(), Purpose::Repair);
    world.launched("main");
    world.exits("main", 0);
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Recovery(Recovery::Repaired { .. }))), 1);
    world.after(seconds(1));
    assert!(world.ordered("main", "launch #5"));
    world.up_with("main", 1);
    assert_eq!(world.phase("main"), "ready");
    dies(&mut world, 2, 1, 1);
    let repairs = world.noted("main", |kind| matches!(kind, Kind::Recovery(Recovery::Repairing)));
    assert_eq!(repairs, 1, "it is not repaired a second time");
}

#[test]
fn an_exit_that_says_that_another_start_would_not_help_leads_to_the_repair_at_once() {
    let mut world = proven(openclaw());
    world.exits("main", EX_CONFIG);
    assert!(world.ordered("main", "repair #2"));
    world.launched("main");
    world.exits("main", 0);
    comes_again(&mut world, 1);
    world.exits("main", EX_CONFIG);
    assert_eq!(world.phase("main"), "failed (fatal)", "its configuration is the good one: no rung is left");
    world.after(seconds(100_000));
    assert_eq!(world.phase("main"), "failed (fatal)", "and it is no circle");
}

#[test]
fn what_the_repair_did_not_mend_is_rolled_back_to_the_last_good_configuration() {
    let mut world = proven(openclaw());
    world.edited("main", 2);
    world.exits("main", 1);
    comes_again(&mut world, 2);
    world.exits("main", EX_CONFIG);
    world.launched("main");
    world.exits("main", 1);
    comes_again(&mut world, 2);
    world.exits("main", EX_CONFIG);
    assert_eq!(rung(&world), Rung::RollBack);
    let trial = &world.one("main").record().trial;
    assert_eq!(trial.restoring().map(|restoring| restoring.to), Some(config(1)));
    assert_eq!(trial.rejected()[0].content, config(2));
    world.after(seconds(1));
    assert!(world.ordered("main", "launch #5 with 01"));
    world.up_with("main", 1);
    let instance = world.one("main");
    assert!(instance.record().trial.degraded() && instance.record().trial.restoring().is_none());
    world.after(seconds(60));
    assert_eq!(rung(&world), Rung::Restart, "being well leads back to the foot");
    assert!(world.one("main").record().trial.degraded(), "and still it is not what somebody wanted");
}

#[test]
fn a_configuration_that_is_refused_before_the_start_is_rolled_back_at_once() {
    let mut world = proven(openclaw());
    world.exits("main", 1);
    world.after(seconds(1));
    world.reads("main", 2);
    world.launch_fails("main", LaunchFailure::BadConfig("line 3: this is not JSON5".into()));
    assert_eq!(world.phase("main"), "backoff");
    world.after(seconds(1));
    assert!(world.ordered("main", "launch #3 with 01"));
}

#[test]
fn a_first_configuration_that_is_refused_is_looked_at_again_because_there_is_nothing_to_go_back_to() {
    let mut world = World::of(&[("main", openclaw())]);
    world.reads("main", 2);
    world.launch_fails("main", LaunchFailure::BadConfig("no token".into()));
    assert_eq!(world.phase("main"), "failed (launch, retried)");
    world.edited("main", 3);
    assert_eq!(world.phase("main"), "backoff", "an edit is looked at sooner");
    world.after(seconds(1));
    world.up_with("main", 3);
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn a_repair_that_does_not_end_is_killed_and_the_gateway_is_tried_again() {
    let mut world = proven(openclaw());
    world.exits("main", EX_CONFIG);
    world.launched("main");
    world.after(seconds(60));
    assert_eq!(world.phase("main"), "stopping (kill)");
    world.exits("main", 137);
    world.after(seconds(1));
    assert!(world.ordered("main", "launch #3"));
    assert_eq!(world.one("main").purpose(), Purpose::Serve);
}

#[test]
fn a_repair_never_makes_an_instance_ready() {
    let mut world = proven(openclaw());
    world.exits("main", EX_CONFIG);
    world.up("main");
    world.tell(supervisor_core::event::Event::Notified(name("main"), world.one("main").incarnation()));
    assert_eq!(world.phase("main"), "starting");
}

#[test]
fn a_repair_is_adopted_as_what_it_is() {
    let mut world = proven(openclaw());
    world.exits("main", EX_CONFIG);
    world.launched("main");
    world.crash(Boot::Same);
    world.adopted_alive("main");
    assert_eq!((world.phase("main").as_str(), world.one("main").purpose()), ("starting", Purpose::Repair));
    world.exits("main", 0);
    world.after(seconds(1));
    assert!(world.ordered("main", "launch #3"));
}

#[test]
fn the_climb_does_not_begin_anew_with_the_next_supervisor() {
    let mut world = proven(openclaw());
    world.exits("main", EX_CONFIG);
    world.launched("main");
    world.crash(Boot::Same);
    world.adopted_dead("main", 0);
    comes_again(&mut world, 1);
    world.exits("main", EX_CONFIG);
    assert_eq!(world.phase("main"), "failed (fatal)");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Recovery(Recovery::Repairing))), 1);
}

#[test]
fn when_all_has_been_tried_and_the_budget_is_spent_it_stays_down_until_an_operator_starts_it() {
    let mut world = proven(openclaw());
    while world.phase("main") != "failed (quarantined)" {
        match world.one("main").purpose() {
            Purpose::Serve if world.phase("main") == "ready" => world.exits("main", 1),
            Purpose::Serve | Purpose::Repair => world.after(Duration::from_millis(100)),
        }
        if world.launch("main").is_some() {
            world.up("main");
            if world.one("main").purpose() == Purpose::Repair {
                world.exits("main", 1);
            }
        }
    }
    world.after(seconds(1_000_000));
    assert_eq!(world.phase("main"), "failed (quarantined)");
    world.crash(Boot::Same);
    world.adopted_gone("main");
    assert_eq!(world.phase("main"), "failed (quarantined)", "for the next supervisor, too");
    world.start("main").expect("an operator may");
    world.up("main");
    assert_eq!((world.phase("main").as_str(), rung(&world)), ("ready", Rung::Restart));
}

#[test]
fn in_maintenance_it_is_restarted_and_nothing_more_is_done() {
    let mut world = proven(with(openclaw(), |policy| policy.ladder.held = true));
    dies(&mut world, 5, 1, 2);
    assert_eq!(rung(&world), Rung::Restart);
    comes_again(&mut world, 2);
    world.exits("main", EX_CONFIG);
    assert_eq!(world.phase("main"), "failed (fatal)");
}

#[test]
fn a_lost_worker_says_nothing_about_the_gateway() {
    let mut world = proven(openclaw());
    for _ in 0..4 {
        world.worker_lost("main");
        world.swept("main");
        comes_again(&mut world, 1);
    }
    assert_eq!(rung(&world), Rung::Restart);
}

#[test]
fn an_operator_may_stop_a_repair() {
    let mut world = proven(openclaw());
    world.exits("main", EX_CONFIG);
    world.launched("main");
    world.ask(Command::Stop { name: name("main"), manner: Manner::Force }).expect("it can be stopped");
    world.exits("main", 137);
    assert_eq!(world.phase("main"), "stopped");
    world.start("main").expect("and started");
    assert!(world.ordered("main", "launch #3"));
}

#[test]
fn a_rescue_does_not_wait_for_the_ladder() {
    let rescue = with(plain(), |policy| policy.rescues = vec![name("main")]);
    let mut world = World::of(&[("main", openclaw()), ("rescue", rescue)]);
    world.up_with("main", 1);
    world.up("rescue");
    world.exits("main", EX_CONFIG);
    assert_eq!(world.standing("main"), "promoting rescue");
    world.launched("main");
    world.exits("main", 1);
    assert_eq!(world.standing("main"), "promoting rescue", "the end of a repair is no other death");
}

#[test]
fn a_repair_that_runs_while_an_operator_starts_the_instance_is_still_known_as_one() {
    let mut world = proven(openclaw());
    world.exits("main", EX_CONFIG);
    world.launched("main");
    world.start("main").expect("it is wished up");
    assert_eq!(rung(&world), Rung::Repair, "it is the repair of the climb that begins now");
    world.crash(Boot::Same);
    world.adopted_alive("main");
    assert_eq!(world.one("main").purpose(), Purpose::Repair);
    world.restart("main").expect("it can be ended");
    assert_eq!(rung(&world), Rung::Restart);
    world.crash(Boot::Same);
    world.adopted_alive("main");
    assert_eq!(world.one("main").purpose(), Purpose::Repair, "whatever is asked of it");
}

#[test]
fn what_was_rolled_back_and_is_broken_again_is_rolled_back_again() {
    let mut world = proven(with(openclaw(), |policy| {
        policy.ladder.repair = None;
        policy.restart.budget = 100;
    }));
    for bad in [2, 3] {
        world.edited("main", bad);
        world.exits("main", 1);
        comes_again(&mut world, bad);
        dies(&mut world, 3, 1, bad);
        assert_eq!(rung(&world), Rung::RollBack);
        comes_again(&mut world, 1);
        let rejected = world.one("main").record().trial.rejected().last().map(|it| it.content);
        assert_eq!(rejected, Some(config(bad)));
    }
}

#[test]
fn a_quarantined_rescue_is_not_called_again_before_an_operator_starts_it() {
    let rescue = with(cold(&["main"]), |policy| {
        policy.restart.budget = 0;
        policy.ladder.quarantine = true;
    });
    let mut world =
        World::of(&[("main", with(plain(), |policy| policy.restart.budget = 100)), ("rescue", rescue)]);
    world.up("main");
    world.exits("main", 1);
    world.launch_fails("rescue", LaunchFailure::Spawn("no such file".into()));
    assert_eq!(world.phase("rescue"), "failed (quarantined)");
    world.after(seconds(1));
    world.up("main");
    assert_eq!((world.standing("main").as_str(), world.phase("rescue").as_str()), ("own", "stopped"));
    world.orders("rescue");
    world.exits("main", 1);
    assert_eq!(world.standing("main"), "own");
    world.fail_over("main", Some("rescue")).expect("an operator may");
    assert!(world.launch("rescue").is_some());
}

#[test]
fn what_an_operator_started_is_not_quarantined_though_that_was_not_stored() {
    let mut world = proven(with(openclaw(), |policy| {
        policy.restart.budget = 0;
        policy.ladder.repair = None;
    }));
    world.exits("main", 1);
    assert_eq!(world.phase("main"), "failed (quarantined)");
    world.disk(Disk::Stuck);
    world.submit(Command::Start { name: name("main"), otherwise: None });
    world.up("main");
    world.crash(Boot::Same);
    world.adopted_alive("main");
    assert!(world.one("main").record().quarantined.is_none());
}

#[test]
fn a_rescue_is_called_for_what_an_earlier_supervisor_began_to_repair() {
    let mut world = World::of(&[("main", openclaw()), ("rescue", cold(&["main"]))]);
    world.up_with("main", 1);
    world.stop("rescue").expect("it is known");
    world.exits("main", EX_CONFIG);
    world.launched("main");
    world.crash(Boot::Same);
    world.adopted_gone("rescue");
    world.adopted_alive("main");
    assert_eq!(world.one("main").purpose(), Purpose::Repair);
    world.start("rescue").expect("it is known");
    assert_eq!(world.standing("main"), "promoting rescue");
}

#[test]
fn a_rescue_is_called_for_what_was_repaired_while_no_supervisor_ran() {
    let mut world = World::of(&[("main", openclaw()), ("rescue", cold(&["main"]))]);
    world.up_with("main", 1);
    world.stop("rescue").expect("it is known");
    world.exits("main", EX_CONFIG);
    world.launched("main");
    world.crash(Boot::Same);
    world.adopted_gone("rescue");
    world.start("rescue").expect("it is known");
    world.adopted_dead("main", 0);
    assert_eq!(world.standing("main"), "promoting rescue");
}
