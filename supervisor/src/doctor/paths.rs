//! Whether any two instances share a directory, links followed: with each other, with the supervisor, or with a
//! profile that nobody here looks after.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use supervisor_core::ids::Name;

use super::{
    finding::{Finding, Mend, Severity},
    scene::{Budget, Patient, Scene},
};
use crate::{
    openclaw::layout::{Layout, Relation, relation, resolve},
    problem::Place,
    typed::word,
};

const SHARED: &str = "two agents that write the same files undo each other's work, and one can break both";

/// A path that an instance has for itself alone.
struct Claim<'a> {
    name: &'a Name,
    what: &'static str,
    path: PathBuf,
    resolved: PathBuf,
    /// Where the configuration names it.
    named: Option<Place>,
    config: &'a Path,
}

impl Claim<'_> {
    /// What is wrong with this claim, seen from its own instance.
    fn finding(&self, id: &'static str, severity: Severity, what: &str, mend: Mend) -> Finding {
        let what = format!("the {} `{}` of `{}` {what}", self.what, self.path.display(), self.name);
        let finding = Finding::new(id, severity, what, SHARED, mend).of(self.name);
        match self.named {
            Some(place) => finding.in_file(self.config, Some(place)),
            None => finding,
        }
    }
}

/// All that instances claim for themselves.
fn claims(scene: &Scene) -> Vec<Claim<'_>> {
    scene.patients.iter().flat_map(|patient| claims_of(scene, patient)).collect()
}

fn claims_of<'a>(scene: &'a Scene, patient: &'a Patient) -> Vec<Claim<'a>> {
    let directories = &patient.directories;
    let claim = |what, path: PathBuf, named| Claim {
        name: &patient.name,
        what,
        resolved: resolve(&path),
        path,
        named,
        config: &directories.config,
    };
    let mut claims: Vec<Claim<'a>> = [
        ("state directory", &directories.state),
        ("configuration", &directories.config),
        ("workspace", &directories.workspace),
        ("home", &directories.home),
        ("temporary directory", &directories.tmp),
        ("directory", &directories.root),
    ]
    .into_iter()
    .map(|(what, path)| claim(what, path.clone(), None))
    .collect();
    for declared in scene.config(patient) {
        let is_workspace = declared.is(&["agents", "defaults", "workspace"])
            || declared.is(&["agents", "list", "*", "workspace"]);
        if is_workspace && let Some(path) = meant(scene, patient, &declared.value) {
            let claim = claim("workspace", path, Some(declared.place));
            // What it names of its own is claimed already.
            if claims.iter().all(|own| !claim.resolved.starts_with(&own.resolved)) {
                claims.push(claim);
            }
        }
    }
    claims
}

/// The path that OpenClaw takes a text in this instance's configuration for; `None` if that depends on variables.
fn meant(scene: &Scene, patient: &Patient, text: &str) -> Option<PathBuf> {
    if text.contains("${") || text.trim().is_empty() {
        return None;
    }
    let home = match patient.directories.layout {
        Layout::Managed => patient.directories.home.clone(),
        Layout::Profile => scene.home()?,
    };
    Some(match text.strip_prefix('~') {
        Some(rest) => home.join(rest.trim_start_matches('/')),
        None => patient.directories.home.join(text),
    })
}

/// Directories of one instance that are, or lie in, those of another.
pub(super) fn shared(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let claims = claims(scene);
    let mut by_path: HashMap<&Path, Vec<usize>> = HashMap::new();
    for (index, claim) in claims.iter().enumerate() {
        by_path.entry(&claim.resolved).or_default().push(index);
    }
    let mut found: Vec<((&Name, &Name), bool, Finding)> = Vec::new();
    for claim in &claims {
        for around in claim.resolved.ancestors() {
            for other in by_path.get(around).into_iter().flatten().map(|index| &claims[*index]) {
                // Of two that are the same, the one that a file names is told about, else the later instance.
                let same = other.resolved == claim.resolved;
                let blame = |claim: &Claim<'_>| (claim.named.is_some(), claim.name.clone());
                if other.name == claim.name || same && blame(other) > blame(claim) {
                    continue;
                }
                let pair = (claim.name.min(other.name), claim.name.max(other.name));
                let finding = overlap(claim, if same { Relation::Same } else { Relation::Inside }, other);
                match found.iter_mut().find(|(known, ..)| *known == pair) {
                    // One place for each pair is enough, and being the same says more than lying inside.
                    Some((_, was_same, known)) if same && !*was_same => (*was_same, *known) = (true, finding),
                    Some(_) => {}
                    None => found.push((pair, same, finding)),
                }
            }
        }
    }
    found.into_iter().map(|(.., finding)| finding).collect()
}

