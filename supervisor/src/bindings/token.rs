//! Tokens: what a file holds, known again without being kept.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{fcntl::OFlag, unistd::geteuid};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::typed::word;

/// The shortest token: what nobody guesses, if it was made by chance.
const SHORTEST: usize = 20;

/// The longest; more is another file.
const LONGEST: u64 = 4 << 10;

/// Permissions that nobody but the owner has.
const OPEN: u32 = 0o077;

/// What is kept of a token.
#[derive(Clone, Copy)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Of this token.
    pub(crate) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether both are of the same token. How long it takes says nothing.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

/// Why a token file is not taken. What is in it is never said.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    /// The system refused.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is a directory, a pipe or the like.
    #[error("it is no file")]
    NoFile,
    /// Somebody else may change it.
    #[error("it belongs to user {owner}; `chown root {}`", word(path))]
    Foreign {
        /// Whose it is.
        owner: u32,
        /// Which it is.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("it is open to others; `chmod 600 {}`, and put a new token into it", word(path))]
    Open {
        /// Which it is.
        path: PathBuf,
    },
    /// It holds something else.
    #[error(
        "it does not hold one word of at least {SHORTEST} characters; `openssl rand -hex 32` makes a token"
    )]
    Content,
}

/// Reads the token in `path`, which must be for this user or root alone.
pub(super) fn read(path: &Path) -> Result<Digest, TokenError> {
    // A pipe would never answer.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(TokenError::NoFile);
    }
    if ![0, geteuid().as_raw()].contains(&found.uid()) {
        return Err(TokenError::Foreign { owner: found.uid(), path: path.to_owned() });
    }
    if found.mode() & OPEN != 0 {
        return Err(TokenError::Open { path: path.to_owned() });
    }
    let mut content = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut content)?;
    let token = content.trim_ascii();
    let is_word = token.iter().all(u8::is_ascii_graphic);
    if !is_word || token.len() < SHORTEST || u64::try_from(content.len()).is_ok_and(|read| read > LONGEST) {
        return Err(TokenError::Content);
    }
    Ok(Digest::of(token))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use nix::{
        sys::stat::Mode,
        unistd::{Uid, chown, mkfifo},
    };

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn only_a_word_that_is_its_owners_alone_is_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.token");
        let written = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        assert!(written(&format!("{TOKEN}\n"), 0o600).unwrap().is(&Digest::of(TOKEN.as_bytes())));
        assert!(written(TOKEN, 0o400).is_ok());
        for mode in [0o640, 0o604, 0o620, 0o660] {
            assert!(matches!(written(TOKEN, mode), Err(TokenError::Open { .. })), "{mode:o}");
        }
        for text in
            ["", "short", "two words of a token file", &"x".repeat(5_000), "\u{e4}23456789012345678901"]
        {
            assert!(matches!(written(text, 0o600), Err(TokenError::Content)), "{text}");
        }
        assert!(matches!(read(directory.path()), Err(TokenError::NoFile)));
        assert!(matches!(read(&directory.path().join("none")), Err(TokenError::Read(_))));
        let pipe = directory.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&pipe), Err(TokenError::NoFile)));
        if geteuid().is_root() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(Uid::from_raw(65_534)), None).unwrap();
            assert!(matches!(read(&path), Err(TokenError::Foreign { owner: 65_534, .. })));
        }
    }
}
