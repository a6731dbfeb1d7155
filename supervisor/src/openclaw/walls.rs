//! What an instance may open: the trees that the wall around its files leaves to it.
//!
//! | it writes | it reads |
//! |---|---|
//! | state, workspace, home, temporary files, OpenClaw's own log | its captured output, its incident file |
//! | OpenClaw's locks in /tmp; terminals, shared memory, /dev/null | system, runtime, programs on its PATH, certificates that its environment names |
//! | what its spec grants | what its spec grants; of its primaries the logs |
//!
//! Links are followed here, as far as somebody else than the instance has made them: what lies in a tree that it
//! writes is open already, and is not named again, so that a link which it plants there opens nothing more. Another
//! instance's directories and the supervisor's are closed whatever else is open: a tree around them is opened without
//! them.

pub(crate) mod grants;
pub(crate) mod limits;
pub(crate) mod shared;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use nix::unistd::{self, Uid};
use supervisor_core::{ids::Name, ports::Block};
use supervisor_proto::worker::{self, PortRange};

use self::grants::{is_made_of, places};
use super::{
    file::open_regular,
    incident,
    layout::{Directories, Layout, Led, Neighbour, led_grants, relation, resolve},
    prepare::Host,
    runtime::{RUNTIMES, is_executable},
    ways::Ways,
    written::Written,
};
use crate::{
    spec::{InstanceSpec, Kind},
    user::User,
};

/// Read and run by everybody: programs, libraries, settings, and what the kernel tells.
const SYSTEM: [&str; 30] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/bin",
    "/sbin",
    "/etc",
    "/opt",
    "/nix",
    "/gnu",
    "/snap",
    "/home/linuxbrew/.linuxbrew",
    "/proc",
    "/sys",
    // Numbers without end, and the terminals' own directory.
    "/dev/random",
    "/dev/urandom",
    "/dev/fd",
    // Who answers for names: of hosts, users and files.
    "/run/systemd/resolve",
    "/run/systemd/userdb",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/connman",
    "/run/nscd",
    "/run/current-system",
    "/run/opengl-driver",
    // Fonts and certificates, as browsers look for them.
    "/var/cache/fontconfig",
    "/var/lib/ca-certificates",
    "/var/lib/dbus/machine-id",
    "/var/lib/swcatalog",
];

/// Written by everybody, and nobody's.
const DEVICES: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts", shared::MEMORY];

/// Variables of the environment that name certificates.
const CERTIFICATES: [&str; 5] =
    ["NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// OpenClaw's own log file, apart from the captured output, which it may only read.
pub(crate) const OWN_LOG: &str = "openclaw";

/// A script that starts a runtime is a few lines; what is larger is a program.
const SCRIPT: u64 = 16 << 10;

/// Entries of a directory that are opened one by one, because what is closed lies among them.
const ENTRIES: usize = 1_000;

/// The tree that every instance may read, whatever its spec says, and in which `path` lies.
pub(crate) fn open_to_all(path: &Path) -> Option<&'static str> {
    let path = resolve(path);
    SYSTEM.into_iter().find(|tree| path.starts_with(resolve(Path::new(tree))))
}

/// Whom the trees are for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) host: &'a Host,
    pub(crate) name: &'a Name,
    pub(crate) spec: &'a InstanceSpec,
    pub(crate) directories: &'a Directories,
    /// All instances; this one may be among them.
    pub(crate) neighbours: &'a [Neighbour],
    pub(crate) kind: Kind,
    pub(crate) program: &'a Path,
    pub(crate) args: &'a [String],
    pub(crate) environment: &'a BTreeMap<String, String>,
    /// Whose processes they are.
    pub(crate) uid: u32,
}

/// What may be opened. None lies in another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trees {
    /// In these everything.
    pub write: Vec<PathBuf>,
    /// In these reading, and writing, making and removing files; no directory and no link is made or replaced.
    pub files: Vec<PathBuf>,
    /// In these reading and running.
    pub read: Vec<PathBuf>,
}

