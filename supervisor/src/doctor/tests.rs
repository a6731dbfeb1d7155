//! The checks against small worlds made of files.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

use supervisor_core::{
    ids::Name,
    ports::{Block, Pool},
    time::Moment,
};
use tempfile::TempDir;

use super::*;
use crate::{
    openclaw::{environment::Control, layout::Directories, prepare::Host},
    spec::{InstanceSpec, Profile, Runtime},
};

/// A host of its own: `root/` is its `/`, `home/` the user's home, `data/` the supervisor's directory.
pub(super) struct World {
    directory: TempDir,
    patients: Vec<Patient>,
    listening: Vec<Listening>,
    wanted: Option<BTreeSet<Name>>,
}

impl World {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for made in ["root", "home", "data", "bin"] {
            fs::create_dir(directory.path().join(made)).unwrap();
        }
        Self { directory, patients: Vec::new(), listening: Vec::new(), wanted: None }
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Writes a file for its owner alone, and the directories above it.
    pub(super) fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(super) fn instance(&mut self, name: &str, base: u16) -> &mut Self {
        self.add(name, base, InstanceSpec::default())
    }

    /// An instance on the profile `home/PROFILE`.
    fn profile(&mut self, name: &str, base: u16, profile: &str) -> &mut Self {
        let state_dir = Some(self.at("home").join(profile));
        let profile = Some(Profile { state_dir, ..Profile::default() });
        self.add(name, base, InstanceSpec { profile, ..InstanceSpec::default() })
    }

    pub(super) fn add(&mut self, name: &str, base: u16, spec: InstanceSpec) -> &mut Self {
        let name = Name::new(name).unwrap();
        let data_dir = self.at("data");
        let directories = Directories::of(&data_dir, &name, &spec);
        fs::create_dir_all(&directories.state).unwrap();
        directories.create(&data_dir).unwrap();
        self.patients.push(Patient {
            name,
            spec: Arc::new(spec),
            block: Block::at(base).unwrap(),
            previous_base: None,
            directories,
            walls: Default::default(),
            was_out_of_memory: false,
            worker_pid: None,
            since: Moment(0),
        });
        self
    }

    /// Its last life ended because memory was short.
    pub(super) fn out_of_memory(&mut self, name: &str) {
        let mut patients = self.patients.iter_mut();
        patients.find(|patient| &*patient.name == name).unwrap().was_out_of_memory = true;
    }

    /// How the walls around an instance stand.
    pub(super) fn walls(&mut self, name: &str, walls: Vec<supervisor_proto::worker::Wall>) {
        let patient = self.patients.iter_mut().find(|patient| *patient.name == *name).unwrap();
        patient.walls = walls.into();
    }

