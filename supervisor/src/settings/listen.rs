//! `listen:`: where the API is served beside `control.sock` in the data directory, which only root and the
//! supervisor's own user can reach.
//!
//! ```yaml
//! listen:
//! - { unix: /run/openclaw/control.sock, mode: "0660", group: ops }
//! - { tcp: "192.0.2.7:7443" }
//! ```

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use nix::unistd;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use super::{Wrong, access::is_plain};

/// The most places; each is looked after for as long as the supervisor lives.
pub(super) const MOST: usize = 16;

/// The mode of a socket that nothing is said of.
const OWN: Mode = Mode(0o600);
/// The same of one that is given to a group.
const SHARED: Mode = Mode(0o660);

/// A place where the API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket.
    Unix(UnixPlace),
    /// TCP, for those who have a certificate.
    Tcp(SocketAddr),
}

/// A Unix socket, and who can connect to it at all. What they may do is another matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixPlace {
    /// Where. Absolute.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: Mode,
    /// The group it belongs to, if not the supervisor's own.
    pub group: Option<Group>,
}

/// Permissions of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// As chmod(2) has it.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// A group of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// By its number.
    Id(u32),
    /// By its name.
    Name(String),
}

impl Group {
    /// Its number; `None` if this host knows no such group. Asks the host's databases, which may block.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Name(name) => Some(unistd::Group::from_name(name).ok()??.gid.as_raw()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(UnixPlace { path, mode, group: None }) => write!(f, "{} ({mode})", path.display()),
            Self::Unix(UnixPlace { path, mode, group: Some(group) }) => {
                write!(f, "{} ({mode}, group {group})", path.display())
            }
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mode =
            u32::from_str_radix(text, 8).ok().filter(|mode| mode & !0o666 == 0 && mode & 0o600 == 0o600);
        mode.map(Self).ok_or_else(|| {
            format!("`{text}` is not the mode of a socket; write \"0600\", \"0660\" or \"0666\"")
        })
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Id(id) => serializer.serialize_u32(*id),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Group;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name or the number of a group")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Group, E> {
                if name.is_empty() || name.chars().any(char::is_control) {
                    return Err(E::custom("this cannot be a name; write the name of a group"));
                }
                Ok(Group::Name(name.into()))
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Group, E> {
                let id = u32::try_from(id).map_err(|_| E::custom("no group has this number; correct it"))?;
                Ok(Group::Id(id))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// As the file says it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Text {
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Group>,
}

impl From<&Listen> for Text {
    fn from(listen: &Listen) -> Self {
        match listen {
            Listen::Unix(UnixPlace { path, mode, group }) => Self {
                // It was text when it was read.
                unix: Some(path.to_string_lossy().into_owned()),
                mode: Some(*mode),
                group: group.clone(),
                tcp: None,
            },
            Listen::Tcp(address) => Self { tcp: Some(address.to_string()), ..Self::default() },
        }
    }
}

/// Reads them all; what is wrong is added to `wrong`.
pub(super) fn read(texts: &[Text], wrong: &mut Vec<Wrong>) -> Vec<Listen> {
    if texts.len() > MOST {
        let message = format!("there are {} of them", texts.len());
        wrong.push(Wrong::at(["listen"], message, format!("keep at most {MOST}")));
        return Vec::new();
    }
    let mut places: Vec<Listen> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let read = text.place().and_then(|place| match places.iter().any(|other| other.meets(&place)) {
            true => Err((None, "it is there twice".to_owned(), "leave one of them out".to_owned())),
            false => Ok(place),
        });
        match read {
            Ok(place) => places.push(place),
            Err((field, message, mend)) => {
                let path = ["listen".to_owned(), format!("[{index}]")];
                wrong.push(Wrong::at(path.into_iter().chain(field.map(str::to_owned)), message, mend));
            }
        }
    }
    places
}

impl Listen {
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(mine), Self::Unix(other)) => mine.path == other.path,
            (Self::Tcp(mine), Self::Tcp(other)) => mine == other,
            (Self::Unix(_), Self::Tcp(_)) | (Self::Tcp(_), Self::Unix(_)) => false,
        }
    }
}

/// The field at fault, what is wrong with it, and what to do.
type Refused = (Option<&'static str>, String, String);

impl Text {
    fn place(&self) -> Result<Listen, Refused> {
        match (&self.unix, &self.tcp) {
            (Some(path), None) => {
                if !is_plain(Path::new(path)) {
                    let message = "this is not an absolute path".into();
                    return Err((Some("unix"), message, "write the whole path, from `/` on".into()));
                }
                let mode = self.mode.unwrap_or(if self.group.is_some() { SHARED } else { OWN });
                Ok(Listen::Unix(UnixPlace { path: path.into(), mode, group: self.group.clone() }))
            }
            (None, Some(address)) => {
                let mends = [("mode", self.mode.is_some()), ("group", self.group.is_some())];
                if let Some((field, _)) = mends.into_iter().find(|(_, said)| *said) {
                    return Err((Some(field), "TCP has none".into(), "leave it out".into()));
                }
                address.parse().map(Listen::Tcp).map_err(|_| {
                    let message = format!("`{address}` is not an address and a port");
                    (Some("tcp"), message, "write e.g. \"192.0.2.7:7443\" or \"[::1]:7443\"".into())
                })
            }
            (Some(_), Some(_)) => {
                Err((Some("tcp"), "it has `unix` and `tcp`".into(), "use an entry for each".into()))
            }
            (None, None) => {
                Err((None, "it does not say where".into(), "add `unix: PATH` or `tcp: ADDRESS:PORT`".into()))
            }
        }
    }
}
