//! The environment of an instance's gateway, built from nothing.
//!
//! What the supervisor inherited reaches a gateway only by the allow-list below. OpenClaw takes an inherited
//! `INVOCATION_ID` for "systemd owns me", an inherited `OPENCLAW_GATEWAY_PORT` for its port and an inherited
//! `OPENCLAW_STATE_DIR` for its state; one forgotten variable, and a rescue serves main's state on main's
//! port.
//!
//! Every instance, whatever its runtime, is told the same, so that `openclaw` run inside it by an agent, a
//! wrapper or `openclawctl run` speaks to its own gateway and leaves restarts and updates to the supervisor.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use supervisor_core::{fence::Channels, ids::Name, ports::Block};

use super::{
    config::Discovery,
    contract::Contract,
    incident::{Incident, MAX_TEXT, exit_text, shortened, since_text},
    layout::{Directories, Layout},
    runtime::Resolved,
    secret::{self, is_secret_name, looks_secret},
};
use crate::spec::Kind;

/// Inherited as they are.
const INHERITED: [&str; 9] = [
    "LANG",
    "LANGUAGE",
    "TZ",
    "USER",
    "LOGNAME",
    "SHELL",
    "NODE_EXTRA_CA_CERTS",
    "NODE_USE_SYSTEM_CA",
    "CURL_CA_BUNDLE",
];

/// Inherited with whatever follows.
const INHERITED_PREFIXES: [&str; 2] = ["LC_", "SSL_CERT_"];

/// Inherited in either case of letters, as programs differ in which they read.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy"];

/// By which the supervisor knows an instance's processes again: found in all of them, worker included.
pub const MARK: &str = "OPENCLAWCTL_MARK";

/// What a person runs in an instance says so beside the mark: the session that it is in is that person's.
pub const GUEST: &str = "OPENCLAWCTL_GUEST";

/// Where programs are looked for if the supervisor has no PATH itself (the default of systemd.exec(5)).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What stands in the place of a value that is not shown.
pub const WITHHELD: &str = "(withheld)";

/// How a gateway under this supervisor is to behave, for all versions of OpenClaw; each reads what it knows.
const SUPERVISED: [(&str, &str); 3] = [
    // Somebody else owns start and stop: no self-update, no systemd, no launchd.
    ("OPENCLAW_SUPERVISOR_MODE", "external"),
    // `openclaw doctor` repairs no service definitions.
    ("OPENCLAW_SERVICE_REPAIR_POLICY", "external"),
    ("OPENCLAW_NO_AUTO_UPDATE", "1"),
];

/// What an environment is built from.
#[derive(Debug)]
pub struct Ingredients<'a> {
    /// The supervisor's own environment.
    pub host: &'a BTreeMap<String, String>,
    /// The instance.
    pub name: &'a Name,
    /// Its directories.
    pub directories: &'a Directories,
    /// Its ports.
    pub block: Block,
    /// What its spec adds.
    pub added: &'a BTreeMap<String, String>,
    /// What runs in it.
    pub runtime: &'a Resolved,
    /// Found in every process of the instance, by which the supervisor knows them again.
    pub mark: &'a str,
    /// The supervisor's data directory and socket, so that an agent can call it.
    pub control: &'a Control,
    /// Whether the configuration asks for announcements on the local network.
    pub discovery: Discovery,
    /// Whom the instance stands in for.
    pub incidents: &'a [Incident],
    /// Where the incidents are described in full.
    pub incident_file: &'a Path,
    /// Whether the runtime hands its restarts over.
    pub contract: Contract,
    /// Whether the gateway has its channels.
    pub channels: Channels,
}

/// How the supervisor is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
}

