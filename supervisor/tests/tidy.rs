//! The code about the code: the walls between the rooms, and the sizes that keep them readable.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Longest file, without its tests.
const FILE_LINES: usize = 500;

/// Longest function.
const FUNCTION_LINES: usize = 70;

/// Who may depend on whom, of our own crates.
const EDGES: &[(&str, &[&str])] = &[
    ("supervisor-proto", &[]),
    ("supervisor-core", &[]),
    ("supervisor-sim", &["supervisor-core"]),
    ("gateway-worker", &["supervisor-proto"]),
    ("openclawctl", &["supervisor-proto"]),
    ("openclaw-supervisor", &["supervisor-core", "supervisor-proto"]),
];

/// Words that say that something is not done, or was left behind.
const UNFINISHED: &[&str] = &["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX", "HACK"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file below `directory`, with its path from the root and its text.
fn sources(directory: &str) -> BTreeMap<String, String> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    match root().join(directory) {
        file if file.is_file() => found.push(file),
        directory => walk(&directory, &mut found),
    }
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

fn all_sources() -> BTreeMap<String, String> {
    ["proto", "supervisor", "gateway-worker", "cli"].iter().flat_map(|room| sources(room)).collect()
}

/// Whether a file is a test as a whole.
fn is_test(path: &str) -> bool {
    let mut parts = path.split('/');
    let name = path.rsplit('/').next().unwrap_or_default();
    parts.any(|part| matches!(part, "tests" | "benches" | "examples"))
        || name == "tests.rs"
        || name.ends_with("_tests.rs")
        || name == "arbitrary.rs"
}

/// The lines before the test module at the end of a file.
fn production(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]").collect()
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn no_room_imports_what_it_must_not_know() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ours: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let allowed = EDGES.iter().find(|(room, _)| *room == name).map(|(_, allowed)| *allowed);
        let Some(allowed) = allowed else {
            faults.push(format!("the crate {name} has no place in the house"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if dependency["kind"].is_null() && ours.contains(to) && !allowed.contains(&to) {
                faults.push(format!("{name} may not depend on {to}"));
            }
        }
    }
    report(&faults);
}

#[test]
fn core_needs_neither_std_nor_a_runtime() {
    let manifest = fs::read_to_string(root().join("supervisor/core/Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let dependencies: BTreeSet<&str> = section
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains('='))
        .map(|line| line.split([' ', '.', '=']).next().unwrap())
        .collect();
    assert_eq!(dependencies, BTreeSet::from(["serde", "thiserror"]));
    let lib = fs::read_to_string(root().join("supervisor/core/src/lib.rs")).unwrap();
    assert!(lib.contains("#![no_std]"));
}

#[test]
fn files_stay_readable() {
    let faults: Vec<String> = all_sources()
        .iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (path, production(text).len()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(path, lines)| format!("{path} has {lines} lines; at most {FILE_LINES}"))
        .collect();
    report(&faults);
}

/// Lines of each function. The code is formatted, so a function ends with a brace at its own indentation.
fn functions(lines: &[&str]) -> Vec<(usize, usize)> {
    let starts = |line: &str| {
        let words = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        let words = words.trim_start_matches("pub ").trim_start_matches("const ");
        words.trim_start_matches("async ").trim_start_matches("unsafe ").starts_with("fn ")
    };
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate().filter(|(_, line)| starts(line)) {
        let indentation = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indentation}}}");
        let length = lines[first..].iter().position(|line| *line == end || line.ends_with(" {}"));
        found.push((first + 1, length.map_or(1, |length| length + 1)));
    }
    found
}

#[test]
fn functions_stay_readable() {
    let mut faults = Vec::new();
    for (path, text) in all_sources().iter().filter(|(path, _)| !is_test(path)) {
        for (line, length) in functions(&production(text)) {
            if length > FUNCTION_LINES {
                faults.push(format!("{path}:{line}: a function of {length} lines; at most {FUNCTION_LINES}"));
            }
        }
    }
    report(&faults);
}

/// Lines of production code outside comments that contain any of `words`.
fn mentions(directory: &str, words: &[&str], except: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in sources(directory) {
        if is_test(&path) || except.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in production(&text).iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = words.iter().find(|word| code.contains(**word)) {
                faults.push(format!("{path}:{}: `{word}`", number + 1));
            }
        }
    }
    faults
}

