//! What a configuration is held to.

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path};

use jsonc_parser::{
    ast::{Object, Value},
    common::{Range, Ranged},
};
use supervisor_core::ports::Block;

use super::{
    Config, ConfigError, Discovery, MAX_BYTES, Token, Wanted,
    check::read_bounded,
    document::{Document, Sight, has_include, join},
    edit::{Edit, Set},
    revision,
};
use crate::openclaw::{
    layout::{Directories, Layout, resolve},
    walls::OWN_LOG,
};

/// CDP ports of a block: browsers that the gateway starts.
const CDP: RangeInclusive<u16> = 11..=19;

/// Ports that a relay for a browser extension may have: OpenClaw gives it base + 3 to base + 10 by itself.
const RELAY: RangeInclusive<u16> = 3..=19;

/// The browser profile that OpenClaw has without declaration, at the first CDP port.
const IMPLICIT_PROFILE: &str = "openclaw";

/// The port that a configuration names.
pub(super) fn port(path: &Path, text: &str) -> Result<Option<u16>, ConfigError> {
    let document = Document::parse(path, text)?;
    let Some(gateway) = document.object(document.root()?, "", "gateway")? else { return Ok(None) };
    Ok(document.port(gateway, "gateway", "port")?.map(|(port, _)| port))
}

/// Whether a configuration asks for announcements on the local network.
pub(super) fn declared_discovery(path: &Path, text: &str) -> Result<Discovery, ConfigError> {
    let document = Document::parse(path, text)?;
    discovery(&document, document.root()?)
}

/// The token that a configuration holds in the clear.
pub(super) fn token(path: &Path, text: &str) -> Result<Option<Token>, ConfigError> {
    let document = Document::parse(path, text)?;
    let Some(gateway) = document.object(document.root()?, "", "gateway")? else { return Ok(None) };
    let Some(auth) = document.object(gateway, "gateway", "auth")? else { return Ok(None) };
    Ok(match document.get(auth, "gateway.auth", "token")? {
        Some(Value::StringLit(token)) if !token.value.contains("${") => Some(Token(token.value.to_string())),
        Some(_) | None => None,
    })
}

/// Holds the configuration to the instance's block: what it says, and what is missing in it.
pub(super) fn examine(wanted: &Wanted<'_>, text: &str) -> Result<(Config, Vec<Edit>), ConfigError> {
    let path = &wanted.directories.config;
    let document = Document::parse(path, text)?;
    let root = document.root()?;
    let mut pin = Pin { wanted, document: &document, edits: Vec::new() };
    let token = pin.gateway(root)?;
    pin.paths(root)?;
    pin.canvas(root)?;
    pin.browsers(root)?;
    let edits = pin.edits;
    let config = Config {
        path: path.clone(),
        revision: revision(text.as_bytes()),
        port: wanted.block.base,
        token,
        discovery: discovery(&document, root)?,
    };
    Ok((config, edits))
}

fn discovery(document: &Document<'_>, root: &Object<'_>) -> Result<Discovery, ConfigError> {
    let Some(section) = document.object(root, "", "discovery")? else { return Ok(Discovery::Quiet) };
    let Some(mdns) = document.object(section, "discovery", "mdns")? else { return Ok(Discovery::Quiet) };
    Ok(match document.text(mdns, "discovery.mdns", "mode")? {
        None | Some("off") => Discovery::Quiet,
        Some(_) => Discovery::AskedFor,
    })
}

struct Pin<'w, 'd, 'a> {
    wanted: &'w Wanted<'w>,
    document: &'d Document<'a>,
    edits: Vec<Edit>,
}

