//! What the gateway takes from OpenClaw's configuration and environment.
//!
//! People share one file between the real OpenClaw and this gateway, so keys that it has no use for
//! (`agents`, `models`, …) pass unread. Keys that it does use are held to their types, and a
//! value that it cannot honour is refused rather than passed over: a gateway that starts without the
//! protection its file asks for is worse than one that does not start.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonc_parser::ast::Object;
use jsonc_parser::common::{Range, Ranged};

use crate::channels::{self, Channel};
use crate::document::{Document, Key, last};
use crate::fault::ConfigError;
use crate::log;
use crate::reload::{self, Stamp};

/// Real configurations are a few kilobytes; the bound keeps a wrong path from filling memory.
const CONFIG_BYTES: u64 = 4 * 1024 * 1024;
/// OpenClaw's port where nothing names another.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(18789).expect("is not zero");

/// The gateway's port, from which the others are counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BasePort(NonZeroU16);

impl BasePort {
    /// Reads a decimal port.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok().map(Self)
    }

    /// The port itself.
    pub(crate) fn number(self) -> u16 {
        self.0.get()
    }

    /// The port `offset` above, if there is one.
    pub(crate) fn above(self, offset: u16) -> Option<u16> {
        self.number().checked_add(offset)
    }

    /// Reads a JSON5 number: decimal, hexadecimal, or a float without fraction.
    fn from_literal(literal: &str) -> Option<Self> {
        let digits = literal.trim_start_matches('+');
        let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
        let number = match hexadecimal {
            Some(digits) => u16::from_str_radix(digits, 16).ok()?,
            None => {
                let number: f64 = digits.parse().ok()?;
                let whole = number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number);
                whole.then_some(number as u16)?
            }
        };
        NonZeroU16::new(number).map(Self)
    }
}

/// Who can reach the base port.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bind {
    /// This machine.
    Loopback,
    /// Everyone who can route to it.
    Lan,
}

impl Bind {
    /// The addresses to listen on; the first must be had, the others where the machine has them.
    pub(crate) fn addresses(self) -> &'static [IpAddr] {
        match self {
            Self::Loopback => &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
            Self::Lan => &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        }
    }

    /// As the configuration spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Lan => "lan",
        }
    }
}

/// What a client must show.
#[derive(Debug, PartialEq)]
pub(crate) enum Auth {
    /// Nothing.
    None,
    /// `gateway.auth.token`.
    Token(Secret),
    /// `gateway.auth.password`.
    Password(Secret),
}

impl Auth {
    /// As the configuration spells it.
    pub(crate) fn mode(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token(_) => "token",
            Self::Password(_) => "password",
        }
    }
}

/// A text that is compared and never shown.
#[derive(PartialEq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Whether `offered` is the secret, in a time that does not tell how much of it is right.
    pub(crate) fn matches(&self, offered: &str) -> bool {
        let (secret, offered) = (self.0.as_bytes(), offered.as_bytes());
        let difference =
            secret.iter().zip(offered).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
        secret.len() == offered.len() && difference == 0
    }

    /// The secret itself, for the one who must offer it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

type Lookup = dyn Fn(&str) -> Option<OsString>;

/// The environment variables that OpenClaw reads and this gateway honours.
pub(crate) struct Environment(Box<Lookup>);

impl Environment {
    /// The process's own.
    pub(crate) fn read() -> Self {
        Self(Box::new(|name| env::var_os(name)))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).and_then(|value| value.into_string().ok()).filter(|value| !value.trim().is_empty())
    }
}

/// Who starts the gateway again when it ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Supervision {
    /// A supervisor that reads the restart handoff.
    External,
    /// Nobody that the gateway knows of.
    None,
}

impl Supervision {
    fn read(environment: &Environment) -> Self {
        let mode = environment.text("OPENCLAW_SUPERVISOR_MODE").unwrap_or_default();
        if mode.trim().eq_ignore_ascii_case("external") { Self::External } else { Self::None }
    }
}

