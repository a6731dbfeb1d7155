//! Who has which role on this host: the bindings of the settings, looked up.
//!
//! Names of users and groups become numbers, and token files digests, when the settings are read; a call only looks
//! them up. A binding that cannot be looked up binds nobody and is told as an alarm: a missing user keeps no gateway
//! from being supervised.

mod token;

use std::{collections::HashMap, sync::Arc};

use nix::unistd::{Gid, Group, Uid, User};
use tokio::sync::watch;
use tracing::warn;

use crate::{
    role::Grant,
    settings::access::{Binding, Who},
};

pub(crate) use token::Digest;

/// The bindings in force. Cheap to clone; all clones change together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bindings(watch::Sender<Arc<Table>>);

impl Bindings {
    /// With these.
    pub(crate) fn new(table: Table) -> Self {
        Self(watch::Sender::new(Arc::new(table)))
    }

    /// Those in force.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.borrow())
    }

    /// Tells of each time that others are put in force, from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Table>> {
        self.0.subscribe()
    }

    /// Puts others in force, for calls from now on, and for streams that are open.
    pub(crate) fn replace(&self, table: Table) {
        self.0.send_replace(Arc::new(table));
    }
}

/// Who has which role.
#[derive(Debug, Default)]
pub(crate) struct Table {
    users: HashMap<u32, Grant>,
    groups: HashMap<u32, Grant>,
    certificates: HashMap<String, Grant>,
    tokens: Vec<Token>,
    names: HashMap<u32, String>,
    warnings: Vec<String>,
}

/// What gives a process a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Its user.
    User,
    /// This group, and not its user.
    Group(u32),
}

impl Bound {
    /// The group, if it is one.
    pub(crate) const fn group(self) -> Option<u32> {
        match self {
            Self::User => None,
            Self::Group(gid) => Some(gid),
        }
    }
}

/// Who knows this has that role.
#[derive(Debug)]
struct Token {
    digest: Digest,
    file: Arc<str>,
    grant: Grant,
}

impl Table {
    /// Looks them up. May block: on files, and on the host's databases.
    pub(crate) fn look_up(bindings: &[Binding]) -> Self {
        let mut found = Self::default();
        for (index, binding) in bindings.iter().enumerate() {
            if let Err(why) = found.add(binding) {
                let sentence = format!("`access[{index}]` ({}) binds nobody: {why}", binding.who);
                warn!("{sentence}");
                found.warnings.push(sentence);
            }
        }
        let known = found.users.keys().copied().chain([Uid::effective().as_raw(), 0]);
        found.names = known.filter_map(|uid| Some((uid, user(uid)?))).collect();
        found
    }

    fn add(&mut self, binding: &Binding) -> Result<(), String> {
        let grant = binding.grant.clone();
        match &binding.who {
            Who::Uid(uid) => raise(&mut self.users, *uid, grant),
            Who::User(name) => {
                let found = User::from_name(name).map_err(|error| error.to_string())?;
                let user = found.ok_or("this host knows no such user")?;
                raise(&mut self.users, user.uid.as_raw(), grant);
            }
            Who::Gid(gid) => raise(&mut self.groups, *gid, grant),
            Who::Group(name) => {
                let found = Group::from_name(name).map_err(|error| error.to_string())?;
                let group = found.ok_or("this host knows no such group")?;
                raise(&mut self.groups, Gid::as_raw(group.gid), grant);
            }
            Who::Certificate(name) => raise(&mut self.certificates, name.clone(), grant),
            Who::TokenFile(path) => {
                let digest = token::read(path).map_err(|error| error.to_string())?;
                let file = path.file_name().unwrap_or_default().to_string_lossy().into();
                self.tokens.push(Token { digest, file, grant });
            }
        }
        Ok(())
    }

    /// The role of a process of this user in these groups.
    pub(crate) fn of_process(&self, uid: u32, groups: impl IntoIterator<Item = u32>) -> Option<&Grant> {
        let of_groups = groups.into_iter().filter_map(|gid| self.groups.get(&gid));
        self.users.get(&uid).into_iter().chain(of_groups).max()
    }

    /// What gives a process of this user in these groups a role. A user may have thousands of numbers (subuid(5)), and
    /// each is in his groups.
    pub(crate) fn bound_by(&self, uid: u32, groups: impl IntoIterator<Item = u32>) -> Option<Bound> {
        if self.users.contains_key(&uid) {
            return Some(Bound::User);
        }
        let of_groups = groups.into_iter().filter_map(|gid| Some((self.groups.get(&gid)?, gid)));
        of_groups.max().map(|(_, gid)| Bound::Group(gid))
    }

    /// The role of the holder of a certificate that was issued to `name`.
    pub(crate) fn of_certificate(&self, name: &str) -> Option<&Grant> {
        self.certificates.get(name)
    }

