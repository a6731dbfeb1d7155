//! A data directory with a supervisor's files, and what can be wrong with them.

use super::*;

struct World {
    /// Open, so that what is in it is in everybody's reach.
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { directory: tempfile::tempdir().unwrap() };
        let data = world.data();
        for directory in ["", "pki/issued", "run/main", "instances/main", "imports"] {
            fs::create_dir_all(data.join(directory)).unwrap();
        }
        for directory in
            ["", "pki", "pki/issued", "run", "run/main", "instances", "instances/main", "imports"]
        {
            world.chmod(directory, 0o700);
        }
        for file in ["supervisor.db", "supervisor.db.good", "pki/ca.key", "run/main/worker.key"] {
            fs::write(data.join(file), "secret").unwrap();
            world.chmod(file, 0o600);
        }
        fs::write(data.join(settings::FILE), "max_instances: 3\n").unwrap();
        world.chmod(settings::FILE, 0o644);
        fs::set_permissions(world.directory.path(), Permissions::from_mode(0o755)).unwrap();
        world
    }

    fn data(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join("data")
    }

    fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.data().join(path), Permissions::from_mode(mode)).unwrap();
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.data().join(path)).unwrap().mode() & 0o777
    }
}

#[test]
fn what_a_supervisor_makes_is_its_alone() {
    let world = World::new();
    assert_eq!(look(&world.data()), []);
    assert_eq!(take(&world.data()).unwrap(), [""; 0].map(PathBuf::from));
    // Instances of other users pass.
    for directory in ["", "run", "run/main", "instances", "instances/main"] {
        world.chmod(directory, 0o711);
    }
    assert_eq!(look(&world.data()), []);
    assert_eq!(look(&world.data().join("nowhere")), []);
}

#[test]
fn what_others_could_read_is_closed_and_told_of_if_it_is_a_secret() {
    let world = World::new();
    for directory in ["", "run", "run/main", "pki"] {
        world.chmod(directory, 0o755);
    }
    for file in ["supervisor.db.good", "pki/ca.key", "run/main/worker.key"] {
        world.chmod(file, 0o644);
    }
    let secrets =
        ["supervisor.db.good", "pki/ca.key", "run/main/worker.key"].map(|file| world.data().join(file));
    assert_eq!(take(&world.data()).unwrap(), secrets);
    for (path, mode) in
        [("", 0o711), ("run/main", 0o711), ("pki/ca.key", 0o600), ("run/main/worker.key", 0o600)]
    {
        assert_eq!(world.mode(path), mode, "{path}");
    }
    assert_eq!(look(&world.data()), []);
}

#[test]
fn what_is_out_of_reach_is_closed_without_a_word() {
    let world = World::new();
    world.chmod("pki", 0o777);
    world.chmod("pki/ca.key", 0o666);
    world.chmod(settings::FILE, 0o664);
    assert_eq!(take(&world.data()).unwrap(), [""; 0].map(PathBuf::from));
    assert_eq!(
        [world.mode("pki"), world.mode("pki/ca.key"), world.mode(settings::FILE)],
        [0o711, 0o600, 0o644]
    );
}

#[test]
fn what_others_could_change_is_refused_and_left_as_it_is() {
    for (path, mode, should) in [
        ("", 0o777, "711"),
        (settings::FILE, 0o666, "644"),
        ("supervisor.db", 0o622, "600"),
        ("run/main", 0o722, "700"),
    ] {
        let world = World::new();
        world.chmod("", 0o711);
        world.chmod("run", 0o711);
        world.chmod(path, mode);
        let error = take(&world.data()).unwrap_err().to_string();
        assert!(error.contains("other users could change"), "{path}: {error}");
        let path_shown = world.data().join(path).display().to_string();
        assert!(error.contains(&format!("`chmod {should} {}", path_shown.trim_end_matches('/'))), "{error}");
        assert_eq!(world.mode(path), mode);
    }
}

#[test]
fn what_is_anothers_is_refused_but_for_settings_of_roots() {
    if !geteuid().is_root() {
        return;
    }
    for path in ["", "supervisor.db", "pki/ca.key", "run", "run/main", "imports", settings::FILE] {
        let world = World::new();
        std::os::unix::fs::lchown(world.data().join(path), Some(64_125), None).unwrap();
        let error = take(&world.data()).unwrap_err().to_string();
        assert!(
            error.contains("belongs to user 64125, and this supervisor runs as user 0"),
            "{path}: {error}"
        );
        assert!(error.contains("`chown -h 0 ") || error.contains("`chown -hR 0 "), "{path}: {error}");
    }
}

