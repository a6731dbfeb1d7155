//! What only shows once the whole file is known: ports, rescues and directories that do not go together.

use std::{collections::BTreeMap, path::PathBuf};

use supervisor_core::{
    ids::Name,
    ports::{BLOCK, Block, Pool},
};

use super::{Reader, Surroundings};
use crate::{
    openclaw::{
        layout::{Directories, clashes, led_by_people, led_home},
        walls::grants::{Other, overreach},
    },
    problem::{Place, nearest},
    spec::{FieldPath, InstanceSpec, Profile, Runtime},
    yaml::Fault,
};

/// Fields that belong to one instance and so cannot be a default.
const NO_DEFAULT: [(&str, &str); 3] = [
    ("port", "two instances cannot have one port block"),
    ("profile", "two instances cannot share directories"),
    ("rescues", "an instance would be its own rescue"),
];

impl Reader<'_> {
    pub(super) fn check(&mut self, surroundings: &Surroundings<'_>) {
        self.check_defaults();
        self.check_specs();
        let pool = self.check_pool(surroundings.pool);
        self.check_ports(pool);
        self.check_primaries(surroundings);
        self.check_cycles();
        self.check_directories(surroundings);
        self.check_links(surroundings);
        self.check_grants(surroundings);
        self.check_versions(surroundings);
    }

    /// Where the field `path` of an instance stands: there, or in the defaults, or else at the instance.
    fn place(&self, name: &str, path: &FieldPath) -> (Place, Vec<String>) {
        let keys: Vec<String> = path.keys().collect();
        let under = |above: &[&str]| {
            let whole: Vec<String> = above.iter().map(|key| (*key).to_owned()).chain(keys.clone()).collect();
            let first = keys.first().map_or("", String::as_str);
            let holder =
                above.iter().try_fold(self.tree, |node, key| node.get(key).map(|entry| &*entry.node));
            let known = holder.is_some_and(|holder| holder.get(first).is_some());
            let place = self.tree.find(whole.iter().map(String::as_str)).unwrap_or(Place::START);
            known.then_some((place, whole))
        };
        under(&["instances", name]).or_else(|| under(&["defaults"])).unwrap_or_else(|| {
            let above = ["instances", name];
            let whole = above.iter().map(|key| (*key).to_owned()).chain(keys.clone()).collect();
            (self.tree.find(above).unwrap_or(Place::START), whole)
        })
    }

    fn refuse(&mut self, name: &str, path: &FieldPath, message: impl Into<String>, mend: impl Into<String>) {
        let (place, path) = self.place(name, path);
        let fault = Fault { place: Some(place), path, message: message.into(), mend: mend.into() };
        // What is wrong with the defaults is wrong with every instance; say it once.
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    fn check_defaults(&mut self) {
        let Some(defaults) = self.tree.get("defaults") else { return };
        for (field, why) in NO_DEFAULT {
            if let Some(entry) = defaults.node.get(field) {
                let message = format!("this cannot be a default: {why}");
                let fault = Fault::new(entry.place, message, "say it of each instance that it is for");
                self.faults.push(fault.within(field).within("defaults"));
            }
        }
    }

    fn check_specs(&mut self) {
        for (name, spec) in self.merged() {
            for violation in spec.validate() {
                self.refuse(&name, &violation.path, violation.message, violation.mend);
            }
        }
    }

    /// The pool in force.
    fn check_pool(&mut self, current: Pool) -> Pool {
        let Some(pool) = self.pool else { return current };
        let fits = Block::at(pool.first).is_some_and(|block| pool.contains(block));
        if pool.first < 1024 || !fits {
            let place = self.tree.find(["pool"]).unwrap_or(Place::START);
            let message = format!("no block of {BLOCK} ports fits between {} and {}", pool.first, pool.last);
            let mend = "choose `first` from 1024 on and `last` at least 19 above it";
            self.faults.push(Fault::new(place, message, mend).within("pool"));
        }
        pool
    }

    fn check_ports(&mut self, pool: Pool) {
        let mut taken: BTreeMap<Block, Name> = BTreeMap::new();
        let asked: Vec<(Name, Block)> = self
            .instances
            .iter()
            // What is not a port at all has been said already.
            .filter_map(|(name, spec)| {
                Some((name.clone(), spec.port.filter(|port| *port >= 1024).and_then(Block::at)?))
            })
            .collect();
        let path = FieldPath::of(&["port"]);
        for (name, block) in &asked {
            if !pool.contains(*block) {
                let message = format!("ports {block} leave the pool {} to {}", pool.first, pool.last);
                self.refuse(name, &path, message, "choose a port inside, or widen `pool`");
            } else if let Some((held, holder)) = taken.iter().find(|(held, _)| held.overlaps(*block)) {
                let (place, _) = self.place(holder, &path);
                let message = format!("ports {block} overlap {held} of `{holder}` (line {})", place.line);
                let mend = match free_block(pool, &asked) {
                    Some(free) => format!("choose another, e.g. {}, or leave `port` out", free.base),
                    None => "leave `port` out, or widen `pool`".to_owned(),
                };
                self.refuse(name, &path, message, mend);
            } else {
                taken.insert(*block, name.clone());
            }
        }
    }

    fn check_primaries(&mut self, surroundings: &Surroundings<'_>) {
        let mut names: Vec<Name> = self.instances.iter().map(|(name, _)| name.clone()).collect();
        names.extend(surroundings.known.iter().cloned());
        let rescues: Vec<(Name, Vec<Name>)> =
            self.instances.iter().map(|(name, spec)| (name.clone(), spec.rescues.clone())).collect();
        for (name, primaries) in rescues {
            for (index, primary) in primaries.iter().enumerate() {
                let path = FieldPath::of(&["rescues"]).item(index);
                if *primary == name {
                    self.refuse(&name, &path, "an instance cannot rescue itself", "name another instance");
                } else if !names.contains(primary) {
                    let mend = match nearest(primary, names.iter().map(|name| &**name)) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("add `{primary}` to `instances`, or remove it here"),
                    };
                    self.refuse(&name, &path, format!("there is no instance `{primary}`"), mend);
                }
            }
        }
    }

    /// Each circle of rescues once, at the first of its members in the file.
    fn check_cycles(&mut self) {
        let primaries: BTreeMap<Name, Vec<Name>> =
            self.instances.iter().map(|(name, spec)| (name.clone(), spec.rescues.clone())).collect();
        let mut told: Vec<Name> = Vec::new();
        for (name, _) in self.instances.clone() {
            if told.contains(&name) {
                continue;
            }
            let Some(circle) = circle_through(&name, &primaries) else { continue };
            let words: Vec<&str> = circle.iter().map(|name| &**name).collect();
            let message = format!("the rescues form a circle: {} rescues {}", words.join(" rescues "), name);
            self.refuse(&name, &FieldPath::of(&["rescues"]), message, "let one of them rescue nobody");
            told.extend(circle);
        }
    }

    fn check_directories(&mut self, surroundings: &Surroundings<'_>) {
        let profiles: Vec<(Name, Profile)> = self
            .instances
            .iter()
            .filter_map(|(name, spec)| Some((name.clone(), spec.profile.clone()?)))
            .collect();
        let directories: Vec<(&Name, Directories)> = profiles
            .iter()
            .map(|(name, profile)| (name, Directories::at(surroundings.data_dir, name, Some(profile))))
            .collect();
        for clash in clashes(surroundings.data_dir, directories.iter().map(|(name, paths)| (*name, paths))) {
            let profile = profiles.iter().find(|(name, _)| *name == clash.name).map(|(_, profile)| profile);
            let is = |path: Option<&PathBuf>| path.is_some_and(|path| *path == clash.mine);
            let field = match profile {
                Some(profile) if is(profile.config.as_ref()) => "config",
                Some(profile) if is(profile.workspace.as_ref()) => "workspace",
                Some(_) | None => "state_dir",
            };
            self.refuse(&clash.name, &FieldPath::of(&["profile", field]), clash.to_string(), clash.mend());
        }
    }

    /// No link leads to what is named.
    fn check_links(&mut self, surroundings: &Surroundings<'_>) {
        let merged = self.merged();
        let place = |(name, spec): &(Name, InstanceSpec)| Directories::of(surroundings.data_dir, name, spec);
        let places: Vec<Directories> = merged.iter().map(place).collect();
        for ((name, spec), directories) in merged.iter().zip(&places) {
            let all = places.iter().zip(&merged).map(|(at, (_, spec))| (at, spec.walls.write.as_slice()));
            let grants = led_by_people(surroundings.data_dir, spec, all);
            for (field, led) in led_home(directories).into_iter().chain(grants) {
                self.refuse(name, &field, led.to_string(), led.mend());
            }
        }
    }

    /// No grant opens what is another instance's, or the supervisor's.
    fn check_grants(&mut self, surroundings: &Surroundings<'_>) {
        let merged = self.merged();
        let place = |name: &Name, spec: &InstanceSpec| Directories::of(surroundings.data_dir, name, spec);
        let places: Vec<Directories> = merged.iter().map(|(name, spec)| place(name, spec)).collect();
        let all: Vec<Other<'_>> = merged
            .iter()
            .zip(&places)
            .map(|((name, spec), directories)| Other { name, directories, writes: &spec.walls.write })
            .collect();
        for ((name, spec), mine) in merged.iter().zip(&places) {
            let Some(clash) = overreach(surroundings.data_dir, (name, mine), spec, &all) else { continue };
            let at = spec.walls.grants().find(|(_, _, path)| *path == clash.mine);
            let (field, index) = at.map_or(("write", 0), |(field, index, _)| (field, index));
            self.refuse(name, &FieldPath::of(&["walls", field]).item(index), clash.to_string(), clash.mend());
        }
    }

    /// What an upgrade has moved, only an upgrade moves again: it asks the version beforehand whether it takes the
    /// state. A file may be older than the upgrade, so what it says is no sign that somebody wants that.
    fn check_versions(&mut self, surroundings: &Surroundings<'_>) {
        for (name, spec) in self.merged() {
            let Some(on) = surroundings.upgraded.get(&name).filter(|_| is_openclaw(&spec)) else { continue };
            let (field, other, to) = match (&spec.version, &spec.program) {
                (Some(version), _) if version != on => {
                    ("version", format!("OpenClaw {version}"), version.clone())
                }
                (None, Some(program)) => {
                    let from =
                        if program.contains('/') { format!(" --from {program}") } else { String::new() };
                    ("program", format!("`{program}`"), format!("VERSION{from}"))
                }
                (Some(_), _) | (None, None) => continue,
            };
            let message = format!("`{name}` was upgraded to {on}, with its state; {other} may not read that");
            let mend = format!(
                "leave this out to stay on {on}, or run `openclawctl upgrade {name} --to {to}` first"
            );
            self.refuse(&name, &FieldPath::of(&[field]), message, mend);
        }
    }
}

