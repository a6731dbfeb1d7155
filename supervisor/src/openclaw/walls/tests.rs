//! Trees and grants, on real directories.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::{
    grants::{Other, overreach},
    *,
};
use crate::{
    openclaw::{environment::Control, layout::resolve},
    spec::{Profile, Walls},
};
use supervisor_core::ports::Block;

struct World {
    directory: tempfile::TempDir,
    host: Host,
    neighbours: Vec<Neighbour>,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl World {
    /// A home with a data directory in it, as a user's supervisor has it.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for made in ["home/data/instances", "home/data/runtimes", "bin"] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        let data_dir = root.join("home/data");
        let environment =
            BTreeMap::from([("HOME".to_owned(), root.join("home").to_string_lossy().into_owned())]);
        let control = Control { socket: data_dir.join("control.sock"), data_dir };
        let host = Host { control, environment, beside_daemon: root.join("bin") };
        Self { directory, host, neighbours: Vec::new() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(path)
    }

    fn make(&self, path: &str) -> PathBuf {
        fs::create_dir_all(self.at(path)).unwrap();
        self.at(path)
    }

    fn program(&self, path: &str, text: &str) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn neighbour(&mut self, who: &str, profile: Option<Profile>) -> Directories {
        let spec = InstanceSpec { profile, ..InstanceSpec::default() };
        let neighbour = Neighbour::of(&name(who), Block::at(20_000).unwrap(), &spec);
        let directories = neighbour.directories(&self.host.control.data_dir);
        if let Some(profile) = &neighbour.profile {
            fs::create_dir_all(profile.state_dir.as_ref().unwrap()).unwrap();
        }
        directories.create(&self.host.control.data_dir).unwrap();
        self.neighbours.push(neighbour);
        directories
    }

    fn trees_of(&self, who: &str, spec: &InstanceSpec, program: &Path, path: &str) -> Trees {
        let name = name(who);
        let data_dir = &self.host.control.data_dir;
        let directories = Directories::of(data_dir, &name, spec);
        directories.create(data_dir).unwrap();
        trees(&Ground {
            host: &self.host,
            name: &name,
            spec,
            directories: &directories,
            neighbours: &self.neighbours,
            kind: Kind::Openclaw,
            program,
            args: &[],
            environment: &BTreeMap::from([("PATH".to_owned(), path.to_owned())]),
            uid: 1_000,
        })
    }

    fn trees(&self, who: &str, spec: &InstanceSpec) -> Trees {
        self.trees_of(who, spec, Path::new("/bin/true"), "/usr/bin:/bin")
    }

    fn overreach(&self, who: &str, spec: &InstanceSpec) -> Option<String> {
        let data_dir = &self.host.control.data_dir;
        let all: Vec<(&Neighbour, Directories)> =
            self.neighbours.iter().map(|other| (other, other.directories(data_dir))).collect();
        let me = (name(who), Directories::of(data_dir, &name(who), spec));
        let others: Vec<Other<'_>> = all
            .iter()
            .map(|(other, directories)| Other { name: &other.name, directories, writes: &other.writes })
            .collect();
        let clash = overreach(data_dir, (&me.0, &me.1), spec, &others)?;
        Some(format!("{clash}; {}", clash.mend()))
    }
}

fn granted(read: &[PathBuf], write: &[PathBuf]) -> InstanceSpec {
    let walls = Walls { read: read.to_vec(), write: write.to_vec(), ..Walls::default() };
    InstanceSpec { walls, ..InstanceSpec::default() }
}

fn opens(trees: &[PathBuf], path: &Path) -> bool {
    trees.iter().any(|tree| path.starts_with(tree))
}

#[test]
fn an_instance_writes_its_own_directories_and_reads_neither_its_neighbours_nor_the_supervisors() {
    let mut world = World::new();
    let theirs = world.neighbour("rescue", None);
    let trees = world.trees("main", &InstanceSpec::default());
    let main = world.at("home/data/instances/main");
    for own in ["state/openclaw.json", "workspace/x", "home", "tmp/y", "logs/openclaw/openclaw.log"] {
        assert!(opens(&trees.write, &main.join(own)), "{own}: {trees:?}");
    }
    for own in ["logs/gateway.log", "incident/incident.json"] {
        assert!(
            opens(&trees.read, &main.join(own)) && !opens(&trees.write, &main.join(own)),
            "{own}: {trees:?}"
        );
    }
    let closed = [
        theirs.config,
        theirs.logs,
        main.join("snapshots"),
        main.join("evidence"),
        world.at("home/data/supervisor.db"),
        world.at("home/data/run/main"),
        world.at("home/.ssh/id_ed25519"),
        "/tmp".into(),
        "/dev/sda".into(),
        "/home".into(),
    ];
    for closed in closed {
        assert!(!opens(&trees.read, &closed) && !opens(&trees.write, &closed), "{closed:?}: {trees:?}");
    }
    for read in ["/usr/bin/env", "/etc/hosts", "/proc/self/status", "/sys/class"] {
        let found = resolve(Path::new(read));
        assert!(opens(&trees.read, &found) || opens(&trees.write, &found), "{read}: {trees:?}");
    }
    assert!(opens(&trees.write, Path::new("/dev/null")) && !opens(&trees.write, Path::new("/usr/bin")));
}

#[test]
fn root_itself_writes_nothing_of_the_kernels() {
    let world = World::new();
    let name = name("main");
    let directories = Directories::at(&world.host.control.data_dir, &name, None);
    directories.create(&world.host.control.data_dir).unwrap();
    let trees = trees(&Ground {
        host: &world.host,
        name: &name,
        spec: &InstanceSpec::default(),
        directories: &directories,
        neighbours: &[],
        kind: Kind::Builtin,
        program: Path::new("/bin/true"),
        args: &[],
        environment: &BTreeMap::new(),
        uid: 0,
    });
    assert!(!opens(&trees.write, Path::new("/proc/sys/kernel/core_pattern")), "{trees:?}");
    assert!(opens(&trees.read, Path::new("/proc/self/status")));
}

#[test]
fn a_runtime_below_the_home_is_opened_with_its_node_and_the_home_is_not() {
    let world = World::new();
    let version = "home/.nvm/versions/node/v24";
    let node = world.program(&format!("{version}/bin/node"), "");
    let entry =
        world.program(&format!("{version}/lib/node_modules/openclaw/openclaw.mjs"), "#!/usr/bin/env node\n");
    let program = world.at(&format!("{version}/bin/openclaw"));
    symlink("../lib/node_modules/openclaw/openclaw.mjs", &program).unwrap();
    let path = format!("{}:/usr/bin", program.parent().unwrap().display());
    let trees = world.trees_of("main", &InstanceSpec::default(), &program, &path);
    assert!(opens(&trees.read, &node) && opens(&trees.read, &entry), "{trees:?}");
    assert!(!opens(&trees.read, &world.at("home/.nvm/alias")), "{trees:?}");
    assert!(!opens(&trees.read, &world.at("home/.ssh")), "{trees:?}");
}

#[test]
fn what_a_script_starts_is_opened_and_a_script_that_the_instance_writes_opens_nothing() {
    let world = World::new();
    let node = world.program("elsewhere/node/bin/node", "");
    let entry = world.program("elsewhere/app/node_modules/openclaw/openclaw.mjs", "");
    let text = format!("#!/bin/sh\nexec \"{}\" '{}' \"$@\"\n", node.display(), entry.display());
    let program = world.program("bin/openclaw", &text);
    let trees = world.trees_of("main", &InstanceSpec::default(), &program, "/usr/bin");
    let modules = world.at("elsewhere/app/node_modules/other/index.js");
    assert!(
        opens(&trees.read, &node) && opens(&trees.read, &entry) && opens(&trees.read, &modules),
        "{trees:?}"
    );
    let own = world.program("home/data/instances/main/workspace/run", &text);
    let trees = world.trees_of("main", &InstanceSpec::default(), &own, "/usr/bin");
    assert!(!opens(&trees.read, &entry), "{trees:?}");
}

#[test]
fn what_lies_where_agents_write_says_nothing_of_what_is_opened() {
    let mut world = World::new();
    let treasure = world.program("treasure/node", "");
    let shared = world.make("srv/tools");
    let block = Block::at(20_000).unwrap();
    world.neighbours.push(Neighbour::of(&name("lab"), block, &granted(&[], std::slice::from_ref(&shared))));
    // A Node that it has made a link, found by its PATH, and a program that names something, where another writes.
    let state = world.make("home/.openclaw");
    let own = world.program("home/.openclaw/bin/openclaw", "#!/bin/sh\n");
    symlink(&treasure, state.join("bin/node")).unwrap();
    let profile = Some(Profile { state_dir: Some(state.clone()), ..Profile::default() });
    let spec = InstanceSpec { profile, ..InstanceSpec::default() };
    let trees = world.trees_of("main", &spec, &own, &state.join("bin").display().to_string());
    assert!(!opens(&trees.read, &treasure), "{trees:?}");
    // People's own link to a program that it writes.
    let named = world.program("home/.openclaw/bin/named", &format!("#!/bin/sh\n# {}\n", treasure.display()));
    symlink(&named, world.at("bin/linked")).unwrap();
    let trees = world.trees_of("main", &spec, &world.at("bin/linked"), "/usr/bin");
    assert!(!opens(&trees.read, &treasure), "{trees:?}");
    let theirs = world.program("srv/tools/openclaw", &format!("#!/bin/sh\n# {}\n", treasure.display()));
    let trees = world.trees_of("web", &InstanceSpec::default(), &theirs, "/usr/bin");
    assert!(!opens(&trees.read, &treasure) && !opens(&trees.read, &theirs), "{trees:?}");
}

#[test]
fn what_an_agent_makes_beside_a_program_does_not_widen_what_is_opened() {
    let mut world = World::new();
    let program = world.program("app/bin/openclaw", "#!/bin/sh\n");
    let (shared, secret) = (world.make("app/lib"), world.make("app/secret"));
    let writer = granted(&[], std::slice::from_ref(&shared));
    world.neighbours.push(Neighbour::of(&name("app"), Block::at(20_000).unwrap(), &writer));
    world.make("app/lib/node_modules");
    let opened = |world: &World| {
        let trees = world.trees_of("web", &InstanceSpec::default(), &program, "/usr/bin");
        [&program, &secret].map(|path| opens(&trees.read, path))
    };
    assert_eq!(opened(&world), [true, false]);
    world.neighbours.pop();
    assert_eq!(opened(&world), [true, true], "where nobody writes it is the `lib` of a Node");
}

#[test]
fn versions_side_by_side_are_read_and_nothing_else_of_the_supervisors() {
    let world = World::new();
    let program = world.program("home/data/runtimes/openclaw-1/bin/openclaw", "#!/bin/sh\n");
    world.program("home/data/runtimes/openclaw-1/bin/node", "");
    world.make("home/data/runtimes/openclaw-1/node_modules");
    let trees = world.trees_of("main", &InstanceSpec::default(), &program, "/usr/bin");
    assert!(opens(&trees.read, &world.at("home/data/runtimes/openclaw-1/node_modules/x")), "{trees:?}");
    assert!(!opens(&trees.read, &world.at("home/data/settings.yaml")), "{trees:?}");
    assert!(!opens(&trees.write, &program), "{trees:?}");
}

#[test]
fn a_path_that_leads_to_the_home_or_to_others_opens_nothing() {
    let mut world = World::new();
    let state_dir = Some(world.at("home/.openclaw"));
    world.neighbour("lab", Some(Profile { state_dir, ..Profile::default() }));
    let closed = ["home", "home/.openclaw/bin", "home/data/instances/lab/home/bin", ""];
    let path = closed.map(|path| world.make(path).display().to_string()).join(":");
    let trees =
        world.trees_of("main", &InstanceSpec::default(), Path::new("/bin/true"), &format!("{path}:bin:/"));
    for closed in closed {
        assert!(!opens(&trees.read, &world.at(closed)), "{closed}: {trees:?}");
    }
    assert!(!trees.read.contains(&PathBuf::from("/")), "{trees:?}");
}

#[test]
fn a_link_that_an_agent_plants_in_place_of_a_directory_opens_nothing_more() {
    let world = World::new();
    let state_dir = world.make("home/.openclaw");
    let profile = Some(Profile { state_dir: Some(state_dir.clone()), ..Profile::default() });
    let spec = InstanceSpec { profile, ..granted(&[state_dir.join("library")], &[state_dir.join("shared")]) };
    for planted in ["workspace", "library", "shared"] {
        symlink("/", state_dir.join(planted)).unwrap();
    }
    let trees = world.trees("main", &spec);
    assert!(opens(&trees.write, &state_dir) && !opens(&trees.write, Path::new("/home")), "{trees:?}");
    assert!(!opens(&trees.read, Path::new("/home")), "{trees:?}");
}

#[test]
fn what_people_name_is_opened_where_no_link_leads_there() {
    let world = World::new();
    let (real, link) = (world.make("disk/openclaw"), world.at("home/.openclaw"));
    symlink(&real, &link).unwrap();
    let opened = |state: &Path| {
        let profile = Some(Profile { state_dir: Some(state.to_owned()), ..Profile::default() });
        let trees = world.trees("main", &InstanceSpec { profile, ..InstanceSpec::default() });
        trees.write.contains(&real)
    };
    assert_eq!([opened(&real), opened(&link)], [true, false]);
    // Of what is the host's, people's links are followed, and agents' are not.
    let (bin, shared) = (world.make("disk/bin"), world.make("srv/shared"));
    symlink(&bin, world.at("home/bin")).unwrap();
    symlink(&bin, shared.join("bin")).unwrap();
    let reads = |path: PathBuf, spec: &InstanceSpec| {
        let trees = world.trees_of("main", spec, Path::new("/bin/true"), &path.display().to_string());
        opens(&trees.read, &bin)
    };
    let writer = granted(&[], std::slice::from_ref(&shared));
    assert!(reads(world.at("home/bin"), &writer) && reads(shared.join("bin"), &InstanceSpec::default()));
    assert!(!reads(shared.join("bin"), &writer));
}

#[test]
fn a_rescue_reads_the_logs_of_its_primaries_and_what_it_is_granted_of_theirs() {
    let mut world = World::new();
    let main = world.neighbour("main", None);
    let rescues = vec![name("main")];
    let trees = world.trees("rescue", &InstanceSpec { rescues: rescues.clone(), ..InstanceSpec::default() });
    assert!(opens(&trees.read, &main.logs) && !opens(&trees.read, &main.config), "{trees:?}");
    let spec = InstanceSpec { rescues, ..granted(std::slice::from_ref(&main.state), &[]) };
    assert_eq!(world.overreach("rescue", &spec), None);
    assert!(opens(&world.trees("rescue", &spec).read, &main.config));
    let stranger = InstanceSpec { rescues: Vec::new(), ..spec.clone() };
    let told = world.overreach("rescue", &stranger).unwrap();
    assert!(told.contains("granted to `rescue`, lies inside") && told.contains("of `main`"), "{told}");
    let writes = InstanceSpec { walls: Walls { write: spec.walls.read.clone(), ..Walls::default() }, ..spec };
    assert!(world.overreach("rescue", &writes).unwrap().contains("only a rescue may read"));
}

#[test]
fn a_grant_around_or_inside_what_is_the_supervisors_is_refused_with_what_to_do() {
    let mut world = World::new();
    let main = world.neighbour("main", None);
    let home = world.at("home");
    let told = world.overreach("lab", &granted(&[], std::slice::from_ref(&home))).unwrap();
    assert!(told.contains("lies around") && told.contains("grant the directories in it"), "{told}");
    for path in
        ["home/data", "home/data/run/lab", "home/data/settings.yaml", "home/data/instances/lab/snapshots"]
    {
        let told = world.overreach("lab", &granted(&[world.at(path)], &[])).unwrap();
        assert!(told.contains("of the supervisor"), "{told}");
    }
    symlink(&main.workspace, world.at("home/shortcut")).unwrap();
    let by_a_link = granted(&[world.at("home/shortcut")], &[]);
    assert_eq!(world.overreach("lab", &by_a_link), None, "it is opened to nobody");
    let (field, led) = led_grants(&by_a_link).next().unwrap();
    assert_eq!((field.to_string().as_str(), led.end), ("walls.read[0]", Some(main.workspace)));
    assert_eq!(
        world.overreach("lab", &granted(&[world.make("home/music")], &[world.make("home/notes")])),
        None
    );
    assert_eq!(
        world.overreach("lab", &granted(&[world.at("home/data/runtimes")], &[])),
        None,
        "it is nobody's"
    );
}

#[test]
fn a_system_tree_around_the_supervisors_directory_is_opened_without_it() {
    let world = World::new();
    for made in ["opt/tools/bin", "opt/claw/data/run", "opt/claw/share"] {
        world.make(made);
    }
    let closed = Closed {
        places: vec![world.at("opt/claw/data")],
        runtimes: world.at("opt/claw/data/runtimes"),
        homes: Vec::new(),
        ways: Ways::default(),
        written: Written::default(),
    };
    // Another user may have put these there.
    symlink(world.make("secret"), world.at("opt/claw/pics")).unwrap();
    symlink(world.at("opt"), world.at("opt/claw/current")).unwrap();
    // This one was a link when it was looked at, and is a directory when it is listed.
    let flipped = world.at("opt/claw/flipped");
    symlink(world.at("secret"), &flipped).unwrap();
    assert_eq!(closed.ways.resolve(&flipped), world.at("secret"));
    fs::remove_file(&flipped).unwrap();
    world.make("opt/claw/flipped");
    let mut trees = closed.without(&world.at("opt"));
    trees.sort();
    assert_eq!(trees, [world.at("opt/claw/share"), world.at("opt/tools")]);
}

#[test]
fn a_system_tree_in_somebodys_home_is_opened_where_no_link_of_theirs_leads() {
    let world = World::new();
    let (ways, brew) = (Ways::default(), world.at("home/linuxbrew/.linuxbrew"));
    world.make("home/linuxbrew/real");
    symlink("/", &brew).unwrap();
    assert!(!is_hosts(&ways, &brew), "its user may lead it anywhere");
    assert!(is_hosts(&ways, &world.at("home/linuxbrew/real")));
    for tree in ["/bin", "/usr", "/dev/fd", "/none"] {
        assert!(is_hosts(&ways, Path::new(tree)), "{tree}");
    }
}

#[test]
fn what_is_made_of_a_configuration_is_as_closed_to_others_as_that() {
    let mut world = World::new();
    let config = world.make("opt/claw").join("openclaw.json");
    for made in ["openclaw.json", "openclaw.json.last-good", ".unfinished-1-0", "other"] {
        fs::write(config.with_file_name(made), "").unwrap();
    }
    let state_dir = Some(world.make("home/.openclaw-lab"));
    world.neighbour("lab", Some(Profile { state_dir, config: Some(config), ..Profile::default() }));
    let lab = world.neighbours[0].directories(&world.host.control.data_dir);
    let closed = Closed {
        places: places(&lab),
        runtimes: world.at("none"),
        homes: Vec::new(),
        ways: Ways::default(),
        written: Written::default(),
    };
    assert_eq!(closed.without(&world.at("opt")), [world.at("opt/claw/other")]);
}

#[test]
fn copies_of_a_state_are_as_closed_to_others_as_that() {
    let mut world = World::new();
    let state_dir = Some(world.make("opt/claw/.openclaw"));
    let copies = world.make("opt/claw/.openclawctl-upgrades-once/1/before");
    world.neighbour("lab", Some(Profile { state_dir, ..Profile::default() }));
    let lab = world.neighbours[0].directories(&world.host.control.data_dir);
    assert!(places(&lab).iter().any(|place| copies.starts_with(place)), "{:?}", places(&lab));
}

#[test]
fn an_instance_has_all_walls_unless_its_spec_leaves_some_out() {
    let trees = Trees { write: vec!["/w".into()], files: vec!["/f".into()], read: vec!["/r".into()] };
    let all = around(&InstanceSpec::default(), Some(trees), Block::at(18_789).unwrap(), None);
    let texts = |path: &str| vec![path.to_owned()];
    assert_eq!((all.write, all.files, all.read), (texts("/w"), texts("/f"), texts("/r")));
    assert_eq!(all.bind, [PortRange { first: 18_789, last: 18_808 }]);
    assert!(all.apart && all.privileges && all.user.is_none());
    assert!(all.limits.is_some_and(|limits| limits.core_bytes == Some(0)) && all.oom_score_adj.is_some());
    let off = Walls { ports: Some(false), apart: Some(false), privileges: Some(false), ..Walls::default() };
    let none = around(
        &InstanceSpec { walls: off, ..InstanceSpec::default() },
        None,
        Block::at(18_789).unwrap(),
        None,
    );
    assert!(none.write.is_empty() && none.read.is_empty() && none.bind.is_empty());
    assert!(!none.apart && !none.privileges);
}

#[test]
fn an_instance_with_a_user_of_its_own_is_walled_as_that_user() {
    let user = User { uid: 1_001, gid: 1_001, groups: vec![7] };
    let walls = around(&InstanceSpec::default(), None, Block::at(18_789).unwrap(), Some(user));
    assert_eq!(walls.user, Some(worker::User { uid: 1_001, gid: 1_001, groups: vec![7] }));
}

#[test]
fn what_a_neighbours_agent_links_in_its_profile_is_closed_to_nobody() {
    let mut world = World::new();
    let profile = Profile { state_dir: Some(world.at("home/.openclaw-lab")), ..Profile::default() };
    let before = world.trees("main", &InstanceSpec::default());
    let lab = world.neighbour("lab", Some(profile));
    fs::remove_dir(&lab.workspace).unwrap();
    symlink("/usr", &lab.workspace).unwrap();
    assert_eq!(world.trees("main", &InstanceSpec::default()), before);
}

#[test]
fn what_lies_where_a_neighbours_agent_writes_and_becomes_a_link_is_opened_to_nobody() {
    let mut world = World::new();
    let shared = world.make("srv/shared");
    let (inner, treasure) = (world.make("srv/shared/inner"), world.make("srv/treasure"));
    let block = Block::at(20_000).unwrap();
    world.neighbours.push(Neighbour::of(&name("lab"), block, &granted(&[], std::slice::from_ref(&shared))));
    let asked = [granted(&[], std::slice::from_ref(&inner)), granted(std::slice::from_ref(&inner), &[])];
    let opened = |world: &World, path: &Path| {
        let opens = |spec: &InstanceSpec| {
            let trees = world.trees("main", spec);
            opens(&trees.write, path) || opens(&trees.read, path)
        };
        asked.each_ref().map(opens)
    };
    assert_eq!(opened(&world, &inner), [true, true], "two may share what both were granted");
    fs::remove_dir(&inner).unwrap();
    symlink(&treasure, &inner).unwrap();
    assert_eq!(opened(&world, &treasure), [false, false]);
    // Whose link it is, nobody can tell once who could have made it is gone.
    world.neighbours.clear();
    assert_eq!(opened(&world, &treasure), [false, false]);
}

#[test]
fn a_tree_to_be_written_in_or_around_another_is_refused_when_it_is_asked_for() {
    let mut world = World::new();
    let (outer, inner, apart) =
        (world.make("srv/shared"), world.make("srv/shared/inner"), world.make("srv/apart"));
    let block = Block::at(20_000).unwrap();
    world.neighbours.push(Neighbour::of(&name("lab"), block, &granted(&[], std::slice::from_ref(&outer))));
    let told = |write: &[&PathBuf]| {
        let write: Vec<PathBuf> = write.iter().map(|path| (*path).clone()).collect();
        world.overreach("main", &granted(&[], &write)).unwrap_or_default()
    };
    assert_eq!(told(&[&outer, &apart]), "", "two may write in one directory");
    assert!(told(&[&inner]).ends_with("grant `main` and `lab` the same directory, or directories apart"));
    assert!(told(&[&world.at("srv")]).contains("lies around"));
    assert!(told(&[&apart, &world.make("srv/apart/own")]).contains("lies"), "in its own");
    let shared = told(&[&PathBuf::from("/dev/shm/box")]);
    assert!(shared.contains("inside `/dev/shm` of all instances"), "{shared}");
    assert!(shared.ends_with("all others may write there already"), "{shared}");
    let state = world.make("srv/claw/state");
    let profile = Some(Profile { state_dir: Some(state), ..Profile::default() });
    let spec = InstanceSpec { profile, ..granted(&[], &[world.at("srv/claw")]) };
    assert!(world.overreach("main", &spec).unwrap().contains("lies around"));
}

#[test]
fn beside_a_configuration_that_lies_elsewhere_files_are_replaced_and_nothing_else() {
    let world = World::new();
    let beside = world.make("home/etc");
    let profile = Profile {
        state_dir: Some(world.make("home/etc/state")),
        config: Some(beside.join("openclaw.json")),
        workspace: Some(world.make("home/etc/workspace")),
    };
    let spec = InstanceSpec { profile: Some(profile.clone()), ..InstanceSpec::default() };
    let trees = world.trees("main", &spec);
    assert_eq!(trees.files, std::slice::from_ref(&beside));
    assert!(!opens(&trees.write, &beside.join("other")) && opens(&trees.write, &beside.join("state/x")));
    // What is made of it is no reason.
    let config = beside.join("openclaw.json");
    for made in ["openclaw.json", "openclaw.json.last-good", ".fs-safe-replace.1.tmp"] {
        fs::write(beside.join(made), "{}").unwrap();
    }
    assert_eq!(world.trees("main", &spec).files, std::slice::from_ref(&beside));
    // Where anything else lies, nothing but the file is opened, nor in a home that is not only its own.
    for other in ["deploy.token", "openclaw.json.d/x", "bin/tool"] {
        let other = world.program(&format!("home/etc/{other}"), "");
        assert_eq!(world.trees("main", &spec).files, std::slice::from_ref(&config), "{other:?}");
        fs::remove_file(&other).unwrap();
        let _ = fs::remove_dir(other.parent().unwrap());
    }
    // Among more than anybody looks at, anything may lie.
    for number in 0..=ENTRIES {
        fs::write(beside.join(format!("openclaw.json.{number}")), "").unwrap();
    }
    assert_eq!(world.trees("main", &spec).files, [config]);
    let config = world.at("home/openclaw.json");
    fs::write(&config, "{}").unwrap();
    let profile = Profile { config: Some(config.clone()), ..profile };
    let spec = InstanceSpec { profile: Some(profile), ..InstanceSpec::default() };
    assert_eq!(world.trees("main", &spec).files, [config]);
}
