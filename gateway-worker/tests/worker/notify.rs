//! READY=1.

use std::fs;
use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;
use supervisor_proto::worker::attach::Role;
use supervisor_proto::worker::report::Report as Body;
use supervisor_proto::worker::{Launch, Notified};

use crate::harness::{KILLED, Link, Place, eventually, pid, signal};

const SCRIPT: &str = "echo $NOTIFY_SOCKET >address; exec sleep 1000";

fn launch(place: &Place) -> Launch {
    Launch { notify: true, ..place.shell(SCRIPT) }
}

/// Says `text` where the gateway was told to say it.
fn say(place: &Place, text: &str) {
    let file = place.home().join("address");
    eventually("the gateway has written the address", || {
        fs::read_to_string(&file).unwrap_or_default().ends_with('\n')
    });
    let address = fs::read_to_string(file).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(text.as_bytes(), address.trim()).unwrap();
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
    say(&place, "READY=1\nSTATUS=up");
    say(&place, "READY=1");
    expect_notified(&mut link, 1);
    assert!(place.attach(Role::Watch, 0).1.notified);
    signal(pid(&started), Signal::KILL);
    assert_eq!(link.exited().how, KILLED);
    // What was said too late is not taken for the next one's word.
    say(&place, "READY=1");
    fs::remove_file(place.home().join("address")).unwrap();
    link.run(2);
    link.started();
    assert!(!place.attach(Role::Watch, 0).1.notified);
    say(&place, "READY=1");
    expect_notified(&mut link, 2);
}

#[test]
fn ready_is_reported_before_the_exit_that_follows_it() {
    let place = Place::new();
    let (_worker, mut link, started) = place.start(launch(&place));
    say(&place, "READY=1");
    signal(pid(&started), Signal::KILL);
    expect_notified(&mut link, 1);
    assert_eq!(link.exited().how, KILLED);
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
    let (_worker, _link, _) = place.start_shell(SCRIPT);
    eventually("the gateway has written the address", || place.home().join("address").exists());
    assert!(!place.run().join("notify.sock").exists());
}
