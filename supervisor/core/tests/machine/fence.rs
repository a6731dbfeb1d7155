//! Channel credentials that more than one instance names.

use std::time::Duration;

use supervisor_core::{
    event::LaunchFailure,
    fence::Channels,
    instance::Boot,
    journal::{Channel, Kind},
    policy::Policy,
};

use crate::support::world::{World, cold, left_alone, plain, seconds, warm, with};

const TOKEN: u64 = 7;

/// Kept from its credential.
const FENCED: &str = "failed (launch, retried)";

/// How long a poll lasts.
const EXPIRY: Duration = Duration::from_secs(30);

/// `main`, which polls with the token, and a rescue that names the same.
fn sharing(rescue: Policy) -> World {
    let slow =
        with(plain(), |p| (p.restart.initial_delay, p.restart.max_delay) = (seconds(600), seconds(600)));
    let mut world = World::empty();
    world.create("main", slow).expect("there is room");
    world.names("main", 1, &[TOKEN]);
    world.start("main").expect("it is known");
    world.up("main");
    world.create("rescue", rescue).expect("there is room");
    world.names("rescue", 2, &[TOKEN]);
    world.start("rescue").expect("it is known");
    if world.launch("rescue").is_some() {
        world.up("rescue");
    }
    world.actions.clear();
    world
}

/// `one` polls with the token, and `other` is to be started with it.
fn strangers() -> World {
    let mut world = World::empty();
    for who in ["one", "other"] {
        world.create(who, plain()).expect("there is room");
        world.names(who, 1, &[TOKEN]);
    }
    world.start("one").expect("it is known");
    world.up("one");
    world.start("other").expect("it is known");
    world
}

fn refused(world: &World, who: &str) -> usize {
    world.noted(who, |kind| matches!(kind, Kind::LaunchFailed(LaunchFailure::Fenced { .. })))
}

#[test]
fn of_two_that_name_one_credential_the_second_is_not_started_and_told_whose_it_is() {
    let mut world = strangers();
    assert_eq!(world.phase("other"), FENCED);
    world.after(seconds(60));
    assert_eq!(refused(&world, "other"), 1, "it is looked at again and again, and said once");
    assert!(world.launch("other").is_none());
}

#[test]
fn the_second_is_started_once_the_first_has_stopped_and_closed_its_polls() {
    let mut world = strangers();
    world.stop("one").expect("it is known");
    world.exits("one", 0);
    world.after(seconds(10));
    assert_eq!(world.phase("other"), "spawning");
}

#[test]
fn the_second_waits_for_the_last_poll_of_one_that_was_killed() {
    let mut world = strangers();
    world.stop("one").expect("it is known");
    world.killed("one");
    world.after(seconds(29));
    assert_eq!(world.phase("other"), FENCED);
    world.after(seconds(11));
    assert_eq!(world.phase("other"), "spawning");
}

#[test]
fn an_edit_that_frees_the_credential_starts_the_second() {
    let mut world = strangers();
    world.names("other", 2, &[TOKEN + 1]);
    world.after(seconds(1));
    assert_eq!(world.phase("other"), "spawning");
}

#[test]
fn one_that_dies_keeps_its_credential_for_its_own_restart() {
    let mut world = strangers();
    world.killed("one");
    world.after(seconds(1));
    assert_eq!((world.phase("one").as_str(), world.phase("other").as_str()), ("spawning", FENCED));
}

#[test]
fn a_standby_with_its_primarys_credential_runs_without_its_channels() {
    let mut world = sharing(warm(&["main"]));
    assert_eq!(world.phase("rescue"), "ready");
    assert_eq!(world.one("rescue").channels(), Channels::Off);
    assert_eq!(world.one("main").channels(), Channels::On);
    world.after(seconds(1_000));
    assert_eq!(world.one("rescue").incarnation().0, 1, "nothing is restarted for it");
}

