//! Made-up process tables: what belongs to whom.

use super::*;

/// A living process: pid, parent, session, mark.
fn seen(pid: i32, parent: i32, session: i32, mark: Mark) -> Seen {
    let identity = Identity { pid, started: u64::from(pid.unsigned_abs()) };
    Seen { identity, parent, session, state: State::Running, mark }
}

fn dead(process: Seen) -> Seen {
    Seen { state: State::Dead, mark: Mark::None, ..process }
}

/// The pids that each of the hunts claims.
fn claimed(look: &[Seen], hunts: &mut [Hunt]) -> Vec<Vec<i32>> {
    let mut hunts: Vec<&mut Hunt> = hunts.iter_mut().collect();
    let pids = |found: Vec<Seen>| found.iter().map(|seen| seen.identity.pid).collect();
    claim(look, &mut hunts).into_iter().map(pids).collect()
}

fn one() -> [Hunt; 1] {
    [Hunt::default()]
}

#[test]
fn descendants_of_a_marked_process_belong_to_it_marked_or_not() {
    let look = [
        seen(1, 0, 1, Mark::None),
        seen(10, 1, 10, Mark::Sought(0)),
        seen(14, 12, 14, Mark::None),
        seen(12, 10, 12, Mark::None),
        seen(13, 1, 13, Mark::None),
        seen(15, 10, 15, Mark::Blank),
    ];
    assert_eq!(claimed(&look, &mut one()), [[10, 14, 12, 15]]);
}

#[test]
fn another_instances_process_belongs_to_that_one_wherever_it_hangs() {
    let look = [
        seen(10, 1, 10, Mark::Sought(0)),
        seen(11, 10, 10, Mark::Sought(1)),
        seen(12, 11, 10, Mark::None),
        seen(13, 10, 10, Mark::Other),
        seen(14, 13, 14, Mark::None),
    ];
    let mut hunts = [Hunt::default(), Hunt::default()];
    let claimed = claimed(&look, &mut hunts);
    assert_eq!(claimed[0], [10]);
    assert_eq!(claimed[1], [11, 12]);
}

#[test]
fn a_session_whose_leader_has_ended_belongs_to_nobody_who_was_a_guest_in_it() {
    let mut look =
        [seen(11, 1, 10, Mark::Guest(0)), seen(12, 11, 10, Mark::None), seen(13, 1, 10, Mark::None)];
    assert_eq!(claimed(&look, &mut one()), [[11, 12]], "13 is that of whoever ran 11");
    look[0].mark = Mark::Sought(0);
    assert_eq!(claimed(&look, &mut one()), [[11, 12, 13]]);
}

#[test]
fn a_session_belongs_to_the_instance_if_its_leader_does() {
    let look = [
        seen(9, 1, 9, Mark::None),
        seen(10, 9, 10, Mark::Sought(0)),
        seen(11, 1, 10, Mark::None),
        seen(12, 9, 9, Mark::Sought(0)),
        seen(13, 1, 9, Mark::None),
    ];
    assert_eq!(claimed(&look, &mut one()), [[10, 11, 12]], "13 is in the session of a stranger");
}

#[test]
fn a_session_whose_leader_is_gone_belongs_to_the_marked_process_in_it() {
    let look = [seen(11, 1, 10, Mark::Sought(0)), seen(12, 1, 10, Mark::None)];
    assert_eq!(claimed(&look, &mut one()), [[11, 12]]);
    let look = [dead(seen(10, 1, 10, Mark::None)), look[0], look[1]];
    assert_eq!(claimed(&look, &mut one()), [[11, 12]], "a zombie leads nobody");
    let look = [seen(12, 1, 10, Mark::None), seen(20, 1, 20, Mark::Sought(0)), seen(21, 20, 10, Mark::None)];
    assert_eq!(claimed(&look, &mut one()), [[20, 21]], "a child alone proves nothing of its session");
}

#[test]
fn the_supervisor_its_session_and_process_1_are_spared() {
    let own = std::process::id().cast_signed();
    let session = getsid(None).unwrap().as_raw();
    let look = [
        seen(1, 0, 1, Mark::Sought(0)),
        seen(own, 1, session, Mark::Sought(0)),
        seen(own + 1, own, own + 1, Mark::None),
        seen(own + 2, 1, session, Mark::Sought(0)),
        seen(own + 3, 1, session, Mark::None),
        seen(own + 4, 1, own + 4, Mark::None),
    ];
    assert_eq!(claimed(&look, &mut one()), [[own + 2]]);
}

#[test]
fn what_was_found_before_is_found_again_when_its_parents_are_gone() {
    let mut hunts = one();
    hunts[0].found.insert(Identity { pid: 12, started: 12 });
    hunts[0].found.insert(Identity { pid: 14, started: 3 });
    let look = [seen(12, 1, 12, Mark::None), seen(13, 12, 12, Mark::None), seen(14, 1, 14, Mark::None)];
    assert_eq!(claimed(&look, &mut hunts), [[12, 13]], "14 is the next bearer of its pid");
}

#[test]
fn a_session_is_remembered_until_its_number_is_given_away() {
    let mut hunts = one();
    let look = [seen(10, 1, 10, Mark::Sought(0))];
    assert_eq!(claimed(&look, &mut hunts), [[10]]);
    let look = [seen(12, 1, 10, Mark::None)];
    assert_eq!(claimed(&look, &mut hunts), [[12]], "the leader is gone and the session is not");
    let leader = Identity { pid: 10, started: 77 };
    let look = [Seen { identity: leader, ..seen(10, 1, 10, Mark::None) }, seen(13, 10, 10, Mark::None)];
    assert_eq!(claimed(&look, &mut hunts), [[]; 1] as [[i32; 0]; 1]);
    assert!(hunts[0].sessions.is_empty());
}

#[test]
fn the_dead_are_not_found() {
    let look =
        [dead(seen(10, 1, 10, Mark::None)), Seen { state: State::Dead, ..seen(11, 1, 11, Mark::Sought(0)) }];
    assert_eq!(claimed(&look, &mut one()), [[]; 1] as [[i32; 0]; 1]);
}
