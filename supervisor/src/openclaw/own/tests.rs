use std::{
    fs,
    io::Read,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;
use crate::openclaw::config::{ConfigError, check::read_plainly};

/// A link that is followed twice is followed to two places by about one in a thousand.
const LOOKS: usize = 50_000;

#[test]
fn a_directory_that_is_swapped_for_a_link_between_two_looks_leads_nowhere() {
    let world = tempfile::tempdir().unwrap();
    let at = |path: &str| world.path().canonicalize().unwrap().join(path);
    for directory in ["profile", "profile/sub", "others"] {
        fs::create_dir(at(directory)).unwrap();
    }
    symlink("sub/secret", at("profile/openclaw.json")).unwrap();
    symlink(at("others"), at("profile/link")).unwrap();
    fs::write(at("profile/sub/secret"), "mine").unwrap();
    fs::write(at("others/secret"), "others").unwrap();
    let (sub, link, done) = (at("profile/sub"), at("profile/link"), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &sub, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let config = at("profile/openclaw.json");
        let mut read = 0;
        for _ in 0..LOOKS {
            let mut text = String::new();
            if let Ok(mut file) = Own::nobodys(&config).open() {
                file.read_to_string(&mut text).unwrap();
                read += 1;
            }
            if text == "others" {
                done.store(true, Ordering::Relaxed);
            }
            assert_ne!(text, "others");
        }
        done.store(true, Ordering::Relaxed);
        assert_ne!(read, 0, "it was never a directory");
    });
}

#[test]
fn a_user_that_cannot_be_told_is_neither_a_link_that_leads_out_nor_the_supervisors_own() {
    let world = tempfile::tempdir().unwrap();
    let (path, user) = (world.path().join("openclaw.json"), UserName("nobody-has-this".into()));
    fs::write(&path, "{}").unwrap();
    let own = Own { user: Some(&user), ..Own::nobodys(&path) };
    assert!(
        own.found().is_err() && own.open().is_err() && own.replace(b"", 0o600, Durability::Quick).is_err()
    );
    // A configuration is not blamed for it, which would have it rolled back.
    let error = read_plainly(own).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }) && !error.blames_file(), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
}
