//! Locks whose owner is dead, and what is in the place of locks.
//!
//! OpenClaw writes who holds a lock into it: `{"pid": 7, "startTime": 182562, "createdAt": "…"}`, in later versions
//! and other locks `starttime`; both are field 22 of proc_pid_stat(5). So a lock is stale if that process is not
//! there, or one with that pid began at another time. Locks that are held through SQLite say nothing of an owner,
//! and need none: the kernel releases them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Deserialize;

use super::{
    files::old,
    finding::{Finding, Mend, Severity, count, typed},
    fix::{Fix, Seen, has_worker},
    ground,
    scene::{Budget, Patient, Scene},
};

use crate::{
    openclaw::{
        layout::resolve,
        walls::shared::{self, Squat},
    },
    typed::word,
};

/// Session locks are deep: `agents/main/sessions/ID.jsonl.lock`.
const DEEP: u32 = 5;

/// A lock that was just made may be ahead of our look at its owner.
const FRESH: Duration = Duration::from_secs(10);

/// What a lock says.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    pid: i32,
    #[serde(alias = "starttime")]
    start_time: Option<u64>,
    config_path: Option<PathBuf>,
}

impl Owner {
    /// Whether it is sure that whoever wrote the lock is gone.
    fn is_dead(&self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return self.pid > 0 && !Path::new(&format!("/proc/{}", self.pid)).exists();
        };
        let began: Option<u64> =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok());
        matches!((self.start_time, began), (Some(said), Some(began)) if said != began)
    }
}

/// Locks of dead processes, of each instance.
pub(super) fn stale(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    // Without /proc everybody would seem dead.
    if !Path::new("/proc/self/stat").exists() {
        return Vec::new();
    }
    // Before September's versions all instances had theirs in one place.
    let in_common = dead(
        budget.files(&resolve(&scene.at("/tmp")).join(shared_directory(nix::unistd::geteuid().as_raw())), 0),
    );
    let found =
        budget.fairly(&scene.asked_for(), |patient, budget| stale_of(scene, patient, &in_common, budget));
    found.into_iter().flatten().collect()
}

/// Where OpenClaw keeps the locks of one user below a directory for temporary files.
fn shared_directory(uid: u32) -> String {
    format!("openclaw-{uid}")
}

/// The locks among these files whose owners are dead.
fn dead(files: Vec<PathBuf>) -> Vec<(PathBuf, Owner)> {
    let lock = |path: PathBuf| {
        path.extension().filter(|extension| *extension == "lock")?;
        let owner: Owner = serde_json::from_str(&ground::text(&path)?).ok()?;
        (is_settled(&path) && owner.is_dead()).then_some((path, owner))
    };
    files.into_iter().filter_map(lock).collect()
}

fn stale_of(
    scene: &Scene,
    patient: &Patient,
    in_common: &[(PathBuf, Owner)],
    budget: &Budget,
) -> Option<Finding> {
    let theirs = patient.uid();
    let directories = ground::directories(scene, patient);
    let mut paths = budget.files(&directories.state, DEEP);
    paths.extend(budget.files(&directories.tmp.join(shared_directory(theirs)), 0));
    let mut stale = dead(paths);
    let of_this = |owner: &Owner| owner.config_path.as_ref() == Some(&patient.directories.config);
    stale.extend(in_common.iter().filter(|(_, owner)| of_this(owner)).cloned());
    let (first, owner) = stale.first()?;
    let name = &patient.name;
    let what = format!(
        "{} of `{name}` {} by a process that is gone: `{}` (process {})",
        count(stale.len(), "lock", "locks"),
        if stale.len() == 1 { "is held" } else { "are held" },
        first.display(),
        owner.pid
    );
    let why = "OpenClaw sees through most of them, but a start or an agent may wait for one";
    let mend = typed("rm", stale.iter().map(|(path, _)| path));
    let finding = Finding::new("lock.stale", Severity::Note, what, why, mend).of(name).in_file(first, None);
    // A running gateway may be taking one of them over right now.
    if patient.worker_pid.is_some() {
        let mend = format!("openclawctl down {name} && openclawctl doctor {name} --fix");
        return Some(Finding { mend: Mend::Type(mend), ..finding });
    }
    let fix = |path: &PathBuf| {
        let found = ground::look(path).filter(|found| found.uid() == theirs)?;
        Some(Fix::Remove { path: path.clone(), seen: Seen::of(&found) })
    };
    let fixes = stale.iter().filter_map(|(path, _)| fix(path)).collect();
    Some(finding.fixed_by(fixes))
}

