//! Whether an instance's secrets are its user's alone.
//!
//! Looked at: the configuration and its backups, `.env`, credentials and logins, as OpenClaw lays them out, and the
//! directories that hold them. A file that is open by its mode but lies in a closed directory is only worth a
//! note: it is open as soon as it is copied.

use std::{
    collections::BTreeSet,
    fs::Metadata,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    finding::{Finding, Mend, Severity, count, few, typed},
    fix::{Fix, Seen},
    ground,
    scene::{Budget, Patient, Scene},
};
use crate::{
    custody::reachable,
    openclaw::{
        file, incident,
        layout::{Directories, Layout},
        place::UNFINISHED,
        walls::OWN_LOG,
    },
};

/// For the owner alone.
const FILE: u32 = 0o600;
/// For the owner alone.
const DIRECTORY: u32 = 0o700;
/// For the owner alone, but a user of the instance's own has to pass to what is its.
const PASSABLE: u32 = 0o711;

/// How deep credentials are laid out: `credentials/whatsapp/default/creds.json`.
const DEEP: u32 = 3;

/// A file that replaces another is there for milliseconds; after this long its writer is gone.
const LEFT_AFTER: Duration = Duration::from_secs(600);

/// Files that hold secrets, as far as they are there.
fn secrets(directories: &Directories, budget: &Budget) -> Vec<PathBuf> {
    let Directories { config, state, home, .. } = directories;
    let mut files = vec![config.clone(), state.join(".env"), home.join(".env")];
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("openclaw.json") || name.starts_with("auth") && name.ends_with(".json")
    };
    files.extend(budget.inside(state).into_iter().filter(named));
    for directory in ["credentials", "identity", "devices"] {
        files.extend(budget.files(&state.join(directory), DEEP));
    }
    for agent in budget.inside(&state.join("agents")) {
        files.extend(budget.inside(&agent.join("agent")).into_iter().filter(named));
    }
    files.sort_unstable();
    files.dedup();
    files
}

/// What is looked at, and how the layout makes it.
struct Kept {
    path: PathBuf,
    owner: u32,
    mode: u32,
}

/// Directories that hold secrets, of an instance whose processes are those of the user `theirs`. What these only pass
/// is the supervisor's.
fn directories(own: &Directories, theirs: u32) -> Vec<Kept> {
    let me = nix::unistd::geteuid().as_raw();
    let way = if theirs == me { DIRECTORY } else { PASSABLE };
    let passed = [&own.root, &own.logs].map(|path| Kept { path: path.clone(), owner: me, mode: way });
    let mut written = vec![own.home.clone(), own.tmp.clone(), own.logs.join(OWN_LOG), own.state.clone()];
    if own.layout == Layout::Managed {
        written.push(own.workspace.clone());
    }
    written.push(own.state.join("credentials"));
    let written = written.into_iter().map(|path| Kept { path, owner: theirs, mode: DIRECTORY });
    passed.into_iter().chain(written).collect()
}

/// Secrets that others can read or change, by their modes.
pub(super) fn open(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    budget.fairly(&scene.asked_for(), |patient, budget| open_of(scene, patient, budget)).concat()
}

fn open_of(scene: &Scene, patient: &Patient, budget: &Budget) -> Vec<Finding> {
    let Some(theirs) = patient.owner() else { return Vec::new() };
    let at = ground::directories(scene, patient);
    let mut writable = Vec::new();
    let mut readable = Vec::new();
    for path in secrets(&at, budget) {
        let Some(found) = own(&path, theirs, budget).filter(Metadata::is_file) else { continue };
        let kept = Kept { path, owner: theirs, mode: FILE };
        match found.mode() & 0o777 {
            mode if mode & 0o022 != 0 => writable.push(kept),
            mode if mode & 0o044 != 0 => readable.push(kept),
            _ => {}
        }
    }
    let is_open = |kept: &Kept| {
        own(&kept.path, kept.owner, budget)
            .is_some_and(|found| found.is_dir() && found.mode() & 0o777 & !kept.mode != 0)
    };
    let directories: Vec<Kept> = directories(&at, theirs).into_iter().filter(is_open).collect();
    let kinds = [
        (
            "file.writable",
            writable,
            "can be changed by other users",
            "who writes a configuration decides what its agent does",
        ),
        ("file.readable", readable, "can be read by other users", "who reads a token can speak as the bot"),
        (
            "file.directory-open",
            directories,
            "are open to other users",
            "what is in there is only as safe as each single file",
        ),
    ];
    let finding = |(id, all, what, why): (&'static str, Vec<Kept>, &str, &'static str)| {
        let severity = match (all.iter().any(|kept| reachable(&kept.path)), id) {
            (false, _) => Severity::Note,
            (true, "file.directory-open") => Severity::Warning,
            (true, _) => Severity::Error,
        };
        told(patient, id, severity, &all, what, why)
    };
    kinds.into_iter().filter_map(finding).collect()
}

