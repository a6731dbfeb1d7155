//! Configurations: candidates, good ones, and those taken back.

use supervisor_core::{
    event::{Command, Event, Sighting},
    instance::Boot,
    journal::{Kind, Recovery},
    policy::Policy,
    trial::{GOODS, REJECTED},
};

use crate::support::world::{World, config, name, plain, seconds, with};

fn policy() -> Policy {
    with(plain(), |policy| {
        policy.restart.fatal_codes = vec![78];
        policy.restart.budget = 100;
    })
}

fn ready_with(content: u8) -> World {
    let mut world = World::of(&[("main", policy())]);
    world.up_with("main", content);
    world
}

/// It is started anew with this, and stays well.
fn proves(world: &mut World, content: u8) {
    world.restart("main").expect("it runs");
    world.exits("main", 0);
    world.up_with("main", content);
    world.after(seconds(60));
}

/// It runs with `bad`, and dies of it at once.
fn falls_for(world: &mut World, bad: u8) {
    world.restart("main").expect("it runs");
    world.exits("main", 0);
    world.reads("main", bad);
    world.launched("main");
    world.exits("main", 78);
}

fn good(world: &World) -> Option<u8> {
    let good = world.one("main").record().trial.good()?;
    (0..=u8::MAX).find(|content| config(*content) == good)
}

#[test]
fn a_configuration_is_good_once_a_gateway_started_with_it_has_been_ready_for_long_enough() {
    let mut world = ready_with(1);
    world.after(seconds(59));
    assert_eq!(good(&world), None);
    world.after(seconds(1));
    assert_eq!(good(&world), Some(1));
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Recovery(Recovery::ConfigGood { .. }))), 1);
}

#[test]
fn a_hot_reload_proves_nothing() {
    let mut world = ready_with(1);
    world.edited("main", 2);
    world.after(seconds(1_000));
    assert_eq!(good(&world), Some(1));
}

#[test]
fn an_edit_is_announced_and_a_broken_one_with_what_is_wrong() {
    let mut world = ready_with(1);
    world.edited("main", 2);
    assert_eq!(
        world.noted("main", |kind| matches!(
            kind,
            Kind::Recovery(Recovery::ConfigChanged { good: false, .. })
        )),
        1
    );
    let problem = Some("line 3: this is not JSON5".to_owned());
    let broken = Sighting { content: Some(config(3)), problem, ..Sighting::default() };
    world.tell(Event::ConfigSeen(name("main"), broken.clone()));
    world.tell(Event::ConfigSeen(name("main"), broken));
    assert_eq!(
        world.noted("main", |kind| matches!(kind, Kind::Recovery(Recovery::ConfigBroken { .. }))),
        1,
        "and only once"
    );
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn what_is_good_is_not_forgotten_before_something_else_has_proven_good() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    for bad in 10..30 {
        falls_for(&mut world, bad);
        assert_eq!(good(&world), Some(1));
        world.after(seconds(1));
        world.up_with("main", 1);
        world.after(seconds(60));
    }
    assert_eq!(world.one("main").record().trial.rejected().len(), REJECTED);
}

#[test]
fn a_few_older_good_ones_are_remembered() {
    let mut world = ready_with(1);
    for content in 2..10 {
        proves(&mut world, content);
    }
    let trial = &world.one("main").record().trial;
    assert_eq!(trial.goods().collect::<Vec<_>>(), [9, 8, 7, 6].map(config));
    assert_eq!(trial.goods().count(), GOODS);
}

#[test]
fn the_same_mistake_made_again_is_not_tried_again() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    falls_for(&mut world, 2);
    world.after(seconds(1));
    world.up_with("main", 1);
    world.after(seconds(60));
    world.edited("main", 2);
    world.orders("main");
    world.restart("main").expect("it runs");
    world.exits("main", 0);
    assert!(world.ordered("main", "launch #4 with 01"));
}

#[test]
fn who_says_that_it_is_good_is_believed() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    falls_for(&mut world, 2);
    world.ask(Command::MarkGood { name: name("main"), content: config(2) }).expect("it is known");
    let trial = &world.one("main").record().trial;
    assert_eq!((good(&world), trial.rejected().len(), trial.degraded()), (Some(2), 0, false));
}

#[test]
fn a_configuration_on_its_way_back_arrives_though_the_supervisor_dies() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    falls_for(&mut world, 2);
    world.crash(Boot::Same);
    world.adopted_gone("main");
    world.after(seconds(10));
    let launch = world.launch("main").expect("it is started again");
    assert_eq!(launch.restore.as_ref().map(|restoring| restoring.to), Some(config(1)));
}

#[test]
fn an_operator_goes_back_and_the_gateway_is_started_anew_with_it() {
    let mut world = ready_with(1);
    proves(&mut world, 2);
    world.orders("main");
    world.ask(Command::RollBack { name: name("main"), to: config(1) }).expect("it is known");
    assert_eq!(world.phase("main"), "stopping");
    world.exits("main", 0);
    assert!(world.ordered("main", "launch #3 with 01"));
    world.up_with("main", 1);
    assert!(!world.one("main").record().trial.degraded(), "somebody wanted it so");
}

#[test]
fn an_operator_goes_back_and_what_was_done_unasked_is_wished_from_then_on() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    falls_for(&mut world, 2);
    world.after(seconds(1));
    world.up_with("main", 1);
    assert!(world.one("main").record().trial.degraded());
    world.ask(Command::RollBack { name: name("main"), to: config(1) }).expect("it is known");
    world.exits("main", 0);
    world.up_with("main", 1);
    assert!(!world.one("main").record().trial.degraded());
}

