//! Environments, commands run in them, ports, completion, manual and version.

use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use prost::Message;
use supervisor_proto::{
    v1::{EnterInstanceResponse, GetInstanceEnvironmentResponse, HostUser, InstancePorts, Phase, PortUse},
    worker::{self, Launch, Walls},
};

use crate::{
    ctl::{ctl, finish, program},
    fake::{Fake, instance},
};

const NASTY: &str = "it's $(reboot) `x` \"q\"\nsecond line \\ ~ * end";

fn with_environment(variables: &[(&str, &str)], directory: &Path) -> Fake {
    let fake = Fake::start();
    fake.with([instance("rescue", Phase::Ready, 19_789)]);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    fake.world().environment = GetInstanceEnvironmentResponse {
        variables: variables.iter().map(owned).collect::<HashMap<_, _>>(),
        withheld: vec!["OPENCLAW_GATEWAY_TOKEN".into()],
        working_directory: directory.display().to_string(),
        user: None,
    };
    fake
}

#[test]
fn a_shell_that_evaluates_env_gets_exactly_the_values() {
    let fake = with_environment(&[("NASTY", NASTY), ("OPENCLAW_STATE_DIR", "/a/b")], Path::new("/"));
    let text = fake.ctl(&["env", "rescue"]).done();
    assert!(text.contains("# OPENCLAW_GATEWAY_TOKEN is set, and its value withheld\n"), "{text}");
    assert!(text.ends_with("export OPENCLAW_STATE_DIR=/a/b\n"), "{text}");
    let script = format!("{text}\nprintf %s \"$NASTY\"");
    let output = Command::new("/bin/sh").args(["-c", &script]).env_clear().output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), NASTY);
}

#[test]
fn run_outside_gives_the_command_the_instance_s_environment_and_directory_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    let fake = with_environment(&[("NASTY", NASTY), ("PATH", "/usr/bin:/bin")], &directory);
    let script = "pwd; echo \"$TERM\"; printf '%s' \"$NASTY\" | cksum; env | grep -c OPENCLAWCTL";
    let mut command = fake.command(&["run", "--outside", "rescue", "--", "sh", "-c", script]);
    command.env("TERM", "vt100").env("SECRET", "of this shell");
    let ran = finish(command);
    assert_eq!(ran.code, Some(1), "the command's own exit code: {ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], directory.to_str().unwrap());
    assert_eq!(lines[1], "vt100");
    assert_eq!(lines[3], "0");
    assert_eq!(ran.err, "without OPENCLAW_GATEWAY_TOKEN: withheld\n");
}

#[test]
fn run_outside_passes_the_exit_code_and_the_signal_through() {
    let fake = with_environment(&[("PATH", "/usr/bin:/bin")], Path::new("/"));
    assert_eq!(fake.ctl(&["run", "--outside", "rescue", "--", "sh", "-c", "exit 42"]).code, Some(42));
    assert_eq!(fake.ctl(&["run", "--outside", "rescue", "--", "sh", "-c", "kill -9 $$"]).code, None);
}

#[test]
fn run_outside_becomes_the_user_of_the_instance_if_it_can() {
    let fake = with_environment(&[("PATH", "/usr/bin:/bin")], Path::new("/"));
    fake.world().environment.user = Some(HostUser { uid: 54_321, gid: 54_322, groups: vec![54_323] });
    let ran = fake.ctl(&["run", "--outside", "rescue", "--", "sh", "-c", "id -u; id -g; id -G"]);
    let me = nix::unistd::geteuid();
    match me.is_root() {
        true => assert_eq!(ran.out, "54321\n54322\n54322 54323\n", "{ran:?}"),
        // A supervisor that is not root has no say about others.
        false => assert!(ran.code == Some(7) && ran.err.contains("names user 54321"), "{ran:?}"),
    }
}

/// A user that no host has.
const SUPERVISOR: u32 = 54_400;

/// A supervisor of that user, and a directory that all may pass; `None`: nobody else can be listened as.
fn of_another_user() -> Option<(tempfile::TempDir, Fake)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root meets supervisors of others that it could be led by");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let fake = Fake::start_as(directory.path(), SUPERVISOR);
    fake.with([instance("rescue", Phase::Ready, 19_789)]);
    fake.world().environment.variables = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into();
    fake.world().environment.working_directory = "/".into();
    fake.world().entry.working_directory = "/".into();
    Some((directory, fake))
}

#[test]
fn a_supervisor_that_is_not_root_names_nobody_but_itself() {
    let Some((_directory, fake)) = of_another_user() else { return };
    for uid in [0, 54_321] {
        let named = Some(HostUser { uid, gid: uid, groups: vec![uid] });
        fake.world().entry.user = named.clone();
        fake.world().environment.user = named;
        for run in [&["run", "rescue", "--", "id"][..], &["run", "--outside", "rescue", "--", "id"]] {
            let ran = fake.ctl(run);
            assert_eq!((ran.code, ran.out.as_str()), (Some(7), ""), "{run:?}: {ran:?}");
            let sentence =
                format!("is user {SUPERVISOR}'s, who is not root, and names user {uid}: it may name");
            assert!(ran.err.contains(&sentence) && ran.err.contains("hint: see with "), "{run:?}: {ran:?}");
        }
    }
}

