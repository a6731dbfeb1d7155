//! The users that instances run as, from their names to the numbers that a worker is told: it looks nobody up.

use std::{ffi::CString, io, panic::resume_unwind, thread};

use nix::{
    errno::Errno,
    unistd::{self, Gid, Uid, geteuid, getgrouplist, setfsgid, setfsuid},
};
use rustix::thread::set_thread_groups;

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

impl User {
    /// The one that this process runs as.
    pub(crate) fn own() -> Self {
        let groups = unistd::getgroups().unwrap_or_default();
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Self { uid: geteuid().as_raw(), gid: unistd::getegid().as_raw(), groups }
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

/// The numbers of the user that an instance has; `None` if that is the one that this process runs as, and nobody else.
pub fn of(name: Option<&UserName>) -> Result<Option<User>, UserError> {
    name.map_or(Ok(None), resolve)
}

/// Whose the processes of an instance with this `user` are.
pub(crate) fn uid(name: Option<&UserName>) -> Result<u32, UserError> {
    let user = of(name)?;
    Ok(user.map_or_else(|| geteuid().as_raw(), |user| user.uid))
}

/// Does `work` on files as [`acting_as`] does, or with this process's own rights if there is no other user.
pub(crate) fn acting_if<T: Send>(
    user: Option<&User>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    match user {
        Some(user) => acting_as(user, work),
        None => work(),
    }
}

/// Does `work` on files with the rights of a user and of all his groups alone, on a thread of its own. To be called by
/// root.
///
/// Only what the kernel asks about files changes. With the user's whole identity, the thread could be ended by him, and
/// this process with it (credentials(7)).
pub(crate) fn acting_as<T: Send>(user: &User, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<_> = user.groups.iter().copied().map(rustix::process::Gid::from_raw).collect();
    let act = move || {
        set_thread_groups(&groups)?;
        setfsgid(gid);
        setfsuid(uid);
        // Each answers with what was before, and that is all it tells.
        match (setfsgid(gid) == gid, setfsuid(uid) == uid) {
            (true, true) => work(),
            (false, _) | (_, false) => Err(io::ErrorKind::PermissionDenied.into()),
        }
    };
    thread::scope(|scope| {
        let acting = thread::Builder::new().name("acting".into()).spawn_scoped(scope, act)?;
        acting.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, chown},
    };

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

    #[test]
    fn work_on_files_is_done_with_a_users_rights_and_by_no_other_thread() {
        if !geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let (theirs, mine) = (place.path().join("theirs"), place.path().join("mine"));
        fs::create_dir(&theirs).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(&theirs, Some(54_321), Some(54_322)).unwrap();
        let user = User { uid: 54_321, gid: 54_322, groups: Vec::new() };
        acting_as(&user, || fs::write(theirs.join("file"), "")).unwrap();
        let made = fs::metadata(theirs.join("file")).unwrap();
        assert_eq!((made.uid(), made.gid()), (54_321, 54_322));
        let refused = acting_as(&user, || fs::write(&mine, "")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        fs::write(&mine, "").unwrap();
        assert_eq!(fs::metadata(&mine).unwrap().uid(), 0);
    }
}
