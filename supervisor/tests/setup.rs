//! Instances set up, and profiles imported and given back, with a real daemon, real gateways and the real command line.
//!
//! The gateway is the built-in one under the name of `openclaw`. There may be no systemd here, and there must be none
//! that is disturbed: a `systemctl` that is first on the supervisor's PATH stands in for it. What it calls a unit is a
//! real process, which it really starts and ends; whether that is enabled is a file.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use supervisor_proto::v1::{Phase, StopInstanceRequest};
use support::{Host, is_alive, program, until};

const UNIT: &str = "openclaw-gateway-lab.service";

/// `hold-WORD` makes it wait there until that file is gone, and say so in `held-WORD`.
const SYSTEMCTL: &str = r#"#!/bin/sh
units=$(dirname "$0")/../units
[ "$1" = --user ] && shift
verb=$1
for unit; do :; done
echo "$verb $unit" >>"$units/calls"
hold() {
  while [ -e "$units/hold-$1" ]; do : >"$units/held-$1"; sleep 0.02; done
}
alive() {
  pid=$(cat "$units/$unit.pid" 2>/dev/null) && state=$(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null) && [ "$state" != Z ]
}
hold "$verb"
case $verb in
is-enabled) if [ -e "$units/$unit.enabled" ]; then echo enabled; else echo disabled; fi ;;
is-active) if alive; then echo active; else echo inactive; fi ;;
show) if alive; then echo "$pid"; else echo 0; fi ;;
enable) : >"$units/$unit.enabled" ;;
disable) rm -f "$units/$unit.enabled" ;;
start)
  alive && exit 0
  setsid "$units/$unit.sh" </dev/null >>"$units/$unit.log" 2>&1 &
  echo $! >"$units/$unit.pid" ;;
stop)
  alive && kill "$pid"
  while alive; do sleep 0.02; done
  hold stopped ;;
esac
"#;

/// Under the supervisor it can be made to fail, to wait, and to plant a link for its configuration.
const OPENCLAW: &str = r#"#!/bin/sh
units=$(dirname "$0")/../units
if [ -n "$OPENCLAWCTL_INSTANCE" ] && [ "$*" = "gateway run" ]; then
  [ -e "$units/plant" ] && ln -sfn "$units/../home/authorized_keys" "$OPENCLAW_CONFIG_PATH" && exit 1
  [ -e "$units/break" ] && exit 1
  while [ -e "$units/hold-run" ]; do : >"$OPENCLAW_STATE_DIR/held-run"; sleep 0.02; done
fi
exec "$(dirname "$0")/real/openclaw" "$@"
"#;

/// A host with one profile, `lab`, that its own unit runs.
struct World {
    host: Host,
    /// What the profile's configuration holds.
    config: String,
}

fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

impl World {
    async fn new() -> Self {
        let host = Host::prepare();
        let port = host.first_port;
        // Neither `mode` nor `bind`: the supervisor completes it.
        let config = format!(
            "// mine\n{{\n  gateway: {{ port: {port}, auth: {{ mode: 'token', token: 'abc' }} }},\n}}\n"
        );
        let mut world = Self { host, config };
        write_program(&world.at("bin/systemctl"), SYSTEMCTL);
        write_program(&world.at("bin/openclaw"), OPENCLAW);
        fs::create_dir_all(world.at("bin/real")).unwrap();
        symlink(program("builtin-gateway"), world.at("bin/real/openclaw")).unwrap();
        let sessions = world.at("home/.openclaw-lab/agents/main/sessions");
        fs::create_dir_all(&sessions).unwrap();
        for session in ["a.jsonl", "b.jsonl"] {
            fs::write(sessions.join(session), "{}\n").unwrap();
        }
        fs::write(world.at("home/.openclaw-lab/openclaw.json"), &world.config).unwrap();
        fs::create_dir_all(world.at("units")).unwrap();
        world.start().await;
        world
    }

    /// With a unit that runs the profile.
    async fn with_unit() -> Self {
        let world = Self::new().await;
        let state = world.at("home/.openclaw-lab");
        let units = world.at("home/.config/systemd/user");
        fs::create_dir_all(&units).unwrap();
        let unit = "[Service]\nExecStart=openclaw gateway run\nEnvironment=OPENCLAW_PROFILE=lab\nEnvironment=MINE=yes\n";
        fs::write(units.join(UNIT), unit).unwrap();
        write_program(&world.at(&format!("units/{UNIT}.sh")), &world.by_hand(&state));
        world.systemctl(&["enable", UNIT]);
        world.systemctl(&["start", UNIT]);
        world.answers().await;
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.host.directory.path().join(path)
    }