#[test]
fn a_standby_leaves_the_channels_to_a_primary_that_an_operator_took_down() {
    let mut world = sharing(warm(&["main"]));
    world.stop("main").expect("it is known");
    world.exits("main", 0);
    world.after(seconds(1_000));
    assert_eq!((world.phase("rescue").as_str(), world.one("rescue").channels()), ("ready", Channels::Off));
    world.start("main").expect("it is known");
    world.up("main");
    assert_eq!(world.one("main").channels(), Channels::On);
}

#[test]
fn a_standby_stands_in_once_its_primary_is_dead_and_its_last_poll_has_expired() {
    for rescue in [warm(&["main"]), left_alone(&["main"]), cold(&["main"])] {
        let mut world = sharing(rescue);
        world.killed("main");
        if world.phase("rescue").starts_with("stopping") {
            world.exits("rescue", 0);
        }
        if world.launch("rescue").is_some() {
            world.up("rescue");
        }
        assert_eq!(world.one("rescue").channels(), Channels::Off, "it may look after its primary already");
        world.after(EXPIRY - seconds(1));
        assert_eq!(world.standing("main"), "promoting rescue");
        world.after(seconds(1));
        assert!(world.phase("rescue").starts_with("stopping"), "{}", world.phase("rescue"));
        world.exits("rescue", 0);
        world.up("rescue");
        assert_eq!(world.one("rescue").channels(), Channels::On);
        assert_eq!(world.standing("main"), "away rescue");
    }
}

#[test]
fn a_primary_that_comes_back_while_its_rescue_polls_runs_without_its_channels_until_the_rescue_has_gone() {
    let mut world = away();
    world.start("main").expect("it is known");
    world.up("main");
    assert_eq!(world.one("main").channels(), Channels::Off);
    world.after(seconds(60));
    assert_eq!(world.standing("main"), "own");
    assert!(world.phase("rescue").starts_with("stopping"), "a cold one rests");
    assert_eq!(world.phase("main"), "ready");
    world.exits("rescue", 0);
    assert!(world.phase("main").starts_with("stopping"), "it is started anew with its channels");
    world.exits("main", 0);
    world.up("main");
    assert_eq!(world.one("main").channels(), Channels::On);
    assert_eq!((world.standing("main").as_str(), world.phase("rescue").as_str()), ("own", "stopped"));
}

/// The rescue stands in, with the channels.
fn away() -> World {
    let mut world = sharing(cold(&["main"]));
    world.killed("main");
    world.up("rescue");
    world.after(EXPIRY);
    world.exits("rescue", 0);
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
    world
}

#[test]
fn an_operators_failover_takes_the_channels_from_the_primary_first() {
    let mut world = sharing(warm(&["main"]));
    world.fail_over("main", None).expect("the rescue is ready");
    assert!(world.phase("main").starts_with("stopping"));
    world.exits("rescue", 0);
    world.up("rescue");
    assert_eq!(world.one("rescue").channels(), Channels::Off);
    world.exits("main", 0);
    world.up("main");
    assert_eq!(world.one("main").channels(), Channels::Off);
    world.exits("rescue", 0);
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
    assert_eq!(world.one("rescue").channels(), Channels::On);
}

#[test]
fn a_credential_that_an_edit_has_added_is_taken_from_the_primary_too() {
    let mut world = World::empty();
    world.create("main", plain()).expect("there is room");
    world.names("main", 1, &[]);
    world.start("main").expect("it is known");
    world.up("main");
    world.create("rescue", warm(&["main"])).expect("there is room");
    world.names("rescue", 2, &[TOKEN]);
    world.names("main", 3, &[TOKEN]);
    world.start("rescue").expect("it is known");
    world.up("rescue");
    assert_eq!(world.one("rescue").channels(), Channels::Off);
    world.fail_over("main", None).expect("the rescue is ready");
    assert!(world.phase("main").starts_with("stopping"), "{}", world.phase("main"));
}