    /// The configuration of an instance.
    pub(super) fn config(&self, name: &str, text: &str) -> PathBuf {
        let path =
            self.patients.iter().find(|patient| *patient.name == *name).unwrap().directories.config.clone();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn scene(&self) -> Scene {
        let environment = [("HOME", self.at("home")), ("PATH", self.at("bin"))];
        let environment =
            environment.map(|(name, value)| (name.to_owned(), value.to_string_lossy().into_owned()));
        let data_dir = self.at("data");
        let listening = self.listening.clone();
        Scene {
            patients: self.patients.clone(),
            wanted: self.wanted.clone(),
            host: Arc::new(Host {
                control: Control { socket: data_dir.join("control.sock"), data_dir },
                environment: BTreeMap::from(environment),
                beside_daemon: self.at("bin"),
            }),
            pool: Pool::default(),
            listeners: Box::new(move |_| listening.clone()),
            root: self.at("root"),
            configs: Default::default(),
        }
    }

    /// What one check finds.
    pub(super) fn check(&self, check: Check) -> Vec<Finding> {
        check(&self.scene(), &Budget::new(Instant::now().into_std() + Duration::from_secs(60), FILES))
    }

    /// What one check mends.
    fn fix(&self, check: Check) -> Outcome {
        let budget = Budget::new(Instant::now().into_std() + Duration::from_secs(60), FILES);
        run("it", check, &self.scene(), &budget, Mode::Fix)
    }
}

/// The findings, shortly: kind, whom, what.
fn told(findings: &[Finding]) -> Vec<(&'static str, String)> {
    let names =
        |finding: &Finding| finding.instances.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    findings.iter().map(|finding| (finding.id, names(finding))).collect()
}

fn age(path: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
}

#[test]
fn a_workspace_of_an_early_openclaw_lies_in_main() {
    let mut world = World::new();
    world.profile("main", 18_789, ".openclaw").profile("rescue", 19_789, ".openclaw-rescue");
    assert_eq!(world.check(paths::shared), []);
    let config = world
        .config("rescue", "{\n  agents: { defaults: { workspace: '~/.openclaw/workspace-rescue' } },\n}");
    let found = world.check(paths::shared);
    assert_eq!(told(&found), [("path.shared", "rescue main".to_owned())]);
    assert!(found[0].what.contains("lies inside the state directory"), "{}", found[0].what);
    assert_eq!(found[0].file.as_ref(), Some(&config));
    assert_eq!(found[0].place.unwrap().to_string(), "2:36");
}

#[test]
fn of_two_that_share_a_workspace_the_one_that_a_file_names_is_told_about() {
    let mut world = World::new();
    world.instance("lab", 18_809).instance("main", 18_789);
    let workspace = |name: &str| world.at(&format!("data/instances/{name}/workspace"));
    let naming = |path: PathBuf| format!("{{agents: {{defaults: {{workspace: '{}'}}}}}}", path.display());
    world.config("main", &naming(workspace("main")));
    assert_eq!(world.check(paths::shared), []);
    world.config("lab", &naming(workspace("main")));
    let found = world.check(paths::shared);
    assert_eq!(told(&found), [("path.shared", "lab main".to_owned())]);
    assert_eq!(found[0].place.unwrap().line, 1);
}

#[test]
fn directories_that_are_one_behind_a_link_are_found() {
    let mut world = World::new();
    world.instance("main", 18_789).instance("rescue", 19_789);
    assert_eq!(world.check(paths::shared), []);
    let (main, rescue) =
        (world.patients[0].directories.workspace.clone(), world.patients[1].directories.workspace.clone());
    fs::remove_dir(&rescue).unwrap();
    symlink(&main, &rescue).unwrap();
    let found = world.check(paths::shared);
    assert_eq!(told(&found), [("path.shared", "rescue main".to_owned())]);
    assert!(found[0].what.contains("is the same place as the workspace"), "{}", found[0].what);
    let found = world.check(paths::links);
    assert_eq!(told(&found), [("path.link", "rescue".to_owned())]);
    let Mend::Type(mend) = &found[0].mend else { panic!("{:?}", found[0].mend) };
    assert!(!mend.contains("mv "), "what is main's is not moved to its rescue: {mend}");
    fs::remove_file(&rescue).unwrap();
    let elsewhere = world.write("elsewhere/notes", "");
    symlink(elsewhere.parent().unwrap(), &rescue).unwrap();
    let found = world.check(paths::links);
    let Mend::Type(mend) = &found[0].mend else { panic!("{:?}", found[0].mend) };
    assert!(mend.contains(" && mv "), "{mend}");
}

#[test]
fn a_profile_that_no_instance_has_is_kept_away_from() {
    let mut world = World::new();
    world.write("home/.openclaw/openclaw.json", "{}");
    world.instance("main", 18_789);
    assert_eq!(world.check(paths::strangers), []);
    world.config(
        "main",
        &format!(
            "{{agents: {{list: [{{id: 'a', workspace: '{}'}}]}}}}",
            world.at("home/.openclaw/workspace").display()
        ),
    );
    assert_eq!(told(&world.check(paths::strangers)), [("path.stranger", "main".to_owned())]);
}

#[test]
fn a_profile_in_the_supervisor_s_directory_is_found() {
    let mut world = World::new();
    world.profile("main", 18_789, "../data/instances/stray");
    assert_eq!(told(&world.check(paths::supervisors)), [("path.supervisor", "main".to_owned())]);
}

#[test]
fn a_squatter_is_named_without_its_arguments() {
    let mut world = World::new();
    world.instance("main", 18_789);
    world.listening =
        vec![Listening { port: 18_789, pid: Some(1), command: "/bin/thief --token secret".into() }];
    let found = world.check(ports::squatters);
    assert_eq!(told(&found), [("port.squatted", "main".to_owned())]);
    assert_eq!(found[0].severity, Severity::Error);
    assert_eq!(found[0].what, "port 18789 of `main` is held by process 1 (/bin/thief), which is not its own");
    world.listening[0].port = 18_800;
    assert_eq!(world.check(ports::squatters)[0].severity, Severity::Warning);
}

#[test]
fn ports_and_browsers_of_another_instance_are_found_with_their_places() {
    let mut world = World::new();
    world.instance("main", 18_789).instance("rescue", 19_789);
    world.config("main", "{browser: {profiles: {chrome: {cdpUrl: 'http://localhost:9222'}}}}");
    world.config(
        "rescue",
        "{gateway: {port: 18789},\n browser: {profiles: {chrome: {cdpUrl: 'ws://127.0.0.1:9222/x'}, b: {cdpPort: 19800}}}}",
    );
    let outside = world.check(ports::declared);
    assert_eq!(told(&outside), [("port.outside", "rescue main".to_owned())]);
    assert_eq!(outside[0].place.unwrap().to_string(), "1:18");
    let shared = world.check(ports::browsers);
    assert_eq!(told(&shared), [("port.browser-shared", "rescue main".to_owned())]);
    assert_eq!(shared[0].place.unwrap().line, 2);
    world.patients[1].previous_base = Some(18_789);
    assert_eq!(world.check(ports::declared), [], "the next start moves what named the block before");
}

#[test]
fn a_configuration_that_the_next_start_refuses_is_told_once() {
    let mut world = World::new();
    world.instance("main", 18_789);
    assert_eq!(world.check(configs::refused), [], "a missing one is made");
    world.config("main", "{gateway: {port: 1}}");
    let refused = world.check(configs::refused);
    assert_eq!(told(&refused), [("config.refused", "main".to_owned())]);
    let mut outcome = Outcome { findings: refused, ..Outcome::default() };
    outcome.findings.extend(world.check(ports::declared));
    sort(&mut outcome);
    assert_eq!(told(&outcome.findings), [("port.outside", "main".to_owned())], "the one that says more");
    world.config("main", "{gateway: {port: 18789,,}}");
    let broken = &world.check(configs::refused)[0];
    assert!(broken.what.contains("would be refused: this is not JSON5"), "{}", broken.what);
    assert_eq!(broken.place.unwrap().line, 1);
}

#[test]
fn two_instances_with_one_bot_are_found_and_the_token_is_not_shown() {
    let mut world = World::new();
    world.instance("main", 18_789).instance("other", 18_809);
    let rescues = vec![Name::new("main").unwrap()];
    world.add("rescue", 19_789, InstanceSpec { rescues, ..InstanceSpec::default() });
    let bot = "{channels: {telegram: {enabled: true, botToken: '7:AAsecret'}}}";
    world.config("main", bot);
    world.config("other", bot);
    world.config("rescue", bot);
    let found = world.check(configs::tokens);
    assert_eq!(
        told(&found),
        [("token.shared", "other main".to_owned()), ("token.shared", "rescue main".to_owned())]
    );
    assert_eq!(
        (found[0].severity, found[1].severity),
        (Severity::Error, Severity::Note),
        "a rescue is fenced"
    );
    assert!(!format!("{found:?}").contains("AAsecret"));
}

#[test]
fn open_secrets_are_found_and_closed() {
    let mut world = World::new();
    world.profile("main", 18_789, ".openclaw");
    let config = world.config("main", "{}");
    let env = world.write("home/.openclaw/.env", "KEY=1");
    let creds = world.write("home/.openclaw/credentials/whatsapp/default/creds.json", "{}");
    fs::set_permissions(world.at("home/.openclaw"), Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(world.at("home/.openclaw/credentials"), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(world.check(files::open), []);
    fs::set_permissions(&config, Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(&env, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&creds, Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(world.at("home/.openclaw"), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(world.directory.path(), Permissions::from_mode(0o700)).unwrap();
    let found = world.check(files::open);
    let kinds: Vec<_> = found.iter().map(|finding| finding.id).collect();
    assert_eq!(kinds, ["file.writable", "file.readable", "file.directory-open"]);
    assert!(
        found[1].what.contains("creds.json` and") || found[1].what.contains(".env` and"),
        "{}",
        found[1].what
    );
    // Nobody else gets so far.
    assert!(found.iter().all(|finding| finding.severity == Severity::Note), "{found:?}");
    fs::set_permissions(world.directory.path(), Permissions::from_mode(0o711)).unwrap();
    let severities: Vec<_> = world.check(files::open).iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Error, Severity::Error, Severity::Warning]);
    let outcome = world.fix(files::open);
    assert_eq!((outcome.findings.len(), outcome.mended.len()), (0, 4), "{outcome:?}");
    for path in [&config, &env, &creds] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    assert_eq!(world.check(files::open), []);
}

#[test]
fn locks_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let mut world = World::new();
    world.instance("main", 18_789);
    let state = "data/instances/main/state";
    let dead = world.write(
        &format!("{state}/agents/main/sessions/1.jsonl.lock"),
        r#"{"pid":2147483647,"createdAt":"x"}"#,
    );
    let mine = format!(r#"{{"pid":{},"createdAt":"x"}}"#, std::process::id());
    let living = world.write(&format!("{state}/x.lock"), &mine);
    let unknown = world.write(&format!("{state}/y.lock"), "whatever");
    [&dead, &living, &unknown].into_iter().for_each(|path| age(path));
    let user = nix::unistd::geteuid();
    let config = world.patients[0].directories.config.display().to_string();
    let common = format!("root/tmp/openclaw-{user}");
    let of_main = world.write(
        &format!("{common}/gateway.1.lock"),
        &format!(r#"{{"pid":2147483647,"configPath":"{config}"}}"#),
    );
    let of_others =
        world.write(&format!("{common}/gateway.2.lock"), r#"{"pid":2147483647,"configPath":"/elsewhere"}"#);
    [&of_main, &of_others].into_iter().for_each(|path| age(path));
    world.patients[0].worker_pid = Some(1);
    let running = world.fix(locks::stale);
    assert_eq!(
        (running.findings.len(), running.mended.len()),
        (1, 0),
        "a running gateway may be taking it over"
    );
    world.patients[0].worker_pid = None;
    let outcome = world.fix(locks::stale);
    assert_eq!((outcome.findings.len(), outcome.mended.len()), (0, 2), "{outcome:?}");
    assert!(!dead.exists() && !of_main.exists());
    assert!(living.exists() && unknown.exists() && of_others.exists());
}

#[test]
fn what_is_in_the_place_of_openclaws_locks_is_told_with_what_to_type() {
    let me = nix::unistd::geteuid();
    let mut world = World::new();
    let runtime = |runtime| InstanceSpec { runtime: Some(runtime), ..InstanceSpec::default() };
    world.add("lab", 18_829, runtime(Runtime::Builtin));
    let place = world.write(&format!("root/tmp/openclaw-state-locks-{me}"), "");
    assert_eq!(world.check(locks::squatted), [], "nobody needs locks");
    world.add("main", 18_789, runtime(Runtime::Openclaw)).add("rescue", 18_809, runtime(Runtime::Openclaw));

    let found = world.check(locks::squatted);
    assert_eq!(told(&found), [("lock.squatted", "main rescue".to_owned())]);
    assert!(found[0].what.ends_with(" is no directory"), "{}", found[0].what);
    let sudo = if me.is_root() { "" } else { "sudo " };
    assert_eq!(found[0].mend, Mend::Type(format!("{sudo}rm -r {}", place.display())));
    assert_eq!(found[0].severity, Severity::Error);
    fs::remove_file(&place).unwrap();
    symlink(world.at("home"), &place).unwrap();
    assert!(world.check(locks::squatted)[0].what.ends_with(" is a link"));
    fs::remove_file(&place).unwrap();
    assert_eq!(world.check(locks::squatted), [], "it is made at the next start");

    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, Permissions::from_mode(0o770)).unwrap();
    let found = world.check(locks::squatted);
    assert!(found[0].what.ends_with(" can be written by other users (mode 770)"), "{}", found[0].what);
    assert_eq!(found[0].mend, Mend::Type(format!("chmod 700 {}", place.display())));
    let outcome = world.fix(locks::squatted);
    assert_eq!((outcome.findings.len(), outcome.mended.len()), (0, 1), "{outcome:?}");
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(world.check(locks::squatted), []);

    if me.is_root() {
        chown(&place, Some(54_321), None).unwrap();
        let found = world.check(locks::squatted);
        assert!(found[0].what.ends_with(" belongs to user 54321"), "{}", found[0].what);
    }
}

#[test]
fn run_directories_and_halves_of_writes_are_removed_once_they_are_old() {
    let mut world = World::new();
    world.instance("main", 18_789);
    for name in ["main", "gone"] {
        world.write(&format!("data/run/{name}/launch.json"), "{}");
    }
    let halves = ["state/.unfinished-1-0", "incident/.incident.json.new"]
        .map(|half| world.write(&format!("data/instances/main/{half}"), "{"));
    assert_eq!(
        (world.check(locks::run_directories), world.check(files::leftovers)),
        (vec![], vec![]),
        "too young"
    );
    let run_directories = ["data/run/main", "data/run/gone"].map(|path| world.at(path));
    run_directories.iter().chain(&halves).for_each(|path| age(path));
    let outcome = world.fix(locks::run_directories);
    assert_eq!((outcome.findings.len(), outcome.mended.len()), (0, 1), "{outcome:?}");
    assert!(world.at("data/run/main").exists() && !world.at("data/run/gone").exists());
    assert_eq!(world.fix(files::leftovers).mended.len(), 2);
    assert!(halves.iter().all(|half| !half.exists()));
}

#[test]
fn a_half_of_a_write_is_found_wherever_the_files_of_a_profile_are_written() {
    let mut world = World::new();
    let [state_dir, config] = ["home/state", "home/config/openclaw.json"].map(|path| world.at(path));
    let kept = world.write("home/config/dotfiles/openclaw.json", "{}");
    let profile = Profile { state_dir: Some(state_dir), config: Some(config.clone()), ..Profile::default() };
    world.add("main", 18_789, InstanceSpec { profile: Some(profile), ..InstanceSpec::default() });
    symlink(&kept, &config).unwrap();
    let [in_state, beside_link, beside_kept, another] = [
        "home/state/.unfinished-1-0",
        "home/config/.unfinished-1-1",
        "home/config/dotfiles/.unfinished-1-2",
        "home/state/.unfinished",
    ]
    .map(|path| world.write(path, "TOKEN=1"));
    let me = nix::unistd::geteuid();
    if me.is_root() {
        let theirs = world.write("home/state/.unfinished-1-3", "");
        age(&theirs);
        chown(&theirs, Some(54_321), None).unwrap();
    }
    [&in_state, &beside_link, &beside_kept, &another].into_iter().for_each(|path| age(path));
    let found = world.check(files::leftovers);
    assert_eq!(told(&found), [("file.leftover", "main".to_owned())]);
    let outcome = world.fix(files::leftovers);
    assert_eq!((outcome.findings.len(), outcome.mended.len()), (0, 3), "{outcome:?}");
    assert!([in_state, beside_link, beside_kept].iter().all(|half| !half.exists()) && another.exists());
}

#[test]
fn services_that_would_start_a_second_copy_are_found() {
    let mut world = World::new();
    world.profile("main", 18_789, ".openclaw").profile("rescue", 19_789, ".openclaw-rescue");
    let units = "home/.config/systemd/user";
    world.write(&format!("{units}/openclaw-gateway.service"), "[Service]\nExecStart=openclaw gateway\n");
    world.write(
        &format!("{units}/openclaw-gateway-lab.service"),
        "[Service]\nEnvironment=OPENCLAW_PROFILE=lab\n",
    );
    let rescue = "[Service]\nEnvironment=\"OPENCLAW_STATE_DIR=%h/.openclaw-rescue\"\n";
    world.write("root/etc/systemd/system/openclaw-gateway-rescue.service", rescue);
    fs::create_dir_all(world.at(&format!("{units}/default.target.wants"))).unwrap();
    symlink(
        "../openclaw-gateway.service",
        world.at(&format!("{units}/default.target.wants/openclaw-gateway.service")),
    )
    .unwrap();
    let found = world.check(services::units);
    assert_eq!(told(&found), [("service.unit", "main".to_owned()), ("service.unit", "rescue".to_owned())]);
    assert_eq!(
        (found[0].severity, found[1].severity),
        (Severity::Error, Severity::Warning),
        "one is enabled"
    );
    assert_eq!(found[0].mend, Mend::Type("systemctl --user disable --now openclaw-gateway.service".into()));
    assert_eq!(
        found[1].mend,
        Mend::Type("sudo systemctl disable --now openclaw-gateway-rescue.service".into())
    );

    let plist =
        format!("<key>OPENCLAW_STATE_DIR</key><string>{}</string>", world.at("home/.openclaw").display());
    world.write("home/Library/LaunchAgents/ai.openclaw.gateway.plist", &plist);
    assert_eq!(told(&world.check(services::agents)), [("service.agent", "main".to_owned())]);
}

#[test]
fn crontab_lines_are_found_by_their_number_and_not_quoted() {
    let world = World::new();
    world.write(
        "root/etc/crontab",
        "# openclaw gateway\n@reboot root TOKEN=x openclaw gateway run\n* * * * * openclawctl status\n",
    );
    world.write("root/etc/cron.d/bot", "0 3 * * * me openclaw doctor\n");
    let found = world.check(services::crontabs);
    let places: Vec<_> = found.iter().map(|one| (one.severity, one.place.unwrap().line)).collect();
    assert_eq!(places, [(Severity::Warning, 2), (Severity::Note, 1)]);
    assert!(!format!("{found:?}").contains("TOKEN"));
}

#[test]
fn a_gateway_that_nobody_here_has_started_is_found_by_its_state() {
    let mut world = World::new();
    world.profile("main", 18_789, ".openclaw");
    let process = |pid: u32, line: &str, environ: String| {
        world.write(&format!("root/proc/{pid}/cmdline"), line);
        world.write(&format!("root/proc/{pid}/environ"), &environ);
        let user = if pid == 75 { 64_171 } else { nix::unistd::geteuid().as_raw() };
        world.write(&format!("root/proc/{pid}/status"), &format!("Name:\tnode\nUid:\t{user}\t{user}\n"));
    };
    let home = world.at("home").display().to_string();
    let data_dir = world.at("data").display().to_string();
    process(71, "openclaw-gateway\0", format!("HOME={home}\0"));
    process(72, "openclaw-gateway\0", "HOME=/elsewhere\0".into());
    process(75, "openclaw-gateway\0", format!("HOME={home}\0"));
    process(73, "openclaw\0gateway\0status\0", format!("HOME={home}\0"));
    process(
        74,
        "openclaw-gateway\0",
        format!("HOME={home}\0OPENCLAWCTL_MARK=a/main\0OPENCLAWCTL_DATA_DIR={data_dir}\0"),
    );
    let found = world.check(services::processes);
    assert_eq!(told(&found), [("process.second", "main".to_owned())]);
    assert_eq!(found[0].mend, Mend::Type("kill 71".into()));
}

#[test]
fn what_only_concerns_others_is_not_told() {
    let mut world = World::new();
    world.instance("main", 18_789).instance("rescue", 19_789);
    world.config("main", "{,}");
    world.config("rescue", "{,}");
    world.wanted = Some([Name::new("main").unwrap()].into());
    let budget = Budget::new(Instant::now().into_std() + Duration::from_secs(60), FILES);
    let outcome = run("it", configs::refused, &world.scene(), &budget, Mode::Look);
    assert_eq!(told(&outcome.findings), [("config.refused", "main".to_owned())]);
}

fn never(_: &Scene, _: &Budget) -> Vec<Finding> {
    thread::park_timeout(Duration::from_secs(600));
    Vec::new()
}

fn nothing(_: &Scene, _: &Budget) -> Vec<Finding> {
    Vec::new()
}

#[tokio::test]
async fn a_check_that_hangs_is_told_and_not_begun_again_and_the_others_are_made() {
    let (world, doctor) = (World::new(), Doctor::default());
    let checks: &[(&str, Check)] = &[("a mount", never), ("nothing", nothing)];
    for _ in 0..2 {
        let limit = Duration::from_millis(100);
        let outcome = doctor.examine_with(checks, limit, world.scene(), Mode::Look).await;
        assert_eq!(told(&outcome.findings), [("doctor.unanswered", String::new())]);
        assert_eq!(outcome.checks_done, 1);
    }
    assert_eq!(doctor.away.lock().unwrap().len(), 1);
}

#[test]
fn a_check_that_has_looked_at_enough_says_so() {
    let world = World::new();
    for number in 0..20 {
        world.write(&format!("data/run/x{number}/a"), "");
    }
    let budget = Budget::new(Instant::now().into_std() + Duration::from_secs(60), 5);
    let outcome = run("run directories", locks::run_directories, &world.scene(), &budget, Mode::Look);
    assert_eq!(told(&outcome.findings), [("doctor.incomplete", String::new())]);
}

#[test]
fn one_instance_with_very_many_files_keeps_nobody_elses_from_being_looked_at() {
    let mut world = World::new();
    for (name, base) in [("evil", 20_000), ("main", 20_020)] {
        world.instance(name, base);
        let open = world.write(&format!("data/instances/{name}/state/credentials/x.json"), "");
        fs::set_permissions(open, Permissions::from_mode(0o666)).unwrap();
    }
    for number in 0..3_000 {
        world.write(&format!("data/instances/evil/state/credentials/{number}"), "");
    }
    let look = |world: &World, files| {
        let budget = Budget::new(Instant::now().into_std() + Duration::from_secs(60), files);
        let outcome = run("modes of files", files::open, &world.scene(), &budget, Mode::Look);
        told(&outcome.findings)
    };
    let about = |told: &[(&str, String)], name: &str| told.iter().filter(|(_, of)| of == name).count();
    let told = look(&world, 3_000);
    assert!(about(&told, "main") > 0 && told.contains(&("doctor.incomplete", String::new())), "{told:?}");
    let told = look(&world, 30_000);
    assert!(about(&told, "main") > 0 && about(&told, "evil") > 0, "{told:?}");
    assert!(!told.contains(&("doctor.incomplete", String::new())), "all have been looked at: {told:?}");
    world.wanted = Some([Name::new("main").unwrap()].into());
    let told = look(&world, 500);
    assert!(about(&told, "main") == told.len() && !told.is_empty(), "{told:?}");
}

mod planted;
mod users;

#[test]
fn one_instance_with_much_that_is_wrong_hides_nobody_else() {
    let found = |instance: &'static str, count: usize| {
        (0..count).map(move |number| {
            let mend = Mend::Do("mend it".to_owned());
            let what = number.to_string();
            Finding::new("it", Severity::Error, what, "because", mend).of(&Name::new(instance).unwrap())
        })
    };
    let (kept, more) = fairly(found("loud", 10_000).chain(found("quiet", 2)));
    let of = |name: &str| kept.iter().filter(|finding| *finding.instances[0] == *name).count();
    assert_eq!((of("loud"), of("quiet")), (MOST_OF_ONE, 2));
    assert_eq!(more, BTreeMap::from([(Name::new("loud").unwrap(), 10_000 - MOST_OF_ONE)]));
    let quiet = kept.iter().rposition(|finding| *finding.instances[0] == *"quiet");
    assert!(quiet.is_some_and(|place| place < 4), "what is cut off is the loud one's");
}
