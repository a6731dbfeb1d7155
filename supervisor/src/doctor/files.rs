//! Whether an instance's secrets are its user's alone.
//!
//! Looked at: the configuration and its backups, `.env`, credentials and logins, as OpenClaw lays them out, and the
//! directories that hold them. A file that is open by its mode but lies in a closed directory is only worth a
//! note: it is open as soon as it is copied.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    finding::{Finding, Severity, count, few, typed},
    fix::{Fix, Seen},
    scene::{Budget, Patient, Scene},
};
use crate::{custody::reachable, openclaw::layout::Layout};

/// For the owner alone.
const FILE: u32 = 0o600;
/// For the owner alone.
const DIRECTORY: u32 = 0o700;

/// How deep credentials are laid out: `credentials/whatsapp/default/creds.json`.
const DEEP: u32 = 3;

/// A file that replaces another is there for milliseconds; after this long its writer is gone.
const LEFT_AFTER: Duration = Duration::from_secs(600);

/// Files that hold secrets, as far as they are there.
fn secrets(patient: &Patient, budget: &Budget) -> Vec<PathBuf> {
    let state = &patient.directories.state;
    let mut files =
        vec![patient.directories.config.clone(), state.join(".env"), patient.directories.home.join(".env")];
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("openclaw.json") || name.starts_with("auth") && name.ends_with(".json")
    };
    files.extend(budget.entries(state).into_iter().filter(named));
    for directory in ["credentials", "identity", "devices"] {
        files.extend(budget.files(&state.join(directory), DEEP));
    }
    for agent in budget.entries(&state.join("agents")) {
        files.extend(budget.entries(&agent.join("agent")).into_iter().filter(named));
    }
    files.sort_unstable();
    files.dedup();
    files
}

/// Directories that hold them.
fn directories(patient: &Patient) -> Vec<PathBuf> {
    let own = &patient.directories;
    let mut all =
        vec![own.root.clone(), own.home.clone(), own.tmp.clone(), own.logs.clone(), own.state.clone()];
    if own.layout == Layout::Managed {
        all.push(own.workspace.clone());
    }
    all.push(own.state.join("credentials"));
    all
}

/// Secrets that others can read or change, by their modes.
pub(super) fn open(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    scene.patients.iter().flat_map(|patient| open_of(patient, budget)).collect()
}

fn open_of(patient: &Patient, budget: &Budget) -> Vec<Finding> {
    let me = nix::unistd::geteuid().as_raw();
    let mut writable = Vec::new();
    let mut readable = Vec::new();
    for path in secrets(patient, budget) {
        let Some(found) = own(&path, me, budget).filter(Metadata::is_file) else { continue };
        match found.mode() & 0o777 {
            mode if mode & 0o022 != 0 => writable.push(path),
            mode if mode & 0o044 != 0 => readable.push(path),
            _ => {}
        }
    }
    // A user of its own has to pass to what is its.
    let others = if patient.spec.user.is_some() { 0o066 } else { 0o077 };
    let is_open = |path: &PathBuf| {
        own(path, me, budget).is_some_and(|found| found.is_dir() && found.mode() & others != 0)
    };
    let directories: Vec<PathBuf> = directories(patient).into_iter().filter(is_open).collect();
    let kinds = [
        (
            "file.writable",
            writable,
            FILE,
            "can be changed by other users",
            "who writes a configuration decides what its agent does",
        ),
        (
            "file.readable",
            readable,
            FILE,
            "can be read by other users",
            "who reads a token can speak as the bot",
        ),
        (
            "file.directory-open",
            directories,
            DIRECTORY,
            "are open to other users",
            "what is in there is only as safe as each single file",
        ),
    ];
    let finding = |(id, paths, mode, what, why): (&'static str, Vec<PathBuf>, u32, &str, &'static str)| {
        let first = paths.first()?;
        let severity = match (paths.iter().any(|path| reachable(path)), id) {
            (false, _) => Severity::Note,
            (true, "file.directory-open") => Severity::Warning,
            (true, _) => Severity::Error,
        };
        Some(told(patient, id, severity, (&paths, first), mode, what, why))
    };
    kinds.into_iter().filter_map(finding).collect()
}

