//! The supervisors that a person works with, by name: `contexts.yaml` in `openclawctl` of the configuration directory.
//!
//! ```yaml
//! current: prod
//! contexts:
//!   lab:
//!     unix: /var/lib/openclaw-supervisor/control.sock
//!   prod:
//!     tcp: box.example.org:7443
//!     ca: prod/ca.crt
//!     certificate: prod/client.crt
//!     key: prod/client.key
//! ```
//!
//! Paths are relative to the file. It is refused as a whole if it has a mistake, with line and column.

mod error;

use std::{
    collections::BTreeMap,
    env, fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use nix::libc;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

pub(crate) use self::error::ContextError;

/// The file's name.
const FILE: &str = "contexts.yaml";
/// The largest file: thousands of contexts.
const MOST_BYTES: u64 = 1 << 20;
/// What an authority's certificate, a caller's and its key are called.
pub(crate) const COPIES: [&str; 3] = ["ca.crt", "client.crt", "client.key"];
/// The longest name.
const LONGEST: usize = 64;

/// One way to a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) door: Door,
    /// A file with a token to show.
    pub(crate) token_file: Option<PathBuf>,
}

/// Where it is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Door {
    /// A socket of this host.
    Unix(PathBuf),
    Tcp(Tcp),
}

/// A supervisor elsewhere, and what both sides show each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tcp {
    /// Host and port.
    pub(crate) address: String,
    /// The authority that the server's certificate is from.
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// What the server's certificate is for, if not the host of the address.
    pub(crate) server_name: Option<String>,
}

impl Tcp {
    /// What the server's certificate has to be for.
    pub(crate) fn server_name(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        self.server_name.as_deref().unwrap_or(host)
    }
}

/// An entry as the file has it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Text {
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
}

impl TryFrom<Text> for Entry {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let Text { unix, tcp, ca, certificate, key, server_name, token_file } = text;
        let door = match (unix, tcp) {
            (Some(_), Some(_)) => return Err("it has `unix` and `tcp`; keep one of them".into()),
            (None, None) => {
                return Err("it does not say where; add `unix: PATH` or `tcp: HOST:PORT`".into());
            }
            (Some(path), None) => {
                let extra = [ca.is_some(), certificate.is_some(), key.is_some(), server_name.is_some()];
                if extra.contains(&true) {
                    return Err("a Unix socket has no certificates; leave them out".into());
                }
                Door::Unix(path)
            }
            (None, Some(address)) => {
                check_address(&address)?;
                let need = |what: &str| format!("it has no `{what}`; add the path of that file");
                Door::Tcp(Tcp {
                    address,
                    ca: ca.ok_or_else(|| need("ca"))?,
                    certificate: certificate.ok_or_else(|| need("certificate"))?,
                    key: key.ok_or_else(|| need("key"))?,
                    server_name,
                })
            }
        };
        Ok(Self { door, token_file })
    }
}

/// Whether it is a host and a port.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let fits = address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !is_bare_v6 && is_port(port)
    });
    match fits {
        true => Ok(()),
        false => Err(format!("`{address}` is not a host and a port; write e.g. box.example.org:7443")),
    }
}

impl From<&Entry> for Text {
    fn from(entry: &Entry) -> Self {
        let token_file = entry.token_file.clone();
        match &entry.door {
            Door::Unix(path) => Self { unix: Some(path.clone()), token_file, ..Self::default() },
            Door::Tcp(tcp) => Self {
                unix: None,
                tcp: Some(tcp.address.clone()),
                ca: Some(tcp.ca.clone()),
                certificate: Some(tcp.certificate.clone()),
                key: Some(tcp.key.clone()),
                server_name: tcp.server_name.clone(),
                token_file,
            },
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Text::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a context")
            }

            // Judged in here, where the parser still knows the place.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                let text = Text::deserialize(MapAccessDeserializer::new(map))?;
                text.try_into().map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Content {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(deserialize_with = "once_each")]
    contexts: BTreeMap<String, Entry>,
}

/// A map in which a name that stands there twice is a mistake.
fn once_each<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Entry>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = BTreeMap<String, Entry>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("contexts by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                if let Err(what) = check_name(&name) {
                    return Err(de::Error::custom(what));
                }
                if entries.contains_key(&name) {
                    return Err(de::Error::custom(format!("`{name}` is there twice; remove one")));
                }
                entries.insert(name, map.next_value()?);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries)
}