/// Where an instance's files are, both absolute.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    /// The configuration.
    pub(crate) path: PathBuf,
    /// Where the instance's other files live.
    pub(crate) state_dir: PathBuf,
}

impl Location {
    /// Takes what the environment names, or else OpenClaw's places below the home directory.
    pub(crate) fn find(environment: &Environment) -> Result<Self, ConfigError> {
        let state_dir = environment
            .path("OPENCLAW_STATE_DIR")
            .or_else(|| environment.path("HOME").map(|home| home.join(".openclaw")))
            .and_then(|path| std::path::absolute(path).ok())
            .ok_or(ConfigError::NoPath)?;
        let path =
            environment.path("OPENCLAW_CONFIG_PATH").unwrap_or_else(|| state_dir.join("openclaw.json"));
        let path = std::path::absolute(path).map_err(|_| ConfigError::NoPath)?;
        Ok(Self { path, state_dir })
    }
}

/// Everything the gateway is told.
#[derive(Debug)]
pub(crate) struct Config {
    /// The file this was read from, absolute.
    pub(crate) path: PathBuf,
    /// Where the instance's files live, absolute.
    pub(crate) state_dir: PathBuf,
    pub(crate) port: BasePort,
    pub(crate) bind: Bind,
    /// The file's looks before it was read.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) auth: Arc<Auth>,
    /// The channels that OpenClaw would show.
    pub(crate) channels: Vec<Channel>,
    pub(crate) supervision: Supervision,
}

impl Config {
    /// Reads the file that the environment names. `flag` is `--port`, which beats everything.
    pub(crate) fn load(environment: &Environment, flag: Option<BasePort>) -> Result<Self, ConfigError> {
        Self::load_from(Location::find(environment)?, environment, flag)
    }

    /// The same from another place.
    pub(crate) fn load_from(
        Location { path, state_dir }: Location,
        environment: &Environment,
        flag: Option<BasePort>,
    ) -> Result<Self, ConfigError> {
        let stamp = reload::stamp(&path);
        let bytes = read(&path)?;
        let document = Document::new(&path, &bytes)?;
        let root = document.parse()?;
        let gateway = document.object(Some(&root), &Key("gateway"))?;
        let auth = document.object(gateway, &Key("gateway.auth"))?;
        let channels = channels::read(&root, environment);
        let reader = Reader { document, environment, root: &root, gateway, auth };
        reader.refuse_includes()?;
        reader.refuse_remote_mode()?;
        let port = reader.port(flag)?;
        let bind = reader.bind()?;
        let auth = Arc::new(reader.auth(bind)?);
        let supervision = Supervision::read(environment);
        Ok(Self { path, state_dir, port, bind, stamp, auth, channels, supervision })
    }
}

/// Reads a regular file of bounded size: a pipe in its place would hold the start for ever.
fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(CONFIG_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > CONFIG_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// The parts of a document that the keys are read from.
struct Reader<'r> {
    document: Document<'r>,
    environment: &'r Environment,
    root: &'r Object<'r>,
    gateway: Option<&'r Object<'r>>,
    auth: Option<&'r Object<'r>>,
}