impl Pin<'_, '_, '_> {
    /// Port, mode, bind and auth; answers the token if it is there to be read.
    fn gateway(&mut self, root: &Object<'_>) -> Result<Option<Token>, ConfigError> {
        let empty = Object { range: Range::new(0, 0), properties: Vec::new() };
        let gateway = self.document.object(root, "", "gateway")?.unwrap_or(&empty);
        self.gateway_port(gateway)?;
        // What an include brings in is not seen, so only the port is said again.
        if has_include(root) || has_include(gateway) {
            return Ok(None);
        }
        for (key, value) in [("mode", "local"), ("bind", "loopback")] {
            if self.document.get(gateway, "gateway", key)?.is_none() {
                self.edits.push(Edit::new(&["gateway", key], Set::Text(value.to_owned())));
            }
        }
        let auth = self.document.object(gateway, "gateway", "auth")?.unwrap_or(&empty);
        self.auth(auth)
    }

    fn gateway_port(&mut self, gateway: &Object<'_>) -> Result<(), ConfigError> {
        let base = self.wanted.block.base;
        let found = self.document.port(gateway, "gateway", "port")?;
        match found {
            Some((port, _)) if port == base => Ok(()),
            Some((port, _)) if Some(port) == self.wanted.previous_base => {
                self.set_port(&["gateway", "port"], base)
            }
            None => self.set_port(&["gateway", "port"], base),
            Some((port, at)) => {
                let name = self.wanted.name;
                let message =
                    format!("the port is {port}, but the ports of `{name}` are {}", self.wanted.block);
                let mend =
                    format!("write {base} here, or give `{name}` this port: `port: {port}` in its spec");
                Err(ConfigError::PortOutside(self.document.problem(at, "gateway.port", &message, &mend)))
            }
        }
    }

    fn set_port(&mut self, path: &[&str], port: u16) -> Result<(), ConfigError> {
        self.edits.push(Edit::new(path, Set::Port(port)));
        Ok(())
    }

    fn auth(&mut self, auth: &Object<'_>) -> Result<Option<Token>, ConfigError> {
        let at = "gateway.auth";
        let mode = self.document.text(auth, at, "mode")?;
        let other_means = self.document.get(auth, at, "password")?.is_some() && mode.is_none();
        if has_include(auth) || other_means || mode.is_some_and(|mode| mode != "token") {
            return Ok(None);
        }
        match self.document.get(auth, at, "token")? {
            Some(Value::StringLit(token)) if !token.value.trim().is_empty() => {
                // A reference to a variable is resolved by OpenClaw, against its own environment and files.
                Ok((!token.value.contains("${")).then(|| Token(token.value.to_string())))
            }
            // A reference to a secret store.
            Some(Value::Object(_)) => Ok(None),
            Some(Value::NumberLit(_) | Value::BooleanLit(_) | Value::Array(_)) => Ok(None),
            Some(Value::StringLit(_) | Value::NullKeyword(_)) | None => {
                if mode.is_none() {
                    self.edits.push(Edit::new(&["gateway", "auth", "mode"], Set::Text("token".to_owned())));
                }
                self.edits.push(Edit::new(&["gateway", "auth", "token"], Set::FreshToken));
                Ok(None)
            }
        }
    }

    /// Paths that the configuration names: they are the instance's own, and nobody else's.
    fn paths(&mut self, root: &Object<'_>) -> Result<(), ConfigError> {
        let Directories { workspace, logs, layout, .. } = self.wanted.directories;
        // Unless told otherwise all gateways of a host log into one file below /tmp/openclaw.
        let log = logs.join(OWN_LOG).join("openclaw.log");
        // Where earlier supervisors had it, among the captured output.
        let before = logs.join("openclaw.log");
        for (path, own) in
            [(&["agents", "defaults", "workspace"][..], workspace), (&["logging", "file"], &log)]
        {
            match (self.document.sight(root, path)?, layout) {
                (Sight::Absent, Layout::Managed) => {
                    self.edits.push(Edit::new(path, Set::Text(own.to_string_lossy().into_owned())));
                }
                (Sight::Seen(Value::StringLit(found)), Layout::Managed)
                    if *found.value == *before.to_string_lossy() =>
                {
                    self.edits.push(Edit::new(path, Set::Text(own.to_string_lossy().into_owned())));
                }
                (Sight::Seen(Value::StringLit(found)), _) => {
                    self.not_foreign(path, &found.value, found.range)?;
                }
                (Sight::Absent, Layout::Profile) | (Sight::Seen(_) | Sight::Included, _) => {}
            }
        }
        Ok(())
    }

    /// Refuses a path that lies where another instance's files are.
    fn not_foreign(&self, key: &[&str], found: &str, at: Range) -> Result<(), ConfigError> {
        let path = Path::new(found);
        if !path.is_absolute() || path.starts_with(&self.wanted.directories.root) {
            return Ok(());
        }
        let resolved = resolve(path);
        let mine = resolve(&self.wanted.directories.root);
        for other in self.wanted.neighbours.iter().filter(|other| other.name != *self.wanted.name) {
            let theirs = other.directories(self.wanted.data_dir);
            let shared = [&theirs.root, &theirs.state, &theirs.workspace].into_iter().find(|theirs| {
                let theirs = resolve(theirs);
                resolved.starts_with(&theirs) && !mine.starts_with(&theirs)
            });
            if let Some(shared) = shared {
                let message = format!("`{found}` lies in `{}` of `{}`", shared.display(), other.name);
                let mend = "name a path that no other instance uses";
                return Err(ConfigError::ForeignPath(self.document.problem(
                    at,
                    &key.join("."),
                    &message,
                    mend,
                )));
            }
        }
        Ok(())
    }

    /// The canvas has a port of its own in early versions.
    fn canvas(&mut self, root: &Object<'_>) -> Result<(), ConfigError> {
        let Some(canvas) = self.document.object(root, "", "canvasHost")? else { return Ok(()) };
        let Some((port, at)) = self.document.port(canvas, "canvasHost", "port")? else { return Ok(()) };
        let block = self.wanted.block;
        if contains(block, port) {
            return Ok(());
        }
        if let Some(moved) = self.moved(port) {
            return self.set_port(&["canvasHost", "port"], moved);
        }
        let message = format!("the port is {port}, but the ports of `{}` are {block}", self.wanted.name);
        let mend = format!("write {}, or remove the key", block.base + 4);
        Err(ConfigError::PortOutside(self.document.problem(at, "canvasHost.port", &message, &mend)))
    }

    /// Where a port of the block before this one is now.
    fn moved(&self, port: u16) -> Option<u16> {
        let before = Block::at(self.wanted.previous_base?)?;
        contains(before, port).then(|| self.wanted.block.base + (port - before.base))
    }

    fn browsers(&mut self, root: &Object<'_>) -> Result<(), ConfigError> {
        let Some(browser) = self.document.object(root, "", "browser")? else { return Ok(()) };
        self.url(browser, "browser")?;
        let Some(profiles) = self.document.object(browser, "browser", "profiles")? else { return Ok(()) };
        let mut taken: BTreeMap<u16, (String, usize)> = BTreeMap::new();
        let mut portless: Vec<(String, Range)> = Vec::new();
        for property in &profiles.properties {
            let name = property.name.as_str();
            let at = join("browser.profiles", name);
            let Some(profile) = self.document.object(profiles, "browser.profiles", name)? else { continue };
            let driver = self.document.text(profile, &at, "driver")?;
            let has_url = self.url(profile, &at)?;
            match (driver, self.document.port(profile, &at, "cdpPort")?) {
                // Attached to a browser that somebody else started; the port is not used.
                (Some("existing-session"), _) => {}
                (driver, Some((port, place))) => {
                    let allowed = if driver == Some("extension") { RELAY } else { CDP };
                    let port = self.cdp_port(name, port, place, &allowed)?;
                    let line = self.document.line(place);
                    if let Some((other, line)) = taken.insert(port, (name.to_owned(), line)) {
                        let message =
                            format!("port {port} is that of the profile `{other}` (line {line}) too");
                        let mend = "give each profile a port of its own, or leave `cdpPort` out of one";
                        let at = join(&at, "cdpPort");
                        return Err(ConfigError::PortTwice(
                            self.document.problem(place, &at, &message, mend),
                        ));
                    }
                }
                (Some("extension"), None) => {}
                (_, None) if has_url => {}
                (_, None) => portless.push((name.to_owned(), property.name.range())),
            }
        }
        let declared = profiles.properties.iter().any(|property| property.name.as_str() == IMPLICIT_PROFILE);
        self.give_ports(portless, taken.into_keys().collect(), declared)
    }

    /// The port that a profile has in this block.
    fn cdp_port(
        &mut self,
        profile: &str,
        port: u16,
        at: Range,
        allowed: &RangeInclusive<u16>,
    ) -> Result<u16, ConfigError> {
        let base = self.wanted.block.base;
        let allows = |port: u16| port.checked_sub(base).is_some_and(|offset| allowed.contains(&offset));
        if allows(port) {
            return Ok(port);
        }
        if let Some(moved) = self.moved(port).filter(|moved| allows(*moved)) {
            self.set_port(&["browser", "profiles", profile, "cdpPort"], moved)?;
            return Ok(moved);
        }
        let (first, last) = (base + allowed.start(), base + allowed.end());
        let name = self.wanted.name;
        let message = format!("the port is {port}, but browsers of `{name}` have {first} to {last}");
        let mend = format!("write a port from {first} to {last}, or remove the key and one is chosen");
        let path = join(&join("browser.profiles", profile), "cdpPort");
        Err(ConfigError::PortOutside(self.document.problem(at, &path, &message, &mend)))
    }

    fn give_ports(
        &mut self,
        portless: Vec<(String, Range)>,
        mut taken: Vec<u16>,
        declared: bool,
    ) -> Result<(), ConfigError> {
        let base = self.wanted.block.base;
        for (profile, at) in portless {
            let reserved =
                if declared || profile == IMPLICIT_PROFILE { None } else { Some(base + CDP.start()) };
            let free = |port: &u16| !taken.contains(port) && Some(*port) != reserved;
            let Some(port) = CDP.map(|offset| base + offset).find(free) else {
                let (first, last) = (base + CDP.start(), base + CDP.end());
                let message = format!("no port from {first} to {last} is left for this browser");
                let path = join("browser.profiles", &profile);
                let mend = "remove a profile, or attach it to a browser elsewhere with `cdpUrl`";
                return Err(ConfigError::NoPortLeft(self.document.problem(at, &path, &message, mend)));
            };
            self.set_port(&["browser", "profiles", &profile, "cdpPort"], port)?;
            taken.push(port);
        }
        Ok(())
    }

    /// Whether `cdpUrl` is set in `object`. Refuses another instance's browser.
    fn url(&self, object: &Object<'_>, path: &str) -> Result<bool, ConfigError> {
        let Some(found) = self.document.get(object, path, "cdpUrl")? else { return Ok(false) };
        let Some(endpoint) = found.as_string_lit().and_then(|url| Endpoint::of(&url.value)) else {
            return Ok(true);
        };
        let refuse = |message: String| {
            let mend = "give each instance a browser of its own, or remove `cdpUrl`";
            let path = join(path, "cdpUrl");
            Err(ConfigError::ForeignBrowser(self.document.problem(found.range(), &path, &message, mend)))
        };
        if endpoint.is_local() && contains(self.wanted.block, endpoint.port) {
            return Ok(true);
        }
        for other in self.wanted.neighbours.iter().filter(|other| other.name != *self.wanted.name) {
            if endpoint.is_local() && contains(other.block, endpoint.port) {
                return refuse(format!(
                    "port {} belongs to `{}` ({})",
                    endpoint.port, other.name, other.block
                ));
            }
            let config = other.directories(self.wanted.data_dir).config;
            if let Some(line) = line_of(&endpoint, &config) {
                return refuse(format!(
                    "`{}` uses this browser too ({}:{line})",
                    other.name,
                    config.display()
                ));
            }
        }
        Ok(true)
    }
}