/// The whole environment of the instance's gateway.
#[must_use]
pub fn environment(from: &Ingredients<'_>) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = from
        .host
        .iter()
        .filter(|(name, _)| is_inherited(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    variables.insert("PATH".to_owned(), search_path(from));
    variables.extend(from.added.iter().map(|(name, value)| (name.clone(), value.clone())));

    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let Directories { config, state, workspace, home, tmp, layout, .. } = from.directories;
    set("HOME", path(home));
    set("TMPDIR", path(tmp));
    set("OPENCLAW_STATE_DIR", path(state));
    set("OPENCLAW_CONFIG_PATH", path(config));
    set("OPENCLAW_WORKSPACE_DIR", path(workspace));
    // Beats `gateway.port`: a configuration edited behind the supervisor's back moves no gateway out of its
    // block.
    set("OPENCLAW_GATEWAY_PORT", from.block.base.to_string());
    for (name, value) in SUPERVISED {
        set(name, value.to_owned());
    }
    match from.contract {
        // A version that puts a launcher between the worker and the gateway does without. One that hands its
        // restarts over would keep them to itself.
        Contract::None => set("OPENCLAW_NO_RESPAWN", "1".to_owned()),
        Contract::Handoff => None,
    };
    match from.channels {
        Channels::Off => set("OPENCLAW_SKIP_CHANNELS", "1".to_owned()),
        Channels::On => None,
    };
    match from.discovery {
        Discovery::Quiet => set("OPENCLAW_DISABLE_BONJOUR", "1".to_owned()),
        Discovery::AskedFor => None,
    };
    // In a profile's own configuration `~` means the home it was written in.
    if let (Layout::Profile, Some(home)) = (layout, from.host.get("HOME")) {
        set("OPENCLAW_HOME", home.clone());
    }
    set("OPENCLAWCTL_DATA_DIR", path(&from.control.data_dir));
    set("OPENCLAWCTL_SOCKET", path(&from.control.socket));
    set("OPENCLAWCTL_INSTANCE", from.name.to_string());
    set(MARK, from.mark.to_owned());
    match from.runtime.kind {
        Kind::Command => set("PORT", from.block.base.to_string()),
        Kind::Openclaw | Kind::Builtin => None,
    };
    if let Some(incident) = from.incidents.first() {
        let all: Vec<&str> = from.incidents.iter().map(|incident| &*incident.primary).collect();
        set("RESCUE_INCIDENT_FILE", path(from.incident_file));
        set("RESCUE_PRIMARY", incident.primary.to_string());
        set("RESCUE_PRIMARIES", all.join(","));
        set("RESCUE_SINCE", since_text(incident));
        set("RESCUE_REASON", shortened(&incident.reason, MAX_TEXT).replace('\0', ""));
        set("RESCUE_LAST_EXIT", exit_text(incident));
    }
    variables
}

fn is_inherited(name: &str) -> bool {
    INHERITED.contains(&name)
        || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
}

/// The supervisor's PATH, after the program's own directory if that holds a `node`: an OpenClaw installed
/// beside its Node must not be run by another one.
fn search_path(from: &Ingredients<'_>) -> String {
    let inherited = from.host.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    match &from.runtime.beside {
        Some(directory) if inherited.split(':').next().map(Path::new) != Some(directory) => {
            format!("{}:{inherited}", directory.display())
        }
        Some(_) | None => inherited.to_owned(),
    }
}

/// The variables whose values are not shown to anyone.
#[must_use]
pub fn withheld(variables: &BTreeMap<String, String>) -> Vec<String> {
    let secret = variables.iter().filter(|(name, value)| is_withheld(name, value));
    secret.map(|(name, _)| name.clone()).collect()
}

/// Whether the value of this variable is not shown to anyone: its name says that it is a secret, or it looks like one, or
/// like a URL with one.
#[must_use]
pub fn is_withheld(name: &str, value: &str) -> bool {
    is_secret_name(name) || looks_secret(value) || !secret::parts(value).is_empty()
}

/// The variables of a spec as they are shown: [`WITHHELD`] in the place of what is not.
#[must_use]
pub fn shown(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let shown = |(name, value): (&String, &String)| {
        let value = if is_withheld(name, value) { WITHHELD } else { value };
        (name.clone(), value.to_owned())
    };
    variables.iter().map(shown).collect()
}

/// Takes variables for what they stand for: what was shown as [`WITHHELD`] and comes back is as it is now. Refused is
/// the first that is nothing now.
pub fn restore(
    variables: &mut BTreeMap<String, String>,
    now: Option<&BTreeMap<String, String>>,
) -> Result<(), String> {
    for (name, value) in variables.iter_mut().filter(|(_, value)| *value == WITHHELD) {
        let known = now.and_then(|now| now.get(name)).ok_or_else(|| name.clone())?;
        value.clone_from(known);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{openclaw::incident::tests::incident, spec::Profile};

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn resolved(kind: Kind) -> Resolved {
        Resolved { kind, program: "/bin/true".into(), args: Vec::new(), note: None, beside: None }
    }

    fn build(
        host: &[(&str, &str)],
        profile: Option<&Profile>,
        added: &[(&str, &str)],
        kind: Kind,
        incidents: &[Incident],
    ) -> BTreeMap<String, String> {
        let name = Name::new("rescue").unwrap();
        environment(&Ingredients {
            host: &variables(host),
            name: &name,
            directories: &Directories::at(Path::new("/data"), &name, profile),
            block: Block::at(19_789).unwrap(),
            added: &variables(added),
            runtime: &resolved(kind),
            mark: "mark-1",
            control: &Control { data_dir: "/data".into(), socket: "/data/supervisor.sock".into() },
            discovery: Discovery::Quiet,
            incidents,
            incident_file: Path::new("/data/instances/rescue/incident.json"),
            contract: Contract::None,
            channels: Channels::On,
        })
    }

    #[test]
    fn only_what_is_allowed_is_inherited() {
        let host = [
            ("PATH", "/bin"),
            ("LANG", "de_AT.UTF-8"),
            ("LC_TIME", "C"),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("no_proxy", "localhost"),
            ("SSL_CERT_FILE", "/certs.pem"),
            ("OPENCLAW_STATE_DIR", "/main/state"),
            ("OPENCLAW_SERVICE_MARKER", "openclaw"),
            ("OPENCLAW_PROFILE", "main"),
            ("OPENCLAW_GATEWAY_PORT", "18789"),
            ("INVOCATION_ID", "x"),
            ("JOURNAL_STREAM", "x"),
            ("SYSTEMD_EXEC_PID", "1"),
            ("NOTIFY_SOCKET", "/run/n"),
            ("LISTEN_FDS", "1"),
            ("WATCHDOG_USEC", "1"),
            ("XDG_RUNTIME_DIR", "/run/user/0"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("HOME", "/root"),
            ("TMPDIR", "/var/tmp"),
            ("RESCUE_PRIMARY", "stale"),
        ];
        let built = build(&host, None, &[], Kind::Openclaw, &[]);
        let names: Vec<&str> = built.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "HOME",
                "HTTPS_PROXY",
                "LANG",
                "LC_TIME",
                "OPENCLAWCTL_DATA_DIR",
                "OPENCLAWCTL_INSTANCE",
                "OPENCLAWCTL_MARK",
                "OPENCLAWCTL_SOCKET",
                "OPENCLAW_CONFIG_PATH",
                "OPENCLAW_DISABLE_BONJOUR",
                "OPENCLAW_GATEWAY_PORT",
                "OPENCLAW_NO_AUTO_UPDATE",
                "OPENCLAW_NO_RESPAWN",
                "OPENCLAW_SERVICE_REPAIR_POLICY",
                "OPENCLAW_STATE_DIR",
                "OPENCLAW_SUPERVISOR_MODE",
                "OPENCLAW_WORKSPACE_DIR",
                "PATH",
                "SSL_CERT_FILE",
                "TMPDIR",
                "no_proxy",
            ]
        );
        assert_eq!(built["OPENCLAW_STATE_DIR"], "/data/instances/rescue/state");
        assert_eq!(built["HOME"], "/data/instances/rescue/home");
        assert_eq!(built["OPENCLAW_GATEWAY_PORT"], "19789");
    }

    #[test]
    fn the_spec_adds_variables_and_a_command_is_told_its_port() {
        let built = build(&[], None, &[("LANG", "C"), ("PATH", "/opt/bin")], Kind::Command, &[]);
        assert_eq!((built["LANG"].as_str(), built["PATH"].as_str()), ("C", "/opt/bin"));
        assert_eq!(built["PORT"], "19789");
        assert_eq!(build(&[], None, &[], Kind::Builtin, &[])["PATH"], DEFAULT_PATH);
    }

    #[test]
    fn in_a_profile_a_tilde_means_the_home_it_was_written_in() {
        let profile = Profile { state_dir: Some("/root/.openclaw".into()), ..Profile::default() };
        let built = build(&[("HOME", "/root")], Some(&profile), &[], Kind::Openclaw, &[]);
        assert_eq!(built["OPENCLAW_HOME"], "/root");
        assert_eq!(built["HOME"], "/data/instances/rescue/home");
        assert_eq!(built["OPENCLAW_CONFIG_PATH"], "/root/.openclaw/openclaw.json");
        assert!(!build(&[("HOME", "/root")], None, &[], Kind::Openclaw, &[]).contains_key("OPENCLAW_HOME"));
    }

    #[test]
    fn a_rescue_has_the_incident_in_its_hands() {
        let built = build(&[], None, &[], Kind::Builtin, &[incident("main"), incident("other")]);
        assert_eq!(built["RESCUE_PRIMARY"], "main");
        assert_eq!(built["RESCUE_PRIMARIES"], "main,other");
        assert_eq!(built["RESCUE_INCIDENT_FILE"], "/data/instances/rescue/incident.json");
        assert_eq!(built["RESCUE_LAST_EXIT"], "killed by SIGKILL");
        assert!(built["RESCUE_SINCE"].starts_with("2026-"), "{built:?}");
    }

    #[test]
    fn what_was_withheld_and_comes_back_is_what_it_was() {
        let now = variables(&[("BOT_TOKEN", "x"), ("PROXY", "http://me:word@proxy:1"), ("LANG", "C")]);
        let mut seen = shown(&now);
        assert_eq!(seen, variables(&[("BOT_TOKEN", WITHHELD), ("PROXY", WITHHELD), ("LANG", "C")]));
        seen.insert("LANG".into(), "de_AT".into());
        restore(&mut seen, Some(&now)).unwrap();
        assert_eq!((seen["BOT_TOKEN"].as_str(), seen["LANG"].as_str()), ("x", "de_AT"));
        assert_eq!(seen["PROXY"], now["PROXY"]);
        let mut new = variables(&[("OTHER_TOKEN", WITHHELD)]);
        assert_eq!(restore(&mut new, Some(&now)), Err("OTHER_TOKEN".into()));
        assert_eq!(restore(&mut new, None), Err("OTHER_TOKEN".into()));
    }

    #[test]
    fn secrets_are_withheld_by_name_and_by_shape() {
        let all = variables(&[
            ("ANTHROPIC_API_KEY", "x"),
            ("BOT_TOKEN", "x"),
            ("DB_PASSWORD", "x"),
            ("HTTPS_PROXY", "http://me:word@proxy:1"),
            ("HTTP_PROXY", "http://proxy:1/a@b"),
            ("CDP_URL", "wss://browserless.example?token=x1"),
            ("EXTRA", "sk-ant-0123456789"),
            ("JDBC", "jdbc:sqlserver://h;password=x1"),
            ("KEYBOARD", "us"),
            ("PATH", "/bin"),
            ("OPENCLAWCTL_MARK", "x"),
        ]);
        let secret =
            ["ANTHROPIC_API_KEY", "BOT_TOKEN", "CDP_URL", "DB_PASSWORD", "EXTRA", "HTTPS_PROXY", "JDBC"];
        assert_eq!(withheld(&all), secret);
    }
}
