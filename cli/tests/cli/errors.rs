//! How failures are told, and with which codes they end.

use std::{fs, os::unix::net::UnixListener};

use tonic::{Code, Status};

use crate::{
    ctl::{ctl, finish},
    fake::{Fake, instance, refusal},
};
use supervisor_proto::v1::Phase;

#[test]
fn every_kind_of_refusal_has_its_exit_code() {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789)]);
    for (code, reason, exit) in [
        (Code::NotFound, "UNKNOWN_INSTANCE", 4),
        (Code::FailedPrecondition, "NOT_FAILED_OVER", 3),
        (Code::ResourceExhausted, "POOL_EXHAUSTED", 3),
        (Code::Aborted, "ETAG_MISMATCH", 3),
        (Code::PermissionDenied, "NOT_PERMITTED", 7),
        (Code::InvalidArgument, "REQUEST_ID_REUSED", 1),
        // A newer supervisor may refuse for reasons unknown here: the code decides.
        (Code::FailedPrecondition, "A_REASON_OF_TOMORROW", 3),
        (Code::NotFound, "A_REASON_OF_TOMORROW", 4),
        (Code::PermissionDenied, "A_REASON_OF_TOMORROW", 7),
        (Code::DeadlineExceeded, "A_REASON_OF_TOMORROW", 5),
        (Code::Internal, "A_REASON_OF_TOMORROW", 1),
    ] {
        fake.refuse("StartInstance", refusal(code, reason, "no."));
        let ran = fake.ctl(&["up", "main"]);
        assert_eq!(ran.code, Some(exit), "{code:?} {reason}: {ran:?}");
        assert!(ran.err.starts_with("error: failed to start `main`: no\n"), "{ran:?}");
    }
}

#[test]
fn a_supervisor_that_keeps_leaving_is_unreachable() {
    let fake = Fake::start();
    let leaving = || refusal(Code::Unavailable, "SHUTTING_DOWN", "the supervisor is shutting down.");
    fake.refuse("StartInstance", leaving()).refuse("StartInstance", leaving());
    assert_eq!(fake.ctl(&["up", "main"]).code, Some(6));
}

#[test]
fn an_error_without_details_is_judged_by_its_code() {
    let fake = Fake::start();
    fake.refuse("GetInstance", Status::unimplemented(""));
    let ran = fake.ctl(&["status", "main"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("hint: the supervisor is older than this openclawctl"), "{ran:?}");
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_known_one() {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789), instance("rescue", Phase::Ready, 19_789)]);
    let ran = fake.ctl(&["status", "rescu"]);
    assert_eq!(ran.code, Some(4));
    assert_eq!(
        ran.err,
        "error: failed to read the status of `rescu`: no instance is called `rescu`\n\
         hint: did you mean `rescue`?\n"
    );
    let ran = fake.ctl(&["logs", "mian"]);
    assert_eq!(ran.code, Some(4));
    assert!(ran.err.ends_with("hint: did you mean `main`?\n"), "{ran:?}");
    let ran = fake.ctl(&["env", "zzz"]);
    assert!(ran.err.ends_with("hint: openclawctl status\n"), "{ran:?}");
}

#[test]
fn without_a_listener_every_command_but_up_ends_with_6_and_names_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    for args in [
        &["status"][..],
        &["status", "main"],
        &["down", "main"],
        &["restart", "main"],
        &["export"],
        &["logs", "main"],
        &["events"],
        &["failover"],
        &["failback"],
        &["ports"],
        &["env", "main"],
        &["run", "main", "--", "true"],
        &["rm", "main", "--yes"],
        &["supervisor", "status"],
        &["supervisor", "stop"],
        &["up", "main", "--no-autostart"],
    ] {
        let ran = finish(ctl(directory.path(), args));
        assert_eq!(ran.code, Some(6), "{args:?}: {ran:?}");
        assert!(
            ran.err.contains(&format!("no supervisor is listening on {}\n", socket.display())),
            "{ran:?}"
        );
        assert!(
            ran.err.contains(
                "\nhint: `openclawctl supervisor start` starts one, which adopts what runs; `openclawctl up"
            ),
            "{ran:?}"
        );
    }
}

#[test]
fn a_socket_that_nobody_listens_on_any_more_is_the_same_as_none() {
    let directory = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(directory.path().join("control.sock")).unwrap());
    assert_eq!(finish(ctl(directory.path(), &["status"])).code, Some(6));
}

#[test]
fn a_listener_that_does_not_speak_grpc_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("control.sock")).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let ran = finish(ctl(directory.path(), &["export"]));
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(
        ran.err.starts_with("error: failed to export the fleet: the connection to the supervisor broke"),
        "{ran:?}"
    );
}

#[test]
fn a_socket_path_too_long_for_its_address_is_reached_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    let fake = Fake::start_in(&deep);
    fake.ctl(&["status"]).done();
}

#[test]
fn another_socket_may_be_named_by_option_or_variable() {
    let fake = Fake::start();
    let nowhere = tempfile::tempdir().unwrap();
    let socket = fake.data_dir.join("control.sock");
    let socket = socket.to_str().unwrap();
    finish(ctl(nowhere.path(), &["status", "--socket", socket])).done();
    let mut command = ctl(nowhere.path(), &["status"]);
    command.env("OPENCLAWCTL_SOCKET", socket);
    finish(command).done();
    // A supervisor of ours would not listen there: none is started.
    let elsewhere = nowhere.path().join("other.sock");
    let ran = finish(ctl(nowhere.path(), &["up", "--socket", elsewhere.to_str().unwrap()]));
    assert_eq!(ran.code, Some(6));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let nowhere = tempfile::tempdir().unwrap();
    for args in
        [&["restart"][..], &["upp"], &["up", "--wait=soon"], &["up", "--wait", "--no-wait"], &["logs"]]
    {
        assert_eq!(finish(ctl(nowhere.path(), args)).code, Some(2), "{args:?}");
    }
}