/// Whether OpenClaw runs with this spec where it is installed.
fn is_openclaw(spec: &InstanceSpec) -> bool {
    match spec.runtime.unwrap_or(Runtime::Auto) {
        Runtime::Auto | Runtime::Openclaw => true,
        Runtime::Builtin | Runtime::Command => false,
    }
}

/// Whether it is OpenClaw, of whatever version there is.
pub(super) fn leaves_open(spec: &InstanceSpec) -> bool {
    is_openclaw(spec) && spec.version.is_none() && spec.program.is_none()
}

/// The first block of the pool that meets none of those asked for.
fn free_block(pool: Pool, asked: &[(Name, Block)]) -> Option<Block> {
    (pool.first..=pool.last)
        .step_by(usize::from(BLOCK))
        .filter_map(Block::at)
        .find(|block| pool.contains(*block) && asked.iter().all(|(_, held)| !held.overlaps(*block)))
}

/// The circle of rescues that leads from `start` back to it, if there is one.
fn circle_through(start: &Name, primaries: &BTreeMap<Name, Vec<Name>>) -> Option<Vec<Name>> {
    let mut came_from: BTreeMap<&Name, &Name> = BTreeMap::new();
    let mut next = vec![start];
    while let Some(name) = next.pop() {
        for primary in primaries.get(name).into_iter().flatten() {
            if primary == start && name != start {
                let mut circle = vec![name.clone()];
                while let Some(before) = came_from.get(circle.last()?) {
                    circle.push((*before).clone());
                }
                circle.reverse();
                return Some(circle);
            }
            if primary != start && !came_from.contains_key(primary) {
                came_from.insert(primary, name);
                next.push(primary);
            }
        }
    }
    None
}
