//! The certificates by which callers from other hosts and this supervisor know each other.
//!
//! ```text
//!  DATA/pki/  ca.crt      the private authority's certificate
//!             ca.key      its key; whoever has it can make himself an administrator
//!             ca.crl      what it has revoked
//!             server.pem  the certificate that callers are shown, those that lead to it, and its key
//!             issued/     a copy of each certificate that was issued, by its serial number
//! ```
//!
//! * [`authority`]: makes them. The key of a caller never comes here: only what is to be signed does.
//! * [`certificate`]: reads what one says: whom it names, its role, its only instance.
//! * [`trust`]: TLS made from them; [`keeper`]: as of when they were last whole.
//!
//! The files may be an operator's own instead: then there is no `ca.key`, and nothing is issued here. An authority of
//! one's own has a revocation list, too, if an empty one: a list that is lost would let in again whom it kept out.

mod authority;
mod certificate;
mod keeper;
mod trust;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    io::Read,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

pub(crate) use self::{
    authority::{Authority, Listed, Selection, Wish, list, own},
    certificate::{Facts, Subject},
    keeper::{Keeper, Kept},
    trust::{ALPN, Trust},
};
use crate::openclaw::file::{Durability, open_regular, replace};

/// No file of these is larger: a revocation list of the most certificates that can be revoked has 600 KiB.
const MOST_BYTES: u64 = 1 << 20;

/// For everybody who can see the directory; it shows nothing that a handshake does not.
const PUBLIC: u32 = 0o644;

/// For this user alone.
const PRIVATE: u32 = 0o600;

/// What makes the first certificates.
pub(crate) const INIT: &str = "openclawctl cert init";

/// Why something about certificates cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    /// There are none yet.
    #[error("there is no `{}`", path.display())]
    Missing {
        /// What is not there.
        path: PathBuf,
    },
    /// The system refused to read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused to write.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file with a key can be read by others, or belongs to them.
    #[error("`{}` is not its owner's alone; type `chmod 600` or `chown` for the supervisor's user", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("`{}` cannot be used: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// There is a certificate of an authority, and its key is elsewhere.
    #[error("the key of the authority in `{}` is not here", directory.display())]
    NoKey {
        /// Where it would be.
        directory: PathBuf,
    },
    /// What is asked for cannot be in a certificate.
    #[error("{0}")]
    Unfit(String),
    /// More would not be found again.
    #[error("{0} certificates are known, and no more fit")]
    TooMany(usize),
    /// None is called so, or has this number.
    #[error("no certificate that is still good {0}")]
    Unknown(String),
    /// The library that makes certificates failed.
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
}

impl PkiError {
    fn damaged(path: &Path, what: &(impl ToString + ?Sized)) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.to_string() }
    }
}

/// The directory with all of it.
#[derive(Debug, Clone)]
pub(crate) struct Files(PathBuf);

impl Files {
    /// Of the supervisor on `data_dir`.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("pki"))
    }

    /// Whether there are any.
    pub(crate) fn exist(&self) -> bool {
        self.ca().exists()
    }

    fn ca(&self) -> PathBuf {
        self.0.join("ca.crt")
    }

    fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    fn crl(&self) -> PathBuf {
        self.0.join("ca.crl")
    }

    fn server(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    fn issued(&self) -> PathBuf {
        self.0.join("issued")
    }

    /// Makes the directories, for this user alone.
    fn make(&self) -> Result<(), PkiError> {
        let path = self.issued();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| PkiError::Write { path, source })
    }
}

/// What is in a file, as long as it is one of these.
fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    let failed = |source: io::Error| {
        let (path, missing) = (path.to_owned(), source.kind() == io::ErrorKind::NotFound);
        if missing { PkiError::Missing { path } } else { PkiError::Read { path, source } }
    };
    let mut content = Vec::new();
    let file = open_regular(path).map_err(failed)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    match content.len() as u64 <= MOST_BYTES {
        true => Ok(content),
        false => Err(PkiError::damaged(path, &format!("it is longer than {MOST_BYTES} bytes"))),
    }
}

/// The same of a file with a key, which must be this user's alone.
fn read_private(path: &Path) -> Result<Vec<u8>, PkiError> {
    let content = read(path)?;
    let file = fs::metadata(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })?;
    match file.mode() & 0o077 == 0 && file.uid() == geteuid().as_raw() {
        true => Ok(content),
        false => Err(PkiError::Exposed { path: path.to_owned() }),
    }
}

fn write(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    replace(path, content.as_bytes(), mode, Durability::Durable)
        .map_err(|source| PkiError::Write { path: path.to_owned(), source })
}