fn overlap(claim: &Claim<'_>, how: Relation, other: &Claim<'_>) -> Finding {
    let what = format!("{how} the {} `{}` of `{}`", other.what, other.path.display(), other.name);
    let mend = match claim.named {
        Some(_) => format!("name a directory of its own there, then restart `{}`", claim.name),
        None => format!("give `{}` a `profile` of its own in the fleet file, or none", claim.name),
    };
    claim.finding("path.shared", Severity::Error, &what, Mend::Do(mend)).of(other.name)
}

/// Profiles that lie where the supervisor keeps its own files.
pub(super) fn supervisors(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let data_dir = resolve(scene.data_dir());
    let mut found: Vec<Finding> = Vec::new();
    for patient in scene.patients.iter().filter(|patient| patient.directories.layout == Layout::Profile) {
        let own = patient.directories.root.as_path();
        let clash = claims_of(scene, patient).into_iter().find_map(|claim| {
            let how = relation(&claim.resolved, &data_dir).filter(|_| !claim.path.starts_with(own))?;
            let what = format!("{how} the supervisor's `{}`", data_dir.display());
            let mend =
                "leave `profile` out in the fleet file, and the supervisor makes directories of its own";
            Some(claim.finding("path.supervisor", Severity::Error, &what, Mend::Do(mend.into())))
        });
        found.extend(clash);
    }
    found
}

/// Directories that lie in, or around, a profile that no instance has.
pub(super) fn strangers(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let Some(home) = scene.home() else { return Vec::new() };
    let is_profile = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (name == ".openclaw" || name.starts_with(".openclaw-")) && path.join("openclaw.json").is_file()
    };
    let profiles: Vec<PathBuf> = budget
        .entries(&home)
        .into_iter()
        .filter(|path| is_profile(path) && scene.owner_of(path).is_none())
        .collect();
    let mut found = Vec::new();
    for patient in &scene.patients {
        let claims = claims_of(scene, patient);
        for profile in &profiles {
            let theirs = resolve(profile);
            let met = claims.iter().find_map(|claim| Some((claim, relation(&claim.resolved, &theirs)?)));
            if let Some((claim, how)) = met {
                let what = format!("{how} the profile `{}`, which no instance has", profile.display());
                let mend = format!(
                    "move it out of there, or let an instance have the profile `{}`",
                    profile.display()
                );
                found.push(claim.finding("path.stranger", Severity::Warning, &what, Mend::Do(mend)));
            }
        }
    }
    found
}

/// Links where the supervisor made directories.
pub(super) fn links(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let mut found = Vec::new();
    for Patient { name, directories, .. } in &scene.patients {
        let mut made = vec![&directories.root, &directories.home, &directories.tmp, &directories.logs];
        if directories.layout == Layout::Managed {
            made.extend([&directories.state, &directories.workspace]);
        }
        for path in made {
            if !budget.take() || !fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
                continue;
            }
            let to = resolve(path);
            let what = format!("`{}` of `{name}` is a link to `{}`", path.display(), to.display());
            let why = "the next start refuses it: what lies elsewhere can be shared or open to others";
            let others = claims(scene);
            let mut others = others.iter().filter(|claim| claim.name != name);
            let link = word(path);
            let mend = match others.any(|claim| relation(&to, &claim.resolved).is_some()) {
                // What is another's stays where it is; the next start makes a directory.
                true => format!("openclawctl down {name} && rm {link}"),
                false => format!("openclawctl down {name} && rm {link} && mv {} {link}", word(&to)),
            };
            found.push(Finding::new("path.link", Severity::Error, what, why, Mend::Type(mend)).of(name));
        }
    }
    found
}