fn check_name(name: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    match first && name.len() <= LONGEST && name.bytes().all(inner) {
        true => Ok(()),
        false => Err(format!(
            "`{}` is no name for a context: 1 to {LONGEST} of a-z, A-Z, 0-9, `.`, `_`, `-` and `@`",
            name.escape_default()
        )),
    }
}

/// All that there are.
#[derive(Debug)]
pub(crate) struct Contexts {
    directory: PathBuf,
    content: Content,
}

impl Contexts {
    /// Those of this person. None if there is no file.
    pub(crate) fn load() -> Result<Self, ContextError> {
        let Some(directory) = directory() else {
            return Ok(Self { directory: PathBuf::new(), content: Content::default() });
        };
        let path = directory.join(FILE);
        let content = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(source) => return Err(ContextError::Read { path, source }),
            Ok(file) => {
                if file.metadata().is_ok_and(|file| file.mode() & 0o022 != 0) {
                    return Err(ContextError::Exposed { path });
                }
                read(&path, file)?
            }
        };
        let contexts = Self { directory, content };
        match contexts.current().filter(|name| !contexts.content.contexts.contains_key(*name)) {
            Some(name) => {
                let what = format!("`current` is `{name}`, and no context is called so");
                Err(ContextError::Wrong { path: contexts.directory.join(FILE), place: None, what })
            }
            None => Ok(contexts),
        }
    }

    /// Their names, with what they say.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.content.contexts.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The one that is used when none is named.
    pub(crate) fn current(&self) -> Option<&str> {
        self.content.current.as_deref()
    }

    /// The one called `name`.
    pub(crate) fn get(&self, name: &str) -> Result<&Entry, ContextError> {
        self.content.contexts.get(name).ok_or_else(|| {
            let nearest = crate::connect::nearest(name, self.content.contexts.keys().cloned());
            ContextError::Unknown { name: name.to_owned(), nearest }
        })
    }

    /// What a path in the file means.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// Makes it the current one.
    pub(crate) fn choose(&mut self, name: &str) -> Result<(), ContextError> {
        self.get(name)?;
        self.content.current = Some(name.to_owned());
        self.save()
    }

    /// Adds one. The first is the current one at once.
    pub(crate) fn add(&mut self, name: &str, entry: Entry) -> Result<(), ContextError> {
        self.may_add(name)?;
        if self.content.contexts.is_empty() {
            self.content.current = Some(name.to_owned());
        }
        self.content.contexts.insert(name.to_owned(), entry);
        self.save()
    }

    /// Whether one could be called so.
    pub(crate) fn may_add(&self, name: &str) -> Result<(), ContextError> {
        check_name(name).map_err(ContextError::Unfit)?;
        match self.content.contexts.contains_key(name) {
            true => Err(ContextError::Exists(name.to_owned())),
            false => Ok(()),
        }
    }

    /// Removes one, with the files that were copied for it when it was added.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), ContextError> {
        self.get(name)?;
        let entry = self.content.contexts.remove(name);
        if self.content.current.as_deref() == Some(name) {
            self.content.current = None;
        }
        self.save()?;
        if let Some(Entry { door: Door::Tcp(tcp), .. }) = entry {
            for (copy, path) in COPIES.iter().zip([tcp.ca, tcp.certificate, tcp.key]) {
                if path == Path::new(name).join(copy) {
                    let path = self.absolute(&path);
                    fs::remove_file(&path).map_err(|source| ContextError::Write { path, source })?;
                }
            }
            // It stays if something else is in it.
            let _ = fs::remove_dir(self.directory.join(name));
        }
        Ok(())
    }

    /// Takes over what `cert issue` has written to a directory: copies its files beside the contexts.
    pub(crate) fn take_over(&self, name: &str, from: &Path) -> Result<Entry, ContextError> {
        self.may_add(name)?;
        let path = from.join(READY);
        let file = File::open(&path).map_err(|source| {
            let is_missing = source.kind() == io::ErrorKind::NotFound;
            match is_missing && from.join(COPIES[1]).exists() {
                true => ContextError::Nowhere(from.to_owned()),
                false => ContextError::Read { path: path.clone(), source },
            }
        })?;
        let mut entry: Entry = read(&path, file)?;
        // Whoever made the papers would be sent what is in it.
        if entry.token_file.is_some() {
            let what =
                "token_file: papers bring no token; remove the line, and name your own with `--token-file`";
            return Err(ContextError::Wrong { path, place: None, what: what.into() });
        }
        let own = self.directory()?.join(name);
        make_directory(&own)?;
        if let Door::Tcp(tcp) = &mut entry.door {
            for (copy, path) in COPIES.iter().zip([&mut tcp.ca, &mut tcp.certificate, &mut tcp.key]) {
                let content = paper(from, path)?;
                write(&own.join(copy), &content, Overwrite::Yes)?;
                *path = Path::new(name).join(copy);
            }
        }
        Ok(entry)
    }

    fn directory(&self) -> Result<&Path, ContextError> {
        match self.directory.as_os_str().is_empty() {
            true => Err(ContextError::NoHome),
            false => Ok(&self.directory),
        }
    }

    fn save(&self) -> Result<(), ContextError> {
        let directory = self.directory()?;
        make_directory(directory)?;
        let path = directory.join(FILE);
        let failed = |source| ContextError::Write { path: path.clone(), source };
        let text = serde_yaml::to_string(&self.content).map_err(|error| failed(io::Error::other(error)))?;
        let fresh = directory.join(format!(".{FILE}.new"));
        write(&fresh, text.as_bytes(), Overwrite::Yes)?;
        fs::rename(&fresh, &path).map_err(failed)
    }
}

