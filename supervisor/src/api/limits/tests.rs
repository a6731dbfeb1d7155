use tokio::time::advance;

use super::*;

const MOST: Most = Most { connections: 3, calls: 4, bytes: 100 };

fn seats_ended(seats: &[Seat]) -> usize {
    seats.iter().filter(|seat| seat.end.is_cancelled()).count()
}

#[tokio::test]
async fn who_comes_gets_in_and_the_oldest_without_a_call_goes() {
    let limits = Limits::new(MOST);
    let seats: Vec<Seat> = (0..3).map(|pid| limits.admit(format!("process {pid}"), Party::Own)).collect();
    let busy = seats[0].ticket().call(0);
    let newcomer = limits.admit(String::new(), Party::Own);
    let ended: Vec<bool> = seats.iter().map(|seat| seat.end.is_cancelled()).collect();
    assert_eq!(ended, [false, true, false]);
    assert!(!newcomer.end.is_cancelled());
    drop((seats, busy, newcomer));
    assert!(limits.lock().connections.is_empty() && limits.lock().calls.is_empty());
}

#[tokio::test]
async fn who_has_most_connections_makes_room_for_all_others_however_busy_they_are() {
    let limits = Limits::new(Most { connections: 8, calls: 8, bytes: 100 });
    let agent = || Party::Inside(Name::new("main").unwrap());
    let watch = |seat: &Seat| seat.ticket().call(0);
    let theirs: Vec<Seat> = (0..8).map(|_| limits.admit(String::new(), agent())).collect();
    let calls: Vec<Call> = theirs.iter().map(watch).collect();
    let operator = limits.admit(String::new(), Party::Untraced(0));
    operator.is_of(Party::Own);
    let follow = watch(&operator);
    // It goes on, and the operator holds less than it, with a call and without.
    let more: Vec<Seat> = (0..20).map(|_| limits.admit(String::new(), agent())).collect();
    let other = limits.admit(String::new(), Party::Untraced(0));
    other.is_of(Party::Own);
    let more_calls: Vec<Call> = more.iter().map(watch).collect();
    let ask = watch(&other);
    assert!(!operator.end.is_cancelled() && !other.end.is_cancelled());
    drop((calls, more_calls, follow, ask));
}

#[tokio::test]
async fn strangers_with_a_thousand_numbers_are_one_party_and_go_before_those_with_a_role() {
    let limits = Limits::new(MOST);
    let stranger = |uid| limits.admit(String::new(), Party::Stranger(Crowd::of(uid)));
    let strangers: Vec<Seat> = (100_000..100_002).map(stranger).collect();
    let operator = limits.admit(String::new(), Party::User(1_000));
    let next = stranger(165_535);
    let last = limits.admit(String::new(), Party::User(1_001));
    assert!(!operator.end.is_cancelled() && !last.end.is_cancelled());
    assert!(strangers.iter().all(|seat| seat.end.is_cancelled()) && !next.end.is_cancelled());
}

#[tokio::test]
async fn a_stranger_who_floods_keeps_out_no_other_stranger_who_may_have_a_token() {
    let limits = Limits::new(Most { connections: 8, ..MOST });
    let stranger = |uid| limits.admit(String::new(), Party::Stranger(Crowd::of(uid)));
    let holder = stranger(1_001);
    let flood: Vec<Seat> =
        (0..20).map(|number| stranger([1_002, 165_536 + number][number as usize % 2])).collect();
    let other = stranger(u32::MAX);
    assert!(!holder.end.is_cancelled() && !other.end.is_cancelled());
    assert_eq!(flood.iter().filter(|seat| !seat.end.is_cancelled()).count(), 6);
}

#[tokio::test]
async fn an_agent_that_is_a_thousand_users_is_not_more_than_one_of_those_with_a_role() {
    let limits = Limits::new(MOST);
    let stranger = |uid| limits.admit(String::new(), Party::Stranger(Crowd::of(uid)));
    let operators: Vec<Seat> = (0..2).map(|_| limits.admit(String::new(), Party::User(7))).collect();
    let agents: Vec<Seat> = (1..1_000).map(stranger).collect();
    assert!(operators.iter().any(|seat| !seat.end.is_cancelled()));
    let newest = agents.iter().rev().take(2).all(|seat| !seat.end.is_cancelled());
    assert!(newest, "whoever comes gets in, and the oldest of them goes");
}

