//! That no two instances share a directory or a file, and none has one of the supervisor's.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use supervisor_core::ids::Name;

use super::{Directories, Layout};

/// Two instances would share a directory or file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}`{} {relation} `{}` of {}", mine.display(), claimed.by(name), theirs.display(), claimed.whose(other.as_ref()))]
pub struct Clash {
    /// The instance that is refused.
    pub name: Name,
    /// What the path is to it.
    pub claimed: Claimed,
    /// Its path, as its spec names it.
    pub mine: PathBuf,
    /// How the two lie, after links are followed.
    pub relation: Relation,
    /// Who has the other; `None`: the supervisor, or all instances if it is about trees in one another.
    pub other: Option<Name>,
    /// The other path.
    pub theirs: PathBuf,
}

/// What a path is to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// One of its directories.
    Own,
    /// Opened to it in the wall around its files.
    Granted,
    /// The same, in a tree that is written already, or around one.
    Nested,
}

impl Claimed {
    /// What follows a path in a sentence.
    fn by(self, name: &Name) -> String {
        match self {
            Self::Own => format!(" of `{name}`"),
            Self::Granted | Self::Nested => format!(", granted to `{name}`,"),
        }
    }

    /// Who has the other path, if no instance does alone.
    fn whose(self, other: Option<&Name>) -> String {
        match (self, other) {
            (_, Some(other)) => format!("`{other}`"),
            (Self::Own | Self::Granted, None) => "the supervisor".to_owned(),
            (Self::Nested, None) => "all instances".to_owned(),
        }
    }
}

/// How two paths lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// One place.
    Same,
    /// The first lies in the second.
    Inside,
    /// The second lies in the first.
    Around,
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Same => "is the same place as",
            Self::Inside => "lies inside",
            Self::Around => "lies around",
        })
    }
}

impl Clash {
    /// What to do about it: a sentence without its full stop.
    #[must_use]
    pub fn mend(&self) -> String {
        match (self.claimed, &self.other, self.relation) {
            (Claimed::Own, Some(other), _) => {
                format!("give `{}` or `{other}` a directory of its own", self.name)
            }
            (Claimed::Own, None, _) => {
                "leave `profile` out, and the supervisor makes directories of its own".to_owned()
            }
            (Claimed::Granted, _, Relation::Around) => {
                format!("grant the directories in it that `{}` needs, and not that one", self.name)
            }
            (Claimed::Nested, None, _) => {
                format!("leave it out: `{}` and all others may write there already", self.name)
            }
            (Claimed::Nested, Some(other), Relation::Same | Relation::Inside) if *other == self.name => {
                format!("leave it out: `{other}` may write there already")
            }
            (Claimed::Nested, Some(other), _) if *other != self.name => {
                format!("grant `{}` and `{other}` the same directory, or directories apart", self.name)
            }
            (Claimed::Nested, Some(_), _) => {
                format!("grant the directories in it that `{}` needs, and not that one", self.name)
            }
            (Claimed::Granted, _, Relation::Same | Relation::Inside) => {
                "grant none of it: only a rescue may read, and only what its primaries have".to_owned()
            }
        }
    }
}

/// `path` with every link of its existing part followed.
#[must_use]
pub fn resolve(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|existing| {
            let rest = path.strip_prefix(existing).ok()?;
            let found = existing.canonicalize().ok()?;
            Some(if rest.as_os_str().is_empty() { found } else { found.join(rest) })
        })
        .unwrap_or_else(|| path.to_owned())
}

/// Whether `me` shares no directory or file with any of `others`, nor with the supervisor.
pub fn check_apart<'a>(
    data_dir: &Path,
    me: (&'a Name, &'a Directories),
    others: impl IntoIterator<Item = (&'a Name, &'a Directories)>,
) -> Result<(), Clash> {
    match me.1.layout {
        Layout::Managed => Ok(()),
        Layout::Profile => {
            let all = others.into_iter().chain([me]);
            clashes(data_dir, all).into_iter().find(|clash| clash.name == *me.0).map_or(Ok(()), Err)
        }
    }
}

/// A path that an instance claims for itself alone.
struct Claim<'a> {
    name: &'a Name,
    path: &'a Path,
    resolved: PathBuf,
}

impl Claim<'_> {
    fn clash(&self, relation: Relation, other: Option<&Name>, theirs: &Path) -> Clash {
        let (name, mine) = (self.name.clone(), self.path.to_owned());
        let (claimed, other, theirs) = (Claimed::Own, other.cloned(), theirs.to_owned());
        Clash { name, claimed, mine, relation, other, theirs }
    }
}

/// Every pair of instances that clash, once: as a refusal of the later of the two.
#[must_use]
pub fn clashes<'a>(
    data_dir: &Path,
    all: impl IntoIterator<Item = (&'a Name, &'a Directories)>,
) -> Vec<Clash> {
    let claims: Vec<Claim<'_>> = all
        .into_iter()
        .flat_map(|(name, directories)| {
            directories.claims().into_iter().map(move |path| Claim { name, path, resolved: resolve(path) })
        })
        .collect();
    let mut first: HashMap<&Path, usize> = HashMap::new();
    for (index, claim) in claims.iter().enumerate() {
        first.entry(&claim.resolved).or_insert(index);
    }
    let supervisors = resolve(data_dir);
    let mut found: Vec<Clash> = Vec::new();
    let mut add = |clash: Clash| {
        if !found.iter().any(|known| known.name == clash.name && known.other == clash.other) {
            found.push(clash);
        }
    };
    for (index, claim) in claims.iter().enumerate() {
        if let Some(relation) = relation(&claim.resolved, &supervisors) {
            add(claim.clash(relation, None, data_dir));
        }
        for around in claim.resolved.ancestors() {
            let Some(at) = first.get(around).copied() else { continue };
            let holder = &claims[at];
            match (holder.name == claim.name, holder.resolved == claim.resolved, at < index) {
                (true, ..) => {}
                (false, true, _) => add(claim.clash(Relation::Same, Some(holder.name), holder.path)),
                (false, false, true) => add(claim.clash(Relation::Inside, Some(holder.name), holder.path)),
                (false, false, false) => add(holder.clash(Relation::Around, Some(claim.name), claim.path)),
            }
        }
    }
    found
}

/// How the first path lies to the second, if they meet.
pub(crate) fn relation(mine: &Path, theirs: &Path) -> Option<Relation> {
    match (mine == theirs, mine.starts_with(theirs), theirs.starts_with(mine)) {
        (true, ..) => Some(Relation::Same),
        (false, true, _) => Some(Relation::Inside),
        (false, false, true) => Some(Relation::Around),
        (false, false, false) => None,
    }
}
