//! Specs: reading, merging, refusing, and what they come to.

use std::time::Duration;

use proptest::prelude::*;
use supervisor_core::{
    policy::{self, Threshold},
    ports::Block,
};

use super::*;
use crate::yaml;

fn read(text: &str) -> InstanceSpec {
    yaml::parse(text).unwrap().read().unwrap()
}

fn violations(text: &str) -> Vec<String> {
    read(text).validate().iter().map(ToString::to_string).collect()
}

fn block() -> Block {
    Block::at(18_789).unwrap()
}

#[test]
fn an_empty_spec_is_valid_and_stored_as_nothing() {
    let spec = InstanceSpec::default();
    assert_eq!(spec.validate(), []);
    assert_eq!(serde_json::to_string(&spec).unwrap(), "{}");
}

#[test]
fn durations_and_sizes_are_written_with_units() {
    let spec = read("stop_grace: 330s\nrestart: {max_delay: 10m}\nlog: {max_file_bytes: 16MiB}\n");
    assert_eq!(spec.stop_grace, Some(Span::secs(330)));
    assert_eq!(
        serde_json::to_string(&spec).unwrap(),
        r#"{"restart":{"max_delay":"10m"},"stop_grace":"5m30s","log":{"max_file_bytes":"16MiB"}}"#
    );
    let fault = yaml::parse("stop_grace: 330\n").unwrap().read::<InstanceSpec>().unwrap_err();
    assert_eq!(fault.to_string(), "330 has no unit; write `330s` or `330ms`");
}

#[test]
fn a_rescue_by_name_alone_rescues_main() {
    let of = |name| InstanceSpec::default_for(&Name::new(name).unwrap());
    assert_eq!(of("rescue").rescues, [Name::new("main").unwrap()]);
    assert_eq!(of("main"), InstanceSpec::default());
}

#[test]
fn openclaw_gets_time_and_few_restarts() {
    let policy = InstanceSpec::default().policy(Kind::Openclaw);
    assert_eq!(policy.stop_grace, Duration::from_secs(330));
    assert_eq!(policy.restart.initial_delay, Duration::from_secs(1));
    assert_eq!(policy.restart.multiplier_permille, 20_000);
    assert_eq!(policy.restart.max_delay, Duration::from_secs(330));
    assert_eq!(policy.restart.fatal_codes, [78]);
    assert_eq!(policy.health.startup, policy::Startup::Probe);
    assert_eq!(policy.health.startup_deadline, Duration::from_secs(120));
    assert_eq!(policy.health.startup_cap, Duration::from_secs(900));
    let plan = InstanceSpec::default().probe_plan(Kind::Openclaw, block());
    assert_eq!(plan.startup, Some(Target::Openclaw { port: 18_789 }));
    assert_eq!(plan.liveness, plan.readiness);
}

#[test]
fn the_built_in_gateway_says_itself_when_it_is_ready() {
    let policy = InstanceSpec::default().policy(Kind::Builtin);
    assert_eq!(policy.stop_grace, Duration::from_secs(10));
    assert_eq!(policy.restart.initial_delay, Duration::from_millis(100));
    assert_eq!(policy.health.startup, policy::Startup::Notify);
    assert_eq!(policy.restart.fatal_codes, [78]);
    assert_eq!(InstanceSpec::default().probe_plan(Kind::Builtin, block()).startup, None);
}

#[test]
fn a_command_is_only_watched_if_a_probe_is_given() {
    let bare = read("runtime: command\nprogram: nc\n");
    assert_eq!(bare.validate(), []);
    let policy = bare.policy(Kind::Command);
    assert_eq!(policy.health.startup, policy::Startup::AtOnce);
    assert_eq!(policy.health.watch, None);

    let probed = read(
        "runtime: command\nprogram: nc\nprobes:\n  startup: {check: tcp, port_offset: 2, timeout: 1s}\n  \
         liveness: {check: http, path: /up, interval: 1s, failures: 2}\n",
    );
    let policy = probed.policy(Kind::Command);
    assert_eq!(policy.health.startup, policy::Startup::Probe);
    let watch = policy.health.watch.unwrap();
    assert_eq!((watch.interval, watch.timeout), (Duration::from_secs(1), Duration::from_secs(5)));
    assert_eq!((watch.live, watch.ready), (Threshold::in_a_row(2), Threshold::NEVER));
    let plan = probed.probe_plan(Kind::Command, block());
    assert_eq!(plan.startup, Some(Target::Tcp { port: 18_791 }));
    assert_eq!(plan.startup_timeout, Duration::from_secs(1));
    assert_eq!(plan.liveness, Some(Target::Http { port: 18_789, path: "/up".into() }));
    assert_eq!(plan.readiness, None);
}

#[test]
fn one_bound_asked_for_moves_the_default_of_the_other() {
    let policy = read("restart: {initial_delay: 5m}\nprobes: {startup: {cap: 10s}}\n").policy(Kind::Builtin);
    assert_eq!(policy.restart.max_delay, Duration::from_secs(300));
    assert_eq!(policy.health.startup_deadline, Duration::from_secs(10));
    assert_eq!(
        read("restart: {max_delay: 0s}\n").policy(Kind::Builtin).restart.initial_delay,
        Duration::ZERO
    );
}