fn told(
    patient: &Patient,
    id: &'static str,
    severity: Severity,
    (paths, first): (&[PathBuf], &Path),
    mode: u32,
    what: &str,
    why: &'static str,
) -> Finding {
    let names: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    let what = match paths.len() {
        1 => what.replacen("are ", "is ", 1),
        _ => what.to_owned(),
    };
    let what = format!("{} of `{}` {what}", few(&names), patient.name);
    let mend = typed(&format!("chmod {mode:o}"), paths.iter());
    let fixes = paths.iter().map(|path| Fix::Close { path: path.clone(), mode }).collect();
    Finding::new(id, severity, what, why, mend).of(&patient.name).in_file(first, None).fixed_by(fixes)
}

/// What is there and belongs to `me`. A link is followed by nobody here: what it points to is not the instance's.
fn own(path: &Path, me: u32, budget: &Budget) -> Option<Metadata> {
    budget.take().then(|| fs::symlink_metadata(path).ok()).flatten().filter(|found| found.uid() == me)
}

/// What belongs to another user than the gateways run as.
pub(super) fn foreign(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let me = nix::unistd::geteuid().as_raw();
    let mut found = Vec::new();
    for patient in &scene.patients {
        let mut paths = directories(patient);
        paths.extend(secrets(patient, budget));
        let is_foreign =
            |path: &PathBuf| budget.take() && fs::symlink_metadata(path).is_ok_and(|found| found.uid() != me);
        let foreign: Vec<PathBuf> = paths.into_iter().filter(is_foreign).collect();
        let Some(first) = foreign.first() else { continue };
        let owner = fs::symlink_metadata(first).map_or(0, |found| found.uid());
        let what = format!(
            "{} of `{}` to user {owner}, but its gateway runs as user {me}: `{}`",
            count(foreign.len(), "path belongs", "paths belong"),
            patient.name,
            first.display()
        );
        let why = "the gateway may not read or replace it, and that user may change what its agent does";
        let mend = typed(&format!("sudo chown -R {me}"), [&patient.directories.state]);
        found.push(
            Finding::new("file.foreign", Severity::Error, what, why, mend)
                .of(&patient.name)
                .in_file(first, None),
        );
    }
    found
}

/// Halves of files that were being replaced when a supervisor was killed.
pub(super) fn leftovers(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let mut found = Vec::new();
    for patient in &scene.patients {
        let incident = crate::openclaw::incident::file(&patient.directories.root);
        let left = [&patient.directories.config, &incident].into_iter().filter_map(|path| {
            let name = path.file_name()?.to_string_lossy();
            let path = path.with_file_name(format!(".{name}.new"));
            Some((old(&path, budget)?, path))
        });
        let left: Vec<(Metadata, PathBuf)> = left.collect();
        let Some((_, first)) = left.first() else { continue };
        let what = format!(
            "{} left over in the directories of `{}`: `{}`",
            count(left.len(), "file is", "files are"),
            patient.name,
            first.display()
        );
        let why = "it is half of a write that was broken off; it may hold the gateway's token";
        let mend = typed("rm", left.iter().map(|(_, path)| path));
        let file = first.clone();
        let fixes =
            left.into_iter().map(|(found, path)| Fix::Remove { seen: Seen::of(&found), path }).collect();
        found.push(
            Finding::new("file.leftover", Severity::Note, what, why, mend)
                .of(&patient.name)
                .in_file(&file, None)
                .fixed_by(fixes),
        );
    }
    found
}

/// A file of ours that nobody has touched for a while.
pub(super) fn old(path: &Path, budget: &Budget) -> Option<Metadata> {
    let found = own(path, nix::unistd::geteuid().as_raw(), budget)?;
    let age = SystemTime::now().duration_since(found.modified().ok()?).ok()?;
    (age > LEFT_AFTER).then_some(found)
}
