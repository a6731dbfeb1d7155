//! The systemd units that run gateways, and what systemd does with them when it is asked.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::process::Running;
use crate::{
    doctor::services::{Manager, is_gateway_unit, unit_directories},
    tool::Tool,
    typed::word,
};

/// What systemd takes to answer, on a loaded host.
const ASK: Duration = Duration::from_secs(20);

/// OpenClaw's units have 330 s to stop (`TimeoutStopSec`), and then systemd kills them.
const STOP: Duration = Duration::from_secs(345);

/// Units that are looked at. Nobody has so many gateways.
const MOST: usize = 1_000;

/// The largest unit file that is read.
const UNIT_BYTES: u64 = 1 << 20;

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// Its name, with `.service`.
    pub(crate) name: String,
    /// It is of the system, not of the user.
    pub(crate) system: bool,
    /// It is started with its manager.
    pub(crate) enabled: bool,
    /// It runs, or is about to.
    pub(crate) active: bool,
}

/// A unit file that runs a gateway.
#[derive(Debug)]
pub(super) struct UnitFile {
    pub(super) name: String,
    pub(super) system: bool,
    pub(super) text: String,
}

/// The unit files of gateways, those that systemd would prefer first.
pub(super) fn files(home: Option<&Path>, root: &Path) -> Vec<UnitFile> {
    let mut found: Vec<UnitFile> = Vec::new();
    for (directory, manager) in unit_directories(home, root) {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        let paths = entries.flatten().take(MOST).map(|entry| entry.path());
        for path in paths.filter(|path| is_gateway_unit(path)) {
            let system = manager == Manager::System;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let known = found.iter().any(|file| file.name == name && file.system == system);
            if let (false, Some(text)) = (known, read(path)) {
                found.push(UnitFile { name, system, text });
            }
        }
    }
    found.sort_by(|a, b| (a.system, &a.name).cmp(&(b.system, &b.name)));
    found
}

fn read(path: PathBuf) -> Option<String> {
    let found = fs::metadata(&path).ok()?;
    (found.is_file() && found.len() <= UNIT_BYTES).then(|| fs::read_to_string(path).ok()).flatten()
}

impl UnitFile {
    /// What systemd knows of it; `None` if it does not answer.
    pub(super) fn state(&self) -> Option<Unit> {
        let unit = Unit { name: self.name.clone(), system: self.system, enabled: false, active: false };
        let enabled = unit.ask("is-enabled", ASK)?;
        Some(Unit { enabled: enabled.starts_with("enabled"), active: unit.is_active()?, ..unit })
    }
}

impl Unit {
    /// As people type it.
    pub(super) fn typed(&self, verb: &str) -> String {
        let user = if self.system { "" } else { "--user " };
        format!("systemctl {user}{verb} {}", word(&self.name))
    }

    /// Whether it runs, or is about to; `None` if systemd does not answer. Blocks, as all of these do.
    pub(super) fn is_active(&self) -> Option<bool> {
        self.ask("is-active", ASK)
            .map(|state| matches!(state.as_str(), "active" | "activating" | "reloading"))
    }

    /// Its main process.
    pub(super) fn process(&self) -> Option<Running> {
        let pid = self.tool(&["show", "--property=MainPID", "--value"]).ask(ASK)?.parse().ok()?;
        if pid > 0 { Running::of(pid) } else { None }
    }

    /// Keeps it from being started, and ends it.
    pub(super) fn end(&self) {
        self.ask("disable", ASK);
        self.ask("stop", STOP);
    }

    /// Puts it back as it was.
    pub(super) fn bring_back(&self) {
        if self.enabled {
            self.ask("enable", ASK);
        }
        if self.active {
            self.ask("start", STOP);
        }
    }

    fn ask(&self, verb: &str, limit: Duration) -> Option<String> {
        self.tool(&[verb]).ask(limit)
    }

    fn tool(&self, words: &[&str]) -> Tool {
        let manager: &[&str] = if self.system { &[] } else { &["--user"] };
        let args: Vec<&str> = manager.iter().chain(words).copied().chain([self.name.as_str()]).collect();
        Tool::new(Path::new("systemctl"), &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_files_of_gateways_are_found_once_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home/me");
        for path in [
            "home/me/.config/systemd/user/openclaw-gateway.service",
            "home/me/.config/systemd/user/other.service",
            "etc/systemd/user/openclaw-gateway.service",
            "etc/systemd/system/openclaw-gateway-lab.service",
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("# {}\n", path.display())).unwrap();
        }
        let found = files(Some(&home), root.path());
        let names: Vec<(&str, bool)> = found.iter().map(|file| (file.name.as_str(), file.system)).collect();
        assert_eq!(names, [("openclaw-gateway.service", false), ("openclaw-gateway-lab.service", true)]);
        assert!(found[0].text.contains(".config"), "a person's own comes first");
    }

    #[test]
    fn what_to_type_names_the_manager() {
        let unit =
            Unit { name: "openclaw-gateway.service".into(), system: false, enabled: true, active: true };
        assert_eq!(unit.typed("stop"), "systemctl --user stop openclaw-gateway.service");
        let unit = Unit { system: true, ..unit };
        assert_eq!(unit.typed("stop"), "systemctl stop openclaw-gateway.service");
    }
}
