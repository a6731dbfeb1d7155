//! A supervisor with versions that are scripts.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use supervisor_proto::v1::{self, InstanceSpec};

use crate::support::{Host, program, until};

/// `hold-WORD` beside it makes it wait there until that file is gone, and say so in `held-WORD`.
const VERSION: &str = r#"#!/bin/sh
here=$(dirname "$0")
hold() {
  while [ -e "$here/hold-$1" ]; do : >"$here/held-$1"; sleep 0.02; done
}
case $1 in
config)
  hold config
  if [ -e "$here/declines" ]; then
    echo '{"valid":false,"issues":[{"path":"gateway.port","message":"no such key"}]}'
    exit 1
  fi ;;
gateway)
  if [ "$*" = "gateway run" ]; then
    hold run
    echo {version} >"$OPENCLAW_STATE_DIR/schema"
    : >"$OPENCLAW_STATE_DIR/made-by-{version}"
  fi ;;
esac
export BUILTIN_GATEWAY_MISBEHAVE="version={version};{misbehave}"
exec {gateway} "$@"
"#;

pub(crate) struct World {
    pub(crate) host: Host,
}

impl World {
    /// A supervisor that finds version 1.0.0 on its PATH.
    pub(crate) async fn new() -> Self {
        let mut world = Self { host: Host::prepare() };
        fs::create_dir_all(world.at("real")).unwrap();
        symlink(program("builtin-gateway"), world.at("real/openclaw")).unwrap();
        world.version("1.0.0", "");
        world.start().await;
        world
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.host.directory.path().join(path)
    }

    /// Makes a version, in a directory that is called as it is.
    pub(crate) fn version(&self, version: &str, misbehave: &str) {
        let path = self.at(&format!("{version}/openclaw"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let gateway = self.at("real/openclaw");
        let text = VERSION
            .replace("{misbehave}", misbehave)
            .replace("{version}", version)
            .replace("{gateway}", gateway.to_str().unwrap());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) async fn start(&mut self) {
        let path = format!("{}:/usr/bin:/bin", self.at("1.0.0").display());
        self.host.spawn_supervisor(|command| {
            command.env("PATH", path);
        });
        until("the supervisor answers", async || self.host.try_instances().await.ok().map(|_| ())).await;
    }

    /// `kill -9`, and the next one.
    pub(crate) async fn replace_supervisor(&mut self) {
        self.host.kill_supervisor();
        self.start().await;
    }

    /// An instance that runs, with something in its state.
    pub(crate) async fn instance(&self, name: &str, spec: InstanceSpec) -> v1::InstanceStatus {
        // A version says in its own directory what it is held up by.
        let walls = Some(v1::WallPolicy { files: Some(false), ..Default::default() });
        self.host.create(name, InstanceSpec { runtime: v1::Runtime::Openclaw.into(), walls, ..spec }).await;
        let status = self.host.up(name).await;
        fs::write(self.state(name, "precious"), name).unwrap();
        status
    }

    pub(crate) fn state(&self, name: &str, file: &str) -> PathBuf {
        self.host.data_dir().join("instances").join(name).join("state").join(file)
    }

    /// Makes the state one that is not copied.
    pub(crate) fn dig(&self, name: &str) {
        fs::create_dir_all(self.state(name, &format!("deep{}", "/er".repeat(200)))).unwrap();
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program("openclawctl"));
        command.arg("--data-dir").arg(self.host.data_dir()).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) async fn run(&self, words: &[&str]) -> (i32, String) {
        let mut command = self.command(words);
        Self::told(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
    }

    pub(crate) fn told(Output { status, stdout, stderr }: Output) -> (i32, String) {
        let told = [stdout, stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        // Lines are broken for terminals.
        (status.code().unwrap(), told.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// To a version that was made here.
    pub(crate) async fn upgrade(&self, names: &[&str], version: &str, flags: &[&str]) -> (i32, String) {
        let from = self.at(&format!("{version}/openclaw"));
        let words = [&["upgrade", "--to", version, "--from", from.to_str().unwrap()], names, flags].concat();
        self.run(&words).await
    }

    /// The same while the test does something else.
    pub(crate) fn begin(&self, name: &str, version: &str, soak: &str) -> std::process::Child {
        let from = self.at(&format!("{version}/openclaw"));
        let words = ["upgrade", name, "--to", version, "--from", from.to_str().unwrap(), "--soak", soak];
        self.command(&words).spawn().unwrap()
    }

    pub(crate) fn hold(&self, version: &str, word: &str) {
        fs::write(self.at(&format!("{version}/hold-{word}")), "").unwrap();
    }

    pub(crate) fn release(&self, version: &str, word: &str) {
        fs::remove_file(self.at(&format!("{version}/hold-{word}"))).unwrap();
    }

    pub(crate) async fn held(&self, version: &str, word: &str) {
        let path = self.at(&format!("{version}/held-{word}"));
        until(&format!("{version} waits before {word}"), async || path.exists().then_some(())).await;
    }

    /// What is written down about the instance's upgrades.
    pub(crate) fn journal(&self, name: &str) -> serde_json::Value {
        let path = self.host.data_dir().join("upgrades").join(format!("{name}.json"));
        let text = fs::read_to_string(path).unwrap_or_else(|_| "{}".into());
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn step(&self, name: &str, step: &str) {
        until(&format!("{name} is at {step}"), async || {
            (self.journal(name)["attempt"]["step"] == step).then_some(())
        })
        .await;
    }

    /// Waits until no upgrade is under way.
    pub(crate) async fn settled(&self, name: &str) {
        until("the upgrade has come to its end", async || {
            let journal = self.journal(name);
            (journal.is_object() && journal["attempt"].is_null() && journal["name"] == name).then_some(())
        })
        .await;
    }

    /// The history has each of these, and no operator who wanted anything down: no test asks for that before.
    pub(crate) async fn history_says(&self, sentences: &[&str]) {
        let (code, told) = self.run(&["events", "-n", "1000", "-o", "json"]).await;
        assert_eq!(code, 0, "{told}");
        for sentence in sentences {
            assert!(told.contains(sentence), "{sentence}: {told}");
        }
        assert!(!told.contains("an operator wants it down"), "{told}");
    }

    pub(crate) async fn spec(&self, name: &str) -> InstanceSpec {
        let request = v1::GetInstanceRequest { name: name.into() };
        let answer = self.host.instances().await.get_instance(request).await.unwrap();
        answer.into_inner().instance.unwrap().spec.unwrap()
    }

    /// It runs on the version, on a state that only this version and those before it have seen.
    pub(crate) async fn is_on(&self, name: &str, version: &str) {
        self.host.wait_ready(name).await;
        let pinned = if version == "1.0.0" { "" } else { version };
        assert_eq!(self.spec(name).await.version, pinned);
        assert_eq!(fs::read_to_string(self.state(name, "schema")).unwrap().trim(), version);
        assert_eq!(fs::read_to_string(self.state(name, "precious")).unwrap(), name);
    }
}
