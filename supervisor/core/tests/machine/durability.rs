//! Persist, then act, then answer.

use std::time::Duration;

use supervisor_core::{
    event::{Command, Event, ExitStatus, Files, LaunchFailure, Manner, Process},
    ids::{Incarnation, Revision},
    instance::Boot,
    journal::Kind,
    record::Wish,
};

use crate::support::world::{Disk, World, cold, name, plain, seconds, warm, with};

fn start(who: &str) -> Command {
    Command::Start { name: name(who), otherwise: None }
}

fn stop(who: &str) -> Command {
    Command::Stop { name: name(who), manner: Manner::Graceful }
}

#[test]
fn nothing_is_launched_or_answered_before_the_wish_is_durable() {
    let mut world = World::empty();
    world.create("main", plain()).unwrap();
    world.disk(Disk::Stuck);
    let reply = world.submit(start("main"));
    assert_eq!(world.phase("main"), "spawning (held)");
    assert_eq!((world.launch("main"), world.answer(reply)), (None, None));
    world.disk(Disk::Prompt);
    assert_eq!(world.phase("main"), "spawning");
    assert!(world.launch("main").is_some() && world.answer(reply).is_some());
}

#[test]
fn a_wish_that_changes_nothing_is_answered_at_once() {
    let mut world = World::ready(plain());
    world.start("main").unwrap();
    world.disk(Disk::Stuck);
    let again = world.submit(start("main"));
    assert!(world.answer(again).is_some(), "nothing has changed, so there is no disk to wait for");
}

#[test]
fn a_repeated_stop_is_answered_too() {
    let mut world = World::ready(plain());
    for _ in 0..3 {
        world.stop("main").unwrap();
    }
    world.exits("main", 0);
    world.stop("main").unwrap();
}

#[test]
fn a_refusal_does_not_wait_for_the_disk() {
    let mut world = World::empty();
    world.disk(Disk::Stuck);
    let reply = world.submit(start("nobody"));
    assert!(world.answer(reply).unwrap().is_err());
}

#[test]
fn a_stop_does_not_wait_for_the_disk_but_its_answer_does() {
    let mut world = World::ready(plain());
    world.disk(Disk::Stuck);
    let reply = world.submit(stop("main"));
    assert_eq!(world.orders("main"), ["stop #1 within 10s"]);
    world.exits("main", 0);
    assert_eq!((world.phase("main").as_str(), world.answer(reply)), ("stopped", None));
    world.disk(Disk::Prompt);
    assert!(world.answer(reply).is_some());
}

#[test]
fn a_restart_after_a_death_does_not_wait_for_the_disk() {
    let mut world = World::ready(plain());
    world.disk(Disk::Stuck);
    world.exits("main", 1);
    world.after(seconds(1));
    assert_eq!(world.orders("main"), ["launch #2"]);
}

#[test]
fn a_failover_does_not_wait_for_the_disk() {
    let mut world = World::pair(warm(&["main"]));
    world.disk(Disk::Stuck);
    world.exits("main", 1);
    world.exits("rescue", 0);
    world.up("rescue");
    assert_eq!(world.standing("main"), "away rescue");
}

#[test]
fn a_launch_that_was_stopped_before_it_left_never_leaves() {
    let mut world = World::empty();
    world.create("main", plain()).unwrap();
    world.disk(Disk::Stuck);
    world.submit(start("main"));
    world.submit(stop("main"));
    assert_eq!(world.phase("main"), "stopped");
    world.disk(Disk::Prompt);
    assert_eq!(world.orders("main"), ["release"]);
}

#[test]
fn a_launch_that_was_restarted_before_it_left_leaves_once() {
    let mut world = World::empty();
    world.create("main", plain()).unwrap();
    world.disk(Disk::Stuck);
    world.submit(start("main"));
    for _ in 0..300 {
        world.submit(Command::Restart { name: name("main"), manner: Manner::Force });
    }
    world.disk(Disk::Prompt);
    assert_eq!(world.orders("main").len(), 1);
    world.up("main");
}

#[test]
fn a_launch_whose_instance_was_deleted_never_leaves() {
    let mut world = World::empty();
    world.disk(Disk::Stuck);
    let definition = world.definition("main", plain());
    world.submit(Command::Create(definition));
    world.submit(start("main"));
    world.submit(stop("main"));
    world.submit(Command::Delete { name: name("main"), generation: None, files: Files::Purge });
    world.disk(Disk::Prompt);
    assert_eq!(world.orders("main"), ["release", "forget purge"]);
    assert!(world.durable.records.is_empty());
}

#[test]
fn reports_about_a_launch_that_has_not_left_change_nothing() {
    let mut world = World::empty();
    world.create("main", plain()).unwrap();
    world.disk(Disk::Stuck);
    world.submit(start("main"));
    let exit = world.exit("main", ExitStatus::Code(1));
    let process = Process { pid: 7, worker_pid: 6, started: world.now };
    world.tell(Event::Exited(name("main"), exit));
    world.worker_lost("main");
    world.tell(Event::Launched(name("main"), Incarnation(1), process));
    world.tell(Event::LaunchFailed(name("main"), Incarnation(1), LaunchFailure::NoAnswer));
    assert_eq!(world.phase("main"), "spawning (held)");
    world.disk(Disk::Prompt);
    assert_eq!(world.orders("main"), ["launch #1"]);
}