impl Reader<'_> {
    fn refuse_includes(&self) -> Result<(), ConfigError> {
        for object in [Some(self.root), self.gateway, self.auth].into_iter().flatten() {
            if let Some(include) = last(object, "$include") {
                return Err(ConfigError::Include { place: self.document.place(include.range) });
            }
        }
        Ok(())
    }

    fn refuse_remote_mode(&self) -> Result<(), ConfigError> {
        match self.document.string(self.gateway, &Key("gateway.mode"))? {
            None | Some(("local", _)) => Ok(()),
            Some((mode, at)) => Err(self.unsupported("gateway.mode", "\"local\"", mode, at)),
        }
    }

    fn port(&self, flag: Option<BasePort>) -> Result<BasePort, ConfigError> {
        let configured = match self.document.number(self.gateway, &Key("gateway.port"))? {
            None => None,
            Some((literal, at)) => {
                Some(BasePort::from_literal(literal).ok_or_else(|| ConfigError::Unsupported {
                    place: self.document.place(at),
                    key: "gateway.port",
                    expected: "a whole number from 1 to 65535",
                    found: literal.to_owned(),
                })?)
            }
        };
        let variable = match self.environment.text("OPENCLAW_GATEWAY_PORT") {
            None => None,
            Some(text) => Some(BasePort::parse(&text).ok_or(ConfigError::PortVariable)?),
        };
        Ok(flag.or(variable).or(configured).unwrap_or(BasePort(DEFAULT_PORT)))
    }

    fn bind(&self) -> Result<Bind, ConfigError> {
        match self.document.string(self.gateway, &Key("gateway.bind"))? {
            None | Some(("loopback" | "auto", _)) => Ok(Bind::Loopback),
            Some(("lan", _)) => Ok(Bind::Lan),
            Some((bind, at)) => Err(self.unsupported(
                "gateway.bind",
                "\"loopback\", \"auto\" or \"lan\" (built-in gateway)",
                bind,
                at,
            )),
        }
    }

    fn auth(&self, bind: Bind) -> Result<Auth, ConfigError> {
        const TOKEN: (&str, &str) = ("gateway.auth.token", "OPENCLAW_GATEWAY_TOKEN");
        const PASSWORD: (&str, &str) = ("gateway.auth.password", "OPENCLAW_GATEWAY_PASSWORD");
        match self.document.string(self.auth, &Key("gateway.auth.mode"))? {
            None | Some(("token", _)) => self.secret(TOKEN).map(Auth::Token),
            Some(("password", _)) => self.secret(PASSWORD).map(Auth::Password),
            Some(("none", at)) => match bind {
                Bind::Loopback => Ok(Auth::None),
                Bind::Lan => Err(ConfigError::OpenToAll { place: self.document.place(at) }),
            },
            Some((mode, at)) => Err(self.unsupported(
                "gateway.auth.mode",
                "\"token\", \"password\" or \"none\" (built-in gateway)",
                mode,
                at,
            )),
        }
    }

    /// The secret under `key`, or else in the environment, as OpenClaw looks for it.
    fn secret(&self, (key, variable): (&'static str, &str)) -> Result<Secret, ConfigError> {
        let found = match self.document.string(self.auth, &Key(key))? {
            Some((text, at)) => Some(self.expand(key, text, at)?),
            None => self.environment.text(variable),
        };
        found.filter(|text| !text.trim().is_empty()).map(Secret).ok_or_else(|| {
            let nearest = self.auth.or(self.gateway).unwrap_or(self.root);
            ConfigError::NoAuth { place: self.document.place(nearest.range()), key }
        })
    }

    /// Replaces `${NAME}` by the variable of that name, and `$${NAME}` by the text `${NAME}`, as OpenClaw
    /// does.
    fn expand(&self, key: &'static str, text: &str, at: Range) -> Result<String, ConfigError> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let Some((name, after)) = rest[start + 2..].split_once('}').filter(|(name, _)| is_variable(name))
            else {
                expanded.push_str(&rest[..start + 2]);
                rest = &rest[start + 2..];
                continue;
            };
            if let Some(before) = rest[..start].strip_suffix('$') {
                expanded.push_str(before);
                expanded.push_str(&rest[start..start + name.len() + 3]);
            } else {
                expanded.push_str(&rest[..start]);
                let value = self.environment.text(name).ok_or_else(|| ConfigError::Variable {
                    place: self.document.place(at),
                    key,
                    name: name.to_owned(),
                })?;
                expanded.push_str(&value);
            }
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn unsupported(&self, key: &'static str, expected: &'static str, found: &str, at: Range) -> ConfigError {
        let found = log::quoted(found);
        ConfigError::Unsupported { place: self.document.place(at), key, expected, found }
    }
}

/// Whether OpenClaw would take `name` for a variable.
fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
