//! Small worlds that were found by chance and made smaller, each a story told in its first line.
//!
//! After a change of core that is meant, `supervisor-sim replay --update FILE` writes a story as it goes now: read
//! the difference. Where it is no longer the story of its title, `supervisor-sim shrink 0..4000 --telling …` finds
//! another.

use std::{collections::BTreeSet, fs, path::PathBuf};

use supervisor_sim::{Trace, What};

fn scenarios() -> Vec<(PathBuf, Trace)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let paths =
        fs::read_dir(directory).expect("there are scenarios").map(|entry| entry.expect("a file").path());
    let read = |path: PathBuf| {
        let trace = Trace::read(&path).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        (path, trace)
    };
    paths.map(read).collect()
}

#[test]
fn every_story_goes_as_it_is_written_down() {
    for (path, trace) in scenarios() {
        let (now, differs) = trace.replay();
        if let Some(place) = differs {
            let line = |trace: &Trace| trace.lines.get(place).map(ToString::to_string).unwrap_or_default();
            let (before, now) = (line(&trace), line(&now));
            panic!("{} line {}:\nbefore: {before}\nnow:    {now}", path.display(), place + 2);
        }
    }
}

#[test]
fn every_story_has_a_title_of_its_own_and_ends_well() {
    let scenarios = scenarios();
    let titles: BTreeSet<_> = scenarios.iter().map(|(_, trace)| &trace.header.title).collect();
    assert!(scenarios.len() >= 8 && titles.len() == scenarios.len());
    for (path, trace) in &scenarios {
        assert!(trace.header.title.ends_with('.'), "{}", path.display());
        let end = trace.lines.last().map(|line| &line.what);
        assert_eq!(end, Some(&What::End("all is well".into())), "{}", path.display());
    }
}
