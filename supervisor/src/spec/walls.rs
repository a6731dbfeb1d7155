//! What the kernel is to hold an instance to: walls, limits, a user of its own.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{
    Bytes, FieldPath, InstanceSpec,
    check::{Checker, MAX_ITEMS, MAX_PATH},
    or,
};

/// Below it no gateway starts: OpenClaw has some 60 files open when it is idle.
const LEAST_FILES: u64 = 128;

/// Below it no gateway starts: OpenClaw has some 40 threads, and each counts.
const LEAST_PROCESSES: u64 = 64;

/// Below it a gateway does not get ready in time: the start of OpenClaw takes ten seconds of a whole processor.
const LEAST_CPU: u64 = 50;

/// More than any host has; what is more is a mistake of unit.
const MOST_CPU: u64 = 1_000_000;

/// The most that any kernel takes (pid_max and nr_open, proc(5)); what is more is a mistake of unit.
const MOST: u64 = 1 << 30;

/// The longest name of a user (useradd(8)).
const LONGEST_USER: usize = 32;

/// The walls around an instance. Each stands unless it is said to be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Walls {
    /// Its own files and the system's, and no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<bool>,
    /// Listening on its own ports only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<bool>,
    /// No signal to anything outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apart: Option<bool>,
    /// No more privileges than a program of its own needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<bool>,
    /// Trees that it may read, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<PathBuf>,
    /// Trees that it may write, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<PathBuf>,
}

/// What an instance may use of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open files of each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Processes and threads: its own, and those of its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Size of a core dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<Bytes>,
    /// Thousandths of one processor's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_permille: Option<u32>,
}