fn contains(block: Block, port: u16) -> bool {
    (block.base..=block.last()).contains(&port)
}

/// Who is meant by a `cdpUrl`.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.trim().split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let address = authority.rsplit('@').next()?;
        let default = if matches!(scheme, "https" | "wss") { 443 } else { 80 };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            Some(_) | None => (address, default),
        };
        Some(Self { host: host.trim_matches(['[', ']']).to_ascii_lowercase(), port }.canonical())
    }

    /// All names of this host are one.
    fn canonical(self) -> Self {
        let local = self.host == "localhost"
            || self.host == "::1"
            || self.host == "0.0.0.0"
            || self.host.starts_with("127.")
            || self.host.ends_with(".localhost");
        if local { Self { host: "localhost".to_owned(), ..self } } else { self }
    }

    fn is_local(&self) -> bool {
        self.host == "localhost"
    }
}

/// The line of another instance's configuration that names `endpoint`. A file that cannot be read names
/// nobody: its own start will say what is wrong with it.
fn line_of(endpoint: &Endpoint, config: &Path) -> Option<usize> {
    let text = String::from_utf8(read_bounded(config, MAX_BYTES).ok()?).ok()?;
    if !text.contains("cdpUrl") {
        return None;
    }
    let document = Document::parse(config, &text).ok()?;
    let browser = document.object(document.root().ok()?, "", "browser").ok()??;
    let profiles = document.object(browser, "", "profiles").ok().flatten();
    let of_profiles = profiles
        .into_iter()
        .flat_map(|profiles| &profiles.properties)
        .filter_map(|profile| profile.value.as_object());
    std::iter::once(browser).chain(of_profiles).find_map(|object| {
        let found = document.get(object, "", "cdpUrl").ok()??;
        let other = Endpoint::of(&found.as_string_lit()?.value)?;
        (other == *endpoint).then(|| document.line(found.range()))
    })
}
