//! Where the supervisor is among the control groups of the host, and whether that is its own to divide.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use rustix::fs::{Access, access, getxattr};

use super::{Ground, Seat};
use crate::lineage::SEAT;

/// How systemd says that a group is its user's to divide: since 251 the first, before that and for root the other.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// The ground, or why there is none, as a clause.
pub(super) fn ground() -> Result<Ground, String> {
    let read =
        |path: &str| fs::read_to_string(path).map_err(|error| format!("failed to read `{path}`: {error}"));
    let groups = read("/proc/self/cgroup")?;
    let own = own(&groups, &read("/proc/self/mountinfo")?)?;
    let (directory, seat) = seat(&own, is_delegated)?;
    access(&directory, Access::WRITE_OK)
        .map_err(|error| format!("failed to write to `{}`: {error}", directory.display()))?;
    Ok(Ground { directory, seat, elsewhere: elsewhere(&groups) })
}

/// The directory of this process's group: what `/proc/self/cgroup` says, where `/proc/self/mountinfo` has it (proc(5)).
fn own(groups: &str, mounts: &str) -> Result<PathBuf, String> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let group = Path::new(group.ok_or("the kernel has no cgroup v2")?);
    let mut mounted = false;
    for (root, at) in mounts.lines().filter_map(mount) {
        mounted = true;
        if let Ok(within) = group.strip_prefix(&root)
            && !within.components().any(|part| part == Component::ParentDir)
        {
            // Joining nothing would end the path with a slash.
            return Ok(at.join(within).components().collect());
        }
    }
    Err(match mounted {
        true => format!("the supervisor's control group, `{}`, cannot be seen from here", group.display()),
        false => "no cgroup v2 is mounted here".to_owned(),
    })
}

/// Root and place of a mount of cgroup v2.
fn mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (mount, file_system) = line.split_once(" - ")?;
    if !file_system.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3).map(unescaped);
    Some((fields.next()?, fields.next()?))
}

fn unescaped(field: &str) -> PathBuf {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into()
}

fn seat(own: &Path, is_delegated: impl Fn(&Path) -> bool) -> Result<(PathBuf, Seat), String> {
    match own.parent().filter(|_| own.file_name().is_some_and(|name| name == SEAT)) {
        Some(ground) => Ok((ground.to_owned(), Seat::Beside)),
        None if is_delegated(own) => Ok((own.to_owned(), Seat::Within)),
        None => Err(format!("the supervisor's control group, `{}`, is not its own to divide", own.display())),
    }
}

fn is_delegated(group: &Path) -> bool {
    let mut value = [0; 1];
    DELEGATED.iter().any(|name| getxattr(group, *name, &mut value).is_ok() && value == *b"1")
}

/// The controllers of hierarchies of cgroup v1.
fn elsewhere(groups: &str) -> BTreeSet<String> {
    let controllers = groups.lines().filter_map(|line| line.split(':').nth(1));
    controllers
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
                      35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    const UNIT: &str = "0::/system.slice/openclaw-supervisor.service/supervisor\n";

    fn found(groups: &str, mounts: &str) -> Result<String, String> {
        own(groups, mounts).map(|own| own.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_own_group_is_found_where_it_is_mounted() {
        let unit = "/sys/fs/cgroup/system.slice/openclaw-supervisor.service/supervisor";
        assert_eq!(found(UNIT, V2).as_deref(), Ok(unit));
        assert_eq!(found("0::/\n", V2).as_deref(), Ok("/sys/fs/cgroup"));
        let beside_v1 = V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ");
        assert_eq!(found("4:memory:/x\n0::/a\n", &beside_v1).as_deref(), Ok("/sys/fs/cgroup/unified/a"));
        let part = V2.replace("0:30 / /sys/fs/cgroup ", "0:30 /a/b /mnt/with\\040space ");
        assert_eq!(found("0::/a/b/c\n", &part).as_deref(), Ok("/mnt/with space/c"));
    }

    #[test]
    fn a_group_that_cannot_be_seen_is_none() {
        assert_eq!(found("4:memory:/x\n", V2), Err("the kernel has no cgroup v2".into()));
        assert_eq!(found("0::/a\n", ""), Err("no cgroup v2 is mounted here".into()));
        let part = V2.replace("0:30 / ", "0:30 /other ");
        assert!(found("0::/a\n", &part).unwrap_err().contains("`/a`, cannot be seen"));
        assert!(found("0::/../a\n", V2).unwrap_err().contains("cannot be seen"));
    }

    #[test]
    fn only_what_was_given_is_divided() {
        let unit = Path::new("/cg/x.service");
        assert_eq!(seat(&unit.join("supervisor"), |_| false), Ok((unit.to_owned(), Seat::Beside)));
        assert_eq!(seat(unit, |_| true), Ok((unit.to_owned(), Seat::Within)));
        let session = Path::new("/cg/user.slice/session-1.scope");
        assert!(seat(session, |_| false).unwrap_err().contains("is not its own to divide"));
    }

    #[test]
    fn controllers_of_cgroup_v1_are_known_by_name() {
        let groups = "4:memory:/x\n3:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n";
        let elsewhere = elsewhere(groups);
        assert!(["memory", "cpu"].iter().all(|controller| elsewhere.contains(*controller)));
        assert!(!elsewhere.contains("pids") && !elsewhere.contains(""));
    }
}
