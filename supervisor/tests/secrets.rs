//! Secrets go in by every way there is, and come out by none: canaries are planted in every input, instances live
//! through all that can befall them, and every output is searched.
//!
//! Not searched is what a gateway itself prints: `openclawctl logs` shows that as it was printed, and incidents quote its
//! last lines. The gateways here print no secrets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::unistd::geteuid;
use supervisor_proto::v1::{self, Phase};
use support::{Host, kill_9, processes, program, until};

/// OpenClaw, that says at its onboarding what it has been given; it fails with a password.
const OPENCLAW: &str = r#"#!/bin/sh
if [ "$1" = onboard ]; then
  echo "signed in with $OPENAI_API_KEY$ACME_PASSWORD"
  echo "signed in with $OPENAI_API_KEY$ACME_PASSWORD" >&2
  [ -z "$ACME_PASSWORD" ]
  exit
fi
exec {gateway} "$@"
"#;

/// What every canary begins with, in small letters or large.
const BIRD: &str = "canary7391";

/// A canary, told from the others by its cage. It looks like no secret: only where it is says that it is one.
fn canary(cage: &str) -> String {
    format!("{BIRD}.{cage}.f0e1d2c3b4a5")
}

/// The word that is found in `text`, if one is.
fn sings(text: &str) -> Option<&str> {
    let at = text.to_ascii_lowercase().find(BIRD)?;
    Some(text[at..].split(|c: char| c.is_whitespace() || "\"'`,;".contains(c)).next().unwrap_or_default())
}

/// Looks at every command line of the host, as often as it can.
struct Watcher {
    ends: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<BTreeSet<String>>>,
}

impl Watcher {
    fn start() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let look = move || {
            let mut heard = BTreeSet::new();
            while !ended.load(Ordering::Relaxed) {
                for pid in processes() {
                    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    heard.extend(
                        sings(&String::from_utf8_lossy(&command).replace('\0', " ")).map(str::to_owned),
                    );
                }
            }
            heard
        };
        Self { ends, thread: Some(thread::spawn(look)) }
    }

    fn heard(mut self) -> BTreeSet<String> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// A host whose every input has a canary in it.
struct Mine {
    host: Host,
    /// What came out, and the name of the way it came.
    out: Vec<(String, String)>,
}

impl Mine {
    async fn dig() -> Self {
        let mut mine = Self { host: Host::prepare(), out: Vec::new() };
        fs::create_dir_all(mine.at("bin")).unwrap();
        fs::create_dir_all(mine.at("home")).unwrap();
        let gateway = program("builtin-gateway");
        let openclaw = OPENCLAW.replace("{gateway}", gateway.to_str().unwrap());
        fs::write(mine.at("bin/openclaw"), openclaw).unwrap();
        fs::set_permissions(mine.at("bin/openclaw"), Permissions::from_mode(0o755)).unwrap();
        mine.secret("deploy.token", &canary("token-file"));
        let settings = mine.host.data_dir().join("settings.yaml");
        let pool = fs::read_to_string(&settings).unwrap();
        let token = mine.at("deploy.token");
        let webhook = mine.secret("slack.url", &format!("http://127.0.0.1:1/{}", canary("webhook")));
        let bot = mine.secret("telegram.token", &canary("alerting-bot"));
        let alerts = format!(
            "alerts:\n  after: 0s\n  group_for: 0s\n  boot_grace: 0s\n  sinks:\n  \
             - {{name: ops, kind: slack, url_file: {}}}\n  \
             - {{name: me, kind: telegram, chat: \"1\", url: \"http://127.0.0.1:1\", token_file: {}}}\n",
            webhook.display(),
            bot.display()
        );
        let access = format!("access:\n- {{token_file: {}, role: admin}}\n", token.display());
        fs::write(settings, format!("{pool}{alerts}{access}")).unwrap();
        mine.start().await;
        mine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.host.directory.path().join(path)
    }

    /// A file for its owner alone.
    fn secret(&self, path: &str, text: &str) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    async fn start(&mut self) {
        let (home, bin) = (self.at("home"), self.at("bin"));
        self.host.spawn_supervisor(|command| {
            command.args(["--log", "trace"]);
            command.env("HOME", home).env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
            // Inherited, and not; of the first the gateways are told.
            command.env("https_proxy", format!("http://me:{}@127.0.0.1:1", canary("proxy")));
            command.env("AWS_SECRET_ACCESS_KEY", canary("inherited"));
        });
        until("the supervisor answers", async || {
            let mut client = self.host.try_instances().await.ok()?;
            client.list_instances(v1::ListInstancesRequest::default()).await.ok()
        })
        .await;
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("openclawctl"));
        command
            .env_clear()
            .env("HOME", self.at("home"))
            .env("PATH", "/usr/bin:/bin")
            .current_dir(self.at("home"));
        command.arg("--data-dir").arg(self.host.data_dir()).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the command line, and keeps what it says. Answers its exit code.
    fn ctl(&mut self, args: &[&str]) -> i32 {
        self.ctl_given(args, "")
    }