/// A file of papers. It lies beside what names it: whoever made them chose the names.
fn paper(from: &Path, name: &Path) -> Result<Vec<u8>, ContextError> {
    let path = from.join(name);
    let failed = |source| ContextError::Read { path: path.clone(), source };
    let mut parts = name.components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
        let what = format!("`{}` is no file beside it: papers are all in one directory", name.display());
        return Err(ContextError::Wrong { path: from.join(READY), place: None, what });
    }
    // A pipe is not waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut content = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// What `cert issue` calls a context that is ready to be taken over.
pub(crate) const READY: &str = "context.yaml";

/// What such a file says.
pub(crate) fn ready(entry: &Entry) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(entry)
}

/// Whether a file that is there is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overwrite {
    Yes,
    No,
}

/// Makes a directory for what nobody else may have: whoever has put a link there could.
pub(crate) fn make_secret_directory(path: &Path) -> Result<(), ContextError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(ContextError::LedAway(path.to_owned())),
        Ok(_) | Err(_) => make_directory(path),
    }
}

/// Makes a directory for this person alone.
pub(crate) fn make_directory(path: &Path) -> Result<(), ContextError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| ContextError::Write { path: path.to_owned(), source })
}

/// Writes a file for this person alone.
pub(crate) fn write(path: &Path, content: &[u8], overwrite: Overwrite) -> Result<(), ContextError> {
    let failed = |source: io::Error| {
        let (path, in_the_way) = (path.to_owned(), source.kind() == io::ErrorKind::AlreadyExists);
        if in_the_way { ContextError::InTheWay(path) } else { ContextError::Write { path, source } }
    };
    if overwrite == Overwrite::Yes {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}

fn directory() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(base.join("openclawctl"))
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path, file: File) -> Result<T, ContextError> {
    let mut text = String::new();
    let failed = |source| ContextError::Read { path: path.to_owned(), source };
    file.take(MOST_BYTES).read_to_string(&mut text).map_err(failed)?;
    serde_yaml::from_str(&text).map_err(|error| {
        let place = error.location().map(|location| (location.line(), location.column()));
        let whole = error.to_string();
        // It ends with the place, and may begin with the path of keys.
        let what = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(what, _)| what).to_owned();
        ContextError::Wrong { path: path.to_owned(), place, what }
    })
}

#[cfg(test)]
mod tests;
