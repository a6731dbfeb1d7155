//! Whether the walls around the instances stand as they were asked for, and whether anything that an instance needs lies
//! behind them.

use std::{collections::BTreeMap, fs, path::Path};

use supervisor_core::ids::Name;
use supervisor_proto::worker::wall::{Kind, State};

use super::{
    finding::{Finding, Mend, Severity},
    scene::{Budget, Patient, Scene},
};
use crate::openclaw::{
    layout::resolve,
    walls::shared::{TEMPORARY, is_fit},
};

/// The modules of the kernel that hold processes to something, by name.
const LSM: &str = "/sys/kernel/security/lsm";

/// A wall that is not whole, and why.
type Gap = (i32, i32, String);

/// Walls that do not stand, each once for all instances that lack it for the same reason.
pub(super) fn missing(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let mut gaps: BTreeMap<Gap, Vec<&Name>> = BTreeMap::new();
    for patient in &scene.patients {
        for wall in patient.walls.iter().filter(|wall| wall.state() != State::Enforced) {
            let gap = (wall.kind, wall.state, wall.reason.clone());
            gaps.entry(gap).or_default().push(&patient.name);
        }
    }
    gaps.into_iter().map(|(gap, names)| finding(gap, &names)).collect()
}

fn finding((kind, state, reason): Gap, names: &[&Name]) -> Finding {
    let (wall, why, mend) = told(Kind::try_from(kind).unwrap_or_default());
    let how = match State::try_from(state).unwrap_or_default() {
        State::Partial => "stands in part",
        State::Unavailable | State::Unspecified | State::Enforced => "is not there",
    };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let what = format!("the wall {wall} {how}{reason}");
    let finding = Finding::new("walls.missing", Severity::Warning, what, why, Mend::Do(mend.to_owned()));
    names.iter().fold(finding, |finding, name| finding.of(name))
}

/// What a wall is for, what happens without it, and what to do.
fn told(kind: Kind) -> (&'static str, &'static str, &'static str) {
    const KERNEL: &str = "use a kernel of 6.12 or later with Landlock and seccomp, or accept it";
    match kind {
        Kind::Files => (
            "around its files",
            "an agent can read other instances' tokens and change their configurations",
            "use a kernel of 6.12 or later with Landlock and seccomp, and for these instances a user for whom no \
             manager of services runs (`user:`, or the system unit), or accept it",
        ),
        Kind::Ports => (
            "around its ports",
            "an agent can listen where another gateway is to, and be taken for it",
            KERNEL,
        ),
        Kind::Apart => {
            ("between it and other processes", "an agent can end other gateways and the supervisor", KERNEL)
        }
        Kind::Privileges => (
            "around its privileges",
            "an agent that finds a hole in a program of the host can become root",
            KERNEL,
        ),
        Kind::Syscalls => {
            ("around its system calls", "an agent reaches parts of the kernel that no gateway needs", KERNEL)
        }
        Kind::Limits => (
            "of its limits",
            "an agent can use up what other gateways need",
            "raise the supervisor's own limits (LimitNOFILE=, LimitNPROC=), or ask for less in `limits`",
        ),
        Kind::User => ("of its user", "it shares a user with the supervisor", "run the supervisor as root"),
        Kind::Cgroup | Kind::Unspecified => (
            "of its control group",
            "an agent can use up what other gateways need",
            "run the supervisor as a service with `Delegate=yes` and `DelegateSubgroup=supervisor` (systemd 254 or \
             later)",
        ),
    }
}

