//! What shells and `man` make of what is generated for them: with the real ones, where they are.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use supervisor_proto::v1::Phase;

use crate::{
    ctl::{Ran, ctl, finish, until},
    fake::{Fake, instance},
};

/// Where a program is, if it is here at all.
fn found(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

fn fleet() -> Fake {
    let fake = Fake::start();
    fake.with([instance("main", Phase::Ready, 18_789), instance("mill", Phase::Failed, 18_809)]);
    fake
}

/// Runs a shell's script that finds `openclawctl` on its PATH, and the fake by its environment.
fn script(shell: &Path, args: &[&str], fake: &Fake) -> Ran {
    let own = Path::new(env!("CARGO_BIN_EXE_openclawctl")).parent().unwrap();
    let system = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([own.to_owned()].into_iter().chain(env::split_paths(&system))).unwrap();
    let mut command = Command::new(shell);
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", &fake.data_dir)
        .env("OPENCLAWCTL_DATA_DIR", &fake.data_dir);
    command.args(args).stdin(Stdio::null());
    finish(command)
}

#[test]
fn bash_completes_names_words_and_options() {
    let Some(bash) = found("bash") else { return };
    let fake = fleet();
    let complete = |words: &str| {
        let text = format!(
            "source <(openclawctl completion bash)
             COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9
             f=$(complete -p openclawctl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
             $f openclawctl \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut offered = Vec::new();
        // A supervisor that does not answer within the patience of a finger on a key is not waited for.
        until("a completion", || {
            let told = script(&bash, &["--norc", "-c", &text], &fake).done();
            offered = told.lines().map(|line| line.trim().to_owned()).collect();
            offered != [""]
        });
        offered
    };
    assert_eq!(complete("openclawctl status m"), ["main", "mill"]);
    assert_eq!(complete("openclawctl logs mi"), ["mill"]);
    assert_eq!(complete("openclawctl explain port.sq"), ["port.squatted"]);
    assert_eq!(complete("openclawctl status --wa"), ["--watch"]);
    assert_eq!(complete("openclawctl expl"), ["explain"]);
}

#[test]
fn fish_completes_names_with_their_phases() {
    let Some(fish) = found("fish") else { return };
    let fake = fleet();
    let text = "openclawctl completion fish | source; complete -C 'openclawctl status m'";
    until("a completion", || {
        script(&fish, &["--no-config", "-c", text], &fake).done() == "main\tready\nmill\tfailed\n"
    });
}

#[test]
fn zsh_can_read_its_completion() {
    let Some(zsh) = found("zsh") else { return };
    let text = "compdef() { print \"$@\" }; source <(openclawctl completion zsh)";
    let told = script(&zsh, &["-f", "-c", text], &fleet()).done();
    assert!(told.ends_with(" openclawctl\n"), "{told}");
}

#[test]
fn each_shell_has_a_script_that_names_the_program() {
    let nowhere = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = finish(ctl(nowhere.path(), &["completion", shell])).done();
        assert!(
            script.contains("OPENCLAWCTL_COMPLETE") && script.contains("openclawctl"),
            "{shell}: {script}"
        );
    }
}

/// The names of the commands that a help lists.
fn commands(directory: &Path, path: &[String]) -> Vec<String> {
    let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = finish(ctl(directory, &args)).done();
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let named = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_page_of_the_manual_that_man_can_show() {
    let directory = tempfile::tempdir().unwrap();
    finish(ctl(directory.path(), &["man", directory.path().to_str().unwrap()])).done();
    let mut left = vec![Vec::new()];
    let mut pages = Vec::new();
    while let Some(path) = left.pop() {
        left.extend(
            commands(directory.path(), &path).into_iter().map(|name| [path.clone(), vec![name]].concat()),
        );
        let name = [vec!["openclawctl".to_owned()], path].concat().join("-");
        pages.push(directory.path().join(format!("{name}.1")));
    }
    assert!(pages.len() > 50, "{pages:?}");
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES"] {
            assert!(text.contains(section), "{}: {section}\n{text}", page.display());
        }
        let Some(groff) = found("groff") else { continue };
        let shown =
            Command::new(groff).args(["-man", "-Kutf8", "-Tutf8", "-ww", "-z"]).arg(&page).output().unwrap();
        assert!(shown.status.success() && shown.stderr.is_empty(), "{}: {shown:?}", page.display());
    }
}