fn is_settled(path: &Path) -> bool {
    let written = ground::look(path).and_then(|found| found.modified().ok());
    written.is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > FRESH))
}

/// What somebody else has put where OpenClaw keeps the locks of a user, and those which others can write.
pub(super) fn squatted(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let mut by_user: BTreeMap<u32, Vec<&Patient>> = BTreeMap::new();
    for patient in scene.patients.iter().filter(|patient| scene.is_openclaw(patient)) {
        by_user.entry(patient.uid()).or_default().push(patient);
    }
    let finding = |(uid, patients): (u32, Vec<&Patient>)| {
        let path = scene.at(&shared::locks(uid).to_string_lossy());
        let squat = Squat::of(&fs::symlink_metadata(&path).ok()?, uid)?;
        let what = format!("`{}`, where OpenClaw keeps its locks, {squat}", path.display());
        let (severity, why, fixes) = match squat {
            Squat::Link | Squat::NoDirectory | Squat::Foreign(_) => {
                let why = "in the locks stands which gateway has which state: without them none of that user is started";
                (Severity::Error, why, Vec::new())
            }
            Squat::Open(_) => {
                let why = "who holds or deletes a lock keeps a gateway from starting, or lets it start twice";
                let fix = Fix::Close { path: ground::above(&path), mode: shared::PRIVATE, owner: uid };
                (Severity::Warning, why, vec![fix])
            }
        };
        let finding = Finding::new("lock.squatted", severity, what, why, Mend::Type(squat.mend(&path)));
        let finding = finding.in_file(&path, None).fixed_by(fixes);
        Some(patients.iter().fold(finding, |finding, patient| finding.of(&patient.name)))
    };
    by_user.into_iter().filter_map(finding).collect()
}

/// Run directories of instances that do not exist.
pub(super) fn run_directories(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let me = nix::unistd::geteuid().as_raw();
    let mut found = Vec::new();
    for path in budget.entries(&resolve(scene.data_dir()).join("run")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_known = scene.patients.iter().any(|patient| *patient.name == *name);
        // One that has just been made may be that of an instance that is being created.
        if is_known || old(&path, me, budget).is_none_or(|found| !found.is_dir()) {
            continue;
        }
        let (what, why, fixes) = match has_worker(&path) {
            Ok(false) => (
                format!("`{}` is left over: there is no instance `{name}`", path.display()),
                "an instance of that name would find the exits of another",
                vec![Fix::RemoveRunDirectory { path: path.clone() }],
            ),
            Ok(true) | Err(_) => (
                format!("a worker runs in `{}`, but there is no instance `{name}`", path.display()),
                "nobody watches what it runs",
                Vec::new(),
            ),
        };
        let (severity, mend) = match fixes.is_empty() {
            false => (Severity::Note, format!("rm -r {}", word(&path))),
            true => (Severity::Error, format!("kill $(cat {})", word(path.join("worker.lock")))),
        };
        found.push(
            Finding::new("run.leftover", severity, what, why, Mend::Type(mend))
                .in_file(&path, None)
                .fixed_by(fixes),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(text: &str) -> Owner {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_owner_is_dead_only_if_that_is_sure() {
        let pid = std::process::id();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let began = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap();
        assert!(
            !owner(&format!(r#"{{"pid":{pid},"createdAt":"x"}}"#)).is_dead(),
            "nothing says that it is another"
        );
        assert!(!owner(&format!(r#"{{"pid":{pid},"starttime":{began}}}"#)).is_dead());
        assert!(owner(&format!(r#"{{"pid":{pid},"startTime":1,"configPath":"/c"}}"#)).is_dead());
        assert!(owner(&format!(r#"{{"pid":{}}}"#, i32::MAX)).is_dead());
        assert!(!owner(r#"{"pid":0}"#).is_dead() && !owner(r#"{"pid":-1}"#).is_dead());
    }
}