    /// A script that runs the gateway without a supervisor. Its environment shows the test whose it is.
    fn by_hand(&self, state: &Path) -> String {
        format!(
            "#!/bin/sh\nexec env -i TEST_OF={} OPENCLAW_STATE_DIR={} {} gateway run\n",
            self.host.data_dir().display(),
            state.display(),
            self.at("bin/real/openclaw").display(),
        )
    }

    async fn start(&mut self) {
        let home = self.at("home");
        let path = format!("{}:/usr/bin:/bin", self.at("bin").display());
        self.host.spawn_supervisor(|command| {
            command.env("HOME", home).env("PATH", path);
        });
        until("the supervisor answers", async || self.host.try_instances().await.ok().map(|_| ())).await;
    }

    fn systemctl(&self, words: &[&str]) -> String {
        let output = Command::new(self.at("bin/systemctl")).arg("--user").args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program("openclawctl"));
        command.arg("--data-dir").arg(self.host.data_dir()).args(words).stdin(Stdio::null());
        command
    }

    fn ctl(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    /// An import whose end is not waited for.
    fn begin_import(&self) -> Child {
        let mut command = self.command(&["import", "lab", "--yes"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn file(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    async fn held(&self, word: &str) {
        // A gateway behind its walls writes nowhere else.
        let places = ["units", "home/.openclaw-lab"].map(|place| self.at(place).join(format!("held-{word}")));
        until(word, async || places.iter().any(|place| place.exists()).then_some(())).await;
    }

    fn hold(&self, word: &str) {
        fs::write(self.at(&format!("units/hold-{word}")), "").unwrap();
    }

    fn release(&self, word: &str) {
        fs::remove_file(self.at(&format!("units/hold-{word}"))).unwrap();
    }

    /// Somebody serves on the profile's port.
    async fn answers(&self) {
        until("it answers", async || std::net::TcpStream::connect(("127.0.0.1", self.host.first_port)).ok())
            .await;
    }

    async fn has_instance(&self) -> bool {
        let request = supervisor_proto::v1::ListInstancesRequest::default();
        let answer = self.host.instances().await.list_instances(request).await.unwrap();
        !answer.into_inner().instances.is_empty()
    }

    /// Everything is as it was before any import.
    async fn all_is_back(&self) {
        assert!(!self.has_instance().await);
        assert_eq!(self.file("home/.openclaw-lab/openclaw.json"), self.config, "byte for byte");
        assert_eq!(self.systemctl(&["is-enabled", UNIT]), "enabled");
        assert_eq!(self.systemctl(&["is-active", UNIT]), "active");
        assert_eq!(
            fs::read_dir(self.host.data_dir().join("imports")).unwrap().count(),
            0,
            "no journal is left"
        );
        self.answers().await;
    }

    async fn is_imported(&self) {
        let done = async || self.ctl(&["import"]).1.contains("  imported\n").then_some(());
        until("it is imported", done).await;
        let status = self.host.wait_ready("lab").await;
        assert_eq!(status.ports.unwrap().base, u32::from(self.host.first_port));
        assert_eq!(status.directories.unwrap().state, self.at("home/.openclaw-lab").to_str().unwrap());
        assert_eq!(self.systemctl(&["is-enabled", UNIT]), "disabled");
        assert_eq!(self.systemctl(&["is-active", UNIT]), "inactive");
    }
}

#[tokio::test]
async fn a_profile_is_imported_with_its_sessions_and_given_back_as_it_was() {
    let world = World::with_unit().await;
    let (code, listed, _) = world.ctl(&["import"]);
    assert_eq!(code, Some(0));
    assert!(listed.contains(&format!("{UNIT}         2  possible")), "{listed}");
    assert!(listed.contains("would end its service: `systemctl --user disable --now"), "{listed}");
    assert!(listed.contains("note: its unit sets MINE, and so will the instance"), "{listed}");
    let (code, _, told) = world.ctl(&["import", "lab"]);
    assert_eq!(code, Some(2), "without a terminal nobody can be asked: {told}");

    let (code, done, told) = world.ctl(&["import", "lab", "--yes"]);
    assert_eq!(code, Some(0), "{told}");
    let port = world.host.first_port;
    let ready = format!("lab: it is ready on port {port}, with all its 2 session files\n");
    assert!(done.contains(&ready), "{done}");
    world.is_imported().await;
    assert!(world.file("home/.openclaw-lab/openclaw.json").starts_with("// mine"), "comments stay");
    assert!(world.ctl(&["env", "lab"]).1.contains("MINE"), "what its unit set is there");
    assert!(world.ctl(&["import"]).1.contains("imported"));
    assert_eq!(world.ctl(&["import", "lab", "--yes"]).1, "lab: it is imported already\n");

    let (code, done, told) = world.ctl(&["import", "--undo", "lab", "--yes"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(done.contains("lab: put the configuration back as it was"), "{done}");
    world.all_is_back().await;
    let history = world.ctl(&["events", "-n", "1000", "-o", "json"]).1;
    for said in ["its import wants it up", "the way back from its import wants it down"] {
        assert!(history.contains(said) && !history.contains("an operator wants"), "{said}: {history}");
    }
    let (code, _, told) = world.ctl(&["import", "--undo", "lab", "--yes"]);
    assert_eq!((code, told.contains("no import of `lab` is remembered")), (Some(3), true), "{told}");
}

#[tokio::test]
async fn what_is_imported_again_after_it_was_removed_is_still_given_back_as_it_first_was() {
    let world = World::with_unit().await;
    for words in [&["import", "lab", "--yes"][..], &["down", "lab"], &["rm", "lab", "--yes"]] {
        let (code, _, told) = world.ctl(words);
        assert_eq!(code, Some(0), "{words:?}: {told}");
    }
    until("it is removed", async || (!world.has_instance().await).then_some(())).await;
    let listed = world.ctl(&["import", "-o", "json"]).1;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let profile = &listed["profiles"][0];
    assert_eq!((&profile["name"], &profile["instance"]), (&"lab".into(), &"".into()), "{listed}");
    for words in [&["import", "lab", "--yes"][..], &["import", "--undo", "lab", "--yes"]] {
        let (code, _, told) = world.ctl(words);
        assert_eq!(code, Some(0), "{words:?}: {told}");
    }
    world.all_is_back().await;
}

#[tokio::test]
async fn an_import_that_does_not_become_ready_is_put_back_whole() {
    let world = World::with_unit().await;
    fs::write(world.at("units/break"), "").unwrap();
    let (code, _, told) = world.ctl(&["import", "lab", "--yes"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(
        told.contains("it is not imported, and everything is as it was: `lab` does not become ready"),
        "{told}"
    );
    world.all_is_back().await;
}

#[tokio::test]
async fn a_link_planted_during_an_import_is_not_followed_when_all_is_put_back() {
    let world = World::with_unit().await;
    let victim = world.at("home/authorized_keys");
    fs::write(&victim, "ssh-ed25519 AAAA me\n").unwrap();
    fs::write(world.at("units/plant"), "").unwrap();
    let (code, _, told) = world.ctl(&["import", "lab", "--yes"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("everything is as it was"), "{told}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "ssh-ed25519 AAAA me\n");
    assert!(!world.at("home/.openclaw-lab/openclaw.json").is_symlink());
    world.all_is_back().await;
}

#[tokio::test]
async fn an_import_whose_instance_is_stopped_meanwhile_is_put_back_at_once() {
    let world = World::with_unit().await;
    world.hold("run");
    let import = world.begin_import();
    world.held("run").await;
    let stop = StopInstanceRequest { name: "lab".into(), ..Default::default() };
    world.host.instances().await.stop_instance(stop).await.unwrap();
    let journal = world.host.data_dir().join("imports/lab.json");
    until("it is put back", async || (!journal.exists()).then_some(())).await;
    let told = String::from_utf8(import.wait_with_output().unwrap().stderr).unwrap();
    assert!(told.contains("everything is as it was: `lab` was stopped meanwhile"), "{told}");
    world.all_is_back().await;
}

#[tokio::test]
async fn a_stranger_on_the_port_is_named_and_everything_is_put_back() {
    let world = World::with_unit().await;
    world.hold("stopped");
    let import = world.begin_import();
    world.held("stopped").await;
    let squatter = TcpListener::bind(("127.0.0.1", world.host.first_port)).unwrap();
    world.hold("start");
    world.release("stopped");
    // The way back has begun.
    world.held("start").await;
    drop(squatter);
    world.release("start");
    let output = import.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(
        told.contains(&format!("port {} is held by process {}", world.host.first_port, std::process::id())),
        "{told}"
    );
    world.all_is_back().await;
}

#[tokio::test]
async fn an_import_whose_supervisor_is_killed_anywhere_is_finished_by_the_next() {
    // While the old gateway is ended, and while the new one starts.
    for word in ["stop", "run"] {
        let mut world = World::with_unit().await;
        world.hold(word);
        let mut import = world.begin_import();
        world.held(word).await;
        world.host.kill_supervisor();
        import.kill().unwrap();
        import.wait().unwrap();
        world.release(word);
        world.start().await;
        world.is_imported().await;
        let (code, _, told) = world.ctl(&["import", "--undo", "lab", "--yes"]);
        assert_eq!(code, Some(0), "{told}");
        world.all_is_back().await;
    }
}

#[tokio::test]
async fn what_a_killed_supervisor_was_putting_back_is_put_back_by_the_next() {
    let mut world = World::with_unit().await;
    fs::write(world.at("units/break"), "").unwrap();
    world.hold("enable");
    let mut import = world.begin_import();
    world.held("enable").await;
    world.host.kill_supervisor();
    import.kill().unwrap();
    import.wait().unwrap();
    world.release("enable");
    world.start().await;
    let journal = world.host.data_dir().join("imports/lab.json");
    until("it is put back", async || (!journal.exists()).then_some(())).await;
    world.all_is_back().await;
}

#[tokio::test]
async fn a_gateway_that_was_started_by_hand_is_ended_only_if_that_is_said() {
    let world = World::new().await;
    write_program(&world.at("by-hand"), &world.by_hand(&world.at("home/.openclaw-lab")));
    let mut gateway =
        Command::new(world.at("by-hand")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    world.answers().await;
    let pid = i32::try_from(gateway.id()).unwrap();
    let (code, _, told) = world.ctl(&["import", "lab", "--yes"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(
        told.contains(&format!(
            "process {pid} is its gateway, and no unit runs it; `--stop-running` ends it"
        )),
        "{told}"
    );
    assert!(is_alive(pid) && !world.has_instance().await, "nothing was done");
    // Whoever has started it reaps it.
    let reaped = std::thread::spawn(move || gateway.wait().unwrap());
    let (code, done, told) = world.ctl(&["import", "lab", "--yes", "--stop-running"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(done.contains(&format!("SIGTERM to process {pid}")), "{done}");
    assert!(reaped.join().unwrap().success());
    assert_eq!(world.host.wait_ready("lab").await.phase(), Phase::Ready);
    let (code, done, told) = world.ctl(&["import", "--undo", "lab", "--yes"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(done.contains("`openclaw --profile lab gateway run` starts it again"), "{done}");
    assert_eq!(world.file("home/.openclaw-lab/openclaw.json"), world.config);
}

#[tokio::test]
async fn a_workspace_that_only_a_configuration_names_is_taken_only_if_somebody_names_it() {
    let world = World::new().await;
    let keys = world.at("home/.keys");
    fs::create_dir_all(&keys).unwrap();
    let named = format!("agents: {{ defaults: {{ workspace: '{}' }} }},\n}}\n", keys.display());
    let config = world.config.strip_suffix("}\n").unwrap().to_owned() + &named;
    fs::write(world.at("home/.openclaw-lab/openclaw.json"), &config).unwrap();
    let mend = format!("so with `--workspace {}`", keys.display());
    let (_, listed, told) = world.ctl(&["import", "-o", "json"]);
    assert!(listed.contains(&mend), "{listed}{told}");
    assert!(listed.contains(&format!("let its agents write `{}`", keys.display())), "{listed}");
    for wrong in [&[][..], &["--workspace", "/elsewhere"]] {
        let (code, _, told) = world.ctl(&[&["import", "lab", "--yes"], wrong].concat());
        assert_eq!(code, Some(3), "{told}");
        assert!(told.contains(&mend) && !world.has_instance().await, "{told}");
    }
    let (code, _, told) = world.ctl(&["import", "lab", "--yes", "--workspace", keys.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
}

#[tokio::test]
async fn a_configuration_that_a_link_in_a_profile_leads_to_is_taken_only_if_somebody_names_it() {
    let world = World::new().await;
    let (link, mine) = (world.at("home/.openclaw-lab/openclaw.json"), world.at("home/mine/settings.json"));
    fs::create_dir_all(mine.parent().unwrap()).unwrap();
    fs::rename(&link, &mine).unwrap();
    symlink(&mine, &link).unwrap();
    let (code, _, told) = world.ctl(&["import", "lab", "--yes"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains(&format!("say so with `--config {}`", mine.display())), "{told}");
    assert!(!world.has_instance().await && fs::read_to_string(&mine).unwrap() == world.config);
    let (code, _, told) = world.ctl(&["import", "lab", "--yes", "--config", mine.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
}

#[tokio::test]
async fn an_instance_is_set_up_without_being_started_and_then_is_started() {
    let world = World::new().await;
    let (code, done, _) = world.ctl(&["setup", "new", "--runtime", "builtin", "--dry-run"]);
    assert_eq!((code, world.has_instance().await), (Some(0), false), "{done}");
    assert!(done.starts_with("new: would create the instance `new`"), "{done}");
    let typo = world.at("no/openclaw");
    let (code, _, told) = world.ctl(&["setup", "new", "--program", typo.to_str().unwrap()]);
    assert_eq!((code, world.has_instance().await), (Some(3), false), "{told}");
    assert!(
        told.contains("no/openclaw`; ") && told.ends_with("then `openclawctl setup new` again\n"),
        "{told}"
    );
    let (code, done, told) = world.ctl(&["setup", "new", "--runtime", "builtin"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(done.ends_with("hint: openclawctl up new\n"), "{done}");
    assert_eq!(world.host.status("new").await.phase(), Phase::Stopped);
    let config = world.host.data_dir().join("instances/new/state/openclaw.json");
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&config).unwrap();
    world.host.up("new").await;
    assert_eq!(fs::read(&config).unwrap(), before, "a first start has nothing to add");
    assert_eq!(world.ctl(&["setup", "new", "--runtime", "builtin"]).1, "new: set up already\n");
    let (code, _, told) = world.ctl(&["setup", "new"]);
    assert_eq!((code, told.contains("an instance called `new` exists already")), (Some(3), true), "{told}");
}

#[tokio::test]
async fn credentials_reach_openclaws_onboarding_and_no_command_line() {
    let world = World::new().await;
    // Behind its walls it writes nowhere else.
    let seen = "\"$OPENCLAW_STATE_DIR/seen\"";
    let status = world.at("bin/status");
    let openclaw = format!(
        "#!/bin/sh\necho \"$@\" >>{seen}\nenv | grep ANTHROPIC >>{seen}\ntouch {0}.touched\necho broken >&2\nexit $(cat {0})\n",
        status.display()
    );
    write_program(&world.at("bin/openclaw"), &openclaw);
    fs::write(&status, "1").unwrap();
    let keys = world.at("keys.env");
    fs::write(&keys, "ANTHROPIC_API_KEY=sk-ant-secret\n").unwrap();
    let setup = ["setup", "new", "--credentials", keys.to_str().unwrap()];
    let (code, _, told) = world.ctl(&setup);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("OpenClaw's onboarding ended with status 1: broken"), "{told}");
    fs::write(&status, "0").unwrap();
    let (code, done, told) = world.ctl(&setup);
    assert_eq!(code, Some(0), "what was broken off is gone on with: {told}");
    assert!(done.contains("new: ran OpenClaw's onboarding (`--auth-choice apiKey`)"), "{done}");
    assert!(!world.at("bin/status.touched").exists(), "no wall was around it");
    let state = world.host.data_dir().join("instances/new/state");
    let seen = fs::read_to_string(state.join("seen")).unwrap();
    let (words, variables): (Vec<&str>, Vec<&str>) =
        seen.lines().partition(|line| line.starts_with("onboard"));
    assert!(words.len() == 2 && !words.concat().contains("secret"), "{words:?}");
    assert_eq!(variables, ["ANTHROPIC_API_KEY=sk-ant-secret"; 2]);
    assert_eq!(fs::read_to_string(state.join(".env")).unwrap(), "ANTHROPIC_API_KEY=sk-ant-secret\n");
    for word in [done, told, world.host.supervisor_log()] {
        assert!(!word.contains("sk-ant-secret"), "{word}");
    }
}