    /// The role of who knows this token, and the name of the token's file. Takes as long for every token.
    pub(crate) fn of_token(&self, given: &Digest) -> Option<(&Grant, &Arc<str>)> {
        let known = |held: &&Token| held.digest.is(given);
        // Each is looked at, whether or not another one was it.
        let found: Vec<&Token> = self.tokens.iter().filter(known).collect();
        found.into_iter().map(|held| (&held.grant, &held.file)).max()
    }

    /// What a user is called, if that was looked up.
    pub(crate) fn name(&self, uid: u32) -> Option<&str> {
        self.names.get(&uid).map(String::as_str)
    }

    /// Why some bind nobody, a sentence each without its full stop.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Of several roles that somebody has, the highest counts.
fn raise<K: std::hash::Hash + Eq>(grants: &mut HashMap<K, Grant>, who: K, grant: Grant) {
    let held = grants.entry(who).or_insert_with(|| grant.clone());
    if *held < grant {
        *held = grant;
    }
}

fn user(uid: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use supervisor_core::ids::Name;

    use super::*;

    fn binding(who: Who, grant: Grant) -> Binding {
        Binding { who, grant }
    }

    fn secret(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn of_several_roles_the_highest_counts() {
        let rescue = Grant::Rescue(Name::new("rescue").unwrap());
        let bindings = Table::look_up(&[
            binding(Who::Uid(4_000_001), Grant::Viewer),
            binding(Who::Uid(4_000_001), rescue.clone()),
            binding(Who::Gid(4_000_002), Grant::Operator),
            binding(Who::User("root".into()), Grant::Viewer),
            binding(Who::Certificate("ci".into()), rescue),
            binding(Who::Certificate("ci".into()), Grant::Admin),
        ]);
        assert_eq!(bindings.of_process(4_000_001, []), Some(&Grant::Viewer));
        assert_eq!(bindings.of_process(4_000_001, [7, 4_000_002]), Some(&Grant::Operator));
        assert_eq!(bindings.of_process(4_000_003, [7]), None);
        assert_eq!(bindings.of_process(0, []), Some(&Grant::Viewer));
        assert_eq!(bindings.bound_by(4_000_001, [4_000_002]), Some(Bound::User));
        assert_eq!(bindings.bound_by(100_000, [7, 4_000_002]), Some(Bound::Group(4_000_002)));
        assert_eq!(bindings.bound_by(4_000_003, [7]), None);
        assert_eq!(bindings.of_certificate("ci"), Some(&Grant::Admin));
        assert_eq!((bindings.of_certificate("CI"), bindings.name(0)), (None, Some("root")));
        assert_eq!(bindings.warnings(), [""; 0]);
    }

    #[test]
    fn whoever_cannot_be_looked_up_is_nobody_and_that_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open.token");
        secret(&open, "a-long-enough-token-of-ours", 0o640);
        let bindings = Table::look_up(&[
            binding(Who::User("no-such-user".into()), Grant::Admin),
            binding(Who::Group("no-such-group".into()), Grant::Admin),
            binding(Who::TokenFile(open), Grant::Admin),
            binding(Who::Uid(7), Grant::Viewer),
        ]);
        let said = bindings.warnings();
        assert_eq!(said[0], "`access[0]` (user no-such-user) binds nobody: this host knows no such user");
        assert_eq!(said.len(), 3);
        assert!(said[2].contains("chmod 600"), "{said:?}");
        assert_eq!(bindings.of_token(&Digest::of(b"a-long-enough-token-of-ours")), None);
        assert_eq!(bindings.of_process(7, []), Some(&Grant::Viewer));
    }

    #[test]
    fn a_token_is_known_by_its_file_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deploy.token");
        secret(&path, "a-long-enough-token-of-ours\n", 0o600);
        let bindings = Table::look_up(&[
            binding(Who::TokenFile(path.clone()), Grant::Viewer),
            binding(Who::TokenFile(path), Grant::Operator),
        ]);
        let (grant, file) = bindings.of_token(&Digest::of(b"a-long-enough-token-of-ours")).unwrap();
        assert_eq!((grant, &**file), (&Grant::Operator, "deploy.token"));
        for other in [&b"a-long-enough-token-of-our"[..], b"", b"a-long-enough-token-of-ours\n"] {
            assert_eq!(bindings.of_token(&Digest::of(other)), None);
        }
        assert!(!format!("{bindings:?}").contains("long-enough"));
    }

    #[test]
    fn other_bindings_count_from_the_next_call_on() {
        let bindings = Bindings::default();
        let other = bindings.clone();
        assert_eq!(other.table().of_process(7, []), None);
        bindings.replace(Table::look_up(&[binding(Who::Uid(7), Grant::Viewer)]));
        assert_eq!(other.table().of_process(7, []), Some(&Grant::Viewer));
    }
}