    /// The same with something on its standard input.
    fn ctl_given(&mut self, args: &[&str], given: &str) -> i32 {
        let mut child = self.command(args).spawn().unwrap();
        // It may want nothing.
        let _ = child.stdin.take().unwrap().write_all(given.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        self.out.push((args.join(" "), String::from_utf8_lossy(&said).into_owned()));
        output.status.code().unwrap()
    }

    #[track_caller]
    fn done(&mut self, args: &[&str]) {
        let code = self.ctl(args);
        assert_eq!(code, 0, "{:?}", self.out.last());
    }

    fn config(&self, name: &str) -> PathBuf {
        self.host.data_dir().join("instances").join(name).join("state/openclaw.json")
    }

    /// Everything that tells anything, for people and for programs; YAML is JSON in other words.
    fn ask_everything(&mut self) {
        let number = {
            self.ctl(&["incidents", "-o", "json"]);
            let said: serde_json::Value = serde_json::from_str(&self.out.last().unwrap().1).unwrap();
            said["incidents"][0]["number"].as_str().unwrap_or("1").to_owned()
        };
        let commands: &[&[&str]] = &[
            &["status"],
            &["status", "main"],
            &["status", "work"],
            &["env", "main"],
            &["env", "keys"],
            &["env", "work"],
            &["export"],
            &["events", "-n", "1000"],
            &["logs", "main", "-n", "1000"],
            &["logs", "keys", "-n", "1000"],
            &["ports"],
            &["doctor"],
            &["audit", "-n", "1000"],
            &["incidents"],
            &["incident", &number],
            &["config", "snapshots", "main"],
            &["config", "diff", "main"],
            &["import"],
            &["runtimes"],
            &["cert", "list"],
            &["supervisor", "status"],
            &["alerts"],
            &["alerts", "test"],
            &["context", "list"],
            &["version"],
            &["run", "main", "--", "true"],
        ];
        self.out.push(("the page of metrics".into(), self.metrics()));
        let kept = fs::read_to_string(self.host.data_dir().join("alerts.json")).unwrap();
        self.out.push(("what is kept of alerts".into(), kept));
        for command in commands {
            for form in ["table", "wide", "json"] {
                self.ctl(&[*command, &["-o", form]].concat());
            }
        }
    }

    /// What Prometheus reads.
    fn metrics(&self) -> String {
        let mut stream = UnixStream::connect(self.host.data_dir().join("control.sock")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.contains("main"), "{page}");
        page
    }

    /// Every way on which a canary has come out.
    fn escaped(&mut self) -> Vec<String> {
        let log = self.host.supervisor_log();
        self.out.push(("the supervisor's log".into(), log));
        let of = |(way, said): &(String, String)| sings(said).map(|bird| format!("{way}: {bird}"));
        self.out.iter().filter_map(of).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The whole configuration of a bot, with all that OpenClaw keeps in one.
fn configuration(token: &str) -> String {
    let bird = canary;
    format!(
        r#"{{
  gateway: {{ mode: "local", bind: "loopback", auth: {{ mode: "token", token: "{token}" }} }},
  channels: {{
    telegram: {{ enabled: false, botToken: "{}" }},
    discord: {{ enabled: false, token: "{}" }},
    slack: {{ enabled: false, appToken: "{}", botToken: "{}", signingSecret: "{}" }},
  }},
  models: {{ providers: {{ acme: {{ baseUrl: "http://127.0.0.1:1", apiKey: "{}", headers: {{ "x-own": "{}" }} }} }} }},
  hooks: {{ enabled: false, token: "{}" }},
  env: {{ vars: {{ ACME_TOKEN: "{}" }} }},
}}
"#,
        bird("telegram"),
        bird("discord"),
        bird("slack-app"),
        bird("slack-bot"),
        bird("slack-signing"),
        bird("provider"),
        bird("header"),
        bird("hooks"),
        bird("config-env"),
    )
}

/// A fleet whose variables are secrets.
fn fleet(more: &str) -> String {
    format!(
        "version: 1\ninstances:\n  main:\n    runtime: builtin\n    trial: {{ good_after: 100ms }}\n    restart: {{ initial_delay: 0s }}\n\
         \x20   env:\n      ACME_API_KEY: {}\n      HTTP_PROXY: http://me:{}@127.0.0.1:1\n{more}\
         \x20 rescue:\n    runtime: builtin\n    rescues: [main]\n    env: {{ TOKEN_OF_ITS_OWN: {} }}\n",
        canary("fleet-key"),
        canary("fleet-proxy"),
        canary("fleet-inline"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_planted_in_every_input_come_out_of_no_output() {
    let mut mine = Mine::dig().await;
    let watcher = Watcher::start();

    // The fleet file, whole and with mistakes beside its secrets.
    let file = mine.secret("fleet.yaml", &fleet(""));
    let file = file.to_str().unwrap().to_owned();
    mine.done(&["apply", "-f", &file, "--dry-run"]);
    mine.done(&["apply", "-f", &file, "--yes"]);
    for mistake in [
        format!("      OPENCLAW_GATEWAY_TOKEN: {}\n", canary("refused-name")),
        format!("      BOT_TOKEN: [{}]\n", canary("refused-list")),
        format!("    env2: {{ BOT_TOKEN: {} }}\n", canary("refused-field")),
        format!("      BOT_TOKEN: \"{}\n", canary("unended")),
    ] {
        let file = mine.secret("wrong.yaml", &fleet(&mistake));
        for form in ["table", "json"] {
            let code = mine.ctl(&["apply", "-f", file.to_str().unwrap(), "--yes", "-o", form]);
            assert_eq!(code, 3, "{mistake}: {:?}", mine.out.last());
        }
    }
    let changed = fleet("").replace(&canary("fleet-key"), &canary("fleet-key-changed"));
    let changed = mine.secret("changed.yaml", &changed);
    for form in ["table", "json"] {
        mine.done(&["apply", "-f", changed.to_str().unwrap(), "--dry-run", "-o", form]);
    }

    // The configuration: good, then broken in the middle of its secrets, tried, taken back, with an incident.
    fs::write(mine.config("main"), configuration(&canary("gateway"))).unwrap();
    mine.done(&["restart", "main"]);
    let proven = async |mine: &Mine| {
        mine.host
            .wait("main", "proven", |status| {
                let config = status.config.clone().unwrap_or_default();
                status.phase() == Phase::Ready && !config.good.is_empty() && config.good == config.content
            })
            .await
    };
    let good = proven(&mine).await;
    for broken in [
        configuration(&canary("gateway-2")).replace("token: \"", "token: \"\" \""),
        configuration(&canary("gateway-3")).replace("mode: \"local\"", "port: 1"),
        configuration(&canary("gateway-4")).replace("bind: \"loopback\",", "bind: \"loopback\""),
        configuration(&canary("gateway-5")).split_at(150).0.to_owned(),
    ] {
        fs::write(mine.config("main"), &broken).unwrap();
        mine.host
            .wait("main", "seen", |status| {
                status
                    .config
                    .as_ref()
                    .is_some_and(|config| config.content != good.config.as_ref().unwrap().content)
            })
            .await;
        for args in [&["config", "diff", "main"][..], &["status"], &["status", "main"], &["doctor"]] {
            mine.ctl(args);
            mine.ctl(&[args, &["-o", "json"]].concat());
        }
        kill_9(mine.host.status("main").await.pid);
        mine.host.wait_ready("main").await;
        mine.host
            .wait("main", "back on what was good", |status| {
                status.phase() == Phase::Ready && status.config.as_ref().is_some_and(|config| config.degraded)
            })
            .await;
        fs::write(mine.config("main"), configuration(&canary("gateway"))).unwrap();
        mine.done(&["restart", "main"]);
        proven(&mine).await;
    }

    // Credentials of a new instance, by file and by standard input.
    let keys = mine.secret("keys.env", &format!("OPENAI_API_KEY={}\n", canary("credentials")));
    mine.done(&["setup", "keys", "--credentials", keys.to_str().unwrap()]);
    let given = format!("ACME_PASSWORD={}\n", canary("stdin"));
    assert_eq!(mine.ctl_given(&["setup", "more", "--credentials", "-"], &given), 3);
    let given = format!("no name {}\n", canary("no-name"));
    assert_ne!(mine.ctl_given(&["setup", "even", "--credentials", "-"], &given), 0);
    mine.ctl(&["up", "keys"]);

    // A profile, imported, given back.
    let state = mine.at("home/.openclaw-work");
    fs::create_dir_all(&state).unwrap();
    let port = mine.host.first_port + 200;
    let imported = configuration(&canary("imported"))
        .replace("mode: \"local\"", &format!("mode: \"local\", port: {port}"));
    mine.secret("home/.openclaw-work/openclaw.json", &imported);
    let unit = format!(
        "[Service]\nExecStart=openclaw gateway run\nEnvironment=OPENCLAW_PROFILE=work\nEnvironment=WORK_API_KEY={}\n",
        canary("unit")
    );
    mine.secret("home/.config/systemd/user/openclaw-gateway-work.service", &unit);
    mine.ctl(&["import"]);
    mine.done(&["import", "work", "--yes"]);
    mine.ask_everything();
    mine.done(&["import", "--undo", "work", "--yes"]);

    // What is exported says what is withheld, and changes nothing when it comes back.
    mine.done(&["export"]);
    let exported = mine.out.last().unwrap().1.clone();
    assert!(exported.contains("ACME_API_KEY: (withheld)"), "{exported}");
    let exported = mine.secret("exported.yaml", &exported);
    mine.done(&["apply", "-f", exported.to_str().unwrap(), "--dry-run", "-o", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&mine.out.last().unwrap().1).unwrap();
    let changes = plan["changes"].as_array().unwrap();
    assert!(changes.iter().all(|change| change["kind"] == "KIND_UNCHANGED"), "{plan:#}");

    // Another version that does not come, and one that declines.
    mine.ctl(&["upgrade", "main", "--to", "9.9.9", "--from", "/nowhere", "--yes"]);
    let declines = mine.at("9.9.9/openclaw");
    fs::create_dir_all(declines.parent().unwrap()).unwrap();
    fs::write(&declines, "#!/bin/sh\ncat \"$OPENCLAW_CONFIG_PATH\" >&2\nenv >&2\nexit 1\n").unwrap();
    fs::set_permissions(&declines, Permissions::from_mode(0o755)).unwrap();
    mine.ctl(&["upgrade", "keys", "--to", "9.9.9", "--from", declines.to_str().unwrap(), "--yes"]);

    // Certificates and tokens.
    mine.done(&["cert", "init"]);
    mine.done(&["cert", "issue", "laptop", "--role", "viewer"]);
    let token = mine.at("deploy.token");
    mine.ctl(&["--token-file", token.to_str().unwrap(), "status"]);
    mine.ctl(&["supervisor", "reload"]);
    let settings = mine.host.data_dir().join("settings.yaml");
    let whole = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{whole}- {{token: {}, role: admin}}\n", canary("inline-token"))).unwrap();
    assert_ne!(mine.ctl(&["supervisor", "reload"]), 0);
    let refused = mine.host.supervisor_command().output().unwrap();
    mine.out.push(("a supervisor with wrong settings".into(), String::from_utf8(refused.stderr).unwrap()));
    fs::write(&settings, whole).unwrap();

    mine.ask_everything();
    let keys: Vec<String> = [mine.host.data_dir().join("pki/ca.key"), mine.at("home/laptop/client.key")]
        .iter()
        .map(|path| fs::read_to_string(path).unwrap().lines().nth(1).unwrap().to_owned())
        .collect();
    let shown = mine.out.iter().find(|(_, said)| keys.iter().any(|key| said.contains(key)));
    assert_eq!(shown.map(|(way, _)| way), None);

    // The end of one supervisor, and the next.
    let environment = |pid: i32| {
        let text = fs::read(format!("/proc/{pid}/environ")).unwrap();
        String::from_utf8_lossy(&text)
            .split('\0')
            .filter_map(sings)
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    let own: BTreeSet<String> = [format!("{}@127.0.0.1:1", canary("proxy")), canary("inherited")].into();
    // Nobody else looks into a supervisor.
    if geteuid().is_root() {
        assert_eq!(environment(mine.host.supervisor_pid()), own, "what it was started with, and no more");
    }
    let worker = mine.host.status("main").await.worker_pid;
    assert_eq!(environment(worker), BTreeSet::new(), "a worker needs none");
    mine.host.kill_supervisor();
    mine.start().await;
    mine.host.wait_ready("main").await;
    mine.ask_everything();

    assert_eq!(mine.escaped(), [""; 0]);
    assert_eq!(watcher.heard(), BTreeSet::new(), "in command lines");
    assert_eq!(open_files_with_canaries(&mine.host.data_dir()), [""; 0]);
}

/// Files with canaries that others could get at.
fn open_files_with_canaries(data_dir: &Path) -> Vec<String> {
    let mut open = Vec::new();
    let mut places = vec![data_dir.to_owned()];
    while let Some(place) = places.pop() {
        let found = fs::symlink_metadata(&place).unwrap();
        if found.is_dir() && found.mode() & 0o077 == 0 || place == data_dir {
            places.extend(fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
        } else if found.is_dir() {
            open.push(format!("{}: mode {:o}", place.display(), found.mode()));
        } else if found.is_file() && found.mode() & 0o077 != 0 {
            let text = fs::read(&place).unwrap();
            open.extend(
                sings(&String::from_utf8_lossy(&text)).map(|bird| format!("{}: {bird}", place.display())),
            );
        }
    }
    open
}
