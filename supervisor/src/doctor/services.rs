//! Whether anything else on this host would start an instance's gateway a second time, or has.
//!
//! OpenClaw installs itself as `openclaw-gateway*.service` (systemd) or `ai.openclaw.*.plist` (launchd), and people
//! write crontabs. Which profile such a service runs is read from the variables in it; without any it is the
//! default one, at OpenClaw's own port.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use supervisor_core::ports::DEFAULT_FIRST;

use super::{
    finding::{Finding, Mend, Severity},
    scene::{Budget, Patient, Scene, text},
};
use crate::{
    figures::descendants, lineage::field, openclaw::layout::resolve, problem::Place, proc, typed::word,
};

const TWICE: &str =
    "two gateways on one state directory: the second refuses to start, or both answer as one bot";

/// Whose service manager reads a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    /// That of the supervisor's user.
    User,
    /// That of the host.
    System,
}

impl Manager {
    /// How the service is ended and kept from coming back.
    fn disable(self, unit: &str) -> String {
        match self {
            Self::User => format!("systemctl --user disable --now {}", word(unit)),
            Self::System => format!("sudo systemctl disable --now {}", word(unit)),
        }
    }
}

/// Where unit files are (systemd.unit(5)), those of a person first.
pub(crate) fn unit_directories(home: Option<&Path>, root: &Path) -> Vec<(PathBuf, Manager)> {
    let of_host = |path: &str, manager| (root.join(path.trim_start_matches('/')), manager);
    let mut all: Vec<(PathBuf, Manager)> = Vec::new();
    if let Some(home) = home {
        for path in [".config/systemd/user", ".local/share/systemd/user"] {
            all.push((home.join(path), Manager::User));
        }
    }
    all.extend(["/etc/systemd/user", "/usr/lib/systemd/user"].map(|path| of_host(path, Manager::User)));
    let system = ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];
    all.extend(system.map(|path| of_host(path, Manager::System)));
    all
}

/// Whether this is the file of a unit that OpenClaw installs for a gateway.
pub(crate) fn is_gateway_unit(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("openclaw-gateway") && name.ends_with(".service")
}

/// Unit files that run an instance's gateway.
pub(super) fn units(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let directories = unit_directories(scene.home().as_deref(), &scene.root);
    let mut enabled: HashSet<String> = HashSet::new();
    let mut units: Vec<(PathBuf, Manager)> = Vec::new();
    for (directory, manager) in &directories {
        for path in budget.entries(directory) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".wants") || name.ends_with(".requires") {
                let links = budget.entries(&path).into_iter().filter(|link| is_gateway_unit(link));
                enabled.extend(
                    links.map(|link| link.file_name().unwrap_or_default().to_string_lossy().into_owned()),
                );
            } else if is_gateway_unit(&path) {
                units.push((path, *manager));
            }
        }
    }
    let finding = |(path, manager): (PathBuf, Manager)| {
        let unit = path.file_name()?.to_string_lossy().into_owned();
        let (patient, how) = meets(scene, &text(&path)?)?;
        let (severity, state) = match enabled.contains(&unit) {
            true => (Severity::Error, "is enabled"),
            false => (Severity::Warning, "is installed"),
        };
        let what = format!("the unit `{unit}` {state} and {how} `{}`", patient.name);
        let mend = manager.disable(&unit);
        Some(
            Finding::new("service.unit", severity, what, TWICE, Mend::Type(mend))
                .of(&patient.name)
                .in_file(&path, None),
        )
    };
    units.into_iter().filter_map(finding).collect()
}

/// Launch agents that do, where launchd reads them.
pub(super) fn agents(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let of_user = scene.home().map(|home| home.join("Library/LaunchAgents"));
    let of_host = ["/Library/LaunchAgents", "/Library/LaunchDaemons"].map(|path| scene.at(path));
    let mut found = Vec::new();
    for path in of_user.into_iter().chain(of_host).flat_map(|directory| budget.entries(&directory)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("ai.openclaw.") || !name.ends_with(".plist") {
            continue;
        }
        if let Some((patient, how)) = text(&path).as_deref().and_then(|text| meets(scene, text)) {
            let what = format!("the launch agent `{name}` {how} `{}`", patient.name);
            let mend = format!("launchctl unload -w {}", word(&path));
            found.push(
                Finding::new("service.agent", Severity::Error, what, TWICE, Mend::Type(mend))
                    .of(&patient.name)
                    .in_file(&path, None),
            );
        }
    }
    found
}