/// Instances whose last life took more memory than there was for it.
pub(super) fn out_of_memory(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let killed = scene.patients.iter().filter(|patient| patient.was_out_of_memory);
    let finding = |patient: &Patient| {
        let (name, limit) = (&patient.name, patient.spec.memory.hard_limit);
        let had = limit.map_or_else(
            || "as the host was short of it".to_owned(),
            |limit| format!("of which it may have {limit}"),
        );
        let what = format!("the last life of `{name}` was killed by the kernel for memory, {had}");
        let why = "what it was doing was cut off, and it will happen again if it needs that much";
        let mend = match limit {
            Some(_) => "find out what takes it (`openclawctl logs`), or raise `memory.hard_limit`",
            None => "find out what takes it (`openclawctl status`), or bound it with `memory.hard_limit`",
        };
        Finding::new("memory.killed", Severity::Note, what, why, Mend::Do(mend.to_owned())).of(name)
    };
    killed.map(finding).collect()
}

/// A kernel that could do more than it was started with.
pub(super) fn kernel(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let Ok(modules) = fs::read_to_string(scene.at(LSM)) else { return Vec::new() };
    if modules.trim().split(',').any(|module| module == "landlock") {
        return Vec::new();
    }
    let what =
        "the kernel was started without Landlock, which holds the walls around files, ports and processes";
    let why = "an agent can read and change whatever the user of its gateway can";
    let mend = format!("start it with `lsm=landlock,{}`", modules.trim());
    vec![Finding::new("walls.landlock", Severity::Warning, what, why, Mend::Do(mend))]
}

/// Workspaces that a configuration names and no wall leaves open, and the directory that OpenClaw prefers to its own.
pub(super) fn outside(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let mut found = Vec::new();
    let walled = || scene.patients.iter().filter(|patient| patient.spec.walls.files());
    for patient in walled() {
        let own = &patient.directories;
        let open: Vec<_> = [&own.state, &own.workspace, &own.home, &own.tmp]
            .into_iter()
            .chain(&patient.spec.walls.write)
            .map(|path| resolve(path))
            .collect();
        for declared in scene.config(patient) {
            let path = Path::new(&declared.value);
            let is_workspace = declared.is(&["agents", "defaults", "workspace"])
                || declared.is(&["agents", "list", "*", "workspace"]);
            let is_log = declared.is(&["logging", "file"]);
            let at = resolve(path);
            // What the supervisor has put there is in a directory of its own.
            let is_open = open.iter().any(|tree| at.starts_with(tree)) || path.starts_with(&own.logs);
            if !path.is_absolute() || !(is_workspace || is_log) || is_open {
                continue;
            }
            let what =
                format!("`{}` of `{}` lies behind the wall around its files", path.display(), patient.name);
            let why = "its gateway can neither read nor write there";
            let tree = if is_log { path.parent().unwrap_or(path) } else { path };
            let mend = format!(
                "grant it in the fleet file, then restart it: `walls: {{ write: [{}] }}`",
                tree.display()
            );
            let finding = Finding::new("walls.outside", Severity::Warning, what, why, Mend::Do(mend));
            found.push(finding.of(&patient.name).in_file(&own.config, Some(declared.place)));
        }
    }
    found.extend(temporary(scene));
    found
}

/// The directory that OpenClaw prefers to its own, fit again since the last start of a gateway that it is closed to.
fn temporary(scene: &Scene) -> Option<Finding> {
    let shared = scene.at(TEMPORARY);
    let found = fs::symlink_metadata(&shared).ok()?;
    let met = |patient: &&Patient| {
        patient.spec.walls.files() && scene.is_openclaw(patient) && is_fit(&found, patient.uid())
    };
    let met: Vec<&Patient> = scene.patients.iter().filter(met).collect();
    let first = met.first()?;
    let what = format!("`{}` is there, and OpenClaw prefers it to its TMPDIR", shared.display());
    let why =
        "all gateways of a user would share it, so their walls keep it closed: no browser starts in them";
    let mend = Mend::Type(format!("openclawctl restart {}", first.name));
    let finding = Finding::new("walls.temporary", Severity::Warning, what, why, mend);
    Some(met.iter().fold(finding, |finding, patient| finding.of(&patient.name)))
}

#[cfg(test)]
mod tests;