/// `None`: nothing is open.
fn told(
    patient: &Patient,
    id: &'static str,
    severity: Severity,
    all: &[Kept],
    what: &str,
    why: &'static str,
) -> Option<Finding> {
    let first = all.first()?;
    let names: Vec<String> = all.iter().map(|kept| format!("`{}`", kept.path.display())).collect();
    let what = match all.len() {
        1 => what.replacen("are ", "is ", 1),
        _ => what.to_owned(),
    };
    let what = format!("{} of `{}` {what}", few(&names), patient.name);
    let mend = match all.iter().all(|kept| kept.mode == first.mode) {
        true => typed(&format!("chmod {:o}", first.mode), all.iter().map(|kept| &kept.path)),
        false => Mend::Type("openclawctl doctor --fix".to_owned()),
    };
    let fix = |kept: &Kept| Fix::Close { path: kept.path.clone(), mode: kept.mode, owner: kept.owner };
    let finding = Finding::new(id, severity, what, why, mend).of(&patient.name);
    Some(finding.in_file(&first.path, None).fixed_by(all.iter().map(fix).collect()))
}

/// What is there and belongs to `owner`. A link is followed by nobody here: what it points to is not the instance's.
fn own(path: &Path, owner: u32, budget: &Budget) -> Option<Metadata> {
    budget.take().then(|| ground::look(path)).flatten().filter(|found| found.uid() == owner)
}

/// What belongs to another user than the one who is to have it.
pub(super) fn foreign(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let found = budget.fairly(&scene.asked_for(), |patient, budget| foreign_of(scene, patient, budget));
    found.into_iter().flatten().collect()
}

fn foreign_of(scene: &Scene, patient: &Patient, budget: &Budget) -> Option<Finding> {
    let theirs = patient.owner()?;
    let at = ground::directories(scene, patient);
    let directories = directories(&at, theirs);
    let secrets = secrets(&at, budget).into_iter().map(|path| (path, theirs));
    let all = directories.iter().map(|kept| (kept.path.clone(), kept.owner)).chain(secrets);
    let found = all.filter_map(|(path, owner)| {
        let found = budget.take().then(|| ground::look(&path)).flatten()?;
        (found.uid() != owner).then_some((path, owner, found))
    });
    let foreign: Vec<(PathBuf, u32, Metadata)> = found.collect();
    let (first, owner, found) = foreign.first()?;
    let runs = if *owner == theirs { "its gateway runs" } else { "the supervisor runs" };
    let what = format!(
        "{} of `{}` to user {}, but {runs} as user {owner}: `{}`",
        count(foreign.len(), "path belongs", "paths belong"),
        patient.name,
        found.uid(),
        first.display()
    );
    let why = "the gateway may not read or replace it, and that user may change what its agent does";
    // With all that is in it, unless there is in it what is another's by right.
    let around = directories.iter().find(|kept| kept.owner == theirs && first.starts_with(&kept.path));
    let (all, path) = match around.filter(|_| *owner == theirs) {
        Some(around) => ("R", &around.path),
        None => ("", first),
    };
    let sudo = if nix::unistd::geteuid().is_root() { "" } else { "sudo " };
    let mend = typed(&format!("{sudo}chown -h{all} {owner}"), [path]);
    let finding = Finding::new("file.foreign", Severity::Error, what, why, mend);
    Some(finding.of(&patient.name).in_file(first, None))
}

/// Halves of files that were being replaced when a supervisor was killed.
pub(super) fn leftovers(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let found = budget.fairly(&scene.asked_for(), |patient, budget| leftovers_of(scene, patient, budget));
    found.into_iter().flatten().collect()
}

fn leftovers_of(scene: &Scene, patient: &Patient, budget: &Budget) -> Option<Finding> {
    let theirs = patient.owner()?;
    let halves = halves(scene, patient, budget).into_iter();
    let left = halves.filter_map(|path| Some((old(&path, theirs, budget)?, path)));
    let left: Vec<(Metadata, PathBuf)> = left.collect();
    let (_, first) = left.first()?;
    let what = format!(
        "{} left over in the directories of `{}`: `{}`",
        count(left.len(), "file is", "files are"),
        patient.name,
        first.display()
    );
    let why = "it is half of a write that was broken off; it may hold the gateway's token";
    let mend = typed("rm", left.iter().map(|(_, path)| path));
    let file = first.clone();
    let fixes = left.into_iter().map(|(found, path)| Fix::Remove { seen: Seen::of(&found), path }).collect();
    let finding = Finding::new("file.leftover", Severity::Note, what, why, mend);
    Some(finding.of(&patient.name).in_file(&file, None).fixed_by(fixes))
}

/// What is called as the halves of an instance's files are, beside those that hold secrets.
fn halves(scene: &Scene, patient: &Patient, budget: &Budget) -> Vec<PathBuf> {
    let own = ground::directories(scene, patient);
    // A profile's configuration may be a link, and is written beside what that leads to.
    let led = patient.directories.own_config().directory().ok().map(|(_, _, path)| path);
    let configs = [Some(&own.config), led.as_ref()].into_iter().flatten().filter_map(|path| path.parent());
    let written: BTreeSet<&Path> = configs.chain([own.state.as_path()]).collect();
    let is_half = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_bytes().starts_with(UNFINISHED.as_bytes()))
    };
    let mut halves: Vec<PathBuf> =
        written.into_iter().flat_map(|directory| budget.inside(directory)).filter(is_half).collect();
    halves.push(file::half(&incident::file(&own.root)));
    halves
}

/// A file of `owner` that nobody has touched for a while.
pub(super) fn old(path: &Path, owner: u32, budget: &Budget) -> Option<Metadata> {
    let found = own(path, owner, budget)?;
    let age = SystemTime::now().duration_since(found.modified().ok()?).ok()?;
    (age > LEFT_AFTER).then_some(found)
}
