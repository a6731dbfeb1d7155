//! `access:`: who has which role, beside the supervisor's own user and root.
//!
//! ```yaml
//! access:
//! - { user: alice, role: operator }
//! - { group: ops, role: viewer }
//! - { certificate: ci, role: admin }
//! - { token_file: /var/lib/openclaw-supervisor/deploy.token, role: operator }
//! - { uid: 1007, role: rescue, instance: rescue }
//! ```

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use supervisor_core::ids::Name;

use super::Wrong;
use crate::{
    openclaw::walls::open_to_all,
    role::{Grant, GrantError, Role},
    typed::word,
};

/// The most bindings: each call looks through all of them.
pub(super) const MOST: usize = 256;

/// The longest name of a user, a group or a certificate, in bytes: longer ones are a mistake.
const LONGEST: usize = 256;

/// Somebody's role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Whose.
    pub who: Who,
    /// What it is.
    pub grant: Grant,
}

/// By what a caller is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The number of the user that its process has.
    Uid(u32),
    /// The same by the user's name on this host.
    User(String),
    /// The number of a group that its process is in.
    Gid(u32),
    /// The same by the group's name on this host.
    Group(String),
    /// To whom its certificate was issued.
    Certificate(String),
    /// That it knows the content of this file.
    TokenFile(PathBuf),
}

impl Who {
    /// The field that says it.
    const fn field(&self) -> &'static str {
        match self {
            Self::Uid(_) => "uid",
            Self::User(_) => "user",
            Self::Gid(_) => "gid",
            Self::Group(_) => "group",
            Self::Certificate(_) => "certificate",
            Self::TokenFile(_) => "token_file",
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.field();
        match self {
            Self::Uid(id) | Self::Gid(id) => write!(f, "{word} {id}"),
            Self::User(name) | Self::Group(name) | Self::Certificate(name) => write!(f, "{word} {name}"),
            Self::TokenFile(path) => write!(f, "{word} {}", path.display()),
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.who, self.grant)
    }
}

/// As the file says it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Text {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

impl From<&Binding> for Text {
    fn from(binding: &Binding) -> Self {
        let mut text = Self {
            role: Some(binding.grant.role()),
            instance: binding.grant.instance().map(ToString::to_string),
            ..Self::default()
        };
        match binding.who.clone() {
            Who::Uid(id) => text.uid = Some(id),
            Who::User(name) => text.user = Some(name),
            Who::Gid(id) => text.gid = Some(id),
            Who::Group(name) => text.group = Some(name),
            Who::Certificate(name) => text.certificate = Some(name),
            // It was text when it was read.
            Who::TokenFile(path) => text.token_file = Some(path.to_string_lossy().into_owned()),
        }
        text
    }
}

/// Reads them all; what is wrong is added to `wrong`.
pub(super) fn read(texts: &[Text], wrong: &mut Vec<Wrong>) -> Vec<Binding> {
    if texts.len() > MOST {
        let message = format!("there are {} of them", texts.len());
        wrong.push(Wrong::at(
            ["access"],
            message,
            format!("keep at most {MOST}; bind groups instead of users"),
        ));
        return Vec::new();
    }
    let mut bindings = Vec::new();
    let mut tokens: HashMap<OsString, (usize, PathBuf)> = HashMap::new();
    for (index, text) in texts.iter().enumerate() {
        let read = text.binding().and_then(|binding| {
            if let Who::TokenFile(path) = &binding.who {
                apart(&mut tokens, index, path)?;
                closed(path)?;
            }
            Ok(binding)
        });
        match read {
            Ok(binding) => bindings.push(binding),
            Err((field, message, mend)) => {
                let path = ["access".to_owned(), format!("[{index}]")];
                let field = field.map(str::to_owned);
                wrong.push(Wrong::at(path.into_iter().chain(field), message, mend));
            }
        }
    }
    bindings
}

