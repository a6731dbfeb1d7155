//! The profiles that OpenClaw's own command line, and OCM, have left on this host.
//!
//! ```text
//!   ~/.openclaw            main          its port: gateway.port, else what its unit says, else 18789
//!   ~/.openclaw-NAME       NAME
//!   ~/.ocm/envs.json       by name       ROOT/.openclaw
//!   openclaw-gateway*.service            what else they name as their state directory
//! ```
//!
//! Only looks. What cannot be read is no profile.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;
use supervisor_core::ports::DEFAULT_FIRST;

use super::{
    process::{self, Running},
    unit::{self, Unit, UnitFile},
};
use crate::{
    doctor::{declared, services::state_of_service, services::variable},
    openclaw::{config::check::read_plainly, layout::resolve, own::Own},
    spec::{Profile, is_supervisors},
};

/// Entries of the home directory that are looked at.
const MOST_ENTRIES: usize = 100_000;

/// Files of one profile's agents that are counted.
const MOST_SESSIONS: usize = 1_000_000;

/// Sessions are at `agents/AGENT/sessions/ID.jsonl`, later versions' databases at `agents/AGENT/agent/NAME.sqlite`.
const SESSION_DEPTH: u32 = 3;

/// The largest registry of OCM that is read.
const OCM_BYTES: u64 = 16 << 20;

/// Variables of a unit that are the host's, not the gateway's.
const OF_HOST: [&str; 8] =
    ["PATH", "USER", "LOGNAME", "SHELL", "LANG", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "NODE_ENV"];

/// Where to look.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    /// Of the supervisor's user.
    pub(super) home: Option<PathBuf>,
    /// `/`.
    pub(super) root: PathBuf,
    /// Where OCM keeps its own, if that is said.
    pub(super) ocm: Option<PathBuf>,
}

/// A profile.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) state: PathBuf,
    pub(super) config: PathBuf,
    pub(super) workspace: PathBuf,
    /// A link in its state leads there.
    pub(super) config_is_linked: bool,
    /// What the configuration holds.
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    /// The gateway's port, if something names it.
    pub(super) port: Option<u16>,
    /// The unit that runs it, if systemd answers.
    pub(super) unit: Option<Unit>,
    /// What that unit adds to the environment.
    pub(super) env: BTreeMap<String, String>,
    pub(super) running: Option<Running>,
    pub(super) sessions: usize,
    /// OCM's supervisor runs it.
    pub(super) ocm_runs: bool,
    pub(super) notes: Vec<String>,
}

impl Found {
    /// As it was found, maybe by links.
    pub(super) fn as_found(&self) -> [&Path; 3] {
        [&self.state, &self.workspace, self.config.parent().unwrap_or(&self.config)]
    }

    /// What lies outside the state because the profile itself says so, and so perhaps an agent: configuration and
    /// workspace.
    pub(super) fn elsewhere(&self) -> [Option<&Path>; 2] {
        // One beside the default profile's own is that one's agents' to make.
        let places = [(&self.config, self.config_is_linked), (&self.workspace, true)];
        places.map(|(path, says)| says.then_some(path.as_path()).filter(|path| !is_within(path, &self.state)))
    }

    /// As an instance names it: by the way on which there is no link.
    pub(super) fn profile(&self) -> Profile {
        let directory = self.config.parent().unwrap_or(&self.config);
        let config = resolve(directory).join(self.config.file_name().unwrap_or_default());
        // What lies in the state goes with it, wherever a link leads from there.
        let (state, own) =
            (resolve(&self.state), |path: &Path| path.strip_prefix(&self.state).map(Path::to_owned));
        let workspace = match own(&self.workspace) {
            Ok(rest) => state.join(rest),
            Err(_) => resolve(&self.workspace),
        };
        Profile { state_dir: Some(state), config: Some(config), workspace: Some(workspace) }
    }
}