/// The trees of an instance, as far as they are there and links followed. Looks at files; makes none.
pub(crate) fn trees(ground: &Ground<'_>) -> Trees {
    let closed = Closed::new(ground);
    let write = writable(ground, &closed);
    let files = configuration(ground, &closed).and_then(|path| straight(&closed.ways, path, &write));
    let system = SYSTEM.into_iter().map(Path::new).filter(|tree| is_hosts(&closed.ways, tree));
    let mut read: Vec<PathBuf> = system.flat_map(|tree| closed.without(tree)).collect();
    // It is a link to a file that is replaced, wherever the host keeps it.
    let names = closed.ways.resolve(Path::new("/etc/resolv.conf"));
    let beside = names.parent().filter(|beside| beside.components().count() > 2);
    read.extend(closed.open(beside.unwrap_or(&names)));
    read.extend(runtime(ground, &closed, &write));
    let certificates = CERTIFICATES.iter().filter_map(|name| ground.environment.get(*name));
    read.extend(
        certificates.flat_map(|value| value.split(':')).filter_map(|path| closed.open(Path::new(path))),
    );
    let Directories { root, logs, .. } = ground.directories;
    read.extend([logs.clone(), root.join(incident::DIRECTORY)]);
    read.extend(primaries(ground).map(|primary| primary.directories(data_dir(ground)).logs));
    let mut read: Vec<PathBuf> = read.iter().filter_map(|path| closed.settled(path, &write)).collect();
    read.extend(ground.spec.walls.read.iter().filter_map(|path| straight(&closed.ways, path, &write)));
    Trees { read: outermost(read), files: files.into_iter().collect(), write: outermost(write) }
}

/// The same with what OpenClaw has in /tmp made, and what is wrong with that, in sentences. No trees where the spec leaves
/// the wall around its files out.
pub(crate) fn stand(ground: &Ground<'_>) -> (Option<Trees>, Vec<String>) {
    if !ground.spec.walls.files() {
        return (None, Vec::new());
    }
    let mut trees = trees(ground);
    let mut wrong = shared::make(&mut trees, ground.uid);
    let not_opened = |(_, led): (_, Led)| format!("{led}; it is not opened; {}", led.mend());
    wrong.extend(led_grants(ground.spec).map(not_opened));
    wrong.extend(trees.files.iter().filter(|tree| **tree == ground.directories.config).map(|config| {
        format!(
            "OpenClaw cannot replace its configuration, as other things lie beside `{}`; give it a directory of its own",
            config.display()
        )
    }));
    (Some(trees), wrong)
}

/// Whether no link leads to a tree of the system's but those that the host has (`/bin`, `/dev/fd`): one of them lies in
/// somebody's home.
fn is_hosts(ways: &Ways, tree: &Path) -> bool {
    let places = ["/", "/dev", "/proc"].map(Path::new);
    ways.links(tree).iter().all(|link| link.parent().is_some_and(|parent| places.contains(&parent)))
}

/// Where a tree that people have named is, unless it is open with those that the instance writes, or a link leads there.
fn straight(ways: &Ways, path: &Path, write: &[PathBuf]) -> Option<PathBuf> {
    let found = ways.found(path).filter(|_| ways.links(path).is_empty())?;
    (!is_open(&found, write)).then_some(found)
}

fn is_open(path: &Path, write: &[PathBuf]) -> bool {
    write.iter().any(|tree| path.starts_with(tree))
}

fn data_dir<'a>(ground: &Ground<'a>) -> &'a Path {
    &ground.host.control.data_dir
}

fn primaries<'a>(ground: &Ground<'a>) -> impl Iterator<Item = &'a Neighbour> {
    let rescues = &ground.spec.rescues;
    ground.neighbours.iter().filter(move |other| rescues.contains(&other.name))
}

