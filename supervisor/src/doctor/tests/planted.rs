//! Links that an agent has put in the place of directories.

use super::*;

/// A host with something of the same user's that is nobody's business, open as much of a host is.
fn world() -> (World, PathBuf) {
    let mut world = World::new();
    world.instance("main", 18_789);
    let victim = world.write("root/etc/passwd.json", "root");
    fs::set_permissions(&victim, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(world.at("root/etc"), Permissions::from_mode(0o755)).unwrap();
    (world, victim)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_directory_of_secrets_that_is_a_link_is_not_gone_into() {
    let (world, victim) = world();
    let state = world.at("data/instances/main/state");
    fs::create_dir_all(state.join("agents/b")).unwrap();
    fs::rename(&victim, world.at("root/etc/auth.json")).unwrap();
    for link in ["credentials", "identity", "devices", "agents/a", "agents/b/agent"] {
        symlink(world.at("root/etc"), state.join(link)).unwrap();
    }
    fs::create_dir(world.at("root/etc/agent")).unwrap();
    fs::copy(world.at("root/etc/auth.json"), world.at("root/etc/agent/auth.json")).unwrap();
    assert_eq!(world.check(files::open), []);
    assert_eq!(world.fix(files::open).mended.len(), 0);
    assert_eq!(
        (mode(&world.at("root/etc/auth.json")), mode(&world.at("root/etc/agent/auth.json"))),
        (0o644, 0o644)
    );
}

#[test]
fn a_directory_that_becomes_a_link_before_it_is_mended_leads_nowhere() {
    let (world, victim) = world();
    let state = world.at("data/instances/main/state");
    let secret = world.write("data/instances/main/state/credentials/passwd.json", "mine");
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(state.join("credentials"), Permissions::from_mode(0o700)).unwrap();
    let [finding] = &world.check(files::open)[..] else { panic!("one is open") };
    fs::rename(state.join("credentials"), state.join("before")).unwrap();
    symlink(world.at("root/etc"), state.join("credentials")).unwrap();
    for fix in &finding.fixes {
        fix.apply().unwrap_err();
    }
    assert!(finding.fixes.len() == 1 && mode(&victim) == 0o644, "{finding:?}");
}

#[test]
fn what_is_removed_is_not_looked_for_behind_a_link() {
    let (world, victim) = world();
    let state = world.at("data/instances/main/state");
    fs::rename(&victim, world.at("root/etc/x.lock")).unwrap();
    fs::write(world.at("root/etc/x.lock"), format!(r#"{{"pid":{}}}"#, i32::MAX)).unwrap();
    age(&world.at("root/etc/x.lock"));
    symlink(world.at("root/etc"), state.join("locks")).unwrap();
    assert_eq!(world.check(locks::stale), []);
    // One that is a directory when it is looked at, and a link by the time that its lock is removed.
    fs::remove_file(state.join("locks")).unwrap();
    fs::rename(world.at("root/etc"), state.join("locks")).unwrap();
    let [finding] = &world.check(locks::stale)[..] else { panic!("one is stale") };
    fs::rename(state.join("locks"), world.at("root/etc")).unwrap();
    symlink(world.at("root/etc"), state.join("locks")).unwrap();
    for fix in &finding.fixes {
        fix.apply().unwrap_err();
    }
    assert!(finding.fixes.len() == 1 && world.at("root/etc/x.lock").exists(), "{finding:?}");
}

#[test]
fn secrets_are_closed_also_where_the_data_directory_lies_behind_a_link() {
    let mut world = World::new();
    fs::rename(world.at("data"), world.at("elsewhere")).unwrap();
    symlink(world.at("elsewhere"), world.at("data")).unwrap();
    world.instance("main", 18_789);
    let secret = world.write("data/instances/main/state/credentials/oauth.json", "mine");
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(world.at("data/instances/main/state/credentials"), Permissions::from_mode(0o755))
        .unwrap();
    let outcome = world.fix(files::open);
    assert_eq!((outcome.findings.len(), outcome.mended.len()), (0, 2), "{outcome:?}");
    assert_eq!(mode(&secret), 0o600);
    let socket = world.at("data/control.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(world.at("elsewhere"), Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(world.at("elsewhere/instances"), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(world.fix(custody::own).findings, []);
    assert_eq!((mode(&socket), mode(&world.at("elsewhere/instances"))), (0o600, 0o711));
}

#[test]
fn a_run_directory_that_is_too_deep_for_any_stack_is_removed() {
    /// Deeper than a thread's stack is, if each level is a call, and than descriptors reach.
    const ABYSS: u32 = 20_000;
    let mut world = World::new();
    world.instance("main", 18_789);
    let top = world.at("data/run/gone");
    fs::create_dir_all(&top).unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let mut directory = rustix::fs::open(&top, flags, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..ABYSS {
        rustix::fs::mkdirat(&directory, "1", rustix::fs::Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, "1", flags, rustix::fs::Mode::empty()).unwrap();
    }
    drop(directory);
    age(&top);
    let outcome = world.fix(locks::run_directories);
    assert_eq!((outcome.findings.len(), outcome.mended.len()), (0, 1), "{outcome:?}");
    assert!(!top.exists());
}

#[test]
fn a_profile_that_a_link_leads_to_is_not_gone_into() {
    let mut world = World::new();
    for directory in ["theirs/.openclaw/credentials", "roots/.openclaw/credentials"] {
        fs::create_dir_all(world.at(directory)).unwrap();
        fs::set_permissions(world.at(directory), Permissions::from_mode(0o755)).unwrap();
    }
    let profile = Profile { state_dir: Some(world.at("theirs/.openclaw")), ..Profile::default() };
    world.add("lab", 18_789, InstanceSpec { profile: Some(profile), ..InstanceSpec::default() });
    assert!(!world.check(files::open).is_empty());
    fs::rename(world.at("theirs"), world.at("away")).unwrap();
    symlink(world.at("roots"), world.at("theirs")).unwrap();
    let outcome = world.fix(files::open);
    assert!(outcome.mended.is_empty(), "{outcome:?}");
    let mode = |path: &str| fs::metadata(world.at(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("roots/.openclaw"), mode("roots/.openclaw/credentials")], [0o755, 0o755]);
}
