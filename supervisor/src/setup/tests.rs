use std::{
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use super::*;
use crate::{
    openclaw::environment::Control,
    spec::{Runtime, UserName},
};

/// A host with an `openclaw` that is a shell script.
struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new(openclaw: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("openclaw");
        fs::write(&program, format!("#!/bin/sh\n{openclaw}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        Self { directory }
    }

    fn subject(&self) -> Subject {
        let data_dir = self.directory.path().join("data");
        let path = format!("{}:/usr/bin:/bin", self.directory.path().display());
        let host = Host {
            control: Control { socket: data_dir.join("control.sock"), data_dir },
            environment: BTreeMap::from([("PATH".to_owned(), path)]),
            beside_daemon: programs(),
        };
        Subject {
            host: Arc::new(host),
            name: Name::new("lab").unwrap(),
            spec: InstanceSpec { runtime: Some(Runtime::Openclaw), ..InstanceSpec::default() },
            neighbours: Vec::new(),
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.directory.path().join("data/instances/lab").join(path)).unwrap()
    }
}

/// Where the workspace's programs are: tests are one directory below.
fn programs() -> PathBuf {
    let test = env::current_exe().unwrap();
    let programs = test.ancestors().nth(2).unwrap();
    let worker = programs.join("gateway-worker");
    assert!(worker.exists(), "{worker:?} is missing: run `cargo build --workspace` first");
    programs.to_owned()
}

fn wish(credentials: &[(&str, &str)]) -> Wish {
    let credentials = credentials.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Wish { credentials, auth_choice: None }
}

fn block() -> Block {
    Block::at(24_789).unwrap()
}

const SECRET: &str = "sk-ant-0123456789";

#[tokio::test]
async fn what_is_needed_is_made_and_openclaw_is_onboarded_without_a_secret_on_its_command_line() {
    let world = World::new("echo \"$@\"; echo \"key $ANTHROPIC_API_KEY\"; echo $OPENCLAW_STATE_DIR >&2");
    let wish = wish(&[("ANTHROPIC_API_KEY", SECRET), ("OTHER", "a b")]);
    assert!(!world.subject().is_set_up(&wish));
    let report = world.subject().set_up(block(), wish.clone()).await.unwrap();
    let words: Vec<&str> = report.output.lines().collect();
    assert!(words[0].starts_with("onboard --non-interactive --accept-risk"), "{words:?}");
    assert!(words[0].contains("--auth-choice apiKey --gateway-port 24789"), "{words:?}");
    assert!(words[0].contains("--no-install-daemon"), "{words:?}");
    assert_eq!(words[1], "key (withheld)");
    assert!(words[2].ends_with("instances/lab/state"));
    assert_eq!(world.read("state/.env"), format!("ANTHROPIC_API_KEY={SECRET}\nOTHER='a b'\n"));
    assert_eq!(world.read("logs/setup.log"), report.output);
    assert!(world.read("state/openclaw.json").contains("24789"));
    for path in ["state/.env", "state/openclaw.json", "logs/setup.log"] {
        let file = world.directory.path().join("data/instances/lab").join(path);
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, PRIVATE, "{path}");
    }
    assert!(world.subject().is_set_up(&wish));
}

#[tokio::test]
async fn an_instance_of_another_user_is_onboarded_as_that_user_and_has_what_comes_of_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("nothing is tried here: it takes root to have an instance of another user");
        return;
    }
    let world = World::new("id -u; touch \"$OPENCLAW_STATE_DIR/made\"; touch \"$0.touched\"; exit 0");
    fs::set_permissions(world.directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let mut subject = world.subject();
    subject.spec.user = Some(UserName("54321".into()));
    let report = subject.set_up(block(), wish(&[("ANTHROPIC_API_KEY", SECRET)])).await.unwrap();
    assert_eq!(report.output.lines().next(), Some("54321"), "{}", report.output);
    let made = fs::metadata(world.directory.path().join("data/instances/lab/state/made")).unwrap();
    assert_eq!(made.uid(), 54_321);
    assert!(!world.directory.path().join("openclaw.touched").exists(), "no wall was around it");
}

#[tokio::test]
async fn an_onboarding_that_fails_is_told_with_its_last_line() {
    let world = World::new("echo no such model; exit 7");
    let wish = Wish { auth_choice: Some("skip".into()), ..Wish::default() };
    let error = world.subject().set_up(block(), wish).await.unwrap_err().to_string();
    assert!(error.starts_with("OpenClaw's onboarding ended with status 7: no such model; all"), "{error}");
    assert_eq!(world.read("logs/setup.log"), "no such model");
}

#[tokio::test]
async fn an_onboarding_that_moves_the_port_is_refused() {
    let world = World::new("echo '{ gateway: { port: 18789 } }' > $OPENCLAW_CONFIG_PATH");
    let wish = Wish { auth_choice: Some("skip".into()), ..Wish::default() };
    let error = world.subject().set_up(block(), wish).await.unwrap_err().to_string();
    assert!(error.contains("the port is 18789, but the ports of `lab` are 24789-24808"), "{error}");
}

#[tokio::test]
async fn without_credentials_nothing_of_openclaw_is_run() {
    let world = World::new("touch $0.was-run");
    let report = world.subject().set_up(block(), Wish::default()).await.unwrap();
    assert_eq!(report.steps.len(), 2, "{:?}", report.steps);
    assert!(!world.directory.path().join("openclaw.was-run").exists());
}

#[test]
fn a_credential_replaces_the_one_before_it_and_leaves_the_others() {
    let data = tempfile::tempdir().unwrap();
    let directories = Directories::at(data.path(), &Name::new("lab").unwrap(), None);
    fs::create_dir_all(&directories.state).unwrap();
    let state = &directories.state;
    fs::write(state.join(ENV), "# mine\nexport A=old\nB=2\n").unwrap();
    keep(&directories, &wish(&[("A", "it's")])).unwrap();
    assert_eq!(fs::read_to_string(state.join(ENV)).unwrap(), "# mine\nB=2\nA=\"it's\"\n");
}

#[test]
fn what_is_no_credential_is_refused_by_its_name_and_never_by_its_value() {
    for (name, value) in [
        ("a b", "x"),
        ("", "x"),
        ("1A", "x"),
        ("HOME", "/secret"),
        ("OPENCLAW_STATE_DIR", "/secret"),
        ("LD_PRELOAD", "/secret"),
        ("A", ""),
        ("A", "secret\nB=1"),
        ("A", "secret'\""),
    ] {
        let error = wish(&[(name, value)]).check().unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")) && !error.contains("secret"), "{error}");
    }
    wish(&[("OPENAI_API_KEY", SECRET), ("_x1", "a'b")]).check().unwrap();
}
