//! READY=1.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;

use nix::libc;
use rustix::process::Signal;
use supervisor_proto::worker::attach::Role;
use supervisor_proto::worker::report::Report as Body;
use supervisor_proto::worker::{Launch, Notified};

use crate::harness::{KILLED, Link, Place, alive, eventually, pid, signal};

/// Marks a process that is to speak.
const VOICE: &str = "VOICE";

/// Says what comes through the pipe `words`, a datagram for each line, and writes down in `said` what it has said.
#[test]
#[ignore = "it is run by the other tests, as a gateway or by one"]
fn voice() {
    if env::var_os(VOICE).is_none() {
        return;
    }
    // Open for writing as well, so that it does not end with one who writes.
    let words = OpenOptions::new().read(true).write(true).open("words").unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    for line in BufReader::new(words).lines() {
        let line = line.unwrap();
        socket.send_to(line.replace(';', "\n").as_bytes(), env::var_os("NOTIFY_SOCKET").unwrap()).unwrap();
        writeln!(OpenOptions::new().create(true).append(true).open("said").unwrap(), "{line}").unwrap();
    }
}

/// The voice, as the shell runs it.
fn spoken() -> String {
    let this = env::current_exe().unwrap();
    format!(
        "env {VOICE}=1 '{}' notify::voice --exact --ignored --nocapture --test-threads=1",
        this.to_str().unwrap()
    )
}

/// A gateway that speaks itself.
fn launch(place: &Place) -> Launch {
    speaking(place, &format!("exec {}", spoken()))
}

/// One that lets another do it.
fn speaking(place: &Place, script: &str) -> Launch {
    place.fifo("words");
    Launch { notify: true, ..place.shell(script) }
}

fn said(place: &Place) -> usize {
    fs::read_to_string(place.home().join("said")).unwrap_or_default().lines().count()
}

/// Has the voice of a place say `text`, and waits until it has.
fn say(place: &Place, text: &str) {
    let before = said(place);
    let pipe = place.home().join("words");
    let mut words = None;
    eventually("the voice listens", || {
        words = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&pipe).ok();
        words.is_some()
    });
    let mut words = words.unwrap();
    writeln!(words, "{text}").unwrap();
    eventually("it is said", || said(place) > before);
}

fn expect_notified(link: &mut Link, incarnation: u64) {
    assert_eq!(link.next(), Some(Body::Notified(Notified { incarnation })));
}

#[test]
fn ready_is_reported_once_per_incarnation() {
    let place = Place::new();
    let (_worker, mut link, started) = place.start(launch(&place));
    say(&place, "STATUS=almost");
    assert!(!place.attach(Role::Watch, 0).1.notified);
    say(&place, "READY=1;STATUS=up");
    say(&place, "READY=1");
    expect_notified(&mut link, 1);
    assert!(place.attach(Role::Watch, 0).1.notified);
    signal(pid(&started), Signal::KILL);
    assert_eq!(link.exited().how, KILLED);
    link.run(2);
    link.started();
    assert!(!place.attach(Role::Watch, 0).1.notified);
    say(&place, "READY=1");
    expect_notified(&mut link, 2);
}

#[test]
fn ready_is_reported_before_the_exit_that_follows_it() {
    let place = Place::new();
    let (worker, mut link, started) = place.start(launch(&place));
    // Whoever has spoken is dead by the time its worker reads what.
    signal(worker.pid(), Signal::STOP);
    say(&place, "READY=1");
    signal(pid(&started), Signal::KILL);
    eventually("it is dead", || !alive(pid(&started)));
    signal(worker.pid(), Signal::CONT);
    expect_notified(&mut link, 1);
    assert_eq!(link.exited().how, KILLED);
}

#[test]
fn what_the_gateway_has_started_may_say_it_however_it_hides() {
    let child = format!("{} & wait", spoken());
    let daemon = format!("(setsid {} &); exec sleep 1000", spoken());
    for script in [child, daemon] {
        let place = Place::new();
        let (_worker, mut link, _) = place.start(speaking(&place, &script));
        say(&place, "READY=1");
        expect_notified(&mut link, 1);
    }
}

#[test]
fn what_a_neighbour_of_the_same_user_says_is_not_heard() {
    let (place, neighbour) = (Place::new(), Place::new());
    let (_worker, mut link, _) = place.start(Launch { notify: true, ..place.shell("exec sleep 1000") });
    let address = place.run().join("notify.sock");
    neighbour.fifo("words");
    let script = format!("NOTIFY_SOCKET='{}' exec {}", address.to_str().unwrap(), spoken());
    let (_other, _link, _) = neighbour.start_shell(&script);
    say(&neighbour, "READY=1");
    assert!(!place.attach(Role::Watch, 0).1.notified);
    // Nor is this test, which is above its worker.
    UnixDatagram::unbound().unwrap().send_to(b"READY=1", address).unwrap();
    link.kill(1);
    assert_eq!(link.exited().how, KILLED, "and nothing was said before");
}

#[test]
fn a_run_directory_with_a_very_long_path_serves_as_well() {
    let mut dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    let place = Place::below(tempfile::tempdir_in(&deep).unwrap());
    let (_worker, mut link, _) = place.start(launch(&place));
    say(&place, "READY=1");
    expect_notified(&mut link, 1);
    assert!(place.attach(Role::Control, 2).1.notified);
    dir.disable_cleanup(false);
}

#[test]
fn a_gateway_that_was_not_asked_has_no_socket_to_say_it() {
    let place = Place::new();
    let (_worker, _link, _) = place.start_shell("echo \"$NOTIFY_SOCKET\" >address; exec sleep 1000");
    let address = place.home().join("address");
    eventually("the gateway has written the address", || {
        fs::read_to_string(&address).is_ok_and(|text| text == "\n")
    });
    assert!(!place.run().join("notify.sock").exists());
}