/// The instance that a service would get in the way of, and how.
fn meets<'a>(scene: &'a Scene, service: &str) -> Option<(&'a Patient, &'static str)> {
    let home = scene.home().unwrap_or_default();
    let expanded = |value: String| PathBuf::from(value.replace("%h", &home.to_string_lossy()));
    let profile = profile_of_service(service);
    let state = state_of_service(service, &home);
    if let Some(patient) = scene.owner_of(&state) {
        return Some((patient, "would start a second copy of"));
    }
    let config = variable(service, "OPENCLAW_CONFIG_PATH").map(|value| resolve(&expanded(value)));
    let same = |patient: &&Patient| {
        config.as_ref().is_some_and(|config| *config == resolve(&patient.directories.config))
    };
    if let Some(patient) = scene.patients.iter().find(same) {
        return Some((patient, "would start a second copy of"));
    }
    let port = variable(service, "OPENCLAW_GATEWAY_PORT")
        .map_or_else(|| profile.is_none().then_some(DEFAULT_FIRST), |port| port.parse().ok());
    Some((scene.holder_of(port?)?, "would take a port of"))
}

/// The profile that a service names, unless it is the default one.
fn profile_of_service(service: &str) -> Option<String> {
    variable(service, "OPENCLAW_PROFILE").filter(|profile| profile != "default")
}

/// The state directory of the gateway that a service runs.
pub(crate) fn state_of_service(service: &str, home: &Path) -> PathBuf {
    let named = variable(service, "OPENCLAW_STATE_DIR");
    named.map(|value| PathBuf::from(value.replace("%h", &home.to_string_lossy()))).unwrap_or_else(|| {
        match profile_of_service(service) {
            Some(profile) => home.join(format!(".openclaw-{profile}")),
            None => home.join(".openclaw"),
        }
    })
}

/// The value that a unit or a plist gives to a variable.
pub(crate) fn variable(service: &str, name: &str) -> Option<String> {
    let (_, after) = service.split_once(name)?;
    // `<key>NAME</key> <string>value</string>`, or `NAME=value` with or without quotes around the whole.
    let value = match after.strip_prefix("</key>") {
        Some(after) => after.split_once("<string>")?.1.split_once("</string>")?.0,
        None => after.strip_prefix('=')?.split(['"', '\'', '\n', ' ']).find(|part| !part.is_empty())?,
    };
    Some(value.trim().to_owned())
}

/// Lines of crontabs that have to do with OpenClaw.
pub(super) fn crontabs(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    let user = me.map_or_else(|| "root".to_owned(), |user| user.name);
    let mut files = vec![scene.at("/etc/crontab")];
    files.extend(budget.entries(&scene.at("/etc/cron.d")));
    files.extend(["/var/spool/cron/crontabs", "/var/spool/cron"].map(|path| scene.at(path).join(&user)));
    let mut found = Vec::new();
    for file in files {
        for (index, line) in text(&file).unwrap_or_default().lines().enumerate() {
            let line = line.trim();
            let ours = line.replace("openclawctl", "").replace("openclaw-supervisor", "");
            if line.starts_with('#') || !ours.contains("openclaw") {
                continue;
            }
            // The line itself may hold secrets.
            let gateway = ours.contains("gateway");
            let (severity, why) = match gateway {
                true => (
                    Severity::Warning,
                    "a gateway that cron starts or restarts is one that the supervisor does not know",
                ),
                false => (
                    Severity::Note,
                    "without an instance's environment it talks to, and changes, the default profile",
                ),
            };
            let what = match gateway {
                true => "a crontab line runs an OpenClaw gateway",
                false => "a crontab line runs OpenClaw",
            };
            let mend = "remove the line, or let it run `openclawctl run NAME -- openclaw …`";
            let place = Place { line: index + 1, column: 1 };
            found.push(
                Finding::new("service.crontab", severity, what, why, Mend::Do(mend.into()))
                    .in_file(&file, Some(place)),
            );
        }
    }
    found
}