/// The field at fault, what is wrong with it, and what to do.
type Refused = (Option<&'static str>, String, String);

/// Agents have the supervisor's user, unless their instances have users of their own.
fn closed(path: &Path) -> Result<(), Refused> {
    let Some(tree) = open_to_all(path) else { return Ok(()) };
    let message = format!("every instance may read in `{tree}`, and so the token");
    let mend = "move the file into the supervisor's data directory, which is closed to them, and write the new path here";
    Err((Some("token_file"), message, mend.into()))
}

/// Callers are told apart by the names of their tokens' files: two files of one name would be one caller.
fn apart(tokens: &mut HashMap<OsString, (usize, PathBuf)>, index: usize, path: &Path) -> Result<(), Refused> {
    let name = path.file_name().unwrap_or_default().to_owned();
    let (first, other) = tokens.entry(name).or_insert_with(|| (index, path.to_owned()));
    // One file may have several roles, like one user.
    if other == path {
        return Ok(());
    }
    let message = format!(
        "the file is called as `{}` of `access[{first}]` is, and callers are told apart by that name",
        other.display()
    );
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let within = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let newer = path.with_file_name(match within.as_ref() {
        "" => format!("other-{name}"),
        within => format!("{within}-{name}"),
    });
    let mend = format!("`mv {} {}`, and write the new path here", word(path), word(&newer));
    Err((Some("token_file"), message, mend))
}

impl Text {
    fn binding(&self) -> Result<Binding, Refused> {
        let who = self.who()?;
        let role = self.role.ok_or_else(|| -> Refused {
            (None, "it has no role".into(), "add `role: viewer`, `operator`, `admin` or `rescue`".into())
        })?;
        let instance = self.instance.as_deref().map(Name::new).transpose();
        let instance = instance.map_err(|invalid| -> Refused {
            (Some("instance"), invalid.to_string(), "write the name of an instance".into())
        })?;
        let grant = Grant::new(role, instance).map_err(|error| -> Refused {
            match error {
                GrantError::NoInstance => (None, error.to_string(), "add `instance: NAME`".into()),
                GrantError::Instance(_) => (Some("instance"), error.to_string(), "leave it out".into()),
            }
        })?;
        Ok(Binding { who, grant })
    }

    fn who(&self) -> Result<Who, Refused> {
        let said = [
            self.uid.map(Who::Uid),
            self.user.clone().map(Who::User),
            self.gid.map(Who::Gid),
            self.group.clone().map(Who::Group),
            self.certificate.clone().map(Who::Certificate),
            self.token_file.clone().map(|path| Who::TokenFile(path.into())),
        ];
        let mut said = said.into_iter().flatten();
        const ONE: &str = "name one of uid, user, gid, group, certificate and token_file";
        let who = said
            .next()
            .ok_or_else(|| -> Refused { (None, "it does not say whose role this is".into(), ONE.into()) })?;
        if let Some(other) = said.next() {
            let message = format!("it has `{}` and `{}`", who.field(), other.field());
            return Err((Some(other.field()), message, format!("{ONE}, and use an entry for each")));
        }
        match &who {
            Who::User(name) | Who::Group(name) | Who::Certificate(name)
                if name.is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) =>
            {
                Err((Some(who.field()), "this cannot be a name".into(), "write the name".into()))
            }
            Who::TokenFile(path) if !is_plain(path) => {
                let message = "this is not an absolute path".into();
                Err((Some(who.field()), message, "write the whole path, from `/` on".into()))
            }
            Who::Uid(_)
            | Who::User(_)
            | Who::Gid(_)
            | Who::Group(_)
            | Who::Certificate(_)
            | Who::TokenFile(_) => Ok(who),
        }
    }
}

/// Whether a path means the same wherever it is used.
pub(super) fn is_plain(path: &Path) -> bool {
    path.is_absolute() && path.file_name().is_some() && !path.to_string_lossy().contains('\0')
}
