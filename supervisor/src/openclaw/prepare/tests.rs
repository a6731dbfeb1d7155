//! Whole surroundings, on real directories.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use super::*;
use crate::{
    openclaw::incident::tests::incident,
    spec::{Probe, Probes, Profile, Runtime},
};

struct World {
    directory: tempfile::TempDir,
    host: Host,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        fs::create_dir(at("bin")).unwrap();
        for program in ["builtin-gateway", "serve"] {
            fs::write(at("bin").join(program), "#!/bin/sh\n").unwrap();
            fs::set_permissions(at("bin").join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = at("bin").to_string_lossy().into_owned();
        let host = Host {
            control: Control { data_dir: at("data"), socket: at("data/supervisor.sock") },
            environment: BTreeMap::from([("PATH".to_owned(), path), ("HOME".to_owned(), "/root".to_owned())]),
            beside_daemon: at("bin"),
        };
        Self { directory, host }
    }

    fn prepare(
        &self,
        who: &str,
        base: u16,
        spec: &InstanceSpec,
        neighbours: &[Neighbour],
    ) -> Result<Prepared, Refusal> {
        self.prepare_with(who, base, spec, neighbours, &[])
    }

    fn prepare_with(
        &self,
        who: &str,
        base: u16,
        spec: &InstanceSpec,
        neighbours: &[Neighbour],
        incidents: &[Incident],
    ) -> Result<Prepared, Refusal> {
        prepare(
            &self.host,
            &Request {
                purpose: Purpose::Serve,
                contract: Contract::None,
                channels: Channels::On,
                good: None,
                user: None,
                name: &name(who),
                spec,
                block: Block::at(base).unwrap(),
                previous_base: None,
                mark: "m",
                incidents,
                neighbours,
            },
        )
    }
}

fn command(args: &[&str]) -> InstanceSpec {
    InstanceSpec {
        runtime: Some(Runtime::Command),
        program: Some("serve".into()),
        args: args.iter().map(|argument| (*argument).to_owned()).collect(),
        ..InstanceSpec::default()
    }
}

#[test]
fn two_instances_share_nothing() {
    let world = World::new();
    let main = world.prepare("main", 18_789, &InstanceSpec::default(), &[]).unwrap();
    let rescue = world.prepare("rescue", 19_789, &InstanceSpec::default(), &[]).unwrap();
    assert_ne!(main.token, rescue.token);
    assert_eq!((main.listens.as_slice(), main.notify), ([18_789, 18_791, 18_793].as_slice(), true));
    for variable in ["HOME", "TMPDIR", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_GATEWAY_PORT"]
    {
        assert_ne!(main.environment[variable], rescue.environment[variable], "{variable}");
    }
    assert!(main.working_directory.is_dir());
    assert_eq!(main.runtime.note.as_deref(), Some("OpenClaw is not installed; the built-in gateway runs"));
}

#[test]
fn a_restart_writes_nothing() {
    let world = World::new();
    let first = world.prepare("main", 18_789, &InstanceSpec::default(), &[]).unwrap();
    let before = fs::metadata(&first.directories.config).unwrap();
    let root = fs::metadata(&first.directories.root).unwrap();
    assert_eq!(world.prepare("main", 18_789, &InstanceSpec::default(), &[]).unwrap(), first);
    let after = fs::metadata(&first.directories.config).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    assert_eq!(root.mtime_nsec(), fs::metadata(&first.directories.root).unwrap().mtime_nsec());
}

#[test]
fn a_command_gets_its_placeholders_and_no_configuration_it_did_not_ask_for() {
    let world = World::new();
    let bare = world.prepare("a", 18_789, &command(&["--port={port}", "{name}", "{json: 1}"]), &[]).unwrap();
    assert_eq!(bare.args, ["--port=18789", "a", "{json: 1}"]);
    assert_eq!((bare.token, bare.config_revision, bare.notify), (None, None, false));
    assert!(!bare.directories.config.exists());
    assert_eq!(bare.environment["PORT"], "18789");

    let wrapper =
        world.prepare("b", 18_809, &command(&["{config}", "{state_dir}", "{workspace}"]), &[]).unwrap();
    assert!(wrapper.directories.config.exists() && wrapper.token.is_some());
    let Directories { config, state, workspace, .. } = &wrapper.directories;
    assert_eq!(wrapper.args, [config, state, workspace].map(|path| path.to_str().unwrap()));
}

#[test]
fn a_program_that_says_when_it_is_ready_is_given_the_means() {
    let world = World::new();
    let startup = Probe { check: Some(Check::Notify), ..Probe::default() };
    let spec = InstanceSpec { probes: Probes { startup, ..Probes::default() }, ..command(&[]) };
    assert!(world.prepare("a", 18_789, &spec, &[]).unwrap().notify);
    let startup = Probe { check: Some(Check::Openclaw), ..Probe::default() };
    let spec = InstanceSpec { probes: Probes { startup, ..Probes::default() }, ..InstanceSpec::default() };
    assert!(!world.prepare("a", 18_789, &spec, &[]).unwrap().notify);
}

#[test]
fn an_incident_is_there_while_it_lasts() {
    let world = World::new();
    let spec = InstanceSpec::default();
    let called = world.prepare_with("rescue", 19_789, &spec, &[], &[incident("main")]).unwrap();
    let file = PathBuf::from(&called.environment["RESCUE_INCIDENT_FILE"]);
    assert!(file.exists());
    assert_eq!(called.warnings, [""; 0]);
    let idle = world.prepare("rescue", 19_789, &spec, &[]).unwrap();
    assert!(!file.exists() && !idle.environment.contains_key("RESCUE_PRIMARY"));
}

#[test]
fn an_incident_that_cannot_be_written_does_not_hold_the_rescue_back() {
    let world = World::new();
    let spec = InstanceSpec::default();
    let root = world.prepare("rescue", 19_789, &spec, &[]).unwrap().directories.root;
    fs::create_dir(incident::file(&root)).unwrap();
    let called = world.prepare_with("rescue", 19_789, &spec, &[], &[incident("main")]).unwrap();
    assert_eq!(called.warnings.len(), 1, "{:?}", called.warnings);
    assert_eq!(called.environment["RESCUE_PRIMARY"], "main");
}

#[test]
fn a_profile_that_meets_another_is_refused_before_anything_is_made() {
    let world = World::new();
    let state = world.directory.path().join("openclaw");
    fs::create_dir(&state).unwrap();
    let profile = |path: PathBuf| Some(Profile { state_dir: Some(path), ..Profile::default() });
    let theirs = InstanceSpec { profile: profile(state.clone()), ..InstanceSpec::default() };
    let neighbour = Neighbour::of(&name("main"), Block::at(18_789).unwrap(), &theirs);
    let spec = InstanceSpec { profile: profile(state.join("inner")), ..InstanceSpec::default() };
    let refusal = world.prepare("rescue", 19_789, &spec, std::slice::from_ref(&neighbour)).unwrap_err();
    assert!(matches!(refusal, Refusal::Layout(LayoutError::Clash(_))), "{refusal}");
    assert_eq!(refusal.mend(), "give `rescue` or `main` a directory of its own");
    assert!(!world.host.control.data_dir.exists());
    let spec = InstanceSpec { profile: profile(state), ..InstanceSpec::default() };
    assert!(world.prepare("main", 18_789, &spec, &[neighbour]).is_ok(), "an instance does not meet itself");
}

#[test]
fn a_profile_that_a_link_leads_to_is_refused_with_what_to_do() {
    let world = World::new();
    let at = |path: &str| world.directory.path().canonicalize().unwrap().join(path);
    for made in ["srv/claw", "treasure/claw"] {
        fs::create_dir_all(at(made)).unwrap();
    }
    let profile = Some(Profile { state_dir: Some(at("srv/claw")), ..Profile::default() });
    let spec = InstanceSpec { profile, ..InstanceSpec::default() };
    world.prepare("main", 18_789, &spec, &[]).unwrap();
    let is_refused = || {
        let refusal = world.prepare("main", 18_789, &spec, &[]).unwrap_err();
        assert!(matches!(refusal, Refusal::Layout(LayoutError::Led { .. })), "{refusal}");
        assert!(refusal.mend().contains(&format!("write `{}`", at("treasure/claw").display())), "{refusal}");
    };
    fs::rename(at("srv/claw"), at("srv/away")).unwrap();
    symlink(at("treasure/claw"), at("srv/claw")).unwrap();
    is_refused();
    fs::rename(at("srv"), at("elsewhere")).unwrap();
    symlink(at("treasure"), at("srv")).unwrap();
    is_refused();
}

#[test]
fn a_broken_configuration_is_refused_with_its_line() {
    let world = World::new();
    let config = world.prepare("main", 18_789, &InstanceSpec::default(), &[]).unwrap().directories.config;
    fs::write(&config, "{\n  gateway: {\n").unwrap();
    let refusal = world.prepare("main", 18_789, &InstanceSpec::default(), &[]).unwrap_err();
    let Refusal::Config(error) = &refusal else { panic!("{refusal}") };
    assert_eq!(error.problem().unwrap().file, config.to_str().unwrap());
    assert!(error.problem().unwrap().place.line >= 2, "{refusal}");
    assert!(!refusal.mend().is_empty());
}

/// A directory in /tmp that goes with its test.
struct Squatted(std::path::PathBuf);

impl Drop for Squatted {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn an_openclaw_whose_locks_somebody_else_has_is_refused_with_what_to_type() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can start gateways of another user");
        return;
    }
    // A number that nobody has, so that nobody's gateways are in the way.
    let uid = (1 << 30) + std::process::id();
    let place = Squatted(walls::shared::locks(uid));
    fs::create_dir(&place.0).unwrap();
    let (world, user) = (World::new(), User { uid, gid: uid, groups: Vec::new() });
    let prepare = |runtime| {
        let spec = InstanceSpec { runtime: Some(runtime), ..command(&[]) };
        let name = name("main");
        let request = Request {
            name: &name,
            spec: &spec,
            block: Block::at(18_789).unwrap(),
            previous_base: None,
            mark: "m",
            incidents: &[],
            neighbours: &[],
            purpose: Purpose::Serve,
            contract: Contract::None,
            channels: Channels::On,
            good: None,
            user: Some(&user),
        };
        prepare(&world.host, &request)
    };
    let refusal = prepare(Runtime::Openclaw).unwrap_err();
    let path = place.0.display();
    let why = format!("failed to find a place for OpenClaw's locks: `{path}` belongs to user 0");
    assert_eq!((refusal.to_string(), refusal.blames_config()), (why, false));
    assert_eq!(refusal.mend(), format!("see what it is, then `rm -r {path}`"));
    // Others may do without.
    let warned = prepare(Runtime::Command).unwrap();
    let warning = format!("OpenClaw's locks cannot be kept in `{path}`: it belongs to user 0");
    assert!(warned.warnings.contains(&warning), "{:?}", warned.warnings);
    assert!(!warned.trees.unwrap().write.contains(&place.0));
    fs::remove_dir(&place.0).unwrap();
    prepare(Runtime::Openclaw).unwrap();
    assert_eq!(fs::metadata(&place.0).unwrap().uid(), uid);
}
