//! What callers ask for: done wholly, or refused by name and nothing has changed.

use supervisor_core::{
    action::{Action, Write},
    denied::Denied,
    event::{ApplyMode, Change, Command, Dangling, Definition, Files},
    ids::Incarnation,
    policy::Policy,
    ports::Pool,
};

use crate::support::world::{World, cold, name, plain, seconds, warm, with};

fn apply(world: &mut World, changes: Vec<Change>, mode: ApplyMode) -> Result<(), Denied> {
    world.ask(Command::Apply { changes, pool: None, mode }).map(|_| ())
}

fn put(world: &mut World, who: &str, policy: Policy) -> Change {
    Change::Put(world.definition(who, policy))
}

fn strict(definition: Definition) -> Definition {
    Definition { dangling: Dangling::Refused, ..definition }
}

#[test]
fn start_creates_what_is_not_known_and_says_so() {
    let mut world = World::empty();
    let definition = world.definition("main", plain());
    let start = || Command::Start { name: name("main"), otherwise: Some(definition.clone()) };
    assert!(world.ask(start()).unwrap().created);
    assert!(!world.ask(start()).unwrap().created);
    assert_eq!(world.phase("main"), "spawning");
}

#[test]
fn start_does_not_create_another_name_than_its_own() {
    let mut world = World::empty();
    let definition = world.definition("other", plain());
    let start = Command::Start { name: name("main"), otherwise: Some(definition) };
    assert_eq!(world.ask(start), Err(Denied::UnknownInstance(name("main"))));
    assert!(!world.knows("other"));
}

#[test]
fn each_wrong_wish_is_refused_by_name() {
    let mut world = World::of(&[("main", plain())]);
    assert_eq!(world.create("main", plain()), Err(Denied::InstanceExists(name("main"))));
    assert_eq!(world.stop("nobody"), Err(Denied::UnknownInstance(name("nobody"))));
    assert_eq!(world.delete("main"), Err(Denied::InstanceRunning(name("main"))));
    assert_eq!(
        world.update("main", with(plain(), |p| p.port = Some(20_000))),
        Err(Denied::PortInUse(name("main")))
    );
    world.stop("main").unwrap();
    assert_eq!(world.restart("main"), Err(Denied::InstanceDown(name("main"))));
}

#[test]
fn an_update_of_what_has_changed_since_is_refused() {
    let mut world = World::of(&[("main", plain())]);
    let definition = world.definition("main", plain());
    let update =
        |generation| Command::Update { definition: definition.clone(), generation: Some(generation) };
    world.ask(update(1)).unwrap();
    assert_eq!(world.ask(update(1)), Err(Denied::StaleGeneration(name("main"))));
    let delete = Command::Delete { name: name("main"), generation: Some(1), files: Files::Keep };
    assert_eq!(world.ask(delete), Err(Denied::StaleGeneration(name("main"))));
}

#[test]
fn a_refused_apply_changes_nothing_at_all() {
    let mut world = World::of(&[("main", plain())]);
    let before = (world.durable.clone(), world.core.revision());
    let good = put(&mut world, "good", plain());
    let bad = put(&mut world, "bad", with(plain(), |p| p.port = Some(18_790)));
    assert!(apply(&mut world, vec![good, bad], ApplyMode::Do).is_err());
    assert!(!world.knows("good"));
    assert_eq!((world.durable.records.clone(), world.core.revision()), (before.0.records, before.1));
}

#[test]
fn a_validated_apply_changes_nothing_either() {
    let mut world = World::of(&[("main", plain())]);
    let good = put(&mut world, "good", plain());
    apply(&mut world, vec![good, Change::Remove(name("main"))], ApplyMode::Validate).unwrap();
    assert!(world.knows("main") && !world.knows("good"));
}

#[test]
fn an_apply_is_written_as_one() {
    let mut world = World::empty();
    let changes = vec![put(&mut world, "a", plain()), put(&mut world, "b", warm(&["a"]))];
    world.actions.clear();
    apply(&mut world, changes, ApplyMode::Do).unwrap();
    let batches = world.actions.iter().filter_map(|action| {
        if let Action::Persist(batch) = action { Some(batch.writes.len()) } else { None }
    });
    assert_eq!(batches.collect::<Vec<_>>(), [2]);
}

#[test]
fn two_definitions_of_one_name_are_refused() {
    let mut world = World::of(&[("main", plain())]);
    world.stop("main").unwrap();
    world.launch_fails("main", supervisor_core::event::LaunchFailure::NoAnswer);
    let moved = |base| with(plain(), |p| p.port = Some(base));
    let changes = vec![put(&mut world, "main", moved(20_000)), put(&mut world, "main", moved(20_100))];
    assert_eq!(apply(&mut world, changes, ApplyMode::Do), Err(Denied::InstanceExists(name("main"))));
    let changes = vec![put(&mut world, "new", plain()), put(&mut world, "new", plain())];
    assert_eq!(apply(&mut world, changes, ApplyMode::Do), Err(Denied::InstanceExists(name("new"))));
}

