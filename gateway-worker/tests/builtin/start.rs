//! What it takes to start, and how a start that fails says why.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use crate::support::{Gateway, Home, config, eventually};

/// Runs a gateway that ends by itself, and returns its exit code and what it said on stderr.
fn ended(home: &Home, change: impl Fn(&mut Command) -> &mut Command) -> (Option<i32>, String) {
    let mut command = home.command();
    let mut child = change(&mut command).spawn().unwrap();
    let status = eventually("the gateway exits", || child.try_wait().unwrap());
    assert_eq!(home.out(), "", "nothing went as it should");
    (status.code(), home.err())
}

#[test]
fn a_broken_configuration_is_named_with_its_place_and_exits_with_78() {
    for (text, place, fault) in [
        ("{\n  gateway: {\n", "2:12", "unterminated object"),
        ("{\n  gateway: { port: 'x' }\n}", "2:20", "`gateway.port` must be a number"),
        ("{\n  gateway: { port: 99999 }\n}", "2:20", "`gateway.port` must be a whole number"),
        ("{\n  gateway: {\n    auth: { mode: 'token' }\n  }\n}", "3:11", "no usable auth"),
        ("", "1:1", "the file is empty"),
        ("{ gateway: { mode: 'remote' } }", "1:20", "`gateway.mode` must be \"local\""),
    ] {
        let home = Home::new(text);
        let (code, said) = ended(&home, |command| command);
        assert_eq!(code, Some(78), "{text}: {said}");
        assert!(said.contains(&format!("{}:{place}: ", home.config().display())), "{text}: {said}");
        assert!(said.contains(fault), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_fault_beside_the_token_does_not_show_the_token() {
    let home = Home::new("{ gateway: { auth: { token: 'a-secret' 'x' } } }");
    let (code, said) = ended(&home, |command| command);
    assert_eq!(code, Some(78));
    assert!(!said.contains("a-secret"), "{said}");
}

#[test]
fn a_missing_configuration_is_named_and_exits_with_78() {
    let home = Home::new("");
    let missing = home.path("missing.json");
    let (code, said) = ended(&home, |command| command.env("OPENCLAW_CONFIG_PATH", &missing));
    assert_eq!(code, Some(78));
    assert!(said.contains(missing.to_str().unwrap()) && said.contains("No such file"), "{said}");
}

#[test]
fn a_busy_port_is_named_and_exits_with_1() {
    let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = squatter.local_addr().unwrap().port();
    let (code, said) = ended(&Home::new(&config(port)), |command| command);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("port {port} is already in use on 127.0.0.1")), "{said}");
}

#[test]
fn wrong_usage_exits_with_1() {
    let (code, said) = ended(&Home::new(&config(1)), |command| command.arg("--force"));
    assert_eq!(code, Some(1));
    assert!(said.contains("unknown argument `--force`"), "{said}");
}

#[test]
fn the_flag_beats_the_environment_beats_the_file() {
    // What cannot be had is named, which shows what was asked for.
    let held = [0; 3].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let [file, variable, flag] = held.each_ref().map(|held| held.local_addr().unwrap().port());
    let home = Home::new(&config(file));
    let variable_text = variable.to_string();
    let from_file = ended(&home, |command| command);
    let from_variable = ended(&home, |command| command.env("OPENCLAW_GATEWAY_PORT", &variable_text));
    let from_flag = ended(&home, |command| {
        command.env("OPENCLAW_GATEWAY_PORT", &variable_text).arg(format!("--port={flag}"))
    });
    for ((_, said), port) in [(from_file, file), (from_variable, variable), (from_flag, flag)] {
        assert!(said.contains(&format!("port {port} is already in use")), "{said}");
    }
}

/// JSON5, with much that this gateway has no use for.
const SHARED: &str = r#"// Both read this.
{
  agents: { defaults: { workspace: '~/w' } },
  channels: { telegram: { enabled: true, botToken: 'x' } },
  models: {}, browser: { profiles: { a: { cdpPort: 0x7D00 } } },
  gateway: {
    mode: 'local', port: PORT, bind: 'loopback',
    auth: { mode: 'token', token: 'x', },
    controlUi: { enabled: false }, reload: { mode: 'off' },
  },
}
"#;

#[test]
fn a_configuration_shared_with_the_real_openclaw_is_accepted() {
    let gateway = Gateway::start_with(|port| SHARED.replace("PORT", &port.to_string()));
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn a_successor_serves_the_port_of_one_that_was_killed() {
    let gateway = Gateway::start();
    let (port, mut home) = (gateway.port, gateway.crash());
    for _ in 0..5 {
        let successor = Gateway::try_start(home, port).expect("its port is free after its death");
        assert_eq!(successor.get("/readyz").status, 200);
        home = successor.crash();
    }
}

#[test]
fn the_version_is_printed() {
    let output = Command::new(env!("CARGO_BIN_EXE_builtin-gateway")).arg("--version").output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), concat!(env!("CARGO_PKG_VERSION"), "-builtin\n"));
}
