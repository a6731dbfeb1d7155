//! What a certificate says: whom it was issued to, and what that caller may do.

use std::{fmt, path::Path, str::FromStr};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use supervisor_core::ids::Name;
use x509_parser::{extensions::GeneralName, parse_x509_certificate, prelude::X509Certificate};

use super::PkiError;
use crate::role::{Grant, Role};

/// How a URI begins that says the role; the rest is it.
const ROLE: &str = "openclaw:role/";

/// How a URI begins that says the only instance.
const INSTANCE: &str = "openclaw:instance/";

/// How all of these begin.
const OURS: &str = "openclaw:";

/// The longest common name (RFC 5280, upper bound of `ub-common-name`).
const LONGEST: usize = 64;

/// Whom a certificate is issued to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject(String);

impl Subject {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Subject {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        match first && text.len() <= LONGEST && text.bytes().all(inner) {
            true => Ok(Self(text.to_owned())),
            false => Err(PkiError::Unfit(format!(
                "`{}` is no name for a certificate: 1 to {LONGEST} of a-z, A-Z, 0-9, `.`, `_`, `-` and `@`, \
                 beginning with a letter or a digit",
                text.escape_default()
            ))),
        }
    }
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its common name. Empty if it has none.
    pub(crate) name: String,
    /// What its holder may do; `None` if it does not say, as a server's does not.
    pub(crate) grant: Option<Grant>,
    /// Its serial number, in hexadecimal digits.
    pub(crate) serial: String,
    /// From when on it is good, in seconds since the Unix epoch.
    pub(crate) not_before: i64,
    /// Until when.
    pub(crate) not_after: i64,
    /// The hosts it is for: names and addresses.
    pub(crate) hosts: Vec<String>,
}

impl Facts {
    /// Of a certificate as it comes.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (rest, certificate) = parse_x509_certificate(der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("something follows it".into());
        }
        Self::of(&certificate)
    }

    /// Of the first certificate in a file.
    pub(super) fn of_pem(path: &Path, content: &[u8]) -> Result<Self, PkiError> {
        let der = CertificateDer::from_pem_slice(content).map_err(|error| PkiError::damaged(path, &error))?;
        Self::read(&der).map_err(|what| PkiError::damaged(path, &what))
    }

    fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let mut names = certificate.subject().iter_common_name();
        let name = names.next().map(|name| name.as_str()).transpose().map_err(|error| error.to_string())?;
        if names.next().is_some() {
            return Err("it has two names".into());
        }
        if name.is_some_and(|name| name.chars().any(char::is_control)) {
            return Err("its name cannot be written".into());
        }
        let mut facts = Self {
            name: name.unwrap_or_default().to_owned(),
            grant: None,
            serial: hex(certificate.raw_serial()),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            hosts: Vec::new(),
        };
        let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
        let (mut role, mut instance) = (None::<Role>, None::<Name>);
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(host) => facts.hosts.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => facts.hosts.extend(address(bytes)),
                GeneralName::URI(uri) => read_uri(uri, &mut role, &mut instance)?,
                GeneralName::OtherName(..)
                | GeneralName::RFC822Name(_)
                | GeneralName::X400Address(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::RegisteredID(_)
                | GeneralName::Invalid(..) => {}
            }
        }
        facts.grant = match (role, instance) {
            (None, None) => None,
            (None, Some(_)) => return Err("it is for an instance and has no role".into()),
            (Some(role), instance) => Some(Grant::new(role, instance).map_err(|error| error.to_string())?),
        };
        Ok(facts)
    }

    /// How a certificate says this.
    pub(super) fn uris(grant: &Grant) -> Vec<String> {
        let instance = grant.instance().map(|instance| format!("{INSTANCE}{instance}"));
        [format!("{ROLE}{}", grant.role())].into_iter().chain(instance).collect()
    }
}

fn read_uri(uri: &str, role: &mut Option<Role>, instance: &mut Option<Name>) -> Result<(), String> {
    if let Some(word) = uri.strip_prefix(ROLE) {
        let said = word.parse().map_err(|_| "its role is not known here".to_owned())?;
        if role.replace(said).is_some() {
            return Err("it has two roles".into());
        }
    } else if let Some(name) = uri.strip_prefix(INSTANCE) {
        let said = Name::new(name).map_err(|_| "its instance has no name".to_owned())?;
        if instance.replace(said).is_some() {
            return Err("it is for two instances".into());
        }
    } else if uri.starts_with(OURS) {
        // What a later version limits a caller by must not be passed over.
        return Err("it says something that is not known here".into());
    }
    Ok(())
}

/// Bytes of a number as digits, without zeros that only keep it positive.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string())).ok()
}