#[test]
fn an_operator_goes_back_while_it_is_down_and_it_is_done_at_once() {
    let mut world = ready_with(1);
    world.stop("main").expect("it runs");
    world.exits("main", 0);
    world.orders("main");
    world.ask(Command::RollBack { name: name("main"), to: config(7) }).expect("it is known");
    assert_eq!(world.orders("main"), ["restore 07"]);
    world.tell(Event::Restored(name("main"), config(7)));
    assert!(world.one("main").record().trial.restoring().is_none());
    assert_eq!(world.phase("main"), "stopped");
}

#[test]
fn what_cannot_be_put_back_does_not_keep_the_gateway_from_being_tried() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    falls_for(&mut world, 2);
    world.after(seconds(1));
    world.tell(Event::RestoreFailed(name("main"), "the disk is full".into()));
    world.up("main");
    assert_eq!(world.phase("main"), "ready");
    assert_eq!(world.noted("main", |kind| matches!(kind, Kind::Recovery(Recovery::RestoreFailed { .. }))), 1);
}

#[test]
fn an_edit_brings_back_what_had_been_given_up() {
    let mut world = World::of(&[("main", policy())]);
    world.up_with("main", 1);
    world.exits("main", 78);
    assert_eq!(world.phase("main"), "failed (fatal)");
    world.edited("main", 2);
    assert_eq!(world.phase("main"), "backoff");
}

#[test]
fn the_first_configuration_of_all_proves_good_though_it_is_kept_while_the_gateway_starts() {
    let mut world = World::of(&[("main", policy())]);
    let launch = world.launch("main").cloned().expect("it is launched");
    world.up("main");
    assert_eq!(world.phase("main"), "ready");
    let used_by = Some(launch.incarnation);
    let sighting = Sighting { content: Some(config(1)), used_by, ..Sighting::default() };
    world.tell(Event::ConfigSeen(name("main"), sighting));
    world.after(seconds(60));
    assert_eq!(good(&world), Some(1));
}

#[test]
fn what_is_said_to_be_good_is_put_back_instead_of_what_was_on_its_way() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    falls_for(&mut world, 2);
    assert_eq!(world.phase("main"), "backoff");
    world.ask(Command::MarkGood { name: name("main"), content: config(3) }).expect("it is known");
    world.after(seconds(1));
    assert!(world.ordered("main", "launch #3 with 03"));
}

#[test]
fn nothing_is_put_in_the_place_of_what_is_there_once_somebody_says_that_it_is_good() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    falls_for(&mut world, 2);
    world.ask(Command::MarkGood { name: name("main"), content: config(2) }).expect("it is known");
    world.after(seconds(1));
    assert!(world.ordered("main", "launch #3"));
}

#[test]
fn what_proves_good_is_not_replaced_though_nobody_heard_that_the_restore_failed() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    falls_for(&mut world, 2);
    world.after(seconds(1));
    let launch = world.launch("main").cloned().expect("it is launched");
    let used_by = Some(launch.incarnation);
    let sighting = Sighting { content: Some(config(2)), used_by, ..Sighting::default() };
    world.tell(Event::ConfigSeen(name("main"), sighting));
    world.up("main");
    world.after(seconds(60));
    assert_eq!(good(&world), Some(2));
    assert!(world.one("main").record().trial.restoring().is_none());
}

#[test]
fn what_is_said_to_be_good_stays_the_last_good_one_though_something_else_runs() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    world.ask(Command::MarkGood { name: name("main"), content: config(2) }).expect("it is known");
    world.after(seconds(1_000));
    assert_eq!(good(&world), Some(2));
    world.crash(Boot::Same);
    world.adopted_alive("main");
    world.after(seconds(1_000));
    assert_eq!(good(&world), Some(2), "for the next supervisor, too");
}

#[test]
fn what_runs_and_is_good_stays_so_however_many_others_are_said_to_be() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    for other in 2..10 {
        world.ask(Command::MarkGood { name: name("main"), content: config(other) }).expect("it is known");
    }
    let trial = &world.one("main").record().trial;
    assert_eq!(trial.goods().collect::<Vec<_>>(), [9, 8, 7, 1].map(config));
}

#[test]
fn what_is_good_already_may_be_said_to_be_while_something_else_is_on_trial() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    proves(&mut world, 2);
    world.restart("main").expect("it runs");
    world.exits("main", 0);
    world.up_with("main", 1);
    world.ask(Command::MarkGood { name: name("main"), content: config(2) }).expect("it is known");
    world.after(seconds(1_000));
    assert_eq!(good(&world), Some(2));
}

#[test]
fn an_operator_who_goes_back_to_what_was_taken_back_is_believed() {
    let mut world = ready_with(1);
    world.after(seconds(60));
    falls_for(&mut world, 2);
    world.stop("main").expect("it may be stopped");
    world.ask(Command::RollBack { name: name("main"), to: config(2) }).expect("it is known");
    world.tell(Event::Restored(name("main"), config(2)));
    world.orders("main");
    world.start("main").expect("it may be started");
    assert!(world.launch("main").is_some_and(|launch| launch.restore.is_none()), "it has its try");
}

#[test]
fn an_operator_goes_back_while_it_is_stopping_and_it_is_done_when_it_has_stopped() {
    let mut world = ready_with(1);
    world.stop("main").expect("it runs");
    world.ask(Command::RollBack { name: name("main"), to: config(7) }).expect("it is known");
    world.orders("main");
    world.exits("main", 0);
    assert!(world.ordered("main", "restore 07"));
}
