//! Supervisors that come, go, lie and babble.

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use supervisor_proto::frame::{decode, encode};
use supervisor_proto::worker::attach::Role;
use supervisor_proto::worker::exited::How;
use supervisor_proto::worker::order::Order as Demand;
use supervisor_proto::worker::refused::Reason;
use supervisor_proto::worker::report::Report as Body;
use supervisor_proto::worker::state::Phase;
use supervisor_proto::worker::{Acknowledge, Attach, Exited, Kill, Launch, Quit, Run};

use crate::harness::{KILLED, Link, Place, WORKER, Worker, alive, eventually, frame, pid, signal};

#[test]
fn a_gateway_survives_its_supervisor_and_the_next_one_learns_what_happened() {
    let place = Place::new();
    let (worker, mut first, started) = place.start_shell("exec sleep 1000");
    signal(pid(&started), Signal::KILL);
    first.exited();
    first.run(2);
    let started = first.started();
    drop(first);

    let (mut second, state) = place.attach(Role::Control, 2);
    assert_eq!((state.phase(), state.incarnation, state.worker_pid), (Phase::Running, 2, worker.pid()));
    assert_eq!(state.process, started.process);
    assert_eq!(state.exits.len(), 1);
    assert_eq!((state.exits[0].incarnation, state.exits[0].how), (1, KILLED));
    second.order(Demand::Acknowledge(Acknowledge { incarnation: 1 }));
    drop(second);

    // Another exit, while nobody is there.
    signal(pid(&started), Signal::TERM);
    eventually("the gateway is dead", || !alive(pid(&started)));
    let (mut third, mut state) = place.attach(Role::Control, 3);
    while state.exits.is_empty() {
        // The worker has not reaped it yet.
        (third, state) = place.attach(Role::Control, 3);
    }
    assert_eq!((state.phase(), state.incarnation, state.process), (Phase::Empty, 2, None));
    assert_eq!(state.exits.len(), 1);
    assert_eq!((state.exits[0].incarnation, state.exits[0].how), (2, Some(How::Signal(15))));

    third.run(3);
    assert_eq!(third.started().incarnation, 3);
}

#[test]
fn acknowledged_exits_are_forgotten_on_disk_too() {
    let place = Place::new();
    let (_worker, mut link, _) = place.start_shell("exit 4");
    link.exited();
    let mut bytes = fs::read(place.run().join("exits")).unwrap();
    assert_eq!(decode::<Exited>(&mut bytes).unwrap().unwrap().how, Some(How::Code(4)));
    link.order(Demand::Acknowledge(Acknowledge { incarnation: 1 }));
    let (_, state) = place.attach(Role::Watch, 0);
    assert!(state.exits.is_empty());
    assert_eq!(fs::metadata(place.run().join("exits")).unwrap().len(), 0);
}

#[test]
fn a_record_of_exits_cut_short_by_a_crash_yields_the_whole_ones() {
    let place = Place::new();
    let mut bytes = Vec::new();
    for incarnation in [3, 4, 5] {
        encode(&Exited { incarnation, pid: 9, how: Some(How::Code(1)), ..Exited::default() }, &mut bytes);
    }
    fs::write(place.run().join("exits"), &bytes[..bytes.len() - 3]).unwrap();
    let (_worker, mut link) = Worker::spawn(Command::new(WORKER));
    let mut bootstrap = place.bootstrap(place.shell("exit 2"));
    bootstrap.run.as_mut().unwrap().incarnation = 6;
    link.order(Demand::Bootstrap(bootstrap));
    let known = |exits: &[Exited]| exits.iter().map(|exit| exit.incarnation).collect::<Vec<_>>();
    assert_eq!(known(&link.state().exits), [3, 4]);
    link.started();
    link.exited();
    let (_, state) = place.attach(Role::Watch, 0);
    assert_eq!(known(&state.exits), [3, 4, 6]);
    let mut bytes = fs::read(place.run().join("exits")).unwrap();
    let mut read = Vec::new();
    while let Some(exit) = decode::<Exited>(&mut bytes).unwrap() {
        read.push(exit);
    }
    assert_eq!(known(&read), [3, 4, 6]);
    assert!(bytes.is_empty());
}

