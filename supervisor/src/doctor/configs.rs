//! Whether each configuration would be taken by the next start, and whether two of them name one bot.

use std::{collections::BTreeMap, fs, path::Path};

use supervisor_core::ids::Credential;

use super::{
    finding::{Finding, Mend, Severity},
    scene::{Budget, Patient, Scene},
};
use crate::openclaw::config::{
    Wanted,
    check::check,
    credentials::{self, Purse},
};

/// Keys the fingerprints. They are compared here and go nowhere else.
const SALT: &str = "doctor";

/// Configurations with which the next start would be refused.
pub(super) fn refused(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let neighbours = scene.neighbours();
    let mut found = Vec::new();
    for patient in scene.patients.iter().take_while(|_| budget.take()) {
        let config = &patient.directories.config;
        // The next start makes one that is missing.
        if fs::symlink_metadata(config).is_err() {
            continue;
        }
        let why = "the next start is refused, also after a crash: what runs now is the last that runs";
        let Some(content) = patient.config() else {
            let what = format!("the configuration of `{}` cannot be read as text", patient.name);
            let mend = Mend::Do(
                "see that it is a file of UTF-8 text that the supervisor's user can read".to_owned(),
            );
            found.push(
                Finding::new("config.refused", Severity::Error, what, why, mend)
                    .of(&patient.name)
                    .in_file(config, None),
            );
            continue;
        };
        let wanted = Wanted {
            name: &patient.name,
            directories: &patient.directories,
            block: patient.block,
            previous_base: patient.previous_base,
            data_dir: scene.data_dir(),
            neighbours: &neighbours,
        };
        if let Err(error) = check(&wanted, content.as_bytes()) {
            let (what, place) = match error.problem() {
                Some(problem) if problem.path.is_empty() => (problem.message.clone(), Some(problem.place)),
                Some(problem) => (format!("`{}`: {}", problem.path, problem.message), Some(problem.place)),
                None => (error.to_string(), None),
            };
            let what = format!("the configuration of `{}` would be refused: {what}", patient.name);
            found.push(
                Finding::new("config.refused", Severity::Error, what, why, Mend::Do(error.mend()))
                    .of(&patient.name)
                    .in_file(config, place),
            );
        }
    }
    found
}

/// Instances whose configurations name the same credential of a channel.
pub(super) fn tokens(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let mut first: BTreeMap<Credential, (&Patient, String)> = BTreeMap::new();
    let mut found = Vec::new();
    for patient in scene.patients.iter().take_while(|_| budget.take()) {
        let Some(text) = patient.config() else { continue };
        let purse = Purse { salt: SALT, spec: &patient.spec };
        for named in credentials::of(&text, &patient.directories, &purse) {
            match first.get(&named.credential) {
                None => drop(first.insert(named.credential, (patient, named.label))),
                Some((holder, label)) => {
                    found.push(shared((patient, &named.label), (holder, label), &patient.directories.config));
                }
            }
        }
    }
    found
}

fn shared((patient, label): (&Patient, &str), (holder, its): (&Patient, &str), config: &Path) -> Finding {
    let (name, other) = (&patient.name, &holder.name);
    let at = if label == its { String::new() } else { format!(" ({its})") };
    let what = format!("`{name}` has the same credential of {label} as `{other}`{at}");
    let rescues = |rescue: &Patient, primary: &Patient| rescue.spec.rescues.contains(&primary.name);
    let (severity, why) = match rescues(patient, holder) || rescues(holder, patient) {
        // It is fenced: the rescue takes the channel over only when its primary is dead.
        true => (Severity::Note, "a rescue with a bot of its own could be reached while its primary lives"),
        false => {
            (Severity::Error, "a service sends each message to one of them, and refuses the other for ever")
        }
    };
    let mend = format!("give `{name}` a bot of its own, then restart `{name}`");
    Finding::new("token.shared", severity, what, why, Mend::Do(mend)).of(name).of(other).in_file(config, None)
}