#[test]
fn an_exit_is_acknowledged_only_once_it_is_durable() {
    let mut world = World::ready(plain());
    world.disk(Disk::Stuck);
    world.exits("main", 1);
    assert_eq!(world.orders("main"), [""; 0]);
    world.disk(Disk::Prompt);
    assert_eq!(world.orders("main"), ["acknowledge #1"]);
}

#[test]
fn files_are_forgotten_only_once_the_deletion_is_durable() {
    let mut world = World::empty();
    world.create("main", plain()).unwrap();
    world.disk(Disk::Stuck);
    world.submit(Command::Delete { name: name("main"), generation: None, files: Files::Keep });
    assert_eq!(world.orders("main"), [""; 0]);
    world.disk(Disk::Prompt);
    assert_eq!(world.orders("main"), ["forget keep"]);
}

#[test]
fn what_is_launched_is_written_down_so_that_its_end_cannot_be_overlooked() {
    let world = World::ready(plain());
    assert_eq!(world.durable.records[&name("main")].launched, Incarnation(1));
}

#[test]
fn a_held_launch_leaves_with_the_incidents_of_the_moment_it_leaves() {
    let mut world = World::of(&[("main", plain())]);
    world.up("main");
    world.create("rescue", warm(&["main"])).unwrap();
    world.disk(Disk::Stuck);
    world.submit(start("rescue"));
    world.exits("main", 1);
    world.after(seconds(1));
    world.up("main");
    assert_eq!(world.standing("main"), "own");
    world.disk(Disk::Prompt);
    assert_eq!(world.launch("rescue").unwrap().incidents, []);
}

#[test]
fn the_disk_may_say_less_than_was_asked_for_and_later_more() {
    let mut world = World::empty();
    world.create("main", plain()).unwrap();
    world.disk(Disk::Stuck);
    let reply = world.submit(start("main"));
    world.tell(Event::Stored(Revision(1)));
    assert_eq!(world.answer(reply), None);
    world.disk(Disk::Prompt);
    assert!(world.answer(reply).is_some());
}

#[test]
fn a_revision_that_was_never_written_is_not_believed() {
    let mut world = World::empty();
    world.create("main", plain()).unwrap();
    world.disk(Disk::Stuck);
    world.tell(Event::Stored(Revision(u64::MAX)));
    let reply = world.submit(start("main"));
    assert_eq!((world.answer(reply), world.launch("main")), (None, None));
}

#[test]
fn a_failing_disk_is_said_once_and_its_recovery_too() {
    let mut world = World::empty();
    for _ in 0..3 {
        world.tell(Event::StoreFailing("disk full".into()));
    }
    world.create("main", plain()).unwrap();
    let own = |is: fn(&Kind) -> bool| world.durable.entries.iter().filter(|e| is(&e.kind)).count();
    // On a prompt disk each message is followed by its own recovery.
    assert_eq!(own(|k| matches!(k, Kind::StoreFailing(_))), own(|k| matches!(k, Kind::StoreRecovered)));
    world.disk(Disk::Stuck);
    let before = world.actions.len();
    world.tell(Event::StoreFailing("disk full".into()));
    world.tell(Event::StoreFailing("disk full".into()));
    assert_eq!(world.actions.len(), before + 1);
}

#[test]
fn an_unanswered_wish_may_be_lost_with_the_supervisor_but_not_half_done() {
    let mut world = World::ready(plain());
    world.disk(Disk::Stuck);
    world.submit(stop("main"));
    world.crash(Boot::Same);
    assert_eq!(world.durable.records[&name("main")].wish, Wish::Up);
    world.disk(Disk::Prompt);
    world.adopted_alive("main");
    assert_eq!(world.phase("main"), "ready");
}

#[test]
fn a_deletion_cut_short_is_finished_by_the_next_supervisor() {
    let mut world = World::ready(plain());
    let change = supervisor_core::event::Change::Remove(name("main"));
    let mode = supervisor_core::event::ApplyMode::Do;
    world.ask(Command::Apply { changes: vec![change], pool: None, mode }).unwrap();
    world.crash(Boot::Same);
    world.adopted_alive("main");
    world.exits("main", 0);
    assert!(!world.knows("main"));
}

#[test]
fn a_cold_rescue_that_is_called_on_a_stuck_disk_starts() {
    let mut world = World::pair(with(cold(&["main"]), |p| p.restart.initial_delay = Duration::ZERO));
    world.disk(Disk::Stuck);
    world.exits("main", 1);
    assert_eq!(world.orders("rescue"), ["inform of main", "launch #1 for main"]);
}

#[test]
fn a_reservation_counts_only_once_it_is_durable() {
    let mut world = World::of(&[("main", with(plain(), |p| p.restart.initial_delay = Duration::ZERO))]);
    world.up("main");
    world.crash(Boot::Same);
    world.disk(Disk::Stuck);
    world.adopted_dead("main", 1);
    assert_eq!(world.phase("main"), "spawning (held)");
    world.tell(Event::Stored(world.durable.revision));
    assert_eq!(world.phase("main"), "spawning (held)");
    world.disk(Disk::Prompt);
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn a_cold_rescue_whose_ports_have_just_moved_waits_until_that_is_durable() {
    let mut world = World::pair(cold(&["main"]));
    world.disk(Disk::Stuck);
    let definition = world.definition("rescue", with(cold(&["main"]), |p| p.port = Some(20_000)));
    world.submit(Command::Update { definition, generation: None });
    world.exits("main", 1);
    assert_eq!((world.phase("rescue").as_str(), world.launch("rescue")), ("spawning (held)", None));
    world.disk(Disk::Prompt);
    assert_eq!(world.launch("rescue").unwrap().block.base, 20_000);
}