#[tokio::test]
async fn a_few_connections_of_operators_are_not_more_than_one_of_each_of_a_crowd() {
    let limits = Limits::new(MOST);
    let operators: Vec<Seat> = (0..2).map(|_| limits.admit(String::new(), Party::Own)).collect();
    let crowd: Vec<Seat> = (0..5).map(|uid| limits.admit(String::new(), Party::User(uid))).collect();
    assert!(operators.iter().all(|seat| !seat.end.is_cancelled()));
    assert!(crowd.iter().any(|seat| seat.end.is_cancelled()));
}

#[tokio::test]
async fn who_comes_while_a_user_floods_is_not_taken_for_one_of_that_flood() {
    let limits = Limits::new(MOST);
    let rescue = limits.admit(String::new(), Party::Untraced(0));
    let flood: Vec<Seat> = (0..20).map(|_| limits.admit(String::new(), Party::Slow(0))).collect();
    assert!(!rescue.end.is_cancelled() && flood[..17].iter().all(|seat| seat.end.is_cancelled()));
}

#[tokio::test]
async fn the_connection_with_most_calls_makes_room_for_another_call() {
    let limits = Limits::new(MOST);
    let admit = || limits.admit(String::new(), Party::Own);
    let (modest, greedy) = (admit(), admit());
    let first = modest.ticket().call(0);
    let calls: Vec<Call> = (0..3).map(|_| greedy.ticket().call(0)).collect();
    let last = modest.ticket().call(0);
    assert!(greedy.end.is_cancelled() && !modest.end.is_cancelled());
    assert_eq!(limits.lock().calls.len(), 2);
    // What it begins now, or ends, changes nothing for the others.
    drop((greedy.ticket().call(0), calls, greedy));
    assert_eq!(limits.lock().calls.len(), 2);
    drop((first, last));
    assert_eq!(limits.lock().calls.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_takes_go_before_those_on_their_way() {
    let limits = Limits::new(MOST);
    let admit = || limits.admit(String::new(), Party::Own);
    let (asleep, awake) = (admit(), admit());
    let (forgotten, moving) = (asleep.ticket().call(0), awake.ticket().call(0));
    forgotten.hold(60);
    moving.hold(90);
    assert!(!asleep.end.is_cancelled() && !awake.end.is_cancelled(), "both may be on their way");
    advance(STALLED).await;
    moving.hold(80);
    assert!(asleep.end.is_cancelled() && !awake.end.is_cancelled());
    assert_eq!(limits.lock().bytes, 80);
    moving.hold(0);
    drop((forgotten, moving));
    assert_eq!(limits.lock().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_little_unread_on_each_of_many_connections_goes_before_who_leaves_less_on_one() {
    let limits = Limits::new(Most { connections: 20, calls: 20, ..MOST });
    let operator = limits.admit(String::new(), Party::User(1_000));
    let paused = operator.ticket().call(0);
    paused.hold(30);
    let agent = || limits.admit(String::new(), Party::Inside(Name::new("main").unwrap()));
    let theirs: Vec<Seat> = (0..15).map(|_| agent()).collect();
    let calls: Vec<Call> = theirs.iter().map(|seat| seat.ticket().call(0)).collect();
    // As long as they take a little now and then, these are on their way.
    for _ in 0..4 {
        advance(STALLED / 2).await;
        calls.iter().for_each(|call| call.hold(6));
    }
    assert!(seats_ended(&theirs) == 0 && !operator.end.is_cancelled());
    sleep(STALLED * 2).await;
    assert!(seats_ended(&theirs) > 0 && !operator.end.is_cancelled());
    assert!(limits.lock().bytes <= MOST.bytes);
    drop((paused, calls));
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_takes_go_though_nobody_asks_for_room() {
    let limits = Limits::new(MOST);
    let seats: Vec<Seat> = (0..3).map(|_| limits.admit(String::new(), Party::Own)).collect();
    let calls: Vec<Call> = seats.iter().map(|seat| seat.ticket().call(0)).collect();
    calls.iter().for_each(|call| call.hold(60));
    assert!(seats.iter().all(|seat| !seat.end.is_cancelled()), "all may be on their way");
    sleep(STALLED * 2).await;
    let ended: Vec<bool> = seats.iter().map(|seat| seat.end.is_cancelled()).collect();
    assert_eq!(ended, [true, true, false]);
    calls[2].hold(0);
    // Too much of it is let through by nobody.
    let seats: Vec<Seat> = (0..3).map(|_| limits.admit(String::new(), Party::Own)).collect();
    let calls: Vec<Call> = seats.iter().map(|seat| seat.ticket().call(0)).collect();
    calls.iter().for_each(|call| call.hold(180));
    assert!(seats[0].end.is_cancelled() && !seats[2].end.is_cancelled());
}
