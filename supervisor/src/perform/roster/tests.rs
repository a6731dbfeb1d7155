use supervisor_core::{ids::Incarnation, ports::Pool, record::Wish, time::Moment};

use super::*;

fn record(name: &str, base: u16, spec: &str) -> Record {
    let block = Block::at(base).unwrap();
    Record { wish: Wish::Up, ..Record::new(Name::new(name).unwrap(), spec.into(), block, Moment(0)) }
}

fn names(roster: &mut Roster) -> Vec<String> {
    roster.neighbours().iter().map(|neighbour| neighbour.name.to_string()).collect()
}

#[test]
fn neighbours_follow_every_change() {
    let main = record("main", 18_789, "{}");
    let mut roster = Roster::new([&main].into_iter());
    assert_eq!(names(&mut roster), ["main"]);
    roster.note(&Write::Put(record("rescue", 19_789, "{}")));
    assert_eq!(names(&mut roster), ["main", "rescue"]);
    roster.note(&Write::Put(record("main", 20_789, "{}")));
    let moved = roster.neighbours().iter().find(|one| one.name == main.name).map(|one| one.block.base);
    assert_eq!(moved, Some(20_789));
    roster.note(&Write::Remove(main.name));
    assert_eq!(names(&mut roster), ["rescue"]);
}

#[test]
fn a_record_that_changes_nothing_here_makes_no_new_list() {
    let main = record("main", 18_789, "{}");
    let mut roster = Roster::new([&main].into_iter());
    let before = roster.neighbours();
    // As every restart of an instance writes one.
    roster.note(&Write::Put(Record { launched: Incarnation(7), ..main }));
    roster.note(&Write::Pool(Pool { first: 18_789, last: 32_767 }));
    assert!(Arc::ptr_eq(&before, &roster.neighbours()));
}

#[test]
fn a_spec_that_cannot_be_read_leaves_what_was_known() {
    let main = record("main", 18_789, "{}");
    let mut roster = Roster::new([&main].into_iter());
    let before = Arc::clone(&roster.get(&main.name).unwrap().spec);
    roster.note(&Write::Put(record("main", 18_789, "not json")));
    assert_eq!(roster.get(&main.name).unwrap().spec, before);
}

#[test]
fn the_ports_before_a_move_are_known_until_the_configuration_has_followed() {
    let main = record("main", 18_789, "{}");
    let moved = Record { previous_base: Some(18_789), ..record("main", 20_789, "{}") };
    let mut roster = Roster::new([&main].into_iter());
    roster.note(&Write::Put(moved.clone()));
    assert_eq!(roster.get(&main.name).unwrap().previous_base, Some(18_789));
    roster.note(&Write::Put(Record { previous_base: None, ..moved }));
    assert_eq!(roster.get(&main.name).unwrap().previous_base, None);
}
