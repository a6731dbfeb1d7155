//! What those may do who call from inside an instance: real gateways, real agents in them, and the real command line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use supervisor_proto::v1::{
    InstanceSpec, LadderPolicy, Phase, RescuePolicy, Role, TrialPolicy,
    rescue_policy::{Failback, OnPrimaryDeath},
};
use support::{Host, builtin, kill_9, program, shell, until};

/// A gateway that runs whatever script is put into a directory: an agent in the hands of a test.
struct Agent {
    orders: PathBuf,
    next: Cell<u32>,
}

/// What became of a script.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Agent {
    fn new(host: &Host, name: &str) -> Self {
        let orders = host.directory.path().join(format!("orders-{name}"));
        fs::create_dir(&orders).unwrap();
        Self { orders, next: Cell::new(0) }
    }

    fn spec(&self) -> InstanceSpec {
        let directory = self.orders.display();
        // The order is taken away first, so that one that restarts the agent is not carried out again.
        shell(&format!(
            "cd {directory} || exit; while :; do for o in *.order; do [ -e \"$o\" ] || continue; n=${{o%.order}}; \
             mv \"$o\" $n.sh; (sh ./$n.sh >$n.out 2>$n.err; echo $? >$n.tmp; mv $n.tmp $n.status) & done; \
             sleep 0.05; done"
        ))
    }

    fn rescues(&self, primary: &str) -> InstanceSpec {
        let rescue = RescuePolicy {
            on_primary_death: OnPrimaryDeath::Restart.into(),
            failback: Failback::Manual.into(),
            ..Default::default()
        };
        InstanceSpec { rescues: vec![primary.into()], rescue: Some(rescue), ..self.spec() }
    }

    /// Runs `script` inside the instance.
    async fn run(&self, script: &str) -> Ran {
        let number = self.next.replace(self.next.get() + 1);
        let at = |kind: &str| self.orders.join(format!("{number}.{kind}"));
        fs::write(at("new"), script).unwrap();
        fs::rename(at("new"), at("order")).unwrap();
        let status = until(script, async || fs::read_to_string(at("status")).ok()).await;
        let read = |kind: &str| fs::read_to_string(at(kind)).unwrap();
        Ran { status: status.trim().parse().unwrap(), out: read("out"), err: read("err") }
    }

    /// The same of one that must do what it says.
    async fn done(&self, script: &str) -> String {
        let ran = self.run(script).await;
        assert_eq!(ran.status, 0, "{script}: {ran:?}");
        ran.out
    }

    /// The same of one that must be refused.
    async fn refused(&self, script: &str, who: &str) {
        let ran = self.run(script).await;
        assert_eq!(ran.status, 7, "{script}: {ran:?}");
        assert!(ran.err.contains(&format!("from inside `{who}`")), "{script}: {ran:?}");
    }
}

/// The command line outside all instances.
fn ctl(host: &Host, args: &[&str]) -> Output {
    Command::new(program("openclawctl")).arg("--data-dir").arg(host.data_dir()).args(args).output().unwrap()
}