#[test]
fn a_rescue_of_two_stands_in_without_its_channels_for_one_while_the_other_uses_them() {
    let mut world = World::empty();
    for (who, policy) in [("main", plain()), ("rescue", warm(&["main", "second"])), ("second", plain())] {
        world.create(who, policy).expect("there is room");
        world.names(who, 1, &[TOKEN]);
        world.start(who).expect("it is known");
        if world.launch(who).is_some() {
            world.up(who);
        }
    }
    assert_eq!(world.phase("second"), FENCED);
    world.exits("rescue", 0);
    world.up("rescue");
    assert_eq!(world.standing("second"), "away rescue");
    assert_eq!(world.one("rescue").channels(), Channels::Off);
    assert_eq!(world.one("main").channels(), Channels::On);
}

#[test]
fn a_rescue_that_waits_for_its_channels_stands_in_once_it_is_not_to_have_them() {
    let slow =
        with(plain(), |p| (p.restart.initial_delay, p.restart.max_delay) = (seconds(600), seconds(600)));
    let mut world = World::empty();
    for (who, policy, tokens) in [
        ("main", plain(), &[TOKEN][..]),
        ("second", slow, &[]),
        ("rescue", warm(&["main", "second"]), &[TOKEN]),
    ] {
        world.create(who, policy).expect("there is room");
        world.names(who, 1, tokens);
        world.start(who).expect("it is known");
        world.up(who);
    }
    world.names("main", 2, &[]);
    world.force_stop("main").expect("it is known");
    world.exits("main", 137);
    world.exits("second", 1);
    world.exits("rescue", 0);
    world.up("rescue");
    assert_eq!(world.standing("second"), "promoting rescue", "the last poll of main has not expired");
    world.names("main", 3, &[TOKEN]);
    assert_eq!(world.standing("second"), "away rescue");
    assert_eq!(world.one("rescue").channels(), Channels::Off);
}

#[test]
fn a_launch_that_finds_other_credentials_is_repeated_with_those() {
    let mut world = World::empty();
    world.create("main", plain()).expect("there is room");
    world.start("main").expect("it is known");
    assert!(world.launch("main").expect("it leaves").credentials.is_empty());
    world.names("main", 1, &[TOKEN]);
    world.launch_fails("main", LaunchFailure::Unexpected);
    assert_eq!(world.launch("main").expect("at once").credentials.len(), 1);
    assert_eq!(world.one("main").restarts().total(), 0, "nothing has failed");
}

#[test]
fn what_runs_under_the_next_supervisor_keeps_its_credential() {
    let mut world = strangers();
    world.crash(Boot::Same);
    world.adopted_gone("other");
    world.names("other", 1, &[TOKEN]);
    world.launch_fails("other", LaunchFailure::Unexpected);
    assert_eq!(world.phase("other"), FENCED, "whoever may be alive keeps it");
    world.adopted_alive("one");
    world.names("one", 3, &[]);
    world.after(seconds(60));
    assert_eq!(world.phase("other"), FENCED, "an edit does not take it from what runs");
}

#[test]
fn what_a_life_polled_with_before_the_one_that_the_next_supervisor_finds_stays_its_own_until_that_has_expired()
 {
    let mut world = strangers();
    world.killed("one");
    world.after(seconds(2));
    world.up("one");
    // It has read a configuration without the credential, and nobody was left to tell.
    world.crash(Boot::Same);
    world.names("one", 3, &[]);
    world.adopted_alive("one");
    world.adopted_gone("other");
    world.names("other", 1, &[TOKEN]);
    world.launch_fails("other", LaunchFailure::Unexpected);
    world.stop("one").expect("it is known");
    world.exits("one", 0);
    world.after(seconds(20));
    assert_eq!(world.phase("other"), FENCED);
    world.after(seconds(20));
    assert_eq!(world.phase("other"), "spawning");
}

#[test]
fn an_edit_that_takes_up_anothers_credential_is_said_once() {
    let mut world = strangers();
    world.names("other", 2, &[TOKEN + 1]);
    world.after(seconds(1));
    world.up("other");
    let said = |world: &World| world.noted("other", |k| matches!(k, Kind::Channel(Channel::Shared { .. })));
    let before = said(&world);
    world.names("other", 3, &[TOKEN]);
    world.names("other", 4, &[TOKEN]);
    assert_eq!(said(&world), before + 1);
    assert_eq!(world.phase("other"), "ready");
}