#[test]
fn what_a_spec_may_not_ask_for_is_named_with_its_mend() {
    for (text, path) in [
        ("runtime: command\n", "program"),
        ("runtime: builtin\nprogram: x\n", "program"),
        ("runtime: command\nprogram: bin/x\n", "program"),
        ("args: [x]\n", "args"),
        ("env: {1A: x}\n", "env.1A"),
        ("env: {OPENCLAW_STATE_DIR: x}\n", "env.OPENCLAW_STATE_DIR"),
        ("env: {HOME: x}\n", "env.HOME"),
        ("env: {RESCUE_PRIMARY: x}\n", "env.RESCUE_PRIMARY"),
        ("port: 80\n", "port"),
        ("port: 65530\n", "port"),
        ("profile: {}\n", "profile.state_dir"),
        ("profile: {state_dir: x}\n", "profile.state_dir"),
        ("profile: {state_dir: /a, workspace: /a/../b}\n", "profile.workspace"),
        ("rescues: [a, b, a]\n", "rescues[2]"),
        ("restart: {budget: 0}\n", "restart.budget"),
        ("restart: {multiplier_permille: 2}\n", "restart.multiplier_permille"),
        ("restart: {initial_delay: 2m, max_delay: 1m}\n", "restart.max_delay"),
        ("restart: {window: 90d}\n", "restart.window"),
        ("stop_grace: 2h\n", "stop_grace"),
        ("probes: {liveness: {check: notify}}\n", "probes.liveness.check"),
        ("probes: {liveness: {failures: 0}}\n", "probes.liveness.failures"),
        ("probes: {liveness: {deadline: 5s}}\n", "probes.liveness.deadline"),
        ("probes: {startup: {failures: 3}}\n", "probes.startup.failures"),
        ("probes: {startup: {of: 3}}\n", "probes.startup.of"),
        ("probes: {liveness: {of: 65}}\n", "probes.liveness.of"),
        ("probes: {liveness: {failures: 5, of: 4}}\n", "probes.liveness.of"),
        ("probes: {readiness: {of: 2}}\n", "probes.readiness.of"),
        ("probes: {startup: {port_offset: 20}}\n", "probes.startup.port_offset"),
        ("probes: {readiness: {path: up}}\n", "probes.readiness.path"),
        ("log: {max_files: 1}\n", "log.max_files"),
    ] {
        let found = violations(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].starts_with(&format!("`{path}`: ")), "{text}: {found:?}");
    }
}

#[test]
fn defaults_fill_in_what_is_left_out_and_nothing_else() {
    let defaults =
        read("stop_grace: 30s\nenv: {A: '1', B: '2'}\nrestart: {budget: 5, window: 1m}\nargs: [x]\n");
    let merged = read("env: {B: '3'}\nrestart: {budget: 7}\n").merged(&defaults);
    assert_eq!(
        merged,
        read("stop_grace: 30s\nenv: {A: '1', B: '3'}\nrestart: {budget: 7, window: 1m}\nargs: [x]\n")
    );
}

#[test]
fn a_version_is_pinned_instead_of_a_program() {
    let defaults = read("program: /opt/openclaw\n");
    let merged = read("version: 2026.9.6\n").merged(&defaults);
    assert_eq!((merged.program.as_deref(), merged.version.as_deref()), (None, Some("2026.9.6")));
    assert_eq!(merged.validate(), []);
    let merged = read("program: /opt/mine\n").merged(&read("version: 2026.9.6\n"));
    assert_eq!((merged.program.as_deref(), merged.version.as_deref()), (Some("/opt/mine"), None));
    for (text, found) in [
        ("version: 2026.9.6\nprogram: /opt/openclaw\n", "`program` says already what runs"),
        ("version: 2026.9.6\nruntime: builtin\n", "only versions of OpenClaw are kept side by side"),
        ("version: ../other\n", "`../other` is not a version"),
        ("version: ''\n", "`` is not a version"),
    ] {
        assert!(violations(text).iter().any(|one| one.contains(found)), "{text}: {:?}", violations(text));
    }
}

proptest! {
    #[test]
    fn a_spec_survives_json_and_yaml(spec in arbitrary::spec()) {
        let json = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(&serde_json::from_str::<InstanceSpec>(&json).unwrap(), &spec);
        let text = serde_yaml::to_string(&spec).unwrap();
        let tree = yaml::parse(&text).map_err(|fault| TestCaseError::fail(format!("{fault}\n{text}")))?;
        let read = tree.read::<InstanceSpec>().map_err(|fault| TestCaseError::fail(format!("{fault}\n{text}")))?;
        prop_assert_eq!(read, spec, "{}", text);
    }

    #[test]
    fn merging_with_itself_or_with_nothing_changes_nothing(spec in arbitrary::spec()) {
        prop_assert_eq!(&spec.merged(&spec), &spec);
        prop_assert_eq!(&spec.merged(&InstanceSpec::default()), &spec);
        prop_assert_eq!(&InstanceSpec::default().merged(&spec), &spec);
    }

    #[test]
    fn every_policy_is_consistent(spec in arbitrary::spec()) {
        for kind in [Kind::Openclaw, Kind::Builtin, Kind::Command] {
            let policy = spec.policy(kind);
            if spec.validate().is_empty() {
                prop_assert!(policy.restart.initial_delay <= policy.restart.max_delay);
                prop_assert!(policy.health.startup_deadline <= policy.health.startup_cap);
            }
            let watched = spec.watched(kind).is_some();
            let plan = spec.probe_plan(kind, block());
            prop_assert_eq!(watched, plan.liveness.is_some() || plan.readiness.is_some());
        }
    }
}