fn writable(ground: &Ground<'_>, closed: &Closed) -> Vec<PathBuf> {
    let Directories { state, workspace, home, tmp, logs, .. } = ground.directories;
    let mut write = vec![home.clone(), tmp.clone(), logs.join(OWN_LOG)];
    for path in [state, workspace].into_iter().chain(&ground.spec.walls.write) {
        write.extend(straight(&closed.ways, path, &write));
    }
    let devices = DEVICES.iter().filter_map(|device| closed.ways.found(Path::new(device)));
    write.extend(devices.filter(|device| closed.leaves(device)));
    // A browser's own sandbox writes there about its processes. What is the system's is closed to all but root by
    // its modes.
    write.extend((ground.uid != 0).then(|| PathBuf::from("/proc")));
    match ground.kind {
        Kind::Openclaw | Kind::Command => write.push(shared::locks(ground.uid)),
        Kind::Builtin => {}
    }
    write
}

/// The directory of a configuration that lies elsewhere, if it is the configuration's alone: OpenClaw replaces it and lays
/// copies beside it. Else the configuration: nobody can tell whose the other things are.
fn configuration<'a>(ground: &Ground<'a>, closed: &Closed) -> Option<&'a Path> {
    let Directories { config, layout, .. } = ground.directories;
    let is_fit = |beside: &&Path| {
        closed.may(beside) && beside.components().count() > 2 && is_alone(ground.directories, beside)
    };
    match layout {
        Layout::Managed => None,
        Layout::Profile => Some(config.parent().filter(is_fit).unwrap_or(config)),
    }
}

/// Whether nothing lies beside a configuration but what is made of it, and the instance's other directories.
fn is_alone(directories: &Directories, beside: &Path) -> bool {
    let Directories { config, state, workspace, .. } = directories;
    let is_of_it = |entry: &fs::DirEntry| {
        let path = entry.path();
        path == *state || path == *workspace || is_made_of(config, entry)
    };
    let Ok(entries) = fs::read_dir(beside) else { return false };
    // Behind more nobody looks, and any of them may be somebody's.
    entries.enumerate().all(|(before, entry)| before < ENTRIES && entry.is_ok_and(|entry| is_of_it(&entry)))
}

/// What an instance has and has been granted, but for what a link leads to, and for what lies beside its configuration.
pub(crate) fn granted(directories: &Directories, spec: &InstanceSpec) -> Vec<PathBuf> {
    let Directories { state, config, workspace, home, tmp, .. } = directories;
    let ways = Ways::default();
    let own = [state, config, home, tmp, workspace].into_iter().map(PathBuf::as_path);
    let own = own.chain(spec.walls.grants().map(|(_, _, path)| path));
    own.filter_map(|path| straight(&ways, path, &[])).collect()
}

/// What it takes to run the program: where it is installed, and what is on its PATH.
fn runtime(ground: &Ground<'_>, closed: &Closed, write: &[PathBuf]) -> Vec<PathBuf> {
    // What lies in a tree that it, or another instance, writes is no word about what is to be open.
    let is_theirs = |path: &Path| {
        let lies_there = is_open(path, write) || is_open(&closed.ways.resolve(path), write);
        lies_there || closed.written.could_be(&closed.ways, path)
    };
    let mut found = Vec::new();
    if !is_theirs(ground.program) {
        found.extend(closed.installation(ground.program));
        let named = named_in(ground.program).into_iter().filter(|named| !is_theirs(named));
        found.extend(named.flat_map(|named| closed.installation(&named)));
    }
    let arguments = ground.args.iter().map(Path::new);
    for argument in arguments.filter(|argument| argument.is_absolute() && !is_theirs(argument)) {
        match argument.is_dir() {
            true => found.extend(closed.open(argument)),
            false => found.extend(closed.installation(argument)),
        }
    }
    let path = ground.environment.get("PATH").map_or("", String::as_str);
    let directories = || path.split(':').map(Path::new).filter(|directory| directory.is_absolute());
    found.extend(directories().flat_map(|directory| closed.open(directory)));
    let node = directories().map(|directory| directory.join("node")).find(|node| is_executable(node));
    let node = node.filter(|node| !is_theirs(node));
    found.extend(node.into_iter().flat_map(|node| closed.installation(&node)));
    found
}