#[test]
fn an_exit_is_on_disk_before_it_is_reported() {
    let place = Place::new();
    let (_worker, mut link, _) = place.start_shell("exit 1");
    for incarnation in 1..=50 {
        let exited = link.exited();
        let bytes = fs::read(place.run().join("exits")).unwrap();
        let mut record = Vec::new();
        encode(&exited, &mut record);
        assert!(bytes.ends_with(&record));
        link.run(incarnation + 1);
        link.started();
    }
}

#[test]
fn exits_that_nobody_acknowledges_are_kept_up_to_a_bound() {
    let place = Place::new();
    let (mut worker, mut link, _) = place.start(Launch { program: "/bin/true".into(), ..place.shell("") });
    for incarnation in 2..=600 {
        link.exited();
        link.run(incarnation);
        link.started();
    }
    link.exited();
    let newest = |exits: &[Exited]| {
        assert_eq!(exits.len(), 256);
        assert!(exits.iter().map(|exit| exit.incarnation).eq(345..=600));
    };
    newest(&place.attach(Role::Watch, 0).1.exits);
    link.order(Demand::Quit(Quit {}));
    assert_eq!(link.next(), None);
    assert_eq!(worker.wait().code(), Some(0));

    let (_worker, mut link) = Worker::spawn(Command::new(WORKER));
    link.order(Demand::Bootstrap(place.bootstrap(place.shell("exit 0"))));
    newest(&link.state().exits);
}

#[test]
fn a_controller_of_a_lower_epoch_is_refused_and_the_present_one_stays() {
    let place = Place::new();
    let (_worker, first, started) = place.start_shell("exec sleep 1000");
    let (mut second, _) = place.attach(Role::Control, 7);
    let mut late = place.connect();
    // Whatever comes after the attach counts for nothing.
    let attach = frame(Demand::Attach(Attach { role: Role::Control.into(), epoch: 6, key: place.key }));
    late.bytes(&[attach, frame(Demand::Kill(Kill { incarnation: 1 }))].concat());
    let refused = late.refused();
    assert_eq!(
        (refused.reason(), refused.message.as_str()),
        (Reason::StaleEpoch, "a controller of epoch 7 has been here")
    );
    assert_eq!(late.next(), None);
    drop(first);
    assert!(alive(pid(&started)));
    second.kill(1);
    assert_eq!(second.exited().how, KILLED);
}

#[test]
fn a_new_controller_takes_over_and_the_one_before_is_disconnected() {
    let place = Place::new();
    let (_worker, mut first, started) = place.start_shell("exec sleep 1000");
    let (mut second, _) = place.attach(Role::Control, 1);
    assert_eq!(first.next(), None);
    assert!(alive(pid(&started)));
    second.kill(1);
    assert_eq!(second.exited().how, KILLED);
}

#[test]
fn orders_for_another_incarnation_are_refused_and_change_nothing() {
    let place = Place::new();
    let (_worker, mut link, started) = place.start_shell("exit 0");
    link.exited();
    link.run(2);
    let second = link.started();
    assert_ne!(pid(&started), pid(&second));
    link.exited();
    link.order(Demand::Run(Run { incarnation: 3, launch: Some(place.shell("exec sleep 1000")) }));
    let third = link.started();
    for stale in [1, 2, 4] {
        link.kill(stale);
        let refused = link.refused();
        assert_eq!((refused.reason(), refused.incarnation), (Reason::StaleIncarnation, stale));
        link.stop(stale, Duration::ZERO);
        assert_eq!(link.refused().reason(), Reason::StaleIncarnation);
    }
    assert!(alive(pid(&third)));
    link.kill(3);
    assert_eq!(link.exited().how, KILLED);
    // Now it has ended: asking again is no mistake, and running it again is.
    link.kill(3);
    link.stop(3, Duration::ZERO);
    link.run(3);
    assert_eq!(link.refused().reason(), Reason::StaleIncarnation);
}