#[test]
fn nothing_is_left_unfinished() {
    let mut faults = Vec::new();
    for (path, text) in all_sources().iter().filter(|(path, _)| *path != "supervisor/tests/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{path}:{}: `{word}`", number + 1));
            }
        }
    }
    report(&faults);
}

#[test]
fn only_the_driver_hands_events_to_core() {
    report(&mentions("supervisor/src", &["core.handle("], &["supervisor/src/driver.rs"]));
}

#[test]
fn core_reads_no_clock_and_does_no_input_or_output() {
    let words = ["std::", "tokio", "tracing", "Instant", "SystemTime", "println!"];
    report(&mentions("supervisor/core/src", &words, &[]));
}

#[test]
fn the_simulator_has_no_real_time() {
    let words = ["tokio", "thread::sleep", "SystemTime"];
    report(&mentions("supervisor/sim/src", &words, &[]));
}

#[test]
fn the_api_and_the_hands_do_not_reach_each_other() {
    report(&mentions("supervisor/src/perform", &["crate::api", "tonic::", "supervisor_proto::v1"], &[]));
    report(&mentions("supervisor/src/openclaw", &["crate::api", "crate::perform", "tonic::"], &[]));
    report(&mentions("supervisor/src/driver.rs", &["supervisor_proto", "tonic::"], &[]));
}

#[test]
fn the_command_line_never_opens_the_state_directory() {
    report(&mentions("cli/src", &["supervisor.db", "rusqlite", "instances/"], &[]));
}

#[test]
fn unsafe_code_stands_in_one_file_of_each_crate_and_says_why_it_is_sound() {
    let mut files = BTreeMap::new();
    let mut faults = Vec::new();
    for (path, text) in all_sources().iter().filter(|(path, _)| !is_test(path)) {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !(code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn")) {
                continue;
            }
            let room = path.split('/').next().unwrap_or_default();
            files.entry(room.to_owned()).or_insert_with(BTreeSet::new).insert(path.clone());
            let above = &lines[number.saturating_sub(6)..number];
            if !above.iter().any(|line| line.trim_start().starts_with("// SAFETY:")) {
                faults.push(format!("{path}:{}: unsafe without a `SAFETY:` line", number + 1));
            }
        }
    }
    faults.extend(
        files.iter().filter(|(_, paths)| paths.len() > 1).map(|(room, paths)| format!("{room}: {paths:?}")),
    );
    report(&faults);
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let mut faults = Vec::new();
    for (path, text) in all_sources().iter().filter(|(path, _)| *path != "supervisor/tests/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            let attribute = line.trim_start();
            if attribute.starts_with("#[allow(") || attribute.starts_with("#![allow(") {
                faults.push(format!("{path}:{}: use `#[expect(…, reason = \"…\")]`", number + 1));
            }
        }
    }
    report(&faults);
}

/// The names of tests that stand between backquotes in a table's last column, which begins with one.
fn named_tests(table: &str) -> impl Iterator<Item = &str> {
    let last = table.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit(" | ").next());
    let quoted =
        last.filter(|column| column.starts_with('`')).flat_map(|column| column.split('`').skip(1).step_by(2));
    quoted.filter(|name| {
        name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
    })
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let code: String = all_sources().into_values().collect();
    let mut faults = Vec::new();
    for (document, at_least) in [("README.md", 50), ("deploy/SECURITY.md", 30)] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let names: BTreeSet<&str> = named_tests(&text).collect();
        assert!(names.len() >= at_least, "{document} names {} tests", names.len());
        let missing = names.iter().filter(|name| !code.contains(&format!("fn {name}(")));
        faults.extend(missing.map(|name| format!("{document}: no test is called {name}")));
    }
    report(&faults);
}

#[test]
fn the_top_level_shows_the_house_and_nothing_else() {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    let top: BTreeSet<&str> = listing.split('\0').filter_map(|path| path.split('/').next()).collect();
    let rooms = [
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "cli",
        "deploy",
        "gateway-worker",
        "proto",
        "supervisor",
    ];
    let strangers: Vec<String> = top
        .iter()
        .filter(|name| !name.is_empty() && !name.starts_with('.') && !rooms.contains(name))
        .map(|name| format!("{name} has no place at the top level"))
        .collect();
    report(&strangers);
}