/// All profiles, by name. Blocks on the disk and on systemd.
pub(super) fn profiles(ground: &Ground) -> Vec<Found> {
    let units = unit::files(ground.home.as_deref(), &ground.root);
    let mut places = of_home(ground);
    places.extend(of_ocm(ground));
    if let Some(home) = &ground.home {
        places.extend(units.iter().map(|unit| Place::of_unit(unit, home)));
    }
    let mut found: Vec<Found> = Vec::new();
    for place in places {
        // One place may be known by several ways, and one name stands for the first that has it.
        let known =
            |other: &Found| other.name == place.name || resolve(&other.state) == resolve(&place.state);
        if !found.iter().any(known) {
            found.extend(look(ground, place, &units));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Where a profile may be.
struct Place {
    name: String,
    state: PathBuf,
    ocm_runs: bool,
}

impl Place {
    fn of_unit(unit: &UnitFile, home: &Path) -> Self {
        let name = unit.name.trim_start_matches("openclaw-gateway").trim_start_matches('-');
        let name = name.trim_end_matches(".service");
        let name = if name.is_empty() { "main" } else { name };
        Self { name: name.to_owned(), state: state_of_service(&unit.text, home), ocm_runs: false }
    }
}

fn of_home(ground: &Ground) -> Vec<Place> {
    let Some(home) = &ground.home else { return Vec::new() };
    let Ok(entries) = fs::read_dir(home) else { return Vec::new() };
    let mut places: Vec<Place> = entries
        .flatten()
        .take(MOST_ENTRIES)
        .filter_map(|entry| {
            let directory = entry.file_name().to_str()?.to_owned();
            let name = match directory.strip_prefix(".openclaw")? {
                "" => "main",
                suffix => suffix.strip_prefix('-')?,
            };
            Some(Place { name: name.to_owned(), state: home.join(&directory), ocm_runs: false })
        })
        .collect();
    // The default profile is `main`, even beside one that is called so.
    places.sort_by(|a, b| a.state.cmp(&b.state));
    places
}

#[derive(Deserialize)]
struct OcmRegistry {
    envs: Vec<OcmEnvironment>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OcmEnvironment {
    name: String,
    root: PathBuf,
    #[serde(default)]
    service_enabled: bool,
    #[serde(default)]
    service_running: bool,
}

/// OCM's registry, as github.com/openclaw/ocm writes it (`src/store/envs.rs`).
fn of_ocm(ground: &Ground) -> Vec<Place> {
    let own = ground.home.as_ref().map(|home| home.join(".ocm"));
    let Some(path) = ground.ocm.clone().or(own).map(|ocm| ocm.join("envs.json")) else { return Vec::new() };
    let small = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= OCM_BYTES);
    let text = small.then(|| fs::read_to_string(path).ok()).flatten().unwrap_or_default();
    let registry = serde_json::from_str(&text).unwrap_or(OcmRegistry { envs: Vec::new() });
    let place = |env: OcmEnvironment| Place {
        name: env.name,
        state: env.root.join(".openclaw"),
        ocm_runs: env.service_enabled && env.service_running,
    };
    registry.envs.into_iter().map(place).collect()
}

fn look(ground: &Ground, place: Place, units: &[UnitFile]) -> Option<Found> {
    let Place { name, state, ocm_runs } = place;
    let home = ground.home.clone().unwrap_or_default();
    let of_unit: Vec<&UnitFile> = units
        .iter()
        .filter(|unit| resolve(&state_of_service(&unit.text, &home)) == resolve(&state))
        .collect();
    let named = of_unit.first().and_then(|unit| variable(&unit.text, "OPENCLAW_CONFIG_PATH"));
    let named = named.map(|path| PathBuf::from(path.replace("%h", &home.to_string_lossy())));
    let config = named.unwrap_or_else(|| state.join("openclaw.json"));
    // Its owner may keep it elsewhere, and then the instance has it there: it follows no link out of its directories.
    let config_is_linked = config.is_symlink();
    let config = if config_is_linked { resolve(&config) } else { config };
    let content = read_plainly(Own::nobodys(&config)).ok()??;
    let about = fs::metadata(&config).ok()?;
    let values = declared::read(&String::from_utf8_lossy(&content));
    let value = |keys: &[&str]| values.iter().find(|value| value.is(keys)).map(|value| value.value.clone());
    let port = value(&["gateway", "port"]).and_then(|port| port.parse().ok());
    let mut notes = Vec::new();
    let unit = unit_of(&of_unit, &mut notes);
    let text = of_unit.first().map(|unit| unit.text.as_str()).unwrap_or_default();
    let running = unit.as_ref().filter(|unit| unit.active).and_then(Unit::process);
    // Where it really is, so that nobody is told of a link and given what it leads to.
    let workspace = workspace(value(&["agents", "defaults", "workspace"]), &name, &state, &home);
    let workspace = if is_within(&workspace, &state) { workspace } else { resolve(&workspace) };
    let found = Found {
        config_is_linked,
        workspace,
        port: port.or_else(|| port_of_unit(text)).or((name == "main").then_some(DEFAULT_FIRST)),
        running: running.or_else(|| process::owner(&ground.root, &state, &config)),
        sessions: sessions(&state),
        env: added_by_unit(text, &mut notes),
        mode: about.mode() & 0o777,
        uid: about.uid(),
        name,
        state,
        config,
        content,
        unit,
        ocm_runs,
        notes,
    };
    Some(found)
}

/// Whether a path is one in a state directory, as it is written.
fn is_within(path: &Path, state: &Path) -> bool {
    path.starts_with(state) && !path.components().any(|part| part == Component::ParentDir)
}

fn unit_of(files: &[&UnitFile], notes: &mut Vec<String>) -> Option<Unit> {
    let file = files.first()?;
    for other in &files[1..] {
        notes.push(format!("the unit `{}` names this profile, too; it is left as it is", other.name));
    }
    let unit = file.state();
    if unit.is_none() {
        notes.push(format!("systemd does not answer about the unit `{}`, which is left as it is", file.name));
    }
    unit
}

/// Where the agents' files are: as configured, or where one of OpenClaw's versions puts them.
fn workspace(configured: Option<String>, name: &str, state: &Path, home: &Path) -> PathBuf {
    let beside = home.join(".openclaw").join(format!("workspace-{name}"));
    match configured {
        Some(path) => match path.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => PathBuf::from(path),
        },
        None if !state.join("workspace").exists() && beside.is_dir() => beside,
        None => state.join("workspace"),
    }
}

/// What a unit says of the port: its command line beats its environment.
fn port_of_unit(text: &str) -> Option<u16> {
    let command = text.lines().find(|line| line.starts_with("ExecStart="))?;
    let mut words = command.split([' ', '=', '"']);
    let flag = words.by_ref().find(|word| *word == "--port").and_then(|_| words.next());
    flag.and_then(|port| port.parse().ok()).or_else(|| variable(text, "OPENCLAW_GATEWAY_PORT")?.parse().ok())
}

/// The variables that a unit adds and that neither the host nor the supervisor sets.
fn added_by_unit(text: &str, notes: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut added = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("EnvironmentFile=") {
            let note = "the unit reads variables from a file (`EnvironmentFile=`), which the instance does not; \
                        put those that it needs into `.env` of the state directory";
            notes.push(note.into());
        }
        let Some(rest) = line.strip_prefix("Environment=") else { continue };
        // One assignment may be quoted as a whole; several stand unquoted beside each other.
        let quoted =
            rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|rest| !rest.contains('"'));
        let words: Vec<&str> = quoted.map_or_else(|| rest.split(' ').collect(), |whole| vec![whole]);
        for (name, value) in words.iter().filter_map(|word| word.trim_matches(['"', '\'']).split_once('=')) {
            if matches!(name, "OPENCLAW_GATEWAY_TOKEN" | "OPENCLAW_GATEWAY_PASSWORD") {
                let note =
                    "its unit sets the gateway's secret; the instance has the one in its configuration";
                notes.push(note.into());
            }
            if !is_supervisors(name) && !OF_HOST.contains(&name) && !value.contains('%') {
                added.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    added
}

/// How many files hold sessions.
pub(super) fn sessions(state: &Path) -> usize {
    let mut count = 0;
    walk(&state.join("agents"), SESSION_DEPTH, &mut count);
    count
}

fn walk(directory: &Path, depth: u32, count: &mut usize) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if *count >= MOST_SESSIONS {
            return;
        }
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() && depth > 0 {
            walk(&path, depth - 1, count);
        } else if kind.is_file() && path.extension().is_some_and(|end| end == "jsonl" || end == "sqlite") {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World(tempfile::TempDir);

    impl World {
        fn new(files: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for (path, content) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Self(root)
        }

        fn look(&self) -> Vec<Found> {
            let home = Some(self.0.path().join("home"));
            profiles(&Ground { home, root: self.0.path().to_owned(), ocm: None })
        }
    }

    #[test]
    fn profiles_are_found_with_what_is_theirs() {
        let world = World::new(&[
            ("home/.openclaw/openclaw.json", "{}"),
            ("home/.openclaw/agents/main/sessions/a.jsonl", ""),
            ("home/.openclaw/agents/main/sessions/a.jsonl.lock", ""),
            ("home/.openclaw/agents/main/agent/openclaw-agent.sqlite", ""),
            ("home/.openclaw/workspace-lab/AGENTS.md", ""),
            ("home/.openclaw-lab/openclaw.json", "{ gateway: { port: 19789 } }"),
            ("home/.openclaw-own/openclaw.json", "{ agents: { defaults: { workspace: '~/w' } } }"),
            ("home/.openclaw-empty/other", ""),
            ("home/.openclawed/openclaw.json", "{}"),
        ]);
        let found = world.look();
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["lab", "main", "own"]);
        let home = world.0.path().join("home");
        assert_eq!((found[0].port, found[1].port, found[2].port), (Some(19_789), Some(18_789), None));
        assert_eq!(found[0].workspace, home.join(".openclaw/workspace-lab"), "where early versions put it");
        assert_eq!(found[1].workspace, home.join(".openclaw/workspace"));
        assert_eq!(found[2].workspace, home.join("w"));
        let elsewhere = found.iter().map(Found::elsewhere).collect::<Vec<_>>();
        let [lab, own] = [home.join(".openclaw/workspace-lab"), home.join("w")];
        assert_eq!(elsewhere, [[None, Some(lab.as_path())], [None; 2], [None, Some(own.as_path())]]);
        assert_eq!((found[1].sessions, found[0].sessions), (2, 0));
    }

    #[test]
    fn environments_of_ocm_are_found_by_its_registry() {
        let world =
            World::new(&[("home/.ocm/envs/dev/.openclaw/openclaw.json", "{ gateway: { port: 20000 } }")]);
        let root = world.0.path().join("home/.ocm/envs/dev");
        let env = |running: bool| {
            format!(
                r#"{{"kind":"ocm-env-registry","envs":[{{"kind":"ocm-env","name":"dev","root":"{}","serviceEnabled":true,"serviceRunning":{running},"createdAt":"x"}}]}}"#,
                root.display()
            )
        };
        let registry = world.0.path().join("home/.ocm/envs.json");
        for running in [true, false] {
            fs::write(&registry, env(running)).unwrap();
            let found = world.look();
            assert_eq!(
                (found[0].name.as_str(), found[0].port, found[0].ocm_runs),
                ("dev", Some(20_000), running)
            );
        }
    }

    #[test]
    fn what_a_unit_sets_goes_with_the_profile_unless_it_is_the_hosts_or_the_supervisors() {
        let unit = "[Service]\nExecStart=/usr/bin/node /o/index.js gateway --port 19001\nEnvironment=HOME=/h\nEnvironment=\"OPENAI_API_KEY=a b\"\nEnvironment=A=1 B=2\nEnvironment=OPENCLAW_GATEWAY_PORT=19002\nEnvironment=PATH=/bin\nEnvironmentFile=-/e\n";
        let mut notes = Vec::new();
        let added = added_by_unit(unit, &mut notes);
        let expected = [("A", "1"), ("B", "2"), ("OPENAI_API_KEY", "a b")];
        assert_eq!(added, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(notes.len(), 1);
        assert_eq!(port_of_unit(unit), Some(19_001));
        assert_eq!(port_of_unit(&unit.replace(" --port 19001", "")), Some(19_002));
    }
}