#[test]
fn what_is_removed_cannot_be_defined_in_the_same_breath() {
    let mut world = World::of(&[("main", plain())]);
    let changes = vec![Change::Remove(name("main")), put(&mut world, "main", plain())];
    assert_eq!(apply(&mut world, changes, ApplyMode::Do), Err(Denied::InstanceDeleting(name("main"))));
}

#[test]
fn a_removed_instance_is_stopped_first_and_its_ports_are_held_until_it_is_dead() {
    let mut world = World::ready(plain());
    apply(&mut world, vec![Change::Remove(name("main"))], ApplyMode::Do).unwrap();
    assert_eq!(world.phase("main"), "stopping");
    assert_eq!(world.start("main"), Err(Denied::InstanceDeleting(name("main"))));
    let wants = with(plain(), |p| p.port = Some(18_789));
    assert!(matches!(world.create("other", wants.clone()), Err(Denied::PortOverlap { .. })));
    world.exits("main", 0);
    assert!(!world.knows("main"));
    world.create("other", wants).unwrap();
}

#[test]
fn a_moved_instance_tells_its_next_launch_where_it_was() {
    let mut world = World::ready(plain());
    world.stop("main").unwrap();
    world.exits("main", 0);
    for base in [20_000, 20_100] {
        world.update("main", with(plain(), |p| p.port = Some(base))).unwrap();
    }
    world.start("main").unwrap();
    let launch = world.launch("main").unwrap();
    assert_eq!((launch.block.base, launch.previous_base), (20_100, Some(18_789)));
    world.up("main");
    world.restart("main").unwrap();
    world.exits("main", 0);
    assert_eq!(world.launch("main").unwrap().previous_base, None);
}

#[test]
fn a_circle_of_rescues_is_refused_even_if_its_primaries_came_later() {
    let mut world = World::empty();
    world.create("a", warm(&["b"])).unwrap();
    assert!(matches!(world.create("b", warm(&["a"])), Err(Denied::RescueCycle(_))));
    world.create("b", warm(&["c"])).unwrap();
    assert!(matches!(world.create("c", warm(&["a"])), Err(Denied::RescueCycle(_))));
    assert_eq!(world.create("d", warm(&["d"])), Err(Denied::RescueOfItself(name("d"))));
}

#[test]
fn a_rescue_of_nobody_is_refused_if_it_is_asked_to_be() {
    let mut world = World::empty();
    let rescue = strict(world.definition("rescue", warm(&["main"])));
    let unknown = Denied::UnknownPrimary { rescue: name("rescue"), primary: name("main") };
    assert_eq!(world.ask(Command::Create(rescue.clone())), Err(unknown));
    let main = strict(world.definition("main", plain()));
    apply(&mut world, vec![Change::Put(rescue), Change::Put(main)], ApplyMode::Do).unwrap();
}

#[test]
fn a_full_registry_refuses_and_a_removal_makes_room() {
    let mut world = World::limited(1);
    world.create("a", plain()).unwrap();
    assert_eq!(world.create("b", plain()), Err(Denied::TooManyInstances(1)));
    let changes = vec![put(&mut world, "b", plain()), Change::Remove(name("a"))];
    apply(&mut world, changes, ApplyMode::Do).unwrap();
    assert!(world.knows("b") && !world.knows("a"));
}

#[test]
fn a_new_pool_is_for_new_blocks() {
    let mut world = World::of(&[("main", plain())]);
    let pool = Pool { first: 25_000, last: 25_019 };
    world.ask(Command::Apply { changes: vec![], pool: Some(pool), mode: ApplyMode::Do }).unwrap();
    assert_eq!(world.durable.pool, pool);
    world.create("a", plain()).unwrap();
    assert_eq!(world.one("a").record().block.base, 25_000);
    assert_eq!(world.create("b", plain()), Err(Denied::PoolExhausted { first: 25_000, last: 25_019 }));
    assert_eq!(world.one("main").record().block.base, 18_789);
    let written = world.actions.iter().filter(
        |action| matches!(action, Action::Persist(batch) if batch.writes.contains(&Write::Pool(pool))),
    );
    assert_eq!(written.count(), 1);
}

#[test]
fn a_recreated_instance_takes_no_number_of_the_one_before() {
    let mut world = World::ready(plain());
    world.stop("main").unwrap();
    world.exits("main", 0);
    world.delete("main").unwrap();
    world.create("main", plain()).unwrap();
    world.start("main").unwrap();
    assert_eq!(world.launch("main").unwrap().incarnation, Incarnation(2));
}

#[test]
fn deleting_a_cold_standby_needs_no_stop() {
    let mut world = World::pair(cold(&["main"]));
    world.delete("rescue").unwrap();
    world.exits("main", 1);
    world.after(seconds(1));
    world.up("main");
    assert_eq!(world.standing("main"), "own");
}