#[test]
fn a_shell_takes_no_exports_from_a_supervisor_of_another_user_who_is_not_root() {
    let Some((_directory, fake)) = of_another_user() else { return };
    let ran = fake.ctl(&["env", "rescue"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(7), ""), "{ran:?}");
    assert!(
        ran.err.contains("this user's shell") && ran.err.contains(&format!("run it as user {SUPERVISOR}")),
        "{ran:?}"
    );
    // What is only looked at may be.
    assert!(fake.ctl(&["env", "rescue", "-o", "json"]).done().contains("/usr/bin:/bin"));
}

#[test]
fn outside_root_becomes_the_user_of_the_supervisor_and_is_in_no_group_that_it_only_says() {
    let Some((_directory, fake)) = of_another_user() else { return };
    let script = ["run", "--outside", "rescue", "--", "sh", "-c", "id -u; id -g; id -G"];
    for named in [None, Some(HostUser { uid: SUPERVISOR, gid: 0, groups: vec![0, 54_323] })] {
        fake.world().environment.user = named;
        assert_eq!(fake.ctl(&script).done(), format!("{SUPERVISOR}\n{SUPERVISOR}\n{SUPERVISOR}\n"));
    }
}

#[test]
fn what_builds_the_walls_is_the_user_of_the_supervisor_and_types_into_no_terminal_of_roots() {
    let Some((directory, fake)) = of_another_user() else { return };
    let at = |name: &str| directory.path().join(name);
    // Tells as whom it is run, and what it is told.
    fs::write(at("script"), "#!/bin/sh\nid -u >&2; id -g >&2; id -G >&2; exec cat /proc/self/fd/$3\n")
        .unwrap();
    // Not written by this process: what another test starts meanwhile would hold it open, and it could not be run.
    let install = |from: &Path, to| {
        let status = Command::new("install").args(["-m", "755"]).arg(from).arg(at(to)).status().unwrap();
        assert!(status.success());
    };
    install(Path::new(env!("CARGO_BIN_EXE_openclawctl")), "openclawctl");
    install(&at("script"), "gateway-worker");
    let root = Some(worker::User { uid: 0, gid: 0, groups: vec![0] });
    fake.world().entry.user = Some(HostUser { uid: SUPERVISOR, gid: 0, groups: vec![0] });
    fake.world().entry.walls = Walls { user: root, privileges: false, ..Walls::default() }.encode_to_vec();
    let output =
        program(&at("openclawctl"), directory.path(), &["run", "rescue", "--", "true"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, format!("{SUPERVISOR}\n{SUPERVISOR}\n{SUPERVISOR}\n"));
    let walls = Launch::decode(output.stdout.as_slice()).unwrap().walls.unwrap();
    assert!(walls.user.is_none() && walls.privileges, "{walls:?}");
}

#[test]
fn run_outside_tells_a_missing_program_from_a_missing_directory() {
    let fake = with_environment(&[("PATH", "/usr/bin:/bin")], Path::new("/"));
    let ran = fake.ctl(&["run", "--outside", "rescue", "--", "no-such-program"]);
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.err.contains("failed to run a command as `rescue`: cannot run `no-such-program`: No such file"),
        "{ran:?}"
    );
    fake.world().environment.working_directory = "/nowhere".into();
    let ran = fake.ctl(&["run", "--outside", "rescue", "--", "true"]);
    assert_eq!(ran.code, Some(4));
    assert!(ran.err.contains("cannot enter /nowhere: No such file"), "{ran:?}");
}

#[test]
fn run_needs_an_answer_that_says_whom_it_is_and_where() {
    let fake = with_environment(&[], Path::new("/"));
    let ran = fake.ctl(&["run", "rescue", "--", "true"]);
    assert!(ran.code == Some(1) && ran.err.contains("the answer has no user"), "{ran:?}");
    fake.world().entry = EnterInstanceResponse {
        user: Some(HostUser { uid: 54_321, ..Default::default() }),
        working_directory: "/".into(),
        ..Default::default()
    };
    let me = nix::unistd::geteuid();
    if !me.is_root() {
        let ran = fake.ctl(&["run", "rescue", "--", "true"]);
        assert_eq!(ran.code, Some(7), "{ran:?}");
        assert!(ran.err.contains("names user 54321"), "{ran:?}");
    }
    fake.world().entry.user = Some(HostUser { uid: me.as_raw(), ..Default::default() });
    fake.world().entry.working_directory = "/nowhere".into();
    let ran = fake.ctl(&["run", "rescue", "--", "true"]);
    assert!(ran.code == Some(4) && ran.err.contains("cannot enter /nowhere"), "{ran:?}");
}