/// The files that a script names, as those do that start OpenClaw with a Node of its own.
pub(crate) fn named_in(program: &Path) -> Vec<PathBuf> {
    let mut text = String::new();
    let read = open_regular(program).and_then(|file| file.take(SCRIPT + 1).read_to_string(&mut text));
    if !read.is_ok_and(|length| length as u64 <= SCRIPT) || !text.starts_with("#!") {
        return Vec::new();
    }
    let ends = |c: char| c.is_whitespace() || "\"'`;()=|&<>".contains(c);
    let mut named: Vec<PathBuf> = text
        .split(ends)
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect();
    named.dedup();
    named
}

/// Those that lie in no other.
fn outermost(mut trees: Vec<PathBuf>) -> Vec<PathBuf> {
    trees.sort_unstable();
    let mut kept: Vec<PathBuf> = Vec::new();
    for tree in trees {
        // What begins with a tree follows it in the order of their parts.
        if !kept.last().is_some_and(|last| tree.starts_with(last)) {
            kept.push(tree);
        }
    }
    kept
}

/// What is closed to an instance, links followed.
struct Closed {
    places: Vec<PathBuf>,
    /// Of what is closed, this may be read: nobody writes there.
    runtimes: PathBuf,
    /// People's homes are opened to nobody as a whole: the supervisor's user's, and the instance's.
    homes: Vec<PathBuf>,
    ways: Ways,
    written: Written,
}

impl Closed {
    fn new(ground: &Ground<'_>) -> Self {
        let ways = Ways::default();
        let data_dir = ways.resolve(data_dir(ground));
        let profiles =
            ground.neighbours.iter().filter(|other| other.profile.is_some() && other.name != *ground.name);
        let mut places: Vec<PathBuf> = profiles
            .flat_map(|other| places(&other.directories(&data_dir)))
            .map(|path| ways.resolve(&path))
            .collect();
        let runtimes = data_dir.join(RUNTIMES);
        let home =
            ground.host.environment.get("HOME").filter(|home| home.starts_with('/')).map(PathBuf::from);
        let homes = home.into_iter().chain(home_of_another(ground)).map(|home| ways.resolve(&home)).collect();
        let others = ground.neighbours.iter().filter(|one| one.profile.is_some() || !one.writes.is_empty());
        let others: Vec<(Directories, &[PathBuf])> =
            others.map(|one| (one.directories(&data_dir), one.writes.as_slice())).collect();
        let me = (ground.directories, ground.spec.walls.write.as_slice());
        let others = others.iter().map(|(directories, writes)| (directories, *writes));
        let written = Written::by(&data_dir, others.chain([me]));
        places.push(data_dir);
        Self { places, runtimes, homes, ways, written }
    }

    /// Where a tree of the host's is, unless it is open with those that the instance writes, or an agent could have led
    /// there.
    fn settled(&self, path: &Path, write: &[PathBuf]) -> Option<PathBuf> {
        let found = self.ways.found(path).filter(|_| !self.written.leads(&self.ways, path))?;
        (!is_open(&found, write)).then_some(found)
    }

    /// Whether nothing closed is met by `path`, nor around it.
    fn leaves(&self, path: &Path) -> bool {
        let path = self.ways.resolve(path);
        self.places.iter().all(|place| relation(&path, place).is_none()) || path.starts_with(&self.runtimes)
    }

    /// Whether `path` may be opened without having been granted.
    fn may(&self, path: &Path) -> bool {
        let resolved = self.ways.resolve(path);
        let whole_home = self.homes.iter().any(|home| home.starts_with(&resolved));
        resolved.parent().is_some() && !whole_home && self.leaves(&resolved)
    }

