//! The users that instances run as, from their names to the numbers that a worker is told: it looks nobody up.

use std::ffi::CString;

use nix::{
    errno::Errno,
    unistd::{self, Gid, Uid, geteuid, getgrouplist},
};

use crate::spec::UserName;

/// A user of the host, by numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its own.
    pub uid: u32,
    /// Its group's.
    pub gid: u32,
    /// All its groups'.
    pub groups: Vec<u32>,
}

/// Why nothing can be run as a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// There is none of this name.
    #[error("there is no user `{0}` on this host")]
    Unknown(UserName),
    /// The system refused.
    #[error("failed to look up the user `{user}`: {}", source.desc())]
    LookUp {
        /// Whom.
        user: UserName,
        /// Why.
        source: Errno,
    },
    /// Only root can become another.
    #[error("this supervisor runs as user {0} and can start nothing as `{1}`")]
    NotRoot(u32, UserName),
}

impl UserError {
    /// What to do about it: a sentence without its full stop.
    #[must_use]
    pub fn mend(&self) -> String {
        match self {
            Self::Unknown(user) => {
                format!("make it, e.g. `useradd --system {user}`, or correct `user` in the spec")
            }
            Self::LookUp { .. } => "see whether `getent passwd` answers".to_owned(),
            Self::NotRoot(..) => "remove `user` from the spec, or run the supervisor as root".to_owned(),
        }
    }
}

/// The numbers of a user; `None` if it is the one that this process runs as.
pub fn resolve(name: &UserName) -> Result<Option<User>, UserError> {
    let me = geteuid();
    let failed = |source| UserError::LookUp { user: name.clone(), source };
    // A number need not have a name.
    let found = match name.0.parse().map(Uid::from_raw) {
        Ok(uid) => Ok((uid, unistd::User::from_uid(uid).map_err(failed)?)),
        Err(_) => unistd::User::from_name(&name.0)
            .map_err(failed)?
            .map(|user| (user.uid, Some(user)))
            .ok_or_else(|| UserError::Unknown(name.clone())),
    };
    let (uid, entry) = found?;
    if uid == me {
        return Ok(None);
    }
    if !me.is_root() {
        return Err(UserError::NotRoot(me.as_raw(), name.clone()));
    }
    let gid = entry.as_ref().map_or(Gid::from_raw(uid.as_raw()), |entry| entry.gid);
    let known = entry.and_then(|entry| CString::new(entry.name).ok());
    let groups = known.map_or(Ok(Vec::new()), |known| getgrouplist(&known, gid)).map_err(failed)?;
    let groups = groups.into_iter().map(Gid::as_raw).collect();
    Ok(Some(User { uid: uid.as_raw(), gid: gid.as_raw(), groups }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(user: &str) -> Result<Option<User>, UserError> {
        resolve(&UserName(user.to_owned()))
    }

    #[test]
    fn the_supervisors_own_user_needs_no_change() {
        assert_eq!(named(&geteuid().to_string()), Ok(None));
    }

    #[test]
    fn a_user_that_is_not_there_is_told_with_how_to_make_it() {
        let error = named("nobody-has-this").unwrap_err();
        assert_eq!(error.to_string(), "there is no user `nobody-has-this` on this host");
        assert!(error.mend().contains("useradd"), "{}", error.mend());
    }

    #[test]
    fn another_user_takes_root() {
        match (geteuid().is_root(), named("54321")) {
            (true, user) => assert_eq!(user, Ok(Some(User { uid: 54_321, gid: 54_321, groups: Vec::new() }))),
            (false, user) => assert!(matches!(user, Err(UserError::NotRoot(..)))),
        }
    }
}
