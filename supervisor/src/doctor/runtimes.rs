//! Whether the Node that runs each OpenClaw is one that this OpenClaw asks for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use semver::{Version, VersionReq};
use serde::Deserialize;

use super::{
    ASK,
    finding::{Finding, Mend, Severity},
    scene::{Budget, Patient, Scene, text},
};
use crate::{
    openclaw::{
        contract,
        runtime::{self, Resolved},
    },
    spec::Kind,
    tool::Tool,
};

/// OpenClaw's entry.
const ENTRY: &str = "openclaw.mjs";

/// The part of `package.json` that matters.
#[derive(Debug, Deserialize)]
struct Package {
    engines: Option<BTreeMap<String, String>>,
}

/// An installed OpenClaw, and the Node that runs it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Installed {
    package: PathBuf,
    node: PathBuf,
}

/// Runtimes that cannot be had, and Nodes that are too old or too new.
pub(super) fn node(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let mut found: BTreeMap<Installed, Finding> = BTreeMap::new();
    let mut well: Vec<Installed> = Vec::new();
    for patient in &scene.patients {
        let Ok(resolved) = runtime::resolve(&patient.spec, &scene.host) else { continue };
        if resolved.kind != Kind::Openclaw || !budget.take() {
            continue;
        }
        let search = scene.host.environment.get("PATH").map_or("", String::as_str);
        let installed = installed(&resolved, search).filter(|installed| !well.contains(installed));
        let Some(installed) = installed else { continue };
        if let Some(known) = found.remove(&installed) {
            found.insert(installed, known.of(&patient.name));
        } else if let Some(finding) = unfit(&installed, || version(scene, patient, &installed.node)) {
            found.insert(installed, finding.of(&patient.name));
        } else {
            well.push(installed);
        }
    }
    found.into_values().collect()
}

/// What a Node says of itself behind the walls of an instance that it runs: an agent may have put it there.
fn version(scene: &Scene, patient: &Patient, node: &Path) -> Option<String> {
    let (whose, neighbours) = ((&patient.name, patient.block, ""), scene.neighbours());
    let asked = vec!["--version".to_owned()];
    let tool = contract::tool(&scene.host, whose, (&patient.spec, &neighbours), asked).ok()?;
    // Its own home may not be there yet.
    Tool { program: node.to_owned(), directory: Some("/".into()), ..tool }.ask(ASK)
}

/// Runtimes that are not there.
pub(super) fn missing(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let mut found = Vec::new();
    for patient in scene.patients.iter().take_while(|_| budget.take()) {
        if let Err(error) = runtime::resolve(&patient.spec, &scene.host) {
            let what = format!("`{}` cannot be started: {error}", patient.name);
            let why = "its next start fails, also after a crash";
            found.push(
                Finding::new("runtime.missing", Severity::Error, what, why, Mend::Do(error.mend()))
                    .of(&patient.name),
            );
        }
    }
    found
}

/// What a program is: npm's link to the entry, or a script that names entry and Node.
fn installed(resolved: &Resolved, search: &str) -> Option<Installed> {
    let program = resolved.program.canonicalize().ok()?;
    let beside = || resolved.beside.as_ref().map(|directory| directory.join("node"));
    let on_path =
        || search.split(':').map(|directory| Path::new(directory).join("node")).find(|node| node.is_file());
    let (entry, named) = match program.ends_with(ENTRY) {
        true => (program, None),
        false => {
            let script = text(&program)?;
            let mut words = script.split(|c: char| c.is_whitespace() || "\"'".contains(c));
            let entry = words.clone().find(|word| word.starts_with('/') && word.ends_with(ENTRY))?;
            (
                PathBuf::from(entry),
                words.find(|word| word.starts_with('/') && word.ends_with("/node")).map(PathBuf::from),
            )
        }
    };
    let node = named.or_else(beside).or_else(on_path)?;
    Some(Installed { package: entry.with_file_name("package.json"), node })
}

fn unfit(installed: &Installed, version: impl FnOnce() -> Option<String>) -> Option<Finding> {
    let package: Package = serde_json::from_str(&text(&installed.package)?).ok()?;
    let wanted = package.engines?.remove("node")?;
    let version = version()?;
    if satisfies(&version, &wanted)? {
        return None;
    }
    let what = format!("`{}` is {version}, but this OpenClaw wants {wanted}", installed.node.display());
    let why = "OpenClaw refuses to start, or fails later where the older one lacks something";
    let mend = format!("install a Node {wanted} there, then restart the instances");
    let finding = Finding::new("runtime.node", Severity::Error, what, why, Mend::Do(mend));
    Some(finding.in_file(&installed.package, None))
}

/// Whether a version is in npm's range; `None` if one of them cannot be read. Their ranges differ from Cargo's in
/// `||` and in writing no commas.
fn satisfies(version: &str, range: &str) -> Option<bool> {
    let version = Version::parse(version.trim_start_matches('v')).ok()?;
    let mut any = false;
    for part in range.split("||") {
        let all = part.split_whitespace().collect::<Vec<_>>().join(", ");
        any |= VersionReq::parse(&all).ok()?.matches(&version);
    }
    Some(any)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn ranges_are_read_as_npm_writes_them() {
        let september = ">=24.16.0 <25 || >=26.1.0";
        for (version, fits) in
            [("v24.21.0", true), ("v24.15.9", false), ("v25.0.0", false), ("v26.1.0", true)]
        {
            assert_eq!(satisfies(version, september), Some(fits), "{version}");
        }
        assert_eq!(satisfies("v22.23.3", ">=22.12.0"), Some(true));
        assert_eq!(satisfies("v22.23.3", "the newest"), None);
    }

    #[test]
    fn a_node_that_openclaw_does_not_want_is_named() {
        let world = tempfile::tempdir().unwrap();
        let at = |name: &str| world.path().join(name);
        let script = |name: &str, text: String| {
            fs::write(at(name), text).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        script("node", "#!/bin/sh\necho v20.1.0\n".into());
        let shown = world.path().display();
        script("openclaw", format!("#!/bin/sh\nexec \"{shown}/node\" \"{shown}/openclaw.mjs\" \"$@\"\n"));
        fs::write(at("package.json"), r#"{"engines":{"node":">=22.12.0"}}"#).unwrap();
        let resolved = Resolved {
            kind: Kind::Openclaw,
            program: at("openclaw"),
            args: Vec::new(),
            note: None,
            beside: None,
        };
        let installed = installed(&resolved, "").unwrap();
        assert_eq!(installed, Installed { package: at("package.json"), node: at("node") });
        let ask = || Tool::new(&installed.node, &["--version"]).ask(ASK);
        let finding = unfit(&installed, ask).unwrap();
        assert!(
            finding.what.ends_with("node` is v20.1.0, but this OpenClaw wants >=22.12.0"),
            "{}",
            finding.what
        );
        fs::write(at("package.json"), r#"{"engines":{"node":">=20"}}"#).unwrap();
        assert_eq!(unfit(&installed, ask), None);
    }
}