/// Gateways that run on an instance's state and that nobody here has started.
pub(super) fn processes(scene: &Scene, budget: &Budget) -> Vec<Finding> {
    let states: HashMap<PathBuf, &Patient> =
        scene.patients.iter().map(|patient| (resolve(&patient.directories.state), patient)).collect();
    let mut found = Vec::new();
    for process in budget.entries(&scene.at("/proc")) {
        let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
            continue;
        };
        let line = proc::look(process.join("cmdline"), proc::COMMAND);
        if !is_gateway(&line) {
            continue;
        }
        let environ = proc::look(process.join("environ"), proc::ENVIRONMENT);
        let patient = states.get(&resolve(&state_of(&environ))).copied();
        let Some(patient) = patient.filter(|patient| is_of(&process, patient.uid())) else { continue };
        let family = patient.worker_pid.map(descendants).unwrap_or_default();
        let is_ours = environment(&environ, "OPENCLAWCTL_MARK").is_some()
            && environment(&environ, "OPENCLAWCTL_DATA_DIR")
                .is_some_and(|data_dir| Path::new(&data_dir) == scene.data_dir());
        // What is left of an ended life is swept by the supervisor itself.
        if is_ours || family.contains(&pid) {
            continue;
        }
        let what = format!(
            "process {pid} is a gateway on the state of `{}` that the supervisor has not started",
            patient.name
        );
        let mend = format!("kill {pid}");
        found.push(
            Finding::new("process.second", Severity::Error, what, TWICE, Mend::Type(mend)).of(&patient.name),
        );
    }
    found
}

/// Whose a process is, by its directory in /proc, which itself seems root's where the process says nothing of itself.
pub(crate) fn user_of(process: &Path) -> Option<u32> {
    field(&fs::read(process.join("status")).ok()?, "Uid:")?.parse().ok()
}

/// Whether a process may be a gateway of `user`'s.
pub(crate) fn is_of(process: &Path, user: u32) -> bool {
    user_of(process).is_some_and(|found| [0, user].contains(&found))
}

/// Whether a command line is that of a gateway. OpenClaw overwrites its own with a title.
pub(crate) fn is_gateway(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(['\0', ' ']).filter(|word| !word.is_empty());
    let title = words.clone().next().unwrap_or_default();
    if title == "openclaw-gateway" {
        return true;
    }
    let is_openclaw = words.any(|word| {
        let name = word.rsplit('/').next().unwrap_or_default();
        name == "openclaw" || name == "openclaw.mjs"
    });
    is_openclaw
        && words.next() == Some("gateway")
        && words.next().is_none_or(|next| next == "run" || next.starts_with('-'))
}

/// The state directory of a process, by its environment.
pub(crate) fn state_of(environ: &[u8]) -> PathBuf {
    environment(environ, "OPENCLAW_STATE_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let home = environment(environ, "OPENCLAW_HOME").or_else(|| environment(environ, "HOME"));
        PathBuf::from(home.unwrap_or_default()).join(".openclaw")
    })
}

/// The value of a variable in what proc_pid_environ(5) shows.
pub(crate) fn environment(environ: &[u8], name: &str) -> Option<String> {
    let value = |variable: &[u8]| {
        Some(String::from_utf8_lossy(variable).strip_prefix(name)?.strip_prefix('=')?.to_owned())
    };
    environ.split(|byte| *byte == 0).find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_from_units_and_plists() {
        let unit = "[Service]\nEnvironment=OPENCLAW_STATE_DIR=/a/b\nEnvironment=\"OPENCLAW_PROFILE=x y\"\n";
        assert_eq!(variable(unit, "OPENCLAW_STATE_DIR").as_deref(), Some("/a/b"));
        assert_eq!(variable(unit, "OPENCLAW_GATEWAY_PORT"), None);
        let quoted = "Environment='OPENCLAW_STATE_DIR=/a' HOME=/h\n";
        assert_eq!(variable(quoted, "OPENCLAW_STATE_DIR").as_deref(), Some("/a"));
        let plist = "<key>OPENCLAW_STATE_DIR</key>\n <string>/Users/me/.openclaw</string>";
        assert_eq!(variable(plist, "OPENCLAW_STATE_DIR").as_deref(), Some("/Users/me/.openclaw"));
    }

    #[test]
    fn a_gateway_is_known_by_its_title_or_its_arguments() {
        for line in [
            "openclaw-gateway\0\0\0",
            "/opt/bin/node\0/opt/lib/openclaw/openclaw.mjs\0gateway\0run\0",
            "openclaw\0gateway\0",
        ] {
            assert!(is_gateway(line.as_bytes()), "{line}");
        }
        for line in
            ["openclaw\0gateway\0status\0", "openclaw\0status\0", "grep\0openclaw-gateway\0", "", "sh\0"]
        {
            assert!(!is_gateway(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn the_state_of_a_process_is_what_openclaw_would_take() {
        assert_eq!(state_of(b"HOME=/h\0OPENCLAW_STATE_DIR=/s\0"), Path::new("/s"));
        assert_eq!(state_of(b"HOME=/h\0"), Path::new("/h/.openclaw"));
        assert_eq!(state_of(b"HOME=/h\0OPENCLAW_HOME=/o\0"), Path::new("/o/.openclaw"));
    }
}