#[test]
fn a_socket_that_others_can_call_is_found() {
    let world = World::new();
    let path = world.data().join("control.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    world.chmod("control.sock", 0o600);
    assert_eq!(look_at_socket(&path, false), None);
    world.chmod("control.sock", 0o666);
    world.chmod("", 0o711);
    assert_eq!(look_at_socket(&path, true), None, "an instance has a user of its own");
    let flaw = look_at_socket(&path, false).unwrap();
    assert_eq!((flaw.what, flaw.should), (What::Changed, 0o600));
    flaw.mend().unwrap();
    assert_eq!(look_at_socket(&path, false), None);
}

#[test]
fn what_is_closed_to_its_own_user_is_opened_to_it_and_no_wider() {
    let world = World::new();
    let inner = ["run/main/worker.sock", "run/main/launch.json", "supervisor.lock"];
    for file in inner {
        fs::write(world.data().join(file), "").unwrap();
    }
    fs::create_dir(world.data().join("instances/main/state")).unwrap();
    world.chmod("instances/main/state", 0o750);
    let closed = [
        store::FILE,
        "run/main/worker.key",
        "run/main",
        "run",
        "instances/main/state",
        "pki",
        settings::FILE,
    ];
    for path in inner.into_iter().chain(closed).chain([""]) {
        world.chmod(path, 0o000);
    }
    assert_eq!(look(&world.data())[0].what, What::Shut);
    let above = world.directory.path().canonicalize().unwrap();
    fs::set_permissions(&above, Permissions::from_mode(0o1000)).unwrap();
    open_own(&world.data());
    assert_eq!(look(&world.data()), []);
    for (path, mode) in [
        ("", 0o700),
        ("run", 0o700),
        ("run/main", 0o700),
        (store::FILE, 0o600),
        ("run/main/worker.key", 0o600),
        ("run/main/worker.sock", 0o600),
        ("supervisor.lock", 0o600),
        ("instances/main/state", 0o700),
        (settings::FILE, 0o400),
    ] {
        assert_eq!(world.mode(path), mode, "{path}");
    }
    assert_eq!(fs::metadata(above).unwrap().mode() & 0o7777, 0o1500, "and what leads there is passed");
}

#[test]
fn what_is_opened_to_others_meanwhile_is_closed_again_and_what_is_anothers_is_left() {
    let world = World::new();
    let store = store::FILE;
    for directory in ["", "pki"] {
        world.chmod(directory, 0o755);
    }
    world.chmod(store, 0o666);
    world.chmod("pki/ca.key", 0o644);
    let exposed = Exposed::default();
    close_again(&world.data(), &exposed);
    assert_eq!(look(&world.data()), []);
    let told = exposed.alarms();
    assert!(told.iter().any(|told| told.contains("could change") && told.contains(store)), "{told:?}");
    assert!(told.iter().any(|told| told.contains("could read") && told.contains("ca.key")), "{told:?}");
    assert_eq!((world.mode(store), world.mode("pki/ca.key")), (0o600, 0o600));
}

#[test]
fn what_leads_to_the_data_is_closed_to_all_users_unless_it_was_open_from_the_beginning() {
    let world = World::new();
    let above = world.directory.path().canonicalize().unwrap();
    let chmod = |mode| fs::set_permissions(&above, Permissions::from_mode(mode)).unwrap();
    let mode = || fs::metadata(&above).unwrap().mode() & 0o7777;
    for harmless in [0o1777, 0o775, 0o755] {
        chmod(harmless);
        assert_eq!(look_at_way(&world.data()), []);
    }
    chmod(0o777);
    let flaw = Flaw { path: above.clone(), what: What::Changed, mode: 0o777, should: 0o775 };
    assert_eq!(look_at_way(&world.data()), [flaw]);
    close_way(&world.data(), std::slice::from_ref(&above));
    assert_eq!(mode(), 0o777);
    close_way(&world.data(), &[]);
    assert_eq!(mode(), 0o775);
}