/// A user of the host, by name or by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct UserName(pub String);

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = UserName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name or the number of a user")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<UserName, E> {
                Ok(UserName(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<UserName, E> {
                Ok(UserName(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Walls {
    pub(super) fn merged(&self, defaults: &Self) -> Self {
        let list = |mine: &Vec<PathBuf>, theirs: &Vec<PathBuf>| {
            if mine.is_empty() { theirs.clone() } else { mine.clone() }
        };
        Self {
            files: or(&self.files, &defaults.files),
            ports: or(&self.ports, &defaults.ports),
            apart: or(&self.apart, &defaults.apart),
            privileges: or(&self.privileges, &defaults.privileges),
            read: list(&self.read, &defaults.read),
            write: list(&self.write, &defaults.write),
        }
    }

    /// Whether its files are walled.
    #[must_use]
    pub fn files(&self) -> bool {
        self.files.unwrap_or(true)
    }

    /// Whether its ports are.
    #[must_use]
    pub fn ports(&self) -> bool {
        self.ports.unwrap_or(true)
    }

    /// Whether it is kept apart from other processes.
    #[must_use]
    pub fn apart(&self) -> bool {
        self.apart.unwrap_or(true)
    }

    /// Whether its privileges are taken.
    #[must_use]
    pub fn privileges(&self) -> bool {
        self.privileges.unwrap_or(true)
    }

    /// The grants of more, with the names of their fields and their places in these.
    pub fn grants(&self) -> impl Iterator<Item = (&'static str, usize, &Path)> {
        let read = self.read.iter().enumerate().map(|(index, path)| ("read", index, path.as_path()));
        let write = self.write.iter().enumerate().map(|(index, path)| ("write", index, path.as_path()));
        read.chain(write)
    }
}

impl Limits {
    pub(super) fn merged(&self, defaults: &Self) -> Self {
        Self {
            files: or(&self.files, &defaults.files),
            processes: or(&self.processes, &defaults.processes),
            core: or(&self.core, &defaults.core),
            cpu_permille: or(&self.cpu_permille, &defaults.cpu_permille),
        }
    }
}

/// What is wrong with this part of a spec.
pub(super) fn check(spec: &InstanceSpec, checker: &mut Checker) {
    let Walls { read, write, .. } = &spec.walls;
    for (field, paths) in [("read", read), ("write", write)] {
        let many = (paths.len() > MAX_ITEMS).then_some(paths.len() as u64);
        checker.number(&["walls", field], many, 0, MAX_ITEMS as u64);
    }
    for (field, index, path) in spec.walls.grants().take(2 * MAX_ITEMS) {
        check_grant(FieldPath::of(&["walls", field]).item(index), path, checker);
    }
    if !spec.walls.files() && spec.walls.grants().next().is_some() {
        let message = "files are not walled, so nothing has to be granted";
        checker.add(FieldPath::of(&["walls", "files"]), message, "remove it, or `read` and `write`");
    }
    let Limits { files, processes, core, cpu_permille } = &spec.limits;
    checker.number(&["limits", "files"], *files, LEAST_FILES, MOST);
    checker.number(&["limits", "processes"], *processes, LEAST_PROCESSES, MOST);
    checker.number(&["limits", "core"], core.map(|core| core.0), 0, 1 << 50);
    checker.number(&["limits", "cpu_permille"], cpu_permille.map(u64::from), LEAST_CPU, MOST_CPU);
    if let Some(UserName(user)) = &spec.user {
        check_user(user, checker);
    }
}

fn check_grant(at: FieldPath, path: &Path, checker: &mut Checker) {
    let shown = path.display();
    if !path.is_absolute() {
        checker.add(at.clone(), format!("`{shown}` is not absolute"), "write the path from `/` on");
    } else if path.components().any(|part| part == Component::ParentDir) {
        checker.add(at.clone(), format!("`{shown}` holds `..`"), "write the path without it");
    } else if path == Path::new("/") {
        checker.add(at.clone(), "that is everything", "name what it needs, or say `files: false`");
    }
    checker.text(at, &path.to_string_lossy(), MAX_PATH);
}

fn check_user(user: &str, checker: &mut Checker) {
    let number = user.bytes().all(|byte| byte.is_ascii_digit());
    // The last one means "no change" to the kernel (setresuid(2)).
    let fits = match number {
        true => user.parse::<u32>().is_ok_and(|uid| uid != u32::MAX),
        false => {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            user.len() <= LONGEST_USER
                && user.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && user.strip_suffix('$').unwrap_or(user).bytes().all(inner)
        }
    };
    if !fits {
        let message = format!("`{user}` is neither the name nor the number of a user");
        checker.add(FieldPath::of(&["user"]), message, "write it as `id -un` or `id -u` does");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: &InstanceSpec) -> Vec<String> {
        spec.validate().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_wall_stands_unless_it_is_left_out() {
        let walls = Walls::default();
        assert!(walls.files() && walls.ports() && walls.apart() && walls.privileges());
        let open = Walls { ports: Some(false), ..Walls::default() };
        assert!(open.files() && !open.ports());
        let merged = Walls::default().merged(&open);
        assert!(!merged.ports(), "a default of the fleet holds where nothing else is said");
        assert!(Walls { ports: Some(true), ..Walls::default() }.merged(&open).ports());
    }

    #[test]
    fn a_grant_of_everything_or_of_nowhere_is_refused() {
        let granted = |path: &str| {
            let walls = Walls { write: vec![path.into()], ..Walls::default() };
            refused(&InstanceSpec { walls, ..InstanceSpec::default() })
        };
        assert_eq!(granted("/srv/data"), Vec::<String>::new());
        assert_eq!(
            granted("/"),
            ["`walls.write[0]`: that is everything; name what it needs, or say `files: false`"]
        );
        assert_eq!(granted("data"), ["`walls.write[0]`: `data` is not absolute; write the path from `/` on"]);
        assert_eq!(granted("/a/../b"), ["`walls.write[0]`: `/a/../b` holds `..`; write the path without it"]);
    }

    #[test]
    fn a_grant_without_a_wall_is_a_mistake() {
        let walls = Walls { files: Some(false), read: vec!["/srv".into()], ..Walls::default() };
        let told = refused(&InstanceSpec { walls, ..InstanceSpec::default() });
        assert_eq!(
            told,
            [
                "`walls.files`: files are not walled, so nothing has to be granted; remove it, or `read` and `write`"
            ]
        );
    }

    #[test]
    fn a_user_is_a_name_or_a_number() {
        let user = |user: &str| {
            let user = Some(UserName(user.into()));
            refused(&InstanceSpec { user, ..InstanceSpec::default() })
        };
        for good in ["ada", "_claw", "1001", "0", "a.b-c_d", "host$"] {
            assert_eq!(user(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["", "4294967295", "99999999999", "a b", "-x", "1a", "a:b"] {
            assert_eq!(user(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn limits_below_what_a_gateway_needs_are_refused() {
        let limits =
            Limits { files: Some(10), processes: Some(1), core: Some(Bytes(0)), cpu_permille: Some(10) };
        let told = refused(&InstanceSpec { limits, ..InstanceSpec::default() });
        assert_eq!(told.len(), 3, "{told:?}");
    }
}
