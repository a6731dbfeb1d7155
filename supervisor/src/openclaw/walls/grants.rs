//! What instances are granted: nothing of another instance's, and nothing of the supervisor's.
//!
//! Nor is a tree granted to be written that lies in another such tree: whoever writes in the outer one could put a link in
//! the place of the inner one, and nobody could say any more what had been granted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use supervisor_core::ids::Name;

use crate::{
    openclaw::{
        layout::{Claimed, Clash, Directories, Layout, Led, Neighbour, Relation, relation, resolve},
        place::UNFINISHED,
        runtime::RUNTIMES,
        walls::{ENTRIES, shared},
        ways::Ways,
    },
    spec::InstanceSpec,
};

/// How OpenClaw calls files that it is replacing.
const OPENCLAWS: &str = ".fs-safe-replace.";

/// Another instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Other<'a> {
    pub(crate) name: &'a Name,
    pub(crate) directories: &'a Directories,
    /// What it has been granted to write.
    pub(crate) writes: &'a [PathBuf],
}

/// What is an instance's alone. What lies in its state is not named again: its agent could make it a link to anything,
/// which would then be closed to all others.
pub(super) fn places(directories: &Directories) -> Vec<PathBuf> {
    let Directories { root, state, config, workspace, .. } = directories;
    let beside = [config, workspace].into_iter().filter(|path| !path.starts_with(state));
    let mut places: Vec<PathBuf> = [root, state].into_iter().chain(beside).cloned().collect();
    places.extend(directories.copies());
    if !config.starts_with(state)
        && let Some(Ok(entries)) = config.parent().map(fs::read_dir)
    {
        let made = entries.flatten().take(ENTRIES).filter(|entry| is_made_of(config, entry));
        places.extend(made.map(|entry| entry.path()));
    }
    places
}

/// Whether a file is what OpenClaw, or the supervisor, makes of a configuration: as secret as that, and beside it.
pub(super) fn is_made_of(config: &Path, entry: &fs::DirEntry) -> bool {
    let name = config.file_name().unwrap_or_default().as_encoded_bytes();
    let (called, made) = (entry.file_name(), [name, OPENCLAWS.as_bytes(), UNFINISHED.as_bytes()]);
    let is_made = made.into_iter().any(|made| called.as_encoded_bytes().starts_with(made));
    is_made && entry.file_type().is_ok_and(|kind| kind.is_file())
}

/// The first grant that no instance may have.
pub(crate) fn overreach(
    data_dir: &Path,
    me: (&Name, &Directories),
    spec: &InstanceSpec,
    others: &[Other<'_>],
) -> Option<Clash> {
    foreign(data_dir, me.0, spec, others).or_else(|| nested(me, &spec.walls.write, others))
}

/// The first that would open another instance's directories, or the supervisor's. A rescue may be let read what its
/// primaries have.
fn foreign(data_dir: &Path, me: &Name, spec: &InstanceSpec, others: &[Other<'_>]) -> Option<Clash> {
    spec.walls.grants().next()?;
    let found = |path: PathBuf| (resolve(&path), path);
    let others = others.iter().filter(|other| other.name != me);
    let closed: Vec<(&Name, Vec<(PathBuf, PathBuf)>)> = others
        .map(|other| (other.name, places(other.directories).into_iter().map(found).collect()))
        .collect();
    let (supervisors, ways) = (resolve(data_dir), Ways::default());
    // What a link leads to is opened to nobody.
    let straight = spec.walls.grants().filter(|(_, _, path)| Led::to(&ways, path).is_none());
    straight.into_iter().find_map(|(access, _, path)| {
        let granted = resolve(path);
        let clash = |relation, other: Option<&Name>, theirs: &Path| Clash {
            name: me.clone(),
            claimed: Claimed::Granted,
            mine: path.to_owned(),
            relation,
            other: other.cloned(),
            theirs: theirs.to_owned(),
        };
        if let Some(how @ (Relation::Same | Relation::Around)) = relation(&granted, &supervisors) {
            return Some(clash(how, None, data_dir));
        }
        let mut of_a_primary = false;
        for (other, places) in &closed {
            let met = places.iter().find_map(|(at, theirs)| Some((relation(&granted, at)?, theirs)));
            let Some((how, theirs)) = met else { continue };
            let within = places.iter().any(|(at, _)| granted.starts_with(at));
            if !(within && access == "read" && spec.rescues.contains(other)) {
                return Some(clash(how, Some(*other), theirs));
            }
            of_a_primary = true;
        }
        let readable = access == "read" && (of_a_primary || granted.starts_with(supervisors.join(RUNTIMES)));
        let how = relation(&granted, &supervisors).filter(|_| !readable)?;
        Some(clash(how, None, data_dir))
    })
}

/// The first to be written that lies in another, or around it, be that one its own or another instance's.
fn nested(me: (&Name, &Directories), writes: &[PathBuf], others: &[Other<'_>]) -> Option<Clash> {
    if writes.is_empty() {
        return None;
    }
    let (name, Directories { state, workspace, config, layout, .. }) = me;
    let own: &[&PathBuf] = match layout {
        Layout::Managed => &[],
        Layout::Profile => &[state, workspace, config],
    };
    let others = others.iter().filter(|other| other.name != name);
    let theirs = others.flat_map(|other| other.writes.iter().map(move |path| (other.name, path)));
    let mine = own.iter().copied().chain(writes).map(|path| (name, path));
    let all: Vec<(&Name, &PathBuf, PathBuf)> =
        mine.chain(theirs).map(|(whose, path)| (whose, path, resolve(path))).collect();
    let (memory, ways) = (Path::new(shared::MEMORY), Ways::default());
    writes.iter().filter(|path| Led::to(&ways, path).is_none()).find_map(|path| {
        let granted = resolve(path);
        if let Some(how) = relation(&granted, memory) {
            let theirs = memory.to_owned();
            let (name, mine, claimed) = (name.clone(), path.clone(), Claimed::Nested);
            return Some(Clash { name, claimed, mine, relation: how, other: None, theirs });
        }
        all.iter().find_map(|(whose, other, at)| {
            let how = relation(&granted, at).filter(|how| *how != Relation::Same)?;
            Some(Clash {
                name: name.clone(),
                claimed: Claimed::Nested,
                mine: path.clone(),
                relation: how,
                other: Some((*whose).clone()),
                theirs: (*other).clone(),
            })
        })
    })
}

/// What of an instance's own another may write, in a sentence with what to do.
pub(crate) fn written_by_others(directories: &Directories, others: &[Neighbour]) -> Option<String> {
    places(directories).into_iter().find_map(|place| {
        let at = resolve(&place);
        others.iter().find_map(|other| {
            let tree = other.writes.iter().find(|tree| relation(&at, &resolve(tree)).is_some())?;
            let (place, tree, name) = (place.display(), tree.display(), &other.name);
            Some(format!(
                "`{place}` and `{tree}`, which `{name}` may write, lie in one another; take that out of the `walls.write` of \
                 `{name}`"
            ))
        })
    })
}