#[test]
fn a_watcher_sees_everything_and_orders_nothing() {
    let place = Place::new();
    let (_worker, mut link, started) = place.start_shell("exec sleep 1000");
    let (mut watcher, state) = place.attach(Role::Watch, 0);
    assert_eq!(state.process, started.process);
    watcher.kill(1);
    assert_eq!(watcher.refused().reason(), Reason::Invalid);
    assert!(alive(pid(&started)));
    link.kill(1);
    assert_eq!(link.exited(), watcher.exited());
    link.run(2);
    assert_eq!(link.started(), watcher.started());
}

#[test]
fn orders_sent_just_before_a_supervisor_goes_away_are_obeyed() {
    let place = Place::new();
    let (_worker, mut link, started) = place.start_shell("exec sleep 1000");
    link.kill(1);
    drop(link);
    eventually("the gateway is dead", || !alive(pid(&started)));
}

#[test]
fn garbage_ends_its_connection_and_disturbs_nothing() {
    let place = Place::new();
    let log = place.path().join("worker.log");
    let mut worker = Command::new(WORKER);
    worker.stderr(File::create(&log).unwrap());
    let (_worker, mut link, started) = place.start_by(worker, place.shell("exec sleep 1000"));
    for garbage in [&[0xff; 64][..], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 2, 0xff, 0xff], &[0, 0, 0, 0]] {
        let mut babbler = place.connect();
        babbler.bytes(garbage);
        // An empty frame is an order without content, and gets a refusal first.
        if let Some(answer) = babbler.next() {
            assert!(matches!(answer, Body::Refused(_)), "{answer:?}");
            assert_eq!(babbler.next(), None);
        }
    }
    let mut hoarder = place.connect();
    hoarder.bytes(&[&[0, 0x0f, 0, 0][..], &[0; 4096]].concat());
    assert_eq!(hoarder.next(), None);
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        "",
        "who can do this without end is given no line of a log"
    );

    // The controller's own connection is no exception, and the gateway does not care.
    link.bytes(&[0xff; 8]);
    assert_eq!(link.next(), None);
    assert!(fs::read_to_string(&log).unwrap().contains("dropped a connection: "));
    assert!(alive(pid(&started)));
    let (mut next, _) = place.attach(Role::Control, 2);
    next.kill(1);
    assert_eq!(next.exited().how, KILLED);
}

#[test]
fn an_order_in_many_small_pieces_is_one_order() {
    let place = Place::new();
    let (_worker, mut link, _) = place.start_shell("exec sleep 1000");
    let (mut watcher, _) = place.attach(Role::Watch, 0);
    for byte in frame(Demand::Kill(Kill { incarnation: 1 })) {
        link.bytes(&[byte]);
        // An answer on another connection shows that the worker has seen this byte by itself.
        watcher.kill(1);
        match watcher.next() {
            Some(Body::Refused(_)) => {}
            Some(Body::Exited(exited)) => assert_eq!(exited.how, KILLED),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(link.exited().how, KILLED);
}

#[test]
fn a_connection_that_says_nothing_is_dropped() {
    let place = Place::new();
    let (_worker, _link, _) = place.start_shell("exec sleep 1000");
    let mut mute = place.connect();
    assert_eq!(mute.next(), None);
}

#[test]
fn a_crowd_of_watchers_cannot_keep_a_supervisor_out() {
    let place = Place::new();
    let (_worker, link, _) = place.start_shell("exec sleep 1000");
    let crowd: Vec<Link> = (0..40).map(|_| place.attach(Role::Watch, 0).0).collect();
    let mutes: Vec<Link> = (0..40).map(|_| place.connect()).collect();
    let (mut next, _) = place.attach(Role::Control, 2);
    next.kill(1);
    assert_eq!(next.exited().how, KILLED);
    drop((crowd, mutes, link));
}

#[test]
fn a_reader_that_does_not_read_is_dropped_and_holds_nobody_up() {
    let place = Place::new();
    let (_worker, mut link, _) = place.start_shell("exec sleep 1000");
    let (mut sleeper, _) = place.attach(Role::Watch, 0);
    // Each of these is answered with a refusal, none of which is read.
    let flood = frame(Demand::Kill(Kill { incarnation: 1 })).repeat(64 << 10);
    assert!(sleeper.hangs_up_on(&flood), "the worker has buffered without bound");
    link.kill(1);
    assert_eq!(link.exited().how, KILLED);
}
