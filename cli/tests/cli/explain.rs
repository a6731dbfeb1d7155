//! `openclawctl explain`, and the errors that name it.

use serde_json::Value;
use tonic::Code;

use crate::{
    ctl::{Ran, ctl, finish},
    fake::{Fake, refusal},
};

/// Without a supervisor.
fn explain(args: &[&str]) -> Ran {
    let nowhere = tempfile::tempdir().unwrap();
    finish(ctl(nowhere.path(), &[&["explain"], args].concat()))
}

#[test]
fn a_page_says_what_it_means_why_it_happens_and_what_to_type() {
    let page = explain(&["port-in-use"]).done();
    let expected = "\
PORT_IN_USE  refusal
  what        The ports of an instance change only while it is stopped.
  why         What runs listens on the old ones, and a gateway that is asked elsewhere is taken for dead.

  openclawctl down NAME  then apply the change, and up again
";
    assert_eq!(page, expected);
    for (word, kind) in
        [("instance.exited", "event"), ("state.shut", "finding"), ("Backoff", "phase"), ("files", "wall")]
    {
        let page = explain(&[word]).done();
        assert!(page.starts_with(&format!("{}  {kind}\n", word.to_lowercase())), "{page}");
    }
}

#[test]
fn without_a_word_all_are_listed_by_kinds() {
    let list = explain(&[]).done();
    for part in
        ["Phases of an instance\n", "\n  UNKNOWN_INSTANCE ", "\n  instance.exited ", "\n  port.squatted "]
    {
        assert!(list.contains(part), "{part:?} is not in\n{list}");
    }
    let lines = explain(&["-o", "jsonl"]).done();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&first["word"], &first["kind"]), (&"stopped".into(), &"phase".into()));
}

#[test]
fn an_unknown_word_suggests_the_nearest() {
    let ran = explain(&["instance.exitted"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.contains("\nhint: did you mean `instance.exited`"), "{ran:?}");
    assert!(explain(&["qqqqqq"]).err.ends_with("\nhint: openclawctl explain\n"));
}

#[test]
fn an_error_names_the_page_where_there_is_more_to_say_and_nowhere_else() {
    let fake = Fake::start();
    fake.refuse("StartInstance", refusal(Code::FailedPrecondition, "POOL_EXHAUSTED", "no block is free."));
    let err = fake.ctl(&["up", "main"]).err;
    assert!(err.ends_with("\nhint: openclawctl ports\nmore: openclawctl explain POOL_EXHAUSTED\n"), "{err}");
    assert!(!fake.ctl(&["status", "nobody"]).err.contains("more:"));
}

#[test]
fn a_shell_completes_the_words() {
    let fake = Fake::start();
    let mut command = fake.command(&["--", "openclawctl", "explain", "instance.ex"]);
    command.env("OPENCLAWCTL_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2").env("_CLAP_IFS", "\n");
    assert_eq!(finish(command).done(), "instance.exited\ninstance.examined");
}