    /// `path`, if it may be opened.
    fn open(&self, path: &Path) -> Option<PathBuf> {
        self.may(path).then(|| path.to_owned())
    }

    /// A tree of the system's, without what is closed in it.
    fn without(&self, tree: &Path) -> Vec<PathBuf> {
        if self.leaves(tree) {
            return vec![tree.to_owned()];
        }
        let is_around = |path: &Path| self.places.iter().any(|place| place.starts_with(path));
        let resolved = self.ways.resolve(tree);
        if !is_around(&resolved) || self.places.contains(&resolved) {
            return Vec::new();
        }
        let Ok(entries) = fs::read_dir(&resolved) else { return Vec::new() };
        // Whoever may write here could lead a link anywhere, and back to where it lies; it is told by the same look that
        // says what is opened, as anything may become one.
        let is_no_link = |path: &PathBuf| self.ways.found(path).as_ref() == Some(path);
        entries
            .flatten()
            .take(ENTRIES)
            .map(|entry| resolved.join(entry.file_name()))
            .filter(is_no_link)
            .flat_map(|entry| self.without(&entry))
            .collect()
    }

    /// Where a program is installed, as widely as may be: its package or prefix, its directory, itself.
    fn installation(&self, program: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        // A link in an environment of its own (venv, nvm) stands for that environment.
        for file in [program.to_owned(), self.ways.resolve(program)] {
            let directory = file.parent().unwrap_or(&file);
            let widest =
                [package(&file), self.prefix(directory), Some(directory.to_owned()), Some(file.clone())];
            found.extend(widest.into_iter().flatten().find(|tree| self.may(tree)));
        }
        found.dedup();
        found
    }

    /// What a `bin` belongs to, if it is that of a Node or of a Python: by what no agent could have put there.
    fn prefix(&self, directory: &Path) -> Option<PathBuf> {
        let prefix =
            directory.parent().filter(|_| directory.file_name().is_some_and(|name| name == "bin"))?;
        let is_one = |marker: &str| {
            let marker = prefix.join(marker);
            marker.exists() && !self.written.could_be(&self.ways, &marker)
        };
        ["lib/node_modules", "bin/node", "pyvenv.cfg"].into_iter().any(is_one).then(|| prefix.to_owned())
    }
}

/// The home of the user of a profile, if that is another than the supervisor's.
fn home_of_another(ground: &Ground<'_>) -> Option<PathBuf> {
    let is_asked = ground.directories.layout == Layout::Profile && ground.spec.user.is_some();
    let entry = is_asked.then(|| unistd::User::from_uid(Uid::from_raw(ground.uid)).ok().flatten())??;
    entry.dir.is_absolute().then_some(entry.dir)
}

/// Where npm keeps it, together with what it needs.
fn package(file: &Path) -> Option<PathBuf> {
    let outermost =
        file.ancestors().filter(|above| above.file_name().is_some_and(|name| name == "node_modules"));
    outermost.last().map(Path::to_owned)
}

/// What a worker is told of the walls of an instance with this spec, but for its control group.
pub(crate) fn around(
    spec: &InstanceSpec,
    trees: Option<Trees>,
    block: Block,
    user: Option<User>,
) -> worker::Walls {
    let asked = &spec.walls;
    let texts =
        |paths: Vec<PathBuf>| paths.into_iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let Trees { write, files, read } = trees.unwrap_or_default();
    let ports = PortRange { first: block.base.into(), last: block.last().into() };
    worker::Walls {
        write: texts(write),
        files: texts(files),
        read: texts(read),
        bind: asked.ports().then_some(ports).into_iter().collect(),
        apart: asked.apart(),
        privileges: asked.privileges(),
        limits: Some(limits::limits(spec, user.as_ref())),
        oom_score_adj: Some(limits::oom_score(spec)),
        user: user.map(|User { uid, gid, groups }| worker::User { uid, gid, groups }),
        ..worker::Walls::default()
    }
}

#[cfg(test)]
mod tests;