fn done(host: &Host, args: &[&str]) -> String {
    let output = ctl(host, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A gateway whose configuration has soon proven good, and which the supervisor leaves to its rescue.
fn left_alone() -> InstanceSpec {
    let soon = prost_types::Duration { seconds: 0, nanos: 100_000_000 };
    InstanceSpec {
        trial: Some(TrialPolicy { good_after: Some(soon), ..Default::default() }),
        ladder: Some(LadderPolicy { roll_back: Some(false), ..Default::default() }),
        ..builtin()
    }
}

async fn proven(host: &Host) {
    host.create("main", left_alone()).await;
    host.up("main").await;
    host.wait("main", "proven", |status| {
        let config = status.config.clone().unwrap_or_default();
        !config.good.is_empty() && config.good == config.running
    })
    .await;
}

fn config(host: &Host) -> PathBuf {
    host.data_dir().join("instances/main/state/openclaw.json")
}

fn commands(incident_file: &Path) -> Vec<String> {
    let told: serde_json::Value = serde_json::from_str(&fs::read_to_string(incident_file).unwrap()).unwrap();
    let commands = told["incidents"][0]["commands"].as_array().unwrap();
    commands.iter().map(|command| command["run"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_rescue_mends_main_with_the_very_commands_of_its_incident_file() {
    let host = Host::start().await;
    proven(&host).await;
    let good = fs::read_to_string(config(&host)).unwrap();
    let rescue = Agent::new(&host, "rescue");
    host.create("rescue", rescue.rescues("main")).await;
    host.up("rescue").await;
    host.create("other", builtin()).await;
    fs::write(config(&host), "{ broken").unwrap();
    kill_9(host.status("main").await.pid);
    host.wait_role("rescue", Role::Active).await;
    host.wait("main", "down for good", |status| status.phase() == Phase::Failed).await;

    let file = rescue.done("echo $RESCUE_INCIDENT_FILE").await;
    let commands = commands(Path::new(file.trim()));
    let told: Vec<&str> = commands.iter().filter_map(|command| command.split(' ').nth(1)).collect();
    assert_eq!(told, ["incident", "status", "logs", "config", "config", "config", "restart"]);
    for command in &commands {
        rescue.done(command).await;
    }
    assert_eq!(fs::read_to_string(config(&host)).unwrap(), good);
    host.wait_ready("main").await;
    // It is told who did it.
    host.wait_event("the wish", |event| {
        event.instance == "main" && event.message == "`rescue` wants it restarted"
    })
    .await;

    let fleet = rescue.done("openclawctl status").await;
    assert!(fleet.contains("\nmain ") && fleet.contains("\nrescue "), "{fleet}");
    assert!(!fleet.contains("other"), "{fleet}");
    let incidents = rescue.done("openclawctl incidents").await;
    assert!(incidents.contains("main"), "{incidents}");
    let audit = done(&host, &["audit"]);
    let did = |call: &str| {
        audit.lines().any(|line| ["inside rescue", call, "done"].iter().all(|word| line.contains(word)))
    };
    assert!(did("RollBack") && did("RestartInstance"), "{audit}");
}

#[tokio::test]
async fn what_is_asked_inside_again_and_again_is_a_line_of_the_audit_and_does_not_fill_the_log() {
    let host = Host::start().await;
    let lab = Agent::new(&host, "lab");
    host.create("main", builtin()).await;
    host.create("lab", lab.spec()).await;
    host.up("lab").await;
    let restart = format!("{} restart main", program("openclawctl").display());
    lab.refused(&restart, "lab").await;
    let before = host.supervisor_log().lines().count();
    for _ in 0..20 {
        lab.refused(&restart, "lab").await;
    }
    let log = host.supervisor_log();
    assert!(log.lines().count() < before + 10, "{log}");
    until("the audit counts them", async || {
        done(&host, &["audit"]).contains("INSIDE_INSTANCE ×21").then_some(())
    })
    .await;
}

#[tokio::test]
async fn all_else_is_refused_inside_however_the_caller_is_disguised() {
    let mut host = Host::start().await;
    let rescue = Agent::new(&host, "rescue");
    host.create("main", builtin()).await;
    host.create("rescue", rescue.rescues("main")).await;
    host.create("other", builtin()).await;
    for name in ["main", "rescue", "other"] {
        host.up(name).await;
    }
    let ctl = format!("{} --data-dir {}", program("openclawctl").display(), host.data_dir().display());
    for command in [
        "down main",
        "down rescue",
        "restart rescue",
        "restart other",
        "rm main --yes",
        "env main",
        "env rescue",
        "status other",
        "logs other",
        "config diff other",
        "config snapshots rescue",
        "events --instance other",
        "failover --from main",
        "failback --from main",
        "run main -- true",
        "export",
        "ports",
        "doctor",
        "supervisor stop",
        "up new",
    ] {
        rescue.refused(&format!("{ctl} {command}"), "rescue").await;
    }
    let false_mark = format!("env OPENCLAWCTL_MARK={} {ctl} down main", host.mark("other"));
    for disguised in [
        format!("env -i {ctl} down main"),
        format!("setsid -w env -i {ctl} down main"),
        false_mark,
        // Its parent has ended, and it is its worker's child.
        format!(
            "rm -f ended; (while [ -e /proc/$$ ]; do sleep 0.01; done; setsid -w env -i {ctl} down main 2>err; \
             echo $? >code; mv code ended) & exit 0"
        ),
    ] {
        if disguised.ends_with("exit 0") {
            rescue.done(&disguised).await;
            let ended = || fs::read_to_string(rescue.orders.join("ended")).ok();
            let status = until("the orphan has been answered", async || ended()).await;
            let said = fs::read_to_string(rescue.orders.join("err")).unwrap();
            assert_eq!(status.trim(), "7", "{said}");
            assert!(said.contains("from inside `rescue`"), "{said}");
        } else {
            rescue.refused(&disguised, "rescue").await;
        }
    }
    // The next supervisor knows it, too.
    host.kill_supervisor();
    host.start_supervisor().await;
    rescue.refused(&format!("env -i {ctl} down main"), "rescue").await;
    assert_eq!(host.status("main").await.phase(), Phase::Ready);
}

#[tokio::test]
async fn an_instance_that_rescues_nobody_sees_itself_alone() {
    let host = Host::start().await;
    let lab = Agent::new(&host, "lab");
    host.create("lab", lab.spec()).await;
    host.create("main", builtin()).await;
    host.up("lab").await;
    let fleet = lab.done("openclawctl status").await;
    assert!(fleet.contains("\nlab ") && !fleet.contains("main"), "{fleet}");
    for command in ["status lab", "logs lab -n 5", "events --instance lab", "incidents", "version"] {
        lab.done(&format!("openclawctl {command}")).await;
    }
    for command in ["restart lab", "down lab", "status main", "restart main", "up main"] {
        lab.refused(&format!("openclawctl {command}"), "lab").await;
    }
}

#[tokio::test]
async fn an_agent_that_finds_no_supervisor_cannot_start_one_inside_its_instance() {
    let mut host = Host::start().await;
    let lab = Agent::new(&host, "lab");
    host.create("lab", lab.spec()).await;
    host.up("lab").await;
    host.kill_supervisor();
    let data_dir = host.data_dir();
    let daemon = program("openclaw-supervisor");
    let ran = lab.run(&format!("env -i {} --data-dir {}", daemon.display(), data_dir.display())).await;
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.err.contains("refused to start inside `lab`"), "{ran:?}");
    host.start_supervisor().await;
    assert_eq!(host.status("lab").await.phase(), Phase::Ready);
}

#[tokio::test]
async fn what_an_operator_runs_outside_the_walls_is_not_inside_the_instance() {
    let host = Host::start().await;
    let rescue = Agent::new(&host, "rescue");
    host.create("main", builtin()).await;
    host.create("rescue", rescue.rescues("main")).await;
    host.create("other", builtin()).await;
    for name in ["main", "rescue", "other"] {
        host.up(name).await;
    }
    let fleet = done(&host, &["run", "--outside", "rescue", "--", "openclawctl", "status"]);
    assert!(fleet.contains("\nother "), "{fleet}");
    done(&host, &["run", "--outside", "rescue", "--", "openclawctl", "restart", "other"]);
}
