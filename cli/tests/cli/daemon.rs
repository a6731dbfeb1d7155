//! Starting and stopping the supervisor itself, with a real process in its place.

use std::{
    env, fs,
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use crate::{
    ctl::{Ran, finish, pause, program, until},
    fake::Fake,
};

/// Names the data directory to the process that plays the supervisor.
const DIRECTORY: &str = "FAKE_SUPERVISOR_DIRECTORY";

/// Not a test of its own: what the scripts below run as the supervisor.
#[test]
fn the_fake_supervisor_serves_until_it_is_shut_down() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        eprintln!("serving");
        let directory = PathBuf::from(directory);
        let fake = Fake::start_in(&directory);
        std::thread::spawn(move || {
            // A test that failed takes its directory with it.
            while directory.exists() {
                pause();
            }
            std::process::exit(0);
        });
        fake.join();
    }
}

/// A directory with a copy of `openclawctl` and, beside it, a script in the supervisor's place.
struct Installed {
    directory: tempfile::TempDir,
}

impl Installed {
    fn new(script: &str) -> Self {
        // In the target directory, so that the binary can be linked instead of copied.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let own = Path::new(env!("CARGO_BIN_EXE_openclawctl"));
        let copy = directory.path().join("openclawctl");
        fs::hard_link(own, &copy).or_else(|_| fs::copy(own, &copy).map(|_| ())).unwrap();
        let daemon = directory.path().join("openclaw-supervisor");
        fs::write(&daemon, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn serving() -> Self {
        let own = env::current_exe().unwrap();
        Self::new(&format!(
            "[ \"$1\" = --data-dir ] || exit 64\n\
             {DIRECTORY}=\"$2\" exec '{}' --exact daemon::the_fake_supervisor_serves_until_it_is_shut_down --nocapture",
            own.display()
        ))
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn ctl(&self, args: &[&str]) -> Ran {
        let mut command = program(&self.directory.path().join("openclawctl"), &self.data_dir(), args);
        command.env("PATH", "/usr/bin:/bin");
        finish(command)
    }
}

#[test]
fn up_starts_a_supervisor_says_so_and_goes_on() {
    let installed = Installed::serving();
    let ran = installed.ctl(&["up", "main"]);
    assert!(ran.err.starts_with("started a supervisor (pid "), "{ran:?}");
    assert!(ran.done().contains("main  ready"));

    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&installed.data_dir()), 0o700);
    assert_eq!(mode(&installed.data_dir().join("supervisor.log")), 0o600);

    let ran = installed.ctl(&["supervisor", "start"]);
    assert!(ran.err.starts_with("a supervisor is running already (pid "), "{ran:?}");
    let text = installed.ctl(&["supervisor", "status"]).done();
    assert!(text.starts_with("supervisor  running\n  version     0.1.0\n  process     pid "), "{text}");

    let ran = installed.ctl(&["supervisor", "stop"]);
    assert!(ran.err.ends_with("; gateways keep running\n"), "{ran:?}");
    ran.done();
    assert_eq!(installed.ctl(&["status"]).code, Some(6));
}

#[test]
fn supervisor_stop_of_all_must_be_confirmed() {
    let installed = Installed::serving();
    installed.ctl(&["supervisor", "start"]).done();
    assert_eq!(installed.ctl(&["supervisor", "stop", "--all"]).code, Some(2));
    let ran = installed.ctl(&["supervisor", "stop", "--all", "--yes"]);
    assert!(ran.err.starts_with("stopping every gateway\nstopped the supervisor (pid "), "{ran:?}");
    ran.done();
}

#[test]
fn supervisor_stop_waits_until_the_directory_has_been_let_go() {
    let installed = Installed::serving();
    installed.ctl(&["supervisor", "start"]).done();
    let lock = fs::File::create(installed.data_dir().join("supervisor.lock")).unwrap();
    lock.lock().unwrap();
    let mut stop = program(
        &installed.directory.path().join("openclawctl"),
        &installed.data_dir(),
        &["supervisor", "stop"],
    );
    let mut stop = stop.spawn().unwrap();
    until("the end of the listener", || {
        UnixStream::connect(installed.data_dir().join("control.sock")).is_err()
    });
    // It looks every 20 ms: time enough for one that only asks the socket.
    (0..100).for_each(|_| pause());
    assert_eq!(stop.try_wait().unwrap(), None, "the directory is still held");
    drop(lock);
    assert!(stop.wait().unwrap().success());
}

#[test]
fn a_supervisor_that_dies_at_once_is_told_with_the_end_of_its_log() {
    let installed = Installed::new("echo 'first trouble'; echo 'error: the disk is full' >&2; exit 3");
    fs::create_dir(installed.data_dir()).unwrap();
    fs::write(installed.data_dir().join("supervisor.log"), "from an earlier life\n").unwrap();
    let ran = installed.ctl(&["up", "main"]);
    assert_eq!(ran.code, Some(6));
    assert!(
        ran.err.starts_with("error: failed to start main: the supervisor ended at once (exit status: 3)"),
        "{ran:?}"
    );
    assert!(ran.err.contains("\n  | first trouble\n  | error: the disk is full\nhint: "), "{ran:?}");
    assert!(!ran.err.contains("earlier life"), "{ran:?}");
}

#[test]
fn a_supervisor_that_another_one_forestalled_is_no_error() {
    // Plays the loser of a race: ends while the winner comes up.
    let installed = Installed::new("exit 1");
    let directory = installed.data_dir();
    fs::create_dir(&directory).unwrap();
    let log = directory.join("supervisor.log");
    let winner = std::thread::spawn(move || {
        until("the loser", || log.exists());
        Fake::start_in(&directory)
    });
    let ran = installed.ctl(&["up", "main"]);
    drop(winner.join().unwrap());
    assert!(ran.err.starts_with("a supervisor is running (pid "), "{ran:?}");
    assert!(ran.done().contains("main  ready"));
}

#[test]
fn a_missing_supervisor_program_is_told_with_what_to_do() {
    let installed = Installed::serving();
    fs::remove_file(installed.directory.path().join("openclaw-supervisor")).unwrap();
    let ran = installed.ctl(&["up"]);
    assert_eq!(ran.code, Some(4));
    assert_eq!(
        ran.err,
        "error: failed to start the fleet: `openclaw-supervisor` is neither beside this program nor on PATH\n\
         hint: install `openclaw-supervisor` beside `openclawctl`, or add its directory to PATH\n"
    );
}

#[test]
fn the_supervisor_is_found_on_path_too() {
    let installed = Installed::serving();
    let elsewhere = installed.directory.path().join("bin");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(installed.directory.path().join("openclaw-supervisor"), elsewhere.join("openclaw-supervisor"))
        .unwrap();
    let mut command = program(
        &installed.directory.path().join("openclawctl"),
        &installed.data_dir(),
        &["supervisor", "start"],
    );
    command.env("PATH", format!("{}:/usr/bin:/bin", elsewhere.display()));
    finish(command).done();
    installed.ctl(&["supervisor", "stop"]).done();
}

#[test]
fn inside_an_instance_no_supervisor_is_started() {
    let installed = Installed::serving();
    let mut command =
        program(&installed.directory.path().join("openclawctl"), &installed.data_dir(), &["up"]);
    command.env("OPENCLAWCTL_INSTANCE", "main");
    let ran = finish(command);
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(ran.err.contains("one started inside `main` would end with it"), "{ran:?}");
}

#[test]
fn a_directory_of_another_user_is_given_no_log() {
    let installed = Installed::serving();
    let (data, target) = (installed.data_dir(), installed.directory.path().join("target"));
    fs::create_dir(&data).unwrap();
    symlink(&target, data.join("supervisor.log")).unwrap();
    let ran = installed.ctl(&["supervisor", "start"]);
    assert!(ran.err.contains("cannot create") && !target.exists(), "no link is followed: {ran:?}");
    if nix::unistd::geteuid().is_root() {
        fs::remove_file(data.join("supervisor.log")).unwrap();
        chown(&data, Some(64_143), Some(64_143)).unwrap();
        let ran = installed.ctl(&["supervisor", "start"]);
        assert!(ran.err.contains("belongs to user 64143") && ran.code == Some(7), "{ran:?}");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    }
}
