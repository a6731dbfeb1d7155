//! Contexts: several supervisors, by name.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use supervisor_proto::v1::Phase;

use crate::{
    ctl::{Ran, finish},
    fake::{Fake, instance},
};

/// Somebody with a home, and nothing that names a supervisor.
fn person(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openclawctl"));
    command.env_clear().env("HOME", home).env("TZ", "UTC").current_dir(home).args(args);
    command
}

fn run(home: &Path, args: &[&str]) -> Ran {
    finish(person(home, args))
}

fn with(fake: &Fake, name: &str) -> String {
    fake.with([instance(name, Phase::Ready, 18_789)]);
    fake.data_dir.join("control.sock").to_str().unwrap().to_owned()
}

#[test]
fn the_nearest_word_says_which_supervisor() {
    let home = tempfile::tempdir().unwrap();
    let (lab, prod) = (Fake::start(), Fake::start());
    let (lab_socket, prod_socket) = (with(&lab, "guinea-pig"), with(&prod, "main"));
    run(home.path(), &["context", "add", "lab", "--unix", &lab_socket]).done();
    run(home.path(), &["context", "add", "prod", "--unix", &prod_socket]).done();
    let sees = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = person(home.path(), &[args, &["status"]].concat());
        command.envs(variables.iter().copied());
        let out = finish(command).done();
        assert_ne!(out.contains("guinea-pig"), out.contains("main"), "{out}");
        if out.contains("main") { "prod" } else { "lab" }
    };
    assert_eq!(sees(&[], &[]), "lab", "the first one is the current one");
    assert_eq!(sees(&[], &[("OPENCLAWCTL_CONTEXT", "prod")]), "prod");
    assert_eq!(sees(&["--context", "lab"], &[("OPENCLAWCTL_CONTEXT", "prod")]), "lab");
    let both = [("OPENCLAWCTL_CONTEXT", "lab"), ("OPENCLAWCTL_SOCKET", prod_socket.as_str())];
    assert_eq!(sees(&[], &both), "prod", "inside an instance its own supervisor is meant");
    assert_eq!(sees(&["--context", "lab"], &both), "lab");
    let typed = ["--data-dir", lab.data_dir.to_str().unwrap()];
    assert_eq!(sees(&typed, &both), "lab", "what is typed counts more");
    run(home.path(), &["context", "use", "prod"]).done();
    assert_eq!(sees(&[], &[]), "prod");
    run(home.path(), &["context", "rm", "prod"]).done();
    let list = run(home.path(), &["context", "list"]).done();
    assert!(list.contains(&lab_socket) && !list.contains('*'), "{list}");
    let file = home.path().join(".config/openclawctl/contexts.yaml");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn mistakes_are_named_with_their_place_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".config/openclawctl");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("contexts.yaml");
    fs::write(&file, "contexts:\n  lab:\n    unix: /a\n    tpc: box:1\n").unwrap();
    let ran = run(home.path(), &["status"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.err.contains(&format!("{}:4:5: contexts.lab: unknown field `tpc`", file.display())),
        "{ran:?}"
    );

    fs::write(&file, "current: prod\ncontexts: {}\n").unwrap();
    let ran = run(home.path(), &["status"]);
    assert!(ran.code == Some(2) && ran.err.contains("`current` is `prod`"), "{ran:?}");

    fs::write(&file, "contexts:\n  lab: {tcp: \"box:1\", ca: ca.crt, certificate: c.crt, key: c.key}\n")
        .unwrap();
    let ran = run(home.path(), &["--context", "lab", "status"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.contains(&directory.join("ca.crt").display().to_string()), "{ran:?}");
    let ran = run(home.path(), &["--context", "lap", "status"]);
    assert!(ran.code == Some(4) && ran.err.contains("did you mean `lab`?"), "{ran:?}");
    let ran = run(home.path(), &["context", "add", "lab", "--unix", "/b"]);
    assert!(ran.code == Some(3) && ran.err.contains("exists already"), "{ran:?}");
    let ran = run(home.path(), &["context", "add", "../lab", "--unix", "/b"]);
    assert!(ran.code == Some(2) && ran.err.contains("is no name"), "{ran:?}");
    let ran = run(home.path(), &["context", "show"]);
    assert!(ran.code == Some(4) && ran.err.contains("no context is the current one"), "{ran:?}");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let ran = run(home.path(), &["context", "list"]);
    assert!(ran.code == Some(2) && ran.err.contains("chmod go-w"), "{ran:?}");
}

#[test]
fn papers_that_do_not_say_where_the_supervisor_is_are_told_from_none() {
    let home = tempfile::tempdir().unwrap();
    let text = run(home.path(), &["context", "list"]).done();
    assert!(text.starts_with("no other supervisors are known"), "{text}");
    let add = || run(home.path(), &["context", "add", "box", "--from", "laptop"]);
    let ran = add();
    assert!(ran.code == Some(3) && ran.err.contains("cannot read laptop/context.yaml"), "{ran:?}");
    fs::create_dir(home.path().join("laptop")).unwrap();
    fs::write(home.path().join("laptop/client.crt"), "").unwrap();
    let ran = add();
    assert!(ran.code == Some(3) && ran.err.contains("--tcp HOST:PORT --ca laptop/ca.crt"), "{ran:?}");
}

#[test]
fn papers_name_no_token_and_no_file_but_their_own() {
    let home = tempfile::tempdir().unwrap();
    let papers = home.path().join("papers");
    fs::create_dir(&papers).unwrap();
    let (token, secret) = (home.path().join("token"), home.path().join("secret"));
    for file in [&token, &secret, &papers.join("client.crt"), &papers.join("client.key")] {
        fs::write(file, "of somebody else\n").unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    symlink(&secret, papers.join("linked.crt")).unwrap();
    nix::unistd::mkfifo(&papers.join("pipe.crt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let context = home.path().join(".config/openclawctl/contexts.yaml");
    let entry = |ca: &str| format!("tcp: box:1\nca: {ca}\ncertificate: client.crt\nkey: client.key\n");
    let with_token = format!("{}token_file: {}\n", entry("client.crt"), token.display());
    for (text, code, told) in [
        (with_token, 2, "context.yaml: token_file: papers bring no token"),
        (entry(secret.to_str().unwrap()), 2, "is no file beside it"),
        (entry("../secret"), 2, "`../secret` is no file beside it"),
        (entry("linked.crt"), 3, "linked.crt"),
        (entry("pipe.crt"), 3, "not a regular file"),
    ] {
        fs::write(papers.join("context.yaml"), text).unwrap();
        let ran = run(home.path(), &["context", "add", "box", "--from", "papers"]);
        assert!(ran.code == Some(code) && ran.err.contains(told), "{told}: {ran:?}");
        assert!(!context.exists(), "{told}");
    }
    fs::write(papers.join("context.yaml"), entry("client.crt")).unwrap();
    run(home.path(), &["context", "add", "box", "--from", "papers"]).done();
    assert!(context.exists());
}

#[test]
fn a_token_that_others_can_read_is_not_shown() {
    let home = tempfile::tempdir().unwrap();
    let fake = Fake::start();
    let socket = with(&fake, "main");
    let token = home.path().join("token");
    fs::write(&token, "secret\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let token = token.to_str().unwrap();
    run(home.path(), &["context", "add", "lab", "--unix", &socket, "--token-file", token]).done();
    let ran = run(home.path(), &["status"]);
    assert!(ran.code == Some(2) && ran.err.contains("chmod 600"), "{ran:?}");
    fs::set_permissions(token, fs::Permissions::from_mode(0o600)).unwrap();
    run(home.path(), &["status"]).done();
    fs::write(token, "two\nlines\n").unwrap();
    let ran = run(home.path(), &["status"]);
    assert!(
        ran.code == Some(2) && ran.err.contains("holds no token") && !ran.err.contains("lines"),
        "{ran:?}"
    );
}

#[test]
fn names_of_contexts_are_completed() {
    let home = tempfile::tempdir().unwrap();
    run(home.path(), &["context", "add", "lab", "--unix", "/run/lab.sock"]).done();
    run(home.path(), &["context", "add", "prod", "--unix", "/run/prod.sock"]).done();
    let mut command = person(home.path(), &["--", "openclawctl", "--context", "pr"]);
    command.env("OPENCLAWCTL_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2");
    command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_COMP_TYPE", "9");
    let completed = finish(command).done();
    assert_eq!(completed.trim(), "prod");
}