#[test]
fn ports_show_who_holds_each_port_and_who_squats() {
    let fake = Fake::start();
    let port = |port, purpose: &str, pid, command: &str, foreign| PortUse {
        port,
        purpose: purpose.into(),
        pid,
        command: command.into(),
        foreign,
    };
    let mut ports = vec![
        port(18_789, "gateway", 4_242, "/opt/bin/builtin-gateway gateway run", false),
        port(18_791, "browser-control", 0, "", false),
        port(18_793, "canvas", 77, "nginx -g daemon", true),
    ];
    ports.extend((18_800..18_809).map(|number| port(number, "cdp", 0, "", false)));
    fake.world().ports = vec![InstancePorts { instance: "main".into(), base: 18_789, last: 18_808, ports }];
    assert_eq!(
        fake.ctl(&["ports"]).done(),
        "\
NAME  BLOCK        PORT         PURPOSE          HELD BY
main  18789-18808  18789        gateway          pid 4242 (builtin-gateway)
                   18791        browser-control  -
                   18793        canvas           pid 77 (nginx), foreign
                   18800-18808  cdp              -

port 18793 of main is held by pid 77 (nginx -g daemon), which is not its own
  hint: end process 77, or give main another `port` in the fleet file
"
    );
}

#[test]
fn names_complete_from_the_supervisor_and_nothing_is_said_without_one() {
    let fake = Fake::start();
    fake.with([instance("rescue", Phase::Ready, 19_789), instance("main", Phase::Ready, 18_789)]);
    let complete = |mut command: Command| {
        command.env("OPENCLAWCTL_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2").env("_CLAP_IFS", "\n");
        let ran = finish(command);
        assert_eq!(ran.err, "");
        ran.done()
    };
    assert_eq!(complete(fake.command(&["--", "openclawctl", "status", "re"])), "rescue");
    let nowhere = tempfile::tempdir().unwrap();
    assert_eq!(complete(ctl(nowhere.path(), &["--", "openclawctl", "status", "re"])), "");
    let socket = fake.data_dir.join("control.sock");
    let mut elsewhere =
        ctl(nowhere.path(), &["--", "openclawctl", "--socket", socket.to_str().unwrap(), "down", "ma"]);
    elsewhere.env("OPENCLAWCTL_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "4").env("_CLAP_IFS", "\n");
    assert_eq!(finish(elsewhere).done(), "main");
}

#[test]
fn the_completion_scripts_are_what_the_shells_read() {
    let nowhere = tempfile::tempdir().unwrap();
    let script = finish(ctl(nowhere.path(), &["completion", "bash"])).done();
    let checked = Command::new("bash").args(["-n", "-c", &script]).status().unwrap();
    assert!(checked.success() && script.contains("OPENCLAWCTL_COMPLETE"));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(finish(ctl(nowhere.path(), &["completion", shell])).done().contains("OPENCLAWCTL_COMPLETE"));
    }
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let directory = tempfile::tempdir().unwrap();
    let page = finish(ctl(directory.path(), &["man"])).done();
    assert!(page.contains(".TH openclawctl 1") && page.contains("Exit codes"), "{page}");
    assert!(page.contains(".SH EXAMPLES") && !page.contains("EXTRA"), "{page}");
    let pages = directory.path().join("man1");
    finish(ctl(directory.path(), &["man", pages.to_str().unwrap()])).done();
    for page in ["openclawctl.1", "openclawctl-up.1", "openclawctl-supervisor-stop.1"] {
        assert!(pages.join(page).is_file(), "{page}");
    }
}

#[test]
fn version_tells_both_versions_and_needs_no_supervisor() {
    let fake = Fake::start();
    let own = env!("CARGO_PKG_VERSION");
    let pid = std::process::id();
    assert_eq!(
        fake.ctl(&["version"]).done(),
        format!("openclawctl          {own}\nopenclaw-supervisor  0.1.0 (pid {pid})\n")
    );
    let nowhere = tempfile::tempdir().unwrap();
    let text = finish(ctl(nowhere.path(), &["version"])).done();
    assert!(text.contains("openclaw-supervisor  - (no supervisor is listening on "), "{text}");
    let json = finish(ctl(nowhere.path(), &["version", "-o", "jsonl"])).done();
    assert_eq!(json, format!("{{\"openclawctl\":\"{own}\",\"supervisor\":null}}\n"));
}

#[test]
fn help_fits_80_columns_and_every_command_shows_examples() {
    let nowhere = tempfile::tempdir().unwrap();
    let help = |args: &[&str]| {
        let text = finish(ctl(nowhere.path(), args)).done();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{args:?}: {text}");
        text
    };
    let alone = help(&[]);
    assert!(alone.contains("Usage: openclawctl"), "{alone}");
    let commands =
        alone.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names.len(), 35, "{names:?}");
    for name in names.into_iter().filter(|name| !["help", "version"].contains(name)) {
        assert!(help(&["help", name]).contains("Examples:\n  "), "{name}");
    }
    help(&["help", "supervisor", "stop"]);
}
